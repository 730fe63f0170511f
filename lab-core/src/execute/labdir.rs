//! The lab directory: the stacks of one lab, a state each, one lock for all.

use super::disk::{Disk, RealDisk};
use super::lock::{Lock, LockError};
use super::mount::{Mount, Mounts};
use super::rotate::{Rotated, rotate};
use super::seal::{KeyFile, SealError};
use super::store::{KeySource, Store, StoreError};
use crate::model::{Marked, Neighbour, Neighbours, State, Status, Vault, map_secrets};
use crate::plan::ForeignClaim;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// The lab directory: the stacks of one lab, a state each, one lock for all.
pub struct LabDir {
    dir: PathBuf,
    disk: Arc<RealDisk>,
    mounts: Option<Mounts>,
    trusted: bool,
}

/// Why a lab directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Somebody else holds it, or it cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A state in it cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keys cannot be read or replaced.
    #[error(transparent)]
    Keys(#[from] SealError),
    /// It cannot be listed.
    #[error("list the lab directory {dir}: {source}")]
    Disk {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl LabDir {
    /// Returns the lab directory at `dir`; it need not exist yet.
    pub fn new(dir: impl Into<PathBuf>) -> LabDir {
        let dir = dir.into();
        LabDir { disk: Arc::new(RealDisk::new(&dir)), dir, mounts: None, trusted: false }
    }

    /// Returns the same directory among other file systems than the kernel's.
    pub fn among(mut self, mounts: Mounts) -> LabDir {
        self.mounts = Some(mounts);
        self
    }

    /// Returns the same directory, to be locked whatever it lies on: somebody else sees to it that only this machine
    /// uses it.
    pub fn trusted(mut self) -> LabDir {
        self.trusted = true;
        self
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Returns its disk.
    pub fn disk(&self) -> Arc<RealDisk> {
        self.disk.clone()
    }

    /// Takes the lock; a second process is told who holds it, since when, and doing what. Refused on a file system
    /// that is not known to keep a lock.
    pub fn lock(&self, verb: &str, now: SystemTime) -> Result<Lock, LabError> {
        if !self.trusted {
            let mounts = self.mounts.clone().unwrap_or_else(Mounts::here);
            if let Some(why) = mounts.under(&self.dir).and_then(Mount::doubt) {
                return Err(LockError::Doubtful { dir: self.dir.display().to_string(), why }.into());
            }
        }
        Ok(Lock::take(&self.dir, verb, now)?)
    }

    /// Opens the state of a stack for writing. The caller holds the lock.
    pub fn open(&self, stack: &str, keys: KeySource) -> Result<(Store, Option<super::journal::Cut>), LabError> {
        Ok(Store::open(self.disk.clone(), stack, keys)?)
    }

    /// Puts another key in the place of the one that seals, and seals all stacks anew; see [`rotate`]. The caller holds
    /// the lock.
    ///
    /// `to` is a file with the key to use; without it a new one is made.
    pub fn rotate(&self, file: &KeyFile, to: Option<&KeyFile>, now: SystemTime) -> Result<Rotated, LabError> {
        file.outside(&self.dir)?;
        // Also says what a missing or broken file needs, by the name that its owner knows.
        file.load()?;
        let to = match to {
            Some(to) => {
                to.outside(&self.dir)?;
                Some(to.load()?)
            }
            None => None,
        };
        let (dir, name) = file.placed("replace")?;
        // Another lab may use the same key: of two rotations at once, the key that one makes could be lost to the other.
        let _turn = KeysTurn::take(&dir)?;
        rotate(self.disk.clone(), &self.stacks()?, &RealDisk::new(dir), &name, to, now)
    }

    /// Returns the names of the stacks that were ever applied.
    pub fn stacks(&self) -> Result<Vec<String>, LabError> {
        let names = self.disk.list().map_err(|source| LabError::Disk { dir: self.dir.clone(), source })?;
        let mut stacks: Vec<String> =
            names.iter().filter_map(|name| name.strip_suffix(".journal")).map(str::to_owned).collect();
        stacks.sort();
        Ok(stacks)
    }
}

/// The turn to replace a key file, held by a lock on its directory: the file itself is another one afterwards.
struct KeysTurn(Option<std::fs::File>);

impl KeysTurn {
    fn take(dir: &Path) -> Result<KeysTurn, SealError> {
        // Elsewhere a directory cannot be opened as a file.
        if !cfg!(unix) {
            return Ok(KeysTurn(None));
        }
        let failed = |source| SealError::Disk { attempt: "replace", path: dir.display().to_string(), source };
        let held = std::fs::File::open(dir).map_err(failed)?;
        match held.try_lock() {
            Ok(()) => Ok(KeysTurn(Some(held))),
            Err(std::fs::TryLockError::WouldBlock) => Err(SealError::Busy { path: dir.display().to_string() }),
            Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

impl Drop for KeysTurn {
    fn drop(&mut self) {
        if let Some(held) = &self.0 {
            // Closing it does the same, but for a process that is just being started and has a copy of it.
            let _ = held.unlock();
        }
    }
}

/// What other stacks of a lab directory tell a program: their outputs, how they are, and what they occupy. Their
/// secrets are put into `vault`, so that they are told apart by this stack's key.
pub fn neighbours(
    disk: &dyn Disk,
    stacks: &[String],
    own: &str,
    keys: &KeySource,
    vault: &Vault,
) -> Result<(Neighbours, Vec<ForeignClaim>), StoreError> {
    let mut neighbours = Neighbours::new();
    let mut claims = Vec::new();
    for stack in stacks.iter().filter(|stack| *stack != own) {
        let look = Store::look(disk, stack, keys)?;
        claims.extend(look.state.occupied().map(|(urn, record, claim)| ForeignClaim {
            urn: urn.clone(),
            place: record.spec.place.clone(),
            claim: claim.clone(),
        }));
        let outputs = map_secrets(&look.state.outputs, &mut |marked: Marked| {
            look.vault.get(&marked.0).ok().map(|plain| Marked(vault.put(&plain)))
        });
        neighbours.insert(stack.clone(), Neighbour { outputs, unwell: unwell(&look.state) });
    }
    Ok((neighbours, claims))
}

/// Returns what of a stack is not as it was applied, in words.
fn unwell(state: &State) -> Vec<String> {
    let records = state.records.iter().filter_map(|(urn, record)| {
        let how = match record.status {
            _ if record.open.is_some() => "was begun and did not end",
            Status::Ready => return None,
            Status::Made => "is not ready",
            Status::Begun => "was begun and did not end",
            Status::Gone => "is gone",
        };
        Some(format!("{} {} {how}", urn.kind(), urn.short()))
    });
    records.collect()
}
