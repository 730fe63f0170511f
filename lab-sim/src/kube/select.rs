//! Label and field selectors of lists and watches.

use serde_json::Value;

use super::kinds::Kind;
use super::refusal::Refusal;

/// Which objects a list or watch is about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(Vec<String>, bool, String)>,
}

#[derive(Clone, Debug)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
}

impl Selector {
    /// Reads the two query parameters; either may be empty.
    pub(crate) fn read(kind: &Kind, labels: &str, fields: &str) -> Result<Selector, Refusal> {
        Ok(Selector { labels: label_requirements(labels)?, fields: field_requirements(kind, fields)? })
    }

    /// Reads a `LabelSelector` document; one without requirements selects everything.
    pub(crate) fn document(document: &Value) -> Selector {
        let texts = |value: &Value| -> Vec<String> {
            value.as_array().into_iter().flatten().filter_map(Value::as_str).map(String::from).collect()
        };
        let mut labels = Vec::new();
        for (key, value) in document["matchLabels"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_string();
            labels.push(Requirement { key: key.clone(), test: Test::In(vec![value]) });
        }
        for expression in document["matchExpressions"].as_array().into_iter().flatten() {
            let key = expression["key"].as_str().unwrap_or_default().to_string();
            let values = texts(&expression["values"]);
            let test = match expression["operator"].as_str() {
                Some("In") => Test::In(values),
                Some("NotIn") => Test::NotIn(values),
                Some("Exists") => Test::Exists,
                _ => Test::Absent,
            };
            labels.push(Requirement { key, test });
        }
        Selector { labels, fields: Vec::new() }
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels.iter().all(|requirement| {
            let value = labels.get(&requirement.key).and_then(Value::as_str);
            match &requirement.test {
                Test::In(values) => value.is_some_and(|value| values.iter().any(|v| v == value)),
                Test::NotIn(values) => value.is_none_or(|value| values.iter().all(|v| v != value)),
                Test::Exists => value.is_some(),
                Test::Absent => value.is_none(),
            }
        }) && self.fields.iter().all(|(path, equal, wanted)| {
            let value = path.iter().fold(object, |value, name| &value[name.as_str()]);
            (value.as_str().unwrap_or_default() == wanted) == *equal
        })
    }
}

fn label_requirements(text: &str) -> Result<Vec<Requirement>, Refusal> {
    let mut requirements = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let mut depth = 0;
        let end = rest.find(|c| {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                ',' if depth == 0 => return true,
                _ => {}
            }
            false
        });
        let (one, tail) = end.map_or((rest, ""), |end| (&rest[..end], &rest[end + 1..]));
        requirements.push(
            requirement(one.trim())
                .ok_or_else(|| Refusal::bad_request(format!("unable to parse requirement: found '{one}'")))?,
        );
        rest = tail.trim();
    }
    Ok(requirements)
}

fn requirement(text: &str) -> Option<Requirement> {
    let made = |key: &str, test| (!key.trim().is_empty()).then(|| Requirement { key: key.trim().to_string(), test });
    if let Some(key) = text.strip_prefix('!') {
        return made(key, Test::Absent);
    }
    if let Some((head, list)) = text.split_once('(') {
        let values = list.trim().strip_suffix(')')?.split(',').map(|value| value.trim().to_string()).collect();
        let (key, word) = head.trim().rsplit_once(char::is_whitespace)?;
        return match word {
            "in" => made(key, Test::In(values)),
            "notin" => made(key, Test::NotIn(values)),
            _ => None,
        };
    }
    if let Some((key, value)) = text.split_once("!=") {
        return made(key, Test::NotIn(vec![value.trim().to_string()]));
    }
    if let Some((key, value)) = text.split_once('=') {
        let value = value.strip_prefix('=').unwrap_or(value);
        return made(key, Test::In(vec![value.trim().to_string()]));
    }
    (!text.is_empty() && !text.contains(char::is_whitespace)).then(|| made(text, Test::Exists))?
}

fn field_requirements(kind: &Kind, text: &str) -> Result<Vec<(Vec<String>, bool, String)>, Refusal> {
    let more: &[&str] = match kind.kind.as_str() {
        "Pod" => &["spec.nodeName", "status.phase", "spec.serviceAccountName", "spec.restartPolicy"],
        "Event" => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "reason",
            "type",
        ],
        "Secret" => &["type"],
        "Namespace" => &["status.phase"],
        _ => &[],
    };
    let mut found = Vec::new();
    for one in text.split(',').filter(|one| !one.is_empty()) {
        let (key, equal, value) = if let Some((key, value)) = one.split_once("!=") {
            (key, false, value)
        } else if let Some((key, value)) = one.split_once('=') {
            (key, true, value.strip_prefix('=').unwrap_or(value))
        } else {
            return Err(Refusal::bad_request(format!("invalid selector: '{text}'; can't understand '{one}'")));
        };
        if key != "metadata.name" && key != "metadata.namespace" && !more.contains(&key) {
            return Err(Refusal::bad_request(format!("field label not supported: {key}")));
        }
        found.push((key.split('.').map(String::from).collect(), equal, value.to_string()));
    }
    Ok(found)
}
