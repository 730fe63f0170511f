//! `state`: looks at what is recorded, seals it for another key, and forgets.

use crate::arguments;
use crate::asked;
use crate::invocation::Invocation;
use crate::opened::{self, directory};
use crate::trouble::Trouble;
use lab_core::execute::journal::Journal;
use lab_core::execute::seal::KeyFile;
use lab_core::execute::{KeySource, Rotated, Store, StoreError};
use lab_core::plan::Tone;
use lab_core::{Condemned, Event, Mark, Record, State, Status, Urn, redact};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::SystemTime;

pub(crate) async fn state(invocation: &Invocation<'_>, arguments: &arguments::State) -> Result<u8, Trouble> {
    match arguments {
        arguments::State::List => list(invocation),
        arguments::State::Show { target } => show(invocation, target),
        arguments::State::Verify => verify(invocation),
        arguments::State::Rotate { to } => rotate(invocation, to.as_deref()),
        arguments::State::Forget { target, yes } => forget(invocation, target, *yes),
    }
}

fn list(invocation: &Invocation<'_>) -> Result<u8, Trouble> {
    let (screen, state) = (&invocation.screen, opened::look(invocation)?.state);
    let mut branch = None;
    let mut records: Vec<(&Urn, &Record)> = state.records.iter().map(|(urn, record)| (urn, &**record)).collect();
    // A component before what is within it: as a tree reads.
    records.sort_by_key(|(urn, _)| (urn.provider(), urn.path(), urn.kind(), urn.name()));
    for (urn, record) in records {
        let here = (urn.provider(), urn.path());
        if branch != Some(here) {
            let place = if urn.path().is_empty() {
                urn.provider().to_owned()
            } else {
                format!("{} / {}", urn.provider(), urn.path().replace('/', " / "))
            };
            screen.line(1, &[(Tone::Strong, &place)]);
            branch = Some(here);
        }
        let id = record.id.as_ref().map(|id| format!("  {id}")).unwrap_or_default();
        let (status, tone) = status(record);
        screen.line(
            2,
            &[
                (Tone::Plain, &format!("{} ", urn.kind())),
                (Tone::Strong, urn.name()),
                (Tone::Faint, &id),
                (tone, &status),
            ],
        );
        screen.event("resource", entry(urn, record));
    }
    for (mark, condemned) in &state.condemned {
        let why = if condemned.left_behind { "left behind by its container" } else { "to be deleted" };
        screen.line(
            1,
            &[
                (Tone::Warning, &format!("{} {}", condemned.urn.kind(), condemned.urn.short())),
                (Tone::Plain, &format!("  {why}, mark {mark}")),
            ],
        );
        screen.event("leftover", json!({"urn": condemned.urn, "mark": mark, "left_behind": condemned.left_behind, "id": condemned.record.id}));
    }
    let open = state.records.values().filter(|record| record.open.is_some()).count();
    let mut summary = format!("{}: {} recorded", invocation.stack(), state.records.len());
    if open > 0 {
        summary += &format!(", {open} under way: the next `up` goes on with them");
    }
    screen.line(0, &[(Tone::Strong, &format!("{summary}."))]);
    Ok(0)
}

fn status(record: &Record) -> (String, Tone) {
    let status = match (&record.open, record.status) {
        (Some(open), _) => return (format!("  {:?} under way", open.begun.deed).to_lowercase(), Tone::Warning),
        (None, Status::Ready) => return (String::new(), Tone::Plain),
        (None, Status::Begun) => "  begun",
        (None, Status::Made) => "  not ready",
        (None, Status::Gone) => "  gone",
    };
    (status.into(), Tone::Warning)
}

fn entry(urn: &Urn, record: &Record) -> Value {
    json!({
        "urn": urn,
        "type": urn.kind(),
        "name": urn.short(),
        "id": record.id,
        "status": record.status,
        "open": record.open.as_ref().map(|open| open.begun.deed),
        "protect": record.spec.protect,
        "place": record.spec.place.to_string(),
    })
}

fn show(invocation: &Invocation<'_>, target: &str) -> Result<u8, Trouble> {
    let state = opened::look(invocation)?.state;
    let urn = asked::one(target, state.records.keys(), "the state")?;
    let record = redact(&serde_json::to_value(&state.records[urn]).unwrap_or_default());
    let screen = &invocation.screen;
    if screen.json() {
        screen.event("record", json!({"urn": urn, "record": record}));
    } else {
        screen.line(0, &[(Tone::Strong, urn.as_str())]);
        let text = serde_json::to_string_pretty(&record).unwrap_or_default();
        text.lines().for_each(|line| screen.line(0, &[(Tone::Plain, line)]));
    }
    Ok(0)
}

fn verify(invocation: &Invocation<'_>) -> Result<u8, Trouble> {
    let (dir, screen) = (directory(invocation), &invocation.screen);
    let stacks: BTreeSet<String> = dir.stacks()?.into_iter().collect();
    if stacks.is_empty() {
        screen.line(0, &[(Tone::Plain, &format!("there is no state in {}", dir.path().display()))]);
    }
    let (keys, mut failed) = (invocation.keys()?, None);
    for stack in stacks {
        let read = Journal::verify(&*dir.disk(), &stack).map_err(StoreError::from);
        // What lies on the disk is sound; it must also add up.
        let read = read.and_then(|report| Store::look(&*dir.disk(), &stack, &keys).map(|_| report));
        match read {
            Ok(Some(report)) => {
                let cut = report
                    .cut
                    .as_ref()
                    .map(|cut| format!("; {} bytes at its end are half written and will be cut", cut.bytes));
                screen.line(
                    1,
                    &[
                        (Tone::Create, "sound "),
                        (Tone::Strong, &report.file),
                        (
                            Tone::Plain,
                            &format!(
                                ": {} records in {} frames, {} bytes{}",
                                report.records,
                                report.frames,
                                report.bytes,
                                cut.unwrap_or_default()
                            ),
                        ),
                    ],
                );
                screen.event("verified", json!({
                    "stack": stack, "file": report.file, "format": report.format, "bytes": report.bytes, "frames": report.frames,
                    "records": report.records, "tip": report.tip, "cut_bytes": report.cut.map(|cut| cut.bytes),
                }));
            }
            Ok(None) => {}
            Err(error) => {
                let trouble = Trouble::from(error);
                screen.trouble(&trouble);
                failed = Some(trouble.exit);
            }
        }
    }
    Ok(failed.unwrap_or(0))
}

fn rotate(invocation: &Invocation<'_>, to: Option<&Path>) -> Result<u8, Trouble> {
    let KeySource::File { file, .. } = invocation.keys()? else {
        return Err(Trouble::new("failed to rotate the key").because("the key in use comes from no file"));
    };
    let to = to.map(|path| KeyFile { path: path.to_owned(), named: true });
    if let Some(to) = to.as_ref().filter(|to| !to.path.exists()) {
        return Err(Trouble::new(format!("failed to read the key file {}", to.path.display()))
            .because("there is no such file")
            .hint("`age-keygen -o FILE` makes one; without `--to` a new key is made here"));
    }
    let dir = directory(invocation);
    let lock = dir.lock("state rotate", SystemTime::now())?;
    let rotated = dir.rotate(&file, to.as_ref(), SystemTime::now())?;
    drop(lock);
    let screen = &invocation.screen;
    for (stack, count) in &rotated.stacks {
        let done = match count {
            0 => ": it was sealed for this key already".to_owned(),
            count => format!(": {count} secrets sealed anew"),
        };
        screen.line(1, &[(Tone::Strong, stack), (Tone::Plain, &done)]);
    }
    let Rotated { recipient, file, earlier, new, stacks } = &rotated;
    let what = if *new { "The key is a new one" } else { "An earlier rotation is finished. The key is the same" };
    let lines = [
        format!("{what}: {recipient}, in {file}. Keep a copy of it: without it nothing is opened."),
        format!(
            "The keys before it are in {earlier}. Copies of the state made earlier, and other labs with this key file, \
             still need them; remove that file when none of them does."
        ),
        format!(
            "Plans that were saved before are refused from now on; `{}` makes new ones.",
            invocation.command(&["preview", "--out", "FILE"])
        ),
        "Whoever has the old key and a copy of the state made earlier can read the secrets in it: change those, too."
            .to_owned(),
    ];
    lines.iter().for_each(|line| screen.line(0, &[(Tone::Plain, line)]));
    screen.event(
        "rotated",
        json!({"recipient": recipient, "file": file, "earlier": earlier, "new": new, "stacks": stacks}),
    );
    Ok(0)
}

fn forget(invocation: &Invocation<'_>, target: &str, yes: bool) -> Result<u8, Trouble> {
    let (mut store, lock) = opened::write(invocation, "state forget")?;
    let (event, what) = forgotten(store.state(), target)?;
    if !yes {
        let question = format!("{what} will no longer be managed; it stays as it is. Do this? [y/N]");
        match invocation.ask(&question).as_deref() {
            Some("y" | "yes") => {}
            Some(_) => return Err(Trouble::new("it was declined; nothing was changed")),
            None => {
                return Err(Trouble::new(format!(
                    "nothing was changed: forgetting {what} needs consent, and there is nobody to ask"
                ))
                .hint("`--yes` consents"));
            }
        }
    }
    store.commit(&[event], SystemTime::now())?;
    store.close()?;
    drop(lock);
    invocation.screen.line(0, &[(Tone::Plain, &format!("{what} is forgotten."))]);
    invocation.screen.event("forgot", json!({"what": what}));
    Ok(0)
}

/// Returns what is recorded when `target` is forgotten, and what that is in words.
fn forgotten(state: &State, target: &str) -> Result<(Event, String), Trouble> {
    let mark = Mark(target.to_owned());
    let named = |urn: &Urn| urn.as_str() == target || urn.short() == target;
    let left: Vec<(&Mark, &Condemned)> = match state.condemned.get_key_value(&mark) {
        Some(one) => vec![one],
        None => state.condemned.iter().filter(|(_, left)| left.left_behind && named(&left.urn)).collect(),
    };
    let stands: Vec<&Urn> = state.records.keys().filter(|urn| named(urn)).collect();
    match left.as_slice() {
        [] => {}
        [(mark, condemned)] if **mark == Mark(target.to_owned()) || stands.is_empty() => {
            let what = format!("{} {}, which is left over,", condemned.urn.kind(), condemned.urn.short());
            return Ok((Event::Forgot { urns: Vec::new(), marks: vec![(*mark).clone()] }, what));
        }
        several => {
            let left = several.iter().map(|(mark, left)| format!("{} is left over: `state forget {mark}`", left.urn));
            let which: Vec<String> = stands
                .iter()
                .map(|urn| format!("{urn} stands: `state forget \"{} {}\"`", urn.kind(), urn.short()))
                .chain(left)
                .collect();
            return Err(Trouble::new(format!("{target:?} may be any of {}", which.len()))
                .hint(format!("say which:\n{}", which.join("\n"))));
        }
    }
    let urn = asked::one(target, state.records.keys(), "the state")?;
    let inside = state.records.iter().filter(|(_, record)| record.spec.container.as_ref() == Some(urn)).count();
    if inside > 0 {
        return Err(Trouble::new(format!("failed to forget {} {}", urn.kind(), urn.short()))
            .because(format!("{inside} recorded resources live inside it"))
            .hint("forget or delete those first"));
    }
    Ok((Event::Forgot { urns: vec![urn.clone()], marks: Vec::new() }, format!("{} {}", urn.kind(), urn.short())))
}
