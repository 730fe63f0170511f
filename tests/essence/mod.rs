//! What two simulated worlds are compared by.
#![allow(dead_code, reason = "each test file uses its own part")]

use serde_json::Value;
use std::time::Duration;

/// Names that controllers draw: how many there are differs with what was restarted.
const DRAWN: [&str; 10] = [
    "Pod",
    "ReplicaSet",
    "ControllerRevision",
    "EndpointSlice",
    "Endpoints",
    "Event",
    "Lease",
    "PersistentVolume",
    "CertificateRequest",
    "Order",
];

/// What of a spec is drawn by lot.
const LOTS: [&str; 6] = ["clusterIP", "clusterIPs", "nodePort", "healthCheckNodePort", "volumeName", "caBundle"];

/// Returns the world once no machine is on its way and all that run are ready: an `up` does not wait for that.
pub(crate) fn at_rest(world: impl Fn() -> Value) -> Result<Value, String> {
    let mut waits = Vec::new();
    for _ in 0..600 {
        let world = world();
        let machines = world["machines"].as_object().into_iter().flatten();
        // Those of a hypervisor are on or off.
        let rests = |machine: &Value| match machine["stage"].as_str() {
            Some("running") => machine["ready"] == true,
            stage => matches!(stage, None | Some("off" | "maintenance")),
        };
        waits = machines
            .filter(|(_, machine)| !rests(machine))
            .map(|(address, machine)| format!("{address}: {machine}"))
            .collect();
        if waits.is_empty() {
            return Ok(world);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(format!("these machines do not become ready:\n{}", waits.join("\n")))
}

/// Returns a line for every Kubernetes object of a cluster, with its spec. Names and numbers that are drawn are left out.
pub(crate) fn objects(cluster: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for object in cluster["kubernetes"].as_array().into_iter().flatten() {
        let metadata = &object["metadata"];
        let kind = object["kind"].as_str().unwrap_or_default();
        if DRAWN.contains(&kind) {
            continue;
        }
        let mut spec = object["spec"].clone();
        without_lots(&mut spec);
        if kind == "Node" {
            without_conditions(&mut spec);
        }
        let (namespace, name) = (metadata["namespace"].as_str().unwrap_or("-"), &metadata["name"]);
        lines.push(format!("{} {kind} {namespace} {name}: {spec}", object["apiVersion"]));
    }
    lines
}

/// Leaves out the taints by which a node's conditions keep pods away: whether a node is ready comes and goes.
fn without_conditions(spec: &mut Value) {
    let Some(spec) = spec.as_object_mut() else { return };
    let Some(taints) = spec.get_mut("taints").and_then(Value::as_array_mut) else { return };
    taints.retain(|taint| !taint["key"].as_str().is_some_and(|key| key.starts_with("node.kubernetes.io/")));
    if taints.is_empty() {
        spec.remove("taints");
    }
}

fn without_lots(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|key, _| !LOTS.contains(&key.as_str()));
            object.values_mut().for_each(without_lots);
        }
        Value::Array(items) => items.iter_mut().for_each(without_lots),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Says in which lines two worlds differ.
pub(crate) fn differences(expected: &[String], found: &[String]) -> String {
    let only = |a: &[String], b: &[String]| a.iter().filter(|line| !b.contains(line)).cloned().collect::<Vec<_>>();
    format!("missing:\n  {}\ntoo much:\n  {}", only(expected, found).join("\n  "), only(found, expected).join("\n  "))
}
