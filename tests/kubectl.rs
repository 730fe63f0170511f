//! What a person does beside us in a rehearsed cluster, with kubectl: it works there, what it did is found, and what it
//! left behind is named. On a real control plane; without one these tests say so and pass.

mod simulated;

use lab::kube::{Kubernetes, Object, config_map, namespace};
use lab::prelude::*;
use lab::sim::{Assets, Fault, Faults, Machine, Options, Rack};
use lab::talos::{Cluster, KubernetesVersion, Talos, TalosVersion};
use serde_json::{Value, json};
use simulated::{Desk, Simulated};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

const CONTROL_PLANE: [u8; 4] = [10, 69, 1, 101];

#[derive(Serialize)]
struct Home {
    kubeconfig: Output<Secret<String>>,
}

/// What is asked for beyond the cluster.
#[derive(Clone, Copy)]
struct Wishes {
    media: bool,
    quality: &'static str,
    /// The size of a shelf, of a kind of our own whose sizes are numbers from one.
    shelf: Option<i64>,
    photos: Photos,
}

/// What is said of a Deployment that a person has made by hand.
#[derive(Clone, Copy, PartialEq)]
enum Photos {
    /// Nothing.
    Unknown,
    /// That it is to be there.
    Declared,
    /// That it is there, and is to be ours.
    Imported,
    /// That one more pod is to run.
    Grown,
}

const USUAL: Wishes = Wishes { media: true, quality: "high", shelf: None, photos: Photos::Unknown };

fn photos(replicas: u32) -> Value {
    let container = json!({"name": "photos", "image": "photos:1", "env": [{"name": "QUALITY", "value": "high"}]});
    let labels = json!({"app": "photos"});
    // The only machine is a control plane.
    let pod = json!({"containers": [container], "tolerations": [{"operator": "Exists"}]});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "photos", "namespace": "default"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    })
}

/// One control plane, and a few objects in its cluster.
fn declare(stack: &Stack, wishes: Wishes) -> Result<Home, ProgramError> {
    let lan = Subnet::new("10.69.1.0/24")?;
    let metal = stack.provider("metal", Talos::default());
    let cluster = metal.component("homelab").add(Cluster {
        control_plane: vec![lan.host("talos-cp-1", 101)?],
        install_disk: "/dev/nvme0n1".into(),
        ..Cluster::new(TalosVersion::V1_11, KubernetesVersion::V1_34, "https://10.69.1.101:6443")
    });
    let k8s = stack.provider("k8s", Kubernetes::inside(&cluster.container(), cluster.kubeconfig()));
    if wishes.media {
        let media = k8s.resource("media").timeout(Duration::from_secs(240)).add(namespace("media"));
        let data = [("quality".to_owned(), wishes.quality.to_owned())].into();
        k8s.resource("settings").depends_on(&media).add(config_map("media", "settings", data));
    }
    if let Some(size) = wishes.shelf {
        let size_of = json!({"type": "integer", "minimum": 1});
        let schema = json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"size": size_of}}}});
        let kind = k8s.resource("shelves").add(Object::new(json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "shelves.example.org"},
            "spec": {
                "group": "example.org", "scope": "Cluster",
                "names": {"kind": "Shelf", "listKind": "ShelfList", "plural": "shelves", "singular": "shelf"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
            },
        })));
        k8s.resource("shelf").depends_on(&kind).add(Object::new(json!({
            "apiVersion": "example.org/v1", "kind": "Shelf", "metadata": {"name": "films"}, "spec": {"size": size},
        })));
    }
    if wishes.photos != Photos::Unknown {
        let declare = k8s.resource("photos");
        let imported = wishes.photos == Photos::Imported;
        let declare = if imported { declare.import("apps/Deployment default/photos") } else { declare };
        declare.add(Object::new(photos(if wishes.photos == Photos::Grown { 3 } else { 2 })));
    }
    Ok(Home { kubeconfig: cluster.kubeconfig() })
}

fn lab(wishes: Wishes) -> Lab {
    Lab::new("homelab", move |stack: &Stack| declare(stack, wishes))
}

/// A rehearsed lab on a real control plane, and kubectl.
struct Person {
    there: Simulated,
    desk: Desk,
    kubectl: PathBuf,
}

impl Person {
    /// Runs `up` in a new lab; without a real control plane says so past the test runner, which keeps what passes quiet.
    fn at_home(test: &str, faults: Faults) -> Option<Person> {
        let assets = Assets::find().unwrap().filter(|assets| assets.are_complete() && assets.has("kubectl"));
        let Some(assets) = assets else {
            let how = "tests/control-plane/build DIRECTORY makes one; then set KUBEBUILDER_ASSETS=DIRECTORY";
            let _ = writeln!(std::io::stderr(), "SKIPPED {test}: there is no real control plane. {how}");
            return None;
        };
        let kubectl = assets.path("kubectl");
        let options = Options { control_plane: Some(assets), faults, ..Options::default() };
        let there = Simulated::start(&Rack::new().machine(Machine::new(CONTROL_PLANE.into())), options);
        let person = Person { there, desk: Desk::new(), kubectl };
        person.lab(USUAL, "up --yes", 0);
        let kubeconfig = person.lab(USUAL, "output kubeconfig --raw --show-secrets", 0);
        std::fs::write(person.desk.path("kubeconfig"), kubeconfig).unwrap();
        Some(person)
    }

    /// Runs a command line of ours, which ends with this code, and returns what it said.
    fn lab(&self, wishes: Wishes, arguments: &str, exit: u8) -> String {
        let ran = self.desk.run(&self.there, &lab(wishes), arguments);
        assert_eq!(ran.exit, exit, "{arguments}:\n{}\n{}", ran.out, ran.err);
        ran.out + &ran.err
    }

    /// Runs kubectl as a person would who was told how the lab is reached.
    fn kubectl(&self, arguments: &[&str], input: Option<Value>) -> String {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(self.desk.path("kubeconfig")).args(arguments);
        command.env("HTTPS_PROXY", format!("http://{}", self.there.running.proxy())).env_remove("NO_PROXY");
        command.env_remove("no_proxy").env("HOME", self.desk.path("home"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = input.map(|input| input.to_string()).unwrap_or_default();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert!(ended.status.success(), "kubectl {arguments:?}: {said}{}", String::from_utf8_lossy(&ended.stderr));
        said
    }
}

fn says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "{part:?} is missing in:\n{said}");
    }
}

#[test]
fn what_kubectl_does_in_a_rehearsed_lab_is_found_and_explained() {
    let Some(person) = Person::at_home("what_kubectl_does_in_a_rehearsed_lab_is_found_and_explained", Faults::none())
    else {
        return;
    };
    let ready = ["wait", "--for=condition=Ready", "node", "--all", "--timeout=60s"];
    assert_eq!(person.kubectl(&ready, None), "node/talos-cp-1 condition met\n");
    assert!(person.kubectl(&["version"], None).contains("Server Version: v1.34"));
    assert!(person.kubectl(&["auth", "whoami"], None).contains("system:masters"));

    // Drift.
    let low = r#"{"data": {"quality": "low"}}"#;
    person.kubectl(&["-n", "media", "patch", "configmap", "settings", "--type=merge", "-p", low], None);
    let drifted = "/body/data/quality: declared high, last applied high, live low, set by kubectl-patch";
    says(&person.lab(USUAL, "drift", 0), &[drifted]);
    let changed = "/body/data/quality was changed by somebody else: \"high\" is \"low\"";
    says(&person.lab(USUAL, "preview --refresh", 0), &[changed, "/body/data/quality: set by kubectl-patch"]);
    person.lab(USUAL, "up --yes --refresh", 0);

    // A field of ours that somebody else has taken, and that we want to change.
    let taken = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "media"},
        "data": {"quality": "medium"}});
    let apply = ["apply", "--server-side", "--force-conflicts", "--field-manager=colleague", "-f", "-"];
    person.kubectl(&apply, Some(taken));
    let wanted = Wishes { quality: "best", ..USUAL };
    let conflict = ["/body/data/quality: set by colleague", "/body/data/quality: \"high\" -> \"best\""];
    says(&person.lab(wanted, "preview --refresh", 0), &conflict);
    let quality =
        || person.kubectl(&["-n", "media", "get", "configmap", "settings", "-o", "jsonpath={.data.quality}"], None);
    assert_eq!(quality(), "medium", "nothing was written");
    person.lab(USUAL, "up --yes --refresh", 0);

    // Gone behind our back.
    person.kubectl(&["-n", "media", "delete", "configmap", "settings"], None);
    let gone = ["+ create kubernetes:object settings", "because it was there and is gone"];
    says(&person.lab(USUAL, "preview --refresh", 0), &gone);
    person.lab(USUAL, "up --yes --refresh", 0);
    assert_eq!(quality(), "high");

    // An object that its definition does not allow.
    let wrong = "apply example.org/v1/Shelf films: Shelf.example.org \"films\" is invalid: spec.size: Invalid value: 0: \
                 spec.size in body should be greater than or equal to 1";
    says(&person.lab(Wishes { shelf: Some(0), ..USUAL }, "up --yes", 3), &[wrong]);
    person.lab(Wishes { shelf: Some(3), ..USUAL }, "up --yes", 0);
    // Where its definition stands already, the server says so before anything is written.
    let refused = format!("warning: kubernetes:object shelf would be refused: {}", wrong.replacen("apply", "try", 1));
    says(&person.lab(Wishes { shelf: Some(0), ..USUAL }, "preview --refresh", 0), &[&refused]);

    // A namespace that cannot go.
    let held = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "held", "namespace": "media", "finalizers": ["example.org/backup"]}});
    person.kubectl(&["apply", "-f", "-"], Some(held));
    let stuck = ["failed to delete kubernetes:object media", "example.org/backup in 1 resource instances"];
    says(&person.lab(Wishes { media: false, ..USUAL }, "up --yes", 3), &stuck);
    let release = r#"{"metadata": {"finalizers": null}}"#;
    person.kubectl(&["-n", "media", "patch", "configmap", "held", "--type=merge", "-p", release], None);
    person.lab(Wishes { media: false, ..USUAL }, "up --yes", 0);
    person.lab(Wishes { media: false, ..USUAL }, "preview --refresh --exit-code", 0);
}

#[test]
fn what_a_person_made_with_kubectl_is_taken_over_and_goes_on_running() {
    let test = "what_a_person_made_with_kubectl_is_taken_over_and_goes_on_running";
    let Some(person) = Person::at_home(test, Faults::none()) else { return };
    person.kubectl(&["apply", "-f", "-"], Some(photos(2)));
    person.kubectl(&["rollout", "status", "deployment/photos", "--timeout=60s"], None);
    let pods =
        ["get", "pods", "-l", "app=photos", "--sort-by=.metadata.name", "-o", "jsonpath={.items[*].metadata.uid}"];
    let running = person.kubectl(&pods, None);
    assert_eq!(running.split(' ').count(), 2, "{running}");

    let declared = Wishes { photos: Photos::Declared, ..USUAL };
    let exists = ["exists already and is not ours", "import photos 'apps/Deployment default/photos'"];
    says(&person.lab(declared, "up --yes", 1), &exists);
    let imported = Wishes { photos: Photos::Imported, ..USUAL };
    says(&person.lab(imported, "up --yes --refresh", 0), &["import kubernetes:object photos"]);
    let there = || -> Value {
        let fields = ["get", "deployment", "photos", "--show-managed-fields", "-o", "json"];
        serde_json::from_str(&person.kubectl(&fields, None)).unwrap()
    };
    let owned = |photos: &Value, manager: &str| {
        let entries = photos["metadata"]["managedFields"].as_array().unwrap();
        entries.iter().find(|entry| entry["manager"] == manager).map(|entry| entry["fieldsV1"].to_string())
    };
    // To take it over is to know of it: it is written to when there is something to write.
    assert_eq!(owned(&there(), "lab"), None);
    person.lab(declared, "preview --refresh --exit-code", 0);

    let grown = Wishes { photos: Photos::Grown, ..USUAL };
    person.lab(grown, "up --yes", 0);
    let photos = there();
    let ours = owned(&photos, "lab").unwrap();
    // What the server filled in for kubectl stays kubectl's.
    let theirs = owned(&photos, "kubectl-client-side-apply").unwrap();
    for field in ["f:replicas", "f:image\"", "f:env", "f:selector"] {
        assert!(ours.contains(field) && !theirs.contains(field), "{field}: {ours}\n{theirs}");
    }
    assert_eq!(photos["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"], Value::Null);
    let now = person.kubectl(&pods, None);
    assert_eq!(now.split(' ').count(), 3, "{now}");
    assert!(running.split(' ').all(|pod| now.contains(pod)), "nothing was started anew: {running}, {now}");
    person.lab(grown, "preview --refresh --exit-code", 0);
    person.lab(USUAL, "up --yes", 0);
    person.kubectl(&["wait", "--for=delete", "deployment/photos", "--timeout=60s"], None);
}

#[test]
fn an_api_server_that_goes_and_comes_back_is_waited_for() {
    let test = "an_api_server_that_goes_and_comes_back_is_waited_for";
    // The machine loses power at the moment when it has made the namespace.
    let faults = Faults::none().on("PATCH /api/v1/namespaces/media", 1, Fault::Reboot);
    let Some(person) = Person::at_home(test, faults) else { return };
    let struck = person.there.running.calls().into_iter().filter(|call| call.fault == Some(Fault::Reboot)).count();
    assert_eq!(struck, 1);
    person.lab(USUAL, "preview --refresh --exit-code", 0);
    assert!(person.kubectl(&["get", "nodes"], None).contains("Ready"));
}
