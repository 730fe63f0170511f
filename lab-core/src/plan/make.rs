//! From a declaration, a state and observations to a plan.

use super::claims::{self, ForeignClaim, Held};
use super::diff::diff;
use super::drift::drift;
use super::fate::{Fate, Fates};
use super::graph::Graph;
use super::pairs::Pairs;
use super::plan::{Action, Observations, Permits, Plan, Problem, Seen, Step, Unknown, Verb};
use super::resolve::inside;
use super::{hold, moves, order, roll, select};
use crate::model::{
    Change, Declared, Deed, Digest, Edge, ErasedType, Event, Id, Impact, Index, Mark, Nature, Node, NodeKind, Order,
    Path, Realm, Record, Spec, State, Status, Tree, Urn, Why, Word, put_value, remove_value, value_at,
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
        problems: Vec::new(),
        warnings: Vec::new(),
        held: Vec::new(),
        edges: BTreeMap::new(),
        same: 0,
        going: BTreeSet::new(),
        identities: BTreeMap::new(),
        containers: containers(state),
        places: BTreeMap::new(),
    };
    for (place, message) in &declared.problems {
        planner.problems.push(Problem { urn: None, places: vec![place.clone()], message: message.clone(), hint: None });
    }
    planner.problems.extend(graph.problems.iter().cloned());
    for n in &graph.order {
        if declared.nodes[*n].options.act.is_none() {
            planner.node(*n);
        }
    }
    roll::acts(&mut planner);
    // Of a declaration that lacks something, which is a problem already, nobody can say what has left it.
    if !declared.lacking {
        planner.leftovers(request.verb);
    }
    planner.held.sort_by(|a, b| a.urn.cmp(&b.urn));
    let clashes = claims::clashes(&planner.held, &request.foreign);
    planner.problems.extend(clashes);
    let shortages = claims::shortages(&planner.held, &request.foreign);
    planner.problems.extend(shortages);

    let outputs = match request.verb {
        Verb::Up => planner.fates.fill(&(&declared.outputs).into()).value.value(),
        Verb::Destroy => Value::Null,
    };
    let Planner { steps, notes, mut problems, warnings, edges, same, .. } = planner;
    let steps = order::order(steps, &edges, state, &mut problems);
    let mut steps = steps;
    for step in steps.iter_mut().filter(|step| step.claims_deferred) {
        step.foreign.clone_from(&request.foreign);
    }
    let (steps, mut held) = match request.verb {
        Verb::Up => hold::hold(steps, declared, state, request.now),
        Verb::Destroy => (steps, Vec::new()),
    };
    if !request.targets.is_empty() {
        held.retain(|held| request.targets.iter().any(|target| select::names(&held.step.urn, target)));
    }
    let steps = roll::roll(steps, declared, state, &seen.standing, &held, &mut problems);
    let (steps, partial) = select::select(steps, &request.targets, declared, state, &mut problems);
    // A part notes nothing of the rest: what a note lifts, a protection among it, was not asked for.
    let mut notes = if partial { Vec::new() } else { notes };
    if !request.targets.is_empty() {
        notes.retain(|(urn, _)| request.targets.iter().any(|target| select::names(urn, target)));
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
        problems,
        warnings,
        outputs,
        partial,
    }
}

/// Returns what anything recorded lives inside.
fn containers(state: &State) -> BTreeSet<&Urn> {
    state.records.values().filter_map(|record| record.spec.container.as_ref()).collect()
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
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
    pub(super) held: Vec<Held>,
    /// What steps need beside what their specs say.
    pub(super) edges: BTreeMap<Urn, Vec<Edge>>,
    pub(super) same: usize,
    /// Records whose thing goes in this plan, with everything inside.
    pub(super) going: BTreeSet<Urn>,
    /// What each natural identity is declared as, by where it is and its type.
    identities: BTreeMap<(Word, &'static str, Id), &'a Node>,
    /// What anything recorded lives inside.
    containers: BTreeSet<&'a Urn>,
    /// What each provider points at. All that its configuration needs has been planned before anything on it is.
    places: BTreeMap<&'a str, Pointed>,
}

/// What a provider points at: the realm, where it is known, and what that is the inside of.
type Pointed = Option<(Option<Word>, Option<Urn>)>;

/// Everything about a node that is known before it is compared with what is recorded.
struct Wanted<'n> {
    /// Where it stands in what is declared.
    n: usize,
    node: &'n Node,
    kind: &'n Arc<dyn ErasedType>,
    spec: Spec,
    realm_known: bool,
    unknown: Vec<Unknown>,
    claims_deferred: bool,
    id: Option<Id>,
    /// What was seen of it, where what its change takes is judged again later.
    live: Option<Tree>,
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
        self.held.extend(wanted.spec.claims.iter().map(|claim| Held {
            urn: node.urn.clone(),
            place: node.place.clone(),
            claim: claim.clone(),
        }));
        self.identify(&wanted, node);
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

    /// Plans something to be made again beside what is recorded of the last time, which is forgotten. What bears the same
    /// identity is the same thing: there is no other, and it is finished where it is not.
    pub(super) fn anew(&mut self, n: usize, why: &str) {
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
                self.forget(&node.urn, record, true, why);
                self.create(wanted, Vec::new());
            }
        }
    }

    /// A natural identity is a claim: two lines that mean the same thing would take it from each other at every run.
    fn identify(&mut self, wanted: &Wanted<'_>, node: &'a Node) {
        let Some(id) = wanted.id.clone().filter(|_| !wanted.spec.once && !wanted.kind.generated()) else { return };
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
        Some(Wanted { n, node, kind, spec, realm_known: realm.is_some(), unknown, claims_deferred, id, live: None })
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
        let answer = self.seen.answers.get(&node.urn).or_else(|| self.state.answers.get(&node.urn));
        let known = self.fates.fill(&node.inputs).unknown.is_empty();
        match answer.filter(|_| known) {
            Some(answer) => {
                self.same += 1;
                self.fates.insert(n, Fate { outputs: Some(answer.into()), fresh: Vec::new(), mark: None });
                if self.state.answers.get(&node.urn) != Some(answer) {
                    // Recorded by a step, so that what was read is what others were computed from.
                    self.push_read(n, Some(answer.clone()));
                }
            }
            None => self.push_read(n, None),
        }
    }

    fn push_read(&mut self, n: usize, answer: Option<Value>) {
        let node = &self.declared.nodes[n];
        self.edges.insert(node.urn.clone(), self.graph.edges[n].clone());
        let mut step = Step::blank(&node.urn, Action::Read);
        step.place = Some(node.place.clone());
        step.timeout = node.options.timeout.unwrap_or(TIMEOUT).as_secs();
        if answer.is_some() {
            step.reasons.push("its answer differs from the last time".into());
            self.same -= 1;
        }
        self.steps.push(step);
    }

    fn create(&mut self, wanted: Wanted<'_>, mut reasons: Vec<String>) {
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

    fn impact(&mut self, node: &Node, asked: Result<Impact, String>) -> Impact {
        asked.unwrap_or_else(|error| {
            let message =
                format!("what {} means cannot be told: {}", node.urn.short(), self.declared.vault.scrub(&error));
            self.problem(node, message, None);
            Impact::default()
        })
    }

    #[expect(clippy::too_many_arguments, reason = "a step has many sides, and this is where they come together")]
    fn push(
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

    /// Compares what is declared with what is recorded and there.
    fn compare(&mut self, mut wanted: Wanted<'_>, record: &'a Record) {
        let vault = &self.declared.vault;
        let node = wanted.node;
        if !wanted.realm_known || record.spec.realm != wanted.spec.realm {
            return self.elsewhere(wanted, record);
        }
        let seen = self.seen.seen.get(&node.urn);
        let live = match seen {
            Some(Seen::There(made)) => made.live.as_ref().map(Tree::value),
            Some(Seen::Gone) => {
                // What it held went with it.
                self.going.insert(node.urn.clone());
                self.forget(&node.urn, record, false, "it is gone");
                return self.create(wanted, vec!["it was there and is gone".into()]);
            }
            Some(Seen::Foreign(why)) => {
                let message = format!("{} is not ours any more: {why}", node.urn.short());
                self.problem(node, message, Some("import it, or give it another name"));
                return self.keep(&wanted, record);
            }
            Some(Seen::Unknown(_)) | None => None,
        };
        if let (false, Some(Seen::There(made))) = (wanted.unknown.is_empty(), seen) {
            wanted.live.clone_from(&made.live);
        }
        let live = live.as_ref();
        // Compared in seconds: not every number of them is a time.
        let now = self.now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let due = record.due.is_some_and(|due| due <= now);
        let triggered = record.spec.trigger != wanted.spec.trigger;
        // Nothing is unknown where there is a digest, and realm, type, version and inputs are all in it.
        let as_applied = !wanted.spec.digest.is_none() && wanted.spec.digest == record.spec.digest;
        if as_applied && live.is_none() && !due && !triggered && record.status == Status::Ready {
            return self.keep(&wanted, record);
        }
        let prior = self.prior(record, wanted.kind);
        let Some(prior) = prior else {
            let reasons = vec![format!("what was recorded by version {} can no longer be read", record.spec.version)];
            let fresh = Impact { unknown: vec![Path::root()], ..Impact::default() };
            self.fates.insert(wanted.n, Fate { outputs: None, fresh: Vec::new(), mark: Some(&record.mark) });
            let permits = Permits::default();
            return self.push(wanted, Action::Update, Some(record.mark.clone()), reasons, Vec::new(), fresh, permits);
        };
        let drifted = live
            .map(|live| drift(&node.urn, Some(&wanted.spec.inputs.value()), &prior.value(), live, vault))
            .unwrap_or_default();
        let drifted: Vec<_> = drifted.into_iter().filter(|drift| !node.options.ignores(&drift.path)).collect();
        let differs = prior != wanted.spec.inputs;
        if wanted.spec.once || (!differs && drifted.is_empty() && !due && !triggered && record.status == Status::Ready)
        {
            return self.keep(&wanted, record);
        }
        let shown = diff(&prior, &wanted.spec.inputs);
        let mut reasons: Vec<String> = drifted
            .iter()
            .map(|drift| {
                format!(
                    "{} was changed by somebody else: {} is {}",
                    drift.path,
                    show(Some(&drift.applied)),
                    show(drift.live.as_ref())
                )
            })
            .collect();
        if record.status == Status::Made {
            reasons.push("it was made and is not ready".into());
        }
        if triggered {
            let what = "the value of `replace_when` changed".to_owned();
            reasons.push(what);
            return self.replace(wanted, record, Order::DeleteFirst, Impact::default(), reasons);
        }
        let moved = match (&record.id, &wanted.id) {
            (Some(old), Some(new)) => old != new,
            _ => false,
        };
        let change = if !differs && drifted.is_empty() {
            Change::Update(Impact { unknown: vec![Path::root()], ..Impact::default() })
        } else {
            match wanted.kind.change(&wanted.spec.inputs, &prior, live, vault) {
                Ok(change) => change,
                Err(error) => {
                    let message =
                        format!("what changing {} takes cannot be told: {}", node.urn.short(), vault.scrub(&error));
                    self.problem(node, message, None);
                    return self.keep(&wanted, record);
                }
            }
        };
        let change = match change {
            Change::None | Change::Update(_) if moved => {
                reasons.push(format!(
                    "its identity changes from {} to {}",
                    show_id(record.id.as_ref()),
                    show_id(wanted.id.as_ref())
                ));
                Change::Replace(Impact::default(), Order::DeleteFirst)
            }
            change => change,
        };
        let uncertain = !wanted.unknown.is_empty();
        // Whether there is nothing to do should the unknowns turn out to be what they were.
        let settled = drifted.is_empty() && !due && record.status == Status::Ready;
        match change {
            Change::Refuse(reasons) => {
                self.refused(node, &reasons);
                self.keep(&wanted, record);
            }
            Change::None if uncertain || due => {
                let permits = Permits { same: uncertain && settled, replace: false };
                self.update(wanted, record, reasons, shown, Impact::default(), permits, due);
            }
            Change::None => self.keep(&wanted, record),
            Change::Update(impact) => {
                let permits = Permits { same: uncertain && settled, replace: false };
                reasons.extend(words(&impact));
                self.update(wanted, record, reasons, shown, impact, permits, due && !differs && drifted.is_empty());
            }
            Change::Replace(impact, by_type) => {
                reasons.extend(words(&impact));
                if uncertain && !self.certainly_replaced(&wanted, &prior, live) {
                    self.maybe_replaced(wanted, record, reasons, shown, impact, settled);
                } else {
                    self.replace(wanted, record, by_type, impact, reasons);
                }
            }
        }
    }

    /// What is declared is nothing that the thing can become.
    fn refused(&mut self, node: &Node, reasons: &[(Path, String)]) {
        for (path, why) in reasons {
            let message = format!("{} {} cannot be changed at {path}: {why}", node.type_name(), node.urn.short());
            self.problem(node, message, Some("declare it as it was, or give the new one another name"));
        }
    }

    /// Returns true when it is a replacement even if every unknown turned out to be what it was.
    fn certainly_replaced(&self, wanted: &Wanted<'_>, prior: &Tree, live: Option<&Value>) -> bool {
        let (mut assumed, before) = (wanted.spec.inputs.value(), prior.value());
        for unknown in &wanted.unknown {
            let Some(before) = value_at(&before, &unknown.path) else { return false };
            put_value(&mut assumed, &unknown.path, before.clone());
        }
        let assumed = Tree::from(assumed);
        (assumed != *prior || live.is_some())
            && matches!(wanted.kind.change(&assumed, prior, live, &self.declared.vault), Ok(Change::Replace(..)))
    }

    fn prior(&self, record: &Record, kind: &Arc<dyn ErasedType>) -> Option<Tree> {
        let inputs = record.spec.inputs.clone();
        let inputs = if record.spec.version < kind.version() {
            kind.upgrade(record.spec.version, inputs.value())?.into()
        } else {
            inputs
        };
        kind.check(&inputs, &self.declared.vault).ok().map(|()| inputs)
    }

    #[expect(clippy::too_many_arguments, reason = "a step has many sides, and this is where they come together")]
    fn update(
        &mut self,
        wanted: Wanted<'_>,
        record: &'a Record,
        reasons: Vec<String>,
        diff: Vec<super::diff::Delta>,
        impact: Impact,
        permits: Permits,
        renew: bool,
    ) {
        let fate = Fate {
            outputs: (!record.outputs.is_null() || record.status == Status::Ready).then(|| record.outputs.clone()),
            fresh: impact.unknown.clone(),
            mark: Some(&record.mark),
        };
        self.fates.insert(wanted.n, fate);
        let action = if renew { Action::Renew } else { Action::Update };
        let mut reasons = reasons;
        if renew {
            reasons.push("it is due".into());
        }
        self.push(wanted, action, Some(record.mark.clone()), reasons, diff, impact, permits);
    }

    /// A change that may turn out to be a replacement once its inputs are known.
    fn maybe_replaced(
        &mut self,
        wanted: Wanted<'_>,
        record: &'a Record,
        reasons: Vec<String>,
        diff: Vec<super::diff::Delta>,
        impact: Impact,
        same: bool,
    ) {
        let holds = self.containers.contains(&wanted.node.urn);
        let guarded = record.spec.protect || wanted.spec.protect || holds;
        let permits = Permits { same, replace: !guarded };
        // Replaced, everything it yields is new; kept, everything stays: nothing can be said.
        let mark = guarded.then_some(&record.mark);
        self.fates.insert(wanted.n, Fate { outputs: None, fresh: Vec::new(), mark });
        self.push(wanted, Action::Update, Some(record.mark.clone()), reasons, diff, impact, permits);
    }

    /// Nothing to be done outside. A declaration that says something else is noted.
    fn keep(&mut self, wanted: &Wanted<'_>, record: &'a Record) {
        let urn = &wanted.node.urn;
        // What happened once is recorded as it happened.
        if wanted.spec.once || !wanted.unknown.is_empty() {
            if !wanted.spec.says_around(&record.spec) {
                let (inputs, digest) = (record.spec.inputs.clone(), record.spec.digest);
                self.notes.push((urn.clone(), Spec { inputs, digest, ..wanted.spec.clone() }));
            }
        } else if !wanted.spec.says_what(&record.spec) {
            self.notes.push((urn.clone(), wanted.spec.clone()));
        }
        self.same += 1;
        let fate = Fate { outputs: Some(record.outputs.clone()), fresh: Vec::new(), mark: Some(&record.mark) };
        self.fates.insert(wanted.n, fate);
    }

    /// It is recorded in another realm than the one it is wanted in.
    fn elsewhere(&mut self, wanted: Wanted<'_>, record: &'a Record) {
        let urn = wanted.node.urn.clone();
        if !self.goes_along(record) {
            let reasons =
                vec![format!("it is wanted in another place: {} instead of {}", wanted.spec.realm, record.spec.realm)];
            return self.replace(wanted, record, Order::DeleteFirst, Impact::default(), reasons);
        }
        // What is gone with what contained it is no longer protected from anything.
        if !self.vanished(record) && self.guard(&urn, record, "what contains it goes") {
            self.fates.insert(wanted.n, Fate::default());
            return;
        }
        self.inside_going(&urn, record);
        self.create(wanted, vec!["what contains it is made anew".into()]);
    }

    /// Another thing in its place.
    fn replace(
        &mut self,
        wanted: Wanted<'_>,
        record: &'a Record,
        by_type: Order,
        impact: Impact,
        mut reasons: Vec<String>,
    ) {
        let urn = wanted.node.urn.clone();
        if self.guard(&urn, record, "it would be replaced") {
            return self.keep(&wanted, record);
        }
        let holds = self.containers.contains(&urn);
        let keeps_id = wanted.id.is_some() && wanted.id == record.id;
        let keeps_claim =
            wanted.spec.claims.iter().any(|claim| record.spec.claims.iter().any(|old| old.clashes(claim)));
        let elsewhere = record.spec.realm != wanted.spec.realm;
        let create_first =
            by_type == Order::CreateFirst && !keeps_id && !keeps_claim && !holds && !elsewhere && record.open.is_none();
        self.going.insert(urn.clone());
        let removal = self.removal(record);
        let mut delete = self.removing(&urn, record, Why::Replaced, create_first, false);
        delete.destroys = impact.destroys.clone().or(removal.destroys);
        delete.interrupts = impact.interrupts.clone();
        delete.reasons = reasons.clone();
        self.steps.push(delete);
        let vault = &self.declared.vault;
        let prior = record.spec.inputs.clone();
        let diff = diff(&prior, &wanted.spec.inputs);
        let creation = self.impact(wanted.node, wanted.kind.creation(&wanted.spec.inputs, vault));
        reasons.extend(words(&creation));
        self.fates.insert(wanted.n, Fate::default());
        let action = if create_first { Action::Supersede } else { Action::Create };
        self.push(wanted, action, None, reasons, diff, creation, Permits::default());
    }

    /// An operation that began and did not end.
    fn unfinished(&mut self, wanted: Wanted<'_>, record: &'a Record, making: bool) {
        let Some(open) = record.open.as_deref() else { return };
        let vault = &self.declared.vault;
        let begun = &open.begun.spec;
        let elsewhere = !wanted.realm_known || begun.realm != wanted.spec.realm;
        if elsewhere {
            return self.elsewhere(wanted, record);
        }
        if making && begun.trigger != wanted.spec.trigger && !wanted.spec.once {
            let reasons = vec!["the value of `replace_when` changed since it was begun".to_owned()];
            return self.replace(wanted, record, Order::DeleteFirst, Impact::default(), reasons);
        }
        let differs = begun.inputs != wanted.spec.inputs;
        if differs && wanted.unknown.is_empty() && !wanted.spec.once {
            match wanted.kind.change(&wanted.spec.inputs, &begun.inputs, None, vault) {
                Ok(Change::Replace(impact, _)) => {
                    let reasons = vec!["what was begun is not what is wanted now".to_owned()];
                    return self.replace(wanted, record, Order::DeleteFirst, impact, reasons);
                }
                Ok(Change::Refuse(reasons)) => self.refused(wanted.node, &reasons),
                Ok(Change::None | Change::Update(_)) => {}
                Err(error) => {
                    let message = format!(
                        "what changing {} takes cannot be told: {}",
                        wanted.node.urn.short(),
                        vault.scrub(&error)
                    );
                    self.problem(wanted.node, message, None);
                }
            }
        }
        let mut reasons =
            vec![format!("{} was begun and did not end", if making { "its creation" } else { "a change of it" })];
        let mut wanted = wanted;
        if wanted.spec.once {
            // What happens once goes on as it was begun: another input would be another happening.
            wanted.spec.inputs = begun.inputs.clone();
            wanted.spec.digest = begun.digest;
        }
        let asked = if making {
            wanted.kind.creation(&wanted.spec.inputs, vault)
        } else {
            match wanted.kind.change(&wanted.spec.inputs, &record.spec.inputs, None, vault) {
                Ok(Change::Update(impact) | Change::Replace(impact, _)) => Ok(impact),
                Ok(Change::None | Change::Refuse(_)) => Ok(Impact::default()),
                Err(error) => Err(error),
            }
        };
        let mut impact = self.impact(wanted.node, asked);
        // The consent that was given holds until that operation ends.
        if open.begun.consent.is_some() && open.begun.consent == impact.destroys {
            reasons
                .push(format!("destroying {} was agreed to when it began", impact.destroys.take().unwrap_or_default()));
        }
        reasons.extend(words(&impact));
        let shown = diff(&begun.inputs, &wanted.spec.inputs);
        let fate = if making {
            Fate { outputs: None, fresh: Vec::new(), mark: Some(&record.mark) }
        } else {
            Fate { outputs: Some(record.outputs.clone()), fresh: impact.unknown.clone(), mark: Some(&record.mark) }
        };
        self.fates.insert(wanted.n, fate);
        let action = Action::Continue { op: open.begun.op.clone(), making };
        let mark = Some(record.mark.clone());
        self.push(wanted, action, mark, reasons, shown, impact, Permits::default());
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

fn show(value: Option<&Value>) -> String {
    value.map_or_else(|| "absent".into(), |value| crate::model::redact(value).to_string())
}

fn show_id(id: Option<&Id>) -> String {
    id.map_or_else(|| "none".into(), |id| id.0.clone())
}
