//! Which kinds exist: their group, version, plural and scope.
//!
//! A plural cannot be guessed (`networkpolicies`, `endpointslices`, `servicel2statuses`), so the kinds that programs
//! declare stand in a table. A kind of the user's own comes from the definition in the same program
//! ([`Kind::defined_by`]) or from the cluster ([`crate::Client::kind_of`]).

use crate::json::{list, text, truth};
use crate::key::{Key, KeyError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

/// One kind as one version of its group serves it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Kind {
    /// The group; empty for the core group.
    pub group: String,
    /// The version, `v1`.
    pub version: String,
    /// The kind, `Deployment`.
    pub kind: String,
    /// What its objects are called in a path, `deployments`.
    pub plural: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

struct Group {
    name: &'static str,
    version: &'static str,
    namespaced: &'static [(&'static str, &'static str)],
    cluster: &'static [(&'static str, &'static str)],
}

// Sources: the API reference of Kubernetes 1.34 for the built-in groups; the definitions of MetalLB 0.14.9,
// cert-manager 1.21.1, Traefik 3.7.9 and prometheus-operator 0.93.0 for the rest.
const TABLE: &[Group] = &[
    Group {
        name: "",
        version: "v1",
        namespaced: &[
            ("ConfigMap", "configmaps"),
            ("Endpoints", "endpoints"),
            ("Event", "events"),
            ("LimitRange", "limitranges"),
            ("PersistentVolumeClaim", "persistentvolumeclaims"),
            ("Pod", "pods"),
            ("PodTemplate", "podtemplates"),
            ("ReplicationController", "replicationcontrollers"),
            ("ResourceQuota", "resourcequotas"),
            ("Secret", "secrets"),
            ("Service", "services"),
            ("ServiceAccount", "serviceaccounts"),
        ],
        cluster: &[("Namespace", "namespaces"), ("Node", "nodes"), ("PersistentVolume", "persistentvolumes")],
    },
    Group {
        name: "apps",
        version: "v1",
        namespaced: &[
            ("ControllerRevision", "controllerrevisions"),
            ("DaemonSet", "daemonsets"),
            ("Deployment", "deployments"),
            ("ReplicaSet", "replicasets"),
            ("StatefulSet", "statefulsets"),
        ],
        cluster: &[],
    },
    Group { name: "batch", version: "v1", namespaced: &[("CronJob", "cronjobs"), ("Job", "jobs")], cluster: &[] },
    Group {
        name: "autoscaling",
        version: "v2",
        namespaced: &[("HorizontalPodAutoscaler", "horizontalpodautoscalers")],
        cluster: &[],
    },
    Group {
        name: "networking.k8s.io",
        version: "v1",
        namespaced: &[("Ingress", "ingresses"), ("NetworkPolicy", "networkpolicies")],
        cluster: &[("IngressClass", "ingressclasses")],
    },
    Group {
        name: "policy",
        version: "v1",
        namespaced: &[("PodDisruptionBudget", "poddisruptionbudgets")],
        cluster: &[],
    },
    Group {
        name: "rbac.authorization.k8s.io",
        version: "v1",
        namespaced: &[("Role", "roles"), ("RoleBinding", "rolebindings")],
        cluster: &[("ClusterRole", "clusterroles"), ("ClusterRoleBinding", "clusterrolebindings")],
    },
    Group {
        name: "storage.k8s.io",
        version: "v1",
        namespaced: &[("CSIStorageCapacity", "csistoragecapacities")],
        cluster: &[
            ("CSIDriver", "csidrivers"),
            ("CSINode", "csinodes"),
            ("StorageClass", "storageclasses"),
            ("VolumeAttachment", "volumeattachments"),
        ],
    },
    Group {
        name: "apiextensions.k8s.io",
        version: "v1",
        namespaced: &[],
        cluster: &[("CustomResourceDefinition", "customresourcedefinitions")],
    },
    Group { name: "apiregistration.k8s.io", version: "v1", namespaced: &[], cluster: &[("APIService", "apiservices")] },
    Group {
        name: "admissionregistration.k8s.io",
        version: "v1",
        namespaced: &[],
        cluster: &[
            ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations"),
            ("ValidatingAdmissionPolicy", "validatingadmissionpolicies"),
            ("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"),
            ("ValidatingWebhookConfiguration", "validatingwebhookconfigurations"),
        ],
    },
    Group {
        name: "scheduling.k8s.io",
        version: "v1",
        namespaced: &[],
        cluster: &[("PriorityClass", "priorityclasses")],
    },
    Group { name: "node.k8s.io", version: "v1", namespaced: &[], cluster: &[("RuntimeClass", "runtimeclasses")] },
    Group { name: "coordination.k8s.io", version: "v1", namespaced: &[("Lease", "leases")], cluster: &[] },
    Group { name: "discovery.k8s.io", version: "v1", namespaced: &[("EndpointSlice", "endpointslices")], cluster: &[] },
    Group { name: "events.k8s.io", version: "v1", namespaced: &[("Event", "events")], cluster: &[] },
    Group {
        name: "metallb.io",
        version: "v1beta1",
        namespaced: &[
            ("BFDProfile", "bfdprofiles"),
            ("BGPAdvertisement", "bgpadvertisements"),
            ("Community", "communities"),
            ("IPAddressPool", "ipaddresspools"),
            ("L2Advertisement", "l2advertisements"),
            ("ServiceL2Status", "servicel2statuses"),
        ],
        cluster: &[],
    },
    Group { name: "metallb.io", version: "v1beta2", namespaced: &[("BGPPeer", "bgppeers")], cluster: &[] },
    Group {
        name: "cert-manager.io",
        version: "v1",
        namespaced: &[
            ("Certificate", "certificates"),
            ("CertificateRequest", "certificaterequests"),
            ("Issuer", "issuers"),
        ],
        cluster: &[("ClusterIssuer", "clusterissuers")],
    },
    Group {
        name: "acme.cert-manager.io",
        version: "v1",
        namespaced: &[("Challenge", "challenges"), ("Order", "orders")],
        cluster: &[],
    },
    Group {
        name: "traefik.io",
        version: "v1alpha1",
        namespaced: &[
            ("IngressRoute", "ingressroutes"),
            ("IngressRouteTCP", "ingressroutetcps"),
            ("IngressRouteUDP", "ingressrouteudps"),
            ("Middleware", "middlewares"),
            ("MiddlewareTCP", "middlewaretcps"),
            ("ServersTransport", "serverstransports"),
            ("ServersTransportTCP", "serverstransporttcps"),
            ("TLSOption", "tlsoptions"),
            ("TLSStore", "tlsstores"),
            ("TraefikService", "traefikservices"),
        ],
        cluster: &[],
    },
    Group {
        name: "monitoring.coreos.com",
        version: "v1",
        namespaced: &[
            ("Alertmanager", "alertmanagers"),
            ("PodMonitor", "podmonitors"),
            ("Probe", "probes"),
            ("Prometheus", "prometheuses"),
            ("PrometheusRule", "prometheusrules"),
            ("ServiceMonitor", "servicemonitors"),
            ("ThanosRuler", "thanosrulers"),
        ],
        cluster: &[],
    },
    Group {
        name: "monitoring.coreos.com",
        version: "v1alpha1",
        namespaced: &[
            ("AlertmanagerConfig", "alertmanagerconfigs"),
            ("PrometheusAgent", "prometheusagents"),
            ("ScrapeConfig", "scrapeconfigs"),
        ],
        cluster: &[],
    },
];

fn table() -> impl Iterator<Item = Kind> {
    TABLE.iter().flat_map(|group| {
        let row = |namespaced| {
            move |&(kind, plural): &(&str, &str)| Kind {
                group: group.name.to_owned(),
                version: group.version.to_owned(),
                kind: kind.to_owned(),
                plural: plural.to_owned(),
                namespaced,
            }
        };
        group.namespaced.iter().map(row(true)).chain(group.cluster.iter().map(row(false)))
    })
}

/// Returns a kind of the table, in the version that is asked for.
pub fn known(api_version: &str, kind: &str) -> Option<Kind> {
    table().find(|row| row.kind == kind && row.api_version() == api_version)
}

/// Returns a kind of the table in whatever version stands there: for an identity, which names none.
pub fn of_group(group: &str, kind: &str) -> Option<Kind> {
    table().find(|row| row.kind == kind && row.group == group)
}

impl Kind {
    /// Returns group and version as an object states them: `apps/v1`, `v1`.
    pub fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// Returns the kinds that a serialised CustomResourceDefinition defines: one for each version that is served, the
    /// stored one first.
    pub fn defined_by(definition: &Value) -> Vec<Kind> {
        let kind = |version: &Value| Kind {
            group: text(definition, "/spec/group").to_owned(),
            version: text(version, "/name").to_owned(),
            kind: text(definition, "/spec/names/kind").to_owned(),
            plural: text(definition, "/spec/names/plural").to_owned(),
            namespaced: text(definition, "/spec/scope") != "Cluster",
        };
        let mut served: Vec<&Value> =
            list(definition, "/spec/versions").iter().filter(|version| truth(version, "/served")).collect();
        served.sort_by_key(|version| !truth(version, "/storage"));
        served.into_iter().map(kind).collect()
    }

    /// Checks that a key has a namespace exactly when its kind lives in one.
    ///
    /// There is no default namespace: what a forgotten one would mean depends on a kubeconfig.
    ///
    /// # Errors
    ///
    /// A namespace that is missing or too much.
    pub fn check(&self, key: &Key) -> Result<(), KeyError> {
        let complain = |name: &str, rule: &str| {
            Err(KeyError::Name {
                what: "namespace",
                kind: self.kind.clone(),
                name: name.to_owned(),
                rule: rule.to_owned(),
            })
        };
        match (&key.namespace, self.namespaced) {
            (None, true) => complain("", "is missing: its objects live in namespaces"),
            (Some(namespace), false) => complain(namespace, "is too much: its objects belong to the whole cluster"),
            _ => key.check(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.api_version(), self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeSet;

    #[test]
    fn the_table_names_every_kind_once() {
        let names: Vec<String> = table().map(|kind| kind.to_string()).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }

    #[test]
    fn a_kind_is_found_by_version_and_by_group() {
        let plural = |api_version: &str, kind: &str| known(api_version, kind).map(|kind| kind.plural);
        assert_eq!(plural("networking.k8s.io/v1", "NetworkPolicy").as_deref(), Some("networkpolicies"));
        assert_eq!(plural("v1", "Namespace").as_deref(), Some("namespaces"));
        assert_eq!(plural("apps/v1beta1", "Deployment"), None);
        assert_eq!(of_group("metallb.io", "BGPPeer").unwrap().version, "v1beta2");
        assert_eq!(of_group("", "Deployment"), None);
    }

    #[test]
    fn the_definitions_we_ship_agree_with_the_table() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crds");
        let mut seen = 0;
        for entry in std::fs::read_dir(dir).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            for kind in Kind::defined_by(&serde_saphyr::from_str(&text).unwrap()) {
                assert_eq!(known(&kind.api_version(), &kind.kind), Some(kind));
                seen += 1;
            }
        }
        assert_eq!(seen, 8);
    }

    #[test]
    fn a_definition_yields_its_served_versions_stored_first() {
        let definition = json!({"spec": {"group": "example.org", "scope": "Cluster",
            "names": {"kind": "Widget", "plural": "widgets"},
            "versions": [{"name": "v1alpha1", "served": false, "storage": false},
                         {"name": "v1beta1", "served": true, "storage": false},
                         {"name": "v1", "served": true, "storage": true}]}});
        let names: Vec<String> = Kind::defined_by(&definition).iter().map(Kind::to_string).collect();
        assert_eq!(names, ["example.org/v1/Widget", "example.org/v1beta1/Widget"]);
    }

    #[test]
    fn a_namespace_that_is_missing_or_too_much_is_refused() {
        let check = |text: &str| {
            let key: Key = text.parse().unwrap();
            known(&key.api_version, &key.kind).unwrap().check(&key).map_err(|error| error.to_string())
        };
        assert_eq!(check("v1/Pod media/plex"), Ok(()));
        assert!(check("v1/Pod plex").unwrap_err().contains("is missing"));
        assert!(check("v1/Namespace media/plex").unwrap_err().contains("belong to the whole cluster"));
    }
}
