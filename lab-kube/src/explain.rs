//! What explains why an object is not ready: its pods, its class, and what events say of them.

use crate::client::Client;
use crate::errors::Error;
use crate::json::{list as elements, text};
use crate::key::Key;
use crate::kinds;
use crate::readiness::{self, Readiness, Related};
use crate::request::Selection;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How many pods a reason speaks of; events of more are not asked for.
const PODS: usize = 2;
/// For how long what was read of a namespace explains whatever is waited for in it.
const RECENT: Duration = Duration::from_secs(2);

/// What was read of each namespace, for many objects at once.
#[derive(Default)]
pub(crate) struct Reports(Mutex<BTreeMap<String, Slot>>);

/// What was last read of a namespace; held by whoever reads it.
type Slot = Arc<tokio::sync::Mutex<Option<Report>>>;

/// The pods and the events of a namespace at a moment.
#[derive(Clone)]
struct Report {
    at: Instant,
    pods: Arc<Vec<Value>>,
    events: Arc<Vec<Value>>,
}

impl Client {
    /// Reads what explains the state of a live object: a workload's pods, a claim's class, and events about them.
    ///
    /// # Errors
    ///
    /// Whatever a call can fail with.
    pub async fn related(&self, object: &Value) -> Result<Related, Error> {
        let mut related = Related::default();
        let namespace = Some(text(object, "/metadata/namespace")).filter(|namespace| !namespace.is_empty());
        let Some(namespace) = namespace else { return Ok(related) };
        let kind = text(object, "/kind");
        let workload = matches!(kind, "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job");
        if workload && self.is_one_of_many(object) {
            return self.reported(object, namespace).await;
        }
        if workload
            && let Some(labels) = selector(object)
            && let Some(pods) = kinds::known("v1", "Pod")
        {
            let what = Selection { labels, ..Selection::default() };
            related.pods = self.list(&pods, Some(namespace), &what).await?;
        }
        let class = text(object, "/spec/storageClassName");
        if kind == "PersistentVolumeClaim"
            && !class.is_empty()
            && let Some(kind) = kinds::known("storage.k8s.io/v1", "StorageClass")
        {
            let key =
                Key { api_version: kind.api_version(), kind: kind.kind.clone(), namespace: None, name: class.into() };
            related.storage_class = self.get(&kind, &key).await?;
        }
        if let Some(events) = kinds::known("v1", "Event") {
            for uid in concerned(object, &related.pods) {
                let what = Selection { fields: format!("involvedObject.uid={uid}"), ..Selection::default() };
                related.events.extend(self.list(&events, Some(namespace), &what).await?);
            }
        }
        Ok(related)
    }

    fn is_one_of_many(&self, object: &Value) -> bool {
        let Ok(key) = Key::of(object) else { return false };
        kinds::known(&key.api_version, &key.kind).is_some_and(|kind| self.mirror(&kind, &key).is_live())
    }

    /// Explains one of many workloads of a namespace, whose pods and events are read once for all of them.
    async fn reported(&self, object: &Value, namespace: &str) -> Result<Related, Error> {
        let report = self.report(namespace).await?;
        let pods: Vec<Value> = match object.pointer("/spec/selector") {
            Some(selector) => report.pods.iter().filter(|pod| selects(selector, pod)).cloned().collect(),
            None => Vec::new(),
        };
        let about = concerned(object, &pods);
        let concerns = |event: &&Value| about.iter().any(|uid| text(event, "/involvedObject/uid") == uid);
        let events = report.events.iter().filter(concerns).cloned().collect();
        Ok(Related { pods, events, storage_class: None })
    }

    async fn report(&self, namespace: &str) -> Result<Report, Error> {
        let slot = {
            let mut slots = self.reports().0.lock().unwrap_or_else(PoisonError::into_inner);
            slots.entry(namespace.to_owned()).or_default().clone()
        };
        let mut slot = slot.lock().await;
        if let Some(report) = slot.as_ref().filter(|report| report.at.elapsed() < RECENT) {
            return Ok(report.clone());
        }
        let mut read = [Vec::new(), Vec::new()];
        for (read, kind) in read.iter_mut().zip(["Pod", "Event"]) {
            if let Some(kind) = kinds::known("v1", kind) {
                *read = self.list(&kind, Some(namespace), &Selection::default()).await?;
            }
        }
        let [pods, events] = read.map(Arc::new);
        let report = Report { at: Instant::now(), pods, events };
        *slot = Some(report.clone());
        Ok(report)
    }
}

/// Returns the uids of an object and of the first of its pods that are not ready.
fn concerned(object: &Value, pods: &[Value]) -> Vec<String> {
    let ready = |pod: &&Value| !matches!(readiness::status(pod), Readiness::Ready);
    std::iter::once(object)
        .chain(pods.iter().filter(ready).take(PODS))
        .map(|about| text(about, "/metadata/uid").to_owned())
        .filter(|uid| !uid.is_empty())
        .collect()
}

/// A workload's selector in the form of a query; expressions of unknown operators select nothing.
fn selector(object: &Value) -> Option<String> {
    let selector = object.pointer("/spec/selector")?;
    let mut terms = Vec::new();
    for (label, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
        terms.push(format!("{label}={}", value.as_str()?));
    }
    for expression in elements(selector, "/matchExpressions") {
        let values = elements(expression, "/values").iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",");
        let label = text(expression, "/key");
        terms.push(match text(expression, "/operator") {
            "In" => format!("{label} in ({values})"),
            "NotIn" => format!("{label} notin ({values})"),
            "Exists" => label.to_owned(),
            "DoesNotExist" => format!("!{label}"),
            _ => return None,
        });
    }
    (!terms.is_empty()).then(|| terms.join(","))
}

/// Returns whether a workload's selector selects an object; expressions of unknown operators select nothing.
fn selects(selector: &Value, object: &Value) -> bool {
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    let label = |name: &str| labels.and_then(|labels| labels.get(name));
    let same = selector.get("matchLabels").and_then(Value::as_object);
    let mut expressions = elements(selector, "/matchExpressions").iter();
    same.into_iter().flatten().all(|(name, value)| label(name) == Some(value))
        && expressions.all(|expression| {
            let label = label(text(expression, "/key"));
            let listed = label.is_some_and(|label| elements(expression, "/values").contains(label));
            match text(expression, "/operator") {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => label.is_some(),
                "DoesNotExist" => label.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_selector_selects_here_what_it_selects_there() {
        let pod = json!({"metadata": {"labels": {"app": "web", "tier": "front"}}});
        let check = |selector: Value, asked: &str, selected: bool| {
            assert_eq!(super::selector(&json!({"spec": {"selector": selector}})).as_deref(), Some(asked));
            assert_eq!(selects(&selector, &pod), selected, "{selector}");
        };
        check(json!({"matchLabels": {"app": "web"}}), "app=web", true);
        check(json!({"matchLabels": {"app": "web", "tier": "back"}}), "app=web,tier=back", false);
        let expression = |key: &str, operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        check(expression("app", "In", &["api", "web"]), "app in (api,web)", true);
        check(expression("app", "NotIn", &["web"]), "app notin (web)", false);
        check(expression("zone", "NotIn", &["a"]), "zone notin (a)", true);
        check(expression("tier", "Exists", &[]), "tier", true);
        check(expression("tier", "DoesNotExist", &[]), "!tier", false);
        assert!(!selects(&expression("app", "Near", &["web"]), &pod));
    }
}
