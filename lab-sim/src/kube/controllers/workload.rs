//! Workloads: Deployments make ReplicaSets, those and the others make pods, and their status counts them.

use serde_json::{Value, json};

use super::{AGENT, Cluster, Round, condition, hash, is_owned_by, leaving, owned_by, text};
use crate::kube::select::Selector;

const PODS: &str = "/api/v1/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/deployments";
const REPLICA_SETS: &str = "/apis/apps/v1/replicasets";
const STATEFUL_SETS: &str = "/apis/apps/v1/statefulsets";
const DAEMON_SETS: &str = "/apis/apps/v1/daemonsets";
const JOBS: &str = "/apis/batch/v1/jobs";

/// How many of some pods there are, and how far they are.
#[derive(Default)]
struct Count {
    all: i64,
    ready: i64,
    succeeded: i64,
}

fn count(pods: &[Value]) -> Count {
    let mut count = Count::default();
    for pod in pods.iter().filter(|pod| !leaving(pod)) {
        count.all += 1;
        count.ready += i64::from(is_ready(pod));
        count.succeeded += i64::from(pod["status"]["phase"] == "Succeeded");
    }
    count
}

/// Returns whether a pod is ready.
pub(super) fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True")
}

fn revision(object: &Value) -> String {
    hash(&object["spec"]["template"].to_string())
}

impl<C: Cluster> Round<'_, C> {
    pub(super) async fn workloads(&mut self) {
        for deployment in self.all(DEPLOYMENTS).iter().filter(|one| !leaving(one)) {
            self.deployment(deployment).await;
        }
        for set in self.all(REPLICA_SETS).iter().filter(|one| !leaving(one)) {
            self.replica_set(set).await;
        }
        for set in self.all(STATEFUL_SETS).iter().filter(|one| !leaving(one)) {
            self.stateful_set(set).await;
        }
        for set in self.all(DAEMON_SETS).iter().filter(|one| !leaving(one)) {
            self.daemon_set(set).await;
        }
        for job in self.all(JOBS).iter().filter(|one| !leaving(one)) {
            self.job(job).await;
        }
        for budget in self.all("/apis/policy/v1/poddisruptionbudgets").iter().filter(|one| !leaving(one)) {
            self.budget(budget).await;
        }
    }

    fn owned(&self, path: &str, owner: &Value) -> Vec<Value> {
        self.all(path).iter().filter(|object| is_owned_by(object, owner)).cloned().collect()
    }

    async fn deployment(&mut self, deployment: &Value) {
        let wanted = deployment["spec"]["replicas"].as_i64().unwrap_or(1);
        let revision = revision(deployment);
        let name = format!("{}-{revision}", text(deployment, "name"));
        let sets = self.owned(REPLICA_SETS, deployment);
        let Some(current) = sets.iter().find(|set| text(set, "name") == name) else {
            let mut template = deployment["spec"]["template"].clone();
            template["metadata"]["labels"]["pod-template-hash"] = revision.clone().into();
            let mut selector = deployment["spec"]["selector"].clone();
            selector["matchLabels"]["pod-template-hash"] = revision.into();
            let set = json!({
                "apiVersion": "apps/v1", "kind": "ReplicaSet",
                "metadata": {
                    "name": name, "namespace": text(deployment, "namespace"),
                    "labels": template["metadata"]["labels"],
                    "ownerReferences": owned_by(deployment, "apps/v1", "Deployment"),
                },
                "spec": {"replicas": wanted, "selector": selector, "template": template},
            });
            self.create(REPLICA_SETS, &set, AGENT).await;
            return;
        };
        self.merge(REPLICA_SETS, current, &json!({"spec": {"replicas": wanted}}), AGENT).await;
        let ready = current["status"]["readyReplicas"].as_i64().unwrap_or(0);
        let updated = current["status"]["replicas"].as_i64().unwrap_or(0);
        // The old ones stay until the new ones stand, unless the strategy is to stop them first; then both overlap here,
        // which no reader of the status can tell.
        let done = ready >= wanted;
        let mut total = updated;
        for old in sets.iter().filter(|set| text(set, "name") != name) {
            if done {
                self.merge(REPLICA_SETS, old, &json!({"spec": {"replicas": 0}}), AGENT).await;
            }
            total += old["status"]["replicas"].as_i64().unwrap_or(0);
        }
        let now = self.timestamp();
        let complete = done && total == updated;
        let (reason, message) = if complete {
            ("NewReplicaSetAvailable", format!("ReplicaSet \"{name}\" has successfully progressed."))
        } else {
            ("ReplicaSetUpdated", format!("ReplicaSet \"{name}\" is progressing."))
        };
        let available = if done {
            condition(
                deployment,
                "Available",
                true,
                "MinimumReplicasAvailable",
                "Deployment has minimum availability.",
                &now,
            )
        } else {
            let message = "Deployment does not have minimum availability.";
            condition(deployment, "Available", false, "MinimumReplicasUnavailable", message, &now)
        };
        let status = json!({
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": total, "updatedReplicas": updated, "readyReplicas": ready, "availableReplicas": ready,
            "unavailableReplicas": if done { Value::Null } else { json!(wanted - ready) },
            "conditions": [available, condition(deployment, "Progressing", true, reason, &message, &now)],
        });
        self.status(DEPLOYMENTS, deployment, &status, AGENT).await;
    }

    async fn replica_set(&mut self, set: &Value) {
        let wanted = set["spec"]["replicas"].as_i64().unwrap_or(1);
        let pods = self.owned(PODS, set);
        let living: Vec<&Value> = pods.iter().filter(|pod| !leaving(pod)).collect();
        for _ in living.len()..usize::try_from(wanted).unwrap_or(0) {
            let pod = pod_of(set, "ReplicaSet", "apps/v1", json!({"generateName": format!("{}-", text(set, "name"))}));
            self.create(PODS, &pod, AGENT).await;
        }
        for pod in living.iter().skip(usize::try_from(wanted).unwrap_or(0)) {
            self.delete(PODS, pod, &json!({})).await;
        }
        let count = count(&pods);
        let status = json!({
            "observedGeneration": set["metadata"]["generation"], "replicas": count.all,
            "fullyLabeledReplicas": count.all, "readyReplicas": count.ready, "availableReplicas": count.ready,
        });
        self.status(REPLICA_SETS, set, &status, AGENT).await;
    }

    async fn stateful_set(&mut self, set: &Value) {
        let wanted = set["spec"]["replicas"].as_i64().unwrap_or(1);
        let (name, namespace) = (text(set, "name").to_string(), text(set, "namespace").to_string());
        let revision = format!("{name}-{}", revision(set));
        let pods = self.owned(PODS, set);
        let is_current = |pod: &Value| pod["metadata"]["labels"]["controller-revision-hash"] == revision.as_str();
        let parallel = set["spec"]["podManagementPolicy"] == "Parallel";
        for at in 0..wanted {
            let pod_name = format!("{name}-{at}");
            let mut volumes = set["spec"]["template"]["spec"]["volumes"].as_array().cloned().unwrap_or_default();
            for template in set["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten() {
                let volume = text(template, "name");
                let claim_name = format!("{volume}-{pod_name}");
                volumes.push(json!({"name": volume, "persistentVolumeClaim": {"claimName": claim_name}}));
                if self.find("/api/v1/persistentvolumeclaims", &namespace, &claim_name).is_none() {
                    let claim = json!({
                        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                        "metadata": {
                            "name": claim_name, "namespace": namespace,
                            "labels": set["spec"]["selector"]["matchLabels"],
                        },
                        "spec": template["spec"],
                    });
                    self.create("/api/v1/persistentvolumeclaims", &claim, AGENT).await;
                }
            }
            match pods.iter().find(|pod| text(pod, "name") == pod_name) {
                None => {
                    let labels = json!({
                        "controller-revision-hash": revision, "statefulset.kubernetes.io/pod-name": pod_name,
                        "apps.kubernetes.io/pod-index": at.to_string(),
                    });
                    let mut pod = pod_of(set, "StatefulSet", "apps/v1", json!({"name": pod_name}));
                    for (key, value) in labels.as_object().cloned().unwrap_or_default() {
                        pod["metadata"]["labels"][key] = value;
                    }
                    if !volumes.is_empty() {
                        pod["spec"]["volumes"] = volumes.into();
                    }
                    pod["spec"]["hostname"] = pod_name.into();
                    self.create(PODS, &pod, AGENT).await;
                    if !parallel {
                        break;
                    }
                }
                Some(pod) if leaving(pod) => break,
                Some(pod) if !is_current(pod) && set["spec"]["updateStrategy"]["type"] != "OnDelete" => {
                    self.delete(PODS, pod, &json!({})).await;
                    break;
                }
                Some(pod) if !is_ready(pod) && !parallel => break,
                Some(_) => {}
            }
        }
        let ordinal =
            |pod: &Value| text(pod, "name").rsplit('-').next().and_then(|n| n.parse::<i64>().ok()).unwrap_or(0);
        for pod in pods.iter().filter(|pod| !leaving(pod) && ordinal(pod) >= wanted) {
            self.delete(PODS, pod, &json!({})).await;
        }
        let all = count(&pods);
        let current: Vec<Value> = pods.iter().filter(|pod| is_current(pod)).cloned().collect();
        let current = count(&current);
        let complete = current.ready == wanted && all.all == wanted;
        let before = set["status"]["currentRevision"].clone();
        let status = json!({
            "observedGeneration": set["metadata"]["generation"], "replicas": all.all, "readyReplicas": all.ready,
            "availableReplicas": all.ready, "updatedReplicas": current.all, "updateRevision": revision,
            "currentRevision": if complete || before.is_null() { json!(revision) } else { before },
            "currentReplicas": if complete || all.all == current.all { current.all } else { all.all - current.all },
            "collisionCount": 0,
        });
        self.status(STATEFUL_SETS, set, &status, AGENT).await;
    }

    async fn daemon_set(&mut self, set: &Value) {
        let revision = revision(set);
        let pods = self.owned(PODS, set);
        let nodes: Vec<Value> = self
            .all("/api/v1/nodes")
            .iter()
            .filter(|node| suits(node, &set["spec"]["template"]["spec"], true))
            .cloned()
            .collect();
        let on = |pod: &Value, node: &Value| pod["spec"]["nodeName"] == node["metadata"]["name"];
        let is_current = |pod: &Value| pod["metadata"]["labels"]["controller-revision-hash"] == revision.as_str();
        for node in &nodes {
            match pods.iter().find(|pod| on(pod, node)) {
                None => {
                    let metadata = json!({"generateName": format!("{}-", text(set, "name"))});
                    let mut pod = pod_of(set, "DaemonSet", "apps/v1", metadata);
                    pod["metadata"]["labels"]["controller-revision-hash"] = revision.clone().into();
                    pod["spec"]["nodeName"] = node["metadata"]["name"].clone();
                    self.create(PODS, &pod, AGENT).await;
                }
                Some(pod) if !leaving(pod) && !is_current(pod) => self.delete(PODS, pod, &json!({})).await,
                Some(_) => {}
            }
        }
        for pod in pods.iter().filter(|pod| !leaving(pod) && !nodes.iter().any(|node| on(pod, node))) {
            self.delete(PODS, pod, &json!({})).await;
        }
        let all = count(&pods);
        let updated = pods.iter().filter(|pod| is_current(pod) && !leaving(pod)).count();
        let status = json!({
            "observedGeneration": set["metadata"]["generation"], "desiredNumberScheduled": nodes.len(),
            "currentNumberScheduled": all.all, "updatedNumberScheduled": updated, "numberReady": all.ready,
            "numberAvailable": all.ready, "numberMisscheduled": 0,
        });
        self.status(DAEMON_SETS, set, &status, AGENT).await;
    }

    async fn job(&mut self, job: &Value) {
        let wanted = job["spec"]["completions"].as_i64().unwrap_or(1);
        let conditions = job["status"]["conditions"].as_array();
        if job["spec"]["suspend"] == true || conditions.is_some_and(|list| !list.is_empty()) {
            return;
        }
        let pods = self.owned(PODS, job);
        let count = count(&pods);
        let at_once = job["spec"]["parallelism"].as_i64().unwrap_or(1);
        let running = count.all - count.succeeded;
        for _ in running..at_once.min(wanted - count.succeeded) {
            let metadata = json!({"generateName": format!("{}-", text(job, "name"))});
            self.create(PODS, &pod_of(job, "Job", "batch/v1", metadata), AGENT).await;
        }
        let now = self.timestamp();
        let started = job["status"]["startTime"].as_str().map_or_else(|| now.clone(), String::from);
        let mut status = json!({
            "startTime": started, "active": running, "ready": count.ready, "succeeded": count.succeeded,
        });
        if count.succeeded >= wanted {
            status["completionTime"] = now.clone().into();
            status["active"] = Value::Null;
            let message = "Reached expected number of succeeded pods";
            status["conditions"] = json!([
                condition(job, "SuccessCriteriaMet", true, "CompletionsReached", message, &now),
                condition(job, "Complete", true, "CompletionsReached", message, &now),
            ]);
        }
        self.status(JOBS, job, &status, AGENT).await;
    }

    async fn budget(&mut self, budget: &Value) {
        let selector = Selector::document(&budget["spec"]["selector"]);
        let namespace = text(budget, "namespace").to_string();
        let pods = self.all(PODS);
        let pods: Vec<Value> =
            pods.iter().filter(|pod| text(pod, "namespace") == namespace && selector.matches(pod)).cloned().collect();
        let count = count(&pods);
        let share = |value: &Value| match value {
            Value::String(text) => {
                let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
                (count.all * percent + 99) / 100
            }
            other => other.as_i64().unwrap_or(0),
        };
        let spec = &budget["spec"];
        let desired = if spec["minAvailable"].is_null() {
            count.all - share(&spec["maxUnavailable"])
        } else {
            share(&spec["minAvailable"])
        };
        let status = json!({
            "observedGeneration": budget["metadata"]["generation"], "expectedPods": count.all,
            "currentHealthy": count.ready, "desiredHealthy": desired.max(0),
            "disruptionsAllowed": (count.ready - desired).max(0),
        });
        self.status("/apis/policy/v1/poddisruptionbudgets", budget, &status, AGENT).await;
    }
}

fn pod_of(owner: &Value, kind: &str, api_version: &str, mut metadata: Value) -> Value {
    let template = &owner["spec"]["template"];
    metadata["namespace"] = text(owner, "namespace").into();
    metadata["labels"] = template["metadata"]["labels"].clone();
    metadata["annotations"] = template["metadata"]["annotations"].clone();
    metadata["ownerReferences"] = owned_by(owner, api_version, kind);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
}

/// Returns whether a pod of this spec may run on the node; those of a DaemonSet are not kept away by a node's state.
pub(super) fn suits(node: &Value, spec: &Value, daemon: bool) -> bool {
    let labels = &node["metadata"]["labels"];
    let selected =
        spec["nodeSelector"].as_object().into_iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let tolerates = |taint: &Value| {
        spec["tolerations"].as_array().into_iter().flatten().any(|toleration| {
            let key = toleration["key"].is_null() || toleration["key"] == taint["key"];
            let effect = toleration["effect"].is_null() || toleration["effect"] == taint["effect"];
            let value = toleration["operator"] == "Exists" || toleration["value"] == taint["value"];
            key && effect && value
        })
    };
    let state =
        |taint: &Value| daemon && taint["key"].as_str().is_some_and(|key| key.starts_with("node.kubernetes.io/"));
    let taints = node["spec"]["taints"].as_array().into_iter().flatten();
    let repelled =
        taints.filter(|taint| taint["effect"] != "PreferNoSchedule").any(|taint| !tolerates(taint) && !state(taint));
    let conditions = node["status"]["conditions"].as_array();
    let ready = conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True");
    selected && !repelled && (ready || daemon) && (node["spec"]["unschedulable"] != true || daemon)
}
