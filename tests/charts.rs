//! Charts, expanded by a program of this machine: by a script that prints what helm 3.18 printed, and by helm itself where
//! there is one.

use lab::kube::{Chart, HelmChart, Kubernetes};
use lab::{Declared, Link, Machine, Secret, Stack, Vault};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A small chart with everything that a chart can have.
fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("lab-kube/tests/charts/web")
}

/// What helm 3.18 made of it, asked as [`shop`] asks.
fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("lab-kube/tests/data/helm/shop.yaml")
}

/// Declares the chart with the programs in `path` within reach.
fn shop(path: impl Into<OsString>, values: Value) -> Declared {
    let supply = Arc::new(Machine::new(Link::memory(Arc::new(())), path));
    let program = |stack: &Stack| {
        let k8s = stack.provider("k8s", Kubernetes::stated("attic", Secret::new("kubeconfig".to_owned())));
        let chart = HelmChart::new("shop", "web", Chart::directory(chart()), "1.34")
            .values(json!({"greeting": "good day", "replicas": 2}))
            .values(values)
            .api_version("monitoring.coreos.com/v1")
            .without_tests()
            .hook("Job web/shop-migrate");
        k8s.component("shop").add(chart);
        Ok(())
    };
    Stack::load_with("homelab", None, Vault::new([7; 32]), BTreeMap::new(), supply, program).unwrap()
}

/// Returns the directories where helm is looked for, or says past the test runner that there is none.
fn helm(test: &str) -> Option<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|dir| dir.join("helm").is_file()) {
        return Some(path);
    }
    let how = "https://helm.sh/docs/intro/install, or `go install helm.sh/helm/v3/cmd/helm@v3.18.6`";
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: there is no helm in PATH. {how}");
    None
}

fn problem(declared: &Declared) -> String {
    let [(place, problem)] = declared.problems.as_slice() else { panic!("{:?}", declared.problems) };
    assert!(place.file.ends_with("charts.rs"), "{place}");
    problem.replace(&chart().display().to_string(), "CHART")
}

/// Returns the bodies of everything that is declared, by name.
fn bodies(declared: &Declared) -> BTreeMap<String, Value> {
    assert_eq!(declared.problems, []);
    let body = |node: &lab::Node| (node.urn.name().to_owned(), node.inputs.value()["body"].clone());
    declared.nodes.iter().map(body).collect()
}

/// Returns a `PATH` of a `helm` that prints what was recorded.
#[cfg(unix)]
fn script() -> (tempfile::TempDir, OsString) {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("helm");
    let text = format!(
        "#!/bin/sh\nif [ \"$1\" = version ]; then printf v3.18; exit; fi\ntest \"$(cat)\" = \
         '{{\"greeting\":\"good day\",\"replicas\":2}}' || {{ echo 'Error: other values' >&2; exit 1; }}\n\
         exec cat '{}'\n",
        recorded().display()
    );
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/bin:/usr/bin", dir.path().display()).into();
    (dir, path)
}

#[cfg(unix)]
#[test]
fn a_chart_is_what_the_program_in_path_makes_of_it() {
    let (_dir, path) = script();
    let bodies = bodies(&shop(path.clone(), json!({})));
    assert_eq!(
        Vec::from_iter(bodies.keys()),
        [
            "ConfigMap.web.shop",
            "CustomResourceDefinition.sites.example.org",
            "Deployment.web.shop",
            "Job.web.shop-migrate",
            "PersistentVolumeClaim.web.shop",
            "Secret.web.shop",
            "Service.web.shop",
            "ServiceAccount.web.shop",
            "Site.web.shop",
        ]
    );
    let said = problem(&shop(path, json!({"greeting": "hello"})));
    assert!(said.ends_with("--values -` failed: other values"), "{said}");
}

#[cfg(unix)]
#[test]
fn helm_itself_makes_of_it_what_was_recorded() {
    let Some(path) = helm("helm_itself_makes_of_it_what_was_recorded") else { return };
    let (_dir, script) = script();
    assert_eq!(bodies(&shop(path, json!({}))), bodies(&shop(script, json!({}))));
}

#[test]
fn helm_itself_is_quoted_when_a_template_fails() {
    let Some(path) = helm("helm_itself_is_quoted_when_a_template_fails") else { return };
    let said = problem(&shop(path, json!({"broken": true})));
    assert!(said.starts_with("chart CHART: `helm template shop CHART --namespace web --include-crds"), "{said}");
    assert!(
        said.ends_with("failed: execution error at (web/templates/ground.yaml:17:5): the greeting is missing"),
        "{said}"
    );
}

#[test]
fn a_password_that_helm_draws_at_random_is_noticed() {
    let Some(path) = helm("a_password_that_helm_draws_at_random_is_noticed") else { return };
    let said = problem(&shop(path, json!({"random": true})));
    assert!(said.contains("so every preview would show a change: Secret shop. "), "{said}");
}

#[test]
fn without_helm_it_is_said_what_is_needed() {
    assert_eq!(
        problem(&shop("/nowhere", json!({}))),
        "chart CHART: there is no `helm` in PATH, which is needed to expand a chart: \
         https://helm.sh/docs/intro/install"
    );
}
