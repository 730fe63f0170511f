//! What went wrong, as a person is told: what was attempted, why it failed, what to try.

use lab_core::execute::seal::SealError;
use lab_core::execute::{LabError, Refused, StoreError};

/// What went wrong, as a person is told.
#[derive(Debug)]
pub(crate) struct Trouble {
    /// What was attempted: `failed to ...`, or a whole sentence.
    pub(crate) what: String,
    /// Why it failed.
    pub(crate) cause: Option<String>,
    /// What to try.
    pub(crate) hint: Option<String>,
    /// The exit code.
    pub(crate) exit: u8,
    /// The stack that has to be applied first, where that is what is wrong.
    pub(crate) needs: Option<String>,
}

/// Failed or refused, and nothing is under way.
pub(crate) const FAILED: u8 = 1;
/// There is something to do, and `--exit-code` was given.
pub(crate) const CHANGES: u8 = 2;
/// Partly done.
pub(crate) const PARTLY: u8 = 3;
/// The command line was not understood.
pub(crate) const USAGE: u8 = 64;

impl Trouble {
    pub(crate) fn new(what: impl Into<String>) -> Trouble {
        Trouble { what: what.into(), cause: None, hint: None, exit: FAILED, needs: None }
    }

    pub(crate) fn because(mut self, cause: impl ToString) -> Trouble {
        self.cause = Some(cause.to_string());
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Trouble {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn usage(mut self) -> Trouble {
        self.exit = USAGE;
        self
    }
}

/// Splits an engine's error, `attempt: cause`, where it attempts something.
fn split(text: &str) -> Trouble {
    match text.split_once(": ") {
        Some((attempt, cause)) => Trouble::new(format!("failed to {attempt}")).because(cause),
        None => Trouble::new(format!("failed to {text}")),
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Trouble {
        split(&error.to_string()).hint(error.hint())
    }
}

impl From<SealError> for Trouble {
    fn from(error: SealError) -> Trouble {
        split(&error.to_string()).hint(error.hint())
    }
}

impl From<Refused> for Trouble {
    fn from(error: Refused) -> Trouble {
        split(&error.to_string()).hint(error.hint())
    }
}

impl From<LabError> for Trouble {
    fn from(error: LabError) -> Trouble {
        match error {
            LabError::Store(error) => error.into(),
            LabError::Keys(error) => error.into(),
            LabError::Lock(error) => {
                let trouble = split(&error.to_string());
                match error.hint() {
                    Some(hint) => trouble.hint(hint),
                    None => trouble,
                }
            }
            LabError::Disk { .. } => split(&error.to_string()),
        }
    }
}
