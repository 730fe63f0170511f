//! A life: a program, how a person works on it, what somebody else does meanwhile, and what goes wrong. All by seed.

use crate::dice::Dice;
use crate::program::{Acts, Fleet, HUSH, Kind, Line, Program, Says};
use crate::world::{ABROAD, Mishap};
use lab_core::execute::disk::Crash;
use std::collections::BTreeSet;
use std::fmt;

/// Everything that happens, from the first line to the end.
#[derive(Clone, PartialEq)]
pub(crate) struct Life {
    pub(crate) seed: u64,
    pub(crate) rounds: Vec<Round>,
    /// What the last, undisturbed runs see: how much time passes before each, in hours.
    pub(crate) hours: u64,
    /// Everything is destroyed at the end.
    pub(crate) ends: bool,
}

/// One run, and what comes before it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Round {
    pub(crate) program: Program,
    pub(crate) verb: Verb,
    /// The program is one that has to be refused, and is taken back.
    pub(crate) forbidden: bool,
    pub(crate) refresh: bool,
    pub(crate) meddling: Vec<Meddling>,
    pub(crate) mishaps: Vec<(usize, Mishap)>,
    pub(crate) disk: Option<(usize, Trouble)>,
    pub(crate) crash: Crash,
    pub(crate) cut_off: Option<String>,
    /// After how many things that were told a person asks to stop.
    pub(crate) asks: Vec<usize>,
    pub(crate) parallel: usize,
    pub(crate) latency: u64,
    pub(crate) hours: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Up,
    /// A plan is saved, read again, and applied.
    Saved,
    Target(Vec<String>),
    Destroy,
    Refresh,
}

/// What somebody else does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meddling {
    /// A thing of somebody else's appears, in the rack.
    Plants(String),
    /// Something of somebody else's stands where ours is to be made, until the next round.
    Squats(String),
    /// A thing of somebody else's says something else.
    Rewrites(String, String),
    /// A thing of ours is taken away.
    Takes(String),
    /// A thing of ours says something else.
    Changes(String),
}

/// What goes wrong at an operation of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    StopBefore,
    /// In the middle, after so many percent.
    StopWithin(u8),
    StopAfter,
    NoSpace,
    Broken,
    Short(u8),
    BrokenAfter,
}

impl Trouble {
    pub(crate) const ALL: [Trouble; 9] = [
        Trouble::StopBefore,
        Trouble::StopWithin(10),
        Trouble::StopWithin(60),
        Trouble::StopWithin(99),
        Trouble::StopAfter,
        Trouble::NoSpace,
        Trouble::Broken,
        Trouble::Short(50),
        Trouble::BrokenAfter,
    ];
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before: Option<&Program> = None;
        for (n, round) in self.rounds.iter().enumerate() {
            write!(f, "\n  {}. {:?}", n + 1, round.verb)?;
            let mut say = |what: &str, value: &dyn fmt::Debug, said: bool| {
                if said { write!(f, ", {what} {value:?}") } else { Ok(()) }
            };
            say("to be refused", &true, round.forbidden)?;
            say("refresh", &true, round.refresh)?;
            say("somebody else", &round.meddling, !round.meddling.is_empty())?;
            say("mishaps", &round.mishaps, !round.mishaps.is_empty())?;
            say("disk", &round.disk, round.disk.is_some())?;
            say("then", &round.crash, round.crash != Crash::Process)?;
            say("cut off", &round.cut_off, round.cut_off.is_some())?;
            say("asked to stop after", &round.asks, !round.asks.is_empty())?;
            say("parallel", &round.parallel, round.parallel != 1)?;
            say("latency", &round.latency, round.latency != 0)?;
            say("hours later", &round.hours, round.hours != 0)?;
            if before == Some(&round.program) {
                write!(f, ", the same program")?;
            } else {
                write!(f, "{:?}", round.program)?;
            }
            before = Some(&round.program);
        }
        write!(f, "\n  then, {} hours later, undisturbed", self.hours)?;
        if self.ends { write!(f, ", and destroyed") } else { Ok(()) }
    }
}

/// How large a life is.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) lines: usize,
    pub(crate) rounds: usize,
}

impl Life {
    pub(crate) fn random(seed: u64, size: Size) -> Life {
        let dice = &mut Dice::new(seed);
        let mut author = Author::default();
        let mut program = author.first(dice, size.lines);
        let mut rounds: Vec<Round> = Vec::new();
        for n in 0..1 + dice.below(size.rounds) {
            if n > 0 && !dice.one_in(4) {
                for _ in 0..1 + dice.below(3) {
                    author.edit(dice, &mut program, n);
                }
            }
            program.arrange();
            let mut round = Round {
                program: program.clone(),
                verb: Verb::Up,
                forbidden: false,
                refresh: dice.one_in(4),
                meddling: author.wanted.drain(..).map(Meddling::Plants).collect(),
                mishaps: Vec::new(),
                disk: None,
                crash: [Crash::Process, Crash::Process, Crash::Power][dice.below(3)],
                cut_off: None,
                asks: Vec::new(),
                parallel: [1, 2, 4, 16, 16][dice.below(5)],
                latency: if dice.one_in(4) { 0 } else { dice.roll() | 1 },
                hours: if dice.one_in(3) { dice.below(60) as u64 } else { 0 },
            };
            round.verb = match dice.below(16) {
                0 => Verb::Destroy,
                1 => Verb::Refresh,
                2 | 3 => Verb::Saved,
                4 | 5 => {
                    let tags: Vec<&Line> = program.lines.iter().collect();
                    let targets = (0..1 + dice.below(2)).filter_map(|_| dice.pick(&tags)).map(|line| line.tag.clone());
                    let targets: BTreeSet<String> = targets.collect();
                    if targets.is_empty() { Verb::Up } else { Verb::Target(targets.into_iter().collect()) }
                }
                _ => Verb::Up,
            };
            // What was taken over and destroyed cannot be taken over again, and what was retained is in the way.
            let before = rounds.iter().flat_map(|round| &round.program.lines);
            if round.verb == Verb::Destroy && before.chain(&program.lines).any(|line| line.import || line.retain) {
                round.verb = Verb::Up;
            }
            if n > 0 && dice.one_in(4) {
                author.meddle(dice, &program, &mut round);
            }
            match dice.below(8) {
                // Undisturbed.
                0 | 1 => {}
                2 | 3 => {
                    let kill = [Mishap::KillBefore, Mishap::KillAfter][dice.below(2)];
                    round.mishaps.push((dice.below(4 + 3 * program.lines.len()), kill));
                }
                4 => round.disk = Some((dice.below(12 + 8 * program.lines.len()), Trouble::ALL[dice.below(9)])),
                5 => round.asks = vec![1 + dice.below(12)],
                _ => {
                    for _ in 0..1 + dice.below(3) {
                        let at = dice.below(4 + 3 * program.lines.len());
                        round.mishaps.push((at, Mishap::ALIVE[dice.below(Mishap::ALIVE.len())]));
                    }
                }
            }
            // Somebody takes away what is protected, is refused, and puts it back.
            if n > 0
                && dice.one_in(8)
                && let Some(line) =
                    program.lines.iter().find(|line| line.protect == Some(true) && !(line.retain || line.import))
            {
                round.program.remove(&line.tag);
                round.forbidden = true;
            }
            // Somebody takes what another stack has, is refused, and takes that back.
            if dice.one_in(16)
                && !round.forbidden
                && matches!(round.verb, Verb::Up | Verb::Saved | Verb::Target(_))
                && let Some(line) = round.program.lines.iter_mut().rev().find(|line| line.kind == Kind::Thing)
            {
                line.number = Some(ABROAD);
                round.forbidden = true;
            }
            if dice.one_in(20) && !round.asks.is_empty() {
                let twice = round.asks[0] + dice.below(3);
                round.asks.push(twice);
            }
            if dice.one_in(12)
                && let Some(line) = dice.pick(&program.lines)
                && line.kind == Kind::Thing
                && line.on.is_none()
                && !(line.annex || line.marked || line.unmarkable || line.import)
            {
                round.meddling.push(Meddling::Squats(line.tag.clone()));
            }
            if n > 0 && dice.one_in(16) {
                round.cut_off = Some([program.rack.clone(), "annex".into()][dice.below(2)].clone());
            }
            rounds.push(round);
        }
        Life { seed, rounds, hours: dice.below(50) as u64, ends: dice.one_in(2) }
    }
}

/// Who writes and changes the program.
#[derive(Default)]
pub(crate) struct Author {
    next: usize,
    /// Things of somebody else's that stand in the rack.
    foreign: Vec<String>,
    /// Those that have to be there before the next run.
    pub(crate) wanted: Vec<String>,
}

impl Author {
    fn tag(&mut self, letter: &str) -> String {
        self.next += 1;
        format!("{letter}{}", self.next)
    }

    /// Returns the first version of a program.
    pub(crate) fn first(&mut self, dice: &mut Dice, lines: usize) -> Program {
        let window = dice.one_in(10).then(|| dice.below(24) as u64);
        let mut program = Program { window, ..Program::default() };
        for _ in 0..1 + dice.below(lines) {
            self.another(dice, &mut program);
        }
        if dice.one_in(5) {
            let (at_most, gate, around) = (1 + dice.below(2), dice.one_in(2), dice.one_in(2));
            // From dice of its own: what was known of a seed before is still so.
            let mut others = dice.clone();
            others.roll();
            let acts = match (around, others.below(6)) {
                (true, 0..4) => Acts::Around,
                (true, _) => Acts::Twice,
                (false, 0..3) => Acts::Nothing,
                (false, _) => Acts::After,
            };
            let fleet = Fleet { at_most, gate, acts };
            program.fleets.push(fleet);
            let on = self.container(dice, &program).filter(|_| dice.one_in(3));
            for _ in 0..2 + dice.below(3) {
                let line = Line { steps: dice.below(3) as u32, on: on.clone(), ..Line::new(&self.tag("m")) };
                let part = dice.one_in(6);
                program.lines.push(Line { fleet: Some(0), lingers: dice.below(2) as u32, part, ..line });
            }
        }
        program
    }

    fn container(&self, dice: &mut Dice, program: &Program) -> Option<String> {
        let fits = |line: &&Line| {
            line.kind == Kind::Thing
                && !line.outside
                && !line.import
                && line.fleet.is_none()
                && matches!(line.stand, Says::Plain(_))
        };
        let all: Vec<&Line> = program.lines.iter().filter(fits).collect();
        // Rather one that holds something already.
        let held: Vec<&Line> = all
            .iter()
            .copied()
            .filter(|line| program.lines.iter().any(|other| other.on.as_deref() == Some(&line.tag)))
            .collect();
        let from = if !held.is_empty() && dice.one_in(2) { &held } else { &all };
        dice.pick(from).map(|line| line.tag.clone())
    }

    /// Adds a line.
    fn another(&mut self, dice: &mut Dice, program: &mut Program) {
        let pick = |dice: &mut Dice, program: &Program| dice.pick(&program.lines).map(|line| line.tag.clone());
        let thing = |dice: &mut Dice, program: &Program| {
            let things: Vec<&Line> = program.lines.iter().filter(|line| line.kind == Kind::Thing).collect();
            dice.pick(&things).map(|line| line.tag.clone())
        };
        match dice.below(24) {
            0 => {
                let tag = self.tag("b");
                return program.lines.push(Line { kind: Kind::Bundle, ..Line::new(&tag) });
            }
            1 if program.rack == "rack" => {
                let tag = self.tag("q");
                self.wanted.push(tag.clone());
                self.foreign.push(tag.clone());
                return program.lines.push(Line { kind: Kind::Look, ..Line::new(&tag) });
            }
            2 if program.rack == "rack" => {
                let tag = self.tag("i");
                self.wanted.push(tag.clone());
                let text = Says::plain(if dice.one_in(2) { "planted" } else { "ours now" });
                return program.lines.push(Line { import: true, text, stand: Says::plain("there"), ..Line::new(&tag) });
            }
            _ => {}
        }
        let tag = self.tag("t");
        let mut line = Line::new(&tag);
        if dice.one_in(3) {
            line.on = self.container(dice, program);
        }
        line.annex = line.on.is_none() && dice.one_in(5);
        if dice.one_in(2)
            && let Some(other) = pick(dice, program)
        {
            line.text = Says::Of(other);
        }
        if dice.one_in(8)
            && let Some(other) = thing(dice, program)
        {
            line.stand = Says::Of(other);
        }
        if dice.one_in(4) {
            let other = pick(dice, program).filter(|_| dice.one_in(2));
            let other = other.filter(|tag| program.line(tag).is_some_and(|line| line.kind != Kind::Look));
            line.secret = Some(other.map_or_else(|| Says::plain(format!("{HUSH}of-{tag}")), Says::Of));
        }
        if dice.one_in(5) {
            line.after = thing(dice, program);
            line.after_created = dice.one_in(3);
        }
        line.token = dice.one_in(6);
        line.number = dice.one_in(4).then_some(self.next as u64);
        line.lock = dice.one_in(6).then(|| "the lock".into());
        line.steps = [0, 0, 0, 1, 2][dice.below(5)];
        line.lingers = [0, 0, 0, 1, 2][dice.below(5)];
        line.marked = dice.one_in(4);
        line.unmarkable = !line.marked && dice.one_in(7);
        line.outside = line.on.is_some() && dice.one_in(4);
        line.early = line.steps > 0 && dice.one_in(2);
        line.expires = dice.one_in(8).then(|| 3_600 * (1 + dice.below(40) as u64));
        if matches!(line.stand, Says::Plain(_)) {
            line.protect = dice.one_in(9).then(|| !dice.one_in(4));
        }
        line.retain = dice.one_in(10);
        line.part = dice.one_in(6);
        line.ignore = dice.one_in(10);
        program.lines.push(line);
    }

    /// Changes something, as a person would.
    pub(crate) fn edit(&mut self, dice: &mut Dice, program: &mut Program, round: usize) {
        let all: Vec<String> = program.lines.iter().map(|line| line.tag.clone()).collect();
        let Some(tag) = dice.pick(&all).cloned() else { return self.another(dice, program) };
        let sheltered = sheltered(program, &tag);
        let kind = program.line(&tag).map(|line| line.kind);
        let mobile = !program.lines.iter().any(|line| line.import || line.kind == Kind::Look || line.protect.is_some());
        let Some(line) = program.line_mut(&tag) else { return };
        match dice.below(23) {
            0 | 1 if !sheltered => program.remove(&tag),
            2 | 3 => {
                let name = format!("{tag}-{round}");
                let before = std::mem::replace(&mut line.name, name.clone());
                if kind == Some(Kind::Thing) {
                    line.was.push(before);
                    line.was.retain(|was| *was != name);
                    // Somebody forgets to say so.
                    if dice.one_in(4) && !sheltered {
                        line.was.clear();
                    }
                } else {
                    line.name = before;
                }
            }
            4..=6 if kind == Some(Kind::Thing) => line.text = Says::plain(format!("text {round} of {tag}")),
            // One that was taken over and replaced would have to be taken over again.
            7 | 8 if kind == Some(Kind::Thing) && !sheltered && !line.import => {
                line.stand = Says::plain(format!("stand {round}"));
            }
            9 | 10 => {
                self.another(dice, program);
                // Anywhere that Rust accepts.
                if let Some(line) = program.lines.pop() {
                    let at = dice.below(program.lines.len() + 1);
                    program.lines.insert(at, line);
                }
            }
            // What was taken over cannot be asked for what it keeps, and is not told until that changes.
            11 if kind == Some(Kind::Thing) && !line.import => {
                line.secret = Some(Says::plain(format!("{HUSH}{round}-of-{tag}")))
            }
            12 => {
                for _ in 0..4 {
                    let (a, b) = (dice.below(program.lines.len()), dice.below(program.lines.len()));
                    program.lines.swap(a, b);
                }
            }
            13 => program.password = format!("{HUSH}password-{round}"),
            14 if mobile => {
                program.rack = if program.rack == "rack" { "rack2".into() } else { "rack".into() };
            }
            15 if kind == Some(Kind::Thing) && matches!(line.stand, Says::Plain(_)) => {
                line.protect = Some(line.protect != Some(true))
            }
            16 if kind == Some(Kind::Thing) => line.retain = !line.retain,
            17 if kind == Some(Kind::Thing) && !sheltered && !line.import => {
                line.trigger = Some(round as u64);
            }
            18 => {
                // A member of the group changes, or all do.
                for line in program.lines.iter_mut().filter(|line| line.fleet.is_some()) {
                    line.text = Says::plain(format!("text {round} of all"));
                }
            }
            // Into a component, or out of it.
            20 if kind == Some(Kind::Thing) && !(sheltered && line.marked) => line.part = !line.part,
            21 => line.ignore = false,
            22 => program.window = dice.one_in(3).then(|| dice.below(24) as u64),
            19 if kind == Some(Kind::Thing) => {
                // A number goes from one line to another.
                let number = line.number.take();
                line.number = Some(1_000 + self.next as u64);
                self.next += 1;
                if let Some(other) = dice.pick(&all).filter(|other| **other != tag)
                    && let Some(other) = program.line_mut(other)
                    && other.kind == Kind::Thing
                    && number.is_some()
                {
                    other.number = number;
                }
            }
            _ => {
                if let Some(line) = program.lines.iter_mut().find(|line| line.tag == tag && line.kind == Kind::Thing) {
                    line.lingers = dice.below(3) as u32;
                }
            }
        }
    }

    fn meddle(&mut self, dice: &mut Dice, program: &Program, round: &mut Round) {
        let ours: Vec<&Line> = program
            .lines
            .iter()
            .filter(|line| line.kind == Kind::Thing && !line.import && line.fleet.is_none() && !line.ignore)
            .collect();
        let meddling = match (dice.below(5), dice.pick(&ours)) {
            (0, _) => Meddling::Plants(self.tag("z")),
            (1, _) => match dice.pick(&self.foreign) {
                Some(tag) => Meddling::Rewrites(tag.clone(), format!("rewritten {}", self.next)),
                None => return,
            },
            (2 | 3, Some(line)) => Meddling::Takes(line.tag.clone()),
            (_, Some(line)) => Meddling::Changes(line.tag.clone()),
            (_, None) => return,
        };
        round.meddling.push(meddling);
    }
}

/// Returns true when something protected would go with that line: itself, or what is inside.
pub(crate) fn sheltered(program: &Program, tag: &str) -> bool {
    let inside = |line: &Line| line.tag == tag || program.around(&line.tag).contains(&tag);
    program.lines.iter().any(|line| line.protect.is_some() && inside(line))
}
