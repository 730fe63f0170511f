//! The two streams, as text or as events. Nothing else in the project writes to them.
//!
//! Results and progress go to the standard output; errors, warnings and questions to the standard error. A stream that
//! nobody reads any more is no reason to stop in the middle of a run.

use crate::trouble::Trouble;
use anstyle::{AnsiColor, Style};
use indicatif::{MultiProgress, ProgressBar};
use lab_core::execute::STREAM;
use lab_core::plan::{Line, Tone};
use serde_json::{Map, Value, json};
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The two streams, as text or as events.
#[derive(Clone)]
pub(crate) struct Screen {
    streams: Arc<Mutex<Streams>>,
    bars: Option<MultiProgress>,
    colors: bool,
    json: bool,
}

struct Streams {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
}

/// A line of text in tones.
pub(crate) type Pieces<'a> = &'a [(Tone, &'a str)];

impl Screen {
    pub(crate) fn new(
        out: Box<dyn Write + Send>,
        err: Box<dyn Write + Send>,
        terminal: bool,
        colors: bool,
        json: bool,
    ) -> Screen {
        let bars = (terminal && !json).then(MultiProgress::new);
        Screen { streams: Arc::new(Mutex::new(Streams { out, err })), bars, colors, json }
    }

    /// Returns where lines can be drawn over, on a terminal.
    pub(crate) fn bars(&self) -> Option<&MultiProgress> {
        self.bars.as_ref()
    }

    /// Shows, on a terminal, that something takes its time; until what is returned is dropped.
    pub(crate) fn busy(&self, what: &'static str) -> Busy {
        Busy(self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new_spinner().with_message(what));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        }))
    }

    /// Returns true when events are printed instead of text.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    fn write(&self, with: impl FnOnce(&mut Streams) -> std::io::Result<()>) {
        let write = || {
            // Nobody reads any more; the run goes on.
            let _ = with(&mut self.streams());
        };
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn paint(&self, depth: usize, pieces: Pieces<'_>) -> String {
        let mut text = "  ".repeat(depth);
        for (tone, piece) in pieces {
            let style = if self.colors { style(*tone) } else { Style::new() };
            let piece = harmless(piece);
            text.push_str(&format!("{style}{piece}{style:#}"));
        }
        let mut text = if self.colors { text } else { text.trim_end().to_owned() };
        text.push('\n');
        text
    }

    /// Prints a line of a result.
    pub(crate) fn line(&self, depth: usize, pieces: Pieces<'_>) {
        if !self.json {
            let text = self.paint(depth, pieces);
            self.write(|streams| streams.out.write_all(text.as_bytes()).and_then(|()| streams.out.flush()));
        }
    }

    /// Prints lines of a result at once.
    pub(crate) fn lines(&self, lines: &[Line]) {
        if !self.json {
            let text: String = lines
                .iter()
                .map(|line| {
                    let pieces: Vec<(Tone, &str)> =
                        line.pieces.iter().map(|(tone, piece)| (*tone, piece.as_str())).collect();
                    self.paint(line.depth, &pieces)
                })
                .collect();
            self.write(|streams| streams.out.write_all(text.as_bytes()).and_then(|()| streams.out.flush()));
        }
    }

    /// Prints a line beside the result.
    pub(crate) fn aside(&self, depth: usize, pieces: Pieces<'_>) {
        let text = self.paint(depth, pieces);
        self.write(|streams| streams.err.write_all(text.as_bytes()).and_then(|()| streams.err.flush()));
    }

    /// Prints a question, leaving the cursor behind it.
    pub(crate) fn question(&self, text: &str) {
        let text = self.paint(0, &[(Tone::Strong, text)]);
        self.write(|streams| write!(streams.err, "{} ", text.trim_end()).and_then(|()| streams.err.flush()));
    }

    /// Prints a warning.
    pub(crate) fn warning(&self, message: &str) {
        if self.json {
            self.event("warning", json!({"message": message}));
        } else {
            self.aside(0, &[(Tone::Warning, "warning: "), (Tone::Plain, message)]);
        }
    }

    /// Prints this text as the whole result: exactly, unless it is for a terminal.
    pub(crate) fn result(&self, text: &str) {
        match &self.bars {
            Some(_) => self.exactly(harmless(text).as_bytes()),
            None => self.exactly(text.as_bytes()),
        }
    }

    /// Prints exactly this, as the whole result.
    pub(crate) fn exactly(&self, bytes: &[u8]) {
        self.write(|streams| streams.out.write_all(bytes).and_then(|()| streams.out.flush()));
    }

    /// Prints an event, where events are printed. `fields` is a map.
    pub(crate) fn event(&self, name: &str, fields: Value) {
        if self.json {
            let mut event = match fields {
                Value::Object(fields) => fields,
                Value::Null => Map::new(),
                other => Map::from_iter([("value".to_owned(), other)]),
            };
            event.insert("version".into(), STREAM.into());
            event.insert("event".into(), name.into());
            let text = format!("{}\n", Value::Object(event));
            self.write(|streams| streams.out.write_all(text.as_bytes()).and_then(|()| streams.out.flush()));
        }
    }

    /// Prints what went wrong.
    pub(crate) fn trouble(&self, trouble: &Trouble) {
        let Trouble { what, cause, hint, exit, needs: _ } = trouble;
        if self.json {
            let fields = json!({"what": what, "cause": cause, "hint": hint, "exit": exit});
            return self.event("error", fields);
        }
        self.error(what, cause.as_deref(), hint.as_deref());
    }

    /// Prints an error: what was attempted, why it failed, what to try.
    pub(crate) fn error(&self, what: &str, cause: Option<&str>, hint: Option<&str>) {
        self.aside(0, &[(Tone::Error, "error: "), (Tone::Plain, what)]);
        for (name, text) in [("cause: ", cause), ("try: ", hint)] {
            let mut name = name;
            for line in text.into_iter().flat_map(str::lines) {
                self.aside(1, &[(Tone::Strong, name), (Tone::Plain, line)]);
                name = "  ";
            }
        }
    }
}

/// Returns what a terminal may be given: much of it was written by somebody else, who must not move the cursor of
/// whoever reads it.
pub(crate) fn harmless(text: &str) -> String {
    text.replace(|c: char| c.is_control() && !matches!(c, '\n' | '\t'), "\u{fffd}")
}

/// Shows that something takes its time.
pub(crate) struct Busy(Option<ProgressBar>);

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

fn style(tone: Tone) -> Style {
    let color = |color: AnsiColor| color.on_default();
    match tone {
        Tone::Plain => Style::new(),
        Tone::Strong => Style::new().bold(),
        Tone::Faint => Style::new().dimmed(),
        Tone::Create => color(AnsiColor::Green),
        Tone::Update => color(AnsiColor::Yellow),
        Tone::Delete => color(AnsiColor::Red),
        Tone::Replace => color(AnsiColor::Magenta),
        Tone::Warning => color(AnsiColor::Yellow).bold(),
        Tone::Error => color(AnsiColor::Red).bold(),
    }
}
