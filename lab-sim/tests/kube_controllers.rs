//! The small controllers on the stand-in: what a person would see happen after an apply.

mod kube_support;

use std::time::Duration;

use kube_support::Cluster;
use lab_sim::kube::controllers::Settings;
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";
const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const SERVICES: &str = "/api/v1/namespaces/default/services";

async fn cluster(nodes: usize) -> Cluster {
    let cluster = Cluster::new();
    for at in 0..nodes {
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("worker-{at}")},
        });
        assert_eq!(cluster.post("/api/v1/nodes", &node).await.code, 201);
        let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let path = format!("/api/v1/nodes/worker-{at}/status");
        assert_eq!(cluster.patch(&path, "application/merge-patch+json", &status).await.code, 200);
    }
    cluster.api.start_controllers(Settings::default());
    cluster
}

fn workload(kind: &str, name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "nginx:1"}]},
            },
        },
    })
}

/// Starts the process of an add-on and returns when it is ready.
async fn run(cluster: &Cluster, name: &str, container: Value) {
    let mut deployment = workload("Deployment", name);
    deployment["spec"]["template"]["spec"]["containers"] = json!([container]);
    let path = "/apis/apps/v1/namespaces/default/deployments";
    assert_eq!(cluster.apply(path, &deployment, "lab", "").await.code, 201);
    cluster.until(&format!("{path}/{name}"), |reply| reply.body["status"]["readyReplicas"] == 1).await;
}

async fn events(cluster: &Cluster) -> String {
    cluster.get("/api/v1/events").await.body.to_string()
}

#[tokio::test]
async fn a_deployment_rolls_out_and_takes_its_pods_along_when_it_goes() {
    let cluster = cluster(2).await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let mut body = workload("Deployment", "web");
    body["spec"]["replicas"] = json!(2);
    cluster.apply(path, &body, "lab", "").await;
    let live = cluster.until(&format!("{path}/web"), |reply| reply.body["status"]["availableReplicas"] == 2).await.body;
    assert_eq!(live["status"]["observedGeneration"], live["metadata"]["generation"]);
    let pods = cluster.get(PODS).await.body;
    let nodes: std::collections::BTreeSet<&str> =
        pods["items"].as_array().unwrap().iter().map(|pod| pod["spec"]["nodeName"].as_str().unwrap()).collect();
    assert_eq!(nodes.len(), 2, "spread");

    body["spec"]["template"]["spec"]["containers"][0]["image"] = json!("nginx:2");
    cluster.apply(path, &body, "lab", "").await;
    cluster
        .until(PODS, |reply| {
            let pods = reply.body["items"].as_array().unwrap();
            pods.len() == 2 && pods.iter().all(|pod| pod["spec"]["containers"][0]["image"] == "nginx:2")
        })
        .await;
    cluster.delete(&format!("{path}/web"), json!({"propagationPolicy": "Foreground"})).await;
    cluster.until(&format!("{path}/web"), |reply| reply.code == 404).await;
    cluster.until(PODS, |reply| reply.body["items"] == json!([])).await;
}

#[tokio::test]
async fn a_world_at_rest_is_not_written_to() {
    let cluster = cluster(1).await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    cluster.apply(path, &workload("Deployment", "web"), "lab", "").await;
    cluster.until(&format!("{path}/web"), |reply| reply.body["status"]["availableReplicas"] == 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = cluster.get("/api/v1/namespaces").await.body["metadata"]["resourceVersion"].clone();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(cluster.get("/api/v1/namespaces").await.body["metadata"]["resourceVersion"], before);
}

#[tokio::test]
async fn a_daemon_set_runs_on_every_node_and_a_job_ends() {
    let cluster = cluster(3).await;
    cluster.apply("/apis/apps/v1/namespaces/default/daemonsets", &workload("DaemonSet", "agent"), "lab", "").await;
    let path = "/apis/apps/v1/namespaces/default/daemonsets/agent";
    cluster.until(path, |reply| reply.body["status"]["numberAvailable"] == 3).await;

    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"},
        "spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "main", "image": "busybox:1"}],
        }}},
    });
    cluster.apply("/apis/batch/v1/namespaces/default/jobs", &job, "lab", "").await;
    cluster
        .until("/apis/batch/v1/namespaces/default/jobs/once", |reply| {
            let conditions = reply.body["status"]["conditions"].as_array();
            conditions.into_iter().flatten().any(|one| one["type"] == "Complete" && one["status"] == "True")
        })
        .await;
}

fn stateful_set(class: &str) -> Value {
    let mut set = workload("StatefulSet", "plex");
    set["spec"]["serviceName"] = json!("plex");
    set["spec"]["volumeClaimTemplates"] = json!([{
        "metadata": {"name": "config"},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": class,
            "resources": {"requests": {"storage": "10Gi"}},
        },
    }]);
    set
}

#[tokio::test]
async fn a_stateful_set_gets_its_claims_bound_by_a_known_provisioner() {
    let cluster = cluster(1).await;
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "nfs-client"},
        "provisioner": "nfs.csi.k8s.io", "parameters": {"server": "10.69.1.163", "share": "/mnt/media"},
    });
    cluster.apply("/apis/storage.k8s.io/v1/storageclasses", &class, "lab", "").await;
    let path = "/apis/apps/v1/namespaces/default/statefulsets";
    assert_eq!(cluster.apply(path, &stateful_set("nfs-client"), "lab", "").await.code, 201);
    let live = cluster.until(&format!("{path}/plex"), |reply| reply.body["status"]["readyReplicas"] == 1).await.body;
    assert_eq!(live["status"]["currentRevision"], live["status"]["updateRevision"]);
    let claim = cluster.get(&format!("{CLAIMS}/config-plex-0")).await.body;
    assert_eq!((&claim["status"]["phase"], &claim["status"]["capacity"]["storage"]), (&json!("Bound"), &json!("10Gi")));
    let volume = claim["spec"]["volumeName"].as_str().unwrap();
    let volume = cluster.get(&format!("/api/v1/persistentvolumes/{volume}")).await.body;
    assert_eq!(volume["spec"]["csi"]["volumeAttributes"]["server"], "10.69.1.163");
    // A second apply changes nothing, although claims and templates were filled in.
    let again = cluster.apply(path, &stateful_set("nfs-client"), "lab", "").await.body;
    assert_eq!(again["metadata"]["resourceVersion"], live["metadata"]["resourceVersion"]);

    // A claim in use stays until its pod is gone.
    cluster.delete(&format!("{CLAIMS}/config-plex-0"), json!({})).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(cluster.get(&format!("{CLAIMS}/config-plex-0")).await.code, 200);
    cluster.delete(&format!("{path}/plex"), json!({})).await;
    cluster.until(&format!("{CLAIMS}/config-plex-0"), |reply| reply.code == 404).await;
}

#[tokio::test]
async fn a_pod_whose_claim_nobody_provisions_stays_pending_with_an_event() {
    let cluster = cluster(1).await;
    cluster.apply("/apis/apps/v1/namespaces/default/statefulsets", &stateful_set("nowhere"), "lab", "").await;
    let pod = format!("{PODS}/plex-0");
    cluster.until(&pod, |reply| reply.body["status"]["conditions"][0]["reason"] == "Unschedulable").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(cluster.get(&pod).await.body["status"]["phase"], "Pending");
    let events = events(&cluster).await;
    assert!(events.contains("unbound immediate PersistentVolumeClaims"), "{events}");
    assert!(events.contains("storageclass.storage.k8s.io \\\"nowhere\\\" not found"), "{events}");
}

#[tokio::test]
async fn a_claim_takes_a_static_volume_that_fits() {
    let cluster = cluster(1).await;
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "media"},
        "spec": {
            "capacity": {"storage": "1Ti"}, "accessModes": ["ReadWriteMany"], "storageClassName": "",
            "nfs": {"server": "10.69.1.163", "path": "/mnt/media"},
        },
    });
    assert_eq!(cluster.apply("/api/v1/persistentvolumes", &volume, "lab", "").await.code, 201);
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "library"},
        "spec": {
            "accessModes": ["ReadWriteMany"], "storageClassName": "", "resources": {"requests": {"storage": "500Gi"}},
        },
    });
    cluster.apply(CLAIMS, &claim, "lab", "").await;
    cluster.until(&format!("{CLAIMS}/library"), |reply| reply.body["status"]["phase"] == "Bound").await;
    assert_eq!(cluster.get("/api/v1/persistentvolumes/media").await.body["spec"]["claimRef"]["name"], "library");
    cluster.until("/api/v1/persistentvolumes/media", |reply| reply.body["status"]["phase"] == "Bound").await;
}

fn service(name: &str, annotations: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "annotations": annotations},
        "spec": {"type": "LoadBalancer", "selector": {"app": name}, "ports": [{"port": 80}]},
    })
}

#[tokio::test]
async fn load_balancers_get_addresses_of_an_advertised_pool() {
    let cluster = cluster(1).await;
    cluster.install("metallb.io_ipaddresspools").await;
    cluster.install("metallb.io_l2advertisements").await;
    let base = "/apis/metallb.io/v1beta1/namespaces/default";
    let pool = json!({
        "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": {"name": "lan"},
        "spec": {"addresses": ["10.69.1.200-10.69.1.201"]},
    });
    cluster.apply(&format!("{base}/ipaddresspools"), &pool, "lab", "").await;
    cluster.apply(SERVICES, &service("first", json!({})), "lab", "").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let first = cluster.get(&format!("{SERVICES}/first")).await.body;
    assert_eq!(first["status"]["loadBalancer"], json!({}), "not before there is an advertisement");
    let advertisement = json!({
        "apiVersion": "metallb.io/v1beta1", "kind": "L2Advertisement", "metadata": {"name": "lan"},
        "spec": {"ipAddressPools": ["lan"]},
    });
    cluster.apply(&format!("{base}/l2advertisements"), &advertisement, "lab", "").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let first = cluster.get(&format!("{SERVICES}/first")).await.body;
    assert_eq!(first["status"]["loadBalancer"], json!({}), "not before MetalLB runs");
    run(&cluster, "metallb", json!({"name": "main", "image": "quay.io/metallb/controller:v0.14.9"})).await;
    // Something else in the cluster changes often enough in a real one.
    let has = |address: &'static str| {
        move |reply: &kube_support::Answer| reply.body["status"]["loadBalancer"]["ingress"][0]["ip"] == address
    };
    cluster.until(&format!("{SERVICES}/first"), has("10.69.1.200")).await;
    let asked = json!({"metallb.io/loadBalancerIPs": "10.69.1.201"});
    cluster.apply(SERVICES, &service("second", asked), "lab", "").await;
    cluster.until(&format!("{SERVICES}/second"), has("10.69.1.201")).await;
    let outside = json!({"metallb.io/loadBalancerIPs": "10.69.1.99"});
    cluster.apply(SERVICES, &service("outside", outside), "lab", "").await;
    cluster.until("/api/v1/events", |reply| reply.body.to_string().contains("is not allowed in config")).await;
    cluster.apply(SERVICES, &service("third", json!({})), "lab", "").await;
    cluster.until("/api/v1/events", |reply| reply.body.to_string().contains("no available IPs")).await;
    assert!(events(&cluster).await.contains("AllocationFailed"));
}

#[tokio::test]
async fn a_certificate_is_written_into_its_secret_by_a_ready_issuer() {
    let cluster = cluster(1).await;
    for name in ["certificates", "clusterissuers", "issuers"] {
        cluster.install(&format!("cert-manager.io_{name}")).await;
    }
    let issuer = json!({
        "apiVersion": "cert-manager.io/v1", "kind": "ClusterIssuer", "metadata": {"name": "self"},
        "spec": {"selfSigned": {}},
    });
    assert_eq!(cluster.apply("/apis/cert-manager.io/v1/clusterissuers", &issuer, "lab", "").await.code, 201);
    let certificate = json!({
        "apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": {"name": "wildcard"},
        "spec": {
            "secretName": "wildcard-tls", "dnsNames": ["*.k8s.local"],
            "issuerRef": {"name": "self", "kind": "ClusterIssuer"},
        },
    });
    let path = "/apis/cert-manager.io/v1/namespaces/default/certificates";
    cluster.apply(path, &certificate, "lab", "").await;
    run(&cluster, "manager", json!({"name": "main", "image": "quay.io/jetstack/cert-manager-controller:v1.21.1"}))
        .await;
    cluster
        .until(&format!("{path}/wildcard"), |reply| {
            reply.body["status"]["conditions"][0]["status"] == "True" && reply.body["status"]["notAfter"].is_string()
        })
        .await;
    let secret = cluster.get("/api/v1/namespaces/default/secrets/wildcard-tls").await.body;
    assert_eq!(secret["type"], "kubernetes.io/tls");
    assert!(secret["data"]["tls.key"].is_string());
}

#[tokio::test]
async fn the_speakers_key_is_made_by_the_controller_of_metallb_and_goes_with_it() {
    let cluster = cluster(1).await;
    let env = json!([
        {"name": "METALLB_ML_SECRET_NAME", "value": "memberlist"}, {"name": "METALLB_DEPLOYMENT", "value": "metallb"},
    ]);
    let controller = json!({"name": "main", "image": "quay.io/metallb/controller:v0.14.9", "env": env});
    run(&cluster, "metallb", controller).await;
    let path = "/api/v1/namespaces/default/secrets/memberlist";
    let secret = cluster.until(path, |reply| reply.code == 200).await.body;
    assert!(secret["data"]["secretkey"].is_string());
    cluster.delete("/apis/apps/v1/namespaces/default/deployments/metallb", json!({})).await;
    cluster.until(path, |reply| reply.code == 404).await;
}

#[tokio::test]
async fn a_webhook_gets_the_authority_of_cert_manager_once_both_its_processes_run() {
    let cluster = cluster(1).await;
    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    let hooks = |annotations: Value| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "hooks", "annotations": annotations},
            "webhooks": [{
                "name": "webhook.cert-manager.io", "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "clientConfig": {"service": {"namespace": "default", "name": "webhook"}},
            }],
        })
    };
    let asking = hooks(json!({"cert-manager.io/inject-ca-from-secret": "default/authority"}));
    assert_eq!(cluster.apply(path, &asking, "lab", "").await.code, 201);
    let image = |name: &str| format!("quay.io/jetstack/cert-manager-{name}:v1.21.1");
    run(&cluster, "injector", json!({"name": "main", "image": image("cainjector")})).await;
    let bundle = |body: &Value| body["webhooks"][0]["clientConfig"]["caBundle"].clone();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(bundle(&cluster.get(&format!("{path}/hooks")).await.body).is_null(), "the webhook made no authority yet");
    let args =
        json!(["--dynamic-serving-ca-secret-name=authority", "--dynamic-serving-ca-secret-namespace=$(POD_NAMESPACE)"]);
    run(&cluster, "webhook", json!({"name": "main", "image": image("webhook"), "args": args})).await;
    let path = format!("{path}/hooks");
    let injected = cluster.until(&path, |reply| bundle(&reply.body).is_string()).await.body;
    let secret = cluster.get("/api/v1/namespaces/default/secrets/authority").await.body;
    assert_eq!(bundle(&injected), secret["data"]["ca.crt"]);
    // What the injector wrote is not ours: applying the same again leaves it, and nothing changes.
    cluster.apply("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", &asking, "lab", "").await;
    assert_eq!(cluster.get(&path).await.body["metadata"]["resourceVersion"], injected["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn controllers_end_with_the_api() {
    let cluster = cluster(1).await;
    let stopped = cluster.api.stopped();
    drop(cluster);
    tokio::time::timeout(Duration::from_secs(5), stopped).await.expect("nothing keeps the API alive");
}
