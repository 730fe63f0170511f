//! `refresh`: looks at everything that is recorded and records what is seen.

use crate::invocation::Invocation;
use crate::opened::Opened;
use crate::trouble::Trouble;
use lab_core::Event;
use lab_core::execute::settle;
use lab_core::plan::{Seen, Tone};
use serde_json::json;

pub(crate) async fn refresh(invocation: &Invocation<'_>) -> Result<u8, Trouble> {
    let screen = &invocation.screen;
    let opened = Opened::write(invocation, "refresh", None, &mut |_| Ok(()))?;
    let seen = opened.observe(screen, true).await;
    for (urn, seen) in &seen.seen {
        let (kind, name) = (urn.kind(), urn.short());
        match seen {
            Seen::There(_) => {}
            Seen::Gone => screen.line(1, &[(Tone::Delete, "- "), (Tone::Plain, &format!("{kind} {name} is gone"))]),
            Seen::Foreign(why) => screen.warning(&format!("{kind} {name} is not ours any more: {why}")),
            // Said while looking.
            Seen::Unknown(_) => {}
        }
    }
    let events = settle(&seen, &opened.ledger);
    for event in &events {
        if let Event::Observed { urn, .. } = event {
            screen.line(
                1,
                &[(Tone::Update, "~ "), (Tone::Plain, &format!("{} {} was seen anew", urn.kind(), urn.short()))],
            );
        }
    }
    let (looked, recorded) = (seen.seen.len(), events.len());
    if !events.is_empty() {
        opened
            .ledger
            .commit(events)
            .await
            .map_err(|why| Trouble::new("failed to record what was seen").because(why))?;
    }
    let unknown = seen.seen.values().filter(|seen| matches!(seen, Seen::Unknown(_))).count();
    opened.close(None, invocation.ending)?;
    screen.line(
        0,
        &[(
            Tone::Strong,
            &format!("{}: {looked} looked at, {recorded} recorded anew, {unknown} not known.", invocation.stack()),
        )],
    );
    screen.event(
        "refreshed",
        json!({"stack": invocation.stack(), "looked": looked, "recorded": recorded, "unknown": unknown, "exit": 0}),
    );
    Ok(0)
}
