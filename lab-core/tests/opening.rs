//! A state that is opened while the program is loaded is the state that is opened otherwise, and refused for the same.

mod sample;

use lab_core::execute::disk::{Disk, FaultyDisk, File, Reading};
use lab_core::execute::journal::{canonical, sha256};
use lab_core::execute::seal::Keys;
use lab_core::execute::{KeySource, Opening, Store};
use lab_core::plan::Verb;
use lab_core::testing::Bench;
use sample::{Line, Sample, Says, run_whole};
use serde_json::{Value, json};
use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

const FILE: &str = "lab.journal";

/// A state with a secret in it; with frames behind its snapshot, as a killed run leaves it, or without.
fn state(frames: bool) -> FaultyDisk {
    let bench = Bench::new();
    let bench = if frames { bench.keeping_frames() } else { bench };
    let line = Line { secret: Some(Says::Plain("hush".into())), ..Line::new("a") };
    run_whole(&bench, &Sample::of([line, Line::new("b").says_of("a")]), Verb::Up, "first");
    bench.disk().clone()
}

fn keys() -> KeySource {
    KeySource::Given(Keys::fixed())
}

/// Opens it in both ways and by both doors; returns what became of it, which is always the same.
fn opened(disk: &FaultyDisk, keys: &KeySource) -> Result<Store, String> {
    let copy = || {
        let copy = FaultyDisk::new();
        disk.get(FILE).iter().for_each(|bytes| copy.put(FILE, bytes));
        Arc::new(copy)
    };
    let open = Store::open(copy(), "lab", keys.clone()).map_err(|error| error.to_string());
    for opening in [Opening::to_write(copy(), "lab", keys.clone()), Opening::to_look(copy(), "lab", keys.clone())] {
        let ended = opening.vault().and_then(|(vault, opening)| Ok((vault, opening.finish()?)));
        match (&open, ended.map_err(|error| error.to_string())) {
            (Err(expected), Err(error)) => assert_eq!(*expected, error),
            (Ok((store, cut)), Ok((vault, (other, other_cut)))) => {
                assert_eq!((store.state(), cut), (other.state(), &other_cut));
                if store.state().key.is_some() {
                    assert_eq!(vault.key(), store.vault().key());
                }
                for fingerprint in store.state().secrets.keys() {
                    let secret = store.vault().get(fingerprint).expect("it can be opened");
                    assert_eq!(vault.get(fingerprint), Ok(secret), "what was handed out has the secrets in the end");
                }
            }
            (expected, ended) => panic!("{:?}, and {:?}", expected.as_ref().err(), ended.err()),
        }
    }
    open.map(|(store, _)| store)
}

#[test]
fn it_is_the_same_state_with_the_same_secrets() {
    for disk in [state(false), state(true)] {
        let store = opened(&disk, &keys()).expect("it is sound");
        assert!(!store.state().secrets.is_empty());
    }
    let store = opened(&FaultyDisk::new(), &keys()).expect("there is none yet");
    assert!(store.state().records.is_empty());
}

#[test]
fn what_is_wrong_with_it_is_said_in_the_same_words() {
    for disk in [state(false), state(true)] {
        let bytes = disk.get(FILE).expect("a state");
        for at in (0..bytes.len()).step_by(7) {
            let damaged = FaultyDisk::new();
            damaged.put(FILE, &bytes);
            damaged.flip(FILE, at, 1);
            // Which of them are refused, and why, `bit_rot` says.
            let _ = opened(&damaged, &keys());
        }
        let error = opened(&disk, &KeySource::Given(Keys::throwaway())).err().expect("it is the wrong key");
        assert!(error.starts_with("open the secrets of stack lab"), "{error}");
    }
}

/// The file is believed only once its hash fits; what was handed out before is of no use to anybody then.
#[test]
fn a_snapshot_that_was_changed_is_refused_though_its_key_can_be_read() {
    let disk = state(false);
    let bytes = disk.get(FILE).expect("a state");
    let text = String::from_utf8(bytes).expect("it is text");
    let forged = text.replacen("\"status\":\"ready\"", "\"status\":\"READY\"", 1);
    assert_ne!(text, forged);
    disk.put(FILE, forged.as_bytes());
    let (_, opening) = Opening::to_write(Arc::new(disk), "lab", keys()).vault().expect("the key can be read");
    let error = opening.finish().err().expect("the hash does not fit").to_string();
    assert!(error.contains("its content does not fit its SHA-256"), "{error}");
}

/// Returns the state as somebody else would write it, with a hash of its own.
fn rewritten(disk: &FaultyDisk, text: impl FnOnce(Value) -> Vec<u8>) -> FaultyDisk {
    let bytes = disk.get(FILE).expect("a state");
    let snapshot = bytes.split(|byte| *byte == b'\n').nth(1).expect("a snapshot");
    let text = text(serde_json::from_slice(snapshot).expect("it is JSON"));
    let mut header = json!({"format": 1, "magic": "lab journal",
        "snapshot": {"bytes": text.len(), "sha256": sha256(&text)}});
    header["sha256"] = sha256(&canonical(&header)).into();
    let rewritten = FaultyDisk::new();
    rewritten.put(FILE, &[&canonical(&header)[..], b"\n", &text, b"\n"].concat());
    rewritten
}

/// Written by another hand, with its own hash: what was handed out would have another key than the state.
#[test]
fn a_state_whose_key_stands_where_nobody_looks_for_it_is_refused() {
    let disk = rewritten(&state(false), |mut state| {
        let key = state.as_object_mut().expect("a map").remove("key").expect("a key");
        let mut moved = canonical(&state);
        moved.pop();
        moved.extend_from_slice(format!(",\"key\":{key}}}").as_bytes());
        moved
    });
    let refused = opened(&disk, &keys()).err().expect("it is refused");
    assert!(refused.ends_with("the snapshot is not understood: its key is not where it was written"), "{refused}");
}

/// Returns a state of some megabytes, behind its key or before it.
fn large(before: bool) -> FaultyDisk {
    rewritten(&state(false), |mut state| {
        let answer = json!("x".repeat(3 << 20));
        if before {
            state["answers"] = json!({ "lab::shop::::odd:ask::it": answer });
        } else {
            state["outputs"] = answer;
        }
        canonical(&state)
    })
}

#[test]
fn a_large_state_is_the_same_wherever_its_key_stands() {
    for before in [false, true] {
        let store = opened(&large(before), &keys()).expect("it is sound");
        assert!(!store.state().secrets.is_empty());
    }
}

/// A disk that has read the beginning of a file at once, and all of it when it is told to.
struct Slow {
    disk: FaultyDisk,
    go: Arc<Mutex<Receiver<()>>>,
}

impl Disk for Slow {
    fn place(&self, name: &str) -> String {
        self.disk.place(name)
    }
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.disk.read(name)
    }
    fn open(&self, name: &str, most: usize) -> io::Result<Option<Reading>> {
        let Some(Reading { head, length, .. }) = self.disk.open(name, most)? else { return Ok(None) };
        let (disk, name, go) = (self.disk.clone(), name.to_owned(), self.go.clone());
        let rest = move |all: &mut Vec<u8>| {
            go.lock().unwrap().recv().expect("it is told to");
            all.extend(&disk.get(&name).unwrap()[most..]);
            Ok(())
        };
        Ok(Some(Reading::new(head, length, rest)))
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        self.disk.create(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.link(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }
}

/// A program can be loaded while a large state is still being read.
#[test]
fn the_secrets_are_handed_out_before_all_is_read() {
    let (tell, go) = channel();
    let slow = Slow { disk: large(false), go: Arc::new(Mutex::new(go)) };
    let (vault, opening) =
        Opening::to_look(Arc::new(slow), "lab", keys()).vault().expect("the key is in the beginning");
    tell.send(()).expect("it waits");
    let (store, _) = opening.finish().expect("it is sound");
    assert_eq!(vault.key(), store.vault().key());
}
