//! Certificate authorities as Talos makes them: their keys, their own certificates, and what they issue.
//!
//! Everything here is a function of a seed and a time, so that the same operation run twice makes the same bytes.
//! That is why ECDSA signs by RFC 6979 instead of through ring, which draws its nonce from the system.

use crate::pem;
use p256::ecdsa::signature::Signer;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm, SigningKey,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

/// How long an authority of a new cluster is valid: ten years of 365 days, as Talos has it.
pub const AUTHORITY_LIFETIME: Duration = Duration::from_secs(87_600 * 3600);

/// How long an administrator's client certificate is valid unless asked otherwise: one year.
pub const CLIENT_LIFETIME: Duration = Duration::from_secs(8_760 * 3600);

/// A certificate and the private key that belongs to it, both PEM.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Pair {
    /// The certificate.
    pub crt: String,
    /// The private key.
    pub key: String,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("crt", &self.crt).field("key", &"[secret]").finish()
    }
}

/// Which kind of key an authority has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Ed25519: the authority of the machine API.
    Ed25519,
    /// ECDSA on P-256: etcd, Kubernetes and the aggregator.
    P256,
}

/// A certificate authority: signs certificates.
pub struct Authority {
    crt: String,
    key: Key,
}

/// What is to be certified.
struct Subject<'a> {
    organization: Option<&'a str>,
    common_name: Option<&'a str>,
    names: &'a [String],
    usages: Vec<KeyUsagePurpose>,
    purposes: Vec<ExtendedKeyUsagePurpose>,
}

impl Authority {
    /// Returns a new authority and its certificate, all of it determined by `seed`.
    ///
    /// An empty `organization` makes an empty subject, which is what the aggregator's authority has.
    pub fn generate(algorithm: Algorithm, organization: &str, not_before: SystemTime, seed: [u8; 32]) -> Pair {
        let key = Key::generate(algorithm, derive(seed, "key"));
        let mut params = CertificateParams::default();
        params.distinguished_name = name((!organization.is_empty()).then_some(organization), None);
        params.serial_number = Some(serial(seed));
        params.not_before = not_before.into();
        params.not_after = (not_before + AUTHORITY_LIFETIME).into();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.key_identifier_method = KeyIdMethod::PreSpecified(derive(seed, "key identifier")[..20].to_vec());
        let crt = params.self_signed(&key).expect("an authority's parameters are complete");
        Pair { crt: pem::encode("CERTIFICATE", crt.der()), key: key.to_pem() }
    }

    /// Reads an authority from its certificate and key.
    ///
    /// # Errors
    ///
    /// Says which of the two is unreadable, or that they do not belong together.
    pub fn parse(pair: &Pair) -> Result<Authority, String> {
        let key = Key::parse(&pair.key)?;
        let der = certificate(&pair.crt)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|error| format!("certificate: {error}"))?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err("the certificate and the key do not belong together".into());
        }
        Ok(Authority { crt: pair.crt.clone(), key })
    }

    /// Returns the authority's own certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.crt
    }

    /// Issues a client certificate for one organization (the role, for the machine API), determined by `seed`. Its
    /// key has the algorithm of the authority.
    pub fn issue_client(
        &self,
        organization: &str,
        common_name: Option<&str>,
        not_before: SystemTime,
        lifetime: Duration,
        seed: [u8; 32],
    ) -> Pair {
        let subject = Subject {
            organization: Some(organization),
            common_name,
            names: &[],
            usages: vec![KeyUsagePurpose::DigitalSignature],
            purposes: vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        self.issue(subject, not_before, lifetime, seed)
    }

    /// Issues a server certificate for the given IP addresses and DNS names, determined by `seed`.
    pub fn issue_server(
        &self,
        common_name: Option<&str>,
        names: &[String],
        not_before: SystemTime,
        lifetime: Duration,
        seed: [u8; 32],
    ) -> Pair {
        let subject = Subject {
            organization: None,
            common_name,
            names,
            usages: vec![KeyUsagePurpose::DigitalSignature],
            purposes: vec![ExtendedKeyUsagePurpose::ServerAuth],
        };
        self.issue(subject, not_before, lifetime, seed)
    }

    fn issue(&self, subject: Subject<'_>, not_before: SystemTime, lifetime: Duration, seed: [u8; 32]) -> Pair {
        let key = Key::generate(self.key.which(), derive(seed, "key"));
        let mut params = CertificateParams::default();
        params.distinguished_name = name(subject.organization, subject.common_name);
        params.subject_alt_names = subject.names.iter().filter_map(|name| alternative(name)).collect();
        params.serial_number = Some(serial(seed));
        params.not_before = not_before.into();
        params.not_after = (not_before + lifetime).into();
        params.key_usages = subject.usages;
        params.extended_key_usages = subject.purposes;
        params.use_authority_key_identifier_extension = true;
        let der = CertificateDer::from(certificate(&self.crt).expect("read when the authority was"));
        let issuer = Issuer::from_ca_cert_der(&der, &self.key).expect("read when the authority was");
        let crt = params.signed_by(&key, &issuer).expect("a certificate's parameters are complete");
        Pair { crt: pem::encode("CERTIFICATE", crt.der()), key: key.to_pem() }
    }
}

/// Returns a subject, in the string type that Go chooses for plain names.
fn name(organization: Option<&str>, common_name: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    let parts = [(DnType::OrganizationName, organization), (DnType::CommonName, common_name)];
    for (kind, text) in parts.into_iter().filter_map(|(kind, text)| Some((kind, text?))) {
        match text.try_into() {
            Ok(printable) => name.push(kind, DnValue::PrintableString(printable)),
            Err(_) => name.push(kind, text),
        }
    }
    name
}

fn alternative(name: &str) -> Option<SanType> {
    match name.parse::<IpAddr>() {
        Ok(address) => Some(SanType::IpAddress(address)),
        Err(_) => name.to_owned().try_into().ok().map(SanType::DnsName),
    }
}

/// Returns 32 bytes for one purpose out of a seed; different purposes are independent of each other.
pub(crate) fn derive(seed: [u8; 32], purpose: &str) -> [u8; 32] {
    Sha256::new()
        .chain_update(b"lab talos ")
        .chain_update(purpose)
        .chain_update([0])
        .chain_update(seed)
        .finalize()
        .into()
}

/// Returns the first certificate in `text` as DER.
pub(crate) fn certificate(text: &str) -> Result<Vec<u8>, String> {
    match pem::decode(text).map_err(|error| format!("certificate: {error}"))? {
        (label, der) if label == "CERTIFICATE" => Ok(der),
        (label, _) => Err(format!("certificate: a PEM block {label} instead of CERTIFICATE")),
    }
}

/// Returns a private key in the form and under the label that rustls knows.
pub(crate) fn private_key(text: &str) -> Result<rustls_pki_types::PrivateKeyDer<'static>, String> {
    use rustls_pki_types::PrivateKeyDer;
    let (label, der) = pem::decode(text).map_err(|error| format!("key: {error}"))?;
    match label.as_str() {
        "PRIVATE KEY" | "ED25519 PRIVATE KEY" => Ok(PrivateKeyDer::Pkcs8(der.into())),
        "EC PRIVATE KEY" => Ok(PrivateKeyDer::Sec1(der.into())),
        "RSA PRIVATE KEY" => Ok(PrivateKeyDer::Pkcs1(der.into())),
        label => Err(format!("key: a PEM block {label}")),
    }
}

fn serial(seed: [u8; 32]) -> SerialNumber {
    let mut bytes = derive(seed, "serial")[..16].to_vec();
    // A serial number is positive and not zero (RFC 5280, section 4.1.2.2).
    bytes[0] = bytes[0] & 0x7f | 0x01;
    SerialNumber::from(bytes)
}

/// A private key that signs the same message the same way every time.
enum Key {
    Ed25519 { pair: Box<KeyPair>, der: Vec<u8> },
    P256 { key: p256::ecdsa::SigningKey, point: Vec<u8> },
}

// PKCS#8 version 1 around an Ed25519 key (RFC 8410, section 7) and what precedes and follows a P-256 key in SEC 1
// (RFC 5915, section 3): both are of fixed length, so the frames are constants.
const ED25519: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
const SEC1_HEAD: [u8; 7] = [0x30, 0x77, 2, 1, 1, 4, 0x20];
const SEC1_CURVE: [u8; 17] = [0xa0, 0x0a, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7, 0xa1, 0x44, 3, 0x42, 0];

impl Key {
    fn generate(algorithm: Algorithm, seed: [u8; 32]) -> Key {
        match algorithm {
            Algorithm::Ed25519 => {
                Key::ed25519([ED25519.as_slice(), &seed].concat()).expect("any 32 bytes are an Ed25519 key")
            }
            // Not every 32 bytes are below the order of the curve: with probability 2^-32 the next ones are taken.
            Algorithm::P256 => Key::p256(&seed).unwrap_or_else(|_| Key::generate(algorithm, derive(seed, "again"))),
        }
    }

    fn ed25519(der: Vec<u8>) -> Result<Key, String> {
        let pkcs8 = PrivatePkcs8KeyDer::from(der.as_slice());
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &rcgen::PKCS_ED25519)
            .map_err(|error| format!("key: {error}"))?;
        Ok(Key::Ed25519 { pair: Box::new(pair), der })
    }

    fn p256(scalar: &[u8]) -> Result<Key, String> {
        let key = p256::ecdsa::SigningKey::from_slice(scalar).map_err(|_| "key: not on the curve P-256".to_owned())?;
        let point = key.verifying_key().to_encoded_point(false).as_bytes().to_vec();
        Ok(Key::P256 { key, point })
    }

    fn parse(text: &str) -> Result<Key, String> {
        let (label, der) = pem::decode(text).map_err(|error| format!("key: {error}"))?;
        match label.as_str() {
            "ED25519 PRIVATE KEY" | "PRIVATE KEY" => Key::ed25519(der),
            "EC PRIVATE KEY" if der.starts_with(&SEC1_HEAD) && der.len() > 39 => Key::p256(&der[7..39]),
            "EC PRIVATE KEY" => Err("key: only P-256 keys are known".into()),
            label => Err(format!("key: a PEM block {label}")),
        }
    }

    fn which(&self) -> Algorithm {
        match self {
            Key::Ed25519 { .. } => Algorithm::Ed25519,
            Key::P256 { .. } => Algorithm::P256,
        }
    }

    fn to_pem(&self) -> String {
        match self {
            Key::Ed25519 { der, .. } => pem::encode("ED25519 PRIVATE KEY", der),
            Key::P256 { key, point } => {
                let der = [SEC1_HEAD.as_slice(), &key.to_bytes(), &SEC1_CURVE, point].concat();
                pem::encode("EC PRIVATE KEY", &der)
            }
        }
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        match self {
            Key::Ed25519 { pair, .. } => pair.der_bytes(),
            Key::P256 { point, .. } => point,
        }
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self {
            Key::Ed25519 { .. } => &rcgen::PKCS_ED25519,
            Key::P256 { .. } => &rcgen::PKCS_ECDSA_P256_SHA256,
        }
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        match self {
            Key::Ed25519 { pair, .. } => pair.sign(message),
            Key::P256 { key, .. } => {
                let signature: p256::ecdsa::Signature = key.sign(message);
                Ok(signature.to_der().as_bytes().to_vec())
            }
        }
    }
}
