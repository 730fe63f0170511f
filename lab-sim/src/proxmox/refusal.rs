//! Why a request is refused, the way Proxmox says it: a status, a reason phrase, errors by parameter.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A refused request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// The message; its first line is the reason phrase.
    pub(super) message: String,
    pub(super) errors: BTreeMap<String, String>,
    /// Raised by the layer below the API: the body is the bare message, or empty.
    pub(super) bare: bool,
}

/// What a request yields.
pub(super) type Answer = Result<Value, Refusal>;

impl Refusal {
    pub(super) fn new(status: u16, message: impl Into<String>) -> Refusal {
        Refusal { status, message: message.into(), errors: BTreeMap::new(), bare: false }
    }

    /// Something died in the code of the call: 500 with its text.
    pub(super) fn died(message: impl Into<String>) -> Refusal {
        Refusal::new(500, message)
    }

    /// A failed check of parameters: 400 with the errors by parameter.
    pub(super) fn parameters(errors: BTreeMap<String, String>) -> Refusal {
        Refusal { errors, ..Refusal::new(400, "Parameter verification failed.") }
    }

    pub(super) fn parameter(name: &str, text: impl Into<String>) -> Refusal {
        Refusal::parameters(BTreeMap::from([(name.to_owned(), text.into())]))
    }

    /// Raised by the HTTP layer itself.
    pub(super) fn bare(status: u16, message: impl Into<String>) -> Refusal {
        Refusal { bare: true, ..Refusal::new(status, message) }
    }

    /// A missing privilege.
    pub(super) fn forbidden(path: &str, privileges: &str) -> Refusal {
        Refusal::new(403, format!("Permission check failed ({path}, {privileges})"))
    }

    /// Something real that this stand-in does not do.
    pub(super) fn not_simulated(what: impl std::fmt::Display) -> Refusal {
        Refusal::new(501, format!("not simulated: {what}"))
    }

    pub(super) fn body(&self) -> Vec<u8> {
        if self.bare {
            return if self.status == 401 { Vec::new() } else { self.message.clone().into_bytes() };
        }
        let mut body = Map::from_iter([
            ("data".to_owned(), Value::Null),
            ("message".to_owned(), json!(format!("{}\n", self.message))),
        ]);
        if !self.errors.is_empty() {
            body.insert("errors".to_owned(), json!(self.errors));
        }
        Value::Object(body).to_string().into_bytes()
    }
}

/// A text that a task or a call dies with.
impl From<String> for Refusal {
    fn from(message: String) -> Refusal {
        Refusal::died(message)
    }
}
