//! An ordered YAML tree, written the way Go's yaml.v3 writes it.
//!
//! Talos prints its configurations with that library (indent 4, keys in the order of the structs). Writing the same
//! bytes makes our output comparable with `talosctl`'s, and a diff of the two empty. Only keys that no configuration has, of
//! several lines or of more than 128 bytes, are written in a way of our own.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// How much aliases may stand for in one stream: hundreds of bytes of them can mean a billion nodes, and no machine
/// configuration has more than a few.
const ALIASED: usize = 20_000;
/// The most bytes of a key that stands before its colon on one line: what yaml.v3 calls a simple key.
const SIMPLE: usize = 128;

/// One YAML node. Maps keep the order of their keys.
#[derive(Clone, Debug, PartialEq)]
pub enum Yaml {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// A string.
    Text(String),
    /// A sequence.
    List(Vec<Yaml>),
    /// A mapping.
    Map(Vec<(String, Yaml)>),
}

impl Yaml {
    /// Returns a map of these entries, in this order.
    pub fn map<K: Into<String>, V: Into<Yaml>>(entries: impl IntoIterator<Item = (K, V)>) -> Yaml {
        Yaml::Map(entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }

    /// Returns a list of these items.
    pub fn list<V: Into<Yaml>>(items: impl IntoIterator<Item = V>) -> Yaml {
        Yaml::List(items.into_iter().map(Into::into).collect())
    }

    /// Reads all documents of a stream. One that is `null` and nothing else says nothing, and is not among them.
    ///
    /// # Errors
    ///
    /// The parser's message, with the place. Aliases that would grow into more than twenty thousand nodes.
    pub fn parse(text: &str) -> Result<Vec<Yaml>, String> {
        let alias_limits = serde_saphyr::alias_limits! { max_total_replayed_events: ALIASED };
        let options = serde_saphyr::options! { alias_limits: alias_limits };
        let mut documents: Vec<Yaml> =
            serde_saphyr::from_multiple_with_options(text, options).map_err(|error| error.to_string())?;
        // The parser leaves out those that stand plainly; `!!null` and an alias of one would remain.
        documents.retain(|document| *document != Yaml::Null);
        Ok(documents)
    }

    /// Returns the value at a path of map keys.
    pub fn at(&self, path: &[&str]) -> Option<&Yaml> {
        path.iter().try_fold(self, |node, key| match node {
            Yaml::Map(entries) => entries.iter().find(|(found, _)| found == key).map(|(_, value)| value),
            _ => None,
        })
    }

    /// Returns the string, when it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Yaml::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Sets a key of a map, at the end when it is new.
    ///
    /// # Panics
    ///
    /// When this is not a map.
    pub fn set(&mut self, key: &str, value: impl Into<Yaml>) {
        let Yaml::Map(entries) = self else { panic!("{key} set on a node that is not a map") };
        match entries.iter_mut().find(|(found, _)| found == key) {
            Some((_, old)) => *old = value.into(),
            None => entries.push((key.to_owned(), value.into())),
        }
    }

    /// Writes one document, with a newline at the end.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        match self {
            Yaml::Map(entries) if !entries.is_empty() => write_map(&mut text, entries, 0),
            Yaml::List(items) if !items.is_empty() => write_list(&mut text, items, 0),
            node => {
                write_scalar(&mut text, node, 0);
                text.push('\n');
            }
        }
        text
    }

    /// Writes a stream of documents.
    pub fn to_stream<'a>(documents: impl IntoIterator<Item = &'a Yaml>) -> String {
        documents.into_iter().map(Yaml::to_text).collect::<Vec<_>>().join("---\n")
    }
}

impl From<&str> for Yaml {
    fn from(text: &str) -> Yaml {
        Yaml::Text(text.to_owned())
    }
}

impl From<String> for Yaml {
    fn from(text: String) -> Yaml {
        Yaml::Text(text)
    }
}

impl From<&String> for Yaml {
    fn from(text: &String) -> Yaml {
        Yaml::Text(text.clone())
    }
}

impl From<bool> for Yaml {
    fn from(value: bool) -> Yaml {
        Yaml::Bool(value)
    }
}

impl From<i64> for Yaml {
    fn from(value: i64) -> Yaml {
        Yaml::Int(value)
    }
}

fn pad(text: &mut String, indent: usize) {
    text.extend(std::iter::repeat_n(' ', indent));
}

/// Writes entries whose first line is already indented, or not, by the caller: `text` ends where a key may begin.
fn write_entries(text: &mut String, entries: &[(String, Yaml)], indent: usize) {
    for (index, (key, value)) in entries.iter().enumerate() {
        if index > 0 {
            pad(text, indent);
        }
        write_key(text, key, indent);
        // Below a key the next level begins at the next multiple of four: a map inside a list item, which stands two
        // columns in, therefore indents its own children by two.
        let deeper = (indent + 4) / 4 * 4;
        match value {
            Yaml::Map(entries) if !entries.is_empty() => {
                text.push('\n');
                write_map(text, entries, deeper);
            }
            Yaml::List(items) if !items.is_empty() => {
                text.push('\n');
                write_list(text, items, deeper);
            }
            node => {
                text.push(' ');
                write_scalar(text, node, deeper);
                text.push('\n');
            }
        }
    }
}

/// Writes a key up to its colon. One that is long stands behind a question mark, as with yaml.v3: readers look no further than
/// 1,024 characters for the colon of any other.
fn write_key(text: &mut String, key: &str, indent: usize) {
    let long = key.len() > SIMPLE;
    text.push_str(if long { "? " } else { "" });
    if key.contains('\n') {
        write_quoted(text, key)
    } else {
        write_string(text, key, indent)
    }
    if long {
        text.push('\n');
        pad(text, indent);
    }
    text.push(':');
}

fn write_map(text: &mut String, entries: &[(String, Yaml)], indent: usize) {
    pad(text, indent);
    write_entries(text, entries, indent);
}

fn write_list(text: &mut String, items: &[Yaml], indent: usize) {
    for item in items {
        pad(text, indent);
        text.push_str("- ");
        match item {
            Yaml::Map(entries) if !entries.is_empty() => write_entries(text, entries, indent + 2),
            Yaml::List(items) if !items.is_empty() => {
                let mut nested = String::new();
                write_list(&mut nested, items, indent + 2);
                text.push_str(nested.trim_start());
            }
            node => {
                write_scalar(text, node, indent + 2);
                text.push('\n');
            }
        }
    }
}

fn write_scalar(text: &mut String, node: &Yaml, indent: usize) {
    match node {
        Yaml::Null => text.push_str("null"),
        Yaml::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
        Yaml::Int(value) => text.push_str(&value.to_string()),
        Yaml::Float(value) => text.push_str(&float(*value)),
        Yaml::Text(value) => write_string(text, value, indent),
        Yaml::List(_) => text.push_str("[]"),
        Yaml::Map(_) => text.push_str("{}"),
    }
}

/// Writes a number as Go does, so that a whole one looks like an integer; beyond those it keeps its exponent.
fn float(value: f64) -> String {
    if value.is_nan() {
        return ".nan".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { ".inf".into() } else { "-.inf".into() };
    }
    let scientific = format!("{value:e}");
    match scientific.split_once('e').and_then(|(digits, exponent)| Some((digits, exponent.parse::<i32>().ok()?))) {
        Some((digits, exponent)) if !(-4..18).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => value.to_string(),
    }
}

/// Tells whether a character cannot stand in a text as itself.
fn odd(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

fn write_string(text: &mut String, value: &str, indent: usize) {
    if value.contains('\n') && !value.contains(|c| odd(c) && c != '\n') && !value.starts_with([' ', '\n']) && indent > 0
    {
        // A literal block. The sign after the bar says how many newlines end it: none, one or all of them.
        text.push('|');
        match value.chars().rev().take_while(|c| *c == '\n').count() {
            0 => text.push('-'),
            1 => {}
            _ => text.push('+'),
        }
        for line in value.strip_suffix('\n').unwrap_or(value).split('\n') {
            text.push('\n');
            if !line.is_empty() {
                pad(text, indent);
                text.push_str(line);
            }
        }
    } else if value.contains(odd) || is_not_text(value) {
        write_quoted(text, value);
    } else if needs_quotes(value) {
        text.push('\'');
        text.push_str(&value.replace('\'', "''"));
        text.push('\'');
    } else {
        text.push_str(value);
    }
}

fn write_quoted(text: &mut String, value: &str) {
    text.push('"');
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            c if odd(c) => text.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => text.push(c),
        }
    }
    text.push('"');
}

/// Tells whether a plain scalar of this text would be read as something other than a string.
fn is_not_text(value: &str) -> bool {
    const WORDS: &[&str] = &[
        "", "~", "null", "Null", "NULL", "true", "True", "TRUE", "false", "False", "FALSE", "y", "Y", "yes", "Yes",
        "YES", "on", "On", "ON", "n", "N", "no", "No", "NO", "off", "Off", "OFF", "<<", ".nan", ".NaN", ".NAN", ".inf",
        ".Inf", ".INF", "+.inf", "+.Inf", "+.INF", "-.inf", "-.Inf", "-.INF",
    ];
    if WORDS.contains(&value) {
        return true;
    }
    let unsigned = value.strip_prefix(['+', '-']).unwrap_or(value);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return false;
    }
    let plain = unsigned.replace('_', "");
    let radix = |prefix: &str, radix| {
        plain.strip_prefix(prefix).is_some_and(|digits| u64::from_str_radix(digits, radix).is_ok())
    };
    let number = plain.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && plain.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'))
        && plain.parse::<f64>().is_ok();
    number || radix("0x", 16) || radix("0o", 8) || radix("0b", 2) || is_sexagesimal(unsigned) || is_date(value)
}

/// Tells whether YAML 1.1 readers would take `12:30:45` for a number to the base 60. MAC addresses may look so.
fn is_sexagesimal(value: &str) -> bool {
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let mut parts = whole.split(':');
    let first = parts.next().unwrap_or_default();
    let mut more = parts.peekable();
    more.peek().is_some()
        && first.starts_with(|c: char| c.is_ascii_digit())
        && first.chars().all(|c| c.is_ascii_digit() || c == '_')
        && more.all(|part| matches!(part.as_bytes(), [b'0'..=b'9'] | [b'0'..=b'5', b'0'..=b'9']))
        && fraction.chars().all(|c| c.is_ascii_digit() || c == '_')
}

/// Tells whether the text begins like a timestamp; `2025-01-01` alone is one.
fn is_date(value: &str) -> bool {
    let bytes = value.as_bytes();
    let digits =
        |range: std::ops::Range<usize>| bytes.get(range).is_some_and(|part| part.iter().all(u8::is_ascii_digit));
    let day =
        digits(0..4) && bytes.get(4) == Some(&b'-') && digits(5..7) && bytes.get(7) == Some(&b'-') && digits(8..10);
    day && (bytes.len() == 10
        || matches!(bytes[10], b'T' | b't' | b' ') && digits(11..13) && bytes.get(13) == Some(&b':'))
}

/// Tells whether a string must be quoted because its characters mean something outside of flow style.
fn needs_quotes(value: &str) -> bool {
    let mut characters = value.chars().peekable();
    let mut before = None;
    if value.starts_with("---") || value.starts_with("...") || value.starts_with(' ') || value.ends_with(' ') {
        return true;
    }
    while let Some(c) = characters.next() {
        let ends = characters.peek().is_none_or(|next| *next == ' ');
        let special = match (before, c) {
            (None, '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`') => {
                true
            }
            (None, '-' | '?') => ends,
            (_, ':') => ends,
            (Some(' '), '#') => true,
            _ => false,
        };
        if special {
            return true;
        }
        before = Some(c);
    }
    false
}

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Yaml, D::Error> {
        struct Node;
        impl<'de> Visitor<'de> for Node {
            type Value = Yaml;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a YAML node")
            }
            fn visit_unit<E>(self) -> Result<Yaml, E> {
                Ok(Yaml::Null)
            }
            fn visit_none<E>(self) -> Result<Yaml, E> {
                Ok(Yaml::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Yaml, E> {
                Ok(Yaml::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Yaml, E> {
                Ok(Yaml::Int(value))
            }
            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Yaml, E> {
                i64::try_from(value).map(Yaml::Int).map_err(|_| E::custom(format!("{value} is too large")))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Yaml, E> {
                Ok(Yaml::Float(value))
            }
            fn visit_str<E>(self, value: &str) -> Result<Yaml, E> {
                Ok(value.into())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Yaml, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = access.next_element()? {
                    items.push(item);
                }
                Ok(Yaml::List(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Yaml, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = access.next_entry()? {
                    entries.push(entry);
                }
                Ok(Yaml::Map(entries))
            }
        }
        deserializer.deserialize_any(Node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_may_stand_for_something_and_not_for_everything() {
        let text = |levels: usize| {
            let level = |n: usize| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(", "));
            format!("a0: &a0 [x, x, x, x, x, x, x, x, x]\n{}", (1..=levels).map(level).collect::<String>())
        };
        assert_eq!(Yaml::parse(&text(2)).map(|read| read.len()), Ok(1));
        let error = Yaml::parse(&text(11)).unwrap_err();
        assert!(error.contains("alias"), "{error}");
    }

    #[test]
    fn strings_that_look_like_something_else_are_quoted() {
        for (value, written) in [
            ("plain", "plain"),
            ("", r#""""#),
            ("true", r#""true""#),
            ("yes", r#""yes""#),
            ("12", r#""12""#),
            ("1.5", r#""1.5""#),
            ("10.69.1.101", "10.69.1.101"),
            ("10.69.1.101/24", "10.69.1.101/24"),
            ("00:11:22:33:44:55", r#""00:11:22:33:44:55""#),
            ("aa:bb:cc:dd:ee:ff", "aa:bb:cc:dd:ee:ff"),
            ("https://10.5.0.2:6443", "https://10.5.0.2:6443"),
            ("2025-01-01", r#""2025-01-01""#),
            ("*", "'*'"),
            ("a: b", "'a: b'"),
            ("it's", "it's"),
            ("# no", "'# no'"),
            ("-", "'-'"),
            ("-x", "-x"),
            ("console=ttyS0", "console=ttyS0"),
            ("a\tb", r#""a\tb""#),
        ] {
            let text = Yaml::map([("k", value)]).to_text();
            assert_eq!(text, format!("k: {written}\n"));
            assert_eq!(Yaml::parse(&text).unwrap(), [Yaml::map([("k", value)])]);
        }
    }

    #[test]
    fn numbers_come_back_as_they_were() {
        for (value, written) in [
            (0.5, "0.5"),
            (3.0, "3"),
            (-0.0001, "-0.0001"),
            (0.000_015, "1.5e-05"),
            (1e17, "100000000000000000"),
            (1e19, "1e+19"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::INFINITY, ".inf"),
            (f64::NEG_INFINITY, "-.inf"),
            (f64::NAN, ".nan"),
        ] {
            let text = Yaml::map([("k", Yaml::Float(value))]).to_text();
            assert_eq!(text, format!("k: {written}\n"));
            if !value.is_finite() {
                assert!(Yaml::parse(&text).is_err(), "no machine has {value}");
                continue;
            }
            match Yaml::parse(&text).unwrap()[0].at(&["k"]) {
                Some(Yaml::Int(read)) => assert_eq!(*read as f64, value),
                Some(Yaml::Float(read)) => assert_eq!(*read, value),
                read => panic!("{value} became {read:?}"),
            }
        }
    }

    #[test]
    fn lines_come_back_as_they_were() {
        for value in ["a\nb", "a\nb\n", "a\n\nb\n\n", "a\n"] {
            let tree = Yaml::map([("outer", Yaml::map([("k", Yaml::from(value)), ("next", Yaml::from("x"))]))]);
            let text = tree.to_text();
            assert!(text.contains("k: |"), "{text}");
            assert_eq!(Yaml::parse(&text).unwrap(), [tree], "{text}");
        }
    }

    #[test]
    fn keys_that_no_line_holds_come_back() {
        for key in
            ["k".repeat(SIMPLE + 1), "k".repeat(2_000), "two words: ".repeat(200), "a\nb".into(), "l\n".repeat(999)]
        {
            let map = |value: Yaml| Yaml::map([("before", 1.into()), (key.as_str(), value), ("behind", 2.into())]);
            let inner = map(Yaml::map([("x", 1)]));
            for value in ["plain".into(), "two\nlines".into(), Yaml::Null, Yaml::list([1, 2]), inner] {
                let tree = Yaml::map([("top", Yaml::List(vec![map(value.clone())])), (&key, map(value))]);
                let written = tree.to_text();
                assert_eq!(Yaml::parse(&written).as_deref(), Ok([tree].as_slice()), "{written}");
            }
        }
        assert_eq!(Yaml::map([("k".repeat(SIMPLE), 1)]).to_text(), format!("{}: 1\n", "k".repeat(SIMPLE)));
        assert_eq!(Yaml::map([("k".repeat(SIMPLE + 1), 1)]).to_text(), format!("? {}\n: 1\n", "k".repeat(SIMPLE + 1)));
    }

    #[test]
    fn a_document_that_says_nothing_is_none() {
        for text in ["", "null", "~", "!!null", "---\n...\n", "--- null\n--- ~\n---\n", "--- !!null null\n"] {
            assert_eq!(Yaml::parse(text).as_deref(), Ok([].as_slice()), "{text:?}");
        }
        assert_eq!(Yaml::parse("--- !!null null\n---\na: 1\n").as_deref(), Ok([Yaml::map([("a", 1)])].as_slice()));
    }

    #[test]
    fn lists_of_maps_and_lists_come_back() {
        let tree = Yaml::map([(
            "a",
            Yaml::List(vec![
                Yaml::map([("x", Yaml::map([("y", 1)])), ("z", Yaml::list([1, 2]))]),
                Yaml::List(vec![Yaml::list(["p", "q"]), Yaml::Map(vec![])]),
                Yaml::Null,
            ]),
        )]);
        assert_eq!(Yaml::parse(&tree.to_text()).unwrap(), [tree]);
    }

    #[test]
    fn any_string_comes_back_in_any_place() {
        const ALPHABET: &[char] = &[
            ' ', ' ', ':', '#', '-', '"', '\'', '\\', '\n', '\t', 'a', '1', '0', '.', '[', '{', '}', '&', '*', '!',
            '%', '@', '`', '|', '>', '?', ',', '~', 'e', 'x', '_', '+', '=', '/', 'é', '\u{85}', '\u{2028}',
            '\u{feff}',
        ];
        let mut state = 1u64;
        let mut draw = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for _ in 0..20_000 {
            let length = draw(7);
            let text: String = (0..length).map(|_| ALPHABET[draw(ALPHABET.len())]).collect();
            let inner = Yaml::map([(text.clone(), Yaml::from(&text)), (format!("{text}z"), 1.into())]);
            let tree = Yaml::map([("list", Yaml::List(vec![text.as_str().into(), inner.clone()])), ("map", inner)]);
            let written = tree.to_text();
            assert_eq!(Yaml::parse(&written).as_deref(), Ok([tree].as_slice()), "{text:?}\n{written}");
        }
    }
}
