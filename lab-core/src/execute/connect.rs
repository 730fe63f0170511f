//! The connections of a run: made when first needed, and shared.

use super::ledger::Ledger;
use crate::model::{AnyClient, Declared, Error, Event, Link, ProviderRecord, Result, connection, panic_text};
use crate::plan::{known, realm};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// The connections of a run, by what they lead to.
pub(super) struct Connections {
    declared: Arc<Declared>,
    ledger: Ledger,
    link: Link,
    open: Mutex<BTreeMap<String, Slot>>,
}

type Slot = Arc<Mutex<Option<AnyClient>>>;

/// A connection, and what has to be recorded about how it was reached.
pub(super) struct Connected {
    pub(super) client: AnyClient,
    pub(super) reached: Option<Event>,
}

impl Connections {
    pub(super) fn new(declared: Arc<Declared>, ledger: Ledger, link: Link) -> Connections {
        Connections { declared, ledger, link, open: Mutex::new(BTreeMap::new()) }
    }

    /// Connects to what provider `name` points at in `place`. The declared configuration is used while it points
    /// there; otherwise the one that was recorded for that place.
    pub(super) async fn to(&self, name: &str, place: &str) -> Result<Connected> {
        let key = connection(name, place);
        let slot = self.open.lock().await.entry(key.clone()).or_default().clone();
        let mut slot = slot.lock().await;
        let record = self.configuration(name, place, &key)?;
        let reached = self
            .ledger
            .with(|store| store.state().providers.get(&key) != Some(&record))
            .then(|| Event::Reached { provider: key.clone(), record: record.clone() });
        if let Some(client) = slot.as_ref() {
            return Ok(Connected { client: client.clone(), reached });
        }
        let kind = self.declared.vocabulary.provider(&record.kind).ok_or_else(|| {
            Error::invalid(format!(
                "this program does not know providers of the kind {}; name it with `.knows::<…>()`",
                record.kind
            ))
        })?;
        let (kind, declared, link) = (kind.clone(), self.declared.clone(), self.link.clone());
        // Beside this task, so that a provider that panics fails its own resources and nothing else.
        let mut connecting = JoinSet::new();
        connecting.spawn(async move { kind.connect(&record.config, &declared.vault, link).await });
        let client = match connecting.join_next().await {
            Some(Ok(connected)) => connected?,
            Some(Err(error)) if error.is_panic() => {
                let said = panic_text(&*error.into_panic());
                return Err(Error::invalid(format!("the provider panicked while it connected: {said}")));
            }
            Some(Err(_)) | None => return Err(Error::unreachable("connecting was cancelled")),
        };
        *slot = Some(client.clone());
        Ok(Connected { client, reached })
    }

    /// Returns the connection, where there is one already and nobody has to be waited for.
    pub(super) fn at_hand(&self, name: &str, place: &str) -> Option<AnyClient> {
        self.open.try_lock().ok()?.get(&connection(name, place))?.try_lock().ok()?.clone()
    }

    fn configuration(&self, name: &str, place: &str, key: &str) -> Result<ProviderRecord> {
        let values = self.ledger.values();
        if let Some(node) = self.declared.providers.get(name) {
            let there = realm(name, &self.declared, &values).is_ok_and(|realm| realm == place);
            if there && let Ok(config) = known(&node.config, &self.declared, &values) {
                return Ok(ProviderRecord { kind: node.kind.name().to_owned(), config });
            }
        }
        self.ledger.with(|store| store.state().providers.get(key).cloned()).ok_or_else(|| {
            Error::invalid(format!(
                "nothing says how provider {name} is reached: its configuration needs what is not there"
            ))
        })
    }
}
