//! Creates, updates and deletes, once a request has been decoded.

use serde_json::{Value, json};

use super::decode;
use super::default;
use super::kinds::Kind;
use super::managers::{self, Writer};
use super::patch;
use super::prepare;
use super::refusal::{About, Flaw, Refusal};
use super::store::Store;
use super::validate;

/// The object that a write is about.
pub(crate) struct Place<'a> {
    pub(crate) kind: &'a Kind,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
}

/// How a write is meant.
pub(crate) struct Manner {
    pub(crate) writer: Writer,
    pub(crate) dry: bool,
    pub(crate) force: bool,
    pub(crate) strict: bool,
}

/// What a write came to: the object, and whether it was created.
pub(crate) struct Written {
    pub(crate) object: Value,
    pub(crate) created: bool,
    /// Fields that were dropped because nothing knows them.
    pub(crate) warnings: Vec<String>,
}

/// What a delete asks.
#[derive(Default)]
pub(crate) struct Delete {
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) propagation: Option<String>,
    pub(crate) grace: Option<i64>,
    pub(crate) dry: bool,
}

const NAMESPACES: About<'static> = About { group: "", kind: "Namespace", plural: "namespaces" };

impl Store {
    /// Creates an object from a POST body.
    pub(crate) fn post(
        &mut self,
        place: &Place<'_>,
        document: decode::Document,
        manner: &Manner,
    ) -> Result<Written, Refusal> {
        let (mut object, warnings) = self.decoded(place.kind, document, manner.strict)?;
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
        if !object["metadata"]["resourceVersion"].as_str().is_none_or(str::is_empty) {
            return Err(Refusal::internal("resourceVersion should not be set on objects to be created"));
        }
        let prefix = object["metadata"]["generateName"].as_str().unwrap_or_default().to_string();
        if object["metadata"]["name"].as_str().is_none_or(str::is_empty) && !prefix.is_empty() {
            object["metadata"]["name"] = format!("{prefix}{}", self.suffix()).into();
        }
        default::default(place.kind, &mut object);
        let now = self.timestamp();
        managers::update(place.kind.schema(), &Value::Null, &mut object, &manner.writer, &now);
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_string();
        let place = Place { kind: place.kind, namespace: place.namespace, name: &name };
        let object = self.create(&place, object, manner.dry)?;
        Ok(Written { object, created: true, warnings })
    }

    /// Replaces an object by a PUT body.
    pub(crate) fn put_body(
        &mut self,
        place: &Place<'_>,
        document: decode::Document,
        manner: &Manner,
    ) -> Result<Written, Refusal> {
        let (mut new, warnings) = self.decoded(place.kind, document, manner.strict)?;
        let old = self.existing(place)?;
        default::default(place.kind, &mut new);
        if new["metadata"]["name"].as_str().unwrap_or_default() != place.name {
            let message = format!(
                "the name of the object ({}) does not match the name on the URL ({})",
                new["metadata"]["name"].as_str().unwrap_or_default(),
                place.name
            );
            return Err(Refusal::bad_request(message));
        }
        match new["metadata"]["namespace"].as_str() {
            None | Some("") if place.kind.namespaced => new["metadata"]["namespace"] = place.namespace.into(),
            Some(given) if given != place.namespace => {
                let message = "the namespace of the provided object does not match the namespace sent on the request";
                return Err(Refusal::bad_request(message));
            }
            _ => {}
        }
        let given = new["metadata"]["uid"].as_str().unwrap_or_default().to_string();
        let uid = old["metadata"]["uid"].as_str().unwrap_or_default();
        if !given.is_empty() && given != uid {
            let detail = format!("Precondition failed: UID in precondition: {given}, UID in object meta: {uid}");
            return Err(Refusal::conflict(place.kind.about(), place.name, &detail));
        }
        let now = self.timestamp();
        managers::update(place.kind.schema(), &old, &mut new, &manner.writer, &now);
        let object = self.update(place, new, &old, manner)?;
        Ok(Written { object, created: false, warnings })
    }

    /// Applies a configuration (server-side apply).
    pub(crate) fn apply(
        &mut self,
        place: &Place<'_>,
        document: decode::Document,
        manner: &Manner,
    ) -> Result<Written, Refusal> {
        let kind = place.kind;
        let mut applied = document.value;
        default::strip_nulls(&mut applied);
        let version = applied["apiVersion"].as_str().unwrap_or_default().to_string();
        if version.is_empty() || applied["kind"].as_str().is_none_or(str::is_empty) {
            return Err(Refusal::bad_request("Object 'Kind' is missing or apiVersion is not set in the apply patch"));
        }
        if version != kind.api_version() {
            let message = format!(
                "Incorrect version specified in apply patch. Specified patch version: {version}, expected: {}",
                kind.api_version()
            );
            return Err(Refusal::bad_request(message));
        }
        if applied["metadata"].get("managedFields").is_some() {
            return Err(Refusal::bad_request("metadata.managedFields must be nil"));
        }
        let live = self.get(&kind.resource(), place.namespace, place.name).cloned().unwrap_or_default();
        if live.is_null() && !manner.writer.subresource.is_empty() {
            return Err(Refusal::not_found(kind.about(), place.name));
        }
        let given_namespace = applied["metadata"]["namespace"].as_str().unwrap_or_default().to_string();
        // The real server learns name and namespace from the request where the body is silent, and refuses a mismatch.
        if !applied["metadata"].is_object() {
            applied["metadata"] = json!({});
        }
        for (field, value) in [("name", place.name), ("namespace", place.namespace)] {
            match applied["metadata"][field].as_str() {
                None | Some("") if !value.is_empty() => applied["metadata"][field] = value.into(),
                Some(given) if given != value => {
                    let what = if field == "name" { "name" } else { "namespace" };
                    let message = if what == "name" {
                        format!("the name of the object ({given}) does not match the name on the URL ({value})")
                    } else {
                        "the namespace of the provided object does not match the namespace sent on the request".into()
                    };
                    return Err(Refusal::bad_request(message));
                }
                _ => {}
            }
        }
        default::strip_nulls(&mut applied);
        let problems = decode::untyped(kind.schema(), &applied);
        if !problems.is_empty() {
            // The real server stops at the first.
            let list = &problems[0];
            let message = format!(
                "failed to create typed patch object ({given_namespace}/{}; {}, Kind={}): {list}",
                place.name,
                if kind.group.is_empty() { format!("/{}", kind.version) } else { kind.api_version() },
                kind.kind
            );
            return Err(Refusal::internal(message));
        }
        let now = self.timestamp();
        let mut new = managers::apply(kind.schema(), &live, &applied, &manner.writer, manner.force, &now)?;
        if manner.strict && !document.duplicates.is_empty() {
            let lines: Vec<String> = document
                .duplicates
                .iter()
                .map(|path| {
                    let key = path.rsplit('.').next().unwrap_or(path);
                    format!("  key {key:?} already set in map")
                })
                .collect();
            let message = format!("error strict decoding YAML: yaml: unmarshal errors:\n{}", lines.join("\n"));
            return Err(Refusal::bad_request(message));
        }
        if let Some(problem) = decode::unconvertible(kind.schema(), &kind.kind, &new) {
            let version = if kind.group.is_empty() { format!("/{}", kind.version) } else { kind.api_version() };
            let message = format!(
                "failed to convert new object ({given_namespace}/{}; {version}, Kind={}) to proper version: unable to convert unstructured object to {version}, Kind={}: {problem}",
                place.name, kind.kind, kind.kind
            );
            return Err(Refusal::internal(message));
        }
        default::default(kind, &mut new);
        if live.is_null() {
            if let Some(uid) = new["metadata"]["uid"].as_str() {
                let detail =
                    format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
                return Err(Refusal::conflict(kind.about(), place.name, &detail));
            }
            prepare::revision(&new)?;
            let object = self.create(place, new, manner.dry)?;
            return Ok(Written { object, created: true, warnings: Vec::new() });
        }
        let object = self.update(place, new, &live, manner)?;
        Ok(Written { object, created: false, warnings: Vec::new() })
    }

    /// Patches an object by a merge patch or, with `json`, a JSON patch.
    pub(crate) fn patch(
        &mut self,
        place: &Place<'_>,
        document: &decode::Document,
        json_patch: bool,
        manner: &Manner,
    ) -> Result<Written, Refusal> {
        let kind = place.kind;
        let old = self.existing(place)?;
        let mut new = old.clone();
        if json_patch {
            patch::json(&mut new, &document.value).map_err(|_| Refusal::unprocessable())?;
        } else {
            patch::merge(&mut new, &document.value);
        }
        let unknown = decode::prune(kind.schema(), &mut new);
        if manner.strict && !unknown.is_empty() {
            let list: Vec<String> = unknown.iter().map(|path| format!("unknown field {path:?}")).collect();
            let detail = format!("strict decoding error: {}", list.join(", "));
            let nobody = About { group: "", kind: "", plural: "" };
            return Err(Refusal::invalid(nobody, "", &[Flaw::invalid("patch", &document.value, &detail)]));
        }
        if let Some(problem) = mistyped(kind, &new) {
            return Err(Refusal::bad_request(problem));
        }
        default::default(kind, &mut new);
        let now = self.timestamp();
        managers::update(kind.schema(), &old, &mut new, &manner.writer, &now);
        let object = self.update(place, new, &old, manner)?;
        let warnings = unknown.iter().map(|path| format!("unknown field {path:?}")).collect();
        Ok(Written { object, created: false, warnings })
    }

    fn existing(&self, place: &Place<'_>) -> Result<Value, Refusal> {
        self.get(&place.kind.resource(), place.namespace, place.name)
            .cloned()
            .ok_or_else(|| Refusal::not_found(place.kind.about(), place.name))
    }

    // Reads a body as an object of the kind: its type, its unknown and its doubled fields.
    fn decoded(&self, kind: &Kind, document: decode::Document, strict: bool) -> Result<(Value, Vec<String>), Refusal> {
        let mut object = document.value;
        let (version, name) = (object["apiVersion"].clone(), object["kind"].clone());
        if (!version.is_null() && version != kind.api_version().as_str())
            || (!name.is_null() && name != kind.kind.as_str())
        {
            let message = format!(
                "{} in version {:?} cannot be handled as a {}: no kind {:?} is registered for the requested resource",
                name.as_str().unwrap_or_default(),
                version.as_str().unwrap_or_default(),
                kind.kind,
                name.as_str().unwrap_or_default()
            );
            return Err(Refusal::bad_request(message));
        }
        if !object.is_object() {
            return Err(Refusal::bad_request("the body of the request is not an object"));
        }
        object["apiVersion"] = kind.api_version().into();
        object["kind"] = kind.kind.clone().into();
        if !object["metadata"].is_object() {
            object["metadata"] = json!({});
        }
        default::strip_nulls(&mut object);
        let unknown = decode::prune(kind.schema(), &mut object);
        let mut problems: Vec<String> = unknown.iter().map(|path| format!("unknown field {path:?}")).collect();
        problems.extend(document.duplicates.iter().map(|path| format!("duplicate field {path:?}")));
        if strict && !problems.is_empty() {
            let message = format!(
                "{} in version {:?} cannot be handled as a {}: strict decoding error: {}",
                kind.kind,
                kind.version,
                kind.kind,
                problems.join(", ")
            );
            return Err(Refusal::bad_request(message));
        }
        if let Some(problem) = mistyped(kind, &object) {
            return Err(Refusal::bad_request(problem));
        }
        Ok((object, problems))
    }

    /// Stores a new object; its managed fields are settled.
    fn create(&mut self, place: &Place<'_>, mut object: Value, dry: bool) -> Result<Value, Refusal> {
        let kind = place.kind;
        let about = kind.about();
        if kind.namespaced {
            match object["metadata"]["namespace"].as_str() {
                None | Some("") => object["metadata"]["namespace"] = place.namespace.into(),
                Some(given) if given != place.namespace => {
                    let message =
                        "the namespace of the provided object does not match the namespace sent on the request";
                    return Err(Refusal::bad_request(message));
                }
                Some(_) => {}
            }
            let Some(namespace) = self.get("namespaces", "", place.namespace) else {
                return Err(Refusal::not_found(NAMESPACES, place.namespace));
            };
            if namespace["metadata"]["deletionTimestamp"].is_string() {
                return Err(Refusal::terminating(about, place.name, place.namespace));
            }
        } else if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("namespace");
        }
        // Validated before anything is allotted, so that preparing can rely on the shape.
        let flaws = validate::flaws(kind, &object, &Value::Null);
        if !flaws.is_empty() {
            return Err(Refusal::invalid(about, place.name, &flaws));
        }
        if self.get(&kind.resource(), place.namespace, place.name).is_some() {
            return Err(Refusal::exists(about, place.name));
        }
        prepare::for_create(self, kind, &mut object)?;
        if dry {
            return Ok(object);
        }
        Ok(self.put(kind, object))
    }

    /// Stores what takes the place of `old`; its managed fields are settled.
    fn update(&mut self, place: &Place<'_>, mut new: Value, old: &Value, manner: &Manner) -> Result<Value, Refusal> {
        let kind = place.kind;
        let about = kind.about();
        let given = prepare::revision(&new)?;
        let current = prepare::revision(old)?;
        if given == 0 && !kind.unconditional {
            let flaw = Flaw::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
            let named_by_resource = About { kind: about.plural, ..about };
            return Err(Refusal::invalid(named_by_resource, place.name, &[flaw]));
        }
        if given != 0 && given != current {
            return Err(Refusal::modified(about, place.name));
        }
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        if manner.writer.subresource == "status" {
            let managed = new["metadata"]["managedFields"].clone();
            let status = new["status"].clone();
            let given_uid = new["metadata"]["uid"].clone();
            new = old.clone();
            new["status"] = status;
            new["metadata"]["managedFields"] = managed;
            if given_uid.is_string() {
                new["metadata"]["uid"] = given_uid;
            }
            if new["status"].is_null() {
                new.as_object_mut().expect("an object").remove("status");
            }
        } else {
            if kind.status {
                let map = new.as_object_mut().expect("an object");
                match old.get("status") {
                    Some(status) => drop(map.insert("status".into(), status.clone())),
                    None => drop(map.remove("status")),
                }
            }
            prepare::for_update(self, kind, &mut new, old)?;
        }
        let flaws = validate::flaws(kind, &new, old);
        if !flaws.is_empty() {
            return Err(Refusal::invalid(about, place.name, &flaws));
        }
        if kind.generation && manner.writer.subresource.is_empty() && content(kind, &new) != content(kind, old) {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
            new["metadata"]["generation"] = (generation + 1).into();
        }
        default::strip_nulls(&mut new["metadata"]);
        let finalizers = new["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
        let leaving = new["metadata"]["deletionTimestamp"].is_string();
        let waits = kind.kind == "Pod" && new["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) > 0;
        if leaving && !finalizers && !waits && kind.kind != "Namespace" {
            return Ok(if manner.dry { new } else { self.take(kind, &new) });
        }
        if managers::same_but_for_times(old, &new) {
            return Ok(old.clone());
        }
        Ok(if manner.dry { new } else { self.put(kind, new) })
    }

    /// Deletes an object, or begins to; returns what the client is told.
    pub(crate) fn delete(&mut self, place: &Place<'_>, delete: &Delete) -> Result<Value, Refusal> {
        let kind = place.kind;
        let mut object = self.existing(place)?;
        let by_kind = About { plural: &kind.kind, ..kind.about() };
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_string();
        let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_string();
        if let Some(wanted) = &delete.uid
            && *wanted != uid
        {
            let detail = format!(
                "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
            );
            return Err(Refusal::conflict(by_kind, place.name, &detail));
        }
        if let Some(wanted) = &delete.resource_version
            && *wanted != version
        {
            let detail = format!(
                "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({version}). The object might have been modified"
            );
            return Err(Refusal::conflict(by_kind, place.name, &detail));
        }
        if kind.kind == "Namespace" && ["default", "kube-system", "kube-public"].contains(&place.name) {
            return Err(Refusal::forbidden(kind.about(), place.name, "this namespace may not be deleted"));
        }
        let mut finalizers: Vec<Value> = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        let extra = match delete.propagation.as_deref() {
            Some("Foreground") => Some("foregroundDeletion"),
            Some("Orphan") => Some("orphan"),
            None | Some("Background") => None,
            Some(other) => {
                let message = format!(
                    "invalid propagation policy {other:?}: supported values: Foreground, Background, Orphan, nil"
                );
                return Err(Refusal::bad_request(message));
            }
        };
        if let Some(extra) = extra
            && !finalizers.iter().any(|finalizer| finalizer == extra)
        {
            finalizers.push(extra.into());
        }
        if kind.kind == "CustomResourceDefinition" {
            let cleanup = json!("customresourcecleanup.apiextensions.k8s.io");
            if !finalizers.contains(&cleanup) {
                finalizers.push(cleanup);
            }
        }
        let bound = kind.kind == "Pod" && object["spec"]["nodeName"].is_string();
        let ended = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let asked = delete.grace.or(object["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30);
        let grace = if bound && !ended { asked } else { 0 };
        let at_once = finalizers.is_empty() && grace == 0 && kind.kind != "Namespace";
        if at_once {
            if !delete.dry {
                object = self.take(kind, &object);
            }
            return Ok(deleted(kind, place.name, &uid, object));
        }
        if object["metadata"]["deletionTimestamp"].is_null() || grace == 0 {
            let now = self.timestamp();
            let metadata = &mut object["metadata"];
            if metadata["deletionTimestamp"].is_null() {
                metadata["deletionTimestamp"] = now.into();
                if kind.generation {
                    metadata["generation"] = (metadata["generation"].as_i64().unwrap_or(0) + 1).into();
                }
            }
            if kind.kind != "Namespace" {
                metadata["deletionGracePeriodSeconds"] = grace.into();
            }
            metadata["finalizers"] = finalizers.into();
            if metadata["finalizers"] == json!([]) {
                metadata.as_object_mut().expect("an object").remove("finalizers");
            }
            if kind.kind == "Namespace" {
                object["status"]["phase"] = "Terminating".into();
            }
            let before = self.existing(place)?;
            if !delete.dry && before != object {
                object = self.put(kind, object);
            }
        }
        Ok(object)
    }
}

// What counts as the content of an object, whose changes make a generation.
fn content(kind: &Kind, object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(map) = object.as_object_mut() {
        map.remove("metadata");
        if kind.status || kind.custom.is_none() {
            map.remove("status");
        }
    }
    object
}

// A deleted built-in or custom object comes back as a Status; some kinds come back themselves.
fn deleted(kind: &Kind, name: &str, uid: &str, object: Value) -> Value {
    let whole = ["Pod", "Service", "ServiceAccount", "PersistentVolumeClaim", "PersistentVolume", "ResourceQuota"];
    if kind.custom.is_none() && whole.contains(&kind.kind.as_str()) {
        return object;
    }
    let mut details = json!({"name": name, "kind": kind.plural, "uid": uid});
    if !kind.group.is_empty() {
        details["group"] = kind.group.clone().into();
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

fn mistyped(kind: &Kind, object: &Value) -> Option<String> {
    if kind.custom.is_some() {
        return None;
    }
    let mut shown = object.clone();
    decode::prune(kind.schema(), &mut shown);
    if let Some(problem) = decode::unconvertible(kind.schema(), &kind.kind, &shown) {
        return Some(format!(
            "{} in version {:?} cannot be handled as a {}: {problem}",
            kind.kind, kind.version, kind.kind
        ));
    }
    let problem = decode::mistyped(kind.schema(), &shown)?;
    Some(format!("{} in version {:?} cannot be handled as a {}: json: {problem}", kind.kind, kind.version, kind.kind))
}
