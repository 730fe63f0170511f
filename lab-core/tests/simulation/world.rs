//! The outside in memory: what exists, who is called when and with which mishap, and what must never be done to it.
//!
//! Every effect is judged as it happens, by what the *program* says and what is durable at that moment. What was done
//! wrong is kept as a violation, with the property that it breaks.

use crate::dice::Dice;
use crate::program::{Acts, Kind, Line, Program, Says};
use lab_core::execute::disk::{Crash, FaultyDisk};
use lab_core::execute::journal::Journal;
use lab_core::{Clock, EdgeKind, Error, Event, Result, State, Status, Urn};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;

/// The stack that all programs of the simulation are.
pub(crate) const STACK: &str = "lab";

/// The number that another stack of the same lab occupies.
pub(crate) const ABROAD: u64 = 9_000;

/// One thing in the world.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Item {
    pub(crate) tag: String,
    /// The mark that it shows.
    pub(crate) mark: Option<String>,
    /// The operation that made it, whether it shows that or not; none: somebody else's.
    pub(crate) by: Option<String>,
    /// A number that no other thing ever had.
    pub(crate) serial: u64,
    pub(crate) text: String,
    pub(crate) stand: String,
    pub(crate) secret: Option<String>,
    /// How many more calls its making or its change takes.
    pub(crate) left: u32,
    /// It was ready once: what lives inside can be reached.
    pub(crate) opened: bool,
    pub(crate) leaving: Option<u32>,
    pub(crate) outside: bool,
    /// What it occupies.
    pub(crate) number: Option<u64>,
    /// The rolling group whose users miss it while it changes.
    pub(crate) fleet: Option<String>,
    pub(crate) away: bool,
    pub(crate) expires: Option<u64>,
}

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// It fails, may succeed later, and had no effect.
    Again,
    /// It is not answered, and had no effect.
    Refuse,
    /// Somebody else changed something at the same time; it had no effect.
    Conflict,
    /// It fails for good and had no effect.
    Fail,
    /// It has its effect, and its reply is lost.
    Lose,
    /// It has its effect, and reports that it failed for good.
    FailAfter,
    /// It has its effect, and answers after every deadline.
    Late,
    /// It never comes to its effect, and never answers.
    Hang,
    /// The provider panics before the effect.
    Panic,
    /// The provider panics after it.
    PanicAfter,
    /// The process is killed before the effect.
    KillBefore,
    /// The process is killed after the effect.
    KillAfter,
}

/// What one call did to the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Effect {
    pub(crate) what: What,
    pub(crate) place: String,
    pub(crate) tag: String,
    pub(crate) by: Option<String>,
    pub(crate) text: String,
    pub(crate) stand: String,
    pub(crate) serial: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Create,
    Update,
    Delete,
    /// Gone with what contained it.
    Swept,
}

/// What is true of one run.
#[derive(Clone, Default)]
pub(crate) struct Run {
    pub(crate) program: Program,
    /// Everything is to go: the program is only there for its vocabulary.
    pub(crate) destroys: bool,
    pub(crate) mishaps: BTreeMap<usize, Mishap>,
    pub(crate) latency: u64,
    pub(crate) cut_off: Option<String>,
    /// What must not go: by tag.
    pub(crate) protected: BTreeSet<String>,
    /// What some program took over: by tag.
    pub(crate) imported: BTreeSet<String>,
    /// What somebody else touched: by tag.
    pub(crate) meddled: BTreeSet<String>,
    /// Where the durable state is looked up at every effect.
    pub(crate) disk: Option<FaultyDisk>,
    /// Nothing may be interrupted during this run but what was made by these operations, which is under way: the
    /// window is closed.
    pub(crate) closed: Option<BTreeSet<String>>,
    /// What the plan deletes and makes anew: by the name that a person calls it.
    pub(crate) replaced: BTreeSet<String>,
    /// Only a part of the program is applied.
    pub(crate) part: bool,
}

/// The outside.
#[derive(Default)]
pub(crate) struct World {
    contents: Mutex<Contents>,
    pub(crate) killed: Notify,
}

#[derive(Clone, Default)]
pub(crate) struct Contents {
    pub(crate) items: BTreeMap<(String, String), Item>,
    pub(crate) serial: u64,
    pub(crate) effects: Vec<Effect>,
    /// What was done wrong: the property, and how.
    pub(crate) violations: Vec<(&'static str, String)>,
    /// Members of rolling groups that were deleted and are to be there again.
    pub(crate) missing: BTreeMap<String, String>,
    /// What was done before a member's interruption and not undone: by tag.
    pub(crate) drained: BTreeSet<(String, &'static str)>,
    /// What is to be done after a member's interruption: by tag.
    pub(crate) due: BTreeSet<(String, &'static str)>,
    /// With which password a place was last entered in this run.
    pub(crate) entered: BTreeMap<String, String>,
    pub(crate) calls: usize,
    pub(crate) dead: bool,
    busy: BTreeSet<String>,
    pub(crate) run: Run,
}

/// A call in flight: what it has to itself.
pub(crate) struct Flight {
    world: Arc<World>,
    holds: Vec<String>,
    pub(crate) mishap: Option<Mishap>,
    after: Duration,
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut contents = self.world.contents();
        self.holds.iter().for_each(|hold| {
            contents.busy.remove(hold);
        });
    }
}

impl World {
    pub(crate) fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a copy that goes its own way from here.
    pub(crate) fn fork(&self) -> World {
        World { contents: Mutex::new(self.contents().clone()), killed: Notify::new() }
    }

    /// The process is gone from here on.
    pub(crate) fn kill(&self) {
        self.contents().dead = true;
        self.killed.notify_one();
    }

    pub(crate) fn dead(&self) -> bool {
        self.contents().dead
    }

    /// A call on its way out: takes its time, and perhaps never arrives. `holds` is what no other call may have at the
    /// same time.
    pub(crate) async fn enter(self: &Arc<World>, clock: &Clock, place: &str, holds: Vec<String>) -> Result<Flight> {
        let (mishap, before, after) = {
            let mut contents = self.contents();
            let number = contents.calls;
            contents.calls += 1;
            let mut dice = Dice::new(contents.run.latency ^ (number as u64) << 20);
            let mut latency = || match contents.run.latency {
                0 => Duration::ZERO,
                _ => Duration::from_millis([0, 1, 7, 40, 300, 2_000][dice.below(6)] + dice.below(9) as u64),
            };
            let (before, after) = (latency(), latency());
            (contents.run.mishaps.get(&number).copied(), before, after)
        };
        self.living().await;
        if !before.is_zero() {
            clock.sleep(before).await;
            self.living().await;
        }
        match mishap {
            Some(Mishap::Again) => return Err(Error::again("it is busy")),
            Some(Mishap::Refuse) => return Err(Error::unreachable("nobody answered")),
            Some(Mishap::Conflict) => return Err(Error::conflict("it was changed meanwhile")),
            Some(Mishap::Fail) => {
                let password = self.contents().run.program.password.clone();
                return Err(Error::invalid(format!("{password} was refused, said the server")));
            }
            Some(Mishap::Hang) => std::future::pending().await,
            Some(Mishap::Panic) => panic!("mishap"),
            Some(Mishap::KillBefore) => {
                self.kill();
                std::future::pending().await
            }
            Some(Mishap::Lose | Mishap::FailAfter | Mishap::Late | Mishap::PanicAfter | Mishap::KillAfter) | None => {}
        }
        let mut contents = self.contents();
        contents.reach(place)?;
        for hold in &holds {
            if !contents.busy.insert(hold.clone()) {
                contents.violate("one at a time", format!("two calls at the same time on {hold}"));
            }
        }
        drop(contents);
        Ok(Flight { world: self.clone(), holds, mishap, after })
    }

    /// Whoever is dead does nothing any more.
    async fn living(&self) {
        if self.dead() {
            std::future::pending::<()>().await;
        }
    }
}

impl Flight {
    /// The way back.
    pub(crate) async fn leave<T>(self, clock: &Clock, answer: Result<T>) -> Result<T> {
        match self.mishap {
            Some(Mishap::KillAfter) => {
                self.world.kill();
                std::future::pending().await
            }
            Some(Mishap::Late) => {
                clock.sleep(Duration::from_secs(40_000)).await;
                std::future::pending().await
            }
            Some(Mishap::PanicAfter) => panic!("mishap"),
            Some(Mishap::Lose) => return Err(Error::unreachable("the reply was lost").perhaps()),
            Some(Mishap::FailAfter) => {
                let password = self.world.contents().run.program.password.clone();
                return Err(Error::invalid(format!("the server failed with {password} in its text")).perhaps());
            }
            Some(
                Mishap::Again
                | Mishap::Refuse
                | Mishap::Conflict
                | Mishap::Fail
                | Mishap::Hang
                | Mishap::Panic
                | Mishap::KillBefore,
            )
            | None => {}
        }
        if !self.after.is_zero() {
            clock.sleep(self.after).await;
        }
        self.world.living().await;
        answer
    }
}

/// Returns the state that is durable on a disk, as a power loss would leave it.
pub(crate) fn durable(disk: &FaultyDisk) -> Option<State> {
    let opened = Journal::read(&disk.reopen(Crash::Power), STACK).ok()?;
    let mut state: State = match opened.snapshot {
        Some(snapshot) => serde_json::from_value(snapshot).ok()?,
        None => State::default(),
    };
    for record in opened.frames.into_iter().flatten() {
        let event: Event = serde_json::from_value(record).ok()?;
        state.apply(&event).ok()?;
    }
    Some(state)
}

/// Returns the number of the container that a place is inside of.
fn room_of(place: &str) -> Option<u64> {
    place.rsplit('/').next().and_then(|room| room.split_once('#')).and_then(|(_, serial)| serial.parse().ok())
}

/// Returns a place without the numbers of the containers on the way, which differ from run to run.
pub(crate) fn unnumbered(place: &str) -> String {
    place.split('/').map(|part| part.split('#').next().unwrap_or(part)).collect::<Vec<_>>().join("/")
}

impl Contents {
    pub(crate) fn violate(&mut self, property: &'static str, how: String) {
        self.violations.push((property, how));
    }

    fn reach(&self, place: &str) -> Result<()> {
        if self.run.cut_off.as_deref().is_some_and(|cut| place == cut || place.starts_with(&format!("{cut}/"))) {
            return Err(Error::unreachable(format!("{place} does not answer")));
        }
        if let Some(serial) = room_of(place)
            && !self.items.values().any(|item| item.serial == serial && item.opened)
        {
            return Err(Error::unreachable(format!("there is nobody at {place}")));
        }
        Ok(())
    }

    pub(crate) fn get(&self, place: &str, key: &str) -> Option<&Item> {
        self.items.get(&(place.to_owned(), key.to_owned()))
    }

    fn get_mut(&mut self, place: &str, key: &str) -> Option<&mut Item> {
        self.items.get_mut(&(place.to_owned(), key.to_owned()))
    }

    /// Returns things that bear this tag and are ours.
    pub(crate) fn ours(&self, tag: &str) -> impl Iterator<Item = (&(String, String), &Item)> {
        self.items.iter().filter(move |(_, item)| item.tag == tag && item.by.is_some())
    }

    fn log(&mut self, what: What, place: &str, item: &Item) {
        self.effects.push(Effect {
            what,
            place: place.to_owned(),
            tag: item.tag.clone(),
            by: item.by.clone(),
            text: item.text.clone(),
            stand: item.stand.clone(),
            serial: item.serial,
        });
    }

    pub(crate) fn create(&mut self, place: &str, key: &str, mark: &str, item: Item) -> Result<Item> {
        if self.get(place, key).is_some() {
            return Err(Error::conflict(format!("{place}/{key} exists already")));
        }
        self.judge_making(&item.tag, mark);
        self.judge_number(&item);
        self.serial += 1;
        self.drained.retain(|(tag, _)| *tag != item.tag);
        let item = Item { serial: self.serial, opened: item.left == 0, ..item };
        if item.opened {
            self.missing.remove(&item.tag);
        }
        self.log(What::Create, place, &item);
        self.items.insert((place.to_owned(), key.to_owned()), item.clone());
        Ok(item)
    }

    pub(crate) fn update(&mut self, place: &str, key: &str, mark: &str, wanted: Item) -> Option<Item> {
        let before = self.get(place, key)?.clone();
        self.judge_ours(&before, mark, "changed");
        self.judge_making(&wanted.tag, mark);
        self.judge_number(&wanted);
        if let Some(fleet) = wanted.fleet.clone().filter(|_| !before.away) {
            self.judge_away(&fleet, &wanted.tag, mark);
            self.judge_time(&wanted.tag, mark);
        }
        let item = Item {
            serial: before.serial,
            opened: before.opened || wanted.left == 0,
            by: Some(mark.to_owned()),
            away: wanted.fleet.is_some() && wanted.left > 0,
            ..wanted
        };
        self.log(What::Update, place, &item);
        self.items.insert((place.to_owned(), key.to_owned()), item.clone());
        Some(item)
    }

    pub(crate) fn progress(&mut self, place: &str, key: &str, mark: &str) -> Option<Item> {
        let before = self.get(place, key)?.clone();
        self.judge_ours(&before, mark, "finished");
        let item = self.get_mut(place, key)?;
        item.left = item.left.saturating_sub(1);
        if item.left == 0 {
            item.opened = true;
            item.away = false;
            let item = item.clone();
            self.missing.remove(&item.tag);
            return Some(item);
        }
        Some(item.clone())
    }

    /// Begins or goes on with a deletion; returns how many calls it still takes.
    pub(crate) fn delete(&mut self, place: &str, key: &str, mark: &str, lingers: u32) -> Option<u32> {
        let before = self.get(place, key)?.clone();
        if before.leaving.is_none() {
            self.judge_ours(&before, mark, "deleted");
            self.judge_intent(mark, &before.tag);
            self.judge_going(&before, mark);
            let same =
                |line: &Line| self.run.closed.is_some() && self.called(mark).is_some_and(|it| it == line.called());
            // What goes by another name is another thing, unless its identity says that it is the same.
            if !self.run.destroys && self.run.program.line(&before.tag).is_some_and(same) {
                self.judge_time(&before.tag, mark);
            }
            if let Some(fleet) = before.fleet.clone().filter(|_| !before.away && before.opened) {
                self.judge_away(&fleet, &before.tag, mark);
            }
            self.log(What::Delete, place, &before);
        }
        let left = before.leaving.map_or(lingers, |left| left.saturating_sub(1));
        if left > 0 {
            let item = self.get_mut(place, key)?;
            item.leaving = Some(left);
            item.away |= item.fleet.is_some();
            return Some(left);
        }
        let stays = !self.run.destroys && self.run.program.line(&before.tag).is_some();
        if let Some(fleet) = before.fleet.clone().filter(|_| stays && before.opened) {
            self.missing.insert(before.tag.clone(), fleet);
        }
        self.take(place, key);
        Some(0)
    }

    /// A look at what is on its way out lets it go a little further.
    pub(crate) fn look(&mut self, place: &str, key: &str) -> Option<Item> {
        let item = self.get(place, key)?.clone();
        if item.leaving.is_some() {
            self.delete(place, key, item.by.as_deref().unwrap_or_default(), 0);
        }
        self.get(place, key).cloned()
    }

    /// Takes a thing out of the world, and what is inside with it.
    pub(crate) fn take(&mut self, place: &str, key: &str) {
        let Some(item) = self.items.remove(&(place.to_owned(), key.to_owned())) else { return };
        let room = format!("#{}", item.serial);
        let inside = |place: &str| place.split('/').any(|part| part.ends_with(&room));
        let swept: Vec<(String, String)> = self
            .items
            .iter()
            .filter(|((place, _), item)| inside(place) && !item.outside)
            .map(|(at, _)| at.clone())
            .collect();
        for (place, key) in swept {
            if let Some(item) = self.items.remove(&(place.clone(), key)) {
                self.judge_protected(&item, "went with what contained it");
                self.log(What::Swept, &place, &item);
                // What comes after an interruption is not owed to what is no more.
                self.due.retain(|(tag, _)| *tag != item.tag);
            }
        }
    }

    /// Returns what the thing is called in the state that an operation made.
    fn called(&self, mark: &str) -> Option<String> {
        let state = self.run.disk.as_ref().and_then(durable)?;
        state.records.iter().find(|(_, record)| record.mark.0 == mark).map(|(urn, _)| urn.short())
    }

    fn judge_time(&mut self, tag: &str, mark: &str) {
        if self.run.closed.as_ref().is_some_and(|under_way| !under_way.contains(mark)) {
            self.violate("nothing is interrupted outside of its window", format!("{tag} was"));
        }
    }

    fn judge_number(&mut self, wanted: &Item) {
        let Some(number) = wanted.number else { return };
        if number == ABROAD {
            self.violate("what another stack has is not taken", format!("{} takes it", wanted.tag));
        }
        // What was retained and forgotten may have any.
        let state = self.run.disk.as_ref().and_then(durable).unwrap_or_default();
        let known = |item: &Item| item.by.as_ref().is_some_and(|by| knows(&state, by));
        let mut others = self.items.values().filter(|item| item.number == Some(number) && item.tag != wanted.tag);
        let other = others.find(|item| known(item));
        if let Some(other) = other.map(|item| item.tag.clone()) {
            let how = format!("{} takes {number}, which {other} has", wanted.tag);
            self.violate("a claim is let go before another takes it", how);
        }
    }

    fn judge_ours(&mut self, item: &Item, mark: &str, what: &str) {
        if item.by.is_none() && !self.run.imported.contains(&item.tag) {
            let how = format!("{} is somebody else's and was {what} by {mark}", item.tag);
            self.violate("somebody else's things are never touched", how);
        }
    }

    fn judge_protected(&mut self, item: &Item, how: &str) {
        if item.by.is_some() && self.run.protected.contains(&item.tag) {
            let how = format!("{} {how}", item.tag);
            self.violate("protected never dies", how);
        }
    }

    fn judge_going(&mut self, item: &Item, mark: &str) {
        self.judge_protected(item, "was deleted");
        // Who is declared no more is only taken away once nobody recorded as ready needs it.
        let Some(state) = self.run.disk.as_ref().and_then(durable) else { return };
        let Some((urn, record)) = state.records.iter().find(|(_, record)| record.mark.0 == mark) else { return };
        if !self.run.destroys && self.run.program.line(&item.tag).is_some() {
            return;
        }
        let needy = state.records.iter().find(|(other, needy)| {
            let inside = needy.spec.container.as_ref() == Some(urn) || record.spec.container.is_some();
            *other != urn
                && !inside
                && needy.status == Status::Ready
                && needy.open.is_none()
                && needy.spec.container.is_none()
                && needy.spec.edges.iter().any(|edge| edge.to == *urn && !self.no_more(other, item, edge.kind))
                && !self.makes_room(&state, urn, other)
        });
        if let Some((needy, _)) = needy {
            let how = format!("{} was deleted while {needy} still needs it", item.tag);
            self.violate("what is needed goes last", how);
        }
    }

    /// Returns true when `needy` is declared to come after `item` no more, which is written down only when it is applied.
    fn no_more(&self, needy: &Urn, item: &Item, kind: EdgeKind) -> bool {
        let line = self.run.program.lines.iter().find(|line| line.called() == needy.short());
        let says = line.is_none_or(|line| line.sources().contains(item.tag.as_str()));
        self.run.part && matches!(kind, EdgeKind::After | EdgeKind::Created) && !says
    }

    /// Returns true when something that `gone` needed is replaced, and `needy` needs the next one of it: it can only let go
    /// once that is made, which is once `gone` has made room.
    fn makes_room(&self, state: &State, gone: &Urn, needy: &Urn) -> bool {
        let Some(line) = self.run.program.lines.iter().find(|line| line.called() == needy.short()) else {
            return false;
        };
        let needs = self.run.program.needs(&line.tag);
        let named = |tag: &String| self.run.program.line(tag).map(Line::called);
        let next: BTreeSet<String> =
            needs.iter().filter_map(named).filter(|name| self.run.replaced.contains(name)).collect();
        let (mut passed, mut todo) = (BTreeSet::new(), vec![gone]);
        while let Some(urn) = todo.pop() {
            if passed.insert(urn) {
                todo.extend(
                    state.records.get(urn).into_iter().flat_map(|record| &record.spec.edges).map(|edge| &edge.to),
                );
            }
        }
        passed.into_iter().any(|urn| urn != gone && next.contains(&urn.short()))
    }

    fn judge_away(&mut self, fleet: &str, tag: &str, mark: &str) {
        // What was never ready is missed by nobody.
        let state = self.run.disk.as_ref().and_then(durable).unwrap_or_default();
        let record = state.records.values().find(|record| record.mark.0 == mark);
        if record.is_some_and(|record| record.status != Status::Ready) {
            return;
        }
        let declared = self.run.program.line(tag).and_then(|line| line.fleet);
        let Some(group) = declared.or_else(|| fleet.strip_prefix("fleet").and_then(|n| n.parse().ok())) else {
            return;
        };
        let Some(group) = self.run.program.fleets.get(group).filter(|_| !self.run.destroys).cloned() else { return };
        let away: BTreeSet<&String> = self
            .items
            .values()
            .filter(|item| item.away && item.fleet.as_deref() == Some(fleet) && item.by.is_some())
            .map(|item| &item.tag)
            // Who is declared no more is missed by nobody.
            .chain(
                self.missing
                    .iter()
                    .filter(|(tag, of)| *of == fleet && self.run.program.line(tag).is_some())
                    .map(|(tag, _)| tag),
            )
            .filter(|other| *other != tag)
            .collect();
        if away.len() >= group.at_most {
            let how = format!("{tag} goes away while {away:?} are, and at most {} may", group.at_most);
            self.violate("at most N of a rolling group are down", how);
        }
        // Around who is declared no more nothing is done.
        self.due.retain(|(member, _)| member != tag);
        if declared.is_none() {
            return;
        }
        self.due.extend(group.acts.after().iter().map(|what| (tag.to_owned(), *what)));
        for what in group.acts.before() {
            if !self.drained.contains(&(tag.to_owned(), *what)) {
                let how = format!("{tag} goes away without {what} before");
                self.violate("acts are done around an interruption", how);
            }
        }
    }

    /// Intent is durable before effect, and what something needs is durable before that.
    fn judge_making(&mut self, tag: &str, mark: &str) {
        self.judge_intent(mark, tag);
        let Some(state) = self.durable_state() else { return };
        let program = self.run.program.clone();
        let Some(line) = program.line(tag) else { return };
        let around = line.on.iter().map(|on| (on.as_str(), false));
        let mut sources: Vec<(&str, bool)> = line
            .sources()
            .into_iter()
            .map(|source| (source, line.after_created && line.after.as_deref() == Some(source)))
            .collect();
        sources.extend(around);
        for (source, created) in sources {
            let wired = [Some(&line.text), Some(&line.stand), line.secret.as_ref()]
                .into_iter()
                .flatten()
                .any(|says| *says == Says::Of(source.to_owned()));
            let created = created && !wired;
            let Some(needed) = program.line(source) else { continue };
            // What was taken over is as it was until the next run, and what is made from it with it.
            if needed.kind == Kind::Look || program.needs(source).iter().any(|tag| tag.starts_with('i')) {
                continue;
            }
            let record = state.records.iter().find(|(urn, record)| {
                // By its whole name: what was moved into a component may still stand beside it under the old one.
                urn.short() == needed.called()
                    && record.spec.inputs.value().get("tag").is_some_and(|tag| *tag == *source)
            });
            let there = record.is_some_and(|(_, record)| match record.status {
                Status::Ready => created || record.open.is_none(),
                Status::Made => created,
                Status::Begun | Status::Gone => false,
            });
            if !there {
                let status = record.map(|(_, record)| (record.status, record.open.is_some()));
                let how = format!("{tag} was made or changed while {source}, which it needs, is {status:?}");
                self.violate("dependents never start before what they need is durable", how);
            }
            let want = program.text_of(source, &|look| self.said(&program, look));
            let stands = self.ours(source).any(|(_, item)| item.text == want && item.opened);
            // A question that is not answered any more has the answer that it had.
            let asks = |tag: &String| program.line(tag).is_some_and(|line| line.kind == Kind::Look);
            let unanswered = !self.run.mishaps.is_empty() && program.needs(source).iter().any(asks);
            let as_declared = stands || unanswered || !self.run.meddled.is_empty();
            if needed.kind == Kind::Thing && !created && !as_declared {
                let how = format!("{tag} was made or changed while {source}, which it needs, is not as declared");
                self.violate("dependents never start before what they need is durable", how);
            }
        }
    }

    /// What a question in the rack is answered; and what a thing says whose words are left to others.
    pub(crate) fn said(&self, program: &Program, tag: &str) -> String {
        let item = match program.line(tag).filter(|line| line.ignore) {
            Some(line) => {
                let place = program.place_of(line);
                // The last one: one of before may have been retained.
                let there = self.ours(tag).filter(|((at, _), _)| unnumbered(at) == place).map(|(_, item)| item);
                there.max_by_key(|item| item.serial)
            }
            None => self.get(&program.rack, tag),
        };
        item.map(|item| item.text.clone()).unwrap_or_default()
    }

    fn judge_intent(&mut self, mark: &str, tag: &str) {
        let Some(state) = self.durable_state() else { return };
        if !state.open().any(|(_, record, _)| record.mark.0 == mark) {
            let how = format!("{tag} was called on behalf of {mark}, of which no beginning is durable");
            self.violate("intent is durable before effect", how);
        }
    }

    fn durable_state(&self) -> Option<State> {
        self.run.disk.as_ref().and_then(durable)
    }

    pub(crate) fn act(&mut self, what: &str, member: &str) {
        for acts in [Acts::Around, Acts::Twice, Acts::After] {
            if let Some(before) = acts.before().iter().find(|before| **before == what) {
                self.drained.insert((member.to_owned(), *before));
            }
            if let Some(n) = acts.after().iter().position(|after| *after == what) {
                self.due.remove(&(member.to_owned(), acts.after()[n]));
                if let Some(before) = acts.before().get(n) {
                    self.drained.remove(&(member.to_owned(), *before));
                }
            }
        }
    }
}

/// Returns true when something is recorded of what an operation made.
fn knows(state: &State, by: &str) -> bool {
    let named = state.records.values().any(|record| record.mark.0 == by);
    named || state.condemned.keys().any(|mark| mark.0 == by)
}

/// Returns the second of a time.
pub(crate) fn second(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
