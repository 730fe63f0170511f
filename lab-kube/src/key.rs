//! What an object is called: its key with a version, its identity without one.

use crate::json::text;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::str::FromStr;

/// An object's full name: `apps/v1/Deployment media/plex`, `v1/Namespace media`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Group and version, `apps/v1`; the core group has the version alone, `v1`.
    pub api_version: String,
    /// The kind, `Deployment`.
    pub kind: String,
    /// The namespace; none for what belongs to the whole cluster.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

/// An object's identity: its key without the version, since every version of a group shows the same objects.
///
/// This is the natural id. With the version in it, moving a body from `v1beta1` to `v1` would look like another
/// object, and the object would be deleted under its old name just after it was applied under the new one.
/// Written `apps/Deployment media/plex`, and `Namespace media` for the core group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The group; empty for the core group.
    pub group: String,
    /// The kind.
    pub kind: String,
    /// The namespace; none for what belongs to the whole cluster.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

/// Why something is not an object's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// The body lacks a field that every object has.
    Missing {
        /// Where it belongs, as a JSON pointer.
        field: &'static str,
    },
    /// The text does not have the form of a key.
    Form {
        /// What was given.
        text: String,
        /// The form that was expected.
        expected: &'static str,
    },
    /// A name breaks the rule of its kind.
    Name {
        /// Which name: `name`, `namespace`.
        what: &'static str,
        /// The kind it was given for.
        kind: String,
        /// The name.
        name: String,
        /// What is wrong with it.
        rule: String,
    },
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyError::Missing { field } => write!(f, "the object has no {field}"),
            KeyError::Form { text, expected } => write!(f, "{text:?} is not an object's name, expected {expected}"),
            KeyError::Name { what, kind, name, rule } => write!(f, "the {what} {name:?} of a {kind} {rule}"),
        }
    }
}

impl std::error::Error for KeyError {}

impl Key {
    /// Returns the key of a serialised object, its names checked.
    ///
    /// # Errors
    ///
    /// A missing apiVersion, kind or name, and names that Kubernetes would refuse.
    pub fn of(body: &Value) -> Result<Key, KeyError> {
        let field = |field: &'static str| match text(body, field) {
            "" => Err(KeyError::Missing { field }),
            found => Ok(found.to_owned()),
        };
        let namespace = Some(text(body, "/metadata/namespace").to_owned()).filter(|namespace| !namespace.is_empty());
        let key = Key {
            api_version: field("/apiVersion")?,
            kind: field("/kind")?,
            namespace,
            name: field("/metadata/name")?,
        };
        key.check()?;
        Ok(key)
    }

    /// Returns the group; empty for the core group.
    pub fn group(&self) -> &str {
        self.api_version.rsplit_once('/').map_or("", |(group, _)| group)
    }

    /// Returns the version without its group.
    pub fn version(&self) -> &str {
        self.api_version.rsplit_once('/').map_or(&self.api_version, |(_, version)| version)
    }

    /// Returns the natural id, which survives a change of version.
    pub fn identity(&self) -> Identity {
        Identity {
            group: self.group().to_owned(),
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }

    /// Checks both names against the rules of the kind (RFC 1123, RFC 1035 for Services, path segments for RBAC).
    ///
    /// # Errors
    ///
    /// The first name that breaks its rule.
    pub fn check(&self) -> Result<(), KeyError> {
        let complain = |what, name: &str| {
            let (kind, name) = (self.kind.clone(), name.to_owned());
            move |rule| KeyError::Name { what, kind, name, rule }
        };
        if let Some(namespace) = &self.namespace {
            label(namespace, 63).map_err(complain("namespace", namespace))?;
        }
        rule(self.group(), &self.kind)(&self.name).map_err(complain("name", &self.name))
    }
}

type Rule = fn(&str) -> Result<(), String>;

fn rule(group: &str, kind: &str) -> Rule {
    match (group, kind) {
        ("", "Namespace") => |name| label(name, 63),
        ("", "Service") => |name| match name.starts_with(|first: char| first.is_ascii_digit()) {
            true => Err("begins with a digit, and a Service's name must begin with a letter (RFC 1035)".into()),
            false => label(name, 63),
        },
        // Pods get the label job-name, and a CronJob appends eleven characters to make the names of its Jobs.
        ("batch", "Job") => |name| longest(name, 63).and_then(|()| subdomain(name)),
        ("batch", "CronJob") => |name| longest(name, 52).and_then(|()| subdomain(name)),
        ("rbac.authorization.k8s.io", _) => segment,
        _ => subdomain,
    }
}

fn longest(name: &str, most: usize) -> Result<(), String> {
    match name.len() {
        length if length > most => Err(format!("has {length} characters, at most {most} are allowed")),
        _ => Ok(()),
    }
}

/// RFC 1123 label: lower case letters, digits and `-`, a letter or digit at both ends.
fn label(name: &str, most: usize) -> Result<(), String> {
    longest(name, most)?;
    if name.is_empty() {
        return Err("is empty".into());
    }
    if let Some(wrong) = name.chars().find(|&c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')) {
        let why = if wrong.is_ascii_uppercase() { ", which is upper case" } else { "" };
        return Err(format!("contains {wrong:?}{why}; allowed are lower case letters, digits and '-' (RFC 1123)"));
    }
    if name.starts_with('-') || name.ends_with('-') {
        return Err("must begin and end with a letter or digit (RFC 1123)".into());
    }
    Ok(())
}

/// RFC 1123 subdomain: labels of any length joined by dots, 253 characters in all.
fn subdomain(name: &str) -> Result<(), String> {
    longest(name, 253)?;
    name.split('.').try_for_each(|part| match part {
        "" if name.is_empty() => Err("is empty".into()),
        "" => Err("has a dot at an end or two in a row (RFC 1123)".into()),
        part => label(part, 253),
    })
}

/// What may stand in a path: RBAC names such as `system:node-proxier` are more liberal than all others.
fn segment(name: &str) -> Result<(), String> {
    match name {
        "" => Err("is empty".into()),
        "." | ".." => Err("is a step in a path".into()),
        name => match name.chars().find(|&c| c == '/' || c == '%' || c.is_whitespace() || c.is_control()) {
            Some(wrong) => Err(format!("contains {wrong:?}")),
            None => Ok(()),
        },
    }
}

fn place(f: &mut fmt::Formatter<'_>, namespace: Option<&str>, name: &str) -> fmt::Result {
    match namespace {
        Some(namespace) => write!(f, "{namespace}/{name}"),
        None => f.write_str(name),
    }
}

/// Splits `apps/v1/Deployment media/plex` into its four parts; the first may be empty.
fn parts(text: &str) -> Option<(&str, &str, Option<String>, String)> {
    let (kind, place) = text.split_once(' ')?;
    let (before, kind) = kind.rsplit_once('/').unwrap_or(("", kind));
    let (namespace, name) = match place.split_once('/') {
        Some((namespace, name)) => (Some(namespace.to_owned()), name),
        None => (None, place),
    };
    Some((before, kind, namespace, name.to_owned())).filter(|(_, kind, ..)| !kind.is_empty())
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} ", self.api_version, self.kind)?;
        place(f, self.namespace.as_deref(), &self.name)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.group.is_empty() {
            write!(f, "{}/", self.group)?;
        }
        write!(f, "{} ", self.kind)?;
        place(f, self.namespace.as_deref(), &self.name)
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Key, KeyError> {
        let form = || KeyError::Form { text: text.to_owned(), expected: "\"apps/v1/Deployment namespace/name\"" };
        let (api_version, kind, namespace, name) = parts(text).ok_or_else(form)?;
        if api_version.is_empty() || api_version.starts_with('/') || api_version.matches('/').count() > 1 {
            return Err(form());
        }
        let key = Key { api_version: api_version.to_owned(), kind: kind.to_owned(), namespace, name };
        key.check()?;
        Ok(key)
    }
}

impl FromStr for Identity {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Identity, KeyError> {
        let form = || KeyError::Form { text: text.to_owned(), expected: "\"apps/Deployment namespace/name\"" };
        let (group, kind, namespace, name) = parts(text).ok_or_else(form)?;
        if group.contains('/') {
            return Err(form());
        }
        let identity = Identity { group: group.to_owned(), kind: kind.to_owned(), namespace, name };
        identity.at("v1").check()?;
        Ok(identity)
    }
}

impl Identity {
    /// Returns the key of this object as `version` (without its group) shows it.
    pub fn at(&self, version: &str) -> Key {
        let api_version = match self.group.as_str() {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        };
        Key { api_version, kind: self.kind.clone(), namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_key_reads_back_as_it_is_written() {
        for text in ["apps/v1/Deployment media/plex", "v1/Namespace media", "metallb.io/v1beta1/IPAddressPool m/lan"] {
            assert_eq!(text.parse::<Key>().unwrap().to_string(), text);
        }
        for text in ["apps/Deployment media/plex", "Namespace media", "rbac.authorization.k8s.io/ClusterRole system:x"]
        {
            assert_eq!(text.parse::<Identity>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_change_of_version_is_the_same_object() {
        let old: Key = "example.org/v1beta1/Widget a/b".parse().unwrap();
        let new: Key = "example.org/v1/Widget a/b".parse().unwrap();
        assert_eq!(old.identity(), new.identity());
        assert_eq!(old.identity().at("v1"), new);
        assert_eq!("Pod a/b".parse::<Identity>().unwrap().at("v1").to_string(), "v1/Pod a/b");
    }

    #[test]
    fn a_body_without_a_name_is_named_for_what_it_lacks() {
        let lacks = |body: Value| Key::of(&body).unwrap_err().to_string();
        assert_eq!(lacks(json!({"kind": "Pod"})), "the object has no /apiVersion");
        assert_eq!(lacks(json!({"apiVersion": "v1"})), "the object has no /kind");
        assert_eq!(lacks(json!({"apiVersion": "v1", "kind": "Pod"})), "the object has no /metadata/name");
    }

    #[test]
    fn names_that_kubernetes_refuses_are_refused_with_the_rule() {
        let refused = |key: &str, part: &str| {
            let error = key.parse::<Key>().unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        refused("v1/ConfigMap media/Plex", "contains 'P', which is upper case");
        refused("v1/ConfigMap media/plex_config", "contains '_'");
        refused("v1/ConfigMap media/-plex", "must begin and end with a letter or digit");
        refused("v1/ConfigMap media/a..b", "two in a row");
        refused("v1/ConfigMap media/", "the name \"\" of a ConfigMap is empty");
        refused("v1/ConfigMap my.media/plex", "the namespace \"my.media\" of a ConfigMap contains '.'");
        refused("v1/Service media/9plex", "must begin with a letter");
        refused("v1/Namespace a.b", "contains '.'");
        refused(&format!("batch/v1/CronJob media/{}", "x".repeat(53)), "has 53 characters, at most 52");
        refused("rbac.authorization.k8s.io/v1/Role media/a/b", "contains '/'");
        refused("Deployment media/plex", "is not an object's name, expected \"apps/v1/Deployment namespace/name\"");
        refused("plex", "is not an object's name");
    }

    #[test]
    fn names_that_kubernetes_accepts_are_accepted() {
        for key in [
            "rbac.authorization.k8s.io/v1/ClusterRole system:node-proxier",
            "apiextensions.k8s.io/v1/CustomResourceDefinition ipaddresspools.metallb.io",
            "v1/ConfigMap media/kube-root-ca.crt",
            "apiregistration.k8s.io/v1/APIService v1beta1.metrics.k8s.io",
        ] {
            key.parse::<Key>().unwrap();
        }
    }
}
