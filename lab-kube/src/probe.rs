//! What the API server would make of an object, asked with a dry run: its validation, its defaults and its webhooks are
//! run, and nothing is stored.
//!
//! Of an object that is not there yet only what would be written differently is told: defaults are many, and nobody has
//! to know them before. Of one that is there, whatever else would change.

use crate::body::{OPERATION, apply_body};
use crate::client::Client;
use crate::errors::Problem;
use crate::json::text;
use crate::live::nothing;
use crate::object::Object;
use crate::quantity;
use crate::request::Apply;
use crate::resource::invalid;
use lab_core::{Data, Op, Result};
use serde_json::Value;

/// How many differences are told of one object.
const MOST: usize = 8;
/// What the server keeps for itself.
const OWN: [&str; 7] = [
    "/status",
    "/metadata/managedFields",
    "/metadata/resourceVersion",
    "/metadata/generation",
    "/metadata/uid",
    "/metadata/creationTimestamp",
    "/metadata/selfLink",
];

pub(crate) async fn probe<K: Data>(object: &Object<K>, client: &Client, op: &Op<Object<K>>) -> Result<Vec<String>> {
    let key = object.key().map_err(invalid)?;
    // Its kind may be made by a step before it.
    let Some(kind) = client.kind(&key).await? else { return Ok(Vec::new()) };
    let before = match op.exists {
        true => client.look(&kind, &key, false).await?,
        false => None,
    };
    let (body, how) = match &before {
        Some(there) => {
            let update = Apply::update(text(there, "/metadata/uid"));
            (apply_body(object.desired().map_err(invalid)?, &op.mark), Apply { force: true, ..update })
        }
        // A look has said that it is gone.
        None if op.exists => return Ok(Vec::new()),
        None => (object.whole(&op.mark)?, Apply::create()),
    };
    let applied = match client.apply(&kind, &key, &body, &Apply { dry_run: true, ..how }).await {
        Ok(applied) => applied,
        // So may its namespace, or its kind.
        Err(error) if matches!(error.problem, Problem::NamespaceMissing(_) | Problem::KindMissing(_)) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error.into()),
    };
    let mut said: Vec<String> = applied.warnings.iter().map(|warning| format!("the server warns: {warning}")).collect();
    if key.kind == "Secret" {
        return Ok(said);
    }
    let mut differences = Vec::new();
    rewritten(&body, &applied.object, "", &mut differences);
    if let Some(before) = &before {
        let prior = op.inputs.as_ref().and_then(|prior| prior.shown().ok()).unwrap_or_default();
        let beside = Beside { before, after: &applied.object, declared: [Some(&body), Some(&prior)] };
        beside.differences("", &mut differences);
    }
    let more = differences.len().saturating_sub(MOST);
    said.extend(differences.into_iter().take(MOST));
    if more > 0 {
        said.push(format!("and {more} more"));
    }
    Ok(said)
}

/// Finds what would not be stored as it is declared.
fn rewritten(declared: &Value, stored: &Value, at: &str, found: &mut Vec<String>) {
    match (declared, stored) {
        (declared, stored) if declared == stored || (nothing(declared) && stored.is_null()) => {}
        (Value::Object(fields), Value::Object(there)) => {
            for (field, value) in fields {
                rewritten(value, there.get(field).unwrap_or(&Value::Null), &below(at, field), found);
            }
        }
        (Value::Array(elements), Value::Array(there)) => {
            for (index, element) in elements.iter().enumerate() {
                rewritten(element, same(element, index, there), &format!("{at}/{index}"), found);
            }
        }
        (Value::String(one), Value::String(other))
            if quantity::nanos(one).is_some() && quantity::nanos(one) == quantity::nanos(other) => {}
        _ => found.push(format!("{at} would be stored as {stored} instead of {declared}")),
    }
}

/// Returns the element of a list that is meant by one: of its name where they have names, else at its place.
fn same<'a>(element: &Value, index: usize, there: &'a [Value]) -> &'a Value {
    let named = element.get("name").and_then(|name| there.iter().find(|other| other.get("name") == Some(name)));
    named.or_else(|| there.get(index)).unwrap_or(&Value::Null)
}

/// What changes beside what is declared.
struct Beside<'a> {
    before: &'a Value,
    after: &'a Value,
    /// What is declared here, and was: that is what the plan shows anyway.
    declared: [Option<&'a Value>; 2],
}

impl Beside<'_> {
    fn differences(&self, at: &str, found: &mut Vec<String>) {
        let (before, after) = (self.before, self.after);
        if before == after || OWN.contains(&at) || at.ends_with(&below("", OPERATION)) {
            return;
        }
        let step = |field: &str, index: Option<usize>| {
            let child = |value: Option<&'_ Value>| -> Option<Value> {
                match (value?, index) {
                    (Value::Array(list), Some(index)) => list.get(index).cloned(),
                    (value, _) => value.get(field).cloned(),
                }
            };
            (child(Some(before)), child(Some(after)), self.declared.map(child))
        };
        let mut descend = |field: &str, index: Option<usize>| {
            let (before, after, declared) = step(field, index);
            let [now, prior] = &declared;
            let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
            let beside = Beside { before: &before, after: &after, declared: [now.as_ref(), prior.as_ref()] };
            beside.differences(&below(at, field), found);
        };
        match (before, after) {
            (Value::Object(one), Value::Object(other)) => {
                let gained = other.keys().filter(|field| !one.contains_key(*field));
                one.keys().chain(gained).for_each(|field| descend(field, None));
            }
            (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
                (0..one.len()).for_each(|index| descend(&index.to_string(), Some(index)));
            }
            _ if self.declared.iter().any(Option::is_some) => {}
            (Value::Null, after) => found.push(format!("{at} would become {after} with it")),
            (before, Value::Null) => found.push(format!("{at} would go with it, which is {before}")),
            (before, after) => found.push(format!("{at} would become {after} with it, which is {before}")),
        }
    }
}

fn below(at: &str, field: &str) -> String {
    format!("{at}/{}", field.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_webhook_rewrites_is_told_and_what_means_the_same_is_not() {
        let declared = json!({"spec": {"replicas": 2, "hostNetwork": false, "containers": [
            {"name": "web", "image": "nginx:1", "resources": {"limits": {"cpu": "1000m"}}}]}});
        let stored = json!({"spec": {"replicas": 2, "serviceAccountName": "default", "containers": [
            {"name": "proxy", "image": "envoy:1"},
            {"name": "web", "image": "mirror/nginx:1", "resources": {"limits": {"cpu": "1"}}}]}});
        let mut found = Vec::new();
        rewritten(&declared, &stored, "", &mut found);
        assert_eq!(found, [r#"/spec/containers/0/image would be stored as "mirror/nginx:1" instead of "nginx:1""#]);
    }

    #[test]
    fn what_changes_beside_the_declared_is_told() {
        let before = json!({"metadata": {"generation": 1, "annotations": {"theirs": "1", "gone": "x"}},
            "spec": {"replicas": 1, "paused": true}, "status": {"ready": 1}});
        let after = json!({"metadata": {"generation": 2, "annotations": {"theirs": "2", "lab.dev/x": "new"}},
            "spec": {"replicas": 2}, "status": {}});
        let declared = json!({"spec": {"replicas": 2}});
        let prior = json!({"spec": {"replicas": 1, "paused": true}});
        let mut found = Vec::new();
        Beside { before: &before, after: &after, declared: [Some(&declared), Some(&prior)] }
            .differences("", &mut found);
        assert_eq!(
            found,
            [
                r#"/metadata/annotations/gone would go with it, which is "x""#,
                r#"/metadata/annotations/theirs would become "2" with it, which is "1""#,
                r#"/metadata/annotations/lab.dev~1x would become "new" with it"#,
            ]
        );
    }
}
