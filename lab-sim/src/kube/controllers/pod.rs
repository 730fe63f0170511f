//! Pods: given a node, started after a while, ended when they are deleted.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::workload::suits;
use super::{Cluster, Round, condition, contains, hash, leaving, text};

const PODS: &str = "/api/v1/pods";
const CLAIMS: &str = "/api/v1/persistentvolumeclaims";
const SCHEDULER: &str = "kube-scheduler";
const KUBELET: &str = "kubelet";

impl<C: Cluster> Round<'_, C> {
    pub(super) async fn pods(&mut self) {
        let pods = self.all(PODS);
        let mut load: BTreeMap<String, usize> = BTreeMap::new();
        for pod in pods.iter() {
            if let Some(node) = pod["spec"]["nodeName"].as_str() {
                *load.entry(node.into()).or_default() += 1;
            }
        }
        for pod in pods.iter() {
            let placed = pod["spec"]["nodeName"].is_string();
            if leaving(pod) {
                if pod["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
                    self.delete(PODS, pod, &json!({"gracePeriodSeconds": 0})).await;
                }
            } else if !placed {
                self.schedule(pod, &mut load).await;
            } else if pod["status"]["phase"] == "Pending" {
                self.start(pod).await;
            } else if pod["status"]["phase"] == "Running" {
                self.finish(pod).await;
            }
        }
    }

    async fn schedule(&mut self, pod: &Value, load: &mut BTreeMap<String, usize>) {
        let nodes = self.all("/api/v1/nodes");
        let fitting = nodes.iter().filter(|node| suits(node, &pod["spec"], false));
        let best = fitting
            .min_by_key(|node| (load.get(text(node, "name")).copied().unwrap_or(0), text(node, "name").to_string()));
        let problem = match (self.unbound(pod), best) {
            (Some(problem), _) => problem,
            (None, None) => format!("0/{} nodes are available.", nodes.len()),
            (None, Some(node)) => {
                let name = text(node, "name").to_string();
                *load.entry(name.clone()).or_default() += 1;
                let binding = json!({"spec": {"nodeName": name}});
                self.merge(PODS, pod, &binding, SCHEDULER).await;
                return;
            }
        };
        let now = self.timestamp();
        let scheduled = condition(pod, "PodScheduled", false, "Unschedulable", &problem, &now);
        self.status(PODS, pod, &json!({"conditions": [scheduled]}), SCHEDULER).await;
        self.event(pod, "Pod", "Warning", "FailedScheduling", &problem, "default-scheduler").await;
    }

    // Returns why a pod's claims keep it from a node. One that waits for its first consumer is bound by the volume
    // controller as soon as there is a node that would do.
    fn unbound(&self, pod: &Value) -> Option<String> {
        let nodes = self.all("/api/v1/nodes").len();
        let claims = pod["spec"]["volumes"].as_array().into_iter().flatten();
        for name in claims.filter_map(|volume| volume["persistentVolumeClaim"]["claimName"].as_str()) {
            match self.find(CLAIMS, text(pod, "namespace"), name) {
                None => {
                    return Some(format!("0/{nodes} nodes are available: persistentvolumeclaim \"{name}\" not found."));
                }
                Some(claim) if claim["status"]["phase"] != "Bound" => {
                    return Some(format!(
                        "0/{nodes} nodes are available: pod has unbound immediate PersistentVolumeClaims."
                    ));
                }
                Some(_) => {}
            }
        }
        None
    }

    async fn start(&mut self, pod: &Value) {
        let namespace = text(pod, "namespace").to_string();
        if let Some(problem) = self.unbound(pod) {
            self.event(pod, "Pod", "Warning", "FailedMount", &problem, KUBELET).await;
            return;
        }
        for volume in pod["spec"]["volumes"].as_array().into_iter().flatten() {
            for (field, key, path, word) in [
                ("configMap", "name", "/api/v1/configmaps", "configmap"),
                ("secret", "secretName", "/api/v1/secrets", "secret"),
            ] {
                let Some(name) = volume[field][key].as_str() else { continue };
                if volume[field]["optional"] != true && self.find(path, &namespace, name).is_none() {
                    let volume = volume["name"].as_str().unwrap_or_default();
                    let message =
                        format!("MountVolume.SetUp failed for volume \"{volume}\" : {word} \"{name}\" not found");
                    self.waiting(pod, "ContainerCreating").await;
                    self.event(pod, "Pod", "Warning", "FailedMount", &message, KUBELET).await;
                    return;
                }
            }
        }
        if let Some(message) = self.missing_environment(pod) {
            self.waiting(pod, "CreateContainerConfigError").await;
            self.event(pod, "Pod", "Warning", "Failed", &format!("Error: {message}"), KUBELET).await;
            return;
        }
        if !self.after(&format!("start/{}", text(pod, "uid")), self.settings.start) {
            self.waiting(pod, "ContainerCreating").await;
            return;
        }
        let now = self.timestamp();
        let number = hash(text(pod, "uid")).bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31) + u32::from(byte));
        let address = format!("10.244.{}.{}", number / 250 % 250, number % 250 + 2);
        let node =
            self.find("/api/v1/nodes", "", pod["spec"]["nodeName"].as_str().unwrap_or_default()).unwrap_or_default();
        let internal = node["status"]["addresses"].as_array().into_iter().flatten();
        let host = internal.filter(|one| one["type"] == "InternalIP").map(|one| one["address"].clone()).next();
        let host = host.unwrap_or(Value::Null);
        let address =
            if pod["spec"]["hostNetwork"] == true && host.is_string() { host.clone() } else { address.into() };
        let containers: Vec<Value> = pod["spec"]["containers"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|container| {
                json!({
                    "name": container["name"], "image": container["image"], "imageID": container["image"],
                    "ready": true, "started": true, "restartCount": 0, "state": {"running": {"startedAt": now}},
                })
            })
            .collect();
        let conditions: Vec<Value> = ["PodScheduled", "Initialized", "ContainersReady", "Ready"]
            .iter()
            .map(|name| json!({"type": name, "status": "True", "lastTransitionTime": now}))
            .collect();
        let status = json!({
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "hostIP": host, "startTime": now,
            "conditions": conditions, "containerStatuses": containers,
        });
        self.status(PODS, pod, &status, KUBELET).await;
    }

    // What a container's environment takes from a ConfigMap or Secret must be there, key and all.
    fn missing_environment(&self, pod: &Value) -> Option<String> {
        let namespace = text(pod, "namespace");
        for container in pod["spec"]["containers"].as_array().into_iter().flatten() {
            for variable in container["env"].as_array().into_iter().flatten() {
                for (field, path, word) in [
                    ("configMapKeyRef", "/api/v1/configmaps", "configmap"),
                    ("secretKeyRef", "/api/v1/secrets", "secret"),
                ] {
                    let reference = &variable["valueFrom"][field];
                    let Some(name) = reference["name"].as_str().filter(|_| reference["optional"] != true) else {
                        continue;
                    };
                    let key = reference["key"].as_str().unwrap_or_default();
                    match self.find(path, namespace, name) {
                        None => return Some(format!("{word} \"{name}\" not found")),
                        Some(source) if source["data"][key].is_null() => {
                            let kind = if word == "secret" { "Secret" } else { "ConfigMap" };
                            return Some(format!("couldn't find key {key} in {kind} {namespace}/{name}"));
                        }
                        Some(_) => {}
                    }
                }
            }
        }
        None
    }

    async fn waiting(&mut self, pod: &Value, reason: &str) {
        let now = self.timestamp();
        let containers: Vec<Value> = pod["spec"]["containers"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|container| {
                json!({
                    "name": container["name"], "image": container["image"], "imageID": "", "ready": false,
                    "started": false, "restartCount": 0, "state": {"waiting": {"reason": reason}},
                })
            })
            .collect();
        if contains(pod, &json!({"status": {"containerStatuses": containers}})) {
            return;
        }
        let ready = condition(pod, "Ready", false, "ContainersNotReady", "containers are not ready", &now);
        let scheduled = json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": now});
        let status = json!({"phase": "Pending", "containerStatuses": containers, "conditions": [scheduled, ready]});
        self.status(PODS, pod, &status, KUBELET).await;
    }

    // A pod that is not restarted is one that ends by itself.
    async fn finish(&mut self, pod: &Value) {
        if pod["spec"]["restartPolicy"] == "Always" {
            return;
        }
        if !self.after(&format!("finish/{}", text(pod, "uid")), self.settings.start) {
            return;
        }
        let now = self.timestamp();
        let mut containers = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
        for container in &mut containers {
            container["ready"] = false.into();
            container["state"] = json!({"terminated": {"exitCode": 0, "reason": "Completed", "finishedAt": now}});
        }
        let ready = condition(pod, "Ready", false, "PodCompleted", "", &now);
        let status = json!({"phase": "Succeeded", "containerStatuses": containers, "conditions": [ready]});
        self.status(PODS, pod, &status, KUBELET).await;
    }
}
