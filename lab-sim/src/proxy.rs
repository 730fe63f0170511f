//! The way into the simulated lab: an HTTP/1.1 CONNECT proxy on loopback.
//!
//! It answers for every address there is, and never opens a connection of its own: what the network behind it does not
//! know does not answer. Plain requests (anything but CONNECT) are refused.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// What stands behind the proxy.
pub(crate) trait Network: Send + Sync + 'static {
    /// Says what becomes of a connection to `host:port`.
    fn dial(&self, host: &str, port: u16) -> Pin<Box<dyn Future<Output = Dial> + Send + '_>>;
}

/// What becomes of a connection.
pub(crate) enum Dial {
    /// Nobody answers at this address; 504.
    NoAnswer,
    /// The machine answers that nobody listens on this port; 502.
    Refused,
    /// Somebody would listen on this port, and what it speaks is not simulated; 501 with its name.
    NotSimulated(&'static str),
    /// The connection breaks without an answer.
    Broken,
    /// The connection stands; the function serves it to its end.
    Open(Serve),
}

/// Serves one connection to its end.
pub(crate) type Serve = Box<dyn FnOnce(TcpStream) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// One connection that was attempted through the proxy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dialled {
    /// The host as the client wrote it.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The status the proxy answered, 0 when the connection broke without one.
    pub status: u16,
}

/// The running proxy; dropping it closes every connection.
pub(crate) struct Proxy {
    address: SocketAddr,
    dialled: Arc<Mutex<Vec<Dialled>>>,
    listening: AbortHandle,
}

impl Proxy {
    /// Starts to listen on a free port of 127.0.0.1.
    pub(crate) async fn start(network: Arc<dyn Network>) -> io::Result<Proxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let dialled = Arc::new(Mutex::new(Vec::new()));
        let log = dialled.clone();
        let listening = tokio::spawn(async move {
            // The connections live in this set, so that they end with the listener.
            let mut connections = JoinSet::new();
            loop {
                while connections.try_join_next().is_some() {}
                if let Ok((stream, _)) = listener.accept().await {
                    connections.spawn(connection(stream, network.clone(), log.clone()));
                }
            }
        });
        Ok(Proxy { address, dialled, listening: listening.abort_handle() })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn dialled(&self) -> Vec<Dialled> {
        self.dialled.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn connection(mut stream: TcpStream, network: Arc<dyn Network>, log: Arc<Mutex<Vec<Dialled>>>) {
    let _ = stream.set_nodelay(true);
    let Ok(head) = head(&mut stream).await else { return };
    let (host, port) = match target(&head) {
        Ok(target) => target,
        Err(answer) => {
            let _ = stream.write_all(format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await;
            return;
        }
    };
    let dial = network.dial(&host, port).await;
    let (status, answer) = match &dial {
        Dial::NoAnswer => (504, "504 Gateway Timeout".to_owned()),
        Dial::Refused => (502, "502 Connection refused".to_owned()),
        Dial::NotSimulated(what) => (501, format!("501 {what} is not simulated")),
        Dial::Broken => (0, String::new()),
        Dial::Open(_) => (200, "200 Connection established".to_owned()),
    };
    log.lock().unwrap_or_else(PoisonError::into_inner).push(Dialled { host, port, status });
    if status == 0 {
        return;
    }
    let length = if status == 200 { "" } else { "Content-Length: 0\r\n" };
    if stream.write_all(format!("HTTP/1.1 {answer}\r\n{length}\r\n").as_bytes()).await.is_err() {
        return;
    }
    if let Dial::Open(serve) = dial {
        serve(stream).await;
    }
}

/// Reads the request to its blank line and not a byte further: what follows belongs to the tunnel.
async fn head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > 16 * 1024 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Returns the host and the port of a CONNECT request, or the status line that answers anything else.
fn target(head: &str) -> Result<(String, u16), &'static str> {
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    if words.next() != Some("CONNECT") {
        return Err("501 Only CONNECT is simulated");
    }
    let (host, port) = words.next().and_then(|target| target.rsplit_once(':')).ok_or("400 Bad Request")?;
    let port = port.parse().map_err(|_| "400 Bad Request")?;
    Ok((host.trim_start_matches('[').trim_end_matches(']').to_owned(), port))
}

/// Returns the address that `host` is, when it is one.
pub(crate) fn literal(host: &str) -> Option<IpAddr> {
    host.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;

    impl Network for Echo {
        fn dial(&self, host: &str, port: u16) -> Pin<Box<dyn Future<Output = Dial> + Send + '_>> {
            let dial = match (host, port) {
                ("10.0.0.1", 7) | ("fd00::1", 7) => Dial::Open(Box::new(|mut stream| {
                    Box::pin(async move {
                        let (mut read, mut write) = stream.split();
                        let _ = tokio::io::copy(&mut read, &mut write).await;
                    })
                })),
                ("10.0.0.1", 9) => Dial::Broken,
                ("10.0.0.1", _) => Dial::Refused,
                _ => Dial::NoAnswer,
            };
            Box::pin(async { dial })
        }
    }

    async fn ask(proxy: &Proxy, request: &str) -> String {
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_tunnel_carries_bytes_and_other_addresses_say_why_not() {
        let proxy = Proxy::start(Arc::new(Echo)).await.unwrap();
        let open = ask(&proxy, "CONNECT 10.0.0.1:7 HTTP/1.1\r\nHost: x\r\n\r\nhello").await;
        assert_eq!(open, "HTTP/1.1 200 Connection established\r\n\r\nhello");
        assert!(ask(&proxy, "CONNECT [fd00::1]:7 HTTP/1.1\r\n\r\n").await.contains(" 200 "));
        assert!(ask(&proxy, "CONNECT 10.0.0.1:8 HTTP/1.1\r\n\r\n").await.contains(" 502 "));
        assert!(ask(&proxy, "CONNECT 10.0.0.2:7 HTTP/1.1\r\n\r\n").await.contains(" 504 "));
        assert_eq!(ask(&proxy, "CONNECT 10.0.0.1:9 HTTP/1.1\r\n\r\n").await, "");
        assert!(ask(&proxy, "GET http://10.0.0.1/ HTTP/1.1\r\n\r\n").await.contains(" 501 "));
        let statuses: Vec<_> = proxy.dialled().iter().map(|dialled| dialled.status).collect();
        assert_eq!(statuses, [200, 200, 502, 504, 0]);
    }
}
