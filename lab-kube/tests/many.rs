//! Many objects of a collection: listed once and watched, instead of asked for one by one.

mod cluster;

use cluster::{Cluster, Inside, on_both};
use lab_core::{Class, Clock, Effect, Found, Link, Op, Owner, Provider as _, Resource, Secret, Step};
use lab_kube::{Client, Kubernetes, Object, config_map};
use serde_json::{Value, json};
use std::time::Duration;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// How many objects are asked for one by one before their collection is listed.
const FEW: usize = 9;

fn map(n: usize) -> Object<Value> {
    config_map("default", format!("settings-{n:03}"), [("n".to_owned(), n.to_string())].into())
}

fn deployment(n: usize) -> Object<Value> {
    let name = format!("web-{n:03}");
    let container = json!({"name": "web", "image": "nginx:1"});
    Object::new(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}},
    }))
}

/// Connects anew, as every run does.
async fn again(cluster: &Cluster) -> Client {
    let provider = Kubernetes::stated("test", Secret::new(cluster.kubeconfig.clone()));
    provider.connect(Link::direct().on(cluster.clock.clone())).await.unwrap()
}

async fn found(cluster: &Cluster, client: &Client, object: &Object<Value>) -> Value {
    match Object::find(client, &cluster.op(object, true, None)).await.unwrap() {
        Found::Present(Owner::Marked(_), Step::Done(made) | Step::Next { made: Some(made), .. }) => made.live.unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Waits until something holds; how long a server takes to tell it is not asked.
async fn until(mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        Clock::system().sleep(Duration::from_millis(50)).await;
    }
    panic!("it does not come to that");
}

on_both! {
async fn many_objects_are_made_and_looked_at_without_a_call_for_each(cluster: Inside::Nothing) {
    for n in 0..60 {
        let new = Op { exists: false, ..cluster.op(&map(n), false, None) };
        assert!(matches!(Object::find(&cluster.client, &new).await.unwrap(), Found::Absent));
        cluster.apply(&map(n), false).await.unwrap();
        // What we wrote is there at once, whatever the watch has said so far.
        assert_eq!(found(&cluster, &cluster.client, &map(n)).await["body"], map(n).body);
    }
    let (lists, gets): (Vec<String>, Vec<String>) = cluster.reads().into_iter().partition(|path| path == MAPS);
    assert_eq!(cluster.mutations().len(), 60);
    assert!(gets.len() <= 2 * FEW, "{gets:?}");
    assert!(lists.len() <= 2, "one list and one watch: {lists:?}");

    let client = again(&cluster).await;
    for n in 0..60 {
        assert_eq!(found(&cluster, &client, &map(n)).await["body"], map(n).body);
    }
    let reads = cluster.reads();
    assert!(reads.len() <= FEW + 2, "{reads:?}");
}

async fn what_others_do_meanwhile_is_seen(cluster: Inside::Nothing) {
    for n in 0..20 {
        cluster.apply(&map(n), false).await.unwrap();
    }
    let client = again(&cluster).await;
    for n in 0..20 {
        found(&cluster, &client, &map(n)).await;
    }
    // The watch begins beside us, after the list.
    let mut begun = 0;
    until(async || {
        begun += cluster.reads().iter().filter(|path| *path == MAPS).count();
        begun == 2
    })
    .await;
    cluster.other("PATCH", &format!("{MAPS}/settings-004"), json!({"data": {"n": "theirs"}}));
    until(async || found(&cluster, &client, &map(4)).await["body"]["data"]["n"] == "theirs").await;
    cluster.other("DELETE", &format!("{MAPS}/settings-005"), Value::Null);
    let gone = async || {
        matches!(Object::find(&client, &cluster.op(&map(5), true, None)).await.unwrap(), Found::Absent)
    };
    until(gone).await;
    assert_eq!(cluster.reads(), [] as [&str; 0], "the watch said it");
    // What is no longer there is neither resurrected nor overwritten by what was known of it.
    let error = map(5).apply(&client, &cluster.op(&map(5), true, None)).await.unwrap_err();
    assert_eq!(error.class, Class::Gone, "{error}");
}

/// "Does not answer" is not "is gone": what a list did not have is asked for before it is said to be gone.
async fn an_absence_is_asked_for_and_not_guessed(cluster: Inside::Nothing) {
    for n in 0..20 {
        cluster.apply(&map(n), false).await.unwrap();
    }
    let client = again(&cluster).await;
    for n in 0..20 {
        found(&cluster, &client, &map(n)).await;
    }
    let recorded = cluster.op(&map(50), true, None);
    assert!(matches!(Object::find(&client, &recorded).await.unwrap(), Found::Absent));
    cluster.refuse_reads(true);
    let error = Object::find(&client, &recorded).await.unwrap_err();
    assert_eq!((error.class, error.effect), (Class::Unreachable, Effect::None), "{error}");
    cluster.refuse_reads(false);
    assert!(matches!(Object::find(&client, &recorded).await.unwrap(), Found::Absent));
}

async fn a_lost_reply_is_asked_for(cluster: Inside::Nothing) {
    for n in 0..20 {
        cluster.apply(&map(n), false).await.unwrap();
        found(&cluster, &cluster.client, &map(n)).await;
    }
    cluster.lose_reply();
    let error = cluster.apply(&map(20), false).await.unwrap_err();
    assert_eq!((error.class, error.effect), (Class::Unreachable, Effect::Perhaps), "{error}");
    cluster.reads();
    found(&cluster, &cluster.client, &map(20)).await;
    assert_eq!(cluster.reads(), [format!("{MAPS}/settings-020")]);
}

async fn many_workloads_are_waited_for_without_a_call_for_each(cluster: Inside::Everything) {
    let all: Vec<Object<Value>> = (0..30).map(deployment).collect();
    let made = all.iter().map(|object| cluster.apply(object, false));
    for made in futures_util::future::join_all(made).await {
        made.unwrap();
    }
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let mut gets = cluster.reads();
    gets.retain(|path| path.starts_with(&format!("{deployments}/")));
    assert_eq!(cluster.mutations().len(), 30);
    assert!(gets.len() <= 2 * FEW, "{gets:?}");
    for object in &all {
        let there = cluster.read(&format!("{deployments}/{}", object.key().unwrap().name)).unwrap();
        assert_eq!(there["status"]["availableReplicas"], 1);
    }
}
}

/// A server forgets what was long ago, and ends watches as it likes.
#[tokio::test]
async fn a_watch_that_is_too_old_is_listed_anew() {
    let cluster = Cluster::stand_in(Inside::Nothing).await;
    for n in 0..20 {
        cluster.apply(&map(n), false).await.unwrap();
    }
    let client = again(&cluster).await;
    for n in 0..20 {
        found(&cluster, &client, &map(n)).await;
    }
    cluster.unseen(|| {
        cluster.other("PATCH", &format!("{MAPS}/settings-004"), json!({"data": {"n": "theirs"}}));
        cluster.other("DELETE", &format!("{MAPS}/settings-005"), Value::Null);
    });
    until(async || found(&cluster, &client, &map(4)).await["body"]["data"]["n"] == "theirs").await;
    let gone = cluster.op(&map(5), true, None);
    assert!(matches!(Object::find(&client, &gone).await.unwrap(), Found::Absent));
    assert!(cluster.reads().iter().filter(|path| *path == MAPS).count() > 2, "it was listed once more");
}
