//! How the outside is reached: the route, the clock, and in tests the world itself.
//!
//! A [`Link`] is handed to every provider when it connects. It is data; the one thing that dials with it is
//! [`crate::execute::dial`]. What is deliberately not here: credentials, which belong to a provider's configuration.

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How the outside is reached in this run.
#[derive(Clone)]
pub struct Link {
    /// Which way connections go.
    pub route: Route,
    /// The clock of the run.
    pub clock: Clock,
    world: Option<Arc<dyn Any + Send + Sync>>,
}

/// Which way connections go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Straight to the address.
    Direct,
    /// Through an HTTP CONNECT proxy, for every address without exception: a lab that is rehearsed is never dialled.
    Proxy(SocketAddr),
    /// Nowhere: every attempt is refused. What tests use that need no network.
    Nowhere,
}

impl Link {
    /// Returns a link that dials addresses directly, on the system's clock.
    pub fn direct() -> Link {
        Link { route: Route::Direct, clock: Clock::system(), world: None }
    }

    /// Returns a link that sends every connection through the HTTP CONNECT proxy at `proxy`.
    pub fn through(proxy: SocketAddr) -> Link {
        Link { route: Route::Proxy(proxy), clock: Clock::system(), world: None }
    }

    /// Returns a link to a world in memory; nothing can be dialled. A provider gets the world back with [`Link::world`].
    pub fn memory<W: Any + Send + Sync>(world: Arc<W>) -> Link {
        Link { route: Route::Nowhere, clock: Clock::system(), world: Some(world) }
    }

    /// Returns the same link on another clock.
    pub fn on(mut self, clock: Clock) -> Link {
        self.clock = clock;
        self
    }

    /// Returns the world in memory, when this link leads to one of type `W`.
    pub fn world<W: Any + Send + Sync>(&self) -> Option<Arc<W>> {
        self.world.clone().and_then(|world| world.downcast::<W>().ok())
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("route", &self.route).field("clock", &self.clock).finish_non_exhaustive()
    }
}

/// How many times faster than the wall's a clock may run before deadlines are stretched.
const PATIENCE: u32 = 30;

/// The clock of a run: the system's, one that runs faster, or one that stands still until told.
///
/// Pauses are measured on it too, so a simulated lab whose machines boot in simulated minutes is waited for in
/// milliseconds.
#[derive(Clone, Debug)]
pub struct Clock {
    origin: SystemTime,
    // Not `std`'s: this one follows a paused runtime.
    started: tokio::time::Instant,
    speed: u32,
}

impl Clock {
    /// Returns the system's clock.
    pub fn system() -> Clock {
        Clock::starting(SystemTime::now(), 1)
    }

    /// Returns the system's clock, running `speed` times as fast from now on.
    pub fn scaled(speed: u32) -> Clock {
        Clock::starting(SystemTime::now(), speed.max(1))
    }

    /// Returns a clock that starts at `origin` and follows the runtime; on a paused runtime it is deterministic.
    pub fn starting(origin: SystemTime, speed: u32) -> Clock {
        Clock { origin, started: tokio::time::Instant::now(), speed }
    }

    /// Returns the time.
    pub fn now(&self) -> SystemTime {
        self.origin + self.started.elapsed() * self.speed
    }

    /// Returns how long to be patient for what should take `time`. A clock that runs fast leaves this machine less real
    /// time for its own work, which does not run faster: it is given more of the clock's.
    pub fn patience(&self, time: Duration) -> Duration {
        time * (self.speed / PATIENCE).max(1)
    }

    /// Waits for `pause` of this clock's time.
    pub async fn sleep(&self, pause: Duration) {
        tokio::time::sleep(pause / self.speed).await;
    }
}
