//! The birth of a cluster: etcd is started on one machine, once.

use super::etcd::{self, Etcd, etcd_of};
use super::{inputs, seconds};
use crate::client;
use crate::provider::{Access, Client, Look, Talos, failed};
use lab_core::{Change, Claim, Error, Found, Input, Made, Op, Owner, Resource, Result, Secret, Step};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::net::IpAddr;
use std::time::Duration;

/// How long etcd may take to show up after it was told to start, in seconds; then the same machine is told again.
const PATIENCE: u64 = 180;

/// Starts etcd on the first control plane; the others join it by themselves.
///
/// Done on two machines it makes two clusters, so it happens at most once: before the first call the machine is
/// written down, and only that machine is ever asked or told again, even when the list has another order by then. A
/// cluster that any of its control planes runs etcd for is bootstrapped already, and nothing is called.
///
/// It lives inside the machines, and is forgotten instead of deleted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bootstrap {
    /// The addresses of all control planes, once they are configured. The first one begins.
    pub nodes: Vec<Input<IpAddr>>,
    /// The secrets of the cluster.
    pub secrets: Input<Secret<String>>,
    /// Tells the cluster from others: [`super::BundleOutputs::fingerprint`].
    pub cluster: Input<String>,
    /// The URL of the Kubernetes API.
    pub endpoint: String,
    /// The address that the control planes share, if they do.
    pub vip: Option<IpAddr>,
}

/// What a [`Bootstrap`] yields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootstrapped {
    /// Tells the cluster from others.
    pub cluster: String,
    /// The URL of the Kubernetes API.
    pub endpoint: String,
}

/// The cursor: which machine it is, and when it was told, in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pinned {
    node: IpAddr,
    told: Option<u64>,
}

impl Pinned {
    fn read(cursor: Option<&Value>) -> Result<Option<Pinned>> {
        match cursor {
            None | Some(Value::Null) => Ok(None),
            Some(cursor) => serde_json::from_value(cursor.clone())
                .map(Some)
                .map_err(|error| Error::invalid(format!("its cursor {cursor} names no machine: {error}"))),
        }
    }

    fn next<O>(&self, why: String, seconds: u64) -> Step<O> {
        let cursor = serde_json::to_value(self).expect("a cursor is plain data");
        Step::next(cursor, why, Duration::from_secs(seconds))
    }
}

impl Bootstrap {
    fn made(&self) -> Made<Bootstrapped> {
        let cluster = self.cluster.get().clone();
        Made::new(cluster.clone(), Bootstrapped { cluster, endpoint: self.endpoint.clone() })
    }

    /// Tells whether any control plane runs etcd. All have to be asked before the answer can be no.
    async fn is_done(&self, client: &Client, access: &Access) -> Result<bool> {
        let mut silent = None;
        for node in &self.nodes {
            match etcd_of(client, *node.get(), access).await {
                Ok(Etcd::Members(members)) if !members.is_empty() => return Ok(true),
                Ok(Etcd::Members(_) | Etcd::None(_)) => {}
                Err(error) => silent = Some(error),
            }
        }
        match silent {
            Some(error) => Err(error),
            None => Ok(false),
        }
    }
}

/// Tells whether the machine is a member of etcd by its own account.
async fn is_member(client: &Client, node: IpAddr, access: &Access) -> Result<bool> {
    match etcd_of(client, node, access).await? {
        Etcd::Members(members) => Ok(members.iter().any(|member| etcd::is(member, node))),
        Etcd::None(_) => Ok(false),
    }
}

impl Resource<Talos> for Bootstrap {
    const TYPE: &'static str = "talos:bootstrap";
    const ONCE: bool = true;
    type Outputs = Bootstrapped;

    fn claims(&self) -> Vec<Claim> {
        self.vip.map(Claim::address).into_iter().collect()
    }

    fn change(&self, _: &Bootstrap, _: Option<&Value>) -> Change {
        Change::None
    }

    async fn find(client: &Client, op: &Op<Bootstrap>) -> Result<Found<Bootstrapped>> {
        let inputs = inputs(op)?;
        let pinned = Pinned::read(op.cursor.as_ref())?;
        if pinned.is_none() && op.id.is_none() {
            // Without a pinned machine nothing was called. Whether somebody else did it is asked before the pin.
            return Ok(Found::Absent);
        }
        let access = client.access(inputs.secrets.get())?;
        let there = match pinned {
            Some(pinned) => is_member(client, pinned.node, &access).await?,
            None => inputs.is_done(client, &access).await?,
        };
        Ok(if there { Found::Present(Owner::Unmarkable, Step::Done(inputs.made())) } else { Found::Absent })
    }

    async fn apply(&self, client: &Client, op: &Op<Bootstrap>) -> Result<Step<Bootstrapped>> {
        let access = client.access(self.secrets.get())?;
        let Some(pinned) = Pinned::read(op.cursor.as_ref())? else {
            if self.is_done(client, &access).await? {
                return Ok(Step::Done(self.made()));
            }
            let first = self.nodes.first().ok_or_else(|| Error::invalid("a cluster needs a control plane"))?;
            let pinned = Pinned { node: *first.get(), told: None };
            return Ok(pinned.next(format!("etcd begins on {}", pinned.node), 0));
        };
        if is_member(client, pinned.node, &access).await? {
            return Ok(Step::Done(self.made()));
        }
        let now = seconds(op.now);
        let waits = format!("etcd starts on {}", pinned.node);
        if pinned.told.is_some_and(|told| now < told + PATIENCE) {
            return Ok(pinned.next(waits, 3));
        }
        let machine = match client.look(pinned.node, &access).await? {
            Look::Ours(machine) => machine,
            Look::Maintenance(_) => {
                return Err(Error::again(format!("{} is in maintenance mode and cannot begin etcd", pinned.node)));
            }
            Look::Silent(error) => return Err(error),
        };
        let told = Pinned { told: Some(now), ..pinned };
        match machine.bootstrap().await {
            // It has data already, so an earlier call came through: what counts is that it shows up.
            Ok(()) | Err(client::Error::AlreadyExists(_)) => Ok(told.next(waits, 3)),
            Err(error @ (client::Error::Unimplemented(_) | client::Error::Maintenance(_))) => {
                Err(Error::again(format!("{} cannot begin etcd yet: {error}", told.node)))
            }
            Err(error) => Err(failed(&format!("beginning etcd on {}", told.node), error)),
        }
    }

    async fn delete(_: &Client, _: &Op<Bootstrap>) -> Result<Step<()>> {
        // It goes with the machines.
        Ok(Step::gone())
    }
}
