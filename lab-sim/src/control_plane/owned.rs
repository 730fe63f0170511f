//! Directories that belong to a process: they end with it, and if it was killed, when the next one begins.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;

use tempfile::TempDir;

/// What the names of our directories begin with.
const PREFIX: &str = "control-plane-";
/// The file in a directory that its process holds locked for as long as it lives. The kernel lets go of it whatever
/// happens; a number of a process could be another one's by then.
const LOCK: &str = "lock";

/// A directory of this process.
pub(super) struct Owned {
    // Before the directory: where a directory cannot be removed while a file in it is open.
    _lock: File,
    directory: TempDir,
}

impl Owned {
    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Makes a directory in `place`, and removes those of processes that are gone: there are keys in them.
pub(super) fn directory(place: &Path) -> io::Result<Owned> {
    tidy(place);
    let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(place)?;
    // It bears its name only once it is locked, so that nobody takes it for one that was left behind.
    let unlocked = directory.path().join("unlocked");
    let lock = File::create_new(&unlocked)?;
    lock.lock()?;
    fs::rename(unlocked, directory.path().join(LOCK))?;
    Ok(Owned { _lock: lock, directory })
}

/// Removes what was left behind, as far as it is ours to remove.
fn tidy(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        // One without a lock is being made, or not from here.
        let Some(lock) = ours.then(|| File::open(entry.path().join(LOCK)).ok()).flatten() else { continue };
        match lock.try_lock() {
            // Another process may be at it, too.
            Ok(()) => drop(fs::remove_dir_all(entry.path())),
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_behind_is_removed_by_the_next() {
        let place = tempfile::tempdir().unwrap();
        let alive = directory(place.path()).unwrap();
        let killed = directory(place.path()).unwrap();
        fs::write(killed.path().join("ca.key"), "secret").unwrap();
        let Owned { _lock, directory: left } = killed;
        let left = left.keep();
        // What the kernel does. To close the file would not be enough here: a test beside this one may be starting a
        // program, whose process has our files open until it becomes that program.
        let fork = _lock.try_clone().unwrap();
        _lock.unlock().unwrap();
        drop(_lock);
        let other = place.path().join("control-plane-notes");
        fs::create_dir(&other).unwrap();
        let next = directory(place.path()).unwrap();
        assert!(!left.exists());
        assert!(alive.path().exists() && next.path().exists() && other.exists());
        let path = alive.path().to_owned();
        drop(alive);
        assert!(!path.exists());
        drop(fork);
    }
}
