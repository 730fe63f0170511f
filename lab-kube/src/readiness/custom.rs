//! Custom kinds: which condition each one must show.
//!
//! A fresh custom object has no status at all. For a kind that is known to write conditions, that means its controller
//! has not looked yet; only for an unknown kind must it mean ready.

use super::{Condition, Readiness, condition, failed, waiting};
use crate::json::{list, number, text, truth};
use serde_json::Value;

/// The conditions that must all be true. Sources: the definitions of the versions named in [`crate::kinds`], and those
/// projects' API references.
fn required(group: &str, kind: &str) -> &'static [&'static str] {
    match (group, kind) {
        ("cert-manager.io", "Certificate" | "CertificateRequest" | "Issuer" | "ClusterIssuer")
        | ("external-secrets.io", "ExternalSecret" | "ClusterExternalSecret" | "SecretStore" | "ClusterSecretStore")
        | ("helm.toolkit.fluxcd.io", "HelmRelease")
        | ("kustomize.toolkit.fluxcd.io", "Kustomization")
        | ("source.toolkit.fluxcd.io", _)
        | ("kyverno.io", "ClusterPolicy" | "Policy") => &["Ready"],
        ("bitnami.com", "SealedSecret") => &["Synced"],
        ("monitoring.coreos.com", "Prometheus" | "PrometheusAgent" | "Alertmanager" | "ThanosRuler") => {
            &["Available", "Reconciled"]
        }
        ("gateway.networking.k8s.io", "Gateway") => &["Accepted", "Programmed"],
        ("gateway.networking.k8s.io", "GatewayClass") => &["Accepted"],
        ("apiregistration.k8s.io", "APIService") => &["Available"],
        _ => &[],
    }
}

pub(super) fn custom(group: &str, kind: &str, object: &Value) -> Readiness {
    match (group, kind) {
        ("cert-manager.io", "CertificateRequest") if holds(object, "Denied") => {
            return condition(object, "Denied").map_or(Readiness::Ready, |denied| failed(denied.to_string()));
        }
        ("argoproj.io", "Application") => return application(object),
        ("argoproj.io", "Rollout") => return phase(object, &["Healthy"], &["Degraded"]),
        ("velero.io", "BackupStorageLocation") => return phase(object, &["Available"], &[]),
        ("velero.io", "Backup") => {
            return phase(object, &["Completed"], &["PartiallyFailed", "Failed", "FailedValidation"]);
        }
        ("snapshot.storage.k8s.io", "VolumeSnapshot") => return snapshot(object),
        ("gateway.networking.k8s.io", "HTTPRoute" | "GRPCRoute" | "TCPRoute" | "TLSRoute" | "UDPRoute") => {
            return route(object);
        }
        _ => {}
    }
    let required = required(group, kind);
    for name in required {
        match condition(object, name) {
            None => return waiting(format!("its controller has not said {name} yet")),
            Some(condition) if outdated(object, &condition) => {
                return waiting(format!("{name} is about an older version of it"));
            }
            Some(condition) if !condition.is("True") => return waiting(condition.to_string()),
            Some(_) => {}
        }
    }
    match condition(object, "Ready") {
        Some(ready) if required.is_empty() && !ready.is("True") => waiting(ready.to_string()),
        _ => Readiness::Ready,
    }
}

fn holds(object: &Value, name: &str) -> bool {
    condition(object, name).is_some_and(|condition| condition.is("True"))
}

/// cert-manager and the Gateway API write into each condition which generation it is about.
fn outdated(object: &Value, condition: &Condition<'_>) -> bool {
    let seen = number(condition.0, "/observedGeneration");
    seen.zip(number(object, "/metadata/generation")).is_some_and(|(seen, generation)| seen != generation)
}

fn phase(object: &Value, ready: &[&str], broken: &[&str]) -> Readiness {
    let message = || match text(object, "/status/message") {
        "" => String::new(),
        message => format!(": {}", super::pods::clip(message)),
    };
    match text(object, "/status/phase") {
        "" => waiting("its controller has not looked at it yet"),
        phase if ready.contains(&phase) => Readiness::Ready,
        phase if broken.contains(&phase) => failed(format!("{phase}{}", message())),
        phase => waiting(format!("{phase}{}", message())),
    }
}

fn application(object: &Value) -> Readiness {
    let (health, sync) = (text(object, "/status/health/status"), text(object, "/status/sync/status"));
    match (health, sync) {
        ("", _) | (_, "") => waiting("its controller has not looked at it yet"),
        ("Healthy", "Synced") => Readiness::Ready,
        ("Degraded", _) => failed(format!("Degraded, {sync}")),
        (health, sync) => waiting(format!("{health}, {sync}")),
    }
}

fn snapshot(object: &Value) -> Readiness {
    match text(object, "/status/error/message") {
        _ if truth(object, "/status/readyToUse") => Readiness::Ready,
        "" => waiting("the snapshot is not usable yet"),
        error => failed(error),
    }
}

/// Every parent of a route must accept it and find what it refers to.
fn route(object: &Value) -> Readiness {
    let parents = list(object, "/status/parents");
    if parents.len() < list(object, "/spec/parentRefs").len() || parents.is_empty() {
        return waiting("not every gateway has looked at it yet");
    }
    for parent in parents {
        for name in ["Accepted", "ResolvedRefs"] {
            let condition = list(parent, "/conditions").iter().find(|condition| text(condition, "/type") == name);
            match condition.map(Condition) {
                None => return waiting(format!("a gateway has not said {name} yet")),
                Some(condition) if outdated(object, &condition) => {
                    return waiting(format!("{name} is about an older version of it"));
                }
                Some(condition) if !condition.is("True") => return waiting(condition.to_string()),
                Some(_) => {}
            }
        }
    }
    Readiness::Ready
}

#[cfg(test)]
mod tests {
    use super::super::status;
    use super::*;
    use serde_json::json;

    fn object(api_version: &str, kind: &str, status: Value) -> Value {
        json!({"apiVersion": api_version, "kind": kind, "metadata": {"generation": 2}, "status": status})
    }

    fn conditions(pairs: &[(&str, &str)]) -> Value {
        let one =
            |(kind, status): &(&str, &str)| json!({"type": kind, "status": status, "reason": "R", "message": "m"});
        json!({"conditions": pairs.iter().map(one).collect::<Vec<_>>()})
    }

    #[test]
    fn a_fresh_object_of_a_known_kind_waits_for_its_controller() {
        for (api_version, kind, needs) in [
            ("cert-manager.io/v1", "Certificate", "Ready"),
            ("cert-manager.io/v1", "ClusterIssuer", "Ready"),
            ("external-secrets.io/v1", "ExternalSecret", "Ready"),
            ("bitnami.com/v1alpha1", "SealedSecret", "Synced"),
            ("apiregistration.k8s.io/v1", "APIService", "Available"),
        ] {
            let fresh = status(&object(api_version, kind, json!({})));
            assert_eq!(fresh, waiting(format!("its controller has not said {needs} yet")), "{kind}");
            assert_eq!(status(&object(api_version, kind, conditions(&[(needs, "False")]))), waiting("R: m"));
            assert_eq!(status(&object(api_version, kind, conditions(&[(needs, "True")]))), Readiness::Ready);
        }
    }

    #[test]
    fn every_required_condition_counts() {
        let gateway = |pairs| status(&object("gateway.networking.k8s.io/v1", "Gateway", conditions(pairs)));
        assert_eq!(gateway(&[("Accepted", "True"), ("Programmed", "False")]), waiting("R: m"));
        assert_eq!(gateway(&[("Accepted", "True"), ("Programmed", "True")]), Readiness::Ready);
    }

    #[test]
    fn a_condition_about_an_older_generation_does_not_count() {
        let mut old = object("cert-manager.io/v1", "Certificate", conditions(&[("Ready", "True")]));
        old["status"]["conditions"][0]["observedGeneration"] = json!(1);
        assert_eq!(status(&old), waiting("Ready is about an older version of it"));
    }

    #[test]
    fn an_unknown_kind_is_ready_unless_it_says_otherwise() {
        assert_eq!(status(&object("e.org/v1", "Widget", json!({}))), Readiness::Ready);
        assert_eq!(status(&object("e.org/v1", "Widget", conditions(&[("Ready", "Unknown")]))), waiting("R: m"));
    }

    #[test]
    fn kinds_that_speak_in_phases_are_read_as_they_mean_it() {
        let velero = |phase: &str| status(&object("velero.io/v1", "Backup", json!({"phase": phase})));
        assert_eq!(velero("Completed"), Readiness::Ready);
        assert_eq!(velero("PartiallyFailed"), failed("PartiallyFailed"));
        assert_eq!(velero("InProgress"), waiting("InProgress"));
        assert_eq!(velero(""), waiting("its controller has not looked at it yet"));
        let rollout = json!({"observedGeneration": "2", "phase": "Healthy"});
        assert_eq!(status(&object("argoproj.io/v1alpha1", "Rollout", rollout)), Readiness::Ready);
        let app = json!({"health": {"status": "Healthy"}, "sync": {"status": "OutOfSync"}});
        assert_eq!(status(&object("argoproj.io/v1alpha1", "Application", app)), waiting("Healthy, OutOfSync"));
        let denied = conditions(&[("Denied", "True")]);
        assert_eq!(status(&object("cert-manager.io/v1", "CertificateRequest", denied)), failed("R: m"));
    }

    #[test]
    fn a_route_needs_every_parent() {
        let parent = |resolved: &str| conditions(&[("Accepted", "True"), ("ResolvedRefs", resolved)]);
        let route =
            |parents: Value| status(&object("gateway.networking.k8s.io/v1", "HTTPRoute", json!({"parents": parents})));
        assert_eq!(route(json!([parent("True")])), Readiness::Ready);
        assert_eq!(route(json!([parent("True"), parent("False")])), waiting("R: m"));
        assert_eq!(route(json!([])), waiting("not every gateway has looked at it yet"));
    }
}
