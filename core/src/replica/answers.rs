//! Answers that were given under idempotency keys are forgotten after a week.
//!
//! Only the answer, and only here: it is this node's own note, and no other replica knows of it. The transactions of a
//! request stay known as long as their ops are kept, since which of them counts is a function of the set of ops: who forgot
//! one would give a late second one effect where others do not. So a retry that comes after the week is still carried out
//! once; it is told what the document is then. What is forgotten for good is a request that changed nothing: repeated after
//! the week, it is a new one. Without this a client could fill the store with requests that leave no op.

use super::records::RequestRecord;
use super::{Now, Replica};
use crate::store::keys::{Key as _, RequestKey};
use crate::store::{Keyspace, Order, Span, envelope};

/// How long an answer is kept at least: far longer than any client retries.
pub(super) const ANSWER_KEPT_MS: u64 = 7 * 24 * 60 * 60 * 1_000;
/// Time from the start to the first search for old answers: a node that has just started has other work.
const FIRST_AFTER_MS: u64 = 15 * 60 * 1_000;
/// Time between two searches, each of which reads all records of requests. Answers are kept up to so much longer.
const INTERVAL_MS: u64 = 24 * 60 * 60 * 1_000;
/// Records of one step, a millisecond or so. Steps come several times a second.
pub(super) const STEP_ENTRIES: usize = 512;

/// When old answers are looked for, and how far that is.
pub(super) struct Answers {
    due_ms: u64,
    /// The last key read.
    after: Option<Vec<u8>>,
}

impl Answers {
    pub(super) const fn new(now: Now) -> Self {
        Self { due_ms: now.monotonic_ms.saturating_add(FIRST_AFTER_MS), after: None }
    }
}

impl RequestRecord {
    /// Returns whether it holds an answer that need not be kept. One from the far future was given while the clock was wrong.
    fn has_old_answer(&self, now: Now) -> bool {
        self.told.as_ref().is_some_and(|told| now.wall_ms.abs_diff(told.at_ms) > ANSWER_KEPT_MS)
    }
}

impl Replica {
    /// Looks for old answers, if it is time to, and forgets them.
    pub(super) fn forget_answers(&mut self, now: Now) {
        if self.halted.is_some() || now.monotonic_ms < self.answers.due_ms {
            return;
        }
        let span = match self.answers.after.take() {
            Some(key) => Span::all().after(&key),
            None => Span::all(),
        };
        let mut old = Vec::new();
        let mut last = None;
        let mut count = 0;
        for entry in self.store.scan(Keyspace::Requests, &span, Order::Ascending).take(STEP_ENTRIES) {
            let Ok((key, value)) = entry else { break };
            count += 1;
            // A damaged record is found, and told, by whoever needs it.
            let record = envelope::open(value).ok().and_then(|value| RequestRecord::decode(&value).ok());
            if record.is_some_and(|record| record.has_old_answer(now)) {
                old.extend(RequestKey::decode(&key));
            }
            last = Some(key.to_vec());
        }
        for key in old {
            // Something else may be on its way to the disk.
            if let Some(record) = self.request_record(&key.collection, key.request)
                && record.has_old_answer(now)
            {
                self.forget_answer(&key, record);
            }
        }
        if count == STEP_ENTRIES {
            self.answers.after = last;
        } else {
            self.answers.due_ms = now.monotonic_ms.saturating_add(INTERVAL_MS);
        }
    }

    pub(super) fn forget_answer(&mut self, key: &RequestKey, mut record: RequestRecord) {
        self.counters.answers_forgotten += 1;
        record.told = None;
        if record.seen.is_empty() {
            self.delete(Keyspace::Requests, key.encode());
        } else {
            self.put(Keyspace::Requests, key.encode(), &record.encode());
        }
    }
}
