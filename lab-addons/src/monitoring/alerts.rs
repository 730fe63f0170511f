//! What is alerted about, as data and as Prometheus' file of rules.

use serde::Serialize;
use serde_json::json;

/// One thing that is alerted about.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// The name, `NodeDown`.
    pub name: String,
    /// How bad it is.
    pub severity: Severity,
    /// What must hold, in PromQL: it alerts for every series that this yields.
    pub when: String,
    /// How long it must hold: `5m`.
    pub during: String,
    /// What to tell a person; `{{ $labels.node }}` is a label of the series.
    pub says: String,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Somebody gets up.
    Critical,
    /// Somebody looks this week.
    Warning,
    /// Worth knowing.
    Info,
}

impl Alert {
    /// Returns an alert.
    pub fn new(name: &str, severity: Severity, during: &str, when: &str, says: &str) -> Alert {
        Alert { name: name.into(), severity, when: when.into(), during: during.into(), says: says.into() }
    }
}

/// Returns what a home lab wants to be told.
///
/// The last one always alerts: whoever hears nothing of it hears of no other either. New versions of Talos and
/// Kubernetes are not among them, since nothing in a cluster knows of those.
pub fn alerts() -> Vec<Alert> {
    use Severity::*;
    vec![
        Alert::new(
            "ControlPlaneNodeDown",
            Critical,
            "2m",
            r#"kube_node_status_condition{condition="Ready",status="true"} == 0 and on (node) kube_node_role{role="control-plane"}"#,
            "control plane {{ $labels.node }} is not ready",
        ),
        Alert::new(
            "EtcdUnhealthy",
            Critical,
            "2m",
            r#"up{job="etcd"} == 0 or etcd_server_has_leader == 0"#,
            "etcd at {{ $labels.instance }} does not answer or has no leader",
        ),
        Alert::new(
            "ApiServerUnreachable",
            Critical,
            "2m",
            r#"up{job="apiserver"} == 0 or absent(up{job="apiserver"})"#,
            "the API server {{ $labels.instance }} does not answer",
        ),
        Alert::new(
            "PodsCrashLooping",
            Critical,
            "5m",
            "count(increase(kube_pod_container_status_restarts_total[15m]) > 3) >= 3",
            "{{ $value }} containers restart again and again",
        ),
        Alert::new(
            "PlexDown",
            Critical,
            "5m",
            r#"kube_statefulset_status_replicas_ready{namespace="media",statefulset="plex"} == 0"#,
            "Plex does not answer",
        ),
        Alert::new(
            "NodeDown",
            Warning,
            "5m",
            r#"kube_node_status_condition{condition="Ready",status="true"} == 0"#,
            "node {{ $labels.node }} is not ready",
        ),
        Alert::new(
            "NodeDiskFull",
            Warning,
            "15m",
            "1 - node_filesystem_avail_bytes / node_filesystem_size_bytes > 0.8 and node_filesystem_readonly == 0",
            "{{ $labels.mountpoint }} of {{ $labels.node }} is {{ $value | humanizePercentage }} full",
        ),
        Alert::new(
            "NodeMemoryFull",
            Warning,
            "15m",
            "1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes > 0.9",
            "{{ $value | humanizePercentage }} of the memory of {{ $labels.node }} is in use",
        ),
        Alert::new(
            "VolumeFull",
            Warning,
            "15m",
            "kubelet_volume_stats_available_bytes / kubelet_volume_stats_capacity_bytes < 0.1",
            "the volume {{ $labels.namespace }}/{{ $labels.persistentvolumeclaim }} is nearly full",
        ),
        Alert::new(
            "CertificateExpires",
            Warning,
            // Longer than a renewal takes, which begins about then.
            "1d",
            "certmanager_certificate_expiration_timestamp_seconds - time() < 30 * 86400",
            "the certificate {{ $labels.namespace }}/{{ $labels.name }} ends in {{ $value | humanizeDuration }}",
        ),
        Alert::new(
            "CertificateNotReady",
            Warning,
            "1h",
            r#"certmanager_certificate_ready_status{condition="True"} == 0"#,
            "the certificate {{ $labels.namespace }}/{{ $labels.name }} is not issued",
        ),
        Alert::new(
            "PodFailing",
            Warning,
            "15m",
            r#"sum by (namespace, pod) (kube_pod_status_phase{phase=~"Pending|Unknown|Failed"}) > 0"#,
            "the pod {{ $labels.namespace }}/{{ $labels.pod }} does not run",
        ),
        Alert::new(
            "TargetDown",
            Warning,
            "15m",
            "up == 0",
            "{{ $labels.job }} at {{ $labels.instance }} is not measured",
        ),
        Alert::new(
            "JobFailed",
            Info,
            "5m",
            "kube_job_status_failed > 0",
            "the job {{ $labels.namespace }}/{{ $labels.job_name }} failed; backups are jobs",
        ),
        Alert::new(
            "VolumeUnused",
            Info,
            "7d",
            r#"kube_persistentvolume_status_phase{phase=~"Available|Released"} == 1"#,
            "nobody uses the volume {{ $labels.persistentvolume }}",
        ),
        Alert::new("Watchdog", Info, "0s", "vector(1)", "alerts arrive"),
    ]
}

/// Returns the file of rules. JSON is YAML, and needs no thought about quotes.
pub(super) fn file(alerts: &[Alert]) -> String {
    let rules: Vec<_> = alerts
        .iter()
        .map(|alert| {
            json!({
                "alert": alert.name,
                "expr": alert.when,
                "for": alert.during,
                "labels": {"severity": alert.severity},
                "annotations": {"summary": alert.says},
            })
        })
        .collect();
    let file = json!({"groups": [{"name": "lab", "rules": rules}]});
    serde_json::to_string_pretty(&file).expect("plain JSON serialises")
}
