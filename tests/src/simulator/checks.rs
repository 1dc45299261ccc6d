//! What must hold when everything is healed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use folkmoot_core::authority::{Closed, Verdict, reference};
use folkmoot_core::id::{OpId, StreamId};
use folkmoot_core::op::{Body, ChangeRef, Op};
use folkmoot_core::replica::{DocKey, Reader, Replica, TxRef, TxState, View, verify};
use folkmoot_core::replication::HeadState;
use folkmoot_core::store::keys::Key as _;
use folkmoot_core::store::{Keyspace, Order, Read as _, Span, Store};

use super::node::{self, Node, Ops};
use super::world::World;

impl World {
    /// The nodes that must agree.
    fn members(&self) -> Vec<usize> {
        // Of a node that ran twice the first goes on, and the second is gone.
        let twin = self.plan.cloned.map(|(_, twin)| twin);
        let gone = [self.plan.removed, twin, self.plan.villain];
        (0..self.nodes.len()).filter(|node| !gone.contains(&Some(*node))).collect()
    }

    /// Says in what the members do not agree yet.
    pub(super) fn disagreement(&self) -> Option<String> {
        let members = self.members();
        let mut first = None;
        for index in members {
            let node = &self.nodes[index];
            let name = &node.name;
            let Some(replica) = &node.replica else { return Some(format!("{name} is down")) };
            if replica.unapplied() > 0 || replica.has_staged() || replica.batches_in_flight() > 0 {
                let states = replica.tx_states();
                return Some(format!("{name} has work: {} ops to apply, {states:?}", replica.unapplied()));
            }
            if let Some(what) = Self::erasures_under_way(node, replica) {
                return Some(what);
            }
            if let Some(bulk) = replica.engine().bulks().first() {
                return Some(format!("{name} is still taking {} in bulk: {bulk:?}", bulk.shard));
            }
            if let Some(key) = left_of_bulk(node) {
                return Some(format!("{name} has something left of what it took in bulk: {key:?}"));
            }
            // A shard of which nothing counts is as good as one that never was.
            let digests = replica.engine().digests().filter(|(_, digest)| !digest.is_empty());
            let digests: Vec<_> = digests.map(|(shard, digest)| (shard.clone(), digest.to_bytes())).collect();
            let infos = match Reader::new(node.store.clone()).shards() {
                Ok(infos) => infos,
                Err(error) => return Some(format!("{name}: {error}")),
            };
            let documents: Vec<_> = infos
                .into_iter()
                .filter(|info| !info.shard.is_control() && !info.digest.is_empty())
                .map(|info| (info.shard, info.digest.to_bytes(), info.documents, info.bytes))
                .collect();
            match &first {
                None => first = Some((name, digests, documents)),
                Some((other, their_digests, their_documents)) => {
                    if *their_digests != digests {
                        return Some(format!("ops of {name} and {other} differ{}", self.op_differences(index)));
                    }
                    if *their_documents != documents {
                        return Some(format!(
                            "documents of {name} and {other} differ{}",
                            self.document_differences(index)
                        ));
                    }
                }
            }
        }
        None
    }

    fn op_differences(&self, index: usize) -> String {
        let first = self.members()[0];
        let heads = |node: usize| -> BTreeMap<StreamId, String> {
            let Some(replica) = &self.nodes[node].replica else { return BTreeMap::new() };
            let shards: Vec<_> = replica.engine().digests().map(|(shard, _)| shard.clone()).collect();
            let heads = shards.iter().flat_map(|shard| {
                replica.engine().heads(shard).map(move |(stream, head)| (stream, format!("{shard} {head:?}")))
            });
            heads.collect()
        };
        let (a, b) = (heads(first), heads(index));
        let mut text = String::new();
        for stream in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
            if a.get(stream) != b.get(stream) {
                text += &format!("\n  {stream:?}: {:?}\n     against {:?}", a.get(stream), b.get(stream));
            }
        }
        text
    }

    fn document_differences(&self, index: usize) -> String {
        let nodes = (&self.nodes[self.members()[0]], &self.nodes[index]);
        let (a, b) = (views(nodes.0), views(nodes.1));
        let mut text = self.state_differences(nodes);
        for key in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
            if a.get(key) != b.get(key) {
                text += &format!("\n  {key:?}: {:?}\n     against {:?}", a.get(key), b.get(key));
            }
        }
        text
    }

    /// Says of which transactions two nodes do not think alike, and what these are.
    fn state_differences(&self, (first, second): (&Node, &Node)) -> String {
        let (ours, theirs) = match (states(&self.ops, first), states(&self.ops, second)) {
            (Ok(ours), Ok(theirs)) => (ours, theirs),
            (Err(what), _) | (_, Err(what)) => return what,
        };
        let say = |states: &States, at: &(OpId, usize)| match states.get(at) {
            None => "not here".to_owned(),
            Some((None, _)) => "accepted".to_owned(),
            Some((Some(state), reason)) => format!("{state:?}: {reason}"),
        };
        let mut text = String::new();
        for at in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
            if ours.get(at) != theirs.get(at) {
                let holds = |node: &Node| self.ops.all(&*node.store).into_iter().find(|(_, op)| op.id() == at.0);
                let what = holds(first).or_else(|| holds(second)).map(|(_, op)| self.describe(&op, at.1));
                let (ours, theirs) = (say(&ours, at), say(&theirs, at));
                text += &format!("\n  {:?}/{} {}", at.0, at.1, what.unwrap_or_default());
                text += &format!("\n    {}: {ours}\n    {}: {theirs}", first.name, second.name);
            }
        }
        text
    }

    /// Says whose a transaction is, where it stands and what it changes.
    fn describe(&self, op: &Op, tx: usize) -> String {
        let header = op.header();
        let author = self.nodes.iter().find(|node| node.author() == header.author).map_or("?", |node| &*node.name);
        // The check sum of a change is how its hash begins.
        let begin = |body: &Body| body.bytes.get(4..8)?.first_chunk().map(|begin| u32::from_be_bytes(*begin));
        let (changes, bodies) =
            op.transactions().nth(tx).map_or((&[][..], &[][..]), |(tx, bodies)| (&*tx.changes, bodies));
        let changes: Vec<String> = changes
            .iter()
            .zip(bodies)
            .map(|(change, body)| {
                let begin = body.as_ref().and_then(begin).unwrap_or_default();
                format!("{:?} {} {begin:08x}", change.action, change.doc)
            })
            .collect();
        let place = (op.stream(), header.seq);
        format!("of {author} in {} at {place:?}, {:?}: {}", header.shard, header.hlc, changes.join(", "))
    }

    /// Checks all that must hold at the end.
    pub(super) fn check_end(&mut self) -> Result<(), String> {
        let members = self.members();
        for index in &members {
            let node = &self.nodes[*index];
            let name = &node.name;
            let store: Arc<dyn Store> = node.store.clone();
            let report = verify(&store, self.cluster, |_| {});
            if let Some(damage) = report.damage.first() {
                return Err(format!("the store of {name} is damaged in {} places: {damage:?}", report.damage_total));
            }
            self.compare_with_reference(*index)?;
            self.check_heads(*index)?;
        }
        self.check_erased(&members)?;
        self.count_for_others(members[0])?;
        self.count_settled();
        let taken: Vec<_> = self.nodes.iter().filter_map(|node| node.replica.as_ref()).map(taken_in_bulk).collect();
        taken.into_iter().for_each(|taken| self.report.add_bulk(taken));
        self.check_acknowledged(&members)
    }

    /// The members show the same documents, and think the same of every transaction that they hold.
    pub(super) fn difference(&self) -> Result<(), String> {
        let members = self.members();
        let first = members[0];
        members.iter().try_for_each(|index| {
            self.compare_views(first, *index)?;
            self.compare_states(first, *index)
        })
    }

    /// A stream is a head exactly if no session that stands names its end; worked out from the ops alone.
    fn check_heads(&mut self, index: usize) -> Result<(), String> {
        let node = &self.nodes[index];
        let Some(replica) = &node.replica else { return Ok(()) };
        let ops = self.ops.all(&*node.store);
        let mut firsts: BTreeMap<StreamId, Vec<&Arc<Op>>> = BTreeMap::new();
        let mut ends: BTreeMap<StreamId, u64> = BTreeMap::new();
        for (_, op) in ops.iter().filter(|(_, op)| op.header().control().is_none()) {
            let end = ends.entry(op.stream()).or_default();
            *end = op.header().seq.max(*end);
            if op.header().seq == 1 {
                firsts.entry(op.stream()).or_default().push(op);
            }
        }
        let mut named = BTreeSet::new();
        for (stream, firsts) in &firsts {
            let [first] = firsts[..] else { continue };
            let closed = replica.authority().closed_at(*stream, first.header().certificate);
            if !matches!(closed, Some(Closed::Whole)) && !matches!(closed, Some(Closed::After(pin)) if pin.seq == 0) {
                named.extend(first.header().earlier_ends().map(|pin| (pin.stream, pin.seq, pin.head)));
            }
        }
        let shards: Vec<_> = replica.engine().digests().map(|(shard, _)| shard.clone()).collect();
        let heads: BTreeMap<StreamId, HeadState> =
            shards.iter().filter(|shard| !shard.is_control()).flat_map(|shard| replica.engine().heads(shard)).collect();
        for (stream, head) in &heads {
            if let HeadState::Open(tip) = head
                && named.contains(&(*stream, tip.seq, tip.id))
            {
                return Err(format!("{} tells {stream:?}, which a later session names as it is", node.name));
            }
        }
        let folded = ends.keys().filter(|stream| !heads.contains_key(stream));
        let is_named = |stream: &StreamId| named.iter().any(|(of, ..)| of == stream);
        let is_cut = |stream: &StreamId| {
            let certificate = firsts[stream][0].header().certificate;
            let closed = replica.authority().closed_at(*stream, certificate);
            matches!(closed, Some(Closed::Whole)) || matches!(closed, Some(Closed::After(pin)) if pin.seq == 0)
        };
        if let Some(stream) = folded.clone().find(|stream| !is_named(stream) && !is_cut(stream)) {
            return Err(format!("{} does not tell {stream:?}, which nobody names", node.name));
        }
        (self.report.streams, self.report.heads) = (ends.len() as u64, heads.len() as u64);
        Ok(())
    }

    /// Counts what nodes wrote for others.
    fn count_for_others(&mut self, index: usize) -> Result<(), String> {
        let node = &self.nodes[index];
        let states = states(&self.ops, node)?;
        let (mut counting, mut cut, mut limited) = (0, 0, 0);
        let limit = node::limit();
        for (_, op) in self.ops.all(&*node.store) {
            for (at, transaction) in op.header().transactions().iter().enumerate() {
                let state = states.get(&(op.id(), at)).map(|(state, _)| *state);
                if self.served.contains(&transaction.principal) {
                    counting += u64::from(state == Some(None));
                    cut += u64::from(state == Some(Some(TxState::AfterRevocation)));
                }
                if state == Some(None) && self.served.get(node::LIMITED) == Some(&transaction.principal) {
                    limited += 1;
                    let strays = |change: &ChangeRef| change.touched().any(|touched| !limit.allow(touched));
                    if transaction.changes.iter().any(strays) {
                        return Err(format!("{} counts, but declares fields that are withheld", op.id()));
                    }
                }
            }
        }
        (self.report.for_others, self.report.for_others_cut) = (counting, cut);
        self.report.limited = limited;
        Ok(())
    }

    fn compare_views(&self, first: usize, index: usize) -> Result<(), String> {
        let (a, b) = (views(&self.nodes[first]), views(&self.nodes[index]));
        for key in a.keys().chain(b.keys()) {
            if a.get(key) != b.get(key) {
                let names = (&self.nodes[first].name, &self.nodes[index].name);
                let states = self.state_differences((&self.nodes[first], &self.nodes[index]));
                return Err(format!("{key:?} differs, {names:?}: {:?} against {:?}{states}", a.get(key), b.get(key)));
            }
        }
        Ok(())
    }

    /// Transactions that both hold, on whichever branch, have the same state on both.
    fn compare_states(&self, first: usize, index: usize) -> Result<(), String> {
        let (a, b) = (states(&self.ops, &self.nodes[first])?, states(&self.ops, &self.nodes[index])?);
        let names = (&self.nodes[first].name, &self.nodes[index].name);
        for (tx, (state, text)) in &a {
            if let Some((other, other_text)) = b.get(tx)
                && state != other
            {
                return Err(format!("{tx:?} is {state:?} ({text}) and {other:?} ({other_text}) on {names:?}"));
            }
        }
        Ok(())
    }

    /// The states are what the reference model makes of the ops.
    fn compare_with_reference(&self, index: usize) -> Result<(), String> {
        let node = &self.nodes[index];
        let ops = self.ops.all(&*node.store);
        let headers = ops.iter().map(|(_, op)| (op.id(), op.header_arc())).collect();
        let verdicts = reference::judge_all(self.cluster, &headers);
        let forked = forked(&ops);
        for ((op, tx), (state, reason)) in states(&self.ops, node)? {
            let Some(verdict) = verdicts.data.get(&(op, tx)) else { continue };
            let agrees = match verdict {
                // Nobody here writes what breaks a rule or Automerge, except who means to.
                Verdict::Allowed => {
                    let is_meant =
                        self.plan.villain.is_some() && matches!(state, Some(TxState::BadChange | TxState::Held));
                    is_meant || matches!(state, None | Some(TxState::Waiting | TxState::Duplicate))
                }
                Verdict::Deferred(_) => state == Some(TxState::Deferred),
                Verdict::Refused | Verdict::NotAllowed => state == Some(TxState::NotAllowed),
                Verdict::AfterRevocation { .. } => state == Some(TxState::AfterRevocation),
                Verdict::Forked { .. } => state == Some(TxState::Forked),
            };
            // What a fork cuts off is called forked, whatever else is wrong with it.
            let is_cut = !verdict.is_allowed() && state == Some(TxState::Forked) && forked.contains(&op);
            if !agrees && !is_cut {
                return Err(format!("{op:?}/{tx} is {state:?} ({reason}) on {}, the rule says {verdict:?}", node.name));
            }
        }
        Ok(())
    }

    /// What was acknowledged is everywhere.
    fn check_acknowledged(&self, members: &[usize]) -> Result<(), String> {
        let equivocator = self.plan.cloned.map(|(node, _)| self.nodes[node].author());
        let removed = self.plan.removed.map(|node| self.nodes[node].author());
        for (by, tx) in &self.workload.acknowledged {
            let mut holders = self.nodes.iter().filter(|node| self.ops.holds(&*node.store, tx));
            let author = holders.next().and_then(|node| {
                let reader = Reader::new(node.store.clone());
                reader.op(tx, self.cluster).ok().flatten().map(|op| op.header().author)
            });
            let Some(author) = author else {
                return Err(format!("{tx:?}, acknowledged by {}, is nowhere", self.nodes[*by].name));
            };
            if Some(author) == equivocator {
                continue;
            }
            if Some(author) == removed && !self.stands(tx) {
                continue;
            }
            // What only a member had that was removed is lost, if its author went back to an old backup: nobody asks the
            // removed one any more.
            if Some(*by) == self.plan.removed && Some(author) != removed {
                continue;
            }
            if let Some(node) = members.iter().find(|node| !self.ops.holds(&*self.nodes[**node].store, tx)) {
                let (by, node) = (&self.nodes[*by].name, &self.nodes[*node].name);
                return Err(format!("{tx:?}, acknowledged by {by}, is not on {node}"));
            }
        }
        Ok(())
    }

    /// Whether the revocations let an op stand.
    fn stands(&self, tx: &TxRef) -> bool {
        let replica = self.nodes[self.members()[0]].replica.as_ref();
        let op = self.nodes.iter().find_map(|node| Reader::new(node.store.clone()).op(tx, self.cluster).ok().flatten());
        let (Some(replica), Some(op)) = (replica, op) else { return false };
        match replica.authority().closed_at(tx.stream, op.header().certificate) {
            None => true,
            Some(Closed::Whole) => false,
            Some(Closed::After(pin)) => tx.seq <= pin.seq,
        }
    }
}

/// Returns how many shards, and documents, a replica took in bulk in its life.
pub(super) fn taken_in_bulk(replica: &Replica) -> (u64, u64) {
    (replica.counters().bulks, replica.engine().counters().bulk_documents)
}

/// Returns the key of something that is kept of bulk, but for the record of the last one.
fn left_of_bulk(node: &Node) -> Option<bytes::Bytes> {
    (2..=4).find_map(|first: u8| {
        let mut left = node.store.scan(Keyspace::Pending, &Span::prefix([first]), Order::Ascending);
        left.next()?.ok().map(|(key, _)| key)
    })
}

fn views(node: &Node) -> BTreeMap<DocKey, View> {
    let reader = Reader::new(node.store.clone());
    let keys = node.store.scan(Keyspace::Views, &Span::all(), Order::Ascending).filter_map(Result::ok);
    keys.filter_map(|(key, _)| {
        let key = DocKey::decode(&key).ok()?;
        let view = reader.get(&key).ok()??;
        Some((key, view))
    })
    .collect()
}

type States = BTreeMap<(OpId, usize), (Option<TxState>, String)>;

/// Returns what became of each transaction, on whichever branch; none for an accepted one.
fn states(ops: &Ops, node: &Node) -> Result<States, String> {
    let mut states = States::new();
    for (_, op) in ops.all(&*node.store) {
        for tx in 0..op.header().transactions().len() {
            states.insert((op.id(), tx), (None, String::new()));
        }
    }
    let records = Reader::new(node.store.clone()).transactions(None, usize::MAX).map_err(|error| error.to_string())?;
    for (_, record) in records {
        let Some(state) = states.get_mut(&(record.tx.op, usize::from(record.tx.tx))) else {
            return Err(format!("{} has a record of {:?}, which it does not hold", node.name, record.tx));
        };
        *state = (Some(record.state), record.reason);
    }
    Ok(states)
}

/// Returns the ops at or beyond the fork of their stream.
fn forked(ops: &[(bool, Arc<Op>)]) -> BTreeSet<OpId> {
    let mut places: BTreeMap<(StreamId, u64), usize> = BTreeMap::new();
    for (_, op) in ops {
        *places.entry((op.stream(), op.header().seq)).or_default() += 1;
    }
    let mut forks: BTreeMap<StreamId, u64> = BTreeMap::new();
    for ((stream, seq), _) in places.iter().filter(|(_, ops)| **ops > 1) {
        forks.entry(*stream).or_insert(*seq);
    }
    let is_beyond = |op: &Op| forks.get(&op.stream()).is_some_and(|fork| op.header().seq >= *fork);
    ops.iter().filter(|(_, op)| is_beyond(op)).map(|(_, op)| op.id()).collect()
}
