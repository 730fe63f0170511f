//! What a node is told at its first boot: cloud-init's user data and network configuration.
//!
//! Both are JSON, which YAML is a superset of: nothing has to be quoted by rules that differ. A join is not left to
//! MicroK8s' own launch configuration, whose agent would repeat it for ever; a unit of ours does it, guarded.

use super::cluster::{Cluster, Node};
use crate::mac::Mac;
use serde_json::{Value, json};

/// Installs MicroK8s and joins; see there.
const BOOTSTRAP: &str = include_str!("bootstrap.sh");

const UNIT: &str = "\
[Unit]
Description=Make this machine a member of its MicroK8s cluster
Wants=network-online.target snapd.service
After=network-online.target snapd.service
StartLimitIntervalSec=0

[Service]
Type=oneshot
ExecStart=/usr/local/sbin/lab-microk8s
Restart=on-failure
RestartSec=15
TimeoutStartSec=infinity

[Install]
WantedBy=multi-user.target
";

/// Returns the user data of a node. It holds the token, which is the key to the cluster.
pub(super) fn user_data(cluster: &Cluster, node: &Node, token: &str) -> String {
    let file = |path: &str, permissions: &str, content: String| json!({"path": path, "permissions": permissions, "owner": "root:root", "content": content});
    let mut config = json!({
        "hostname": node.host.name,
        "manage_etc_hosts": false,
        "package_update": true,
        "package_upgrade": false,
        "packages": ["qemu-guest-agent", "curl"],
        "write_files": [
            file("/etc/microk8s.yaml", "0600", launch(cluster, token).to_string()),
            file("/etc/lab/microk8s.token", "0600", token.to_owned()),
            file("/etc/lab/microk8s.env", "0644", environment(cluster, node)),
            file("/etc/lab/hosts", "0644", hosts(cluster)),
            file("/usr/local/sbin/lab-microk8s", "0755", BOOTSTRAP.to_owned()),
            file("/etc/systemd/system/lab-microk8s.service", "0644", UNIT.to_owned()),
        ],
        "runcmd": [
            ["systemctl", "enable", "--now", "qemu-guest-agent.service"],
            ["systemctl", "daemon-reload"],
            ["systemctl", "enable", "lab-microk8s.service"],
            ["systemctl", "start", "--no-block", "lab-microk8s.service"],
        ],
    });
    if !cluster.ssh_keys.is_empty() {
        config["ssh_authorized_keys"] = json!(cluster.ssh_keys);
    }
    if !cluster.ntp.is_empty() {
        config["ntp"] = json!({"enabled": true, "servers": cluster.ntp});
    }
    format!("#cloud-config\n{config:#}\n")
}

/// Returns MicroK8s' launch configuration. It takes the place of the built-in one, so what that says is said here.
fn launch(cluster: &Cluster, token: &str) -> Value {
    let mut launch = json!({
        "version": "0.2.0",
        "persistentClusterToken": token,
        "addons": [{"name": "dns"}],
        "extraKubeletArgs": {"--cluster-domain": "cluster.local", "--cluster-dns": "10.152.183.10"},
    });
    if !cluster.sans.is_empty() {
        launch["extraSANs"] = json!(cluster.sans);
    }
    launch
}

/// Returns what the bootstrap is told. Every value is of characters that a shell takes as they are.
fn environment(cluster: &Cluster, node: &Node) -> String {
    let position = cluster.nodes.iter().position(|other| other.host.name == node.host.name).unwrap_or_default();
    let address = |node: &Node| node.host.address.to_string();
    let seed = cluster.nodes.first().map(address).unwrap_or_default();
    let previous = position.checked_sub(1).and_then(|n| cluster.nodes.get(n)).map(address).unwrap_or_default();
    let peers: Vec<String> =
        cluster.nodes.iter().filter(|other| other.host.name != node.host.name).map(address).collect();
    // The one that the launch configuration turns on is not turned on twice.
    let addons: Vec<String> =
        cluster.addons.iter().map(super::Addon::argument).filter(|argument| argument != "dns").collect();
    let hold = if cluster.hold { "yes" } else { "no" };
    let classic = if cluster.channel.is_strict() { "" } else { "--classic" };
    format!(
        "NAME={}\nADDRESS={}\nCHANNEL={}\nCLASSIC={classic}\nHOLD={hold}\nSEED={seed}\nPREVIOUS={previous}\n\
         PEERS=\"{}\"\nADDONS=\"{}\"\n",
        node.host.name,
        node.host.address,
        cluster.channel,
        peers.join(" "),
        addons.join(" "),
    )
}

fn hosts(cluster: &Cluster) -> String {
    cluster.nodes.iter().map(|node| format!("{} {}\n", node.host.address, node.host.name)).collect()
}

/// Returns the network configuration of a node: one interface, known by its hardware address.
pub(super) fn network(cluster: &Cluster, node: &Node, mac: Mac) -> String {
    let mut interface = json!({
        // Of lower case, or nothing matches and the machine has no network.
        "match": {"macaddress": mac.lower()},
        "set-name": "eth0",
        "dhcp4": false,
        "addresses": [format!("{}/{}", node.host.address, node.host.subnet.prefix())],
        "nameservers": {"addresses": cluster.nameservers.iter().map(ToString::to_string).collect::<Vec<_>>()},
    });
    if let Some(gateway) = node.host.subnet.router() {
        interface["routes"] = json!([{"to": "0.0.0.0/0", "via": gateway.to_string()}]);
    }
    if let Some(mtu) = cluster.mtu {
        interface["mtu"] = mtu.into();
    }
    format!("{:#}\n", json!({"version": 2, "ethernets": {"lan": interface}}))
}
