//! No secret of a run lies in clear in any file, plan, event, line or error: every byte that the home lab's verbs leave
//! behind is searched for the plain text of every secret, raw, base64, base64 twice, hex and percent-encoded.
//!
//! `output --show-secrets` is the one exception: it is what the plain text is learnt from.

mod simulated;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lab::execute::{KeySource, LabDir, Store};
use lab::kube::{Kubernetes, namespace};
use lab::prelude::*;
use lab::sim::{Fault, Faults, Options};
use lab::talos::kubeconfig::Kubeconfig;
use lab::talos::secrets::Secrets;
use lab::talos::talosconfig::Talosconfig;
use lab::testing::Search;
use lab::{redact, reveal};
use serde_json::{Value, json};
use simulated::{Desk, Simulated};
use std::collections::BTreeMap;
use std::process::Command;

#[allow(dead_code, reason = "its `main` is not called here")]
#[path = "../examples/homelab.rs"]
mod example;

/// What the user of the example gives it by environment variables.
const GIVEN: [(&str, &str); 2] =
    [("PLEX_CLAIM", "claim-Xq7Wd2LbTz9RkVn4Hs5J"), ("GRAFANA_PASSWORD", "correct/horse+battery=staple&0")];
/// Where the process that runs the example leaves the plain text for the one that searches what it printed.
const PLAIN: &str = "LAB_TEST_PLAIN";

/// A value whose plain text must be nowhere.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Plain {
    name: String,
    value: String,
}

fn search(values: &[Plain]) -> Search {
    Search::of(values.iter().map(|plain| (&plain.name, &plain.value)))
}

fn named(name: &str, value: impl Into<String>) -> Plain {
    Plain { name: name.to_owned(), value: value.into() }
}

/// Returns every secret that a state holds.
fn in_state(desk: &Desk) -> (Vec<Plain>, BTreeMap<String, Value>) {
    let disk = LabDir::new(desk.path("state")).disk();
    let look = Store::look(&*disk, "homelab", &KeySource::Given(desk.keys())).unwrap();
    let mut all = Vec::new();
    let mut outputs = BTreeMap::new();
    for (urn, record) in &look.state.records {
        let value = serde_json::to_value(record).unwrap();
        let clear = reveal(&value, &look.vault).unwrap();
        hidden(&urn.short(), &redact(&value), &clear, &mut all);
        outputs.insert(urn.short(), clear["outputs"].clone());
    }
    (all, outputs)
}

/// Collects what is hidden in one of two trees and not in the other.
fn hidden(name: &str, redacted: &Value, clear: &Value, all: &mut Vec<Plain>) {
    match (redacted, clear) {
        (Value::String(text), clear) if text == "[secret]" => match clear {
            Value::String(value) => all.push(named(name, value)),
            Value::Object(map) => map.values().for_each(|value| hidden(name, redacted, value, all)),
            Value::Array(list) => list.iter().for_each(|value| hidden(name, redacted, value, all)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        },
        (Value::Object(left), Value::Object(right)) => {
            left.iter().for_each(|(key, value)| hidden(&format!("{name}/{key}"), value, &right[key], all));
        }
        (Value::Array(left), Value::Array(right)) => {
            left.iter().zip(right).for_each(|(left, right)| hidden(name, left, right, all));
        }
        _ => {}
    }
}

/// Returns the secrets that this test knows by name, of the bundle and of the configurations that users get.
fn by_name(bundle: &str, kubeconfig: &str, talosconfig: &str) -> Vec<Plain> {
    let bundle = Secrets::from_yaml(bundle).unwrap();
    let kubeconfig = Kubeconfig::parse(kubeconfig).unwrap();
    let talosconfig = Talosconfig::from_yaml(talosconfig).unwrap();
    let context = talosconfig.contexts.values().next().unwrap();
    let mut all = vec![
        named("the key of the machines' authority", &bundle.os.key),
        named("the key of etcd's authority", &bundle.etcd.key),
        named("the key of Kubernetes' authority", &bundle.kubernetes.key),
        named("the key of the aggregator's authority", &bundle.aggregator.key),
        named("the key of service accounts", &bundle.service_account),
        named("the machine token", &bundle.trustd_token),
        named("the bootstrap token", &bundle.bootstrap_token),
        named("the cluster secret", &bundle.cluster_secret),
        named("the key that encrypts secrets in etcd", &bundle.secretbox_encryption_secret),
        named("the kubeconfig's key", &kubeconfig.client_key),
        named("the talosconfig's key", &context.credentials.key),
    ];
    all.extend(GIVEN.map(|(name, value)| named(name, value)));
    all
}

/// Everything that was left behind, by where.
struct Heap(BTreeMap<String, Vec<u8>>);

impl Heap {
    fn put(&mut self, place: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        // Most commands leave most files as they are.
        if !self.0.values().any(|known| *known == bytes) {
            self.0.insert(place.into(), bytes);
        }
    }

    fn leaks(&self, search: &Search) -> Vec<String> {
        let found = self
            .0
            .iter()
            .flat_map(|(place, bytes)| search.found(bytes).into_iter().map(move |leak| format!("{leak} in {place}")));
        found.collect()
    }
}

#[test]
fn no_secret_of_the_home_lab_is_left_in_clear_anywhere() {
    let Ok(plain) = std::env::var(PLAIN) else { return supervised() };
    // Something goes wrong on the way too, so that there are errors and retries to be told.
    let faults = Faults::none()
        .on("ApplyConfiguration", 2, Fault::ReplyLost)
        .on("PATCH /api/v1/namespaces/media/secrets/plex-claim", 1, Fault::Refused)
        .on("PATCH /api/v1/namespaces/monitoring/secrets", 1, Fault::ReplyLost)
        .on("PATCH /apis/apps/v1", 3, Fault::Dropped);
    let there = Simulated::start(&example::rack(), Options { faults, ..Options::default() });
    let desk = Desk::new();
    let lab = Lab::new("homelab", example::homelab);
    let mut heap = Heap(BTreeMap::new());
    let run = |heap: &mut Heap, lab: &Lab, arguments: &str, exit: u8| {
        let ran = desk.run(&there, lab, arguments);
        assert_eq!(ran.exit, exit, "{arguments}: {}\n{}", ran.out, ran.err);
        let said = [ran.out, ran.err].concat();
        heap.put(format!("what `{arguments}` printed"), said.clone());
        for (path, bytes) in desk.files() {
            heap.put(format!("{} after `{arguments}`", path.display()), bytes);
        }
        said
    };
    run(&mut heap, &lab, "preview --out @plan", 0);
    run(&mut heap, &lab, "preview --json", 0);
    run(&mut heap, &lab, "up @plan --yes --json", 0);

    let secret = |name: &str| desk.run(&there, &lab, &format!("output {name} --raw --show-secrets")).out;
    let (kubeconfig, talosconfig) = (secret("kubeconfig"), secret("talosconfig"));
    let (mut values, outputs) = in_state(&desk);
    assert!(values.len() > 8, "the state of the home lab holds {} secrets only", values.len());
    let bundle = outputs["homelab/secrets"]["yaml"].as_str().unwrap();
    values.extend(by_name(bundle, &kubeconfig, &talosconfig));

    run(&mut heap, &lab, "output", 0);
    run(&mut heap, &lab, "output --json", 0);
    run(&mut heap, &lab, "output kubeconfig", 0);
    run(&mut heap, &lab, "state list --json", 0);
    run(&mut heap, &lab, "state verify", 0);
    for name in outputs
        .keys()
        .filter(|name| ["secret", "claim", "grafana", "config", "talos"].iter().any(|part| name.contains(part)))
    {
        run(&mut heap, &lab, &format!("state show {name}"), 0);
    }
    // A secret that somebody changed: neither ours nor theirs is shown.
    let theirs = "changed-by-hand-8c1f2d";
    let client = there.client(&kubeconfig);
    let object = there.object(&client, &grafana_secret()).expect("the Secret of Grafana");
    let keys: Vec<&String> = object["data"].as_object().unwrap().keys().collect();
    let mut changed = grafana_secret();
    changed["data"] = keys.iter().map(|key| ((*key).clone(), json!(STANDARD.encode(theirs)))).collect();
    there.apply(&client, &changed);
    values.push(named("what somebody else made of the password", theirs));
    run(&mut heap, &lab, "drift --exit-code", 2);
    run(&mut heap, &lab, "drift --exit-code --json", 2);
    run(&mut heap, &lab, "preview --refresh --out @repair", 0);
    run(&mut heap, &lab, "refresh", 0);
    run(&mut heap, &lab, "up --refresh --yes", 0);
    run(&mut heap, &lab, "up --yes", 0);

    run(&mut heap, &lab, "output nothing", 1);
    run(&mut heap, &lab, "state show nothing", 1);
    // An error that quotes what it was given.
    let broken = Lab::new("homelab", move |stack: &Stack| {
        let home = example::homelab(stack)?;
        let again = stack.provider("again", Kubernetes::stated("again", Secret::new(kubeconfig.clone())));
        let password = Secret::new(GIVEN[1].1.to_owned());
        again.resource("labelled").add(namespace("labelled").secret("/metadata/labels/owner", password));
        Ok(home)
    });
    let said = run(&mut heap, &broken, "up --yes --target labelled", 1);
    assert!(said.contains("[secret]"), "what the API server quotes is hidden: {said}");

    run(&mut heap, &lab, "preview --destroy --json --out @gone", 0);
    run(&mut heap, &lab, "destroy --yes", 0);
    run(&mut heap, &lab, "preview", 0);

    let search = search(&values);
    println!("{} values, {search:?}, {} places", values.len(), heap.0.len());
    assert_eq!(heap.leaks(&search), Vec::<String>::new());

    // It would have been found.
    heap.put("a planted file", STANDARD.encode(format!("talosconfig of a friend:\n{talosconfig}")));
    assert!(!heap.leaks(&search).is_empty(), "a planted leak is not found");
    std::fs::write(plain, serde_json::to_vec(&values).unwrap()).unwrap();
}

fn grafana_secret() -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "grafana-admin", "namespace": "monitoring"}})
}

/// Runs this test in a process of its own, with the secrets that a user gives by the environment, and searches what
/// that process printed: no library logs a secret either.
fn supervised() {
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain");
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "no_secret_of_the_home_lab_is_left_in_clear_anywhere", "--nocapture"])
        .envs(GIVEN)
        .env(PLAIN, &plain)
        .env("RUST_LOG", "trace")
        .output()
        .unwrap();
    let printed = [child.stdout, child.stderr].concat();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&printed));
    let values: Vec<Plain> = serde_json::from_slice(&std::fs::read(&plain).unwrap()).unwrap();
    assert!(values.iter().any(|value| value.name == "PLEX_CLAIM"));
    let found = search(&values).found(&printed);
    assert!(found.is_empty(), "the process printed {found:?}");
}
