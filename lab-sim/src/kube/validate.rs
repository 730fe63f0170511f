//! What the server refuses about an object: names, required fields, enumerations, what cannot change.

use serde_json::{Map, Value, json};

use super::decode;
use super::kinds::Kind;
use super::quantity;
use super::refusal::Flaw;
use super::schema::{Field, Schema};

/// Returns what is wrong with `object`, which takes the place of `old` (null for a create).
pub(crate) fn flaws(kind: &Kind, object: &Value, old: &Value) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    metadata(kind, object, old, &mut flaws);
    if kind.custom.is_some() {
        decode::check(kind.schema(), object, "", &mut flaws);
        return flaws;
    }
    required(kind.schema(), object, "", &mut flaws);
    if !flaws.is_empty() {
        return flaws;
    }
    enumerations(&kind.kind, object, "", &mut flaws);
    rules(kind, object, &mut flaws);
    if !old.is_null() {
        unchanged(kind, object, old, &mut flaws);
    }
    flaws
}

fn metadata(kind: &Kind, object: &Value, old: &Value, flaws: &mut Vec<Flaw>) {
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        flaws.push(Flaw::required("metadata.name", "name or generateName is required"));
    } else if let Some(problem) = name_problem(kind, name)
        && old.is_null()
    {
        flaws.push(Flaw::invalid("metadata.name", &metadata["name"], problem));
    }
    for (key, value) in metadata["labels"].as_object().into_iter().flatten() {
        if !qualified(key) {
            flaws.push(Flaw::invalid("metadata.labels", &json!(key), QUALIFIED));
        }
        if !value.as_str().is_some_and(label_value) {
            flaws.push(Flaw::invalid("metadata.labels", value, LABEL_VALUE));
        }
    }
    for key in metadata["annotations"].as_object().into_iter().flatten().map(|(key, _)| key) {
        if !qualified(&key.to_lowercase()) {
            flaws.push(Flaw::invalid("metadata.annotations", &json!(key), QUALIFIED));
        }
    }
    let standard = ["foregroundDeletion", "orphan", "kubernetes"];
    for (at, finalizer) in metadata["finalizers"].as_array().into_iter().flatten().enumerate() {
        let text = finalizer.as_str().unwrap_or_default();
        if !text.contains('/') && !standard.contains(&text) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            flaws.push(Flaw::invalid(format!("metadata.finalizers[{at}]"), finalizer, detail));
        }
    }
    for (at, owner) in metadata["ownerReferences"].as_array().into_iter().flatten().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().is_none_or(str::is_empty) {
                let path = format!("metadata.ownerReferences[{at}].{field}");
                flaws.push(Flaw::invalid(path, &json!(""), "must not be empty"));
            }
        }
    }
    if old.is_null() {
        return;
    }
    for field in ["uid", "name", "namespace"] {
        if metadata[field] != old["metadata"][field] {
            flaws.push(Flaw::invalid(format!("metadata.{field}"), &metadata[field], IMMUTABLE));
        }
    }
    if old["metadata"]["deletionTimestamp"].is_string() {
        let before: Vec<&Value> = old["metadata"]["finalizers"].as_array().into_iter().flatten().collect();
        let after = metadata["finalizers"].as_array().into_iter().flatten();
        let added: Vec<&Value> = after.filter(|finalizer| !before.contains(finalizer)).collect();
        if !added.is_empty() {
            let detail = "no new finalizers can be added if the object is being deleted, found new finalizers";
            flaws.push(Flaw::forbidden("metadata.finalizers", &format!("{detail} {added:?}")));
        }
    }
}

const IMMUTABLE: &str = "field is immutable";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const DNS_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";

fn name_problem(kind: &Kind, name: &str) -> Option<&'static str> {
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("rbac.authorization.k8s.io", _) => {
            (name == "." || name == ".." || name.contains(['/', '%'])).then_some("may not contain '/'")
        }
        ("", "Service") => (!label(name) || name.starts_with(|c: char| c.is_ascii_digit())).then_some(DNS_1035),
        ("", "Namespace") => (!label(name)).then_some(LABEL),
        _ => (name.len() > 253 || !name.split('.').all(part)).then_some(SUBDOMAIN),
    }
}

fn part(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    !text.is_empty() && text.chars().all(|c| inner(c) || c == '-') && text.starts_with(inner) && text.ends_with(inner)
}

fn label(text: &str) -> bool {
    text.len() <= 63 && part(text)
}

fn word(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric();
    text.len() <= 63
        && text.starts_with(inner)
        && text.ends_with(inner)
        && text.chars().all(|c| inner(c) || "-_.".contains(c))
}

fn label_value(text: &str) -> bool {
    text.is_empty() || word(text)
}

fn qualified(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => prefix.split('.').all(part) && word(name),
        None => word(text),
    }
}

fn required(schema: Schema<'_>, value: &Value, path: &str, flaws: &mut Vec<Flaw>) {
    match value {
        Value::Object(map) => {
            for name in schema.required() {
                let Field::Declared(property) = schema.field(name) else { continue };
                // The zero value of these is as good as any.
                let lenient = property.kind() == Some("boolean") || matches!(name, "podSelector" | "endpoints");
                let missing = map.get(name).is_none_or(|value| value == "");
                if missing && !lenient {
                    let detail = if name == "pathType" { "pathType must be specified" } else { "" };
                    flaws.push(Flaw::required(joined(path, name), detail));
                }
            }
            for (name, value) in map {
                // Status is what controllers report, managed fields and the like are the server's.
                if path.is_empty() && (name == "status" || name == "metadata") {
                    continue;
                }
                if let Field::Declared(below) | Field::Entry(below) = schema.field(name) {
                    let key = matches!(schema.field(name), Field::Entry(_));
                    let path = if key { format!("{path}[{name}]") } else { joined(path, name) };
                    required(below, value, &path, flaws);
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                required(schema.items(), item, &format!("{path}[{at}]"), flaws);
            }
        }
        _ if schema.is_quantity() => {
            let text = value.as_str().unwrap_or_default();
            if quantity::nano(text).is_none() {
                let detail =
                    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
                flaws.push(Flaw::invalid(path, value, detail));
            }
        }
        _ => {}
    }
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_string() } else { format!("{path}.{name}") }
}

// The values that fields of these names may have, wherever they stand in the kinds served here.
const ENUMERATIONS: &[(&str, &[&str])] = &[
    ("protocol", &["SCTP", "TCP", "UDP"]),
    ("imagePullPolicy", &["Always", "IfNotPresent", "Never"]),
    ("dnsPolicy", &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"]),
    ("podManagementPolicy", &["OrderedReady", "Parallel"]),
    ("accessModes", &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"]),
    ("volumeMode", &["Block", "Filesystem"]),
    ("persistentVolumeReclaimPolicy", &["Delete", "Recycle", "Retain"]),
    ("reclaimPolicy", &["Delete", "Retain"]),
    ("volumeBindingMode", &["Immediate", "WaitForFirstConsumer"]),
    ("pathType", &["Exact", "ImplementationSpecific", "Prefix"]),
    ("externalTrafficPolicy", &["Cluster", "Local"]),
    ("internalTrafficPolicy", &["Cluster", "Local"]),
    ("sessionAffinity", &["ClientIP", "None"]),
    ("terminationMessagePolicy", &["FallbackToLogsOnError", "File"]),
    ("completionMode", &["Indexed", "NonIndexed"]),
    ("policyTypes", &["Egress", "Ingress"]),
    ("fsGroupPolicy", &["File", "None", "ReadWriteOnceWithFSType"]),
    ("failurePolicy", &["Fail", "Ignore"]),
    ("matchPolicy", &["Equivalent", "Exact"]),
];

fn enumerations(kind: &str, value: &Value, path: &str, flaws: &mut Vec<Flaw>) {
    // The same words mean other things in a definition's schema and in reports.
    if matches!(kind, "CustomResourceDefinition" | "Event" | "Job" | "ConfigMap" | "Secret") && path == "spec" {
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                if path.is_empty() && matches!(name.as_str(), "metadata" | "status" | "data") {
                    continue;
                }
                let path = joined(path, name);
                let allowed = ENUMERATIONS.iter().find(|(field, _)| field == name).map(|(_, allowed)| *allowed);
                match (allowed, value) {
                    (Some(allowed), Value::String(text)) if !allowed.contains(&text.as_str()) => {
                        flaws.push(Flaw::unsupported(path, value, allowed));
                    }
                    (Some(allowed), Value::Array(items)) => {
                        for item in items.iter().filter(|item| !allowed.contains(&item.as_str().unwrap_or_default())) {
                            flaws.push(Flaw::unsupported(path.clone(), item, allowed));
                        }
                    }
                    _ => enumerations(kind, value, &path, flaws),
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                enumerations(kind, item, &format!("{path}[{at}]"), flaws);
            }
        }
        _ => {}
    }
}

fn rules(kind: &Kind, object: &Value, flaws: &mut Vec<Flaw>) {
    let spec = &object["spec"];
    match kind.kind.as_str() {
        "Deployment" | "DaemonSet" | "StatefulSet" | "ReplicaSet" => {
            workload(spec, flaws);
            if kind.kind != "StatefulSet" {
                pod(&spec["template"]["spec"], "spec.template.spec", flaws);
            }
        }
        "Job" => {
            pod(&spec["template"]["spec"], "spec.template.spec", flaws);
            if spec["template"]["spec"]["restartPolicy"] == "Always" {
                let path = "spec.template.spec.restartPolicy";
                flaws.push(Flaw::required(path, "valid values: \"OnFailure\", \"Never\""));
            }
        }
        "Pod" => pod(spec, "spec", flaws),
        "Service" => service(spec, flaws),
        "PersistentVolumeClaim" => {
            if spec["accessModes"].as_array().is_none_or(Vec::is_empty) {
                flaws.push(Flaw::required("spec.accessModes", "at least 1 access mode is required"));
            }
            if spec["resources"]["requests"]["storage"].is_null() {
                flaws.push(Flaw::required("spec.resources[storage]", ""));
            }
        }
        "PersistentVolume" => {
            if spec["accessModes"].as_array().is_none_or(Vec::is_empty) {
                flaws.push(Flaw::required("spec.accessModes", ""));
            }
            if spec["capacity"].as_object().is_none_or(Map::is_empty) {
                flaws.push(Flaw::required("spec.capacity", ""));
            }
            if !["nfs", "local", "hostPath", "csi", "iscsi", "rbd", "cephfs", "fc"].iter().any(|s| spec[*s].is_object())
            {
                flaws.push(Flaw::required("spec", "must specify a volume type"));
            }
        }
        "CustomResourceDefinition" => definition(object, flaws),
        "NetworkPolicy" | "Ingress" => {}
        _ => {}
    }
}

fn workload(spec: &Value, flaws: &mut Vec<Flaw>) {
    let empty = Map::new();
    let labels = spec["template"]["metadata"]["labels"].as_object().unwrap_or(&empty);
    let wanted = spec["selector"]["matchLabels"].as_object().unwrap_or(&empty);
    if wanted.is_empty() && spec["selector"]["matchExpressions"].as_array().is_none_or(Vec::is_empty) {
        let detail = "empty selector is invalid for deployment";
        flaws.push(Flaw::invalid("spec.selector", &spec["selector"], detail));
    }
    if wanted.iter().any(|(key, value)| labels.get(key) != Some(value)) {
        let detail = "`selector` does not match template `labels`";
        flaws.push(Flaw::invalid("spec.template.metadata.labels", &json!(labels), detail));
    }
    if spec["replicas"].as_i64().is_some_and(|replicas| replicas < 0) {
        flaws.push(Flaw::invalid("spec.replicas", &spec["replicas"], "must be greater than or equal to 0"));
    }
    let policy = &spec["template"]["spec"]["restartPolicy"];
    if policy.is_string() && policy != "Always" {
        flaws.push(Flaw::unsupported("spec.template.spec.restartPolicy", policy, &["Always"]));
    }
}

fn pod(spec: &Value, path: &str, flaws: &mut Vec<Flaw>) {
    if spec["containers"].as_array().is_none_or(Vec::is_empty) {
        flaws.push(Flaw::required(format!("{path}.containers"), ""));
    }
    let volumes: Vec<&Value> = spec["volumes"].as_array().into_iter().flatten().map(|volume| &volume["name"]).collect();
    for list in ["initContainers", "containers"] {
        for (at, container) in spec[list].as_array().into_iter().flatten().enumerate() {
            let path = format!("{path}.{list}[{at}]");
            if container["image"].as_str().is_none_or(str::is_empty) {
                flaws.push(Flaw::required(format!("{path}.image"), ""));
            }
            if !container["name"].as_str().is_some_and(label) {
                flaws.push(Flaw::invalid(format!("{path}.name"), &container["name"], LABEL));
            }
            for (at, mount) in container["volumeMounts"].as_array().into_iter().flatten().enumerate() {
                if !volumes.contains(&&mount["name"]) {
                    flaws.push(Flaw::not_found(format!("{path}.volumeMounts[{at}].name"), &mount["name"]));
                }
            }
            for (at, port) in container["ports"].as_array().into_iter().flatten().enumerate() {
                port_number(&port["containerPort"], format!("{path}.ports[{at}].containerPort"), flaws);
            }
        }
    }
}

fn port_number(value: &Value, path: String, flaws: &mut Vec<Flaw>) {
    if !value.as_i64().is_some_and(|port| (1..=65_535).contains(&port)) {
        flaws.push(Flaw::invalid(path, value, "must be between 1 and 65535, inclusive"));
    }
}

fn service(spec: &Value, flaws: &mut Vec<Flaw>) {
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    if !kinds.contains(&spec["type"].as_str().unwrap_or_default()) {
        flaws.push(Flaw::unsupported("spec.type", &spec["type"], &kinds));
    }
    let ports = spec["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    if ports.is_empty() && spec["type"] != "ExternalName" && spec["clusterIP"] != "None" {
        flaws.push(Flaw::required("spec.ports", ""));
    }
    let mut names = Vec::new();
    for (at, port) in ports.iter().enumerate() {
        port_number(&port["port"], format!("spec.ports[{at}].port"), flaws);
        match port["name"].as_str() {
            None | Some("") if ports.len() > 1 => flaws.push(Flaw::required(format!("spec.ports[{at}].name"), "")),
            None => {}
            Some(name) if names.contains(&name) => {
                flaws.push(Flaw::duplicate(format!("spec.ports[{at}].name"), &port["name"]));
            }
            Some(name) => names.push(name),
        }
    }
}

fn definition(object: &Value, flaws: &mut Vec<Flaw>) {
    let spec = &object["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let expected = format!("{}.{}", text(&spec["names"]["plural"]), text(&spec["group"]));
    if text(&object["metadata"]["name"]) != expected {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        flaws.push(Flaw::invalid("metadata.name", &object["metadata"]["name"], detail));
    }
    let scopes = ["Cluster", "Namespaced"];
    if !scopes.contains(&text(&spec["scope"]).as_str()) {
        flaws.push(Flaw::unsupported("spec.scope", &spec["scope"], &scopes));
    }
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        flaws.push(Flaw::invalid("spec.versions", &spec["versions"], detail));
    }
    for (at, version) in versions.iter().enumerate() {
        if !version["schema"]["openAPIV3Schema"].is_object() {
            let path = format!("spec.versions[{at}].schema.openAPIV3Schema");
            flaws.push(Flaw::required(path, ""));
        }
    }
}

fn unchanged(kind: &Kind, object: &Value, old: &Value, flaws: &mut Vec<Flaw>) {
    let mut same = |path: &[&str]| {
        let at = |value: &Value| path.iter().fold(value.clone(), |value, name| value[*name].clone());
        if at(object) != at(old) {
            flaws.push(Flaw::invalid(path.join("."), &at(object), IMMUTABLE));
        }
    };
    match kind.kind.as_str() {
        "Deployment" | "DaemonSet" | "ReplicaSet" => same(&["spec", "selector"]),
        "Job" => {
            same(&["spec", "completionMode"]);
            same(&["spec", "selector"]);
            same(&["spec", "template"]);
        }
        "StatefulSet" => {
            let may_change = [
                "replicas",
                "ordinals",
                "template",
                "updateStrategy",
                "revisionHistoryLimit",
                "persistentVolumeClaimRetentionPolicy",
                "minReadySeconds",
            ];
            if without(&object["spec"], &may_change) != without(&old["spec"], &may_change) {
                let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
                flaws.push(Flaw::forbidden("spec", detail));
            }
        }
        "PersistentVolumeClaim" => claim(object, old, flaws),
        "StorageClass" => {
            for field in ["parameters", "provisioner", "reclaimPolicy"] {
                if object[field] != old[field] {
                    flaws.push(Flaw::forbidden(field, &format!("updates to {field} are forbidden.")));
                }
            }
            if object["volumeBindingMode"] != old["volumeBindingMode"] {
                flaws.push(Flaw::invalid("volumeBindingMode", &object["volumeBindingMode"], IMMUTABLE));
            }
        }
        "Service" => {
            let (new, old) = (&object["spec"], &old["spec"]);
            let kept = new["type"] != "ExternalName" && old["type"] != "ExternalName";
            if kept && old["clusterIP"].is_string() && new["clusterIP"] != old["clusterIP"] {
                flaws.push(Flaw::invalid("spec.clusterIPs[0]", &json!([new["clusterIP"]]), "may not change once set"));
            }
        }
        "RoleBinding" | "ClusterRoleBinding" if object["roleRef"] != old["roleRef"] => {
            flaws.push(Flaw::invalid("roleRef", &object["roleRef"], "cannot change roleRef"));
        }
        "Secret" | "ConfigMap" => {
            if kind.kind == "Secret" {
                same(&["type"]);
            }
            if old["immutable"] == true {
                for field in ["immutable", "data", "binaryData"] {
                    if object[field] != old[field] {
                        flaws.push(Flaw::forbidden(field, "field is immutable when `immutable` is set"));
                    }
                }
            }
        }
        "IngressClass" => same(&["spec", "controller"]),
        "CustomResourceDefinition" => {
            same(&["spec", "group"]);
            same(&["spec", "names", "kind"]);
            same(&["spec", "names", "plural"]);
            same(&["spec", "scope"]);
        }
        _ => {}
    }
}

fn claim(object: &Value, old: &Value, flaws: &mut Vec<Flaw>) {
    let (mut new, mut before) = (object["spec"].clone(), old["spec"].clone());
    let size = |spec: &Value| spec["resources"]["requests"]["storage"].as_str().and_then(quantity::nano).unwrap_or(0);
    let (asked, had) = (size(&new), size(&before));
    if before["volumeName"].is_null() {
        before["volumeName"] = new["volumeName"].clone();
    }
    if old["status"]["phase"] == "Bound" {
        new["resources"]["requests"]["storage"] = before["resources"]["requests"]["storage"].clone();
        new["volumeAttributesClassName"] = before["volumeAttributesClassName"].clone();
        before["volumeAttributesClassName"] = new["volumeAttributesClassName"].clone();
    }
    if new != before {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n";
        flaws.push(Flaw::forbidden("spec", detail));
    }
    if asked < had {
        let detail = "field can not be less than status.capacity";
        flaws.push(Flaw::forbidden("spec.resources.requests.storage", detail));
    }
}

fn without(spec: &Value, names: &[&str]) -> Value {
    let mut spec = spec.clone();
    if let Some(map) = spec.as_object_mut() {
        map.retain(|name, _| !names.contains(&name.as_str()));
    }
    spec
}
