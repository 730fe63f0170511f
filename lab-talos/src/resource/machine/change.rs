//! What becoming another machine takes: in place, with a reboot, or anew. Pure, for the plan.

use super::Machine;
use crate::authority::Pair;
use crate::config::{self, Contract};
use crate::secrets::Secrets;
use crate::version::TalosVersion;
use lab_core::{Change, Impact, Order, Path};
use serde_json::Value;

/// Returns what becoming `next` from `prior` takes.
pub(super) fn change(next: &Machine, prior: &Machine, live: Option<&Value>) -> Change {
    let mut impact = Impact::default();
    let because = |impact: &mut Impact, path: &str, why: String| impact.reasons.push((Path::from(path), why));
    let mut replace = false;
    if next.address != prior.address {
        because(&mut impact, "/address", "another address is another machine".into());
        replace = true;
    }
    if next.role != prior.role {
        because(&mut impact, "/role", "a machine keeps its role until it is reset".into());
        replace = true;
    }
    if let (Some(new), Some(old)) = (next.secrets.known(), prior.secrets.known())
        && new != old
    {
        because(&mut impact, "/secrets", "other secrets are another cluster, which a machine joins empty".into());
        replace = true;
    }
    if replace {
        return Change::Replace(impact, Order::DeleteFirst);
    }
    if let Some(why) = skips(next, prior) {
        return Change::Refuse(vec![(Path::from("/kubernetes"), why)]);
    }
    if next.name != prior.name {
        because(&mut impact, "/name", "its Kubernetes node gets another name, and the old one stays behind".into());
        impact.unknown.push(Path::from("/name"));
    }
    if next.install_disk != prior.install_disk {
        because(&mut impact, "/install_disk", "it takes effect with the next installation only".into());
    }
    let mut reboots = Vec::new();
    let running = live.and_then(|live| live.get("talos")).and_then(Value::as_str);
    let running = running.and_then(|text| text.parse::<TalosVersion>().ok()).unwrap_or(prior.talos);
    if running != next.talos {
        let verb = if next.talos > running { "upgrade" } else { "downgrade" };
        because(&mut impact, "/talos", format!("{} reboots into {}", next.name, next.talos));
        reboots.push(format!("to {verb} it from {running} to {}", next.talos));
    } else if next.installer != prior.installer {
        because(&mut impact, "/installer", format!("{} reboots into another build of Talos", next.name));
        reboots.push("into another build of Talos".into());
    } else if next.kernel_args != prior.kernel_args {
        because(&mut impact, "/kernel_args", "they take effect with the next upgrade".into());
    }
    if let Some(why) = reboot(next, prior) {
        because(&mut impact, why.0, format!("Talos reboots to change {}", why.1));
        reboots.push(format!("to change {}", why.1));
    }
    if !reboots.is_empty() {
        impact.interrupts = Some(format!("reboots {} {}", next.name, reboots.join(", and ")));
    }
    Change::Update(impact)
}

/// Says why Kubernetes cannot go from one version to the other in a single step, if it cannot: its parts bear a
/// difference of one line, and what a newer one stored an older one may not read.
fn skips(next: &Machine, prior: &Machine) -> Option<String> {
    let (from, to) = (prior.kubernetes, next.kubernetes);
    match to.minor().checked_sub(from.minor()) {
        Some(0 | 1) => None,
        Some(_) => Some(format!(
            "Kubernetes goes from {from} to {to} one minor version at a time: first to 1.{}",
            from.minor() + 1
        )),
        None => Some(format!("Kubernetes does not go back from {from} to {to}")),
    }
}

/// Returns the input and the places in the configuration for which the machine reboots, if it does.
fn reboot(next: &Machine, prior: &Machine) -> Option<(&'static str, String)> {
    let contract = |machine: &Machine| machine.contract.known().copied();
    // A contract that is not known yet is taken to stay: it is the cluster's for life.
    let old = contract(prior).or_else(|| contract(next)).unwrap_or(Contract::V1_11);
    let new = contract(next).unwrap_or(old);
    let nobody = nobody();
    let (Ok(before), Ok(after)) = (prior.generate(old, &nobody, None), next.generate(new, &nobody, None)) else {
        return None;
    };
    let paths: Vec<_> = config::changes(&before, &after)
        .into_iter()
        .filter(|changed| changed.reboot)
        .map(|changed| format!("{}{}", changed.document, changed.path))
        .collect();
    let input = if old == new { "" } else { "/contract" };
    (!paths.is_empty()).then(|| (input, paths.join(", ")))
}

/// Returns secrets that stand for any others: what changes is the same with all of them.
fn nobody() -> Secrets {
    Secrets {
        cluster_id: String::new(),
        cluster_secret: String::new(),
        bootstrap_token: String::new(),
        secretbox_encryption_secret: String::new(),
        aescbc_encryption_secret: String::new(),
        trustd_token: String::new(),
        etcd: Pair::default(),
        kubernetes: Pair::default(),
        aggregator: Pair::default(),
        service_account: String::new(),
        os: Pair::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Role;
    use crate::version::KubernetesVersion;
    use lab_core::{Input, Secret};

    fn machine() -> Machine {
        Machine::new(
            "10.69.1.151".parse().unwrap(),
            "talos-work-1",
            Role::Worker,
            "https://10.69.1.101:6443",
            "/dev/nvme0n1",
            (TalosVersion::V1_11.patch(2), KubernetesVersion::V1_34),
            Input::Value(Secret::new("a bundle".to_owned())),
        )
    }

    /// Says what the edit takes: interrupted or not, and why.
    fn check(edit: impl FnOnce(&mut Machine), expected: &str) {
        let mut next = machine();
        edit(&mut next);
        let (verb, impact) = match change(&next, &machine(), None) {
            Change::None => ("nothing", Impact::default()),
            Change::Update(impact) => ("update", impact),
            Change::Replace(impact, _) => ("replace", impact),
            Change::Refuse(reasons) => ("refuse", Impact { reasons, ..Impact::default() }),
        };
        let paths: Vec<_> = impact.reasons.iter().map(|(path, _)| path.as_str()).collect();
        let interrupts = impact.interrupts.map(|what| format!(", {what}")).unwrap_or_default();
        assert_eq!(format!("{verb} {}{interrupts}", paths.join(" ")), expected);
    }

    #[test]
    fn a_label_or_a_newer_kubernetes_is_applied_without_a_reboot() {
        check(|next| drop(next.labels.insert("zone".into(), "rack".into())), "update ");
        check(|next| next.kubernetes = next.kubernetes.patch(2), "update ");
        check(|next| next.nameservers = vec!["1.1.1.1".into()], "update ");
    }

    #[test]
    fn kubernetes_goes_forward_one_minor_version_at_a_time() {
        check(|next| next.kubernetes = KubernetesVersion::V1_35, "update ");
        check(|next| next.kubernetes = KubernetesVersion::new(36, 0), "refuse /kubernetes");
        check(|next| next.kubernetes = KubernetesVersion::new(33, 5), "refuse /kubernetes");
    }

    #[test]
    fn another_talos_reboots_the_machine() {
        check(
            |next| next.talos = TalosVersion::V1_12.patch(0),
            "update /talos, reboots talos-work-1 to upgrade it from v1.11.2 to v1.12.0",
        );
        check(
            |next| next.installer = "factory.talos.dev/metal-installer/ab".into(),
            "update /installer, reboots talos-work-1 into another build of Talos",
        );
    }

    #[test]
    fn a_machine_that_runs_another_talos_than_recorded_is_brought_back() {
        let live = serde_json::json!({"talos": "v1.11.1"});
        let Change::Update(impact) = change(&machine(), &machine(), Some(&live)) else { panic!("it is no update") };
        assert_eq!(impact.interrupts.unwrap(), "reboots talos-work-1 to upgrade it from v1.11.1 to v1.11.2");
    }

    #[test]
    fn another_generation_of_defaults_reboots_the_machine() {
        let mut next = machine();
        next.contract = Contract::V1_12.into();
        let Change::Update(impact) = change(&next, &machine(), None) else { panic!("it is no update") };
        assert!(impact.interrupts.unwrap().contains("machine/features/rbac"));
    }

    #[test]
    fn another_machine_role_or_cluster_is_made_anew() {
        check(|next| next.address = "10.69.1.152".parse().unwrap(), "replace /address");
        check(|next| next.role = Role::ControlPlane, "replace /role");
        check(|next| next.secrets = Input::Value(Secret::new("another".to_owned())), "replace /secrets");
    }
}
