//! The examples on a real control plane: etcd, the API server, the controllers and the scheduler of Kubernetes, and KWOK
//! for the pods. Without one these tests say so and pass; `tests/control-plane/README.md` says how to get one.

mod homelab;
mod real;

#[path = "../examples/microk8s.rs"]
#[expect(dead_code, reason = "its `main` is for people")]
mod microk8s;

use homelab::essence::differences;
use homelab::{HomeLab, consistent, essence, example};
use lab::execute::disk::Crash;
use lab::execute::{CallFault, Faults};
use lab::kube::body;
use lab::plan::{Graph, Verb};
use lab::sim::{self, Assets, ControlPlane};
use lab::{Declared, Neighbours, Stack, Vault, configuration};
use real::assets;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

fn options(assets: &Assets) -> sim::Options {
    sim::Options { control_plane: Some(assets.clone()), ..sim::Options::default() }
}

/// How often one `up` is stopped.
const KILLS: usize = 10;

#[test]
fn the_home_lab_comes_up_on_a_real_control_plane_however_often_it_is_stopped() {
    let test = "the_home_lab_comes_up_on_a_real_control_plane_however_often_it_is_stopped";
    let Some(assets) = assets(test) else { return };
    let whole = HomeLab::new(options(&assets));
    let counted = Arc::new(Faults::none());
    let report = whole.run(Verb::Up, &counted).expect("undisturbed");
    assert!(report.complete(), "undisturbed: {report:#?}");
    let expected = whole.settled().expect("undisturbed");
    assert!(expected.iter().filter(|line| line.contains("Deployment")).count() > 3, "{expected:#?}");
    drop(whole);

    let mut lab = HomeLab::new(options(&assets));
    let mut halfway = 0;
    for kill in 0..KILLS {
        // What was done stays done, so the next one gets further.
        let fault = if kill % 2 == 0 { CallFault::StopAfter } else { CallFault::StopBefore };
        let faults = Arc::new(Faults::at(counted.calls() / KILLS, fault));
        let stopped = lab.run(Verb::Up, &faults).expect("it goes on").stopped;
        let world = lab.world();
        consistent(&world).unwrap();
        halfway += usize::from(stopped && essence(&world) != expected);
        lab.disk = lab.disk.reopen(Crash::Process);
    }
    lab.run_whole(Verb::Up).expect("the last one");
    let world = lab.settled().expect("settled");
    assert!(world == expected, "another world: {}", differences(&expected, &world));
    assert!(halfway > KILLS / 2, "it was stopped halfway only {halfway} times");

    lab.run_whole(Verb::Destroy).expect("destroy");
    let world = lab.world();
    assert_eq!(world["clusters"].as_array().map(Vec::len), Some(0), "{}", world["clusters"]);
}

/// Returns the Kubernetes objects of a program, each after what it needs, whole but for secrets and what only a cluster
/// knows.
fn objects(declared: &Declared) -> Vec<Value> {
    assert!(declared.problems.is_empty(), "{:?}", declared.problems);
    let graph = Graph::new(declared);
    let nodes = graph.order.iter().map(|n| &declared.nodes[*n]);
    let bodies = nodes.filter(|node| node.type_name() == "kubernetes:object").map(|node| {
        // Outputs of other objects are names here.
        let known = |value: &Value| if value.is_object() { Value::from("an-output") } else { value.clone() };
        let inputs = node.inputs.value();
        let at = |field: &str| inputs[field].as_object().cloned().unwrap_or_default().into_iter();
        let set: BTreeMap<String, Value> = at("set").map(|(path, value)| (path, known(&value))).collect();
        let secrets = at("secret").map(|(path, _)| (path, Value::from("secret"))).collect();
        let whole = body::merge(inputs["body"].clone(), &set).and_then(|whole| body::merge(whole, &secrets));
        body::plain(whole.unwrap())
    });
    bodies.collect()
}

/// Returns whether an object is one of those that cert-manager's own objects cannot be without.
fn of_cert_manager(object: &Value) -> bool {
    match object["kind"].as_str() {
        Some("Namespace") => object["metadata"]["name"] == "cert-manager",
        Some("CustomResourceDefinition") => {
            object["spec"]["group"].as_str().is_some_and(|group| group.ends_with("cert-manager.io"))
        }
        _ => false,
    }
}

/// Applies an object as strictly as can be, and returns what the server has against it.
async fn refusal(plane: &ControlPlane, object: &Value) -> Option<String> {
    let key = lab::kube::Key::of(object).unwrap();
    let kind = lab::kube::kinds::known(&key.api_version, &key.kind).unwrap_or_else(|| panic!("{key}"));
    let how = lab::kube::request::Apply::create();
    let request = lab::kube::request::apply(&kind, &key, object, &how).unwrap();
    let target = request.uri().to_string();
    let mut answer = (404, Value::Null);
    // A definition is served a moment after it is accepted.
    for _ in 0..100 {
        let sent = plane.request("PATCH", &target, "application/apply-patch+yaml", request.body().clone()).await;
        let (code, said) = sent.unwrap();
        answer = (code, serde_json::from_slice(&said).unwrap_or_default());
        if code != 404 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    (answer.0 != 201).then(|| format!("{key}: {} {}", answer.0, answer.1["message"]))
}

#[tokio::test]
async fn a_real_api_server_takes_every_object_of_every_example() {
    let Some(assets) = assets("a_real_api_server_takes_every_object_of_every_example") else { return };
    let vault = || Vault::new([7; 32]);
    let homelab = Stack::load("homelab", None, vault(), BTreeMap::new(), example::homelab).unwrap();
    let text = std::fs::read_to_string("examples/microk8s/dev.toml").unwrap();
    let here =
        configuration::read("examples/microk8s/dev.toml", &text).unwrap_or_else(|problems| panic!("{problems:?}"));
    let dev = |stack: &Stack| microk8s::microk8s(stack, here);
    let microk8s = Stack::load("microk8s-dev", Some("dev"), vault(), Neighbours::new(), dev).unwrap();
    let (homelab, microk8s) = (objects(&homelab), objects(&microk8s));
    // MicroK8s brings cert-manager along, so dev declares neither its namespace nor its kinds; the home lab does, and
    // nothing else of it is there before dev's objects.
    let brought: Vec<Value> = homelab.iter().filter(|object| of_cert_manager(object)).cloned().collect();
    assert!(brought.len() > 2 && !microk8s.iter().any(of_cert_manager), "{}", brought.len());
    for (before, objects, least) in [(Vec::new(), homelab, 80), (brought, microk8s, 20)] {
        let plane = ControlPlane::start_api(&assets).await.unwrap();
        assert!(objects.len() > least, "only {} objects", objects.len());
        let mut refused = Vec::new();
        for object in before.iter().chain(&objects) {
            refused.extend(refusal(&plane, object).await);
        }
        assert!(refused.is_empty(), "{}", refused.join("\n"));
    }
}
