//! Objects that somebody else makes, waited for.

use crate::client::Client;
use crate::key::Key;
use crate::outputs::ObjectOutputs;
use crate::provider::Kubernetes;
use crate::readiness::Readiness;
use crate::resource::readiness;
use lab_core::{Made, Query, Result, Step};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_secs(5);

/// Asks for an object that somebody else makes, and waits until it is there and ready.
///
/// Nothing of it is managed: it is neither changed nor deleted, and whose it is does not matter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Existing {
    /// What it is called.
    pub key: Key,
}

impl Existing {
    /// Returns the question for an object in a namespace: `Existing::new("apps/v1", "Deployment", "kube-system", "coredns")`.
    pub fn new(api_version: &str, kind: &str, namespace: &str, name: &str) -> Existing {
        let (api_version, kind) = (api_version.to_owned(), kind.to_owned());
        Existing { key: Key { api_version, kind, namespace: Some(namespace.to_owned()), name: name.to_owned() } }
    }
}

impl Query<Kubernetes> for Existing {
    const TYPE: &'static str = "kubernetes:existing";
    type Answer = ObjectOutputs;

    async fn read(&self, client: &Client) -> Result<Step<ObjectOutputs>> {
        let waits = |why: String| Ok(Step::next(Value::Null, why, PAUSE));
        let Some(kind) = client.kind(&self.key).await? else {
            return waits(format!("the cluster does not know the kind of {} yet", self.key));
        };
        let Some(there) = client.get(&kind, &self.key).await? else {
            return waits(format!("there is no {} yet", self.key));
        };
        match readiness(client, &there, true).await? {
            Readiness::Ready => Ok(Step::Done(Made::new(self.key.identity().to_string(), ObjectOutputs::of(&there)))),
            Readiness::Waiting { reason } | Readiness::Failed { reason } | Readiness::Terminating { reason } => {
                waits(format!("{} is not ready: {reason}", self.key))
            }
        }
    }
}
