//! What must hold when everything is healed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use folkmoot_core::authority::{Verdict, reference};
use folkmoot_core::id::{OpId, StreamId};
use folkmoot_core::op::{Act, Op};
use folkmoot_core::replica::{DocKey, Reader, TxState, View, verify};
use folkmoot_core::store::keys::Key as _;
use folkmoot_core::store::{Keyspace, Order, Read as _, Span, Store};

use super::node::{Node, Ops};
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
        let (a, b) = (views(&self.nodes[self.members()[0]]), views(&self.nodes[index]));
        let mut text = String::new();
        for node in [self.members()[0], index] {
            text += &format!("\n  {}:", self.nodes[node].name);
            let states = states(&self.ops, &self.nodes[node]).unwrap_or_default();
            for ((op, tx), (state, reason)) in states.iter().filter(|(_, (state, _))| state.is_some()) {
                text += &format!("\n    {op:?}/{tx} {state:?}: {reason}");
            }
        }
        for key in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
            if a.get(key) != b.get(key) {
                text += &format!("\n  {key:?}: {:?}\n     against {:?}", a.get(key), b.get(key));
            }
        }
        text
    }

    /// Checks all that must hold at the end.
    pub(super) fn check_end(&mut self) -> Result<(), String> {
        let members = self.members();
        let first = members[0];
        for index in &members {
            let node = &self.nodes[*index];
            let name = &node.name;
            let store: Arc<dyn Store> = node.store.clone();
            let report = verify(&store, self.cluster, |_| {});
            if let Some(damage) = report.damage.first() {
                return Err(format!("the store of {name} is damaged in {} places: {damage:?}", report.damage_total));
            }
            self.compare_views(first, *index)?;
            self.compare_states(first, *index)?;
            self.compare_with_reference(*index)?;
        }
        self.check_acknowledged(&members)
    }

    fn compare_views(&self, first: usize, index: usize) -> Result<(), String> {
        let (a, b) = (views(&self.nodes[first]), views(&self.nodes[index]));
        for key in a.keys().chain(b.keys()) {
            if a.get(key) != b.get(key) {
                let names = (&self.nodes[first].name, &self.nodes[index].name);
                return Err(format!("{key:?} differs, {names:?}: {:?} against {:?}", a.get(key), b.get(key)));
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
        let pins = self.pins();
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
            if Some(author) == removed && pins.get(&tx.stream).is_none_or(|pin| tx.seq > *pin) {
                continue;
            }
            if let Some(node) = members.iter().find(|node| !self.ops.holds(&*self.nodes[**node].store, tx)) {
                let (by, node) = (&self.nodes[*by].name, &self.nodes[*node].name);
                return Err(format!("{tx:?}, acknowledged by {by}, is not on {node}"));
            }
        }
        Ok(())
    }

    /// What the revocations let stand: the strictest of each stream.
    fn pins(&self) -> BTreeMap<StreamId, u64> {
        let first = self.members()[0];
        let ops = self.ops.all(&*self.nodes[first].store);
        let revocations: Vec<_> = ops
            .iter()
            .filter_map(|(_, op)| match &op.header().control()?.act {
                Act::Revoke(revoke) => Some(revoke.pins.clone()),
                _ => None,
            })
            .collect();
        let mut pins: BTreeMap<StreamId, u64> = BTreeMap::new();
        for pin in revocations.iter().flatten() {
            let all = revocations.iter().map(|list| list.iter().find(|p| p.stream == pin.stream).map_or(0, |p| p.seq));
            pins.insert(pin.stream, all.min().unwrap_or(0));
        }
        pins
    }
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
