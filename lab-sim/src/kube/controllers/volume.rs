//! Volumes for claims: static ones first, else what a known provisioner makes.

use serde_json::{Value, json};

use super::{AGENT, Cluster, Round, leaving, text};
use crate::kube::quantity::nano;

const CLAIMS: &str = "/api/v1/persistentvolumeclaims";
const VOLUMES: &str = "/api/v1/persistentvolumes";
/// Where the provisioner stands that is asked for a volume, and the one that made it.
const ASKED: &str = "volume.kubernetes.io/storage-provisioner";
const BY: &str = "pv.kubernetes.io/provisioned-by";

impl<C: Cluster> Round<'_, C> {
    pub(super) async fn volumes(&mut self) {
        if self.settings.beside_real {
            return self.external_volumes().await;
        }
        for claim in self.all(CLAIMS).iter() {
            if leaving(claim) {
                self.release_claim(claim).await;
            } else if claim["status"]["phase"] != "Bound" {
                self.bind(claim).await;
            }
        }
        for volume in self.all(VOLUMES).iter() {
            self.volume(volume).await;
        }
    }

    // What a provisioner does beside the controller that binds: it makes a volume for a claim on which that controller has
    // written its name, and deletes one that is released, if that is what its class says.
    async fn external_volumes(&mut self) {
        for claim in self.all(CLAIMS).iter().filter(|claim| !leaving(claim) && claim["status"]["phase"] != "Bound") {
            let provisioner = claim["metadata"]["annotations"][ASKED].as_str().unwrap_or_default().to_owned();
            let class = claim["spec"]["storageClassName"].as_str().unwrap_or_default();
            let storage = self.find("/apis/storage.k8s.io/v1/storageclasses", "", class);
            if let Some(storage) = storage.filter(|_| self.settings.provisioners.contains(&provisioner)) {
                self.provision(claim, &storage, &provisioner).await;
            }
        }
        for volume in self.all(VOLUMES).iter().filter(|volume| !leaving(volume)) {
            let by = volume["metadata"]["annotations"][BY].as_str().unwrap_or_default();
            let released = volume["status"]["phase"] == "Released" || volume["status"]["phase"] == "Failed";
            if released
                && volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
                && self.settings.provisioners.contains(by)
            {
                self.delete(VOLUMES, volume, &json!({})).await;
            }
        }
    }

    async fn provision(&mut self, claim: &Value, storage: &Value, provisioner: &str) {
        if self.after(&format!("provision/{}", text(claim, "uid")), self.settings.provision) {
            let volume = provisioned(claim, storage, provisioner);
            self.create(VOLUMES, &volume, provisioner).await;
        }
    }

    async fn bind(&mut self, claim: &Value) {
        let class = claim["spec"]["storageClassName"].as_str().unwrap_or_default().to_string();
        let volumes = self.all(VOLUMES);
        let size = |value: &Value| value.as_str().and_then(nano).unwrap_or(0);
        let wanted = size(&claim["spec"]["resources"]["requests"]["storage"]);
        let mut fitting: Vec<&Value> = volumes
            .iter()
            .filter(|volume| {
                let reserved = &volume["spec"]["claimRef"];
                let for_us =
                    reserved["name"] == text(claim, "name") && reserved["namespace"] == text(claim, "namespace");
                let named =
                    claim["spec"]["volumeName"].is_null() || claim["spec"]["volumeName"] == volume["metadata"]["name"];
                let modes = claim["spec"]["accessModes"].as_array().into_iter().flatten();
                let mut modes =
                    modes.map(|mode| volume["spec"]["accessModes"].as_array().is_some_and(|m| m.contains(mode)));
                !leaving(volume)
                    && (reserved.is_null() || for_us)
                    && named
                    && volume["spec"]["storageClassName"].as_str().unwrap_or_default() == class
                    && size(&volume["spec"]["capacity"]["storage"]) >= wanted
                    && modes.all(|has| has)
            })
            .collect();
        fitting
            .sort_by_key(|volume| (volume["spec"]["claimRef"].is_null(), size(&volume["spec"]["capacity"]["storage"])));
        if let Some(volume) = fitting.first() {
            self.bound(claim, volume).await;
            return;
        }
        let Some(storage) = self.find("/apis/storage.k8s.io/v1/storageclasses", "", &class) else {
            let message = if class.is_empty() {
                "no persistent volumes available for this claim and no storage class is set".to_string()
            } else {
                format!("storageclass.storage.k8s.io \"{class}\" not found")
            };
            let reason = if class.is_empty() { "FailedBinding" } else { "ProvisioningFailed" };
            let word = if class.is_empty() { "Normal" } else { "Warning" };
            self.event(claim, "PersistentVolumeClaim", word, reason, &message, "persistentvolume-controller").await;
            return;
        };
        if storage["volumeBindingMode"] == "WaitForFirstConsumer" && !self.consumed(claim) {
            let message = "waiting for first consumer to be created before binding";
            let source = "persistentvolume-controller";
            self.event(claim, "PersistentVolumeClaim", "Normal", "WaitForFirstConsumer", message, source).await;
            return;
        }
        let provisioner = storage["provisioner"].as_str().unwrap_or_default().to_string();
        if !self.settings.provisioners.contains(&provisioner) {
            if provisioner != "kubernetes.io/no-provisioner" {
                let message = format!(
                    "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
                );
                let source = "persistentvolume-controller";
                self.event(claim, "PersistentVolumeClaim", "Normal", "ExternalProvisioning", &message, source).await;
            }
            return;
        }
        self.provision(claim, &storage, &provisioner).await;
    }

    fn consumed(&self, claim: &Value) -> bool {
        self.all("/api/v1/pods").iter().any(|pod| {
            text(pod, "namespace") == text(claim, "namespace")
                && pod["spec"]["volumes"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .any(|volume| volume["persistentVolumeClaim"]["claimName"] == text(claim, "name"))
        })
    }

    async fn bound(&mut self, claim: &Value, volume: &Value) {
        let reference = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": text(claim, "namespace"),
            "name": text(claim, "name"), "uid": text(claim, "uid"),
        });
        self.merge(VOLUMES, volume, &json!({"spec": {"claimRef": reference}}), AGENT).await;
        let binding = json!({
            "metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
            "spec": {"volumeName": text(volume, "name")},
        });
        self.merge(CLAIMS, claim, &binding, AGENT).await;
        let status = json!({
            "phase": "Bound", "accessModes": volume["spec"]["accessModes"], "capacity": volume["spec"]["capacity"],
        });
        self.status(CLAIMS, claim, &status, AGENT).await;
    }

    // A claim stays while a pod uses it.
    async fn release_claim(&mut self, claim: &Value) {
        if !self.consumed(claim) {
            self.lift(CLAIMS, claim, "kubernetes.io/pvc-protection").await;
        }
    }

    async fn lift(&mut self, path: &str, object: &Value, finalizer: &str) {
        let list = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        let kept: Vec<&Value> = list.iter().filter(|one| *one != finalizer).collect();
        if kept.len() != list.len() {
            self.merge(path, object, &json!({"metadata": {"finalizers": kept}}), AGENT).await;
        }
    }

    async fn volume(&mut self, volume: &Value) {
        let reference = &volume["spec"]["claimRef"];
        let name = |field: &str| reference[field].as_str().unwrap_or_default().to_string();
        let claim = self.find(CLAIMS, &name("namespace"), &name("name"));
        let claim = claim.filter(|claim| reference["uid"].is_null() || claim["metadata"]["uid"] == reference["uid"]);
        if leaving(volume) {
            if claim.is_none() {
                self.lift(VOLUMES, volume, "kubernetes.io/pv-protection").await;
            }
            return;
        }
        let phase = match (&claim, reference["uid"].is_string()) {
            (Some(_), true) => "Bound",
            (None, true) if volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete" => {
                self.delete(VOLUMES, volume, &json!({})).await;
                return;
            }
            (None, true) => "Released",
            (_, false) => "Available",
        };
        self.status(VOLUMES, volume, &json!({"phase": phase}), AGENT).await;
    }
}

fn provisioned(claim: &Value, storage: &Value, provisioner: &str) -> Value {
    let name = format!("pvc-{}", text(claim, "uid"));
    let parameters = &storage["parameters"];
    let mut spec = json!({
        "accessModes": claim["spec"]["accessModes"],
        "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
        "claimRef": {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": text(claim, "namespace"),
            "name": text(claim, "name"), "uid": text(claim, "uid"),
        },
        "persistentVolumeReclaimPolicy": storage["reclaimPolicy"], "storageClassName": text(storage, "name"),
        "mountOptions": storage["mountOptions"], "volumeMode": claim["spec"]["volumeMode"],
    });
    if provisioner == "nfs.csi.k8s.io" {
        let (server, share) = (&parameters["server"], &parameters["share"]);
        let handle = format!("{}#{}#{name}##", server.as_str().unwrap_or_default(), share.as_str().unwrap_or_default());
        let attributes = json!({"server": server, "share": share, "subdir": name});
        spec["csi"] = json!({"driver": provisioner, "volumeHandle": handle, "volumeAttributes": attributes});
    } else {
        spec["hostPath"] = json!({"path": format!("/var/lib/volumes/{name}")});
    }
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {BY: provisioner}},
        "spec": spec,
    })
}
