//! The only effects: the journal, the providers' calls, the clock.

mod connect;
mod dial;
pub mod disk;
mod faults;
mod hand;
pub mod journal;
mod labdir;
mod ledger;
pub mod lock;
mod mount;
mod observe;
mod operate;
mod pauses;
mod probe;
mod progress;
mod rotate;
mod run;
mod saved;
pub mod seal;
mod shelf;
mod simulator;
mod store;

pub use dial::dial;
pub use faults::{CallFault, Faults};
pub use labdir::{LabDir, LabError, neighbours};
pub use ledger::Ledger;
pub use mount::{Mount, Mounts};
pub use observe::{observe, settle};
pub use probe::probe;
pub use progress::{Progress, STREAM, Sink, Warned, silent};
pub use rotate::{Rotated, rotate};
pub use run::{Failure, Interrupt, Options, Report, execute};
pub use saved::{Refused, SavedPlan, state_digest};
pub use shelf::Shelf;
pub use simulator::{Simulated, Simulator};
pub use store::{KeySource, Look, Store, StoreError};
