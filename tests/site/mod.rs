//! A lab on its simulated rack, over sockets, with a state in memory: one `up` or `destroy` at a time.

use super::essence::at_rest;
use lab::execute::disk::{Crash, FaultyDisk};
use lab::execute::seal::{Ids, Keys};
use lab::execute::{Faults, KeySource, Ledger, Options, Progress, Report, Store, execute, observe};
use lab::plan::{self, Plan, Request, Verb};
use lab::sim::{self, Rack, Running};
use lab::testing::Search;
use lab::{Declared, Link, Vault};
use serde_json::Value;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::runtime::{Builder, Runtime};

/// What is built on a rack.
pub(crate) trait Program {
    /// What its stack is called.
    const STACK: &'static str;
    /// The rack.
    fn rack() -> Rack;
    /// Declares it, with the secrets of its state.
    fn declare(secrets: Vault) -> Result<Declared, String>;
    /// The part of the simulated world that it is about.
    fn part(world: Value) -> Value;
    /// What has to hold in that part at every moment.
    fn consistent(world: &Value) -> Result<(), String>;
    /// That part as lines, without what differs from run to run.
    fn lines(world: &Value) -> Vec<String>;
}

/// The rack of a program, switched on. It lives on, whatever becomes of a run.
pub(crate) struct Site<P> {
    pub(crate) running: Running,
    pub(crate) disk: FaultyDisk,
    keys: Keys,
    // After what runs on it.
    pub(crate) runtime: Runtime,
    program: PhantomData<P>,
}

impl<P: Program> Site<P> {
    pub(crate) fn new(options: sim::Options) -> Site<P> {
        let runtime = runtime();
        let running = runtime.block_on(P::rack().start(options)).expect("the rack starts");
        Site { running, disk: FaultyDisk::new(), keys: Keys::throwaway(), runtime, program: PhantomData }
    }

    /// Runs a verb in a process of its own, as far as the network can tell: what it leaves in flight dies with it. However
    /// that ends, no secret of it is left or said in clear.
    pub(crate) fn run(&self, verb: Verb, faults: &Arc<Faults>) -> Result<Report, String> {
        let process = runtime();
        let said = Arc::new(Mutex::new(String::new()));
        let heard = said.clone();
        let report = process.block_on(async {
            let (plan, declared, ledger, link) = self.plan(verb, false).await?;
            if !plan.problems.is_empty() {
                return Err(plan.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
            }
            let sink = Arc::new(move |progress: &Progress| {
                heard.lock().expect("nobody panicked").push_str(&format!("{progress:?}\n"))
            });
            let options = Options { sink, faults: faults.clone(), ids: Arc::new(Ids::random()), ..Options::default() };
            let report = execute(&plan, declared, ledger.clone(), link, options).await;
            if !report.stopped {
                ledger.close().map_err(|error| error.to_string())?;
            }
            Ok(report)
        });
        process.shutdown_background();
        let said = format!("{}{report:?}", said.lock().expect("nobody panicked"));
        self.search()?.clean(&format!("what {verb} said"), said);
        report
    }

    /// Searches every file there ever was for every secret that the state has by now; returns the search.
    fn search(&self) -> Result<Search, String> {
        // What a process that was stopped has left, as the next one finds it.
        let disk = self.disk.reopen(Crash::Process);
        let look = Store::look(&disk, P::STACK, &KeySource::Given(self.keys.clone()));
        let look = look.map_err(|error| error.to_string())?;
        let mut search = Search::default();
        for fingerprint in look.state.secrets.keys() {
            let value = look.vault.get(fingerprint)?;
            search.add(fingerprint, value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        }
        disk.everything().iter().for_each(|file| search.clean("a file", file));
        Ok(search)
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

    async fn plan(&self, verb: Verb, refresh: bool) -> Result<(Plan, Arc<Declared>, Ledger, Link), String> {
        let link = self.running.link();
        let keys = KeySource::Given(self.keys.clone());
        let opened = Store::open(Arc::new(self.disk.clone()), P::STACK, keys);
        let (store, _) = opened.map_err(|error| error.to_string())?;
        let declared = Arc::new(P::declare(store.vault().clone())?);
        let ledger = Ledger::new(store, link.clock.clone());
        let seen = observe(declared.clone(), &ledger, &link, refresh).await;
        let request = Request { verb, targets: Vec::new(), now: link.clock.now(), foreign: Vec::new() };
        let plan = ledger.with(|store| plan::plan(&declared, store.state(), &seen, &request));
        Ok((plan, declared, ledger, link))
    }

    /// Returns the simulated world, the part that the program is about.
    pub(crate) fn world(&self) -> Value {
        let _on_its_clock = self.runtime.enter();
        P::part(self.running.world())
    }

    /// What has to hold after every `up` that was complete: the world at rest, as lines.
    pub(crate) fn settled(&self) -> Result<Vec<String>, String> {
        let plan = self.second_plan()?;
        if !plan.is_empty() {
            return Err(format!("the second plan is not empty:\n{}", plan::text(&plan)));
        }
        let world = at_rest(|| self.world())?;
        P::consistent(&world)?;
        Ok(P::lines(&world))
    }
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Checks points two at a time, and returns each with what came of it.
pub(crate) fn each<T: Sync, R: Send>(points: &[T], check: impl Fn(&T) -> R + Sync) -> Vec<(&T, R)> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some(point) = points.get(next.fetch_add(1, Ordering::SeqCst)) {
            done.push((point, check(point)));
        }
        done
    };
    std::thread::scope(|scope| {
        let workers = [scope.spawn(work), scope.spawn(work)];
        workers.into_iter().flat_map(|worker| worker.join().expect("a point panicked")).collect()
    })
}
