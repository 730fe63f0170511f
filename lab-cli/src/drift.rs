//! `drift`: what was changed by somebody else. Writes nothing.

use crate::arguments;
use crate::invocation::Invocation;
use crate::opened::Opened;
use crate::show;
use crate::trouble::{CHANGES, FAILED, Trouble};
use lab_core::plan::{self, Seen, Tone, Verb};
use lab_core::{Path, redact};
use serde_json::{Value, json};

pub(crate) async fn drift(invocation: &Invocation<'_>, arguments: &arguments::Drift) -> Result<u8, Trouble> {
    let screen = &invocation.screen;
    let opened = Opened::look(invocation)?;
    let seen = opened.observe(screen, true).await;
    let state = opened.state();
    // What is declared now is what the plan would record; what it does not touch is declared as it was applied.
    let plan = opened.plan(Verb::Up, &[], &seen, opened.now());
    let (mut drifted, mut unknown) = (0, 0);
    for (urn, seen) in &seen.seen {
        let Some(record) = state.records.get(urn) else { continue };
        let node = opened.declared.node(urn);
        let heading = || {
            let place = node.map(|node| format!("  {}", node.place)).unwrap_or_default();
            screen.line(
                1,
                &[(Tone::Plain, urn.kind()), (Tone::Strong, &format!(" {}", urn.short())), (Tone::Faint, &place)],
            );
        };
        let whole = |what: &str, why: &str| {
            heading();
            screen.line(2, &[(Tone::Warning, what), (Tone::Plain, why)]);
            screen.event("drift", json!({"urn": urn, "what": what.trim_end_matches(": "), "why": why}));
        };
        match seen {
            Seen::There(made) => {
                let step = plan.steps.iter().filter(|step| step.urn == *urn).find_map(|step| step.spec.as_ref());
                let declared = node.map(|_| step.map_or(&record.spec.inputs, |spec| &spec.inputs).value());
                let applied = record.spec.inputs.value();
                let found = made
                    .live
                    .as_ref()
                    .map(|live| plan::drift(urn, declared.as_ref(), &applied, &live.value(), &opened.declared.vault));
                let ignored = |path: &Path| {
                    node.is_some_and(|node| node.options.ignore.iter().any(|ignored| ignored.covers(path)))
                };
                let found: Vec<_> =
                    found.unwrap_or_default().into_iter().filter(|drift| !ignored(&drift.path)).collect();
                if found.is_empty() {
                    continue;
                }
                heading();
                drifted += 1;
                let kind = opened.declared.vocabulary.kind(&record.spec.kind);
                let said = match (kind, &made.live) {
                    (Some(kind), Some(live)) => {
                        plan::said(kind.as_ref(), &record.spec.inputs, &live.value(), &opened.declared.vault)
                    }
                    _ => Vec::new(),
                };
                for drift in &found {
                    let about = said.iter().filter(|(path, _)| path.covers(&drift.path) || drift.path.covers(path));
                    let said: Vec<String> = about.map(|(_, why)| opened.declared.vault.scrub(why)).collect();
                    let side =
                        |value: Option<&Value>| value.map_or("absent".into(), |value| show::text(&redact(value)));
                    screen.line(
                        2,
                        &[
                            (Tone::Plain, &format!("{}: ", drift.path)),
                            (Tone::Plain, &format!("declared {}, ", side(drift.declared.as_ref()))),
                            (Tone::Plain, &format!("last applied {}, ", side(Some(&drift.applied)))),
                            (Tone::Update, &format!("live {}", side(drift.live.as_ref()))),
                            (Tone::Faint, &said.iter().map(|why| format!(", {why}")).collect::<String>()),
                        ],
                    );
                    screen.event(
                        "drift",
                        json!({
                            "urn": urn,
                            "what": "changed",
                            "path": drift.path,
                            "declared": drift.declared.as_ref().map(redact),
                            "applied": redact(&drift.applied),
                            "live": drift.live.as_ref().map(redact),
                            "why": said,
                        }),
                    );
                }
            }
            Seen::Gone => {
                drifted += 1;
                whole("gone", "");
            }
            Seen::Foreign(why) => {
                drifted += 1;
                whole("not ours any more: ", why);
            }
            // Said while looking.
            Seen::Unknown(_) => unknown += 1,
        }
    }
    let same = seen.seen.len() - drifted - unknown;
    screen.line(
        0,
        &[(
            Tone::Strong,
            &format!("{}: {drifted} drifted, {same} as they were left, {unknown} not known.", invocation.stack()),
        )],
    );
    let exit = match (arguments.exit_code, drifted, unknown) {
        (true, 1.., _) => CHANGES,
        // Nobody may take this for "as it was left".
        (true, 0, 1..) => FAILED,
        (true, 0, 0) | (false, ..) => 0,
    };
    screen.event(
        "drifted",
        json!({"stack": invocation.stack(), "drifted": drifted, "same": same, "unknown": unknown, "exit": exit}),
    );
    Ok(exit)
}
