//! What goes wrong in a simulated lab, and when.
//!
//! Every connection, every machine call and every Kubernetes request is *counted* before it is answered, and the
//! [`Faults`] plan is asked once for each. A test can therefore run once without faults, look at the calls that were
//! counted, and run again with a fault at each of them. What happens by chance is a function of the seed and of the
//! number of the call: one seed reproduces a run whose calls come in the same order.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One thing that goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The answer comes this much later, in simulated time.
    Latency(Duration),
    /// The call is refused without an effect: the connection is refused, the call answers `Unavailable` (503 for
    /// Kubernetes).
    Refused,
    /// The connection breaks before the call has an effect; the caller cannot know that.
    Dropped,
    /// The call has its effect, and the connection breaks instead of carrying the reply.
    ReplyLost,
    /// The call has its effect, and the machine loses power at that moment and comes back by itself; what the call
    /// only began is interrupted.
    Reboot,
    /// The machine loses power before the call has an effect, and never comes back.
    Dead,
    /// A Proxmox request has its effect, and the node that passed it on to another one does not wait for the answer: it
    /// says 596. Strikes at requests to the Proxmox API only.
    GivenUp,
    /// A Proxmox task fails half way and cleans up after itself. Strikes at `task ...` only.
    TaskFails,
    /// A Proxmox task is killed half way: nothing is cleaned up, its locks stay. Strikes at `task ...` only.
    TaskDies,
    /// A Proxmox task does its work and ends in a warning. Strikes at `task ...` only.
    TaskWarns,
}

/// When a fault strikes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum When {
    /// At the call of this number, counted from 1 over the whole lab.
    Call(u64),
    /// At the n-th call whose name contains this text, counted from 1.
    Named(String, u64),
    /// At so many calls of a thousand, drawn by seed.
    Chance(u32),
}

/// The plan of what goes wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    rules: Vec<(When, Fault)>,
}

impl Faults {
    /// Returns the plan in which nothing goes wrong.
    pub fn none() -> Faults {
        Faults::default()
    }

    /// Adds a fault at the call with this number, counted from 1 over the whole lab.
    pub fn at(mut self, number: u64, fault: Fault) -> Faults {
        self.rules.push((When::Call(number), fault));
        self
    }

    /// Adds a fault at the `nth` call (counted from 1) whose name contains `name`.
    ///
    /// Names look like `connect 10.69.1.101:50000`, `/machine.MachineService/Bootstrap`, `POST /api/v1/namespaces`,
    /// `POST /api2/json/nodes/pve1/qemu` and `task qmclone 9000`.
    pub fn on(mut self, name: impl Into<String>, nth: u64, fault: Fault) -> Faults {
        self.rules.push((When::Named(name.into(), nth), fault));
        self
    }

    /// Adds a fault at so many calls of a thousand, drawn by the lab's seed.
    pub fn chance(mut self, per_mille: u32, fault: Fault) -> Faults {
        self.rules.push((When::Chance(per_mille), fault));
        self
    }
}

/// One call that reached the lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its number, counted from 1 over the whole lab.
    pub number: u64,
    /// The machine that was called.
    pub machine: IpAddr,
    /// What was called.
    pub name: String,
    /// What was made to go wrong, if anything.
    pub fault: Option<Fault>,
}

/// Counts calls and says which of them go wrong.
#[derive(Debug)]
pub(crate) struct Injector {
    seed: u64,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    faults: Faults,
    /// How many calls there were before these faults.
    before: u64,
    calls: Vec<Call>,
    matched: BTreeMap<usize, u64>,
}

impl Injector {
    pub(crate) fn new(seed: u64, faults: Faults) -> Injector {
        Injector { seed, book: Mutex::new(Book { faults, ..Book::default() }) }
    }

    /// Replaces what goes wrong. Calls are counted from here.
    pub(crate) fn disturb(&self, faults: Faults) {
        let mut book = self.book();
        book.before = book.calls.len() as u64;
        book.matched.clear();
        book.faults = faults;
    }

    /// Counts one call and returns what goes wrong with it; the first rule that applies wins.
    pub(crate) fn consult(&self, machine: IpAddr, name: &str) -> Option<Fault> {
        let mut book = self.book();
        let book = &mut *book;
        let number = book.calls.len() as u64 + 1;
        let mut struck = None;
        for (index, (when, fault)) in book.faults.rules.iter().enumerate() {
            let applies = match when {
                When::Call(at) => *at == number - book.before,
                When::Named(text, nth) if name.contains(text.as_str()) => {
                    let count = book.matched.entry(index).or_default();
                    *count += 1;
                    *count == *nth
                }
                When::Named(..) => false,
                When::Chance(per_mille) => {
                    mix(self.seed ^ mix(number ^ ((index as u64) << 48))) % 1000 < u64::from(*per_mille)
                }
            };
            if applies && struck.is_none() {
                struck = Some(*fault);
            }
        }
        book.calls.push(Call { number, machine, name: name.to_owned(), fault: struck });
        struck
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.book().calls.clone()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The finaliser of SplitMix64: every bit of the input moves about half of the output's.
pub(crate) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    #[test]
    fn a_named_fault_strikes_at_its_own_count_and_once() {
        let injector = Injector::new(1, Faults::none().on("Bootstrap", 2, Fault::ReplyLost));
        let struck: Vec<_> = ["Version", "Bootstrap", "Version", "Bootstrap", "Bootstrap"]
            .iter()
            .map(|name| injector.consult(MACHINE, name).is_some())
            .collect();
        assert_eq!(struck, [false, false, false, true, false]);
        assert_eq!(injector.calls()[3].fault, Some(Fault::ReplyLost));
    }

    #[test]
    fn chance_is_decided_by_the_seed_and_the_number_of_the_call() {
        let draw = |seed| -> Vec<bool> {
            let injector = Injector::new(seed, Faults::none().chance(100, Fault::Dropped));
            (0..2000).map(|_| injector.consult(MACHINE, "x").is_some()).collect()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let share = draw(7).iter().filter(|struck| **struck).count();
        assert!((150..250).contains(&share), "{share} of 2000 at 100 per mille");
    }
}
