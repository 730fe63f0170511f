//! Deterministic simulation: one seed fixes a program, how it is changed, what goes wrong and when.
//!
//! A seed that fails is printed with the command that replays it, and with its life made as small as it can be:
//!
//! ```text
//! LAB_SEED=4711 cargo test -p lab-core --test simulation
//! ```
//!
//! More than the usual five hundred: `LAB_SEEDS=1000000 cargo test --release -p lab-core --test simulation every`.

mod check;
#[path = "../dice/mod.rs"]
mod dice;
mod exhaustive;
mod life;
mod oracle;
mod program;
mod provider;
mod run;
mod shrink;
mod stories;
mod world;

use check::Tally;
use life::{Life, Size};
use shrink::{lived, shrink};
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

/// Which of the dice's numbers these lives are made of.
const SERIES: u64 = 0x6a09_e667_f3bc_c908;

/// How many seeds are tried when nothing else is asked for.
const USUAL: u64 = 500;

/// Small enough that ten thousand lives take a minute or two on two cores.
const SIZE: Size = Size { lines: 5, rounds: 3 };

pub(crate) fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// A provider that panics on purpose is no news.
pub(crate) fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&"mishap") {
                usual(info);
            }
        }));
    });
}

/// How long a life may take on this machine, whatever else it does. They take milliseconds.
const ENDLESS: Duration = Duration::from_secs(300);

/// Lives a life, and ends this process should that never end: nothing else could tell which one it was.
pub(crate) fn watched<T>(which: &str, live: impl FnOnce() -> T) -> T {
    let (alive, over) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if over.recv_timeout(ENDLESS) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{which} does not end");
                std::process::exit(101);
            }
        });
        let lived = live();
        drop(alive);
        lived
    })
}

#[test]
fn every_life_keeps_every_promise() {
    hush();
    let (from, count) = match number("LAB_SEED") {
        Some(seed) => (seed, 1),
        None => (number("LAB_FROM").unwrap_or(0), number("LAB_SEEDS").unwrap_or(USUAL)),
    };
    let next = AtomicU64::new(from);
    let failed: Mutex<Vec<u64>> = Mutex::default();
    let tally: Mutex<Tally> = Mutex::default();
    let keep_going = std::env::var_os("LAB_ALL").is_some();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(count as usize).max(1);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let enough = !keep_going && !failed.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
                    if seed >= from + count || enough {
                        break;
                    }
                    let replay = format!("LAB_SEED={seed} cargo test -p lab-core --test simulation");
                    match watched(&replay, || lived(&Life::random(seed, SIZE))) {
                        Ok(lived) => tally.lock().unwrap_or_else(PoisonError::into_inner).add(lived),
                        Err(broken) => {
                            if keep_going {
                                let how = broken.how.lines().next().unwrap_or_default().to_owned();
                                println!("{seed} {}: {how}", broken.property);
                            }
                            failed.lock().unwrap_or_else(PoisonError::into_inner).push(seed);
                        }
                    }
                }
            });
        }
    });
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{tally:?}");
    let mut failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.sort_unstable();
    let Some(seed) = failed.first().copied() else { return };
    let life = Life::random(seed, SIZE);
    let Err(broken) = lived(&life) else {
        panic!("seed {seed} failed, and did not fail again: it is not deterministic")
    };
    let (life, small) = shrink(&life, broken, 3_000);
    check::live_aloud(&life);
    panic!(
        "seed {seed} breaks a promise: {}\n{}\n\nits life, made small:{life:?}\n\nreplay: LAB_SEED={seed} cargo test -p lab-core --test simulation\n",
        small.property, small.how
    );
}
