//! What is one entry in the configuration of the cluster: pools, jobs, rules, storages.
//!
//! They are all found, made, changed and deleted alike, at once and without a task. Each type says what its entry is
//! called, how it is read and what is wanted of it.

use crate::client::{Client, Problem};
use crate::follow::At;
use crate::mark;
use crate::provider::Proxmox;
use crate::request::Request;
use crate::scalar::{field, list};
use lab_core::{Class, Data, Error, Found, Id, Lock, Made, Op, Owner, Resource, Result, Step};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Parameters by name.
pub(super) type Params = BTreeMap<String, String>;

/// One entry in the configuration of the cluster.
pub(super) trait Entry: Resource<Proxmox> {
    /// Whether it has a comment, which bears the mark.
    const COMMENTED: bool = true;
    /// What it is called in its list.
    const KEY: &'static str;
    /// What to know when the server has nothing of the kind; empty: every version has.
    const VERSIONS: &'static str = "";

    /// Returns what it is called, as its id has it.
    fn name(&self) -> Option<String>;
    /// Returns what it is, for people.
    fn who(name: &str) -> String;
    /// Returns what lists all of them.
    fn list() -> Request;
    /// Returns what reads one with everything about it; none: the list says it all.
    fn item(_name: &str) -> Option<Request> {
        None
    }
    /// Returns the privilege without which the list leaves it out; empty: without it there is no list.
    fn seen_with(_name: &str) -> String {
        String::new()
    }
    /// Returns what is wanted of it.
    fn wanted(&self) -> Params;
    /// Returns the names of parameters that are taken away when they are not wanted.
    fn optional() -> &'static [&'static str] {
        &[]
    }
    /// Returns the names of parameters that are given when it is made and cannot be changed.
    fn fixed() -> &'static [&'static str] {
        &[]
    }
    /// Returns what it says about itself.
    fn comment(&self) -> &str {
        ""
    }
    /// Returns whether it was changed from `prior` in a way that cannot be read back.
    fn hidden(&self, _prior: &Self) -> bool {
        false
    }
    /// Returns what makes it.
    fn create(&self, name: &str, params: Params) -> Request;
    /// Returns what changes it.
    fn update(&self, name: &str, set: Params, delete: &[&str]) -> Request;
    /// Returns what deletes it.
    fn remove(name: &str) -> Request;
    /// Returns what it yields.
    fn outputs(&self) -> Self::Outputs;
    /// Returns it as it is there, in the shape of its inputs.
    fn live(&self, there: &Value) -> Value;
}

/// The files of the cluster's configuration are read, changed and written as a whole.
pub(super) fn lock() -> Vec<Lock> {
    vec![Lock::exclusive("proxmox cluster configuration")]
}

async fn read<R: Entry>(client: &Client, name: &str) -> Result<Option<Value>> {
    let all = client.send(&R::list()).await.map_err(|error| {
        let other = error.problem == Problem::Unsupported || error.text.contains("have been migrated to rules");
        match (other, R::VERSIONS) {
            (true, words) if !words.is_empty() => Error::invalid(format!("{}; {words}", error.text)),
            _ => error.into(),
        }
    })?;
    let Some(row) = list(&all).iter().find(|row| field(row, R::KEY) == name) else { return Ok(None) };
    match R::item(name) {
        Some(item) => Ok(Some(client.send(&item).await?)),
        None => Ok(Some(row.clone())),
    }
}

fn owner<R: Entry>(there: &Value) -> Owner {
    if !R::COMMENTED {
        return Owner::Unmarkable;
    }
    match mark::read(&field(there, "comment")).1 {
        Some(mark) => Owner::Marked(mark),
        None => Owner::Unmarked,
    }
}

/// Returns what is to be set and what to be taken away. Lists are sets here: the server has an order of its own.
fn differences<R: Entry>(entry: &R, mark: &str, there: &Value) -> (Params, Vec<&'static str>) {
    let parts = |text: &str| -> BTreeSet<String> {
        text.split([',', ';', ' ']).filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    let wanted = entry.wanted();
    let mut set: Params = wanted
        .iter()
        .filter(|(key, _)| !R::fixed().contains(&key.as_str()))
        .filter(|(key, value)| parts(value) != parts(&field(there, key)))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if R::COMMENTED {
        let comment = mark::write_line(entry.comment(), mark);
        if field(there, "comment").trim() != comment {
            set.insert("comment".into(), comment);
        }
    }
    let gone = |key: &&&str| !wanted.contains_key(**key) && !field(there, key).is_empty();
    (set, R::optional().iter().filter(gone).copied().collect())
}

fn name_of<R: Entry>(op: &Op<R>) -> Result<String> {
    let named = op.id.clone().map(|id| id.0).or_else(|| op.inputs.as_ref().and_then(Entry::name));
    named.ok_or_else(|| Error::invalid("neither the id nor the inputs are known"))
}

fn made<R: Entry>(name: &str, entry: &R, there: &Value) -> Made<R::Outputs> {
    let mut live = entry.live(there);
    if R::COMMENTED {
        live["comment"] = json!(mark::read(&field(there, "comment")).0);
    }
    Made { live: Some(live), ..Made::new(Id(name.to_owned()), entry.outputs()) }
}

pub(super) async fn find<R: Entry>(client: &Client, op: &Op<R>) -> Result<Found<R::Outputs>> {
    let name = name_of(op)?;
    let Some(there) = read::<R>(client, &name).await? else { return Ok(Found::Absent) };
    let owner = owner::<R>(&there);
    let Some(entry) = &op.inputs else {
        return Ok(Found::Present(owner, At::Between.next("its inputs can no longer be read", Duration::ZERO)));
    };
    let made = made(&name, entry, &there);
    let (set, delete) = differences(entry, &op.mark, &there);
    let ours = matches!(&owner, Owner::Marked(mark) if *mark == op.mark);
    if ours && !op.deleting && !(set.is_empty() && delete.is_empty()) {
        let cursor = op.cursor.clone().unwrap_or_else(|| json!(At::Between));
        let why = "it is not as it should be".into();
        return Ok(Found::Present(owner, Step::Next { cursor, made: Some(made), why, pause: Duration::ZERO }));
    }
    Ok(Found::Present(owner, Step::Done(made)))
}

pub(super) async fn apply<R: Entry + Data>(entry: &R, client: &Client, op: &Op<R>) -> Result<Step<R::Outputs>> {
    let name = entry.name().ok_or_else(|| Error::invalid("its name is not known"))?;
    let who = R::who(&name);
    let Some(there) = read::<R>(client, &name).await? else {
        if op.exists {
            return Err(Error::new(Class::Gone, format!("{who} does not exist any more")));
        }
        let mut params = entry.wanted();
        if R::COMMENTED {
            params.insert("comment".into(), mark::write_line(entry.comment(), &op.mark));
        }
        if let Err(error) = client.send(&entry.create(&name, params)).await {
            let needs = R::seen_with(&name);
            // It is taken, and by nothing that is listed.
            if error.problem == Problem::Exists && !needs.is_empty() && read::<R>(client, &name).await?.is_none() {
                let text = format!("{}: it is there and the token may not see it, which needs {needs}", error.text);
                return Err(Error::unauthorised(text));
            }
            return Err(error.into());
        }
        return Ok(At::Between.next(format!("{who} is made"), Duration::ZERO));
    };
    match owner::<R>(&there) {
        Owner::Marked(mark) if mark == op.mark => {}
        // It was judged to be ours a moment ago.
        Owner::Unmarked | Owner::Unmarkable if op.exists || op.cursor.is_some() => {}
        Owner::Marked(_) | Owner::Unmarked | Owner::Unmarkable | Owner::Other(_) => {
            return Err(Error::conflict(format!("{who} was made by somebody else meanwhile")));
        }
    }
    let (set, delete) = differences(entry, &op.mark, &there);
    let hidden = op.exists && op.cursor.is_none() && op.inputs.as_ref().is_some_and(|prior| entry.hidden(prior));
    if set.is_empty() && delete.is_empty() && !hidden {
        return Ok(Step::Done(made(&name, entry, &there)));
    }
    client.send(&entry.update(&name, set, &delete)).await?;
    Ok(At::Between.next(format!("{who} is changed"), Duration::ZERO))
}

pub(super) async fn delete<R: Entry>(client: &Client, op: &Op<R>) -> Result<Step<()>> {
    let name = name_of(op)?;
    let Some(there) = read::<R>(client, &name).await? else { return Ok(Step::gone()) };
    if let Owner::Marked(mark) = owner::<R>(&there)
        && mark != op.mark
    {
        return Ok(Step::gone());
    }
    match client.send(&R::remove(&name)).await {
        Ok(_) => Ok(At::Between.next(format!("{} is deleted", R::who(&name)), Duration::ZERO)),
        // Machines that go at the same time leave it a moment later.
        Err(error) if error.problem == Problem::Refused && error.text.contains("is not empty") => {
            Err(Error::again(error.text))
        }
        Err(error) => Err(error.into()),
    }
}

/// Returns a request with these parameters.
pub(super) fn with(request: Request, params: Params) -> Request {
    params.into_iter().fold(request, |request, (key, value)| request.with(key, value))
}

/// Returns a request that changes these parameters.
pub(super) fn changing(request: Request, set: Params, delete: &[&str]) -> Request {
    with(request, set).maybe("delete", (!delete.is_empty()).then(|| delete.join(",")))
}

/// Writes the verbs of a type that is an entry.
macro_rules! entry {
    ($kind:ty, $name:literal, $outputs:ty $(, $pure:item)*) => {
        impl lab_core::Resource<crate::provider::Proxmox> for $kind {
            const TYPE: &'static str = $name;
            type Outputs = $outputs;

            fn id(&self) -> Option<lab_core::Id> {
                crate::resource::entry::Entry::name(self).map(lab_core::Id)
            }

            fn locks(&self) -> Vec<lab_core::Lock> {
                crate::resource::entry::lock()
            }

            $($pure)*

            async fn find(
                client: &crate::client::Client,
                op: &lab_core::Op<Self>,
            ) -> lab_core::Result<lab_core::Found<$outputs>> {
                crate::resource::entry::find(client, op).await
            }

            async fn apply(
                &self,
                client: &crate::client::Client,
                op: &lab_core::Op<Self>,
            ) -> lab_core::Result<lab_core::Step<$outputs>> {
                crate::resource::entry::apply(self, client, op).await
            }

            async fn delete(
                client: &crate::client::Client,
                op: &lab_core::Op<Self>,
            ) -> lab_core::Result<lab_core::Step<()>> {
                crate::resource::entry::delete(client, op).await
            }
        }
    };
}
pub(super) use entry;
