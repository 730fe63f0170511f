//! The two plain patches: merge patch (RFC 7396) and JSON patch (RFC 6902).

use serde_json::{Map, Value};

/// Merges `patch` into `target`.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    for (name, value) in patch {
        if value.is_null() {
            target.as_object_mut().expect("made an object above").remove(name);
        } else {
            merge(&mut target[name], value);
        }
    }
}

/// Carries out the operations of a JSON patch; an error says what did not fit.
pub(crate) fn json(target: &mut Value, operations: &Value) -> Result<(), String> {
    let operations = operations.as_array().ok_or("a JSON patch is a list of operations")?;
    for operation in operations {
        let path = operation["path"].as_str().ok_or("an operation without path")?;
        let from = || operation["from"].as_str().ok_or("an operation without from");
        let value = || operation.get("value").cloned().ok_or("an operation without value");
        match operation["op"].as_str().unwrap_or_default() {
            "add" => add(target, path, value()?)?,
            "remove" => drop(remove(target, path)?),
            "replace" => {
                *target.pointer_mut(path).ok_or_else(|| missing("replace", path))? = value()?;
            }
            "move" => {
                let moved = remove(target, from()?)?;
                add(target, path, moved)?;
            }
            "copy" => {
                let copied = target.pointer(from()?).cloned().ok_or_else(|| missing("copy", path))?;
                add(target, path, copied)?;
            }
            "test" => {
                if target.pointer(path).unwrap_or(&Value::Null) != &value()? {
                    return Err(format!("testing value {path} failed: test failed"));
                }
            }
            other => return Err(format!("unexpected kind: {other}")),
        }
    }
    Ok(())
}

fn missing(verb: &str, path: &str) -> String {
    format!("{verb} operation does not apply: doc is missing key: {path}: missing value")
}

fn split(path: &str) -> Result<(&str, String), String> {
    let (parent, last) = path.rsplit_once('/').ok_or_else(|| format!("bad path {path:?}"))?;
    Ok((parent, last.replace("~1", "/").replace("~0", "~")))
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), String> {
    if path.is_empty() {
        *target = value;
        return Ok(());
    }
    let (parent, last) = split(path)?;
    match target.pointer_mut(parent) {
        Some(Value::Object(map)) => drop(map.insert(last, value)),
        Some(Value::Array(list)) => {
            let at = if last == "-" { list.len() } else { last.parse().map_err(|_| format!("bad index {last:?}"))? };
            if at > list.len() {
                return Err(format!("add operation does not apply: index {at} out of bounds"));
            }
            list.insert(at, value);
        }
        _ => return Err(missing("add", path)),
    }
    Ok(())
}

fn remove(target: &mut Value, path: &str) -> Result<Value, String> {
    let (parent, last) = split(path)?;
    let removed = match target.pointer_mut(parent) {
        Some(Value::Object(map)) => map.remove(&last),
        Some(Value::Array(list)) => last.parse().ok().filter(|at| *at < list.len()).map(|at: usize| list.remove(at)),
        _ => None,
    };
    removed.ok_or_else(|| missing("remove", path))
}
