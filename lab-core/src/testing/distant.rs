//! A world at the other end of a loopback socket: what happens in it outlives the process that asked for it.

use super::world::World;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// A call to a world, as it is sent: a line of JSON. The answer is a line as well.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Call {
    Get { place: String, name: String },
    Look { place: String, name: String },
    IsCutOff { place: String },
    Create { place: String, name: String, mark: String, value: Value, calls: u32 },
    Update { place: String, name: String, mark: String, value: Value },
    Progress { place: String, name: String },
    Delete { place: String, name: String, calls: u32 },
}

/// The client's half: connections that are free at the moment.
#[derive(Debug)]
pub(super) struct Distant {
    address: SocketAddr,
    free: Mutex<Vec<BufReader<TcpStream>>>,
}

impl Distant {
    pub(super) fn at(address: SocketAddr) -> Distant {
        Distant { address, free: Mutex::new(Vec::new()) }
    }

    /// Makes a call and waits for its answer.
    ///
    /// # Panics
    ///
    /// When the world cannot be reached: a test without its world is over.
    pub(super) fn ask<T: DeserializeOwned>(&self, call: &Call) -> T {
        match self.attempt(call) {
            Ok(answer) => answer,
            Err(error) => panic!("the world at {} does not answer: {error}", self.address),
        }
    }

    fn attempt<T: DeserializeOwned>(&self, call: &Call) -> io::Result<T> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut stream = match free {
            Some(stream) => stream,
            None => BufReader::new(TcpStream::connect(self.address)?),
        };
        let mut line = serde_json::to_vec(call)?;
        line.push(b'\n');
        stream.get_mut().write_all(&line)?;
        let mut answer = String::new();
        if stream.read_line(&mut answer)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        Ok(serde_json::from_str(&answer)?)
    }
}

/// A world that other processes reach, on a loopback socket.
pub struct Server {
    address: SocketAddr,
    busy: Arc<AtomicUsize>,
}

impl Server {
    /// Serves `world` until this process ends. Each call takes `pace` before it has its effect, and as long again before
    /// it is answered, so that whoever asked can die in between.
    pub fn start(world: Arc<World>, pace: Duration) -> io::Result<Server> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (address, busy) = (listener.local_addr()?, Arc::new(AtomicUsize::new(0)));
        let counted = busy.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let (world, busy) = (world.clone(), counted.clone());
                busy.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    // An error is the end of whoever asked.
                    let _ = serve(stream, &world, pace);
                    busy.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Ok(Server { address, busy })
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until nobody is connected any more, and everything that was asked for has happened.
    pub fn drain(&self) {
        while self.busy.load(Ordering::SeqCst) > 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn serve(stream: TcpStream, world: &World, pace: Duration) -> io::Result<()> {
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    // A line without its end is a call that was never made.
    while lines.read_line(&mut line)? > 0 && line.ends_with('\n') {
        let call: Call = serde_json::from_str(&line)?;
        thread::sleep(pace);
        let answer = match call {
            Call::Get { place, name } => serde_json::to_vec(&world.get(&place, &name)),
            Call::Look { place, name } => serde_json::to_vec(&world.look(&place, &name)),
            Call::IsCutOff { place } => serde_json::to_vec(&world.is_cut_off(&place)),
            Call::Create { place, name, mark, value, calls } => {
                serde_json::to_vec(&world.create(&place, &name, &mark, value, calls))
            }
            Call::Update { place, name, mark, value } => serde_json::to_vec(&world.update(&place, &name, &mark, value)),
            Call::Progress { place, name } => serde_json::to_vec(&world.progress(&place, &name)),
            Call::Delete { place, name, calls } => serde_json::to_vec(&world.delete(&place, &name, calls)),
        };
        thread::sleep(pace);
        let mut answer = answer?;
        answer.push(b'\n');
        lines.get_mut().write_all(&answer)?;
        line.clear();
    }
    Ok(())
}
