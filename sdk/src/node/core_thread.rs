//! The thread that owns the replica. Everybody else sends it commands; nothing else ever touches it.
//!
//! It has a large stack (documents nest) and never waits for the disk or the network: batches go to the committer's
//! thread, frames to the network's queues.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use folkmoot_core::authority::Policy;
use folkmoot_core::id::{AuthorKey, OpId};
use folkmoot_core::op::Op;
use folkmoot_core::replica::{
    ActError, ActRequest, Admitted, BatchId, Effect, Input, Now, Replica, RequestTicket, Signer, WriteError,
    WriteOutcome, WriteRequest,
};
use folkmoot_core::replication::{DisconnectReason as ReplicaReason, Input as NetInput, Lane};
use folkmoot_core::store::watermark::{Mark, WatermarkFile};
use folkmoot_core::store::{Batch, Committer, CommitterFigures, Completion, Outcome, Store, Submission};
use tokio::sync::{mpsc, oneshot, watch};

use super::indexer::IndexerHandle;
use super::outbox::Outbox;
use super::scrubber::Scrubber;
use super::session::Published;

/// Commands that may wait for the thread; more wait at their senders.
const COMMANDS_MAX: usize = 8_192;
/// Commands taken before the thread looks after its other work.
const COMMANDS_PER_ROUND: usize = 512;
/// What the names of batches begin with that are not the replica's.
const OTHER: u64 = 1 << 63;
/// Transactions applied in one slice, so that a write never waits long for it.
const WORK_SLICE: usize = 128;

/// A look at the replica from outside.
type Look = Box<dyn FnOnce(&Replica, &Committer) + Send>;

/// What the thread is asked to do.
pub(super) enum Command {
    /// Write documents.
    Write(WriteRequest, oneshot::Sender<Result<WriteOutcome, WriteError>>),
    /// Write documents, each request for itself; answers in order.
    WriteMany(Vec<WriteRequest>, oneshot::Sender<Vec<Result<WriteOutcome, WriteError>>>),
    /// Sign a control act.
    Act(Signer, ActRequest, oneshot::Sender<Result<Admitted, ActError>>),
    /// Something from or about a peer.
    Net(NetInput),
    /// A batch was committed, or not.
    Done(Completion),
    /// Write a batch of something that is not the replica's; answered when it is on the disk, and never if it cannot be.
    Store(Batch, oneshot::Sender<()>),
    /// The disk was scrubbed, or could not be.
    Scrubbed { is_clean: bool, took: Duration },
    /// Look at the replica.
    Look(Look),
    /// Commit what has gathered and end.
    Stop,
}

impl Command {
    fn look<T: Send + 'static>(
        look: impl FnOnce(&Replica, &Committer) -> T + Send + 'static,
    ) -> (Self, oneshot::Receiver<T>) {
        let (reply, answer) = oneshot::channel();
        let look = move |replica: &Replica, committer: &Committer| {
            // Who asked may have gone.
            let _ = reply.send(look(replica, committer));
        };
        (Self::Look(Box::new(look)), answer)
    }
}

/// What the thread tells without being asked.
#[derive(Clone, Debug)]
pub(super) enum Notice {
    /// Nothing is left here of what these acts erase.
    Erased(Vec<OpId>),
    /// This node has given evidence of so many forked streams.
    Evidence(OpId, usize),
    /// The members may have changed.
    Members(std::collections::BTreeSet<AuthorKey>),
    /// Cut the connection.
    Disconnect(AuthorKey, Cut),
}

/// Why a connection is cut.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cut {
    /// The replica says so.
    Replica(ReplicaReason),
    /// The peer does not take what is sent to it.
    QueueFull,
}

/// A handle to the thread.
#[derive(Clone)]
pub(super) struct CoreHandle {
    commands: mpsc::Sender<Command>,
    pub(super) feed: watch::Receiver<u64>,
    pub(super) halted: watch::Receiver<Option<String>>,
    /// What everybody may do, as of the last act.
    pub(super) policy: watch::Receiver<Arc<Policy>>,
    pub(super) clock: Clock,
}

/// The thread has ended.
#[derive(Debug)]
pub(super) struct Ended;

impl CoreHandle {
    pub(super) async fn send(&self, command: Command) -> Result<(), Ended> {
        self.commands.send(command).await.map_err(|_| Ended)
    }

    /// As [`Self::send`], on a thread that may wait.
    pub(super) fn send_blocking(&self, command: Command) -> Result<(), Ended> {
        self.commands.blocking_send(command).map_err(|_| Ended)
    }

    /// As [`Self::look`], on a thread that may wait.
    pub(super) fn look_blocking<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Replica, &Committer) -> T + Send + 'static,
    ) -> Result<T, Ended> {
        let (command, answer) = Command::look(look);
        self.send_blocking(command)?;
        answer.blocking_recv().map_err(|_| Ended)
    }

    /// Looks at the replica and returns what `look` makes of it.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Replica, &Committer) -> T + Send + 'static,
    ) -> Result<T, Ended> {
        let (command, answer) = Command::look(look);
        self.send(command).await?;
        answer.await.map_err(|_| Ended)
    }
}

/// Who waits for an answer.
enum Asker {
    Write(oneshot::Sender<Result<WriteOutcome, WriteError>>),
    Many(Arc<std::sync::Mutex<Many>>, usize),
    Act(oneshot::Sender<Result<Admitted, ActError>>),
}

/// Answers that are given together.
struct Many {
    answers: Vec<Option<Result<WriteOutcome, WriteError>>>,
    missing: usize,
    reply: Option<oneshot::Sender<Vec<Result<WriteOutcome, WriteError>>>>,
}

struct Core {
    replica: Replica,
    committer: Committer,
    outbox: Arc<Outbox>,
    notices: mpsc::UnboundedSender<Notice>,
    feed: watch::Sender<u64>,
    published: Arc<Published>,
    halted: watch::Sender<Option<String>>,
    policy: watch::Sender<Arc<Policy>>,
    /// That of which the policy was made.
    policy_revision: u64,
    askers: BTreeMap<RequestTicket, Asker>,
    next_ticket: RequestTicket,
    /// Who waits for a batch that is not the replica's.
    others: BTreeMap<u64, oneshot::Sender<()>>,
    next_other: u64,
    clock: Clock,
    scrubber: Scrubber,
}

/// The clocks as the replica wants them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    started: Instant,
    started_ms: u64,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { started: Instant::now(), started_ms: wall_ms() }
    }

    /// Returns how long the commit that is on its way has taken so far.
    pub(super) fn commit_takes(&self, figures: &CommitterFigures) -> Duration {
        figures.busy_since.map_or(Duration::ZERO, |since| self.started.elapsed().saturating_sub(since))
    }

    /// Returns by how many seconds somebody has set the wall clock forward (or back: less than 0) since the start.
    pub(super) fn wall_clock_moved(&self) -> i64 {
        let Now { monotonic_ms, wall_ms } = self.now();
        let seconds = |ms: u64| i64::try_from(ms / 1_000).unwrap_or(i64::MAX);
        seconds(wall_ms).saturating_sub(seconds(monotonic_ms))
    }

    pub(super) fn now(&self) -> Now {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { monotonic_ms: self.started_ms.saturating_add(elapsed), wall_ms: wall_ms() }
    }
}

pub(super) fn wall_ms() -> u64 {
    // A clock before 1970 counts as 1970.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What the thread is started with.
pub(super) struct Start {
    pub(super) replica: Replica,
    pub(super) store: Arc<dyn Store>,
    pub(super) watermark: WatermarkFile,
    pub(super) outbox: Arc<Outbox>,
    pub(super) clock: Clock,
    /// First ops of a new data directory.
    pub(super) seed: Vec<Op>,
    pub(super) feed: u64,
    pub(super) indexer: IndexerHandle,
    pub(super) published: Arc<Published>,
}

/// Starts the thread. Returns the handle, the notices, and the thread to wait for.
pub(super) fn spawn(
    start: Start,
) -> std::io::Result<(CoreHandle, mpsc::UnboundedReceiver<Notice>, std::thread::JoinHandle<()>)> {
    let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
    let (notices, noticed) = mpsc::unbounded_channel();
    let (feed, feed_seen) = watch::channel(start.feed);
    let (halted, halted_seen) = watch::channel(None);
    // Completions have a channel of their own: the committer must never wait for a thread that waits for it.
    let (done, completions) = mpsc::unbounded_channel();
    let scrubber = Scrubber::new(start.store.clone(), commands.downgrade(), start.indexer);
    let clock = start.clock;
    let committer = Committer::spawn(
        start.store,
        Some(start.watermark),
        move || clock.started.elapsed(),
        move |completion| {
            // The thread ends only after the last completion, or with the process.
            let _ = done.send(completion);
        },
    )?;
    let runtime = tokio::runtime::Handle::current();
    let mut replica = start.replica;
    replica.seed_control(start.seed);
    let policy_revision = replica.authority().revision();
    let (policy, policy_seen) = watch::channel(Arc::new(replica.authority().policy()));
    let core = Core {
        replica,
        committer,
        outbox: start.outbox,
        notices,
        feed,
        published: start.published,
        halted,
        policy,
        policy_revision,
        askers: BTreeMap::new(),
        next_ticket: 0,
        others: BTreeMap::new(),
        next_other: 0,
        clock,
        scrubber,
    };
    let thread = std::thread::Builder::new()
        .name("folkmoot-core".into())
        .stack_size(folkmoot_core::document::gate::STACK_BYTES)
        .spawn(move || core.run(receiver, completions, &runtime))?;
    Ok((CoreHandle { commands, feed: feed_seen, halted: halted_seen, policy: policy_seen, clock }, noticed, thread))
}

impl Core {
    fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut completions: mpsc::UnboundedReceiver<Completion>,
        runtime: &tokio::runtime::Handle,
    ) {
        let mut stopping = false;
        self.tell_members();
        loop {
            let mut effects = Vec::new();
            let mut idle = true;
            while let Ok(completion) = completions.try_recv() {
                idle = false;
                self.done(completion, &mut effects);
            }
            for _ in 0..COMMANDS_PER_ROUND {
                let Ok(command) = commands.try_recv() else { break };
                idle = false;
                stopping |= self.take(command, &mut effects);
            }
            let now = self.clock.now();
            if now.monotonic_ms >= self.replica.next_wakeup_ms() {
                self.replica.step(now, Input::Net(NetInput::Tick), &mut effects);
            }
            let more = self.replica.work(now, WORK_SLICE, &mut effects);
            self.replica.flush(now, &mut effects);
            // Before anybody is answered: who has made a token may use it at once.
            self.renew_policy();
            self.carry_out(effects);
            // A batch that failed stays on its way for ever: there is nothing to wait for any more.
            let quiet = !self.replica.has_staged() && self.replica.batches_in_flight() == 0;
            if stopping && (quiet || self.replica.halted().is_some()) {
                break;
            }
            if idle && !more {
                let wait = self.replica.next_wakeup_ms().saturating_sub(self.clock.now().monotonic_ms);
                let wait = Duration::from_millis(wait.clamp(1, 1_000));
                let next = runtime.block_on(async {
                    tokio::select! {
                        biased;
                        completion = completions.recv() => completion.map(Command::Done),
                        command = commands.recv() => Some(command.unwrap_or(Command::Stop)),
                        () = tokio::time::sleep(wait) => None,
                    }
                });
                let mut effects = Vec::new();
                if let Some(command) = next {
                    stopping |= self.take(command, &mut effects);
                }
                self.carry_out(effects);
            }
        }
        // The scrubber may wait for room to tell that it is done.
        drop(commands);
        self.scrubber.stop();
        self.committer.finish();
    }

    /// Publishes the policy again if acts have come.
    fn renew_policy(&mut self) {
        let authority = self.replica.authority();
        if authority.revision() != self.policy_revision {
            self.policy_revision = authority.revision();
            self.policy.send_replace(Arc::new(authority.policy()));
        }
    }

    /// Carries out a command; returns whether it was the last.
    fn take(&mut self, command: Command, effects: &mut Vec<Effect>) -> bool {
        let now = self.clock.now();
        match command {
            Command::Write(request, reply) => {
                let ticket = self.ticket(Asker::Write(reply));
                self.replica.step(now, Input::Write { ticket, request }, effects);
            }
            Command::WriteMany(requests, reply) => {
                let count = requests.len();
                if count == 0 {
                    let _ = reply.send(Vec::new());
                    return false;
                }
                let answers = std::iter::repeat_with(|| None).take(count).collect();
                let many = Arc::new(std::sync::Mutex::new(Many { answers, missing: count, reply: Some(reply) }));
                for (index, request) in requests.into_iter().enumerate() {
                    let ticket = self.ticket(Asker::Many(many.clone(), index));
                    self.replica.step(now, Input::Write { ticket, request }, effects);
                }
            }
            Command::Act(signer, request, reply) => {
                let ticket = self.ticket(Asker::Act(reply));
                self.replica.step(now, Input::Act { ticket, signer, request }, effects);
            }
            Command::Net(input) => self.replica.step(now, Input::Net(input), effects),
            Command::Done(completion) => self.done(completion, effects),
            Command::Store(batch, reply) => self.store(batch, reply),
            Command::Scrubbed { is_clean, took } => {
                let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                self.replica.step(now, Input::Scrubbed { is_clean, took_ms }, effects);
            }
            Command::Look(look) => look(&self.replica, &self.committer),
            Command::Stop => return true,
        }
        false
    }

    fn ticket(&mut self, asker: Asker) -> RequestTicket {
        self.next_ticket += 1;
        self.askers.insert(self.next_ticket, asker);
        self.next_ticket
    }

    /// Hands a batch to the committer that the replica does not know of.
    fn store(&mut self, batch: Batch, reply: oneshot::Sender<()>) {
        self.next_other += 1;
        let id = folkmoot_core::store::BatchId(OTHER | self.next_other);
        // Who waits for a batch that cannot be handed over is told by the end of its channel.
        if self.submit(Submission { id, batch, marks: Vec::new() }) {
            self.others.insert(id.0, reply);
        }
    }

    fn done(&mut self, completion: Completion, effects: &mut Vec<Effect>) {
        if let Some(reply) = self.others.remove(&completion.id.0) {
            match completion.outcome {
                // Who asked may have gone.
                Outcome::Durable => drop(reply.send(())),
                Outcome::Unknown(reason) => self.halt(crate::api::error_chain(reason.as_ref())),
            }
            return;
        }
        let id = BatchId(completion.id.0);
        let input = match completion.outcome {
            Outcome::Durable => Input::Committed(id),
            Outcome::Unknown(reason) => Input::CommitFailed(id, crate::api::error_chain(reason.as_ref())),
        };
        self.replica.step(self.clock.now(), input, effects);
    }

    /// Hands a batch to the committer; returns whether it took it.
    fn submit(&mut self, submission: Submission) -> bool {
        // The replica keeps at most two batches on their way and the audit log one, far fewer than the committer's queue takes.
        let taken = self.committer.try_submit(submission);
        if let Err(error) = &taken {
            self.halt(format!("hand a batch to the committer: {error}"));
        }
        taken.is_ok()
    }

    fn halt(&mut self, reason: String) {
        self.halted.send_if_modified(|halted| {
            // The replica says it again at every step; people want to know the first reason, once.
            if halted.is_some() {
                return false;
            }
            tracing::error!(%reason, "the node cannot persist any more and takes no writes");
            *halted = Some(reason);
            true
        });
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        // Before anybody is told of places in the feed.
        self.published.show(&mut self.replica);
        for effect in effects {
            match effect {
                Effect::Commit { id, batch, own_heads } => {
                    let marks = own_heads.into_iter().map(|(stream, seq, op)| (stream, Mark { seq, op })).collect();
                    let id = folkmoot_core::store::BatchId(id.0);
                    self.submit(Submission { id, batch, marks });
                }
                Effect::Send { peer, lane, bytes } => self.send(peer, lane, bytes),
                Effect::Disconnect { peer, reason } => self.notice(Notice::Disconnect(peer, Cut::Replica(reason))),
                Effect::Misbehaved { peer, what } => {
                    tracing::warn!(%peer, %what, "a member did what no correct node does");
                    metrics::counter!("folkmoot_replication_misbehaviours_total", "what" => what.name()).increment(1);
                }
                Effect::WriteDone { ticket, result } => match self.askers.remove(&ticket) {
                    Some(Asker::Write(reply)) => drop(reply.send(result)),
                    Some(Asker::Many(many, index)) => answer_one(&many, index, result),
                    Some(Asker::Act(_)) | None => {}
                },
                Effect::ActDone { ticket, result } => {
                    if let Some(Asker::Act(reply)) = self.askers.remove(&ticket) {
                        let _ = reply.send(result);
                    }
                }
                Effect::Advanced { feed, shards } => {
                    self.published.advance(&self.replica, feed, &shards);
                    self.feed.send_if_modified(|seen| {
                        let moved = *seen != feed;
                        *seen = feed;
                        moved
                    });
                }
                Effect::MembersChanged => self.tell_members(),
                Effect::Scrub => self.scrubber.begin(),
                Effect::ErasuresCarriedOut(acts) => self.notice(Notice::Erased(acts)),
                Effect::EvidenceGiven { act, streams } => self.notice(Notice::Evidence(act, streams)),
                Effect::Alarm { kind, detail } => {
                    tracing::error!(kind, detail, "alarm");
                    metrics::counter!("folkmoot_alarms_total", "kind" => kind).increment(1);
                }
                Effect::Halt(reason) => self.halt(reason),
                // New effects must be carried out here; core says which there are.
                other => tracing::error!(?other, "an effect that this program does not know"),
            }
        }
    }

    fn send(&mut self, peer: AuthorKey, lane: Lane, bytes: bytes::Bytes) {
        if !self.outbox.send(peer, lane, bytes) {
            self.notice(Notice::Disconnect(peer, Cut::QueueFull));
        }
    }

    fn notice(&self, notice: Notice) {
        // Without a network nobody listens.
        let _ = self.notices.send(notice);
    }

    fn tell_members(&self) {
        let now = folkmoot_core::hlc::Hlc::new(wall_ms(), 0);
        let members = self.replica.authority().members(now).into_iter().map(|member| member.key).collect();
        self.notice(Notice::Members(members));
    }
}

fn answer_one(many: &std::sync::Mutex<Many>, index: usize, result: Result<WriteOutcome, WriteError>) {
    let Ok(mut many) = many.lock() else { return };
    if let Some(slot) = many.answers.get_mut(index)
        && slot.is_none()
    {
        *slot = Some(result);
        many.missing -= 1;
    }
    if many.missing == 0
        && let Some(reply) = many.reply.take()
    {
        let answers = std::mem::take(&mut many.answers).into_iter().flatten().collect();
        let _ = reply.send(answers);
    }
}
