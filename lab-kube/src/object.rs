//! Any Kubernetes object as desired state.

use crate::body::{BodyError, merge};
use crate::key::Key;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Any Kubernetes object as desired state: a typed body, and values set into it by path.
///
/// `K` is whatever serialises to an object with apiVersion, kind and metadata: a k8s-openapi type, one of
/// [`crate::crds`], a struct of your own, a plain JSON value. `V` is what a path is set to: a JSON value, or one that
/// is known only later.
///
/// It is found again by its natural id, [`Key::identity`]; ours is told from everybody else's by the mark in the
/// annotation [`crate::body::OPERATION`].
///
/// ```
/// use lab_kube::Object;
/// use serde_json::{Value, json};
///
/// let ingress: Object<Value> = Object::new(json!({
///     "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
///     "metadata": {"name": "plex", "namespace": "media"},
///     "spec": {"rules": [{}]},
/// }))
/// .set("/spec/rules/0/host", "plex.home.arpa");
///
/// assert_eq!(ingress.key()?.to_string(), "networking.k8s.io/v1/Ingress media/plex");
/// assert_eq!(ingress.build()?["spec"]["rules"][0]["host"], "plex.home.arpa");
/// # Ok::<(), lab_kube::BodyError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Object<K, V = Value> {
    /// The object as far as it is known when it is written.
    pub body: K,
    /// Values by JSON pointer (RFC 6901), laid over the body.
    #[serde(default = "BTreeMap::new", skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, V>,
}

impl<K, V> Object<K, V> {
    /// Returns the object as it is written, with nothing set by path.
    pub fn new(body: K) -> Object<K, V> {
        Object { body, set: BTreeMap::new() }
    }

    /// Sets the value at a JSON pointer, such as `/spec/rules/0/host`.
    ///
    /// Maps that are missing on the way are created. That the path leads somewhere is checked when the body is built.
    pub fn set(mut self, pointer: impl Into<String>, value: impl Into<V>) -> Object<K, V> {
        self.set.insert(pointer.into(), value.into());
        self
    }
}

impl<K: Serialize, V> Object<K, V> {
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
}

impl<K: Serialize> Object<K, Value> {
    /// Returns the whole body, with everything that is set by path.
    ///
    /// # Errors
    ///
    /// Those of [`Object::key`] and [`merge`].
    pub fn build(&self) -> Result<Value, BodyError> {
        self.key()?;
        merge(self.written()?, &self.set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use serde_json::json;

    #[test]
    fn a_typed_object_states_its_own_kind_and_round_trips() {
        let meta = ObjectMeta { name: Some("a".into()), namespace: Some("b".into()), ..ObjectMeta::default() };
        let object: Object<ConfigMap> =
            Object::new(ConfigMap { metadata: meta, ..ConfigMap::default() }).set("/data/x", "1");
        assert_eq!(object.key().unwrap().to_string(), "v1/ConfigMap b/a");
        assert_eq!(object.build().unwrap()["data"], json!({"x": "1"}));
        let text = serde_json::to_string(&object).unwrap();
        assert_eq!(serde_json::from_str::<Object<ConfigMap>>(&text).unwrap(), object);
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        assert_eq!(Object::<_, Value>::new(json!([1])).build(), Err(BodyError::NotAnObject));
        assert!(Object::<_, Value>::new(json!({"kind": "Pod"})).build().is_err());
    }
}
