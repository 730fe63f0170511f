//! What is said about a declaration, beside its data.

use super::rolling::Act;
use super::{EdgeKind, Id, Path, Urn};
use std::time::Duration;

/// What is said about a declaration, beside its data.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Refuses to delete or replace it; only an applied `.protect(false)` lifts that.
    pub protect: Option<bool>,
    /// Leaves it standing when its line goes.
    pub retain: bool,
    /// What must come first.
    pub after: Vec<(Urn, EdgeKind)>,
    /// Inputs that others may change: neither compared nor sent again.
    pub ignore: Vec<Path>,
    /// Names it had before.
    pub was: Vec<String>,
    /// The identity of the thing to take over.
    pub import: Option<Id>,
    /// A value whose change means a replacement.
    pub trigger: Option<String>,
    /// How long an operation may take; ten minutes when not given.
    pub timeout: Option<Duration>,
    /// The rolling group it is a member of.
    pub rolling: Option<String>,
    /// The part it plays around a member of a rolling group.
    pub act: Option<Act>,
}

impl Options {
    /// Returns whether what stands there is left to others.
    pub(crate) fn ignores(&self, path: &Path) -> bool {
        self.ignore.iter().any(|ignored| ignored.covers(path))
    }

    /// Returns these options with what a surrounding component says added.
    pub(crate) fn within(mut self, outer: &Options) -> Options {
        self.protect = self.protect.or(outer.protect);
        self.retain |= outer.retain;
        self.after.extend(outer.after.iter().cloned());
        self.timeout = self.timeout.or(outer.timeout);
        self.rolling = self.rolling.or_else(|| outer.rolling.clone());
        self
    }
}
