//! Machines that become a cluster, and stop being one.

mod driver;

use driver::{CONTROL_PLANES, Lab, Operation, WORKER, address, bootstrap, machine, secrets};
use lab_core::{Found, Step, Why};
use lab_sim::{Fault, Faults, Options};
use lab_talos::{EtcdHealthy, Kubeconfig};
use std::time::Duration;

const BOOTSTRAP: &str = "/machine.MachineService/Bootstrap";

async fn configured(options: Options, machines: &[&str]) -> Lab {
    let lab = Lab::start(options).await;
    let (driver, made) = (&lab, machines.iter().map(|at| machine(at)));
    futures_util::future::join_all(made.map(|machine| async move { driver.create(&machine, "op-1").await.unwrap() }))
        .await;
    lab
}

fn healthy() -> EtcdHealthy {
    EtcdHealthy { nodes: CONTROL_PLANES.map(address).to_vec(), secrets: secrets() }
}

fn kubeconfig() -> Kubeconfig {
    Kubeconfig { nodes: CONTROL_PLANES.map(address).to_vec(), secrets: secrets(), cluster: "a cluster".into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_control_planes_become_one_cluster_with_a_way_in() {
    let lab = configured(Options::default(), &CONTROL_PLANES).await;
    lab.create(&bootstrap(&CONTROL_PLANES), "op-2").await.unwrap();
    assert_eq!(lab.ask(&healthy()).await, ["node-101", "node-140", "node-147"]);
    assert_eq!(lab.clusters().len(), 1);
    assert_eq!(lab.called(BOOTSTRAP), 1);

    let made = lab.create(&kubeconfig(), "op-3").await.unwrap();
    assert_eq!(made.outputs.server, driver::ENDPOINT);
    assert!(made.outputs.kubeconfig.expose().contains("client-key-data"));
    let life = made.due.unwrap().duration_since(lab.running.link().clock.now()).unwrap();
    assert!(life > Duration::from_secs(330 * 86_400) && life < Duration::from_secs(336 * 86_400), "{life:?}");

    // Done again, by somebody who knows nothing of it, it calls nothing.
    lab.create(&bootstrap(&CONTROL_PLANES), "op-4").await.unwrap();
    assert_eq!(lab.called(BOOTSTRAP), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bootstrap_is_never_made_elsewhere() {
    for fault in [Fault::ReplyLost, Fault::Dropped, Fault::Reboot] {
        let faults = Faults::none().on(BOOTSTRAP, 1, fault);
        let lab = configured(Options { faults, ..Options::default() }, &CONTROL_PLANES).await;
        lab.create(&bootstrap(&CONTROL_PLANES), "op-2").await.unwrap();
        lab.ask(&healthy()).await;
        assert_eq!(lab.clusters().len(), 1, "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bootstrap_that_was_cut_off_stays_with_its_machine_when_the_order_changes() {
    let lab = configured(Options::default(), &CONTROL_PLANES[..2]).await;
    let [first, second, _] = CONTROL_PLANES;
    let mut operation = Operation { steps: 1, ..Operation::create("op-2") };
    assert!(lab.apply(&bootstrap(&[first, second]), &mut operation).await.unwrap().is_none());
    assert_eq!(lab.called(BOOTSTRAP), 0);

    let turned = bootstrap(&[second, first]);
    lab.running.power_loss(address(first), false);
    operation.steps = 5;
    assert!(lab.find(&turned, &operation).await.is_err());
    assert!(lab.apply(&turned, &mut operation).await.is_err() || operation.steps == 0);
    assert_eq!(lab.called(BOOTSTRAP), 0);

    lab.running.power_loss(address(first), true);
    operation.steps = usize::MAX;
    lab.apply(&turned, &mut operation).await.unwrap().unwrap();
    assert!(matches!(lab.find(&turned, &operation).await.unwrap(), Found::Present(_, Step::Done(_))));
    assert_eq!(lab.clusters().len(), 1);
    assert!(lab.clusters()[0].contains(&first.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_leaves_the_living_cluster_before_it_is_reset() {
    let lab = configured(Options::default(), &CONTROL_PLANES).await;
    lab.create(&bootstrap(&CONTROL_PLANES), "op-2").await.unwrap();
    lab.ask(&healthy()).await;
    let third = machine(CONTROL_PLANES[2]);
    lab.delete(&third, Why::Removed).await.unwrap();
    assert_eq!(lab.world(CONTROL_PLANES[2])["stage"], "maintenance");
    let mut members = lab.clusters().remove(0);
    members.sort();
    assert_eq!(members, CONTROL_PLANES[..2]);
    // And comes back by itself.
    lab.create(&third, "op-5").await.unwrap();
    lab.ask(&healthy()).await;
    assert_eq!(lab.called(BOOTSTRAP), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_cluster_goes_at_once() {
    let machines = [&CONTROL_PLANES[..], &[WORKER]].concat();
    let lab = configured(Options::default(), &machines).await;
    lab.create(&bootstrap(&CONTROL_PLANES), "op-2").await.unwrap();
    lab.ask(&healthy()).await;
    let driver = &lab;
    let gone = machines.iter().map(|at| async move { driver.delete(&machine(at), Why::Removed).await.unwrap() });
    futures_util::future::join_all(gone).await;
    for machine in machines {
        assert_eq!(lab.world(machine)["stage"], "maintenance");
    }
}
