//! Keeps the secondary indexes: on a thread for blocking calls, beside everything else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use folkmoot_core::id::CollectionName;
use folkmoot_core::query::index::{Definition, IndexError, Stopped};
use folkmoot_core::replica::collections_with_erasures;
use folkmoot_core::store::Batch;
use tokio::sync::{mpsc, oneshot};

use super::Inner;
use super::core_thread::Command;
use crate::api::error_chain;

/// How often changes are taken in. A query takes in what is left itself.
const PAUSE: Duration = Duration::from_millis(250);
/// How long the thread works before it looks whether somebody wants something else of it.
const ROUND: Duration = Duration::from_millis(500);
/// After an error.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(10);
/// Wishes that may wait; there is one scrub at a time.
const WISHES_MAX: usize = 4;

/// Asks for indexes to be rid of what was erased; answered when they are.
pub(super) type Forget = oneshot::Sender<()>;

/// Reaches the indexer from the thread that scrubs.
#[derive(Clone)]
pub(super) struct IndexerHandle(mpsc::Sender<Forget>);

impl IndexerHandle {
    pub(super) fn new() -> (Self, mpsc::Receiver<Forget>) {
        let (sender, receiver) = mpsc::channel(WISHES_MAX);
        (Self(sender), receiver)
    }

    /// Asks for indexes to be rid of what is erased, and waits for that until told to stop. Returns whether they are.
    pub(super) fn forget(&self, stop: impl Fn() -> bool) -> bool {
        const POLL: Duration = Duration::from_millis(20);
        let (done, mut is_done) = oneshot::channel();
        if self.0.try_send(done).is_err() {
            return false;
        }
        loop {
            match is_done.try_recv() {
                Ok(()) => return true,
                Err(oneshot::error::TryRecvError::Closed) => return false,
                Err(oneshot::error::TryRecvError::Empty) if stop() => return false,
                Err(oneshot::error::TryRecvError::Empty) => std::thread::sleep(POLL),
            }
        }
    }
}

impl Inner {
    /// Keeps the indexes for ever; run it as a task.
    pub(super) async fn keep_indexes(self: Arc<Self>, mut wishes: mpsc::Receiver<Forget>) {
        // The policy is made anew with whatever acts have come.
        let mut policy = self.core.policy.clone();
        policy.mark_changed();
        loop {
            let declares = policy.has_changed().unwrap_or(false);
            policy.mark_unchanged();
            let wish = wishes.try_recv().ok();
            let inner = self.clone();
            let round = tokio::task::spawn_blocking(move || inner.index_round(declares, wish));
            let pause = match round.await {
                Ok(Ok(true)) => Duration::ZERO,
                Ok(Ok(false)) => PAUSE,
                Ok(Err(IndexError::Stopped)) => return,
                Ok(Err(IndexError::Read(error))) => {
                    metrics::counter!("folkmoot_index_failures_total").increment(1);
                    tracing::error!(error = error_chain(&error), "an index cannot be read and is made anew");
                    policy.mark_changed();
                    PAUSE_AFTER_ERROR
                }
                Err(error) => {
                    tracing::error!(%error, "keeping the indexes failed");
                    PAUSE_AFTER_ERROR
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Writes a batch and waits until it is on the disk.
    fn commit_index(&self, batch: Batch) -> Result<(), Stopped> {
        let (done, is_done) = oneshot::channel();
        self.core.send_blocking(Command::Store(batch, done)).map_err(|_| Stopped)?;
        is_done.blocking_recv().map_err(|_| Stopped)
    }

    /// Does what there is to do, for a while. Returns whether there is more.
    fn index_round(&self, declares: bool, wish: Option<Forget>) -> Result<bool, IndexError> {
        let mut commit = |batch| self.commit_index(batch);
        if declares {
            let wanted = self.declared_indexes().map_err(|Stopped| IndexError::Stopped)?;
            self.indexes.declare(wanted, &mut commit)?;
        }
        if let Some(done) = wish {
            let collections: BTreeSet<CollectionName> = collections_with_erasures(&*self.store)?;
            self.indexes.forget(&collections, &mut commit)?;
            // Who asked may be ending.
            let _ = done.send(());
        }
        let began = Instant::now();
        while self.indexes.work(&self.reader, &mut commit)? {
            if began.elapsed() >= ROUND {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the indexes that the collections' settings declare.
    fn declared_indexes(&self) -> Result<BTreeMap<CollectionName, Vec<Definition>>, Stopped> {
        let all = self.core.look_blocking(|replica, _| replica.authority().collections()).map_err(|_| Stopped)?;
        let live =
            all.into_iter().map(|known| known.config).filter(|config| !config.dropped && !config.indexes.is_empty());
        // What is in the control log was checked when it came.
        let definitions = |config: &folkmoot_core::op::Collection| {
            config.indexes.iter().filter_map(|index| index.parse().ok()).collect::<Vec<_>>()
        };
        Ok(live.map(|config| (config.name.clone(), definitions(&config))).collect())
    }
}
