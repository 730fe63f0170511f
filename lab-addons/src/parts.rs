//! Small parts that Kubernetes objects are put together from.
//!
//! k8s-openapi's types have every field there is, each in an `Option`. A part fills in what nearly every object of its
//! kind has; the rest follows by struct update, and every field remains within reach:
//!
//! ```
//! use k8s_openapi::api::core::v1::{Container, PodSpec};
//! use lab_addons::parts::*;
//!
//! let web = deployment("shop", "web", PodSpec {
//!     containers: vec![Container {
//!         ports: Some(vec![port("http", 8080)]),
//!         readiness_probe: Some(http_probe("/ready", "http")),
//!         resources: Some(resources("50m", "64Mi", "128Mi")),
//!         ..container("web", "registry.example.org/shop/web:1.4.2")
//!     }],
//!     ..PodSpec::default()
//! });
//! assert_eq!(web.metadata.namespace.as_deref(), Some("shop"));
//! ```
//!
//! Whatever is deployed by these parts carries the label [`NAME`], and a container port named `metrics` is scraped by
//! [`crate::Monitoring`].

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMap, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar,
    EnvVarSource, HTTPGetAction, HostPathVolumeSource, Namespace, ObjectFieldSelector, PersistentVolumeClaim,
    PersistentVolumeClaimSpec, PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
    ResourceRequirements, SeccompProfile, SecurityContext, Service, ServiceAccount, ServicePort, ServiceSpec,
    Toleration, Volume, VolumeMount, VolumeResourceRequirements,
};
use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend, IngressSpec,
    IngressTLS, ServiceBackendPort,
};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;

/// The label that tells the pods of one workload from others in its namespace.
pub const NAME: &str = "app.kubernetes.io/name";

/// Returns a map of texts: labels, annotations, the data of a ConfigMap.
pub fn texts<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Returns a list of texts: arguments, verbs, host names.
pub fn list<const N: usize>(items: [&str; N]) -> Vec<String> {
    items.into_iter().map(str::to_owned).collect()
}

/// Returns the metadata of an object in a namespace.
pub fn meta(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta { namespace: Some(namespace.to_owned()), ..cluster_meta(name) }
}

/// Returns the metadata of an object of the whole cluster.
pub fn cluster_meta(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}

/// Returns a namespace whose pods may do what the cluster allows by default; `baseline` on Talos.
pub fn namespace(name: &str) -> Namespace {
    Namespace { metadata: cluster_meta(name), ..Namespace::default() }
}

/// Returns a namespace whose pods may use the host: its network, its files.
///
/// Talos enforces the level `baseline` in every namespace but kube-system, and a DaemonSet that needs more then stands
/// at 0 pods without another word.
pub fn privileged_namespace(name: &str) -> Namespace {
    let labels = texts([
        ("pod-security.kubernetes.io/audit", "privileged"),
        ("pod-security.kubernetes.io/enforce", "privileged"),
        ("pod-security.kubernetes.io/warn", "privileged"),
    ]);
    Namespace { metadata: ObjectMeta { labels: Some(labels), ..cluster_meta(name) }, ..Namespace::default() }
}

/// Returns the account that pods act as.
pub fn service_account(namespace: &str, name: &str) -> ServiceAccount {
    ServiceAccount { metadata: meta(namespace, name), ..ServiceAccount::default() }
}

/// Returns a rule that allows `verbs` on `resources` of an API group; the core group is `""`.
pub fn rule<const R: usize, const V: usize>(group: &str, resources: [&str; R], verbs: [&str; V]) -> PolicyRule {
    PolicyRule {
        api_groups: Some(list([group])),
        resources: Some(list(resources)),
        verbs: list(verbs),
        ..PolicyRule::default()
    }
}

/// Returns a role within a namespace.
pub fn role(namespace: &str, name: &str, rules: Vec<PolicyRule>) -> Role {
    Role { metadata: meta(namespace, name), rules: Some(rules) }
}

/// Returns a role in the whole cluster.
pub fn cluster_role(name: &str, rules: Vec<PolicyRule>) -> ClusterRole {
    ClusterRole { metadata: cluster_meta(name), rules: Some(rules), ..ClusterRole::default() }
}

/// Returns the binding that gives the role `name` of a namespace to an account there; it is called like the role.
pub fn role_binding(namespace: &str, name: &str, account: &str) -> RoleBinding {
    RoleBinding {
        metadata: meta(namespace, name),
        role_ref: role_ref("Role", name),
        subjects: Some(vec![account_subject(namespace, account)]),
    }
}

/// Returns the binding that gives the cluster role `name` to an account; it is called like the role.
pub fn cluster_role_binding(name: &str, namespace: &str, account: &str) -> ClusterRoleBinding {
    ClusterRoleBinding {
        metadata: cluster_meta(name),
        role_ref: role_ref("ClusterRole", name),
        subjects: Some(vec![account_subject(namespace, account)]),
    }
}

fn role_ref(kind: &str, name: &str) -> RoleRef {
    RoleRef { api_group: "rbac.authorization.k8s.io".into(), kind: kind.into(), name: name.into() }
}

fn account_subject(namespace: &str, name: &str) -> Subject {
    Subject {
        kind: "ServiceAccount".into(),
        name: name.into(),
        namespace: Some(namespace.into()),
        ..Subject::default()
    }
}

/// Returns a Deployment of one pod.
pub fn deployment(namespace: &str, name: &str, pod: PodSpec) -> Deployment {
    Deployment {
        metadata: ObjectMeta { labels: Some(texts([(NAME, name)])), ..meta(namespace, name) },
        spec: Some(DeploymentSpec {
            replicas: Some(1),
            selector: named(name),
            template: template(name, pod),
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

/// Returns a DaemonSet: one pod on every node.
pub fn daemon_set(namespace: &str, name: &str, pod: PodSpec) -> DaemonSet {
    DaemonSet {
        metadata: ObjectMeta { labels: Some(texts([(NAME, name)])), ..meta(namespace, name) },
        spec: Some(DaemonSetSpec { selector: named(name), template: template(name, pod), ..DaemonSetSpec::default() }),
        ..DaemonSet::default()
    }
}

/// Returns the template of the pods of a workload.
pub fn template(name: &str, pod: PodSpec) -> PodTemplateSpec {
    PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(texts([(NAME, name)])), ..ObjectMeta::default() }),
        spec: Some(pod),
    }
}

/// Returns the selector of the pods of a workload.
pub fn named(name: &str) -> LabelSelector {
    LabelSelector { match_labels: Some(texts([(NAME, name)])), ..LabelSelector::default() }
}

/// Returns a Service in front of the pods of the workload of the same name.
pub fn service(namespace: &str, name: &str, ports: Vec<ServicePort>) -> Service {
    Service {
        metadata: ObjectMeta { labels: Some(texts([(NAME, name)])), ..meta(namespace, name) },
        spec: Some(ServiceSpec { ports: Some(ports), selector: Some(texts([(NAME, name)])), ..ServiceSpec::default() }),
        ..Service::default()
    }
}

/// Returns a TCP port of a Service that leads to the container port of the same name.
pub fn service_port(name: &str, number: u16) -> ServicePort {
    ServicePort {
        name: Some(name.into()),
        port: number.into(),
        // Stated, though it is the default: the list is keyed by port and protocol.
        protocol: Some("TCP".into()),
        target_port: Some(IntOrString::String(name.into())),
        ..ServicePort::default()
    }
}

/// Returns an Ingress that leads all of `host` to a port of a Service, by TLS with the certificate in `secret` if given.
pub fn ingress(namespace: &str, name: &str, host: &str, service_port: &str, secret: Option<&str>) -> Ingress {
    let backend = IngressServiceBackend {
        name: name.to_owned(),
        port: Some(ServiceBackendPort { name: Some(service_port.to_owned()), ..ServiceBackendPort::default() }),
    };
    let path = HTTPIngressPath {
        backend: IngressBackend { service: Some(backend), ..IngressBackend::default() },
        path: Some("/".into()),
        path_type: "Prefix".into(),
    };
    let rule = IngressRule { host: Some(host.to_owned()), http: Some(HTTPIngressRuleValue { paths: vec![path] }) };
    let tls = secret.map(|secret| vec![IngressTLS { hosts: Some(list([host])), secret_name: Some(secret.to_owned()) }]);
    Ingress {
        metadata: meta(namespace, name),
        spec: Some(IngressSpec { rules: Some(vec![rule]), tls, ..IngressSpec::default() }),
        ..Ingress::default()
    }
}

/// Returns a ConfigMap.
pub fn config_map(namespace: &str, name: &str, data: BTreeMap<String, String>) -> ConfigMap {
    ConfigMap { metadata: meta(namespace, name), data: Some(data), ..ConfigMap::default() }
}

/// Returns a claim of a volume: its size (`10Gi`), and how it is mounted (`ReadWriteOnce`). Its class stays open.
pub fn claim(namespace: &str, name: &str, size: &str, mode: &str) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: meta(namespace, name),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(list([mode])),
            resources: Some(VolumeResourceRequirements {
                requests: Some(quantities([("storage", size)])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

/// Returns a container.
pub fn container(name: &str, image: &str) -> Container {
    Container { name: name.into(), image: Some(image.into()), ..Container::default() }
}

/// Returns a TCP port of a container.
pub fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.into()),
        container_port: number.into(),
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    }
}

/// Returns an environment variable.
pub fn env(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.into(), value: Some(value.into()), ..EnvVar::default() }
}

/// Returns an environment variable that says something about the pod itself, such as `spec.nodeName`.
pub fn env_field(name: &str, path: &str) -> EnvVar {
    let field = ObjectFieldSelector { field_path: path.into(), ..ObjectFieldSelector::default() };
    EnvVar {
        name: name.into(),
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
        ..EnvVar::default()
    }
}

/// Returns what a container is promised and what it is held to. No processor limit: it only makes things slow.
pub fn resources(cpu: &str, memory: &str, memory_limit: &str) -> ResourceRequirements {
    ResourceRequirements {
        requests: Some(quantities([("cpu", cpu), ("memory", memory)])),
        limits: Some(quantities([("memory", memory_limit)])),
        ..ResourceRequirements::default()
    }
}

/// Returns amounts of resources: `500m`, `2Gi`.
pub fn quantities<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, Quantity> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), Quantity(value.to_owned()))).collect()
}

/// Returns a probe that asks a page of a named port.
pub fn http_probe(path: &str, port: &str) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String(port.into()),
            ..HTTPGetAction::default()
        }),
        ..Probe::default()
    }
}

/// Returns what a pod is run as: a user and group of this number that own its volumes, with the default system calls.
pub fn run_as(id: i64) -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(id),
        run_as_group: Some(id),
        fs_group: Some(id),
        seccomp_profile: Some(runtime_default()),
        ..PodSecurityContext::default()
    }
}

/// Returns the container runtime's own list of allowed system calls.
pub fn runtime_default() -> SeccompProfile {
    SeccompProfile { type_: "RuntimeDefault".into(), ..SeccompProfile::default() }
}

/// Returns a container's rights: none beyond its user's, and nothing but its volumes can be written.
pub fn confined() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(list(["ALL"])), ..Capabilities::default() }),
        read_only_root_filesystem: Some(true),
        ..SecurityContext::default()
    }
}

/// Returns the toleration of control-plane nodes, which otherwise take no ordinary pods.
pub fn on_control_planes() -> Toleration {
    Toleration {
        key: Some("node-role.kubernetes.io/control-plane".into()),
        operator: Some("Exists".into()),
        effect: Some("NoSchedule".into()),
        ..Toleration::default()
    }
}

/// Returns the node selector of Linux nodes.
pub fn on_linux() -> Option<BTreeMap<String, String>> {
    Some(texts([("kubernetes.io/os", "linux")]))
}

/// Returns the mount of a volume.
pub fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount { name: volume.into(), mount_path: path.into(), ..VolumeMount::default() }
}

/// Returns the mount of a volume that the container cannot change.
pub fn read_only(volume: &str, path: &str) -> VolumeMount {
    VolumeMount { read_only: Some(true), ..mount(volume, path) }
}

/// Returns a volume of the same name as the ConfigMap it shows.
pub fn config_volume(config_map: &str) -> Volume {
    let source = ConfigMapVolumeSource { name: config_map.into(), ..ConfigMapVolumeSource::default() };
    Volume { name: config_map.into(), config_map: Some(source), ..Volume::default() }
}

/// Returns a volume that is the claim's.
pub fn claim_volume(name: &str, claim: &str) -> Volume {
    let source =
        PersistentVolumeClaimVolumeSource { claim_name: claim.into(), ..PersistentVolumeClaimVolumeSource::default() };
    Volume { name: name.into(), persistent_volume_claim: Some(source), ..Volume::default() }
}

/// Returns a volume that lives as long as its pod.
pub fn empty_dir(name: &str) -> Volume {
    Volume { name: name.into(), empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() }
}

/// Returns a volume that is a directory of the node. `kind` is `Directory` or `DirectoryOrCreate`.
pub fn host_path(name: &str, path: &str, kind: &str) -> Volume {
    let source = HostPathVolumeSource { path: path.into(), type_: Some(kind.into()) };
    Volume { name: name.into(), host_path: Some(source), ..Volume::default() }
}
