//! A plan in a file: applied exactly, or refused.

use super::seal::{Keys, SealError};
use crate::model::{Vault, digest, secret_fingerprints};
use crate::plan::{Observations, Plan, Verb};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

/// The format of plan files that this version writes, and the newest it reads.
const FORMAT: u32 = 1;

/// A plan in a file, with everything that it was made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedPlan {
    /// The format of the file.
    pub format: u32,
    /// The plan.
    pub plan: Plan,
    /// What was seen of the world.
    pub observations: Observations,
    /// What was targeted.
    pub targets: Vec<String>,
    /// When it was made, in seconds since 1970: what is due is due by this time.
    pub at: u64,
    /// The digest of the state that it was made from.
    pub state: String,
    /// The digest of the executable that made it: closures cannot be seen in a graph.
    pub executable: String,
    /// The key of the fingerprints, sealed.
    pub key: String,
    /// The secrets that the plan refers to, sealed.
    pub secrets: BTreeMap<String, String>,
}

/// Why a saved plan is not applied.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It cannot be read.
    #[error("read the plan {file}: {why}")]
    Unreadable {
        /// The file.
        file: String,
        /// Why.
        why: String,
    },
    /// A newer version wrote it.
    #[error("read the plan {file}: it has format {format}, this version knows {FORMAT}")]
    Newer {
        /// The file.
        file: String,
        /// Its format.
        format: u64,
    },
    /// It is of another stack.
    #[error("apply the plan: it is of stack {theirs}, this program's is {ours}")]
    Stack {
        /// The stack of the plan.
        theirs: String,
        /// The stack of the program.
        ours: String,
    },
    /// Something has changed since.
    #[error("apply the plan: {0} has changed since it was made")]
    Changed(&'static str),
    /// Its secrets cannot be opened.
    #[error("open the secrets of the plan: {0}")]
    Sealed(#[from] SealError),
}

impl Refused {
    /// Returns what to try.
    pub fn hint(&self) -> &'static str {
        match self {
            Refused::Unreadable { .. } => "make it anew with `preview --out`",
            Refused::Newer { .. } => "use the version of lab that wrote it, or make it anew with `preview --out`",
            Refused::Stack { .. } => "apply it with the program and the `--env` that made it",
            Refused::Changed(_) => "look at a new one with `preview --out`; nothing was changed",
            Refused::Sealed(SealError::WrongKey { .. }) => {
                "make it anew with `preview --out`: the key was rotated since, or it is somebody else's plan"
            }
            Refused::Sealed(error) => error.hint(),
        }
    }
}

impl SavedPlan {
    /// Returns a plan as it is saved.
    #[expect(clippy::too_many_arguments, reason = "a saved plan is pinned to everything it was made from")]
    pub fn new(
        plan: Plan,
        observations: Observations,
        targets: Vec<String>,
        at: u64,
        state: String,
        executable: String,
        vault: &Vault,
        keys: &Keys,
    ) -> Result<SavedPlan, String> {
        let mut secrets = BTreeMap::new();
        for part in [serde_json::to_value(&plan), serde_json::to_value(&observations)] {
            for fingerprint in secret_fingerprints(&part.map_err(|error| error.to_string())?) {
                let value = vault.get(&fingerprint)?;
                secrets.insert(fingerprint, keys.seal(&crate::model::canonical(&value)));
            }
        }
        let key = keys.seal(&vault.key());
        Ok(SavedPlan { format: FORMAT, plan, observations, targets, at, state, executable, key, secrets })
    }

    /// Returns the file's content.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = crate::model::canonical(&serde_json::to_value(self).unwrap_or_default());
        bytes.push(b'\n');
        bytes
    }

    /// Reads a file's content.
    pub fn from_bytes(file: &str, bytes: &[u8]) -> Result<SavedPlan, Refused> {
        let unreadable = |why: String| Refused::Unreadable { file: file.to_owned(), why };
        let value: Value = serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
        let format = value.get("format").and_then(Value::as_u64);
        match format {
            Some(format) if format > u64::from(FORMAT) => Err(Refused::Newer { file: file.to_owned(), format }),
            Some(_) => {
                let saved: SavedPlan = serde_json::from_value(value).map_err(|error| unreadable(error.to_string()))?;
                match UNIX_EPOCH.checked_add(Duration::from_secs(saved.at)) {
                    Some(_) => Ok(saved),
                    None => {
                        Err(unreadable(format!("it says that it was made at a time that there is not: {}", saved.at)))
                    }
                }
            }
            None => Err(unreadable("it is not a plan of lab".into())),
        }
    }

    /// Returns the vault that the plan was made with.
    pub fn vault(&self, keys: &Keys) -> Result<Vault, Refused> {
        let damaged = || SealError::Damaged { what: "the fingerprint key has another length".into() };
        let key: [u8; 32] = keys.open(&self.key)?.try_into().map_err(|_| damaged())?;
        let vault = Vault::new(key);
        let keys = keys.clone();
        vault.unseal_with(self.secrets.clone(), move |sealed| {
            let plain = keys.open(sealed).map_err(|error| error.to_string())?;
            serde_json::from_slice(&plain).map_err(|_| "a sealed secret is not what was sealed".into())
        });
        Ok(vault)
    }

    /// Says whether `now`, planned anew from the same observations, is what was saved.
    pub fn check(&self, now: &Plan, state: &str, executable: &str) -> Result<(), Refused> {
        if self.plan.stack != now.stack {
            return Err(Refused::Stack { theirs: self.plan.stack.clone(), ours: now.stack.clone() });
        }
        if self.state != state {
            return Err(Refused::Changed("the state"));
        }
        if self.executable != executable {
            return Err(Refused::Changed("the program"));
        }
        if self.plan.digest() != now.digest() {
            return Err(Refused::Changed("the program, or something it is configured with,"));
        }
        Ok(())
    }

    /// Returns what was asked for.
    pub fn verb(&self) -> Verb {
        self.plan.verb
    }
}

/// Returns the digest that pins a plan to a state.
pub fn state_digest(state: &crate::model::State) -> String {
    digest(&serde_json::to_value(state).unwrap_or_default())
}
