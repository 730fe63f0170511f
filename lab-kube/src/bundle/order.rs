//! In which order the objects of a bundle come.
//!
//! Bundles are written to be applied all at once, and their parts find each other: a controller may wait for a webhook
//! configuration that another one completes, and a Deployment for a Secret that a third one writes. So what comes later
//! mostly waits for the earlier to exist, and not to be ready: waiting for that could wait for ever. What is waited for is
//! what a cluster refuses without: a namespace, and the definition of a kind.

use super::manifest::Part;
use crate::json::{list, text};
use crate::kinds::Kind;

/// A rank among the objects of a bundle. Whatever goes, goes the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// A namespace.
    Namespace,
    /// A definition of a kind.
    Definition,
    /// What pods are made with: accounts, rights, configuration.
    Ground,
    /// Pods, and what makes them.
    Workload,
    /// Everything that nobody here waits for.
    Other,
    /// What leads requests to the API back into these pods. From now on it may refuse what the cluster is asked for.
    Judge,
    /// An object of a kind that is defined here: the webhooks are there to judge it, and the pods to act on it. It also
    /// has to go before they do, or its finalizers are nobody's.
    Custom,
}

impl Rank {
    pub(super) fn of(part: &Part, defined: &[Kind]) -> Rank {
        let (api_version, kind) = (text(&part.body, "/apiVersion"), text(&part.body, "/kind"));
        if defined.iter().any(|one| one.kind == kind && one.api_version() == api_version) {
            return Rank::Custom;
        }
        match (crate::json::group(&part.body), kind) {
            ("", "Namespace") => Rank::Namespace,
            ("apiextensions.k8s.io", _) => Rank::Definition,
            ("", "ServiceAccount" | "ConfigMap" | "Secret" | "LimitRange" | "ResourceQuota")
            | ("rbac.authorization.k8s.io" | "scheduling.k8s.io" | "node.k8s.io" | "storage.k8s.io", _)
            | ("networking.k8s.io", "NetworkPolicy") => Rank::Ground,
            ("", "Pod" | "ReplicationController") | ("apps" | "batch", _) => Rank::Workload,
            ("admissionregistration.k8s.io" | "apiregistration.k8s.io", _) => Rank::Judge,
            _ => Rank::Other,
        }
    }
}

/// How one object of a bundle waits for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Until it exists.
    Created,
    /// Until it is ready.
    Ready,
}

/// Returns whether and how `later` waits for `earlier`, which has a lower rank.
pub(super) fn wait((later, rank): (&Part, Rank), (earlier, before): (&Part, Rank)) -> Option<Wait> {
    let namespace = text(&later.body, "/metadata/namespace");
    let within = |name: &str| name.is_empty() || name == namespace;
    match (rank, before) {
        (_, Rank::Namespace) => (text(&earlier.body, "/metadata/name") == namespace).then_some(Wait::Ready),
        (Rank::Workload, Rank::Definition) => Some(Wait::Ready),
        (Rank::Workload, Rank::Ground) => within(text(&earlier.body, "/metadata/namespace")).then_some(Wait::Created),
        (Rank::Judge, Rank::Definition | Rank::Ground | Rank::Workload | Rank::Other) => Some(Wait::Created),
        (Rank::Custom, Rank::Definition) => defines(earlier, later).then_some(Wait::Ready),
        (Rank::Custom, Rank::Workload) => Some(Wait::Created),
        // A webhook that cannot be reached would refuse it.
        (Rank::Custom, Rank::Judge) => Some(Wait::Ready),
        (Rank::Namespace | Rank::Definition | Rank::Ground | Rank::Workload | Rank::Other, _)
        | (Rank::Judge, Rank::Judge | Rank::Custom)
        | (Rank::Custom, Rank::Ground | Rank::Other | Rank::Custom) => None,
    }
}

fn defines(definition: &Part, object: &Part) -> bool {
    text(&definition.body, "/spec/names/kind") == text(&object.body, "/kind")
        && text(&definition.body, "/spec/group") == crate::json::group(&object.body)
        && !list(&definition.body, "/spec/versions").is_empty()
}
