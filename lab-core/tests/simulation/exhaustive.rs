//! The crash suite over random programs: stopped at every write and flush, before and after every call, with every
//! reply lost, late, or wrong; and then one more run, of the same program or of another.
//!
//! The usual size is a sample of programs, each at all of its points. More programs:
//! `LAB_CRASHES=50 cargo test --release -p lab-core --test simulation exhaustive`.

use crate::check::{Broken, Living, quiet};
use crate::dice::Dice;
use crate::life::{Author, Meddling, Round, Trouble, Verb};
use crate::program::{Fleet, Kind, Line, Program, Says};
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

    /// Disturbs the run at every point, and returns at how many.
    fn check(&self) -> usize {
        crate::hush();
        let fail = |broken: Broken, point: &str| -> ! {
            let (Case { story, disturbed, after, .. }, Broken { property, how }) = (self, broken);
            let (first, then) = (&disturbed.program, &after.program);
            panic!("{story}, {point}: {property}: {how}\n{first:?}\n  then {:?}{then:?}", after.verb)
        };
        let mut undisturbed = self.base.fork();
        let ran = undisturbed.round(&self.disturbed).unwrap_or_else(|broken| fail(broken, "undisturbed"));
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
        for point in &points {
            let told = format!("{:?} {:?} then {:?}", point.mishaps, point.disk, point.crash);
            let mut living = self.base.fork();
            living.watch = false;
            living.round(point).unwrap_or_else(|broken| fail(broken, &told));
            let ended = match self.after.verb {
                Verb::Destroy => living.round(&self.after).and_then(|ran| {
                    let how = ran.told();
                    if ran.complete() { Ok(()) } else { Err(Broken { property: "one more destroy completes", how }) }
                }),
                Verb::Up | Verb::Saved | Verb::Target(_) | Verb::Refresh => living.end(&self.after.program, 0, false),
            };
            ended.unwrap_or_else(|broken| fail(broken, &told));
        }
        points.len()
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
        for (at_most, gate, acts) in [(1, true, true), (2, false, true), (2, true, false)] {
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
            Case::new(&format!("seed {seed}, at most {at_most}"), &base, &next, &next).check();
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
