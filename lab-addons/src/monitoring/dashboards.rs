//! What Grafana is given: where Prometheus is, and three dashboards.

use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Where metrics come from and where dashboards lie, as Grafana reads it when it starts.
pub(super) const PROVISIONING: [(&str, &str); 2] = [
    (
        "datasources.yaml",
        "apiVersion: 1\ndatasources:\n  - name: Prometheus\n    uid: prometheus\n    type: prometheus\n    \
         access: proxy\n    url: http://prometheus.monitoring.svc:9090\n    isDefault: true\n",
    ),
    (
        "dashboards.yaml",
        "apiVersion: 1\nproviders:\n  - name: lab\n    type: file\n    options:\n      \
         path: /var/lib/grafana/dashboards\n",
    ),
];

/// Returns the dashboards, by file name.
pub(super) fn all() -> BTreeMap<String, String> {
    let cluster = dashboard(
        "Cluster",
        &[
            ("Nodes ready", "short", r#"sum(kube_node_status_condition{condition="Ready",status="true"})"#, ""),
            ("Pods by phase", "short", "sum by (phase) (kube_pod_status_phase)", "{{phase}}"),
            (
                "Processor by namespace",
                "short",
                r#"sum by (namespace) (rate(container_cpu_usage_seconds_total{container!=""}[5m]))"#,
                "{{namespace}}",
            ),
            (
                "Memory by namespace",
                "bytes",
                r#"sum by (namespace) (container_memory_working_set_bytes{container!=""})"#,
                "{{namespace}}",
            ),
            (
                "Restarts in an hour",
                "short",
                "sum by (namespace, pod) (increase(kube_pod_container_status_restarts_total[1h])) > 0",
                "{{namespace}}/{{pod}}",
            ),
            ("Requests to the API server", "reqps", "sum by (verb) (rate(apiserver_request_total[5m]))", "{{verb}}"),
        ],
    );
    let nodes = dashboard(
        "Nodes",
        &[
            (
                "Processor in use",
                "percentunit",
                r#"1 - avg by (node) (rate(node_cpu_seconds_total{mode="idle"}[5m]))"#,
                "{{node}}",
            ),
            (
                "Memory in use",
                "percentunit",
                "1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes",
                "{{node}}",
            ),
            (
                "Disk in use",
                "percentunit",
                "1 - node_filesystem_avail_bytes / node_filesystem_size_bytes",
                "{{node}} {{mountpoint}}",
            ),
            (
                "Received",
                "Bps",
                r#"sum by (node) (rate(node_network_receive_bytes_total{device=~"e.*"}[5m]))"#,
                "{{node}}",
            ),
            (
                "Sent",
                "Bps",
                r#"sum by (node) (rate(node_network_transmit_bytes_total{device=~"e.*"}[5m]))"#,
                "{{node}}",
            ),
            ("Temperature", "celsius", "max by (node) (node_hwmon_temp_celsius)", "{{node}}"),
        ],
    );
    let plex = dashboard(
        "Plex",
        &[
            ("Ready", "short", r#"kube_statefulset_status_replicas_ready{namespace="media",statefulset="plex"}"#, ""),
            (
                "Processor",
                "short",
                r#"sum(rate(container_cpu_usage_seconds_total{namespace="media",container="plex"}[5m]))"#,
                "",
            ),
            ("Memory", "bytes", r#"sum(container_memory_working_set_bytes{namespace="media",container="plex"})"#, ""),
            (
                "Sent",
                "Bps",
                r#"sum(rate(container_network_transmit_bytes_total{namespace="media",pod=~"plex-.*"}[5m]))"#,
                "",
            ),
            (
                "Volumes in use",
                "percentunit",
                r#"kubelet_volume_stats_used_bytes{namespace="media"} / kubelet_volume_stats_capacity_bytes"#,
                "{{persistentvolumeclaim}}",
            ),
        ],
    );
    [("cluster.json", cluster), ("nodes.json", nodes), ("plex.json", plex)]
        .map(|(file, dashboard)| (file.to_owned(), dashboard.to_string()))
        .into()
}

/// Two graphs in a row, each with a title, a unit, an expression, and how its lines are called.
fn dashboard(title: &str, graphs: &[(&str, &str, &str, &str)]) -> Value {
    let panels: Vec<Value> = graphs
        .iter()
        .enumerate()
        .map(|(n, (title, unit, expression, legend))| {
            json!({
                "id": n + 1,
                "type": "timeseries",
                "title": title,
                "datasource": {"type": "prometheus", "uid": "prometheus"},
                "gridPos": {"x": n % 2 * 12, "y": n / 2 * 8, "w": 12, "h": 8},
                "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
                "targets": [{"refId": "A", "expr": expression, "legendFormat": legend}],
            })
        })
        .collect();
    json!({
        "uid": title.to_lowercase(),
        "title": title,
        "tags": ["lab"],
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "schemaVersion": 41,
        "panels": panels,
    })
}
