//! The store as the steps of a run share it: what they commit at the same time is one flush.

use super::store::{Store, StoreError};
use crate::model::{Clock, Event, Lookup, Mark, Status, Tree, Unresolved, Urn};
use crate::plan::{Held, Values};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// The store of a run, shared by its steps.
#[derive(Clone)]
pub struct Ledger(Arc<Shared>);

struct Shared {
    store: Mutex<Store>,
    queue: Mutex<Vec<Waiting>>,
    clock: Clock,
}

struct Waiting {
    events: Vec<Event>,
    reply: oneshot::Sender<Result<(), String>>,
}

impl Ledger {
    /// Returns a ledger over `store`.
    pub fn new(store: Store, clock: Clock) -> Ledger {
        Ledger(Arc::new(Shared { store: Mutex::new(store), queue: Mutex::new(Vec::new()), clock }))
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.0.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the store.
    pub fn with<T>(&self, look: impl FnOnce(&Store) -> T) -> T {
        look(&self.store())
    }

    /// Records what happened; durable when this returns. What other steps record at the same moment shares the frame
    /// and its flush.
    pub async fn commit(&self, events: Vec<Event>) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        self.queue().push(Waiting { events, reply });
        // Whoever comes first writes for everybody who has queued up meanwhile.
        tokio::task::yield_now().await;
        self.write();
        answer.await.unwrap_or_else(|_| Err("the record was not written".into()))
    }

    fn write(&self) {
        let mut store = self.store();
        let mut waiting = std::mem::take(&mut *self.queue());
        if waiting.is_empty() {
            return;
        }
        let all: Vec<Event> = waiting.iter_mut().flat_map(|waiting| std::mem::take(&mut waiting.events)).collect();
        let written = store.commit(&all, self.0.clock.now()).map_err(|error| error.to_string());
        for waiting in waiting {
            // A step that was abandoned meanwhile does not hear the answer; its record stands all the same.
            waiting.reply.send(written.clone()).unwrap_or_default();
        }
    }

    /// Returns how many frames were written since the state was opened, each with one flush.
    pub fn flushes(&self) -> u64 {
        self.with(Store::flushes)
    }

    /// Returns the store, when nobody shares the ledger any more.
    pub fn into_store(self) -> Option<Store> {
        Arc::into_inner(self.0).map(|shared| shared.store.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Closes the store: writes a snapshot when anything was written.
    pub fn close(self) -> Result<(), StoreError> {
        self.into_store().map_or(Ok(()), Store::close)
    }

    /// Closes the store at the end of the process: see [`Store::leave`].
    pub fn leave(self) -> Result<(), StoreError> {
        self.into_store().map_or(Ok(()), Store::leave)
    }

    /// Returns what is known by now.
    pub fn values(&self) -> Recorded {
        Recorded(self.clone())
    }
}

/// What is known by now: what the state records.
pub struct Recorded(Ledger);

impl Lookup for Recorded {
    fn outputs(&self, urn: &Urn) -> Result<Tree, Unresolved> {
        let store = self.0.store();
        let state = store.state();
        if let Some(answer) = state.answers.get(urn) {
            return Ok(answer.into());
        }
        match state.records.get(urn) {
            Some(record) if matches!(record.status, Status::Ready | Status::Made) => Ok(record.outputs.clone()),
            Some(_) | None => Err(Unresolved::Unknown(urn.clone())),
        }
    }
}

impl Values for Recorded {
    fn mark(&self, urn: &Urn) -> Option<Mark> {
        let store = self.0.store();
        let record = store.state().records.get(urn)?;
        matches!(record.status, Status::Ready | Status::Made).then(|| record.mark.clone())
    }

    fn held(&self, urn: &Urn) -> Vec<Held> {
        let store = self.0.store();
        let others = store.state().occupied().filter(|(other, ..)| *other != urn);
        others
            .map(|(urn, record, claim)| Held {
                urn: urn.clone(),
                place: record.spec.place.clone(),
                claim: claim.clone(),
            })
            .collect()
    }
}
