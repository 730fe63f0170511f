//! One question to a Kubernetes API: are you ready? The answer takes a client of its own so that this crate needs
//! none; what the cluster holds is asked elsewhere.

use crate::authority::{certificate, private_key};
use crate::client::tls_time;
use crate::kubeconfig::Kubeconfig;
use crate::pem;
use lab_core::Link;
use lab_core::execute::dial;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

/// How long the answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the API of `kubeconfig` whether it is ready, or says why it is not.
pub(super) async fn ready(link: &Link, kubeconfig: &Kubeconfig) -> Result<(), String> {
    match tokio::time::timeout(PATIENCE, ask(link, kubeconfig)).await {
        Ok(Ok(status)) if status.split(' ').nth(1) == Some("200") => Ok(()),
        Ok(Ok(status)) => Err(format!("it answers {status}")),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// Returns the status line of the answer.
async fn ask(link: &Link, kubeconfig: &Kubeconfig) -> Result<String, String> {
    let (host, port) = target(&kubeconfig.server).ok_or_else(|| format!("{} is no URL", kubeconfig.server))?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate(&kubeconfig.ca)?.into()).map_err(|error| error.to_string())?;
    let chain = pem::decode_all(&kubeconfig.client_certificate)?.into_iter().map(|(_, der)| der.into()).collect();
    let config = ClientConfig::builder_with_details(Arc::new(ring::default_provider()), tls_time(link))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, private_key(&kubeconfig.client_key)?)
        .map_err(|error| error.to_string())?;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    let stream = dial(link, host, port).await.map_err(|error| error.to_string())?;
    let mut stream =
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| error.to_string())?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n") && answer.len() < 1024 {
        answer.push(stream.read_u8().await.map_err(|error| error.to_string())?);
    }
    Ok(String::from_utf8_lossy(&answer).trim_end().to_owned())
}

/// Splits the URL of an API into host and port.
fn target(url: &str) -> Option<(&str, u16)> {
    let authority = url.strip_prefix("https://")?.split('/').next()?;
    if let Some((host, rest)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return Some((host, rest.strip_prefix(':').map_or(Some(443), |port| port.parse().ok())?));
    }
    match authority.split_once(':') {
        Some((host, port)) => Some((host, port.parse().ok()?)),
        None => Some((authority, 443)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_of_a_url_is_found() {
        let check = |url: &str, expected: Option<(&str, u16)>| assert_eq!(target(url), expected);
        check("https://10.69.1.101:6443", Some(("10.69.1.101", 6443)));
        check("https://k8s.example.org/", Some(("k8s.example.org", 443)));
        check("https://[fd00::1]:6443", Some(("fd00::1", 6443)));
        check("http://10.69.1.101:6443", None);
        check("https://10.69.1.101:x", None);
    }
}
