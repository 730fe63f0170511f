//! The stand-in answers what a real API server answers, request by request.
//!
//! `data/conformance.json` holds requests in their order, each with the answer of kube-apiserver 1.34.4. The stand-in is
//! always held against it; where `KUBEBUILDER_ASSETS` names a control plane, that is held against it, too, so that the
//! answers cannot be ours by mistake. `LAB_RECORD=1` writes the real answers anew.

use lab_core::Clock;
use lab_sim::kube::{Api, Options};
use lab_sim::{Assets, ControlPlane};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// What differs from run to run.
const VOLATILE: [&str; 9] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "time",
    "lastTransitionTime",
    "clusterIP",
    "clusterIPs",
    "nodePort",
    "deletionTimestamp",
];

struct Exchange {
    method: String,
    path: String,
    content: String,
    body: Value,
    code: u16,
    answer: Value,
    /// Why the stand-in may differ here, if it may.
    differs: Option<String>,
}

enum Entry {
    Exchange(Exchange),
    /// Something takes its time in a real cluster: simulated or real seconds.
    Pause(u64),
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/conformance.json")
}

fn read() -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(path()).unwrap()).unwrap()
}

fn entry(value: &Value) -> Entry {
    if let Some(seconds) = value["pause"].as_u64() {
        return Entry::Pause(seconds);
    }
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let method = text("method");
    let usual = if method == "PATCH" { "application/apply-patch+yaml" } else { "application/json" };
    Entry::Exchange(Exchange {
        path: text("path"),
        content: value["content"].as_str().unwrap_or(usual).into(),
        body: value["body"].clone(),
        code: value["code"].as_u64().unwrap() as u16,
        answer: value["answer"].clone(),
        differs: value["differs"].as_str().map(Into::into),
        method,
    })
}

/// Returns the answer without what differs from run to run.
fn stable(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(name, _)| !VOLATILE.contains(&name.as_str()));
            let mut kept: Map<_, _> = kept.map(|(name, value)| (name, stable(value))).collect();
            // A server orders managers by their times, which have whole seconds.
            if let Some(Value::Array(managers)) = kept.get_mut("managedFields") {
                managers.sort_by_key(ToString::to_string);
            }
            Value::Object(kept)
        }
        Value::Array(items) => items.into_iter().map(stable).collect(),
        Value::String(text) => Value::String(nameless(&text)),
        other => other,
    }
}

/// Returns a text in which every uid is `UID`, every time `TIME`, and every version, in parentheses or of an object that
/// is quoted, `N`.
fn nameless(text: &str) -> String {
    const VERSION: &str = r#"resourceVersion\":\""#;
    let shape = |start: usize, pattern: &str| {
        let found = text.as_bytes().get(start..start + pattern.len())?;
        let fits = found.iter().zip(pattern.bytes()).all(|(byte, wanted)| match wanted {
            b'x' => byte.is_ascii_hexdigit(),
            b'9' => byte.is_ascii_digit(),
            other => *byte == other,
        });
        fits.then_some(pattern.len())
    };
    let (mut out, mut at) = (String::new(), 0);
    while let Some(next) = text[at..].chars().next() {
        let digits = text[at + next.len_utf8()..].bytes().take_while(u8::is_ascii_digit).count();
        if let Some(length) = shape(at, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx") {
            out.push_str("UID");
            at += length;
        } else if let Some(length) = shape(at, "9999-99-99T99:99:99Z") {
            out.push_str("TIME");
            at += length;
        } else if text[at..].starts_with("(") && digits > 0 && text[at + 1 + digits..].starts_with(")") {
            out.push_str("(N)");
            at += digits + 2;
        } else if let Some(rest) = text[at..].strip_prefix(VERSION) {
            out.push_str(VERSION);
            out.push('N');
            at += VERSION.len() + rest.bytes().take_while(u8::is_ascii_digit).count();
        } else {
            out.push(next);
            at += next.len_utf8();
        }
    }
    out
}

/// Adds a line for every place where the two differ.
fn compare(place: &str, real: &Value, ours: &Value, report: &mut String) {
    match (real, ours) {
        (Value::Object(a), Value::Object(b)) => {
            let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                compare(&format!("{place}.{name}"), &real[name.as_str()], &ours[name.as_str()], report);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().for_each(|(i, (a, b))| compare(&format!("{place}[{i}]"), a, b, report));
        }
        _ if real == ours => {}
        _ => writeln!(report, "  {place}\n    recorded {real}\n    answered {ours}").unwrap(),
    }
}

#[tokio::test]
async fn the_stand_in_answers_like_a_real_api_server() {
    let api = Api::new(Options::new("v1.34.4", Clock::scaled(200)));
    let mut report = String::new();
    for (index, value) in read().iter().enumerate() {
        let exchange = match entry(value) {
            Entry::Exchange(exchange) => exchange,
            Entry::Pause(seconds) => {
                api.clock().sleep(10 * Duration::from_secs(seconds)).await;
                continue;
            }
        };
        let (code, answer) = api.call_as(&exchange.method, &exchange.path, &exchange.content, "test/1", &exchange.body);
        let mut differences = String::new();
        compare(
            "",
            &json!({"code": exchange.code, "body": exchange.answer}),
            &json!({"code": code, "body": stable(answer)}),
            &mut differences,
        );
        match (differences.is_empty(), exchange.differs) {
            // What may be said in other words is still answered with the same code.
            (false, Some(_)) if code != exchange.code => {
                write!(report, "#{index} {} {}\n{differences}", exchange.method, exchange.path).unwrap();
            }
            (false, None) => write!(report, "#{index} {} {}\n{differences}", exchange.method, exchange.path).unwrap(),
            (true, Some(why)) => writeln!(report, "#{index} no longer differs: take out {why:?}").unwrap(),
            (true, None) | (false, Some(_)) => {}
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

/// Returns the real control plane's binaries; without them says so past the test runner, which keeps what passes quiet.
fn assets(test: &str) -> Option<Assets> {
    let assets = Assets::find().unwrap();
    if assets.is_none() {
        let how = "tests/control-plane/build DIRECTORY makes one; then set KUBEBUILDER_ASSETS=DIRECTORY";
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: there is no real control plane. {how}");
    }
    assets
}

#[tokio::test]
async fn a_real_api_server_answers_as_recorded() {
    let Some(assets) = assets("a_real_api_server_answers_as_recorded") else { return };
    let plane = ControlPlane::start_api(&assets).await.unwrap();
    let record = std::env::var_os("LAB_RECORD").is_some();
    let (mut report, mut recorded) = (String::new(), Vec::new());
    for (index, value) in read().into_iter().enumerate() {
        let exchange = match entry(&value) {
            Entry::Exchange(exchange) => exchange,
            Entry::Pause(seconds) => {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                recorded.push(value);
                continue;
            }
        };
        let body = if exchange.body.is_null() { Vec::new() } else { exchange.body.to_string().into_bytes() };
        let (code, answer) = plane.request(&exchange.method, &exchange.path, &exchange.content, body).await.unwrap();
        let answer = stable(serde_json::from_slice(&answer).unwrap_or(Value::Null));
        compare(
            &format!("#{index} {} {}", exchange.method, exchange.path),
            &json!({"code": exchange.code, "body": exchange.answer}),
            &json!({"code": code, "body": answer}),
            &mut report,
        );
        let mut value = value;
        (value["code"], value["answer"]) = (code.into(), answer);
        recorded.push(value);
    }
    if record {
        let lines: Vec<String> = recorded.iter().map(ToString::to_string).collect();
        std::fs::write(path(), format!("[\n{}\n]\n", lines.join(",\n"))).unwrap();
        return;
    }
    assert!(report.is_empty(), "\n{report}");
}

#[tokio::test]
async fn nothing_of_a_control_plane_outlives_it() {
    let Some(assets) = assets("nothing_of_a_control_plane_outlives_it") else { return };
    let plane = ControlPlane::start(&assets).await.unwrap();
    let address = plane.address();
    tokio::net::TcpStream::connect(address).await.unwrap();
    drop(plane);
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "the server is gone");
}

/// A webhook is at an address of the cluster's services. On the machine of whoever runs the tests that is nobody's, or
/// somebody else's.
#[tokio::test]
async fn a_real_api_server_dials_nobody_for_a_webhook() {
    let Some(assets) = assets("a_real_api_server_dials_nobody_for_a_webhook") else { return };
    let plane = ControlPlane::start_api(&assets).await.unwrap();
    let send = async |path: &str, body: Value| {
        let sent = plane.request("POST", path, "application/json", body.to_string().into_bytes()).await;
        let (code, answer) = sent.unwrap();
        (code, serde_json::from_slice::<Value>(&answer).unwrap())
    };
    let service = json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"port": 443}]}});
    assert_eq!(send("/api/v1/namespaces/default/services", service).await.0, 201);
    let hook = json!({
        "name": "hook.example.org", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": {"service": {"name": "hook", "namespace": "default"}},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"]}],
    });
    let configuration = json!({"metadata": {"name": "hook"}, "webhooks": [hook]});
    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    assert_eq!(send(path, configuration).await.0, 201);
    let mut answer = (0, Value::Null);
    for n in 0..100 {
        let map = json!({"metadata": {"name": format!("map-{n}")}});
        answer = send("/api/v1/namespaces/default/configmaps", map).await;
        if answer.0 == 500 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let said = answer.1["message"].as_str().unwrap_or_default();
    assert!(said.contains("hook.example.org") && said.contains("502"), "{said}");
}
