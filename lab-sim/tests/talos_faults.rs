//! What goes wrong, and what the world looks like afterwards.

mod homelab;

use homelab::{CONTROL_PLANES, Lab, address};
use lab_sim::{Fault, Faults, Options};
use lab_talos::client::{Error, Mode, Phase, probe};
use serde_json::Value;
use std::time::Duration;

fn faulty(faults: Faults) -> Options {
    Options { faults, ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bootstrap_whose_reply_is_lost_has_happened() {
    let lab = Lab::start(faulty(Faults::none().on("/machine.MachineService/Bootstrap", 1, Fault::ReplyLost))).await;
    let first = CONTROL_PLANES[0];
    lab.install_all(&CONTROL_PLANES).await;
    lab.until(|| async {
        lab.secure(first).service_list().await.is_ok_and(|services| services.iter().any(|service| service.id == "cri"))
    })
    .await;

    let error = lab.secure(first).bootstrap().await.unwrap_err();
    assert!(error.may_have_effect(), "{error:?}");
    lab.until(|| async { lab.clusters() == [CONTROL_PLANES] }).await;
    let again = lab.secure(first).bootstrap().await.unwrap_err();
    assert_eq!(again, Error::AlreadyExists("etcd data directory is not empty".into()));
}

/// The disaster an engine must never cause, so the world has to show it.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_bootstrap_on_another_machine_splits_the_cluster() {
    let lab = Lab::start(Options::default()).await;
    let [first, second, _] = CONTROL_PLANES;
    lab.install_all(&[first]).await;
    lab.bootstrap(first).await;
    lab.until(|| async { lab.clusters() == [[first]] }).await;
    // While it is away, nobody is there for the second one to join, and nothing forbids it to begin anew.
    lab.running.power_loss(address(first), false);
    lab.install_all(&[second]).await;
    lab.bootstrap(second).await;
    lab.until(|| async { lab.clusters().contains(&vec![second.to_owned()]) }).await;
    lab.running.power_loss(address(first), true);
    lab.until(|| async { lab.clusters() == [[first], [second]] }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_dropped_or_refused_has_no_effect() {
    for fault in [Fault::Dropped, Fault::Refused] {
        let lab = Lab::start(faulty(Faults::none().on("/machine.MachineService/ApplyConfiguration", 1, fault))).await;
        let first = CONTROL_PLANES[0];
        let config = lab.config(first).into_bytes();
        let error = lab.insecure(first).apply_configuration(config, Mode::Auto, false).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable(_)), "{fault:?}: {error:?}");
        lab.running.link().clock.sleep(Duration::from_secs(60)).await;
        assert_eq!(lab.machine(first)["stage"], "maintenance", "{fault:?}");
        assert!(lab.running.calls().iter().any(|call| call.fault == Some(fault)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_dies_stays_dead_and_the_others_go_on() {
    let lab = Lab::start(Options::default()).await;
    let [first, _, third] = CONTROL_PLANES;
    lab.install_all(&CONTROL_PLANES).await;
    lab.bootstrap(first).await;
    lab.until(|| async { lab.machine(third)["ready"] == true && lab.machine(third)["stage"] == "running" }).await;
    lab.running.power_loss(address(third), false);
    lab.until(|| async { lab.clusters() == [&CONTROL_PLANES[..2]] }).await;
    assert!(matches!(lab.secure(third).version().await, Err(Error::Unreachable(_))));
    assert_eq!(lab.secure(first).etcd_member_list(false).await.unwrap().len(), 3, "it is a member all the same");
    lab.until(|| async { lab.running.world()["clusters"].to_string().contains("Kubelet stopped posting") }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_loses_power_in_the_middle_of_its_installation_starts_over() {
    let lab = Lab::start(Options::default()).await;
    let first = CONTROL_PLANES[0];
    lab.install(first).await;
    lab.until_machine(first, "stage", "installing").await;
    lab.running.power_loss(address(first), true);
    lab.until_machine(first, "stage", "maintenance").await;
    assert_eq!(lab.machine(first)["disk"], serde_json::Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_counts_its_calls_so_that_each_can_fail() {
    let lab = Lab::start(Options::default()).await;
    lab.insecure(CONTROL_PLANES[0]).disks().await.unwrap();
    let names: Vec<_> = lab.running.calls().into_iter().map(|call| (call.number, call.name)).collect();
    let expected = ["connect 10.69.1.101:50000", "/storage.StorageService/Disks"];
    assert_eq!(names, [(1, expected[0].to_owned()), (2, expected[1].to_owned())]);
}

/// Somebody who looks before every step, and bootstraps on one machine only.
async fn operate(lab: &Lab, machine: &str) {
    let clock = lab.running.link().clock;
    let start = clock.now();
    while lab.machine(machine)["stage"] != "running" || lab.machine(machine)["ready"] != true {
        assert!(
            clock.now().duration_since(start).unwrap() < Duration::from_secs(24 * 3600),
            "{:#}",
            lab.running.world()
        );
        match probe(&lab.running.link(), machine, Some(&lab.admin)).await {
            Phase::Maintenance { .. } => {
                let config = lab.config(machine).into_bytes();
                let _ = lab.insecure(machine).apply_configuration(config, Mode::Auto, false).await;
            }
            Phase::Ours => drop(lab.secure(machine).bootstrap().await),
            Phase::Foreign(_) | Phase::Unreachable(_) => {}
        }
        clock.sleep(Duration::from_secs(30)).await;
    }
}

async fn outcome(faults: Faults) -> Value {
    let options = Options { speed: 3000, faults, ..Options::default() };
    let lab = Lab::start(options).await;
    operate(&lab, CONTROL_PLANES[0]).await;
    let world = lab.running.world();
    let ours = world["clusters"].as_array().unwrap().iter().filter(|cluster| cluster["name"] == "homelab");
    // The first number belongs to the cluster that was there before.
    let clusters: Vec<_> = ours.map(|cluster| [&cluster["members"], &cluster["kubernetes"]]).collect();
    serde_json::json!([world["machines"][CONTROL_PLANES[0]], clusters])
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_call_goes_wrong_a_careful_operator_ends_with_the_same_world() {
    let undisturbed = outcome(Faults::none()).await;
    assert_eq!(undisturbed[1].as_array().unwrap().len(), 1);
    let mut runs = tokio::task::JoinSet::new();
    for number in 1..=10 {
        for fault in [Fault::Refused, Fault::Dropped, Fault::ReplyLost, Fault::Reboot] {
            runs.spawn(async move { (number, fault, outcome(Faults::none().at(number, fault)).await) });
        }
        while let Some(run) = runs.join_next().await {
            let (number, fault, disturbed) = run.unwrap();
            assert_eq!(disturbed, undisturbed, "{fault:?} at call {number}");
        }
    }
}
