//! How many steps wait for what they made to become ready by itself. They take nobody's turn: what they wait for may be
//! among the steps that have not begun.

use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// The steps that pause.
#[derive(Default)]
pub(super) struct Pauses {
    count: AtomicUsize,
    began: Notify,
}

impl Pauses {
    /// Returns how many steps pause.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Waits until another step begins to pause.
    pub(super) async fn another(&self) {
        self.began.notified().await;
    }

    /// Counts a step as one that pauses for as long as what is returned lives.
    pub(super) fn begin(&self) -> Pausing<'_> {
        self.count.fetch_add(1, Ordering::SeqCst);
        self.began.notify_one();
        Pausing(self)
    }
}

/// A step that pauses.
pub(super) struct Pausing<'a>(&'a Pauses);

impl Drop for Pausing<'_> {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::SeqCst);
    }
}
