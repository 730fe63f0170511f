//! Pure functions: from a declaration, a state and observations to a complete plan.
//!
//! The plan is data. Execution only walks it; where something cannot be known before, the plan says which outcomes it
//! permits, and [`resolve`] is called again when the values are there.

mod change;
mod claims;
mod diff;
mod drift;
mod fate;
mod going;
mod graph;
mod hold;
mod judge;
mod make;
mod moves;
mod order;
mod pairs;
#[expect(clippy::module_inception, reason = "the plan is what this room is about, and its noun")]
mod plan;
mod render;
mod resolve;
mod roll;
mod select;

pub use claims::{ForeignClaim, Held};
pub use diff::{Delta, diff};
pub use drift::{Drift, drift, said};
pub use graph::{Graph, render_graph};
pub use judge::{Expected, Verdict, judge};
pub(crate) use make::digest_of;
pub use make::{Request, plan};
pub(crate) use order::verb;
pub use plan::{
    Action, After, HeldStep, Observations, Observed, Permits, Plan, Probed, Problem, Seen, Step, Unknown, Verb,
};
pub use render::{Line, Tone, render, text};
pub use resolve::{Outcome, Resolved, Values, resolve};
pub(crate) use resolve::{known, known_tree, realm};
pub use select::{distance, names, nearest};
