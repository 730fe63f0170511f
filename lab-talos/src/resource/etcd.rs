//! What the members of etcd are, and whether all is well with them.

use crate::client;
use crate::proto::machine::EtcdMember;
use crate::provider::{Access, Client, Look, Talos};
use lab_core::{Input, Made, Query, Result, Secret, Step};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Holds while every control plane is a member of etcd and all of them agree on who is.
///
/// A gate for changing control planes one at a time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EtcdHealthy {
    /// The addresses of all control planes.
    pub nodes: Vec<IpAddr>,
    /// The secrets of the cluster.
    pub secrets: Input<Secret<String>>,
}

impl Query<Talos> for EtcdHealthy {
    const TYPE: &'static str = "talos:etcd-healthy";
    type Answer = Vec<String>;

    async fn read(&self, client: &Client) -> Result<Step<Vec<String>>> {
        let access = client.access(self.secrets.get())?;
        let wait = |why: String| Ok(Step::next(serde_json::Value::Null, why, Duration::from_secs(5)));
        let mut agreed: Option<BTreeSet<String>> = None;
        for node in &self.nodes {
            let members = match etcd_of(client, *node, &access).await {
                Ok(Etcd::Members(members)) => members,
                Ok(Etcd::None(why)) => return wait(format!("{node} is not a member of etcd: {why}")),
                Err(error) => return wait(error.message),
            };
            if let Some(learner) = members.iter().find(|member| member.is_learner) {
                return wait(format!("{} is still learning what the other members of etcd know", name(learner)));
            }
            if let Some(other) = self.nodes.iter().find(|other| !members.iter().any(|member| is(member, **other))) {
                return wait(format!("etcd of {node} does not count {other} among its members"));
            }
            let names: BTreeSet<String> = members.iter().map(name).collect();
            if names.len() != self.nodes.len() {
                return wait(format!("etcd of {node} has {} members, not {}", names.len(), self.nodes.len()));
            }
            if agreed.get_or_insert_with(|| names.clone()) != &names {
                return wait(format!("etcd of {node} has other members than that of {}", self.nodes[0]));
            }
        }
        Ok(Step::Done(Made::new("etcd", agreed.unwrap_or_default().into_iter().collect())))
    }
}

/// What a control plane knows about etcd.
pub(super) enum Etcd {
    /// These are the members.
    Members(Vec<EtcdMember>),
    /// It runs no etcd; the text says what its service does instead.
    None(String),
}

/// Asks one control plane for the members of etcd.
///
/// The service is asked first: a machine without etcd does not answer the other question, which looks the same as one
/// that is slow.
///
/// # Errors
///
/// When it cannot be asked, also because it is still in maintenance mode.
pub(super) async fn etcd_of(client: &Client, node: IpAddr, access: &Access) -> Result<Etcd> {
    match client.look(node, access).await? {
        Look::Ours(machine) => known(&machine).await.map_err(crate::provider::refused),
        Look::Maintenance(_) => Ok(Etcd::None("it waits for a configuration".into())),
        Look::Silent(error) => Err(error),
    }
}

async fn known(machine: &client::Machine) -> std::result::Result<Etcd, client::Error> {
    let services = machine.service_list().await?;
    match services.iter().find(|service| service.id == "etcd") {
        Some(etcd) if etcd.state == "Running" => machine.etcd_member_list(false).await.map(Etcd::Members),
        Some(etcd) => Ok(Etcd::None(format!("its service etcd is {}", etcd.state.to_lowercase()))),
        None => Ok(Etcd::None("it has no service etcd".into())),
    }
}

/// Returns the members of etcd as a machine knows them; none when it runs no etcd.
pub(super) async fn members(machine: &client::Machine) -> std::result::Result<Vec<EtcdMember>, client::Error> {
    Ok(match known(machine).await? {
        Etcd::Members(members) => members,
        Etcd::None(_) => Vec::new(),
    })
}

/// Tells whether a member is the machine at `address`.
pub(super) fn is(member: &EtcdMember, address: IpAddr) -> bool {
    member.peer_urls.iter().any(|url| {
        let authority = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest).trim_end_matches('/');
        authority.parse::<SocketAddr>().is_ok_and(|peer| peer.ip() == address)
    })
}

/// Returns what a member is called, which is nothing before it started for the first time.
fn name(member: &EtcdMember) -> String {
    if member.hostname.is_empty() { format!("{:016x}", member.id) } else { member.hostname.clone() }
}
