//! A disk image or installation medium on a storage, downloaded by the node itself.

use crate::client::Client;
use crate::follow;
use crate::provider::Proxmox;
use crate::request;
use crate::scalar::{field, list};
use lab_core::{Change, Claim, Error, Found, Id, Impact, Lock, Made, Op, Order, Owner, Path, Resource, Result, Step};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An image that a node downloads onto one of its storages, checked against its checksum.
///
/// It is found by its file name among the contents of the storage. A file bears no mark: one that was there before is
/// somebody else's until it is imported, under the id `NODE/VOLUME`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The node that downloads it. On a storage that nodes share, any of them.
    pub node: String,
    /// The storage; it must allow this kind of content.
    pub storage: String,
    /// The name of the file: `noble-20260114.qcow2`. A disk image ends in `.qcow2`, `.raw` or `.vmdk`, a medium in
    /// `.iso` or `.img`.
    pub file: String,
    /// Where it is.
    pub url: String,
    /// The SHA-256 of the file, in hexadecimal.
    pub sha256: String,
}

/// What an [`Image`] yields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageOutputs {
    /// The volume: `local:import/noble-20260114.qcow2`.
    pub volume: String,
}

impl Image {
    /// Returns an image.
    pub fn new(
        node: impl Into<String>,
        storage: impl Into<String>,
        file: impl Into<String>,
        url: impl Into<String>,
        sha256: impl Into<String>,
    ) -> Image {
        Image { node: node.into(), storage: storage.into(), file: file.into(), url: url.into(), sha256: sha256.into() }
    }

    /// Returns the kind of content that Proxmox VE takes it for.
    pub(crate) fn content(&self) -> &'static str {
        let medium = [".iso", ".img"].iter().any(|ending| self.file.ends_with(ending));
        if medium { "iso" } else { "import" }
    }

    /// Returns the volume that the file becomes.
    pub fn volume(&self) -> String {
        format!("{}:{}/{}", self.storage, self.content(), self.file)
    }
}

/// Returns the node and the volume that an id names.
pub(super) fn place(id: &Id) -> Result<(&str, &str)> {
    let parts = id.0.split_once('/').filter(|(_, volume)| volume.contains(':'));
    parts.ok_or_else(|| Error::invalid(format!("{id:?} is not the id of a volume, such as pve1/local:iso/medium.iso")))
}

/// Returns the volumes of one kind on a node's storage.
pub(super) async fn volumes(client: &Client, node: &str, storage: &str, content: &str) -> Result<Vec<String>> {
    let listed = client.send(&request::storage::content(node, storage, content)).await?;
    Ok(list(&listed).iter().map(|row| field(row, "volid")).collect())
}

/// Deletes a volume; gone when it is not there.
pub(super) async fn delete<R>(client: &Client, op: &Op<R>, node: &str, volume: &str) -> Result<Step<()>> {
    if let Some(step) = follow::wait(client, op).await? {
        return Ok(step);
    }
    let Some((storage, rest)) = volume.split_once(':') else {
        return Err(Error::invalid(format!("{volume:?} is not a volume")));
    };
    let content = rest.split('/').next().unwrap_or_default();
    if !volumes(client, node, storage, content).await?.iter().any(|there| there == volume) {
        return Ok(Step::gone());
    }
    let request = request::storage::delete(node, storage, volume);
    follow::begin(client, &request, format!("{volume} is deleted from {node}")).await
}

impl Image {
    fn made(&self) -> Made<ImageOutputs> {
        Made::new(format!("{}/{}", self.node, self.volume()), ImageOutputs { volume: self.volume() })
    }
}

impl Resource<Proxmox> for Image {
    const TYPE: &'static str = "proxmox:image";
    type Outputs = ImageOutputs;

    fn id(&self) -> Option<Id> {
        Some(Id(format!("{}/{}", self.node, self.volume())))
    }

    fn claims(&self) -> Vec<Claim> {
        vec![Claim::name(format!("volume on {}", self.node), &self.volume()).of_realm()]
    }

    fn locks(&self) -> Vec<Lock> {
        vec![Lock { name: format!("proxmox storage {}", self.storage), capacity: 2, weight: 1 }]
    }

    fn change(&self, prior: &Image, _: Option<&Value>) -> Change {
        if self.id() == prior.id() && self.sha256.eq_ignore_ascii_case(&prior.sha256) {
            // Where it came from does not matter: it is the same file.
            return Change::None;
        }
        let path = if self.id() == prior.id() { "/sha256" } else { "/file" };
        let order = if self.id() == prior.id() { Order::DeleteFirst } else { Order::CreateFirst };
        let reason = (Path::from(path), "another image is another file".to_owned());
        Change::Replace(Impact { reasons: vec![reason], ..Impact::default() }, order)
    }

    async fn find(client: &Client, op: &Op<Image>) -> Result<Found<ImageOutputs>> {
        let id = op.id.clone().or_else(|| op.inputs.as_ref().and_then(Resource::id));
        let id = id.ok_or_else(|| Error::invalid("neither the id of the image nor its inputs are known"))?;
        let (node, volume) = place(&id)?;
        let (storage, rest) = volume.split_once(':').unwrap_or_default();
        let content = rest.split('/').next().unwrap_or_default();
        if !volumes(client, node, storage, content).await?.iter().any(|there| there == volume) {
            return Ok(Found::Absent);
        }
        let outputs = ImageOutputs { volume: volume.to_owned() };
        let made = Made::new(id.clone(), outputs);
        // The server puts a file in its place only when it is whole and its checksum is right. Before that, a task of
        // ours is at work; afterwards there is nothing left to do.
        Ok(Found::Present(Owner::Unmarkable, Step::Done(made)))
    }

    async fn apply(&self, client: &Client, op: &Op<Image>) -> Result<Step<ImageOutputs>> {
        if let Some(step) = follow::wait(client, op).await? {
            return Ok(step);
        }
        if volumes(client, &self.node, &self.storage, self.content()).await?.contains(&self.volume()) {
            return Ok(Step::Done(self.made()));
        }
        let request = request::storage::download(
            &self.node,
            &self.storage,
            self.content(),
            &self.file,
            &self.url,
            &self.sha256.to_ascii_lowercase(),
        );
        follow::begin(client, &request, format!("{} downloads {} to {}", self.node, self.url, self.storage)).await
    }

    async fn delete(client: &Client, op: &Op<Image>) -> Result<Step<()>> {
        let id = op.id.clone().or_else(|| op.inputs.as_ref().and_then(Resource::id));
        let id = id.ok_or_else(|| Error::invalid("neither the id of the image nor its inputs are known"))?;
        let (node, volume) = place(&id)?;
        delete(client, op, node, volume).await
    }
}
