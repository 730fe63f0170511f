//! No secret of a run lies in clear in any file, plan, event, line or error: every byte that the home lab's verbs leave
//! behind is searched for the plain text of every secret, raw, base64, base64 twice, hex and percent-encoded.
//!
//! `output --show-secrets` is the one exception: it is what the plain text is learnt from.

mod simulated;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use lab::execute::{KeySource, LabDir, Store};
use lab::kube::{Kubernetes, namespace};
use lab::prelude::*;
use lab::sim::{Fault, Faults, Options};
use lab::talos::kubeconfig::Kubeconfig;
use lab::talos::secrets::Secrets;
use lab::talos::talosconfig::Talosconfig;
use lab::{redact, reveal};
use serde_json::{Value, json};
use simulated::{Desk, Simulated};
use std::collections::{BTreeMap, BTreeSet, HashMap};
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

/// What to look for: the name, the encoding, all the bytes.
type Needle = (String, &'static str, Vec<u8>);

/// A search for many values in many encodings at once.
struct Search {
    /// By their first bytes.
    needles: HashMap<[u8; HEAD], Vec<Needle>>,
    count: usize,
}

const HEAD: usize = 8;

impl Search {
    fn new(values: &[Plain]) -> Search {
        let mut search = Search { needles: HashMap::new(), count: 0 };
        let mut known = BTreeSet::new();
        for plain in values {
            for piece in pieces(&plain.value) {
                for (encoding, needle) in encodings(&piece) {
                    if needle.len() >= HEAD && known.insert(needle.clone()) {
                        let head = needle[..HEAD].try_into().unwrap();
                        search.needles.entry(head).or_default().push((plain.name.clone(), encoding, needle));
                        search.count += 1;
                    }
                }
            }
        }
        search
    }

    /// Returns what is found in these bytes: which value, how encoded.
    fn in_bytes(&self, bytes: &[u8]) -> BTreeSet<(String, &'static str)> {
        let mut found = BTreeSet::new();
        for (at, head) in bytes.windows(HEAD).enumerate() {
            let head: &[u8; HEAD] = head.try_into().unwrap();
            for (name, encoding, needle) in self.needles.get(head).into_iter().flatten() {
                if bytes[at..].starts_with(needle) {
                    found.insert((name.clone(), *encoding));
                }
            }
        }
        found
    }
}

/// Returns what betrays a value: itself; for a key in PEM, each of its lines and what they encode.
fn pieces(value: &str) -> Vec<Vec<u8>> {
    let value = value.trim();
    if !value.contains("-----BEGIN") {
        return vec![value.as_bytes().to_vec()];
    }
    let body: Vec<&str> = value.lines().filter(|line| !line.starts_with("-----")).collect();
    let mut pieces: Vec<_> = body.iter().filter(|line| line.len() > 20).map(|line| line.as_bytes().to_vec()).collect();
    pieces.push(value.as_bytes().to_vec());
    pieces.extend(STANDARD.decode(body.concat()));
    pieces
}

/// Returns a piece in every encoding. Base64 depends on what stands before, so it is made for each place in a group of
/// three bytes, without the characters that neighbours have a part in.
fn encodings(piece: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut all = vec![("raw", piece.to_vec())];
    if let Ok(text) = std::str::from_utf8(piece) {
        let quoted = json!(text).to_string();
        all.push(("raw", quoted.as_bytes()[1..quoted.len() - 1].to_vec()));
    }
    for once in base64(piece) {
        all.extend(base64(&once).into_iter().map(|twice| ("base64 twice", twice)));
        all.push(("base64", once));
    }
    let hex = |upper: bool, before: &str| -> Vec<u8> {
        let one = |byte: &u8| if upper { format!("{before}{byte:02X}") } else { format!("{before}{byte:02x}") };
        piece.iter().map(one).collect::<String>().into_bytes()
    };
    let reserved = |byte: &u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(*byte).to_string(),
        other => format!("%{other:02X}"),
    };
    all.extend([("hex", hex(false, "")), ("hex", hex(true, ""))]);
    all.extend([("percent", hex(false, "%")), ("percent", hex(true, "%"))]);
    all.push(("percent", piece.iter().map(reserved).collect::<String>().into_bytes()));
    all
}

fn base64(piece: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for before in 0..3 {
        let padded = [vec![0; before], piece.to_vec()].concat();
        let whole = padded.len() / 3 * 4;
        for engine in [&STANDARD, &URL_SAFE] {
            let text = engine.encode(&padded).into_bytes();
            let inner = text[[0, 2, 3][before]..whole].to_vec();
            if !all.contains(&inner) {
                all.push(inner);
            }
        }
    }
    all
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
        let found = self.0.iter().flat_map(|(place, bytes)| {
            let found = search.in_bytes(bytes);
            found.into_iter().map(move |(name, encoding)| format!("{name} in {place}, {encoding}"))
        });
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

    let search = Search::new(&values);
    println!("{} values, {} needles, {} places", values.len(), search.count, heap.0.len());
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
    let found = Search::new(&values).in_bytes(&printed);
    assert!(found.is_empty(), "the process printed {found:?}");
}

#[test]
fn a_planted_leak_is_found_in_every_encoding() {
    let key = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIHJxS3vXn2aL0f1cVZb8kYw3Qe6uTg9dRzPpMh5BsWoKoAoGCCqGSM49\n\
               AwEHoUQDQgAEq7yZl2v1T0uGkQmWcXrN4bJ8sEoHfDi5aP6LtVxKe3YzRjCnUwMA\n-----END EC PRIVATE KEY-----\n";
    let values = [named("the token", "abcdef.0123456789abcdef"), named("the key", key), named("GRAFANA", GIVEN[1].1)];
    let search = Search::new(&values);
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let percent = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let check = |leak: &str, name: &str, encoding: &str| {
        let found = search.in_bytes(leak.as_bytes());
        assert!(found.iter().any(|found| (found.0.as_str(), found.1) == (name, encoding)), "{leak}: {found:?}");
    };
    for plain in &values {
        for before in ["", "x", "xy", "xyz, and more of it", "{\"key\":\""] {
            let text = format!("{before}{}, and so on", plain.value);
            check(&text, &plain.name, "raw");
            check(&json!(text).to_string(), &plain.name, "raw");
            check(&STANDARD.encode(&text), &plain.name, "base64");
            check(&URL_SAFE.encode(&text), &plain.name, "base64");
            for around in ["", "a", "ab"] {
                let once = format!("{around}{}", STANDARD.encode(&text));
                check(&STANDARD.encode(once), &plain.name, "base64 twice");
            }
            check(&hex(&text), &plain.name, "hex");
            check(&hex(&text).to_uppercase(), &plain.name, "hex");
            check(&percent(&text), &plain.name, "percent");
        }
    }
    check("/login?password=correct%2Fhorse%2Bbattery%3Dstaple%260&next=/", "GRAFANA", "percent");
    // One line of a key is enough, and so is the key without its lines.
    check("MHcCAQEEIHJxS3vXn2aL0f1cVZb8kYw3Qe6uTg9dRzPpMh5BsWoKoAoGCCqGSM49", "the key", "raw");
    assert!(search.in_bytes(b"nothing to see here, abcdef.0123456789abcde").is_empty());
}
