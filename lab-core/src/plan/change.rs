//! What becomes of something that is recorded: nothing, a change, another in its place, or what was begun with it.

use super::diff::diff;
use super::drift::drift;
use super::fate::Fate;
use super::make::{Planner, Wanted, words};
use super::plan::{Action, Observed, Permits, Seen};
use crate::model::{
    Change, ErasedType, Id, Impact, Node, Order, Path, Record, Spec, Status, Tree, Urn, Why, put_value, value_at,
};
use serde_json::Value;
use std::sync::Arc;
use std::time::SystemTime;

impl<'a> Planner<'a> {
    /// Compares what is declared with what is recorded and there.
    pub(super) fn compare(&mut self, mut wanted: Wanted<'_>, record: &'a Record) {
        let vault = &self.declared.vault;
        let node = wanted.node;
        if !wanted.realm_known || record.spec.realm != wanted.spec.realm {
            return self.elsewhere(wanted, record);
        }
        let seen = self.seen.seen.get(&node.urn);
        let live = match seen {
            Some(Seen::There(made)) => made.live.as_ref(),
            Some(Seen::Gone) => {
                // What it held went with it.
                self.going.insert(node.urn.clone());
                self.forget(&node.urn, record, false, "it is gone");
                return self.create(wanted, vec!["it was there and is gone".into()]);
            }
            Some(Seen::Foreign(why)) => {
                let message = format!("{} is not ours any more: {why}", node.urn.short());
                self.problem(node, message, Some("import it, or give it another name"));
                return self.keep(&wanted, record);
            }
            // What an earlier look has recorded.
            Some(Seen::Unknown(_)) | None => record.live.as_ref().filter(|_| record.drifted),
        };
        if !wanted.unknown.is_empty() {
            wanted.live = live.cloned();
        }
        let live = live.map(Tree::value);
        let live = live.as_ref();
        // Compared in seconds: not every number of them is a time.
        let now = self.now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let due = record.due.is_some_and(|due| due <= now);
        let triggered = record.spec.trigger != wanted.spec.trigger;
        // Nothing is unknown where there is a digest, and realm, type, version and inputs are all in it.
        let as_applied = !wanted.spec.digest.is_none() && wanted.spec.digest == record.spec.digest;
        if as_applied && live.is_none() && !due && !triggered && record.status == Status::Ready {
            return self.keep(&wanted, record);
        }
        let prior = self.prior(record, wanted.kind);
        let Some(prior) = prior else {
            let reasons = vec![format!("what was recorded by version {} can no longer be read", record.spec.version)];
            let fresh = Impact { unknown: vec![Path::root()], ..Impact::default() };
            self.fates.insert(wanted.n, Fate { outputs: None, fresh: Vec::new(), mark: Some(&record.mark) });
            let permits = Permits::default();
            return self.push(wanted, Action::Update, Some(record.mark.clone()), reasons, Vec::new(), fresh, permits);
        };
        let drifted = live
            .map(|live| drift(&node.urn, Some(&wanted.spec.inputs.value()), &prior.value(), live, vault))
            .unwrap_or_default();
        let drifted: Vec<_> = drifted.into_iter().filter(|drift| !node.options.ignores(&drift.path)).collect();
        wanted.drifted = !drifted.is_empty();
        let differs = prior != wanted.spec.inputs;
        if wanted.spec.once || (!differs && drifted.is_empty() && !due && !triggered && record.status == Status::Ready)
        {
            return self.keep(&wanted, record);
        }
        let shown = diff(&prior, &wanted.spec.inputs);
        let mut reasons: Vec<String> = drifted
            .iter()
            .map(|drift| {
                format!(
                    "{} was changed by somebody else: {} is {}",
                    drift.path,
                    show(Some(&drift.applied)),
                    show(drift.live.as_ref())
                )
            })
            .collect();
        if record.status == Status::Made {
            reasons.push("it was made and is not ready".into());
        }
        if triggered {
            let what = "the value of `replace_when` changed".to_owned();
            reasons.push(what);
            return self.replace(wanted, record, Order::DeleteFirst, Impact::default(), reasons);
        }
        let moved = match (&record.id, &wanted.id) {
            (Some(old), Some(new)) => old != new,
            _ => false,
        };
        let change = if !differs && drifted.is_empty() {
            Change::Update(Impact { unknown: vec![Path::root()], ..Impact::default() })
        } else {
            match wanted.kind.change(&wanted.spec.inputs, &prior, live, vault) {
                Ok(change) => change,
                Err(error) => {
                    let message =
                        format!("what changing {} takes cannot be told: {}", node.urn.short(), vault.scrub(&error));
                    self.problem(node, message, None);
                    return self.keep(&wanted, record);
                }
            }
        };
        let change = match change {
            Change::None | Change::Update(_) if moved => {
                reasons.push(format!(
                    "its identity changes from {} to {}",
                    show_id(record.id.as_ref()),
                    show_id(wanted.id.as_ref())
                ));
                Change::Replace(Impact::default(), Order::DeleteFirst)
            }
            change => change,
        };
        let uncertain = !wanted.unknown.is_empty();
        // Whether there is nothing to do should the unknowns turn out to be what they were.
        let settled = drifted.is_empty() && !due && record.status == Status::Ready;
        match change {
            Change::Refuse(reasons) => {
                self.refused(node, &reasons);
                self.keep(&wanted, record);
            }
            Change::None if uncertain || due => {
                let permits = Permits { same: uncertain && settled, replace: false };
                self.update(wanted, record, reasons, shown, Impact::default(), permits, due);
            }
            Change::None => self.keep(&wanted, record),
            Change::Update(impact) => {
                let permits = Permits { same: uncertain && settled, replace: false };
                reasons.extend(words(&impact));
                self.update(wanted, record, reasons, shown, impact, permits, due && !differs && drifted.is_empty());
            }
            Change::Replace(impact, by_type) => {
                reasons.extend(words(&impact));
                if uncertain && !self.certainly_replaced(&wanted, &prior, live) {
                    self.maybe_replaced(wanted, record, reasons, shown, impact, settled);
                } else {
                    self.replace(wanted, record, by_type, impact, reasons);
                }
            }
        }
    }

    /// What is declared is nothing that the thing can become.
    fn refused(&mut self, node: &Node, reasons: &[(Path, String)]) {
        for (path, why) in reasons {
            let message = format!("{} {} cannot be changed at {path}: {why}", node.type_name(), node.urn.short());
            self.problem(node, message, Some("declare it as it was, or give the new one another name"));
        }
    }

    /// Returns true when it is a replacement even if every unknown turned out to be what it was.
    fn certainly_replaced(&self, wanted: &Wanted<'_>, prior: &Tree, live: Option<&Value>) -> bool {
        let (mut assumed, before) = (wanted.spec.inputs.value(), prior.value());
        for unknown in &wanted.unknown {
            let Some(before) = value_at(&before, &unknown.path) else { return false };
            put_value(&mut assumed, &unknown.path, before.clone());
        }
        let assumed = Tree::from(assumed);
        (assumed != *prior || live.is_some())
            && matches!(wanted.kind.change(&assumed, prior, live, &self.declared.vault), Ok(Change::Replace(..)))
    }

    fn prior(&self, record: &Record, kind: &Arc<dyn ErasedType>) -> Option<Tree> {
        let inputs = record.spec.inputs.clone();
        let inputs = if record.spec.version < kind.version() {
            kind.upgrade(record.spec.version, inputs.value())?.into()
        } else {
            inputs
        };
        kind.check(&inputs, &self.declared.vault).ok().map(|()| inputs)
    }

    #[expect(clippy::too_many_arguments, reason = "a step has many sides, and this is where they come together")]
    fn update(
        &mut self,
        wanted: Wanted<'_>,
        record: &'a Record,
        reasons: Vec<String>,
        diff: Vec<super::diff::Delta>,
        impact: Impact,
        permits: Permits,
        renew: bool,
    ) {
        // Brought back to what it was, it yields something else than it does now.
        let drifted = wanted.drifted;
        let mut impact = impact;
        match self.seen.seen.get(&wanted.node.urn) {
            // What it yielded as it was left is recorded no more.
            _ if drifted && record.drifted => impact.unknown.push(Path::root()),
            Some(Seen::There(made)) if made.outputs != record.outputs => {
                let differing = self::diff(&record.outputs, &made.outputs);
                impact.unknown.extend(differing.into_iter().map(|delta| delta.path));
            }
            Some(_) | None => {}
        }
        let fate = Fate {
            outputs: (!record.outputs.is_null() || record.status == Status::Ready)
                .then(|| self.yields(&wanted.node.urn, record, drifted)),
            fresh: impact.unknown.clone(),
            mark: Some(&record.mark),
        };
        self.fates.insert(wanted.n, fate);
        let action = if renew { Action::Renew } else { Action::Update };
        let mut reasons = reasons;
        if renew {
            reasons.push("it is due".into());
        }
        self.push(wanted, action, Some(record.mark.clone()), reasons, diff, impact, permits);
    }

    /// Returns what data is lost when it is replaced, which means that.
    fn lost(&mut self, record: &Record, impact: &Impact) -> Option<String> {
        impact.destroys.clone().or_else(|| self.removal(record).destroys)
    }

    /// Returns true for what is not replaced unless that was certain when it was shown: what is protected, and what holds
    /// something.
    fn guarded(&self, wanted: &Wanted<'_>, record: &Record) -> bool {
        record.spec.protect || wanted.spec.protect || self.containers.contains(&wanted.node.urn)
    }

    /// A change that may turn out to be a replacement once its inputs are known.
    fn maybe_replaced(
        &mut self,
        wanted: Wanted<'_>,
        record: &'a Record,
        reasons: Vec<String>,
        diff: Vec<super::diff::Delta>,
        impact: Impact,
        same: bool,
    ) {
        let creation = self.impact(wanted.node, wanted.kind.creation(&wanted.spec.inputs, &self.declared.vault));
        let lost = self.lost(record, &impact);
        let guarded = self.guarded(&wanted, record) || unlike(lost.as_ref(), creation.destroys.as_ref());
        let permits = Permits { same, replace: !guarded };
        let destroys = if guarded { impact.destroys } else { lost.or(creation.destroys) };
        let impact = Impact { destroys, ..impact };
        // Replaced, everything it yields is new; kept, everything stays: nothing can be said.
        let mark = guarded.then_some(&record.mark);
        self.fates.insert(wanted.n, Fate { outputs: None, fresh: Vec::new(), mark });
        self.push(wanted, Action::Update, Some(record.mark.clone()), reasons, diff, impact, permits);
    }

    /// Nothing to be done outside. A declaration that says something else is noted.
    fn keep(&mut self, wanted: &Wanted<'_>, record: &'a Record) {
        let urn = &wanted.node.urn;
        // What happened once is recorded as it happened.
        if wanted.spec.once || !wanted.unknown.is_empty() {
            if !wanted.spec.says_around(&record.spec) {
                let (inputs, digest) = (record.spec.inputs.clone(), record.spec.digest);
                self.notes.push((urn.clone(), Spec { inputs, digest, ..wanted.spec.clone() }));
            }
        } else if !wanted.spec.says_what(&record.spec) {
            self.notes.push((urn.clone(), wanted.spec.clone()));
        }
        self.same += 1;
        let fate = Fate { outputs: Some(self.yields(urn, record, false)), fresh: Vec::new(), mark: Some(&record.mark) };
        self.fates.insert(wanted.n, fate);
    }

    /// Returns what it yields: as it was seen, else as it is recorded. What was seen is recorded where it differs.
    fn yields(&mut self, urn: &Urn, record: &Record, drifted: bool) -> Tree {
        let Some(Seen::There(made)) = self.seen.seen.get(urn) else { return record.outputs.clone() };
        if made.outputs != record.outputs || record.drifted != drifted {
            self.observed.push(Observed { urn: urn.clone(), made: made.clone(), drifted });
        }
        made.outputs.clone()
    }

    /// It is recorded in another realm than the one it is wanted in.
    pub(super) fn elsewhere(&mut self, wanted: Wanted<'_>, record: &'a Record) {
        let urn = wanted.node.urn.clone();
        if !self.goes_along(record) {
            let reasons =
                vec![format!("it is wanted in another place: {} instead of {}", wanted.spec.realm, record.spec.realm)];
            return self.replace(wanted, record, Order::DeleteFirst, Impact::default(), reasons);
        }
        // What is recorded of an act is replaced in the moment in which that begins anew: until then it says what is owed.
        if record.spec.member.is_some() && wanted.spec.member.is_some() {
            return self.create(wanted, vec!["what contains it is made anew".into()]);
        }
        // What is gone with what contained it is no longer protected from anything.
        if !self.vanished(record) && self.guard(&urn, record, "what contains it goes") {
            self.fates.insert(wanted.n, Fate::default());
            return;
        }
        self.inside_going(&urn, record);
        self.create(wanted, vec!["what contains it is made anew".into()]);
    }

    /// Another thing in its place.
    pub(super) fn replace(
        &mut self,
        wanted: Wanted<'_>,
        record: &'a Record,
        by_type: Order,
        impact: Impact,
        mut reasons: Vec<String>,
    ) {
        let urn = wanted.node.urn.clone();
        if self.guard(&urn, record, "it would be replaced") {
            return self.keep(&wanted, record);
        }
        let holds = self.containers.contains(&urn);
        let keeps_id = wanted.id.is_some() && wanted.id == record.id;
        let keeps_claim =
            wanted.spec.claims.iter().any(|claim| record.spec.claims.iter().any(|old| old.clashes(claim)));
        let elsewhere = record.spec.realm != wanted.spec.realm;
        let create_first =
            by_type == Order::CreateFirst && !keeps_id && !keeps_claim && !holds && !elsewhere && record.open.is_none();
        self.going.insert(urn.clone());
        let mut delete = self.removing(&urn, record, Why::Replaced, create_first, false);
        delete.destroys = self.lost(record, &impact);
        delete.interrupts = impact.interrupts.clone();
        delete.reasons = reasons.clone();
        self.steps.push(delete);
        let vault = &self.declared.vault;
        let prior = record.spec.inputs.clone();
        let diff = diff(&prior, &wanted.spec.inputs);
        let creation = self.impact(wanted.node, wanted.kind.creation(&wanted.spec.inputs, vault));
        reasons.extend(words(&creation));
        self.fates.insert(wanted.n, Fate::default());
        let action = if create_first { Action::Supersede } else { Action::Create };
        self.push(wanted, action, None, reasons, diff, creation, Permits::default());
    }

    /// An operation that began and did not end.
    pub(super) fn unfinished(&mut self, wanted: Wanted<'_>, record: &'a Record, making: bool) {
        let Some(open) = record.open.as_deref() else { return };
        let vault = &self.declared.vault;
        let begun = &open.begun.spec;
        let elsewhere = !wanted.realm_known || begun.realm != wanted.spec.realm;
        if elsewhere {
            return self.elsewhere(wanted, record);
        }
        if making && begun.trigger != wanted.spec.trigger && !wanted.spec.once {
            let reasons = vec!["the value of `replace_when` changed since it was begun".to_owned()];
            return self.replace(wanted, record, Order::DeleteFirst, Impact::default(), reasons);
        }
        // What is there, or may be, by another identity is another thing.
        let id = record.id.as_ref().or(open.begun.id.as_ref());
        if let (Some(old), Some(new)) = (id, &wanted.id)
            && old != new
            && !wanted.spec.once
        {
            let reasons = vec![format!("it was begun as {} and is to be {}", old.0, new.0)];
            return self.replace(wanted, record, Order::DeleteFirst, Impact::default(), reasons);
        }
        let differs = begun.inputs != wanted.spec.inputs;
        // What is not known yet may make another thing of it.
        let mut perhaps = None;
        if differs && !wanted.spec.once {
            match wanted.kind.change(&wanted.spec.inputs, &begun.inputs, None, vault) {
                Ok(Change::Replace(impact, _))
                    if wanted.unknown.is_empty() || self.certainly_replaced(&wanted, &begun.inputs, None) =>
                {
                    let reasons = vec!["what was begun is not what is wanted now".to_owned()];
                    return self.replace(wanted, record, Order::DeleteFirst, impact, reasons);
                }
                Ok(Change::Replace(impact, _)) => perhaps = Some(impact).filter(|_| !self.guarded(&wanted, record)),
                Ok(Change::Refuse(reasons)) if wanted.unknown.is_empty() => self.refused(wanted.node, &reasons),
                Ok(Change::None | Change::Update(_) | Change::Refuse(_)) => {}
                // Of what was begun by an older version it can be told once everything is known.
                Err(_) if !wanted.unknown.is_empty() => {}
                Err(error) => {
                    let message = format!(
                        "what changing {} takes cannot be told: {}",
                        wanted.node.urn.short(),
                        vault.scrub(&error)
                    );
                    self.problem(wanted.node, message, None);
                }
            }
        }
        let mut reasons =
            vec![format!("{} was begun and did not end", if making { "its creation" } else { "a change of it" })];
        let mut wanted = wanted;
        if wanted.spec.once {
            // What happens once goes on as it was begun: another input would be another happening.
            wanted.spec.inputs = begun.inputs.clone();
            wanted.spec.digest = begun.digest;
        }
        let asked = if making {
            wanted.kind.creation(&wanted.spec.inputs, vault)
        } else {
            match wanted.kind.change(&wanted.spec.inputs, &record.spec.inputs, None, vault) {
                Ok(Change::Update(impact) | Change::Replace(impact, _)) => Ok(impact),
                Ok(Change::None | Change::Refuse(_)) => Ok(Impact::default()),
                Err(error) => Err(error),
            }
        };
        let mut impact = self.impact(wanted.node, asked);
        // The consent that was given holds until that operation ends.
        if open.begun.consent.is_some() && open.begun.consent == impact.destroys {
            reasons
                .push(format!("destroying {} was agreed to when it began", impact.destroys.take().unwrap_or_default()));
        }
        let lost = perhaps.map(|perhaps| self.lost(record, &perhaps));
        // Brought back to what it was, it yields something else than it does now.
        if !making && record.drifted {
            impact.unknown.push(Path::root());
        }
        let replace = lost.as_ref().is_some_and(|lost| !unlike(lost.as_ref(), impact.destroys.as_ref()));
        if replace {
            impact.destroys = impact.destroys.or(lost.flatten());
        }
        reasons.extend(words(&impact));
        let shown = diff(&begun.inputs, &wanted.spec.inputs);
        let mark = (!replace).then_some(&record.mark);
        let outputs = (!making && !replace).then(|| record.outputs.clone());
        let fresh = if making || replace { Vec::new() } else { impact.unknown.clone() };
        self.fates.insert(wanted.n, Fate { outputs, fresh, mark });
        let action = Action::Continue { op: open.begun.op.clone(), making };
        let mark = Some(record.mark.clone());
        self.push(wanted, action, mark, reasons, shown, impact, Permits { replace, same: false });
    }
}

/// Returns true for two losses of which a person could only be asked about one.
fn unlike(one: Option<&String>, other: Option<&String>) -> bool {
    one.is_some() && other.is_some() && one != other
}

fn show(value: Option<&Value>) -> String {
    value.map_or_else(|| "absent".into(), |value| crate::model::redact(value).to_string())
}

fn show_id(id: Option<&Id>) -> String {
    id.map_or_else(|| "none".into(), |id| id.0.clone())
}
