//! Promotion: what one environment is made of is what another was seen to stand well with.

use lab_core::plan::Verb;
use lab_core::testing::{Bench, Memory, Thing, Trial};
use lab_core::*;
use serde::{Deserialize, Serialize};

/// What is tried in one environment before it is used in the next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Versions {
    channel: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Cluster {
    versions: Versions,
}

/// A cluster of two things. Its versions are told, or taken over from another environment.
fn cluster(told: Option<&'static str>, from: &'static str) -> impl Fn(&Stack) -> Result<Cluster, ProgramError> + Copy {
    move |stack: &Stack| {
        let versions = match told {
            Some(channel) => Versions { channel: channel.to_owned() },
            None => stack.promoted_from::<Cluster>(from)?.versions,
        };
        let place = stack.env().unwrap_or("nowhere").to_owned();
        let memory = stack.provider("memory", Memory::at(&place));
        let first = memory.resource("first").add(Thing::new("first", versions.channel.as_str()));
        memory
            .resource("second")
            .depends_on(&first)
            .add(Thing { calls: 3, ..Thing::new("second", versions.channel.as_str()) });
        Ok(Cluster { versions })
    }
}

fn environments() -> (Bench, Bench, Bench) {
    let bench = Bench::new();
    (bench.clone().env("dev"), bench.clone().env("staging"), bench.env("production"))
}

fn says(bench: &Bench, env: &str) -> String {
    bench.world().get(env, "first").unwrap().value["text"].as_str().unwrap().to_owned()
}

fn refused(bench: &Bench, program: impl Fn(&Stack) -> Result<Cluster, ProgramError>) -> String {
    bench.try_load(program).err().expect("nothing is promoted").to_string()
}

#[test]
fn each_environment_is_planned_from_what_the_one_before_it_was_applied_as() {
    let (dev, staging, production) = environments();
    dev.up_whole(cluster(Some("1.34/stable"), ""));
    staging.up_whole(cluster(None, "dev"));
    production.up_whole(cluster(None, "staging"));
    dev.up_whole(cluster(Some("1.35/stable"), ""));
    // Applied in dev alone: production knows nothing of it before staging does.
    assert!(production.preview(cluster(None, "staging")).is_empty());
    assert_eq!(staging.preview(cluster(None, "dev")).steps.len(), 2);
    staging.up_whole(cluster(None, "dev"));
    production.up_whole(cluster(None, "staging"));
    assert_eq!(says(&production, "production"), "1.35/stable");
}

#[test]
fn a_producer_that_was_never_applied_is_an_error_of_the_plan() {
    let (dev, staging, _) = environments();
    let never = "stack lab-dev was never applied in this lab directory: run its `up` first";
    assert_eq!(refused(&staging, cluster(None, "dev")), never);
    dev.up_whole(cluster(Some("1.34/stable"), ""));
    staging.up_whole(cluster(None, "dev"));
    dev.destroy(cluster(Some("1.34/stable"), ""));
    assert_eq!(refused(&staging, cluster(None, "dev")), never);
}

#[test]
fn a_rollout_that_is_half_done_is_not_promoted() {
    let (dev, staging, _) = environments();
    dev.up_whole(cluster(Some("1.34/stable"), ""));
    staging.up_whole(cluster(None, "dev"));
    // Only a part of it is applied: what the stack returned is what it was.
    let part = Trial { targets: vec!["first".into()], ..Trial::default() };
    dev.attempt(cluster(Some("1.35/stable"), ""), Verb::Up, &part).unwrap();
    assert!(staging.preview(cluster(None, "dev")).is_empty());
    dev.up_whole(cluster(Some("1.35/stable"), ""));
    assert_eq!(staging.preview(cluster(None, "dev")).steps.len(), 2);
}

#[test]
fn what_is_not_well_is_not_promoted() {
    let (dev, staging, _) = environments();
    dev.up_whole(cluster(Some("1.34/stable"), ""));
    dev.world().take_away("dev", "second");
    dev.refresh(cluster(Some("1.34/stable"), ""));
    let told = "nothing is promoted from dev, which is not well: memory:thing second is gone; run its `up` first";
    assert_eq!(refused(&staging, cluster(None, "dev")), told);
    dev.up_whole(cluster(Some("1.34/stable"), ""));
    assert_eq!(staging.preview(cluster(None, "dev")).steps.len(), 2);
}

#[test]
fn nothing_is_promoted_to_itself_or_to_no_environment() {
    let (dev, ..) = environments();
    assert_eq!(refused(&dev, cluster(None, "dev")), "dev cannot be promoted from itself");
    let told = "nothing is promoted from dev to no environment: say `--env`";
    assert_eq!(refused(&Bench::new(), cluster(None, "dev")), told);
}
