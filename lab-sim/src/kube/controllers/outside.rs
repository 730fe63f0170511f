//! A real API server, as controllers see it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Cluster, LISTS};
use crate::kube::front::Front;

/// How long a watch that ended, or a kind that is not served yet, is left alone, in wall time.
const AGAIN: Duration = Duration::from_millis(500);

/// A real API server, held so that controllers do not keep it alive. Every collection is watched, and read only when
/// something in it has changed.
#[derive(Clone)]
pub(crate) struct Outside {
    front: Weak<Front>,
    versions: Arc<Mutex<BTreeMap<&'static str, u64>>>,
    changes: watch::Receiver<u64>,
    _watches: Arc<JoinSet<()>>,
}

impl Outside {
    /// Begins to watch. Must be called in a tokio runtime.
    pub(crate) fn new(front: &Arc<Front>) -> Outside {
        let (sender, changes) = watch::channel(0);
        // A kind that is not served has no objects.
        let versions = Arc::new(Mutex::new(LISTS.iter().map(|path| (*path, 0)).collect::<BTreeMap<_, _>>()));
        let mut watches = JoinSet::new();
        for path in LISTS {
            let (front, versions, sender) = (Arc::downgrade(front), versions.clone(), sender.clone());
            watches.spawn(async move {
                let changed = || {
                    *versions.lock().unwrap_or_else(PoisonError::into_inner).entry(path).or_default() += 1;
                    sender.send_modify(|count| *count += 1);
                };
                loop {
                    let Some(alive) = front.upgrade() else { return };
                    let answer = alive.watch(path).await;
                    drop(alive);
                    if let Some(answer) = answer.filter(|answer| answer.status() == 200) {
                        // An object may have gone while nobody watched.
                        changed();
                        let mut body = answer.into_body();
                        while let Some(Ok(frame)) = body.frame().await {
                            if frame.is_data() {
                                changed();
                            }
                        }
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            });
        }
        Outside { front: Arc::downgrade(front), versions, changes, _watches: Arc::new(watches) }
    }
}

impl Cluster for Outside {
    async fn request(
        &self,
        method: &str,
        target: &str,
        content_type: &str,
        agent: &str,
        body: &Value,
    ) -> Option<(u16, Value)> {
        self.front.upgrade()?.request(method, target, content_type, agent, body).await
    }

    fn version(&self, path: &str) -> Option<u64> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner).get(path).copied()
    }

    async fn changed(&mut self) -> bool {
        self.changes.changed().await.is_ok() && self.front.strong_count() > 0
    }
}
