//! What is asked of an API server, as values: method, path, query and body, without a connection.

use crate::key::{Key, KeyError};
use crate::kinds::Kind;
use http::{Method, Request};
use serde_json::{Value, json};

/// The name under which our fields are owned. It never depends on the machine or the user: then we would conflict with
/// ourselves.
pub const MANAGER: &str = "lab";

/// How a body is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Apply {
    /// What must be there before.
    pub expect: Expect,
    /// Whether fields that others have set are taken from them.
    pub force: bool,
    /// Whether the server only says what it would do.
    pub dry_run: bool,
    /// The name under which the fields are owned: [`MANAGER`], or with the stack behind a `/` where two stacks meet in
    /// one object.
    pub manager: String,
}

/// What must be there before a body is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing: the call fails when an object of this name exists, even with `force`.
    Absent,
    /// The object of this uid: the call fails when it was deleted, or made again by somebody else.
    Uid(String),
    /// Whatever is there is taken over. Right after a `find` this is a race; prefer the other two.
    Anything,
}

impl Apply {
    /// Returns the apply that creates: it never adopts what exists.
    pub fn create() -> Apply {
        Apply { expect: Expect::Absent, force: false, dry_run: false, manager: MANAGER.into() }
    }

    /// Returns the apply that updates the object of this uid: it never resurrects what was deleted. It does not force;
    /// set that for an object that is ours.
    pub fn update(uid: impl Into<String>) -> Apply {
        Apply { expect: Expect::Uid(uid.into()), ..Apply::create() }
    }
}

/// What becomes of the objects that an object owns when it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They are deleted first; the owner stays until they are gone. For workloads.
    Foreground,
    /// They are deleted afterwards.
    Background,
    /// They stay.
    Orphan,
}

/// Which objects of a kind are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// A label selector, `app=plex,tier!=web`; empty for all.
    pub labels: String,
    /// A field selector, `involvedObject.uid=...`; empty for all.
    pub fields: String,
    /// Where the last page ended; empty for the first.
    pub from: String,
}

/// The most objects that one page of a list holds.
pub const PAGE: u32 = 500;

/// Reads one object.
///
/// # Errors
///
/// A key that does not fit its kind; so for all requests here.
pub fn get(kind: &Kind, key: &Key) -> Result<Request<Vec<u8>>, KeyError> {
    Ok(build(Method::GET, object(kind, key)?, &[], None))
}

/// Lists a page of objects, of one namespace or of all.
pub fn list(kind: &Kind, namespace: Option<&str>, selection: &Selection) -> Request<Vec<u8>> {
    let page = PAGE.to_string();
    let given =
        [("labelSelector", &selection.labels), ("fieldSelector", &selection.fields), ("continue", &selection.from)];
    let mut query = vec![("limit", page.as_str())];
    query.extend(given.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name, value.as_str())));
    build(Method::GET, collection(kind, namespace), &query, None)
}

/// For how long a watch is asked for, in seconds: less than what servers and proxies give it anyway.
const WATCH: u32 = 290;

/// Watches the objects of a kind, of one namespace or of all, from a version on.
pub fn watch(kind: &Kind, namespace: Option<&str>, version: &str) -> Request<Vec<u8>> {
    let timeout = WATCH.to_string();
    let query = [
        ("watch", "true"),
        ("allowWatchBookmarks", "true"),
        ("resourceVersion", version),
        ("timeoutSeconds", timeout.as_str()),
    ];
    build(Method::GET, collection(kind, namespace), &query, None)
}

/// Applies a body, with strict validation: a field that the kind does not have is an error.
///
/// # Errors
///
/// See [`get`].
pub fn apply(kind: &Kind, key: &Key, body: &Value, how: &Apply) -> Result<Request<Vec<u8>>, KeyError> {
    let path = object(kind, key)?;
    let mut query = vec![("fieldManager", how.manager.as_str()), ("fieldValidation", "Strict")];
    if how.force {
        query.push(("force", "true"));
    }
    if how.dry_run {
        query.push(("dryRun", "All"));
    }
    let mut body = body.clone();
    if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        match &how.expect {
            // Version 1 belongs to no object that can exist, so the server refuses it for every object that does. Not
            // a documented promise; tried on Kubernetes 1.34 for built-in kinds, definitions and custom objects.
            Expect::Absent => metadata.insert("resourceVersion".into(), json!("1")),
            Expect::Uid(uid) => metadata.insert("uid".into(), json!(uid)),
            Expect::Anything => None,
        };
    }
    Ok(build(Method::PATCH, path, &query, Some(("application/apply-patch+yaml", body))))
}

/// Patches an object with the operations of a JSON patch (RFC 6902).
///
/// # Errors
///
/// See [`get`].
pub fn patch(kind: &Kind, key: &Key, operations: &Value) -> Result<Request<Vec<u8>>, KeyError> {
    let query = [("fieldManager", MANAGER), ("fieldValidation", "Strict")];
    let body = ("application/json-patch+json", operations.clone());
    Ok(build(Method::PATCH, object(kind, key)?, &query, Some(body)))
}

/// Deletes the object of this uid, and no other that got its name since.
///
/// # Errors
///
/// See [`get`].
pub fn delete(kind: &Kind, key: &Key, uid: &str, propagation: Propagation) -> Result<Request<Vec<u8>>, KeyError> {
    let policy = match propagation {
        Propagation::Foreground => "Foreground",
        Propagation::Background => "Background",
        Propagation::Orphan => "Orphan",
    };
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy,
        "preconditions": {"uid": uid}});
    Ok(build(Method::DELETE, object(kind, key)?, &[], Some(("application/json", options))))
}

/// Asks which versions a group serves. The core group has the one version `v1` and is not asked.
pub fn group(group: &str) -> Request<Vec<u8>> {
    build(Method::GET, format!("/apis/{}", escape(group)), &[], None)
}

/// Asks which kinds a version of a group serves.
pub fn resources(group: &str, version: &str) -> Request<Vec<u8>> {
    build(Method::GET, root(group, version), &[], None)
}

fn root(group: &str, version: &str) -> String {
    match group {
        "" => format!("/api/{}", escape(version)),
        group => format!("/apis/{}/{}", escape(group), escape(version)),
    }
}

fn collection(kind: &Kind, namespace: Option<&str>) -> String {
    let root = root(&kind.group, &kind.version);
    match namespace {
        Some(namespace) if kind.namespaced => {
            format!("{root}/namespaces/{}/{}", escape(namespace), escape(&kind.plural))
        }
        _ => format!("{root}/{}", escape(&kind.plural)),
    }
}

fn object(kind: &Kind, key: &Key) -> Result<String, KeyError> {
    kind.check(key)?;
    Ok(format!("{}/{}", collection(kind, key.namespace.as_deref()), escape(&key.name)))
}

fn build(method: Method, path: String, query: &[(&str, &str)], body: Option<(&str, Value)>) -> Request<Vec<u8>> {
    let mut uri = path;
    for (index, (name, value)) in query.iter().enumerate() {
        uri.push(if index == 0 { '?' } else { '&' });
        uri.push_str(name);
        uri.push('=');
        uri.push_str(&escape(value));
    }
    let mut request = Request::new(Vec::new());
    *request.method_mut() = method;
    // Everything but letters, digits and a few marks was escaped, so this is a path and a query.
    *request.uri_mut() = uri.parse().expect("an escaped path is a URI");
    let headers = request.headers_mut();
    headers.insert(http::header::ACCEPT, http::HeaderValue::from_static("application/json"));
    if let Some((content, value)) = body {
        headers.insert(http::header::CONTENT_TYPE, content.parse().expect("a media type is a header value"));
        *request.body_mut() = value.to_string().into_bytes();
    }
    request
}

/// Percent-encodes all but the unreserved characters (RFC 3986) and `:`, which a path segment and a query may hold.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => escaped.push(byte as char),
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::known;

    fn named(key: &str) -> (Kind, Key) {
        let key: Key = key.parse().unwrap();
        (known(&key.api_version, &key.kind).unwrap(), key)
    }

    fn line(request: &Request<Vec<u8>>) -> String {
        format!("{} {}", request.method(), request.uri())
    }

    fn body(request: &Request<Vec<u8>>) -> Value {
        serde_json::from_slice(request.body()).unwrap()
    }

    #[test]
    fn an_object_is_read_at_its_path() {
        let check = |key: &str, path: &str| {
            let (kind, key) = named(key);
            assert_eq!(line(&get(&kind, &key).unwrap()), format!("GET {path}"));
        };
        check("apps/v1/Deployment media/plex", "/apis/apps/v1/namespaces/media/deployments/plex");
        check("v1/Namespace media", "/api/v1/namespaces/media");
        check("v1/ConfigMap media/a.b", "/api/v1/namespaces/media/configmaps/a.b");
        let path = "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:a%3Fb";
        check("rbac.authorization.k8s.io/v1/ClusterRole system:a?b", path);
    }

    #[test]
    fn a_key_without_its_namespace_is_not_asked_for() {
        let (kind, key) = named("v1/Pod plex");
        assert!(get(&kind, &key).unwrap_err().to_string().contains("is missing"));
        assert!(delete(&kind, &key, "1", Propagation::Background).is_err());
    }

    #[test]
    fn a_create_fails_on_what_exists_and_an_update_on_what_is_gone() {
        let (kind, key) = named("apps/v1/Deployment media/plex");
        let declared = json!({"metadata": {"name": "plex"}});
        let create = apply(&kind, &key, &declared, &Apply::create()).unwrap();
        let path = "/apis/apps/v1/namespaces/media/deployments/plex";
        assert_eq!(line(&create), format!("PATCH {path}?fieldManager=lab&fieldValidation=Strict"));
        assert_eq!(create.headers()["content-type"], "application/apply-patch+yaml");
        assert_eq!(body(&create), json!({"metadata": {"name": "plex", "resourceVersion": "1"}}));
        let update =
            apply(&kind, &key, &declared, &Apply { force: true, dry_run: true, ..Apply::update("u-1") }).unwrap();
        assert_eq!(
            line(&update),
            format!("PATCH {path}?fieldManager=lab&fieldValidation=Strict&force=true&dryRun=All")
        );
        assert_eq!(body(&update), json!({"metadata": {"name": "plex", "uid": "u-1"}}));
    }

    #[test]
    fn a_delete_names_the_uid() {
        let (kind, key) = named("apps/v1/Deployment media/plex");
        let request = delete(&kind, &key, "u-1", Propagation::Foreground).unwrap();
        assert_eq!(line(&request), "DELETE /apis/apps/v1/namespaces/media/deployments/plex");
        assert_eq!(body(&request)["preconditions"], json!({"uid": "u-1"}));
        assert_eq!(body(&request)["propagationPolicy"], "Foreground");
    }

    #[test]
    fn a_list_is_selected_and_paged() {
        let kind = known("v1", "Pod").unwrap();
        let selection = Selection { labels: "app in (a,b)".into(), from: "x=".into(), ..Selection::default() };
        assert_eq!(
            line(&list(&kind, Some("media"), &selection)),
            "GET /api/v1/namespaces/media/pods?limit=500&labelSelector=app%20in%20%28a%2Cb%29&continue=x%3D"
        );
        assert_eq!(line(&list(&kind, None, &Selection::default())), "GET /api/v1/pods?limit=500");
        assert_eq!(
            line(&watch(&kind, Some("media"), "7")),
            "GET /api/v1/namespaces/media/pods?watch=true&allowWatchBookmarks=true&resourceVersion=7&timeoutSeconds=290"
        );
        assert_eq!(line(&group("metallb.io")), "GET /apis/metallb.io");
        assert_eq!(line(&resources("", "v1")), "GET /api/v1");
    }
}
