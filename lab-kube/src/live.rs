//! What of a live object was declared, in the shape of the declaration: what drift is measured on.
//!
//! The server knows better than any comparison of values whether somebody changed a field: who changes a field that we
//! applied takes its ownership from us (`metadata.managedFields`). So a field that is still ours is as we left it,
//! however the server writes it (`1000m` as `1`, an empty map not at all); only of others is the value looked at.

use crate::body::{BodyError, plain};
use crate::json::{group, list, text};
use crate::object::{Object, landing};
use crate::request::MANAGER;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// Returns a live object in the shape of the inputs of `object`: only what was declared, as it is there.
///
/// It holds secrets in clear.
pub(crate) fn live<K: Serialize>(object: &Object<K>, live: &Value) -> Result<Value, BodyError> {
    let written = object.written()?;
    let desired = object.desired()?;
    let seen = seen(&desired, live);
    let mut body = restrict(&written, &seen);
    for pointer in object.set.keys().chain(object.secret.keys()) {
        omit(&mut body, &written, pointer);
    }
    let mut inputs = json!({"body": body});
    let taken = taken(&desired, &seen, live);
    if !taken.is_empty() {
        inputs[TAKEN] = taken.into();
    }
    for pointer in object.set.keys() {
        inputs["set"][pointer] = seen.pointer(pointer).cloned().unwrap_or_default();
    }
    for (pointer, value) in &object.secret {
        let (at, sent) = landing(&written, pointer, value.get().expose());
        inputs["secret"][pointer] = match seen.pointer(&at) {
            Some(there) if *there == sent => json!(value.get().expose()),
            // Under another pointer than it was declared: as base64.
            Some(Value::String(text)) if at != *pointer => decoded(text),
            other => other.cloned().unwrap_or_default(),
        };
    }
    Ok(inputs)
}

/// Where a live object in the shape of its inputs says who has set what differs: managers by pointer.
pub(crate) const TAKEN: &str = "taken";

/// Returns who has set the fields in which `seen` differs from `desired`, by their pointers.
fn taken(desired: &Value, seen: &Value, live: &Value) -> Map<String, Value> {
    let entries = list(live, "/metadata/managedFields").iter().filter(|entry| text(entry, "/manager") != MANAGER);
    let others: Vec<_> = entries.map(|entry| (text(entry, "/manager"), entry.get("fieldsV1"))).collect();
    let mut found = Map::new();
    walk(desired, seen, &others, "", &mut found);
    found
}

fn walk(desired: &Value, seen: &Value, others: &[(&str, Option<&Value>)], at: &str, found: &mut Map<String, Value>) {
    match (desired, seen) {
        (desired, seen) if desired == seen => {}
        (Value::Object(fields), Value::Object(there)) => {
            for (field, value) in fields {
                let step = format!("f:{field}");
                let inside: Vec<_> = others.iter().map(|(name, owned)| (*name, below(*owned, &step))).collect();
                let at = format!("{at}/{}", field.replace('~', "~0").replace('/', "~1"));
                walk(value, there.get(field).unwrap_or(&Value::Null), &inside, &at, found);
            }
        }
        (Value::Array(elements), Value::Array(there)) if elements.len() == there.len() => {
            for (index, (value, there)) in elements.iter().zip(there).enumerate() {
                let inside: Vec<_> = others.iter().map(|(name, owned)| (*name, part(*owned, value))).collect();
                walk(value, there, &inside, &format!("{at}/{index}"), found);
            }
        }
        _ => {
            let managers: Vec<&str> =
                others.iter().filter(|(_, owned)| owned.is_some()).map(|(name, _)| *name).collect();
            if !managers.is_empty() {
                found.insert(at.to_owned(), json!(managers.join(", ")));
            }
        }
    }
}

/// Returns whether every secret of `object` is there as it was declared.
pub(crate) fn holds_secrets<K: Serialize>(object: &Object<K>, live: &Value) -> Result<bool, BodyError> {
    let written = object.written()?;
    // By value: whether a secret was sent at all is asked, not whether somebody changed it.
    let there = project(&object.desired()?, Some(live), None);
    Ok(object.secret.iter().all(|(pointer, value)| {
        let (at, sent) = landing(&written, pointer, value.get().expose());
        there.pointer(&at) == Some(&sent)
    }))
}

/// What cannot be text was not written by us; it only has to differ.
fn decoded(text: &str) -> Value {
    let plain = STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    json!(plain.unwrap_or_else(|| text.to_owned()))
}

fn seen(desired: &Value, live: &Value) -> Value {
    let mut live = live.clone();
    // Every version of a group shows the same object.
    if group(&live) == group(desired) {
        live["apiVersion"] = desired["apiVersion"].clone();
    }
    let ours = |entry: &&Value| text(entry, "/manager") == MANAGER && text(entry, "/operation") == "Apply";
    let fields =
        list(&live, "/metadata/managedFields").iter().find(ours).and_then(|entry| entry.get("fieldsV1")).cloned();
    project(desired, Some(&live), fields.as_ref())
}

/// Returns what `live` has where `desired` has something. `owned` is our part of the managed fields at this place: none
/// when it is not ours, empty when all below it is.
fn project(desired: &Value, live: Option<&Value>, owned: Option<&Value>) -> Value {
    match (desired, live) {
        (Value::Object(fields), Some(Value::Object(there))) => fields
            .iter()
            .map(|(field, value)| {
                let owned = below(owned, &format!("f:{field}"));
                (field.clone(), project(value, there.get(field), owned))
            })
            .collect::<Map<_, _>>()
            .into(),
        (Value::Array(_), Some(Value::Array(_))) if owned.is_some_and(whole) => desired.clone(),
        (Value::Array(elements), Some(Value::Array(there))) => {
            let Some(keys) = keys(elements, there, owned) else {
                let element = |(value, there): (&Value, &Value)| project(value, Some(there), None);
                return match elements.len() == there.len() {
                    true => elements.iter().zip(there).map(element).collect(),
                    false => there.clone().into(),
                };
            };
            let element = |value: &Value| {
                let same = |other: &&Value| keys.iter().all(|key| agree(value.get(key), other.get(key)));
                project(value, there.iter().find(same), entry(owned, value))
            };
            elements.iter().map(element).collect()
        }
        (desired, _) if owned.is_some() => desired.clone(),
        (desired, Some(live)) if desired == live => desired.clone(),
        // What is nothing is not written by the server.
        (desired, None | Some(Value::Null)) if nothing(desired) => desired.clone(),
        (_, live) => live.cloned().unwrap_or_default(),
    }
}

fn whole(owned: &Value) -> bool {
    owned.as_object().is_some_and(Map::is_empty)
}

fn below<'a>(owned: Option<&'a Value>, step: &str) -> Option<&'a Value> {
    owned.and_then(|fields| if whole(fields) { Some(fields) } else { fields.get(step) })
}

/// The keys that tell the elements of a list apart, if they are told apart by any.
fn keys(elements: &[Value], there: &[Value], owned: Option<&Value>) -> Option<Vec<String>> {
    if let Some(fields) = owned.and_then(Value::as_object)
        && let Some(key) = fields.keys().find_map(|step| step.strip_prefix("k:"))
        && let Ok(Value::Object(key)) = serde_json::from_str(key)
    {
        return Some(key.keys().cloned().collect());
    }
    // Nothing in it is ours any more, so the managed fields do not say. In the order in which one is more telling than
    // the next: a volume is mounted at several places under one name.
    const KEYS: [&[&str]; 5] =
        [&["mountPath"], &["containerPort", "protocol"], &["port", "protocol"], &["name"], &["type"]];
    let told_apart = |keys: &&&[&str]| {
        let all = |list: &[Value]| {
            let named = list.iter().all(|element| element.get(keys[0]).is_some());
            let twice = list.iter().enumerate().any(|(at, one)| {
                list[..at].iter().any(|other| keys.iter().all(|key| agree(one.get(key), other.get(key))))
            });
            named && !twice
        };
        all(elements) && all(there)
    };
    let found = KEYS.iter().find(told_apart)?;
    Some(found.iter().map(|key| (*key).to_owned()).collect())
}

/// A key that is left out stands for its default, which the other side then shows.
pub(crate) fn agree(one: Option<&Value>, other: Option<&Value>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one == other,
        (None, Some(default)) | (Some(default), None) => default == "TCP",
        (None, None) => true,
    }
}

/// Our part of the managed fields of one element of a list.
fn entry<'a>(owned: Option<&'a Value>, element: &Value) -> Option<&'a Value> {
    owned?.as_object()?.iter().find_map(|(step, fields)| {
        let key: Map<String, Value> = serde_json::from_str(step.strip_prefix("k:")?).ok()?;
        key.iter().all(|(field, value)| agree(element.get(field), Some(value))).then_some(fields)
    })
}

/// A manager's part of one element of a list, or of the list as a whole.
fn part<'a>(owned: Option<&'a Value>, element: &Value) -> Option<&'a Value> {
    owned.filter(|fields| whole(fields)).or_else(|| entry(owned, element))
}

pub(crate) fn nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(bit) => !bit,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(elements) => elements.is_empty(),
        Value::Object(fields) => fields.values().all(nothing),
    }
}

/// Returns `seen` without what `written` does not have; what is not sent is not in `seen` and was not read.
fn restrict(written: &Value, seen: &Value) -> Value {
    match (written, seen) {
        (Value::Object(fields), Value::Object(there)) => {
            let field = |(field, value): (&String, &Value)| Some((field.clone(), restrict(value, there.get(field)?)));
            fields.iter().filter_map(field).collect::<Map<_, _>>().into()
        }
        (Value::Array(elements), Value::Array(there)) if elements.len() == there.len() => {
            elements.iter().zip(there).map(|(value, seen)| restrict(value, seen)).collect()
        }
        (_, seen) => seen.clone(),
    }
}

/// Takes out of the body what is set by path over it: it is compared there.
fn omit(body: &mut Value, written: &Value, pointer: &str) {
    let Some(value) = written.pointer(pointer) else { return };
    let (parent, last) = pointer.rsplit_once('/').unwrap_or_default();
    match body.pointer_mut(parent) {
        Some(Value::Object(fields)) => {
            fields.remove(&last.replace("~1", "/").replace("~0", "~"));
        }
        Some(Value::Array(elements)) => {
            if let Some(element) = last.parse::<usize>().ok().and_then(|index| elements.get_mut(index)) {
                *element = value.clone();
            }
        }
        _ => {}
    }
}

/// Returns a declared body with what was seen of it laid over: the object before it is put right.
pub(crate) fn overlaid(written: &Value, seen: &Value) -> Value {
    match (written, seen) {
        (Value::Object(fields), Value::Object(there)) => {
            let field = |(field, value): (&String, &Value)| {
                (field.clone(), there.get(field).map_or(value.clone(), |seen| overlaid(value, seen)))
            };
            fields.iter().map(field).collect::<Map<_, _>>().into()
        }
        (Value::Array(elements), Value::Array(there)) if elements.len() == there.len() => {
            elements.iter().zip(there).map(|(value, seen)| overlaid(value, seen)).collect()
        }
        (_, seen) => seen.clone(),
    }
}

/// Returns whether two bodies are the same to the server.
pub(crate) fn same(one: &Value, other: &Value) -> bool {
    plain(one.clone()) == plain(other.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_core::Secret;

    fn deployment(ports: Value) -> Object<Value> {
        Object::new(json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "plex", "namespace": "media"},
            "spec": {"replicas": 1, "template": {"spec": {"hostNetwork": false, "containers": [
                {"name": "plex", "image": "plex:1", "resources": {"limits": {"cpu": "1000m"}}, "ports": ports},
            ]}}},
        }))
    }

    /// The object as a server shows it: with defaults, canonical quantities, an injected container and our ownership.
    fn served() -> Value {
        let fields = json!({"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:hostNetwork": {}, "f:containers": {
            "k:{\"name\":\"plex\"}": {".": {}, "f:name": {}, "f:image": {}, "f:resources": {"f:limits": {"f:cpu": {}}},
                "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}});
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "plex", "namespace": "media", "uid": "u", "managedFields": [
                {"manager": "kubectl", "operation": "Update", "fieldsV1": {}},
                {"manager": "lab", "operation": "Apply", "fieldsV1": fields}]},
            "spec": {"replicas": 1, "paused": false, "template": {"spec": {"dnsPolicy": "ClusterFirst", "containers": [
                {"name": "proxy", "image": "envoy"},
                {"name": "plex", "image": "plex:1", "imagePullPolicy": "Always", "resources": {"limits": {"cpu": "1"}},
                    "ports": [{"containerPort": 80, "protocol": "TCP"}]},
            ]}}},
        })
    }

    fn body(object: &Object<Value>, there: &Value) -> Value {
        live(object, there).unwrap()["body"].clone()
    }

    #[test]
    fn what_nobody_touched_is_as_it_was_declared() {
        let object = deployment(json!([{"containerPort": 80}]));
        assert_eq!(body(&object, &served()), object.body);
        // Without the managed fields the values are compared, and only the quantity looks like another.
        let mut there = served();
        there["metadata"]["managedFields"] = json!([]);
        let mut expected = object.body.clone();
        expected["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"] = json!("1");
        assert_eq!(body(&object, &there), expected);
    }

    #[test]
    fn what_somebody_else_changed_is_shown_as_it_is() {
        let object = deployment(json!([{"containerPort": 80}]));
        let mut there = served();
        there["spec"]["replicas"] = json!(3);
        there["metadata"]["managedFields"][1]["fieldsV1"]["f:spec"].as_object_mut().unwrap().remove("f:replicas");
        there["spec"]["template"]["spec"]["containers"][1]["image"] = json!("plex:2");
        let ours = "/metadata/managedFields/1/fieldsV1/f:spec/f:template/f:spec/f:containers/k:{\"name\":\"plex\"}";
        there.pointer_mut(ours).unwrap().as_object_mut().unwrap().remove("f:image");
        let seen = body(&object, &there);
        assert_eq!(seen["spec"]["replicas"], 3);
        assert_eq!(seen["spec"]["template"]["spec"]["containers"][0]["image"], "plex:2");
        assert_eq!(seen["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn what_somebody_else_removed_is_null() {
        let object = deployment(json!([{"containerPort": 80}, {"containerPort": 32400}]));
        let seen = body(&object, &served());
        let ports = &seen["spec"]["template"]["spec"]["containers"][0]["ports"];
        assert_eq!(*ports, json!([{"containerPort": 80}, null]));
    }

    #[test]
    fn a_value_set_by_path_is_compared_there_and_not_in_the_body() {
        let object = deployment(json!([{"containerPort": 80}])).set("/spec/replicas", 1_u8);
        let mut there = served();
        there["spec"]["replicas"] = json!(3);
        there["metadata"]["managedFields"] = json!([]);
        let seen = live(&object, &there).unwrap();
        assert_eq!(seen["body"]["spec"].get("replicas"), None);
        assert_eq!(seen["set"], json!({"/spec/replicas": 3}));
    }

    #[test]
    fn a_secret_is_compared_as_it_was_declared() {
        let secret = |value: &str| Secret::new(value.to_owned());
        let object = crate::object::secret("media", "claim")
            .secret("/stringData/token", secret("claim-ü"))
            .secret("/data/raw", secret("eA=="));
        let data = json!({"token": STANDARD.encode("claim-ü"), "raw": "eA=="});
        let mut there = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": "claim", "namespace": "media"}, "data": data});
        let seen = live(&object, &there).unwrap();
        assert_eq!(seen["secret"], json!({"/stringData/token": "claim-ü", "/data/raw": "eA=="}));
        assert_eq!(seen["body"], object.body);
        assert!(holds_secrets(&object, &there).unwrap());
        there["data"] = json!({"token": STANDARD.encode("other")});
        let seen = live(&object, &there).unwrap();
        assert_eq!(seen["secret"], json!({"/stringData/token": "other", "/data/raw": null}));
        assert!(!holds_secrets(&object, &there).unwrap());
    }
}
