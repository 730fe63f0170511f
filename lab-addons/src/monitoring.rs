//! Monitoring: Prometheus with its rules, node-exporter, kube-state-metrics, and Grafana if wanted.
//!
//! No operator: one StatefulSet reads one file. Everything is found by itself: the API server, every kubelet, and every
//! container port of the cluster that is named `metrics`. A changed file is taken over within minutes, without a
//! restart.
//!
//! Deliberately not here yet: an Alertmanager. Alerts stand on Prometheus' own page and in Grafana; nobody is called.

mod alerts;
mod dashboards;

pub use alerts::{Alert, Severity, alerts};

use crate::Account;
use crate::parts::*;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    Container, EnvVar, EnvVarSource, PersistentVolumeClaim, PodSpec, Probe, Secret as SecretObject, SecretKeySelector,
    Toleration, VolumeMount,
};
use k8s_openapi::api::rbac::v1::PolicyRule;
use lab_core::model::{Component, Handle, Input, Scope, Secret};
use lab_kube::{Kubernetes, Object};
use std::net::Ipv4Addr;

/// The namespace. Its pods may use the host: node-exporter reads the node's own files.
pub const NAMESPACE: &str = "monitoring";

/// The images.
pub const IMAGES: Images = Images {
    prometheus: "quay.io/prometheus/prometheus:v3.14.0",
    node_exporter: "quay.io/prometheus/node-exporter:v1.10.2",
    kube_state_metrics: "registry.k8s.io/kube-state-metrics/kube-state-metrics:v2.17.0",
    grafana: "docker.io/grafana/grafana:13.2.0",
};

/// The images of monitoring.
#[derive(Clone, Copy, Debug)]
pub struct Images {
    /// Collects and keeps.
    pub prometheus: &'static str,
    /// Measures a node.
    pub node_exporter: &'static str,
    /// Measures what the API server says.
    pub kube_state_metrics: &'static str,
    /// Draws.
    pub grafana: &'static str,
}

const PROMETHEUS: &str = "prometheus";
const NODE_EXPORTER: &str = "node-exporter";
const KUBE_STATE_METRICS: &str = "kube-state-metrics";
const GRAFANA: &str = "grafana";

/// Prometheus and what it measures with.
#[derive(Clone, Debug)]
pub struct Monitoring {
    /// The class of the volume for metrics: a disk, not NFS.
    pub storage_class: Input<String>,
    /// The size of that volume, in GiB. Four fifths of it are used.
    pub volume: u32,
    /// How many days metrics are kept, if the volume has room for so many.
    pub days: u32,
    /// How often everything is asked, in seconds.
    pub interval: u32,
    /// The control planes, where etcd is asked at port 2381. Talos opens that port when told so
    /// (`cluster.etcd.extraArgs: listen-metrics-urls`); none if empty.
    pub etcd: Vec<Ipv4Addr>,
    /// The host name of Prometheus' page; no page outside the cluster if none is given.
    pub host: Option<String>,
    /// What is alerted about.
    pub alerts: Vec<Alert>,
    /// Grafana, if wanted.
    pub grafana: Option<Grafana>,
}

impl Monitoring {
    /// Returns thirty days of metrics on a volume of this class, asked every half minute, without Grafana.
    pub fn new(storage_class: impl Into<Input<String>>) -> Monitoring {
        Monitoring {
            storage_class: storage_class.into(),
            volume: 50,
            days: 30,
            interval: 30,
            etcd: Vec::new(),
            host: None,
            alerts: alerts(),
            grafana: None,
        }
    }
}

/// Grafana with dashboards of the cluster, its nodes and Plex. It has no volume: what is drawn by hand is gone with
/// its pod.
#[derive(Clone, Debug)]
pub struct Grafana {
    /// The password of the user `admin`.
    pub password: Input<Secret<String>>,
    /// The host name of its page; none outside the cluster if none is given.
    pub host: Option<String>,
}

impl Grafana {
    /// Returns Grafana with this password of the user `admin`.
    pub fn new(password: impl Into<Input<Secret<String>>>) -> Grafana {
        Grafana { password: password.into(), host: None }
    }
}

/// What others are wired to.
#[derive(Clone, Debug)]
pub struct MonitoringHandle {
    /// The namespace.
    pub namespace: Handle<lab_kube::ObjectOutputs>,
    /// Prometheus, ready.
    pub prometheus: Handle<lab_kube::ObjectOutputs>,
}

impl MonitoringHandle {
    /// Returns the address of Prometheus within the cluster.
    pub fn url(&self) -> String {
        format!("http://{PROMETHEUS}.{NAMESPACE}.svc:9090")
    }
}

impl Component<Kubernetes> for Monitoring {
    type Handle = MonitoringHandle;

    fn declare(self, scope: &Scope<'_, Kubernetes>) -> MonitoringHandle {
        let namespace = scope.resource("namespace").add(Object::new(privileged_namespace(NAMESPACE)));

        let account = scope.component("prometheus").depends_on(&namespace).add(prometheus_account());
        let files = texts([("prometheus.yml", &self.configuration()), ("rules.yml", &alerts::file(&self.alerts))]);
        let config = scope.resource("prometheus-config").depends_on(&namespace).add(Object::new(config_map(
            NAMESPACE,
            "prometheus-config",
            files,
        )));
        let served = scope.resource("prometheus-service").depends_on(&namespace).add(Object::new(service(
            NAMESPACE,
            PROMETHEUS,
            vec![service_port("metrics", 9090)],
        )));
        let prometheus = Object::new(self.prometheus())
            .set("/spec/volumeClaimTemplates/0/spec/storageClassName", self.storage_class.clone());
        let prometheus =
            scope.resource("prometheus").depends_on(&account).depends_on(&config).depends_on(&served).add(prometheus);
        if let Some(host) = &self.host {
            let page = ingress(NAMESPACE, PROMETHEUS, host, "metrics", None);
            scope.resource("prometheus-ingress").depends_on(&served).add(Object::new(page));
        }

        scope.resource("node-exporter").depends_on(&namespace).add(Object::new(node_exporter()));

        let account = scope.component("kube-state-metrics").depends_on(&namespace).add(kube_state_metrics_account());
        scope.resource("kube-state-metrics").depends_on(&account).add(Object::new(kube_state_metrics()));

        if let Some(grafana) = self.grafana {
            scope.component("grafana").depends_on(&namespace).add(grafana);
        }
        MonitoringHandle { namespace, prometheus }
    }
}

impl Monitoring {
    fn prometheus(&self) -> StatefulSet {
        // Four fifths: what is being compacted needs room too, and a full volume stops everything.
        let megabytes = u64::from(self.volume) * 1024 * 4 / 5;
        let mut args = list([
            "--config.file=/etc/prometheus/prometheus.yml",
            "--enable-feature=auto-reload-config",
            "--storage.tsdb.path=/prometheus",
        ]);
        args.push(format!("--storage.tsdb.retention.time={}d", self.days));
        args.push(format!("--storage.tsdb.retention.size={megabytes}MB"));
        let prometheus = Container {
            args: Some(args),
            ports: Some(vec![port("metrics", 9090)]),
            // After a crash it reads its log back before it answers; long, with a month of metrics.
            startup_probe: Some(Probe {
                period_seconds: Some(15),
                failure_threshold: Some(60),
                ..http_probe("/-/ready", "metrics")
            }),
            readiness_probe: Some(http_probe("/-/ready", "metrics")),
            liveness_probe: Some(Probe { failure_threshold: Some(6), ..http_probe("/-/healthy", "metrics") }),
            resources: Some(resources("200m", "512Mi", "2Gi")),
            security_context: Some(confined()),
            volume_mounts: Some(vec![read_only("prometheus-config", "/etc/prometheus"), mount("data", "/prometheus")]),
            ..container("prometheus", IMAGES.prometheus)
        };
        let pod = PodSpec {
            service_account_name: Some(PROMETHEUS.into()),
            containers: vec![prometheus],
            node_selector: on_linux(),
            security_context: Some(run_as(65534)),
            termination_grace_period_seconds: Some(300),
            volumes: Some(vec![config_volume("prometheus-config")]),
            ..PodSpec::default()
        };
        let data = claim(NAMESPACE, "data", &format!("{}Gi", self.volume), "ReadWriteOnce");
        // A template of a claim has no namespace, it is that of the set.
        let metadata = cluster_meta("data");
        StatefulSet {
            metadata: meta(NAMESPACE, PROMETHEUS),
            spec: Some(StatefulSetSpec {
                replicas: Some(1),
                service_name: Some(PROMETHEUS.into()),
                selector: named(PROMETHEUS),
                template: template(PROMETHEUS, pod),
                volume_claim_templates: Some(vec![PersistentVolumeClaim { metadata, ..data }]),
                ..StatefulSetSpec::default()
            }),
            ..StatefulSet::default()
        }
    }

    /// What is asked, and how what answers is labelled.
    fn configuration(&self) -> String {
        let mut file = format!("global:\n  scrape_interval: {0}s\n  evaluation_interval: {0}s\n", self.interval);
        file.push_str(JOBS);
        if !self.etcd.is_empty() {
            let targets: Vec<String> = self.etcd.iter().map(|address| format!("\"{address}:2381\"")).collect();
            file.push_str("  - job_name: etcd\n    static_configs:\n");
            file.push_str(&format!("      - targets: [{}]\n", targets.join(", ")));
        }
        file
    }
}

/// The kubelet's certificate is signed by itself unless the cluster was set up otherwise: who it is stays unchecked.
const JOBS: &str = r#"rule_files:
  - /etc/prometheus/rules.yml
scrape_configs:
  - job_name: apiserver
    scheme: https
    tls_config:
      ca_file: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt
    authorization:
      credentials_file: /var/run/secrets/kubernetes.io/serviceaccount/token
    kubernetes_sd_configs:
      - role: endpointslice
        namespaces:
          names: [default]
    relabel_configs:
      - source_labels: [__meta_kubernetes_service_name, __meta_kubernetes_endpointslice_port_name]
        action: keep
        regex: kubernetes;https
  - job_name: kubelet
    scheme: https
    tls_config:
      insecure_skip_verify: true
    authorization:
      credentials_file: /var/run/secrets/kubernetes.io/serviceaccount/token
    kubernetes_sd_configs:
      - role: node
    relabel_configs:
      - source_labels: [__meta_kubernetes_node_name]
        target_label: node
  - job_name: cadvisor
    scheme: https
    metrics_path: /metrics/cadvisor
    tls_config:
      insecure_skip_verify: true
    authorization:
      credentials_file: /var/run/secrets/kubernetes.io/serviceaccount/token
    kubernetes_sd_configs:
      - role: node
    relabel_configs:
      - source_labels: [__meta_kubernetes_node_name]
        target_label: node
  - job_name: pods
    honor_labels: true
    kubernetes_sd_configs:
      - role: pod
    relabel_configs:
      - source_labels: [__meta_kubernetes_pod_container_port_name]
        action: keep
        regex: metrics
      - source_labels: [__meta_kubernetes_pod_phase]
        action: drop
        regex: Pending|Succeeded|Failed
      - source_labels: [__meta_kubernetes_pod_container_name]
        target_label: job
      - source_labels: [__meta_kubernetes_pod_label_app_kubernetes_io_name]
        regex: (.+)
        target_label: job
      - source_labels: [__meta_kubernetes_namespace]
        target_label: namespace
      - source_labels: [__meta_kubernetes_pod_name]
        target_label: pod
      - source_labels: [__meta_kubernetes_pod_node_name]
        target_label: node
"#;

fn prometheus_account() -> Account {
    let cluster_rules = vec![
        rule("", ["nodes", "pods", "services", "endpoints"], ["get", "list", "watch"]),
        rule("", ["nodes/metrics"], ["get"]),
        rule("discovery.k8s.io", ["endpointslices"], ["get", "list", "watch"]),
        PolicyRule {
            non_resource_urls: Some(list(["/metrics", "/metrics/cadvisor"])),
            verbs: list(["get"]),
            ..PolicyRule::default()
        },
    ];
    Account { cluster_rules, ..Account::new(NAMESPACE, PROMETHEUS) }
}

/// Measures a node from within its own network and files, on every node there is.
fn node_exporter() -> DaemonSet {
    let exporter = Container {
        args: Some(list([
            "--path.procfs=/host/proc",
            "--path.sysfs=/host/sys",
            "--path.rootfs=/host/root",
            "--collector.filesystem.mount-points-exclude=^/(dev|proc|run|sys|etc|var/lib/containerd|var/lib/kubelet)($|/)",
            "--collector.filesystem.fs-types-exclude=^(autofs|cgroup2?|overlay|proc|squashfs|sysfs|tmpfs|tracefs)$",
        ])),
        ports: Some(vec![port("metrics", 9100)]),
        readiness_probe: Some(http_probe("/", "metrics")),
        liveness_probe: Some(http_probe("/", "metrics")),
        resources: Some(resources("20m", "32Mi", "128Mi")),
        security_context: Some(confined()),
        volume_mounts: Some(vec![
            read_only("proc", "/host/proc"),
            read_only("sys", "/host/sys"),
            VolumeMount { mount_propagation: Some("HostToContainer".into()), ..read_only("root", "/host/root") },
        ]),
        ..container("node-exporter", IMAGES.node_exporter)
    };
    daemon_set(
        NAMESPACE,
        NODE_EXPORTER,
        PodSpec {
            containers: vec![exporter],
            host_network: Some(true),
            host_pid: Some(true),
            automount_service_account_token: Some(false),
            node_selector: on_linux(),
            security_context: Some(run_as(65534)),
            tolerations: Some(vec![Toleration { operator: Some("Exists".into()), ..Toleration::default() }]),
            volumes: Some(vec![
                host_path("proc", "/proc", "Directory"),
                host_path("sys", "/sys", "Directory"),
                host_path("root", "/", "Directory"),
            ]),
            ..PodSpec::default()
        },
    )
}

fn kube_state_metrics() -> Deployment {
    let metrics = Container {
        ports: Some(vec![port("metrics", 8080), port("telemetry", 8081)]),
        readiness_probe: Some(http_probe("/readyz", "telemetry")),
        liveness_probe: Some(http_probe("/livez", "metrics")),
        resources: Some(resources("20m", "64Mi", "256Mi")),
        security_context: Some(confined()),
        ..container("kube-state-metrics", IMAGES.kube_state_metrics)
    };
    deployment(
        NAMESPACE,
        KUBE_STATE_METRICS,
        PodSpec {
            service_account_name: Some(KUBE_STATE_METRICS.into()),
            containers: vec![metrics],
            node_selector: on_linux(),
            security_context: Some(run_as(65534)),
            ..PodSpec::default()
        },
    )
}

fn kube_state_metrics_account() -> Account {
    const SEEN: [&str; 2] = ["list", "watch"];
    let cluster_rules = vec![
        rule(
            "",
            [
                "configmaps",
                "endpoints",
                "limitranges",
                "namespaces",
                "nodes",
                "persistentvolumeclaims",
                "persistentvolumes",
                "pods",
                "replicationcontrollers",
                "resourcequotas",
                "secrets",
                "serviceaccounts",
                "services",
            ],
            SEEN,
        ),
        rule("apps", ["daemonsets", "deployments", "replicasets", "statefulsets"], SEEN),
        rule("batch", ["cronjobs", "jobs"], SEEN),
        rule("autoscaling", ["horizontalpodautoscalers"], SEEN),
        rule("policy", ["poddisruptionbudgets"], SEEN),
        rule("certificates.k8s.io", ["certificatesigningrequests"], SEEN),
        rule("discovery.k8s.io", ["endpointslices"], SEEN),
        rule("storage.k8s.io", ["storageclasses", "volumeattachments"], SEEN),
        rule(
            "admissionregistration.k8s.io",
            ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
            SEEN,
        ),
        rule("networking.k8s.io", ["ingressclasses", "ingresses", "networkpolicies"], SEEN),
        rule("coordination.k8s.io", ["leases"], SEEN),
        rule("rbac.authorization.k8s.io", ["clusterrolebindings", "clusterroles", "rolebindings", "roles"], SEEN),
    ];
    Account { cluster_rules, ..Account::new(NAMESPACE, KUBE_STATE_METRICS) }
}

impl Component<Kubernetes> for Grafana {
    /// The Deployment, ready.
    type Handle = Handle<lab_kube::ObjectOutputs>;

    fn declare(self, scope: &Scope<'_, Kubernetes>) -> Self::Handle {
        let admin = SecretObject { metadata: meta(NAMESPACE, "grafana-admin"), ..SecretObject::default() };
        let admin = scope.resource("admin").add(Object::new(admin).secret("/stringData/password", self.password));
        let config = scope.resource("config").add(Object::new(config_map(
            NAMESPACE,
            "grafana-config",
            texts(dashboards::PROVISIONING),
        )));
        let drawn = scope.resource("dashboards").add(Object::new(config_map(
            NAMESPACE,
            "grafana-dashboards",
            dashboards::all(),
        )));
        let served =
            scope.resource("service").add(Object::new(service(NAMESPACE, GRAFANA, vec![service_port("http", 3000)])));
        if let Some(host) = &self.host {
            let page = ingress(NAMESPACE, GRAFANA, host, "http", None);
            scope.resource("ingress").depends_on(&served).add(Object::new(page));
        }
        scope.resource("grafana").depends_on(&admin).depends_on(&config).depends_on(&drawn).add(Object::new(grafana()))
    }
}

fn grafana() -> Deployment {
    let password = SecretKeySelector { name: "grafana-admin".into(), key: "password".into(), ..Default::default() };
    let provisioned = |sub_path: &str, path: &str| VolumeMount {
        sub_path: Some(sub_path.into()),
        ..read_only("grafana-config", path)
    };
    let grafana = Container {
        env: Some(vec![
            EnvVar {
                name: "GF_SECURITY_ADMIN_PASSWORD".into(),
                value_from: Some(EnvVarSource { secret_key_ref: Some(password), ..EnvVarSource::default() }),
                ..EnvVar::default()
            },
            env("GF_ANALYTICS_REPORTING_ENABLED", "false"),
            env("GF_ANALYTICS_CHECK_FOR_UPDATES", "false"),
        ]),
        ports: Some(vec![port("http", 3000)]),
        readiness_probe: Some(http_probe("/api/health", "http")),
        liveness_probe: Some(Probe { initial_delay_seconds: Some(60), ..http_probe("/api/health", "http") }),
        resources: Some(resources("50m", "160Mi", "512Mi")),
        security_context: Some(confined()),
        volume_mounts: Some(vec![
            provisioned("datasources.yaml", "/etc/grafana/provisioning/datasources/datasources.yaml"),
            provisioned("dashboards.yaml", "/etc/grafana/provisioning/dashboards/dashboards.yaml"),
            read_only("grafana-dashboards", "/var/lib/grafana/dashboards"),
            mount("data", "/var/lib/grafana"),
            mount("tmp", "/tmp"),
        ]),
        ..container("grafana", IMAGES.grafana)
    };
    deployment(
        NAMESPACE,
        GRAFANA,
        PodSpec {
            containers: vec![grafana],
            automount_service_account_token: Some(false),
            node_selector: on_linux(),
            security_context: Some(run_as(472)),
            volumes: Some(vec![
                config_volume("grafana-config"),
                config_volume("grafana-dashboards"),
                empty_dir("data"),
                empty_dir("tmp"),
            ]),
            ..PodSpec::default()
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn monitoring() -> Monitoring {
        Monitoring { etcd: vec!["10.69.1.101".parse().unwrap()], ..Monitoring::new("local-path") }
    }

    #[test]
    fn the_configuration_asks_for_everything_once() {
        let file: Value = serde_saphyr::from_str(&monitoring().configuration()).unwrap();
        let jobs = file["scrape_configs"].as_array().unwrap();
        let names: Vec<&str> = jobs.iter().map(|job| job["job_name"].as_str().unwrap()).collect();
        assert_eq!(names, ["apiserver", "kubelet", "cadvisor", "pods", "etcd"]);
        assert_eq!(jobs[4]["static_configs"], json!([{"targets": ["10.69.1.101:2381"]}]));
        assert_eq!(file["global"]["scrape_interval"], "30s");
    }

    #[test]
    fn without_a_port_for_it_etcd_is_not_asked() {
        let monitoring = Monitoring { etcd: Vec::new(), ..monitoring() };
        assert!(!monitoring.configuration().contains("etcd"));
    }

    /// A job that alerts name and nobody asks would keep silent for ever.
    #[test]
    fn every_job_that_is_alerted_about_is_one_that_is_asked() {
        let configuration = monitoring().configuration();
        let mut seen = 0;
        for alert in alerts() {
            for part in alert.when.split("job=\"").skip(1) {
                let job = part.split('"').next().unwrap();
                assert!(configuration.contains(&format!("job_name: {job}\n")), "{}: {job}", alert.name);
                seen += 1;
            }
        }
        assert!(seen >= 3, "{seen}");
    }

    #[test]
    fn the_file_of_rules_says_what_the_alerts_say() {
        let alert = Alert::new("Full", Severity::Warning, "5m", r#"x{a="b"} > 0.8"#, "{{ $labels.a }} is full");
        let file: Value = serde_saphyr::from_str(&alerts::file(&[alert])).unwrap();
        assert_eq!(
            file["groups"][0]["rules"],
            json!([{"alert": "Full", "expr": "x{a=\"b\"} > 0.8", "for": "5m", "labels": {"severity": "warning"},
                    "annotations": {"summary": "{{ $labels.a }} is full"}}])
        );
    }

    #[test]
    fn metrics_leave_a_fifth_of_their_volume_free() {
        let pod = Monitoring { volume: 100, days: 7, ..monitoring() }.prometheus();
        let body = serde_json::to_value(pod).unwrap();
        let args = body.pointer("/spec/template/spec/containers/0/args").unwrap().to_string();
        assert!(args.contains("retention.time=7d") && args.contains("retention.size=81920MB"), "{args}");
        let claim = body.pointer("/spec/volumeClaimTemplates/0").unwrap();
        assert_eq!(claim.pointer("/spec/resources/requests/storage"), Some(&json!("100Gi")));
    }
}
