//! The Kubernetes stand-in, spoken to as a client would: requests in, status codes and bodies out.

mod kube_support;

use kube_support::{Cluster, cause};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn with(mut object: Value, path: &str, value: Value) -> Value {
    let (parent, last) = path.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[last] = value;
    object
}

fn deployment(name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": image, "ports": [{"containerPort": 80}]}]},
            },
        },
    })
}

// --- Creating with server-side apply, and never adopting ---

#[tokio::test]
async fn an_apply_with_version_1_creates_what_is_absent_and_refuses_what_exists() {
    let cluster = Cluster::new();
    let body = with(map("a", json!({"k": "v"})), "/metadata/resourceVersion", json!("1"));
    let created = cluster.apply(MAPS, &body, "lab", "&dryRun=All").await;
    assert_eq!(created.code, 201, "a dry run too");
    let created = cluster.apply(MAPS, &body, "lab", "").await;
    assert_eq!(created.code, 201);
    let managers = created.body["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(managers.len(), 1);
    assert_eq!((&managers[0]["manager"], &managers[0]["operation"]), (&json!("lab"), &json!("Apply")));

    for extra in ["", "&force=true", "&dryRun=All"] {
        let again = cluster.apply(MAPS, &body, "lab", extra).await;
        assert_eq!(again.code, 409, "{extra}");
        assert_eq!(again.body["reason"], "Conflict");
        assert_eq!(
            again.body["message"],
            "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your \
             changes to the latest version and try again"
        );
        assert!(again.body["details"].get("causes").is_none(), "unlike the conflict of two managers");
    }
}

#[tokio::test]
async fn version_0_is_no_precondition_for_a_built_in_kind_and_invalid_for_a_custom_one() {
    let cluster = Cluster::new();
    cluster.apply(MAPS, &map("a", json!({})), "lab", "").await;
    let zero = with(map("a", json!({"k": "v"})), "/metadata/resourceVersion", json!("0"));
    assert_eq!(cluster.apply(MAPS, &zero, "lab", "").await.code, 200);

    cluster.install("metallb.io_ipaddresspools").await;
    cluster.apply(POOLS, &pool(), "lab", "").await;
    let zero = with(pool(), "/metadata/resourceVersion", json!("0"));
    let refused = cluster.apply(POOLS, &zero, "lab", "").await;
    assert_eq!(refused.code, 422);
    assert_eq!(cause(&refused, "metadata.resourceVersion"), "Invalid value: 0: must be specified for an update");
}

#[tokio::test]
async fn a_uid_in_an_apply_makes_it_update_only() {
    let cluster = Cluster::new();
    let live = cluster.apply(MAPS, &map("a", json!({"k": "1"})), "lab", "").await.body;
    let uid = live["metadata"]["uid"].clone();
    let update = with(map("a", json!({"k": "2"})), "/metadata/uid", uid.clone());
    assert_eq!(cluster.apply(MAPS, &update, "lab", "").await.code, 200);

    let other = with(map("a", json!({"k": "2"})), "/metadata/uid", json!("made-up"));
    let refused = cluster.apply(MAPS, &other, "lab", "").await;
    assert_eq!(refused.code, 422);
    assert_eq!(cause(&refused, "metadata.uid"), "Invalid value: \"made-up\": field is immutable");

    cluster.delete(&format!("{MAPS}/a"), json!({})).await;
    let refused = cluster.apply(MAPS, &update, "lab", "").await;
    assert_eq!(refused.code, 409);
    let message = refused.body["message"].as_str().unwrap();
    assert!(message.contains("uid mismatch: the provided object specified uid"), "{message}");
    assert_eq!(cluster.get(&format!("{MAPS}/a")).await.code, 404, "not resurrected");
}

#[tokio::test]
async fn of_many_writers_racing_for_a_name_one_creates() {
    let cluster = Cluster::new();
    let mut codes = Vec::new();
    for at in 0..8 {
        let body = with(map("a", json!({"writer": at.to_string()})), "/metadata/resourceVersion", json!("1"));
        codes.push(cluster.apply(MAPS, &body, "lab", "").await.code);
    }
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 1);
    assert_eq!(codes.iter().filter(|code| **code == 409).count(), 7);
}

#[tokio::test]
async fn an_update_entry_conflicts_with_an_apply_of_the_same_manager_until_it_is_turned_into_one() {
    let cluster = Cluster::new();
    let posted = cluster.post(&format!("{MAPS}?fieldManager=lab"), &map("a", json!({"k": "1", "old": "x"}))).await;
    assert_eq!(posted.code, 201);
    assert_eq!(posted.body["metadata"]["managedFields"][0]["operation"], "Update");
    assert_eq!(
        posted.body["metadata"]["managedFields"][0]["fieldsV1"]["f:data"],
        json!({".": {}, "f:k": {}, "f:old": {}})
    );

    let refused = cluster.apply(MAPS, &map("a", json!({"k": "2"})), "lab", "").await;
    assert_eq!(refused.code, 409);
    assert_eq!(cause(&refused, ".data.k"), "conflict with \"lab\" using v1");

    let stale = json!([
        {"op": "test", "path": "/metadata/managedFields/0/operation", "value": "Update"},
        {"op": "replace", "path": "/metadata/managedFields/0/operation", "value": "Apply"},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": "1"},
    ]);
    assert_eq!(cluster.patch(&format!("{MAPS}/a"), "application/json-patch+json", &stale).await.code, 409);
    let mut cure = stale;
    cure[2]["value"] = posted.body["metadata"]["resourceVersion"].clone();
    assert_eq!(cluster.patch(&format!("{MAPS}/a"), "application/json-patch+json", &cure).await.code, 200);
    cure[2]["value"] = cluster.get(&format!("{MAPS}/a")).await.body["metadata"]["resourceVersion"].clone();
    assert_eq!(cluster.patch(&format!("{MAPS}/a"), "application/json-patch+json", &cure).await.code, 422, "tested");

    let applied = cluster.apply(MAPS, &map("a", json!({"k": "2"})), "lab", "").await;
    assert_eq!(applied.code, 200);
    assert_eq!(applied.body["data"], json!({"k": "2"}), "what the entry owned and the apply drops is gone");
}

#[tokio::test]
async fn a_post_with_managed_fields_of_its_own_is_ignored_in_that_respect() {
    let cluster = Cluster::new();
    let entry = json!([{"manager": "lab", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:k": {}}}}]);
    let body = with(map("a", json!({"k": "1"})), "/metadata/managedFields", entry);
    let posted = cluster.post(&format!("{MAPS}?fieldManager=other"), &body).await.body;
    let managers = posted["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(managers.len(), 1);
    assert_eq!((&managers[0]["manager"], &managers[0]["operation"]), (&json!("other"), &json!("Update")));
}

// --- Ownership ---

#[tokio::test]
async fn a_second_apply_of_the_same_leaves_the_object_as_it_is() {
    let cluster = Cluster::new();
    let first = cluster.apply(DEPLOYMENTS, &deployment("web", "nginx:1"), "lab", "").await;
    let second = cluster.apply(DEPLOYMENTS, &deployment("web", "nginx:1"), "lab", "").await;
    assert_eq!((first.code, second.code), (201, 200));
    assert_eq!(first.body, second.body);
}

#[tokio::test]
async fn a_field_that_is_no_longer_applied_goes_unless_another_manager_owns_it() {
    let cluster = Cluster::new();
    cluster.apply(MAPS, &map("a", json!({"mine": "1", "shared": "1"})), "lab", "").await;
    cluster.apply(MAPS, &map("a", json!({"shared": "1"})), "other", "").await;
    let after = cluster.apply(MAPS, &map("a", json!({})), "lab", "").await.body;
    assert_eq!(after["data"], json!({"shared": "1"}));
    let after = cluster
        .apply(MAPS, &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}), "other", "")
        .await;
    assert_eq!(after.body.get("data"), None, "{}", after.body);
}

#[tokio::test]
async fn a_conflict_names_the_manager_and_the_field_and_force_takes_it() {
    let cluster = Cluster::new();
    let scaled = |replicas: i64| with(deployment("web", "nginx:1"), "/spec/replicas", json!(replicas));
    cluster.apply(DEPLOYMENTS, &scaled(1), "lab", "").await;
    let refused = cluster.apply(DEPLOYMENTS, &scaled(3), "autoscaler", "").await;
    assert_eq!(refused.code, 409);
    assert_eq!(refused.body["message"], "Apply failed with 1 conflict: conflict with \"lab\": .spec.replicas");
    assert_eq!(
        refused.body["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"lab\"", "field": ".spec.replicas"}])
    );
    let forced = cluster.apply(DEPLOYMENTS, &scaled(3), "autoscaler", "&force=true").await;
    assert_eq!((forced.code, &forced.body["spec"]["replicas"]), (200, &json!(3)));
    assert_eq!(cluster.apply(DEPLOYMENTS, &scaled(1), "lab", "").await.code, 409, "now it is the other's");
}

#[tokio::test]
async fn lists_with_keys_are_owned_item_by_item() {
    let cluster = Cluster::new();
    cluster.apply(DEPLOYMENTS, &deployment("web", "nginx:1"), "lab", "").await;
    let sidecar = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"template": {"spec": {"containers": [{"name": "proxy", "image": "envoy:1"}]}}},
    });
    let merged = cluster.apply(DEPLOYMENTS, &sidecar, "mesh", "").await.body;
    let names: Vec<&str> = merged["spec"]["template"]["spec"]["containers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|container| container["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["main", "proxy"]);
    let mesh = merged["metadata"]["managedFields"].as_array().unwrap().iter().find(|m| m["manager"] == "mesh").unwrap();
    assert_eq!(
        mesh["fieldsV1"],
        json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {
            "k:{\"name\":\"proxy\"}": {".": {}, "f:image": {}, "f:name": {}},
        }}}}})
    );
    let lab = merged["metadata"]["managedFields"].as_array().unwrap().iter().find(|m| m["manager"] == "lab").unwrap();
    let ports = &lab["fieldsV1"]["f:spec"]["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"main\"}"]["f:ports"];
    assert_eq!(ports, &json!({"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}));

    let gone = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}});
    let after = cluster.apply(DEPLOYMENTS, &gone, "mesh", "").await.body;
    assert_eq!(after["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_update_takes_the_fields_that_it_changes() {
    let cluster = Cluster::new();
    cluster.apply(MAPS, &map("a", json!({"k": "1"})), "lab", "").await;
    cluster
        .patch(&format!("{MAPS}/a?fieldManager=kubectl"), "application/merge-patch+json", &json!({"data": {"k": "2"}}))
        .await;
    let refused = cluster.apply(MAPS, &map("a", json!({"k": "1"})), "lab", "").await;
    assert_eq!(refused.code, 409);
    assert_eq!(cause(&refused, ".data.k"), "conflict with \"kubectl\" using v1");
}

#[tokio::test]
async fn status_is_written_apart() {
    let cluster = Cluster::new();
    let body = with(deployment("web", "nginx:1"), "/status", json!({"replicas": 7}));
    let created = cluster.post(DEPLOYMENTS, &body).await.body;
    assert_eq!(created["status"], json!({}));
    let path = format!("{DEPLOYMENTS}/web/status");
    let patch = json!({"status": {"replicas": 1}, "spec": {"replicas": 9}});
    let after = cluster.patch(&path, "application/merge-patch+json", &patch).await.body;
    assert_eq!((&after["status"]["replicas"], &after["spec"]["replicas"]), (&json!(1), &json!(1)));
    assert_eq!(after["metadata"]["generation"], 1);
    let managers = after["metadata"]["managedFields"].as_array().unwrap();
    assert!(managers.iter().any(|entry| entry["subresource"] == "status"), "{managers:?}");
}

#[tokio::test]
async fn a_replace_may_leave_out_its_namespace_and_must_not_be_stale() {
    let cluster = Cluster::new();
    let first = cluster.post(MAPS, &map("a", json!({"k": "1"}))).await.body;
    assert_eq!(cluster.put(&format!("{MAPS}/a"), &map("a", json!({"k": "2"}))).await.code, 200);
    let stale =
        with(map("a", json!({"k": "3"})), "/metadata/resourceVersion", first["metadata"]["resourceVersion"].clone());
    let refused = cluster.put(&format!("{MAPS}/a"), &stale).await;
    assert_eq!((refused.code, &refused.body["reason"]), (409, &json!("Conflict")));
    assert_eq!(cluster.get(&format!("{MAPS}/a")).await.body["data"], json!({"k": "2"}));
}

// --- Strictness and validation ---

#[tokio::test]
async fn unknown_fields_are_refused_at_any_depth() {
    let cluster = Cluster::new();
    let typo = with(deployment("web", "nginx:1"), "/spec/template/spec/containers/0/imagePullPolice", json!("Always"));
    let refused = cluster.apply(DEPLOYMENTS, &typo, "lab", "").await;
    assert_eq!(refused.code, 500, "as the real server says it");
    assert_eq!(
        refused.body["message"],
        "failed to create typed patch object (/web; apps/v1, Kind=Deployment): \
         .spec.template.spec.containers[0].imagePullPolice: field not declared in schema"
    );
    let refused = cluster.post(&format!("{DEPLOYMENTS}?fieldValidation=Strict"), &typo).await;
    assert_eq!(refused.code, 400);
    assert_eq!(
        refused.body["message"],
        "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: \
         unknown field \"spec.template.spec.containers[0].imagePullPolice\""
    );
    let taken = cluster.post(DEPLOYMENTS, &typo).await;
    assert_eq!(taken.code, 201);
    assert_eq!(taken.warnings, ["299 - \"unknown field \\\"spec.template.spec.containers[0].imagePullPolice\\\"\""]);
}

#[tokio::test]
async fn a_field_that_stands_twice_is_refused_when_strict() {
    let cluster = Cluster::new();
    let body = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"k":"1","k":"2"}}"#;
    let refused =
        cluster.send("POST", &format!("{MAPS}?fieldValidation=Strict"), "application/json", body.into()).await;
    assert_eq!(refused.code, 400);
    assert!(refused.body["message"].as_str().unwrap().ends_with("strict decoding error: duplicate field \"data.k\""));
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  k: one\n  k: two\n";
    let path = format!("{MAPS}/a?fieldManager=lab&fieldValidation=Strict");
    let refused = cluster.send("PATCH", &path, "application/apply-patch+yaml", yaml.into()).await;
    assert_eq!(refused.code, 400, "{}", refused.body);
}

#[tokio::test]
async fn bad_names_and_missing_fields_are_invalid_with_their_causes() {
    let cluster = Cluster::new();
    let refused = cluster.post(MAPS, &map("Not_A_Name", json!({}))).await;
    assert_eq!((refused.code, &refused.body["reason"]), (422, &json!("Invalid")));
    assert!(
        cause(&refused, "metadata.name").starts_with("Invalid value: \"Not_A_Name\": a lowercase RFC 1123 subdomain")
    );

    let mut bare = deployment("web", "nginx:1");
    bare["spec"]["template"]["spec"]["containers"][0].as_object_mut().unwrap().remove("image");
    let refused = cluster.apply(DEPLOYMENTS, &bare, "lab", "").await;
    assert_eq!(refused.code, 422);
    assert_eq!(
        refused.body["message"],
        "Deployment.apps \"web\" is invalid: spec.template.spec.containers[0].image: Required value"
    );
    assert_eq!(refused.body["details"]["causes"][0]["reason"], "FieldValueRequired");
}

#[tokio::test]
async fn what_the_server_cannot_read_into_its_types_is_an_internal_error_of_an_apply() {
    let cluster = Cluster::new();
    let mut bad = deployment("web", "nginx:1");
    bad["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "abc"}});
    let refused = cluster.apply(DEPLOYMENTS, &bad, "lab", "").await;
    assert_eq!(refused.code, 500);
    assert!(refused.body["message"].as_str().unwrap().contains("quantities must match"), "{}", refused.body);

    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "%%"}});
    let refused = cluster.apply("/api/v1/namespaces/default/secrets", &secret, "lab", "").await;
    assert_eq!(refused.code, 500);
    assert!(refused.body["message"].as_str().unwrap().ends_with("illegal base64 data at input byte 0"));
    assert_eq!(cluster.get("/api/v1/namespaces/default/secrets/s").await.code, 404);
}

#[tokio::test]
async fn a_namespace_must_exist() {
    let cluster = Cluster::new();
    let refused = cluster.apply("/api/v1/namespaces/media/configmaps", &map("a", json!({})), "lab", "").await;
    assert_eq!(refused.code, 404);
    assert_eq!(refused.body["message"], "namespaces \"media\" not found");
    assert_eq!(refused.body["details"], json!({"name": "media", "kind": "namespaces"}));
}

#[tokio::test]
async fn what_cannot_change_is_refused_in_the_real_words() {
    let cluster = Cluster::new();
    cluster.apply(DEPLOYMENTS, &deployment("web", "nginx:1"), "lab", "").await;
    let mut other = deployment("web", "nginx:1");
    other["spec"]["selector"]["matchLabels"]["tier"] = json!("front");
    other["spec"]["template"]["metadata"]["labels"]["tier"] = json!("front");
    let refused = cluster.apply(DEPLOYMENTS, &other, "lab", "").await;
    assert_eq!(refused.code, 422);
    assert!(cause(&refused, "spec.selector").ends_with(": field is immutable"));

    let class = |server: &str| {
        json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "nfs"},
            "provisioner": "nfs.csi.k8s.io", "parameters": {"server": server},
        })
    };
    let classes = "/apis/storage.k8s.io/v1/storageclasses";
    cluster.apply(classes, &class("a"), "lab", "").await;
    let refused = cluster.apply(classes, &class("b"), "lab", "").await;
    assert_eq!(cause(&refused, "parameters"), "Forbidden: updates to parameters are forbidden.");
}

// --- Lifecycle ---

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const POOLS: &str = "/apis/metallb.io/v1beta1/namespaces/default/ipaddresspools";

fn pool() -> Value {
    json!({
        "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": {"name": "lan"},
        "spec": {"addresses": ["10.69.1.200-10.69.1.210"]},
    })
}

#[tokio::test]
async fn a_generation_counts_changes_of_the_spec_only() {
    let cluster = Cluster::new();
    let first = cluster.apply(DEPLOYMENTS, &deployment("web", "nginx:1"), "lab", "").await.body;
    assert_eq!(first["metadata"]["generation"], 1);
    let labelled = with(deployment("web", "nginx:1"), "/metadata/labels", json!({"a": "b"}));
    assert_eq!(cluster.apply(DEPLOYMENTS, &labelled, "lab", "").await.body["metadata"]["generation"], 1);
    assert_eq!(
        cluster.apply(DEPLOYMENTS, &deployment("web", "nginx:2"), "lab", "").await.body["metadata"]["generation"],
        2
    );
}

#[tokio::test]
async fn a_dry_run_shows_the_defaults_and_stores_nothing() {
    let cluster = Cluster::new();
    let shown = cluster.apply(DEPLOYMENTS, &deployment("web", "nginx:1"), "lab", "&dryRun=All").await;
    assert_eq!(shown.code, 201);
    assert_eq!(
        shown.body["spec"]["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    );
    assert_eq!(shown.body["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"], "IfNotPresent");
    assert_eq!(cluster.get(&format!("{DEPLOYMENTS}/web")).await.code, 404);
}

#[tokio::test]
async fn quantities_in_another_form_are_no_change() {
    let cluster = Cluster::new();
    let sized = |cpu: &str| {
        with(
            deployment("web", "nginx:1"),
            "/spec/template/spec/containers/0/resources",
            json!({"requests": {"cpu": cpu}}),
        )
    };
    let first = cluster.apply(DEPLOYMENTS, &sized("1000m"), "lab", "").await.body;
    assert_eq!(first["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"], "1");
    let second = cluster.apply(DEPLOYMENTS, &sized("1"), "lab", "").await.body;
    assert_eq!(first["metadata"]["resourceVersion"], second["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn an_object_with_a_finalizer_leaves_when_the_last_one_goes() {
    let cluster = Cluster::new();
    let held = with(map("a", json!({})), "/metadata/finalizers", json!(["example.com/hold"]));
    cluster.apply(MAPS, &held, "lab", "").await;
    let going = cluster.delete(&format!("{MAPS}/a"), json!({})).await;
    assert_eq!(going.code, 200);
    assert!(going.body["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(cluster.get(&format!("{MAPS}/a")).await.code, 200);
    cluster
        .patch(&format!("{MAPS}/a"), "application/merge-patch+json", &json!({"metadata": {"finalizers": null}}))
        .await;
    assert_eq!(cluster.get(&format!("{MAPS}/a")).await.code, 404);
}

#[tokio::test]
async fn a_delete_with_another_uid_or_version_is_refused() {
    let cluster = Cluster::new();
    let live = cluster.apply(MAPS, &map("a", json!({})), "lab", "").await.body;
    let refused = cluster.delete(&format!("{MAPS}/a"), json!({"preconditions": {"uid": "other"}})).await;
    assert_eq!(refused.code, 409);
    assert!(refused.body["message"].as_str().unwrap().contains("the UID in the precondition (other) does not match"));
    let refused = cluster.delete(&format!("{MAPS}/a"), json!({"preconditions": {"resourceVersion": "1"}})).await;
    assert_eq!(refused.code, 409);
    let options = json!({"preconditions": {"uid": live["metadata"]["uid"]}});
    let gone = cluster.delete(&format!("{MAPS}/a"), options).await;
    assert_eq!((gone.code, &gone.body["status"]), (200, &json!("Success")));
}

async fn owner_with_dependent(cluster: &Cluster) -> Value {
    let owner = cluster.apply(MAPS, &map("owner", json!({})), "lab", "").await.body;
    let reference = json!([{
        "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"],
        "blockOwnerDeletion": true,
    }]);
    let dependent = with(map("dependent", json!({})), "/metadata/ownerReferences", reference);
    assert_eq!(cluster.apply(MAPS, &dependent, "lab", "").await.code, 201);
    owner
}

#[tokio::test]
async fn dependents_go_after_their_owner_in_the_background() {
    let cluster = Cluster::new();
    owner_with_dependent(&cluster).await;
    cluster.delete(&format!("{MAPS}/owner"), json!({"propagationPolicy": "Background"})).await;
    assert_eq!(cluster.get(&format!("{MAPS}/owner")).await.code, 404);
    cluster.until(&format!("{MAPS}/dependent"), |reply| reply.code == 404).await;
}

#[tokio::test]
async fn an_owner_waits_for_its_dependents_in_the_foreground() {
    let cluster = Cluster::new();
    owner_with_dependent(&cluster).await;
    let hold = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    cluster.patch(&format!("{MAPS}/dependent"), "application/merge-patch+json", &hold).await;
    let going = cluster.delete(&format!("{MAPS}/owner"), json!({"propagationPolicy": "Foreground"})).await.body;
    assert_eq!(going["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    cluster.until(&format!("{MAPS}/dependent"), |reply| reply.body["metadata"]["deletionTimestamp"].is_string()).await;
    assert_eq!(cluster.get(&format!("{MAPS}/owner")).await.code, 200);
    cluster
        .patch(&format!("{MAPS}/dependent"), "application/merge-patch+json", &json!({"metadata": {"finalizers": null}}))
        .await;
    cluster.until(&format!("{MAPS}/owner"), |reply| reply.code == 404).await;
}

#[tokio::test]
async fn orphans_stay_without_their_owner() {
    let cluster = Cluster::new();
    owner_with_dependent(&cluster).await;
    cluster.delete(&format!("{MAPS}/owner"), json!({"propagationPolicy": "Orphan"})).await;
    cluster.until(&format!("{MAPS}/owner"), |reply| reply.code == 404).await;
    let orphan = cluster.get(&format!("{MAPS}/dependent")).await;
    assert_eq!((orphan.code, orphan.body["metadata"].get("ownerReferences")), (200, None));
}

#[tokio::test]
async fn a_namespace_that_goes_takes_its_content_and_no_new_one() {
    let cluster = Cluster::new();
    let media = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "media"}});
    let created = cluster.apply("/api/v1/namespaces", &media, "lab", "").await.body;
    assert_eq!(created["status"]["phase"], "Active");
    let inside = "/api/v1/namespaces/media/configmaps";
    let held = with(map("held", json!({})), "/metadata/finalizers", json!(["example.com/hold"]));
    cluster.apply(inside, &held, "lab", "").await;
    cluster.apply(inside, &map("free", json!({})), "lab", "").await;
    let going = cluster.delete("/api/v1/namespaces/media", json!({})).await.body;
    assert_eq!(going["status"]["phase"], "Terminating");

    let refused = cluster.apply(inside, &map("late", json!({})), "lab", "").await;
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.body["message"],
        "configmaps \"late\" is forbidden: unable to create new content in namespace media because it is being terminated"
    );
    assert_eq!(refused.body["details"]["causes"][0]["reason"], "NamespaceTerminating");

    cluster.until(&format!("{inside}/free"), |reply| reply.code == 404).await;
    let waiting = cluster
        .until("/api/v1/namespaces/media", |reply| {
            reply.body["status"]["conditions"].as_array().is_some_and(|c| !c.is_empty())
        })
        .await;
    let text = waiting.body["status"]["conditions"].to_string();
    assert!(text.contains("example.com/hold in 1 resource instances"), "{text}");
    cluster
        .patch(&format!("{inside}/held"), "application/merge-patch+json", &json!({"metadata": {"finalizers": null}}))
        .await;
    cluster.until("/api/v1/namespaces/media", |reply| reply.code == 404).await;
}

// --- Custom resources ---

#[tokio::test]
async fn a_definition_is_served_once_established() {
    let cluster = Cluster::new();
    assert_eq!(cluster.get(POOLS).await.code, 404);
    cluster.install("metallb.io_ipaddresspools").await;
    let list = cluster.get(POOLS).await;
    assert_eq!((list.code, &list.body["kind"]), (200, &json!("IPAddressPoolList")));
    let groups = cluster.get("/apis").await.body.to_string();
    assert!(groups.contains("metallb.io/v1beta1"));
    let created = cluster.apply(POOLS, &pool(), "lab", "").await;
    assert_eq!(created.code, 201);
    assert_eq!(created.body["spec"]["autoAssign"], true, "the schema's default");
}

#[tokio::test]
async fn a_custom_resource_is_held_to_its_schema() {
    let cluster = Cluster::new();
    cluster.install("metallb.io_ipaddresspools").await;
    let mut bare = pool();
    bare["spec"].as_object_mut().unwrap().remove("addresses");
    let refused = cluster.apply(POOLS, &bare, "lab", "").await;
    assert_eq!(refused.code, 422);
    assert_eq!(cause(&refused, "spec.addresses"), "Required value");
    let refused = cluster.apply(POOLS, &with(pool(), "/spec/adresses", json!([])), "lab", "").await;
    assert_eq!(refused.code, 500);
    assert!(refused.body["message"].as_str().unwrap().ends_with(".spec.adresses: field not declared in schema"));
    let refused =
        cluster.post(&format!("{POOLS}?fieldValidation=Strict"), &with(pool(), "/spec/adresses", json!([]))).await;
    assert_eq!(refused.code, 400);
    let refused = cluster.post(POOLS, &with(pool(), "/spec/autoAssign", json!("yes"))).await;
    assert_eq!(refused.code, 422);
    assert!(cause(&refused, "spec.autoAssign").contains("must be of type boolean"));
}

#[tokio::test]
async fn a_definition_that_goes_takes_its_objects() {
    let cluster = Cluster::new();
    cluster.install("metallb.io_ipaddresspools").await;
    cluster.apply(POOLS, &pool(), "lab", "").await;
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/ipaddresspools.metallb.io";
    cluster.delete(path, json!({})).await;
    cluster.until(path, |reply| reply.code == 404).await;
    cluster.until(POOLS, |reply| reply.code == 404).await;
}

// --- Watches, discovery, the rest ---

#[tokio::test]
async fn a_watch_tells_what_happens_after_its_version() {
    let cluster = Cluster::new();
    let list = cluster.get(MAPS).await.body;
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch =
        cluster.watch(&format!("{MAPS}?watch=true&resourceVersion={version}&labelSelector=app%3Dweb")).await;
    let labelled = with(map("a", json!({})), "/metadata/labels", json!({"app": "web"}));
    cluster.apply(MAPS, &labelled, "lab", "").await;
    cluster.apply(MAPS, &map("other", json!({})), "lab", "").await;
    cluster.apply(MAPS, &with(labelled.clone(), "/data", json!({"k": "v"})), "lab", "").await;
    cluster.apply(MAPS, &with(map("a", json!({"k": "v"})), "/metadata/labels", json!({"app": "api"})), "lab", "").await;
    for expected in ["ADDED", "MODIFIED", "DELETED"] {
        let line = watch.line().await.unwrap();
        assert_eq!((&line["type"], &line["object"]["metadata"]["name"]), (&json!(expected), &json!("a")));
    }
}

/// A client lists, and watches from there: what happened in between is told, though nothing happens afterwards.
#[tokio::test]
async fn a_watch_tells_at_once_what_has_happened_since_its_version() {
    let cluster = Cluster::new();
    let list = cluster.get(MAPS).await.body;
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    cluster.apply(MAPS, &map("a", json!({})), "lab", "").await;
    let mut watch = cluster.watch(&format!("{MAPS}?watch=true&resourceVersion={version}")).await;
    let line = watch.line().await.unwrap();
    assert_eq!((&line["type"], &line["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("a")));
}

#[tokio::test]
async fn a_watch_from_the_forgotten_past_is_expired() {
    let cluster = Cluster::new();
    cluster.apply(MAPS, &map("a", json!({})), "lab", "").await;
    cluster.api.compact();
    let refused = cluster.get(&format!("{MAPS}?watch=true&resourceVersion=1")).await;
    assert_eq!((refused.code, &refused.body["reason"]), (410, &json!("Expired")));
}

#[tokio::test]
async fn a_watch_ends_at_its_timeout() {
    let cluster = Cluster::new();
    let mut watch = cluster.watch(&format!("{MAPS}?watch=true&resourceVersion=0&timeoutSeconds=1")).await;
    assert!(watch.line().await.is_none());
}

#[tokio::test]
async fn lists_are_filtered_by_labels_and_fields() {
    let cluster = Cluster::new();
    for (name, app) in [("a", "web"), ("b", "api"), ("c", "web")] {
        cluster.apply(MAPS, &with(map(name, json!({})), "/metadata/labels", json!({"app": app})), "lab", "").await;
    }
    for (query, expected) in [
        ("labelSelector=app%3Dweb", vec!["a", "c"]),
        ("labelSelector=app+in+(api)", vec!["b"]),
        ("labelSelector=app%21%3Dweb", vec!["b"]),
        ("labelSelector=%21app", vec![]),
        ("fieldSelector=metadata.name%3Dc", vec!["c"]),
    ] {
        let list = cluster.get(&format!("{MAPS}?{query}")).await.body;
        let names: Vec<&str> =
            list["items"].as_array().unwrap().iter().map(|m| m["metadata"]["name"].as_str().unwrap()).collect();
        assert_eq!(names, expected, "{query}");
    }
    assert_eq!(cluster.get(&format!("{MAPS}?fieldSelector=data.k%3D1")).await.code, 400);
}

#[tokio::test]
async fn what_is_not_modelled_says_so() {
    let cluster = Cluster::new();
    for path in ["/apis/batch/v1/namespaces/default/cronjobs", "/openapi/v3", "/api/v1/namespaces/default/pods/a/log"] {
        let refused = cluster.get(path).await;
        assert_eq!(refused.code, 501, "{path}");
        assert!(refused.body["message"].as_str().unwrap().contains("does not model"), "{path}");
    }
    let strategic = "application/strategic-merge-patch+json";
    assert_eq!(cluster.patch(&format!("{MAPS}/a"), strategic, &json!({})).await.code, 501);
    assert_eq!(cluster.get("/apis/nothing.example/v1/things").await.code, 404);
}

#[tokio::test]
async fn only_members_of_system_masters_are_served() {
    let cluster = Cluster::new();
    assert_eq!(cluster.get_as(None, "/version").await.code, 401);
    let refused = cluster.get_as(Some(("someone", "developers")), "/api").await;
    assert_eq!(refused.code, 403);
    assert!(refused.body["message"].as_str().unwrap().contains("\"someone\""));
}
