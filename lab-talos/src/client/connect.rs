//! The connector: dials through the link, speaks TLS, and finds out at once when it is not wanted.

use super::error::{Failure, Reason};
use super::tls::{CONNECT, classify};
use http::Uri;
use hyper_util::rt::TokioIo;
use lab_core::Link;
use lab_core::execute::dial;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::Service;

/// How long the server may take to say its first word.
const GREETING: Duration = Duration::from_secs(2);

/// What a connection leaves behind for whoever asks later.
#[derive(Debug, Default)]
pub(super) struct Line {
    fingerprint: Mutex<Option<String>>,
}

impl Line {
    pub(super) fn note(&self, fingerprint: String) {
        *self.fingerprint.lock().unwrap_or_else(PoisonError::into_inner) = Some(fingerprint);
    }

    pub(super) fn fingerprint(&self) -> Option<String> {
        self.fingerprint.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Makes connections to one machine.
#[derive(Clone)]
pub(super) struct Connector {
    link: Link,
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: TlsConnector,
    presents: bool,
}

impl Connector {
    pub(super) fn new(
        link: &Link,
        host: &str,
        port: u16,
        config: ClientConfig,
        presents: bool,
    ) -> Result<Connector, rustls_pki_types::InvalidDnsNameError> {
        let name = ServerName::try_from(host.to_owned())?;
        let tls = TlsConnector::from(Arc::new(config));
        Ok(Connector { link: link.clone(), host: host.to_owned(), port, name, tls, presents })
    }

    async fn connect(self) -> Result<TokioIo<Greeted>, Failure> {
        let target = format!("{}:{}", self.host, self.port);
        match tokio::time::timeout(CONNECT, self.establish(&target)).await {
            Ok(connected) => connected.map(TokioIo::new),
            Err(_) => {
                let text = format!("{target}: no connection within {} s", CONNECT.as_secs());
                Err(Failure { reason: Reason::Dial, text, sent: false })
            }
        }
    }

    async fn establish(&self, target: &str) -> Result<Greeted, Failure> {
        // The link's own message names the target already.
        let stream = dial(&self.link, &self.host, self.port).await.map_err(|error| Failure {
            reason: Reason::Dial,
            text: error.to_string(),
            sent: false,
        })?;
        let mut stream = self
            .tls
            .connect(self.name.clone(), stream)
            .await
            .map_err(|error| classify(target, &error, self.presents))?;
        // In TLS 1.3 the client is done before the server has looked at its certificate: the refusal arrives later,
        // and a request that is already on its way may turn it into a bare reset. A gRPC server speaks first, so we
        // wait for that word (or the refusal) before anything is sent. A server that stays silent is let pass.
        let mut greeting = vec![0; 4096];
        let length = match tokio::time::timeout(GREETING, stream.read(&mut greeting)).await {
            Ok(Ok(0)) => {
                let text = format!("{target}: closed the connection without a word");
                return Err(Failure { reason: Reason::Protocol, text, sent: false });
            }
            Ok(Ok(length)) => length,
            Ok(Err(error)) => return Err(classify(target, &error, self.presents)),
            Err(_) => 0,
        };
        greeting.truncate(length);
        Ok(Greeted { greeting, taken: 0, stream })
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Greeted>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

/// A stream whose first bytes were read already.
pub(super) struct Greeted {
    greeting: Vec<u8>,
    taken: usize,
    stream: TlsStream<TcpStream>,
}

impl AsyncRead for Greeted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let left = &self.greeting[self.taken..];
        if left.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let length = left.len().min(buf.remaining());
        buf.put_slice(&left[..length]);
        self.taken += length;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Greeted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
