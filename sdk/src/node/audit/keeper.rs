//! The thread that keeps the log: it appends, signs, shows checkpoints to peers and judges theirs.
//!
//! After a start nothing new is signed before a peer has said how far it knows this log, or [`SIGN_WITHOUT_PEERS`] has passed: a node whose
//! disk lost the end of its log would otherwise sign another past.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use folkmoot_core::audit::note::{Cosignature, Note};
use folkmoot_core::audit::witness::{self, Answer, Judgement, OneHash, Presentation, Trouble};
use folkmoot_core::audit::{AuditAction, AuditDecision, Event, Log, LogError, Record, stream_line};
use folkmoot_core::id::{AuthorKey, SessionId};
use folkmoot_core::keys::SecretKey;
use folkmoot_core::replication::Lane;
use folkmoot_core::store::Batch;
use tokio::sync::oneshot;

use super::super::core_thread::{Command, Ended, wall_ms};
use super::super::state::alarm;
use super::super::{Inner, lock, random};
use super::Message;

/// How often what has happened is written.
const WRITE_INTERVAL: Duration = Duration::from_millis(250);
/// How often a checkpoint is signed while something changes.
const SIGN_INTERVAL: Duration = Duration::from_secs(10);
/// How long a node waits for a peer to tell how far it knows the log before it signs on its own.
const SIGN_WITHOUT_PEERS: Duration = Duration::from_secs(30);
/// How often old records are looked for.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(60);
/// Messages of one peer that are looked at within [`SIGN_INTERVAL`].
const MESSAGES_OF_PEER_MAX: u32 = 16;
/// The same trouble with a peer is told again after this.
const TROUBLE_INTERVAL_MS: u64 = 3_600_000;
/// Own streams that a checkpoint names.
const STREAMS_MAX: usize = 16;

/// See the module.
pub(in super::super) struct Keeper {
    node: Weak<Inner>,
    key: SecretKey,
    log: Log,
    note: Option<Note>,
    /// Whether this log could have lost its end without anybody having told.
    unsure: bool,
    started: Instant,
    signed_at: Option<Instant>,
    expired_at: Instant,
    /// The sizes that connected peers are known to have seen of the log; none if they have not said.
    peers: BTreeMap<AuthorKey, Peer>,
    window: Instant,
}

#[derive(Default)]
struct Peer {
    seen: Option<u64>,
    /// The size that was shown last.
    shown: Option<u64>,
    messages: u32,
}

/// Nothing can be written any more, or nobody is there any more.
struct Over;

impl From<Ended> for Over {
    fn from(_: Ended) -> Self {
        Self
    }
}

impl Keeper {
    /// Opens the log of a node, or begins one.
    ///
    /// # Errors
    /// In words, if the store cannot be read.
    pub(in super::super) fn open(inner: &Arc<Inner>) -> Result<Self, String> {
        let store = &*inner.store;
        let (cluster, key) = (inner.record.cluster, inner.node_key.clone());
        let mut first = None;
        let opened = match Log::open(store, cluster, key.author()) {
            Ok(opened) => opened,
            // A log of the key that the node had before ends with that.
            Err(_) if Self::is_of_earlier_key(inner) => {
                first = Some("the node has another key".to_owned());
                None
            }
            Err(error) => {
                let error = crate::api::error_chain(&error);
                alarm("audit_log_damaged", &error);
                first = Some(error);
                None
            }
        };
        let is_new = opened.is_none();
        let log = match opened {
            Some(log) => log,
            None => Self::another(inner).map_err(|error| crate::api::error_chain(&error))?,
        };
        let note = folkmoot_core::audit::last_note(store, log.ordinal()).unwrap_or_default();
        let keeper = Self {
            node: Arc::downgrade(inner),
            key,
            log,
            note: if is_new { None } else { note },
            unsure: !is_new,
            started: Instant::now(),
            signed_at: None,
            expired_at: Instant::now(),
            peers: BTreeMap::new(),
            window: Instant::now(),
        };
        if is_new {
            let why = first.unwrap_or_else(|| "there was none".to_owned());
            inner.note(begin(&keeper.log, &why));
        }
        keeper.tell(inner);
        Ok(keeper)
    }

    /// Returns whether the last checkpoint was signed by a key that the node had before, and holds.
    fn is_of_earlier_key(inner: &Inner) -> bool {
        let keys = &inner.record.earlier_keys;
        keys.iter().rev().any(|key| matches!(Log::open(&*inner.store, inner.record.cluster, *key), Ok(Some(_))))
    }

    fn another(inner: &Inner) -> Result<Log, LogError> {
        // Without randomness there is no log to tell from the one before; the clock stands in for it.
        let incarnation = random().map_or_else(|_| SessionId::new(wall_ms().to_be_bytes()), SessionId::new);
        Log::begin(&*inner.store, inner.record.cluster, inner.node_key.author(), incarnation, wall_ms())
    }

    /// Runs until it is told to stop, or the node is gone.
    pub(in super::super) fn run(mut self, messages: &Receiver<Message>) {
        let mut next = Instant::now();
        loop {
            let message = messages.recv_timeout(next.saturating_duration_since(Instant::now()));
            let Some(inner) = self.node.upgrade() else { return };
            let done = match message {
                Ok(Message::Frame(peer, bytes)) => self.frame(&inner, peer, &bytes),
                Ok(Message::Flush(reply)) => self.write(&inner, false).map(|()| answer(reply)),
                Ok(Message::Sign(reply)) => {
                    let may_sign = self.may_sign(&inner);
                    let signed = self.write(&inner, false);
                    let signed = signed.and_then(|()| if may_sign { self.sign(&inner) } else { Ok(()) });
                    signed.map(|()| answer(reply))
                }
                Ok(Message::Stop(reply)) => {
                    let may_sign = self.may_sign(&inner);
                    let written = self.write(&inner, true);
                    // What cannot be written any more is told by the node that halted.
                    let _ = written.and_then(|()| if may_sign { self.sign(&inner) } else { Ok(()) });
                    let _ = reply.send(());
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {
                    next = Instant::now() + WRITE_INTERVAL;
                    self.upkeep(&inner)
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if done.is_err() {
                return;
            }
        }
    }

    /// What is done several times a second.
    fn upkeep(&mut self, inner: &Arc<Inner>) -> Result<(), Over> {
        self.write(inner, false)?;
        if self.window.elapsed() >= SIGN_INTERVAL {
            self.window = Instant::now();
            for peer in self.peers.values_mut() {
                peer.messages = 0;
            }
        }
        if self.signed_at.is_none_or(|at| at.elapsed() >= SIGN_INTERVAL) && self.may_sign(inner) {
            self.sign(inner)?;
        }
        if self.expired_at.elapsed() >= EXPIRE_INTERVAL {
            self.expire(inner)?;
        }
        self.show(inner);
        self.tell(inner);
        Ok(())
    }

    fn may_sign(&self, inner: &Inner) -> bool {
        // Right after the start it is not known yet who the members are.
        !self.unsure || inner.members().len() == 1 || self.started.elapsed() >= SIGN_WITHOUT_PEERS
    }

    /// Has a batch committed.
    fn commit(&self, inner: &Inner, batch: Batch) -> Result<(), Over> {
        if batch.is_empty() {
            return Ok(());
        }
        let (reply, done) = oneshot::channel();
        inner.core.send_blocking(Command::Store(batch, reply))?;
        done.blocking_recv().map_err(|_| Over)
    }

    /// Appends what has happened.
    fn write(&mut self, inner: &Inner, all: bool) -> Result<(), Over> {
        let records = inner.audit.take(all);
        if records.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        let count = records.len() as u64;
        for record in records {
            self.log.append(&mut batch, record, wall_ms());
        }
        self.commit(inner, batch)?;
        metrics::counter!("folkmoot_audit_records_total").increment(count);
        inner.audit.tell_written();
        Ok(())
    }

    /// Signs what there is now, if that is not signed.
    fn sign(&mut self, inner: &Inner) -> Result<(), Over> {
        self.signed_at = Some(Instant::now());
        let size = self.log.state().size;
        if self.note.as_ref().is_some_and(|note| note.checkpoint.size == size) || size == 0 {
            return Ok(());
        }
        let own = inner.core.look_blocking(|replica, _| replica.own_streams().take(STREAMS_MAX).collect::<Vec<_>>());
        // As far as they are on the disk: what the replica knows more of may still be lost.
        let heads = own.unwrap_or_default().into_iter().filter_map(|stream| {
            folkmoot_core::replica::stored_head(&*inner.store, &stream).map(|head| (stream, head))
        });
        let lines = heads.map(|(stream, head)| stream_line(&stream, head.seq, &head.op)).collect();
        let note = Note::sign(self.log.checkpoint(lines), &self.key);
        let mut batch = Batch::new();
        self.log.keep_note(&mut batch, &note);
        self.note = Some(note);
        self.commit(inner, batch)
    }

    fn expire(&mut self, inner: &Inner) -> Result<(), Over> {
        self.expired_at = Instant::now();
        let mut gone = 0;
        loop {
            let mut batch = Batch::new();
            match self.log.expire(&*inner.store, &mut batch, &inner.config.audit_retention, wall_ms()) {
                Ok(0) => break,
                Ok(count) => gone += count,
                Err(error) => {
                    tracing::warn!(error = crate::api::error_chain(&error), "cannot drop old audit records");
                    break;
                }
            }
            self.commit(inner, batch)?;
        }
        if gone > 0 {
            let what = Event::new(AuditAction::ExpireLog, AuditDecision::Allowed).about(format!("{gone} records"));
            inner.note(what);
        }
        Ok(())
    }

    /// Shows the last checkpoint to the peers that have not been shown it.
    fn show(&mut self, inner: &Inner) {
        let Some(net) = inner.net.get() else { return };
        let connected: Vec<AuthorKey> = net.peers().into_iter().map(|peer| peer.peer).collect();
        self.peers.retain(|peer, _| connected.contains(peer));
        let Some(size) = self.note.as_ref().map(|note| note.checkpoint.size) else { return };
        for peer in connected {
            let known = self.peers.entry(peer).or_default();
            if known.shown != Some(size) {
                known.shown = Some(size);
                self.present(inner, peer);
            }
        }
    }

    fn present(&self, inner: &Inner, peer: AuthorKey) {
        let Some(note) = &self.note else { return };
        let from = self.peers.get(&peer).and_then(|known| known.seen).unwrap_or(0).min(note.checkpoint.size);
        let path = match self.log.consistency_between(&*inner.store, from, note.checkpoint.size) {
            Ok(path) => path.into_iter().map(OneHash).collect(),
            Err(error) => {
                tracing::warn!(%peer, error = crate::api::error_chain(&error), "cannot prove the audit log to a peer");
                return;
            }
        };
        let presentation = Presentation { note: note.alone().text(), from, path };
        send(inner, peer, &witness::Message::Present(presentation));
    }

    fn frame(&mut self, inner: &Inner, peer: AuthorKey, bytes: &Bytes) -> Result<(), Over> {
        let known = self.peers.entry(peer).or_default();
        known.messages += 1;
        if known.messages > MESSAGES_OF_PEER_MAX {
            return Ok(());
        }
        match witness::Message::decode(bytes) {
            Ok(Some(witness::Message::Present(shown))) => self.judge(inner, peer, &shown),
            Ok(Some(witness::Message::Seen(answer))) => self.answered(inner, peer, &answer),
            Ok(None) => Ok(()),
            Err(error) => {
                tracing::warn!(%peer, error = crate::api::error_chain(&error), "a peer's message about its audit log is malformed");
                Ok(())
            }
        }
    }

    /// Holds a checkpoint of a peer against what was seen of its log.
    fn judge(&self, inner: &Inner, peer: AuthorKey, shown: &Presentation) -> Result<(), Over> {
        let Ok(note) = Note::parse(&shown.note) else {
            tracing::warn!(%peer, "a peer shows a checkpoint of its audit log that is none");
            return Ok(());
        };
        let log = note.checkpoint.log;
        // Others' logs are shown by their nodes.
        if log.node != peer || log.cluster != inner.record.cluster {
            return Ok(());
        }
        let kept = match witness::seen(&*inner.store, &peer) {
            Ok(kept) => kept,
            Err(error) => {
                alarm("audit_witness_damaged", &crate::api::error_chain(&error));
                None
            }
        };
        let now = wall_ms();
        let judged = witness::judge(kept.as_ref(), &note, shown.from, &shown.path, now);
        let (answer, told) = match judged {
            Ok(Judgement::Accept(seen, trouble)) => {
                let mut batch = Batch::new();
                witness::keep(&mut batch, &peer, &seen);
                self.commit(inner, batch)?;
                (self.word(&note), trouble)
            }
            Ok(Judgement::Same) => (self.word(&note), None),
            Ok(Judgement::Unproved) => (kept.as_ref().and_then(|kept| kept.note().ok()).map(|note| (note, None)), None),
            Ok(Judgement::Refuse(seen, trouble)) => {
                let is_news = kept
                    .as_ref()
                    .and_then(|kept| kept.trouble.as_ref())
                    .is_none_or(|(before, at, _)| *before != trouble || at.saturating_add(TROUBLE_INTERVAL_MS) < now);
                if is_news {
                    let mut batch = Batch::new();
                    witness::keep(&mut batch, &peer, &seen);
                    self.commit(inner, batch)?;
                }
                let answer = kept.as_ref().and_then(|kept| kept.note().ok()).map(|note| (note, None));
                (answer, is_news.then_some(trouble))
            }
            Err(error) => {
                alarm("audit_witness_damaged", &crate::api::error_chain(&error));
                (None, None)
            }
        };
        if let Some(trouble) = told {
            let last = kept.as_ref().and_then(|kept| kept.note().ok()).map(|note| note.checkpoint);
            trouble_with(inner, peer, trouble, last.map_or(0, |last| last.size), note.checkpoint.size);
        }
        if let Some((note, word)) = answer {
            send(inner, peer, &witness::Message::Seen(Answer::new(&note, word.as_ref())));
        }
        Ok(())
    }

    fn word(&self, note: &Note) -> Option<(Note, Option<Cosignature>)> {
        Some((note.clone(), Some(note.cosign(&self.key, wall_ms() / 1_000))))
    }

    /// A peer tells how far it has seen this node's log.
    fn answered(&mut self, inner: &Inner, peer: AuthorKey, answer: &Answer) -> Result<(), Over> {
        // What this node did not sign says nothing about its log.
        let Ok(known) = Note::parse(&answer.note) else { return Ok(()) };
        let (known, own) = (known.checkpoint, self.log.id());
        if known.log.node != own.node || known.log.cluster != own.cluster {
            return Ok(());
        }
        let is_here = if known.log == own {
            known.size <= self.log.state().size
                && self.log.root_at(&*inner.store, known.size).is_ok_and(|root| root == known.root)
        } else {
            // One that was left before; or one that this directory has never heard of: then it is an old copy.
            let logs = folkmoot_core::audit::logs(&*inner.store).unwrap_or_default();
            logs.iter().any(|(_, state)| state.incarnation == known.log.incarnation)
        };
        if !is_here {
            return self.leave(inner, peer, known.log == own, known.size);
        }
        self.unsure = false;
        if known.log != own {
            return Ok(());
        }
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.seen = Some(known.size);
        }
        let Some(note) = &mut self.note else { return Ok(()) };
        match answer.cosignature(peer) {
            Some(word) if known.size == note.checkpoint.size => {
                if !note.add(word) {
                    return Ok(());
                }
                metrics::counter!("folkmoot_audit_cosignatures_total").increment(1);
                let mut alone = note.alone();
                alone.add(word);
                let mut batch = Batch::new();
                self.log.keep_note(&mut batch, note);
                self.log.keep_peers_note(&mut batch, &peer, &alone);
                self.commit(inner, batch)
            }
            None if known.size < note.checkpoint.size => {
                self.present(inner, peer);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Goes on in another log: a peer has seen of this one what is not here.
    fn leave(&mut self, inner: &Inner, peer: AuthorKey, is_this: bool, size: u64) -> Result<(), Over> {
        let here = self.log.state().size;
        let what = if is_this {
            format!("peer {peer} has seen {size} records of the log, other than the {here} that are here")
        } else {
            format!("peer {peer} has seen {size} records of a later log that is not here")
        };
        alarm("audit_log_cut", &format!("{what}: the data directory is an older copy, or the log was cut"));
        metrics::counter!("folkmoot_audit_logs_left_total").increment(1);
        let log = match Self::another(inner) {
            Ok(log) => log,
            Err(error) => {
                alarm("audit_log_damaged", &crate::api::error_chain(&error));
                return Ok(());
            }
        };
        self.log = log;
        (self.note, self.unsure, self.signed_at) = (None, false, None);
        self.peers.clear();
        let mut batch = Batch::new();
        let cut = Event::new(AuditAction::LogCut, AuditDecision::Failed).about(peer.to_string()).because(what.clone());
        let now = wall_ms();
        for event in [begin(&self.log, &what), cut] {
            self.log.append(&mut batch, Record::new(event, now, now, 1), now);
        }
        self.commit(inner, batch)?;
        self.sign(inner)?;
        inner.audit.tell_written();
        Ok(())
    }

    /// Tells how the log stands.
    fn tell(&self, inner: &Inner) {
        {
            let mut standing = lock(&inner.audit.standing);
            standing.log = Some(self.log.clone());
            standing.checkpoint.clone_from(&self.note);
        }
        let (lost, figures) = inner.audit.figures();
        metrics::counter!("folkmoot_audit_lost_total").absolute(lost);
        for figure in figures {
            super::super::state::gauge_of("folkmoot_memory_held", figure.name, figure.held as u64);
            super::super::state::gauge_of("folkmoot_memory_bound", figure.name, figure.bound as u64);
        }
        super::super::state::gauge("folkmoot_audit_log_records", self.log.state().size);
        let words = self.note.as_ref().map_or(0, |note| note.cosignatures.len());
        super::super::state::gauge("folkmoot_audit_checkpoint_cosignatures", words as u64);
    }
}

/// Tells whoever waits that it is done.
fn answer(reply: oneshot::Sender<()>) {
    // Who asked may have gone.
    let _ = reply.send(());
}

fn begin(log: &Log, why: &str) -> Event {
    Event::new(AuditAction::BeginLog, AuditDecision::Allowed).about(log.id().to_string()).because(why)
}

/// Tells that the log of a peer is not what it was.
fn trouble_with(inner: &Inner, peer: AuthorKey, trouble: Trouble, seen: u64, shown: u64) {
    let action = match trouble {
        Trouble::Cut | Trouble::Replaced => AuditAction::PeerLogCut,
        Trouble::Forked => AuditAction::PeerLogForked,
    };
    let what = match trouble {
        Trouble::Cut => format!("{seen} records of its audit log were seen, and it shows {shown}"),
        Trouble::Replaced => format!("it goes on in another audit log; of the one before {seen} records were seen"),
        Trouble::Forked => format!("its audit log of {shown} records is not the one of which {seen} were seen"),
    };
    metrics::counter!("folkmoot_audit_peer_troubles_total", "trouble" => trouble.name()).increment(1);
    alarm("audit_peer_log", &format!("peer {peer}: {what}"));
    inner.note(Event::new(action, AuditDecision::Failed).about(peer.to_string()).because(what));
}

fn send(inner: &Inner, peer: AuthorKey, message: &witness::Message) {
    let Some(net) = inner.net.get() else { return };
    // What does not go now is shown again with the next checkpoint.
    let _ = net.send(&peer, Lane::Control, Bytes::from(message.encode()));
}
