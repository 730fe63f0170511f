//! The world in which the provider contract is proven: servers in memory, and the one check that every provider has to
//! pass. Time passes in it by requests, one tick each, so that nothing depends on how long a run takes.
#![allow(dead_code, reason = "every suite uses its own part")]

use lab_core::execute::disk::{self, Crash, Fault};
use lab_core::execute::{CallFault, Faults, Report};
use lab_core::plan::Verb;
use lab_core::testing::{Bench, Trial};
use lab_core::{Error, ProgramError, Result, Stack};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What has happened, one line for every effect. What changes nothing is not written down.
pub(crate) type Log = Vec<String>;
pub(crate) type Program = fn(&Stack) -> Result<(), ProgramError>;

/// An outside system of which a [`World`] consists.
pub(crate) trait Server: Clone + Default + Send + 'static {
    /// What can be seen of it, without what may differ from run to run: marks, uids, task ids.
    type Sight: PartialEq + Debug;
    /// Lets one tick pass: tasks go on, machines boot.
    fn tick(&mut self, log: &mut Log);
    fn sight(&self) -> Self::Sight;
}

/// A server and the wire to it, on which replies are lost.
pub(crate) struct World<S>(Mutex<Inner<S>>);

#[derive(Clone)]
struct Inner<S> {
    server: S,
    log: Log,
    requests: usize,
    lose: Option<usize>,
}

impl<S: Server> World<S> {
    pub(crate) fn new() -> Arc<World<S>> {
        let inner = Inner { server: S::default(), log: Log::new(), requests: 0, lose: None };
        Arc::new(World(Mutex::new(inner)))
    }

    fn inner(&self) -> MutexGuard<'_, Inner<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request that only reads.
    pub(crate) fn ask<T>(&self, request: impl FnOnce(&S) -> Result<T>) -> Result<T> {
        self.request(|server, _| request(server))
    }

    /// A request that may change something. What is lost of it is its reply, not its effect.
    pub(crate) fn call<T>(&self, request: impl FnOnce(&mut S, &mut Log) -> Result<T>) -> Result<T> {
        self.request(request).map_err(|error| if error.message == LOST { error.perhaps() } else { error })
    }

    fn request<T>(&self, request: impl FnOnce(&mut S, &mut Log) -> Result<T>) -> Result<T> {
        let Inner { server, log, requests, lose } = &mut *self.inner();
        server.tick(log);
        *requests += 1;
        let reply = request(server, log);
        if *lose == Some(*requests - 1) { Err(Error::unreachable(LOST)) } else { reply }
    }

    /// Changes something as somebody else would: without a request of ours.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut S) -> T) -> T {
        change(&mut self.inner().server)
    }

    pub(crate) fn sight(&self) -> S::Sight {
        self.inner().server.sight()
    }

    pub(crate) fn log(&self) -> Log {
        self.inner().log.clone()
    }

    pub(crate) fn requests(&self) -> usize {
        self.inner().requests
    }

    /// Loses the reply of the request with this number, counted from 0 over all requests.
    fn lose(&self, request: usize) {
        self.inner().lose = Some(request);
    }

    /// Returns the log in an order that does not depend on who was faster.
    fn effects(&self) -> Log {
        let mut log = self.log();
        log.sort();
        log
    }
}

const LOST: &str = "the connection broke before the reply";

/// A run that has to survive everything: what was applied before it, and what is done in it.
pub(crate) struct Scenario {
    pub(crate) before: Option<Program>,
    pub(crate) program: Program,
    pub(crate) verb: Verb,
}

/// How a run was disturbed, and what is left of its disk.
#[derive(Clone, Copy, Debug)]
enum Disturbance {
    Call(usize, CallFault),
    Request(usize),
    Journal(usize, Fault, Crash),
}

/// A world with a lab in it: before the run of a [`Scenario`].
pub(crate) struct Lab<S> {
    pub(crate) bench: Bench,
    pub(crate) world: Arc<World<S>>,
}

impl<S: Server> Lab<S> {
    pub(crate) fn new() -> Lab<S> {
        let world = World::new();
        Lab { bench: Bench::new().over(world.clone()), world }
    }

    pub(crate) fn after(before: Option<Program>) -> Lab<S> {
        let lab = Lab::new();
        if let Some(before) = before {
            lab.bench.up_whole(before);
        }
        lab
    }

    /// Returns another future of the same past.
    fn fork(&self) -> Lab<S> {
        let world = Arc::new(World(Mutex::new(self.world.inner().clone())));
        Lab { bench: self.bench.crashed(Crash::Process).over(world.clone()), world }
    }

    /// Runs a program with nothing going wrong.
    pub(crate) fn run(&self, program: Program, verb: Verb) -> Report {
        self.bench.attempt(program, verb, &Trial::default()).unwrap_or_else(|error| panic!("{verb}: {error}"))
    }

    /// Returns what went wrong in a run, as a person would read it.
    pub(crate) fn failures(&self, program: Program, verb: Verb) -> String {
        let report = self.run(program, verb);
        let failures = report.failed.iter().map(|failure| {
            let hint = failure.hint.as_deref().unwrap_or("no hint");
            format!("{} {}: {} [{hint}]", failure.action, failure.urn, failure.error)
        });
        failures.collect::<Vec<_>>().join("\n")
    }

    /// Lets the process die around one call, and returns the lab as the next process finds it.
    pub(crate) fn killed(self, program: Program, call: usize, fault: CallFault) -> Lab<S> {
        let trial = Trial { faults: Arc::new(Faults::at(call, fault)), ..Trial::default() };
        let report = self.bench.attempt(program, Verb::Up, &trial).unwrap_or_else(|error| panic!("up: {error}"));
        assert!(report.stopped, "there was no call {call} to die at: {report:#?}");
        self.crashed(Crash::Process)
    }

    pub(crate) fn crashed(self, crash: Crash) -> Lab<S> {
        Lab { bench: self.bench.crashed(crash), world: self.world }
    }

    fn at_rest(&self, program: Program, verb: Verb, context: &str) {
        let state = self.bench.state();
        assert_eq!(state.open().count(), 0, "{context}: something is still open: {state:#?}");
        match verb {
            Verb::Up => {
                self.bench.refresh(program);
                let plan = self.bench.preview(program);
                assert!(plan.is_empty(), "{context}: the second plan is not empty:\n{}", lab_core::plan::text(&plan));
            }
            Verb::Destroy => {
                let left: BTreeMap<_, _> = state.records.iter().map(|(urn, record)| (urn, record.status)).collect();
                assert!(left.is_empty() && state.condemned.is_empty(), "{context}: the state still has {left:?}");
            }
        }
    }
}

/// Disturbs a run at every call to a provider, at every request on the wire and at every operation of the disk; then
/// runs it once more and expects what the undisturbed run brought about: the same world, nothing done twice, nothing
/// left over, nothing still to do.
pub(crate) fn survives_everything<S: Server>(scenario: &Scenario) {
    let Scenario { before, program, verb } = *scenario;
    let past: Lab<S> = Lab::after(before);
    let calm = past.fork();
    let (first_request, first_write) = (calm.world.requests(), calm.bench.disk().operations().len());
    let counted = Arc::new(Faults::none());
    let trial = Trial { faults: counted.clone(), ..Trial::default() };
    let report = calm.bench.attempt(program, verb, &trial).unwrap_or_else(|error| panic!("{verb}: {error}"));
    assert!(report.complete(), "undisturbed: {report:#?}");
    let (last_request, last_write) = (calm.world.requests(), calm.bench.disk().operations().len());
    calm.at_rest(program, verb, "undisturbed");
    let expected = (calm.world.sight(), calm.world.effects());

    let mut disturbances = Vec::new();
    for call in 0..counted.calls() {
        for fault in [CallFault::StopBefore, CallFault::StopAfter, CallFault::LoseReply, CallFault::Refuse] {
            disturbances.push(Disturbance::Call(call, fault));
        }
    }
    disturbances.extend((first_request..last_request).map(Disturbance::Request));
    let operations = calm.bench.disk().operations().into_iter().map(|operation| operation.verb);
    for (at, verb) in operations.enumerate().take(last_write).skip(first_write) {
        let mut stops = vec![(Fault::StopBefore, Crash::Power), (Fault::StopAfter, Crash::Process)];
        if verb == disk::Verb::Write {
            stops.push((Fault::StopWithin(7), Crash::Process));
            stops.push((Fault::StopAfter, Crash::PowerPartly(at as u64)));
        }
        disturbances.extend(stops.into_iter().map(|(fault, crash)| Disturbance::Journal(at, fault, crash)));
    }
    assert!(disturbances.len() > 20, "there was hardly anything to disturb: {disturbances:?}");

    for disturbance in disturbances {
        let context = format!("{verb} after {disturbance:?}");
        let lab = past.fork();
        let mut trial = Trial::default();
        match disturbance {
            Disturbance::Call(call, fault) => trial.faults = Arc::new(Faults::at(call, fault)),
            Disturbance::Request(request) => lab.world.lose(request),
            Disturbance::Journal(write, fault, _) => lab.bench.disk().inject(write, fault),
        }
        let disturbed = lab.bench.attempt(program, verb, &trial);
        let lab = match disturbance {
            Disturbance::Call(_, CallFault::StopBefore | CallFault::StopAfter) => lab.crashed(Crash::Process),
            Disturbance::Journal(_, _, crash) => lab.crashed(crash),
            Disturbance::Call(_, CallFault::LoseReply | CallFault::Refuse) | Disturbance::Request(_) => {
                // What gets lost on the wire is no matter for a person: the same run gets over it.
                assert!(disturbed.as_ref().is_ok_and(Report::complete), "{context}: {disturbed:#?}");
                lab
            }
        };
        let report = lab.bench.attempt(program, verb, &Trial::default());
        assert!(report.as_ref().is_ok_and(Report::complete), "{context}: once more: {report:#?}");
        lab.at_rest(program, verb, &context);
        assert_eq!((lab.world.sight(), lab.world.effects()), expected, "{context}");
    }
}

/// Kills `up` around every call and destroys what there is by then: nothing may be left, in the world or in the state.
pub(crate) fn leaves_nothing_behind_when_destroyed_half_made<S: Server>(program: Program) {
    let untouched = World::<S>::new().sight();
    let counted = Arc::new(Faults::none());
    let calm: Lab<S> = Lab::new();
    let trial = Trial { faults: counted.clone(), ..Trial::default() };
    assert!(calm.bench.attempt(program, Verb::Up, &trial).is_ok_and(|report| report.complete()));
    for call in 0..counted.calls() {
        for fault in [CallFault::StopBefore, CallFault::StopAfter] {
            let context = format!("destroyed after {fault:?} at {call}");
            let lab = Lab::<S>::new().killed(program, call, fault);
            let report = lab.run(program, Verb::Destroy);
            assert!(report.complete(), "{context}: {report:#?}");
            lab.at_rest(program, Verb::Destroy, &context);
            assert_eq!(lab.world.sight(), untouched, "{context}");
        }
    }
}
