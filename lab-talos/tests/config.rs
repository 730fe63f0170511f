//! Machine configurations: the same bytes as Talos' own generator.

use lab_talos::config::{ClusterConfig, Contract, Device, Interface, MachineConfig, Role, changes, generate, parse};
use lab_talos::secrets::Secrets;
use lab_talos::yaml::Yaml;

fn cluster(contract: Contract) -> ClusterConfig {
    ClusterConfig::new("vec", "https://10.5.0.2:6443", "1.34.1", contract)
}

fn machine(role: Role) -> MachineConfig {
    MachineConfig::new(role, "/dev/sda", "ghcr.io/siderolabs/installer:v1.11.0")
}

fn text(cluster: &ClusterConfig, machine: &MachineConfig) -> String {
    let secrets = Secrets::from_yaml(include_str!("vectors/secrets.yaml")).unwrap();
    Yaml::to_stream(&generate(cluster, machine, &secrets).unwrap())
}

fn check(cluster: ClusterConfig, machine: MachineConfig, expected: &str) {
    let text = text(&cluster, &machine);
    assert!(text == expected, "{}", first_difference(&text, expected));
    // What was written reads back as the same documents.
    assert_eq!(Yaml::to_stream(&parse(expected).unwrap()), expected);
}

fn first_difference(ours: &str, theirs: &str) -> String {
    let differing = ours.lines().zip(theirs.lines()).enumerate().find(|(_, (a, b))| a != b);
    format!("{differing:?}, {} lines against {}", ours.lines().count(), theirs.lines().count())
}

#[test]
fn the_defaults_are_those_of_talos_1_11() {
    check(cluster(Contract::V1_11), machine(Role::ControlPlane), include_str!("vectors/controlplane.yaml"));
    check(cluster(Contract::V1_11), machine(Role::Worker), include_str!("vectors/worker.yaml"));
}

#[test]
fn the_defaults_are_those_of_talos_1_12() {
    check(cluster(Contract::V1_12), machine(Role::ControlPlane), include_str!("vectors/controlplane-v1.12.yaml"));
    check(cluster(Contract::V1_12), machine(Role::Worker), include_str!("vectors/worker-v1.12.yaml"));
}

#[test]
fn options_land_where_talos_puts_them() {
    let cluster = ClusterConfig {
        additional_sans: vec!["k8s.example.org".into(), "10.5.0.10".into()],
        dns_domain: "cluster.internal".into(),
        allow_scheduling_on_control_planes: true,
        ..cluster(Contract::V1_11)
    };
    let machine = |role| MachineConfig { extra_kernel_args: vec!["console=ttyS0".into()], ..machine(role) };
    check(cluster.clone(), machine(Role::ControlPlane), include_str!("vectors/controlplane-opts.yaml"));
    check(cluster, machine(Role::Worker), include_str!("vectors/worker-opts.yaml"));
}

#[test]
fn a_host_name_goes_where_the_contract_keeps_it() {
    let machine = MachineConfig { hostname: Some("cp-1".into()), ..machine(Role::ControlPlane) };
    let old = text(&cluster(Contract::V1_11), &machine);
    assert!(old.contains("    network:\n        hostname: cp-1\n"));
    assert!(!old.contains("HostnameConfig"));
    let new = text(&cluster(Contract::V1_12), &machine);
    assert!(new.ends_with("---\napiVersion: v1alpha1\nkind: HostnameConfig\nhostname: cp-1\n"));
    assert!(new.contains("    network: {}\n"));
}

#[test]
fn static_addresses_labels_and_documents_are_written() {
    let eth0 = Interface {
        device: Device::Name("eth0".into()),
        addresses: vec!["10.69.1.101/24".into()],
        gateway: Some("10.69.1.1".into()),
        dhcp: false,
        vip: Some("10.69.1.100".into()),
    };
    let mac = Interface {
        device: Device::Mac("00:11:22:33:44:55".into()),
        dhcp: true,
        gateway: None,
        vip: None,
        addresses: vec![],
    };
    let machine = MachineConfig {
        interfaces: vec![eth0, mac],
        nameservers: vec!["1.1.1.1".into()],
        node_labels: [("plex".to_owned(), "true".to_owned())].into(),
        documents: vec!["apiVersion: v1alpha1\nkind: WatchdogTimerConfig\ndevice: /dev/watchdog0\n".into()],
        ..machine(Role::Worker)
    };
    let text = text(&cluster(Contract::V1_11), &machine);
    let network = r#"    network:
        interfaces:
            - interface: eth0
              addresses:
                - 10.69.1.101/24
              routes:
                - network: 0.0.0.0/0
                  gateway: 10.69.1.1
              dhcp: false
              vip:
                ip: 10.69.1.100
            - deviceSelector:
                hardwareAddr: "00:11:22:33:44:55"
              dhcp: true
        nameservers:
            - 1.1.1.1
"#;
    assert!(text.contains(network), "{text}");
    assert!(text.contains("    nodeLabels:\n        plex: \"true\"\n"));
    assert!(text.ends_with("---\napiVersion: v1alpha1\nkind: WatchdogTimerConfig\ndevice: /dev/watchdog0\n"));
    let plain = parse(include_str!("vectors/worker.yaml")).unwrap();
    let changed: Vec<_> =
        changes(&plain, &parse(&text).unwrap()).into_iter().map(|c| (c.document + &c.path, c.reboot)).collect();
    let expected = [
        "/machine/network/interfaces",
        "/machine/network/nameservers",
        "/machine/nodeLabels/plex",
        "WatchdogTimerConfig",
    ];
    assert_eq!(changed, expected.map(|path| (path.to_owned(), false)));
}

#[test]
fn an_ipv6_endpoint_selects_ipv6_subnets() {
    let cluster = ClusterConfig { endpoint: "https://[fd00::1]:6443".into(), ..cluster(Contract::V1_11) };
    let text = text(&cluster, &machine(Role::ControlPlane));
    assert!(
        text.contains("- fc00:db8:10::/56\n") && text.contains("- fc00:db8:20::/112\n") && text.contains("- fd00::1\n")
    );
}

#[test]
fn a_document_that_is_not_yaml_is_an_error() {
    let secrets = Secrets::from_yaml(include_str!("vectors/secrets.yaml")).unwrap();
    let machine = MachineConfig { documents: vec!["a: [".into()], ..machine(Role::Worker) };
    assert!(generate(&cluster(Contract::V1_11), &machine, &secrets).is_err());
}
