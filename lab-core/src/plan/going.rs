//! What goes: what no line declares any more, what goes with its container, and what must not go.

use super::claims::Kept;
use super::make::{Planner, TIMEOUT, words};
use super::plan::{Action, Problem, Seen, Step, Verb};
use super::resolve::inside;
use crate::model::{Condemned, Deed, Impact, Record, Status, Urn, Why};
use std::collections::BTreeSet;

impl<'a> Planner<'a> {
    /// Returns true when the thing of this name goes in this plan, or is gone.
    pub(super) fn gone(&self, container: &Urn) -> bool {
        match self.state.record(container) {
            None => true,
            Some(record) => record.status == Status::Gone || self.going.contains(container),
        }
    }

    /// Returns true when what contains it goes in this plan, or is gone.
    pub(super) fn goes_along(&self, record: &Record) -> bool {
        record.spec.container.as_ref().is_some_and(|container| self.gone(container)) || self.outlived(record)
    }

    /// Returns true when it lay in an earlier thing of its container's name: another one stands there now.
    fn outlived(&self, record: &Record) -> bool {
        let around = record.spec.container.as_ref().and_then(|container| self.state.record(container));
        around.is_some_and(|around| *record.spec.realm != *inside(&around.mark))
    }

    /// Returns true when something around it is gone already, and has taken it along.
    pub(super) fn vanished(&self, record: &Record) -> bool {
        let mut passed = BTreeSet::new();
        if self.outlived(record) {
            return true;
        }
        let mut outer = record.spec.container.as_ref();
        while let Some(container) = outer.filter(|container| passed.insert(*container)) {
            let around = self.state.record(container);
            let seen_gone = matches!(self.seen.seen.get(container), Some(Seen::Gone));
            if seen_gone || around.is_some_and(|record| record.status == Status::Gone || self.outlived(record)) {
                return true;
            }
            outer = around.and_then(|record| record.spec.container.as_ref());
        }
        false
    }

    /// Returns true when nothing of what contained it is there any more.
    fn already_gone(&self, record: &Record) -> bool {
        let unknown = |container: &Urn| !self.state.records.contains_key(container);
        self.vanished(record) || record.spec.container.as_ref().is_some_and(unknown)
    }

    /// What a container that goes holds: forgotten with it, unless it has effects outside.
    pub(super) fn inside_going(&mut self, urn: &Urn, record: &'a Record) {
        self.going.insert(urn.clone());
        let already_gone = self.already_gone(record);
        if record.spec.outside && already_gone {
            self.leave_behind(urn, record);
        } else if record.spec.outside {
            self.remove(urn, record, Why::ContainerGoing, false, true);
        } else {
            self.forget(urn, record, false, "it goes with what contains it");
        }
    }

    fn leave_behind(&mut self, urn: &Urn, record: &Record) {
        let mut step = Step::blank(urn, Action::LeaveBehind);
        step.reasons.push("what contained it is gone, and it has effects outside".into());
        step.mark = Some(record.mark.clone());
        step.place = Some(record.spec.place.clone());
        self.steps.push(step);
    }

    /// Reports a protected thing that would go; true when it is one.
    pub(super) fn guard(&mut self, urn: &Urn, record: &Record, why: &str) -> bool {
        let protects = self.protects(urn, record);
        if protects {
            self.problems.push(Problem {
                urn: Some(urn.clone()),
                places: vec![record.spec.place.clone()],
                message: format!("{} {} is protected, and would be deleted: {why}", record.spec.kind, urn.short()),
                hint: Some("apply it with `.protect(false)` first".into()),
            });
        }
        protects
    }

    /// Returns true for what was applied as protected, and where everything is to go, for what is declared so.
    fn protects(&self, urn: &Urn, record: &Record) -> bool {
        record.spec.protect || self.protected.contains(urn)
    }

    pub(super) fn removal(&mut self, record: &Record) -> Impact {
        // An unknown type is a problem of the plan already.
        let Some(kind) = self.declared.vocabulary.kind(&record.spec.kind) else { return Impact::default() };
        kind.removal(&record.spec.inputs, &self.declared.vault).unwrap_or_else(|error| Impact {
            // Silence would be taken for "nothing is lost", and nobody would be asked.
            destroys: Some(format!("what it holds, which it cannot say: {error}")),
            ..Impact::default()
        })
    }

    pub(super) fn removing(&mut self, urn: &Urn, record: &Record, why: Why, condemned: bool, may_leave: bool) -> Step {
        let op = record.open.as_ref().filter(|open| open.begun.deed == Deed::Delete).map(|open| open.begun.op.clone());
        if self.declared.vocabulary.kind(&record.spec.kind).is_none() {
            self.problems.push(Problem {
                urn: Some(urn.clone()),
                places: vec![record.spec.place.clone()],
                message: format!(
                    "{} is to be deleted, and this program does not know the type {}",
                    urn.short(),
                    record.spec.kind
                ),
                hint: Some("name its provider with `.knows::<…>()` on the lab".into()),
            });
        }
        let mut step = Step::blank(urn, Action::Delete { why, op, may_leave, condemned });
        step.mark = Some(record.mark.clone());
        step.place = Some(record.spec.place.clone());
        step.timeout = record.spec.timeout.unwrap_or(TIMEOUT.as_secs());
        step
    }

    pub(super) fn remove(&mut self, urn: &Urn, record: &Record, why: Why, condemned: bool, may_leave: bool) {
        let impact = self.removal(record);
        let mut step = self.removing(urn, record, why, condemned, may_leave);
        step.reasons = words(&impact).collect();
        step.destroys = impact.destroys;
        step.interrupts = impact.interrupts;
        self.steps.push(step);
    }

    pub(super) fn forget(&mut self, urn: &Urn, record: &Record, stays: bool, why: &str) {
        let mut step = Step::blank(urn, Action::Forget { condemned: false, stays });
        step.mark = Some(record.mark.clone());
        step.reasons.push(why.to_owned());
        step.place = Some(record.spec.place.clone());
        self.steps.push(step);
    }

    /// Returns true when the thing itself is known to be gone.
    fn seen_gone(&self, urn: &Urn, record: &Record) -> bool {
        record.status == Status::Gone || matches!(self.seen.seen.get(urn), Some(Seen::Gone))
    }

    /// Returns true when anything goes that it lies in, or has gone.
    fn lies_in_going(&self, record: &Record) -> bool {
        self.already_gone(record) || self.state.around(record).any(|around| self.going.contains(around))
    }

    /// Takes in what no line declares and is gone, or may be, as its deletion was begun: what it held is no longer deleted by
    /// call, though another container is to hold it now.
    pub(super) fn departed(&mut self) {
        for (urn, record) in &self.pairs.left {
            let begun = record.open.as_ref().is_some_and(|open| open.begun.deed == Deed::Delete);
            // What stays has to be looked at, whatever was begun with it.
            let begun = begun && !(record.spec.retain || self.protects(urn, record));
            if begun || self.seen_gone(urn, record) || self.vanished(record) {
                self.going.insert((*urn).clone());
            }
        }
    }

    /// Returns what stays though no line declares it, and keeps what it occupies.
    pub(super) fn kept(&self) -> impl Iterator<Item = (&Urn, &Record, Kept)> {
        let before = self.state.condemned.values().filter(|condemned| condemned.left_behind);
        let now = self.steps.iter().filter_map(|step| {
            let kept = match step.action {
                Action::LeaveBehind => Kept::LeavesBehind,
                Action::Forget { stays: true, .. } => Kept::Retained,
                _ => return None,
            };
            let record = self.state.thing(&step.urn, step.mark.as_ref()?)?;
            let stays = !matches!(kept, Kept::Retained) || (record.spec.retain && !self.lies_in_going(record));
            stays.then_some((&step.urn, record, kept))
        });
        before.map(|condemned| (&condemned.urn, &condemned.record, Kept::LeftBehind)).chain(now)
    }

    /// Everything that is recorded and not declared.
    pub(super) fn leftovers(&mut self, verb: Verb) {
        let declared = self.declared;
        let state = self.state;
        let left = std::mem::take(&mut self.pairs.left);
        // First what goes, so that what it holds goes with it.
        for (urn, record) in &left {
            if !(record.spec.retain || self.protects(urn, record)) {
                self.going.insert((*urn).clone());
            }
        }
        for (urn, record) in &left {
            if record.spec.retain && !(record.spec.outside || self.protects(urn, record)) && self.lies_in_going(record)
            {
                self.going.insert((*urn).clone());
            }
        }
        for (urn, record) in left {
            let inside = self.goes_along(record);
            let vanished = self.vanished(record);
            if self.seen_gone(urn, record) {
                self.forget(urn, record, false, "it is gone");
            } else if !vanished
                && self.guard(
                    urn,
                    record,
                    if verb == Verb::Destroy { "everything is destroyed" } else { "its line is gone" },
                )
            {
                self.going.remove(urn);
            } else if record.spec.member.is_some() {
                self.forget(urn, record, false, "what it was done for is over");
            } else if record.spec.retain && !record.spec.outside && self.lies_in_going(record) {
                self.forget(urn, record, false, "it goes with what contains it, though it is retained");
            } else if record.spec.retain {
                self.going.remove(urn);
                self.forget(urn, record, true, "it is retained");
            } else if inside {
                self.inside_going(urn, record);
            } else if record.spec.once && record.open.is_none() {
                self.forget(urn, record, true, "it happened once and cannot be undone");
            } else {
                self.remove(urn, record, Why::Removed, false, false);
            }
        }
        for Condemned { urn, record, left_behind } in state.condemned.values() {
            let container_gone = self.goes_along(record);
            if *left_behind {
                self.warnings.push(format!(
                    "{} {} was left behind when what contained it went: delete it by hand, then `state forget {}`",
                    record.spec.kind,
                    urn.short(),
                    record.mark
                ));
            } else if container_gone && !record.spec.outside {
                let mut step = Step::blank(urn, Action::Forget { condemned: true, stays: false });
                step.mark = Some(record.mark.clone());
                step.reasons.push("it goes with what contained it".into());
                self.steps.push(step);
            } else if container_gone && self.already_gone(record) {
                self.leave_behind(urn, record);
            } else {
                self.remove(urn, record, Why::Replaced, true, container_gone);
            }
        }
        let reads: Vec<Urn> = state.answers.keys().filter(|urn| declared.position(urn).is_none()).cloned().collect();
        for urn in reads {
            let mut step = Step::blank(&urn, Action::Forget { condemned: false, stays: true });
            step.reasons.push("it is not asked any more".into());
            self.steps.push(step);
        }
    }
}
