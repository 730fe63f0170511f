//! What runs inside a machine: a system that boots from its disk and obeys the cloud-init it is given.

mod life;

use super::datacenter::Datacenter;
use serde_json::{Value, json};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::AbortHandle;

/// A guest that is switched on. Clones are handles of the same one.
#[derive(Clone)]
pub(super) struct Guest {
    inner: Arc<Inner>,
}

struct Inner {
    facts: Mutex<Facts>,
    life: Mutex<Option<AbortHandle>>,
}

/// What is true of a guest now.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// The system is up, and obeys the power button.
    pub(super) up: bool,
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").field("facts", &*self.facts()).finish_non_exhaustive()
    }
}

impl Guest {
    /// Begins the life of a machine that was switched on.
    pub(super) fn boot(datacenter: &Arc<Datacenter>, id: u32) -> Guest {
        let guest = Guest { inner: Arc::new(Inner { facts: Mutex::default(), life: Mutex::default() }) };
        guest.live(datacenter, id);
        guest
    }

    fn live(&self, datacenter: &Arc<Datacenter>, id: u32) {
        self.end();
        *self.facts() = Facts::default();
        let life = tokio::spawn(life::live(datacenter.clone(), id, self.clone()));
        *self.inner.life.lock().unwrap_or_else(PoisonError::into_inner) = Some(life.abort_handle());
    }

    /// Begins anew, as after the reset button.
    pub(super) fn reset(&self, datacenter: &Arc<Datacenter>, id: u32) {
        self.live(datacenter, id);
    }

    /// Ends it at once.
    pub(super) fn end(&self) {
        if let Some(life) = self.inner.life.lock().unwrap_or_else(PoisonError::into_inner).take() {
            life.abort();
        }
    }

    pub(super) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.inner.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what two worlds are compared by.
    pub(super) fn world(&self) -> Value {
        let facts = self.facts();
        json!({"up": facts.up})
    }
}
