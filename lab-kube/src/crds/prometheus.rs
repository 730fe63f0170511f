//! prometheus-operator 0.93.0: what is scraped, recorded and alerted on.

use super::{LabelSelector, Port, kind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

kind!(
    /// Scrapes what stands behind services.
    ServiceMonitor,
    ServiceMonitorSpec,
    "monitoring.coreos.com/v1"
);

/// Which services are scraped and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceMonitorSpec {
    /// The services, by label.
    pub selector: LabelSelector,
    /// What is scraped of each.
    pub endpoints: Vec<Endpoint>,
    /// Where they are; in the same namespace if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<NamespaceSelector>,
    /// The label of the service that names the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_label: Option<String>,
    /// Labels of the service that the series get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub target_labels: Vec<String>,
}

impl ServiceMonitorSpec {
    /// Returns the monitor of these services in the same namespace.
    pub fn new(selector: LabelSelector, endpoints: Vec<Endpoint>) -> ServiceMonitorSpec {
        ServiceMonitorSpec { selector, endpoints, ..ServiceMonitorSpec::default() }
    }
}

/// In which namespaces.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceSelector {
    /// In all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub any: Option<bool>,
    /// In these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_names: Vec<String>,
}

/// What is scraped of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// The port, by its name in the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// The port, by its name or number in the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_port: Option<Port>,
    /// The path, `/metrics` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `http`, which is the default, or `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// How often, `30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// How long one scrape may take, `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scrape_timeout: Option<String>,
    /// Whether labels of the target win over those of the scrape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub honor_labels: Option<bool>,
    /// The token to show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer_token_secret: Option<SecretField>,
    /// How TLS is spoken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_config: Option<ScrapeTls>,
    /// What becomes of the labels of targets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relabelings: Vec<Relabeling>,
    /// What becomes of the labels of series.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metric_relabelings: Vec<Relabeling>,
}

impl Endpoint {
    /// Returns the endpoint at a named port of the service.
    pub fn port(name: impl Into<String>) -> Endpoint {
        Endpoint { port: Some(name.into()), ..Endpoint::default() }
    }
}

/// A key in a Secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretField {
    /// The Secret.
    pub name: String,
    /// The key in it.
    pub key: String,
}

impl SecretField {
    /// Returns this key of this Secret.
    pub fn new(name: impl Into<String>, key: impl Into<String>) -> SecretField {
        SecretField { name: name.into(), key: key.into() }
    }
}

/// How TLS is spoken to a target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScrapeTls {
    /// Whether any certificate will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure_skip_verify: Option<bool>,
    /// The name that its certificate must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// The file with the authority, in Prometheus' container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
}

/// One rule about labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Relabeling {
    /// Labels that are read, joined.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_labels: Vec<String>,
    /// What joins them, `;` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub separator: Option<String>,
    /// The label that is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_label: Option<String>,
    /// What must match, all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// What is written, `$1` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replacement: Option<String>,
    /// What is done, `replace` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
}

kind!(
    /// Records series and raises alerts.
    PrometheusRule,
    PrometheusRuleSpec,
    "monitoring.coreos.com/v1"
);

/// The rules.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrometheusRuleSpec {
    /// Groups, each of another name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<RuleGroup>,
}

/// Rules that are evaluated together, in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleGroup {
    /// Its name.
    pub name: String,
    /// The rules.
    pub rules: Vec<Rule>,
    /// How often, `1m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
}

impl RuleGroup {
    /// Returns the group of these rules.
    pub fn new(name: impl Into<String>, rules: Vec<Rule>) -> RuleGroup {
        RuleGroup { name: name.into(), rules, ..RuleGroup::default() }
    }
}

/// One rule: it records or it alerts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// The PromQL expression.
    pub expr: String,
    /// The name of the series that it records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// The name of the alert that it raises.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert: Option<String>,
    /// How long it must hold before the alert, `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#for: Option<String>,
    /// How long the alert stays when it holds no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_firing_for: Option<String>,
    /// Labels that are added.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Texts of the alert, as templates.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Rule {
    /// Returns the rule that raises an alert while an expression holds.
    pub fn alert(name: impl Into<String>, expr: impl Into<String>) -> Rule {
        Rule { expr: expr.into(), alert: Some(name.into()), ..Rule::default() }
    }

    /// Returns the rule that records an expression as a series.
    pub fn record(name: impl Into<String>, expr: impl Into<String>) -> Rule {
        Rule { expr: expr.into(), record: Some(name.into()), ..Rule::default() }
    }
}
