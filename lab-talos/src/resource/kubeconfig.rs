//! The way into a cluster's Kubernetes API, as a resource that renews itself.

use crate::kubeconfig as parsed;
use crate::provider::{Access, Client, Look, Talos, refused};
use lab_core::{Change, Error, Found, Impact, Input, Made, Op, Path, Resource, Result, Secret, Step};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

mod ready;

/// An administrator's kubeconfig, issued by a control plane once the Kubernetes API answers.
///
/// A control plane issues another certificate each time it is asked, and keeps no account of them: there is nothing to
/// find, nothing to delete, and two of them are never compared. It is renewed 30 days before it expires, or after two
/// thirds of a shorter life.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kubeconfig {
    /// The addresses of the control planes; the first that answers is asked.
    pub nodes: Vec<IpAddr>,
    /// The secrets of the cluster.
    pub secrets: Input<Secret<String>>,
    /// Which cluster, known once it is bootstrapped: [`super::Bootstrapped::cluster`].
    pub cluster: Input<String>,
}

/// What a [`Kubeconfig`] yields.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KubeconfigOutputs {
    /// The kubeconfig, as YAML.
    pub kubeconfig: Secret<String>,
    /// The URL of the Kubernetes API.
    pub server: String,
}

impl Kubeconfig {
    /// Asks one control plane after the other.
    async fn issue(&self, client: &Client, access: &Access) -> Result<(String, parsed::Kubeconfig)> {
        let mut last = Error::invalid("a cluster needs a control plane");
        for node in &self.nodes {
            let machine = match client.look(*node, access).await? {
                Look::Ours(machine) => machine,
                Look::Maintenance(_) => {
                    last = Error::again(format!("{node} waits for a configuration"));
                    continue;
                }
                Look::Silent(error) => {
                    last = error;
                    continue;
                }
            };
            match machine.kubeconfig().await {
                Ok(text) => {
                    let read = parsed::Kubeconfig::parse(&text)
                        .map_err(|error| Error::again(format!("the kubeconfig of {node}: {error}")))?;
                    return Ok((text, read));
                }
                Err(error) => last = refused(error),
            }
        }
        Err(last)
    }
}

fn made(text: String, read: &parsed::Kubeconfig, id: &str, now: SystemTime) -> Made<KubeconfigOutputs> {
    let outputs = KubeconfigOutputs { kubeconfig: Secret::new(text), server: read.server.clone() };
    Made { due: Some(due(now, read.expiry)), ..Made::new(id, outputs) }
}

/// Returns when a certificate is to be renewed.
fn due(now: SystemTime, expiry: SystemTime) -> SystemTime {
    let left = expiry.duration_since(now).unwrap_or_default();
    now + left - (left / 3).min(Duration::from_secs(30 * 86_400))
}

impl Resource<Talos> for Kubeconfig {
    const TYPE: &'static str = "talos:kubeconfig";
    // Asking a control plane would yield another one, which says nothing about the one that was issued.
    const GENERATED: bool = true;
    type Outputs = KubeconfigOutputs;

    fn change(&self, prior: &Kubeconfig, _: Option<&Value>) -> Change {
        let same = match (self.cluster.known(), prior.cluster.known(), self.secrets.known(), prior.secrets.known()) {
            (Some(new), Some(old), Some(now), Some(then)) => new == old && now == then,
            _ => false,
        };
        // Which control plane is asked makes no difference to the answer.
        if same {
            return Change::None;
        }
        Change::Update(Impact { unknown: vec![Path::root()], ..Impact::default() })
    }

    async fn find(_: &Client, _: &Op<Kubeconfig>) -> Result<Found<KubeconfigOutputs>> {
        Ok(Found::Absent)
    }

    async fn apply(&self, client: &Client, op: &Op<Kubeconfig>) -> Result<Step<KubeconfigOutputs>> {
        let access = client.access(self.secrets.get())?;
        let (text, read) = self.issue(client, &access).await?;
        if let Err(why) = ready::ready(client.link(), &read).await {
            let why = format!("the Kubernetes API at {} is not ready: {why}", read.server);
            return Ok(Step::next(Value::Null, why, Duration::from_secs(5)));
        }
        Ok(Step::Done(made(text, &read, self.cluster.get(), op.now)))
    }

    async fn delete(_: &Client, _: &Op<Kubeconfig>) -> Result<Step<()>> {
        Ok(Step::gone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_in_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_760_000_000);
        let days = |days: u64| Duration::from_secs(days * 86_400);
        let check = |life: u64, expected: u64| assert_eq!(due(now, now + days(life)), now + days(expected));
        check(365, 335);
        check(30, 20);
        check(3, 2);
        assert_eq!(due(now, now - days(1)), now);
    }
}
