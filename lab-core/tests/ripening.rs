//! What becomes ready by itself is waited for beside the work, not instead of it.

use lab_core::plan::Verb;
use lab_core::testing::{Bench, Trial};
use lab_core::*;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Everything that grows, by name.
#[derive(Default)]
struct Garden {
    plants: Mutex<BTreeSet<String>>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Beds;

impl Provider for Beds {
    const NAME: &'static str = "beds";
    type Client = Arc<Garden>;

    fn realm(&self) -> Realm {
        Realm::Stated("garden".into())
    }

    async fn connect(self, link: Link) -> Result<Arc<Garden>> {
        link.world().ok_or_else(|| Error::invalid("there is no garden"))
    }

    fn types(types: &mut Types<Beds>) {
        types.add::<Plant<true>>();
        types.add::<Plant<false>>();
    }
}

/// A plant that bears fruit once there is another beside it.
#[derive(Clone, Serialize, Deserialize)]
struct Plant<const RIPENS: bool> {
    name: String,
    beside: Option<String>,
}

impl<const RIPENS: bool> Plant<RIPENS> {
    fn new(name: &str, beside: Option<&str>) -> Plant<RIPENS> {
        Plant { name: name.into(), beside: beside.map(str::to_owned) }
    }

    fn step(&self, plants: &BTreeSet<String>) -> Step<()> {
        let made = Made::new(self.name.as_str(), ());
        match &self.beside {
            Some(other) if !plants.contains(other) => Step::Next {
                cursor: json!("planted"),
                made: Some(made),
                why: format!("there is no {other}"),
                pause: Duration::from_secs(1),
            },
            Some(_) | None => Step::Done(made),
        }
    }
}

impl<const RIPENS: bool> Resource<Beds> for Plant<RIPENS> {
    const TYPE: &'static str = if RIPENS { "beds:plant" } else { "beds:vase" };
    const RIPENS: bool = RIPENS;
    type Outputs = ();

    fn id(&self) -> Option<Id> {
        Some(self.name.as_str().into())
    }

    async fn find(garden: &Arc<Garden>, op: &Op<Self>) -> Result<Found<()>> {
        let plants = garden.plants.lock().unwrap_or_else(PoisonError::into_inner);
        let here = op.inputs.as_ref().filter(|plant| plants.contains(&plant.name));
        Ok(here.map_or(Found::Absent, |plant| Found::Present(Owner::Unmarkable, plant.step(&plants))))
    }

    async fn apply(&self, garden: &Arc<Garden>, _: &Op<Self>) -> Result<Step<()>> {
        let mut plants = garden.plants.lock().unwrap_or_else(PoisonError::into_inner);
        plants.insert(self.name.clone());
        Ok(self.step(&plants))
    }

    async fn delete(garden: &Arc<Garden>, op: &Op<Self>) -> Result<Step<()>> {
        let mut plants = garden.plants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plant) = &op.inputs {
            plants.remove(&plant.name);
        }
        Ok(Step::gone())
    }
}

/// Plants as many as there are turns that wait for the last one.
fn planted<const RIPENS: bool>() -> lab_core::execute::Report {
    let bench = Bench::new().over(Arc::new(Garden::default())).knows::<Beds>();
    let trial = Trial { parallel: 2, ..Trial::default() };
    let program = |stack: &Stack| {
        let beds = stack.provider("beds", Beds);
        for (name, beside) in [("a", Some("z")), ("b", Some("z")), ("c", Some("z")), ("z", None)] {
            beds.resource(name).timeout(Duration::from_secs(60)).add(Plant::<RIPENS>::new(name, beside));
        }
        Ok(())
    };
    bench.attempt(program, Verb::Up, &trial).unwrap()
}

/// Sixteen workloads that waited for a volume which the program declares further down took all turns, and the volume
/// was never made.
#[test]
fn what_waits_for_a_step_that_has_not_begun_does_not_keep_it_from_beginning() {
    let report = planted::<true>();
    assert!(report.complete(), "{report:?}");
}

#[test]
fn what_is_still_being_made_keeps_its_turn() {
    let report = planted::<false>();
    let failed: Vec<String> = report.failed.iter().map(|failure| failure.urn.short()).collect();
    assert_eq!(failed, ["a", "b"], "until they give up");
}
