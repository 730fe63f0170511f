//! What the server fills in where a built-in object says nothing.
//!
//! Enough that a client which compares live with desired field by field sees the differences it would see on a real
//! server. Values that the server allots (cluster addresses, node ports) are the store's business.

use serde_json::{Value, json};

use super::kinds::Kind;
use super::quantity;
use super::schema::{Field, Schema};

/// Fills in the defaults of `object`, and writes quantities in their canonical form.
pub(crate) fn default(kind: &Kind, object: &mut Value) {
    // What is empty of the metadata is not written.
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        let empty = |value: &Value| *value == json!({}) || *value == json!([]);
        let may_be = ["labels", "annotations", "finalizers", "ownerReferences"];
        metadata.retain(|name, value| !(may_be.contains(&name.as_str()) && empty(value)));
    }
    if kind.custom.is_some() {
        super::decode::default(kind.schema(), object);
        return;
    }
    strip_nulls(object);
    quantities(kind.schema(), object);
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Pod") => {
            pod(&mut object["spec"]);
            set(&mut object["spec"], "enableServiceLinks", json!(true));
        }
        ("", "Service") => service(object),
        ("", "Secret") => secret(object),
        ("", "PersistentVolume") => {
            set(&mut object["spec"], "persistentVolumeReclaimPolicy", json!("Retain"));
            set(&mut object["spec"], "volumeMode", json!("Filesystem"));
        }
        ("", "PersistentVolumeClaim") => set(&mut object["spec"], "volumeMode", json!("Filesystem")),
        ("apps", "Deployment") => {
            let spec = &mut object["spec"];
            set(spec, "replicas", json!(1));
            set(spec, "revisionHistoryLimit", json!(10));
            set(spec, "progressDeadlineSeconds", json!(600));
            rolling(spec, "strategy", json!({"maxUnavailable": "25%", "maxSurge": "25%"}));
            pod(&mut spec["template"]["spec"]);
        }
        ("apps", "ReplicaSet") => {
            set(&mut object["spec"], "replicas", json!(1));
            pod(&mut object["spec"]["template"]["spec"]);
        }
        ("apps", "DaemonSet") => {
            let spec = &mut object["spec"];
            set(spec, "revisionHistoryLimit", json!(10));
            rolling(spec, "updateStrategy", json!({"maxUnavailable": 1, "maxSurge": 0}));
            pod(&mut spec["template"]["spec"]);
        }
        ("apps", "StatefulSet") => stateful_set(&mut object["spec"]),
        ("batch", "Job") => job(&mut object["spec"]),
        ("networking.k8s.io", "NetworkPolicy") => network_policy(&mut object["spec"]),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => binding(object),
        ("storage.k8s.io", "StorageClass") => {
            set(object, "reclaimPolicy", json!("Delete"));
            set(object, "volumeBindingMode", json!("Immediate"));
        }
        ("storage.k8s.io", "CSIDriver") => {
            for (name, value) in [
                ("attachRequired", json!(true)),
                ("podInfoOnMount", json!(false)),
                ("storageCapacity", json!(false)),
                ("fsGroupPolicy", json!("ReadWriteOnceWithFSType")),
                ("volumeLifecycleModes", json!(["Persistent"])),
                ("requiresRepublish", json!(false)),
                ("seLinuxMount", json!(false)),
            ] {
                set(&mut object["spec"], name, value);
            }
        }
        ("apiextensions.k8s.io", _) => definition(&mut object["spec"]),
        ("admissionregistration.k8s.io", _) => {
            object["webhooks"].as_array_mut().into_iter().flatten().for_each(webhook)
        }
        _ => {}
    }
    // Reading a field that is not there leaves null behind.
    strip_nulls(object);
}

fn set(at: &mut Value, name: &str, value: Value) {
    if let Some(map) = at.as_object_mut()
        && map.get(name).is_none_or(Value::is_null)
    {
        map.insert(name.into(), value);
    }
}

/// Removes what is null: an absent field, to the server.
pub(crate) fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

fn quantities(schema: Schema<'_>, value: &mut Value) {
    if schema.is_quantity() {
        let text = value.as_str().map_or_else(|| value.to_string(), String::from);
        if let Some(canonical) = quantity::canonical(&text) {
            *value = canonical.into();
        }
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                if let Field::Declared(below) | Field::Entry(below) = schema.field(name) {
                    quantities(below, value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| quantities(schema.items(), item)),
        _ => {}
    }
}

fn rolling(spec: &mut Value, field: &str, update: Value) {
    set(spec, field, json!({}));
    set(&mut spec[field], "type", json!("RollingUpdate"));
    if spec[field]["type"] == "RollingUpdate" {
        set(&mut spec[field], "rollingUpdate", json!({}));
        for (name, value) in update.as_object().cloned().unwrap_or_default() {
            set(&mut spec[field]["rollingUpdate"], &name, value);
        }
    }
}

fn pod(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    set(spec, "restartPolicy", json!("Always"));
    set(spec, "dnsPolicy", json!("ClusterFirst"));
    set(spec, "schedulerName", json!("default-scheduler"));
    set(spec, "terminationGracePeriodSeconds", json!(30));
    set(spec, "securityContext", json!({}));
    if let Some(account) = spec["serviceAccountName"].as_str().map(String::from) {
        spec["serviceAccount"] = account.into();
    }
    let host_network = spec["hostNetwork"] == true;
    for list in ["containers", "initContainers"] {
        spec[list].as_array_mut().into_iter().flatten().for_each(|one| container(one, host_network));
    }
    spec["volumes"].as_array_mut().into_iter().flatten().for_each(volume);
}

fn container(container: &mut Value, host_network: bool) {
    set(container, "terminationMessagePath", json!("/dev/termination-log"));
    set(container, "terminationMessagePolicy", json!("File"));
    set(container, "resources", json!({}));
    let image = container["image"].as_str().unwrap_or_default();
    let name = image.split('@').next().unwrap_or_default();
    let tag = name.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
    let latest = !image.contains('@') && tag.is_none_or(|tag| tag == "latest");
    set(container, "imagePullPolicy", json!(if latest { "Always" } else { "IfNotPresent" }));
    for port in container["ports"].as_array_mut().into_iter().flatten() {
        set(port, "protocol", json!("TCP"));
        let number = port["containerPort"].clone();
        if host_network {
            set(port, "hostPort", number);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = &mut container[probe];
        if probe.is_object() {
            set(probe, "timeoutSeconds", json!(1));
            set(probe, "periodSeconds", json!(10));
            set(probe, "successThreshold", json!(1));
            set(probe, "failureThreshold", json!(3));
            http_get(&mut probe["httpGet"]);
            set(&mut probe["grpc"], "service", json!(""));
        }
    }
    for hook in ["postStart", "preStop"] {
        if container["lifecycle"][hook].is_object() {
            http_get(&mut container["lifecycle"][hook]["httpGet"]);
        }
    }
    for variable in container["env"].as_array_mut().into_iter().flatten() {
        if variable["valueFrom"].is_object() {
            set(&mut variable["valueFrom"]["fieldRef"], "apiVersion", json!("v1"));
        }
    }
}

fn http_get(action: &mut Value) {
    set(action, "path", json!("/"));
    set(action, "scheme", json!("HTTP"));
}

fn volume(volume: &mut Value) {
    if volume.as_object().is_some_and(|map| map.len() == 1) {
        set(volume, "emptyDir", json!({}));
    }
    for source in ["configMap", "secret", "downwardAPI", "projected"] {
        set(&mut volume[source], "defaultMode", json!(420));
    }
    set(&mut volume["hostPath"], "type", json!(""));
    if !volume["projected"].is_object() {
        return;
    }
    for source in volume["projected"]["sources"].as_array_mut().into_iter().flatten() {
        set(&mut source["serviceAccountToken"], "expirationSeconds", json!(3600));
    }
}

fn service(object: &mut Value) {
    let spec = &mut object["spec"];
    set(spec, "sessionAffinity", json!("None"));
    set(spec, "type", json!("ClusterIP"));
    let kind = spec["type"].as_str().unwrap_or_default().to_string();
    for port in spec["ports"].as_array_mut().into_iter().flatten() {
        set(port, "protocol", json!("TCP"));
        let number = port["port"].clone();
        set(port, "targetPort", number);
    }
    if kind != "ExternalName" {
        set(spec, "internalTrafficPolicy", json!("Cluster"));
    }
    if kind == "NodePort" || kind == "LoadBalancer" {
        set(spec, "externalTrafficPolicy", json!("Cluster"));
    }
    if kind == "LoadBalancer" {
        set(spec, "allocateLoadBalancerNodePorts", json!(true));
    }
    if spec["sessionAffinity"] == "ClientIP" {
        set(spec, "sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": 10800}}));
    }
}

fn secret(object: &mut Value) {
    use base64::Engine;
    set(object, "type", json!("Opaque"));
    let Some(Value::Object(plain)) = object.as_object_mut().and_then(|map| map.remove("stringData")) else { return };
    set(object, "data", json!({}));
    for (name, value) in plain {
        let text = value.as_str().unwrap_or_default();
        object["data"][name] = base64::engine::general_purpose::STANDARD.encode(text).into();
    }
}

fn stateful_set(spec: &mut Value) {
    set(spec, "podManagementPolicy", json!("OrderedReady"));
    set(spec, "replicas", json!(1));
    set(spec, "revisionHistoryLimit", json!(10));
    rolling(spec, "updateStrategy", json!({"partition": 0}));
    set(spec, "persistentVolumeClaimRetentionPolicy", json!({}));
    for field in ["whenDeleted", "whenScaled"] {
        set(&mut spec["persistentVolumeClaimRetentionPolicy"], field, json!("Retain"));
    }
    for claim in spec["volumeClaimTemplates"].as_array_mut().into_iter().flatten() {
        set(claim, "apiVersion", json!("v1"));
        set(claim, "kind", json!("PersistentVolumeClaim"));
        set(&mut claim["spec"], "volumeMode", json!("Filesystem"));
        set(claim, "status", json!({"phase": "Pending"}));
    }
    pod(&mut spec["template"]["spec"]);
}

fn job(spec: &mut Value) {
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        set(spec, "completions", json!(1));
    }
    set(spec, "parallelism", json!(1));
    set(spec, "backoffLimit", json!(6));
    set(spec, "completionMode", json!("NonIndexed"));
    set(spec, "suspend", json!(false));
    set(spec, "podReplacementPolicy", json!("TerminatingOrFailed"));
    set(spec, "manualSelector", json!(false));
    pod(&mut spec["template"]["spec"]);
}

fn network_policy(spec: &mut Value) {
    let mut types = vec!["Ingress"];
    if spec["egress"].as_array().is_some_and(|rules| !rules.is_empty()) {
        types.push("Egress");
    }
    set(spec, "policyTypes", json!(types));
    for direction in ["ingress", "egress"] {
        for rule in spec[direction].as_array_mut().into_iter().flatten() {
            for port in rule["ports"].as_array_mut().into_iter().flatten() {
                set(port, "protocol", json!("TCP"));
            }
        }
    }
}

fn binding(object: &mut Value) {
    let group = json!("rbac.authorization.k8s.io");
    set(&mut object["roleRef"], "apiGroup", group.clone());
    for subject in object["subjects"].as_array_mut().into_iter().flatten() {
        if subject["kind"] == "User" || subject["kind"] == "Group" {
            set(subject, "apiGroup", group.clone());
        }
    }
}

fn definition(spec: &mut Value) {
    let kind = spec["names"]["kind"].as_str().unwrap_or_default().to_string();
    set(&mut spec["names"], "singular", kind.to_lowercase().into());
    set(&mut spec["names"], "listKind", format!("{kind}List").into());
    set(spec, "conversion", json!({"strategy": "None"}));
}

fn webhook(webhook: &mut Value) {
    for (name, value) in [
        ("matchPolicy", json!("Equivalent")),
        ("failurePolicy", json!("Fail")),
        ("timeoutSeconds", json!(10)),
        ("namespaceSelector", json!({})),
        ("objectSelector", json!({})),
    ] {
        set(webhook, name, value);
    }
    for rule in webhook["rules"].as_array_mut().into_iter().flatten() {
        set(rule, "scope", json!("*"));
    }
    if webhook["clientConfig"].is_object() {
        set(&mut webhook["clientConfig"]["service"], "port", json!(443));
    }
}
