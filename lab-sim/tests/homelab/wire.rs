//! Connections without a client library in between: what the bytes on the wire say.

use super::Lab;
use http::Uri;
use hyper_util::rt::TokioIo;
use lab_core::Link;
use lab_core::execute::dial;
use lab_talos::authority::Authority;
use lab_talos::kubeconfig::Kubeconfig;
use lab_talos::secrets::Credentials;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};

pub fn tls(ca: &str, client: Option<(&str, &str)>, protocol: &[u8]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match client {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = key.replace("ED25519 PRIVATE KEY", "PRIVATE KEY");
            let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
            builder
                .with_client_auth_cert(vec![certificate], PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
                .unwrap()
        }
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    config
}

async fn connect(link: Link, host: String, port: u16, config: ClientConfig) -> io::Result<TlsStream<TcpStream>> {
    let stream = dial(&link, &host, port).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(host).unwrap(), stream).await
}

#[derive(Clone)]
struct Connector(Link, String, ClientConfig);

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Connector(link, host, config) = self.clone();
        Box::pin(async move { connect(link, host, 50000, config).await.map(TokioIo::new) })
    }
}

impl Lab {
    /// A bare channel to a machine.
    pub fn channel(&self, machine: &str, credentials: &Credentials) -> Channel {
        let config = tls(&credentials.ca, Some((&credentials.crt, &credentials.key)), b"h2");
        let endpoint = Endpoint::from_shared(format!("http://{machine}:50000")).unwrap();
        endpoint.connect_with_connector_lazy(Connector(self.running.link(), machine.to_owned(), config))
    }

    /// A client certificate with another role than the administrator's.
    pub fn with_role(&self, role: &str) -> Credentials {
        let authority = Authority::parse(&self.secrets.os).unwrap();
        let now = self.running.link().clock.now();
        let pair = authority.issue_client(role, None, now, Duration::from_secs(3600 * 24), [9; 32]);
        Credentials { ca: self.admin.ca.clone(), crt: pair.crt, key: pair.key }
    }

    /// Sends one GET to the Kubernetes API on a machine; `None` for a client without a certificate.
    pub async fn get(
        &self,
        machine: &str,
        kubeconfig: Option<&Kubeconfig>,
        ca: &str,
        path: &str,
    ) -> io::Result<String> {
        let client = kubeconfig.map(|config| (config.client_certificate.as_str(), config.client_key.as_str()));
        let config = tls(ca, client, b"http/1.1");
        let mut stream = connect(self.running.link(), machine.to_owned(), 6443, config).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {machine}\r\nAccept: application/json\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        // Whether the server says goodbye in TLS is of no interest here.
        let _ = stream.read_to_end(&mut answer).await;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}
