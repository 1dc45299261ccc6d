//! Scrubs the disk on a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use folkmoot_core::store::Store;
use tokio::sync::mpsc;

use super::core_thread::Command;
use super::indexer::IndexerHandle;

/// The thread, while there is one, and how to reach it.
pub(super) struct Scrubber {
    store: Arc<dyn Store>,
    /// Weak, since the replica's thread ends when nobody can send it anything any more.
    commands: mpsc::WeakSender<Command>,
    /// Indexes hold what documents say.
    indexer: IndexerHandle,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Scrubber {
    pub(super) fn new(store: Arc<dyn Store>, commands: mpsc::WeakSender<Command>, indexer: IndexerHandle) -> Self {
        Self { store, commands, indexer, stop: Arc::default(), thread: None }
    }

    /// Begins; the replica's thread is told when it is over.
    pub(super) fn begin(&mut self) {
        let (store, commands, stop) = (self.store.clone(), self.commands.clone(), self.stop.clone());
        let indexer = self.indexer.clone();
        let run = move || {
            let began = Instant::now();
            let forgotten = indexer.forget(|| stop.load(Ordering::Acquire));
            let scrubbed = if forgotten { store.scrub(&stop) } else { Ok(false) };
            let took = began.elapsed();
            metrics::histogram!("folkmoot_scrub_seconds").record(took.as_secs_f64());
            let is_clean = match scrubbed {
                Ok(is_clean) => is_clean,
                Err(error) => {
                    tracing::error!(error = crate::api::error_chain(&error), "the disk was not scrubbed");
                    false
                }
            };
            if let Some(commands) = commands.upgrade() {
                // The thread that is told may have ended.
                let _ = commands.blocking_send(Command::Scrubbed { is_clean, took });
            }
        };
        match std::thread::Builder::new().name("folkmoot-scrub".into()).spawn(run) {
            Ok(thread) => self.thread = Some(thread),
            Err(error) => tracing::error!(%error, "no thread to scrub the disk; it is tried again after a restart"),
        }
    }

    /// Ends at the next step, and waits for that: the store's directory is not free before.
    pub(super) fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // Its panic was reported by its hook.
            let _ = thread.join();
        }
    }
}
