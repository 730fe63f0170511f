//! A request that the API refuses, as the `Status` body that a client sees.

use serde_json::{Map, Value, json};

/// Why a request was refused: the code, the machine-readable reason, the message, and the details.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    reason: String,
    message: String,
    details: Map<String, Value>,
}

/// What a refusal is about: the names under which a Status speaks of a kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About<'a> {
    pub(crate) group: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) plural: &'a str,
}

impl About<'_> {
    fn qualified(&self, word: &str) -> String {
        if self.group.is_empty() { word.to_string() } else { format!("{word}.{}", self.group) }
    }
}

/// One thing that is wrong with an object, at a field.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Flaw {
    reason: &'static str,
    field: String,
    message: String,
}

impl Flaw {
    /// Returns the flaw of a field that must be there.
    pub(crate) fn required(field: impl Into<String>, detail: &str) -> Flaw {
        let message = if detail.is_empty() { "Required value".into() } else { format!("Required value: {detail}") };
        Flaw { reason: "FieldValueRequired", field: field.into(), message }
    }

    /// Returns the flaw of a value that is wrong.
    pub(crate) fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Flaw {
        Flaw {
            reason: "FieldValueInvalid",
            field: field.into(),
            message: format!("Invalid value: {}: {detail}", shown(value)),
        }
    }

    /// Returns the flaw of a value of the wrong type.
    pub(crate) fn wrong_type(field: impl Into<String>, value: &Value, detail: &str) -> Flaw {
        let given = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let field = field.into();
        let message = format!("Invalid value: \"{given}\": {field} in body must be of type {detail}: \"{given}\"");
        Flaw { reason: "FieldValueTypeInvalid", field, message }
    }

    /// Returns the flaw of a value outside its enumeration.
    pub(crate) fn unsupported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Flaw {
        let list: Vec<String> = supported.iter().map(|word| format!("\"{word}\"")).collect();
        Flaw {
            reason: "FieldValueNotSupported",
            field: field.into(),
            message: format!("Unsupported value: {}: supported values: {}", shown(value), list.join(", ")),
        }
    }

    /// Returns the flaw of a field that may not be set or changed here.
    pub(crate) fn forbidden(field: impl Into<String>, detail: &str) -> Flaw {
        Flaw { reason: "FieldValueForbidden", field: field.into(), message: format!("Forbidden: {detail}") }
    }

    /// Returns the flaw of a name that nothing bears.
    pub(crate) fn not_found(field: impl Into<String>, value: &Value) -> Flaw {
        Flaw { reason: "FieldValueNotFound", field: field.into(), message: format!("Not found: {}", shown(value)) }
    }

    /// Returns the flaw of a value that stands twice.
    pub(crate) fn duplicate(field: impl Into<String>, value: &Value) -> Flaw {
        let message = format!("Duplicate value: {}", shown(value));
        Flaw { reason: "FieldValueDuplicate", field: field.into(), message }
    }

    fn text(&self) -> String {
        format!("{}: {}", self.field, self.message)
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

impl Refusal {
    fn new(code: u16, reason: &str, message: impl Into<String>) -> Refusal {
        Refusal { code, reason: reason.into(), message: message.into(), details: Map::new() }
    }

    fn about(mut self, name: &str, group: &str, kind: &str) -> Refusal {
        for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
            if !value.is_empty() {
                self.details.insert(key.into(), value.into());
            }
        }
        self
    }

    fn causes(mut self, causes: Vec<Value>) -> Refusal {
        self.details.insert("causes".into(), Value::Array(causes));
        self
    }

    /// Returns the refusal of a thing that the stand-in does not model.
    pub(crate) fn not_modelled(what: &str) -> Refusal {
        Refusal::new(501, "NotImplemented", format!("the simulated Kubernetes API does not model {what}"))
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Refusal {
        Refusal::new(400, "BadRequest", message)
    }

    pub(crate) fn no_such_resource() -> Refusal {
        Refusal::new(404, "NotFound", "the server could not find the requested resource")
    }

    pub(crate) fn too_large() -> Refusal {
        Refusal::new(413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728")
    }

    /// Returns the refusal of a JSON patch that does not fit; what did not, the real server keeps to itself.
    pub(crate) fn unprocessable() -> Refusal {
        Refusal::new(422, "Invalid", "the server rejected our request due to an error in our request")
    }

    pub(crate) fn unauthorised() -> Refusal {
        Refusal::new(401, "Unauthorized", "Unauthorized")
    }

    pub(crate) fn internal(message: impl Into<String>) -> Refusal {
        // A plain error inside the real server comes out without a reason.
        Refusal::new(500, "", message)
    }

    pub(crate) fn unavailable(code: u16) -> Refusal {
        match code {
            503 => Refusal::new(503, "ServiceUnavailable", "the server is currently unable to handle the request"),
            _ => {
                Refusal::new(code, "InternalError", "an error on the server has prevented the request from succeeding")
            }
        }
    }

    pub(crate) fn not_allowed() -> Refusal {
        Refusal::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    pub(crate) fn unsupported_media_type() -> Refusal {
        Refusal::new(415, "UnsupportedMediaType", "415: Unsupported Media Type")
    }

    pub(crate) fn too_old(asked: u64, oldest: u64) -> Refusal {
        Refusal::new(410, "Expired", format!("too old resource version: {asked} ({oldest})"))
    }

    pub(crate) fn not_found(about: About<'_>, name: &str) -> Refusal {
        Refusal::new(404, "NotFound", format!("{} {name:?} not found", about.qualified(about.plural))).about(
            name,
            about.group,
            about.plural,
        )
    }

    pub(crate) fn exists(about: About<'_>, name: &str) -> Refusal {
        Refusal::new(409, "AlreadyExists", format!("{} {name:?} already exists", about.qualified(about.plural))).about(
            name,
            about.group,
            about.plural,
        )
    }

    /// Returns the refusal of a write that meets another state than it expected.
    pub(crate) fn conflict(about: About<'_>, name: &str, detail: &str) -> Refusal {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {detail}", about.qualified(about.plural));
        Refusal::new(409, "Conflict", message).about(name, about.group, about.plural)
    }

    /// Returns the refusal of a write on an object that changed meanwhile.
    pub(crate) fn modified(about: About<'_>, name: &str) -> Refusal {
        let detail = "the object has been modified; please apply your changes to the latest version and try again";
        Refusal::conflict(about, name, detail)
    }

    /// Returns the refusal of an apply that touches what other managers own: `(manager as printed, field path)`.
    pub(crate) fn apply_conflict(conflicts: &[(String, String)]) -> Refusal {
        let message = match conflicts {
            [(manager, path)] => format!("Apply failed with 1 conflict: conflict with {manager}: {path}"),
            many => {
                let mut managers: Vec<&String> = many.iter().map(|(manager, _)| manager).collect();
                managers.sort();
                managers.dedup();
                let mut lines = Vec::new();
                for manager in managers {
                    lines.push(format!("conflicts with {manager}:"));
                    lines.extend(many.iter().filter(|(m, _)| m == manager).map(|(_, path)| format!("- {path}")));
                }
                format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
            }
        };
        let causes = conflicts
            .iter()
            .map(|(manager, path)| {
                json!({"reason": "FieldManagerConflict", "message": format!("conflict with {manager}"), "field": path})
            })
            .collect();
        Refusal::new(409, "Conflict", message).causes(causes)
    }

    /// Returns the refusal of an object with flaws; panics without any.
    pub(crate) fn invalid(about: About<'_>, name: &str, flaws: &[Flaw]) -> Refusal {
        assert!(!flaws.is_empty(), "an object without flaws is not refused");
        let texts: Vec<String> = flaws.iter().map(Flaw::text).collect();
        let list = if texts.len() == 1 { texts[0].clone() } else { format!("[{}]", texts.join(", ")) };
        let causes = flaws
            .iter()
            .map(|flaw| json!({"reason": flaw.reason, "message": flaw.message, "field": flaw.field}))
            .collect();
        let message = format!("{} {name:?} is invalid: {list}", about.qualified(about.kind));
        Refusal::new(422, "Invalid", message).about(name, about.group, about.kind).causes(causes)
    }

    pub(crate) fn forbidden(about: About<'_>, name: &str, detail: &str) -> Refusal {
        let message = format!("{} {name:?} is forbidden: {detail}", about.qualified(about.plural));
        Refusal::new(403, "Forbidden", message).about(name, about.group, about.plural)
    }

    /// Returns the refusal of a request by somebody who may not do this.
    pub(crate) fn forbidden_to(user: &str) -> Refusal {
        let message = format!(
            "forbidden: User {user:?} is not in system:masters; the simulated Kubernetes API does not model RBAC"
        );
        Refusal::new(403, "Forbidden", message)
    }

    /// Returns the refusal of a create in a namespace that is going away.
    pub(crate) fn terminating(about: About<'_>, name: &str, namespace: &str) -> Refusal {
        let detail = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let cause = json!({
            "reason": "NamespaceTerminating",
            "message": format!("namespace {namespace} is being terminated"),
            "field": "metadata.namespace",
        });
        Refusal::forbidden(about, name, &detail).causes(vec![cause])
    }

    /// Returns the `Status` body.
    pub(crate) fn body(&self) -> Value {
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            body["reason"] = self.reason.clone().into();
        }
        // The generic ones of the real server always carry details, also when there is nothing to say.
        if !self.details.is_empty() || matches!(self.reason.as_str(), "Invalid" | "UnsupportedMediaType" | "NotFound") {
            body["details"] = Value::Object(self.details.clone());
        }
        body
    }
}
