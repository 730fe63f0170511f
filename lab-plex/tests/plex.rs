//! Plex: what is declared, what is refused, what is never stored.

#[path = "../../lab-addons/tests/cluster/mod.rs"]
mod cluster;

use cluster::{Thing, declare, refused, things, unready};
use lab_addons::{LocalPath, MetalLb, nfs};
use lab_core::model::{Declared, Input, Secret, Subnet};
use lab_core::plan::render_graph;
use lab_plex::Plex;
use serde_json::{Value, json};

fn plex(plex: Plex) -> Declared {
    declare(|k8s| {
        k8s.component("plex").add(plex);
    })
}

fn everything() -> Plex {
    Plex {
        claim: Some(Secret::new("claim-abcdef".to_owned())),
        address: Some("10.69.1.201".parse().unwrap()),
        host: Some("plex.k8s.local".into()),
        certificate: Some("plex".into()),
        open_to: vec!["10.69.1.0/24".into()],
        ..Plex::new("nfs-client")
    }
}

fn find<'a>(things: &'a [Thing], name: &str) -> &'a Value {
    &things.iter().find(|thing| thing.name == name).unwrap_or_else(|| panic!("no {name}")).body
}

fn variable(server: &Value, name: &str) -> Value {
    let variables = server.pointer("/spec/template/spec/containers/0/env").and_then(Value::as_array).unwrap();
    variables.iter().find(|variable| variable["name"] == name).unwrap_or_else(|| panic!("no {name}")).clone()
}

#[tokio::test]
async fn a_cluster_takes_every_object_by_strict_validation() {
    for plex in [self::plex(Plex::new("nfs-client")), self::plex(everything())] {
        let refused = refused(&things(&plex)).await;
        assert!(refused.is_empty(), "{}", refused.join("\n"));
    }
}

/// Volumes that wait for their first pod and an address that waits for its pool must not wait for each other.
#[tokio::test]
async fn plex_becomes_ready_where_there_are_volumes_and_addresses() {
    let declared = declare(|k8s| {
        let lan = Subnet::new("10.69.1.0/24").unwrap();
        let metallb = k8s.component("metallb").add(MetalLb::new(lan.range(200, 210).unwrap()));
        let disks = k8s.component("disks").add(LocalPath::new());
        let media = k8s.resource("media").add(nfs::storage_class("10.69.1.163", "/mnt/media"));
        k8s.component("plex").depends_on(&metallb.ready).depends_on(&disks).depends_on(&media).add(everything());
    });
    assert_eq!(unready(&things(&declared)).await, None);
}

#[test]
fn the_server_comes_after_its_volumes_and_its_address() {
    let declared = plex(everything());
    let graph = render_graph(&declared);
    let lines = graph.lines().filter(|line| !line.trim_start().starts_with('{'));
    let graph = lines.map(|line| line.replace("kubernetes:object ", "")).collect::<Vec<_>>().join("\n");
    insta::assert_snapshot!(graph, @r"
    stack homelab
      plex/namespace on k8s
      plex/service on k8s
          after plex/namespace
      plex/library on k8s
          after plex/namespace
      plex/config on k8s
          after plex/namespace
      plex/claim on k8s
          after plex/namespace
      plex/server on k8s
          after plex/claim
          after plex/config
          after plex/library
          after plex/service
      plex/ingress on k8s
          after plex/service
    ");
}

#[test]
fn players_find_the_server_by_its_name_and_its_address() {
    let things = things(&plex(everything()));
    let server = find(&things, "StatefulSet media/plex");
    assert_eq!(variable(server, "ADVERTISE_IP")["value"], "https://plex.k8s.local:443,http://10.69.1.201:32400/");
    let service = find(&things, "Service media/plex");
    assert_eq!(service.pointer("/spec/loadBalancerIP"), Some(&json!("10.69.1.201")));
    assert_eq!(service.pointer("/spec/externalTrafficPolicy"), Some(&json!("Local")));
}

#[test]
fn an_address_that_is_given_out_later_reaches_the_server_through_the_service() {
    let declared = plex(Plex::new("nfs-client"));
    let set = declared.nodes.iter().filter_map(|node| node.inputs.value()["set"].get(ADVERTISED).cloned());
    let set: Vec<Value> = set.collect();
    assert!(matches!(set.as_slice(), [marker] if marker.is_object()), "{set:?}");
    // The path leads to the variable it is meant for.
    let server = find(&things(&declared), "StatefulSet media/plex").clone();
    assert_eq!(server.pointer(ADVERTISED.trim_end_matches("/value")).unwrap()["name"], "ADVERTISE_IP");
}

const ADVERTISED: &str = "/spec/template/spec/containers/0/env/0/value";

#[test]
fn the_media_can_only_be_read_and_the_database_lies_on_a_disk() {
    let things = things(&plex(everything()));
    let server = find(&things, "StatefulSet media/plex");
    let mounts = server.pointer("/spec/template/spec/containers/0/volumeMounts").and_then(Value::as_array).unwrap();
    let library = mounts.iter().find(|mount| mount["name"] == "library").unwrap();
    assert_eq!(library["readOnly"], true);
    let class = |claim: &str| find(&things, claim).pointer("/spec/storageClassName").cloned();
    assert_eq!(class("PersistentVolumeClaim media/plex-library"), Some(json!("nfs-client")));
    assert_eq!(class("PersistentVolumeClaim media/plex-config"), Some(json!("local-path")));
}

#[test]
fn a_database_on_nfs_is_refused_unless_its_owner_insists() {
    let on_nfs =
        |config_on_nfs| Plex { config_class: Input::from("nfs-client"), config_on_nfs, ..Plex::new("nfs-client") };
    let problems = plex(on_nfs(false)).problems;
    let [(place, problem)] = problems.as_slice() else { panic!("{problems:?}") };
    assert!(problem.contains("SQLite") && problem.contains("config_on_nfs"), "{problem}");
    assert!(place.file.ends_with("tests/plex.rs"), "{place}");
    assert!(plex(on_nfs(true)).problems.is_empty());
}

#[test]
fn the_claim_token_is_sent_once_and_neither_shown_nor_part_of_the_pod() {
    let declared = plex(everything());
    let with = things(&declared);
    let mut seen = 0;
    for node in &declared.nodes {
        let text = node.inputs.to_string();
        assert!(!text.contains("claim-abcdef"), "{text}");
        seen += usize::from(node.inputs.value()["initial"].get("/stringData/token").is_some());
    }
    assert_eq!(seen, 1);
    // Without the token the pod is the same: leaving it out later restarts nothing.
    let without = things(&plex(Plex { claim: None, ..everything() }));
    assert_eq!(find(&with, "StatefulSet media/plex"), find(&without, "StatefulSet media/plex"));
    let variable = variable(find(&without, "StatefulSet media/plex"), "PLEX_CLAIM");
    assert_eq!(variable["valueFrom"]["secretKeyRef"], json!({"name": "plex-claim", "key": "token", "optional": true}));
}

#[test]
fn something_else_than_a_claim_token_is_refused_without_repeating_it() {
    let problems = plex(Plex { claim: Some(Secret::new("hunter2".into())), ..everything() }).problems;
    let [(_, problem)] = problems.as_slice() else { panic!("{problems:?}") };
    assert!(problem.contains("plex.tv/claim") && !problem.contains("hunter2"), "{problem}");
}

#[test]
fn a_server_has_time_to_stop_and_time_to_start() {
    let things = things(&plex(everything()));
    let pod = find(&things, "StatefulSet media/plex").pointer("/spec/template/spec").unwrap();
    assert_eq!(pod["terminationGracePeriodSeconds"], 120);
    let plex = &pod["containers"][0];
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        assert_eq!(plex[probe]["httpGet"]["path"], "/identity", "{probe}");
    }
    let startup = &plex["startupProbe"];
    assert_eq!(startup["periodSeconds"].as_u64().unwrap() * startup["failureThreshold"].as_u64().unwrap(), 30 * 60);
}
