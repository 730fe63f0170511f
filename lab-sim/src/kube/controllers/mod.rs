//! Small controllers: what no API server does by itself.
//!
//! They read and write through [`Cluster`] as any client does (lists, creates, status patches), so that they can serve a
//! real API server too. Each round looks at everything, writes what is not yet as it should be, and then waits for a
//! change; a world at rest is not written to.
//!
//! Not modelled: rolling updates pod by pod, probes, images that cannot be pulled, resources that run out, who may
//! reach whom.

pub(super) mod addon;
mod address;
mod certificate;
mod namespace;
mod outside;
mod pod;
mod volume;
mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lab_core::Clock;
use serde_json::{Value, json};
use tokio::sync::watch;

pub(crate) use outside::Outside;

use super::quantity::timestamp;
use super::{Api, WeakApi};

/// A cluster as controllers see it.
pub trait Cluster: Clone + Send + Sync + 'static {
    /// Makes a request as the administrator; returns the status code and the body, or `None` when the cluster is gone.
    fn request(
        &self,
        method: &str,
        target: &str,
        content_type: &str,
        agent: &str,
        body: &Value,
    ) -> impl Future<Output = Option<(u16, Value)>> + Send;

    /// Returns what differs whenever something in the collection at `path` has changed; `None` when that is not known
    /// without a look.
    fn version(&self, _path: &str) -> Option<u64> {
        None
    }

    /// Waits until something may have changed; `false` when the cluster is gone.
    fn changed(&mut self) -> impl Future<Output = bool> + Send;
}

/// How the controllers behave.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The certificate authority of the API server, in PEM: what every namespace's `kube-root-ca.crt` holds.
    pub authority: String,
    /// How long a pod takes from its node to ready.
    pub start: Duration,
    /// How long a volume takes to be provisioned.
    pub provision: Duration,
    /// How long a certificate takes to be issued.
    pub issue: Duration,
    /// The provisioners that exist, by the name in a StorageClass.
    pub provisioners: BTreeSet<String>,
    /// Whether a real controller manager and scheduler do their part, and KWOK that of the kubelets. What is left is what
    /// add-ons do.
    pub beside_real: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        let provisioners = [
            "nfs.csi.k8s.io",
            "k8s-sigs.io/nfs-subdir-external-provisioner",
            "cluster.local/nfs-subdir-external-provisioner",
            "rancher.io/local-path",
        ];
        Settings {
            authority: String::new(),
            start: Duration::from_secs(5),
            provision: Duration::from_secs(2),
            issue: Duration::from_secs(3),
            provisioners: provisioners.map(String::from).into(),
            beside_real: false,
        }
    }
}

/// The embedded API, held so that controllers do not keep it alive.
#[derive(Clone)]
struct Inside {
    api: WeakApi,
    changes: watch::Receiver<u64>,
}

impl Cluster for Inside {
    async fn request(
        &self,
        method: &str,
        target: &str,
        content_type: &str,
        agent: &str,
        body: &Value,
    ) -> Option<(u16, Value)> {
        let api = self.api.upgrade()?;
        Some(api.call_as(method, target, content_type, agent, body))
    }

    fn version(&self, path: &str) -> Option<u64> {
        self.api.upgrade()?.with(|store, _| store.version_of(path))
    }

    async fn changed(&mut self) -> bool {
        self.changes.changed().await.is_ok()
    }
}

impl Api {
    /// Starts the controllers of this cluster. They end when the API is stopped or its last handle goes.
    pub fn start_controllers(&self, settings: Settings) {
        let inside = Inside { api: self.weak(), changes: self.changes() };
        let (clock, stopped) = (self.clock().clone(), self.stopped());
        tokio::spawn(async move {
            tokio::select! {
                () = run(inside, clock, settings) => {}
                () = stopped => {}
            }
        });
    }
}

/// Runs the controllers of `cluster` until it is gone.
pub async fn run<C: Cluster>(mut cluster: C, clock: Clock, settings: Settings) {
    let mut memory = Memory::default();
    loop {
        let mut round = Round {
            cluster: cluster.clone(),
            settings: &settings,
            now: clock.now(),
            seen: BTreeMap::new(),
            memory: &mut memory,
            wake: None,
            wrote: false,
        };
        round.act().await;
        let (wake, wrote) = (round.wake, round.wrote);
        if wrote {
            // What was written may call for more; a breath in between, so that others get their turn. A look costs this
            // machine the same on a clock that runs fast.
            clock.sleep(clock.patience(Duration::from_millis(100))).await;
            continue;
        }
        tokio::select! {
            alive = cluster.changed() => {
                if !alive {
                    return;
                }
                // Changes come in bursts.
                clock.sleep(clock.patience(Duration::from_millis(100))).await;
            }
            () = sleep(&clock, wake) => {}
        }
    }
}

async fn sleep(clock: &Clock, wake: Option<Duration>) {
    match wake {
        Some(pause) => clock.sleep(pause).await,
        None => std::future::pending().await,
    }
}

/// What the controllers remember between rounds; losing it costs time, not correctness.
#[derive(Default)]
struct Memory {
    since: BTreeMap<String, SystemTime>,
    told: BTreeSet<String>,
    lists: BTreeMap<&'static str, (Option<u64>, Arc<Vec<Value>>)>,
}

const LISTS: &[&str] = &[
    "/api/v1/namespaces",
    "/api/v1/nodes",
    "/api/v1/pods",
    "/api/v1/services",
    "/api/v1/secrets",
    "/api/v1/configmaps",
    "/api/v1/serviceaccounts",
    "/api/v1/persistentvolumes",
    "/api/v1/persistentvolumeclaims",
    "/apis/apps/v1/deployments",
    "/apis/apps/v1/replicasets",
    "/apis/apps/v1/statefulsets",
    "/apis/apps/v1/daemonsets",
    "/apis/batch/v1/jobs",
    "/apis/discovery.k8s.io/v1/endpointslices",
    "/apis/networking.k8s.io/v1/ingresses",
    "/apis/networking.k8s.io/v1/ingressclasses",
    "/apis/policy/v1/poddisruptionbudgets",
    "/apis/storage.k8s.io/v1/storageclasses",
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "/apis/metallb.io/v1beta1/ipaddresspools",
    "/apis/metallb.io/v1beta1/l2advertisements",
    "/apis/cert-manager.io/v1/issuers",
    "/apis/cert-manager.io/v1/clusterissuers",
    "/apis/cert-manager.io/v1/certificates",
];

/// One look at the cluster, and the writes that follow from it.
struct Round<'a, C> {
    cluster: C,
    settings: &'a Settings,
    now: SystemTime,
    seen: BTreeMap<&'static str, Arc<Vec<Value>>>,
    memory: &'a mut Memory,
    wake: Option<Duration>,
    wrote: bool,
}

impl<C: Cluster> Round<'_, C> {
    async fn act(&mut self) {
        for path in LISTS {
            // Asked for first: a change in between makes the next round look again.
            let version = self.cluster.version(path);
            if let Some((known, items)) = self.memory.lists.get(path)
                && version.is_some()
                && *known == version
            {
                self.seen.insert(path, items.clone());
                continue;
            }
            let reply = self.cluster.request("GET", path, "", AGENT, &Value::Null).await;
            let items = match reply {
                Some((200, mut list)) => list["items"].take().as_array().cloned().unwrap_or_default(),
                // The kind is not installed, or the cluster is going.
                _ => Vec::new(),
            };
            let items = Arc::new(items);
            self.memory.lists.insert(path, (version, items.clone()));
            self.seen.insert(path, items);
        }
        if !self.settings.beside_real {
            self.namespaces().await;
            self.workloads().await;
        }
        self.volumes().await;
        if !self.settings.beside_real {
            self.pods().await;
        }
        self.addons().await;
        self.addresses().await;
        self.certificates().await;
    }

    fn all(&self, path: &str) -> Arc<Vec<Value>> {
        self.seen.get(path).cloned().unwrap_or_default()
    }

    fn find(&self, path: &str, namespace: &str, name: &str) -> Option<Value> {
        let found = |object: &&Value| text(object, "namespace") == namespace && text(object, "name") == name;
        self.seen.get(path)?.iter().find(found).cloned()
    }

    /// Returns whether `delay` has passed since this was first asked about `key`; if not, the next round is in time.
    fn after(&mut self, key: &str, delay: Duration) -> bool {
        let since = *self.memory.since.entry(key.to_string()).or_insert(self.now);
        let passed = self.now.duration_since(since).unwrap_or_default();
        if passed >= delay {
            return true;
        }
        let left = delay - passed;
        self.wake = Some(self.wake.map_or(left, |wake| wake.min(left)));
        false
    }

    fn timestamp(&self) -> String {
        timestamp(self.now)
    }

    async fn send(
        &mut self,
        method: &str,
        target: &str,
        content_type: &str,
        agent: &str,
        body: &Value,
    ) -> Option<Value> {
        let (code, body) = self.cluster.request(method, target, content_type, agent, body).await?;
        let taken = (200..300).contains(&code);
        self.wrote |= taken;
        taken.then_some(body)
    }

    /// Creates an object in a collection such as `/api/v1/pods`.
    async fn create(&mut self, path: &str, body: &Value, agent: &str) -> Option<Value> {
        let target = collection(path, text(body, "namespace"));
        self.send("POST", &target, "application/json", agent, body).await
    }

    /// Merges into an object, unless it holds all of `patch` already.
    async fn merge(&mut self, path: &str, object: &Value, patch: &Value, agent: &str) {
        if !contains(object, patch) {
            self.send("PATCH", &at(path, object), "application/merge-patch+json", agent, patch).await;
        }
    }

    /// Merges into the status of an object, unless it holds all of `status` already.
    async fn status(&mut self, path: &str, object: &Value, status: &Value, agent: &str) {
        let patch = json!({"status": status});
        if !contains(object, &patch) {
            let target = format!("{}/status", at(path, object));
            self.send("PATCH", &target, "application/merge-patch+json", agent, &patch).await;
        }
    }

    async fn delete(&mut self, path: &str, object: &Value, options: &Value) {
        let mut options = options.clone();
        options["preconditions"] = json!({"uid": object["metadata"]["uid"]});
        self.send("DELETE", &at(path, object), "application/json", AGENT, &options).await;
    }

    /// Records an event about an object, once.
    async fn event(&mut self, object: &Value, kind: &str, word: &str, reason: &str, message: &str, source: &str) {
        let key = format!("{}/{reason}/{message}", text(object, "uid"));
        if !self.memory.told.insert(key.clone()) {
            return;
        }
        let namespace = if text(object, "namespace").is_empty() { "default" } else { text(object, "namespace") };
        let now = self.timestamp();
        let body = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": format!("{}.{}", text(object, "name"), hash(&key)), "namespace": namespace},
            "involvedObject": {
                "kind": kind, "namespace": namespace, "name": text(object, "name"), "uid": text(object, "uid"),
                "apiVersion": object.get("apiVersion").cloned().unwrap_or(json!("v1")),
            },
            "type": word, "reason": reason, "message": message, "count": 1,
            "firstTimestamp": now, "lastTimestamp": now, "source": {"component": source},
        });
        self.create("/api/v1/events", &body, source).await;
    }
}

const AGENT: &str = "kube-controller-manager";

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

fn leaving(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// Returns the collection of a namespace: `/api/v1/pods` and `media` give `/api/v1/namespaces/media/pods`.
fn collection(path: &str, namespace: &str) -> String {
    match path.rsplit_once('/') {
        Some((base, plural)) if !namespace.is_empty() => format!("{base}/namespaces/{namespace}/{plural}"),
        _ => path.to_string(),
    }
}

fn at(path: &str, object: &Value) -> String {
    format!("{}/{}", collection(path, text(object, "namespace")), text(object, "name"))
}

/// Returns whether `object` has all that `part` says; lists are compared whole, null means absent.
fn contains(object: &Value, part: &Value) -> bool {
    match part {
        Value::Object(part) => {
            part.iter().all(|(name, value)| contains(object.get(name).unwrap_or(&Value::Null), value))
        }
        other => object == other,
    }
}

/// Returns ten letters that stand for a text.
fn hash(text: &str) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    // FNV-1a: stable over runs and versions, which the standard library's hasher is not.
    let mut state = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (0..10)
        .map(|_| {
            let letter = LETTERS[(state % LETTERS.len() as u64) as usize];
            state /= LETTERS.len() as u64;
            char::from(letter)
        })
        .collect()
}

/// Returns the reference by which `owner` owns what is made for it.
fn owned_by(owner: &Value, api_version: &str, kind: &str) -> Value {
    json!([{
        "apiVersion": api_version, "kind": kind, "name": text(owner, "name"), "uid": text(owner, "uid"),
        "controller": true, "blockOwnerDeletion": true,
    }])
}

fn is_owned_by(object: &Value, owner: &Value) -> bool {
    let references = object["metadata"]["ownerReferences"].as_array();
    references.into_iter().flatten().any(|one| one["uid"] == owner["metadata"]["uid"] && one["controller"] == true)
}

/// Returns a condition, with the time of the one before where nothing changed.
fn condition(object: &Value, name: &str, status: bool, reason: &str, message: &str, now: &str) -> Value {
    let word = if status { "True" } else { "False" };
    let before = object["status"]["conditions"].as_array().into_iter().flatten().find(|one| one["type"] == name);
    let since = before.filter(|one| one["status"] == word).map(|one| one["lastTransitionTime"].clone());
    json!({
        "type": name, "status": word, "reason": reason, "message": message,
        "lastTransitionTime": since.unwrap_or_else(|| now.into()),
    })
}
