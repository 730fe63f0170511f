//! One lab: a world, a disk, a clock; and one run in it, which may end anywhere.

use crate::life::{Round, Trouble, Verb};
use crate::oracle::Oracle;
use crate::program::{HUSH, Line, OPEN, Program};
use crate::world::{ABROAD, Item, Run, STACK, World, second};
use lab_core::execute::disk::{Crash, Disk, Fault, FaultyDisk, File, Reading, Verb as DiskVerb};
use lab_core::execute::seal::{Ids, Keys};
use lab_core::execute::{
    Faults, Interrupt, KeySource, Ledger, Options, Progress, Report, SavedPlan, Store, execute, observe, settle,
    state_digest,
};
use lab_core::plan::{self, Held, Observations, Plan, Request};
use lab_core::{Claim, Clock, Deed, Event, Link, Mark, Place, Stack, State, Status, Urn, Vault};
use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// A lab of the simulation.
pub(crate) struct Lab {
    pub(crate) world: Arc<World>,
    pub(crate) disk: FaultyDisk,
    pub(crate) now: SystemTime,
    /// When the last run began: what is due is due by then.
    pub(crate) began: SystemTime,
    seed: u64,
    runs: u64,
}

/// What came of one run.
#[derive(Default)]
pub(crate) struct Ran {
    /// The state before.
    pub(crate) before: State,
    /// What was shown.
    pub(crate) plan: Option<Plan>,
    /// What kept it from being started.
    pub(crate) error: Option<String>,
    pub(crate) report: Option<Report>,
    /// When that was made.
    pub(crate) planned: Option<SystemTime>,
    pub(crate) heard: Vec<Progress>,
    /// The process was killed.
    pub(crate) killed: bool,
    pub(crate) calls: usize,
    pub(crate) operations: Vec<DiskVerb>,
    /// Where a secret was found in clear.
    pub(crate) leak: Option<String>,
}

impl Ran {
    pub(crate) fn complete(&self) -> bool {
        !self.killed && self.error.is_none() && self.report.as_ref().is_none_or(Report::complete)
    }

    /// Returns true when what is left to do is left because the run could not know before: the next plan does it.
    pub(crate) fn told(&self) -> String {
        let Some(report) = &self.report else { return self.error.clone().unwrap_or_else(|| "killed".into()) };
        let failed = report
            .failed
            .iter()
            .map(|failure| format!("{} {}: {}", failure.action, failure.urn.short(), failure.error));
        let not = report.not_started.iter().map(|(urn, why)| format!("{} was not started: {why}", urn.short()));
        failed.chain(not).collect::<Vec<_>>().join("; ")
    }
}

impl Lab {
    pub(crate) fn new(seed: u64) -> Lab {
        Lab {
            world: Arc::new(World::default()),
            disk: FaultyDisk::new(),
            now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
            began: SystemTime::UNIX_EPOCH,
            seed,
            runs: 0,
        }
    }

    /// Returns a lab with another future.
    pub(crate) fn fork(&self) -> Lab {
        Lab {
            world: Arc::new(self.world.fork()),
            disk: self.disk.reopen(Crash::Process),
            now: self.now,
            began: self.began,
            seed: self.seed,
            runs: self.runs,
        }
    }

    pub(crate) fn state(&self) -> Result<State, String> {
        let keys = KeySource::Given(Keys::fixed());
        Store::look(&self.disk, STACK, &keys).map(|look| look.state).map_err(|error| error.to_string())
    }

    /// Puts something of somebody else's into the world.
    pub(crate) fn plant(&self, place: &str, tag: &str) {
        let mut contents = self.world.contents();
        let key = (place.to_owned(), tag.to_owned());
        if contents.items.contains_key(&key) {
            return;
        }
        contents.serial += 1;
        let item = Item {
            tag: tag.to_owned(),
            mark: None,
            by: None,
            serial: contents.serial,
            text: "planted".into(),
            stand: "there".into(),
            secret: None,
            left: 0,
            opened: true,
            leaving: None,
            outside: false,
            number: None,
            fleet: None,
            away: false,
            expires: None,
        };
        contents.items.insert(key, item);
    }

    /// Takes what was left behind out of the world, and forgets it, as a person does.
    pub(crate) fn clear_left(&mut self) -> Result<(), String> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let opened = Store::open(disk, STACK, KeySource::Given(Keys::fixed()));
        let (mut store, _) = opened.map_err(|error| error.to_string())?;
        let left = store.state().condemned.values().filter(|condemned| condemned.left_behind);
        let marks: Vec<Mark> = left.map(|condemned| condemned.record.mark.clone()).collect();
        let of_them = |item: &Item| item.by.as_ref().is_some_and(|by| marks.iter().any(|mark| mark.0 == *by));
        self.world.contents().items.retain(|_, item| !of_them(item));
        let forgot = Event::Forgot { urns: Vec::new(), marks };
        store.commit(&[forgot], self.now).map_err(|error| error.to_string())?;
        store.close().map_err(|error| error.to_string())?;
        self.disk = self.disk.reopen(Crash::Process);
        Ok(())
    }

    /// Runs one round. Afterwards the disk is what the next process finds.
    pub(crate) fn run(&mut self, round: &Round, oracle: &Oracle) -> Ran {
        self.runs += 1;
        self.now += Duration::from_secs(3_600 * round.hours);
        self.began = self.now;
        let witness = Witness {
            disk: self.disk.clone(),
            world: self.world.clone(),
            asked: Arc::default(),
            leak: Arc::default(),
            trouble: round.disk,
        };
        {
            let mut contents = self.world.contents();
            contents.calls = 0;
            contents.effects.clear();
            contents.entered.clear();
            contents.violations.clear();
            contents.dead = false;
            // Of what is to go, nothing is to be done any more; nor of what went, where no line says that it is the same.
            let (before, items) = (contents.run.program.clone(), contents.items.clone());
            let stays = |tag: &str| {
                let same = |line: &Line, was: &Line| {
                    line.called() == was.called() || (line.part == was.part && line.was.contains(&was.name))
                };
                let stands = items.values().any(|item| item.tag == tag);
                let line = round.program.line(tag).filter(|_| round.verb != Verb::Destroy);
                line.is_some_and(|line| stands || before.line(tag).is_none_or(|was| same(line, was)))
            };
            contents.due.retain(|(tag, _)| stays(tag));
            contents.run = Run {
                program: round.program.clone(),
                destroys: round.verb == Verb::Destroy,
                mishaps: round.mishaps.iter().copied().collect(),
                latency: round.latency,
                cut_off: round.cut_off.clone(),
                protected: oracle.protected.clone(),
                imported: oracle.imported.clone(),
                meddled: oracle.meddled.clone(),
                disk: Some(self.disk.clone()),
                closed: None,
                replaced: BTreeSet::new(),
                part: matches!(round.verb, Verb::Target(_)),
            };
        }
        let heard: Arc<Mutex<Vec<Progress>>> = Arc::default();
        let ran: Arc<Mutex<Ran>> = Arc::default();
        let now = self.now;
        let ids = Ids::seeded(self.seed.wrapping_add(self.runs << 40));
        let passed = {
            let (world, disk, heard, ran) = (self.world.clone(), witness.clone(), heard.clone(), ran.clone());
            block_on(async move {
                let clock = Clock::starting(now, 1);
                let work = work(round, world.clone(), disk, clock.clone(), ids, heard, ran.clone());
                tokio::pin!(work);
                loop {
                    tokio::select! {
                        biased;
                        // The news of an earlier death may only come through now.
                        () = world.killed.notified() => if world.dead() { break },
                        () = &mut work => break,
                    }
                }
                if world.dead() {
                    lock(&ran).killed = true;
                }
                clock.now().duration_since(now).unwrap_or_default()
            })
        };
        self.now += passed;
        self.world.contents().dead = true;
        let mut ran = std::mem::take(&mut *lock(&ran));
        ran.heard = std::mem::take(&mut *lock(&heard));
        ran.calls = self.world.contents().calls;
        ran.operations = std::mem::take(&mut *lock(&witness.asked));
        ran.leak = lock(&witness.leak).take();
        self.disk = self.disk.reopen(round.crash);
        ran
    }

    /// Returns how many hours pass until the window of a program opens, when it is not open for a while from now.
    pub(crate) fn until_open(&self, program: &Program, hours: u64) -> u64 {
        let Some(from) = program.window else { return 0 };
        let hour = second(self.now) / 3_600 + hours;
        let since = (hour + 24 - from) % 24;
        if since + 1 < OPEN { 0 } else { 24 - since }
    }

    /// Returns what would be done now.
    pub(crate) fn preview(&self, program: &Program, destroy: bool) -> Result<Plan, String> {
        let keys = KeySource::Given(Keys::fixed());
        let look = Store::look(&self.disk, STACK, &keys).map_err(|error| error.to_string())?;
        let declared = Stack::load(STACK, None, look.vault, Default::default(), |stack| program.declare(stack))
            .map_err(|error| error.to_string())?;
        let mut seen = Observations::default();
        for line in program.lines.iter().filter(|line| line.kind == crate::program::Kind::Look) {
            let node = declared.nodes.iter().find(|node| node.urn.name() == line.name && node.urn.kind() == "sim:look");
            let said = self.world.contents().get(&program.rack, &line.tag).map(|item| item.text.clone());
            if let (Some(node), Some(said)) = (node, said) {
                seen.answers.insert(node.urn.clone(), said.into());
            }
        }
        let verb = if destroy { plan::Verb::Destroy } else { plan::Verb::Up };
        let request = Request { foreign: abroad(), ..Request::new(verb, self.began) };
        Ok(plan::plan(&declared, &look.state, &seen, &request))
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn work(
    round: &Round,
    world: Arc<World>,
    disk: Witness,
    clock: Clock,
    ids: Ids,
    heard: Arc<Mutex<Vec<Progress>>>,
    ran: Arc<Mutex<Ran>>,
) {
    let result: Result<(), String> = async {
        let link = Link::memory(world.clone()).on(clock.clone());
        let keys = Keys::fixed();
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let (mut store, _) =
            Store::open(disk, STACK, KeySource::Given(keys.clone())).map_err(|error| error.to_string())?;
        // The key of the fingerprints would be drawn: here it has to be the same for the same seed.
        store.adopt(Vault::new([7; 32]));
        let load = |vault: Vault| {
            Stack::load(STACK, None, vault, Default::default(), |stack| round.program.declare(stack))
                .map_err(|error| error.to_string())
        };
        let mut declared = Arc::new(load(store.vault().clone())?);
        lock(&ran).before = store.state().clone();
        let ledger = Ledger::new(store, clock.clone());
        let seen = observe(declared.clone(), &ledger, &link, round.refresh || round.verb == Verb::Refresh).await;
        if round.verb == Verb::Refresh {
            let events = settle(&seen, &ledger);
            ledger.commit(events).await?;
            drop(declared);
            return ledger.close().map_err(|error| error.to_string());
        }
        let verb = if round.verb == Verb::Destroy { plan::Verb::Destroy } else { plan::Verb::Up };
        let targets = match &round.verb {
            Verb::Target(tags) => tags.iter().filter_map(|tag| round.program.line(tag)).map(Line::called).collect(),
            Verb::Up | Verb::Saved | Verb::Destroy | Verb::Refresh => Vec::new(),
        };
        let request = Request { verb, targets: targets.clone(), now: clock.now(), foreign: abroad() };
        lock(&ran).planned = Some(clock.now());
        world.contents().run.closed =
            (!open(&round.program, clock.now())).then(|| ledger.with(|store| under_way(store.state())));
        let mut plan = ledger.with(|store| plan::plan(&declared, store.state(), &seen, &request));
        world.contents().run.replaced = replaced(&plan);
        lock(&ran).plan = Some(plan.clone());
        if !plan.problems.is_empty() {
            let problems: Vec<String> = plan.problems.iter().map(ToString::to_string).collect();
            return Err(format!("refused: {}", problems.join("\n")));
        }
        if round.verb == Verb::Saved {
            let state = ledger.with(|store| state_digest(store.state()));
            let at = crate::world::second(clock.now());
            let saved =
                SavedPlan::new(plan, seen, targets, at, state.clone(), "program".into(), &declared.vault, &keys)?;
            let bytes = saved.to_bytes();
            if clear(&bytes) {
                lock(&ran).leak = Some("the saved plan".into());
            }
            let saved = SavedPlan::from_bytes("plan", &bytes).map_err(|error| error.to_string())?;
            // Another process applies it: it loads the program anew, with the plan's key.
            declared = Arc::new(load(ledger.with(|store| store.vault().clone()))?);
            let again = ledger.with(|store| plan::plan(&declared, store.state(), &saved.observations, &request));
            saved.check(&again, &state, "program").map_err(|error| format!("saved plan: {error}"))?;
            plan = saved.plan;
        }
        let interrupt = Interrupt::default();
        let (asked, asks) = (interrupt.clone(), round.asks.clone());
        let options = Options {
            parallel: round.parallel,
            sink: Arc::new(move |progress| {
                let mut heard = lock(&heard);
                heard.push(progress.clone());
                asks.iter().filter(|after| **after == heard.len()).for_each(|_| asked.ask());
            }),
            interrupt,
            faults: Arc::new(Faults::none()),
            ids: Arc::new(ids),
        };
        let report = execute(&plan, declared.clone(), ledger.clone(), link, options).await;
        lock(&ran).report = Some(report);
        drop(declared);
        ledger.close().map_err(|error| format!("close: {error}"))
    }
    .await;
    if let Err(error) = result {
        lock(&ran).error = Some(error);
    }
}

/// Returns what a plan deletes and makes anew, by the name that a person calls it.
fn replaced(plan: &Plan) -> BTreeSet<String> {
    let named = |step: &plan::Step| step.urn.short();
    let goes: BTreeSet<String> = plan.steps.iter().filter(|step| step.removes()).map(named).collect();
    let may = |step: &plan::Step| step.makes() && (step.permits.replace || goes.contains(&named(step)));
    plan.steps.iter().filter(|step| may(step)).map(named).collect()
}

/// Returns the operations that made what is down already, or about to go: that is finished whatever the time.
fn under_way(state: &State) -> BTreeSet<String> {
    let acts: BTreeSet<String> = state
        .records
        .values()
        .filter(|record| record.spec.kind == "sim:act")
        .filter_map(|record| record.spec.inputs.value()["member"].as_str().map(str::to_owned))
        .collect();
    let begun = state.records.values().filter(|record| {
        let around = record.spec.inputs.value()["tag"].as_str().is_some_and(|tag| acts.contains(tag));
        let goes = |urn: &Urn| {
            let around = state.records.get(urn).and_then(|record| record.open.as_ref());
            around.is_some_and(|open| open.begun.deed == Deed::Delete)
        };
        let inside = record.spec.container.as_ref().is_some_and(goes);
        record.open.is_some() || record.status != Status::Ready || around || inside
    });
    begun.map(|record| record.mark.0.clone()).chain(state.condemned.keys().map(|mark| mark.0.clone())).collect()
}

/// Returns true when a program's things may be interrupted at that time, or will be allowed to while a run lasts.
pub(crate) fn open(program: &Program, now: SystemTime) -> bool {
    let Some(from) = program.window else { return true };
    let since = (second(now) / 3_600 + 24 - from) % 24;
    since < OPEN
}

/// What another stack of the same lab occupies.
fn abroad() -> Vec<Held> {
    let urn = Urn::new("other", "rack", &[], "sim:thing", "theirs");
    let claim = Claim::number("number", u128::from(ABROAD));
    vec![Held { urn, place: Place { file: "other.rs".into(), line: 1 }, claim }]
}

/// Returns true when a secret stands there in clear.
pub(crate) fn clear(bytes: &[u8]) -> bool {
    String::from_utf8_lossy(bytes).contains(HUSH)
}

fn block_on<T>(future: impl std::future::Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap_or_else(|error| panic!("a runtime could not be started: {error}")).block_on(future)
}

/// A disk that reads along, and dies with its process.
#[derive(Clone)]
struct Witness {
    disk: FaultyDisk,
    world: Arc<World>,
    asked: Arc<Mutex<Vec<DiskVerb>>>,
    leak: Arc<Mutex<Option<String>>>,
    trouble: Option<(usize, Trouble)>,
}

impl Witness {
    /// Counts an operation, makes it go wrong when its time has come, and notes when the process died of it.
    fn operate<T>(&self, (verb, bytes): (DiskVerb, usize), operation: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self.world.dead() {
            return Err(io::Error::other("the process is dead"));
        }
        let number = lock(&self.asked).len();
        lock(&self.asked).push(verb);
        if let Some((at, trouble)) = self.trouble
            && at == number
        {
            let part = |percent: u8| (bytes * usize::from(percent) / 100).min(bytes.saturating_sub(1));
            let fault = match trouble {
                Trouble::StopBefore => Fault::StopBefore,
                Trouble::StopWithin(percent) => Fault::StopWithin(part(percent)),
                Trouble::StopAfter => Fault::StopAfter,
                Trouble::NoSpace => Fault::NoSpace,
                Trouble::Broken => Fault::Broken,
                Trouble::Short(percent) => Fault::Short(part(percent)),
                Trouble::BrokenAfter => Fault::BrokenAfter,
            };
            self.disk.inject(self.disk.operations().len(), fault);
        }
        let result = operation();
        if self.disk.stopped() {
            self.world.kill();
        }
        result
    }
}

impl Disk for Witness {
    fn place(&self, name: &str) -> String {
        self.disk.place(name)
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.operate((DiskVerb::Read, 0), || self.disk.read(name))
    }

    fn open(&self, name: &str, most: usize) -> io::Result<Option<Reading>> {
        self.operate((DiskVerb::Read, 0), || self.disk.open(name, most))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.operate((DiskVerb::List, 0), || self.disk.list())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let file = self.operate((DiskVerb::Create, 0), || self.disk.create(name))?;
        Ok(Box::new(Page { file, witness: self.clone(), name: name.to_owned() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.operate((DiskVerb::Rename, 0), || self.disk.rename(from, to))
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.operate((DiskVerb::Link, 0), || self.disk.link(from, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.operate((DiskVerb::Remove, 0), || self.disk.remove(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.operate((DiskVerb::SyncDir, 0), || self.disk.sync_dir())
    }
}

struct Page {
    file: Box<dyn File>,
    witness: Witness,
    name: String,
}

impl File for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if clear(bytes) {
            *lock(&self.witness.leak) = Some(format!("the file {}", self.name));
        }
        let file = &mut self.file;
        self.witness.operate((DiskVerb::Write, bytes.len()), || file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        let file = &mut self.file;
        self.witness.operate((DiskVerb::Flush, 0), || file.flush())
    }
}
