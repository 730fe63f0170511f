//! What one stack has lived through, in one file: a snapshot and, behind it, the frames written since.
//!
//! The file is text, a line each. Byte for byte:
//!
//! ```text
//! {"format":1,"magic":"lab journal","sha256":H,"snapshot":{"bytes":N,"sha256":H}}      or "snapshot":null
//! <the snapshot, N bytes of canonical JSON>                                            absent when null
//! {"after":H,"bytes":N,"n":1,"records":[...],"sha256":H}                               a frame, one per flush
//! ```
//!
//! Every `H` is 64 hexadecimal digits in quotes. A frame's `sha256` is that of its own line up to the comma before it;
//! `after` is the `sha256` of the frame before, of the header for the first. That chains the frames, and because
//! `after` is stored, a frame proves itself even when the one before is damaged: that is how damage in the middle is
//! told from a torn end.
//!
//! Snapshot and frames share one file because then a single rename replaces both. With two files there are moments in
//! which the new snapshot stands beside the old journal, and each needs its own way out.
//!
//! What is deliberately not here: the meaning of a record, and the decision when to compact.

use super::disk::{Disk, File, Reading, publish, stage, temporary};
pub use crate::model::canonical;
use crate::model::{Tree, hex};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// The format this version writes, and the newest it reads.
pub const FORMAT: u64 = 1;

/// The most bytes that the records of one frame may have: 64 MiB. A larger length in a file is damage, and is refused
/// before anything is reserved for it.
pub const MAX_FRAME: usize = 64 << 20;

/// The deepest nesting of a record or snapshot. The JSON parser gives up at 128, so deeper ones could be written and
/// never be read.
pub const MAX_DEPTH: usize = 100;

/// The deepest nesting of what a provider answers. Less than [`MAX_DEPTH`], because a record is put around it.
const MAX_ANSWER_DEPTH: usize = 64;

/// The most bytes of text in what a provider answers: 2 MiB. Sixteen steps may share a frame.
const MAX_ANSWER: usize = 2 << 20;

/// How much is shown of a snapshot before all of it is read: a large one takes a tenth of a second.
const HEAD: usize = 64 << 10;

const MAGIC: &str = "lab journal";
const FRAME_START: &[u8] = b"{\"after\":\"";

/// The journal of one stack, open for writing. Whoever holds it holds the lock of the lab directory.
pub struct Journal {
    disk: Arc<dyn Disk>,
    file_name: String,
    /// Header and snapshot; what the file is made of when nothing was appended yet. Let go of once they are written.
    base: Vec<u8>,
    base_bytes: u64,
    /// Absent until the first append when there are no frames yet: a run that changes nothing writes nothing.
    file: Option<Box<dyn File>>,
    tip: String,
    frames: u64,
    bytes: u64,
    flushes: u64,
    poisoned: Option<String>,
}

/// What a journal held when it was opened. `S` is what the snapshot was read as.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Opened<S = Value> {
    /// The last snapshot.
    pub snapshot: Option<S>,
    /// The records of each frame since, in order.
    pub frames: Vec<Vec<Value>>,
    /// What was left off at the end, if anything.
    pub cut: Option<Cut>,
}

/// Who is shown a snapshot that is all there is in a file, or how it begins, before it is proven. Returns whether it has
/// seen what it looked for; until then it is shown more.
pub(super) type Early<'a> = &'a mut dyn FnMut(&[u8]) -> bool;

/// What a snapshot can be read as.
pub trait Snapshot: Sized {
    /// Reads it from the JSON that was written. The error is that of a text which is something else.
    fn read(text: &[u8]) -> serde_json::Result<Self>;
}

impl Snapshot for Value {
    fn read(text: &[u8]) -> serde_json::Result<Value> {
        serde_json::from_slice(text)
    }
}

/// The torn end of a journal: a frame whose writer never learnt that it was durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The path of the file.
    pub file: String,
    /// The number of the frame, from 1.
    pub frame: u64,
    /// Where in the file it began, in bytes from 0.
    pub offset: u64,
    /// How many bytes were left of it.
    pub bytes: u64,
    /// What was wrong with it.
    pub why: String,
}

/// What [`Journal::verify`] found in a journal that is sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The path of the file.
    pub file: String,
    /// The format it is written in.
    pub format: u64,
    /// The size of the file in bytes.
    pub bytes: u64,
    /// The size of the snapshot in bytes; nothing when there is none.
    pub snapshot: Option<u64>,
    /// How many frames there are.
    pub frames: u64,
    /// How many records these hold.
    pub records: u64,
    /// The SHA-256 at the end of the chain, which stands for the whole content.
    pub tip: String,
    /// The torn end that the next writer will cut.
    pub cut: Option<Cut>,
}

/// Why a journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk refused.
    #[error("{attempt} {file}: {source}")]
    Disk {
        /// What was attempted: `read`, `write` ...
        attempt: &'static str,
        /// The path of the file.
        file: String,
        /// What the disk said.
        source: io::Error,
    },
    /// The file is not what was written.
    #[error("read {file}: {part} is damaged at byte {offset}: {what}")]
    Damaged {
        /// The path of the file.
        file: String,
        /// `header`, `snapshot` or `frame 7`.
        part: String,
        /// Where that part begins, in bytes from 0.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// The file was never a journal.
    #[error("read {file}: it is not a lab journal")]
    Foreign {
        /// The path of the file.
        file: String,
    },
    /// A newer version of this program wrote the file.
    #[error("read {file}: it has format {found}, this version reads formats up to {FORMAT}")]
    Newer {
        /// The path of the file.
        file: String,
        /// Its format.
        found: u64,
    },
    /// A part is sound and says something that this version does not know.
    #[error("read {file}: {part} is not understood: {why}")]
    Unknown {
        /// The path of the file.
        file: String,
        /// `snapshot`.
        part: String,
        /// Why not.
        why: String,
    },
    /// One frame or snapshot is more than can be read back. Nothing was written.
    #[error("write {file}: {what}")]
    Unreadable {
        /// The path of the file.
        file: String,
        /// What there is too much of.
        what: String,
    },
    /// An earlier write failed, and what it left behind is not known to this process.
    #[error("write {file}: an earlier write failed ({earlier}); run the command again, it goes on from what is stored")]
    Poisoned {
        /// The path of the file.
        file: String,
        /// The failure.
        earlier: String,
    },
}

impl JournalError {
    /// Returns what the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            JournalError::Disk { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "make room on the disk, then run the command again: it goes on from what is stored"
            }
            JournalError::Disk { .. } => {
                "see that the disk and the permissions are in order, then run the command again"
            }
            JournalError::Damaged { .. } => {
                "nothing was changed; restore this file from a backup, and check the disk it was on"
            }
            JournalError::Unknown { .. } => {
                "the state was written by another version of lab or changed by hand; restore the last copy of it"
            }
            JournalError::Foreign { .. } => "point --state at the lab's own directory, or move the file away",
            JournalError::Newer { .. } => "update lab to the version that wrote the file, or a later one",
            JournalError::Unreadable { .. } => "store the large part outside the stack and refer to it",
            JournalError::Poisoned { .. } => "run the command again: it goes on from what is stored",
        }
    }
}

impl Journal {
    /// Opens the journal of the stack `name` for writing.
    ///
    /// A torn last frame is cut, and everything that is returned is durable. A journal that does not exist yet is
    /// empty; its file appears with the first [`Journal::append`].
    pub fn open(disk: Arc<dyn Disk>, name: &str) -> Result<(Journal, Opened), JournalError> {
        Journal::open_early(disk, name, &mut |_| true)
    }

    /// Opens the journal as [`Journal::open`] does and reads its snapshot as an `S`, without a tree of it in between.
    /// Where the snapshot is all there is, its text is handed to `early`: before it is proven to be what was written.
    pub(super) fn open_early<S: Snapshot>(
        disk: Arc<dyn Disk>,
        name: &str,
        early: Early<'_>,
    ) -> Result<(Journal, Opened<S>), JournalError> {
        let file_name = file_name(name);
        let staged = temporary(&file_name);
        let place = disk.place(&file_name);
        let failed = |attempt, source| JournalError::Disk { attempt, file: place.clone(), source };
        let content = read(&*disk, &file_name, early)?;
        if disk.list().map_err(|error| failed("list the directory of", error))?.contains(&staged) {
            disk.remove(&staged).map_err(|error| failed("remove the unfinished copy of", error))?;
        }
        let stored = content.bytes.is_some();
        let mut bytes = content.bytes.unwrap_or_else(|| base(None));
        let base_bytes = if stored { content.base } else { bytes.len() };
        bytes.truncate(content.sound.max(base_bytes));
        let mut journal = Journal {
            file: None,
            tip: content.tip,
            frames: content.opened.frames.len() as u64,
            bytes: bytes.len() as u64,
            flushes: 0,
            poisoned: None,
            base_bytes: base_bytes as u64,
            base: Vec::new(),
            file_name,
            disk: Arc::clone(&disk),
        };
        if journal.frames > 0 || content.opened.cut.is_some() {
            // What can be read is not thereby durable: the process before may have been told that its flush failed,
            // and then the last frame lives in the kernel's memory only, where another flush no longer finds it. Nor
            // is shortening the file in place an option while acknowledged frames are in it. So it is copied, as
            // every replacement is.
            journal.file = Some(journal.replace(&bytes)?);
        } else {
            journal.base = bytes;
            if stored {
                disk.sync_dir().map_err(|error| failed("flush the directory of", error))?;
            }
        }
        Ok((journal, content.opened))
    }

    /// Reads the journal of the stack `name` and changes nothing. `cut` tells what a writer would cut.
    pub fn read(disk: &dyn Disk, name: &str) -> Result<Opened, JournalError> {
        Journal::read_early(disk, name, &mut |_| true)
    }

    /// Reads the journal as [`Journal::read`] does, its snapshot as an `S`, and hands out the text of that as
    /// [`Journal::open_early`] does.
    pub(super) fn read_early<S: Snapshot>(
        disk: &dyn Disk,
        name: &str,
        early: Early<'_>,
    ) -> Result<Opened<S>, JournalError> {
        Ok(read(disk, &file_name(name), early)?.opened)
    }

    /// Checks the journal of the stack `name` from end to end and changes nothing. Returns nothing when there is none.
    pub fn verify(disk: &dyn Disk, name: &str) -> Result<Option<Report>, JournalError> {
        let file_name = file_name(name);
        let content = read::<Value>(disk, &file_name, &mut |_| true)?;
        let Some(bytes) = &content.bytes else { return Ok(None) };
        Ok(Some(Report {
            file: disk.place(&file_name),
            format: FORMAT,
            bytes: bytes.len() as u64,
            snapshot: content.snapshot_bytes,
            frames: content.opened.frames.len() as u64,
            records: content.opened.frames.iter().map(|records| records.len() as u64).sum(),
            tip: content.tip,
            cut: content.opened.cut,
        }))
    }

    /// Appends `records` as one frame, and returns once it is durable. No records are no frame.
    ///
    /// After a failed write or flush nobody knows what is stored, so the journal then answers every call with
    /// [`JournalError::Poisoned`]; the next [`Journal::open`] finds out.
    pub fn append(&mut self, records: &[Value]) -> Result<(), JournalError> {
        let mut text = Vec::new();
        for (index, record) in records.iter().enumerate() {
            text.push(if index > 0 { b',' } else { b'[' });
            self.check_depth(record)?;
            text.extend_from_slice(&canonical(record));
        }
        text.extend_from_slice(if records.is_empty() { b"[]" } else { b"]" });
        self.append_text(text)
    }

    /// Appends as [`Journal::append`] does, records that are a list in canonical JSON already and no deeper than
    /// [`MAX_DEPTH`] each.
    pub(crate) fn append_text(&mut self, mut text: Vec<u8>) -> Result<(), JournalError> {
        self.check_sound()?;
        if text == b"[]" {
            return Ok(());
        }
        if text.len() > MAX_FRAME {
            return Err(
                self.unreadable(format!("a frame of {} bytes is over the {MAX_FRAME} that are read", text.len()))
            );
        }
        let n = self.frames + 1;
        let mut line = format!(r#"{{"after":"{}","bytes":{},"n":{n},"records":"#, self.tip, text.len()).into_bytes();
        line.append(&mut text);
        let tip = sha256(&line);
        line.extend_from_slice(format!(",\"sha256\":\"{tip}\"}}\n").as_bytes());

        let mut file = match self.file.take() {
            Some(file) => file,
            None => {
                let base = std::mem::take(&mut self.base);
                self.replace(&base).inspect_err(|_| self.base = base)?
            }
        };
        if let Err(source) = file.write(&line).and_then(|()| file.flush()) {
            return Err(self.poison("write", source));
        }
        self.flushes += 1;
        self.file = Some(file);
        self.tip = tip;
        self.frames = n;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Puts `snapshot` in the place of everything stored so far, durably and all at once.
    ///
    /// When there is no room for the new file, the old one is untouched and the journal stays usable.
    pub fn compact(&mut self, snapshot: &Value) -> Result<(), JournalError> {
        self.check_depth(snapshot)?;
        self.compact_text(canonical(snapshot))
    }

    /// Compacts as [`Journal::compact`] does, to a snapshot that is canonical JSON already.
    pub(crate) fn compact_text(&mut self, snapshot: Vec<u8>) -> Result<(), JournalError> {
        self.check_sound()?;
        let base = base(Some(snapshot));
        let file = self.replace(&base)?;
        self.tip = tip_of(&base);
        self.bytes = base.len() as u64;
        self.base_bytes = self.bytes;
        self.base = Vec::new();
        self.frames = 0;
        self.file = Some(file);
        Ok(())
    }

    /// Returns how many frames follow the snapshot.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Returns how many bytes follow the snapshot: with the snapshot's own size, what a compaction is decided by.
    pub fn frame_bytes(&self) -> u64 {
        self.bytes - self.base_bytes
    }

    /// Returns the size of header and snapshot in bytes.
    pub fn base_bytes(&self) -> u64 {
        self.base_bytes
    }

    /// Returns how often the disk was asked to make something durable.
    pub fn flushes(&self) -> u64 {
        self.flushes
    }

    fn replace(&mut self, bytes: &[u8]) -> Result<Box<dyn File>, JournalError> {
        let staged = stage(&*self.disk, &self.file_name, bytes);
        let file = staged.map_err(|source| self.failed("write a copy of", source))?;
        publish(&*self.disk, &self.file_name).map_err(|source| self.poison("replace", source))?;
        // The content, and then its name.
        self.flushes += 2;
        Ok(file)
    }

    fn poison(&mut self, attempt: &'static str, source: io::Error) -> JournalError {
        self.poisoned = Some(source.to_string());
        self.file = None;
        self.failed(attempt, source)
    }

    fn failed(&self, attempt: &'static str, source: io::Error) -> JournalError {
        JournalError::Disk { attempt, file: self.disk.place(&self.file_name), source }
    }

    fn unreadable(&self, what: String) -> JournalError {
        JournalError::Unreadable { file: self.disk.place(&self.file_name), what }
    }

    fn check_sound(&self) -> Result<(), JournalError> {
        match &self.poisoned {
            None => Ok(()),
            Some(earlier) => {
                let file = self.disk.place(&self.file_name);
                Err(JournalError::Poisoned { file, earlier: earlier.clone() })
            }
        }
    }

    fn check_depth(&self, value: &Value) -> Result<(), JournalError> {
        self.check_depth_at(0, value)
    }

    /// Refuses what is nested deeper than can be read back, when it lies so many `levels` below the top.
    pub(crate) fn check_depth_at(&self, levels: usize, value: &Value) -> Result<(), JournalError> {
        if nests_deeper(value, MAX_DEPTH - levels) {
            return Err(self.too_deep());
        }
        Ok(())
    }

    /// Refuses as well what was found to have so many levels of lists and maps in all.
    pub(crate) fn check_levels(&self, levels: usize) -> Result<(), JournalError> {
        if levels > MAX_DEPTH { Err(self.too_deep()) } else { Ok(()) }
    }

    fn too_deep(&self) -> JournalError {
        self.unreadable(format!("a value is nested deeper than {MAX_DEPTH} levels"))
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Journal");
        debug.field("file", &self.disk.place(&self.file_name)).field("frames", &self.frames);
        debug.field("poisoned", &self.poisoned).finish_non_exhaustive()
    }
}

fn nests_deeper(value: &Value, levels: usize) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        Value::Array(items) => levels == 0 || items.iter().any(|item| nests_deeper(item, levels - 1)),
        Value::Object(fields) => levels == 0 || fields.values().any(|field| nests_deeper(field, levels - 1)),
    }
}

/// Says why `value`, which came from outside, cannot be stored. One such value would keep every other record of its
/// frame from being written.
pub(super) fn storable(value: &Value) -> Result<(), String> {
    if nests_deeper(value, MAX_ANSWER_DEPTH) {
        return Err(format!("it is nested deeper than {MAX_ANSWER_DEPTH} levels"));
    }
    let size = text_size(value);
    if size > MAX_ANSWER {
        return Err(format!("it has {size} bytes of text, more than {MAX_ANSWER}"));
    }
    Ok(())
}

/// Says the same of a tree.
pub(super) fn storable_tree(tree: &Tree) -> Result<(), String> {
    // A number is one byte and a comma at the least, and counts for eight.
    let small = tree.text().len() <= MAX_ANSWER / 4 && tree.depth() <= MAX_ANSWER_DEPTH;
    if small { Ok(()) } else { storable(&tree.value()) }
}

fn text_size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(text_size).sum(),
        Value::Object(fields) => fields.iter().map(|(name, field)| name.len() + text_size(field)).sum(),
    }
}

/// Returns the SHA-256 of `bytes` as 64 lower-case hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn file_name(name: &str) -> String {
    format!("{name}.journal")
}

/// Returns the header and the snapshot as they stand at the beginning of a file.
fn base(snapshot: Option<Vec<u8>>) -> Vec<u8> {
    let Some(mut text) = snapshot else { return header(Value::Null) };
    let header = header(json!({ "bytes": text.len(), "sha256": sha256(&text) }));
    // In place: a snapshot is the largest thing there is, and need not be there twice.
    text.push(b'\n');
    text.splice(..0, header);
    text
}

/// Returns the header line that names a snapshot.
fn header(snapshot: Value) -> Vec<u8> {
    let mut header = json!({ "format": FORMAT, "magic": MAGIC, "snapshot": snapshot });
    header["sha256"] = sha256(&canonical(&header)).into();
    let mut line = canonical(&header);
    line.push(b'\n');
    line
}

/// Returns where the chain starts. The header's hash covers the snapshot's.
fn tip_of(base: &[u8]) -> String {
    let line = base.split(|byte| *byte == b'\n').next().unwrap_or_default();
    sha256(line)
}

/// A file that was read and found sound, but perhaps for its end.
struct Content<S> {
    /// The whole file; nothing when there is none.
    bytes: Option<Vec<u8>>,
    /// How far header and snapshot go, and how far the valid frames.
    base: usize,
    sound: usize,
    snapshot_bytes: Option<u64>,
    tip: String,
    opened: Opened<S>,
}

fn read<S: Snapshot>(disk: &dyn Disk, file_name: &str, early: Early<'_>) -> Result<Content<S>, JournalError> {
    let file = disk.place(file_name);
    let failed = |source| JournalError::Disk { attempt: "read", file: file.clone(), source };
    let Some(reading) = disk.open(file_name, HEAD).map_err(failed)? else {
        let tip = tip_of(&base(None));
        let opened = Opened { snapshot: None, frames: Vec::new(), cut: None };
        return Ok(Content { bytes: None, base: 0, sound: 0, snapshot_bytes: None, tip, opened });
    };
    let shown = show_head(&reading, early);
    let bytes = reading.all().map_err(failed)?;
    let damaged = |part: &str, offset: usize, what: String| JournalError::Damaged {
        file: file.clone(),
        part: part.to_owned(),
        offset: offset as u64,
        what,
    };

    let (about, mut at) = read_header(&bytes, &file)?;
    let mut tip = tip_of(&bytes[..at]);
    let mut opened = Opened { snapshot: None, frames: Vec::new(), cut: None };
    let mut snapshot_bytes = None;
    if let Some((length, hash)) = about {
        let text = usize::try_from(length).ok().and_then(|length| bytes[at..].get(..length));
        let Some(text) = text else {
            let there = bytes.len() - at;
            return Err(damaged("the snapshot", at, format!("it has {length} bytes, only {there} are there")));
        };
        if !shown && bytes.len() == at + text.len() + 1 {
            early(text);
        }
        if sha256(text) != hash {
            return Err(damaged("the snapshot", at, "its content does not fit its SHA-256 in the header".into()));
        }
        if bytes.get(at + text.len()) != Some(&b'\n') {
            return Err(damaged("the snapshot", at, "its line does not end where the header says".into()));
        }
        // Its content is proven to be what was written; whoever wrote it may be newer.
        let snapshot = S::read(text).map_err(|error| JournalError::Unknown {
            file: file.clone(),
            part: "the snapshot".into(),
            why: error.to_string(),
        })?;
        opened.snapshot = Some(snapshot);
        snapshot_bytes = Some(length);
        at += text.len() + 1;
    }

    let base = at;
    while at < bytes.len() {
        let n = opened.frames.len() as u64 + 1;
        let part = format!("frame {n}");
        let frame = match Frame::parse(&bytes, at) {
            Ok(frame) => frame,
            Err(why) => {
                let rest = &bytes[at..];
                if let Some((other, n)) = next_frame(&bytes, at + 1) {
                    return Err(damaged(&part, at, format!("{why}, and a valid frame {n} follows at byte {other}")));
                }
                if let Some(but) = whole(rest) {
                    return Err(damaged(&part, at, format!("{why}, and {but}")));
                }
                let (offset, left) = (at as u64, rest.len() as u64);
                opened.cut = Some(Cut { file: file.clone(), frame: n, offset, bytes: left, why });
                break;
            }
        };
        if frame.after != tip || frame.n != n {
            // It proves itself, so it is not torn: something before it is missing, or it comes from elsewhere.
            let what = format!("it calls itself frame {} and does not continue what stands before it", frame.n);
            return Err(damaged(&part, at, what));
        }
        let records = serde_json::from_slice(&bytes[frame.records.clone()]);
        opened.frames.push(records.map_err(|error| damaged(&part, at, error.to_string()))?);
        tip = frame.sha256;
        at = frame.end;
    }
    Ok(Content { base, sound: at, snapshot_bytes, tip, opened, bytes: Some(bytes) })
}

/// Shows how a snapshot begins that is all there is in a file. What is wrong with it is said by whoever reads all of it.
fn show_head(reading: &Reading, early: Early<'_>) -> bool {
    let Ok((Some((snapshot, _)), at)) = read_header(&reading.head, "") else { return false };
    let alone = snapshot.checked_add(at as u64 + 1) == Some(reading.length);
    alone && early(&reading.head[at..])
}

/// Reads the first line. Returns the snapshot's length and hash, and where the line ends.
fn read_header(bytes: &[u8], file: &str) -> Result<(Option<(u64, String)>, usize), JournalError> {
    let damaged = |what: &str| JournalError::Damaged {
        file: file.to_owned(),
        part: "the header".into(),
        offset: 0,
        what: what.to_owned(),
    };
    if bytes.is_empty() {
        return Err(damaged("the file is empty"));
    }
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(|| damaged("its line has no end"))? + 1;
    let header: Value = serde_json::from_slice(&bytes[..end - 1]).map_err(|_| damaged("its line is not JSON"))?;
    if header["magic"] != MAGIC {
        return Err(JournalError::Foreign { file: file.to_owned() });
    }
    // Before anything else of it is believed: a newer format may hash its header in another way.
    match header["format"].as_u64() {
        Some(FORMAT) => {}
        Some(found) if found > FORMAT => return Err(JournalError::Newer { file: file.to_owned(), found }),
        _ => return Err(damaged("it has no format that was ever written")),
    }
    let snapshot = header["snapshot"].clone();
    let about = snapshot["bytes"].as_u64().zip(snapshot["sha256"].as_str().map(str::to_owned));
    let understood = about.is_some() || snapshot.is_null();
    // Written again from what was understood, so that not one byte of it goes unnoticed.
    if !understood || self::header(snapshot) != bytes[..end] {
        return Err(damaged("its content does not fit its SHA-256"));
    }
    Ok((about, end))
}

/// A frame that proves itself: its content fits its own hash. Whether it belongs here is the caller's question.
struct Frame {
    after: String,
    n: u64,
    records: Range<usize>,
    sha256: String,
    end: usize,
}

impl Frame {
    /// Returns how long the frame at the beginning of `bytes` says it is, from its first byte to its last.
    fn claimed(bytes: &[u8]) -> Option<usize> {
        let mut cursor = Cursor { bytes, at: 0 };
        cursor.expect(FRAME_START).ok()?;
        cursor.digest().ok()?;
        cursor.expect(b"\",\"bytes\":").ok()?;
        let length = cursor.number().ok().filter(|length| *length <= MAX_FRAME as u64)?;
        cursor.expect(b",\"n\":").ok()?;
        cursor.number().ok()?;
        cursor.expect(b",\"records\":").ok()?;
        Some(cursor.at + length as usize + b",\"sha256\":\"".len() + 64 + b"\"}\n".len())
    }

    fn parse(bytes: &[u8], at: usize) -> Result<Frame, String> {
        let mut cursor = Cursor { bytes, at };
        cursor.expect(FRAME_START)?;
        let after = cursor.digest()?;
        cursor.expect(b"\",\"bytes\":")?;
        let length = cursor.number()?;
        if length > MAX_FRAME as u64 {
            return Err(format!("it claims {length} bytes, more than the {MAX_FRAME} a frame may have"));
        }
        cursor.expect(b",\"n\":")?;
        let n = cursor.number()?;
        cursor.expect(b",\"records\":")?;
        let records = cursor.at..cursor.at + length as usize;
        if records.end > bytes.len() {
            return Err(format!("it claims {length} bytes, only {} are there", bytes.len() - records.start));
        }
        cursor.at = records.end;
        cursor.expect(b",\"sha256\":\"")?;
        let stored = cursor.digest()?;
        cursor.expect(b"\"}\n")?;
        if sha256(&bytes[at..records.end]) != stored {
            return Err("its content does not fit its SHA-256".into());
        }
        Ok(Frame { after, n, records, sha256: stored, end: cursor.at })
    }
}

/// Says why `rest`, which ends the file and is no valid frame, is not what a write that was cut off leaves either.
///
/// A frame is one write, and its only line end is its last byte. A process that dies within the write leaves a
/// beginning of it. A power loss leaves sectors of it, and zeros for those before them. Neither leaves it whole: what is
/// whole and does not fit was whole once, and somebody may have been told so.
fn whole(rest: &[u8]) -> Option<&'static str> {
    let (last, before) = rest.split_last()?;
    let claimed = Frame::claimed(rest);
    if before.contains(&b'\n') || claimed.is_some_and(|length| length < rest.len()) {
        return Some("it is not the last");
    }
    // Records hold no zeros. A single one within them was another byte, at the ends it may be the rest of a sector.
    let holes = rest.windows(2).any(|pair| pair == [0, 0]) || rest[0] == 0 || *last == 0;
    let ends = *last == b'\n' || claimed == Some(rest.len());
    (ends && !holes).then_some("it is whole: nothing that was cut off looks like that")
}

/// Returns the offset and number of the first frame at or after `from` that proves itself.
///
/// Every place where one might begin is tried, not only beginnings of lines: the line end may be what was damaged.
fn next_frame(bytes: &[u8], from: usize) -> Option<(usize, u64)> {
    let tail = bytes.get(from..)?;
    let starts = tail.windows(FRAME_START.len()).enumerate().filter(|(_, window)| *window == FRAME_START);
    starts.map(|(at, _)| from + at).find_map(|at| Frame::parse(bytes, at).ok().map(|frame| (at, frame.n)))
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn expect(&mut self, text: &[u8]) -> Result<(), String> {
        let rest = &self.bytes[self.at..];
        if !rest.starts_with(text) {
            let ended = rest.len() < text.len() && text.starts_with(rest);
            let what = if ended { "it ends too early" } else { "it is not written like a frame" };
            return Err(what.into());
        }
        self.at += text.len();
        Ok(())
    }

    fn digest(&mut self) -> Result<String, String> {
        let text = self.bytes[self.at..].get(..64).ok_or("it ends too early")?;
        if !text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err("it is not written like a frame".into());
        }
        self.at += 64;
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    fn number(&mut self) -> Result<u64, String> {
        let rest = &self.bytes[self.at..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).take(20).count();
        let text = String::from_utf8_lossy(&rest[..digits]);
        let number = text.parse().map_err(|_| "it is not written like a frame".to_owned())?;
        self.at += digits;
        Ok(number)
    }
}
