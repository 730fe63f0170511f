//! Where an operation on a machine stands: its cursor.

use super::pause;
use lab_core::{Error, Result, Step};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where an operation on a machine stands. Times are in seconds since 1970; a boot is known by the machine's own id of
/// it, where it says one; `running` tells whether the machine was all up before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Way {
    /// Nothing was called yet.
    #[default]
    Begun,
    /// It will be told to reboot into another configuration.
    About { boot: Option<String>, running: bool },
    /// It was given a configuration.
    Told { at: u64, boot: Option<String>, running: bool },
    /// It was told to install another version of Talos.
    Upgrading { image: String, at: u64, boot: Option<String>, running: bool },
    /// It was told to reset itself.
    Resetting { at: u64 },
}

impl Way {
    /// Reads a cursor.
    pub(super) fn read(cursor: Option<&Value>) -> Result<Way> {
        match cursor {
            None | Some(Value::Null) => Ok(Way::Begun),
            Some(cursor) => serde_json::from_value(cursor.clone())
                .map_err(|error| Error::invalid(format!("its cursor {cursor} is not one of a machine: {error}"))),
        }
    }

    /// Returns the step that waits here for so many seconds.
    pub(super) fn next<O>(&self, why: String, seconds: u64) -> Step<O> {
        let cursor = serde_json::to_value(self).expect("a cursor is plain data");
        Step::next(cursor, why, pause(seconds))
    }
}
