//! Opens connections on behalf of providers, by the way out that a [`Link`] says.

use crate::model::{Link, Route};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Connects to `host:port` the way `link` says.
///
/// Through a proxy this is an HTTP/1.1 CONNECT tunnel (RFC 9110, section 9.3.6). The error says what was dialled and
/// which way; a link that leads nowhere refuses, so that a test which forgot its proxy fails instead of sending
/// traffic.
pub async fn dial(link: &Link, host: &str, port: u16) -> io::Result<TcpStream> {
    let target = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let stream = match link.route {
        Route::Direct => TcpStream::connect(&target)
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("{target}: {error}")))?,
        Route::Proxy(proxy) => connect(proxy, &target).await?,
        Route::Nowhere => {
            let message = format!("{target}: this run has no network");
            return Err(io::Error::new(io::ErrorKind::NetworkUnreachable, message));
        }
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn connect(proxy: std::net::SocketAddr, target: &str) -> io::Result<TcpStream> {
    let say = |kind, what: String| io::Error::new(kind, format!("{target} through the proxy {proxy}: {what}"));
    let mut stream = TcpStream::connect(proxy).await.map_err(|error| say(error.kind(), error.to_string()))?;
    stream.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes()).await?;
    // The answer is read to its blank line and not a byte further: what follows belongs to the tunnel.
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() > 8 * 1024 {
            return Err(say(io::ErrorKind::InvalidData, "the proxy's answer has no end".into()));
        }
        answer.push(stream.read_u8().await.map_err(|error| say(error.kind(), error.to_string()))?);
    }
    let status = String::from_utf8_lossy(&answer);
    let status = status.lines().next().unwrap_or_default();
    match status.split(' ').nth(1) {
        Some(code) if code.starts_with('2') => Ok(stream),
        _ => Err(say(io::ErrorKind::ConnectionRefused, status.to_owned())),
    }
}
