//! Documents whose time is over.
//!
//! A collection's settings name a field that holds a time, and how long after it a document is over. From then on it is *hidden*: readers
//! find it as little as a deleted one, and who writes to it makes it anew. That is asked of the document as it is and of the reader's
//! clock, at each read, and takes effect at once on every node, whichever way the clocks of others go.
//!
//! *Deleting* it is housekeeping, in small steps: by the node with the least key of those that are connected, or by the next one if it
//! is not done some time later. Such a delete is one like any other: it covers what the node had seen. An edit that was made meanwhile
//! elsewhere brings the document back, and it is shown if the edit moved its time, else it is still over.
//!
//! Invariant: no document that is over is shown because somebody wrote to it without moving its time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::read::{ReadError, view_record};
use super::types::{DocWrite, Precondition, WriteItem, WriteLimits, WriteRequest};
use super::{Now, Replica};
use crate::document::json::{self, Value, Wanted};
use crate::id::{AuthorKey, CollectionName, DocId};
use crate::op::{Collection, Expires};
use crate::store::keys::{DocKey, Key as _};
use crate::store::{Keyspace, Order};

/// How often documents are looked at.
const STEP_INTERVAL_MS: u64 = 1_000;
/// Documents looked at in one step, and about how many bytes of them.
const STEP_DOCUMENTS_MAX: usize = 2_000;
const STEP_BYTES_MAX: usize = 2 << 20;
/// Documents deleted in one step.
const STEP_DELETES_MAX: usize = 64;
/// How much longer each node waits than the one before it.
const TURN_MS: u64 = 30_000;
/// When this node may not delete.
const AGAIN_MS: u64 = 60_000;

/// When documents of a collection are over.
#[derive(Debug)]
struct Rule {
    steps: Vec<String>,
    wanted: Wanted,
    after_ms: i64,
}

impl Rule {
    fn new(expires: &Expires) -> Self {
        let steps = expires.field.steps().to_vec();
        let mut wanted = Wanted::default();
        wanted.add(&steps);
        let after_ms = i64::from(expires.after_s).saturating_mul(1_000);
        Self { steps, wanted, after_ms }
    }

    /// Returns when a document is over, in milliseconds since 1970; none if it never is.
    fn end(&self, json: &[u8]) -> Option<i64> {
        let value = json::extract(json, &self.wanted).ok()?;
        let mut at = &value;
        for step in &self.steps {
            at = at.get(step)?;
        }
        match at {
            Value::String(text) => Some(json::timestamp_from_text(text)?.saturating_add(self.after_ms)),
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Uint(_)
            | Value::Float(_)
            | Value::List(_)
            | Value::Map(_) => None,
        }
    }
}

/// What replica and readers share: the rules of collections, and the time. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Expiries(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    rules: RwLock<BTreeMap<CollectionName, Arc<Rule>>>,
    now_ms: AtomicU64,
}

/// What of one collection is over at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Over {
    rule: Option<Arc<Rule>>,
    now_ms: u64,
}

impl Over {
    /// Whether documents of the collection are ever over.
    pub(super) const fn is_ever(&self) -> bool {
        self.rule.is_some()
    }

    /// Whether a document is over.
    pub(super) fn hides(&self, json: &[u8]) -> bool {
        self.is_over_for(json, 0)
    }

    fn is_over_for(&self, json: &[u8], ms: u64) -> bool {
        let end = self.rule.as_ref().and_then(|rule| rule.end(json));
        end.is_some_and(|end| i64::try_from(self.now_ms.saturating_sub(ms)).is_ok_and(|now| now >= end))
    }
}

impl Expiries {
    /// Returns what of a collection is over now.
    pub(super) fn of(&self, collection: &CollectionName) -> Over {
        let rule = self.0.rules.read().unwrap_or_else(PoisonError::into_inner).get(collection).cloned();
        Over { rule, now_ms: self.0.now_ms.load(Ordering::Relaxed) }
    }

    pub(super) fn set_now(&self, now: Now) {
        self.0.now_ms.store(now.wall_ms, Ordering::Relaxed);
    }

    fn set_rules<'a>(&self, settings: impl Iterator<Item = &'a Collection>) {
        let rules = settings
            .filter(|settings| !settings.dropped)
            .filter_map(|settings| Some((settings.name.clone(), Arc::new(Rule::new(settings.expires.as_ref()?)))));
        let rules = rules.collect();
        *self.0.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// Returns the first collection behind one, or the first of all.
    fn next(&self, after: Option<&CollectionName>) -> Option<CollectionName> {
        let rules = self.0.rules.read().unwrap_or_else(PoisonError::into_inner);
        let behind = after.and_then(|after| rules.keys().find(|name| *name > after));
        behind.or_else(|| rules.keys().next()).cloned()
    }

    fn has(&self, collection: &CollectionName) -> bool {
        self.0.rules.read().unwrap_or_else(PoisonError::into_inner).contains_key(collection)
    }
}

/// How far the housekeeping is.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    at: Option<(CollectionName, Option<DocId>)>,
    pub(super) due_ms: u64,
}

impl Replica {
    /// Notices rules that were set, changed or removed.
    pub(super) fn follow_expiries(&mut self) {
        let settings: Vec<Collection> = self.authority.collections().into_iter().map(|known| known.config).collect();
        self.expiries.set_rules(settings.iter());
    }

    /// Deletes some documents that are over, if it is this node's turn.
    pub(super) fn sweep(&mut self, now: Now) {
        if now.monotonic_ms < self.sweep.due_ms || self.halted.is_some() {
            return;
        }
        self.sweep.due_ms = now.monotonic_ms.saturating_add(STEP_INTERVAL_MS);
        let at = self.sweep.at.take().filter(|(name, _)| self.expiries.has(name));
        let Some((name, reached)) = at.or_else(|| Some((self.expiries.next(None)?, None))) else { return };
        match self.over_in(&name, reached) {
            Ok((ids, reached)) => {
                let is_refused = ids.into_iter().any(|doc| self.delete_over(&name, doc).is_err());
                if is_refused {
                    self.sweep.due_ms = now.monotonic_ms.saturating_add(AGAIN_MS);
                }
                self.sweep.at = match reached {
                    Some(doc) => Some((name, Some(doc))),
                    None => self.expiries.next(Some(&name)).map(|next| (next, None)),
                };
            }
            Err(error) => self.halt(format!("look for documents of {name} whose time is over: {error}")),
        }
    }

    /// Returns documents whose time is over for so long that it is this node's turn, and the last one looked at if there are more.
    fn over_in(&self, name: &CollectionName, after: Option<DocId>) -> Result<(Vec<DocId>, Option<DocId>), ReadError> {
        let over = self.expiries.of(name);
        let wait = self.turn().saturating_mul(TURN_MS);
        let mut span = DocKey::collection(name);
        if let Some(doc) = after {
            span = span.after(&DocKey { collection: name.clone(), doc }.encode());
        }
        let (mut ids, mut looked_at, mut bytes) = (Vec::new(), 0, 0);
        for entry in self.store.scan(Keyspace::Views, &span, Order::Ascending) {
            let (key, value) = entry?;
            let key = DocKey::decode(&key).map_err(|error| super::read::damaged(Keyspace::Views, error))?;
            let view = view_record(value)?;
            looked_at += 1;
            bytes += view.json.len();
            if !view.deleted && over.is_over_for(&view.json, wait) {
                ids.push(key.doc.clone());
            }
            if looked_at >= STEP_DOCUMENTS_MAX || bytes >= STEP_BYTES_MAX || ids.len() >= STEP_DELETES_MAX {
                return Ok((ids, Some(key.doc)));
            }
        }
        Ok((ids, None))
    }

    /// Returns how many connected nodes come before this one.
    fn turn(&self) -> u64 {
        let me: AuthorKey = self.identity.node.author();
        self.engine.peers().iter().filter(|peer| peer.is_introduced && peer.peer < me).count() as u64
    }

    fn delete_over(&mut self, name: &CollectionName, doc: DocId) -> Result<(), super::WriteError> {
        let item = WriteItem { doc, write: DocWrite::Expire, precondition: Precondition::None, base: None, bytes: 0 };
        let request = WriteRequest {
            collection: name.clone(),
            principal: None,
            request: None,
            limits: WriteLimits::none(),
            items: vec![item],
        };
        match self.try_write(None, &request) {
            Ok(()) => {
                self.counters.documents_expired += 1;
                Ok(())
            }
            // It has gone, or come back.
            Err(super::WriteError::NotFound(_) | super::WriteError::Erased(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
