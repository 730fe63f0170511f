//! One operation on one resource: look, begin, step by step to the end. Every decision is the plan's or the contract's.

use super::connect::{Connected, Connections};
use super::faults::{CallFault, Faults};
use super::journal::{storable, storable_tree};
use super::ledger::Ledger;
use super::pauses::Pauses;
use super::progress::{Progress, Sink};
use super::run::Interrupt;
use crate::model::{
    AnyClient, Begun, Class, Clock, Deed, Effect, Ended, ErasedOp, ErasedType, Error, Event, Found, Id, MadeRecord,
    Mark, Owner, Path, Spec, State, Step, Tree, Urn, Vault, Warnings, Why, panic_text, seal_live,
};
use crate::plan::{Expected, Verdict, judge};
use serde_json::Value;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::Semaphore;

/// The first pause after a failure that may pass; doubled up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause after a failure that may pass.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// What the operations of a run share.
pub(super) struct Ground {
    pub(super) ledger: Ledger,
    pub(super) connections: Connections,
    pub(super) vault: Vault,
    pub(super) clock: Clock,
    pub(super) sink: Sink,
    pub(super) interrupt: Interrupt,
    pub(super) faults: Arc<Faults>,
    /// How many calls may be made at the same time.
    pub(super) calls: Semaphore,
    pub(super) pauses: Pauses,
    /// What was passed over, to be left behind once what contains it is gone.
    pub(super) passed: Mutex<Vec<Passed>>,
}

/// Something that has effects outside of what contains it, and could not be deleted: nothing answered there.
pub(super) struct Passed {
    urn: Urn,
    mark: Mark,
    error: String,
}

/// Returns true when the thing that operation `mark` made lies in `container`, however deep.
pub(super) fn lies_in(state: &State, urn: &Urn, mark: &Mark, container: &Urn) -> bool {
    state.thing(urn, mark).is_some_and(|record| state.around(record).any(|around| around == container))
}

/// One operation, with everything known that it needs.
#[derive(Clone)]
pub(super) struct Operation {
    pub(super) urn: Urn,
    pub(super) kind: Arc<dyn ErasedType>,
    pub(super) deed: Deed,
    /// This operation: new, or the open one that is resumed.
    pub(super) op: Mark,
    /// The operation that made the thing; this one, when it makes it.
    pub(super) mark: Mark,
    /// What is wanted; for a delete, what was.
    pub(super) spec: Spec,
    /// What the provider is given: the inputs with those that are only sent once.
    pub(super) inputs: Tree,
    /// The inputs begun or last applied.
    pub(super) prior: Option<Tree>,
    pub(super) id: Option<Id>,
    pub(super) expected: Expected,
    /// True when it is open in the state.
    pub(super) begun: bool,
    /// True when it was begun with other inputs: what stands there may have been made from those.
    pub(super) behind: bool,
    pub(super) cursor: Option<Value>,
    /// The cursor of a create that this delete undoes: where the thing may be found.
    pub(super) undone: Option<Value>,
    pub(super) why: Why,
    pub(super) seed: u64,
    pub(super) consent: Option<String>,
    pub(super) timeout: Duration,
    /// True when it may be left behind should nothing answer, and what contains it go.
    pub(super) may_leave: bool,
    /// Outputs that may change; None when any may.
    pub(super) fresh: Option<Vec<Path>>,
    /// Outputs as recorded.
    pub(super) recorded: Option<Tree>,
    /// True when what the state says was begun is what is wanted now.
    pub(super) current: bool,
    /// The thing as last recorded while not ready.
    pub(super) shown: Option<MadeRecord>,
    /// The acts around a member that are spent once this begins: with what is done before it is interrupted, or with the
    /// interruption itself, what came after an earlier one.
    pub(super) spends_first: Vec<Urn>,
    /// True when what comes after is owed from its beginning on, and nothing else that is recorded says so.
    pub(super) owes: bool,
    /// Those that are spent once this ends: with the interruption, what was done before it.
    pub(super) spends_last: Vec<Urn>,
    /// Called once the thing exists, ready or not.
    pub(super) created: Arc<dyn Fn() + Send + Sync>,
}

/// How an operation went.
#[derive(Debug)]
pub(super) enum Ending {
    /// It is complete.
    Done,
    /// Nothing answered. It has failed, unless what contains it goes all the same: then it was left behind.
    Passed { error: String, hint: Option<String>, open: bool },
    /// It failed; `open` when the next run will finish it.
    Failed { error: String, hint: Option<String>, open: bool },
    /// It was interrupted by a person; the next run will finish it.
    Interrupted,
    /// The process is gone, as a test wanted it.
    Stopped,
}

/// What ended a sequence of calls.
pub(super) enum Halt {
    Failed {
        error: String,
        hint: Option<String>,
    },
    Interrupted,
    Stopped,
    /// It may be left behind.
    Passed {
        error: String,
        hint: Option<String>,
    },
}

impl From<String> for Halt {
    fn from(error: String) -> Halt {
        Halt::Failed { error, hint: None }
    }
}

impl Ground {
    fn tell(&self, progress: Progress) {
        (self.sink)(&progress);
    }

    /// Makes one call to a provider: within the deadline, caught when it panics, counted for faults.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        deadline: SystemTime,
        call: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<Result<T, Error>, Stopped> {
        let left = deadline.duration_since(self.clock.now()).unwrap_or_default();
        let _turn = tokio::select! {
            biased;
            turn = self.calls.acquire() => turn.map_err(|_| Stopped)?,
            () = self.clock.sleep(left) => return Ok(Err(Error::unreachable(CUT_SHORT))),
            () = self.interrupt.abandoned() => return Err(Stopped),
        };
        let fault = self.faults.next();
        match fault {
            Some(CallFault::StopBefore) => return Err(Stopped),
            Some(CallFault::Refuse) => return Ok(Err(Error::unreachable("the call was refused"))),
            Some(CallFault::StopAfter | CallFault::LoseReply) | None => {}
        }
        let left = deadline.duration_since(self.clock.now()).unwrap_or_default();
        let mut task = tokio::spawn(call);
        let answer = tokio::select! {
            // In this order, so that the same run is the same every time.
            biased;
            answer = &mut task => match answer {
                Ok(answer) => answer,
                Err(error) if error.is_panic() => {
                    let said = panic_text(&*error.into_panic());
                    Err(Error::invalid(format!("the provider panicked: {said}")).perhaps())
                }
                Err(_) => Err(Error::unreachable("the call was cancelled").perhaps()),
            },
            () = self.clock.sleep(left) => {
                task.abort();
                Err(Error::unreachable(CUT_SHORT).perhaps())
            }
            () = self.interrupt.abandoned() => {
                task.abort();
                return Err(Stopped);
            }
        };
        match fault {
            Some(CallFault::StopAfter) => Err(Stopped),
            Some(CallFault::LoseReply) => Ok(Err(Error::unreachable("the reply was lost").perhaps())),
            Some(CallFault::StopBefore | CallFault::Refuse) | None => {
                Ok(answer.map_err(|error| Error { message: self.vault.scrub(&error.message), ..error }))
            }
        }
    }
}

impl Ground {
    /// Connects to what provider `name` points at in `place`, before the deadline.
    pub(super) async fn connect(
        &self,
        name: &str,
        place: &str,
        deadline: SystemTime,
    ) -> Result<Result<Connected, Error>, Stopped> {
        // Connecting changes nothing outside, so it is not a call that faults are counted for.
        let left = deadline.duration_since(self.clock.now()).unwrap_or_default();
        tokio::select! {
            connected = self.connections.to(name, place) => {
                Ok(connected.map_err(|error| Error { message: self.vault.scrub(&error.message), ..error }))
            }
            () = self.clock.sleep(left) => Ok(Err(Error::unreachable("there was no connection before the deadline"))),
            () = self.interrupt.abandoned() => Err(Stopped),
        }
    }

    /// Pauses, and leaves the turn to others where what is waited for `ripens`; returns false when the run is to end.
    pub(super) async fn pause(&self, pause: Duration, ripens: bool) -> bool {
        let _pausing = ripens.then(|| self.pauses.begin());
        tokio::select! {
            biased;
            () = self.clock.sleep(pause) => true,
            () = self.interrupt.any() => false,
        }
    }

    /// Takes what was passed over and lies in `container`, however deep.
    fn passed_in(&self, container: &Urn) -> Vec<Passed> {
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        let within = |passed: &mut Passed| {
            self.ledger.with(|store| lies_in(store.state(), &passed.urn, &passed.mark, container))
        };
        passed.extract_if(.., within).collect()
    }

    /// Says whether there is time for a pause before the deadline. A provider may ask for one without end.
    pub(super) fn allows(&self, pause: Duration, deadline: SystemTime) -> bool {
        self.clock.now().checked_add(pause).is_some_and(|then| then < deadline)
    }
}

/// The process is gone, or a person gave up on it.
pub(super) struct Stopped;

impl From<Stopped> for Halt {
    fn from(_: Stopped) -> Halt {
        Halt::Stopped
    }
}

impl Operation {
    /// Carries the operation out.
    pub(super) async fn run(mut self, ground: &Ground) -> Ending {
        let deadline = ground.clock.after(ground.clock.patience(self.timeout));
        match self.attempt(ground, deadline).await {
            Ok(()) => Ending::Done,
            Err(Halt::Passed { error, hint }) => {
                let error = ground.vault.scrub(&error);
                let passed = Passed { urn: self.urn.clone(), mark: self.mark.clone(), error: error.clone() };
                ground.passed.lock().unwrap_or_else(PoisonError::into_inner).push(passed);
                Ending::Passed { error, hint, open: self.begun }
            }
            Err(Halt::Stopped) => Ending::Stopped,
            Err(Halt::Interrupted) => Ending::Interrupted,
            Err(Halt::Failed { error, hint }) => {
                Ending::Failed { error: ground.vault.scrub(&error), hint, open: self.begun }
            }
        }
    }

    async fn attempt(&mut self, ground: &Ground, deadline: SystemTime) -> Result<(), Halt> {
        let mut backoff = Backoff::default();
        let mut look = true;
        let mut exists = !self.deed.makes();
        // Whether any call of this operation may have had an effect: then it cannot end as one that had none.
        let mut touched = self.begun;
        // Whether everything since the last look was made from today's inputs.
        let mut fresh = false;
        // What an earlier run made may have fallen due before this one came to finish it.
        let resumed = self.begun;
        let overdue =
            |made: &crate::model::Made<Tree>| resumed && made.due.is_some_and(|due| due <= ground.clock.now());
        loop {
            // What exists only in the state is not looked for: it is there when the state says so.
            if look && !(self.kind.generated() && self.deed == Deed::Update) {
                match self.look(ground, deadline, &mut backoff).await? {
                    Looked::Absent if self.deed == Deed::Delete => return self.gone(ground).await,
                    Looked::Absent if self.deed == Deed::Update => return self.vanished(ground).await,
                    Looked::Absent if self.deed == Deed::Import => {
                        return self
                            .refuse(ground, touched, "there is nothing with this identity to import".into(), None)
                            .await;
                    }
                    Looked::Absent => {
                        exists = false;
                        self.behind &= self.cursor.is_some();
                    }
                    Looked::Leaving(why) => {
                        self.wait(ground, deadline, &why, Duration::from_secs(2)).await?;
                        continue;
                    }
                    Looked::Foreign(why) if self.deed == Deed::Delete => {
                        // Ours is gone; what bears its name now is somebody else's.
                        ground.tell(Progress::Warning {
                            urn: Some(self.urn.clone()),
                            message: format!("it was left alone: {why}"),
                        });
                        return self.gone(ground).await;
                    }
                    Looked::Foreign(why) => return self.foreign(ground, touched, why).await,
                    Looked::Ours(step, owner) => {
                        exists = true;
                        match step {
                            Step::Next { why, pause, .. } if self.deed == Deed::Import => {
                                self.wait(ground, deadline, &why, pause).await?;
                                continue;
                            }
                            Step::Next { cursor, .. } if self.deed != Deed::Delete => {
                                self.cursor = Some(cursor);
                                fresh = false;
                            }
                            Step::Next { .. } => {}
                            Step::Done(made) if self.deed == Deed::Import => {
                                return self.adopt(ground, made, &owner).await;
                            }
                            // What was begun is there, and is still what is wanted: the reply was lost, no more.
                            Step::Done(made)
                                if self.deed.makes()
                                    && !self.behind
                                    && self.prior.as_ref() == Some(&self.spec.inputs)
                                    && !overdue(&made) =>
                            {
                                return self.done(ground, made).await;
                            }
                            Step::Done(_) if self.deed.makes() || self.behind => {
                                self.cursor = None;
                                fresh = true;
                            }
                            Step::Done(_) => {}
                        }
                    }
                }
                look = false;
            }
            // Of what exists only in the state, nothing leaves the process: its beginning is recorded with what comes of
            // it.
            if (!self.begun || !self.current) && (self.begun || !self.kind.generated()) {
                self.begin(ground).await?;
            } else if let Some(debt) = self.debt(ground) {
                // It was begun by a program that had nothing to be done after it.
                ground.ledger.commit(vec![debt]).await?;
            }
            let answer = self.step(ground, deadline, exists).await?;
            match answer {
                Ok(Step::Done(_)) if self.deed == Deed::Delete => return self.gone(ground).await,
                // It was finished as it was begun. Today's inputs are another change, and so is what is due by now.
                Ok(Step::Done(made)) if (self.behind || overdue(&made)) && !fresh => {
                    touched = true;
                    exists = true;
                    fresh = true;
                    self.cursor = None;
                }
                Ok(Step::Done(made)) => return self.done(ground, made).await,
                Ok(Step::Next { cursor, made, why, pause }) => {
                    backoff = Backoff::default();
                    touched = true;
                    self.stand(ground, cursor, made).await?;
                    self.wait(ground, deadline, &why, pause).await?;
                }
                Err(error) => {
                    let perhaps = error.effect == Effect::Perhaps;
                    touched |= perhaps;
                    look |= perhaps;
                    match error.class {
                        Class::Again | Class::Unreachable => {}
                        Class::Conflict | Class::Gone => look = true,
                        Class::Invalid | Class::Unauthorised => {
                            let hint = hint(error.class);
                            // Who is not let in does not learn anything by a look either.
                            let look = !touched && error.class == Class::Invalid;
                            touched |= look && self.made_all_the_same(ground, deadline).await?;
                            return self.refuse(ground, touched, error.message, hint).await;
                        }
                    }
                    if matches!(error.class, Class::Conflict | Class::Gone) && backoff.tries >= 5 {
                        return self.refuse(ground, touched, error.message, hint(error.class)).await;
                    }
                    self.retry(ground, deadline, &mut backoff, &error).await?;
                }
            }
        }
    }

    /// Looks until there is an answer. An error means that nothing is known.
    async fn look(&mut self, ground: &Ground, deadline: SystemTime, backoff: &mut Backoff) -> Result<Looked, Halt> {
        if self.kind.generated() {
            return Ok(Looked::Absent);
        }
        loop {
            match self.glance(ground, deadline).await? {
                Ok(looked) => return Ok(looked),
                Err(error) => self.pass(ground, deadline, backoff, error).await?,
            }
        }
    }

    /// Looks once. An error means that nothing is known.
    async fn glance(&self, ground: &Ground, deadline: SystemTime) -> Result<Result<Looked, Error>, Halt> {
        let (client, _) = match self.connect(ground, deadline).await? {
            Ok(connected) => connected,
            Err(error) => return Ok(Err(error)),
        };
        let deleting = self.deed == Deed::Delete && self.undone.is_none();
        let cursor = self.undone.clone().or_else(|| self.cursor.clone());
        let op = self.op(ground, self.begun || !self.deed.makes(), deleting, cursor);
        let (kind, vault, warnings) = (self.kind.clone(), ground.vault.clone(), op.warnings.clone());
        let found = ground.call(deadline, async move { kind.find(&client, op, &vault).await }).await;
        self.warn(ground, &warnings);
        Ok(match found? {
            Ok(found) => Ok(Looked::from(judge(found, &self.expected))),
            Err(error) if error.class == Class::Gone => Ok(Looked::from(judge(Found::Absent, &self.expected))),
            Err(error) => Err(error),
        })
    }

    /// Returns true if what a creation says that it did not make is there. Nobody would know of it once its record is gone.
    async fn made_all_the_same(&self, ground: &Ground, deadline: SystemTime) -> Result<bool, Halt> {
        if !self.deed.makes() || self.kind.generated() {
            return Ok(false);
        }
        Ok(matches!(self.glance(ground, deadline).await?, Ok(Looked::Ours(..))))
    }

    /// Passes over a failure to learn anything, if it may pass.
    async fn pass(
        &mut self,
        ground: &Ground,
        deadline: SystemTime,
        backoff: &mut Backoff,
        error: Error,
    ) -> Result<(), Halt> {
        match error.class {
            Class::Again | Class::Unreachable | Class::Conflict | Class::Gone => {
                self.retry(ground, deadline, backoff, &error).await
            }
            Class::Invalid | Class::Unauthorised => {
                Err(Halt::Failed { error: error.message, hint: hint(error.class).map(str::to_owned) })
            }
        }
    }

    async fn connect(
        &self,
        ground: &Ground,
        deadline: SystemTime,
    ) -> Result<Result<(AnyClient, Option<Event>), Error>, Halt> {
        let connected = ground.connect(&self.spec.provider, &self.spec.realm, deadline).await?;
        Ok(connected.map(|connected| (connected.client, connected.reached)))
    }

    pub(super) fn op(&self, ground: &Ground, exists: bool, deleting: bool, cursor: Option<Value>) -> ErasedOp {
        ErasedOp {
            mark: self.mark.0.clone(),
            id: self.id.clone(),
            inputs: self.prior.clone().or_else(|| Some(self.spec.inputs.clone())),
            exists,
            deleting,
            cursor,
            why: self.why,
            now: ground.clock.now(),
            seed: self.seed,
            warnings: Warnings::default(),
        }
    }

    /// Returns the record of the beginning.
    pub(super) fn beginning(&self) -> Event {
        let begun = Begun {
            op: self.op.clone(),
            mark: self.mark.clone(),
            deed: self.deed,
            spec: self.spec.clone(),
            id: self.id.clone(),
            why: self.why,
            seed: self.seed,
            absent: self.deed.makes() && !self.begun && self.deed != Deed::Import,
            consent: self.consent.clone(),
            behind: false,
            took: Vec::new(),
        };
        Event::Begin { urn: self.urn.clone(), begun: Box::new(begun) }
    }

    /// Returns what is to be recorded of what comes after, unless that is recorded already.
    fn debt(&self, ground: &Ground) -> Option<Event> {
        let owed = ground.ledger.with(|store| store.state().owed.contains_key(&self.urn));
        (self.owes && !owed).then(|| self.owed())
    }

    fn owed(&self) -> Event {
        Event::Owed { member: self.urn.clone(), op: self.op.clone() }
    }

    /// Makes the beginning durable. Nothing has left the process before this returns.
    async fn begin(&mut self, ground: &Ground) -> Result<(), Halt> {
        self.begin_and(ground, Vec::new()).await
    }

    /// Makes the beginning durable, and in the same frame what followed from it.
    async fn begin_and(&mut self, ground: &Ground, mut then: Vec<Event>) -> Result<(), Halt> {
        let beginning = self.beginning();
        let mut events = Vec::new();
        if !self.kind.generated()
            && let Ok((_, Some(reached))) =
                self.connect(ground, ground.clock.after(ground.clock.patience(self.timeout))).await?
        {
            events.push(reached);
        }
        events.extend(spent(ground, &self.spends_first));
        events.extend(self.debt(ground));
        events.push(beginning);
        events.append(&mut then);
        ground.ledger.commit(events).await?;
        self.begun = true;
        self.current = true;
        // From here on the thing may be there by our own doing: a reply that is lost must not make ours look foreign.
        if matches!(self.deed, Deed::Create | Deed::Supersede) {
            self.expected.mark = Some(self.mark.clone());
            self.expected.by_id = true;
        }
        self.prior = match self.deed {
            Deed::Create | Deed::Supersede | Deed::Import => Some(self.spec.inputs.clone()),
            Deed::Update | Deed::Delete => self.prior.take(),
        };
        Ok(())
    }

    async fn step(
        &self,
        ground: &Ground,
        deadline: SystemTime,
        exists: bool,
    ) -> Result<Result<Step<Tree>, Error>, Halt> {
        if ground.interrupt.asked() {
            return Err(Halt::Interrupted);
        }
        let client = match self.connect(ground, deadline).await? {
            Ok((client, _)) => client,
            Err(error) => return Ok(Err(error)),
        };
        let op = self.op(ground, exists, self.deed == Deed::Delete, self.cursor.clone());
        let (kind, vault, inputs) = (self.kind.clone(), ground.vault.clone(), self.inputs.clone());
        let warnings = op.warnings.clone();
        let answer = if self.deed == Deed::Delete {
            let call = async move { kind.delete(&client, op, &vault).await };
            ground.call(deadline, call).await.map(|answer| {
                answer.map(|step| match step {
                    Step::Done(made) => {
                        Step::Done(crate::model::Made { id: made.id, outputs: Tree::default(), live: None, due: None })
                    }
                    Step::Next { cursor, why, pause, .. } => Step::Next { cursor, made: None, why, pause },
                })
            })
        } else {
            ground.call(deadline, async move { kind.apply(&client, &inputs, op, &vault).await }).await
        };
        self.warn(ground, &warnings);
        Ok(answer?)
    }

    /// Tells what the provider wanted told in a call, whatever came of it.
    pub(super) fn warn(&self, ground: &Ground, warnings: &Warnings) {
        for message in warnings.take() {
            let message = ground.vault.scrub(&message);
            ground.tell(Progress::Warning { urn: Some(self.urn.clone()), message });
        }
    }

    /// Makes durable where the operation stands.
    async fn stand(
        &mut self,
        ground: &Ground,
        cursor: Value,
        made: Option<crate::model::Made<Tree>>,
    ) -> Result<(), Halt> {
        let text = cursor.to_string();
        if ground.vault.scrub(&text) != text {
            return Err(Halt::from(format!(
                "{} put a secret into its cursor, which is stored in clear",
                self.kind.name()
            )));
        }
        self.fits(&cursor)?;
        let made = made.map(|made| self.record(ground, made)).transpose()?;
        if let Some(made) = &made {
            self.id = Some(made.id.clone());
        }
        if self.cursor.as_ref() == Some(&cursor) && (made.is_none() || made == self.shown) {
            return Ok(());
        }
        self.cursor = Some(cursor.clone());
        self.shown = made.clone().or(self.shown.take());
        let event = Event::Cursor { urn: self.urn.clone(), op: self.op.clone(), cursor, made };
        if self.begun {
            ground.ledger.commit(vec![event]).await?;
        } else {
            self.begin_and(ground, vec![event]).await?;
        }
        if self.shown.is_some() {
            (self.created)();
        }
        Ok(())
    }

    pub(super) fn record(&self, ground: &Ground, made: crate::model::Made<Tree>) -> Result<MadeRecord, Halt> {
        storable_tree(&made.outputs).map_err(|why| self.unfit(&why))?;
        made.live.as_ref().map_or(Ok(()), |live| self.fits(live))?;
        Ok(MadeRecord {
            id: made.id,
            outputs: made.outputs,
            live: made.live.map(|live| seal_live(&self.spec.inputs.value(), &live, &ground.vault).into()),
            due: made.due.map(|due| due.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()),
        })
    }

    /// Refuses what no file can hold: this step fails, and not the frame that others share with it.
    fn fits(&self, answer: &Value) -> Result<(), Halt> {
        storable(answer).map_err(|why| self.unfit(&why))
    }

    fn unfit(&self, why: &str) -> Halt {
        Halt::from(format!(
            "{} answered with what cannot be stored: {why}. This is a mistake of the provider",
            self.kind.name()
        ))
    }

    /// Says which outputs changed that may not.
    pub(super) fn unannounced(&self, ground: &Ground, made: &MadeRecord) {
        if let (Some(fresh), Some(recorded)) = (&self.fresh, &self.recorded)
            && *recorded != made.outputs
        {
            for delta in crate::plan::diff(recorded, &made.outputs) {
                if !fresh.iter().any(|fresh| fresh.covers(&delta.path)) {
                    ground.tell(Progress::Warning {
                        urn: Some(self.urn.clone()),
                        message: format!(
                            "its output {} changed, which {} did not announce; what depends on it is brought up to date by the next run. This is a mistake of the provider",
                            delta.path, self.kind.name()
                        ),
                    });
                }
            }
        }
    }

    /// Returns the record of the end.
    pub(super) fn ready(&self, made: MadeRecord) -> Event {
        Event::End { urn: self.urn.clone(), op: self.op.clone(), ended: Ended::Ready(made), unmarked: false }
    }

    async fn done(&mut self, ground: &Ground, made: crate::model::Made<Tree>) -> Result<(), Halt> {
        let made = self.record(ground, made)?;
        self.unannounced(ground, &made);
        let mut ends = vec![self.ready(made)];
        ends.extend(spent(ground, &self.spends_last));
        if !self.begun || !self.current {
            // Nothing had to be called, yet the state says that it was begun by nobody, or by a program that said
            // something else of it: what is recorded in the end is what today's says.
            return self.begin_and(ground, ends).await;
        }
        ground.ledger.commit(ends).await?;
        Ok(())
    }

    /// Takes over what is there. What differs from the declaration shows in the next plan.
    async fn adopt(&mut self, ground: &Ground, made: crate::model::Made<Tree>, owner: &Owner) -> Result<(), Halt> {
        let made = self.record(ground, made)?;
        // It keeps the mark that it bears: an operation of an earlier state of ours, or of somebody who gave it away.
        if let Owner::Marked(mark) = owner {
            self.mark = Mark(mark.clone());
        }
        let unmarked = *owner == Owner::Unmarked;
        if let Some(live) = &made.live {
            self.spec.inputs = crate::model::overlay(&self.spec.inputs.value(), &live.value(), &ground.vault).into();
            self.spec.digest = crate::plan::digest_of(&self.spec);
        }
        self.id = Some(made.id.clone());
        self.begin(ground).await?;
        let mut events =
            vec![Event::End { urn: self.urn.clone(), op: self.op.clone(), ended: Ended::Ready(made), unmarked }];
        // What was left behind has a name again.
        let left = |state: &State| state.condemned.get(&self.mark).is_some_and(|condemned| condemned.left_behind);
        if ground.ledger.with(|store| left(store.state())) {
            events.push(Event::Forgot { urns: Vec::new(), marks: vec![self.mark.clone()] });
        }
        ground.ledger.commit(events).await?;
        Ok(())
    }

    /// A delete is complete, and whatever lay in it and could not be reached is left behind.
    async fn gone(&mut self, ground: &Ground) -> Result<(), Halt> {
        // What lies in it is told by its name: not what lies in the one that has that name now.
        let named = ground.ledger.with(|store| store.state().record(&self.urn).is_some_and(|it| it.mark == self.mark));
        let left = if named { ground.passed_in(&self.urn) } else { Vec::new() };
        let event = if self.begun && self.current {
            Event::End { urn: self.urn.clone(), op: self.op.clone(), ended: Ended::Deleted, unmarked: false }
        } else {
            self.forgotten(ground)
        };
        let condemned = |mark: &Mark| ground.ledger.with(|store| store.state().condemned.contains_key(mark));
        let behind = left.iter().map(|passed| Event::LeftBehind {
            urn: passed.urn.clone(),
            mark: condemned(&passed.mark).then(|| passed.mark.clone()),
        });
        // A deletion that was begun for good says, as it ends, that nothing comes after; here another comes in its place.
        let debt = self.owes.then(|| self.owed());
        ground.ledger.commit([event].into_iter().chain(debt).chain(behind).collect()).await?;
        for Passed { urn, error, .. } in left {
            let message = format!("it was left behind: {error}; delete it by hand, then `state forget` it");
            ground.tell(Progress::Warning { urn: Some(urn), message });
        }
        Ok(())
    }

    pub(super) fn forgotten(&self, ground: &Ground) -> Event {
        let named = ground
            .ledger
            .with(|store| store.state().records.get(&self.urn).is_some_and(|record| record.mark == self.mark));
        if named {
            Event::Forgot { urns: vec![self.urn.clone()], marks: Vec::new() }
        } else {
            Event::Forgot { urns: Vec::new(), marks: vec![self.mark.clone()] }
        }
    }

    async fn vanished(&mut self, ground: &Ground) -> Result<(), Halt> {
        ground.ledger.commit(vec![Event::Vanished { urn: self.urn.clone() }]).await?;
        self.begun = false;
        Err(Halt::Failed {
            error: "it is gone, and nothing of ours deleted it; nothing was changed".into(),
            hint: Some("the next `up` makes it anew".into()),
        })
    }

    async fn foreign(&mut self, ground: &Ground, touched: bool, why: String) -> Result<(), Halt> {
        let what =
            self.id.as_ref().map_or_else(|| self.kind.name().to_owned(), |id| format!("{} {id}", self.kind.name()));
        let error = if self.deed.makes() {
            format!("{what} exists already and is not ours: {why}; it was not touched")
        } else {
            format!("{what} is not ours any more: {why}; it was not touched")
        };
        let hint = match &self.id {
            Some(id) => format!(
                "take it over with `import {} {}`, give ours another name, or remove the other one by hand",
                self.urn.short(),
                word(&id.0)
            ),
            None => "give ours another name, or remove the other one by hand".into(),
        };
        self.refuse(ground, touched, error, Some(&hint)).await
    }

    /// Fails. An operation of which no call can have had an effect ends; any other stays open for the next run.
    async fn refuse(&mut self, ground: &Ground, touched: bool, error: String, hint: Option<&str>) -> Result<(), Halt> {
        if self.begun && self.current && !touched && self.cursor.is_none() {
            let ended = Ended::Failed(ground.vault.scrub(&error));
            let event = Event::End { urn: self.urn.clone(), op: self.op.clone(), ended, unmarked: false };
            ground.ledger.commit(vec![event]).await?;
            self.begun = false;
        }
        Err(Halt::Failed { error, hint: hint.map(str::to_owned) })
    }

    async fn wait(&self, ground: &Ground, deadline: SystemTime, why: &str, pause: Duration) -> Result<(), Halt> {
        let why = ground.vault.scrub(why);
        ground.tell(Progress::Waiting { urn: self.urn.clone(), why: why.clone() });
        // A call at the deadline itself would be dropped before it could answer.
        if !ground.allows(pause, deadline) {
            return Err(Halt::Failed {
                error: format!("it took longer than {} s: {why}", self.timeout.as_secs()),
                hint: Some("the next `up` goes on from here; `.timeout(…)` gives it longer".into()),
            });
        }
        self.pause(ground, pause).await
    }

    async fn retry(
        &mut self,
        ground: &Ground,
        deadline: SystemTime,
        backoff: &mut Backoff,
        error: &Error,
    ) -> Result<(), Halt> {
        let pause = backoff.next();
        if !ground.allows(pause, deadline) {
            let waited = self.timeout.as_secs();
            // An attempt that the deadline cut short has learned nothing; the one before says why.
            let said = backoff.said.take().filter(|_| error.message == CUT_SHORT);
            let said = format!("{} (tried for {waited} s)", said.unwrap_or_else(|| error.message.clone()));
            let hint = hint(error.class).map(str::to_owned);
            // The plan said that it may come to this: what contains it goes all the same.
            let passed = self.may_leave && error.class == Class::Unreachable;
            return Err(if passed { Halt::Passed { error: said, hint } } else { Halt::Failed { error: said, hint } });
        }
        backoff.said = Some(error.message.clone());
        ground.tell(Progress::Retrying { urn: self.urn.clone(), error: error.message.clone() });
        self.pause(ground, pause).await
    }

    async fn pause(&self, ground: &Ground, pause: Duration) -> Result<(), Halt> {
        let ripens = self.kind.ripens() && self.shown.is_some();
        if ground.pause(pause, ripens).await { Ok(()) } else { Err(Halt::Interrupted) }
    }
}

/// Returns the record of those of `acts` that are recorded being spent.
fn spent(ground: &Ground, acts: &[Urn]) -> Option<Event> {
    let recorded = |urn: &&Urn| ground.ledger.with(|store| store.state().records.contains_key(*urn));
    let urns: Vec<Urn> = acts.iter().filter(recorded).cloned().collect();
    (!urns.is_empty()).then_some(Event::Spent { urns })
}

/// What a look means for the operation.
enum Looked {
    Absent,
    Ours(Step<Tree>, Owner),
    Leaving(String),
    Foreign(String),
}

impl From<Verdict> for Looked {
    fn from(verdict: Verdict) -> Looked {
        match verdict {
            Verdict::Absent => Looked::Absent,
            Verdict::Ours(step, owner) => Looked::Ours(step, owner),
            Verdict::Leaving(why) => Looked::Leaving(why),
            Verdict::Foreign(why) => Looked::Foreign(why),
        }
    }
}

/// Pauses that grow.
#[derive(Default)]
struct Backoff {
    tries: u32,
    /// What the last attempt failed with.
    said: Option<String>,
}

/// What an attempt fails with that was not answered by the step's deadline.
const CUT_SHORT: &str = "there was no answer before the deadline";

impl Backoff {
    fn next(&mut self) -> Duration {
        let pause = FIRST_PAUSE.saturating_mul(2u32.saturating_pow(self.tries));
        self.tries += 1;
        pause.min(LONGEST_PAUSE)
    }
}

fn hint(class: Class) -> Option<&'static str> {
    match class {
        Class::Again => Some("the next `up` goes on from here"),
        Class::Unreachable => {
            Some("check that it is switched on and reachable; nothing is taken to be gone because of this")
        }
        Class::Unauthorised => Some("check the credentials of its provider"),
        Class::Conflict => Some("somebody else changed it at the same time; plan again"),
        Class::Invalid => None,
        Class::Gone => Some("plan again"),
    }
}

/// Writes an id as one word of a command line.
fn word(id: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+,".contains(c);
    if !id.is_empty() && id.chars().all(plain) { id.to_owned() } else { format!("'{}'", id.replace('\'', "'\\''")) }
}
