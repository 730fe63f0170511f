//! A kubeconfig, as far as a provider needs it: where the API is, whom to trust, what to present, and until when.

use crate::pem;
use crate::secrets::expiry;
use crate::yaml::Yaml;
use std::fmt;
use std::time::SystemTime;

/// The current context of a kubeconfig. Certificates and key are PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Kubeconfig {
    /// The name of the cluster.
    pub cluster: String,
    /// The name of the user.
    pub user: String,
    /// The URL of the API.
    pub server: String,
    /// The authority of the API's certificate.
    pub ca: String,
    /// The client certificate.
    pub client_certificate: String,
    /// The client key.
    pub client_key: String,
    /// When the client certificate expires.
    pub expiry: SystemTime,
}

impl fmt::Debug for Kubeconfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kubeconfig")
            .field("cluster", &self.cluster)
            .field("user", &self.user)
            .field("server", &self.server)
            .field("client_key", &"[secret]")
            .field("expiry", &self.expiry)
            .finish_non_exhaustive()
    }
}

impl Kubeconfig {
    /// Reads the current context; its certificates and key must be inline, as Talos writes them.
    ///
    /// # Errors
    ///
    /// Says what is missing or unreadable.
    pub fn parse(text: &str) -> Result<Kubeconfig, String> {
        let document = Yaml::parse(text)?.into_iter().next().ok_or("the kubeconfig is empty")?;
        let current = document.at(&["current-context"]).and_then(Yaml::as_str).ok_or("no current context")?;
        let context = named(&document, "contexts", "context", current)?;
        let name = |key: &str| {
            let name = context.at(&[key]).and_then(Yaml::as_str);
            name.map(str::to_owned).ok_or_else(|| format!("context {current} has no {key}"))
        };
        let (cluster_name, user_name) = (name("cluster")?, name("user")?);
        let cluster = named(&document, "clusters", "cluster", &cluster_name)?;
        let user = named(&document, "users", "user", &user_name)?;
        let field = |node: &Yaml, key: &str| {
            node.at(&[key]).and_then(Yaml::as_str).map(str::to_owned).ok_or_else(|| format!("no {key}"))
        };
        let data = |node: &Yaml, key: &str| pem::unwrap(&field(node, key)?).map_err(|error| format!("{key}: {error}"));
        let client_certificate = data(user, "client-certificate-data")?;
        Ok(Kubeconfig {
            server: field(cluster, "server")?,
            ca: data(cluster, "certificate-authority-data")?,
            client_key: data(user, "client-key-data")?,
            expiry: expiry(&client_certificate)?,
            client_certificate,
            cluster: cluster_name,
            user: user_name,
        })
    }
}

fn named<'a>(document: &'a Yaml, list: &str, key: &str, name: &str) -> Result<&'a Yaml, String> {
    let Some(Yaml::List(items)) = document.at(&[list]) else { return Err(format!("no {list}")) };
    let item = items.iter().find(|item| item.at(&["name"]).and_then(Yaml::as_str) == Some(name));
    item.and_then(|item| item.at(&[key])).ok_or_else(|| format!("no {key} named {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::Authority;
    use crate::secrets::Secrets;
    use std::time::Duration;

    fn kubeconfig() -> (String, Secrets, SystemTime) {
        let secrets = Secrets::from_yaml(include_str!("../tests/vectors/secrets.yaml")).unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_760_000_000);
        let authority = Authority::parse(&secrets.kubernetes).unwrap();
        let day = Duration::from_secs(86_400);
        let pair = authority.issue_client("system:masters", Some("admin"), now, day, [1; 32]);
        let cluster = Yaml::map([
            ("server", "https://10.5.0.2:6443".to_owned()),
            ("certificate-authority-data", pem::wrap(&secrets.kubernetes.crt)),
        ]);
        let user =
            Yaml::map([("client-certificate-data", pem::wrap(&pair.crt)), ("client-key-data", pem::wrap(&pair.key))]);
        let context = Yaml::map([("cluster", "vec"), ("namespace", "default"), ("user", "admin@vec")]);
        let item = |name: &str, key: &str, value| Yaml::list([Yaml::map([("name", Yaml::from(name)), (key, value)])]);
        let document = Yaml::map([
            ("apiVersion", Yaml::from("v1")),
            ("kind", "Config".into()),
            ("clusters", item("vec", "cluster", cluster)),
            ("users", item("admin@vec", "user", user)),
            ("contexts", item("admin@vec", "context", context)),
            ("current-context", "admin@vec".into()),
        ]);
        (document.to_text(), secrets, now + day)
    }

    #[test]
    fn the_current_context_is_read() {
        let (text, secrets, expiry) = kubeconfig();
        let read = Kubeconfig::parse(&text).unwrap();
        assert_eq!((&*read.cluster, &*read.user, &*read.server), ("vec", "admin@vec", "https://10.5.0.2:6443"));
        assert_eq!(read.ca, secrets.kubernetes.crt);
        assert_eq!(read.expiry, expiry);
        assert!(read.client_key.starts_with("-----BEGIN EC PRIVATE KEY-----"));
        assert!(!format!("{read:?}").contains("PRIVATE KEY"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let (text, ..) = kubeconfig();
        let check = |from: &str, to: &str, expected: &str| {
            assert_eq!(Kubeconfig::parse(&text.replace(from, to)).unwrap_err(), expected);
        };
        check("current-context: admin@vec", "current-context: other", "no context named other");
        check("user: admin@vec", "user: other", "no user named other");
        check("client-key-data:", "client-key:", "no client-key-data");
    }
}
