//! What is done in a node, through its guest agent.

use super::channel::{Addon, Channel};
use crate::client::{Client, Error as Failed, Problem};
use crate::provider::Proxmox;
use lab_core::{
    Change, Class, Error, Found, Impact, Made, Op, Order, Owner, Path, Query, Resource, Result, Secret, Step,
};
use rand::RngCore;
use rand::rngs::OsRng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::time::Duration;

const DONE: &str = "/var/lib/lab/microk8s.done";
const FAILED: &str = "/var/lib/lab/microk8s.err";
const ADMIN: &str = "/var/snap/microk8s/current/credentials/client.config";
const BACKEND: &str = "/var/snap/microk8s/current/var/kubernetes/backend/cluster.yaml";
const MICROK8S: &str = "/snap/bin/microk8s";
const PAUSE: Duration = Duration::from_secs(10);
/// Makes the cluster forget the node `$1`, unless a member answers at its address `$2`. What is known of the node may be
/// older than its last attempt to join, and a member that is forgotten never serves again. The datastore of who is no
/// member answers on loopback only.
const FORGET: &str = "if timeout 3 bash -c \"exec 3<>/dev/tcp/$2/19001\" 2>/dev/null; then echo \"$1 is a member\"; exit 3; fi\n\
                      /snap/bin/microk8s remove-node \"$1\" --force";

/// The token that nodes join with: generated once, and kept in the state only, sealed. Whoever has it has the cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Token {
    /// Which cluster it is for.
    pub cluster: String,
}

/// What a [`Token`] yields.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TokenOutputs {
    /// 64 hexadecimal digits; MicroK8s wants 32 characters or more.
    pub token: Secret<String>,
}

impl Resource<Proxmox> for Token {
    const TYPE: &'static str = "microk8s:token";
    const ONCE: bool = true;
    const GENERATED: bool = true;
    type Outputs = TokenOutputs;

    async fn find(_: &Client, _: &Op<Token>) -> Result<Found<TokenOutputs>> {
        Ok(Found::Absent)
    }

    async fn apply(&self, _: &Client, _: &Op<Token>) -> Result<Step<TokenOutputs>> {
        let mut bytes = [0_u8; 32];
        // The operation's own randomness is stored in clear.
        OsRng.fill_bytes(&mut bytes);
        let token = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Step::Done(Made::new(self.cluster.as_str(), TokenOutputs { token: Secret::new(token) })))
    }

    async fn delete(_: &Client, _: &Op<Token>) -> Result<Step<()>> {
        Ok(Step::gone())
    }
}

/// A node as a member of its cluster.
///
/// A new machine becomes one by itself; this waits until it says so in a file. Later it takes it to another channel, and
/// turns on what is added to its add-ons; one that is taken out stays on, as what lives on it would go with it. When its
/// line goes, its pods are moved away and the cluster forgets it, before its machine goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Member {
    /// The number of its machine.
    pub vmid: u32,
    /// The name of the node.
    pub name: String,
    /// The channel.
    pub channel: Channel,
    /// Its address. The cluster is told to forget a dead predecessor of it only as long as no member answers there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// The numbers of the others' machines: who is told when it leaves.
    pub peers: Vec<u32>,
    /// Whether it may go back to the minor version before: its machine was set back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rollback: bool,
    /// What it turns on for the cluster. Only its founder does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addons: Vec<Addon>,
}

/// What a [`Member`] yields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberOutputs {
    /// The name of the node.
    pub name: String,
    /// The channel it runs.
    pub channel: Channel,
}

/// Where an operation in a guest stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum At {
    /// A program runs in this machine, as this process.
    Runs { vmid: u32, pid: u64, stage: Stage },
    /// The stage is next, in this machine.
    Next { vmid: u32, stage: Stage },
}

/// What is done to a node, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    Refresh,
    Ready,
    /// The add-on of this number, of those that are to be turned on.
    Enable(usize),
    Drain,
    Remove,
    Act,
}

/// What a stage came to.
enum Came<O> {
    /// It goes on.
    On(Step<O>),
    /// It is done, with this code and this output.
    Ended(u64, String),
}

/// Lets a stage's program run to its end: begun once, then asked for.
async fn run<O>(client: &Client, at: At, command: &[&str]) -> Result<Came<O>> {
    let next = |at: &At, why: String| Step::next(json!(at), why, PAUSE);
    let shown = command.join(" ");
    match at {
        At::Next { vmid, stage } => match client.run(vmid, command).await {
            Ok(pid) => Ok(Came::On(next(&At::Runs { vmid, pid, stage }, format!("VM {vmid} runs `{shown}`")))),
            Err(error) if quiet(&error) => Ok(Came::On(next(&At::Next { vmid, stage }, error.to_string()))),
            Err(error) => Err(error.into()),
        },
        At::Runs { vmid, pid, stage } => match client.ran(vmid, pid).await {
            Ok(Some(ran)) => Ok(Came::Ended(ran.code, format!("{}{}", ran.output, ran.error))),
            Ok(None) => Ok(Came::On(next(&At::Runs { vmid, pid, stage }, format!("VM {vmid} runs `{shown}`")))),
            Err(error) if quiet(&error) => Ok(Came::On(next(&At::Runs { vmid, pid, stage }, error.to_string()))),
            // The guest has booted meanwhile and knows nothing of it: every command here may be given again.
            Err(Failed { problem: Problem::Agent(_), .. }) => {
                Ok(Came::On(next(&At::Next { vmid, stage }, format!("VM {vmid} has lost `{shown}`"))))
            }
            Err(error) => Err(error.into()),
        },
    }
}

/// Returns true when the guest only has to be asked again: it boots.
fn quiet(error: &Failed) -> bool {
    matches!(error.problem, Problem::AgentSilent | Problem::NotRunning | Problem::Timeout)
}

fn failed(command: &[&str], code: u64, output: &str) -> Error {
    let last = output.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    Error::again(format!("`{}` ended with {code}: {last}", command.join(" ")))
}

/// Returns the channel that a node has set itself up with; why not, while it has not.
async fn set_up(client: &Client, vmid: u32) -> Result<std::result::Result<String, String>> {
    let told = |file| async move {
        match client.read_file(vmid, file).await {
            Ok(text) => Ok(Ok(text)),
            Err(error) if quiet(&error) => Ok(Err(error.to_string())),
            Err(error) => Err(Error::from(error)),
        }
    };
    match told(DONE).await? {
        Ok(Some(channel)) => Ok(Ok(channel.trim().to_owned())),
        Ok(None) => match told(FAILED).await? {
            Ok(Some(said)) => Ok(Err(format!("VM {vmid} tries again: {}", said.trim()))),
            Ok(None) => Ok(Err(format!("VM {vmid} is being set up"))),
            Err(why) => Ok(Err(why)),
        },
        Err(why) => Ok(Err(why)),
    }
}

fn cursor<R>(op: &Op<R>) -> Option<At> {
    op.cursor.clone().and_then(|cursor| serde_json::from_value(cursor).ok())
}

impl Member {
    /// Returns the add-ons that were not there before; all of them, where nothing is known of before.
    fn missing(&self, prior: Option<&Member>) -> Vec<Addon> {
        let known = |addon: &Addon| prior.is_some_and(|prior| prior.addons.iter().any(|on| on.name() == addon.name()));
        self.addons.iter().filter(|addon| !known(addon)).cloned().collect()
    }

    /// Returns why an add-on cannot become what is said of it now, if it cannot.
    fn fixed(&self, prior: &Member) -> Option<String> {
        let range = |member: &Member| {
            member.addons.iter().find_map(|addon| if let Addon::Metallb(range) = addon { Some(*range) } else { None })
        };
        let (was, is) = (range(prior)?, range(self)?);
        (was != is).then(|| {
            format!(
                "MetalLB keeps the range that it was turned on with, {was}: MicroK8s passes over an add-on that is on. \
                 Declare that range here, and {is} as a pool beside it: `MetalLb {{ install: Install::Existing, .. }}`"
            )
        })
    }

    fn turned_on(&self, prior: Option<&Member>) -> Vec<(Path, String)> {
        let said = |addon: Addon| (Path::from("/addons"), format!("turns on {}", addon.name()));
        self.missing(prior).into_iter().map(said).collect()
    }

    fn made(&self) -> Step<MemberOutputs> {
        let outputs = MemberOutputs { name: self.name.clone(), channel: self.channel };
        Step::Done(Made::new(format!("node {}", self.name), outputs))
    }
}

impl Resource<Proxmox> for Member {
    const TYPE: &'static str = "microk8s:member";
    type Outputs = MemberOutputs;

    fn change(&self, prior: &Member, _: Option<&Value>) -> Change {
        if let Some(why) = self.fixed(prior) {
            return Change::Refuse(vec![(Path::from("/addons"), why)]);
        }
        if self.rollback && prior.channel.follows(self.channel) && self.name == prior.name {
            let reason = format!("MicroK8s goes back from {} to {}", prior.channel, self.channel);
            return Change::Update(Impact {
                reasons: vec![(Path::from("/channel"), reason)],
                unknown: vec![Path::from("/channel")],
                ..Impact::default()
            });
        }
        if let Some(why) = prior.channel.refuses(self.channel) {
            return Change::Refuse(vec![(Path::from("/channel"), why)]);
        }
        if self.name != prior.name {
            return Change::Refuse(vec![(Path::from("/name"), "a node keeps its name for life".into())]);
        }
        if self.channel != prior.channel {
            let reason = format!("MicroK8s goes from {} to {}", prior.channel, self.channel);
            let mut reasons = vec![(Path::from("/channel"), reason)];
            for addon in &self.addons {
                let advice = addon.advice(prior.channel, self.channel);
                reasons.extend(advice.map(|advice| (Path::from("/addons"), format!("{}: {advice}", addon.name()))));
            }
            reasons.extend(self.turned_on(Some(prior)));
            return Change::Update(Impact {
                reasons,
                interrupts: Some(format!("the pods of {} move to other nodes while it restarts", self.name)),
                unknown: vec![Path::from("/channel")],
                ..Impact::default()
            });
        }
        if self.vmid != prior.vmid {
            // The cluster forgets the old machine before the new one joins: a dead voter is one too many.
            let reason = (Path::from("/vmid"), "another machine is another member".to_owned());
            let interrupts = Some(format!("the pods of {} move to other nodes", self.name));
            return Change::Replace(
                Impact { reasons: vec![reason], interrupts, ..Impact::default() },
                Order::DeleteFirst,
            );
        }
        match self.turned_on(Some(prior)) {
            reasons if reasons.is_empty() => Change::None,
            reasons => Change::Update(Impact { reasons, ..Impact::default() }),
        }
    }

    // It becomes one by itself, whenever its machine has set itself up. So it is nobody else's before it is recorded,
    // and afterwards it is there as long as the machine is.
    async fn find(client: &Client, op: &Op<Member>) -> Result<Found<MemberOutputs>> {
        let Some(member) = &op.inputs else { return Err(Error::invalid("what was recorded can no longer be read")) };
        if op.id.is_none() || (!op.deleting && client.locate(member.vmid).await?.is_none()) {
            return Ok(Found::Absent);
        }
        Ok(Found::Present(Owner::Unmarkable, member.made()))
    }

    async fn apply(&self, client: &Client, op: &Op<Member>) -> Result<Step<MemberOutputs>> {
        let vmid = self.vmid;
        let at = match cursor(op) {
            Some(at) => at,
            None => match set_up(client, vmid).await? {
                // Its predecessor of the same address died without leaving.
                Err(why) if why.contains("already known") && self.address.is_some() => {
                    match living(client, &self.peers).await? {
                        Some(vmid) => At::Next { vmid, stage: Stage::Remove },
                        None => return Ok(Step::next(Value::Null, why, PAUSE)),
                    }
                }
                Err(why) => return Ok(Step::next(Value::Null, why, PAUSE)),
                // A new machine has installed what it was told; one that was there before is taken to what is wanted.
                Ok(channel) if channel == self.channel.to_string() && !op.exists => return Ok(self.made()),
                Ok(_) if op.exists && op.inputs.as_ref().is_some_and(|prior| prior.channel == self.channel) => {
                    At::Next { vmid, stage: Stage::Enable(0) }
                }
                Ok(_) => At::Next { vmid, stage: Stage::Refresh },
            },
        };
        let stage = match &at {
            At::Runs { stage, .. } | At::Next { stage, .. } => *stage,
        };
        let channel = format!("--channel={}", self.channel);
        let refresh = ["/usr/bin/snap", "refresh", "microk8s", channel.as_str()];
        let ready = [MICROK8S, "status", "--wait-ready", "--timeout", "600"];
        let address = self.address.map(|address| address.to_string()).unwrap_or_default();
        let remove = ["/bin/bash", "-c", FORGET, "forget", self.name.as_str(), address.as_str()];
        let missing = self.missing(op.inputs.as_ref().filter(|_| op.exists));
        let argument;
        let enable;
        let command: &[&str] = match stage {
            Stage::Refresh => &refresh,
            Stage::Remove => &remove,
            Stage::Enable(n) => match missing.get(n) {
                Some(addon) => {
                    argument = addon.argument();
                    enable = [MICROK8S, "enable", argument.as_str()];
                    &enable
                }
                None => return Ok(self.made()),
            },
            Stage::Ready | Stage::Drain | Stage::Act => &ready,
        };
        match run(client, at, command).await? {
            Came::On(step) => Ok(step),
            Came::Ended(code, output) if stage == Stage::Remove => {
                let why = match code {
                    0 => format!("{} joins in the place of the one before it", self.name),
                    _ => failed(&["forget", &self.name], code, &output).message,
                };
                Ok(Step::next(Value::Null, why, PAUSE))
            }
            Came::Ended(0, _) if stage == Stage::Refresh => {
                let at = At::Next { vmid, stage: Stage::Ready };
                Ok(Step::next(json!(at), format!("{} restarts", self.name), Duration::ZERO))
            }
            Came::Ended(0, _) if op.exists => {
                let next = if let Stage::Enable(n) = stage { n + 1 } else { 0 };
                let Some(addon) = missing.get(next) else { return Ok(self.made()) };
                let at = At::Next { vmid, stage: Stage::Enable(next) };
                Ok(Step::next(json!(at), format!("{} is turned on", addon.name()), Duration::ZERO))
            }
            Came::Ended(0, _) => Ok(self.made()),
            Came::Ended(code, output) => {
                let why = failed(command, code, &output);
                Ok(Step::next(json!(At::Next { vmid, stage }), why.message, PAUSE))
            }
        }
    }

    async fn delete(client: &Client, op: &Op<Member>) -> Result<Step<()>> {
        let Some(member) = &op.inputs else { return Ok(Step::gone()) };
        let at = match cursor(op) {
            Some(at) => at,
            None => match living(client, &member.peers).await? {
                Some(vmid) => At::Next { vmid, stage: Stage::Drain },
                // Nobody is left who would remember it.
                None => return Ok(Step::gone()),
            },
        };
        let (vmid, stage) = match &at {
            At::Runs { vmid, stage, .. } | At::Next { vmid, stage } => (*vmid, *stage),
        };
        let name = member.name.as_str();
        let drain = drain(name);
        let remove = [MICROK8S, "remove-node", name, "--force"];
        let command: &[&str] = if stage == Stage::Drain { &drain } else { &remove };
        let came = match run(client, at, command).await {
            // The machine that was asked has gone meanwhile, as it does when the whole cluster goes.
            Err(error) if error.class == Class::Gone => {
                let why = format!("VM {vmid} is gone: another member is asked");
                return Ok(Step::next(Value::Null, why, Duration::ZERO));
            }
            came => came?,
        };
        match came {
            Came::On(step) => Ok(step),
            // Pods that have nowhere to go do not keep a node.
            Came::Ended(..) if stage == Stage::Drain => {
                let at = At::Next { vmid, stage: Stage::Remove };
                Ok(Step::next(json!(at), format!("{name} leaves the cluster"), Duration::ZERO))
            }
            Came::Ended(0, _) => Ok(Step::gone()),
            Came::Ended(_, output) if output.contains("not found") || output.contains("does not exist") => {
                Ok(Step::gone())
            }
            // Nobody is left who would remember it.
            Came::Ended(..) if alone(client, member.vmid).await? => Ok(Step::gone()),
            // Who has left meanwhile serves no more, and who has lost its majority waits for it: others may know.
            Came::Ended(code, output) => {
                let from = member.peers.iter().position(|peer| *peer == vmid).map_or(0, |at| at + 1);
                let (before, after) = member.peers.split_at(from);
                let next = living(client, &[after, before].concat()).await?;
                let why = format!("VM {vmid}: {}", failed(command, code, &output).message);
                Ok(Step::next(json!(next.map(|vmid| At::Next { vmid, stage: Stage::Drain })), why, PAUSE))
            }
        }
    }
}

/// Returns true if the datastore of a machine knows of no other member. It notes every half minute who its members are, as
/// long as it has a majority of them.
async fn alone(client: &Client, vmid: u32) -> Result<bool> {
    match client.read_file(vmid, BACKEND).await {
        Ok(backend) => Ok(backend.is_some_and(|text| text.matches("Address:").count() == 1)),
        Err(error) if quiet(&error) || error.problem == Problem::Missing => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn drain(name: &str) -> [&str; 7] {
    [MICROK8S, "kubectl", "drain", name, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=300s"]
}

/// Returns the first of some machines whose guest agent answers.
async fn living(client: &Client, machines: &[u32]) -> Result<Option<u32>> {
    for vmid in machines {
        match client.agent_answers(*vmid).await {
            Ok(true) => return Ok(Some(*vmid)),
            Ok(false) => {}
            Err(error) if error.problem == Problem::Missing => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// The way into a cluster's Kubernetes API, read from a node through its guest agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kubeconfig {
    /// The numbers of the nodes' machines and their addresses; the first that answers is asked.
    pub nodes: Vec<(u32, Ipv4Addr)>,
    /// The URL of the Kubernetes API, where it is not at the node that was asked.
    pub server: Option<String>,
}

/// What a [`Kubeconfig`] yields.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KubeconfigOutputs {
    /// The kubeconfig, as YAML.
    pub kubeconfig: Secret<String>,
}

impl Resource<Proxmox> for Kubeconfig {
    const TYPE: &'static str = "microk8s:kubeconfig";
    const GENERATED: bool = true;
    type Outputs = KubeconfigOutputs;

    fn change(&self, prior: &Kubeconfig, _: Option<&Value>) -> Change {
        // Who is asked makes no difference while the one that was asked is still there.
        let asked = |config: &Kubeconfig| (config.server.clone(), config.nodes.first().copied());
        if asked(self) == asked(prior) {
            return Change::None;
        }
        Change::Update(Impact { unknown: vec![Path::root()], ..Impact::default() })
    }

    async fn find(_: &Client, _: &Op<Kubeconfig>) -> Result<Found<KubeconfigOutputs>> {
        Ok(Found::Absent)
    }

    async fn apply(&self, client: &Client, _: &Op<Kubeconfig>) -> Result<Step<KubeconfigOutputs>> {
        let mut last = "a cluster needs a node".to_owned();
        for (vmid, address) in &self.nodes {
            match client.read_file(*vmid, ADMIN).await {
                Ok(Some(text)) => {
                    let server = self.server.clone().unwrap_or_else(|| format!("https://{address}:16443"));
                    let Some(kubeconfig) = pointed(&text, &server) else {
                        last = format!("the kubeconfig of VM {vmid} names no server");
                        continue;
                    };
                    let outputs = KubeconfigOutputs { kubeconfig: Secret::new(kubeconfig) };
                    return Ok(Step::Done(Made::new("kubeconfig", outputs)));
                }
                Ok(None) => last = format!("VM {vmid} has no kubeconfig yet"),
                Err(error) if quiet(&error) || error.problem == Problem::Missing => last = error.to_string(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Step::next(Value::Null, last, PAUSE))
    }

    async fn delete(_: &Client, _: &Op<Kubeconfig>) -> Result<Step<()>> {
        Ok(Step::gone())
    }
}

/// Returns a kubeconfig with another server in it: a node names itself by loopback.
fn pointed(text: &str, server: &str) -> Option<String> {
    let mut found = false;
    let lines = text.lines().map(|line| match line.split_once("server:") {
        Some((before, _)) if before.trim().is_empty() || before.trim() == "-" => {
            found = true;
            format!("{before}server: {server}\n")
        }
        _ => format!("{line}\n"),
    });
    let pointed: String = lines.collect();
    found.then_some(pointed)
}

/// Something that is done once in a node, around an interruption of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// The number of its machine.
    pub vmid: u32,
    /// The name of the node.
    pub name: String,
    /// What is done.
    pub deed: Deed,
}

/// What is done around an interruption.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deed {
    /// Writes the datastore to this file in the node.
    Backup(String),
    /// Moves its pods to other nodes.
    Drain,
    /// Lets pods come back.
    Uncordon,
}

/// What an [`Act`] yields: nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acted {}

impl Resource<Proxmox> for Act {
    const TYPE: &'static str = "microk8s:act";
    const ONCE: bool = true;
    type Outputs = Acted;

    async fn find(_: &Client, _: &Op<Act>) -> Result<Found<Acted>> {
        Ok(Found::Absent)
    }

    async fn apply(&self, client: &Client, op: &Op<Act>) -> Result<Step<Acted>> {
        let at = cursor(op).unwrap_or(At::Next { vmid: self.vmid, stage: Stage::Act });
        let drain = drain(&self.name);
        let uncordon = [MICROK8S, "kubectl", "uncordon", &self.name];
        let backup;
        let command: &[&str] = match &self.deed {
            Deed::Backup(file) => {
                backup = [MICROK8S, "dbctl", "backup", file];
                &backup
            }
            Deed::Drain => &drain,
            Deed::Uncordon => &uncordon,
        };
        match run(client, at, command).await? {
            Came::On(step) => Ok(step),
            Came::Ended(0, _) => Ok(Step::Done(Made::new(self.name.as_str(), Acted {}))),
            // A budget that lets no pod go, an API that is away for a moment: tried again until its time is up.
            Came::Ended(code, output) => {
                let at = At::Next { vmid: self.vmid, stage: Stage::Act };
                Ok(Step::next(json!(at), failed(command, code, &output).message, PAUSE))
            }
        }
    }

    async fn delete(_: &Client, _: &Op<Act>) -> Result<Step<()>> {
        Ok(Step::gone())
    }
}

/// Asks whether every node is a member and enough of them vote, so that one may be taken away: a gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Healthy {
    /// The numbers of the nodes' machines and their addresses.
    pub nodes: Vec<(u32, Ipv4Addr)>,
}

impl Query<Proxmox> for Healthy {
    const TYPE: &'static str = "microk8s:healthy";
    type Answer = usize;

    async fn read(&self, client: &Client) -> Result<Step<usize>> {
        let mut voters = usize::MAX;
        for (vmid, _) in &self.nodes {
            let backend = match client.read_file(*vmid, BACKEND).await {
                Ok(Some(text)) => text,
                Ok(None) => return Ok(Step::next(Value::Null, format!("VM {vmid} has no datastore"), PAUSE)),
                Err(error) if quiet(&error) => return Ok(Step::next(Value::Null, error.to_string(), PAUSE)),
                Err(error) => return Err(error.into()),
            };
            for (_, address) in &self.nodes {
                if self.nodes.len() > 1 && !backend.contains(&format!("{address}:19001")) {
                    let why = format!("{address} is no member for VM {vmid}");
                    return Ok(Step::next(Value::Null, why, PAUSE));
                }
            }
            voters =
                voters.min(backend.lines().filter(|line| line.trim().trim_start_matches("- ") == "Role: 0").count());
        }
        let needed = self.nodes.len().min(3);
        if voters < needed {
            let why = format!("{voters} nodes vote, and {needed} are needed");
            return Ok(Step::next(Value::Null, why, PAUSE));
        }
        Ok(Step::Done(Made::new("healthy", voters)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_is_pointed_at_the_node_instead_of_loopback() {
        let text = "clusters:\n- cluster:\n    certificate-authority-data: x\n    server: https://127.0.0.1:16443\n  name: a\n";
        let pointed = pointed(text, "https://192.168.10.21:16443").unwrap();
        assert_eq!(pointed, text.replace("127.0.0.1", "192.168.10.21"));
        assert_eq!(super::pointed("clusters: []", "x"), None);
    }

    #[test]
    fn metallb_does_not_give_out_other_addresses_than_it_was_turned_on_with() {
        let member = |addons: Vec<Addon>| Member {
            vmid: 11001,
            name: "dev-1".into(),
            channel: "1.34/stable".parse().unwrap(),
            address: None,
            peers: Vec::new(),
            rollback: false,
            addons,
        };
        let range = |text: &str| Addon::Metallb(text.parse().unwrap());
        let (low, high) = (range("192.168.10.200-192.168.10.209"), range("192.168.10.210-192.168.10.219"));
        let judged = |from: &[&Addon], to: &[&Addon]| {
            let [from, to] = [from, to].map(|addons| member(addons.iter().map(|addon| (*addon).clone()).collect()));
            to.change(&from, None)
        };
        assert!(matches!(judged(&[&low], &[&low]), Change::None));
        assert!(matches!(judged(&[&Addon::Ingress], &[&Addon::Ingress, &low]), Change::Update(_)));
        assert!(matches!(judged(&[&low], &[]), Change::None), "what is on stays on");
        let Change::Refuse(reasons) = judged(&[&low], &[&high]) else { panic!("it would be passed over in silence") };
        let said = &reasons[0].1;
        assert!(said.starts_with("MetalLB keeps the range that it was turned on with, 192.168.10.200-"), "{said}");
        assert!(said.contains("Declare that range here, and 192.168.10.210-"), "{said}");
    }

    #[test]
    fn a_member_is_taken_one_minor_version_further_and_never_back() {
        let member = |channel: &str| Member {
            vmid: 11001,
            name: "dev-1".into(),
            channel: channel.parse().unwrap(),
            address: None,
            peers: Vec::new(),
            rollback: false,
            addons: vec![Addon::Ingress],
        };
        let judged = |from: &str, to: &str| member(to).change(&member(from), None);
        assert!(matches!(judged("1.34/stable", "1.34/stable"), Change::None));
        let Change::Update(impact) = judged("1.33/stable", "1.34/stable") else { panic!("it is an update") };
        assert_eq!(impact.interrupts.unwrap(), "the pods of dev-1 move to other nodes while it restarts");
        assert!(matches!(judged("1.32/stable", "1.34/stable"), Change::Refuse(_)));
        assert!(matches!(judged("1.34/stable", "1.33/stable"), Change::Refuse(_)));
        // What a person should know of an add-on is said where it happens.
        let Change::Update(impact) = judged("1.34/stable", "1.35/stable") else { panic!("it is an update") };
        assert!(impact.reasons[1].1.starts_with("ingress: its controller becomes Traefik"), "{:?}", impact.reasons);
        // Back is one version, and only when that is said.
        let back = |from: &str, to: &str| Member { rollback: true, ..member(to) }.change(&member(from), None);
        let Change::Update(impact) = back("1.34/stable", "1.33/stable") else { panic!("it is an update") };
        assert_eq!(impact.reasons[0].1, "MicroK8s goes back from 1.34/stable to 1.33/stable");
        assert!(matches!(back("1.35/stable", "1.33/stable"), Change::Refuse(_)));
    }
}
