//! Kubernetes for `lab`: any typed object as desired state, by server-side apply.
//!
//! The pure half: what an object is called ([`Key`]), what is sent ([`body`], [`Object`]), which kinds exist
//! ([`kinds`]), what a change means ([`immutable`], [`impact`]), when an object is ready ([`readiness`]), what a
//! request looks like ([`request`]) and what a refusal means ([`errors`]). The effects: [`Client`]. The custom kinds
//! that the add-ons use stand in [`crds`].
//!
//! Deliberately not here: kube and k8s-openapi types in any signature. Both break with every Kubernetes release, so
//! an object is anything that serialises to one.

pub mod body;
pub mod client;
pub mod crds;
pub mod errors;
pub mod immutable;
pub mod impact;
mod json;
pub mod key;
pub mod kinds;
pub mod object;
mod quantity;
pub mod readiness;
pub mod request;

pub use body::BodyError;
pub use client::Client;
pub use errors::{Class, Effect, Error, Problem};
pub use immutable::Verdict;
pub use key::{Identity, Key, KeyError};
pub use kinds::Kind;
pub use object::Object;
pub use readiness::{Readiness, Related};
