//! Lives of a program in processes of their own: the test's executable, started again, on a directory of the file
//! system, over a world that the test serves on a loopback socket.
#![allow(dead_code, reason = "each test file uses its own part")]

use crate::sample::{SECRETS, Sample};
use lab_core::execute::journal::Journal;
use lab_core::execute::seal::Keys;
use lab_core::execute::{KeySource, LabDir, Ledger, Options, Store, execute, observe};
use lab_core::plan::{self, Request, Verb};
use lab_core::testing::{Bench, MemoryDisk, Server, World};
use lab_core::{Clock, Deed, Link, Record, Stack, State};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The variable that tells a process what to live.
const LIFE: &str = "LAB_TEST_LIFE";

/// What a process does that is started for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Life {
    dir: PathBuf,
    world: SocketAddr,
    destroys: bool,
    seed: u64,
    changed: bool,
}

/// How a life ended that nobody ended.
pub(crate) const DONE: i32 = 40;
/// Somebody else holds the lab directory.
pub(crate) const HELD: i32 = 41;

/// What each of these test binaries calls in a test called `lives`: not a test of its own, but what the processes do
/// that the other tests start.
pub(crate) fn live() {
    let Ok(life) = std::env::var(LIFE) else { return };
    let life: Life = serde_json::from_str(&life).expect("a life");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let code = runtime.block_on(life.run());
    // Not the harness's: whoever started this wants to know more than that no assertion failed.
    std::process::exit(code);
}

pub(crate) fn keys() -> KeySource {
    KeySource::Given(Keys::fixed())
}

impl Life {
    fn sample(&self) -> Sample {
        let sample = Sample::random(self.seed);
        if self.changed { sample.changed(self.seed) } else { sample }
    }

    /// What a command line does, without its words.
    async fn run(self) -> i32 {
        let (sample, dir) = (self.sample(), LabDir::new(&self.dir));
        let verb = if self.destroys { Verb::Destroy } else { Verb::Up };
        let Ok(_lock) = dir.lock(&verb.to_string(), SystemTime::now()) else { return HELD };
        let (store, _) = dir.open("lab", keys()).expect("the state opens");
        let declared = Stack::load("lab", None, store.vault().clone(), BTreeMap::new(), |stack| sample.declare(stack));
        let declared = Arc::new(declared.expect("the program is sound"));
        let link = Link::memory(Arc::new(World::at(self.world))).on(Clock::scaled(1000));
        let ledger = Ledger::new(store, link.clock.clone());
        let seen = observe(declared.clone(), &ledger, &link, false).await;
        let request = Request { verb, targets: Vec::new(), now: link.clock.now(), foreign: Vec::new() };
        let plan = ledger.with(|store| plan::plan(&declared, store.state(), &seen, &request));
        assert!(plan.problems.is_empty(), "{:?}", plan.problems);
        let report = execute(&plan, declared, ledger.clone(), link, Options::default()).await;
        assert!(report.complete(), "{report:#?}");
        ledger.close().expect("the state closes");
        DONE
    }
}

/// A lab directory, the world it is about, and processes that live in it one after the other.
pub(crate) struct Ground {
    pub(crate) bench: Bench,
    server: Server,
    dir: tempfile::TempDir,
}

impl Ground {
    pub(crate) fn new() -> Ground {
        let bench = Bench::new();
        let server = bench.serve(Duration::from_micros(300)).expect("a loopback socket");
        Ground { bench, server, dir: tempfile::tempdir().expect("a directory") }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.path().join("lab")
    }

    /// Starts a life. `seed` and `changed` say which program it runs.
    pub(crate) fn start(&self, verb: Verb, seed: u64, changed: bool) -> Child {
        let life =
            Life { dir: self.dir(), world: self.server.address(), destroys: verb == Verb::Destroy, seed, changed };
        Command::new(std::env::current_exe().expect("this test is an executable"))
            .args(["--exact", "lives", "--nocapture", "--test-threads=1"])
            .env(LIFE, serde_json::to_string(&life).expect("a life is JSON"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts")
    }

    /// Waits for the end of a life, and for everything it asked for to have happened. Of what it said and what lies in
    /// its directory by now, no secret is in clear.
    pub(crate) fn end(&self, mut child: Child) -> (Option<i32>, String) {
        let mut said = Vec::new();
        // One that was killed may have said half a word.
        child.stderr.take().expect("it is piped").read_to_end(&mut said).expect("what it said");
        child.stdout.take().expect("it is piped").read_to_end(&mut said).expect("what it said");
        let status = child.wait().expect("a child");
        self.server.drain();
        SECRETS.clean("what was said", &said);
        self.disk().everything().iter().for_each(|file| SECRETS.clean("a file", file));
        (status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    /// The disk as it is now, in memory, for looking at it with everything there is for that.
    pub(crate) fn disk(&self) -> MemoryDisk {
        copy(&self.dir())
    }

    /// The bench with the state of the directory.
    pub(crate) fn looked(&self) -> Bench {
        self.bench.clone().on(self.disk())
    }

    /// What has to hold at any moment, also between a kill and the next run: the state is sound, and everything that
    /// exists is known to it.
    pub(crate) fn sound(&self, story: &str) -> State {
        let disk = self.disk();
        Journal::verify(&disk, "lab").unwrap_or_else(|error| panic!("{story}: {error}"));
        let look = Store::look(&disk, "lab", &keys()).unwrap_or_else(|error| panic!("{story}: {error}"));
        let state = look.state;
        let named = state.records.values().map(|record| &**record);
        let recorded = named.chain(state.condemned.values().map(|condemned| &condemned.record));
        let known: Vec<String> = recorded
            .flat_map(|record| {
                let open = record.open.iter().flat_map(|open| {
                    [Some(open.begun.mark.0.clone()), open.before.as_ref().map(|before| before.begun.mark.0.clone())]
                });
                [Some(record.mark.0.clone())].into_iter().chain(open).flatten().collect::<Vec<_>>()
            })
            .collect();
        let items = self.bench.world().items();
        // What lies in a container that is on its way out goes with it, and is nobody's concern any more.
        let going = |mark: &String| {
            let condemned = state.condemned.keys().any(|known| known.0 == *mark);
            let deleted = |record: &Record| {
                record.mark.0 == *mark && record.open.as_ref().is_some_and(|open| open.begun.deed == Deed::Delete)
            };
            condemned || state.records.values().any(|record| deleted(record))
        };
        let gone: Vec<String> = items
            .iter()
            .filter(|(_, _, item)| item.mark.as_ref().is_some_and(going))
            .map(|(_, _, item)| format!("#{}", item.serial))
            .collect();
        for (place, name, item) in &items {
            let inside = place.split('/').any(|part| gone.iter().any(|serial| part.ends_with(serial.as_str())));
            let marked = item.mark.as_ref().is_none_or(|mark| known.contains(mark));
            assert!(marked || inside, "{story}: {place}/{name} exists, and nothing in the state knows of it");
        }
        state
    }
}

/// Copies the files of a lab directory as any program would: whatever is there at the moment, one after the other.
pub(crate) fn copy(dir: &Path) -> MemoryDisk {
    let disk = MemoryDisk::new();
    let Ok(entries) = std::fs::read_dir(dir) else { return disk };
    for entry in entries.flatten() {
        // One that was replaced meanwhile was another file.
        if let (Ok(bytes), Ok(name)) = (std::fs::read(entry.path()), entry.file_name().into_string()) {
            disk.put(&name, &bytes);
        }
    }
    disk
}
