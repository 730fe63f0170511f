//! Faults at the boundary to the providers, for tests: by the number of the call.

use std::fmt;
use std::sync::Arc;
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
#[derive(Default)]
pub struct Faults {
    calls: AtomicUsize,
    at: Option<(usize, CallFault)>,
    watch: Option<Arc<dyn Fn(usize) + Send + Sync>>,
}

impl Faults {
    /// Returns a count of calls in which nothing goes wrong.
    pub fn none() -> Faults {
        Faults::default()
    }

    /// Returns a count in which the call with number `n`, from 0, goes wrong.
    pub fn at(n: usize, fault: CallFault) -> Faults {
        Faults { at: Some((n, fault)), ..Faults::default() }
    }

    /// Returns a count in which nothing goes wrong and `watch` is told the number of each call before it is made.
    pub fn watched(watch: impl Fn(usize) + Send + Sync + 'static) -> Faults {
        Faults { watch: Some(Arc::new(watch)), ..Faults::default() }
    }

    /// Returns how many calls were made.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Returns true when a call is to go wrong.
    pub(crate) fn planned(&self) -> bool {
        self.at.is_some()
    }

    /// Counts a call and returns what goes wrong with it.
    pub(crate) fn next(&self) -> Option<CallFault> {
        let n = self.calls.fetch_add(1, Ordering::SeqCst);
        if let Some(watch) = &self.watch {
            watch(n);
        }
        self.at.filter(|(at, _)| *at == n).map(|(_, fault)| fault)
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("calls", &self.calls).field("at", &self.at).finish_non_exhaustive()
    }
}
