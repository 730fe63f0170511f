//! What a change interrupts and what a deletion destroys, in words for the plan.

use crate::body::plain;
use crate::immutable::Verdict;
use crate::json::{count, group, number, text};
use serde_json::Value;

/// Returns what runs now and stops, for a moment or for good, when `prior` becomes `next`.
pub fn interrupts(prior: &Value, next: &Value, verdict: &Verdict) -> Option<String> {
    let (prior, next) = (plain(prior.clone()), plain(next.clone()));
    match verdict {
        Verdict::InPlace => in_place(&prior, &next),
        Verdict::Replace(_) => stops(&prior).map(|stops| format!("{stops} until the new one runs")),
        Verdict::Refused(_) => None,
    }
}

/// Returns what runs now and stops when the object is deleted.
pub fn stops(body: &Value) -> Option<String> {
    match (group(body), text(body, "/kind")) {
        ("apps", "Deployment" | "StatefulSet" | "ReplicaSet") => match replicas(body) {
            0 => None,
            pods => Some(format!("stops {}", all(pods))),
        },
        ("apps", "DaemonSet") => Some("stops its pod on every node".into()),
        ("", "Pod") => Some("stops the pod".into()),
        ("batch", "Job") => Some("stops the job if it still runs".into()),
        ("", "Service") if text(body, "/spec/type") == "LoadBalancer" => Some("gives up its address".into()),
        ("", "Service") => Some("cuts off whoever uses the service".into()),
        ("networking.k8s.io", "Ingress") | ("traefik.io", "IngressRoute") => {
            Some("cuts off whoever comes through it".into())
        }
        ("metallb.io", "IPAddressPool") => Some("takes the addresses of its services".into()),
        ("metallb.io", "L2Advertisement") => Some("stops answering for its addresses".into()),
        ("", "Namespace") => Some("stops everything that runs in it".into()),
        _ => None,
    }
}

/// The number of declared pods; an autoscaled workload declares none, and then one is the least that runs.
fn replicas(body: &Value) -> i64 {
    number(body, "/spec/replicas").unwrap_or(1)
}

fn all(pods: i64) -> String {
    if pods == 1 { "its pod".into() } else { format!("all {}", count(pods, "pod")) }
}

fn in_place(prior: &Value, next: &Value) -> Option<String> {
    let changed = |path: &str| prior.pointer(path) != next.pointer(path);
    let kind = (group(next), text(next, "/kind"));
    match kind {
        ("apps", "Deployment" | "StatefulSet") => {
            let (before, after) = (replicas(prior), replicas(next));
            let fewer = match before - after {
                fewer if fewer <= 0 => None,
                _ if after == 0 => Some(format!("stops {}", all(before))),
                fewer => Some(format!("stops {} of {before}", count(fewer, "pod"))),
            };
            let stay = before.min(after);
            let restarts = (changed("/spec/template") && stay > 0).then(|| rollout(kind.1, next, stay)).flatten();
            let both: Vec<String> = [fewer, restarts].into_iter().flatten().collect();
            (!both.is_empty()).then(|| both.join(", "))
        }
        ("apps", "DaemonSet") => match text(next, "/spec/updateStrategy/type") {
            _ if !changed("/spec/template") => None,
            "OnDelete" => None,
            _ => Some("restarts its pod on every node, node by node".into()),
        },
        ("", "Pod") => ["/spec/containers", "/spec/initContainers"]
            .into_iter()
            .any(changed)
            .then(|| "restarts its containers".into()),
        ("", "Service") => service(prior, next),
        // Measured on MetalLB 0.16.2: a pool that shrinks under a live Service moves it to another address, silently.
        ("metallb.io", "IPAddressPool") => changed("/spec/addresses")
            .then(|| "moves services whose address is no longer in the pool to another address".into()),
        _ => None,
    }
}

fn rollout(kind: &str, next: &Value, pods: i64) -> Option<String> {
    let strategy = if kind == "Deployment" { "/spec/strategy/type" } else { "/spec/updateStrategy/type" };
    match (kind, text(next, strategy)) {
        (_, "OnDelete") => None,
        ("Deployment", "Recreate") => Some(format!("stops {}, then starts again", all(pods))),
        ("Deployment", _) => Some(format!("restarts {}, the new before the old", count(pods, "pod"))),
        (_, _) if pods == 1 => Some("restarts 1 pod".into()),
        (_, _) => {
            let from = number(next, "/spec/updateStrategy/rollingUpdate/partition").unwrap_or(0);
            let moved = (pods - from).max(0);
            (moved > 0).then(|| format!("restarts {}, one after the other", count(moved, "pod")))
        }
    }
}

fn service(prior: &Value, next: &Value) -> Option<String> {
    let changed = |path: &str| prior.pointer(path) != next.pointer(path);
    let balancer = |body: &Value| text(body, "/spec/type") == "LoadBalancer";
    if balancer(prior) && !balancer(next) {
        return Some("gives up its address".into());
    }
    let annotation = "/metadata/annotations/metallb.io~1loadBalancerIPs";
    if balancer(prior) && (changed(annotation) || changed("/spec/loadBalancerIP")) {
        return Some("moves to another address".into());
    }
    if changed("/spec/selector") {
        return Some("leads to other pods".into());
    }
    changed("/spec/ports").then(|| "cuts connections through ports that change".into())
}

/// Returns what data is lost when the object is deleted, or nothing.
///
/// `reclaim` is the policy of the volume behind a claim, or of its class, as far as it is known: `Delete`, `Retain`.
pub fn destroys(body: &Value, reclaim: Option<&str>) -> Option<String> {
    match (group(body), text(body, "/kind")) {
        ("", "PersistentVolumeClaim") => match reclaim {
            Some("Retain") => None,
            Some(_) => Some("the data of its volume".into()),
            None => Some("the data of its volume, unless the volume's class retains it".into()),
        },
        // A volume made by hand is retained unless it says otherwise.
        ("", "PersistentVolume") => match text(body, "/spec/persistentVolumeReclaimPolicy") {
            "" | "Retain" => None,
            _ => Some("the data of the volume".into()),
        },
        ("", "Namespace") => Some(format!("everything in the namespace {}", text(body, "/metadata/name"))),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            let place = if text(body, "/spec/scope") == "Cluster" { "the cluster" } else { "every namespace" };
            Some(format!("every {} in {place}", text(body, "/spec/names/kind")))
        }
        ("apps", "StatefulSet") => {
            let policy = text(body, "/spec/persistentVolumeClaimRetentionPolicy/whenDeleted");
            (policy == "Delete" && reclaim != Some("Retain"))
                .then(|| "the data of its pods: it deletes their claims with itself".into())
        }
        _ => None,
    }
}

/// Returns what data is lost when `prior` becomes `next` in place, or nothing.
pub fn loses(prior: &Value, next: &Value) -> Option<String> {
    let policy = text(next, "/spec/persistentVolumeClaimRetentionPolicy/whenScaled");
    let fewer = replicas(prior) - replicas(next);
    (group(next) == "apps" && text(next, "/kind") == "StatefulSet" && policy == "Delete" && fewer > 0)
        .then(|| format!("the data of {}: it deletes the claims of pods it scales away", count(fewer, "pod")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::immutable::verdict;
    use serde_json::json;

    fn body(kind: &str, spec: Value) -> Value {
        let api_version = match kind {
            "Deployment" | "StatefulSet" | "DaemonSet" => "apps/v1",
            "CustomResourceDefinition" => "apiextensions.k8s.io/v1",
            _ => "v1",
        };
        json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "media"}, "spec": spec})
    }

    fn check(kind: &str, prior: Value, next: Value, expected: Option<&str>) {
        let (prior, next) = (body(kind, prior), body(kind, next));
        assert_eq!(interrupts(&prior, &next, &verdict(&prior, &next)).as_deref(), expected, "{kind} {next}");
    }

    #[test]
    fn a_new_template_restarts_pods_the_way_the_strategy_says() {
        let rolling = |image: u8| json!({"replicas": 3, "template": {"image": image}});
        check("Deployment", rolling(1), rolling(1), None);
        check("Deployment", rolling(1), rolling(2), Some("restarts 3 pods, the new before the old"));
        check("StatefulSet", rolling(1), rolling(2), Some("restarts 3 pods, one after the other"));
        check("DaemonSet", rolling(1), rolling(2), Some("restarts its pod on every node, node by node"));
        let recreate = |image: u8| json!({"strategy": {"type": "Recreate"}, "template": image});
        check("Deployment", recreate(1), recreate(2), Some("stops its pod, then starts again"));
        let waits = |image: u8| json!({"updateStrategy": {"type": "OnDelete"}, "template": image});
        check("StatefulSet", waits(1), waits(2), None);
        let part = |image: u8| json!({"replicas": 3, "template": image, "updateStrategy": {"rollingUpdate": {"partition": 1}}});
        check("StatefulSet", part(1), part(2), Some("restarts 2 pods, one after the other"));
    }

    #[test]
    fn scaling_down_stops_pods_and_scaling_up_none() {
        let scale = |replicas: u8| json!({"replicas": replicas});
        check("Deployment", scale(1), scale(3), None);
        check("Deployment", scale(3), scale(2), Some("stops 1 pod of 3"));
        check("Deployment", scale(3), scale(0), Some("stops all 3 pods"));
        let both = |replicas: u8| json!({"replicas": replicas, "template": replicas});
        check("StatefulSet", both(3), both(1), Some("stops 2 pods of 3, restarts 1 pod"));
        check("Deployment", both(0), both(2), None);
    }

    #[test]
    fn a_replacement_stops_all_of_it() {
        let select = |app: u8| json!({"replicas": 2, "selector": app});
        check("Deployment", select(1), select(2), Some("stops all 2 pods until the new one runs"));
    }

    #[test]
    fn a_service_that_loses_or_moves_its_address_says_so() {
        let kind = |kind: &str| json!({"type": kind});
        check("Service", kind("LoadBalancer"), kind("ClusterIP"), Some("gives up its address"));
        check("Service", kind("ClusterIP"), kind("LoadBalancer"), None);
    }

    #[test]
    fn what_deletion_destroys_is_said() {
        let check = |kind: &str, spec: Value, reclaim: Option<&str>, expected: Option<&str>| {
            assert_eq!(destroys(&body(kind, spec), reclaim).as_deref(), expected);
        };
        check("PersistentVolumeClaim", json!({}), Some("Delete"), Some("the data of its volume"));
        check("PersistentVolumeClaim", json!({}), Some("Retain"), None);
        let perhaps = "the data of its volume, unless the volume's class retains it";
        check("PersistentVolumeClaim", json!({}), None, Some(perhaps));
        check("PersistentVolume", json!({"persistentVolumeReclaimPolicy": "Retain"}), None, None);
        check(
            "PersistentVolume",
            json!({"persistentVolumeReclaimPolicy": "Delete"}),
            None,
            Some("the data of the volume"),
        );
        check("Namespace", json!({}), None, Some("everything in the namespace media"));
        let definition = json!({"scope": "Namespaced", "names": {"kind": "IPAddressPool"}});
        check("CustomResourceDefinition", definition, None, Some("every IPAddressPool in every namespace"));
        check("Deployment", json!({}), None, None);
        check("StatefulSet", json!({}), None, None);
        let greedy = json!({"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete"}});
        check("StatefulSet", greedy, None, Some("the data of its pods: it deletes their claims with itself"));
    }

    #[test]
    fn scaling_away_claims_is_a_loss() {
        let set = |replicas: u8, policy: &str| {
            let policy = json!({"whenScaled": policy});
            body("StatefulSet", json!({"replicas": replicas, "persistentVolumeClaimRetentionPolicy": policy}))
        };
        let loss = loses(&set(3, "Delete"), &set(1, "Delete")).unwrap();
        assert_eq!(loss, "the data of 2 pods: it deletes the claims of pods it scales away");
        assert_eq!(loses(&set(3, "Retain"), &set(1, "Retain")), None);
        assert_eq!(loses(&set(1, "Delete"), &set(3, "Delete")), None);
    }
}
