//! MicroK8s in guests: the snap, the join protocol, and the Kubernetes API that the members of a cluster serve.

use super::super::datacenter::Datacenter;
use super::addon;
use super::system::{Outcome, System};
use super::{Disk, Guest};
use crate::faults::Fault;
use crate::kube;
use crate::proxy::Dial;
use crate::tls::{self, Authority, Clients, Leaf, Purpose};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

const COMMON: &str = "/var/snap/microk8s";
const BACKEND: &str = "/var/snap/microk8s/current/var/kubernetes/backend/cluster.yaml";
const ADMIN: &str = "/var/snap/microk8s/current/credentials/client.config";
const JOINING: &str = "/var/snap/microk8s/current/var/lock/join-in-progress";
/// Where the launch configuration is looked for, in this order.
const LAUNCH: [&str; 3] =
    ["/etc/microk8s.yaml", "/root/snap/microk8s/common/.microk8s.yaml", "/var/snap/microk8s/common/.microk8s.yaml"];
/// How often the nodes' health is looked at.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long the services take to start.
const START: u64 = 20;

/// The snap of MicroK8s, installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snap {
    pub(super) channel: String,
    pub(super) held: bool,
}

/// A cluster of MicroK8s.
pub(in super::super) struct Cluster {
    /// Counted in the order of their birth.
    pub(in super::super) number: u64,
    pub(in super::super) api: kube::Api,
    /// The authority's certificate and key, each base64 of PEM.
    authority: (String, String),
    /// What `client.config` says.
    admin: String,
    sans: Vec<String>,
    state: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    members: BTreeMap<IpAddr, Member>,
    /// Whether it was ever more than one machine: only then its datastore listens to others.
    clustered: bool,
    tokens: BTreeSet<String>,
    addons: BTreeSet<String>,
}

struct Member {
    name: String,
    id: u64,
    guest: Guest,
    /// The services are up in this life of the guest.
    up: bool,
    channel: String,
    /// What the API was told last.
    told: Option<bool>,
    cores: u64,
    memory: u64,
    disk: u64,
}

impl Member {
    fn runs(&self) -> bool {
        self.up && self.guest.is_alive()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.api.stop();
    }
}

impl Cluster {
    fn new(system: &System, channel: &str, launch: &Value) -> Result<Arc<Cluster>, String> {
        let datacenter = &system.datacenter;
        let world = datacenter.world().ok_or("the world has ended")?;
        let number = world.next_number();
        let algorithm = &rcgen::PKCS_ECDSA_P256_SHA256;
        let (authority, certificate, key) =
            Authority::generate(Some("microk8s"), algorithm).map_err(|error| error.to_string())?;
        let now = datacenter.now();
        let leaf = Leaf {
            common_name: Some("admin".to_owned()),
            organizations: vec!["system:masters".to_owned()],
            addresses: Vec::new(),
            names: Vec::new(),
            from: now - Duration::from_secs(3600),
            until: now + Duration::from_secs(3650 * 24 * 3600),
            purpose: Purpose::Client,
        };
        let issued = authority.issue(leaf, algorithm).map_err(|error| error.to_string())?;
        let admin = format!(
            "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {certificate}\n    server: https://127.0.0.1:16443\n  \
             name: microk8s-cluster\ncontexts:\n- context:\n    cluster: microk8s-cluster\n    user: admin\n  name: microk8s\n\
             current-context: microk8s\nkind: Config\npreferences: {{}}\nusers:\n- name: admin\n  user:\n    \
             client-certificate-data: {}\n    client-key-data: {}\n",
            STANDARD.encode(&issued.certificate_pem),
            STANDARD.encode(&issued.key_pem),
        );
        let mut options = kube::Options::new(version(channel), datacenter.clock.clone());
        options.seed = world.seed.wrapping_add(number);
        let api = kube::Api::new(options);
        let pem = tls::decode_pem(&certificate).unwrap_or_default();
        let mut settings = kube::controllers::Settings { authority: pem, ..kube::controllers::Settings::default() };
        settings.provisioners.insert("microk8s.io/hostpath".to_owned());
        api.start_controllers(settings);
        faults(&api, system);
        let sans = launch["extraSANs"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
        let cluster = Arc::new(Cluster {
            number,
            api,
            authority: (certificate, key),
            admin,
            sans: sans.collect(),
            state: Mutex::default(),
        });
        // Tells the API which nodes are well, as long as there is a cluster.
        let (weak, clock) = (Arc::downgrade(&cluster), datacenter.clock.clone());
        datacenter.spawn(async move {
            loop {
                clock.sleep(HEARTBEAT).await;
                let Some(cluster) = weak.upgrade() else { return };
                cluster.heartbeat(clock.now());
            }
        });
        Ok(cluster)
    }

    fn state(&self) -> MutexGuard<'_, Members> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a majority of the voters, the first three, runs.
    fn has_quorum(&self) -> bool {
        let state = self.state();
        let mut voters: Vec<&Member> = state.members.values().collect();
        voters.sort_by_key(|member| member.id);
        voters.truncate(3);
        voters.iter().filter(|member| member.runs()).count() * 2 > voters.len()
    }

    fn enter(&self, system: &System, channel: &str) {
        let Some(address) = system.address() else { return };
        let (cores, memory, disk) = system.datacenter.size(system.id);
        let id = system.datacenter.count();
        let member = Member {
            name: system.hostname(),
            id,
            guest: system.guest.clone(),
            up: true,
            channel: channel.to_owned(),
            told: None,
            cores,
            memory,
            disk,
        };
        let mut state = self.state();
        state.members.insert(address, member);
        state.clustered |= state.members.len() > 1;
        drop(state);
        self.heartbeat(system.datacenter.now());
    }

    fn heartbeat(&self, now: SystemTime) {
        let mut changed = Vec::new();
        {
            let mut state = self.state();
            for (address, member) in &mut state.members {
                let ready = member.runs();
                if member.told.replace(ready) != Some(ready) {
                    changed.push((
                        *address,
                        member.name.clone(),
                        ready,
                        version(&member.channel),
                        member.cores,
                        member.memory,
                        member.disk,
                    ));
                }
            }
        }
        for (address, name, ready, version, cores, memory, disk) in changed {
            let labels = json!({
                "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
                "microk8s.io/cluster": "true", "node.kubernetes.io/microk8s-controlplane": "microk8s-controlplane",
            });
            let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
            self.api.call("PATCH", &format!("/api/v1/nodes/{name}?fieldManager=kubelet&force=true"), &node);
            let status = if ready { "True" } else { "Unknown" };
            let time = prost_types::Timestamp {
                seconds: i64::try_from(super::super::datacenter::seconds(now)).unwrap_or_default(),
                nanos: 0,
            }
            .to_string();
            let (reason, message) = match ready {
                true => ("KubeletReady", "kubelet is posting ready status"),
                false => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            };
            let capacity = json!({
                "cpu": cores.to_string(), "memory": format!("{}Ki", memory / 1024), "ephemeral-storage": format!("{}Ki", disk / 1024),
                "pods": "110",
            });
            let node = json!({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
                "status": {
                    "addresses": [{"type": "InternalIP", "address": address.to_string()}, {"type": "Hostname", "address": name}],
                    "capacity": capacity, "allocatable": capacity,
                    "conditions": [{
                        "type": "Ready", "status": status, "reason": reason, "message": message,
                        "lastHeartbeatTime": time, "lastTransitionTime": time,
                    }],
                    "nodeInfo": {
                        "architecture": "amd64", "operatingSystem": "linux", "kubeletVersion": version, "kubeProxyVersion": version,
                        "containerRuntimeVersion": "containerd://1.7.27", "kernelVersion": "6.8.0-90-generic",
                        "osImage": "Ubuntu 24.04.3 LTS", "machineID": name, "systemUUID": name, "bootID": name,
                    },
                },
            });
            self.api.call("PATCH", &format!("/api/v1/nodes/{name}/status?fieldManager=kubelet&force=true"), &node);
        }
    }

    /// Takes a machine out, by its name.
    fn remove(&self, name: &str) {
        self.state().members.retain(|_, member| member.name != name);
        self.api.call("DELETE", &format!("/api/v1/nodes/{name}"), &Value::Null);
    }

    /// Returns the file in which the datastore notes its members.
    fn backend(&self) -> String {
        let state = self.state();
        let mut members: Vec<(&IpAddr, &Member)> = state.members.iter().collect();
        members.sort_by_key(|(_, member)| member.id);
        let rows = members.iter().enumerate().map(|(index, (address, member))| {
            let address = if state.clustered { address.to_string() } else { "127.0.0.1".to_owned() };
            // 0 votes, 1 stands by.
            format!(
                "- Address: {address}:19001\n  ID: {}\n  Role: {}\n",
                3_297_041_220_608_546_238_u64 + member.id,
                u8::from(index > 2)
            )
        });
        rows.collect()
    }

    /// Returns what two worlds are compared by.
    pub(in super::super) fn world(&self) -> Value {
        let quorum = self.has_quorum();
        let state = self.state();
        let members: Vec<Value> = state
            .members
            .iter()
            .map(|(address, member)| json!({"address": address, "name": member.name, "running": member.runs(), "channel": member.channel}))
            .collect();
        json!({"members": members, "quorum": quorum, "addons": state.addons, "kubernetes": steady(self.api.snapshot())})
    }
}

fn steady(mut objects: Value) -> Value {
    for node in objects.as_array_mut().into_iter().flatten().filter(|object| object["kind"] == "Node") {
        for condition in node.pointer_mut("/status/conditions").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(condition) = condition.as_object_mut() {
                condition.remove("lastHeartbeatTime");
            }
        }
    }
    objects
}

/// Lets what goes wrong in the lab go wrong with the requests to this API.
fn faults(api: &kube::Api, system: &System) {
    let address = system.address().unwrap_or(IpAddr::from([0, 0, 0, 0]));
    let datacenter = Arc::downgrade(&system.datacenter);
    api.inject(Arc::new(move |method: &str, path: &str| {
        let Some((datacenter, world)) = datacenter.upgrade().and_then(|this| Some((this.clone(), this.world()?)))
        else {
            return kube::Fault::DropBefore;
        };
        match world.injector.consult(address, &format!("{method} {path}")) {
            None | Some(Fault::TaskFails | Fault::TaskDies | Fault::TaskWarns | Fault::GivenUp) => kube::Fault::None,
            Some(Fault::Latency(delay)) => kube::Fault::Delay(delay),
            Some(Fault::Refused) => kube::Fault::Status(503),
            Some(Fault::Dropped) => kube::Fault::DropBefore,
            Some(Fault::ReplyLost) => kube::Fault::DropAfter,
            Some(Fault::Reboot) => {
                datacenter.guest_fails(address, true);
                kube::Fault::DropAfter
            }
            Some(Fault::Dead) => {
                datacenter.guest_fails(address, false);
                kube::Fault::DropBefore
            }
        }
    }));
}

impl Datacenter {
    /// Returns the cores, the memory and the disk of a machine, the last two in bytes.
    fn size(&self, id: u32) -> (u64, u64, u64) {
        let state = self.state();
        let Some(machine) = state.vms.get(&id) else { return (1, 1 << 30, 1 << 30) };
        let disk = super::super::cluster::boot_disk(&state, machine);
        (super::super::cluster::processors(&machine.config), super::super::cluster::memory(&machine.config), disk)
    }

    /// Serves a port of a guest.
    pub(crate) fn dial_guest(self: &Arc<Self>, address: IpAddr, port: u16) -> Option<Dial> {
        let (id, guest) = self.guest_at(address)?;
        if !listens(self, id, &guest, port) {
            return Some(if port == 22 { Dial::NotSimulated("SSH") } else { Dial::Refused });
        }
        if port != 16443 {
            return Some(Dial::NotSimulated(if port == 25000 { "the cluster agent" } else { "dqlite" }));
        }
        let cluster = self.with_disk(id, |disk| disk.cluster.clone()).flatten()?;
        let Ok(tls) = server(&cluster, address, self) else { return Some(Dial::Refused) };
        let this = self.clone();
        Some(Dial::Open(Box::new(move |stream| {
            Box::pin(async move {
                let connection = cluster.api.serve_stream(stream, tls);
                let gone = async {
                    while listens(&this, id, &guest, 16443) {
                        this.clock.sleep(Duration::from_secs(5)).await;
                    }
                };
                tokio::select! {
                    _ = connection => {}
                    () = gone => {}
                }
            })
        })))
    }
}

fn server(cluster: &Cluster, address: IpAddr, datacenter: &Datacenter) -> Result<Arc<rustls::ServerConfig>, String> {
    let authority = Authority::decode(&cluster.authority.0, &cluster.authority.1)?;
    let mut addresses = vec![address, IpAddr::from([127, 0, 0, 1]), IpAddr::from([10, 152, 183, 1])];
    let mut names = vec!["kubernetes".to_owned(), "kubernetes.default".to_owned(), "localhost".to_owned()];
    for san in &cluster.sans {
        match san.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(san.clone()),
        }
    }
    let leaf = Leaf {
        common_name: Some("127.0.0.1".to_owned()),
        organizations: vec!["Canonical".to_owned()],
        addresses,
        names,
        from: SystemTime::now() - Duration::from_secs(10),
        until: datacenter.now() + Duration::from_secs(365 * 24 * 3600),
        purpose: Purpose::Server,
    };
    let issued = authority.issue(leaf, &rcgen::PKCS_ECDSA_P256_SHA256).map_err(|error| error.to_string())?;
    tls::server(issued, Clients::Optional(vec![authority.certificate]), &[b"h2", b"http/1.1"], &datacenter.clock)
}

/// Whether MicroK8s answers on a port of a guest.
pub(super) fn listens(datacenter: &Datacenter, id: u32, guest: &Guest, port: u16) -> bool {
    let Some(Some(cluster)) = datacenter.with_disk(id, |disk| disk.snap.as_ref().and(disk.cluster.clone())) else {
        return false;
    };
    let address = guest.facts().addresses().next();
    let runs = {
        let state = cluster.state();
        let member = address.and_then(|address| state.members.get(&address));
        member.is_some_and(|member| member.runs() && member.guest.is(guest)).then_some(state.clustered)
    };
    match (port, runs) {
        (25000, Some(_)) => true,
        (19001, Some(clustered)) => clustered,
        (16443, Some(_)) => cluster.has_quorum(),
        _ => false,
    }
}

impl Disk {
    /// Returns a file that MicroK8s keeps.
    pub(super) fn microk8s_file(&self, path: &str) -> Option<String> {
        let cluster = self.snap.as_ref().and(self.cluster.as_ref())?;
        match path {
            BACKEND => Some(cluster.backend()),
            ADMIN => Some(cluster.admin.clone()),
            _ => None,
        }
    }
}

/// What of MicroK8s comes back by itself with a boot.
pub(super) fn booted(system: &Arc<System>) {
    let Some(cluster) = system.disk(|disk| disk.snap.as_ref().and(disk.cluster.clone())) else { return };
    let this = system.clone();
    system.guest.spawn(async move {
        this.takes(START).await;
        let Some(address) = this.address() else { return };
        if let Some(member) = cluster.state().members.get_mut(&address) {
            member.guest = this.guest.clone();
            member.up = true;
        }
        cluster.heartbeat(this.datacenter.now());
    });
}

/// The services of a machine stopped: it comes back with its next boot.
pub(super) fn down(datacenter: &Datacenter, id: u32) {
    let cluster = datacenter.with_disk(id, |disk| disk.cluster.clone()).flatten();
    let address = datacenter.guest_of(id).and_then(|guest| guest.facts().addresses().next());
    if let Some((cluster, address)) = cluster.zip(address)
        && let Some(member) = cluster.state().members.get_mut(&address)
    {
        member.up = false;
    }
}

/// Returns the version of Kubernetes of a channel.
fn version(channel: &str) -> String {
    let track = channel.split(['/', '-']).next().unwrap_or_default();
    let minor: u32 = track.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(34);
    format!("v1.{minor}.5")
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
pub(super) async fn snap(system: &Arc<System>, arguments: &[&str], words: &[String]) -> Outcome {
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
            drop_member(system, false);
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
fn drop_member(system: &System, orderly: bool) {
    let Some(cluster) = system.disk(|disk| disk.cluster.clone()) else { return };
    if orderly {
        return cluster.remove(&system.hostname());
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
    let (kept, held) = (cluster.clone(), channel.to_owned());
    system.disk(|disk| {
        disk.snap = Some(Snap { channel: held, held: false });
        disk.cluster = Some(kept);
    });
    system.takes(START).await;
    cluster.enter(system, channel);
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
    cluster.heartbeat(system.datacenter.now());
    Outcome::fine(format!("microk8s ({channel}) {} from Canonical✓ refreshed\n", version(channel)))
}

/// The command `microk8s`.
pub(super) async fn command(system: &Arc<System>, arguments: &[&str], words: &[String]) -> Outcome {
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
            drop_member(system, true);
            let channel = system.disk(|disk| disk.snap.clone()).map(|snap| snap.channel).unwrap_or_default();
            match Cluster::new(system, &channel, &Value::Null) {
                Ok(own) => {
                    own.enter(system, &channel);
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
            cluster.remove(name);
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
        ["kubectl", "uncordon", name] => cordon(&cluster, name, false),
        ["kubectl", "cordon", name] => cordon(&cluster, name, true),
        _ => Outcome::not_simulated(&words.join(" ")),
    }
}

fn cordon(cluster: &Cluster, name: &str, on: bool) -> Outcome {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"unschedulable": on}});
    let (known, _) = cluster.api.call("GET", &format!("/api/v1/nodes/{name}"), &Value::Null);
    if known != 200 {
        return Outcome::failed(1, format!("Error from server (NotFound): nodes \"{name}\" not found"));
    }
    cluster.api.call("PATCH", &format!("/api/v1/nodes/{name}?fieldManager=kubectl&force=true"), &node);
    Outcome::fine(format!("node/{name} {}\n", if on { "cordoned" } else { "uncordoned" }))
}

async fn drain(system: &Arc<System>, cluster: &Cluster, name: &str) -> Outcome {
    let cordoned = cordon(cluster, name, true);
    if cordoned.code != 0 {
        return cordoned;
    }
    let (_, pods) = cluster.api.call("GET", "/api/v1/pods", &Value::Null);
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
            cluster.api.call("DELETE", &path, &Value::Null);
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
    cluster.enter(system, &channel);
    let joined = cluster.clone();
    system.disk(|disk| {
        disk.cluster = Some(joined);
        disk.files.remove(JOINING);
    });
    Outcome::fine(format!(
        "Contacting cluster at {address}\nWaiting for this node to finish joining the cluster. .. .. ..\nSuccessfully joined the cluster.\n"
    ))
}

/// Returns the machines' clusters, each once, in the order of their birth.
pub(in super::super) fn clusters<'a>(disks: impl Iterator<Item = &'a Disk>) -> Vec<Arc<Cluster>> {
    let mut found: BTreeMap<u64, Arc<Cluster>> = BTreeMap::new();
    for cluster in disks.filter_map(|disk| disk.snap.as_ref().and(disk.cluster.clone())) {
        found.insert(cluster.number, cluster);
    }
    found.into_values().collect()
}
