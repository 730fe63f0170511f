//! What a person is told when something goes wrong, and what becomes of it: hosts that are lost, tasks that fail, die or
//! warn, locks of others, no majority, tokens that lack a right.

mod simulated;

use lab_core::execute::{Options, Progress, Report, Warned};
use lab_core::plan::{Plan, Verb};
use lab_core::{Handle, ProgramError, Resource, Scope, Stack};
use lab_proxmox::request::{Request, vm};
use lab_proxmox::{Disk, Gib, HighAvailability, Mib, Pool, Proxmox, Slot, Source, Vm};
use lab_sim::proxmox::Token;
use lab_sim::{Fault, Faults};
use serde_json::{Value, json};
use simulated::everything::{inhabited, made};
use simulated::{Lab, Program, SECRET, TOKEN, proxmox};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Outcome = Result<(), ProgramError>;

/// A pace at which a host that reboots is away for a second: long enough to be met.
const OUTAGE: u32 = 180;

/// Long enough for everything that goes well, and over soon for what never does.
const SHORT: Duration = Duration::from_secs(120);

fn add<R: Resource<Proxmox>>(pve: &Scope<'_, Proxmox>, name: &str, resource: R) -> Handle<R::Outputs> {
    pve.resource(name).timeout(SHORT).add(resource)
}

fn pve(stack: &Stack) -> Scope<'_, Proxmox> {
    stack.provider("pve", proxmox())
}

fn machine(memory: u32) -> Vm {
    Vm {
        disks: BTreeMap::from([(Slot::scsi(0), Disk::new("nas", Gib(8)))]),
        ..Vm::new(1201, "shop", "pve2", 1, Mib(memory))
    }
}

fn small(stack: &Stack) -> Outcome {
    add(&pve(stack), "shop", machine(1024));
    Ok(())
}

fn large(stack: &Stack) -> Outcome {
    add(&pve(stack), "shop", machine(2048));
    Ok(())
}

fn clone(stack: &Stack) -> Outcome {
    let source = Source::Template { vmid: 9001, full: None };
    add(&pve(stack), "shop", Vm { source, ..machine(1024) });
    Ok(())
}

fn inhabited_lab(faults: Faults) -> Lab {
    Lab::of(inhabited(), faults)
}

/// Carries a verb out and returns everything that was told while it was at work.
#[track_caller]
fn told(lab: &Lab, program: Program, verb: Verb) -> (Plan, Report, String) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let hears = lines.clone();
    let sink = move |progress: &Progress| match progress {
        Progress::Waiting { why: text, .. } | Progress::Retrying { error: text, .. } => {
            hears.lock().unwrap().push(text.clone());
        }
        Progress::Warning { message, .. } => hears.lock().unwrap().push(message.clone()),
        _ => {}
    };
    let options = Options { sink: Arc::new(sink), ..Options::default() };
    let (plan, report) = lab.carry_out(program, verb, false, options).unwrap_or_else(|error| panic!("{verb}: {error}"));
    let lines = lines.lock().unwrap().join("\n");
    (plan, report, lines)
}

fn failures(report: &Report) -> String {
    report.failed.iter().map(|failure| failure.error.clone()).collect::<Vec<_>>().join("\n")
}

/// At the pace of real hosts the second look comes before the first start has come to its end: the machine was started
/// once more, and the step failed because it runs already.
#[test]
fn a_start_whose_reply_is_lost_is_met_by_the_next_and_does_no_harm() {
    let lab = Lab::slow(10, Faults::none().on("/status/start", 1, Fault::ReplyLost));
    lab.whole(small, Verb::Up);
    let starts = lab.running.calls().into_iter().filter(|call| call.name.ends_with("/status/start"));
    assert_eq!(starts.count(), 2, "the first start was over before it was looked at again");
    assert_eq!(lab.machine(1201)["status"], "running");
    lab.settled(small);
}

#[test]
fn a_task_that_ends_in_warnings_has_done_its_work_and_the_warning_is_shown() {
    for task in ["task qmcreate", "task qmstart"] {
        let lab = Lab::with(Faults::none().on(task, 1, Fault::TaskWarns));
        let (_, report, lines) = told(&lab, small, Verb::Up);
        assert!(report.complete(), "{:?}", report.failed);
        assert!(lines.contains("done, with WARNINGS: 1"), "{lines}");
        assert!(lines.contains("WARN: volume may be slow: simulated warning"), "{lines}");
        // And once more when the run is over.
        let [Warned { urn: Some(urn), message: said }] = &report.warnings[..] else { panic!("{:?}", report.warnings) };
        assert_eq!((urn.kind(), urn.name()), ("proxmox:vm", "shop"));
        assert!(said.contains("done, with WARNINGS: 1") && said.contains("WARN: volume may be slow"), "{said}");
        lab.settled(small);
    }
}

#[test]
fn a_task_that_fails_is_told_with_what_it_did_and_what_it_said() {
    for (task, does) in [("task qmcreate", "VM 1201 (shop) is made on pve2"), ("task qmstart", "VM 1201 (shop) starts")]
    {
        let lab = Lab::with(Faults::none().on(task, 1, Fault::TaskFails));
        let said = lab.failures(small, Verb::Up);
        assert!(said.contains(does) && said.contains("command 'qemu-img convert' failed: got signal 9"), "{said}");
        lab.whole(small, Verb::Up);
        lab.settled(small);
        assert_eq!(lab.running.deleted_volumes(), [""; 0]);
    }
    let lab = Lab::new();
    lab.whole(small, Verb::Up);
    for (program, verb, task, does) in [
        (large as Program, Verb::Up, "task qmconfig", "VM 1201 (shop) is configured: memory"),
        (large, Verb::Up, "task qmshutdown", "VM 1201 (shop) reboots, so that memory takes effect"),
        (large, Verb::Destroy, "task qmdestroy", "VM 1201 (shop) is destroyed"),
    ] {
        lab.running.disturb(Faults::none().on(task, 1, Fault::TaskFails));
        let said = lab.failures(program, verb);
        assert!(said.contains(does) && said.contains("got signal 9"), "{said}");
    }
    lab.whole(large, Verb::Destroy);
    assert_eq!(lab.world()["machines"], json!({}));
}

/// Something of ours died while it was made: the lock is waited for and then named, with what takes it away.
#[track_caller]
fn dies_half_way(lab: &Lab, program: Program, node: &str, lock: &str) {
    let before = lab.world();
    let said = lab.failures(program, Verb::Up);
    assert!(said.contains(&format!("its task was killed on {node} (unexpected status")), "{said}");
    assert!(said.contains("what it was at work on may still be locked"), "{said}");
    // Another run neither makes a second one nor does away with the first.
    let (_, report, lines) = told(lab, program, Verb::Up);
    let words = format!(
        "VM 1201 is locked ({lock}); if no task is at work on it, one that died has left the lock behind, and on {node} \
         `qm unlock 1201` takes it away, and `qm destroy 1201` what it has made of the machine"
    );
    let said = failures(&report);
    assert!(said.contains(&words), "{said}");
    assert!(lines.contains(&format!("VM 1201 is locked ({lock})")), "{lines}");
    assert!(report.failed[0].open, "the next run finishes it");
    lab.running.unlock(1201);
    lab.task(&vm::destroy(node, 1201));
    assert_eq!(lab.world(), before);
    lab.whole(program, Verb::Up);
    lab.settled(program);
}

#[test]
fn a_machine_that_dies_while_it_is_made_is_named_and_made_again_once_it_is_cleared_away() {
    dies_half_way(&Lab::with(Faults::none().on("task qmcreate", 1, Fault::TaskDies)), small, "pve2", "create");
}

#[test]
fn a_clone_that_dies_half_way_is_named_and_made_again_and_its_template_stays_as_it_was() {
    let lab = inhabited_lab(Faults::none().on("task qmclone", 1, Fault::TaskDies));
    let template = lab.machine(9001);
    dies_half_way(&lab, clone, "pve1", "clone");
    assert_eq!(lab.machine(9001), template);
    assert!(lab.machine(1201)["config"]["scsi0"].as_str().unwrap().contains("base-9001-disk-0"));
}

#[test]
fn a_lock_of_somebody_elses_backup_is_waited_for() {
    let lab = Lab::with(Faults::none().on("task vzdump", 1, Fault::Latency(Duration::from_secs(300))));
    lab.whole(small, Verb::Up);
    let backup = Request::post("/nodes/pve2/vzdump").with("vmid", 1201).with("storage", "nas");
    lab.by_hand(async |client| client.begin(&backup).await.expect("it begins"));
    while lab.machine(1201)["lock"] != "backup" {
        std::thread::sleep(Duration::from_millis(1));
    }
    let (_, report, lines) = told(&lab, large, Verb::Up);
    assert!(report.complete(), "{:?}", report.failed);
    assert!(lines.contains("VM 1201 is locked (backup)"), "{lines}");
    lab.settled(large);
}

#[test]
fn a_lock_that_stays_is_named_at_the_deadline() {
    let lab = Lab::with(Faults::none().on("task vzdump", 1, Fault::TaskDies));
    lab.whole(small, Verb::Up);
    let backup = Request::post("/nodes/pve2/vzdump").with("vmid", 1201).with("storage", "nas");
    lab.by_hand(async |client| client.begin(&backup).await.expect("it begins"));
    lab.at_rest();
    for verb in [Verb::Up, Verb::Destroy] {
        let said = lab.failures(large, verb);
        assert!(said.contains("VM 1201 is locked (backup)"), "{said}");
        assert!(said.contains("on pve2 `qm unlock 1201` takes it away (tried for 120 s)"), "{said}");
    }
    lab.running.unlock(1201);
    lab.whole(large, Verb::Destroy);
}

#[test]
fn without_a_majority_nothing_is_changed_and_with_one_again_it_goes_on() {
    let lab = Lab::paced(OUTAGE);
    lab.whole(small, Verb::Up);
    for n in [1, 3] {
        lab.power_loss(n, true);
    }
    let (_, report, lines) = told(&lab, large, Verb::Up);
    assert!(report.complete(), "{:?}", report.failed);
    assert!(lines.contains("cluster not ready - no quorum?"), "{lines}");
    lab.settled(large);
}

#[test]
fn a_majority_that_stays_away_is_named_and_nothing_is_taken_to_be_gone() {
    let lab = Lab::new();
    lab.whole(small, Verb::Up);
    let before = lab.machine(1201)["config"].clone();
    for n in [1, 3] {
        lab.power_loss(n, false);
    }
    let said = lab.failures(large, Verb::Up);
    assert!(said.contains("cluster not ready - no quorum?"), "{said}");
    // What runs on one node may be stopped without the others; what is there stays.
    lab.failures(large, Verb::Destroy);
    assert_eq!(lab.machine(1201)["config"], before);
    assert_eq!(lab.recorded(), ["qemu/1201"]);
}

#[test]
fn a_host_that_comes_back_is_waited_for() {
    let lab = Lab::paced(OUTAGE);
    lab.whole(small, Verb::Up);
    lab.power_loss(2, true);
    let (_, report, lines) = told(&lab, large, Verb::Up);
    assert!(report.complete(), "{:?}", report.failed);
    assert!(lines.contains("No route to host"), "{lines}");
    lab.settled(large);
}

#[test]
fn a_host_that_is_lost_takes_nothing_out_of_the_state() {
    let lab = Lab::new();
    lab.whole(small, Verb::Up);
    lab.power_loss(2, false);
    let plan = lab.planned(small, Verb::Up, true);
    assert!(plan.is_empty(), "{}", lab_core::plan::text(&plan));
    lab.refresh(small);
    let said = lab.failures(large, Verb::Up);
    assert!(said.contains("No route to host"), "{said}");
    lab.failures(large, Verb::Destroy);
    assert_eq!(lab.recorded(), ["qemu/1201"]);
    assert_eq!(lab.running.deleted_volumes(), [""; 0]);
}

#[test]
fn a_machine_that_the_cluster_started_elsewhere_when_its_host_was_lost_is_the_same_machine() {
    fn kept(stack: &Stack, memory: u32) -> Outcome {
        let pve = pve(stack);
        // A guest that shuts down when it is asked to: what the cluster keeps running is not switched off for a reboot.
        let source = Source::Template { vmid: 9001, full: None };
        let shop = add(&pve, "shop", Vm { source, ..machine(memory) });
        add(&pve, "kept", HighAvailability::new(shop.output(|vm| vm.vmid)));
        Ok(())
    }
    let (small, large): (Program, Program) = (|stack| kept(stack, 1024), |stack| kept(stack, 2048));
    let lab = inhabited_lab(Faults::none());
    lab.whole(small, Verb::Up);
    lab.power_loss(2, false);
    lab.whole(large, Verb::Up);
    let machine = lab.machine(1201);
    assert_ne!(machine["node"], "pve2");
    assert_eq!((&machine["config"]["memory"], &machine["status"]), (&json!("2048"), &json!("running")));
    lab.settled(large);
    lab.whole(large, Verb::Destroy);
    assert_eq!(lab.machine(1201), Value::Null);
}

#[test]
fn a_host_that_is_lost_in_the_middle_of_a_run_is_waited_for() {
    // Wherever it happens: as a request of ours has just had its effect, and while a task is at work.
    for request in ["POST /api2/json/nodes/pve2/qemu/1201/config", "PUT /api2/json/pools"] {
        let pooled: Program = |stack| {
            let pve = pve(stack);
            let pool = add(&pve, "pool", Pool { comment: "the shop".into(), ..Pool::new("shop") });
            add(&pve, "shop", Vm { pool: Some(pool.output(|pool| pool.name).into()), ..machine(2048) });
            Ok(())
        };
        let first: Program = |stack| {
            let pve = pve(stack);
            add(&pve, "pool", Pool::new("shop"));
            add(&pve, "shop", machine(1024));
            Ok(())
        };
        let lab = Lab::new();
        lab.whole(first, Verb::Up);
        lab.running.disturb(Faults::none().on(request, 1, Fault::Reboot));
        let (_, report, _) = told(&lab, pooled, Verb::Up);
        assert!(report.complete(), "{request}: {:?}", report.failed);
        lab.settled(pooled);
    }
}

#[test]
fn a_right_that_the_token_lacks_is_named_with_its_path() {
    const ALL: [&str; 23] = [
        "Datastore.Allocate",
        "Datastore.AllocateSpace",
        "Datastore.AllocateTemplate",
        "Datastore.Audit",
        "Pool.Allocate",
        "Pool.Audit",
        "SDN.Use",
        "Sys.AccessNetwork",
        "Sys.Audit",
        "Sys.Console",
        "Sys.Modify",
        "VM.Allocate",
        "VM.Audit",
        "VM.Clone",
        "VM.Config.CDROM",
        "VM.Config.CPU",
        "VM.Config.Disk",
        "VM.Config.HWType",
        "VM.Config.Memory",
        "VM.Config.Network",
        "VM.Config.Options",
        "VM.PowerMgmt",
        "VM.Snapshot",
    ];
    let with = |missing: &[&str]| {
        let granted: Vec<&str> = ALL.into_iter().filter(|privilege| !missing.contains(privilege)).collect();
        let mut cluster = inhabited();
        cluster.tokens = vec![Token::new(TOKEN, SECRET).allow("/", &granted)];
        Lab::of(cluster, Faults::none())
    };
    with(&[]).whole(made, Verb::Up);
    for (missing, path) in [
        ("Datastore.Allocate", "/storage"),
        ("Datastore.AllocateSpace", "/storage/local-zfs"),
        ("Datastore.AllocateTemplate", "/storage/local"),
        ("Pool.Allocate", "/pool/shop"),
        ("Pool.Audit", "/pool/shop"),
        ("SDN.Use", "/sdn/zones/localnetwork/vmbr0/110"),
        ("Sys.Audit", "/"),
        ("Sys.Console", "/"),
        ("Sys.Modify", "/"),
        ("VM.Allocate", "/vms/1102"),
        ("VM.Audit", "/vms/1102"),
        ("VM.Clone", "/vms/9001"),
        ("VM.Config.CDROM", "/vms/1101"),
        ("VM.Config.CPU", "/vms/1102"),
        ("VM.Config.Disk", "/vms/1102"),
        ("VM.Config.HWType", "/vms/1102"),
        ("VM.Config.Memory", "/vms/1102"),
        ("VM.Config.Network", "/vms/1101"),
        ("VM.Config.Options", "/vms/1102"),
        ("VM.PowerMgmt", "/vms/1102"),
        ("VM.Snapshot", "/vms/1101"),
    ] {
        let lab = with(&[missing]);
        let report = lab.run(made, Verb::Up, &Arc::default()).expect("a plan");
        let said = failures(&report);
        let named = said.lines().any(|line| line.contains(missing) && line.contains(path));
        assert!(named, "without {missing} on {path}:\n{said}");
        assert_eq!(lab.running.deleted_volumes(), [""; 0], "without {missing}");
    }
    // Where there is more than one way the server names none.
    let said =
        failures(&with(&["Sys.AccessNetwork", "Sys.Modify"]).run(made, Verb::Up, &Arc::default()).expect("a plan"));
    assert!(said.contains("Sys.AccessNetwork on /nodes/pve1 or Sys.Audit and Sys.Modify on /"), "{said}");
}

#[test]
fn a_file_that_was_only_half_uploaded_is_uploaded_again() {
    for fault in [Fault::TaskFails, Fault::TaskDies] {
        let lab = inhabited_lab(Faults::none().on("task imgcopy", 1, fault));
        lab.carry_out(made, Verb::Up, false, Options::default()).expect("a plan");
        lab.whole(made, Verb::Up);
        lab.settled(made);
        let volumes = lab.world()["volumes"].clone();
        let ours = |volume: &&Value| volume["volume"].as_str().unwrap_or_default().starts_with("local:iso/shop-1-");
        assert_eq!(volumes.as_array().into_iter().flatten().filter(ours).count(), 1);
    }
}
