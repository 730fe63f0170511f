//! The client against a machine's API on loopback: what it reads, and how it tells refusals apart.

mod server;

use lab_core::{Clock, Link};
use lab_talos::authority::{Algorithm, Authority, CLIENT_LIFETIME, Pair};
use lab_talos::client::{Error, Failure, Machine, Mode, Phase, Reason, Stored, probe};
use lab_talos::proto::definitions::enums::RuntimeMachineStage;
use lab_talos::proto::machine::apply_configuration_request::Mode as Wire;
use lab_talos::secrets::Credentials;
use server::{Face, Fake, Running, serve};
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

fn ago(seconds: u64) -> SystemTime {
    SystemTime::now() - Duration::from_secs(seconds)
}

const YEAR: u64 = 365 * 24 * 3600;

/// The machine authority of a cluster; every cluster's has the same name.
fn authority(seed: u8) -> Pair {
    Authority::generate(Algorithm::Ed25519, "talos", ago(3 * YEAR), [seed; 32])
}

fn credentials(ca: &Pair, signer: &Pair, not_before: SystemTime) -> Credentials {
    let pair = Authority::parse(signer).unwrap().issue_client("os:admin", None, not_before, CLIENT_LIFETIME, [8; 32]);
    Credentials { ca: ca.crt.clone(), crt: pair.crt, key: pair.key }
}

fn ours(authority: &Pair) -> Credentials {
    credentials(authority, authority, ago(60))
}

fn secure(running: &Running, credentials: &Credentials) -> Machine {
    Machine::secure(&Link::direct(), &running.address.to_string(), credentials).unwrap()
}

fn insecure(running: &Running) -> Machine {
    Machine::insecure(&Link::direct(), &running.address.to_string()).unwrap()
}

async fn check(machine: Machine, expected: Reason) -> Failure {
    // A call with an effect: the refusal must prove that there was none.
    let error = machine.bootstrap().await.unwrap_err();
    let Error::Unreachable(failure) = error.clone() else { panic!("{error:?}") };
    assert_eq!(failure.reason, expected, "{failure}");
    assert!(!error.may_have_effect(), "{failure}");
    failure
}

async fn phase(running: &Running, credentials: Option<&Credentials>) -> Phase {
    probe(&Link::direct(), &running.address.to_string(), credentials).await
}

#[tokio::test]
async fn a_configured_machine_answers_its_own_administrator() {
    let os = authority(1);
    let fake = Fake::default();
    let running = serve(Face::configured(&os), fake.clone()).await;
    let machine = secure(&running, &ours(&os));

    assert_eq!(machine.version().await.unwrap().version.unwrap().tag, "v1.11.6");
    assert_eq!(machine.hostname().await.unwrap(), "cp-1");
    assert_eq!(machine.nodename().await.unwrap(), "cp-1");
    assert_eq!(machine.disks().await.unwrap()[0].device_name, "/dev/sda");
    assert_eq!(machine.service_list().await.unwrap()[0].id, "etcd");
    assert_eq!(machine.etcd_member_list(true).await.unwrap()[0].id, u64::MAX);
    assert_eq!(machine.machine_config(Stored::Active).await.unwrap(), b"version: v1alpha1\n");
    let status = machine.machine_status().await.unwrap();
    assert_eq!(status.stage, RuntimeMachineStage::MachineStageBooting);
    assert!(!status.ready);
    assert_eq!(status.unmet, [("services".to_owned(), "etcd not running".to_owned())]);

    machine.reset(false, true, &["STATE", "EPHEMERAL"]).await.unwrap();
    let reset = fake.resets.lock().unwrap().pop().unwrap();
    assert!(!reset.graceful && reset.reboot);
    let wiped: Vec<_> = reset.system_partitions_to_wipe.iter().map(|part| (&*part.label, part.wipe)).collect();
    assert_eq!(wiped, [("STATE", true), ("EPHEMERAL", true)]);
}

#[tokio::test]
async fn a_machines_own_refusals_are_told_apart() {
    let os = authority(1);
    let running = serve(Face::configured(&os), Fake::default()).await;
    let machine = secure(&running, &ours(&os));
    assert_eq!(machine.bootstrap().await, Err(Error::AlreadyExists("etcd data directory is not empty".into())));
    assert_eq!(machine.reboot().await, Err(Error::NotAuthorised("not authorized".into())));
    assert_eq!(
        machine.apply_configuration(Vec::new(), Mode::Auto, false).await,
        Err(Error::Invalid("config not found".into()))
    );
    assert_eq!(machine.etcd_remove_member(1).await, Err(Error::NotFound("member not found".into())));
    let missing = machine.machine_config(Stored::Persistent).await.unwrap_err();
    assert!(matches!(missing, Error::NotFound(text) if text.contains("MachineConfigs(config/persistent@undefined)")));
}

#[tokio::test]
async fn a_configuration_is_never_sent_without_a_mode() {
    let os = authority(1);
    let fake = Fake::default();
    let running = serve(Face::configured(&os), fake.clone()).await;
    let machine = secure(&running, &ours(&os));
    for (mode, wire) in [
        (Mode::Auto, Wire::Auto),
        (Mode::NoReboot, Wire::NoReboot),
        (Mode::Reboot, Wire::Reboot),
        (Mode::Staged, Wire::Staged),
    ] {
        let applied = machine.apply_configuration(b"x".to_vec(), mode, true).await.unwrap();
        assert_eq!(applied.mode, Some(Mode::NoReboot));
        assert_eq!(applied.details, "Applied configuration without a reboot");
        let sent = fake.applied.lock().unwrap().pop().unwrap();
        assert_eq!((sent.mode(), sent.dry_run, &*sent.data), (wire, true, &b"x"[..]));
    }
}

#[tokio::test]
async fn a_kubeconfig_in_an_archive_that_is_never_closed_is_read() {
    let content = "apiVersion: v1\nkind: Config\n".repeat(100);
    let mut header = tar::Header::new_gnu();
    header.set_path("kubeconfig").unwrap();
    header.set_size(content.len() as u64);
    header.set_mode(0o600);
    header.set_cksum();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    gzip.write_all(header.as_bytes()).unwrap();
    gzip.write_all(content.as_bytes()).unwrap();
    let os = authority(1);
    let fake = Fake { kubeconfig: gzip.finish().unwrap(), ..Fake::default() };
    let running = serve(Face::configured(&os), fake).await;
    assert_eq!(secure(&running, &ours(&os)).kubeconfig().await.unwrap(), content);
}

#[tokio::test]
async fn a_machine_in_maintenance_takes_a_configuration_from_anybody() {
    let fake = Fake { maintenance: true, ..Fake::default() };
    let running = serve(Face::maintenance(), fake.clone()).await;
    let machine = insecure(&running);
    assert_eq!(machine.fingerprint(), None);
    assert!(matches!(machine.version().await, Err(Error::Maintenance(_))));
    assert!(matches!(machine.bootstrap().await, Err(Error::Maintenance(_))));
    assert_eq!(machine.disks().await.unwrap().len(), 1);
    let applied = machine.apply_configuration(b"x".to_vec(), Mode::Auto, false).await.unwrap();
    assert_eq!((applied.mode, applied.warnings), (None, vec!["odd".to_owned()]));
    assert_eq!(fake.applied.lock().unwrap().len(), 1);

    let fingerprint = machine.fingerprint().unwrap();
    let pinned =
        |fingerprint: &str| Machine::pinned(&Link::direct(), &running.address.to_string(), fingerprint).unwrap();
    assert_eq!(pinned(&fingerprint).disks().await.unwrap().len(), 1);
    let failure = check(pinned("AAAA"), Reason::WrongFingerprint).await;
    assert!(
        failure.text.contains("leaf peer certificate doesn't match the provided fingerprints: [AAAA]"),
        "{failure}"
    );
}

#[tokio::test]
async fn the_fingerprint_is_that_of_the_public_key() {
    use base64::Engine;
    use sha2::Digest;
    let running = serve(Face::maintenance(), Fake { maintenance: true, ..Fake::default() }).await;
    let (_, pem) = x509_parser::pem::parse_x509_pem(running.certificate.crt.as_bytes()).unwrap();
    let expected = sha2::Sha256::digest(pem.parse_x509().unwrap().public_key().raw);
    let fingerprint = base64::engine::general_purpose::STANDARD.encode(expected);
    assert_eq!(phase(&running, None).await, Phase::Maintenance { fingerprint: fingerprint.clone() });
    // Credentials make no difference: a machine in maintenance does not ask for them.
    assert_eq!(phase(&running, Some(&ours(&authority(1)))).await, Phase::Maintenance { fingerprint });
}

#[tokio::test]
async fn refused_certificates_are_told_apart_and_prove_that_nothing_was_sent() {
    let (os, other) = (authority(1), authority(2));
    let running = serve(Face::configured(&os), Fake::default()).await;
    check(insecure(&running), Reason::CertificateRequired).await;
    check(secure(&running, &ours(&other)), Reason::Untrusted).await;
    check(secure(&running, &credentials(&os, &other, ago(60))), Reason::CertificateRefused).await;
    check(secure(&running, &credentials(&os, &os, ago(2 * YEAR))), Reason::CertificateExpired).await;

    let expired = serve(Face { not_before: ago(2 * YEAR), ..Face::configured(&os) }, Fake::default()).await;
    check(secure(&expired, &ours(&os)), Reason::Expired).await;
    let elsewhere = serve(Face { names: vec!["10.69.1.101".into()], ..Face::configured(&os) }, Fake::default()).await;
    check(secure(&elsewhere, &ours(&os)), Reason::WrongName).await;
}

#[tokio::test]
async fn an_authority_with_an_ecdsa_key_serves_as_well() {
    let os = Authority::generate(Algorithm::P256, "talos", ago(60), [3; 32]);
    let running = serve(Face::configured(&os), Fake::default()).await;
    secure(&running, &ours(&os)).version().await.unwrap();
    assert_eq!(phase(&running, Some(&ours(&os))).await, Phase::Ours);
}

#[tokio::test]
async fn certificates_are_judged_by_the_clock_of_the_run() {
    let os = authority(1);
    let running = serve(Face::configured(&os), Fake::default()).await;
    let later = Clock::starting(SystemTime::now() + Duration::from_secs(2 * YEAR), 1);
    let link = Link::direct().on(later);
    check(Machine::secure(&link, &running.address.to_string(), &ours(&os)).unwrap(), Reason::Expired).await;
}

#[tokio::test]
async fn where_nothing_answers_nothing_was_sent() {
    let os = authority(1);
    let running = serve(Face::configured(&os), Fake::default()).await;
    let address = running.address;
    drop(running);
    check(Machine::secure(&Link::direct(), &address.to_string(), &ours(&os)).unwrap(), Reason::Dial).await;
    let nowhere = Link::memory(Arc::new(()));
    let failure = check(Machine::insecure(&nowhere, "10.69.1.101").unwrap(), Reason::Dial).await;
    assert!(failure.text.contains("10.69.1.101:50000"), "{failure}");
    assert!(matches!(probe(&nowhere, "10.69.1.101", Some(&ours(&os))).await, Phase::Unreachable(_)));
}

#[tokio::test]
async fn what_does_not_speak_tls_is_unreachable() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.ok();
        }
    });
    check(Machine::insecure(&Link::direct(), &address).unwrap(), Reason::Protocol).await;
    assert!(matches!(probe(&Link::direct(), &address, None).await, Phase::Unreachable(_)));
}

#[tokio::test]
async fn a_call_that_was_cut_off_may_have_had_an_effect() {
    let os = authority(1);
    let running = serve(Face::configured(&os), Fake { stuck: true, ..Fake::default() }).await;
    let link = Link::through(cutting_proxy(running.address).await);
    let machine = Machine::secure(&link, &running.address.to_string(), &ours(&os)).unwrap();
    let error = machine.bootstrap().await.unwrap_err();
    let Error::Unreachable(failure) = &error else { panic!("{error:?}") };
    assert_eq!(failure.reason, Reason::Lost, "{failure}");
    assert!(error.may_have_effect());
}

/// A CONNECT proxy whose tunnels break after a second, as a machine's connections do when it loses power.
async fn cutting_proxy(target: std::net::SocketAddr) -> std::net::SocketAddr {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            assert!(head.starts_with(format!("CONNECT {target} HTTP/1.1").as_bytes()));
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let mut server = tokio::net::TcpStream::connect(target).await.unwrap();
            let tunnel = tokio::io::copy_bidirectional(&mut client, &mut server);
            tokio::time::timeout(Duration::from_secs(1), tunnel).await.ok();
        }
    });
    address
}

#[tokio::test]
async fn a_machine_that_comes_back_is_reached_again() {
    let os = authority(1);
    let running = serve(Face::configured(&os), Fake::default()).await;
    let link = Link::through(cutting_proxy(running.address).await);
    let machine = Machine::secure(&link, &running.address.to_string(), &ours(&os)).unwrap();
    for _ in 0..3 {
        machine.version().await.unwrap();
        tokio::time::sleep(Duration::from_millis(1200)).await;
    }
}

#[tokio::test]
async fn a_probe_tells_ours_from_foreign() {
    let (os, other) = (authority(1), authority(2));
    let running = serve(Face::configured(&os), Fake::default()).await;
    let reason = |phase: Phase| match phase {
        Phase::Foreign(failure) => failure.reason,
        phase => panic!("{phase:?}"),
    };
    assert_eq!(phase(&running, Some(&ours(&os))).await, Phase::Ours);
    assert_eq!(reason(phase(&running, None).await), Reason::CertificateRequired);
    assert_eq!(reason(phase(&running, Some(&ours(&other))).await), Reason::Untrusted);
    assert_eq!(reason(phase(&running, Some(&credentials(&os, &other, ago(60)))).await), Reason::CertificateRefused);
    assert_eq!(reason(phase(&running, Some(&credentials(&os, &os, ago(2 * YEAR)))).await), Reason::CertificateExpired);

    // An expired server certificate proves nothing either way.
    let expired = serve(Face { not_before: ago(2 * YEAR), ..Face::configured(&os) }, Fake::default()).await;
    assert!(
        matches!(phase(&expired, Some(&ours(&os))).await, Phase::Unreachable(failure) if failure.reason == Reason::Expired)
    );
}
