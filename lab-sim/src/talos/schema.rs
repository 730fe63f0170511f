//! Which keys a machine configuration may have.
//!
//! Talos decodes strictly: one unknown key refuses the whole configuration. `data/schema-1.11.txt` lists, for every
//! object of the v1.11 schema, its keys with their kinds, including those that are accepted though deprecated.

use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// The kind of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// A scalar.
    Scalar,
    /// Any mapping, or something this schema does not look into.
    Free,
    /// An object of this name.
    Object(String),
    /// A list of these.
    List(Box<Kind>),
    /// A mapping from free keys to these.
    Map(Box<Kind>),
}

type Objects = BTreeMap<String, BTreeMap<String, Kind>>;

fn objects() -> &'static Objects {
    static OBJECTS: OnceLock<Objects> = OnceLock::new();
    OBJECTS.get_or_init(|| include_str!("data/schema-1.11.txt").lines().map(object).collect())
}

/// Reads a line like `KubePrism: enabled: boolean, port: integer`.
fn object(line: &str) -> (String, BTreeMap<String, Kind>) {
    let (name, keys) = line.split_once(':').unwrap_or((line, ""));
    let mut fields = BTreeMap::new();
    // Enumerations hold commas only inside braces.
    let mut depth = 0;
    for field in keys.split(|letter| {
        match letter {
            '{' | '[' | '<' => depth += 1,
            '}' | ']' | '>' => depth -= 1,
            _ => {}
        }
        letter == ',' && depth == 0
    }) {
        if let Some((key, found)) = field.split_once(':') {
            fields.insert(key.trim().to_owned(), kind(found.trim()));
        }
    }
    (name.to_owned(), fields)
}

fn kind(text: &str) -> Kind {
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return Kind::List(Box::new(kind(inner)));
    }
    if let Some(inner) = text.strip_prefix("map<").and_then(|rest| rest.strip_suffix('>')) {
        return Kind::Map(Box::new(kind(inner)));
    }
    match text {
        "object" => Kind::Free,
        name if name.starts_with(char::is_uppercase) => Kind::Object(name.to_owned()),
        _ => Kind::Scalar,
    }
}

/// A configuration does not have the shape of its schema.
pub(super) enum Misfit {
    /// These keys are unknown, in their places.
    Unknown(Value),
    /// This value, at this path, should have been a list.
    NotAList(Vec<String>, String),
}

/// Returns the schema's name of a document kind of Talos v1.11.
pub(super) fn of_kind(kind: &str) -> Option<String> {
    let name = match kind {
        "EventSinkConfig" => "EventSinkV1Alpha1".to_owned(),
        "ExtensionServiceConfig" => "ServiceConfigV1Alpha1".to_owned(),
        "KmsgLogConfig" => "KmsgLogV1Alpha1".to_owned(),
        "KubeSpanEndpoints" => "KubespanEndpointsConfigV1Alpha1".to_owned(),
        "NetworkDefaultActionConfig" => "DefaultActionConfigV1Alpha1".to_owned(),
        "NetworkRuleConfig" => "RuleConfigV1Alpha1".to_owned(),
        "SideroLinkConfig" => "ConfigV1Alpha1".to_owned(),
        "WatchdogTimerConfig" => "WatchdogTimerV1Alpha1".to_owned(),
        other => format!("{other}V1Alpha1"),
    };
    objects().contains_key(&name).then_some(name)
}

/// Whether Talos of this minor version (of v1) knows a kind of document that v1.11 does not. What is inside such
/// documents is not looked at.
pub(super) fn is_later_kind(kind: &str, minor: u32) -> bool {
    const SINCE_12: &[&str] = &[
        "BondConfig",
        "BridgeConfig",
        "DHCPv4Config",
        "DHCPv6Config",
        "DummyLinkConfig",
        "HCloudVIPConfig",
        "HostnameConfig",
        "Layer2VIPConfig",
        "LinkAliasConfig",
        "LinkConfig",
        "OOMConfig",
        "ResolverConfig",
        "StaticHostConfig",
        "TimeSyncConfig",
        "VLANConfig",
        "WireguardConfig",
    ];
    const SINCE_13: &[&str] = &[
        "BlackholeRouteConfig",
        "EnvironmentConfig",
        "ExternalVolumeConfig",
        "ImageVerificationConfig",
        "KubeSpanConfig",
        "RoutingRuleConfig",
        "TCPProbeConfig",
        "VRFConfig",
    ];
    (minor >= 12 && SINCE_12.contains(&kind)) || (minor >= 13 && SINCE_13.contains(&kind))
}

/// Checks a document against the object `name`, for Talos of this minor version (of v1).
pub(super) fn check(name: &str, document: &Value, minor: u32) -> Result<(), Misfit> {
    let unknown = unknown(&Kind::Object(name.to_owned()), document, minor, &mut Vec::new())?;
    unknown.map_or(Ok(()), |unknown| Err(Misfit::Unknown(unknown)))
}

fn unknown(kind: &Kind, value: &Value, minor: u32, path: &mut Vec<String>) -> Result<Option<Value>, Misfit> {
    match (kind, value) {
        (Kind::Object(name), Value::Object(fields)) => {
            let Some(known) = objects().get(name) else { return Ok(None) };
            let mut strange = Map::new();
            for (key, value) in fields {
                path.push(key.clone());
                let found = match known.get(key) {
                    Some(kind) => unknown(kind, value, minor, path)?,
                    None if is_later_key(name, key, minor) => None,
                    None => Some(value.clone()),
                };
                path.pop();
                if let Some(found) = found {
                    strange.insert(key.clone(), found);
                }
            }
            Ok((!strange.is_empty()).then_some(Value::Object(strange)))
        }
        (Kind::Map(inner), Value::Object(fields)) => {
            let mut strange = Map::new();
            for (key, value) in fields {
                if let Some(found) = unknown(inner, value, minor, path)? {
                    strange.insert(key.clone(), found);
                }
            }
            Ok((!strange.is_empty()).then_some(Value::Object(strange)))
        }
        (Kind::List(inner), Value::Array(items)) => {
            let mut strange = Vec::new();
            for item in items {
                strange.extend(unknown(inner, item, minor, path)?);
            }
            Ok((!strange.is_empty()).then_some(Value::Array(strange)))
        }
        (Kind::List(_), Value::String(text)) => Err(Misfit::NotAList(path.clone(), text.clone())),
        _ => Ok(None),
    }
}

fn is_later_key(object: &str, key: &str, minor: u32) -> bool {
    minor >= 12 && object == "InstallConfig" && key == "grubUseUKICmdline"
}
