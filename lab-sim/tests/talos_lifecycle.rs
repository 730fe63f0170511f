//! The life of a cluster: from machines in maintenance mode to a Kubernetes API that answers.

mod homelab;

use homelab::{ABSENT, CONTROL_PLANES, FOREIGN, Lab, WORKERS};
use lab_sim::Options;
use lab_talos::client::{Error, Phase, Reason, probe};

#[tokio::test(flavor = "multi_thread")]
async fn machines_become_a_cluster_and_its_api_answers() {
    let lab = Lab::start(Options::default()).await;
    let first = CONTROL_PLANES[0];
    let disks = lab.insecure(first).disks().await.unwrap();
    assert_eq!(disks.iter().map(|disk| disk.device_name.as_str()).collect::<Vec<_>>(), ["/dev/nvme0n1"]);

    let all: Vec<&str> = CONTROL_PLANES.iter().chain(&WORKERS).copied().collect();
    lab.install_all(&all).await;
    assert_eq!(lab.secure(first).version().await.unwrap().version.unwrap().tag, "v1.11.2");
    assert_eq!(lab.machine(first)["stage"], "booting", "a control plane waits for its bootstrap");
    assert!(lab.clusters().is_empty());

    lab.bootstrap(first).await;
    for machine in &all {
        lab.until(|| async { lab.machine(machine)["ready"] == true && lab.machine(machine)["stage"] == "running" })
            .await;
    }
    assert_eq!(lab.clusters(), [CONTROL_PLANES]);
    for machine in CONTROL_PLANES {
        let members = lab.secure(machine).etcd_member_list(false).await.unwrap();
        assert_eq!(members.len(), 3);
        assert!(members.iter().all(|member| !member.is_learner));
    }
    let services = lab.secure(first).service_list().await.unwrap();
    assert!(services.iter().any(|service| service.id == "etcd" && service.state == "Running"));

    let status = lab.secure(WORKERS[0]).machine_status().await.unwrap();
    assert!(status.ready, "{status:?}");

    let kubeconfig = lab.secure(first).kubeconfig().await.unwrap();
    assert!(kubeconfig.contains("server: https://10.69.1.101:6443"), "{kubeconfig}");
    let world = lab.running.world();
    let nodes: Vec<_> = world["clusters"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|cluster| cluster["name"] == "homelab")
        .flat_map(|cluster| cluster["kubernetes"].as_array().unwrap())
        .filter(|object| object["kind"] == "Node")
        .map(|node| node["metadata"]["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(nodes, ["node-101", "node-140", "node-147", "node-151"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_of_another_cluster_refuses_us() {
    let lab = Lab::start(Options::default()).await;
    lab.until_machine(FOREIGN, "stage", "running").await;
    let phase = probe(&lab.running.link(), FOREIGN, Some(&lab.admin)).await;
    assert!(matches!(phase, Phase::Foreign(_)), "{phase:?}");
    let phase = probe(&lab.running.link(), CONTROL_PLANES[0], Some(&lab.admin)).await;
    assert!(matches!(phase, Phase::Maintenance { .. }), "{phase:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_not_in_the_rack_does_not_answer() {
    let lab = Lab::start(Options::default()).await;
    let error = lab.insecure(ABSENT).disks().await.unwrap_err();
    let Error::Unreachable(failure) = &error else { panic!("{error:?}") };
    assert_eq!(failure.reason, Reason::Dial, "{error:?}");
    assert!(lab.running.dialled().iter().all(|dialled| dialled.host != ABSENT || dialled.status == 504));
    assert!(lab.running.dialled().iter().any(|dialled| dialled.host == ABSENT));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_controllers_of_a_bootstrapped_cluster_run_on_its_nodes() {
    let lab = Lab::start(Options::default()).await;
    let all: Vec<&str> = CONTROL_PLANES.iter().chain(&WORKERS).copied().collect();
    lab.install_all(&all).await;
    lab.bootstrap(CONTROL_PLANES[0]).await;
    let ours = || {
        let world = lab.running.world();
        let mut clusters = world["clusters"].as_array().unwrap().iter();
        clusters.find(|cluster| cluster["name"] == "homelab").map(|cluster| cluster["kubernetes"].to_string())
    };
    // What every namespace holds comes from a controller, and says who signs for the API.
    lab.until(|| async { ours().is_some_and(|objects| objects.contains("kube-root-ca.crt")) }).await;
    assert!(ours().unwrap().contains("BEGIN CERTIFICATE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rack_is_an_outside_to_rehearse_on() {
    let rack = homelab::rack();
    let outside: &dyn lab_core::execute::Simulator = &rack;
    let simulated = outside.start(7).await.unwrap();
    assert_eq!((simulated.world)()["machines"][CONTROL_PLANES[0]]["stage"], "maintenance");
    assert!(simulated.summary[0].contains("holds Windows"), "{:?}", simulated.summary);
    let machine = lab_talos::client::Machine::insecure(&simulated.link, CONTROL_PLANES[0]).unwrap();
    machine.disks().await.unwrap();
    let link = simulated.link.clone();
    drop(simulated);
    let ends = async {
        while lab_core::execute::dial(&link, CONTROL_PLANES[0], 50000).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), ends).await.expect("it goes on without its owner");
}
