//! Ours or not: what a look at the outside means, given what the state says. The engine judges, not the provider.

use super::plan::whose;
use crate::model::{Found, Mark, Owner, Step, Tree};

/// What the state says about a thing that is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The mark it bears when it is ours; None when we never made it.
    pub mark: Option<Mark>,
    /// True when we may trust the identity alone: it is recorded, or was proven absent before our open begin.
    pub by_id: bool,
    /// True when ours does not bear a mark yet, or is about to be taken over.
    pub unmarked: bool,
    /// True when it is to be taken over, whosever it is.
    pub adopt: bool,
}

/// What a look means.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It is not there, for certain.
    Absent,
    /// It is ours, and stands where the step says; and what it says itself about whose it is.
    Ours(Step<Tree>, Owner),
    /// It is ours and on its way out, for this reason.
    Leaving(String),
    /// It is not ours, for this reason. Nothing may be done to it.
    Foreign(String),
}

/// Returns what `found` means.
pub fn judge(found: Found<Tree>, expected: &Expected) -> Verdict {
    let ours = |owner: &Owner| match owner {
        Owner::Marked(mark) => expected.adopt || expected.mark.as_ref().is_some_and(|ours| ours.0 == *mark),
        Owner::Unmarked => expected.adopt || expected.unmarked,
        Owner::Unmarkable => expected.adopt || expected.by_id,
        Owner::Other(_) => false,
    };
    match found {
        Found::Absent => Verdict::Absent,
        Found::Present(owner, step) if ours(&owner) => Verdict::Ours(step, owner),
        Found::Leaving(owner, why) if ours(&owner) => Verdict::Leaving(why),
        Found::Present(owner, _) | Found::Leaving(owner, _) => Verdict::Foreign(whose(&owner)),
    }
}
