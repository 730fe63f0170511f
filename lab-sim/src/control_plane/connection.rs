//! One connection to an API server for many requests at a time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

/// A connection over HTTP/2. It is opened when it is needed, and again when it broke.
pub(crate) struct Connection {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    open: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl Connection {
    pub(super) fn new(address: SocketAddr, tls: &ClientConfig) -> Connection {
        let mut tls = tls.clone();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Connection { address, tls: Arc::new(tls), open: Mutex::new(None) }
    }

    /// Returns the URI of a path and query there.
    pub(crate) fn uri(&self, target: &str) -> String {
        format!("https://{}{target}", self.address)
    }

    /// Sends a request; the body of the answer is still to come.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> io::Result<Response<Incoming>> {
        let mut sender = self.sender().await?;
        sender.ready().await.map_err(io::Error::other)?;
        sender.send_request(request).await.map_err(io::Error::other)
    }

    async fn sender(&self) -> io::Result<SendRequest<Full<Bytes>>> {
        let mut open = self.open.lock().await;
        if let Some(sender) = open.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let stream = TlsConnector::from(self.tls.clone()).connect(self.address.ip().into(), stream).await?;
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(io::Error::other)?;
        // It ends with the last sender.
        tokio::spawn(connection);
        *open = Some(sender.clone());
        Ok(sender)
    }
}
