//! The home lab of `examples/homelab.rs` on its simulated rack, over sockets: one `up` or `destroy` at a time.
#![allow(dead_code, reason = "each test file uses its own part")]

use lab::execute::disk::FaultyDisk;
use lab::execute::seal::{Ids, Keys};
use lab::execute::{Faults, KeySource, Ledger, Options, Report, Store, execute, observe};
use lab::plan::{self, Plan, Request, Verb};
use lab::sim::Running;
use lab::{Link, Stack};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::runtime::{Builder, Runtime};

#[path = "../essence/mod.rs"]
pub(crate) mod essence;
#[allow(dead_code, reason = "its `main` is not called here")]
#[path = "../../examples/homelab.rs"]
pub(crate) mod example;

/// The home lab's rack, switched on, with a state in memory. The rack lives on, whatever becomes of a run.
pub(crate) struct HomeLab {
    pub(crate) running: Running,
    pub(crate) disk: FaultyDisk,
    keys: Keys,
    // After what runs on it.
    pub(crate) runtime: Runtime,
}

impl HomeLab {
    pub(crate) fn new(options: lab::sim::Options) -> HomeLab {
        let runtime = runtime();
        let running = runtime.block_on(example::rack().start(options)).expect("the rack starts");
        HomeLab { running, disk: FaultyDisk::new(), keys: Keys::throwaway(), runtime }
    }

    /// Runs a verb in a process of its own, as far as the network can tell: what it leaves in flight dies with it.
    pub(crate) fn run(&self, verb: Verb, faults: &Arc<Faults>) -> Result<Report, String> {
        let process = runtime();
        let report = process.block_on(async {
            let (plan, declared, ledger, link) = self.plan(verb, false).await?;
            if !plan.problems.is_empty() {
                return Err(format!("{:?}", plan.problems));
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

    /// The plan of another `up`, having looked at everything.
    pub(crate) fn second_plan(&self) -> Result<Plan, String> {
        runtime().block_on(async { Ok(self.plan(Verb::Up, true).await?.0) })
    }

    async fn plan(&self, verb: Verb, refresh: bool) -> Result<(Plan, Arc<lab::Declared>, Ledger, Link), String> {
        let link = self.running.link();
        let keys = KeySource::Given(self.keys.clone());
        let opened = Store::open(Arc::new(self.disk.clone()), "homelab", keys);
        let (store, _) = opened.map_err(|error| error.to_string())?;
        let declared = Stack::load("homelab", None, store.vault().clone(), BTreeMap::new(), example::homelab);
        let declared = Arc::new(declared.map_err(|error| error.to_string())?);
        let ledger = Ledger::new(store, link.clock.clone());
        let seen = observe(declared.clone(), &ledger, &link, refresh).await;
        let request = Request { verb, targets: Vec::new(), now: link.clock.now(), foreign: Vec::new() };
        let plan = ledger.with(|store| plan::plan(&declared, store.state(), &seen, &request));
        Ok((plan, declared, ledger, link))
    }

    /// The whole simulated world.
    pub(crate) fn world(&self) -> Value {
        let _on_its_clock = self.runtime.enter();
        self.running.world()
    }

    /// What has to hold after every `up` that was complete: the world, without what differs from run to run.
    pub(crate) fn settled(&self) -> Result<Vec<String>, String> {
        let plan = self.second_plan()?;
        if !plan.is_empty() {
            return Err(format!("the second plan is not empty:\n{}", plan::text(&plan)));
        }
        let world = self.world();
        consistent(&world)?;
        Ok(essence(&world))
    }
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// The world as lines: the machines, the clusters, every Kubernetes object with its spec. Keys, and names and numbers
/// that are drawn, are left out.
pub(crate) fn essence(world: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for (address, machine) in world["machines"].as_object().into_iter().flatten() {
        let mut machine = machine.clone();
        machine["config"] = json!(!machine["config"].is_null());
        lines.push(format!("machine {address}: {machine}"));
    }
    for cluster in world["clusters"].as_array().into_iter().flatten() {
        lines.push(format!("cluster {}: {}, quorum {}", cluster["name"], cluster["members"], cluster["quorum"]));
        lines.extend(essence::objects(cluster));
    }
    lines.sort();
    lines
}

/// What has to hold at every moment: never two clusters, never a member too many or twice.
pub(crate) fn consistent(world: &Value) -> Result<(), String> {
    let clusters = world["clusters"].as_array().map(Vec::as_slice).unwrap_or_default();
    if clusters.len() > 1 {
        return Err(format!("the lab was split into {} clusters", clusters.len()));
    }
    for cluster in clusters {
        let members = cluster["members"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut addresses: Vec<_> = members.iter().map(|member| member["address"].to_string()).collect();
        addresses.sort();
        addresses.dedup();
        if members.len() > 3 || addresses.len() < members.len() {
            return Err(format!("these are not three members of etcd: {}", cluster["members"]));
        }
    }
    Ok(())
}
