//! Machines of the simulated Proxmox cluster: made, changed, switched, destroyed.

mod proxmox;

use lab_sim::{Fault, Faults};
use proxmox::{Lab, died, errors};
use serde_json::{Value, json};

const VM: &str = "/nodes/pve1/qemu/100";

fn pending(rows: &Value, key: &str) -> Value {
    rows.as_array().unwrap().iter().find(|row| row["key"] == key).cloned().unwrap_or_default()
}

#[tokio::test]
async fn a_machine_is_made_started_stopped_and_destroyed() {
    let lab = Lab::start().await;
    assert_eq!(lab.get("/cluster/nextid").await.data(), "100");
    let form = [
        ("vmid", "100"),
        ("name", "web"),
        ("memory", "2048"),
        ("cores", "2"),
        ("onboot", "1"),
        ("tags", "Lab;dev,dev"),
        ("net0", "virtio,bridge=vmbr0,tag=110"),
        ("scsi0", "local-lvm:8,discard=on"),
    ];
    let upid = lab.post("/nodes/pve1/qemu", &form).await.data();
    let text = upid.as_str().unwrap();
    assert!(text.starts_with("UPID:pve1:") && text.ends_with(":qmcreate:100:lab@pve!lab:"), "{text}");
    assert_eq!(lab.end(&upid).await, "OK");
    let config = lab.config(100).await;
    assert_eq!((&config["cores"], &config["memory"], &config["onboot"]), (&json!(2), &json!("2048"), &json!(1)));
    assert_eq!(config["tags"], "dev;lab");
    assert_eq!(config["scsi0"], "local-lvm:vm-100-disk-0,discard=on,size=8G");
    assert!(config["net0"].as_str().unwrap().starts_with("virtio=BC:24:11:"), "{config}");
    assert_eq!(config["digest"].as_str().unwrap().len(), 40);
    let answer = lab.post("/nodes/pve1/qemu", &[("vmid", "100")]).await;
    assert_eq!(answer.refused(), died("unable to create VM 100 - VM 100 already exists on node 'pve1'"));
    assert_eq!(lab.get("/cluster/nextid?vmid=100").await.errors(), errors("vmid", "VM 100 already exists"));

    assert_eq!(lab.task("POST", &format!("{VM}/status/start"), &[]).await, "OK");
    assert_eq!(lab.get(&format!("{VM}/status/current")).await.data()["status"], "running");
    assert_eq!(lab.task("POST", &format!("{VM}/status/start"), &[]).await, "VM 100 already running");
    assert_eq!(lab.delete(VM, &[]).await.refused(), died("VM 100 is running - destroy failed"));
    // Nothing boots from an empty disk, so nobody obeys the power button.
    assert_eq!(lab.task("POST", &format!("{VM}/status/shutdown"), &[]).await, "VM quit/powerdown failed - got timeout");
    assert_eq!(lab.task("POST", &format!("{VM}/status/stop"), &[]).await, "OK");
    assert_eq!(lab.task("POST", &format!("{VM}/status/stop"), &[]).await, "OK");
    assert_eq!(lab.post(&format!("{VM}/status/reboot"), &[]).await.refused(), died("VM 100 not running"));
    assert_eq!(lab.task("DELETE", VM, &[("purge", "1")]).await, "OK");
    let text = "Configuration file 'nodes/pve1/qemu-server/100.conf' does not exist";
    assert_eq!(lab.get(&format!("{VM}/config")).await.refused(), died(text));
    assert_eq!(lab.get("/nodes/pve1/storage/local-lvm/content").await.data(), json!([]));
}

#[tokio::test]
async fn a_new_machine_appears_in_the_statistics_without_its_name_first() {
    // Slow enough that the first look is early.
    let lab = Lab::paced(proxmox::cluster(), Faults::none(), 20).await;
    lab.post("/nodes/pve1/qemu", &[("vmid", "100"), ("name", "web")]).await.data();
    let row = || async { lab.get("/cluster/resources?type=vm").await.data()[0].clone() };
    let first = row().await;
    assert_eq!((&first["status"], &first["lock"]), (&json!("unknown"), &json!("create")));
    assert!(first.get("name").is_none(), "{first}");
    lab.until(|| async { row().await["name"] == "web" }).await;
}

#[tokio::test]
async fn a_change_needs_the_digest_of_what_it_changes() {
    let lab = Lab::start().await;
    lab.machine(100, &[]).await;
    let digest = lab.config(100).await["digest"].as_str().unwrap().to_owned();
    let change = |cores: &'static str| [("cores", cores), ("digest", digest.as_str())];
    assert_eq!(lab.put(&format!("{VM}/config"), &change("2")).await.data(), json!(null));
    let answer = lab.put(&format!("{VM}/config"), &change("4")).await;
    assert_eq!(answer.refused(), died("checksum mismatch (file change by other user?)"));
    let answer = lab.put(&format!("{VM}/config"), &[]).await;
    assert_eq!(answer.refused(), died("no options specified"));
    let answer = lab.put(&format!("{VM}/config"), &[("cores", "2"), ("delete", "cores")]).await;
    assert_eq!(answer.errors(), errors("delete", "you can't use '-cores' and -delete cores' at the same time"));
    let answer = lab.put(&format!("{VM}/config"), &[("boot", "order=scsi7")]).await;
    assert_eq!(answer.refused(), died("invalid bootorder: device 'scsi7' does not exist'"));
    let answer = lab.put(&format!("{VM}/config"), &[("balloon", "4096")]).await;
    assert_eq!(answer.refused(), died("balloon value too large (must be smaller than assigned memory)"));
    assert_eq!(lab.task("POST", &format!("{VM}/config"), &[("cores", "3")]).await, "OK");
    assert_eq!(lab.config(100).await["cores"], 3);
}

#[tokio::test]
async fn what_cannot_be_changed_while_it_runs_is_pending_until_a_reboot() {
    let lab = Lab::start().await;
    lab.machine(100, &[("cores", "1"), ("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr0")]).await;
    assert_eq!(lab.task("POST", &format!("{VM}/status/start"), &[]).await, "OK");
    let change = [
        ("cores", "2"),
        ("name", "b"),
        ("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr0,tag=5"),
        ("ide2", "none,media=cdrom"),
    ];
    lab.put(&format!("{VM}/config"), &change).await.data();
    let rows = lab.get(&format!("{VM}/pending")).await.data();
    assert_eq!(pending(&rows, "cores"), json!({"key": "cores", "value": 1, "pending": 2}));
    assert_eq!(pending(&rows, "name"), json!({"key": "name", "value": "b"}));
    assert_eq!(pending(&rows, "net0")["value"], "virtio=BC:24:11:00:00:01,bridge=vmbr0,tag=5");
    assert_eq!(pending(&rows, "ide2"), json!({"key": "ide2", "pending": "none,media=cdrom"}));
    assert_eq!(lab.config(100).await["cores"], 2);
    assert_eq!(lab.get(&format!("{VM}/config?current=1")).await.data()["cores"], 1);
    lab.put(&format!("{VM}/config"), &[("revert", "ide2")]).await.data();
    assert_eq!(lab.task("POST", &format!("{VM}/status/stop"), &[]).await, "OK");
    assert_eq!(lab.task("POST", &format!("{VM}/status/start"), &[]).await, "OK");
    let rows = lab.get(&format!("{VM}/pending")).await.data();
    assert_eq!(pending(&rows, "cores"), json!({"key": "cores", "value": 2}));
    assert_eq!(pending(&rows, "ide2"), json!(null));
}

#[tokio::test]
async fn disks_grow_and_never_shrink_and_a_deleted_drive_leaves_its_disk() {
    let lab = Lab::start().await;
    lab.machine(100, &[]).await;
    let resize = |size: &'static str| [("disk", "scsi0"), ("size", size)];
    assert_eq!(lab.task("PUT", &format!("{VM}/resize"), &resize("+2G")).await, "OK");
    assert_eq!(lab.config(100).await["scsi0"], "local-lvm:vm-100-disk-0,size=10G");
    assert_eq!(lab.task("PUT", &format!("{VM}/resize"), &resize("10G")).await, "OK");
    assert_eq!(lab.task("PUT", &format!("{VM}/resize"), &resize("5G")).await, "shrinking disks is not supported");
    let none = [("disk", "scsi5"), ("size", "5G")];
    assert_eq!(lab.task("PUT", &format!("{VM}/resize"), &none).await, "disk 'scsi5' does not exist");
    lab.put(&format!("{VM}/config"), &[("delete", "scsi0")]).await.data();
    let config = lab.config(100).await;
    assert_eq!((config.get("scsi0"), &config["unused0"]), (None, &json!("local-lvm:vm-100-disk-0")));
    lab.put(&format!("{VM}/config"), &[("delete", "unused0")]).await.data();
    assert_eq!(lab.get("/nodes/pve1/storage/local-lvm/content").await.data(), json!([]));
}

#[tokio::test]
async fn protection_keeps_the_machine_and_its_disks() {
    let lab = Lab::start().await;
    lab.machine(100, &[("protection", "1")]).await;
    assert_eq!(lab.delete(VM, &[]).await.refused(), died("can't remove VM 100 - protection mode enabled"));
    let answer = lab.put(&format!("{VM}/config"), &[("delete", "scsi0")]).await;
    assert_eq!(answer.refused(), died("can't remove drive 'scsi0' - protection mode enabled"));
}

#[tokio::test]
async fn templates_are_cloned_linked_or_full() {
    let lab = Lab::start().await;
    lab.machine(100, &[("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr0")]).await;
    assert_eq!(lab.task("POST", &format!("{VM}/template"), &[]).await, "OK");
    assert_eq!(lab.config(100).await["scsi0"], "local-lvm:base-100-disk-0,size=8G");
    let answer = lab.post(&format!("{VM}/template"), &[]).await;
    assert_eq!(answer.refused(), died("you can't convert a template to a template"));
    assert_eq!(lab.task("POST", &format!("{VM}/status/start"), &[]).await, "you can't start a vm if it's a template");
    assert_eq!(lab.task("POST", &format!("{VM}/clone"), &[("newid", "101"), ("name", "b")]).await, "OK");
    let linked = lab.config(101).await;
    assert_eq!(linked["scsi0"], "local-lvm:base-100-disk-0/vm-101-disk-0,size=8G");
    assert_ne!(linked["net0"], lab.config(100).await["net0"]);
    assert_eq!(linked.get("template"), None);
    let answer = lab.post(&format!("{VM}/clone"), &[("newid", "101")]).await;
    assert_eq!(answer.refused(), died("unable to create VM 101: config file already exists"));
    let answer = lab.post(&format!("{VM}/clone"), &[("newid", "102"), ("storage", "nas")]).await;
    assert_eq!(answer.errors(), errors("storage", "parameter 'storage' not allowed for linked clones"));
    let answer = lab.post(&format!("{VM}/clone"), &[("newid", "102"), ("full", "1"), ("target", "pve2")]).await;
    assert_eq!(answer.refused(), died("can't clone VM to node 'pve2' (VM uses local storage)"));
    let full = [("newid", "102"), ("full", "1"), ("storage", "nas")];
    assert_eq!(lab.task("POST", &format!("{VM}/clone"), &full).await, "OK");
    assert_eq!(lab.config(102).await["scsi0"], "nas:102/vm-102-disk-0.qcow2,size=8G");
    let text = "base volume 'local-lvm:base-100-disk-0' is still in use by linked clones";
    assert_eq!(lab.delete(VM, &[]).await.refused(), died(text));
}

#[tokio::test]
async fn a_clone_that_fails_half_way_leaves_nothing_and_one_that_is_killed_leaves_its_lock() {
    let clone = [("newid", "101"), ("full", "1")];
    let lab = Lab::with(Faults::none().on("task qmclone", 1, Fault::TaskFails)).await;
    lab.machine(100, &[]).await;
    let end = lab.task("POST", &format!("{VM}/clone"), &clone).await;
    assert_eq!(end, "clone failed: command 'qemu-img convert' failed: got signal 9");
    assert_eq!(lab.get("/nodes/pve1/qemu/101/config").await.status, 500);
    assert_eq!(lab.task("POST", &format!("{VM}/clone"), &clone).await, "OK");

    let lab = Lab::with(Faults::none().on("task qmclone", 1, Fault::TaskDies)).await;
    lab.machine(100, &[]).await;
    assert_eq!(lab.task("POST", &format!("{VM}/clone"), &clone).await, "unexpected status");
    let answer = lab.put("/nodes/pve1/qemu/101/config", &[("cores", "2")]).await;
    assert_eq!(answer.refused(), died("VM is locked (clone)"));
    assert_eq!(lab.delete("/nodes/pve1/qemu/101", &[]).await.refused(), died("VM is locked (clone)"));
}

#[tokio::test]
async fn a_task_can_end_in_warnings_and_tells_them_in_its_log() {
    let lab = Lab::with(Faults::none().on("task qmstart", 1, Fault::TaskWarns)).await;
    lab.machine(100, &[]).await;
    let upid = lab.post(&format!("{VM}/status/start"), &[]).await.data();
    assert_eq!(lab.end(&upid).await, "WARNINGS: 1");
    let log = lab.get(&format!("/nodes/pve1/tasks/{}/log", upid.as_str().unwrap())).await;
    assert_eq!(log.json()["total"], 2);
    assert_eq!(log.data()[1]["t"], "TASK WARNINGS: 1");
    assert_eq!(lab.get(&format!("{VM}/status/current")).await.data()["status"], "running");
    let listed = lab.get("/nodes/pve1/tasks?vmid=100&typefilter=qmstart").await.data();
    assert_eq!(listed[0]["status"], "WARNINGS: 1");
    let answer =
        lab.get("/nodes/pve1/tasks/UPID:pve1:00000001:00000001:00000001:qmstart:100:lab@pve!lab:/status").await;
    assert_eq!(answer.errors(), errors("upid", "no such task"));
}

#[tokio::test]
async fn a_reply_can_be_lost_after_the_effect() {
    let lab = Lab::with(Faults::none().on("POST /api2/json/nodes/pve1/qemu", 1, Fault::ReplyLost)).await;
    assert!(lab.ask("pve1", "POST", "/nodes/pve1/qemu", &[("vmid", "100")]).await.is_err());
    // The lost task is found by its machine.
    let tasks = lab.get("/nodes/pve1/tasks?vmid=100&source=all&typefilter=qmcreate").await.data();
    assert_eq!(tasks.as_array().unwrap().len(), 1);
    assert_eq!(lab.end(&tasks[0]["upid"]).await, "OK");
    assert_eq!(lab.get(&format!("{VM}/config")).await.status, 200);
}

#[tokio::test]
async fn snapshots_are_taken_rolled_back_and_deleted() {
    let lab = Lab::start().await;
    lab.machine(100, &[]).await;
    let take = |name: &'static str| [("snapname", name), ("description", "before")];
    let answer = lab.post(&format!("{VM}/snapshot"), &take("current")).await;
    assert_eq!(answer.refused(), died("unable to use snapshot name 'current' (reserved name)"));
    assert_eq!(lab.task("POST", &format!("{VM}/snapshot"), &take("one")).await, "OK");
    assert_eq!(lab.task("POST", &format!("{VM}/snapshot"), &take("one")).await, "snapshot name 'one' already used");
    lab.put(&format!("{VM}/config"), &[("cores", "4")]).await.data();
    let listed = lab.get(&format!("{VM}/snapshot")).await.data();
    assert_eq!(
        (&listed[0]["name"], &listed[1]["name"], &listed[1]["parent"]),
        (&json!("one"), &json!("current"), &json!("one"))
    );
    assert_eq!(lab.task("POST", &format!("{VM}/snapshot/one/rollback"), &[]).await, "OK");
    assert_eq!(lab.config(100).await.get("cores"), None);
    assert_eq!(lab.task("DELETE", &format!("{VM}/snapshot/two"), &[]).await, "snapshot 'two' does not exist");
    assert_eq!(lab.task("DELETE", &format!("{VM}/snapshot/one"), &[]).await, "OK");
    // A raw file has no snapshots.
    lab.machine(101, &[("scsi1", "nas:4,format=raw")]).await;
    let end = lab.task("POST", "/nodes/pve1/qemu/101/snapshot", &take("one")).await;
    assert_eq!(end, "snapshot feature is not available");
}

#[tokio::test]
async fn a_machine_moves_with_its_identity_when_its_disks_can_follow() {
    let lab = Lab::start().await;
    lab.machine(100, &[]).await;
    let answer = lab.post(&format!("{VM}/migrate"), &[("target", "pve1")]).await;
    assert_eq!(answer.errors(), errors("target", "target is local node."));
    let end = lab.task("POST", &format!("{VM}/migrate"), &[("target", "pve2")]).await;
    assert_eq!(end, "can't migrate local disk 'local-lvm:vm-100-disk-0': local disk migration is not enabled");
    let uuid = lab.config(100).await["smbios1"].clone();
    lab.task("POST", &format!("{VM}/status/start"), &[]).await;
    let answer = lab.post(&format!("{VM}/migrate"), &[("target", "pve2")]).await;
    assert_eq!(answer.refused(), died("can't migrate running VM without --online"));
    let form = [("target", "pve2"), ("online", "1"), ("with-local-disks", "1")];
    assert_eq!(lab.task("POST", &format!("{VM}/migrate"), &form).await, "OK");
    let moved = lab.get("/nodes/pve2/qemu/100/config").await.data();
    assert_eq!(moved["smbios1"], uuid);
    assert_eq!(lab.get("/nodes/pve2/qemu/100/status/current").await.data()["status"], "running");
}

#[tokio::test]
async fn pools_say_who_is_in_them() {
    let lab = Lab::start().await;
    lab.machine(100, &[]).await;
    lab.post("/pools", &[("poolid", "dev")]).await.data();
    assert_eq!(lab.post("/pools", &[("poolid", "dev")]).await.refused(), died("pool 'dev' already exists"));
    lab.put("/pools", &[("poolid", "dev"), ("vms", "100")]).await.data();
    let again = lab.put("/pools", &[("poolid", "dev"), ("vms", "100")]).await;
    assert_eq!(again.refused(), died("VM 100 is already a pool member"));
    let answer = lab.delete("/pools", &[("poolid", "dev")]).await;
    assert_eq!(answer.refused(), died("pool 'dev' is not empty (contains VM 100)"));
    assert_eq!(lab.get("/pools?poolid=dev").await.data()[0]["members"][0]["vmid"], 100);
    lab.put("/pools", &[("poolid", "dev"), ("vms", "100"), ("delete", "1")]).await.data();
    let answer = lab.put("/pools", &[("poolid", "dev"), ("vms", "100"), ("delete", "1")]).await;
    assert_eq!(answer.refused(), died("VM 100 is not a pool member"));
    lab.delete("/pools", &[("poolid", "dev")]).await.data();
}

#[tokio::test]
async fn what_is_kept_running_starts_elsewhere_when_its_host_is_lost() {
    let lab = Lab::start().await;
    let form = [("vmid", "100"), ("scsi0", "nas:8")];
    assert_eq!(lab.task("POST", "/nodes/pve1/qemu", &form).await, "OK");
    assert_eq!(lab.task("POST", "/nodes/pve1/qemu", &[("vmid", "101"), ("scsi0", "nas:8")]).await, "OK");
    let rule =
        [("rule", "apart"), ("type", "resource-affinity"), ("affinity", "negative"), ("resources", "vm:100,vm:101")];
    let answer = lab.post("/cluster/ha/rules", &rule).await;
    assert_eq!(answer.refused(), died("cannot use unmanaged resource(s) vm:100, vm:101."));
    for sid in ["vm:100", "vm:101"] {
        lab.post("/cluster/ha/resources", &[("sid", sid), ("state", "started")]).await.data();
    }
    lab.post("/cluster/ha/rules", &rule).await.data();
    let text = "cannot index groups: ha groups have been migrated to rules";
    assert_eq!(lab.get("/cluster/ha/groups").await.refused(), died(text));
    let running = |node: &'static str| {
        let lab = &lab;
        async move {
            let row = lab.ask("pve3", "GET", &format!("/nodes/{node}/qemu/100/status/current"), &[]).await.unwrap();
            row.status == 200 && row.data()["status"] == "running"
        }
    };
    lab.until(|| running("pve1")).await;
    let text = "unable to remove VM 100 - used in HA resources and purge parameter not set.";
    assert_eq!(lab.task("POST", &format!("{VM}/status/stop"), &[]).await, "OK");
    lab.until(|| async { !running("pve1").await }).await;
    assert_eq!(lab.delete(VM, &[]).await.refused(), died(text));
    lab.put("/cluster/ha/resources/vm:100", &[("state", "started")]).await.data();
    lab.until(|| running("pve1")).await;
    lab.running.power_loss("10.0.0.11".parse().unwrap(), false);
    lab.until(|| async { running("pve2").await || running("pve3").await }).await;
    let rows = lab.ask("pve3", "GET", "/cluster/resources?type=vm", &[]).await.unwrap().data();
    assert_ne!(rows[0]["node"], rows[1]["node"], "apart, as the rule says");
}
