//! What every namespace has from the start: its default account and the cluster's authority.

use serde_json::json;

use super::{AGENT, Cluster, Round, leaving, text};

impl<C: Cluster> Round<'_, C> {
    pub(super) async fn namespaces(&mut self) {
        for namespace in self.all("/api/v1/namespaces").iter().filter(|namespace| !leaving(namespace)) {
            let name = text(namespace, "name");
            if self.find("/api/v1/serviceaccounts", name, "default").is_none() {
                let metadata = json!({"name": "default", "namespace": name});
                let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata});
                self.create("/api/v1/serviceaccounts", &account, AGENT).await;
            }
            if self.find("/api/v1/configmaps", name, "kube-root-ca.crt").is_none() {
                let metadata = json!({"name": "kube-root-ca.crt", "namespace": name});
                let data = json!({"ca.crt": self.settings.authority});
                let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data});
                self.create("/api/v1/configmaps", &map, AGENT).await;
            }
        }
    }
}
