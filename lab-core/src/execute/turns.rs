//! Whose turn it is: what is ready to run, and who holds what.

use crate::model::Lock;
use std::collections::{BTreeMap, BTreeSet};

/// What is ready to run, the earliest in the plan first.
pub(super) struct Ready {
    /// Whether each step may need nobody outside.
    light: Vec<bool>,
    /// What may need nobody outside.
    pub(super) near: BTreeSet<usize>,
    /// What needs somebody.
    pub(super) far: BTreeSet<usize>,
    /// What needs nobody once somebody else has connected, and the providers that one step is connecting to.
    pub(super) later: BTreeSet<usize>,
    pub(super) cold: BTreeSet<String>,
}

impl Ready {
    pub(super) fn new(light: Vec<bool>) -> Ready {
        Ready { light, near: BTreeSet::new(), far: BTreeSet::new(), later: BTreeSet::new(), cold: BTreeSet::new() }
    }

    /// A step has ended: there may be a connection now.
    pub(super) fn thaw(&mut self) {
        self.near.append(&mut self.later);
        self.cold.clear();
    }

    pub(super) fn push(&mut self, n: usize) {
        if self.light[n] {
            self.near.insert(n)
        } else {
            self.far.insert(n)
        };
    }

    pub(super) fn is_empty(&self) -> bool {
        self.near.is_empty() && self.far.is_empty()
    }
}

/// Who has which lock, and who waits for one.
#[derive(Default)]
pub(super) struct Turns {
    held: BTreeMap<usize, Vec<Lock>>,
    taken: BTreeMap<String, u32>,
    /// By the lock that each waits for. It waits for no other until that one is given back.
    waiting: BTreeMap<String, BTreeMap<usize, Lock>>,
}

impl Turns {
    pub(super) fn fits(&self, lock: &Lock) -> bool {
        let taken = self.taken.get(&lock.name).copied().unwrap_or_default();
        taken == 0 || taken.saturating_add(lock.weight) <= lock.capacity
    }

    /// Takes all `locks`, or none and waits.
    pub(super) fn take(&mut self, n: usize, locks: Vec<Lock>) -> bool {
        if let Some(lock) = locks.iter().find(|lock| !self.fits(lock)) {
            self.waiting.entry(lock.name.clone()).or_default().insert(n, lock.clone());
            return false;
        }
        for lock in &locks {
            let taken = self.taken.entry(lock.name.clone()).or_default();
            *taken = taken.saturating_add(lock.weight);
        }
        if !locks.is_empty() {
            self.held.insert(n, locks);
        }
        true
    }

    /// Gives back what `n` has, and returns who has a turn now.
    pub(super) fn give_back(&mut self, n: usize) -> Vec<usize> {
        let mut next = Vec::new();
        for lock in self.held.remove(&n).unwrap_or_default() {
            let mut taken = self.taken.remove(&lock.name).unwrap_or_default().saturating_sub(lock.weight);
            if taken > 0 {
                self.taken.insert(lock.name.clone(), taken);
            }
            let Some(waiting) = self.waiting.get_mut(&lock.name) else { continue };
            waiting.retain(|n, lock| {
                let fits = taken == 0 || taken.saturating_add(lock.weight) <= lock.capacity;
                if fits {
                    taken = taken.saturating_add(lock.weight);
                    next.push(*n);
                }
                !fits
            });
        }
        next
    }

    /// Returns everybody who waits, and lets them try anew.
    pub(super) fn all(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.waiting).into_values().flat_map(BTreeMap::into_keys).collect()
    }
}

pub(super) fn release(
    n: usize,
    created: bool,
    waiters: &BTreeMap<usize, Vec<usize>>,
    needed: &mut [Vec<(usize, bool)>],
    ready: &mut Ready,
    started: &BTreeSet<usize>,
    blocked: &BTreeMap<usize, String>,
) {
    for waiter in waiters.get(&n).into_iter().flatten().copied() {
        needed[waiter].retain(|(other, enough)| *other != n || (created && !enough));
        if needed[waiter].is_empty() && !started.contains(&waiter) && !blocked.contains_key(&waiter) {
            ready.push(waiter);
        }
    }
}
