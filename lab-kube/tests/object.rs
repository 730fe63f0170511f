//! The life of an object against an API server, simulated and real: found, made, changed, deleted.

mod cluster;

use cluster::{Cluster, Inside, id, next, on_both};
use lab_core::{Change, Class, Effect, Found, Op, Order, Owner, Resource, Secret, Step};
use lab_kube::{Kubernetes, Object, config_map, namespace, secret};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const MAP: &str = "/api/v1/namespaces/default/configmaps/settings";
const SECRET: &str = "/api/v1/namespaces/default/secrets/claim";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/default/deployments/web";

fn settings(pairs: &[(&str, &str)]) -> Object<Value> {
    let data: BTreeMap<String, String> = pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    config_map("default", "settings", data)
}

fn deployment(image: &str, replicas: u8) -> Object<Value> {
    let container = json!({"name": "web", "image": image, "resources": {"limits": {"cpu": "1000m"}}});
    Object::new(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"hostNetwork": false, "containers": [container]}}},
    }))
}

fn change(prior: &Object<Value>, next: &Object<Value>, live: Option<&Value>) -> Change {
    Resource::<Kubernetes>::change(next, prior, live)
}

#[test]
fn the_same_object_written_differently_is_no_change() {
    let whole = settings(&[("a", "1"), ("b", "2")]);
    let by_path = settings(&[("a", "1")]).set("/data/b", "2");
    assert_eq!(change(&whole, &by_path, None), Change::None);
}

on_both! {
async fn an_object_is_made_and_found_as_it_was_declared(cluster: Inside::Nothing) {
    let object = settings(&[("a", "1")]);
    assert!(matches!(cluster.find(&object).await.unwrap(), Found::Absent));
    let (made, whys) = cluster.apply(&object, false).await.unwrap();
    assert_eq!(whys, [] as [&str; 0]);
    assert_eq!((made.id, made.outputs.name.as_str()), (id("ConfigMap default/settings"), "settings"));
    let Found::Present(Owner::Marked(mark), Step::Done(found)) = cluster.find(&object).await.unwrap() else { panic!() };
    assert_eq!(mark, "op-1");
    assert_eq!(found.live.unwrap()["body"], object.body);
    assert_eq!(found.outputs, made.outputs);
}

async fn somebody_elses_object_is_neither_taken_nor_touched(cluster: Inside::Nothing) {
    let foreign = json!({"metadata": {"name": "settings"}, "data": {"a": "theirs"}});
    let before = cluster.other("POST", "/api/v1/namespaces/default/configmaps", foreign);
    let object = settings(&[("a", "1")]);
    assert!(matches!(cluster.find(&object).await.unwrap(), Found::Present(Owner::Unmarked, Step::Done(_))));
    let error = cluster.apply(&object, false).await.unwrap_err();
    assert_eq!((error.class, error.effect), (Class::Conflict, Effect::None), "{error}");
    assert_eq!(cluster.read(MAP), Some(before));
}

async fn a_lost_reply_is_found_by_its_mark(cluster: Inside::Nothing) {
    let object = settings(&[("a", "1")]);
    cluster.lose_reply();
    let error = cluster.apply(&object, false).await.unwrap_err();
    assert_eq!((error.class, error.effect), (Class::Unreachable, Effect::Perhaps), "{error}");
    let Found::Present(owner, Step::Done(_)) = cluster.find(&object).await.unwrap() else { panic!() };
    assert_eq!(owner, Owner::Marked("op-1".into()));
    assert_eq!(cluster.mutations().len(), 1);
}

async fn a_workload_is_waited_for_without_applying_it_again(cluster: Inside::Everything) {
    let object = deployment("nginx:1", 2);
    let runs = |image: &str| {
        let there = cluster.read(DEPLOYMENT).unwrap();
        assert_eq!(there.pointer("/spec/template/spec/containers/0/image"), Some(&json!(image)));
        assert_eq!(there["status"]["observedGeneration"], there["metadata"]["generation"]);
        assert_eq!((&there["status"]["updatedReplicas"], &there["status"]["availableReplicas"]), (&json!(2), &json!(2)));
    };
    let (made, whys) = cluster.apply(&object, false).await.unwrap();
    // How often it is looked at depends on how quick the controllers are; that it is, and until when, does not.
    assert_eq!(whys[0], "its controller has not looked at it yet");
    runs("nginx:1");
    assert_eq!(cluster.mutations(), [format!("PATCH {DEPLOYMENT}")]);
    // `1000m` came back as `1` and `hostNetwork: false` not at all: neither is somebody's change.
    assert_eq!(made.live.unwrap()["body"], object.body);

    let newer = deployment("nginx:2", 2);
    let Change::Update(impact) = change(&object, &newer, None) else { panic!() };
    assert_eq!(impact.interrupts.as_deref(), Some("restarts 2 pods, the new before the old"));
    let (after, whys) = cluster.apply(&newer, true).await.unwrap();
    assert_eq!(whys[0], "its controller has not seen the change yet");
    runs("nginx:2");
    assert_eq!(after.outputs, made.outputs);
    assert_eq!(cluster.mutations(), [format!("PATCH {DEPLOYMENT}")]);
}

async fn what_somebody_else_changed_is_shown_and_taken_back(cluster: Inside::Nothing) {
    let object = deployment("nginx:1", 2);
    // Nothing runs pods here, so it is made and not ready.
    let (cursor, _) = next(object.apply(&cluster.client, &cluster.op(&object, false, None)).await.unwrap());
    let scaled = json!({"spec": {"replicas": 1, "paused": true}, "metadata": {"labels": {"theirs": "yes"}}});
    cluster.other("PATCH", DEPLOYMENT, scaled);
    let Found::Present(_, Step::Next { made: Some(made), .. }) = cluster.find(&object).await.unwrap() else { panic!() };
    let live = made.live.unwrap();
    let mut expected = object.body.clone();
    expected["spec"]["replicas"] = json!(1);
    assert_eq!(live["body"], expected);
    let Change::Update(impact) = change(&object, &object, Some(&live)) else { panic!() };
    let reasons: Vec<String> = impact.reasons.iter().map(|(path, why)| format!("{path}: {why}")).collect();
    assert_eq!(reasons, ["/body/spec/replicas: set by kubectl"]);

    object.apply(&cluster.client, &cluster.op(&object, true, None)).await.unwrap();
    let after = cluster.read(DEPLOYMENT).unwrap();
    assert_eq!(after["spec"]["replicas"], 2);
    assert_eq!((&after["spec"]["paused"], &after["metadata"]["labels"]["theirs"]), (&json!(true), &json!("yes")));
    assert_eq!(cursor["uid"], after["metadata"]["uid"]);
}

async fn an_update_that_was_begun_and_not_sent_is_sent(cluster: Inside::Nothing) {
    let object = deployment("nginx:1", 1);
    next(object.apply(&cluster.client, &cluster.op(&object, false, None)).await.unwrap());
    // The process died after the begin of an update: what is there is not ready, and not what is wanted.
    let newer = deployment("nginx:2", 1);
    let Found::Present(_, step) = cluster.find(&newer).await.unwrap() else { panic!() };
    let (cursor, _) = next(step);
    let (cursor, _) = next(newer.apply(&cluster.client, &cluster.op(&newer, true, Some(cursor))).await.unwrap());
    let image = "/spec/template/spec/containers/0/image";
    assert_eq!(cluster.read(DEPLOYMENT).unwrap().pointer(image), Some(&json!("nginx:2")));
    cluster.mutations();
    // From here on it is only looked at, unless the program says something else meanwhile.
    next(newer.apply(&cluster.client, &cluster.op(&newer, true, Some(cursor.clone()))).await.unwrap());
    assert_eq!(cluster.mutations(), [] as [&str; 0]);
    let newest = deployment("nginx:3", 1);
    next(newest.apply(&cluster.client, &cluster.op(&newer, true, Some(cursor))).await.unwrap());
    assert_eq!(cluster.read(DEPLOYMENT).unwrap().pointer(image), Some(&json!("nginx:3")));
}

async fn another_secret_is_sent_though_the_cursor_cannot_tell(cluster: Inside::Nothing) {
    let token = |text: &str| secret("default", "claim").secret("/stringData/token", Secret::new(text.to_owned()));
    let (made, _) = cluster.apply(&token("one"), false).await.unwrap();
    assert_eq!(made.live.unwrap()["secret"], json!({"/stringData/token": "one"}));
    let Found::Present(_, Step::Done(_)) = cluster.find(&token("two")).await.unwrap() else { panic!() };
    let there = cluster.read(SECRET).unwrap();
    let shown = lab_core::digest(&token("one").written().unwrap());
    let cursor = json!({"uid": there["metadata"]["uid"], "applied": shown});
    cluster.mutations();
    token("one").apply(&cluster.client, &cluster.op(&token("one"), true, Some(cursor.clone()))).await.unwrap();
    assert_eq!(cluster.mutations(), [] as [&str; 0]);
    token("two").apply(&cluster.client, &cluster.op(&token("two"), true, Some(cursor))).await.unwrap();
    assert_eq!(cluster.read(SECRET).unwrap()["data"], json!({"token": "dHdv"}));
}

async fn a_selector_means_another_object_and_a_smaller_claim_is_refused(cluster: Inside::Nothing) {
    let mut other = deployment("nginx:1", 1);
    other.body["spec"]["selector"]["matchLabels"]["app"] = json!("other");
    let Change::Replace(impact, Order::DeleteFirst) = change(&deployment("nginx:1", 1), &other, None) else { panic!() };
    assert_eq!(impact.reasons[0].0.as_str(), "/body/spec/selector");

    let claim = |size: &str| {
        Object::new(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "config", "namespace": "default"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}}))
    };
    next(claim("10Gi").apply(&cluster.client, &cluster.op(&claim("10Gi"), false, None)).await.unwrap());
    cluster.mutations();
    let Change::Refuse(reasons) = change(&claim("10Gi"), &claim("5Gi"), None) else { panic!() };
    assert!(reasons[0].1.contains("cannot shrink"), "{reasons:?}");
    let error = claim("5Gi").apply(&cluster.client, &cluster.op(&claim("5Gi"), true, None)).await.unwrap_err();
    assert_eq!((error.class, error.effect), (Class::Invalid, Effect::None));
    assert!(error.message.contains("cannot shrink from 10Gi to 5Gi"), "{error}");
    assert_eq!(cluster.mutations(), [] as [&str; 0]);
}

/// What `kubectl apply` made on its side is owned by an `Update` of its own, and a field of that stays when an apply of
/// ours leaves it out.
async fn what_somebody_made_without_applying_it_is_taken_over(cluster: Inside::Nothing) {
    let mut theirs = deployment("nginx:1", 2).body;
    theirs["metadata"]["labels"] = json!({"team": "a", "theirs": "yes"});
    theirs["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": "{}"});
    let before = cluster.other("POST", "/apis/apps/v1/namespaces/default/deployments", theirs);
    // It was imported like this.
    let mut imported = deployment("nginx:1", 2);
    imported.body["metadata"]["labels"] = json!({"team": "a"});
    let Found::Present(Owner::Unmarked, _) = cluster.find(&imported).await.unwrap() else { panic!() };

    let wanted = deployment("nginx:1", 2);
    let op = |cursor| Op { inputs: Some(imported.clone()), ..cluster.op(&wanted, true, cursor) };
    let (cursor, why) = next(wanted.apply(&cluster.client, &op(None)).await.unwrap());
    assert_eq!(why, "its fields are taken over from those who had set them");
    let taken = cluster.read(DEPLOYMENT).unwrap();
    assert_eq!(taken["spec"], before["spec"]);
    assert_eq!(taken["metadata"]["labels"], before["metadata"]["labels"]);
    assert_eq!(taken["metadata"].get("annotations"), None);
    next(wanted.apply(&cluster.client, &op(Some(cursor))).await.unwrap());
    let after = cluster.read(DEPLOYMENT).unwrap();
    assert_eq!(after["metadata"]["labels"], json!({"app.kubernetes.io/managed-by": "lab", "theirs": "yes"}));
    assert_eq!(after["spec"], before["spec"], "nothing restarts");
    // Of a Deployment, a real server counts another annotation as a generation, too; pods come of the template alone.
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(cluster.mutations(), [format!("PATCH {DEPLOYMENT}"), format!("PATCH {DEPLOYMENT}")]);
    // From here on it is as if we had made it.
    let mut fewer = deployment("nginx:1", 2);
    fewer.body["spec"]["template"]["spec"]["containers"][0].as_object_mut().unwrap().remove("resources");
    next(fewer.apply(&cluster.client, &cluster.op(&fewer, true, None)).await.unwrap());
    let resources = "/spec/template/spec/containers/0/resources";
    assert_eq!(cluster.read(DEPLOYMENT).unwrap().pointer(resources), Some(&json!({})));
}

async fn a_deletion_waits_for_finalizers_and_names_them(cluster: Inside::Nothing) {
    let mut object = settings(&[]);
    object.body["metadata"]["finalizers"] = json!(["example.org/keep"]);
    cluster.apply(&object, false).await.unwrap();
    cluster.mutations();
    let (cursor, _) = next(cluster.delete_step(&object, None).await);
    assert_eq!(cluster.mutations(), [] as [&str; 0], "what is deleted is written down before the call");
    let (cursor, why) = next(cluster.delete_step(&object, Some(cursor)).await);
    assert_eq!(why, "its deletion waits for example.org/keep");
    assert!(matches!(cluster.find(&object).await.unwrap(), Found::Leaving(..)));
    next(cluster.delete_step(&object, Some(cursor.clone())).await);
    assert_eq!(cluster.mutations(), [format!("DELETE {MAP}")]);
    cluster.other("PATCH", MAP, json!({"metadata": {"finalizers": null}}));
    assert!(matches!(cluster.delete_step(&object, Some(cursor)).await, Step::Done(_)));
    assert_eq!(cluster.read(MAP), None);
}

async fn another_object_of_the_name_is_not_deleted(cluster: Inside::Nothing) {
    let object = settings(&[]);
    cluster.apply(&object, false).await.unwrap();
    let (cursor, _) = next(cluster.delete_step(&object, None).await);
    cluster.other("DELETE", MAP, Value::Null);
    cluster.other("POST", "/api/v1/namespaces/default/configmaps", json!({"metadata": {"name": "settings"}}));
    let op = Op { deleting: true, ..cluster.op(&object, true, Some(cursor.clone())) };
    assert!(matches!(Object::find(&cluster.client, &op).await.unwrap(), Found::Absent));
    assert!(matches!(cluster.delete_step(&object, Some(cursor)).await, Step::Done(_)));
    assert!(cluster.read(MAP).is_some());
}

async fn an_object_can_be_deleted_by_its_id_alone(cluster: Inside::Nothing) {
    let object = settings(&[]);
    cluster.apply(&object, false).await.unwrap();
    let op = |cursor| Op { inputs: None, deleting: true, ..cluster.op(&object, true, cursor) };
    let Found::Present(Owner::Marked(_), Step::Done(made)) = Object::find(&cluster.client, &op(None)).await.unwrap()
    else {
        panic!()
    };
    assert_eq!(made.live, None);
    let (cursor, _) = next(Object::delete(&cluster.client, &op(None)).await.unwrap());
    assert!(matches!(Object::delete(&cluster.client, &op(Some(cursor))).await.unwrap(), Step::Done(_)));
    assert_eq!(cluster.read(MAP), None);
}

/// A claim token works for four minutes. It is sent once, is no part of the state, and later changes must not take it
/// away, as an apply does with everything that it leaves out.
async fn a_value_that_is_only_given_at_first_outlives_later_changes(cluster: Inside::Nothing) {
    let declared = |user: &str| secret("default", "claim").secret("/stringData/user", Secret::new(user.to_owned()));
    let first = declared("me").initial("/stringData/claim", Secret::new("claim-x".to_owned()));
    let step = first.apply(&cluster.client, &cluster.op(&first, false, None)).await.unwrap();
    next(step);
    assert_eq!(cluster.read(SECRET).unwrap()["data"], json!({"claim": "Y2xhaW0teA==", "user": "bWU="}));
    // Wherever the process dies, from here on the value itself is not needed any more.
    let Found::Present(_, step) = cluster.find(&declared("me")).await.unwrap() else { panic!() };
    let (cursor, why) = next(step);
    assert_eq!(why, "its initial values are not owned yet");
    let later = declared("me");
    let (cursor, _) = next(later.apply(&cluster.client, &cluster.op(&later, false, Some(cursor))).await.unwrap());
    let step = later.apply(&cluster.client, &cluster.op(&later, false, Some(cursor))).await.unwrap();
    assert!(matches!(step, Step::Done(_)));
    assert_eq!(cluster.read(SECRET).unwrap()["data"], json!({"claim": "Y2xhaW0teA==", "user": "bWU="}));
    let (made, _) = cluster.apply(&declared("you"), true).await.unwrap();
    assert_eq!(cluster.read(SECRET).unwrap()["data"], json!({"claim": "Y2xhaW0teA==", "user": "eW91"}));
    assert_eq!(made.live.unwrap()["secret"], json!({"/stringData/user": "you"}));
    // What was not given at first alone still goes when it is left out.
    cluster.apply(&secret("default", "claim"), true).await.unwrap();
    assert_eq!(cluster.read(SECRET).unwrap()["data"], json!({"claim": "Y2xhaW0teA=="}));
}

async fn a_failure_is_believed_when_it_lasts(cluster: Inside::Nothing) {
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}});
    let job = Object::new(json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "once", "namespace": "default"}, "spec": {"template": template}}));
    let (cursor, _) = next(job.apply(&cluster.client, &cluster.op(&job, false, None)).await.unwrap());
    let failed = json!([
        {"type": "FailureTarget", "status": "True", "reason": "BackoffLimitExceeded"},
        {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "it gave up"},
    ]);
    let status = json!({"status": {"startTime": "2026-01-01T00:00:00Z", "failed": 1, "conditions": failed}});
    cluster.other("PATCH", "/apis/batch/v1/namespaces/default/jobs/once/status", status);
    let (cursor, why) = next(job.apply(&cluster.client, &cluster.op(&job, true, Some(cursor))).await.unwrap());
    assert!(why.contains("it gave up"), "{why}");
    let now = cluster.op(&job, true, Some(cursor));
    let later = Op { now: now.now + Duration::from_secs(61), ..now.clone() };
    let error = job.apply(&cluster.client, &later).await.unwrap_err();
    assert_eq!((error.class, error.effect), (Class::Invalid, Effect::Perhaps), "the operation stays open");
    assert!(error.message.contains("it gave up"), "{error}");
    // The next run begins to count anew.
    let Found::Present(_, step) = Object::find(&cluster.client, &later).await.unwrap() else { panic!() };
    assert_eq!(next(step).0.get("failing"), None);
}

async fn a_definition_is_ready_when_its_kind_is_served(cluster: Inside::Nothing) {
    let version = json!({"name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
    let names = json!({"kind": "Widget", "plural": "widgets", "singular": "widget", "listKind": "WidgetList"});
    let definition = Object::new(json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.org"},
        "spec": {"group": "example.org", "scope": "Namespaced", "names": names, "versions": [version]}}));
    let widget = Object::new(json!({"apiVersion": "example.org/v1", "kind": "Widget",
        "metadata": {"name": "a", "namespace": "default"}, "spec": {"color": "red"}}));
    assert!(matches!(cluster.find(&widget).await.unwrap(), Found::Absent));
    let error = cluster.apply(&widget, false).await.unwrap_err();
    assert_eq!((error.class, error.effect), (Class::Again, Effect::None), "{error}");
    let (_, whys) = cluster.apply(&definition, false).await.unwrap();
    assert!(!whys.is_empty());
    cluster.apply(&widget, false).await.unwrap();
    assert!(matches!(cluster.find(&widget).await.unwrap(), Found::Present(Owner::Marked(_), Step::Done(_))));
}

async fn an_object_waits_for_its_namespace_and_leaves_with_it(cluster: Inside::Everything) {
    let media = namespace("media");
    let inside = config_map("media", "a", BTreeMap::new());
    let error = cluster.apply(&inside, false).await.unwrap_err();
    assert_eq!((error.class, error.effect), (Class::Again, Effect::None), "{error}");
    cluster.apply(&media, false).await.unwrap();
    cluster.apply(&inside, false).await.unwrap();
    let mut cursor = None;
    while let Step::Next { cursor: next, pause, .. } = cluster.delete_step(&media, cursor).await {
        cursor = Some(next);
        cluster.clock.sleep(pause).await;
    }
    assert!(matches!(cluster.find(&inside).await.unwrap(), Found::Absent));
    assert!(matches!(cluster.delete_step(&inside, None).await, Step::Done(_)));
}
}
