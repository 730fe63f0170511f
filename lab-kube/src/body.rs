//! What is sent: the body of an object, its overrides merged in, our mark on it.

use crate::json::text;
use crate::key::KeyError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt;

/// The annotation that carries the mark: the operation that made the object. It tells ours from everybody else's.
///
/// `home.arpa` is the domain reserved for home networks (RFC 8375), so nobody else can own a key under it.
pub const OPERATION: &str = "lab.home.arpa/operation";

/// The annotation that lists the pointers of values that were only given when the object was made.
pub const INITIAL: &str = "lab.home.arpa/initial";

/// The label that says who manages an object, for people and their selectors. It proves nothing: anyone may set it.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Why a body cannot be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The object did not serialise.
    Serialise(String),
    /// The object serialised to something that is not a map.
    NotAnObject,
    /// The object is not named as it must be.
    Key(KeyError),
    /// A pointer does not begin with `/`, or has a `~` that is no escape (RFC 6901).
    Pointer {
        /// The pointer.
        pointer: String,
    },
    /// A pointer leads to what an object is identified by, which must be known before anything runs.
    Identity {
        /// The pointer.
        pointer: String,
    },
    /// A pointer leads through a value that has no fields.
    Scalar {
        /// The pointer.
        pointer: String,
        /// The part of it that is a scalar.
        at: String,
    },
    /// A pointer leads to an element that a list does not have.
    Index {
        /// The pointer.
        pointer: String,
        /// The part of it that is the list.
        at: String,
        /// What was given for an index.
        index: String,
        /// How many elements the list has.
        length: usize,
    },
    /// A Secret holds a value in clear, which would be stored and shown.
    Clear {
        /// Where it stands.
        pointer: String,
    },
    /// An output or a secret stands in the body itself.
    Marker {
        /// Where it stands.
        pointer: String,
    },
    /// A value that is only given at first lies in a list, where it could not be owned apart from the rest.
    Listed {
        /// The pointer.
        pointer: String,
    },
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BodyError::Serialise(why) => write!(f, "the object does not serialise: {why}"),
            BodyError::NotAnObject => f.write_str("the object does not serialise to a map"),
            BodyError::Key(error) => error.fmt(f),
            BodyError::Pointer { pointer } => {
                write!(f, "{pointer:?} is not a JSON pointer, which looks like /spec/a/0")
            }
            BodyError::Identity { pointer } => {
                write!(f, "{pointer} identifies the object: write it in the object itself, where it is known at once")
            }
            BodyError::Scalar { pointer, at } => write!(f, "{pointer} leads through {at}, which has no fields"),
            BodyError::Index { pointer, at, index, length } => {
                let elements = crate::json::count(*length as i64, "element");
                write!(f, "{pointer}: the list {at} has {elements} and no element {index:?}")
            }
            BodyError::Clear { pointer } => write!(
                f,
                "{pointer} would be stored and shown in clear: give what a Secret holds with \
                 `.secret(\"/stringData/<key>\", value)`"
            ),
            BodyError::Marker { pointer } => write!(
                f,
                "{pointer} is an output or a secret in the object itself: set it by path, with `.set` or `.secret`"
            ),
            BodyError::Listed { pointer } => write!(
                f,
                "{pointer} lies in a list: a value that is only given at first must lie in maps, such as a Secret's data"
            ),
        }
    }
}

impl std::error::Error for BodyError {}

impl From<KeyError> for BodyError {
    fn from(error: KeyError) -> BodyError {
        BodyError::Key(error)
    }
}

/// Returns a body with the values of `set` at their JSON pointers (RFC 6901).
///
/// Maps that are missing on the way are created; lists are not, and do not grow: where in a list a value belongs is
/// for the body to say. Pointers are taken in order, so that a whole map comes before what lies in it.
///
/// # Errors
///
/// A pointer that leads through a scalar, to an element that is not there, or to the object's identity. Each error
/// names the pointer.
pub fn merge(mut body: Value, set: &BTreeMap<String, Value>) -> Result<Value, BodyError> {
    for (pointer, value) in set {
        *slot(&mut body, pointer)? = value.clone();
    }
    Ok(body)
}

/// Checks a pointer without a value for it: what can be said before its value is known.
///
/// # Errors
///
/// Those of [`merge`].
pub fn check_pointer(body: &Value, pointer: &str) -> Result<(), BodyError> {
    slot(&mut body.clone(), pointer).map(|_| ())
}

const IDENTITY: [&str; 5] = ["/apiVersion", "/kind", "/metadata", "/metadata/name", "/metadata/namespace"];

fn slot<'a>(body: &'a mut Value, pointer: &str) -> Result<&'a mut Value, BodyError> {
    let tokens = tokens(pointer).ok_or_else(|| BodyError::Pointer { pointer: pointer.to_owned() })?;
    if IDENTITY.contains(&pointer) {
        return Err(BodyError::Identity { pointer: pointer.to_owned() });
    }
    let mut at = String::new();
    let mut here = body;
    for token in tokens {
        // A null is a field that was left out by whoever serialised it.
        if here.is_null() {
            *here = Value::Object(Map::new());
        }
        here = match here {
            Value::Object(fields) => fields.entry(token.clone()).or_insert(Value::Null),
            Value::Array(elements) => {
                let length = elements.len();
                let missing =
                    || BodyError::Index { pointer: pointer.to_owned(), at: at.clone(), index: token.clone(), length };
                let canonical = token == "0" || !token.starts_with(['0', '+']);
                let index = token.parse::<usize>().ok().filter(|_| canonical);
                index.and_then(|index| elements.get_mut(index)).ok_or_else(missing)?
            }
            _ => return Err(BodyError::Scalar { pointer: pointer.to_owned(), at }),
        };
        at.push('/');
        at.push_str(&token.replace('~', "~0").replace('/', "~1"));
    }
    Ok(here)
}

pub(crate) fn tokens(pointer: &str) -> Option<Vec<String>> {
    let unescape = |token: &str| {
        let plain = token.replace("~1", "/");
        let stray = token.replace("~0", "").replace("~1", "").contains('~');
        (!stray).then(|| plain.replace("~0", "~"))
    };
    pointer.strip_prefix('/')?.split('/').map(unescape).collect()
}

/// Returns the body that is applied: the declared object, without what only the server writes, with our mark.
///
/// - `status` goes, and all metadata that the server sets: in an apply they are an error or a claim.
/// - `metadata.creationTimestamp: null`, which serialisers like to write, goes wherever there is metadata; so do labels
///   and annotations of the object itself that are empty. Every other empty map or list was given and stays:
///   `emptyDir: {}` says something.
/// - a Secret's `stringData` becomes `data`: the former cannot be read back, so it would never compare equal.
/// - quantities and durations stay as they were written.
/// - the mark becomes an annotation, on the object and not on its pod template, where a new mark would restart every
///   pod; the label [`MANAGED_BY`] says `lab` unless the object says otherwise.
pub fn apply_body(body: Value, mark: &str) -> Value {
    let mut body = plain(body);
    put(&mut body, "/metadata/annotations/lab.home.arpa~1operation", json!(mark));
    if body.pointer("/metadata/labels/app.kubernetes.io~1managed-by").is_none() {
        put(&mut body, "/metadata/labels/app.kubernetes.io~1managed-by", json!("lab"));
    }
    body
}

// Where a body has a scalar for a map there is no room; the server refuses such a body, and says so better.
pub(crate) fn put(body: &mut Value, pointer: &str, value: Value) {
    if let Ok(slot) = slot(body, pointer) {
        *slot = value;
    }
}

/// Returns the declared body in the form that is compared and sent, without our mark.
pub fn plain(mut body: Value) -> Value {
    const SERVERS: [&str; 7] =
        ["managedFields", "creationTimestamp", "deletionTimestamp", "resourceVersion", "uid", "generation", "selfLink"];
    if let Some(fields) = body.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|field, _| !SERVERS.contains(&field.as_str()));
        for empty in ["labels", "annotations"] {
            let nothing = |value: &Value| value.is_null() || value.as_object().is_some_and(Map::is_empty);
            if metadata.get(empty).is_some_and(nothing) {
                metadata.remove(empty);
            }
        }
    }
    strip_timestamps(&mut body);
    if text(&body, "/kind") == "Secret" && text(&body, "/apiVersion") == "v1" {
        encode(&mut body);
    }
    body
}

/// Returns the mark that an object carries, if any.
pub fn mark_of(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("annotations")?.get(OPERATION)?.as_str()
}

fn strip_timestamps(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut)
                && metadata.get("creationTimestamp").is_some_and(Value::is_null)
            {
                metadata.remove("creationTimestamp");
            }
            fields.values_mut().for_each(strip_timestamps);
        }
        Value::Array(elements) => elements.iter_mut().for_each(strip_timestamps),
        _ => {}
    }
}

// As the server does it: a key that stands in both is taken from stringData.
fn encode(secret: &mut Value) {
    let Some(Value::Object(plain)) = secret.as_object_mut().and_then(|fields| fields.remove("stringData")) else {
        return;
    };
    for (key, value) in plain {
        // Anything but a string stays wrong, so that the server says so.
        let encoded = value.as_str().map_or(value.clone(), |text| json!(STANDARD.encode(text)));
        put(secret, &format!("/data/{}", key.replace('~', "~0").replace('/', "~1")), encoded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, Value)]) -> BTreeMap<String, Value> {
        pairs.iter().map(|(pointer, value)| ((*pointer).to_owned(), value.clone())).collect()
    }

    #[test]
    fn a_value_lands_at_its_pointer_and_missing_maps_are_made() {
        let body = json!({"spec": {"rules": [{"host": "old"}], "nothing": null}});
        let values = set(&[
            ("/spec/rules/0/host", json!("plex.lan")),
            ("/spec/template/metadata/annotations/a~1b~0c", json!(1)),
            ("/spec/nothing/x", json!(true)),
        ]);
        assert_eq!(
            merge(body, &values).unwrap(),
            json!({"spec": {"rules": [{"host": "plex.lan"}], "nothing": {"x": true},
                            "template": {"metadata": {"annotations": {"a/b~c": 1}}}}})
        );
    }

    #[test]
    fn a_map_is_set_before_what_lies_in_it() {
        let values = set(&[("/data/a", json!(2)), ("/data", json!({"a": 1, "b": 1})), ("/data-x", json!(0))]);
        assert_eq!(merge(json!({}), &values).unwrap(), json!({"data": {"a": 2, "b": 1}, "data-x": 0}));
    }

    #[test]
    fn a_pointer_that_leads_nowhere_is_refused_by_name() {
        let body = json!({"spec": {"replicas": 3, "rules": [1]}});
        let refused = |pointer: &str| merge(body.clone(), &set(&[(pointer, json!(0))])).unwrap_err().to_string();
        assert_eq!(refused("/spec/replicas/x"), "/spec/replicas/x leads through /spec/replicas, which has no fields");
        assert_eq!(refused("/spec/rules/1"), "/spec/rules/1: the list /spec/rules has 1 element and no element \"1\"");
        assert_eq!(refused("/spec/rules/-"), "/spec/rules/-: the list /spec/rules has 1 element and no element \"-\"");
        assert!(refused("/spec/rules/00").contains("no element \"00\""));
        assert!(refused("/spec/rules/+0").contains("no element \"+0\""));
        assert!(refused("spec").contains("is not a JSON pointer"));
        assert!(refused("").contains("is not a JSON pointer"));
        assert!(refused("/a~2").contains("is not a JSON pointer"));
        assert!(refused("/metadata/name").contains("identifies the object"));
    }

    #[test]
    fn what_only_the_server_writes_is_not_sent() {
        let body = json!({"apiVersion": "apps/v1", "kind": "Deployment", "status": {},
            "metadata": {"name": "plex", "uid": "1", "resourceVersion": "2", "generation": 3, "managedFields": [],
                         "creationTimestamp": null, "labels": {}},
            "spec": {"template": {"metadata": {"creationTimestamp": null, "labels": {}},
                     "spec": {"volumes": [{"emptyDir": {}}]}}}});
        assert_eq!(
            apply_body(body, "op-7"),
            json!({"apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "plex", "labels": {"app.kubernetes.io/managed-by": "lab"},
                    "annotations": {"lab.home.arpa/operation": "op-7"}},
                "spec": {"template": {"metadata": {"labels": {}}, "spec": {"volumes": [{"emptyDir": {}}]}}}})
        );
    }

    #[test]
    fn the_mark_is_read_back_and_a_label_of_the_user_stays() {
        let body = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "me"}}});
        let sent = apply_body(body, "op-7");
        assert_eq!(mark_of(&sent), Some("op-7"));
        assert_eq!(sent["metadata"]["labels"][MANAGED_BY], "me");
        assert_eq!(mark_of(&json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "lab"}}})), None);
    }

    #[test]
    fn a_secret_is_sent_as_data() {
        let body = json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": "eA==", "b": "eQ=="},
            "stringData": {"b": "claim", "c": "ü"}});
        let sent = plain(body);
        assert_eq!(sent["data"], json!({"a": "eA==", "b": "Y2xhaW0=", "c": "w7w="}));
        assert_eq!(sent.get("stringData"), None);
    }
}
