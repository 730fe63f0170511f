//! A request that is about to be carried out: who asks, which node answers.

use super::datacenter::Datacenter;
use super::inventory::Token;
use super::refusal::Refusal;
use form_urlencoded::parse;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A request, read and not carried out yet.
pub(super) struct Request {
    pub(super) datacenter: Arc<Datacenter>,
    pub(super) token: Token,
    /// The node that carries it out: the one in the path, else the one that was asked.
    pub(super) node: String,
    /// The file of an upload.
    pub(super) file: Option<Upload>,
}

/// A file that is uploaded.
pub(super) struct Upload {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

impl Request {
    pub(super) fn node(&self) -> &str {
        &self.node
    }
}

/// Reads the parameters in a query or a form: a repeated key becomes an array, an empty value is none.
pub(super) fn form(text: &[u8], into: &mut BTreeMap<String, Value>) {
    // `;` separates pairs too.
    let text: Vec<u8> = text.iter().map(|byte| if *byte == b';' { b'&' } else { *byte }).collect();
    for (key, value) in parse(&text) {
        if value.is_empty() {
            continue;
        }
        let value = Value::from(value.into_owned());
        match into.get_mut(key.as_ref()) {
            None => drop(into.insert(key.into_owned(), value)),
            Some(Value::Array(items)) => items.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
}

/// Reads the parameters of a JSON body.
pub(super) fn json(body: &[u8]) -> Result<BTreeMap<String, Value>, Refusal> {
    let parsed: Value =
        serde_json::from_slice(body).map_err(|error| Refusal::bare(500, format!("malformed JSON string, {error}")))?;
    let Value::Object(map) = parsed else { return Err(Refusal::bare(500, "data is not a hash")) };
    Ok(map.into_iter().filter_map(|(name, value)| Some((name, scalar(value)?))).collect())
}

fn scalar(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Bool(truth) => Some(Value::from(if truth { "1" } else { "0" })),
        Value::Number(number) => Some(Value::from(number.to_string())),
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(scalar).collect())),
        Value::String(_) => Some(value),
        Value::Object(_) => Some(Value::from("HASH")),
    }
}

/// Reads a multipart body the way the upload call does: the parts in their order, the file last and named `filename`.
pub(super) fn multipart(content_type: &str, body: &[u8]) -> Result<(BTreeMap<String, Value>, Upload), Refusal> {
    let bad = |what: &str| Refusal::bare(400, format!("unable to parse upload: {what}"));
    let boundary = content_type.split(';').find_map(|part| part.trim().strip_prefix("boundary="));
    let boundary = boundary.map(|boundary| boundary.trim_matches('"')).ok_or_else(|| bad("no boundary"))?;
    let delimiter = format!("--{boundary}");
    let mut rest = body.strip_prefix(delimiter.as_bytes()).ok_or_else(|| bad("no first boundary"))?;
    let mut fields = BTreeMap::new();
    loop {
        rest = rest.strip_prefix(b"\r\n").ok_or_else(|| bad("no part behind a boundary"))?;
        let end = find(rest, b"\r\n\r\n").ok_or_else(|| bad("a part without an end of its head"))?;
        let head = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = &rest[end + 4..];
        let end = find(rest, format!("\r\n{delimiter}").as_bytes()).ok_or_else(|| bad("a part without an end"))?;
        let content = &rest[..end];
        rest = &rest[end + 2 + delimiter.len()..];
        // The server's expression wants the disposition first.
        let first = head.lines().next().unwrap_or_default();
        let (title, disposition) = first.split_once(':').unwrap_or_default();
        if !title.eq_ignore_ascii_case("content-disposition") {
            return Err(bad("a part whose first header is not its disposition"));
        }
        let value = |wanted: &str| {
            disposition.split(';').find_map(|part| {
                let (name, value) = part.trim().split_once('=')?;
                (name == wanted).then(|| value.trim_matches('"').to_owned())
            })
        };
        let name = value("name").ok_or_else(|| bad("a part without a name"))?;
        match (name.as_str(), value("filename")) {
            ("filename", Some(file)) => {
                if !rest.starts_with(b"--") {
                    return Err(bad("a part behind the file"));
                }
                return Ok((fields, Upload { name: file, bytes: content.to_vec() }));
            }
            ("content" | "checksum" | "checksum-algorithm", None) => {
                let text = String::from_utf8_lossy(content).trim().to_owned();
                fields.insert(name, Value::from(text));
            }
            _ => return Err(bad(&format!("an unexpected part '{name}'"))),
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Decodes the escapes of a path.
pub(super) fn unescape(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let pair = tail.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn forms_repeat_keys_and_drop_empty_values() {
        let mut read = BTreeMap::new();
        form(b"command=a&command=b%20c&x=1;y=2&empty=&z", &mut read);
        assert_eq!(json!(read), json!({"command": ["a", "b c"], "x": "1", "y": "2"}));
    }

    #[test]
    fn an_upload_is_read_in_its_strict_order() {
        let part = |name: &str, more: &str, content: &str| {
            format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"{more}\r\n\r\n{content}\r\n")
        };
        let file = part("filename", "; filename=\"a.iso\"", "\r\nbytes\r\n");
        let body = format!("{}{file}--b--\r\n", part("content", "", "iso"));
        let (fields, upload) = multipart("multipart/form-data; boundary=b", body.as_bytes()).unwrap();
        assert_eq!((json!(fields), upload.name.as_str()), (json!({"content": "iso"}), "a.iso"));
        assert_eq!(upload.bytes, b"\r\nbytes\r\n");
        let body = format!("{file}{}--b--\r\n", part("content", "", "iso"));
        assert!(multipart("multipart/form-data; boundary=b", body.as_bytes()).is_err());
    }
}
