//! Machines that come from elsewhere: cloned from a template, made by hand and imported, moved.

mod simulated;

use lab_core::plan::{Action, Verb};
use lab_core::{ProgramError, Stack};
use lab_proxmox::request::{Request, vm};
use lab_proxmox::{Disk, FullClone, Gib, Mac, Mib, Network, Slot, Source, Vm};
use lab_sim::proxmox::{Cluster, Guest, System};
use serde_json::{Value, json};
use simulated::{Lab, Program, cluster, proxmox};
use std::collections::{BTreeMap, BTreeSet};

type Outcome = Result<(), ProgramError>;

/// A machine that was made by hand.
fn by_hand(id: u32, node: &str, on: bool, config: &[(&str, &str)]) -> Guest {
    let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Guest { id, node: node.into(), config, system: System::Ubuntu("24.04".into()), on }
}

/// The cluster with a template on a host's own storage, one on the storage of all, and one with two disks.
fn with_templates() -> Cluster {
    let net = ("net0", "virtio=BC:24:11:0A:0B:0C,bridge=vmbr0");
    let template = |id, name, disks: &[(&'static str, &'static str)]| {
        by_hand(id, "pve1", false, &[&[("name", name), ("template", "1"), ("memory", "512"), net], disks].concat())
    };
    Cluster {
        guests: vec![
            template(9000, "noble", &[("scsi0", "local-zfs:base-9000-disk-0,size=4G")]),
            template(9001, "noble-shared", &[("scsi0", "nas:9001/base-9001-disk-0.qcow2,size=4G")]),
            template(
                9002,
                "database",
                &[("scsi0", "local-zfs:base-9002-disk-0,size=4G"), ("scsi1", "local-zfs:base-9002-disk-1,size=8G")],
            ),
            by_hand(100, "pve1", false, &[("name", "no-template"), ("scsi0", "local-zfs:vm-100-disk-0,size=4G")]),
        ],
        ..cluster()
    }
}

fn templates() -> Lab {
    Lab::of(with_templates(), lab_sim::Faults::none())
}

fn cloned(vmid: u32, node: &str, template: u32, full: Option<FullClone>, storage: &str) -> Vm {
    let name = format!("clone-{vmid}");
    Vm {
        source: Source::Template { vmid: template, full },
        disks: BTreeMap::from([(Slot::scsi(0), Disk::new(storage, Gib(20)))]),
        networks: vec![Network::new("vmbr0", Mac::derived(&name))],
        ..Vm::new(vmid, name, node, 2, Mib(2048))
    }
}

fn declare(stack: &Stack, machines: impl IntoIterator<Item = Vm>) -> Outcome {
    let pve = stack.provider("pve", proxmox());
    for machine in machines {
        let name = machine.name.clone();
        pve.resource(&name).add(machine);
    }
    Ok(())
}

fn linked() -> Vm {
    cloned(1301, "pve1", 9000, None, "local-zfs")
}

/// Every kind of clone there is.
fn clones(stack: &Stack) -> Outcome {
    declare(
        stack,
        [
            linked(),
            cloned(1302, "pve1", 9000, Some(FullClone::Same), "local-zfs"),
            cloned(1303, "pve2", 9001, Some(FullClone::Storage("nas".into())), "nas"),
            cloned(1304, "pve3", 9001, None, "nas"),
        ],
    )
}

fn none(stack: &Stack) -> Outcome {
    declare(stack, [])
}

/// The world without the machines that a program may have made.
fn theirs(lab: &Lab) -> Value {
    let mut world = lab.world();
    world["machines"].as_object_mut().unwrap().retain(|id, _| !id.starts_with('1') || id == "100");
    world["volumes"].as_array_mut().unwrap().retain(|volume| !volume["volume"].as_str().unwrap().contains("vm-13"));
    world
}

#[test]
fn a_template_is_cloned_linked_or_in_full_here_or_on_another_host() {
    let lab = templates();
    let before = theirs(&lab);
    lab.whole(clones, Verb::Up);
    lab.settled(clones);
    assert_eq!(theirs(&lab), before, "the templates are as they were");
    for (vmid, node, volume) in [
        (1301, "pve1", "local-zfs:base-9000-disk-0/vm-1301-disk-0"),
        (1302, "pve1", "local-zfs:vm-1302-disk-0"),
        (1303, "pve2", "nas:1303/vm-1303-disk-0."),
        (1304, "pve3", "nas:9001/base-9001-disk-0.qcow2/1304/vm-1304-disk-0."),
    ] {
        let machine = lab.machine(vmid);
        let config = &machine["config"];
        assert_eq!((&machine["node"], &machine["status"]), (&json!(node), &json!("running")));
        let disk = config["scsi0"].as_str().unwrap();
        assert!(disk.starts_with(volume) && disk.contains("size=20G"), "{disk}");
        assert_eq!((&config["memory"], &config["cores"]), (&json!("2048"), &json!("2")));
        assert!(config["net0"].as_str().unwrap().contains(&Mac::derived(&format!("clone-{vmid}")).to_string()));
        assert_eq!(config["template"], Value::Null);
    }
}

#[test]
fn a_clone_is_changed_found_changed_and_deleted_like_any_machine() {
    let lab = templates();
    let before = theirs(&lab);
    fn larger(stack: &Stack) -> Outcome {
        let disks = BTreeMap::from([(Slot::scsi(0), Disk::new("local-zfs", Gib(30)))]);
        declare(stack, [Vm { memory: Mib(4096), disks, ..linked() }])
    }
    let linked: Program = |stack| declare(stack, [linked()]);
    lab.whole(linked, Verb::Up);
    lab.whole(larger, Verb::Up);
    lab.settled(larger);
    let config = lab.machine(1301)["config"].clone();
    assert_eq!(config["memory"], "4096");
    assert!(config["scsi0"].as_str().unwrap().contains("size=30G"), "{config}");
    lab.task(&Request::post("/nodes/pve1/qemu/1301/config").with("cores", 8));
    let plan = lab.planned(larger, Verb::Up, true);
    assert_eq!(plan.steps.len(), 1);
    assert!(plan.steps[0].reasons.iter().any(|reason| reason.contains("/cores")), "{:?}", plan.steps[0].reasons);
    lab.looking(larger, Verb::Up);
    assert_eq!(lab.machine(1301)["config"]["cores"], "2");
    lab.whole(none, Verb::Up);
    assert_eq!(lab.world()["machines"]["1301"], Value::Null);
    assert_eq!(theirs(&lab), before);
    assert_eq!(lab.running.deleted_volumes(), ["pve1/local-zfs:base-9000-disk-0/vm-1301-disk-0"]);
}

#[test]
fn what_cannot_be_cloned_is_said_with_its_reason() {
    let said = |program: Program| templates().failures(program, Verb::Up);
    let missing = said(|stack| declare(stack, [Vm { source: source(4711), ..linked() }]));
    assert!(missing.contains("there is no template 4711 that VM 1301 (clone-1301) could be cloned from"), "{missing}");
    let machine = said(|stack| declare(stack, [Vm { source: source(100), ..linked() }]));
    assert!(machine.contains("100 (no-template) is not a template"), "{machine}");
    let elsewhere = said(|stack| declare(stack, [cloned(1305, "pve2", 9000, None, "local-zfs")]));
    assert!(elsewhere.contains("can't clone VM to node 'pve2' (VM uses local storage)"), "{elsewhere}");
}

fn source(vmid: u32) -> Source {
    Source::Template { vmid, full: None }
}

#[test]
fn a_clone_does_not_take_the_number_of_somebody_elses_machine() {
    let lab = templates();
    lab.task(&vm::create("pve3", 1301, None, &[("name".to_owned(), "photos".to_owned())]));
    let before = lab.world();
    let said = lab.failures(|stack| declare(stack, [linked()]), Verb::Up);
    assert!(said.contains("proxmox:vm qemu/1301 exists already and is not ours"), "{said}");
    lab.whole(none, Verb::Up);
    assert_eq!(lab.world(), before);
}

#[test]
fn a_disk_of_the_template_that_is_not_declared_keeps_the_clone_alive() {
    let lab = templates();
    fn one(stack: &Stack) -> Outcome {
        declare(stack, [cloned(1306, "pve1", 9002, None, "local-zfs")])
    }
    fn both(stack: &Stack) -> Outcome {
        let mut clone = cloned(1306, "pve1", 9002, None, "local-zfs");
        clone.disks.insert(Slot::scsi(1), Disk::new("local-zfs", Gib(8)));
        declare(stack, [clone])
    }
    lab.whole(one, Verb::Up);
    lab.settled(one);
    let said = lab.failures(none, Verb::Up);
    assert!(said.contains("has scsi1 (local-zfs:base-9002-disk-1/vm-1306-disk-"), "{said}");
    assert_eq!(lab.running.deleted_volumes(), [""; 0]);
    lab.whole(both, Verb::Up);
    lab.whole(none, Verb::Up);
    assert_eq!(lab.running.deleted_volumes().len(), 2);
}

/// A machine that somebody made by hand, in the way that installations have it: other keys, other orders.
fn with_photos() -> Cluster {
    let photos = by_hand(
        400,
        "pve2",
        true,
        &[
            ("name", "photos"),
            ("description", "grandmother's\n"),
            ("cores", "2"),
            ("sockets", "1"),
            ("cpu", "cputype=x86-64-v2-AES"),
            ("memory", "2048"),
            ("numa", "0"),
            ("ostype", "l26"),
            ("scsihw", "virtio-scsi-single"),
            ("agent", "1,fstrim_cloned_disks=1"),
            ("onboot", "1"),
            ("serial0", "socket"),
            ("vga", "type=serial0"),
            ("boot", "order=scsi0"),
            ("tags", "family;k8s"),
            ("scsi0", "local-zfs:vm-400-disk-0,discard=on,iothread=1,size=32G,ssd=on,cache=writeback"),
            ("net0", "virtio=bc:24:11:aa:bb:cc,bridge=vmbr0,tag=20,queues=2"),
        ],
    );
    Cluster { guests: vec![photos], ..cluster() }
}

fn photos() -> Vm {
    let network = Network { vlan: Some(20), ..Network::new("vmbr0", "BC:24:11:AA:BB:CC".parse().expect("an address")) };
    Vm {
        description: "grandmother's".into(),
        tags: BTreeSet::from(["K8s".to_owned(), "family".to_owned()]),
        disks: BTreeMap::from([(Slot::scsi(0), Disk::new("local-zfs", Gib(32)))]),
        networks: vec![network],
        ..Vm::new(400, "photos", "pve2", 2, Mib(2048))
    }
}

fn imported(stack: &Stack, vm: Vm) -> Outcome {
    stack.provider("pve", proxmox()).resource("photos").import("qemu/400").add(vm);
    Ok(())
}

#[test]
fn a_machine_that_was_made_by_hand_is_imported_and_then_there_is_nothing_to_do() {
    let lab = Lab::of(with_photos(), lab_sim::Faults::none());
    let before = lab.world();
    let program: Program = |stack| imported(stack, photos());
    let plan = lab.planned(program, Verb::Up, false);
    assert!(matches!(plan.steps[..], [ref step] if matches!(step.action, Action::Import { .. })));
    lab.whole(program, Verb::Up);
    lab.settled(program);
    assert_eq!(lab.world(), before);
    let changes: Vec<String> =
        lab.running.calls().into_iter().map(|call| call.name).filter(|name| !reads(name)).collect();
    assert_eq!(changes, [""; 0], "it is left as it is");
    // Without the word as well: it is ours from now on.
    lab.settled(|stack| declare(stack, [photos()]));
    assert_eq!(lab.recorded(), ["qemu/400"]);
}

fn reads(call: &str) -> bool {
    call.starts_with("GET") || call.starts_with("connect")
}

#[test]
fn what_an_imported_machine_differs_in_is_shown_and_changed_and_nothing_else() {
    let lab = Lab::of(with_photos(), lab_sim::Faults::none());
    let more: Program = |stack| imported(stack, Vm { memory: Mib(4096), ..photos() });
    lab.whole(more, Verb::Up);
    let plan = lab.planned(more, Verb::Up, true);
    let before = lab.machine(400);
    assert_eq!(plan.steps.len(), 1, "{}", lab_core::plan::text(&plan));
    assert_eq!(plan.steps[0].interrupts.as_deref(), Some("reboots VM 400 (photos)"));
    assert_eq!(plan.steps[0].reasons, ["/memory: the memory changes with a reboot"]);
    lab.looking(more, Verb::Up);
    lab.settled(more);
    let mut expected = before;
    expected["config"]["memory"] = json!("4096");
    expected["config"]["description"] = json!("grandmother's\n\nmanaged by lab: MARK");
    assert_eq!(lab.machine(400), expected);
}

#[test]
fn an_imported_machine_is_deleted_only_when_the_plan_named_its_disks() {
    let lab = Lab::of(with_photos(), lab_sim::Faults::none());
    lab.whole(|stack| imported(stack, photos()), Verb::Up);
    let plan = lab.planned(none, Verb::Up, false);
    let destroys: Vec<_> = plan.destroys().map(|(_, what)| what.to_owned()).collect();
    assert_eq!(destroys, ["VM 400 (photos) with the disk scsi0 (32 GiB on local-zfs)"]);
    lab.task(&Request::post("/nodes/pve2/qemu/400/config").with("scsi3", "nas:1"));
    let said = lab.failures(none, Verb::Up);
    assert!(said.contains("has scsi3 (nas:400/vm-400-disk-"), "{said}");
    assert_eq!(lab.running.deleted_volumes(), [""; 0]);
}

#[test]
fn there_is_nothing_to_import_where_there_is_no_machine() {
    let said = Lab::new().failures(|stack| imported(stack, photos()), Verb::Up);
    assert!(said.contains("there is nothing with this identity to import"), "{said}");
}

#[test]
fn a_machine_that_was_moved_by_hand_stays_where_it_is_or_goes_back_if_it_is_pinned() {
    fn machine(stack: &Stack, pinned: bool) -> Outcome {
        let disks = BTreeMap::from([(Slot::scsi(0), Disk::new("local-zfs", Gib(4)))]);
        declare(stack, [Vm { pinned, disks, ..Vm::new(1310, "mail", "pve1", 1, Mib(1024)) }])
    }
    let lab = Lab::new();
    let (loose, pinned): (Program, Program) = (|stack| machine(stack, false), |stack| machine(stack, true));
    lab.whole(loose, Verb::Up);
    lab.task(&vm::migrate("pve1", 1310, "pve3", true));
    lab.settled(loose);
    assert_eq!(lab.machine(1310)["node"], "pve3");
    let plan = lab.planned(pinned, Verb::Up, true);
    assert_eq!((plan.steps.len(), &plan.steps[0].interrupts), (1, &None));
    assert!(matches!(plan.steps[0].action, Action::Update));
    lab.looking(pinned, Verb::Up);
    assert_eq!((&lab.machine(1310)["node"], &lab.machine(1310)["status"]), (&json!("pve1"), &json!("running")));
    lab.settled(pinned);
    lab.task(&vm::migrate("pve1", 1310, "pve2", true));
    assert!(!lab.planned(pinned, Verb::Up, true).is_empty());
    lab.looking(pinned, Verb::Up);
    assert_eq!(lab.machine(1310)["node"], "pve1");
    lab.whole(none, Verb::Up);
    assert_eq!(lab.running.deleted_volumes(), ["pve1/local-zfs:vm-1310-disk-0"]);
}
