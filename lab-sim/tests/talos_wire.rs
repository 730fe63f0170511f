//! What the machines say on the wire, beyond what the provider's own client looks at.

mod homelab;

use homelab::{ABSENT, CONTROL_PLANES, FOREIGN, Lab, WORKERS};
use lab_sim::{Fault, Faults, Options};
use lab_talos::kubeconfig::Kubeconfig;
use lab_talos::proto::cosi::resource::state_client::StateClient;
use lab_talos::proto::cosi::resource::{EventType, GetRequest, ListRequest, WatchRequest};
use lab_talos::proto::definitions::runtime::MachineStatusSpec;
use lab_talos::proto::machine::machine_service_client::MachineServiceClient;
use prost::Message;
use tonic::{Code, Request};

fn to<T>(message: T, key: &'static str, nodes: &[&str]) -> Request<T> {
    let mut request = Request::new(message);
    for node in nodes {
        request.metadata_mut().append(key, node.parse().unwrap());
    }
    request
}

async fn configured() -> Lab {
    let lab = Lab::start(Options::default()).await;
    lab.install_all(&[CONTROL_PLANES[0], CONTROL_PLANES[1], WORKERS[0]]).await;
    lab
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_for_several_nodes_names_each_and_reports_failures_as_parts() {
    let lab = configured().await;
    let mut client = MachineServiceClient::new(lab.channel(CONTROL_PLANES[0], &lab.admin));

    let own = client.version(()).await.unwrap().into_inner();
    assert!(own.messages[0].metadata.is_none(), "a local reply is not enriched");

    let request = to((), "nodes", &[CONTROL_PLANES[1], WORKERS[0], FOREIGN]);
    let parts = client.version(request).await.unwrap().into_inner().messages;
    let names: Vec<_> = parts.iter().map(|part| part.metadata.as_ref().unwrap().hostname.as_str()).collect();
    assert_eq!(names, [CONTROL_PLANES[1], WORKERS[0], FOREIGN]);
    assert_eq!(parts[1].version.as_ref().unwrap().tag, "v1.11.2");
    let failure = parts[2].metadata.as_ref().unwrap();
    assert_eq!(failure.status.as_ref().unwrap().code, Code::Unavailable as i32);
    assert!(failure.error.starts_with("rpc error: code = Unavailable desc = "), "{}", failure.error);

    let one = client.version(to((), "node", &[CONTROL_PLANES[1]])).await.unwrap().into_inner();
    assert!(one.messages[0].metadata.is_none(), "a forwarded reply is not enriched");
    let gone = client.version(to((), "node", &[ABSENT])).await.unwrap_err();
    assert_eq!(gone.code(), Code::Unavailable);
    let both = client.version(to((), "node", &[CONTROL_PLANES[1], WORKERS[0]])).await.unwrap_err();
    assert_eq!((both.code(), both.message()), (Code::InvalidArgument, "node metadata must be single-valued"));

    let mut stream = client.kubeconfig(to((), "nodes", &[CONTROL_PLANES[1]])).await.unwrap().into_inner();
    let item = stream.message().await.unwrap().unwrap();
    assert_eq!(item.metadata.unwrap().hostname, CONTROL_PLANES[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_forwards_nothing_but_answers_for_itself() {
    let lab = configured().await;
    let mut client = MachineServiceClient::new(lab.channel(WORKERS[0], &lab.admin));
    let refused = client.version(to((), "node", &[CONTROL_PLANES[0]])).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, "no request forwarding"));
    client.version(to((), "node", &[WORKERS[0]])).await.unwrap();
    let early = client.bootstrap(lab_talos::proto::machine::BootstrapRequest::default()).await.unwrap_err();
    assert_eq!(early.code(), Code::FailedPrecondition);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_reads_and_may_not_reboot_nor_see_the_configuration() {
    let lab = configured().await;
    let channel = lab.channel(CONTROL_PLANES[0], &lab.with_role("os:reader"));
    let mut client = MachineServiceClient::new(channel.clone());
    client.version(()).await.unwrap();
    let refused = client.reboot(lab_talos::proto::machine::RebootRequest::default()).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, "not authorized"));
    let mut state = StateClient::new(channel);
    let get = |namespace: &str, kind: &str, id: &str| GetRequest {
        namespace: namespace.into(),
        r#type: kind.into(),
        id: id.into(),
        options: None,
    };
    state.get(get("runtime", "MachineStatuses.runtime.talos.dev", "machine")).await.unwrap();
    let refused = state.get(get("config", "MachineConfigs.config.talos.dev", "v1alpha1")).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, "not authorized"));
    let unknown = state.get(get("runtime", "Bogus.example.org", "x")).await.unwrap_err();
    assert_eq!(unknown.message(), "resource type \"Bogus.example.org\" is not supported");
    let absent = state.get(get("runtime", "Services.v1alpha1.talos.dev", "nope")).await.unwrap_err();
    assert_eq!(absent.message(), "resource Services.v1alpha1.talos.dev(runtime/nope@undefined) doesn't exist");
    let unmodelled = state.get(get("network", "LinkStatuses.net.talos.dev", "eth0")).await.unwrap_err();
    assert_eq!(unmodelled.code(), Code::Unimplemented);
    assert!(unmodelled.message().contains("LinkStatuses.net.talos.dev"), "{}", unmodelled.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_follows_the_machine_to_ready() {
    let lab = configured().await;
    let mut state = StateClient::new(lab.channel(CONTROL_PLANES[0], &lab.admin));
    let request = WatchRequest {
        namespace: "runtime".into(),
        r#type: "MachineStatuses.runtime.talos.dev".into(),
        id: Some("machine".into()),
        api_version: 1,
        ..WatchRequest::default()
    };
    let mut watch = state.watch(request).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().unwrap().event.is_empty(), "first it says that it is live");
    let first = watch.message().await.unwrap().unwrap().event.remove(0);
    assert_eq!(first.event_type(), EventType::Created);
    lab.bootstrap(CONTROL_PLANES[0]).await;
    let mut version: u64 = first.resource.unwrap().metadata.unwrap().version.parse().unwrap();
    loop {
        let event = watch.message().await.unwrap().unwrap().event.remove(0);
        assert_eq!(event.event_type(), EventType::Updated);
        let resource = event.resource.unwrap();
        let next = resource.metadata.unwrap().version.parse().unwrap();
        assert!(next > version);
        version = next;
        let spec = resource.spec.unwrap();
        let status = MachineStatusSpec::decode(spec.proto_spec.as_slice()).unwrap();
        let readable: serde_json::Value = serde_saphyr::from_str(&spec.yaml_spec).unwrap();
        let ready = status.status.as_ref().is_some_and(|status| status.ready);
        assert_eq!(readable["status"]["ready"], ready, "both forms say the same");
        if ready && readable["stage"] == "running" {
            break;
        }
    }
    let request = ListRequest {
        namespace: "runtime".into(),
        r#type: "Services.v1alpha1.talos.dev".into(),
        ..ListRequest::default()
    };
    let mut list = state.list(request).await.unwrap().into_inner();
    let mut ids = Vec::new();
    while let Some(item) = list.message().await.unwrap() {
        ids.push(item.resource.unwrap().metadata.unwrap().id);
    }
    assert!(ids.contains(&"etcd".to_owned()), "{ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kubernetes_api_answers_from_the_bootstrap_on_and_knows_who_asks() {
    let lab = configured().await;
    let [first, second, _] = CONTROL_PLANES;
    let kubeconfig = Kubeconfig::parse(&lab.secure(first).kubeconfig().await.unwrap()).unwrap();
    let early = lab.get(first, Some(&kubeconfig), &kubeconfig.ca, "/version").await.unwrap_err();
    assert!(early.to_string().contains("502"), "{early}");

    lab.bootstrap(first).await;
    for machine in [first, second] {
        lab.until(|| async { lab.machine(machine)["ready"] == true && lab.machine(machine)["stage"] == "running" })
            .await;
        let version = lab.get(machine, Some(&kubeconfig), &kubeconfig.ca, "/version").await.unwrap();
        assert!(version.contains("v1.34.1"), "{version}");
        let nodes = lab.get(machine, Some(&kubeconfig), &kubeconfig.ca, "/api/v1/nodes").await.unwrap();
        assert!(nodes.contains("node-101") && nodes.contains("node-140"), "one cluster behind both");
        assert!(nodes.contains("node-role.kubernetes.io/control-plane"));
    }
    let nobody = lab.get(first, None, &kubeconfig.ca, "/api/v1/nodes").await.unwrap();
    assert!(nobody.starts_with("HTTP/1.1 401") || nobody.starts_with("HTTP/1.1 403"), "{nobody}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubernetes_request_can_lose_its_reply_like_any_other_call() {
    let faults = Faults::none().on("GET /api/v1/nodes", 1, Fault::ReplyLost);
    let lab = Lab::start(Options { faults, ..Options::default() }).await;
    let first = CONTROL_PLANES[0];
    lab.install_all(&[first]).await;
    lab.bootstrap(first).await;
    lab.until(|| async { lab.machine(first)["ready"] == true && lab.machine(first)["stage"] == "running" }).await;
    let kubeconfig = Kubeconfig::parse(&lab.secure(first).kubeconfig().await.unwrap()).unwrap();
    let lost = lab.get(first, Some(&kubeconfig), &kubeconfig.ca, "/api/v1/nodes").await;
    assert!(lost.as_ref().is_ok_and(String::is_empty) || lost.is_err(), "{lost:?}");
    let again = lab.get(first, Some(&kubeconfig), &kubeconfig.ca, "/api/v1/nodes").await.unwrap();
    assert!(again.contains("node-101"));
    assert!(lab.running.calls().iter().any(|call| call.name == "GET /api/v1/nodes" && call.fault.is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_simulated_says_its_name() {
    let lab = configured().await;
    let dial = async |host: &str, port| {
        lab_core::execute::dial(&lab.running.link(), host, port).await.unwrap_err().to_string()
    };
    assert!(dial("10.69.1.163", 2049).await.contains("501 NFS is not simulated"));
    assert!(dial(CONTROL_PLANES[0], 10250).await.contains("501 the kubelet is not simulated"));
    assert!(dial(CONTROL_PLANES[0], 22).await.contains("502"));
    let channel = lab.channel(CONTROL_PLANES[0], &lab.admin);
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/machine.MachineService/Netstat");
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let refused = grpc.unary(Request::new(()), path, codec).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert_eq!(refused.message(), "the simulated machine does not model machine.MachineService/Netstat");
}
