//! What a call can fail with.
//!
//! Proxmox VE says what went wrong in words: in the body of newer versions, in the reason phrase of the status line of
//! all, per parameter in the body, or in how a task ended. The words decide; the status hardly does.

use lab_core::{Class, Effect};
use serde_json::Value;
use std::fmt;

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What the matter is.
    pub problem: Problem,
    /// Whether it may have had an effect all the same.
    pub effect: Effect,
    /// What was attempted and what came back, without secrets.
    pub text: String,
}

/// What the matter is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// No endpoint could be reached, or the answer did not come.
    Unreachable,
    /// The node that the call is about cannot be reached from the one that was asked.
    NodeUnreachable,
    /// The endpoint's certificate is not one that is trusted.
    Untrusted,
    /// The token was not accepted.
    Unauthenticated,
    /// The token may not do that.
    Forbidden,
    /// There is no such machine on that node: it is gone, or was moved.
    Missing,
    /// There is something of that name or number already.
    Exists,
    /// The machine is locked, by this.
    Locked(String),
    /// Somebody else holds a lock of the server for a moment.
    Busy,
    /// It was changed by somebody else since it was read.
    Changed,
    /// The cluster has no quorum: nothing can be changed.
    NoQuorum,
    /// The server gave up waiting.
    Timeout,
    /// The task is not known, or not yet.
    NoTask,
    /// The machine does not run.
    NotRunning,
    /// The machine runs already: another start was faster.
    Running,
    /// The guest agent does not answer: the guest boots, or has none.
    AgentSilent,
    /// The machine has no guest agent configured.
    AgentMissing,
    /// The guest agent refused, in these words.
    Agent(String),
    /// The server does not know the call: an older version, or a newer one.
    Unsupported,
    /// The request cannot succeed as it is.
    Refused,
    /// The answer cannot be understood.
    Answer,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

impl Problem {
    /// Returns what the words of a refusal say.
    pub(super) fn of(status: u16, text: &str, errors: &Value) -> Problem {
        let says = |words: &str| text.contains(words);
        match status {
            401 => return Problem::Unauthenticated,
            403 => return Problem::Forbidden,
            501 if says("not implemented") => return Problem::Unsupported,
            595 => return Problem::NodeUnreachable,
            596 | 597 | 599 => return Problem::Unreachable,
            _ => {}
        }
        if errors.get("upid").is_some() && says("no such task") {
            return Problem::NoTask;
        }
        Problem::said(text)
    }

    /// Returns what words say that come from a refusal or from the end of a task.
    pub(crate) fn said(text: &str) -> Problem {
        let says = |words: &str| text.contains(words);
        let between = |before: &str, after: char| {
            let rest = &text[text.find(before)? + before.len()..];
            Some(rest[..rest.find(after)?].to_owned())
        };
        if let Some(lock) = between("is locked (", ')') {
            return Problem::Locked(lock);
        }
        if says("can't lock file")
            || says("got lock request timeout")
            || says("locked command timed out")
            || says("got no worker upid")
        {
            return Problem::Busy;
        }
        if says("Configuration file '") && says("does not exist") {
            return Problem::Missing;
        }
        if says("already exists") || says("already defined") {
            return Problem::Exists;
        }
        if says("checksum mismatch (file change") || says("detected modified configuration") {
            return Problem::Changed;
        }
        if says("no quorum") {
            return Problem::NoQuorum;
        }
        if says("No QEMU guest agent configured") {
            return Problem::AgentMissing;
        }
        if says("guest agent is not running") {
            return Problem::AgentSilent;
        }
        if let Some(at) = text.find("Agent error: ") {
            return Problem::Agent(text[at + "Agent error: ".len()..].trim().to_owned());
        }
        if says("VM ") && says(" already running") {
            return Problem::Running;
        }
        if says("is not running") || (says("VM ") && says(" not running")) {
            return Problem::NotRunning;
        }
        if says("got timeout") {
            return Problem::Timeout;
        }
        Problem::Refused
    }

    fn class(&self) -> Class {
        match self {
            Problem::Unreachable | Problem::NodeUnreachable => Class::Unreachable,
            Problem::Untrusted | Problem::Unauthenticated | Problem::Forbidden => Class::Unauthorised,
            Problem::Missing => Class::Gone,
            Problem::Exists | Problem::Changed | Problem::Running => Class::Conflict,
            Problem::Locked(_)
            | Problem::Busy
            | Problem::NoQuorum
            | Problem::Timeout
            | Problem::NoTask
            | Problem::NotRunning
            | Problem::AgentSilent
            | Problem::Answer => Class::Again,
            Problem::AgentMissing | Problem::Agent(_) | Problem::Unsupported | Problem::Refused => Class::Invalid,
        }
    }

    /// Returns whether another look and another attempt may succeed.
    pub(crate) fn passes(&self) -> bool {
        match self.class() {
            Class::Again | Class::Unreachable | Class::Conflict | Class::Gone => true,
            Class::Unauthorised | Class::Invalid => false,
        }
    }

    /// Returns whether a call that fails so was refused before it did anything, for certain.
    pub(super) fn refuses(&self) -> bool {
        match self {
            Problem::Untrusted
            | Problem::Unauthenticated
            | Problem::Forbidden
            | Problem::NodeUnreachable
            | Problem::Missing
            | Problem::Exists
            | Problem::Locked(_)
            | Problem::Busy
            | Problem::Changed
            | Problem::NoQuorum
            | Problem::AgentMissing
            | Problem::AgentSilent
            | Problem::NotRunning
            | Problem::Running
            | Problem::NoTask
            | Problem::Unsupported => true,
            Problem::Unreachable | Problem::Timeout | Problem::Agent(_) | Problem::Refused | Problem::Answer => false,
        }
    }
}

impl From<Error> for lab_core::Error {
    fn from(error: Error) -> lab_core::Error {
        lab_core::Error { class: error.problem.class(), effect: error.effect, message: error.text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_words_of_the_server_say_what_the_matter_is() {
        let none = Value::Null;
        for (status, text, problem) in [
            (500, "VM is locked (clone)", Problem::Locked("clone".into())),
            (500, "can't lock file '/var/lock/qemu-server/lock-110.conf' - got timeout", Problem::Busy),
            (500, "cfs-lock 'storage-nfs' error: got lock request timeout", Problem::Busy),
            (500, "'storage-nfs'-locked command timed out - aborting", Problem::Busy),
            (500, "Configuration file 'nodes/pve1/qemu-server/110.conf' does not exist", Problem::Missing),
            (500, "unable to create VM 110 - VM 110 already exists on node 'pve1'", Problem::Exists),
            (500, "unable to create VM 110: config file already exists", Problem::Exists),
            (500, "checksum mismatch (file change by other user?)", Problem::Changed),
            (500, "detected modified configuration - file changed by other user? Try again.", Problem::Changed),
            (500, "cluster not ready - no quorum?", Problem::NoQuorum),
            (500, "QEMU guest agent is not running", Problem::AgentSilent),
            (500, "No QEMU guest agent configured", Problem::AgentMissing),
            (500, "VM 110 is not running", Problem::NotRunning),
            (500, "VM 110 not running", Problem::NotRunning),
            (500, "VM 110 already running", Problem::Running),
            (500, "VM quit/powerdown failed - got timeout", Problem::Timeout),
            (500, "storage 'nfs' does not exist", Problem::Refused),
            (403, "Permission check failed (/vms/110, VM.Config.Disk)", Problem::Forbidden),
            (401, "Authentication failed!", Problem::Unauthenticated),
            (501, "Method 'GET /nodez' not implemented", Problem::Unsupported),
            (595, "Connection refused", Problem::NodeUnreachable),
            (596, "Connection timed out", Problem::Unreachable),
            (599, "Too many redirections", Problem::Unreachable),
        ] {
            assert_eq!(Problem::of(status, text, &none), problem, "{text}");
        }
        let text = "Parameter verification failed. upid: no such task";
        assert_eq!(Problem::of(400, text, &json!({"upid": "no such task"})), Problem::NoTask);
        let agent = "Agent error: failed to open file '/x': No such file or directory";
        let said = "failed to open file '/x': No such file or directory".to_owned();
        assert_eq!(Problem::of(500, agent, &none), Problem::Agent(said));
    }
}
