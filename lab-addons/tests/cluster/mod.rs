//! A program's objects, and the cluster that judges them: a stand-in, or a real API server where there is one.
#![allow(dead_code, reason = "each test file uses its part")]

use lab_core::model::{Clock, Declared, Scope, Secret, Stack, Urn, Vault};
use lab_core::plan::Graph;
use lab_kube::{Kubernetes, Readiness, Related};
use lab_sim::kube::controllers::Settings;
use lab_sim::kube::{Api, Call, Identity, Options};
use lab_sim::{Assets, ControlPlane};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::time::Duration;

/// What judges.
pub(crate) enum Judge {
    StandIn(Api),
    Real(Box<ControlPlane>),
}

impl Judge {
    /// Returns a real API server; without one says so past the test runner, which keeps what passes quiet.
    pub(crate) async fn real(test: &str) -> Option<Judge> {
        let Some(assets) = Assets::find().unwrap() else {
            let how = "tests/control-plane/build DIRECTORY makes one; then set KUBEBUILDER_ASSETS=DIRECTORY";
            let _ = writeln!(std::io::stderr(), "SKIPPED {test}: there is no real control plane. {how}");
            return None;
        };
        Some(Judge::Real(Box::new(ControlPlane::start_api(&assets).await.unwrap())))
    }
}

/// What a program declares on one cluster.
pub(crate) fn declare(program: impl FnOnce(&Scope<'_, Kubernetes>)) -> Declared {
    let load = |stack: &Stack| {
        program(&stack.provider("k8s", Kubernetes::stated("attic", Secret::new(String::new()))));
        Ok(())
    };
    Stack::load("homelab", None, Vault::new([7; 32]), BTreeMap::new(), load).unwrap()
}

/// One declared object.
#[derive(Clone, Debug)]
pub(crate) struct Thing {
    /// What a person calls it: `Deployment traefik/traefik`.
    pub(crate) name: String,
    /// Its body, with what is set by path as far as it is known.
    pub(crate) body: Value,
    /// Everything that is declared to come before it, by name, at any distance.
    pub(crate) before: BTreeSet<String>,
}

impl Thing {
    pub(crate) fn text(&self, pointer: &str) -> &str {
        self.body.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn kind(&self) -> &str {
        self.text("/kind")
    }

    /// Where the template of its pods is, if it has any.
    pub(crate) fn pods(&self) -> Option<&Value> {
        self.body.pointer("/spec/template/spec/containers").and(self.body.pointer("/spec/template"))
    }
}

/// Returns the declared objects, each after everything it needs.
pub(crate) fn things(declared: &Declared) -> Vec<Thing> {
    let graph = Graph::new(declared);
    assert!(graph.problems.is_empty() && declared.problems.is_empty(), "{:?}", declared.problems);
    let mut done: BTreeMap<&Urn, Thing> = BTreeMap::new();
    let mut ordered = Vec::new();
    for n in &graph.order {
        let node = &declared.nodes[*n];
        let mut body = node.inputs.value()["body"].clone();
        // An output of another object. Only the names of storage classes are wired that way.
        let known = |value: &Value| if value.is_object() { Value::from("local-path") } else { value.clone() };
        let set = node.inputs.value()["set"].as_object().cloned().unwrap_or_default();
        let set: BTreeMap<String, Value> = set.iter().map(|(at, value)| (at.clone(), known(value))).collect();
        body = lab_kube::body::merge(body, &set).unwrap();
        // What it really is stands nowhere in what is declared.
        let secret = node.inputs.value()["secret"].as_object().cloned().unwrap_or_default();
        let secret = secret.keys().map(|at| (at.clone(), Value::from("secret"))).collect();
        body = lab_kube::body::merge(body, &secret).unwrap();
        let mut thing = Thing { name: String::new(), body, before: BTreeSet::new() };
        let key = [thing.text("/metadata/namespace"), thing.text("/metadata/name")].map(str::to_owned);
        thing.name = format!("{} {}", thing.kind(), key.join("/").trim_start_matches('/'));
        for edge in &graph.edges[*n] {
            thing.before.insert(done[&edge.to].name.clone());
            thing.before.extend(done[&edge.to].before.iter().cloned());
        }
        ordered.push(&node.urn);
        done.insert(&node.urn, thing);
    }
    ordered.into_iter().map(|urn| done[urn].clone()).collect()
}

/// Applies every object in order to a new cluster, as strictly as it can be told to, and returns what it refused.
pub(crate) async fn refused(things: &[Thing]) -> Vec<String> {
    refused_by(&Judge::StandIn(api()), things).await
}

/// Applies every object in order, as strictly as the judge can be told to, and returns what it refused.
pub(crate) async fn refused_by(judge: &Judge, things: &[Thing]) -> Vec<String> {
    let mut refused = Vec::new();
    for thing in things {
        refused.extend(apply(judge, thing).await.err());
    }
    refused
}

/// Applies every object to a new cluster of three nodes, each only when everything before it is ready, and returns the
/// first that does not become so.
pub(crate) async fn unready(things: &[Thing]) -> Option<String> {
    let api = api();
    let judge = Judge::StandIn(api.clone());
    for node in ["one", "two", "three"] {
        let body = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node, "labels": {"kubernetes.io/os": "linux"}}});
        send(&judge, "PATCH", &format!("/api/v1/nodes/{node}"), &body).await;
        let status = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let (code, why) = send(&judge, "PATCH", &format!("/api/v1/nodes/{node}/status"), &status).await;
        assert_eq!(code, 200, "{why}");
    }
    api.start_controllers(Settings::default());
    for thing in things {
        apply(&judge, thing).await.unwrap();
        let mut status = Readiness::Waiting { reason: "not looked at yet".into() };
        for _ in 0..500 {
            let (_, live) = send(&judge, "GET", &path(thing), &Value::Null).await;
            let mut related = Related::default();
            let class = thing.text("/spec/storageClassName");
            if thing.kind() == "PersistentVolumeClaim" {
                let (code, class) =
                    send(&judge, "GET", &format!("/apis/storage.k8s.io/v1/storageclasses/{class}"), &Value::Null).await;
                related.storage_class = (code == 200).then_some(class);
            }
            status = lab_kube::readiness::status_with(&live, &related);
            if status == Readiness::Ready {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if status != Readiness::Ready {
            return Some(format!("{}: {status:?}", thing.name));
        }
    }
    None
}

fn api() -> Api {
    Api::new(Options { pace: Duration::ZERO, ..Options::new("v1.34.1", Clock::scaled(1000)) })
}

fn path(thing: &Thing) -> String {
    let key = lab_kube::Key::of(&thing.body).unwrap();
    let kind = lab_kube::kinds::known(&key.api_version, &key.kind).unwrap_or_else(|| panic!("{key}"));
    let root = if kind.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", kind.group) };
    let within = match thing.text("/metadata/namespace") {
        "" => String::new(),
        namespace => format!("/namespaces/{namespace}"),
    };
    format!("{root}/{}{within}/{}/{}", kind.version, kind.plural, thing.text("/metadata/name"))
}

async fn apply(judge: &Judge, thing: &Thing) -> Result<(), String> {
    let body = lab_kube::body::plain(thing.body.clone());
    // A definition is served a moment after it is accepted.
    let (tries, pause) = match judge {
        Judge::StandIn(_) => (50, Duration::from_millis(10)),
        Judge::Real(_) => (100, Duration::from_millis(200)),
    };
    let mut answer = (0, Value::Null);
    for _ in 0..tries {
        answer = send(judge, "PATCH", &path(thing), &body).await;
        if answer.0 != 404 {
            break;
        }
        tokio::time::sleep(pause).await;
    }
    let (code, why) = answer;
    if (200..300).contains(&code) { Ok(()) } else { Err(format!("{}: {code} {}", thing.name, why["message"])) }
}

async fn send(judge: &Judge, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let query = if method == "PATCH" { "fieldManager=lab&fieldValidation=Strict" } else { "" };
    let content_type = "application/apply-patch+yaml";
    let sent = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
    let api = match judge {
        Judge::StandIn(api) => api,
        Judge::Real(plane) => {
            let (code, answer) = plane.request(method, &format!("{path}?{query}"), content_type, sent).await.unwrap();
            return (code, serde_json::from_slice(&answer).unwrap_or(Value::Null));
        }
    };
    let call = Call {
        method: method.into(),
        path: path.into(),
        query: query.into(),
        content_type: content_type.into(),
        accept: "application/json".into(),
        agent: "lab".into(),
        body: sent,
    };
    let response = api.respond(call, Some(&Identity::administrator())).await.unwrap();
    let code = response.status().as_u16();
    let mut reply = response.into_body();
    let mut text = Vec::new();
    while let Some(piece) = reply.piece().await {
        text.extend(piece);
    }
    (code, serde_json::from_slice(&text).unwrap_or(Value::Null))
}
