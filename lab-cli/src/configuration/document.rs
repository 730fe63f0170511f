//! A TOML document as a tree whose every value knows where it stands.

use super::Problem;
use std::ops::RangeInclusive;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A place in a file: line and column, both from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) line: u32,
    pub(super) column: u32,
}

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Node {
    /// What it is known by while problems are searched. Numbered on the way in: what lies within has the numbers that
    /// follow, up to `last`.
    pub(super) id: usize,
    last: usize,
    /// The keys that lead to it, as a person writes them; empty for the whole document.
    pub(super) path: String,
    pub(super) at: Position,
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    Text(String),
    Whole(i64),
    Fraction(f64),
    Truth(bool),
    List(Vec<Node>),
    Table(Vec<(Key, Node)>),
}

/// A key of a table.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) at: Position,
}

impl Node {
    /// Returns the numbers of this node and of all within it.
    pub(super) fn ids(&self) -> RangeInclusive<usize> {
        self.id..=self.last
    }
}

/// Reads a document, or returns everything that is wrong with how it is written.
pub(super) fn parse(file: &str, text: &str) -> Result<Node, Vec<Problem>> {
    let lines = Lines::new(file, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        let mut builder = Builder { lines: &lines, next: 0, problems: Vec::new() };
        let at = Position { line: 1, column: 1 };
        let root = builder.table(String::new(), at, table.into_inner());
        return if builder.problems.is_empty() { Ok(root) } else { Err(builder.problems) };
    }
    let problem = |error: &toml::de::Error| {
        let at = lines.position(error.span().map_or(0, |span| span.start));
        lines.problem(at, "", error.message())
    };
    let mut problems: Vec<Problem> = errors.iter().map(problem).collect();
    problems.sort();
    Err(problems)
}

struct Lines<'a> {
    file: &'a str,
    text: &'a str,
    /// Where each line begins.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(file: &'a str, text: &'a str) -> Lines<'a> {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Lines { file, text, starts }
    }

    fn position(&self, offset: usize) -> Position {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts.get(line.wrapping_sub(1)).copied().unwrap_or_default();
        let column = self.text.get(start..offset).unwrap_or_default().chars().count() + 1;
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Position { line: small(line.max(1)), column: small(column) }
    }

    fn problem(&self, at: Position, path: &str, message: &str) -> Problem {
        Problem::new(self.file, at, path, message)
    }
}

struct Builder<'a> {
    lines: &'a Lines<'a>,
    next: usize,
    problems: Vec<Problem>,
}

impl Builder<'_> {
    fn id(&mut self) -> usize {
        self.next += 1;
        self.next - 1
    }

    fn table(&mut self, path: String, at: Position, table: DeTable<'_>) -> Node {
        let id = self.id();
        let mut entries: Vec<_> = table.into_iter().collect();
        // In the order in which they stand, whatever order the table keeps.
        entries.sort_by_key(|(key, _)| key.span().start);
        let entries = entries
            .into_iter()
            .map(|(key, value)| {
                let key = Key { at: self.lines.position(key.span().start), name: key.into_inner().into_owned() };
                let path = if path.is_empty() { key.name.clone() } else { format!("{path}.{}", key.name) };
                let node = self.node(path, key.at, value);
                (key, node)
            })
            .collect();
        self.made(id, path, at, Content::Table(entries))
    }

    fn node(&mut self, path: String, key: Position, value: Spanned<DeValue<'_>>) -> Node {
        let at = self.lines.position(value.span().start);
        let content = match value.into_inner() {
            DeValue::String(text) => Content::Text(text.into_owned()),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Content::Whole(number),
                Err(_) => {
                    self.problems.push(self.lines.problem(at, &path, "the number is too large"));
                    Content::Whole(0)
                }
            },
            DeValue::Float(number) => Content::Fraction(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(truth) => Content::Truth(truth),
            DeValue::Datetime(time) => Content::Text(time.to_string()),
            DeValue::Array(items) => {
                let id = self.id();
                let items = items.into_iter().enumerate();
                let items = items.map(|(n, item)| {
                    let own = self.lines.position(item.span().start);
                    self.node(format!("{path}[{n}]"), own, item)
                });
                let items = items.collect();
                return self.made(id, path, at, Content::List(items));
            }
            // A table stands where its name is written: its brackets may be many.
            DeValue::Table(table) => return self.table(path, key, table),
        };
        let id = self.id();
        self.made(id, path, at, content)
    }

    /// Returns the node whose contents were the last to be numbered.
    fn made(&self, id: usize, path: String, at: Position, content: Content) -> Node {
        Node { id, last: self.next - 1, path, at, content }
    }
}
