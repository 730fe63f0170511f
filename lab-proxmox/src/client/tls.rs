//! TLS towards a node: its certificate is pinned, or vouched for by the cluster's authority. Nothing else is accepted.

use crate::provider::{Fingerprint, Trust};
use lab_core::{Clock, Link};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::sync::Arc;
use std::time::SystemTime;

/// Certificates are judged by the run's clock: in a simulated lab they are issued by it, too.
#[derive(Debug)]
struct Time(Clock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        self.0.now().duration_since(SystemTime::UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}

/// Returns the configuration that accepts what `trust` says and nothing else.
pub(super) fn config(link: &Link, trust: &Trust) -> Result<ClientConfig, String> {
    // The provider is named each time: the process-wide one belongs to the user's program.
    let provider = Arc::new(ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let proof = match trust {
        Trust::Fingerprints(pinned) if pinned.is_empty() => {
            return Err("no fingerprint is given: `pvenode cert info` on a node shows its own".into());
        }
        Trust::Fingerprints(pinned) => Proof::Pinned(pinned.clone()),
        Trust::Authority(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate.map_err(|error| format!("the authority is not PEM: {error}"))?;
                roots.add(certificate).map_err(|error| format!("the authority cannot be used: {error}"))?;
            }
            if roots.is_empty() {
                return Err("the authority holds no certificate".into());
            }
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
            Proof::Issued(verifier.map_err(|error| format!("the authority cannot be used: {error}"))?)
        }
    };
    Ok(ClientConfig::builder_with_details(provider, Arc::new(Time(link.clock.clone())))
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { algorithms, proof, link: link.clone() }))
        .with_no_client_auth())
}

/// What proves that a certificate is the right one.
#[derive(Debug)]
enum Proof {
    /// It is one of these, whatever its names and dates.
    Pinned(Vec<Fingerprint>),
    /// It was issued by the authority, for the name, and is valid.
    Issued(Arc<WebPkiServerVerifier>),
}

/// Accepts a certificate by its proof; in a rehearsal the simulated host's own, and only that. That the server holds the
/// key of the certificate is still checked: otherwise neither would prove anything.
#[derive(Debug)]
struct Verifier {
    algorithms: WebPkiSupportedAlgorithms,
    proof: Proof,
    link: Link,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        stapled: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = Fingerprint::of(leaf);
        let refused = |why: &str| rustls::Error::General(format!("its certificate has the fingerprint {shown}, {why}"));
        if let Some(stand_in) = self.link.stand_in(&name.to_str()) {
            let same = shown == Fingerprint::from(stand_in);
            let accepted = same.then(ServerCertVerified::assertion);
            return accepted.ok_or_else(|| refused("which is not that of the simulated host"));
        }
        match &self.proof {
            Proof::Pinned(pinned) if pinned.contains(&shown) => Ok(ServerCertVerified::assertion()),
            Proof::Pinned(_) => Err(refused("which is not a pinned one")),
            Proof::Issued(authority) => authority.verify_server_cert(leaf, intermediates, name, stapled, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
