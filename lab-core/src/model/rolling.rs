//! Groups whose members are changed a few at a time.

use super::declare::Place;
use super::erased::ErasedQuery;
use super::{Provider, Query, Resource, Scope, Stack, Urn, Windows, erased};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

/// A group whose members are interrupted at most `at_most` at a time, and only while its gates hold.
///
/// Creation is not rolled, disruption is: a member whose planned step interrupts nothing goes with the rest. The roll
/// stops at the first failure and leaves the rest untouched.
#[derive(Clone)]
pub struct Rolling {
    /// What the user called it.
    pub name: String,
    /// How many members may be unavailable at the same time.
    pub at_most: usize,
    /// What must hold before each member and after the last.
    pub gates: Vec<Gate>,
    /// When its members may be interrupted; as the stack says when not said.
    pub windows: Option<Windows>,
}

/// A question that must be answered before a roll goes on.
#[derive(Clone)]
pub struct Gate {
    /// The provider that is asked.
    pub provider: String,
    /// The question.
    pub query: Arc<dyn ErasedQuery>,
    /// What it asks with.
    pub inputs: Value,
    /// Where it was declared.
    pub place: Place,
}

impl fmt::Debug for Rolling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rolling").field("name", &self.name).field("at_most", &self.at_most).finish_non_exhaustive()
    }
}

/// The part a resource plays around a member of a rolling group: run only when the member's step interrupts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    /// The member.
    pub member: Urn,
    /// Before or after its step.
    pub when: When,
}

/// When an act is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Before the member's step: drain, snapshot.
    Before,
    /// After it: uncordon.
    After,
}

/// A rolling group being declared.
pub struct Group<'a> {
    pub(super) stack: &'a Stack,
    pub(super) name: String,
}

impl Group<'_> {
    /// Adds a question that is asked of `scope`'s provider before each member and after the last.
    #[track_caller]
    pub fn gate<P: Provider, Q: Query<P>>(&self, scope: &Scope<'_, P>, query: Q) -> &Self {
        let place = Place::here();
        self.stack.add_gate(&self.name, scope.provider_name(), erased::erase_query::<P, Q>(), &query, place);
        self
    }

    /// Says when its members may be interrupted, whatever the stack says.
    pub fn maintenance(&self, windows: Windows) -> &Self {
        self.stack.set_windows(&self.name, windows);
        self
    }

    /// Declares what is done before `member` is interrupted.
    #[track_caller]
    pub fn before<P: Provider, R: Resource<P>>(&self, scope: &Scope<'_, P>, member: &Urn, name: &str, act: R) -> &Self {
        scope.resource(name).act(Act { member: member.clone(), when: When::Before }).add(act);
        self
    }

    /// Declares what is done after `member` was interrupted.
    #[track_caller]
    pub fn after<P: Provider, R: Resource<P>>(&self, scope: &Scope<'_, P>, member: &Urn, name: &str, act: R) -> &Self {
        scope.resource(name).act(Act { member: member.clone(), when: When::After }).add(act);
        self
    }

    /// Returns the name of the group.
    pub fn name(&self) -> &str {
        &self.name
    }
}
