//! Walks a plan: what is ready runs, what failed holds up only what needs it.

use super::connect::Connections;
use super::faults::Faults;
use super::hand::{self, Hand};
use super::ledger::Ledger;
use super::operate::{Ending, Ground, lies_in};
use super::pauses::Pauses;
use super::progress::{Heard, Progress, STREAM, Sink, Warned, silent};
use super::seal::Ids;
use super::turns::{Ready, Turns, Waiting};
use super::work::carry_out;
use crate::model::{Claim, Declared, Event, Link, Run, Urn, When};
use crate::plan::{self, Action, Observed, Plan, Verb, known, verb};
use serde_json::Value;
use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinSet;

/// How many steps may have begun and not ended, most of them waiting for something outside.
const MOST: usize = 1000;

/// How a plan is carried out.
#[derive(Clone)]
pub struct Options {
    /// How many steps are at work at the same time, and so the most calls. Those that wait for what was made to become
    /// ready by itself are not counted.
    pub parallel: usize,
    /// Where progress goes.
    pub sink: Sink,
    /// How a person stops it.
    pub interrupt: Interrupt,
    /// Faults, for tests.
    pub faults: Arc<Faults>,
    /// Where the ids of operations come from.
    pub ids: Arc<Ids>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            parallel: 16,
            sink: silent(),
            interrupt: Interrupt::default(),
            faults: Arc::new(Faults::none()),
            ids: Arc::new(Ids::random()),
        }
    }
}

/// How a person stops a run: once, and nothing new starts; twice, and what is in flight is abandoned.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<(AtomicU8, Notify)>);

impl Interrupt {
    /// Asks once more.
    pub fn ask(&self) {
        self.0.0.fetch_add(1, Ordering::SeqCst);
        self.0.1.notify_waiters();
    }

    /// Returns true once it was asked.
    pub fn asked(&self) -> bool {
        self.0.0.load(Ordering::SeqCst) > 0
    }

    async fn reached(&self, count: u8) {
        loop {
            let notified = self.0.1.notified();
            if self.0.0.load(Ordering::SeqCst) >= count {
                return;
            }
            notified.await;
        }
    }

    /// Waits until it is asked.
    pub(super) async fn any(&self) {
        self.reached(1).await;
    }

    /// Waits until it is asked twice.
    pub(super) async fn abandoned(&self) {
        self.reached(2).await;
    }
}

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Steps that were completed.
    pub done: Vec<Urn>,
    /// Steps that failed.
    pub failed: Vec<Failure>,
    /// Steps that were not started, and why not.
    pub not_started: Vec<(Urn, String)>,
    /// Steps that were left where they stand, because a person interrupted the run.
    pub left: Vec<Urn>,
    /// True when a person interrupted it.
    pub interrupted: bool,
    /// True when a test's fault ended the process.
    pub stopped: bool,
    /// How many frames were written, each with one flush.
    pub flushes: u64,
    /// What a person should know though nothing failed: each once, in the order it was told.
    pub warnings: Vec<Warned>,
}

/// A step that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// On what.
    pub urn: Urn,
    /// What was attempted.
    pub action: &'static str,
    /// What came back.
    pub error: String,
    /// What to try.
    pub hint: Option<String>,
    /// Where it was declared.
    pub place: Option<crate::model::Place>,
    /// True when the next run will finish what was begun.
    pub open: bool,
}

impl Report {
    /// Returns true when everything that was planned is done.
    pub fn complete(&self) -> bool {
        self.failed.is_empty()
            && self.left.is_empty()
            && self.not_started.is_empty()
            && !self.interrupted
            && !self.stopped
    }
}

/// Carries out a plan. The plan has no problems, and was made from this declaration and this state.
pub async fn execute(plan: &Plan, declared: Arc<Declared>, ledger: Ledger, link: Link, options: Options) -> Report {
    let mut report = Report::default();
    debug_assert!(plan.problems.is_empty(), "a plan with problems is not executed");
    let heard = Heard::default();
    let options = Options { sink: heard.listening(options.sink.clone()), ..options };
    let told = options.sink.clone();
    let before = ledger.flushes();
    told(&Progress::Began { version: STREAM, stack: plan.stack.clone(), steps: plan.steps.len() });
    if let Err(error) = ledger.commit(opening(plan, &link)).await {
        report.failed.push(whole_run(plan, &error));
        return report;
    }
    let ground = Arc::new(Ground {
        connections: Connections::new(declared.clone(), ledger.clone(), link.clone()),
        vault: declared.vault.clone(),
        clock: link.clock.clone(),
        sink: options.sink.clone(),
        interrupt: options.interrupt.clone(),
        faults: options.faults.clone(),
        ledger: ledger.clone(),
        calls: Semaphore::new(options.parallel.max(1)),
        pauses: Pauses::default(),
        passed: Mutex::default(),
    });
    let acts = acts(&declared);
    let walk = Walk { plan, declared: declared.clone(), ledger: ledger.clone(), ground, options, acts };
    walk.walk(&mut report).await;
    if report.complete() && plan.settles() {
        let outputs = match plan.verb {
            Verb::Up => known(&declared.outputs, &declared, &ledger.values()),
            Verb::Destroy => Ok(Value::Null),
        };
        let returned = match outputs {
            Ok(outputs) if ledger.with(|store| store.state().outputs != outputs) => {
                ledger.commit(vec![Event::Returned { outputs }]).await
            }
            Ok(_) => Ok(()),
            Err(error) => {
                let error = format!("the outputs of the stack cannot be computed: {error}");
                let hint = Some("everything else is done; mend what the program returns, and run it again".into());
                report.failed.push(Failure { hint, ..whole_run(plan, &declared.vault.scrub(&error)) });
                Ok(())
            }
        };
        if let Err(error) = returned {
            report.failed.push(whole_run(plan, &declared.vault.scrub(&error)));
        }
    }
    report.flushes = ledger.flushes() - before;
    report.warnings = heard.warnings();
    told(&Progress::Ended {
        flushes: report.flushes,
        done: report.done.len(),
        failed: report.failed.len(),
        not_started: report.not_started.len(),
    });
    report
}

fn whole_run(plan: &Plan, error: &str) -> Failure {
    Failure {
        urn: Urn::new(&plan.stack, "", &[], "lab:stack", &plan.stack),
        action: "record",
        error: error.to_owned(),
        hint: Some(
            "see that the disk is in order and has room, then run it again: it goes on from what is stored".into(),
        ),
        place: None,
        open: false,
    }
}

/// What is recorded before the first step: that there is a run, what moves, what is declared differently without a
/// call. Nothing, when there is nothing.
fn opening(plan: &Plan, link: &Link) -> Vec<Event> {
    let mut events = Vec::new();
    if !plan.moves.is_empty() {
        events.push(Event::Moved { moves: plan.moves.clone() });
    }
    for (urn, spec) in &plan.notes {
        events.push(Event::Noted { urn: urn.clone(), spec: Box::new(spec.clone()) });
    }
    for Observed { urn, made, drifted } in &plan.observed {
        events.push(Event::Observed { urn: urn.clone(), made: made.clone(), drifted: *drifted });
    }
    if !events.is_empty() || !plan.steps.is_empty() {
        let at = link.clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        events.insert(0, Event::Ran(Run { verb: plan.verb.to_string(), at }));
    }
    events
}

/// A plan being walked.
pub(super) struct Walk<'a> {
    pub(super) plan: &'a Plan,
    pub(super) declared: Arc<Declared>,
    pub(super) ledger: Ledger,
    ground: Arc<Ground>,
    pub(super) options: Options,
    /// What is done around each member of a rolling group.
    pub(super) acts: BTreeMap<Urn, Acts>,
}

/// What is done around a member of a rolling group.
#[derive(Default)]
pub(super) struct Acts {
    pub(super) before: Vec<Urn>,
    pub(super) after: Vec<Urn>,
}

fn acts(declared: &Declared) -> BTreeMap<Urn, Acts> {
    let mut all: BTreeMap<Urn, Acts> = BTreeMap::new();
    for node in &declared.nodes {
        let Some(act) = &node.options.act else { continue };
        let acts = all.entry(act.member.clone()).or_default();
        match act.when {
            When::Before => acts.before.push(node.urn.clone()),
            When::After => acts.after.push(node.urn.clone()),
        }
    }
    all
}

/// What a running step tells the walk.
enum News {
    Created(usize),
}

impl Walk<'_> {
    async fn walk(&self, report: &mut Report) {
        let steps = &self.plan.steps;
        let mut waiting = Waiting::new(steps);
        let mut ready = Ready::new(steps.iter().map(|step| self.light(step)).collect());
        (0..steps.len()).filter(|n| waiting.is_free(*n)).for_each(|n| ready.push(n));
        let mut blocked: BTreeMap<usize, String> = BTreeMap::new();
        let mut started: BTreeSet<usize> = BTreeSet::new();
        let mut running: JoinSet<(usize, Ending, bool)> = JoinSet::new();
        let mut tasks: BTreeMap<tokio::task::Id, usize> = BTreeMap::new();
        let mut turns = Turns::default();
        // What could not be reached, and is left behind should what contains it go.
        let mut passed: BTreeMap<usize, (String, Option<String>, bool)> = BTreeMap::new();
        let (news, mut heard) = mpsc::unbounded_channel();
        loop {
            let (done, failed) = self.at_once(&mut ready, &mut started, &blocked, report).await;
            for n in done {
                ready.free(waiting.release(n, false), &started, &blocked);
            }
            failed.into_iter().for_each(|n| self.block(n, &waiting, &mut blocked));
            while self.has_room(running.len()) && !self.ends(report) {
                let Some(n) = ready.far.pop_first() else { break };
                if let Some(why) = self.too_late(n) {
                    self.hold_up(n, &why, &waiting, &mut blocked);
                    blocked.insert(n, why);
                }
                if blocked.contains_key(&n) {
                    continue;
                }
                let work = match self.work(n) {
                    Ok(work) => work,
                    Err(error) => {
                        started.insert(n);
                        self.failed(n, error, None, false, report);
                        self.block(n, &waiting, &mut blocked);
                        continue;
                    }
                };
                let locks = match self.locks(&work) {
                    Ok(locks) => locks,
                    Err(error) => {
                        started.insert(n);
                        self.failed(n, error, None, false, report);
                        self.block(n, &waiting, &mut blocked);
                        continue;
                    }
                };
                if !turns.take(n, locks) {
                    continue;
                }
                started.insert(n);
                self.tell(Progress::Started { urn: steps[n].urn.clone(), action: verb(&steps[n].action) });
                let ground = self.ground.clone();
                let (ledger, news) = (self.ledger.clone(), news.clone());
                let created: Arc<dyn Fn() + Send + Sync> =
                    Arc::new(move || news.send(News::Created(n)).unwrap_or_default());
                let task = running.spawn(async move {
                    let (ending, same) = carry_out(work, &ground, &ledger, created).await;
                    (n, ending, same)
                });
                tasks.insert(task.id(), n);
            }
            if running.is_empty() {
                ready.thaw();
                let locked = turns.all();
                if self.ends(report) || (ready.is_empty() && locked.is_empty()) {
                    break;
                }
                // Nobody has a lock any more that somebody could wait for.
                locked.into_iter().for_each(|n| ready.push(n));
                continue;
            }
            tokio::select! {
                biased;
                Some(News::Created(n)) = heard.recv() => {
                    ready.free(waiting.release(n, true), &started, &blocked);
                }
                Some(ended) = running.join_next() => {
                    let (n, ending, same) = match ended {
                        Ok(ended) => ended,
                        Err(error) => match tasks.get(&error.id()) {
                            // Abandoned with the others, or a panic of our own: never passed over in silence.
                            Some(n) if error.is_cancelled() => (*n, Ending::Stopped, false),
                            Some(n) => {
                                let error = "lab itself failed here (a panic). Please report it".into();
                                (*n, Ending::Failed { error, hint: None, open: true }, false)
                            }
                            None => continue,
                        },
                    };
                    ready.thaw();
                    turns.give_back(n).into_iter().for_each(|n| ready.push(n));
                    match ending {
                        Ending::Done => {
                            let left: Vec<usize> =
                                passed.extract_if(.., |n, _| self.left_behind(*n)).map(|(n, _)| n).collect();
                            for n in &left {
                                self.keeps(*n, &waiting, &mut blocked);
                            }
                            for (n, same) in [(n, same)].into_iter().chain(left.into_iter().map(|n| (n, false))) {
                                let action = verb(&steps[n].action);
                                self.tell(Progress::Finished { urn: steps[n].urn.clone(), action, same });
                                report.done.push(steps[n].urn.clone());
                                ready.free(waiting.release(n, false), &started, &blocked);
                            }
                        }
                        Ending::Passed { error, hint, open } => {
                            passed.insert(n, (error, hint, open));
                            // Only what contains it goes on without it.
                            let goes = |waiter| self.contains(waiter, n) || self.passes_along(waiter, n);
                            let free = waiting.release_those(n, |waiter, _| goes(waiter));
                            ready.free(free, &started, &blocked);
                        }
                        Ending::Failed { error, hint, open } => {
                            self.failed(n, error, hint, open, report);
                            self.block(n, &waiting, &mut blocked);
                        }
                        Ending::Interrupted => {
                            report.interrupted = true;
                            self.leaves(n, report);
                        }
                        Ending::Stopped => {
                            // Asked for by a person, or by a test that plays the end of the process.
                            if self.options.interrupt.asked() {
                                self.leaves(n, report);
                            }
                            report.stopped = true;
                            running.abort_all();
                        }
                    }
                }
                // It left its turn to whoever is ready.
                () = self.ground.pauses.another(), if !ready.far.is_empty() => {}
                // What is at hand goes on, whoever else is waited for; but nothing does once the run is to end.
                () = std::future::ready(()), if !ready.near.is_empty() && !self.ends(report) => {
                    tokio::task::yield_now().await;
                }
            }
        }
        for (n, (error, hint, open)) in passed {
            self.failed(n, error, hint, open, report);
            self.block(n, &waiting, &mut blocked);
        }
        report.interrupted |= self.options.interrupt.asked();
        for (n, step) in steps.iter().enumerate().filter(|(n, _)| !started.contains(n)) {
            let why = match blocked.get(&n) {
                Some(why) => why.clone(),
                None if report.interrupted => "the run was interrupted".into(),
                None => "the run ended before".into(),
            };
            self.tell(Progress::NotStarted { urn: step.urn.clone(), action: verb(&step.action), why: why.clone() });
            report.not_started.push((step.urn.clone(), why));
        }
    }

    /// Returns true when what the step was to delete stays without its name.
    fn left_behind(&self, n: usize) -> bool {
        let step = &self.plan.steps[n];
        let left = |mark| self.ledger.with(|store| store.state().condemned.get(mark).is_some_and(|it| it.left_behind));
        step.mark.as_ref().is_some_and(left)
    }

    /// Returns true when step `other` deletes what lies, as that of step `n` does, in something that goes, and may be left
    /// behind with it.
    fn passes_along(&self, other: usize, n: usize) -> bool {
        let around = |n: usize| {
            let step = &self.plan.steps[n];
            self.ledger.with(|store| {
                let thing = step.mark.as_ref().and_then(|mark| store.state().thing(&step.urn, mark));
                thing.into_iter().flat_map(|record| store.state().around(record)).cloned().collect::<BTreeSet<Urn>>()
            })
        };
        let may = matches!(self.plan.steps[other].action, Action::Delete { may_leave: true, .. });
        may && !around(other).is_disjoint(&around(n))
    }

    /// Marks everything that would take what the thing of step `n`, which was left behind, occupies as not to be started.
    fn keeps(&self, n: usize, waiting: &Waiting, blocked: &mut BTreeMap<usize, String>) {
        let Some(mark) = &self.plan.steps[n].mark else { return };
        let condemned = self.ledger.with(|store| store.state().condemned.get(mark).cloned());
        let Some(condemned) = condemned else { return };
        let taken = |claim: &Claim| condemned.record.occupies().any(|taken| taken.clashes(claim));
        let others = |waiter: &usize| self.plan.steps[*waiter].urn != condemned.urn;
        for waiter in waiting.on(n).filter(others) {
            let claims = self.plan.steps[waiter].spec.iter().flat_map(|spec| &spec.claims);
            if let Some(claim) = claims.into_iter().find(|claim| taken(claim)) {
                let why = format!("{claim} is still taken by {}, which was left behind", condemned.urn.short());
                self.hold_up(waiter, &why, waiting, blocked);
                blocked.insert(waiter, why);
            }
        }
    }

    /// Returns true when step `outer` takes away what contains the thing of step `inner`.
    fn contains(&self, outer: usize, inner: usize) -> bool {
        let (outer, inner) = (&self.plan.steps[outer], &self.plan.steps[inner]);
        let within = |mark| self.ledger.with(|store| lies_in(store.state(), &inner.urn, mark, &outer.urn));
        outer.removes() && inner.mark.as_ref().is_some_and(within)
    }

    /// Returns true when another step may begin beside the `running` ones.
    fn has_room(&self, running: usize) -> bool {
        let busy = running.saturating_sub(self.ground.pauses.count());
        busy < self.options.parallel.max(1) && running < self.options.parallel.max(MOST)
    }

    /// Returns true when nothing new may start.
    fn ends(&self, report: &Report) -> bool {
        self.options.interrupt.asked() || report.stopped
    }

    /// Returns true for a step that may need nobody outside.
    fn light(&self, step: &plan::Step) -> bool {
        // Whether it is too late for a step is asked of one at a time.
        if step.begin_by.is_some() {
            return false;
        }
        let generated = |kind: &str| self.declared.vocabulary.kind(kind).is_some_and(|kind| kind.generated());
        match &step.action {
            Action::Forget { .. } | Action::LeaveBehind => true,
            Action::Create | Action::Update | Action::Renew | Action::Delete { .. } => generated(step.urn.kind()),
            Action::Supersede
            | Action::Import { .. }
            | Action::Continue { .. }
            | Action::Read
            | Action::Gate { .. } => false,
        }
    }

    /// Does everything that is ready and needs nobody outside, and records it at once. Returns what is done and what
    /// failed.
    async fn at_once(
        &self,
        ready: &mut Ready,
        started: &mut BTreeSet<usize>,
        blocked: &BTreeMap<usize, String>,
        report: &mut Report,
    ) -> (Vec<usize>, Vec<usize>) {
        let step = |n: usize| (self.plan.steps[n].urn.clone(), verb(&self.plan.steps[n].action));
        let (mut batch, mut failed) = (Vec::new(), Vec::new());
        let (mut events, mut size) = (Vec::new(), 0);
        while batch.len() < hand::MOST && size < hand::LARGEST && !self.ends(report) {
            let Some(n) = ready.near.pop_first() else { break };
            if blocked.contains_key(&n) {
                continue;
            }
            if !ready.cold.is_empty() && ready.cold.contains(self.plan.steps[n].urn.provider()) {
                ready.later.insert(n);
                continue;
            }
            let work = match self.work(n) {
                Ok(work) => work,
                Err(error) => {
                    started.insert(n);
                    self.failed(n, error, None, false, report);
                    failed.push(n);
                    continue;
                }
            };
            let free = self.locks(&work).is_ok_and(|locks| locks.is_empty());
            let at_hand = if free { hand::done(&work, &self.ground) } else { Hand::Busy };
            let mut done = match at_hand {
                Hand::Done(done) => done,
                Hand::Unconnected => {
                    // One of them connects, and the others need nobody any more.
                    let provider = self.plan.steps[n].urn.provider();
                    let first = ready.cold.insert(provider.to_owned());
                    if first {
                        ready.far.insert(n)
                    } else {
                        ready.later.insert(n)
                    };
                    continue;
                }
                Hand::Busy => {
                    ready.far.insert(n);
                    continue;
                }
            };
            // Told one by one: whoever hears it may ask to stop, and then it was the last.
            let (urn, action) = step(n);
            self.tell(Progress::Started { urn, action });
            started.insert(n);
            size += hand::size(&done);
            batch.push((n, done.is_empty()));
            events.append(&mut done);
        }
        if batch.is_empty() {
            return (Vec::new(), failed);
        }
        let written = if events.is_empty() { Ok(()) } else { self.ledger.commit(events).await };
        let mut done = Vec::new();
        for (n, same) in batch {
            match &written {
                Ok(()) => {
                    let (urn, action) = step(n);
                    report.done.push(urn.clone());
                    self.tell(Progress::Finished { urn, action, same });
                    done.push(n);
                }
                Err(error) => {
                    self.failed(n, error.clone(), None, false, report);
                    failed.push(n);
                }
            }
        }
        (done, failed)
    }

    fn tell(&self, progress: Progress) {
        (self.options.sink)(&progress);
    }

    fn failed(&self, n: usize, error: String, hint: Option<String>, open: bool, report: &mut Report) {
        let step = &self.plan.steps[n];
        let error = self.declared.vault.scrub(&error);
        let action = verb(&step.action);
        let (urn, place) = (step.urn.clone(), step.place.clone());
        self.tell(Progress::Failed {
            urn: urn.clone(),
            action,
            error: error.clone(),
            hint: hint.clone(),
            place: place.clone(),
            open,
        });
        report.failed.push(Failure { urn, action, error, hint, place, open });
    }

    /// Leaves the step `n` where it stands, for the next run.
    fn leaves(&self, n: usize, report: &mut Report) {
        let step = &self.plan.steps[n];
        self.tell(Progress::Interrupted { urn: step.urn.clone(), action: verb(&step.action) });
        report.left.push(step.urn.clone());
    }

    /// Returns why a step does not begin any more: the window that the plan gave it has closed.
    fn too_late(&self, n: usize) -> Option<String> {
        let by = SystemTime::UNIX_EPOCH + Duration::from_secs(self.plan.steps[n].begin_by?);
        (self.ground.clock.now() >= by).then(|| "its maintenance window has closed".to_owned())
    }

    /// Marks everything that waits for the failed step `n` as not to be started.
    fn block(&self, n: usize, waiting: &Waiting, blocked: &mut BTreeMap<usize, String>) {
        let why = format!("it needs {}, which failed", self.plan.steps[n].urn.short());
        self.strand(n, why, waiting, blocked);
    }

    /// Marks everything that waits for `n`, which is held, as not to be started.
    fn hold_up(&self, n: usize, why: &str, waiting: &Waiting, blocked: &mut BTreeMap<usize, String>) {
        let why = format!("it needs {}: {why}", self.plan.steps[n].urn.short());
        self.strand(n, why, waiting, blocked);
    }

    fn strand(&self, n: usize, why: String, waiting: &Waiting, blocked: &mut BTreeMap<usize, String>) {
        let mut todo = vec![n];
        while let Some(n) = todo.pop() {
            for waiter in waiting.on(n) {
                if let Entry::Vacant(unblocked) = blocked.entry(waiter) {
                    unblocked.insert(why.clone());
                    todo.push(waiter);
                }
            }
        }
    }
}
