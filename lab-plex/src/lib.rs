//! Plex on Kubernetes as one component.
//!
//! [`Plex`] is one file that reads from top to bottom. The programs around it (Radarr and its kin) are not here yet.

pub mod plex;

pub use plex::{Plex, PlexHandle};
