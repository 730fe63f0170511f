//! The MicroK8s environment dev of `examples/microk8s.rs` on its simulated rack, over sockets: one `up` or `destroy` at a
//! time.
#![allow(dead_code, reason = "each test file uses its own part")]

use essence::objects;
use lab::execute::disk::FaultyDisk;
use lab::execute::seal::{Ids, Keys};
use lab::execute::{Faults, KeySource, Ledger, Options, Report, Store, execute, observe};
use lab::plan::{self, Plan, Request, Verb};
use lab::sim::Running;
use lab::{Link, Stack};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::runtime::{Builder, Runtime};

#[path = "../essence/mod.rs"]
pub(crate) mod essence;
#[allow(dead_code, reason = "its `main` is not called here")]
#[path = "../../examples/microk8s.rs"]
pub(crate) mod example;

const STACK: &str = "microk8s-dev";
const FILE: &str = "examples/microk8s/dev.toml";

/// The rack, switched on, with a state in memory. The rack lives on, whatever becomes of a run.
pub(crate) struct Dev {
    pub(crate) running: Running,
    pub(crate) disk: FaultyDisk,
    keys: Keys,
    /// What dev's file says.
    pub(crate) text: String,
    // After what runs on it.
    runtime: Runtime,
}

impl Dev {
    pub(crate) fn new(options: lab::sim::Options) -> Dev {
        let runtime = runtime();
        let running = runtime.block_on(example::rack().start(options)).expect("the rack starts");
        let text = std::fs::read_to_string(FILE).expect("dev has a file");
        Dev { running, disk: FaultyDisk::new(), keys: Keys::throwaway(), text, runtime }
    }

    /// Runs a verb in a process of its own, as far as the network can tell: what it leaves in flight dies with it.
    pub(crate) fn run(&self, verb: Verb, faults: &Arc<Faults>) -> Result<Report, String> {
        let process = runtime();
        let report = process.block_on(async {
            let (plan, declared, ledger, link) = self.plan(verb, false).await?;
            if !plan.problems.is_empty() {
                return Err(plan.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
            }
            let options = Options { faults: faults.clone(), ids: Arc::new(Ids::random()), ..Options::default() };
            let report = execute(&plan, declared, ledger.clone(), link, options).await;
            if !report.stopped {
                ledger.close().map_err(|error| error.to_string())?;
            }
            Ok(report)
        });
        process.shutdown_background();
        report
    }

    /// Runs a verb undisturbed and to its end.
    pub(crate) fn run_whole(&self, verb: Verb) -> Result<(), String> {
        let report = self.run(verb, &Arc::default())?;
        let unfinished = format!("{verb} was not complete: {:#?}\n{:?}", report.failed, report.not_started);
        if report.complete() { Ok(()) } else { Err(unfinished) }
    }

    /// Returns the plan of another `up`, having looked at everything.
    pub(crate) fn second_plan(&self) -> Result<Plan, String> {
        runtime().block_on(async { Ok(self.plan(Verb::Up, true).await?.0) })
    }

    async fn plan(&self, verb: Verb, refresh: bool) -> Result<(Plan, Arc<lab::Declared>, Ledger, Link), String> {
        let link = self.running.link();
        let keys = KeySource::Given(self.keys.clone());
        let opened = Store::open(Arc::new(self.disk.clone()), STACK, keys);
        let (store, _) = opened.map_err(|error| error.to_string())?;
        let here = lab::configuration::read(FILE, &self.text);
        let here = here.map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
        let program = |stack: &Stack| example::microk8s(stack, here);
        let declared = Stack::load(STACK, Some("dev"), store.vault().clone(), BTreeMap::new(), program);
        let declared = Arc::new(declared.map_err(|error| error.to_string())?);
        let ledger = Ledger::new(store, link.clock.clone());
        let seen = observe(declared.clone(), &ledger, &link, refresh).await;
        let request = Request { verb, targets: Vec::new(), now: link.clock.now(), foreign: Vec::new() };
        let plan = ledger.with(|store| plan::plan(&declared, store.state(), &seen, &request));
        Ok((plan, declared, ledger, link))
    }

    /// Returns the simulated Proxmox cluster as it is.
    pub(crate) fn world(&self) -> Value {
        let _on_its_clock = self.runtime.enter();
        self.running.world()["proxmox"][0].clone()
    }

    /// What has to hold after every `up` that was complete: the world, without what differs from run to run.
    pub(crate) fn settled(&self) -> Result<Vec<String>, String> {
        let plan = self.second_plan()?;
        if !plan.is_empty() {
            return Err(format!("the second plan is not empty:\n{}", plan::text(&plan)));
        }
        let world = self.world();
        consistent(&world)?;
        Ok(lines(&world))
    }
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// The world as lines: the machines, the volumes, the clusters with every Kubernetes object. What is drawn by lot is left
/// out.
pub(crate) fn lines(world: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for (number, machine) in world["machines"].as_object().into_iter().flatten() {
        lines.push(unmarked(&format!("machine {number}: {machine}")));
    }
    for volume in world["volumes"].as_array().into_iter().flatten() {
        lines.push(unmarked(&format!("volume {} on {}: {}", volume["volume"], volume["node"], volume["size"])));
    }
    for cluster in world["clusters"].as_array().into_iter().flatten() {
        lines.push(format!("cluster: {}, quorum {}, {}", cluster["members"], cluster["quorum"], cluster["addons"]));
        lines.extend(objects(cluster));
    }
    lines.sort();
    lines
}

/// Marks are drawn by lot, and so is the token whose digest is in the names of media: one is like the other here.
fn unmarked(text: &str) -> String {
    let mut plain = String::new();
    let mut run = String::new();
    for c in text.chars().chain(['\0']) {
        if c.is_ascii_hexdigit() && !c.is_ascii_uppercase() {
            run.push(c);
            continue;
        }
        plain.push_str(if run.len() == 32 { "MARK" } else { &run });
        run.clear();
        if c != '\0' {
            plain.push(c);
        }
    }
    plain
}

/// What has to hold at every moment: machines that were declared, nothing asked of a guest that it does not know, and
/// never two clusters of more than one machine.
pub(crate) fn consistent(world: &Value) -> Result<(), String> {
    for (number, machine) in world["machines"].as_object().into_iter().flatten() {
        if !["11001", "11002", "11003"].contains(&number.as_str()) {
            return Err(format!("nobody has declared machine {number}"));
        }
        let unknown = &machine["guest"]["not simulated"];
        if unknown.as_array().is_some_and(|unknown| !unknown.is_empty()) {
            return Err(format!("machine {number} was asked for what is not simulated: {unknown}"));
        }
    }
    let clusters = world["clusters"].as_array().map(Vec::as_slice).unwrap_or_default();
    let sizes = clusters.iter().map(|cluster| cluster["members"].as_array().map_or(0, Vec::len));
    let joined = sizes.filter(|members| *members > 1).count();
    if joined > 1 { Err(format!("the environment was split into {joined} clusters")) } else { Ok(()) }
}
