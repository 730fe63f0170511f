//! A rack like the home lab's, and somebody who operates it by the machine API.
// Every test file uses its own part of this.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

mod wire;

use lab_sim::{Contents, Disk, Machine as Hardware, Options, Rack, Running, gigabytes};
use lab_talos::client::{Machine, Mode};
use lab_talos::config::{ClusterConfig, Contract, MachineConfig, Role, generate};
use lab_talos::secrets::{Credentials, Secrets};
use lab_talos::yaml::Yaml;
use serde_json::Value;
use std::net::IpAddr;
use std::time::Duration;

pub const CONTROL_PLANES: [&str; 3] = ["10.69.1.101", "10.69.1.140", "10.69.1.147"];
pub const WORKERS: [&str; 1] = ["10.69.1.151"];
pub const FOREIGN: &str = "10.69.1.190";
pub const ABSENT: &str = "10.69.1.250";

/// The throw-away bundle of the golden vectors: making an RSA key takes longer than a whole test.
const SECRETS: &str = include_str!("../data/secrets.yaml");

pub struct Lab {
    pub running: Running,
    pub secrets: Secrets,
    pub admin: Credentials,
}

pub fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn rack() -> Rack {
    let mut rack = Rack::new().nfs(address("10.69.1.163"), ["/mnt/media"]);
    for machine in CONTROL_PLANES.iter().chain(&WORKERS) {
        rack = rack.machine(Hardware {
            disks: vec![Disk::nvme("/dev/nvme0n1", gigabytes(500))],
            memory: 32 << 30,
            cores: 16,
            holds: Contents::Windows,
            media: "v1.11.2".to_owned(),
            ..Hardware::new(address(machine))
        });
    }
    rack.machine(Hardware { holds: Contents::Foreign, ..Hardware::new(address(FOREIGN)) })
}

impl Lab {
    pub async fn start(options: Options) -> Lab {
        let running = rack().start(options).await.unwrap();
        let secrets = Secrets::from_yaml(SECRETS).unwrap();
        let now = running.link().clock.now();
        let admin = secrets.admin(now, Duration::from_secs(8760 * 3600), [7; 32]).unwrap();
        Lab { running, secrets, admin }
    }

    /// A client that shows the administrator's certificate.
    pub fn secure(&self, machine: &str) -> Machine {
        Machine::secure(&self.running.link(), machine, &self.admin).unwrap()
    }

    /// A client for maintenance mode.
    pub fn insecure(&self, machine: &str) -> Machine {
        Machine::insecure(&self.running.link(), machine).unwrap()
    }

    pub fn config(&self, machine: &str) -> String {
        self.config_with(machine, |_| {})
    }

    pub fn config_with(&self, machine: &str, change: impl FnOnce(&mut MachineConfig)) -> String {
        let role = if WORKERS.contains(&machine) { Role::Worker } else { Role::ControlPlane };
        let cluster = ClusterConfig::new("homelab", "https://10.69.1.101:6443", "1.34.1", Contract::V1_11);
        let image = "ghcr.io/siderolabs/installer:v1.11.2";
        let mut config = MachineConfig::new(role, "/dev/nvme0n1", image);
        config.hostname = Some(format!("node-{}", machine.rsplit('.').next().unwrap()));
        change(&mut config);
        Yaml::to_stream(&generate(&cluster, &config, &self.secrets).unwrap())
    }

    /// Applies its configuration to a machine in maintenance mode.
    pub async fn install(&self, machine: &str) {
        let config = self.config(machine).into_bytes();
        self.insecure(machine).apply_configuration(config, Mode::Auto, false).await.unwrap();
    }

    /// Installs the given machines and waits until all show their own API.
    pub async fn install_all(&self, machines: &[&str]) {
        for machine in machines {
            self.install(machine).await;
        }
        for machine in machines {
            self.until(|| async { self.secure(machine).version().await.is_ok() }).await;
        }
    }

    /// Bootstraps on a machine, once it can be done.
    pub async fn bootstrap(&self, machine: &str) {
        self.until(|| async { self.secure(machine).bootstrap().await.is_ok() }).await;
    }

    /// Waits, for at most eight hours of the lab's time: a slow computer has less of it per second of its own.
    pub async fn until<F: Future<Output = bool>>(&self, mut holds: impl FnMut() -> F) {
        let clock = self.running.link().clock;
        let start = clock.now();
        while !holds().await {
            let waited = clock.now().duration_since(start).unwrap();
            assert!(
                waited < Duration::from_secs(8 * 3600),
                "it never came true; the world: {:#}",
                self.running.world()
            );
            clock.sleep(Duration::from_secs(5)).await;
        }
    }

    /// Waits until a machine's part of the world has this value at this key.
    pub async fn until_machine(&self, machine: &str, key: &str, value: &str) {
        self.until(|| async { self.machine(machine)[key] == value }).await;
    }

    pub fn machine(&self, machine: &str) -> Value {
        self.running.world()["machines"][machine].clone()
    }

    /// The etcd clusters of the home lab, each as the addresses of its voters that run.
    pub fn clusters(&self) -> Vec<Vec<String>> {
        let world = self.running.world();
        let ours = world["clusters"].as_array().unwrap().iter().filter(|cluster| cluster["name"] == "homelab");
        ours.map(|cluster| {
            let members = cluster["members"].as_array().unwrap().iter();
            let full = members.filter(|member| member["learner"] == false && member["running"] == true);
            full.map(|member| member["address"].as_str().unwrap().to_owned()).collect()
        })
        .collect()
    }
}
