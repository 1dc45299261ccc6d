//! How much a node takes: bounds on the documents that are stored, in all and of each collection, and on those that each principal
//! makes in a day.
//!
//! A quota is a limit of the node that is asked, counted from what it holds. What other nodes have taken is never refused for it: replicas
//! that leave out different ops would never agree again. So the bound on a cluster is that of each of its nodes, and what nodes that are
//! apart take at once adds up. Counts are those that the replica keeps with each commit and that `repair` makes again. What a principal
//! makes in a day is kept in memory: a restart gives it a whole day's again.

use std::sync::{Mutex, PoisonError};

use folkmoot_core::id::{CollectionName, PrincipalId};
use folkmoot_core::rate::{Buckets, Rate};

use super::Inner;
use super::convert::read_error;
use crate::api::{Edit, Error, ErrorCode, Result};

/// Principals whose use is remembered.
const PRINCIPALS_MAX: usize = 65_536;
const SECONDS_PER_DAY: f64 = 86_400.0;

/// Bounds on what is stored; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Documents in all.
    pub documents: u64,
    /// Bytes of their JSON text in all, without histories.
    pub bytes: u64,
    /// Documents of each collection.
    pub documents_per_collection: u64,
    /// Bytes of the JSON text of each collection.
    pub bytes_per_collection: u64,
    /// Documents that each principal makes in a day, at once or one by one. Not for the owner.
    pub documents_per_principal_day: u32,
}

impl Quotas {
    fn bound_what_is_stored(&self) -> bool {
        let Self { documents, bytes, documents_per_collection, bytes_per_collection, documents_per_principal_day: _ } =
            *self;
        [documents, bytes, documents_per_collection, bytes_per_collection].into_iter().any(|limit| limit > 0)
    }
}

/// What each principal may still make today.
pub(super) struct Made(Mutex<Buckets<PrincipalId>>);

impl Made {
    pub(super) fn new(quotas: &Quotas) -> Self {
        let burst = quotas.documents_per_principal_day;
        let rate = Rate { burst, per_second: f64::from(burst) / SECONDS_PER_DAY };
        Self(Mutex::new(Buckets::new(rate, PRINCIPALS_MAX)))
    }
}

/// Documents and bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Amount {
    documents: u64,
    bytes: u64,
}

impl Amount {
    fn add(&mut self, other: Self) {
        self.documents = self.documents.saturating_add(other.documents);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// Who writes in one request, and what has been found room for.
pub(super) struct Room {
    writer: Option<PrincipalId>,
    taken: Amount,
}

impl Room {
    /// Begins a request of a principal, or of the owner.
    pub(super) fn of(writer: Option<PrincipalId>) -> Self {
        Self { writer, taken: Amount::default() }
    }
}

impl Inner {
    /// Checks that there is room for a document that an edit would make. Edits of documents that exist, and deletes, are not bounded so.
    /// Requests that are under way at once do not count each other.
    ///
    /// # Errors
    /// [`ErrorCode::QuotaExceeded`]; [`ErrorCode::TooManyRequests`] if the writer has made as many as it may in a day.
    pub(super) fn demand_room(&self, collection: &CollectionName, edit: &Edit, room: &mut Room) -> Result<()> {
        let quotas = self.config.quotas;
        let (id, json) = match edit {
            _ if quotas == Quotas::default() => return Ok(()),
            Edit::Create { id: Some(id), json } | Edit::Put { id, json } => (id, json),
            Edit::Create { id: None, .. } | Edit::Patch { .. } | Edit::Delete { .. } => return Ok(()),
        };
        if self.get(collection, id).is_ok() {
            return Ok(());
        }
        if quotas.bound_what_is_stored() {
            let new = Amount { documents: 1, bytes: json.len() as u64 };
            self.demand_space(&quotas, collection, new, room.taken)?;
            room.taken.add(new);
        }
        match room.writer {
            Some(writer) if quotas.documents_per_principal_day > 0 => self.demand_turn(&quotas, writer),
            Some(_) | None => Ok(()),
        }
    }

    fn demand_space(&self, quotas: &Quotas, collection: &CollectionName, new: Amount, taken: Amount) -> Result<()> {
        let (mut all, mut own) = (taken, taken);
        for shard in self.reader.shards().map_err(read_error)? {
            if shard.shard.is_control() {
                continue;
            }
            let held = Amount { documents: shard.documents, bytes: shard.bytes };
            all.add(held);
            if shard.shard.collection == *collection {
                own.add(held);
            }
        }
        let whole = format!("collection {collection}");
        for (what, place, used, more, limit) in [
            ("documents", "the node", all.documents, new.documents, quotas.documents),
            ("bytes", "the node", all.bytes, new.bytes, quotas.bytes),
            ("documents", whole.as_str(), own.documents, new.documents, quotas.documents_per_collection),
            ("bytes", whole.as_str(), own.bytes, new.bytes, quotas.bytes_per_collection),
        ] {
            if limit > 0 && used.saturating_add(more) > limit {
                metrics::counter!("folkmoot_quota_refused_total", "what" => what).increment(1);
                let detail = format!("{place} holds {used} {what} of {limit} at most, and this is {more} more");
                return Err(Error::new(ErrorCode::QuotaExceeded, detail)
                    .hint("delete documents, or raise the limit in the node's configuration (`limits.…`)"));
            }
        }
        Ok(())
    }

    fn demand_turn(&self, quotas: &Quotas, writer: PrincipalId) -> Result<()> {
        let now = std::time::Instant::now();
        let mut made = self.made.0.lock().unwrap_or_else(PoisonError::into_inner);
        made.take_many(writer, 1.0, now).map_err(|wait| {
            metrics::counter!("folkmoot_quota_refused_total", "what" => "a day's documents").increment(1);
            let limit = quotas.documents_per_principal_day;
            Error::new(ErrorCode::TooManyRequests, format!("more than {limit} new documents a day")).retry_after(wait)
        })
    }
}
