//! Whole programs of objects, carried out by the engine against the simulated API.

mod cluster;

use cluster::{Cluster, Inside, on_both};
use lab_core::execute::disk::FaultyDisk;
use lab_core::execute::seal::Keys;
use lab_core::execute::{CallFault, Faults, KeySource, Ledger, Options, Report, Store, execute, observe};
use lab_core::plan::{Observations, Plan, Request, Verb, plan};
use lab_core::{Link, ProgramError, Secret, Stack};
use lab_kube::{Kubernetes, Object, config_map, namespace, secret};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where what the program declares is.
const OBJECTS: [&str; 5] = [
    "/api/v1/namespaces/media",
    "/api/v1/namespaces/media/secrets/claim",
    "/api/v1/namespaces/media/services/plex",
    "/api/v1/namespaces/media/configmaps/settings",
    "/apis/apps/v1/namespaces/media/deployments/plex",
];

const TOKEN: &str = "claim-hunter22";

/// A cluster with controllers, and the state of one stack.
struct Lab {
    cluster: Cluster,
    disk: FaultyDisk,
}

impl Lab {
    async fn new() -> Lab {
        Lab::on(Cluster::stand_in(Inside::Everything).await)
    }

    fn on(cluster: Cluster) -> Lab {
        Lab { cluster, disk: FaultyDisk::new() }
    }

    /// Plans a verb, and carries it out unless it is only to be seen.
    async fn run(&self, verb: Verb, image: &str, faults: Faults, carry_out: bool) -> (Plan, Report, usize) {
        let link = Link::direct().on(self.cluster.clock.clone());
        let keys = KeySource::Given(Keys::fixed());
        let (store, _) = Store::open(Arc::new(self.disk.clone()), "homelab", keys).unwrap();
        let program = |stack: &Stack| program(stack, &self.cluster.kubeconfig, image);
        let declared = Stack::load("homelab", None, store.vault().clone(), BTreeMap::new(), program).unwrap();
        assert_eq!(declared.problems, []);
        let declared = Arc::new(declared);
        let ledger = Ledger::new(store, self.cluster.clock.clone());
        let seen: Observations = observe(declared.clone(), &ledger, &link, true).await;
        let request = Request::new(verb, self.cluster.clock.now());
        let plan = ledger.with(|store| plan(&declared, store.state(), &seen, &request));
        assert!(plan.problems.is_empty(), "{:?}", plan.problems);
        let faults = Arc::new(faults);
        let options = Options { faults: faults.clone(), ..Options::default() };
        let mut report = Report::default();
        if carry_out {
            report = execute(&plan, declared, ledger.clone(), link, options).await;
        }
        if !report.stopped {
            ledger.close().unwrap();
        }
        (plan, report, faults.calls())
    }

    async fn up(&self, image: &str, faults: Faults) -> (Report, usize) {
        let (_, report, calls) = self.run(Verb::Up, image, faults, true).await;
        (report, calls)
    }

    async fn up_whole(&self, image: &str) -> usize {
        let (report, calls) = self.up(image, Faults::none()).await;
        assert!(report.complete(), "{report:#?}");
        calls
    }

    /// Looks at everything, and expects nothing to be done.
    async fn at_rest(&self, image: &str) {
        let (plan, ..) = self.run(Verb::Up, image, Faults::none(), false).await;
        assert!(plan.is_empty(), "{}", lab_core::plan::text(&plan));
    }

    /// Everything that was declared, without what differs from run to run.
    fn declared(&self) -> Vec<Value> {
        let mut objects = self.cluster.snapshot();
        objects.retain(|object| object.pointer("/metadata/annotations/lab.home.arpa~1operation").is_some());
        for object in &mut objects {
            object["metadata"]["annotations"].as_object_mut().unwrap().remove("lab.home.arpa/operation");
            object.as_object_mut().unwrap().remove("status");
            // The service's address is allotted by the cluster; that it is there is what counts.
            if let Some(address) = object.pointer_mut("/data/address") {
                *address = json!(address.is_string());
            }
        }
        objects
    }
}

fn program(stack: &Stack, kubeconfig: &str, image: &str) -> Result<(), ProgramError> {
    let k8s = stack.provider("k8s", Kubernetes::stated("test", Secret::new(kubeconfig.to_owned())));
    let media = k8s.resource("namespace").add(namespace("media"));
    let claim = secret("media", "claim")
        .secret("/stringData/user", Secret::new("admin-hunter22".to_owned()))
        .initial("/stringData/token", Secret::new(TOKEN.to_owned()));
    let claim = k8s.resource("claim").depends_on(&media).add(claim);
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "plex", "namespace": "media"},
        "spec": {"selector": {"app": "plex"}, "ports": [{"port": 32400}]}});
    let service = k8s.resource("service").depends_on(&media).add(Object::new(service));
    let address = service.output(|service| service.address);
    let settings = config_map("media", "settings", BTreeMap::from([("mode".into(), "quiet".into())]));
    let settings = k8s.resource("settings").add(settings.set("/data/address", address));
    let container = json!({"name": "plex", "image": image, "resources": {"requests": {"memory": "1024Mi"}}});
    let plex = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "plex", "namespace": "media"},
        "spec": {"selector": {"matchLabels": {"app": "plex"}}, "template": {
            "metadata": {"labels": {"app": "plex"}}, "spec": {"containers": [container]}}}});
    k8s.resource("plex").depends_on(&claim).depends_on(&settings).add(Object::new(plex));
    Ok(())
}

on_both! {
async fn a_program_is_made_is_at_rest_changes_and_goes(cluster: Inside::Everything) {
    let lab = Lab::on(cluster);
    lab.up_whole("plex:1").await;
    let is_there = |path: &&&str| lab.cluster.read(path).is_some();
    assert_eq!(OBJECTS.iter().filter(is_there).count(), 5);
    let data = lab.cluster.read("/api/v1/namespaces/media/secrets/claim").unwrap()["data"].clone();
    assert!(data.get("token").is_some() && data.get("user").is_some(), "{data}");
    lab.at_rest("plex:1").await;

    let (plan, ..) = lab.run(Verb::Up, "plex:2", Faults::none(), false).await;
    let steps: Vec<&str> = plan.steps.iter().map(|step| step.urn.name()).collect();
    assert_eq!(steps, ["plex"]);
    lab.up_whole("plex:2").await;
    lab.at_rest("plex:2").await;

    // Somebody takes the user away.
    lab.cluster.other("PATCH", "/api/v1/namespaces/media/secrets/claim", json!({"data": {"user": null}}));
    let (plan, ..) = lab.run(Verb::Up, "plex:2", Faults::none(), false).await;
    let steps: Vec<&str> = plan.steps.iter().map(|step| step.urn.name()).collect();
    assert_eq!(steps, ["claim"]);
    lab.up_whole("plex:2").await;
    assert_eq!(lab.cluster.read("/api/v1/namespaces/media/secrets/claim").unwrap()["data"], data);
    lab.at_rest("plex:2").await;

    let (_, report, _) = lab.run(Verb::Destroy, "plex:2", Faults::none(), true).await;
    assert!(report.complete(), "{report:#?}");
    assert_eq!(OBJECTS.iter().filter(is_there).count(), 0);
}
}

#[tokio::test]
async fn a_run_that_dies_at_any_call_is_finished_by_the_next() {
    let undisturbed = Lab::new().await;
    let calls = undisturbed.up_whole("plex:1").await;
    undisturbed.up_whole("plex:2").await;
    for fault in [CallFault::StopBefore, CallFault::StopAfter, CallFault::LoseReply] {
        for at in 0..=calls {
            let lab = Lab::new().await;
            lab.up("plex:1", Faults::at(at, fault)).await;
            lab.up_whole("plex:2").await;
            assert_eq!(lab.declared(), undisturbed.declared(), "{fault:?} at {at}");
            lab.at_rest("plex:2").await;
        }
    }
}
