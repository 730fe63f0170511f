//! The snap of MicroK8s: installed, refreshed, removed.

use super::super::addon;
use super::super::system::{Outcome, System};
use super::cluster::Cluster;
use super::{START, version};
use serde_json::{Value, json};
use std::sync::Arc;

/// Where everything of the snap lies.
const COMMON: &str = "/var/snap/microk8s";
/// Where the launch configuration is looked for, in this order.
const LAUNCH: [&str; 3] =
    ["/etc/microk8s.yaml", "/root/snap/microk8s/common/.microk8s.yaml", "/var/snap/microk8s/common/.microk8s.yaml"];

/// The snap of MicroK8s, installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::proxmox::guest) struct Snap {
    pub(in crate::proxmox::guest) channel: String,
    pub(in crate::proxmox::guest) held: bool,
}

/// Reads a channel: its track, and whether it is the confined build; the error is what snapd says.
fn channel(text: &str) -> Result<bool, String> {
    let unknown = || {
        format!(
            "error: snap \"microk8s\" is not available on {text} but is available to install on the following channels"
        )
    };
    let (track, risk) = text.split_once('/').unwrap_or((text, "stable"));
    let (plain, strict) = track.strip_suffix("-strict").map_or((track, false), |track| (track, true));
    let known = plain == "latest"
        || plain
            .strip_prefix("1.")
            .and_then(|minor| minor.parse::<u32>().ok())
            .is_some_and(|minor| (28..=36).contains(&minor));
    if known && ["stable", "candidate", "beta", "edge"].contains(&risk) { Ok(strict) } else { Err(unknown()) }
}

/// The command `snap`.
pub(in crate::proxmox::guest) async fn snap(system: &Arc<System>, arguments: &[&str], words: &[String]) -> Outcome {
    let wanted = arguments.iter().find_map(|word| word.strip_prefix("--channel="));
    let has = |flag: &str| arguments.contains(&flag);
    match arguments {
        ["wait", "system", "seed.loaded"] => Outcome::default(),
        ["list", "microk8s"] => match system.disk(|disk| disk.snap.clone()) {
            Some(snap) => Outcome::fine(format!(
                "Name      Version  Rev   Tracking     Publisher   Notes\nmicrok8s  {}  8000  {}  canonical✓  classic\n",
                version(&snap.channel),
                snap.channel
            )),
            None => Outcome::failed(1, "error: no matching snaps installed"),
        },
        ["install", "microk8s", ..] => match wanted.map(channel) {
            None => Outcome::not_simulated("snap install microk8s without a channel"),
            Some(Err(text)) => Outcome::failed(1, text),
            Some(Ok(strict)) if strict == has("--classic") => Outcome::failed(
                1,
                "error: This revision of snap \"microk8s\" was published using classic confinement and thus may perform arbitrary system changes",
            ),
            Some(Ok(_)) => install(system, wanted.unwrap_or_default()).await,
        },
        ["refresh", "microk8s", ..] => match wanted.map(channel) {
            None => Outcome::not_simulated(&words.join(" ")),
            Some(Err(text)) => Outcome::failed(1, text),
            Some(Ok(_)) => refresh(system, wanted.unwrap_or_default()).await,
        },
        ["refresh", flag, "microk8s"] if flag.starts_with("--hold") => {
            system.disk(|disk| disk.snap.iter_mut().for_each(|snap| snap.held = true));
            Outcome::fine("General refreshes of \"microk8s\" held indefinitely\n")
        }
        ["remove", "--purge", "microk8s"] | ["remove", "microk8s", "--purge"] => {
            system.takes(20).await;
            drop_member(system, false).await;
            system.disk(|disk| {
                disk.snap = None;
                disk.cluster = None;
                disk.files.retain(|path, _| !path.starts_with(COMMON));
            });
            Outcome::fine("microk8s removed\n")
        }
        _ => Outcome::not_simulated(&words.join(" ")),
    }
}

/// The machine is no longer what its cluster knows; the cluster forgets it only when it left in order.
pub(super) async fn drop_member(system: &System, orderly: bool) {
    let Some(cluster) = system.disk(|disk| disk.cluster.clone()) else { return };
    if orderly {
        return cluster.remove(&system.hostname()).await;
    }
    if let Some(address) = system.address()
        && let Some(member) = cluster.state().members.get_mut(&address)
    {
        member.up = false;
    }
}

async fn install(system: &Arc<System>, channel: &str) -> Outcome {
    if system.disk(|disk| disk.snap.is_some()) {
        return Outcome::fine("snap \"microk8s\" is already installed, see 'snap help refresh'\n");
    }
    if system.address().is_none() {
        return Outcome::failed(
            1,
            "error: cannot install \"microk8s\": dial tcp: lookup api.snapcraft.io: no such host",
        );
    }
    system.takes(60).await;
    let launch = match LAUNCH.iter().find_map(|path| system.read(path)) {
        Some(text) => match serde_saphyr::from_str::<Value>(&text) {
            Ok(launch) if launch["version"].is_string() => launch,
            _ => {
                return Outcome::failed(
                    1,
                    "error: cannot perform the following tasks:\n- Run install hook of \"microk8s\" snap if present (run hook \"install\": the launch configuration is not valid)",
                );
            }
        },
        None => json!({"version": "0.1.0", "addons": [{"name": "dns"}]}),
    };
    if launch.get("join").is_some() {
        // The agent would apply it again and again.
        return Outcome::not_simulated("join in a launch configuration");
    }
    let cluster = match Cluster::new(system, channel, &launch) {
        Ok(cluster) => cluster,
        Err(problem) => return Outcome::failed(1, problem),
    };
    if let Some(token) = launch["persistentClusterToken"].as_str() {
        cluster.state().tokens.insert(token.to_owned());
    }
    system.takes(START).await;
    // All at once: what a machine that loses power in the middle has of it, snapd takes away again at the next boot.
    let (kept, held) = (cluster.clone(), channel.to_owned());
    system.disk(|disk| {
        disk.snap = Some(Snap { channel: held, held: false });
        disk.cluster = Some(kept);
    });
    cluster.enter(system, channel).await;
    for entry in launch["addons"].as_array().into_iter().flatten() {
        let name = entry["name"].as_str().unwrap_or_default();
        let arguments: Vec<&str> = entry["args"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if let Err(problem) = addon::enable(&cluster.api, channel, name, &arguments.join(" ")).await {
            return problem;
        }
        cluster.state().addons.insert(name.to_owned());
    }
    Outcome::fine(format!("microk8s ({channel}) {} from Canonical✓ installed\n", version(channel)))
}

async fn refresh(system: &Arc<System>, channel: &str) -> Outcome {
    let Some(cluster) = system.disk(|disk| disk.snap.as_ref().and(disk.cluster.clone())) else {
        return Outcome::failed(1, "error: snap \"microk8s\" is not installed");
    };
    let Some(address) = system.address() else { return Outcome::failed(1, "error: no network") };
    let set = |up: bool| {
        if let Some(member) = cluster.state().members.get_mut(&address) {
            member.up = up;
            if up {
                member.channel = channel.to_owned();
                member.told = None;
            }
        }
    };
    set(false);
    system.takes(30).await;
    system.disk(|disk| disk.snap.iter_mut().for_each(|snap| channel.clone_into(&mut snap.channel)));
    system.takes(START).await;
    set(true);
    cluster.heartbeat(system.datacenter.now()).await;
    Outcome::fine(format!("microk8s ({channel}) {} from Canonical✓ refreshed\n", version(channel)))
}
