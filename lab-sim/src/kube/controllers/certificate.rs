//! Certificates: issuers become ready, and their certificates are written into secrets.

use base64::Engine;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use super::addon::Process;
use super::{Cluster, Round, condition, leaving, text};
use crate::kube::quantity::timestamp;

const CERTIFICATES: &str = "/apis/cert-manager.io/v1/certificates";
const ISSUERS: &str = "/apis/cert-manager.io/v1/issuers";
const CLUSTER_ISSUERS: &str = "/apis/cert-manager.io/v1/clusterissuers";
const SECRETS: &str = "/api/v1/secrets";
const MANAGER: &str = "cert-manager-certificates-issuing";
const DAYS: u64 = 90;

impl<C: Cluster> Round<'_, C> {
    pub(super) async fn certificates(&mut self) {
        if self.process(Process::CertManager).is_none() {
            return;
        }
        for path in [ISSUERS, CLUSTER_ISSUERS] {
            for issuer in self.all(path).iter().filter(|issuer| !leaving(issuer)) {
                self.issuer(path, issuer).await;
            }
        }
        for certificate in self.all(CERTIFICATES).iter().filter(|one| !leaving(one)) {
            self.certificate(certificate).await;
        }
    }

    async fn issuer(&mut self, path: &str, issuer: &Value) {
        let spec = &issuer["spec"];
        let (ready, reason, message) = if spec["ca"].is_object() {
            let name = spec["ca"]["secretName"].as_str().unwrap_or_default();
            match self.find(SECRETS, secrets_of(issuer), name) {
                Some(_) => (true, "KeyPairVerified", "Signing CA verified".to_string()),
                None => (
                    false,
                    "ErrGetKeyPair",
                    format!("Error getting keypair for CA issuer: secrets \"{name}\" not found"),
                ),
            }
        } else if spec["selfSigned"].is_object() {
            (true, "IsReady", String::new())
        } else if spec["acme"].is_object() {
            if !self.after(&format!("acme/{}", text(issuer, "uid")), self.settings.issue) {
                return;
            }
            (true, "ACMEAccountRegistered", "The ACME account was registered with the ACME server".to_string())
        } else {
            (false, "NotSimulated", "the simulated cert-manager knows selfSigned, ca and acme issuers".to_string())
        };
        let now = self.timestamp();
        let mut condition = condition(issuer, "Ready", ready, reason, &message, &now);
        condition["observedGeneration"] = issuer["metadata"]["generation"].clone();
        self.status(path, issuer, &json!({"conditions": [condition]}), "cert-manager-issuers").await;
    }

    async fn certificate(&mut self, certificate: &Value) {
        let namespace = text(certificate, "namespace").to_string();
        let secret_name = certificate["spec"]["secretName"].as_str().unwrap_or_default();
        let reference = &certificate["spec"]["issuerRef"];
        let name = reference["name"].as_str().unwrap_or_default();
        let cluster_wide = reference["kind"] == "ClusterIssuer";
        let issuer =
            if cluster_wide { self.find(CLUSTER_ISSUERS, "", name) } else { self.find(ISSUERS, &namespace, name) };
        let ready = |issuer: &Value| {
            let conditions = issuer["status"]["conditions"].as_array();
            conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True")
        };
        let secret = self.find(SECRETS, &namespace, secret_name);
        let wanted = names(certificate).join(",");
        let issued = secret.as_ref().is_some_and(|secret| {
            let annotations = &secret["metadata"]["annotations"];
            annotations["cert-manager.io/alt-names"] == wanted.as_str()
                && annotations["cert-manager.io/issuer-name"] == name
                && secret["data"]["tls.crt"].is_string()
        });
        let now = self.timestamp();
        let generation = certificate["metadata"]["generation"].clone();
        if issued {
            let message = "Certificate is up to date and has not expired";
            let mut condition = condition(certificate, "Ready", true, "Ready", message, &now);
            condition["observedGeneration"] = generation;
            let mut status = json!({"conditions": [condition]});
            if certificate["status"]["notAfter"].is_null() {
                let day = std::time::Duration::from_secs(86_400);
                let end = self.now + day * u32::try_from(DAYS).unwrap_or(90);
                status["notBefore"] = now.into();
                status["notAfter"] = timestamp(end).into();
                status["renewalTime"] = timestamp(end - day * 30).into();
                status["revision"] = 1.into();
            }
            self.status(CERTIFICATES, certificate, &status, "cert-manager-certificates-readiness").await;
            return;
        }
        let message = format!("Issuing certificate as Secret does not exist: {secret_name}");
        let mut not_ready = condition(certificate, "Ready", false, "DoesNotExist", &message, &now);
        not_ready["observedGeneration"] = generation.clone();
        let mut issuing = condition(certificate, "Issuing", true, "DoesNotExist", &message, &now);
        issuing["observedGeneration"] = generation;
        let status = json!({"conditions": [not_ready, issuing]});
        self.status(CERTIFICATES, certificate, &status, "cert-manager-certificates-trigger").await;
        let Some(issuer) = issuer.filter(ready) else { return };
        if !self.after(&format!("issue/{}/{wanted}", text(certificate, "uid")), self.settings.issue) {
            return;
        }
        match self.issue(certificate, &issuer) {
            Ok(data) => self.keep(certificate, secret.as_ref(), name, &wanted, &data).await,
            Err(problem) => {
                self.event(certificate, "Certificate", "Warning", "Failed", &problem, "cert-manager").await;
            }
        }
    }

    async fn keep(&mut self, certificate: &Value, secret: Option<&Value>, issuer: &str, names: &str, data: &Value) {
        let annotations = json!({
            "cert-manager.io/alt-names": names, "cert-manager.io/certificate-name": text(certificate, "name"),
            "cert-manager.io/issuer-name": issuer,
            "cert-manager.io/issuer-kind": certificate["spec"]["issuerRef"]["kind"].as_str().unwrap_or("Issuer"),
            "cert-manager.io/issuer-group": "cert-manager.io",
        });
        match secret {
            Some(secret) => {
                let patch = json!({"metadata": {"annotations": annotations}, "data": data});
                self.merge(SECRETS, secret, &patch, MANAGER).await;
            }
            None => {
                let secret = json!({
                    "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
                    "metadata": {
                        "name": certificate["spec"]["secretName"], "namespace": text(certificate, "namespace"),
                        "annotations": annotations,
                        "labels": {"controller.cert-manager.io/fao": "true"},
                    },
                    "data": data,
                });
                self.create(SECRETS, &secret, MANAGER).await;
            }
        }
    }

    fn issue(&self, certificate: &Value, issuer: &Value) -> Result<Value, String> {
        let spec = &certificate["spec"];
        let failed = |error: rcgen::Error| format!("failed to issue: {error}");
        let alternatives: Vec<String> = names(certificate);
        if alternatives.is_empty() {
            return Err("at least one of commonName, dnsNames or ipAddresses must be set".into());
        }
        let mut params = CertificateParams::new(alternatives.clone()).map_err(failed)?;
        let common = spec["commonName"].as_str().unwrap_or(&alternatives[0]);
        params.distinguished_name.push(DnType::CommonName, common);
        if spec["isCA"] == true {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let key = KeyPair::generate().map_err(failed)?;
        let encode = |text: String| Value::from(base64::engine::general_purpose::STANDARD.encode(text));
        if issuer["spec"]["selfSigned"].is_object() {
            let pem = params.self_signed(&key).map_err(failed)?.pem();
            return Ok(json!({
                "tls.crt": encode(pem.clone()), "ca.crt": encode(pem), "tls.key": encode(key.serialize_pem()),
            }));
        }
        if issuer["spec"]["acme"].is_object() {
            // An authority of the moment stands in for the one on the internet, which nobody in the lab can reach.
            let mut authority = CertificateParams::new(Vec::<String>::new()).map_err(failed)?;
            authority.distinguished_name.push(DnType::CommonName, "(SIMULATED) ACME authority");
            authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let authority_key = KeyPair::generate().map_err(failed)?;
            let authority = CertifiedIssuer::self_signed(authority, authority_key).map_err(failed)?;
            let pem = params.signed_by(&key, &authority).map_err(failed)?.pem();
            return Ok(json!({"tls.crt": encode(pem), "tls.key": encode(key.serialize_pem())}));
        }
        let name = issuer["spec"]["ca"]["secretName"].as_str().unwrap_or_default();
        let secret =
            self.find(SECRETS, secrets_of(issuer), name).ok_or_else(|| format!("secret \"{name}\" not found"))?;
        let decode = |field: &str| -> Result<String, String> {
            let text = secret["data"][field].as_str().ok_or_else(|| format!("secret \"{name}\" has no {field}"))?;
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).map_err(|error| error.to_string())?;
            String::from_utf8(bytes).map_err(|error| error.to_string())
        };
        let authority = decode("tls.crt")?;
        let authority_key = KeyPair::from_pem(&decode("tls.key")?).map_err(failed)?;
        let signer = Issuer::from_ca_cert_pem(&authority, authority_key).map_err(failed)?;
        let pem = params.signed_by(&key, &signer).map_err(failed)?.pem();
        Ok(json!({
            "tls.crt": encode(pem + &authority), "ca.crt": encode(authority), "tls.key": encode(key.serialize_pem()),
        }))
    }
}

fn names(certificate: &Value) -> Vec<String> {
    let spec = &certificate["spec"];
    let lists = ["dnsNames", "ipAddresses"].iter().flat_map(|field| spec[*field].as_array().into_iter().flatten());
    let mut names: Vec<String> = lists.filter_map(Value::as_str).map(String::from).collect();
    if names.is_empty() {
        names.extend(spec["commonName"].as_str().map(String::from));
    }
    names
}

// A cluster-wide issuer keeps its secrets beside cert-manager.
fn secrets_of(issuer: &Value) -> &str {
    let namespace = text(issuer, "namespace");
    if namespace.is_empty() { "cert-manager" } else { namespace }
}
