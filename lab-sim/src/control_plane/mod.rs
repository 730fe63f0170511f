//! A real Kubernetes control plane as processes of this machine, where its binaries are present.
//!
//! `tests/control-plane/build` makes them; `KUBEBUILDER_ASSETS` says where they are, the convention of `setup-envtest`.
//! An API server with its etcd is enough to start; the controllers are started when they are there.

mod connection;
mod credentials;
mod inside;
mod owned;
mod process;

use std::env;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use lab_core::Clock;
use rustls::ClientConfig;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::kube::{self, front::Front};
pub(crate) use connection::Connection;
use credentials::{Credentials, FRONT, client};
use owned::Owned;
use process::Process;

/// The variable that names the directory of the binaries.
pub const ASSETS_VARIABLE: &str = "KUBEBUILDER_ASSETS";

/// How long a server may take until it is ready, in wall time: ten times what a small machine was seen to need.
const READY: Duration = Duration::from_secs(60);
/// How often everything is begun again because somebody else took a port that was free a moment ago.
const ATTEMPTS: usize = 3;
/// What KWOK is told about the lives of nodes and pods.
const STAGES: &str = "kwok-stages.yaml";
/// The range Kubernetes gives its own services by default; the API is its first address.
const SERVICES: &str = "10.96.0.0/12";

/// The directory with the binaries of a control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assets {
    directory: PathBuf,
}

impl Assets {
    /// Returns the binaries that `KUBEBUILDER_ASSETS` names, or `None` when it is not set.
    ///
    /// # Errors
    /// Those of [`Assets::at`].
    pub fn find() -> io::Result<Option<Assets>> {
        env::var_os(ASSETS_VARIABLE).filter(|path| !path.is_empty()).map(Assets::at).transpose()
    }

    /// Returns the binaries in `directory`.
    ///
    /// # Errors
    /// When `etcd` or `kube-apiserver` is not there.
    pub fn at(directory: impl Into<PathBuf>) -> io::Result<Assets> {
        let assets = Assets { directory: directory.into() };
        for name in ["etcd", "kube-apiserver"] {
            if !assets.has(name) {
                let message = format!(
                    "{} holds no {name}: build a control plane with tests/control-plane/build, or unset {ASSETS_VARIABLE}",
                    assets.directory.display()
                );
                return Err(io::Error::new(io::ErrorKind::NotFound, message));
            }
        }
        Ok(assets)
    }

    /// Returns where the binaries are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns whether the binary is there.
    pub fn has(&self, name: &str) -> bool {
        self.path(name).is_file()
    }

    /// Returns whether a whole cluster can be run with them: controllers, a scheduler and simulated kubelets, too.
    pub fn are_complete(&self) -> bool {
        ["kube-controller-manager", "kube-scheduler", "kwok", STAGES].iter().all(|name| self.has(name))
    }

    /// Returns where the binary is, or would be.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Which of the processes are started.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Api,
    Whole,
}

/// The cluster that a control plane is to be one of, by what its machines know of it.
#[derive(Clone, Debug)]
pub(crate) struct Membership {
    /// The certificate and the key of its authority, as PEM: whom its clients trust, and what it signs with.
    pub(crate) authority: (String, String),
    /// The RSA key that its service accounts' tokens are signed with, as PEM; one of this control plane's own if none.
    pub(crate) service_accounts: Option<String>,
    /// Where those tokens are from.
    pub(crate) issuer: String,
    /// The range of its services' addresses.
    pub(crate) services: String,
    /// The address that its own service leads to.
    pub(crate) address: IpAddr,
}

/// A running control plane on loopback. Its processes and its files end with it.
pub struct ControlPlane {
    address: SocketAddr,
    credentials: Credentials,
    client: Arc<ClientConfig>,
    // In the order of their start; they end in the opposite one, before the directory that they write to goes.
    processes: Vec<Process>,
    inside: JoinHandle<()>,
    directory: Owned,
}

impl fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlPlane").field("address", &self.address).finish_non_exhaustive()
    }
}

impl ControlPlane {
    /// Starts etcd, the API server and, where they are, the controllers, the scheduler and KWOK, which makes pods say that
    /// they run; returns when the API is ready.
    ///
    /// # Errors
    /// When a process cannot be started, ends, or is not ready within a minute; the message carries the end of its log.
    pub async fn start(assets: &Assets) -> io::Result<ControlPlane> {
        ControlPlane::start_in(assets, Scope::Whole, None).await
    }

    /// Starts etcd and the API server alone: nothing acts on what is written there.
    ///
    /// # Errors
    /// Those of [`ControlPlane::start`].
    pub async fn start_api(assets: &Assets) -> io::Result<ControlPlane> {
        ControlPlane::start_in(assets, Scope::Api, None).await
    }

    /// Starts the control plane of a cluster.
    pub(crate) async fn start_of(assets: &Assets, cluster: &Membership) -> io::Result<ControlPlane> {
        ControlPlane::start_in(assets, Scope::Whole, Some(cluster)).await
    }

    async fn start_in(assets: &Assets, scope: Scope, cluster: Option<&Membership>) -> io::Result<ControlPlane> {
        let mut attempt = 1;
        loop {
            match ControlPlane::attempt(assets, scope, cluster).await {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempt < ATTEMPTS => attempt += 1,
                other => return other,
            }
        }
    }

    /// Returns where the API server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the PEM of the authority that clients trust.
    pub fn authority(&self) -> &str {
        &self.credentials.authority.0
    }

    /// Returns the administrator's certificate and key as PEM.
    pub fn administrator(&self) -> (&str, &str) {
        (&self.credentials.administrator.0, &self.credentials.administrator.1)
    }

    /// Returns the administrator's kubeconfig.
    pub fn kubeconfig(&self) -> String {
        self.kubeconfig_with(&self.credentials.administrator)
    }

    /// Returns an administrator's kubeconfig whose client certificate expires at `end`.
    ///
    /// # Errors
    /// When no such certificate can be made.
    pub fn kubeconfig_until(&self, end: SystemTime) -> io::Result<String> {
        let pair = self.credentials.administrator_until(end).map_err(io::Error::other)?;
        Ok(self.kubeconfig_with(&pair))
    }

    fn kubeconfig_with(&self, (certificate, key): &(String, String)) -> String {
        use base64::Engine as _;
        let encode = |pem: &str| base64::engine::general_purpose::STANDARD.encode(pem);
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: control-plane\nclusters:\n- name: control-plane\n  cluster:\n    \
             server: https://{}\n    certificate-authority-data: {}\nusers:\n- name: admin\n  user:\n    \
             client-certificate-data: {}\n    client-key-data: {}\ncontexts:\n- name: control-plane\n  context:\n    \
             cluster: control-plane\n    user: admin\n",
            self.address,
            encode(self.authority()),
            encode(certificate),
            encode(key)
        )
    }

    /// Shows the API server at `listener`, too: under another certificate, to the clients that `tls` lets in, and with
    /// faults. Ends when the returned future is dropped; connections that are open then end by themselves.
    ///
    /// # Errors
    /// Those of the listener.
    pub async fn serve(
        self: Arc<ControlPlane>,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        faults: Arc<kube::Faults>,
        clock: Clock,
    ) -> io::Result<()> {
        let front = Arc::new(Front::new(self, faults, clock)?);
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await?;
            while connections.try_join_next().is_some() {}
            let (front, tls) = (front.clone(), tls.clone());
            connections.spawn(async move { drop(front.serve_stream(stream, tls).await) });
        }
    }

    /// Returns a connection of the administrator.
    pub(crate) fn connection(&self) -> Connection {
        Connection::new(self.address, &self.client)
    }

    /// Returns a connection of who may say for whom it speaks, in the headers `X-Remote-User` and `X-Remote-Group`.
    pub(crate) fn front(&self) -> io::Result<Connection> {
        Ok(Connection::new(self.address, client(self.authority(), &self.credentials.front)?.as_ref()))
    }

    /// Returns every object there is, whole, kind by kind.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn objects(&self) -> io::Result<Vec<Value>> {
        let groups = self.json("/apis").await?;
        let preferred = groups["groups"].as_array().into_iter().flatten();
        let preferred = preferred.filter_map(|group| group["preferredVersion"]["groupVersion"].as_str());
        let mut objects = Vec::new();
        for version in std::iter::once("v1").chain(preferred) {
            let root = if version == "v1" { "/api/v1".to_owned() } else { format!("/apis/{version}") };
            let kinds = self.json(&root).await?;
            for kind in kinds["resources"].as_array().into_iter().flatten() {
                let name = kind["name"].as_str().unwrap_or_default();
                let listed = kind["verbs"].as_array().is_some_and(|verbs| verbs.contains(&"list".into()));
                if !listed || name.contains('/') {
                    continue;
                }
                let mut list = self.json(&format!("{root}/{name}")).await?;
                for mut object in list["items"].take().as_array().cloned().unwrap_or_default() {
                    object["apiVersion"] = version.into();
                    object["kind"] = kind["kind"].clone();
                    objects.push(object);
                }
            }
        }
        Ok(objects)
    }

    async fn json(&self, target: &str) -> io::Result<Value> {
        let (_, body) = self.request("GET", target, "", Vec::new()).await?;
        serde_json::from_slice(&body).map_err(io::Error::other)
    }

    /// Makes a request as the administrator; returns the status code and the body. Not for watches.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn request(
        &self,
        method: &str,
        target: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> io::Result<(u16, Vec<u8>)> {
        let stream = TcpStream::connect(self.address).await?;
        let stream = TlsConnector::from(self.client.clone()).connect(self.address.ip().into(), stream).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let request = http::Request::builder()
            .method(method)
            .uri(target)
            .header("host", self.address.to_string())
            .header("accept", "application/json")
            .header("content-type", content_type)
            .header("user-agent", "lab-sim")
            .body(Full::new(Bytes::from(body)))
            .map_err(io::Error::other)?;
        let exchange = async {
            let answer = sender.send_request(request).await?;
            let code = answer.status().as_u16();
            Ok((code, answer.into_body().collect().await?.to_bytes().to_vec()))
        };
        tokio::pin!(connection);
        tokio::select! {
            answer = exchange => answer.map_err(|error: hyper::Error| io::Error::other(error)),
            ended = &mut connection => Err(ended.map_or_else(io::Error::other, |()| io::ErrorKind::UnexpectedEof.into())),
        }
    }

    async fn attempt(assets: &Assets, scope: Scope, cluster: Option<&Membership>) -> io::Result<ControlPlane> {
        let directory = owned::directory(&env::temp_dir())?;
        let credentials = Credentials::generate().map_err(io::Error::other)?;
        let socket = directory.path().join("inside");
        let [etcd, peer, secure] = free_ports()?;
        let mut plane = ControlPlane {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, secure)),
            client: client(&credentials.authority.0, &credentials.administrator)?,
            credentials,
            processes: Vec::new(),
            inside: inside::nobody(&socket)?,
            directory,
        };
        let etcd = format!("http://127.0.0.1:{etcd}");
        let data = plane.directory.path().join("etcd");
        plane.spawn(
            assets,
            "etcd",
            &[
                // The database ends with the process: there is nothing to keep.
                "--unsafe-no-fsync".into(),
                "--log-level=warn".into(),
                format!("--data-dir={}", data.display()),
                format!("--listen-client-urls={etcd}"),
                format!("--advertise-client-urls={etcd}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
            ],
        )?;
        let files = plane.write_files(cluster, &socket)?;
        let has = |name: &str| scope == Scope::Whole && assets.has(name);
        let controllers = has("kube-controller-manager");
        let flags = plane.server_flags(&files, &etcd, cluster, controllers);
        plane.spawn(assets, "kube-apiserver", &flags)?;
        plane.ready().await?;
        let alone = ["--bind-address=127.0.0.1", "--secure-port=0", "--leader-elect=false"].map(String::from);
        // What throttles a client of a big cluster would only make a small one slow.
        let briskly = ["--kube-api-qps=500".to_owned(), "--kube-api-burst=1000".to_owned()];
        let kubeconfig = [format!("--kubeconfig={}", files.kubeconfig)];
        if controllers {
            let mut flags = [&alone[..], &briskly, &kubeconfig].concat();
            flags.extend([
                "--use-service-account-credentials=true".into(),
                format!("--service-account-private-key-file={}", files.service_key),
                format!("--root-ca-file={}", files.authority),
                format!("--cluster-signing-cert-file={}", files.authority),
                format!("--cluster-signing-key-file={}", files.authority_key),
            ]);
            plane.spawn(assets, "kube-controller-manager", &flags)?;
        }
        if has("kube-scheduler") {
            plane.spawn(assets, "kube-scheduler", &[&alone[..], &briskly, &kubeconfig].concat())?;
        }
        if scope == Scope::Whole && assets.are_complete() {
            let stages = plane.file("pod-stages.yaml", &pod_stages(&fs::read_to_string(assets.path(STAGES))?))?;
            let flags = [
                format!("--kubeconfig={}", files.kubeconfig),
                format!("--config={stages}"),
                "--manage-all-nodes=true".into(),
                "--cidr=10.244.0.0/16".into(),
                // The machines, if there are any, send their nodes' heartbeats themselves, for as long as they are on.
                "--node-lease-duration-seconds=0".into(),
            ];
            plane.spawn(assets, "kwok", &flags)?;
        }
        Ok(plane)
    }

    /// Writes what the processes read.
    fn write_files(&self, cluster: Option<&Membership>, socket: &Path) -> io::Result<Files> {
        let credentials = &self.credentials;
        // What speaks to the API server on loopback is trusted beside the cluster's own clients.
        let own = &credentials.authority;
        let (authority, clients) = match cluster {
            None => (own, own.0.clone()),
            Some(cluster) => (&cluster.authority, format!("{}{}", own.0, cluster.authority.0)),
        };
        let (service_key, service_public) = match cluster.and_then(|cluster| cluster.service_accounts.as_ref()) {
            // Of an elliptic curve, the API server reads the public key only from a file of its own.
            None => (&credentials.service_accounts.0, &credentials.service_accounts.1),
            Some(key) => (key, key),
        };
        Ok(Files {
            authority: self.file("ca.crt", &authority.0)?,
            authority_key: self.file("ca.key", &authority.1)?,
            clients: self.file("clients.crt", &clients)?,
            server: self.file("server.crt", &credentials.server.0)?,
            server_key: self.file("server.key", &credentials.server.1)?,
            front: self.file("front.crt", &credentials.front_authority)?,
            service_key: self.file("service-accounts.key", service_key)?,
            service_public: self.file("service-accounts.pub", service_public)?,
            egress: self.file("egress.json", &inside::configuration(socket))?,
            kubeconfig: self.file("kubeconfig", &self.kubeconfig())?,
        })
    }

    fn server_flags(&self, files: &Files, etcd: &str, cluster: Option<&Membership>, controllers: bool) -> Vec<String> {
        let own = format!("https://{}", self.address);
        let (issuer, services) =
            cluster.map_or((own.as_str(), SERVICES), |cluster| (cluster.issuer.as_str(), cluster.services.as_str()));
        let mut flags = vec![
            format!("--etcd-servers={etcd}"),
            "--bind-address=127.0.0.1".into(),
            format!("--secure-port={}", self.address.port()),
            format!("--tls-cert-file={}", files.server),
            format!("--tls-private-key-file={}", files.server_key),
            format!("--client-ca-file={}", files.clients),
            format!("--requestheader-client-ca-file={}", files.front),
            format!("--requestheader-allowed-names={FRONT}"),
            "--requestheader-username-headers=X-Remote-User".into(),
            "--requestheader-group-headers=X-Remote-Group".into(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
            format!("--service-account-key-file={}", files.service_public),
            format!("--service-account-signing-key-file={}", files.service_key),
            format!("--service-account-issuer={issuer}"),
            format!("--service-cluster-ip-range={services}"),
            format!("--egress-selector-config-file={}", files.egress),
            // All clients of a cluster come through one connection.
            "--http2-max-streams-per-connection=2000".into(),
            "--authorization-mode=RBAC".into(),
            "--allow-privileged=true".into(),
        ];
        flags.extend(cluster.map(|cluster| format!("--advertise-address={}", cluster.address)));
        if !controllers {
            // Its admission waits for accounts that the controllers would make.
            flags.push("--disable-admission-plugins=ServiceAccount".into());
        }
        flags
    }

    fn file(&self, name: &str, content: &str) -> io::Result<String> {
        write_private(&self.directory.path().join(name), content)
    }

    fn spawn(&mut self, assets: &Assets, name: &'static str, flags: &[String]) -> io::Result<()> {
        let log = File::create(self.log_path(name))?;
        self.processes.push(Process::start(name, &assets.path(name), flags, log)?);
        Ok(())
    }

    /// Waits until the API server says that it is ready.
    async fn ready(&mut self) -> io::Result<()> {
        let until = Instant::now() + READY;
        loop {
            for process in &mut self.processes {
                if process.has_ended()? {
                    let name = process.name;
                    return Err(self.ended(name));
                }
            }
            match self.request("GET", "/readyz", "", Vec::new()).await {
                Ok((200, _)) => return Ok(()),
                _ if Instant::now() > until => {
                    let message =
                        format!("the API server was not ready after {READY:?}\n{}", self.tail("kube-apiserver"));
                    return Err(io::Error::new(io::ErrorKind::TimedOut, message));
                }
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn ended(&self, name: &str) -> io::Error {
        let log = self.tail(name);
        let kind = if log.contains("address already in use") { io::ErrorKind::AddrInUse } else { io::ErrorKind::Other };
        io::Error::new(kind, format!("{name} ended before it was ready\n{log}"))
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.log"))
    }

    /// Returns the last lines of a log.
    fn tail(&self, name: &str) -> String {
        let log = fs::read(self.log_path(name)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.inside.abort();
        while self.processes.pop().is_some() {}
    }
}

/// Where the processes find what they read.
struct Files {
    authority: String,
    authority_key: String,
    clients: String,
    server: String,
    server_key: String,
    front: String,
    service_key: String,
    service_public: String,
    egress: String,
    kubeconfig: String,
}

/// Returns the stages of pods, and for nodes one that never comes: without any, KWOK does not look which nodes there are.
/// What becomes of nodes, the machines say.
fn pod_stages(stages: &str) -> String {
    const NODES: &str = "apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: node-as-its-machine-says}
spec:
  resourceRef: {apiGroup: v1, kind: Node}
  selector: {matchExpressions: [{key: .metadata.name, operator: DoesNotExist}]}
  next: {}
";
    let of_pods = |stage: &&str| stage.contains("resourceRef") && stage.lines().any(|line| line.trim() == "kind: Pod");
    stages.split("\n---\n").filter(of_pods).chain([NODES]).collect::<Vec<_>>().join("\n---\n")
}

/// Returns ports that are free now. They may be taken before they are used: the start is tried again then.
fn free_ports<const N: usize>() -> io::Result<[u16; N]> {
    let listeners: Vec<std::net::TcpListener> =
        (0..N).map(|_| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<io::Result<_>>()?;
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

fn write_private(path: &Path, content: &str) -> io::Result<String> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(content.as_bytes())?;
    Ok(path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_the_binaries_is_refused_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let error = Assets::at(directory.path()).unwrap_err().to_string();
        assert!(error.contains("holds no etcd") && error.contains("tests/control-plane/build"), "{error}");
    }
}
