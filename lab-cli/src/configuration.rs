//! Configuration files: a typed value from TOML, or everything that is wrong with it, each with its place.
//!
//! Serde stops at the first thing that is wrong. A person who edits a file wants them all, so the document is decoded
//! again and again: something made up stands in for what is known to be wrong, until nothing new comes up. Keys that
//! the type does not know are refused, whatever its attributes say.

mod decode;
mod document;

use decode::{Decoder, Sheet};
use document::Position;
use lab_core::Place;
use serde::de::DeserializeOwned;
use std::fmt;

/// Something that is wrong with a configuration file, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file and the line.
    pub place: Place,
    /// The column, counted in characters from one.
    pub column: u32,
    /// What is wrong, with the keys that lead to it.
    pub message: String,
}

impl Problem {
    fn new(file: &str, at: Position, path: &str, message: &str) -> Problem {
        let message = if path.is_empty() { message.to_owned() } else { format!("{path}: {message}") };
        Problem { place: Place { file: file.into(), line: at.line }, column: at.column, message }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.place, self.column, self.message)
    }
}

/// How often a document is decoded before what was found has to do: each problem takes one attempt, and a few more
/// where it is not obvious what could stand in for it. A file that has hundreds of them is another file.
const ATTEMPTS: usize = 1000;

/// Reads `text` as a `T`, or returns every problem, in the order in which they stand. `file` is what they call it.
///
/// Where a type accepts nothing that can be made up, keys that are missing beside a value of it that is wrong or missing
/// are told once that is mended. So are the rest where hundreds are wrong, and then the last problem says so.
pub fn read<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, Vec<Problem>> {
    let root = document::parse(file, text)?;
    let mut sheet = Sheet::new(file);
    let mut attempts = 0;
    loop {
        let mut learned = false;
        for focus in sheet.focuses() {
            attempts += 1;
            if attempts > ATTEMPTS {
                return Err(sheet.into_problems(false));
            }
            sheet.begin(focus);
            match T::deserialize(Decoder::new(&root, &sheet)) {
                Ok(value) if sheet.problems().is_empty() => return Ok(value),
                // What is left out of a list hides what is wrong within: the next attempt is about that.
                Ok(_) => {}
                Err(wrong) => learned = sheet.learn(&root, wrong),
            }
            if learned {
                break;
            }
        }
        if !learned {
            return Err(sheet.into_problems(true));
        }
    }
}
