//! What the server would make of an object, asked before anything is written, on the stand-in and on a real one.

mod cluster;

use cluster::{Cluster, Inside, on_both};
use lab_core::{Class, Resource};
use lab_kube::{Kubernetes, Object, config_map};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const MAP: &str = "/api/v1/namespaces/default/configmaps/settings";

fn settings(namespace: &str, value: &str) -> Object<Value> {
    config_map(namespace, "settings", BTreeMap::from([("a".to_owned(), value.to_owned())]))
}

async fn probed(cluster: &Cluster, object: &Object<Value>, exists: bool) -> lab_core::Result<Vec<String>> {
    Resource::<Kubernetes>::probe(object, &cluster.client, &cluster.op(object, exists, None)).await
}

on_both! {
async fn nothing_is_made_by_asking(cluster: Inside::Nothing) {
    assert_eq!(probed(&cluster, &settings("default", "1"), false).await.unwrap(), [] as [&str; 0]);
    assert_eq!(cluster.read(MAP), None);
}

async fn what_another_step_makes_first_is_no_refusal(cluster: Inside::Nothing) {
    assert_eq!(probed(&cluster, &settings("later", "1"), false).await.unwrap(), [] as [&str; 0]);
    let shelf = Object::new(json!({"apiVersion": "example.org/v1", "kind": "Shelf", "metadata": {"name": "films"}}));
    assert_eq!(probed(&cluster, &shelf, false).await.unwrap(), [] as [&str; 0]);
}

async fn somebody_elses_object_of_the_name_is_known_before(cluster: Inside::Nothing) {
    let foreign = json!({"metadata": {"name": "settings"}, "data": {"a": "theirs"}});
    let before = cluster.other("POST", "/api/v1/namespaces/default/configmaps", foreign);
    let error = probed(&cluster, &settings("default", "1"), false).await.unwrap_err();
    assert_eq!(error.class, Class::Conflict, "{error}");
    assert_eq!(cluster.read(MAP), Some(before));
}

async fn a_field_that_is_unknown_is_refused_before(cluster: Inside::Nothing) {
    let mut wrong = settings("default", "1");
    wrong.body["dada"] = json!({"a": "1"});
    let error = probed(&cluster, &wrong, false).await.unwrap_err();
    assert!(error.message.contains("dada"), "{error}");
}

async fn a_change_of_what_is_declared_says_nothing_more(cluster: Inside::Nothing) {
    cluster.apply(&settings("default", "1"), false).await.unwrap();
    let before = cluster.read(MAP);
    assert_eq!(probed(&cluster, &settings("default", "2"), true).await.unwrap(), [] as [&str; 0]);
    assert_eq!(cluster.read(MAP), before);
}
}
