//! A bench to run programs on: a state in memory, a world in memory, a clock that stands still until something waits.

use super::distant::Server;
use super::world::World;
use crate::execute::disk::{Crash, Disk, FaultyDisk};
use crate::execute::seal::{Ids, Keys};
use crate::execute::{
    Faults, Interrupt, KeySource, Ledger, Options, Progress, Report, Store, execute, neighbours, observe, settle,
};
use crate::model::{
    Clock, Declared, Link, Neighbours, NoSupply, ProgramError, Stack, State, Supply, Vault, Vocabulary,
};
use crate::plan::{self, Observations, Plan, Request, Verb};
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// A bench to run programs on, in memory and without waiting.
#[derive(Clone)]
pub struct Bench {
    name: String,
    env: Option<String>,
    disk: FaultyDisk,
    link: Arc<dyn Fn(Clock) -> Link + Send + Sync>,
    world: Arc<World>,
    now: SystemTime,
    seed: u64,
    /// How many runs there were, of this bench and of what a crash made of it: no two draw the same ids.
    runs: Arc<AtomicU64>,
    vocabulary: Vocabulary,
    keeps_frames: bool,
    keys: Keys,
    supply: Arc<dyn Supply>,
}

/// How one run on a bench is disturbed.
#[derive(Clone, Default)]
pub struct Trial {
    /// Faults at calls.
    pub faults: Arc<Faults>,
    /// Look at everything first.
    pub refresh: bool,
    /// Only these.
    pub targets: Vec<String>,
    /// How many steps at the same time; 16 when 0.
    pub parallel: usize,
    /// How a person stops it.
    pub interrupt: Interrupt,
    /// After how many things that were told a person asks to stop; twice the same number for asking twice.
    pub ask_after: Vec<usize>,
    /// What was told.
    pub heard: Arc<Mutex<Vec<Progress>>>,
}

impl Default for Bench {
    fn default() -> Bench {
        Bench::new()
    }
}

impl Bench {
    /// Returns a bench with an empty state and an empty [`World`].
    pub fn new() -> Bench {
        let world = Arc::new(World::default());
        let there = world.clone();
        Bench {
            name: "lab".into(),
            env: None,
            disk: FaultyDisk::new(),
            link: Arc::new(move |clock| Link::memory(there.clone()).on(clock)),
            world,
            now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
            seed: 1,
            runs: Arc::default(),
            vocabulary: Vocabulary::default(),
            keeps_frames: false,
            keys: Keys::fixed(),
            supply: Arc::new(NoSupply),
        }
    }

    /// Returns the same bench for a stack of another name: its states lie side by side.
    pub fn named(mut self, name: &str) -> Bench {
        self.name = name.to_owned();
        self
    }

    /// Returns the same bench for an environment of its lab, which is a stack of its own.
    pub fn env(mut self, env: &str) -> Bench {
        self.name = format!("{}-{env}", self.name);
        self.env = Some(env.to_owned());
        self
    }

    /// Returns the same bench over another world in memory: that of a provider of one's own.
    pub fn over<W: std::any::Any + Send + Sync>(mut self, world: Arc<W>) -> Bench {
        self.link = Arc::new(move |clock| Link::memory(world.clone()).on(clock));
        self
    }

    /// Returns the same bench at another time.
    pub fn at(mut self, now: SystemTime) -> Bench {
        self.now = now;
        self
    }

    /// Returns the same bench on another disk: one that fails, or what is left of one after a crash.
    pub fn on(mut self, disk: FaultyDisk) -> Bench {
        self.disk = disk;
        self
    }

    /// Returns the same bench with what a crash leaves of its disk.
    pub fn crashed(&self, crash: Crash) -> Bench {
        self.clone().on(self.disk.reopen(crash))
    }

    /// Returns a copy with a disk and a world of its own, for another future of the same past. The bench must be over
    /// its own [`World`].
    pub fn fork(&self) -> Bench {
        let world = Arc::new(self.world.fork());
        let there = world.clone();
        Bench {
            link: Arc::new(move |clock| Link::memory(there.clone()).on(clock)),
            world,
            runs: Arc::new(AtomicU64::new(self.runs.load(Ordering::SeqCst))),
            ..self.crashed(Crash::Process)
        }
    }

    /// Returns the same bench with runs that leave their journal as they wrote it, as one that is killed at its very end
    /// does: for a test that reads what was recorded.
    pub fn keeping_frames(mut self) -> Bench {
        self.keeps_frames = true;
        self
    }

    /// Returns the same bench with other keys than [`Keys::fixed`].
    pub fn with_keys(mut self, keys: Keys) -> Bench {
        self.keys = keys;
        self
    }

    /// Returns the same bench with programs that may ask this of their outside; without it everything is refused.
    pub fn supplied(mut self, supply: impl Supply + 'static) -> Bench {
        self.supply = Arc::new(supply);
        self
    }

    fn keys(&self) -> KeySource {
        KeySource::Given(self.keys.clone())
    }

    /// Returns the same bench knowing a provider that no program declares.
    pub fn knows<P: crate::model::Provider>(mut self) -> Bench {
        self.vocabulary.learn::<P>();
        self
    }

    /// Returns the same bench with other ids for its operations.
    pub fn seeded(mut self, seed: u64) -> Bench {
        self.seed = seed;
        self
    }

    /// Returns the world.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Serves the world to other processes; see [`Server::start`].
    pub fn serve(&self, pace: Duration) -> std::io::Result<Server> {
        Server::start(self.world.clone(), pace)
    }

    /// Returns the disk.
    pub fn disk(&self) -> &FaultyDisk {
        &self.disk
    }

    /// Returns the time.
    pub fn now(&self) -> SystemTime {
        self.now
    }

    /// Returns the state as it is on the disk.
    ///
    /// # Panics
    ///
    /// When it cannot be read.
    pub fn state(&self) -> State {
        match Store::look(&self.disk, &self.name, &self.keys()) {
            Ok(look) => look.state,
            Err(error) => panic!("the state of {} cannot be read: {error}", self.name),
        }
    }

    /// Returns what a program declares.
    ///
    /// # Panics
    ///
    /// When the program fails.
    pub fn load<T: Serialize>(&self, program: impl Fn(&Stack) -> Result<T, ProgramError>) -> Declared {
        match self.try_load(program) {
            Ok(declared) => declared,
            Err(error) => panic!("the program failed: {error}"),
        }
    }

    /// Returns what a program declares, or what it failed with.
    pub fn try_load<T: Serialize>(
        &self,
        program: impl Fn(&Stack) -> Result<T, ProgramError>,
    ) -> Result<Declared, ProgramError> {
        let look = Store::look(&self.disk, &self.name, &self.keys())?;
        self.declare(&look.vault, program)
    }

    fn declare<T: Serialize>(
        &self,
        vault: &crate::model::Vault,
        program: impl Fn(&Stack) -> Result<T, ProgramError>,
    ) -> Result<Declared, ProgramError> {
        let (outputs, _) = self.neighbours(vault)?;
        let (env, supply) = (self.env.as_deref(), self.supply.clone());
        let mut declared = Stack::load_with(&self.name, env, vault.clone(), outputs, supply, program)?;
        declared.vocabulary.merge(&self.vocabulary);
        Ok(declared)
    }

    fn neighbours(&self, vault: &crate::model::Vault) -> Result<(Neighbours, Vec<plan::ForeignClaim>), ProgramError> {
        let names = self.disk.list()?;
        let stacks: Vec<String> =
            names.iter().filter_map(|name| name.strip_suffix(".journal")).map(str::to_owned).collect();
        Ok(neighbours(&self.disk, &stacks, &self.name, &self.keys(), vault)?)
    }

    /// Returns the plan of `up`, without looking at the world.
    ///
    /// # Panics
    ///
    /// When the program fails.
    pub fn preview<T: Serialize>(&self, program: impl Fn(&Stack) -> Result<T, ProgramError>) -> Plan {
        self.plan(program, Verb::Up, &Observations::default(), &[])
    }

    /// Returns a plan.
    ///
    /// # Panics
    ///
    /// When the program fails.
    pub fn plan<T: Serialize>(
        &self,
        program: impl Fn(&Stack) -> Result<T, ProgramError>,
        verb: Verb,
        seen: &Observations,
        targets: &[&str],
    ) -> Plan {
        let declared = self.load(program);
        let foreign = self.neighbours(&declared.vault).map(|(_, claims)| claims).unwrap_or_default();
        let targets = targets.iter().map(|target| (*target).to_owned()).collect();
        let request = Request { verb, targets, now: self.now, foreign };
        plan::plan(&declared, &self.state(), seen, &request)
    }

    /// Applies a program and returns what came of it.
    ///
    /// # Panics
    ///
    /// When the program fails, or the plan has problems.
    pub fn up<T: Serialize>(&self, program: impl Fn(&Stack) -> Result<T, ProgramError>) -> Report {
        self.attempt(program, Verb::Up, &Trial::default()).unwrap_or_else(|error| panic!("up: {error}"))
    }

    /// Applies a program that has to succeed.
    ///
    /// # Panics
    ///
    /// When anything is left undone.
    pub fn up_whole<T: Serialize>(&self, program: impl Fn(&Stack) -> Result<T, ProgramError>) {
        let report = self.up(program);
        assert!(report.complete(), "not everything was done: {report:#?}");
    }

    /// Destroys everything and returns what came of it.
    ///
    /// # Panics
    ///
    /// When the program fails, or the plan has problems.
    pub fn destroy<T: Serialize>(&self, program: impl Fn(&Stack) -> Result<T, ProgramError>) -> Report {
        self.attempt(program, Verb::Destroy, &Trial::default()).unwrap_or_else(|error| panic!("destroy: {error}"))
    }

    /// Runs a verb, disturbed as `trial` says. The error is what kept it from being started.
    pub fn attempt<T: Serialize>(
        &self,
        program: impl Fn(&Stack) -> Result<T, ProgramError>,
        verb: Verb,
        trial: &Trial,
    ) -> Result<Report, String> {
        let run = async {
            let clock = Clock::starting(self.now, 1);
            let link = (self.link)(clock.clone());
            let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
            let (mut store, _) = Store::open(disk, &self.name, self.keys()).map_err(|error| error.to_string())?;
            // A first run draws the key of its fingerprints; here it follows from the seed, as everything does.
            store.adopt(Vault::new([self.seed as u8; 32]));
            let declared = self.declare(store.vault(), &program).map_err(|error| error.to_string())?;
            let declared = Arc::new(declared);
            let (_, foreign) = self.neighbours(&declared.vault).map_err(|error| error.to_string())?;
            let ledger = Ledger::new(store, clock);
            let seen = observe(declared.clone(), &ledger, &link, trial.refresh).await;
            let request = Request { verb, targets: trial.targets.clone(), now: self.now, foreign };
            let plan = ledger.with(|store| plan::plan(&declared, store.state(), &seen, &request));
            if !plan.problems.is_empty() {
                let problems: Vec<String> = plan.problems.iter().map(ToString::to_string).collect();
                return Err(problems.join("\n"));
            }
            let heard = trial.heard.clone();
            let (interrupt, ask_after) = (trial.interrupt.clone(), trial.ask_after.clone());
            let options = Options {
                parallel: if trial.parallel == 0 { 16 } else { trial.parallel },
                sink: Arc::new(move |progress| {
                    let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                    heard.push(progress.clone());
                    ask_after.iter().filter(|after| **after == heard.len()).for_each(|_| interrupt.ask());
                }),
                interrupt: trial.interrupt.clone(),
                faults: trial.faults.clone(),
                ids: Arc::new(Ids::seeded(self.seed.wrapping_add(self.runs.fetch_add(1, Ordering::SeqCst) << 32))),
            };
            let report = execute(&plan, declared, ledger.clone(), link, options).await;
            if !report.stopped && !self.keeps_frames {
                ledger.close().map_err(|error| error.to_string())?;
            }
            Ok(report)
        };
        block_on(run)
    }

    /// Looks at everything and makes the state say what was seen.
    ///
    /// # Panics
    ///
    /// When the state cannot be written.
    pub fn refresh<T: Serialize>(&self, program: impl Fn(&Stack) -> Result<T, ProgramError>) -> Observations {
        let run = async {
            let clock = Clock::starting(self.now, 1);
            let link = (self.link)(clock.clone());
            let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
            let (store, _) = Store::open(disk, &self.name, self.keys()).map_err(|error| error.to_string())?;
            let declared = self.declare(store.vault(), &program).map_err(|error| error.to_string())?;
            let ledger = Ledger::new(store, clock);
            let seen = observe(Arc::new(declared), &ledger, &link, true).await;
            let events = settle(&seen, &ledger);
            ledger.commit(events).await?;
            Ok::<_, String>(seen)
        };
        block_on(run).unwrap_or_else(|error| panic!("refresh: {error}"))
    }
}

/// Runs a future on a runtime whose clock stands still until everything waits.
fn block_on<T>(future: impl std::future::Future<Output = T>) -> T {
    match tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build() {
        Ok(runtime) => runtime.block_on(future),
        Err(error) => panic!("a runtime could not be started: {error}"),
    }
}
