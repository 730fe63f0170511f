//! A state that is opened while the program is loaded: to read a large one takes as long as to declare what is in it.

use super::disk::Disk;
use super::journal::Cut;
use super::store::{KeySource, Store, StoreError};
use crate::model::Vault;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};

/// A state that a thread of its own reads. To drop it waits for that thread: whatever is held for the time of reading,
/// such as the lock of the directory, may be let go of afterwards.
pub struct Opening {
    vault: Receiver<Vault>,
    /// None once it was waited for.
    thread: Option<JoinHandle<Read>>,
}

type Read = Result<(Store, Option<Cut>), StoreError>;

impl Opening {
    /// Begins what [`Store::open`] does. The caller holds the lock of the lab directory until it is finished.
    pub fn to_write(disk: Arc<dyn Disk>, stack: &str, keys: KeySource) -> Opening {
        let stack = stack.to_owned();
        Opening::begin(move |early| Store::open_early(disk, &stack, keys, early))
    }

    /// Begins to open a state for looking: nothing is written, and committing is refused.
    pub fn to_look(disk: Arc<dyn Disk>, stack: &str, keys: KeySource) -> Opening {
        let stack = stack.to_owned();
        Opening::begin(move |early| Store::reading_early(&*disk, &stack, keys, early))
    }

    fn begin(read: impl FnOnce(&mut dyn FnMut(Vault)) -> Read + Send + 'static) -> Opening {
        let (sender, vault) = channel();
        let thread = thread::spawn(move || {
            // It cannot be sent to who has one already, and finishes.
            let mut tell = |vault| drop(sender.send(vault));
            let read = read(&mut tell)?;
            tell(read.0.vault().clone());
            Ok(read)
        });
        Opening { vault, thread: Some(thread) }
    }

    /// Returns the secrets of the state, as soon as new ones can be put to them; those that are sealed in it can be
    /// opened once it is finished.
    pub fn vault(self) -> Result<(Vault, Opening), StoreError> {
        match self.vault.recv() {
            Ok(vault) => Ok((vault, self)),
            Err(_) => match self.finish() {
                Err(error) => Err(error),
                Ok(_) => unreachable!("what could be opened has handed out its secrets"),
            },
        }
    }

    /// Returns the state, and what was found torn at the end of it.
    pub fn finish(mut self) -> Result<(Store, Option<Cut>), StoreError> {
        let thread = self.thread.take().expect("it is waited for once");
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        // Nobody asks any more what became of it.
        self.thread.take().map(JoinHandle::join);
    }
}
