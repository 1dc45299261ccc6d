//! Messages of `/v1/live`: JSON objects, each a text frame. `docs/changes.md` describes them.

use folkmoot_core::id::{CollectionName, DocId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::Problem;

/// The subprotocol (RFC 6455) that a client may name.
pub const SUBPROTOCOL: &str = "folkmoot.live.v1";
/// Bytes of a message from a client: a thousand conditions with long values fit in most cases, and what does not is asked by REST.
pub const REQUEST_BYTES_MAX: usize = 64 << 10;
/// Bytes of a message to a client: a document of the largest size with its metadata.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Bytes of the name of a subscription.
pub const NAME_BYTES_MAX: usize = 64;

/// What a client says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum LiveRequest {
    /// Who it is, where that is not in a header: the first message then, and only then.
    Auth {
        /// A bearer token.
        token: String,
    },
    /// Follow the feed of changes.
    Changes {
        /// What the client calls this, 1 to 64 bytes.
        id: String,
        /// Of one collection; of all if not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        collection: Option<CollectionName>,
        /// Only ids that begin with this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prefix: Option<String>,
        /// Only documents that this means now, and those that are gone.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        selector: Value,
        /// A token to go on behind, or `now`; the beginning if not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<String>,
        /// Put each document as it is now beside its change.
        #[serde(default)]
        docs: bool,
    },
    /// Follow a query.
    Query {
        /// What the client calls this.
        id: String,
        /// The collection.
        collection: CollectionName,
        /// Which documents; all if not given.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        selector: Value,
        /// Which of them, where there are more than `limit`: the first by these places.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        sort: Vec<String>,
        /// What is shown of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fields: Option<Vec<String>>,
        /// At most so many, up to 1000; 100 if not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<usize>,
    },
    /// Follow a document.
    Document {
        /// What the client calls this.
        id: String,
        /// Its collection.
        collection: CollectionName,
        /// Its id.
        document: DocId,
    },
    /// Follow this no longer.
    End {
        /// What the client called it.
        id: String,
    },
}

/// What a node tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LiveKind {
    /// The client is known, and may subscribe.
    Welcome,
    /// A change of a feed, in `change` as in a page of the feed.
    Change,
    /// The query finds a document that it did not find before, in `document` as in an answer to the query.
    Added,
    /// A document that it finds is different; it is in `document`.
    Changed,
    /// It does not find a document any more, whose id is in `document`.
    Removed,
    /// What was told so far is what the query finds.
    Synced,
    /// A subscription is over, as was asked for or because of a `problem`.
    Ended,
    /// A message was not understood, or nothing more can be said: the connection is closed.
    Problem,
    /// What a later version may say besides.
    #[serde(other)]
    Other,
}

/// What a node says, as the client reads it.
#[derive(Debug, Deserialize)]
pub struct LiveAnswer {
    /// What it tells.
    #[serde(rename = "type")]
    pub kind: LiveKind,
    /// Of which subscription.
    #[serde(default)]
    pub id: Option<String>,
    /// A change.
    #[serde(default)]
    pub change: Option<Box<RawValue>>,
    /// A document, or its id.
    #[serde(default)]
    pub document: Option<Box<RawValue>>,
    /// What is wrong.
    #[serde(default)]
    pub problem: Option<Problem>,
}

/// What a node says, without what is spliced into it.
#[derive(Debug, Serialize)]
pub struct LiveHead<'a> {
    /// What it tells.
    #[serde(rename = "type")]
    pub kind: LiveKind,
    /// Of which subscription.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a str>,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}
