//! What an operator does to machines that run: configure, reboot, upgrade, reset.

mod homelab;

use homelab::{CONTROL_PLANES, Lab, WORKERS};
use lab_sim::Options;
use lab_talos::client::{Error, Machine, Mode, Stored};
use lab_talos::proto::machine::ApplyConfigurationRequest;
use lab_talos::proto::machine::apply_configuration_request::Mode as Wire;
use lab_talos::proto::machine::machine_service_client::MachineServiceClient;
use std::time::Duration;

async fn cluster() -> Lab {
    let lab = Lab::start(Options::default()).await;
    lab.install_all(&[CONTROL_PLANES[0], CONTROL_PLANES[1], CONTROL_PLANES[2], WORKERS[0]]).await;
    lab.bootstrap(CONTROL_PLANES[0]).await;
    for machine in CONTROL_PLANES.iter().chain(&WORKERS) {
        lab.until(|| async { lab.machine(machine)["ready"] == true && lab.machine(machine)["stage"] == "running" })
            .await;
    }
    lab
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_is_applied_at_once_and_a_file_needs_a_reboot() {
    let lab = cluster().await;
    let worker = WORKERS[0];
    let labelled = lab.config_with(worker, |config| drop(config.node_labels.insert("rack".into(), "a".into())));
    let dry = lab.secure(worker).apply_configuration(labelled.clone().into_bytes(), Mode::Auto, true).await.unwrap();
    assert_eq!(dry.mode, Some(Mode::NoReboot));
    assert!(
        dry.details.starts_with("Dry run summary:\nApplied configuration without a reboot (skipped in dry-run).\n")
    );
    assert!(dry.details.contains("\n+"), "{}", dry.details);
    let stored = lab.secure(worker).machine_config(Stored::Active).await.unwrap();
    assert_eq!(stored, lab.config(worker).into_bytes(), "a dry run stores nothing");

    let done = lab.secure(worker).apply_configuration(labelled.clone().into_bytes(), Mode::Auto, false).await.unwrap();
    assert_eq!(done.details, "Applied configuration without a reboot");
    assert_eq!(lab.secure(worker).machine_config(Stored::Active).await.unwrap(), labelled.clone().into_bytes());
    lab.until(|| async { lab.running.world()["clusters"].to_string().contains("\"rack\":\"a\"") }).await;

    let filed =
        labelled.replacen("    token:", "    files:\n        - path: /var/x\n          content: x\n    token:", 1);
    let refused = lab.secure(worker).apply_configuration(filed.clone().into_bytes(), Mode::NoReboot, false).await;
    let Err(Error::Invalid(text)) = refused else { panic!("{refused:?}") };
    assert!(text.starts_with("this config change can't be applied in immediate mode\ndiff:\n"), "{text}");
    let done = lab.secure(worker).apply_configuration(filed.into_bytes(), Mode::Auto, false).await.unwrap();
    assert_eq!(done.mode, Some(Mode::Reboot));
    lab.until_machine(worker, "stage", "rebooting").await;
    lab.until_machine(worker, "stage", "running").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_nobody_knows_refuses_the_whole_configuration() {
    let lab = cluster().await;
    let worker = WORKERS[0];
    let strange = lab.config(worker).replacen("    token:", "    tokne: x\n    token:", 1);
    let refused = lab.secure(worker).apply_configuration(strange.into_bytes(), Mode::Auto, false).await;
    assert_eq!(refused, Err(Error::Invalid("unknown keys found during decoding:\nmachine:\n    tokne: x\n".into())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_the_machine_does_not_have_is_refused_before_anything_is_wiped() {
    let lab = Lab::start(Options::default()).await;
    let machine = CONTROL_PLANES[0];
    let config = lab.config_with(machine, |config| config.install_disk = "/dev/sdx".into());
    let refused = lab.insecure(machine).apply_configuration(config.into_bytes(), Mode::Auto, false).await;
    let Err(Error::Invalid(text)) = refused else { panic!("{refused:?}") };
    assert!(text.contains("no disks matched the expression: /dev/sdx"), "{text}");
    assert_eq!(lab.machine(machine)["stage"], "maintenance");
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_mode_has_no_other_calls() {
    let lab = Lab::start(Options::default()).await;
    let machine = lab.insecure(CONTROL_PLANES[0]);
    let early = machine.bootstrap().await.unwrap_err();
    assert!(early.to_string().contains("method Bootstrap not implemented"), "{early}");
    let version = machine.version().await.unwrap_err();
    assert!(version.to_string().contains("API is not implemented in maintenance mode"), "{version}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_that_reboots_comes_back_with_its_data() {
    let lab = cluster().await;
    let [first, ..] = CONTROL_PLANES;
    let nodes = lab.running.world()["clusters"].to_string().matches("\"kind\":\"Node\"").count();
    lab.secure(first).reboot().await.unwrap();
    lab.until_machine(first, "stage", "rebooting").await;
    lab.until(|| async { lab.machine(first)["ready"] == true && lab.machine(first)["stage"] == "running" }).await;
    assert_eq!(lab.clusters(), [CONTROL_PLANES]);
    assert_eq!(lab.running.world()["clusters"].to_string().matches("\"kind\":\"Node\"").count(), nodes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_of_state_and_ephemeral_returns_to_maintenance() {
    let lab = cluster().await;
    let third = CONTROL_PLANES[2];
    lab.secure(third).reset(true, true, &["STATE", "EPHEMERAL"]).await.unwrap();
    lab.until_machine(third, "stage", "maintenance").await;
    assert_eq!(lab.clusters(), [&CONTROL_PLANES[..2]], "a graceful reset leaves etcd");
    let members = lab.secure(CONTROL_PLANES[0]).etcd_member_list(false).await.unwrap();
    assert_eq!(members.len(), 2);
    // Talos is still on its disk: no installation, straight to boot, and it joins again by itself.
    lab.install(third).await;
    lab.until(|| async { lab.clusters() == [CONTROL_PLANES] }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_without_labels_leaves_nothing_to_boot_from() {
    let lab = cluster().await;
    let worker = WORKERS[0];
    lab.secure(worker).reset(false, true, &[]).await.unwrap();
    lab.until_machine(worker, "stage", "off").await;
    assert!(matches!(lab.secure(worker).version().await, Err(Error::Unreachable(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_reset_of_the_last_member_does_not_happen_and_a_blunt_one_drops_the_cluster() {
    let lab = Lab::start(Options::default()).await;
    let first = CONTROL_PLANES[0];
    lab.install_all(&[first]).await;
    lab.bootstrap(first).await;
    lab.until_machine(first, "stage", "running").await;
    lab.secure(first).reset(true, true, &["STATE", "EPHEMERAL"]).await.unwrap();
    lab.running.link().clock.sleep(Duration::from_secs(300)).await;
    assert_eq!(lab.machine(first)["stage"], "running");
    assert_eq!(lab.clusters(), [[first]]);
    lab.secure(first).reset(false, true, &["STATE", "EPHEMERAL"]).await.unwrap();
    lab.until_machine(first, "stage", "maintenance").await;
    assert!(lab.clusters().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_changes_the_version_and_keeps_the_data() {
    let lab = cluster().await;
    let second = CONTROL_PLANES[1];
    lab.secure(second).upgrade("ghcr.io/siderolabs/installer:v1.12.0", false).await.unwrap();
    lab.until_machine(second, "version", "v1.12.0").await;
    lab.until(|| async { lab.machine(second)["ready"] == true && lab.machine(second)["stage"] == "running" }).await;
    assert_eq!(lab.secure(second).version().await.unwrap().version.unwrap().tag, "v1.12.0");
    assert_eq!(lab.clusters(), [CONTROL_PLANES]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_with_two_members_is_refused() {
    let lab = Lab::start(Options::default()).await;
    let [first, second, _] = CONTROL_PLANES;
    lab.install_all(&[first, second]).await;
    lab.bootstrap(first).await;
    lab.until(|| async { lab.clusters() == [[first, second]] }).await;
    let machine: Machine = lab.secure(first);
    let refused = machine.upgrade("ghcr.io/siderolabs/installer:v1.12.0", false).await.unwrap_err();
    assert!(refused.to_string().contains("etcd member count(2) is insufficient to maintain quorum"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_staged_configuration_waits_for_the_next_boot() {
    let lab = cluster().await;
    let worker = WORKERS[0];
    let staged = lab.config_with(worker, |config| drop(config.node_labels.insert("rack".into(), "b".into())));
    let done = lab.secure(worker).apply_configuration(staged.clone().into_bytes(), Mode::Staged, false).await.unwrap();
    assert_eq!(done.details, "Staged configuration to be applied after the next reboot");
    let machine = lab.secure(worker);
    assert_eq!(machine.machine_config(Stored::Persistent).await.unwrap(), staged.clone().into_bytes());
    assert_eq!(machine.machine_config(Stored::Active).await.unwrap(), lab.config(worker).into_bytes());
    machine.reboot().await.unwrap();
    lab.until_machine(worker, "stage", "rebooting").await;
    lab.until_machine(worker, "stage", "running").await;
    assert_eq!(lab.secure(worker).machine_config(Stored::Active).await.unwrap(), staged.into_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_on_trial_is_reverted_after_its_time() {
    let lab = cluster().await;
    let worker = WORKERS[0];
    let tried = lab.config_with(worker, |config| drop(config.node_labels.insert("rack".into(), "c".into())));
    let mut client = MachineServiceClient::new(lab.channel(worker, &lab.admin));
    let request = ApplyConfigurationRequest {
        data: tried.clone().into_bytes(),
        mode: Wire::Try as i32,
        try_mode_timeout: Some(prost_types::Duration { seconds: 1800, nanos: 0 }),
        ..Default::default()
    };
    let reply = client.apply_configuration(request).await.unwrap().into_inner();
    assert!(
        reply.messages[0].mode_details.ends_with("will be automatically reverted back in 30m0s"),
        "{}",
        reply.messages[0].mode_details
    );
    let active = || async { lab.secure(worker).machine_config(Stored::Active).await.unwrap() };
    assert_eq!(active().await, tried.into_bytes());
    lab.until(|| async { active().await == lab.config(worker).into_bytes() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_address_is_answered_by_a_control_plane_that_runs_etcd() {
    let lab = Lab::start(Options::default()).await;
    let [first, ..] = CONTROL_PLANES;
    let shared = "10.69.1.100";
    let config = lab.config(first).replacen(
        "    network:\n",
        &format!("    network:\n        interfaces:\n            - interface: eth0\n              vip:\n                  ip: {shared}\n"),
        1,
    );
    assert!(config.contains(shared), "{config}");
    lab.insecure(first).apply_configuration(config.into_bytes(), Mode::Auto, false).await.unwrap();
    lab.until(|| async { lab.secure(first).version().await.is_ok() }).await;
    assert!(lab.secure(shared).version().await.is_err(), "nobody holds it before the bootstrap");
    lab.bootstrap(first).await;
    lab.until(|| async { lab.secure(shared).version().await.is_ok() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lab_that_is_dropped_answers_nobody() {
    let lab = cluster().await;
    let proxy = lab.running.proxy();
    assert!(tokio::net::TcpStream::connect(proxy).await.is_ok());
    drop(lab);
    let refused = async || tokio::net::TcpStream::connect(proxy).await.is_err();
    tokio::time::timeout(Duration::from_secs(5), async {
        while !refused().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .unwrap();
}
