//! The command `microk8s`.

use super::super::addon;
use super::super::system::{Outcome, System};
use super::cluster::Cluster;
use super::snap::drop_member;
use super::{JOINING, listens};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;

/// The command `microk8s`.
pub(in crate::proxmox::guest) async fn command(system: &Arc<System>, arguments: &[&str], words: &[String]) -> Outcome {
    let Some(cluster) = system.disk(|disk| disk.cluster.clone()) else {
        return Outcome::failed(1, "microk8s is not running");
    };
    let ready = || listens(&system.datacenter, system.id, &system.guest, 16443);
    match arguments {
        ["status", rest @ ..] => {
            let timeout =
                rest.iter().position(|word| *word == "--timeout").and_then(|at| rest.get(at + 1)?.parse().ok());
            let mut left: u64 = if rest.contains(&"--wait-ready") { timeout.unwrap_or(30) } else { 0 };
            while !ready() && left > 0 {
                system.takes(5).await;
                left = left.saturating_sub(5);
            }
            if !ready() {
                return Outcome {
                    code: 1,
                    out: "microk8s is not running. Use microk8s inspect for a deeper inspection.\n".to_owned(),
                    err: String::new(),
                };
            }
            if let Some(name) = rest.iter().position(|word| *word == "-a").and_then(|at| rest.get(at + 1)) {
                let on = cluster.state().addons.contains(*name);
                return Outcome::fine(if on { "enabled\n" } else { "disabled\n" });
            }
            let state = cluster.state();
            let high = if state.members.len() > 2 { "yes" } else { "no" };
            Outcome::fine(format!("microk8s is running\nhigh-availability: {high}\n"))
        }
        ["add-node", "--token", token, ..] | ["add-node", _, _, "--token", token] => {
            if token.len() < 32 {
                return Outcome::failed(1, "Invalid token size.  It must be 32 characters long.");
            }
            cluster.state().tokens.insert((*token).to_owned());
            let address = system.address().map(|address| address.to_string()).unwrap_or_default();
            Outcome::fine(format!(
                "From the node you wish to join to this cluster, run the following:\nmicrok8s join {address}:25000/{token}\n"
            ))
        }
        ["join", target, rest @ ..]
            if rest.iter().all(|flag| ["--skip-verify", "--disable-low-memory-guard"].contains(flag)) =>
        {
            join(system, target).await
        }
        ["leave"] => {
            system.takes(60).await;
            drop_member(system, true).await;
            let channel = system.disk(|disk| disk.snap.clone()).map(|snap| snap.channel).unwrap_or_default();
            match Cluster::new(system, &channel, &Value::Null) {
                Ok(own) => {
                    own.enter(system, &channel).await;
                    system.disk(|disk| {
                        disk.cluster = Some(own);
                        disk.files.remove(JOINING);
                    });
                    Outcome::fine("Generating new cluster certificates.\nWaiting for node to start.\n")
                }
                Err(problem) => Outcome::failed(1, problem),
            }
        }
        ["remove-node", name, rest @ ..] => {
            let force = rest.contains(&"--force");
            if !ready() {
                return Outcome::failed(1, "microk8s is not running");
            }
            let known = cluster.state().members.values().any(|member| member.name == *name);
            if !known {
                return Outcome::failed(1, format!("Node {name} does not exist in Kubernetes."));
            }
            if !force {
                return Outcome::failed(
                    1,
                    format!(
                        "Removal failed. Node {name} is registered with dqlite. Please, run first 'microk8s leave' on the departing node."
                    ),
                );
            }
            system.takes(10).await;
            // Somebody may have made the others forget this one meanwhile.
            if !ready() {
                return Outcome::failed(1, "microk8s is not running");
            }
            cluster.remove(name).await;
            Outcome::default()
        }
        ["enable", first, rest @ ..] => {
            if !ready() {
                return Outcome::failed(1, "microk8s is not running, try microk8s start");
            }
            let (name, argument) = first.split_once(':').unwrap_or((first, ""));
            let argument = if rest.is_empty() { argument.to_owned() } else { rest.join(" ") };
            let channel = system.disk(|disk| disk.snap.clone()).map(|snap| snap.channel).unwrap_or_default();
            system.takes(10).await;
            match addon::enable(&cluster.api, &channel, name, &argument).await {
                Ok(()) => {
                    cluster.state().addons.insert(name.to_owned());
                    Outcome::fine(format!(
                        "Infer repository core for addon {name}\nEnabling {name}\n{name} is enabled\n"
                    ))
                }
                Err(problem) => problem,
            }
        }
        ["config"] => {
            let address = system.address().map(|address| address.to_string()).unwrap_or_default();
            Outcome::fine(cluster.admin.replace("127.0.0.1", &address))
        }
        ["dbctl", "backup", file] => {
            system.takes(10).await;
            system.put(file, "a backup of the datastore\n", false);
            Outcome::default()
        }
        ["kubectl", "drain", name, ..] => drain(system, &cluster, name).await,
        ["kubectl", "uncordon", name] => cordon(&cluster, name, false).await,
        ["kubectl", "cordon", name] => cordon(&cluster, name, true).await,
        _ => Outcome::not_simulated(&words.join(" ")),
    }
}

async fn cordon(cluster: &Cluster, name: &str, on: bool) -> Outcome {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"unschedulable": on}});
    match cluster.api.ask(&format!("/api/v1/nodes/{name}")).await {
        Ok((200, _)) => {}
        Ok(_) => return Outcome::failed(1, format!("Error from server (NotFound): nodes \"{name}\" not found")),
        Err(problem) => return Outcome::failed(1, problem),
    }
    cluster.api.tell("PATCH", format!("/api/v1/nodes/{name}?fieldManager=kubectl&force=true"), &node).await;
    Outcome::fine(format!("node/{name} {}\n", if on { "cordoned" } else { "uncordoned" }))
}

async fn drain(system: &Arc<System>, cluster: &Cluster, name: &str) -> Outcome {
    let cordoned = cordon(cluster, name, true).await;
    if cordoned.code != 0 {
        return cordoned;
    }
    let pods = match cluster.api.ask("/api/v1/pods").await {
        Ok((_, pods)) => pods,
        Err(problem) => return Outcome::failed(1, problem),
    };
    for pod in pods["items"].as_array().into_iter().flatten() {
        let owners = pod["metadata"]["ownerReferences"].as_array().into_iter().flatten();
        let daemon = owners.into_iter().any(|owner| owner["kind"] == "DaemonSet");
        if pod["spec"]["nodeName"] == name && !daemon {
            let (namespace, pod) = (&pod["metadata"]["namespace"], &pod["metadata"]["name"]);
            let path = format!(
                "/api/v1/namespaces/{}/pods/{}",
                namespace.as_str().unwrap_or_default(),
                pod.as_str().unwrap_or_default()
            );
            cluster.api.tell("DELETE", path, &Value::Null).await;
        }
    }
    system.takes(20).await;
    Outcome::fine(format!("node/{name} drained\n"))
}

/// Joins the cluster of another machine: `ADDRESS:25000/TOKEN`.
async fn join(system: &Arc<System>, target: &str) -> Outcome {
    let parsed = target.split_once('/').and_then(|(authority, rest)| {
        let (address, port) = authority.rsplit_once(':')?;
        Some((address.parse::<IpAddr>().ok(), port == "25000", rest.split('/').next()?))
    });
    let (address, token) = match parsed {
        Some((Some(address), true, token)) => (address, token),
        Some((None, ..)) => return Outcome::failed(1, "Invalid master IP"),
        _ => return Outcome::failed(1, "The connection string is not valid"),
    };
    let (Some(own), name) = (system.address(), system.hostname()) else { return Outcome::failed(1, "no network") };
    let refused = |status: u16, text: &str| Outcome::failed(6, format!("Connection failed. {text} ({status})."));
    system.takes(5).await;
    if address == own {
        let text = format!("The joining node has the same IP ({own}) as the node we contact");
        return refused(503, &text);
    }
    let other =
        system.datacenter.guest_at(address).filter(|(id, guest)| listens(&system.datacenter, *id, guest, 25000));
    let cluster = other.and_then(|(id, _)| system.datacenter.with_disk(id, |disk| disk.cluster.clone()).flatten());
    let Some(cluster) = cluster else {
        return Outcome::failed(1, format!("Failed to connect to {address}:25000: Connection refused"));
    };
    if token.len() < 32 || !cluster.state().tokens.contains(token) {
        return refused(500, "Invalid token");
    }
    cluster.open(address);
    system.put(JOINING, "", false);
    if cluster.state().members.contains_key(&own) {
        // What was begun stays, and is what the next attempt finds.
        let text =
            format!("Failed to retrieve dqlite cluster nodes: the joining node ({own}) is already known to dqlite");
        return refused(500, &text);
    }
    if cluster.state().members.values().any(|member| member.name == name) {
        // Two nodes of one name break each other without a word; nothing that is simulated looks right then.
        return Outcome::not_simulated(&format!("a second node called {name}"));
    }
    system.takes(25).await;
    let channel = system.disk(|disk| disk.snap.clone()).map(|snap| snap.channel).unwrap_or_default();
    cluster.enter(system, &channel).await;
    let joined = cluster.clone();
    system.disk(|disk| {
        disk.cluster = Some(joined);
        disk.files.remove(JOINING);
    });
    Outcome::fine(format!(
        "Contacting cluster at {address}\nWaiting for this node to finish joining the cluster. .. .. ..\nSuccessfully joined the cluster.\n"
    ))
}
