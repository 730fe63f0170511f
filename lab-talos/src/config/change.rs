//! What a new configuration changes on a running machine, and whether the machine must reboot for it.
//!
//! The rule is Talos' own: a list of fields that are applied at once, and a reboot for everything else. The machine
//! decides in the end; here the plan can say it before there is a machine to ask.

use super::identity;
use crate::yaml::Yaml;
use std::collections::BTreeSet;

/// One place where two configurations differ.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Changed {
    /// The document, as [`identity`] names it: empty for the main one.
    pub document: String,
    /// The place in the document, as a JSON pointer; empty for a document that came or went as a whole.
    pub path: String,
    /// Whether the machine reboots to apply it.
    pub reboot: bool,
}

const IMMEDIATE: &[&str] = &[
    "debug",
    "cluster",
    "machine/ca",
    "machine/acceptedCAs",
    "machine/time",
    "machine/certSANs",
    "machine/install",
    "machine/network",
    "machine/sysfs",
    "machine/sysctls",
    "machine/logging",
    "machine/controlPlane",
    "machine/kubelet",
    "machine/kernel",
    "machine/registries",
    "machine/pods",
    "machine/seccompProfiles",
    "machine/nodeAnnotations",
    "machine/nodeLabels",
    "machine/nodeTaints",
    "machine/features/kubernetesTalosAPIAccess",
    "machine/features/kubePrism",
    "machine/features/hostDNS",
    "machine/features/imageCache",
    "machine/features/nodeAddressSortAlgorithm",
];

/// Returns every difference between two configurations, in order of document and path.
///
/// Lists are compared as a whole, the order of keys does not count, and neither does a key without a value: an empty
/// map, list or string says the same as its absence, as it does for Talos.
pub fn changes(old: &[Yaml], new: &[Yaml]) -> Vec<Changed> {
    let identities: BTreeSet<String> = old.iter().chain(new).map(identity).collect();
    let mut changed = Vec::new();
    for name in identities {
        let find = |documents: &[Yaml]| documents.iter().find(|document| identity(document) == name).cloned();
        let (old, new) = (find(old), find(new));
        if name.is_empty() {
            compare(&mut Vec::new(), old.as_ref(), new.as_ref(), &mut |path| {
                changed.push(at(&name, path, reboots(path)))
            });
        } else if old.is_none() || new.is_none() {
            changed.push(at(&name, &[], false));
        } else {
            compare(&mut Vec::new(), old.as_ref(), new.as_ref(), &mut |path| changed.push(at(&name, path, false)));
        }
    }
    changed
}

fn at(document: &str, path: &[String], reboot: bool) -> Changed {
    let path = path.iter().map(|key| format!("/{}", key.replace('~', "~0").replace('/', "~1"))).collect();
    Changed { document: document.to_owned(), path, reboot }
}

fn reboots(path: &[String]) -> bool {
    !IMMEDIATE.iter().any(|immediate| {
        let immediate: Vec<&str> = immediate.split('/').collect();
        path.len() >= immediate.len() && path.iter().zip(immediate).all(|(key, other)| key == other)
    })
}

fn is_empty(node: Option<&Yaml>) -> bool {
    match node {
        None | Some(Yaml::Null) => true,
        Some(Yaml::Text(text)) => text.is_empty(),
        Some(Yaml::List(items)) => items.is_empty(),
        Some(Yaml::Map(entries)) => entries.iter().all(|(_, value)| is_empty(Some(value))),
        Some(Yaml::Bool(_) | Yaml::Int(_) | Yaml::Float(_)) => false,
    }
}

fn compare(path: &mut Vec<String>, old: Option<&Yaml>, new: Option<&Yaml>, report: &mut impl FnMut(&[String])) {
    let entries = |node: Option<&Yaml>| match node {
        Some(Yaml::Map(entries)) => Some(entries.iter().map(|(key, _)| key.clone()).collect::<BTreeSet<_>>()),
        node if is_empty(node) => Some(BTreeSet::new()),
        _ => None,
    };
    match (entries(old), entries(new)) {
        (Some(a), Some(b)) => {
            for key in a.union(&b) {
                // A label without a value differs from no label, unlike an empty part of the schema.
                let labels =
                    matches!(path.last().map(String::as_str), Some("nodeLabels" | "nodeAnnotations" | "nodeTaints"));
                let (old, new) = (old.and_then(|node| node.at(&[key])), new.and_then(|node| node.at(&[key])));
                path.push(key.clone());
                if labels && old.is_some() != new.is_some() {
                    report(path);
                } else {
                    compare(path, old, new, report);
                }
                path.pop();
            }
        }
        _ if !same(old, new) => report(path),
        _ => {}
    }
}

/// Compares two nodes whose keys may stand in different orders.
fn same(old: Option<&Yaml>, new: Option<&Yaml>) -> bool {
    match (old, new) {
        (Some(Yaml::List(a)), Some(Yaml::List(b))) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(Some(a), Some(b)))
        }
        (Some(Yaml::Map(_)), Some(Yaml::Map(_))) => {
            let mut equal = true;
            compare(&mut Vec::new(), old, new, &mut |_| equal = false);
            equal
        }
        (old, new) => old == new || is_empty(old) && is_empty(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const BASE: &str = include_str!("../../tests/vectors/controlplane.yaml");

    fn check(edit: impl Fn(&str) -> String, expected: &[(&str, &str, bool)]) {
        let changed = changes(&parse(BASE).unwrap(), &parse(&edit(BASE)).unwrap());
        let changed: Vec<_> = changed.iter().map(|c| (&*c.document, &*c.path, c.reboot)).collect();
        assert_eq!(changed, expected);
    }

    #[test]
    fn the_same_configuration_changes_nothing() {
        check(str::to_owned, &[]);
        // Nor does an explicit empty part, nor another order.
        check(|base| base.replace("    certSANs: []\n", ""), &[]);
        check(|base| base.replacen("debug: false\npersist: true\n", "persist: true\ndebug: false\n", 1), &[]);
    }

    #[test]
    fn most_of_the_machine_and_all_of_the_cluster_apply_at_once() {
        check(|base| base.replace("kubelet:v1.34.1", "kubelet:v1.34.2"), &[("", "/machine/kubelet/image", false)]);
        check(|base| base.replace("/dev/sda", "/dev/sdb"), &[("", "/machine/install/disk", false)]);
        check(|base| base.replace("clusterName: vec", "clusterName: x"), &[("", "/cluster/clusterName", false)]);
        check(|base| base.replace("port: 7445", "port: 7446"), &[("", "/machine/features/kubePrism/port", false)]);
        let label = "node.kubernetes.io/exclude-from-external-load-balancers";
        let path = "/machine/nodeLabels/node.kubernetes.io~1exclude-from-external-load-balancers";
        check(|base| base.replace(&format!("        {label}: \"\"\n"), ""), &[("", path, false)]);
        check(
            |base| base.replace("network: {}", "network:\n        interfaces:\n            - interface: eth0"),
            &[("", "/machine/network/interfaces", false)],
        );
    }

    #[test]
    fn everything_else_needs_a_reboot() {
        check(|base| base.replace("type: controlplane", "type: worker"), &[("", "/machine/type", true)]);
        check(|base| base.replace("rbac: true", "rbac: false"), &[("", "/machine/features/rbac", true)]);
        check(|base| base.replace("persist: true", "persist: false"), &[("", "/persist", true)]);
        check(
            |base| base.replace("    certSANs: []\n", "    certSANs: []\n    env:\n        A: b\n"),
            &[("", "/machine/env/A", true)],
        );
    }

    #[test]
    fn other_documents_apply_at_once() {
        let volume =
            "---\napiVersion: v1alpha1\nkind: VolumeConfig\nname: EPHEMERAL\nprovisioning:\n    maxSize: 10GB\n";
        check(|base| format!("{base}{volume}"), &[("VolumeConfig/EPHEMERAL", "", false)]);
        let old = parse(&format!("{BASE}{volume}")).unwrap();
        let new = parse(&format!("{BASE}{volume}").replace("10GB", "20GB")).unwrap();
        let changed = changes(&old, &new);
        assert_eq!(changed.len(), 1);
        assert_eq!(changed[0].path, "/provisioning/maxSize");
        assert!(!changed[0].reboot);
    }
}
