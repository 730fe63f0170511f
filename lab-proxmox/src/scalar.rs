//! Reading what the server writes in more than one way: a number as a number or a text, a truth as `0`, `1`, `true` or
//! not at all.

use serde_json::Value;

/// Returns a scalar as text.
pub(crate) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(u8::from(*truth).to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Returns the text of a field; empty when there is none.
pub(crate) fn field(value: &Value, name: &str) -> String {
    value.get(name).and_then(text).unwrap_or_default()
}

/// Returns a number.
pub(crate) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Returns whether a field says yes.
pub(crate) fn truth(value: &Value, name: &str) -> bool {
    matches!(field(value, name).as_str(), "1" | "true" | "on" | "yes")
}

/// Returns the elements of a list; none of anything else.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
