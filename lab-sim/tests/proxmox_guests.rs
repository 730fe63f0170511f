//! Guests of the simulated Proxmox cluster: cloud-init, the guest agent, and MicroK8s that forms a cluster by itself.

mod proxmox;

use proxmox::{IMAGE, Lab, died};
use serde_json::{Value, json};

const SECTOR: usize = 2048;

/// A small ISO 9660 image with Rock Ridge names, written independently of the reader.
fn iso(label: &str, files: &[(&str, &str)]) -> Vec<u8> {
    let both = |number: usize| [(number as u32).to_le_bytes(), (number as u32).to_be_bytes()].concat();
    let record = |name: &[u8], long: Option<&str>, extent: usize, size: usize, flags: u8| {
        let mut record = vec![0, 0];
        record.extend(both(extent));
        record.extend(both(size));
        record.extend([0; 7]);
        record.extend([flags, 0, 0, 1, 0, 0, 1, name.len() as u8]);
        record.extend_from_slice(name);
        if name.len().is_multiple_of(2) {
            record.push(0);
        }
        if let Some(long) = long {
            record.extend_from_slice(&[b"NM", &[5 + long.len() as u8, 1, 0][..]].concat());
            record.extend_from_slice(long.as_bytes());
        }
        record.resize(record.len().next_multiple_of(2), 0);
        record[0] = record.len() as u8;
        record
    };
    let (root, mut at) = (18, 19);
    let mut directory = [record(&[0], None, root, SECTOR, 2), record(&[1], None, root, SECTOR, 2)].concat();
    let mut contents = Vec::new();
    for (index, (name, content)) in files.iter().enumerate() {
        directory.extend(record(format!("FILE{index}.;1").as_bytes(), Some(name), at, content.len(), 0));
        let mut sectors = content.as_bytes().to_vec();
        sectors.resize(sectors.len().next_multiple_of(SECTOR).max(SECTOR), 0);
        at += sectors.len() / SECTOR;
        contents.extend(sectors);
    }
    directory.resize(SECTOR, 0);
    let mut volume = vec![0; SECTOR];
    volume[..6].copy_from_slice(b"\x01CD001");
    volume[40..72].copy_from_slice(format!("{label:32}").as_bytes());
    let root = record(&[0], None, root, SECTOR, 2);
    volume[156..156 + root.len()].copy_from_slice(&root);
    let mut end = vec![0; SECTOR];
    end[..6].copy_from_slice(b"\xffCD001");
    [vec![0; 16 * SECTOR], volume, end, directory, contents].concat()
}

fn network(address: &str, mac: &str) -> String {
    json!({"version": 2, "ethernets": {"lan": {
        "match": {"macaddress": mac}, "set-name": "eth0", "addresses": [format!("{address}/24")],
    }}})
    .to_string()
}

async fn image(lab: &Lab) {
    let form = [("url", IMAGE), ("content", "import"), ("filename", "noble.qcow2")];
    assert_eq!(lab.task("POST", "/nodes/pve1/storage/nas/download-url", &form).await, "OK");
}

/// Makes and starts an Ubuntu machine on pve1 that is told this.
async fn guest(lab: &Lab, id: u32, user_data: &Value, address: &str) {
    let mac = format!("bc:24:11:00:00:{:02x}", id % 256);
    let user_data = format!("#cloud-config\n{user_data}\n");
    let meta = json!({"instance-id": format!("vm-{id}"), "local-hostname": format!("vm-{id}")}).to_string();
    let network = network(address, &mac);
    let files = [("meta-data", meta.as_str()), ("user-data", user_data.as_str()), ("network-config", network.as_str())];
    assert_eq!(lab.upload("nas", &format!("{id}.iso"), &iso("cidata", &files)).await, "OK");
    let form = [
        ("vmid", id.to_string()),
        ("name", format!("vm-{id}")),
        ("memory", "8192".to_owned()),
        ("cores", "2".to_owned()),
        ("agent", "1".to_owned()),
        ("scsi0", "local-lvm:0,import-from=nas:import/noble.qcow2".to_owned()),
        ("ide2", format!("nas:iso/{id}.iso,media=cdrom")),
        ("net0", format!("virtio={},bridge=vmbr0", mac.to_uppercase())),
        ("start", "1".to_owned()),
    ];
    let form: Vec<(&str, &str)> = form.iter().map(|(key, value)| (*key, value.as_str())).collect();
    assert_eq!(lab.task("POST", "/nodes/pve1/qemu", &form).await, "OK");
}

fn agent(id: u32, call: &str) -> String {
    format!("/nodes/pve1/qemu/{id}/agent/{call}")
}

async fn file(lab: &Lab, id: u32, path: &str) -> Option<String> {
    let answer = lab.get(&agent(id, &format!("file-read?file={}", proxmox::encode(path)))).await;
    (answer.status == 200).then(|| answer.data()["content"].as_str().unwrap().to_owned())
}

/// Runs a command through the agent; returns its code and its output.
async fn exec(lab: &Lab, id: u32, words: &[&str]) -> (i64, String) {
    let form: Vec<(&str, &str)> = words.iter().map(|word| ("command", *word)).collect();
    let pid = lab.post(&agent(id, "exec"), &form).await.data()["pid"].clone();
    let status = std::sync::Mutex::new(Value::Null);
    lab.until(|| async {
        let row = lab.get(&agent(id, &format!("exec-status?pid={pid}"))).await.data();
        let exited = row["exited"] == 1;
        *status.lock().unwrap() = row;
        exited
    })
    .await;
    let row = status.into_inner().unwrap();
    let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
    (row["exitcode"].as_i64().unwrap(), text("out-data") + &text("err-data"))
}

fn inside(lab: &Lab, id: u32) -> Value {
    lab.running.world()["proxmox"][0]["machines"][id.to_string()]["guest"].clone()
}

#[tokio::test]
async fn a_guest_acts_out_its_cloud_init_and_the_agent_answers_once_it_runs() {
    let lab = Lab::start().await;
    image(&lab).await;
    let told = json!({
        "hostname": "web", "packages": ["qemu-guest-agent"],
        "write_files": [{"path": "/etc/lab/a", "content": "hello\n", "permissions": "0600"}],
        "runcmd": [["systemctl", "enable", "--now", "qemu-guest-agent.service"], "cat /etc/lab/a /etc/lab/a >/etc/lab/b"],
    });
    guest(&lab, 100, &told, "192.168.10.21").await;
    assert_eq!(lab.post(&agent(100, "ping"), &[]).await.refused(), died("QEMU guest agent is not running"));
    lab.until(|| async { lab.post(&agent(100, "ping"), &[]).await.status == 200 }).await;
    lab.until(|| async { file(&lab, 100, "/etc/lab/b").await.as_deref() == Some("hello\nhello\n") }).await;
    let rows = lab.get(&agent(100, "network-get-interfaces")).await.data()["result"].clone();
    assert_eq!(
        (&rows[1]["name"], &rows[1]["ip-addresses"][0]["ip-address"]),
        (&json!("eth0"), &json!("192.168.10.21"))
    );
    assert_eq!(lab.get(&agent(100, "get-host-name")).await.data()["result"]["host-name"], "web");
    let text = "Agent error: failed to open file '/nothing' (mode: 'r'): No such file or directory";
    assert_eq!(lab.get(&agent(100, "file-read?file=/nothing")).await.refused(), died(text));
    // It obeys the power button, and what is on its disk is there again; nothing is done twice.
    assert_eq!(exec(&lab, 100, &["rm", "/etc/lab/b"]).await.0, 0);
    assert_eq!(lab.task("POST", "/nodes/pve1/qemu/100/status/reboot", &[]).await, "OK");
    lab.until(|| async { file(&lab, 100, "/etc/lab/a").await.is_some() }).await;
    assert_eq!(file(&lab, 100, "/etc/lab/b").await, None);
    assert_eq!(lab.task("POST", "/nodes/pve1/qemu/100/status/shutdown", &[]).await, "OK");
    assert_eq!(lab.post(&agent(100, "ping"), &[]).await.refused(), died("VM 100 is not running"));
    assert!(lab.tunnel("192.168.10.21", 16443).await.unwrap_err().to_string().contains("504"));
}

#[tokio::test]
async fn a_wrong_hardware_address_leaves_a_guest_without_a_network() {
    let lab = Lab::start().await;
    image(&lab).await;
    let files = [("meta-data", "{}"), ("user-data", "#cloud-config\n{\"packages\": [\"qemu-guest-agent\"]}\n")];
    let wrong = network("192.168.10.21", "BC:24:11:00:00:64");
    let files = [&files[..], &[("network-config", wrong.as_str())]].concat();
    assert_eq!(lab.upload("nas", "a.iso", &iso("CIDATA", &files)).await, "OK");
    let form = [
        ("vmid", "100"),
        ("agent", "1"),
        ("scsi0", "nas:0,import-from=nas:import/noble.qcow2"),
        ("ide2", "nas:iso/a.iso,media=cdrom"),
        ("net0", "virtio=BC:24:11:00:00:64,bridge=vmbr0"),
        ("start", "1"),
    ];
    assert_eq!(lab.task("POST", "/nodes/pve1/qemu", &form).await, "OK");
    lab.until(|| async { lab.post(&agent(100, "ping"), &[]).await.status == 200 }).await;
    // In capitals, nothing matches.
    assert_eq!(inside(&lab, 100)["addresses"], json!([]));
}

#[tokio::test]
async fn what_a_script_asks_for_and_is_not_simulated_is_an_error_with_its_line() {
    let lab = Lab::start().await;
    image(&lab).await;
    let told = json!({"packages": ["qemu-guest-agent"], "runcmd": ["echo a\nfrobnicate --all\n"], "zypper": {}});
    guest(&lab, 100, &told, "192.168.10.21").await;
    lab.until(|| async { inside(&lab, 100)["set up"] == true }).await;
    assert_eq!(
        inside(&lab, 100)["not simulated"],
        json!([
            "user-data: the module of zypper",
            "line 2: frobnicate --all",
            "runcmd, entry 1: not simulated: frobnicate --all"
        ])
    );
    assert_eq!(exec(&lab, 100, &["cloud-init", "status"]).await, (0, "status: error\n".to_owned()));
}

/// Scripts, and what bash 5.2 makes of them: its exit status and what it prints.
const SCRIPTS: [(&str, i64, &str); 10] = [
    ("false; echo $?; echo $?", 0, "1\n0\n"),
    ("false\nexit", 1, ""),
    ("f() { false; return; }; f; echo $?", 0, "1\n"),
    ("trap 'echo trap' ERR; false; echo on", 0, "trap\non\n"),
    // A trap may end the script, also without `set -e`.
    ("trap 'echo trap; exit' ERR; false; echo on", 0, "trap\n"),
    ("trap 'echo trap; exit 5' ERR; false; echo on", 5, "trap\n"),
    // Functions have it with `set -E` only.
    ("set -e\ntrap 'echo \"trap $LINENO\"' ERR\nf() {\n  false\n}\nf", 1, ""),
    ("set -eE\ntrap 'echo \"trap $LINENO\"' ERR\nf() {\n  false\n}\nf", 1, "trap 4\n"),
    ("set -E\ntrap 'echo \"trap $LINENO\"' ERR\nf() {\n  false\n}\nf\necho $?", 0, "trap 4\ntrap 6\n1\n"),
    ("set -eE\ntrap 'echo trap' ERR\nf() { false; }\nif ! f; then echo no; fi\nf || echo or", 0, "no\nor\n"),
];

#[tokio::test]
async fn scripts_fail_and_are_trapped_as_by_bash() {
    let lab = Lab::start().await;
    image(&lab).await;
    guest(&lab, 100, &json!({"packages": ["qemu-guest-agent"]}), "192.168.10.21").await;
    lab.until(|| async { lab.post(&agent(100, "ping"), &[]).await.status == 200 }).await;
    for (script, code, said) in SCRIPTS {
        assert_eq!(exec(&lab, 100, &["bash", "-c", script]).await, (code, said.to_owned()), "{script}");
    }
}

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Installs MicroK8s, and joins the machine it is told, guarded and repeated by a unit.
const BOOTSTRAP: &str = r#"#!/bin/bash
set -euo pipefail
. /etc/lab/env
BACKEND=/var/snap/microk8s/current/var/kubernetes/backend/cluster.yaml
export PATH=$PATH:/snap/bin
trap 'echo "line $LINENO" >/var/lib/lab/err' ERR
healthy() { curl --silent --insecure --fail "https://$1:25000/health" >/dev/null; }
clustered() { timeout 3 bash -c "exec 3<>/dev/tcp/$1/19001" 2>/dev/null; }
member() { grep -q "$ADDRESS:19001" "$BACKEND" && [ "$(grep -c 'Address:' "$BACKEND")" -gt 1 ]; }
if ! snap list microk8s >/dev/null 2>&1; then
  snap install microk8s --classic --channel="$CHANNEL"
fi
microk8s status --wait-ready --timeout 600 >/dev/null
if [ -n "$SEED" ] && ! member; then
  for _ in $(seq 100); do
    if healthy "$SEED" && { [ "$PREVIOUS" = "$SEED" ] || clustered "$PREVIOUS"; }; then break; fi
    sleep 15
  done
  microk8s join "$SEED:25000/$TOKEN" --skip-verify >/run/log 2>&1
  member
fi
echo "$CHANNEL" >/var/lib/lab/done
"#;

const UNIT: &str = "[Service]\nType=oneshot\nExecStart=/usr/local/sbin/up\nRestart=on-failure\nRestartSec=15\n";

fn node(address: &str, seed: &str, previous: &str) -> Value {
    let launch = json!({"version": "0.2.0", "persistentClusterToken": TOKEN, "addons": [{"name": "dns"}]});
    let environment =
        format!("ADDRESS={address}\nCHANNEL=1.34/stable\nSEED={seed}\nPREVIOUS={previous}\nTOKEN={TOKEN}\n");
    json!({
        "packages": ["qemu-guest-agent", "curl"],
        "write_files": [
            {"path": "/etc/microk8s.yaml", "content": launch.to_string()},
            {"path": "/etc/lab/env", "content": environment},
            {"path": "/usr/local/sbin/up", "content": BOOTSTRAP, "permissions": "0755"},
            {"path": "/etc/systemd/system/up.service", "content": UNIT},
        ],
        "runcmd": [["systemctl", "daemon-reload"], ["systemctl", "enable", "up.service"], ["systemctl", "start", "--no-block", "up.service"]],
    })
}

#[tokio::test]
async fn three_guests_become_one_cluster_whose_kubeconfig_the_agent_reads() {
    let lab = &Lab::start().await;
    image(lab).await;
    let addresses = ["192.168.10.21", "192.168.10.22", "192.168.10.23"];
    guest(lab, 101, &node(addresses[0], "", ""), addresses[0]).await;
    guest(lab, 102, &node(addresses[1], addresses[0], addresses[0]), addresses[1]).await;
    guest(lab, 103, &node(addresses[2], addresses[0], addresses[1]), addresses[2]).await;
    for id in [101, 102, 103] {
        lab.until(|| async { file(lab, id, "/var/lib/lab/done").await.as_deref() == Some("1.34/stable\n") }).await;
        assert_eq!(inside(lab, id)["not simulated"], json!([]));
    }
    // Who joined knows the others at once; the others learn of it when their datastores next look.
    let voters = |id| async move {
        let backend = file(lab, id, "/var/snap/microk8s/current/var/kubernetes/backend/cluster.yaml").await;
        backend.unwrap().matches("Role: 0").count()
    };
    assert_eq!(voters(103).await, 3);
    lab.until(|| async { voters(101).await == 3 }).await;
    let kubeconfig = file(lab, 103, "/var/snap/microk8s/current/credentials/client.config").await.unwrap();
    assert!(kubeconfig.contains("server: https://127.0.0.1:16443"), "{kubeconfig}");
    assert!(lab.tunnel(addresses[2], 16443).await.is_ok());
    let nodes = |lab: &Lab| -> Vec<(String, String)> {
        let world = lab.running.world();
        let clusters = world["proxmox"][0]["clusters"].as_array().unwrap().clone();
        assert_eq!(clusters.len(), 1, "{clusters:#?}");
        let objects = clusters[0]["kubernetes"].as_array().unwrap().clone();
        let nodes = objects.iter().filter(|object| object["kind"] == "Node");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        nodes.map(|node| (text(&node["metadata"]["name"]), text(&node["status"]["conditions"][0]["status"]))).collect()
    };
    let all = |ready: [&str; 3]| -> Vec<(String, String)> {
        [101, 102, 103].iter().zip(ready).map(|(id, ready)| (format!("vm-{id}"), ready.to_owned())).collect()
    };
    assert_eq!(nodes(lab), all(["True", "True", "True"]));
    // One machine less is noticed and survived; with two less, nobody agrees.
    assert_eq!(lab.task("POST", "/nodes/pve1/qemu/103/status/stop", &[]).await, "OK");
    lab.until(|| async { nodes(lab) == all(["True", "True", "Unknown"]) }).await;
    assert!(lab.tunnel(addresses[0], 16443).await.is_ok());
    assert_eq!(lab.task("POST", "/nodes/pve1/qemu/102/status/stop", &[]).await, "OK");
    assert!(lab.tunnel(addresses[0], 16443).await.is_err());
    assert_eq!(lab.task("POST", "/nodes/pve1/qemu/102/status/start", &[]).await, "OK");
    lab.until(|| async { lab.tunnel(addresses[0], 16443).await.is_ok() }).await;
    // A member is removed by a living one, upgraded by its snap, and add-ons are the track's.
    let (code, out) = exec(lab, 101, &["/snap/bin/microk8s", "remove-node", "vm-103"]).await;
    assert_eq!((code, out.contains("is registered with dqlite")), (1, true), "{out}");
    assert_eq!(exec(lab, 101, &["/snap/bin/microk8s", "remove-node", "vm-103", "--force"]).await.0, 0);
    assert_eq!(nodes(lab).len(), 2);
    assert_eq!(exec(lab, 102, &["/usr/bin/snap", "refresh", "microk8s", "--channel=1.35/stable"]).await.0, 0);
    assert_eq!(exec(lab, 101, &["microk8s", "enable", "metallb:192.168.10.50-192.168.10.69"]).await.0, 0);
    let objects = lab.running.world()["proxmox"][0]["clusters"][0]["kubernetes"].clone();
    let found = |kind: &str, name: &str| {
        objects
            .as_array()
            .unwrap()
            .iter()
            .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
            .cloned()
    };
    assert_eq!(found("Node", "vm-102").unwrap()["status"]["nodeInfo"]["kubeletVersion"], "v1.35.5");
    assert!(found("IPAddressPool", "default-addresspool").is_some());
    assert_eq!(exec(lab, 101, &["microk8s", "enable", "metallb"]).await.0, 127);
}

#[tokio::test]
async fn a_wrong_token_is_refused_and_the_unit_tries_again() {
    let lab = Lab::start().await;
    image(&lab).await;
    guest(&lab, 101, &node("192.168.10.21", "", ""), "192.168.10.21").await;
    let mut other = node("192.168.10.22", "192.168.10.21", "192.168.10.21");
    let text = other["write_files"][1]["content"].as_str().unwrap().replace(TOKEN, &"f".repeat(32));
    other["write_files"][1]["content"] = json!(text);
    guest(&lab, 102, &other, "192.168.10.22").await;
    lab.until(|| async { file(&lab, 102, "/run/log").await.is_some_and(|log| log.contains("Invalid token (500)")) })
        .await;
    lab.until(|| async { file(&lab, 102, "/var/lib/lab/err").await.is_some() }).await;
    let (code, out) = exec(&lab, 102, &["microk8s", "join", "seed:25000/x"]).await;
    assert_eq!((code, out.as_str()), (1, "Invalid master IP\n"));
}
