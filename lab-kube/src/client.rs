//! The connection to one cluster: requests go out, answers and classified errors come back.
//!
//! It neither retries, nor polls, nor sleeps: the engine owns pauses and deadlines. It knows the kubeconfig it is given
//! and nothing else: no file, no environment variable, no cluster that the user last chose.

use crate::errors::{Call, Effect, Error, Problem, Status, broken, error, refused};
use crate::explain::Reports;
use crate::json::{list as elements, number, text};
use crate::key::{Identity, Key, KeyError};
use crate::kinds::{self, Kind};
use crate::mirror::{Mirror, Mirrors};
use crate::request::{self, Apply, Expect, Propagation, Selection};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use k8s_openapi::jiff::Timestamp;
use kube::config::{AuthInfo, Kubeconfig};
use lab_core::{Clock, Link, Route};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long one call may take unless told otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// How long connecting may take, within the time of the call.
const CONNECT: Duration = Duration::from_secs(10);

/// A connection to the API server of one cluster.
#[derive(Clone)]
pub struct Client {
    inner: kube::Client,
    server: String,
    timeout: Duration,
    clock: Clock,
    /// When the certificate that we show expires, if we show one.
    expires: Option<Timestamp>,
    mirrors: Arc<Mirrors>,
    reports: Arc<Reports>,
    /// Kinds that the cluster was found to serve.
    served: Arc<Mutex<BTreeSet<Kind>>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("server", &self.server).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// What an apply did.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The object as it is stored, or would be.
    pub object: Value,
    /// Whether it did not exist before.
    pub created: bool,
    /// What the server warns of: deprecated fields, pods that the namespace's security level will refuse.
    pub warnings: Vec<String>,
}

/// What a delete did.
#[derive(Clone, Debug, PartialEq)]
pub enum Deleted {
    /// The object is gone, or was not there.
    Gone,
    /// It is accepted and not finished. The object as it goes, if the server showed it.
    Leaving(Option<Value>),
}

/// A page of a list.
pub(crate) struct Page {
    pub(crate) items: Vec<Value>,
    /// Where the next one begins; empty for the last.
    pub(crate) next: String,
    /// The version of the collection that all pages of the list show.
    pub(crate) version: String,
    /// How many objects are on the other pages, as far as the server says.
    pub(crate) remaining: usize,
}

struct Answer {
    code: StatusCode,
    warnings: Vec<String>,
    body: Value,
}

impl Client {
    /// Returns a client for the cluster of a kubeconfig, reached the way `link` says. Nothing is sent yet.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// A kubeconfig that cannot be read, has no current context, or refers to files or programs of this machine: what
    /// those would say is not part of the program. A link that leads nowhere.
    pub fn connect(kubeconfig: &[u8], link: &Link) -> Result<Client, Error> {
        let call = call("connect to the cluster", "", false);
        let fail = |said: String| error(&call, Effect::None, Problem::Kubeconfig, &said);
        let mut config = config(kubeconfig).map_err(fail)?;
        match link.route {
            Route::Direct => {}
            Route::Proxy(proxy) => {
                let uri = format!("http://{proxy}").parse().map_err(|error| fail(format!("proxy {proxy}: {error}")))?;
                config.proxy_url = Some(uri);
            }
            Route::Nowhere => {
                let said = format!("{}: this run has no network", config.cluster_url);
                return Err(error(&call, Effect::None, Problem::Unreachable, &said));
            }
        }
        let server = config.cluster_url.to_string();
        let expires = expiry(&config.auth_info);
        let inner = kube::Client::try_from(config).map_err(|error| broken(&call, &error))?;
        let clock = link.clock.clone();
        let (mirrors, reports, served) = (Arc::default(), Arc::default(), Arc::default());
        Ok(Client { inner, server, timeout: TIMEOUT, clock, expires, mirrors, reports, served })
    }

    /// Returns the same client with another limit for one call.
    pub fn timeout(self, timeout: Duration) -> Client {
        Client { timeout, ..self }
    }

    /// Returns the address of the API server.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Returns the kind of a key: from the table, else from the cluster. Nothing when the cluster does not serve it.
    ///
    /// # Errors
    ///
    /// Whatever a call can fail with; here and below see [`Problem`].
    pub async fn kind(&self, key: &Key) -> Result<Option<Kind>, Error> {
        if let Some(kind) = kinds::known(&key.api_version, &key.kind) {
            return Ok(Some(kind));
        }
        let is = |kind: &Kind| kind.api_version() == key.api_version && kind.kind == key.kind;
        match self.remembered(is) {
            Some(kind) => Ok(Some(kind)),
            None => Ok(self.remember(self.served(key.group(), key.version(), &key.kind).await?)),
        }
    }

    /// Returns the kind of an identity, in the version of the table, else in the one that the cluster prefers.
    ///
    /// # Errors
    ///
    /// Whatever a call can fail with.
    pub async fn kind_of(&self, identity: &Identity) -> Result<Option<Kind>, Error> {
        if let Some(kind) = kinds::of_group(&identity.group, &identity.kind) {
            return Ok(Some(kind));
        }
        match self.remembered(|kind| kind.group == identity.group && kind.kind == identity.kind) {
            Some(kind) => Ok(Some(kind)),
            None => Ok(self.remember(self.discover(&identity.group, &identity.kind).await?)),
        }
    }

    /// A kind that was served is asked for no more: whoever uses it learns when it is not any more.
    fn remembered(&self, is: impl Fn(&Kind) -> bool) -> Option<Kind> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner).iter().find(|kind| is(kind)).cloned()
    }

    fn remember(&self, kind: Option<Kind>) -> Option<Kind> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner).extend(kind.clone());
        kind
    }

    /// Asks the cluster for a kind, in the version of its group that it prefers among those that have it.
    ///
    /// # Errors
    ///
    /// Whatever a call can fail with. One group is asked, so a broken one elsewhere does no harm.
    pub async fn discover(&self, group: &str, kind: &str) -> Result<Option<Kind>, Error> {
        if group.is_empty() {
            return self.served("", "v1", kind).await;
        }
        let call = call(format!("ask the cluster for the kinds of {group}"), group, false);
        let Some(answer) = found(self.send(&call, request::group(group)).await)? else { return Ok(None) };
        let preferred = text(&answer.body, "/preferredVersion/version");
        let versions = elements(&answer.body, "/versions").iter().map(|version| text(version, "/version"));
        let rest = versions.filter(|&version| version != preferred);
        for version in std::iter::once(preferred).filter(|version| !version.is_empty()).chain(rest) {
            if let Some(kind) = self.served(group, version, kind).await? {
                return Ok(Some(kind));
            }
        }
        Ok(None)
    }

    async fn served(&self, group: &str, version: &str, kind: &str) -> Result<Option<Kind>, Error> {
        let call = call(format!("ask the cluster for the kinds of {group}/{version}"), kind, false);
        let Some(answer) = found(self.send(&call, request::resources(group, version)).await)? else { return Ok(None) };
        // `deployments/scale` and its like are of the same kind and no plural.
        let is = |resource: &&Value| text(resource, "/kind") == kind && !text(resource, "/name").contains('/');
        Ok(elements(&answer.body, "/resources").iter().find(is).map(|resource| Kind {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            plural: text(resource, "/name").to_owned(),
            namespaced: crate::json::truth(resource, "/namespaced"),
        }))
    }

    /// Reads an object. `None` is a proven absence: the object is not there, or no version of its kind is served.
    ///
    /// # Errors
    ///
    /// Whatever a call can fail with. Not finding out is an error and never an absence.
    pub async fn get(&self, kind: &Kind, key: &Key) -> Result<Option<Value>, Error> {
        let call = call(format!("read {key}"), kind, false);
        let request = request::get(kind, key).map_err(|error| unnamed(&call, &error))?;
        let missing = match self.send(&call, request).await {
            Ok(answer) => return Ok(Some(answer.body)),
            Err(error) => error,
        };
        match missing.problem {
            Problem::Missing | Problem::NamespaceMissing(_) => Ok(None),
            // The version may have been dropped while its objects live on in another.
            Problem::KindMissing(_) => match self.discover(&kind.group, &kind.kind).await? {
                None => Ok(None),
                Some(served) if served == *kind => Err(missing),
                Some(served) => {
                    let request = request::get(&served, &key.identity().at(&served.version));
                    let request = request.map_err(|error| unnamed(&call, &error))?;
                    Ok(found(self.send(&call, request).await)?.map(|answer| answer.body))
                }
            },
            _ => Err(missing),
        }
    }

    /// Lists the objects of a kind, all pages of them, of one namespace or of all.
    ///
    /// # Errors
    ///
    /// Whatever a call can fail with.
    pub async fn list(&self, kind: &Kind, namespace: Option<&str>, what: &Selection) -> Result<Vec<Value>, Error> {
        let mut what = what.clone();
        let mut all = Vec::new();
        loop {
            let page = self.page(kind, namespace, &what).await?;
            all.extend(page.items);
            what.from = page.next;
            if what.from.is_empty() {
                return Ok(all);
            }
        }
    }

    /// Reads one page of a list.
    pub(crate) async fn page(&self, kind: &Kind, namespace: Option<&str>, what: &Selection) -> Result<Page, Error> {
        let place = namespace.map(|namespace| format!(" in {namespace}")).unwrap_or_default();
        let call = call(format!("list {kind}{place}"), kind, false);
        let mut page = self.send(&call, request::list(kind, namespace, what)).await?.body;
        match page.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => Ok(Page {
                items,
                next: text(&page, "/metadata/continue").to_owned(),
                version: text(&page, "/metadata/resourceVersion").to_owned(),
                remaining: number(&page, "/metadata/remainingItemCount").unwrap_or(0).try_into().unwrap_or(0),
            }),
            _ => Err(error(&call, Effect::None, Problem::Answer, "a list without items")),
        }
    }

    /// Returns the connection without what makes sense of its answers.
    pub(crate) fn raw(&self) -> kube::Client {
        self.inner.clone()
    }

    /// Returns what was read of namespaces to explain what is in them.
    pub(crate) fn reports(&self) -> &Reports {
        &self.reports
    }

    /// Returns what is known of the collection that an object is in.
    pub(crate) fn mirror(&self, kind: &Kind, key: &Key) -> Arc<Mirror> {
        self.mirrors.of(kind, key)
    }

    /// Returns whether the objects of a kind can be listed: a definition is established before it is served.
    ///
    /// # Errors
    ///
    /// Whatever a call can fail with.
    pub async fn listable(&self, kind: &Kind) -> Result<bool, Error> {
        let call = call(format!("list {kind}"), kind, false);
        Ok(found(self.send(&call, request::list(kind, None, &Selection::default())).await)?.is_some())
    }

    /// Applies a body server-side, as [`crate::body::apply_body`] makes it.
    ///
    /// # Errors
    ///
    /// Whatever a call can fail with; [`Problem::Exists`], [`Problem::Replaced`] and [`Problem::Managers`] above all.
    pub async fn apply(&self, kind: &Kind, key: &Key, body: &Value, how: &Apply) -> Result<Applied, Error> {
        let verb = if how.dry_run { "try" } else { "apply" };
        let mut call = call(format!("{verb} {key}"), kind, !how.dry_run);
        call.must_not_exist = how.expect == Expect::Absent;
        let request = request::apply(kind, key, body, how).map_err(|error| unnamed(&call, &error))?;
        if how.dry_run {
            let answer = self.send(&call, request).await?;
            return Ok(Applied { object: answer.body, created: false, warnings: answer.warnings });
        }
        let mirror = self.mirror(kind, key);
        // Whoever waits for the answer may be gone when it comes.
        mirror.doubt(&key.name);
        let answer = self.send(&call, request).await.inspect_err(|_| mirror.doubt(&key.name))?;
        mirror.returned(&answer.body);
        Ok(Applied { object: answer.body, created: answer.code == StatusCode::CREATED, warnings: answer.warnings })
    }

    /// Patches an object with the operations of a JSON patch (RFC 6902), and returns it.
    ///
    /// # Errors
    ///
    /// Whatever a call can fail with; [`Problem::Stale`] when the patch names another version of the object.
    pub async fn patch(&self, kind: &Kind, key: &Key, operations: &Value) -> Result<Value, Error> {
        let call = call(format!("patch {key}"), kind, true);
        let request = request::patch(kind, key, operations).map_err(|error| unnamed(&call, &error))?;
        let mirror = self.mirror(kind, key);
        mirror.doubt(&key.name);
        let answer = self.send(&call, request).await.inspect_err(|_| mirror.doubt(&key.name))?;
        mirror.returned(&answer.body);
        Ok(answer.body)
    }

    /// Deletes the object of this uid and no other.
    ///
    /// # Errors
    ///
    /// Whatever a call can fail with; [`Problem::Replaced`] when another object has the name by now.
    pub async fn delete(&self, kind: &Kind, key: &Key, uid: &str, how: Propagation) -> Result<Deleted, Error> {
        let call = call(format!("delete {key}"), kind, true);
        let request = request::delete(kind, key, uid, how).map_err(|error| unnamed(&call, &error))?;
        let mirror = self.mirror(kind, key);
        mirror.doubt(&key.name);
        let answer = self.send(&call, request).await;
        if let Ok(Answer { body, .. }) = &answer
            && text(body, "/kind") != "Status"
            && !text(body, "/metadata/deletionTimestamp").is_empty()
        {
            mirror.returned(body);
            return Ok(Deleted::Leaving(Some(body.clone())));
        }
        mirror.doubt(&key.name);
        match answer {
            Ok(_) => Ok(Deleted::Gone),
            Err(error) if matches!(error.problem, Problem::Missing | Problem::NamespaceMissing(_)) => Ok(Deleted::Gone),
            Err(error) => Err(error),
        }
    }

    async fn send(&self, call: &Call, request: Request<Vec<u8>>) -> Result<Answer, Error> {
        let perhaps = if call.mutates { Effect::Perhaps } else { Effect::None };
        let whole = async {
            let answer = self.inner.send(request.map(kube::client::Body::from)).await;
            let (head, body) = answer.map_err(|error| broken(call, &error))?.into_parts();
            let body = body.collect().await.map_err(|failure| broken_body(call, perhaps, &failure))?.to_bytes();
            Ok((head, body))
        };
        let timed = tokio::time::timeout(self.timeout, whole).await;
        let late = |_| error(call, perhaps, Problem::Timeout, &format!("{} s", self.timeout.as_secs_f32()));
        let (head, body) = timed.map_err(late).flatten().map_err(|error| self.at(error))?;
        if head.status.is_client_error() || head.status.is_server_error() {
            return Err(self.at(refused(call, &Status::read(head.status.as_u16(), &body))));
        }
        let body = serde_json::from_slice(&body)
            .map_err(|failure| error(call, perhaps, Problem::Answer, &format!("{}, {failure}", head.status)))?;
        let warnings = head.headers.get_all(http::header::WARNING).iter().filter_map(warning).collect();
        Ok(Answer { code: head.status, warnings, body })
    }
}

impl Client {
    /// Says which server it was that nothing came from, and whether it is our certificate that keeps us out.
    fn at(&self, mut error: Error) -> Error {
        let now = Timestamp::try_from(self.clock.now()).ok();
        if let (Some(expired), Some(now)) = (self.expires, now)
            && matches!(error.problem, Problem::Unauthorised | Problem::Certificate)
            && expired < now
        {
            let advice = "give its provider a new kubeconfig";
            error.message += &format!(": the client certificate of the kubeconfig expired at {expired}; {advice}");
        }
        if matches!(error.problem, Problem::Unreachable | Problem::Timeout | Problem::Certificate) {
            error.message += &format!(" ({})", self.server.trim_end_matches('/'));
        }
        error
    }
}

fn broken_body(call: &Call, effect: Effect, failure: &kube::Error) -> Error {
    // The head of an answer has come, so the request was certainly sent.
    Error { effect, ..broken(call, failure) }
}

fn call(what: impl Into<String>, kind: impl ToString, mutates: bool) -> Call {
    Call { what: what.into(), kind: kind.to_string(), mutates, must_not_exist: false }
}

fn unnamed(call: &Call, failure: &KeyError) -> Error {
    error(call, Effect::None, Problem::Invalid(Vec::new()), &failure.to_string())
}

/// An answer, or nothing for what is not there.
fn found(answer: Result<Answer, Error>) -> Result<Option<Answer>, Error> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) => match error.problem {
            Problem::Missing | Problem::NamespaceMissing(_) | Problem::KindMissing(_) => Ok(None),
            _ => Err(error),
        },
    }
}

/// A warning header is `299 - "text"`, with quotes and backslashes escaped (RFC 7234, section 5.5).
fn warning(header: &http::HeaderValue) -> Option<String> {
    let text = header.to_str().ok()?;
    let quoted = text.split_once('"')?.1.rsplit_once('"')?.0;
    Some(quoted.replace("\\\"", "\"").replace("\\\\", "\\"))
}

/// Makes the configuration by hand: kube's own loaders read proxies from the environment.
fn config(kubeconfig: &[u8]) -> Result<kube::Config, String> {
    let text = std::str::from_utf8(kubeconfig).map_err(|_| "it is not text".to_owned())?;
    // Parsers quote what they could not read, and what stands in a kubeconfig must not reach a log.
    let file = Kubeconfig::from_yaml(text).map_err(|_| "it is not a kubeconfig in YAML".to_owned())?;
    let current = file.current_context.as_deref().filter(|name| !name.is_empty());
    let current = current.ok_or("it has no current-context")?;
    let context = file.contexts.iter().find(|named| named.name == current).and_then(|named| named.context.as_ref());
    let context = context.ok_or_else(|| format!("it has no context {current:?}"))?;
    let cluster =
        file.clusters.iter().find(|named| named.name == context.cluster).and_then(|named| named.cluster.as_ref());
    let cluster = cluster.ok_or_else(|| format!("it has no cluster {:?}", context.cluster))?;
    let server = cluster.server.as_deref().ok_or_else(|| format!("its cluster {:?} has no server", context.cluster))?;
    let mut config = kube::Config::new(server.parse().map_err(|error| format!("its server {server:?}: {error}"))?);
    if cluster.certificate_authority.is_some() {
        return Err("its certificate-authority is a file: use certificate-authority-data".into());
    }
    if let Some(authority) = cluster.certificate_authority_data.as_deref().filter(|data| !data.is_empty()) {
        config.root_cert = Some(authorities(authority)?);
    }
    config.accept_invalid_certs = cluster.insecure_skip_tls_verify.unwrap_or(false);
    config.tls_server_name = cluster.tls_server_name.clone();
    let proxy = cluster.proxy_url.as_deref().filter(|proxy| !proxy.is_empty());
    config.proxy_url =
        proxy.map(|proxy| proxy.parse().map_err(|error| format!("its proxy-url {proxy:?}: {error}"))).transpose()?;
    if let Some(user) = context.user.as_deref().filter(|user| !user.is_empty()) {
        let named = file.auth_infos.iter().find(|named| named.name == user).and_then(|named| named.auth_info.as_ref());
        let info = named.ok_or_else(|| format!("it has no user {user:?}"))?;
        self_contained(user, info)?;
        config.auth_info = info.clone();
    }
    // The engine retries, on its own clock.
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT);
    Ok(config)
}

fn authorities(data: &str) -> Result<Vec<Vec<u8>>, String> {
    use base64::Engine as _;
    let bad = |what: &str| format!("its certificate-authority-data is not {what}");
    let pem = base64::engine::general_purpose::STANDARD.decode(data.trim()).map_err(|_| bad("base64"))?;
    let all: Result<Vec<Vec<u8>>, _> =
        CertificateDer::pem_slice_iter(&pem).map(|one| one.map(|der| der.to_vec())).collect();
    all.ok().filter(|all| !all.is_empty()).ok_or_else(|| bad("a PEM certificate"))
}

/// Returns when the client certificate of a user expires, if it has one that can be read.
fn expiry(user: &AuthInfo) -> Option<Timestamp> {
    use base64::Engine as _;
    let data = user.client_certificate_data.as_deref()?;
    let pem = base64::engine::general_purpose::STANDARD.decode(data.trim()).ok()?;
    let certificate = CertificateDer::from_pem_slice(&pem).ok()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&certificate).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

fn self_contained(user: &str, info: &AuthInfo) -> Result<(), String> {
    let outside = [
        ("client-certificate", info.client_certificate.is_some()),
        ("client-key", info.client_key.is_some()),
        ("tokenFile", info.token_file.is_some()),
        ("exec", info.exec.is_some()),
        ("auth-provider", info.auth_provider.is_some()),
    ];
    match outside.iter().find(|(_, given)| *given) {
        Some((field, _)) => {
            let advice = "a kubeconfig must hold its credentials itself";
            Err(format!("the {field} of its user {user:?} leads to something of this machine: {advice}"))
        }
        None => Ok(()),
    }
}
