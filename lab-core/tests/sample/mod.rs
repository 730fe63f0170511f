//! Random programs over things in memory, how a person changes them, and what has to hold after a run.
#![allow(dead_code, reason = "each test file uses its own part")]

#[path = "../dice/mod.rs"]
mod dice;

pub(crate) use dice::Dice;
use lab_core::execute::disk::{Crash, Fault, Verb as DiskVerb};
use lab_core::execute::{CallFault, Faults, Report};
use lab_core::plan::Verb;
use lab_core::testing::{Bench, Memory, Search, Thing, ThingOutputs, Trial};
use lab_core::{Handle, Output, ProgramError, Scope, Secret, Stack};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

/// Which of the dice's numbers these programs are made of.
const SERIES: u64 = 0x9e37_79b9;

/// What an input says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Says {
    /// This.
    Plain(String),
    /// What the thing of that line says.
    Of(String),
}

/// One line of a program.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// The name of the thing in the world.
    pub(crate) thing: String,
    /// The line of its container; none: it stands in the rack.
    pub(crate) on: Option<String>,
    pub(crate) text: Says,
    pub(crate) stand: Says,
    pub(crate) secret: Option<Says>,
    pub(crate) token: bool,
    pub(crate) claim: Option<u64>,
    pub(crate) calls: u32,
    pub(crate) lingers: u32,
    pub(crate) create_first: bool,
    pub(crate) outside: bool,
    pub(crate) unmarkable: bool,
    pub(crate) lock: bool,
    pub(crate) after: Option<String>,
}

impl Line {
    pub(crate) fn new(name: &str) -> Line {
        Line {
            name: name.into(),
            thing: name.into(),
            on: None,
            text: Says::Plain(format!("text of {name}")),
            stand: Says::Plain("here".into()),
            secret: None,
            token: false,
            claim: None,
            calls: 0,
            lingers: 0,
            create_first: false,
            outside: false,
            unmarkable: false,
            lock: false,
            after: None,
        }
    }

    pub(crate) fn on(self, container: &str) -> Line {
        Line { on: Some(container.into()), ..self }
    }

    pub(crate) fn says(self, text: &str) -> Line {
        Line { text: Says::Plain(text.into()), ..self }
    }

    pub(crate) fn says_of(self, line: &str) -> Line {
        Line { text: Says::Of(line.into()), ..self }
    }

    pub(crate) fn at(self, stand: &str) -> Line {
        Line { stand: Says::Plain(stand.into()), ..self }
    }

    fn needs(&self, line: &str) -> bool {
        let of = |says: &Says| *says == Says::Of(line.to_owned());
        self.on.as_deref() == Some(line)
            || self.after.as_deref() == Some(line)
            || of(&self.text)
            || of(&self.stand)
            || self.secret.as_ref().is_some_and(of)
    }
}

/// A program, as data.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Sample {
    pub(crate) lines: Vec<Line>,
    /// Where the rack is.
    pub(crate) rack: String,
}

impl fmt::Debug for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            let usual = Line::new(&line.name);
            write!(f, "\n  {}", line.name)?;
            let mut say = |what: &str, value: &dyn fmt::Debug, said: bool| {
                if said { write!(f, " {what} {value:?}") } else { Ok(()) }
            };
            say("thing", &line.thing, line.thing != usual.thing)?;
            say("on", &line.on, line.on != usual.on)?;
            say("text", &line.text, line.text != usual.text)?;
            say("stand", &line.stand, line.stand != usual.stand)?;
            say("secret", &line.secret, line.secret.is_some())?;
            say("claim", &line.claim, line.claim.is_some())?;
            say("calls", &line.calls, line.calls > 0)?;
            say("lingers", &line.lingers, line.lingers > 0)?;
            say("after", &line.after, line.after.is_some())?;
            say("token", &"", line.token)?;
            say("create_first", &"", line.create_first)?;
            say("outside", &"", line.outside)?;
            say("unmarkable", &"", line.unmarkable)?;
            say("lock", &"", line.lock)?;
        }
        Ok(())
    }
}

impl Sample {
    pub(crate) fn of(lines: impl IntoIterator<Item = Line>) -> Sample {
        Sample { lines: lines.into_iter().collect(), rack: "rack".into() }
    }

    /// Returns a random program: chains, diamonds, containers in containers, things of every temper.
    pub(crate) fn random(seed: u64) -> Sample {
        let dice = &mut Dice::new(seed);
        let mut sample = Sample::of([]);
        for n in 0..4 + dice.below(4) {
            let line = sample.another(dice, &format!("r{n}"));
            sample.lines.push(line);
        }
        sample.tidy();
        sample
    }

    /// What may have to be replaced only once its inputs are known holds nothing: that has to be planned again, which
    /// is not what these programs are about.
    fn tidy(&mut self) {
        let holds: Vec<String> = self.lines.iter().filter_map(|line| line.on.clone()).collect();
        for line in &mut self.lines {
            if holds.contains(&line.name) && matches!(line.stand, Says::Of(_)) {
                line.stand = Says::Plain("here".into());
            }
        }
    }

    fn another(&self, dice: &mut Dice, name: &str) -> Line {
        let earlier = |dice: &mut Dice| match self.lines.len() {
            0 => None,
            len => Some(self.lines[dice.below(len)].name.clone()),
        };
        let mut line = Line::new(name);
        if dice.one_in(3) {
            line.on = earlier(dice);
        }
        if dice.one_in(2)
            && let Some(other) = earlier(dice)
        {
            line.text = Says::Of(other);
        }
        if dice.one_in(8)
            && let Some(other) = earlier(dice)
        {
            line.stand = Says::Of(other);
        }
        if dice.one_in(4) {
            line.secret = Some(
                earlier(dice).filter(|_| dice.one_in(2)).map_or(Says::Plain(format!("hush about {name}")), Says::Of),
            );
        }
        if dice.one_in(4) {
            line.after = earlier(dice);
        }
        line.token = dice.one_in(5);
        line.claim = dice.one_in(3).then(|| 100 + self.lines.len() as u64);
        line.calls = [0, 0, 0, 1, 2][dice.below(5)];
        line.lingers = [0, 0, 1, 2][dice.below(4)];
        line.create_first = dice.one_in(4);
        line.outside = line.on.is_some() && dice.one_in(4);
        line.unmarkable = !line.create_first && dice.one_in(6);
        line.lock = dice.one_in(5);
        line
    }

    /// Returns the program after a person worked on it.
    pub(crate) fn changed(&self, seed: u64) -> Sample {
        let dice = &mut Dice::new(seed ^ 0x00c0_ffee);
        let mut sample = self.clone();
        for round in 0..1 + dice.below(3) {
            let Some(n) = (!sample.lines.is_empty()).then(|| dice.below(sample.lines.len())) else { break };
            let name = sample.lines[n].name.clone();
            match dice.below(8) {
                0 => sample.remove(&name),
                1 => sample.rename(&name, &format!("{name}x{round}")),
                2 | 3 => sample.lines[n].text = Says::Plain(format!("other text {seed} {round}")),
                4 => sample.lines[n].stand = Says::Plain(format!("there {seed} {round}")),
                5 => {
                    let line = sample.another(dice, &format!("n{seed}{round}"));
                    sample.lines.push(Line { claim: None, ..line });
                }
                6 => sample.lines[n].secret = Some(Says::Plain(format!("other hush {seed}"))),
                7 => sample.reorder(dice),
                _ => unreachable!(),
            }
        }
        sample.tidy();
        sample
    }

    pub(crate) fn line(&mut self, name: &str) -> &mut Line {
        self.lines.iter_mut().find(|line| line.name == name).expect("a line of that name")
    }

    /// Takes a line away, with everything inside; what needed it says something of its own now.
    pub(crate) fn remove(&mut self, name: &str) {
        let inside: Vec<String> =
            self.lines.iter().filter(|line| line.on.as_deref() == Some(name)).map(|line| line.name.clone()).collect();
        inside.iter().for_each(|name| self.remove(name));
        self.lines.retain(|line| line.name != name);
        for line in &mut self.lines {
            let plain = Says::Plain(format!("without {name}"));
            let of = Says::Of(name.to_owned());
            for says in [&mut line.text, &mut line.stand] {
                if *says == of {
                    *says = plain.clone();
                }
            }
            if line.secret.as_ref() == Some(&of) {
                line.secret = Some(Says::Plain(format!("hush about what was without {name}")));
            }
            line.after.take_if(|after| after == name);
        }
    }

    /// Gives a line another name, everywhere. The thing keeps its own.
    pub(crate) fn rename(&mut self, old: &str, new: &str) {
        for line in &mut self.lines {
            let of = Says::Of(old.to_owned());
            for says in [&mut line.text, &mut line.stand].into_iter().chain(&mut line.secret) {
                if *says == of {
                    *says = Says::Of(new.to_owned());
                }
            }
            for name in [&mut line.on, &mut line.after].into_iter().flatten() {
                if name == old {
                    *name = new.to_owned();
                }
            }
            if line.name == old {
                line.name = new.to_owned();
            }
        }
    }

    fn reorder(&mut self, dice: &mut Dice) {
        for _ in 0..self.lines.len() {
            let n = dice.below(self.lines.len());
            if n > 0 && !self.lines[n].needs(&self.lines[n - 1].name) {
                self.lines.swap(n - 1, n);
            }
        }
    }

    /// Declares the program.
    pub(crate) fn declare(&self, stack: &Stack) -> Result<Vec<Output<String>>, ProgramError> {
        let rack = stack.provider("rack", Memory::at(&self.rack));
        let mut inside: BTreeMap<String, Scope<'_, Memory>> = BTreeMap::new();
        let mut handles: BTreeMap<String, Handle<ThingOutputs>> = BTreeMap::new();
        let mut returned = Vec::new();
        for line in &self.lines {
            let scope = match &line.on {
                None => rack.clone(),
                Some(on) => inside
                    .entry(on.clone())
                    .or_insert_with(|| {
                        let container = &handles[on];
                        let thing = &self.lines.iter().find(|line| line.name == *on).expect("the container").thing;
                        let place = Memory::inside(container).key(container.output(|container| container.key));
                        stack.provider(&format!("in-{thing}"), place)
                    })
                    .clone(),
            };
            let says = |says: &Says| match says {
                Says::Plain(text) => text.clone().into(),
                Says::Of(line) => handles[line].output(|thing| thing.text).into(),
            };
            let thing = Thing {
                stand: says(&line.stand),
                secret: line.secret.as_ref().map(|secret| match secret {
                    Says::Plain(text) => Secret::new(text.clone()).into(),
                    Says::Of(line) => handles[line].output(|thing| thing.key).into(),
                }),
                token: line.token.then(|| Secret::new(format!("token of {}", line.name))),
                claims: line.claim.into_iter().collect(),
                lock: line.lock.then(|| "the lock".into()),
                calls: line.calls,
                lingers: line.lingers,
                create_first: line.create_first,
                outside: line.outside,
                unmarkable: line.unmarkable,
                ..Thing::new(&line.thing, says(&line.text))
            };
            let declare = scope.resource(&line.name);
            let declare = match &line.after {
                Some(after) => declare.depends_on(&handles[after]),
                None => declare,
            };
            let handle = declare.add(thing);
            returned.push(handle.output(|thing| thing.text));
            handles.insert(line.name.clone(), handle);
        }
        Ok(returned)
    }
}

/// How every secret of these programs begins.
pub(crate) static SECRETS: LazyLock<Search> = LazyLock::new(|| {
    let mut search =
        Search::of([("a secret", "hush about "), ("a changed secret", "other hush "), ("a token", "token of ")]);
    ('a'..='z').for_each(|first| assert!(search.add("a key that was yielded", format!("key-of-{first}"))));
    search
});

/// Runs `sample` on the bench. However that ends, no secret of it is left or said in clear.
pub(crate) fn run(bench: &Bench, sample: &Sample, verb: Verb, trial: &Trial) -> Result<Report, String> {
    let before = bench.disk().everything();
    let report = bench.attempt(|stack| sample.declare(stack), verb, trial);
    let story = format!("{verb} of {sample:?}");
    SECRETS.clean(&story, format!("{report:?}"));
    bench.disk().everything().iter().filter(|file| !before.contains(file)).for_each(|file| SECRETS.clean(&story, file));
    for event in trial.heard.lock().unwrap().iter() {
        SECRETS.clean(&story, format!("{event:?} {}", serde_json::to_string(event).unwrap()));
    }
    report
}

/// Runs `sample` on the bench, undisturbed and to the end.
pub(crate) fn run_whole(bench: &Bench, sample: &Sample, verb: Verb, story: &str) {
    let report = run(bench, sample, verb, &Trial::default()).unwrap_or_else(|error| panic!("{story}: {error}"));
    let told = || {
        let failed = report
            .failed
            .iter()
            .map(|failure| format!("{} {}: {}", failure.action, failure.urn.short(), failure.error));
        let not = report.not_started.iter().map(|(urn, why)| format!("{} was not started: {why}", urn.short()));
        failed.chain(not).collect::<Vec<_>>().join("\n")
    };
    assert!(report.complete(), "{story}\nREPORT\n{}\nworld: {:#?}", told(), world(bench));
}

/// The world without what differs from run to run: marks, numbers, and marks within names.
pub(crate) fn world(bench: &Bench) -> Vec<String> {
    let mut all: Vec<String> = bench
        .world()
        .items()
        .into_iter()
        .map(|(place, name, item)| {
            let secret = !item.value["secret"].is_null();
            let (text, stand) = (&item.value["text"], &item.value["stand"]);
            let ready = item.unfinished == 0 && item.leaving.is_none();
            format!("{}: text {text} stand {stand} secret {secret} ready {ready}", plain(&format!("{place}/{name}")))
        })
        .collect();
    all.sort();
    all
}

/// A path without numbers of containers and without marks.
pub(crate) fn plain(path: &str) -> String {
    let part = |part: &str| {
        let part = part.split('#').next().unwrap_or_default();
        match part.rsplit_once('-') {
            Some((name, mark)) if mark.len() == 32 => name.to_owned(),
            _ => part.to_owned(),
        }
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// Everything that was made and deleted, how often each.
pub(crate) fn deeds(bench: &Bench) -> Vec<String> {
    let mut all: Vec<String> =
        bench.world().log().iter().filter(|call| !call.starts_with("update")).map(|call| plain(call)).collect();
    all.sort();
    all
}

/// What has to hold after every run that was complete: each thing is in the state under its mark, each record has its
/// thing, nothing is under way, and a second plan is empty.
pub(crate) fn settled(bench: &Bench, sample: &Sample, verb: Verb, story: &str) {
    let state = bench.state();
    assert_eq!(
        state.open().count(),
        0,
        "{story}: something is still open: {:?}",
        state.open().map(|(urn, ..)| urn).collect::<Vec<_>>()
    );
    assert!(state.condemned.is_empty(), "{story}: something is still condemned: {:#?}", state.condemned);
    let items = bench.world().items();
    let orphans: Vec<_> = items
        .iter()
        .filter(|(_, name, item)| {
            !state.records.values().any(|record| {
                record.id.as_ref().is_some_and(|id| id.0 == *name)
                    && item.mark.as_ref().is_none_or(|mark| *mark == record.mark.0)
            })
        })
        .collect();
    assert!(orphans.is_empty(), "{story}: nothing in the state knows {orphans:#?}");
    assert_eq!(
        items.len(),
        state.records.len(),
        "{story}: the state and the world do not match:\n{items:#?}\n{:#?}",
        state.records
    );
    let again = bench.plan(|stack| sample.declare(stack), verb, &Default::default(), &[]);
    assert!(again.is_empty(), "{story}: a second plan is not empty:\n{}", lab_core::plan::text(&again));
}

/// How a run was disturbed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Disturbance {
    Call(usize, CallFault),
    Disk(usize, Fault, Crash),
}

impl Disturbance {
    /// Runs `sample`, disturbed, and returns what is there afterwards.
    pub(crate) fn run(self, base: &Bench, sample: &Sample, verb: Verb) -> Bench {
        let bench = base.fork();
        match self {
            Disturbance::Call(n, fault) => {
                let trial = Trial { faults: Arc::new(Faults::at(n, fault)), ..Trial::default() };
                // How it ended is what the next run has to cope with.
                let _ = run(&bench, sample, verb, &trial);
                bench.crashed(Crash::Process)
            }
            Disturbance::Disk(n, fault, crash) => {
                bench.disk().inject(n, fault);
                let _ = run(&bench, sample, verb, &Trial::default());
                bench.crashed(crash)
            }
        }
    }
}

/// Every way to disturb the run of `sample` from `base` on.
pub(crate) fn disturbances(
    base: &Bench,
    sample: &Sample,
    verb: Verb,
    calls: &[CallFault],
    disk: bool,
) -> Vec<Disturbance> {
    let bench = base.fork();
    let faults = Arc::new(Faults::none());
    let trial = Trial { faults: faults.clone(), ..Trial::default() };
    let report = run(&bench, sample, verb, &trial).unwrap_or_else(|error| panic!("undisturbed: {error}"));
    assert!(report.complete(), "undisturbed: {report:#?}");
    let mut all: Vec<Disturbance> =
        (0..faults.calls()).flat_map(|n| calls.iter().map(move |fault| Disturbance::Call(n, *fault))).collect();
    if disk {
        for (n, operation) in bench.disk().operations().iter().enumerate() {
            let crash = [Crash::Process, Crash::Power, Crash::PowerPartly(n as u64)][n % 3];
            match operation.verb {
                DiskVerb::Write => {
                    let within = [1, operation.bytes / 2, operation.bytes.saturating_sub(1)][n / 2 % 3];
                    all.push(Disturbance::Disk(n, Fault::StopBefore, crash));
                    all.push(Disturbance::Disk(n, Fault::StopWithin(within), Crash::Process));
                    all.push(Disturbance::Disk(n, Fault::StopAfter, Crash::PowerPartly(n as u64)));
                }
                DiskVerb::Flush | DiskVerb::Create | DiskVerb::Rename | DiskVerb::Link | DiskVerb::SyncDir => {
                    all.push(Disturbance::Disk(n, Fault::StopBefore, crash));
                    all.push(Disturbance::Disk(n, Fault::StopAfter, Crash::Power));
                }
                DiskVerb::Read | DiskVerb::List | DiskVerb::Remove => {}
            }
        }
    }
    all
}

/// Returns how many seeds to try: more with `LAB_TEST_SEEDS`.
pub(crate) fn seeds(usual: u64) -> u64 {
    std::env::var("LAB_TEST_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(usual)
}
