//! The engine of `lab`: a typed resource graph, an honest plan, a journalled execution.
//!
//! Three rooms, and dependencies go one way: [`execute`] → [`plan`] → [`model`].
//!
//! - [`model`] is pure data: what a program declares, what a provider promises, what the state holds.
//! - [`plan`] is pure functions: from a declaration, a state and observations to a complete plan.
//! - [`execute`] holds the only effects: the journal, the providers' calls, the clock.
//!
//! Nothing here prints.

pub mod execute;
pub mod model;
pub mod plan;
pub mod testing;

pub use model::*;
