//! What holds for every component: each object is one that a cluster takes, and comes after what it needs.

mod cluster;

use cluster::{Judge, Thing, declare, refused, refused_by, things, unready};
use lab_addons::certificates::{CertManager, ClusterIssuer, certificate};
use lab_addons::monitoring::{Grafana, Monitoring};
use lab_addons::policy::one_at_a_time;
use lab_addons::{Isolation, LocalPath, MetalLb, NfsCsi, Traefik, nfs};
use lab_core::model::{Declared, Secret, Subnet};
use serde_json::Value;

/// The whole first evening, with every option that declares something more.
fn evening() -> Declared {
    evening_with(true)
}

fn evening_with(webhook: bool) -> Declared {
    declare(|k8s| {
        let lan = Subnet::new("10.69.1.0/24").unwrap();
        let metallb = k8s.component("metallb").add(MetalLb {
            announce_from_control_planes: true,
            interfaces: vec!["eth0".into()],
            ..MetalLb::new(lan.range(200, 210).unwrap())
        });
        let traefik = k8s.component("traefik").depends_on(&metallb.ready).add(Traefik {
            address: Some(lan.address(200).unwrap()),
            certificate: Some("wildcard".into()),
            ..Traefik::new()
        });
        let nfs = k8s.component("nfs").add(NfsCsi::new());
        k8s.resource("media").depends_on(&nfs.ready).add(nfs::storage_class("10.69.1.163", "/mnt/media"));
        k8s.resource("directories").depends_on(&nfs.ready).add(nfs::directories("10.69.1.163", "/mnt/apps"));
        let disks = k8s.component("disks").add(LocalPath::new());
        let manager = k8s.component("cert-manager").add(CertManager {
            webhook,
            nameservers: vec!["1.1.1.1:53".into()],
            ..CertManager::new()
        });
        let token = || Secret::new("cloudflare".to_owned());
        for (name, issuer) in [
            ("self-signed", ClusterIssuer::self_signed()),
            ("authority", ClusterIssuer::authority("Attic")),
            ("staging", ClusterIssuer::lets_encrypt_staging("me@example.org", token())),
            ("production", ClusterIssuer::lets_encrypt("me@example.org", token())),
        ] {
            k8s.component(name).depends_on(&manager.ready).add(issuer);
        }
        k8s.resource("wildcard").depends_on(&manager.ready).depends_on(&traefik.namespace).add(certificate(
            "traefik",
            "wildcard",
            "authority",
            &["*.k8s.local"],
        ));
        k8s.component("isolation").depends_on(&traefik.namespace).add(Isolation {
            open: vec![("traefik".into(), 8443)],
            visitors: vec!["monitoring".into()],
            outside: true,
            ..Isolation::new("traefik")
        });
        k8s.resource("budget").depends_on(&traefik.namespace).add(one_at_a_time("traefik", "traefik"));
        k8s.component("monitoring").depends_on(&traefik.class).add(Monitoring {
            etcd: vec![lan.address(101).unwrap()],
            host: Some("prometheus.k8s.local".into()),
            grafana: Some(Grafana {
                host: Some("grafana.k8s.local".into()),
                ..Grafana::new(Secret::new("letmein".to_owned()))
            }),
            ..Monitoring::new(disks.output(|class| class.name))
        });
    })
}

fn all(value: &Value, pointer: &str) -> Vec<Value> {
    value.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default()
}

fn texts(items: &[Value], pointer: &str) -> Vec<String> {
    items.iter().filter_map(|item| item.pointer(pointer)?.as_str()).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_cluster_takes_every_object_by_strict_validation() {
    let refused = refused(&things(&evening())).await;
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

/// With rules that only a real one evaluates, and defaults, conversions and quantities as it reads them. Webhooks come
/// last: nobody is there to answer for them.
#[tokio::test]
async fn a_real_api_server_takes_every_object_by_strict_validation() {
    let test = "a_real_api_server_takes_every_object_by_strict_validation";
    let Some(judge) = Judge::real(test).await else { return };
    let mut things = things(&evening());
    things.sort_by_key(|thing| thing.kind().ends_with("WebhookConfiguration"));
    let refused = refused_by(&judge, &things).await;
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

/// The order is enough: nothing waits for what is declared to come after it. Without cert-manager's webhook, which is
/// ready only when its injector has run, and that one the stand-in does not model.
#[tokio::test]
async fn every_object_becomes_ready_before_the_next_one_comes() {
    assert_eq!(unready(&things(&evening_with(false))).await, None);
}

/// What the tests above rest on: the stand-in does refuse.
#[tokio::test]
async fn a_field_too_many_or_too_few_is_refused() {
    let mut things = things(&evening());
    let find = |kind: &str| things.iter().position(|thing| thing.kind() == kind).unwrap();
    let (deployment, pool) = (find("Deployment"), find("IPAddressPool"));
    things[deployment].body["spec"]["template"]["spec"]["nonsense"] = true.into();
    things[pool].body["spec"].as_object_mut().unwrap().remove("addresses");
    let refused = refused(&things).await;
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused.iter().any(|why| why.contains("nonsense")), "{refused:?}");
    assert!(refused.iter().any(|why| why.contains("addresses")), "{refused:?}");
}

#[test]
fn every_object_comes_after_its_namespace() {
    let things = things(&evening());
    for thing in &things {
        let namespace = thing.text("/metadata/namespace");
        if !["", "kube-system"].contains(&namespace) {
            assert!(thing.before.contains(&format!("Namespace {namespace}")), "{}", thing.name);
        }
    }
}

#[test]
fn a_custom_resource_comes_after_its_definition_and_after_who_acts_on_it() {
    let things = things(&evening());
    let definitions: Vec<&Thing> = things.iter().filter(|thing| thing.kind() == "CustomResourceDefinition").collect();
    let mut seen = 0;
    for thing in &things {
        let (group, _) = thing.text("/apiVersion").split_once('/').unwrap_or_default();
        for definition in definitions.iter().filter(|definition| definition.text("/spec/group") == group) {
            assert!(thing.before.contains(&definition.name), "{} before {}", thing.name, definition.name);
            let controller = match group {
                "metallb.io" => "Deployment metallb-system/metallb-controller",
                "cert-manager.io" => "Deployment cert-manager/cert-manager",
                other => panic!("{other}"),
            };
            assert!(thing.before.contains(controller), "{}", thing.name);
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen}");
}

#[test]
fn pods_come_after_the_account_they_act_as_and_its_rights() {
    let things = things(&evening());
    for thing in &things {
        let Some(pods) = thing.pods() else { continue };
        let namespace = thing.text("/metadata/namespace");
        let Some(account) = pods.pointer("/spec/serviceAccountName").and_then(Value::as_str) else { continue };
        assert!(thing.before.contains(&format!("ServiceAccount {namespace}/{account}")), "{}", thing.name);
        let subject = |other: &&Thing| texts(&all(&other.body, "/subjects"), "/name").contains(&account.to_owned());
        for binding in things.iter().filter(subject) {
            assert!(thing.before.contains(&binding.name), "{} before {}", thing.name, binding.name);
        }
    }
}

#[test]
fn every_image_has_one_version() {
    let mut seen = 0;
    for thing in things(&evening()) {
        let Some(pods) = thing.pods() else { continue };
        for image in texts(&all(pods, "/spec/containers"), "/image") {
            let (path, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{image} has no tag"));
            assert!(path.split('/').count() >= 3 && path.contains('.'), "{image} does not say where it is from");
            assert!(tag.contains(|c: char| c.is_ascii_digit()) && tag != "latest", "{image}");
            seen += 1;
        }
    }
    assert!(seen > 12, "{seen}");
}

#[test]
fn what_a_pod_refers_to_is_there() {
    let things = things(&evening());
    for thing in &things {
        let Some(pods) = thing.pods() else { continue };
        let labels = pods.pointer("/metadata/labels").unwrap();
        assert_eq!(thing.body.pointer("/spec/selector/matchLabels"), Some(labels), "{}", thing.name);
        let mut volumes = texts(&all(pods, "/spec/volumes"), "/name");
        volumes.extend(texts(&all(&thing.body, "/spec/volumeClaimTemplates"), "/metadata/name"));
        let namespace = thing.text("/metadata/namespace");
        for config in texts(&all(pods, "/spec/volumes"), "/configMap/name") {
            assert!(thing.before.contains(&format!("ConfigMap {namespace}/{config}")), "{}: {config}", thing.name);
        }
        for container in all(pods, "/spec/containers") {
            let ports = texts(&all(&container, "/ports"), "/name");
            for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
                if let Some(port) = container.pointer(&format!("/{probe}/httpGet/port")).and_then(Value::as_str) {
                    assert!(ports.contains(&port.to_owned()), "{}: {probe} asks {port}", thing.name);
                }
            }
            for mount in texts(&all(&container, "/volumeMounts"), "/name") {
                assert!(volumes.contains(&mount), "{}: no volume {mount}", thing.name);
            }
            assert!(container.pointer("/resources/requests/memory").is_some(), "{}", thing.name);
        }
        // And none is there for nothing.
        let mounted: Vec<String> = all(pods, "/spec/containers")
            .iter()
            .flat_map(|container| texts(&all(container, "/volumeMounts"), "/name"))
            .collect();
        assert!(volumes.iter().all(|volume| mounted.contains(volume)), "{}: {volumes:?}", thing.name);
    }
}

#[test]
fn a_service_leads_to_ports_that_its_pods_have() {
    let things = things(&evening());
    for service in things.iter().filter(|thing| thing.kind() == "Service") {
        let selector = service.body.pointer("/spec/selector").unwrap();
        let behind = |thing: &&Thing| {
            thing.text("/metadata/namespace") == service.text("/metadata/namespace")
                && thing.pods().and_then(|pods| pods.pointer("/metadata/labels")) == Some(selector)
        };
        let pods = things.iter().find(behind).unwrap_or_else(|| panic!("nobody is behind {}", service.name));
        let ports: Vec<String> = all(pods.pods().unwrap(), "/spec/containers")
            .iter()
            .flat_map(|container| texts(&all(container, "/ports"), "/name"))
            .collect();
        for target in texts(&all(&service.body, "/spec/ports"), "/targetPort") {
            assert!(ports.contains(&target), "{} leads to {target}", service.name);
        }
    }
}

#[test]
fn no_pod_uses_the_host_where_talos_forbids_it() {
    let things = things(&evening());
    let privileged = |namespace: &str| {
        let is = |thing: &&Thing| thing.name == format!("Namespace {namespace}");
        let enforced = "/metadata/labels/pod-security.kubernetes.io~1enforce";
        namespace == "kube-system" || things.iter().find(is).is_some_and(|it| it.text(enforced) == "privileged")
    };
    for thing in &things {
        let Some(pods) = thing.pods() else { continue };
        let host = pods.pointer("/spec/hostNetwork").is_some()
            || pods.pointer("/spec/hostPID").is_some()
            || all(pods, "/spec/volumes").iter().any(|volume| volume.get("hostPath").is_some());
        assert!(!host || privileged(thing.text("/metadata/namespace")), "{}", thing.name);
    }
}

#[test]
fn no_secret_stands_in_clear_in_what_is_declared() {
    let declared = evening();
    for node in &declared.nodes {
        let text = node.inputs.to_string();
        for secret in ["cloudflare\"", "letmein"] {
            assert!(!text.contains(&format!(":\"{secret}")), "{}", node.urn);
        }
    }
}

#[test]
fn what_something_else_has_installed_is_waited_for_and_not_declared() {
    let declared = declare(|k8s| {
        let manager = k8s.component("cert-manager").add(CertManager::existing());
        k8s.component("issuer").depends_on(&manager.ready).add(ClusterIssuer::self_signed());
    });
    let types: Vec<&str> = declared.nodes.iter().map(|node| node.urn.kind()).collect();
    assert_eq!(types, ["kubernetes:existing", "kubernetes:object"]);
    assert_eq!(declared.nodes[0].inputs.value()["key"]["name"], "cert-manager-webhook");
    assert!(declared.problems.is_empty(), "{:?}", declared.problems);
}
