//! TLS towards a machine: mutual, or in maintenance mode only to be recorded.

use super::connect::Line;
use super::error::{Failure, Reason};
use crate::authority::private_key;
use crate::pem;
use crate::secrets::Credentials;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lab_core::{Clock, Link};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::time_provider::TimeProvider;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore,
    SignatureScheme, WantsVerifier,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const ALPN: &[u8] = b"h2";

/// The text by which [`insecure`] and [`classify`] know each other; it is also Talos' own.
const FINGERPRINT: &str = "leaf peer certificate doesn't match the provided fingerprints";

/// Certificates are judged by the run's clock: in a simulated lab they are issued by it, too.
#[derive(Debug)]
struct Time(Clock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        self.0.now().duration_since(SystemTime::UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}

/// Returns the run's clock, for certificates.
pub(crate) fn time(link: &Link) -> Arc<dyn TimeProvider> {
    Arc::new(Time(link.clock.clone()))
}

// The provider is named each time: the process-wide one belongs to the user's program.
fn builder(link: &Link) -> ConfigBuilder<ClientConfig, WantsVerifier> {
    ClientConfig::builder_with_details(Arc::new(ring::default_provider()), time(link))
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions")
}

/// Returns the configuration for a configured machine.
pub(super) fn secure(link: &Link, credentials: &Credentials) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for (label, der) in pem::decode_all(&credentials.ca).map_err(|error| format!("ca: {error}"))? {
        if label == "CERTIFICATE" {
            roots.add(der.into()).map_err(|error| format!("ca: {error}"))?;
        }
    }
    let chain = pem::decode_all(&credentials.crt).map_err(|error| format!("crt: {error}"))?;
    let chain = chain.into_iter().map(|(_, der)| CertificateDer::from(der)).collect();
    let mut config = builder(link)
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, private_key(&credentials.key)?)
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// Returns the configuration for a machine in maintenance mode.
pub(super) fn insecure(link: &Link, pinned: Option<String>, line: Arc<Line>) -> ClientConfig {
    let algorithms = ring::default_provider().signature_verification_algorithms;
    let mut config = builder(link)
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Recorder { algorithms, pinned, line }))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config
}

/// Accepts any certificate, or only the pinned one, and notes its fingerprint. That the machine holds the key of the
/// certificate is still checked: otherwise the fingerprint would prove nothing.
#[derive(Debug)]
struct Recorder {
    algorithms: WebPkiSupportedAlgorithms,
    pinned: Option<String>,
    line: Arc<Line>,
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf)
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let fingerprint = STANDARD.encode(Sha256::digest(parsed.public_key().raw));
        self.line.note(fingerprint.clone());
        match &self.pinned {
            Some(pinned) if *pinned != fingerprint => Err(rustls::Error::General(format!("{FINGERPRINT}: [{pinned}]"))),
            _ => Ok(ServerCertVerified::assertion()),
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

/// Says what an error during a handshake means. `presents`: whether we showed a certificate.
pub(super) fn classify(target: &str, error: &io::Error, presents: bool) -> Failure {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let reason = match tls {
        None if error.kind() == io::ErrorKind::TimedOut => Reason::Dial,
        None => Reason::Protocol,
        Some(rustls::Error::InvalidCertificate(problem)) => match problem {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Reason::Expired,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Reason::WrongName,
            // All clusters' authorities have the same name, so another cluster's certificate looks like one of ours
            // with a wrong signature.
            _ => Reason::Untrusted,
        },
        Some(rustls::Error::General(text)) if text.starts_with(FINGERPRINT) => Reason::WrongFingerprint,
        Some(rustls::Error::AlertReceived(alert)) => match alert {
            AlertDescription::CertificateExpired => Reason::CertificateExpired,
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::HandshakeFailure
                if !presents =>
            {
                Reason::CertificateRequired
            }
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError => Reason::CertificateRefused,
            _ => Reason::Protocol,
        },
        Some(_) => Reason::Protocol,
    };
    let what = tls.map_or_else(|| error.to_string(), ToString::to_string);
    Failure { reason, text: format!("{target}: {what}"), sent: false }
}

/// How long a connection may take to come about.
pub(super) const CONNECT: Duration = Duration::from_secs(10);
