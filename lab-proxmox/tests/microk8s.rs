//! A MicroK8s cluster as it is declared: what its machines are told, what is wrong before anything is touched, and what
//! stays secret.

use lab_core::plan::{Action, Observations, Plan, Request, Verb, plan, text};
use lab_core::{Declared, Neighbours, Secret, Stack, State, Subnet, Vault};
use lab_proxmox::microk8s::{Addon, CloudImage, Cluster, Node};
use lab_proxmox::{Fingerprint, Gib, Proxmox, Trust};
use serde_json::Value;
use std::path::Path;
use std::time::SystemTime;

const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn cluster(nodes: u32) -> Cluster {
    let lan = Subnet::new("192.168.10.0/24").unwrap().gateway("192.168.10.1").unwrap();
    let node = |n: u32| Node::new(lan.host(&format!("dev-{n}"), 20 + n).unwrap(), 11_000 + n, format!("pve{n}"));
    let image = CloudImage {
        file: "noble.qcow2".into(),
        url: "https://images.invalid/noble.img".into(),
        sha256: "0".repeat(64),
    };
    Cluster {
        nodes: (1..=nodes).map(node).collect(),
        addons: vec![Addon::HostpathStorage, Addon::Metallb("192.168.10.50-69".parse().unwrap())],
        nameservers: vec!["192.168.10.1".parse().unwrap()],
        ntp: vec!["192.168.10.1".into()],
        ssh_keys: vec!["ssh-ed25519 AAAA somebody".into()],
        sans: vec!["k8s.dev.example.com".into()],
        vlan: Some(110),
        mtu: Some(1500),
        ..Cluster::new("1.34/stable".parse().unwrap(), image, "tank")
    }
}

fn told(cluster: &Cluster, n: usize) -> String {
    cluster.user_data(&cluster.nodes[n], &Secret::new(TOKEN.to_owned())).expose().clone()
}

fn declared(cluster: &Cluster) -> Declared {
    let program = |stack: &Stack| {
        let trust = Trust::Fingerprints(vec![Fingerprint::of(b"a certificate")]);
        let pve = stack.provider("pve", Proxmox::new("lab", "192.168.1.5", Secret::new("a@pve!t=s".to_owned()), trust));
        Ok(pve.component("microk8s").add(cluster.clone()).kubeconfig())
    };
    Stack::load("microk8s-dev", Some("dev"), Vault::new([7; 32]), Neighbours::new(), program).unwrap()
}

fn planned(cluster: &Cluster) -> Plan {
    let request = Request::new(Verb::Up, SystemTime::UNIX_EPOCH);
    plan(&declared(cluster), &State::default(), &Observations::default(), &request)
}

/// Returns the file that user data writes at `path`.
fn file(user_data: &str, path: &str) -> String {
    let config: Value = serde_json::from_str(user_data.strip_prefix("#cloud-config\n").unwrap()).unwrap();
    let files = config["write_files"].as_array().unwrap();
    let file = files.iter().find(|file| file["path"] == path).unwrap_or_else(|| panic!("there is no {path}"));
    file["content"].as_str().unwrap().to_owned()
}

/// Kept where a step of the continuous integration finds them, for the tools of cloud-init and netplan.
#[test]
fn what_every_machine_is_told_is_kept_for_the_tools_that_judge_it() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cloud-init");
    for nodes in [1, 3] {
        let cluster = cluster(nodes);
        for (n, node) in cluster.nodes.iter().enumerate() {
            let dir = dir.join(format!("{}-of-{nodes}", n + 1));
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("user-data"), told(&cluster, n)).unwrap();
            std::fs::write(dir.join("network-config"), cluster.network(node)).unwrap();
        }
    }
    let network: Value = serde_json::from_str(&cluster(3).network(&cluster(3).nodes[0])).unwrap();
    let lan = &network["ethernets"]["lan"];
    assert_eq!(lan["addresses"][0], "192.168.10.21/24");
    let mac = lan["match"]["macaddress"].as_str().unwrap();
    assert_eq!(mac, mac.to_lowercase());
    // The interface of the machine is the one that its guest looks for.
    let plan = planned(&cluster(3));
    let machine = plan.steps.iter().find(|step| step.urn.kind() == "proxmox:vm").unwrap();
    let given = machine.spec.as_ref().unwrap().inputs.value()["networks"][0]["mac"].as_str().unwrap().to_lowercase();
    assert_eq!(given, mac);
}

#[test]
fn the_first_node_founds_the_cluster_and_each_of_the_others_waits_for_the_one_before_it() {
    let cluster = cluster(3);
    let environment = |n| file(&told(&cluster, n), "/etc/lab/microk8s.env");
    assert!(environment(0).contains("SEED=192.168.10.21\nPREVIOUS=\n"));
    assert!(environment(0).contains("PEERS=\"192.168.10.22 192.168.10.23\"\n"));
    assert!(environment(2).contains("SEED=192.168.10.21\nPREVIOUS=192.168.10.22\n"));
    assert!(environment(2).contains("ADDONS=\"hostpath-storage metallb:192.168.10.50-192.168.10.69\"\n"));
    let launch: Value = serde_json::from_str(&file(&told(&cluster, 1), "/etc/microk8s.yaml")).unwrap();
    assert_eq!(launch["persistentClusterToken"], TOKEN);
    // Its own agent would repeat a join for ever.
    assert!(launch.get("join").is_none());
}

#[test]
fn the_bootstrap_is_a_script_that_a_shell_understands() {
    let script = file(&told(&cluster(3), 0), "/usr/local/sbin/lab-microk8s");
    let mut bash = std::process::Command::new("bash")
        .arg("-n")
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut bash.stdin.take().unwrap(), script.as_bytes()).unwrap();
    let ended = bash.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn the_plan_of_a_cluster_shows_no_token_and_waits_in_the_right_order() {
    let plan = planned(&cluster(3));
    assert_eq!(plan.problems, []);
    let shown = text(&plan) + &serde_json::to_string(&plan).unwrap();
    assert!(!shown.contains("persistentClusterToken") && !shown.contains("BEGIN"), "{shown}");
    let at = |kind: &str, name: &str| {
        let found = plan.steps.iter().position(|step| step.urn.kind() == kind && step.urn.name() == name);
        found.unwrap_or_else(|| panic!("there is no step for {kind} {name}"))
    };
    for name in ["dev-1", "dev-2", "dev-3"] {
        assert!(at("microk8s:token", "token") < at("proxmox:cloud-init", &format!("{name}-cloud-init")));
        assert!(at("proxmox:cloud-init", &format!("{name}-cloud-init")) < at("proxmox:vm", name));
        assert!(at("proxmox:vm", name) < at("microk8s:member", name));
        assert!(at("microk8s:member", name) < at("microk8s:kubeconfig", "kubeconfig"));
    }
    // Nothing is drained before there is anything.
    assert!(
        !plan.steps.iter().any(|step| matches!(step.action, Action::Gate { .. }) || step.urn.kind() == "microk8s:act")
    );
}

#[test]
fn the_files_of_two_stacks_are_not_taken_from_each_other() {
    let plan = planned(&cluster(1));
    let image = plan.steps.iter().find(|step| step.urn.kind() == "proxmox:image").unwrap();
    assert_eq!(image.spec.as_ref().unwrap().inputs.value()["file"], "microk8s-dev-noble.qcow2");
}

#[track_caller]
fn check(edit: impl FnOnce(&mut Cluster), expected: &[&str]) {
    let mut cluster = cluster(3);
    edit(&mut cluster);
    let problems = cluster.problems();
    assert_eq!(problems.len(), expected.len(), "{problems:?}");
    for (problem, expected) in problems.iter().zip(expected) {
        assert!(problem.contains(expected), "{problem:?} does not say {expected:?}");
    }
}

#[test]
fn what_cannot_work_is_said_before_anything_is_touched() {
    check(|_| {}, &[]);
    check(|cluster| cluster.nodes.truncate(2), &["two nodes survive the loss of none"]);
    check(|cluster| cluster.nodes.clear(), &["a cluster needs a node"]);
    check(|cluster| cluster.nodes[1].on = "pve1".into(), &["dev-1 and dev-2 are both on pve1"]);
    check(|cluster| (cluster.nodes[1].on, cluster.spread) = ("pve1".into(), false), &[]);
    check(|cluster| cluster.nodes[1].host.name = "Dev_2".into(), &["\"Dev_2\" is no host name"]);
    check(|cluster| cluster.nodes[1].host.name = "dev-1".into(), &["two nodes are called dev-1"]);
    check(|cluster| cluster.nameservers.clear(), &["need a DNS server"]);
    check(|cluster| cluster.disk = Gib(10), &["too small"]);
    check(|cluster| cluster.memory = Gib(2).memory(), &["too little"]);
    check(
        |cluster| cluster.addons = vec![Addon::Metallb("192.168.10.20-30".parse().unwrap())],
        &["holds 192.168.10.21, which is dev-1's"],
    );
}
