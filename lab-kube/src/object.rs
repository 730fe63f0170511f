//! Any Kubernetes object as desired state.

use crate::body::{BodyError, check_pointer, merge, plain};
use crate::json::text;
use crate::key::Key;
use crate::kinds;
use lab_core::{Input, Output, Secret};
use serde::ser::Error as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// Any Kubernetes object as desired state: a typed body, and values set into it by path.
///
/// `K` is whatever serialises to an object with apiVersion, kind and metadata: a k8s-openapi type, one of
/// [`crate::crds`], a struct of your own, a plain JSON value. What is known only later, and what is secret, is set by
/// path, so that no type of Kubernetes has to know of it.
///
/// It is found again by its natural id, [`Key::identity`]; ours is told from everybody else's by the mark in the
/// annotation [`crate::body::OPERATION`]. It is ready when [`crate::readiness`] says so. What others set in fields that
/// are not declared here is left to them: a workload that is scaled by an autoscaler declares no `replicas`.
///
/// A claim for storage is not counted among the things that outlive their cluster ([`lab_core::Resource::outside`]):
/// what becomes of its data is for its class to say, and the owner of a NAS wants it kept.
///
/// ```
/// use lab_kube::Object;
/// use serde_json::json;
///
/// let ingress = Object::new(json!({
///     "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
///     "metadata": {"name": "plex", "namespace": "media"},
///     "spec": {"rules": [{}]},
/// }))
/// .set("/spec/rules/0/host", "plex.home.arpa");
///
/// assert_eq!(ingress.key()?.to_string(), "networking.k8s.io/v1/Ingress media/plex");
/// assert_eq!(ingress.draft()?["spec"]["rules"][0]["host"], "plex.home.arpa");
/// # Ok::<(), lab_kube::BodyError>(())
/// ```
#[derive(Clone, Debug, Deserialize)]
pub struct Object<K> {
    /// The object as far as it is known when it is written.
    pub body: K,
    /// Values by JSON pointer (RFC 6901), laid over the body.
    #[serde(default)]
    pub set: BTreeMap<String, Input<Value>>,
    /// Secrets by JSON pointer, laid over the body. At `/stringData/<key>` of a Secret the plain value is given, at
    /// `/data/<key>` its base64.
    #[serde(default)]
    pub secret: BTreeMap<String, Input<Secret<String>>>,
    /// Secrets by JSON pointer that are only sent when the object is made, such as a claim token that expires. They are
    /// neither stored nor compared, and later changes of the object leave them as they are.
    #[serde(default)]
    pub initial: BTreeMap<String, Input<Secret<String>>>,
}

/// What a path can be set to: a plain value, or one that another resource yields.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be set into an object",
    note = "a secret is set with `.secret`; other structures with `serde_json::json!(..)`"
)]
pub trait Settable {
    /// Returns it as JSON, now or later.
    fn settable(self) -> Input<Value>;
}

macro_rules! settable {
    ($($plain:ty),*) => {$(
        impl Settable for $plain {
            fn settable(self) -> Input<Value> {
                Input::Value(json!(self))
            }
        }
    )*};
}
settable!(&str, String, bool, u8, u16, u32, u64, i32, i64, f64, Value, Ipv4Addr, IpAddr, Vec<String>);

impl<T: Serialize + Clone + Send + Sync + 'static> Settable for Output<T> {
    fn settable(self) -> Input<Value> {
        Input::Output(self.map(|value| {
            serde_json::to_value(value)
                .unwrap_or_else(|error| panic!("it does not serialise (a secret is set with `.secret`): {error}"))
        }))
    }
}

impl<T: Serialize + Clone + Send + Sync + 'static> Settable for Input<T>
where
    T: Settable,
{
    fn settable(self) -> Input<Value> {
        match self {
            Input::Value(value) => value.settable(),
            Input::Output(output) => output.settable(),
        }
    }
}

impl<K> Object<K> {
    /// Returns the object as it is written, with nothing set by path.
    pub fn new(body: K) -> Object<K> {
        Object { body, set: BTreeMap::new(), secret: BTreeMap::new(), initial: BTreeMap::new() }
    }

    /// Sets the value at a JSON pointer, such as `/spec/rules/0/host`, to a value or an output.
    ///
    /// Maps that are missing on the way are created. A path that leads nowhere is a problem of the plan.
    pub fn set(mut self, pointer: impl Into<String>, value: impl Settable) -> Object<K> {
        self.set.insert(pointer.into(), value.settable());
        self
    }

    /// Sets the secret at a JSON pointer, such as `/stringData/token` of a Secret.
    pub fn secret(mut self, pointer: impl Into<String>, value: impl Into<Input<Secret<String>>>) -> Object<K> {
        self.secret.insert(pointer.into(), value.into());
        self
    }

    /// Sets the secret at a JSON pointer when the object is made, and never again.
    pub fn initial(mut self, pointer: impl Into<String>, value: impl Into<Input<Secret<String>>>) -> Object<K> {
        self.initial.insert(pointer.into(), value.into());
        self
    }
}

/// What stands at a path whose value is not known yet.
const UNKNOWN: &str = "[unknown]";

impl<K: Serialize> Object<K> {
    /// Returns the object's key, read from its body: what is set by path never names it.
    ///
    /// # Errors
    ///
    /// A body that does not serialise to an object, or whose names Kubernetes would refuse.
    pub fn key(&self) -> Result<Key, BodyError> {
        Ok(Key::of(&self.written()?)?)
    }

    /// Returns the body as it was written, without what is set by path.
    ///
    /// # Errors
    ///
    /// A body that does not serialise to a map.
    pub fn written(&self) -> Result<Value, BodyError> {
        match serde_json::to_value(&self.body).map_err(|error| BodyError::Serialise(error.to_string()))? {
            body @ Value::Object(_) => Ok(body),
            _ => Err(BodyError::NotAnObject),
        }
    }

    /// Returns the body as far as it is known now, for the pure half: what is not stands as `[unknown]`.
    ///
    /// It holds secrets in clear and must not be shown.
    ///
    /// # Errors
    ///
    /// Those of [`Object::key`] and [`merge`].
    pub fn draft(&self) -> Result<Value, BodyError> {
        self.over(self.written()?)
    }

    /// Returns `written` with everything laid over it that is known.
    pub(crate) fn over(&self, written: Value) -> Result<Value, BodyError> {
        let set = |value: &Input<Value>| value.known().cloned().unwrap_or(json!(UNKNOWN));
        let secret =
            |value: &Input<Secret<String>>| value.known().map_or(json!(UNKNOWN), |value| json!(value.expose()));
        let set: BTreeMap<String, Value> = self.set.iter().map(|(at, value)| (at.clone(), set(value))).collect();
        let secret = self.secret.iter().map(|(at, value)| (at.clone(), secret(value))).collect();
        merge(merge(written, &set)?, &secret)
    }

    /// Returns the body that is sent, without our mark and without what is only given at first.
    pub(crate) fn desired(&self) -> Result<Value, BodyError> {
        let secret = self.secret.iter().map(|(at, value)| (at.clone(), json!(value.get().expose()))).collect();
        Ok(plain(merge(self.shown()?, &secret)?))
    }

    /// Returns the body without any secret: what may be shown, and journalled as a digest.
    pub(crate) fn shown(&self) -> Result<Value, BodyError> {
        let set = self.set.iter().map(|(at, value)| (at.clone(), value.get().clone())).collect();
        merge(self.written()?, &set)
    }

    /// Returns the values that are only given at first, where they land in the body that is sent.
    pub(crate) fn first(&self) -> Result<BTreeMap<String, Value>, BodyError> {
        let body = self.written()?;
        let one = |(at, value): (&String, &Input<Secret<String>>)| landing(&body, at, value.get().expose());
        Ok(self.initial.iter().map(one).collect())
    }

    /// Checks what can be said of the object when it is declared.
    fn check(&self, body: &Value) -> Result<(), BodyError> {
        if let Some(pointer) = marker(body, "") {
            return Err(BodyError::Marker { pointer });
        }
        let key = Key::of(body)?;
        if let Some(kind) = kinds::known(&key.api_version, &key.kind) {
            kind.check(&key)?;
        }
        let draft = self.over(body.clone())?;
        if key.api_version == "v1" && key.kind == "Secret" {
            clear(body, self.set.keys())?;
        }
        for pointer in self.initial.keys() {
            check_pointer(&draft, pointer)?;
            let parents = pointer.match_indices('/').map(|(at, _)| &pointer[..at]);
            if parents.filter_map(|parent| draft.pointer(parent)).any(Value::is_array) {
                return Err(BodyError::Listed { pointer: pointer.clone() });
            }
        }
        Ok(())
    }
}

/// Where a secret at a pointer lands in the body that is sent, and as what: a Secret's `stringData` becomes `data`.
pub(crate) fn landing(body: &Value, pointer: &str, value: &str) -> (String, Value) {
    use base64::Engine as _;
    match pointer.strip_prefix("/stringData/").filter(|_| is_secret(body)) {
        Some(key) => (format!("/data/{key}"), json!(base64::engine::general_purpose::STANDARD.encode(value))),
        None => (pointer.to_owned(), json!(value)),
    }
}

fn is_secret(body: &Value) -> bool {
    text(body, "/apiVersion") == "v1" && text(body, "/kind") == "Secret"
}

fn clear<'a>(body: &Value, mut set: impl Iterator<Item = &'a String>) -> Result<(), BodyError> {
    for field in ["/data", "/stringData"] {
        let filled = body.pointer(field).and_then(Value::as_object).and_then(|entries| entries.keys().next());
        if let Some(key) = filled {
            return Err(BodyError::Clear { pointer: format!("{field}/{key}") });
        }
    }
    let within = |pointer: &&String| ["/data", "/stringData"].iter().any(|field| pointer.starts_with(field));
    set.find(within).map_or(Ok(()), |pointer| Err(BodyError::Clear { pointer: pointer.clone() }))
}

/// Returns where the engine's marker of an output or a secret stands in a body.
fn marker(value: &Value, at: &str) -> Option<String> {
    match value {
        Value::Object(fields) if fields.keys().any(|field| field.starts_with("$lab.")) => Some(at.to_owned()),
        Value::Object(fields) => fields.iter().find_map(|(field, value)| marker(value, &format!("{at}/{field}"))),
        Value::Array(elements) => {
            elements.iter().enumerate().find_map(|(index, value)| marker(value, &format!("{at}/{index}")))
        }
        _ => None,
    }
}

/// An object that cannot be one does not serialise: so whatever can be said of it at once is a problem of the plan, with
/// the line of the program that declares it.
impl<K: Serialize> Serialize for Object<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Written<'a> {
            body: Value,
            #[serde(skip_serializing_if = "none")]
            set: &'a BTreeMap<String, Input<Value>>,
            #[serde(skip_serializing_if = "none")]
            secret: &'a BTreeMap<String, Input<Secret<String>>>,
            #[serde(skip_serializing_if = "none")]
            initial: &'a BTreeMap<String, Input<Secret<String>>>,
        }
        fn none<V>(map: &&BTreeMap<String, V>) -> bool {
            map.is_empty()
        }
        // Once: whoever has outputs in a body of their own would have them written twice.
        let body = self.written().map_err(S::Error::custom)?;
        self.check(&body).map_err(S::Error::custom)?;
        Written { body, set: &self.set, secret: &self.secret, initial: &self.initial }.serialize(serializer)
    }
}

/// Returns a Namespace.
pub fn namespace(name: impl Into<String>) -> Object<Value> {
    Object::new(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name.into()}}))
}

/// Returns a Secret that holds nothing yet: what it holds is given with [`Object::secret`], or [`Object::initial`] when
/// it is only needed at first.
///
/// ```
/// use lab_core::Secret;
///
/// let token = lab_kube::secret("media", "plex-claim").initial("/stringData/claim", Secret::new("claim-x".to_owned()));
/// # let _ = token;
/// ```
pub fn secret(namespace: impl Into<String>, name: impl Into<String>) -> Object<Value> {
    let metadata = json!({"name": name.into(), "namespace": namespace.into()});
    Object::new(json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque"}))
}

/// Returns a ConfigMap of texts, by their file names.
pub fn config_map(
    namespace: impl Into<String>,
    name: impl Into<String>,
    data: BTreeMap<String, String>,
) -> Object<Value> {
    let metadata = json!({"name": name.into(), "namespace": namespace.into()});
    Object::new(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}))
}
