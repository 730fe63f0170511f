//! What a provider warns of is told while the run is at work and once more in its report, whatever became of the call.

mod yard;

use lab_core::execute::{CallFault, Faults, Progress, Report, Warned};
use lab_core::plan::Verb;
use lab_core::testing::{Bench, Trial};
use lab_core::{Class, ProgramError, Stack};
use std::sync::Arc;
use yard::{Odd, Shop, Upset, yard};

const LOOSE: &str = "the lid is loose";

fn program(stack: &Stack) -> Result<(), ProgramError> {
    let shop = stack.provider("shop", Shop::at("shop"));
    shop.resource("it").add(Odd { warns: Some(LOOSE.into()), calls: 2, ..Odd::new("it", "x") });
    shop.resource("quiet").add(Odd::new("quiet", "x"));
    Ok(())
}

/// Runs a verb and returns its report with the warnings that were told meanwhile, each with its resource.
fn run(bench: &Bench, verb: Verb, faults: Faults) -> (Report, Vec<String>) {
    let trial = Trial { faults: Arc::new(faults), ..Trial::default() };
    let report = bench.attempt(program, verb, &trial).unwrap();
    let heard = trial.heard.lock().unwrap();
    let told = heard.iter().filter_map(|progress| match progress {
        Progress::Warning { urn, message } => Some(format!("{}: {message}", urn.as_ref()?.name())),
        _ => None,
    });
    let told = told.collect();
    drop(heard);
    (report, told)
}

fn reported(report: &Report) -> Vec<String> {
    let said = |warned: &Warned| format!("{}: {}", warned.urn.as_ref().unwrap().name(), warned.message);
    report.warnings.iter().map(said).collect()
}

#[test]
fn a_warning_is_told_once_and_is_in_the_report() {
    let (bench, _) = yard();
    // Three calls make it, and say the same.
    let (report, told) = run(&bench, Verb::Up, Faults::none());
    assert!(report.complete(), "{report:#?}");
    assert_eq!(told, ["it: find: the lid is loose", "it: apply: the lid is loose"]);
    assert_eq!(reported(&report), told);
    // A run that has nothing to do has nothing to warn of.
    let (report, told) = run(&bench, Verb::Up, Faults::none());
    assert_eq!((reported(&report), told), (vec![], vec![]));
    let (report, told) = run(&bench, Verb::Destroy, Faults::none());
    assert!(told.contains(&"it: delete: the lid is loose".to_owned()), "{told:?}");
    assert_eq!(reported(&report), told);
}

#[test]
fn what_a_call_warned_of_before_it_failed_is_told() {
    for upset in [Upset::Fail(Class::Invalid), Upset::After(Class::Unreachable), Upset::Panic] {
        let (bench, yard) = yard();
        yard.upset("apply", "it", upset);
        let (report, told) = run(&bench, Verb::Up, Faults::none());
        assert!(told.contains(&"it: apply: the lid is loose".to_owned()), "{upset:?}: {told:?}");
        assert_eq!(reported(&report), told, "{upset:?}");
    }
}

#[test]
fn no_run_that_is_killed_keeps_a_warning_to_itself() {
    let calls = {
        let (bench, _) = yard();
        let faults = Arc::new(Faults::none());
        bench.attempt(program, Verb::Up, &Trial { faults: faults.clone(), ..Trial::default() }).unwrap();
        faults.calls()
    };
    assert!(calls > 5, "{calls}");
    for n in 0..calls {
        for fault in [CallFault::StopBefore, CallFault::StopAfter, CallFault::LoseReply] {
            let (bench, _) = yard();
            let (_, mut told) = run(&bench, Verb::Up, Faults::at(n, fault));
            let (report, more) = run(&bench, Verb::Up, Faults::none());
            assert!(report.complete(), "{fault:?} at {n}: {report:#?}");
            told.extend(more);
            assert!(told.contains(&"it: apply: the lid is loose".to_owned()), "{fault:?} at {n}: {told:?}");
        }
    }
}
