//! The question that comes before every other: what is this machine, and is it ours?

use super::{Error, Failure, Machine, Reason};
use crate::secrets::Credentials;
use lab_core::Link;

/// What a machine is to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It waits for a configuration; anybody may send one.
    Maintenance {
        /// The fingerprint of its certificate, to pin it by.
        fingerprint: String,
    },
    /// It is configured, has a certificate of our authority, and accepts ours.
    Ours,
    /// It is configured and does not accept us, or is something else altogether. The failure says which; when it is
    /// [`Reason::CertificateExpired`], it is ours and we are late.
    Foreign(Failure),
    /// It cannot be told: nothing answers, or not in a way that proves anything.
    Unreachable(Failure),
}

/// Finds out what the machine at `address` is to us, without changing anything.
///
/// Without credentials (a cluster that has none yet) a configured machine is always foreign. The order matters: a
/// machine in maintenance mode ignores client certificates, so that a verified connection with them fails on our
/// side; only then is the unverified one tried, which a configured machine refuses.
pub async fn probe(link: &Link, address: &str, credentials: Option<&Credentials>) -> Phase {
    let doubt = match credentials {
        None => None,
        Some(credentials) => match verified(link, address, credentials).await {
            Ok(()) => return Phase::Ours,
            Err(failure) => match failure.reason {
                // Whose certificate this is decides the second attempt.
                Reason::Untrusted | Reason::Expired => Some(failure),
                Reason::CertificateRequired | Reason::CertificateRefused | Reason::CertificateExpired => {
                    return Phase::Foreign(failure);
                }
                Reason::Dial | Reason::WrongName | Reason::WrongFingerprint | Reason::Protocol | Reason::Lost => {
                    return Phase::Unreachable(failure);
                }
            },
        },
    };
    match unverified(link, address).await {
        Ok(fingerprint) => Phase::Maintenance { fingerprint },
        Err(failure) => match (failure.reason, doubt) {
            // An expired certificate is not checked any further, so it may well be one of ours.
            (Reason::CertificateRequired, Some(doubt)) if doubt.reason == Reason::Expired => Phase::Unreachable(doubt),
            (Reason::CertificateRequired | Reason::CertificateRefused, doubt) => {
                Phase::Foreign(doubt.unwrap_or(failure))
            }
            _ => Phase::Unreachable(failure),
        },
    }
}

async fn verified(link: &Link, address: &str, credentials: &Credentials) -> Result<(), Failure> {
    match Machine::secure(link, address, credentials) {
        Ok(machine) => match machine.version().await {
            Err(Error::Unreachable(failure)) => Err(failure),
            Err(Error::Deadline(text)) => Err(Failure { reason: Reason::Lost, text, sent: true }),
            // Whatever a machine answers over a connection that both sides verified, it is ours.
            Ok(_) | Err(_) => Ok(()),
        },
        Err(error) => Err(Failure { reason: Reason::Dial, text: error.to_string(), sent: false }),
    }
}

async fn unverified(link: &Link, address: &str) -> Result<String, Failure> {
    let failure = |error: Error| match error {
        Error::Unreachable(failure) => failure,
        error => Failure { reason: Reason::Protocol, text: format!("{address}: {error}"), sent: true },
    };
    let machine = Machine::insecure(link, address).map_err(failure)?;
    machine.disks().await.map_err(failure)?;
    let silent = || Failure { reason: Reason::Protocol, text: format!("{address}: no certificate"), sent: true };
    machine.fingerprint().ok_or_else(silent)
}
