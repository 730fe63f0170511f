//! Taking over what others have merely set: an imported object's fields become ours.
//!
//! Whoever writes an object without server-side apply (`kubectl apply` on the client's side, `kubectl create`, Helm 3)
//! owns what it wrote as an `Update`, and such a field stays when an apply leaves it out. So before the first apply the
//! declared fields are moved from those entries of the managed fields to an `Apply` entry of ours, in one patch that
//! changes nothing else, as client-go's `csaupgrade` does it. What is not declared stays whose it was.

use crate::json::{list, text};
use crate::live::agree;
use crate::request::MANAGER;
use serde_json::{Map, Value, json};

/// The annotation in which `kubectl apply` remembers what it sent. Of an object that is ours it would only be wrong.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Returns the JSON patch (RFC 6902) that makes the fields of `declared` ours in a live object; nothing when there is
/// nothing to take over, because we have applied it before or nobody has set them.
pub(crate) fn takeover(live: &Value, declared: &Value) -> Option<Value> {
    let entries = list(live, "/metadata/managedFields");
    let is = |entry: &Value, operation: &str| text(entry, "/operation") == operation;
    if entries.iter().any(|entry| is(entry, "Apply") && text(entry, "/manager") == MANAGER) {
        return None;
    }
    let (mut ours, mut time, mut left) = (Map::new(), "", Vec::new());
    for entry in entries {
        let set = is(entry, "Update") && text(entry, "/subresource").is_empty();
        let same = entry.get("apiVersion") == live.get("apiVersion");
        let Some(fields) = entry.get("fieldsV1").and_then(Value::as_object).filter(|_| set && same) else {
            left.push(entry.clone());
            continue;
        };
        let (taken, mut rest) = split(fields, declared);
        if !taken.is_empty() {
            time = time.max(text(entry, "/time"));
        }
        unite(&mut ours, taken);
        forget(&mut rest, &["f:metadata", "f:annotations", &format!("f:{LAST_APPLIED}")]);
        if !rest.is_empty() {
            let mut entry = entry.clone();
            entry["fieldsV1"] = rest.into();
            left.push(entry);
        }
    }
    if ours.is_empty() {
        return None;
    }
    let mut entry = json!({"manager": MANAGER, "operation": "Apply", "apiVersion": live["apiVersion"],
        "fieldsType": "FieldsV1", "fieldsV1": ours});
    if !time.is_empty() {
        entry["time"] = json!(time);
    }
    left.insert(0, entry);
    let mut patch = vec![
        // Refused when the object has changed meanwhile.
        json!({"op": "replace", "path": "/metadata/resourceVersion", "value": live["metadata"]["resourceVersion"]}),
        json!({"op": "replace", "path": "/metadata/managedFields", "value": left}),
    ];
    if live.pointer("/metadata/annotations").and_then(|all| all.get(LAST_APPLIED)).is_some() {
        let path = format!("/metadata/annotations/{}", LAST_APPLIED.replace('/', "~1"));
        patch.push(json!({"op": "remove", "path": path}));
    }
    Some(patch.into())
}

/// Splits a set of owned fields (`FieldsV1`) into those that are declared and the rest.
fn split(owned: &Map<String, Value>, declared: &Value) -> (Map<String, Value>, Map<String, Value>) {
    let (mut ours, mut rest) = (Map::new(), Map::new());
    for (step, inner) in owned.iter().filter(|(step, _)| *step != ".") {
        match (step_into(declared, step), inner.as_object()) {
            (None, _) => {
                rest.insert(step.clone(), inner.clone());
            }
            (Some(value), Some(fields)) if !fields.is_empty() => {
                let (taken, left) = split(fields, value);
                for (side, part) in [(&mut ours, taken), (&mut rest, left)] {
                    if !part.is_empty() {
                        side.insert(step.clone(), part.into());
                    }
                }
            }
            (Some(_), _) => {
                ours.insert(step.clone(), inner.clone());
            }
        }
    }
    // The map or the element itself belongs to whoever owns something in it.
    if let Some(itself) = owned.get(".") {
        if !rest.is_empty() {
            rest.insert(".".into(), itself.clone());
        }
        if !ours.is_empty() || rest.is_empty() {
            ours.insert(".".into(), itself.clone());
        }
    }
    (ours, rest)
}

/// Returns what a step of a field set leads to in a declared value.
fn step_into<'a>(declared: &'a Value, step: &str) -> Option<&'a Value> {
    let (kind, rest) = step.split_once(':')?;
    match kind {
        "f" => declared.get(rest),
        "k" => {
            let key: Map<String, Value> = serde_json::from_str(rest).ok()?;
            let same = |element: &&Value| key.iter().all(|(field, value)| agree(element.get(field), Some(value)));
            declared.as_array()?.iter().find(same)
        }
        "v" => {
            let value: Value = serde_json::from_str(rest).ok()?;
            declared.as_array()?.iter().find(|element| **element == value)
        }
        _ => None,
    }
}

fn unite(all: &mut Map<String, Value>, more: Map<String, Value>) {
    for (step, inner) in more {
        match (all.get_mut(&step), inner) {
            (Some(Value::Object(there)), Value::Object(inner)) => unite(there, inner),
            (_, inner) => {
                all.insert(step, inner);
            }
        }
    }
}

/// Takes a field out of a set, and what is empty without it.
fn forget(fields: &mut Map<String, Value>, path: &[&str]) {
    let Some((step, below)) = path.split_first() else { return };
    if below.is_empty() {
        fields.remove(*step);
    } else if let Some(inner) = fields.get_mut(*step).and_then(Value::as_object_mut) {
        forget(inner, below);
        if inner.keys().all(|step| step == ".") {
            fields.remove(*step);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(entries: Value) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "resourceVersion": "7",
            "annotations": {LAST_APPLIED: "{}"}, "managedFields": entries}})
    }

    fn entry(manager: &str, operation: &str, fields: Value) -> Value {
        json!({"manager": manager, "operation": operation, "apiVersion": "apps/v1", "time": "2026-01-01T00:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": fields})
    }

    #[test]
    fn what_is_declared_becomes_ours_and_the_rest_stays_whose_it_was() {
        let container = json!({".": {}, "f:name": {}, "f:image": {}, "f:env": {".": {}, "k:{\"name\":\"A\"}": {".": {}}},
            "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}});
        let kubectl = json!({
            "f:metadata": {"f:annotations": {".": {}, format!("f:{LAST_APPLIED}"): {}},
                "f:finalizers": {"v:\"a\"": {}, "v:\"b\"": {}}},
            "f:spec": {"f:replicas": {}, "f:paused": {}, "f:containers": {"k:{\"name\":\"web\"}": container}},
        });
        let hpa = entry("kube-controller-manager", "Update", json!({"f:status": {"f:replicas": {}}}));
        let there = live(json!([entry("kubectl-client-side-apply", "Update", kubectl), hpa]));
        let declared = json!({"metadata": {"finalizers": ["a"]}, "spec": {"replicas": 2, "containers": [
            {"name": "web", "image": "nginx", "ports": [{"containerPort": 80}]}]}});
        let patch = takeover(&there, &declared).unwrap();
        let theirs = json!({".": {}, "f:env": {".": {}, "k:{\"name\":\"A\"}": {".": {}}}});
        let ours = json!({".": {}, "f:name": {}, "f:image": {},
            "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}});
        assert_eq!(
            patch,
            json!([
                {"op": "replace", "path": "/metadata/resourceVersion", "value": "7"},
                {"op": "replace", "path": "/metadata/managedFields", "value": [
                    entry("lab", "Apply", json!({"f:metadata": {"f:finalizers": {"v:\"a\"": {}}},
                        "f:spec": {"f:replicas": {}, "f:containers": {"k:{\"name\":\"web\"}": ours}}})),
                    entry("kubectl-client-side-apply", "Update", json!({"f:metadata": {"f:finalizers": {"v:\"b\"": {}}},
                        "f:spec": {"f:paused": {}, "f:containers": {"k:{\"name\":\"web\"}": theirs}}})),
                    hpa,
                ]},
                {"op": "remove", "path": "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration"},
            ])
        );
    }

    #[test]
    fn what_we_have_applied_before_and_what_others_apply_is_left_alone() {
        let spec = || json!({"f:spec": {"f:replicas": {}}});
        let declared = json!({"spec": {"replicas": 2}});
        let applied = live(json!([entry("lab", "Apply", spec()), entry("kubectl-edit", "Update", spec())]));
        assert_eq!(takeover(&applied, &declared), None);
        assert_eq!(takeover(&live(json!([entry("colleague", "Apply", spec())])), &declared), None);
        assert_eq!(takeover(&live(json!([entry("kubectl-edit", "Update", spec())])), &json!({"spec": {}})), None);
    }
}
