//! What a guest is told at its first boot, as an ISO image on a storage.

use super::image::{delete, place};
use crate::client::Client;
use crate::follow::{self, At};
use crate::iso;
use crate::provider::Proxmox;
use crate::request::{self, File};
use crate::scalar::{field, list, number};
use lab_core::{
    Change, Error, Found, Impact, Input, Lock, Made, Op, Order, Owner, Path, Resource, Result, Secret, Step,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// What cloud-init in a guest reads at its first boot (its data source `NoCloud`), as an ISO image that is built here
/// and uploaded: no snippet on a node, no SSH.
///
/// The mark is part of the file's name, so ours are told from others, and another content is always another file: it is
/// there before the machine is told of it, and the old one goes afterwards.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CloudInit {
    /// The node whose storage it goes to. On a storage that nodes share, any of them.
    pub node: String,
    /// The storage; it must allow ISO images.
    pub storage: String,
    /// The host name of the guest. The file is called after it.
    pub host: String,
    /// Which instance this is. A guest that sees another one does everything anew that is done once.
    pub instance: String,
    /// The user data: `#cloud-config` and so on.
    pub user_data: Input<Secret<String>>,
    /// The network configuration, version 2; none: the guest uses DHCP.
    pub network: Option<String>,
}

/// What a [`CloudInit`] yields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudInitOutputs {
    /// The volume for [`super::Vm::iso`].
    pub volume: String,
}

impl CloudInit {
    /// Returns what the guest `host` is told.
    pub fn new(
        node: impl Into<String>,
        storage: impl Into<String>,
        host: impl Into<String>,
        user_data: impl Into<Input<Secret<String>>>,
    ) -> CloudInit {
        let host = host.into();
        CloudInit {
            node: node.into(),
            storage: storage.into(),
            instance: host.clone(),
            host,
            user_data: user_data.into(),
            network: None,
        }
    }
}

impl CloudInit {
    /// Returns the image that the guest reads: a volume called `cidata`, as the data source `NoCloud` looks for.
    pub fn iso(&self) -> Secret<Vec<u8>> {
        // JSON is YAML, and leaves no doubt about what is text.
        let meta = json!({"instance-id": self.instance, "local-hostname": self.host}).to_string();
        let mut files = vec![("meta-data", meta.as_bytes()), ("user-data", self.user_data.get().expose().as_bytes())];
        if let Some(network) = &self.network {
            files.push(("network-config", network.as_bytes()));
        }
        Secret::new(iso::build("cidata", &files))
    }

    /// Returns the name of the file: the server would replace other characters by itself.
    fn file(&self, mark: &str) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '_' };
        format!("{}-{mark}.iso", self.host).chars().map(plain).collect()
    }

    fn made(&self, mark: &str) -> Made<CloudInitOutputs> {
        let volume = format!("{}:iso/{}", self.storage, self.file(mark));
        Made::new(format!("{}/{volume}", self.node), CloudInitOutputs { volume })
    }
}

/// Returns the size of a volume on a node; nothing when it is not there.
async fn size(client: &Client, node: &str, volume: &str) -> Result<Option<u64>> {
    let storage = volume.split(':').next().unwrap_or_default();
    let listed = client.send(&request::storage::content(node, storage, "iso")).await?;
    let row = list(&listed).iter().find(|row| field(row, "volid") == volume);
    Ok(row.map(|row| row.get("size").and_then(number).unwrap_or_default()))
}

impl Resource<Proxmox> for CloudInit {
    const TYPE: &'static str = "proxmox:cloud-init";
    type Outputs = CloudInitOutputs;

    fn locks(&self) -> Vec<Lock> {
        vec![Lock { name: format!("proxmox node {}", self.node), capacity: 4, weight: 1 }]
    }

    fn change(&self, _: &CloudInit, _: Option<&Value>) -> Change {
        let reason = (Path::root(), "another content is another file".to_owned());
        let unknown = vec![Path::from("/volume")];
        Change::Replace(Impact { reasons: vec![reason], unknown, ..Impact::default() }, Order::CreateFirst)
    }

    async fn find(client: &Client, op: &Op<CloudInit>) -> Result<Found<CloudInitOutputs>> {
        let (id, whole) = match (&op.id, &op.inputs) {
            (Some(id), inputs) => (id.clone(), inputs.as_ref().map(|inputs| inputs.iso().expose().len())),
            (None, Some(inputs)) => (inputs.made(&op.mark).id, Some(inputs.iso().expose().len())),
            (None, None) => return Err(Error::invalid("neither the id of the image nor its inputs are known")),
        };
        let (node, volume) = place(&id)?;
        let Some(size) = size(client, node, volume).await? else { return Ok(Found::Absent) };
        let name = volume.rsplit('/').next().unwrap_or_default();
        let mark = name.strip_suffix(".iso").and_then(|name| name.rsplit_once('-')).map(|(_, mark)| mark.to_owned());
        let owner = mark.map_or(Owner::Unmarked, Owner::Marked);
        let made = Made::new(id.clone(), CloudInitOutputs { volume: volume.to_owned() });
        // The file appears while it is still being written.
        if whole.is_some_and(|whole| size != whole as u64) && !op.deleting {
            let cursor = op.cursor.clone().unwrap_or_else(|| json!(At::Between));
            let (why, pause) = (format!("{volume} is not complete"), Duration::ZERO);
            return Ok(Found::Present(owner, Step::Next { cursor, made: None, why, pause }));
        }
        Ok(Found::Present(owner, Step::Done(made)))
    }

    async fn apply(&self, client: &Client, op: &Op<CloudInit>) -> Result<Step<CloudInitOutputs>> {
        if let Some(step) = follow::wait(client, op).await? {
            return Ok(step);
        }
        let made = self.made(&op.mark);
        let iso = self.iso();
        let content = iso.expose();
        if size(client, &self.node, &made.outputs.volume).await? == Some(content.len() as u64) {
            return Ok(Step::Done(made));
        }
        let sha256: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        let file = File { name: self.file(&op.mark), content: content.clone() };
        let request = request::storage::upload(&self.node, &self.storage, "iso", file, &sha256);
        follow::begin(client, &request, format!("{} is uploaded to {}", made.outputs.volume, self.node)).await
    }

    async fn delete(client: &Client, op: &Op<CloudInit>) -> Result<Step<()>> {
        let id = op.id.clone().or_else(|| op.inputs.as_ref().map(|inputs| inputs.made(&op.mark).id));
        let id = id.ok_or_else(|| Error::invalid("neither the id of the image nor its inputs are known"))?;
        let (node, volume) = place(&id)?;
        delete(client, op, node, volume).await
    }
}
