//! The stand-in over TLS on loopback: who a client is, and what happens to its connection.

mod kube_support;

use std::sync::Arc;
use std::time::Duration;

use kube_support::Cluster;
use lab_sim::kube::Fault;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

struct Served {
    cluster: Cluster,
    authority: CertifiedIssuer<'static, KeyPair>,
    roots: Arc<RootCertStore>,
    address: std::net::SocketAddr,
}

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn issue(authority: &CertifiedIssuer<'static, KeyPair>, names: &[&str], user: &str, group: &str) -> Pair {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, user);
    params.distinguished_name.push(DnType::OrganizationName, group);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
}

async fn served() -> Served {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let roots = Arc::new(roots);
    let (chain, key) = issue(&authority, &["localhost"], "kube-apiserver", "kube-master");
    let verifier = WebPkiClientVerifier::builder(roots.clone()).allow_unauthenticated().build().unwrap();
    let tls = ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let cluster = Cluster::new();
    tokio::spawn(cluster.api.clone().serve(listener, Arc::new(tls)));
    Served { cluster, authority, roots, address }
}

impl Served {
    fn administrator(&self) -> Option<Pair> {
        Some(issue(&self.authority, &[], "admin", "system:masters"))
    }

    /// Sends one request over HTTP/1.1; returns everything that comes back before the connection ends.
    async fn send(&self, client: Option<Pair>, request: &str, body: &str) -> std::io::Result<String> {
        let builder = ClientConfig::builder().with_root_certificates(self.roots.clone());
        let config = match client {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let head = format!(
            "{request} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: \
             application/apply-patch+yaml\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        match tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.expect("an answer") {
            // A dropped connection may end without a farewell.
            Err(error) if answer.is_empty() => Err(error),
            _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
        }
    }
}

const MAP: &str = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"k":"v"}}"#;
const APPLY: &str = "PATCH /api/v1/namespaces/default/configmaps/a?fieldManager=lab";

#[tokio::test]
async fn a_client_is_who_its_certificate_says() {
    let served = served().await;
    let answer = served.send(served.administrator(), "GET /version", "").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains("\"gitVersion\":\"v1.34.1\""), "{answer}");
    let answer = served.send(None, "GET /version", "").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let somebody = issue(&served.authority, &[], "somebody", "developers");
    let answer = served.send(Some(somebody), "GET /version", "").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

#[tokio::test]
async fn a_reply_can_be_lost_after_the_effect_and_a_request_before_it() {
    let served = served().await;
    for (fault, there) in [(Fault::DropBefore, 404), (Fault::DropAfter, 200)] {
        served
            .cluster
            .api
            .inject(Arc::new(move |method: &str, _: &str| if method == "PATCH" { fault } else { Fault::None }));
        let answer = served.send(served.administrator(), APPLY, MAP).await.unwrap_or_default();
        assert_eq!(answer, "", "no answer at {fault:?}");
        assert_eq!(served.cluster.get("/api/v1/namespaces/default/configmaps/a").await.code, there, "{fault:?}");
    }
    served.cluster.api.inject(Arc::new(|_: &str, _: &str| Fault::Status(503)));
    let answer = served.send(served.administrator(), "GET /version", "").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
}

#[tokio::test]
async fn connections_end_when_the_api_is_stopped() {
    let served = served().await;
    let api = served.cluster.api.clone();
    let watch = "GET /api/v1/configmaps?watch=true&resourceVersion=1";
    let (answer, ()) = tokio::join!(served.send(served.administrator(), watch, ""), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        api.stop();
    });
    assert!(answer.unwrap().starts_with("HTTP/1.1 200"), "the watch was open until then");
}
