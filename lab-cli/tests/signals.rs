//! ^C as the system sends it: a process in the middle of an `up`, whose call the outside answers when the test says so.
#![cfg(unix)]

use lab_cli::{Lab, Surroundings};
use lab_core::execute::KeySource;
use lab_core::execute::seal::Keys;
use lab_core::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Tells a process of this executable that it is the program, and where the outside answers.
const OUTSIDE: &str = "LAB_TEST_OUTSIDE";
/// Where that process keeps its state.
const STATE: &str = "LAB_TEST_STATE";

/// Tells that process to be pressed ^C once more while it still writes its answer to the first.
const IMPATIENCE: &str = "LAB_TEST_IMPATIENCE";

/// How long to wait for something that comes at once: fails instead of waiting for ever.
const ENDLESS: Duration = Duration::from_secs(60);
/// How long until a person who sees no answer presses ^C once more.
const IMPATIENT: Duration = Duration::from_secs(15);

/// A call as the outside hears it: on a connection of its own, one line each way.
#[derive(Debug, Serialize, Deserialize)]
struct Call {
    verb: String,
    name: String,
    mark: String,
}

/// The mark that a thing bears, if it is there.
type Answer = Option<String>;

/// A provider whose things are outside of this process.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Shop {
    address: String,
}

impl Provider for Shop {
    const NAME: &'static str = "shop";
    type Client = String;

    fn realm(&self) -> Realm {
        Realm::Stated("the shop".into())
    }

    async fn connect(self, _: Link) -> Result<String> {
        tokio::spawn(bustle());
        Ok(self.address)
    }

    fn types(types: &mut Types<Shop>) {
        types.add::<Ware>();
    }
}

/// A thing in the shop. Found by its name, ours by its mark.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Ware {
    name: String,
    after: Option<Input<String>>,
}

impl Ware {
    fn named(op: &Op<Ware>) -> Result<String> {
        let ware = op.inputs.as_ref().ok_or_else(|| Error::invalid("nothing says what it is"))?;
        Ok(ware.name.clone())
    }

    fn made(name: String) -> Step<String> {
        Step::Done(Made::new(name.as_str(), name.clone()))
    }
}

impl Call {
    fn of(verb: &str, name: &str, mark: &str) -> Call {
        Call { verb: verb.into(), name: name.into(), mark: mark.into() }
    }

    fn send(&self, address: &str) -> io::Result<Answer> {
        let mut stream = TcpStream::connect(address)?;
        writeln!(stream, "{}", serde_json::to_string(self)?)?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        Ok(serde_json::from_str(&answer)?)
    }
}

/// Keeps the threads of the process awake, as work that goes on does.
async fn bustle() {
    while tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(1))).await.is_ok() {}
}

/// Asks the outside, on a thread that may be left behind when nobody waits for the answer any more.
async fn ask(client: &str, verb: &str, name: &str, mark: &str) -> Result<Answer> {
    let (call, address) = (Call::of(verb, name, mark), client.to_owned());
    match tokio::task::spawn_blocking(move || call.send(&address)).await {
        Ok(answer) => answer.map_err(|error| Error::unreachable(error.to_string()).perhaps()),
        Err(error) => Err(Error::unreachable(error.to_string()).perhaps()),
    }
}

impl Resource<Shop> for Ware {
    const TYPE: &'static str = "shop:ware";
    type Outputs = String;

    fn id(&self) -> Option<Id> {
        Some(Id(self.name.clone()))
    }

    async fn find(client: &String, op: &Op<Ware>) -> Result<Found<String>> {
        let name = Ware::named(op)?;
        Ok(match ask(client, "find", &name, &op.mark).await? {
            Some(mark) => Found::Present(Owner::Marked(mark), Ware::made(name)),
            None => Found::Absent,
        })
    }

    async fn apply(&self, client: &String, op: &Op<Ware>) -> Result<Step<String>> {
        ask(client, "apply", &self.name, &op.mark).await?;
        Ok(Ware::made(self.name.clone()))
    }

    async fn delete(client: &String, op: &Op<Ware>) -> Result<Step<()>> {
        ask(client, "delete", &Ware::named(op)?, &op.mark).await?;
        Ok(Step::gone())
    }
}

/// One after the other; `held` is the one that the outside takes its time for.
fn program(stack: &Stack, address: &str) -> std::result::Result<(), ProgramError> {
    let shop = stack.provider("shop", Shop { address: address.into() });
    let first = shop.resource("first").add(Ware { name: "first".into(), after: None });
    let held = Ware { name: "held".into(), after: Some(first.output(|name| name).into()) };
    let held = shop.resource("held").add(held);
    shop.resource("last").add(Ware { name: "last".into(), after: Some(held.output(|name| name).into()) });
    Ok(())
}

/// A screen that is slow with the answer to the first ^C, and a person who presses it again meanwhile.
struct Slow {
    said: Vec<u8>,
    pressed: bool,
}

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.said.extend(bytes);
        if !self.pressed && String::from_utf8_lossy(&self.said).contains(ONCE) {
            self.pressed = true;
            press(std::process::id());
            // Time enough for the signal to arrive.
            std::thread::sleep(Duration::from_millis(300));
        }
        io::stderr().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Presses ^C in that process.
fn press(process: u32) {
    let kill = format!("kill -INT {process}");
    assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success());
}

/// Not a test of its own, but what the processes do that the others start.
#[test]
fn the_program() {
    let (Ok(address), Ok(state)) = (std::env::var(OUTSIDE), std::env::var(STATE)) else { return };
    let process = Surroundings::process();
    let err: Box<dyn Write + Send> = match std::env::var(IMPATIENCE) {
        Ok(_) => Box::new(Slow { said: Vec::new(), pressed: false }),
        Err(_) => process.err,
    };
    let around = Surroundings {
        err,
        variables: BTreeMap::new(),
        link: Some(Link::direct()),
        keys: Some(KeySource::Given(Keys::fixed())),
        executable: Some("this program".into()),
        ..process
    };
    let lab = Lab::new("corner", move |stack| program(stack, &address));
    let exit = lab.run_with(["corner", "--state", &state, "up", "--yes"], around);
    // Not the harness's: whoever started this wants the exit code of the command line.
    std::process::exit(exit.into());
}

#[derive(Default)]
struct Contents {
    /// The marks of what is there, by name.
    things: BTreeMap<String, String>,
    /// What was done.
    log: Vec<String>,
    /// What is not done before the test says so.
    held: BTreeSet<String>,
}

/// The outside of the program, and the directory of its state.
struct Outside {
    address: SocketAddr,
    contents: Arc<(Mutex<Contents>, Condvar)>,
    /// Whatever was asked for and is held.
    arrived: Receiver<String>,
    dir: tempfile::TempDir,
}

impl Outside {
    /// Returns an outside that takes its time for each of `held`.
    fn holding(held: &[&str]) -> Outside {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback socket");
        let address = listener.local_addr().expect("an address");
        let contents = Contents { held: held.iter().map(|held| (*held).to_owned()).collect(), ..Contents::default() };
        let contents = Arc::new((Mutex::new(contents), Condvar::new()));
        let (told, arrived) = mpsc::channel();
        let all = contents.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (contents, told) = (all.clone(), told.clone());
                std::thread::spawn(move || answer(stream, &contents, &told));
            }
        });
        Outside { address, contents, arrived, dir: tempfile::tempdir().expect("a directory") }
    }

    /// Waits until this was asked for, which is held.
    fn arrived(&self, what: &str) {
        assert_eq!(self.arrived.recv_timeout(ENDLESS).expect("what is held is asked for"), what);
    }

    /// Lets happen what is held.
    fn release(&self, what: &str) {
        let (contents, changed) = &*self.contents;
        contents.lock().unwrap().held.remove(what);
        changed.notify_all();
    }

    /// Waits until that was done.
    fn done(&self, what: &str) {
        let (contents, changed) = &*self.contents;
        let missing = |contents: &mut Contents| !contents.log.iter().any(|done| done == what);
        let waited = changed.wait_timeout_while(contents.lock().unwrap(), ENDLESS, missing).unwrap();
        assert!(!waited.1.timed_out(), "{what} does not come");
    }

    fn log(&self) -> Vec<String> {
        self.contents.0.lock().unwrap().log.clone()
    }

    fn up(&self) -> Process {
        self.up_with(&[])
    }

    /// Starts the program with these variables.
    fn up_with(&self, variables: &[&str]) -> Process {
        let mut child = Command::new(std::env::current_exe().expect("this test is an executable"))
            .args(["--exact", "the_program", "--nocapture", "--test-threads=1"])
            .env(OUTSIDE, self.address.to_string())
            .env(STATE, self.dir.path().join("state"))
            .envs(variables.iter().map(|variable| (variable, "1")))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let (told, lines) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        std::thread::spawn(move || stderr.lines().map_while(io::Result::ok).all(|line| told.send(line).is_ok()));
        Process { child, lines, err: Vec::new() }
    }
}

/// Answers one call, and does what it says, whether anybody still listens or not.
fn answer(stream: TcpStream, (contents, changed): &(Mutex<Contents>, Condvar), told: &mpsc::Sender<String>) {
    let mut line = String::new();
    let read = BufReader::new(&stream).read_line(&mut line);
    let Ok(call) = read.and_then(|_| Ok(serde_json::from_str::<Call>(&line)?)) else { return };
    let mut contents = contents.lock().unwrap();
    if call.verb != "find" {
        if contents.held.contains(&call.name) {
            let _ = told.send(call.name.clone());
        }
        contents = changed.wait_while(contents, |contents| contents.held.contains(&call.name)).unwrap();
        contents.log.push(format!("{} {}", call.verb, call.name));
        match call.verb.as_str() {
            "delete" => drop(contents.things.remove(&call.name)),
            _ => drop(contents.things.insert(call.name.clone(), call.mark)),
        }
        changed.notify_all();
    }
    let answer: Answer = contents.things.get(&call.name).cloned();
    drop(contents);
    // One that was abandoned reads no answer.
    let _ = writeln!(&stream, "{}", serde_json::to_string(&answer).expect("a mark is JSON"));
}

/// A process of the program.
struct Process {
    child: Child,
    lines: Receiver<String>,
    /// What it said of itself so far.
    err: Vec<String>,
}

impl Process {
    /// Waits until a line says that, and returns true unless none does in that time.
    fn says(&mut self, text: &str, within: Duration) -> bool {
        while let Ok(line) = self.lines.recv_timeout(within) {
            self.err.push(line);
            if self.err.last().is_some_and(|line| line.contains(text)) {
                return true;
            }
        }
        false
    }

    /// Waits until it listens to ^C, where the system tells: who does not is ended by it, as by any signal.
    fn listens(&self) {
        let status = format!("/proc/{}/status", self.child.id());
        let caught = || {
            let text = std::fs::read_to_string(&status).ok()?;
            let mask = text.lines().find_map(|line| line.strip_prefix("SigCgt:"))?.trim().to_owned();
            Some(u64::from_str_radix(&mask, 16).expect("a mask of signals") & 0b10 != 0)
        };
        let began = Instant::now();
        while caught() == Some(false) {
            assert!(began.elapsed() < ENDLESS, "it does not listen to ^C");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Presses ^C.
    fn press(&self) {
        self.listens();
        press(self.child.id());
    }

    /// Presses ^C until the answer comes.
    fn interrupt(&mut self, answer: &str) {
        for _ in 0..4 {
            self.press();
            if self.says(answer, IMPATIENT) {
                return;
            }
        }
        panic!("it does not say {answer:?}: {:?}", self.err);
    }

    /// Waits for its end, and returns its exit code, what it printed, and what it said of itself.
    fn end(mut self) -> (Option<i32>, String, String) {
        let mut out = String::new();
        self.child.stdout.take().expect("it is piped").read_to_string(&mut out).expect("it is text");
        let status = self.child.wait().expect("a child");
        while let Ok(line) = self.lines.recv_timeout(ENDLESS) {
            self.err.push(line);
        }
        (status.code(), out, self.err.join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended is not there any more.
        let _ = self.child.kill();
    }
}

const ONCE: &str = "interrupted: what is in flight is finished, nothing new is started; ^C again abandons it";
const TWICE: &str = "abandoned: the next run finds out what became of it";

#[test]
fn a_process_that_gets_one_sigint_ends_after_what_is_in_flight() {
    let outside = Outside::holding(&["held"]);
    let mut process = outside.up();
    outside.arrived("held");
    process.interrupt(ONCE);
    assert_eq!(outside.log(), ["apply first"], "it waits for its answer");
    outside.release("held");
    let (exit, out, err) = process.end();
    assert_eq!(exit, Some(3), "{out}{err}");
    assert!(out.contains("shop:ware held created"), "{out}");
    assert!(
        out.contains("2 done, 1 not started. It was interrupted; run it again, and it goes on from here."),
        "{out}"
    );
    assert!(!err.contains(TWICE), "{err}");
    assert_eq!(outside.log(), ["apply first", "apply held"], "nothing new was started");

    let (exit, out, err) = outside.up().end();
    assert_eq!((exit, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.contains("corner: 1 done."), "{out}");
    assert_eq!(outside.log(), ["apply first", "apply held", "apply last"], "everything was made once");
}

#[test]
fn a_process_that_gets_two_abandons_what_is_in_flight_and_the_next_up_finds_out_what_became_of_it() {
    let outside = Outside::holding(&["held"]);
    let mut process = outside.up();
    outside.arrived("held");
    process.interrupt(ONCE);
    process.interrupt(TWICE);
    // Nobody answers, and it ends all the same.
    let (exit, out, err) = process.end();
    assert_eq!(exit, Some(3), "{out}{err}");
    assert!(!out.contains("shop:ware held created"), "{out}");
    assert!(out.contains("shop:ware held left where it stands"), "who was abandoned is named: {out}");
    assert!(
        out.contains(
            "1 done, 1 left where it stands, 1 not started. It was interrupted; run it again, and it goes on from here."
        ),
        "{out}"
    );
    assert_eq!(outside.log(), ["apply first"]);

    // What was abandoned comes to pass all the same.
    outside.release("held");
    outside.done("apply held");
    let (exit, out, err) = outside.up().end();
    assert_eq!((exit, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.contains("corner: 2 done."), "{out}");
    assert_eq!(outside.log(), ["apply first", "apply held", "apply last"], "everything was made once");
    let (exit, out, _) = outside.up().end();
    assert!(exit == Some(0) && out.contains("nothing to do, 3 unchanged"), "{out}");
}

#[test]
fn a_press_while_the_answer_to_the_one_before_is_still_written_counts() {
    let outside = Outside::holding(&["held"]);
    let mut process = outside.up_with(&[IMPATIENCE]);
    outside.arrived("held");
    process.press();
    assert!(process.says(TWICE, IMPATIENT), "it was pressed twice: {:?}", process.err);
    assert_eq!(process.end().0, Some(3));
}
