//! What is recorded of one thing, and of an operation on it.

use super::declare::{Edge, Place};
use super::digest::Digest;
use super::tree::Tree;
use super::{Claim, Hold, Id, Urn, Why, Word};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// The id of an operation; the thing it made bears it as a mark.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mark(pub String);

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
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
    /// True when that was seen by a look after it was last applied, and is not as that left it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drifted: bool,
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
    /// For an act of a rolling group: true once what it was done around is over, so that the next interruption needs it done
    /// once more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub spent: bool,
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
    drifted: bool,
    #[serde(default)]
    due: Option<u64>,
    status: Status,
    #[serde(default)]
    unmarked: bool,
    #[serde(default)]
    succeeds: Option<Mark>,
    #[serde(default)]
    spent: bool,
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
            drifted: flat.drifted,
            due: flat.due,
            status: flat.status,
            unmarked: flat.unmarked,
            succeeds: flat.succeeds,
            spent: flat.spent,
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

impl Begun {
    /// Returns what it will occupy, and what it may have taken when it was begun with something else.
    pub(super) fn occupies(&self) -> impl Iterator<Item = &Claim> {
        self.spec.claims.iter().chain(&self.took)
    }
}

impl Record {
    /// Returns true for what is ready, and nothing is open on.
    pub(crate) fn is_whole(&self) -> bool {
        self.status == Status::Ready && self.open.is_none()
    }

    /// Returns what it occupies, or may: what was begun with it may have had its effect. Its share of a room counts once.
    pub(crate) fn occupies(&self) -> impl Iterator<Item = &Claim> {
        let begun = std::iter::successors(self.open.as_deref(), |open| open.before.as_deref());
        let begun = begun.flat_map(|open| open.begun.occupies());
        let adds =
            |claim: &&Claim| !matches!(claim.hold, Hold::Room | Hold::Share) && !self.spec.claims.contains(claim);
        self.spec.claims.iter().chain(begun.filter(adds))
    }

    pub(super) fn is_open(&self, op: &Mark) -> bool {
        self.open.as_ref().is_some_and(|open| open.begun.op == *op)
    }

    pub(super) fn take(&mut self, made: &Made) {
        self.id = Some(made.id.clone());
        self.outputs = made.outputs.clone();
        self.live = made.live.clone();
        self.drifted = false;
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

    pub(super) fn rename(&mut self, names: &BTreeMap<&Urn, &Urn>) {
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

    pub(super) fn noun(self) -> &'static str {
        match self {
            Deed::Create => "the creation",
            Deed::Supersede => "the creation of a successor",
            Deed::Import => "the import",
            Deed::Update => "the update",
            Deed::Delete => "the deletion",
        }
    }
}
