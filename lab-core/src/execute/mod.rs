//! The only effects: the journal, the providers' calls, the clock.

mod dial;
pub mod disk;
pub mod journal;
pub mod lock;
pub mod seal;

pub use dial::dial;
