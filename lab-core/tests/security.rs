//! What `SECURITY.md` says, as far as no other test shows it; and that it says nothing that no test shows.

use lab_core::execute::disk::Disk;
use lab_core::execute::disk::RealDisk;
use lab_core::execute::journal::{Journal, canonical};
use lab_core::execute::seal::Keys;
use lab_core::execute::{KeySource, SavedPlan, Store, state_digest};
use lab_core::plan::{self, Observations, Verb};
use lab_core::testing::{Bench, Memory, Search, Thing, Trial};
use lab_core::{
    Component, Error, Found, Handle, Link, Made, Op, Owner, ProgramError, Provider, Realm, Resource, Result, Scope,
    Secret, Stack, Step, Types, Vault,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

const SECRET: &str = "correct-horse-battery";

fn thing(name: &str, secret: &str) -> Thing {
    Thing { secret: Some(Secret::from(secret).into()), ..Thing::new(name, format!("text-of-{name}")) }
}

fn program(stack: &Stack) -> std::result::Result<String, ProgramError> {
    let rack = stack.provider("cellar", Memory::at(stack.name()));
    rack.resource("first").add(thing("first", SECRET));
    rack.resource("second").add(thing("second", SECRET));
    rack.resource("third").add(thing("third", "another-secret-of-mine"));
    Ok("an output that is no secret".into())
}

fn given_up(stack: &Stack) -> std::result::Result<(), ProgramError> {
    let rack = stack.provider("cellar", Memory::at(stack.name()));
    rack.resource("first").add(thing("first", SECRET));
    Ok(())
}

/// A stack that is going to be given more secrets.
fn growing() -> Bench {
    let bench = Bench::new();
    bench.up_whole(given_up);
    bench
}

fn file(bench: &Bench, stack: &str) -> String {
    String::from_utf8(bench.disk().get(&format!("{stack}.journal")).unwrap()).unwrap()
}

fn saved(bench: &Bench, verb: Verb, seen: Observations) -> SavedPlan {
    let declared = bench.load(program);
    let plan = bench.plan(program, verb, &seen, &[]);
    let state = state_digest(&bench.state());
    let targets = vec!["first".to_owned()];
    SavedPlan::new(plan, seen, targets, 1_763_769_600, state, "exe".into(), &declared.vault, &Keys::fixed()).unwrap()
}

/// Somewhere behind a gate that asks for a password.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Gate {
    address: String,
    password: Secret<String>,
}

/// Whether the latch is there, and who was given which password.
type Grounds = Mutex<(bool, Vec<(String, String)>)>;

impl Provider for Gate {
    const NAME: &'static str = "gate";
    type Client = Arc<Grounds>;

    fn realm(&self) -> Realm {
        Realm::Stated(format!("gate {}", self.address))
    }

    async fn connect(self, link: Link) -> Result<Self::Client> {
        let grounds = link.world::<Grounds>().ok_or_else(|| Error::invalid("no grounds"))?;
        grounds.lock().unwrap().1.push((self.address.clone(), self.password.expose().clone()));
        Ok(grounds)
    }

    fn types(types: &mut Types<Gate>) {
        types.add::<Latch>();
    }
}

/// What is called something of its own outside, and is to be renewed one day.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Latch {
    colour: String,
}

impl Latch {
    fn made() -> Made<Value> {
        let due = Some(UNIX_EPOCH + Duration::from_secs(1_900_000_000));
        Made { due, ..Made::new("latch-4711", json!({ "host": "latch.example.org" })) }
    }
}

impl Resource<Gate> for Latch {
    const TYPE: &'static str = "gate:latch";
    type Outputs = Value;

    async fn find(grounds: &Arc<Grounds>, _op: &Op<Latch>) -> Result<Found<Value>> {
        Ok(match grounds.lock().unwrap().0 {
            true => Found::Present(Owner::Unmarkable, Step::Done(Latch::made())),
            false => Found::Absent,
        })
    }

    async fn apply(&self, grounds: &Arc<Grounds>, _op: &Op<Latch>) -> Result<Step<Value>> {
        grounds.lock().unwrap().0 = true;
        Ok(Step::Done(Latch::made()))
    }

    async fn delete(grounds: &Arc<Grounds>, _op: &Op<Latch>) -> Result<Step<()>> {
        grounds.lock().unwrap().0 = false;
        Ok(Step::gone())
    }
}

struct Hall;

impl Component<Gate> for Hall {
    type Handle = Handle<Value>;

    fn declare(self, scope: &Scope<'_, Gate>) -> Handle<Value> {
        scope.resource("door").add(Latch { colour: "green".into() })
    }
}

fn gated(stack: &Stack) -> std::result::Result<(), ProgramError> {
    let gate = Gate { address: "gate.example.org".into(), password: Secret::from(SECRET) };
    stack.provider("yard", gate).component("hall").add(Hall);
    Ok(())
}

fn nothing(_: &Stack) -> std::result::Result<(), ProgramError> {
    Ok(())
}

/// Writes a state over the one of a bench, with hashes that fit.
fn forge(bench: &Bench, state: &Value) {
    let (mut journal, _) = Journal::open(Arc::new(bench.disk().clone()), "lab").unwrap();
    journal.compact(state).unwrap();
}

#[test]
fn every_statement_of_the_page_names_a_test_that_there_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let (_, rest) = page.split_once("## What somebody learns\n").unwrap();
    let (stated, _) = rest.split_once("\n## ").unwrap();
    let mut statements = 0;
    for line in stated.lines().filter(|line| !line.is_empty()) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        match cells[..] {
            _ if line.starts_with("### With") => continue,
            ["", "statement", "test", ""] | ["", "---", "---", ""] => continue,
            ["", statement, tests, ""] => {
                // One that shows it, or several that show it together.
                for test in tests.split(", ") {
                    let named = test.strip_prefix('`').and_then(|test| test.strip_suffix('`'));
                    let (path, name) =
                        named.and_then(|test| test.split_once("::")).unwrap_or_else(|| panic!("{statement}"));
                    let source = std::fs::read_to_string(root.join(path)).unwrap_or_else(|why| panic!("{path}: {why}"));
                    let at = source.find(&format!("fn {name}()")).unwrap_or_else(|| panic!("{path} has no {name}"));
                    let before = &source[..at];
                    let attribute = before.rfind("#[").unwrap_or_default();
                    assert!(before[attribute..].starts_with("#[test]"), "{name} is no test");
                }
                statements += 1;
            }
            _ => panic!("a statement without a test: {line}"),
        }
    }
    assert!(statements > 20, "only {statements}");
}

#[test]
fn names_values_places_and_times_stand_in_the_state() {
    let bench = Bench::new();
    bench.up_whole(program);
    let text = file(&bench, "lab");
    let learnt = [
        "lab::cellar::::memory:thing::first",
        "text-of-first",
        "an output that is no secret",
        "lab-core/tests/security.rs",
        "\"line\":",
        "\"verb\":\"up\"",
        "\"at\":1800000000",
    ];
    assert!(learnt.iter().all(|learnt| text.contains(learnt)), "{text}");
    for _ in 0..30 {
        bench.attempt(program, Verb::Destroy, &Trial::default()).unwrap();
        bench.up_whole(program);
    }
    assert_eq!(bench.state().runs.len(), 20);
    // A component, what a thing is called outside, an address, and when it is to be renewed.
    let bench = Bench::new().over(Arc::new(Grounds::default()));
    bench.up_whole(gated);
    let text = file(&bench, "lab");
    for learnt in [
        "lab::yard::hall::gate:latch::door",
        "\"id\":\"latch-4711\"",
        "gate.example.org",
        "latch.example.org",
        "\"colour\":\"green\"",
        "\"due\":1900000000",
    ] {
        assert!(text.contains(learnt), "{learnt}: {text}");
    }
}

fn fingerprint(bench: &Bench, stack: &str, name: &str) -> String {
    let state = bench.clone().named(stack).state();
    let (_, record) = state.records.iter().find(|(urn, _)| urn.name() == name).unwrap();
    record.spec.inputs.value()["secret"]["$lab.secret"].as_str().unwrap().to_owned()
}

#[test]
fn equal_secrets_of_one_stack_look_equal_and_no_others_do() {
    let bench = Bench::new();
    bench.up_whole(program);
    let first = fingerprint(&bench, "lab", "first");
    assert_eq!(first, fingerprint(&bench, "lab", "second"));
    assert_ne!(first, fingerprint(&bench, "lab", "third"));
    let state = bench.state();
    let sealed: std::collections::BTreeSet<&String> = state.secrets.values().collect();
    assert_eq!(sealed.len(), state.secrets.len(), "no two sealed texts are equal");
    bench.up_whole(|stack: &Stack| {
        stack.provider("cellar", Memory::at(stack.name())).resource("first").add(thing("first", "a new one of it"));
        Ok::<_, ProgramError>(())
    });
    assert_ne!(first, fingerprint(&bench, "lab", "first"), "that it changed can be seen");
}

#[test]
fn the_length_of_a_secret_can_be_told_from_its_sealing() {
    let keys = Keys::fixed();
    let length = |plain: usize| -> usize {
        // The header is padded at random; the most frequent of many is not needed to see the trend.
        (0..20).map(|_| keys.seal(&vec![b'x'; plain]).len()).min().unwrap()
    };
    assert!(length(20) < length(200) && length(200) < length(400), "sealing does not hide how long something is");
}

#[test]
fn a_fingerprint_answers_no_guess() {
    let bench = Bench::new();
    // Each stack of a lab draws a key of its own; a bench has one by its seed.
    bench.up_whole(program);
    bench.clone().named("other").seeded(2).up_whole(program);
    let first = fingerprint(&bench, "lab", "first");
    assert_ne!(first, fingerprint(&bench, "other", "first"), "the same secret in another stack");
    let state = bench.state();
    let key = Keys::fixed().open(state.key.as_ref().expect("the key of the fingerprints is sealed")).unwrap();
    // Whoever has that key can try; without it a guess is compared with nothing.
    let guess = |key: [u8; 32]| Vault::new(key).put(&json!(SECRET));
    assert_eq!(guess(key.clone().try_into().unwrap()), first);
    let known = [[0; 32], [1; 32].map(|byte: u8| byte ^ 0xff)];
    assert!(known.iter().all(|known| guess(*known) != first));
    Search::of([("the key of the fingerprints", &key)]).clean("the state", file(&bench, "lab"));
    // Two states never share one.
    let fresh = || {
        let disk: Arc<dyn Disk> = Arc::new(lab_core::testing::MemoryDisk::new());
        Store::open(disk, "lab", KeySource::Given(Keys::fixed())).unwrap().0.vault().key()
    };
    assert_ne!(fresh(), fresh());
}

#[test]
fn a_state_does_not_name_its_key() {
    let bench = Bench::new();
    bench.up_whole(program);
    let recipient = Keys::fixed().recipient();
    let mut all = file(&bench, "lab");
    for sealed in bench.state().secrets.values() {
        use base64::Engine as _;
        let opened = base64::prelude::BASE64_STANDARD.decode(sealed).unwrap();
        all += &String::from_utf8_lossy(&opened);
    }
    assert!(!all.contains(&recipient) && !all.contains(&recipient[4..]));
}

#[test]
fn a_secret_that_was_given_up_is_dropped() {
    let bench = Bench::new();
    bench.up_whole(program);
    let third = fingerprint(&bench, "lab", "third");
    let sealed = bench.state().secrets[&third].clone();
    assert!(file(&bench, "lab").contains(&sealed));
    bench.up_whole(given_up);
    let text = file(&bench, "lab");
    assert!(!text.contains(&third) && !text.contains(&sealed), "{text}");
}

#[test]
fn a_saved_plan_tells_what_it_changes_and_no_secret() {
    let bench = growing();
    bench.world().change("lab", "first", |item| item.value["text"] = "scribbled-by-somebody".into());
    let seen = bench.refresh(given_up);
    let grown = saved(&bench, Verb::Up, seen);
    let bytes = grown.to_bytes();
    let text = String::from_utf8(bytes.clone()).unwrap();
    for learnt in [
        // What it changes, and to what: one that was seen otherwise, and two that are new.
        "lab::cellar::::memory:thing::first",
        "text-of-first",
        "lab::cellar::::memory:thing::second",
        "text-of-second",
        "text-of-third",
        "security.rs",
        "\"targets\":[\"first\"]",
        "\"at\":1763769600",
    ] {
        assert!(text.contains(learnt), "{learnt}: {text}");
    }
    let seen = serde_json::from_str::<Value>(&text).unwrap()["observations"].to_string();
    assert!(seen.contains("scribbled-by-somebody"), "{seen}");
    let key: Vec<u8> = Keys::fixed().open(&grown.key).unwrap();
    let mut search =
        Search::of([("an input", SECRET), ("another", "another-secret-of-mine"), ("an output", "key-of-first")]);
    assert!(search.add("the key of the fingerprints", key));
    search.clean("a saved plan", bytes);
    let whole = Bench::new();
    whole.up_whole(program);
    let bytes = saved(&whole, Verb::Destroy, Observations::default()).to_bytes();
    assert!(String::from_utf8_lossy(&bytes).contains("lab::cellar::::memory:thing::third"));
    search.clean("a saved plan to destroy", bytes);
}

#[test]
fn a_changed_plan_is_refused() {
    let bench = Bench::new();
    bench.up_whole(program);
    let honest = saved(&bench, Verb::Destroy, Observations::default());
    let (now, state) = (honest.plan.clone(), honest.state.clone());
    honest.check(&now, &state, "exe").unwrap();
    let mut text: Value = serde_json::from_slice(&honest.to_bytes()).unwrap();
    text["plan"]["steps"].as_array_mut().unwrap().remove(0);
    let changed = SavedPlan::from_bytes("plan", &canonical(&text));
    // Either it is no plan any more, or it is not the one that is made anew.
    if let Ok(changed) = changed {
        assert!(changed.check(&now, &state, "exe").is_err());
    }
    for pin in ["state", "executable"] {
        let mut text: Value = serde_json::from_slice(&honest.to_bytes()).unwrap();
        text[pin] = "another".into();
        let changed = SavedPlan::from_bytes("plan", &canonical(&text)).unwrap();
        assert!(changed.check(&now, &state, "exe").is_err(), "{pin}");
    }
}

#[test]
fn what_is_shorter_than_six_bytes_is_not_scrubbed() {
    let vault = Vault::new([7; 32]);
    vault.put(&json!("short"));
    vault.put(&json!("longer"));
    assert_eq!(vault.scrub("short and longer"), "short and [secret]");
}

#[test]
fn fingerprints_are_not_printed() {
    let bench = Bench::new();
    let trial = Trial::default();
    let first = plan::text(&bench.preview(program));
    bench.attempt(program, Verb::Up, &trial).unwrap();
    let changed = |stack: &Stack| {
        stack.provider("cellar", Memory::at(stack.name())).resource("first").add(thing("first", "a new one of it"));
        Ok::<_, ProgramError>(())
    };
    let plan = bench.preview(changed);
    let mut said = first + &plan::text(&plan) + &lab_core::redact(&serde_json::to_value(&plan).unwrap()).to_string();
    for progress in trial.heard.lock().unwrap().iter() {
        said += &serde_json::to_string(progress).unwrap();
    }
    assert!(said.contains("[secret]"), "{said}");
    for fingerprint in bench.state().secrets.keys().chain([&fingerprint(&bench, "lab", "first")]) {
        assert!(!said.contains(fingerprint), "{said}");
    }
}

#[cfg(unix)]
#[test]
fn a_state_is_its_owners_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk::new(dir.path()));
    let (mut journal, _) = Journal::open(disk, "lab").unwrap();
    let modes = || {
        let files = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap());
        files.map(|file| file.permissions().mode() & 0o777).collect::<Vec<_>>()
    };
    journal.append(&[json!(1)]).unwrap();
    assert_eq!(modes(), [0o600]);
    journal.compact(&json!(2)).unwrap();
    assert_eq!(modes(), [0o600]);
}

#[test]
fn whoever_writes_the_state_says_where_things_are_reached() {
    let bench = Bench::new();
    bench.up_whole(program);
    // The provider is recorded with where it was; a forger says somewhere else, and makes the hashes fit.
    let state = serde_json::to_string(&bench.state()).unwrap();
    assert!(state.contains("\"memory lab\""), "{state}");
    let forged =
        state.replace("memory lab", "memory elsewhere").replace("\"place\":\"lab\"", "\"place\":\"elsewhere\"");
    forge(&bench, &serde_json::from_str(&forged).unwrap());
    let state = bench.state();
    let (_, record) = state.records.iter().find(|(urn, _)| urn.name() == "first").unwrap();
    bench.world().plant("elsewhere", "first", json!({}));
    bench.world().change("elsewhere", "first", |item| item.mark = Some(record.mark.0.clone()));
    bench.world().clear_log();
    let bench = bench.knows::<Memory>();
    bench.destroy(nothing);
    assert_eq!(bench.world().log(), ["delete elsewhere/first"], "it went where the state said");

    // What the state no longer names is forgotten: it stands, and nobody takes it away.
    let bench = Bench::new();
    bench.up_whole(program);
    let mut state = bench.state();
    state.records.clear();
    forge(&bench, &serde_json::to_value(&state).unwrap());
    bench.world().clear_log();
    assert!(bench.clone().knows::<Memory>().destroy(nothing).complete());
    assert_eq!((bench.world().log().len(), bench.world().count()), (0, 3));

    // Whoever answers at the other address is given the password.
    let grounds = Arc::new(Grounds::default());
    let bench = Bench::new().over(grounds.clone()).knows::<Gate>();
    bench.up_whole(gated);
    let state = serde_json::to_string(&bench.state()).unwrap();
    assert!(!state.contains(SECRET), "the forger does not know it");
    forge(&bench, &serde_json::from_str(&state.replace("gate.example.org", "evil.example.org")).unwrap());
    bench.destroy(nothing);
    let given = grounds.lock().unwrap().1.pop();
    assert_eq!(given, Some(("evil.example.org".to_owned(), SECRET.to_owned())));
}

#[test]
fn the_key_opens_everything() {
    let bench = Bench::new();
    bench.up_whole(program);
    let state = bench.state();
    let opened: Vec<String> =
        state.secrets.values().map(|sealed| String::from_utf8(Keys::fixed().open(sealed).unwrap()).unwrap()).collect();
    assert!(opened.contains(&format!("{SECRET:?}")), "{}", opened.len());
    let saved = saved(&growing(), Verb::Up, Observations::default());
    let vault = saved.vault(&Keys::fixed()).unwrap();
    let values: Vec<Value> = saved.secrets.keys().map(|fingerprint| vault.get(fingerprint).unwrap()).collect();
    assert!(!values.is_empty());
    assert!(saved.vault(&Keys::throwaway()).is_err());
}
