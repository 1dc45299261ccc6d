//! Finding records.

use super::log::{Index, LogError, damaged, logs, records_from, stored, stored_record};
use super::record::{AuditAction, AuditClass, AuditDecision, Record};
use crate::hlc::Hlc;
use crate::id::{CollectionName, PrincipalId, SessionId};
use crate::store::{Keyspace, Order, Read, Span, envelope};

/// Records looked at in one call, so that a filter that matches little stays bounded: some tens of milliseconds.
pub const LOOKED_AT_MAX: usize = 20_000;

/// Which records are wanted; all that is given must hold.
#[derive(Clone, Debug, Default)]
pub struct LogQuery {
    /// Who.
    pub principal: Option<PrincipalId>,
    /// Under which name somebody tried who is no principal; an alternative to `principal`.
    pub name: Option<String>,
    /// In which collection.
    pub collection: Option<CollectionName>,
    /// What.
    pub action: Option<AuditAction>,
    /// What kind of thing.
    pub class: Option<AuditClass>,
    /// How it ended.
    pub decision: Option<AuditDecision>,
    /// Recorded at or after this, in milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// Recorded before this.
    pub until_ms: Option<u64>,
}

/// A place in the order of records.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LogCursor {
    /// Time of the record there.
    pub hlc: Hlc,
    /// The log.
    pub ordinal: u32,
    /// Its place in it.
    pub index: u64,
}

/// A record that was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its place.
    pub at: LogCursor,
    /// Its log.
    pub incarnation: SessionId,
    /// The record.
    pub record: Record,
}

/// What was found, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogPage {
    /// The records.
    pub items: Vec<Found>,
    /// Up to where was looked, if there may be more behind it.
    pub reached: Option<LogCursor>,
}

impl LogQuery {
    fn matches(&self, record: &Record) -> bool {
        let event = &record.event;
        let who = match (&self.principal, &self.name) {
            (None, None) => true,
            (principal, name) => {
                (principal.is_some() && event.principal == *principal)
                    || (event.principal.is_none() && name.as_ref().is_some_and(|name| event.name == *name))
            }
        };
        who && (self.collection.is_none() || event.collection == self.collection)
            && self.action.is_none_or(|action| event.action == action)
            && self.class.is_none_or(|class| event.action.class() == class)
            && self.decision.is_none_or(|decision| event.decision == decision)
            && self.since_ms.is_none_or(|since| record.hlc.millis() >= since)
    }

    /// Returns the index by which the fewest records have to be looked at.
    fn index(&self) -> Option<Index> {
        let decision = self.decision.filter(|decision| *decision != AuditDecision::Allowed).map(Index::Decision);
        let principal = self.principal.filter(|_| self.name.is_none()).map(Index::Principal);
        principal.or_else(|| self.collection.clone().map(Index::Collection)).or(decision)
    }
}

/// Returns the records that match, oldest first, behind a place: until there are `limit`, or 20,000 were looked at.
///
/// # Errors
/// [`LogError`] if the store cannot be read or a record is damaged.
pub fn search(read: &dyn Read, query: &LogQuery, after: Option<LogCursor>, limit: usize) -> Result<LogPage, LogError> {
    let logs = logs(read)?;
    let incarnation = |ordinal: u32| {
        let found = logs.iter().find(|(other, _)| *other == ordinal);
        found.map(|(_, state)| state.incarnation).ok_or_else(|| damaged("an index names an unknown log"))
    };
    let until = query.until_ms.map_or(u64::MAX, |until| Hlc::new(until, 0).raw());
    let mut page = LogPage::default();
    let mut looked_at = 0;
    let mut look = |at: LogCursor, record: Record| -> Result<bool, LogError> {
        page.reached = Some(at);
        if query.matches(&record) {
            page.items.push(Found { at, incarnation: incarnation(at.ordinal)?, record });
        }
        looked_at += 1;
        Ok(page.items.len() < limit && looked_at < LOOKED_AT_MAX)
    };
    let start = Hlc::new(query.since_ms.unwrap_or_default(), 0);
    match query.index() {
        Some(index) => {
            let mut span = Span::prefix(index.prefix()).starting_at(&index.key(start, 0, 0));
            if let Some(LogCursor { hlc, ordinal, index: at }) = after {
                span = span.after(&index.key(hlc, ordinal, at));
            }
            for entry in read.scan(Keyspace::Audit, &span, Order::Ascending) {
                let (key, _) = entry?;
                let (hlc, ordinal, at) = index.place(&key).ok_or_else(|| damaged("key of an index"))?;
                if hlc.raw() >= until {
                    break;
                }
                // One that is being dropped.
                let Some((_, bytes)) = stored_record(read, ordinal, at)? else { continue };
                let record = Record::decode(&bytes).map_err(damaged)?;
                if !look(LogCursor { hlc, ordinal, index: at }, record)? {
                    return Ok(page);
                }
            }
        }
        None => {
            let first = after.map_or(0, |after| after.ordinal);
            for (ordinal, state) in logs.iter().filter(|(ordinal, state)| *ordinal >= first && state.size > state.first)
            {
                let from = match after.filter(|after| after.ordinal == *ordinal) {
                    Some(after) => after.index + 1,
                    None => first_at(read, *ordinal, state.first, state.size, start)?,
                };
                for entry in read.scan(Keyspace::Audit, &records_from(*ordinal, from), Order::Ascending) {
                    let (key, value) = entry?;
                    let at = key.last_chunk::<8>().map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes));
                    let bytes = envelope::open(value).ok().as_ref().and_then(stored).map(|(_, bytes)| bytes);
                    let record = Record::decode(&bytes.ok_or_else(|| damaged("a record"))?).map_err(damaged)?;
                    if record.hlc.raw() >= until {
                        break;
                    }
                    if !look(LogCursor { hlc: record.hlc, ordinal: *ordinal, index: at }, record)? {
                        return Ok(page);
                    }
                }
            }
        }
    }
    page.reached = None;
    Ok(page)
}

/// Returns the first record of a log that is not before a time, by halves: times ascend.
fn first_at(read: &dyn Read, ordinal: u32, first: u64, size: u64, start: Hlc) -> Result<u64, LogError> {
    let (mut low, mut high) = (first, size);
    while low < high {
        let middle = low + (high - low) / 2;
        let Some((_, bytes)) = stored_record(read, ordinal, middle)? else { return Ok(low) };
        if Record::decode(&bytes).map_err(damaged)?.hlc < start {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}
