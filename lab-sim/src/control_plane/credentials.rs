//! What the processes of a control plane prove themselves with on loopback.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::PKCS_ECDSA_P256_SHA256;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::tls::{Authority, Leaf, Purpose, decode_pem};

/// The name of who may say for whom it speaks.
pub(super) const FRONT: &str = "front-proxy-client";

/// What a fresh control plane proves itself with, all PEM.
pub(super) struct Credentials {
    /// Who is trusted on loopback, and its key.
    pub(super) authority: (String, String),
    pub(super) server: (String, String),
    pub(super) administrator: (String, String),
    pub(super) service_accounts: (String, String),
    /// Who is trusted to say for whom it speaks, and one that is: an authority of its own, since its name is nobody's.
    pub(super) front_authority: String,
    pub(super) front: (String, String),
}

impl Credentials {
    /// Returns fresh ones, valid for a day from now on the wall's clock, which real servers go by.
    pub(super) fn generate() -> Result<Credentials, String> {
        let generate = || Authority::generate(None, &PKCS_ECDSA_P256_SHA256).map_err(|error| error.to_string());
        let (authority, certificate, key) = generate()?;
        let (front, front_certificate, _) = generate()?;
        let service_accounts = rcgen::KeyPair::generate().map_err(|error| error.to_string())?;
        let now = SystemTime::now();
        // A clock may have been set back a little since the binaries last looked.
        let (from, until) = (now - Duration::from_secs(60), now + Duration::from_secs(24 * 3600));
        Ok(Credentials {
            server: issue(
                &authority,
                Leaf {
                    common_name: Some("kube-apiserver".into()),
                    organizations: Vec::new(),
                    addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1))],
                    names: ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
                        .map(str::to_owned)
                        .to_vec(),
                    from,
                    until,
                    purpose: Purpose::Server,
                },
            )?,
            administrator: issue(&authority, named("admin", &["system:masters"], from, until))?,
            front: issue(&front, named(FRONT, &[], from, until))?,
            front_authority: decode_pem(&front_certificate)?,
            authority: (decode_pem(&certificate)?, decode_pem(&key)?),
            service_accounts: (service_accounts.serialize_pem(), service_accounts.public_key_pem()),
        })
    }

    /// Returns an administrator's certificate and key that expire at `end`.
    pub(super) fn administrator_until(&self, end: SystemTime) -> Result<(String, String), String> {
        let authority = Authority::decode(&STANDARD.encode(&self.authority.0), &STANDARD.encode(&self.authority.1))?;
        issue(&authority, named("admin", &["system:masters"], end - Duration::from_secs(3600), end))
    }
}

fn issue(authority: &Authority, leaf: Leaf) -> Result<(String, String), String> {
    let issued = authority.issue(leaf, &PKCS_ECDSA_P256_SHA256).map_err(|error| error.to_string())?;
    Ok((issued.certificate_pem, issued.key_pem))
}

/// Returns what the certificate of a client says.
fn named(name: &str, groups: &[&str], from: SystemTime, until: SystemTime) -> Leaf {
    Leaf {
        common_name: Some(name.into()),
        organizations: groups.iter().map(|group| (*group).into()).collect(),
        addresses: Vec::new(),
        names: Vec::new(),
        from,
        until,
        purpose: Purpose::Client,
    }
}

/// Returns the side of a connection of who proves itself with `(certificate, key)`.
pub(super) fn client(authority: &str, (certificate, key): &(String, String)) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let pem = |error: rustls::pki_types::pem::Error| io::Error::other(error.to_string());
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).map_err(pem)?).map_err(io::Error::other)?;
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(pem)?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(pem)?;
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)
        .map_err(io::Error::other)?;
    Ok(Arc::new(config))
}
