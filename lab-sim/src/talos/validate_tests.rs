use super::*;
use serde::Deserialize;

const CONTROL_PLANE: &str = include_str!("../../tests/data/controlplane.yaml");
const WORKER: &str = include_str!("../../tests/data/worker.yaml");

#[derive(Deserialize)]
struct Case {
    name: String,
    mode: String,
    #[serde(default)]
    base: String,
    patch: Option<String>,
    raw: Option<String>,
    load_error: Option<String>,
    #[serde(default)]
    warnings: Vec<String>,
    error: Option<String>,
}

/// Where Talos says it in the words of a Go library or of CEL, only the beginning is compared; the modes are those of
/// machines that this is not.
const BEGINNINGS: &[(&str, &str)] = &[
    ("not yaml", "decode error: yaml: "),
    ("wrong type", "error decoding  to *v1alpha1.Config: yaml: unmarshal errors:\n  "),
];
const NOT_MODELLED: &[&str] = &["user volume bad cel"];

#[test]
fn configurations_are_judged_in_the_words_of_talos() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../../tests/data/validation.json")).unwrap();
    let mut judged = 0;
    let mut wrong = Vec::new();
    for case in cases.iter().filter(|case| case.mode == "metal" && !NOT_MODELLED.contains(&case.name.as_str())) {
        judged += 1;
        let text = match case.base.as_str() {
            "" => case.raw.clone().unwrap_or_default(),
            base => patched(base, case.patch.as_deref()),
        };
        let expected_load = case.load_error.as_deref().map(|error| error.strip_prefix("patch: ").unwrap_or(error));
        let config = match Config::decode(text.as_bytes(), 11) {
            Ok(config) => config,
            Err(error) => {
                let beginning = BEGINNINGS.iter().find(|(name, _)| *name == case.name).map(|(_, beginning)| *beginning);
                let same = match beginning {
                    Some(beginning) => error.starts_with(beginning),
                    None => Some(error.as_str()) == expected_load,
                };
                if !same {
                    wrong.push(format!("{}: decoding said {error:?}, expected {expected_load:?}", case.name));
                }
                continue;
            }
        };
        if let Some(error) = expected_load {
            wrong.push(format!("{}: decoded, expected {error:?}", case.name));
            continue;
        }
        let found = validate(&config, false);
        let expected = case.error.clone().map_or(Ok(case.warnings.clone()), Err);
        if found != expected {
            wrong.push(format!("{}: found {found:?}\n    expected {expected:?}", case.name));
        }
    }
    assert!(judged > 50, "only {judged} cases");
    assert!(wrong.is_empty(), "{} of {judged}:\n{}", wrong.len(), wrong.join("\n"));
}

/// Applies a vector's patch: JSON patch operations, further documents, or a mapping to merge.
fn patched(base: &str, patch: Option<&str>) -> String {
    let base = if base == "worker" { WORKER } else { CONTROL_PLANE };
    let Some(patch) = patch else { return base.to_owned() };
    if patch.contains("kind:") {
        return format!("{base}---\n{patch}");
    }
    let mut value: Value = serde_saphyr::from_str(base).unwrap();
    if patch.starts_with('[') {
        let operations: Vec<Value> = serde_json::from_str(patch).unwrap();
        for operation in operations {
            let path = operation["path"].as_str().unwrap();
            let (parent, key) = path.rsplit_once('/').unwrap();
            let parent = value.pointer_mut(parent).unwrap().as_object_mut().unwrap();
            match operation["op"].as_str().unwrap() {
                "remove" => drop(parent.remove(key)),
                _ => drop(parent.insert(key.to_owned(), operation["value"].clone())),
            }
        }
    } else {
        merge(&mut value, serde_saphyr::from_str(patch).unwrap());
    }
    super::super::config::yaml(&value)
}

fn merge(into: &mut Value, patch: Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, patch) => *into = patch,
    }
}
