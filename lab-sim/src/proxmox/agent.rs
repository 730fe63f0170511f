//! The guest agent: there once the guest runs it, and never before.

use super::api::{nothing, unknown};
use super::guest::{Guest, System};
use super::power::has_agent;
use super::refusal::{Answer, Refusal};
use super::request::Request;
use super::schema::{Args, Call};
use super::vm::Config;
use serde_json::{Value, json};
use std::sync::Arc;

/// The size of a file that is read at most, in bytes.
const LARGEST: usize = 16 << 20;

/// Whether a configuration has the guest agent.
pub(super) fn enabled(config: &Config) -> bool {
    has_agent(config)
}

/// Carries out a call below `.../agent`.
pub(super) async fn call(call: &Call, rest: &str, request: &Request, args: &Args) -> Answer {
    let guest = guest(request, args).await?;
    let system = Arc::new(System { datacenter: request.datacenter.clone(), id: args.vm(), guest: guest.clone() });
    match (call.method.as_str(), rest) {
        ("POST", "/ping") => Ok(json!({"result": {}})),
        ("GET", "/info") => Ok(json!({"result": {"version": "8.2.2", "supported_commands": []}})),
        ("GET", "/get-host-name") => Ok(json!({"result": {"host-name": system.hostname()}})),
        ("GET", "/get-osinfo") => Ok(json!({"result": {
            "id": "ubuntu", "name": "Ubuntu", "pretty-name": "Ubuntu 24.04.3 LTS", "version-id": "24.04", "machine": "x86_64",
            "kernel-release": "6.8.0-90-generic",
        }})),
        ("GET", "/network-get-interfaces") => Ok(json!({"result": interfaces(&guest)})),
        ("GET", "/file-read") => read(&system, args),
        ("POST", "/file-write") => {
            if args.text("encode") == Some("0") {
                return Err(Refusal::not_simulated("writing a file from base64"));
            }
            system.put(args.required("file"), args.text("content").unwrap_or_default(), false);
            nothing()
        }
        ("POST", "/exec") => {
            let words = args.list("command");
            let input = args.text("input-data").unwrap_or_default().to_owned();
            let pid = 3000 + request.datacenter.count();
            guest.facts().processes.insert(pid, None);
            let inside = guest.clone();
            guest.spawn(async move {
                let outcome = system.command(&words, &input).await;
                if outcome.code == 127 {
                    system.refuse(&format!("agent exec: {}", outcome.err.trim()));
                }
                inside.facts().processes.insert(pid, Some(outcome));
            });
            Ok(json!({"pid": pid}))
        }
        ("GET", "/exec-status") => {
            let pid = args.number("pid").unwrap_or_default();
            match guest.facts().processes.get(&pid) {
                None => Err(Refusal::died(format!("Agent error: PID {pid} does not exist"))),
                Some(None) => Ok(json!({"exited": 0})),
                Some(Some(outcome)) => {
                    let mut row = json!({"exited": 1, "exitcode": outcome.code});
                    if !outcome.out.is_empty() {
                        row["out-data"] = json!(outcome.out);
                    }
                    if !outcome.err.is_empty() {
                        row["err-data"] = json!(outcome.err);
                    }
                    Ok(row)
                }
            }
        }
        _ => Err(unknown(call)),
    }
}

/// Returns the guest whose agent answers.
async fn guest(request: &Request, args: &Args) -> Result<Guest, Refusal> {
    let id = args.vm();
    let guest = {
        let state = request.datacenter.state();
        let machine = state.vm(id, request.node())?;
        if !enabled(&machine.config) {
            return Err(Refusal::died("No QEMU guest agent configured"));
        }
        let running = machine.running.as_ref().ok_or_else(|| format!("VM {id} is not running"))?;
        running.guest.clone()
    };
    let answers = guest.facts().agent;
    if !answers {
        request.datacenter.clock.sleep(std::time::Duration::from_secs(3)).await;
        return Err(Refusal::died("QEMU guest agent is not running"));
    }
    Ok(guest)
}

fn interfaces(guest: &Guest) -> Vec<Value> {
    let loopback = json!({
        "name": "lo", "hardware-address": "00:00:00:00:00:00",
        "ip-addresses": [{"ip-address": "127.0.0.1", "ip-address-type": "ipv4", "prefix": 8}],
    });
    let facts = guest.facts();
    let own = facts.interfaces.iter().map(|interface| {
        let addresses: Vec<Value> = interface
            .addresses
            .iter()
            .map(|(address, prefix)| {
                let kind = if address.is_ipv4() { "ipv4" } else { "ipv6" };
                json!({"ip-address": address, "ip-address-type": kind, "prefix": prefix})
            })
            .collect();
        json!({"name": interface.name, "hardware-address": interface.mac, "ip-addresses": addresses})
    });
    std::iter::once(loopback).chain(own).collect()
}

fn read(system: &System, args: &Args) -> Answer {
    for absent in ["count", "offset", "decode"] {
        if args.has(absent) && !(absent == "decode" && args.flag("decode")) {
            return Err(Refusal::not_simulated(format!("the parameter {absent} of file-read")));
        }
    }
    let file = args.required("file");
    let text = system.read(file);
    let text = text.ok_or_else(|| {
        Refusal::died(format!("Agent error: failed to open file '{file}' (mode: 'r'): No such file or directory"))
    })?;
    let length = text.len().min(LARGEST);
    Ok(json!({"content": text, "bytes-read": length}))
}
