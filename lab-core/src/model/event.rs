//! What can happen to a state: what a journal is made of.

use super::record::{Begun, Made, Mark};
use super::state::{ProviderRecord, Run};
use super::{Spec, Urn};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// The thing is ready.
    Ready(Made),
    /// The thing is gone.
    Deleted,
    /// It failed, and had no effect for certain.
    Failed(String),
}

/// What happened. One journal record each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A run that changes something began.
    Ran(Run),
    /// The key of the fingerprints, sealed.
    Keyed {
        /// The sealed key.
        sealed: String,
    },
    /// A secret that later records refer to, sealed.
    Sealed {
        /// Its fingerprint.
        fingerprint: String,
        /// Its sealed value.
        sealed: String,
    },
    /// How a provider is reached now.
    Reached {
        /// The provider and its realm: see [`connection`](super::connection).
        provider: String,
        /// How.
        record: ProviderRecord,
    },
    /// An operation begins, or begins again with today's inputs.
    Begin {
        /// On what.
        urn: Urn,
        /// The operation.
        begun: Box<Begun>,
    },
    /// An operation stands somewhere new.
    Cursor {
        /// On what.
        urn: Urn,
        /// The operation.
        op: Mark,
        /// Where it stands.
        cursor: Value,
        /// The thing, when it exists already.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        made: Option<Made>,
    },
    /// An operation ended.
    End {
        /// On what.
        urn: Urn,
        /// The operation.
        op: Mark,
        /// How.
        ended: Ended,
        /// True when the thing does not bear our mark yet.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unmarked: bool,
    },
    /// A declaration changed in a way that needs no call.
    Noted {
        /// Which.
        urn: Urn,
        /// What it says now.
        spec: Box<Spec>,
    },
    /// A thing was looked at.
    Observed {
        /// Which.
        urn: Urn,
        /// As it is.
        made: Made,
        /// True when that is not as it was left.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        drifted: bool,
    },
    /// A thing is proven to be gone, without our doing.
    Vanished {
        /// Which.
        urn: Urn,
    },
    /// Things are no longer managed; nothing was called.
    Forgot {
        /// Which.
        urns: Vec<Urn>,
        /// Condemned things.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        marks: Vec<Mark>,
    },
    /// A thing survives its container, which went.
    LeftBehind {
        /// Which.
        urn: Urn,
        /// The operation that made it, where it has lost its name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mark: Option<Mark>,
    },
    /// What acts were done around is over: the next interruption has acts of its own.
    Spent {
        /// Which acts.
        urns: Vec<Urn>,
    },
    /// A member of a rolling group is interrupted, and something is to be done after that which nothing else recorded says.
    Owed {
        /// Which member.
        member: Urn,
        /// The operation that interrupts it.
        op: Mark,
    },
    /// All that was owed after a member's interruption is done.
    Paid {
        /// Which member.
        member: Urn,
    },
    /// Things go by other names now, all at once.
    Moved {
        /// Old and new names.
        moves: Vec<(Urn, Urn)>,
    },
    /// What the program returned.
    Returned {
        /// The outputs.
        outputs: Value,
    },
    /// What a read was answered.
    Answered {
        /// Which read.
        urn: Urn,
        /// The answer.
        answer: Value,
        /// SHA-256 of what was asked; as it was when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asked: Option<String>,
    },
}

impl Event {
    /// Returns about how many bytes it has in a file.
    pub(crate) fn size(&self) -> usize {
        let spec = |spec: &Spec| 500 + spec.inputs.text().len();
        match self {
            Event::Begin { begun, .. } => spec(&begun.spec),
            Event::Noted { spec: noted, .. } => spec(noted),
            Event::End { ended: Ended::Ready(made), .. } => {
                200 + made.outputs.text().len() + made.live.as_ref().map_or(0, |live| live.text().len())
            }
            Event::Cursor { cursor, .. } => 200 + weight(cursor),
            Event::Returned { outputs: value } | Event::Answered { answer: value, .. } => 100 + weight(value),
            Event::Reached { record, .. } => 100 + weight(&record.config),
            Event::Ran(_)
            | Event::Keyed { .. }
            | Event::Sealed { .. }
            | Event::End { .. }
            | Event::Observed { .. }
            | Event::Vanished { .. }
            | Event::Forgot { .. }
            | Event::LeftBehind { .. }
            | Event::Spent { .. }
            | Event::Owed { .. }
            | Event::Paid { .. }
            | Event::Moved { .. } => 200,
        }
    }
}

/// Returns about how many bytes `value` has in a file.
fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 4,
        Value::Array(list) => list.iter().map(weight).sum::<usize>() + 8,
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + 6 + weight(value)).sum::<usize>() + 8,
    }
}

/// An event that cannot follow the state it met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Illegal(pub String);

impl fmt::Display for Illegal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Illegal {}
