//! cert-manager 1.21.1: who issues certificates, and which ones are wanted.

use super::kind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

kind!(
    /// Issues certificates for every namespace. It has no namespace itself; its secrets lie in cert-manager's.
    ClusterIssuer,
    IssuerSpec,
    "cert-manager.io/v1"
);

/// How certificates are issued: exactly one of the three.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IssuerSpec {
    /// By an ACME server such as Let's Encrypt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acme: Option<Acme>,
    /// By a certificate authority whose key is in a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<CertificateAuthority>,
    /// By nobody: each certificate signs itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_signed: Option<SelfSigned>,
}

impl IssuerSpec {
    /// Returns the issuer that asks an ACME server.
    pub fn acme(acme: Acme) -> IssuerSpec {
        IssuerSpec { acme: Some(acme), ..IssuerSpec::default() }
    }

    /// Returns the issuer that signs with the key in a Secret.
    pub fn ca(secret_name: impl Into<String>) -> IssuerSpec {
        IssuerSpec { ca: Some(CertificateAuthority::new(secret_name)), ..IssuerSpec::default() }
    }

    /// Returns the issuer of certificates that sign themselves.
    pub fn self_signed() -> IssuerSpec {
        IssuerSpec { self_signed: Some(SelfSigned::default()), ..IssuerSpec::default() }
    }
}

/// Certificates that sign themselves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SelfSigned {
    /// Where revocation lists are found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crl_distribution_points: Vec<String>,
}

/// A certificate authority whose key is in a Secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateAuthority {
    /// The Secret, with tls.crt and tls.key.
    pub secret_name: String,
}

impl CertificateAuthority {
    /// Returns the authority whose key is in this Secret.
    pub fn new(secret_name: impl Into<String>) -> CertificateAuthority {
        CertificateAuthority { secret_name: secret_name.into() }
    }
}

/// An account at an ACME server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Acme {
    /// The URL of the server's directory.
    pub server: String,
    /// Where the account's key is kept. Losing it means another account.
    pub private_key_secret_ref: SecretKey,
    /// Where the server writes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The certificate profile to ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The chain to prefer, by the issuer's common name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preferred_chain: Option<String>,
    /// How it is proven that a name is ours.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub solvers: Vec<Solver>,
}

impl Acme {
    /// Returns the account at this server with its key in this Secret.
    pub fn new(server: impl Into<String>, private_key_secret_ref: SecretKey) -> Acme {
        Acme { server: server.into(), private_key_secret_ref, ..Acme::default() }
    }
}

/// A key in a Secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretKey {
    /// The Secret.
    pub name: String,
    /// The key in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl SecretKey {
    /// Returns the Secret, its key left to the default.
    pub fn new(name: impl Into<String>) -> SecretKey {
        SecretKey { name: name.into(), ..SecretKey::default() }
    }
}

/// One way to prove that a name is ours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Solver {
    /// Which names it is for; all if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<SolverSelector>,
    /// By a TXT record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns01: Option<Dns01>,
    /// By a page on the name itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http01: Option<Http01>,
}

/// Which names a solver is for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SolverSelector {
    /// Zones, with everything in them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_zones: Vec<String>,
    /// Names, exactly.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<String>,
    /// Labels of the Certificate.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
}

/// A proof by a TXT record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dns01 {
    /// Whether CNAMEs are followed: `None` or `Follow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cname_strategy: Option<String>,
    /// The zone is at Cloudflare.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloudflare: Option<Cloudflare>,
    /// The zone takes dynamic updates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rfc2136: Option<Rfc2136>,
}

/// Access to zones at Cloudflare.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cloudflare {
    /// The API token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_token_secret_ref: Option<SecretKey>,
    /// The account, for old API keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

/// Access to a name server by dynamic updates (RFC 2136).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rfc2136 {
    /// Its address, `10.0.0.2:53`.
    pub nameserver: String,
    /// The name of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tsig_key_name: Option<String>,
    /// The algorithm of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tsig_algorithm: Option<String>,
    /// The key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tsig_secret_secret_ref: Option<SecretKey>,
}

impl Rfc2136 {
    /// Returns the access to this name server, without a key.
    pub fn new(nameserver: impl Into<String>) -> Rfc2136 {
        Rfc2136 { nameserver: nameserver.into(), ..Rfc2136::default() }
    }
}

/// A proof by a page on the name itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Http01 {
    /// Served through an Ingress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Http01Ingress>,
}

/// Which ingress serves the page.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Http01Ingress {
    /// Its class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_class_name: Option<String>,
}

kind!(
    /// A certificate that is wanted, kept in a Secret and renewed in time.
    Certificate,
    CertificateSpec,
    "cert-manager.io/v1"
);

/// What the certificate says and where it is kept. At least one name is required.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateSpec {
    /// The Secret it is kept in.
    pub secret_name: String,
    /// Who issues it.
    pub issuer_ref: IssuerRef,
    /// Names, `*.example.org` among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<String>,
    /// The common name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub common_name: Option<String>,
    /// Addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip_addresses: Vec<String>,
    /// Whether it may sign others.
    #[serde(rename = "isCA", default, skip_serializing_if = "Option::is_none")]
    pub is_ca: Option<bool>,
    /// How long it is valid, `2160h0m0s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// How long before its end it is renewed, `720h0m0s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_before: Option<String>,
    /// The same, in percent of its duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_before_percentage: Option<u32>,
    /// Its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<PrivateKey>,
    /// What it is for, such as `server auth`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub usages: Vec<String>,
    /// What the Secret carries besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_template: Option<SecretTemplate>,
}

impl CertificateSpec {
    /// Returns the certificate in this Secret by this issuer; it still needs a name.
    pub fn new(secret_name: impl Into<String>, issuer_ref: IssuerRef) -> CertificateSpec {
        CertificateSpec { secret_name: secret_name.into(), issuer_ref, ..CertificateSpec::default() }
    }
}

/// Who issues a certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IssuerRef {
    /// The issuer.
    pub name: String,
    /// `Issuer`, which is the default, or `ClusterIssuer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its group, for issuers of others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

impl IssuerRef {
    /// Returns the Issuer of this name in the same namespace.
    pub fn new(name: impl Into<String>) -> IssuerRef {
        IssuerRef { name: name.into(), ..IssuerRef::default() }
    }
}

impl IssuerRef {
    /// Returns the ClusterIssuer of this name.
    pub fn cluster(name: impl Into<String>) -> IssuerRef {
        IssuerRef { kind: Some("ClusterIssuer".into()), ..IssuerRef::new(name) }
    }
}

/// The key of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrivateKey {
    /// `RSA`, `ECDSA` or `Ed25519`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<String>,
    /// Its size in bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u32>,
    /// `Always` or `Never` another key at renewal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation_policy: Option<String>,
}

/// What a certificate's Secret carries besides.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretTemplate {
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}
