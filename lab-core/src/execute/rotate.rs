//! Another key in the place of the one that seals.
//!
//! In an order in which a crash at any moment leaves nothing behind that cannot be opened:
//!
//! 1. Everything is opened once. What cannot be opened now is told before anything is changed.
//! 2. The keys so far are put aside, next to the key file, durably.
//! 3. The key file is replaced by one with the new key alone. Whoever reads it reads the keys put aside as well.
//! 4. Each stack is replaced by a snapshot that is sealed for the new key.
//!
//! The keys put aside are never removed here: copies of the state made earlier need them, and another lab of the same
//! user may not be sealed anew yet. A rotation that was cut off is recognised by something that is sealed for another
//! key than the first, and is finished instead of making yet another key.
//!
//! What is deliberately not here: other secrets. Whoever had both the old key and the state has read what is in it.

use super::disk::{Disk, replace, temporary};
use super::labdir::LabError;
use super::seal::{EARLIER, Keys, SealError, keep_names};
use super::store::{KeySource, Store, StoreError};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

/// What a rotation has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// The public half of the key that seals now: `age1...`.
    pub recipient: String,
    /// The path of the key file.
    pub file: String,
    /// The path of the keys that sealed before.
    pub earlier: String,
    /// True when this key was put in place just now; false when an earlier rotation was finished.
    pub new: bool,
    /// How many values were sealed anew, by stack; a stack that needed nothing has 0.
    pub stacks: BTreeMap<String, usize>,
}

/// Puts the key `to`, or a new one, in the place of the one that seals, and seals all `stacks` on the disk `lab` anew.
///
/// `keys` is the disk with the key file `name`. No value, fingerprint or plan changes. After a crash at any moment
/// everything can be opened with what is there, and calling it again finishes it.
///
/// # Errors
///
/// When the key file or a stack cannot be read, or holds something that no key opens: then nothing was changed. When
/// something cannot be written: then the keys put aside and the key file together still open everything.
pub fn rotate(
    lab: Arc<dyn Disk>,
    stacks: &[String],
    keys: &dyn Disk,
    name: &str,
    to: Option<Keys>,
    now: SystemTime,
) -> Result<Rotated, LabError> {
    // A rotation that was cut off may have died before its new key's name was durable. To seal everything for a key
    // that a power loss takes away would be the end of it.
    keep_names(keys).map_err(|source| SealError::Disk { attempt: "replace", path: keys.place(name), source })?;
    let aside = format!("{name}{EARLIER}");
    let (text, current) = read(keys, name)?.ok_or(SealError::Missing { path: keys.place(name), named: true })?;
    let put_aside = read(keys, &aside)?;
    let known = match &put_aside {
        Some((_, earlier)) => current.clone().before(earlier.clone()),
        None => current.clone(),
    };
    let pending = pending(&*lab, stacks, &known)?;
    let (target, since) = match to {
        Some(to) => (to, "taken over"),
        None if pending => (current.clone(), "created"),
        None => (Keys::throwaway(), "created"),
    };
    let recipient = target.recipient();
    let new = current.recipients() != [recipient.clone()];
    if new {
        // A file with several keys is put aside whole, with its owner's remarks; the first of them may be the target.
        let held = put_aside.as_ref().map_or_else(Vec::new, |(_, earlier)| earlier.recipients());
        if current.recipients().iter().any(|recipient| !held.contains(recipient)) {
            let before = put_aside.as_ref().map_or("", |(text, _)| text.as_str());
            write(keys, &aside, &format!("{before}{}\n", text.trim_end()))?;
        }
        write(keys, name, &target.text(since, now))?;
    }
    let all = target.before(known);
    let mut sealed = BTreeMap::new();
    for stack in stacks {
        // Opening also removes an unfinished copy, which is sealed for whatever key there was.
        let (mut store, _) = Store::open(lab.clone(), stack, KeySource::Given(all.clone()))?;
        sealed.insert(stack.clone(), store.seal_anew()?);
    }
    Ok(Rotated { recipient, file: keys.place(name), earlier: keys.place(&aside), new, stacks: sealed })
}

/// Opens everything, and returns whether something is sealed for another key than the first.
fn pending(lab: &dyn Disk, stacks: &[String], keys: &Keys) -> Result<bool, StoreError> {
    let mut pending = false;
    for stack in stacks {
        let state = Store::look(lab, stack, &KeySource::Given(keys.clone()))?.state;
        for sealed in state.key.iter().chain(state.secrets.values()) {
            keys.open(sealed).map_err(|source| StoreError::Keys { stack: stack.clone(), source })?;
            pending |= !keys.is_current(sealed);
        }
    }
    Ok(pending)
}

fn read(disk: &dyn Disk, name: &str) -> Result<Option<(String, Keys)>, SealError> {
    let path = disk.place(name);
    let failed = |source| SealError::Disk { attempt: "read", path: path.clone(), source };
    let Some(bytes) = disk.read(name).map_err(failed)? else { return Ok(None) };
    let text = String::from_utf8(bytes).map_err(|_| failed(io::ErrorKind::InvalidData.into()))?;
    let keys = Keys::parse(&text, path.clone())?;
    Ok(Some((text, keys)))
}

fn write(disk: &dyn Disk, name: &str, text: &str) -> Result<(), SealError> {
    let failed = |source| SealError::Disk { attempt: "replace", path: disk.place(name), source };
    // One that a crash has left keeps its permissions when it is written again; a new one is its owner's only.
    let staged = temporary(name);
    if disk.list().map_err(failed)?.contains(&staged) {
        disk.remove(&staged).map_err(failed)?;
    }
    replace(disk, name, text.as_bytes()).map(drop).map_err(failed)
}
