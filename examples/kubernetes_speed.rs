//! How fast Kubernetes objects are, beside `kubectl`: `cargo run --release --example kubernetes_speed`
//!
//! Starts the control plane that `KUBEBUILDER_ASSETS` names (`tests/control-plane/build DIRECTORY` makes one), applies
//! 1,000 ConfigMaps and 200 Deployments with `kubectl apply --server-side` and with `up`, compares with `kubectl diff`
//! and with `preview --refresh`, and prints a table. `... kubernetes_speed -- 100 20` takes as many.

use lab::Surroundings;
use lab::kube::{Kubernetes, Object};
use lab::prelude::*;
use lab::sim::{Assets, ControlPlane};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output as Ran, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const HELP: &str = "Usage: kubernetes_speed [CONFIGMAPS DEPLOYMENTS]

Compares `up` and an empty plan with kubectl, on the control plane that KUBEBUILDER_ASSETS names.
";
/// What makes this program be the lab: the file with the objects; beside it lies the kubeconfig.
const BE_LAB: &str = "LAB_KUBERNETES_SPEED";

fn main() -> ExitCode {
    if let Some(file) = std::env::var_os(BE_LAB) {
        let file = PathBuf::from(file);
        let lab = Lab::new("speed", move |stack: &Stack| declare(stack, &file));
        return ExitCode::from(lab.run_with(std::env::args_os(), Surroundings::process()));
    }
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Declares every object of a file.
fn declare(stack: &Stack, file: &Path) -> Result<(), ProgramError> {
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|error| ProgramError::new(format!("{}: {error}", path.display())))
    };
    let kubeconfig = read(&file.with_file_name("kubeconfig"))?;
    let k8s = stack.provider("k8s", Kubernetes::stated("speed", Secret::new(kubeconfig)));
    let list: Value = serde_json::from_str(&read(file)?)
        .map_err(|error| ProgramError::new(format!("{}: {error}", file.display())))?;
    for object in list["items"].as_array().into_iter().flatten() {
        let name = format!("{}-{}", object["kind"], object["metadata"]["name"]).replace('"', "").to_lowercase();
        k8s.resource(&name).add(Object::new(object.clone()));
    }
    Ok(())
}

/// Returns a list of objects in a namespace.
fn objects(namespace: &str, maps: usize, deployments: usize) -> Value {
    let map = |n: usize| {
        let data = json!({"quality": "high", "number": n.to_string(), "server.conf": "listen 80;\n".repeat(20)});
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data,
            "metadata": {"name": format!("settings-{n:04}"), "namespace": namespace, "labels": {"app": "speed"}}})
    };
    let deployment = |n: usize| {
        let name = format!("web-{n:04}");
        let container = json!({"name": "web", "image": "nginx:1", "ports": [{"containerPort": 80}],
            "env": [{"name": "QUALITY", "value": "high"}], "resources": {"requests": {"cpu": "10m"}}});
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}}})
    };
    let items: Vec<Value> = (0..maps).map(map).chain((0..deployments).map(deployment)).collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// Both contenders, and where they keep their files.
struct Race {
    kubectl: PathBuf,
    dir: PathBuf,
}

impl Race {
    fn file(&self, namespace: &str) -> PathBuf {
        self.dir.join(format!("{namespace}.json"))
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<Duration, Box<dyn Error>> {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(self.dir.join("kubeconfig")).args(arguments);
        command.env("HOME", &self.dir).env_remove("KUBECONFIG");
        timed(&mut command, &format!("kubectl {}", arguments.join(" ")))
    }

    fn lab(&self, arguments: &[&str]) -> Result<Duration, Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--state").arg(self.dir.join("state")).args(arguments).env(BE_LAB, self.file("by-lab"));
        timed(&mut command, &format!("lab {}", arguments.join(" ")))
    }
}

/// Runs `up`; returns when every object was applied, and when it ended with every one ready.
fn up(race: &Race) -> Result<(Duration, Duration), Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--state").arg(race.dir.join("state")).args(["up", "--yes", "--json"]);
    command.env(BE_LAB, race.file("by-lab")).stdin(Stdio::null()).stdout(Stdio::piped());
    let began = Instant::now();
    let mut child = command.spawn()?;
    let (mut seen, mut applied) = (BTreeSet::new(), Duration::ZERO);
    for line in BufReader::new(child.stdout.take().ok_or("it says nothing")?).lines() {
        let event: Value = serde_json::from_str(&line?)?;
        // What is waited for is there, and what needs no waiting is done at once.
        if matches!(event["event"].as_str(), Some("waiting" | "finished")) && seen.insert(event["urn"].to_string()) {
            applied = began.elapsed();
        }
    }
    let status = child.wait()?;
    let took = began.elapsed();
    if !status.success() {
        return Err(format!("`lab up --yes` ended with {status}").into());
    }
    eprintln!("{:7.2} s  lab up --yes, {:.2} s until all are applied", took.as_secs_f64(), applied.as_secs_f64());
    Ok((applied, took))
}

fn timed(command: &mut Command, what: &str) -> Result<Duration, Box<dyn Error>> {
    let began = Instant::now();
    let Ran { status, stdout, stderr } = command.stdin(Stdio::null()).output()?;
    let took = began.elapsed();
    if !status.success() {
        let said = [stdout, stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let end: Vec<&str> = said.lines().rev().take(20).collect();
        let end: Vec<&str> = end.into_iter().rev().collect();
        return Err(format!("`{what}` ended with {status}:\n{}", end.join("\n")).into());
    }
    eprintln!("{:7.2} s  {what}", took.as_secs_f64());
    Ok(took)
}

/// Returns once all Deployments of a namespace are available.
async fn available(plane: &ControlPlane, namespace: &str, deployments: usize) -> std::io::Result<()> {
    let list = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
    loop {
        let (_, body) = plane.request("GET", &list, "application/json", Vec::new()).await?;
        let list: Value = serde_json::from_slice(&body)?;
        let available = |deployment: &&Value| deployment["status"]["availableReplicas"] == 1;
        if list["items"].as_array().map_or(0, |items| items.iter().filter(available).count()) == deployments {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Says that the machine is well, and has room for all pods; what runs them is KWOK.
async fn beat(plane: &ControlPlane) -> std::io::Result<()> {
    let now = Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]).output()?.stdout;
    let now = String::from_utf8_lossy(&now).trim().to_owned();
    let room = json!({"cpu": "64", "memory": "256Gi", "pods": "2000"});
    let ready = json!([{"type": "Ready", "status": "True", "lastHeartbeatTime": now}]);
    let status = json!({"status": {"conditions": ready, "capacity": room, "allocatable": room}});
    let node = "/api/v1/nodes/worker-1/status";
    plane.request("PATCH", node, "application/merge-patch+json", status.to_string().into_bytes()).await.map(|_| ())
}

fn measure() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (maps, deployments) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => (1000, 200),
        ["--help" | "-h"] => {
            print!("{HELP}");
            return Ok(());
        }
        [maps, deployments] => (maps.parse()?, deployments.parse()?),
        _ => return Err("how many ConfigMaps and how many Deployments? See --help".into()),
    };
    let assets = Assets::find()?.filter(|assets| assets.are_complete() && assets.has("kubectl"));
    let assets = assets.ok_or(
        "there is no real control plane with kubectl: tests/control-plane/build DIRECTORY makes one; then set \
         KUBEBUILDER_ASSETS=DIRECTORY",
    )?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let plane = Arc::new(runtime.block_on(ControlPlane::start(&assets))?);
    let dir = tempfile::tempdir()?;
    let race = Race { kubectl: assets.path("kubectl"), dir: dir.path().to_owned() };
    fs::write(race.dir.join("kubeconfig"), plane.kubeconfig())?;
    let post = |path: &str, body: Value| {
        runtime.block_on(plane.request("POST", path, "application/json", body.to_string().into_bytes()))
    };
    post("/api/v1/nodes", json!({"metadata": {"name": "worker-1"}}))?;
    runtime.block_on(beat(&plane))?;
    let beating = plane.clone();
    runtime.spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(10)).await;
            if let Err(error) = beat(&beating).await {
                eprintln!("the node's heartbeat failed: {error}");
            }
        }
    });
    for namespace in ["by-kubectl", "by-lab"] {
        post("/api/v1/namespaces", json!({"metadata": {"name": namespace}}))?;
        fs::write(race.file(namespace), objects(namespace, maps, deployments).to_string())?;
    }
    println!("{maps} ConfigMaps and {deployments} Deployments; times on the wall, whole processes.\n");
    let file = race.file("by-kubectl").display().to_string();
    let began = Instant::now();
    let apply = race.kubectl(&["apply", "--server-side", "-f", &file])?;
    let look = {
        let plane = plane.clone();
        async move { available(&plane, "by-kubectl", deployments).await.map(|()| began.elapsed()) }
    };
    let there = runtime.spawn(look);
    let wait = ["-n", "by-kubectl", "wait", "--for=condition=Available", "deployment", "--all", "--timeout=600s"];
    let wait = if deployments > 0 { race.kubectl(&wait)? } else { Duration::ZERO };
    let there = runtime.block_on(there)??;
    // It ends with 1 where there are differences, and there are none.
    let diff = race.kubectl(&["diff", "--server-side", "-f", &file])?;
    race.kubectl(&["delete", "namespace", "by-kubectl"])?;

    let (applied, up) = up(&race)?;
    let offline = race.lab(&["preview", "--exit-code"])?;
    let plan = race.lab(&["preview", "--refresh", "--exit-code"])?;

    let line = |what: &str, kubectl: Duration, lab: Duration| {
        let (kubectl, lab) = (kubectl.as_secs_f64(), lab.as_secs_f64());
        println!("| {what} | {kubectl:.2} s | {lab:.2} s | {:.2} |", lab / kubectl);
    };
    println!("| what | kubectl | lab | lab / kubectl |\n|---|--:|--:|--:|");
    line("all applied: `kubectl apply --server-side`; `up` until then", apply, applied);
    line("all ready: `kubectl apply --server-side` until they are; `up`", there, up);
    line("all ready: `kubectl apply --server-side` and `kubectl wait`; `up`", apply + wait, up);
    line("`kubectl diff --server-side`; an empty plan with refresh", diff, plan);
    println!("\nAn empty plan without refresh: {:.2} s.", offline.as_secs_f64());
    Ok(())
}
