//! Lives a life and checks every property after every run.

use crate::life::{Life, Round, Verb};
use crate::oracle::{Oracle, released};
use crate::program::{Kind, Program};
use crate::run::{Lab, Ran, clear, open};
use crate::world::{ABROAD, What, durable};
use lab_core::execute::Progress;
use lab_core::execute::disk::Crash;
use lab_core::plan::{Action, Plan};
use std::collections::BTreeSet;

/// A property that did not hold, and how.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub(crate) property: &'static str,
    pub(crate) how: String,
}

/// What a life went through, to see that the simulation is not asleep.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) runs: usize,
    pub(crate) complete: usize,
    pub(crate) killed: usize,
    pub(crate) refused: usize,
    pub(crate) effects: usize,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Tally) {
        self.runs += other.runs;
        self.complete += other.complete;
        self.killed += other.killed;
        self.refused += other.refused;
        self.effects += other.effects;
    }
}

fn broken(property: &'static str, how: impl Into<String>) -> Broken {
    Broken { property, how: how.into() }
}

/// Returns a run that nothing disturbs.
pub(crate) fn quiet(program: &Program, verb: Verb) -> Round {
    Round {
        program: program.clone(),
        verb,
        forbidden: false,
        refresh: false,
        meddling: Vec::new(),
        mishaps: Vec::new(),
        disk: None,
        crash: Crash::Process,
        cut_off: None,
        asks: Vec::new(),
        parallel: 16,
        latency: 0,
        hours: 0,
    }
}

/// A life being lived.
pub(crate) struct Living {
    pub(crate) lab: Lab,
    pub(crate) oracle: Oracle,
    pub(crate) tally: Tally,
    /// Every plan is printed, and what came of it.
    pub(crate) aloud: bool,
}

/// Lives a life to its end.
pub(crate) fn live(life: &Life) -> Result<Tally, Broken> {
    lived_through(life, false)
}

/// Lives a life once more, and prints what is planned and done in every round.
pub(crate) fn live_aloud(life: &Life) {
    // How it ends is known already.
    let _ = lived_through(life, true);
}

fn lived_through(life: &Life, aloud: bool) -> Result<Tally, Broken> {
    let mut living = Living { aloud, ..Living::new(life.seed) };
    let mut last = Program::default();
    for (n, round) in life.rounds.iter().enumerate() {
        let ran = living.round(round).map_err(|broken| in_round(broken, &format!("round {}", n + 1)))?;
        // A person who is not refused keeps the program: there was nothing yet that it would take away.
        let done = ran.plan.is_some_and(|plan| plan.problems.is_empty());
        if !round.forbidden || done {
            last = round.program.clone();
        }
        // The rest of the life is that of a person who was refused.
        if round.forbidden && done {
            break;
        }
    }
    living.end(&last, life.hours, life.seed.is_multiple_of(2)).map_err(|broken| in_round(broken, "the last run"))?;
    if life.ends {
        living.destroy(&last).map_err(|broken| in_round(broken, "the end"))?;
    }
    Ok(living.tally)
}

fn in_round(broken: Broken, round: &str) -> Broken {
    Broken { how: format!("{round}: {}", broken.how), ..broken }
}

impl Living {
    pub(crate) fn new(seed: u64) -> Living {
        Living { lab: Lab::new(seed), oracle: Oracle::default(), tally: Tally::default(), aloud: false }
    }

    /// Returns a life with the same past and another future.
    pub(crate) fn fork(&self) -> Living {
        Living { lab: self.lab.fork(), oracle: self.oracle.clone(), tally: self.tally, aloud: self.aloud }
    }

    /// Runs once more, undisturbed: whatever came before, the world is then as declared.
    pub(crate) fn end(&mut self, program: &Program, hours: u64, refresh: bool) -> Result<(), Broken> {
        let mut tries = 1;
        let mut round = Round {
            hours: hours + self.lab.until_open(program, hours),
            refresh: refresh || !self.oracle.meddled.is_empty(),
            ..quiet(program, Verb::Up)
        };
        if !self.oracle.meddled.is_empty() {
            tries += 1;
        }
        if program.lines.iter().any(|line| line.import) {
            tries += 1;
        }
        let mut why = String::new();
        let (mut blind, mut cleared) = (false, false);
        while tries > 0 {
            tries -= 1;
            let ran = self.round(&round)?;
            round.hours = 0;
            if ran.complete() && self.oracle.settled.as_ref().is_some_and(|(settled, _)| settled == program) {
                return Ok(());
            }
            why = ran.told();
            // What was not looked at, as something was still open, is looked at by one more.
            if ran.complete() && tries == 0 && !self.oracle.meddled.is_empty() && !std::mem::replace(&mut blind, true) {
                tries += 1;
            }
            match self.oracle.explains(&ran, &round) {
                Some("refused") if why.contains("wait for each other") => {
                    let mut without = round.clone();
                    without.program.lines.iter_mut().for_each(|line| line.number = None);
                    let mut ran = self.round(&without)?;
                    why = format!("{why}, without any claims: {}", ran.told());
                    if !ran.complete() {
                        without.program.fleets.iter_mut().for_each(|fleet| fleet.at_most = 100);
                        without.program.lines.iter_mut().for_each(|line| line.fleet = None);
                        ran = self.round(&without)?;
                        why = format!("{why}, all members at once: {}", ran.told());
                    }
                    tries += 1;
                    if !ran.complete() {
                        break;
                    }
                }
                // A person takes away by hand what was left behind, and lets what is retained go before its number is another's.
                Some("refused") if why.contains("is still taken by") && !cleared => {
                    cleared = true;
                    let mut without = round.clone();
                    without.program.lines.iter_mut().for_each(|line| line.number = None);
                    let ran = self.round(&without)?;
                    self.lab.clear_left().map_err(|how| broken("the state can be written", how))?;
                    why = format!("{why}, without any claims: {}", ran.told());
                    tries += 1;
                }
                Some("plan again") if tries == 0 && round.parallel == 16 => {
                    round.parallel = 8;
                    tries += 1;
                }
                Some(_) | None => {}
            }
        }
        Err(broken("after any crash one more up gives the declared world", why))
    }

    /// Destroys everything.
    pub(crate) fn destroy(&mut self, program: &Program) -> Result<(), Broken> {
        let free = Life::amnesty(program);
        self.end(&free, 0, false)?;
        let ran = self.round(&quiet(&free, Verb::Destroy))?;
        if ran.complete() { Ok(()) } else { Err(broken("destroy leaves nothing but what is retained", ran.told())) }
    }

    /// One round, and everything that has to hold after it.
    pub(crate) fn round(&mut self, round: &Round) -> Result<Ran, Broken> {
        self.oracle.meddle(&self.lab, round);
        self.oracle.before(round);
        let ran = self.lab.run(round, &self.oracle);
        if self.aloud {
            let plan = ran.plan.as_ref().map(lab_core::plan::text).unwrap_or_default();
            let effects = &self.lab.world.contents().effects;
            println!("\n-- {:?}, complete: {}\n{plan}{}\n{effects:?}", round.verb, ran.complete(), ran.told());
        }
        self.tally.runs += 1;
        self.tally.killed += usize::from(ran.killed);
        self.tally.complete += usize::from(ran.complete());
        let contents = self.lab.world.contents().clone();
        self.tally.effects += contents.effects.len();
        self.oracle.effects.extend(contents.effects.iter().cloned());
        if let Some((property, how)) = contents.violations.into_iter().next() {
            return Err(broken(property, how));
        }
        if let Some(leak) = &ran.leak {
            return Err(broken("no secret in clear", leak.clone()));
        }
        let said = format!("{:?} {:?} {:?}", ran.heard, ran.report, ran.error);
        if clear(said.as_bytes()) {
            return Err(broken("no secret in clear", said));
        }
        if let Some(plan) = &ran.plan {
            if clear(&serde_json::to_vec(plan).unwrap_or_default()) || clear(lab_core::plan::text(plan).as_bytes()) {
                return Err(broken("no secret in clear", "the plan"));
            }
            self.shown(plan, &ran)?;
        }
        if let Verb::Target(tags) = &round.verb
            && tags.iter().any(|tag| round.program.line(tag).is_some())
        {
            let part = self.oracle.part(&round.program, tags);
            let made = contents.effects.iter().filter(|effect| matches!(effect.what, What::Create | What::Update));
            if let Some(effect) = made.into_iter().find(|effect| !part.contains(&effect.tag)) {
                return Err(broken("a part touches nothing of the rest", format!("{effect:?} for {tags:?}")));
            }
        }
        let abroad = round.program.lines.iter().any(|line| line.number == Some(ABROAD));
        if abroad
            && ran.plan.as_ref().is_some_and(|plan| plan.problems.is_empty() && plan.verb == lab_core::plan::Verb::Up)
        {
            return Err(broken("what another stack has is not taken", "the plan has no problem"));
        }
        self.oracle.others(&self.lab).map_err(|how| broken("somebody else's things are never touched", how))?;
        let state = self.lab.state().map_err(|how| broken("the state can be read", how))?;
        if durable(&self.lab.disk).is_none() {
            return Err(broken("the state can be read", "after the power went"));
        }
        // Whatever is ours is known: nothing is forgotten, wherever it stopped.
        let condemned = state.condemned.values().map(|condemned| &condemned.record);
        let marks: BTreeSet<&str> = state
            .records
            .values()
            .map(|record| &**record)
            .chain(condemned)
            .map(|record| record.mark.0.as_str())
            .collect();
        for (at, item) in &contents.items {
            let known = item.by.as_ref().is_none_or(|by| marks.contains(by.as_str()));
            if !known && !self.oracle.ever_retained.contains(&item.tag) {
                return Err(broken("nothing is orphaned", format!("{at:?}: {item:?}")));
            }
        }
        self.settled(round, &ran)?;
        Ok(ran)
    }

    fn settled(&mut self, round: &Round, ran: &Ran) -> Result<(), Broken> {
        let undisturbed = round.mishaps.is_empty() && round.disk.is_none() && round.asks.is_empty();
        if !ran.complete() {
            let explained = self.oracle.explains(ran, round);
            self.tally.refused += usize::from(explained == Some("refused"));
            let refused = ran.plan.as_ref().is_some_and(|plan| !plan.problems.is_empty());
            if refused && !self.lab.world.contents().effects.is_empty() {
                return Err(broken("a refused plan does nothing", ran.told()));
            }
            if refused {
                self.oracle.since.pop();
            }
            if (undisturbed || refused) && round.cut_off.is_none() && explained.is_none() {
                return Err(broken("an undisturbed run completes", ran.told()));
            }
            return Ok(());
        }
        if let Some(held) = ran.plan.as_ref().and_then(|plan| plan.held.first()) {
            // What is held is done some other time.
            let closed = !ran.planned.is_some_and(|at| open(&round.program, at));
            let how = format!("{} is held", held.step.urn);
            return if closed { Ok(()) } else { Err(broken("nothing is held while the window is open", how)) };
        }
        let left = |record: &lab_core::Record| ran.before.condemned.get(&record.mark).is_some_and(|it| it.left_behind);
        let settled = ran.before.open().all(|(_, record, _)| left(record));
        let looked = round.refresh && round.mishaps.is_empty() && settled;
        let blind = !self.oracle.meddled.is_empty() && !looked;
        match &round.verb {
            Verb::Refresh | Verb::Target(_) => return Ok(()),
            Verb::Destroy => return self.destroyed(round),
            Verb::Up | Verb::Saved => {}
        }
        let imports = |step: &lab_core::plan::Step| matches!(step.action, Action::Import { .. });
        let imported = ran.plan.as_ref().is_some_and(|plan| plan.steps.iter().any(imports));
        let making = |step: &lab_core::plan::Step| matches!(step.action, Action::Continue { making: true, .. });
        let taken = ran.plan.as_ref().is_some_and(|plan| {
            let line =
                |step: &lab_core::plan::Step| round.program.lines.iter().find(|line| line.called() == step.urn.short());
            let import = |step| line(step).is_some_and(|line| self.oracle.imported.contains(&line.tag));
            plan.steps.iter().any(|step| making(step) && import(step))
        });
        // What is not looked at is not seen; what was taken over differs from its line until the next run.
        let unasked = !round.mishaps.is_empty() && round.program.lines.iter().any(|line| line.kind == Kind::Look);
        if blind || imported || taken || unasked || round.cut_off.is_some() {
            return Ok(());
        }
        let program = &round.program;
        self.oracle
            .compare(&self.lab, program)
            .map_err(|how| broken("a plan applied gives the declared world", how))?;
        let again = self.lab.preview(program, false).map_err(|how| broken("the second plan is empty", how))?;
        if !again.is_empty() {
            return Err(broken("the second plan is empty", lab_core::plan::text(&again)));
        }
        if let Some((before, _)) = &self.oracle.settled {
            let sure = self.oracle.since.iter().all(|between| {
                before
                    .lines
                    .iter()
                    .filter(|line| line.retain)
                    .all(|line| between.line(&line.tag).is_none_or(|other| other.retain && other.on == line.on))
            });
            if sure && self.oracle.meddled.is_empty() && self.oracle.since.len() == 1 {
                let released = released(before, program, &self.lab);
                let expected = before.lines.iter().filter(|line| {
                    let stays = before.around(&line.tag).iter().all(|on| program.line(on).is_some());
                    line.retain && program.line(&line.tag).is_none() && stays && line.on.is_none()
                });
                for line in expected {
                    if !released.keys().any(|(_, key)| key.starts_with(&line.tag)) {
                        return Err(broken("what is retained stays", line.tag.clone()));
                    }
                }
                self.oracle.released.extend(released);
            }
        }
        self.oracle.settle(&self.lab, program).map_err(|how| broken("nothing twice, nothing anew", how))?;
        self.oracle.meddled.clear();
        Ok(())
    }

    /// Nothing is left but what is retained, what was left behind and said so, and what is somebody else's.
    fn destroyed(&mut self, round: &Round) -> Result<(), Broken> {
        let property = "destroy leaves nothing but what is retained";
        let state = self.lab.state().map_err(|how| broken(property, how))?;
        if let Some(urn) = state.records.keys().next() {
            return Err(broken(property, format!("{urn} is still in the state")));
        }
        let left: BTreeSet<&str> = state.condemned.values().map(|left| left.record.mark.0.as_str()).collect();
        if let Some(left) = state.condemned.values().find(|condemned| !condemned.left_behind) {
            return Err(broken(property, format!("{} is still condemned", left.urn)));
        }
        let contents = self.lab.world.contents().clone();
        for (at, item) in &contents.items {
            let may = item.by.as_ref().is_none_or(|by| left.contains(by.as_str()))
                || self.oracle.ever_retained.contains(&item.tag);
            if !may {
                return Err(broken(property, format!("{at:?}: {item:?}")));
            }
        }
        let again = self.lab.preview(&round.program, true).map_err(|how| broken(property, how))?;
        if !again.is_empty() {
            return Err(broken("the second plan is empty", lab_core::plan::text(&again)));
        }
        if self.oracle.meddled.is_empty() {
            self.oracle.settled = Some((Program::default(), Default::default()));
            self.oracle.since.clear();
            self.oracle.effects.clear();
            self.oracle.protected.clear();
        }
        Ok(())
    }

    /// What was done was shown: every effect belongs to a step of the plan, with the values that it showed.
    fn shown(&self, plan: &Plan, ran: &Ran) -> Result<(), Broken> {
        let text = |step: &lab_core::plan::Step, field: &str| {
            let spec = step.spec.as_ref()?;
            spec.inputs.value().get(field)?.as_str().map(str::to_owned)
        };
        let contents = self.lab.world.contents();
        for effect in &contents.effects {
            let about = |step: &&lab_core::plan::Step| text(step, "tag").as_ref() == Some(&effect.tag);
            let with = |step: &lab_core::plan::Step| {
                let same = |field: &str, value: &str| text(step, field).is_none_or(|shown| shown == value);
                same("text", &effect.text) && same("stand", &effect.stand)
            };
            // What was taken over and never changed bears no mark of ours.
            let recorded =
                ran.before.records.values().find(|record| record.spec.inputs.value()["tag"] == effect.tag.as_str());
            let by = effect.by.as_deref().or(recorded.map(|record| record.mark.0.as_str()));
            let of_it =
                |step: &lab_core::plan::Step| by.is_some() && step.mark.as_ref().map(|mark| mark.0.as_str()) == by;
            let shown = match effect.what {
                What::Create => plan.steps.iter().filter(about).any(|step| {
                    with(step)
                        && match step.action {
                            Action::Create | Action::Supersede => true,
                            Action::Continue { making, .. } => making || step.permits.replace,
                            Action::Update | Action::Renew => step.permits.replace,
                            _ => false,
                        }
                }),
                What::Update => plan.steps.iter().filter(about).any(|step| {
                    with(step) && matches!(step.action, Action::Update | Action::Renew | Action::Continue { .. })
                }),
                What::Delete => plan.steps.iter().any(|step| {
                    of_it(step)
                        && match step.action {
                            Action::Delete { .. } => true,
                            Action::Update | Action::Continue { .. } => step.permits.replace,
                            _ => false,
                        }
                }),
                What::Swept => {
                    self.oracle.ever_retained.contains(&effect.tag)
                        || plan.steps.iter().any(|step| of_it(step) && step.removes())
                }
            };
            if !shown {
                let property = match effect.what {
                    What::Delete | What::Swept => "nothing outside the shown plan is deleted",
                    What::Create | What::Update => "what was executed is what was shown",
                };
                return Err(broken(
                    property,
                    format!("{effect:?}, of which the plan says nothing:\n{}", lab_core::plan::text(plan)),
                ));
            }
        }
        let steps: BTreeSet<_> = plan.steps.iter().map(|step| &step.urn).collect();
        for progress in &ran.heard {
            if let Progress::Started { urn, .. } = progress
                && !steps.contains(urn)
            {
                return Err(broken("what was executed is what was shown", format!("{urn} was begun")));
            }
        }
        if let Some(report) = ran.report.as_ref().filter(|report| !report.stopped) {
            let told = report.done.len() + report.failed.len() + report.not_started.len() + report.left.len();
            let whole = report.failed.iter().filter(|failure| failure.urn.kind() == "lab:stack").count();
            if told - whole != plan.steps.len() && whole == 0 {
                let how = format!("{told} of {} steps were told: {report:?}", plan.steps.len());
                return Err(broken("what was executed is what was shown", how));
            }
        }
        Ok(())
    }
}
