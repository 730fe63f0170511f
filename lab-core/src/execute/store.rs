//! Where a state lives: a journal, the keys that seal its secrets, and the state that the journal adds up to.

use super::disk::Disk;
use super::journal::{Cut, Journal, JournalError, Opened};
use super::seal::{KeyFile, Keys, SealError};
use super::snapshot;
use crate::model::{Event, Illegal, State, Vault, secrets_in};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

/// How many bytes of frames a state may have whatever it describes: 256 KiB.
const OVERGROWN: u64 = 256 << 10;

/// The state of one stack, open for writing or for looking.
pub struct Store {
    /// None when it is only looked at.
    journal: Option<Journal>,
    state: State,
    vault: Vault,
    keys: KeySource,
    stack: String,
    broken: bool,
}

/// A state that was only looked at.
pub struct Look {
    /// The state; empty when the stack was never applied.
    pub state: State,
    /// Its secrets.
    pub vault: Vault,
    /// What was found torn at the end and passed over.
    pub cut: Option<Cut>,
}

/// Where the keys come from that seal secrets.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// These.
    Given(Keys),
    /// A file of the user's; created when the first secret has to be sealed.
    File {
        /// Where.
        file: KeyFile,
        /// The lab directory, in which no key may lie.
        lab: PathBuf,
    },
}

/// Why a state cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The journal is unreadable, damaged, or cannot be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The key is missing or the wrong one.
    #[error("open the secrets of stack {stack}: {source}")]
    Keys {
        /// The stack.
        stack: String,
        /// Why.
        source: SealError,
    },
    /// A record cannot follow those before it: the file was changed by something else.
    #[error("replay the journal of stack {stack}: record {record} of frame {frame} cannot follow: {source}")]
    Replay {
        /// The stack.
        stack: String,
        /// The frame, from 1.
        frame: usize,
        /// The record in it, from 1.
        record: usize,
        /// Why.
        source: Illegal,
    },
    /// A record is not one that this version knows.
    #[error("replay the journal of stack {stack}: {what} is not understood: {why}")]
    Unknown {
        /// The stack.
        stack: String,
        /// Which record.
        what: String,
        /// Why.
        why: String,
    },
    /// The engine was about to record what cannot be.
    #[error("record what happened: {0}")]
    Illegal(#[from] Illegal),
}

impl StoreError {
    /// Returns what to try.
    pub fn hint(&self) -> &'static str {
        match self {
            StoreError::Journal(error) => error.hint(),
            StoreError::Keys { source, .. } => source.hint(),
            StoreError::Replay { .. } | StoreError::Unknown { .. } => {
                "the state was written by another version of lab or changed by hand; restore the last copy of it"
            }
            StoreError::Illegal(_) => "this is a mistake of lab itself; nothing was written. Please report it",
        }
    }
}

impl Store {
    /// Opens the state of a stack for writing. The caller holds the lock of the lab directory.
    pub fn open(disk: Arc<dyn Disk>, stack: &str, keys: KeySource) -> Result<(Store, Option<Cut>), StoreError> {
        Store::open_early(disk, stack, keys, &mut |_| {})
    }

    /// Opens the state as [`Store::open`] does, and hands out its secrets as soon as the key of their fingerprints is
    /// known: what is sealed among them can be opened once all is read.
    pub(super) fn open_early(
        disk: Arc<dyn Disk>,
        stack: &str,
        keys: KeySource,
        early: &mut dyn FnMut(Vault),
    ) -> Result<(Store, Option<Cut>), StoreError> {
        let mut out = None;
        let (journal, Opened { snapshot, frames, cut }) =
            Journal::open_early(disk, stack, &mut |text| hand_out(text, stack, &keys, early, &mut out))?;
        let state = replay(stack, snapshot, frames)?;
        let vault = complete(out, stack, &state, &keys)?;
        let mut store = Store { journal: Some(journal), state, vault, keys, stack: stack.to_owned(), broken: false };
        // Every run that comes to its end leaves a snapshot. This is for those that never do.
        if store.overgrown() {
            store.compact()?;
        }
        Ok((store, cut))
    }

    fn overgrown(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.frame_bytes() > (4 * journal.base_bytes()).max(OVERGROWN))
    }

    /// Opens the state of a stack for looking: nothing is written, and committing is refused. Hands out its secrets as
    /// [`Store::open_early`] does.
    pub(super) fn reading_early(
        disk: &dyn Disk,
        stack: &str,
        keys: KeySource,
        early: &mut dyn FnMut(Vault),
    ) -> Result<(Store, Option<Cut>), StoreError> {
        let Look { state, vault, cut } = Store::look_early(disk, stack, &keys, early)?;
        Ok((Store { journal: None, state, vault, keys, stack: stack.to_owned(), broken: false }, cut))
    }

    /// Looks at the state of a stack without changing anything.
    pub fn look(disk: &dyn Disk, stack: &str, keys: &KeySource) -> Result<Look, StoreError> {
        Store::look_early(disk, stack, keys, &mut |_| {})
    }

    fn look_early(
        disk: &dyn Disk,
        stack: &str,
        keys: &KeySource,
        early: &mut dyn FnMut(Vault),
    ) -> Result<Look, StoreError> {
        let mut out = None;
        let Opened { snapshot, frames, cut } =
            Journal::read_early(disk, stack, &mut |text| hand_out(text, stack, keys, early, &mut out))?;
        let state = replay(stack, snapshot, frames)?;
        let vault = complete(out, stack, &state, keys)?;
        Ok(Look { state, vault, cut })
    }

    /// Returns the state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Returns the secrets.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// Takes over the key of fingerprints that a saved plan was made with, while there is no state yet.
    pub fn adopt(&mut self, vault: Vault) {
        if self.state.key.is_none() {
            self.vault = vault;
        }
    }

    /// Records what happened, in one frame that is durable when this returns. Secrets that it refers to for the first
    /// time are sealed in the same frame.
    pub fn commit(&mut self, events: &[Event], now: SystemTime) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        let Some(journal) = self.journal.as_mut() else {
            return Err(Illegal("the state was opened for looking only".into()).into());
        };
        if self.broken {
            // The state in memory is ahead of the file; only reading the file again brings them together.
            return Err(JournalError::Poisoned {
                file: self.stack.clone(),
                earlier: "an earlier record could not be written".into(),
            }
            .into());
        }
        let mut records: Vec<u8> = Vec::new();
        let mut sealed: Vec<Event> = Vec::new();
        for event in events {
            let record = snapshot::tree(event)?;
            journal.check_levels(record.depth())?;
            records.push(b',');
            records.extend_from_slice(record.text().as_bytes());
            for fingerprint in secrets_in(&record) {
                if self.state.secrets.contains_key(&fingerprint)
                    || sealed
                        .iter()
                        .any(|event| matches!(event, Event::Sealed { fingerprint: f, .. } if *f == fingerprint))
                {
                    continue;
                }
                let keys = self.keys.for_sealing(now).map_err(|source| keys_error(&self.stack, source))?;
                let value = self.vault.get(&fingerprint).map_err(Illegal)?;
                let sealed_value = keys.seal(&crate::model::canonical(&value));
                sealed.push(Event::Sealed { fingerprint, sealed: sealed_value });
            }
        }
        if !sealed.is_empty() && self.state.key.is_none() {
            let keys = self.keys.for_sealing(now).map_err(|source| keys_error(&self.stack, source))?;
            sealed.insert(0, Event::Keyed { sealed: keys.seal(&self.vault.key()) });
        }
        let mut all = Vec::with_capacity(records.len() + 2);
        for event in &sealed {
            all.push(b',');
            all.extend_from_slice(snapshot::tree(event)?.text().as_bytes());
        }
        all.append(&mut records);
        all[0] = b'[';
        all.push(b']');
        for event in sealed.iter().chain(events) {
            if let Err(error) = self.state.apply(event) {
                self.broken = true;
                return Err(error.into());
            }
        }
        journal.append_text(all).inspect_err(|_| self.broken = true)?;
        Ok(())
    }

    /// Writes a snapshot, when anything was written since the last one. A snapshot proves itself whole: behind it, what
    /// a later truncation took away is missed, which it is not behind a frame.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.settle()
    }

    /// Closes the store at the end of the process: what it holds is not put away piece by piece, which takes longer
    /// than planning with it.
    pub fn leave(mut self) -> Result<(), StoreError> {
        let settled = self.settle();
        std::mem::forget(self);
        settled
    }

    fn settle(&mut self) -> Result<(), StoreError> {
        if !self.broken && self.frames() > 0 {
            self.compact()?;
        }
        Ok(())
    }

    /// Writes a snapshot, dropping what nothing refers to any more.
    pub fn compact(&mut self) -> Result<(), StoreError> {
        self.state.prune();
        let Some(journal) = self.journal.as_mut() else { return Ok(()) };
        // Record by record: as one tree, a large state would need many times its size.
        let records = std::mem::take(&mut self.state.records);
        let text = snapshot::write(journal, &self.state, &records);
        self.state.records = records;
        Ok(journal.compact_text(text?)?)
    }

    /// Seals anew for the key that seals now whatever is sealed for another, all of it in one snapshot that takes the
    /// place of the file, and returns how much that was. The values and their fingerprints stay as they are.
    pub fn seal_anew(&mut self) -> Result<usize, StoreError> {
        let failed = |source| keys_error(&self.stack, source);
        let keys = self.keys.for_opening().map_err(failed)?;
        // Before anything is pruned: what nothing refers to any more may still lie in a frame.
        let mut count = 0;
        for sealed in self.state.key.iter_mut().chain(self.state.secrets.values_mut()) {
            if !keys.is_current(sealed) {
                *sealed = keys.seal(&keys.open(sealed).map_err(failed)?);
                count += 1;
            }
        }
        if count > 0 {
            self.compact()?;
        }
        Ok(count)
    }

    /// Returns how often the disk was asked to make something durable since the state was opened.
    pub fn flushes(&self) -> u64 {
        self.journal.as_ref().map_or(0, Journal::flushes)
    }

    /// Returns how many frames were written since the last snapshot.
    pub fn frames(&self) -> u64 {
        self.journal.as_ref().map_or(0, Journal::frames)
    }
}

fn keys_error(stack: &str, source: SealError) -> StoreError {
    StoreError::Keys { stack: stack.to_owned(), source }
}

impl KeySource {
    /// Returns the keys for opening what was sealed.
    pub fn for_opening(&self) -> Result<Keys, SealError> {
        match self {
            KeySource::Given(keys) => Ok(keys.clone()),
            KeySource::File { file, .. } => file.load(),
        }
    }

    /// Returns the keys for sealing, making them when there are none yet.
    pub fn for_sealing(&self, now: SystemTime) -> Result<Keys, SealError> {
        match self {
            KeySource::Given(keys) => Ok(keys.clone()),
            KeySource::File { file, lab } => file.load_or_create(lab, now),
        }
    }
}

fn replay(stack: &str, snapshot: Option<State>, frames: Vec<Vec<Value>>) -> Result<State, StoreError> {
    let unknown = |what: String, error: serde_json::Error| StoreError::Unknown {
        stack: stack.to_owned(),
        what,
        why: error.to_string(),
    };
    let mut state = snapshot.unwrap_or_default();
    for (frame, records) in frames.into_iter().enumerate() {
        for (record, value) in records.into_iter().enumerate() {
            let what = || format!("record {} of frame {}", record + 1, frame + 1);
            let event: Event = serde_json::from_value(value).map_err(|error| unknown(what(), error))?;
            state.apply(&event).map_err(|source| StoreError::Replay {
                stack: stack.to_owned(),
                frame: frame + 1,
                record: record + 1,
                source,
            })?;
        }
    }
    Ok(state)
}

/// The secrets of a state that were handed out before all of it was read.
struct HandedOut {
    /// The key of fingerprints as the beginning of the text has it.
    sealed: Option<String>,
    vault: Vault,
    keys: Option<Keys>,
}

/// Hands out the secrets of a snapshot once its key of fingerprints is found in what is there of its text. What is wrong
/// with that is said by whoever reads all of it.
fn hand_out(
    text: &[u8],
    stack: &str,
    keys: &KeySource,
    early: &mut dyn FnMut(Vault),
    out: &mut Option<HandedOut>,
) -> bool {
    let Some(sealed) = snapshot::key(text) else { return false };
    if let Ok((vault, keys)) = keyed(sealed.as_deref(), stack, keys) {
        early(vault.clone());
        *out = Some(HandedOut { sealed, vault, keys });
    }
    true
}

/// Returns the secrets of a state: those that were handed out already, where they were. Each is opened when it is asked
/// for.
fn complete(out: Option<HandedOut>, stack: &str, state: &State, keys: &KeySource) -> Result<Vault, StoreError> {
    let (vault, keys) = match out {
        Some(HandedOut { sealed, vault, keys }) if sealed == state.key => (vault, keys),
        Some(_) => {
            let why = "its key is not where it was written".to_owned();
            return Err(StoreError::Unknown { stack: stack.to_owned(), what: "the snapshot".into(), why });
        }
        None => keyed(state.key.as_deref(), stack, keys)?,
    };
    if let Some(keys) = keys {
        vault.unseal_with(state.secrets.clone(), move |sealed| {
            let plain = keys.open(sealed).map_err(|error| error.to_string())?;
            serde_json::from_slice(&plain).map_err(|_| "a sealed secret is not what was sealed".into())
        });
    }
    Ok(vault)
}

/// Returns a vault with the key of fingerprints that is sealed in a state, and what opened it; a vault with a new key
/// where none is sealed.
fn keyed(sealed: Option<&str>, stack: &str, keys: &KeySource) -> Result<(Vault, Option<Keys>), StoreError> {
    let Some(sealed) = sealed else { return Ok((Vault::new(random_key()), None)) };
    let fail = |source| keys_error(stack, source);
    let keys = keys.for_opening().map_err(fail)?;
    let key = keys.open(sealed).map_err(fail)?;
    let key = key
        .try_into()
        .map_err(|_| fail(SealError::Damaged { what: "the fingerprint key has another length".into() }))?;
    Ok((Vault::new(key), Some(keys)))
}

fn random_key() -> [u8; 32] {
    let mut key = [0; 32];
    rand::RngCore::fill_bytes(&mut rand::rngs::OsRng, &mut key);
    key
}
