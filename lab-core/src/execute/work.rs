//! What a step comes to, once everything it waited for is there.

use super::journal::storable;
use super::ledger::Ledger;
use super::operate::{Ending, Ground, Operation, Stopped};
use super::progress::Progress;
use super::run::Walk;
use crate::model::{Begun, Deed, Event, Lock, Mark, NodeKind, Order, Record, Status, Tree, Urn, Why, digest};
use crate::plan::{self, Action, Expected, Outcome, Resolved, Verb, known, realm};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

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
    /// Returns the locks that a step takes. What can no longer be read takes none; it can still be deleted.
    pub(super) fn locks(&self, work: &Work) -> Result<Vec<Lock>, String> {
        let Work::Operate(operation, _) = work else { return Ok(Vec::new()) };
        let (kind, inputs, vault) = (&operation.kind, &operation.spec.inputs, &self.declared.vault);
        if operation.deed == Deed::Delete && kind.check(inputs, vault).is_err() {
            return Ok(Vec::new());
        }
        kind.locks(inputs, vault)
    }

    /// Returns what a step comes to, now that everything it waited for is there.
    pub(super) fn work(&self, n: usize) -> Result<Work, String> {
        let mut work = self.planned(n)?;
        if let Work::Operate(operation, _) = &mut work {
            let step = &self.plan.steps[n];
            let acts = self.acts.get(&step.urn);
            // What was done before says by itself that something is owed.
            let after_only = acts.is_some_and(|acts| acts.before.is_empty() && !acts.after.is_empty());
            operation.owes = self.plan.verb == Verb::Up && after_only && step.disrupts();
        }
        Ok(work)
    }

    fn planned(&self, n: usize) -> Result<Work, String> {
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
                if let Outcome::Replace(order) = resolved.outcome {
                    return self.replacing(n, &record, resolved, order);
                }
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
            Action::Forget { condemned: false, stays } => {
                let known = self.ledger.with(|store| {
                    store.state().records.contains_key(&step.urn) || store.state().answers.contains_key(&step.urn)
                });
                let mut events = vec![Event::Forgot { urns: vec![step.urn.clone()], marks: Vec::new() }];
                // What is done around a member and still declared is forgotten once all of it is done.
                let act = self.declared.node(&step.urn).and_then(|node| node.options.act.as_ref()).filter(|_| *stays);
                let owed = |member: &Urn| self.ledger.with(|store| store.state().owed.contains_key(member));
                let member = act.and_then(|act| self.declared.node(&act.member));
                let names = member.into_iter().flat_map(|member| {
                    let former = member.options.was.iter().map(|was| member.urn.renamed(was));
                    former.filter(|name| self.declared.node(name).is_none()).chain([member.urn.clone()])
                });
                events.extend(names.filter(owed).map(|member| Event::Paid { member }));
                Ok(if known { Work::Record(events) } else { Work::Nothing })
            }
            Action::LeaveBehind => {
                let named = |mark: &Mark| record.as_ref().is_some_and(|record| record.mark == *mark);
                let mark = step.mark.clone().filter(|mark| !named(mark));
                Ok(Work::Record(vec![Event::LeftBehind { urn: step.urn.clone(), mark }]))
            }
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
            spends_first: Vec::new(),
            owes: false,
            spends_last: Vec::new(),
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
        // Either side of a member says of the other that it belongs to an interruption that is over.
        let around = resolved.spec.member.as_ref().and_then(|member| self.acts.get(member));
        let around = around.map(|acts| if acts.before.contains(&step.urn) { &acts.after } else { &acts.before });
        let spends_first = around.cloned().unwrap_or_else(|| self.done_after(&step.urn));
        let blank = self.blank(&step.urn, resolved.spec, deed)?;
        Ok(Operation {
            inputs,
            id,
            consent: step.destroys.clone(),
            timeout: Duration::from_secs(step.timeout),
            spends_first,
            spends_last: self.done_before(&step.urn),
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
            spends_first: self.done_after(&step.urn),
            spends_last: self.done_before(&step.urn),
            ..blank
        })
    }

    /// Returns what is done before a member is interrupted.
    fn done_before(&self, member: &Urn) -> Vec<Urn> {
        self.acts.get(member).map(|acts| acts.before.clone()).unwrap_or_default()
    }

    /// Returns what is done after a member is interrupted.
    fn done_after(&self, member: &Urn) -> Vec<Urn> {
        self.acts.get(member).map(|acts| acts.after.clone()).unwrap_or_default()
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
            spends_first: self.done_after(urn),
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

pub(super) async fn carry_out(
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
                    let asked = digest(&self.inputs);
                    let known = ground.ledger.with(|store| {
                        let (answers, questions) = (&store.state().answers, &store.state().asked);
                        answers.get(&self.urn) == Some(&made.outputs) && questions.get(&self.urn) == Some(&asked)
                    });
                    let answered = Event::Answered { urn: self.urn.clone(), answer: made.outputs, asked: Some(asked) };
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
