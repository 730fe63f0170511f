//! Tasks: what the server works on after it has answered.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

/// The identity of a task: `UPID:pve1:0003A4F2:01B2C3D4:66A0B1C2:qmcreate:110:lab@pve!lab:`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Upid {
    text: String,
    node: String,
    started: u64,
}

/// How far a task is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// It runs.
    Runs,
    /// It ended well.
    Ended,
    /// It ended well, with warnings: the last lines of its log.
    Warned(String),
    /// It failed: what it ended with, and the last lines of its log.
    Failed(String),
    /// Nothing is known of it: its node is gone, or forgot it.
    Lost,
}

impl Upid {
    /// Returns the node that it runs on.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Returns when it was begun.
    pub(super) fn started(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.started)
    }
}

impl FromStr for Upid {
    type Err = String;

    fn from_str(text: &str) -> Result<Upid, String> {
        let wrong = || format!("{text:?} is not the identity of a task");
        let mut parts = text.split(':');
        if parts.next() != Some("UPID") {
            return Err(wrong());
        }
        let node = parts.next().filter(|node| !node.is_empty()).ok_or_else(wrong)?.to_owned();
        let started = parts.nth(2).and_then(|hex| u64::from_str_radix(hex, 16).ok()).ok_or_else(wrong)?;
        Ok(Upid { text: text.to_owned(), node, started })
    }
}

impl fmt::Display for Upid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_says_where_it_runs_and_since_when() {
        let text = "UPID:pve1:0003A4F2:01B2C3D4:66A0B1C2:qmcreate:110:lab@pve!lab:";
        let upid: Upid = text.parse().unwrap();
        assert_eq!(upid.node(), "pve1");
        assert_eq!(upid.started(), SystemTime::UNIX_EPOCH + Duration::from_secs(0x66A0_B1C2));
        assert_eq!(upid.to_string(), text);
        for wrong in ["", "UPID:", "UPID::1:2:3:x:y:z:", "qmcreate", "UPID:pve1:1:2:x"] {
            assert!(wrong.parse::<Upid>().is_err(), "{wrong}");
        }
    }
}
