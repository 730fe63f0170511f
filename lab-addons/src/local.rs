//! Volumes on a node's own disk: the local-path provisioner.
//!
//! A volume is a directory of the node where its first pod came to run, and its pods run there for ever: when the node
//! is gone, so is the volume. In return it is as fast as the disk, and databases are safe on it.
//!
//! The directory lies under `/var/mnt`, which survives reboots and upgrades of Talos and which a reset wipes. A Talos
//! user volume named `local-path-provisioner` is mounted there and gets a partition of its own.

use crate::Account;
use crate::parts::*;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Container, PodSpec};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use lab_core::model::{Component, Handle, Scope};
use lab_kube::{Kubernetes, Object};

/// The namespace. Its pods may use the host: making a directory there is all they do.
pub const NAMESPACE: &str = "local-path-storage";

/// The images: the provisioner, and the shell that makes and removes directories.
pub const IMAGES: (&str, &str) =
    ("docker.io/rancher/local-path-provisioner:v0.0.32", "docker.io/library/busybox:1.37.0");

const PROVISIONER: &str = "local-path-provisioner";

/// Volumes on the nodes' own disks.
#[derive(Clone, Debug)]
pub struct LocalPath {
    /// The directory of every node that volumes lie in.
    pub path: String,
    /// The name of the class.
    pub class: String,
    /// Whether claims without a class are of it.
    pub default: bool,
    /// Whether the directory goes with its claim. If not, it stays on the disk until somebody removes it.
    pub delete: bool,
}

impl LocalPath {
    /// Returns the class `local-path`, the default of the cluster, which keeps what was written.
    pub fn new() -> LocalPath {
        LocalPath {
            path: "/var/mnt/local-path-provisioner".into(),
            class: "local-path".into(),
            default: true,
            delete: false,
        }
    }
}

impl Default for LocalPath {
    fn default() -> LocalPath {
        LocalPath::new()
    }
}

impl Component<Kubernetes> for LocalPath {
    /// The class; its output `name` is what claims ask for.
    type Handle = Handle<lab_kube::ObjectOutputs>;

    fn declare(self, scope: &Scope<'_, Kubernetes>) -> Self::Handle {
        let namespace = scope.resource("namespace").add(Object::new(privileged_namespace(NAMESPACE)));
        let account = scope.component("provisioner").depends_on(&namespace).add(account());
        let config = scope.resource("config").depends_on(&namespace).add(Object::new(self.config()));
        let provisioner =
            scope.resource("provisioner").depends_on(&account).depends_on(&config).add(Object::new(provisioner()));
        scope.resource("class").depends_on(&provisioner).add(Object::new(self.class()))
    }
}

impl LocalPath {
    fn class(&self) -> StorageClass {
        let default = texts([("storageclass.kubernetes.io/is-default-class", &self.default.to_string())]);
        StorageClass {
            metadata: ObjectMeta { annotations: Some(default), ..cluster_meta(&self.class) },
            provisioner: "rancher.io/local-path".into(),
            // Only when its first pod has a node is it known where the directory is to be.
            volume_binding_mode: Some("WaitForFirstConsumer".into()),
            reclaim_policy: Some(if self.delete { "Delete" } else { "Retain" }.into()),
            ..StorageClass::default()
        }
    }

    fn config(&self) -> ConfigMap {
        let paths = serde_json::json!({
            "nodePathMap": [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": [self.path]}],
        });
        let helper = format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: helper-pod\nspec:\n  priorityClassName: system-node-critical\n  \
             tolerations:\n    - operator: Exists\n  containers:\n    - name: helper-pod\n      image: {}\n      \
             imagePullPolicy: IfNotPresent\n",
            IMAGES.1
        );
        let data = texts([
            ("config.json", &paths.to_string()),
            ("setup", "#!/bin/sh\nset -eu\nmkdir -m 0777 -p \"$VOL_DIR\"\n"),
            ("teardown", "#!/bin/sh\nset -eu\nrm -rf \"$VOL_DIR\"\n"),
            ("helperPod.yaml", &helper),
        ]);
        config_map(NAMESPACE, "local-path-config", data)
    }
}

fn provisioner() -> Deployment {
    let provisioner = Container {
        command: Some(list(["local-path-provisioner", "start", "--config", "/etc/config/config.json"])),
        env: Some(vec![env_field("POD_NAMESPACE", "metadata.namespace"), env("CONFIG_MOUNT_PATH", "/etc/config/")]),
        volume_mounts: Some(vec![read_only("local-path-config", "/etc/config/")]),
        resources: Some(resources("10m", "32Mi", "128Mi")),
        ..container("provisioner", IMAGES.0)
    };
    deployment(
        NAMESPACE,
        PROVISIONER,
        PodSpec {
            service_account_name: Some(PROVISIONER.into()),
            containers: vec![provisioner],
            node_selector: on_linux(),
            volumes: Some(vec![config_volume("local-path-config")]),
            ..PodSpec::default()
        },
    )
}

fn account() -> Account {
    let rules = vec![rule("", ["pods"], ["get", "list", "watch", "create", "patch", "update", "delete"])];
    let cluster_rules = vec![
        rule("", ["nodes", "persistentvolumeclaims", "configmaps", "pods", "pods/log"], ["get", "list", "watch"]),
        rule("", ["persistentvolumes"], ["get", "list", "watch", "create", "patch", "update", "delete"]),
        rule("", ["endpoints"], ["get", "list", "watch", "create", "update", "patch"]),
        rule("coordination.k8s.io", ["leases"], ["get", "list", "watch", "create", "update", "patch"]),
        rule("", ["events"], ["create", "patch"]),
        rule("storage.k8s.io", ["storageclasses"], ["get", "list", "watch"]),
    ];
    Account { rules, cluster_rules, ..Account::new(NAMESPACE, PROVISIONER) }
}
