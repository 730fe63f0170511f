//! Everything of the engine that reads bytes which somebody else may have written, as functions of those bytes.
//!
//! A fuzzer calls them with whatever it makes up, an ordinary test with [`Target::seeds`] and what a [`Mutator`] makes of
//! them. None may panic, overflow the stack, or ask for memory that its input only claims to need. What a function makes
//! of its input is nobody's business; that it comes back is.
//!
//! ```
//! use lab_core::testing::fuzz::{Mutator, TARGETS};
//!
//! for target in TARGETS {
//!     let mut mutator = Mutator::new(1);
//!     for seed in target.seeds() {
//!         (target.run)(&mutator.mutate(&seed));
//!     }
//! }
//! ```
//!
//! Files that carry a hash would stop every mutation at that hash. So there is a target for the file as it lies there,
//! and one for what is in it, which is wrapped in a file with the right hash: whoever can write to the lab directory can
//! do that, too.

mod mutator;
mod seeds;
mod targets;

pub use mutator::Mutator;

use seeds::Seeds;
use std::fmt;

/// One thing that reads bytes.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, which is also that of the fuzzer's target.
    pub name: &'static str,
    /// What it reads: a file, a part of one, a variable.
    pub what: &'static str,
    /// Reads these bytes.
    pub run: fn(&[u8]),
    seeds: fn(&Seeds) -> Vec<Vec<u8>>,
}

/// Everything of the engine that reads bytes.
pub const TARGETS: &[Target] = &[
    Target { name: "journal", what: "the file of a stack", run: targets::journal, seeds: Seeds::journals },
    Target {
        name: "snapshot",
        what: "a snapshot with the right hash",
        run: targets::snapshot,
        seeds: Seeds::snapshots,
    },
    Target { name: "records", what: "frames with the right hash", run: targets::records, seeds: Seeds::records },
    Target { name: "run", what: "a state, and a run on it", run: targets::run, seeds: Seeds::snapshots },
    Target { name: "plan", what: "a saved plan", run: targets::plan, seeds: Seeds::plans },
    Target { name: "key_file", what: "a key file", run: targets::key_file, seeds: Seeds::key_files },
    Target { name: "sealed", what: "a sealed secret", run: targets::sealed, seeds: Seeds::sealed },
    Target { name: "holder", what: "who holds a lock", run: targets::holder, seeds: Seeds::holders },
    Target { name: "clock", what: "the clock of a simulated lab", run: targets::clock, seeds: Seeds::clocks },
];

/// Returns the target with this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

impl Target {
    /// Returns inputs that are as they should be, always the same, and some that are famous for what they broke.
    pub fn seeds(&self) -> Vec<Vec<u8>> {
        (self.seeds)(Seeds::once())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("name", &self.name).field("what", &self.what).finish()
    }
}
