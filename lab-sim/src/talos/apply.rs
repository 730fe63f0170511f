//! Applying a configuration: what is accepted, and what it takes to become effective.

use super::config::Config;
use super::grpc::{self, Answer};
use super::kubelet;
use super::life::refresh;
use super::node::{Node, Start};
use super::validate;
use crate::world::World;
use lab_talos::proto::machine::apply_configuration_request::Mode;
use lab_talos::proto::machine::{ApplyConfiguration, ApplyConfigurationRequest, ApplyConfigurationResponse};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tonic::Status;

/// What of the machine section takes effect without a reboot; the cluster section always does.
const IMMEDIATE: &[&str] = &[
    "ca",
    "acceptedCAs",
    "time",
    "certSANs",
    "install",
    "network",
    "sysfs",
    "sysctls",
    "logging",
    "controlPlane",
    "kubelet",
    "kernel",
    "registries",
    "pods",
    "seccompProfiles",
    "nodeAnnotations",
    "nodeLabels",
    "nodeTaints",
];
const IMMEDIATE_FEATURES: &[&str] =
    &["kubernetesTalosAPIAccess", "kubePrism", "hostDNS", "imageCache", "nodeAddressSortAlgorithm"];

fn answer(warnings: Vec<String>, mode: Mode, mode_details: String) -> Answer {
    let message = ApplyConfiguration { metadata: None, warnings, mode: mode as i32, mode_details };
    grpc::one(ApplyConfigurationResponse { messages: vec![message] })
}

/// Applies to a machine in maintenance mode, which installs and becomes what the configuration says.
pub(super) fn maintenance(world: &Arc<World>, node: &Arc<Node>, request: ApplyConfigurationRequest) -> Answer {
    let _ = world;
    let mode = request.mode();
    match mode {
        Mode::NoReboot | Mode::Staged => {
            let name = if mode == Mode::Staged { "staged" } else { "no-reboot" };
            return Err(Status::unimplemented(format!(
                "apply configuration --mode='{name}' is not supported in maintenance mode"
            )));
        }
        Mode::Reboot | Mode::Auto | Mode::Try => {}
    }
    let config = Config::decode(&request.data, node.minor())
        .map_err(|error| Status::unknown(format!("failed to parse config: {error}")))?;
    let installed = node.state().disk.system.is_some();
    let warnings = validate::validate(&config, installed)
        .map_err(|error| Status::invalid_argument(format!("configuration validation failed: {error}")))?;
    if !installed {
        validate::runtime(&config, &node.spec)
            .map_err(|error| Status::invalid_argument(format!("runtime configuration validation failed: {error}")))?;
    }
    if request.dry_run {
        let details = "Dry run summary:\nNode is running in maintenance mode and does not have a config yet.";
        return answer(Vec::new(), Mode::Reboot, details.to_owned());
    }
    node.accept(config);
    answer(warnings, Mode::Reboot, String::new())
}

/// Applies to a configured machine.
pub(super) fn configured(world: &Arc<World>, node: &Arc<Node>, request: ApplyConfigurationRequest) -> Answer {
    let config = Config::decode(&request.data, node.minor()).map_err(Status::invalid_argument)?;
    if !config.is_complete() {
        return Err(Status::invalid_argument(
            "the applied machine configuration doesn't contain v1alpha1 config, did you mean to patch the machine config instead?",
        ));
    }
    let warnings = validate::validate(&config, true).map_err(Status::invalid_argument)?;
    let Some(before) = node.config() else {
        return Err(Status::failed_precondition("the machine has no configuration yet"));
    };
    let diff = diff(&before, &config);
    let obstacle = (!is_immediate(&before, &config))
        .then(|| format!("this config change can't be applied in immediate mode\ndiff:\n{diff}"));
    let mode = match (request.mode(), &obstacle) {
        (Mode::Auto, None) => Mode::NoReboot,
        (Mode::Auto, Some(_)) => Mode::Reboot,
        (Mode::NoReboot | Mode::Try, Some(why)) => return Err(Status::invalid_argument(why.clone())),
        (asked, _) => asked,
    };
    let timeout = request.try_mode_timeout.as_ref().map_or(Duration::from_secs(60), |timeout| {
        Duration::new(timeout.seconds.max(0) as u64, timeout.nanos.max(0) as u32)
    });
    let mut details = match mode {
        Mode::NoReboot | Mode::Auto => "Applied configuration without a reboot".to_owned(),
        Mode::Try => format!(
            "Applied configuration without a reboot\nThe config is applied in 'try' mode and will be automatically reverted back in {}",
            go_duration(timeout)
        ),
        Mode::Staged => "Staged configuration to be applied after the next reboot".to_owned(),
        Mode::Reboot => match (&obstacle, request.mode()) {
            (Some(why), Mode::Auto) => format!("Applied configuration with a reboot: {why}"),
            _ => "Applied configuration with a reboot".to_owned(),
        },
    };
    if request.dry_run {
        let changes = if diff.is_empty() { "No changes.".to_owned() } else { format!("Config diff:\n\n{diff}") };
        details = format!("Dry run summary:\n{details} (skipped in dry-run).\n{changes}");
        return answer(Vec::new(), mode, details);
    }
    match mode {
        Mode::Staged => node.change(|state| state.disk.staged = Some(config)),
        Mode::Reboot => {
            node.change(|state| {
                state.disk.config = Some(config);
                state.disk.staged = None;
                state.trying = None;
            });
            node.sequence(world, "reboot", true, Start::Reboot);
        }
        Mode::NoReboot | Mode::Auto => {
            node.change(|state| {
                state.disk.config = Some(config);
                state.trying = None;
            });
            effective(world, node);
        }
        Mode::Try => {
            let attempt = world.next_number();
            node.change(|state| {
                // A second attempt reverts to what was there before the first.
                let safe = state.trying.take().map_or(before, |(_, safe)| safe);
                state.trying = Some((attempt, safe));
                state.disk.config = Some(config);
            });
            effective(world, node);
            let (world, node) = (world.clone(), node.clone());
            world.clone().spawn(async move {
                world.pause(timeout).await;
                let reverted = node.change(|state| match state.trying.take() {
                    Some((pending, safe)) if pending == attempt => {
                        state.disk.config = Some(safe);
                        true
                    }
                    other => {
                        state.trying = other;
                        false
                    }
                });
                if reverted {
                    effective(&world, &node);
                }
            });
        }
    }
    answer(warnings, mode, details)
}

/// Makes the configuration in force visible: the certificate of the API, and the Kubernetes node.
fn effective(world: &Arc<World>, node: &Arc<Node>) {
    refresh(node, world);
    let (world, node) = (world.clone(), node.clone());
    world.clone().spawn(async move {
        let Some(config) = node.config() else { return };
        if let Some(etcd) = world.kubernetes(&config)
            && node.state().kubelet == super::node::Kubelet::Ready
        {
            kubelet::register(&node, &world, &etcd, &config).await;
            kubelet::report(&node, &world, &etcd, &config, "True").await;
        }
    });
}

/// Whether a change takes effect without a reboot.
fn is_immediate(before: &Config, after: &Config) -> bool {
    let rest = |config: &Config| {
        let mut machine = config.at("machine").cloned().unwrap_or_default();
        if let Value::Object(fields) = &mut machine {
            fields.retain(|key, _| !IMMEDIATE.contains(&key.as_str()));
            if let Some(Value::Object(features)) = fields.get_mut("features") {
                features.retain(|key, _| !IMMEDIATE_FEATURES.contains(&key.as_str()));
            }
            // An empty section says the same as none.
            fields.retain(|_, value| !value.is_null() && value.as_object().is_none_or(|value| !value.is_empty()));
        }
        machine
    };
    rest(before) == rest(after)
}

/// Returns the unified diff between two configurations, empty when they say the same.
fn diff(before: &Config, after: &Config) -> String {
    if before.main == after.main && before.others == after.others {
        return String::new();
    }
    let (before, after) = (String::from_utf8_lossy(&before.bytes), String::from_utf8_lossy(&after.bytes));
    similar::TextDiff::from_lines(before.as_ref(), after.as_ref()).unified_diff().header("a", "b").to_string()
}

/// Writes a duration as Go does.
fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}
