//! Pure data: what a program declares, what a provider promises, what the state holds.
//!
//! Nothing here does I/O, reads a clock or draws randomness.

mod asset;
mod claim;
mod declare;
mod digest;
mod erased;
mod event;
mod input;
mod link;
mod net;
mod options;
mod output;
mod placed;
mod provider;
mod record;
mod rolling;
mod scope;
mod secret;
mod state;
mod tree;
mod urn;
mod value;
pub(crate) mod value_diff;
mod window;
mod word;

pub use asset::{Argument, Asset, Call, NoSupply, Ran, RunError, Supply};
pub use claim::{Claim, Hold, Lock};
pub use declare::{Declared, Edge, EdgeKind, Node, NodeKind, Place, ProviderNode};
pub use digest::Digest;
pub use erased::{AnyClient, ErasedOp, ErasedProvider, ErasedQuery, ErasedType, Nature, Types, Vocabulary};
pub use event::{Ended, Event, Illegal};
pub use input::Input;
pub use link::{Clock, Link, Route};
pub use net::{Host, Range, Subnet};
pub use options::Options;
pub use output::{Output, join};
pub use placed::{PLACED, Placed};
pub use provider::{
    Change, Class, Cursor, Data, Effect, Error, Found, Id, Impact, Made, Op, Order, Owner, Provider, Query, Realm,
    Resource, Result, Step, Warnings, Why,
};
pub use record::{Begun, Deed, Made as MadeRecord, Mark, Open, Record, Spec, Status};
pub use rolling::{Act, Gate, Group, Rolling, When};
pub use scope::{
    Component, Declare, DeclareComponent, Handle, Neighbour, Neighbours, Prerequisite, ProgramError, Scope, Stack,
};
pub use secret::Secret;
pub use state::{Condemned, ProviderRecord, Run, State, connection};
pub use tree::Tree;
pub use urn::{Path, Urn};
pub use value::{Compute, Expression, Lookup, Unresolved, Vault, canonical, digest, markers, redact, reveal};

pub use window::{Opening, Window, Windows};
pub use word::Word;

pub(crate) use declare::Index;
pub(crate) use erased::panic_text;
pub(crate) use value::{
    Marked, at as value_at, digest_of_bytes, fill, hex, map_secrets, overlay, put as put_value, remove as remove_value,
    same_secret, seal_live, secret_marker, secret_value, secrets as secret_fingerprints, secrets_in, unknowns,
};
