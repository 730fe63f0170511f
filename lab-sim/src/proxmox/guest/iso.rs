//! Reads ISO 9660 images: the label, and the files in the root by their names of Rock Ridge or Joliet.
//!
//! Written after ECMA-119, the Joliet specification and IEEE P1282 (Rock Ridge). Directories are not looked into.

use std::collections::BTreeMap;

const SECTOR: usize = 2048;

/// What is on a medium.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Medium {
    pub(super) label: String,
    pub(super) files: BTreeMap<String, Vec<u8>>,
}

/// Reads a medium; `None` when it is no ISO 9660 image.
pub(super) fn read(image: &[u8]) -> Option<Medium> {
    let mut primary = None;
    let mut joliet = None;
    for sector in 16..64 {
        let volume = sector_at(image, sector)?;
        if volume.get(1..6)? != b"CD001" {
            return None;
        }
        match volume.first()? {
            1 if primary.is_none() => primary = Some(volume),
            2 if [b"%/@", b"%/C", b"%/E"].iter().any(|level| volume.get(88..91) == Some(&level[..])) => {
                joliet = Some(volume)
            }
            255 => break,
            _ => {}
        }
    }
    let primary = primary?;
    let label = String::from_utf8_lossy(primary.get(40..72)?).trim_end_matches([' ', '\0']).to_owned();
    let (ridged, mut files) = root(image, primary, false)?;
    if !ridged && let Some((_, wide)) = joliet.and_then(|volume| root(image, volume, true)) {
        files = wide;
    }
    Some(Medium { label, files })
}

fn sector_at(image: &[u8], sector: usize) -> Option<&[u8]> {
    image.get(sector * SECTOR..(sector + 1) * SECTOR)
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize)
}

/// Returns the files of the root, and whether Rock Ridge named one of them.
fn root(image: &[u8], volume: &[u8], wide: bool) -> Option<(bool, BTreeMap<String, Vec<u8>>)> {
    let record = volume.get(156..190)?;
    let (extent, size) = (number(record, 2)?, number(record, 10)?);
    let directory = image.get(extent * SECTOR..extent * SECTOR + size)?;
    let mut files = BTreeMap::new();
    let mut ridged = false;
    let mut at = 0;
    while at < directory.len() {
        let length = usize::from(directory[at]);
        if length == 0 {
            // Records do not cross sectors.
            at = (at / SECTOR + 1) * SECTOR;
            continue;
        }
        let entry = directory.get(at..at + length)?;
        at += length;
        let (extent, size, flags) = (number(entry, 2)?, number(entry, 10)?, *entry.get(25)?);
        let named = usize::from(*entry.get(32)?);
        let name = entry.get(33..33 + named)?;
        if flags & 2 != 0 {
            continue;
        }
        let plain = if wide {
            let units: Vec<u16> = name.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            String::from_utf16_lossy(&units)
        } else {
            String::from_utf8_lossy(name).into_owned()
        };
        let plain = plain.split(';').next().unwrap_or_default().trim_end_matches('.').to_owned();
        let system = entry.get(33 + named + (named + 1) % 2..).unwrap_or_default();
        let alternate = rock_ridge(system);
        ridged |= alternate.is_some();
        let content = image.get(extent * SECTOR..extent * SECTOR + size)?;
        files.insert(alternate.unwrap_or(plain), content.to_vec());
    }
    Some((ridged, files))
}

/// Returns the name in the system use area of a record, from its NM entries.
fn rock_ridge(mut area: &[u8]) -> Option<String> {
    let mut name = Vec::new();
    let mut found = false;
    while let [a, b, length, _, rest @ ..] = area {
        let length = usize::from(*length);
        if length < 4 || area.len() < length {
            break;
        }
        if [*a, *b] == *b"NM" {
            found = true;
            name.extend_from_slice(rest.get(1..length - 4)?);
        }
        area = &area[length..];
    }
    found.then(|| String::from_utf8_lossy(&name).into_owned())
}
