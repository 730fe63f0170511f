//! Bundles of manifests and charts: which resources they are declared as, in which order, with which secrets; and that a
//! cluster takes them.

mod cluster;

use cluster::{Cluster, Inside, on_both};
use lab_core::execute::disk::FaultyDisk;
use lab_core::execute::seal::Keys;
use lab_core::execute::{KeySource, Ledger, Options, Store, execute, observe};
use lab_core::plan::{Plan, Request, Verb, plan, render_graph, text};
use lab_core::testing::{Pantry, Search};
use lab_core::{Asset, Call, Declared, Link, Ran, RunError, Scope, Secret, Stack, Vault};
use lab_kube::{Bundle, HelmChart, Kubernetes, ManifestBundle, namespace};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const SITES: &str = include_str!("data/sites.yaml");
/// What helm 3.18 made of `charts/web`, asked as [`shop`] asks.
const SHOP: &str = include_str!("data/helm/shop.yaml");
const CHART: &str = "https://example.org/charts/web-0.3.0.tgz";

fn load(pantry: &Pantry, program: impl FnOnce(&Stack, &Scope<'_, Kubernetes>)) -> Declared {
    let load = |stack: &Stack| {
        let kubeconfig = Secret::new("kubeconfig".to_owned());
        program(stack, &stack.provider("k8s", Kubernetes::stated("attic", kubeconfig)));
        Ok(())
    };
    let supply = Arc::new(pantry.clone());
    Stack::load_with("homelab", None, Vault::new([7; 32]), BTreeMap::new(), supply, load).unwrap()
}

fn declare(program: impl FnOnce(&Scope<'_, Kubernetes>)) -> Declared {
    load(&Pantry::new(), |_, k8s| program(k8s))
}

fn sites(manifest: impl Into<Vec<u8>>, edit: impl FnOnce(ManifestBundle) -> ManifestBundle) -> Declared {
    let bundle = edit(ManifestBundle::new(Asset::given("sites.yaml", manifest)));
    declare(|k8s| {
        k8s.component("sites").add(bundle);
    })
}

fn problems(declared: &Declared) -> Vec<&str> {
    let problem = |(place, problem): &'_ (lab_core::Place, String)| {
        assert!(place.file.ends_with("bundle.rs"), "{place}: {problem}");
    };
    declared.problems.iter().for_each(problem);
    declared.problems.iter().map(|(_, problem)| problem.as_str()).collect()
}

/// The graph without the bodies, which are long and not what this is about.
fn graph(declared: &Declared) -> String {
    assert_eq!(problems(declared), [""; 0]);
    let graph = render_graph(declared);
    let lines = graph.lines().filter(|line| !line.trim_start().starts_with('{'));
    lines.map(|line| line.replace("kubernetes:object ", "")).collect::<Vec<_>>().join("\n")
}

/// Returns what a resource is declared as, markers and all.
fn inputs(declared: &Declared, name: &str) -> Value {
    let node = declared.nodes.iter().find(|node| node.urn.name() == name);
    node.unwrap_or_else(|| panic!("there is no {name}")).inputs.value()
}

#[test]
fn every_object_is_a_resource_in_the_order_that_a_cluster_needs() {
    insta::assert_snapshot!(graph(&sites(SITES, |bundle| bundle)), @r"
    stack homelab
      sites/Namespace.sites-system on k8s
      sites/CustomResourceDefinition.sites.example.org on k8s
      sites/ServiceAccount.sites-system.controller on k8s
          after sites/Namespace.sites-system
      sites/ClusterRole.sites:controller on k8s
      sites/ClusterRoleBinding.sites:controller on k8s
      sites/Secret.sites-system.webhook-certificate on k8s
          after sites/Namespace.sites-system
      sites/Secret.sites-system.admin on k8s
          after sites/Namespace.sites-system
      sites/Deployment.sites-system.controller on k8s
          after the creation of sites/ClusterRole.sites:controller
          after the creation of sites/ClusterRoleBinding.sites:controller
          after sites/CustomResourceDefinition.sites.example.org
          after sites/Namespace.sites-system
          after the creation of sites/Secret.sites-system.admin
          after the creation of sites/Secret.sites-system.webhook-certificate
          after the creation of sites/ServiceAccount.sites-system.controller
      sites/Service.sites-system.sites on k8s
          after sites/Namespace.sites-system
      sites/ValidatingWebhookConfiguration.sites on k8s
          after the creation of sites/ClusterRole.sites:controller
          after the creation of sites/ClusterRoleBinding.sites:controller
          after the creation of sites/CustomResourceDefinition.sites.example.org
          after the creation of sites/Deployment.sites-system.controller
          after the creation of sites/Secret.sites-system.admin
          after the creation of sites/Secret.sites-system.webhook-certificate
          after the creation of sites/Service.sites-system.sites
          after the creation of sites/ServiceAccount.sites-system.controller
      sites/Site.sites-system.home on k8s
          after sites/CustomResourceDefinition.sites.example.org
          after the creation of sites/Deployment.sites-system.controller
          after sites/Namespace.sites-system
          after sites/ValidatingWebhookConfiguration.sites
    ");
}

#[test]
fn what_a_secret_holds_is_a_secret() {
    let declared = sites(SITES, |bundle| bundle);
    let text = render_graph(&declared);
    for clear in ["hunter22", "hunter23", "aHVudGVy"] {
        assert!(!text.contains(clear), "{clear}");
        let shown = declared.nodes.iter().any(|node| node.inputs.value().to_string().contains(clear));
        assert!(!shown, "{clear}");
    }
    let secret = inputs(&declared, "Secret.sites-system.admin");
    assert_eq!(
        Vec::from_iter(secret["secret"].as_object().unwrap().keys()),
        ["/data/cookie.key", "/stringData/password"]
    );
    // Somebody else fills it, so nothing of it is ours.
    let empty = inputs(&declared, "Secret.sites-system.webhook-certificate");
    assert_eq!(empty.get("secret"), None);
}

#[test]
fn a_secret_that_the_program_gives_replaces_the_published_one() {
    let declared = sites(SITES, |bundle| {
        let admin = "Secret sites-system/admin";
        bundle.secret(admin, "/stringData/password", Secret::new("better".to_owned())).secret(
            admin,
            "/stringData/cookie.key",
            Secret::new("better".to_owned()),
        )
    });
    assert_eq!(problems(&declared), [""; 0]);
    let secret = inputs(&declared, "Secret.sites-system.admin");
    let fields = secret["secret"].as_object().unwrap();
    assert_eq!(Vec::from_iter(fields.keys()), ["/stringData/cookie.key", "/stringData/password"]);
    assert_eq!(fields["/stringData/cookie.key"], fields["/stringData/password"]);
}

#[test]
fn values_are_set_and_images_come_from_elsewhere() {
    let declared = sites(SITES, |bundle| {
        bundle
            .namespace("web")
            .image("registry.example.org", "registry.home.arpa")
            .set("Deployment web/controller", "/spec/replicas", 2)
            .without(|key| key.kind == "ValidatingWebhookConfiguration")
            .each(|object| object["metadata"]["labels"]["site"] = "attic".into())
    });
    assert_eq!(problems(&declared), [""; 0]);
    let controller = inputs(&declared, "Deployment.web.controller");
    assert_eq!(controller["set"], json!({"/spec/replicas": 2}));
    let image = &controller["body"]["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, "registry.home.arpa/sites/controller:v1.4.0");
    assert_eq!(controller["body"]["metadata"]["labels"]["site"], "attic");
    assert_eq!(inputs(&declared, "Namespace.web")["body"]["metadata"]["labels"]["site"], "attic");
    assert_eq!(declared.nodes.len(), 10);
}

#[test]
fn an_object_that_is_there_twice_is_a_problem_that_names_both_documents() {
    let twice = format!("{SITES}\napiVersion: v1\nkind: Namespace\nmetadata: {{name: sites-system}}\n");
    assert_eq!(
        problems(&sites(twice, |bundle| bundle)),
        ["sites.yaml: Namespace sites-system is there twice: in document 9 (line 107) and in document 10 (line 112)"]
    );
}

#[test]
fn every_problem_of_a_bundle_is_told_at_once() {
    let wrong = "kind: [\n---\napiVersion: v1\nkind: Service\nmetadata: {name: 1st, namespace: a}\n";
    let declared = sites(wrong, |bundle| bundle.set("Service a/web", "/spec/x", 1));
    let problems = problems(&declared);
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems[0].starts_with("sites.yaml: document 1 (line 1): "), "{problems:?}");
    assert!(problems[1].starts_with("sites.yaml: document 2 (line 2): the name \"1st\" of a Service"), "{problems:?}");
    assert_eq!(
        problems[2],
        "sites.yaml: `.set(\"Service a/web\", \"/spec/x\", ..)` finds nothing: there are no objects"
    );
}

#[test]
fn a_path_that_leads_nowhere_is_a_problem_with_the_line_of_the_bundle() {
    let declared = sites(SITES, |bundle| bundle.set("Service sites-system/sites", "/spec/ports/3/port", 444));
    let problems = problems(&declared);
    assert!(problems[0].contains("the list /spec/ports has 1 element"), "{problems:?}");
}

#[test]
fn what_is_no_text_or_holds_nothing_is_a_problem() {
    assert_eq!(problems(&sites([0x1f, 0x8b, 0xff], |bundle| bundle)), ["sites.yaml is no manifest: it is not text"]);
    assert_eq!(problems(&sites("# nothing\n---\n", |bundle| bundle)), ["sites.yaml holds no objects"]);
}

#[test]
fn two_kinds_of_one_name_are_told_apart_by_their_groups() {
    let cluster =
        |group: &str| format!("---\napiVersion: {group}/v1\nkind: Cluster\nmetadata: {{name: main, namespace: db}}\n");
    let both = format!("{}{}", cluster("postgresql.example.org"), cluster("rabbitmq.example.org"));
    assert_eq!(
        graph(&sites(both, |bundle| bundle)),
        "stack homelab\n  sites/Cluster.postgresql.example.org.db.main on k8s\n  \
         sites/Cluster.rabbitmq.example.org.db.main on k8s"
    );
}

#[test]
fn what_comes_after_a_bundle_comes_after_all_of_it() {
    let declared = declare(|k8s| {
        let manifest = Asset::given("two.yaml", SITES);
        let bundle = k8s.component("sites").add(ManifestBundle::new(manifest).without(|key| key.kind != "Secret"));
        k8s.resource("after").depends_on(&bundle).add(namespace("after"));
        let admin = bundle.object("Secret sites-system/admin").unwrap();
        k8s.resource("after-one").depends_on(&admin).add(namespace("after-one"));
        assert_eq!(
            bundle.object("Secret sites-system/root").unwrap_err().to_string(),
            "`.object(\"Secret sites-system/root\")` of two.yaml finds no object of that name: there are Secret \
             sites-system/admin, Secret sites-system/webhook-certificate"
        );
    });
    assert_eq!(
        graph(&declared),
        "stack homelab\n  sites/Secret.sites-system.webhook-certificate on k8s\n  \
         sites/Secret.sites-system.admin on k8s\n  after on k8s\n      after sites/Secret.sites-system.admin\n      \
         after sites/Secret.sites-system.webhook-certificate\n  after-one on k8s\n      after \
         sites/Secret.sites-system.admin"
    );
}

#[test]
fn a_bundle_that_could_not_be_had_declares_nothing_and_says_why_once() {
    let declared = load(&Pantry::new(), |stack, k8s| {
        let manifest = stack.asset("https://example.org/sites.yaml", &"0".repeat(64));
        let bundle: Bundle = k8s.component("sites").add(ManifestBundle::new(manifest).set("Pod a/b", "/spec", 1));
        assert_eq!(bundle.objects().count(), 0);
    });
    assert_eq!(problems(&declared), ["failed to fetch https://example.org/sites.yaml: it cannot be reached"]);
}

/// A helm that expands nothing but the one chart it knows, and refuses what the real one refuses.
fn helm(version: &'static str, out: impl Fn(usize) -> String + Send + Sync + 'static) -> Pantry {
    let (pantry, calls) = (Pantry::new(), std::sync::atomic::AtomicUsize::new(0));
    pantry.put(CHART, "an archive");
    pantry.install("helm", move |call: &Call| {
        let ran = |out: String| Ok(Ran { code: Some(0), out: out.into_bytes(), err: String::new() });
        if call.to_string().starts_with("helm version") {
            return ran(version.to_owned());
        }
        assert_eq!(
            call.to_string(),
            "helm template shop web-0.3.0.tgz --namespace web --include-crds --kube-version 1.34 --api-versions \
             monitoring.coreos.com/v1 --values -"
        );
        assert_eq!(String::from_utf8_lossy(&call.input), r#"{"greeting":"good day","replicas":2}"#);
        ran(out(calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst)))
    });
    pantry
}

fn shop(pantry: &Pantry, edit: impl FnOnce(HelmChart) -> HelmChart) -> Declared {
    load(pantry, |stack, k8s| {
        // What `sha256sum` says of "an archive".
        let digest = "9e691d5adacf0e102f203100842ffaba4e2a7dfe3dbd536827d3c0db8c7e88f1";
        let chart = HelmChart::new("shop", "web", stack.asset(CHART, digest), "1.34")
            .values(json!({"greeting": "hello", "replicas": 2}))
            .values_yaml("greeting: good day")
            .api_version("monitoring.coreos.com/v1");
        k8s.component("shop").add(edit(chart));
    })
}

#[test]
fn a_chart_is_expanded_into_its_objects_in_the_namespace_of_its_release() {
    let declared = shop(&helm("v3.18", |_| SHOP.into()), |chart| chart.without_tests().hook("Job web/shop-migrate"));
    insta::assert_snapshot!(graph(&declared), @r"
    stack homelab
      shop/CustomResourceDefinition.sites.example.org on k8s
      shop/ServiceAccount.web.shop on k8s
      shop/Secret.web.shop on k8s
      shop/ConfigMap.web.shop on k8s
      shop/Deployment.web.shop on k8s
          after the creation of shop/ConfigMap.web.shop
          after shop/CustomResourceDefinition.sites.example.org
          after the creation of shop/Secret.web.shop
          after the creation of shop/ServiceAccount.web.shop
      shop/Job.web.shop-migrate on k8s
          after the creation of shop/ConfigMap.web.shop
          after shop/CustomResourceDefinition.sites.example.org
          after the creation of shop/Secret.web.shop
          after the creation of shop/ServiceAccount.web.shop
      shop/PersistentVolumeClaim.web.shop on k8s
      shop/Service.web.shop on k8s
      shop/Site.web.shop on k8s
          after shop/CustomResourceDefinition.sites.example.org
          after the creation of shop/Deployment.web.shop
          after the creation of shop/Job.web.shop-migrate
    ");
    assert_eq!(
        inputs(&declared, "Job.web.shop-migrate")["body"]["metadata"],
        json!({
            "annotations": {}, "name": "shop-migrate", "namespace": "web",
        })
    );
    assert!(!render_graph(&declared).contains("hunter22"));
    let kept: Vec<&str> =
        declared.nodes.iter().filter(|node| node.options.retain).map(|node| node.urn.name()).collect();
    assert_eq!(kept, ["PersistentVolumeClaim.web.shop"]);
}

#[test]
fn hooks_are_refused_until_each_is_spoken_for() {
    let pantry = helm("v4.0.1", |_| SHOP.into());
    assert_eq!(
        problems(&shop(&pantry, |chart| chart)),
        [format!(
            "chart {CHART}: it has hooks, which helm would make at a certain moment and forget: Pod web/shop-answers \
             (test); batch/Job web/shop-migrate (pre-install, pre-upgrade). Leave them out (`.without_tests()`, \
             `.edit(|bundle| bundle.without(..))`), or allow one as an ordinary object: `.hook(\"Job namespace/name\")`"
        )]
    );
    let migrate = |key: &lab_kube::Key| key.name == "shop-migrate";
    let declared = shop(&pantry, move |chart| chart.without_tests().edit(move |bundle| bundle.without(migrate)));
    assert_eq!(problems(&declared), [""; 0]);
    let declared =
        shop(&pantry, |chart| chart.without_tests().hook("Job web/shop-migrate").hook("Job web/shop-import"));
    assert_eq!(
        problems(&declared),
        [format!("chart {CHART}: `.hook(\"Job web/shop-import\")` finds no hook of that name")]
    );
}

#[test]
fn what_comes_out_is_edited_like_any_bundle() {
    let declared = shop(&helm("v3.18", |_| SHOP.into()), |chart| {
        chart.without_tests().hook("Job web/shop-migrate").edit(|bundle| {
            bundle
                .image("registry.example.org", "registry.home.arpa")
                .secret("Secret web/shop", "/stringData/password", Secret::new("better".to_owned()))
                .set("Deployment web/shop", "/spec/replicas", 3)
        })
    });
    assert_eq!(problems(&declared), [""; 0]);
    let deployment = inputs(&declared, "Deployment.web.shop");
    assert_eq!(deployment["set"], json!({"/spec/replicas": 3}));
    let pod = &deployment["body"]["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["image"], "registry.home.arpa/web:1.2");
}

#[test]
fn a_chart_that_renders_something_else_each_time_is_refused_without_quoting_it() {
    let pantry = helm("v3.18", |n| SHOP.replace("hunter22-of-the-chart", &format!("drawn-{n}")));
    assert_eq!(
        problems(&shop(&pantry, |chart| chart.without_tests())),
        [format!(
            "chart {CHART}: it renders something else each time, so every preview would show a change: Secret shop. \
             Most often a value that was not given is drawn at random: give it, or leave the object out"
        )]
    );
}

#[test]
fn without_helm_or_with_one_of_another_age_it_is_said_what_is_needed() {
    let none = Pantry::new();
    none.put(CHART, "an archive");
    assert_eq!(
        problems(&shop(&none, |chart| chart)),
        [format!(
            "chart {CHART}: there is no `helm` in PATH, which is needed to expand a chart: \
             https://helm.sh/docs/intro/install"
        )]
    );
    let said = |version| problems(&shop(&helm(version, |_| SHOP.into()), |chart| chart)).join("\n");
    let needs = |what: &str| format!("chart {CHART}: {what}");
    assert_eq!(said("v3.5.4"), needs("it needs helm 3.6 or later, up to 4; the `helm` in PATH is 3.5"));
    assert_eq!(said("v5.0.0"), needs("it needs helm 3.6 or later, up to 4; the `helm` in PATH is 5.0"));
    assert_eq!(said("<no value>"), needs("the `helm` in PATH does not say its version, but \"<no value>\""));
}

#[test]
fn what_helm_complains_of_is_said_in_its_own_words() {
    let failing = |ran: Result<Ran, RunError>| {
        let pantry = Pantry::new();
        pantry.put(CHART, "an archive");
        pantry.install("helm", move |call| match call.to_string().starts_with("helm version") {
            true => Ok(Ran { code: Some(0), out: b"v3.18".to_vec(), err: String::new() }),
            false => ran.clone(),
        });
        let said = problems(&shop(&pantry, |chart| chart)).join("\n");
        let call = "helm template shop web-0.3.0.tgz --namespace web --include-crds --kube-version 1.34 --api-versions \
                    monitoring.coreos.com/v1 --values -";
        said.replace(call, "CALL").replace(CHART, "CHART")
    };
    // As 3.18 writes it.
    let err = "Error: execution error at (web/templates/ground.yaml:17:5): the greeting is missing\n\nUse --debug flag \
               to render out invalid YAML\n";
    assert_eq!(
        failing(Ok(Ran { code: Some(1), out: Vec::new(), err: err.into() })),
        "chart CHART: `CALL` failed: execution error at (web/templates/ground.yaml:17:5): the greeting is missing"
    );
    assert_eq!(
        failing(Ok(Ran { code: Some(1), ..Ran::default() })),
        "chart CHART: `CALL` ended with 1, without a word"
    );
    assert_eq!(failing(Ok(Ran::default())), "chart CHART: `CALL` was ended by a signal");
    assert_eq!(
        failing(Err(RunError::Failed("it did not end within 120 s".into()))),
        "chart CHART: failed to run `CALL`: it did not end within 120 s"
    );
}

/// A cluster, and the state of a stack that is one bundle.
struct Lab {
    cluster: Cluster,
    disk: FaultyDisk,
}

impl Lab {
    /// Plans a verb for a manifest, having looked at everything, and carries it out where that is asked for.
    async fn run(&self, verb: Verb, manifest: &str, carry_out: bool) -> Plan {
        let link = Link::direct().on(self.cluster.clock.clone());
        let keys = KeySource::Given(Keys::fixed());
        let (store, _) = Store::open(Arc::new(self.disk.clone()), "sites", keys).unwrap();
        let program = |stack: &Stack| {
            let kubeconfig = Secret::new(self.cluster.kubeconfig.clone());
            let k8s = stack.provider("k8s", Kubernetes::stated("test", kubeconfig));
            let bundle = ManifestBundle::new(Asset::given("sites.yaml", manifest))
                // Its certificate is its controller's to make, and here nothing runs in the pods.
                .without(|key| key.kind == "ValidatingWebhookConfiguration");
            k8s.component("sites").add(bundle);
            Ok(())
        };
        let declared = Stack::load("sites", None, store.vault().clone(), BTreeMap::new(), program).unwrap();
        assert_eq!(declared.problems, []);
        let declared = Arc::new(declared);
        let ledger = Ledger::new(store, self.cluster.clock.clone());
        let seen = observe(declared.clone(), &ledger, &link, true).await;
        let request = Request::new(verb, self.cluster.clock.now());
        let plan = ledger.with(|store| plan(&declared, store.state(), &seen, &request));
        assert!(plan.problems.is_empty(), "{:?}", plan.problems);
        if carry_out {
            let report = execute(&plan, declared, ledger.clone(), link, Options::default()).await;
            assert!(report.complete(), "{report:#?}");
        }
        ledger.close().unwrap();
        plan
    }
}

on_both! {
async fn a_bundle_is_made_is_at_rest_changes_and_goes(cluster: Inside::Everything) {
    let lab = Lab { cluster, disk: FaultyDisk::new() };
    lab.run(Verb::Up, SITES, true).await;
    let home = "/apis/example.org/v1/namespaces/sites-system/sites/home";
    assert_eq!(lab.cluster.read(home).unwrap()["spec"], json!({"title": "Welcome home", "pages": 3}));
    let admin = lab.cluster.read("/api/v1/namespaces/sites-system/secrets/admin").unwrap();
    assert_eq!(admin["data"], json!({"password": "aHVudGVyMjI=", "cookie.key": "aHVudGVyMjMtaW4tYmFzZTY0"}));
    let deployment = lab.cluster.read("/apis/apps/v1/namespaces/sites-system/deployments/controller").unwrap();
    assert_eq!(deployment.pointer("/spec/template/spec/volumes/0/secret/defaultMode"), Some(&json!(0o640)));

    let rest = lab.run(Verb::Up, SITES, false).await;
    assert!(rest.is_empty(), "{}", text(&rest));
    let search = Search::of([("the password", "hunter22"), ("the key", "hunter23-in-base64")]);
    for file in lab.disk.everything() {
        search.clean("the state", file);
    }

    let next = SITES.replace("pages: 3", "pages: 4");
    let changed = lab.run(Verb::Up, &next, true).await;
    let steps: Vec<&str> = changed.steps.iter().map(|step| step.urn.name()).collect();
    assert_eq!(steps, ["Site.sites-system.home"]);
    assert_eq!(lab.cluster.read(home).unwrap()["spec"]["pages"], 4);

    let site = lab.run(Verb::Destroy, &next, true).await;
    let gone = |name: &str| site.steps.iter().position(|step| step.urn.name() == name).unwrap();
    assert!(gone("Site.sites-system.home") < gone("Deployment.sites-system.controller"), "{}", text(&site));
    assert_eq!(lab.cluster.read("/api/v1/namespaces/sites-system"), None);
    assert_eq!(lab.cluster.read("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/sites.example.org"), None);
}
}
