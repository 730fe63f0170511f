//! A machine that is not in the rack, a machine of another cluster, an object that somebody else made: none is touched,
//! the message says what to do, and the rest of the lab is made all the same.

mod simulated;

use lab::kube::{Kubernetes, config_map, namespace};
use lab::prelude::*;
use lab::sim::{Contents, Fault, Faults, Machine, Options, Rack};
use lab::talos::{Cluster, KubernetesVersion, Talos, TalosVersion};
use serde_json::{Value, json};
use simulated::{Desk, Simulated};
use std::net::IpAddr;
use std::time::Duration;

const CONTROL_PLANE: [u8; 4] = [10, 69, 1, 101];
const WORKER: [u8; 4] = [10, 69, 1, 151];

#[derive(Serialize)]
struct Home {
    kubeconfig: Output<Secret<String>>,
}

/// One control plane, one worker, and one object in their cluster.
fn home(stack: &Stack) -> Result<Home, ProgramError> {
    declare(stack, false)
}

fn declare(stack: &Stack, settings: bool) -> Result<Home, ProgramError> {
    let lan = Subnet::new("10.69.1.0/24")?;
    let metal = stack.provider("metal", Talos::default());
    let cluster = metal.component("homelab").add(Cluster {
        control_plane: vec![lan.host("talos-cp-1", 101)?],
        workers: vec![lan.host("talos-work-1", 151)?],
        install_disk: "/dev/nvme0n1".into(),
        ..Cluster::new(TalosVersion::V1_11, KubernetesVersion::V1_34, "https://10.69.1.101:6443")
    });
    let k8s = stack.provider("k8s", Kubernetes::inside(&cluster.container(), cluster.kubeconfig()));
    let media = k8s.resource("media").add(namespace("media"));
    if settings {
        let data = [("quality".to_owned(), "high".to_owned())].into();
        k8s.resource("settings").depends_on(&media).add(config_map("media", "settings", data));
    }
    Ok(Home { kubeconfig: cluster.kubeconfig() })
}

/// The same, with settings of Plex.
fn with_settings(stack: &Stack) -> Result<Home, ProgramError> {
    declare(stack, true)
}

fn lab(program: fn(&Stack) -> Result<Home, ProgramError>) -> Lab {
    Lab::new("homelab", program)
}

fn rack() -> Rack {
    Rack::new().machine(Machine::new(CONTROL_PLANE.into())).machine(Machine::new(WORKER.into()))
}

/// The calls that could change something on a machine.
fn changing(there: &Simulated, machine: [u8; 4]) -> Vec<String> {
    let changes = ["ApplyConfiguration", "Bootstrap", "Reset", "Reboot", "Upgrade", "Shutdown", "Etcd"];
    let calls = there.running.calls().into_iter().filter(|call| call.machine == IpAddr::from(machine));
    calls.map(|call| call.name).filter(|name| changes.iter().any(|change| name.contains(change))).collect()
}

#[test]
fn a_machine_that_is_not_in_the_rack_is_named_and_the_others_are_installed() {
    let there = Simulated::start(&Rack::new().machine(Machine::new(CONTROL_PLANE.into())), Options::default());
    let desk = Desk::new();
    let ran = desk.run(&there, &lab(home), "up --yes");
    assert_eq!(ran.exit, 3, "{}\n{}", ran.out, ran.err);
    let proxy = there.running.proxy().to_string();
    insta::assert_snapshot!(ran.err.replace(&proxy, "PROXY"), @"
    error: failed to create talos:machine homelab/talos-work-1 (tests/somebody_elses.rs:33)
      cause: 10.69.1.151 does not answer as a Talos machine (10.69.1.151:50000 through the proxy PROXY: HTTP/1.1 504 Gateway Timeout); is it switched on, booted from Talos installation media or its disk, and does it have this address? (tried for 600 s)
      try: check that it is switched on and reachable; nothing is taken to be gone because of this
    ");
    insta::assert_snapshot!(ran.out.lines().last().unwrap(), @"homelab: 5 done, 1 failed. Run it again once the cause is gone.");
    let world = there.world();
    assert_eq!(world["machines"].as_object().unwrap().len(), 1);
    assert_eq!(world["machines"]["10.69.1.101"]["stage"], "running");
    assert!(namespaces(&world).contains(&"media".to_owned()), "what needs no worker is made");
}

#[test]
fn a_machine_that_was_switched_off_is_all_that_the_next_run_installs() {
    let mut rack = rack();
    rack.machines[1].on = false;
    let there = Simulated::start(&rack, Options::default());
    let desk = Desk::new();
    let ran = desk.run(&there, &lab(home), "up --yes");
    assert_eq!(ran.exit, 3, "{}\n{}", ran.out, ran.err);
    let before = there.world()["machines"]["10.69.1.101"].clone();
    let calls = changing(&there, CONTROL_PLANE);
    there.power_on(WORKER);
    let ran = desk.run(&there, &lab(home), "up --yes");
    assert_eq!((ran.exit, ran.err.as_str()), (0, ""), "{}", ran.out);
    let world = there.world();
    assert_eq!(world["machines"]["10.69.1.101"], before);
    assert_eq!(changing(&there, CONTROL_PLANE), calls, "nothing was done there again");
    assert_eq!(world["machines"]["10.69.1.151"]["stage"], "running");
    assert_eq!(desk.run(&there, &lab(home), "preview --refresh --exit-code").exit, 0);
}

#[test]
fn a_worker_that_belongs_to_another_cluster_is_left_alone() {
    let mut rack = rack();
    rack.machines[1].holds = Contents::Foreign;
    let there = Simulated::start(&rack, Options::default());
    let foreign = there.settled(WORKER);
    let desk = Desk::new();
    let ran = desk.run(&there, &lab(home), "up --yes");
    assert_eq!(ran.exit, 3, "{}\n{}", ran.out, ran.err);
    insta::assert_snapshot!(ran.err, @"
    error: failed to create talos:machine homelab/talos-work-1 (tests/somebody_elses.rs:33)
      cause: 10.69.1.151 already belongs to another Talos cluster: it does not accept this cluster's certificate (10.69.1.151:50000: invalid peer certificate: UnknownIssuer); reset it to maintenance mode, or give the secrets bundle of its cluster to adopt it
    ");
    let world = there.world();
    assert_eq!(world["machines"]["10.69.1.151"], foreign["machines"]["10.69.1.151"]);
    assert_eq!(world["clusters"][0], foreign["clusters"][0], "and so is its cluster");
    assert_eq!(changing(&there, WORKER), Vec::<String>::new());
    assert_eq!(world["machines"]["10.69.1.101"]["stage"], "running", "ours is made");

    // Nor does taking our own away touch it.
    let ran = desk.run(&there, &lab(home), "destroy --yes");
    assert_eq!(ran.exit, 0, "{}\n{}", ran.out, ran.err);
    let world = there.world();
    assert_eq!(world["machines"]["10.69.1.151"], foreign["machines"]["10.69.1.151"]);
    assert_eq!(world["clusters"][0], foreign["clusters"][0]);
    assert_eq!(changing(&there, WORKER), Vec::<String>::new());
}

#[test]
fn a_control_plane_of_another_cluster_keeps_ours_from_being_born_there() {
    let mut rack = rack();
    rack.machines[0].holds = Contents::Foreign;
    let there = Simulated::start(&rack, Options::default());
    let foreign = there.settled(CONTROL_PLANE);
    let desk = Desk::new();
    let ran = desk.run(&there, &lab(home), "up --yes");
    assert_ne!(ran.exit, 0, "{}\n{}", ran.out, ran.err);
    let said = "10.69.1.101 already belongs to another Talos cluster";
    assert!(ran.err.contains(said) && ran.err.contains("reset it to maintenance mode"), "{}", ran.err);
    let world = there.world();
    assert_eq!(world["machines"]["10.69.1.101"], foreign["machines"]["10.69.1.101"]);
    assert_eq!(world["clusters"], foreign["clusters"], "no other cluster was born");
    assert_eq!(changing(&there, CONTROL_PLANE), Vec::<String>::new());
}

/// The object as it is without us.
fn settings_by_hand() -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "settings", "namespace": "media", "labels": {"by": "hand"}},
        "data": {"quality": "low", "note": "do not touch"},
    })
}

#[test]
fn an_object_that_somebody_else_made_is_left_alone_until_it_is_imported() {
    let there = Simulated::start(&rack(), Options::default());
    let desk = Desk::new();
    let ran = desk.run(&there, &lab(home), "up --yes");
    assert_eq!(ran.exit, 0, "{}\n{}", ran.out, ran.err);
    let kubeconfig = desk.run(&there, &lab(home), "output kubeconfig --raw --show-secrets").out;
    let client = there.client(&kubeconfig);
    let planted = there.apply(&client, &settings_by_hand());

    let ran = desk.run(&there, &lab(with_settings), "up --yes");
    assert_eq!(ran.exit, 1, "{}\n{}", ran.out, ran.err);
    insta::assert_snapshot!(ran.err, @"
    error: failed to create kubernetes:object settings (tests/somebody_elses.rs:41)
      cause: kubernetes:object ConfigMap media/settings exists already and is not ours: it bears no mark of ours; it was not touched
      try: take it over with `import settings 'ConfigMap media/settings'`, give ours another name, or remove the other one by hand
    ");
    assert_eq!(
        there.object(&client, &settings_by_hand()).as_ref(),
        Some(&planted),
        "not even a field manager is added"
    );
    assert_eq!(desk.run(&there, &lab(home), "preview --refresh --exit-code").exit, 0, "and nothing else was changed");

    // The message names the command; here it is.
    let ran = desk.run(&there, &lab(with_settings), "import settings 'ConfigMap media/settings' --yes");
    assert_eq!((ran.exit, ran.err.as_str()), (0, ""), "{}", ran.out);
    let ran = desk.run(&there, &lab(with_settings), "up --yes");
    assert_eq!((ran.exit, ran.err.as_str()), (0, ""), "{}", ran.out);
    let ours = there.object(&client, &settings_by_hand()).unwrap();
    assert_eq!(ours["metadata"]["uid"], planted["metadata"]["uid"], "it is the same object");
    assert_eq!(ours["data"], json!({"quality": "high", "note": "do not touch"}), "what we do not declare stays");
    assert_eq!(desk.run(&there, &lab(with_settings), "preview --refresh --exit-code").exit, 0);
}

#[test]
fn an_object_that_somebody_else_makes_between_our_look_and_our_call_is_left_alone() {
    let ours = "PATCH /api/v1/namespaces/media/configmaps/settings";
    // Three simulated minutes: long enough for somebody to be quicker.
    let faults = Faults::none().on(ours, 1, Fault::Latency(Duration::from_secs(180)));
    let there = Simulated::start(&rack(), Options { faults, ..Options::default() });
    let desk = Desk::new();
    let ran = desk.run(&there, &lab(home), "up --yes");
    assert_eq!(ran.exit, 0, "{}\n{}", ran.out, ran.err);
    let kubeconfig = desk.run(&there, &lab(home), "output kubeconfig --raw --show-secrets").out;
    let client = there.client(&kubeconfig);
    let (ran, planted) = std::thread::scope(|scope| {
        let up = scope.spawn(|| desk.run(&there, &lab(with_settings), "up --yes"));
        while !there.running.calls().iter().any(|call| call.name.starts_with(ours)) {
            assert!(!up.is_finished(), "it was never made");
            std::thread::sleep(Duration::from_millis(2));
        }
        let planted = there.apply(&client, &settings_by_hand());
        (up.join().unwrap(), planted)
    });
    assert_eq!(ran.exit, 1, "{}\n{}", ran.out, ran.err);
    assert!(ran.err.contains("settings"), "{}", ran.err);
    assert!(ran.err.contains("`import"), "{}", ran.err);
    assert_eq!(there.object(&client, &settings_by_hand()), Some(planted));
    let ran = desk.run(&there, &lab(with_settings), "import settings 'ConfigMap media/settings' --yes");
    assert_eq!((ran.exit, ran.err.as_str()), (0, ""), "{}", ran.out);
}

fn namespaces(world: &Value) -> Vec<String> {
    let objects = world["clusters"][0]["kubernetes"].as_array().cloned().unwrap_or_default();
    let spaces = objects.iter().filter(|object| object["kind"] == "Namespace");
    spaces.filter_map(|space| space["metadata"]["name"].as_str().map(str::to_owned)).collect()
}
