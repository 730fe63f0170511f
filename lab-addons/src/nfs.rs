//! Volumes on a NAS: the NFS driver of the Kubernetes project, and storage classes for it.
//!
//! NFS is for media and other large files. It is not for databases: SQLite's locks do not hold on it, and what is lost
//! that way is noticed weeks later.

use crate::Account;
use crate::parts::*;
use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, Deployment, DeploymentSpec, DeploymentStrategy,
    RollingUpdateDaemonSet,
};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, HTTPGetAction, PodSecurityContext, PodSpec, Probe, ResourceRequirements, SecurityContext,
    Toleration, Volume, VolumeMount,
};
use k8s_openapi::api::storage::v1::{CSIDriver, CSIDriverSpec, StorageClass};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use lab_core::model::{Component, Handle, Scope};
use lab_kube::{Kubernetes, Object};

/// The namespace. Talos lets pods use the host in no other without a label.
pub const NAMESPACE: &str = "kube-system";

/// The name of the driver, which storage classes ask for.
pub const DRIVER: &str = "nfs.csi.k8s.io";

/// The images, as csi-driver-nfs 4.13.4 is released with them.
pub const IMAGES: Images = Images {
    driver: "registry.k8s.io/sig-storage/nfsplugin:v4.13.4",
    provisioner: "registry.k8s.io/sig-storage/csi-provisioner:v6.3.0",
    resizer: "registry.k8s.io/sig-storage/csi-resizer:v2.2.0",
    registrar: "registry.k8s.io/sig-storage/csi-node-driver-registrar:v2.17.0",
    liveness: "registry.k8s.io/sig-storage/livenessprobe:v2.19.0",
};

/// The images of a release of the driver.
#[derive(Clone, Copy, Debug)]
pub struct Images {
    /// Mounts.
    pub driver: &'static str,
    /// Makes a volume for a claim.
    pub provisioner: &'static str,
    /// Lets a claim grow.
    pub resizer: &'static str,
    /// Tells the kubelet about the driver.
    pub registrar: &'static str,
    /// Says whether the driver answers.
    pub liveness: &'static str,
}

const CONTROLLER: &str = "csi-nfs-controller";
const NODE: &str = "csi-nfs-node";

/// The NFS driver: mounts volumes on every node and makes directories for claims.
///
/// Without snapshots: they need definitions and a controller of their own.
#[derive(Clone, Debug)]
pub struct NfsCsi {
    /// The kubelet's directory; MicroK8s has another.
    pub kubelet: String,
}

impl NfsCsi {
    /// Returns the driver for a kubelet in the usual place, such as that of Talos.
    pub fn new() -> NfsCsi {
        NfsCsi { kubelet: "/var/lib/kubelet".into() }
    }
}

impl Default for NfsCsi {
    fn default() -> NfsCsi {
        NfsCsi::new()
    }
}

/// What others are wired to.
#[derive(Clone, Debug)]
pub struct NfsCsiHandle {
    /// Ready when volumes can be mounted on every node and be made for claims: what a storage class comes after.
    pub ready: Handle<lab_kube::ObjectOutputs>,
}

impl Component<Kubernetes> for NfsCsi {
    type Handle = NfsCsiHandle;

    fn declare(self, scope: &Scope<'_, Kubernetes>) -> NfsCsiHandle {
        let driver = scope.resource("driver").add(Object::new(driver()));
        let account = scope.component("node").add(Account::new(NAMESPACE, NODE));
        let node = scope.resource("node").depends_on(&driver).depends_on(&account).add(Object::new(self.node()));
        let account = scope.component("controller").add(controller_account());
        // After the nodes: a volume that is made before they know the driver would hang in its first mount.
        let ready =
            scope.resource("controller").depends_on(&node).depends_on(&account).add(Object::new(self.controller()));
        NfsCsiHandle { ready }
    }
}

/// Returns the class `nfs-client`: every claim of it is the export itself, shared by all, and outlives its claim.
///
/// That is for a library that exists and is full. The driver only knows directories in an export, so the class names
/// the parent of `export` and the directory in it; NFS 4 servers show the way to what they export.
///
/// Mounts are NFS 4.1 and hard: while the NAS is away, programs wait instead of failing.
pub fn storage_class(server: &str, export: &str) -> Object<StorageClass> {
    let (parent, directory) = export.trim_end_matches('/').rsplit_once('/').unwrap_or(("", export));
    let share = if parent.is_empty() { "/" } else { parent };
    class(
        "nfs-client",
        "Retain",
        &[("server", server), ("share", share), ("subDir", directory), ("onDelete", "retain")],
    )
}

/// Returns the class `nfs-directories`: every claim of it is a directory of its own, `namespace/claim` in the export,
/// which is renamed and kept when the claim goes.
pub fn directories(server: &str, export: &str) -> Object<StorageClass> {
    let own = "${pvc.metadata.namespace}/${pvc.metadata.name}";
    class(
        "nfs-directories",
        "Delete",
        &[("server", server), ("share", export), ("subDir", own), ("onDelete", "archive")],
    )
}

fn class(name: &str, reclaim: &str, parameters: &[(&str, &str)]) -> Object<StorageClass> {
    Object::new(StorageClass {
        metadata: cluster_meta(name),
        provisioner: DRIVER.into(),
        parameters: Some(parameters.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()),
        mount_options: Some(list(["nfsvers=4.1", "hard", "noatime"])),
        reclaim_policy: Some(reclaim.into()),
        volume_binding_mode: Some("Immediate".into()),
        allow_volume_expansion: Some(true),
        ..StorageClass::default()
    })
}

impl NfsCsi {
    fn controller(&self) -> Deployment {
        let sidecar = |name: &str, image: &str, args: Vec<String>| Container {
            args: Some(args),
            env: Some(vec![env_field("POD_NAMESPACE", "metadata.namespace")]),
            volume_mounts: Some(vec![mount("socket", "/csi")]),
            resources: Some(small()),
            security_context: Some(confined()),
            ..container(name, image)
        };
        let provisioner = list([
            "--v=2",
            "--csi-address=/csi/csi.sock",
            "--leader-election",
            "--leader-election-namespace=$(POD_NAMESPACE)",
            // Who claims is part of the names that `subDir` is made of.
            "--extra-create-metadata=true",
            "--feature-gates=VolumeAttributesClass=false",
            "--timeout=1200s",
            "--retry-interval-max=30m",
        ]);
        let resizer = list([
            "--v=2",
            "--csi-address=/csi/csi.sock",
            "--leader-election",
            "--leader-election-namespace=$(POD_NAMESPACE)",
            "--handle-volume-inuse-error=false",
            "--feature-gates=VolumeAttributesClass=false",
        ]);
        let pod = PodSpec {
            containers: vec![
                sidecar("provisioner", IMAGES.provisioner, provisioner),
                sidecar("resizer", IMAGES.resizer, resizer),
                liveness(29652),
                self.plugin(29652),
            ],
            service_account_name: Some(CONTROLLER.into()),
            priority_class_name: Some("system-cluster-critical".into()),
            tolerations: Some(vec![on_control_planes()]),
            volumes: Some(vec![empty_dir("socket"), self.pods()]),
            ..host_pod()
        };
        let one = deployment(NAMESPACE, CONTROLLER, pod);
        // Two on one node would fight for the port of the host.
        let strategy = DeploymentStrategy { type_: Some("Recreate".into()), ..DeploymentStrategy::default() };
        let spec = one.spec.map(|spec| DeploymentSpec { strategy: Some(strategy), ..spec });
        Deployment { spec, ..one }
    }

    fn node(&self) -> DaemonSet {
        let socket = format!("{}/plugins/csi-nfsplugin", self.kubelet);
        let registrar = Container {
            args: Some(vec![
                "--v=2".into(),
                "--csi-address=/csi/csi.sock".into(),
                format!("--kubelet-registration-path={socket}/csi.sock"),
            ]),
            env: Some(vec![env_field("KUBE_NODE_NAME", "spec.nodeName")]),
            volume_mounts: Some(vec![mount("socket", "/csi"), mount("registration", "/registration")]),
            resources: Some(small()),
            security_context: Some(confined()),
            ..container("registrar", IMAGES.registrar)
        };
        let pod = PodSpec {
            containers: vec![liveness(29653), registrar, self.plugin(29653)],
            service_account_name: Some(NODE.into()),
            priority_class_name: Some("system-node-critical".into()),
            // On every node, whatever it is reserved for: its pods may have volumes.
            tolerations: Some(vec![Toleration { operator: Some("Exists".into()), ..Toleration::default() }]),
            volumes: Some(vec![
                host_path("socket", &socket, "DirectoryOrCreate"),
                self.pods(),
                host_path("registration", &format!("{}/plugins_registry", self.kubelet), "Directory"),
            ]),
            ..host_pod()
        };
        let one = daemon_set(NAMESPACE, NODE, pod);
        let rolling =
            RollingUpdateDaemonSet { max_unavailable: Some(IntOrString::Int(1)), ..RollingUpdateDaemonSet::default() };
        let strategy = DaemonSetUpdateStrategy { type_: Some("RollingUpdate".into()), rolling_update: Some(rolling) };
        let spec = one.spec.map(|spec| DaemonSetSpec { update_strategy: Some(strategy), ..spec });
        DaemonSet { spec, ..one }
    }

    /// The driver itself. It mounts in the node's own view of files, which takes every right there is.
    fn plugin(&self, health: i32) -> Container {
        let asked = HTTPGetAction {
            host: Some("localhost".into()),
            path: Some("/healthz".into()),
            port: IntOrString::Int(health),
            ..HTTPGetAction::default()
        };
        let pods = format!("{}/pods", self.kubelet);
        Container {
            args: Some(list(["-v=5", "--nodeid=$(NODE_ID)", "--endpoint=unix:///csi/csi.sock"])),
            env: Some(vec![env_field("NODE_ID", "spec.nodeName")]),
            liveness_probe: Some(Probe {
                http_get: Some(asked),
                initial_delay_seconds: Some(30),
                period_seconds: Some(30),
                timeout_seconds: Some(10),
                failure_threshold: Some(5),
                ..Probe::default()
            }),
            volume_mounts: Some(vec![
                mount("socket", "/csi"),
                VolumeMount { mount_propagation: Some("Bidirectional".into()), ..mount("pods", &pods) },
            ]),
            resources: Some(resources("10m", "32Mi", "300Mi")),
            security_context: Some(SecurityContext {
                privileged: Some(true),
                allow_privilege_escalation: Some(true),
                capabilities: Some(Capabilities { add: Some(list(["SYS_ADMIN"])), drop: Some(list(["ALL"])) }),
                ..SecurityContext::default()
            }),
            ..container("nfs", IMAGES.driver)
        }
    }

    fn pods(&self) -> Volume {
        host_path("pods", &format!("{}/pods", self.kubelet), "Directory")
    }
}

/// On the host's network: a connection to the NAS must outlive the pod that made it.
fn host_pod() -> PodSpec {
    PodSpec {
        host_network: Some(true),
        dns_policy: Some("ClusterFirstWithHostNet".into()),
        node_selector: on_linux(),
        security_context: Some(PodSecurityContext {
            seccomp_profile: Some(runtime_default()),
            ..PodSecurityContext::default()
        }),
        ..PodSpec::default()
    }
}

fn liveness(health: i32) -> Container {
    let mut args = list(["--v=2", "--csi-address=/csi/csi.sock", "--probe-timeout=3s"]);
    args.push(format!("--http-endpoint=localhost:{health}"));
    Container {
        args: Some(args),
        volume_mounts: Some(vec![mount("socket", "/csi")]),
        resources: Some(small()),
        security_context: Some(confined()),
        ..container("liveness", IMAGES.liveness)
    }
}

fn small() -> ResourceRequirements {
    resources("10m", "20Mi", "200Mi")
}

fn driver() -> CSIDriver {
    CSIDriver {
        metadata: cluster_meta(DRIVER),
        spec: CSIDriverSpec {
            attach_required: Some(false),
            volume_lifecycle_modes: Some(list(["Persistent"])),
            fs_group_policy: Some("File".into()),
            ..CSIDriverSpec::default()
        },
    }
}

fn controller_account() -> Account {
    let cluster_rules = vec![
        rule("", ["persistentvolumes"], ["get", "list", "watch", "create", "update", "patch", "delete"]),
        rule("", ["persistentvolumeclaims"], ["get", "list", "watch", "update"]),
        rule("", ["persistentvolumeclaims/status"], ["update", "patch"]),
        rule("storage.k8s.io", ["storageclasses", "csinodes"], ["get", "list", "watch"]),
        rule("", ["events"], ["get", "list", "watch", "create", "update", "patch"]),
        rule("", ["nodes"], ["get", "list", "watch"]),
        rule("", ["secrets"], ["get"]),
    ];
    let rules = vec![rule("coordination.k8s.io", ["leases"], ["get", "list", "watch", "create", "update", "patch"])];
    Account { rules, cluster_rules, ..Account::new(NAMESPACE, CONTROLLER) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(class: Object<StorageClass>, share: &str, directory: &str) {
        let parameters = class.body.parameters.unwrap();
        assert_eq!((parameters["share"].as_str(), parameters["subDir"].as_str()), (share, directory));
    }

    #[test]
    fn the_class_of_a_library_is_the_export_itself() {
        check(storage_class("10.69.1.163", "/mnt/media"), "/mnt", "media");
        check(storage_class("10.69.1.163", "/mnt/tank/media/"), "/mnt/tank", "media");
        check(storage_class("10.69.1.163", "/media"), "/", "media");
    }

    #[test]
    fn the_class_of_directories_keeps_what_was_written() {
        let class = directories("10.69.1.163", "/mnt/apps");
        assert_eq!(class.body.parameters.as_ref().unwrap()["onDelete"], "archive");
        check(class, "/mnt/apps", "${pvc.metadata.namespace}/${pvc.metadata.name}");
    }

    #[test]
    fn a_kubelet_in_another_place_is_found() {
        let micro = NfsCsi { kubelet: "/var/snap/microk8s/common/var/lib/kubelet".into() };
        let node = serde_json::to_string(&micro.node()).unwrap();
        assert!(!node.contains("\"/var/lib/kubelet"), "{node}");
        assert!(
            node.contains("path=/var/snap/microk8s/common/var/lib/kubelet/plugins/csi-nfsplugin/csi.sock"),
            "{node}"
        );
    }
}
