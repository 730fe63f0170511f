//! Asks the outside what it would make of a plan. Changes nothing, outside or in the state.

use super::connect::Connections;
use super::ledger::Ledger;
use super::observe::{PARALLEL, PATIENCE};
use crate::model::{Class, Declared, ErasedOp, ErasedType, Link, NodeKind, Record, Urn, Warnings, Why};
use crate::plan::{Action, Plan, Probed, Resolved, Step, resolve};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Asks about every step that makes or changes something of a type that [probes](crate::Resource::PROBES), where
/// everything it takes is known already. What is not reachable yet, or not at all, says nothing.
pub async fn probe(plan: &Plan, declared: Arc<Declared>, ledger: &Ledger, link: &Link) -> BTreeMap<Urn, Probed> {
    let connections = Arc::new(Connections::new(declared.clone(), ledger.clone(), link.clone()));
    let mut probed = BTreeMap::new();
    let mut asked: JoinSet<Option<(Urn, Probed)>> = JoinSet::new();
    for step in &plan.steps {
        let Some((kind, resolved, record)) = probable(step, &declared, ledger) else { continue };
        while asked.len() >= PARALLEL {
            probed.extend(asked.join_next().await.and_then(Result::ok).flatten());
        }
        let (urn, connections, declared, link) =
            (step.urn.clone(), connections.clone(), declared.clone(), link.clone());
        asked.spawn(async move {
            let clock = link.clock.clone();
            let answer = tokio::select! {
                biased;
                answer = ask(kind, resolved, record, &connections, &declared, &link) => answer,
                () = clock.sleep(clock.patience(PATIENCE)) => None,
            };
            answer.map(|answer| (urn, answer))
        });
    }
    while let Some(answer) = asked.join_next().await {
        // A provider that panics has nothing to say; it will be heard when the step is carried out.
        probed.extend(answer.ok().flatten());
    }
    probed
}

/// Returns what there is to ask about a step, if anything.
fn probable(
    step: &Step,
    declared: &Declared,
    ledger: &Ledger,
) -> Option<(Arc<dyn ErasedType>, Resolved, Option<Record>)> {
    if !matches!(step.action, Action::Create | Action::Update) || !step.realm_known || !step.unknown.is_empty() {
        return None;
    }
    let NodeKind::Resource(kind) = &declared.node(&step.urn)?.kind else { return None };
    if !kind.probes() {
        return None;
    }
    let record = ledger.with(|store| store.state().record(&step.urn).cloned());
    let resolved = resolve(step, declared, record.as_ref(), &ledger.values()).ok()?;
    // What is made has no record; one of its name is of what goes before.
    let record = record.filter(|_| matches!(step.action, Action::Update));
    Some((kind.clone(), resolved, record))
}

async fn ask(
    kind: Arc<dyn ErasedType>,
    resolved: Resolved,
    record: Option<Record>,
    connections: &Connections,
    declared: &Declared,
    link: &Link,
) -> Option<Probed> {
    let vault = &declared.vault;
    let connected = connections.to(&resolved.spec.provider, &resolved.spec.realm).await.ok()?;
    let warnings = Warnings::default();
    let op = ErasedOp {
        mark: record.as_ref().map_or_else(String::new, |record| record.mark.0.clone()),
        id: record.as_ref().and_then(|record| record.id.clone()),
        exists: record.is_some(),
        inputs: record.map(|record| record.spec.inputs),
        deleting: false,
        cursor: None,
        why: Why::Declared,
        now: link.clock.now(),
        seed: 0,
        warnings: warnings.clone(),
    };
    match kind.probe(&connected.client, &resolved.inputs, op, vault).await {
        Ok(mut said) => {
            said.extend(warnings.take());
            let said: Vec<String> = said.iter().map(|said| vault.scrub(said)).collect();
            (!said.is_empty()).then_some(Probed::Says(said))
        }
        // It may be otherwise when the step is carried out.
        Err(error) if matches!(error.class, Class::Unreachable | Class::Again | Class::Gone) => None,
        Err(error) => Some(Probed::Refuses(vault.scrub(&error.message))),
    }
}
