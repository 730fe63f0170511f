//! All we believe exists, as a fold over events.
//!
//! [`State::apply`] is the only way a state changes, in memory and when a journal is replayed, and it refuses illegal
//! moves: a journal that would need one is damaged.

use super::event::{Ended, Event, Illegal};
use super::record::{Begun, Deed, Mark, Open, Record, Status};
use super::tree::Tree;
use super::{Claim, Urn, Why};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

/// How many past runs a state remembers.
const RUNS: usize = 20;

/// All we believe exists of one stack.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The key of the secrets' fingerprints, sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What the program declares, as last known. Each lies by itself, so that a map of many is not half of it room for
    /// more.
    #[serde(default, deserialize_with = "at_once")]
    pub records: BTreeMap<Urn, Box<Record>>,
    /// Things that still exist though their name is another's now, or their container is gone: to be deleted by call.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub condemned: BTreeMap<Mark, Condemned>,
    /// How each provider was last reached, by [`connection`]: what is recorded in another place is still reached there.
    #[serde(default)]
    pub providers: BTreeMap<String, ProviderRecord>,
    /// Secrets by fingerprint, sealed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
    /// What the program returned when it was last applied.
    #[serde(default)]
    pub outputs: Value,
    /// What reads were last answered.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub answers: BTreeMap<Urn, Value>,
    /// What that was the answer to: SHA-256 of the question.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub asked: BTreeMap<Urn, String>,
    /// Members of rolling groups to which what comes after an interruption is owed, by the first operation that interrupted
    /// them: those with nothing done before, whose record would say so.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub owed: BTreeMap<Urn, Mark>,
    /// The last runs, oldest first.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub runs: VecDeque<Run>,
}

/// Reads a map as a whole: made of all entries at once it is full, made one after the other it is half empty.
fn at_once<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<Urn, Box<Record>>, D::Error> {
    struct Entries;
    impl<'de> Visitor<'de> for Entries {
        type Value = BTreeMap<Urn, Box<Record>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map of records")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = map.next_entry()? {
                entries.push(entry);
            }
            Ok(entries.into_iter().collect())
        }
    }
    deserializer.deserialize_map(Entries)
}

/// A thing that exists without a name in the program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Condemned {
    /// The name it had.
    pub urn: Urn,
    /// The thing.
    pub record: Record,
    /// True when its container went without it.
    pub left_behind: bool,
}

/// How a provider was last reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProviderRecord {
    /// Its kind.
    pub kind: String,
    /// Its resolved configuration, secrets as fingerprints.
    pub config: Value,
}

/// One run, for the history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The verb: `up`.
    pub verb: String,
    /// When it began, in seconds since 1970.
    pub at: u64,
}

impl State {
    /// Takes in one event.
    pub fn apply(&mut self, event: &Event) -> Result<(), Illegal> {
        let illegal = |why: String| Err(Illegal(why));
        match event {
            Event::Ran(run) => {
                self.runs.push_back(run.clone());
                if self.runs.len() > RUNS {
                    self.runs.pop_front();
                }
            }
            Event::Keyed { sealed } => self.key = Some(sealed.clone()),
            Event::Sealed { fingerprint, sealed } => {
                self.secrets.insert(fingerprint.clone(), sealed.clone());
            }
            Event::Reached { provider, record } => {
                self.providers.insert(provider.clone(), record.clone());
            }
            Event::Begin { urn, begun } => return self.begin(urn, begun),
            Event::Cursor { urn, op, cursor, made } => {
                let Some(record) = self.operated(urn, op) else {
                    return illegal(format!("a cursor of {op} on {urn}, which has no such open operation"));
                };
                if let Some(open) = record.open.as_mut() {
                    open.cursor = Some(cursor.clone());
                }
                if let Some(made) = made {
                    record.take(made);
                    if record.status == Status::Begun {
                        record.status = Status::Made;
                    }
                }
            }
            Event::End { urn, op, ended, unmarked } => return self.end(urn, op, ended, *unmarked),
            Event::Noted { urn, spec } => match self.records.get_mut(urn) {
                Some(record) => record.spec = (**spec).clone(),
                None => return illegal(format!("a note on {urn}, which is not in the state")),
            },
            Event::Observed { urn, made, drifted } => match self.records.get_mut(urn) {
                Some(record) => {
                    record.take(made);
                    record.drifted = *drifted;
                    if record.status == Status::Gone {
                        record.status = Status::Ready;
                    }
                }
                None => return illegal(format!("a look at {urn}, which is not in the state")),
            },
            Event::Vanished { urn } => match self.records.get_mut(urn) {
                Some(record) if record.open.as_ref().is_some_and(|open| open.begun.deed.makes()) => {
                    return illegal(format!("{urn} vanished, which is still being made"));
                }
                Some(record) => {
                    record.status = Status::Gone;
                    record.open = None;
                }
                None => return illegal(format!("{urn} vanished, which is not in the state")),
            },
            Event::Forgot { urns, marks } => {
                let known = |urn: &&Urn| self.records.contains_key(*urn) || self.answers.contains_key(*urn);
                if let Some(urn) = urns.iter().find(|urn| !known(urn)) {
                    return illegal(format!("{urn} was forgotten, which is not in the state"));
                }
                if let Some(mark) = marks.iter().find(|mark| !self.condemned.contains_key(mark)) {
                    return illegal(format!("{mark} was forgotten, which is not condemned"));
                }
                for urn in urns {
                    self.records.remove(urn);
                    self.answers.remove(urn);
                    self.asked.remove(urn);
                }
                marks.iter().for_each(|mark| {
                    self.condemned.remove(mark);
                });
            }
            Event::LeftBehind { urn, mark: None } => match self.records.remove(urn) {
                Some(record) => {
                    let condemned = Condemned { urn: urn.clone(), record: *record, left_behind: true };
                    self.condemned.insert(condemned.record.mark.clone(), condemned);
                }
                None => match self.condemned.values_mut().find(|condemned| condemned.urn == *urn) {
                    Some(condemned) => condemned.left_behind = true,
                    None => return illegal(format!("{urn} was left behind, which is not in the state")),
                },
            },
            Event::LeftBehind { urn, mark: Some(mark) } => match self.condemned.get_mut(mark) {
                Some(condemned) => condemned.left_behind = true,
                None => return illegal(format!("{mark} of {urn} was left behind, which is not condemned")),
            },
            Event::Spent { urns } => {
                for urn in urns {
                    match self.records.get_mut(urn) {
                        Some(record) => record.spent = true,
                        None => return illegal(format!("{urn} was spent, which is not in the state")),
                    }
                }
            }
            Event::Owed { member, op } => {
                self.owed.entry(member.clone()).or_insert_with(|| op.clone());
            }
            Event::Paid { member } => {
                self.owed.remove(member);
            }
            Event::Moved { moves } => return self.rename(moves),
            Event::Returned { outputs } => self.outputs = outputs.clone(),
            Event::Answered { urn, answer, asked } => {
                self.answers.insert(urn.clone(), answer.clone());
                if let Some(asked) = asked {
                    self.asked.insert(urn.clone(), asked.clone());
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, urn: &Urn, begun: &Begun) -> Result<(), Illegal> {
        let illegal = |why: &str| Err(Illegal(format!("{} of {urn} began, {why}", begun.deed.noun())));
        let open = |cursor| Some(Box::new(Open { begun: begun.clone(), cursor, before: None }));
        // Begun again with today's inputs: what was known of this operation stays.
        let again = |record: &mut Record| -> bool {
            let Some(before) = record.open.as_deref().filter(|open| open.begun.op == begun.op) else { return false };
            let before = before.clone();
            let took = before.begun.occupies().filter(|claim| !begun.spec.claims.contains(claim)).cloned().collect();
            let begun = Begun {
                deed: before.begun.deed,
                mark: before.begun.mark,
                seed: before.begun.seed,
                absent: before.begun.absent || begun.absent,
                consent: begun.consent.clone().or(before.begun.consent),
                id: begun.id.clone().or(before.begun.id),
                behind: before.begun.behind || before.begun.spec.inputs != begun.spec.inputs,
                took,
                ..begun.clone()
            };
            record.open = Some(Box::new(Open { begun, cursor: before.cursor, before: before.before }));
            true
        };
        match begun.deed {
            Deed::Create | Deed::Import | Deed::Supersede => {
                let supersede = begun.deed == Deed::Supersede;
                let mut succeeds = None;
                if let Some(record) = self.records.get_mut(urn)
                    && again(record)
                {
                    record.spec = begun.spec.clone();
                    return Ok(());
                }
                match self.records.get_mut(urn) {
                    // What is done around a member is done once more: that it was done before is known until it has been
                    // done again.
                    Some(record) if record.spec.member.is_some() && begun.spec.member.is_some() => {
                        succeeds = Some(record.mark.clone());
                    }
                    Some(record) if record.status == Status::Gone => {}
                    Some(record) if supersede && !record.open.as_ref().is_some_and(|open| open.begun.deed.makes()) => {
                        succeeds = Some(record.mark.clone());
                        let condemned = Condemned { urn: urn.clone(), record: (**record).clone(), left_behind: false };
                        self.condemned.insert(condemned.record.mark.clone(), condemned);
                    }
                    Some(_) => return illegal("which exists"),
                    None => {}
                }
                let record = Record {
                    spec: begun.spec.clone(),
                    mark: begun.mark.clone(),
                    // An identity is recorded once a call answered it; what is only wanted stands in what was begun.
                    id: None,
                    outputs: Tree::default(),
                    live: None,
                    drifted: false,
                    due: None,
                    status: Status::Begun,
                    unmarked: false,
                    succeeds,
                    spent: false,
                    open: open(None),
                };
                self.records.insert(urn.clone(), Box::new(record));
            }
            Deed::Update => match self.records.get_mut(urn) {
                Some(record) if matches!(record.status, Status::Ready | Status::Made) => {
                    if !again(record) {
                        if record.open.is_some() {
                            return illegal("while another operation on it is open");
                        }
                        record.open = open(None);
                    }
                }
                Some(_) => return illegal("which does not exist"),
                None => return illegal("which is not in the state"),
            },
            Deed::Delete => {
                // A delete may cut off whatever else was open: it is how an unfinished create is undone.
                let named = self.records.get_mut(urn).map(Box::as_mut).filter(|record| record.mark == begun.mark);
                let condemned = self.condemned.get_mut(&begun.mark).map(|condemned| &mut condemned.record);
                let Some(record) = named.or(condemned) else {
                    return illegal("which is not in the state");
                };
                if !again(record) {
                    let before = record.open.take();
                    if before.as_ref().is_some_and(|open| open.begun.deed == Deed::Delete) {
                        record.open = before;
                        return illegal("while another deletion of it is open");
                    }
                    record.open = open(None).map(|open| Box::new(Open { before, ..*open }));
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, urn: &Urn, op: &Mark, ended: &Ended, unmarked: bool) -> Result<(), Illegal> {
        let Some(record) = self.operated(urn, op) else {
            return Err(Illegal(format!("{op} on {urn} ended, which has no such open operation")));
        };
        let Some(open) = record.open.take() else {
            return Err(Illegal(format!("{op} on {urn} ended, which is not open")));
        };
        let (mark, why) = (record.mark.clone(), open.begun.why);
        match (ended, open.begun.deed) {
            (Ended::Ready(made), Deed::Create | Deed::Supersede | Deed::Import | Deed::Update) => {
                record.spec = open.begun.spec;
                record.status = Status::Ready;
                record.unmarked = unmarked;
                record.succeeds = None;
                record.take(made);
            }
            (Ended::Deleted, Deed::Delete) => self.strike(urn, &mark),
            // What stands somewhere may have had an effect: it cannot have failed without one.
            (Ended::Failed(_), _) if open.cursor.is_some() => {
                record.open = Some(open);
                return Err(Illegal(format!("{op} on {urn} failed without effect, yet stands at a cursor")));
            }
            (Ended::Failed(_), Deed::Delete) => record.open = open.before,
            // It was done before, and may be in effect.
            (Ended::Failed(_), Deed::Create) if record.spec.member.is_some() && record.succeeds.is_some() => {
                record.succeeds = None;
                record.status = Status::Ready;
                record.spent = true;
            }
            (Ended::Failed(_), Deed::Create | Deed::Supersede | Deed::Import) => {
                let succeeds = record.succeeds.clone();
                self.strike(urn, &mark);
                // What it was to succeed has its name back.
                let stands =
                    |old: &Condemned| old.record.open.as_ref().is_none_or(|open| open.begun.deed != Deed::Delete);
                if let Some(old) = succeeds.filter(|mark| self.condemned.get(mark).is_some_and(stands))
                    && let Some(old) = self.condemned.remove(&old)
                {
                    self.records.insert(urn.clone(), Box::new(old.record));
                }
            }
            (Ended::Failed(_), Deed::Update) => {}
            (Ended::Ready(_), Deed::Delete) | (Ended::Deleted, _) => {
                return Err(Illegal(format!("{op} on {urn} ended in a way that {} cannot", open.begun.deed.noun())));
            }
        }
        // It was not interrupted after all; or it is gone, and no other comes in its place.
        let untouched = matches!(ended, Ended::Failed(_)) && self.owed.get(urn) == Some(op);
        let gone = matches!(ended, Ended::Deleted) && why != Why::Replaced;
        if untouched || gone {
            self.owed.remove(urn);
        }
        Ok(())
    }

    fn operated(&mut self, urn: &Urn, op: &Mark) -> Option<&mut Record> {
        let named = self.records.get_mut(urn).map(Box::as_mut).filter(|record| record.is_open(op));
        let condemned = self.condemned.values_mut().map(|condemned| &mut condemned.record);
        named.or_else(|| condemned.into_iter().find(|record| record.is_open(op)))
    }

    fn strike(&mut self, urn: &Urn, mark: &Mark) {
        if self.records.get(urn).is_some_and(|record| record.mark == *mark) {
            self.records.remove(urn);
        } else {
            self.condemned.remove(mark);
        }
    }

    /// Returns what is recorded under a name.
    pub fn record(&self, urn: &Urn) -> Option<&Record> {
        self.records.get(urn).map(Box::as_ref)
    }

    /// Returns what is recorded of the thing that an operation made, whether it has its name or has lost it.
    pub(crate) fn thing(&self, urn: &Urn, mark: &Mark) -> Option<&Record> {
        let named = self.record(urn).filter(|record| record.mark == *mark);
        named.or_else(|| self.condemned.get(mark).map(|condemned| &condemned.record))
    }

    /// Returns what something recorded lies in, innermost first.
    pub(crate) fn around<'s>(&'s self, record: &'s Record) -> impl Iterator<Item = &'s Urn> + use<'s> {
        let mut passed = BTreeSet::new();
        let mut next = record.spec.container.as_ref();
        std::iter::from_fn(move || {
            let container = next.filter(|container| passed.insert(*container))?;
            next = self.records.get(container).and_then(|record| record.spec.container.as_ref());
            Some(container)
        })
    }

    /// Returns the members of rolling groups around which something was done, or begun.
    pub(crate) fn under_way(&self) -> BTreeSet<&Urn> {
        self.records.values().filter_map(|record| record.spec.member.as_ref()).collect()
    }

    /// Returns everything that exists, whether it has a name or not.
    fn things(&self) -> impl Iterator<Item = &Record> {
        let condemned = self.condemned.values().map(|condemned| &condemned.record);
        self.records.values().map(Box::as_ref).chain(condemned)
    }

    /// Returns what is occupied, or may be, with who occupies it: everything that exists, whether it has a name or not, and
    /// what it was becoming when a run was cut off.
    pub fn occupied(&self) -> impl Iterator<Item = (&Urn, &Record, &Claim)> {
        let named = self.records.iter().map(|(urn, record)| (urn, record.as_ref()));
        let condemned = self.condemned.values().map(|condemned| (&condemned.urn, &condemned.record));
        let all = named.chain(condemned);
        all.flat_map(|(urn, record)| record.occupies().map(move |claim| (urn, record, claim)))
    }

    /// Returns every operation that began and did not end.
    pub fn open(&self) -> impl Iterator<Item = (&Urn, &Record, &Open)> {
        let named = self.records.iter().map(|(urn, record)| (urn, record.as_ref()));
        let condemned = self.condemned.values().map(|condemned| (&condemned.urn, &condemned.record));
        named.chain(condemned).filter_map(|(urn, record)| record.open.as_deref().map(|open| (urn, record, open)))
    }

    /// Gives things other names, all at once.
    fn rename(&mut self, moves: &[(Urn, Urn)]) -> Result<(), Illegal> {
        let from: BTreeSet<&Urn> = moves.iter().map(|(from, _)| from).collect();
        if let Some((from, _)) = moves.iter().find(|(from, _)| !self.records.contains_key(from)) {
            return Err(Illegal(format!("{from} was moved, which is not in the state")));
        }
        let mut to = BTreeSet::new();
        if let Some((_, to)) =
            moves.iter().find(|(_, urn)| !to.insert(urn) || (self.records.contains_key(urn) && !from.contains(urn)))
        {
            return Err(Illegal(format!("something was moved to {to}, which is taken")));
        }
        let moved: Vec<_> = moves.iter().filter_map(|(from, to)| Some((to, self.records.remove(from)?))).collect();
        for (to, record) in moved {
            self.records.insert(to.clone(), record);
        }
        let names: BTreeMap<&Urn, &Urn> = moves.iter().map(|(from, to)| (from, to)).collect();
        for condemned in self.condemned.values_mut() {
            if let Some(new) = names.get(&condemned.urn) {
                condemned.urn = (*new).clone();
            }
        }
        let renamed = |urn: &Urn| names.get(urn).map_or(urn, |new| *new).clone();
        self.owed = self.owed.iter().map(|(member, op)| (renamed(member), op.clone())).collect();
        let condemned = self.condemned.values_mut().map(|condemned| &mut condemned.record);
        for record in self.records.values_mut().map(Box::as_mut).chain(condemned) {
            record.spec.rename(&names);
            let mut open = record.open.as_deref_mut();
            while let Some(this) = open {
                this.begun.spec.rename(&names);
                open = this.before.as_deref_mut();
            }
        }
        Ok(())
    }

    /// Returns the fingerprints of all secrets that anything in the state refers to.
    pub fn referenced(&self) -> BTreeSet<String> {
        let mut found = super::value::secrets(&self.outputs);
        self.providers.values().for_each(|provider| found.extend(super::value::secrets(&provider.config)));
        self.answers.values().for_each(|answer| found.extend(super::value::secrets(answer)));
        let mut take = |tree: &Tree| found.extend(super::value::secrets_in(tree));
        for record in self.things() {
            take(&record.spec.inputs);
            take(&record.outputs);
            record.live.iter().for_each(&mut take);
            let mut open = record.open.as_deref();
            while let Some(this) = open {
                take(&this.begun.spec.inputs);
                open = this.before.as_deref();
            }
        }
        found
    }

    /// Drops what nothing refers to any more: connections to places where nothing is recorded, secrets, and what is owed
    /// where there is nothing left.
    pub fn prune(&mut self) {
        // A member alone may be between the two halves of its replacement.
        if self.records.is_empty() {
            self.owed.clear();
        }
        let used = self.things().map(|record| (&*record.spec.provider, &*record.spec.realm));
        let used: BTreeSet<(&str, &str)> = used.collect();
        let used: BTreeSet<String> = used.into_iter().map(|(provider, realm)| connection(provider, realm)).collect();
        self.providers.retain(|key, _| used.contains(key));
        let referenced = self.referenced();
        self.secrets.retain(|fingerprint, _| referenced.contains(fingerprint));
    }
}

/// Returns the key under which it is recorded how a provider is reached: its name, and what it points at.
pub fn connection(provider: &str, realm: &str) -> String {
    format!("{provider} at {realm}")
}
