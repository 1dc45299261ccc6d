//! How long a write takes to show: from its acknowledgement to its change in a feed, on another node or in one of many on the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use folkmoot::api::{ChangesQuery, Database as _, Since};
use folkmoot::{Error, ErrorCode};
use futures_util::StreamExt as _;
use hdrhistogram::Histogram;

use super::between;
use super::load::{self, Load, Loaded, Work, micros, record};
use super::nodes::{BenchNode, Nodes};
use super::requests::{Site, document_id};

/// How long changes of the last writes may take to come.
const REST_TIME_MAX: Duration = Duration::from_secs(60);
/// A feed that must tell of the first write is asked this often whether it has.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// What came of a feed.
pub(super) struct Shown {
    pub(super) writes: Loaded,
    /// From acknowledgement to change; nothing if the change came first.
    pub(super) visible: Histogram<u64>,
    /// Acknowledged writes whose change did not come.
    pub(super) missing: u64,
}

/// Half of what makes a latency, whichever comes first.
enum Half {
    Acknowledged(Instant),
    Shown(Instant),
}

/// Pairs acknowledgements with changes.
struct Pairs {
    open: HashMap<String, Half>,
    visible: Histogram<u64>,
}

type Shared = Arc<Mutex<Pairs>>;

fn note(pairs: &Shared, id: &str, now: Half) {
    let mut pairs = pairs.lock().unwrap_or_else(PoisonError::into_inner);
    let time = match (pairs.open.remove(id), now) {
        (Some(Half::Acknowledged(from)), Half::Shown(to)) => to.saturating_duration_since(from),
        (Some(Half::Shown(_)), Half::Acknowledged(_)) => Duration::ZERO,
        (_, first) => {
            pairs.open.insert(id.to_owned(), first);
            return;
        }
    };
    record(&mut pairs.visible, time);
}

fn unseen(pairs: &Shared) -> u64 {
    let pairs = pairs.lock().unwrap_or_else(PoisonError::into_inner);
    pairs.open.values().filter(|half| matches!(half, Half::Acknowledged(_))).count() as u64
}

/// Writes documents with ids of its own and notes when they are acknowledged.
struct Writer {
    site: Site,
    /// What the ids of the writes begin with that a feed is told of.
    feeds: Arc<[String]>,
    writer: u64,
    number: u64,
    id: String,
    pairs: Shared,
}

impl Work for Writer {
    fn next(&mut self, request: &mut Vec<u8>) -> u16 {
        self.number += 1;
        let feed = self.number.wrapping_add(self.writer) % self.feeds.len().max(1) as u64;
        let prefix = self.feeds.get(feed as usize).map(String::as_str).unwrap_or_default();
        self.id = document_id(&format!("{prefix}{}", self.writer), self.number);
        self.site.put(request, &self.id, self.number);
        201
    }

    fn done(&mut self, at: Instant) {
        note(&self.pairs, &self.id, Half::Acknowledged(at));
    }
}

/// Writes to the first node and follows so many feeds of one, each of which is told of another part of the writes.
pub(super) async fn run(
    nodes: &Nodes,
    (followed, feeds): (&BenchNode, u64),
    tag: &str,
    load: Load,
    connections: u64,
) -> Result<Shown, Error> {
    let first = nodes.first()?;
    let feeds: Arc<[String]> = (0..feeds.max(1)).map(|feed| format!("{tag}-{feed}-")).collect();
    // The collection is known everywhere before it is followed.
    for prefix in feeds.iter() {
        first.fill(nodes.collection(), &format!("{prefix}first"), 1).await?;
    }
    between::settle(nodes).await?;
    let pairs: Shared = Arc::new(Mutex::new(Pairs { open: HashMap::new(), visible: micros() }));
    // They end with this run; an error of a feed shows as changes that are missing.
    let mut followers = tokio::task::JoinSet::new();
    for prefix in feeds.iter() {
        let query = ChangesQuery {
            collection: Some(nodes.collection().clone()),
            prefix: Some(prefix.clone()),
            since: Since::Beginning,
            ..ChangesQuery::default()
        };
        let (mut changes, seen) = (followed.client.subscribe(query), pairs.clone());
        followers.spawn(async move {
            while let Some(Ok(change)) = changes.next().await {
                note(&seen, change.id.as_str(), Half::Shown(Instant::now()));
            }
        });
    }
    // What is measured begins when the change of the first document of each has come.
    let begun = Instant::now();
    while pairs.lock().unwrap_or_else(PoisonError::into_inner).open.len() < feeds.len() {
        if begun.elapsed() > REST_TIME_MAX || followers.try_join_next().is_some() {
            let detail = format!("no change came in a feed of {}", followed.url);
            return Err(Error::new(ErrorCode::RequestTimeout, detail));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    let writers = (0..connections).map(|writer| Writer {
        site: first.site.clone(),
        feeds: feeds.clone(),
        writer,
        number: 0,
        id: String::new(),
        pairs: pairs.clone(),
    });
    let mut meter = nodes.meter().await?;
    let writes = load::run(load, &first.site.authority, writers.collect(), &mut meter).await?;
    let begun = Instant::now();
    while unseen(&pairs) > 0 && begun.elapsed() < REST_TIME_MAX && followers.try_join_next().is_none() {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    followers.shutdown().await;
    let missing = unseen(&pairs);
    let visible = pairs.lock().unwrap_or_else(PoisonError::into_inner).visible.clone();
    Ok(Shown { writes, visible, missing })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_may_come_before_its_acknowledgement() {
        let pairs: Shared = Arc::new(Mutex::new(Pairs { open: HashMap::new(), visible: micros() }));
        let now = Instant::now();
        note(&pairs, "a", Half::Acknowledged(now));
        note(&pairs, "b", Half::Shown(now));
        assert_eq!(unseen(&pairs), 1);
        note(&pairs, "b", Half::Acknowledged(now + Duration::from_millis(1)));
        note(&pairs, "a", Half::Shown(now + Duration::from_millis(3)));
        assert_eq!(unseen(&pairs), 0);
        let visible = pairs.lock().unwrap().visible.clone();
        assert_eq!((visible.len(), visible.max() / 1_000), (2, 3));
    }
}
