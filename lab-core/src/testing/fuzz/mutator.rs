//! Changes to an input, by seed.

use serde_json::{Map, Value, json};

/// Numbers at the edges of what anything is counted in.
const NUMBERS: [&str; 20] = [
    "0",
    "-1",
    "1",
    "127",
    "255",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "67108864",
    "67108865",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1e999",
];

/// Texts that mean something, or nothing, or too much.
const TEXTS: [&str; 14] = [
    "",
    "a",
    "::",
    "::::::::",
    "/",
    "~",
    "/~0~1//",
    "$lab.secret",
    "$lab.unknown",
    "\u{0}\u{1b}[2J",
    "\u{202e}\u{feff}",
    "00000000000000000000000000000000",
    "ffffffffffffffffffffffffffffffff",
    "é漢😀",
];

/// How deep something is nested at the most.
const DEEP: [usize; 6] = [2, 99, 101, 127, 129, 20_000];

/// Changes to an input, by seed: bits, cuts, copies, lengths, deep nesting, huge numbers, and whatever else may stand in
/// the place of a JSON value. The same seed makes the same changes on every platform.
#[derive(Clone, Debug)]
pub struct Mutator(u64);

impl Mutator {
    /// Returns the mutator with this seed.
    pub fn new(seed: u64) -> Mutator {
        Mutator(seed)
    }

    /// Returns `bytes`, changed in one to four places.
    pub fn mutate(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..1 + self.below(4) {
            bytes = match serde_json::from_slice::<Value>(&bytes) {
                // What is JSON mostly stays JSON, or nothing but the parser of JSON is ever tried.
                Ok(mut value) if self.below(4) > 0 => {
                    self.value(&mut value);
                    value.to_string().into_bytes()
                }
                _ => self.bytes(bytes),
            };
        }
        bytes
    }

    /// SplitMix64: enough to choose with, and the same everywhere.
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.roll() % n.max(1) as u64) as usize
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// Returns two places in something so long, in order, near each other more often than not.
    fn range(&mut self, len: usize) -> (usize, usize) {
        let from = self.below(len + 1);
        let most = if self.below(3) == 0 { len - from } else { (len - from).min(16) };
        (from, from + self.below(most + 1))
    }

    fn bytes(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        let (from, to) = self.range(bytes.len());
        match self.below(9) {
            0 if !bytes.is_empty() => {
                let at = self.below(bytes.len());
                bytes[at] ^= 1 << self.below(8);
            }
            1 if !bytes.is_empty() => {
                let at = self.below(bytes.len());
                bytes[at] = self.roll() as u8;
            }
            2 => bytes.truncate(from),
            3 => drop(bytes.drain(from..to)),
            4 => {
                let copy = bytes[from..to].to_vec();
                let at = self.below(bytes.len() + 1);
                bytes.splice(at..at, copy);
            }
            5 => {
                let random: Vec<u8> = (0..1 + self.below(8)).map(|_| self.roll() as u8).collect();
                bytes.splice(from..from, random);
            }
            6 => self.number(&mut bytes),
            7 => {
                let (deep, (open, close)) = (*self.one(&DEEP), *self.one(&[("[", "]"), ("{\"a\":", "}"), ("- ", "")]));
                let nested = format!("{}0{}", open.repeat(deep), close.repeat(deep));
                bytes.splice(from..to, nested.into_bytes());
            }
            _ => {
                let text = *self.one(&TEXTS);
                bytes.splice(from..to, text.bytes());
            }
        }
        bytes
    }

    /// Puts another number in the place of one: a length, a count, a time.
    fn number(&mut self, bytes: &mut Vec<u8>) {
        let starts: Vec<usize> = (0..bytes.len())
            .filter(|at| bytes[*at].is_ascii_digit() && (*at == 0 || !bytes[at - 1].is_ascii_digit()))
            .collect();
        if starts.is_empty() {
            return;
        }
        let from = *self.one(&starts);
        let to = (from..bytes.len()).find(|at| !bytes[*at].is_ascii_digit()).unwrap_or(bytes.len());
        let number = *self.one(&NUMBERS);
        bytes.splice(from..to, number.bytes());
    }

    /// Changes one value somewhere in a tree.
    fn value(&mut self, root: &mut Value) {
        let count = count(root);
        let (at, other) = (self.below(count), self.below(count));
        let other = nth(root, &mut { other }).cloned().unwrap_or_default();
        let choice = self.below(10);
        let Some(value) = nth(root, &mut { at }) else { return };
        match (choice, value) {
            // Something from elsewhere in the same tree: the right shape in the wrong place.
            (0..=2, value) => *value = other,
            (3, Value::Object(map)) => {
                let keys: Vec<String> = map.keys().cloned().collect();
                if let Some(key) = (!keys.is_empty()).then(|| self.one(&keys)) {
                    map.remove(key);
                }
            }
            (4, Value::Object(map)) => {
                let text = *self.one(&TEXTS);
                map.insert(text.to_owned(), other);
            }
            (3 | 4, Value::Array(list)) => {
                let at = self.below(list.len() + 1);
                list.insert(at, other);
            }
            (5, Value::Array(list)) if !list.is_empty() => {
                let at = self.below(list.len());
                list.remove(at);
            }
            (_, Value::String(text)) if choice < 9 => {
                let mut bytes = self.bytes(std::mem::take(text).into_bytes());
                bytes.truncate(1 << 16);
                *text = String::from_utf8_lossy(&bytes).into_owned();
            }
            (5..=7, value) => {
                let number = *self.one(&NUMBERS);
                *value = serde_json::from_str(number).unwrap_or_default();
            }
            (8, value) => {
                let deep = (*self.one(&DEEP)).min(101);
                let inner = std::mem::take(value);
                *value = (0..deep).fold(inner, |inner, _| json!([inner]));
            }
            (_, value) => {
                let text = *self.one(&TEXTS);
                let any =
                    [Value::Null, json!(true), json!(text), json!([]), Value::Object(Map::new()), json!({ text: 0 })];
                *value = self.one(&any).clone();
            }
        }
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// Returns the value with a number, counted from the root on.
fn nth<'a>(value: &'a mut Value, n: &mut usize) -> Option<&'a mut Value> {
    if *n == 0 {
        return Some(value);
    }
    *n -= 1;
    match value {
        Value::Array(list) => list.iter_mut().find_map(|value| nth(value, n)),
        Value::Object(map) => map.values_mut().find_map(|value| nth(value, n)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}
