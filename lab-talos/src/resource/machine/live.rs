//! A machine as it is, read back into the shape of the inputs.

use super::MARK;
use crate::client::{self, MachineStatus};
use crate::config;
use crate::proto::definitions::enums::RuntimeMachineStage as Stage;
use crate::provider::refused;
use crate::yaml::Yaml;
use lab_core::Result;
use serde_json::{Map, Value};

/// Reads the documents of a stored configuration.
pub(super) fn parse(config: &[u8]) -> std::result::Result<Vec<Yaml>, String> {
    let text = std::str::from_utf8(config).map_err(|_| "its configuration is not text")?;
    config::parse(text).map_err(|error| format!("its configuration is not readable: {error}"))
}

fn main(documents: &[Yaml]) -> Option<&Yaml> {
    documents.iter().find(|document| config::identity(document).is_empty())
}

fn text(documents: &[Yaml], path: &[&str]) -> Option<String> {
    main(documents)?.at(path)?.as_str().map(str::to_owned)
}

/// Returns the operation that the configuration says it was made by.
pub(super) fn mark(documents: &[Yaml]) -> Option<String> {
    text(documents, &["machine", "nodeAnnotations", MARK]).filter(|mark| !mark.is_empty())
}

/// Returns the installer image that the configuration names, which is the one of the last upgrade.
pub(super) fn image(documents: &[Yaml]) -> Option<String> {
    text(documents, &["machine", "install", "image"])
}

/// Splits an image into its name and its tag.
fn split(image: &str) -> (&str, &str) {
    match image.rsplit_once(':') {
        // What follows the last colon of `registry:5000/installer` is no tag.
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image, ""),
    }
}

/// Tells whether one image is another build than the other, whatever their versions.
pub(super) fn other_image(active: &str, desired: &str) -> bool {
    split(active).0 != split(desired).0
}

/// Returns the version that a machine runs, with the letter.
pub(super) async fn version(machine: &client::Machine) -> Result<String> {
    let version = machine.version().await.map_err(refused)?;
    Ok(version.version.map(|version| version.tag).unwrap_or_default())
}

/// Returns what of the inputs can be read back from a machine's configuration, in their shape.
pub(super) fn inputs(documents: &[Yaml], version: &str) -> Value {
    let mut live = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        value.map(|value| live.insert(key.to_owned(), value));
    };
    let string = |path: &[&str]| text(documents, path).map(Value::from);
    put("role", string(&["machine", "type"]));
    let document = documents.iter().find(|document| config::identity(document) == "HostnameConfig");
    let hostname = document.and_then(|document| document.at(&["hostname"])).and_then(Yaml::as_str).map(Value::from);
    put("name", hostname.or_else(|| string(&["machine", "network", "hostname"])));
    put("cluster", string(&["cluster", "clusterName"]));
    put("endpoint", string(&["cluster", "controlPlane", "endpoint"]));
    put("dns_domain", string(&["cluster", "network", "dnsDomain"]));
    put("install_disk", string(&["machine", "install", "disk"]));
    put("installer", image(documents).map(|image| split(&image).0.into()));
    put("talos", (!version.is_empty()).then(|| version.into()));
    let kubelet = text(documents, &["machine", "kubelet", "image"]);
    put("kubernetes", kubelet.map(|image| split(&image).1.to_owned()).filter(|tag| !tag.is_empty()).map(Value::from));
    let labels = match main(documents).and_then(|main| main.at(&["machine", "nodeLabels"])) {
        Some(Yaml::Map(labels)) => {
            labels.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.into()))).collect()
        }
        _ => Map::new(),
    };
    put("labels", Some(Value::Object(labels)));
    Value::Object(live)
}

/// Says what a machine does in a stage, as the rest of a sentence that begins with its name.
pub(super) fn doing(stage: Stage) -> &'static str {
    match stage {
        Stage::MachineStageUnknown => "does not say what it does",
        Stage::MachineStageBooting => "boots",
        Stage::MachineStageInstalling => "installs Talos",
        Stage::MachineStageMaintenance => "waits for a configuration",
        Stage::MachineStageRunning => "runs",
        Stage::MachineStageRebooting => "reboots",
        Stage::MachineStageShuttingDown => "shuts down",
        Stage::MachineStageResetting => "is being reset",
        Stage::MachineStageUpgrading => "upgrades",
    }
}

/// Says what a machine lacks to be all up.
pub(super) fn missing(status: &MachineStatus) -> String {
    if status.unmet.is_empty() {
        return doing(status.stage).to_owned();
    }
    let unmet: Vec<_> = status.unmet.iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
    format!("{}, and waits for {}", doing(status.stage), unmet.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_configuration_is_read_back_into_the_shape_of_the_inputs() {
        let documents = parse(include_bytes!("../../../tests/vectors/controlplane.yaml")).unwrap();
        let live = inputs(&documents, "v1.11.6");
        assert_eq!(live["role"], "controlplane");
        assert_eq!(live["endpoint"], "https://10.5.0.2:6443");
        assert_eq!(live["kubernetes"], "v1.34.1");
        assert_eq!(live["talos"], "v1.11.6");
        assert_eq!(live["installer"], "ghcr.io/siderolabs/installer");
        assert_eq!(live["labels"], json!({"node.kubernetes.io/exclude-from-external-load-balancers": ""}));
        assert_eq!(mark(&documents), None);
    }

    #[test]
    fn an_image_is_told_from_its_tag() {
        assert!(!other_image("ghcr.io/siderolabs/installer:v1.11.2", "ghcr.io/siderolabs/installer:v1.12.0"));
        assert!(other_image("ghcr.io/siderolabs/installer:v1.11.2", "factory.talos.dev/metal-installer/ab:v1.11.2"));
        assert!(!other_image("registry:5000/installer", "registry:5000/installer:v1.11.2"));
    }
}
