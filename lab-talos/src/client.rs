//! The client of one machine's API.
//!
//! A [`Machine`] speaks to exactly one machine and never through another one, so that an error is that machine's own
//! (a call that is forwarded to several answers OK and hides each failure inside). It never retries and never waits
//! for a state: a call is made once, and its error says whether it may have had an effect.

mod connect;
mod error;
mod probe;
mod tls;

pub use error::{Error, Failure, Reason};
pub use probe::{Phase, probe};
pub(crate) use tls::time as tls_time;

use crate::proto::common::{Data, Metadata};
use crate::proto::cosi::resource::{GetRequest, state_client::StateClient};
use crate::proto::definitions::enums::RuntimeMachineStage;
use crate::proto::definitions::k8s::NodenameSpec;
use crate::proto::definitions::runtime::MachineStatusSpec;
use crate::proto::machine::machine_service_client::MachineServiceClient;
use crate::proto::machine::{self, apply_configuration_request};
use crate::proto::resource::config::MachineConfigSpec;
use crate::proto::storage::{self, storage_service_client::StorageServiceClient};
use crate::secrets::Credentials;
use connect::{Connector, Line};
use lab_core::Link;
use std::future::Future;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

/// The port of the machine API.
pub const PORT: u16 = 50000;

/// The largest message either side takes: 32 MiB, as the machines have it.
const LARGEST: usize = 32 * 1024 * 1024;

/// How long one call may take. None of the calls here waits for the work it starts.
const CALL: Duration = Duration::from_secs(30);

/// How a new configuration is applied.
///
/// The wire's own default would be `Reboot`, which is why there is no default here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Without a reboot where that is possible, else with one.
    Auto,
    /// Without a reboot, or not at all.
    NoReboot,
    /// With a reboot.
    Reboot,
    /// At the next reboot, whenever that is.
    Staged,
}

/// What a machine did, or would do, with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The mode that was chosen; in maintenance mode the machine does not say.
    pub mode: Option<Mode>,
    /// The machine's explanation; after a dry run with the difference.
    pub details: String,
    /// What the machine finds doubtful in the configuration.
    pub warnings: Vec<String>,
}

/// Where a machine stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineStatus {
    /// The stage of its life.
    pub stage: RuntimeMachineStage,
    /// Whether everything that belongs to the stage works. Outside of booting and running always true.
    pub ready: bool,
    /// What is missing to be ready: name and reason.
    pub unmet: Vec<(String, String)>,
}

/// Which stored form of the configuration is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// What the machine runs by.
    Active,
    /// What is on its disk, staged changes included.
    Persistent,
}

/// A connection to one machine, made when the first call needs it and again when it broke.
#[derive(Clone, Debug)]
pub struct Machine {
    channel: Channel,
    line: Arc<Line>,
    address: String,
}

impl Machine {
    /// Returns a client for a machine in maintenance mode: any server certificate is accepted and its fingerprint
    /// noted ([`Machine::fingerprint`]). Must be called inside a tokio runtime.
    ///
    /// `address` is an IP address or a name, with a port when it is not [`PORT`].
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the address is none.
    pub fn insecure(link: &Link, address: &str) -> Result<Machine, Error> {
        let line = Arc::new(Line::default());
        let config = tls::insecure(link, None, line.clone());
        Machine::new(link, address, config, false, line)
    }

    /// Like [`Machine::insecure`], but only the certificate with this fingerprint is accepted: the base64 of the
    /// SHA-256 of its public key, as the machine prints it on its console.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the address is none.
    pub fn pinned(link: &Link, address: &str, fingerprint: &str) -> Result<Machine, Error> {
        let line = Arc::new(Line::default());
        let config = tls::insecure(link, Some(fingerprint.to_owned()), line.clone());
        Machine::new(link, address, config, false, line)
    }

    /// Returns a client for a configured machine: both sides show certificates, and the machine's is checked against
    /// the authority and the address. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the address is none or the credentials are unreadable.
    pub fn secure(link: &Link, address: &str, credentials: &Credentials) -> Result<Machine, Error> {
        let config = tls::secure(link, credentials).map_err(|error| Error::Invalid(format!("credentials: {error}")))?;
        Machine::new(link, address, config, true, Arc::new(Line::default()))
    }

    fn new(
        link: &Link,
        address: &str,
        config: rustls::ClientConfig,
        presents: bool,
        line: Arc<Line>,
    ) -> Result<Machine, Error> {
        let (host, port) = split(address);
        let invalid = |what: &dyn std::fmt::Display| Error::Invalid(format!("address {address}: {what}"));
        let connector = Connector::new(link, host, port, config, presents).map_err(|error| invalid(&error))?;
        let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        // The scheme is http because the connector brings TLS along; the origin says what it is in truth.
        let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(|error| invalid(&error))?;
        let origin = format!("https://{authority}").parse().map_err(|error| invalid(&error))?;
        let channel = endpoint
            .origin(origin)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(10))
            .connect_with_connector_lazy(connector);
        Ok(Machine { channel, line, address: address.to_owned() })
    }

    /// Returns the address this client was made for.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns the fingerprint of the certificate that an insecure client met last.
    pub fn fingerprint(&self) -> Option<String> {
        self.line.fingerprint()
    }

    /// Returns the version of Talos. Answers [`Error::Maintenance`] in maintenance mode.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn version(&self) -> Result<machine::Version, Error> {
        one(self.call(self.machine().version(())).await?.messages)
    }

    /// Sends a whole configuration. A dry run stores nothing and says what would happen.
    ///
    /// A machine in maintenance mode begins to install, and the reply may be lost as its API goes away.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with the machine's own text for a configuration it refuses; see [`Error`].
    pub async fn apply_configuration(&self, data: Vec<u8>, mode: Mode, dry_run: bool) -> Result<Applied, Error> {
        use apply_configuration_request::Mode as Wire;
        let wire = match mode {
            Mode::Auto => Wire::Auto,
            Mode::NoReboot => Wire::NoReboot,
            Mode::Reboot => Wire::Reboot,
            Mode::Staged => Wire::Staged,
        };
        let request = machine::ApplyConfigurationRequest { data, mode: wire.into(), dry_run, try_mode_timeout: None };
        let reply = one(self.call(self.machine().apply_configuration(request)).await?.messages)?;
        // Without details the mode is only the zero that was never set.
        let mode = match reply.mode() {
            _ if reply.mode_details.is_empty() => None,
            Wire::Reboot => Some(Mode::Reboot),
            Wire::NoReboot => Some(Mode::NoReboot),
            Wire::Staged => Some(Mode::Staged),
            Wire::Auto => Some(Mode::Auto),
            Wire::Try => None,
        };
        Ok(Applied { mode, details: reply.mode_details, warnings: reply.warnings })
    }

    /// Starts etcd on this machine as the first member of a new cluster.
    ///
    /// Once per cluster: on a machine that is still joining this makes a second cluster. The caller pins the machine
    /// before the first call.
    ///
    /// # Errors
    ///
    /// [`Error::FailedPrecondition`] when it is too early, [`Error::AlreadyExists`] when this machine has etcd data.
    pub async fn bootstrap(&self) -> Result<(), Error> {
        let request = machine::BootstrapRequest::default();
        one(self.call(self.machine().bootstrap(request)).await?.messages).map(drop)
    }

    /// Returns the system services.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn service_list(&self) -> Result<Vec<machine::ServiceInfo>, Error> {
        Ok(one(self.call(self.machine().service_list(())).await?.messages)?.services)
    }

    /// Returns the members of etcd; with `local`, as this machine alone knows them.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn etcd_member_list(&self, local: bool) -> Result<Vec<machine::EtcdMember>, Error> {
        let request = machine::EtcdMemberListRequest { query_local: local };
        Ok(one(self.call(self.machine().etcd_member_list(request)).await?.messages)?.members)
    }

    /// Removes a dead member from etcd.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is no such member; see [`Error`].
    pub async fn etcd_remove_member(&self, member: u64) -> Result<(), Error> {
        let request = machine::EtcdRemoveMemberByIdRequest { member_id: member };
        one(self.call(self.machine().etcd_remove_member_by_id(request)).await?.messages).map(drop)
    }

    /// Makes this machine leave etcd.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn etcd_leave_cluster(&self) -> Result<(), Error> {
        let request = machine::EtcdLeaveClusterRequest {};
        one(self.call(self.machine().etcd_leave_cluster(request)).await?.messages).map(drop)
    }

    /// Makes another member lead etcd, when this one does.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn etcd_forfeit_leadership(&self) -> Result<(), Error> {
        let request = machine::EtcdForfeitLeadershipRequest {};
        one(self.call(self.machine().etcd_forfeit_leadership(request)).await?.messages).map(drop)
    }

    /// Returns a kubeconfig for an administrator. Every call issues a new certificate: never compare two of them.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn kubeconfig(&self) -> Result<String, Error> {
        let collect = async {
            let mut stream = self.machine().kubeconfig(()).await?.into_inner();
            let mut archive = Vec::new();
            while let Some(part) = stream.message().await? {
                if let Some(status) = failure(part.metadata.as_ref()) {
                    return Err(status);
                }
                archive.extend(part.bytes);
                if archive.len() as u64 > LARGEST_KUBECONFIG {
                    return Err(Status::out_of_range(TOO_LARGE));
                }
            }
            Ok(Response::new(archive))
        };
        let archive = self.call(collect).await?;
        unpack(&archive).map_err(|error| Error::Other { code: "Internal".into(), text: format!("kubeconfig: {error}") })
    }

    /// Returns where the machine stands. Answers in maintenance mode too.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn machine_status(&self) -> Result<MachineStatus, Error> {
        let spec: MachineStatusSpec = self.get("runtime", "MachineStatuses.runtime.talos.dev", "machine").await?;
        let stage = spec.stage();
        let status = spec.status.unwrap_or_default();
        let unmet = status.unmet_conditions.into_iter().map(|unmet| (unmet.name, unmet.reason)).collect();
        Ok(MachineStatus { stage, ready: status.ready, unmet })
    }

    /// Returns the disks. Answers in maintenance mode too.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn disks(&self) -> Result<Vec<storage::Disk>, Error> {
        let mut client = StorageServiceClient::new(self.channel.clone()).max_decoding_message_size(LARGEST);
        Ok(one(self.call(client.disks(())).await?.messages)?.disks)
    }

    /// Returns the machine's configuration as it is stored there.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is none; see [`Error`].
    pub async fn machine_config(&self, stored: Stored) -> Result<Vec<u8>, Error> {
        let id = match stored {
            Stored::Active => "v1alpha1",
            Stored::Persistent => "persistent",
        };
        let spec: MachineConfigSpec = self.get("config", "MachineConfigs.config.talos.dev", id).await?;
        Ok(spec.yaml_marshalled)
    }

    /// Returns the name of the machine's Kubernetes node.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] before the machine has one; see [`Error`].
    pub async fn nodename(&self) -> Result<String, Error> {
        let spec: NodenameSpec = self.get("k8s", "Nodenames.kubernetes.talos.dev", "nodename").await?;
        Ok(spec.nodename)
    }

    /// Returns the host name.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn hostname(&self) -> Result<String, Error> {
        Ok(one(self.call(self.machine().hostname(())).await?.messages)?.hostname)
    }

    /// Wipes the partitions with these labels; the reply comes before the work.
    ///
    /// Without a label the **whole system disk** is wiped and the machine cannot boot from it any more. `STATE` and
    /// `EPHEMERAL` with a reboot lead back to maintenance mode. `graceful` leaves etcd first, which the last member
    /// cannot.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn reset(&self, graceful: bool, reboot: bool, labels: &[&str]) -> Result<(), Error> {
        let spec = |label: &&str| machine::ResetPartitionSpec { label: (*label).to_owned(), wipe: true };
        let request = machine::ResetRequest {
            graceful,
            reboot,
            system_partitions_to_wipe: labels.iter().map(spec).collect(),
            ..machine::ResetRequest::default()
        };
        one(self.call(self.machine().reset(request)).await?.messages).map(drop)
    }

    /// Returns the machine's own id of the boot it is in, which proves a reboot; `None` where it does not say one.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn boot_id(&self) -> Result<Option<String>, Error> {
        let collect = async {
            let request = machine::ReadRequest { path: "/proc/sys/kernel/random/boot_id".into() };
            let mut stream = self.machine().read(request).await?.into_inner();
            let mut bytes = Vec::new();
            while let Some(part) = stream.message().await? {
                if let Some(status) = failure(part.metadata.as_ref()) {
                    return Err(status);
                }
                bytes.extend(part.bytes);
            }
            Ok(Response::new(bytes))
        };
        match self.call(collect).await {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned()).filter(|id| !id.is_empty())),
            Err(Error::Unimplemented(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reboots; the reply comes before the work.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn reboot(&self) -> Result<(), Error> {
        one(self.call(self.machine().reboot(machine::RebootRequest::default())).await?.messages).map(drop)
    }

    /// Installs another version of Talos and reboots into it; the reply comes before the work.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn upgrade(&self, image: &str, force: bool) -> Result<(), Error> {
        // Machines since 1.8 keep their data anyway; older ones only when asked.
        let request = machine::UpgradeRequest { image: image.to_owned(), preserve: true, force, ..Default::default() };
        one(self.call(self.machine().upgrade(request)).await?.messages).map(drop)
    }

    /// Returns the spec of one resource.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when it does not exist, [`Error::NotAuthorised`] also for kinds that do not exist.
    pub async fn get<T: prost::Message + Default>(&self, namespace: &str, kind: &str, id: &str) -> Result<T, Error> {
        let mut client = StateClient::new(self.channel.clone()).max_decoding_message_size(LARGEST);
        let request = GetRequest { namespace: namespace.into(), r#type: kind.into(), id: id.into(), options: None };
        let resource = self.call(client.get(request)).await?.resource.unwrap_or_default();
        let spec = resource.spec.unwrap_or_default();
        T::decode(spec.proto_spec.as_slice())
            .map_err(|error| Error::Other { code: "Internal".into(), text: format!("{kind}/{id}: {error}") })
    }

    fn machine(&self) -> MachineServiceClient<Channel> {
        MachineServiceClient::new(self.channel.clone()).max_decoding_message_size(LARGEST)
    }

    async fn call<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Error> {
        match tokio::time::timeout(CALL, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Error::from_status(&self.address, &status)),
            Err(_) => Err(Error::Deadline(format!("{}: no answer within {} s", self.address, CALL.as_secs()))),
        }
    }
}

/// A part of a reply, which may hide a failure.
trait Part {
    fn metadata(&self) -> Option<&Metadata>;
}

macro_rules! parts {
    ($($part:ty),* $(,)?) => {
        $(impl Part for $part {
            fn metadata(&self) -> Option<&Metadata> {
                self.metadata.as_ref()
            }
        })*
    };
}

parts!(
    machine::ApplyConfiguration,
    machine::Bootstrap,
    machine::EtcdForfeitLeadership,
    machine::EtcdLeaveCluster,
    machine::EtcdMembers,
    machine::EtcdRemoveMemberById,
    machine::Hostname,
    machine::Reboot,
    machine::Reset,
    machine::ServiceList,
    machine::Upgrade,
    machine::Version,
    storage::Disks,
    Data,
);

/// Returns the one part of a reply: one machine was asked.
fn one<T: Part>(messages: Vec<T>) -> Result<T, Error> {
    let count = messages.len();
    let Ok([message]) = <[T; 1]>::try_from(messages) else {
        let text = format!("{count} parts in the reply of one machine");
        return Err(Error::Other { code: "Internal".into(), text });
    };
    match failure(message.metadata()) {
        Some(status) => Err(Error::from_status("a forwarded call", &status)),
        None => Ok(message),
    }
}

fn failure(metadata: Option<&Metadata>) -> Option<Status> {
    let metadata = metadata?;
    match &metadata.status {
        Some(status) => Some(Status::new(status.code.into(), status.message.clone())),
        None if metadata.error.is_empty() => None,
        None => Some(Status::unknown(metadata.error.clone())),
    }
}

/// The most that a kubeconfig may have in bytes, packed or not: they have a few thousand. What answers in a machine's place
/// may claim anything.
const LARGEST_KUBECONFIG: u64 = 1 << 20;
const TOO_LARGE: &str = "it is larger than a mebibyte";

/// Returns the first file of a tar.gz. The machines never close the archive, so nothing after that file is read.
fn unpack(archive: &[u8]) -> Result<String, String> {
    let unpacked = flate2::read::GzDecoder::new(archive).take(LARGEST_KUBECONFIG);
    let mut archive = tar::Archive::new(unpacked);
    let mut files = archive.entries().map_err(|error| error.to_string())?;
    let mut file = files.next().ok_or("the archive is empty")?.map_err(|error| error.to_string())?;
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(|error| error.to_string())?;
    match file.size() {
        size if size == text.len() as u64 => Ok(text),
        size if size > LARGEST_KUBECONFIG => Err(TOO_LARGE.into()),
        size => Err(format!("it is cut off: {} of {size} bytes came", text.len())),
    }
}

/// Splits an address into host and port; IPv6 addresses with a port stand in brackets.
fn split(address: &str) -> (&str, u16) {
    if let Some((host, rest)) = address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, rest.strip_prefix(':').and_then(|port| port.parse().ok()).unwrap_or(PORT));
    }
    match address.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => match port.parse() {
            Ok(port) => (host, port),
            Err(_) => (address, PORT),
        },
        _ => (address, PORT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn addresses_may_name_a_port() {
        for (address, expected) in [
            ("10.69.1.101", ("10.69.1.101", 50000)),
            ("10.69.1.101:1", ("10.69.1.101", 1)),
            ("cp-1.lan", ("cp-1.lan", 50000)),
            ("fd00::1", ("fd00::1", 50000)),
            ("[fd00::1]", ("fd00::1", 50000)),
            ("[fd00::1]:2", ("fd00::1", 2)),
        ] {
            assert_eq!(split(address), expected);
        }
    }

    #[test]
    fn an_archive_that_is_never_closed_is_read() {
        let content = "apiVersion: v1\n".repeat(50);
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        builder.append_data(&mut header, "kubeconfig", content.as_bytes()).unwrap();
        let whole = builder.into_inner().unwrap();
        for length in [512 + content.len(), 512 + content.len().next_multiple_of(512), whole.len()] {
            assert_eq!(unpack(&pack(&whole[..length])).unwrap(), content);
        }
        assert!(unpack(b"no archive").is_err());
        let cut = pack(&whole[..512 + content.len() - 1]);
        assert_eq!(
            unpack(&cut).unwrap_err(),
            format!("it is cut off: {} of {} bytes came", content.len() - 1, content.len())
        );
    }

    #[test]
    fn an_archive_that_becomes_gigabytes_is_refused() {
        for kind in [tar::EntryType::Regular, tar::EntryType::GNULongName, tar::EntryType::XHeader] {
            let mut header = tar::Header::new_gnu();
            header.set_path("kubeconfig").unwrap();
            header.set_size(1 << 40);
            header.set_entry_type(kind);
            header.set_cksum();
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            gzip.write_all(header.as_bytes()).unwrap();
            std::io::copy(&mut std::io::repeat(b'a').take(1 << 26), &mut gzip).unwrap();
            let refused = unpack(&gzip.finish().unwrap()).unwrap_err();
            assert!(kind != tar::EntryType::Regular || refused == TOO_LARGE, "{refused}");
        }
    }

    fn pack(bytes: &[u8]) -> Vec<u8> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(bytes).unwrap();
        gzip.finish().unwrap()
    }

    #[test]
    fn a_failure_inside_a_reply_is_an_error() {
        let status = crate::proto::google::rpc::Status { code: 5, message: "gone".into(), details: vec![] };
        let metadata = Metadata { error: "rpc error".into(), status: Some(status), ..Metadata::default() };
        let reply = machine::Reboot { metadata: Some(metadata), ..Default::default() };
        assert!(matches!(one(vec![reply]), Err(Error::NotFound(text)) if text == "gone"));
        assert!(one(Vec::<machine::Reboot>::new()).is_err());
    }
}
