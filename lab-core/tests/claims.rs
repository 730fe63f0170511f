//! Claims: what is occupied exclusively is occupied once in all stacks of a lab directory.

mod yard;

use lab_core::execute::disk::Crash;
use lab_core::execute::{CallFault, Faults};
use lab_core::plan::Verb;
use lab_core::testing::{Bench, Trial};
use lab_core::*;
use std::sync::Arc;
use yard::{Odd, Shop, Turn, Upset, failures, problem, problems, settled, steps, yard};

fn odd(name: &str, claims: &[u64]) -> Odd {
    Odd { claims: claims.iter().map(|n| (*n).into()).collect(), ..Odd::new(name, "x") }
}

fn program(things: &'static [(&'static str, &'static [u64])]) -> impl Fn(&Stack) -> Result<(), ProgramError> + Copy {
    move |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        for (name, claims) in things {
            shop.resource(name).add(odd(name, claims));
        }
        Ok(())
    }
}

#[test]
fn a_clash_names_both_sides_and_both_lines() {
    let (bench, _) = yard();
    let program = |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        shop.resource("one").add(odd("one", &[7]));
        shop.resource("two").add(odd("two", &[7]));
        Ok(())
    };
    let plan = bench.preview(program);
    let lines: Vec<u32> = plan.problems[0].places.iter().map(|place| place.line).collect();
    assert_eq!(lines[1], lines[0] + 1, "each side has its own line");
    insta::assert_snapshot!(problem(&bench, program), @"number 7 of one overlaps number 7 of two; give one of them another place");
}

#[test]
fn only_what_is_drawn_from_a_pool_may_lie_in_it() {
    let address = |n: u8| Claim::address([10, 69, 1, n].into());
    let pool = Claim::addresses([10, 69, 1, 150].into(), [10, 69, 1, 160].into()).pool();
    assert!(pool.clashes(&address(151)), "the home lab's own document gives a worker 10.69.1.151");
    assert!(!pool.clashes(&address(161)));
    assert!(!pool.clashes(&address(151).drawn()) && !address(151).drawn().clashes(&pool));
    assert!(address(151).drawn().clashes(&address(151).drawn()), "one address is drawn once");
    let over = Claim::addresses([10, 69, 1, 159].into(), [10, 69, 1, 161].into()).drawn();
    assert!(pool.clashes(&over), "what is drawn lies within");
    assert!(pool.clashes(&Claim::addresses([10, 69, 1, 155].into(), [10, 69, 1, 156].into()).pool()));
    assert!(!Claim::number("port", 7).clashes(&Claim::number("vm", 7)), "spaces have nothing to do with each other");
    assert!(Claim::name("host name", "nas").clashes(&Claim::name("host name", "nas")));
    assert!(!Claim::name("host name", "nas").clashes(&Claim::name("host name", "nas2")));
}

#[test]
fn what_another_stack_of_the_directory_occupies_is_taken() {
    let (bench, _) = yard();
    bench.up_whole(program(&[("mine", &[7])]));
    let other = bench.clone().named("other");
    insta::assert_snapshot!(problem(&other, program(&[("theirs", &[7])])), @"number 7 of mine in stack lab overlaps number 7 of theirs; give one of them another place");
    other.up_whole(program(&[("theirs", &[8])]));
    assert!(problem(&bench, program(&[("mine", &[8])])).contains("theirs in stack other"));
    assert!(other.destroy(program(&[("theirs", &[8])])).complete());
    bench.up_whole(program(&[("mine", &[8])]));
}

#[test]
fn another_directory_is_another_world() {
    let (bench, _) = yard();
    bench.up_whole(program(&[("mine", &[7])]));
    let (elsewhere, _) = yard::yard();
    elsewhere.up_whole(program(&[("mine", &[7])]));
}

/// A source, and a thing that claims as many as the source's text is long.
fn deferred(say: &'static str, fixed: &'static [u64]) -> impl Fn(&Stack) -> Result<(), ProgramError> + Copy {
    move |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        let source = shop.resource("source").add(Odd::new("source", say));
        shop.resource("fixed").add(odd("fixed", fixed));
        let late = vec![source.output(|source| source.say.len() as u64).into()];
        let fixed_first = stack.provider("late", Shop::at("late"));
        fixed_first
            .resource("late")
            .timeout(std::time::Duration::from_secs(60))
            .add(Odd { claims: late, ..Odd::new("late", "x") });
        Ok(())
    }
}

#[test]
fn a_claim_that_is_known_later_is_shown_as_deferred_and_checked_before_its_step() {
    let (bench, yard) = yard();
    bench.up_whole(program(&[("first", &[3])]));
    let both = |stack: &Stack| {
        program(&[("first", &[3])])(stack)?;
        let shop = stack.provider("more", Shop::at("more"));
        let source = shop.resource("source").add(Odd::new("source", "abc"));
        let late = vec![source.output(|source| source.say.len() as u64).into()];
        shop.resource("late").add(Odd { claims: late, ..Odd::new("late", "x") });
        Ok(())
    };
    yard.log();
    let plan = bench.preview(both);
    assert_eq!(steps(&plan), ["create source", "create late"]);
    assert!(plan.steps[1].claims_deferred && !plan.steps[0].claims_deferred);
    assert!(yard::shown(&plan).contains("what it occupies is checked once its inputs are known"));
    let report = bench.up(both);
    let said = failures(&report).join("\n");
    assert!(said.starts_with("create late: number 3 is taken by first ("), "{said}");
    assert_eq!(yard.log(), ["create more/source"], "before its step begins");
    let free = deferred("abcd", &[3]);
    let (bench, _) = yard::yard();
    bench.up_whole(free);
    // Before another run notes it.
    let state = bench.state();
    let late = state.records.values().find(|record| record.id == Some(Id("late".into()))).unwrap();
    assert_eq!(late.spec.claims, [Claim::number("number", 4)]);
    settled(&bench, free);
}

/// A claim known only later was compared with the claims of its own stack, not with those of the others.
#[test]
fn a_claim_that_is_known_later_is_compared_with_the_other_stacks_too() {
    let (bench, _) = yard();
    bench.up_whole(program(&[("mine", &[4])]));
    let other = bench.clone().named("other");
    let report = other.up(deferred("abcd", &[9]));
    let said = failures(&report).join("\n");
    assert!(said.starts_with("create late: number 4 is taken by mine in stack lab ("), "{said}");
}

/// A pool that is made in the same run as what is drawn from it, and a second one that lies across it.
#[test]
fn a_pool_and_what_clashes_with_it_in_one_program() {
    let (bench, _): (Bench, _) = yard();
    let said = problem(&bench, |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        shop.resource("pool").add(Odd { pool: true, ..odd("pool", &[5]) });
        shop.resource("node").add(odd("node", &[5]));
        Ok(())
    });
    assert!(said.contains("node") && said.contains("pool"), "{said}");
}

#[test]
fn what_lies_in_the_middle_of_another_claim_is_taken_and_a_thing_is_in_nobodys_way_but_others() {
    let (bench, _) = yard();
    let program = |node: u64| {
        move |stack: &Stack| {
            let shop = stack.provider("shop", Shop::at("shop"));
            shop.resource("pool").add(Odd { pool: true, reach: 5, ..odd("pool", &[10]) });
            // It says the same twice, which is not twice the same.
            shop.resource("node").add(odd("node", &[node, node]));
            Ok(())
        }
    };
    assert!(problems(&bench.preview(program(13))).iter().all(|said| said.contains("node") && said.contains("pool")));
    assert!(!problems(&bench.preview(program(13))).is_empty());
    bench.up_whole(program(16));
    bench.up_whole(program(9));
}

/// Two things, each with a number and what it says.
fn pair(a: (u64, &'static str), b: (u64, &'static str)) -> impl Fn(&Stack) -> Result<(), ProgramError> + Copy {
    move |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        for (name, (number, say)) in [("a", a), ("b", b)] {
            shop.resource(name).add(Odd { say: say.into(), ..odd(name, &[number]) });
        }
        Ok(())
    }
}

/// A change that gave a thing a number was cut off, and taken back. The number was somebody else's again while the thing
/// still had it: what was only begun was not among what is occupied.
#[test]
fn what_a_change_that_was_cut_off_may_have_taken_is_let_go_before_another_takes_it() {
    let (bench, yard) = yard();
    let before = pair((1, "old"), (2, "old"));
    bench.up_whole(before);
    let moved = pair((9, "new"), (1, "new"));
    // Two looks and two changes; the reply to the second change is not seen.
    let trial = Trial { faults: Arc::new(Faults::at(3, CallFault::StopAfter)), ..Trial::default() };
    yard.log();
    assert!(bench.attempt(moved, Verb::Up, &trial).unwrap().stopped);
    assert_eq!(yard.log(), ["update shop/a", "update shop/b"]);
    let bench = bench.crashed(Crash::Process).seeded(2);
    let other = bench.clone().named("other");
    assert_eq!(
        problem(&other, program(&[("theirs", &[1])])),
        "number 1 of b in stack lab overlaps number 1 of theirs; give one of them another place"
    );
    // One at a time, as the plan has them: beside each other they might come in this order by themselves.
    let trial = Trial { parallel: 1, ..Trial::default() };
    assert!(bench.attempt(before, Verb::Up, &trial).unwrap().complete());
    assert_eq!(yard.log(), ["update shop/b", "update shop/a"]);
    settled(&bench, before);
}

/// What was superseded still had its number when the run was cut off. Nobody asked it to go before another took that.
#[test]
fn what_lost_its_name_has_its_number_until_it_is_gone() {
    let (bench, yard) = yard();
    let program = |a: (u64, &'static str), b: Option<u64>| {
        move |stack: &Stack| {
            let shop = stack.provider("shop", Shop::at("shop"));
            let next = Odd { natural: false, turn: Turn::CreateFirst, say: a.1.into(), ..odd("a", &[a.0]) };
            shop.resource("a").add(next);
            b.into_iter().for_each(|b| drop(shop.resource("b").add(odd("b", &[b]))));
            Ok(())
        }
    };
    bench.up_whole(program((1, "old"), None));
    let trial = Trial { faults: Arc::new(Faults::at(1, CallFault::StopAfter)), ..Trial::default() };
    yard.log();
    assert!(bench.attempt(program((2, "new"), None), Verb::Up, &trial).unwrap().stopped);
    assert_eq!(yard.log(), ["create shop/a"]);
    let bench = bench.crashed(Crash::Process).seeded(2);
    let other = bench.clone().named("other");
    let theirs = self::program(&[("theirs", &[1])]);
    assert_eq!(
        problem(&other, theirs),
        "number 1 of a in stack lab overlaps number 1 of theirs; give one of them another place"
    );
    bench.up_whole(program((2, "new"), Some(1)));
    assert_eq!(yard.log(), ["delete shop/a", "create shop/b"]);
    settled(&bench, program((2, "new"), Some(1)));
}

/// A thing that is made anew before the last one goes, or changed in place, and another that it may depend on.
fn anew(a: (u64, &'static str, Turn), b: Option<u64>) -> impl Fn(&Stack) -> Result<(), ProgramError> + Copy {
    move |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        let b = b.map(|b| shop.resource("b").add(odd("b", &[b])));
        let line = b.iter().fold(shop.resource("a"), |line, b| line.depends_on(b));
        line.add(Odd { natural: false, turn: a.2, say: a.1.into(), ..odd("a", &[a.0]) });
        Ok(())
    }
}

/// Returns a yard in which `a` was made anew with the number 2, and the one with 1 is not gone: cut off at a call.
fn between(call: usize, fault: CallFault) -> (Bench, Arc<yard::Yard>) {
    let (bench, yard) = yard();
    bench.up_whole(anew((1, "old", Turn::CreateFirst), None));
    let trial = Trial { faults: Arc::new(Faults::at(call, fault)), ..Trial::default() };
    let next = anew((2, "new", Turn::CreateFirst), None);
    assert!(bench.attempt(next, Verb::Up, &trial).unwrap().stopped);
    let bench = bench.crashed(Crash::Process).seeded(2);
    assert_eq!(bench.state().condemned.len(), 1);
    yard.log();
    (bench, yard)
}

/// The program was taken back, and what was made took the number of the one that it had replaced, which was still there.
#[test]
fn what_takes_its_number_back_waits_for_the_one_that_has_it() {
    for (call, fault) in [(1, CallFault::StopAfter), (2, CallFault::StopBefore)] {
        let (bench, yard) = between(call, fault);
        let before = anew((1, "old", Turn::CreateFirst), None);
        bench.up_whole(before);
        let log = yard.log();
        let had = log.iter().position(|log| log == "delete shop/a");
        assert!(had < log.iter().position(|log| log == "create shop/a"), "{log:?}");
        settled(&bench, before);
    }
}

/// What was replaced waited for its successor to be changed, though that stood, and the change for who takes its number.
#[test]
fn what_was_replaced_goes_as_soon_as_its_successor_stands() {
    let (bench, yard) = between(2, CallFault::StopBefore);
    let next = anew((2, "newer", Turn::Update), Some(1));
    bench.up_whole(next);
    assert_eq!(yard.log(), ["delete shop/a", "create shop/b", "update shop/a"]);
    settled(&bench, next);
}

/// What was begun twice, with another number each time, may have either.
#[test]
fn every_number_that_a_change_was_begun_with_may_be_taken() {
    let (bench, yard) = yard();
    let (one, nine, five) = (pair((1, "one"), (2, "x")), pair((9, "nine"), (2, "x")), pair((5, "five"), (2, "x")));
    bench.up_whole(one);
    let trial = Trial { faults: Arc::new(Faults::at(1, CallFault::StopAfter)), ..Trial::default() };
    assert!(bench.attempt(nine, Verb::Up, &trial).unwrap().stopped);
    let bench = bench.crashed(Crash::Process).seeded(2);
    yard.upset("apply", "a", Upset::Fail(Class::Invalid));
    assert_eq!(failures(&bench.up(five)), ["continue a: it was upset"]);
    assert!(yard.things().contains(&"shop/a=nine".to_owned()));
    let other = bench.clone().named("other");
    for taken in [1, 5, 9] {
        let theirs = |stack: &Stack| {
            let shop = stack.provider("shop", Shop::at("other"));
            shop.resource("theirs").add(odd("theirs", &[taken]));
            Ok(())
        };
        assert!(problem(&other, theirs).starts_with(&format!("number {taken} of a in stack lab overlaps")));
    }
    bench.up_whole(five);
    other.up_whole(program(&[("theirs", &[9])]));
}

/// What is retained keeps its number, and another thing was to have it in the same run.
#[test]
fn what_is_retained_keeps_what_it_occupies() {
    let program = |both: bool| {
        move |stack: &Stack| {
            let shop = stack.provider("shop", Shop::at("shop"));
            let odd = |name: &str| Odd { claims: vec![5.into()], ..Odd::new(name, "x") };
            match both {
                true => drop(shop.resource("kept").retain().add(odd("kept"))),
                false => drop(shop.resource("other").add(odd("other"))),
            }
            Ok(())
        }
    };
    let (bench, _) = yard();
    bench.up_whole(program(true));
    let expected = "number 5 of other is still taken by kept, which is retained; give one of them another place, or delete that one";
    assert_eq!(problem(&bench, program(false)), expected);
}
