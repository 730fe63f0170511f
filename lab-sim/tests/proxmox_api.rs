//! The simulated Proxmox API as a client meets it: transport, tokens, checks, nodes.

mod proxmox;

use lab_sim::Faults;
use lab_sim::proxmox::Token;
use proxmox::{Lab, SECRET, TOKEN, cluster, errors};
use serde_json::json;

#[tokio::test]
async fn a_host_shows_the_certificate_whose_fingerprint_the_rack_says() {
    let lab = Lab::start().await;
    let stream = lab.secure("pve2").await.unwrap();
    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    let digest = <sha2::Sha256 as sha2::Digest>::digest(&shown);
    let pairs: Vec<_> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    assert_eq!(pairs.join(":"), lab.cluster.fingerprint("pve2"));
    assert_ne!(lab.cluster.fingerprint("pve1"), lab.cluster.fingerprint("pve2"));
    let nodes = lab.get("/nodes").await.data();
    assert_eq!(nodes[1]["ssl_fingerprint"], lab.cluster.fingerprint("pve2"));
}

#[tokio::test]
async fn a_token_is_asked_for_and_a_wrong_one_gets_an_empty_401() {
    let mut lab = Lab::start().await;
    assert_eq!(lab.get("/version").await.data()["version"], "9.1.2");
    lab.token = format!("PVEAPIToken {TOKEN}={SECRET}");
    assert_eq!(lab.get("/version").await.status, 200);
    lab.token = format!("PVEAPIToken={TOKEN}=wrong");
    let answer = lab.get("/version").await;
    assert_eq!(
        (answer.status, answer.phrase.as_str(), answer.body.as_slice()),
        (401, "Authentication failed!", &b""[..])
    );
    lab.token = "nothing".to_owned();
    assert_eq!(lab.get("/version").await.refused(), (401, "No ticket".to_owned()));
}

#[tokio::test]
async fn the_transport_refuses_what_the_server_refuses() {
    let lab = Lab::start().await;
    let head = |first: &str| format!("{first} HTTP/1.1\r\nAuthorization: {}", lab.token);
    let answer = lab.send("pve1", &head("DELETE /api2/json/nodes/pve1/qemu/100"), b"purge=1").await.unwrap();
    assert_eq!(answer.refused(), (501, "Unexpected content for method 'DELETE'".to_owned()));
    assert_eq!(answer.body, b"Unexpected content for method 'DELETE'");
    let chunked = head("POST /api2/json/pools") + "\r\nTransfer-Encoding: chunked";
    let answer = lab.send("pve1", &chunked, b"").await.unwrap();
    assert_eq!(answer.refused(), (501, "chunked transfer encoding not supported".to_owned()));
    let answer = lab.send("pve1", &head("POST /api2/json/pools"), &vec![b'x'; 600 * 1024]).await;
    // The server answers before it read the body; the rest of it may break the connection.
    if let Ok(answer) = answer {
        assert_eq!(answer.refused(), (501, "for data too large".to_owned()));
    }
    let answer = lab.get("/nodes/pve1/lxc").await;
    assert_eq!(answer.refused(), (501, "not simulated: GET /nodes/pve1/lxc".to_owned()));
}

#[tokio::test]
async fn parameters_are_checked_and_the_message_stands_in_the_phrase_and_in_the_body() {
    let lab = Lab::start().await;
    let answer = lab.post("/nodes/pve1/qemu", &[("vmid", "100"), ("cores", "abc"), ("foo", "1")]).await;
    assert_eq!(
        answer.errors(),
        json!({
            "cores": "type check ('integer') failed - got 'abc'",
            "foo": "property is not defined in schema and the schema does not allow additional properties",
        })
    );
    assert_eq!(answer.json()["message"], "Parameter verification failed.\n");
    assert!(answer.head.to_lowercase().contains("connection: close"));
    let answer = lab.get("/cluster/nextid?vmid=99").await;
    assert_eq!(answer.errors(), errors("vmid", "invalid format - value does not look like a valid VM ID\n"));
    // JSON bodies are understood too.
    let head =
        format!("POST /api2/json/pools HTTP/1.1\r\nAuthorization: {}\r\nContent-Type: application/json", lab.token);
    let answer = lab.send("pve1", &head, br#"{"poolid": "dev", "comment": "a"}"#).await.unwrap();
    assert_eq!(answer.data(), json!(null));
}

#[tokio::test]
async fn a_missing_privilege_is_refused_with_its_path_and_name() {
    let mut cluster = cluster();
    cluster.tokens = vec![
        Token::new(TOKEN, SECRET)
            .allow("/vms", &["VM.Audit", "VM.Allocate", "VM.Config.Options"])
            .allow("/storage", &["Datastore.Audit"]),
    ];
    let lab = Lab::of(cluster, Faults::none()).await;
    let answer = lab.post("/nodes/pve1/qemu", &[("vmid", "100"), ("memory", "512")]).await;
    assert_eq!(answer.refused(), (403, "Permission check failed (/vms/100, VM.Config.Memory)".to_owned()));
    let answer = lab.post("/pools", &[("poolid", "dev")]).await;
    assert_eq!(answer.refused(), (403, "Permission check failed (/pool/dev, Pool.Allocate)".to_owned()));
    let answer = lab.get("/nodes/pve1/status").await;
    assert_eq!(answer.refused(), (403, "Permission check failed (/nodes/pve1, Sys.Audit)".to_owned()));
    assert_eq!(lab.task("POST", "/nodes/pve1/qemu", &[("vmid", "100"), ("name", "a")]).await, "OK");
    let answer = lab.post("/nodes/pve1/qemu/100/clone", &[("newid", "101")]).await;
    assert_eq!(answer.refused(), (403, "Permission check failed (/vms/100, VM.Clone)".to_owned()));
    assert_eq!(
        lab.get("/access/permissions").await.data()["/vms"],
        json!({"VM.Allocate": 1, "VM.Audit": 1, "VM.Config.Options": 1})
    );
}

#[tokio::test]
async fn what_only_root_may_is_refused_to_every_token() {
    let lab = Lab::start().await;
    let answer = lab.post("/nodes/pve1/qemu", &[("vmid", "100"), ("args", "-x")]).await;
    assert_eq!(answer.refused(), (500, "only root can set 'args' config".to_owned()));
    let answer = lab.post("/nodes/pve1/qemu", &[("vmid", "100"), ("scsi0", "/dev/sda")]).await;
    assert_eq!(answer.refused(), (500, "Only root can pass arbitrary filesystem paths.".to_owned()));
}

#[tokio::test]
async fn any_node_answers_for_any_other_unless_that_one_is_down() {
    let lab = Lab::start().await;
    lab.machine(100, &[]).await;
    let seen = lab.ask("pve3", "GET", "/nodes/pve1/qemu/100/config", &[]).await.unwrap();
    assert_eq!(seen.data()["name"], "a");
    let missing = lab.ask("pve3", "GET", "/nodes/pve2/qemu/100/config", &[]).await.unwrap();
    let text = "Configuration file 'nodes/pve2/qemu-server/100.conf' does not exist";
    assert_eq!(missing.refused(), (500, text.to_owned()));
    let (status, phrase) = lab.get("/nodes/pve1.lan/qemu").await.refused();
    // The dot makes it no node name at all; a name without one is looked up.
    assert!(status == 400 || phrase.starts_with("hostname lookup"), "{status} {phrase}");
    let (status, phrase) = lab.get("/nodes/other/qemu").await.refused();
    assert_eq!(status, 500);
    assert!(phrase.starts_with("hostname lookup 'other' failed"), "{phrase}");
    lab.running.power_loss("10.0.0.11".parse().unwrap(), false);
    let answer = lab.ask("pve3", "GET", "/nodes/pve1/qemu/100/config", &[]).await.unwrap();
    assert_eq!(answer.refused(), (595, "No route to host".to_owned()));
    let nodes = lab.ask("pve3", "GET", "/nodes", &[]).await.unwrap().data();
    assert_eq!((&nodes[0]["status"], &nodes[2]["status"]), (&json!("offline"), &json!("online")));
    assert!(lab.tunnel("10.0.0.11", 8006).await.unwrap_err().to_string().contains("504"));
}

#[tokio::test]
async fn without_a_majority_nothing_is_written() {
    let lab = Lab::start().await;
    lab.machine(100, &[]).await;
    for host in ["10.0.0.12", "10.0.0.13"] {
        lab.running.power_loss(host.parse().unwrap(), false);
    }
    let text = "cluster not ready - no quorum?";
    let answer = lab.put("/nodes/pve1/qemu/100/config", &[("cores", "2")]).await;
    assert_eq!(answer.refused(), (500, text.to_owned()));
    assert_eq!(lab.post("/pools", &[("poolid", "dev")]).await.refused(), (500, text.to_owned()));
    assert_eq!(lab.task("POST", "/nodes/pve1/qemu/100/status/start", &[]).await, text);
    let status = lab.get("/cluster/status").await.data();
    assert_eq!(status[0]["quorate"], 0);
    assert_eq!(lab.config(100).await["name"], "a");
}
