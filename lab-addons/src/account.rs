//! An account: who pods act as, and what that one may do.

use crate::parts::{cluster_role, cluster_role_binding, role, role_binding, service_account};
use k8s_openapi::api::rbac::v1::PolicyRule;
use lab_core::model::{Component, Handle, Scope};
use lab_kube::{Kubernetes, Object};

/// Who pods act as, and what that one may do: a ServiceAccount with its roles and bindings, all of one name.
///
/// Its handle is ready when all of that is: a container that starts before its rights only starts to be refused.
/// Declare it after its namespace: `scope.component("account").depends_on(&namespace).add(...)`.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// The namespace it lives in.
    pub namespace: String,
    /// The name, of the roles too: cluster roles have no namespace, so it should say whose it is.
    pub name: String,
    /// What it may do in its namespace.
    pub rules: Vec<PolicyRule>,
    /// What it may do in the whole cluster.
    pub cluster_rules: Vec<PolicyRule>,
}

impl Account {
    /// Returns an account that may do nothing.
    pub fn new(namespace: &str, name: &str) -> Account {
        Account { namespace: namespace.into(), name: name.into(), ..Account::default() }
    }
}

impl Component<Kubernetes> for Account {
    type Handle = Handle<lab_kube::ObjectOutputs>;

    fn declare(self, scope: &Scope<'_, Kubernetes>) -> Self::Handle {
        let Account { namespace, name, rules, cluster_rules } = self;
        let mut ready = scope.resource("account").add(Object::new(service_account(&namespace, &name)));
        if !rules.is_empty() {
            let role = scope.resource("role").add(Object::new(role(&namespace, &name, rules)));
            let binding = role_binding(&namespace, &name, &name);
            ready = scope.resource("binding").depends_on(&role).depends_on(&ready).add(Object::new(binding));
        }
        if !cluster_rules.is_empty() {
            let role = scope.resource("cluster-role").add(Object::new(cluster_role(&name, cluster_rules)));
            let binding = cluster_role_binding(&name, &namespace, &name);
            ready = scope.resource("cluster-binding").depends_on(&role).depends_on(&ready).add(Object::new(binding));
        }
        ready
    }
}
