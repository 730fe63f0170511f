//! The kinds that the API serves: the built-in table, and those that definitions add.

use serde_json::{Value, json};

use super::refusal::About;
use super::schema::{self, Schema};

/// A kind in one version.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) short: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    /// Whether status is a subresource, written apart.
    pub(crate) status: bool,
    /// Whether the kind counts the generations of its spec.
    pub(crate) generation: bool,
    /// Whether a replace without a resourceVersion is taken.
    pub(crate) unconditional: bool,
    /// The schema of a custom resource.
    pub(crate) custom: Option<Value>,
}

impl Kind {
    /// Returns `v1`, `apps/v1`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Returns what the store files the kind's objects under, in any version: `deployments.apps`.
    pub(crate) fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    pub(crate) fn about(&self) -> About<'_> {
        About { group: &self.group, kind: &self.kind, plural: &self.plural }
    }

    pub(crate) fn schema(&self) -> Schema<'_> {
        match &self.custom {
            Some(node) => Schema::of(node),
            None => Schema::builtin(&self.api_version(), &self.kind).unwrap_or(Schema::anything()),
        }
    }

    pub(crate) fn is(&self, group: &str, kind: &str) -> bool {
        self.group == group && self.kind == kind
    }

    /// Returns the entry of a discovery document (`APIResourceList`).
    pub(crate) fn listed(&self) -> Vec<Value> {
        let mut entry = json!({
            "name": self.plural, "singularName": self.singular, "namespaced": self.namespaced, "kind": self.kind,
            "verbs": VERBS, "storageVersionHash": "",
        });
        entry.as_object_mut().expect("an object").remove("storageVersionHash");
        if !self.short.is_empty() {
            entry["shortNames"] = json!(self.short);
        }
        if !self.categories.is_empty() {
            entry["categories"] = json!(self.categories);
        }
        let mut entries = vec![entry];
        if self.status {
            entries.push(json!({
                "name": format!("{}/status", self.plural), "singularName": "", "namespaced": self.namespaced,
                "kind": self.kind, "verbs": ["get", "patch", "update"],
            }));
        }
        entries
    }

    /// Returns the kinds that a CustomResourceDefinition serves, one a version.
    pub(crate) fn defined_by(definition: &Value) -> Vec<Kind> {
        let spec = &definition["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let texts = |value: &Value| -> Vec<String> { value.as_array().into_iter().flatten().map(text).collect() };
        let versions = spec["versions"].as_array().into_iter().flatten();
        versions
            .filter(|version| version["served"] == true)
            .map(|version| Kind {
                group: text(&spec["group"]),
                version: text(&version["name"]),
                kind: text(&spec["names"]["kind"]),
                plural: text(&spec["names"]["plural"]),
                singular: text(&spec["names"]["singular"]),
                short: texts(&spec["names"]["shortNames"]),
                categories: texts(&spec["names"]["categories"]),
                namespaced: spec["scope"] == "Namespaced",
                status: version["subresources"]["status"].is_object(),
                generation: true,
                unconditional: false,
                custom: Some(schema::custom(&version["schema"]["openAPIV3Schema"])),
            })
            .collect()
    }
}

/// The verbs of every kind.
pub(crate) const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

// Group, version, kind, plural, short name, and flags: n(amespaced), s(tatus), g(eneration), c(onditional update only).
const TABLE: &[(&str, &str, &str, &str, &str, &str)] = &[
    ("", "v1", "ConfigMap", "configmaps", "cm", "n"),
    ("", "v1", "Endpoints", "endpoints", "ep", "n"),
    ("", "v1", "Event", "events", "ev", "n"),
    ("", "v1", "LimitRange", "limitranges", "limits", "n"),
    ("", "v1", "Namespace", "namespaces", "ns", "s"),
    ("", "v1", "Node", "nodes", "no", "s"),
    ("", "v1", "PersistentVolume", "persistentvolumes", "pv", "s"),
    ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", "pvc", "ns"),
    ("", "v1", "Pod", "pods", "po", "nsg"),
    ("", "v1", "ResourceQuota", "resourcequotas", "quota", "ns"),
    ("", "v1", "Secret", "secrets", "", "n"),
    ("", "v1", "Service", "services", "svc", "ns"),
    ("", "v1", "ServiceAccount", "serviceaccounts", "sa", "n"),
    ("admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", "", "gc"),
    (
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        "",
        "gc",
    ),
    ("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", "crd", "sgc"),
    ("apps", "v1", "DaemonSet", "daemonsets", "ds", "nsg"),
    ("apps", "v1", "Deployment", "deployments", "deploy", "nsg"),
    ("apps", "v1", "ReplicaSet", "replicasets", "rs", "nsg"),
    ("apps", "v1", "StatefulSet", "statefulsets", "sts", "nsg"),
    ("batch", "v1", "Job", "jobs", "", "nsg"),
    ("coordination.k8s.io", "v1", "Lease", "leases", "", "nc"),
    ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", "", "ng"),
    ("networking.k8s.io", "v1", "Ingress", "ingresses", "ing", "nsg"),
    ("networking.k8s.io", "v1", "IngressClass", "ingressclasses", "", "g"),
    ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", "netpol", "ng"),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", "pdb", "nsgc"),
    ("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", "", ""),
    ("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", "", ""),
    ("rbac.authorization.k8s.io", "v1", "Role", "roles", "", "n"),
    ("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", "", "n"),
    ("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", "pc", "g"),
    ("storage.k8s.io", "v1", "CSIDriver", "csidrivers", "", "c"),
    ("storage.k8s.io", "v1", "CSINode", "csinodes", "", "c"),
    ("storage.k8s.io", "v1", "StorageClass", "storageclasses", "sc", ""),
];

/// Returns the built-in kinds.
pub(crate) fn builtin() -> Vec<Kind> {
    let row = |(group, version, kind, plural, short, flags): &(&str, &str, &str, &str, &str, &str)| Kind {
        group: (*group).into(),
        version: (*version).into(),
        kind: (*kind).into(),
        plural: (*plural).into(),
        singular: kind.to_lowercase(),
        short: if short.is_empty() { Vec::new() } else { vec![(*short).into()] },
        categories: Vec::new(),
        namespaced: flags.contains('n'),
        status: flags.contains('s'),
        generation: flags.contains('g'),
        unconditional: !flags.contains('c'),
        custom: None,
    };
    TABLE.iter().map(row).collect()
}
