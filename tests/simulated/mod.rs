//! A simulated lab, and command lines that run against it in this process.

#![allow(dead_code, reason = "each of the tests that share it needs a part")]

use lab::execute::KeySource;
use lab::execute::seal::Keys;
use lab::kube::request::{Apply, Expect};
use lab::kube::{Client, Key, Kind};
use lab::sim::{Options, Rack, Running};
use lab::{Lab, Surroundings};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::runtime::Runtime;

/// A simulated lab that is switched on.
pub(crate) struct Simulated {
    pub(crate) running: Running,
    // Dropped after what runs on it.
    runtime: Runtime,
}

/// A directory for a state and for plans, with the keys that seal them.
pub(crate) struct Desk {
    dir: tempfile::TempDir,
    keys: Keys,
}

/// What a command line came to. Paths within the desk's directory begin with `DIR`.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) exit: u8,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Simulated {
    pub(crate) fn start(rack: &Rack, options: Options) -> Simulated {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let running = runtime.block_on(rack.start(options)).unwrap();
        Simulated { running, runtime }
    }

    /// Returns the whole simulated world as it is now.
    pub(crate) fn world(&self) -> Value {
        let _runtime = self.runtime.enter();
        self.running.world()
    }

    /// Switches a machine on, or off and on.
    pub(crate) fn power_on(&self, machine: [u8; 4]) {
        let _runtime = self.runtime.enter();
        self.running.power_loss(machine.into(), true);
    }

    /// Returns the world once a machine is ready and nothing changes any more.
    pub(crate) fn settled(&self, machine: [u8; 4]) -> Value {
        let address = IpAddr::from(machine).to_string();
        let mut before = Value::Null;
        for _ in 0..60 {
            let world = self.world();
            if world["machines"][&address]["ready"] == true && world == before {
                return world;
            }
            before = world;
            std::thread::sleep(Duration::from_millis(300));
        }
        panic!("{address} does not come to rest");
    }

    /// Returns a way into the cluster of a kubeconfig, for what somebody else does there.
    pub(crate) fn client(&self, kubeconfig: &str) -> Client {
        let _runtime = self.runtime.enter();
        Client::connect(kubeconfig.as_bytes(), &self.running.link()).unwrap()
    }

    /// Makes or changes an object as somebody else, who cares for nobody's fields, and returns it.
    pub(crate) fn apply(&self, client: &Client, body: &Value) -> Value {
        let (kind, key) = named(body);
        let how = Apply { expect: Expect::Anything, force: true, dry_run: false, manager: "kubectl".into() };
        self.runtime.block_on(client.apply(&kind, &key, body, &how)).unwrap().object
    }

    /// Returns an object as it is.
    pub(crate) fn object(&self, client: &Client, body: &Value) -> Option<Value> {
        let (kind, key) = named(body);
        self.runtime.block_on(client.get(&kind, &key)).unwrap()
    }
}

fn named(body: &Value) -> (Kind, Key) {
    let key = Key::of(body).unwrap();
    (lab::kube::kinds::known(&key.api_version, &key.kind).unwrap(), key)
}

impl Desk {
    pub(crate) fn new() -> Desk {
        Desk { dir: tempfile::tempdir().unwrap(), keys: Keys::throwaway() }
    }

    /// Returns a desk on which a state lies already.
    pub(crate) fn with(files: &BTreeMap<PathBuf, Vec<u8>>, keys: Keys) -> Desk {
        let desk = Desk { dir: tempfile::tempdir().unwrap(), keys };
        for (name, content) in files {
            let path = desk.dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        desk
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn keys(&self) -> Keys {
        self.keys.clone()
    }

    /// Returns every file by its path within the desk's directory.
    pub(crate) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        collect(self.dir.path(), self.dir.path(), &mut files);
        files
    }

    /// Runs a command line on the state that lies here. `@plan` is the file `plan` on this desk.
    pub(crate) fn run(&self, there: &Simulated, lab: &Lab, arguments: &str) -> Ran {
        self.run_in(there, lab, arguments, |_| {})
    }

    /// Runs a command line in surroundings of its own.
    pub(crate) fn run_in(
        &self,
        there: &Simulated,
        lab: &Lab,
        arguments: &str,
        adapt: impl FnOnce(&mut Surroundings),
    ) -> Ran {
        let place = |word: &str| match word.strip_prefix('@') {
            Some(file) => self.path(file).display().to_string(),
            None => word.to_owned(),
        };
        let state = self.path("state").display().to_string();
        let words = ["homelab".to_owned(), "--state".to_owned(), state].into_iter();
        let (mut around, transcript) = Surroundings::captured();
        around.link = Some(there.running.link());
        around.keys = Some(KeySource::Given(self.keys()));
        // Reading the whole test binary would take longer than the rest of the test.
        around.executable = Some("this build".into());
        adapt(&mut around);
        let exit = lab.run_with(words.chain(split(arguments).into_iter().map(place)), around);
        let dir = self.dir.path().display().to_string();
        Ran { exit, out: transcript.out().replace(&dir, "DIR"), err: transcript.err().replace(&dir, "DIR") }
    }
}

/// Splits a command line into words as a shell does, as far as `'` goes.
fn split(arguments: &str) -> Vec<&str> {
    let parts = arguments.split('\'').enumerate();
    let words = parts.flat_map(|(n, part)| if n % 2 == 1 { vec![part] } else { part.split_whitespace().collect() });
    words.collect()
}

fn collect(root: &Path, dir: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            files.insert(path.strip_prefix(root).unwrap().to_owned(), std::fs::read(&path).unwrap());
        }
    }
}
