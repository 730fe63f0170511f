//! A cluster of MicroK8s: its members, what they vote on, and what Kubernetes is told of them.

use super::super::system::System;
use super::super::{Disk, Guest};
use super::api::Api;
use super::version;
use crate::proxmox::cluster::{boot_disk, memory, processors};
use crate::proxmox::datacenter::{Datacenter, seconds};
use crate::tls::{self, Authority, Leaf, Purpose};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// How often the nodes' health is looked at.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How many heartbeats lie between two looks of a datastore at who its members are: until then, its file names those of
/// before (go-dqlite's `App` refreshes its node store every 30 seconds).
const REFRESH: u32 = 3;

/// A cluster of MicroK8s.
pub(in crate::proxmox) struct Cluster {
    /// Counted in the order of their birth.
    pub(in crate::proxmox) number: u64,
    pub(super) api: Api,
    /// The authority's certificate and key, each base64 of PEM.
    pub(super) authority: (String, String),
    /// What `client.config` says.
    pub(super) admin: String,
    pub(super) sans: Vec<String>,
    state: Mutex<Members>,
}

/// Who is in a cluster, and what it was told.
#[derive(Default)]
pub(super) struct Members {
    pub(super) members: BTreeMap<IpAddr, Member>,
    /// Whether another machine was ever about to join: from then on its datastore listens to others.
    pub(super) clustered: bool,
    pub(super) tokens: BTreeSet<String>,
    pub(super) addons: BTreeSet<String>,
}

/// A machine in a cluster.
pub(super) struct Member {
    pub(super) name: String,
    id: u64,
    pub(super) guest: Guest,
    /// The services are up in this life of the guest.
    pub(super) up: bool,
    pub(super) channel: String,
    /// What the API was told last.
    pub(super) told: Option<bool>,
    /// The file in which its datastore notes the members, as it was last written.
    store: String,
    cores: u64,
    memory: u64,
    disk: u64,
}

impl Member {
    pub(super) fn runs(&self) -> bool {
        self.up && self.guest.is_alive()
    }
}

impl Members {
    /// Some datastores write down who is a member now.
    fn refresh(&mut self, which: impl Fn(&IpAddr, &Member) -> bool) {
        let mut members: Vec<(&IpAddr, &Member)> = self.members.iter().collect();
        members.sort_by_key(|(_, member)| member.id);
        let rows = members.iter().enumerate().map(|(index, (address, member))| {
            let address = if self.clustered { address.to_string() } else { "127.0.0.1".to_owned() };
            // 0 votes, 1 stands by.
            format!(
                "- Address: {address}:19001\n  ID: {}\n  Role: {}\n",
                3_297_041_220_608_546_238_u64 + member.id,
                u8::from(index > 2)
            )
        });
        let store: String = rows.collect();
        for (address, member) in &mut self.members {
            if which(address, member) {
                member.store.clone_from(&store);
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.api.stop();
    }
}

impl Cluster {
    pub(super) fn new(system: &System, channel: &str, launch: &Value) -> Result<Arc<Cluster>, String> {
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
        let pem = (tls::decode_pem(&certificate)?, tls::decode_pem(&key)?);
        let api = Api::new(system, number, version(channel), pem)?;
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
            for beat in 1_u32.. {
                clock.sleep(HEARTBEAT).await;
                let Some(cluster) = weak.upgrade() else { return };
                if beat % REFRESH == 0 && cluster.has_quorum() {
                    cluster.state().refresh(|_, member| member.runs());
                }
                cluster.heartbeat(clock.now()).await;
                cluster.beat().await;
            }
        });
        Ok(cluster)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, Members> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a majority of the voters, the first three, runs.
    pub(super) fn has_quorum(&self) -> bool {
        let state = self.state();
        let mut voters: Vec<&Member> = state.members.values().collect();
        voters.sort_by_key(|member| member.id);
        voters.truncate(3);
        voters.iter().filter(|member| member.runs()).count() * 2 > voters.len()
    }

    pub(super) async fn enter(&self, system: &System, channel: &str) {
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
            store: String::new(),
            cores,
            memory,
            disk,
        };
        {
            let mut state = self.state();
            state.members.insert(address, member);
            state.clustered |= state.members.len() > 1;
            // Who joins knows the others at once; they learn of it later.
            state.refresh(|other, _| *other == address);
        }
        self.heartbeat(system.datacenter.now()).await;
    }

    pub(super) async fn heartbeat(&self, now: SystemTime) {
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
            self.api.tell("PATCH", format!("/api/v1/nodes/{name}?fieldManager=kubelet&force=true"), &node).await;
            let status = if ready { "True" } else { "Unknown" };
            let time = prost_types::Timestamp { seconds: i64::try_from(seconds(now)).unwrap_or_default(), nanos: 0 }
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
            self.api.tell("PATCH", format!("/api/v1/nodes/{name}/status?fieldManager=kubelet&force=true"), &node).await;
        }
    }

    /// Says of every machine that runs that it is alive.
    async fn beat(&self) {
        let mut running = Vec::new();
        running.extend(self.state().members.values().filter(|one| one.runs()).map(|one| one.name.clone()));
        for name in running {
            self.api.beat(&name).await;
        }
    }

    /// Takes a machine out, by its name.
    pub(super) async fn remove(&self, name: &str) {
        self.state().members.retain(|_, member| member.name != name);
        self.api.tell("DELETE", format!("/api/v1/nodes/{name}"), &Value::Null).await;
    }

    /// Another machine is about to join by way of the one at `address`, whose datastore leaves loopback for that.
    pub(super) fn open(&self, address: IpAddr) {
        let mut state = self.state();
        state.clustered = true;
        state.refresh(|other, _| *other == address);
    }

    /// Returns the file in which the datastore of the machine at `address` notes its members.
    pub(super) fn backend(&self, address: IpAddr) -> Option<String> {
        self.state().members.get(&address).map(|member| member.store.clone())
    }

    /// Returns what two worlds are compared by.
    pub(in crate::proxmox) fn world(&self) -> Value {
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

impl Datacenter {
    /// Returns the cores, the memory and the disk of a machine, the last two in bytes.
    fn size(&self, id: u32) -> (u64, u64, u64) {
        let state = self.state();
        let Some(machine) = state.vms.get(&id) else { return (1, 1 << 30, 1 << 30) };
        let disk = boot_disk(&state, machine);
        (processors(&machine.config), memory(&machine.config), disk)
    }
}

/// Returns the machines' clusters, each once, in the order of their birth.
pub(in crate::proxmox) fn clusters<'a>(disks: impl Iterator<Item = &'a Disk>) -> Vec<Arc<Cluster>> {
    let mut found: BTreeMap<u64, Arc<Cluster>> = BTreeMap::new();
    for cluster in disks.filter_map(|disk| disk.snap.as_ref().and(disk.cluster.clone())) {
        found.insert(cluster.number, cluster);
    }
    found.into_values().collect()
}
