//! A whole home lab as one typed Rust program, and the run of it: preview, up, destroy.
//!
//! A program is plain synchronous Rust that declares; [`Lab`] makes a command line of it:
//!
//! ```no_run
//! use lab::prelude::*;
//! # use lab::testing::{Memory, Thing};
//!
//! fn main() -> ExitCode {
//!     Lab::new("shelf", shelf).run()
//! }
//!
//! fn shelf(stack: &Stack) -> Result<Output<String>, ProgramError> {
//!     let rack = stack.provider("rack", Memory::at("rack"));
//!     let first = rack.resource("first").add(Thing::new("first", "hello"));
//!     // What one resource yields, another may need: that is the whole dependency graph.
//!     let second = rack.resource("second").add(Thing::new("second", first.output(|first| first.text)));
//!     Ok(second.output(|second| second.text))
//! }
//! ```
//!
//! # The tour
//!
//! - **A resource** is data: a struct with public fields. `scope.resource("name").add(…)` declares it and returns a
//!   [`Handle`]; `handle.output(|o| o.field)` is a value that is known once the resource is there.
//! - **A component** is a struct with one `declare`: a named group of resources. See [`Component`].
//! - **A provider** is one outside system and how to get into it; a provider that lives *inside* a resource, such as
//!   Kubernetes inside a Talos cluster, connects once that exists. See [`Provider`].
//! - **A secret** is a type, [`Secret`]: it cannot be printed, and never reaches the disk in clear.
//! - **An asset** is what a program is made with beside its source: a bundle of manifests, a chart, pinned by its digest
//!   and fetched once. See [`Stack::asset`], [`kube::ManifestBundle`] and [`kube::HelmChart`].
//! - **A claim** is something occupied exclusively, such as an address. Two claims that overlap are a problem of the
//!   plan, with both source lines. See [`Claim`].
//! - **The plan** is complete before anything happens; **the run** may be killed anywhere and is simply run again.
//! - **An environment** is a stack with a configuration file of its own, of the same program; what one was applied as,
//!   another takes over. See [`Lab::environments`] and [`Stack::promoted_from`].
//! - **A maintenance window** holds what interrupts until it opens, and lets the rest through. See
//!   [`Stack::maintenance`].
//! - **A rehearsal** runs the unchanged program on a simulated lab, in seconds. See [`sim`].
//! - **A test** snapshots the plan of a whole lab in three lines. See [`testing`].
//!
//! # Features
//!
//! All are on by default; a program that needs less builds less: `talos`, `proxmox`, `kube`, `addons`, `plex`,
//! `sim`.

pub use lab_cli::{Environments, Lab, Machine, Surroundings, configuration};
pub use lab_core::*;

#[cfg(feature = "addons")]
pub use lab_addons as addons;
#[cfg(feature = "kube")]
pub use lab_kube as kube;
#[cfg(feature = "plex")]
pub use lab_plex as plex;
#[cfg(feature = "proxmox")]
pub use lab_proxmox as proxmox;
#[cfg(feature = "sim")]
pub use lab_sim as sim;
#[cfg(feature = "talos")]
pub use lab_talos as talos;

/// What nearly every program needs.
pub mod prelude {
    pub use crate::Lab;
    pub use lab_core::{
        Component, Handle, Input, Output, Placed, ProgramError, Range, Scope, Secret, Stack, Subnet, Windows,
    };
    pub use serde::{Deserialize, Serialize};
    pub use std::process::ExitCode;
}
