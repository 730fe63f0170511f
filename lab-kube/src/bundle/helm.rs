//! Charts, expanded by the user's own `helm` into one resource for each object.

use super::edit::{self, means};
use super::manifest::{self, Part};
use super::{Bundle, ManifestBundle, expand};
use crate::json::text;
use crate::provider::Kubernetes;
use lab_core::{Asset, Call, Component, RunError, Scope, Stack};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// The oldest `helm` that takes everything it is asked here.
const OLDEST: (u32, u32) = (3, 6);
/// The newest major version whose answers are understood.
const NEWEST: u32 = 4;

/// A chart, expanded by the user's own `helm` (3.6 or later, or 4) into one resource for each object: what comes out goes
/// the way of a [`ManifestBundle`]. There is no release in the cluster, and nothing that only `helm` knows of.
///
/// `helm template` runs while the program declares, without a cluster and without a network: the chart is pinned, the
/// version of Kubernetes is said here, and of the person's own configuration it sees nothing. It runs twice, and a chart
/// that renders something else each time (a password drawn at random) is a problem of the plan that names the objects,
/// since every preview would show a change.
///
/// What the release's namespace is for helm, [`HelmChart::new`] is told: what lives in a namespace and names none is put
/// there. The namespace itself is declared by the program.
///
/// **Hooks** are objects that helm makes at a certain moment and forgets. There is no such moment here, so a chart with
/// hooks is refused with a list of them, until each is spoken for: tests go by [`HelmChart::without_tests`], one that is not
/// wanted goes by [`HelmChart::edit`] and [`ManifestBundle::without`], and one that does as an ordinary object (a Job that
/// prepares something, once) is allowed by its name with [`HelmChart::hook`]. It is then declared without its annotations
/// of helm, in the order of any bundle.
///
/// **Secrets** are never among the values, which are an ordinary part of the program: they are set into the object that
/// holds them, `.edit(|bundle| bundle.secret("Secret web/web", "/stringData/password", password))`. The values go to
/// `helm` through a pipe. What a chart marks with `helm.sh/resource-policy: keep` is [retained](lab_core::Declare::retain).
///
/// ```
/// use lab_core::Stack;
/// use lab_kube::{HelmChart, Kubernetes};
/// use serde_json::json;
///
/// fn declare(stack: &Stack, k8s: &lab_core::Scope<'_, Kubernetes>) {
///     let chart = stack.asset(
///         "https://github.com/traefik/traefik-helm-chart/releases/download/v41.3.0/traefik-41.3.0.tgz",
///         "sha256:...",
///     );
///     let namespace = k8s.resource("traefik").add(lab_kube::namespace("traefik"));
///     k8s.component("ingress").depends_on(&namespace).add(
///         HelmChart::new("traefik", "traefik", chart, "1.34")
///             .values(json!({"deployment": {"replicas": 2}}))
///             .without_tests()
///             .edit(|bundle| bundle.image("docker.io/traefik", "registry.home.arpa/traefik")),
///     );
/// }
/// # let _ = declare;
/// ```
pub struct HelmChart {
    release: String,
    namespace: String,
    chart: Chart,
    kubernetes: String,
    api_versions: BTreeSet<String>,
    values: Map<String, Value>,
    hooks: BTreeSet<String>,
    without_tests: bool,
    edits: Vec<Box<dyn FnOnce(ManifestBundle) -> ManifestBundle>>,
    problems: Vec<String>,
}

/// Where a chart is.
#[derive(Clone, Debug)]
pub enum Chart {
    /// In an archive, as charts are published.
    Archive(Asset),
    /// In a directory of this machine, with the charts that it depends on below `charts`.
    Directory(PathBuf),
}

impl Chart {
    /// Returns the chart in a directory; a relative path is one of the working directory.
    pub fn directory(path: impl AsRef<Path>) -> Chart {
        Chart::Directory(path.as_ref().to_owned())
    }
}

impl From<Asset> for Chart {
    fn from(archive: Asset) -> Chart {
        Chart::Archive(archive)
    }
}

impl HelmChart {
    /// Returns a chart with its own values, for a release and its namespace. `kubernetes` is the version that templates
    /// are told, `1.34`.
    pub fn new(release: &str, namespace: &str, chart: impl Into<Chart>, kubernetes: &str) -> HelmChart {
        HelmChart {
            release: release.to_owned(),
            namespace: namespace.to_owned(),
            chart: chart.into(),
            kubernetes: kubernetes.to_owned(),
            api_versions: BTreeSet::new(),
            values: Map::new(),
            hooks: BTreeSet::new(),
            without_tests: false,
            edits: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Lays values over those of the chart and those that were given before: a struct, or `serde_json::json!(..)`.
    ///
    /// Maps are merged, everything else is replaced, and null takes away what the chart says, as for `helm --values`.
    pub fn values(mut self, values: impl Serialize) -> HelmChart {
        match serde_json::to_value(values) {
            Ok(values) => self.lay(values),
            Err(error) => self.problems.push(format!(
                "its values cannot be written: {error}. A secret, and what another resource yields, is set into the \
                 object that holds it: `.edit(|bundle| bundle.secret(..))`"
            )),
        }
        self
    }

    /// Lays the values of a YAML text over those that were given before: `include_str!("values.yaml")`.
    pub fn values_yaml(mut self, yaml: &str) -> HelmChart {
        match serde_saphyr::from_str::<Value>(yaml) {
            Ok(Value::Null) => {}
            Ok(values) => self.lay(values),
            Err(error) => {
                let options = serde_saphyr::render_options! { snippets: serde_saphyr::SnippetMode::Off };
                self.problems.push(format!("its values are not YAML: {}", error.render_with_options(options)));
            }
        }
        self
    }

    fn lay(&mut self, values: Value) {
        match values {
            Value::Object(values) => merge(&mut self.values, values),
            _ => self.problems.push("its values are not a map".into()),
        }
    }

    /// Tells templates that the cluster serves this, beside what helm takes for granted: `monitoring.coreos.com/v1`, or
    /// with the kind, `monitoring.coreos.com/v1/ServiceMonitor`.
    pub fn api_version(mut self, api_version: &str) -> HelmChart {
        self.api_versions.insert(api_version.to_owned());
        self
    }

    /// Leaves out the hooks that are tests.
    pub fn without_tests(mut self) -> HelmChart {
        self.without_tests = true;
        self
    }

    /// Declares a hook as an ordinary object; it is named as in `Job web/web-migrate`.
    pub fn hook(mut self, object: &str) -> HelmChart {
        self.hooks.insert(object.to_owned());
        self
    }

    /// Changes what came out, in terms of objects.
    pub fn edit(mut self, edit: impl FnOnce(ManifestBundle) -> ManifestBundle + 'static) -> HelmChart {
        self.edits.push(Box::new(edit));
        self
    }

    fn call(&self, archive: Option<&Asset>) -> Call {
        let mut call = Call::new("helm").arg("template").arg(&self.release);
        call = match (&self.chart, archive.and_then(Asset::bytes)) {
            (Chart::Archive(asset), bytes) => {
                let file = asset.name().rsplit('/').next().filter(|file| file.ends_with(".tgz"));
                call.file(file.unwrap_or("chart.tgz"), bytes.cloned().unwrap_or_default())
            }
            (Chart::Directory(path), _) => call.path(path),
        };
        call = call.arg("--namespace").arg(&self.namespace).arg("--include-crds");
        call = call.arg("--kube-version").arg(&self.kubernetes);
        for api_version in &self.api_versions {
            call = call.arg("--api-versions").arg(api_version);
        }
        // JSON is YAML.
        call.arg("--values").arg("-").input(Value::Object(self.values.clone()).to_string())
    }
}

impl Component<Kubernetes> for HelmChart {
    type Handle = Bundle;

    fn declare(mut self, scope: &Scope<'_, Kubernetes>) -> Bundle {
        let archive = match &self.chart {
            Chart::Archive(asset) => Some(asset.clone()),
            Chart::Directory(_) => None,
        };
        let chart = match &self.chart {
            Chart::Archive(asset) => asset.name().to_owned(),
            Chart::Directory(path) => path.display().to_string(),
        };
        let name = format!("chart {chart}");
        for problem in std::mem::take(&mut self.problems) {
            scope.problem(format!("{name}: {problem}"));
        }
        // Why it is not there has been said.
        if archive.as_ref().is_some_and(|asset| asset.bytes().is_none()) {
            return Bundle::missing(name);
        }
        let (parts, mut problems) = match self.render(scope.stack(), archive.as_ref()) {
            Ok(rendered) => rendered,
            Err(why) => {
                scope.problem(format!("{name}: {why}"));
                return Bundle::missing(name);
            }
        };
        let edited = std::mem::take(&mut self.edits)
            .into_iter()
            .fold(ManifestBundle::new(Asset::given("", "")), |bundle, edit| edit(bundle));
        let mut parts = self.without_left_out(parts);
        edit::fill_namespace(&mut parts, &self.namespace);
        let mut edits = edited.edits;
        // A hook that is left out need not be spoken for, so that comes before the rest is judged.
        let (out, rest): (Vec<_>, Vec<_>) = edits.drain(..).partition(|edit| matches!(edit, edit::Edit::Without(_)));
        edit::make(out, &mut parts, &mut problems);
        self.judge_hooks(&mut parts, &mut problems);
        expand(name, parts, problems, rest, scope)
    }
}

type Rendered = (Vec<Part>, Vec<String>);

impl HelmChart {
    fn render(&self, stack: &Stack, archive: Option<&Asset>) -> Result<Rendered, String> {
        check_version(stack)?;
        let call = self.call(archive);
        let once = run(stack, &call)?;
        let again = run(stack, &call)?;
        if once != again {
            return Err(differs(&once, &again));
        }
        Ok(manifest::read(&once))
    }

    fn without_left_out(&self, mut parts: Vec<Part>) -> Vec<Part> {
        parts.retain(|part| !(self.without_tests && hooks(part).any(|hook| hook == "test" || hook == "test-success")));
        parts
    }

    /// Refuses hooks that nobody has spoken for; the others become ordinary objects.
    fn judge_hooks(&self, parts: &mut Vec<Part>, problems: &mut Vec<String>) {
        let mut allowed = BTreeSet::new();
        let mut refused = Vec::new();
        parts.retain_mut(|part| {
            if hooks(part).next().is_none() {
                return true;
            }
            let Some(identity) = part.identity() else { return false };
            match self.hooks.iter().find(|name| means(&identity, name)) {
                Some(name) => {
                    allowed.insert(name.clone());
                    if let Some(annotations) =
                        part.body.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut)
                    {
                        annotations.retain(|name, _| !name.starts_with(HOOK));
                    }
                    true
                }
                None => {
                    let when: Vec<&str> = hooks(part).collect();
                    refused.push(format!("{identity} ({})", when.join(", ")));
                    false
                }
            }
        });
        if !refused.is_empty() {
            problems.push(format!(
                "it has hooks, which helm would make at a certain moment and forget: {}. Leave them out \
                 (`.without_tests()`, `.edit(|bundle| bundle.without(..))`), or allow one as an ordinary object: \
                 `.hook(\"Job namespace/name\")`",
                refused.join("; ")
            ));
        }
        for name in self.hooks.difference(&allowed) {
            problems.push(format!("`.hook({name:?})` finds no hook of that name"));
        }
    }
}

/// The annotation that makes an object a hook; those that say more about it begin with it.
const HOOK: &str = "helm.sh/hook";

fn hooks(part: &Part) -> impl Iterator<Item = &str> {
    let hooks = text(&part.body, "/metadata/annotations/helm.sh~1hook");
    hooks.split(',').map(str::trim).filter(|hook| !hook.is_empty())
}

fn check_version(stack: &Stack) -> Result<(), String> {
    let call = Call::new("helm").arg("version").arg("--template").arg("{{.Version}}");
    let said = run(stack, &call)?;
    let version = Version::of(&said);
    let oldest = Version { major: OLDEST.0, minor: OLDEST.1 };
    match version {
        Some(version) if version >= oldest && version.major <= NEWEST => Ok(()),
        Some(version) => {
            Err(format!("it needs helm {oldest} or later, up to {NEWEST}; the `helm` in PATH is {version}"))
        }
        None => Err(format!("the `helm` in PATH does not say its version, but {:?}", said.trim())),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    major: u32,
    minor: u32,
}

impl Version {
    fn of(text: &str) -> Option<Version> {
        let mut numbers = text.trim().strip_prefix('v')?.split(['.', '-', '+']);
        let mut next = || numbers.next()?.parse().ok();
        Some(Version { major: next()?, minor: next()? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

fn run(stack: &Stack, call: &Call) -> Result<String, String> {
    let ran = stack.run(call).map_err(|error| match error {
        RunError::Missing => {
            "there is no `helm` in PATH, which is needed to expand a chart: https://helm.sh/docs/intro/install"
                .to_owned()
        }
        RunError::Failed(why) => format!("failed to run `{call}`: {why}"),
    })?;
    if ran.code != Some(0) {
        // What helm says itself, without its own name for it and without advice that is not for here.
        let said: Vec<&str> = ran.err.lines().map(str::trim).filter(|line| !line.starts_with("Use --debug")).collect();
        let said = said.join("\n").trim().to_owned();
        let said = said.strip_prefix("Error: ").unwrap_or(&said);
        return Err(match ran.code {
            Some(code) if said.is_empty() => format!("`{call}` ended with {code}, without a word"),
            Some(_) => format!("`{call}` failed: {said}"),
            None => format!("`{call}` was ended by a signal"),
        });
    }
    String::from_utf8(ran.out).map_err(|_| format!("`{call}` printed what is not text"))
}

/// Says which objects a chart renders differently each time; not how, for what differs is most often a password.
fn differs(once: &str, again: &str) -> String {
    let (once, again) = (manifest::read(once).0, manifest::read(again).0);
    let changed = once.iter().filter(|part| !again.iter().any(|other| other.body == part.body));
    let changed: BTreeSet<String> = changed.filter_map(Part::identity).map(|identity| identity.to_string()).collect();
    format!(
        "it renders something else each time, so every preview would show a change: {}. Most often a value that was not \
         given is drawn at random: give it, or leave the object out",
        if changed.is_empty() { "comments".to_owned() } else { Vec::from_iter(changed).join(", ") }
    )
}

fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(into)), Value::Object(from)) => merge(into, from),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn versions_are_read_as_helm_prints_them() {
        let version = |text: &str| Version::of(text).map(|version| version.to_string());
        assert_eq!(version("v3.18\n").as_deref(), Some("3.18"));
        assert_eq!(version("v4.0.1").as_deref(), Some("4.0"));
        assert_eq!(version("v3.19.0-rc.1+g3d8990f").as_deref(), Some("3.19"));
        assert_eq!(version("Client: v2.17.0"), None);
    }

    #[test]
    fn values_are_laid_over_each_other_as_helm_does() {
        let chart = HelmChart::new("web", "web", Chart::directory("web"), "1.34")
            .values(json!({"a": {"b": 1, "c": [1, 2]}, "d": 1}))
            .values_yaml("a: {b: 2, c: [3]}\nd: null\n");
        assert_eq!(Value::Object(chart.values), json!({"a": {"b": 2, "c": [3]}, "d": null}));
        assert_eq!(chart.problems, [""; 0]);
    }

    #[test]
    fn a_secret_or_an_unknown_among_the_values_is_refused() {
        #[derive(Serialize)]
        struct Values {
            password: lab_core::Secret<String>,
        }
        let password = lab_core::Secret::new("hunter22".to_owned());
        let chart = HelmChart::new("web", "web", Chart::directory("web"), "1.34").values(Values { password });
        assert_eq!(chart.problems.len(), 1);
        assert!(chart.problems[0].contains("its values cannot be written"), "{:?}", chart.problems);
        assert!(!chart.problems[0].contains("hunter22"));
        assert_eq!(chart.values, Map::new());
    }
}
