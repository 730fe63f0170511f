//! Trust between the client and the API server, over real TLS on loopback.

use lab_core::Link;
use lab_kube::{Class, Client, Effect, Key, Problem, kinds};
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Starts a server of one certificate that answers every request with an empty object, and returns its port.
async fn server(certified: &rcgen::CertifiedKey<rcgen::KeyPair>) -> u16 {
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let chain = vec![certified.cert.der().clone()];
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { break };
                head.push(byte);
            }
            let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
        }
    });
    port
}

fn client(port: u16, authority: &rcgen::Certificate) -> Client {
    use base64::Engine as _;
    let authority = base64::engine::general_purpose::STANDARD.encode(authority.pem());
    let cluster = json!({"server": format!("https://127.0.0.1:{port}"), "certificate-authority-data": authority});
    let config = json!({"current-context": "c", "clusters": [{"name": "k", "cluster": cluster}],
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": ""}}]});
    Client::connect(config.to_string().as_bytes(), &Link::direct()).unwrap()
}

fn certified(name: &str) -> rcgen::CertifiedKey<rcgen::KeyPair> {
    rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap()
}

#[tokio::test]
async fn only_the_cluster_of_the_kubeconfig_is_trusted() {
    let (ours, other, elsewhere) = (certified("127.0.0.1"), certified("127.0.0.1"), certified("10.69.1.101"));
    let key: Key = "v1/Namespace media".parse().unwrap();
    let kind = kinds::known("v1", "Namespace").unwrap();
    let port = server(&ours).await;
    assert_eq!(client(port, &ours.cert).get(&kind, &key).await.unwrap(), Some(json!({})));
    let wrong_name = server(&elsewhere).await;
    for client in [client(port, &other.cert), client(wrong_name, &elsewhere.cert)] {
        let error = client.get(&kind, &key).await.unwrap_err();
        assert_eq!((error.class, error.effect), (Class::Unauthorised, Effect::None), "{error}");
        assert_eq!(error.problem, Problem::Certificate);
        assert!(error.message.contains("no trust between us and the API server"), "{error}");
    }
}
