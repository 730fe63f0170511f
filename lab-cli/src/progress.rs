//! Progress: one stream of events, shown as JSON, as lines that are drawn over, or as plain lines.

use crate::screen::{Screen, harmless};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use lab_core::Urn;
use lab_core::execute::{Progress, Sink};
use lab_core::plan::Tone;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a step may wait before plain lines say what for, and how long until they say so again.
const QUIET: Duration = Duration::from_secs(3);
/// How many names are said before the rest is counted.
const FEW: usize = 3;

/// Returns where the progress of a run goes. The engine has searched it for secrets.
pub(crate) fn sink(screen: &Screen) -> Sink {
    let shown = Mutex::new(Shown {
        lines: screen.bars().map(|bars| Lines { bars: bars.clone(), whole: None, steps: BTreeMap::new() }),
        screen: screen.clone(),
        running: BTreeMap::new(),
        not_started: BTreeMap::new(),
    });
    Arc::new(move |progress| {
        shown.lock().unwrap_or_else(PoisonError::into_inner).show(progress);
    })
}

struct Shown {
    screen: Screen,
    running: BTreeMap<Urn, Running>,
    /// What was not started, by the reason.
    not_started: BTreeMap<String, Vec<String>>,
    lines: Option<Lines>,
}

struct Running {
    action: &'static str,
    since: Instant,
    said: Option<(String, Instant)>,
}

/// Lines on a terminal that are drawn over: one for each running step, and one for the whole run.
struct Lines {
    bars: MultiProgress,
    whole: Option<ProgressBar>,
    steps: BTreeMap<Urn, ProgressBar>,
}

impl Shown {
    fn show(&mut self, progress: &Progress) {
        if self.screen.json() {
            let Ok(Value::Object(mut event)) = serde_json::to_value(progress) else { return };
            let name = event.remove("event").and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default();
            return self.screen.event(&name, Value::Object(event));
        }
        match progress {
            Progress::Began { version: _, stack: _, steps } => {
                if let Some(lines) = &mut self.lines {
                    lines.begin(*steps);
                }
            }
            Progress::Started { urn, action } => {
                self.running.insert(urn.clone(), Running { action, since: Instant::now(), said: None });
                if let Some(lines) = &mut self.lines {
                    lines.start(urn, format!("{action} {}", name(urn)));
                }
            }
            Progress::Waiting { urn, why } => self.wait(urn, why.clone()),
            Progress::Retrying { urn, error } => self.wait(urn, format!("trying again: {error}")),
            Progress::Finished { urn, action, same } => {
                let took = self.end(urn);
                let (sign, tone) = sign(action);
                let done = if *same { "unchanged after all" } else { past(action) };
                self.screen.line(
                    1,
                    &[
                        (tone, sign),
                        (Tone::Plain, &format!(" {} ", name(urn))),
                        (Tone::Faint, done),
                        (Tone::Faint, &took),
                    ],
                );
            }
            Progress::Failed { urn, action, error, hint, place, open } => {
                let took = self.end(urn);
                self.screen.line(
                    1,
                    &[
                        (Tone::Error, "!"),
                        (Tone::Plain, &format!(" {} ", name(urn))),
                        (Tone::Error, "failed"),
                        (Tone::Faint, &took),
                    ],
                );
                let place = place.as_ref().map(|place| format!(" ({place})")).unwrap_or_default();
                let hint = hint.clone().or_else(|| open.then(|| "run it again: it goes on from here".to_owned()));
                self.screen.error(&format!("failed to {action} {}{place}", name(urn)), Some(error), hint.as_deref());
            }
            Progress::Interrupted { urn, action: _ } => {
                let took = self.end(urn);
                let left = " left where it stands";
                let name = format!(" {}", name(urn));
                self.screen
                    .line(1, &[(Tone::Warning, "‖"), (Tone::Plain, &name), (Tone::Faint, left), (Tone::Faint, &took)]);
            }
            Progress::NotStarted { urn, action: _, why } => {
                self.not_started.entry(why.clone()).or_default().push(name(urn));
            }
            Progress::Warning { urn, message } => match urn {
                Some(urn) => self.screen.warning(&format!("{}: {message}", name(urn))),
                None => self.screen.warning(message),
            },
            Progress::Ended { done: _, failed: _, not_started: _, flushes: _ } => {
                if let Some(lines) = &mut self.lines {
                    lines.clear();
                }
                for (why, names) in std::mem::take(&mut self.not_started) {
                    self.not_started(&why, &names);
                }
            }
        }
    }

    /// One cause keeps many from starting: said once, with the first few of them.
    fn not_started(&self, why: &str, names: &[String]) {
        let shown = names.iter().take(FEW).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = names.len().saturating_sub(FEW);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let why = format!(" not started: {why}");
        self.screen.line(1, &[(Tone::Faint, "· "), (Tone::Plain, &shown), (Tone::Plain, &more), (Tone::Faint, &why)]);
    }

    fn wait(&mut self, urn: &Urn, why: String) {
        let Some(running) = self.running.get_mut(urn) else { return };
        if let Some(lines) = &self.lines {
            return lines.say(urn, format!("{} {}: {why}", running.action, name(urn)));
        }
        let last = running.said.as_ref().map_or(running.since, |(_, when)| *when);
        let news = running.said.as_ref().is_none_or(|(said, _)| *said != why);
        if news && last.elapsed() >= QUIET {
            let text = format!("{}: {why}", name(urn));
            running.said = Some((why, Instant::now()));
            self.screen.line(1, &[(Tone::Faint, "… "), (Tone::Faint, &text)]);
        }
    }

    /// Takes a step off the running ones and returns how long it took, where that is worth saying.
    fn end(&mut self, urn: &Urn) -> String {
        if let Some(lines) = &mut self.lines {
            lines.end(urn);
        }
        let took = self.running.remove(urn).map(|running| running.since.elapsed().as_secs()).unwrap_or_default();
        match took {
            0 => String::new(),
            1..60 => format!(" ({took} s)"),
            _ => format!(" ({} min {} s)", took / 60, took % 60),
        }
    }
}

impl Lines {
    fn begin(&mut self, steps: usize) {
        if steps > 0 {
            let bar = self.bars.add(ProgressBar::new(steps as u64));
            bar.set_style(style("  {bar:24} {pos}/{len} steps  {elapsed}"));
            bar.enable_steady_tick(Duration::from_millis(200));
            self.whole = Some(bar);
        }
    }

    fn start(&mut self, urn: &Urn, text: String) {
        let bar = ProgressBar::new_spinner();
        let bar = match &self.whole {
            Some(whole) => self.bars.insert_before(whole, bar),
            None => self.bars.add(bar),
        };
        bar.set_style(style("  {spinner} {wide_msg} {elapsed:>4}"));
        bar.set_message(harmless(&text));
        bar.enable_steady_tick(Duration::from_millis(200));
        self.steps.insert(urn.clone(), bar);
    }

    fn say(&self, urn: &Urn, text: String) {
        if let Some(bar) = self.steps.get(urn) {
            bar.set_message(harmless(&text));
        }
    }

    fn end(&mut self, urn: &Urn) {
        if let Some(bar) = self.steps.remove(urn) {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
        if let Some(whole) = &self.whole {
            whole.inc(1);
        }
    }

    fn clear(&mut self) {
        for bar in std::mem::take(&mut self.steps).into_values().chain(self.whole.take()) {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are in this file")
}

fn name(urn: &Urn) -> String {
    format!("{} {}", urn.kind(), urn.short())
}

/// Returns what was done, given what is done.
fn past(action: &str) -> &str {
    match action {
        "create" => "created",
        "replace" => "replaced",
        "import" => "imported",
        "update" => "updated",
        "renew" => "renewed",
        "continue" => "finished",
        "delete" => "deleted",
        "forget" => "forgotten",
        "leave behind" => "left behind",
        "read" => "read",
        "check" => "checked",
        other => other,
    }
}

fn sign(action: &str) -> (&'static str, Tone) {
    match action {
        "create" => ("+", Tone::Create),
        "import" => ("=", Tone::Create),
        "replace" => ("±", Tone::Replace),
        "delete" => ("-", Tone::Delete),
        "forget" | "leave behind" => ("·", Tone::Faint),
        "read" | "check" => ("?", Tone::Faint),
        _ => ("~", Tone::Update),
    }
}
