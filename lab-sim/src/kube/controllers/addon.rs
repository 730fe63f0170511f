//! Add-ons: which of them run, and what their processes make at their start that others wait for.
//!
//! An add-on runs when a pod with its image is ready, whatever its objects are called.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use serde_json::{Value, json};

use super::workload::is_ready;
use super::{Cluster, Round, leaving, owned_by, text};

const PODS: &str = "/api/v1/pods";
const SECRETS: &str = "/api/v1/secrets";
const DEPLOYMENTS: &str = "/apis/apps/v1/deployments";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const HOOKS: [&str; 2] = [
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
];

const METALLB: &str = "metallb-controller";
const WEBHOOK: &str = "cert-manager-webhook";
const INJECTOR: &str = "cert-manager-cainjector";

/// Who writes secrets whose content differs from run to run.
const ISSUERS: [&str; 3] = ["cert-manager-certificates-issuing", WEBHOOK, METALLB];

/// A process of an add-on, as the end of its image's name without the tag.
#[derive(Clone, Copy)]
pub(super) enum Process {
    MetalLbController,
    CertManager,
    CertManagerInjector,
    CertManagerWebhook,
}

impl Process {
    fn image(self) -> &'static str {
        match self {
            Process::MetalLbController => "metallb/controller",
            Process::CertManager => "cert-manager-controller",
            Process::CertManagerInjector => "cert-manager-cainjector",
            Process::CertManagerWebhook => "cert-manager-webhook",
        }
    }

    fn is(self, container: &Value) -> bool {
        let image = container["image"].as_str().unwrap_or_default();
        let name = image.split('@').next().unwrap_or_default();
        // A colon after the last slash begins the tag; one before it, a port.
        let tag = name.rfind(':').filter(|colon| name.rfind('/').is_none_or(|slash| slash < *colon));
        let name = &name[..tag.unwrap_or(name.len())];
        name.strip_suffix(self.image()).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
    }
}

/// Returns whether a secret was made up by an add-on.
pub(in crate::kube) fn is_made_up(secret: &Value) -> bool {
    let writers = secret["metadata"]["managedFields"].as_array().into_iter().flatten();
    secret["kind"] == "Secret"
        && writers.filter_map(|entry| entry["manager"].as_str()).any(|manager| ISSUERS.contains(&manager))
}

/// Returns whether an authority is written into an object by the injector of cert-manager.
pub(in crate::kube) fn is_injected(object: &Value) -> bool {
    let annotations = &object["metadata"]["annotations"];
    [FROM_SECRET, FROM_CERTIFICATE, FROM_SERVER].iter().any(|name| annotations[*name].is_string())
}

const FROM_SECRET: &str = "cert-manager.io/inject-ca-from-secret";
const FROM_CERTIFICATE: &str = "cert-manager.io/inject-ca-from";
const FROM_SERVER: &str = "cert-manager.io/inject-apiserver-ca";
const ALLOWED: &str = "cert-manager.io/allow-direct-injection";

impl<C: Cluster> Round<'_, C> {
    pub(super) async fn addons(&mut self) {
        if let Some((pod, container)) = self.process(Process::MetalLbController) {
            self.memberlist(&pod, &container).await;
        }
        if let Some((pod, container)) = self.process(Process::CertManagerWebhook) {
            self.webhook_authority(&pod, &container).await;
        }
        if self.process(Process::CertManagerInjector).is_some() {
            self.inject().await;
        }
    }

    /// Returns a ready pod in which the process runs, and its container.
    pub(super) fn process(&self, process: Process) -> Option<(Value, Value)> {
        self.all(PODS).iter().filter(|pod| is_ready(pod) && !leaving(pod)).find_map(|pod| {
            let mut containers = pod["spec"]["containers"].as_array().into_iter().flatten();
            containers.find(|container| process.is(container)).map(|container| (pod.clone(), container.clone()))
        })
    }

    /// Makes a secret once in the life of a pod, unless it is there.
    async fn made_at_start(&mut self, pod: &Value, secret: &Value, agent: &str) {
        let (namespace, name) = (text(secret, "namespace"), text(secret, "name"));
        if self.find(SECRETS, namespace, name).is_some() || self.create(SECRETS, secret, agent).await.is_some() {
            self.memory.told.insert(started(pod));
        }
    }

    // The key that MetalLB's speakers find each other with. Without the variable the controller makes none.
    async fn memberlist(&mut self, pod: &Value, container: &Value) {
        let variable = |name: &str| {
            let variables = container["env"].as_array();
            let found = variables.into_iter().flatten().find(|variable| variable["name"] == name);
            found.and_then(|variable| variable["value"].as_str()).map(String::from)
        };
        let Some(name) = variable("METALLB_ML_SECRET_NAME") else { return };
        if self.memory.told.contains(&started(pod)) {
            return;
        }
        let namespace = text(pod, "namespace");
        let owner = variable("METALLB_DEPLOYMENT").and_then(|owner| self.find(DEPLOYMENTS, namespace, &owner));
        let Some(owner) = owner else {
            let message = "the Deployment named by METALLB_DEPLOYMENT was not found";
            self.event(pod, "Pod", "Warning", "NoMemberlist", message, METALLB).await;
            return;
        };
        let mut owners = owned_by(&owner, "apps/v1", "Deployment");
        for field in ["controller", "blockOwnerDeletion"] {
            owners[0].as_object_mut().expect("a reference").remove(field);
        }
        let mut seed = [0; 32];
        seed.iter_mut().zip(text(pod, "uid").bytes()).for_each(|(seed, byte)| *seed = byte);
        let mut key = [0; 128];
        StdRng::from_seed(seed).fill_bytes(&mut key);
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": name, "namespace": namespace, "ownerReferences": owners},
            "data": {"secretkey": STANDARD.encode(STANDARD.encode(key))},
        });
        self.made_at_start(pod, &secret, METALLB).await;
    }

    // What the webhook's own certificate is signed with, which API servers are told to trust.
    async fn webhook_authority(&mut self, pod: &Value, container: &Value) {
        let argument = |name: &str| {
            let mut given = container["args"].as_array().into_iter().flatten().filter_map(Value::as_str);
            given.find_map(|one| one.strip_prefix(name)?.strip_prefix('=')).map(String::from)
        };
        let Some(name) = argument("--dynamic-serving-ca-secret-name") else { return };
        if self.memory.told.contains(&started(pod)) {
            return;
        }
        let namespace = argument("--dynamic-serving-ca-secret-namespace").filter(|given| !given.starts_with("$("));
        let namespace = namespace.unwrap_or_else(|| text(pod, "namespace").into());
        let made = authority().unwrap_or_else(|error| panic!("an authority of fixed content: {error}"));
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": name, "namespace": namespace, "annotations": {ALLOWED: "true"}},
            "data": {
                "ca.crt": STANDARD.encode(&made.0), "tls.crt": STANDARD.encode(&made.0),
                "tls.key": STANDARD.encode(&made.1),
            },
        });
        self.made_at_start(pod, &secret, WEBHOOK).await;
    }

    async fn inject(&mut self) {
        for path in HOOKS {
            for object in self.all(path).iter().filter(|one| !leaving(one)) {
                let Some(authority) = self.injected(object) else { continue };
                let mut hooks = object["webhooks"].clone();
                for hook in hooks.as_array_mut().into_iter().flatten() {
                    hook["clientConfig"]["caBundle"] = authority.clone();
                }
                if !hooks.is_null() {
                    self.merge(path, object, &json!({"webhooks": hooks}), INJECTOR).await;
                }
            }
        }
        for definition in self.all(DEFINITIONS).iter().filter(|one| !leaving(one)) {
            if definition["spec"]["conversion"]["strategy"] != "Webhook" {
                continue;
            }
            let Some(authority) = self.injected(definition) else { continue };
            let patch = json!({"spec": {"conversion": {"webhook": {"clientConfig": {"caBundle": authority}}}}});
            self.merge(DEFINITIONS, definition, &patch, INJECTOR).await;
        }
    }

    // Returns the authority that an object asks for, in base64, once it can be had.
    fn injected(&self, object: &Value) -> Option<Value> {
        let annotations = &object["metadata"]["annotations"];
        let named = |annotation: &str| annotations[annotation].as_str()?.split_once('/');
        let secret = if let Some((namespace, name)) = named(FROM_SECRET) {
            // A secret is read out only when it says that it may be.
            let secret = self.find(SECRETS, namespace, name);
            secret.filter(|secret| secret["metadata"]["annotations"][ALLOWED] == "true")?
        } else if let Some((namespace, name)) = named(FROM_CERTIFICATE) {
            let certificate = self.find("/apis/cert-manager.io/v1/certificates", namespace, name)?;
            self.find(SECRETS, namespace, certificate["spec"]["secretName"].as_str()?)?
        } else if annotations[FROM_SERVER] == "true" {
            return Some(STANDARD.encode(&self.settings.authority).into());
        } else {
            return None;
        };
        Some(secret["data"]["ca.crt"].clone()).filter(Value::is_string)
    }
}

fn started(pod: &Value) -> String {
    format!("started/{}", text(pod, "uid"))
}

fn authority() -> Result<(String, String), rcgen::Error> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name.push(DnType::CommonName, "cert-manager-webhook-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_image_whatever_registry_and_tag() {
        let check = |image: &str, is: bool| {
            assert_eq!(Process::MetalLbController.is(&json!({"image": image})), is, "{image}");
        };
        check("quay.io/metallb/controller:v0.14.9", true);
        check("registry.lan:5000/mirror/metallb/controller", true);
        check("metallb/controller@sha256:00", true);
        check("metallb/controller:v1@sha256:00", true);
        check("quay.io/metallb/speaker:v0.14.9", false);
        check("quay.io/notmetallb/controller:v0.14.9", false);
    }
}
