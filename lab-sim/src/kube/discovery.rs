//! What the API serves, as discovery documents.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::kinds::{Kind, VERBS};
use super::store::Store;

impl Store {
    /// Returns `/api` (`core`) or `/apis`, in the older form.
    pub(crate) fn groups(&self, core: bool) -> Value {
        if core {
            return json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []});
        }
        let groups: Vec<Value> =
            self.versions().into_iter().filter(|(group, _)| !group.is_empty()).map(|(g, v)| group(&g, &v)).collect();
        json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
    }

    /// Returns `/apis/<group>`, if it is served.
    pub(crate) fn group(&self, name: &str) -> Option<Value> {
        let versions = self.versions().remove(name)?;
        let mut document = group(name, &versions);
        document["kind"] = "APIGroup".into();
        document["apiVersion"] = "v1".into();
        Some(document)
    }

    /// Returns `/api/v1` or `/apis/<group>/<version>`, if it is served.
    pub(crate) fn resources(&self, group: &str, version: &str) -> Option<Value> {
        let kinds: Vec<&Kind> =
            self.kinds.iter().filter(|kind| kind.group == group && kind.version == version).collect();
        let first = kinds.first()?;
        let resources: Vec<Value> = kinds.iter().flat_map(|kind| kind.listed()).collect();
        Some(json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": first.api_version(), "resources": resources,
        }))
    }

    /// Returns `/api` (`core`) or `/apis` with everything in it.
    pub(crate) fn aggregated(&self, core: bool) -> Value {
        let items: Vec<Value> = self
            .versions()
            .into_iter()
            .filter(|(group, _)| group.is_empty() == core)
            .map(|(group, versions)| {
                let versions: Vec<Value> = versions
                    .iter()
                    .map(|version| {
                        let kinds = self.kinds.iter().filter(|kind| kind.group == group && kind.version == *version);
                        let resources: Vec<Value> = kinds.map(aggregated).collect();
                        json!({"version": version, "freshness": "Current", "resources": resources})
                    })
                    .collect();
                let metadata = if core { json!({}) } else { json!({"name": group}) };
                json!({"metadata": metadata, "versions": versions})
            })
            .collect();
        json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
    }

    fn versions(&self) -> BTreeMap<String, Vec<String>> {
        let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for kind in &self.kinds {
            found.entry(kind.group.clone()).or_default().insert(kind.version.clone());
        }
        found.into_iter().map(|(group, versions)| (group, sorted(versions))).collect()
    }
}

// The version a client should prefer comes first: stable before beta before alpha, newer before older.
fn sorted(versions: BTreeSet<String>) -> Vec<String> {
    let rank = |version: &String| {
        let rest = version.trim_start_matches('v');
        let (major, rest) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
        let stage = if rest.is_empty() { 2 } else { u8::from(rest.starts_with("beta")) };
        let minor = rest.trim_start_matches(|c: char| c.is_ascii_alphabetic()).parse::<u32>().unwrap_or(0);
        (stage, major.parse::<u32>().unwrap_or(0), minor)
    };
    let mut versions: Vec<String> = versions.into_iter().collect();
    versions.sort_by_key(|version| std::cmp::Reverse(rank(version)));
    versions
}

fn group(name: &str, versions: &[String]) -> Value {
    let row = |version: &String| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let rows: Vec<Value> = versions.iter().map(row).collect();
    json!({"name": name, "versions": rows, "preferredVersion": versions.first().map(row)})
}

fn aggregated(kind: &Kind) -> Value {
    let response = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
    let mut entry = json!({
        "resource": kind.plural, "responseKind": response, "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular, "verbs": VERBS,
    });
    if !kind.short.is_empty() {
        entry["shortNames"] = json!(kind.short);
    }
    if !kind.categories.is_empty() {
        entry["categories"] = json!(kind.categories);
    }
    if kind.status {
        entry["subresources"] =
            json!([{"subresource": "status", "responseKind": response, "verbs": ["get", "patch", "update"]}]);
    }
    entry
}
