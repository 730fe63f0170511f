//! Add-ons of a home cluster as components: configuration in, Kubernetes objects out.
//!
//! Each component is one file that reads from top to bottom: what can be configured, what is declared in which order,
//! the objects. All of them are plain objects of our own, written from the projects' documentation with pinned images,
//! so that a preview shows every one of them without a network and without a chart. Only the definitions of custom
//! kinds are others' files, as data.
//!
//! ```no_run
//! use lab_addons::{CertManager, MetalLb, Monitoring, NfsCsi, Traefik, nfs};
//! # use lab_core::model::{ProgramError, Scope, Subnet};
//! # fn program(k8s: &Scope<'_, lab_kube::Kubernetes>) -> Result<(), ProgramError> {
//! let lan = Subnet::new("10.69.1.0/24")?;
//!
//! let metallb = k8s.component("metallb").add(MetalLb::new(lan.range(200, 210)?));
//! let traefik = k8s.component("traefik").depends_on(&metallb.ready).add(Traefik {
//!     address: Some(lan.address(200)?),
//!     ..Traefik::new()
//! });
//! let driver = k8s.component("nfs").add(NfsCsi::new());
//! let media = k8s.resource("media").depends_on(&driver.ready).add(nfs::storage_class("10.69.1.163", "/mnt/media"));
//! let certificates = k8s.component("certificates").add(CertManager::new());
//! # let _ = (traefik, media, certificates, Monitoring::new("local"));
//! # Ok(())
//! # }
//! ```
//!
//! Deliberately not here: network code, state, waiting. Whatever order a cluster needs stands in the declarations.

mod account;
pub mod certificates;
mod definitions;
pub mod ingress;
pub mod local;
pub mod metallb;
pub mod monitoring;
pub mod nfs;
pub mod parts;
pub mod policy;

pub use account::Account;
pub use certificates::{CertManager, ClusterIssuer};
pub use ingress::Traefik;
pub use local::LocalPath;
pub use metallb::MetalLb;
pub use monitoring::Monitoring;
pub use nfs::NfsCsi;
pub use policy::Isolation;

/// Whether an operator is installed by the component or is there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Install {
    /// The component declares everything the operator consists of.
    #[default]
    Native,
    /// Something else installed it, such as MicroK8s or GitOps: only its custom resources are declared.
    Existing,
}
