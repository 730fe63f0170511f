//! The kubeconfig that a control plane hands out.

use super::config::Config;
use crate::tls::{Authority, Leaf, Purpose};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

/// Returns the archive that the Kubeconfig call streams: tar.gz with one file, without the end-of-archive trailer, as
/// Talos leaves it.
pub(super) fn archive(config: &Config, now: SystemTime) -> Result<Vec<u8>, String> {
    let text = kubeconfig(config, now)?;
    pack(text.as_bytes()).map_err(|error| error.to_string())
}

fn pack(text: &[u8]) -> io::Result<Vec<u8>> {
    let mut header = tar::Header::new_ustar();
    header.set_path("kubeconfig")?;
    header.set_size(text.len() as u64);
    header.set_mode(0o600);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(header.as_bytes())?;
    gzip.write_all(text)?;
    gzip.write_all(&vec![0; (512 - text.len() % 512) % 512])?;
    gzip.finish()
}

fn kubeconfig(config: &Config, now: SystemTime) -> Result<String, String> {
    let (certificate, key) = config.kubernetes_authority().ok_or("the configuration has no Kubernetes authority")?;
    let authority = Authority::decode(certificate, key.ok_or("the Kubernetes authority has no key")?)?;
    let lifetime = config.text("cluster.adminKubeconfig.certLifetime").and_then(duration);
    let leaf = Leaf {
        common_name: Some("admin".to_owned()),
        organizations: vec!["system:masters".to_owned()],
        addresses: Vec::new(),
        names: Vec::new(),
        from: now - Duration::from_secs(10),
        until: now + lifetime.unwrap_or(Duration::from_secs(8760 * 3600)),
        purpose: Purpose::Client,
    };
    let issued = authority.issue(leaf, &rcgen::PKCS_ECDSA_P256_SHA256).map_err(|error| error.to_string())?;
    let name = config.cluster_name();
    let endpoint = config.endpoint();
    let client = STANDARD.encode(&issued.certificate_pem);
    let key = STANDARD.encode(&issued.key_pem);
    Ok(format!(
        "apiVersion: v1
kind: Config
clusters:
    - name: {name}
      cluster:
        server: {endpoint}
        certificate-authority-data: {certificate}
users:
    - name: admin@{name}
      user:
        client-certificate-data: {client}
        client-key-data: {key}
contexts:
    - context:
        cluster: {name}
        namespace: default
        user: admin@{name}
      name: admin@{name}
current-context: admin@{name}
"
    ))
}

/// Reads a duration as Go writes it, like `8760h0m0s`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|letter: char| letter.is_ascii_digit()).unwrap_or(rest.len());
        total += number
            * match &rest[..end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 0.001,
                _ => return None,
            };
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(total).ok().filter(|_| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        assert_eq!(duration("8760h0m0s"), Some(Duration::from_secs(8760 * 3600)));
        assert_eq!(duration("1m30.5s"), Some(Duration::from_millis(90_500)));
        assert_eq!(duration("1 day"), None);
        assert_eq!(duration(""), None);
    }
}
