//! The crash suite over random programs: stopped at every write and flush, before and after every call, with every
//! reply lost, late, or wrong; and then one more run, of the same program or of another.
//!
//! The usual size is a sample of programs, each at all of its points. More programs:
//! `LAB_CRASHES=50 cargo test --release -p lab-core --test simulation exhaustive`.

use crate::check::{Broken, Living, quiet};
use crate::dice::Dice;
use crate::life::{Author, Meddling, Round, Trouble, Verb};
use crate::program::{Acts, Fleet, HUSH, Kind, Line, Program, Says};
use crate::run::Ran;
use crate::world::Mishap;
use lab_core::execute::disk::{Crash, Verb as DiskVerb};

/// What is done at each call.
const CALLS: [Mishap; 5] = [Mishap::KillBefore, Mishap::KillAfter, Mishap::Lose, Mishap::FailAfter, Mishap::Late];

/// How many times more programs than usual.
fn more() -> u64 {
    crate::number("LAB_CRASHES").unwrap_or(1)
}

/// What came before, what is disturbed, and what is run afterwards.
struct Case {
    story: String,
    base: Living,
    disturbed: Round,
    after: Round,
}

impl Case {
    fn new(story: &str, base: &Living, disturbed: &Program, after: &Program) -> Case {
        Case {
            story: story.to_owned(),
            base: base.fork(),
            disturbed: quiet(disturbed, Verb::Up),
            after: quiet(after, Verb::Up),
        }
    }

    fn fail(&self, broken: Broken, point: &str) -> ! {
        let Broken { property, how } = broken;
        let Case { story, disturbed, after, .. } = self;
        let (first, then) = (&disturbed.program, &after.program);
        panic!("{story}, {point}: {property}: {how}\n{first:?}\n  then {:?}{then:?}", after.verb)
    }

    /// Runs once more.
    fn end(&self, living: &mut Living) -> Result<(), Broken> {
        match self.after.verb {
            Verb::Destroy => living.round(&self.after).and_then(|ran| {
                let how = ran.told();
                if ran.complete() { Ok(()) } else { Err(Broken { property: "one more destroy completes", how }) }
            }),
            Verb::Up | Verb::Saved | Verb::Target(_) | Verb::Refresh => living.end(&self.after.program, 0, false),
        }
    }

    /// Asks the run to stop, and once more at every later moment; returns how often, and how often the second abandoned
    /// what the first would have left to its end.
    fn asked_again(&self, first: usize) -> (usize, usize) {
        crate::hush();
        let asked = |asks: Vec<usize>| {
            let told = format!("asked after {asks:?}");
            let mut living = self.base.fork();
            let round = Round { asks, ..self.disturbed.clone() };
            let ran = living.round(&round).unwrap_or_else(|broken| self.fail(broken, &told));
            (living, ran, told)
        };
        let left = |ran: &Ran| ran.report.as_ref().map_or(0, |report| report.left.len());
        let (.., undisturbed, _) = asked(Vec::new());
        let (mut pairs, mut abandoned) = (0, 0);
        for first in (1..undisturbed.heard.len()).step_by(first) {
            let (_, once, _) = asked(vec![first]);
            for second in first + 1..once.heard.len() {
                let (mut living, twice, told) = asked(vec![first, second]);
                pairs += 1;
                abandoned += usize::from(left(&twice) > left(&once));
                self.end(&mut living).unwrap_or_else(|broken| self.fail(broken, &told));
            }
        }
        (pairs, abandoned)
    }

    /// Disturbs the run at every point, and returns at how many.
    fn check(&self) -> usize {
        self.look(1, |_| {}, |_| {})
    }

    /// Disturbs the run at one of so many points, and returns at how many; looks at what each leaves, and at the end.
    fn look(&self, of: usize, mut left: impl FnMut(&Living), mut ended: impl FnMut(&Living)) -> usize {
        crate::hush();
        let mut undisturbed = self.base.fork();
        let ran = undisturbed.round(&self.disturbed).unwrap_or_else(|broken| self.fail(broken, "undisturbed"));
        let mut points: Vec<Round> = Vec::new();
        for n in 0..ran.calls {
            points.extend(CALLS.map(|mishap| Round { mishaps: vec![(n, mishap)], ..self.disturbed.clone() }));
        }
        for (n, verb) in ran.operations.iter().enumerate() {
            let troubles: &[Trouble] = match verb {
                DiskVerb::Write => &[Trouble::StopBefore, Trouble::StopWithin(50), Trouble::StopAfter],
                DiskVerb::Flush | DiskVerb::Create | DiskVerb::Rename | DiskVerb::Link | DiskVerb::SyncDir => {
                    &[Trouble::StopBefore, Trouble::StopAfter]
                }
                DiskVerb::Read | DiskVerb::List | DiskVerb::Remove => &[],
            };
            for trouble in troubles {
                let crash = if n % 2 == 0 { Crash::Process } else { Crash::Power };
                points.push(Round { disk: Some((n, *trouble)), crash, ..self.disturbed.clone() });
            }
        }
        let tried = points.len().div_ceil(of);
        for point in points.iter().step_by(of) {
            let told = format!("{:?} {:?} then {:?}", point.mishaps, point.disk, point.crash);
            let mut living = self.base.fork();
            living.round(point).unwrap_or_else(|broken| self.fail(broken, &told));
            left(&living);
            self.end(&mut living).unwrap_or_else(|broken| self.fail(broken, &told));
            ended(&living);
        }
        tried
    }
}

/// Returns a lab in which `program` was applied.
fn applied(seed: u64, program: &Program) -> Living {
    crate::hush();
    let mut living = Living::new(seed);
    for line in program.lines.iter().filter(|line| line.import || line.kind == Kind::Look) {
        plant(&mut living, &line.tag);
    }
    living.end(program, 0, false).unwrap_or_else(|broken| panic!("seed {seed}: before: {broken:?}{program:?}"));
    living
}

fn plant(living: &mut Living, tag: &str) {
    let round = Round { meddling: vec![Meddling::Plants(tag.into())], ..quiet(&Program::default(), Verb::Refresh) };
    living.round(&round).unwrap_or_else(|broken| panic!("planting {tag}: {broken:?}"));
}

fn with_everything_planted(seed: u64, programs: &[&Program]) -> Living {
    let mut living = Living::new(seed);
    for line in programs.iter().flat_map(|program| &program.lines) {
        if line.import || line.kind == Kind::Look {
            plant(&mut living, &line.tag);
        }
    }
    living
}

/// Returns a random program, without protection and without what can be done only once.
fn random(seed: u64, lines: usize) -> (Program, Author, Dice) {
    let mut dice = Dice::new(seed ^ 0x00c0_ffee);
    let mut author = Author::default();
    let mut program = author.first(&mut dice, lines);
    tame(&mut program);
    (program, author, dice)
}

fn tame(program: &mut Program) {
    program.lines.retain(|line| !line.import);
    let gone: Vec<String> =
        program.lines.iter().flat_map(|line| line.sources().into_iter().map(str::to_owned)).collect();
    gone.iter()
        .filter(|tag| program.line(tag).is_none())
        .cloned()
        .collect::<Vec<_>>()
        .iter()
        .for_each(|tag| program.remove(tag));
    for line in &mut program.lines {
        line.protect = None;
        line.retain = false;
    }
    program.arrange();
}

fn changed(program: &Program, author: &mut Author, dice: &mut Dice, round: usize) -> Program {
    let mut changed = program.clone();
    for _ in 0..1 + dice.below(2) {
        author.edit(dice, &mut changed, round);
    }
    tame(&mut changed);
    changed
}

#[test]
fn a_first_up_goes_on_wherever_it_stopped() {
    let points: usize = (0..3 * more())
        .map(|seed| {
            let (program, ..) = random(seed, 5);
            let base = with_everything_planted(seed, &[&program]);
            Case::new(&format!("seed {seed}"), &base, &program, &program).check()
        })
        .sum();
    assert!(points > 100, "few points show little");
}

#[test]
fn a_destroy_goes_on_wherever_it_stopped() {
    for seed in 0..3 * more() {
        let (program, ..) = random(seed, 5);
        let base = applied(seed, &program);
        let destroy = quiet(&program, Verb::Destroy);
        Case { story: format!("seed {seed}"), base, disturbed: destroy.clone(), after: destroy }.check();
    }
}

#[test]
fn a_changed_program_goes_on_wherever_it_stopped() {
    for seed in 0..4 * more() {
        let (program, mut author, mut dice) = random(seed, 5);
        let next = changed(&program, &mut author, &mut dice, 1);
        let mut base = with_everything_planted(seed, &[&program, &next]);
        base.end(&program, 0, false).unwrap_or_else(|broken| panic!("seed {seed}: {broken:?}{program:?}"));
        Case::new(&format!("seed {seed}"), &base, &next, &next).check();
    }
}

#[test]
fn a_program_that_changed_between_the_crash_and_the_next_run_is_what_counts() {
    for seed in 100..100 + 2 * more() {
        let (program, mut author, mut dice) = random(seed, 4);
        let next = changed(&program, &mut author, &mut dice, 1);
        let last = changed(&next, &mut author, &mut dice, 2);
        let mut base = with_everything_planted(seed, &[&program, &next, &last]);
        Case::new(&format!("seed {seed}, first"), &base, &program, &next).check();
        base.end(&program, 0, false).unwrap_or_else(|broken| panic!("seed {seed}: {broken:?}{program:?}"));
        Case::new(&format!("seed {seed}, on"), &base, &next, &last).check();
        Case::new(&format!("seed {seed}, back"), &base, &next, &program).check();
        let destroy = quiet(&program, Verb::Destroy);
        Case { disturbed: destroy, ..Case::new(&format!("seed {seed}, kept after all"), &base, &next, &next) }.check();
    }
}

/// What a person does to a program between a crash and the next run.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Edit {
    /// A line is taken out, with what is inside.
    Removed(&'static str),
    /// A line goes by another name, and says which it had.
    Renamed(&'static str),
    /// A line goes by another name, and nobody says so.
    RenamedSilently(&'static str),
    /// Every line goes by another name, and says which it had.
    AllRenamed,
    /// The lines stand in another order.
    Reordered,
    /// The rack is entered with another password.
    Password,
    /// Everything belongs into another rack.
    Rack,
}

impl Edit {
    const ALL: [Edit; 13] = [
        Edit::Removed("box"),
        Edit::Removed("it"),
        Edit::Removed("user"),
        Edit::Renamed("box"),
        Edit::Renamed("it"),
        Edit::Renamed("in"),
        Edit::RenamedSilently("box"),
        Edit::RenamedSilently("it"),
        Edit::RenamedSilently("in"),
        Edit::AllRenamed,
        Edit::Reordered,
        Edit::Password,
        Edit::Rack,
    ];

    /// What it is done to; where that is everything, the line whose fate is counted.
    fn tag(self) -> &'static str {
        match self {
            Edit::Removed(tag) | Edit::Renamed(tag) | Edit::RenamedSilently(tag) => tag,
            Edit::AllRenamed | Edit::Reordered | Edit::Password | Edit::Rack => "it",
        }
    }

    fn done_to(self, program: &Program) -> Program {
        let mut next = program.clone();
        let rename = |line: &mut Line| {
            let name = format!("{}-new", line.name);
            line.was = vec![std::mem::replace(&mut line.name, name)];
        };
        match self {
            Edit::Removed(tag) => next.remove(tag),
            Edit::Renamed(tag) => next.line_mut(tag).into_iter().for_each(rename),
            Edit::RenamedSilently(tag) => {
                if let Some(line) = next.line_mut(tag) {
                    rename(line);
                    line.was.clear();
                }
            }
            Edit::AllRenamed => next.lines.iter_mut().for_each(rename),
            Edit::Reordered => {
                next.lines.reverse();
                next.arrange();
            }
            Edit::Password => next.password.push_str("-another"),
            Edit::Rack => next.rack = "rack2".into(),
        }
        next
    }

    /// The last run did what this edit asks for; `Living::end` has compared the world with the program.
    fn occurred(self, living: &Living, next: &Program) {
        let state = living.lab.state().unwrap_or_else(|error| panic!("{self:?}: {error}"));
        let contents = living.lab.world.contents();
        let names: Vec<&str> = state.records.keys().map(|urn| urn.name()).collect();
        match self {
            Edit::Removed(tag) => {
                assert!(
                    !names.contains(&tag) && contents.ours(tag).next().is_none(),
                    "{tag} is still there: {names:?}"
                );
            }
            Edit::Renamed(_) | Edit::RenamedSilently(_) | Edit::AllRenamed => {
                for line in &next.lines {
                    assert!(names.contains(&line.name.as_str()), "{self:?}: {} is not in {names:?}", line.name);
                }
                assert_eq!(names.len(), next.lines.len(), "{self:?}: {names:?}");
            }
            Edit::Reordered => assert_eq!(names.len(), next.lines.len(), "{names:?}"),
            Edit::Password => {
                let with = contents.entered.get(&next.rack);
                assert!(with.is_none_or(|with| *with == next.password), "entered with {with:?}");
            }
            Edit::Rack => {
                let all = contents.items.keys().all(|(place, _)| *place == next.rack || place.starts_with("rack2/"));
                assert!(all && !contents.items.is_empty(), "{:?}", contents.items.keys());
            }
        }
    }
}

/// How far the line had come that was edited.
#[derive(Debug, Default)]
struct Met {
    points: usize,
    not_begun: usize,
    under_way: usize,
    ready: usize,
    /// Runs after the edit in which the rack was entered.
    entered: usize,
}

impl Met {
    /// Cuts off the run of `disturbed` at one of so many points, and goes on with `next`.
    fn go(&mut self, edit: Edit, case: &Case, of: usize) {
        let next = &case.after.program;
        let (mut not_begun, mut under_way, mut ready, mut entered) = (0, 0, 0, 0);
        self.points += case.look(
            of,
            |living| {
                let state = living.lab.state().unwrap_or_else(|error| panic!("{edit:?}: {error}"));
                let about = |record: &lab_core::Record| {
                    let inputs = record.spec.inputs.value();
                    record.spec.kind == "sim:thing" && inputs["tag"] == edit.tag()
                };
                match state.records.values().find(|record| about(record)) {
                    None => not_begun += 1,
                    Some(record) if record.open.is_some() => under_way += 1,
                    Some(_) => ready += 1,
                }
            },
            |living| {
                edit.occurred(living, next);
                entered += usize::from(living.lab.world.contents().entered.contains_key(&next.rack));
            },
        );
        self.not_begun += not_begun;
        self.under_way += under_way;
        self.ready += ready;
        self.entered += entered;
    }
}

/// What is edited, and the same after a person worked on it.
fn edited() -> (Program, Program) {
    let on = |tag: &str, on: &str| Line { on: Some(on.into()), ..Line::new(tag) };
    let mut program = Program::default();
    program.lines.push(Line { steps: 1, ..Line::new("box") });
    program.lines.push(Line { steps: 1, secret: Some(Says::plain(format!("{HUSH}in"))), ..on("in", "box") });
    program.lines.push(Line { marked: true, steps: 1, lingers: 1, number: Some(7), ..Line::new("it") });
    let secret = Some(Says::Of("it".into()));
    program.lines.push(Line { text: Says::Of("it".into()), secret, lingers: 1, ..Line::new("user") });
    let mut changed = program.clone();
    for line in changed.lines.iter_mut().filter(|line| line.tag != "user") {
        line.text = Says::plain("another");
        if line.tag == "it" {
            line.stand = Says::plain("there");
        }
    }
    (program, changed)
}

/// Cuts off `first` and goes on with it as it is after each kind of edit, whatever the dice say.
fn each_edit(story: &str, base: &Living, disturbed: &Round, first: &Program, expected: impl Fn(Edit, &Met) -> bool) {
    // Five things are done at each call: a number that shares nothing with that comes to all of them.
    let of = if more() > 1 { 1 } else { 6 };
    for edit in Edit::ALL {
        let next = edit.done_to(first);
        assert!(next != *first, "{edit:?} changes nothing");
        let mut met = Met::default();
        let case = Case::new(&format!("{edit:?} after {story}"), base, &next, &next);
        met.go(edit, &Case { disturbed: disturbed.clone(), ..case }, of);
        println!("{edit:?}: {met:?}");
        assert!(expected(edit, &met) && met.entered > 0, "{edit:?} did not meet enough: {met:?}");
    }
}

#[test]
fn whatever_is_edited_after_a_first_up_was_cut_off_is_what_counts() {
    let (program, _) = edited();
    each_edit("a first up", &Living::new(0), &quiet(&program, Verb::Up), &program, |_, met| {
        met.not_begun > 0 && met.under_way > 0 && met.ready > 0
    });
}

#[test]
fn whatever_is_edited_after_a_change_was_cut_off_is_what_counts() {
    let (program, changed) = edited();
    each_edit("a change", &applied(0, &program), &quiet(&changed, Verb::Up), &changed, |edit, met| {
        // What is only wired to what changes is never without its record, and begins late.
        met.ready > 0 && (met.under_way > 0 || edit.tag() == "user")
    });
}

#[test]
fn whatever_is_edited_after_a_destroy_was_cut_off_is_what_counts() {
    let (program, _) = edited();
    each_edit("a destroy", &applied(0, &program), &quiet(&program, Verb::Destroy), &program, |edit, met| {
        // What lies in something goes with it.
        met.ready > 0 && met.not_begun > 0 && (met.under_way > 0 || edit.tag() == "in")
    });
}

/// Calls take their time, so that some are in flight at both moments.
#[test]
fn a_run_that_is_asked_to_stop_and_asked_again_later_goes_on() {
    let (mut pairs, mut abandoned) = (0, 0);
    for seed in 0..2 * more() {
        let (program, mut author, mut dice) = random(seed, 5);
        let next = changed(&program, &mut author, &mut dice, 1);
        let bare = with_everything_planted(seed, &[&program, &next]);
        let mut stands = bare.fork();
        stands.end(&program, 0, false).unwrap_or_else(|broken| panic!("seed {seed}: {broken:?}{program:?}"));
        let destroy = quiet(&program, Verb::Destroy);
        for case in [
            Case::new(&format!("seed {seed}, first"), &bare, &program, &program),
            Case::new(&format!("seed {seed}, on"), &stands, &next, &next),
            Case {
                story: format!("seed {seed}, destroy"),
                base: stands.fork(),
                disturbed: destroy.clone(),
                after: destroy,
            },
        ] {
            let disturbed = Round { latency: 2 * seed + 1, ..case.disturbed.clone() };
            let (more, of_them) = Case { disturbed, ..case }.asked_again(2);
            pairs += more;
            abandoned += of_them;
        }
    }
    println!("{pairs} pairs, in {abandoned} of them something was abandoned");
    assert!(pairs > 50 && abandoned > 0, "{pairs} pairs, of which {abandoned} abandoned something, show little");
}

#[test]
fn a_replacement_in_either_order_goes_on_wherever_it_stopped() {
    for seed in 0..2 * more() {
        for marked in [false, true] {
            let (mut program, ..) = random(seed, 3);
            let line = Line { marked, steps: 1, lingers: (seed % 2) as u32, number: None, ..Line::new("it") };
            program.lines.push(line);
            program.lines.push(Line {
                text: Says::Of("it".into()),
                secret: Some(Says::Of("it".into())),
                ..Line::new("user")
            });
            let mut next = program.clone();
            if let Some(line) = next.line_mut("it") {
                line.stand = Says::plain("there");
            }
            let base = applied(seed, &program);
            Case::new(&format!("seed {seed}, marked {marked}"), &base, &next, &next).check();
        }
    }
}

#[test]
fn a_replaced_container_gets_everything_it_had_wherever_it_stopped() {
    for seed in 0..more() {
        let (mut program, ..) = random(seed, 2);
        let on = |tag: &str, on: &str| Line { on: Some(on.into()), ..Line::new(tag) };
        program.lines.push(Line { steps: 1, marked: seed % 2 == 1, ..Line::new("box") });
        program.lines.push(Line { steps: 1, ..on("plain", "box") });
        program.lines.push(on("nested", "box"));
        program.lines.push(Line { text: Says::Of("plain".into()), ..on("deep", "nested") });
        program.lines.push(Line { outside: true, lingers: 1, ..on("volume", "nested") });
        program.lines.push(Line { secret: Some(Says::Of("deep".into())), ..Line::new("user") });
        let mut next = program.clone();
        if let Some(line) = next.line_mut("box") {
            line.stand = Says::plain("there");
        }
        let base = applied(seed, &program);
        Case::new(&format!("seed {seed}"), &base, &next, &next).check();
    }
}

#[test]
fn a_move_goes_on_wherever_it_stopped() {
    for seed in 0..2 * more() {
        let (mut program, ..) = random(seed, 4);
        program.lines.push(Line { marked: true, ..Line::new("a") });
        program.lines.push(Line { marked: true, ..Line::new("b") });
        let mut next = program.clone();
        for line in next.lines.iter_mut().filter(|line| line.kind == Kind::Thing && line.fleet.is_none()) {
            let name = format!("{}-new", line.tag);
            line.was = vec![std::mem::replace(&mut line.name, name)];
            if line.tag == "a" {
                line.text = Says::plain("moved and changed");
            }
        }
        let base = applied(seed, &program);
        Case::new(&format!("seed {seed}"), &base, &next, &next).check();
    }
}

#[test]
fn a_rolling_group_goes_on_wherever_it_stopped() {
    for seed in 0..more() {
        for (at_most, gate, acts) in
            [(1, true, Acts::Around), (2, false, Acts::Twice), (2, true, Acts::Nothing), (1, false, Acts::After)]
        {
            let mut program = Program { fleets: vec![Fleet { at_most, gate, acts }], ..Program::default() };
            for n in 0..3 {
                program.lines.push(Line { fleet: Some(0), steps: 1, ..Line::new(&format!("m{n}")) });
            }
            let mut next = program.clone();
            next.lines.iter_mut().for_each(|line| line.text = Says::plain("another"));
            if seed % 2 == 1 {
                next.remove("m1");
            }
            let base = applied(seed, &program);
            Case::new(&format!("seed {seed}, at most {at_most}, {acts:?}"), &base, &next, &next).check();
        }
    }
}

#[test]
fn an_import_goes_on_wherever_it_stopped() {
    for (text, seed) in [("planted", 1), ("ours now", 2)] {
        let (mut program, ..) = random(seed, 3);
        let import = Line { import: true, text: Says::plain(text), stand: Says::plain("there"), ..Line::new("i") };
        program.lines.push(import);
        program.lines.push(Line { text: Says::Of("i".into()), ..Line::new("user") });
        let base = with_everything_planted(seed, &[&program]);
        Case::new(&format!("import of {text:?}"), &base, &program, &program).check();
    }
}

#[test]
fn a_renewal_goes_on_wherever_it_stopped() {
    for seed in 0..2 * more() {
        let (mut program, ..) = random(seed, 3);
        program.lines.push(Line { expires: Some(3_600), steps: 1, ..Line::new("due") });
        program.lines.push(Line { secret: Some(Says::Of("due".into())), ..Line::new("user") });
        let base = applied(seed, &program);
        let case = Case::new(&format!("seed {seed}"), &base, &program, &program);
        Case { disturbed: Round { hours: 2, ..case.disturbed.clone() }, ..case }.check();
    }
}

#[test]
fn a_resumed_wait_goes_on_wherever_it_stopped() {
    for seed in 0..2 * more() {
        let (mut program, ..) = random(seed, 2);
        let steps = 3;
        program.lines.push(Line { steps, early: seed % 2 == 0, ..Line::new("slow") });
        program.lines.push(Line { after: Some("slow".into()), after_created: true, ..Line::new("eager") });
        program.lines.push(Line { secret: Some(Says::Of("slow".into())), ..Line::new("user") });
        let mut base = with_everything_planted(seed, &[&program]);
        let calls = base.fork().round(&quiet(&program, Verb::Up)).map(|ran| ran.calls).unwrap_or_default();
        let cut = Round { mishaps: vec![(calls.saturating_sub(3), Mishap::KillAfter)], ..quiet(&program, Verb::Up) };
        base.round(&cut).unwrap_or_else(|broken| panic!("seed {seed}: {broken:?}"));
        Case::new(&format!("seed {seed}"), &base, &program, &program).check();
    }
}
