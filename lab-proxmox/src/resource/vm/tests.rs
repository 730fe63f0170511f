//! What is sent, what is left alone, and what a change is said to take.

use super::config::{merged, same};
use super::sight::Sight;
use super::verbs::Todo;
use super::*;
use crate::client::Place;
use lab_core::{Change, Path};
use serde_json::json;

const MARK: &str = "0123456789abcdef0123456789abcdef";

fn vm() -> Vm {
    let mac = "BC:24:11:00:00:01".parse().unwrap();
    let network = Network {
        vlan: Some(110),
        address: Some(Address { ip: "192.168.10.21".parse().unwrap(), prefix: 24, gateway: None }),
        ..Network::new("vmbr0", mac)
    };
    Vm {
        disks: BTreeMap::from([(
            Slot::scsi(0),
            Disk::from_image("local-lvm", Gib(100), "local:import/noble.qcow2".to_owned()),
        )]),
        networks: vec![network],
        iso: Some("local:iso/dev-1.iso".to_owned().into()),
        tags: BTreeSet::from(["K8s".to_owned(), "dev".to_owned()]),
        ..Vm::new(110, "dev-1", "pve1", 4, Mib(16384))
    }
}

/// Returns the machine as it is there once `vm` was applied, stopped.
fn applied(vm: &Vm) -> Sight {
    let mut config = vm.keys(MARK);
    for (slot, disk) in &vm.disks {
        let options = crate::property::print(&disk.options(), "file");
        config.insert(slot.to_string(), format!("local-lvm:vm-110-{slot},{options},size={}G", disk.size.0));
    }
    // What Proxmox VE adds, or writes in its own way.
    config.insert("smbios1".into(), "uuid=aa".into());
    config.insert("net0".into(), "bridge=vmbr0,tag=110,virtio=bc:24:11:00:00:01,queues=4".into());
    config.insert("ide2".into(), "local:iso/dev-1.iso,media=cdrom,size=374K".into());
    config.insert("description".into(), format!("{}\n", config["description"]));
    let place = Place { node: "pve1".into(), vm: true, name: "dev-1".into(), pool: None, template: false };
    Sight { place, config, digest: "d".into(), pending: BTreeSet::new(), runs: true, lock: None, managed: false }
}

fn todo(vm: &Vm, prior: &Vm, sight: &Sight) -> Option<Todo> {
    vm.todo(Some(prior), MARK, sight).unwrap()
}

#[test]
fn a_machine_is_made_with_all_that_is_stated() {
    let config: Vec<String> = vm().creation(MARK).iter().map(|(key, value)| format!("{key}: {value}")).collect();
    insta::assert_snapshot!(config.join("\n"), @r"
    agent: enabled=1
    boot: order=scsi0
    cores: 4
    cpu: x86-64-v2-AES
    description: managed by lab: 0123456789abcdef0123456789abcdef
    ide2: local:iso/dev-1.iso,media=cdrom
    memory: 16384
    name: dev-1
    net0: virtio=BC:24:11:00:00:01,bridge=vmbr0,tag=110
    onboot: 1
    ostype: l26
    protection: 0
    scsi0: local-lvm:0,discard=on,import-from=local:import/noble.qcow2,iothread=1,ssd=1
    scsihw: virtio-scsi-single
    serial0: socket
    sockets: 1
    tags: dev;k8s
    vga: serial0
    ");
}

#[test]
fn what_stands_as_it_was_applied_needs_nothing() {
    let vm = vm();
    assert_eq!(todo(&vm, &vm, &applied(&vm)), None);
}

#[test]
fn what_others_set_beside_ours_stays() {
    assert!(same(
        "net0",
        "virtio=BC:24:11:00:00:01,bridge=vmbr0",
        Some("virtio=bc:24:11:00:00:01,bridge=vmbr0,rate=5")
    ));
    let there = Some("virtio=BC:24:11:00:00:01,bridge=vmbr0,tag=110,rate=5");
    assert_eq!(
        merged("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr1", there),
        "virtio=BC:24:11:00:00:01,bridge=vmbr1,rate=5"
    );
    let there = Some("local-lvm:vm-110-disk-0,cache=writeback,size=100G,ssd=1");
    assert_eq!(merged("scsi0", "discard=on", there), "local-lvm:vm-110-disk-0,cache=writeback,discard=on,size=100G");
    assert!(same("onboot", "0", None) && same("agent", "enabled=0", None));
    assert!(same("tags", "b;a", Some("A, b")) && !same("tags", "a", Some("a;b")));
}

#[test]
fn only_keys_that_differ_are_sent() {
    let before = vm();
    let after = Vm { memory: Mib(32768), ..vm() };
    let set = vec![("memory".to_owned(), "32768".to_owned())];
    assert_eq!(todo(&after, &before, &applied(&before)), Some(Todo::Configure { set, delete: vec![] }));
}

#[test]
fn what_is_pending_takes_a_reboot_and_what_only_the_next_boot_reads_does_not() {
    let vm = vm();
    let mut sight = applied(&vm);
    sight.pending = BTreeSet::from(["ide2".to_owned(), "boot".to_owned(), "hookscript".to_owned()]);
    assert_eq!(todo(&vm, &vm, &sight), None, "neither what is read at boot, nor what is not ours");
    sight.pending.insert("memory".into());
    assert_eq!(todo(&vm, &vm, &sight), Some(Todo::Reboot(vec!["memory".into()])));
    sight.runs = false;
    assert_eq!(todo(&vm, &vm, &sight), Some(Todo::Start));
}

#[test]
fn a_disk_grows_before_the_first_start_and_never_while_a_change_of_it_is_pending() {
    let vm = vm();
    let mut sight = applied(&vm);
    sight.runs = false;
    let small = sight.config["scsi0"].replace("size=100G", "size=3584M");
    sight.config.insert("scsi0".into(), small);
    assert_eq!(todo(&vm, &vm, &sight), Some(Todo::Grow(Slot::scsi(0), 100 << 30)));
    sight.runs = true;
    sight.pending.insert("scsi0".into());
    assert_eq!(todo(&vm, &vm, &sight), Some(Todo::Reboot(vec!["scsi0".into()])));
}

#[test]
fn a_disk_that_is_larger_than_wanted_is_not_touched() {
    let vm = vm();
    let mut sight = applied(&vm);
    let large = sight.config["scsi0"].replace("size=100G", "size=120G");
    sight.config.insert("scsi0".into(), large);
    let error = vm.todo(Some(&vm), MARK, &sight).unwrap_err();
    insta::assert_snapshot!(error, @"a disk cannot shrink: scsi0 of VM 110 (dev-1) has 128849018880 bytes, which is more than 100 GiB");
}

#[test]
fn a_disk_whose_line_is_gone_is_deleted_and_one_that_was_never_ours_is_not() {
    let after = vm();
    let mut before = vm();
    before.disks.insert(Slot::scsi(1), Disk::new("local-lvm", Gib(10)));
    let mut sight = applied(&before);
    sight.config.insert("scsi2".into(), "local-lvm:vm-110-disk-9,size=1G".into());
    assert_eq!(todo(&after, &before, &sight), Some(Todo::DeleteDisk(Slot::scsi(1))));
    sight.config.remove("scsi1");
    assert_eq!(todo(&after, &before, &sight), None);
    let volumes: Vec<String> = sight.volumes().into_keys().collect();
    assert_eq!(volumes, ["scsi0", "scsi2"], "a medium is no disk");
}

#[test]
fn an_interface_that_is_not_stated_goes() {
    let vm = vm();
    let mut sight = applied(&vm);
    sight.config.insert("net1".into(), "virtio=BC:24:11:00:00:02,bridge=vmbr1".into());
    assert_eq!(todo(&vm, &vm, &sight), Some(Todo::Configure { set: vec![], delete: vec!["net1".into()] }));
}

#[test]
fn a_machine_that_was_moved_stays_where_it_is_unless_it_is_pinned() {
    let vm = vm();
    let mut sight = applied(&vm);
    sight.place.node = "pve3".into();
    assert_eq!(todo(&vm, &vm, &sight), None);
    let pinned = Vm { pinned: true, ..vm.clone() };
    assert_eq!(todo(&pinned, &vm, &sight), Some(Todo::Migrate));
}

#[test]
fn what_is_there_is_read_back_in_the_shape_of_the_inputs() {
    let vm = vm();
    let live = applied(&vm).live(&vm);
    let mut inputs = serde_json::to_value(&vm).unwrap();
    inputs["tags"] = json!(["dev", "k8s"]);
    fn agree(path: &str, inputs: &serde_json::Value, live: &serde_json::Value) {
        match (inputs, live) {
            (serde_json::Value::Object(inputs), serde_json::Value::Object(live)) => {
                for (key, live) in live {
                    agree(&format!("{path}/{key}"), &inputs[key], live);
                }
            }
            (inputs, live) => assert_eq!(inputs, live, "{path}"),
        }
    }
    agree("", &inputs, &live);
}

fn judged(change: impl FnOnce(&mut Vm)) -> Change {
    let before = vm();
    let mut after = before.clone();
    change(&mut after);
    after.judge(&before, None)
}

fn interrupts(change: Change) -> Option<String> {
    match change {
        Change::Update(impact) => impact.interrupts,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_change_says_whether_it_is_live_or_takes_a_reboot() {
    assert_eq!(interrupts(judged(|vm| vm.description = "the first".into())), None);
    assert_eq!(interrupts(judged(|vm| vm.networks[0].vlan = Some(120))), None);
    assert_eq!(interrupts(judged(|vm| vm.iso = Some("local:iso/dev-2.iso".to_owned().into()))), None);
    let size = |vm: &mut Vm| vm.disks.get_mut(&Slot::scsi(0)).unwrap().size = Gib(200);
    assert_eq!(interrupts(judged(size)), None);
    let reboots = Some("reboots VM 110 (dev-1)".to_owned());
    assert_eq!(interrupts(judged(|vm| vm.memory = Mib(8192))), reboots);
    assert_eq!(interrupts(judged(|vm| vm.cores = 8)), reboots);
    let ssd = |vm: &mut Vm| vm.disks.get_mut(&Slot::scsi(0)).unwrap().ssd = false;
    assert_eq!(interrupts(judged(ssd)), reboots);
    assert_eq!(interrupts(judged(|vm| vm.running = false)), Some("stops VM 110 (dev-1)".to_owned()));
    let mac = |vm: &mut Vm| vm.networks[0].mac = "BC:24:11:00:00:09".parse().unwrap();
    assert_eq!(interrupts(judged(mac)), Some("cuts VM 110 (dev-1) off its network for a moment".to_owned()));
}

#[test]
fn where_a_machine_was_made_and_from_what_does_not_matter_afterwards() {
    assert_eq!(judged(|vm| vm.node = "pve2".into()), Change::None);
    assert_eq!(judged(|vm| vm.source = Source::Template { vmid: 9000, full: None }), Change::None);
    let image = |vm: &mut Vm| vm.disks.get_mut(&Slot::scsi(0)).unwrap().image = None;
    assert_eq!(judged(image), Change::None);
    assert_eq!(judged(|vm| vm.tags = BTreeSet::from(["DEV".to_owned(), "k8s".to_owned()])), Change::None);
}

#[test]
fn shrinking_a_disk_is_refused() {
    let shrunk = judged(|vm| vm.disks.get_mut(&Slot::scsi(0)).unwrap().size = Gib(50));
    let Change::Refuse(reasons) = shrunk else { panic!("{shrunk:?}") };
    assert_eq!(reasons[0].0, Path::from("/disks/scsi0/size"));
    insta::assert_snapshot!(reasons[0].1, @"a disk cannot shrink: scsi0 of VM 110 (dev-1) is 100 GiB, not 50 GiB");
}

#[test]
fn what_grew_by_hand_cannot_be_shrunk_back() {
    let vm = vm();
    let live = json!({"disks": {"scsi0": {"size": 120}}});
    assert!(matches!(vm.judge(&vm, Some(&live)), Change::Refuse(_)));
}

#[test]
fn a_disk_that_goes_is_named_and_so_are_those_of_a_machine_that_goes() {
    let Change::Update(impact) = judged(|vm| vm.disks.clear()) else { panic!("it is an update") };
    assert_eq!(impact.destroys.as_deref(), Some("the disk scsi0 (100 GiB on local-lvm) of VM 110 (dev-1)"));
    let loss = vm().loss();
    assert_eq!(loss.destroys.as_deref(), Some("VM 110 (dev-1) with the disk scsi0 (100 GiB on local-lvm)"));
    assert_eq!(loss.interrupts.as_deref(), Some("stops VM 110 (dev-1)"));
}

#[test]
fn two_machines_that_are_to_be_apart_clash_on_one_node() {
    use lab_core::Resource;
    let on = |vmid: u32, node: &str| {
        let vm = Vm { apart: Some("dev".into()), ..Vm::new(vmid, format!("dev-{vmid}"), node, 2, Mib(1024)) };
        vm.claims()
    };
    let clash = |a: Vec<lab_core::Claim>, b: Vec<lab_core::Claim>| a.iter().any(|a| b.iter().any(|b| a.clashes(b)));
    assert!(clash(on(1101, "pve1"), on(1102, "pve1")));
    assert!(!clash(on(1101, "pve1"), on(1102, "pve2")));
}

#[test]
fn a_number_an_address_a_name_and_a_mac_are_claimed() {
    use lab_core::Resource;
    let claims: Vec<String> = vm().claims().iter().map(ToString::to_string).collect();
    assert_eq!(
        claims,
        [
            "VM id 110",
            "host name dev-1",
            "MAC BC:24:11:00:00:01",
            "address 192.168.10.21",
            "MiB of memory on pve1 16384",
            "virtual CPUs on pve1 4"
        ]
    );
}
