//! Which calls there are, and what their parameters must look like: the API schema as Proxmox publishes it, checked with
//! Proxmox' own texts.

use super::format::{self, split_list};
use super::refusal::Refusal;
use super::request;
use flate2::read::GzDecoder;
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::OnceLock;

const UNKNOWN: &str = "property is not defined in schema and the schema does not allow additional properties";
const MISSING: &str = "property is missing and it is not optional";

/// One call of the API.
#[derive(Debug, Deserialize)]
pub(super) struct Call {
    pub(super) path: String,
    pub(super) method: String,
    /// `node` when the node in the path answers it.
    pub(super) node: Option<String>,
    /// The privileges it needs, as a nested expression; null when the code of the call decides.
    #[serde(default)]
    pub(super) check: Value,
    params: BTreeMap<String, Param>,
}

/// What one parameter, or one key of a property string, must look like.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Param {
    #[serde(rename = "type")]
    kind: Option<String>,
    optional: Option<u8>,
    format: Option<Format>,
    pattern: Option<String>,
    #[serde(rename = "maxLength")]
    longest: Option<usize>,
    #[serde(rename = "minLength")]
    shortest: Option<usize>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    #[serde(rename = "enum")]
    choices: Option<Vec<String>>,
    requires: Option<String>,
    items: Option<Box<Param>>,
    default_key: Option<Value>,
    alias: Option<String>,
    #[serde(rename = "keyAlias")]
    key_alias: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Format {
    Named(String),
    Properties(Properties),
}

/// The keys of a property string.
type Properties = BTreeMap<String, Param>;

#[derive(Deserialize)]
struct Schema {
    indexed: BTreeMap<String, u32>,
    formats: BTreeMap<String, Properties>,
    calls: Vec<Call>,
}

fn schema() -> &'static Schema {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let packed = include_bytes!("data/schema-9.json.gz").as_slice();
        serde_json::from_reader(GzDecoder::new(packed)).expect("the schema in this crate is readable")
    })
}

/// The checked parameters of a call, those of the path included.
#[derive(Clone, Debug, Default)]
pub(super) struct Args(BTreeMap<String, Value>);

impl Args {
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// Returns a parameter that the schema requires.
    pub(super) fn required(&self, name: &str) -> &str {
        self.text(name).unwrap_or_default()
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.text(name) == Some("1")
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// Returns the identifier of the virtual machine in the path.
    pub(super) fn vm(&self) -> u32 {
        self.number("vmid").and_then(|id| u32::try_from(id).ok()).unwrap_or_default()
    }

    /// Returns an array, or the items of a list in one text.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        match self.0.get(name) {
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            Some(Value::String(text)) => split_list(text).into_iter().map(str::to_owned).collect(),
            _ => Vec::new(),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Returns the scalar parameters.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
    }
}

/// Finds the call of a decoded path, with the values in the path.
pub(super) fn find(method: &str, path: &str) -> Option<(&'static Call, BTreeMap<String, String>)> {
    schema().calls.iter().filter(|call| call.method == method).find_map(|call| Some((call, call.matches(path)?)))
}

/// Checks a request against the schema of the API alone: that there is such a call, and that its parameters are ones it
/// has, are of their types and formats, and none is missing. `target` is the path with its query, `form` the body.
///
/// # Errors
///
/// What the server would say.
pub fn valid(method: &str, target: &str, form: &str) -> Result<(), String> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = request::unescape(path.strip_prefix("/api2/json").unwrap_or(path));
    let (call, in_path) = find(method, &path).ok_or_else(|| format!("there is no call {method} {path}"))?;
    let mut given = BTreeMap::new();
    request::form(form.as_bytes(), &mut given);
    request::form(query.as_bytes(), &mut given);
    let checked = call.check(in_path, given);
    checked.map(drop).map_err(|refusal| format!("{} {:?}", refusal.message, refusal.errors))
}

impl Call {
    fn matches(&self, path: &str) -> Option<BTreeMap<String, String>> {
        let mut values = BTreeMap::new();
        let mut rest = path.trim_start_matches('/');
        let mut wanted = self.path.trim_start_matches('/').split('/').peekable();
        while let Some(segment) = wanted.next() {
            // A volume identifier holds slashes of its own; it ends its paths.
            let (head, tail) =
                if segment == "{volume}" { (rest, "") } else { rest.split_once('/').unwrap_or((rest, "")) };
            match segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
                Some(_) if head.is_empty() => return None,
                Some(name) => drop(values.insert(name.to_owned(), head.to_owned())),
                None if segment == head => {}
                None => return None,
            }
            if wanted.peek().is_some() && tail.is_empty() {
                return None;
            }
            rest = tail;
        }
        rest.is_empty().then_some(values)
    }

    /// Checks the parameters of a request against this call.
    pub(super) fn check(
        &self,
        in_path: BTreeMap<String, String>,
        given: BTreeMap<String, Value>,
    ) -> Result<Args, Refusal> {
        let mut errors = BTreeMap::new();
        let mut args: BTreeMap<String, Value> = BTreeMap::new();
        for (name, value) in given {
            if in_path.get(&name).is_some_and(|fixed| value.as_str() != Some(fixed)) {
                let text = "duplicate parameter (already defined in URI) with conflicting values!";
                return Err(Refusal::parameter(&name, text));
            }
            args.insert(name, value);
        }
        args.extend(in_path.into_iter().map(|(name, value)| (name, Value::from(value))));
        for (name, value) in &mut args {
            let Some(param) = lookup(&self.params, name) else {
                errors.insert(name.clone(), UNKNOWN.to_owned());
                continue;
            };
            if let Err(text) = param.check_value(name, value) {
                errors.insert(name.clone(), text);
            }
        }
        demand(&self.params, |name| args.contains_key(name), &mut errors);
        if errors.is_empty() { Ok(Args(args)) } else { Err(Refusal::parameters(errors)) }
    }
}

/// Finds the parameter of this name, `net0` by `net[n]`.
fn lookup<'a>(params: &'a Properties, name: &str) -> Option<&'a Param> {
    if let Some(param) = params.get(name) {
        return Some(param);
    }
    let stem = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
    let index: u32 = name[stem.len()..].parse().ok()?;
    let canonical = index.to_string().len() == name.len() - stem.len();
    let limit = schema().indexed.get(stem).copied().unwrap_or(0);
    params.get(&format!("{stem}[n]")).filter(|_| canonical && index < limit)
}

/// Notes what is missing.
fn demand(params: &Properties, given: impl Fn(&str) -> bool, errors: &mut BTreeMap<String, String>) {
    for (name, param) in params {
        let required = param.optional != Some(1) && !name.contains('[') && param.alias.is_none();
        if required && !given(name) {
            errors.entry(name.clone()).or_insert_with(|| MISSING.to_owned());
        }
        if let Some(needed) = param.requires.as_ref().filter(|needed| given(name) && !given(needed)) {
            errors.entry(needed.clone()).or_insert_with(|| format!("missing property required by '{name}'"));
        }
    }
}

impl Param {
    /// Checks a value as it came and brings it into the shape the call expects.
    fn check_value(&self, name: &str, value: &mut Value) -> Result<(), String> {
        let listed = self.kind.as_deref() == Some("array");
        if listed && !value.is_array() {
            *value = Value::Array(vec![value.take()]);
        }
        if let Value::Array(items) = value {
            if !listed {
                let named = match &self.format {
                    Some(Format::Named(format)) => format.ends_with("-list"),
                    Some(Format::Properties(_)) | None => false,
                };
                if !named {
                    return Err("type check ('string') failed - got ARRAY".to_owned());
                }
                let joined: Vec<_> = items.iter().filter_map(Value::as_str).collect();
                *value = Value::from(joined.join(","));
            } else if let Some(wanted) = &self.items {
                return items.iter_mut().try_for_each(|item| wanted.check_value(name, item));
            }
        }
        match value.as_str() {
            Some(text) => self.check_text(name, text),
            None => Ok(()),
        }
    }

    // The order is upstream's: the first failure wins, but a value outside of the enumeration is always said.
    fn check_text(&self, name: &str, value: &str) -> Result<(), String> {
        let failed = self.first_failure(name, value);
        let outside = self.choices.as_ref().filter(|choices| !choices.iter().any(|choice| choice == value));
        let outside = outside.map(|choices| {
            format!("value '{value}' does not have a value in the enumeration '{}'", choices.join(", "))
        });
        match (failed, outside) {
            (None, None) => Ok(()),
            (Some(text), None) | (None, Some(text)) => Err(text),
            (Some(text), Some(more)) => Err(format!("{text}\\n{more}")),
        }
    }

    fn first_failure(&self, name: &str, value: &str) -> Option<String> {
        let kind = self.kind.as_deref().unwrap_or("string");
        let fine = match kind {
            "integer" => integer(value),
            "number" => value.parse::<f64>().is_ok_and(f64::is_finite) && !value.contains(['e', 'E', 'i', 'n']),
            "boolean" => ["0", "1"].contains(&value),
            _ => true,
        };
        if !fine {
            return Some(format!("type check ('{kind}') failed - got '{value}'"));
        }
        match &self.format {
            Some(Format::Named(format)) => match schema().formats.get(format) {
                Some(keys) => {
                    if let Err(text) = parse_by(keys, name, value) {
                        return Some(format!("invalid format - {text}\n"));
                    }
                }
                None => {
                    if let Err(text) = format::check(format, value) {
                        return Some(format!("invalid format - {text}\n"));
                    }
                }
            },
            Some(Format::Properties(keys)) => {
                if let Err(text) = parse_by(keys, name, value) {
                    return Some(format!("invalid format - {text}\n"));
                }
            }
            None => {}
        }
        if let Some(pattern) = &self.pattern
            && !pattern_of(pattern).is_some_and(|pattern| pattern.is_match(value))
        {
            return Some("value does not match the regex pattern".to_owned());
        }
        if let Some(longest) = self.longest.filter(|longest| value.chars().count() > *longest) {
            return Some(format!("value may only be {longest} characters long"));
        }
        if let Some(shortest) = self.shortest.filter(|shortest| value.chars().count() < *shortest) {
            return Some(format!("value must be at least {shortest} characters long"));
        }
        let number: Option<f64> = value.parse().ok();
        if let Some(minimum) = self.minimum.filter(|minimum| number.is_some_and(|number| number < *minimum)) {
            return Some(format!("value must have a minimum value of {minimum}"));
        }
        if let Some(maximum) = self.maximum.filter(|maximum| number.is_some_and(|number| number > *maximum)) {
            return Some(format!("value must have a maximum value of {maximum}"));
        }
        None
    }
}

fn integer(value: &str) -> bool {
    let digits = value.strip_prefix(['+', '-']).unwrap_or(value);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Compiles a pattern of the schema: a Perl expression that must match the whole value.
fn pattern_of(pattern: &str) -> Option<Regex> {
    Regex::new(&format!("^(?:{})$", pattern.replace("(?^:", "(?:").replace("{,", "{0,"))).ok()
}

/// Reads a property string the way the parameter `name` of creating a machine has it.
pub(super) fn properties(name: &str, value: &str) -> Result<BTreeMap<String, String>, String> {
    let create = schema().calls.iter().find(|call| call.method == "POST" && call.path == "/nodes/{node}/qemu");
    let param = create.and_then(|call| lookup(&call.params, name)).ok_or_else(|| format!("unknown property {name}"))?;
    match &param.format {
        Some(Format::Properties(keys)) => parse_by(keys, name, value),
        Some(Format::Named(format)) => match schema().formats.get(format) {
            Some(keys) => parse_by(keys, name, value),
            None => Ok(BTreeMap::from([(name.to_owned(), value.to_owned())])),
        },
        None => Ok(BTreeMap::from([(name.to_owned(), value.to_owned())])),
    }
}

/// Whether a key of a machine's configuration is a number or a truth value.
pub(super) fn is_number(name: &str) -> bool {
    let create = schema().calls.iter().find(|call| call.method == "POST" && call.path == "/nodes/{node}/qemu");
    let kind = create.and_then(|call| lookup(&call.params, name)).and_then(|param| param.kind.as_deref());
    kind.is_some_and(|kind| ["integer", "number", "boolean"].contains(&kind))
}

fn parse_by(keys: &Properties, path: &str, value: &str) -> Result<BTreeMap<String, String>, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut errors: BTreeMap<String, String> = BTreeMap::new();
    let default = keys.iter().find(|(_, param)| param.default_key.is_some()).map(|(name, _)| name.as_str());
    for part in value.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (key, text) = match part.split_once('=') {
            Some((key, text)) if is_key(key) => (key, text),
            _ => match default {
                Some(key) if !found.contains_key(key) => (key, part),
                Some(_) => {
                    return Err("duplicate key in comma-separated list property: ".to_owned() + default.unwrap_or(""));
                }
                None => return Err("value without key, but schema does not define a default key".to_owned()),
            },
        };
        let mut name = key;
        if let Some(Param { alias: Some(real), key_alias, .. }) = keys.get(key) {
            if let Some(also) = key_alias {
                found.insert(also.clone(), key.to_owned());
            }
            name = real;
        }
        if found.contains_key(name) {
            return Err(format!("duplicate key in comma-separated list property: {key}"));
        }
        let boolean = keys.get(name).is_some_and(|param| param.kind.as_deref() == Some("boolean"));
        let text = match text.to_ascii_lowercase().as_str() {
            "1" | "on" | "yes" | "true" if boolean => "1",
            "0" | "off" | "no" | "false" if boolean => "0",
            _ => text,
        };
        found.insert(name.to_owned(), text.to_owned());
    }
    for (key, text) in &found {
        match keys.get(key) {
            None => drop(errors.insert(key.clone(), UNKNOWN.to_owned())),
            Some(param) => {
                if let Err(text) = param.check_text(&format!("{path}.{key}"), text) {
                    errors.insert(key.clone(), text.trim_end().to_owned());
                }
            }
        }
    }
    demand(keys, |name| found.contains_key(name), &mut errors);
    if errors.is_empty() {
        return Ok(found);
    }
    let lines: Vec<_> = errors.iter().map(|(key, text)| format!("{path}.{key}: {text}")).collect();
    Err(format!("format error\n{}", lines.join("\n")))
}

fn is_key(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(method: &str, path: &str, given: Value) -> Value {
        let (call, in_path) = find(method, path).unwrap();
        let given = given.as_object().unwrap().clone().into_iter().collect();
        json!(call.check(in_path, given).map_err(|refusal| refusal.errors).unwrap_err())
    }

    #[test]
    fn parameters_are_refused_with_the_texts_of_proxmox() {
        let create = "/nodes/pve1/qemu";
        let check = |given: Value, errors: Value| assert_eq!(refused("POST", create, given), errors);
        check(json!({}), json!({"vmid": "property is missing and it is not optional"}));
        check(json!({"vmid": "100", "foo": "1"}), json!({"foo": UNKNOWN}));
        check(json!({"vmid": "100", "cores": "abc"}), json!({"cores": "type check ('integer') failed - got 'abc'"}));
        check(
            json!({"vmid": "100", "onboot": "true"}),
            json!({"onboot": "type check ('boolean') failed - got 'true'"}),
        );
        check(json!({"vmid": "100", "cores": "0"}), json!({"cores": "value must have a minimum value of 1"}));
        check(
            json!({"vmid": "100", "bios": "c"}),
            json!({"bios": "value 'c' does not have a value in the enumeration 'seabios, ovmf'"}),
        );
        check(
            json!({"vmid": "100", "net0": "virtio,bridge=vmbr0,tag=5000"}),
            json!({"net0": "invalid format - format error\nnet0.tag: value must have a maximum value of 4094\n"}),
        );
        check(
            json!({"vmid": "100", "net0": "virtio,foo=1"}),
            json!({"net0": format!("invalid format - format error\nnet0.foo: {UNKNOWN}\n")}),
        );
        check(
            json!({"vmid": "100", "name": "a_b"}),
            json!({"name": "invalid format - value does not look like a valid DNS name\n"}),
        );
        check(json!({"vmid": "100", "force": "1"}), json!({"archive": "missing property required by 'force'"}));
        check(
            json!({"vmid": "100", "node": "pve2"}),
            json!({"node": "duplicate parameter (already defined in URI) with conflicting values!"}),
        );
    }

    #[test]
    fn a_property_string_has_default_keys_and_aliases() {
        let parsed = properties("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=on").unwrap();
        assert_eq!(
            json!(parsed),
            json!({"model": "virtio", "macaddr": "BC:24:11:00:00:01", "bridge": "vmbr0", "firewall": "1"})
        );
        let parsed = properties("scsi0", "local-lvm:0,import-from=local:import/a.qcow2,discard=on").unwrap();
        assert_eq!(parsed["file"], "local-lvm:0");
        assert_eq!(properties("boot", "order=scsi0;net0").unwrap()["order"], "scsi0;net0");
        let error = properties("ipconfig0", "ip=10.0.0.1/24,ip=10.0.0.2/24").unwrap_err();
        assert_eq!(error, "duplicate key in comma-separated list property: ip");
    }

    #[test]
    fn a_path_leads_to_its_call() {
        let path = |method, path| find(method, path).map(|(call, values)| (call.path.as_str(), values));
        assert_eq!(path("GET", "/nodes/a/lxc"), None);
        assert_eq!(path("GET", "/nodes"), Some(("/nodes", BTreeMap::new())));
        let (template, values) = path("DELETE", "/nodes/a/storage/local/content/local:iso/x.iso").unwrap();
        assert_eq!(template, "/nodes/{node}/storage/{storage}/content/{volume}");
        assert_eq!(values["volume"], "local:iso/x.iso");
    }

    #[test]
    fn every_pattern_of_the_schema_compiles() {
        fn walk(keys: &Properties) {
            for (name, param) in keys {
                if let Some(pattern) = &param.pattern {
                    assert!(pattern_of(pattern).is_some(), "{name}: {pattern}");
                }
                if let Some(Format::Properties(keys)) = &param.format {
                    walk(keys);
                }
            }
        }
        schema().formats.values().for_each(walk);
        schema().calls.iter().for_each(|call| walk(&call.params));
    }
}
