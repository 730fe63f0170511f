//! MetalLB: addresses of the local network for Services of type LoadBalancer, announced by ARP.
//!
//! Layer 2 only: one node answers for an address, and another takes over within about ten seconds when it dies. The
//! native speaker, without FRR. The controller's webhook is left out (`--webhook-mode=disabled`): it would refuse
//! overlapping or malformed ranges, which the plan does earlier and without a pod that has to be up.
//!
//! Nobody announces anything from nodes that carry `node.kubernetes.io/exclude-from-external-load-balancers`, as
//! Talos labels control planes: a cluster without workers needs [`MetalLb::announce_from_control_planes`].

use crate::definitions::{self, Definitions};
use crate::parts::*;
use crate::{Account, Install};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMap, Container, ContainerPort, PodSecurityContext, PodSpec, SecretVolumeSource,
    SecurityContext, Volume,
};
use k8s_openapi::api::rbac::v1::PolicyRule;
use lab_core::model::{Component, Handle, Range, Scope};
use lab_kube::crds::{IPAddressPool, IPAddressPoolSpec, L2Advertisement, L2AdvertisementSpec, Metadata};
use lab_kube::{Kubernetes, Object};

/// The namespace of everything here; MetalLB reads its custom resources nowhere else.
pub const NAMESPACE: &str = "metallb-system";

const CONTROLLER: &str = "metallb-controller";
const SPEAKER: &str = "metallb-speaker";
const EXCLUDED: &str = "excluded-interfaces";

/// Load balancer addresses from a range of the local network.
///
/// ```no_run
/// # fn program(k8s: &lab_core::model::Scope<'_, lab_kube::Kubernetes>) -> Result<(), lab_core::model::ProgramError> {
/// use lab_addons::MetalLb;
///
/// let lan = lab_core::model::Subnet::new("10.69.1.0/24")?;
/// let metallb = k8s.component("metallb").add(MetalLb {
///     announce_from_control_planes: true,
///     ..MetalLb::new(lan.range(200, 210)?)
/// });
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct MetalLb {
    /// The addresses, outside of what DHCP gives out. Nothing else in the lab may claim one of them.
    pub pool: Range,
    /// The name of the pool.
    pub name: String,
    /// The release.
    pub version: Version,
    /// Whether MetalLB is installed here or is there already.
    pub install: Install,
    /// The network interfaces that answer; all of a node's if empty.
    pub interfaces: Vec<String>,
    /// Whether nodes answer that are excluded from load balancing, such as Talos' control planes.
    pub announce_from_control_planes: bool,
}

/// A release of MetalLB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// v0.14.9.
    #[default]
    V0_14,
}

impl Version {
    /// Returns the images of the controller and of the speaker.
    pub fn images(self) -> (&'static str, &'static str) {
        match self {
            Version::V0_14 => ("quay.io/metallb/controller:v0.14.9", "quay.io/metallb/speaker:v0.14.9"),
        }
    }

    fn definitions(self) -> &'static [&'static str] {
        match self {
            Version::V0_14 => &definitions::METALLB,
        }
    }
}

impl MetalLb {
    /// Returns the pool of these addresses, everything else as usual.
    pub fn new(pool: Range) -> MetalLb {
        MetalLb {
            pool,
            name: "lan".into(),
            version: Version::default(),
            install: Install::default(),
            interfaces: Vec::new(),
            announce_from_control_planes: false,
        }
    }
}

/// What others are wired to.
#[derive(Clone, Debug)]
pub struct MetalLbHandle {
    /// The pool; its name goes into the annotation `metallb.io/address-pool` of a Service that wants it.
    pub pool: Handle<lab_kube::ObjectOutputs>,
    /// Ready when addresses are given out and answered for: what a Service of type LoadBalancer comes after.
    pub ready: Handle<lab_kube::ObjectOutputs>,
}

impl Component<Kubernetes> for MetalLb {
    type Handle = MetalLbHandle;

    fn declare(self, scope: &Scope<'_, Kubernetes>) -> MetalLbHandle {
        let mut pool = scope.resource("pool");
        let mut advertisement = scope.resource("advertisement");

        if self.install == Install::Native {
            let namespace = scope.resource("namespace").add(Object::new(privileged_namespace(NAMESPACE)));
            let kinds = scope.component("kinds").add(Definitions(self.version.definitions()));
            let account = scope.component("controller").depends_on(&namespace).add(controller_account());
            let controller = scope
                .resource("controller")
                .depends_on(&kinds)
                .depends_on(&account)
                .add(Object::new(self.controller()));

            let account = scope.component("speaker").depends_on(&namespace).add(speaker_account());
            let excluded = scope.resource("excluded").depends_on(&namespace).add(Object::new(excluded_interfaces()));
            // After the controller, which makes the Secret that the speakers share before it says that it is ready.
            let speaker = scope
                .resource("speaker")
                .depends_on(&controller)
                .depends_on(&account)
                .depends_on(&excluded)
                .add(Object::new(self.speaker()));

            // A custom resource comes after who acts on it, so that it also goes before.
            pool = pool.depends_on(&controller);
            advertisement = advertisement.depends_on(&speaker);
        }

        let pool = pool.add(Object::new(self.addresses()));
        let ready = advertisement.depends_on(&pool).add(Object::new(self.advertisement()));
        MetalLbHandle { pool, ready }
    }
}

impl MetalLb {
    /// The addresses. A pool alone gives them out and nobody answers for them.
    fn addresses(&self) -> IPAddressPool {
        IPAddressPool::new(Metadata::new(NAMESPACE, &self.name), IPAddressPoolSpec::new(vec![self.pool.to_string()]))
    }

    fn advertisement(&self) -> L2Advertisement {
        let spec = L2AdvertisementSpec {
            ip_address_pools: vec![self.name.clone()],
            interfaces: self.interfaces.clone(),
            ..L2AdvertisementSpec::default()
        };
        L2Advertisement::new(Metadata::new(NAMESPACE, &self.name), spec)
    }

    /// Gives addresses out. It also makes the Secret `memberlist` that the speakers find each other with: not ours.
    fn controller(&self) -> Deployment {
        let (image, _) = self.version.images();
        let controller = Container {
            args: Some(list(["--port=7472", "--log-level=info", "--webhook-mode=disabled"])),
            env: Some(vec![
                env_field("METALLB_NAMESPACE", "metadata.namespace"),
                env("METALLB_ML_SECRET_NAME", "memberlist"),
                env("METALLB_DEPLOYMENT", CONTROLLER),
            ]),
            ports: Some(vec![port("metrics", 7472)]),
            liveness_probe: Some(http_probe("/metrics", "metrics")),
            readiness_probe: Some(http_probe("/metrics", "metrics")),
            resources: Some(resources("20m", "64Mi", "256Mi")),
            security_context: Some(confined()),
            ..container("controller", image)
        };
        deployment(
            NAMESPACE,
            CONTROLLER,
            PodSpec {
                service_account_name: Some(CONTROLLER.into()),
                containers: vec![controller],
                node_selector: on_linux(),
                security_context: Some(run_as(65534)),
                termination_grace_period_seconds: Some(0),
                ..PodSpec::default()
            },
        )
    }

    /// Answers for addresses, on every node, from the node's own network.
    fn speaker(&self) -> DaemonSet {
        let (_, image) = self.version.images();
        let mut args = list(["--port=7472", "--log-level=info"]);
        if self.announce_from_control_planes {
            args.push("--ignore-exclude-lb".into());
        }
        let speaker = Container {
            args: Some(args),
            env: Some(vec![
                env_field("METALLB_NAMESPACE", "metadata.namespace"),
                env_field("METALLB_NODE_NAME", "spec.nodeName"),
                env_field("METALLB_POD_NAME", "metadata.name"),
                env_field("METALLB_HOST", "status.hostIP"),
                env_field("METALLB_ML_BIND_ADDR", "status.podIP"),
                env("METALLB_ML_LABELS", &format!("{NAME}={SPEAKER}")),
                env("METALLB_ML_SECRET_KEY_PATH", "/etc/ml_secret_key"),
            ]),
            ports: Some(vec![
                port("metrics", 7472),
                port("members-tcp", 7946),
                ContainerPort { protocol: Some("UDP".into()), ..port("members-udp", 7946) },
            ]),
            liveness_probe: Some(http_probe("/metrics", "metrics")),
            readiness_probe: Some(http_probe("/metrics", "metrics")),
            resources: Some(resources("20m", "48Mi", "192Mi")),
            security_context: Some(SecurityContext {
                // Raw sockets are what ARP is answered with.
                capabilities: Some(Capabilities { add: Some(list(["NET_RAW"])), drop: Some(list(["ALL"])) }),
                ..confined()
            }),
            volume_mounts: Some(vec![
                read_only("memberlist", "/etc/ml_secret_key"),
                read_only(EXCLUDED, "/etc/metallb"),
            ]),
            ..container("speaker", image)
        };
        // Not ours, so it may be missing for a moment; a speaker that starts without it ends and is started again.
        let memberlist = SecretVolumeSource {
            secret_name: Some("memberlist".into()),
            optional: Some(true),
            ..SecretVolumeSource::default()
        };
        daemon_set(
            NAMESPACE,
            SPEAKER,
            PodSpec {
                service_account_name: Some(SPEAKER.into()),
                containers: vec![speaker],
                host_network: Some(true),
                node_selector: on_linux(),
                security_context: Some(PodSecurityContext {
                    seccomp_profile: Some(runtime_default()),
                    ..PodSecurityContext::default()
                }),
                termination_grace_period_seconds: Some(2),
                tolerations: Some(vec![on_control_planes()]),
                volumes: Some(vec![
                    Volume { name: "memberlist".into(), secret: Some(memberlist), ..Volume::default() },
                    config_volume(EXCLUDED),
                ]),
                ..PodSpec::default()
            },
        )
    }
}

/// Interfaces that are no part of the local network: the container networks' own.
fn excluded_interfaces() -> ConfigMap {
    const FILE: &str = r#"announcedInterfacesToExclude: ["^docker.*", "^cbr.*", "^dummy.*", "^virbr.*", "^lxcbr.*",
  "^veth.*", "^lo$", "^cali.*", "^tunl.*", "^flannel.*", "^kube-ipvs.*", "^cni.*", "^nodelocaldns.*", "^lxc.*"]
"#;
    config_map(NAMESPACE, EXCLUDED, texts([("excludel2.yaml", FILE)]))
}

/// What both read: their configuration and each other.
fn reading() -> Vec<PolicyRule> {
    const KINDS: [&str; 6] =
        ["bfdprofiles", "bgpadvertisements", "bgppeers", "communities", "ipaddresspools", "l2advertisements"];
    vec![
        rule("", ["pods"], ["get", "list"]),
        rule("", ["configmaps", "secrets"], ["get", "list", "watch"]),
        rule("metallb.io", KINDS, ["get", "list", "watch"]),
    ]
}

fn controller_account() -> Account {
    let mut rules = reading();
    rules.push(rule("", ["secrets"], ["create", "delete", "patch", "update"]));
    rules.push(PolicyRule { resource_names: Some(list([CONTROLLER])), ..rule("apps", ["deployments"], ["get"]) });
    let cluster_rules = vec![
        rule("", ["services", "namespaces"], ["get", "list", "watch"]),
        rule("", ["nodes"], ["list"]),
        rule("", ["services/status"], ["update"]),
        rule("", ["events"], ["create", "patch"]),
    ];
    Account { rules, cluster_rules, ..Account::new(NAMESPACE, CONTROLLER) }
}

fn speaker_account() -> Account {
    let cluster_rules = vec![
        rule("", ["services", "endpoints", "nodes", "namespaces"], ["get", "list", "watch"]),
        rule("discovery.k8s.io", ["endpointslices"], ["get", "list", "watch"]),
        rule("metallb.io", ["servicel2statuses", "servicel2statuses/status"], ["*"]),
        rule("", ["events"], ["create", "patch"]),
    ];
    Account { rules: reading(), cluster_rules, ..Account::new(NAMESPACE, SPEAKER) }
}
