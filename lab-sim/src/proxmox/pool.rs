//! Pools of machines and storages.

use super::api::nothing;
use super::refusal::{Answer, Refusal};
use super::request::Request;
use super::schema::{Args, Call};
use super::state::{Pool, State};
use serde_json::{Value, json};

/// Carries out a call below `/pools`.
pub(super) fn call(call: &Call, request: &Request, args: &Args) -> Answer {
    match (call.method.as_str(), call.path.as_str()) {
        ("GET", "/pools") => list(request, args),
        ("GET", _) => Ok(members(&request.datacenter.state(), args.required("poolid"))?),
        ("POST", _) => create(request, args),
        ("PUT", _) => update(request, args),
        _ => delete(request, args),
    }
}

fn missing(id: &str) -> String {
    format!("pool '{id}' does not exist")
}

fn list(request: &Request, args: &Args) -> Answer {
    let state = request.datacenter.state();
    if let Some(id) = args.text("poolid") {
        let mut shown = members(&state, id)?;
        shown["poolid"] = json!(id);
        return Ok(json!([shown]));
    }
    let seen = state
        .pools
        .iter()
        .filter(|(id, _)| request.token.demand(&format!("/pool/{id}"), &["Pool.Audit"], None).is_ok());
    let rows = seen.map(|(id, pool)| {
        let mut row = json!({"poolid": id});
        if let Some(comment) = &pool.comment {
            row["comment"] = json!(comment);
        }
        row
    });
    Ok(rows.collect())
}

fn members(state: &State, id: &str) -> Result<Value, String> {
    let pool = state.pools.get(id).ok_or_else(|| missing(id))?;
    let vms = pool.vms.iter().filter_map(|vm| {
        let machine = state.vms.get(vm)?;
        Some(json!({
            "id": format!("qemu/{vm}"), "vmid": vm, "type": "qemu", "node": machine.node, "status": machine.status(),
            "name": machine.config.get("name"),
        }))
    });
    let storages =
        pool.storages.iter().map(|id| json!({"id": format!("storage/{id}"), "storage": id, "type": "storage"}));
    let mut shown = json!({"members": vms.chain(storages).collect::<Vec<_>>()});
    if let Some(comment) = &pool.comment {
        shown["comment"] = json!(comment);
    }
    Ok(shown)
}

fn create(request: &Request, args: &Args) -> Answer {
    request.datacenter.writable()?;
    let id = args.required("poolid");
    if !id.starts_with(|letter: char| letter.is_ascii_alphabetic()) {
        return Err(Refusal::parameter("poolid", format!("pool name '{id}' contains invalid characters")));
    }
    let mut state = request.datacenter.state();
    if state.pools.contains_key(id) {
        return Err(Refusal::died(format!("pool '{id}' already exists")));
    }
    if let Some((parent, _)) = id.rsplit_once('/')
        && !state.pools.contains_key(parent)
    {
        return Err(Refusal::died(format!("parent pool '{parent}' does not exist")));
    }
    let pool = Pool { comment: args.text("comment").map(str::to_owned), ..Pool::default() };
    state.pools.insert(id.to_owned(), pool);
    nothing()
}

fn update(request: &Request, args: &Args) -> Answer {
    request.datacenter.writable()?;
    let id = args.required("poolid");
    let (delete, transfer) = (args.flag("delete"), args.flag("allow-move"));
    let mut state = request.datacenter.state();
    let mut pool = state.pools.get(id).cloned().ok_or_else(|| missing(id))?;
    if let Some(comment) = args.text("comment") {
        pool.comment = Some(comment.to_owned());
    }
    let mut left = Vec::new();
    for text in args.list("vms") {
        let vm: u32 = text.parse().unwrap_or_default();
        request.token.demand(&format!("/vms/{vm}"), &["VM.Allocate"], Some(&state))?;
        if delete {
            if !pool.vms.remove(&vm) {
                return Err(Refusal::died(format!("VM {vm} is not a pool member")));
            }
            continue;
        }
        if !state.vms.contains_key(&vm) {
            return Err(Refusal::died(format!("VM {vm} does not exist")));
        }
        match state.pool_of(vm) {
            Some(other) if !transfer || other == id => {
                return Err(Refusal::died(format!("VM {vm} is already a pool member")));
            }
            Some(other) => left.push((other.to_owned(), vm)),
            None => {}
        }
        pool.vms.insert(vm);
    }
    for storage in args.list("storage") {
        if delete {
            if !pool.storages.remove(&storage) {
                return Err(Refusal::died(format!("Storage '{storage}' is not a pool member")));
            }
        } else if !state.storages.contains_key(&storage) {
            return Err(Refusal::died(format!("storage '{storage}' does not exist")));
        } else if !pool.storages.insert(storage.clone()) {
            return Err(Refusal::died(format!("Storage '{storage}' is already a pool member")));
        }
    }
    for (other, vm) in left {
        if let Some(other) = state.pools.get_mut(&other) {
            other.vms.remove(&vm);
        }
    }
    state.pools.insert(id.to_owned(), pool);
    nothing()
}

fn delete(request: &Request, args: &Args) -> Answer {
    request.datacenter.writable()?;
    let id = args.required("poolid");
    let mut state = request.datacenter.state();
    let pool = state.pools.get(id).ok_or_else(|| missing(id))?;
    if let Some(vm) = pool.vms.first() {
        return Err(Refusal::died(format!("pool '{id}' is not empty (contains VM {vm})")));
    }
    if let Some(storage) = pool.storages.first() {
        return Err(Refusal::died(format!("pool '{id}' is not empty (contains storage '{storage}')")));
    }
    state.pools.remove(id);
    nothing()
}
