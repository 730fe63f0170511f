//! The life of one machine: from maintenance mode into a cluster, changed, and back.

mod driver;

use driver::{ABSENT, CONTROL_PLANES, FOREIGN, Lab, Operation, WORKER, machine};
use lab_core::{Class, Found, Owner, Step, Why};
use lab_sim::{Fault, Faults, Options};
use lab_talos::TalosVersion;

/// Control planes come up alone; a worker's certificate is signed by one of them.
const FIRST: &str = CONTROL_PLANES[0];

const CONFIGURE: &str = "/machine.MachineService/ApplyConfiguration";

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_installed_changed_and_reset() {
    let lab = Lab::start(Options::default()).await;
    let mut first = machine(FIRST);
    assert_eq!(lab.owner(&first).await.unwrap(), None);

    let made = lab.create(&first, "op-1").await.unwrap();
    assert_eq!((made.id.0.as_str(), made.outputs.name.as_str()), (FIRST, "node-101"));
    assert_eq!(lab.world(FIRST)["disk"], "/dev/nvme0n1");
    assert_eq!(lab.owner(&first).await.unwrap(), Some(Owner::Marked("op-1".into())));
    assert_eq!(lab.called(CONFIGURE), 1);

    // A label needs no reboot, and a second look finds nothing to do.
    first.labels.insert("zone".into(), "rack".into());
    let made = lab.update(&first, "op-1").await.unwrap();
    assert_eq!(made.live.unwrap()["labels"]["zone"], "rack");
    lab.update(&first, "op-1").await.unwrap();
    assert_eq!(lab.called(CONFIGURE), 2);

    lab.delete(&first, Why::Removed).await.unwrap();
    assert_eq!(lab.world(FIRST)["stage"], "maintenance");
    assert_eq!(lab.world(FIRST)["config"], serde_json::Value::Null);
    assert_eq!(lab.owner(&first).await.unwrap(), None);
    // Its disk boots still, so it can be a member again.
    lab.create(&first, "op-2").await.unwrap();
    assert_eq!(lab.owner(&first).await.unwrap(), Some(Owner::Marked("op-2".into())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_or_a_crash_configures_a_machine_once() {
    for fault in [Fault::ReplyLost, Fault::Dropped, Fault::Refused] {
        let faults = Faults::none().on(CONFIGURE, 1, fault);
        let lab = Lab::start(Options { faults, ..Options::default() }).await;
        lab.create(&machine(FIRST), "op-1").await.unwrap();
        let expected = if fault == Fault::ReplyLost { 1 } else { 2 };
        assert_eq!(lab.called(CONFIGURE), expected, "{fault:?}");
    }
    // Stopped after its first call, with and without its cursor: it goes on from what is found.
    for keeps in [true, false] {
        let lab = Lab::start(Options::default()).await;
        let first = machine(FIRST);
        let mut operation = Operation { steps: 1, ..Operation::create("op-1") };
        assert!(lab.apply(&first, &mut operation).await.unwrap().is_none());
        operation.cursor = operation.cursor.filter(|_| keeps);
        operation.steps = usize::MAX;
        lab.apply(&first, &mut operation).await.unwrap().unwrap();
        assert_eq!(lab.owner(&first).await.unwrap(), Some(Owner::Marked("op-1".into())));
        if keeps {
            assert_eq!(lab.called(CONFIGURE), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_of_another_cluster_is_refused_with_a_way_out() {
    let lab = Lab::start(Options::default()).await;
    let stranger = machine(FOREIGN);
    let refusals = [lab.owner(&stranger).await.unwrap_err(), lab.create(&stranger, "op-1").await.unwrap_err()];
    for error in refusals {
        assert_eq!(error.class, Class::Invalid);
        assert!(error.message.starts_with("10.69.1.190 already belongs to another Talos cluster"), "{error}");
        assert!(error.message.contains("or give the secrets bundle of its cluster to adopt it"), "{error}");
    }
    assert_eq!(lab.delete(&stranger, Why::Removed).await.unwrap_err().class, Class::Invalid);
    assert_eq!(lab.called(CONFIGURE), 0);
    assert_eq!(lab.called("/machine.MachineService/Reset"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_not_there_is_not_taken_for_absent() {
    let lab = Lab::start(Options::default()).await;
    let error = lab.owner(&machine(ABSENT)).await.unwrap_err();
    assert_eq!(error.class, Class::Unreachable);
    assert!(error.message.contains("10.69.1.250 does not answer"), "{error}");
    assert!(error.message.contains("is it switched on"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_the_machine_has_not_is_refused_before_anything_is_sent() {
    let lab = Lab::start(Options::default()).await;
    let mut first = machine(FIRST);
    first.install_disk = "/dev/sda".into();
    let error = lab.create(&first, "op-1").await.unwrap_err();
    assert_eq!(error.class, Class::Invalid);
    assert!(error.message.contains("has no disk /dev/sda; it has /dev/nvme0n1 (500 GB"), "{error}");
    assert_eq!(lab.called(CONFIGURE), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_was_configured_by_hand_bears_no_mark_until_it_is_taken_over() {
    let lab = Lab::start(Options::default()).await;
    let first = machine(FIRST);
    lab.create(&first, "").await.unwrap();
    assert_eq!(lab.owner(&first).await.unwrap(), Some(Owner::Unmarked));
    lab.update(&first, "op-import").await.unwrap();
    assert_eq!(lab.owner(&first).await.unwrap(), Some(Owner::Marked("op-import".into())));
    assert_eq!(lab.world(FIRST)["version"], "v1.11.2");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_talos_is_installed_and_proven() {
    let lab = Lab::start(Options::default()).await;
    let mut worker = machine(WORKER);
    lab.create(&machine(FIRST), "op-0").await.unwrap();
    lab.create(&worker, "op-1").await.unwrap();
    worker.talos = TalosVersion::V1_11.patch(6);
    let made = lab.update(&worker, "op-1").await.unwrap();
    assert_eq!(made.live.unwrap()["talos"], "v1.11.6");
    assert_eq!(lab.world(WORKER)["version"], "v1.11.6");
    assert_eq!(lab.called("/machine.MachineService/Upgrade"), 1);
    let Found::Present(_, Step::Done(made)) = lab.find(&worker, &Operation::update("op-1")).await.unwrap() else {
        panic!("it is not ready");
    };
    assert_eq!(made.live.unwrap()["installer"], "ghcr.io/siderolabs/installer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_that_waits_for_its_bootstrap_is_configured() {
    let lab = Lab::start(Options::default()).await;
    let first = machine(CONTROL_PLANES[0]);
    lab.create(&first, "op-1").await.unwrap();
    assert_ne!(lab.world(CONTROL_PLANES[0])["stage"], "running");
    assert!(lab.clusters().is_empty());
}
