//! A cluster, reached by the client over TLS on loopback, and an engine that is just enough to drive one object. The
//! cluster is simulated, or a real API server where there is one: what is tested on one is tested on both.
#![allow(dead_code, reason = "each test file uses its part")]

use lab_core::{Clock, Data, Error, Found, Id, Link, Made, Op, Provider as _, Resource, Secret, Step, Warnings, Why};
use lab_kube::{Client, Kubernetes, Object, ObjectOutputs};
use lab_sim::kube::controllers::Settings;
use lab_sim::kube::{Api, Fault, Faults, Options};
use lab_sim::{Assets, ControlPlane};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

/// Defines tests that run on the stand-in, and once more on a real API server.
macro_rules! on_both {
    ($($(#[$meta:meta])* async fn $name:ident($cluster:ident: $kind:expr) $body:block)*) => {
        mod on_the_stand_in {
            use super::*;
            $($(#[$meta])* #[tokio::test] async fn $name() {
                let $cluster = Cluster::stand_in($kind).await;
                $body
            })*
        }
        mod on_a_real_one {
            use super::*;
            $($(#[$meta])* #[tokio::test] async fn $name() {
                let Some($cluster) = Cluster::real($kind, stringify!($name)).await else { return };
                $body
            })*
        }
    };
}
pub(crate) use on_both;

/// What there is in the cluster beside its API.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inside {
    /// Nothing: what is written stays as it is.
    Nothing,
    /// Controllers, and a node that pods run on.
    Everything,
}

enum Server {
    StandIn(Api),
    Real(Arc<ControlPlane>),
}

pub(crate) struct Cluster {
    server: Server,
    pub(crate) kubeconfig: String,
    pub(crate) client: Client,
    pub(crate) clock: Clock,
    mutations: Arc<Mutex<Vec<String>>>,
    reads: Arc<Mutex<Vec<String>>>,
    refused: Arc<AtomicBool>,
    lost: Arc<AtomicUsize>,
}

impl Cluster {
    pub(crate) async fn stand_in(inside: Inside) -> Cluster {
        let clock = Clock::scaled(200);
        let api = Api::new(Options::new("v1.34.1", clock.clone()));
        if inside == Inside::Everything {
            api.start_controllers(Settings::default());
        }
        Cluster::of(Server::StandIn(api), clock, inside).await
    }

    /// Returns a cluster with a real API server; without one says so past the test runner, which keeps what passes quiet.
    pub(crate) async fn real(inside: Inside, test: &str) -> Option<Cluster> {
        let complete = |assets: &Assets| inside == Inside::Nothing || assets.are_complete();
        let Some(assets) = Assets::find().unwrap().filter(complete) else {
            let how = "tests/control-plane/build DIRECTORY makes one; then set KUBEBUILDER_ASSETS=DIRECTORY";
            let _ = writeln!(std::io::stderr(), "SKIPPED {test}: there is no real control plane. {how}");
            return None;
        };
        let plane = match inside {
            Inside::Nothing => ControlPlane::start_api(&assets).await,
            Inside::Everything => ControlPlane::start(&assets).await,
        };
        Some(Cluster::of(Server::Real(Arc::new(plane.unwrap())), Clock::system(), inside).await)
    }

    async fn of(server: Server, clock: Clock, inside: Inside) -> Cluster {
        let (mutations, lost) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (reads, refused) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (log, losing) = (mutations.clone(), lost.clone());
        let (read, refusing) = (reads.clone(), refused.clone());
        let faults: Arc<Faults> = Arc::new(move |method: &str, path: &str| {
            if method == "GET" {
                read.lock().unwrap().push(path.to_owned());
                return if refusing.load(Ordering::SeqCst) { Fault::DropBefore } else { Fault::None };
            }
            log.lock().unwrap().push(format!("{method} {path}"));
            let lose = losing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
            if lose { Fault::DropAfter } else { Fault::None }
        });
        let (kubeconfig, tls) = trust();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let kubeconfig = kubeconfig.replace("PORT", &listener.local_addr().unwrap().port().to_string());
        match &server {
            Server::StandIn(api) => {
                api.inject(faults);
                tokio::spawn(api.clone().serve(listener, tls));
            }
            Server::Real(plane) => {
                tokio::spawn(plane.clone().serve(listener, tls, faults, clock.clone()));
            }
        }
        let provider = Kubernetes::stated("test", Secret::new(kubeconfig.clone()));
        let client = provider.connect(Link::direct().on(clock.clone())).await.unwrap();
        let cluster = Cluster { server, kubeconfig, client, clock, mutations, reads, refused, lost };
        if inside == Inside::Everything {
            cluster.node();
        }
        cluster
    }

    fn ask(&self, method: &str, path: &str, content: &str, body: &Value) -> (u16, Value) {
        let plane = match &self.server {
            Server::StandIn(api) => return api.call_as(method, path, content, "kubectl", body),
            Server::Real(plane) => plane,
        };
        let sent = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let ask = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(plane.request(method, path, content, sent)).unwrap()
        };
        let (code, answer) = std::thread::scope(|scope| scope.spawn(ask).join().unwrap());
        (code, serde_json::from_slice(&answer).unwrap_or_default())
    }

    /// Returns every object there is, without what differs from run to run.
    pub(crate) fn snapshot(&self) -> Vec<Value> {
        match &self.server {
            Server::StandIn(api) => api.snapshot().as_array().unwrap().clone(),
            Server::Real(_) => panic!("worlds are compared on the stand-in"),
        }
    }

    /// Loses the reply of the next call that changes something.
    pub(crate) fn lose_reply(&self) {
        self.lost.store(1, Ordering::SeqCst);
    }

    /// Returns the calls since the last time that could have changed something.
    pub(crate) fn mutations(&self) -> Vec<String> {
        std::mem::take(&mut *self.mutations.lock().unwrap())
    }

    /// Returns the paths that were read since the last time; a watch is one of its collection.
    pub(crate) fn reads(&self) -> Vec<String> {
        std::mem::take(&mut *self.reads.lock().unwrap())
    }

    /// Drops the connections on which something is read from now on, or no more.
    pub(crate) fn refuse_reads(&self, refuse: bool) {
        self.refused.store(refuse, Ordering::SeqCst);
    }

    /// Does something of which the server tells nobody, and which it has forgotten afterwards. On one thread.
    pub(crate) fn unseen(&self, does: impl FnOnce()) {
        let Server::StandIn(api) = &self.server else { panic!("a real server forgets after minutes") };
        does();
        api.compact();
    }

    /// Makes a request as somebody else.
    pub(crate) fn other(&self, method: &str, path: &str, body: Value) -> Value {
        let content = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let named = if method == "DELETE" { path.to_owned() } else { format!("{path}?fieldManager=kubectl") };
        let (code, answer) = self.ask(method, &named, content, &body);
        assert!(code < 300, "{method} {path}: {answer:#}");
        answer
    }

    fn node(&self) {
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let capacity = json!({"cpu": "8", "memory": "16Gi", "pods": "110"});
        self.other("POST", "/api/v1/nodes", json!({"metadata": {"name": "worker-1"}}));
        let status = json!({"status": {"conditions": ready, "capacity": capacity, "allocatable": capacity}});
        self.other("PATCH", "/api/v1/nodes/worker-1/status", status);
    }

    pub(crate) fn read(&self, path: &str) -> Option<Value> {
        let (code, answer) = self.ask("GET", path, "", &Value::Null);
        (code == 200).then_some(answer)
    }

    pub(crate) fn op<K: Data>(&self, inputs: &Object<K>, exists: bool, cursor: Option<Value>) -> Op<Object<K>> {
        Op {
            mark: "op-1".into(),
            id: Resource::<Kubernetes>::id(inputs),
            inputs: Some(inputs.clone()),
            exists,
            deleting: false,
            cursor,
            why: Why::Declared,
            now: self.clock.now(),
            seed: 1,
            warnings: Warnings::default(),
        }
    }

    pub(crate) async fn find<K: Data>(&self, inputs: &Object<K>) -> Result<Found<ObjectOutputs>, Error> {
        Object::find(&self.client, &self.op(inputs, true, None)).await
    }

    /// Applies step by step until the object is ready; returns it and what was waited for.
    pub(crate) async fn apply<K: Data>(
        &self,
        object: &Object<K>,
        exists: bool,
    ) -> Result<(Made<ObjectOutputs>, Vec<String>), Error> {
        let (mut cursor, mut whys) = (None, Vec::new());
        loop {
            match object.apply(&self.client, &self.op(object, exists, cursor)).await? {
                Step::Done(made) => return Ok((made, whys)),
                Step::Next { cursor: next, why, pause, .. } => {
                    cursor = Some(next);
                    whys.push(why);
                    self.clock.sleep(pause).await;
                }
            }
        }
    }

    pub(crate) async fn delete_step<K: Data>(&self, inputs: &Object<K>, cursor: Option<Value>) -> Step<()> {
        let op = Op { deleting: true, ..self.op(inputs, true, cursor) };
        Object::delete(&self.client, &op).await.unwrap()
    }
}

pub(crate) fn next<O>(step: Step<O>) -> (Value, String) {
    match step {
        Step::Next { cursor, why, .. } => (cursor, why),
        Step::Done(made) => panic!("done: {}", made.id),
    }
}

pub(crate) fn id(text: &str) -> Id {
    text.into()
}

/// A kubeconfig for an administrator, and the server's side of it.
fn trust() -> (String, Arc<rustls::ServerConfig>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let server = KeyPair::generate().unwrap();
    let served = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&server, &authority).unwrap();
    let client = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "admin");
    params.distinguished_name.push(DnType::OrganizationName, "system:masters");
    let shown = params.signed_by(&client, &authority).unwrap();

    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(server.serialize_der()));
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![served.der().clone()], key)
        .unwrap();

    use base64::Engine as _;
    let encode = |pem: String| base64::engine::general_purpose::STANDARD.encode(pem);
    let cluster = json!({"server": "https://127.0.0.1:PORT", "certificate-authority-data": encode(authority.pem())});
    let user =
        json!({"client-certificate-data": encode(shown.pem()), "client-key-data": encode(client.serialize_pem())});
    let config = json!({"current-context": "c", "clusters": [{"name": "k", "cluster": cluster}],
        "users": [{"name": "u", "user": user}], "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}]});
    (config.to_string(), Arc::new(tls))
}
