//! A tree of values, kept as its text.
//!
//! A map of a few fields takes ten times the memory of its text and many times as long to copy and to compare. What is
//! declared and what is recorded is mostly passed along, hashed and compared: for that its canonical JSON is enough.
//! Whoever looks inside asks for the [`Tree::value`].

use super::value::canonical;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Number, Value};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// How deep a tree may be nested that serde_json reads from text.
const READABLE: usize = 127;

/// A tree of values, kept as its canonical JSON: keys sorted by their bytes, no white space. Clones share the text.
///
/// Two are equal when they hold the same.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Tree(
    /// Nothing for `null`.
    Option<Arc<str>>,
);

impl Tree {
    /// Returns the canonical JSON.
    pub fn text(&self) -> &str {
        self.0.as_deref().unwrap_or("null")
    }

    /// Returns the tree to look inside.
    pub fn value(&self) -> Value {
        if self.is_deep() {
            return Part(self.text()).value();
        }
        serde_json::from_str(self.text()).expect("what was written as JSON can be read")
    }

    /// Returns true for `null`.
    pub fn is_null(&self) -> bool {
        self.0.is_none()
    }

    /// Returns true when it may be nested deeper than a reader of text takes. It was a tree before it was a text.
    pub(crate) fn is_deep(&self) -> bool {
        let opened = self.text().bytes().filter(|byte| matches!(byte, b'{' | b'[')).count();
        opened >= READABLE && self.depth() >= READABLE
    }

    /// Returns how deep its lists and maps are nested.
    pub(crate) fn depth(&self) -> usize {
        let (mut depth, mut deepest) = (0_usize, 0);
        let (mut within, mut escaped) = (false, false);
        for byte in self.text().bytes() {
            match byte {
                b'"' if !escaped => within = !within,
                b'{' | b'[' if !within => {
                    depth += 1;
                    deepest = deepest.max(depth);
                }
                b'}' | b']' if !within => depth -= 1,
                _ => {}
            }
            escaped = byte == b'\\' && !escaped;
        }
        deepest
    }

    /// Returns the tree of a text that is known to be canonical.
    pub(super) fn of_canonical(text: String) -> Tree {
        Tree((text != "null").then(|| text.into()))
    }

    /// Returns the tree that JSON text is: an error when it is none.
    pub(crate) fn read(text: &str) -> serde_json::Result<Tree> {
        let mut canonical = Vec::with_capacity(text.len());
        rewrite(text, &mut canonical)?;
        Ok(Tree::of_canonical(String::from_utf8(canonical).map_err(serde::de::Error::custom)?))
    }
}

impl From<&Value> for Tree {
    fn from(value: &Value) -> Tree {
        match value {
            Value::Null => Tree(None),
            value => Tree::of_canonical(String::from_utf8(canonical(value)).expect("JSON is text")),
        }
    }
}

impl From<Value> for Tree {
    fn from(value: Value) -> Tree {
        Tree::from(&value)
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Part(self.text()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tree, D::Error> {
        let mut text = Vec::with_capacity(256);
        let mut sorted = true;
        Copied { out: &mut text, sorted: &mut sorted }.deserialize(deserializer)?;
        let text = String::from_utf8(text).map_err(serde::de::Error::custom)?;
        // What we have written ourselves, and read back from a file, is.
        if sorted { Ok(Tree::of_canonical(text)) } else { Tree::read(&text).map_err(serde::de::Error::custom) }
    }
}

/// A part of a tree's text: one value.
struct Part<'a>(&'a str);

impl<'a> Part<'a> {
    /// Returns what this list or map holds: values, and keys with their values in turn.
    fn parts(&self) -> impl Iterator<Item = Part<'a>> {
        let mut rest = &self.0[1..self.0.len() - 1];
        std::iter::from_fn(move || {
            let end = end(rest).filter(|end| *end > 0)?;
            let part = Part(&rest[..end]);
            rest = rest.get(end + 1..).unwrap_or_default();
            Some(part)
        })
    }

    /// Returns what stands between these quotes.
    fn string(&self) -> Cow<'a, str> {
        if self.0.contains('\\') {
            return Cow::Owned(serde_json::from_str(self.0).expect("a string that was written can be read"));
        }
        Cow::Borrowed(&self.0[1..self.0.len() - 1])
    }

    fn pairs(&self) -> impl Iterator<Item = (Cow<'a, str>, Part<'a>)> {
        let mut parts = self.parts();
        std::iter::from_fn(move || Some((parts.next()?.string(), parts.next()?)))
    }

    fn value(&self) -> Value {
        match self.0.as_bytes()[0] {
            b'{' => Value::Object(self.pairs().map(|(key, value)| (key.into_owned(), value.value())).collect()),
            b'[' => Value::Array(self.parts().map(|part| part.value()).collect()),
            _ => serde_json::from_str(self.0).expect("what was written as JSON can be read"),
        }
    }
}

/// Returns where the value ends that `text` begins with: at a comma, at a colon, or with the text.
fn end(text: &str) -> Option<usize> {
    let (mut depth, mut within, mut escaped) = (0_usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if !escaped => within = !within,
            b'{' | b'[' if !within => depth += 1,
            b'}' | b']' if !within => depth = depth.checked_sub(1)?,
            b',' | b':' if !within && depth == 0 => return Some(at),
            _ => {}
        }
        escaped = byte == b'\\' && !escaped;
    }
    Some(text.len())
}

impl Serialize for Part<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_bytes()[0] {
            b'{' => serializer.collect_map(self.pairs()),
            b'[' => serializer.collect_seq(self.parts()),
            b'"' => serializer.serialize_str(&self.string()),
            b'n' => serializer.serialize_unit(),
            b't' | b'f' => serializer.serialize_bool(self.0 == "true"),
            _ => {
                let number: Number = serde_json::from_str(self.0).map_err(serde::ser::Error::custom)?;
                number.serialize(serializer)
            }
        }
    }
}

/// Copies whatever a deserializer yields as JSON, without a tree in between.
struct Copied<'a> {
    out: &'a mut Vec<u8>,
    /// Whether the keys of every map were in order, each of them once: then the copy is canonical.
    sorted: &'a mut bool,
}

/// Copies a key.
struct CopiedKey<'a>(&'a mut Vec<u8>);

/// What stands in the place of a key when another crate of the program has switched on numbers of any precision.
const NUMBER: &[u8] = b"\"$serde_json::private::Number\"";

impl Copied<'_> {
    fn write<E: serde::de::Error>(self, scalar: impl Serialize) -> Result<(), E> {
        serde_json::to_writer(self.out, &scalar).map_err(E::custom)
    }

    /// Copies what lies within.
    fn inner(&mut self) -> Copied<'_> {
        Copied { out: self.out, sorted: self.sorted }
    }
}

impl<'de> DeserializeSeed<'de> for CopiedKey<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for CopiedKey<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<(), E> {
        serde_json::to_writer(self.0, key).map_err(E::custom)
    }
}

impl<'de> DeserializeSeed<'de> for Copied<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Copied<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.write(value)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.write(value)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.write(value)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.write(value)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        self.write(value)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<(), E> {
        self.write(())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.write(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        self.out.push(b'[');
        let start = self.out.len();
        loop {
            let before = self.out.len();
            if before > start {
                self.out.push(b',');
            }
            if list.next_element_seed(self.inner())?.is_none() {
                self.out.truncate(before);
                break;
            }
        }
        self.out.push(b']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.out.push(b'{');
        let start = self.out.len();
        let mut last: Option<Range<usize>> = None;
        loop {
            let before = self.out.len();
            if before > start {
                self.out.push(b',');
            }
            let from = self.out.len();
            if map.next_key_seed(CopiedKey(self.out))?.is_none() {
                self.out.truncate(before);
                break;
            }
            let key = from..self.out.len();
            if self.out[key.clone()] == *NUMBER {
                let number: Number = map.next_value::<String>()?.parse().map_err(serde::de::Error::custom)?;
                self.out.truncate(start - 1);
                return self.write(number);
            }
            let follows = |last: Range<usize>| order(&self.out[last], &self.out[key.clone()]) == Ordering::Less;
            *self.sorted &= last.is_none_or(follows);
            last = Some(key);
            self.out.push(b':');
            map.next_value_seed(self.inner())?;
        }
        self.out.push(b'}');
        Ok(())
    }
}

/// Adds `text`, which serde_json has written and so is JSON, to `out` in its canonical form. Returns how
/// deep its lists and maps are nested; an error for a number or a character that there is not.
pub(crate) fn rewrite(text: &str, out: &mut Vec<u8>) -> serde_json::Result<usize> {
    let mut rewriter = Rewriter { text, at: 0, out, entries: Vec::new() };
    rewriter.value()
}

struct Rewriter<'a> {
    text: &'a str,
    at: usize,
    out: &'a mut Vec<u8>,
    /// Keys and ends of the entries of all maps that are being written.
    entries: Vec<Entry>,
}

/// An entry of a map, by places in what was written.
#[derive(Clone)]
struct Entry {
    /// Its key, quotes included.
    key: Range<usize>,
    end: usize,
}

impl Rewriter<'_> {
    fn next(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or_default()
    }

    fn skip_space(&mut self) {
        while matches!(self.next(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    fn value(&mut self) -> serde_json::Result<usize> {
        self.skip_space();
        match self.next() {
            b'{' => self.map(),
            b'[' => self.list(),
            b'"' => self.string().map(|()| 0),
            _ => self.scalar().map(|()| 0),
        }
    }

    fn list(&mut self) -> serde_json::Result<usize> {
        self.at += 1;
        self.out.push(b'[');
        let mut deepest = 0;
        let mut first = true;
        loop {
            self.skip_space();
            match self.next() {
                b']' => break,
                b',' => self.at += 1,
                _ if !first => return Err(malformed()),
                _ => {}
            }
            if !first {
                self.out.push(b',');
            }
            first = false;
            deepest = deepest.max(self.value()?);
        }
        self.at += 1;
        self.out.push(b']');
        Ok(deepest + 1)
    }

    fn map(&mut self) -> serde_json::Result<usize> {
        self.at += 1;
        let start = self.out.len();
        let outer = self.entries.len();
        self.out.push(b'{');
        let mut deepest = 0;
        let mut sorted = true;
        loop {
            self.skip_space();
            match self.next() {
                b'}' => break,
                b',' => self.at += 1,
                _ if self.entries.len() > outer => return Err(malformed()),
                _ => {}
            }
            if self.entries.len() > outer {
                self.out.push(b',');
            }
            self.skip_space();
            let from = self.out.len();
            self.string()?;
            let key = from..self.out.len();
            sorted = sorted
                && self.entries[outer..].last().is_none_or(|before| {
                    order(&self.out[before.key.clone()], &self.out[key.clone()]) == Ordering::Less
                });
            self.skip_space();
            if self.next() != b':' {
                return Err(malformed());
            }
            self.at += 1;
            self.out.push(b':');
            deepest = deepest.max(self.value()?);
            self.entries.push(Entry { key, end: self.out.len() });
        }
        self.at += 1;
        if !sorted {
            self.sort(start, outer);
        }
        self.entries.truncate(outer);
        self.out.push(b'}');
        Ok(deepest + 1)
    }

    /// Sorts the map that begins at `start` by its keys. Of a key that is there twice the last one counts, as it does
    /// for whoever reads a map from text.
    fn sort(&mut self, start: usize, outer: usize) {
        let written = self.out.split_off(start);
        let within = |range: Range<usize>| &written[range.start - start..range.end - start];
        let mut entries = self.entries[outer..].to_vec();
        entries.sort_by(|a, b| order(within(a.key.clone()), within(b.key.clone())));
        self.out.push(b'{');
        for (n, entry) in entries.iter().enumerate() {
            let key = within(entry.key.clone());
            if entries.get(n + 1).is_some_and(|next| within(next.key.clone()) == key) {
                continue;
            }
            if self.out.len() > start + 1 {
                self.out.push(b',');
            }
            self.out.extend_from_slice(within(entry.key.start..entry.end));
        }
    }

    fn string(&mut self) -> serde_json::Result<()> {
        let start = self.at;
        if self.next() != b'"' {
            return Err(malformed());
        }
        let mut escaped = false;
        self.at += 1;
        loop {
            match self.next() {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    self.at += 2;
                }
                0 => return Err(malformed()),
                _ => self.at += 1,
            }
        }
        self.at += 1;
        let text = &self.text[start..self.at];
        if !escaped {
            self.out.extend_from_slice(text.as_bytes());
            return Ok(());
        }
        // The same character can be escaped in several ways.
        let plain: String = serde_json::from_str(text)?;
        serde_json::to_writer(&mut *self.out, &plain)
    }

    fn scalar(&mut self) -> serde_json::Result<()> {
        let start = self.at;
        while !matches!(self.next(), b',' | b']' | b'}' | b':' | b' ' | b'\n' | b'\r' | b'\t' | 0) {
            self.at += 1;
        }
        let text = &self.text[start..self.at];
        let digits = text.strip_prefix('-').unwrap_or(text);
        let plain = (1..=18).contains(&digits.len())
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && (digits.len() == 1 || !digits.starts_with('0'))
            && text != "-0";
        if plain || matches!(text, "null" | "true" | "false") {
            self.out.extend_from_slice(text.as_bytes());
            return Ok(());
        }
        // The same number can be written in several ways, too.
        let number: Number = serde_json::from_str(text)?;
        serde_json::to_writer(&mut *self.out, &number)
    }
}

fn malformed() -> serde_json::Error {
    serde::de::Error::custom("it is not JSON")
}

/// Compares two keys in quotes by the bytes that they stand for.
fn order(a: &[u8], b: &[u8]) -> Ordering {
    let bare = |key: &[u8]| key.get(1..key.len() - 1).unwrap_or_default().to_vec();
    let plain = |key: &[u8]| serde_json::from_slice::<String>(key).map_or_else(|_| bare(key), String::into_bytes);
    if a.contains(&b'\\') || b.contains(&b'\\') {
        return plain(a).cmp(&plain(b));
    }
    // The quote at the end is less than most of what a longer key goes on with, but not than all.
    a[1..a.len() - 1].cmp(&b[1..b.len() - 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(text: &str) {
        let value: Value = serde_json::from_str(text).expect("a test's text is JSON");
        let tree = Tree::read(text).expect("what is JSON can be read");
        assert_eq!(tree.text().as_bytes(), canonical(&value), "of {text}");
        assert_eq!(tree, Tree::from(&value));
        assert_eq!(tree.value(), value);
        assert_eq!(Tree::read(tree.text()).expect("it is JSON"), tree, "written again it stays what it is");
        assert_eq!(serde_json::to_value(&tree).expect("it is JSON"), value);
        assert_eq!(serde_json::to_string(&tree).expect("it is JSON"), tree.text());
        assert_eq!(serde_json::from_str::<Tree>(text).expect("a test's text is JSON"), tree);
        assert_eq!(serde_json::from_value::<Tree>(value).expect("it is JSON"), tree);
    }

    #[test]
    fn what_stands_in_the_place_of_a_number_is_one_or_refused() {
        let forged = r#"{"$serde_json::private::Number":"1]}, never JSON"}"#;
        assert!(serde_json::from_str::<Tree>(forged).is_err());
    }

    #[test]
    fn text_becomes_canonical_without_a_tree_in_between() {
        for text in [
            "null",
            " true ",
            "\"a\"",
            "[]",
            "{}",
            "[ 1 , [ ] , { } ]",
            r#"{"b":1,"a":{"d":[{"z":0,"y":1}],"c":null}}"#,
            r#"{ "a" : 1 , "a" : 2 , "0" : [ ] }"#,
            r#"{"a!":1,"a":2,"ab":3}"#,
            r#"{"a\"b":1,"a#":2,"a\\":3,"a\u0041":4,"aA":5}"#,
            r#""\/\u00e9\ud83d\ude00\n""#,
            "\"\u{7f}é😀\"",
            "[0,-0,-1,1e3,1.50,-0.0,12345678901234567890,18446744073709551615,123456789012345678901234567890,1E-7]",
            "[1e15,1000000000000000.0,1e16,0.1,9007199254740993]",
        ] {
            check(text);
        }
    }

    #[test]
    fn what_no_reader_takes_is_refused() {
        for text in [r#""\ud800""#, "1e999", "{\"a\":1e999}", "[1", "{\"a\" 1}", "[1 2]", "tru", "\"a"] {
            assert!(Tree::read(text).is_err(), "{text}");
        }
    }

    /// Any tree at all, written in any order and with any white space.
    #[test]
    fn random_trees_become_canonical() {
        let mut dice = 1_u64;
        let mut roll = |sides: u64| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % sides
        };
        fn text(depth: u64, roll: &mut dyn FnMut(u64) -> u64) -> String {
            const KEYS: [&str; 8] = ["a", "b", "aa", "", "é", "$x", "a\\n", "\\\""];
            let space = [" ", "", "\n"][roll(3) as usize];
            let inner = match roll(if depth == 0 { 4 } else { 6 }) {
                0 => "null".into(),
                1 => format!("{}", roll(1000)),
                2 => format!("\"{}\"", KEYS[roll(8) as usize]),
                3 => format!("-{}.{}e{}", roll(10), roll(100), roll(20)),
                4 => {
                    let items: Vec<String> = (0..roll(4)).map(|_| text(depth - 1, roll)).collect();
                    format!("[{}]", items.join(","))
                }
                _ => {
                    let entries: Vec<String> = (0..roll(6))
                        .map(|_| format!("{space}\"{}\"{space}:{}", KEYS[roll(8) as usize], text(depth - 1, roll)))
                        .collect();
                    format!("{{{}}}", entries.join(","))
                }
            };
            format!("{space}{inner}{space}")
        }
        (0..3000).for_each(|_| check(&text(4, &mut roll)));
    }

    #[test]
    fn depth_is_that_of_lists_and_maps() {
        for (text, deep) in [("1", 0), ("[]", 1), (r#"["[[\\\"[",1]"#, 1), ("{\"a\":[1]}", 2), ("[[],[[]]]", 3)] {
            assert_eq!(rewrite(text, &mut Vec::new()).expect("it is JSON"), deep, "{text}");
            assert_eq!(Tree::read(text).expect("it is JSON").depth(), deep, "{text}");
        }
    }

    #[test]
    fn a_tree_that_is_deeper_than_a_reader_takes_comes_back() {
        let deep = (0..300).fold(json!(1), |inner, _| json!([inner]));
        let tree = Tree::from(&deep);
        assert_eq!(tree.value(), deep);
        assert_eq!(serde_json::to_value(&tree).expect("it is JSON"), deep);
        assert!(tree.is_deep() && !Tree::from(json!(["[".repeat(500)])).is_deep());
    }
}
