//! From a request to its answer.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::decode::Document;
use super::kinds::Kind;
use super::managers::Writer;
use super::refusal::Refusal;
use super::select::Selector;
use super::store::Store;
use super::write::{Delete, Manner, Place};

/// One request to the API, without its transport.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// `GET`, `POST`, `PUT`, `PATCH` or `DELETE`.
    pub method: String,
    /// The path without the query: `/api/v1/namespaces/media/secrets/claim`.
    pub path: String,
    /// The query, undecoded: `fieldManager=lab&force=true`.
    pub query: String,
    /// The `Content-Type` of the body.
    pub content_type: String,
    /// The `Accept` header.
    pub accept: String,
    /// The `User-Agent` header; the field manager of a plain write without one.
    pub agent: String,
    /// The body.
    pub body: Vec<u8>,
}

/// Who sends a request, as the client's certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The common name.
    pub user: String,
    /// The organisations.
    pub groups: Vec<String>,
}

impl Identity {
    /// Returns the administrator: a member of `system:masters`.
    pub fn administrator() -> Identity {
        Identity { user: "admin".into(), groups: vec!["system:masters".into()] }
    }
}

/// What a call came to.
pub(crate) enum Answer {
    Json { code: u16, body: Value, content_type: &'static str, warnings: Vec<String> },
    Text(u16, String),
    Watch(Box<Watch>),
}

/// A watch that was asked for.
pub(crate) struct Watch {
    pub(crate) kind: Kind,
    pub(crate) namespace: String,
    pub(crate) selector: Selector,
    /// The lines to send first.
    pub(crate) initial: Vec<Value>,
    pub(crate) revision: u64,
    pub(crate) timeout: Duration,
    pub(crate) bookmarks: bool,
    pub(crate) metadata_only: bool,
}

const JSON: &str = "application/json";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

fn ok(code: u16, body: Value) -> Answer {
    Answer::Json { code, body, content_type: JSON, warnings: Vec::new() }
}

/// What a real server serves under these names and the stand-in does not.
const NOT_MODELLED: &[&str] = &[
    "bindings",
    "componentstatuses",
    "podtemplates",
    "replicationcontrollers",
    "controllerrevisions",
    "cronjobs",
    "horizontalpodautoscalers",
    "certificatesigningrequests",
    "flowschemas",
    "prioritylevelconfigurations",
    "runtimeclasses",
    "csistoragecapacities",
    "volumeattachments",
    "volumeattributesclasses",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "servicecidrs",
    "ipaddresses",
    "tokenreviews",
    "subjectaccessreviews",
    "selfsubjectaccessreviews",
    "selfsubjectrulesreviews",
    "localsubjectaccessreviews",
    "selfsubjectreviews",
    "apiservices",
    "deviceclasses",
    "resourceclaims",
    "resourceclaimtemplates",
    "resourceslices",
];

struct Query(BTreeMap<String, String>);

impl Query {
    fn read(text: &str) -> Query {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        });
        Query(pairs.collect())
    }

    fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    fn flag(&self, name: &str) -> bool {
        matches!(self.text(name), "true" | "1")
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let pair: Vec<u8> = rest.by_ref().take(2).collect();
                let code = std::str::from_utf8(&pair).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok());
                bytes.push(code.unwrap_or(b'?'));
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Store {
    /// Answers a call by `identity`.
    pub(crate) fn answer(
        &mut self,
        call: &Call,
        identity: Option<&Identity>,
        version: &str,
    ) -> Result<Answer, Refusal> {
        let identity = identity.ok_or_else(Refusal::unauthorised)?;
        if !identity.groups.iter().any(|group| group == "system:masters") {
            return Err(Refusal::forbidden_to(&identity.user));
        }
        let segments: Vec<String> = call.path.split('/').filter(|segment| !segment.is_empty()).map(decoded).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let aggregated = call.accept.contains("as=APIGroupDiscoveryList") && call.accept.contains("v=v2");
        let discovery = |body: Value, whole: bool| Answer::Json {
            code: 200,
            body,
            content_type: if whole { AGGREGATED } else { JSON },
            warnings: Vec::new(),
        };
        if matches!(segments[..], ["api" | "apis"] | ["api", _] | ["apis", _] | ["apis", _, _]) && call.method != "GET"
        {
            return Err(Refusal::not_allowed());
        }
        match segments[..] {
            ["readyz" | "livez" | "healthz", ..] => Ok(Answer::Text(200, "ok".into())),
            ["version"] => Ok(ok(200, version_document(version))),
            [core @ ("api" | "apis")] if aggregated => Ok(discovery(self.aggregated(core == "api"), true)),
            [core @ ("api" | "apis")] => Ok(discovery(self.groups(core == "api"), false)),
            ["api", "v1"] => Ok(ok(200, self.resources("", "v1").unwrap_or_default())),
            ["apis", group] => Ok(self.group(group).map_or_else(nothing_here, |body| ok(200, body))),
            ["apis", group, version] => {
                Ok(self.resources(group, version).map_or_else(nothing_here, |body| ok(200, body)))
            }
            ["api", "v1", ref rest @ ..] => self.object(call, "", "v1", rest),
            ["apis", group, version, ref rest @ ..] => self.object(call, group, version, rest),
            ["openapi" | "metrics" | "logs" | "debug" | ".well-known" | "openid", ..] => {
                Err(Refusal::not_modelled(&call.path))
            }
            _ => Ok(nothing_here()),
        }
    }

    fn object(&mut self, call: &Call, group: &str, version: &str, rest: &[&str]) -> Result<Answer, Refusal> {
        let (namespace, plural, rest) = match rest {
            ["namespaces", namespace, plural, rest @ ..] if !matches!(*plural, "status" | "finalize") => {
                (*namespace, *plural, rest)
            }
            [plural, rest @ ..] => ("", *plural, rest),
            [] => return Ok(nothing_here()),
        };
        let Some(kind) = self.served(group, version, plural).cloned() else {
            if NOT_MODELLED.contains(&plural) {
                return Err(Refusal::not_modelled(&format!("{plural} of {group:?} {version}")));
            }
            // Under a group of its own the real server knows what it lacks; elsewhere it knows nothing.
            if self.kinds.iter().any(|kind| kind.group == group && kind.version == version && kind.custom.is_none()) {
                return Err(Refusal::no_such_resource());
            }
            return Ok(nothing_here());
        };
        let query = Query::read(&call.query);
        if call.body.len() > 3 * 1024 * 1024 {
            return Err(Refusal::too_large());
        }
        let metadata_only = call.accept.contains("as=PartialObjectMetadata");
        let shown = |object: Value| if metadata_only { partial(&object) } else { versioned(&kind, object) };
        match (call.method.as_str(), rest) {
            ("GET", []) if query.flag("watch") => {
                self.watch(&kind, namespace, &query, metadata_only).map(|watch| Answer::Watch(Box::new(watch)))
            }
            ("GET", []) => Ok(ok(200, self.list(&kind, namespace, &query, metadata_only)?)),
            ("POST", []) => {
                let place = Place { kind: &kind, namespace, name: "" };
                if kind.namespaced && namespace.is_empty() {
                    return Err(Refusal::not_allowed());
                }
                let document = body(call)?;
                let written = self.post(&place, document, &manner(&kind, call, &query, "")?)?;
                Ok(answered(201, shown(written.object), written.warnings))
            }
            ("DELETE", []) => {
                let document = self.list(&kind, namespace, &query, false)?;
                let delete = delete_options(call, &query)?;
                for item in document["items"].as_array().into_iter().flatten() {
                    let text = |field: &str| item["metadata"][field].as_str().unwrap_or_default();
                    let place = Place { kind: &kind, namespace: text("namespace"), name: text("name") };
                    self.delete(&place, &delete)?;
                }
                Ok(ok(200, document))
            }
            (method, [name, sub @ ..]) => {
                if kind.namespaced && namespace.is_empty() {
                    return Ok(nothing_here());
                }
                let place = Place { kind: &kind, namespace, name };
                let subresource = match sub {
                    [] => "",
                    ["status"] if kind.status => "status",
                    ["status"] => return Ok(nothing_here()),
                    [other, ..] => return Err(Refusal::not_modelled(&format!("the subresource {plural}/{other}"))),
                };
                match method {
                    "GET" if query.flag("watch") => Err(Refusal::not_modelled("a watch on the path of one object")),
                    "GET" => {
                        let object = self.get(&kind.resource(), namespace, name).cloned();
                        let object = object.ok_or_else(|| Refusal::not_found(kind.about(), name))?;
                        Ok(ok(200, shown(object)))
                    }
                    "PUT" => {
                        let written = self.put_body(&place, body(call)?, &manner(&kind, call, &query, subresource)?)?;
                        Ok(answered(200, shown(written.object), written.warnings))
                    }
                    "PATCH" => {
                        let written = self.patched(&place, call, &query, subresource)?;
                        let code = if written.created { 201 } else { 200 };
                        Ok(answered(code, shown(written.object), written.warnings))
                    }
                    "DELETE" if subresource.is_empty() => {
                        let object = self.delete(&place, &delete_options(call, &query)?)?;
                        Ok(ok(200, if object["kind"] == "Status" { object } else { shown(object) }))
                    }
                    _ => Err(Refusal::not_allowed()),
                }
            }
            _ => Err(Refusal::not_allowed()),
        }
    }

    fn patched(
        &mut self,
        place: &Place<'_>,
        call: &Call,
        query: &Query,
        subresource: &str,
    ) -> Result<super::write::Written, Refusal> {
        let manner = manner(place.kind, call, query, subresource)?;
        match call.content_type.split(';').next().unwrap_or_default().trim() {
            "application/apply-patch+yaml" => {
                if query.text("fieldManager").is_empty() {
                    let flaw = super::refusal::Flaw::required("fieldManager", "is required for apply patch");
                    let options =
                        super::refusal::About { group: "meta.k8s.io", kind: "PatchOptions", plural: "patchoptions" };
                    return Err(Refusal::invalid(options, "", &[flaw]));
                }
                self.apply(place, Document::yaml(&call.body)?, &manner)
            }
            "application/merge-patch+json" => self.patch(place, &Document::json(&call.body)?, false, &manner),
            "application/json-patch+json" => self.patch(place, &Document::json(&call.body)?, true, &manner),
            "application/strategic-merge-patch+json" if place.kind.custom.is_none() => {
                Err(Refusal::not_modelled("strategic merge patches"))
            }
            _ => Err(Refusal::unsupported_media_type()),
        }
    }

    fn list(&self, kind: &Kind, namespace: &str, query: &Query, metadata_only: bool) -> Result<Value, Refusal> {
        let selector = Selector::read(kind, query.text("labelSelector"), query.text("fieldSelector"))?;
        let items: Vec<Value> = self
            .all(&kind.resource())
            .filter(|object| namespace.is_empty() || object["metadata"]["namespace"] == namespace)
            .filter(|object| selector.matches(object))
            .map(|object| {
                if metadata_only {
                    return partial(object);
                }
                let mut object = versioned(kind, object.clone());
                // In a list of a built-in kind the items do not repeat what the list is of.
                if kind.custom.is_none()
                    && let Some(map) = object.as_object_mut()
                {
                    map.remove("apiVersion");
                    map.remove("kind");
                }
                object
            })
            .collect();
        let (version, name) = if metadata_only {
            ("meta.k8s.io/v1".to_string(), "PartialObjectMetadataList".to_string())
        } else {
            (kind.api_version(), format!("{}List", kind.kind))
        };
        let metadata = json!({"resourceVersion": self.revision.to_string()});
        Ok(json!({"kind": name, "apiVersion": version, "metadata": metadata, "items": items}))
    }

    fn watch(&self, kind: &Kind, namespace: &str, query: &Query, metadata_only: bool) -> Result<Watch, Refusal> {
        let selector = Selector::read(kind, query.text("labelSelector"), query.text("fieldSelector"))?;
        let from = query.text("resourceVersion");
        let asked: u64 = if from.is_empty() {
            0
        } else {
            from.parse().map_err(|_| {
                Refusal::bad_request(format!("invalid resource version {from:?}: strconv.ParseUint: invalid syntax"))
            })?
        };
        let stream_list = query.flag("sendInitialEvents");
        let mut initial = Vec::new();
        let mut revision = asked;
        if asked == 0 || stream_list {
            revision = self.revision;
            for object in self.all(&kind.resource()) {
                let here = namespace.is_empty() || object["metadata"]["namespace"] == namespace;
                if here && selector.matches(object) {
                    let object = if metadata_only { partial(object) } else { versioned(kind, object.clone()) };
                    initial.push(json!({"type": "ADDED", "object": object}));
                }
            }
            if stream_list {
                let mut mark = bookmark(kind, revision);
                mark["object"]["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
                initial.push(mark);
            }
        } else if asked > self.revision {
            // From the future: a store that was restored from an older copy.
            return Err(Refusal::too_old(asked, self.revision));
        } else {
            self.since(asked).map(drop)?;
        }
        let timeout = query.text("timeoutSeconds").parse().map_or(Duration::from_secs(1800), Duration::from_secs);
        let mut watch = Watch {
            kind: kind.clone(),
            namespace: namespace.into(),
            selector,
            initial,
            revision,
            timeout,
            bookmarks: query.flag("allowWatchBookmarks"),
            metadata_only,
        };
        // What has happened since the version that was asked for is told at once, and not with the next change.
        let since = watch.next(self)?;
        watch.initial.extend(since);
        Ok(watch)
    }
}

impl Watch {
    /// Returns what is new since the last call, as lines to send.
    pub(crate) fn next(&mut self, store: &Store) -> Result<Vec<Value>, Refusal> {
        let mut lines = Vec::new();
        let resource = self.kind.resource();
        let mut last = self.revision;
        for event in store.since(self.revision)? {
            last = event.revision;
            if event.resource != resource
                || !(self.namespace.is_empty() || event.after["metadata"]["namespace"] == self.namespace.as_str())
            {
                continue;
            }
            let was = event.before.as_ref().is_some_and(|before| self.selector.matches(before));
            let is = !event.deleted && self.selector.matches(&event.after);
            let word = match (was, is) {
                (false, true) => "ADDED",
                (true, true) => "MODIFIED",
                (true, false) => "DELETED",
                (false, false) => continue,
            };
            let object =
                if self.metadata_only { partial(&event.after) } else { versioned(&self.kind, event.after.clone()) };
            lines.push(json!({"type": word, "object": object}));
        }
        self.revision = last;
        Ok(lines)
    }
}

/// Returns the line that tells a watch how far it has come.
pub(crate) fn bookmark(kind: &Kind, revision: u64) -> Value {
    let object = json!({
        "kind": kind.kind, "apiVersion": kind.api_version(), "metadata": {"resourceVersion": revision.to_string()},
    });
    json!({"type": "BOOKMARK", "object": object})
}

fn nothing_here() -> Answer {
    Answer::Text(404, "404 page not found\n".into())
}

fn answered(code: u16, body: Value, warnings: Vec<String>) -> Answer {
    Answer::Json { code, body, content_type: JSON, warnings }
}

fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

fn versioned(kind: &Kind, mut object: Value) -> Value {
    object["apiVersion"] = kind.api_version().into();
    object
}

fn body(call: &Call) -> Result<Document, Refusal> {
    match call.content_type.split(';').next().unwrap_or_default().trim() {
        "application/json" | "" => Document::json(&call.body),
        "application/yaml" => Document::yaml(&call.body),
        _ => Err(Refusal::unsupported_media_type()),
    }
}

fn manner(kind: &Kind, call: &Call, query: &Query, subresource: &str) -> Result<Manner, Refusal> {
    let dry = match query.text("dryRun") {
        "" => false,
        "All" => true,
        other => {
            let flaw = super::refusal::Flaw::unsupported("dryRun", &json!([other]), &["All"]);
            let options = super::refusal::About { group: "meta.k8s.io", kind: "PatchOptions", plural: "patchoptions" };
            return Err(Refusal::invalid(options, "", &[flaw]));
        }
    };
    let named = query.text("fieldManager");
    let agent = call.agent.split('/').next().unwrap_or_default();
    let manager = if named.is_empty() { if agent.is_empty() { "unknown" } else { agent } } else { named };
    if manager.len() > 128 {
        return Err(Refusal::bad_request("fieldManager: Too long: may not be more than 128 bytes"));
    }
    Ok(Manner {
        writer: Writer {
            manager: manager.into(),
            api_version: kind.api_version(),
            subresource: subresource.into(),
            status_apart: kind.status,
        },
        dry,
        force: query.flag("force"),
        strict: query.text("fieldValidation") == "Strict",
    })
}

fn delete_options(call: &Call, query: &Query) -> Result<Delete, Refusal> {
    let document = if call.body.is_empty() { Value::Null } else { body(call)?.value };
    let text = |value: &Value| value.as_str().map(String::from);
    let or_query = |value: Option<String>, name: &str| {
        value.or_else(|| Some(query.text(name).to_string()).filter(|text| !text.is_empty()))
    };
    let orphan = (document["orphanDependents"] == true).then(|| "Orphan".to_string());
    Ok(Delete {
        uid: text(&document["preconditions"]["uid"]),
        resource_version: text(&document["preconditions"]["resourceVersion"]),
        propagation: or_query(text(&document["propagationPolicy"]).or(orphan), "propagationPolicy"),
        grace: document["gracePeriodSeconds"].as_i64().or_else(|| query.text("gracePeriodSeconds").parse().ok()),
        dry: document["dryRun"] == json!(["All"]) || query.text("dryRun") == "All",
    })
}

fn version_document(version: &str) -> Value {
    let mut parts = version.trim_start_matches('v').split('.');
    let (major, minor) = (parts.next().unwrap_or("1"), parts.next().unwrap_or("34"));
    json!({
        "major": major, "minor": minor, "gitVersion": version, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "lab-sim", "platform": "linux/amd64",
    })
}
