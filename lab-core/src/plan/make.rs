//! From a declaration, a state and observations to a plan.

use super::claims::{self, ForeignClaim, Held};
use super::diff::diff;
use super::fate::{Fate, Fates, Filled};
use super::graph::Graph;
use super::pairs::Pairs;
use super::plan::{Action, Observations, Observed, Permits, Plan, Problem, Step, Unknown, Verb};
use super::resolve::inside;
use super::{hold, moves, order, roll, select};
use crate::model::{
    Claim, Declared, Deed, Digest, Edge, ErasedType, Event, Id, Impact, Index, Mark, Nature, Node, NodeKind, Order,
    Path, Realm, Record, Spec, State, Status, Tree, Urn, Word, digest, put_value, remove_value, value_at,
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How long an operation may take when its declaration does not say.
pub(super) const TIMEOUT: Duration = Duration::from_secs(600);

/// What a plan is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The verb.
    pub verb: Verb,
    /// Only these and what they need: URNs or what a person would call them. Empty for everything.
    pub targets: Vec<String>,
    /// The time.
    pub now: SystemTime,
    /// What the other stacks of the lab directory occupy.
    pub foreign: Vec<ForeignClaim>,
}

impl Request {
    /// Returns the request for everything.
    pub fn new(verb: Verb, now: SystemTime) -> Request {
        Request { verb, targets: Vec::new(), now, foreign: Vec::new() }
    }
}

/// Returns everything that will be done, and everything that keeps it from being done.
pub fn plan(declared: &Declared, state: &State, seen: &Observations, request: &Request) -> Plan {
    // A destroy is asked for as the program stands. A change says itself that it lifts or brings a protection.
    let protects = |node: &&Node| request.verb == Verb::Destroy && node.options.protect == Some(true);
    let protected: BTreeSet<&Urn> = declared.nodes.iter().filter(protects).map(|node| &node.urn).collect();
    let empty;
    let declared = match request.verb {
        Verb::Up => declared,
        // Destroying is planning for nothing, with the same vocabulary.
        Verb::Destroy => {
            empty = Declared {
                stack: declared.stack.clone(),
                nodes: Vec::new(),
                providers: declared.providers.clone(),
                groups: BTreeMap::new(),
                expressions: declared.expressions.clone(),
                outputs: Value::Null,
                problems: Vec::new(),
                lacking: false,
                reads: declared.reads.clone(),
                windows: declared.windows.clone(),
                vocabulary: declared.vocabulary.clone(),
                vault: declared.vault.clone(),
                index: Index::default(),
            };
            &empty
        }
    };
    let graph = Graph::new(declared);
    let pairs = Pairs::new(declared, state);
    let moves = moves::moves(declared, &graph, state, &pairs);
    let moved = (!moves.is_empty()).then(|| {
        let mut state = state.clone();
        if let Err(error) = state.apply(&Event::Moved { moves: moves.clone() }) {
            unreachable!("moves are built from the state they are applied to: {error}");
        }
        state
    });
    let (state, pairs) = match &moved {
        Some(moved) => (moved, Pairs::new(declared, moved)),
        None => (state, pairs),
    };
    // What was seen was looked for under the names of before.
    let moved: Option<Observations> = (!moves.is_empty()).then(|| {
        let answers = &seen.answers;
        let names: BTreeMap<&Urn, &Urn> = moves.iter().map(|(from, to)| (from, to)).collect();
        let now = |urn: &Urn| names.get(urn).map_or_else(|| urn.clone(), |to| (*to).clone());
        let standing = seen.standing.iter().map(now).collect();
        let seen = seen.seen.iter().map(|(urn, seen)| (now(urn), seen.clone())).collect();
        Observations { seen, answers: answers.clone(), standing }
    });
    let seen = moved.as_ref().unwrap_or(seen);
    let mut planner = Planner {
        declared,
        graph: &graph,
        state,
        pairs,
        seen,
        now: request.now,
        fates: Fates::new(declared),
        steps: Vec::new(),
        notes: Vec::new(),
        observed: Vec::new(),
        problems: Vec::new(),
        warnings: Vec::new(),
        held: Vec::new(),
        edges: BTreeMap::new(),
        same: 0,
        going: BTreeSet::new(),
        identities: BTreeMap::new(),
        containers: containers(state),
        protected,
        places: BTreeMap::new(),
    };
    for (place, message) in &declared.problems {
        planner.problems.push(Problem { urn: None, places: vec![place.clone()], message: message.clone(), hint: None });
    }
    planner.problems.extend(graph.problems.iter().cloned());
    // Of a declaration that lacks something, which is a problem already, nobody can say what has left it.
    if !declared.lacking {
        planner.departed();
    }
    for n in &graph.order {
        if declared.nodes[*n].options.act.is_none() {
            planner.node(*n);
        }
    }
    roll::acts(&mut planner);
    if !declared.lacking {
        planner.leftovers(request.verb);
    }
    planner.held.sort_by(|a, b| a.urn.cmp(&b.urn));
    let clashes = claims::clashes(&planner.held, &request.foreign);
    planner.problems.extend(clashes);
    let shortages = claims::shortages(&planner.held, &request.foreign);
    planner.problems.extend(shortages);
    let kept = claims::kept(&planner.held, planner.kept(), declared, state);
    planner.problems.extend(kept);
    planner.imported_twice();

    let outputs = match request.verb {
        Verb::Up => planner.fates.fill(&(&declared.outputs).into()),
        Verb::Destroy => Filled { value: Tree::default(), unknown: Vec::new(), failed: Vec::new() },
    };
    let Planner { steps, notes, observed, mut problems, warnings, edges, same, .. } = planner;
    let steps = order::order(steps, &edges, state, &mut problems);
    let mut steps = steps;
    for step in steps.iter_mut().filter(|step| step.claims_deferred) {
        step.foreign.clone_from(&request.foreign);
    }
    let (steps, mut held) = match request.verb {
        Verb::Up => hold::hold(steps, declared, state, request.now),
        Verb::Destroy => (steps, Vec::new()),
    };
    let all = held.clone();
    if !request.targets.is_empty() {
        held.retain(|held| request.targets.iter().any(|target| select::names(&held.step.urn, target)));
    }
    let unasked = held.len() < all.len();
    let steps = roll::roll(steps, declared, state, &seen.standing, &all, &mut problems);
    let (steps, partial) = select::select(steps, &request.targets, declared, state, &mut problems);
    let partial = partial || unasked;
    // A part notes nothing of the rest: what a note lifts, a protection among it, was not asked for.
    let mut notes = if partial { Vec::new() } else { notes };
    if !request.targets.is_empty() {
        notes.retain(|(urn, _)| request.targets.iter().any(|target| select::names(urn, target)));
    }
    // What is applied in part returns nothing.
    if !partial && held.is_empty() {
        problems.extend(outputs.failed.into_iter().map(|why| Problem {
            urn: None,
            places: Vec::new(),
            message: format!("what the program returns: {why}"),
            hint: None,
        }));
    }
    problems.sort_by(|a, b| (&a.places, &a.message).cmp(&(&b.places, &b.message)));
    problems.dedup();
    Plan {
        stack: declared.stack.clone(),
        verb: request.verb,
        steps,
        held,
        same,
        moves,
        notes,
        observed,
        problems,
        warnings,
        outputs: outputs.value.value(),
        partial,
    }
}

/// Returns what anything recorded lives inside, also where that has lost its name.
fn containers(state: &State) -> BTreeSet<&Urn> {
    let condemned = state.condemned.values().filter(|it| !it.left_behind).map(|condemned| &condemned.record);
    let all = state.records.values().map(Box::as_ref).chain(condemned);
    all.filter_map(|record| record.spec.container.as_ref()).collect()
}

/// A plan in the making.
pub(super) struct Planner<'a> {
    pub(super) declared: &'a Declared,
    pub(super) graph: &'a Graph,
    pub(super) state: &'a State,
    pub(super) pairs: Pairs<'a>,
    pub(super) seen: &'a Observations,
    pub(super) now: SystemTime,
    pub(super) fates: Fates<'a>,
    pub(super) steps: Vec<Step>,
    pub(super) notes: Vec<(Urn, Spec)>,
    /// What was seen to yield something else.
    pub(super) observed: Vec<Observed>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
    pub(super) held: Vec<Held>,
    /// What steps need beside what their specs say.
    pub(super) edges: BTreeMap<Urn, Vec<Edge>>,
    pub(super) same: usize,
    /// Records whose thing goes in this plan, with everything inside.
    /// What the program protects from being destroyed, applied or not.
    pub(super) protected: BTreeSet<&'a Urn>,
    pub(super) going: BTreeSet<Urn>,
    /// What each natural identity is declared as, by where it is and its type.
    identities: BTreeMap<(Word, &'static str, Id), &'a Node>,
    /// What anything recorded lives inside.
    pub(super) containers: BTreeSet<&'a Urn>,
    /// What each provider points at. All that its configuration needs has been planned before anything on it is.
    places: BTreeMap<&'a str, Pointed>,
}

/// What a provider points at: the realm, where it is known, and what that is the inside of.
type Pointed = Option<(Option<Word>, Option<Urn>)>;

/// Everything about a node that is known before it is compared with what is recorded.
pub(super) struct Wanted<'n> {
    /// Where it stands in what is declared.
    pub(super) n: usize,
    pub(super) node: &'n Node,
    pub(super) kind: &'n Arc<dyn ErasedType>,
    pub(super) spec: Spec,
    pub(super) realm_known: bool,
    pub(super) unknown: Vec<Unknown>,
    pub(super) claims_deferred: bool,
    pub(super) id: Option<Id>,
    /// What was seen of it, where what its change takes is judged again later.
    pub(super) live: Option<Tree>,
    /// Whether it is as somebody else left it.
    pub(super) drifted: bool,
}

impl<'a> Planner<'a> {
    pub(super) fn problem(&mut self, node: &Node, message: String, hint: Option<&str>) {
        self.problems.push(Problem {
            urn: Some(node.urn.clone()),
            places: vec![node.place.clone()],
            message,
            hint: hint.map(str::to_owned),
        });
    }

    /// Plans one declared resource or read. Everything it needs has been planned.
    pub(super) fn node(&mut self, n: usize) {
        let declared = self.declared;
        let node = &declared.nodes[n];
        let kind = match &node.kind {
            NodeKind::Resource(kind) => kind,
            NodeKind::Read(_) => return self.read(n),
        };
        let Some(wanted) = self.wanted(n, kind) else { return };
        self.occupy(&wanted, node);
        match self.pairs.recorded[n] {
            None => self.create(wanted, Vec::new()),
            Some(record) if record.spec.version > wanted.spec.version => {
                let message = format!(
                    "{} was recorded by version {} of {}, this program knows version {}",
                    node.urn.short(),
                    record.spec.version,
                    record.spec.kind,
                    wanted.spec.version
                );
                self.problem(node, message, Some("run a program built with the newer version of lab"));
            }
            Some(record) => match &record.open {
                Some(open) => match open.begun.deed {
                    Deed::Create | Deed::Supersede | Deed::Import => self.unfinished(wanted, record, true),
                    Deed::Update => self.unfinished(wanted, record, false),
                    // What contains it may have gone meanwhile, and taken it along.
                    Deed::Delete if !wanted.realm_known || record.spec.realm != wanted.spec.realm => {
                        self.elsewhere(wanted, record);
                    }
                    Deed::Delete => self.replace(
                        wanted,
                        record,
                        Order::DeleteFirst,
                        Impact::default(),
                        vec!["its deletion was begun and has to be finished first".into()],
                    ),
                },
                None if record.status == Status::Gone => {
                    self.forget(&node.urn, record, false, "it is gone");
                    self.create(wanted, vec!["it was there and is gone".into()]);
                }
                None => self.compare(wanted, record),
            },
        }
    }

    /// Plans an act to be done once more. What is recorded of the last time is replaced in the moment in which it begins.
    /// What bears the same identity is the same thing: there is no other, and it is finished where it is not.
    pub(super) fn anew(&mut self, n: usize) {
        let node = &self.declared.nodes[n];
        let (NodeKind::Resource(kind), Some(record)) = (&node.kind, self.pairs.recorded[n]) else {
            return self.node(n);
        };
        let Some(wanted) = self.wanted(n, kind) else { return };
        let open = record.open.as_deref();
        let id = record.id.as_ref().or(open.and_then(|open| open.begun.id.as_ref()));
        match (id, &wanted.id) {
            (Some(id), Some(other)) if id == other => match (record.status, open) {
                (Status::Ready, None) => {}
                (Status::Ready | Status::Made | Status::Begun | Status::Gone, _) => self.node(n),
            },
            _ => {
                self.occupy(&wanted, node);
                self.create(wanted, Vec::new());
            }
        }
    }

    /// Notes what something occupies, so that nobody else does.
    fn occupy(&mut self, wanted: &Wanted<'_>, node: &'a Node) {
        let held = |claim: &Claim| Held { urn: node.urn.clone(), place: node.place.clone(), claim: claim.clone() };
        self.held.extend(wanted.spec.claims.iter().map(held));
        self.identify(wanted, node);
    }

    /// A natural identity is a claim: two lines that mean the same thing would take it from each other at every run.
    fn identify(&mut self, wanted: &Wanted<'_>, node: &'a Node) {
        let import = node.options.import.as_ref().filter(|_| self.pairs.recorded[wanted.n].is_none());
        let id = wanted.id.as_ref().or(import).cloned();
        let Some(id) = id.filter(|_| !wanted.spec.once && !wanted.kind.generated()) else { return };
        let place =
            if wanted.realm_known { wanted.spec.realm.clone() } else { format!("inside {}", node.provider).into() };
        let Some(other) = self.identities.insert((place, wanted.kind.name(), id.clone()), node) else { return };
        self.problems.push(Problem {
            urn: Some(node.urn.clone()),
            places: vec![other.place.clone(), node.place.clone()],
            message: format!(
                "{} {id} is declared as {} at {} and as {} at {}",
                wanted.kind.name(),
                other.urn.short(),
                other.place,
                node.urn.short(),
                node.place
            ),
            hint: Some("remove one of the two".into()),
        });
    }

    /// Reports every line that would take over what another one has: each would change it at every run. What is forgotten and
    /// stays is nobody's any more.
    fn imported_twice(&mut self) {
        let imports = |step: &&Step| matches!(step.action, Action::Import { .. });
        if !self.steps.iter().any(|step| imports(&step)) {
            return;
        }
        let stays = |step: &&Step| matches!(step.action, Action::Forget { stays: true, condemned: false });
        let let_go: BTreeSet<&Urn> = self.steps.iter().filter(stays).map(|step| &step.urn).collect();
        let there = self.state.records.iter().filter(|(urn, it)| it.status != Status::Gone && !let_go.contains(urn));
        let known: BTreeMap<(&str, &str, &Id), (&Urn, &Record)> = there
            .filter_map(|(urn, it)| Some(((it.spec.kind.as_str(), &*it.spec.realm, it.id.as_ref()?), (urn, &**it))))
            .collect();
        for step in self.steps.iter().filter(imports) {
            let (Action::Import { id }, Some(spec), Some(place)) = (&step.action, &step.spec, &step.place) else {
                continue;
            };
            let key = (spec.kind.as_str(), &*spec.realm, id);
            let Some((urn, record)) = known.get(&key).filter(|(urn, _)| step.realm_known && **urn != step.urn) else {
                continue;
            };
            self.problems.push(Problem {
                urn: Some(step.urn.clone()),
                places: vec![record.spec.place.clone(), place.clone()],
                message: format!("{} would import {id}, which is {} already", step.urn.short(), urn.short()),
                hint: Some(format!(
                    "remove one of the two; of the same thing by another name say `.was({:?})`, or `state forget {}` first",
                    urn.name(),
                    urn.short()
                )),
            });
        }
    }

    /// Returns what the provider of `node` points at; None when that cannot be told, which the graph has said.
    fn pointed(&mut self, node: &'a Node) -> Pointed {
        if let Some(pointed) = self.places.get(node.provider.as_str()) {
            return pointed.clone();
        }
        let provider = self.declared.providers.get(node.provider.as_str())?;
        let config = self.fates.fill(&(&provider.config).into()).value.value();
        let pointed = match provider.kind.realm(&config, &self.declared.vault) {
            Ok(Realm::Stated(text)) => Some((Some(text.into()), None)),
            Ok(Realm::Inside(urn)) => {
                let mark = self.fates.get(&urn).and_then(|fate| fate.mark);
                Some((mark.map(|mark| inside(mark).into()), Some(urn)))
            }
            Err(_) => None,
        };
        self.places.insert(&node.provider, pointed.clone());
        pointed
    }

    fn wanted(&mut self, n: usize, kind: &'a Arc<dyn ErasedType>) -> Option<Wanted<'a>> {
        let declared = self.declared;
        let (node, vault) = (&declared.nodes[n], &declared.vault);
        let filled = self.fates.fill(&node.inputs);
        for failed in filled.failed {
            self.problem(node, failed, None);
        }
        let inputs = filled.value;
        let (realm, container) = self.pointed(node)?;
        let record = self.pairs.recorded[n];
        let (inputs, unknown) = self.compared(node, kind, record, inputs, filled.unknown);
        let mut ask = |what: &str, error: String| {
            let message = format!("{what} of {} cannot be told: {}", node.urn.short(), vault.scrub(&error));
            self.problems.push(Problem {
                urn: Some(node.urn.clone()),
                places: vec![node.place.clone()],
                message,
                hint: None,
            });
        };
        let Nature { id, claims, outside } = kind.nature(&inputs, vault);
        let (mut claims, mut claims_deferred) = claims.unwrap_or_else(|error| {
            ask("what is occupied by the inputs", error);
            (Vec::new(), false)
        });
        match realm.as_deref() {
            Some(realm) => claims.iter_mut().for_each(|claim| claim.put_in(realm)),
            // What is one of a realm that is not known yet is compared when it is.
            None => {
                let before = claims.len();
                claims.retain(|claim| claim.realm.is_none());
                claims_deferred |= claims.len() < before;
            }
        }
        let id = id.unwrap_or_else(|error| {
            ask("the identity", error);
            None
        });
        let outside = outside.unwrap_or_else(|error| {
            ask("the nature", error);
            false
        });
        let known = unknown.is_empty() && realm.is_some();
        let spec = Spec {
            kind: kind.name().into(),
            version: kind.version(),
            provider: node.provider.clone(),
            digest: if known {
                spec_digest(realm.as_deref().unwrap_or_default(), kind.name(), kind.version(), &inputs)
            } else {
                Digest::NONE
            },
            realm: realm.clone().unwrap_or_default(),
            container,
            inputs,
            edges: self.graph.edges[n].clone(),
            claims,
            trigger: node.options.trigger.clone(),
            // Leaving the word out is no way to lift it: only `.protect(false)` is.
            protect: node.options.protect.unwrap_or_else(|| record.is_some_and(|record| record.spec.protect)),
            retain: node.options.retain,
            once: kind.once(),
            outside,
            timeout: node.options.timeout.map(|timeout| timeout.as_secs()),
            rolling: node.options.rolling.clone(),
            member: node.options.act.as_ref().map(|act| act.member.clone()),
            place: node.place.clone(),
        };
        Some(Wanted {
            n,
            node,
            kind,
            spec,
            realm_known: realm.is_some(),
            unknown,
            claims_deferred,
            id,
            live: None,
            drifted: false,
        })
    }

    /// Returns of what is declared what is compared, and which of it is not known.
    fn compared(
        &self,
        node: &Node,
        kind: &Arc<dyn ErasedType>,
        record: Option<&Record>,
        inputs: Tree,
        unknown: Vec<Unknown>,
    ) -> (Tree, Vec<Unknown>) {
        if node.options.ignore.is_empty() && kind.initial().is_empty() {
            return (inputs, unknown);
        }
        let mut inputs = inputs.value();
        let prior = record.map(|record| record.spec.inputs.value());
        for path in &node.options.ignore {
            match prior.as_ref().and_then(|prior| value_at(prior, path)) {
                Some(prior) => {
                    put_value(&mut inputs, path, prior.clone());
                }
                None if record.is_some() => {
                    remove_value(&mut inputs, path);
                }
                None => {}
            }
        }
        kind.initial().iter().for_each(|path| {
            remove_value(&mut inputs, &Path::from(*path));
        });
        // What is only sent once is no reason for anything to be unknown.
        let unknown = unknown.into_iter().filter(|unknown| value_at(&inputs, &unknown.path).is_some()).collect();
        (inputs.into(), unknown)
    }

    fn read(&mut self, n: usize) {
        let node = &self.declared.nodes[n];
        let question = self.fates.fill(&node.inputs);
        // An answer to another question is none.
        let asked = self.state.asked.get(&node.urn).is_none_or(|asked| *asked == digest(&question.value.value()));
        let recorded = || self.state.answers.get(&node.urn).filter(|_| asked);
        let answer = self.seen.answers.get(&node.urn).or_else(recorded);
        match answer.filter(|_| question.unknown.is_empty()) {
            Some(answer) => {
                self.same += 1;
                self.fates.insert(n, Fate { outputs: Some(answer.into()), fresh: Vec::new(), mark: None });
                if !asked || self.state.answers.get(&node.urn) != Some(answer) {
                    // Recorded by a step, so that what was read is what others were computed from.
                    let why = if asked { "its answer differs from the last time" } else { "it asks something else" };
                    self.push_read(n, Some(why));
                }
            }
            None => self.push_read(n, None),
        }
    }

    fn push_read(&mut self, n: usize, answered: Option<&str>) {
        let node = &self.declared.nodes[n];
        self.edges.insert(node.urn.clone(), self.graph.edges[n].clone());
        let mut step = Step::blank(&node.urn, Action::Read);
        step.place = Some(node.place.clone());
        step.timeout = node.options.timeout.unwrap_or(TIMEOUT).as_secs();
        if let Some(why) = answered {
            step.reasons.push(why.into());
            self.same -= 1;
        }
        self.steps.push(step);
    }

    pub(super) fn create(&mut self, wanted: Wanted<'_>, mut reasons: Vec<String>) {
        let node = wanted.node;
        let action = match &node.options.import {
            Some(id) => Action::Import { id: id.clone() },
            None => Action::Create,
        };
        let impact = if node.options.import.is_some() {
            Impact::default()
        } else {
            self.impact(node, wanted.kind.creation(&wanted.spec.inputs, &self.declared.vault))
        };
        let diff = diff(&Tree::default(), &wanted.spec.inputs);
        reasons.extend(words(&impact));
        self.fates.insert(wanted.n, Fate::default());
        self.push(wanted, action, None, reasons, diff, impact, Permits::default());
    }

    pub(super) fn impact(&mut self, node: &Node, asked: Result<Impact, String>) -> Impact {
        asked.unwrap_or_else(|error| {
            let message =
                format!("what {} means cannot be told: {}", node.urn.short(), self.declared.vault.scrub(&error));
            self.problem(node, message, None);
            Impact::default()
        })
    }

    #[expect(clippy::too_many_arguments, reason = "a step has many sides, and this is where they come together")]
    pub(super) fn push(
        &mut self,
        wanted: Wanted<'_>,
        action: Action,
        mark: Option<Mark>,
        reasons: Vec<String>,
        diff: Vec<super::diff::Delta>,
        impact: Impact,
        permits: Permits,
    ) {
        let Wanted { node, spec, realm_known, unknown, claims_deferred, live, .. } = wanted;
        let live = live.filter(|_| matches!(action, Action::Update | Action::Renew));
        self.steps.push(Step {
            spec: Some(spec),
            realm_known,
            mark,
            reasons,
            diff,
            unknown,
            permits,
            live,
            fresh: impact.unknown,
            interrupts: impact.interrupts,
            destroys: impact.destroys,
            claims_deferred,
            timeout: node.options.timeout.unwrap_or(TIMEOUT).as_secs(),
            place: Some(node.place.clone()),
            ..Step::blank(&node.urn, action)
        });
    }

    pub(super) fn edge_to(&mut self, urn: &Urn, to: Edge) {
        self.edges.entry(urn.clone()).or_default().push(to);
    }
}

impl Step {
    pub(super) fn blank(urn: &Urn, action: Action) -> Step {
        Step {
            urn: urn.clone(),
            action,
            reasons: Vec::new(),
            diff: Vec::new(),
            spec: None,
            realm_known: true,
            mark: None,
            unknown: Vec::new(),
            permits: Permits::default(),
            live: None,
            fresh: Vec::new(),
            interrupts: None,
            destroys: None,
            claims_deferred: false,
            foreign: Vec::new(),
            after: Vec::new(),
            timeout: TIMEOUT.as_secs(),
            begin_by: None,
            place: None,
        }
    }
}

/// Returns the SHA-256 that tells whether something is still what was applied.
pub(super) fn spec_digest(realm: &str, kind: &str, version: u32, inputs: &Tree) -> Digest {
    // The canonical JSON of these four, without a copy of the inputs.
    let mut text = br#"{"inputs":"#.to_vec();
    text.extend_from_slice(inputs.text().as_bytes());
    let mut then = |key: &str, value: &dyn Fn(&mut Vec<u8>) -> serde_json::Result<()>| {
        text.extend_from_slice(key.as_bytes());
        value(&mut text).expect("a scalar can be written into memory");
    };
    then(",\"realm\":", &|text| serde_json::to_writer(text, realm));
    then(",\"type\":", &|text| serde_json::to_writer(text, kind));
    then(",\"version\":", &|text| serde_json::to_writer(text, &version));
    text.push(b'}');
    Digest::of(&text)
}

/// Returns the digest of a spec as it stands.
pub(crate) fn digest_of(spec: &Spec) -> Digest {
    spec_digest(&spec.realm, &spec.kind, spec.version, &spec.inputs)
}

pub(super) fn words(impact: &Impact) -> impl Iterator<Item = String> {
    impact
        .reasons
        .iter()
        .map(|(path, why)| if path.as_str().is_empty() { why.clone() } else { format!("{path}: {why}") })
}
