//! Times that are as good as never: a very long timeout, pause or due date is waited for, and overflows nothing.

use lab_core::execute::journal::{Journal, canonical};
use lab_core::execute::seal::Keys;
use lab_core::execute::{SavedPlan, state_digest};
use lab_core::plan::{Observations, Verb};
use lab_core::testing::{Bench, Memory, Thing};
use lab_core::{
    Clock, Error, Found, Id, Link, Made, Op, Owner, ProgramError, Provider, Realm, Resource, Result, Stack, Step, Types,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

#[test]
fn an_operation_may_take_for_ever() {
    for timeout in [Duration::from_secs(u64::MAX), Duration::from_secs(i64::MAX as u64), Duration::MAX] {
        let program = |stack: &Stack| -> std::result::Result<(), ProgramError> {
            let rack = stack.provider("rack", Memory::at("rack"));
            rack.resource("a").timeout(timeout).add(Thing { calls: 2, ..Thing::new("a", "x") });
            Ok(())
        };
        let bench = Bench::new();
        bench.up_whole(program);
        assert!(bench.preview(program).is_empty());
        assert!(bench.destroy(program).complete());
    }
}

/// Something that takes its time, or is due far away.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Slow {
    pause: Option<u64>,
    due: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Patience;

impl Provider for Patience {
    const NAME: &'static str = "patience";
    type Client = Arc<Mutex<bool>>;
    fn realm(&self) -> Realm {
        Realm::Stated("patience".into())
    }
    async fn connect(self, link: Link) -> Result<Self::Client> {
        link.world().ok_or_else(|| Error::invalid("no world"))
    }
    fn types(types: &mut Types<Patience>) {
        types.add::<Slow>();
    }
}

impl Slow {
    fn made(&self) -> Made<Value> {
        // The last second that a time can say.
        let due = self.due.then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(i64::MAX as u64));
        Made { due, ..Made::new("slow", Value::Null) }
    }
}

impl Resource<Patience> for Slow {
    const TYPE: &'static str = "patience:slow";
    type Outputs = Value;

    fn id(&self) -> Option<Id> {
        Some(Id("slow".into()))
    }

    async fn find(there: &Arc<Mutex<bool>>, op: &Op<Slow>) -> Result<Found<Value>> {
        let slow = op.inputs.as_ref().expect("inputs");
        Ok(match *there.lock().unwrap() {
            true => Found::Present(Owner::Unmarkable, Step::Done(slow.made())),
            false => Found::Absent,
        })
    }

    async fn apply(&self, there: &Arc<Mutex<bool>>, _op: &Op<Slow>) -> Result<Step<Value>> {
        if let Some(pause) = self.pause {
            return Ok(Step::next(Value::Null, "it takes its time", Duration::from_secs(pause)));
        }
        *there.lock().unwrap() = true;
        Ok(Step::Done(self.made()))
    }

    async fn delete(there: &Arc<Mutex<bool>>, _op: &Op<Slow>) -> Result<Step<()>> {
        *there.lock().unwrap() = false;
        Ok(Step::gone())
    }
}

fn slow(pause: Option<u64>, due: bool) -> impl Fn(&Stack) -> std::result::Result<(), ProgramError> + Copy {
    move |stack| {
        stack.provider("patience", Patience).resource("slow").add(Slow { pause, due });
        Ok(())
    }
}

#[test]
fn a_provider_that_asks_for_an_endless_pause_is_out_of_time() {
    for pause in [u64::MAX, i64::MAX as u64] {
        let bench = Bench::new().over(Arc::new(Mutex::new(false)));
        let report = bench.up(slow(Some(pause), false));
        assert_eq!(report.failed.len(), 1, "{report:#?}");
        assert!(report.failed[0].error.contains("it took longer than 600 s"), "{report:#?}");
    }
}

#[test]
fn what_is_due_at_the_end_of_time_is_not_due_now() {
    let bench = Bench::new().over(Arc::new(Mutex::new(false)));
    bench.up_whole(slow(None, true));
    assert!(bench.preview(slow(None, true)).is_empty());
}

#[test]
fn a_clock_that_runs_as_fast_as_can_be_said_still_shows_a_time() {
    for text in ["4294967295@0.000", "4294967295@1763769600.250", "1@9223372036854775806.000", "1@0.999"] {
        let clock: Clock = text.parse().unwrap_or_else(|why| panic!("{text}: {why}"));
        assert!(clock.now() >= SystemTime::UNIX_EPOCH);
        assert!(clock.patience(Duration::MAX) > Duration::from_secs(1));
    }
}

#[test]
fn a_due_date_that_no_clock_can_show_is_not_due() {
    let bench = Bench::new().over(Arc::new(Mutex::new(false)));
    bench.up_whole(slow(None, true));
    let mut state = serde_json::to_value(bench.state()).unwrap();
    for record in state["records"].as_object_mut().unwrap().values_mut() {
        record["due"] = u64::MAX.into();
    }
    let (mut journal, _) = Journal::open(Arc::new(bench.disk().clone()), "lab").unwrap();
    journal.compact(&state).unwrap();
    assert!(bench.preview(slow(None, true)).is_empty());
}

#[test]
fn a_plan_made_at_a_time_that_there_is_not_is_refused() {
    let bench = Bench::new().over(Arc::new(Mutex::new(false)));
    let program = slow(None, false);
    let declared = bench.load(program);
    let plan = bench.plan(program, Verb::Up, &Observations::default(), &[]);
    let (seen, state) = (Observations::default(), state_digest(&bench.state()));
    let saved =
        SavedPlan::new(plan, seen, Vec::new(), 1, state, "exe".into(), &declared.vault, &Keys::fixed()).unwrap();
    let mut text: Value = serde_json::from_slice(&saved.to_bytes()).unwrap();
    for (at, there_is) in [(1_u64 << 40, true), (i64::MAX as u64, true), (1 << 63, false), (u64::MAX, false)] {
        text["at"] = at.into();
        match SavedPlan::from_bytes("the plan", &canonical(&text)) {
            Ok(_) => assert!(there_is, "{at}"),
            Err(refused) => {
                assert!(!there_is && refused.to_string().contains("a time that there is not"), "{at}: {refused}");
                assert!(refused.hint().contains("preview --out"));
            }
        }
    }
}
