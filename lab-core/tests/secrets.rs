//! No secret in clear: not on the disk, not in a saved plan, in progress, in an error or in rendered text.
//!
//! Everything a run leaves and says is searched byte for byte for the plain text: raw, base64, base64 twice, hex,
//! percent-encoded. That the search finds what it should is proven by planted leaks.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use lab_core::execute::disk::RealDisk;
use lab_core::execute::seal::{KeyFile, Keys};
use lab_core::execute::{
    CallFault, Faults, KeySource, Ledger, Options, SavedPlan, Store, StoreError, execute, observe, state_digest,
};
use lab_core::plan::{Observations, Request, Verb};
use lab_core::testing::{Bench, Memory, Search, Thing, Trial};
use lab_core::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, SystemTime};

const INPUT: &str = "correct-horse-battery-input";
const NESTED: &str = "nested/secret+with \"quotes\" & more";
const OUTPUT: &str = "generated-by-the-provider-4711";
const CONFIG: &str = "password-of-the-provider?!";
const TOKEN: &str = "claim-token-sent-once-0815";
const LIVE: &str = "somebody-changed-the-password-live";
const ALL: [&str; 6] = [INPUT, NESTED, OUTPUT, CONFIG, TOKEN, LIVE];

fn search() -> Search {
    Search::of(ALL.map(|secret| (secret, secret)))
}

fn clean(what: &str, bytes: impl AsRef<[u8]>) {
    static SEARCH: LazyLock<Search> = LazyLock::new(search);
    SEARCH.clean(what, bytes);
}

#[test]
fn the_search_finds_a_planted_leak_in_every_disguise() {
    let key = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIHJxS3vXn2aL0f1cVZb8kYw3Qe6uTg9dRzPpMh5BsWoKoAoGCCqGSM49\n\
               AwEHoUQDQgAEq7yZl2v1T0uGkQmWcXrN4bJ8sEoHfDi5aP6LtVxKe3YzRjCnUwMA\n-----END EC PRIVATE KEY-----\n";
    let mut search = search();
    assert!(search.add("the key", key));
    let check = |leak: &str, name: &str, encoding: &str| {
        let found = search.found(leak);
        assert!(found.iter().any(|leak| (leak.name.as_str(), leak.encoding) == (name, encoding)), "{leak}: {found:?}");
    };
    for (name, secret) in ALL.map(|secret| (secret, secret)).into_iter().chain([("the key", key.trim())]) {
        for around in ["", "a", "ab", "{\"key\":\""] {
            let inner = format!("{around}{secret}{around}");
            check(&inner, name, "raw");
            check(&json!([inner]).to_string(), name, "raw");
            check(&format!("{inner:?}"), name, "raw");
            check(&BASE64_STANDARD.encode(&inner), name, "base64");
            check(&BASE64_URL_SAFE_NO_PAD.encode(&inner), name, "base64");
            for before in ["", "a", "ab"] {
                let once = format!("{before}{}", BASE64_STANDARD.encode(&inner));
                check(&BASE64_STANDARD.encode(once), name, "base64 twice");
            }
            let hex: String = inner.bytes().map(|byte| format!("{byte:02x}")).collect();
            check(&hex, name, "hex");
            check(&hex.to_uppercase(), name, "hex");
            check(&inner.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>(), name, "percent");
        }
    }
    check("/login?p=nested%2Fsecret%2Bwith%20%22quotes%22%20%26%20more&next=/", NESTED, "percent");
    check("/login?p=nested%2fsecret%2bwith%20%22quotes%22%20%26%20more&next=/", NESTED, "percent");
    // One line of a key is enough.
    check("MHcCAQEEIHJxS3vXn2aL0f1cVZb8kYw3Qe6uTg9dRzPpMh5BsWoKoAoGCCqGSM49", "the key", "raw");
    assert!(search.found(b"nothing of the kind, correct-horse-battery").is_empty());
    assert!(!search.add("a short one", "short"), "what is found by chance is not looked for");
    assert!(std::panic::catch_unwind(|| clean("a file", format!("it is {INPUT}"))).is_err());
}

/// A vault in memory whose provider behaves as badly as it is told to.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Safe {
    password: Secret<String>,
}

struct Door(Arc<Mutex<BTreeMap<String, Value>>>, String);

impl Provider for Safe {
    const NAME: &'static str = "safe";
    type Client = Door;
    fn realm(&self) -> Realm {
        Realm::Stated("safe".into())
    }
    async fn connect(self, link: Link) -> Result<Door> {
        let world = link.world().ok_or_else(|| Error::invalid("no world"))?;
        Ok(Door(world, self.password.expose().clone()))
    }
    fn types(types: &mut Types<Safe>) {
        types.add::<Entry>();
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    name: String,
    password: Input<Secret<String>>,
    nested: Vec<BTreeMap<String, Option<Secret<String>>>>,
    token: Option<Secret<String>>,
    /// Which mistake it makes.
    mistake: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct EntryOutputs {
    generated: Secret<String>,
    by_name: BTreeMap<String, Secret<String>>,
}

impl Entry {
    fn new(name: &str, mistake: &str) -> Entry {
        Entry {
            name: name.into(),
            password: Secret::from(INPUT).into(),
            nested: vec![BTreeMap::from([("inner".into(), Some(Secret::from(NESTED))), ("none".into(), None)])],
            token: Some(Secret::from(TOKEN)),
            mistake: mistake.into(),
        }
    }

    fn made(&self, there: &Value) -> Made<EntryOutputs> {
        let generated = Secret::from(OUTPUT);
        let outputs = EntryOutputs { by_name: BTreeMap::from([("main".into(), generated.clone())]), generated };
        Made {
            live: Some(match self.mistake.as_str() {
                "live" => json!({ "mistake": format!("it was told {}", there["password"]) }),
                _ => json!({ "password": there["password"], "mistake": there["mistake"] }),
            }),
            ..Made::new(self.name.as_str(), outputs)
        }
    }
}

impl Resource<Safe> for Entry {
    const TYPE: &'static str = "safe:entry";
    const INITIAL: &'static [&'static str] = &["/token"];
    type Outputs = EntryOutputs;

    fn id(&self) -> Option<Id> {
        Some(Id(self.name.clone()))
    }

    async fn find(door: &Door, op: &Op<Entry>) -> Result<Found<EntryOutputs>> {
        let entry = op.inputs.as_ref().expect("inputs");
        Ok(match door.0.lock().unwrap().get(&entry.name) {
            Some(there) => {
                Found::Present(Owner::Marked(there["mark"].as_str().unwrap().to_owned()), Step::Done(entry.made(there)))
            }
            None => Found::Absent,
        })
    }

    async fn apply(&self, door: &Door, op: &Op<Entry>) -> Result<Step<EntryOutputs>> {
        let (password, token) = (self.password.get().expose(), self.token.as_ref().map(|token| token.expose().clone()));
        match self.mistake.as_str() {
            "error" => {
                let inner = self.nested[0]["inner"].as_ref().unwrap().expose();
                return Err(Error::invalid(format!(
                    "401 for {password} / {inner:?} / {} / {token:?} at http://u:{}@h",
                    door.1, door.1
                )));
            }
            "encoded" => {
                let url: String = door.1.bytes().map(|byte| format!("%{byte:02X}")).collect();
                let hex: String = password.bytes().map(|byte| format!("{byte:02x}")).collect();
                return Err(Error::invalid(format!(
                    "bad header Basic {}, that is {hex} or {}, at https://host/?q={url}",
                    BASE64_STANDARD.encode(password),
                    hex.to_uppercase(),
                )));
            }
            "again" => return Err(Error::again(format!("busy with {password}"))),
            "panic" => panic!("cannot log in with {password}"),
            "cursor" => return Ok(Step::next(json!({ "password": password }), "going on", Duration::from_secs(1))),
            "why" if op.cursor.is_none() => {
                return Ok(Step::next(json!(1), format!("waiting for {password}"), Duration::from_secs(1)));
            }
            _ => {}
        }
        let there = json!({ "password": password, "mark": op.mark, "mistake": self.mistake });
        door.0.lock().unwrap().insert(self.name.clone(), there.clone());
        Ok(Step::Done(self.made(&there)))
    }

    async fn delete(door: &Door, op: &Op<Entry>) -> Result<Step<()>> {
        door.0.lock().unwrap().remove(&op.inputs.as_ref().expect("inputs").name);
        Ok(Step::gone())
    }
}

type Shelf = Arc<Mutex<BTreeMap<String, Value>>>;

fn program(mistake: &'static str) -> impl Fn(&Stack) -> std::result::Result<Returned, ProgramError> {
    move |stack| {
        let safe = stack.provider("safe", Safe { password: Secret::from(CONFIG) });
        let first = safe.resource("first").add(Entry::new("first", mistake));
        let second = safe
            .resource("second")
            .add(Entry { password: first.output(|first| first.generated).into(), ..Entry::new("second", "") });
        Ok((first.output(|first| first.generated), second.output(|second| second.by_name), Secret::from(INPUT)))
    }
}

type Returned = (Output<Secret<String>>, Output<BTreeMap<String, Secret<String>>>, Secret<String>);

/// Runs a program that makes `mistake`, and searches everything that is left and was said. Returns what was said.
fn check(mistake: &'static str, faults: Faults) -> String {
    let bench = Bench::new().keeping_frames().over(Shelf::default());
    let trial = Trial { faults: Arc::new(faults), ..Trial::default() };
    clean("the preview", lab_core::plan::text(&bench.preview(program(mistake))));
    let report = bench.attempt(program(mistake), Verb::Up, &trial).unwrap();
    clean("the report", format!("{report:?} {report:#?}"));
    let heard = trial.heard.lock().unwrap();
    let said = heard
        .iter()
        .map(|event| format!("{event:?}\n{}", serde_json::to_string(event).unwrap()))
        .collect::<Vec<_>>()
        .join("\n");
    clean("the progress", &said);
    for file in bench.disk().operations().iter().map(|operation| operation.name.clone()) {
        clean(&file, bench.disk().get(&file).unwrap_or_default());
    }
    let state = bench.state();
    clean("the state", format!("{state:?}") + &serde_json::to_string(&state).unwrap());
    let declared = bench.load(program(mistake));
    clean("the graph", lab_core::plan::render_graph(&declared));
    clean("a second preview", lab_core::plan::text(&bench.preview(program(mistake))));
    clean(
        "a plan to destroy",
        lab_core::plan::text(&bench.plan(program(mistake), Verb::Destroy, &Observations::default(), &[])),
    );
    let kept = said.clone();
    drop(heard);
    bench.destroy(program(mistake));
    for file in bench.disk().operations().iter().map(|operation| operation.name.clone()) {
        clean(&file, bench.disk().get(&file).unwrap_or_default());
    }
    kept
}

#[test]
fn inputs_outputs_configuration_nested_and_initial_secrets_are_nowhere_in_clear() {
    check("", Faults::none());
}

#[test]
fn what_a_provider_echoes_is_scrubbed() {
    for mistake in ["error", "encoded", "again", "panic", "why"] {
        let said = check(mistake, Faults::none());
        assert!(said.contains("[secret]"), "{mistake}: nothing was echoed: {said}");
        let scrubbed = "bad header Basic [secret], that is [secret] or [secret], at https://host/?q=[secret]";
        assert!(mistake != "encoded" || said.contains(scrubbed), "{said}");
    }
}

#[test]
fn what_a_provider_reads_back_where_no_secret_is_declared_is_masked() {
    check("live", Faults::none());
}

#[test]
fn a_fingerprint_tells_nobody_anything_who_has_not_the_key() {
    let fingerprint = |key| Vault::new([key; 32]).put(&json!(INPUT));
    assert_eq!(fingerprint(1), fingerprint(1));
    assert_ne!(fingerprint(1), fingerprint(2), "a guess could be tried on the state");
}

#[test]
fn a_run_that_was_cut_off_leaves_nothing_in_clear() {
    for n in 0..4 {
        for fault in [CallFault::StopBefore, CallFault::StopAfter, CallFault::LoseReply] {
            check("", Faults::at(n, fault));
        }
    }
}

#[test]
fn a_secret_in_a_cursor_is_refused() {
    let said = check("cursor", Faults::none());
    assert!(said.contains("put a secret into its cursor"), "{said}");
}

#[test]
fn a_secret_that_changed_or_drifted_shows_as_a_change_and_not_as_itself() {
    let shelf = Shelf::default();
    let bench = Bench::new().keeping_frames().over(shelf.clone());
    bench.up_whole(program(""));
    let changed = |stack: &Stack| {
        let safe = stack.provider("safe", Safe { password: Secret::from(CONFIG) });
        safe.resource("first").add(Entry { password: Secret::from(LIVE).into(), ..Entry::new("first", "") });
        Ok(())
    };
    let plan = bench.preview(changed);
    let text = lab_core::plan::text(&plan);
    clean("the diff", &text);
    clean("the plan", serde_json::to_vec(&plan).unwrap());
    assert!(text.contains("password"), "{text}");
    shelf.lock().unwrap().get_mut("first").unwrap()["password"] = LIVE.into();
    let seen = bench.refresh(program(""));
    clean("what was seen", format!("{seen:?}"));
    clean("the journal", bench.disk().get("lab.journal").unwrap());
    let plan = bench.plan(program(""), Verb::Up, &seen, &[]);
    let text = lab_core::plan::text(&plan);
    clean("the drift", &text);
    assert!(text.contains("password") && !plan.is_empty(), "{text}");
    assert!(bench.up(changed).complete());
    clean("the journal", bench.disk().get("lab.journal").unwrap());
}

#[test]
fn a_secret_is_no_ordinary_value() {
    assert!(serde_json::to_string(&Secret::<String>::from(INPUT)).is_err());
    clean("its debug", format!("{:?} {:?}", Secret::<String>::from(INPUT), Entry::new("x", "")));
    // Exposed in a closure it would be an ordinary output.
    let bench = Bench::new().keeping_frames();
    let program = |stack: &Stack| {
        let rack = stack.provider("rack", Memory::at("rack"));
        let a = rack.resource("a").add(Thing { secret: Some(Secret::from(INPUT).into()), ..Thing::new("a", "x") });
        rack.resource("b").add(Thing::new("b", a.output(|a| a.key.expose().clone())));
        Ok(())
    };
    let report = bench.up(program);
    assert!(!report.complete());
    let told = format!("{report:?}");
    assert!(told.contains("Secret::map"), "{told}");
    assert!(!told.contains("key-of-a"), "{told}");
    assert!(!String::from_utf8_lossy(&bench.disk().get("lab.journal").unwrap()).contains("key-of-a"));
}

/// A lab directory on a real disk, whose key lies elsewhere.
struct Lab {
    dir: PathBuf,
    keys: PathBuf,
    _held: tempfile::TempDir,
}

impl Lab {
    fn new() -> Lab {
        let held = tempfile::tempdir().unwrap();
        Lab { dir: held.path().join("lab"), keys: held.path().join("config/age.key"), _held: held }
    }

    fn source(&self, named: bool) -> KeySource {
        KeySource::File { file: KeyFile { path: self.keys.clone(), named }, lab: self.dir.clone() }
    }

    fn open(&self) -> std::result::Result<Store, StoreError> {
        Ok(Store::open(Arc::new(RealDisk::new(&self.dir)), "lab", self.source(false))?.0)
    }

    /// Applies the program with the command line's own pieces.
    fn up(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let store = self.open().unwrap();
            let link = Link::memory(Shelf::default());
            let declared =
                Arc::new(Stack::load("lab", None, store.vault().clone(), BTreeMap::new(), program("")).unwrap());
            let ledger = Ledger::new(store, link.clock.clone());
            let seen = observe(declared.clone(), &ledger, &link, false).await;
            let request = Request::new(Verb::Up, SystemTime::now());
            let plan = ledger.with(|store| lab_core::plan::plan(&declared, store.state(), &seen, &request));
            let keys = self.source(false).for_sealing(SystemTime::now()).unwrap();
            let state = ledger.with(|store| state_digest(store.state()));
            let saved =
                SavedPlan::new(plan.clone(), seen, Vec::new(), 1, state, "exe".into(), &declared.vault, &keys).unwrap();
            clean("a saved plan", saved.to_bytes());
            let back = SavedPlan::from_bytes("plan", &saved.to_bytes()).unwrap();
            back.vault(&keys).unwrap();
            let stranger = Keys::throwaway();
            let refused = back.vault(&stranger).err().unwrap();
            clean("a refused plan", format!("{refused} {refused:?}"));
            let report = execute(&plan, declared, ledger.clone(), link, Options::default()).await;
            assert!(report.complete(), "{report:#?}");
            ledger.close().unwrap();
        });
    }

    fn search(&self) {
        for entry in walk(&self.dir) {
            clean(&entry.display().to_string(), std::fs::read(&entry).unwrap());
        }
    }
}

fn walk(dir: &FilePath) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn on_a_real_disk_nothing_is_in_clear_and_the_key_lies_elsewhere() {
    let lab = Lab::new();
    lab.up();
    assert!(!walk(&lab.dir).is_empty());
    lab.search();
    let key = std::fs::read_to_string(&lab.keys).unwrap();
    let key = key.lines().find(|line| line.starts_with("AGE-SECRET-KEY-")).unwrap();
    for file in walk(&lab.dir) {
        assert!(!String::from_utf8_lossy(&std::fs::read(&file).unwrap()).contains(key), "{}", file.display());
    }
    let mut store = lab.open().unwrap();
    store.compact().unwrap();
    drop(store);
    lab.search();
    assert_eq!(lab.open().unwrap().state().records.len(), 2);
}

#[test]
fn a_wrong_or_missing_key_is_refused_with_a_hint_and_without_a_new_one() {
    let lab = Lab::new();
    lab.up();
    let right = std::fs::read_to_string(&lab.keys).unwrap();
    std::fs::remove_file(&lab.keys).unwrap();
    let missing = lab.open().err().expect("it is refused");
    assert!(missing.to_string().contains("no key file") && missing.hint().contains("LAB_AGE_KEY_FILE"), "{missing}");
    assert!(!lab.keys.exists(), "a new key would open nothing");
    let other = Lab::new();
    other.up();
    std::fs::copy(&other.keys, &lab.keys).unwrap();
    let wrong = lab.open().err().expect("it is refused");
    assert!(
        wrong.to_string().contains("no key of") && wrong.hint().contains("another line"),
        "{wrong}: {}",
        wrong.hint()
    );
    clean("a refusal", format!("{missing:?} {wrong:?}"));
    // Rotated: the new one first, the old one still there.
    let new = std::fs::read_to_string(&other.keys).unwrap();
    std::fs::write(&lab.keys, format!("{new}\n{right}")).unwrap();
    let store = lab.open().unwrap();
    let fingerprints: Vec<&String> = store.state().secrets.keys().collect();
    assert!(!fingerprints.is_empty());
    let values: Vec<Value> = fingerprints.iter().map(|fingerprint| store.vault().get(fingerprint).unwrap()).collect();
    assert!(values.contains(&json!(INPUT)) && values.contains(&json!(OUTPUT)));
    let declared = Stack::load("lab", None, store.vault().clone(), BTreeMap::new(), program("")).unwrap();
    let plan = lab_core::plan::plan(
        &declared,
        store.state(),
        &Observations::default(),
        &Request::new(Verb::Up, SystemTime::now()),
    );
    assert!(plan.is_empty(), "another key is no change: {}", lab_core::plan::text(&plan));
}
