//! Looks at the world before a plan is made. Changes nothing, outside or in the state.

use super::connect::Connections;
use super::journal::{storable, storable_tree};
use super::ledger::Ledger;
use crate::model::{
    Class, Declared, Deed, ErasedOp, Event, Found, Link, MadeRecord, NodeKind, Open, Record, State, Status, Step, Urn,
    Warnings, Why, seal_live,
};
use crate::plan::{Expected, Observations, Seen, Verdict, drift, judge, known_tree, realm};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::task::{JoinError, JoinSet};

/// How long one look may take: what does not answer is unknown, and the plan says so.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// How many looks are taken at the same time.
pub(super) const PARALLEL: usize = 16;

/// Asks the declared reads, looks at the members of rolling groups that a destroy left behind, at what was recorded as somebody
/// else left it, and, when `refresh` is wanted, at everything that is recorded.
pub async fn observe(declared: Arc<Declared>, ledger: &Ledger, link: &Link, refresh: bool) -> Observations {
    let connections = Arc::new(Connections::new(declared.clone(), ledger.clone(), link.clone()));
    let mut observations = Observations::default();
    for node in &declared.nodes {
        let NodeKind::Read(query) = &node.kind else { continue };
        let values = ledger.values();
        let (Ok(inputs), Ok(place)) =
            (known_tree(&node.inputs, &declared, &values), realm(&node.provider, &declared, &values))
        else {
            continue;
        };
        // Beside this task, so that a provider that panics is not heard, and nothing else.
        let mut asked = JoinSet::new();
        let (connections, query, provider) = (connections.clone(), query.clone(), node.provider.clone());
        let vault = declared.vault.clone();
        asked.spawn(async move {
            let connected = connections.to(&provider, &place).await.ok()?;
            match query.read(&connected.client, &inputs.value(), &vault).await.ok()? {
                Step::Done(made) if storable(&made.outputs).is_ok() => Some(made.outputs),
                Step::Done(_) | Step::Next { .. } => None,
            }
        });
        let answer = tokio::select! {
            biased;
            answer = asked.join_next() => answer.and_then(Result::ok).flatten(),
            () = link.clock.sleep(link.clock.patience(PATIENCE)) => None,
        };
        if let Some(answer) = answer {
            observations.answers.insert(node.urn.clone(), answer);
        }
    }
    let records: Vec<(Urn, Box<Record>)> = ledger.with(|store| {
        let leaving = leaving(store.state(), &declared);
        // What is being worked on is settled by the run, not by a look; which turns members take depends on who stands. What
        // was done around a member is there as long as it is recorded.
        let settled = |record: &Record| {
            let whole = record.open.is_none() && !matches!(record.status, Status::Begun | Status::Gone);
            whole && record.spec.member.is_none()
        };
        let records = store.state().records.iter();
        // What an earlier look has shown to be as somebody else left it may not be so any more.
        let asked = |record: &Record| (refresh || record.drifted) && settled(record);
        let looked_at = records.filter(|(urn, record)| asked(record) || leaving.contains(urn));
        looked_at.map(|(urn, record)| (urn.clone(), record.clone())).collect()
    });
    let mut looks = JoinSet::new();
    for (urn, record) in records {
        while looks.len() >= PARALLEL {
            collect(looks.join_next().await, &mut observations);
        }
        let (connections, declared, link) = (connections.clone(), declared.clone(), link.clone());
        looks.spawn(async move {
            let clock = link.clock.clone();
            let (looked, leaving) = (urn.clone(), record.open.is_some());
            let mut looking = JoinSet::new();
            looking.spawn(async move { look(&looked, &record, &connections, &declared, &link).await });
            let seen = tokio::select! {
                biased;
                seen = looking.join_next() => seen.unwrap_or(Ok(None)).unwrap_or_else(|error| {
                    // What it said may be anything: a panic is not scrubbed of secrets where it happens.
                    error.is_panic().then(|| Seen::Unknown("the provider panicked".into()))
                }),
                () = clock.sleep(clock.patience(PATIENCE)) => Some(Seen::Unknown("there was no answer".into())),
            };
            seen.map(|seen| Look { urn, leaving, seen })
        });
    }
    while !looks.is_empty() {
        collect(looks.join_next().await, &mut observations);
    }
    observations
}

/// Returns the members of rolling groups that were up when their deletion was begun, where with those more may be away than
/// should: a destroy keeps to no turns. Whether they still are, nothing here tells.
fn leaving<'a>(state: &'a State, declared: &'a Declared) -> BTreeSet<&'a Urn> {
    let begun = |record: &Record| record.open.as_ref().is_some_and(|open| open.begun.deed == Deed::Delete);
    let mut groups: BTreeMap<&str, Vec<(&Urn, &Record)>> = BTreeMap::new();
    for (urn, record) in state.records.iter().filter(|(_, record)| begun(record)) {
        let said = declared.node(urn).and_then(|node| node.options.rolling.as_deref());
        if let Some(group) = said.or(record.spec.rolling.as_deref()) {
            groups.entry(group).or_default().push((urn, record));
        }
    }
    // Who is away for another reason counts as well: it is being changed, or is between the halves of a replacement.
    let around = if groups.is_empty() { BTreeSet::new() } else { state.under_way() };
    let up = |urn: &Urn, record: &Record| begun(record) || (record.is_whole() && !around.contains(urn));
    let away = |group: &str| {
        let of_it = declared.nodes.iter().filter(|node| node.options.rolling.as_deref() == Some(group));
        let missed = of_it.filter(|node| !state.record(&node.urn).is_some_and(|record| up(&node.urn, record)));
        let undeclared = state.records.iter().filter(|(urn, record)| {
            declared.node(urn).is_none() && record.spec.rolling.as_deref() == Some(group) && !up(urn, record)
        });
        missed.count() + undeclared.count()
    };
    groups.retain(|group, members| {
        declared.groups.get(*group).is_some_and(|declared| members.len() + away(group) > declared.at_most)
    });
    let unanswered = |open: &Open| open.before.is_none() && open.cursor.is_none();
    let was_up = |record: &Record| record.status == Status::Ready && record.open.as_deref().is_some_and(unanswered);
    groups.into_values().flatten().filter(|(_, record)| was_up(record)).map(|(urn, _)| urn).collect()
}

/// What a look at something showed.
struct Look {
    urn: Urn,
    /// Its deletion was begun.
    leaving: bool,
    seen: Seen,
}

fn collect(look: Option<Result<Option<Look>, JoinError>>, observations: &mut Observations) {
    let Some(Ok(Some(Look { urn, leaving, seen }))) = look else { return };
    match (leaving, seen) {
        (false, seen) => drop(observations.seen.insert(urn, seen)),
        (true, Seen::There(_)) => drop(observations.standing.insert(urn)),
        // Gone, or on its way out, or nobody can say: it is down, as far as is known.
        (true, Seen::Gone | Seen::Foreign(_) | Seen::Unknown(_)) => {}
    }
}

async fn look(urn: &Urn, record: &Record, connections: &Connections, declared: &Declared, link: &Link) -> Option<Seen> {
    let vault = &declared.vault;
    let unknown = |why: &str| Some(Seen::Unknown(vault.scrub(why)));
    let Some(kind) = declared.vocabulary.kind(&record.spec.kind) else {
        return unknown("this program does not know its type");
    };
    if kind.generated() {
        return None;
    }
    let connected = match connections.to(&record.spec.provider, &record.spec.realm).await {
        Ok(connected) => connected,
        Err(error) => return unknown(&error.message),
    };
    let op = ErasedOp {
        mark: record.mark.0.clone(),
        id: record.id.clone(),
        inputs: Some(record.spec.inputs.clone()),
        exists: true,
        deleting: false,
        cursor: None,
        why: Why::Declared,
        now: link.clock.now(),
        seed: 0,
        // It is looked at only: nothing is done that a person would have to know more of.
        warnings: Warnings::default(),
    };
    let found = match kind.find(&connected.client, op, vault).await {
        Ok(found) => found,
        Err(error) if error.class == Class::Gone => return Some(Seen::Gone),
        Err(error) => return unknown(&error.message),
    };
    let expected = Expected {
        mark: Some(record.mark.clone()),
        by_id: record.id.is_some(),
        unmarked: record.unmarked,
        adopt: false,
    };
    if let Found::Present(_, Step::Done(made) | Step::Next { made: Some(made), .. }) = &found
        && let Err(why) = storable_tree(&made.outputs).and_then(|()| made.live.as_ref().map_or(Ok(()), storable))
    {
        return unknown(&format!("{} answered with what cannot be stored: {why}", kind.name()));
    }
    Some(match judge(found, &expected) {
        Verdict::Absent => Seen::Gone,
        Verdict::Leaving(why) => Seen::Unknown(format!("{} is on its way out: {why}", urn.short())),
        Verdict::Foreign(why) => Seen::Foreign(why),
        Verdict::Ours(Step::Done(made), _) => Seen::There(MadeRecord {
            id: made.id,
            outputs: made.outputs,
            live: made.live.map(|live| seal_live(&record.spec.inputs.value(), &live, vault).into()),
            due: made.due.map(|due| due.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()),
        }),
        // What it yields is only told by what is ready.
        Verdict::Ours(Step::Next { made: Some(made), .. }, _) => Seen::There(MadeRecord {
            id: made.id,
            outputs: record.outputs.clone(),
            live: made.live.map(|live| seal_live(&record.spec.inputs.value(), &live, vault).into()),
            due: made.due.map(|due| due.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()),
        }),
        Verdict::Ours(Step::Next { why, .. }, _) => Seen::Unknown(why),
    })
}

/// Returns the events that make the state say what was seen. Written by `refresh`, never by a preview.
pub fn settle(observations: &Observations, ledger: &Ledger) -> Vec<Event> {
    ledger.with(|store| {
        let (state, vault) = (store.state(), store.vault());
        let mut events = Vec::new();
        for (urn, seen) in &observations.seen {
            let Some(record) = state.records.get(urn) else { continue };
            let busy = record.open.as_ref().is_some_and(|open| open.begun.deed != Deed::Update);
            match seen {
                Seen::Gone if !busy => events.push(Event::Vanished { urn: urn.clone() }),
                Seen::There(made) => {
                    let drifted = made.live.as_ref().is_some_and(|live| {
                        !drift(urn, None, &record.spec.inputs.value(), &live.value(), vault).is_empty()
                    });
                    let same = record.id.as_ref() == Some(&made.id)
                        && record.outputs == made.outputs
                        && record.live == made.live
                        && record.due == made.due
                        && record.drifted == drifted;
                    if !same {
                        events.push(Event::Observed { urn: urn.clone(), made: made.clone(), drifted });
                    }
                }
                Seen::Gone | Seen::Foreign(_) | Seen::Unknown(_) => {}
            }
        }
        for (urn, answer) in &observations.answers {
            if state.answers.get(urn) != Some(answer) {
                events.push(Event::Answered { urn: urn.clone(), answer: answer.clone(), asked: None });
            }
        }
        events
    })
}
