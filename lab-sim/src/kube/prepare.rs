//! What the server sets itself before it stores an object: identity, status, allotted values.

use serde_json::{Map, Value, json};

use super::kinds::Kind;
use super::refusal::Refusal;
use super::store::Store;

/// Prepares a new object.
pub(crate) fn for_create(store: &mut Store, kind: &Kind, object: &mut Value) -> Result<(), Refusal> {
    let uid = store.uid();
    let now = store.timestamp();
    let metadata = object["metadata"].as_object_mut().expect("an object has metadata");
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation", "resourceVersion"] {
        metadata.remove(field);
    }
    metadata.insert("uid".into(), uid.into());
    metadata.insert("creationTimestamp".into(), now.clone().into());
    if kind.generation {
        metadata.insert("generation".into(), 1.into());
    }
    if kind.status {
        object.as_object_mut().expect("an object").remove("status");
    }
    if kind.custom.is_some() {
        return Ok(());
    }
    match kind.kind.as_str() {
        "Namespace" => {
            let name = object["metadata"]["name"].clone();
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
            object["spec"] = json!({"finalizers": ["kubernetes"]});
            object["status"] = json!({"phase": "Active"});
        }
        "Service" => service(store, object, None)?,
        "Pod" => pod(object),
        "Job" => job(object),
        "PersistentVolume" => {
            finalizer(object, "kubernetes.io/pv-protection");
            object["status"] = json!({"phase": "Pending"});
        }
        "PersistentVolumeClaim" => {
            finalizer(object, "kubernetes.io/pvc-protection");
            object["status"] = json!({"phase": "Pending"});
            if object["spec"].get("storageClassName").is_none() {
                let annotation = "storageclass.kubernetes.io/is-default-class";
                let default = |class: &&Value| class["metadata"]["annotations"][annotation] == "true";
                if let Some(class) = store.all("storageclasses.storage.k8s.io").find(default) {
                    object["spec"]["storageClassName"] = class["metadata"]["name"].clone();
                }
            }
        }
        "CustomResourceDefinition" => {
            let versions = object["spec"]["versions"].as_array();
            let storage = versions.into_iter().flatten().find(|version| version["storage"] == true);
            let stored = storage.map_or(Value::Null, |version| version["name"].clone());
            let accepted = json!({"kind": "", "plural": ""});
            object["status"] = json!({"acceptedNames": accepted, "conditions": [], "storedVersions": [stored]});
        }
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" => object["status"] = workload_status(&kind.kind),
        "Ingress" => object["status"] = json!({"loadBalancer": {}}),
        "PodDisruptionBudget" => {
            object["status"] =
                json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0});
        }
        _ => {}
    }
    Ok(())
}

fn workload_status(kind: &str) -> Value {
    match kind {
        "StatefulSet" => json!({"replicas": 0, "availableReplicas": 0}),
        "DaemonSet" => json!({
            "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0,
        }),
        "ReplicaSet" => json!({"replicas": 0}),
        _ => json!({}),
    }
}

fn finalizer(object: &mut Value, name: &str) {
    let list = &mut object["metadata"]["finalizers"];
    if !list.is_array() {
        *list = json!([]);
    }
    let list = list.as_array_mut().expect("made a list above");
    if !list.iter().any(|one| one == name) {
        list.push(name.into());
    }
}

/// Allots what a service needs; keeps what `old` was given.
pub(crate) fn service(store: &mut Store, object: &mut Value, old: Option<&Value>) -> Result<(), Refusal> {
    let kind = object["spec"]["type"].as_str().unwrap_or_default().to_string();
    if kind == "ExternalName" {
        if old.is_none() {
            object["status"] = json!({"loadBalancer": {}});
        }
        return Ok(());
    }
    let empty = json!({});
    let before = old.map_or(&empty, |old| &old["spec"]);
    let spec = &mut object["spec"];
    if spec["clusterIP"].is_null() || spec["clusterIP"] == "" {
        spec["clusterIP"] = match before["clusterIP"].as_str() {
            Some(address) => address.into(),
            None => store.cluster_ip().into(),
        };
    }
    let address = spec["clusterIP"].clone();
    for (field, value) in
        [("clusterIPs", json!([address])), ("ipFamilies", json!(["IPv4"])), ("ipFamilyPolicy", json!("SingleStack"))]
    {
        if spec[field].is_null() {
            spec[field] = if before[field].is_null() { value } else { before[field].clone() };
        }
    }
    let wanted = kind == "NodePort" || (kind == "LoadBalancer" && spec["allocateLoadBalancerNodePorts"] != false);
    for at in 0..spec["ports"].as_array().map_or(0, Vec::len) {
        let (number, protocol) = (spec["ports"][at]["port"].clone(), spec["ports"][at]["protocol"].clone());
        let earlier = before["ports"].as_array().into_iter().flatten();
        let earlier = earlier.filter(|port| port["port"] == number && port["protocol"] == protocol);
        let earlier = earlier.map(|port| port["nodePort"].clone()).find(Value::is_number);
        let port = &mut spec["ports"][at];
        if !wanted {
            if old.is_some_and(|old| old["spec"]["type"] != kind.as_str())
                && let Some(port) = port.as_object_mut()
            {
                port.remove("nodePort");
            }
        } else if port["nodePort"].is_null() {
            port["nodePort"] = earlier.unwrap_or_else(|| store.node_port().into());
        }
    }
    if old.is_none() {
        object["status"] = json!({"loadBalancer": {}});
    }
    super::default::strip_nulls(object);
    Ok(())
}

fn pod(object: &mut Value) {
    object["status"] = json!({"phase": "Pending", "qosClass": "BestEffort"});
    let containers = object["spec"]["containers"].as_array();
    let demanding = |container: &Value| {
        ["requests", "limits"].iter().any(|f| container["resources"][*f].as_object().is_some_and(|m| !m.is_empty()))
    };
    if containers.into_iter().flatten().any(demanding) {
        object["status"]["qosClass"] = "Burstable".into();
    }
    let spec = object["spec"].as_object_mut().expect("validated before");
    for (name, value) in [
        ("serviceAccountName", json!("default")),
        ("serviceAccount", json!("default")),
        ("priority", json!(0)),
        ("preemptionPolicy", json!("PreemptLowerPriority")),
    ] {
        spec.entry(name).or_insert(value);
    }
    let tolerations = spec.entry("tolerations").or_insert(json!([]));
    for taint in ["not-ready", "unreachable"] {
        let key = format!("node.kubernetes.io/{taint}");
        if let Some(list) = tolerations.as_array_mut()
            && !list.iter().any(|toleration| toleration["key"] == key.as_str() || toleration["key"].is_null())
        {
            list.push(json!({"effect": "NoExecute", "key": key, "operator": "Exists", "tolerationSeconds": 300}));
        }
    }
}

fn job(object: &mut Value) {
    let (uid, name) = (object["metadata"]["uid"].clone(), object["metadata"]["name"].clone());
    object["status"] = json!({});
    if object["spec"]["manualSelector"] == true {
        return;
    }
    let labels = json!({
        "batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": name,
        "controller-uid": uid, "job-name": name,
    });
    let template = &mut object["spec"]["template"]["metadata"]["labels"];
    if !template.is_object() {
        *template = Value::Object(Map::new());
    }
    for (key, value) in labels.as_object().cloned().unwrap_or_default() {
        template[key] = value;
    }
    if object["metadata"]["labels"].is_null() {
        object["metadata"]["labels"] = object["spec"]["template"]["metadata"]["labels"].clone();
    }
    object["spec"]["selector"] = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
}

/// Prepares an object that takes the place of `old`.
pub(crate) fn for_update(store: &mut Store, kind: &Kind, object: &mut Value, old: &Value) -> Result<(), Refusal> {
    for field in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        let before = old["metadata"][field].clone();
        let metadata = object["metadata"].as_object_mut().expect("an object has metadata");
        if before.is_null() {
            metadata.remove(field);
        } else {
            metadata.insert(field.into(), before);
        }
    }
    if object["metadata"]["uid"].as_str().is_none_or(str::is_empty) {
        object["metadata"]["uid"] = old["metadata"]["uid"].clone();
    }
    if kind.custom.is_some() {
        return Ok(());
    }
    match kind.kind.as_str() {
        "Service" => service(store, object, Some(old))?,
        "Namespace" => object["spec"] = old["spec"].clone(),
        // What the server filled in is not taken away by a client that does not know it.
        "Job" if object["spec"]["manualSelector"] != true && object["spec"]["selector"].is_null() => {
            object["spec"]["selector"] = old["spec"]["selector"].clone();
        }
        "PersistentVolumeClaim" if object["spec"].get("storageClassName").is_none() => {
            if let Some(class) = old["spec"].get("storageClassName") {
                object["spec"]["storageClassName"] = class.clone();
            }
        }
        _ => {}
    }
    Ok(())
}

/// Returns the resourceVersion of an object, 0 for none; one that is no number is refused.
pub(crate) fn revision(object: &Value) -> Result<u64, Refusal> {
    match object["metadata"]["resourceVersion"].as_str() {
        None | Some("") => Ok(0),
        Some(text) => {
            text.parse().map_err(|_| Refusal::internal(format!("strconv.ParseUint: parsing {text:?}: invalid syntax")))
        }
    }
}
