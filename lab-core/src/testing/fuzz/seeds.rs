//! Inputs as they should be, for mutations to begin with. Always the same, byte for byte.

use super::targets;
use crate::execute::journal::{Journal, canonical, sha256};
use crate::execute::seal::Keys;
use crate::execute::{SavedPlan, state_digest};
use crate::model::{ProgramError, Stack};
use crate::plan::{Observations, Verb};
use crate::testing::{Bench, Memory, Thing};
use serde_json::{Value, json};
use std::sync::OnceLock;

/// The key of the fingerprints, and a secret, sealed for [`Keys::fixed`] once and for all: sealing is random.
const KEY: &str = "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBkWW5yRmlGYVJ0a3krd1pIUDEydFFjQmV0THpUMjlSWVRJVFByRm93K2dZCjNad08zWDRtdUVkbGF4NU5FOWRZVk1teElONFpZQjBWNzZpbHJtNTBUUTAKLT4gMFUtZ3JlYXNlIGMtWTxkTFcgPihxYyBwRiEKbDdPbXZtV1dLSWxLREtYaUVIak0yTTBvUkJZSkpaeGtQY1l5R0k5QVJnCi0tLSBxa0poalZSU0hPMWtiVmhxVTNRcHZKR1crWEJxclhXZDdRdGRmcFd2dEtvCoKU4TMZ/nT4ZrSv3c4knj6kCIcMSuM5FRZjDT009OIp1TgS0OgatH/sWY0XtZdftoQ3tuZfzjR8PvhQQ0HEtqc=";
const TEXT: &str = "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBGY29LcGJRQnNGeTE2WTc0bFJNM0hzYXBRa0hLSzhvNmJ4Yml1KzR5YWtZCkNBYU45Q3FMZkFZNzZUUXNaRUFiWGNKMmVOUmdQWThkS29Pb0hINzRSWE0KLT4gey1ncmVhc2UgLlMgbV09LEV8fXIgfCY9Cmh0VFFRVEI5V2dFbQotLS0gMnR3N292enFOaFJRRGllQjlTT2R0ZlFKZmd1TmhxbFdEd3krV050TnhYdwplSLFDA9Qjbfar5NV1Jj9BTKAyPXjGyYri7iwJ6sUoKXc/MNyZY2ihKDUDj8c0W8rGldgFf4WN";

/// Lives of a small lab, recorded.
pub(super) struct Seeds {
    /// After each part of a life: its world, and its state as it lies there.
    lives: Vec<(Bench, Vec<u8>)>,
    /// What the frames held.
    records: Vec<Vec<u8>>,
    snapshots: Vec<Vec<u8>>,
    plans: Vec<Vec<u8>>,
}

impl Seeds {
    /// Returns them; they are made once in a process.
    pub(super) fn once() -> &'static Seeds {
        static SEEDS: OnceLock<Seeds> = OnceLock::new();
        SEEDS.get_or_init(Seeds::make)
    }

    fn make() -> Seeds {
        let mut seeds = Seeds { lives: Vec::new(), records: Vec::new(), snapshots: Vec::new(), plans: Vec::new() };
        let bench = Bench::new().keeping_frames();
        bench.up(targets::program);
        seeds.keep(&bench);
        bench.up(changed);
        seeds.keep(&bench);
        // In the middle of everything: what has begun and not ended is what a state has most to say about.
        for call in [1, 3, 5, 8] {
            let bench = bench.fork().keeping_frames();
            let faults = crate::execute::Faults::at(call, crate::execute::CallFault::StopAfter);
            let trial = crate::testing::Trial { faults: faults.into(), ..Default::default() };
            let verb = if call % 2 == 1 { Verb::Destroy } else { Verb::Up };
            if bench.attempt(replaced, verb, &trial).is_ok() {
                seeds.keep(&bench);
            }
        }
        bench.destroy(changed);
        seeds.keep(&bench);
        seeds
    }

    /// Keeps what a bench has lived through by now.
    fn keep(&mut self, bench: &Bench) {
        let Ok(opened) = Journal::read(bench.disk(), "lab") else { return };
        let frames: Vec<Vec<u8>> =
            opened.frames.iter().map(|records| canonical(&steady(&Value::from(records.clone())))).collect();
        let snapshot = opened.snapshot.as_ref().map(|snapshot| canonical(&steady(snapshot)));
        self.lives.push((bench.fork(), assembled(snapshot.as_deref(), &frames)));
        self.records.extend(frames);
        let state = bench.state();
        self.snapshots.push(canonical(&steady(&serde_json::to_value(&state).unwrap_or_default())));
        for verb in [Verb::Up, Verb::Destroy] {
            let declared = bench.load(changed);
            let plan = bench.plan(changed, verb, &Observations::default(), &[]);
            let (seen, targets) = (Observations::default(), vec!["a".into()]);
            let (state, program) = (state_digest(&state), "a program".into());
            let saved =
                SavedPlan::new(plan, seen, targets, 1_800_000_000, state, program, &declared.vault, &Keys::fixed());
            let saved = saved.ok().and_then(|saved| serde_json::to_value(saved).ok()).unwrap_or_default();
            self.plans.push(canonical(&steady(&saved)));
        }
    }

    /// Returns the world that the last seeds are about.
    pub(super) fn bench(&self) -> Bench {
        self.lives[self.lives.len() / 2].0.fork()
    }

    pub(super) fn journals(&self) -> Vec<Vec<u8>> {
        let mut all: Vec<Vec<u8>> = self.lives.iter().map(|(_, file)| file.clone()).collect();
        all.push(assembled(None, &[]));
        // A length that claims four thousand million bytes, in each place where one stands.
        let header =
            json!({"format": 1, "magic": "lab journal", "snapshot": {"bytes": u32::MAX, "sha256": sha256(b"")}});
        all.push(signed(header));
        let frame = format!(r#"{{"after":"{}","bytes":4294967295,"n":1,"records":["#, "0".repeat(64));
        all.push([assembled(None, &[]), frame.into_bytes()].concat());
        all.push(b"{\"format\":99,\"magic\":\"lab journal\"}\n".to_vec());
        all
    }

    pub(super) fn snapshots(&self) -> Vec<Vec<u8>> {
        let mut all = self.snapshots.clone();
        all.push(nested("{\"outputs\":", "}"));
        all.push(nested("[", "]"));
        all
    }

    pub(super) fn records(&self) -> Vec<Vec<u8>> {
        let mut all = self.records.clone();
        all.push(nested("[", "]"));
        all
    }

    pub(super) fn plans(&self) -> Vec<Vec<u8>> {
        let mut all = self.plans.clone();
        all.push(nested("{\"format\":1,\"plan\":", "}"));
        all
    }

    pub(super) fn key_files(&self) -> Vec<Vec<u8>> {
        let key = "AGE-SECRET-KEY-1V4MX2UNEVFHKG7FQDDHX7AMNYP6XS6TNYPKXZC38WVSXKETEYYSSWQAH65";
        let file = format!("# created: 2026-01-01T00:00:00Z\n{key}\n\n{key}\n");
        vec![file.into_bytes(), key.to_lowercase().into_bytes(), b"AGE-PLUGIN-X-1QQ\r\n\xff".to_vec(), Vec::new()]
    }

    pub(super) fn sealed(&self) -> Vec<Vec<u8>> {
        vec![
            KEY.into(),
            TEXT.into(),
            b"age-encryption.org/v1\n-> scrypt AAAAAAAAAAAAAAAAAAAAAA 63\nAAAA\n--- AAAA\n".to_vec(),
        ]
    }

    pub(super) fn holders(&self) -> Vec<Vec<u8>> {
        let holder = json!({"pid": 7, "host": "here", "verb": "up", "since": "2026-01-01T00:00:00Z"});
        vec![holder.to_string().into_bytes(), nested("[", "]")]
    }

    pub(super) fn clocks(&self) -> Vec<Vec<u8>> {
        let texts =
            ["900@1763769600.250", "4294967295@0.000", "1@18446744073709551615.999", "1@9223372036854775807.999"];
        texts.iter().map(|text| text.as_bytes().to_vec()).collect()
    }
}

/// The same lab after its owner changed his mind.
fn changed(stack: &Stack) -> Result<(), ProgramError> {
    targets::program(stack)?;
    let rack = stack.provider("attic", Memory::at("attic"));
    rack.resource("more").add(Thing { calls: 2, ..Thing::new("more", "said") });
    Ok(())
}

/// The same lab with what holds something in another place.
fn replaced(stack: &Stack) -> Result<(), ProgramError> {
    let rack = stack.provider("rack", Memory::at("rack"));
    let a = rack.resource("a").add(Thing { stand: "there".into(), create_first: true, ..Thing::new("a", "one") });
    let inside = stack.provider("inside", Memory::inside(&a));
    inside.resource("c").add(Thing { calls: 3, lingers: 2, ..Thing::new("c", "changed") });
    Ok(())
}

/// Returns a value with everything random in it made the same for ever.
fn steady(value: &Value) -> Value {
    let text = |key: &str| -> Value { (if key == "key" { KEY } else { TEXT }).into() };
    match value {
        Value::Object(map) => {
            let keyed = map.get("event").is_some_and(|event| event == "keyed");
            let steadied = map.iter().map(|(key, value)| {
                let value = match (key.as_str(), value) {
                    ("sealed", Value::String(_)) => text(if keyed { "key" } else { "" }),
                    ("key", Value::String(_)) => text("key"),
                    ("secrets", Value::Object(secrets)) => {
                        Value::Object(secrets.iter().map(|(key, _)| (key.clone(), text(""))).collect())
                    }
                    (_, value) => steady(value),
                };
                (key.clone(), value)
            });
            Value::Object(steadied.collect())
        }
        Value::Array(list) => list.iter().map(steady).collect(),
        leaf => leaf.clone(),
    }
}

fn nested(open: &str, close: &str) -> Vec<u8> {
    format!("{}0{}", open.repeat(50_000), close.repeat(50_000)).into_bytes()
}

/// Returns a header line with the hash that belongs to it.
fn signed(mut header: Value) -> Vec<u8> {
    header["sha256"] = sha256(&canonical(&header)).into();
    [canonical(&header), b"\n".to_vec()].concat()
}

/// Returns the file of a stack with whatever stands in its snapshot and its frames, each with the hash that belongs to
/// it, as the documentation of the format says.
pub(super) fn assembled(snapshot: Option<&[u8]>, frames: &[Vec<u8>]) -> Vec<u8> {
    let about = snapshot.map(|text| json!({"bytes": text.len(), "sha256": sha256(text)}));
    let mut file = signed(json!({"format": 1, "magic": "lab journal", "snapshot": about}));
    let mut tip = sha256(&file[..file.len() - 1]);
    if let Some(text) = snapshot {
        file.extend_from_slice(text);
        file.push(b'\n');
    }
    for (n, records) in frames.iter().enumerate() {
        let mut line = format!(r#"{{"after":"{tip}","bytes":{},"n":{},"records":"#, records.len(), n + 1).into_bytes();
        line.extend_from_slice(records);
        tip = sha256(&line);
        line.extend_from_slice(format!(",\"sha256\":\"{tip}\"}}\n").as_bytes());
        file.extend_from_slice(&line);
    }
    file
}
