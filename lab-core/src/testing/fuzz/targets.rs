//! What is done with the bytes.

use super::seeds::{Seeds, assembled};
use crate::execute::disk::FaultyDisk;
use crate::execute::journal::{Journal, JournalError};
use crate::execute::lock::Holder;
use crate::execute::seal::{Keys, SealError};
use crate::execute::{KeySource, Look, SavedPlan, Store, StoreError, neighbours, state_digest};
use crate::model::{Clock, ProgramError, Secret, Stack, State, Vault, redact, reveal};
use crate::plan::{self, Observations, Request, Verb};
use crate::testing::{Bench, Memory, Ping, Thing, Trial};
use base64::{Engine, prelude::BASE64_STANDARD};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A lab with a little of everything that a state can tell of.
pub(super) fn program(stack: &Stack) -> Result<Secret<String>, ProgramError> {
    let rack = stack.provider("rack", Memory::at("rack"));
    let group = stack.rolling("group", 1);
    let a = rack.resource("a").timeout(Duration::from_secs(60)).add(Thing {
        secret: Some(Secret::from("correct-horse-battery").into()),
        claims: vec![7],
        lock: Some("busy".into()),
        ..Thing::new("a", "one")
    });
    let inside = stack.provider("inside", Memory::inside(&a));
    inside.resource("c").add(Thing { calls: 2, ..Thing::new("c", "in it") });
    let b = rack.resource("b").rolling(&group).add(Thing {
        secret: Some(a.output(|a| a.key).into()),
        fragile: true,
        create_first: true,
        ..Thing::new("b", a.output(|a| a.text))
    });
    rack.resource("d").rolling(&group).was("e").depends_on(&b).add(Thing::new("d", "three"));
    rack.resource("kept").retain().replace_when("one").add(Thing { unmarkable: true, ..Thing::new("kept", "four") });
    rack.read("asked", Ping { name: "a".into(), expect: None });
    Ok(Secret::from("returned-and-secret"))
}

fn keys() -> KeySource {
    KeySource::Given(Keys::fixed())
}

/// Makes what a person would be told.
fn told(error: &StoreError) {
    let _ = (error.to_string(), format!("{error:?}"), error.hint());
}

pub(super) fn journal(bytes: &[u8]) {
    let disk = FaultyDisk::new();
    disk.put("lab.journal", bytes);
    let (verified, read) = (Journal::verify(&disk, "lab"), Journal::read(&disk, "lab"));
    let said = |error: &JournalError| format!("{error} {}", error.hint());
    match (&verified, &read) {
        (Ok(Some(report)), Ok(opened)) => {
            assert_eq!((report.frames, &report.cut), (opened.frames.len() as u64, &opened.cut));
        }
        (Err(one), Err(other)) => assert_eq!(said(one), said(other)),
        (verified, read) => panic!("a journal is sound and is not: {verified:?}, {read:?}"),
    }
    state(&disk);
}

pub(super) fn snapshot(bytes: &[u8]) {
    let disk = FaultyDisk::new();
    disk.put("lab.journal", &assembled(Some(bytes), &[]));
    state(&disk);
}

pub(super) fn records(bytes: &[u8]) {
    let seeds = Seeds::once().snapshots();
    for snapshot in [None, seeds.get(1).map(Vec::as_slice)] {
        let disk = FaultyDisk::new();
        disk.put("lab.journal", &assembled(snapshot, &[bytes.to_vec()]));
        state(&disk);
    }
}

/// Does everything with a state that looking and planning do, and opens it for writing.
fn state(disk: &FaultyDisk) {
    let look = match Store::look(disk, "lab", &keys()) {
        Ok(look) => look,
        Err(error) => return told(&error),
    };
    planned(&look, &Observations::default(), &[], SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    let vault = Vault::new([7; 32]);
    if let Err(error) = neighbours(disk, &["lab".to_owned()], "other", &keys(), &vault) {
        told(&error);
    }
    match Store::open(Arc::new(disk.clone()), "lab", keys()) {
        Ok((store, _)) => {
            assert_eq!(store.state(), &look.state, "looking and opening read the same");
            match store.close() {
                Ok(()) => closed(disk, look.state),
                Err(error) => told(&error),
            }
        }
        Err(error) => told(&error),
    }
}

/// What was written can be read, and says the same.
fn closed(disk: &FaultyDisk, mut before: State) {
    match Store::look(disk, "lab", &keys()) {
        Ok(mut after) => {
            before.prune();
            after.state.prune();
            assert_eq!(after.state, before, "a snapshot says what the frames did");
        }
        Err(error) => panic!("what was written cannot be read: {error}"),
    }
}

fn planned(look: &Look, seen: &Observations, targets: &[String], now: SystemTime) {
    let Look { state, vault, cut: _ } = look;
    let value = serde_json::to_value(state).unwrap_or_default();
    let _ = (redact(&value), reveal(&value, vault), state.open().count(), state_digest(state));
    let Ok(declared) = Stack::load("lab", None, vault.clone(), BTreeMap::new(), program) else { return };
    for verb in [Verb::Up, Verb::Destroy] {
        let request = Request { verb, targets: targets.to_vec(), now, foreign: Vec::new() };
        let plan = plan::plan(&declared, state, seen, &request);
        let _ = (plan::text(&plan), plan.digest(), plan.is_empty());
    }
}

pub(super) fn run(bytes: &[u8]) {
    let bench = Seeds::once().bench();
    let disk = FaultyDisk::new();
    disk.put("lab.journal", &assembled(Some(bytes), &[]));
    if let Err(error) = Store::look(&disk, "lab", &keys()) {
        return told(&error);
    }
    let bench = bench.on(disk);
    let trial = Trial { refresh: true, ..Trial::default() };
    for verb in [Verb::Up, Verb::Destroy] {
        // Whatever the state says there is: a run ends, and what it has written can be read.
        let _ = bench.attempt(program, verb, &trial);
        bench.state();
    }
}

pub(super) fn plan(bytes: &[u8]) {
    let saved = match SavedPlan::from_bytes("plan", bytes) {
        Ok(saved) => saved,
        Err(error) => return drop((error.to_string(), error.hint())),
    };
    assert_eq!(SavedPlan::from_bytes("plan", &saved.to_bytes()).ok().as_ref(), Some(&saved), "it is kept as it is");
    let bench: Bench = Seeds::once().bench();
    let (declared, state) = (bench.load(program), bench.state());
    let _ = (plan::text(&saved.plan), saved.check(&saved.plan, &saved.state, &saved.executable));
    let vault = match saved.vault(&Keys::fixed()) {
        Ok(vault) => vault,
        Err(error) => return drop((error.to_string(), error.hint())),
    };
    saved.secrets.keys().for_each(|fingerprint| drop(vault.get(fingerprint)));
    let look = Look { state, vault: declared.vault, cut: None };
    planned(&look, &saved.observations, &saved.targets, SystemTime::UNIX_EPOCH + Duration::from_secs(saved.at));
}

pub(super) fn key_file(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Keys::parse(&text, "the key file") {
        Ok(keys) => {
            assert!(!format!("{keys:?}").contains("SECRET"), "a key is not printed");
            let sealed = keys.seal(b"plain");
            assert_eq!(keys.open(&sealed).ok().as_deref(), Some(&b"plain"[..]));
        }
        Err(error) => drop((format!("{error} {error:?}"), error.hint())),
    }
}

pub(super) fn sealed(bytes: &[u8]) {
    let said = |error: SealError| drop((format!("{error} {error:?}"), error.hint()));
    // As it stands in a file, and what is within the base64.
    for text in [String::from_utf8_lossy(bytes).into_owned(), BASE64_STANDARD.encode(bytes)] {
        let keys = Keys::fixed();
        let current = keys.is_current(&text);
        match keys.open(&text) {
            Ok(plain) => {
                assert!(current, "what the first key opens was sealed for it");
                assert!(plain.len() <= bytes.len(), "nothing is unpacked");
            }
            Err(error) => said(error),
        }
    }
}

pub(super) fn holder(bytes: &[u8]) {
    if let Some(holder) = Holder::parse(bytes) {
        let told = holder.to_string();
        assert!(!told.chars().any(char::is_control), "what others wrote moves no cursor: {told:?}");
    }
}

pub(super) fn clock(bytes: &[u8]) {
    if let Ok(clock) = String::from_utf8_lossy(bytes).parse::<Clock>() {
        let _ = (clock.now(), clock.patience(Duration::from_secs(600)), clock.to_string());
    }
}
