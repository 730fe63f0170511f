//! What a run tells whoever watches it: one versioned stream of events behind text and JSON.

use crate::model::{Place, Urn};
use serde::Serialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The version of the event stream. Raised when an event changes its meaning or loses a field.
pub const STREAM: u32 = 1;

/// One event of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Progress {
    /// A run begins.
    Began {
        /// The version of the stream.
        version: u32,
        /// The stack.
        stack: String,
        /// How many steps there are.
        steps: usize,
    },
    /// A step begins.
    Started {
        /// On what.
        urn: Urn,
        /// What is done: `create`.
        action: &'static str,
    },
    /// A step waits, for this reason.
    Waiting {
        /// On what.
        urn: Urn,
        /// For what.
        why: String,
    },
    /// A call failed in a way that may pass.
    Retrying {
        /// On what.
        urn: Urn,
        /// What came back.
        error: String,
    },
    /// A step is complete.
    Finished {
        /// On what.
        urn: Urn,
        /// What was done.
        action: &'static str,
        /// True when nothing had to be done after all.
        same: bool,
    },
    /// A step failed.
    Failed {
        /// On what.
        urn: Urn,
        /// What was attempted.
        action: &'static str,
        /// What came back.
        error: String,
        /// What to try.
        hint: Option<String>,
        /// Where it was declared.
        place: Option<Place>,
        /// True when what was begun will be finished by the next run.
        open: bool,
    },
    /// A step was left where it stands, because a person interrupted the run. The next run goes on from there.
    Interrupted {
        /// On what.
        urn: Urn,
        /// What is being done.
        action: &'static str,
    },
    /// A step was not started.
    NotStarted {
        /// On what.
        urn: Urn,
        /// What would have been done.
        action: &'static str,
        /// Why not.
        why: String,
    },
    /// Something a person should know.
    Warning {
        /// About what.
        urn: Option<Urn>,
        /// What.
        message: String,
    },
    /// The run is over.
    Ended {
        /// How many steps were completed.
        done: usize,
        /// How many failed.
        failed: usize,
        /// How many were not started.
        not_started: usize,
        /// How often something was made durable: once for everything that was recorded at the same moment.
        flushes: u64,
    },
}

/// Where progress goes.
pub type Sink = Arc<dyn Fn(&Progress) + Send + Sync>;

/// What a person should know though nothing failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Warned {
    /// About what; none: about the run.
    pub urn: Option<Urn>,
    /// What.
    pub message: String,
}

/// The warnings of a run, each once.
#[derive(Clone, Default)]
pub(super) struct Heard(Arc<Mutex<Vec<Warned>>>);

impl Heard {
    /// Returns a sink that passes on what it is told, except for a warning that it has passed on before.
    pub(super) fn listening(&self, sink: Sink) -> Sink {
        let heard = self.clone();
        Arc::new(move |progress| {
            if let Progress::Warning { urn, message } = progress {
                let warned = Warned { urn: urn.clone(), message: message.clone() };
                let mut heard = heard.lock();
                if heard.contains(&warned) {
                    return;
                }
                heard.push(warned);
            }
            sink(progress);
        })
    }

    pub(super) fn warnings(&self) -> Vec<Warned> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Warned>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns a sink that hears nothing.
pub fn silent() -> Sink {
    Arc::new(|_| {})
}
