//! The client over real sockets: a scripted server on loopback says what an API server would.

use lab_core::Link;
use lab_kube::client::Deleted;
use lab_kube::request::{Apply, Propagation, Selection};
use lab_kube::{Class, Client, Effect, Key, Problem, kinds};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the server does with one request.
enum Say {
    /// Answers with a status code, headers and a body.
    Json(u16, &'static str, Value),
    /// Takes the request and hangs up: the reply is lost.
    Nothing,
    /// Takes the request and never answers.
    Silence,
}

struct Server {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
}

/// Starts a server that answers one request after the other, each on its own connection. A CONNECT is granted and the
/// tunnel served, as the proxy of a simulated lab does it.
async fn server(script: Vec<Say>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let log = heard.clone();
    tokio::spawn(async move {
        let mut open = Vec::new();
        for say in script {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = read(&mut stream).await;
            if request.starts_with("CONNECT ") {
                log.lock().unwrap().push(request);
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                request = read(&mut stream).await;
            }
            log.lock().unwrap().push(request);
            match say {
                Say::Json(code, headers, body) => {
                    let body = body.to_string();
                    let head = format!("HTTP/1.1 {code} X\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
                    stream.write_all(format!("{head}{headers}\r\n{body}").as_bytes()).await.unwrap();
                }
                Say::Nothing => drop(stream),
                Say::Silence => open.push(stream),
            }
        }
        std::future::pending::<()>().await;
    });
    Server { address, heard }
}

/// Reads one request with its body; returns its first line and the body.
async fn read(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(bytes).unwrap();
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.unwrap();
    format!("{} {}", head.lines().next().unwrap(), String::from_utf8(body).unwrap()).trim().to_owned()
}

fn kubeconfig(server: &str) -> String {
    let user = json!({"name": "u", "user": {"token": "t"}});
    json!({"apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [user],
        "clusters": [{"name": "k", "cluster": {"server": server}}],
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}]})
    .to_string()
}

fn client(server: &Server) -> Client {
    let config = kubeconfig(&format!("http://{}", server.address));
    Client::connect(config.as_bytes(), &Link::direct()).unwrap()
}

fn plex() -> (lab_kube::Kind, Key) {
    (kinds::known("apps/v1", "Deployment").unwrap(), "apps/v1/Deployment media/plex".parse().unwrap())
}

fn status(code: u16, reason: &str, details: Value) -> Say {
    Say::Json(code, "", json!({"kind": "Status", "reason": reason, "message": reason, "details": details}))
}

#[tokio::test]
async fn an_object_is_read_and_a_missing_one_is_none() {
    let missing = status(404, "NotFound", json!({"name": "plex", "kind": "deployments"}));
    let server = server(vec![Say::Json(200, "", json!({"kind": "Deployment"})), missing]).await;
    let (kind, key) = plex();
    assert_eq!(client(&server).get(&kind, &key).await.unwrap(), Some(json!({"kind": "Deployment"})));
    assert_eq!(client(&server).get(&kind, &key).await.unwrap(), None);
}

#[tokio::test]
async fn a_kind_is_absent_only_when_no_version_of_it_is_served() {
    let (kind, key) = plex();
    let server1 = server(vec![status(404, "", json!({})), status(404, "", json!({}))]).await;
    assert_eq!(client(&server1).get(&kind, &key).await.unwrap(), None);
    assert_eq!(server1.heard.lock().unwrap()[1], "GET /apis/apps HTTP/1.1");

    let versions = json!({"versions": [{"version": "v2"}], "preferredVersion": {"version": "v2"}});
    let resources = json!({"resources": [{"kind": "Deployment", "name": "deployments/scale"},
        {"kind": "Deployment", "name": "deployments", "namespaced": true}]});
    let object = json!({"apiVersion": "apps/v2"});
    let say = |body: &Value| Say::Json(200, "", body.clone());
    let server2 = server(vec![status(404, "", json!({})), say(&versions), say(&resources), say(&object)]).await;
    assert_eq!(client(&server2).get(&kind, &key).await.unwrap(), Some(object));
    assert_eq!(server2.heard.lock().unwrap()[3], "GET /apis/apps/v2/namespaces/media/deployments/plex HTTP/1.1");
}

#[tokio::test]
async fn a_create_says_what_it_made_and_what_the_server_warns_of() {
    let warning = "warning: 299 - \"would violate \\\"restricted\\\"\"\r\n";
    let server = server(vec![Say::Json(201, warning, json!({"metadata": {"uid": "u"}}))]).await;
    let (kind, key) = plex();
    let applied = client(&server).apply(&kind, &key, &json!({"metadata": {}}), &Apply::create()).await.unwrap();
    assert!(applied.created);
    assert_eq!(applied.warnings, ["would violate \"restricted\""]);
    assert!(server.heard.lock().unwrap()[0].ends_with(r#"{"metadata":{"resourceVersion":"1"}}"#));
}

#[tokio::test]
async fn what_exists_is_not_adopted_by_a_create() {
    let server = server(vec![status(409, "Conflict", json!({}))]).await;
    let (kind, key) = plex();
    let error = client(&server).apply(&kind, &key, &json!({}), &Apply::create()).await.unwrap_err();
    assert_eq!((error.class, error.effect, error.problem), (Class::Conflict, Effect::None, Problem::Exists));
}

#[tokio::test]
async fn a_lost_reply_may_have_had_an_effect_and_is_not_sent_again() {
    let server = server(vec![Say::Nothing, Say::Json(200, "", json!({}))]).await;
    let (kind, key) = plex();
    let error = client(&server).apply(&kind, &key, &json!({}), &Apply::create()).await.unwrap_err();
    assert_eq!((error.class, error.effect), (Class::Unreachable, Effect::Perhaps), "{error}");
    assert_eq!(server.heard.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_busy_server_is_asked_once() {
    let server = server(vec![status(503, "ServiceUnavailable", json!({})), Say::Json(200, "", json!({}))]).await;
    let (kind, key) = plex();
    let error = client(&server).get(&kind, &key).await.unwrap_err();
    assert_eq!((error.class, error.effect), (Class::Again, Effect::None));
    assert_eq!(server.heard.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_server_that_is_silent_is_given_up() {
    let server = server(vec![Say::Silence]).await;
    let (kind, key) = plex();
    let client = client(&server).timeout(Duration::from_millis(100));
    let error = client.delete(&kind, &key, "u", Propagation::Foreground).await.unwrap_err();
    assert_eq!((error.problem, error.effect), (Problem::Timeout, Effect::Perhaps));
}

#[tokio::test]
async fn a_server_that_refuses_connections_has_no_effect() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = Client::connect(kubeconfig(&format!("http://{closed}")).as_bytes(), &Link::direct()).unwrap();
    let (kind, key) = plex();
    let error = client.apply(&kind, &key, &json!({}), &Apply::create()).await.unwrap_err();
    assert_eq!((error.class, error.effect), (Class::Unreachable, Effect::None), "{error}");
    assert!(error.message.contains("does not answer"), "{error}");
}

#[tokio::test]
async fn a_deletion_is_gone_or_leaving() {
    let leaving = json!({"kind": "Deployment", "metadata": {"deletionTimestamp": "t"}});
    let missing = status(404, "NotFound", json!({"name": "plex"}));
    let script = vec![Say::Json(200, "", leaving.clone()), Say::Json(200, "", json!({"kind": "Status"})), missing];
    let server = server(script).await;
    let (kind, key) = plex();
    let delete = || async { client(&server).delete(&kind, &key, "u", Propagation::Foreground).await.unwrap() };
    assert_eq!(delete().await, Deleted::Leaving(Some(leaving)));
    assert_eq!(delete().await, Deleted::Gone);
    assert_eq!(delete().await, Deleted::Gone);
}

#[tokio::test]
async fn a_list_is_read_to_its_last_page() {
    let first = json!({"items": [1], "metadata": {"continue": "more"}});
    let server = server(vec![Say::Json(200, "", first), Say::Json(200, "", json!({"items": [2]}))]).await;
    let pods = kinds::known("v1", "Pod").unwrap();
    let all = client(&server).list(&pods, Some("media"), &Selection::default()).await.unwrap();
    assert_eq!(all, [json!(1), json!(2)]);
    assert!(server.heard.lock().unwrap()[1].contains("continue=more"));
}

#[tokio::test]
async fn a_rehearsed_cluster_is_reached_through_the_proxy_only() {
    let server = server(vec![Say::Json(200, "", json!({}))]).await;
    let config = kubeconfig("http://10.69.1.101:6443");
    let client = Client::connect(config.as_bytes(), &Link::through(server.address)).unwrap();
    let (kind, key) = plex();
    client.get(&kind, &key).await.unwrap();
    assert_eq!(server.heard.lock().unwrap()[0], "CONNECT 10.69.1.101:6443 HTTP/1.1");
}

#[tokio::test]
async fn a_kubeconfig_that_leads_to_this_machine_is_refused() {
    let refused = |change: fn(&mut Value), part: &str| {
        let mut config: Value = serde_json::from_str(&kubeconfig("http://127.0.0.1:1")).unwrap();
        change(&mut config);
        let error = Client::connect(config.to_string().as_bytes(), &Link::direct()).unwrap_err();
        assert!(error.message.contains(part), "{error}");
        assert_eq!(error.class, Class::Invalid);
    };
    refused(|config| config["users"][0]["user"]["client-key"] = json!("/home/me/key"), "client-key");
    refused(|config| config["users"][0]["user"]["exec"] = json!({"command": "x"}), "exec");
    refused(|config| config["clusters"][0]["cluster"]["certificate-authority"] = json!("/ca"), "certificate-authority");
    refused(|config| config["current-context"] = json!("other"), "no context \"other\"");
    refused(|config| config["clusters"][0]["cluster"]["certificate-authority-data"] = json!("eA=="), "PEM");
    let error = Client::connect(b"- secret", &Link::direct()).unwrap_err();
    assert!(!error.message.contains("secret"), "{error}");
    let nowhere = Link::memory(Arc::new(()));
    let error = Client::connect(kubeconfig("http://127.0.0.1:1").as_bytes(), &nowhere).unwrap_err();
    assert_eq!(error.problem, Problem::Unreachable);
}

/// A real server says no more than 401: it does not tell a stranger what is wrong with its certificate.
#[tokio::test]
async fn an_expired_client_certificate_is_said_to_be_expired() {
    let Some(assets) = lab_sim::Assets::find().unwrap() else {
        let how = "tests/control-plane/build DIRECTORY makes one; then set KUBEBUILDER_ASSETS=DIRECTORY";
        let test = "an_expired_client_certificate_is_said_to_be_expired";
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            format!("SKIPPED {test}: there is no real control plane. {how}\n").as_bytes(),
        );
        return;
    };
    let plane = lab_sim::ControlPlane::start_api(&assets).await.unwrap();
    let key: Key = "v1/Namespace default".parse().unwrap();
    let kind = kinds::known("v1", "Namespace").unwrap();
    let ask = async |kubeconfig: String| {
        Client::connect(kubeconfig.as_bytes(), &Link::direct()).unwrap().get(&kind, &key).await
    };
    assert!(ask(plane.kubeconfig()).await.unwrap().is_some());
    let end = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_599);
    let error = ask(plane.kubeconfig_until(end).unwrap()).await.unwrap_err();
    assert_eq!((error.class, error.effect), (Class::Unauthorised, Effect::None), "{error}");
    assert_eq!(
        error.message,
        "read v1/Namespace default: the API server does not accept the credentials: the client certificate of the \
         kubeconfig expired at 2025-12-31T23:59:59Z; give its provider a new kubeconfig"
    );
}
