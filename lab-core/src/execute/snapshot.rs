//! A state as one text: what a journal's snapshot is, written record by record and read by several threads.
//!
//! A large state is mostly its records, one after the other. So the text is cut between two records wherever that
//! suits, and each thread reads a piece. Where a cut fell is only guessed. That does no harm: two lists of members that
//! are sound by themselves are, with a comma between them, the one list that was cut; and when one of them is not sound,
//! the whole is read by one thread as if there had been no cut.

use super::journal::{Journal, Snapshot};
use super::store::StoreError;
use crate::model::{Illegal, Record, State, Tree, Urn, canonical};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use std::collections::BTreeMap;
use std::num::NonZero;
use std::thread;

/// After so many records it is known about how long the others are.
const SAMPLE: usize = 1000;
/// A text of fewer bytes is read by one thread: 1 MiB is some ten milliseconds.
const SMALL: usize = 1 << 20;
/// The most threads that read. With more, they wait for memory.
const MOST: usize = 8;
/// Where a record may end and the next begin. It occurs in any map of maps as well.
const SEAM: &[u8] = b"},\"";

/// Returns the canonical JSON of `rest` with these records in it.
pub(super) fn write(
    journal: &Journal,
    rest: &State,
    records: &BTreeMap<Urn, Box<Record>>,
) -> Result<Vec<u8>, StoreError> {
    let Value::Object(rest) = serde_json::to_value(rest).map_err(|error| Illegal(error.to_string()))? else {
        unreachable!("a state is a struct with named fields")
    };
    let rest: BTreeMap<String, Value> = rest.into_iter().collect();
    let mut text = Vec::new();
    for (key, value) in &rest {
        text.push(if text.is_empty() { b'{' } else { b',' });
        text.append(&mut canonical(&key.as_str().into()));
        text.push(b':');
        if key != "records" {
            journal.check_depth_at(1, value)?;
            text.append(&mut canonical(value));
            continue;
        }
        text.push(b'{');
        for (n, (urn, record)) in records.iter().enumerate() {
            if n > 0 {
                text.push(b',');
            }
            text.append(&mut canonical(&urn.as_str().into()));
            text.push(b':');
            let record = tree(record)?;
            // Each lies two levels below the top.
            journal.check_levels(2 + record.depth())?;
            text.extend_from_slice(record.text().as_bytes());
            if n == SAMPLE {
                text.reserve_exact((text.len() / SAMPLE + 8) * (records.len() - n));
            }
        }
        text.push(b'}');
    }
    text.push(b'}');
    Ok(text)
}

/// Returns `data` as a tree, without a tree in between.
pub(super) fn tree(data: &impl Serialize) -> Result<Tree, Illegal> {
    let text = serde_json::to_string(data).and_then(|text| Tree::read(&text));
    text.map_err(|error| Illegal(error.to_string()))
}

impl Snapshot for State {
    fn read(text: &[u8]) -> serde_json::Result<State> {
        // One core is left to the program, which is loaded meanwhile.
        let cores = || thread::available_parallelism().map_or(1, NonZero::get).saturating_sub(1).clamp(1, MOST);
        let state = if text.len() < SMALL { None } else { in_pieces(text, cores()) };
        // What is wrong with a text is found by reading it as one.
        state.map_or_else(|| serde_json::from_slice(text), Ok)
    }
}

/// Reads a state of which the records are cut into so many pieces, a thread each; nothing where that cannot be done.
fn in_pieces(text: &[u8], pieces: usize) -> Option<State> {
    let start = records(text)?;
    let seams = seams(text, start, pieces);
    let starts = std::iter::once(start).chain(seams.iter().map(|seam| seam + 1));
    let ends = seams.iter().copied().map(Some).chain([None]);
    let mut cuts = starts.zip(ends);
    let (_, first) = cuts.next()?;
    let read: Vec<Piece> = thread::scope(|scope| {
        let threads: Vec<_> = cuts
            .map(|(start, end)| thread::Builder::new().spawn_scoped(scope, move || piece(text, start, end)).ok())
            .collect();
        let others = threads.into_iter().map(|thread| thread?.join().ok()?);
        std::iter::once(piece(text, start, first)).chain(others).collect::<Option<Vec<Piece>>>()
    })?;
    let end = read.last()?.end;
    // The rest, with no records in it.
    let rest = [&text[..start], &text[end..]].concat();
    let mut state: State = serde_json::from_slice(&rest).ok()?;
    // Made of all entries at once a map is full; made one after the other it is half empty.
    state.records = read.into_iter().flat_map(|piece| piece.records).collect();
    Some(state)
}

/// Returns the sealed key of fingerprints that a state says, if it says one; nothing where the text is something else.
pub(super) fn key(text: &[u8]) -> Option<Option<String>> {
    let (name, mut at) = member(text, "key")?;
    if name == "key" { Some(Some(value(text, &mut at)?)) } else { Some(None) }
}

/// Returns where the first record begins.
fn records(text: &[u8]) -> Option<usize> {
    let (name, mut at) = member(text, "records")?;
    skip(text, &mut at, b'{').filter(|()| name == "records")?;
    Some(at)
}

/// Returns the member called `wanted`, and where its value begins; if there is none, the first behind where it would be.
fn member(text: &[u8], wanted: &str) -> Option<(String, usize)> {
    let mut at = 0;
    skip(text, &mut at, b'{')?;
    loop {
        let name: String = value(text, &mut at)?;
        skip(text, &mut at, b':')?;
        if *name >= *wanted {
            return Some((name, at));
        }
        value::<IgnoredAny>(text, &mut at)?;
        skip(text, &mut at, b',')?;
    }
}

/// Returns where the records that begin at `start` are cut into so many pieces; into fewer where that is all there are.
fn seams(text: &[u8], start: usize, pieces: usize) -> Vec<usize> {
    let length = (text.len() - start) / pieces;
    let mut seams: Vec<usize> = (1..pieces).filter_map(|n| seam(text, start + n * length)).collect();
    seams.dedup();
    seams
}

/// Returns a comma that looks as if it stood between two records, the first at or behind `from`.
fn seam(text: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += text.get(at..)?.windows(SEAM.len()).position(|bytes| bytes == SEAM)?;
        let comma = at + 1;
        let mut name = comma + 1;
        // In a map of a person's own, keys stand there that are no names of resources.
        if value::<String>(text, &mut name).is_some_and(|name| name.matches("::").count() >= 4)
            && text.get(name) == Some(&b':')
        {
            return Some(comma);
        }
        at = comma;
    }
}

/// Some of the records.
struct Piece {
    records: Vec<(Urn, Box<Record>)>,
    /// Where what follows them begins.
    end: usize,
}

/// Reads the records from `start` to the comma at `end`, or to the end of them all.
fn piece(text: &[u8], start: usize, end: Option<usize>) -> Option<Piece> {
    let (mut records, mut at) = (Vec::new(), start);
    loop {
        let urn = value(text, &mut at)?;
        skip(text, &mut at, b':')?;
        records.push((urn, value(text, &mut at)?));
        match (text.get(at)?, end) {
            (b',', Some(end)) if at == end => return Some(Piece { records, end }),
            (b'}', None) => return Some(Piece { records, end: at }),
            (b',', _) => at += 1,
            _ => return None,
        }
    }
}

/// Reads the value at `at`, and leaves `at` behind it.
fn value<T: DeserializeOwned>(text: &[u8], at: &mut usize) -> Option<T> {
    let mut values = serde_json::Deserializer::from_slice(text.get(*at..)?).into_iter();
    let value = values.next()?.ok()?;
    *at += values.byte_offset();
    Some(value)
}

/// Goes past a byte.
fn skip(text: &[u8], at: &mut usize, byte: u8) -> Option<()> {
    (text.get(*at) == Some(&byte)).then(|| *at += 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, Memory, Thing};

    /// A state of so many records, with texts in them that look like seams.
    fn state(count: usize) -> State {
        let bench = Bench::new();
        bench.up_whole(|stack| {
            let memory = stack.provider("memory", Memory::at("rack"));
            for n in 0..count {
                let text = [r#"},"a::b::c::d::e":{"#, r#"x"},"lab::memory::::memory:thing::t1":{}"#, "plain"][n % 3];
                memory.resource(&format!("t{n}")).add(Thing::new(&format!("t{n}"), text));
            }
            Ok(())
        });
        bench.state()
    }

    fn text(state: &State) -> Vec<u8> {
        canonical(&serde_json::to_value(state).expect("a state can be written"))
    }

    #[test]
    fn a_state_that_is_read_in_pieces_is_the_one_that_was_written() {
        let state = state(40);
        let text = text(&state);
        let start = records(&text).expect("there are records");
        for pieces in 1..=12 {
            assert!(pieces == 1 || !seams(&text, start, pieces).is_empty(), "it is cut");
            assert_eq!(in_pieces(&text, pieces).as_ref(), Some(&state), "{pieces}");
        }
    }

    /// A map of a person's own may look like records: it is cut there, found out, and read as a whole. The map is by far the most of the text, so
    /// every cut falls into it, however long what stands before and behind it happens to be.
    #[test]
    fn a_cut_in_the_wrong_place_is_found_out() {
        let mut value = serde_json::to_value(state(40)).expect("a state can be written");
        let looks_like_records: serde_json::Map<String, serde_json::Value> =
            (0..60_000).map(|n| (format!("a::b::c::d::{n}"), serde_json::json!({}))).collect();
        let records = value["records"].as_object_mut().expect("a map");
        records.values_mut().nth(20).expect("a record")["outputs"] = looks_like_records.into();
        let text = canonical(&value);
        assert!(text.len() > SMALL, "it is read in pieces");
        for pieces in 2..=12 {
            assert_eq!(in_pieces(&text, pieces), None, "{pieces}");
        }
        let whole = serde_json::from_slice::<State>(&text).expect("it is sound");
        assert_eq!(State::read(&text).expect("it is sound"), whole);
    }

    #[test]
    fn what_is_not_sound_is_not_read_in_pieces() {
        let text = text(&state(40));
        for cut in (1..text.len()).step_by(97) {
            assert_eq!(in_pieces(&text[..cut], 4), None, "cut at {cut}");
            let torn = [&text[..cut], &text[cut + 1..]].concat();
            let whole = serde_json::from_slice::<State>(&torn).ok();
            let pieces = in_pieces(&torn, 4);
            assert!(pieces.is_none() || pieces == whole, "without the byte at {cut}");
        }
    }

    #[test]
    fn a_state_without_records_is_read_as_a_whole() {
        let text = text(&State::default());
        assert_eq!(in_pieces(&text, 4), None);
        assert_eq!(State::read(&text).expect("it is sound"), State::default());
    }
}
