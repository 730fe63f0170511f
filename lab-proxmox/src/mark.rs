//! How a thing says which operation made it: a line at the end of its description or comment.

/// What stands before the operation in a description.
const SIGN: &str = "managed by lab: ";

/// Returns a description that bears `mark`.
pub(crate) fn write(description: &str, mark: &str) -> String {
    let description = description.trim_end();
    if description.is_empty() { format!("{SIGN}{mark}") } else { format!("{description}\n\n{SIGN}{mark}") }
}

/// Returns a comment of one line that bears `mark`: some comments are stored in files that have no longer ones.
pub(crate) fn write_line(comment: &str, mark: &str) -> String {
    let comment = comment.trim();
    if comment.is_empty() { format!("{SIGN}{mark}") } else { format!("{comment} ({SIGN}{mark})") }
}

/// Returns a description without the mark, and the mark.
pub(crate) fn read(text: &str) -> (String, Option<String>) {
    let text = text.trim_end();
    match text.rfind(SIGN) {
        None => (text.to_owned(), None),
        Some(at) => {
            let before = text[..at].strip_suffix('(').unwrap_or(&text[..at]);
            let mark = text[at + SIGN.len()..].trim_end_matches(')');
            if mark.is_empty() || mark.contains(char::is_whitespace) {
                return (text.to_owned(), None);
            }
            (before.trim_end().to_owned(), Some(mark.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back_with_the_words_before_it() {
        for description in ["", "the database", "the database\nof the shop"] {
            let marked = write(description, "op-7");
            assert_eq!(read(&marked), (description.to_owned(), Some("op-7".to_owned())));
            // Proxmox VE keeps descriptions with a line break at their end.
            assert_eq!(read(&format!("{marked}\n")), (description.to_owned(), Some("op-7".to_owned())));
        }
        for comment in ["", "the shop's"] {
            assert_eq!(read(&write_line(comment, "op-7")), (comment.to_owned(), Some("op-7".to_owned())));
        }
    }

    #[test]
    fn words_of_somebody_else_are_no_mark() {
        for text in ["", "grandmother's photos", "managed by lab: ", "managed by lab: it says here"] {
            assert_eq!(read(text).1, None, "{text}");
        }
    }
}
