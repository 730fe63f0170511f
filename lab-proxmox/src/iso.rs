//! A small ISO 9660 image: files in the root, with their real names by Rock Ridge and by Joliet.
//!
//! The same files give the same bytes: no date, no randomness. Written after ECMA-119 (ISO 9660), the Joliet
//! specification and IEEE P1281/P1282 (SUSP and Rock Ridge); directories and files beyond 4 GiB are left out, because
//! a seed for cloud-init has neither.

const SECTOR: usize = 2048;
/// The first sectors belong to whoever boots from the image.
const SYSTEM: usize = 16;
const PRIMARY: usize = SYSTEM;
const JOLIET: usize = SYSTEM + 1;
const END: usize = SYSTEM + 2;
/// Each volume has its table of paths twice: little-endian and big-endian.
const PRIMARY_PATHS: usize = SYSTEM + 3;
const JOLIET_PATHS: usize = SYSTEM + 5;
const PRIMARY_ROOT: usize = SYSTEM + 7;
const JOLIET_ROOT: usize = SYSTEM + 8;
/// What does not fit into the root's own record.
const CONTINUATION: usize = SYSTEM + 9;
const FILES: usize = SYSTEM + 10;
/// The first of January 2000, as a directory has dates.
const DATE: [u8; 7] = [100, 1, 1, 0, 0, 0, 0];
const RIDGE: [&[u8]; 3] = [
    b"RRIP_1991A",
    b"THE ROCK RIDGE INTERCHANGE PROTOCOL PROVIDES SUPPORT FOR POSIX FILE SYSTEM SEMANTICS",
    b"PLEASE CONTACT DISC PUBLISHER FOR SPECIFICATION SOURCE.",
];

/// Returns an image called `label` that holds `files`: at most some dozen, with short names.
pub(crate) fn build(label: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut at = FILES;
    let mut placed: Vec<Placed<'_>> = Vec::new();
    for (name, content) in files {
        placed.push(Placed { name, content, at });
        at += content.len().div_ceil(SECTOR);
    }
    let mut image = vec![0; at * SECTOR];
    let mut put =
        |sector: usize, bytes: &[u8]| image[sector * SECTOR..sector * SECTOR + bytes.len()].copy_from_slice(bytes);
    put(PRIMARY, &volume(1, &pad(label.as_bytes(), 32, b" "), PRIMARY_PATHS, PRIMARY_ROOT, at));
    put(JOLIET, &volume(2, &pad(&wide(label), 32, b"\0 "), JOLIET_PATHS, JOLIET_ROOT, at));
    put(END, b"\xffCD001\x01");
    for (paths, root) in [(PRIMARY_PATHS, PRIMARY_ROOT), (JOLIET_PATHS, JOLIET_ROOT)] {
        let root = number(root);
        put(paths, &[&[1, 0][..], &root.to_le_bytes(), &[1, 0, 0, 0]].concat());
        put(paths + 1, &[&[1, 0][..], &root.to_be_bytes(), &[0, 1, 0, 0]].concat());
    }
    put(PRIMARY_ROOT, &directory(PRIMARY_ROOT, &placed, false));
    put(JOLIET_ROOT, &directory(JOLIET_ROOT, &placed, true));
    put(CONTINUATION, &extensions());
    for file in &placed {
        put(file.at, file.content);
    }
    image
}

struct Placed<'a> {
    name: &'a str,
    content: &'a [u8],
    at: usize,
}

fn number(n: usize) -> u32 {
    u32::try_from(n).expect("an image that is built in memory has fewer than 2^32 sectors and bytes")
}

/// Writes a number in both orders of bytes.
fn both32(n: usize) -> [u8; 8] {
    let n = number(n);
    let mut both = [0; 8];
    both[..4].copy_from_slice(&n.to_le_bytes());
    both[4..].copy_from_slice(&n.to_be_bytes());
    both
}

fn both16(n: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (n.to_le_bytes(), n.to_be_bytes());
    [a, b, c, d]
}

/// Writes a text as UCS-2, high byte first.
fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

fn pad(bytes: &[u8], length: usize, with: &[u8]) -> Vec<u8> {
    bytes.iter().chain(with.iter().cycle()).copied().take(length).collect()
}

/// Returns a volume descriptor: of type 1, or of type 2 for Joliet.
fn volume(kind: u8, label: &[u8], paths: usize, root: usize, sectors: usize) -> Vec<u8> {
    let joliet = kind == 2;
    let blank: &[u8] = if joliet { b"\0 " } else { b" " };
    let mut bytes = Vec::with_capacity(SECTOR);
    bytes.push(kind);
    bytes.extend_from_slice(b"CD001\x01\0");
    bytes.extend(pad(&[], 32, blank));
    bytes.extend_from_slice(label);
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&both32(sectors));
    // Level 3 of UCS-2 is what says that this is Joliet.
    bytes.extend(pad(if joliet { b"%/E" } else { b"" }, 32, b"\0"));
    bytes.extend_from_slice(&both16(1));
    bytes.extend_from_slice(&both16(1));
    bytes.extend_from_slice(&both16(2048));
    bytes.extend_from_slice(&both32(10));
    bytes.extend_from_slice(&number(paths).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&number(paths + 1).to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend(record(&[0], root, SECTOR, true, &[]));
    // Set, publisher, preparer, application, and the names of three files that there are not.
    bytes.extend(pad(&[], 4 * 128 + 3 * 37, blank));
    for _ in 0..4 {
        bytes.extend_from_slice(b"0000000000000000\0");
    }
    bytes.push(1);
    bytes
}

/// Returns one record of a directory. `name`: as it is written, `[0]` for itself and `[1]` for its parent.
fn record(name: &[u8], at: usize, length: usize, directory: bool, system: &[u8]) -> Vec<u8> {
    let gap = usize::from(name.len().is_multiple_of(2));
    let used = 33 + name.len() + gap + system.len();
    let size = used + used % 2;
    let mut bytes = Vec::with_capacity(size);
    bytes.push(u8::try_from(size).expect("names and what the system wants to know are short"));
    bytes.push(0);
    bytes.extend_from_slice(&both32(at));
    bytes.extend_from_slice(&both32(length));
    bytes.extend_from_slice(&DATE);
    bytes.extend_from_slice(&[if directory { 2 } else { 0 }, 0, 0]);
    bytes.extend_from_slice(&both16(1));
    bytes.push(u8::try_from(name.len()).expect("names are short"));
    bytes.extend_from_slice(name);
    bytes.resize(33 + name.len() + gap, 0);
    bytes.extend_from_slice(system);
    bytes.resize(size, 0);
    bytes
}

/// Returns the root of a volume, its files in the order of their names.
fn directory(at: usize, files: &[Placed<'_>], joliet: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (own, parent) = if joliet { (vec![], vec![]) } else { (root(), posix(true)) };
    bytes.extend(record(&[0], at, SECTOR, true, &own));
    bytes.extend(record(&[1], at, SECTOR, true, &parent));
    let mut named: Vec<(Vec<u8>, &Placed<'_>)> = files
        .iter()
        .map(|file| (if joliet { wide(&format!("{};1", file.name)) } else { plain(file.name) }, file))
        .collect();
    named.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (name, file) in named {
        let system = if joliet { vec![] } else { [posix(false), real(file.name)].concat() };
        bytes.extend(record(&name, file.at, file.content.len(), false, &system));
    }
    assert!(bytes.len() <= SECTOR, "the files of an image must fit into one sector of its directory");
    bytes
}

/// Returns the name of a file as every reader takes it: eight capital letters or digits.
fn plain(name: &str) -> Vec<u8> {
    let letters: String = name.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
    format!("{}.;1", letters.to_ascii_uppercase()).into_bytes()
}

/// What the root says about itself: that what the system wants to know is here, and goes on elsewhere.
fn root() -> Vec<u8> {
    let mut bytes = b"SP\x07\x01\xbe\xef\0".to_vec();
    bytes.extend(posix(true));
    bytes.extend_from_slice(b"CE\x1c\x01");
    bytes.extend_from_slice(&both32(CONTINUATION));
    bytes.extend_from_slice(&both32(0));
    bytes.extend_from_slice(&both32(extensions().len()));
    bytes
}

/// Names the extension that is used.
fn extensions() -> Vec<u8> {
    let short = |text: &[u8]| u8::try_from(text.len()).expect("the texts of the extension are short");
    let length: usize = 8 + RIDGE.iter().map(|text| text.len()).sum::<usize>();
    let mut bytes = b"ER".to_vec();
    bytes.push(u8::try_from(length).expect("the texts of the extension are short"));
    bytes.push(1);
    bytes.extend(RIDGE.iter().map(|text| short(text)));
    bytes.push(1);
    bytes.extend(RIDGE.concat());
    bytes
}

/// Who may do what with a file: everybody may read it.
fn posix(directory: bool) -> Vec<u8> {
    let (mode, links) = if directory { (0o040_555, 2) } else { (0o100_444, 1) };
    let mut bytes = b"PX\x24\x01".to_vec();
    for n in [mode, links, 0, 0] {
        bytes.extend_from_slice(&both32(n));
    }
    bytes
}

/// The real name of a file.
fn real(name: &str) -> Vec<u8> {
    let mut bytes = b"NM".to_vec();
    bytes.push(u8::try_from(5 + name.len()).expect("names are short"));
    bytes.extend_from_slice(&[1, 0]);
    bytes.extend_from_slice(name.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A reader that shares nothing with the writer: offsets and numbers as in ECMA-119.
    struct Reader<'a>(&'a [u8]);

    impl Reader<'_> {
        fn le(&self, at: usize) -> usize {
            let both = &self.0[at..at + 8];
            let little = u32::from_le_bytes(both[..4].try_into().unwrap());
            assert_eq!(little, u32::from_be_bytes(both[4..].try_into().unwrap()), "both orders say the same");
            little as usize
        }

        /// Returns the descriptor of a kind.
        fn volume(&self, kind: u8) -> usize {
            let sectors = (16..).map(|sector| sector * 2048).take_while(|at| self.0[*at] != 255);
            let found = sectors.clone().find(|at| self.0[*at] == kind).expect("there is one");
            assert!(sectors.into_iter().all(|at| &self.0[at + 1..at + 6] == b"CD001"));
            assert_eq!(self.le(found + 80) * 2048, self.0.len(), "it knows its size");
            found
        }

        /// Returns what a volume holds: names as `name` reads them off a record.
        fn files(&self, kind: u8, name: impl Fn(&[u8]) -> Option<String>) -> BTreeMap<String, Vec<u8>> {
            let root = self.volume(kind) + 156;
            let (mut at, length) = (self.le(root + 2) * 2048, self.le(root + 10));
            let end = at + length;
            let mut files = BTreeMap::new();
            while at < end && self.0[at] != 0 {
                let record = &self.0[at..at + usize::from(self.0[at])];
                if record[25] & 2 == 0 {
                    let start = self.le(at + 2) * 2048;
                    let content = self.0[start..start + self.le(at + 10)].to_vec();
                    files.insert(name(record).expect("it has a name"), content);
                }
                at += record.len();
            }
            files
        }
    }

    fn system(record: &[u8]) -> &[u8] {
        let name = usize::from(record[32]);
        &record[33 + name + usize::from(name % 2 == 0)..]
    }

    /// Finds an entry of the System Use Sharing Protocol.
    fn entry<'a>(mut area: &'a [u8], sign: &[u8]) -> Option<&'a [u8]> {
        while area.len() >= 4 && area[2] >= 4 {
            let (one, rest) = area.split_at(usize::from(area[2]));
            if &one[..2] == sign {
                return Some(one);
            }
            area = rest;
        }
        None
    }

    fn seed() -> Vec<u8> {
        let network = "version: 2\n".repeat(400);
        build(
            "cidata",
            &[("user-data", b"#cloud-config\n"), ("meta-data", b"{}"), ("network-config", network.as_bytes())],
        )
    }

    fn expected() -> BTreeMap<String, Vec<u8>> {
        BTreeMap::from([
            ("meta-data".to_owned(), b"{}".to_vec()),
            ("network-config".to_owned(), "version: 2\n".repeat(400).into_bytes()),
            ("user-data".to_owned(), b"#cloud-config\n".to_vec()),
        ])
    }

    #[test]
    fn rock_ridge_has_the_real_names_and_the_contents() {
        let image = seed();
        let reader = Reader(&image);
        let at = reader.volume(1);
        assert_eq!(&image[at + 40..at + 72], b"cidata                          ");
        let real = |record: &[u8]| entry(system(record), b"NM").map(|nm| String::from_utf8(nm[5..].to_vec()).unwrap());
        assert_eq!(reader.files(1, real), expected());
        // Without Rock Ridge, the names are those that every reader takes.
        let plain = |record: &[u8]| Some(String::from_utf8(record[33..33 + usize::from(record[32])].to_vec()).unwrap());
        let names: Vec<String> = reader.files(1, plain).into_keys().collect();
        assert_eq!(names, ["METADATA.;1", "NETWORKC.;1", "USERDATA.;1"]);
    }

    #[test]
    fn the_root_announces_rock_ridge() {
        let image = seed();
        let reader = Reader(&image);
        let at = reader.le(reader.volume(1) + 156 + 2) * 2048;
        let own = system(&image[at..at + usize::from(image[at])]);
        assert_eq!(&own[..7], b"SP\x07\x01\xbe\xef\0");
        let goes_on = entry(own, b"CE").unwrap();
        let sector = u32::from_le_bytes(goes_on[4..8].try_into().unwrap()) as usize;
        let length = u32::from_le_bytes(goes_on[20..24].try_into().unwrap()) as usize;
        let names = entry(&image[sector * 2048..sector * 2048 + length], b"ER").unwrap();
        assert_eq!(&names[8..18], b"RRIP_1991A");
    }

    #[test]
    fn joliet_has_the_real_names_and_the_contents() {
        let image = seed();
        let reader = Reader(&image);
        let at = reader.volume(2);
        assert_eq!(&image[at + 88..at + 91], b"%/E");
        assert_eq!(&image[at + 40..at + 52], b"\0c\0i\0d\0a\0t\0a");
        let wide = |record: &[u8]| {
            let name = &record[33..33 + usize::from(record[32])];
            let units: Vec<u16> = name.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            Some(String::from_utf16(&units).unwrap().trim_end_matches(";1").to_owned())
        };
        assert_eq!(reader.files(2, wide), expected());
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        assert_eq!(seed(), seed());
    }
}
