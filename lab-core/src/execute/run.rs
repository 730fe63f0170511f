//! Walks a plan: what is ready runs, what failed holds up only what needs it.

use super::connect::Connections;
use super::faults::Faults;
use super::hand::{self, Hand};
use super::journal::storable;
use super::ledger::Ledger;
use super::operate::{Ending, Ground, Operation, Stopped};
use super::pauses::Pauses;
use super::progress::{Heard, Progress, STREAM, Sink, Warned, silent};
use super::seal::Ids;
use crate::model::{
    Begun, Declared, Deed, Event, Link, Lock, Mark, NodeKind, Order, Record, Run, Status, Tree, Urn, Why,
};
use crate::plan::{self, Action, Expected, Outcome, Plan, Resolved, Verb, known, realm, verb};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
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
    });
    let walk = Walk { plan, declared: declared.clone(), ledger: ledger.clone(), ground, options };
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
            Err(error) => Err(format!("the outputs of the stack cannot be computed: {error}")),
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
    if !events.is_empty() || !plan.steps.is_empty() {
        let at = link.clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        events.insert(0, Event::Ran(Run { verb: plan.verb.to_string(), at }));
    }
    events
}

struct Walk<'a> {
    plan: &'a Plan,
    declared: Arc<Declared>,
    ledger: Ledger,
    ground: Arc<Ground>,
    options: Options,
}

/// What a running step tells the walk.
enum News {
    Created(usize),
}

/// What a step needs before it can run.
pub(super) enum Work {
    /// An operation of a provider, and the one that follows in the same step: the second half of a replacement.
    Operate(Box<Operation>, Option<Box<Operation>>),
    /// A question.
    Ask(Box<Question>),
    /// Only a record.
    Record(Vec<Event>),
    /// Nothing after all.
    Nothing,
}

pub(super) struct Question {
    urn: Urn,
    provider: String,
    realm: String,
    query: Arc<dyn crate::model::ErasedQuery>,
    inputs: Value,
    timeout: Duration,
    record: bool,
}

impl Walk<'_> {
    async fn walk(&self, report: &mut Report) {
        let steps = &self.plan.steps;
        let mut needed: Vec<Vec<(usize, bool)>> =
            steps.iter().map(|step| step.after.iter().map(|after| (after.step, after.created)).collect()).collect();
        let mut waiters: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (n, step) in steps.iter().enumerate() {
            step.after.iter().for_each(|after| waiters.entry(after.step).or_default().push(n));
        }
        let mut ready = Ready::new(steps.iter().map(|step| self.light(step)).collect());
        (0..steps.len()).filter(|n| needed[*n].is_empty()).for_each(|n| ready.push(n));
        let mut blocked: BTreeMap<usize, String> = BTreeMap::new();
        let mut started: BTreeSet<usize> = BTreeSet::new();
        let mut running: JoinSet<(usize, Ending, bool)> = JoinSet::new();
        let mut tasks: BTreeMap<tokio::task::Id, usize> = BTreeMap::new();
        let mut turns = Turns::default();
        let (news, mut heard) = mpsc::unbounded_channel();
        loop {
            let (done, failed) = self.at_once(&mut ready, &mut started, &blocked, report).await;
            for n in done {
                release(n, false, &waiters, &mut needed, &mut ready, &started, &blocked);
            }
            failed.into_iter().for_each(|n| self.block(n, &waiters, &mut blocked));
            while self.has_room(running.len()) && !self.ends(report) {
                let Some(n) = ready.far.pop_first() else { break };
                if let Some(why) = self.too_late(n) {
                    self.hold_up(n, &why, &waiters, &mut blocked);
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
                        self.block(n, &waiters, &mut blocked);
                        continue;
                    }
                };
                let locks = match self.locks(&work) {
                    Ok(locks) => locks,
                    Err(error) => {
                        started.insert(n);
                        self.failed(n, error, None, false, report);
                        self.block(n, &waiters, &mut blocked);
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
                let waiting = turns.all();
                if self.ends(report) || (ready.is_empty() && waiting.is_empty()) {
                    break;
                }
                // Nobody has a lock any more that somebody could wait for.
                waiting.into_iter().for_each(|n| ready.push(n));
                continue;
            }
            tokio::select! {
                biased;
                Some(News::Created(n)) = heard.recv() => {
                    release(n, true, &waiters, &mut needed, &mut ready, &started, &blocked);
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
                            let action = verb(&steps[n].action);
                            self.tell(Progress::Finished { urn: steps[n].urn.clone(), action, same });
                            report.done.push(steps[n].urn.clone());
                            release(n, false, &waiters, &mut needed, &mut ready, &started, &blocked);
                        }
                        Ending::Failed { error, hint, open } => {
                            self.failed(n, error, hint, open, report);
                            self.block(n, &waiters, &mut blocked);
                        }
                        Ending::Interrupted => {
                            report.interrupted = true;
                            let (urn, action) = (steps[n].urn.clone(), verb(&steps[n].action));
                            report.left.push(urn.clone());
                            self.tell(Progress::Interrupted { urn, action });
                        }
                        Ending::Stopped => {
                            // Asked for by a person, or by a test that plays the end of the process.
                            if self.options.interrupt.asked() {
                                report.left.push(steps[n].urn.clone());
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

    /// Returns why a step does not begin any more: the window that the plan gave it has closed.
    fn too_late(&self, n: usize) -> Option<String> {
        let by = SystemTime::UNIX_EPOCH + Duration::from_secs(self.plan.steps[n].begin_by?);
        (self.ground.clock.now() >= by).then(|| "its maintenance window has closed".to_owned())
    }

    /// Marks everything that waits for the failed step `n` as not to be started.
    fn block(&self, n: usize, waiters: &BTreeMap<usize, Vec<usize>>, blocked: &mut BTreeMap<usize, String>) {
        let why = format!("it needs {}, which failed", self.plan.steps[n].urn.short());
        self.strand(n, why, waiters, blocked);
    }

    /// Marks everything that waits for `n`, which is held, as not to be started.
    fn hold_up(
        &self,
        n: usize,
        why: &str,
        waiters: &BTreeMap<usize, Vec<usize>>,
        blocked: &mut BTreeMap<usize, String>,
    ) {
        let why = format!("it needs {}: {why}", self.plan.steps[n].urn.short());
        self.strand(n, why, waiters, blocked);
    }

    fn strand(
        &self,
        n: usize,
        why: String,
        waiters: &BTreeMap<usize, Vec<usize>>,
        blocked: &mut BTreeMap<usize, String>,
    ) {
        let mut todo = vec![n];
        while let Some(n) = todo.pop() {
            for waiter in waiters.get(&n).into_iter().flatten() {
                if !blocked.contains_key(waiter) {
                    blocked.insert(*waiter, why.clone());
                    todo.push(*waiter);
                }
            }
        }
    }

    /// Returns the locks that a step takes. What can no longer be read takes none; it can still be deleted.
    fn locks(&self, work: &Work) -> Result<Vec<Lock>, String> {
        let Work::Operate(operation, _) = work else { return Ok(Vec::new()) };
        let (kind, inputs, vault) = (&operation.kind, &operation.spec.inputs, &self.declared.vault);
        if operation.deed == Deed::Delete && kind.check(inputs, vault).is_err() {
            return Ok(Vec::new());
        }
        kind.locks(inputs, vault)
    }

    /// Returns what a step comes to, now that everything it waited for is there.
    fn work(&self, n: usize) -> Result<Work, String> {
        let step = &self.plan.steps[n];
        let record = self.ledger.with(|store| store.state().record(&step.urn).cloned());
        match &step.action {
            Action::Create | Action::Supersede | Action::Import { .. } => {
                let resolved = self.resolve(n, record.as_ref())?;
                let (deed, id) = match &step.action {
                    Action::Import { id } => (Deed::Import, Some(id.clone())),
                    Action::Supersede => (Deed::Supersede, None),
                    _ => (Deed::Create, None),
                };
                Ok(Work::Operate(Box::new(self.making(n, deed, id, resolved)?), None))
            }
            Action::Continue { op, making: true } => {
                let record = record.ok_or("what was begun is not in the state")?;
                let open = record.open.as_deref().ok_or("what was begun has ended")?.clone();
                let resolved = self.resolve(n, Some(&record))?;
                let mut operation =
                    self.making(n, open.begun.deed, record.id.clone().or(open.begun.id.clone()), resolved)?;
                resume(&mut operation, op, &record, &open.begun, open.cursor.clone());
                Ok(Work::Operate(Box::new(operation), None))
            }
            Action::Update | Action::Renew | Action::Continue { .. } => {
                let record = record.ok_or("what is to be changed is not in the state")?;
                let resolved = self.resolve(n, Some(&record))?;
                match resolved.outcome {
                    Outcome::Same => {
                        let note = Event::Noted { urn: step.urn.clone(), spec: Box::new(resolved.spec.clone()) };
                        let events = if resolved.spec == record.spec { Vec::new() } else { vec![note] };
                        Ok(if events.is_empty() { Work::Nothing } else { Work::Record(events) })
                    }
                    Outcome::AsPlanned => {
                        let mut operation = self.changing(n, &record, resolved)?;
                        if let (Action::Continue { op, .. }, Some(open)) = (&step.action, record.open.as_deref()) {
                            resume(&mut operation, op, &record, &open.begun, open.cursor.clone());
                        }
                        Ok(Work::Operate(Box::new(operation), None))
                    }
                    Outcome::Replace(order) => self.replacing(n, &record, resolved, order),
                }
            }
            Action::Delete { why, may_leave, condemned, .. } => {
                let record = if *condemned {
                    self.condemned(n)?
                } else {
                    record.ok_or("what is to be deleted is not in the state")?
                };
                let mut operation = self.deleting(&step.urn, &record, *why)?;
                operation.may_leave = *may_leave;
                operation.consent = step.destroys.clone();
                operation.timeout = Duration::from_secs(step.timeout);
                Ok(Work::Operate(Box::new(operation), None))
            }
            Action::Forget { condemned: true, .. } => {
                let mark = step.mark.clone().ok_or("the plan does not say which")?;
                Ok(Work::Record(vec![Event::Forgot { urns: Vec::new(), marks: vec![mark] }]))
            }
            Action::Forget { condemned: false, .. } => {
                let known = self.ledger.with(|store| {
                    store.state().records.contains_key(&step.urn) || store.state().answers.contains_key(&step.urn)
                });
                let events = vec![Event::Forgot { urns: vec![step.urn.clone()], marks: Vec::new() }];
                Ok(if known { Work::Record(events) } else { Work::Nothing })
            }
            Action::LeaveBehind => Ok(Work::Record(vec![Event::LeftBehind { urn: step.urn.clone() }])),
            Action::Read => {
                let node = self.declared.node(&step.urn).ok_or("it is not declared")?;
                let NodeKind::Read(query) = &node.kind else { return Err("it is a resource, not a read".into()) };
                self.question(n, &node.provider, query, &node.inputs.value(), true)
            }
            Action::Gate { group, gate } => {
                let group = self.declared.groups.get(group).ok_or("its rolling group is not declared")?;
                let gate = group.gates.get(*gate).ok_or("its rolling group has no such gate")?;
                self.question(n, &gate.provider, &gate.query, &gate.inputs, false)
            }
        }
    }

    fn question(
        &self,
        n: usize,
        provider: &str,
        query: &Arc<dyn crate::model::ErasedQuery>,
        inputs: &Value,
        record: bool,
    ) -> Result<Work, String> {
        let values = self.ledger.values();
        let step = &self.plan.steps[n];
        Ok(Work::Ask(Box::new(Question {
            urn: step.urn.clone(),
            provider: provider.to_owned(),
            realm: realm(provider, &self.declared, &values)?,
            query: query.clone(),
            inputs: known(inputs, &self.declared, &values)?,
            timeout: Duration::from_secs(step.timeout),
            record,
        })))
    }

    fn resolve(&self, n: usize, record: Option<&Record>) -> Result<Resolved, String> {
        plan::resolve(&self.plan.steps[n], &self.declared, record, &self.ledger.values())
    }

    fn condemned(&self, n: usize) -> Result<Record, String> {
        let step = &self.plan.steps[n];
        let mark = step.mark.as_ref().ok_or("the plan does not say which")?;
        let found = self.ledger.with(|store| {
            let state = store.state();
            state
                .condemned
                .get(mark)
                .map(|condemned| condemned.record.clone())
                .or_else(|| state.record(&step.urn).filter(|record| record.mark == *mark).cloned())
        });
        found.ok_or_else(|| "what is to be deleted is not in the state".into())
    }

    fn mark(&self) -> Mark {
        Mark(self.options.ids.next())
    }

    fn blank(&self, urn: &Urn, spec: crate::model::Spec, deed: Deed) -> Result<Operation, String> {
        let kind = self.declared.vocabulary.kind(&spec.kind);
        let kind = kind.ok_or_else(|| format!("this program does not know the type {}", spec.kind))?.clone();
        let op = self.mark();
        let seed = u64::from_str_radix(op.0.get(..16).unwrap_or("0"), 16).unwrap_or_default();
        Ok(Operation {
            urn: urn.clone(),
            kind,
            deed,
            mark: op.clone(),
            op,
            inputs: Tree::default(),
            spec,
            prior: None,
            id: None,
            expected: Expected { mark: None, by_id: false, unmarked: false, adopt: deed == Deed::Import },
            begun: false,
            current: false,
            behind: false,
            cursor: None,
            undone: None,
            why: Why::Declared,
            seed,
            consent: None,
            timeout: Duration::from_secs(600),
            may_leave: false,
            fresh: None,
            recorded: None,
            shown: None,
            created: Arc::new(|| {}),
        })
    }

    fn making(
        &self,
        n: usize,
        deed: Deed,
        id: Option<crate::model::Id>,
        resolved: Resolved,
    ) -> Result<Operation, String> {
        let step = &self.plan.steps[n];
        let natural = || {
            let node = self.declared.vocabulary.kind(&resolved.spec.kind)?;
            node.id(&resolved.spec.inputs, &self.declared.vault).ok().flatten()
        };
        let id = id.or_else(natural);
        let inputs = resolved.inputs;
        let blank = self.blank(&step.urn, resolved.spec, deed)?;
        Ok(Operation {
            inputs,
            id,
            consent: step.destroys.clone(),
            timeout: Duration::from_secs(step.timeout),
            ..blank
        })
    }

    fn changing(&self, n: usize, record: &Record, resolved: Resolved) -> Result<Operation, String> {
        let step = &self.plan.steps[n];
        let blank = self.blank(&step.urn, resolved.spec, Deed::Update)?;
        let renews = matches!(step.action, Action::Renew);
        Ok(Operation {
            mark: record.mark.clone(),
            inputs: resolved.inputs,
            prior: Some(record.spec.inputs.clone()),
            id: record.id.clone(),
            expected: Expected {
                mark: Some(record.mark.clone()),
                by_id: record.id.is_some(),
                unmarked: record.unmarked,
                adopt: false,
            },
            consent: step.destroys.clone(),
            timeout: Duration::from_secs(step.timeout),
            fresh: (!renews && record.status == Status::Ready).then_some(resolved.fresh),
            recorded: Some(record.outputs.clone()),
            ..blank
        })
    }

    fn deleting(&self, urn: &Urn, record: &Record, why: Why) -> Result<Operation, String> {
        let open = record.open.as_deref();
        let resumed = open.filter(|open| open.begun.deed == Deed::Delete);
        let undone = match resumed {
            Some(open) => open.before.as_deref(),
            None => open,
        };
        let undone = undone.filter(|open| open.begun.deed.makes());
        let blank = self.blank(urn, record.spec.clone(), Deed::Delete)?;
        let mut operation = Operation {
            mark: record.mark.clone(),
            prior: Some(record.spec.inputs.clone()),
            id: record.id.clone().or_else(|| undone.and_then(|open| open.begun.id.clone())),
            expected: Expected {
                mark: Some(record.mark.clone()),
                by_id: record.id.is_some() || undone.is_some_and(|open| open.begun.absent),
                unmarked: record.unmarked,
                adopt: false,
            },
            why,
            undone: undone.and_then(|open| open.cursor.clone()),
            ..blank
        };
        if let Some(open) = resumed {
            operation.op = open.begun.op.clone();
            operation.seed = open.begun.seed;
            operation.cursor = open.cursor.clone();
            operation.begun = true;
            operation.current = true;
            if operation.cursor.is_some() {
                operation.undone = None;
            }
        }
        Ok(operation)
    }

    /// A change that turned out to be a replacement, as the plan said it might: both halves in this step.
    fn replacing(&self, n: usize, record: &Record, resolved: Resolved, order: Order) -> Result<Work, String> {
        let step = &self.plan.steps[n];
        let keeps = resolved.spec.claims.iter().any(|claim| record.spec.claims.iter().any(|old| old.clashes(claim)));
        let create_first = order == Order::CreateFirst && !keeps && record.open.is_none();
        let mut old = self.deleting(&step.urn, record, Why::Replaced)?;
        old.consent = step.destroys.clone();
        let deed = if create_first { Deed::Supersede } else { Deed::Create };
        let new = self.making(n, deed, None, resolved)?;
        let same_id = new.id.is_some() && new.id == record.id;
        Ok(if create_first && !same_id {
            Work::Operate(Box::new(new), Some(Box::new(old)))
        } else {
            Work::Operate(Box::new(old), Some(Box::new(Operation { deed: Deed::Create, ..new })))
        })
    }
}

/// Makes `operation` the one that is open.
fn resume(operation: &mut Operation, op: &Mark, record: &Record, begun: &Begun, cursor: Option<Value>) {
    operation.op = op.clone();
    operation.mark = record.mark.clone();
    operation.seed = begun.seed;
    operation.begun = true;
    operation.current = begun.spec == operation.spec;
    operation.cursor = cursor;
    operation.behind = begun.behind || begun.spec.inputs != operation.spec.inputs;
    operation.prior = Some(if begun.deed.makes() { begun.spec.inputs.clone() } else { record.spec.inputs.clone() });
    operation.expected = Expected {
        mark: Some(record.mark.clone()),
        by_id: record.id.is_some() || (begun.deed.makes() && begun.absent),
        unmarked: record.unmarked,
        adopt: begun.deed == Deed::Import,
    };
}

async fn carry_out(
    work: Work,
    ground: &Ground,
    ledger: &Ledger,
    created: Arc<dyn Fn() + Send + Sync>,
) -> (Ending, bool) {
    let failed = |error: String| Ending::Failed { error, hint: None, open: false };
    match work {
        Work::Nothing => (Ending::Done, true),
        Work::Record(events) => match ledger.commit(events).await {
            Ok(()) => (Ending::Done, false),
            Err(error) => (failed(error), false),
        },
        Work::Operate(mut first, then) => {
            first.created = created;
            match (first.run(ground).await, then) {
                (Ending::Done, Some(second)) => (second.run(ground).await, false),
                (ending, _) => (ending, false),
            }
        }
        Work::Ask(question) => (question.ask(ground).await, false),
    }
}

impl Question {
    /// Asks until there is an answer, or the deadline has passed.
    async fn ask(self, ground: &Ground) -> Ending {
        let deadline = ground.clock.after(ground.clock.patience(self.timeout));
        let mut said;
        loop {
            if ground.interrupt.asked() {
                return Ending::Interrupted;
            }
            let connected = match ground.connect(&self.provider, &self.realm, deadline).await {
                Ok(connected) => connected,
                Err(Stopped) => return Ending::Stopped,
            };
            let answer = match connected {
                Ok(connected) => {
                    let (query, inputs, vault) = (self.query.clone(), self.inputs.clone(), ground.vault.clone());
                    let client = connected.client;
                    match ground.call(deadline, async move { query.read(&client, &inputs, &vault).await }).await {
                        Ok(answer) => answer,
                        Err(Stopped) => return Ending::Stopped,
                    }
                }
                Err(error) => Err(error),
            };
            let pause = match answer {
                Ok(crate::model::Step::Done(made)) => {
                    if let Err(why) = storable(&made.outputs) {
                        let error = format!(
                            "{} answered with what cannot be stored: {why}. This is a mistake of the provider",
                            self.query.name()
                        );
                        return Ending::Failed { error, hint: None, open: false };
                    }
                    let answered = Event::Answered { urn: self.urn.clone(), answer: made.outputs };
                    let known = ground.ledger.with(|store| match &answered {
                        Event::Answered { urn, answer } => store.state().answers.get(urn) == Some(answer),
                        _ => false,
                    });
                    if self.record
                        && !known
                        && let Err(error) = ground.ledger.commit(vec![answered]).await
                    {
                        return Ending::Failed { error, hint: None, open: false };
                    }
                    return Ending::Done;
                }
                Ok(crate::model::Step::Next { why, pause, .. }) => {
                    said = ground.vault.scrub(&why);
                    pause
                }
                Err(error)
                    if matches!(error.class, crate::model::Class::Invalid | crate::model::Class::Unauthorised) =>
                {
                    return Ending::Failed { error: ground.vault.scrub(&error.message), hint: None, open: false };
                }
                Err(error) => {
                    said = ground.vault.scrub(&error.message);
                    Duration::from_secs(2)
                }
            };
            (ground.sink)(&Progress::Waiting { urn: self.urn.clone(), why: said.clone() });
            if !ground.allows(pause, deadline) {
                let error = format!("it did not hold within {} s: {said}", self.timeout.as_secs());
                return Ending::Failed { error, hint: None, open: false };
            }
            if !ground.pause(pause, false).await {
                return Ending::Interrupted;
            }
        }
    }
}

/// What is ready to run, the earliest in the plan first.
struct Ready {
    /// Whether each step may need nobody outside.
    light: Vec<bool>,
    /// What may need nobody outside.
    near: BTreeSet<usize>,
    /// What needs somebody.
    far: BTreeSet<usize>,
    /// What needs nobody once somebody else has connected, and the providers that one step is connecting to.
    later: BTreeSet<usize>,
    cold: BTreeSet<String>,
}

impl Ready {
    fn new(light: Vec<bool>) -> Ready {
        Ready { light, near: BTreeSet::new(), far: BTreeSet::new(), later: BTreeSet::new(), cold: BTreeSet::new() }
    }

    /// A step has ended: there may be a connection now.
    fn thaw(&mut self) {
        self.near.append(&mut self.later);
        self.cold.clear();
    }

    fn push(&mut self, n: usize) {
        if self.light[n] {
            self.near.insert(n)
        } else {
            self.far.insert(n)
        };
    }

    fn is_empty(&self) -> bool {
        self.near.is_empty() && self.far.is_empty()
    }
}

/// Who has which lock, and who waits for one.
#[derive(Default)]
struct Turns {
    held: BTreeMap<usize, Vec<Lock>>,
    taken: BTreeMap<String, u32>,
    /// By the lock that each waits for. It waits for no other until that one is given back.
    waiting: BTreeMap<String, BTreeMap<usize, Lock>>,
}

impl Turns {
    fn fits(&self, lock: &Lock) -> bool {
        let taken = self.taken.get(&lock.name).copied().unwrap_or_default();
        taken == 0 || taken.saturating_add(lock.weight) <= lock.capacity
    }

    /// Takes all `locks`, or none and waits.
    fn take(&mut self, n: usize, locks: Vec<Lock>) -> bool {
        if let Some(lock) = locks.iter().find(|lock| !self.fits(lock)) {
            self.waiting.entry(lock.name.clone()).or_default().insert(n, lock.clone());
            return false;
        }
        for lock in &locks {
            let taken = self.taken.entry(lock.name.clone()).or_default();
            *taken = taken.saturating_add(lock.weight);
        }
        if !locks.is_empty() {
            self.held.insert(n, locks);
        }
        true
    }

    /// Gives back what `n` has, and returns who has a turn now.
    fn give_back(&mut self, n: usize) -> Vec<usize> {
        let mut next = Vec::new();
        for lock in self.held.remove(&n).unwrap_or_default() {
            let mut taken = self.taken.remove(&lock.name).unwrap_or_default().saturating_sub(lock.weight);
            if taken > 0 {
                self.taken.insert(lock.name.clone(), taken);
            }
            let Some(waiting) = self.waiting.get_mut(&lock.name) else { continue };
            waiting.retain(|n, lock| {
                let fits = taken == 0 || taken.saturating_add(lock.weight) <= lock.capacity;
                if fits {
                    taken = taken.saturating_add(lock.weight);
                    next.push(*n);
                }
                !fits
            });
        }
        next
    }

    /// Returns everybody who waits, and lets them try anew.
    fn all(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.waiting).into_values().flat_map(BTreeMap::into_keys).collect()
    }
}

fn release(
    n: usize,
    created: bool,
    waiters: &BTreeMap<usize, Vec<usize>>,
    needed: &mut [Vec<(usize, bool)>],
    ready: &mut Ready,
    started: &BTreeSet<usize>,
    blocked: &BTreeMap<usize, String>,
) {
    for waiter in waiters.get(&n).into_iter().flatten().copied() {
        needed[waiter].retain(|(other, enough)| *other != n || (created && !enough));
        if needed[waiter].is_empty() && !started.contains(&waiter) && !blocked.contains_key(&waiter) {
            ready.push(waiter);
        }
    }
}
