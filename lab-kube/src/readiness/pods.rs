//! Pods, and what they and events say about the object they belong to.

use super::{Readiness, Related, condition, failed, waiting};
use crate::json::{count, list, text};
use serde_json::Value;

/// The most pods that a reason speaks of.
const PODS: usize = 2;

pub(super) fn pod(object: &Value) -> Readiness {
    match text(object, "/status/phase") {
        "Succeeded" => Readiness::Ready,
        "Failed" => failed(match (text(object, "/status/reason"), text(object, "/status/message")) {
            ("", "") => trouble(object).unwrap_or_else(|| "the pod failed".into()),
            (reason, message) => join(reason, message),
        }),
        "Running" if is_ready(object) => Readiness::Ready,
        "Running" | "Pending" => {
            let reason = trouble(object).unwrap_or_else(|| "its containers are not ready yet".into());
            let unschedulable =
                condition(object, "PodScheduled").is_some_and(|c| c.is("False") && c.reason() == "Unschedulable");
            let crashing = waits(object).any(|(_, state)| text(state, "/reason") == "CrashLoopBackOff");
            if unschedulable || crashing { failed(reason) } else { waiting(reason) }
        }
        _ => waiting("the pod is not scheduled yet"),
    }
}

fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready").is_some_and(|condition| condition.is("True"))
}

/// The containers that wait, with the state they wait in.
fn waits(pod: &Value) -> impl Iterator<Item = (&str, &Value)> {
    states(pod).filter_map(|(name, state)| Some((name, state.get("waiting")?)))
}

fn states(pod: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let all = ["/status/initContainerStatuses", "/status/containerStatuses"];
    let state = |container| Some((text(container, "/name"), container.get("state")?));
    all.into_iter().flat_map(|path| list(pod, path)).filter_map(state)
}

/// What a pod says about why it does not run.
fn trouble(pod: &Value) -> Option<String> {
    // These two are the way things go, not trouble.
    let usual = |state: &Value| ["", "ContainerCreating", "PodInitializing"].contains(&text(state, "/reason"));
    if let Some((_, state)) = waits(pod).find(|(_, state)| !usual(state)) {
        return Some(join(text(state, "/reason"), text(state, "/message")));
    }
    if let Some(condition) = condition(pod, "PodScheduled").filter(|condition| condition.is("False")) {
        return Some(condition.to_string());
    }
    states(pod).find_map(|(name, state)| {
        let ended = state.get("terminated")?;
        match ended.get("exitCode").and_then(Value::as_i64)? {
            0 => None,
            code => Some(join(text(ended, "/reason"), &format!("container {name} ended with exit code {code}"))),
        }
    })
}

/// Adds to a reason what the pods and the newest warnings say.
pub(super) fn explain(mut reason: String, object: &Value, related: &Related) -> String {
    let running = |pod: &&Value| !is_ready(pod) && text(pod, "/status/phase") != "Succeeded";
    let broken: Vec<&Value> = related.pods.iter().filter(running).collect();
    let says = |pod: &Value| {
        // The scheduler's and the kubelet's events say more than the pod, whose state is often only ContainerCreating.
        trouble(pod).or_else(|| warning(pod, &related.events))
    };
    let all: Vec<String> = (broken.iter())
        .filter_map(|pod| says(pod).map(|says| format!("pod {}: {says}", text(pod, "/metadata/name"))))
        .collect();
    for text in all.iter().take(PODS) {
        reason.push_str(&format!("; {text}"));
    }
    if all.len() > PODS {
        reason.push_str(&format!("; and {} more", count((all.len() - PODS) as i64, "pod")));
    }
    // With no pod to blame it is the object itself: no pod could be made, no address was free.
    if all.is_empty()
        && let Some(warning) = warning(object, &related.events)
    {
        reason.push_str(&format!("; {warning}"));
    }
    reason
}

fn warning(about: &Value, events: &[Value]) -> Option<String> {
    let uid = text(about, "/metadata/uid");
    let concerns = |event: &&Value| {
        let named = [text(event, "/involvedObject/uid"), text(event, "/regarding/uid")];
        text(event, "/type") == "Warning" && !uid.is_empty() && named.contains(&uid)
    };
    let at = |event: &&Value| {
        let times = ["/series/lastObservedTime", "/lastTimestamp", "/deprecatedLastTimestamp", "/eventTime"];
        let time = times.iter().map(|path| text(event, path)).find(|time| !time.is_empty());
        time.unwrap_or(text(event, "/metadata/creationTimestamp")).to_owned()
    };
    let newest = events.iter().filter(concerns).max_by_key(at)?;
    let message = [text(newest, "/message"), text(newest, "/note")].into_iter().find(|text| !text.is_empty());
    Some(join(text(newest, "/reason"), message.unwrap_or_default()))
}

fn join(reason: &str, message: &str) -> String {
    match (reason, message) {
        (reason, "") => reason.to_owned(),
        ("", message) => clip(message),
        (reason, message) => format!("{reason}: {}", clip(message)),
    }
}

/// One line of bounded length: a scheduler explains itself for every node.
pub(super) fn clip(message: &str) -> String {
    const MOST: usize = 200;
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{status, status_with};
    use super::*;
    use serde_json::json;

    fn object(status: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "plex-0", "uid": "p"}, "status": status})
    }

    #[test]
    fn a_pod_is_ready_when_it_runs_and_says_so_or_has_succeeded() {
        let ready = json!([{"type": "Ready", "status": "True"}]);
        assert_eq!(status(&object(json!({"phase": "Running", "conditions": ready}))), Readiness::Ready);
        assert_eq!(status(&object(json!({"phase": "Succeeded"}))), Readiness::Ready);
        assert_eq!(status(&object(json!({}))), waiting("the pod is not scheduled yet"));
        assert_eq!(status(&object(json!({"phase": "Running"}))), waiting("its containers are not ready yet"));
    }

    #[test]
    fn a_pod_that_cannot_run_says_why() {
        let waits = |reason: &str| {
            let state = json!({"name": "plex", "state": {"waiting": {"reason": reason, "message": "back-off\n 5m"}}});
            status(&object(json!({"phase": "Running", "containerStatuses": [state]})))
        };
        assert_eq!(waits("CrashLoopBackOff"), failed("CrashLoopBackOff: back-off 5m"));
        assert_eq!(waits("ImagePullBackOff"), waiting("ImagePullBackOff: back-off 5m"));
        assert_eq!(waits("ContainerCreating"), waiting("its containers are not ready yet"));
        let conditions =
            json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/6 nodes"}]);
        let pending = status(&object(json!({"phase": "Pending", "conditions": conditions})));
        assert_eq!(pending, failed("Unschedulable: 0/6 nodes"));
        let evicted = status(&object(json!({"phase": "Failed", "reason": "Evicted", "message": "disk"})));
        assert_eq!(evicted, failed("Evicted: disk"));
        let ended = json!([{"name": "plex", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]);
        let ended = status(&object(json!({"phase": "Failed", "containerStatuses": ended})));
        assert_eq!(ended, failed("OOMKilled: container plex ended with exit code 137"));
    }

    #[test]
    fn many_pods_are_counted_and_long_messages_cut() {
        let pod = |index: u8| {
            let state = json!({"state": {"waiting": {"reason": "ErrImagePull", "message": "x".repeat(300)}}});
            json!({"metadata": {"name": format!("p{index}")}, "status": {"phase": "Pending", "containerStatuses": [state]}})
        };
        let related = Related { pods: (0..5).map(pod).collect(), ..Related::default() };
        let Readiness::Waiting { reason } = status_with(&object(json!({})), &related) else { panic!() };
        assert!(reason.contains("; pod p1: ErrImagePull: xxx"), "{reason}");
        assert!(reason.ends_with("...; and 3 pods more"), "{reason}");
        assert!(reason.len() < 600);
    }
}
