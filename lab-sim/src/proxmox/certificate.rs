//! Fingerprints of certificates, in Proxmox' form.

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};

/// Returns the SHA-256 of a certificate.
pub(super) fn digest(certificate: &CertificateDer<'_>) -> [u8; 32] {
    Sha256::digest(certificate).into()
}

/// Returns the SHA-256 of a certificate: upper-case hex with colons.
pub(super) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let pairs: Vec<_> = digest(certificate).iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}
