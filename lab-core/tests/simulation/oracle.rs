//! What the world should be, said by the programs alone: without the engine's plan, and without its state.

use crate::life::{Life, Meddling, Round, Verb};
use crate::program::{HUSH, Kind, Line, Program, Says};
use crate::run::{Lab, Ran};
use crate::world::{ABROAD, Effect, Item, What, unnumbered};
use std::collections::{BTreeMap, BTreeSet};

/// What is known about a life so far.
#[derive(Clone, Default)]
pub(crate) struct Oracle {
    /// The program that was last applied as a whole, what stood then under each tag, and what was attempted since.
    pub(crate) settled: Option<(Program, BTreeMap<String, u64>)>,
    pub(crate) since: Vec<Program>,
    /// Every effect since then.
    pub(crate) effects: Vec<Effect>,
    /// What was certainly applied as protected, and nobody has said otherwise since.
    pub(crate) protected: BTreeSet<String>,
    /// What was protected by any program: it may be refused.
    pub(crate) ever_protected: BTreeSet<String>,
    /// What some program retained: it may stay when its line goes.
    pub(crate) ever_retained: BTreeSet<String>,
    /// Things of somebody else's, as they were left.
    pub(crate) foreign: BTreeMap<(String, String), Item>,
    /// Tags that some program took over.
    pub(crate) imported: BTreeSet<String>,
    /// Tags that somebody else touched since.
    pub(crate) meddled: BTreeSet<String>,
    /// Things of somebody else's that stand where ours belong, until the next round.
    pub(crate) squatters: Vec<(String, String)>,
    /// Retained things whose line went: they stay as they are.
    pub(crate) released: BTreeMap<(String, String), Item>,
    /// What things said, and which they were, whose words are left to others: by tag.
    pub(crate) ignored: BTreeMap<String, (u64, String)>,
}

impl Program {
    /// Returns what a line says, by the program alone.
    pub(crate) fn text_of(&self, tag: &str, said: &dyn Fn(&str) -> String) -> String {
        match self.line(tag) {
            Some(line) => match line.kind {
                Kind::Look => said(tag),
                Kind::Bundle => tag.to_owned(),
                Kind::Thing if line.ignore => said(tag),
                Kind::Thing => self.say(&line.text, said),
            },
            None => String::new(),
        }
    }

    pub(crate) fn say(&self, says: &Says, said: &dyn Fn(&str) -> String) -> String {
        match says {
            Says::Plain(text) => text.clone(),
            Says::Of(tag) => self.text_of(tag, said),
        }
    }

    /// Returns where a line's thing stands, without numbers.
    pub(crate) fn place_of(&self, line: &Line) -> String {
        match &line.on {
            None if line.annex => "annex".into(),
            None => self.rack.clone(),
            Some(on) => match self.line(on) {
                Some(container) => format!("{}/{on}", self.place_of(container)),
                None => String::new(),
            },
        }
    }
}

impl Oracle {
    /// Lets somebody else do what they do before a round.
    pub(crate) fn meddle(&mut self, lab: &Lab, round: &Round) {
        lab.world.contents().run.protected.clear();
        for at in self.squatters.drain(..) {
            self.foreign.remove(&at);
            let mut contents = lab.world.contents();
            if contents.items.get(&at).is_some_and(|item| item.by.is_none()) {
                contents.items.remove(&at);
            }
        }
        for meddling in &round.meddling {
            match meddling {
                Meddling::Plants(tag) => {
                    lab.plant("rack", tag);
                    let contents = lab.world.contents();
                    if let Some(item) = contents.get("rack", tag).filter(|item| item.by.is_none()) {
                        self.foreign.insert(("rack".into(), tag.clone()), item.clone());
                    }
                }
                Meddling::Squats(tag) => {
                    let at = (round.program.rack.clone(), tag.clone());
                    let free = !lab.world.contents().items.contains_key(&at);
                    if free {
                        lab.plant(&at.0, tag);
                        let item = lab.world.contents().items.get(&at).cloned();
                        self.foreign.extend(item.map(|item| (at.clone(), item)));
                        self.squatters.push(at);
                        self.meddled.insert(tag.clone());
                    }
                }
                Meddling::Rewrites(tag, text) => {
                    let at = ("rack".to_owned(), tag.clone());
                    let mut contents = lab.world.contents();
                    if let Some(item) = contents.items.get_mut(&at).filter(|item| item.by.is_none()) {
                        item.text = text.clone();
                        self.foreign.insert(at, item.clone());
                        if self.imported.contains(tag) {
                            self.meddled.insert(tag.clone());
                        }
                    }
                }
                Meddling::Takes(tag) => {
                    let mut contents = lab.world.contents();
                    let there = contents.ours(tag).map(|(at, _)| at.clone()).next();
                    if let Some((place, key)) = there {
                        let before = contents.items.clone();
                        contents.take(&place, &key);
                        let gone = before.iter().filter(|(at, _)| !contents.items.contains_key(at));
                        self.meddled.extend(gone.map(|(_, item)| item.tag.clone()));
                        self.released.retain(|at, _| contents.items.contains_key(at));
                    }
                }
                Meddling::Changes(tag) => {
                    let mut contents = lab.world.contents();
                    let there = contents.ours(tag).map(|(at, _)| at.clone()).next();
                    if let Some(item) = there.and_then(|at| contents.items.get_mut(&at)) {
                        item.text = "changed by somebody else".into();
                        self.meddled.insert(tag.clone());
                        let at: Vec<_> = self.released.keys().filter(|(_, key)| key == tag).cloned().collect();
                        at.iter().for_each(|at| drop(self.released.remove(at)));
                    }
                }
            }
        }
    }

    /// Takes in what a round is about to attempt.
    pub(crate) fn before(&mut self, round: &Round) {
        for line in &round.program.lines {
            if line.protect == Some(false) {
                self.protected.remove(&line.tag);
            }
            if line.protect == Some(true) {
                self.ever_protected.insert(line.tag.clone());
            }
            if line.retain {
                self.ever_retained.insert(line.tag.clone());
            }
            if line.import {
                self.imported.insert(line.tag.clone());
            }
        }
        match round.verb {
            Verb::Destroy => self.since.push(Program::default()),
            Verb::Up | Verb::Saved | Verb::Target(_) => self.since.push(round.program.clone()),
            Verb::Refresh => {}
        }
    }

    /// Takes in that a program was applied as a whole, and says what is wrong with how that came about.
    pub(crate) fn settle(&mut self, lab: &Lab, program: &Program) -> Result<(), String> {
        let contents = lab.world.contents().clone();
        let standing: BTreeMap<String, u64> = program
            .lines
            .iter()
            .filter_map(|line| {
                let place = program.place_of(line);
                let of = |((at, _), item): &(&(String, String), &Item)| item.tag == line.tag && unnumbered(at) == place;
                // The last one: one of before may have been left behind, or retained.
                let last = contents.items.iter().filter(of).map(|(_, item)| item.serial).max();
                last.map(|serial| (line.tag.clone(), serial))
            })
            .collect();
        let chain: Vec<&Program> = self.since.iter().collect();
        let told = |tag: &str, what: What| {
            self.effects.iter().filter(|effect| effect.tag == tag && effect.what == what).count()
        };
        for line in program.lines.iter().filter(|line| line.kind == Kind::Thing) {
            let tag = &line.tag;
            let was = self.settled.as_ref().and_then(|(before, standing)| Some((before, standing.get(tag)?)));
            let whole: Vec<&Program> = was.iter().map(|(before, _)| *before).chain(chain.iter().copied()).collect();
            // Programs from before the line was written do not count.
            let whole: Vec<&Program> = match was {
                Some(_) => whole,
                None => whole.into_iter().skip_while(|program| program.line(tag).is_none()).collect(),
            };
            let said = |tag: &str| contents.said(program, tag);
            if !self.kept(&whole, tag, &said) {
                continue;
            }
            let (created, deleted) = (told(tag, What::Create), told(tag, What::Delete) + told(tag, What::Swept));
            let expected = usize::from(was.is_none() && !line.import);
            if !line.import && (created != expected || deleted != 0) {
                return Err(format!("{tag} was made {created} times, not {expected}, and deleted {deleted} times"));
            }
            if let Some((_, serial)) = was
                && standing.get(tag) != Some(serial)
            {
                return Err(format!("{tag} is another thing than before, though nothing said so"));
            }
            let item = contents.items.values().find(|item| standing.get(tag) == Some(&item.serial));
            let left =
                self.ignored.get(tag).filter(|_| whole.iter().all(|one| one.line(tag).is_some_and(|l| l.ignore)));
            if let (Some((serial, text)), Some(item)) = (left, item)
                && item.serial == *serial
                && item.text != *text
            {
                return Err(format!("{tag} said {text:?}, which was left to others, and says {:?}", item.text));
            }
            let plain = |says: &Says| matches!(says, Says::Plain(_));
            let quiet = line.secret.as_ref().is_none_or(plain) && line.expires.is_none() && !line.import;
            let same = whole.iter().all(|other| {
                other.line(tag).is_some_and(|other| other.same_inputs(line))
                    && other.text_of(tag, &said) == program.text_of(tag, &said)
            });
            if was.is_some() && quiet && same && !self.moot(&whole, tag, &said) && told(tag, What::Update) > 0 {
                return Err(format!("{tag} was changed, though nothing about it did"));
            }
        }
        let ignoring = program.lines.iter().filter(|line| line.ignore);
        self.ignored = ignoring
            .filter_map(|line| {
                let item = contents.items.values().find(|item| standing.get(&line.tag) == Some(&item.serial))?;
                Some((line.tag.clone(), (item.serial, item.text.clone())))
            })
            .collect();
        self.settled = Some((program.clone(), standing));
        self.since.clear();
        self.effects.clear();
        for line in &program.lines {
            match line.protect {
                Some(true) => drop(self.protected.insert(line.tag.clone())),
                Some(false) => drop(self.protected.remove(&line.tag)),
                None => {}
            }
        }
        let declared: BTreeSet<&String> = program.lines.iter().map(|line| &line.tag).collect();
        self.protected.retain(|tag| declared.contains(tag));
        Ok(())
    }

    /// Returns true when a thing had no reason to be another one, over all these programs.
    fn kept(&self, chain: &[&Program], tag: &str, said: &dyn Fn(&str) -> String) -> bool {
        if self.meddled.contains(tag) {
            return false;
        }
        let wired = |program: &Program| program.line(tag).is_some_and(|line| matches!(line.stand, Says::Of(_)));
        if chain.iter().any(|program| wired(program)) && self.moot(chain, tag, said) {
            return false;
        }
        chain.windows(2).all(|pair| {
            let (Some(a), Some(b)) = (pair[0].line(tag), pair[1].line(tag)) else { return false };
            let known = a.name == b.name || b.was.contains(&a.name) || (!a.marked && !b.marked);
            known
                && a.marked == b.marked
                && (a.part == b.part || !a.marked)
                && a.on == b.on
                && a.trigger == b.trigger
                && a.import == b.import
                && pair[0].place_of(a) == pair[1].place_of(b)
                && pair[0].say(&a.stand, said) == pair[1].say(&b.stand, said)
        }) && chain.first().is_some_and(|program| program.line(tag).is_some())
            && chain
                .last()
                .and_then(|program| program.line(tag)?.on.as_deref())
                .is_none_or(|on| self.kept(chain, on, said))
            // A name that another line has meanwhile is nobody's for certain.
            && chain.last().is_some_and(|program| {
                program.lines.iter().filter(|line| line.tag != tag).all(|line| !line.was.iter().any(|was| {
                    chain.iter().any(|program| program.line(tag).is_some_and(|line| line.name == *was))
                }))
            })
    }

    /// Returns true when nobody can say what a thing was made from, over all these programs: what somebody else wrote may say
    /// anything, and so may what is left to others, unless it is so all the time and the same thing.
    fn moot(&self, chain: &[&Program], tag: &str, said: &dyn Fn(&str) -> String) -> bool {
        let needs: BTreeSet<String> =
            chain.iter().flat_map(|program| program.needs(tag)).filter(|it| it != tag).collect();
        needs.iter().any(|needed| {
            let ignored = |program: &&Program| program.line(needed).is_some_and(|line| line.ignore);
            let left = chain.iter().any(ignored) && !(chain.iter().all(ignored) && self.kept(chain, needed, said));
            needed.starts_with(['q', 'i']) || self.meddled.contains(needed) || left
        })
    }

    /// Returns what a run of a part may touch: what was named, whatever that needs, and whatever goes along with it.
    pub(crate) fn part(&self, program: &Program, tags: &[String]) -> BTreeSet<String> {
        let mut part: BTreeSet<String> = tags.iter().cloned().collect();
        let known: Vec<&Program> = self.settled.iter().map(|(program, _)| program).chain(&self.since).collect();
        loop {
            let mut more: BTreeSet<String> = part.iter().flat_map(|tag| program.needs(tag)).collect();
            let chosen = |line: &&Line| part.contains(&line.tag);
            for line in &program.lines {
                let inside = program.around(&line.tag).iter().any(|around| part.contains(*around));
                // Also whoever was, as far as is known: it has to let go of what is replaced.
                let programs = known.iter().copied().chain([program]);
                let mut sources = programs.filter_map(|one| one.line(&line.tag)).flat_map(Line::sources);
                let wired = sources.any(|source| part.contains(source));
                let mate = line.fleet.is_some() && program.lines.iter().any(|l| l.fleet == line.fleet && chosen(&l));
                // Whoever had the number that one of them gets.
                let had: Vec<u64> = known.iter().filter_map(|one| one.line(&line.tag)?.number).collect();
                let gives = program.lines.iter().any(|l| chosen(&l) && l.number.is_some_and(|n| had.contains(&n)));
                if inside || wired || mate || gives {
                    more.insert(line.tag.clone());
                }
            }
            // Who is declared no more lets go as well, and who needed that.
            let gone = known.iter().flat_map(|one| &one.lines).filter(|line| program.line(&line.tag).is_none());
            let goes = |line: &&Line| line.sources().into_iter().chain(line.on.as_deref()).any(|of| part.contains(of));
            more.extend(gone.clone().filter(goes).map(|line| line.tag.clone()));
            // It may let go by going with what it lies in.
            more.extend(gone.filter(chosen).filter_map(|line| line.on.clone()));
            let before = part.len();
            part.extend(more);
            if part.len() == before {
                return part;
            }
        }
    }

    /// Returns the first thing that is not as it should be once `program` was applied as a whole.
    pub(crate) fn compare(&self, lab: &Lab, program: &Program) -> Result<(), String> {
        let contents = lab.world.contents().clone();
        let state = lab.state()?;
        let said = |tag: &str| contents.said(program, tag);
        let mut declared: BTreeSet<(String, String)> = BTreeSet::new();
        for line in program.lines.iter().filter(|line| line.kind == Kind::Thing) {
            let tag = &line.tag;
            let record = state.records.iter().find(|(urn, record)| {
                record.spec.kind == "sim:thing" && record.spec.inputs.value()["tag"] == **tag && urn.name() == line.name
            });
            let Some((_, record)) = record else { return Err(format!("{tag} is not in the state")) };
            let place = program.place_of(line);
            let key = record.id.as_ref().map(|id| id.0.clone()).unwrap_or_default();
            let there: Vec<(&(String, String), &Item)> = contents
                .items
                .iter()
                .filter(|((at, name), item)| {
                    let ours = item.by.as_ref().is_none_or(|by| *by == record.mark.0);
                    item.tag == *tag && unnumbered(at) == place && *name == key && ours
                })
                .collect();
            let [(at, item)] = there[..] else { return Err(format!("{tag} is {} times in {place}", there.len())) };
            let (text, stand) = (program.text_of(tag, &said), program.say(&line.stand, &said));
            if (&item.text, &item.stand) != (&text, &stand) {
                let (is, stands) = (&item.text, &item.stand);
                return Err(format!("{tag} says {is:?} at {stands:?} instead of {text:?} at {stand:?}"));
            }
            if item.left > 0 || item.leaving.is_some() || item.away {
                return Err(format!("{tag} is not ready: {item:?}"));
            }
            if line.expires.is_some() && item.expires.is_none_or(|due| due <= crate::world::second(lab.began)) {
                return Err(format!("{tag} is due and was not renewed"));
            }
            match &line.secret {
                None if item.secret.is_some() => return Err(format!("{tag} keeps a secret that nothing says")),
                Some(Says::Plain(secret)) if item.secret.as_ref() != Some(secret) => {
                    return Err(format!("{tag} keeps another secret: {:?}", item.secret));
                }
                Some(Says::Of(source)) => {
                    let of = match program.line(source).map(|line| line.kind) {
                        Some(Kind::Bundle) => state
                            .records
                            .values()
                            .find(|record| {
                                record.spec.kind == "sim:bundle" && record.spec.inputs.value()["tag"] == **source
                            })
                            .map(|record| format!("{HUSH}bundle-{}", record.mark)),
                        _ => {
                            let place = program.line(source).map(|line| program.place_of(line)).unwrap_or_default();
                            let of = |((at, _), item): &(&(String, String), &Item)| {
                                item.tag == *source
                                    && unnumbered(at) == place
                                    && state
                                        .records
                                        .values()
                                        .any(|record| item.by.as_ref().is_none_or(|by| record.mark.0 == *by))
                            };
                            let source = contents.items.iter().find(of).map(|(_, item)| item);
                            source.map(|item| format!("{HUSH}key-{}-{}", item.tag, item.serial))
                        }
                    };
                    if item.secret != of {
                        return Err(format!("{tag} keeps {:?} instead of {of:?}", item.secret));
                    }
                }
                None | Some(Says::Plain(_)) => {}
            }
            declared.insert(at.clone());
        }
        for (line, fleet) in program.lines.iter().filter_map(|line| Some((line, &program.fleets[line.fleet?]))) {
            let of = |(tag, what): &&(String, &str)| {
                *tag == line.tag && (fleet.acts.before().contains(what) || fleet.acts.after().contains(what))
            };
            if let Some((tag, what)) = contents.drained.iter().find(of) {
                return Err(format!("{what} is still in effect for {tag}"));
            }
            if let Some((tag, what)) = contents.due.iter().find(of) {
                return Err(format!("{what} is still due for {tag}"));
            }
        }
        let left: BTreeSet<&str> = state
            .condemned
            .values()
            .filter(|condemned| condemned.left_behind)
            .map(|condemned| condemned.record.mark.0.as_str())
            .collect();
        if let Some(condemned) = state.condemned.values().find(|condemned| !condemned.left_behind) {
            return Err(format!("{} is still condemned", condemned.urn));
        }
        if let Some((urn, ..)) = state.open().find(|(_, record, _)| !left.contains(record.mark.0.as_str())) {
            return Err(format!("an operation on {urn} is still open"));
        }
        let things = state.records.values().filter(|record| record.spec.kind == "sim:thing").count();
        if things != declared.len() {
            return Err(format!("the state knows {things} things, the program {}", declared.len()));
        }
        for (at, item) in &contents.items {
            let known = declared.contains(at)
                || item.by.is_none()
                || item.by.as_ref().is_some_and(|by| left.contains(by.as_str()))
                || self.ever_retained.contains(&item.tag);
            if !known {
                return Err(format!("{}/{} is an orphan: {item:?}", at.0, at.1));
            }
        }
        Ok(())
    }

    /// Returns what somebody else would complain about.
    pub(crate) fn others(&self, lab: &Lab) -> Result<(), String> {
        let contents = lab.world.contents();
        for (at, item) in self.foreign.iter().filter(|(at, _)| !self.imported.contains(&at.1)) {
            if contents.items.get(at) != Some(item) {
                return Err(format!("{at:?} was {item:?} and is {:?}", contents.items.get(at)));
            }
        }
        // What lies in something goes with it, whoever keeps it: the place of a container ends in its number.
        let there = |number: &str| contents.items.values().any(|item| item.serial.to_string() == number);
        let stands = |place: &str| place.split('/').filter_map(|part| part.rsplit_once('#')).all(|(_, n)| there(n));
        for (at, item) in self.released.iter().filter(|(at, _)| stands(&at.0)) {
            if contents.items.get(at) != Some(item) {
                return Err(format!("{at:?} was retained and is {:?}", contents.items.get(at)));
            }
        }
        Ok(())
    }

    /// Returns why a run that nothing disturbed may stop all the same.
    pub(crate) fn explains(&self, ran: &Ran, round: &Round) -> Option<&'static str> {
        let meddled = (!self.meddled.is_empty()).then_some("somebody else was there");
        if let Some(plan) = &ran.plan
            && !plan.problems.is_empty()
        {
            // A number that goes from one thing to another, which may be the next one of the same line.
            let numbers = |program: &Program| {
                let thing = |line: &Line| (line.called(), line.marked, program.place_of(line));
                let all = program.lines.iter().filter_map(|line| Some((line.tag.clone(), (line.number?, thing(line)))));
                all.collect::<BTreeMap<String, _>>()
            };
            let programs = self.settled.iter().map(|(program, _)| program).chain(&self.since).chain([&round.program]);
            let shuffled = || {
                let all: Vec<_> = programs.clone().map(&numbers).collect();
                let pairs = all.iter().flat_map(|a| all.iter().map(move |b| (a, b)));
                pairs.into_iter().any(|(a, b)| {
                    let handed = |tag: &String, n: u64| b.iter().any(|(other, m)| other != tag && m.0 == n);
                    a.iter().any(|(tag, n)| b.get(tag).is_some_and(|m| m != n) || handed(tag, n.0))
                })
            };
            // A rolling group that goes from one container to another, of which the first has to go before the other is made.
            let rolls = |circle: &str| {
                let around = |program: &Program| -> Vec<(String, String)> {
                    let called = |line: &Line| Some(program.line(line.on.as_deref()?)?.called());
                    let members = program.lines.iter().filter(|line| line.fleet.is_some());
                    members.filter_map(|line| Some((line.tag.clone(), called(line)?))).collect()
                };
                let all: BTreeSet<(String, String)> = programs.clone().flat_map(around).collect();
                let moved = |(tag, left): &(String, String)| all.iter().any(|(same, at)| same == tag && at != left);
                let steps: BTreeSet<&str> = circle.rsplit(": ").flat_map(|steps| steps.split(", ")).collect();
                all.iter().filter(|member| moved(member)).any(|(_, left)| steps.contains(&*format!("delete {left}")))
            };
            let stays = || {
                let wanted: BTreeSet<u64> = round.program.lines.iter().filter_map(|line| line.number).collect();
                let mut had = programs.clone().flat_map(|program| &program.lines);
                had.any(|line| (line.outside || line.retain) && line.number.is_some_and(|n| wanted.contains(&n)))
            };
            let each = |problem: &lab_core::plan::Problem| {
                let guarded = problem.message.contains("is protected, and would be deleted");
                if guarded {
                    return !self.ever_protected.is_empty();
                }
                if problem.message.contains("in stack other") {
                    return round.program.lines.iter().any(|line| line.number == Some(ABROAD));
                }
                // What somebody is to have that was retained, or left behind, in the same run or before.
                let kept = problem.message.contains("is still taken by");
                (kept && stays())
                    || (problem.message.contains("wait for each other") && (shuffled() || rolls(&problem.message)))
            };
            return plan.problems.iter().all(each).then_some("refused").or(meddled);
        }
        if meddled.is_some() {
            return meddled;
        }
        let report = ran.report.as_ref()?;
        let nothing =
            |failure: &lab_core::execute::Failure| failure.error.contains("nothing with this identity to import");
        if !report.failed.is_empty() && report.failed.iter().all(nothing) {
            return Some("nothing to import");
        }
        let closed = |(_, why): &(lab_core::Urn, String)| why.contains("its maintenance window has closed");
        if report.failed.is_empty() && report.left.is_empty() && report.not_started.iter().any(closed) {
            return Some("the window has closed");
        }
        let unshown = |failure: &lab_core::execute::Failure| failure.error.contains("which the plan did not show");
        (!report.failed.is_empty() && report.failed.iter().all(unshown)).then_some("plan again")
    }
}

/// Returns the retained things whose line went in a run that was complete: they stay as they are from here on.
pub(crate) fn released(before: &Program, after: &Program, lab: &Lab) -> BTreeMap<(String, String), Item> {
    let contents = lab.world.contents();
    let gone = before.lines.iter().filter(|line| line.retain && after.line(&line.tag).is_none());
    let stays = |line: &&Line| before.around(&line.tag).iter().all(|on| after.line(on).is_some());
    gone.filter(stays)
        .flat_map(|line| {
            let place = before.place_of(line);
            contents
                .items
                .iter()
                .filter(|((at, _), item)| item.tag == line.tag && unnumbered(at) == place)
                .map(|(at, item)| (at.clone(), item.clone()))
                .collect::<Vec<_>>()
        })
        .collect()
}

impl Life {
    /// Returns the program with nothing protected, for the very end.
    pub(crate) fn amnesty(program: &Program) -> Program {
        let mut program = program.clone();
        program.lines.iter_mut().for_each(|line| line.protect = Some(false));
        program
    }
}
