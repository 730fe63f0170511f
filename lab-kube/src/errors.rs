//! What a refusal means: Kubernetes statuses and broken connections, classified for the engine.
//!
//! Statuses are read from JSON here, not through kube's types, so every rule below is tested on what a server says.
//! The texts come from Kubernetes 1.34.

use serde::Deserialize;
use std::error::Error as StdError;
use std::fmt;
use std::io;

pub use lab_core::{Class, Effect};

/// A failed call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// How to go on.
    pub class: Class,
    /// What it may have done.
    pub effect: Effect,
    /// What was attempted and what came back, for a person; fits after "failed to".
    pub message: String,
    /// What it was, for code.
    pub problem: Problem,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {}

impl From<Error> for lab_core::Error {
    fn from(error: Error) -> lab_core::Error {
        lab_core::Error { class: error.class, effect: error.effect, message: error.message }
    }
}

/// What went wrong with a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Nobody answered: no route, refused, reset.
    Unreachable,
    /// No answer within the time given.
    Timeout,
    /// The certificates of one side are not accepted by the other.
    Certificate,
    /// The kubeconfig cannot be used.
    Kubeconfig,
    /// What came back is not what an API server says.
    Answer,
    /// The server is overloaded, or what stands behind it is down; after so many seconds it asks to be called again.
    Busy(Option<u32>),
    /// The server failed at its side.
    Server,
    /// A webhook that must be asked does not answer, or its certificate is not accepted yet.
    Webhook(String),
    /// A webhook or policy that was asked says no.
    Denied(String),
    /// A webhook cannot be asked in a dry run: the outcome is unknown.
    DryRun(String),
    /// The credentials are not accepted.
    Unauthorised,
    /// The credentials are not enough.
    Forbidden,
    /// A quota is used up.
    Quota,
    /// The namespace is going away; what is in it can still be deleted.
    NamespaceTerminating(String),
    /// The namespace does not exist.
    NamespaceMissing(String),
    /// No version of this kind is served here: its definition is missing, or not yet established.
    KindMissing(String),
    /// The object does not exist.
    Missing,
    /// An object of this name exists already.
    Exists,
    /// The object is another one than it was: deleted, or deleted and made again.
    Replaced,
    /// The object was changed at the same moment.
    Stale,
    /// Fields are set by other managers.
    Managers(Vec<Taken>),
    /// Fields that are fixed once the object exists.
    Immutable(Vec<String>),
    /// Fields that are wrong.
    Invalid(Vec<String>),
}

/// A field that another manager has set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The field, `.spec.replicas`.
    pub field: String,
    /// Who set it, `hpa-controller`.
    pub manager: String,
}

/// What was attempted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The attempt, after "failed to": `apply apps/v1/Deployment media/plex`.
    pub what: String,
    /// The kind it is about, `apps/v1/Deployment`.
    pub kind: String,
    /// Whether it can change anything. A dry run cannot.
    pub mutates: bool,
    /// Whether it required that the object does not exist.
    pub must_not_exist: bool,
}

/// An API server's answer to a call that failed (`meta/v1 Status`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// The HTTP status code.
    pub code: u16,
    /// One word, such as `NotFound`.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// More, depending on the reason.
    pub details: Details,
}

/// What a [`Status`] is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Details {
    /// The object's name.
    pub name: String,
    /// The object's kind or plural.
    pub kind: String,
    /// What is wrong, field by field.
    pub causes: Vec<Cause>,
    /// When to come back.
    pub retry_after_seconds: u32,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Cause {
    /// One word, such as `FieldManagerConflict`.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// The field.
    pub field: String,
}

impl Status {
    /// Reads the body of an answer with a status code of 400 or above. What is not JSON becomes the message: proxies and
    /// the path router answer in plain text.
    pub fn read(code: u16, body: &[u8]) -> Status {
        let plain = || {
            let text: String = String::from_utf8_lossy(body).trim().chars().take(300).collect();
            Status { message: text, ..Status::default() }
        };
        let is_status = |value: &serde_json::Value| value.get("kind").is_some_and(|kind| kind == "Status");
        let read =
            serde_json::from_slice(body).ok().filter(is_status).and_then(|value| serde_json::from_value(value).ok());
        Status { code, ..read.unwrap_or_else(plain) }
    }
}

/// Classifies an API server's refusal.
pub fn refused(call: &Call, status: &Status) -> Error {
    let problem = problem(call, status);
    let effect = match (&problem, status.code) {
        _ if !call.mutates => Effect::None,
        // Webhooks are asked before anything is stored.
        (Problem::Webhook(_), _) => Effect::None,
        (_, 408 | 500..) => Effect::Perhaps,
        _ => Effect::None,
    };
    error(call, effect, problem, &status.message)
}

fn problem(call: &Call, status: &Status) -> Problem {
    let message = status.message.as_str();
    let details = &status.details;
    let fields = || details.causes.iter().map(|cause| cause.field.clone()).filter(|field| !field.is_empty()).collect();
    if message.contains("does not support dry run") {
        return Problem::DryRun(after(message, "webhook").unwrap_or_default());
    }
    if message.contains("denied the request") {
        return Problem::Denied(after(message, "admission webhook").or(after(message, "Policy")).unwrap_or_default());
    }
    match status.code {
        401 => Problem::Unauthorised,
        403 if message.contains("because it is being terminated") => {
            let namespace = between(message, "in namespace ", " because").unwrap_or_default();
            Problem::NamespaceTerminating(namespace)
        }
        403 if message.contains("violates PodSecurity") => Problem::Denied("PodSecurity".into()),
        403 if message.contains("exceeded quota") => Problem::Quota,
        403 => Problem::Forbidden,
        404 if details.kind == "namespaces" && call.kind != "v1/Namespace" => {
            Problem::NamespaceMissing(details.name.clone())
        }
        404 if details.name.is_empty() => Problem::KindMissing(call.kind.clone()),
        404 => Problem::Missing,
        409 => conflict(call, status),
        410 => Problem::Stale,
        422 if details.causes.iter().any(|cause| cause.field == "metadata.uid") => Problem::Replaced,
        422 if fixed(status) => Problem::Immutable(fields()),
        429 | 502 | 503 | 504 => Problem::Busy(Some(details.retry_after_seconds).filter(|&seconds| seconds > 0)),
        500.. if ["failed calling webhook", "failed to call webhook"].iter().any(|text| message.contains(text)) => {
            Problem::Webhook(after(message, "webhook").unwrap_or_default())
        }
        408 | 500.. => Problem::Server,
        _ => Problem::Invalid(fields()),
    }
}

/// A conflict has one reason for three different things; only the causes and the text tell them apart.
fn conflict(call: &Call, status: &Status) -> Problem {
    let taken: Vec<Taken> = (status.details.causes.iter())
        .filter(|cause| cause.reason == "FieldManagerConflict")
        .map(|cause| Taken {
            field: cause.field.clone(),
            manager: after(&cause.message, "conflict with").unwrap_or_else(|| "another manager".into()),
        })
        .collect();
    if !taken.is_empty() {
        return Problem::Managers(taken);
    }
    if ["uid mismatch", "UID in precondition"].iter().any(|text| status.message.contains(text)) {
        return Problem::Replaced;
    }
    if status.reason == "AlreadyExists" || call.must_not_exist {
        return Problem::Exists;
    }
    Problem::Stale
}

fn fixed(status: &Status) -> bool {
    let says = |text: &str| {
        [
            "field is immutable",
            "is immutable after",
            "updates to statefulset spec for fields other than",
            "may not change once set",
            "cannot change roleRef",
        ]
        .iter()
        .any(|part| text.contains(part))
    };
    says(&status.message) || status.details.causes.iter().any(|cause| says(&cause.message))
}

/// Returns the quoted word that follows `prefix`.
fn after(text: &str, prefix: &str) -> Option<String> {
    let rest = &text[text.find(prefix)? + prefix.len()..];
    let (before, rest) = rest.split_once(['"', '\''])?;
    // A quote much further on belongs to something else.
    (before.len() <= 2).then_some(())?;
    rest.split(['"', '\'']).next().map(str::to_owned)
}

fn between(text: &str, start: &str, end: &str) -> Option<String> {
    let rest = &text[text.find(start)? + start.len()..];
    rest.find(end).map(|end| rest[..end].trim_matches('"').to_owned())
}

fn class(problem: &Problem) -> Class {
    match problem {
        Problem::Unreachable | Problem::Timeout => Class::Unreachable,
        Problem::Certificate | Problem::Unauthorised | Problem::Forbidden => Class::Unauthorised,
        // A kind that is missing may be one that the same program defines, seen by another server of the cluster a
        // moment later. The deadline of the step bounds the waiting.
        Problem::Busy(_)
        | Problem::Server
        | Problem::Answer
        | Problem::Webhook(_)
        | Problem::NamespaceTerminating(_)
        | Problem::KindMissing(_)
        | Problem::Stale => Class::Again,
        Problem::Exists | Problem::Managers(_) => Class::Conflict,
        Problem::Replaced | Problem::Missing | Problem::NamespaceMissing(_) => Class::Gone,
        Problem::Kubeconfig
        | Problem::Denied(_)
        | Problem::DryRun(_)
        | Problem::Quota
        | Problem::Immutable(_)
        | Problem::Invalid(_) => Class::Invalid,
    }
}

pub(crate) fn error(call: &Call, effect: Effect, problem: Problem, said: &str) -> Error {
    let text = text(&problem, said);
    Error { class: class(&problem), effect, message: format!("{}: {text}", call.what), problem }
}

fn text(problem: &Problem, said: &str) -> String {
    let lines = |values: &[String]| values.join(", ");
    match problem {
        Problem::Unreachable => format!("the API server does not answer: {said}"),
        Problem::Timeout => format!("no answer from the API server after {said}"),
        Problem::Certificate => format!("no trust between us and the API server: {said}"),
        Problem::Kubeconfig => format!("the kubeconfig cannot be used: {said}"),
        Problem::Answer => format!("the answer is not an API server's: {said}"),
        Problem::Busy(_) => format!("the API server is busy: {said}"),
        Problem::Server => format!("the API server failed: {said}"),
        Problem::Webhook(name) if said.contains("x509") => {
            format!("the webhook {name} is not trusted yet, its caBundle is missing or old: {said}")
        }
        Problem::Webhook(name) => format!("the webhook {name} does not answer yet: {said}"),
        Problem::Denied(by) if by == "PodSecurity" => {
            format!("the namespace's pod security level forbids this pod: {said}")
        }
        Problem::Denied(by) => format!("{by} refuses it: {said}"),
        Problem::DryRun(name) => format!("what it would do is unknown: the webhook {name} has side effects"),
        Problem::Unauthorised => "the API server does not accept the credentials".into(),
        Problem::Forbidden | Problem::Quota => said.to_owned(),
        Problem::NamespaceTerminating(namespace) => format!("the namespace {namespace} is being deleted"),
        Problem::NamespaceMissing(namespace) => format!("the namespace {namespace} does not exist"),
        Problem::KindMissing(kind) => {
            format!("the cluster does not know the kind {kind}: its definition is missing or not yet served")
        }
        Problem::Missing => "the object does not exist".into(),
        Problem::Exists => "an object of this name exists already".into(),
        Problem::Replaced => "the object that was ours is gone; what is there now, if anything, is another".into(),
        Problem::Stale => format!("the object was changed at the same moment: {said}"),
        Problem::Managers(taken) => {
            let one = |taken: &Taken| format!("field {} is set by {}", taken.field, taken.manager);
            taken.iter().map(one).collect::<Vec<_>>().join("; ")
        }
        Problem::Immutable(fields) if fields.is_empty() => format!("a field cannot be changed: {said}"),
        Problem::Immutable(fields) => format!("{} cannot be changed: {said}", lines(fields)),
        Problem::Invalid(_) => said.to_owned(),
    }
}

/// Classifies an error of the client itself: the connection, the certificates, the kubeconfig.
pub(crate) fn broken(call: &Call, error: &kube::Error) -> Error {
    // The kube crate decodes no body for us, so this arm is for what its middleware says on its own.
    if let kube::Error::Api(status) = error {
        let status = Status { code: status.code, message: status.message.clone(), ..Status::default() };
        return refused(call, &status);
    }
    let mut chain: Vec<&(dyn StdError + 'static)> = vec![error];
    let mut source = error.source();
    while let Some(inner) = source {
        chain.push(inner);
        source = inner.source();
    }
    let said = innermost(&chain);
    let effect = match call.mutates && sent(&chain) {
        true => Effect::Perhaps,
        false => Effect::None,
    };
    let problem = match error {
        kube::Error::Auth(_) | kube::Error::RustlsTls(_) | kube::Error::InferKubeconfig(_) => Problem::Kubeconfig,
        kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => Problem::Answer,
        _ if chain.iter().any(|error| certificate(*error)) => Problem::Certificate,
        _ => Problem::Unreachable,
    };
    self::error(call, effect, problem, &said)
}

/// The innermost two sentences: the outer ones only say that a service or a client had an error.
fn innermost(chain: &[&(dyn StdError + 'static)]) -> String {
    let mut texts: Vec<String> = chain.iter().map(ToString::to_string).collect();
    texts.dedup();
    // Most wrappers repeat their source's text, so the last two alone say everything once.
    let last = texts.split_off(texts.len().saturating_sub(2));
    match last.as_slice() {
        [outer, inner] if !outer.contains(inner.as_str()) => format!("{outer}: {inner}"),
        [.., inner] => inner.clone(),
        [] => String::new(),
    }
}

/// Whether the request may have left the process: not when connecting was what failed.
fn sent(chain: &[&(dyn StdError + 'static)]) -> bool {
    let connecting = |error: &&(dyn StdError + 'static)| {
        error.downcast_ref::<hyper_util::client::legacy::Error>().is_some_and(|error| error.is_connect())
            || error.downcast_ref::<io::Error>().is_some_and(|error| {
                matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NetworkUnreachable)
            })
    };
    !chain.iter().any(connecting)
}

fn certificate(error: &(dyn StdError + 'static)) -> bool {
    // An I/O error hides what it holds from `source`, and connectors put one into another.
    let mut error = error;
    while let Some(inner) = error.downcast_ref::<io::Error>().and_then(|io| io.get_ref()) {
        error = inner;
    }
    let tls = error.downcast_ref::<rustls::Error>();
    // An alert is the server's complaint about our certificate; others (a broken handshake) are the network's.
    matches!(
        tls,
        Some(
            rustls::Error::InvalidCertificate(_)
                | rustls::Error::AlertReceived(_)
                | rustls::Error::NoCertificatesPresented
                | rustls::Error::InvalidCertRevocationList(_)
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn call() -> Call {
        Call {
            what: "apply apps/v1/Deployment media/plex".into(),
            kind: "apps/v1/Deployment".into(),
            mutates: true,
            must_not_exist: false,
        }
    }

    /// Checks a refusal: its status, and the class, effect and part of the message that it becomes.
    fn check(code: u16, status: Value, class: Class, effect: Effect, part: &str) -> Problem {
        let mut status = status;
        status["kind"] = json!("Status");
        let error = refused(&call(), &Status::read(code, status.to_string().as_bytes()));
        assert!(error.message.contains(part), "{}", error.message);
        assert!(error.message.starts_with("apply apps/v1/Deployment media/plex: "), "{}", error.message);
        assert_eq!((error.class, error.effect), (class, effect), "{}", error.message);
        error.problem
    }

    #[test]
    fn a_webhook_that_is_not_ready_is_named_and_tried_again() {
        let says = "Internal error occurred: failed calling webhook \"ipaddresspoolvalidationwebhook.metallb.io\": failed to \
                    call webhook: Post \"https://x.svc:443/v?timeout=10s\": dial tcp 10.96.0.9:443: connect: connection refused";
        let status = json!({"message": says, "reason": "InternalError"});
        let part = "the webhook ipaddresspoolvalidationwebhook.metallb.io does not answer yet";
        let problem = check(500, status, Class::Again, Effect::None, part);
        assert_eq!(problem, Problem::Webhook("ipaddresspoolvalidationwebhook.metallb.io".into()));
        let says = "Internal error occurred: failed calling webhook \"webhook.cert-manager.io\": failed to call webhook: Post \
                    \"https://x\": tls: failed to verify certificate: x509: certificate signed by unknown authority";
        check(500, json!({"message": says}), Class::Again, Effect::None, "is not trusted yet, its caBundle is missing");
    }

    #[test]
    fn a_webhook_that_says_no_is_final() {
        let says = "admission webhook \"vrules.metallb.io\" denied the request: CIDR \"10.0.0.0/24\" overlaps";
        let problem =
            check(403, json!({"message": says}), Class::Invalid, Effect::None, "vrules.metallb.io refuses it");
        assert_eq!(problem, Problem::Denied("vrules.metallb.io".into()));
    }

    #[test]
    fn a_field_conflict_names_the_field_and_who_set_it() {
        let status = json!({"reason": "Conflict", "message": "Apply failed with 1 conflict", "details": {"causes": [
            {"reason": "FieldManagerConflict", "field": ".spec.replicas",
             "message": "conflict with \"hpa-controller\" with subresource \"scale\" using apps/v1"}]}});
        check(409, status, Class::Conflict, Effect::None, "field .spec.replicas is set by hpa-controller");
    }

    #[test]
    fn the_conflicts_of_one_reason_are_told_apart() {
        let modified = json!({"reason": "Conflict", "message": "Operation cannot be fulfilled on deployments.apps \"plex\": \
            the object has been modified; please apply your changes to the latest version and try again"});
        assert_eq!(check(409, modified.clone(), Class::Again, Effect::None, "same moment"), Problem::Stale);
        let create = Call { must_not_exist: true, ..call() };
        let mut status = modified;
        status["kind"] = json!("Status");
        let error = refused(&create, &Status::read(409, status.to_string().as_bytes()));
        assert_eq!((error.class, error.problem), (Class::Conflict, Problem::Exists));
        let mismatch = json!({"reason": "Conflict", "message": "Operation cannot be fulfilled on deployments.apps \"plex\": \
            uid mismatch: the provided object specified uid 1, and no existing object was found"});
        assert_eq!(check(409, mismatch, Class::Gone, Effect::None, "is gone"), Problem::Replaced);
        let precondition = json!({"reason": "Conflict", "message": "Operation cannot be fulfilled on deployments.apps \
            \"plex\": Precondition failed: UID in precondition: 1, UID in object meta: 2"});
        assert_eq!(check(409, precondition, Class::Gone, Effect::None, "is gone"), Problem::Replaced);
        let uid = json!({"reason": "Invalid", "message": "metadata.uid: Invalid value: \"1\": field is immutable",
            "details": {"causes": [{"field": "metadata.uid"}]}});
        assert_eq!(check(422, uid, Class::Gone, Effect::None, "is gone"), Problem::Replaced);
    }

    #[test]
    fn a_namespace_that_goes_or_is_missing_is_named() {
        let says = "deployments.apps \"plex\" is forbidden: unable to create new content in namespace media because it is \
                    being terminated";
        check(403, json!({"message": says}), Class::Again, Effect::None, "the namespace media is being deleted");
        let status = json!({"reason": "NotFound", "message": "namespaces \"media\" not found",
            "details": {"name": "media", "kind": "namespaces"}});
        check(404, status, Class::Gone, Effect::None, "the namespace media does not exist");
    }

    #[test]
    fn a_kind_that_is_not_served_is_named_and_a_missing_object_is_something_else() {
        let error = refused(&call(), &Status::read(404, b"404 page not found\n"));
        assert_eq!((error.class, error.effect), (Class::Again, Effect::None));
        assert!(error.message.contains("does not know the kind apps/v1/Deployment"), "{error}");
        let status = json!({"reason": "NotFound", "details": {"name": "plex", "kind": "deployments"}});
        assert_eq!(check(404, status, Class::Gone, Effect::None, "does not exist"), Problem::Missing);
    }

    #[test]
    fn a_fixed_field_is_told_from_a_wrong_one() {
        let status = json!({"reason": "Invalid", "message": "Deployment.apps \"plex\" is invalid: spec.selector: Invalid value: \
            {}: field is immutable", "details": {"causes": [{"field": "spec.selector", "message": "field is immutable"}]}});
        let fixed = check(422, status, Class::Invalid, Effect::None, "spec.selector cannot be changed");
        assert_eq!(fixed, Problem::Immutable(vec!["spec.selector".into()]));
        let status = json!({"reason": "Invalid", "message": "spec.replicas: must be greater than or equal to 0",
            "details": {"causes": [{"field": "spec.replicas", "message": "must be"}]}});
        let wrong = check(422, status, Class::Invalid, Effect::None, "must be greater");
        assert_eq!(wrong, Problem::Invalid(vec!["spec.replicas".into()]));
        let strict = json!({"message": "strict decoding error: unknown field \"spec.replica\""});
        check(400, strict, Class::Invalid, Effect::None, "unknown field");
    }

    #[test]
    fn what_may_have_happened_is_said() {
        check(
            500,
            json!({"message": "etcdserver: request timed out"}),
            Class::Again,
            Effect::Perhaps,
            "request timed out",
        );
        check(504, json!({"message": "Timeout: request did not complete"}), Class::Again, Effect::Perhaps, "busy");
        let busy = json!({"message": "too many requests", "details": {"retryAfterSeconds": 3}});
        assert_eq!(check(429, busy, Class::Again, Effect::None, "busy"), Problem::Busy(Some(3)));
        let reads = Call { mutates: false, ..call() };
        assert_eq!(refused(&reads, &Status::read(500, b"boom")).effect, Effect::None);
    }

    #[test]
    fn refusals_of_who_we_are_and_of_the_pod_are_not_the_same() {
        check(401, json!({"message": "Unauthorized"}), Class::Unauthorised, Effect::None, "credentials");
        check(403, json!({"message": "User \"x\" cannot patch"}), Class::Unauthorised, Effect::None, "cannot patch");
        let says = "pods \"plex\" is forbidden: violates PodSecurity \"baseline:latest\": hostPath volumes";
        check(403, json!({"message": says}), Class::Invalid, Effect::None, "pod security level forbids");
        let says = "pods \"plex\" is forbidden: exceeded quota: q, requested: cpu=2";
        assert_eq!(
            check(403, json!({"message": says}), Class::Invalid, Effect::None, "exceeded quota"),
            Problem::Quota
        );
    }

    #[test]
    fn a_webhook_with_side_effects_leaves_a_dry_run_unknown() {
        let says = "admission webhook \"hook.example.org\" does not support dry run";
        let problem = check(400, json!({"message": says}), Class::Invalid, Effect::None, "unknown");
        assert_eq!(problem, Problem::DryRun("hook.example.org".into()));
    }

    #[test]
    fn an_answer_that_is_no_status_is_quoted() {
        let status = Status::read(502, b"<html>Bad Gateway</html>");
        assert_eq!((status.code, status.message.as_str()), (502, "<html>Bad Gateway</html>"));
        assert_eq!(Status::read(404, br#"{"kind": "Pod", "message": "x"}"#).details.name, "");
    }
}
