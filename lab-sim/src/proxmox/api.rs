//! Which code carries out which call.

use super::refusal::{Answer, Refusal};
use super::request::Request;
use super::schema::{Args, Call};
use super::server::Yield;
use super::{
    agent, backup, cluster, config, content, copy, create, disk, ha, migrate, pool, power, snapshot, storages, task,
    view,
};
use serde_json::Value;

/// Carries out a call whose parameters and privileges are checked.
pub(super) async fn call(call: &'static Call, request: Request, args: Args) -> Result<Yield, Refusal> {
    let total = call.path.ends_with("/log");
    let data = dispatch(call, request, args).await?;
    let total = total.then(|| data.as_array().map(Vec::len)).flatten();
    Ok(Yield { data, total })
}

async fn dispatch(call: &'static Call, request: Request, args: Args) -> Answer {
    const VM: &str = "/nodes/{node}/qemu/{vmid}";
    let request = &request;
    let args = &args;
    if let Some(rest) = call.path.strip_prefix(VM) {
        return machine(call, rest, request, args).await;
    }
    if let Some(rest) = call.path.strip_prefix("/nodes/{node}/storage") {
        return storages::on_node(call, rest, request, args).await;
    }
    if call.path.starts_with("/storage") {
        return storages::definitions(call, request, args);
    }
    if call.path.starts_with("/pools") {
        return pool::call(call, request, args);
    }
    if call.path.starts_with("/cluster/ha") {
        return ha::call(call, request, args);
    }
    if call.path.starts_with("/cluster/backup") {
        return backup::jobs(call, request, args);
    }
    match (call.method.as_str(), call.path.as_str()) {
        ("GET", "/version" | "/nodes/{node}/version") => cluster::version(request),
        ("GET", "/cluster/status") => cluster::status(request),
        ("GET", "/cluster/resources") => cluster::resources(request, args),
        ("GET", "/cluster/nextid") => cluster::next_id(request, args),
        ("GET", "/cluster/options") => Ok(serde_json::json!({"keyboard": "en-us"})),
        ("GET", "/cluster/tasks") => task::list(request, args, None),
        ("GET", "/access/permissions") => Ok(request.token.permissions(args.text("path"))),
        ("GET", "/nodes") => cluster::nodes(request),
        ("GET", "/nodes/{node}/status") => cluster::node_status(request),
        ("GET", "/nodes/{node}/network") => cluster::network(request, args),
        ("GET", "/nodes/{node}/tasks") => task::list(request, args, Some(request.node())),
        ("GET", "/nodes/{node}/tasks/{upid}/status") => task::status(request, args),
        ("GET", "/nodes/{node}/tasks/{upid}/log") => task::log(request, args),
        ("DELETE", "/nodes/{node}/tasks/{upid}") => task::stop(request, args),
        ("GET", "/nodes/{node}/query-url-metadata") => content::metadata(request, args),
        ("POST", "/nodes/{node}/vzdump") => backup::now(request, args).await,
        ("GET", "/nodes/{node}/qemu") => view::list(request),
        ("POST", "/nodes/{node}/qemu") => create::create(request, args).await,
        _ => Err(unknown(call)),
    }
}

async fn machine(call: &'static Call, rest: &str, request: &Request, args: &Args) -> Answer {
    if let Some(rest) = rest.strip_prefix("/agent") {
        return agent::call(call, rest, request, args).await;
    }
    match (call.method.as_str(), rest) {
        ("GET", "") => view::index(request, args),
        ("DELETE", "") => create::destroy(request, args).await,
        ("GET", "/config") => view::config(request, args),
        ("PUT", "/config") => config::update(request, args).await,
        ("POST", "/config") => config::update_task(request, args).await,
        ("GET", "/pending") => view::pending(request, args),
        ("GET", "/status/current") => view::current(request, args),
        ("POST", "/status/start") => power::start(request, args).await,
        ("POST", "/status/stop") => power::stop(request, args).await,
        ("POST", "/status/shutdown") => power::shutdown(request, args).await,
        ("POST", "/status/reboot") => power::reboot(request, args).await,
        ("POST", "/status/reset") => power::reset(request, args).await,
        ("POST", "/clone") => copy::clone(request, args).await,
        ("POST", "/template") => copy::template(request, args).await,
        ("PUT", "/resize") => disk::resize(request, args).await,
        ("PUT", "/unlink") => disk::unlink(request, args).await,
        ("POST", "/move_disk") => disk::transfer(request, args).await,
        ("GET", "/migrate") => migrate::preconditions(request, args),
        ("POST", "/migrate") => migrate::migrate(request, args).await,
        ("GET", "/snapshot") => snapshot::list(request, args),
        ("POST", "/snapshot") => snapshot::take(request, args).await,
        ("DELETE", "/snapshot/{snapname}") => snapshot::delete(request, args).await,
        ("GET", "/snapshot/{snapname}/config") => snapshot::config(request, args),
        ("PUT", "/snapshot/{snapname}/config") => snapshot::describe(request, args),
        ("POST", "/snapshot/{snapname}/rollback") => snapshot::rollback(request, args).await,
        _ => Err(unknown(call)),
    }
}

/// A call that the schema has and nobody carries out.
pub(super) fn unknown(call: &Call) -> Refusal {
    Refusal::not_simulated(format!("{} {}", call.method, call.path))
}

/// Returns what a void call yields.
pub(super) fn nothing() -> Answer {
    Ok(Value::Null)
}
