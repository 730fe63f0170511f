//! Test support for users of the engine: a world in memory, a bench to run programs on, text for snapshots, and a
//! search for secrets in clear.
//!
//! A whole lab in three lines:
//!
//! ```
//! use lab_core::{ProgramError, Stack, testing};
//!
//! fn program(stack: &Stack) -> Result<(), ProgramError> {
//!     let memory = stack.provider("memory", testing::Memory::at("rack"));
//!     memory.resource("greeting").add(testing::Thing::new("greeting", "hello"));
//!     Ok(())
//! }
//!
//! let text = testing::plan_text("lab", program);
//! assert!(text.contains("+ create memory:thing greeting"));
//! ```

mod bench;
mod distant;
pub mod fuzz;
mod pantry;
mod search;
mod thing;
mod world;

pub use bench::{Bench, Trial};
pub use distant::Server;
pub use pantry::Pantry;
pub use search::{Leak, Search};
pub use thing::{Memory, Ping, Thing, ThingOutputs};
pub use world::{Item, World};

use crate::execute::disk::FaultyDisk;
use crate::model::{ProgramError, Stack};
use crate::plan;
use serde::Serialize;

/// Returns the plan of a program that was never applied, as text for a snapshot.
pub fn plan_text<T: Serialize>(name: &str, program: impl Fn(&Stack) -> Result<T, ProgramError>) -> String {
    plan::text(&Bench::new().named(name).preview(program))
}

/// Returns what a program declares, as text for a snapshot: every resource with its inputs and what it needs.
pub fn graph_text<T: Serialize>(name: &str, program: impl Fn(&Stack) -> Result<T, ProgramError>) -> String {
    plan::render_graph(&Bench::new().named(name).load(program))
}

/// A disk in memory, for a store that leaves nothing behind.
pub type MemoryDisk = FaultyDisk;
