//! Whose turn it is: what is ready to run, and who holds what.

use crate::model::Lock;
use crate::plan::Step;
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

    /// Takes in who waits for nobody any more.
    pub(super) fn free(&mut self, free: Vec<usize>, started: &BTreeSet<usize>, blocked: &BTreeMap<usize, String>) {
        free.into_iter().filter(|n| !started.contains(n) && !blocked.contains_key(n)).for_each(|n| self.push(n));
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

/// Who waits for whom. One step may wait for all others, and most of a large plan is this.
pub(super) struct Waiting {
    /// Where the waiters of each step begin.
    from: Vec<u32>,
    waiters: Vec<Waiter>,
    /// For how many each step still waits.
    left: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Waiter {
    step: u32,
    /// It is enough that the other exists.
    created: bool,
    /// It waits no more.
    released: bool,
}

impl Waiting {
    pub(super) fn new(steps: &[Step]) -> Waiting {
        let small = |n: usize| u32::try_from(n).expect("a plan has fewer than four billion steps and waits");
        let mut from = vec![0; steps.len() + 1];
        for after in steps.iter().flat_map(|step| &step.after) {
            from[after.step + 1] += 1;
        }
        for n in 0..steps.len() {
            from[n + 1] = small(from[n] as usize + from[n + 1] as usize);
        }
        let mut next = from.clone();
        let mut waiters = vec![Waiter { step: 0, created: false, released: false }; from[steps.len()] as usize];
        for (n, step) in steps.iter().enumerate() {
            for after in &step.after {
                waiters[next[after.step] as usize] = Waiter { step: small(n), created: after.created, released: false };
                next[after.step] += 1;
            }
        }
        let left = steps.iter().map(|step| small(step.after.len())).collect();
        Waiting { from, waiters, left }
    }

    /// Returns true when a step waits for nobody.
    pub(super) fn is_free(&self, n: usize) -> bool {
        self.left[n] == 0
    }

    fn range(&self, n: usize) -> std::ops::Range<usize> {
        self.from[n] as usize..self.from[n + 1] as usize
    }

    /// Returns who waits for a step, or did.
    pub(super) fn on(&self, n: usize) -> impl Iterator<Item = usize> {
        self.waiters[self.range(n)].iter().map(|waiter| waiter.step as usize)
    }

    /// Lets those who wait for `n` go on: all, or only those for whom it is enough that it exists. Returns who waits for
    /// nobody any more.
    pub(super) fn release(&mut self, n: usize, created: bool) -> Vec<usize> {
        self.release_those(n, |_, enough| enough || !created)
    }

    /// Lets some of those who wait for `n` go on, by their step and whether it is enough for them that it exists.
    pub(super) fn release_those(&mut self, n: usize, which: impl Fn(usize, bool) -> bool) -> Vec<usize> {
        let range = self.range(n);
        let mut free = Vec::new();
        for waiter in &mut self.waiters[range] {
            let step = waiter.step as usize;
            if !waiter.released && which(step, waiter.created) {
                waiter.released = true;
                self.left[step] -= 1;
                if self.left[step] == 0 {
                    free.push(step);
                }
            }
        }
        free
    }
}
