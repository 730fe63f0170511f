//! The way from an API server into its cluster.
//!
//! Webhooks and aggregated APIs have addresses of the cluster's services, which lead nowhere on this machine or, worse, to
//! somebody else. The API server is told to reach them through a proxy of ours, and knows no other way.

use std::io;
use std::path::Path;

use serde_json::json;
use tokio::task::JoinHandle;

/// Returns the API server's configuration of the way into its cluster: HTTP CONNECT over a socket of this machine.
pub(super) fn configuration(socket: &Path) -> String {
    // Over TCP without TLS API servers crash (1.34.4 does).
    let transport = json!({"uds": {"udsName": socket}});
    let connection = json!({"proxyProtocol": "HTTPConnect", "transport": transport});
    let selections = [json!({"name": "cluster", "connection": connection})];
    let kind = "EgressSelectorConfiguration";
    json!({"apiVersion": "apiserver.k8s.io/v1beta1", "kind": kind, "egressSelections": selections}).to_string()
}

#[cfg(unix)]
/// Answers at the socket for a cluster in which nobody listens.
pub(super) fn nobody(socket: &Path) -> io::Result<JoinHandle<()>> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::UnixListener::bind(socket)?;
    Ok(tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").await;
            });
        }
    }))
}

#[cfg(not(unix))]
/// Says that there is no way here.
pub(super) fn nobody(_: &Path) -> io::Result<JoinHandle<()>> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "a real control plane runs on Unix only"))
}
