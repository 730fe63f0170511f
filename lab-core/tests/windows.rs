//! Maintenance windows: outside of them what is disruptive is held, with what waits for it, and the rest is done.

mod yard;

use insta::assert_snapshot;
use lab_core::execute::disk::Crash;
use lab_core::execute::{CallFault, Faults};
use lab_core::plan::{Plan, Verb};
use lab_core::testing::{Bench, Memory, Thing, Trial};
use lab_core::*;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use yard::{Chore, Odd, Shop, Turn, Yard, settled, shown, steps, yard};

/// Sunday, the 22nd of November 2026, noon, in UTC: outside of the window.
fn noon() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(20_779 * 86_400 + 12 * 3_600)
}

/// The same day, in the middle of the window.
fn evening() -> SystemTime {
    noon() + Duration::from_secs(8 * 3_600 + 1_800)
}

const WINDOW: &str = "Sun 20:00-21:00";

/// What is still to be done, and until when: `update a until Sun ...`.
fn held(plan: &Plan) -> Vec<String> {
    let alone = |step| Plan { steps: vec![step], held: Vec::new(), ..plan.clone() };
    plan.held.iter().map(|held| format!("{} until {}", steps(&alone(held.step.clone()))[0], held.shown)).collect()
}

/// A fragile disk, a page that is made from what the disk says, and a lamp that has nothing to do with them.
fn house(says: &'static str) -> impl Fn(&Stack) -> Result<Output<String>, ProgramError> + Copy {
    move |stack: &Stack| {
        stack.maintenance(Windows::new([WINDOW])?);
        let memory = stack.provider("memory", Memory::at("cellar"));
        let disk = memory.resource("disk").add(Thing { fragile: true, ..Thing::new("disk", says) });
        memory.resource("page").add(Thing::new("page", disk.output(|disk| disk.text)));
        memory.resource("lamp").add(Thing::new("lamp", says));
        Ok(disk.output(|disk| disk.text))
    }
}

#[test]
fn outside_of_the_window_what_interrupts_is_held_with_what_waits_for_it_and_the_rest_is_done() {
    let bench = Bench::new().at(noon());
    bench.up_whole(house("old"));
    assert_snapshot!(shown(&bench.preview(house("new"))), @r#"
      memory
        ~ update memory:thing lamp
            /text: "old" -> "new"
      held until Sun 2026-11-22 20:00 UTC, when the maintenance window opens
        ~ update memory:thing disk
            interrupts: disk is away for a while
            /text: "old" -> "new"
        ~ update memory:thing page
            because it waits for disk, which is held
            may stay as it is, once its inputs are known
            /text: "old" -> known after disk
    lab: 1 to update, 2 held until Sun 2026-11-22 20:00 UTC, 0 unchanged.
    "#);
    bench.up_whole(house("new"));
    assert_eq!(bench.world().get("cellar", "lamp").unwrap().value["text"], "new");
    assert_eq!(bench.world().get("cellar", "disk").unwrap().value["text"], "old");
    let again = bench.preview(house("new"));
    assert!(again.is_empty(), "there is nothing to do now");
    assert_eq!(again.held.len(), 2);
}

#[test]
fn within_the_window_everything_is_done() {
    let bench = Bench::new().at(noon());
    bench.up_whole(house("old"));
    let bench = bench.at(evening());
    let plan = bench.preview(house("new"));
    assert_eq!(steps(&plan), ["update disk", "update page", "update lamp"]);
    assert_eq!(plan.held, []);
    bench.up_whole(house("new"));
    assert_eq!(bench.world().get("cellar", "page").unwrap().value["text"], "new");
    assert!(bench.preview(house("new")).is_empty());
}

#[test]
fn what_a_stack_returns_is_not_recorded_before_what_is_held_is_done() {
    let bench = Bench::new().at(noon());
    bench.up_whole(house("old"));
    bench.up_whole(house("new"));
    assert_eq!(bench.state().outputs, "old");
    bench.clone().at(evening()).up_whole(house("new"));
    assert_eq!(bench.state().outputs, "new");
}

#[test]
fn what_is_made_for_the_first_time_is_not_held_and_neither_is_a_destruction() {
    let bench = Bench::new().at(noon());
    assert_eq!(bench.preview(house("old")).held, []);
    bench.up_whole(house("old"));
    let plan = bench.plan(house("old"), Verb::Destroy, &plan::Observations::default(), &[]);
    assert_eq!((plan.steps.len(), plan.held.len()), (3, 0));
}

/// A thing with data in it, which is moved, taken away or left.
fn archive(stand: Option<&'static str>, create_first: bool) -> impl Fn(&Stack) -> Result<(), ProgramError> + Copy {
    move |stack: &Stack| {
        stack.maintenance(Windows::new([WINDOW])?);
        let memory = stack.provider("memory", Memory::at("cellar"));
        if let Some(stand) = stand {
            let data = (!create_first).then(|| "every film".to_owned());
            let thing = Thing { stand: stand.into(), data, create_first, ..Thing::new("archive", "films") };
            memory.resource("archive").add(thing);
        }
        Ok(())
    }
}

#[test]
fn a_replacement_is_held_with_both_its_halves() {
    for create_first in [false, true] {
        let bench = Bench::new().at(noon());
        bench.up_whole(archive(Some("left"), create_first));
        let plan = bench.preview(archive(Some("right"), create_first));
        assert_eq!(steps(&plan), [""; 0], "create first: {create_first}");
        assert_eq!(plan.held.len(), 2);
        let bench = bench.at(evening());
        bench.up_whole(archive(Some("right"), create_first));
        assert!(bench.preview(archive(Some("right"), create_first)).is_empty());
    }
}

#[test]
fn destroying_data_is_held() {
    let bench = Bench::new().at(noon());
    bench.up_whole(archive(Some("left"), false));
    let plan = bench.preview(archive(None, false));
    assert_eq!(steps(&plan), [""; 0]);
    assert_eq!(held(&plan), ["delete archive until Sun 2026-11-22 20:00 UTC"]);
    assert_eq!(plan.destroys().count(), 0, "nothing that needs consent now");
}

/// A room that stands somewhere, and things in it.
fn room(stand: &'static str, says: &'static str) -> impl Fn(&Stack) -> Result<(), ProgramError> + Copy {
    move |stack: &Stack| {
        stack.maintenance(Windows::new([WINDOW])?);
        let memory = stack.provider("memory", Memory::at("cellar"));
        let room = memory.resource("room").add(Thing { stand: stand.into(), ..Thing::new("room", "") });
        let inside = stack.provider("inside", Memory::inside(&room));
        inside.resource("chair").add(Thing::new("chair", says));
        inside.resource("table").add(Thing::new("table", "round"));
        Ok(())
    }
}

#[test]
fn what_a_container_holds_is_held_with_its_replacement_and_not_with_anything_less() {
    let bench = Bench::new().at(noon());
    bench.up_whole(room("left", "old"));
    let plan = bench.preview(room("right", "new"));
    assert_eq!(steps(&plan), [""; 0]);
    assert_eq!(plan.held.len(), 6, "{:?}", held(&plan));
    assert_eq!(steps(&bench.preview(room("left", "new"))), ["update chair"]);
    let bench = bench.at(evening());
    bench.up_whole(room("right", "new"));
    assert!(bench.preview(room("right", "new")).is_empty());
}

/// A fleet of two with acts around each, and a window of its own or the stack's.
fn fleet(
    own: Option<&'static str>,
    of_the_stack: &'static [&'static str],
    say: &'static str,
) -> impl Fn(&Stack) -> Result<(), ProgramError> + Copy {
    move |stack: &Stack| {
        stack.maintenance(Windows::new(of_the_stack.iter().copied())?);
        let shop = stack.provider("shop", Shop::at("shop"));
        let group = stack.rolling("fleet", 1);
        if let Some(own) = own {
            group.maintenance(Windows::new([own])?);
        }
        for name in ["m1", "m2"] {
            let member = Odd { turn: Turn::Interrupt, calls: 2, ..Odd::new(name, say) };
            let member = shop.resource(name).rolling(&group).add(member);
            let drain = Chore { what: format!("drain {name}") };
            group.before(&shop, member.urn(), &format!("drain-{name}"), drain);
            let uncordon = Chore { what: format!("uncordon {name}") };
            group.after(&shop, member.urn(), &format!("uncordon-{name}"), uncordon);
        }
        Ok(())
    }
}

#[test]
fn a_rolling_group_has_a_window_of_its_own_and_its_acts_are_held_with_its_members() {
    for (own, of_the_stack) in [(Some(WINDOW), &[] as &[&str]), (None, &[WINDOW] as &[&str])] {
        let (bench, world) = yard();
        let bench = bench.at(noon());
        bench.up_whole(fleet(own, of_the_stack, "old"));
        world.log();
        let plan = bench.preview(fleet(own, of_the_stack, "new"));
        assert_eq!(steps(&plan), [""; 0]);
        assert!(held(&plan).iter().any(|held| held.starts_with("create drain-m1")), "{:?}", held(&plan));
        bench.up_whole(fleet(own, of_the_stack, "new"));
        assert_eq!(world.log(), [""; 0]);
        let bench = bench.at(evening());
        bench.up_whole(fleet(own, of_the_stack, "new"));
        assert_eq!(world.log().len(), 8);
        settled(&bench, fleet(own, of_the_stack, "new"));
    }
    // A group that may be interrupted at any time, in a stack that may not.
    let (bench, _) = yard();
    let bench = bench.at(noon());
    bench.up_whole(fleet(Some("daily 00:00-24:00"), &[WINDOW], "old"));
    assert_eq!(bench.preview(fleet(Some("daily 00:00-24:00"), &[WINDOW], "new")).held, []);
}

/// The members, without what the chores leave behind.
fn members(world: &Yard) -> Vec<String> {
    world.things().into_iter().filter(|thing| thing.starts_with("shop/")).collect()
}

/// The process was killed in the middle of the window, at every call in turn, and started again at noon.
#[test]
fn what_was_begun_in_the_window_is_finished_outside_of_it_and_the_rest_waits() {
    let (old, new) = (fleet(None, &[WINDOW], "old"), fleet(None, &[WINDOW], "new"));
    let start = || {
        let (bench, world) = yard();
        bench.up_whole(old);
        (bench.at(evening()), world)
    };
    let trial = Trial::default();
    assert!(start().0.attempt(new, Verb::Up, &trial).unwrap().complete());
    for n in 0..trial.faults.calls() {
        let (bench, world) = start();
        let faults = Arc::new(Faults::at(n, CallFault::StopAfter));
        bench.attempt(new, Verb::Up, &Trial { faults, ..Trial::default() }).unwrap();
        let bench = bench.crashed(Crash::Process).at(noon());
        let drained = world.contents().log.iter().filter(|call| call.starts_with("drain")).count();
        bench.up_whole(new);
        let log = world.log();
        let of = |name: &str| log.iter().filter(|call| call.ends_with(name)).count();
        for name in ["m1", "m2"] {
            let begun = log.iter().any(|call| *call == format!("drain {name}"));
            assert_eq!(begun, of(&format!("uncordon {name}")) > 0, "killed at call {n}: {log:?}");
        }
        let now_drained = log.iter().filter(|call| call.starts_with("drain")).count();
        assert_eq!(now_drained, drained, "killed at call {n}: nothing else was begun: {log:?}");
        let bench = bench.at(evening());
        bench.up_whole(new);
        assert_eq!(members(&world), ["shop/m1=new", "shop/m2=new"], "killed at call {n}");
    }
}

/// A plan that was looked at for too long, and a roll that takes longer than its window.
#[test]
fn nothing_begins_when_the_window_has_closed_meanwhile() {
    let (bench, world) = yard();
    let bench = bench.at(noon());
    bench.up_whole(fleet(None, &[WINDOW], "old"));
    world.log();
    let late = bench.at(noon() + Duration::from_secs(9 * 3_600 - 1));
    let report = late.up(fleet(None, &[WINDOW], "new"));
    let told: Vec<String> = report.not_started.iter().map(|(urn, why)| format!("{}: {why}", urn.short())).collect();
    assert!(told.contains(&"drain-m2: its maintenance window has closed".to_owned()), "{told:?}");
    assert!(told.contains(&"m2: it needs drain-m2: its maintenance window has closed".to_owned()), "{told:?}");
    assert_eq!(members(&world), ["shop/m1=new", "shop/m2=old"], "what had begun was finished");
}

/// When the rolling group may be interrupted, where that is not with all the others.
const NOON: &str = "Sun 12:00-13:00";

/// Something that is replaced, what is made from it and goes with its line, and who needs that and then what comes instead.
#[derive(Clone, Copy)]
struct Chain {
    /// The group's own window.
    group: Option<&'static str>,
    acts: bool,
    /// What comes instead is there already, and is interrupted by a change.
    middle: bool,
    /// Who uses it is interrupted by a change.
    fragile: bool,
    /// What goes lies in something that goes.
    boxed: bool,
}

impl Chain {
    fn program(self, says: &'static str) -> impl Fn(&Stack) -> Result<(), ProgramError> + Copy {
        move |stack: &Stack| {
            stack.maintenance(Windows::new([WINDOW])?);
            let shop = stack.provider("shop", Shop::at("shop"));
            let base = shop.resource("base");
            let grouped = self.group.is_some() || self.acts;
            let group = grouped.then(|| stack.rolling("fleet", 1));
            let base = match &group {
                Some(group) => base.rolling(group),
                None => base,
            };
            let base = base.add(Odd { turn: Turn::DeleteFirst, natural: false, ..Odd::new("base", says) });
            if let (Some(group), Some(window)) = (&group, self.group) {
                group.maintenance(Windows::new([window])?);
            }
            if let (Some(group), true) = (&group, self.acts) {
                group.before(&shop, base.urn(), "drain", Chore { what: "drain".into() });
                group.after(&shop, base.urn(), "uncordon", Chore { what: "uncordon".into() });
            }
            let of = |odd: &Handle<yard::OddOutputs>| odd.output(|odd| odd.room);
            let middle = |shop: &Scope<'_, Shop>| {
                shop.resource("middle").add(Odd { turn: Turn::Interrupt, ..Odd::new("middle", of(&base)) })
            };
            let between = match (says, self.boxed, self.middle.then(|| middle(&shop))) {
                ("old", true, _) => {
                    let around = shop.resource("box").add(Odd::new("box", of(&base)));
                    stack.provider("inside", Shop::inside(&around)).resource("old").add(Odd::new("old", "old"))
                }
                ("old", false, _) | (_, _, None) => shop.resource(says).add(Odd::new(says, of(&base))),
                (_, _, Some(middle)) => middle,
            };
            let turn = if self.fragile { Turn::Interrupt } else { Turn::Update };
            shop.resource("user").add(Odd { turn, ..Odd::new("user", of(&between)) });
            Ok(())
        }
    }
}

const CHAIN: Chain = Chain { group: None, acts: false, middle: false, fragile: false, boxed: false };

/// Who needs something was held, and what they needed went at once: by call, or with what it lay in.
#[test]
fn what_a_held_user_still_needs_is_held_though_it_cannot_wait_for_them() {
    for (fragile, boxed) in [(false, false), (true, false), (false, true), (true, true)] {
        let chain = Chain { fragile, boxed, ..CHAIN };
        let (bench, yard) = yard();
        let bench = bench.at(noon());
        bench.up_whole(chain.program("old"));
        yard.log();
        bench.up_whole(chain.program("new"));
        assert_eq!(yard.log(), [""; 0], "fragile {fragile}, boxed {boxed}");
        let bench = bench.at(evening());
        bench.up_whole(chain.program("new"));
        settled(&bench, chain.program("new"));
    }
}

/// Two windows that never open together: each half of a change waited for the other's.
#[test]
fn nothing_is_held_forever_where_windows_are_apart() {
    for (middle, fragile) in [(false, true), (true, true), (true, false)] {
        let chain = Chain { group: Some(NOON), middle, fragile, ..CHAIN };
        let (bench, yard) = yard();
        let bench = bench.at(noon());
        bench.up_whole(chain.program("old"));
        yard.log();
        bench.up_whole(chain.program("new"));
        let made = yard.log();
        assert!(made.contains(&"create shop/base".to_owned()), "middle {middle}, fragile {fragile}: {made:?}");
        let bench = bench.at(evening());
        bench.up_whole(chain.program("new"));
        settled(&bench, chain.program("new"));
    }
}

/// A member was drained when the run died. Outside of the window it was not brought back: what had to go before it was held
/// for somebody who is.
#[test]
fn a_member_that_is_drained_is_finished_whoever_else_is_held() {
    let chain = Chain { acts: true, fragile: true, ..CHAIN };
    let mut drained = 0;
    for n in 0..8 {
        let (bench, yard) = yard();
        let bench = bench.at(evening());
        bench.up_whole(chain.program("old"));
        yard.log();
        let trial = Trial { faults: Arc::new(Faults::at(n, CallFault::StopAfter)), parallel: 1, ..Trial::default() };
        bench.attempt(chain.program("new"), Verb::Up, &trial).unwrap();
        let bench = bench.crashed(Crash::Process).seeded(2).at(noon());
        if yard.log() != ["drain"] {
            continue;
        }
        drained += 1;
        bench.up_whole(chain.program("new"));
        let log = yard.log();
        assert!(log.contains(&"uncordon".to_owned()), "{log:?}");
        let bench = bench.at(evening());
        bench.up_whole(chain.program("new"));
        settled(&bench, chain.program("new"));
    }
    assert!(drained > 0, "it was never stopped there");
}

/// A run died before it had deleted what was superseded. That was held as the other half of what the next one changes.
#[test]
fn what_was_superseded_by_an_earlier_run_is_no_half_of_a_later_change() {
    let program = |turn: Turn, says: &'static str| {
        move |stack: &Stack| {
            stack.maintenance(Windows::new([WINDOW])?);
            let shop = stack.provider("shop", Shop::at("shop"));
            shop.resource("it").add(Odd { turn, natural: false, ..Odd::new("it", says) });
            Ok(())
        }
    };
    let mut superseded = 0;
    for n in 0..6 {
        let (bench, yard) = yard();
        let bench = bench.at(evening());
        bench.up_whole(program(Turn::CreateFirst, "old"));
        yard.log();
        let trial = Trial { faults: Arc::new(Faults::at(n, CallFault::StopBefore)), ..Trial::default() };
        bench.attempt(program(Turn::CreateFirst, "new"), Verb::Up, &trial).unwrap();
        let bench = bench.crashed(Crash::Process).seeded(2).at(noon());
        if yard.log() != ["create shop/it"] {
            continue;
        }
        superseded += 1;
        bench.up_whole(program(Turn::Interrupt, "newest"));
        assert_eq!(yard.log(), ["delete shop/it"], "what it was superseded by is changed in the window");
        let bench = bench.at(evening());
        bench.up_whole(program(Turn::Interrupt, "newest"));
        settled(&bench, program(Turn::Interrupt, "newest"));
    }
    assert!(superseded > 0, "it was never stopped there");
}
