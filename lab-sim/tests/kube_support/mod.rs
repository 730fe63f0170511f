//! A client of the stand-in's service, without a network.
#![allow(dead_code, reason = "each test file uses its part")]

use std::path::Path;
use std::time::{Duration, Instant};

use lab_core::Clock;
use lab_sim::kube::{Api, Call, Identity, Options, Reply};
use serde_json::Value;

/// A cluster whose API is called directly.
pub(crate) struct Cluster {
    pub(crate) api: Api,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: Value,
    pub(crate) warnings: Vec<String>,
}

/// An open watch.
pub(crate) struct Watch {
    body: Reply,
    rest: Vec<u8>,
}

impl Watch {
    /// Returns the next event, or `None` at the end.
    pub(crate) async fn line(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let piece = tokio::time::timeout(Duration::from_secs(10), self.body.piece()).await.expect("an event");
            self.rest.extend(piece?);
        }
    }
}

impl Cluster {
    pub(crate) fn new() -> Cluster {
        Cluster { api: Api::new(Options::new("v1.34.1", Clock::scaled(200))) }
    }

    pub(crate) async fn send(&self, method: &str, target: &str, content_type: &str, body: Vec<u8>) -> Answer {
        self.send_as(Some(Identity::administrator()), method, target, content_type, body).await
    }

    async fn send_as(
        &self,
        who: Option<Identity>,
        method: &str,
        target: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Answer {
        let response = self.api.respond(call(method, target, content_type, body), who.as_ref()).await.unwrap();
        let code = response.status().as_u16();
        let warnings = response.headers().get_all("warning").iter().map(|w| w.to_str().unwrap().to_string()).collect();
        let mut reply = response.into_body();
        let mut bytes = Vec::new();
        while let Some(piece) = reply.piece().await {
            bytes.extend(piece);
        }
        Answer { code, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null), warnings }
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.send("GET", target, "", Vec::new()).await
    }

    pub(crate) async fn get_as(&self, who: Option<(&str, &str)>, target: &str) -> Answer {
        let who = who.map(|(user, group)| Identity { user: user.into(), groups: vec![group.into()] });
        self.send_as(who, "GET", target, "", Vec::new()).await
    }

    pub(crate) async fn post(&self, target: &str, body: &Value) -> Answer {
        self.send("POST", target, "application/json", body.to_string().into_bytes()).await
    }

    pub(crate) async fn put(&self, target: &str, body: &Value) -> Answer {
        self.send("PUT", target, "application/json", body.to_string().into_bytes()).await
    }

    pub(crate) async fn patch(&self, target: &str, content_type: &str, body: &Value) -> Answer {
        self.send("PATCH", target, content_type, body.to_string().into_bytes()).await
    }

    /// Applies to the collection's object of the body's name, strictly.
    pub(crate) async fn apply(&self, collection: &str, body: &Value, manager: &str, extra: &str) -> Answer {
        let name = body["metadata"]["name"].as_str().unwrap();
        let target = format!("{collection}/{name}?fieldManager={manager}&fieldValidation=Strict{extra}");
        self.patch(&target, "application/apply-patch+yaml", body).await
    }

    pub(crate) async fn delete(&self, target: &str, options: Value) -> Answer {
        self.send("DELETE", target, "application/json", options.to_string().into_bytes()).await
    }

    pub(crate) async fn watch(&self, target: &str) -> Watch {
        let who = Identity::administrator();
        let response = self.api.respond(call("GET", target, "", Vec::new()), Some(&who)).await.unwrap();
        assert_eq!(response.status(), 200);
        Watch { body: response.into_body(), rest: Vec::new() }
    }

    /// Asks until the answer is as wanted.
    pub(crate) async fn until(&self, target: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let start = Instant::now();
        loop {
            let answer = self.get(target).await;
            if wanted(&answer) {
                return answer;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "{target} is still {}: {:#}", answer.code, answer.body);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Installs a definition of `tests/data/crds`, and waits until it is served.
    pub(crate) async fn install(&self, name: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/crds").join(format!("{name}.yaml"));
        let yaml = std::fs::read(path).unwrap();
        let (group, plural) = name.split_once('_').unwrap();
        let crd = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.{group}");
        let target = format!("{crd}?fieldManager=lab&fieldValidation=Strict");
        let created = self.send("PATCH", &target, "application/apply-patch+yaml", yaml).await;
        assert_eq!(created.code, 201, "{}", created.body);
        self.until(&crd, |answer| {
            let conditions = answer.body["status"]["conditions"].as_array();
            conditions.into_iter().flatten().any(|c| c["type"] == "Established" && c["status"] == "True")
        })
        .await;
    }
}

/// Returns the message of the cause at a field.
pub(crate) fn cause(answer: &Answer, field: &str) -> String {
    let causes = answer.body["details"]["causes"].as_array();
    let cause = causes.into_iter().flatten().find(|cause| cause["field"] == field);
    cause.unwrap_or_else(|| panic!("no cause at {field}: {:#}", answer.body))["message"].as_str().unwrap().into()
}

fn call(method: &str, target: &str, content_type: &str, body: Vec<u8>) -> Call {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Call {
        method: method.into(),
        path: path.into(),
        query: query.into(),
        content_type: content_type.into(),
        accept: "application/json".into(),
        agent: "test/1".into(),
        body,
    }
}
