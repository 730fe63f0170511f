//! A machine configuration as a Talos machine reads it.

use super::schema::{self, Misfit};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A machine configuration: the bytes as they were submitted, and what they say.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The configuration as it was submitted, byte for byte.
    pub(crate) bytes: Vec<u8>,
    /// The v1alpha1 document, `Null` when there is none.
    pub(crate) main: Value,
    /// The other documents.
    pub(crate) others: Vec<Value>,
}

/// What a machine is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    ControlPlane,
    Worker,
}

impl Config {
    /// Decodes strictly, as Talos of this minor version (of v1) does.
    pub(crate) fn decode(bytes: &[u8], minor: u32) -> Result<Config, String> {
        let text = std::str::from_utf8(bytes).map_err(|error| format!("decode error: yaml: {error}"))?;
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(text).map_err(|error| format!("decode error: yaml: {error}"))?;
        let mut main = Value::Null;
        let mut others: Vec<Value> = Vec::new();
        for document in documents {
            if document.is_null() {
                continue;
            }
            if document.get("apiVersion").is_none() && document.get("kind").is_none() {
                if document.get("version").is_none() {
                    return Err("missing kind".to_owned());
                }
                if !main.is_null() {
                    return Err("duplicate document /v1alpha1/ is not allowed".to_owned());
                }
                fits("Config", &document, minor)?;
                shape(&document)?;
                main = document;
            } else {
                let kind = document.get("kind").and_then(Value::as_str).ok_or("missing kind")?.to_owned();
                let version = document.get("apiVersion").and_then(Value::as_str).unwrap_or_default().to_owned();
                match schema::of_kind(&kind) {
                    Some(name) if version == "v1alpha1" => fits(&name, &document, minor)?,
                    None if version == "v1alpha1" && schema::is_later_kind(&kind, minor) => {}
                    _ => return Err(format!("{kind:?} {version:?}: not registered")),
                }
                let name = document.get("name").cloned();
                if others.iter().any(|other| other["kind"] == *kind && other.get("name").cloned() == name) {
                    let name = name.as_ref().and_then(Value::as_str).unwrap_or_default();
                    return Err(format!("duplicate document {version}/{kind}/{name} is not allowed"));
                }
                others.push(document);
            }
        }
        if main.is_null() && others.is_empty() {
            return Err("config not found".to_owned());
        }
        Ok(Config { bytes: bytes.to_vec(), main, others })
    }

    /// Whether it says what the machine is, or only carries further documents.
    pub(crate) fn is_complete(&self) -> bool {
        !self.main.is_null()
    }

    /// Returns the text at a path like `machine.install.disk`; `None` when it is absent or empty.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.at(path).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// Returns the value at a path like `machine.network`.
    pub(crate) fn at(&self, path: &str) -> Option<&Value> {
        path.split('.').try_fold(&self.main, |value, key| value.get(key)).filter(|value| !value.is_null())
    }

    pub(crate) fn flag(&self, path: &str) -> bool {
        self.at(path).and_then(Value::as_bool).unwrap_or(false)
    }

    /// Returns the texts of the list at a path.
    pub(crate) fn texts(&self, path: &str) -> Vec<String> {
        let items = self.at(path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// Returns the texts of the mapping at a path.
    pub(crate) fn map(&self, path: &str) -> BTreeMap<String, String> {
        let items = self.at(path).and_then(Value::as_object);
        items
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
            .collect()
    }

    /// Returns what the machine is for; `join` and nothing mean a worker.
    pub(crate) fn role(&self) -> Role {
        match self.text("machine.type") {
            Some("controlplane" | "init") => Role::ControlPlane,
            _ => Role::Worker,
        }
    }

    /// Returns the host name it gives the machine, `None` when DHCP or Talos decide.
    pub(crate) fn hostname(&self) -> Option<&str> {
        let document = self.others.iter().find(|other| other["kind"] == "HostnameConfig");
        let stated = document.and_then(|document| document.get("hostname")).and_then(Value::as_str);
        stated.or_else(|| self.text("machine.network.hostname"))
    }

    /// Returns the virtual addresses that control planes share.
    pub(crate) fn virtual_addresses(&self) -> Vec<IpAddr> {
        let interfaces = self.at("machine.network.interfaces").and_then(Value::as_array);
        interfaces.into_iter().flatten().filter_map(|interface| interface["vip"]["ip"].as_str()?.parse().ok()).collect()
    }

    /// Returns the fields of the authority of machine certificates: certificate, key.
    pub(crate) fn machine_authority(&self) -> Option<(&str, Option<&str>)> {
        Some((self.text("machine.ca.crt")?, self.text("machine.ca.key")))
    }

    /// Returns the fields of the Kubernetes authority: certificate, key.
    pub(crate) fn kubernetes_authority(&self) -> Option<(&str, Option<&str>)> {
        Some((self.text("cluster.ca.crt")?, self.text("cluster.ca.key")))
    }

    pub(crate) fn cluster_name(&self) -> &str {
        self.text("cluster.clusterName").unwrap_or("talos-default")
    }

    pub(crate) fn endpoint(&self) -> &str {
        self.text("cluster.controlPlane.endpoint").unwrap_or_default()
    }

    /// Returns the host of the cluster's endpoint.
    pub(crate) fn endpoint_host(&self) -> &str {
        host(self.endpoint())
    }
}

/// Returns the host of a URL, without brackets.
pub(super) fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    match authority.strip_prefix('[') {
        Some(literal) => literal.split(']').next().unwrap_or_default(),
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    }
}

fn fits(name: &str, document: &Value, minor: u32) -> Result<(), String> {
    schema::check(name, document, minor).map_err(|misfit| match misfit {
        Misfit::Unknown(unknown) => format!("unknown keys found during decoding:\n{}", yaml(&unknown)),
        Misfit::NotAList(path, text) => {
            // The line number that the real text carries is not known here.
            format!(
                "error decoding  to *v1alpha1.Config: yaml: unmarshal errors:\n  {}: cannot unmarshal !!str `{text}` into []string",
                path.join(".")
            )
        }
    })
}

/// Checks what the decoder of v1alpha1 itself refuses.
fn shape(document: &Value) -> Result<(), String> {
    let endpoint = document["cluster"]["controlPlane"]["endpoint"].as_str().unwrap_or_default();
    if !endpoint.contains("//") && endpoint.split('/').next().is_some_and(|segment| segment.contains(':')) {
        return Err(format!(
            "error decoding  to *v1alpha1.Config: parse {endpoint:?}: first path segment in URL cannot contain colon"
        ));
    }
    for authority in [&document["machine"]["ca"], &document["cluster"]["ca"], &document["cluster"]["etcd"]["ca"]] {
        for field in ["crt", "key"] {
            let text = authority[field].as_str().unwrap_or_default();
            let strange = |letter: char| !letter.is_ascii_alphanumeric() && !"+/=\r\n".contains(letter);
            if let Some(at) = text.find(strange) {
                return Err(format!("error decoding  to *v1alpha1.Config: illegal base64 data at input byte {at}"));
            }
        }
    }
    Ok(())
}

/// Writes a value as YAML the way Talos does, four spaces a level.
pub(crate) fn yaml(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

fn block(value: &Value, depth: usize, out: &mut String) {
    let indent = "    ".repeat(depth);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                out.push_str(&format!("{indent}{}:", scalar(&Value::String(key.clone()))));
                nested(value, depth, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut inner = String::new();
                block(item, depth + 1, &mut inner);
                // The dash takes the place of the first line's last level of indentation.
                let start = indent.len() + 2;
                let rest = if inner.starts_with(&" ".repeat(indent.len() + 4)) {
                    inner[indent.len() + 4..]
                        .replace(&format!("\n{}", " ".repeat(indent.len() + 4)), &format!("\n{}", " ".repeat(start)))
                } else {
                    inner
                };
                out.push_str(&format!("{indent}- {rest}"));
            }
        }
        plain => out.push_str(&format!("{indent}{}\n", scalar(plain))),
    }
}

fn nested(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            out.push('\n');
            block(value, depth + 1, out);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            block(value, depth + 1, out);
        }
        plain => out.push_str(&format!(" {}\n", scalar(plain))),
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => {
            let plain = !text.is_empty()
                && text.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_./@".contains(letter))
                && !text.starts_with(['-', '.', '@'])
                && text.parse::<f64>().is_err()
                && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
                    .contains(&text.to_ascii_lowercase().as_str());
            if plain { text.clone() } else { Value::String(text.clone()).to_string() }
        }
        Value::Object(_) => "{}".to_owned(),
        Value::Array(_) => "[]".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_that_is_written_reads_back_as_the_same_value() {
        let value = serde_json::json!({
            "a": {"b": [1, {"c": "x", "d": ["y", "12", ""]}, []], "e": {}},
            "f": "true", "g": "two words: here", "h": null, "i": [[1, 2], [3]],
        });
        let back: Value = serde_saphyr::from_str(&yaml(&value)).unwrap();
        assert_eq!(back, value, "{}", yaml(&value));
    }

    #[test]
    fn the_host_of_an_endpoint_is_without_port_and_brackets() {
        assert_eq!(host("https://10.69.1.101:6443"), "10.69.1.101");
        assert_eq!(host("https://[fd00::1]:6443/"), "fd00::1");
        assert_eq!(host("https://k8s.example.org"), "k8s.example.org");
    }
}
