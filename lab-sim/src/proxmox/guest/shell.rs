//! A shell that runs scripts in a guest.

use super::script::{Chain, Command, List, Part, Pipeline, Redirect, What, Word, read};
use super::system::{Outcome, System};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// How a list of commands goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    On,
    Exit,
    Return,
    Break,
    Continue,
}

/// What a command reads and has written.
#[derive(Clone, Debug, Default)]
struct Streams {
    input: String,
    out: String,
    err: String,
}

type Run<'a> = Pin<Box<dyn Future<Output = Flow> + Send + 'a>>;

/// A shell.
pub(super) struct Shell {
    system: Arc<System>,
    variables: BTreeMap<String, String>,
    arguments: Vec<String>,
    functions: BTreeMap<String, Arc<List>>,
    errexit: bool,
    nounset: bool,
    pipefail: bool,
    /// Functions and substitutions have the trap, too.
    errtrace: bool,
    trap: Option<String>,
    /// The trap runs.
    trapped: bool,
    status: i32,
    /// The status before this command: what `$?` says.
    before: i32,
    line: usize,
    /// How many functions deep: the trap is the script's own.
    depth: u32,
}

/// Runs a script with its arguments, the name first.
pub(super) async fn run(system: &Arc<System>, text: &str, arguments: &[String], input: &str) -> Outcome {
    let list = match read(text) {
        Ok(list) => list,
        Err(problem) => {
            system.refuse(&problem);
            return Outcome::failed(2, problem);
        }
    };
    let mut shell = Shell {
        system: system.clone(),
        variables: BTreeMap::from([
            ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ("HOME".to_owned(), "/root".to_owned()),
        ]),
        arguments: arguments.to_vec(),
        functions: BTreeMap::new(),
        errexit: false,
        nounset: false,
        pipefail: false,
        errtrace: false,
        trap: None,
        trapped: false,
        status: 0,
        before: 0,
        line: 0,
        depth: 0,
    };
    let mut streams = Streams { input: input.to_owned(), ..Streams::default() };
    shell.list(&list, &mut streams, false).await;
    Outcome { code: shell.status, out: streams.out, err: streams.err }
}

impl Shell {
    fn list<'a>(&'a mut self, list: &'a List, streams: &'a mut Streams, tested: bool) -> Run<'a> {
        Box::pin(async move {
            for chain in list {
                let flow = self.chain(chain, streams, tested).await;
                if flow != Flow::On {
                    return flow;
                }
            }
            Flow::On
        })
    }

    async fn chain(&mut self, chain: &Chain, streams: &mut Streams, tested: bool) -> Flow {
        let mut last = chain.rest.is_empty();
        let mut negated = chain.first.negated;
        let flow = self.pipeline(&chain.first, streams, tested || !last).await;
        if flow != Flow::On {
            return flow;
        }
        for (index, (on_success, pipeline)) in chain.rest.iter().enumerate() {
            if (self.status == 0) != *on_success {
                last = false;
                continue;
            }
            last = index + 1 == chain.rest.len();
            negated = pipeline.negated;
            let flow = self.pipeline(pipeline, streams, tested || !last).await;
            if flow != Flow::On {
                return flow;
            }
        }
        if self.status != 0 && last && !negated && !tested {
            return self.failed(streams).await;
        }
        Flow::On
    }

    /// A command failed and nobody asked whether it would.
    async fn failed(&mut self, streams: &mut Streams) -> Flow {
        let status = self.status;
        if (self.depth == 0 || self.errtrace)
            && let Some(text) = self.trap.take()
        {
            self.trapped = true;
            let flow = match read(&text) {
                Ok(list) => self.list(&list, streams, true).await,
                Err(problem) => {
                    self.system.refuse(&format!("line {}: in the trap, {problem}", self.line));
                    Flow::On
                }
            };
            self.trapped = false;
            self.trap = Some(text);
            // It may end the script, also where a failure alone would not.
            if flow == Flow::Exit {
                return flow;
            }
            self.status = status;
        }
        if self.errexit { Flow::Exit } else { Flow::On }
    }

    async fn pipeline(&mut self, pipeline: &Pipeline, streams: &mut Streams, tested: bool) -> Flow {
        let tested = tested || pipeline.negated;
        let mut flow = Flow::On;
        let mut failed = 0;
        let count = pipeline.commands.len();
        let mut input = std::mem::take(&mut streams.input);
        for (index, command) in pipeline.commands.iter().enumerate() {
            let mut own = Streams { input: std::mem::take(&mut input), ..Streams::default() };
            flow = self.command(command, &mut own, tested).await;
            streams.err += &own.err;
            if self.status != 0 {
                failed = self.status;
            }
            if index + 1 == count {
                streams.out += &own.out;
            } else {
                input = own.out;
            }
        }
        if self.pipefail && self.status == 0 {
            self.status = failed;
        }
        if pipeline.negated && flow == Flow::On {
            self.status = i32::from(self.status == 0);
        }
        flow
    }

    async fn command(&mut self, command: &Command, streams: &mut Streams, tested: bool) -> Flow {
        self.before = self.status;
        // In the trap it is still the line that failed.
        if command.line > 0 && !self.trapped {
            self.line = command.line;
        }
        for redirect in &command.redirects {
            match redirect {
                Redirect::In(word) => {
                    let Some(path) = self.one(word, streams).await else { return self.unset() };
                    match self.system.read(&path) {
                        Some(text) => streams.input = text,
                        None => {
                            streams.err += &format!("{path}: No such file or directory\n");
                            self.status = 1;
                            return Flow::On;
                        }
                    }
                }
                Redirect::Open(word) => {
                    let Some(path) = self.one(word, streams).await else { return self.unset() };
                    if !self.system.connects(&path) {
                        streams.err += &format!("{path}: Connection refused\n");
                        self.status = 1;
                        return Flow::On;
                    }
                }
                Redirect::Here(text) => streams.input.clone_from(text),
                Redirect::Out { .. } | Redirect::Join { .. } => {}
            }
        }
        let mut own = Streams { input: std::mem::take(&mut streams.input), ..Streams::default() };
        let flow = self.act(command, &mut own, tested).await;
        // Where each stream goes is decided from left to right, as in `>file 2>&1`.
        let mut places: [Option<(String, bool)>; 3] = Default::default();
        let mut joined: [usize; 3] = [0, 1, 2];
        for redirect in &command.redirects {
            match redirect {
                Redirect::Out { stream, append, to } => {
                    let Some(path) = self.one(to, streams).await else { return self.unset() };
                    let stream = usize::from(*stream).min(2);
                    places[stream] = Some((path, *append));
                    joined[stream] = stream;
                }
                Redirect::Join { stream, to } => {
                    let (stream, to) = (usize::from(*stream).min(2), usize::from(*to).min(2));
                    places[stream] = places[to].clone().map(|(path, _)| (path, true));
                    joined[stream] = to;
                }
                Redirect::In(_) | Redirect::Open(_) | Redirect::Here(_) => {}
            }
        }
        for (stream, text) in [(1, own.out), (2, own.err)] {
            match &places[stream] {
                Some((path, append)) => self.system.put(path, &text, *append),
                None if joined[stream] == 1 => streams.out += &text,
                None => streams.err += &text,
            }
        }
        flow
    }

    fn unset(&mut self) -> Flow {
        self.status = 1;
        Flow::Exit
    }

    async fn act(&mut self, command: &Command, streams: &mut Streams, tested: bool) -> Flow {
        match &command.what {
            What::Group(list) => self.list(list, streams, tested).await,
            What::Function { name, body } => {
                self.functions.insert(name.clone(), Arc::new(body.clone()));
                self.status = 0;
                Flow::On
            }
            What::If { branches, otherwise } => {
                for (condition, body) in branches {
                    let flow = self.list(condition, streams, true).await;
                    if flow != Flow::On {
                        return flow;
                    }
                    if self.status == 0 {
                        return self.list(body, streams, tested).await;
                    }
                }
                self.status = 0;
                self.list(otherwise, streams, tested).await
            }
            What::For { name, words, body } => {
                let Some(items) = self.words(words, streams).await else { return self.unset() };
                self.status = 0;
                for item in items {
                    self.variables.insert(name.clone(), item);
                    match self.list(body, streams, tested).await {
                        Flow::On | Flow::Continue => {}
                        Flow::Break => break,
                        flow @ (Flow::Exit | Flow::Return) => return flow,
                    }
                }
                Flow::On
            }
            What::While { until, condition, body } => loop {
                let flow = self.list(condition, streams, true).await;
                if flow != Flow::On {
                    return flow;
                }
                if (self.status == 0) == *until {
                    self.status = 0;
                    return Flow::On;
                }
                match self.list(body, streams, tested).await {
                    Flow::On | Flow::Continue => {}
                    Flow::Break => return Flow::On,
                    flow @ (Flow::Exit | Flow::Return) => return flow,
                }
            },
            What::Simple { assigns, words } => self.simple(command.line, assigns, words, streams, tested).await,
        }
    }

    async fn simple(
        &mut self,
        line: usize,
        assigns: &[(String, Word)],
        words: &[Word],
        streams: &mut Streams,
        tested: bool,
    ) -> Flow {
        let before = self.before;
        self.status = 0;
        let Some(words) = self.words(words, streams).await else { return self.unset() };
        for (name, word) in assigns {
            let Some(value) = self.one(word, streams).await else { return self.unset() };
            self.variables.insert(name.clone(), value);
        }
        let Some((name, rest)) = words.split_first() else { return Flow::On };
        if let Some(body) = self.functions.get(name).cloned() {
            let arguments = std::iter::once(self.arguments.first().cloned().unwrap_or_default());
            let before = std::mem::replace(&mut self.arguments, arguments.chain(rest.iter().cloned()).collect());
            let calls = self.line;
            self.depth += 1;
            let flow = self.list(&body, streams, tested).await;
            self.depth -= 1;
            self.arguments = before;
            if flow != Flow::Exit {
                self.line = calls;
            }
            return if flow == Flow::Return { Flow::On } else { flow };
        }
        let number = |fallback: i32| rest.first().and_then(|text| text.parse().ok()).unwrap_or(fallback);
        match name.as_str() {
            "exit" => {
                self.status = number(before);
                return Flow::Exit;
            }
            "return" => {
                self.status = number(before);
                return Flow::Return;
            }
            "break" => return Flow::Break,
            "continue" => return Flow::Continue,
            "set" => self.set(rest),
            "exec" if rest.is_empty() => {}
            "export" => {
                for word in rest {
                    if let Some((name, value)) = word.split_once('=') {
                        self.variables.insert(name.to_owned(), value.to_owned());
                    }
                }
            }
            "local" | "readonly" | "unset" | "shift" | "eval" | "read" => self.refuse(line, name, streams),
            "trap" => match rest {
                [text, signal] if signal == "ERR" => self.trap = Some(text.clone()),
                _ => self.refuse(line, &words.join(" "), streams),
            },
            "." | "source" => {
                let path = rest.first().cloned().unwrap_or_default();
                let Some(text) = self.system.read(&path) else {
                    streams.err += &format!("{path}: No such file or directory\n");
                    self.status = 1;
                    return Flow::On;
                };
                match read(&text) {
                    Ok(list) => return self.list(&list, streams, tested).await,
                    Err(problem) => self.refuse(line, &format!("{path}: {problem}"), streams),
                }
            }
            _ => {
                let outcome = self.system.command(&words, &streams.input).await;
                streams.out += &outcome.out;
                streams.err += &outcome.err;
                self.status = outcome.code;
                if outcome.code == 127 {
                    self.system.refuse(&format!("line {line}: {}", words.join(" ")));
                }
            }
        }
        Flow::On
    }

    fn refuse(&mut self, line: usize, what: &str, streams: &mut Streams) {
        self.system.refuse(&format!("line {line}: {what}"));
        streams.err += &format!("{what}: not simulated\n");
        self.status = 127;
    }

    fn set(&mut self, words: &[String]) {
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let on = word.starts_with('-');
            for letter in word.chars().skip(1) {
                match letter {
                    'e' => self.errexit = on,
                    'u' => self.nounset = on,
                    'E' => self.errtrace = on,
                    'o' if words.next().is_some_and(|option| option == "pipefail") => self.pipefail = on,
                    // Tracing changes nothing.
                    'x' => {}
                    other => self.system.refuse(&format!("set -{other}")),
                }
            }
        }
    }

    async fn words(&mut self, words: &[Word], streams: &mut Streams) -> Option<Vec<String>> {
        let mut all = Vec::new();
        for word in words {
            all.extend(self.expand(word, streams).await?);
        }
        Some(all)
    }

    /// Expands a word that stays one.
    async fn one(&mut self, word: &Word, streams: &mut Streams) -> Option<String> {
        let mut text = String::new();
        for part in &word.0 {
            text += &self.part(part, streams).await?.0;
        }
        Some(text)
    }

    /// Expands a word into as many as the parts without quotes make of it.
    async fn expand(&mut self, word: &Word, streams: &mut Streams) -> Option<Vec<String>> {
        let mut all: Vec<String> = Vec::new();
        let mut open: Option<String> = None;
        for part in &word.0 {
            let (text, splits) = self.part(part, streams).await?;
            if !splits {
                open = Some(open.unwrap_or_default() + &text);
                continue;
            }
            if text.starts_with(char::is_whitespace) {
                all.extend(open.take());
            }
            let mut pieces = text.split_whitespace().peekable();
            while let Some(piece) = pieces.next() {
                let joined = open.take().unwrap_or_default() + piece;
                if pieces.peek().is_some() {
                    all.push(joined);
                } else {
                    open = Some(joined);
                }
            }
            if text.ends_with(char::is_whitespace) {
                all.extend(open.take());
            }
        }
        all.extend(open);
        Some(all)
    }

    /// Returns the text of a part, and whether it is split at white space.
    async fn part(&mut self, part: &Part, streams: &mut Streams) -> Option<(String, bool)> {
        match part {
            Part::Text(text, _) => Some((text.clone(), false)),
            Part::Variable { name, otherwise, quoted } => {
                let value = match name.as_str() {
                    "*" | "@" => Some(self.arguments.iter().skip(1).cloned().collect::<Vec<_>>().join(" ")),
                    "?" => Some(self.before.to_string()),
                    "#" => Some(self.arguments.len().saturating_sub(1).to_string()),
                    "LINENO" => Some(self.line.to_string()),
                    digit if digit.len() == 1 && digit.chars().all(|letter| letter.is_ascii_digit()) => {
                        digit.parse::<usize>().ok().and_then(|index| self.arguments.get(index).cloned())
                    }
                    other => self.variables.get(other).cloned(),
                };
                let value = match otherwise {
                    Some(otherwise) => {
                        Some(value.filter(|value| !value.is_empty()).unwrap_or_else(|| otherwise.clone()))
                    }
                    None => value,
                };
                match value {
                    Some(value) => Some((value, !quoted)),
                    None if self.nounset => {
                        streams.err += &format!("{name}: unbound variable\n");
                        None
                    }
                    None => Some((String::new(), !quoted)),
                }
            }
            Part::Output { list, quoted } => {
                let mut own = Streams::default();
                // A substitution is a process of its own: what it sets is gone with it.
                let (variables, arguments, depth) = (self.variables.clone(), self.arguments.clone(), self.depth);
                let errexit = std::mem::replace(&mut self.errexit, false);
                let _ = self.list(list, &mut own, true).await;
                (self.variables, self.arguments, self.depth, self.errexit) = (variables, arguments, depth, errexit);
                streams.err += &own.err;
                Some((own.out.trim_end_matches('\n').to_owned(), !quoted))
            }
        }
    }
}
