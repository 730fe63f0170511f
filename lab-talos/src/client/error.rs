//! Why a call failed, told apart as far as it matters to the caller.

use std::error::Error as _;
use std::fmt;
use tonic::{Code, Status};

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The machine was not reached, or not to its end.
    Unreachable(Failure),
    /// The machine is in maintenance mode, where it has no such call.
    Maintenance(String),
    /// The machine does not let us do this.
    NotAuthorised(String),
    /// It is too early, or the machine is not one for this.
    FailedPrecondition(String),
    /// It was done before.
    AlreadyExists(String),
    /// What was asked about does not exist.
    NotFound(String),
    /// What was sent is not valid; the text is the machine's own.
    Invalid(String),
    /// The machine has no such call, although it is not in maintenance mode: another version of Talos.
    Unimplemented(String),
    /// The machine did not answer in time.
    Deadline(String),
    /// Anything else the machine said.
    Other {
        /// The name of the gRPC code.
        code: String,
        /// The machine's text.
        text: String,
    },
}

/// Why a machine was not reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which kind of failure.
    pub reason: Reason,
    /// What happened, for people.
    pub text: String,
    /// Whether a request may have arrived before it happened.
    pub sent: bool,
}

/// The ways not to reach a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No connection came about.
    Dial,
    /// The machine's certificate is not from our authority: another cluster, or maintenance mode.
    Untrusted,
    /// The machine's certificate has expired or is not valid yet: perhaps a clock is wrong.
    Expired,
    /// The machine's certificate is for other addresses.
    WrongName,
    /// The machine's certificate is not the pinned one.
    WrongFingerprint,
    /// The machine wants a client certificate and we showed none: it is configured.
    CertificateRequired,
    /// The machine does not accept our certificate: it belongs to another cluster.
    CertificateRefused,
    /// The machine says that our certificate has expired.
    CertificateExpired,
    /// What answers does not speak this protocol.
    Protocol,
    /// The connection broke after it had been established.
    Lost,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unreachable(failure) => write!(f, "unreachable: {failure}"),
            Error::Maintenance(text) => write!(f, "the machine is in maintenance mode: {text}"),
            Error::NotAuthorised(text) => write!(f, "not authorised: {text}"),
            Error::FailedPrecondition(text)
            | Error::AlreadyExists(text)
            | Error::NotFound(text)
            | Error::Invalid(text)
            | Error::Unimplemented(text)
            | Error::Deadline(text) => f.write_str(text),
            Error::Other { code, text } => write!(f, "{code}: {text}"),
        }
    }
}

impl std::error::Error for Error {}

impl Error {
    /// Tells whether the call may have had an effect all the same: then look before calling again.
    pub fn may_have_effect(&self) -> bool {
        match self {
            Error::Unreachable(failure) => failure.sent,
            Error::Deadline(_) | Error::Other { .. } => true,
            Error::Maintenance(_)
            | Error::NotAuthorised(_)
            | Error::FailedPrecondition(_)
            | Error::AlreadyExists(_)
            | Error::NotFound(_)
            | Error::Invalid(_)
            | Error::Unimplemented(_) => false,
        }
    }

    /// Translates a status, which the machine sent or the transport made up.
    pub(super) fn from_status(address: &str, status: &Status) -> Error {
        if let Some(failure) = cause::<Failure>(status) {
            return Error::Unreachable(failure.clone());
        }
        let text = status.message().to_owned();
        // What the machine itself said has no source; a source is the transport's trouble.
        if status.source().is_some() {
            let mut text = format!("{address}: {text}");
            let mut source = status.source();
            while let Some(error) = source {
                text = format!("{text}: {error}");
                source = error.source();
            }
            return Error::Unreachable(Failure { reason: Reason::Lost, text, sent: true });
        }
        match status.code() {
            Code::Unavailable => Error::Unreachable(Failure { reason: Reason::Lost, text, sent: true }),
            Code::Unimplemented if says_maintenance(&text) => Error::Maintenance(text),
            Code::Unimplemented => Error::Unimplemented(text),
            Code::PermissionDenied | Code::Unauthenticated => Error::NotAuthorised(text),
            Code::FailedPrecondition => Error::FailedPrecondition(text),
            Code::AlreadyExists => Error::AlreadyExists(text),
            Code::NotFound => Error::NotFound(text),
            Code::InvalidArgument => Error::Invalid(text),
            Code::DeadlineExceeded => Error::Deadline(text),
            code @ (Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::OutOfRange
            | Code::Internal
            | Code::DataLoss) => Error::Other { code: format!("{code:?}"), text },
        }
    }
}

/// Tells whether an Unimplemented is one of those that only a machine in maintenance mode says. A configured machine
/// that lacks a call says `unknown method X for service Y`.
fn says_maintenance(text: &str) -> bool {
    let method = text.strip_prefix("method ").and_then(|rest| rest.strip_suffix(" not implemented"));
    text.contains("maintenance mode") || method.is_some_and(|name| !name.contains(' '))
}

fn cause<T: std::error::Error + 'static>(status: &Status) -> Option<&T> {
    let mut source = status.source();
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        source = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_texts_are_told_apart() {
        let check = |code, text: &str, expected: fn(String) -> Error| {
            assert_eq!(Error::from_status("x", &Status::new(code, text)), expected(text.into()));
        };
        check(Code::Unimplemented, "API is not implemented in maintenance mode", Error::Maintenance);
        check(Code::Unimplemented, "method Bootstrap not implemented", Error::Maintenance);
        check(Code::Unimplemented, "unknown method Hostname for service machine.MachineService", Error::Unimplemented);
        check(Code::PermissionDenied, "not authorized", Error::NotAuthorised);
        check(Code::FailedPrecondition, "time is not in sync yet", Error::FailedPrecondition);
        check(Code::AlreadyExists, "etcd data directory is not empty", Error::AlreadyExists);
        check(Code::InvalidArgument, "unknown keys found during decoding:", Error::Invalid);
        check(Code::DeadlineExceeded, "late", Error::Deadline);
    }

    #[test]
    fn a_refusal_has_no_effect_and_silence_may_have() {
        let says = |code| Error::from_status("x", &Status::new(code, "")).may_have_effect();
        assert!(![Code::InvalidArgument, Code::FailedPrecondition, Code::PermissionDenied].map(says).contains(&true));
        assert!(![Code::Unavailable, Code::DeadlineExceeded, Code::Unknown, Code::Internal].map(says).contains(&false));
    }
}
