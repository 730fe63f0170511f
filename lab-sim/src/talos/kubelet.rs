//! What a machine does in Kubernetes: its node, and the API on port 6443.

use super::config::{Config, Role};
use super::etcd::Etcd;
use super::life::tag;
use super::node::{Kubelet, Node};
use crate::control_plane::{Assets, Membership};
use crate::kube::controllers::Settings;
use crate::kube::{self, Faults};
use crate::kubernetes::{self, Kubernetes};
use crate::proxy::Dial;
use crate::tls::{self, Authority, Clients, Leaf, Purpose};
use crate::world::World;
use rustls::ServerConfig;
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

/// How long a node is silent before its cluster calls it unknown.
const SILENCE: Duration = Duration::from_secs(40);
/// How often a node says that it is alive, in wall time.
const BEAT: Duration = Duration::from_secs(10);
/// How often a connection looks whether there is still a cluster behind it.
const LOOK: Duration = Duration::from_secs(5);

/// Returns the Kubernetes of a new cluster, empty but for its system namespaces: a real one from these binaries, else the
/// stand-in.
pub(crate) fn kubernetes(world: &Arc<World>, config: &Config, number: u64, real: Option<&Assets>) -> Kubernetes {
    // A request is counted at the machine behind the endpoint: which one answered it is of no interest.
    let address = world.resolve(config.endpoint_host()).unwrap_or(IpAddr::from([0, 0, 0, 0]));
    let faults = faults(world, address);
    if let Some(assets) = real {
        return Kubernetes::real(world, membership(config, address), assets.clone(), faults, Settings::default());
    }
    let version = config.text("cluster.apiServer.image").map_or_else(|| "v1.34.1".to_owned(), tag);
    let mut options = kube::Options::new(version, world.clock.clone());
    options.seed = world.seed.wrapping_add(number);
    let api = kube::Api::new(options);
    let authority = config.kubernetes_authority().and_then(|(certificate, _)| tls::decode_pem(certificate).ok());
    api.start_controllers(Settings { authority: authority.unwrap_or_default(), ..Settings::default() });
    api.inject(faults);
    Kubernetes::StandIn(api)
}

/// Returns what a real control plane is told of the cluster that it is one of.
fn membership(config: &Config, address: IpAddr) -> Result<Membership, String> {
    let (certificate, key) = config.kubernetes_authority().ok_or("the configuration has no Kubernetes authority")?;
    let key = key.ok_or("the Kubernetes authority has no key")?;
    let accounts =
        config.text("cluster.serviceAccount.key").ok_or("the configuration has no key of service accounts")?;
    Ok(Membership {
        authority: (tls::decode_pem(certificate)?, tls::decode_pem(key)?),
        service_accounts: Some(tls::decode_pem(accounts)?),
        issuer: config.endpoint().to_owned(),
        services: config.texts("cluster.network.serviceSubnets").into_iter().next().unwrap_or("10.96.0.0/12".into()),
        address,
    })
}

/// What is asked before every request of a client; see [`World::injector`].
fn faults(world: &Arc<World>, address: IpAddr) -> Arc<Faults> {
    let world = Arc::downgrade(world);
    Arc::new(move |method: &str, path: &str| {
        let Some(world) = world.upgrade() else { return kube::Fault::DropBefore };
        let fault = world.injector.consult(address, &format!("{method} {path}"));
        kubernetes::suffered(fault, |again| {
            if let Some(node) = world.at(address) {
                node.power_loss(&world, again);
            }
        })
    })
}

/// Serves the API of a cluster on one of its control planes.
pub(crate) fn serve(world: Arc<World>, node: Arc<Node>, etcd: Arc<Etcd>) -> Dial {
    let Some(config) = node.config() else { return Dial::Refused };
    let Ok(tls) = server(&world, &node, &config) else { return Dial::Refused };
    Dial::Open(Box::new(move |stream| {
        Box::pin(async move {
            let mut cuts = node.cuts();
            let connection = etcd.kubernetes.serve_stream(stream, tls);
            let mut connection = std::pin::pin!(connection);
            let gone = async {
                while world.serves(&node).is_some_and(|now| now.number == etcd.number) {
                    world.pause(LOOK).await;
                }
            };
            tokio::select! {
                _ = connection.as_mut() => return,
                () = gone => return,
                _ = cuts.changed() => {}
            }
            if !cuts.borrow().hard {
                let _ = tokio::time::timeout(super::apid::GRACE, connection).await;
            }
        })
    }))
}

/// Returns the TLS side of port 6443. A client without a certificate is let in and is nobody.
fn server(world: &World, node: &Node, config: &Config) -> Result<Arc<ServerConfig>, String> {
    let (certificate, key) = config.kubernetes_authority().ok_or("no Kubernetes authority")?;
    let authority = Authority::decode(certificate, key.ok_or("no key of the Kubernetes authority")?)?;
    let domain = config.text("cluster.network.dnsDomain").unwrap_or("cluster.local");
    let mut names = vec![
        "kubernetes".to_owned(),
        "kubernetes.default".to_owned(),
        "kubernetes.default.svc".to_owned(),
        format!("kubernetes.default.svc.{domain}"),
        "localhost".to_owned(),
        node.hostname(),
    ];
    let mut addresses = vec![node.address(), IpAddr::from([127, 0, 0, 1])];
    addresses.extend(config.virtual_addresses());
    addresses.extend(config.texts("cluster.network.serviceSubnets").iter().filter_map(|subnet| first(subnet)));
    let more = config.texts("cluster.apiServer.certSANs");
    for name in more.into_iter().chain([config.endpoint_host().to_owned()]) {
        match name.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(name),
        }
    }
    addresses.sort();
    addresses.dedup();
    names.sort();
    names.dedup();
    let leaf = Leaf {
        common_name: Some("kube-apiserver".to_owned()),
        organizations: vec!["kube-master".to_owned()],
        addresses,
        names,
        from: SystemTime::now() - Duration::from_secs(10),
        until: world.clock.now() + Duration::from_secs(365 * 24 * 3600),
        purpose: Purpose::Server,
    };
    let issued = authority.issue(leaf, &rcgen::PKCS_ECDSA_P256_SHA256).map_err(|error| error.to_string())?;
    tls::server(issued, Clients::Optional(vec![authority.certificate]), &[b"h2", b"http/1.1"], &world.clock)
}

/// Returns the first address of a subnet, which the service `kubernetes` has.
fn first(subnet: &str) -> Option<IpAddr> {
    match subnet.split('/').next()?.parse().ok()? {
        IpAddr::V4(network) => Some(std::net::Ipv4Addr::from_bits(network.to_bits() + 1).into()),
        IpAddr::V6(network) => Some(std::net::Ipv6Addr::from_bits(network.to_bits() + 1).into()),
    }
}

/// Makes the node known to its cluster, with what the configuration says about it.
pub(crate) async fn register(node: &Node, world: &World, etcd: &Etcd, config: &Config) {
    let name = node.hostname_of(config);
    let labels = json!({
        "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": "amd64",
    });
    let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
    // 409 when it is known already, after a reboot.
    insist(world, etcd, "POST", "/api/v1/nodes", "kubelet", &object).await;

    let mut labels = Map::new();
    let mut taints = Vec::new();
    for (key, value) in config.map("machine.nodeLabels") {
        labels.insert(key, json!(value));
    }
    if config.role() == Role::ControlPlane {
        labels.insert("node-role.kubernetes.io/control-plane".to_owned(), json!(""));
        let open =
            config.flag("cluster.allowSchedulingOnControlPlanes") || config.flag("cluster.allowSchedulingOnMasters");
        if !open {
            taints.push(json!({"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}));
        }
    }
    for (key, value) in config.map("machine.nodeTaints") {
        let (value, effect) = value.split_once(':').unwrap_or(("", &value));
        let mut taint = json!({"key": key, "effect": effect});
        if !value.is_empty() {
            taint["value"] = json!(value);
        }
        taints.push(taint);
    }
    let annotations = config.map("machine.nodeAnnotations");
    let mut object = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": annotations},
    });
    if !taints.is_empty() {
        object["spec"] = json!({"taints": taints});
    }
    let path = format!("/api/v1/nodes/{name}?fieldManager=talos&force=true");
    insist(world, etcd, "PATCH", &path, "lab-sim", &object).await;
}

/// Reports the node's health: `Ready` is `True`, `False` or `Unknown`.
pub(crate) async fn report(node: &Node, world: &World, etcd: &Etcd, config: &Config, ready: &str) {
    let name = node.hostname_of(config);
    let (reason, message) = match ready {
        "True" => ("KubeletReady", "kubelet is posting ready status"),
        "False" => ("KubeletNotReady", "container runtime network not ready"),
        _ => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
    };
    let now = kubernetes::time(world.clock.now());
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        })
    };
    let pressure = if ready == "Unknown" { "Unknown" } else { "False" };
    let kubelet = config.text("machine.kubelet.image").map(tag).unwrap_or_default();
    let storage = node.spec.disks.first().map_or(0, |disk| disk.size / 1024 / 10 * 9);
    let memory = node.spec.memory / 1024;
    let status = json!({
        "addresses": [
            {"type": "InternalIP", "address": node.address().to_string()},
            {"type": "Hostname", "address": name},
        ],
        "capacity": {
            "cpu": node.spec.cores.to_string(), "memory": format!("{memory}Ki"),
            "ephemeral-storage": format!("{storage}Ki"), "pods": "110", "hugepages-2Mi": "0",
        },
        // What Talos and the kubelet keep for themselves: 50 millicores, 512 MiB, and 100 MiB before eviction.
        "allocatable": {
            "cpu": format!("{}m", (u64::from(node.spec.cores) * 1000).saturating_sub(50)),
            "memory": format!("{}Ki", memory.saturating_sub(612 * 1024)),
            "ephemeral-storage": format!("{storage}Ki"), "pods": "110", "hugepages-2Mi": "0",
        },
        "conditions": [
            condition("MemoryPressure", pressure, "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            condition("DiskPressure", pressure, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            condition("PIDPressure", pressure, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            condition("Ready", ready, reason, message),
        ],
        "nodeInfo": {
            "architecture": "amd64", "operatingSystem": "linux", "kubeletVersion": kubelet,
            "kubeProxyVersion": "", "containerRuntimeVersion": "containerd://2.1.5", "kernelVersion": "6.12.0-talos",
            "osImage": format!("Talos ({})", node.version()), "machineID": node.uuid().replace('-', ""),
            "systemUUID": node.uuid(), "bootID": format!("{:016x}", node.state().boots),
        },
    });
    let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status});
    let path = format!("/api/v1/nodes/{name}/status?fieldManager=kubelet&force=true");
    insist(world, etcd, "PATCH", &path, "lab-sim", &object).await;
}

/// Makes a request until the API server answers it.
async fn insist(world: &World, etcd: &Etcd, method: &str, target: &str, agent: &str, body: &Value) {
    while etcd.kubernetes.request(method, target, agent, body).await.is_none_or(|(code, _)| code >= 500) {
        world.pause(LOOK).await;
    }
}

/// Sends the node's heartbeats for as long as this is not dropped.
pub(crate) async fn beat(node: &Node, etcd: Weak<Etcd>, config: &Config) {
    let name = node.hostname_of(config);
    while let Some(etcd) = etcd.upgrade().filter(|etcd| etcd.kubernetes.is_real()) {
        etcd.kubernetes.beat(&name).await;
        drop(etcd);
        tokio::time::sleep(BEAT).await;
    }
}

/// The machine went down: after a while its cluster calls the node unknown, unless it is back.
pub(crate) fn lost(node: &Arc<Node>, world: &Arc<World>, config: Config) {
    let boots = node.state().boots;
    let (node, owner) = (node.clone(), Arc::downgrade(world));
    world.spawn(async move {
        let Some(clock) = owner.upgrade().map(|world| world.clock.clone()) else { return };
        clock.sleep(SILENCE).await;
        let Some(world) = owner.upgrade() else { return };
        let silent = node.state().boots == boots || node.state().kubelet == Kubelet::Unknown;
        let Some(etcd) = world.kubernetes(&config).filter(|_| silent) else { return };
        let name = node.hostname_of(&config);
        let known = etcd.kubernetes.request("GET", &format!("/api/v1/nodes/{name}"), "lab-sim", &Value::Null).await;
        if known.is_some_and(|(code, _)| code == 200) {
            report(&node, &world, &etcd, &config, "Unknown").await;
        }
    });
}
