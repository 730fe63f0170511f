//! Replacement: delete-first or create-first by the type, in an order in which nothing is held twice.

mod yard;

use lab_core::execute::disk::Crash;
use lab_core::execute::{CallFault, Faults};
use lab_core::plan::{Action, Verb};
use lab_core::testing::Trial;
use lab_core::*;
use std::sync::Arc;
use yard::{Odd, Shop, Turn, Upset, failures, problems, settled, steps, yard};

/// A thing found by its mark, so that two of the same name can stand side by side.
fn twin(say: &str, claims: &[u64]) -> Odd {
    Odd {
        natural: false,
        turn: Turn::CreateFirst,
        claims: claims.iter().map(|n| (*n).into()).collect(),
        ..Odd::new("twin", say)
    }
}

fn one(odd: &Odd) -> impl Fn(&Stack) -> Result<(), ProgramError> + Copy {
    move |stack: &Stack| {
        stack.provider("shop", Shop::at("shop")).resource("it").add(odd.clone());
        Ok(())
    }
}

fn check(before: &Odd, after: &Odd, expected: &[&str]) {
    let (bench, yard) = yard();
    bench.up_whole(one(before));
    yard.log();
    bench.up_whole(one(after));
    assert_eq!(yard.log(), expected);
    assert_eq!(yard.things().len(), 1, "{:?}", yard.things());
    settled(&bench, one(after));
    let state = bench.state();
    assert!(state.condemned.is_empty(), "{state:#?}");
}

#[test]
fn a_delete_first_type_goes_before_its_successor_comes() {
    let odd = |say| Odd { turn: Turn::DeleteFirst, ..twin(say, &[]) };
    check(&odd("a"), &odd("b"), &["delete shop/twin", "create shop/twin"]);
}

#[test]
fn a_create_first_type_stands_until_its_successor_does() {
    check(&twin("a", &[]), &twin("b", &[]), &["create shop/twin", "delete shop/twin"]);
}

/// Who is superseded still stands, and still needs what it was made from: that was deleted beside it.
#[test]
fn what_a_superseded_thing_needed_goes_after_it() {
    let program = |both: bool| {
        move |stack: &Stack| {
            let shop = stack.provider("shop", Shop::at("shop"));
            let say: Input<String> = match both {
                true => shop.resource("source").add(Odd::new("source", "a")).output(|source| source.say).into(),
                false => "b".into(),
            };
            shop.resource("it").add(Odd { calls: 2, say, ..twin("", &[]) });
            Ok(())
        }
    };
    let (bench, yard) = yard();
    bench.up_whole(program(true));
    yard.log();
    bench.up_whole(program(false));
    assert_eq!(yard.log(), ["create shop/twin", "ready shop/twin", "delete shop/twin", "delete shop/source"]);
    settled(&bench, program(false));
}

#[test]
fn one_that_keeps_a_claim_goes_first() {
    check(&twin("a", &[5]), &twin("b", &[5, 6]), &["delete shop/twin", "create shop/twin"]);
    check(&twin("a", &[5]), &twin("b", &[6]), &["create shop/twin", "delete shop/twin"]);
}

#[test]
fn one_that_keeps_its_natural_id_goes_first() {
    let odd = |say| Odd { natural: true, ..twin(say, &[]) };
    check(&odd("a"), &odd("b"), &["delete shop/twin", "create shop/twin"]);
}

#[test]
fn a_successor_that_was_made_with_effort_leaves_the_old_one_standing_until_it_is_ready() {
    let odd = |say| Odd { calls: 2, ..twin(say, &[]) };
    check(&odd("a"), &odd("b"), &["create shop/twin", "ready shop/twin", "delete shop/twin"]);
}

#[test]
fn a_successor_that_fails_leaves_the_old_one_with_its_name() {
    let (bench, yard) = yard();
    bench.up_whole(one(&twin("a", &[])));
    let before = bench.state().records;
    yard.upset("apply", "twin", Upset::Fail(Class::Invalid));
    let report = bench.up(one(&twin("b", &[])));
    assert_eq!(failures(&report), ["replace it: it was upset"]);
    assert_eq!(bench.state().records, before);
    assert!(bench.state().condemned.is_empty());
    bench.up_whole(one(&twin("b", &[])));
    assert_eq!(yard.things().len(), 1);
}

#[test]
fn whoever_was_wired_to_the_old_one_moves_over_before_it_goes() {
    let (bench, yard) = yard();
    let program = |say: &'static str| {
        move |stack: &Stack| {
            let shop = stack.provider("shop", Shop::at("shop"));
            let twin = shop.resource("it").add(twin(say, &[]));
            shop.resource("user").add(Odd::new("user", twin.output(|twin| twin.room)));
            Ok(())
        }
    };
    bench.up_whole(program("a"));
    yard.log();
    bench.up_whole(program("b"));
    assert_eq!(yard.log(), ["create shop/twin", "update shop/user", "delete shop/twin"]);
    settled(&bench, program("b"));
}

#[test]
fn whoever_is_only_known_to_need_it_keeps_the_order_when_it_goes_first() {
    let (bench, yard) = yard();
    let program = |say: &'static str| {
        move |stack: &Stack| {
            let shop = stack.provider("shop", Shop::at("shop"));
            let it = shop.resource("it").add(Odd { turn: Turn::DeleteFirst, ..Odd::new("it", say) });
            shop.resource("user").add(Odd::new("user", it.output(|it| it.room)));
            Ok(())
        }
    };
    bench.up_whole(program("a"));
    yard.log();
    bench.up_whole(program("b"));
    assert_eq!(yard.log(), ["delete shop/it", "create shop/it", "update shop/user"]);
}

fn claimants(claims: &'static [(&'static str, &'static [u64])]) -> impl Fn(&Stack) -> Result<(), ProgramError> + Copy {
    move |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        for (name, claims) in claims {
            let say = claims.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
            shop.resource(name).add(Odd { name: (*name).into(), turn: Turn::Update, ..twin(&say, claims) });
        }
        Ok(())
    }
}

#[test]
fn what_takes_over_a_claim_comes_after_whoever_held_it() {
    let (bench, yard) = yard();
    bench.up_whole(claimants(&[("a", &[5])]));
    yard.log();
    bench.up_whole(claimants(&[("b", &[5])]));
    assert_eq!(yard.log(), ["delete shop/a", "create shop/b"]);
    bench.up_whole(claimants(&[("b", &[6]), ("c", &[5])]));
    assert_eq!(yard.log(), ["update shop/b", "create shop/c"], "an update lets go as well");
}

#[test]
fn two_that_want_what_the_other_holds_are_refused_before_anything_is_done() {
    let (bench, _) = yard();
    bench.up_whole(claimants(&[("a", &[5]), ("b", &[6])]));
    let plan = bench.preview(claimants(&[("a", &[6]), ("b", &[5])]));
    insta::assert_snapshot!(problems(&plan).join("\n"), @"these steps wait for each other: update a, update b; apply one of these changes alone first");
    // One alone, over a claim that nobody holds, is how it is done.
    bench.up_whole(claimants(&[("a", &[7]), ("b", &[6])]));
    bench.up_whole(claimants(&[("a", &[7]), ("b", &[5])]));
    bench.up_whole(claimants(&[("a", &[6]), ("b", &[5])]));
}

#[test]
fn replaced_ones_may_swap_claims_because_both_go_first() {
    let (bench, yard) = yard();
    let program = |a: u64, b: u64| {
        move |stack: &Stack| {
            let shop = stack.provider("shop", Shop::at("shop"));
            for (name, claim) in [("a", a), ("b", b)] {
                let odd =
                    Odd { turn: Turn::DeleteFirst, claims: vec![claim.into()], ..Odd::new(name, claim.to_string()) };
                shop.resource(name).add(odd);
            }
            Ok(())
        }
    };
    bench.up_whole(program(5, 6));
    yard.log();
    bench.up_whole(program(6, 5));
    let log = yard.log();
    assert_eq!(log.len(), 4, "{log:?}");
    assert!(log[..2].iter().all(|call| call.starts_with("delete")), "{log:?}");
}

#[test]
fn a_create_first_successor_waits_for_a_claim_that_another_lets_go() {
    let (bench, yard) = yard();
    let program = |say: &'static str, claim: u64, other: &'static [u64]| {
        move |stack: &Stack| {
            let shop = stack.provider("shop", Shop::at("shop"));
            shop.resource("it").add(twin(say, &[claim]));
            shop.resource("other").add(Odd { name: "other".into(), turn: Turn::Update, ..twin(say, other) });
            Ok(())
        }
    };
    bench.up_whole(program("a", 5, &[6]));
    yard.log();
    bench.up_whole(program("b", 6, &[7]));
    assert_eq!(yard.log(), ["update shop/other", "create shop/twin", "delete shop/twin"]);
}

/// Its claim was let go by the one that goes last, and was waited for by nobody.
#[test]
fn what_takes_over_the_claim_of_a_superseded_one_waits_until_that_one_is_gone() {
    let (bench, yard) = yard();
    let program = |say: &'static str, claim: u64, third: bool| {
        move |stack: &Stack| {
            let shop = stack.provider("shop", Shop::at("shop"));
            shop.resource("it").add(twin(say, &[claim]));
            if third {
                shop.resource("third").add(Odd { name: "third".into(), ..twin("x", &[5]) });
            }
            Ok(())
        }
    };
    bench.up_whole(program("a", 5, false));
    yard.log();
    bench.up_whole(program("b", 6, true));
    assert_eq!(yard.log(), ["create shop/twin", "delete shop/twin", "create shop/third"]);
}

#[test]
fn replace_when_replaces_whenever_its_value_differs() {
    let (bench, yard) = yard();
    let program = |trigger: u32| {
        move |stack: &Stack| {
            stack.provider("shop", Shop::at("shop")).resource("it").replace_when(trigger).add(Odd::new("it", "a"));
            Ok(())
        }
    };
    bench.up_whole(program(1));
    settled(&bench, program(1));
    yard.log();
    bench.up_whole(program(2));
    assert_eq!(yard.log(), ["delete shop/it", "create shop/it"]);
    settled(&bench, program(2));
}

#[test]
fn another_natural_id_is_another_thing_whatever_its_type_says() {
    let (bench, yard) = yard();
    bench.up_whole(one(&Odd::new("a", "x")));
    yard.log();
    bench.up_whole(one(&Odd { turn: Turn::Update, ..Odd::new("b", "x") }));
    let log = yard.log();
    assert_eq!(log.len(), 2, "{log:?}");
    assert_eq!(yard.things(), ["shop/b=x"]);
    settled(&bench, one(&Odd::new("b", "x")));
}

/// The run died, and by the next one the thing was to have another identity: it went on with the one that was begun, and the
/// state said that the other one was there.
#[test]
fn what_was_begun_with_another_identity_is_another_thing() {
    let thing = |name: &str, say: &str| Odd { turn: Turn::Update, calls: 2, ..Odd::new(name, say) };
    for made in [false, true] {
        for fault in [CallFault::StopBefore, CallFault::StopAfter, CallFault::LoseReply] {
            for n in 0..8 {
                let (bench, yard) = yard();
                if made {
                    bench.up_whole(one(&thing("a", "old")));
                }
                let trial = Trial { faults: Arc::new(Faults::at(n, fault)), ..Trial::default() };
                // That it died is all that is wanted of it.
                let _ = bench.attempt(one(&thing("a", "x")), Verb::Up, &trial);
                let bench = bench.crashed(Crash::Process).seeded(2);
                bench.up_whole(one(&thing("b", "x")));
                assert_eq!(yard.things(), ["shop/b=x"], "made: {made}, {fault:?} at call {n}");
                settled(&bench, one(&thing("b", "x")));
            }
        }
    }
}

#[test]
fn another_provider_realm_is_another_place() {
    let (bench, yard) = yard();
    let program = |place: &'static str| {
        move |stack: &Stack| {
            stack.provider("shop", Shop::at(place)).resource("it").add(Odd::new("it", "a"));
            Ok(())
        }
    };
    bench.up_whole(program("here"));
    yard.log();
    bench.up_whole(program("there"));
    assert_eq!(yard.log(), ["delete here/it", "create there/it"], "the old one is deleted where it is");
    settled(&bench, program("there"));
}

#[test]
fn what_depends_on_one_whose_line_goes_lets_go_first() {
    let (bench, yard) = yard();
    let program = |both: bool| {
        move |stack: &Stack| {
            let shop = stack.provider("shop", Shop::at("shop"));
            let say = if both {
                shop.resource("base").add(Odd::new("base", "x")).output(|base| base.say).into()
            } else {
                Input::from("alone")
            };
            shop.resource("user").add(Odd::new("user", say));
            Ok(())
        }
    };
    bench.up_whole(program(true));
    yard.log();
    bench.up_whole(program(false));
    assert_eq!(yard.log(), ["update shop/user", "delete shop/base"]);
}

#[test]
fn a_replacement_shows_as_one_thing_with_its_reason() {
    let (bench, _) = yard();
    let odd = |say| Odd { turn: Turn::DeleteFirst, ..Odd::new("it", say) };
    bench.up_whole(one(&odd("a")));
    let plan = bench.preview(one(&odd("b")));
    assert_eq!(steps(&plan), ["delete it", "create it"]);
    insta::assert_snapshot!(yard::shown(&plan), @r#"
      shop
        ± replace odd:thing it
            /say: "a" -> "b"
    lab: 1 to replace, 0 unchanged.
    "#);
}

#[test]
fn a_delete_that_fails_half_way_is_finished_before_the_new_one_comes() {
    let (bench, yard) = yard();
    let odd = |say| Odd { turn: Turn::DeleteFirst, ..Odd::new("it", say) };
    bench.up_whole(one(&odd("a")));
    yard.log();
    yard.upset("delete", "it", Upset::Perhaps(Class::Invalid));
    let report = bench.up(one(&odd("b")));
    assert_eq!(failures(&report), ["delete it: it was upset"]);
    assert_eq!(report.not_started.len(), 1);
    bench.attempt(one(&odd("b")), Verb::Up, &Trial::default()).unwrap();
    assert_eq!(yard.log(), ["delete shop/it", "create shop/it"]);
    settled(&bench, one(&odd("b")));
}

/// Its line went, the deletion was cut off, and the line came back as it had been: nothing differed.
#[test]
fn what_was_about_to_be_deleted_and_is_wanted_again_is_made_anew() {
    let (bench, yard) = yard();
    let odd = Odd::new("it", "a");
    bench.up_whole(one(&odd));
    yard.log();
    yard.upset("delete", "it", Upset::Perhaps(Class::Invalid));
    assert!(!bench.up(|_: &Stack| Ok(())).complete());
    bench.up_whole(one(&odd));
    assert_eq!(yard.log(), ["delete shop/it", "create shop/it"]);
    settled(&bench, one(&odd));
}

/// Data goes with a thing that turns out to be replaced as with one that is certain to be: nobody had been asked.
#[test]
fn what_is_lost_by_a_replacement_that_may_come_is_shown() {
    let program = |say: &'static str| {
        move |stack: &Stack| {
            let shop = stack.provider("shop", Shop::at("shop"));
            let base = shop.resource("base").add(Odd { turn: Turn::DeleteFirst, ..Odd::new("base", say) });
            let user = Odd {
                turn: Turn::DeleteFirst,
                holds: Some("its disk".into()),
                ..Odd::new("user", base.output(|base| base.room))
            };
            shop.resource("user").add(user);
            Ok(())
        }
    };
    let (bench, _) = yard();
    bench.up_whole(program("old"));
    let plan = bench.preview(program("new"));
    let lost: Vec<(String, &str)> = plan.destroys().map(|(urn, what)| (urn.short(), what)).collect();
    assert_eq!(lost, [("user".to_owned(), "its disk")]);
    bench.up_whole(program("new"));
    settled(&bench, program("new"));
}

/// Both halves of a replacement that may come destroy something, and a person can be asked about one: it is not done before
/// it is certain.
#[test]
fn where_both_halves_of_a_replacement_destroy_something_nothing_is_done_unasked() {
    let program = |say: &'static str| {
        move |stack: &Stack| {
            let shop = stack.provider("shop", Shop::at("shop"));
            let base = shop.resource("base").add(Odd { turn: Turn::DeleteFirst, ..Odd::new("base", say) });
            let wipes = Some("disk b".into());
            let room = base.output(|base| base.room);
            let user = Odd { turn: Turn::DeleteFirst, holds: Some("its disk".into()), wipes, ..Odd::new("user", room) };
            shop.resource("user").add(user);
            Ok(())
        }
    };
    let (bench, _) = yard();
    bench.up_whole(program("old"));
    assert_eq!(
        failures(&bench.up(program("new"))),
        ["update user: it would have to be replaced, which the plan did not show; plan again"]
    );
    let lost: Vec<String> = bench.preview(program("new")).destroys().map(|(_, what)| what.to_owned()).collect();
    assert_eq!(lost, ["its disk", "disk b"]);
    bench.up_whole(program("new"));
    settled(&bench, program("new"));
}

/// A run died before it had deleted what was superseded, and what only that had needed went first: with its line, or superseded
/// as well.
#[test]
fn what_was_superseded_goes_before_what_it_needs() {
    for (name, replaced) in [("base", false), ("zone", false), ("base", true), ("zone", true)] {
        let program = |new: bool| {
            move |stack: &Stack| {
                let shop = stack.provider("shop", Shop::at("shop"));
                let base = (replaced || !new).then(|| {
                    let says = if new { "new" } else { "old" };
                    shop.resource(name).add(Odd { turn: Turn::CreateFirst, natural: false, ..Odd::new(name, says) })
                });
                let says: Input<String> = match base {
                    Some(base) => base.output(|base| base.say).into(),
                    None => "new".into(),
                };
                shop.resource("it").add(Odd { say: says, ..twin("", &[]) });
                Ok(())
            }
        };
        let mut superseded = 0;
        for n in 0..10 {
            let (bench, yard) = yard();
            bench.up_whole(program(false));
            yard.log();
            let trial = Trial { faults: Arc::new(Faults::at(n, CallFault::StopBefore)), ..Trial::default() };
            bench.attempt(program(true), Verb::Up, &trial).unwrap();
            let bench = bench.crashed(Crash::Process).seeded(2);
            let log = yard.log();
            if log.iter().any(|call| call.starts_with("delete")) || !log.contains(&"create shop/twin".to_owned()) {
                continue;
            }
            superseded += 1;
            let plan = bench.preview(program(true));
            let deletes = |short: &str| {
                let is = |step: &plan::Step| step.urn.short() == short && matches!(step.action, Action::Delete { .. });
                plan.steps.iter().position(is).expect("it is deleted")
            };
            let waits = plan.steps[deletes(name)].after.iter().any(|after| after.step == deletes("it"));
            assert!(waits, "{}", yard::shown(&plan));
            bench.up_whole(program(true));
            assert_eq!(yard.log(), ["delete shop/twin".to_owned(), format!("delete shop/{name}")]);
            settled(&bench, program(true));
        }
        assert!(superseded > 0, "it was never stopped there");
    }
}
