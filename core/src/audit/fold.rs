//! Events on their way to the log, floods of them folded.
//!
//! The first of its kind becomes a record at once. What is alike within [`WINDOW_MS`] after it becomes one more record, with a count and
//! the first and last time, when the window ends. Where there are too many kinds, their details are given up and only how
//! many there were of an action and a decision is kept; [`Folding::lost`] counts them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::record::{AuditAction, AuditClass, AuditDecision, AuditMethod, Event, Record};
use crate::figure::Figure;
use crate::id::DocId;
use crate::limits::AUDIT_DOCUMENTS_MAX;

/// For so long what is alike is folded, in milliseconds.
pub const WINDOW_MS: u64 = 10_000;
/// Kinds of events that are told apart within a window: about four hundred records a second if it goes on.
pub const KINDS_MAX: usize = 4_096;
/// Of these, kinds of events of nobody in particular: whoever reaches the port can make as many of those as he likes.
pub const STRANGER_KINDS_MAX: usize = 256;
/// Bytes of the events that are kept, roughly.
pub const BYTES_MAX: usize = 4 << 20;

/// Events that have happened and are not in the log yet. Bounded; never blocks.
#[derive(Debug, Default)]
pub struct Folding {
    ready: Vec<Record>,
    windows: BTreeMap<Event, Window>,
    strangers: usize,
    coarse: BTreeMap<(AuditAction, AuditDecision), (u64, Record)>,
    bytes: usize,
    lost: u64,
}

#[derive(Debug)]
struct Window {
    /// When it began, by the monotonic clock.
    began_ms: u64,
    bytes: usize,
    /// What came after the first, if anything did.
    more: Option<Record>,
}

/// Returns what makes events alike. Of reads the documents do not: they are gathered.
fn kind(event: &Event) -> Event {
    let mut kind = event.clone();
    kind.request.clear();
    if kind.action.class() == AuditClass::Read {
        kind.documents.clear();
    }
    kind
}

fn gather(documents: &mut Vec<DocId>, more: Vec<DocId>) {
    for document in more {
        if documents.len() < AUDIT_DOCUMENTS_MAX && !documents.contains(&document) {
            documents.push(document);
        }
    }
}

impl Folding {
    /// Takes an event. `now_ms` is monotonic, `wall_ms` the time of day.
    pub fn push(&mut self, event: Event, now_ms: u64, wall_ms: u64) {
        let event = event.bounded();
        let kind = kind(&event);
        let bytes = event.bytes();
        if let Some(window) = self.windows.get_mut(&kind) {
            // A window whose end nobody has taken yet still folds: the next `take` ends it.
            match &mut window.more {
                Some(more) => {
                    more.count += 1;
                    more.last_ms = wall_ms;
                    let before = more.event.bytes();
                    if self.bytes < BYTES_MAX {
                        gather(&mut more.event.documents, event.documents);
                    }
                    let grown = more.event.bytes() - before;
                    window.bytes += grown;
                    self.bytes += grown;
                }
                None => {
                    window.more = Some(Record::new(event, wall_ms, wall_ms, 1));
                    window.bytes += bytes;
                    self.bytes += bytes;
                }
            }
            return;
        }
        let is_stranger = event.principal.is_none() && event.method != AuditMethod::Node;
        let has_room = self.windows.len() < KINDS_MAX
            && self.bytes + 2 * bytes < BYTES_MAX
            && !(is_stranger && self.strangers >= STRANGER_KINDS_MAX);
        if has_room {
            self.strangers += usize::from(is_stranger);
            self.bytes += 2 * bytes;
            self.windows.insert(kind, Window { began_ms: now_ms, bytes, more: None });
            self.ready.push(Record::new(event, wall_ms, wall_ms, 1));
            return;
        }
        self.lost += 1;
        match self.coarse.entry((event.action, event.decision)) {
            Entry::Occupied(mut coarse) => {
                let (_, record) = coarse.get_mut();
                record.count += 1;
                record.last_ms = wall_ms;
            }
            Entry::Vacant(coarse) => {
                let reason = "too many events at once: only their number was kept";
                let of = Event::new(AuditAction::Overflow, event.decision).about(event.action.name()).because(reason);
                coarse.insert((now_ms, Record::new(of, wall_ms, wall_ms, 1)));
            }
        }
    }

    /// Takes what is to be written now: what happened for the first time, and the folded rest of windows that have ended. With
    /// `all`, also of those that have not.
    pub fn take(&mut self, now_ms: u64, all: bool) -> Vec<Record> {
        let mut records = std::mem::take(&mut self.ready);
        self.bytes = self.bytes.saturating_sub(records.iter().map(|record| record.event.bytes()).sum());
        let is_over = |began_ms: u64| all || now_ms.saturating_sub(began_ms) >= WINDOW_MS;
        for (kind, window) in self.windows.extract_if(.., |_, window| is_over(window.began_ms)) {
            self.bytes = self.bytes.saturating_sub(window.bytes);
            self.strangers -= usize::from(kind.principal.is_none() && kind.method != AuditMethod::Node);
            records.extend(window.more);
        }
        let coarse = self.coarse.extract_if(.., |_, (began_ms, _)| is_over(*began_ms));
        records.extend(coarse.map(|(_, (_, record))| record));
        records.sort_by_key(|record| record.last_ms);
        records
    }

    /// Returns how many events lost their details.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Returns how much is kept.
    #[must_use]
    pub fn figures(&self) -> [Figure; 2] {
        [
            Figure::new("audit_kinds", self.windows.len(), KINDS_MAX),
            // One event may come over the bound by gathering what it read.
            Figure::new("audit_bytes", self.bytes, 2 * BYTES_MAX),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PrincipalId;

    fn denied(principal: u8, document: &str) -> Event {
        Event::new(AuditAction::Update, AuditDecision::Denied)
            .by(Some(PrincipalId::new([principal; 32])), AuditMethod::Token, None)
            .on(Some("notes".parse().unwrap()), Some(document.parse().unwrap()))
    }

    #[test]
    fn what_is_alike_becomes_one_record_more() {
        let mut folding = Folding::default();
        for n in 0..1_000 {
            folding.push(denied(1, "a"), n, 5_000 + n);
            folding.push(denied(2, "a"), n, 5_000 + n);
        }
        let first = folding.take(999, false);
        assert_eq!(first.iter().map(|record| record.count).collect::<Vec<_>>(), [1, 1]);
        assert!(folding.take(WINDOW_MS - 1, false).is_empty());
        let rest = folding.take(WINDOW_MS, false);
        assert_eq!(rest.len(), 2);
        for record in rest {
            assert_eq!((record.count, record.first_ms, record.last_ms), (999, 5_001, 5_999));
        }
        assert!(folding.take(3 * WINDOW_MS, false).is_empty());
        folding.push(denied(1, "a"), 3 * WINDOW_MS, 1);
        assert_eq!(folding.take(3 * WINDOW_MS, false).len(), 1, "a new window begins with a record");
    }

    #[test]
    fn reads_gather_documents_and_writes_do_not() {
        let mut folding = Folding::default();
        for n in 0..300 {
            let mut read = denied(1, &format!("doc-{n}"));
            read.action = AuditAction::Read;
            folding.push(read, 0, 0);
        }
        folding.push(denied(1, "a"), 0, 0);
        folding.push(denied(1, "b"), 0, 0);
        assert_eq!(folding.take(0, false).len(), 3);
        let rest = folding.take(0, true);
        assert_eq!(rest.len(), 1);
        assert_eq!((rest[0].count, rest[0].event.documents.len()), (299, AUDIT_DOCUMENTS_MAX));
    }

    #[test]
    fn a_flood_is_bounded_and_every_event_counted() {
        let mut folding = Folding::default();
        let events = 3 * KINDS_MAX as u64;
        for n in 0..events {
            folding.push(denied(1, &format!("doc-{n}")), 0, 0);
            let mut stranger = Event::new(AuditAction::Authenticate, AuditDecision::Denied);
            stranger.method = AuditMethod::None;
            stranger.source = format!("10.0.0.{n}");
            folding.push(stranger, 0, 0);
            assert!(folding.figures().iter().all(Figure::is_within), "{:?}", folding.figures());
        }
        let records = folding.take(0, true);
        assert!(records.len() <= KINDS_MAX + 2, "{}", records.len());
        assert_eq!(records.iter().map(|record| record.count).sum::<u64>(), 2 * events);
        let strangers = records.iter().filter(|record| record.event.method == AuditMethod::None).count();
        assert_eq!(strangers, STRANGER_KINDS_MAX);
        let overflown: u64 =
            records.iter().filter(|record| record.event.action == AuditAction::Overflow).map(|r| r.count).sum();
        assert_eq!(overflown, folding.lost());
        assert_eq!(folding.figures().map(|figure| figure.held), [0, 0]);
    }
}
