//! A program as data: what the simulation writes, changes, runs and takes apart again.

use crate::provider::{Act, Bundle, Gate, Look, Sim, Thing, ThingOutputs};
use lab_core::{Component, Group, Handle, Input, Output, ProgramError, Scope, Secret, Stack, Windows};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What every secret of the simulation begins with: its plain text is looked for everywhere.
pub(crate) const HUSH: &str = "hush~";

/// What an input says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// This.
    Plain(String),
    /// What the line of that tag yields.
    Of(String),
}

impl Says {
    pub(crate) fn plain(text: impl Into<String>) -> Says {
        Says::Plain(text.into())
    }

    fn of(&self, tag: &str) -> bool {
        matches!(self, Says::Of(other) if other == tag)
    }
}

/// What is declared by a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A thing in the world.
    Thing,
    /// A secret that exists nowhere but in the state.
    Bundle,
    /// A question about something of somebody else's, which stands in the rack under this tag.
    Look,
}

/// One line of a program. Its tag never changes; its name may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) tag: String,
    pub(crate) name: String,
    pub(crate) was: Vec<String>,
    pub(crate) kind: Kind,
    /// The tag of its container.
    pub(crate) on: Option<String>,
    /// Declared on the second provider instead of the first. Not for what is in a container.
    pub(crate) annex: bool,
    pub(crate) text: Says,
    pub(crate) stand: Says,
    pub(crate) secret: Option<Says>,
    pub(crate) token: bool,
    pub(crate) number: Option<u64>,
    pub(crate) lock: Option<String>,
    pub(crate) steps: u32,
    pub(crate) lingers: u32,
    /// Found by its mark, and replaced by making the next one first.
    pub(crate) marked: bool,
    pub(crate) unmarkable: bool,
    pub(crate) outside: bool,
    pub(crate) early: bool,
    pub(crate) expires: Option<u64>,
    pub(crate) protect: Option<bool>,
    pub(crate) retain: bool,
    pub(crate) after: Option<String>,
    pub(crate) after_created: bool,
    pub(crate) import: bool,
    pub(crate) trigger: Option<u64>,
    pub(crate) fleet: Option<usize>,
    /// Declared in a component of its own, which says what is said about everything in it.
    pub(crate) part: bool,
    /// What it says is left to others.
    pub(crate) ignore: bool,
}

impl Line {
    pub(crate) fn new(tag: &str) -> Line {
        Line {
            tag: tag.into(),
            name: tag.into(),
            was: Vec::new(),
            kind: Kind::Thing,
            on: None,
            annex: false,
            text: Says::plain(format!("text of {tag}")),
            stand: Says::plain("here"),
            secret: None,
            token: false,
            number: None,
            lock: None,
            steps: 0,
            lingers: 0,
            marked: false,
            unmarkable: false,
            outside: false,
            early: false,
            expires: None,
            protect: None,
            retain: false,
            after: None,
            after_created: false,
            import: false,
            trigger: None,
            fleet: None,
            part: false,
            ignore: false,
        }
    }

    /// Returns what a person calls it: its name, in the component that it is in.
    pub(crate) fn called(&self) -> String {
        if self.part { format!("part-{}/{}", self.tag, self.name) } else { self.name.clone() }
    }

    /// Returns the tags of everything it is wired to, without its container.
    pub(crate) fn sources(&self) -> BTreeSet<&str> {
        let says = [Some(&self.text), Some(&self.stand), self.secret.as_ref()].into_iter().flatten();
        let of = says.filter_map(|says| match says {
            Says::Of(tag) => Some(tag.as_str()),
            Says::Plain(_) => None,
        });
        of.chain(self.after.as_deref()).collect()
    }

    /// Returns true when nothing that a provider is given differs.
    pub(crate) fn same_inputs(&self, other: &Line) -> bool {
        let without = |line: &Line| Line {
            name: String::new(),
            was: Vec::new(),
            protect: None,
            retain: false,
            after: None,
            after_created: false,
            import: false,
            token: false,
            part: false,
            ..line.clone()
        };
        without(self) == without(other)
    }
}

/// A rolling group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fleet {
    pub(crate) at_most: usize,
    pub(crate) gate: bool,
    pub(crate) acts: Acts,
}

/// What is done around each interruption of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acts {
    Nothing,
    /// One thing before, and one after that undoes it.
    Around,
    /// Two before, and two after.
    Twice,
    /// Only something after.
    After,
}

impl Acts {
    pub(crate) fn before(self) -> &'static [&'static str] {
        match self {
            Acts::Nothing | Acts::After => &[],
            Acts::Around => &["drain"],
            Acts::Twice => &["drain", "save"],
        }
    }

    pub(crate) fn after(self) -> &'static [&'static str] {
        match self {
            Acts::Nothing => &[],
            Acts::Around => &["uncordon"],
            Acts::Twice => &["uncordon", "wake"],
            Acts::After => &["check"],
        }
    }
}

/// A program.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) lines: Vec<Line>,
    pub(crate) fleets: Vec<Fleet>,
    /// Where the first provider's things stand.
    pub(crate) rack: String,
    /// With which password it is entered.
    pub(crate) password: String,
    /// From which hour of the day on things may be interrupted, for [`OPEN`] hours.
    pub(crate) window: Option<u64>,
}

/// How many hours a maintenance window is open.
pub(crate) const OPEN: u64 = 6;

impl Default for Program {
    fn default() -> Program {
        Program {
            lines: Vec::new(),
            fleets: Vec::new(),
            rack: "rack".into(),
            password: format!("{HUSH}password"),
            window: None,
        }
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = Program::default();
        if self.rack != usual.rack {
            write!(f, "\n      rack {:?}", self.rack)?;
        }
        if self.password != usual.password {
            write!(f, "\n      password {:?}", self.password)?;
        }
        if let Some(window) = self.window {
            write!(f, "\n      window from {window}:00")?;
        }
        for (n, fleet) in self.fleets.iter().enumerate() {
            write!(f, "\n      fleet {n}: {fleet:?}")?;
        }
        for line in &self.lines {
            let usual = Line::new(&line.tag);
            write!(f, "\n      {}", line.tag)?;
            let mut say = |what: &str, value: &dyn fmt::Debug, said: bool| {
                if said { write!(f, " {what} {value:?}") } else { Ok(()) }
            };
            say("named", &line.name, line.name != usual.name)?;
            say("was", &line.was, line.was != usual.was)?;
            say("kind", &line.kind, line.kind != usual.kind)?;
            say("on", &line.on, line.on != usual.on)?;
            say("annex", &true, line.annex)?;
            say("text", &line.text, line.text != usual.text)?;
            say("stand", &line.stand, line.stand != usual.stand)?;
            say("secret", &line.secret, line.secret.is_some())?;
            say("token", &true, line.token)?;
            say("number", &line.number, line.number.is_some())?;
            say("lock", &line.lock, line.lock.is_some())?;
            say("steps", &line.steps, line.steps > 0)?;
            say("lingers", &line.lingers, line.lingers > 0)?;
            say("marked", &true, line.marked)?;
            say("unmarkable", &true, line.unmarkable)?;
            say("outside", &true, line.outside)?;
            say("early", &true, line.early)?;
            say("expires", &line.expires, line.expires.is_some())?;
            say("protect", &line.protect, line.protect.is_some())?;
            say("retain", &true, line.retain)?;
            say("after", &line.after, line.after.is_some())?;
            say("after_created", &true, line.after_created)?;
            say("import", &true, line.import)?;
            say("trigger", &line.trigger, line.trigger.is_some())?;
            say("fleet", &line.fleet, line.fleet.is_some())?;
            say("part", &true, line.part)?;
            say("ignore", &true, line.ignore)?;
        }
        Ok(())
    }
}

/// What a line yields to others.
struct Yields {
    text: Output<String>,
    key: Option<Output<Secret<String>>>,
    handle: Option<Handle<ThingOutputs>>,
}

impl Program {
    pub(crate) fn line(&self, tag: &str) -> Option<&Line> {
        self.lines.iter().find(|line| line.tag == tag)
    }

    pub(crate) fn line_mut(&mut self, tag: &str) -> Option<&mut Line> {
        self.lines.iter_mut().find(|line| line.tag == tag)
    }

    /// Returns the tags of the containers around a line, innermost first.
    pub(crate) fn around<'a>(&'a self, tag: &str) -> Vec<&'a str> {
        let mut around: Vec<&str> = Vec::new();
        let mut at = self.line(tag).and_then(|line| line.on.as_deref());
        while let Some(container) = at.filter(|container| !around.contains(container)) {
            around.push(container);
            at = self.line(container).and_then(|line| line.on.as_deref());
        }
        around
    }

    /// Returns everything that `tag` needs, directly or not, and itself.
    pub(crate) fn needs(&self, tag: &str) -> BTreeSet<String> {
        let (mut all, mut todo) = (BTreeSet::new(), vec![tag.to_owned()]);
        while let Some(tag) = todo.pop() {
            if let Some(line) = self.line(&tag)
                && all.insert(tag)
            {
                todo.extend(line.sources().into_iter().map(str::to_owned));
                todo.extend(line.on.clone());
            }
        }
        all
    }

    /// Takes a line away, with everything inside; what was wired to it says something of its own now.
    pub(crate) fn remove(&mut self, tag: &str) {
        let inside: Vec<String> =
            self.lines.iter().filter(|line| line.on.as_deref() == Some(tag)).map(|line| line.tag.clone()).collect();
        inside.iter().for_each(|tag| self.remove(tag));
        self.lines.retain(|line| line.tag != tag);
        for line in &mut self.lines {
            for says in [&mut line.text, &mut line.stand].into_iter().filter(|says| says.of(tag)) {
                *says = Says::plain(format!("without {tag}"));
            }
            if line.secret.as_ref().is_some_and(|secret| secret.of(tag)) {
                line.secret = Some(Says::plain(format!("{HUSH}without-{tag}")));
            }
            line.after.take_if(|after| after == tag);
        }
    }

    /// Puts lines in an order in which each comes after what it needs, as Rust wants them; the given one otherwise.
    pub(crate) fn arrange(&mut self) {
        let mut todo = std::mem::take(&mut self.lines);
        let mut done: BTreeSet<String> = BTreeSet::new();
        let tags: BTreeSet<String> = todo.iter().map(|line| line.tag.clone()).collect();
        while !todo.is_empty() {
            let ready = |line: &Line| {
                let needs = line.sources().into_iter().chain(line.on.as_deref());
                needs.into_iter().all(|tag| done.contains(tag) || !tags.contains(tag))
            };
            let n = todo.iter().position(ready).expect("lines of a program do not need each other in a circle");
            done.insert(todo[n].tag.clone());
            self.lines.push(todo.remove(n));
        }
    }

    /// Declares the program.
    pub(crate) fn declare(&self, stack: &Stack) -> Result<Vec<Output<String>>, ProgramError> {
        let password = Secret::new(self.password.clone());
        let rack = stack.provider("rack", Sim { password: Some(password.into()), ..Sim::at(&self.rack) });
        let annex = stack.provider("annex", Sim::at("annex"));
        if let Some(from) = self.window {
            stack.maintenance(Windows::new([format!("daily {from:02}:00-{:02}:00", (from + OPEN) % 24).as_str()])?);
        }
        let groups: Vec<_> = self
            .fleets
            .iter()
            .enumerate()
            .map(|(n, fleet)| stack.rolling(&format!("fleet{n}"), fleet.at_most))
            .collect();
        for (n, (fleet, group)) in self.fleets.iter().zip(&groups).enumerate() {
            if fleet.gate {
                group.gate(&rack, Gate { fleet: format!("fleet{n}"), tolerates: fleet.at_most - 1 });
            }
        }
        let mut inside: BTreeMap<&str, Scope<'_, Sim>> = BTreeMap::new();
        let mut yields: BTreeMap<&str, Yields> = BTreeMap::new();
        let mut returned = Vec::new();
        for line in &self.lines {
            let scope = match line.on.as_deref() {
                None if line.annex => annex.clone(),
                None => rack.clone(),
                Some(on) => inside
                    .entry(on)
                    .or_insert_with(|| {
                        let container = yields[on].handle.as_ref().expect("a container is a thing");
                        stack.provider(&format!("in-{on}"), Sim::inside(container))
                    })
                    .clone(),
            };
            let text = |says: &Says| -> Input<String> {
                match says {
                    Says::Plain(text) => text.clone().into(),
                    Says::Of(tag) => yields[tag.as_str()].text.clone().into(),
                }
            };
            let yielded = match line.kind {
                Kind::Look => {
                    let answer = scope.read(&line.name, Look { key: line.tag.clone() });
                    Yields { text: answer.output(|said| said), key: None, handle: None }
                }
                Kind::Bundle => {
                    let bundle = scope.resource(&line.name).add(Bundle { tag: line.tag.clone() });
                    let key = Some(bundle.output(|bundle| bundle.key));
                    Yields { text: bundle.output(|bundle| bundle.tag), key, handle: None }
                }
                Kind::Thing => {
                    let thing = Thing {
                        tag: line.tag.clone(),
                        text: text(&line.text),
                        stand: text(&line.stand),
                        secret: line.secret.as_ref().map(|secret| match secret {
                            Says::Plain(text) => Secret::new(text.clone()).into(),
                            Says::Of(tag) => match &yields[tag.as_str()].key {
                                Some(key) => key.clone().into(),
                                None => Secret::new(format!("{HUSH}none")).into(),
                            },
                        }),
                        token: line.token.then(|| Secret::new(format!("{HUSH}token-{}", line.tag))),
                        number: line.number,
                        lock: line.lock.clone(),
                        steps: line.steps,
                        lingers: line.lingers,
                        marked: line.marked,
                        unmarkable: line.unmarkable,
                        outside: line.outside,
                        early: line.early,
                        expires: line.expires,
                        fleet: line.fleet.map(|n| format!("fleet{n}")),
                    };
                    let after = line.after.as_deref().and_then(|after| yields[after].handle.as_ref());
                    let piece = Piece { line, thing, after, group: line.fleet.map(|n| &groups[n]) };
                    let handle = if line.part {
                        let mut part = scope.component(&format!("part-{}", line.tag));
                        if let Some(protect) = line.protect {
                            part = part.protect(protect);
                        }
                        if line.retain {
                            part = part.retain();
                        }
                        if let Some(after) = after.filter(|_| !line.after_created) {
                            part = part.depends_on(after);
                        }
                        part.add(piece)
                    } else {
                        piece.declare(&scope)
                    };
                    if let Some(n) = line.fleet {
                        let act = |what: &str| Act { what: what.into(), member: line.tag.clone() };
                        let name = |what: &str| format!("{what}-{}", line.tag);
                        for what in self.fleets[n].acts.before() {
                            groups[n].before(&scope, handle.urn(), &name(what), act(what));
                        }
                        for what in self.fleets[n].acts.after() {
                            groups[n].after(&scope, handle.urn(), &name(what), act(what));
                        }
                    }
                    let key = Some(handle.output(|thing| thing.key));
                    Yields { text: handle.output(|thing| thing.text), key, handle: Some(handle) }
                }
            };
            returned.push(yielded.text.clone());
            yields.insert(&line.tag, yielded);
        }
        Ok(returned)
    }
}

/// One thing with everything that is said about it: alone, or as all that a component consists of.
struct Piece<'a> {
    line: &'a Line,
    thing: Thing,
    after: Option<&'a Handle<ThingOutputs>>,
    group: Option<&'a Group<'a>>,
}

impl Component<Sim> for Piece<'_> {
    type Handle = Handle<ThingOutputs>;

    fn declare(self, scope: &Scope<'_, Sim>) -> Handle<ThingOutputs> {
        let Piece { line, thing, after, group } = self;
        let mut declare = scope.resource(&line.name);
        for was in &line.was {
            declare = declare.was(was);
        }
        // What the component says holds for it.
        if let Some(protect) = line.protect.filter(|_| !line.part) {
            declare = declare.protect(protect);
        }
        if line.retain && !line.part {
            declare = declare.retain();
        }
        if let Some(trigger) = line.trigger {
            declare = declare.replace_when(trigger);
        }
        if line.import {
            declare = declare.import(line.tag.as_str());
        }
        if line.ignore {
            declare = declare.ignore("/text");
        }
        if let Some(after) = after {
            declare = if line.after_created { declare.after_created(after) } else { declare.depends_on(after) };
        }
        if let Some(group) = group {
            declare = declare.rolling(group);
        }
        declare.add(thing)
    }
}
