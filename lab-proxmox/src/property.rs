//! Property strings, the form in which one key of a configuration holds several values: `virtio=MAC,bridge=vmbr0`.
//!
//! They are read before they are compared: order, defaults and ways to write a truth differ between what is sent and
//! what comes back.

use std::collections::BTreeMap;

/// The parts of a property string, by name.
pub(crate) type Parts = BTreeMap<String, String>;

/// Reads a property string. A part without a name belongs to `unnamed`.
pub(crate) fn parse(text: &str, unnamed: &str) -> Parts {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| match part.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (unnamed.to_owned(), part.to_owned()),
        })
        .collect()
}

/// Writes a property string: the part `unnamed` first and without its name, the others by name.
pub(crate) fn print(parts: &Parts, unnamed: &str) -> String {
    let first = parts.get(unnamed).cloned();
    let rest = parts.iter().filter(|(name, _)| *name != unnamed).map(|(name, value)| format!("{name}={value}"));
    first.into_iter().chain(rest).collect::<Vec<_>>().join(",")
}

/// Returns what a truth in a property string says; `None` when it is none.
pub(crate) fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "on" | "yes" | "true" => Some(true),
        "0" | "off" | "no" | "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_string_comes_back_as_it_was_read() {
        let text = "local-lvm:vm-110-disk-0,discard=on,iothread=1,size=100G";
        let parts = parse(text, "file");
        assert_eq!(parts["file"], "local-lvm:vm-110-disk-0");
        assert_eq!(parts["size"], "100G");
        assert_eq!(print(&parts, "file"), text);
    }

    #[test]
    fn truths_are_read_in_every_way_they_are_written() {
        for text in ["1", "on", "yes", "true"] {
            assert_eq!(truth(text), Some(true));
        }
        for text in ["0", "off", "no", "false"] {
            assert_eq!(truth(text), Some(false));
        }
        assert_eq!(truth("maybe"), None);
    }
}
