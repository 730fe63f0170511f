//! A real Kubernetes control plane as processes of this machine, where its binaries are present.
//!
//! `tests/control-plane/build` makes them; `KUBEBUILDER_ASSETS` says where they are, the convention of `setup-envtest`.
//! An API server with its etcd is enough to start; the controllers are started when they are there.

use std::env;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rcgen::PKCS_ECDSA_P256_SHA256;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::tls::{Authority, Leaf, Purpose, decode_pem};

/// The variable that names the directory of the binaries.
pub const ASSETS_VARIABLE: &str = "KUBEBUILDER_ASSETS";

/// How long a server may take until it is ready, in wall time: ten times what a small machine was seen to need.
const READY: Duration = Duration::from_secs(60);
/// How long the end of a killed process is waited for.
const ENDED: Duration = Duration::from_secs(2);
/// How often everything is begun again because somebody else took a port that was free a moment ago.
const ATTEMPTS: usize = 3;
/// The range Kubernetes gives its own services by default; the API is its first address.
const SERVICES: &str = "10.96.0.0/12";

/// Runs a program whose end is tied to ours: when this process is gone, however it went, its end of the pipe closes and
/// the program is killed. No signal handler can promise that of `kill -9`.
const GUARD: &str = r#"exec 3<&0 </dev/null
"$@" 3<&- & program=$!
(read -r _ <&3; kill -9 $program 2>/dev/null) & guard=$!
exec 3<&-
wait $program; code=$?
kill $guard 2>/dev/null
exit $code"#;

/// The directory with the binaries of a control plane.
#[derive(Clone, Debug)]
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

    /// Returns whether the binary is there.
    pub fn has(&self, name: &str) -> bool {
        self.path(name).is_file()
    }

    /// Returns where the binary is, or would be.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// A running control plane on loopback. Its processes and its files end with it.
pub struct ControlPlane {
    address: SocketAddr,
    authority: String,
    certificate: String,
    key: String,
    client: Arc<ClientConfig>,
    // In the order of their start.
    processes: Vec<Process>,
    inside: JoinHandle<()>,
    directory: TempDir,
}

impl fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlPlane").field("address", &self.address).finish_non_exhaustive()
    }
}

struct Process {
    name: &'static str,
    child: Child,
}

impl ControlPlane {
    /// Starts etcd, the API server and, where they are, the controllers and the scheduler; returns when the API is
    /// ready.
    ///
    /// # Errors
    /// When a process cannot be started, ends, or is not ready within a minute; the message carries the end of its log.
    pub async fn start(assets: &Assets) -> io::Result<ControlPlane> {
        let mut attempt = 1;
        loop {
            match ControlPlane::attempt(assets).await {
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
        &self.authority
    }

    /// Returns the administrator's certificate and key as PEM.
    pub fn administrator(&self) -> (&str, &str) {
        (&self.certificate, &self.key)
    }

    /// Returns the administrator's kubeconfig.
    pub fn kubeconfig(&self) -> String {
        use base64::Engine as _;
        let encode = |pem: &str| base64::engine::general_purpose::STANDARD.encode(pem);
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: control-plane\nclusters:\n- name: control-plane\n  cluster:\n    \
             server: https://{}\n    certificate-authority-data: {}\nusers:\n- name: admin\n  user:\n    \
             client-certificate-data: {}\n    client-key-data: {}\ncontexts:\n- name: control-plane\n  context:\n    \
             cluster: control-plane\n    user: admin\n",
            self.address,
            encode(&self.authority),
            encode(&self.certificate),
            encode(&self.key)
        )
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

    async fn attempt(assets: &Assets) -> io::Result<ControlPlane> {
        let directory = tempfile::Builder::new().prefix("control-plane-").tempdir()?;
        let credentials = Credentials::generate().map_err(io::Error::other)?;
        let file = |name: &str, content: &str| write_private(&directory.path().join(name), content);
        let authority = file("ca.crt", &credentials.authority)?;
        let authority_key = file("ca.key", &credentials.authority_key)?;
        let server = file("server.crt", &credentials.server.0)?;
        let server_key = file("server.key", &credentials.server.1)?;
        let service = file("service-accounts.key", &credentials.service_accounts.0)?;
        // Of an elliptic curve, the API server reads the public key only from a file of its own.
        let service_public = file("service-accounts.pub", &credentials.service_accounts.1)?;
        // Webhooks and aggregated APIs have addresses of the cluster's services, which lead nowhere here or, worse, to
        // somebody else: the API server is told to reach them through a proxy of ours, and knows no other way.
        let socket = directory.path().join("inside");
        let inside = tokio::spawn(nobody(UnixListener::bind(&socket)?));
        let egress = file("egress.json", &egress(&socket))?;
        let client_config = client(&credentials)?;
        let [client, peer, secure] = free_ports()?;
        let mut plane = ControlPlane {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, secure)),
            authority: credentials.authority,
            certificate: credentials.administrator.0,
            key: credentials.administrator.1,
            client: client_config,
            processes: Vec::new(),
            inside,
            directory,
        };
        let etcd = format!("http://127.0.0.1:{client}");
        plane.spawn(
            assets,
            "etcd",
            &[
                // The database ends with the process: there is nothing to keep.
                "--unsafe-no-fsync".into(),
                "--log-level=warn".into(),
                format!("--data-dir={}", plane.directory.path().join("etcd").display()),
                format!("--listen-client-urls={etcd}"),
                format!("--advertise-client-urls={etcd}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
            ],
        )?;
        let controllers = assets.has("kube-controller-manager");
        let mut flags = vec![
            format!("--etcd-servers={etcd}"),
            "--bind-address=127.0.0.1".into(),
            format!("--secure-port={secure}"),
            format!("--tls-cert-file={server}"),
            format!("--tls-private-key-file={server_key}"),
            format!("--client-ca-file={authority}"),
            format!("--service-account-key-file={service_public}"),
            format!("--service-account-signing-key-file={service}"),
            format!("--service-account-issuer=https://127.0.0.1:{secure}"),
            format!("--service-cluster-ip-range={SERVICES}"),
            format!("--egress-selector-config-file={egress}"),
            "--authorization-mode=RBAC".into(),
            "--allow-privileged=true".into(),
        ];
        if !controllers {
            // Its admission waits for accounts that the controllers would make.
            flags.push("--disable-admission-plugins=ServiceAccount".into());
        }
        plane.spawn(assets, "kube-apiserver", &flags)?;
        plane.ready().await?;
        let kubeconfig = write_private(&plane.directory.path().join("kubeconfig"), &plane.kubeconfig())?;
        if controllers {
            plane.spawn(
                assets,
                "kube-controller-manager",
                &[
                    format!("--kubeconfig={kubeconfig}"),
                    "--bind-address=127.0.0.1".into(),
                    "--secure-port=0".into(),
                    "--leader-elect=false".into(),
                    "--use-service-account-credentials=true".into(),
                    format!("--service-account-private-key-file={service}"),
                    format!("--root-ca-file={authority}"),
                    format!("--cluster-signing-cert-file={authority}"),
                    format!("--cluster-signing-key-file={authority_key}"),
                ],
            )?;
        }
        if assets.has("kube-scheduler") {
            let flags = [
                format!("--kubeconfig={kubeconfig}"),
                "--bind-address=127.0.0.1".into(),
                "--secure-port=0".into(),
                "--leader-elect=false".into(),
            ];
            plane.spawn(assets, "kube-scheduler", &flags)?;
        }
        Ok(plane)
    }

    fn spawn(&mut self, assets: &Assets, name: &'static str, flags: &[String]) -> io::Result<()> {
        let log = File::create(self.log_path(name))?;
        let child = guarded(&assets.path(name), flags, log)
            .map_err(|error| io::Error::new(error.kind(), format!("start {name}: {error}")))?;
        self.processes.push(Process { name, child });
        Ok(())
    }

    /// Waits until the API server says that it is ready.
    async fn ready(&mut self) -> io::Result<()> {
        let until = Instant::now() + READY;
        loop {
            for process in &mut self.processes {
                if process.child.try_wait()?.is_some() {
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
    /// Ends all processes, the last that was started first, before the directory that they write to goes.
    fn drop(&mut self) {
        self.inside.abort();
        while let Some(mut process) = self.processes.pop() {
            // The guard kills its program once our end of the pipe is closed.
            drop(process.child.stdin.take());
            let until = Instant::now() + ENDED;
            while matches!(process.child.try_wait(), Ok(None)) && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// Returns the API server's configuration of the way into its cluster: HTTP CONNECT over a socket of this machine.
fn egress(socket: &Path) -> String {
    // Over TCP without TLS API servers crash (1.34.4 does).
    let transport = json!({"uds": {"udsName": socket}});
    let connection = json!({"proxyProtocol": "HTTPConnect", "transport": transport});
    let selections = [json!({"name": "cluster", "connection": connection})];
    let kind = "EgressSelectorConfiguration";
    json!({"apiVersion": "apiserver.k8s.io/v1beta1", "kind": kind, "egressSelections": selections}).to_string()
}

/// Answers for a cluster in which nobody listens.
async fn nobody(listener: UnixListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").await;
        });
    }
}

/// Starts a program that ends when the child's standard input is closed.
fn guarded(program: &Path, arguments: &[String], log: File) -> io::Result<Child> {
    Command::new("sh")
        .args(["-c", GUARD, "guard"])
        .arg(program)
        .args(arguments)
        // What the proxies of this process are for is not the business of a server on loopback.
        .envs(["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"].map(|name| (name, "")))
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

/// Returns the administrator's side of a connection.
fn client(credentials: &Credentials) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let pem = |error: rustls::pki_types::pem::Error| io::Error::other(error.to_string());
    roots
        .add(CertificateDer::from_pem_slice(credentials.authority.as_bytes()).map_err(pem)?)
        .map_err(io::Error::other)?;
    let (certificate, key) = &credentials.administrator;
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(pem)?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(pem)?;
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)
        .map_err(io::Error::other)?;
    Ok(Arc::new(config))
}

/// What a fresh control plane proves itself with, all PEM.
struct Credentials {
    authority: String,
    authority_key: String,
    server: (String, String),
    administrator: (String, String),
    service_accounts: (String, String),
}

impl Credentials {
    fn generate() -> Result<Credentials, String> {
        let (authority, certificate, key) =
            Authority::generate(None, &PKCS_ECDSA_P256_SHA256).map_err(|error| error.to_string())?;
        let issue = |leaf: Leaf| {
            let issued = authority.issue(leaf, &PKCS_ECDSA_P256_SHA256).map_err(|error| error.to_string())?;
            Ok::<_, String>((issued.certificate_pem, issued.key_pem))
        };
        let service_accounts = rcgen::KeyPair::generate().map_err(|error| error.to_string())?;
        let now = SystemTime::now();
        // A clock may have been set back a little since the binaries last looked.
        let (from, until) = (now - Duration::from_secs(60), now + Duration::from_secs(24 * 3600));
        Ok(Credentials {
            server: issue(Leaf {
                common_name: Some("kube-apiserver".into()),
                organizations: Vec::new(),
                addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1))],
                names: ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
                    .map(str::to_owned)
                    .to_vec(),
                from,
                until,
                purpose: Purpose::Server,
            })?,
            administrator: issue(Leaf {
                common_name: Some("admin".into()),
                organizations: vec!["system:masters".into()],
                addresses: Vec::new(),
                names: Vec::new(),
                from,
                until,
                purpose: Purpose::Client,
            })?,
            authority: decode_pem(&certificate)?,
            authority_key: decode_pem(&key)?,
            service_accounts: (service_accounts.serialize_pem(), service_accounts.public_key_pem()),
        })
    }
}

/// Returns ports that are free now. They may be taken before they are used: the start is tried again then.
fn free_ports<const N: usize>() -> io::Result<[u16; N]> {
    let listeners: Vec<TcpListener> =
        (0..N).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<io::Result<_>>()?;
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

    fn alive(process: &str) -> bool {
        Command::new("kill").args(["-0", process]).stderr(Stdio::null()).status().unwrap().success()
    }

    fn until(what: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !what() {
            assert!(Instant::now() < deadline, "it does not happen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_program_ends_with_the_process_that_started_it() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let script = "echo $$; exec sleep 1000".to_owned();
        let mut child =
            guarded(Path::new("sh"), &["-c".into(), script], File::create(&log).unwrap()).expect("a shell starts");
        until(|| fs::read_to_string(&log).unwrap().ends_with('\n'));
        let program = fs::read_to_string(&log).unwrap().trim().to_owned();
        assert!(alive(&program));
        // What the kernel does with a pipe of a process that is killed.
        drop(child.stdin.take());
        until(|| !alive(&program));
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn the_end_of_a_program_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let log = File::create(directory.path().join("log")).unwrap();
        let child = guarded(Path::new("sh"), &["-c".into(), "exit 7".into()], log).unwrap();
        // Not `wait`: that closes the pipe first, and is the end of the program.
        let child = std::cell::RefCell::new(child);
        until(|| child.borrow_mut().try_wait().unwrap().is_some());
        assert_eq!(child.borrow_mut().wait().unwrap().code(), Some(7));
    }

    #[test]
    fn a_directory_without_the_binaries_is_refused_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let error = Assets::at(directory.path()).unwrap_err().to_string();
        assert!(error.contains("holds no etcd") && error.contains("tests/control-plane/build"), "{error}");
    }
}
