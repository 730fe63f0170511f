//! From bytes to an object: JSON and YAML, duplicate and unknown fields, types, and defaults of custom resources.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::refusal::{Flaw, Refusal};
use super::schema::{Field, Schema};

/// A document as it was written, with the fields that stood twice.
#[derive(Debug, Default)]
pub(crate) struct Document {
    pub(crate) value: Value,
    /// Paths such as `spec.replicas`.
    pub(crate) duplicates: Vec<String>,
}

impl Document {
    /// Reads JSON.
    pub(crate) fn json(bytes: &[u8]) -> Result<Document, Refusal> {
        serde_json::from_slice(bytes)
            .map_err(|error| Refusal::bad_request(format!("couldn't get version/kind; json parse error: {error}")))
    }

    /// Reads YAML, and so JSON too.
    pub(crate) fn yaml(bytes: &[u8]) -> Result<Document, Refusal> {
        if let Ok(document) = serde_json::from_slice(bytes) {
            return Ok(document);
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|error| Refusal::bad_request(format!("error decoding YAML: {error}")))?;
        let options = serde_saphyr::options! { duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins };
        serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| Refusal::bad_request(format!("error decoding YAML: {error}")))
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Document, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

fn plain<E>(value: impl Into<Value>) -> Result<Document, E> {
    Ok(Document { value: value.into(), duplicates: Vec::new() })
}

impl<'de> Visitor<'de> for Reader {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON or YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Document, E> {
        plain(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Document, E> {
        plain(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Document, E> {
        plain(value)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Document, E> {
        plain(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Document, E> {
        plain(value)
    }

    fn visit_unit<E>(self) -> Result<Document, E> {
        plain(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Document, E> {
        plain(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Document, D::Error> {
        Document::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Document, A::Error> {
        let mut items = Vec::new();
        let mut duplicates = Vec::new();
        while let Some(item) = access.next_element::<Document>()? {
            let at = items.len();
            duplicates.extend(item.duplicates.iter().map(|path| joined(&format!("[{at}]"), path)));
            items.push(item.value);
        }
        Ok(Document { value: Value::Array(items), duplicates })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Document, A::Error> {
        let mut map = Map::new();
        let mut duplicates = Vec::new();
        while let Some((name, item)) = access.next_entry::<String, Document>()? {
            duplicates.extend(item.duplicates.iter().map(|path| joined(&name, path)));
            if map.contains_key(&name) {
                duplicates.push(name.clone());
            }
            map.insert(name, item.value);
        }
        Ok(Document { value: Value::Object(map), duplicates })
    }
}

fn joined(first: &str, rest: &str) -> String {
    if rest.starts_with('[') { format!("{first}{rest}") } else { format!("{first}.{rest}") }
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_string() } else { format!("{path}.{name}") }
}

/// Removes the fields that `schema` does not know; returns their paths.
pub(crate) fn prune(schema: Schema<'_>, value: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    prune_below(schema, value, "", &mut unknown);
    unknown
}

fn prune_below(schema: Schema<'_>, value: &mut Value, path: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            map.retain(|name, _| {
                let known = !matches!(schema.field(name), Field::Unknown);
                if !known {
                    unknown.push(below(path, name));
                }
                known
            });
            for (name, value) in map {
                if let Field::Declared(inner) | Field::Entry(inner) = schema.field(name) {
                    prune_below(inner, value, &below(path, name), unknown);
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter_mut().enumerate() {
                prune_below(schema.items(), item, &format!("{path}[{at}]"), unknown);
            }
        }
        _ => {}
    }
}

/// Returns what does not fit the schema's fields and types, as an apply reports it.
pub(crate) fn untyped(schema: Schema<'_>, value: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    untyped_below(schema, value, "", &mut problems);
    problems
}

fn untyped_below(schema: Schema<'_>, value: &Value, path: &str, problems: &mut Vec<String>) {
    if value.is_null() || schema.int_or_string() || schema.get("oneOf").is_some() {
        return;
    }
    let wrong = match (schema.kind(), value) {
        (Some("string"), Value::String(_)) | (Some("boolean"), Value::Bool(_)) => None,
        (Some("integer" | "number"), Value::Number(_)) => None,
        (Some("object"), Value::Object(_)) | (Some("array"), Value::Array(_)) | (None, _) => None,
        (Some("string"), other) => Some(format!("expected string, got &value.valueUnstructured{{Value:{other}}}")),
        (Some("boolean"), other) => Some(format!("expected boolean, got {}", named(other))),
        (Some("integer" | "number"), other) => Some(format!("expected numeric (int or float), got {}", named(other))),
        (Some("object"), other) => Some(format!("expected map, got &{{{}}}", bare(other))),
        (Some("array"), other) => Some(format!("expected list, got &{{{}}}", bare(other))),
        (Some(_), _) => None,
    };
    if let Some(wrong) = wrong {
        problems.push(format!("{path}: {wrong}"));
        return;
    }
    match value {
        Value::Object(map) => {
            for name in map.keys().filter(|name| matches!(schema.field(name), Field::Unknown)) {
                problems.push(format!("{path}.{name}: field not declared in schema"));
            }
            for (name, value) in map {
                if let Field::Declared(inner) | Field::Entry(inner) = schema.field(name) {
                    untyped_below(inner, value, &format!("{path}.{name}"), problems);
                }
            }
        }
        Value::Array(items) => keyed_items(schema, value, items, path, problems),
        _ => {}
    }
}

fn keyed_items(schema: Schema<'_>, list: &Value, items: &[Value], path: &str, problems: &mut Vec<String>) {
    use super::fields::Element;
    use super::schema::Shape;
    let shape = schema.shape(list);
    let mut seen = std::collections::BTreeSet::new();
    for (at, item) in items.iter().enumerate() {
        if let Shape::Keyed(keys) = &shape {
            let missing = |key: &&&str| item.get(**key).is_none() && schema.items().key_default(key).is_none();
            if keys.iter().all(|key| missing(&key)) {
                let name = keys.first().copied().unwrap_or_default();
                problems.push(format!(
                    "{path}: element {at}: associative list with keys has an element that omits all key fields [{name:?}] (and doesn't have default values for any key fields)"
                ));
                continue;
            }
        }
        if matches!(shape, Shape::Keyed(_) | Shape::Set) && !seen.insert(Element::item(schema, item)) {
            problems.push(format!("{path}: duplicate entries for key {}", Element::item(schema, item).label()));
        }
        untyped_below(schema.items(), item, &format!("{path}[{at}]"), problems);
    }
}

fn named(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

fn bare(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), String::from)
}

/// Fills in the defaults that the schema of a custom resource states.
pub(crate) fn default(schema: Schema<'_>, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, property) in schema.properties() {
                if let Some(default) = property.get("default")
                    && (!map.contains_key(name) || (map[name].is_null() && !property.nullable()))
                {
                    map.insert(name.into(), default.clone());
                }
            }
            for (name, value) in map {
                if let Field::Declared(inner) | Field::Entry(inner) = schema.field(name) {
                    default(inner, value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| default(schema.items(), item)),
        _ => {}
    }
}

/// Returns what of a custom resource breaks its schema.
pub(crate) fn check(schema: Schema<'_>, value: &Value, path: &str, flaws: &mut Vec<Flaw>) {
    if value.is_null() && schema.nullable() {
        return;
    }
    let fits = match schema.kind() {
        _ if schema.int_or_string() => value.is_string() || value.is_i64() || value.is_u64(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0),
        Some("number") => value.is_number(),
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        _ => true,
    };
    if !fits {
        flaws.push(Flaw::wrong_type(path, value, schema.kind().unwrap_or("integer,string")));
        return;
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let words: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
        flaws.push(Flaw::unsupported(path, value, &words));
    }
    let limit = |key: &str| schema.get(key).and_then(Value::as_f64);
    let mut bound = |broken: bool, text: String| {
        if broken {
            flaws.push(Flaw::invalid(path, value, &format!("{path} in body {text}")));
        }
    };
    match value {
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or_default();
            if let Some(least) = limit("minimum") {
                bound(number < least, format!("should be greater than or equal to {least}"));
            }
            if let Some(most) = limit("maximum") {
                bound(number > most, format!("should be less than or equal to {most}"));
            }
        }
        Value::String(text) => {
            let length = text.chars().count() as f64;
            if let Some(least) = limit("minLength") {
                bound(length < least, format!("should be at least {least} chars long"));
            }
            if let Some(most) = limit("maxLength") {
                bound(length > most, format!("should be at most {most} chars long"));
            }
        }
        Value::Array(items) => {
            if let Some(least) = limit("minItems")
                && (items.len() as f64) < least
            {
                let detail = format!("{path} in body should have at least {least} items");
                flaws.push(Flaw::invalid(path, &items.len().into(), &detail));
            }
            let mut bound = |broken: bool, text: String| {
                if broken {
                    flaws.push(Flaw::invalid(path, value, &format!("{path} in body {text}")));
                }
            };
            if let Some(most) = limit("maxItems") {
                bound(items.len() as f64 > most, format!("should have at most {most} items"));
            }
            for (at, item) in items.iter().enumerate() {
                check(schema.items(), item, &format!("{path}[{at}]"), flaws);
            }
        }
        Value::Object(map) => {
            for name in schema.required() {
                if !map.contains_key(name) {
                    flaws.push(Flaw::required(below(path, name), ""));
                }
            }
            for (name, value) in map {
                // Metadata has rules of its own.
                if path.is_empty() && name == "metadata" {
                    continue;
                }
                if let Field::Declared(inner) | Field::Entry(inner) = schema.field(name) {
                    check(inner, value, &below(path, name), flaws);
                }
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

/// Returns the first value that is of another type than the schema's, as the decoder of JSON words it.
pub(crate) fn mistyped(schema: Schema<'_>, value: &Value) -> Option<String> {
    mistyped_below(schema, value, "")
}

fn mistyped_below(schema: Schema<'_>, value: &Value, path: &str) -> Option<String> {
    if value.is_null() || schema.int_or_string() || schema.get("oneOf").is_some() {
        return None;
    }
    let fits = match schema.kind() {
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer" | "number") => value.is_number(),
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        _ => true,
    };
    if !fits {
        let given = match value {
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) | Value::Null => "object",
        };
        let wanted = schema.kind().unwrap_or("value");
        return Some(format!("cannot unmarshal {given} into Go struct field {path} of type {wanted}"));
    }
    match value {
        Value::Object(map) => map.iter().find_map(|(name, value)| match schema.field(name) {
            Field::Declared(inner) | Field::Entry(inner) => mistyped_below(inner, value, &below(path, name)),
            Field::Unknown => None,
        }),
        Value::Array(items) => items.iter().find_map(|item| mistyped_below(schema.items(), item, path)),
        _ => None,
    }
}

/// Returns what the server cannot read into its own types although JSON's are right: quantities, bytes.
pub(crate) fn unconvertible(schema: Schema<'_>, kind: &str, object: &Value) -> Option<String> {
    use base64::Engine;
    if kind == "Secret" {
        for value in object["data"].as_object().into_iter().flatten().filter_map(|(_, value)| value.as_str()) {
            let read = base64::engine::general_purpose::STANDARD.decode(value);
            if let Err(base64::DecodeError::InvalidByte(at, _)) = read {
                return Some(format!("error decoding from json: illegal base64 data at input byte {at}"));
            } else if read.is_err() {
                return Some(format!("error decoding from json: illegal base64 data at input byte {}", value.len()));
            }
        }
    }
    quantities(schema, object)
}

fn quantities(schema: Schema<'_>, value: &Value) -> Option<String> {
    if schema.is_quantity() {
        let bad = value.as_str().is_some_and(|text| super::quantity::nano(text).is_none());
        return bad.then(|| {
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'".to_string()
        });
    }
    match value {
        Value::Object(map) => map.iter().find_map(|(name, value)| match schema.field(name) {
            Field::Declared(inner) | Field::Entry(inner) => quantities(inner, value),
            Field::Unknown => None,
        }),
        Value::Array(items) => items.iter().find_map(|item| quantities(schema.items(), item)),
        _ => None,
    }
}
