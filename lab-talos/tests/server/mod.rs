//! A machine's API on loopback, in one of the states that a client must tell apart.

use futures_util::stream;
use lab_talos::authority::{Algorithm, Authority, CLIENT_LIFETIME, Pair};
use lab_talos::proto::common::Data;
use lab_talos::proto::cosi::resource as cosi;
use lab_talos::proto::cosi::resource::state_server::{State, StateServer};
use lab_talos::proto::machine::machine_service_server::{MachineService, MachineServiceServer};
use lab_talos::proto::machine::*;
use lab_talos::proto::storage::storage_service_server::{StorageService, StorageServiceServer};
use lab_talos::proto::storage::{Disk, Disks, DisksResponse};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status};

type Stream<T> = Pin<Box<dyn futures_util::Stream<Item = Result<T, Status>> + Send>>;

/// What the machine was asked, and how it behaves.
#[derive(Clone, Default)]
pub(crate) struct Fake {
    pub(crate) maintenance: bool,
    /// Never answers a bootstrap.
    pub(crate) stuck: bool,
    pub(crate) kubeconfig: Vec<u8>,
    pub(crate) applied: Arc<Mutex<Vec<ApplyConfigurationRequest>>>,
    pub(crate) resets: Arc<Mutex<Vec<ResetRequest>>>,
}

/// A running server; it stops when dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) certificate: Pair,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How the server shows itself: a certificate for `names`, valid for a year from `not_before`.
pub(crate) struct Face {
    pub(crate) authority: Pair,
    pub(crate) names: Vec<String>,
    pub(crate) not_before: SystemTime,
    /// Whose clients are accepted; without one nobody is asked for a certificate.
    pub(crate) clients: Option<Pair>,
}

impl Face {
    pub(crate) fn configured(authority: &Pair) -> Face {
        Face {
            authority: authority.clone(),
            names: vec!["127.0.0.1".into()],
            not_before: SystemTime::now() - Duration::from_secs(60),
            clients: Some(authority.clone()),
        }
    }

    pub(crate) fn maintenance() -> Face {
        let ephemeral =
            Authority::generate(Algorithm::Ed25519, "", SystemTime::now() - Duration::from_secs(60), [77; 32]);
        Face { clients: None, ..Face::configured(&ephemeral) }
    }
}

pub(crate) async fn serve(face: Face, fake: Fake) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let authority = Authority::parse(&face.authority).unwrap();
    let certificate = authority.issue_server(None, &face.names, face.not_before, CLIENT_LIFETIME, [5; 32]);
    let acceptor = acceptor(&certificate, face.clients.as_ref());
    let incoming = stream::unfold((listener, acceptor), |(listener, acceptor)| async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // One that is refused ends here, as it does on a machine.
            if let Ok(stream) = acceptor.accept(stream).await {
                return Some((Ok::<_, std::io::Error>(Io(stream)), (listener, acceptor)));
            }
        }
    });
    let server = Server::builder()
        .add_service(MachineServiceServer::new(fake.clone()))
        .add_service(StorageServiceServer::new(fake.clone()))
        .add_service(StateServer::new(fake))
        .serve_with_incoming(incoming);
    let task = tokio::spawn(async move { server.await.unwrap() });
    Running { address, certificate, task }
}

fn acceptor(certificate: &Pair, clients: Option<&Pair>) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(authority.crt.as_bytes()).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = certificate.key.replace("ED25519 PRIVATE KEY", "PRIVATE KEY");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(certificate.crt.as_bytes()).unwrap()];
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

struct Io(TlsStream<TcpStream>);

impl Connected for Io {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

type Reply<T> = Result<Response<T>, Status>;

impl Fake {
    fn configured(&self, method: &str) -> Result<(), Status> {
        match self.maintenance {
            true => Err(Status::unimplemented(format!("method {method} not implemented"))),
            false => Ok(()),
        }
    }
}

#[tonic::async_trait]
impl MachineService for Fake {
    async fn apply_configuration(
        &self,
        request: Request<ApplyConfigurationRequest>,
    ) -> Reply<ApplyConfigurationResponse> {
        let request = request.into_inner();
        if request.data.is_empty() {
            return Err(Status::invalid_argument("config not found"));
        }
        self.applied.lock().unwrap().push(request);
        let reply = match self.maintenance {
            true => ApplyConfiguration { warnings: vec!["odd".into()], ..Default::default() },
            false => ApplyConfiguration {
                mode: apply_configuration_request::Mode::NoReboot.into(),
                mode_details: "Applied configuration without a reboot".into(),
                ..Default::default()
            },
        };
        Ok(Response::new(ApplyConfigurationResponse { messages: vec![reply] }))
    }

    async fn bootstrap(&self, _: Request<BootstrapRequest>) -> Reply<BootstrapResponse> {
        self.configured("Bootstrap")?;
        if self.stuck {
            std::future::pending::<()>().await;
        }
        Err(Status::already_exists("etcd data directory is not empty"))
    }

    async fn etcd_forfeit_leadership(
        &self,
        _: Request<EtcdForfeitLeadershipRequest>,
    ) -> Reply<EtcdForfeitLeadershipResponse> {
        Err(Status::unimplemented("method EtcdForfeitLeadership not implemented"))
    }

    async fn etcd_leave_cluster(&self, _: Request<EtcdLeaveClusterRequest>) -> Reply<EtcdLeaveClusterResponse> {
        Ok(Response::new(EtcdLeaveClusterResponse { messages: vec![EtcdLeaveCluster::default()] }))
    }

    async fn etcd_member_list(&self, _: Request<EtcdMemberListRequest>) -> Reply<EtcdMemberListResponse> {
        let member = EtcdMember { id: u64::MAX, hostname: "cp-1".into(), ..Default::default() };
        let members = EtcdMembers { members: vec![member], ..Default::default() };
        Ok(Response::new(EtcdMemberListResponse { messages: vec![members] }))
    }

    async fn etcd_remove_member_by_id(
        &self,
        _: Request<EtcdRemoveMemberByIdRequest>,
    ) -> Reply<EtcdRemoveMemberByIdResponse> {
        Err(Status::not_found("member not found"))
    }

    async fn hostname(&self, _: Request<()>) -> Reply<HostnameResponse> {
        let hostname = Hostname { hostname: "cp-1".into(), ..Default::default() };
        Ok(Response::new(HostnameResponse { messages: vec![hostname] }))
    }

    type ReadStream = Stream<Data>;

    async fn read(&self, request: Request<ReadRequest>) -> Reply<Self::ReadStream> {
        match request.into_inner().path.as_str() {
            "/proc/sys/kernel/random/boot_id" => {
                let bytes = b"2f7c2a52-6d1c-4f6e-8a55-94c1f6f1c0de\n".to_vec();
                Ok(Response::new(Box::pin(stream::iter([Ok(Data { bytes, ..Default::default() })]))))
            }
            path => Err(Status::unknown(format!("stat {path}: no such file or directory"))),
        }
    }

    type KubeconfigStream = Stream<Data>;

    async fn kubeconfig(&self, _: Request<()>) -> Reply<Self::KubeconfigStream> {
        let parts: Vec<_> =
            self.kubeconfig.chunks(100).map(|bytes| Ok(Data { bytes: bytes.to_vec(), ..Default::default() })).collect();
        Ok(Response::new(Box::pin(stream::iter(parts))))
    }

    async fn reboot(&self, _: Request<RebootRequest>) -> Reply<RebootResponse> {
        Err(Status::permission_denied("not authorized"))
    }

    async fn reset(&self, request: Request<ResetRequest>) -> Reply<ResetResponse> {
        self.resets.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ResetResponse { messages: vec![Reset::default()] }))
    }

    async fn service_list(&self, _: Request<()>) -> Reply<ServiceListResponse> {
        let health = ServiceHealth { healthy: true, ..Default::default() };
        let etcd = ServiceInfo { id: "etcd".into(), state: "Running".into(), health: Some(health), events: None };
        Ok(Response::new(ServiceListResponse { messages: vec![ServiceList { services: vec![etcd], metadata: None }] }))
    }

    async fn upgrade(&self, _: Request<UpgradeRequest>) -> Reply<UpgradeResponse> {
        Ok(Response::new(UpgradeResponse { messages: vec![Upgrade::default()] }))
    }

    async fn version(&self, _: Request<()>) -> Reply<VersionResponse> {
        if self.maintenance {
            return Err(Status::unimplemented("API is not implemented in maintenance mode"));
        }
        let version = VersionInfo { tag: "v1.11.6".into(), ..Default::default() };
        Ok(Response::new(VersionResponse { messages: vec![Version { version: Some(version), ..Default::default() }] }))
    }
}

#[tonic::async_trait]
impl StorageService for Fake {
    async fn disks(&self, _: Request<()>) -> Reply<DisksResponse> {
        let disk = Disk { device_name: "/dev/sda".into(), size: 1 << 40, ..Default::default() };
        Ok(Response::new(DisksResponse { messages: vec![Disks { disks: vec![disk], metadata: None }] }))
    }
}

fn refused<T>() -> Reply<T> {
    Err(Status::permission_denied("write access is not allowed"))
}

#[tonic::async_trait]
impl State for Fake {
    async fn get(&self, request: Request<cosi::GetRequest>) -> Reply<cosi::GetResponse> {
        use lab_talos::proto::definitions::enums::RuntimeMachineStage;
        use lab_talos::proto::definitions::k8s::NodenameSpec;
        use lab_talos::proto::definitions::runtime::{MachineStatusSpec, MachineStatusStatus, UnmetCondition};
        use lab_talos::proto::resource::config::MachineConfigSpec;
        use prost::Message;
        let request = request.into_inner();
        let proto_spec = match (&*request.namespace, &*request.r#type, &*request.id) {
            ("runtime", "MachineStatuses.runtime.talos.dev", "machine") => {
                let unmet = UnmetCondition { name: "services".into(), reason: "etcd not running".into() };
                let status = MachineStatusStatus { ready: false, unmet_conditions: vec![unmet] };
                MachineStatusSpec { stage: RuntimeMachineStage::MachineStageBooting.into(), status: Some(status) }
                    .encode_to_vec()
            }
            ("k8s", "Nodenames.kubernetes.talos.dev", "nodename") => {
                NodenameSpec { nodename: "cp-1".into(), ..Default::default() }.encode_to_vec()
            }
            ("config", "MachineConfigs.config.talos.dev", "v1alpha1") => {
                MachineConfigSpec { yaml_marshalled: b"version: v1alpha1\n".to_vec() }.encode_to_vec()
            }
            (namespace, kind, id) => {
                let kind = kind.split('.').next().unwrap_or_default();
                return Err(Status::not_found(format!("resource {kind}({namespace}/{id}@undefined) doesn't exist")));
            }
        };
        let spec = cosi::Spec { proto_spec, yaml_spec: String::new() };
        Ok(Response::new(cosi::GetResponse { resource: Some(cosi::Resource { metadata: None, spec: Some(spec) }) }))
    }

    type ListStream = Stream<cosi::ListResponse>;
    async fn list(&self, _: Request<cosi::ListRequest>) -> Reply<Self::ListStream> {
        refused()
    }
    async fn create(&self, _: Request<cosi::CreateRequest>) -> Reply<cosi::CreateResponse> {
        refused()
    }
    async fn update(&self, _: Request<cosi::UpdateRequest>) -> Reply<cosi::UpdateResponse> {
        refused()
    }
    async fn destroy(&self, _: Request<cosi::DestroyRequest>) -> Reply<cosi::DestroyResponse> {
        refused()
    }
    async fn teardown(&self, _: Request<cosi::TeardownRequest>) -> Reply<cosi::TeardownResponse> {
        refused()
    }
    async fn teardown_and_destroy(
        &self,
        _: Request<cosi::TeardownAndDestroyRequest>,
    ) -> Reply<cosi::TeardownAndDestroyResponse> {
        refused()
    }
    type WatchStream = Stream<cosi::WatchResponse>;
    async fn watch(&self, _: Request<cosi::WatchRequest>) -> Reply<Self::WatchStream> {
        refused()
    }
}
