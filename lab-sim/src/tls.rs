//! Certificates and TLS of the simulated machines.
//!
//! A machine's certificates come from the authorities in the configuration it was given, as on a real one. Talos
//! labels Ed25519 keys `ED25519 PRIVATE KEY` and writes P-256 keys as SEC1; both are turned into the PKCS#8 that the
//! signing library reads.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A certificate authority with its key.
pub(crate) struct Authority {
    /// Its certificate.
    pub(crate) certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate is for.
pub(crate) enum Purpose {
    Server,
    Client,
}

/// What a certificate says.
pub(crate) struct Leaf {
    pub(crate) common_name: Option<String>,
    pub(crate) organizations: Vec<String>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) names: Vec<String>,
    pub(crate) from: SystemTime,
    pub(crate) until: SystemTime,
    pub(crate) purpose: Purpose,
}

/// A certificate with its key.
pub(crate) struct Issued {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) certificate_pem: String,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) key_pem: String,
}

impl Authority {
    /// Returns the authority of the two fields of a machine configuration, each base64 of PEM.
    pub(crate) fn decode(certificate: &str, key: &str) -> Result<Authority, String> {
        let certificate = decode_certificate(certificate)?;
        let key = decode_key(&unwrap(key)?)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|error| error.to_string())?;
        Ok(Authority { certificate, issuer })
    }

    /// Returns a fresh authority, with the pair of fields a machine configuration would carry.
    pub(crate) fn generate(
        organization: Option<&str>,
        algorithm: &'static rcgen::SignatureAlgorithm,
    ) -> Result<(Authority, String, String), rcgen::Error> {
        let key = KeyPair::generate_for(algorithm)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(organization) = organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let now = SystemTime::now();
        valid(&mut params, now, now + Duration::from_secs(87_600 * 3600));
        params.serial_number = Some(serial());
        let certificate = params.self_signed(&key)?;
        let label = if algorithm == &rcgen::PKCS_ED25519 { "ED25519 PRIVATE KEY" } else { "PRIVATE KEY" };
        let key_pem = key.serialize_pem().replace("PRIVATE KEY", label);
        let fields = (STANDARD.encode(certificate.pem()), STANDARD.encode(key_pem));
        let certificate = certificate.der().clone();
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok((Authority { certificate, issuer }, fields.0, fields.1))
    }

    /// Issues a certificate with a fresh key.
    pub(crate) fn issue(
        &self,
        leaf: Leaf,
        algorithm: &'static rcgen::SignatureAlgorithm,
    ) -> Result<Issued, rcgen::Error> {
        let key = KeyPair::generate_for(algorithm)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for organization in leaf.organizations {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        if let Some(name) = leaf.common_name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.subject_alt_names = leaf.addresses.into_iter().map(SanType::IpAddress).collect();
        for name in leaf.names {
            params.subject_alt_names.push(SanType::DnsName(name.try_into()?));
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match leaf.purpose {
            Purpose::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Purpose::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        valid(&mut params, leaf.from, leaf.until);
        params.serial_number = Some(serial());
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued {
            certificate_pem: certificate.pem(),
            certificate: certificate.der().clone(),
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            key_pem: key.serialize_pem(),
        })
    }
}

/// Returns the certificate that a host of a simulated Proxmox cluster shows, signed by its cluster's authority.
///
/// Keys, times and numbers follow from the names, and Ed25519 draws nothing: the user of a rack can say the fingerprint
/// before anything runs.
pub(crate) fn proxmox(cluster: &str, host: &str, address: Option<IpAddr>) -> Result<Issued, rcgen::Error> {
    let (certificate, key) = proxmox_authority(cluster)?;
    let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
    let key = derived(&format!("{cluster}/{host}"))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationalUnitName, "PVE Cluster Node");
    params.distinguished_name.push(DnType::OrganizationName, "Proxmox Virtual Environment");
    params.distinguished_name.push(DnType::CommonName, host);
    let names = [host.to_ascii_lowercase(), "localhost".to_owned()];
    for name in names {
        params.subject_alt_names.push(SanType::DnsName(name.try_into()?));
    }
    params.subject_alt_names.extend(address.map(SanType::IpAddress));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.serial_number = Some(SerialNumber::from(2));
    params.not_before = rcgen::date_time_ymd(2025, 1, 1);
    params.not_after = rcgen::date_time_ymd(2125, 1, 1);
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Issued {
        certificate_pem: certificate.pem(),
        certificate: certificate.der().clone(),
        key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        key_pem: key.serialize_pem(),
    })
}

/// Returns the authority of a simulated Proxmox cluster, `/etc/pve/pve-root-ca.pem` on its hosts.
pub(crate) fn proxmox_authority(cluster: &str) -> Result<(CertificateDer<'static>, KeyPair), rcgen::Error> {
    let key = derived(cluster)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationalUnitName, cluster);
    params.distinguished_name.push(DnType::OrganizationName, "PVE Cluster Manager CA");
    params.distinguished_name.push(DnType::CommonName, "Proxmox Virtual Environment");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(SerialNumber::from(1));
    params.not_before = rcgen::date_time_ymd(2025, 1, 1);
    params.not_after = rcgen::date_time_ymd(2125, 1, 1);
    Ok((params.self_signed(&key)?.der().clone(), key))
}

/// Returns the Ed25519 key of a name, by way of PKCS#8 without the public half (RFC 8410).
fn derived(name: &str) -> Result<KeyPair, rcgen::Error> {
    const HEAD: &[u8] =
        &[0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    let pkcs8 = [HEAD, Sha256::digest(name).as_slice()].concat();
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8), &rcgen::PKCS_ED25519)
}

/// Which clients a server lets in.
pub(crate) enum Clients {
    /// Everybody; no certificate is asked for.
    Anyone,
    /// Those with a certificate of one of these authorities.
    Required(Vec<CertificateDer<'static>>),
    /// Everybody, and a certificate that is shown must be of one of these authorities.
    Optional(Vec<CertificateDer<'static>>),
}

/// Returns the TLS side of a server. Certificates of clients are judged on `clock`.
pub(crate) fn server(
    issued: Issued,
    clients: Clients,
    protocols: &[&[u8]],
    clock: &lab_core::Clock,
) -> Result<Arc<ServerConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_details(provider.clone(), Arc::new(Time(clock.clone())))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let store = |authorities: Vec<CertificateDer<'static>>| {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(authorities);
        WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider.clone())
    };
    let builder = match clients {
        Clients::Anyone => builder.with_no_client_auth(),
        Clients::Required(authorities) => {
            builder.with_client_cert_verifier(store(authorities).build().map_err(|error| error.to_string())?)
        }
        Clients::Optional(authorities) => builder.with_client_cert_verifier(
            store(authorities).allow_unauthenticated().build().map_err(|error| error.to_string())?,
        ),
    };
    let mut config =
        builder.with_single_cert(vec![issued.certificate], issued.key).map_err(|error| error.to_string())?;
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// The lab's clock as rustls reads it: a client's certificate may have been issued on it, ahead of the wall.
#[derive(Debug)]
struct Time(lab_core::Clock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        self.0.now().duration_since(UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}

/// What a client's certificate says about it: the values of the subject's Organization, and whether it is for clients
/// and for nothing else.
pub(crate) fn client(certificate: &CertificateDer<'_>) -> Option<(Vec<String>, bool)> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let organizations = parsed
        .subject()
        .iter_organization()
        .filter_map(|organization| organization.as_str().ok())
        .filter(|organization| !organization.is_empty())
        .map(str::to_owned)
        .collect();
    let usage = parsed.extended_key_usage().ok().flatten();
    let only_client = usage.is_some_and(|usage| {
        let usage = usage.value;
        usage.client_auth && !usage.server_auth && !usage.any && !usage.code_signing && usage.other.is_empty()
    });
    Some((organizations, only_client))
}

/// Decodes a certificate that a machine configuration carries as base64 of PEM.
pub(crate) fn decode_certificate(field: &str) -> Result<CertificateDer<'static>, String> {
    CertificateDer::from_pem_slice(&unwrap(field)?).map_err(|error| error.to_string())
}

/// Decodes what a machine configuration carries as base64 of PEM, to the PEM.
pub(crate) fn decode_pem(field: &str) -> Result<String, String> {
    String::from_utf8(unwrap(field)?).map_err(|error| error.to_string())
}

fn unwrap(field: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(field.trim()).map_err(|error| error.to_string())
}

fn decode_key(pem: &[u8]) -> Result<KeyPair, String> {
    let pem = String::from_utf8_lossy(pem).replace("ED25519 PRIVATE KEY", "PRIVATE KEY");
    let pkcs8 = match PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string())? {
        PrivateKeyDer::Sec1(sec1) => p256_pkcs8(sec1.secret_sec1_der()),
        other => other.secret_der().to_vec(),
    };
    KeyPair::try_from(pkcs8).map_err(|error| error.to_string())
}

/// Wraps a SEC1 P-256 key as PKCS#8 (RFC 5208): the version, the algorithm with its curve, the key.
fn p256_pkcs8(sec1: &[u8]) -> Vec<u8> {
    const ALGORITHM: &[u8] = &[
        0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d,
        0x03, 0x01, 0x07,
    ];
    let mut body = vec![0x02, 0x01, 0x00];
    body.extend_from_slice(ALGORITHM);
    body.extend(der(0x04, sec1));
    der(0x30, &body)
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        short @ 0..=0x7f => out.push(short as u8),
        middle @ 0x80..=0xff => out.extend([0x81, middle as u8]),
        long => out.extend([0x82, (long >> 8) as u8, long as u8]),
    }
    out.extend_from_slice(content);
    out
}

fn serial() -> SerialNumber {
    let mut bytes = rand::random::<[u8; 16]>();
    // A serial number is positive (RFC 5280, 4.1.2.2).
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    SerialNumber::from_slice(&bytes)
}

/// Sets the validity of a certificate; rcgen's own function gives the date type without another dependency.
fn valid(params: &mut CertificateParams, from: SystemTime, until: SystemTime) {
    let epoch = || rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch() + from.duration_since(UNIX_EPOCH).unwrap_or_default();
    params.not_after = epoch() + until.duration_since(UNIX_EPOCH).unwrap_or_default();
}
