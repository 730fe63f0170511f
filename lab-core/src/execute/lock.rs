//! The lock of a lab directory: one process writes, a second is told who, since when and doing what.
//!
//! The lock is the operating system's, on the file `lock`, which stays for ever: the kernel releases it when the
//! process ends in whatever way, and removing the file would let two processes lock two files of one name. Who holds it stands
//! in `lock.holder`, which proves nothing and is only ever shown.

use super::disk::make_dir;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const LOCK: &str = "lock";
const HOLDER: &str = "lock.holder";

/// The lock of a lab directory, held until it is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
    holder: PathBuf,
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The process id.
    pub pid: u32,
    /// The name of the machine; empty when it is not known.
    pub host: String,
    /// What it is doing: `up`, `destroy` ...
    pub verb: String,
    /// Since when, in UTC (RFC 3339).
    pub since: String,
}

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("lock {dir}: {}", told(holder))]
    Held {
        /// The lab directory.
        dir: String,
        /// Who; nothing when it has not said so yet.
        holder: Option<Holder>,
    },
    /// The directory lies on a file system that may grant the lock to everybody.
    #[error("lock {dir}: {why}")]
    Doubtful {
        /// The lab directory.
        dir: String,
        /// Why.
        why: String,
    },
    /// The file system refused.
    #[error("lock {dir}: {source}")]
    Disk {
        /// The lab directory.
        dir: String,
        /// What the file system said.
        source: io::Error,
    },
}

impl LockError {
    /// Returns what the user can do about it, where there is anything.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            LockError::Held { .. } | LockError::Disk { .. } => None,
            LockError::Doubtful { .. } => {
                Some("keep the state on a local disk; or say `--trust-lock` where no other machine ever runs this lab")
            }
        }
    }
}

impl Lock {
    /// Takes the lock of the directory `dir`, which is made if it is missing, without waiting. `verb` and `now` are
    /// what a second process is told.
    pub fn take(dir: &Path, verb: &str, now: SystemTime) -> Result<Lock, LockError> {
        let failed = |source| LockError::Disk { dir: dir.display().to_string(), source };
        make_dir(dir).map_err(failed)?;
        // Truncating it would be harmless, and opening it for reading is not enough on every network file system.
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(dir.join(LOCK)).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held { dir: dir.display().to_string(), holder: Lock::holder(dir) });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let lock = Lock { file, holder: dir.join(HOLDER) };
        let holder = Holder { pid: std::process::id(), host: host(), verb: verb.to_owned(), since: rfc3339(now) };
        // A full disk does not forbid to lock: the name is for people, and `destroy` must be able to run.
        let _ = lock.sign(&holder);
        Ok(lock)
    }

    /// Returns who signed the lock of the directory `dir` last and did not take the name away: whoever holds it, or one
    /// that was killed.
    pub fn holder(dir: &Path) -> Option<Holder> {
        Holder::parse(&fs::read(dir.join(HOLDER)).ok()?)
    }

    fn sign(&self, holder: &Holder) -> io::Result<()> {
        // A killed process may have left its name; better none than that one.
        let _ = fs::remove_file(&self.holder);
        let written = self.holder.with_extension("holder.tmp");
        fs::write(&written, serde_json::to_vec(holder)?)?;
        fs::rename(&written, &self.holder)
    }
}

impl Holder {
    /// Reads what a holder has written of itself; nothing when it cannot be understood.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Holder> {
        serde_json::from_slice(bytes).ok()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Before the lock goes: afterwards it could be the next holder's name.
        let _ = fs::remove_file(&self.holder);
        // Closing the file is not enough: a process that is just being started has a copy of it until it has become
        // that other program, and the lock would last as long.
        let _ = self.file.unlock();
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Somebody else wrote this: it must not move the cursor of whoever reads it.
        let plain = |text: &str| text.replace(char::is_control, "\u{fffd}");
        write!(f, "`{}` (process {}", plain(&self.verb), self.pid)?;
        if !self.host.is_empty() {
            write!(f, " on {}", plain(&self.host))?;
        }
        write!(f, ") has held it since {}", plain(&self.since))
    }
}

fn told(holder: &Option<Holder>) -> String {
    match holder {
        Some(holder) => format!("{holder}; wait for it to end"),
        None => "another process holds it; wait for it to end".into(),
    }
}

fn host() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let told = || ["HOSTNAME", "COMPUTERNAME"].iter().find_map(|name| std::env::var(name).ok());
    kernel.or_else(told).unwrap_or_default().trim().to_owned()
}

/// Returns a time as RFC 3339 in UTC, to the second. Times before 1970 are shown as 1970.
pub fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March here, so that the leap day is a year's last; 719,468 days lie between the first of March of
    // the year 0 and 1970.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, turn) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + turn;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}
