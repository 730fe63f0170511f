//! Objects as a program declares them: what is refused at once, what the engine is told.

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use lab_core::{Declared, Realm, Scope, Secret, Stack, Vault};
use lab_kube::{Kubernetes, Object, secret};
use serde_json::json;
use std::collections::BTreeMap;

fn declare(program: impl FnOnce(&Scope<'_, Kubernetes>)) -> Declared {
    let kubeconfig = Secret::new("kubeconfig".to_owned());
    let load = |stack: &Stack| {
        program(&stack.provider("k8s", Kubernetes::stated("attic", kubeconfig)));
        Ok(())
    };
    Stack::load("homelab", None, Vault::new([7; 32]), BTreeMap::new(), load).unwrap()
}

fn refused(object: Object<serde_json::Value>) -> String {
    let declared = declare(|k8s| {
        k8s.resource("it").add(object);
    });
    assert!(declared.nodes.is_empty());
    let [(place, problem)] = declared.problems.as_slice() else { panic!("{:?}", declared.problems) };
    assert!(place.file.ends_with("declared.rs"), "{place}");
    problem.clone()
}

#[test]
fn what_cannot_be_an_object_is_a_problem_of_the_plan() {
    let check = |body: serde_json::Value, part: &str| {
        let problem = refused(Object::new(body));
        assert!(problem.contains(part), "{problem}");
    };
    check(json!({"kind": "Pod"}), "the object has no /apiVersion");
    check(
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}),
        "is missing: its objects live in namespaces",
    );
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "b"}, "data": {"x": "1"}});
    let problem = refused(Object::new(map.clone()).set("/data/x/y", 1_u8));
    assert!(problem.contains("/data/x/y leads through /data/x, which has no fields"), "{problem}");
    let problem = refused(Object::new(map).set("/metadata/name", "b"));
    assert!(problem.contains("identifies the object"), "{problem}");
}

#[test]
fn a_secret_in_clear_is_refused_without_quoting_it() {
    let mut clear = secret("media", "token");
    clear.body["stringData"] = json!({"token": "hunter22"});
    for object in [clear, secret("media", "token").set("/data/token", "hunter22")] {
        let problem = refused(object);
        assert!(
            problem.contains("data/token would be stored and shown in clear")
                || problem.contains("stringData/token would be"),
            "{problem}"
        );
        assert!(!problem.contains("hunter22"), "{problem}");
    }
}

#[test]
fn a_value_of_the_first_moment_cannot_lie_in_a_list() {
    let body = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "b"},
        "spec": {"containers": [{"name": "a", "env": [{"name": "TOKEN"}]}]}});
    let problem = refused(Object::new(body).initial("/spec/containers/0/env/0/value", Secret::new("x".to_owned())));
    assert!(problem.contains("lies in a list"), "{problem}");
}

#[test]
fn any_type_of_object_is_stored_as_the_one_that_the_provider_knows() {
    let metadata = ObjectMeta { name: Some("web".into()), namespace: Some("media".into()), ..ObjectMeta::default() };
    let spec = ServiceSpec { type_: Some("LoadBalancer".into()), ..ServiceSpec::default() };
    let service = Service { metadata, spec: Some(spec), ..Service::default() };
    let declared = declare(|k8s| {
        let first = k8s.resource("first").add(lab_kube::namespace("media"));
        let name = first.output(|namespace| namespace.name);
        let annotation = "/metadata/annotations/metallb.io~1loadBalancerIPs";
        k8s.resource("web").add(Object::new(service.clone()).set(annotation, "10.69.1.155"));
        let object = Object::new(service).set(annotation, name.clone()).set("/metadata/labels/of", name);
        k8s.resource("later").add(object.secret("/metadata/annotations/token", Secret::new("hunter22".to_owned())));
    });
    assert_eq!(declared.problems, []);
    let kind = declared.vocabulary.kind("kubernetes:object").unwrap();
    let inputs = |at: usize| &declared.nodes[at].inputs;
    let vault = &declared.vault;
    assert_eq!(kind.id(inputs(1), vault).unwrap().unwrap().0, "Service media/web");
    let (claims, deferred) = kind.claims(inputs(1), vault).unwrap();
    assert_eq!((claims[0].to_string().as_str(), deferred), ("address 10.69.1.155", false));
    let (claims, deferred) = kind.claims(inputs(2), vault).unwrap();
    assert_eq!((claims.len(), deferred), (0, true), "the address is not known yet");
    assert!(!inputs(2).to_string().contains("hunter22"));
    // Without the initial paths, as the state holds them.
    kind.check(inputs(2), vault).unwrap();
}

#[test]
fn a_cluster_is_known_by_its_name_or_by_what_makes_it() {
    use lab_core::{Provider as _, Urn};
    let kubeconfig = || Secret::new(String::new());
    assert_eq!(Kubernetes::stated("attic", kubeconfig()).realm(), Realm::Stated("kubernetes:attic".into()));
    let bootstrap = Urn::from("homelab::metal::homelab::talos:bootstrap::bootstrap");
    assert_eq!(Kubernetes::inside(&bootstrap, kubeconfig()).realm(), Realm::Inside(bootstrap.clone()));
}
