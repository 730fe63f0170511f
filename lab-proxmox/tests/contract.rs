//! The contract of a provider, kept over sockets: killed anywhere, every reply lost, tasks that fail, die and warn.

mod simulated;

use lab_core::execute::{CallFault, Faults};
use lab_core::plan::Verb;
use lab_core::{ProgramError, Secret, Stack};
use lab_proxmox::{Address, CloudInit, Disk, Gib, Image, Mac, Mib, Network, Pool, Slot, Snapshot, Vm};
use lab_sim::Fault;
use serde_json::Value;
use simulated::{IMAGE, Lab, SHA256, at, proxmox};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A pool, an image, what a guest is told, two machines and a snapshot.
fn program(memory: u32, size: u32, boot: &str) -> impl Fn(&Stack) -> Result<(), ProgramError> + Copy {
    move |stack: &Stack| {
        let pve = stack.provider("pve", proxmox());
        let pool = pve.resource("pool").add(Pool::new("shop"));
        let image = pve.resource("image").add(Image::new("pve1", "local", "noble.qcow2", IMAGE, SHA256));
        let user_data = Secret::new(format!("#cloud-config\nruncmd: [[echo, {boot}]]\n"));
        let seed = pve.resource("seed").add(CloudInit::new("pve1", "local", "shop-1", user_data));
        let mac = Mac::derived("shop-1");
        let address = Address { ip: [192, 168, 10, 21].into(), prefix: 24, gateway: Some([192, 168, 10, 1].into()) };
        let network = Network { vlan: Some(110), address: Some(address), ..Network::new("vmbr0", mac) };
        let first = pve.resource("first").add(Vm {
            disks: BTreeMap::from([(
                Slot::scsi(0),
                Disk::from_image("local-zfs", Gib(size), image.output(|image| image.volume)),
            )]),
            networks: vec![network],
            iso: Some(seed.output(|seed| seed.volume).into()),
            pool: Some(pool.output(|pool| pool.name).into()),
            ..Vm::new(1101, "shop-1", "pve1", 2, Mib(memory))
        });
        pve.resource("second").add(Vm {
            disks: BTreeMap::from([(Slot::scsi(0), Disk::new("nas", Gib(8)))]),
            running: false,
            ..Vm::new(1102, "shop-2", "pve2", 1, Mib(1024))
        });
        pve.resource("before").add(Snapshot::new(first.output(|vm| vm.vmid), "fresh"));
        Ok(())
    }
}

fn small(stack: &Stack) -> Result<(), ProgramError> {
    program(2048, 20, "one")(stack)
}

fn large(stack: &Stack) -> Result<(), ProgramError> {
    program(4096, 40, "two")(stack)
}

fn none(stack: &Stack) -> Result<(), ProgramError> {
    stack.provider("pve", proxmox());
    Ok(())
}

/// Runs a verb undisturbed after `before`, and returns the world and how many calls there were.
fn undisturbed(before: Option<simulated::Program>, program: simulated::Program, verb: Verb) -> (Value, usize) {
    let lab = Lab::new();
    if let Some(before) = before {
        lab.whole(before, Verb::Up);
    }
    let faults = Arc::new(Faults::none());
    let report = lab.run(program, verb, &faults).expect("undisturbed");
    assert!(report.complete(), "undisturbed: {report:#?}");
    if verb == Verb::Up {
        lab.settled(program);
    }
    (lab.world(), faults.calls())
}

/// Disturbs every call of a verb in one way, runs it again, and compares with the undisturbed run.
fn survives(before: Option<simulated::Program>, program: simulated::Program, verb: Verb, fault: CallFault) {
    let (world, calls) = undisturbed(before, program, verb);
    assert!(calls > 3, "{calls} calls show little");
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || {
        let mut failed = Vec::new();
        loop {
            let call = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            if call >= calls {
                return failed;
            }
            let mut lab = Lab::new();
            if let Some(before) = before {
                lab.whole(before, Verb::Up);
            }
            let report = lab.run(program, verb, &at(call, fault)).expect("the plan has no problems");
            if report.stopped {
                lab.crash();
            }
            let report = lab.run(program, verb, &Arc::default()).expect("the plan has no problems");
            if !report.complete() {
                failed.push(format!("{fault:?} at {call}: {:?}", report.failed));
            } else if lab.world() != world {
                failed.push(format!("{fault:?} at {call}: another world:\n{:#}\ninstead of\n{world:#}", lab.world()));
            }
        }
    };
    let failed: Vec<String> = std::thread::scope(|scope| {
        let workers = [scope.spawn(work), scope.spawn(work)];
        workers.into_iter().flat_map(|worker| worker.join().expect("a crash point panicked")).collect()
    });
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn creating_goes_on_wherever_it_was_killed() {
    survives(None, small, Verb::Up, CallFault::StopAfter);
}

#[test]
fn creating_survives_every_lost_reply() {
    survives(None, small, Verb::Up, CallFault::LoseReply);
}

#[test]
fn changing_goes_on_wherever_it_was_killed() {
    survives(Some(small), large, Verb::Up, CallFault::StopAfter);
}

#[test]
fn destroying_goes_on_wherever_it_was_killed() {
    survives(Some(small), small, Verb::Destroy, CallFault::StopAfter);
}

#[test]
fn what_is_made_is_what_was_declared() {
    let lab = Lab::new();
    lab.whole(small, Verb::Up);
    lab.settled(small);
    let first = lab.machine(1101);
    assert_eq!((&first["status"], &first["pool"], &first["node"]), (&"running".into(), &"shop".into(), &"pve1".into()));
    let config = &first["config"];
    assert_eq!(config["memory"], "2048");
    assert!(config["scsi0"].as_str().unwrap().contains("size=20G"), "{config}");
    assert!(config["ide2"].as_str().unwrap().starts_with("local:iso/shop-1-MARK.iso"), "{config}");
    assert!(config["net0"].as_str().unwrap().contains(&Mac::derived("shop-1").to_string()), "{config}");
    assert_eq!(lab.machine(1102)["status"], "stopped");
    lab.whole(none, Verb::Up);
    let world = lab.world();
    assert_eq!(world["machines"], serde_json::json!({}));
    assert_eq!(world["volumes"], serde_json::json!([]), "no volume is left behind");
    assert!(lab.recorded().is_empty());
}

#[test]
fn memory_takes_a_reboot_and_a_disk_grows_while_it_runs() {
    let lab = Lab::new();
    lab.whole(small, Verb::Up);
    let plan = lab.planned(large, Verb::Up, false);
    let interrupted: Vec<_> =
        plan.steps.iter().filter_map(|step| Some((step.urn.name(), step.interrupts.as_deref()?))).collect();
    assert_eq!(interrupted, [("first", "reboots VM 1101 (shop-1)")]);
    lab.whole(large, Verb::Up);
    lab.settled(large);
    let first = lab.machine(1101);
    assert_eq!((&first["config"]["memory"], &first["pending"]), (&"4096".into(), &serde_json::json!([])));
    assert!(first["config"]["scsi0"].as_str().unwrap().contains("size=40G"), "{first}");
}

#[test]
fn every_reply_to_a_change_may_be_lost_on_the_wire() {
    let (world, _) = undisturbed(None, small, Verb::Up);
    for request in [
        "POST /api2/json/nodes/pve1/qemu",
        "POST /api2/json/nodes/pve1/storage/local/upload",
        "POST /api2/json/nodes/pve1/storage/local/download-url",
        "POST /api2/json/pools",
        "PUT /api2/json/nodes/pve1/qemu/1101/resize",
        "POST /api2/json/nodes/pve1/qemu/1101/status/start",
        "POST /api2/json/nodes/pve1/qemu/1101/snapshot",
    ] {
        let lab = Lab::with(lab_sim::Faults::none().on(request, 1, Fault::ReplyLost));
        lab.whole(small, Verb::Up);
        let struck = lab.running.calls().iter().filter(|call| call.fault == Some(Fault::ReplyLost)).count();
        assert_eq!(struck, 1, "no reply to {request} was lost");
        assert_eq!(lab.world(), world, "{request}");
    }
}

#[test]
fn a_task_that_fails_is_told_and_the_next_run_tries_again() {
    let lab = Lab::with(lab_sim::Faults::none().on("task qmcreate", 1, Fault::TaskFails));
    let said = lab.failures(small, Verb::Up);
    assert!(said.contains("is made on pve"), "{said}");
    lab.whole(small, Verb::Up);
    lab.settled(small);
}

#[test]
fn a_task_that_ends_in_warnings_has_done_its_work() {
    let lab = Lab::with(lab_sim::Faults::none().on("task qmcreate", 1, Fault::TaskWarns).on(
        "task qmstart",
        1,
        Fault::TaskWarns,
    ));
    lab.whole(small, Verb::Up);
    lab.settled(small);
}

#[test]
fn a_machine_that_was_moved_is_the_same_machine() {
    let lab = Lab::new();
    lab.whole(small, Verb::Up);
    lab.by_hand(async |client| {
        use lab_proxmox::request::vm::migrate;
        client.begin(&migrate("pve2", 1102, "pve3", false)).await.expect("it moves")
    });
    while lab.machine(1102)["node"] != "pve3" {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    lab.settled(small);
    lab.whole(small, Verb::Destroy);
    assert_eq!(lab.world()["machines"], serde_json::json!({}));
}

#[test]
fn a_machine_of_somebody_elses_with_the_same_number_is_not_touched() {
    let lab = Lab::new();
    lab.by_hand(async |client| {
        let config = [("name".to_owned(), "photos".to_owned()), ("description".to_owned(), "grandmother's".to_owned())];
        let request = lab_proxmox::request::vm::create("pve3", 1101, None, &config);
        client.begin(&request).await.expect("it is made")
    });
    while !lab.machine(1101)["lock"].is_null() || lab.machine(1101)["config"].is_null() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let before = lab.machine(1101);
    let said = lab.failures(small, Verb::Up);
    assert!(said.contains("proxmox:vm qemu/1101 exists already and is not ours"), "{said}");
    assert_eq!(lab.machine(1101), before);
    lab.whole(small, Verb::Destroy);
    assert_eq!(lab.machine(1101), before);
}

#[test]
fn a_disk_that_the_plan_did_not_name_keeps_its_machine_alive() {
    let lab = Lab::new();
    lab.whole(small, Verb::Up);
    lab.by_hand(async |client| {
        let request = lab_proxmox::request::Request::put("/nodes/pve2/qemu/1102/config").with("scsi5", "nas:4");
        client.send(&request).await.expect("a disk is added");
    });
    let said = lab.failures(small, Verb::Destroy);
    assert!(said.contains("has scsi5 (nas:1102/vm-1102-disk-1."), "{said}");
    assert!(lab.machine(1102)["config"]["scsi5"].is_string());
}
