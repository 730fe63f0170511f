//! How the outside is reached: the route, the clock, and in tests the world itself.
//!
//! A [`Link`] is handed to every provider when it connects. It is data; the one thing that dials with it is
//! [`crate::execute::dial`]. What is deliberately not here: credentials, which belong to a provider's configuration.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;

/// How the outside is reached in this run.
#[derive(Clone)]
pub struct Link {
    /// Which way connections go.
    pub route: Route,
    /// The clock of the run.
    pub clock: Clock,
    world: Option<Arc<dyn Any + Send + Sync>>,
    /// The SHA-256 of what stands in for a certificate, by host.
    stand_ins: Arc<BTreeMap<String, [u8; 32]>>,
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
        Link::going(Route::Direct, None)
    }

    /// Returns a link that sends every connection through the HTTP CONNECT proxy at `proxy`.
    pub fn through(proxy: SocketAddr) -> Link {
        Link::going(Route::Proxy(proxy), None)
    }

    /// Returns a link to a world in memory; nothing can be dialled. A provider gets the world back with [`Link::world`].
    pub fn memory<W: Any + Send + Sync>(world: Arc<W>) -> Link {
        Link::going(Route::Nowhere, Some(world))
    }

    fn going(route: Route, world: Option<Arc<dyn Any + Send + Sync>>) -> Link {
        Link { route, clock: Clock::system(), world, stand_ins: Arc::default() }
    }

    /// Returns the same link, to simulated hosts that show certificates of their own: the SHA-256 of each, in DER, by the
    /// name or the address that the host is reached by. Who rehearses a program in which the real hosts' certificates are
    /// pinned meets these instead of them.
    pub fn standing_in(mut self, certificates: BTreeMap<String, [u8; 32]>) -> Link {
        self.stand_ins = Arc::new(certificates);
        self
    }

    /// Returns the SHA-256 of the one certificate that is accepted at `host` in the place of what is pinned. There is none
    /// where the outside is real, and none on a route that could lead there.
    pub fn stand_in(&self, host: &str) -> Option<[u8; 32]> {
        match self.route {
            Route::Proxy(proxy) if proxy.ip().is_loopback() => self.stand_ins.get(host).copied(),
            Route::Proxy(_) | Route::Direct | Route::Nowhere => None,
        }
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

/// The furthest that a clock is looked ahead on: a thousand years. Adding more could leave what a time can say, which is a
/// panic; and whoever says `Duration::MAX` means that it may take for ever.
const FAR: Duration = Duration::from_secs(31_557_600_000);

/// How many times faster than the wall's a clock may run before deadlines are stretched.
const PATIENCE: u32 = 30;

/// The clock of a run: the system's, one that runs faster, or one that stands still until told.
///
/// Pauses are measured on it too, so a simulated lab whose machines boot in simulated minutes is waited for in
/// milliseconds. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct Clock {
    pace: watch::Sender<Pace>,
}

/// How a clock has been running since it was last told.
#[derive(Clone, Copy, Debug)]
struct Pace {
    origin: SystemTime,
    // Not `std`'s: this one follows a paused runtime.
    started: tokio::time::Instant,
    speed: u32,
}

impl Pace {
    fn now(self) -> SystemTime {
        let passed = self.started.elapsed().saturating_mul(self.speed).min(FAR);
        self.origin.checked_add(passed).unwrap_or(self.origin)
    }
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

    /// Returns the clock that showed the system's time at `began` and has run `speed` times as fast since: in another
    /// process, the one that [`Clock::scaled`] returned in this one.
    pub fn since(began: SystemTime, speed: u32) -> Clock {
        let speed = speed.max(1);
        let passed = SystemTime::now().duration_since(began).unwrap_or_default();
        let ahead = passed.saturating_mul(speed).min(FAR);
        Clock::starting(began.checked_add(ahead).unwrap_or(began), speed)
    }

    /// Returns a clock that starts at `origin` and follows the runtime; on a paused runtime it is deterministic.
    pub fn starting(origin: SystemTime, speed: u32) -> Clock {
        Clock { pace: watch::Sender::new(Pace { origin, started: tokio::time::Instant::now(), speed }) }
    }

    /// Lets the clock run `speed` times as fast as the wall's from now on. It neither jumps nor does it forget who waits:
    /// what is left of a pause is as long on this clock as it was.
    pub fn run_at(&self, speed: u32) {
        let (started, speed) = (tokio::time::Instant::now(), speed.max(1));
        self.pace.send_modify(|pace| *pace = Pace { origin: pace.now(), started, speed });
    }

    /// Returns the time.
    pub fn now(&self) -> SystemTime {
        self.pace.borrow().now()
    }

    /// Returns the time in `time` from now, however long that is.
    pub fn after(&self, time: Duration) -> SystemTime {
        let now = self.now();
        now.checked_add(time.min(FAR)).unwrap_or(now)
    }

    /// Returns how long to be patient for what should take `time`. A clock that runs fast leaves this machine less real
    /// time for its own work, which does not run faster: it is given more of the clock's.
    pub fn patience(&self, time: Duration) -> Duration {
        time.saturating_mul((self.pace.borrow().speed / PATIENCE).max(1))
    }

    /// Waits for `pause` of this clock's time.
    pub async fn sleep(&self, pause: Duration) {
        let mut pace = self.pace.subscribe();
        let mut left = pause;
        loop {
            let (speed, from) = {
                let pace = pace.borrow_and_update();
                (pace.speed, pace.now())
            };
            tokio::select! {
                biased;
                () = tokio::time::sleep(left / speed) => return,
                // The sender lives as long as `self`.
                _ = pace.changed() => left = left.saturating_sub(self.now().duration_since(from).unwrap_or_default()),
            }
        }
    }
}

/// Writes a [`Clock::scaled`] that has always run at one speed as another process can be told it: `900@1763769600.250`,
/// its speed and the second since 1970 at which it showed the system's time.
impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pace { origin, speed, .. } = *self.pace.borrow();
        let began = origin.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        write!(f, "{speed}@{}.{:03}", began.as_secs(), began.subsec_millis())
    }
}

/// Reads what [`Clock`]'s `Display` wrote.
impl FromStr for Clock {
    type Err = String;

    fn from_str(text: &str) -> Result<Clock, String> {
        let read = || {
            let (speed, began) = text.split_once('@')?;
            let (seconds, millis) = began.split_once('.').filter(|(_, millis)| millis.len() == 3)?;
            let began = Duration::new(seconds.parse().ok()?, millis.parse::<u32>().ok()? * 1_000_000);
            let speed = speed.parse().ok().filter(|speed| *speed > 0)?;
            Some(Clock::since(SystemTime::UNIX_EPOCH.checked_add(began)?, speed))
        };
        read().ok_or_else(|| format!("{text:?} is not of the form SPEED@SECONDS.MILLISECONDS"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_goes_on_at_another_speed_without_a_jump() {
        let began = SystemTime::UNIX_EPOCH;
        let clock = Clock::starting(began, 60);
        let passed = || clock.now().duration_since(began).unwrap();
        let (real, waiting) = (tokio::time::Instant::now(), clock.clone());
        let waiting = tokio::spawn(async move { waiting.sleep(Duration::from_secs(600)).await });
        tokio::time::sleep(Duration::from_secs(4)).await;
        clock.run_at(2);
        assert_eq!(passed(), Duration::from_secs(240));
        waiting.await.unwrap();
        // Four seconds at sixty, and what was left of ten minutes at two.
        assert_eq!(real.elapsed().as_secs(), 4 + 180);
        assert_eq!(passed().as_secs(), 600);
    }

    #[tokio::test]
    async fn a_clock_that_another_process_is_told_shows_the_same_time() {
        let ours = Clock::since(SystemTime::now() - Duration::from_secs(10), 60);
        let theirs: Clock = ours.to_string().parse().unwrap();
        let apart = |a: SystemTime, b: SystemTime| a.duration_since(b).or_else(|_| b.duration_since(a)).unwrap();
        // A clock that began a while ago says when it was read, so it is the told one that has to be right.
        assert!(apart(theirs.now(), ours.now()) < Duration::from_secs(60), "{theirs:?} {ours:?}");
        let later = Clock::scaled(60);
        assert!(apart(later.to_string().parse::<Clock>().unwrap().now(), later.now()) < Duration::from_secs(5));
        for wrong in ["", "60", "0@1763769600.250", "60@1763769600", "x@1.000", "60@1.0000"] {
            assert!(wrong.parse::<Clock>().is_err(), "{wrong:?}");
        }
    }
}
