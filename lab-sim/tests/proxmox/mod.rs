//! A rack with a Proxmox cluster, and a plain HTTP client that knows nothing of the library's.
// Every test file uses its own part of this.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use lab_sim::proxmox::{Cluster, Host, Image, Storage, Token};
use lab_sim::{Faults, Options, Rack, Running, gigabytes};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub const TOKEN: &str = "lab@pve!lab";
pub const SECRET: &str = "11111111-2222-3333-4444-555555555555";
pub const HOSTS: [(&str, &str); 3] = [("pve1", "10.0.0.11"), ("pve2", "10.0.0.12"), ("pve3", "10.0.0.13")];
pub const IMAGE: &str =
    "https://cloud-images.ubuntu.com/releases/24.04/release-20260101/ubuntu-24.04-server-cloudimg-amd64.img";
pub const DIGEST: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

pub fn cluster() -> Cluster {
    let host = |(name, address): (&str, &str)| Host {
        memory: 64 << 30,
        cores: 16,
        ..Host::new(name, address.parse().unwrap())
    };
    Cluster {
        hosts: HOSTS.map(host).to_vec(),
        storages: vec![
            Storage::directory("local", gigabytes(100)),
            Storage::lvm_thin("local-lvm", gigabytes(800)),
            Storage::zfs("local-zfs", gigabytes(400)),
            Storage::nfs("nas", "10.0.0.5", gigabytes(4000)),
        ],
        downloads: vec![Image::ubuntu("24.04", IMAGE, DIGEST)],
        ..Cluster::new("homelab", Token::new(TOKEN, SECRET))
    }
}

pub struct Lab {
    pub running: Running,
    pub cluster: Cluster,
    pub token: String,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub phrase: String,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The data of a request that must succeed.
    pub fn data(&self) -> Value {
        assert_eq!(self.status, 200, "{} {}", self.phrase, String::from_utf8_lossy(&self.body));
        self.json()["data"].clone()
    }

    /// The status and the message of a request that must fail.
    pub fn refused(&self) -> (u16, String) {
        assert_ne!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        (self.status, self.phrase.clone())
    }

    pub fn errors(&self) -> Value {
        assert_eq!((self.status, self.phrase.as_str()), (400, "Parameter verification failed."));
        self.json()["errors"].clone()
    }
}

impl Lab {
    pub async fn start() -> Lab {
        Lab::of(cluster(), Faults::none()).await
    }

    pub async fn with(faults: Faults) -> Lab {
        Lab::of(cluster(), faults).await
    }

    pub async fn of(cluster: Cluster, faults: Faults) -> Lab {
        Lab::paced(cluster, faults, Options::default().speed).await
    }

    pub async fn paced(cluster: Cluster, faults: Faults, speed: u32) -> Lab {
        let rack = Rack::new().proxmox(cluster.clone());
        let running = rack.start(Options { faults, speed, ..Options::default() }).await.unwrap();
        Lab { running, cluster, token: format!("PVEAPIToken={TOKEN}={SECRET}") }
    }

    /// Opens a tunnel through the proxy; the error says what the proxy answered.
    pub async fn tunnel(&self, address: &str, port: u16) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.running.proxy()).await?;
        stream.write_all(format!("CONNECT {address}:{port} HTTP/1.1\r\n\r\n").as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        if head.starts_with("HTTP/1.1 200") { Ok(stream) } else { Err(io::Error::other(head)) }
    }

    pub async fn secure(&self, host: &str) -> io::Result<TlsStream<TcpStream>> {
        let (_, address) = HOSTS.into_iter().find(|(name, _)| *name == host).unwrap();
        let stream = self.tunnel(address, 8006).await?;
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.cluster.authority().as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from(address.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Sends a request as it is written; what comes back may be nothing at all.
    pub async fn send(&self, host: &str, head: &str, body: &[u8]) -> io::Result<Answer> {
        let mut stream = self.secure(host).await?;
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let head = format!("{head}\r\nHost: {host}\r\nConnection: close\r\n{length}\r\n");
        stream.write_all(&[head.as_bytes(), body].concat()).await?;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await;
        let read = read.expect("an end of the answer");
        let split = answer.windows(4).position(|window| window == b"\r\n\r\n");
        let Some(split) = split else {
            return Err(read.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()));
        };
        let head = String::from_utf8_lossy(&answer[..split]).into_owned();
        let line = head.lines().next().unwrap_or_default();
        let mut words = line.splitn(3, ' ');
        let status = words.nth(1).unwrap_or_default().parse().unwrap();
        let phrase = words.next().unwrap_or_default().to_owned();
        Ok(Answer { status, phrase, body: answer[split + 4..].to_vec(), head })
    }

    pub async fn ask(&self, host: &str, method: &str, path: &str, form: &[(&str, &str)]) -> io::Result<Answer> {
        let encoded: Vec<String> = form.iter().map(|(key, value)| format!("{key}={}", encode(value))).collect();
        let encoded = encoded.join("&");
        let in_query = ["GET", "DELETE"].contains(&method) && !encoded.is_empty();
        let query = if in_query { format!("?{encoded}") } else { String::new() };
        let body = if in_query { "" } else { &encoded };
        let head = format!(
            "{method} /api2/json{path}{query} HTTP/1.1\r\nAuthorization: {}\r\nContent-Type: application/x-www-form-urlencoded",
            self.token
        );
        self.send(host, &head, body.as_bytes()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("pve1", "GET", path, &[]).await.unwrap()
    }

    pub async fn post(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        self.ask("pve1", "POST", path, form).await.unwrap()
    }

    pub async fn put(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        self.ask("pve1", "PUT", path, form).await.unwrap()
    }

    pub async fn delete(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        self.ask("pve1", "DELETE", path, form).await.unwrap()
    }

    /// Waits for the end of a task and says how it ended.
    pub async fn end(&self, upid: &Value) -> String {
        let upid = upid.as_str().unwrap_or_else(|| panic!("{upid} is no task"));
        let node = upid.split(':').nth(1).unwrap();
        let clock = self.running.link().clock;
        let host = HOSTS.into_iter().map(|(name, _)| name).find(|name| *name == node).unwrap();
        for _ in 0..2000 {
            let status =
                self.ask(host, "GET", &format!("/nodes/{node}/tasks/{upid}/status"), &[]).await.unwrap().data();
            if status["status"] == "stopped" {
                return status["exitstatus"].as_str().unwrap().to_owned();
            }
            clock.sleep(Duration::from_secs(5)).await;
        }
        panic!("{upid} never ended");
    }

    /// Begins a task and says how it ended.
    pub async fn task(&self, method: &str, path: &str, form: &[(&str, &str)]) -> String {
        let answer = self.ask("pve1", method, path, form).await.unwrap();
        self.end(&answer.data()).await
    }

    /// Makes a machine with a small disk.
    pub async fn machine(&self, id: u32, more: &[(&str, &str)]) {
        let id = id.to_string();
        let mut form = vec![("vmid", id.as_str()), ("name", "a"), ("memory", "2048"), ("scsi0", "local-lvm:8")];
        form.extend_from_slice(more);
        assert_eq!(self.task("POST", "/nodes/pve1/qemu", &form).await, "OK");
    }

    pub async fn config(&self, id: u32) -> Value {
        self.get(&format!("/nodes/pve1/qemu/{id}/config")).await.data()
    }

    /// Waits, for at most eight hours of the lab's time.
    pub async fn until<F: Future<Output = bool>>(&self, mut holds: impl FnMut() -> F) {
        let clock = self.running.link().clock;
        let start = clock.now();
        while !holds().await {
            let waited = clock.now().duration_since(start).unwrap();
            assert!(
                waited < Duration::from_secs(8 * 3600),
                "it never came true: {:#}",
                self.running.world()["proxmox"]
            );
            clock.sleep(Duration::from_secs(5)).await;
        }
    }

    /// Uploads a file; says how the task ended.
    pub async fn upload(&self, storage: &str, name: &str, bytes: &[u8]) -> String {
        let answer = self.upload_to(storage, name, bytes, &[("content", "iso")]).await;
        self.end(&answer.data()).await
    }

    pub async fn upload_to(&self, storage: &str, name: &str, bytes: &[u8], fields: &[(&str, &str)]) -> Answer {
        let mut body = Vec::new();
        for (field, value) in fields {
            body.extend_from_slice(
                format!("--b\r\nContent-Disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n").as_bytes(),
            );
        }
        let head = format!(
            "--b\r\nContent-Disposition: form-data; name=\"filename\"; filename=\"{name}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n--b--\r\n");
        let head = format!(
            "POST /api2/json/nodes/pve1/storage/{storage}/upload HTTP/1.1\r\nAuthorization: {}\r\nContent-Type: multipart/form-data; boundary=b",
            self.token
        );
        self.send("pve1", &head, &body).await.unwrap()
    }
}

pub fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

pub fn died(text: &str) -> (u16, String) {
    (500, text.to_owned())
}

pub fn errors(name: &str, text: &str) -> Value {
    json!({name: text})
}
