//! Kill anywhere, run again: every journal write and every provider call of an `up` as a crash point: of the home lab's,
//! and of a MicroK8s environment's.
//!
//! In memory, half of the first and a sixth of the second; all of them with `LAB_TEST_POINTS=all`. The program of
//! `examples/homelab.rs` or `examples/microk8s.rs` is loaded, and every resource of it becomes a thing in memory: in the
//! same component of the same provider, with the same edges, inside the same container. What the real providers do with a
//! crash is tried over sockets (`sockets.rs`, `kill.rs`, `microk8s_sockets.rs`); here it is the shape of the lab that
//! counts, and that nothing is left out.

use lab::execute::disk::{Crash, Fault, Verb as DiskVerb};
use lab::execute::{CallFault, Faults, Report};
use lab::plan::{Graph, Verb};
use lab::testing::{Bench, Memory, Ping, Search, Thing, ThingOutputs, Trial};
use lab::{Component, EdgeKind, Handle, NodeKind, Output, ProgramError, Scope, Secret, Stack, Urn, join, redact};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

#[allow(dead_code, reason = "its `main` is not called here")]
#[path = "../examples/homelab.rs"]
mod example;
#[allow(dead_code, reason = "its `main` is not called here")]
#[path = "../examples/microk8s.rs"]
mod microk8s;

/// The shape of a program: what it declares, without what that is.
struct Shape {
    lines: Vec<Line>,
    /// The container of each provider, and what else its configuration needs.
    providers: BTreeMap<String, Option<(Urn, Vec<Urn>)>>,
    groups: BTreeMap<String, usize>,
}

/// One resource or read of a [`Shape`].
struct Line {
    urn: Urn,
    /// What it needs, and in which way; what its provider needs is not repeated.
    edges: Vec<(Urn, EdgeKind)>,
    group: Option<String>,
    read: bool,
    token: bool,
    secret: bool,
    lock: bool,
    unmarkable: bool,
    calls: u32,
}

impl Shape {
    fn of<T: serde::Serialize>(bench: &Bench, program: impl Fn(&Stack) -> Result<T, ProgramError>) -> Shape {
        let declared = bench.load(program);
        assert!(declared.problems.is_empty(), "{:?}", declared.problems);
        let graph = Graph::new(&declared);
        assert!(graph.problems.is_empty(), "{:?}", graph.problems);
        let mut providers = BTreeMap::new();
        for name in declared.providers.keys() {
            // Every node of a provider has its provider's edges; what all of them have is what the provider needs.
            let all = declared.nodes.iter().zip(&graph.edges).filter(|(node, _)| node.provider.as_str() == name);
            let common = all.map(|(_, edges)| edges.iter().cloned().collect::<BTreeSet<_>>());
            let common = common.reduce(|all, one| all.intersection(&one).cloned().collect()).unwrap_or_default();
            let container = common.iter().find(|edge| edge.kind == EdgeKind::Container).map(|edge| edge.to.clone());
            let needs = common.into_iter().filter(|edge| edge.kind == EdgeKind::Value).map(|edge| edge.to);
            providers.insert(name.clone(), container.map(|container| (container, needs.collect::<Vec<_>>())));
        }
        let lines = graph.order.iter().enumerate().map(|(n, position)| {
            let node = &declared.nodes[*position];
            let from_provider: Vec<&Urn> = match &providers[node.provider.as_str()] {
                Some((container, needs)) => needs.iter().chain([container]).collect(),
                None => Vec::new(),
            };
            let edges = graph.edges[*position].iter().filter(|edge| !from_provider.contains(&&edge.to));
            let kind = node.resource();
            let locks = kind.map(|kind| kind.locks(&node.inputs, &declared.vault).unwrap_or_default());
            Line {
                urn: node.urn.clone(),
                edges: edges.map(|edge| (edge.to.clone(), edge.kind)).collect(),
                group: node.options.rolling.clone(),
                read: matches!(node.kind, NodeKind::Read(_)),
                token: kind.is_some_and(|kind| !kind.initial().is_empty()),
                secret: redact(&node.inputs.value()).to_string().contains("[secret]"),
                lock: locks.is_some_and(|locks| !locks.is_empty()),
                // A machine bears no mark; it is known by what was seen there.
                unmarkable: node.type_name().starts_with("talos:"),
                calls: 1 + u32::from(n % 4 == 0),
            }
        });
        let lines = lines.collect();
        let groups = declared.groups.values().map(|group| (group.name.clone(), group.at_most)).collect();
        Shape { lines, providers, groups }
    }

    /// Declares the same with things in memory.
    fn declare(&self, stack: &Stack) -> Result<Vec<Output<String>>, ProgramError> {
        let groups: BTreeMap<&str, _> =
            self.groups.iter().map(|(name, at_most)| (name.as_str(), stack.rolling(name, *at_most))).collect();
        let mut handles: BTreeMap<&Urn, Handle<ThingOutputs>> = BTreeMap::new();
        let mut reads: BTreeMap<&Urn, Handle<String>> = BTreeMap::new();
        let mut scopes: BTreeMap<&str, Scope<'_, Memory>> = BTreeMap::new();
        let mut returned = Vec::new();
        for line in &self.lines {
            let provider = line.urn.provider();
            let scope = scopes.entry(provider).or_insert_with(|| {
                let memory = match &self.providers[provider] {
                    None => Memory::at(provider),
                    Some((container, needs)) => {
                        let memory = Memory::inside(&handles[container]);
                        let key = needs.iter().find(|urn| *urn != container).unwrap_or(container);
                        memory.key(handles[key].output(|thing| thing.key))
                    }
                };
                stack.provider(provider, memory)
            });
            let name = format!("{}.{}", line.urn.name(), line.urn.kind());
            let known_as = format!("{}.{name}", line.urn.path().replace('/', "."));
            if line.read {
                // What has nothing before it asks for the first thing in the same place.
                let mut others = self.lines.iter().filter(|other| !other.read && other.urn.provider() == provider);
                let of = line.edges.first().map(|(urn, _)| urn).or_else(|| others.next().map(|other| &other.urn));
                let of = of.map_or(known_as, thing_name);
                reads.insert(&line.urn, scope.read(&name, Ping { name: of, expect: None }));
                continue;
            }
            let needed: Vec<&Handle<ThingOutputs>> =
                line.edges.iter().filter(|(_, kind)| *kind == EdgeKind::Value).map(|(urn, _)| &handles[urn]).collect();
            let text = needed.iter().fold(Output::known(known_as.clone()), |text, handle| {
                join(&text, &handle.output(|thing| thing.name)).map(|(text, name)| format!("{text} {}", name.len()))
            });
            let secret = match needed.first() {
                Some(handle) => handle.output(|thing| thing.key).into(),
                None => Secret::new(format!("secret of {known_as}")).into(),
            };
            let thing = Thing {
                secret: line.secret.then_some(secret),
                token: line.token.then(|| Secret::new(format!("token of {known_as}"))),
                lock: line.lock.then(|| "the lock".into()),
                unmarkable: line.unmarkable,
                calls: line.calls,
                ..Thing::new(&known_as, text)
            };
            let path = line.urn.path();
            let path: Vec<&str> = if path.is_empty() { Vec::new() } else { path.split('/').collect() };
            let after = line.edges.iter().filter(|(_, kind)| *kind != EdgeKind::Value);
            let inside = Inside {
                path: &path,
                declare: &|scope: &Scope<'_, Memory>| {
                    let mut declare = scope.resource(&name);
                    for (urn, kind) in after.clone() {
                        declare = match kind {
                            EdgeKind::Created => declare.after_created(&handles[urn]),
                            EdgeKind::After | EdgeKind::Container | EdgeKind::Value => match reads.get(urn) {
                                Some(read) => declare.depends_on(read),
                                None => declare.depends_on(&handles[urn]),
                            },
                        };
                    }
                    if let Some(group) = &line.group {
                        declare = declare.rolling(&groups[group.as_str()]);
                    }
                    declare.add(thing.clone())
                },
            };
            let handle = inside.declare(scope);
            returned.push(handle.output(|thing| thing.text));
            handles.insert(&line.urn, handle);
        }
        Ok(returned)
    }
}

fn thing_name(urn: &Urn) -> String {
    format!("{}.{}.{}", urn.path().replace('/', "."), urn.name(), urn.kind())
}

/// A resource at a component path.
struct Inside<'a> {
    path: &'a [&'a str],
    declare: &'a dyn Fn(&Scope<'_, Memory>) -> Handle<ThingOutputs>,
}

impl Component<Memory> for Inside<'_> {
    type Handle = Handle<ThingOutputs>;

    fn declare(self, scope: &Scope<'_, Memory>) -> Handle<ThingOutputs> {
        match self.path.split_first() {
            Some((first, path)) => scope.component(first).add(Inside { path, ..self }),
            None => (self.declare)(scope),
        }
    }
}

/// How an `up` is disturbed.
#[derive(Clone, Copy, Debug)]
enum Disturbance {
    Call(usize, CallFault),
    Disk(usize, Fault, Crash),
}

/// What is there after an `up`, without what differs from run to run: numbers and marks.
#[derive(Debug, PartialEq)]
struct World {
    things: Vec<String>,
    /// What was made and deleted, how often each.
    deeds: Vec<String>,
}

/// How every secret of these programs begins.
static SECRETS: LazyLock<Search> = LazyLock::new(|| {
    let mut search = Search::of([("a secret", "secret of "), ("a token", "token of ")]);
    ('a'..='z').chain(['.']).for_each(|first| assert!(search.add("a key", format!("key-of-{first}"))));
    search
});

/// Runs `up`. However that ends, no secret is left or said in clear: every fifth is searched, which takes as long as it.
fn up(bench: &Bench, shape: &Shape, trial: &Trial) -> Result<Report, String> {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let before = bench.disk().everything();
    let report = bench.attempt(|stack| shape.declare(stack), Verb::Up, trial);
    if !RUNS.fetch_add(1, Ordering::Relaxed).is_multiple_of(5) {
        return report;
    }
    SECRETS.clean("a report", format!("{report:?}"));
    bench
        .disk()
        .everything()
        .iter()
        .filter(|file| !before.contains(file))
        .for_each(|file| SECRETS.clean("a file", file));
    for event in trial.heard.lock().expect("nobody panicked").iter() {
        SECRETS.clean("an event", format!("{event:?}"));
    }
    report
}

/// The world after an `up` that was complete, having checked what has to hold after every one.
fn settled(bench: &Bench, shape: &Shape) -> Result<World, String> {
    let state = bench.state();
    let open: Vec<_> = state.open().map(|(urn, ..)| urn.short()).collect();
    let items = bench.world().items();
    let known = |name: &str, mark: &Option<String>| {
        state.records.values().any(|record| {
            record.id.as_ref().is_some_and(|id| id.0 == name) && mark.as_ref().is_none_or(|mark| *mark == record.mark.0)
        })
    };
    let orphans: Vec<_> = items.iter().filter(|(_, name, item)| !known(name, &item.mark)).collect();
    if !open.is_empty() || !state.condemned.is_empty() {
        return Err(format!("still open: {open:?}, condemned: {:?}", state.condemned.keys()));
    }
    if !orphans.is_empty() || items.len() != state.records.len() {
        return Err(format!("{} things, {} records; nobody's: {orphans:#?}", items.len(), state.records.len()));
    }
    let again = bench.plan(|stack| shape.declare(stack), Verb::Up, &Default::default(), &[]);
    if !again.is_empty() {
        return Err(format!("the second plan is not empty:\n{}", lab::plan::text(&again)));
    }
    let log = bench.world().log();
    let mut deeds: Vec<_> =
        log.iter().filter(|deed| !deed.starts_with("update")).map(|deed| unnumbered(deed)).collect();
    deeds.sort();
    Ok(World { things: things(bench), deeds })
}

/// Everything there is, without numbers and marks.
fn things(bench: &Bench) -> Vec<String> {
    let items = bench.world().items();
    let things = items.iter().map(|(place, name, item)| {
        let (secret, ready) = (!item.value["secret"].is_null(), item.unfinished == 0 && item.leaving.is_none());
        format!("{}/{name}: {} secret {secret} ready {ready}", unnumbered(place), item.value["text"])
    });
    things.collect()
}

/// A path without the numbers of the containers on the way.
fn unnumbered(path: &str) -> String {
    path.split('/').map(|part| part.split('#').next().unwrap_or(part)).collect::<Vec<_>>().join("/")
}

/// Every way to disturb an `up` from nothing, and the world that the undisturbed one leaves.
fn undisturbed(shape: &Shape) -> (Vec<Disturbance>, usize, usize, World) {
    let bench = Bench::new();
    let faults = Arc::new(Faults::none());
    let report = up(&bench, shape, &Trial { faults: faults.clone(), ..Trial::default() }).expect("undisturbed");
    assert!(report.complete(), "undisturbed: {report:#?}");
    let operations = bench.disk().operations();
    let world = settled(&bench, shape).expect("undisturbed");
    let mut all = Vec::new();
    for n in 0..faults.calls() {
        all.extend(
            [CallFault::StopBefore, CallFault::StopAfter, CallFault::LoseReply]
                .map(|fault| Disturbance::Call(n, fault)),
        );
    }
    let mut writes = 0;
    for (n, operation) in operations.iter().enumerate() {
        match operation.verb {
            DiskVerb::Write => {
                writes += 1;
                let within = [1, operation.bytes / 2, operation.bytes.saturating_sub(1)][n / 2 % 3];
                let crash = [Crash::Process, Crash::Power, Crash::PowerPartly(n as u64)][n / 2 % 3];
                all.push(Disturbance::Disk(n, Fault::StopBefore, crash));
                all.push(Disturbance::Disk(n, Fault::StopWithin(within), Crash::Process));
                all.push(Disturbance::Disk(n, Fault::StopAfter, Crash::PowerPartly(n as u64)));
            }
            DiskVerb::Flush | DiskVerb::Create | DiskVerb::Link | DiskVerb::Rename | DiskVerb::SyncDir => {
                all.push(Disturbance::Disk(n, Fault::StopAfter, Crash::Power));
            }
            DiskVerb::Read | DiskVerb::List | DiskVerb::Remove => {}
        }
    }
    (all, faults.calls(), writes, world)
}

impl Disturbance {
    /// Runs `up` from nothing, disturbed, then once more; returns what is there. Counts in `halfway` when the first
    /// one left another world.
    fn check(self, shape: &Shape, expected: &World, halfway: &AtomicUsize) -> Result<World, String> {
        let bench = Bench::new();
        let bench = match self {
            Disturbance::Call(n, fault) => {
                let trial = Trial { faults: Arc::new(Faults::at(n, fault)), ..Trial::default() };
                let report = up(&bench, shape, &trial)?;
                match fault {
                    CallFault::StopBefore | CallFault::StopAfter if !report.stopped => {
                        return Err("the crash point was not reached".into());
                    }
                    // Losing a reply is not even noticed by the user.
                    CallFault::LoseReply if !report.complete() => return Err(format!("{report:#?}")),
                    CallFault::LoseReply => return settled(&bench, shape),
                    _ => bench.crashed(Crash::Process),
                }
            }
            Disturbance::Disk(n, fault, crash) => {
                bench.disk().inject(n, fault);
                // How it ended is what the next run has to cope with.
                let _ = up(&bench, shape, &Trial::default());
                if !bench.disk().stopped() {
                    return Err("the crash point was not reached".into());
                }
                bench.crashed(crash)
            }
        };
        halfway.fetch_add(usize::from(things(&bench) != expected.things), Ordering::SeqCst);
        let report = up(&bench, shape, &Trial::default())?;
        if !report.complete() {
            return Err(format!("the next run was not complete: {:#?}\n{:#?}", report.failed, report.not_started));
        }
        settled(&bench, shape)
    }
}

#[test]
fn the_home_lab_goes_on_wherever_its_up_stopped() {
    let (calls, writes) = goes_on(&Shape::of(&Bench::new().named("homelab"), example::homelab), one_in(2));
    assert!(calls > 200 && writes > 40, "the home lab has become small: {calls} calls, {writes} writes");
}

#[test]
fn a_microk8s_environment_goes_on_wherever_its_up_stopped() {
    let here = || lab::configuration::read("dev.toml", include_str!("../examples/microk8s/dev.toml"));
    let program = |stack: &Stack| microk8s::microk8s(stack, here().expect("dev's file is sound"));
    // Of a second lab fewer are enough to see that its shape is not the first one that fails.
    let (calls, writes) = goes_on(&Shape::of(&Bench::new().named("microk8s").env("dev"), program), one_in(6));
    assert!(calls > 100 && writes > 20, "the environment has become small: {calls} calls, {writes} writes");
}

/// One point in how many is tried: so many, unless all are asked for.
fn one_in(usual: usize) -> usize {
    if std::env::var("LAB_TEST_POINTS").is_ok_and(|points| points == "all") { 1 } else { usual }
}

/// Stops an `up` at one in `each` of all points and runs it once more. Returns how many calls and journal writes there
/// are.
fn goes_on(shape: &Shape, each: usize) -> (usize, usize) {
    let (points, calls, writes, expected) = undisturbed(shape);
    // Three ways for each call follow each other: another one at each.
    let points: Vec<Disturbance> =
        points.into_iter().enumerate().filter(|(n, _)| (n + n / 3) % each == 0).map(|(_, point)| point).collect();
    println!(
        "{} resources, {} edges; {calls} provider calls, {writes} journal writes: {} crash points",
        shape.lines.len(),
        shape.lines.iter().map(|line| line.edges.len()).sum::<usize>(),
        points.len()
    );
    let (next, halfway) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let failed: Vec<String> = std::thread::scope(|scope| {
        let work = || {
            let mut failed = Vec::new();
            while let Some(point) = points.get(next.fetch_add(1, Ordering::SeqCst)) {
                match point.check(shape, &expected, &halfway) {
                    Ok(world) if world == expected => {}
                    Ok(world) => failed.push(format!("{point:?}: {}", differences(&expected, &world))),
                    Err(why) => failed.push(format!("{point:?}: {why}")),
                }
            }
            failed
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a crash point panicked")).collect()
    });
    assert!(
        failed.is_empty(),
        "{} of {} crash points:\n{}",
        failed.len(),
        points.len(),
        failed[..failed.len().min(5)].join("\n")
    );
    // A comparison that sees no difference halfway would see none anywhere.
    let halfway = halfway.into_inner();
    assert!(halfway > points.len() / 3, "only {halfway} of {} crash points left another world", points.len());
    (calls, writes)
}

fn differences(expected: &World, found: &World) -> String {
    let missing = |a: &[String], b: &[String]| a.iter().filter(|line| !b.contains(line)).cloned().collect::<Vec<_>>();
    format!(
        "missing {:?}, too much {:?}; {} deeds instead of {}",
        missing(&expected.things, &found.things),
        missing(&found.things, &expected.things),
        found.deeds.len(),
        expected.deeds.len()
    )
}
