//! The provider contract, tried on something like Talos: a call that must be made at most once in the life of a
//! cluster, on any one of several machines, and machines that are away while they reboot.

mod contract;

use contract::{Lab, Log, Program, Scenario, Server, World, survives_everything};
use lab_core::execute::CallFault;
use lab_core::plan::Verb;
use lab_core::{
    Claim, Error, Found, Id, Impact, Input, Link, Made, Op, Output, Owner, ProgramError, Provider, Realm, Resource,
    Result, Stack, Step, Types,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const NODES: [&str; 3] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];

// --- The machines.

#[derive(Clone)]
struct Machines {
    nodes: BTreeMap<String, Node>,
}

#[derive(Clone, Default, Debug, PartialEq)]
struct Node {
    /// The cluster whose configuration it has; none in maintenance mode.
    cluster: Option<String>,
    etcd: Etcd,
    /// Ticks for which it does not answer.
    away: Option<u32>,
    dead: bool,
}

#[derive(Clone, Default, Debug, PartialEq)]
enum Etcd {
    #[default]
    None,
    /// It was told to begin, and has to think.
    Starting(u32),
    Member,
}

impl Default for Machines {
    fn default() -> Machines {
        Machines { nodes: NODES.iter().map(|name| ((*name).to_owned(), Node::default())).collect() }
    }
}

impl Machines {
    fn node(&mut self, address: &str) -> Result<&mut Node> {
        match self.nodes.get_mut(address) {
            Some(node) if !node.dead && node.away.is_none() => Ok(node),
            Some(_) | None => Err(Error::unreachable(format!("{address} does not answer"))),
        }
    }

    /// Who has begun an etcd of its own. More than one in a cluster is a split brain that nobody can mend.
    fn founders(&self) -> usize {
        self.nodes.values().filter(|node| matches!(node.etcd, Etcd::Starting(_) | Etcd::Member)).count()
    }
}

impl Server for Machines {
    type Sight = BTreeMap<String, Node>;

    fn tick(&mut self, _: &mut Log) {
        for node in self.nodes.values_mut() {
            node.away = node.away.and_then(|left| left.checked_sub(1));
            if let Etcd::Starting(left) = node.etcd {
                node.etcd = left.checked_sub(1).map_or(Etcd::Member, Etcd::Starting);
            }
        }
    }

    fn sight(&self) -> Self::Sight {
        // A reboot that is not over is over soon: it is the same world.
        self.nodes.iter().map(|(name, node)| (name.clone(), Node { away: None, ..node.clone() })).collect()
    }
}

/// A connection to [`Machines`]: their API, call by call.
struct Api {
    world: Arc<World<Machines>>,
    cluster: String,
}

impl Api {
    /// The cluster a machine is configured for.
    fn belongs(&self, address: &str) -> Result<Option<String>> {
        self.world.ask(|machines| Ok(machines.clone_of(address)?.cluster))
    }

    /// True once the machine is a member of an etcd, as its own member list says.
    fn is_member(&self, address: &str) -> Result<bool> {
        self.world.ask(|machines| Ok(machines.clone_of(address)?.etcd == Etcd::Member))
    }

    fn configure(&self, address: &str) -> Result<()> {
        self.world.call(|machines, log| {
            let node = machines.node(address)?;
            if node.cluster.is_some() {
                return Err(Error::conflict(format!("{address} is not in maintenance mode")));
            }
            log.push(format!("configure {address}"));
            node.cluster = Some(self.cluster.clone());
            node.away = Some(4);
            Ok(())
        })
    }

    fn reset(&self, address: &str) -> Result<()> {
        self.world.call(|machines, log| {
            let node = machines.node(address)?;
            log.push(format!("reset {address}"));
            *node = Node { away: Some(4), ..Node::default() };
            Ok(())
        })
    }

    /// Begins an etcd on a machine. Returns false when it has one already.
    fn bootstrap(&self, address: &str) -> Result<bool> {
        self.world.call(|machines, log| {
            let node = machines.node(address)?;
            if node.cluster.is_none() {
                return Err(Error::again(format!("{address} is in maintenance mode")));
            }
            if node.etcd != Etcd::None {
                return Ok(false);
            }
            node.etcd = Etcd::Starting(6);
            log.push(format!("bootstrap {address}"));
            if machines.founders() > 1 {
                log.push("split".into());
            }
            Ok(true)
        })
    }
}

impl Machines {
    fn clone_of(&self, address: &str) -> Result<Node> {
        match self.nodes.get(address) {
            Some(node) if !node.dead && node.away.is_none() => Ok(node.clone()),
            Some(_) | None => Err(Error::unreachable(format!("{address} does not answer"))),
        }
    }
}

// --- The provider.

/// Machines of one cluster.
#[derive(Clone, Serialize, Deserialize)]
struct Talos {
    cluster: String,
}

impl Provider for Talos {
    const NAME: &'static str = "talos";
    type Client = Api;

    fn realm(&self) -> Realm {
        Realm::Stated(format!("talos {}", self.cluster))
    }

    async fn connect(self, link: Link) -> Result<Api> {
        let world = link.world().ok_or_else(|| Error::invalid("the link does not lead to machines in memory"))?;
        Ok(Api { world, cluster: self.cluster })
    }

    fn types(types: &mut Types<Talos>) {
        types.add::<Machine>();
        types.add::<Bootstrap>();
    }
}

/// A machine with its configuration. Found by its address; it bears no mark, but it says which cluster it belongs to.
#[derive(Clone, Serialize, Deserialize)]
struct Machine {
    address: String,
}

impl Resource<Talos> for Machine {
    const TYPE: &'static str = "talos:machine";
    type Outputs = String;

    fn id(&self) -> Option<Id> {
        Some(self.address.as_str().into())
    }

    fn claims(&self) -> Vec<Claim> {
        vec![Claim::name("address", &self.address)]
    }

    fn removal(&self) -> Impact {
        Impact { destroys: Some(format!("everything on {}", self.address)), ..Impact::default() }
    }

    async fn find(api: &Api, op: &Op<Machine>) -> Result<Found<String>> {
        let Some(machine) = &op.inputs else { return Err(Error::invalid("its inputs can no longer be read")) };
        let done = || Step::Done(Made::new(machine.address.as_str(), machine.address.clone()));
        Ok(match api.belongs(&machine.address)? {
            None => Found::Absent,
            Some(cluster) if cluster == api.cluster => Found::Present(Owner::Unmarkable, done()),
            Some(cluster) => Found::Present(Owner::Other(format!("it belongs to the cluster {cluster}")), done()),
        })
    }

    async fn apply(&self, api: &Api, op: &Op<Machine>) -> Result<Step<String>> {
        if op.cursor.is_none() && !op.exists {
            api.configure(&self.address)?;
            return Ok(Step::next(json!("configured"), "it reboots", Duration::from_secs(1)));
        }
        match api.belongs(&self.address) {
            Ok(_) => Ok(Step::Done(Made::new(self.address.as_str(), self.address.clone()))),
            Err(_) => Ok(Step::next(json!("configured"), "it reboots", Duration::from_secs(1))),
        }
    }

    async fn delete(api: &Api, op: &Op<Machine>) -> Result<Step<()>> {
        let Some(machine) = &op.inputs else { return Err(Error::invalid("its inputs can no longer be read")) };
        if op.cursor.is_none() {
            api.reset(&machine.address)?;
            return Ok(Step::next(json!("reset"), "it is wiped", Duration::from_secs(1)));
        }
        match api.belongs(&machine.address)? {
            None => Ok(Step::gone()),
            Some(cluster) => Err(Error::conflict(format!("{} still belongs to {cluster}", machine.address))),
        }
    }
}

/// The beginning of a cluster's etcd. It happens once, on one machine, which is settled before the first call.
///
/// It is found by asking: while it is being made, only the machine that was settled on; afterwards, any that answers.
#[derive(Clone, Serialize, Deserialize)]
struct Bootstrap {
    machines: Vec<Input<String>>,
}

/// The machine that was settled on.
#[derive(Serialize, Deserialize)]
struct Pinned {
    node: String,
}

impl Pinned {
    fn of<R>(op: &Op<R>) -> Option<Pinned> {
        Pinned::deserialize(op.cursor.as_ref()?).ok()
    }

    fn begun(self) -> Step<String> {
        Step::Done(Made::new(self.node.clone(), self.node))
    }

    fn next(self, why: &str, pause: u64) -> Step<String> {
        Step::next(json!(self), why, Duration::from_secs(pause))
    }
}

impl Resource<Talos> for Bootstrap {
    const TYPE: &'static str = "talos:bootstrap";
    const ONCE: bool = true;
    type Outputs = String;

    async fn find(api: &Api, op: &Op<Bootstrap>) -> Result<Found<String>> {
        if let Some(pinned) = Pinned::of(op) {
            // Nobody else can say whether the call that was lost had its effect.
            return Ok(match api.is_member(&pinned.node)? {
                true => Found::Present(Owner::Unmarkable, pinned.begun()),
                false => Found::Present(Owner::Unmarkable, pinned.next("etcd has not begun", 0)),
            });
        }
        let machines = op.inputs.iter().flat_map(|bootstrap| &bootstrap.machines);
        let mut silent = None;
        for machine in machines.map(Input::get) {
            match api.is_member(machine) {
                Ok(true) => {
                    let made = Made::new(machine.as_str(), machine.clone());
                    return Ok(Found::Present(Owner::Unmarkable, Step::Done(made)));
                }
                Ok(false) => {}
                Err(error) => silent = Some(error),
            }
        }
        silent.map_or(Ok(Found::Absent), Err)
    }

    async fn apply(&self, api: &Api, op: &Op<Bootstrap>) -> Result<Step<String>> {
        let Some(pinned) = Pinned::of(op) else {
            let first = self.machines.first().ok_or_else(|| Error::invalid("there is no machine to begin on"))?;
            return Ok(Pinned { node: first.get().clone() }.next("it is settled where to begin", 0));
        };
        if api.is_member(&pinned.node)? {
            return Ok(pinned.begun());
        }
        // A second time on the same machine does no harm: it says that it has begun already.
        api.bootstrap(&pinned.node)?;
        Ok(pinned.next("etcd begins", 1))
    }

    async fn delete(_: &Api, _: &Op<Bootstrap>) -> Result<Step<()>> {
        Err(Error::invalid("what happened once is forgotten, never deleted"))
    }
}

// --- The programs.

fn cluster(stack: &Stack, order: [usize; 3]) -> Result<(), ProgramError> {
    let talos = stack.provider("metal", Talos { cluster: "homelab".into() });
    let machines: Vec<Output<String>> = order
        .into_iter()
        .map(|n| {
            let machine = Machine { address: NODES[n].into() };
            talos.resource(&format!("cp-{}", n + 1)).add(machine).output(|address| address)
        })
        .collect();
    let machines = machines.into_iter().map(Input::from).collect();
    talos.resource("etcd").add(Bootstrap { machines });
    Ok(())
}

fn ordered(stack: &Stack) -> Result<(), ProgramError> {
    cluster(stack, [0, 1, 2])
}

fn reordered(stack: &Stack) -> Result<(), ProgramError> {
    cluster(stack, [2, 1, 0])
}

/// How many calls `up` makes.
fn calls(program: Program) -> usize {
    let faults = Arc::new(lab_core::execute::Faults::none());
    let trial = lab_core::testing::Trial { faults: faults.clone(), ..Default::default() };
    let lab = Lab::<Machines>::new();
    assert!(lab.bench.attempt(program, Verb::Up, &trial).is_ok_and(|report| report.complete()));
    faults.calls()
}

/// The call that makes the bootstrap happen.
fn bootstrap_call() -> usize {
    let happens = |call: &usize| {
        let lab = Lab::<Machines>::new().killed(ordered, *call, CallFault::StopAfter);
        bootstraps(&lab) == ["bootstrap 10.0.0.1"]
    };
    (0..calls(ordered)).find(happens).unwrap_or_else(|| panic!("no call bootstraps"))
}

fn bootstraps(lab: &Lab<Machines>) -> Vec<String> {
    lab.world.log().into_iter().filter(|line| line.starts_with("bootstrap") || line == "split").collect()
}

// --- What must hold.

#[test]
fn creating_survives_everything() {
    survives_everything::<Machines>(&Scenario { before: None, program: ordered, verb: Verb::Up });
}

#[test]
fn destroying_survives_everything() {
    survives_everything::<Machines>(&Scenario { before: Some(ordered), program: ordered, verb: Verb::Destroy });
}

#[test]
fn it_is_bootstrapped_once_however_often_the_list_is_reordered() {
    for call in 0..calls(ordered) {
        for fault in [CallFault::StopBefore, CallFault::StopAfter] {
            let lab = Lab::<Machines>::new().killed(ordered, call, fault);
            lab.bench.up_whole(reordered);
            let begun = bootstraps(&lab);
            assert_eq!(begun.len(), 1, "{fault:?} at {call}: {begun:?}");
            assert!(lab.bench.preview(reordered).is_empty(), "{fault:?} at {call}");
            assert!(lab.bench.preview(ordered).is_empty(), "a list in another order is the same cluster");
        }
    }
}

#[test]
fn a_bootstrap_whose_reply_was_lost_is_asked_for_where_it_was_made() {
    let lab = Lab::<Machines>::new().killed(ordered, bootstrap_call(), CallFault::StopAfter);
    lab.bench.up_whole(reordered);
    assert_eq!(bootstraps(&lab), ["bootstrap 10.0.0.1"]);
}

#[test]
fn only_the_machine_that_was_settled_on_is_asked_whether_it_has_begun() {
    // Another one that is silent says nothing about it. The cursor is all that tells which one to ask.
    for fault in [CallFault::StopBefore, CallFault::StopAfter] {
        let lab = Lab::<Machines>::new().killed(ordered, bootstrap_call(), fault);
        lab.world.change(|machines| machines.nodes.get_mut(NODES[1]).map(|node| node.dead = true));
        lab.bench.up_whole(reordered);
        assert_eq!(bootstraps(&lab), ["bootstrap 10.0.0.1"], "{fault:?}");
    }
}

#[test]
fn a_machine_that_died_after_it_was_settled_on_is_never_replaced_by_another() {
    for fault in [CallFault::StopBefore, CallFault::StopAfter] {
        let lab = Lab::<Machines>::new().killed(ordered, bootstrap_call(), fault);
        lab.world.change(|machines| machines.nodes.get_mut(NODES[0]).map(|node| node.dead = true));
        let before = lab.world.log();
        // The bootstrap is what fails, not the machines, which are done.
        for program in [reordered, ordered] {
            let said = lab.failures(program, Verb::Up);
            insta::allow_duplicates! {
                insta::assert_snapshot!(said, @"continue lab::metal::::talos:bootstrap::etcd: 10.0.0.1 does not answer (tried for 600 s) [check that it is switched on and reachable; nothing is taken to be gone because of this]");
            }
        }
        assert_eq!(lab.world.log(), before, "nothing was done anywhere");
        let open: Vec<_> =
            lab.bench.state().open().map(|(urn, _, open)| (urn.name().to_owned(), open.cursor.clone())).collect();
        assert_eq!(open, [("etcd".to_owned(), Some(json!({ "node": NODES[0] })))], "it still says where it began");
        lab.world.change(|machines| machines.nodes.get_mut(NODES[0]).map(|node| node.dead = false));
        lab.bench.up_whole(ordered);
        assert_eq!(bootstraps(&lab), ["bootstrap 10.0.0.1"]);
    }
}

#[test]
fn a_machine_that_is_silent_keeps_the_first_bootstrap_from_being_made() {
    // Nobody can say whether the one that is silent has begun an etcd of its own.
    let lab = Lab::<Machines>::new().killed(ordered, bootstrap_call() - 2, CallFault::StopBefore);
    assert!(lab.bench.state().open().all(|(urn, _, open)| urn.name() != "etcd" || open.cursor.is_none()));
    lab.world.change(|machines| machines.nodes.get_mut(NODES[1]).map(|node| node.dead = true));
    assert!(!lab.run(ordered, Verb::Up).complete());
    assert_eq!(bootstraps(&lab), [""; 0]);
}

#[test]
fn a_machine_of_another_cluster_is_not_touched() {
    let lab = Lab::<Machines>::new();
    let taken =
        |machines: &mut Machines| machines.nodes.get_mut(NODES[1]).map(|node| node.cluster = Some("school".into()));
    lab.world.change(taken);
    insta::assert_snapshot!(lab.failures(ordered, Verb::Up), @"create lab::metal::::talos:machine::cp-2: talos:machine 10.0.0.2 exists already and is not ours: it belongs to the cluster school; it was not touched [take it over with `import cp-2 10.0.0.2`, give ours another name, or remove the other one by hand]");
    let touched: BTreeSet<_> = lab.world.log().into_iter().filter(|line| line.contains(NODES[1])).collect();
    assert_eq!(touched, BTreeSet::new());
    assert_eq!(bootstraps(&lab), [""; 0], "what needs all machines is not begun with two");
}
