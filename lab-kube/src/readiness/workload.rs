//! Workloads: what their controllers count.

use super::{Readiness, condition, failed, observed, waiting};
use crate::json::{count, number, text, truth};
use serde_json::Value;

/// A controller that has not looked yet has counted nothing, and nothing looks like zero replicas that are ready.
fn unseen(object: &Value) -> Option<Readiness> {
    let unseen = observed(object).is_none() && number(object, "/metadata/generation").is_some();
    unseen.then(|| waiting("its controller has not looked at it yet"))
}

fn counted(object: &Value, field: &str) -> i64 {
    number(object, &format!("/status/{field}")).unwrap_or(0)
}

fn wanted(object: &Value) -> i64 {
    number(object, "/spec/replicas").unwrap_or(1)
}

fn ready_of(object: &Value, wanted: i64) -> String {
    format!("{} of {wanted} ready", counted(object, "readyReplicas"))
}

pub(super) fn deployment(object: &Value) -> Readiness {
    if let Some(unseen) = unseen(object) {
        return unseen;
    }
    let progressing = condition(object, "Progressing");
    if let Some(progressing) = progressing.as_ref().filter(|progress| progress.reason() == "ProgressDeadlineExceeded") {
        return failed(format!("{}; {progressing}", ready_of(object, wanted(object))));
    }
    let wanted = wanted(object);
    let count = |field| counted(object, field);
    let (all, updated, available) = (count("replicas"), count("updatedReplicas"), count("availableReplicas"));
    let refused = || {
        let refused = condition(object, "ReplicaFailure").filter(|refused| refused.is("True"));
        refused.map(|refused| format!("; {refused}")).unwrap_or_default()
    };
    if all < wanted {
        return waiting(format!("{all} of {} made{}", crate::json::count(wanted, "pod"), refused()));
    }
    if updated < wanted {
        return waiting(format!("{updated} of {} updated{}", crate::json::count(wanted, "pod"), refused()));
    }
    if all > wanted {
        return waiting(format!("{} still to stop", crate::json::count(all - wanted, "old pod")));
    }
    if available < updated || count("readyReplicas") < wanted {
        return waiting(ready_of(object, wanted));
    }
    // Without a deadline (or with the largest, which stands for none) nobody keeps the condition.
    let patient = number(object, "/spec/progressDeadlineSeconds").is_none_or(|seconds| seconds == i64::from(i32::MAX));
    let rolled = progressing.is_some_and(|p| p.is("True") && p.reason() == "NewReplicaSetAvailable");
    if !rolled && !patient {
        return waiting("the new pods are not rolled out yet");
    }
    match condition(object, "Available") {
        Some(available) if available.is("True") => Readiness::Ready,
        Some(available) => waiting(available.to_string()),
        None => waiting(ready_of(object, wanted)),
    }
}

pub(super) fn stateful_set(object: &Value) -> Readiness {
    if let Some(unseen) = unseen(object) {
        return unseen;
    }
    if text(object, "/spec/updateStrategy/type") == "OnDelete" {
        return Readiness::Ready;
    }
    let wanted = wanted(object);
    let (all, ready) = (counted(object, "replicas"), counted(object, "readyReplicas"));
    if all < wanted || ready < wanted {
        return waiting(ready_of(object, wanted));
    }
    if all > wanted {
        return waiting(format!("{} still to stop", count(all - wanted, "pod")));
    }
    let updated = counted(object, "updatedReplicas");
    match number(object, "/spec/updateStrategy/rollingUpdate/partition").filter(|&partition| partition > 0) {
        Some(partition) if updated < wanted - partition => {
            waiting(format!("{updated} of {} updated", count(wanted - partition, "pod")))
        }
        Some(_) => Readiness::Ready,
        None if counted(object, "currentReplicas") < wanted
            || text(object, "/status/currentRevision") != text(object, "/status/updateRevision") =>
        {
            waiting(format!("{updated} of {} updated", count(wanted, "pod")))
        }
        None => Readiness::Ready,
    }
}

pub(super) fn daemon_set(object: &Value) -> Readiness {
    let (Some(_), Some(_)) = (observed(object), number(object, "/metadata/generation")) else {
        return waiting("its controller has not looked at it yet");
    };
    let Some(wanted) = number(object, "/status/desiredNumberScheduled") else {
        return waiting("no node is chosen yet");
    };
    let on_nodes = |field: &str, what: &str| {
        let number = counted(object, field);
        (number < wanted).then(|| waiting(format!("{number} of {} {what}", count(wanted, "node"))))
    };
    on_nodes("currentNumberScheduled", "scheduled")
        .or_else(|| on_nodes("updatedNumberScheduled", "updated"))
        .or_else(|| on_nodes("numberReady", "ready"))
        .or_else(|| on_nodes("numberAvailable", "available"))
        .unwrap_or(Readiness::Ready)
}

pub(super) fn replica_set(object: &Value) -> Readiness {
    if let Some(unseen) = unseen(object) {
        return unseen;
    }
    if let Some(refused) = condition(object, "ReplicaFailure").filter(|refused| refused.is("True")) {
        return waiting(refused.to_string());
    }
    let wanted = wanted(object);
    if ["fullyLabeledReplicas", "availableReplicas", "readyReplicas"]
        .iter()
        .any(|field| counted(object, field) < wanted)
    {
        return waiting(ready_of(object, wanted));
    }
    match counted(object, "replicas") - wanted {
        more if more > 0 => waiting(format!("{} still to stop", count(more, "pod"))),
        _ => Readiness::Ready,
    }
}

/// Ready when it is complete: what depends on a job depends on what it did.
pub(super) fn job(object: &Value) -> Readiness {
    let holds = |kind: &str| condition(object, kind).filter(|condition| condition.is("True"));
    if holds("Complete").is_some() {
        return Readiness::Ready;
    }
    if let Some(condition) = holds("Failed") {
        return failed(condition.to_string());
    }
    if truth(object, "/spec/suspend") {
        return match holds("Suspended") {
            Some(_) => Readiness::Ready,
            None => waiting("the job is not suspended yet"),
        };
    }
    if text(object, "/status/startTime").is_empty() {
        return waiting("the job has not started");
    }
    let completions = number(object, "/spec/completions").unwrap_or(1);
    let (done, broken) = (counted(object, "succeeded"), counted(object, "failed"));
    let tries = if broken > 0 { format!("; {} failed", count(broken, "pod")) } else { String::new() };
    waiting(format!("{done} of {completions} completed{tries}"))
}

#[cfg(test)]
mod tests {
    use super::super::{Related, status, status_with};
    use super::*;
    use serde_json::json;

    fn check(kind: &str, spec: Value, status_of: Value, expected: Result<(), &str>) {
        let api_version = if kind == "Job" { "batch/v1" } else { "apps/v1" };
        let object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"generation": 1},
            "spec": spec, "status": status_of});
        match (status(&object), expected) {
            (Readiness::Ready, Ok(())) => {}
            (Readiness::Waiting { reason }, Err(part)) if reason.contains(part) => {}
            (Readiness::Failed { reason }, Err(part)) if format!("failed: {reason}").contains(part) => {}
            (found, expected) => panic!("{found:?}, expected {expected:?}"),
        }
    }

    fn rolled(replicas: u8, updated: u8, ready: u8) -> Value {
        json!({"observedGeneration": 1, "replicas": replicas, "updatedReplicas": updated, "readyReplicas": ready,
            "availableReplicas": ready, "conditions": [
                {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"},
                {"type": "Available", "status": "True"}]})
    }

    #[test]
    fn a_deployment_is_ready_when_all_new_pods_are_and_no_old_one_is_left() {
        let spec = json!({"replicas": 3, "progressDeadlineSeconds": 600});
        let check = |status, expected| check("Deployment", spec.clone(), status, expected);
        check(rolled(3, 3, 3), Ok(()));
        check(rolled(3, 3, 2), Err("2 of 3 ready"));
        check(rolled(3, 1, 3), Err("1 of 3 pods updated"));
        check(rolled(4, 3, 3), Err("1 old pod still to stop"));
        check(rolled(1, 1, 1), Err("1 of 3 pods made"));
        check(json!({}), Err("has not looked at it"));
        let mut status = rolled(3, 3, 3);
        status["conditions"][0]["reason"] = json!("ReplicaSetUpdated");
        check(status.clone(), Err("not rolled out"));
        status["conditions"][0]["reason"] = json!("ProgressDeadlineExceeded");
        check(status, Err("failed: 3 of 3 ready; ProgressDeadlineExceeded"));
        let mut status = rolled(3, 3, 3);
        status["conditions"][1] =
            json!({"type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable"});
        check(status, Err("MinimumReplicasUnavailable"));
    }

    #[test]
    fn a_deployment_whose_pods_are_refused_says_why() {
        let refused = json!({"observedGeneration": 1, "conditions": [{"type": "ReplicaFailure", "status": "True",
            "reason": "FailedCreate", "message": "violates PodSecurity"}]});
        check("Deployment", json!({}), refused, Err("0 of 1 pod made; FailedCreate: violates PodSecurity"));
    }

    #[test]
    fn a_stateful_set_is_ready_when_its_revisions_meet() {
        let status = |ready: u8, current: &str| {
            json!({"observedGeneration": 1, "replicas": 3, "readyReplicas": ready, "currentReplicas": 3,
                "updatedReplicas": 1, "currentRevision": current, "updateRevision": "b"})
        };
        let spec = json!({"replicas": 3});
        check("StatefulSet", spec.clone(), status(3, "b"), Ok(()));
        check("StatefulSet", spec.clone(), status(2, "b"), Err("2 of 3 ready"));
        check("StatefulSet", spec.clone(), status(3, "a"), Err("1 of 3 pods updated"));
        check("StatefulSet", json!({"replicas": 0}), json!({}), Err("has not looked at it"));
        check("StatefulSet", json!({"replicas": 2}), status(3, "b"), Err("1 pod still to stop"));
        let part =
            |partition: u8| json!({"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": partition}}});
        check("StatefulSet", part(2), status(3, "a"), Ok(()));
        check("StatefulSet", part(1), status(3, "a"), Err("1 of 2 pods updated"));
        check("StatefulSet", json!({"updateStrategy": {"type": "OnDelete"}}), status(0, "a"), Ok(()));
    }

    #[test]
    fn a_daemon_set_is_ready_on_every_node() {
        let status = |ready: u8| {
            json!({"observedGeneration": 1, "desiredNumberScheduled": 6, "currentNumberScheduled": 6,
                "updatedNumberScheduled": 6, "numberReady": ready, "numberAvailable": ready})
        };
        check("DaemonSet", json!({}), status(6), Ok(()));
        check("DaemonSet", json!({}), status(5), Err("5 of 6 nodes ready"));
        check("DaemonSet", json!({}), json!({"observedGeneration": 1}), Err("no node"));
        check("DaemonSet", json!({}), json!({}), Err("has not looked"));
    }

    #[test]
    fn a_replica_set_that_is_refused_waits() {
        let refused = json!({"observedGeneration": 1,
            "conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}]});
        check("ReplicaSet", json!({}), refused, Err("FailedCreate"));
        check("ReplicaSet", json!({}), json!({"observedGeneration": 1}), Err("0 of 1 ready"));
    }

    #[test]
    fn a_job_is_ready_when_it_is_complete_and_not_while_it_runs() {
        let with =
            |kind: &str| json!({"startTime": "t", "conditions": [{"type": kind, "status": "True", "reason": "R"}]});
        check("Job", json!({}), with("Complete"), Ok(()));
        check("Job", json!({}), with("Failed"), Err("failed: R"));
        check("Job", json!({"suspend": true}), with("Suspended"), Ok(()));
        check(
            "Job",
            json!({"completions": 2}),
            json!({"startTime": "t", "succeeded": 1, "failed": 2}),
            Err("1 of 2 completed; 2 pods failed"),
        );
        check("Job", json!({}), json!({}), Err("not started"));
    }

    #[test]
    fn the_reason_names_the_pod_and_what_holds_it() {
        let object = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"uid": "s", "generation": 1},
            "spec": {"replicas": 3}, "status": {"observedGeneration": 1, "replicas": 3, "readyReplicas": 2}});
        let pod = json!({"metadata": {"name": "plex-0", "uid": "p"}, "status": {"phase": "Pending"}});
        let event = json!({"type": "Warning", "reason": "FailedScheduling", "message": "insufficient memory",
            "involvedObject": {"uid": "p"}});
        let related = Related { pods: vec![pod], events: vec![event], storage_class: None };
        let expected = "2 of 3 ready; pod plex-0: FailedScheduling: insufficient memory";
        assert_eq!(status_with(&object, &related), waiting(expected));
    }
}
