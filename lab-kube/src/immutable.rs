//! Which changes an object takes in place, which need another object, and which nothing can do.
//!
//! What the API server refuses with 422 at the end of an `up` is known before it: the fields below are fixed once an
//! object exists (validation of Kubernetes 1.34). Both sides are declared bodies, so a field that is absent on one side
//! stands for its default.

use crate::body::plain;
use crate::json::{group, text, truth};
use crate::quantity::nanos;
use serde_json::{Map, Value};

/// What a change of the declared body means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The object takes the change.
    InPlace,
    /// Another object has to take its place: it keeps the name, so the old one is deleted first.
    Replace(Vec<Reason>),
    /// Neither is right: what the user has to do is said in the reasons.
    Refused(Vec<Reason>),
}

/// One reason, at one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The JSON pointer of the field.
    pub path: String,
    /// Why, for a person.
    pub text: String,
}

/// A field that is fixed once the object exists.
struct Fixed {
    path: &'static str,
    /// What the server puts there when nothing is declared, as JSON; empty when it puts nothing there.
    default: &'static str,
    why: &'static str,
}

const fn fixed(path: &'static str, default: &'static str, why: &'static str) -> Fixed {
    Fixed { path, default, why }
}

const SELECTOR: Fixed = fixed("/spec/selector", "", "which pods belong to it is fixed");
const ROLE: &str = "the role of a binding is fixed";
const JOB: &str = "what a Job runs is fixed";
const CLAIM: &str = "all of a claim but its size is fixed";

fn fixed_fields(group: &str, kind: &str) -> Vec<Fixed> {
    match (group, kind) {
        ("apps", "Deployment" | "DaemonSet" | "ReplicaSet") => vec![SELECTOR],
        ("apps", "StatefulSet") => vec![
            SELECTOR,
            fixed("/spec/serviceName", "\"\"", "the service that names its pods is fixed"),
            fixed("/spec/podManagementPolicy", "\"OrderedReady\"", "the order of its pods is fixed"),
            fixed(
                "/spec/volumeClaimTemplates",
                "[]",
                "the templates of its claims are fixed, and claims that exist do not follow them",
            ),
        ],
        ("batch", "Job") => vec![
            fixed("/spec/template", "", JOB),
            SELECTOR,
            fixed("/spec/completions", "", JOB),
            fixed("/spec/completionMode", "\"NonIndexed\"", JOB),
            fixed("/spec/podFailurePolicy", "", JOB),
            fixed("/spec/successPolicy", "", JOB),
            fixed("/spec/backoffLimitPerIndex", "", JOB),
            fixed("/spec/managedBy", "", JOB),
        ],
        ("", "PersistentVolumeClaim") => vec![
            fixed("/spec/accessModes", "[]", CLAIM),
            fixed("/spec/selector", "", CLAIM),
            fixed("/spec/storageClassName", "", CLAIM),
            fixed("/spec/volumeName", "", CLAIM),
            fixed("/spec/volumeMode", "\"Filesystem\"", CLAIM),
            fixed("/spec/dataSource", "", CLAIM),
            fixed("/spec/dataSourceRef", "", CLAIM),
        ],
        ("", "PersistentVolume") => vec![
            fixed("/spec/csi", "", "where a volume lies is fixed"),
            fixed("/spec/nfs", "", "where a volume lies is fixed"),
            fixed("/spec/hostPath", "", "where a volume lies is fixed"),
            fixed("/spec/local", "", "where a volume lies is fixed"),
            fixed("/spec/iscsi", "", "where a volume lies is fixed"),
            fixed("/spec/fc", "", "where a volume lies is fixed"),
            fixed("/spec/volumeMode", "\"Filesystem\"", "how a volume is used is fixed"),
            fixed("/spec/nodeAffinity", "", "the nodes that reach a volume are fixed"),
        ],
        ("", "Service") => vec![
            fixed("/spec/clusterIP", "", "the cluster address of a Service is fixed"),
            fixed("/spec/clusterIPs", "", "the cluster addresses of a Service are fixed"),
        ],
        ("", "Secret") => vec![fixed("/type", "\"Opaque\"", "the type of a Secret is fixed")],
        ("storage.k8s.io", "StorageClass") => vec![
            fixed("/provisioner", "", "who provisions is fixed"),
            fixed("/parameters", "{}", "how a class provisions is fixed"),
            fixed("/reclaimPolicy", "\"Delete\"", "what becomes of released volumes is fixed"),
            fixed("/volumeBindingMode", "\"Immediate\"", "when volumes are bound is fixed"),
        ],
        ("storage.k8s.io", "CSIDriver") => vec![
            fixed("/spec/attachRequired", "true", "whether a driver attaches is fixed"),
            fixed("/spec/volumeLifecycleModes", "[\"Persistent\"]", "the volumes of a driver are fixed"),
        ],
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            vec![fixed("/roleRef/kind", "", ROLE), fixed("/roleRef/name", "", ROLE)]
        }
        ("networking.k8s.io", "IngressClass") => {
            vec![fixed("/spec/controller", "", "the controller of a class is fixed")]
        }
        ("scheduling.k8s.io", "PriorityClass") => vec![
            fixed("/value", "0", "the value of a priority is fixed"),
            fixed("/preemptionPolicy", "\"PreemptLowerPriority\"", "whether a priority preempts is fixed"),
        ],
        ("node.k8s.io", "RuntimeClass") => vec![fixed("/handler", "", "the handler of a runtime is fixed")],
        ("discovery.k8s.io", "EndpointSlice") => vec![fixed("/addressType", "", "the kind of address is fixed")],
        ("apiextensions.k8s.io", "CustomResourceDefinition") => vec![
            fixed("/spec/group", "", "the group of a definition is fixed"),
            fixed("/spec/names/kind", "", "the kind of a definition is fixed"),
            fixed("/spec/names/plural", "", "the plural of a definition is fixed"),
            fixed("/spec/scope", "", "where its objects live is fixed"),
        ],
        _ => vec![],
    }
}

/// Returns what changing the declared body from `prior` to `next` means.
pub fn verdict(prior: &Value, next: &Value) -> Verdict {
    let (prior, next) = (plain(prior.clone()), plain(next.clone()));
    let mut reasons = Vec::new();
    if group(&prior) != group(&next) {
        reasons.push(reason("/apiVersion", "another group is another object"));
    }
    for (path, why) in [
        ("/kind", "another kind is another object"),
        ("/metadata/namespace", "an object cannot move to another namespace"),
        ("/metadata/name", "an object cannot be renamed"),
    ] {
        if text(&prior, path) != text(&next, path) {
            reasons.push(reason(path, why));
        }
    }
    if !reasons.is_empty() {
        return Verdict::Replace(reasons);
    }
    let (group, kind) = (group(&next), text(&next, "/kind"));
    if (group, kind) == ("", "PersistentVolumeClaim")
        && let Some(shrunk) = shrunk(&prior, &next)
    {
        return Verdict::Refused(vec![shrunk]);
    }
    for field in fixed_fields(group, kind) {
        let default = serde_json::from_str::<Value>(field.default).unwrap_or(Value::Null);
        let side = |body: &Value| body.pointer(field.path).filter(|value| !value.is_null()).unwrap_or(&default).clone();
        if !alike(&side(&prior), &side(&next), false) {
            reasons.push(reason(field.path, field.why));
        }
    }
    match (group, kind) {
        ("", "ConfigMap" | "Secret") => sealed(&prior, &next, &mut reasons),
        ("", "Pod") => pod(&prior, &next, &mut reasons),
        _ => {}
    }
    if reasons.is_empty() { Verdict::InPlace } else { Verdict::Replace(reasons) }
}

fn reason(path: &str, text: impl Into<String>) -> Reason {
    Reason { path: path.to_owned(), text: text.into() }
}

/// Equality as the server sees it: quantities of the same size are the same.
fn alike(one: &Value, other: &Value, quantity: bool) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let amounts = |field: &str| matches!(field, "requests" | "limits" | "capacity");
            one.len() == other.len()
                && one.iter().all(|(field, value)| {
                    other.get(field).is_some_and(|other| alike(value, other, quantity || amounts(field)))
                })
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| alike(one, other, quantity))
        }
        (Value::String(one), Value::String(other)) if quantity => {
            one == other || nanos(one).is_some_and(|size| Some(size) == nanos(other))
        }
        (one, other) => one == other,
    }
}

fn shrunk(prior: &Value, next: &Value) -> Option<Reason> {
    const SIZE: &str = "/spec/resources/requests/storage";
    let (before, after) = (text(prior, SIZE), text(next, SIZE));
    let smaller = nanos(after)? < nanos(before)?;
    smaller.then(|| {
        reason(SIZE, format!("a claim cannot shrink from {before} to {after}: make another claim and copy the data"))
    })
}

/// `immutable: true` seals the data, and the seal itself.
fn sealed(prior: &Value, next: &Value, reasons: &mut Vec<Reason>) {
    if !truth(prior, "/immutable") {
        return;
    }
    if !truth(next, "/immutable") {
        reasons.push(reason("/immutable", "what was declared immutable stays so"));
    }
    let nothing = Value::Object(Map::new());
    for path in ["/data", "/binaryData"] {
        let side = |body: &Value| body.pointer(path).filter(|value| !value.is_null()).unwrap_or(&nothing).clone();
        if side(prior) != side(next) {
            reasons.push(reason(path, "its data was declared immutable"));
        }
    }
}

/// Of a bare Pod only images and the deadline change in place, and tolerations can be added.
fn pod(prior: &Value, next: &Value, reasons: &mut Vec<Reason>) {
    let without = |body: &Value| {
        let mut spec = body.get("spec").cloned().unwrap_or_default();
        if let Some(fields) = spec.as_object_mut() {
            fields.remove("activeDeadlineSeconds");
            fields.remove("tolerations");
        }
        for containers in ["containers", "initContainers"] {
            for container in spec.get_mut(containers).and_then(Value::as_array_mut).into_iter().flatten() {
                container.as_object_mut().map(|fields| fields.remove("image"));
            }
        }
        spec
    };
    let (before, after) = (without(prior), without(next));
    let none = Map::new();
    let (one, other) = (before.as_object().unwrap_or(&none), after.as_object().unwrap_or(&none));
    let mut fields: Vec<&String> = one.keys().chain(other.keys()).collect();
    fields.sort();
    fields.dedup();
    for field in fields {
        let null = Value::Null;
        if !alike(one.get(field).unwrap_or(&null), other.get(field).unwrap_or(&null), false) {
            reasons.push(reason(&format!("/spec/{field}"), "of a Pod only the images change in place"));
        }
    }
    let tolerations = |body: &Value| crate::json::list(body, "/spec/tolerations").to_vec();
    let after = tolerations(next);
    if tolerations(prior).iter().any(|one| !after.contains(one)) {
        reasons.push(reason("/spec/tolerations", "a Pod's tolerations can only be added to"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Checks a change of one object: its kind, the body before and after, and the paths that mean replacement.
    fn check(api_version: &str, kind: &str, prior: Value, next: Value, paths: &[&str]) {
        let body = |mut fields: Value| {
            fields["apiVersion"] = json!(api_version);
            fields["kind"] = json!(kind);
            fields["metadata"] = json!({"name": "x"});
            fields
        };
        match verdict(&body(prior), &body(next)) {
            Verdict::InPlace => assert!(paths.is_empty(), "{kind}: expected {paths:?}"),
            Verdict::Replace(reasons) => {
                assert_eq!(reasons.iter().map(|reason| reason.path.as_str()).collect::<Vec<_>>(), paths, "{kind}");
            }
            Verdict::Refused(reasons) => panic!("{kind}: {reasons:?}"),
        }
    }

    #[test]
    fn a_workload_takes_all_but_its_selector_in_place() {
        let body = |replicas: u8, app: &str| {
            json!({"spec": {"replicas": replicas, "selector": {"matchLabels": {"app": app}},
                "template": {"spec": {"containers": [{"image": app}]}}}})
        };
        check("apps/v1", "Deployment", body(1, "a"), body(2, "a"), &[]);
        for kind in ["Deployment", "DaemonSet", "StatefulSet"] {
            check("apps/v1", kind, body(1, "a"), body(1, "b"), &["/spec/selector"]);
        }
    }

    #[test]
    fn a_stateful_set_is_replaced_for_its_claims_and_its_service() {
        let size = |size: &str| {
            json!([{"metadata": {"name": "c", "creationTimestamp": null},
            "spec": {"resources": {"requests": {"storage": size}}}}])
        };
        let body =
            |service: &str, claims: Value| json!({"spec": {"serviceName": service, "volumeClaimTemplates": claims}});
        check("apps/v1", "StatefulSet", body("a", size("1Gi")), body("a", size("1024Mi")), &[]);
        check(
            "apps/v1",
            "StatefulSet",
            body("a", size("1Gi")),
            body("b", size("2Gi")),
            &["/spec/serviceName", "/spec/volumeClaimTemplates"],
        );
        let explicit = json!({"spec": {"podManagementPolicy": "OrderedReady"}});
        check("apps/v1", "StatefulSet", json!({"spec": {}}), explicit, &[]);
    }

    #[test]
    fn a_job_is_replaced_when_what_it_runs_changes() {
        let body =
            |image: &str, limit: u8| json!({"spec": {"backoffLimit": limit, "template": {"spec": {"i": image}}}});
        check("batch/v1", "Job", body("a", 1), body("a", 2), &[]);
        check("batch/v1", "Job", body("a", 1), body("b", 1), &["/spec/template"]);
    }

    #[test]
    fn a_claim_grows_in_place_and_does_not_shrink() {
        let body = |size: &str, class: &str| {
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "x"},
                "spec": {"storageClassName": class, "resources": {"requests": {"storage": size}}}})
        };
        assert_eq!(verdict(&body("9Gi", "a"), &body("10Gi", "a")), Verdict::InPlace);
        assert_eq!(verdict(&body("10Gi", "a"), &body("10240Mi", "a")), Verdict::InPlace);
        assert!(matches!(verdict(&body("1Gi", "a"), &body("2Gi", "b")), Verdict::Replace(_)));
        // Losing the data by replacing it is not what a smaller number asks for, whatever else changes.
        let Verdict::Refused(reasons) = verdict(&body("10Gi", "a"), &body("9Gi", "b")) else { panic!() };
        assert_eq!(reasons[0].text, "a claim cannot shrink from 10Gi to 9Gi: make another claim and copy the data");
    }

    #[test]
    fn fixed_fields_of_the_smaller_kinds_mean_replacement() {
        check("v1", "Service", json!({}), json!({"spec": {"clusterIP": "None"}}), &["/spec/clusterIP"]);
        check("v1", "Service", json!({"spec": {"type": "ClusterIP"}}), json!({"spec": {"type": "LoadBalancer"}}), &[]);
        check("v1", "Secret", json!({}), json!({"type": "kubernetes.io/tls"}), &["/type"]);
        check("v1", "Secret", json!({}), json!({"type": "Opaque"}), &[]);
        let class = json!({"provisioner": "nfs", "parameters": {"share": "/a"}, "mountOptions": ["hard"]});
        let other = json!({"provisioner": "nfs", "parameters": {"share": "/b"}, "reclaimPolicy": "Delete"});
        check("storage.k8s.io/v1", "StorageClass", class, other, &["/parameters"]);
        let role = |name: &str| json!({"roleRef": {"kind": "Role", "name": name}, "subjects": [{"name": name}]});
        check("rbac.authorization.k8s.io/v1", "RoleBinding", role("a"), role("b"), &["/roleRef/name"]);
        let volume =
            |server: &str, size: &str| json!({"spec": {"nfs": {"server": server}, "capacity": {"storage": size}}});
        check("v1", "PersistentVolume", volume("a", "1Gi"), volume("b", "2Gi"), &["/spec/nfs"]);
        check("networking.k8s.io/v1", "NetworkPolicy", json!({"spec": {"a": 1}}), json!({"spec": {"a": 2}}), &[]);
        let scope = |scope: &str| json!({"spec": {"group": "a", "scope": scope}});
        let definition = "CustomResourceDefinition";
        check("apiextensions.k8s.io/v1", definition, scope("Cluster"), scope("Namespaced"), &["/spec/scope"]);
    }

    #[test]
    fn immutable_data_means_replacement() {
        let body = |sealed: bool, value: &str| json!({"immutable": sealed, "data": {"a": value}});
        check("v1", "ConfigMap", body(false, "1"), body(true, "2"), &[]);
        check("v1", "ConfigMap", body(true, "1"), body(true, "2"), &["/data"]);
        check("v1", "ConfigMap", body(true, "1"), body(false, "1"), &["/immutable"]);
    }

    #[test]
    fn a_bare_pod_takes_a_new_image_and_nothing_else() {
        let body = |image: &str, node: &str| json!({"spec": {"nodeName": node, "containers": [{"name": "a", "image": image}]}});
        check("v1", "Pod", body("a", "n"), body("b", "n"), &[]);
        check("v1", "Pod", body("a", "n"), body("a", "m"), &["/spec/nodeName"]);
    }

    #[test]
    fn another_name_is_another_object_and_another_version_is_not() {
        let body = |version: &str, name: &str| json!({"apiVersion": version, "kind": "Widget", "metadata": {"name": name, "namespace": "a"}});
        assert_eq!(verdict(&body("e.org/v1", "a"), &body("e.org/v2", "a")), Verdict::InPlace);
        assert!(matches!(verdict(&body("e.org/v1", "a"), &body("e.org/v1", "b")), Verdict::Replace(_)));
        assert!(matches!(verdict(&body("e.org/v1", "a"), &body("f.org/v1", "a")), Verdict::Replace(_)));
    }
}
