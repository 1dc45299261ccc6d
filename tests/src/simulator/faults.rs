//! What breaks, when, and how it is mended.

use std::sync::Arc;

use folkmoot_core::authority::Reach;
use folkmoot_core::op::{Act, Revoke, RevokeTarget};
use folkmoot_core::replica::{ActRequest, Input, Replica, RequestTicket, Signer};
use folkmoot_core::store::{Durability, Store as _, Survivors};

use super::checks;
use super::node::{self, Node};
use super::random::Random;
use super::world::{Event, Link, World, pair};

const MINUTE_MS: u64 = 60_000;
/// Ticket of the act that removes a node, and of other acts.
pub(super) const REMOVAL: RequestTicket = 1;
const OTHER_ACT: RequestTicket = 2;

/// Something that breaks or is mended.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// A node loses its power.
    Crash(usize),
    /// It is started again.
    Restart(usize),
    /// The next commit of a node fails.
    FailCommit(usize),
    /// A connection breaks; it may come back at once.
    Break(usize, usize),
    /// The nodes of the bit mask and the others cannot reach each other.
    Partition(u64),
    /// Every partition ends.
    Mend,
    /// Nothing moves on a link for so many milliseconds, but it stays up.
    Stall(usize, usize, u64),
    /// A clock is set.
    Skew(usize, i64),
    /// The data directory is copied.
    Backup(usize),
    /// The copy takes the place of the data directory.
    Rollback(usize),
    /// An owner removes a node, with pins.
    Remove(usize),
    /// An admin removes the principal of this number, for whom the nodes write, with pins in their streams.
    RemoveServed(usize),
    /// It is taken back.
    TakeBack(usize),
    /// The first node erases documents, drawn by this.
    Erase(u64),
    /// A node is started twice with one identity and one session.
    Clone(usize),
    /// The second one is shut off.
    EndClone(usize),
}

/// Who does what in a run.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) faults: Vec<(u64, Fault)>,
    pub(super) healed: bool,
    /// The node that is (being) removed.
    pub(super) removed: Option<usize>,
    pub(super) removal_done: bool,
    /// The node that equivocated, and its twin.
    pub(super) cloned: Option<(usize, usize)>,
    /// The node that lies.
    pub(super) hostile: Option<usize>,
    /// The node whose data directory was replaced by an old copy.
    pub(super) rolled_back: Option<usize>,
    /// The node that is started for the first time when the others have written for a while.
    pub(super) joiner: Option<usize>,
    /// The one that is none, and means harm.
    pub(super) villain: Option<usize>,
    equivocator: Option<usize>,
    will_be_removed: Option<usize>,
}

impl Plan {
    /// Draws the faults of a run.
    pub(super) fn new(count: usize, minutes: u64, random: &mut Random) -> Self {
        let end = minutes * 60_000;
        let mut plan = Self::default();
        let mut faults = Vec::new();
        let mut roles: Vec<usize> = (1..count).collect();
        let mut draw = |random: &mut Random, percent: u64| {
            (random.chance(percent) && !roles.is_empty()).then(|| roles.remove(random.index(roles.len())))
        };
        if let Some(node) = draw(random, 50) {
            let at = random.within(end / 10, end / 2);
            faults.push((at, Fault::Backup(node)));
            faults.push((at + random.within(1_000, end / 3), Fault::Rollback(node)));
        }
        if let Some(node) = draw(random, 40) {
            let at = random.within(end / 10, end / 2);
            faults.push((at, Fault::Clone(node)));
            faults.push((at + random.within(5_000, end / 4), Fault::EndClone(node)));
            plan.equivocator = Some(node);
        }
        let victim = match plan.equivocator {
            Some(node) if random.chance(40) => Some(node),
            _ => draw(random, 50),
        };
        if let Some(node) = victim {
            let at = random.within(end / 3, end * 3 / 4);
            if random.chance(60) {
                faults.push((at.saturating_sub(random.within(500, 20_000)), Fault::Partition(1 << node)));
            }
            faults.push((at, Fault::Remove(node)));
            plan.will_be_removed = Some(node);
        }
        plan.hostile = draw(random, 60);
        plan.joiner = draw(random, 70);
        if let Some(node) = plan.joiner {
            let at = random.within(end / 10, end * 2 / 3);
            faults.push((at, Fault::Restart(node)));
            // While it takes what there is, it falls, and so does who gives it.
            for victim in 0..count {
                if victim == node || random.chance(40) {
                    faults.push((at + random.within(100, 4_000), Fault::Crash(victim)));
                }
            }
        }
        let mut at = 0;
        loop {
            at += random.within(1_000, 15_000);
            if at >= end {
                break;
            }
            let a = random.index(count);
            let b = (a + 1 + random.index(count - 1)) % count;
            faults.push((
                at,
                match random.index(12) {
                    0..=2 => Fault::Crash(a),
                    3 => Fault::FailCommit(a),
                    4 | 5 => Fault::Break(a, b),
                    6 | 7 => Fault::Partition(random.within(1, (1 << count) - 1)),
                    8 | 9 => Fault::Mend,
                    10 => Fault::Stall(a, b, random.within(500, 20_000)),
                    _ => {
                        // A clock that is far ahead stops the others from taking what it dates until they get there, so the
                        // run would not end; one that is far behind takes nothing itself until it is set.
                        let behind = if random.chance(80) { 4 * MINUTE_MS } else { 90 * MINUTE_MS };
                        Fault::Skew(
                            a,
                            i64::try_from(random.within(0, behind + 4 * MINUTE_MS)).unwrap_or(0) - behind as i64,
                        )
                    }
                },
            ));
        }
        for which in 0..=node::LIMITED {
            if !random.chance(60) {
                continue;
            }
            let at = random.within(end / 4, end * 3 / 4);
            if random.chance(60) {
                let split = Fault::Partition(random.within(1, (1 << count) - 1));
                faults.push((at.saturating_sub(random.within(500, 20_000)), split));
            }
            faults.push((at, Fault::RemoveServed(which)));
            if random.chance(50) {
                faults.push((at + random.within(1_000, end / 4), Fault::TakeBack(which)));
            }
        }
        faults.sort_by_key(|(at, _)| *at);
        plan.faults = faults;
        plan
    }

    pub(super) fn is_equivocator(&self, node: usize) -> bool {
        self.cloned.is_some_and(|(one, two)| node == one || node == two)
    }

    /// Whether a node is one on which the others rely to the end.
    pub(super) fn is_honest(&self, node: usize) -> bool {
        !self.is_equivocator(node) && self.equivocator != Some(node) && self.will_be_removed != Some(node)
    }

    /// Twins have different peers, or nothing would be left to find out later.
    pub(super) fn may_connect(&self, a: usize, b: usize) -> bool {
        let Some((one, two)) = self.cloned.filter(|_| !self.healed) else { return true };
        let side = |node: usize, other: usize| match node {
            node if node == one => other != two && other.is_multiple_of(2),
            node if node == two => other != one && !other.is_multiple_of(2),
            _ => true,
        };
        side(a, b) && side(b, a)
    }
}

impl World {
    pub(super) fn do_fault(&mut self, fault: Fault) {
        if self.plan.healed {
            return;
        }
        self.note(|| format!("fault {fault:?}"));
        match fault {
            Fault::Crash(node) => self.crash(node),
            Fault::Restart(node) => {
                if self.nodes[node].replica.is_none() {
                    self.start(node, None);
                }
            }
            Fault::FailCommit(node) => self.nodes[node].fail_next_commit = true,
            Fault::Break(a, b) => self.break_link(a, b),
            Fault::Partition(mask) => self.partition(mask),
            Fault::Mend => self.links.values_mut().for_each(|link| link.blocked = false),
            Fault::Stall(a, b, ms) => {
                let until = self.elapsed + ms;
                if let Some(link) = self.links.get_mut(&pair(a, b)) {
                    link.stalled_until = until;
                }
            }
            Fault::Skew(node, skew) => self.nodes[node].clock.skew_ms = skew,
            Fault::Backup(node) => self.nodes[node].backup = Some(self.nodes[node].store.clone_synced()),
            Fault::Rollback(node) => self.roll_back(node),
            Fault::Remove(node) => self.remove(node),
            Fault::RemoveServed(which) => self.remove_served(which),
            Fault::TakeBack(which) => self.take_back(which),
            Fault::Erase(draw) => self.erase(draw),
            Fault::Clone(node) => self.clone_node(node),
            Fault::EndClone(node) => {
                if let Some((_, twin)) = self.plan.cloned {
                    self.crash(twin);
                }
                self.crash(node);
            }
        }
    }

    /// Starts a node. A new session begins, unless `seed` repeats an old one.
    pub(super) fn start(&mut self, node: usize, seed: Option<[u8; 32]>) {
        let seed = seed.unwrap_or_else(|| self.random.seed());
        self.nodes[node].clock.start(self.elapsed);
        let now = self.nodes[node].now(self.elapsed);
        let state = &mut self.nodes[node];
        state.life += 1;
        state.seed = seed;
        state.pump_due = false;
        state.tick_at = None;
        state.store.rotate();
        match Replica::open(
            node::config(state.cache_bytes, state.bulk, state.waiting_max),
            state.identity.clone(),
            state.store.clone(),
            &seed,
            now,
        ) {
            Ok(replica) => state.replica = Some(replica),
            Err(error) => {
                let what = format!("{} does not open: {error}", state.name);
                self.fail(what);
            }
        }
        self.step(node, Input::Net(folkmoot_core::replication::Input::Tick));
    }

    /// Cuts the power of a node. Of what was on its way to the disk, the oldest part may be there.
    pub(super) fn crash(&mut self, node: usize) {
        let Some(replica) = self.nodes[node].replica.take() else { return };
        self.report.add_bulk(checks::taken_in_bulk(&replica));
        self.nodes[node].fail_next_commit = false;
        let failed = self.nodes[node].failed.take();
        let survives = self.random.chance(50);
        self.nodes[node].store.crash(if survives { Survivors::Oldest(1) } else { Survivors::None });
        let disk = std::mem::take(&mut self.nodes[node].disk);
        let mut kept = self.random.index(disk.len() + 1);
        match failed {
            Some(batch) if survives => self.on_disk(&batch),
            // A journal loses its end, never its middle.
            Some(_) => kept = 0,
            None => {}
        }
        for (_, batch) in disk.iter().take(kept) {
            if self.nodes[node].store.commit(batch, Durability::Synced).is_ok() {
                self.on_disk(batch);
            }
        }
        let lost =
            self.nodes[node].acknowledged.iter().find(|tx| !self.ops.holds(&*self.nodes[node].store, tx)).copied();
        if let Some(tx) = lost {
            self.fail(format!("{} lost {tx:?}, which it had acknowledged", self.nodes[node].name));
        }
        self.nodes[node].peers.clear();
        for peer in 0..self.nodes.len() {
            if peer != node {
                self.break_link(node, peer);
            }
        }
        let is_twin = self.plan.cloned.is_some_and(|(_, twin)| twin == node);
        if !is_twin && !self.plan.healed {
            let delay = self.random.within(200, 20_000);
            self.at(delay, Event::Fault(Fault::Restart(node)));
        }
    }

    fn partition(&mut self, mask: u64) {
        let cut: Vec<(usize, usize)> =
            self.links.keys().filter(|(a, b)| (mask >> a) & 1 != (mask >> b) & 1).copied().collect();
        for (a, b) in cut {
            if let Some(link) = self.links.get_mut(&(a, b)) {
                link.blocked = true;
            }
            self.break_link(a, b);
        }
    }

    fn roll_back(&mut self, node: usize) {
        let Some(backup) = self.nodes[node].backup.take() else { return };
        self.crash(node);
        self.nodes[node].store = Arc::new(backup);
        self.plan.rolled_back = Some(node);
        let acknowledged = std::mem::take(&mut self.nodes[node].acknowledged);
        let others: Vec<usize> =
            (0..self.nodes.len()).filter(|other| *other != node && self.plan.is_honest(*other)).collect();
        for tx in acknowledged {
            if self.ops.holds(&*self.nodes[node].store, &tx) {
                self.nodes[node].acknowledged.push(tx);
            } else if !others.iter().any(|other| self.ops.holds(&*self.nodes[*other].store, &tx)) {
                self.workload.acknowledged.retain(|(by, acknowledged)| (*by, *acknowledged) != (node, tx));
            }
        }
    }

    fn remove(&mut self, victim: usize) {
        if self.plan.removal_done {
            return;
        }
        // Until the act is acknowledged: the owner's node may crash before it is.
        self.at(5_000, Event::Fault(Fault::Remove(victim)));
        self.plan.removed = Some(victim);
        let target = RevokeTarget::Principal(self.nodes[victim].identity.principal);
        let cascade = self.random.chance(50);
        let Some(replica) = &self.nodes[0].replica else { return };
        let reach = if cascade { Reach::Cascade } else { Reach::Target };
        let pins = replica.pins_for(&target, reach);
        let act = Act::Revoke(Revoke { target, pins, cascade, why: "simulated".to_owned() });
        let signer = if self.random.chance(50) { Signer::Owner } else { Signer::Node };
        self.step(0, Input::Act { ticket: REMOVAL, signer, request: ActRequest::One(act) });
    }

    /// Cuts what the nodes write for a principal, as far as the first one has not seen it. Nothing comes of it if that one is
    /// down.
    fn remove_served(&mut self, which: usize) {
        let target = RevokeTarget::Principal(self.served[which]);
        let Some(replica) = &self.nodes[0].replica else { return };
        let pins = replica.pins_for(&target, Reach::Target);
        let act = Act::Revoke(Revoke { target, pins, cascade: false, why: "simulated".to_owned() });
        self.step(0, Input::Act { ticket: OTHER_ACT, signer: Signer::Node, request: ActRequest::One(act) });
    }

    fn take_back(&mut self, which: usize) {
        let act = node::given_again(self.served[which], which);
        self.step(
            0,
            Input::Act { ticket: OTHER_ACT, signer: Signer::Node, request: ActRequest::For(self.served[which], act) },
        );
    }

    /// Starts a node twice: the two share a session, and at first what they write.
    fn clone_node(&mut self, node: usize) {
        self.crash(node);
        let twin = self.nodes.len();
        let seed = self.random.seed();
        let copy = Arc::new(self.nodes[node].store.clone_synced());
        let (name, identity) = (format!("{}'", self.nodes[node].name), self.nodes[node].identity.clone());
        let mut other = Node::new(name, identity, copy, self.nodes[node].clock);
        other.cache_bytes = self.nodes[node].cache_bytes;
        other.bulk = self.nodes[node].bulk;
        other.waiting_max = self.nodes[node].waiting_max;
        for index in 0..twin {
            let delay_ms = self.random.within(1, 60);
            self.links.insert((index, twin), Link { delay_ms, ..Link::default() });
        }
        self.nodes.push(other);
        self.plan.cloned = Some((node, twin));
        let shared = self.random.index(4);
        let requests: Vec<_> = (0..shared).map(|_| self.draw_request()).collect();
        for index in [node, twin] {
            self.start(index, Some(seed));
            let now = self.nodes[index].now(self.elapsed);
            let state = &mut self.nodes[index];
            let Some(replica) = state.replica.as_mut() else { return };
            for request in &requests {
                let input = Input::Write { ticket: 0, request: request.clone() };
                node::settle(replica, &state.store, now, Some(input));
            }
            for (_, op) in self.ops.all(&*self.nodes[index].store) {
                self.durable.insert((op.stream(), op.header().seq, op.id()));
            }
        }
    }

    /// Ends all faults and starts whatever is down.
    pub(super) fn heal(&mut self) {
        self.note(|| "healed".to_owned());
        self.plan.healed = true;
        if let Some((node, twin)) = self.plan.cloned {
            self.crash(twin);
            self.crash(node);
        }
        for link in self.links.values_mut() {
            link.blocked = false;
            link.stalled_until = 0;
        }
        for node in 0..self.nodes.len() {
            self.nodes[node].clock.skew_ms = 0;
            self.nodes[node].fail_next_commit = false;
            let is_twin = self.plan.cloned.is_some_and(|(_, twin)| twin == node);
            if self.nodes[node].replica.is_none() && !is_twin && self.nodes[node].villain.is_none() {
                self.start(node, None);
            }
        }
        if self.plan.villain.is_none() {
            self.pardon_all();
        }
    }
}
