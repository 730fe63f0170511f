//! What needs nobody outside: done all at once, and recorded in one frame.
//!
//! A thing that exists nowhere but in the state has no effect that could be lost, so nothing has to be durable before
//! it is made: its beginning and its end are one record of what happened. And where nobody is waited for, there is no
//! reason to flush for each: whatever is ready at the same moment is one frame.

use super::operate::{Ground, Operation};
use super::work::Work;
use crate::model::{Deed, Event, Step};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// The most steps that are done at once.
pub(super) const MOST: usize = 1000;
/// About how many bytes are recorded at once: far below what a frame may have.
pub(super) const LARGEST: usize = 4 << 20;

/// What came of trying to do something here and now.
pub(super) enum Hand {
    /// It is done, once this is recorded.
    Done(Vec<Event>),
    /// It may be, once there is a connection to its provider.
    Unconnected,
    /// Somebody has to be asked, or it takes time.
    Busy,
}

/// Does `work` here and now, where that is possible.
pub(super) fn done(work: &Work, ground: &Ground) -> Hand {
    match work {
        Work::Nothing => Hand::Done(Vec::new()),
        Work::Record(events) => Hand::Done(events.clone()),
        Work::Operate(operation, None) => operation.at_hand(ground),
        Work::Operate(_, Some(_)) | Work::Ask(_) => Hand::Busy,
    }
}

/// Returns about how many bytes `events` have in a file.
pub(super) fn size(events: &[Event]) -> usize {
    events.iter().map(Event::size).sum()
}

impl Operation {
    fn at_hand(&self, ground: &Ground) -> Hand {
        let around = !self.spends_first.is_empty() || !self.spends_last.is_empty() || self.owes;
        if !self.kind.generated() || self.begun || around || ground.faults.planned() {
            return Hand::Busy;
        }
        match self.deed {
            Deed::Create | Deed::Update => {}
            Deed::Delete => return Hand::Done(vec![self.forgotten(ground)]),
            Deed::Supersede | Deed::Import => return Hand::Busy,
        }
        let connected = ground.connections.at_hand(&self.spec.provider, &self.spec.realm);
        let Some(client) = connected else { return Hand::Unconnected };
        let op = self.op(ground, !self.deed.makes(), false, None);
        let warnings = op.warnings.clone();
        let mut call = pin!(self.kind.apply(&client, &self.inputs, op, &ground.vault));
        // Asked once. Whoever has to wait for something is asked again where waiting holds up nobody.
        let mut once = Context::from_waker(Waker::noop());
        let answer = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(&mut once)));
        let Ok(Poll::Ready(Ok(Step::Done(made)))) = answer else { return Hand::Busy };
        ground.faults.next();
        // What cannot be stored is told where it fails this step alone.
        let Ok(made) = self.record(ground, made) else { return Hand::Busy };
        self.unannounced(ground, &made);
        self.warn(ground, &warnings);
        Hand::Done(vec![self.beginning(), self.ready(made)])
    }
}
