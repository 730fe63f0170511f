//! As many resources as a file says: `cargo run --release --example scale -- graph.json --state DIR up --yes`
//!
//! The file is a JSON list: `[{"k": 0, "name": "n0", "inputs": {...}, "deps": []}, {"k": 1, "name": "n1", "inputs":
//! {...}, "deps": [0]}, ...]`. Each entry becomes a resource that only echoes its inputs, whatever they are, and reads
//! the `name` output of each entry whose `k` stands in its `deps`. The entries may come in any order.

use lab::prelude::*;
use lab::{Change, Error, Found, Handle, Impact, Link, Made, Op, Path, Provider, Realm, Resource, Step, Tree, Types};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;

/// A hundred thousand resources are some ten million pieces of memory; the system's own way with them is half of the time.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The deepest nesting of `inputs`. The state is JSON itself, and adds a few levels around them.
const DEEPEST: usize = 64;
/// How much of a circle is shown.
const SHOWN: usize = 8;

/// Where nothing is outside: what is declared here exists in the state alone.
#[derive(Clone, Serialize, Deserialize)]
struct Nowhere;

impl Provider for Nowhere {
    const NAME: &'static str = "nowhere";
    type Client = ();
    fn realm(&self) -> Realm {
        Realm::Stated("nowhere".into())
    }
    async fn connect(self, _: Link) -> lab::Result<()> {
        Ok(())
    }
    fn types(types: &mut Types<Nowhere>) {
        types.add::<Echo>();
    }
}

/// A resource that yields what it was given.
#[derive(Clone, Serialize, Deserialize)]
struct Echo {
    name: String,
    #[serde(default, skip_serializing_if = "Tree::is_null")]
    inputs: Tree,
    /// The `name` outputs of what it depends on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    deps: Vec<Input<String>>,
}

/// What an [`Echo`] yields.
#[derive(Clone, Serialize, Deserialize)]
struct Echoed {
    name: String,
    #[serde(default, skip_serializing_if = "Tree::is_null")]
    inputs: Tree,
}

impl Resource<Nowhere> for Echo {
    const TYPE: &'static str = "scale:echo";
    const GENERATED: bool = true;
    type Outputs = Echoed;
    fn change(&self, prior: &Echo, _: Option<&Value>) -> Change {
        // Whoever reads only the name is not touched by other inputs.
        let unknown = if self.inputs == prior.inputs { vec![] } else { vec![Path::from("/inputs")] };
        Change::Update(Impact { unknown, ..Impact::default() })
    }
    async fn find(_: &(), _: &Op<Echo>) -> lab::Result<Found<Echoed>> {
        Err(Error::invalid("what exists in the state alone cannot be looked for"))
    }
    async fn apply(&self, _: &(), _: &Op<Echo>) -> lab::Result<Step<Echoed>> {
        let outputs = Echoed { name: self.name.clone(), inputs: self.inputs.clone() };
        Ok(Step::Done(Made::new(self.name.clone(), outputs)))
    }
    async fn delete(_: &(), _: &Op<Echo>) -> lab::Result<Step<()>> {
        Ok(Step::gone())
    }
}

/// An entry of the file.
#[derive(Deserialize)]
struct Entry {
    k: u64,
    name: String,
    /// As text: a hundred thousand trees would take more memory than all that is made of them.
    #[serde(default)]
    inputs: Tree,
    #[serde(default)]
    deps: Vec<u64>,
}

/// Returns the entries of a file, each behind what it depends on.
fn read(file: &OsStr) -> Result<Vec<Entry>, ProgramError> {
    let shown = file.display();
    let text = std::fs::read(file).map_err(|error| ProgramError::new(format!("failed to read {shown}: {error}")))?;
    let entries = serde_json::from_slice(&text);
    let entries = entries.map_err(|error| ProgramError::new(format!("{shown} is not a graph: {error}")))?;
    sorted(entries).map_err(|problem| ProgramError::new(format!("{shown} is not a graph: {problem}")))
}

/// Sorts entries so that each comes after what it depends on, in the order of the file among equals (Kahn's algorithm:
/// it does not recurse, so a chain may be as long as the file).
fn sorted(entries: Vec<Entry>) -> Result<Vec<Entry>, String> {
    let mut positions = BTreeMap::new();
    let mut names = HashMap::new();
    let who = |n: usize| format!("entry {n} (k {}, {:?})", entries[n].k, entries[n].name);
    for (n, entry) in entries.iter().enumerate() {
        lab::Urn::valid_part(&entry.name).map_err(|why| format!("{}: {why}", who(n)))?;
        if depth(entry.inputs.text()) > DEEPEST {
            return Err(format!("{}: its inputs are nested deeper than {DEEPEST} levels", who(n)));
        }
        if let Some(before) = positions.insert(entry.k, n) {
            return Err(format!("{} has the same k as {}", who(n), who(before)));
        }
        if let Some(before) = names.insert(entry.name.as_str(), n) {
            return Err(format!("{} has the same name as {}", who(n), who(before)));
        }
    }
    let mut in_order = true;
    for (n, entry) in entries.iter().enumerate() {
        for k in &entry.deps {
            let needed = positions.get(k).ok_or_else(|| format!("{} depends on k {k}, which no entry has", who(n)))?;
            in_order &= *needed < n;
        }
    }
    if in_order {
        drop((positions, names));
        return Ok(entries);
    }
    let mut waiting = vec![0; entries.len()];
    let mut waiters = vec![Vec::new(); entries.len()];
    for (n, entry) in entries.iter().enumerate() {
        waiting[n] = entry.deps.len();
        entry.deps.iter().for_each(|k| waiters[positions[k]].push(n));
    }
    let mut ready: std::collections::BTreeSet<usize> = (0..entries.len()).filter(|n| waiting[*n] == 0).collect();
    let mut order = Vec::with_capacity(entries.len());
    while let Some(n) = ready.pop_first() {
        order.push(n);
        for waiter in &waiters[n] {
            waiting[*waiter] -= 1;
            if waiting[*waiter] == 0 {
                ready.insert(*waiter);
            }
        }
    }
    if let Some(stuck) = waiting.iter().position(|waiting| *waiting > 0) {
        let circle = circle(&entries, &positions, &waiting, stuck);
        let more = if circle.len() > SHOWN { format!(" needs ... ({} in all)", circle.len() - 1) } else { "".into() };
        let shown: Vec<String> = circle.into_iter().take(SHOWN).map(who).collect();
        return Err(format!("these depend on each other in a circle: {}{more}", shown.join(" needs ")));
    }
    let mut slots: Vec<Option<Entry>> = entries.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|n| slots[n].take()).collect())
}

/// Returns a circle as a path that comes back to where it began. `stuck` waits for something that waits itself, and so on
/// for ever: wherever that leads, it comes back.
fn circle(entries: &[Entry], positions: &BTreeMap<u64, usize>, waiting: &[usize], stuck: usize) -> Vec<usize> {
    let mut path = Vec::new();
    let mut passed = BTreeMap::new();
    let mut at = stuck;
    while !passed.contains_key(&at) {
        passed.insert(at, path.len());
        path.push(at);
        let needed = entries[at].deps.iter().map(|k| positions[k]);
        at = needed.into_iter().find(|needed| waiting[*needed] > 0).unwrap_or(at);
    }
    path.drain(..passed[&at]);
    path.push(at);
    path
}

/// Returns how deep the lists and maps of a JSON text are nested.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut within, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            b'"' if !escaped => within = !within,
            b'{' | b'[' if !within => depth += 1,
            b'}' | b']' if !within => depth -= 1,
            _ => {}
        }
        deepest = deepest.max(depth);
        escaped = byte == b'\\' && !escaped;
    }
    deepest
}

/// Returns the lab that a graph file declares.
pub(crate) fn lab() -> Lab {
    let graph = ("GRAPH", "Graph: a JSON list of `{\"k\": 1, \"name\": \"n1\", \"inputs\": {...}, \"deps\": [0]}`");
    Lab::with_argument("scale", graph, |stack: &Stack, file: &OsStr| {
        let nowhere = stack.provider("nowhere", Nowhere);
        let mut declared: BTreeMap<u64, Handle<Echoed>> = BTreeMap::new();
        for Entry { k, name, inputs, deps } in read(file)? {
            let deps = deps.iter().map(|k| declared[k].output(|other| other.name).into()).collect();
            let handle = nowhere.resource(&name).add(Echo { name: name.clone(), inputs, deps });
            declared.insert(k, handle);
        }
        Ok(())
    })
}

#[allow(dead_code, reason = "a test uses this file as a module")]
fn main() -> ExitCode {
    lab().run()
}
