//! Manifests as text: documents, lists of objects, and where each object stands.

use crate::json::text;
use crate::key::{Identity, Key};
use serde_json::Value;
use std::fmt;

/// One object of a manifest, and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    pub(super) body: Value,
    pub(super) at: At,
}

/// Where an object stands in its manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At {
    /// Which document it is, from 1.
    document: usize,
    /// The line that the document begins in, from 1.
    line: usize,
    /// Which template made it, as helm writes above each document.
    template: Option<String>,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.template {
            Some(template) => write!(f, "document {} ({template})", self.document),
            None => write!(f, "document {} (line {})", self.document, self.line),
        }
    }
}

impl Part {
    /// Returns what it is called; nothing for what is no object, which is told when the manifest is read.
    pub(super) fn key(&self) -> Option<Key> {
        Key::of(&self.body).ok()
    }

    pub(super) fn identity(&self) -> Option<Identity> {
        self.key().map(|key| key.identity())
    }
}

/// Returns the objects of a manifest, lists of objects taken apart, and what is wrong with it.
///
/// Numbers and words mean what they mean to `kubectl`, which reads YAML 1.1: `0644` is octal, `yes` is true.
pub(super) fn read(manifest: &str) -> (Vec<Part>, Vec<String>) {
    let (mut parts, mut problems) = (Vec::new(), Vec::new());
    for Document { at, text } in documents(manifest) {
        let options = serde_saphyr::options! {
            legacy_octal_numbers: true,
            // Its size was bounded when it was fetched; the definitions of an operator alone have a million nodes.
            budget: None,
        };
        match serde_saphyr::from_str_with_options::<Value>(&text, options) {
            Ok(Value::Null) => {}
            Ok(body) => flatten(body, &at, &mut parts, &mut problems),
            Err(error) => {
                // Without the lines around it: they may be those of a Secret.
                let said = error.render_with_options(serde_saphyr::render_options! {
                    snippets: serde_saphyr::SnippetMode::Off,
                    line_offset: at.line as u64 - 1,
                });
                problems.push(format!("{at}: {said}"));
            }
        }
    }
    (parts, problems)
}

struct Document {
    at: At,
    text: String,
}

/// Splits a stream into its documents. A line that begins with `---` is their mark wherever it stands (YAML 1.2, 9.1.2):
/// within a text of several lines it would be indented.
fn documents(manifest: &str) -> Vec<Document> {
    let begin = |document, line, text| Document { at: At { document, line, template: None }, text };
    let mut documents = vec![begin(1, 1, String::new())];
    let mut number = 1;
    // Whether the last document was begun by a mark: one that was not counts only when it says something.
    let mut marked = false;
    for (n, line) in manifest.trim_start_matches('\u{feff}').lines().enumerate() {
        let document = documents.last_mut().expect("there is one from the beginning");
        let marker = |mark: &str| {
            line.strip_prefix(mark).filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r'])).map(str::trim)
        };
        if let Some(rest) = marker("---") {
            if marked || !blank(&document.text) {
                number += 1;
            }
            marked = true;
            // The mark's own line stays, so that lines are counted from here.
            documents.push(begin(number, n + 1, format!("{rest}\n")));
        } else if marker("...").is_some() {
            number += 1;
            marked = false;
            documents.push(begin(number, n + 2, String::new()));
        } else {
            if let Some(template) = line.strip_prefix("# Source: ") {
                document.at.template.get_or_insert_with(|| template.trim().to_owned());
            }
            document.text.push_str(line);
            document.text.push('\n');
        }
    }
    documents.retain(|document| !blank(&document.text));
    documents
}

/// Whether nothing but comments and directives stands here.
fn blank(text: &str) -> bool {
    text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#') || line.starts_with('%'))
}

fn flatten(body: Value, at: &At, parts: &mut Vec<Part>, problems: &mut Vec<String>) {
    let Value::Object(mut fields) = body else {
        problems.push(format!("{at} is no object, but {}", what(&body)));
        return;
    };
    let kind = fields.get("kind").and_then(Value::as_str).unwrap_or_default();
    let (of, api_version) = (kind.strip_suffix("List").map(str::to_owned), fields.get("apiVersion").cloned());
    if let (Some(of), Some(Value::Array(_))) = (&of, fields.get("items")) {
        let Some(Value::Array(items)) = fields.remove("items") else { return };
        for mut item in items {
            // In a list of one kind, its items need not say which.
            if let (Value::Object(item), false, Some(api_version)) = (&mut item, of.is_empty(), &api_version) {
                item.entry("apiVersion").or_insert_with(|| api_version.clone());
                item.entry("kind").or_insert_with(|| Value::String(of.clone()));
            }
            flatten(item, at, parts, problems);
        }
        return;
    }
    let part = Part { body: Value::Object(fields), at: at.clone() };
    match Key::of(&part.body) {
        Ok(_) => parts.push(part),
        Err(_) if !text(&part.body, "/metadata/generateName").is_empty() => problems.push(format!(
            "{at}: a {} without a name, which the server would choose anew each time it is applied: give it one, or \
             leave it out",
            text(&part.body, "/kind")
        )),
        Err(error) => problems.push(format!("{at}: {error}")),
    }
}

fn what(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the objects and the problems, a line each.
    fn check(manifest: &str) -> Vec<String> {
        let (parts, problems) = read(manifest);
        let part = |part: &Part| format!("{}: {}", part.at, part.key().unwrap());
        parts.iter().map(part).chain(problems).collect()
    }

    #[test]
    fn documents_that_hold_nothing_are_skipped_and_the_others_know_their_lines() {
        let manifest = "# a licence\n\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\n---\n# nothing\n\
                        --- # with words\napiVersion: v1\nkind: Namespace\nmetadata: {name: b}\n...\n";
        assert_eq!(check(manifest), ["document 1 (line 3): v1/Namespace a", "document 4 (line 10): v1/Namespace b"]);
    }

    #[test]
    fn a_stream_may_begin_without_a_mark_or_with_a_directive() {
        let object = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";
        assert_eq!(check(object), ["document 1 (line 1): v1/Namespace a"]);
        assert_eq!(check(&format!("\u{feff}%YAML 1.2\n---\n{object}")), ["document 1 (line 2): v1/Namespace a"]);
        let two = format!("{object}---\n{}", object.replace('a', "A").replace("nAme", "name"));
        assert_eq!(check(&two).len(), 2);
    }

    #[test]
    fn lines_end_as_on_windows_too() {
        let manifest = "---\r\napiVersion: v1\r\nkind: Namespace\r\nmetadata:\r\n  name: a\r\n---\r\n";
        assert_eq!(check(manifest), ["document 1 (line 1): v1/Namespace a"]);
    }

    #[test]
    fn a_mark_within_a_text_is_text() {
        let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: b}\ndata:\n  all: |\n    one\n    \
                        ---\n    two\n";
        let (parts, problems) = read(manifest);
        assert_eq!(problems, [""; 0]);
        assert_eq!(parts[0].body["data"]["all"], "one\n---\ntwo\n");
    }

    #[test]
    fn lists_are_taken_apart() {
        let manifest = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Namespace\n  metadata: {name: a}\n\
                        ---\napiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBindingList\nitems:\n\
                        - metadata: {name: b, namespace: a}\n- metadata: {name: c, namespace: a}\n---\n\
                        apiVersion: v1\nkind: List\nitems: []\n";
        assert_eq!(
            check(manifest),
            [
                "document 1 (line 1): v1/Namespace a",
                "document 2 (line 7): rbac.authorization.k8s.io/v1/RoleBinding a/b",
                "document 2 (line 7): rbac.authorization.k8s.io/v1/RoleBinding a/c",
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_said_of_every_document_with_its_line() {
        let manifest = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\nkind: [\n---\n- a\n---\nkind: Pod\n---\n\
                        apiVersion: batch/v1\nkind: Job\nmetadata: {generateName: x-}\n";
        let said = check(manifest);
        assert_eq!(said[0], "document 1 (line 1): v1/Namespace a");
        assert!(said[1].starts_with("document 2 (line 4): ") && said[1].contains("line 5"), "{}", said[1]);
        assert_eq!(said[2], "document 3 (line 6) is no object, but a list");
        assert_eq!(said[3], "document 4 (line 8): the object has no /apiVersion");
        assert_eq!(
            said[4],
            "document 5 (line 10): a Job without a name, which the server would choose anew each time it is applied: \
             give it one, or leave it out"
        );
    }

    #[test]
    fn what_does_not_parse_is_not_quoted() {
        let manifest = "apiVersion: v1\nkind: Secret\nstringData:\n  password: \"hunter22\n  other: x\n";
        let (parts, problems) = read(manifest);
        assert_eq!((parts.len(), problems.len()), (0, 1));
        assert!(!problems[0].contains("hunter22"), "{problems:?}");
    }

    #[test]
    fn a_document_of_helm_is_called_by_its_template() {
        let manifest =
            "---\n# Source: web/templates/namespace.yaml\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";
        assert_eq!(check(manifest), ["document 1 (web/templates/namespace.yaml): v1/Namespace a"]);
    }

    #[test]
    fn words_and_numbers_mean_what_they_mean_to_kubectl() {
        let manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: b}\nspec: {mode: 0644, on: yes, size: 10,\
                        quoted: \"yes\", y: 1}\n";
        let (parts, _) = read(manifest);
        let expected = serde_json::json!({"mode": 420, "on": true, "size": 10, "quoted": "yes", "y": 1});
        assert_eq!(parts[0].body["spec"], expected);
    }
}
