//! All we believe exists, as a fold over events.
//!
//! [`State::apply`] is the only way a state changes, in memory and when a journal is replayed, and it refuses illegal
//! moves: a journal that would need one is damaged.

use super::declare::{Edge, Place};
use super::digest::Digest;
use super::tree::Tree;
use super::{Claim, Hold, Id, Urn, Why, Word};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

/// How many past runs a state remembers.
const RUNS: usize = 20;

/// The id of an operation; the thing it made bears it as a mark.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mark(pub String);

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

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

/// One thing that exists, or is about to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Flat")]
pub struct Record {
    /// Everything that was declared of it when it was last applied; for one that is being created, what was begun.
    #[serde(flatten)]
    pub spec: Spec,
    /// The operation that made it.
    pub mark: Mark,
    /// Its identity outside, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Id>,
    /// What it yields.
    #[serde(default, skip_serializing_if = "Tree::is_null")]
    pub outputs: Tree,
    /// The thing as last seen, in the shape of the inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Tree>,
    /// When it should be renewed, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<u64>,
    /// How far it is.
    pub status: Status,
    /// True when it does not bear our mark: an imported thing before its first change.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unmarked: bool,
    /// The thing that it takes the place of, until it is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeeds: Option<Mark>,
    /// The operation on it that has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<Box<Open>>,
}

/// What is recorded of a declaration: enough to compare with, and to find and undo without the program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// The type.
    pub kind: Word,
    /// The version of the type's inputs.
    pub version: u32,
    /// The provider, by name.
    pub provider: Word,
    /// What the provider points at.
    pub realm: Word,
    /// What it lives inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Urn>,
    /// Resolved inputs, secrets as fingerprints, initial paths left out.
    pub inputs: Tree,
    /// The SHA-256 of realm, type, version and inputs.
    pub digest: Digest,
    /// What it depends on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edges: Vec<Edge>,
    /// What it occupies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<Claim>,
    /// The replacement trigger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// Refuses deletion and replacement.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub protect: bool,
    /// Stays when its line goes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retain: bool,
    /// Happens once: forgotten instead of deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub once: bool,
    /// Survives its container.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outside: bool,
    /// How long an operation on it may take, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
    /// The rolling group it is a member of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling: Option<String>,
    /// For an act of a rolling group: the member it is done for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<Urn>,
    /// Where it was declared.
    pub place: Place,
}

/// A [`Record`] as it is read. `flatten` would keep every field in a tree first, which is most of the work of opening a
/// large state.
#[derive(Deserialize)]
struct Flat {
    kind: Word,
    version: u32,
    provider: Word,
    realm: Word,
    #[serde(default)]
    container: Option<Urn>,
    inputs: Tree,
    digest: Digest,
    #[serde(default)]
    edges: Vec<Edge>,
    #[serde(default)]
    claims: Vec<Claim>,
    #[serde(default)]
    trigger: Option<String>,
    #[serde(default)]
    protect: bool,
    #[serde(default)]
    retain: bool,
    #[serde(default)]
    once: bool,
    #[serde(default)]
    outside: bool,
    #[serde(default)]
    timeout: Option<u64>,
    #[serde(default)]
    rolling: Option<String>,
    #[serde(default)]
    member: Option<Urn>,
    place: Place,
    mark: Mark,
    #[serde(default)]
    id: Option<Id>,
    #[serde(default)]
    outputs: Tree,
    #[serde(default)]
    live: Option<Tree>,
    #[serde(default)]
    due: Option<u64>,
    status: Status,
    #[serde(default)]
    unmarked: bool,
    #[serde(default)]
    succeeds: Option<Mark>,
    #[serde(default)]
    open: Option<Box<Open>>,
}

impl From<Flat> for Record {
    fn from(flat: Flat) -> Record {
        Record {
            spec: Spec {
                kind: flat.kind,
                version: flat.version,
                provider: flat.provider,
                realm: flat.realm,
                container: flat.container,
                inputs: flat.inputs,
                digest: flat.digest,
                edges: flat.edges,
                claims: flat.claims,
                trigger: flat.trigger,
                protect: flat.protect,
                retain: flat.retain,
                once: flat.once,
                outside: flat.outside,
                timeout: flat.timeout,
                rolling: flat.rolling,
                member: flat.member,
                place: flat.place,
            },
            mark: flat.mark,
            id: flat.id,
            outputs: flat.outputs,
            live: flat.live,
            due: flat.due,
            status: flat.status,
            unmarked: flat.unmarked,
            succeeds: flat.succeeds,
            open: flat.open,
        }
    }
}

/// How far a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Its creation has begun; whether it exists is not known.
    Begun,
    /// It exists and is not ready.
    Made,
    /// It is ready.
    Ready,
    /// It was there and is proven to be gone.
    Gone,
}

/// An operation that has begun and not ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Open {
    /// What was begun.
    pub begun: Begun,
    /// Where it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Value>,
    /// For a delete: the operation that it cut off, and that is open again should the delete fail without effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Box<Open>>,
}

/// The beginning of an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Begun {
    /// The operation.
    pub op: Mark,
    /// The operation that made the thing; this one, when it makes it.
    pub mark: Mark,
    /// What it does.
    pub deed: Deed,
    /// What is wanted; for a delete, what was.
    pub spec: Spec,
    /// The identity, where it is known before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Id>,
    /// Why.
    pub why: Why,
    /// The randomness of this operation.
    pub seed: u64,
    /// True when it was looked for just before and was proven absent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub absent: bool,
    /// What data may be destroyed: as shown and consented to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consent: Option<String>,
    /// True when it was begun with other inputs before: what stands there may have been made from those.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub behind: bool,
    /// What it was begun with before occupied, and this does not: that may have had its effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub took: Vec<Claim>,
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// Makes it.
    Create,
    /// Makes another while the old one still stands; that one is condemned.
    Supersede,
    /// Takes it over.
    Import,
    /// Changes it.
    Update,
    /// Deletes it.
    Delete,
}

/// A thing as an operation made it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Made {
    /// Its identity.
    pub id: Id,
    /// What it yields.
    #[serde(default, skip_serializing_if = "Tree::is_null")]
    pub outputs: Tree,
    /// The thing as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Tree>,
    /// When it should be renewed, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<u64>,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// The thing is ready.
    Ready(Made),
    /// The thing is gone.
    Deleted,
    /// It failed, and had no effect for certain.
    Failed(String),
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

/// What happened. One journal record each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A run that changes something began.
    Ran(Run),
    /// The key of the fingerprints, sealed.
    Keyed {
        /// The sealed key.
        sealed: String,
    },
    /// A secret that later records refer to, sealed.
    Sealed {
        /// Its fingerprint.
        fingerprint: String,
        /// Its sealed value.
        sealed: String,
    },
    /// How a provider is reached now.
    Reached {
        /// The provider and its realm: see [`connection`].
        provider: String,
        /// How.
        record: ProviderRecord,
    },
    /// An operation begins, or begins again with today's inputs.
    Begin {
        /// On what.
        urn: Urn,
        /// The operation.
        begun: Box<Begun>,
    },
    /// An operation stands somewhere new.
    Cursor {
        /// On what.
        urn: Urn,
        /// The operation.
        op: Mark,
        /// Where it stands.
        cursor: Value,
        /// The thing, when it exists already.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        made: Option<Made>,
    },
    /// An operation ended.
    End {
        /// On what.
        urn: Urn,
        /// The operation.
        op: Mark,
        /// How.
        ended: Ended,
        /// True when the thing does not bear our mark yet.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unmarked: bool,
    },
    /// A declaration changed in a way that needs no call.
    Noted {
        /// Which.
        urn: Urn,
        /// What it says now.
        spec: Box<Spec>,
    },
    /// A thing was looked at.
    Observed {
        /// Which.
        urn: Urn,
        /// As it is.
        made: Made,
    },
    /// A thing is proven to be gone, without our doing.
    Vanished {
        /// Which.
        urn: Urn,
    },
    /// Things are no longer managed; nothing was called.
    Forgot {
        /// Which.
        urns: Vec<Urn>,
        /// Condemned things.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        marks: Vec<Mark>,
    },
    /// A thing survives its container, which went.
    LeftBehind {
        /// Which.
        urn: Urn,
    },
    /// Things go by other names now, all at once.
    Moved {
        /// Old and new names.
        moves: Vec<(Urn, Urn)>,
    },
    /// What the program returned.
    Returned {
        /// The outputs.
        outputs: Value,
    },
    /// What a read was answered.
    Answered {
        /// Which read.
        urn: Urn,
        /// The answer.
        answer: Value,
    },
}

impl Event {
    /// Returns about how many bytes it has in a file.
    pub(crate) fn size(&self) -> usize {
        let spec = |spec: &Spec| 500 + spec.inputs.text().len();
        match self {
            Event::Begin { begun, .. } => spec(&begun.spec),
            Event::Noted { spec: noted, .. } => spec(noted),
            Event::End { ended: Ended::Ready(made), .. } => {
                200 + made.outputs.text().len() + made.live.as_ref().map_or(0, |live| live.text().len())
            }
            Event::Cursor { cursor, .. } => 200 + weight(cursor),
            Event::Returned { outputs: value } | Event::Answered { answer: value, .. } => 100 + weight(value),
            Event::Reached { record, .. } => 100 + weight(&record.config),
            Event::Ran(_)
            | Event::Keyed { .. }
            | Event::Sealed { .. }
            | Event::End { .. }
            | Event::Observed { .. }
            | Event::Vanished { .. }
            | Event::Forgot { .. }
            | Event::LeftBehind { .. }
            | Event::Moved { .. } => 200,
        }
    }
}

/// Returns about how many bytes `value` has in a file.
fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 4,
        Value::Array(list) => list.iter().map(weight).sum::<usize>() + 8,
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + 6 + weight(value)).sum::<usize>() + 8,
    }
}

/// An event that cannot follow the state it met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Illegal(pub String);

impl fmt::Display for Illegal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Illegal {}

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
            Event::Observed { urn, made } => match self.records.get_mut(urn) {
                Some(record) => {
                    record.take(made);
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
                }
                marks.iter().for_each(|mark| {
                    self.condemned.remove(mark);
                });
            }
            Event::LeftBehind { urn } => match self.records.remove(urn) {
                Some(record) => {
                    let condemned = Condemned { urn: urn.clone(), record: *record, left_behind: true };
                    self.condemned.insert(condemned.record.mark.clone(), condemned);
                }
                None => match self.condemned.values_mut().find(|condemned| condemned.urn == *urn) {
                    Some(condemned) => condemned.left_behind = true,
                    None => return illegal(format!("{urn} was left behind, which is not in the state")),
                },
            },
            Event::Moved { moves } => return self.rename(moves),
            Event::Returned { outputs } => self.outputs = outputs.clone(),
            Event::Answered { urn, answer } => {
                self.answers.insert(urn.clone(), answer.clone());
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
                    due: None,
                    status: Status::Begun,
                    unmarked: false,
                    succeeds,
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
        let mark = record.mark.clone();
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

    /// Drops what nothing refers to any more: connections to places where nothing is recorded, and secrets.
    pub fn prune(&mut self) {
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

impl Begun {
    /// Returns what it will occupy, and what it may have taken when it was begun with something else.
    fn occupies(&self) -> impl Iterator<Item = &Claim> {
        self.spec.claims.iter().chain(&self.took)
    }
}

impl Record {
    /// Returns what it occupies, or may: what was begun with it may have had its effect. Its share of a room counts once.
    pub(crate) fn occupies(&self) -> impl Iterator<Item = &Claim> {
        let begun = std::iter::successors(self.open.as_deref(), |open| open.before.as_deref());
        let begun = begun.flat_map(|open| open.begun.occupies());
        let adds =
            |claim: &&Claim| !matches!(claim.hold, Hold::Room | Hold::Share) && !self.spec.claims.contains(claim);
        self.spec.claims.iter().chain(begun.filter(adds))
    }

    fn is_open(&self, op: &Mark) -> bool {
        self.open.as_ref().is_some_and(|open| open.begun.op == *op)
    }

    fn take(&mut self, made: &Made) {
        self.id = Some(made.id.clone());
        self.outputs = made.outputs.clone();
        self.live = made.live.clone();
        self.due = made.due;
    }
}

impl Spec {
    /// Returns true when `other` says the same, wherever in the program that is said.
    pub(crate) fn says_what(&self, other: &Spec) -> bool {
        self.inputs == other.inputs && self.digest == other.digest && self.says_around(other)
    }

    /// Returns true when `other` says the same but for its inputs and its place.
    pub(crate) fn says_around(&self, other: &Spec) -> bool {
        // Named one by one, so that a new field has to be thought of here.
        let Spec {
            kind,
            version,
            provider,
            realm,
            container,
            inputs: _,
            digest: _,
            edges,
            claims,
            trigger,
            protect,
            retain,
            once,
            outside,
            timeout,
            rolling,
            member,
            place: _,
        } = self;
        *kind == other.kind
            && *version == other.version
            && *provider == other.provider
            && *realm == other.realm
            && *container == other.container
            && *edges == other.edges
            && *claims == other.claims
            && *trigger == other.trigger
            && *protect == other.protect
            && *retain == other.retain
            && *once == other.once
            && *outside == other.outside
            && *timeout == other.timeout
            && *rolling == other.rolling
            && *member == other.member
    }

    fn rename(&mut self, names: &BTreeMap<&Urn, &Urn>) {
        let rename = |urn: &mut Urn| {
            if let Some(new) = names.get(urn) {
                *urn = (*new).clone();
            }
        };
        self.edges.iter_mut().for_each(|edge| rename(&mut edge.to));
        self.container.iter_mut().for_each(rename);
        self.member.iter_mut().for_each(rename);
    }
}

impl Deed {
    /// Returns true for the deeds that bring a thing into the state.
    pub fn makes(self) -> bool {
        match self {
            Deed::Create | Deed::Supersede | Deed::Import => true,
            Deed::Update | Deed::Delete => false,
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Deed::Create => "the creation",
            Deed::Supersede => "the creation of a successor",
            Deed::Import => "the import",
            Deed::Update => "the update",
            Deed::Delete => "the deletion",
        }
    }
}
