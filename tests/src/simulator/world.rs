//! Events, the network, and what carries out the effects of replicas.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use folkmoot_core::id::{ClusterId, OpId, PrincipalId, StreamId};
use folkmoot_core::keys::SecretKey;
use folkmoot_core::replica::{BatchId, Effect, Input, Replica, RequestTicket};
use folkmoot_core::replication::{Input as NetInput, Lane, limits};
use folkmoot_core::store::keys::{Key as _, OpKey};
use folkmoot_core::store::{Batch, Durability, Keyspace, Store as _};

use super::erasing;
use super::faults::{self, Fault, Plan};
use super::hostile;
use super::meter::{Costs, Meter};
use super::node::{self, Node, Ops};
use super::random::Random;
use super::witnessing;
use super::workload::Workload;
use super::{DOCUMENT_CACHE_SMALL, Options, Report, Trace, Trouble};
use crate::agenda::Agenda;

/// Honest nodes where there are no faults.
const HONEST: usize = 3;
/// In one of so many runs there is room for so few names of an author's transactions that wait.
const WAITING_SMALL_EVERY: u64 = 5;
/// In every so-manieth world the disks are sealed.
const SEALED_EVERY: u64 = 3;
const WAITING_SMALL: usize = 5;
/// How often broken connections are tried again.
const RECONNECT_MS: u64 = 700;
/// How long the healed world may take to agree: searches are repeated after at most a minute.
const CONVERGENCE_MS_MAX: u64 = 300_000;
/// After every so many events the bounds of what a node keeps are checked: a prime, so that no kind of event escapes.
const FIGURES_EVERY: u64 = 7;
/// How often it is looked whether the replicas agree.
const LOOK_MS: u64 = 1_000;
/// Looks in a row that must find agreement: what is on its way may still change it.
const LOOKS: u32 = 3;

/// Something that happens.
pub(super) enum Event {
    /// A frame reaches its receiver.
    Frame { to: usize, from: usize, session: u64, lane: Lane, bytes: Bytes },
    /// A node notices that a connection is gone.
    Down { node: usize, life: u64, peer: usize, session: u64 },
    /// The disk has done the oldest batch.
    Disk { node: usize, life: u64 },
    /// A node hears of it.
    Committed { node: usize, life: u64, batch: BatchId },
    /// A node does some work and flushes.
    Pump { node: usize, life: u64 },
    /// A node's engine is due.
    Tick { node: usize, life: u64, at: u64 },
    /// A scrub of the disk is over.
    Scrubbed { node: usize, life: u64, is_clean: bool },
    /// Connections are tried again.
    Reconnect,
    /// A client writes.
    Write,
    /// Who means harm does some.
    Strike,
    /// Something breaks or is mended.
    Fault(Fault),
}

/// A connection between two nodes.
#[derive(Default)]
pub(super) struct Link {
    pub(super) session: u64,
    pub(super) up: bool,
    pub(super) blocked: bool,
    pub(super) stalled_until: u64,
    /// Slowness of this link.
    pub(super) delay_ms: u64,
    /// When the last frame of a lane arrives.
    pub(super) last: BTreeMap<(usize, Lane), u64>,
}

/// The simulated world.
pub(super) struct World {
    pub(super) options: Options,
    pub(super) random: Random,
    pub(super) elapsed: u64,
    agenda: Agenda<Event>,
    pub(super) nodes: Vec<Node>,
    /// Principals for which the nodes write.
    pub(super) served: Vec<PrincipalId>,
    pub(super) links: BTreeMap<(usize, usize), Link>,
    pub(super) cluster: ClusterId,
    pub(super) plan: Plan,
    pub(super) workload: Workload,
    pub(super) report: Report,
    pub(super) ops: Ops,
    /// Places of every op that was ever on a disk.
    pub(super) durable: BTreeSet<(StreamId, u64, OpId)>,
    /// When each node first banned whom.
    pub(super) banned: BTreeMap<(usize, usize), u64>,
    /// What each author signed at each place.
    pub(super) signed: BTreeMap<(StreamId, u64), OpId>,
    pub(super) failure: Option<String>,
    /// Measures, if that is wanted, and then has measured.
    pub(super) meter: Option<Meter>,
    pub(super) costs: Costs,
}

pub(super) const fn pair(a: usize, b: usize) -> (usize, usize) {
    if a < b { (a, b) } else { (b, a) }
}

impl World {
    pub(super) fn new(options: Options) -> Self {
        let mut random = Random::new(options.seed);
        let honest = if options.trouble == Trouble::Faults { 3 + random.index(3) } else { HONEST };
        let count = honest + usize::from(matches!(options.trouble, Trouble::Attack(_)));
        let (mut nodes, served) = node::found(
            count,
            options.seed.is_multiple_of(SEALED_EVERY),
            options.trouble == Trouble::Faults && witnessing::has_witnesses(options.seed),
            &mut random,
        );
        if random.chance(20) {
            nodes.iter_mut().for_each(|node| node.cache_bytes = DOCUMENT_CACHE_SMALL);
        }
        // Pages so small that there are several, and gaps so small that there are any.
        let gap = if random.chance(50) { random.within(10, 200) } else { limits::BULK_GAP_OPS };
        nodes.iter_mut().for_each(|node| node.bulk = (1 + random.index(6), gap));
        if options.seed.is_multiple_of(WAITING_SMALL_EVERY) {
            nodes.iter_mut().for_each(|node| node.waiting_max = WAITING_SMALL);
        }
        let cluster = nodes[0].identity.cluster;
        let mut durable = BTreeSet::new();
        let ops = Ops::new(cluster);
        for (_, op) in ops.all(&*nodes[0].store) {
            durable.insert((op.stream(), op.header().seq, op.id()));
        }
        let mut links = BTreeMap::new();
        for b in 0..count {
            for a in 0..b {
                links.insert((a, b), Link { delay_ms: random.within(1, 60), ..Link::default() });
            }
        }
        let mut plan = match options.trouble {
            Trouble::Faults => {
                let mut plan = Plan::new(count, options.minutes, &mut random);
                plan.faults.extend(erasing::faults(options.seed, options.minutes, count));
                plan.faults.sort_by_key(|(at, _)| *at);
                plan
            }
            Trouble::Attack(_) | Trouble::Nothing => Plan::default(),
        };
        if let Trouble::Attack(attack) = options.trouble {
            plan.villain = Some(honest);
            nodes[honest].villain = Some(hostile::villain(attack, &nodes[honest], cluster));
        }
        Self {
            options,
            random,
            elapsed: 0,
            agenda: Agenda::default(),
            nodes,
            served,
            links,
            cluster,
            plan,
            workload: Workload::default(),
            report: Report { replicas: count as u64, ..Report::default() },
            ops,
            durable,
            banned: BTreeMap::new(),
            signed: BTreeMap::new(),
            failure: None,
            meter: None,
            costs: Costs::default(),
        }
    }

    pub(super) const fn elapsed_ms(&self) -> u64 {
        self.elapsed
    }

    pub(super) fn run(&mut self) -> Result<Report, String> {
        let runs = |node: &usize| self.plan.joiner != Some(*node) && self.nodes[*node].villain.is_none();
        for node in (0..self.nodes.len()).filter(runs).collect::<Vec<_>>() {
            self.start(node, None);
        }
        self.at(0, Event::Reconnect);
        if self.plan.villain.is_some() {
            self.at(hostile::BEGIN_MS, Event::Strike);
        }
        self.at(100, Event::Write);
        for (at, fault) in std::mem::take(&mut self.plan.faults) {
            self.at(at, Event::Fault(fault));
        }
        let end = self.options.minutes * 60_000;
        self.run_until(end)?;
        self.check_banned()?;
        self.end_metering();
        self.heal();
        let healed = self.elapsed;
        let mut looks = 0;
        while looks < LOOKS {
            self.run_until(self.elapsed + LOOK_MS)?;
            // The last look is a closer one: what is still searched for by name does not show in digests.
            let what = match self.disagreement() {
                None if looks + 1 == LOOKS => self.difference().err(),
                other => other,
            };
            match what {
                None => looks += 1,
                Some(_) if self.elapsed - healed < CONVERGENCE_MS_MAX => looks = 0,
                Some(what) => {
                    return Err(format!("no agreement {} s after healing: {what}", CONVERGENCE_MS_MAX / 1_000));
                }
            }
        }
        self.report.converged_after_ms = self.elapsed - healed - u64::from(LOOKS - 1) * LOOK_MS;
        self.check_end()?;
        Ok(self.report)
    }

    fn run_until(&mut self, end: u64) -> Result<(), String> {
        while self.agenda.next_at().is_some_and(|at| at <= end) {
            let Some((at, event)) = self.agenda.take() else { break };
            self.elapsed = at;
            self.report.events += 1;
            self.handle(event);
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
        }
        self.elapsed = end;
        Ok(())
    }

    /// Schedules an event so many milliseconds from now.
    pub(super) fn at(&mut self, delay: u64, event: Event) {
        self.agenda.put(self.elapsed + delay, event);
    }

    /// Prints a line, if that is wanted.
    pub(super) fn note(&self, line: impl FnOnce() -> String) {
        if self.options.trace == Trace::Printed {
            println!("{:>7}.{:03}  {}", self.elapsed / 1_000, self.elapsed % 1_000, line());
        }
    }

    pub(super) fn fail(&mut self, what: String) {
        self.failure.get_or_insert(what);
    }

    fn mix(&mut self, value: u64) {
        let mixed = (self.report.fingerprint.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
        self.report.fingerprint = mixed;
    }

    fn handle(&mut self, event: Event) {
        self.mix(self.elapsed);
        let alive = |world: &Self, node: usize, life: u64| {
            let runs = world.nodes[node].replica.is_some() || world.nodes[node].villain.is_some();
            runs && world.nodes[node].life == life
        };
        match event {
            Event::Frame { to, from, session, lane, bytes } if self.plan.villain == Some(to) => {
                if self.nodes[to].peers.get(&from) == Some(&session) {
                    self.villain_hears(to, from, lane, &bytes);
                }
            }
            Event::Frame { to, from, session, lane, bytes } => {
                if self.nodes[to].replica.is_some() && self.nodes[to].peers.get(&from) == Some(&session) {
                    self.report.frames += 1;
                    self.mix(bytes.iter().fold(to as u64, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte)));
                    let peer = self.nodes[from].author();
                    self.step(to, Input::Net(NetInput::Frame { peer, lane, bytes }));
                }
            }
            Event::Down { node, life, peer, session } => {
                if alive(self, node, life) && self.nodes[node].peers.get(&peer) == Some(&session) {
                    self.peer_down(node, peer);
                }
            }
            Event::Disk { node, life } => {
                if alive(self, node, life) {
                    self.disk_done(node);
                }
            }
            Event::Committed { node, life, batch } => {
                if alive(self, node, life) {
                    self.step(node, Input::Committed(batch));
                }
            }
            Event::Scrubbed { node, life, is_clean } => {
                if alive(self, node, life) {
                    self.step(node, Input::Scrubbed { is_clean, took_ms: 0 });
                }
            }
            Event::Pump { node, life } => {
                if alive(self, node, life) {
                    self.pump(node);
                }
            }
            Event::Tick { node, life, at } => {
                // One that was brought forward meanwhile is void.
                if alive(self, node, life) && self.nodes[node].tick_at == Some(at) {
                    self.nodes[node].tick_at = None;
                    self.step(node, Input::Net(NetInput::Tick));
                }
            }
            Event::Reconnect => self.reconnect(),
            Event::Write => self.client(),
            Event::Strike => self.strike(),
            Event::Fault(fault) => {
                self.report.faults += 1;
                self.do_fault(fault);
            }
        }
    }

    fn end_metering(&mut self) {
        let Some(mut meter) = self.meter.take() else { return };
        let honest = || self.nodes.iter().filter(|node| node.villain.is_none());
        let usage = honest().filter_map(|node| node.store.usage().ok());
        meter.costs.disk_bytes_max = usage.map(|usage| usage.disk_bytes).max().unwrap_or(0);
        meter.costs.simulated = std::time::Duration::from_millis(self.elapsed);
        meter.costs.replicas = u32::try_from(honest().count()).unwrap_or(u32::MAX);
        meter.costs.acknowledged = self.report.acknowledged;
        meter.costs.asked = self.workload.asked();
        self.costs = meter.costs;
    }

    // ---- nodes ----

    pub(super) fn step(&mut self, node: usize, input: Input) {
        let now = self.nodes[node].now(self.elapsed);
        let mut effects = Vec::new();
        let Some(replica) = self.nodes[node].replica.as_mut() else { return };
        Meter::timed(&mut self.meter, || replica.step(now, input, &mut effects));
        if self.report.events.is_multiple_of(FIGURES_EVERY) {
            self.check_figures(node);
        }
        self.carry_out(node, effects);
        self.schedule(node);
    }

    /// Nothing that a node keeps has outgrown its bound.
    fn check_figures(&mut self, node: usize) {
        let figures = self.nodes[node].replica.as_ref().map(Replica::figures).unwrap_or_default();
        if let (Some(meter), Some(replica)) = (&mut self.meter, &self.nodes[node].replica) {
            meter.look_at(replica, &figures);
        }
        let spilled = self.nodes[node].replica.as_ref().map_or(0, Replica::transactions_spilled);
        self.report.spilled_max = self.report.spilled_max.max(spilled);
        if let Some(figure) = figures.iter().find(|figure| !figure.is_within()) {
            self.fail(format!("{} keeps more than it may: {figure:?}", self.nodes[node].name));
        }
    }

    /// Lets a node work, as its thread does when nothing else is to do.
    fn pump(&mut self, node: usize) {
        self.nodes[node].pump_due = false;
        let now = self.nodes[node].now(self.elapsed);
        let slice = 1 + self.random.index(64);
        let mut effects = Vec::new();
        let Some(replica) = self.nodes[node].replica.as_mut() else { return };
        Meter::timed(&mut self.meter, || {
            replica.work(now, slice, &mut effects);
            replica.flush(now, &mut effects);
        });
        self.carry_out(node, effects);
        self.schedule(node);
    }

    /// Sees to it that the node is called when it wants to be.
    fn schedule(&mut self, node: usize) {
        let elapsed = self.elapsed;
        let state = &mut self.nodes[node];
        let Some(replica) = &state.replica else { return };
        let life = state.life;
        let wakeup = state.clock.when(replica.next_wakeup_ms()).max(elapsed + 1);
        let busy = replica.unapplied() > 0 || (replica.has_staged() && replica.batches_in_flight() < 2);
        if busy && !state.pump_due {
            state.pump_due = true;
            let delay = self.random.within(0, 4);
            self.at(delay, Event::Pump { node, life });
        }
        let state = &mut self.nodes[node];
        if state.tick_at.is_none_or(|at| wakeup < at) {
            state.tick_at = Some(wakeup);
            self.at(wakeup - elapsed, Event::Tick { node, life, at: wakeup });
        }
    }

    fn carry_out(&mut self, node: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Commit { id, batch, .. } => self.commit(node, id, batch),
                Effect::Send { peer, lane, bytes } => {
                    let to = self.peer_index(node, peer);
                    if let Some((to, session)) = to {
                        let bytes = self.forged(node, bytes);
                        self.send(node, to, session, lane, bytes);
                    }
                }
                Effect::Disconnect { peer, reason } => {
                    if let Some((to, _)) = self.peer_index(node, peer) {
                        self.note(|| format!("{} cuts {}: {reason}", self.nodes[node].name, self.nodes[to].name));
                        self.note_ban(node, to, reason);
                        self.nodes[node].peers.remove(&to);
                        self.break_link(node, to);
                    }
                }
                Effect::Misbehaved { peer, what } => {
                    let accused = self.nodes.iter().position(|other| other.author() == peer);
                    self.report.misdeeds += 1;
                    if self.is_deserved(accused, what) || !what.is_proof() {
                        self.note(|| format!("{} sees a lie: {what}", self.nodes[node].name));
                    } else {
                        let name = accused.map(|accused| &self.nodes[accused].name);
                        self.fail(format!("{} accuses {name:?} of {what}", self.nodes[node].name));
                    }
                }
                Effect::WriteDone { ticket, result } => self.write_done(node, ticket, result),
                Effect::ActDone { ticket, result } => self.act_done(node, ticket, result.map(|done| done.op)),
                Effect::Alarm { kind, detail } => {
                    if kind == "false_documents" {
                        self.refuted(node, &detail);
                    }
                    self.note(|| format!("{} alarm {kind}: {detail}", self.nodes[node].name));
                }
                Effect::Halt(reason) => {
                    // One that finds its twin's ops in its own stream may well stop.
                    if self.nodes[node].fail_next_commit || self.plan.is_equivocator(node) {
                        self.note(|| format!("{} halts: {reason}", self.nodes[node].name));
                        self.crash(node);
                        return;
                    }
                    self.fail(format!("{} halts: {reason}", self.nodes[node].name));
                }
                Effect::Scrub => self.scrub(node),
                Effect::ErasuresCarriedOut(acts) => {
                    self.note(|| format!("{} tells of {} erasures", self.nodes[node].name, acts.len()));
                }
                Effect::EvidenceGiven { streams, .. } => {
                    self.note(|| format!("{} gives evidence of {streams} forked streams", self.nodes[node].name));
                }
                Effect::Advanced { .. } | Effect::MembersChanged => {}
                other => self.fail(format!("an effect that the simulator does not know: {other:?}")),
            }
        }
    }

    fn act_done(&mut self, node: usize, ticket: RequestTicket, result: Result<OpId, folkmoot_core::replica::ActError>) {
        self.note(|| format!("{} act {ticket}: {result:?}", self.nodes[node].name));
        if result.is_ok() && ticket == faults::REMOVAL {
            self.plan.removal_done = true;
        }
    }

    // ---- disk ----

    fn commit(&mut self, node: usize, id: BatchId, batch: Batch) {
        let author = self.nodes[node].author();
        let owner = self.nodes[node].identity.owner.as_ref().map(SecretKey::author);
        let mut wrong = None;
        for (keyspace, key, value) in batch.writes() {
            if keyspace != Keyspace::Ops {
                continue;
            }
            // Ops are removed from their places only when a stream's main chain changes to another branch.
            let Some(value) = value else { continue };
            let op = self.ops.decode(value);
            let (Ok(place), Some(op)) = (OpKey::decode(key), op) else {
                wrong.get_or_insert_with(|| "writes an op that does not decode".to_owned());
                continue;
            };
            let at = (place.stream, place.seq);
            let own = op.header().author == author || Some(op.header().author) == owner;
            if own && !self.plan.is_equivocator(node) {
                let known = *self.signed.entry(at).or_insert(op.id());
                if known != op.id() {
                    wrong.get_or_insert_with(|| format!("has two ops of its own at {}#{}", at.0, at.1));
                }
            } else if !own && !self.durable.contains(&(at.0, at.1, op.id())) && !self.is_villains(&op) {
                wrong.get_or_insert_with(|| format!("was sent {}#{}, which is on no disk", place.stream, place.seq));
            }
        }
        if let Some(wrong) = wrong {
            self.fail(format!("{} {wrong}", self.nodes[node].name));
        }
        self.nodes[node].disk.push_back((id, batch));
        if self.nodes[node].disk.len() == 1 {
            self.start_disk(node);
        }
    }

    /// In a run that is measured, returns the chance of something at this time: runs that are compared have the same disks and links, or
    /// their luck would be taken for what is measured.
    fn chance_of_now(&self, what: &[u64]) -> Option<Random> {
        /// How long what came by chance lasts.
        const PERIOD_MS: u64 = 100;
        self.options.write_every_ms?;
        Some(Random::of(self.options.seed, &[what, &[self.elapsed / PERIOD_MS][..]].concat()))
    }

    fn start_disk(&mut self, node: usize) {
        let mut chance = self.chance_of_now(&[0, node as u64]);
        let chance = chance.as_mut().unwrap_or(&mut self.random);
        let delay = if chance.chance(3) { chance.within(50, 1_500) } else { chance.within(1, 20) };
        let life = self.nodes[node].life;
        self.at(delay, Event::Disk { node, life });
    }

    fn disk_done(&mut self, node: usize) {
        let Some((id, batch)) = self.nodes[node].disk.pop_front() else { return };
        if self.nodes[node].fail_next_commit {
            self.nodes[node].store.fail_next_sync();
        }
        match self.nodes[node].store.commit(&batch, Durability::Synced) {
            Ok(()) => {
                self.on_disk(&batch);
                let delay = self.random.within(0, 5);
                let life = self.nodes[node].life;
                self.at(delay, Event::Committed { node, life, batch: id });
                if !self.nodes[node].disk.is_empty() {
                    self.start_disk(node);
                }
            }
            Err(error) => {
                self.nodes[node].failed = Some(batch);
                self.step(node, Input::CommitFailed(id, error.to_string()));
            }
        }
    }

    /// Remembers which ops a batch brought to a disk.
    pub(super) fn on_disk(&mut self, batch: &Batch) {
        for (keyspace, _, value) in batch.writes() {
            if keyspace == Keyspace::Ops
                && let Some(op) = value.and_then(|value| self.ops.decode(value))
            {
                self.durable.insert((op.stream(), op.header().seq, op.id()));
                let is_honest = !self.is_villains(&op);
                if let Some(meter) = self.meter.as_mut().filter(|_| is_honest) {
                    meter.on_disk(op.id(), self.elapsed, HONEST);
                }
            }
        }
    }

    // ---- network ----

    fn peer_index(&self, node: usize, peer: folkmoot_core::id::AuthorKey) -> Option<(usize, u64)> {
        let mut peers = self.nodes[node].peers.iter();
        peers.find(|(index, _)| self.nodes[**index].author() == peer).map(|(index, session)| (*index, *session))
    }

    pub(super) fn send(&mut self, from: usize, to: usize, session: u64, lane: Lane, bytes: Bytes) {
        let elapsed = self.elapsed;
        let mut chance = self.chance_of_now(&[1, from as u64, to as u64]);
        let chance = chance.as_mut().unwrap_or(&mut self.random);
        let jitter = if chance.chance(2) { chance.within(0, 800) } else { chance.within(0, 10) };
        let Some(link) = self.links.get_mut(&pair(from, to)) else { return };
        if !link.up || link.session != session {
            return;
        }
        // A lane is a stream: nothing overtakes within it.
        let last = link.last.entry((from, lane)).or_default();
        let at = (elapsed + link.delay_ms + jitter).max(link.stalled_until).max(*last);
        *last = at;
        self.at(at - elapsed, Event::Frame { to, from, session, lane, bytes });
    }

    fn peer_down(&mut self, node: usize, peer: usize) {
        self.nodes[node].peers.remove(&peer);
        let peer = self.nodes[peer].author();
        if let Some(villain) = self.nodes[node].villain.as_mut() {
            return villain.disconnected(&peer);
        }
        self.step(node, Input::Net(NetInput::PeerDown { peer }));
    }

    /// Breaks a connection; each side notices in its own time.
    pub(super) fn break_link(&mut self, a: usize, b: usize) {
        let Some(link) = self.links.get_mut(&pair(a, b)) else { return };
        if !std::mem::take(&mut link.up) {
            return;
        }
        let session = link.session;
        for (node, peer) in [(a, b), (b, a)] {
            let delay = self.random.within(0, 1_500);
            let life = self.nodes[node].life;
            self.at(delay, Event::Down { node, life, peer, session });
        }
    }

    fn reconnect(&mut self) {
        let delay = self.random.within(RECONNECT_MS / 2, RECONNECT_MS * 2);
        self.at(delay, Event::Reconnect);
        let down: Vec<(usize, usize)> =
            self.links.iter().filter(|(_, link)| !link.up && !link.blocked).map(|(pair, _)| *pair).collect();
        for (a, b) in down {
            if self.random.chance(70) {
                self.connect(a, b);
            }
        }
    }

    fn connect(&mut self, a: usize, b: usize) {
        let runs = |node: &Node| node.replica.is_some() || node.villain.is_some();
        if !runs(&self.nodes[a]) || !runs(&self.nodes[b]) || !self.plan.may_connect(a, b) {
            return;
        }
        // Usually both have noticed the end of the last session. If not, the new one takes its place.
        let stale = self.nodes[a].peers.contains_key(&b) || self.nodes[b].peers.contains_key(&a);
        if stale && self.random.chance(90) {
            return;
        }
        let Some(link) = self.links.get_mut(&pair(a, b)) else { return };
        link.session += 1;
        link.up = true;
        link.last.clear();
        let session = link.session;
        for (node, peer) in [(a, b), (b, a)] {
            self.nodes[node].peers.insert(peer, session);
        }
        for (node, peer) in [(a, b), (b, a)] {
            let peer = self.nodes[peer].author();
            if let Some(villain) = self.nodes[node].villain.as_mut() {
                villain.connected(peer);
                continue;
            }
            self.step(node, Input::Net(NetInput::PeerUp { peer }));
        }
    }
}
