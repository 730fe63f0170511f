//! What a step turns out to be, once the values it waited for are there.

use super::claims::Held;
use super::drift::drift;
use super::make::spec_digest;
use super::plan::{Action, Step};
use crate::model::{
    Change, Declared, ErasedType, Impact, Lookup, Mark, NodeKind, Order, Path, Realm, Record, Spec, Tree, Unresolved,
    Urn, fill, markers, panic_text, put_value, unknowns, value_at,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What is known by now.
pub trait Values: Lookup {
    /// Returns the operation that made what `urn` names, when it is ready.
    fn mark(&self, urn: &Urn) -> Option<Mark>;
    /// Returns what is occupied by others than `urn`.
    fn held(&self, urn: &Urn) -> Vec<Held>;
}

/// A step with everything known.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// What is recorded of it.
    pub spec: Spec,
    /// What the provider is given: the inputs with those that are only sent once.
    pub inputs: Tree,
    /// What it turned out to be.
    pub outcome: Outcome,
    /// Which outputs may change.
    pub fresh: Vec<Path>,
}

/// What a step turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What was planned.
    AsPlanned,
    /// Nothing has to be done after all.
    Same,
    /// It has to be replaced, as the plan said it might.
    Replace(Order),
}

/// Fills in what a step waited for and says what it turned out to be. An outcome that the plan did not show is an
/// error: nothing may be done that was not shown.
pub fn resolve(
    step: &Step,
    declared: &Declared,
    record: Option<&Record>,
    values: &dyn Values,
) -> Result<Resolved, String> {
    let vault = &declared.vault;
    let node = declared.node(&step.urn).ok_or("the program does not declare it, which the plan says it does")?;
    let NodeKind::Resource(kind) = &node.kind else { return Err("it is a read, not a resource".into()) };
    let mut spec = step.spec.clone().ok_or("the plan does not say what it becomes")?;
    spec.inputs = known_tree(&spec.inputs, declared, values)?;
    let mut inputs = spec.inputs.clone();
    if !kind.initial().is_empty() {
        let (declares, mut with) = (node.inputs.value(), inputs.value());
        for path in kind.initial() {
            let path = Path::from(*path);
            if let Some(value) = value_at(&declares, &path) {
                put_value(&mut with, &path, known(value, declared, values)?);
            }
        }
        inputs = with.into();
    }
    if !step.realm_known {
        spec.realm = realm(&spec.provider, declared, values)?.into();
    }
    spec.digest = spec_digest(&spec.realm, &spec.kind, spec.version, &spec.inputs);
    let settled = step.unknown.is_empty();
    if step.claims_deferred || !settled {
        let (mut claims, _) = kind.claims(&spec.inputs, vault)?;
        claims.iter_mut().for_each(|claim| claim.put_in(&spec.realm));
        // Most types occupy nothing, and then nobody has to be asked what others do.
        let held = if claims.is_empty() { Vec::new() } else { values.held(&step.urn) };
        for claim in &claims {
            if let Some(other) = held.iter().find(|held| held.claim.clashes(claim)) {
                return Err(format!("{claim} is taken by {} ({})", other.urn.short(), other.place));
            }
            if let Some(other) = step.foreign.iter().find(|held| held.claim.clashes(claim)) {
                let (name, stack) = (other.urn.short(), other.urn.stack());
                return Err(format!("{claim} is taken by {name} in stack {stack} ({})", other.place));
            }
        }
        spec.claims = claims;
    }
    let as_planned = |spec, inputs| Resolved { spec, inputs, outcome: Outcome::AsPlanned, fresh: step.fresh.clone() };
    if settled {
        return Ok(as_planned(spec, inputs));
    }
    let unshown = |what: String| Err(format!("{what}, which the plan did not show; plan again"));
    let consented = |impact: &Impact| impact.destroys.is_none() || impact.destroys == step.destroys;
    // What a replacement destroys with what goes and with what comes, and nobody was asked about.
    let agreed = record.and_then(|record| record.open.as_deref()).and_then(|open| open.begun.consent.clone());
    let unasked = |kind: &dyn ErasedType, record: Option<&Record>, inputs: &Tree, impact: Impact| {
        let goes = match (impact.destroys, record) {
            (None, Some(record)) => kind.removal(&record.spec.inputs, vault)?.destroys,
            (destroys, _) => destroys,
        };
        let comes = kind.creation(inputs, vault)?.destroys;
        let asked = |lost: &Option<String>| lost.is_none() || *lost == step.destroys || *lost == agreed;
        Ok::<_, String>([goes, comes].into_iter().find(|lost| !asked(lost)).flatten())
    };
    match step.action {
        Action::Continue { making, .. } => {
            // It goes on with today's inputs only when those are no replacement of what was begun.
            let open = record.and_then(|record| record.open.as_deref()).ok_or("what was begun is not in the state")?;
            let begun = &open.begun.spec.inputs;
            if *begun == spec.inputs || spec.once {
                return Ok(as_planned(spec, inputs));
            }
            match kind.change(&spec.inputs, begun, None, vault)? {
                Change::None | Change::Update(_) => {}
                Change::Replace(..) if !step.permits.replace => {
                    return unshown("it would have to be replaced".into());
                }
                // Nothing is made beside what was begun.
                Change::Replace(impact, _) => {
                    if let Some(lost) = unasked(kind.as_ref(), record, &spec.inputs, impact)? {
                        return unshown(format!("it would destroy {lost}"));
                    }
                    let outcome = Outcome::Replace(Order::DeleteFirst);
                    return Ok(Resolved { outcome, ..as_planned(spec, inputs) });
                }
                Change::Refuse(reasons) => return Err(refused(&reasons)),
            }
            // What it takes to become that, from what it was before anything was begun.
            let impact = if making {
                kind.creation(&spec.inputs, vault)?
            } else {
                let prior = record.map(|record| &record.spec.inputs).ok_or("it is not in the state")?;
                match kind.change(&spec.inputs, prior, None, vault)? {
                    Change::Update(impact) | Change::Replace(impact, _) => impact,
                    Change::None | Change::Refuse(_) => Impact::default(),
                }
            };
            let agreed = open.begun.consent.is_some() && open.begun.consent == impact.destroys;
            match (impact.destroys.as_ref().filter(|_| !agreed && !consented(&impact)), impact.interrupts) {
                (Some(destroys), _) => unshown(format!("it would destroy {destroys}")),
                (None, Some(what)) if !making && step.interrupts.is_none() => {
                    unshown(format!("it would interrupt: {what}"))
                }
                (None, _) => Ok(as_planned(spec, inputs)),
            }
        }
        Action::Create | Action::Supersede | Action::Import { .. } => {
            let impact = kind.creation(&spec.inputs, vault)?;
            if matches!(step.action, Action::Create | Action::Supersede) && !consented(&impact) {
                return unshown(format!("it would destroy {}", impact.destroys.unwrap_or_default()));
            }
            Ok(as_planned(spec, inputs))
        }
        Action::Update | Action::Renew => {
            let prior = record.ok_or("it is not in the state")?;
            let triggered = prior.spec.trigger != spec.trigger;
            let live = step.live.as_ref().map(Tree::value);
            // Somebody else changed it: it is brought back, though the values turned out to be what they were.
            let drifted = live.as_ref().is_some_and(|live| {
                let prior = prior.spec.inputs.value();
                drift(&step.urn, None, &prior, live, vault).iter().any(|drift| !node.options.ignores(&drift.path))
            });
            let differs = prior.spec.inputs != spec.inputs || drifted;
            if !differs && !step.permits.same {
                return Ok(as_planned(spec, inputs));
            }
            if !differs && !triggered && matches!(step.action, Action::Update) {
                return Ok(Resolved { outcome: Outcome::Same, ..as_planned(spec, inputs) });
            }
            let change = kind.change(&spec.inputs, &prior.spec.inputs, live.as_ref(), vault)?;
            match change {
                Change::None if step.permits.same => {
                    Ok(Resolved { outcome: Outcome::Same, ..as_planned(spec, inputs) })
                }
                Change::None => Ok(as_planned(spec, inputs)),
                Change::Refuse(reasons) => Err(refused(&reasons)),
                Change::Update(impact) if !consented(&impact) => {
                    unshown(format!("it would destroy {}", impact.destroys.unwrap_or_default()))
                }
                Change::Update(impact) if impact.interrupts.is_some() && step.interrupts.is_none() => {
                    unshown(format!("it would interrupt: {}", impact.interrupts.unwrap_or_default()))
                }
                Change::Update(impact) => {
                    let fresh = step.fresh.iter().cloned().chain(impact.unknown).collect();
                    Ok(Resolved { fresh, ..as_planned(spec, inputs) })
                }
                Change::Replace(..) if !step.permits.replace => unshown("it would have to be replaced".into()),
                Change::Replace(impact, order) => {
                    if let Some(lost) = unasked(kind.as_ref(), Some(prior), &spec.inputs, impact)? {
                        return unshown(format!("it would destroy {lost}"));
                    }
                    Ok(Resolved { outcome: Outcome::Replace(order), ..as_planned(spec, inputs) })
                }
            }
        }
        Action::Delete { .. } | Action::Forget { .. } | Action::LeaveBehind | Action::Read | Action::Gate { .. } => {
            Err("it is not a step that has inputs".into())
        }
    }
}

fn refused(reasons: &[(Path, String)]) -> String {
    let reasons: Vec<String> = reasons.iter().map(|(path, why)| format!("{path}: {why}")).collect();
    format!("it cannot be changed: {}", reasons.join("; "))
}

/// Returns the realm of a provider as it is now.
pub(crate) fn realm(provider: &str, declared: &Declared, values: &dyn Values) -> Result<String, String> {
    let provider = declared.providers.get(provider).ok_or_else(|| format!("provider {provider} is not declared"))?;
    match provider.kind.realm(&provider.config, &declared.vault)? {
        Realm::Stated(text) => Ok(text),
        Realm::Inside(urn) => match values.mark(&urn) {
            Some(mark) => Ok(inside(&mark)),
            None => Err(format!("what it lives inside, {}, is not there", urn.short())),
        },
    }
}

/// Returns the realm of what lives inside the thing that an operation made: another thing of the same name is another
/// realm.
pub(super) fn inside(made: &Mark) -> String {
    format!("inside {made}")
}

/// Returns `value` with everything computed.
pub(crate) fn known(value: &Value, declared: &Declared, values: &dyn Values) -> Result<Value, String> {
    known_tree(&value.into(), declared, values).map(|tree| tree.value())
}

/// Returns `tree` with everything computed.
pub(crate) fn known_tree(tree: &Tree, declared: &Declared, values: &dyn Values) -> Result<Tree, String> {
    let mut computed = BTreeMap::new();
    for n in unknowns(tree) {
        let expression = declared.expressions.get(n).ok_or("an output was carried out of its program")?;
        let attempt = catch_unwind(AssertUnwindSafe(|| expression.evaluate(&declared.vault, values)));
        let why = match attempt {
            Ok(Ok(value)) => {
                computed.insert(n, value);
                continue;
            }
            Ok(Err(Unresolved::Unknown(urn))) => format!("needs an output of {}, which is not known", urn.short()),
            Ok(Err(Unresolved::Failed(why))) => format!("cannot be computed: {why}"),
            Err(panic) => {
                let path = place(tree, n);
                return Err(format!("the closure that computes {path} panicked: {}", panic_text(&*panic)));
            }
        };
        return Err(format!("{} {why}", place(tree, n)));
    }
    Ok(fill(tree, &mut |n| computed.get(&n).cloned()))
}

/// Returns where the unknown `n` stands in `tree`.
fn place(tree: &Tree, n: usize) -> Path {
    let places = markers(&tree.value());
    places.into_iter().find(|(_, other)| *other == n).map(|(path, _)| path).unwrap_or_default()
}
