//! A program's objects, and a stand-in of a cluster that judges them.
#![allow(dead_code, reason = "each test file uses its part")]

use lab_core::model::{Clock, Declared, Scope, Secret, Stack, Urn, Vault};
use lab_core::plan::Graph;
use lab_kube::Kubernetes;
use lab_sim::kube::{Api, Call, Identity, Options};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

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
        let mut body = node.inputs["body"].clone();
        let known = |value: &Value| if value.is_object() { Value::from("known-later") } else { value.clone() };
        let set = node.inputs["set"].as_object().cloned().unwrap_or_default();
        let set: BTreeMap<String, Value> = set.iter().map(|(at, value)| (at.clone(), known(value))).collect();
        body = lab_kube::body::merge(body, &set).unwrap();
        let mut thing = Thing { name: String::new(), body, before: BTreeSet::new() };
        let key = [thing.text("/metadata/namespace"), thing.text("/metadata/name")].map(str::to_owned);
        thing.name = format!("{} {}", thing.kind(), key.join("/").trim_start_matches('/'));
        for edge in &graph.edges[&node.urn] {
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
    let api = Api::new(Options { pace: Duration::ZERO, ..Options::new("v1.34.1", Clock::scaled(1000)) });
    let mut refused = Vec::new();
    for thing in things {
        let key = lab_kube::Key::of(&thing.body).unwrap();
        let kind = lab_kube::kinds::known(&key.api_version, &key.kind).unwrap_or_else(|| panic!("{key}"));
        let root = if kind.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", kind.group) };
        let within = match thing.text("/metadata/namespace") {
            "" => String::new(),
            namespace => format!("/namespaces/{namespace}"),
        };
        let path = format!("{root}/{}{within}/{}/{}", kind.version, kind.plural, thing.text("/metadata/name"));
        // A definition is served a moment after it is accepted, as on a real cluster.
        let mut answer = (0, String::new());
        for _ in 0..50 {
            answer = apply(&api, &path, &thing.body).await;
            if answer.0 != 404 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if !(200..300).contains(&answer.0) {
            refused.push(format!("{}: {} {}", thing.name, answer.0, answer.1));
        }
    }
    refused
}

async fn apply(api: &Api, path: &str, body: &Value) -> (u16, String) {
    let call = Call {
        method: "PATCH".into(),
        path: path.into(),
        query: "fieldManager=lab&fieldValidation=Strict".into(),
        content_type: "application/apply-patch+yaml".into(),
        accept: "application/json".into(),
        agent: "lab".into(),
        body: serde_json::to_vec(&lab_kube::body::plain(body.clone())).unwrap(),
    };
    let response = api.respond(call, Some(&Identity::administrator())).await.unwrap();
    let code = response.status().as_u16();
    let mut reply = response.into_body();
    let mut text = Vec::new();
    while let Some(piece) = reply.piece().await {
        text.extend(piece);
    }
    (code, String::from_utf8_lossy(&text).into_owned())
}
