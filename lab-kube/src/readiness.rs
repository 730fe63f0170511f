//! When an object is ready: pure rules over what the API server returns.
//!
//! The rules are kstatus' (github.com/kubernetes-sigs/cli-utils, `pkg/kstatus/status`), stricter where an object would
//! count as ready before its controller has looked at it. How long to wait is not decided here.

mod custom;
mod pods;
mod workload;

use crate::json::{count, group, list, number, text, truth};
use serde_json::Value;
use std::fmt;

/// How long a [`Readiness::Failed`] should last before it is believed, in seconds: a container that crashes until its
/// database is up has failed only if it goes on.
pub const GRACE_SECONDS: u64 = 60;

/// Whether an object is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It is.
    Ready,
    /// Not yet.
    Waiting {
        /// What it waits for, for a person.
        reason: String,
    },
    /// It says of itself that it will not be; see [`GRACE_SECONDS`].
    Failed {
        /// Why, for a person.
        reason: String,
    },
    /// It is being deleted.
    Terminating {
        /// What the deletion waits for, for a person.
        reason: String,
    },
}

/// What explains an object's state besides itself. All of it is optional: without it the verdict is the same, except
/// for a claim whose class waits for its first pod, but the reason says less.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Related {
    /// The pods of a workload.
    pub pods: Vec<Value>,
    /// Events about the object and its pods, of either API group.
    pub events: Vec<Value>,
    /// The StorageClass of a claim.
    pub storage_class: Option<Value>,
}

/// Returns whether an object is ready, judged by itself alone.
pub fn status(object: &Value) -> Readiness {
    status_with(object, &Related::default())
}

/// Returns whether an object is ready, and if not, what its pods and events say about it.
pub fn status_with(object: &Value, related: &Related) -> Readiness {
    let explain = |reason: String| pods::explain(reason, object, related);
    match judge(object, related) {
        Readiness::Waiting { reason } => Readiness::Waiting { reason: explain(reason) },
        Readiness::Failed { reason } => Readiness::Failed { reason: explain(reason) },
        other @ (Readiness::Ready | Readiness::Terminating { .. }) => other,
    }
}

fn judge(object: &Value, related: &Related) -> Readiness {
    if let Some(decided) = generic(object) {
        return decided;
    }
    match (group(object), text(object, "/kind")) {
        ("apps", "Deployment") => workload::deployment(object),
        ("apps", "StatefulSet") => workload::stateful_set(object),
        ("apps", "DaemonSet") => workload::daemon_set(object),
        ("apps", "ReplicaSet") => workload::replica_set(object),
        ("batch", "Job") => workload::job(object),
        ("", "Pod") => pods::pod(object),
        ("", "PersistentVolumeClaim") => claim(object, related),
        ("", "Service") => service(object),
        ("", "Namespace") => namespace(object),
        ("", "ResourceQuota") => match object.pointer("/status/hard") {
            Some(_) => Readiness::Ready,
            None => waiting("the quota is not counted yet"),
        },
        // Objects that only configure something. Some have a Ready-like condition that means another thing.
        ("batch", "CronJob")
        | ("", "ConfigMap" | "Secret" | "ServiceAccount" | "LimitRange" | "PersistentVolume")
        | ("autoscaling" | "policy" | "networking.k8s.io" | "storage.k8s.io" | "rbac.authorization.k8s.io", _) => {
            Readiness::Ready
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition(object),
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration") => {
            webhooks(object)
        }
        (group, kind) => custom::custom(group, kind, object),
    }
}

pub(crate) fn waiting(reason: impl Into<String>) -> Readiness {
    Readiness::Waiting { reason: reason.into() }
}

pub(crate) fn failed(reason: impl Into<String>) -> Readiness {
    Readiness::Failed { reason: reason.into() }
}

/// One entry of `status.conditions`.
pub(crate) struct Condition<'a>(&'a Value);

impl Condition<'_> {
    pub(crate) fn is(&self, status: &str) -> bool {
        text(self.0, "/status") == status
    }

    pub(crate) fn reason(&self) -> &str {
        text(self.0, "/reason")
    }
}

impl fmt::Display for Condition<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, reason, message) = (text(self.0, "/type"), text(self.0, "/reason"), text(self.0, "/message"));
        match (reason, message) {
            ("", "") => write!(f, "{kind} is {}", text(self.0, "/status")),
            (reason, "") => f.write_str(reason),
            ("", message) => f.write_str(&pods::clip(message)),
            (reason, message) => write!(f, "{reason}: {}", pods::clip(message)),
        }
    }
}

pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<Condition<'a>> {
    let conditions = list(object, "/status/conditions");
    conditions.iter().find(|condition| text(condition, "/type") == kind).map(Condition)
}

/// The checks that hold for every kind and decide alone.
fn generic(object: &Value) -> Option<Readiness> {
    if !text(object, "/metadata/deletionTimestamp").is_empty() {
        return Some(Readiness::Terminating { reason: terminating(object) });
    }
    if let (Some(seen), Some(generation)) = (observed(object), number(object, "/metadata/generation"))
        && seen != generation
    {
        return Some(waiting("its controller has not seen the change yet"));
    }
    if let Some(condition) = condition(object, "Reconciling").filter(|condition| condition.is("True")) {
        return Some(waiting(condition.to_string()));
    }
    condition(object, "Stalled").filter(|condition| condition.is("True")).map(|condition| failed(condition.to_string()))
}

/// The generation that the controller has seen; Argo Rollouts writes it as a string.
pub(crate) fn observed(object: &Value) -> Option<i64> {
    let seen = object.pointer("/status/observedGeneration")?;
    seen.as_i64().or_else(|| seen.as_str()?.parse().ok())
}

fn terminating(object: &Value) -> String {
    // A namespace says in conditions what is left in it, and that is worth more than its own finalizer.
    let left: Vec<String> =
        ["NamespaceContentRemaining", "NamespaceFinalizersRemaining", "NamespaceDeletionContentFailure"]
            .iter()
            .filter_map(|kind| condition(object, kind).filter(|condition| condition.is("True")))
            .map(|condition| condition.to_string())
            .collect();
    if !left.is_empty() {
        return left.join("; ");
    }
    let names = |path: &str| list(object, path).iter().filter_map(Value::as_str).collect::<Vec<_>>();
    let mut finalizers = names("/metadata/finalizers");
    finalizers.extend(names("/spec/finalizers"));
    match finalizers.as_slice() {
        [] => "it is being deleted".into(),
        some => format!("its deletion waits for {}", some.join(", ")),
    }
}

fn claim(object: &Value, related: &Related) -> Readiness {
    match text(object, "/status/phase") {
        "Bound" => Readiness::Ready,
        "Lost" => failed("the volume behind the claim is gone"),
        _ => {
            let class = related.storage_class.as_ref();
            let by_class = class.is_some_and(|class| text(class, "/volumeBindingMode") == "WaitForFirstConsumer");
            let by_event = related.events.iter().any(|event| text(event, "/reason") == "WaitForFirstConsumer");
            // Its pod may wait for it, and it for the pod: waiting here would be waiting for ever.
            if by_class || by_event { Readiness::Ready } else { waiting("no volume is bound to the claim yet") }
        }
    }
}

fn service(object: &Value) -> Readiness {
    if text(object, "/spec/type") != "LoadBalancer" {
        return Readiness::Ready;
    }
    let addresses = list(object, "/status/loadBalancer/ingress");
    let named = |address: &Value| !text(address, "/ip").is_empty() || !text(address, "/hostname").is_empty();
    if !addresses.is_empty() && addresses.iter().all(named) {
        return Readiness::Ready;
    }
    waiting("no address from a load balancer yet: is there a pool with a free one?")
}

fn namespace(object: &Value) -> Readiness {
    match text(object, "/status/phase") {
        "Active" => Readiness::Ready,
        "Terminating" => Readiness::Terminating { reason: terminating(object) },
        _ => waiting("the namespace is not active yet"),
    }
}

/// Established; that its objects can be listed is asked of the server ([`crate::Client::listable`]).
fn definition(object: &Value) -> Readiness {
    if let Some(refused) = condition(object, "NamesAccepted").filter(|condition| condition.is("False")) {
        return failed(refused.to_string());
    }
    match condition(object, "Established") {
        Some(established) if established.is("True") => Readiness::Ready,
        Some(condition) if condition.is("False") && condition.reason() != "Installing" => failed(condition.to_string()),
        _ => waiting("the kind is not established yet"),
    }
}

fn webhooks(object: &Value) -> Readiness {
    // Only what is called through a Service needs a bundle of its own; a URL may be trusted publicly.
    let untrusted = list(object, "/webhooks").iter().find(|hook| {
        hook.pointer("/clientConfig/service").is_some() && text(hook, "/clientConfig/caBundle").is_empty()
    });
    match untrusted {
        Some(hook) => waiting(format!("the webhook {} has no caBundle yet", text(hook, "/name"))),
        None => Readiness::Ready,
    }
}

/// Returns whether a webhook's Service can answer: some EndpointSlice of it has a ready endpoint.
pub fn has_endpoint(slices: &[Value]) -> Readiness {
    // An endpoint that does not say is ready (discovery.k8s.io/v1, EndpointConditions).
    let ready = |endpoint: &Value| {
        endpoint.pointer("/conditions/ready").is_none_or(Value::is_null) || truth(endpoint, "/conditions/ready")
    };
    let all = || slices.iter().flat_map(|slice| list(slice, "/endpoints"));
    if all().any(ready) {
        return Readiness::Ready;
    }
    match all().count() {
        0 => waiting("the service has no endpoints"),
        some => waiting(format!("none of {} is ready", count(some as i64, "endpoint"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Checks an object: whether it is ready, and part of the reason if not.
    fn check(object: &Value, expected: &str, part: &str) {
        let (state, reason) = match status(object) {
            Readiness::Ready => ("ready", String::new()),
            Readiness::Waiting { reason } => ("waiting", reason),
            Readiness::Failed { reason } => ("failed", reason),
            Readiness::Terminating { reason } => ("terminating", reason),
        };
        assert_eq!(state, expected, "{reason} {object}");
        assert!(reason.contains(part), "{reason:?} lacks {part:?}");
    }

    fn object(api_version: &str, kind: &str, status: Value) -> Value {
        json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}, "status": status})
    }

    #[test]
    fn an_object_that_is_being_deleted_says_what_holds_it() {
        let mut object = object("v1", "ConfigMap", json!({}));
        object["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a.org/b"]});
        check(&object, "terminating", "waits for a.org/b");
    }

    #[test]
    fn a_namespace_that_goes_says_what_is_left_in_it() {
        let conditions = json!([{"type": "NamespaceContentRemaining", "status": "True", "reason": "SomeResourcesRemain",
            "message": "Some resources are remaining: pods. has 1 resource instances"}]);
        let mut object = object("v1", "Namespace", json!({"phase": "Terminating", "conditions": conditions}));
        object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        object["spec"] = json!({"finalizers": ["kubernetes"]});
        check(&object, "terminating", "pods. has 1 resource");
        check(&self::object("v1", "Namespace", json!({"phase": "Active"})), "ready", "");
        check(&self::object("v1", "Namespace", json!({})), "waiting", "not active");
    }

    #[test]
    fn a_change_that_the_controller_has_not_seen_is_not_ready() {
        let mut object = object(
            "example.org/v1",
            "Widget",
            json!({"observedGeneration": 1,
            "conditions": [{"type": "Ready", "status": "True"}]}),
        );
        object["metadata"]["generation"] = json!(2);
        check(&object, "waiting", "has not seen the change");
        object["status"]["observedGeneration"] = json!(2);
        check(&object, "ready", "");
    }

    #[test]
    fn stalled_is_failed_and_reconciling_is_waiting() {
        let with = |kind: &str| {
            object(
                "e.org/v1",
                "W",
                json!({"conditions": [{"type": kind, "status": "True", "reason": "R", "message": "m"}]}),
            )
        };
        check(&with("Stalled"), "failed", "R: m");
        check(&with("Reconciling"), "waiting", "R: m");
    }

    #[test]
    fn a_load_balancer_is_ready_when_it_has_an_address() {
        let service = |kind: &str, ingress: Value| {
            json!({"apiVersion": "v1", "kind": "Service", "spec": {"type": kind, "clusterIP": "10.96.0.9"},
                "status": {"loadBalancer": {"ingress": ingress}}})
        };
        check(&service("LoadBalancer", json!([])), "waiting", "no address");
        check(&service("LoadBalancer", json!([{"ip": ""}])), "waiting", "no address");
        check(&service("LoadBalancer", json!([{"ip": "10.69.1.200"}])), "ready", "");
        check(&service("LoadBalancer", json!([{"hostname": "lb"}])), "ready", "");
        check(&service("ClusterIP", json!([])), "ready", "");
    }

    #[test]
    fn the_reason_quotes_the_newest_warning() {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "plex", "uid": "u"},
            "spec": {"type": "LoadBalancer"}});
        let event = |kind: &str, at: &str, message: &str| {
            json!({"type": kind, "reason": "AllocationFailed", "message": message, "lastTimestamp": at,
                "involvedObject": {"uid": "u"}})
        };
        let related = Related {
            events: vec![
                event("Warning", "2026-01-01T00:00:02Z", "no available IPs"),
                event("Warning", "2026-01-01T00:00:01Z", "old"),
                event("Normal", "2026-01-01T00:00:03Z", "fine"),
            ],
            ..Related::default()
        };
        let Readiness::Waiting { reason } = status_with(&service, &related) else { panic!() };
        assert!(reason.ends_with("; AllocationFailed: no available IPs"), "{reason}");
    }

    #[test]
    fn a_claim_waits_for_its_volume_unless_its_class_waits_for_a_pod() {
        let claim = |phase: &str| object("v1", "PersistentVolumeClaim", json!({"phase": phase}));
        check(&claim("Bound"), "ready", "");
        check(&claim("Pending"), "waiting", "no volume is bound");
        check(&claim("Lost"), "failed", "is gone");
        let class = Some(json!({"volumeBindingMode": "WaitForFirstConsumer"}));
        let related = Related { storage_class: class, ..Related::default() };
        assert_eq!(status_with(&claim("Pending"), &related), Readiness::Ready);
        let related = Related { events: vec![json!({"reason": "WaitForFirstConsumer"})], ..Related::default() };
        assert_eq!(status_with(&claim("Pending"), &related), Readiness::Ready);
    }

    #[test]
    fn a_definition_is_ready_when_it_is_established() {
        let with = |kind: &str, status: &str, reason: &str| {
            let conditions = json!([{"type": kind, "status": status, "reason": reason, "message": "m"}]);
            object("apiextensions.k8s.io/v1", "CustomResourceDefinition", json!({"conditions": conditions}))
        };
        check(&with("Established", "True", "InitialNamesAccepted"), "ready", "");
        check(&with("Established", "False", "Installing"), "waiting", "");
        check(&with("Established", "False", "NotAccepted"), "failed", "NotAccepted: m");
        check(&with("NamesAccepted", "False", "MultipleConflicts"), "failed", "MultipleConflicts");
        check(&object("apiextensions.k8s.io/v1", "CustomResourceDefinition", json!({})), "waiting", "");
    }

    #[test]
    fn a_webhook_waits_for_the_bundle_of_every_service() {
        let hooks = |bundle: &str| {
            json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "webhooks": [
                {"name": "a", "clientConfig": {"url": "https://x"}},
                {"name": "b", "clientConfig": {"service": {"name": "s"}, "caBundle": bundle}}]})
        };
        check(&hooks(""), "waiting", "the webhook b has no caBundle");
        check(&hooks("Q0E="), "ready", "");
    }

    #[test]
    fn a_service_answers_when_an_endpoint_is_ready() {
        assert!(matches!(has_endpoint(&[]), Readiness::Waiting { .. }));
        let slice = |ready: Value| [json!({"endpoints": [{"conditions": {"ready": ready}}]})];
        assert!(matches!(has_endpoint(&slice(json!(false))), Readiness::Waiting { .. }));
        assert_eq!(has_endpoint(&slice(json!(true))), Readiness::Ready);
        assert_eq!(has_endpoint(&slice(Value::Null)), Readiness::Ready);
    }

    #[test]
    fn what_only_configures_is_ready_at_once() {
        for (api_version, kind) in [
            ("v1", "ConfigMap"),
            ("rbac.authorization.k8s.io/v1", "ClusterRole"),
            ("storage.k8s.io/v1", "StorageClass"),
            ("networking.k8s.io/v1", "Ingress"),
            ("metallb.io/v1beta1", "IPAddressPool"),
        ] {
            check(&object(api_version, kind, json!({})), "ready", "");
        }
    }
}
