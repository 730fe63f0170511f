//! What may go wrong with a request, for tests that want it to.

use std::time::Duration;

/// What happens to one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: it is answered.
    #[default]
    None,
    /// It is answered after this long, on the API's clock.
    Delay(Duration),
    /// The connection drops before anything was done.
    DropBefore,
    /// It is carried out, and the connection drops before the answer.
    DropAfter,
    /// It is not carried out, and answered with this status code (500, 503).
    Status(u16),
}

/// Decides about each request, by its method and its path.
pub type Faults = dyn Fn(&str, &str) -> Fault + Send + Sync;
