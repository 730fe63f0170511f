//! The client configuration that `talosctl` reads: who we are to which machines.

use crate::pem;
use crate::secrets::Credentials;
use crate::yaml::Yaml;
use std::collections::BTreeMap;

/// A client configuration: named contexts, one of them current.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Talosconfig {
    /// The name of the current context.
    pub context: String,
    /// All contexts by name.
    pub contexts: BTreeMap<String, Context>,
}

/// One way into one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The machines to connect to: control planes.
    pub endpoints: Vec<String>,
    /// The machines a call is for, when not the one connected to.
    pub nodes: Vec<String>,
    /// What is presented and trusted.
    pub credentials: Credentials,
}

impl Talosconfig {
    /// Returns a configuration with one context, which is current.
    pub fn new(
        name: impl Into<String>,
        endpoints: Vec<String>,
        nodes: Vec<String>,
        credentials: Credentials,
    ) -> Talosconfig {
        let name = name.into();
        let context = Context { endpoints, nodes, credentials };
        Talosconfig { context: name.clone(), contexts: BTreeMap::from([(name, context)]) }
    }

    /// Writes the configuration as `talosctl` does.
    pub fn to_yaml(&self) -> String {
        let contexts = self.contexts.iter().map(|(name, context)| {
            let mut yaml = Yaml::map([("endpoints", Yaml::list(&context.endpoints))]);
            if !context.nodes.is_empty() {
                yaml.set("nodes", Yaml::list(&context.nodes));
            }
            yaml.set("ca", pem::wrap(&context.credentials.ca));
            yaml.set("crt", pem::wrap(&context.credentials.crt));
            yaml.set("key", pem::wrap(&context.credentials.key));
            (name.clone(), yaml)
        });
        Yaml::map([("context", Yaml::from(&self.context)), ("contexts", Yaml::map(contexts))]).to_text()
    }

    /// Reads a configuration. Only contexts with a client certificate are taken; the legacy key `target` counts as
    /// one more endpoint.
    ///
    /// # Errors
    ///
    /// Says what is unreadable, and in which context.
    pub fn from_yaml(text: &str) -> Result<Talosconfig, String> {
        let document = Yaml::parse(text)?.into_iter().next().ok_or("the file is empty")?;
        let context = document.at(&["context"]).and_then(Yaml::as_str).unwrap_or_default().to_owned();
        let mut contexts = BTreeMap::new();
        let Some(Yaml::Map(entries)) = document.at(&["contexts"]) else {
            return Ok(Talosconfig { context, contexts });
        };
        for (name, yaml) in entries {
            let texts = |key: &str| match yaml.at(&[key]) {
                Some(Yaml::List(items)) => items.iter().filter_map(Yaml::as_str).map(str::to_owned).collect(),
                _ => Vec::new(),
            };
            let pem = |key: &str| match yaml.at(&[key]).and_then(Yaml::as_str) {
                Some(text) => pem::unwrap(text).map(Some).map_err(|error| format!("context {name}: {key}: {error}")),
                None => Ok(None),
            };
            let (Some(ca), Some(crt), Some(key)) = (pem("ca")?, pem("crt")?, pem("key")?) else { continue };
            let mut endpoints: Vec<String> = texts("endpoints");
            endpoints.extend(yaml.at(&["target"]).and_then(Yaml::as_str).map(str::to_owned));
            let credentials = Credentials { ca, crt, key };
            contexts.insert(name.clone(), Context { endpoints, nodes: texts("nodes"), credentials });
        }
        Ok(Talosconfig { context, contexts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_written_as_it_was_read() {
        let text = include_str!("../tests/vectors/talosconfig.yaml");
        let read = Talosconfig::from_yaml(text).unwrap();
        assert_eq!(read.context, "vec");
        assert_eq!(read.to_yaml(), text);
    }

    #[test]
    fn nodes_and_the_old_target_are_read() {
        let text = "context: a\ncontexts:\n    a:\n        target: 10.0.0.1\n        endpoints: [10.0.0.2]\n        nodes: [10.0.0.3]\n        ca: YQ==\n        crt: Yg==\n        key: Yw==\n    b:\n        auth: {basic: {username: x, password: y}}\n";
        let read = Talosconfig::from_yaml(text).unwrap();
        assert_eq!(read.contexts["a"].endpoints, ["10.0.0.2", "10.0.0.1"]);
        assert_eq!(read.contexts["a"].nodes, ["10.0.0.3"]);
        assert!(!read.contexts.contains_key("b"));
        assert!(
            Talosconfig::from_yaml(&read.to_yaml()).unwrap()
                == Talosconfig { contexts: BTreeMap::from([("a".into(), read.contexts["a"].clone())]), ..read }
        );
    }
}
