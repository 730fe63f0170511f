//! Who may talk to whom in a namespace, and how many pods may be away at once.
//!
//! Network policies only hold where the cluster's network enforces them. Flannel, which Talos brings, does not unless it
//! is told to (`kubeNetworkPoliciesEnabled`, from Talos 1.13): without that they are accepted, shown and ignored.

use crate::parts::*;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use lab_core::model::{Component, Handle, Scope};
use lab_kube::{Kubernetes, Object};

/// A namespace that is closed but for what is listed. Declare it after the namespace.
///
/// Pods within it may talk to each other and ask for names. The kubelet's probes are never kept out.
#[derive(Clone, Debug)]
pub struct Isolation {
    /// The namespace.
    pub namespace: String,
    /// Workloads that everybody may reach, by name and container port: `("plex", 32400)`.
    pub open: Vec<(String, u16)>,
    /// Namespaces whose pods may reach all of it, such as the ingress controller's and monitoring.
    pub visitors: Vec<String>,
    /// Whether its pods may reach what is outside of the cluster.
    pub outside: bool,
}

impl Isolation {
    /// Returns a namespace that nobody reaches and that reaches nobody.
    pub fn new(namespace: impl Into<String>) -> Isolation {
        Isolation { namespace: namespace.into(), open: Vec::new(), visitors: Vec::new(), outside: false }
    }
}

impl Component<Kubernetes> for Isolation {
    /// The policy that closes it, which comes last: what is allowed is never closed for a moment.
    type Handle = Handle<lab_kube::ObjectOutputs>;

    fn declare(self, scope: &Scope<'_, Kubernetes>) -> Self::Handle {
        let mut closed = scope.resource("closed");
        for (name, policy) in self.allowed() {
            closed = closed.depends_on(&scope.resource(&name).add(Object::new(policy)));
        }
        let everything = NetworkPolicySpec {
            pod_selector: Some(LabelSelector::default()),
            policy_types: Some(list(["Ingress", "Egress"])),
            ..NetworkPolicySpec::default()
        };
        closed.add(Object::new(self.policy("closed", everything)))
    }
}

impl Isolation {
    fn policy(&self, name: &str, spec: NetworkPolicySpec) -> NetworkPolicy {
        NetworkPolicy { metadata: meta(&self.namespace, name), spec: Some(spec) }
    }

    fn allowed(&self) -> Vec<(String, NetworkPolicy)> {
        let mut allowed = vec![
            ("within".to_owned(), self.policy("within", within())),
            ("names".to_owned(), self.policy("names", names())),
        ];
        for (workload, port) in &self.open {
            let name = format!("open-{workload}-{port}");
            let reached = NetworkPolicyIngressRule { ports: Some(vec![tcp(*port)]), ..Default::default() };
            allowed.push((name.clone(), self.policy(&name, ingress_of(named(workload), reached))));
        }
        for visitor in &self.visitors {
            let name = format!("from-{visitor}");
            let from = Some(vec![pods_of(visitor)]);
            let visited = NetworkPolicyIngressRule { from, ..Default::default() };
            allowed.push((name.clone(), self.policy(&name, ingress_of(LabelSelector::default(), visited))));
        }
        if self.outside {
            allowed.push(("outside".to_owned(), self.policy("outside", outside())));
        }
        allowed
    }
}

fn within() -> NetworkPolicySpec {
    let pods = NetworkPolicyPeer { pod_selector: Some(LabelSelector::default()), ..NetworkPolicyPeer::default() };
    NetworkPolicySpec {
        egress: Some(vec![NetworkPolicyEgressRule { to: Some(vec![pods.clone()]), ..Default::default() }]),
        policy_types: Some(list(["Ingress", "Egress"])),
        ..ingress_of(
            LabelSelector::default(),
            NetworkPolicyIngressRule { from: Some(vec![pods]), ..Default::default() },
        )
    }
}

fn names() -> NetworkPolicySpec {
    let udp = NetworkPolicyPort { protocol: Some("UDP".into()), ..tcp(53) };
    let dns = NetworkPolicyEgressRule { ports: Some(vec![tcp(53), udp]), to: Some(vec![pods_of("kube-system")]) };
    egress(dns)
}

/// Everything but the cluster's own networks, as Talos and most others have them.
fn outside() -> NetworkPolicySpec {
    let block = IPBlock { cidr: "0.0.0.0/0".into(), except: Some(list(["10.244.0.0/16", "10.96.0.0/12"])) };
    let outside = NetworkPolicyPeer { ip_block: Some(block), ..NetworkPolicyPeer::default() };
    egress(NetworkPolicyEgressRule { to: Some(vec![outside]), ..NetworkPolicyEgressRule::default() })
}

fn egress(rule: NetworkPolicyEgressRule) -> NetworkPolicySpec {
    NetworkPolicySpec {
        pod_selector: Some(LabelSelector::default()),
        policy_types: Some(list(["Egress"])),
        egress: Some(vec![rule]),
        ..NetworkPolicySpec::default()
    }
}

fn ingress_of(pods: LabelSelector, rule: NetworkPolicyIngressRule) -> NetworkPolicySpec {
    NetworkPolicySpec {
        pod_selector: Some(pods),
        policy_types: Some(list(["Ingress"])),
        ingress: Some(vec![rule]),
        ..NetworkPolicySpec::default()
    }
}

fn tcp(port: u16) -> NetworkPolicyPort {
    NetworkPolicyPort {
        protocol: Some("TCP".into()),
        port: Some(IntOrString::Int(port.into())),
        ..NetworkPolicyPort::default()
    }
}

fn pods_of(namespace: &str) -> NetworkPolicyPeer {
    let labels = texts([("kubernetes.io/metadata.name", namespace)]);
    let namespace = LabelSelector { match_labels: Some(labels), ..LabelSelector::default() };
    NetworkPolicyPeer { namespace_selector: Some(namespace), ..NetworkPolicyPeer::default() }
}

/// Returns the budget that lets one pod of a workload be away at a time. It never keeps the last one from moving: a
/// node that cannot be drained cannot be upgraded either.
pub fn one_at_a_time(namespace: &str, workload: &str) -> Object<PodDisruptionBudget> {
    Object::new(PodDisruptionBudget {
        metadata: meta(namespace, workload),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(named(workload)),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    })
}
