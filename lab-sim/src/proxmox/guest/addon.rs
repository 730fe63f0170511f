//! What MicroK8s' add-ons bring along: the objects that others look for.
//!
//! Each is as small as it can be and still be found: the namespace, the workload under its own image, the class, the
//! definitions. What an add-on does is done by the controllers of the stand-in, as for anybody's installation of it.

use super::microk8s::Api;
use super::system::Outcome;
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use std::io::Read;
use std::time::Duration;

/// Turns an add-on on. The error is how the command ends.
pub(super) async fn enable(api: &Api, channel: &str, name: &str, argument: &str) -> Result<(), Outcome> {
    let track = channel.split(['/', '-']).next().unwrap_or_default();
    let minor: u32 = track.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(36);
    let plain = argument.is_empty();
    match name {
        "dns" => {
            workload(api, "Deployment", "kube-system", "coredns", "coredns/coredns:1.13.1").await;
            Ok(())
        }
        "hostpath-storage" if plain => {
            hostpath(api).await;
            Ok(())
        }
        "metrics-server" if plain => {
            metrics(api).await;
            Ok(())
        }
        "dashboard" if plain && minor < 36 => {
            metrics(api).await;
            workload(
                api,
                "Deployment",
                "kubernetes-dashboard",
                "kubernetes-dashboard-web",
                "kubernetesui/dashboard-web:1.7.0",
            )
            .await;
            Ok(())
        }
        "rbac" | "ha-cluster" | "helm3" | "helm" if plain => Ok(()),
        "registry" if plain => {
            hostpath(api).await;
            workload(api, "Deployment", "container-registry", "registry", "registry:2.8.1").await;
            Ok(())
        }
        "ingress" if plain => {
            let (controller, image) = match minor {
                ..35 => ("k8s.io/ingress-nginx", "registry.k8s.io/ingress-nginx/controller:v1.13.1"),
                _ => ("traefik.io/ingress-controller", "traefik:v3.6.0"),
            };
            workload(api, "DaemonSet", "ingress", "ingress-controller", image).await;
            for class in ["public", if minor < 35 { "public" } else { "nginx" }] {
                let annotations =
                    json!({"ingressclass.kubernetes.io/is-default-class": (class == "public").to_string()});
                put(
                    api,
                    "/apis/networking.k8s.io/v1/ingressclasses",
                    &json!({
                        "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
                        "metadata": {"name": class, "annotations": annotations}, "spec": {"controller": controller},
                    }),
                )
                .await;
            }
            Ok(())
        }
        // It prompts for a range, and there is nobody to answer.
        "metallb" if plain => {
            Err(Outcome::not_simulated("enable metallb without a range: it would wait for an answer"))
        }
        "metallb" => {
            definitions(api, "metallb.io").await?;
            workload(api, "Deployment", "metallb-system", "controller", "quay.io/metallb/controller:v0.15.2").await;
            workload(api, "DaemonSet", "metallb-system", "speaker", "quay.io/metallb/speaker:v0.15.2").await;
            let ranges: Vec<&str> = argument.split(',').collect();
            put(
                api,
                "/apis/metallb.io/v1beta1/namespaces/metallb-system/ipaddresspools",
                &json!({
                    "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
                    "metadata": {"name": "default-addresspool", "namespace": "metallb-system"}, "spec": {"addresses": ranges},
                }),
            ).await;
            put(
                api,
                "/apis/metallb.io/v1beta1/namespaces/metallb-system/l2advertisements",
                &json!({
                    "apiVersion": "metallb.io/v1beta1", "kind": "L2Advertisement",
                    "metadata": {"name": "default-advertise-all-pools", "namespace": "metallb-system"},
                }),
            )
            .await;
            Ok(())
        }
        "cert-manager" if plain => {
            definitions(api, "cert-manager.io").await?;
            for (name, image) in [
                ("cert-manager", "quay.io/jetstack/cert-manager-controller:v1.19.1"),
                ("cert-manager-cainjector", "quay.io/jetstack/cert-manager-cainjector:v1.19.1"),
                ("cert-manager-webhook", "quay.io/jetstack/cert-manager-webhook:v1.19.1"),
            ] {
                workload(api, "Deployment", "cert-manager", name, image).await;
            }
            Ok(())
        }
        "dashboard" if plain => Err(Outcome::failed(1, "Addon dashboard was not found in any repository")),
        other => Err(Outcome::not_simulated(&format!("microk8s enable {other} {argument}"))),
    }
}

async fn hostpath(api: &Api) {
    workload(api, "Deployment", "kube-system", "hostpath-provisioner", "cdkbot/hostpath-provisioner:1.5.0").await;
    put(
        api,
        "/apis/storage.k8s.io/v1/storageclasses",
        &json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {"name": "microk8s-hostpath", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            "provisioner": "microk8s.io/hostpath", "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer",
        }),
    ).await;
}

async fn metrics(api: &Api) {
    workload(
        api,
        "Deployment",
        "kube-system",
        "metrics-server",
        "registry.k8s.io/metrics-server/metrics-server:v0.8.0",
    )
    .await;
}

async fn put(api: &Api, collection: &str, object: &Value) {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    api.tell("PATCH", format!("{collection}/{name}?fieldManager=microk8s&force=true"), object).await;
}

/// Puts the custom resource definitions of a group in, and waits until they are served.
async fn definitions(api: &Api, group: &str) -> Result<(), Outcome> {
    let mut text = String::new();
    let packed = include_bytes!("../data/crds.yaml.gz").as_slice();
    GzDecoder::new(packed).read_to_string(&mut text).expect("the definitions in this crate are readable");
    let documents: Vec<Value> = text
        .split("\n---\n")
        .filter_map(|part| serde_saphyr::from_str(part.trim_start_matches("---\n")).ok())
        .collect();
    for definition in documents.iter().filter(|definition| definition["spec"]["group"] == group) {
        put(api, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
        let text = |pointer: &str| definition.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let collection = format!("/apis/{group}/{}/{}", text("/spec/versions/0/name"), text("/spec/names/plural"));
        while api.ask(&collection).await.map_err(|problem| Outcome::failed(1, problem))?.0 != 200 {
            api.clock().sleep(Duration::from_secs(1)).await;
        }
    }
    Ok(())
}

async fn workload(api: &Api, kind: &str, namespace: &str, name: &str, image: &str) {
    put(api, "/api/v1/namespaces", &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}))
        .await;
    let labels = json!({"app": name});
    let mut spec = json!({
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": name, "image": image}]}},
    });
    if kind == "Deployment" {
        spec["replicas"] = json!(1);
    }
    let metadata = json!({"name": name, "namespace": namespace});
    let plural = if kind == "Deployment" { "deployments" } else { "daemonsets" };
    let object = json!({"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": spec});
    put(api, &format!("/apis/apps/v1/namespaces/{namespace}/{plural}"), &object).await;
}
