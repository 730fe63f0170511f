//! The custom kinds that the add-ons use, with the fields that they set.
//!
//! Each is a plain struct: what an object cannot do without is an argument of `new`, the rest follows by struct update.
//! They are checked against the definitions under `tests/crds`: every field that can be written exists there, with its
//! type. A field that is missing here can still be set by path ([`crate::Object::set`]).

mod cert_manager;
mod metallb;
mod prometheus;
mod traefik;

pub use cert_manager::*;
pub use metallb::*;
pub use prometheus::*;
pub use traefik::*;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An object's own metadata, as far as it is declared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// The name.
    pub name: String,
    /// The namespace; none for kinds of the whole cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Metadata {
    /// Returns the metadata of an object in a namespace.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Metadata {
        Metadata { namespace: Some(namespace.into()), ..Metadata::cluster(name) }
    }

    /// Returns the metadata of an object of the whole cluster.
    pub fn cluster(name: impl Into<String>) -> Metadata {
        Metadata { name: name.into(), ..Metadata::default() }
    }
}

/// Which objects are meant, by their labels. Without any it means all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels that must all be there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Rules that must all hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelExpression>,
}

impl LabelSelector {
    /// Returns the selector of objects that carry this label.
    pub fn label(name: impl Into<String>, value: impl Into<String>) -> LabelSelector {
        LabelSelector { match_labels: BTreeMap::from([(name.into(), value.into())]), ..LabelSelector::default() }
    }
}

/// One rule about a label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelExpression {
    /// The label.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    /// The values, for the first two.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// A port by number or by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Port {
    /// The number.
    Number(u16),
    /// The name.
    Name(String),
}

impl From<u16> for Port {
    fn from(number: u16) -> Port {
        Port::Number(number)
    }
}

impl From<&str> for Port {
    fn from(name: &str) -> Port {
        Port::Name(name.to_owned())
    }
}

/// Writes one custom kind: its type with apiVersion and kind, which round-trip and cannot be wrong.
macro_rules! kind {
    ($(#[$doc:meta])* $name:ident, $spec:ident, $api_version:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            /// Group and version.
            pub api_version: String,
            /// The kind.
            pub kind: String,
            /// What the object is called.
            pub metadata: crate::crds::Metadata,
            /// What is wanted.
            pub spec: $spec,
        }

        impl $name {
            /// Returns the object with its kind and version.
            pub fn new(metadata: crate::crds::Metadata, spec: $spec) -> $name {
                $name { api_version: $api_version.into(), kind: stringify!($name).into(), metadata, spec }
            }
        }
    };
}
pub(crate) use kind;
