//! Storages as the cluster defines them, and as a node has them.

use super::api::{nothing, unknown};
use super::content;
use super::refusal::{Answer, Refusal};
use super::request::Request;
use super::schema::{Args, Call};
use super::state::State;
use super::storage::Definition;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The size of a storage that is defined through the API, in bytes: nobody told another.
const SIZE: u64 = 2 << 40;

/// Carries out a call below `/nodes/{node}/storage`.
pub(super) async fn on_node(call: &Call, rest: &str, request: &Request, args: &Args) -> Answer {
    match (call.method.as_str(), rest) {
        ("GET", "") => list(request, args),
        ("GET", "/{storage}/status") => status(request, args),
        ("GET", "/{storage}/content") => content::list(request, args),
        ("POST", "/{storage}/content") => content::allocate(request, args),
        ("GET", "/{storage}/content/{volume}") => content::info(request, args),
        ("DELETE", "/{storage}/content/{volume}") => content::delete(request, args),
        ("POST", "/{storage}/upload") => content::upload(request, args),
        ("POST", "/{storage}/download-url") => content::download(request, args),
        _ => Err(unknown(call)),
    }
}

/// Carries out a call below `/storage`.
pub(super) fn definitions(call: &Call, request: &Request, args: &Args) -> Answer {
    match (call.method.as_str(), call.path.as_str()) {
        ("GET", "/storage") => {
            let state = request.datacenter.state();
            let wanted = |id: &str, storage: &Definition| {
                let path = format!("/storage/{id}");
                let seen = request.token.demand_any(&path, &["Datastore.Audit", "Datastore.AllocateSpace"], None);
                seen.is_ok() && args.text("type").is_none_or(|kind| kind == storage.kind)
            };
            Ok(state
                .storages
                .iter()
                .filter(|(id, storage)| wanted(id, storage))
                .map(|(id, storage)| definition(id, storage))
                .collect())
        }
        ("POST", "/storage") => define(request, args),
        ("GET", _) => {
            let state = request.datacenter.state();
            let id = args.required("storage");
            let storage = state.storages.get(id).ok_or_else(|| missing(id))?;
            Ok(definition(id, storage))
        }
        ("PUT", _) => redefine(request, args),
        ("DELETE", _) => {
            request.datacenter.writable()?;
            let id = args.required("storage");
            let mut state = request.datacenter.state();
            state.storages.remove(id).ok_or_else(|| missing(id))?;
            nothing()
        }
        _ => Err(unknown(call)),
    }
}

fn missing(id: &str) -> Refusal {
    Refusal::died(format!("storage '{id}' does not exist"))
}

pub(super) fn definition(id: &str, storage: &Definition) -> Value {
    let mut shown = json!({"storage": id, "type": storage.kind, "content": storage.content.join(",")});
    for (key, value) in &storage.options {
        shown[key] = json!(value);
    }
    if !storage.nodes.is_empty() {
        shown["nodes"] = json!(storage.nodes.join(","));
    }
    if storage.disabled {
        shown["disable"] = json!(1);
    }
    if storage.shared {
        shown["shared"] = json!(1);
    }
    shown
}

/// What a storage of a type cannot do without.
fn needed(kind: &str) -> Option<&'static [&'static str]> {
    match kind {
        "dir" => Some(&["path"]),
        "nfs" => Some(&["server", "export"]),
        "cifs" => Some(&["server", "share"]),
        "pbs" => Some(&["server", "datastore"]),
        "lvmthin" => Some(&["vgname", "thinpool"]),
        "zfspool" => Some(&["pool"]),
        _ => None,
    }
}

/// Returns the options of a definition; secrets go to a file of their own and are never shown.
fn options(args: &Args) -> BTreeMap<String, String> {
    let own =
        ["storage", "type", "content", "nodes", "disable", "shared", "password", "encryption-key", "delete", "digest"];
    args.texts().filter(|(key, _)| !own.contains(key)).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn contents(kind: &str, args: &Args) -> Result<Vec<String>, Refusal> {
    let possible = Definition::possible(kind);
    let content = args.list("content");
    match content.iter().find(|content| !possible.contains(&content.as_str())) {
        Some(wrong) => Err(Refusal::died(format!("storage does not support content type '{wrong}'"))),
        None => Ok(content),
    }
}

fn define(request: &Request, args: &Args) -> Answer {
    let (id, kind) = (args.required("storage"), args.required("type"));
    let needed = needed(kind).ok_or_else(|| Refusal::not_simulated(format!("the storage type {kind}")))?;
    if let Some(missing) = needed.iter().find(|key| !args.has(key)) {
        return Err(Refusal::died(format!("create storage failed: missing value for required option '{missing}'")));
    }
    request.datacenter.writable()?;
    let mut content = contents(kind, args)?;
    let mut state = request.datacenter.state();
    if state.storages.contains_key(id) {
        return Err(Refusal::died(format!("create storage failed: storage ID '{id}' already defined")));
    }
    if content.is_empty() {
        content = match kind {
            "pbs" => vec!["backup".to_owned()],
            "dir" | "nfs" | "cifs" => ["images", "rootdir", "vztmpl", "iso", "backup"].map(str::to_owned).to_vec(),
            _ => ["images", "rootdir"].map(str::to_owned).to_vec(),
        };
    }
    let storage = Definition {
        kind: kind.to_owned(),
        content,
        size: SIZE,
        nodes: args.list("nodes"),
        disabled: args.flag("disable"),
        shared: ["nfs", "cifs", "pbs"].contains(&kind) || args.flag("shared"),
        options: options(args),
        password: args.text("password").map(str::to_owned),
    };
    state.storages.insert(id.to_owned(), storage);
    Ok(json!({"storage": id, "type": kind}))
}

fn redefine(request: &Request, args: &Args) -> Answer {
    request.datacenter.writable()?;
    let id = args.required("storage");
    let mut state = request.datacenter.state();
    let storage = state.storages.get_mut(id).ok_or_else(|| missing(id))?;
    let kind = storage.kind.clone();
    let content = contents(&kind, args)?;
    if !content.is_empty() {
        storage.content = content;
    }
    if args.has("nodes") {
        storage.nodes = args.list("nodes");
    }
    if args.has("disable") {
        storage.disabled = args.flag("disable");
    }
    for key in args.list("delete") {
        match key.as_str() {
            "nodes" => storage.nodes.clear(),
            "disable" => storage.disabled = false,
            _ => drop(storage.options.remove(&key)),
        }
    }
    storage.options.extend(options(args));
    if let Some(password) = args.text("password") {
        storage.password = Some(password.to_owned());
    }
    Ok(json!({"storage": id, "type": kind}))
}

fn row(state: &State, id: &str, storage: &Definition, node: &str) -> Value {
    let used = state.used(id, node);
    json!({
        "storage": id, "type": storage.kind, "content": storage.content.join(","), "shared": u8::from(storage.shared),
        "enabled": u8::from(!storage.disabled), "active": u8::from(!storage.disabled), "total": storage.size, "used": used,
        "avail": storage.size.saturating_sub(used), "used_fraction": used as f64 / storage.size.max(1) as f64,
    })
}

fn list(request: &Request, args: &Args) -> Answer {
    let state = request.datacenter.state();
    let contents = args.list("content");
    let rows = state.storages.iter().filter(|(id, storage)| {
        let path = format!("/storage/{id}");
        let seen = request.token.demand_any(&path, &["Datastore.Audit", "Datastore.AllocateSpace"], None).is_ok();
        seen && storage.on(request.node())
            && args.text("storage").is_none_or(|wanted| wanted == id.as_str())
            && (!args.flag("enabled") || !storage.disabled)
            && (contents.is_empty() || contents.iter().any(|content| storage.holds(content)))
    });
    Ok(rows.map(|(id, storage)| row(&state, id, storage, request.node())).collect())
}

fn status(request: &Request, args: &Args) -> Answer {
    let state = request.datacenter.state();
    let id = args.required("storage");
    let storage = state.storage(id, request.node())?;
    Ok(row(&state, id, storage, request.node()))
}
