//! The plan: every step that will be taken, as data.

use super::claims::ForeignClaim;
use super::diff::Delta;
use crate::model::{Edge, EdgeKind, Id, MadeRecord, Mark, Owner, Path, Place, Spec, Tree, Urn, Why, digest};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Everything that a run will do, and everything that keeps it from doing so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The stack.
    pub stack: String,
    /// What was asked for.
    pub verb: Verb,
    /// The steps, in an order that satisfies what each of them waits for.
    pub steps: Vec<Step>,
    /// Steps that would be taken, were it not outside of a maintenance window.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<HeldStep>,
    /// How many resources stay as they are.
    pub same: usize,
    /// Old and new names of what moves.
    pub moves: Vec<(Urn, Urn)>,
    /// Declarations that changed without a call: their name and what they say now.
    pub notes: Vec<(Urn, Spec)>,
    /// What is there and yields something else than is recorded: its name, and what was seen. Recorded first, as others may
    /// be made from it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub observed: Vec<Observed>,
    /// What is wrong, all of it. A plan with problems is not executed.
    pub problems: Vec<Problem>,
    /// What a person should know though it stops nothing.
    pub warnings: Vec<String>,
    /// The outputs of the stack as far as they are known; unknowns and secrets as markers.
    pub outputs: Value,
    /// True when not everything was selected, so the outputs are not settled by this plan.
    pub partial: bool,
}

/// Something that was seen to yield something else than is recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// Which.
    pub urn: Urn,
    /// As it is.
    pub made: MadeRecord,
    /// True when that is not as it was left.
    pub drifted: bool,
}

/// A step that is not taken before a maintenance window opens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldStep {
    /// The step; what it waits for is left out.
    pub step: Step,
    /// When the window opens, in seconds since 1970.
    pub until: u64,
    /// The same, as the window's clock shows it.
    pub shown: String,
    /// The held one that it waits for; `None` when it is held for its own sake.
    pub because: Option<Urn>,
}

/// What a plan was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Make the world match the program.
    Up,
    /// Remove everything.
    Destroy,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verb::Up => "up",
            Verb::Destroy => "destroy",
        })
    }
}

/// One action on one resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// On what.
    pub urn: Urn,
    /// What is done.
    pub action: Action,
    /// Why, in words.
    pub reasons: Vec<String>,
    /// What changes.
    pub diff: Vec<Delta>,
    /// What the declaration will say afterwards; unknowns as markers. None for what only goes.
    pub spec: Option<Spec>,
    /// Whether the realm is known: not while its container is still to come.
    pub realm_known: bool,
    /// The operation that made the thing it works on.
    pub mark: Option<Mark>,
    /// Inputs that are known only later, and from where.
    pub unknown: Vec<Unknown>,
    /// What it may turn out to be once they are.
    pub permits: Permits,
    /// What was seen of it, sealed where the inputs are. What its change takes is judged again by the same once they
    /// are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Tree>,
    /// Which outputs are known only afterwards; none of the others may change.
    pub fresh: Vec<Path>,
    /// What is interrupted.
    pub interrupts: Option<String>,
    /// What data is destroyed. Needs consent.
    pub destroys: Option<String>,
    /// True when what it occupies is known only later.
    pub claims_deferred: bool,
    /// What the other stacks occupy, where that is checked later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign: Vec<ForeignClaim>,
    /// What must be done first, by position in the plan.
    pub after: Vec<After>,
    /// How long it may take, in seconds.
    pub timeout: u64,
    /// When the maintenance window closes that it must begin in, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begin_by: Option<u64>,
    /// Where it was declared.
    pub place: Option<Place>,
}

/// What is done to a resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Action {
    /// Make it.
    Create,
    /// Make it while the one before it still stands.
    Supersede,
    /// Take it over.
    Import {
        /// By this identity.
        id: Id,
    },
    /// Change it.
    Update,
    /// Renew it: it is due.
    Renew,
    /// Finish what an earlier run began.
    Continue {
        /// The open operation.
        op: Mark,
        /// True when it was making the thing.
        making: bool,
    },
    /// Delete it.
    Delete {
        /// Why.
        why: Why,
        /// The open operation that already does so.
        op: Option<Mark>,
        /// True when it may be left behind should nothing answer: its container goes.
        may_leave: bool,
        /// True when it has no name in the program any more.
        condemned: bool,
    },
    /// Stop managing it, without a call.
    Forget {
        /// True when it has no name in the program any more.
        condemned: bool,
        /// True when the thing stays, deliberately.
        stays: bool,
    },
    /// Keep it in the state though its container went without it.
    LeaveBehind,
    /// Ask a question about something that exists.
    Read,
    /// Ask whether a roll may go on.
    Gate {
        /// The rolling group.
        group: String,
        /// Which of its gates.
        gate: usize,
    },
}

/// Something that must be done first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct After {
    /// The step, by position in the plan.
    pub step: usize,
    /// True when it is enough that the thing exists, ready or not.
    pub created: bool,
}

/// An input that is known only later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unknown {
    /// Which input.
    pub path: Path,
    /// What it is computed from.
    pub from: Vec<Urn>,
}

/// What a step may turn out to be once its inputs are known. An outcome that is not permitted stops the step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permits {
    /// Nothing to do after all.
    pub same: bool,
    /// A replacement.
    pub replace: bool,
}

/// Something that keeps a plan from being executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What it is about.
    pub urn: Option<Urn>,
    /// The lines of the program that it is about.
    pub places: Vec<Place>,
    /// What is wrong, in words.
    pub message: String,
    /// What to try.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for (n, place) in self.places.iter().enumerate() {
            write!(f, "{}{place}", if n == 0 { " (" } else { ", " })?;
        }
        if !self.places.is_empty() {
            f.write_str(")")?;
        }
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// What was seen of the world before planning. Empty for a plan without network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Observations {
    /// Looks at recorded resources.
    pub seen: BTreeMap<Urn, Seen>,
    /// Answers to reads.
    pub answers: BTreeMap<Urn, Value>,
    /// Members of rolling groups that a destroy began to delete, and that were still there.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub standing: BTreeSet<Urn>,
}

/// What a look at one resource showed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// It is proven to be gone.
    Gone,
    /// It is there.
    There(MadeRecord),
    /// Its name is somebody else's.
    Foreign(String),
    /// Nothing is known, for this reason.
    Unknown(String),
}

/// What the outside would make of a step, asked before anything is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probed {
    /// What a person should know.
    Says(Vec<String>),
    /// It would be refused as things are now, and why.
    Refuses(String),
}

impl Plan {
    /// Puts beside the steps what the outside would make of them. It changes nothing of what is planned: another step may
    /// come first and change what the outside says.
    pub fn heed(&mut self, probed: &BTreeMap<Urn, Probed>) {
        for step in self.steps.iter_mut().filter(|step| step.spec.is_some()) {
            match probed.get(&step.urn) {
                Some(Probed::Says(said)) => step.reasons.extend(said.iter().cloned()),
                Some(Probed::Refuses(why)) => {
                    self.warnings.push(format!("{} {} would be refused: {why}", step.urn.kind(), step.urn.short()));
                }
                None => {}
            }
        }
    }

    /// Returns true when executing it leaves nothing undone that the program says, so that what it returns holds.
    pub fn settles(&self) -> bool {
        !self.partial && self.held.is_empty()
    }

    /// Returns true when executing it would change nothing.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.moves.is_empty() && self.problems.is_empty()
    }

    /// Returns what data would be destroyed, by resource.
    pub fn destroys(&self) -> impl Iterator<Item = (&Urn, &str)> {
        self.steps.iter().filter_map(|step| step.destroys.as_deref().map(|what| (&step.urn, what)))
    }

    /// Returns the SHA-256 of everything the plan says. Two plans with the same digest do the same.
    pub fn digest(&self) -> String {
        digest(&serde_json::to_value(self).unwrap_or_default())
    }
}

impl Step {
    /// Returns true when the step makes or changes what its name stands for.
    pub fn makes(&self) -> bool {
        match self.action {
            Action::Create
            | Action::Supersede
            | Action::Import { .. }
            | Action::Update
            | Action::Renew
            | Action::Continue { .. }
            | Action::Read => true,
            Action::Delete { .. } | Action::Forget { .. } | Action::LeaveBehind | Action::Gate { .. } => false,
        }
    }

    /// Returns true when the step takes something away.
    pub fn removes(&self) -> bool {
        match self.action {
            Action::Delete { .. } | Action::Forget { .. } | Action::LeaveBehind => true,
            Action::Create
            | Action::Supersede
            | Action::Import { .. }
            | Action::Update
            | Action::Renew
            | Action::Continue { .. }
            | Action::Read
            | Action::Gate { .. } => false,
        }
    }

    /// Returns true when the step takes a member of a rolling group away from its users for a while.
    pub(crate) fn disrupts(&self) -> bool {
        match self.action {
            // Where the next one stands before this one goes, nobody misses it.
            Action::Delete { condemned, .. } => !condemned,
            // What was not there is missed by nobody.
            Action::Create | Action::Supersede | Action::Continue { making: true, .. } => false,
            Action::Import { .. } | Action::Update | Action::Renew | Action::Continue { making: false, .. } => {
                self.interrupts.is_some() || self.permits.replace
            }
            Action::Forget { .. } | Action::LeaveBehind | Action::Read | Action::Gate { .. } => false,
        }
    }
}

/// Returns the dependencies of a spec, without the container when it is named by the realm.
pub(super) fn needs(edges: &[Edge]) -> impl Iterator<Item = (&Urn, bool)> {
    edges.iter().map(|edge| (&edge.to, edge.kind == EdgeKind::Created))
}

/// Says in words whose a thing is.
pub(super) fn whose(owner: &Owner) -> String {
    match owner {
        Owner::Marked(mark) => format!("it bears the mark {mark}, which is not ours"),
        Owner::Unmarked => "it bears no mark of ours".into(),
        Owner::Unmarkable => "nothing in our state says that we made it".into(),
        Owner::Other(whose) => whose.clone(),
    }
}
