//! Faults at the boundary to the providers, for tests: by the number of the call.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What goes wrong at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFault {
    /// The process dies before the call is made.
    StopBefore,
    /// The process dies after the call had its effect and before its reply was seen.
    StopAfter,
    /// The call has its effect and its reply is lost.
    LoseReply,
    /// The call is refused without an effect, once.
    Refuse,
}

/// Counts the calls to providers, and lets one of them go wrong.
#[derive(Debug, Default)]
pub struct Faults {
    calls: AtomicUsize,
    at: Option<(usize, CallFault)>,
}

impl Faults {
    /// Returns a count of calls in which nothing goes wrong.
    pub fn none() -> Faults {
        Faults::default()
    }

    /// Returns a count in which the call with number `n`, from 0, goes wrong.
    pub fn at(n: usize, fault: CallFault) -> Faults {
        Faults { calls: AtomicUsize::new(0), at: Some((n, fault)) }
    }

    /// Returns how many calls were made.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Counts a call and returns what goes wrong with it.
    pub(crate) fn next(&self) -> Option<CallFault> {
        let n = self.calls.fetch_add(1, Ordering::SeqCst);
        self.at.filter(|(at, _)| *at == n).map(|(_, fault)| fault)
    }
}
