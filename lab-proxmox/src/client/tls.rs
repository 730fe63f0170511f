//! TLS towards a node: its certificate is pinned, or vouched for by the cluster's authority. Nothing else is accepted.

use crate::provider::{Fingerprint, Trust};
use lab_core::{Clock, Link};
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
    let builder = ClientConfig::builder_with_details(provider, Arc::new(Time(link.clock.clone())))
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions");
    match trust {
        Trust::Fingerprints(pinned) if pinned.is_empty() => {
            Err("no fingerprint is given: `pvenode cert info` on a node shows its own".into())
        }
        Trust::Fingerprints(pinned) => Ok(builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned { algorithms, pinned: pinned.clone() }))
            .with_no_client_auth()),
        Trust::Authority(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate.map_err(|error| format!("the authority is not PEM: {error}"))?;
                roots.add(certificate).map_err(|error| format!("the authority cannot be used: {error}"))?;
            }
            if roots.is_empty() {
                return Err("the authority holds no certificate".into());
            }
            Ok(builder.with_root_certificates(roots).with_no_client_auth())
        }
    }
}

/// Accepts the pinned certificates whatever their names and dates. That the server holds the key of the certificate is
/// still checked: otherwise the fingerprint would prove nothing.
#[derive(Debug)]
struct Pinned {
    algorithms: WebPkiSupportedAlgorithms,
    pinned: Vec<Fingerprint>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = Fingerprint::of(leaf);
        if self.pinned.contains(&shown) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::General(format!("its certificate has the fingerprint {shown}, which is not a pinned one")))
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
