//! What a program is made with, by the command line: fetched over HTTPS, kept in the lab directory, never in a rehearsal.

use lab_cli::{Lab, Machine, Surroundings};
use lab_core::execute::seal::Keys;
use lab_core::execute::{KeySource, Simulated, Simulator};
use lab_core::testing::{Memory, Pantry, Thing, World};
use lab_core::{Asset, Clock, Link, ProgramError, Stack, Supply};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::RootCertStore;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::future::Future;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

/// A server on loopback that answers what a function says, and the machine that trusts it.
struct Server {
    address: SocketAddr,
    roots: RootCertStore,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// `answer` is given the path and where the server is, and returns the whole answer as it goes over the wire.
    fn start(answer: impl Fn(&str, SocketAddr) -> Vec<u8> + Send + 'static) -> Server {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        // It ends with the process of the tests.
        std::thread::spawn(move || {
            let tls = Arc::new(tls);
            for tcp in listener.incoming().flatten() {
                let mut stream = rustls::StreamOwned::new(rustls::ServerConnection::new(tls.clone()).unwrap(), tcp);
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                    request.push(byte[0]);
                }
                // Who does not trust it says nothing.
                let request = String::from_utf8_lossy(&request).into_owned();
                let Some(path) = request.split(' ').nth(1) else { continue };
                log.lock().unwrap().push(path.to_owned());
                let _ = stream.write_all(&answer(path, address));
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        });
        Server { address, roots, asked }
    }

    fn machine(&self) -> Machine {
        Machine::new(Link::direct(), "").trusting(self.roots.clone())
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// Returns what fetching a path comes to, without the number of the port.
    fn fetch(&self, path: &str) -> Result<String, String> {
        let port = self.address.port().to_string();
        let fetched = self.machine().fetch(&self.url(path), "");
        fetched.map(|bytes| String::from_utf8(bytes).unwrap()).map_err(|why| why.replace(&port, "PORT"))
    }
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()).into_bytes()
}

fn moved(to: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes()
}

fn published() -> Server {
    Server::start(|path, here| match path {
        "/release" => moved("/assets/bundle.yaml?signed=1"),
        "/whole" => moved(&format!("https://{here}/assets/bundle.yaml?signed=1")),
        "/assets/bundle.yaml?signed=1" => ok("kind: Namespace\n"),
        "/plain" => moved("http://127.0.0.1/assets/bundle.yaml"),
        "/round" => moved("/round"),
        "/cut" => b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nkind".to_vec(),
        "/large" => b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nkind".to_vec(),
        _ => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec(),
    })
}

#[test]
fn a_release_is_fetched_from_wherever_it_was_moved_to() {
    let server = published();
    assert_eq!(server.fetch("/release"), Ok("kind: Namespace\n".into()));
    assert_eq!(server.fetch("/whole"), Ok("kind: Namespace\n".into()));
}

#[test]
fn what_goes_wrong_is_said_with_the_server() {
    let server = published();
    let said = |path| server.fetch(path).unwrap_err();
    assert_eq!(said("/elsewhere"), "127.0.0.1:PORT answers 404 Not Found");
    assert_eq!(
        said("/plain"),
        "it was redirected: http://127.0.0.1/assets/bundle.yaml is not fetched, since it does not begin with https://"
    );
    assert_eq!(said("/round"), "it was redirected more than 5 times");
    assert_eq!(said("/large"), "it has more than 64 MiB, which is not fetched");
    assert!(said("/cut").starts_with("127.0.0.1:PORT: "), "{}", said("/cut"));
}

#[test]
fn a_server_that_nobody_vouches_for_is_not_asked() {
    let (server, other) = (published(), published());
    let machine = Machine::new(Link::direct(), "").trusting(other.roots.clone());
    let why = machine.fetch(&server.url("/release"), "").unwrap_err();
    assert!(why.contains("certificate"), "{why}");
    assert_eq!(*server.asked.lock().unwrap(), [""; 0]);
}

#[test]
fn it_goes_the_way_of_the_run_or_not_at_all() {
    let server = published();
    let nowhere = Machine::new(Link::memory(Arc::new(())), "").trusting(server.roots.clone());
    let why = nowhere.fetch(&server.url("/release"), "").unwrap_err();
    assert_eq!(why, format!("{}: this run has no network", server.address));
    assert_eq!(*server.asked.lock().unwrap(), [""; 0]);
}

const URL: &str = "https://example.org/things.txt";
const DIGEST: &str = "56b6e04dbc045629b97b35036b04189752681f7d4f5a73ca7848080e7ee0547a";

fn declare(stack: &Stack, things: &Asset) {
    let memory = stack.provider("memory", Memory::at("cellar"));
    let text = things.bytes().map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()).unwrap_or_default();
    for line in text.lines() {
        memory.resource(line).add(Thing::new(line, "here"));
    }
}

fn program(stack: &Stack) -> Result<(), ProgramError> {
    declare(stack, &stack.asset(URL, DIGEST));
    Ok(())
}

/// Runs a command line on a lab directory; returns its exit code and what it printed.
fn run(dir: &Path, world: &Arc<World>, supply: Option<&Pantry>, verb: &str) -> (u8, String, String) {
    let (mut around, transcript) = Surroundings::captured();
    around.link = Some(Link::memory(world.clone()).on(Clock::scaled(1000)));
    around.keys = Some(KeySource::Given(Keys::fixed()));
    around.supply = supply.map(|pantry| Arc::new(pantry.clone()) as Arc<dyn Supply>);
    let arguments: Vec<String> =
        ["lab", "--state", &dir.display().to_string()].into_iter().chain(verb.split(' ')).map(str::to_owned).collect();
    let exit = Lab::new("lab", program).hardware(Cellar).run_with(arguments, around);
    (exit, transcript.out(), transcript.err())
}

#[test]
fn a_preview_keeps_what_it_fetches_and_whoever_comes_next_needs_no_network() {
    let (dir, world, pantry) = (tempfile::tempdir().unwrap(), Arc::<World>::default(), Pantry::new());
    let state = dir.path().join("state");
    pantry.put(URL, "lamp\nradio\n");
    let (exit, out, err) = run(&state, &world, Some(&pantry), "preview");
    assert_eq!((exit, err.as_str()), (0, ""));
    assert!(out.contains("lab: 2 to create"), "{out}");
    assert_eq!(pantry.asked(), [format!("fetch {URL}")]);
    assert!(state.join("assets").join(DIGEST).is_file());
    assert_eq!(std::fs::read_dir(&state).unwrap().count(), 1, "a preview writes nothing else");

    // No supply: this machine, and no network.
    let (exit, _, err) = run(&state, &world, None, "up --yes");
    assert_eq!((exit, err.as_str()), (0, ""));
    let (exit, out, _) = run(&state, &world, None, "rehearse");
    assert_eq!(exit, 0, "{out}");
    assert!(out.contains("The second plan is empty"), "{out}");
}

#[test]
fn a_rehearsal_fetches_nothing_and_says_who_does() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::<World>::default());
    let state = dir.path().join("state");
    let (exit, out, err) = run(&state, &world, None, "rehearse");
    assert_eq!(exit, 1, "{out}");
    let kept = state.join("assets");
    let why = format!(
        "failed to fetch {URL}: nothing is fetched in a rehearsal; `lab preview` fetches it, and keeps it in {}",
        kept.display()
    );
    assert!(out.contains(&why) || err.contains(&why), "{out}{err}");
}

#[test]
fn what_is_not_as_it_was_pinned_is_told_with_the_line_and_nothing_goes() {
    let (dir, world, pantry) = (tempfile::tempdir().unwrap(), Arc::<World>::default(), Pantry::new());
    pantry.put(URL, "lamp\nradio\n");
    assert_eq!(run(dir.path(), &world, Some(&pantry), "up --yes").0, 0);
    std::fs::remove_dir_all(dir.path().join("assets")).unwrap();
    pantry.put(URL, "lamp\n");
    let (exit, out, err) = run(dir.path(), &world, Some(&pantry), "up --yes");
    assert_eq!(exit, 1);
    let all = format!("{out}{err}");
    assert!(all.contains("what is there now is not what was pinned"), "{all}");
    assert!(all.contains("lab-cli/tests/assets.rs:"), "{all}");
    assert!(!all.contains("delete"), "{all}");
    assert_eq!(world.count(), 2);
}

/// A world in memory to rehearse on.
struct Cellar;

impl Simulator for Cellar {
    fn start(&self, _seed: u64) -> Pin<Box<dyn Future<Output = io::Result<Simulated>> + Send + '_>> {
        Box::pin(async {
            Ok(Simulated {
                link: Link::memory(Arc::<World>::default()).on(Clock::scaled(1000)),
                summary: Vec::new(),
                reach: Vec::new(),
                world: Box::new(|| serde_json::Value::Null),
                guard: Box::new(()),
            })
        })
    }
}
