//! One machine with its configuration, as a resource.

mod change;
mod live;
mod way;

use super::{inputs, seconds};
use crate::client::{self, Stored};
use crate::config::{self, ClusterConfig, Contract, Interface, MachineConfig, Role};
use crate::proto::definitions::enums::RuntimeMachineStage as Stage;
use crate::provider::{Access, Client, Look, Talos, failed, refused};
use crate::secrets::Secrets;
use crate::version::{KubernetesVersion, TalosVersion};
use crate::yaml::Yaml;
use lab_core::{
    Change, Claim, Class, Error, Found, Id, Impact, Input, Made, Op, Owner, Resource, Result, Secret, Step, Why,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;
use way::Way;

/// The annotation that names the operation which made a machine a member of its cluster. It is part of the machine's
/// configuration, takes effect without a reboot, and is shown on the Kubernetes node too.
const MARK: &str = "lab.home.arpa/operation";

/// How long a machine takes to begin with what it was told; after that it is told again.
const PATIENCE: u64 = 120;
/// How long an upgrade may take before it counts as one that did not happen.
const UPGRADE: u64 = 900;

/// A machine that runs Talos as a member of a cluster.
///
/// It is found by its address. A machine in maintenance mode is nobody's and counts as absent. One that accepts the
/// cluster's certificate is a member; whether this resource made it one, an annotation in its configuration says: a
/// member that was configured by hand bears none and is taken over by import. One that does not accept the
/// certificate is another cluster's, and refused.
///
/// Creating it installs Talos and destroys what is on the disk; deleting it wipes its state and its data and leads
/// back to maintenance mode.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// The address it answers at, in maintenance mode and ever after.
    pub address: IpAddr,
    /// The host name, and the name of its Kubernetes node.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// The name of the cluster.
    pub cluster: String,
    /// The URL of the Kubernetes API: `https://10.69.1.101:6443`.
    pub endpoint: String,
    /// The version of Talos.
    pub talos: TalosVersion,
    /// The installer image without its tag, which is the version.
    pub installer: String,
    /// The disk to install on, all of whose contents are destroyed: `/dev/nvme0n1`.
    pub install_disk: String,
    /// The version of Kubernetes.
    pub kubernetes: KubernetesVersion,
    /// Which generation of defaults the cluster began with.
    pub contract: Input<Contract>,
    /// The secrets of the cluster: [`super::BundleOutputs::yaml`].
    pub secrets: Input<Secret<String>>,
    /// Labels for the Kubernetes node.
    pub labels: BTreeMap<String, String>,
    /// More arguments for the kernel; they take effect with an installation or an upgrade.
    pub kernel_args: Vec<String>,
    /// Network interfaces that are not left to DHCP.
    pub interfaces: Vec<Interface>,
    /// DNS servers instead of those from DHCP.
    pub nameservers: Vec<String>,
    /// More names and addresses for the certificates of the machine API and the Kubernetes API.
    pub additional_sans: Vec<String>,
    /// The DNS domain of services.
    pub dns_domain: String,
    /// Lets ordinary pods run on control planes.
    pub schedulable_control_planes: bool,
    /// More configuration documents, each whole: YAML text of one or several. They are stored in clear.
    pub documents: Vec<String>,
}

/// What a [`Machine`] yields, once it answers as a member of its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configured {
    /// Its address.
    pub address: IpAddr,
    /// Its host name.
    pub name: String,
}

impl Machine {
    /// Returns a machine with Talos' own defaults.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        address: IpAddr,
        name: impl Into<String>,
        role: Role,
        endpoint: impl Into<String>,
        install_disk: impl Into<String>,
        versions: (TalosVersion, KubernetesVersion),
        secrets: impl Into<Input<Secret<String>>>,
    ) -> Machine {
        Machine {
            address,
            name: name.into(),
            role,
            cluster: "talos".into(),
            endpoint: endpoint.into(),
            talos: versions.0,
            installer: "ghcr.io/siderolabs/installer".into(),
            install_disk: install_disk.into(),
            kubernetes: versions.1,
            contract: versions.0.contract().into(),
            secrets: secrets.into(),
            labels: BTreeMap::new(),
            kernel_args: Vec::new(),
            interfaces: Vec::new(),
            nameservers: Vec::new(),
            additional_sans: Vec::new(),
            dns_domain: "cluster.local".into(),
            schedulable_control_planes: false,
            documents: Vec::new(),
        }
    }

    /// Returns the installer image with its tag.
    pub fn image(&self) -> String {
        format!("{}:{}", self.installer, self.talos)
    }

    /// Says which machine this is, for people.
    fn who(&self) -> String {
        format!("{} ({})", self.name, self.address)
    }

    /// Returns the documents of its configuration.
    fn generate(
        &self,
        contract: Contract,
        secrets: &Secrets,
        mark: Option<&str>,
    ) -> std::result::Result<Vec<Yaml>, String> {
        let cluster = ClusterConfig {
            additional_sans: self.additional_sans.clone(),
            dns_domain: self.dns_domain.clone(),
            allow_scheduling_on_control_planes: self.schedulable_control_planes,
            ..ClusterConfig::new(&self.cluster, &self.endpoint, self.kubernetes.number(), contract)
        };
        let machine = MachineConfig {
            extra_kernel_args: self.kernel_args.clone(),
            hostname: Some(self.name.clone()),
            node_labels: self.labels.clone(),
            node_annotations: mark.map(|mark| (MARK.to_owned(), mark.to_owned())).into_iter().collect(),
            interfaces: self.interfaces.clone(),
            nameservers: self.nameservers.clone(),
            documents: self.documents.clone(),
            ..MachineConfig::new(self.role, &self.install_disk, self.image())
        };
        config::generate(&cluster, &machine, secrets)
    }

    fn desired(&self, access: &Access, mark: &str) -> Result<Vec<Yaml>> {
        self.generate(*self.contract.get(), &access.secrets, Some(mark))
            .map_err(|error| Error::invalid(format!("the configuration of {}: {error}", self.who())))
    }

    fn made(&self, live: Option<Value>) -> Made<Configured> {
        let outputs = Configured { address: self.address, name: self.name.clone() };
        Made { live, ..Made::new(self.address.to_string(), outputs) }
    }

    /// Sends the first configuration to a machine in maintenance mode.
    async fn install(
        &self,
        client: &Client,
        access: &Access,
        op: &Op<Machine>,
        fingerprint: &str,
    ) -> Result<Step<Configured>> {
        let way = Way::read(op.cursor.as_ref())?;
        let now = seconds(op.now);
        match way {
            Way::Begun => {}
            Way::Told { at, .. } if now < at + PATIENCE => {
                return Ok(way.next(format!("{} is about to install Talos", self.who()), 5));
            }
            Way::Told { .. } => {}
            Way::About { .. } | Way::Upgrading { .. } | Way::Resetting { .. } => {
                let what = format!("{} is back in maintenance mode: it was reset by somebody else", self.who());
                return Err(Error::new(Class::Gone, what));
            }
        }
        // Whoever answers gets the cluster's secrets. It is at least the one that was looked at.
        let machine =
            client::Machine::pinned(client.link(), &self.address.to_string(), fingerprint).map_err(refused)?;
        let disks = machine.disks().await.map_err(refused)?;
        if !disks.iter().any(|disk| disk.device_name == self.install_disk) {
            let there: Vec<_> = disks
                .iter()
                .map(|disk| format!("{} ({} GB {})", disk.device_name, disk.size / 1_000_000_000, disk.model.trim()))
                .collect();
            let what = format!("{} has no disk {}; it has {}", self.who(), self.install_disk, there.join(", "));
            return Err(Error::invalid(what));
        }
        let config = Yaml::to_stream(&self.desired(access, &op.mark)?).into_bytes();
        machine
            .apply_configuration(config, client::Mode::Auto, false)
            .await
            .map_err(|error| failed(&format!("configuring {}", self.who()), error))?;
        let told = Way::Told { at: now, boot: None, running: false };
        Ok(told.next(format!("{} installs Talos {} to {}", self.who(), self.talos, self.install_disk), 10))
    }

    /// Brings a member of the cluster to what is desired, one step at a time.
    async fn converge(&self, machine: &client::Machine, access: &Access, op: &Op<Machine>) -> Result<Step<Configured>> {
        let way = Way::read(op.cursor.as_ref())?;
        let now = seconds(op.now);
        let status = machine.machine_status().await.map_err(refused)?;
        let running = match status.stage {
            Stage::MachineStageRunning => true,
            Stage::MachineStageBooting => false,
            stage => return Ok(way.next(format!("{} {}", self.who(), live::doing(stage)), 5)),
        };
        let boot = machine.boot_id().await.map_err(refused)?;
        let rebooted = |before: &Option<String>, at: u64| match (before, &boot) {
            (Some(before), Some(boot)) => before != boot,
            // A machine that does not say which boot this is has to be given the time.
            _ => now >= at + PATIENCE / 2,
        };
        let version = live::version(machine).await?;
        let config = machine.machine_config(Stored::Active).await.map_err(refused)?;
        let active = live::parse(&config).map_err(|error| Error::again(format!("{}: {error}", self.who())))?;
        let desired = self.desired(access, &op.mark)?;
        let image = self.image();
        let changes = config::changes(&active, &desired);

        // Talos goes first: what a newer one takes, an older one refuses.
        if version != self.talos.to_string()
            || live::image(&active).is_some_and(|active| live::other_image(&active, &image))
        {
            let upgrade = || async {
                // An etcd that is not there yet cannot be asked whether it would survive.
                machine
                    .upgrade(&image, !op.exists)
                    .await
                    .map_err(|error| failed(&format!("upgrading {} to {image}", self.who()), error))?;
                let way = Way::Upgrading { image: image.clone(), at: now, boot: boot.clone(), running };
                Ok(way.next(format!("{} upgrades from {version} to {}", self.who(), self.talos), 15))
            };
            return match &way {
                Way::Upgrading { image: begun, at, boot: before, .. } if *begun == image => {
                    let proven = version == self.talos.to_string() && rebooted(before, *at);
                    if !proven && now < at + UPGRADE {
                        return Ok(way.next(format!("{} upgrades from {version} to {}", self.who(), self.talos), 15));
                    }
                    if !proven {
                        return upgrade().await;
                    }
                    // The image in the configuration is the record of it, and is written last.
                    self.configure(machine, &desired, &changes, &way, now, boot.clone(), running).await
                }
                _ => upgrade().await,
            };
        }
        if !changes.is_empty() {
            if let Way::Told { at, boot: before, .. } = &way
                && now < at + PATIENCE
                && !rebooted(before, *at)
            {
                return Ok(way.next(format!("{} takes over its configuration", self.who()), 5));
            }
            return self.configure(machine, &desired, &changes, &way, now, boot, running).await;
        }
        // A change that reboots is complete when the machine has been away and is back where it was.
        let (before, at, was_running) = match &way {
            Way::Begun | Way::Resetting { .. } => (None, 0, false),
            Way::About { boot, running } => (boot.clone(), 0, *running),
            Way::Told { at, boot, running } | Way::Upgrading { at, boot, running, .. } => (boot.clone(), *at, *running),
        };
        let away = matches!(way, Way::Told { .. } | Way::Upgrading { .. }) && was_running;
        if away && (!rebooted(&before, at) || !running || !status.ready) {
            return Ok(way.next(format!("{} {}", self.who(), live::missing(&status)), 5));
        }
        Ok(Step::Done(self.made(Some(live::inputs(&active, &version)))))
    }

    #[allow(clippy::too_many_arguments)]
    async fn configure(
        &self,
        machine: &client::Machine,
        desired: &[Yaml],
        changes: &[config::Changed],
        way: &Way,
        now: u64,
        boot: Option<String>,
        running: bool,
    ) -> Result<Step<Configured>> {
        let reboots = changes.iter().any(|changed| changed.reboot);
        // Which boot this was is written down before the call: a reply that is lost takes no proof with it.
        if reboots && !matches!(way, Way::About { .. }) {
            let about = Way::About { boot, running };
            return Ok(about.next(format!("{} is about to reboot into its configuration", self.who()), 0));
        }
        let mode = if reboots { client::Mode::Reboot } else { client::Mode::NoReboot };
        machine
            .apply_configuration(Yaml::to_stream(desired).into_bytes(), mode, false)
            .await
            .map_err(|error| failed(&format!("configuring {}", self.who()), error))?;
        // Without a reboot there is nothing to be away for.
        let told = Way::Told { at: now, boot, running: running && reboots };
        Ok(told.next(format!("{} takes over its configuration", self.who()), if reboots { 10 } else { 1 }))
    }
}

impl Resource<Talos> for Machine {
    const TYPE: &'static str = "talos:machine";
    type Outputs = Configured;

    fn id(&self) -> Option<Id> {
        Some(Id(self.address.to_string()))
    }

    fn claims(&self) -> Vec<Claim> {
        vec![Claim::address(self.address), Claim::name("host name", &self.name)]
    }

    fn change(&self, prior: &Machine, live: Option<&Value>) -> Change {
        change::change(self, prior, live)
    }

    fn creation(&self) -> Impact {
        let destroys = format!("everything on {} of {}", self.install_disk, self.who());
        Impact { destroys: Some(destroys), ..Impact::default() }
    }

    fn removal(&self) -> Impact {
        let destroys = format!("everything on the partitions STATE and EPHEMERAL of {}", self.who());
        Impact { destroys: Some(destroys), ..Impact::default() }
    }

    async fn find(client: &Client, op: &Op<Machine>) -> Result<Found<Configured>> {
        let inputs = inputs(op)?;
        let access = client.access(inputs.secrets.get())?;
        let machine = match client.look(inputs.address, &access).await? {
            Look::Maintenance(_) => return Ok(Found::Absent),
            Look::Silent(error) => return Err(error),
            Look::Ours(machine) => machine,
        };
        let status = machine.machine_status().await.map_err(refused)?;
        let config = machine.machine_config(Stored::Active).await.map_err(refused)?;
        let active = live::parse(&config).map_err(|error| Error::again(format!("{}: {error}", inputs.who())))?;
        let owner = live::mark(&active).map_or(Owner::Unmarked, Owner::Marked);
        let way = Way::read(op.cursor.as_ref())?;
        match status.stage {
            Stage::MachineStageRunning | Stage::MachineStageBooting => {}
            Stage::MachineStageResetting => {
                return Ok(Found::Leaving(owner, format!("{} is being reset", inputs.who())));
            }
            stage => {
                let why = format!("{} {}", inputs.who(), live::doing(stage));
                return Ok(Found::Present(owner, way.next(why, 5)));
            }
        }
        // What a begun operation has still to do, its apply finds out.
        if way != Way::Begun {
            return Ok(Found::Present(owner, way.next(format!("{} goes on", inputs.who()), 0)));
        }
        let version = live::version(&machine).await?;
        Ok(Found::Present(owner, Step::Done(inputs.made(Some(live::inputs(&active, &version))))))
    }

    async fn apply(&self, client: &Client, op: &Op<Machine>) -> Result<Step<Configured>> {
        let access = client.access(self.secrets.get())?;
        match client.look(self.address, &access).await? {
            Look::Ours(machine) => self.converge(&machine, &access, op).await,
            Look::Maintenance(_) if op.exists => {
                let what = format!("{} is in maintenance mode: it was reset by somebody else", self.who());
                Err(Error::new(Class::Gone, what))
            }
            Look::Maintenance(fingerprint) => self.install(client, &access, op, &fingerprint).await,
            Look::Silent(error) => match Way::read(op.cursor.as_ref())? {
                Way::Begun => Err(error),
                Way::Told { .. } if !op.exists => {
                    let why = format!("{} installs Talos to {} and boots it", self.who(), self.install_disk);
                    Ok(Way::read(op.cursor.as_ref())?.next(why, 10))
                }
                way => Ok(way.next(format!("{} reboots", self.who()), 10)),
            },
        }
    }

    async fn delete(client: &Client, op: &Op<Machine>) -> Result<Step<()>> {
        let inputs = inputs(op)?;
        let access = client.access(inputs.secrets.get())?;
        let way = Way::read(op.cursor.as_ref())?;
        let now = seconds(op.now);
        let machine = match client.look(inputs.address, &access).await? {
            Look::Maintenance(_) => return Ok(Step::gone()),
            Look::Silent(error) => match way {
                Way::Resetting { .. } => return Ok(way.next(format!("{} is being reset", inputs.who()), 10)),
                _ => return Err(error),
            },
            Look::Ours(machine) => machine,
        };
        if let Way::Resetting { at } = way {
            let stage = machine.machine_status().await.map_err(refused)?.stage;
            // A request that met a busy machine is dropped without a word.
            let dropped =
                matches!(stage, Stage::MachineStageRunning | Stage::MachineStageBooting) && now > at + PATIENCE;
            if !dropped {
                return Ok(way.next(format!("{} is being reset", inputs.who()), 5));
            }
        }
        // A living cluster has to know that it lost a member. The last member cannot leave, nor need it.
        if inputs.role == Role::ControlPlane && op.why != Why::ContainerGoing {
            let members = super::etcd::members(&machine).await.map_err(refused)?;
            let own = members.iter().any(|member| super::etcd::is(member, inputs.address));
            if own && members.len() > 1 {
                machine.etcd_leave_cluster().await.map_err(|error| Error {
                    class: Class::Again,
                    ..failed(&format!("{} leaves etcd", inputs.who()), error)
                })?;
                return Ok(Way::Begun.next(format!("{} leaves etcd", inputs.who()), 2));
            }
        }
        machine
            .reset(false, true, &["STATE", "EPHEMERAL"])
            .await
            .map_err(|error| failed(&format!("resetting {}", inputs.who()), error))?;
        Ok(Way::Resetting { at: now }.next(format!("{} is being reset", inputs.who()), 10))
    }
}

/// Returns the pause of so many seconds.
fn pause(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
