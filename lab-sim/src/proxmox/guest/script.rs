//! Shell scripts, read: the part of bash that set-up scripts are written in.
//!
//! What is not understood is refused with its line, never passed over.

/// Commands, one after the other.
pub(super) type List = Vec<Chain>;

/// Pipelines that depend on each other's success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) first: Pipeline,
    /// What follows, and whether on success.
    pub(super) rest: Vec<(bool, Pipeline)>,
}

/// Commands that feed each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pipeline {
    pub(super) negated: bool,
    pub(super) commands: Vec<Command>,
}

/// A command with where it reads and writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) line: usize,
    pub(super) what: What,
    pub(super) redirects: Vec<Redirect>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Simple { assigns: Vec<(String, Word)>, words: Vec<Word> },
    Group(List),
    If { branches: Vec<(List, List)>, otherwise: List },
    For { name: String, words: Vec<Word>, body: List },
    While { until: bool, condition: List, body: List },
    Function { name: String, body: List },
}

/// Where a stream of a command goes or comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Redirect {
    /// Standard output, or with `both` the errors, to a file.
    Out {
        stream: u8,
        append: bool,
        to: Word,
    },
    /// One stream to where another goes.
    Join {
        stream: u8,
        to: u8,
    },
    In(Word),
    /// Opened in both directions.
    Open(Word),
    /// Text that stands in the script.
    Here(String),
}

/// A word before it is expanded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Word(pub(super) Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Text, and whether it is protected by quotes.
    Text(String, bool),
    /// A variable with what stands in for it when it is unset or empty.
    Variable { name: String, otherwise: Option<String>, quoted: bool },
    /// The output of commands.
    Output { list: List, quoted: bool },
}

impl Word {
    /// Returns the text of a word in which nothing is expanded and nothing quoted.
    fn plain(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Part::Text(text, false)] => Some(text),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(Word),
    /// An operator, with the stream before it where it is a redirection.
    Operator(&'static str, Option<u8>),
    Here(String),
    End,
}

/// Reads a script; the error says the line and what is not understood.
pub(super) fn read(text: &str) -> Result<List, String> {
    let letters: Vec<char> = text.chars().collect();
    let mut reader = Reader { letters, at: 0, line: 1, peeked: None, waiting: Vec::new() };
    let list = reader.list(&[])?;
    match reader.next()? {
        (Token::End, _) => Ok(list),
        (token, line) => Err(format!("line {line}: {token:?} is not understood here")),
    }
}

struct Reader {
    letters: Vec<char>,
    at: usize,
    line: usize,
    peeked: Option<(Token, usize)>,
    /// Ends of texts in the script whose operator was read on this line.
    waiting: Vec<String>,
}

const OPERATORS: [&str; 15] = ["&&", "||", ";;", "<<", ">>", "<>", ">&", "&>", ";", "|", "<", ">", "(", ")", "\n"];

impl Reader {
    fn peek(&mut self) -> Result<&(Token, usize), String> {
        if self.peeked.is_none() {
            self.peeked = Some(self.token()?);
        }
        self.peeked.as_ref().ok_or_else(|| "no token".to_owned())
    }

    fn next(&mut self) -> Result<(Token, usize), String> {
        match self.peeked.take() {
            Some(token) => Ok(token),
            None => self.token(),
        }
    }

    fn ahead(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(index, letter)| self.letters.get(self.at + index) == Some(&letter))
    }

    fn token(&mut self) -> Result<(Token, usize), String> {
        loop {
            match self.letters.get(self.at) {
                Some(' ' | '\t') => self.at += 1,
                Some('\\') if self.letters.get(self.at + 1) == Some(&'\n') => {
                    self.at += 2;
                    self.line += 1;
                }
                Some('#') => {
                    while self.letters.get(self.at).is_some_and(|letter| *letter != '\n') {
                        self.at += 1;
                    }
                }
                _ => break,
            }
        }
        let line = self.line;
        let Some(first) = self.letters.get(self.at).copied() else { return Ok((Token::End, line)) };
        // A digit right before a redirection names its stream.
        let redirects = self.letters.get(self.at + 1).is_some_and(|next| "<>".contains(*next));
        let stream = first.to_digit(10).filter(|_| redirects).and_then(|digit| u8::try_from(digit).ok());
        if stream.is_some() {
            self.at += 1;
        }
        if let Some(operator) = OPERATORS.into_iter().find(|operator| self.ahead(operator)) {
            self.at += operator.len();
            if operator == "\n" {
                self.line += 1;
                if !self.waiting.is_empty() {
                    let end = self.waiting.remove(0);
                    return Ok((Token::Here(self.here(&end)), line));
                }
            }
            return Ok((Token::Operator(operator, stream), line));
        }
        if first == '&' {
            return Err(format!("line {line}: a command in the background is not simulated"));
        }
        Ok((Token::Word(self.word()?), line))
    }

    fn here(&mut self, end: &str) -> String {
        let mut text = String::new();
        while self.at < self.letters.len() {
            let mut row = String::new();
            while let Some(letter) = self.letters.get(self.at).copied() {
                self.at += 1;
                if letter == '\n' {
                    self.line += 1;
                    break;
                }
                row.push(letter);
            }
            if row == end {
                break;
            }
            text += &row;
            text.push('\n');
        }
        text
    }

    fn word(&mut self) -> Result<Word, String> {
        let mut parts: Vec<Part> = Vec::new();
        while let Some(letter) = self.letters.get(self.at).copied() {
            match letter {
                ' ' | '\t' | '\n' | ';' | '|' | '&' | '<' | '>' | '(' | ')' => break,
                '\'' => {
                    self.at += 1;
                    let text = self.until('\'')?;
                    parts.push(Part::Text(text, true));
                }
                '"' => {
                    self.at += 1;
                    self.quoted(&mut parts)?;
                }
                '\\' => {
                    let next = self.letters.get(self.at + 1).copied();
                    self.at += 2;
                    if let Some(next) = next {
                        parts.push(Part::Text(next.to_string(), true));
                    }
                }
                '$' => {
                    let part = self.dollar(false)?;
                    parts.push(part);
                }
                '`' => return Err(format!("line {}: backquotes are not simulated", self.line)),
                other => {
                    self.at += 1;
                    match parts.last_mut() {
                        Some(Part::Text(text, false)) => text.push(other),
                        _ => parts.push(Part::Text(other.to_string(), false)),
                    }
                }
            }
        }
        Ok(Word(parts))
    }

    fn until(&mut self, end: char) -> Result<String, String> {
        let from = self.line;
        let mut text = String::new();
        loop {
            let Some(letter) = self.letters.get(self.at).copied() else {
                return Err(format!("line {from}: {end} has no end"));
            };
            self.at += 1;
            if letter == '\n' {
                self.line += 1;
            }
            if letter == end {
                return Ok(text);
            }
            text.push(letter);
        }
    }

    fn quoted(&mut self, parts: &mut Vec<Part>) -> Result<(), String> {
        let from = self.line;
        let mut text = String::new();
        // Even an empty pair of quotes makes a word.
        let before = parts.len();
        loop {
            let Some(letter) = self.letters.get(self.at).copied() else {
                return Err(format!("line {from}: \" has no end"));
            };
            match letter {
                '"' => {
                    self.at += 1;
                    if !text.is_empty() || parts.len() == before {
                        parts.push(Part::Text(text, true));
                    }
                    return Ok(());
                }
                '\\' if self.letters.get(self.at + 1).is_some_and(|next| "\"\\$`".contains(*next)) => {
                    text.push(self.letters[self.at + 1]);
                    self.at += 2;
                }
                '$' => {
                    if !text.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut text), true));
                    }
                    let part = self.dollar(true)?;
                    parts.push(part);
                }
                other => {
                    if other == '\n' {
                        self.line += 1;
                    }
                    text.push(other);
                    self.at += 1;
                }
            }
        }
    }

    /// Reads what follows a dollar sign.
    fn dollar(&mut self, quoted: bool) -> Result<Part, String> {
        self.at += 1;
        let line = self.line;
        match self.letters.get(self.at).copied() {
            Some('(') if self.letters.get(self.at + 1) == Some(&'(') => {
                Err(format!("line {line}: arithmetic is not simulated"))
            }
            Some('(') => {
                self.at += 1;
                let held = (self.peeked.take(), std::mem::take(&mut self.waiting));
                let list = self.list(&[])?;
                match self.next()? {
                    (Token::Operator(")", _), _) => {}
                    _ => return Err(format!("line {line}: $( has no end")),
                }
                (self.peeked, self.waiting) = held;
                Ok(Part::Output { list, quoted })
            }
            Some('{') => {
                self.at += 1;
                let inside = self.until('}')?;
                let (name, otherwise) = match inside.split_once(":-") {
                    Some((name, otherwise)) => (name, Some(otherwise.to_owned())),
                    None => (inside.as_str(), None),
                };
                if name.is_empty() || !name.chars().all(|letter| letter.is_alphanumeric() || letter == '_') {
                    return Err(format!("line {line}: ${{{inside}}} is not simulated"));
                }
                Ok(Part::Variable { name: name.to_owned(), otherwise, quoted })
            }
            Some(letter) if letter.is_alphabetic() || letter == '_' => {
                let mut name = String::new();
                while let Some(letter) =
                    self.letters.get(self.at).filter(|letter| letter.is_alphanumeric() || **letter == '_')
                {
                    name.push(*letter);
                    self.at += 1;
                }
                Ok(Part::Variable { name, otherwise: None, quoted })
            }
            Some(letter) if letter.is_ascii_digit() || "*@?#".contains(letter) => {
                self.at += 1;
                Ok(Part::Variable { name: letter.to_string(), otherwise: None, quoted })
            }
            _ => Ok(Part::Text("$".to_owned(), quoted)),
        }
    }

    fn separators(&mut self) -> Result<(), String> {
        while matches!(self.peek()?.0, Token::Operator("\n" | ";", _)) {
            self.next()?;
        }
        Ok(())
    }

    /// Reads commands until one of these words, or something that ends every list.
    fn list(&mut self, ends: &[&str]) -> Result<List, String> {
        let mut list = List::new();
        loop {
            self.separators()?;
            let done = match &self.peek()?.0 {
                Token::End | Token::Operator(")" | ";;", _) => true,
                Token::Word(word) => word.plain().is_some_and(|text| ends.contains(&text)),
                Token::Operator(..) | Token::Here(_) => false,
            };
            if done {
                return Ok(list);
            }
            let first = self.pipeline()?;
            let mut rest = Vec::new();
            while let Token::Operator(operator @ ("&&" | "||"), _) = self.peek()?.0 {
                self.next()?;
                while matches!(self.peek()?.0, Token::Operator("\n", _)) {
                    self.next()?;
                }
                rest.push((operator == "&&", self.pipeline()?));
            }
            list.push(Chain { first, rest });
        }
    }

    fn pipeline(&mut self) -> Result<Pipeline, String> {
        let negated = matches!(&self.peek()?.0, Token::Word(word) if word.plain() == Some("!"));
        if negated {
            self.next()?;
        }
        let mut commands = vec![self.command()?];
        while self.peek()?.0 == Token::Operator("|", None) {
            self.next()?;
            commands.push(self.command()?);
        }
        Ok(Pipeline { negated, commands })
    }

    fn keyword(&mut self, wanted: &str) -> Result<(), String> {
        self.separators()?;
        match self.next()? {
            (Token::Word(word), _) if word.plain() == Some(wanted) => Ok(()),
            (token, line) => Err(format!("line {line}: {wanted} is expected, and {token:?} stands there")),
        }
    }

    fn command(&mut self) -> Result<Command, String> {
        let line = self.peek()?.1;
        let word = match &self.peek()?.0 {
            Token::Word(word) => word.plain().map(str::to_owned),
            Token::Operator("(", _) => return Err(format!("line {line}: a subshell is not simulated")),
            Token::Operator(..) | Token::Here(_) | Token::End => None,
        };
        let what = match word.as_deref() {
            Some("{") => {
                self.next()?;
                let list = self.list(&["}"])?;
                self.keyword("}")?;
                What::Group(list)
            }
            Some("if") => {
                self.next()?;
                let mut branches = Vec::new();
                let mut otherwise = List::new();
                loop {
                    let condition = self.list(&["then"])?;
                    self.keyword("then")?;
                    let body = self.list(&["elif", "else", "fi"])?;
                    branches.push((condition, body));
                    match self.next()? {
                        (Token::Word(word), _) if word.plain() == Some("elif") => {}
                        (Token::Word(word), _) if word.plain() == Some("else") => {
                            otherwise = self.list(&["fi"])?;
                            self.keyword("fi")?;
                            break;
                        }
                        (Token::Word(word), _) if word.plain() == Some("fi") => break,
                        (token, line) => {
                            return Err(format!("line {line}: fi is expected, and {token:?} stands there"));
                        }
                    }
                }
                What::If { branches, otherwise }
            }
            Some("for") => {
                self.next()?;
                let (Token::Word(name), _) = self.next()? else { return Err(format!("line {line}: for needs a name")) };
                let name = name.plain().ok_or_else(|| format!("line {line}: for needs a name"))?.to_owned();
                self.keyword("in")?;
                let mut words = Vec::new();
                while let Token::Word(word) = &self.peek()?.0 {
                    words.push(word.clone());
                    self.next()?;
                }
                self.keyword("do")?;
                let body = self.list(&["done"])?;
                self.keyword("done")?;
                What::For { name, words, body }
            }
            Some(kind @ ("while" | "until")) => {
                let until = kind == "until";
                self.next()?;
                let condition = self.list(&["do"])?;
                self.keyword("do")?;
                let body = self.list(&["done"])?;
                self.keyword("done")?;
                What::While { until, condition, body }
            }
            Some(kind @ ("case" | "select" | "function" | "[[" | "coproc")) => {
                return Err(format!("line {line}: {kind} is not simulated"));
            }
            _ => return self.simple(line),
        };
        let mut redirects = Vec::new();
        while let Some(redirect) = self.redirect()? {
            redirects.push(redirect);
        }
        Ok(Command { line, what, redirects })
    }

    fn redirect(&mut self) -> Result<Option<Redirect>, String> {
        let (operator, stream) = match &self.peek()?.0 {
            Token::Operator(operator @ (">" | ">>" | "<" | "<>" | ">&" | "&>" | "<<"), stream) => (*operator, *stream),
            _ => return Ok(None),
        };
        let (_, line) = self.next()?;
        let (Token::Word(word), _) = self.next()? else { return Err(format!("line {line}: {operator} needs a word")) };
        Ok(Some(match operator {
            ">" | ">>" => Redirect::Out { stream: stream.unwrap_or(1), append: operator == ">>", to: word },
            "&>" => return Err(format!("line {line}: &> is not simulated")),
            "<" => Redirect::In(word),
            "<>" => Redirect::Open(word),
            ">&" => {
                let to = word.plain().and_then(|text| text.parse().ok());
                let to = to.ok_or_else(|| format!("line {line}: >& needs a stream"))?;
                Redirect::Join { stream: stream.unwrap_or(1), to }
            }
            _ => {
                let quoted = match word.0.as_slice() {
                    [Part::Text(end, true)] => end.clone(),
                    _ => return Err(format!("line {line}: a text with expansions in it is not simulated")),
                };
                self.waiting.push(quoted);
                // The text begins behind the end of this line; what stands before it there belongs to the command.
                let (mut token, _) = self.next()?;
                if token == Token::Operator("\n", None) {
                    token = self.next()?.0;
                }
                match token {
                    Token::Here(text) => {
                        self.peeked = Some((Token::Operator("\n", None), self.line));
                        Redirect::Here(text)
                    }
                    _ => return Err(format!("line {line}: << must stand last on its line")),
                }
            }
        }))
    }

    fn simple(&mut self, line: usize) -> Result<Command, String> {
        let mut assigns = Vec::new();
        let mut words: Vec<Word> = Vec::new();
        let mut redirects = Vec::new();
        loop {
            if let Some(redirect) = self.redirect()? {
                redirects.push(redirect);
                continue;
            }
            match &self.peek()?.0 {
                Token::Word(word) => {
                    let word = word.clone();
                    self.next()?;
                    match assignment(&word).filter(|_| words.is_empty()) {
                        Some(assign) => assigns.push(assign),
                        None => words.push(word),
                    }
                }
                Token::Operator("(", _) if words.len() == 1 && assigns.is_empty() => {
                    self.next()?;
                    let name = words[0].plain().map(str::to_owned);
                    let name = name.ok_or_else(|| format!("line {line}: a function needs a name"))?;
                    match self.next()? {
                        (Token::Operator(")", _), _) => {}
                        _ => return Err(format!("line {line}: ) is expected")),
                    }
                    self.separators()?;
                    let body = self.command()?;
                    let What::Group(body) = body.what else {
                        return Err(format!("line {line}: the body of a function stands in braces"));
                    };
                    return Ok(Command { line, what: What::Function { name, body }, redirects });
                }
                _ => break,
            }
        }
        if assigns.is_empty() && words.is_empty() && redirects.is_empty() {
            let (token, line) = self.next()?;
            return Err(format!("line {line}: {token:?} is not understood here"));
        }
        Ok(Command { line, what: What::Simple { assigns, words }, redirects })
    }
}

/// Returns the name and the value of a word like `NAME=value`.
fn assignment(word: &Word) -> Option<(String, Word)> {
    let Some(Part::Text(text, false)) = word.0.first() else { return None };
    let (name, value) = text.split_once('=')?;
    let is_name = name.starts_with(|letter: char| letter.is_alphabetic() || letter == '_')
        && name.chars().all(|letter| letter.is_alphanumeric() || letter == '_');
    if !is_name {
        return None;
    }
    let mut parts = Vec::new();
    if !value.is_empty() {
        parts.push(Part::Text(value.to_owned(), false));
    }
    parts.extend(word.0[1..].iter().cloned());
    Some((name.to_owned(), Word(parts)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_read_and_what_is_not_understood_is_named_with_its_line() {
        let script = "set -e\nif ! [ -e \"$A/b\" ]; then\n  for x in $(seq 3) b; do echo \"$x\" >>/f 2>&1; done\nfi\nf() { : >x; }\n";
        let list = read(script).unwrap();
        assert_eq!(list.len(), 3);
        assert!(matches!(&list[1].first.commands[0].what, What::If { branches, .. } if branches[0].0[0].first.negated));
        assert!(matches!(&list[2].first.commands[0].what, What::Function { name, .. } if name == "f"));
        let here = read("cat >/f <<'END'\na $b\nEND\necho c\n").unwrap();
        assert_eq!(here[0].first.commands[0].redirects[1], Redirect::Here("a $b\n".to_owned()));
        assert_eq!(here.len(), 2);
        assert_eq!(read("echo a\nsleep 5 &\n").unwrap_err(), "line 2: a command in the background is not simulated");
        assert_eq!(read("case x in").unwrap_err(), "line 1: case is not simulated");
        assert!(read("echo 'a").unwrap_err().contains("has no end"));
    }
}
