//! Who owns which field: `metadata.managedFields`, and how applies and updates move it.

use serde_json::{Value, json};

use super::fields::{self, Fields};
use super::refusal::Refusal;
use super::schema::Schema;

/// One entry of `metadata.managedFields`.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    manager: String,
    applied: bool,
    api_version: String,
    time: Option<String>,
    subresource: String,
    fields: Fields,
}

/// The writer of a request, as managed fields know it.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    pub(crate) manager: String,
    pub(crate) api_version: String,
    /// `""` for the object itself.
    pub(crate) subresource: String,
    /// Whether the kind's status is written on its own, so that a write of the object does not own it.
    pub(crate) status_apart: bool,
}

impl Writer {
    fn filtered(&self, mut fields: Fields) -> Fields {
        if self.subresource == "status" {
            fields.keep_only(&["status"]);
        } else if self.status_apart {
            fields.remove_below(&["status".to_string()]);
        }
        for path in STRIPPED {
            fields.remove(path);
        }
        fields
    }
}

// What the server itself sets is nobody's.
const STRIPPED: &[&[&str]] = &[
    &["apiVersion"],
    &["kind"],
    &["metadata"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
];

impl Entry {
    fn read(document: &Value) -> Entry {
        let text = |key: &str| document[key].as_str().unwrap_or_default().to_string();
        Entry {
            manager: text("manager"),
            applied: document["operation"] == "Apply",
            api_version: text("apiVersion"),
            time: document["time"].as_str().map(String::from),
            subresource: text("subresource"),
            fields: Fields::decoded(&document["fieldsV1"]),
        }
    }

    fn written(&self) -> Value {
        let mut document = json!({
            "manager": self.manager,
            "operation": if self.applied { "Apply" } else { "Update" },
            "apiVersion": self.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.encoded(),
        });
        if let Some(time) = &self.time {
            document["time"] = time.clone().into();
        }
        if !self.subresource.is_empty() {
            document["subresource"] = self.subresource.clone().into();
        }
        document
    }

    fn is(&self, writer: &Writer, applied: bool) -> bool {
        self.manager == writer.manager
            && self.applied == applied
            && self.subresource == writer.subresource
            && (applied || self.api_version == writer.api_version)
    }

    fn shown(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text = format!("{text} with subresource {:?}", self.subresource);
        }
        if !self.applied {
            text = format!("{text} using {}", self.api_version);
        }
        text
    }
}

fn read(object: &Value) -> Vec<Entry> {
    object["metadata"]["managedFields"].as_array().into_iter().flatten().map(Entry::read).collect()
}

fn write(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|entry| !entry.fields.is_empty());
    entries.sort_by(|a, b| {
        (!a.applied, &a.time, &a.manager, &a.api_version, &a.subresource).cmp(&(
            !b.applied,
            &b.time,
            &b.manager,
            &b.api_version,
            &b.subresource,
        ))
    });
    let metadata = object["metadata"].as_object_mut().expect("an object has metadata");
    if entries.is_empty() {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".into(), entries.iter().map(Entry::written).collect());
    }
}

fn without_managers(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object
}

/// Settles who owns what after `new` takes the place of `old` (null for a create) by a plain write.
pub(crate) fn update(schema: Schema<'_>, old: &Value, new: &mut Value, writer: &Writer, now: &str) {
    let given = &new["metadata"]["managedFields"];
    let reset = *given == json!([]) || *given == json!([{}]);
    // A write may edit the entries themselves, but not through a subresource, and not while creating.
    let mut entries = if reset && !old.is_null() && writer.subresource.is_empty() {
        Vec::new()
    } else if old.is_null() || !writer.subresource.is_empty() || given.is_null() {
        read(old)
    } else {
        read(new)
    };
    let empty = json!({});
    let base = if old.is_null() { empty } else { without_managers(old) };
    let comparison = fields::compare(schema, &base, &without_managers(new));
    let touched = writer.filtered(comparison.modified.union(&comparison.added));
    let gone = writer.filtered(comparison.removed);
    for entry in &mut entries {
        entry.fields = entry.fields.difference(&touched).difference(&gone);
    }
    if !touched.is_empty() {
        match entries.iter_mut().find(|entry| entry.is(writer, false)) {
            Some(entry) => {
                entry.fields = entry.fields.union(&touched);
                entry.time = Some(now.into());
            }
            None => entries.push(Entry {
                manager: writer.manager.clone(),
                applied: false,
                api_version: writer.api_version.clone(),
                time: Some(now.into()),
                subresource: writer.subresource.clone(),
                fields: touched,
            }),
        }
    }
    write(new, entries);
}

/// Merges an applied configuration into the live object (null for a create); returns the object with its managed
/// fields settled, or the conflicts.
pub(crate) fn apply(
    schema: Schema<'_>,
    live: &Value,
    applied: &Value,
    writer: &Writer,
    force: bool,
    now: &str,
) -> Result<Value, Refusal> {
    let mut entries = read(live);
    let base = if live.is_null() { json!({}) } else { without_managers(live) };
    let merged = fields::merge(schema, &base, applied);
    let whole = Fields::of(schema, applied);
    let wanted = writer.filtered(whole.clone());

    let mine = entries.iter().position(|entry| entry.is(writer, true));
    let last = mine.map(|at| entries[at].fields.clone()).unwrap_or_default();
    let mut new = merged;
    if !last.is_empty() {
        let others = entries.iter().enumerate().filter(|(at, _)| Some(*at) != mine);
        let managed = others.fold(whole, |all, (_, entry)| all.union(&entry.fields));
        let dropped = last.with_named_members().difference(&managed.with_named_members());
        new = fields::removed(schema, &new, &dropped);
    }

    let comparison = fields::compare(schema, &base, &new);
    let touched = writer.filtered(comparison.modified.union(&comparison.added));
    let gone = writer.filtered(comparison.removed);
    let mut conflicts = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        if Some(at) == mine {
            continue;
        }
        let contested = entry.fields.intersection(&touched);
        conflicts.extend(contested.paths().into_iter().map(|path| (entry.shown(), path)));
    }
    if !conflicts.is_empty() && !force {
        conflicts.sort();
        return Err(Refusal::apply_conflict(&conflicts));
    }
    for (at, entry) in entries.iter_mut().enumerate() {
        if Some(at) != mine {
            entry.fields = entry.fields.difference(&touched).difference(&gone);
        }
    }
    let changed = new != base;
    let time = |earlier: Option<String>| if changed { Some(now.to_string()) } else { earlier };
    match mine {
        Some(at) => {
            let entry = &mut entries[at];
            entry.fields = wanted;
            entry.api_version = writer.api_version.clone();
            entry.time = time(entry.time.take());
        }
        None => entries.push(Entry {
            manager: writer.manager.clone(),
            applied: true,
            api_version: writer.api_version.clone(),
            time: time(None),
            subresource: writer.subresource.clone(),
            fields: wanted,
        }),
    }
    write(&mut new, entries);
    Ok(new)
}

/// Returns the object with the times of its entries taken from `old` where nothing else changed, so that a write
/// without effect leaves the object as it is.
pub(crate) fn same_but_for_times(old: &Value, new: &Value) -> bool {
    let timeless = |object: &Value| {
        let mut object = object.clone();
        if let Some(entries) = object["metadata"]["managedFields"].as_array_mut() {
            for entry in entries.iter_mut().filter_map(Value::as_object_mut) {
                entry.remove("time");
            }
            entries.sort_by_key(Value::to_string);
        }
        object
    };
    timeless(old) == timeless(new)
}
