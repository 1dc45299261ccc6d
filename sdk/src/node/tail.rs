//! The end of the feed, in memory while somebody waits there: what a commit brings is read once for all who do.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use folkmoot_core::replica::{DocKey, FeedEntry, FeedPage, ReadError};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Inner;
use crate::api::error_chain;

/// Changes kept, and bytes of the documents in them.
const ENTRIES_MAX: usize = 4_096;
const BYTES_MAX: usize = 8 << 20;
/// Changes read at once.
const READ_MAX: usize = 1_024;
/// Whoever has waited comes again within this time, or has gone.
const LINGER: Duration = Duration::from_secs(1);
/// After an error.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);

/// The end of the feed.
pub(super) struct Tail {
    state: RwLock<State>,
    waiting: AtomicUsize,
    moved: watch::Sender<u64>,
}

struct State {
    /// Behind this place and up to the other one, all changes are here.
    begin: u64,
    end: u64,
    /// Whether there was no more at the moment at which the last was read.
    is_end: bool,
    entries: BTreeMap<u64, Arc<FeedEntry>>,
    /// Where each document stands: as in the feed, each is here once.
    places: BTreeMap<DocKey, u64>,
    bytes: usize,
    /// When somebody waited last.
    waited: Instant,
}

/// Somebody who waits.
pub(super) struct Waiter<'a>(&'a Tail);

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Tail {
    pub(super) fn new(end: u64) -> Self {
        let state = State {
            begin: end,
            end,
            is_end: true,
            entries: BTreeMap::new(),
            places: BTreeMap::new(),
            bytes: 0,
            waited: Instant::now(),
        };
        Self { state: RwLock::new(state), waiting: AtomicUsize::new(0), moved: watch::Sender::new(end) }
    }

    /// Says that somebody waits for what comes, for as long as the answer is kept.
    pub(super) fn wait(&self) -> Waiter<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiter(self)
    }

    /// Returns how many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Tells the end of the feed, when what is before it can be read here or in the store.
    pub(super) fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    /// Returns a part of the feed; none if it has to be read from the store, because it is not here, or because it has a document that `is_fit` says is not to be
    /// taken from here.
    pub(super) fn page(
        &self,
        after: u64,
        limit: usize,
        is_fit: &dyn Fn(&FeedEntry) -> bool,
        passes: &dyn Fn(&FeedEntry) -> Result<bool, ReadError>,
    ) -> Option<Result<FeedPage, ReadError>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        if after < state.begin || after > state.end || !state.is_end {
            return None;
        }
        let mut page = FeedPage { entries: Vec::new(), reached: after, is_end: true };
        for (place, entry) in state.entries.range((Bound::Excluded(after), Bound::Unbounded)) {
            if page.entries.len() >= limit {
                page.is_end = false;
                break;
            }
            if !is_fit(entry) {
                return None;
            }
            page.reached = *place;
            match passes(entry) {
                Ok(true) => page.entries.push(FeedEntry::clone(entry)),
                Ok(false) => {}
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(page))
    }

    /// Whether what comes is to be read for somebody.
    fn is_wanted(&self) -> bool {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if self.waiting() > 0 {
            state.waited = Instant::now();
        }
        state.waited.elapsed() < LINGER
    }

    fn end(&self) -> u64 {
        self.state.read().unwrap_or_else(PoisonError::into_inner).end
    }

    /// Takes in what was read behind the end.
    fn append(&self, page: FeedPage) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        for entry in page.entries {
            state.bytes += entry.view.json.len();
            if let Some(before) = state.places.insert(entry.key.clone(), entry.seq)
                && let Some(gone) = state.entries.remove(&before)
            {
                state.bytes = state.bytes.saturating_sub(gone.view.json.len());
            }
            state.entries.insert(entry.seq, Arc::new(entry));
        }
        state.end = state.end.max(page.reached);
        state.is_end = page.is_end;
        while state.entries.len() > ENTRIES_MAX || state.bytes > BYTES_MAX {
            let Some((place, gone)) = state.entries.pop_first() else { break };
            state.places.remove(&gone.key);
            state.bytes = state.bytes.saturating_sub(gone.view.json.len());
            state.begin = place;
        }
    }

    /// Keeps nothing any more, as nobody waits.
    fn forget(&self, end: u64) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let waited = state.waited;
        *state = State {
            begin: end,
            end,
            is_end: true,
            entries: BTreeMap::new(),
            places: BTreeMap::new(),
            bytes: 0,
            waited,
        };
    }
}

impl Inner {
    /// Keeps the end of the feed for ever; run it as a task.
    pub(super) async fn keep_tail(self: Arc<Self>) {
        let mut feed = self.core.feed.clone();
        while feed.changed().await.is_ok() {
            let end = *feed.borrow_and_update();
            if self.tail.is_wanted() {
                self.read_tail().await;
            } else {
                self.tail.forget(end);
            }
            self.tail.moved.send_replace(end);
        }
    }

    /// Reads what is behind the end until there is no more.
    async fn read_tail(&self) {
        loop {
            let after = self.tail.end();
            let read = self.read_on_thread(move |reader| reader.feed(after, None, "", READ_MAX, &|_, _| Ok(true)));
            match read.await.and_then(|page| page.map_err(super::convert::read_error)) {
                Ok(page) => {
                    let is_end = page.is_end;
                    self.tail.append(page);
                    if is_end {
                        return;
                    }
                }
                Err(error) => {
                    // Whoever waits reads the store, and is told what is wrong with it.
                    tracing::error!(error = error_chain(&error), "the end of the feed cannot be read");
                    self.tail.forget(after);
                    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use folkmoot_core::hlc::Hlc;
    use folkmoot_core::replica::View;

    use super::*;

    fn entry(seq: u64, id: &str, bytes: usize) -> FeedEntry {
        let view = View {
            doc: id.parse().unwrap(),
            heads: Vec::new(),
            deleted: false,
            erased: false,
            modified: Hlc::ZERO,
            changes: 1,
            feed: seq,
            json: Bytes::from(vec![b' '; bytes]),
        };
        FeedEntry { seq, key: DocKey { collection: "c".parse().unwrap(), doc: id.parse().unwrap() }, view }
    }

    fn told(tail: &Tail, after: u64, limit: usize) -> Option<(Vec<String>, u64, bool)> {
        let page = tail.page(after, limit, &|_| true, &|entry| Ok(entry.key.doc.as_str() != "hidden"))?.unwrap();
        Some((page.entries.iter().map(|entry| entry.key.doc.to_string()).collect(), page.reached, page.is_end))
    }

    fn append(tail: &Tail, entries: Vec<FeedEntry>, is_end: bool) {
        let reached = entries.last().map_or(0, |entry| entry.seq);
        tail.append(FeedPage { entries, reached, is_end });
    }

    #[test]
    fn it_tells_what_the_store_would() {
        let tail = Tail::new(10);
        assert_eq!(told(&tail, 10, 9), Some((vec![], 10, true)));
        assert_eq!(told(&tail, 9, 9), None, "what was before is not here");
        assert_eq!(told(&tail, 11, 9), None, "nor what is to come");
        append(&tail, vec![entry(11, "a", 1), entry(12, "hidden", 1), entry(13, "b", 1)], true);
        assert_eq!(told(&tail, 10, 9), Some((vec!["a".into(), "b".into()], 13, true)));
        assert_eq!(told(&tail, 10, 1), Some((vec!["a".into()], 11, false)));
        assert_eq!(told(&tail, 11, 9), Some((vec!["b".into()], 13, true)));
        // Each document once, where it stands now.
        append(&tail, vec![entry(14, "a", 1)], false);
        assert_eq!(told(&tail, 10, 9), None, "more is to be read");
        append(&tail, vec![entry(15, "c", 1)], true);
        assert_eq!(told(&tail, 10, 9), Some((vec!["b".into(), "a".into(), "c".into()], 15, true)));
        assert!(tail.page(10, 9, &|entry| entry.key.doc.as_str() != "c", &|_| Ok(true)).is_none());
        assert!(tail.page(15, 9, &|_| false, &|_| Ok(true)).is_some());
        tail.forget(20);
        assert_eq!((told(&tail, 15, 9), told(&tail, 20, 9)), (None, Some((vec![], 20, true))));
    }

    #[test]
    fn it_keeps_no_more_than_it_may() {
        let tail = Tail::new(0);
        let many = (1..=ENTRIES_MAX as u64 + 10).map(|seq| entry(seq, &format!("d{seq}"), 1)).collect();
        append(&tail, many, true);
        assert_eq!(told(&tail, 9, 1), None);
        assert_eq!(told(&tail, 10, 1), Some((vec!["d11".into()], 11, false)));
        append(
            &tail,
            vec![entry(5_000, "large", BYTES_MAX - 1), entry(5_001, "small", 1), entry(5_002, "other", 1)],
            true,
        );
        assert_eq!(told(&tail, 4_999, 1), None, "the large one had to go");
        assert_eq!(told(&tail, 5_000, 9), Some((vec!["small".into(), "other".into()], 5_002, true)));
        let state = tail.state.read().unwrap();
        assert_eq!((state.bytes, state.places.len()), (2, 2));
    }
}
