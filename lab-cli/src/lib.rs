//! The command line of `lab`: a user's program becomes `preview`, `up`, `destroy` and what goes with them.
//!
//! ```no_run
//! use lab_cli::Lab;
//! use lab_core::{ProgramError, Stack};
//! use std::process::ExitCode;
//!
//! fn main() -> ExitCode {
//!     Lab::new("homelab", homelab).run()
//! }
//!
//! fn homelab(_stack: &Stack) -> Result<(), ProgramError> {
//!     Ok(())
//! }
//! ```
//!
//! Everything that is printed is printed here, and nothing is decided here: a verb opens a state, lets the engine
//! look, plan and execute, and shows what came of it. `--json` is the same stream of events, a JSON object a line.
//!
//! Exit codes: 0 done; 1 failed or refused, and nothing is under way; 2 `--exit-code` and there is something to do; 3
//! partly done, run it again; 64 the command line was not understood.

mod arguments;
mod asked;
pub mod configuration;
mod drift;
mod environments;
mod import;
mod invocation;
mod lab;
mod machine;
mod opened;
mod output;
mod panics;
mod preview;
mod progress;
mod refresh;
mod rehearse;
mod screen;
mod show;
mod state;
mod surroundings;
mod trouble;
mod up;

pub use environments::Environments;
pub use lab::Lab;
pub use lab_core::ProgramError;
pub use machine::Machine;
pub use surroundings::{Surroundings, Transcript};

/// What a program returns: what it declared is known to the stack, what it yields is in here.
pub type Result<T> = std::result::Result<T, ProgramError>;
