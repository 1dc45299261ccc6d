//! The SDK: an embedded node and a remote client behind one trait, [`Database`].
//!
//! An app writes against [`Database`] and decides at start whether it is a peer itself or talks to one. The server
//! is built on the same trait: whatever REST can do, an app can do. [`blocking`] has it for programs that are not async.

pub mod api;
pub mod blocking;
pub mod client;
pub mod node;
pub mod recovery;
pub mod wire;

pub use api::{
    Access, Audit, Authors, Database, Erasures, Error, ErrorCode, Histories, Live, Queries, Result, Sessions, Witnesses,
};
pub use bytes::Bytes;
pub use client::{Client, ClientBuilder};
pub use folkmoot_core::audit::Event;
pub use folkmoot_core::authority::Action;
pub use folkmoot_core::id::{AuthorKey, ChangeHash, ClusterId, CollectionName, DocId, OpId, ParseIdError, PrincipalId};
pub use folkmoot_core::op::{FieldPath, FieldPathError};
pub use node::{InitOptions, JoinOptions, KeySettings, Node, NodeConfig, Scoped};

/// The code in the documents is run too.
#[cfg(doctest)]
#[doc = include_str!("../../docs/howto.md")]
struct Howto;
