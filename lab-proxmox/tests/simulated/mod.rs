//! A simulated Proxmox cluster, and programs that run against it over sockets, one `up` or `destroy` at a time.
#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod everything;

use lab_core::execute::disk::{Crash, FaultyDisk};
use lab_core::execute::seal::{Ids, Keys};
use lab_core::execute::{CallFault, Faults, KeySource, Ledger, Options, Report, Store, execute, observe, settle};
use lab_core::plan::{self, Plan, Verb};
use lab_core::{Declared, Id, Link, ProgramError, Secret, Stack, State};
use lab_proxmox::client::Task;
use lab_proxmox::request::Request;
use lab_proxmox::{Client, Proxmox, Trust};
use lab_sim::proxmox::{Cluster, Host, Image, Storage, Token};
use lab_sim::{Rack, Running, gigabytes};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use tokio::runtime::{Builder, Runtime};

pub(crate) const TOKEN: &str = "lab@pve!lab";
pub(crate) const SECRET: &str = "11111111-2222-3333-4444-555555555555";
pub(crate) const IMAGE: &str =
    "https://cloud-images.ubuntu.com/releases/24.04/release-20260101/ubuntu-24.04-server-cloudimg-amd64.img";
pub(crate) const SHA256: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A program, as a test gives it.
pub(crate) type Program = fn(&Stack) -> Result<(), ProgramError>;

/// Three hosts with storages of their own and one that they share.
pub(crate) fn cluster() -> Cluster {
    let host = |n: u8| Host { cores: 16, ..Host::new(&format!("pve{n}"), [10, 0, 0, 10 + n].into()) };
    Cluster {
        hosts: vec![host(1), host(2), host(3)],
        storages: vec![
            Storage::directory("local", gigabytes(100)),
            Storage::zfs("local-zfs", gigabytes(800)),
            Storage::nfs("nas", "10.0.0.5", gigabytes(4000)),
        ],
        downloads: vec![Image::ubuntu("24.04", IMAGE, SHA256)],
        ..Cluster::new("homelab", Token::new(TOKEN, SECRET))
    }
}

/// How a program gets into that cluster.
pub(crate) fn proxmox() -> Proxmox {
    Proxmox {
        cluster: "homelab".into(),
        endpoints: vec!["10.0.0.11".into(), "10.0.0.12".into(), "10.0.0.13".into()],
        token: Secret::new(format!("{TOKEN}={SECRET}")).into(),
        trust: Trust::Authority(cluster().authority()),
    }
}

/// A simulated cluster that is switched on, with a state in memory.
pub(crate) struct Lab {
    pub(crate) running: Running,
    pub(crate) disk: FaultyDisk,
    keys: Keys,
    // After what runs on it.
    runtime: Runtime,
}

impl Lab {
    pub(crate) fn new() -> Lab {
        Lab::of(cluster(), lab_sim::Faults::none())
    }

    pub(crate) fn with(faults: lab_sim::Faults) -> Lab {
        Lab::of(cluster(), faults)
    }

    pub(crate) fn of(cluster: Cluster, faults: lab_sim::Faults) -> Lab {
        Lab::started(cluster, lab_sim::Options { faults, ..lab_sim::Options::default() })
    }

    /// So many simulated seconds pass in a second.
    pub(crate) fn paced(speed: u32) -> Lab {
        Lab::slow(speed, lab_sim::Faults::none())
    }

    /// The same, where something goes wrong.
    pub(crate) fn slow(speed: u32, faults: lab_sim::Faults) -> Lab {
        Lab::started(cluster(), lab_sim::Options { speed, faults, ..lab_sim::Options::default() })
    }

    fn started(cluster: Cluster, options: lab_sim::Options) -> Lab {
        let runtime = runtime();
        let running = runtime.block_on(Rack::new().proxmox(cluster).start(options)).expect("the rack starts");
        Lab { running, disk: FaultyDisk::new(), keys: Keys::throwaway(), runtime }
    }

    /// Runs a verb in a process of its own, as far as the network can tell: what it leaves in flight dies with it.
    pub(crate) fn run(&self, program: Program, verb: Verb, faults: &Arc<Faults>) -> Result<Report, String> {
        let options = Options { faults: faults.clone(), ..Options::default() };
        self.carry_out(program, verb, false, options).map(|(_, report)| report)
    }

    /// Plans, having looked at everything if `refresh`, and carries that out, in a process of its own.
    pub(crate) fn carry_out(
        &self,
        program: Program,
        verb: Verb,
        refresh: bool,
        options: Options,
    ) -> Result<(Plan, Report), String> {
        let process = runtime();
        let carried = process.block_on(async {
            let (plan, declared, ledger, link) = self.plan(program, verb, refresh).await?;
            if !plan.problems.is_empty() {
                return Err(plan.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
            }
            let options = Options { ids: Arc::new(Ids::random()), ..options };
            let report = execute(&plan, declared, ledger.clone(), link, options).await;
            if !report.stopped {
                ledger.close().map_err(|error| error.to_string())?;
            }
            Ok((plan, report))
        });
        process.shutdown_background();
        carried
    }

    /// Looks at everything and brings it to what is declared.
    #[track_caller]
    pub(crate) fn looking(&self, program: Program, verb: Verb) {
        let carried = self.carry_out(program, verb, true, Options::default());
        let (_, report) = carried.unwrap_or_else(|error| panic!("{verb}: {error}"));
        assert!(report.complete(), "{verb} was not complete: {:#?}\n{:?}", report.failed, report.not_started);
    }

    /// Runs a verb undisturbed and to its end.
    #[track_caller]
    pub(crate) fn whole(&self, program: Program, verb: Verb) {
        let report = self.run(program, verb, &Arc::default()).unwrap_or_else(|error| panic!("{verb}: {error}"));
        assert!(report.complete(), "{verb} was not complete: {:#?}\n{:?}", report.failed, report.not_started);
    }

    /// Runs a verb that has to fail, and returns what a person is told.
    #[track_caller]
    pub(crate) fn failures(&self, program: Program, verb: Verb) -> String {
        let report = self.run(program, verb, &Arc::default()).unwrap_or_else(|error| panic!("{verb}: {error}"));
        let said: Vec<String> = report.failed.iter().map(|failure| failure.error.clone()).collect();
        assert!(!said.is_empty(), "nothing failed");
        said.join("\n")
    }

    /// Returns what a plan says; `refresh`: having looked at everything.
    pub(crate) fn planned(&self, program: Program, verb: Verb, refresh: bool) -> Plan {
        runtime().block_on(async { self.plan(program, verb, refresh).await.expect("a plan").0 })
    }

    /// The plan of another `up`, having looked at everything, has nothing to do.
    #[track_caller]
    pub(crate) fn settled(&self, program: Program) {
        let plan = self.planned(program, Verb::Up, true);
        assert!(plan.is_empty(), "the second plan is not empty:\n{}", plan::text(&plan));
    }

    /// Looks at everything and makes the state say what was seen.
    pub(crate) fn refresh(&self, program: Program) {
        runtime().block_on(async {
            let (store, declared, link) = self.load(program).expect("the program loads");
            let ledger = Ledger::new(store, link.clock.clone());
            let seen = observe(declared, &ledger, &link, true).await;
            let events = settle(&seen, &ledger);
            ledger.commit(events).await.expect("the state can be written");
            ledger.close().expect("the state can be written");
        });
    }

    /// Leaves what a crash of the process leaves.
    pub(crate) fn crash(&mut self) {
        self.disk = self.disk.reopen(Crash::Process);
    }

    fn load(&self, program: Program) -> Result<(Store, Arc<Declared>, Link), String> {
        let link = self.running.link();
        let keys = KeySource::Given(self.keys.clone());
        let opened = Store::open(Arc::new(self.disk.clone()), "lab", keys);
        let (store, _) = opened.map_err(|error| error.to_string())?;
        let declared = Stack::load("lab", None, store.vault().clone(), BTreeMap::new(), program);
        Ok((store, Arc::new(declared.map_err(|error| error.to_string())?), link))
    }

    async fn plan(
        &self,
        program: Program,
        verb: Verb,
        refresh: bool,
    ) -> Result<(Plan, Arc<Declared>, Ledger, Link), String> {
        let (store, declared, link) = self.load(program)?;
        let ledger = Ledger::new(store, link.clock.clone());
        let seen = observe(declared.clone(), &ledger, &link, refresh).await;
        let request = plan::Request { verb, targets: Vec::new(), now: link.clock.now(), foreign: Vec::new() };
        let plan = ledger.with(|store| plan::plan(&declared, store.state(), &seen, &request));
        Ok((plan, declared, ledger, link))
    }

    /// Returns the state as it is on the disk.
    pub(crate) fn state(&self) -> State {
        let keys = KeySource::Given(self.keys.clone());
        let (store, _) = Store::open(Arc::new(self.disk.clone()), "lab", keys).expect("the state opens");
        store.state().clone()
    }

    /// Returns the ids of what the state holds.
    pub(crate) fn recorded(&self) -> Vec<String> {
        let state = self.state();
        state.records.values().filter_map(|record| record.id.as_ref().map(|Id(id)| id.clone())).collect()
    }

    /// Does something by hand.
    pub(crate) fn by_hand<T>(&self, work: impl AsyncFnOnce(&Client) -> T) -> T {
        self.runtime.block_on(async {
            let client = Client::new(&proxmox(), self.running.link()).expect("a client");
            work(&client).await
        })
    }

    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Begins a task by hand and waits for its end.
    #[track_caller]
    pub(crate) fn task(&self, request: &Request) {
        self.by_hand(async |client| {
            let upid = client.begin(request).await.unwrap_or_else(|error| panic!("{error}")).expect("a task");
            loop {
                match client.task(&upid).await.unwrap_or_else(|error| panic!("{error}")) {
                    Task::Runs => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
                    Task::Ended => return,
                    other => panic!("{request}: {other:?}"),
                }
            }
        });
    }

    /// Makes the host of this number lose power, for good unless `again`.
    pub(crate) fn power_loss(&self, n: u8, again: bool) {
        let _on_its_clock = self.runtime.enter();
        self.running.power_loss([10, 0, 0, 10 + n].into(), again);
    }

    /// Waits until every host is back and no task is at work.
    pub(crate) fn at_rest(&self) {
        self.by_hand(async |client| {
            loop {
                let tasks = client.send(&Request::get("/cluster/tasks")).await;
                let nodes = client.send(&lab_proxmox::request::nodes()).await;
                let rest = |rows: &Value, rests: fn(&Value) -> bool| {
                    rows.as_array().is_some_and(|rows| rows.iter().all(rests))
                };
                if let (Ok(tasks), Ok(nodes)) = (tasks, nodes)
                    && rest(&tasks, |task| task.get("endtime").is_some())
                    && rest(&nodes, |node| node["status"] == "online")
                {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        });
    }

    /// The cluster as it is.
    pub(crate) fn whole_world(&self) -> Value {
        let _on_its_clock = self.runtime.enter();
        self.running.world()["proxmox"][0].clone()
    }

    /// The cluster as it is, without what is drawn.
    pub(crate) fn world(&self) -> Value {
        let mut world = unmarked(&self.whole_world());
        for machine in world["machines"].as_object_mut().into_iter().flatten() {
            machine.1.as_object_mut().expect("a machine").remove("guest");
        }
        world
    }

    /// Returns a machine as it is.
    pub(crate) fn machine(&self, vmid: u32) -> Value {
        self.world()["machines"][vmid.to_string()].clone()
    }
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Marks are drawn by lot: one is like the other here.
pub(crate) fn steady(text: &str) -> String {
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

fn unmarked(value: &Value) -> Value {
    match value {
        Value::String(text) => json!(steady(text)),
        Value::Array(list) => list.iter().map(unmarked).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), unmarked(value))).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// Returns faults at one call of the engine.
pub(crate) fn at(call: usize, fault: CallFault) -> Arc<Faults> {
    Arc::new(Faults::at(call, fault))
}
