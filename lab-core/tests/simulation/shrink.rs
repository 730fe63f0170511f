//! Makes a life that breaks a property as small as it can be while it still breaks the same one.

use crate::check::{Broken, live};
use crate::life::{Life, Meddling, Verb};
use crate::program::{Acts, Kind, Line, Program, Says};
use lab_core::execute::disk::Crash;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Lives a life; a panic is a broken property, too.
pub(crate) fn lived(life: &Life) -> Result<crate::check::Tally, Broken> {
    catch_unwind(AssertUnwindSafe(|| live(life))).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
        Err(Broken { property: "no panic", how: said.unwrap_or_default() })
    })
}

/// Returns the smallest life found that breaks the same property, and how it does.
pub(crate) fn shrink(life: &Life, mut how: Broken, mut budget: usize) -> (Life, Broken) {
    let mut life = life.clone();
    loop {
        let mut smaller = None;
        for candidate in candidates(&life) {
            if candidate == life || !sensible(&candidate) {
                continue;
            }
            if budget == 0 {
                return (life, how);
            }
            budget -= 1;
            if let Err(broken) = lived(&candidate)
                && kind(&broken) == kind(&how)
            {
                smaller = Some((candidate, broken));
                break;
            }
        }
        match smaller {
            Some((candidate, broken)) => (life, how) = (candidate, broken),
            None => return (life, how),
        }
    }
}

/// Returns true for what a seed could have given: what is taken over is there, and is not destroyed to be taken over
/// again; nor is what is retained, which would be in the way.
fn sensible(life: &Life) -> bool {
    let (mut planted, mut stays): (BTreeSet<&str>, bool) = (BTreeSet::new(), false);
    life.rounds.iter().all(|round| {
        planted.extend(round.meddling.iter().filter_map(|meddling| match meddling {
            Meddling::Plants(tag) => Some(tag.as_str()),
            _ => None,
        }));
        let mut lines = round.program.lines.iter();
        let there = |line: &Line| !(line.import || line.kind == Kind::Look) || planted.contains(line.tag.as_str());
        stays |= round.program.lines.iter().any(|line| line.import || line.retain);
        lines.all(there) && !(stays && round.verb == Verb::Destroy)
    })
}

/// What is the same in every life that breaks a promise in the same way: the words, without names and numbers.
fn kind(broken: &Broken) -> String {
    let how = broken.how.split_once(": ").map_or(broken.how.as_str(), |(_, how)| how);
    let plain = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || ",;:".contains(c));
    let words: Vec<&str> = how.split_whitespace().filter(plain).take(14).collect();
    format!("{} {}", broken.property, words.join(" "))
}

/// Everything that is a little less than `life`, the largest steps first.
fn candidates(life: &Life) -> Vec<Life> {
    let mut all = Vec::new();
    let mut try_it = |change: &dyn Fn(&mut Life)| {
        let mut smaller = life.clone();
        change(&mut smaller);
        smaller.rounds.iter_mut().for_each(|round| {
            let program = &round.program;
            if let Verb::Target(tags) = &mut round.verb {
                tags.retain(|tag| program.line(tag).is_some());
            }
            if round.verb == Verb::Target(Vec::new()) {
                round.verb = Verb::Up;
            }
        });
        all.push(smaller);
    };
    for n in 0..life.rounds.len() {
        if life.rounds.len() > 1 {
            try_it(&|life| drop(life.rounds.remove(n)));
        }
    }
    let tags: BTreeSet<String> =
        life.rounds.iter().flat_map(|round| round.program.lines.iter().map(|line| line.tag.clone())).collect();
    for tag in &tags {
        try_it(&|life| life.rounds.iter_mut().for_each(|round| round.program.remove(tag)));
        try_it(&|life| {
            life.rounds.iter_mut().for_each(|round| {
                without(&mut round.program, tag);
            });
        });
    }
    for n in 0..life.rounds.len() {
        for tag in &tags {
            try_it(&|life| life.rounds[n].program.remove(tag));
        }
        if n > 0 {
            try_it(&|life| life.rounds[n].program = life.rounds[n - 1].program.clone());
        }
        try_it(&|life| life.rounds[n].mishaps.clear());
        for m in 1..life.rounds[n].mishaps.len() {
            try_it(&|life| {
                life.rounds[n].mishaps.remove(m);
            });
        }
        try_it(&|life| life.rounds[n].disk = None);
        try_it(&|life| life.rounds[n].meddling.clear());
        try_it(&|life| life.rounds[n].asks.clear());
        try_it(&|life| life.rounds[n].cut_off = None);
        try_it(&|life| life.rounds[n].verb = Verb::Up);
        try_it(&|life| life.rounds[n].refresh = false);
        try_it(&|life| life.rounds[n].crash = Crash::Process);
        try_it(&|life| life.rounds[n].latency = 0);
        try_it(&|life| life.rounds[n].parallel = 1);
        try_it(&|life| life.rounds[n].hours = 0);
    }
    try_it(&|life| life.hours = 0);
    try_it(&|life| life.ends = false);
    try_it(&|life| {
        life.rounds.iter_mut().for_each(|round| round.program.fleets.iter_mut().for_each(|f| f.acts = Acts::Nothing))
    });
    try_it(&|life| {
        life.rounds.iter_mut().for_each(|round| round.program.fleets.iter_mut().for_each(|f| f.gate = false))
    });
    try_it(&|life| life.rounds.iter_mut().for_each(|round| round.program.window = None));
    let plain: [fn(&mut Line); 24] = [
        |line| line.part = false,
        |line| line.ignore = false,
        |line| line.after = None,
        |line| line.after_created = false,
        |line| line.text = Line::new(&line.tag).text,
        |line| {
            if matches!(line.text, Says::Of(_)) {
                line.text = Line::new(&line.tag).text;
            }
        },
        |line| line.stand = Line::new(&line.tag).stand,
        |line| line.secret = None,
        |line| line.token = false,
        |line| line.number = None,
        |line| line.lock = None,
        |line| line.steps = 0,
        |line| line.lingers = 0,
        |line| line.marked = false,
        |line| line.unmarkable = false,
        |line| line.outside = false,
        |line| line.early = false,
        |line| line.expires = None,
        |line| line.protect = None,
        |line| line.retain = false,
        |line| line.trigger = None,
        |line| line.annex = false,
        |line| line.fleet = None,
        |line| {
            line.name = line.tag.clone();
            line.was.clear();
        },
    ];
    for tag in &tags {
        for change in plain {
            try_it(&|life| {
                life.rounds.iter_mut().filter_map(|round| round.program.line_mut(tag)).for_each(change);
            });
        }
    }
    all
}

/// Takes what is inside `tag` out of it.
fn without(program: &mut Program, tag: &str) {
    program.lines.iter_mut().filter(|line| line.on.as_deref() == Some(tag)).for_each(|line| line.on = None);
}
