//! A search for secrets in clear, in every encoding in which they are likely to leave a process.

use crate::model::hex;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::path::Path;

/// How many bytes of a needle it is found by. Anything shorter would be found by chance.
const HEAD: usize = 8;

/// A search for secrets in clear: raw, quoted, in hexadecimal, percent-encoded, in base64 and in base64 twice, wherever
/// in a longer text they stand.
///
/// Give it every secret that a test puts in, and then everything that the program left behind or said:
///
/// ```
/// use lab_core::testing::Search;
///
/// let search = Search::of([("the password", "correct horse")]);
/// search.clean("the log", "created user me");
/// assert_eq!(search.found("Authorization: Basic bWU6Y29ycmVjdCBob3JzZQ==").len(), 1);
/// ```
///
/// A key in PEM is found by any one of its lines, and by the bytes that they encode.
#[derive(Clone, Default)]
pub struct Search {
    /// By their first bytes. Only ever asked for one, so that its order does not matter.
    needles: HashMap<[u8; HEAD], Vec<Needle>>,
    known: BTreeSet<Vec<u8>>,
}

#[derive(Clone)]
struct Needle {
    name: String,
    encoding: &'static str,
    bytes: Vec<u8>,
}

/// A secret that was found where it must not be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leak {
    /// The name of the secret.
    pub name: String,
    /// How it was encoded: `raw`, `base64`, `base64 twice`, `hex` or `percent`.
    pub encoding: &'static str,
}

impl Search {
    /// Returns a search for these secrets, each with the name that a leak is reported by.
    pub fn of<N: Into<String>, V: AsRef<[u8]>>(secrets: impl IntoIterator<Item = (N, V)>) -> Search {
        let mut search = Search::default();
        for (name, value) in secrets {
            search.add(name, value);
        }
        search
    }

    /// Looks for one more secret. Returns false when it is too short to be told from chance, and is not looked for.
    pub fn add(&mut self, name: impl Into<String>, value: impl AsRef<[u8]>) -> bool {
        let (name, value) = (name.into(), value.as_ref());
        let enough = value.len() >= HEAD;
        for (encoding, bytes) in pieces(value).iter().filter(|_| enough).flat_map(|piece| encodings(piece)) {
            if bytes.len() >= HEAD && self.known.insert(bytes.clone()) {
                let mut head = [0; HEAD];
                head.copy_from_slice(&bytes[..HEAD]);
                self.needles.entry(head).or_default().push(Needle { name: name.clone(), encoding, bytes });
            }
        }
        enough
    }

    /// Returns what is found in these bytes.
    pub fn found(&self, bytes: impl AsRef<[u8]>) -> BTreeSet<Leak> {
        let bytes = bytes.as_ref();
        let mut found = BTreeSet::new();
        for (at, head) in bytes.windows(HEAD).enumerate() {
            for needle in self.needles.get(head).into_iter().flatten() {
                if bytes[at..].starts_with(&needle.bytes) {
                    found.insert(Leak { name: needle.name.clone(), encoding: needle.encoding });
                }
            }
        }
        found
    }

    /// Returns what is found in the files of a directory and of those in it, by path. Links are not followed.
    pub fn found_in_dir(&self, dir: &Path) -> io::Result<BTreeMap<String, BTreeSet<Leak>>> {
        let mut all = BTreeMap::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if kind.is_dir() {
                all.extend(self.found_in_dir(&path)?);
            } else if kind.is_file() {
                let found = self.found(std::fs::read(&path)?);
                if !found.is_empty() {
                    all.insert(path.display().to_string(), found);
                }
            }
        }
        Ok(all)
    }

    /// Looks through `bytes`, which are called `what`.
    ///
    /// # Panics
    ///
    /// When a secret is found in them. The message shows them, so that the way it took can be seen.
    pub fn clean(&self, what: &str, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        let found = self.found(bytes);
        if let Some(leak) = found.first() {
            panic!("{what} holds {leak}:\n{}", String::from_utf8_lossy(bytes));
        }
    }
}

impl fmt::Debug for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Search").field("needles", &self.known.len()).finish()
    }
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.encoding)
    }
}

/// Returns what betrays a secret: itself; for a key in PEM, each of its lines and what they encode.
fn pieces(value: &[u8]) -> Vec<Vec<u8>> {
    let pem = std::str::from_utf8(value).ok().filter(|text| text.contains("-----BEGIN"));
    let Some(text) = pem.map(str::trim) else { return vec![value.to_vec()] };
    let body: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.starts_with("-----")).collect();
    let mut pieces: Vec<_> = body.iter().filter(|line| line.len() > 20).map(|line| line.as_bytes().to_vec()).collect();
    pieces.push(text.as_bytes().to_vec());
    pieces.extend(STANDARD.decode(body.concat()));
    pieces
}

/// Returns a piece in every encoding.
fn encodings(piece: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut all = vec![("raw", piece.to_vec())];
    if let Ok(text) = std::str::from_utf8(piece) {
        for quoted in [serde_json::Value::from(text).to_string(), format!("{text:?}")] {
            all.push(("raw", quoted.as_bytes()[1..quoted.len() - 1].to_vec()));
        }
    }
    for once in base64(piece) {
        all.extend(base64(&once).into_iter().map(|twice| ("base64 twice", twice)));
        all.push(("base64", once));
    }
    let plain = hex(piece);
    all.push(("hex", plain.to_uppercase().into_bytes()));
    all.push(("hex", plain.into_bytes()));
    // What is escaped differs from program to program: nothing but letters and digits, also a few marks, everything.
    for unescaped in [Some("-._~"), Some(""), None] {
        let escaped = |upper: bool| -> String {
            let one = |byte: &u8| match unescaped {
                Some(marks) if byte.is_ascii_alphanumeric() || marks.as_bytes().contains(byte) => {
                    char::from(*byte).to_string()
                }
                _ if upper => format!("%{byte:02X}"),
                _ => format!("%{byte:02x}"),
            };
            piece.iter().map(one).collect()
        };
        all.extend([("percent", escaped(true).into_bytes()), ("percent", escaped(false).into_bytes())]);
    }
    all
}

/// Returns `piece` in base64 for each of the three places in a group of bytes where it may begin in a longer text,
/// without the characters that its neighbours have a part in.
fn base64(piece: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for before in 0..3 {
        let padded = [&[0; 3][..before], piece].concat();
        let certain = [0, 2, 3][before]..padded.len() / 3 * 4;
        for engine in [&STANDARD, &URL_SAFE] {
            let text = engine.encode(&padded);
            all.extend(text.as_bytes().get(certain.clone()).map(<[u8]>::to_vec).filter(|inner| !all.contains(inner)));
        }
    }
    all
}
