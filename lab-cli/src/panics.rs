//! Panics, so that each is reported once: those the engine catches are reported as failures, with their resource.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::panic;

thread_local! {
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Makes panics silent and remembers where the last one of each thread came from.
///
/// Whoever catches one reports it. One that nobody catches ends the process through [`told`].
pub(crate) fn remember() {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(|place| format!("{}:{}", place.file(), place.line()));
        let trace = Backtrace::capture();
        let trace = match trace.status() {
            BacktraceStatus::Captured => format!("\n{trace}"),
            _ => String::new(),
        };
        let place = place.map(|place| format!(" ({place}){trace}"));
        LAST.with(|last| *last.borrow_mut() = place);
    }));
}

/// Returns what a caught panic of this thread said, and where.
pub(crate) fn told(payload: &(dyn Any + Send)) -> String {
    let said = payload.downcast_ref::<&str>().map(|said| (*said).to_owned());
    let said = said.or_else(|| payload.downcast_ref::<String>().cloned());
    let place = LAST.with(|last| last.borrow_mut().take()).unwrap_or_default();
    format!("{}{place}", said.unwrap_or_else(|| "it panicked without a message".into()))
}
