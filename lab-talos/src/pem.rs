//! PEM blocks with any label, which Talos needs: its Ed25519 keys say `ED25519 PRIVATE KEY`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Returns `der` as one PEM block, in lines of 64 characters.
pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for start in (0..body.len()).step_by(64) {
        text.push_str(&body[start..body.len().min(start + 64)]);
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// Returns the label and the contents of the first PEM block in `text`, or what is wrong with it.
pub(crate) fn decode(text: &str) -> Result<(String, Vec<u8>), String> {
    let mut lines = text.lines().map(str::trim).skip_while(|line| !line.starts_with("-----BEGIN "));
    let label = lines
        .next()
        .and_then(|line| line.strip_prefix("-----BEGIN ")?.strip_suffix("-----"))
        .ok_or("no PEM block found")?
        .to_owned();
    let end = format!("-----END {label}-----");
    let mut body = String::new();
    loop {
        match lines.next() {
            Some(line) if line == end => break,
            Some(line) => body.push_str(line),
            None => return Err(format!("the PEM block {label} has no end")),
        }
    }
    let der = STANDARD.decode(body).map_err(|error| format!("the PEM block {label} is not base64: {error}"))?;
    Ok((label, der))
}

/// Returns all PEM blocks in `text`; at least one.
pub(crate) fn decode_all(text: &str) -> Result<Vec<(String, Vec<u8>)>, String> {
    let mut blocks = vec![decode(text)?];
    let starts = text.match_indices("-----BEGIN ").map(|(start, _)| start);
    for start in starts.skip(1) {
        blocks.push(decode(&text[start..])?);
    }
    Ok(blocks)
}

/// Returns `text` as Talos writes PEM into YAML: encoded once more.
pub(crate) fn wrap(text: &str) -> String {
    STANDARD.encode(text)
}

/// Undoes [`wrap`].
pub(crate) fn unwrap(encoded: &str) -> Result<String, String> {
    let bytes = STANDARD.decode(encoded.trim()).map_err(|error| format!("not base64: {error}"))?;
    String::from_utf8(bytes).map_err(|_| "not text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_comes_back_with_its_label() {
        let text = encode("ED25519 PRIVATE KEY", &[7; 100]);
        assert_eq!(decode(&text).unwrap(), ("ED25519 PRIVATE KEY".to_owned(), vec![7; 100]));
        assert!(text.lines().all(|line| line.len() <= 64));
    }

    #[test]
    fn a_cut_block_is_an_error() {
        let text = encode("CERTIFICATE", &[7; 100]);
        assert!(decode(&text[..text.len() - 10]).unwrap_err().contains("has no end"));
        assert!(decode("nothing").is_err());
    }
}
