//! Kubernetes for `lab`: any typed object as desired state, by server-side apply.
//!
//! A program declares a [`Kubernetes`] provider and adds any [`Object`] to it.
//!
//! The pure half: what an object is called ([`Key`]), what is sent ([`body`], [`Object`]), which kinds exist
//! ([`kinds`]), what a change means ([`immutable`], [`impact`]), when an object is ready ([`readiness`]), what a
//! request looks like ([`request`]) and what a refusal means ([`errors`]). The effects: [`Client`], and how it finds,
//! applies and deletes an object ([`lab_core::Resource`] for [`Object`]). The custom kinds that the add-ons use stand in
//! [`crds`]. Manifests and charts of somebody else's become objects by [`ManifestBundle`] and [`HelmChart`].
//!
//! Deliberately not here: kube and k8s-openapi types in any signature. Both break with every Kubernetes release, so
//! an object is anything that serialises to one.

mod adopt;
pub mod body;
pub mod bundle;
mod claims;
pub mod client;
pub mod crds;
pub mod errors;
mod existing;
mod explain;
pub mod immutable;
pub mod impact;
mod json;
pub mod key;
pub mod kinds;
mod live;
mod mirror;
pub mod object;
mod outputs;
mod probe;
mod provider;
mod quantity;
pub mod readiness;
pub mod request;
mod resource;
mod watch;

pub use body::BodyError;
pub use bundle::{Bundle, Chart, HelmChart, ManifestBundle};
pub use client::Client;
pub use errors::{Class, Effect, Error, Problem};
pub use existing::Existing;
pub use immutable::Verdict;
pub use key::{Identity, Key, KeyError};
pub use kinds::Kind;
pub use object::{Object, Settable, config_map, namespace, secret};
pub use outputs::ObjectOutputs;
pub use provider::{Kubernetes, Which};
pub use readiness::{Readiness, Related};
pub use resource::FIRST;
