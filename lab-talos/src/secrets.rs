//! The secrets of a cluster: tokens, encryption keys and authorities, made once and then kept for its whole life.
//!
//! The YAML form is that of `talosctl gen secrets`, so that a cluster made elsewhere can be taken over and one made
//! here can be handed on. There is deliberately no `Serialize`: a bundle goes into a stored value only as the text of
//! [`Secrets::to_yaml`], inside a secret.

use crate::authority::{Algorithm, Authority, Pair, derive};
use crate::yaml::Yaml;
use crate::{pem, rsa_key};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use rand::rngs::{OsRng, StdRng};
use rand::{Rng, RngCore, SeedableRng};
use std::fmt;
use std::time::{Duration, SystemTime};

/// The secrets of one cluster. Certificates and keys are PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets {
    /// Identifies the cluster to the discovery service.
    pub cluster_id: String,
    /// Encrypts what is told to the discovery service.
    pub cluster_secret: String,
    /// Lets a kubelet join.
    pub bootstrap_token: String,
    /// Encrypts Kubernetes secrets in etcd.
    pub secretbox_encryption_secret: String,
    /// Encrypts Kubernetes secrets in etcd, in clusters that began before Talos 1.3; else empty.
    pub aescbc_encryption_secret: String,
    /// Lets a machine join: trustd signs for whom knows it.
    pub trustd_token: String,
    /// The authority of etcd.
    pub etcd: Pair,
    /// The authority of Kubernetes.
    pub kubernetes: Pair,
    /// The authority of the API aggregation layer.
    pub aggregator: Pair,
    /// Signs service account tokens.
    pub service_account: String,
    /// The authority of the machine API.
    pub os: Pair,
}

/// Why a bundle cannot be read: every reason, in Talos' own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretsError(pub Vec<String>);

impl fmt::Display for SecretsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "secrets bundle: {}", self.0.join("; "))
    }
}

impl std::error::Error for SecretsError {}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("cluster_id", &self.cluster_id).finish_non_exhaustive()
    }
}

impl Secrets {
    /// Returns a new bundle whose authorities are valid from `not_before` (whole seconds count). Everything in it is
    /// determined by the two arguments; the seed is therefore as secret as the bundle.
    ///
    /// Blocks for the search of two large primes: about a second on two cores.
    pub fn generate(seed: [u8; 32], not_before: SystemTime) -> Secrets {
        let bytes = |purpose| STANDARD.encode(derive(seed, purpose));
        let authority =
            |algorithm, name, purpose| Authority::generate(algorithm, name, not_before, derive(seed, purpose));
        Secrets {
            cluster_id: URL_SAFE.encode(derive(seed, "cluster id")),
            cluster_secret: bytes("cluster secret"),
            bootstrap_token: token(derive(seed, "bootstrap token")),
            secretbox_encryption_secret: bytes("secretbox"),
            aescbc_encryption_secret: String::new(),
            trustd_token: token(derive(seed, "trustd token")),
            etcd: authority(Algorithm::P256, "etcd", "etcd"),
            kubernetes: authority(Algorithm::P256, "kubernetes", "kubernetes"),
            aggregator: authority(Algorithm::P256, "", "aggregator"),
            service_account: pem::encode("RSA PRIVATE KEY", &rsa_key::generate(derive(seed, "service account"))),
            os: authority(Algorithm::Ed25519, "talos", "os"),
        }
    }

    /// Returns a seed from the operating system.
    pub fn seed() -> [u8; 32] {
        let mut seed = [0; 32];
        OsRng.fill_bytes(&mut seed);
        seed
    }

    /// Reads a bundle.
    ///
    /// # Errors
    ///
    /// Everything that is missing or unreadable, in one go.
    pub fn from_yaml(text: &str) -> Result<Secrets, SecretsError> {
        let document = Yaml::parse(text)
            .map_err(|error| SecretsError(vec![error]))?
            .into_iter()
            .next()
            .ok_or_else(|| SecretsError(vec!["the file is empty".into()]))?;
        Secrets::from_document(document)
    }

    /// Rebuilds the bundle of a running cluster from the configuration of one of its control planes, which holds all
    /// of it.
    ///
    /// # Errors
    ///
    /// Everything that is missing or unreadable, in one go; a worker's configuration lacks the keys.
    pub fn from_control_plane(documents: &[Yaml]) -> Result<Secrets, SecretsError> {
        let main = documents.iter().find(|document| crate::config::identity(document).is_empty());
        let at = |path: &[&str]| main.and_then(|document| document.at(path)).cloned().unwrap_or(Yaml::Null);
        let secrets = [
            ("bootstraptoken", at(&["cluster", "token"])),
            ("aescbcencryptionsecret", at(&["cluster", "aescbcEncryptionSecret"])),
            ("secretboxencryptionsecret", at(&["cluster", "secretboxEncryptionSecret"])),
        ];
        let certs = [
            ("etcd", at(&["cluster", "etcd", "ca"])),
            ("k8s", at(&["cluster", "ca"])),
            ("k8saggregator", at(&["cluster", "aggregatorCA"])),
            ("k8sserviceaccount", at(&["cluster", "serviceAccount"])),
            ("os", at(&["machine", "ca"])),
        ];
        let present = certs.into_iter().filter(|(_, pair)| *pair != Yaml::Null);
        Secrets::from_document(Yaml::map([
            ("cluster", Yaml::map([("id", at(&["cluster", "id"])), ("secret", at(&["cluster", "secret"]))])),
            ("secrets", Yaml::map(secrets)),
            ("trustdinfo", Yaml::map([("token", at(&["machine", "token"]))])),
            ("certs", Yaml::map(present)),
        ]))
    }

    fn from_document(document: Yaml) -> Result<Secrets, SecretsError> {
        let mut reader = Reader { document, problems: Vec::new() };
        let secrets = Secrets {
            cluster_id: reader.text(&["cluster", "id"]),
            cluster_secret: reader.text(&["cluster", "secret"]),
            bootstrap_token: reader.text(&["secrets", "bootstraptoken"]),
            secretbox_encryption_secret: reader.optional(&["secrets", "secretboxencryptionsecret"]),
            aescbc_encryption_secret: reader.optional(&["secrets", "aescbcencryptionsecret"]),
            trustd_token: reader.text(&["trustdinfo", "token"]),
            etcd: reader.pair("etcd"),
            kubernetes: reader.pair("k8s"),
            aggregator: reader.pair("k8saggregator"),
            service_account: reader.key("k8sserviceaccount"),
            os: reader.pair("os"),
        };
        let either = "[secrets.secretboxencryptionsecret, secrets.aescbcencryptionsecret]";
        match (&*secrets.secretbox_encryption_secret, &*secrets.aescbc_encryption_secret) {
            ("", "") => reader.problems.push(format!("one of {either} is required")),
            ("", _) | (_, "") => {}
            _ => reader.problems.push(format!("only one of {either} is allowed")),
        }
        if reader.problems.is_empty() { Ok(secrets) } else { Err(SecretsError(reader.problems)) }
    }

    /// Writes the bundle, byte for byte as `talosctl gen secrets` would.
    pub fn to_yaml(&self) -> String {
        let pair = |pair: &Pair| Yaml::map([("crt", pem::wrap(&pair.crt)), ("key", pem::wrap(&pair.key))]);
        let mut secrets = Yaml::map([("bootstraptoken", self.bootstrap_token.as_str())]);
        for (key, value) in [
            ("aescbcencryptionsecret", &self.aescbc_encryption_secret),
            ("secretboxencryptionsecret", &self.secretbox_encryption_secret),
        ] {
            if !value.is_empty() {
                secrets.set(key, value.as_str());
            }
        }
        Yaml::map([
            ("cluster", Yaml::map([("id", &*self.cluster_id), ("secret", &*self.cluster_secret)])),
            ("secrets", secrets),
            ("trustdinfo", Yaml::map([("token", self.trustd_token.as_str())])),
            (
                "certs",
                Yaml::map([
                    ("etcd", pair(&self.etcd)),
                    ("k8s", pair(&self.kubernetes)),
                    ("k8saggregator", pair(&self.aggregator)),
                    ("k8sserviceaccount", Yaml::map([("key", pem::wrap(&self.service_account))])),
                    ("os", pair(&self.os)),
                ]),
            ),
        ])
        .to_text()
    }

    /// Issues an administrator's client certificate (role `os:admin`) for the machine API, determined by `seed`.
    ///
    /// # Errors
    ///
    /// Says why the machine authority of this bundle cannot sign.
    pub fn admin(
        &self,
        not_before: SystemTime,
        lifetime: Duration,
        seed: [u8; 32],
    ) -> Result<Credentials, SecretsError> {
        let authority =
            Authority::parse(&self.os).map_err(|error| SecretsError(vec![format!("certs.os is invalid: {error}")]))?;
        let pair = authority.issue_client("os:admin", None, not_before, lifetime, seed);
        Ok(Credentials { ca: self.os.crt.clone(), crt: pair.crt, key: pair.key })
    }
}

/// What a client of the machine API presents, and whom it trusts. All PEM, keys under Talos' own label.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The authority that the machines' certificates are checked against.
    pub ca: String,
    /// The client's certificate.
    pub crt: String,
    /// The client's key.
    pub key: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("crt", &self.crt).field("key", &"[secret]").finish_non_exhaustive()
    }
}

impl Credentials {
    /// Returns when the client certificate expires.
    ///
    /// # Errors
    ///
    /// Says what is unreadable.
    pub fn expiry(&self) -> Result<SystemTime, String> {
        expiry(&self.crt)
    }
}

/// Returns when the first certificate in `text` expires.
pub(crate) fn expiry(text: &str) -> Result<SystemTime, String> {
    let der = crate::authority::certificate(text)?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|error| format!("certificate: {error}"))?;
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).map_err(|_| "expires before 1970")?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Returns since when the first certificate in `text` is valid.
pub(crate) fn issued(text: &str) -> Result<SystemTime, String> {
    let der = crate::authority::certificate(text)?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|error| format!("certificate: {error}"))?;
    let seconds = u64::try_from(parsed.validity().not_before.timestamp()).map_err(|_| "is from before 1970")?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Returns a token as kubeadm writes it: six characters, a dot, sixteen characters.
fn token(seed: [u8; 32]) -> String {
    const ALPHABET: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut rng = StdRng::from_seed(seed);
    let mut draw =
        |length| -> String { (0..length).map(|_| char::from(ALPHABET[rng.gen_range(0..ALPHABET.len())])).collect() };
    let id = draw(6);
    format!("{id}.{}", draw(16))
}

/// Reads one value after the other and collects what is wrong with them.
struct Reader {
    document: Yaml,
    problems: Vec<String>,
}

impl Reader {
    fn optional(&self, path: &[&str]) -> String {
        self.document.at(path).and_then(Yaml::as_str).unwrap_or_default().to_owned()
    }

    fn text(&mut self, path: &[&str]) -> String {
        let value = self.optional(path);
        if value.is_empty() {
            // A missing section is named once, not once for each of its keys.
            let missing = if self.document.at(&path[..1]).is_none() { path[0].to_owned() } else { path.join(".") };
            let problem = format!("{missing} is required");
            if !self.problems.contains(&problem) {
                self.problems.push(problem);
            }
        }
        value
    }

    fn pair(&mut self, name: &str) -> Pair {
        let [crt, key] = ["crt", "key"].map(|part| self.optional(&["certs", name, part]));
        if self.document.at(&["certs", name]).is_none() {
            self.problems.push(format!("certs.{name} is required"));
            return Pair::default();
        }
        let read = || -> Result<Pair, String> {
            let pair = Pair { crt: pem::unwrap(&crt)?, key: pem::unwrap(&key)? };
            Authority::parse(&pair)?;
            Ok(pair)
        };
        read().unwrap_or_else(|error| {
            self.problems.push(format!("certs.{name} is invalid: {error}"));
            Pair::default()
        })
    }

    fn key(&mut self, name: &str) -> String {
        let key = self.optional(&["certs", name, "key"]);
        if key.is_empty() {
            self.problems.push(format!("certs.{name} is required"));
            return key;
        }
        let read = || -> Result<String, String> {
            let text = pem::unwrap(&key)?;
            crate::authority::private_key(&text)?;
            Ok(text)
        };
        read().unwrap_or_else(|error| {
            self.problems.push(format!("certs.{name} is invalid: {error}"));
            String::new()
        })
    }
}
