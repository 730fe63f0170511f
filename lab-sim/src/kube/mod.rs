//! An embedded stand-in for the Kubernetes API: one cluster in this process, spoken to over HTTPS.
//!
//! Small and honest: it serves the kinds that the examples declare the way a real API server does (discovery,
//! server-side apply with field ownership, watches, custom resources, finalizers and owners), and what it does not model
//! it answers with 501 and a name. Not here: admission webhooks and CEL rules (stored, never evaluated), RBAC beyond
//! `system:masters`, conversion between versions, the subresources of running pods. Where it differs from a real API
//! server in anything else, that is a bug of the stand-in.

pub mod controllers;
mod decode;
mod default;
mod discovery;
mod fault;
mod fields;
pub(crate) mod front;
mod kinds;
mod lifecycle;
mod managers;
mod patch;
mod prepare;
mod quantity;
mod refusal;
mod request;
mod schema;
mod select;
mod service;
mod store;
mod validate;
mod write;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use lab_core::Clock;
use serde_json::{Value, json};
use tokio::sync::watch;

pub use fault::{Fault, Faults};
pub use request::{Call, Identity};
pub use service::{Dropped, Reply};

use store::Store;

/// How a cluster's API is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// The clock: timestamps, and how fast what takes time goes.
    pub clock: Clock,
    /// The version it claims, `v1.34.1`.
    pub version: String,
    /// Where uids, generated names and allotted addresses come from: the same seed and requests, the same values.
    pub seed: u64,
    /// How long a new definition takes to be served, and any other self-driven change, on the clock.
    pub pace: Duration,
}

impl Options {
    /// Returns the options of a cluster that claims `version`, on `clock`.
    pub fn new(version: impl Into<String>, clock: Clock) -> Options {
        Options { clock, version: version.into(), seed: 1, pace: Duration::from_secs(1) }
    }
}

/// The API of one cluster. Clones are handles of the same cluster; it ends with the last of them.
#[derive(Clone)]
pub struct Api {
    inner: Arc<Inner>,
}

struct Inner {
    store: Mutex<Store>,
    options: Options,
    faults: RwLock<Option<Arc<Faults>>>,
    changes: watch::Sender<u64>,
    stopped: watch::Sender<bool>,
    ticking: Mutex<bool>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stopped.send_replace(true);
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

/// The API, held without keeping it alive.
#[derive(Clone)]
pub(crate) struct WeakApi(Weak<Inner>);

impl WeakApi {
    pub(crate) fn upgrade(&self) -> Option<Api> {
        self.0.upgrade().map(|inner| Api { inner })
    }
}

impl Api {
    /// Returns the API of a new cluster: the four system namespaces and nothing else. Must be called in a tokio runtime.
    pub fn new(options: Options) -> Api {
        let store = Store::new(options.seed, options.clock.now());
        let changes = watch::Sender::new(store.revision);
        let inner = Inner {
            store: Mutex::new(store),
            options,
            faults: RwLock::new(None),
            changes,
            stopped: watch::Sender::new(false),
            ticking: Mutex::new(false),
        };
        Api { inner: Arc::new(inner) }
    }

    /// Decides from now on what goes wrong, request by request; `None` of the requests that controllers make inside.
    pub fn inject(&self, faults: Arc<Faults>) {
        *self.inner.faults.write().unwrap_or_else(PoisonError::into_inner) = Some(faults);
    }

    /// Returns the clock.
    pub fn clock(&self) -> &Clock {
        &self.inner.options.clock
    }

    /// Returns the version that the cluster claims.
    pub fn version(&self) -> &str {
        &self.inner.options.version
    }

    /// Makes a request as the administrator, without faults; returns the status code and the body (null for a body
    /// that is not JSON). Not for watches.
    pub fn call(&self, method: &str, target: &str, body: &Value) -> (u16, Value) {
        self.call_as(method, target, if method == "PATCH" { APPLY } else { "application/json" }, "lab-sim", body)
    }

    /// Makes a request like [`Api::call`], with a content type and a user agent.
    pub fn call_as(&self, method: &str, target: &str, content_type: &str, agent: &str, body: &Value) -> (u16, Value) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let call = Call {
            method: method.into(),
            path: path.into(),
            query: query.into(),
            content_type: content_type.into(),
            accept: "application/json".into(),
            agent: agent.into(),
            body: if body.is_null() { Vec::new() } else { body.to_string().into_bytes() },
        };
        let identity = Identity::administrator();
        match self.with(|store, version| store.answer(&call, Some(&identity), version)) {
            Ok(request::Answer::Json { code, body, .. }) => (code, body),
            Ok(request::Answer::Text(code, _)) => (code, Value::Null),
            Ok(request::Answer::Watch(_)) => (501, Value::Null),
            Err(refusal) => (refusal.code, refusal.body()),
        }
    }

    /// Forgets the events of the past, so that a watch from an older version is refused with 410.
    pub fn compact(&self) {
        self.with(|store, _| store.compact());
    }

    /// Returns every object, whole, in a fixed order.
    pub fn objects(&self) -> Vec<Value> {
        self.with(|store, _| store.everything().map(|(_, object)| object.clone()).collect())
    }

    /// Returns what two worlds are compared by: every object without what differs from run to run (uids, versions,
    /// times, allotted cluster addresses and ports, issued keys), except what comes and goes by itself: events, pods,
    /// their endpoints, provisioned volumes.
    pub fn snapshot(&self) -> Value {
        comparable(&self.objects())
    }

    /// Returns a future that is ready once the API is stopped: by [`Api::stop`] or with its last handle.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stopped = self.inner.stopped.subscribe();
        async move {
            // An error means that the sender is gone, and the API with it.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        }
    }

    /// Ends open connections, watches and controllers; the objects stay readable through this handle.
    pub fn stop(&self) {
        self.inner.stopped.send_replace(true);
    }

    pub(crate) fn weak(&self) -> WeakApi {
        WeakApi(Arc::downgrade(&self.inner))
    }

    /// Returns what changes whenever an object does: the latest revision.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    pub(crate) fn fault(&self, method: &str, path: &str) -> Fault {
        let faults = self.inner.faults.read().unwrap_or_else(PoisonError::into_inner).clone();
        faults.map_or(Fault::None, |faults| faults(method, path))
    }

    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Store, &str) -> T) -> T {
        let mut store = self.inner.store.lock().unwrap_or_else(PoisonError::into_inner);
        store.now = self.inner.options.clock.now();
        let result = act(&mut store, &self.inner.options.version);
        let (revision, unsettled) = (store.revision, store.unsettled);
        drop(store);
        self.announce(revision);
        if unsettled {
            self.tick_later();
        }
        result
    }

    fn announce(&self, revision: u64) {
        self.inner.changes.send_if_modified(|last| std::mem::replace(last, revision) != revision);
    }

    // One task at a time settles what is due, and ends when nothing is.
    fn tick_later(&self) {
        let mut ticking = self.inner.ticking.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *ticking, true) {
            return;
        }
        let (weak, clock, stopped) = (self.weak(), self.clock().clone(), self.stopped());
        let pace = self.inner.options.pace;
        tokio::spawn(async move {
            let rounds = async {
                loop {
                    clock.sleep(pace).await;
                    let Some(api) = weak.upgrade() else { return };
                    // Held while looking, so that a write in between starts the next round.
                    let mut ticking = api.inner.ticking.lock().unwrap_or_else(PoisonError::into_inner);
                    let mut store = api.inner.store.lock().unwrap_or_else(PoisonError::into_inner);
                    store.now = clock.now();
                    let more = store.tick();
                    *ticking = more;
                    let revision = store.revision;
                    drop(store);
                    api.announce(revision);
                    if !more {
                        return;
                    }
                }
            };
            tokio::select! {
                () = rounds => {}
                () = stopped => {}
            }
        });
    }
}

const APPLY: &str = "application/apply-patch+yaml";

/// Returns what two worlds are compared by; see [`Api::snapshot`].
pub(crate) fn comparable(objects: &[Value]) -> Value {
    let passing = |object: &Value| {
        let provisioned = object["kind"] == "PersistentVolume"
            && object["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"].is_string();
        let kinds = ["Event", "Pod", "EndpointSlice", "Endpoints", "Lease", "IPAddress", "CSINode"];
        provisioned || kinds.contains(&object["kind"].as_str().unwrap_or_default())
    };
    json!(objects.iter().filter(|object| !passing(object)).map(stable).collect::<Vec<_>>())
}

fn stable(object: &Value) -> Value {
    let made_up = controllers::addon::is_made_up(object);
    let mut object = object.clone();
    let volatile = [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "managedFields",
        "generation",
        "deletionTimestamp",
        "time",
        "lastTransitionTime",
        "lastUpdateTime",
        "startTime",
        "completionTime",
        "clusterIP",
        "clusterIPs",
        "nodePort",
        "observedGeneration",
        "batch.kubernetes.io/controller-uid",
        "controller-uid",
        "volumeName",
        "notBefore",
        "notAfter",
        "renewalTime",
    ];
    fn clean(value: &mut Value, volatile: &[&str]) {
        match value {
            Value::Object(map) => {
                map.retain(|name, _| !volatile.contains(&name.as_str()));
                map.values_mut().for_each(|value| clean(value, volatile));
            }
            Value::Array(items) => items.iter_mut().for_each(|item| clean(item, volatile)),
            _ => {}
        }
    }
    clean(&mut object, &volatile);
    if made_up {
        for value in object["data"].as_object_mut().into_iter().flat_map(|data| data.values_mut()) {
            *value = "issued".into();
        }
    }
    if controllers::addon::is_injected(&object) {
        for hook in object["webhooks"].as_array_mut().into_iter().flatten() {
            if let Some(bundle) = hook.pointer_mut("/clientConfig/caBundle") {
                *bundle = "injected".into();
            }
        }
        if let Some(bundle) = object.pointer_mut("/spec/conversion/webhook/clientConfig/caBundle") {
            *bundle = "injected".into();
        }
    }
    object
}
