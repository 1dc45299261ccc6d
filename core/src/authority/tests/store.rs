//! What a node does around the engine: keeps streams contiguous, notes, judges, and judges again when told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::authority::reference::{self, Ops};
use crate::authority::{Authority, Chains, Missing, Position, Verdict, check_against_previous};
use crate::id::{ClusterId, OpId, StreamId};
use crate::op::{Header, Pin};

/// All data ops received, by id; answers from the links alone.
#[derive(Default)]
pub(super) struct Received {
    pub(super) ops: BTreeMap<OpId, (StreamId, Arc<Header>)>,
}

impl Chains for Received {
    fn at(&self, wanted: u64, end: &Pin) -> Option<OpId> {
        let (mut at, mut seq) = (end.head, end.seq);
        loop {
            let (stream, header) = self.ops.get(&at)?;
            if *stream != end.stream || header.seq != seq {
                return Some(OpId::ZERO);
            }
            if seq <= wanted {
                return Some(at);
            }
            at = header.prev;
            seq -= 1;
        }
    }

    fn earlier_ends(&self, end: &Pin) -> Option<Vec<Pin>> {
        let mut at = end.head;
        for seq in (1..=end.seq).rev() {
            let (stream, header) = self.ops.get(&at)?;
            if *stream != end.stream || header.seq != seq {
                return None;
            }
            if seq == 1 {
                return Some(header.earlier_ends().collect());
            }
            at = header.prev;
        }
        None
    }
}

pub(super) struct Node {
    pub(super) authority: Authority,
    pub(super) all: Ops,
    pub(super) received: Received,
    by_stream: BTreeMap<StreamId, BTreeMap<u64, Vec<OpId>>>,
    chains: BTreeMap<StreamId, Vec<OpId>>,
    forked: BTreeSet<StreamId>,
    pub(super) verdicts: BTreeMap<(OpId, usize), Verdict>,
    /// How many transactions were judged.
    pub(super) judged: usize,
}

impl Node {
    pub(super) fn new(cluster: ClusterId) -> Self {
        Self {
            authority: Authority::new(cluster),
            all: Ops::new(),
            received: Received::default(),
            by_stream: BTreeMap::new(),
            chains: BTreeMap::new(),
            forked: BTreeSet::new(),
            verdicts: BTreeMap::new(),
            judged: 0,
        }
    }

    pub(super) fn with(cluster: ClusterId, ops: &Ops) -> Self {
        let mut node = Self::new(cluster);
        for (id, header) in ops {
            node.receive(*id, header);
        }
        node.catch_up();
        node
    }

    pub(super) fn receive(&mut self, id: OpId, header: &Arc<Header>) {
        self.all.insert(id, header.clone());
        if header.control().is_some() {
            self.authority.add_control(id, header.clone()).unwrap();
            return;
        }
        let stream = header.stream_key().id();
        if self.received.ops.insert(id, (stream, header.clone())).is_some() {
            return;
        }
        let at = self.by_stream.entry(stream).or_default().entry(header.seq).or_default();
        at.push(id);
        if at.len() > 1 {
            self.forked.insert(stream);
            self.authority.note_fork(stream, header.seq);
        }
        self.extend(stream);
        let here: usize = self.by_stream[&stream].values().map(Vec::len).sum();
        if here != self.chains[&stream].len() {
            self.authority.note_aside(&Position { stream, seq: header.seq, op: id });
        }
    }

    fn follows(&self, id: OpId, previous: Option<OpId>) -> bool {
        let (_, header) = &self.received.ops[&id];
        match previous {
            None => header.seq == 1,
            Some(previous) => {
                header.prev == previous
                    && check_against_previous(header, &self.received.ops[&previous].1, previous).is_ok()
            }
        }
    }

    /// Lengthens the stored branch by what has been received.
    fn extend(&mut self, stream: StreamId) {
        loop {
            let chain = self.chains.entry(stream).or_default();
            let (seq, last) = (chain.len() as u64 + 1, chain.last().copied());
            let next = self.by_stream[&stream].get(&seq).into_iter().flatten();
            let Some(next) = next.copied().find(|id| self.follows(*id, last)) else { return };
            self.chains.entry(stream).or_default().push(next);
            self.judge_at(stream, seq);
        }
    }

    fn judge_at(&mut self, stream: StreamId, seq: u64) {
        let op = self.chains[&stream][seq as usize - 1];
        let header = self.received.ops[&op].1.clone();
        let at = Position { stream, seq, op };
        let _ = self.authority.note_data(&at, &header);
        for index in 0..header.transactions().len() {
            let verdict = self.authority.judge(&at, &header, index, &self.received);
            self.verdicts.insert((op, index), verdict);
            self.judged += 1;
        }
    }

    /// Changes to pinned branches and judges again what the engine names.
    pub(super) fn catch_up(&mut self) {
        loop {
            for stream in self.forked.clone() {
                self.change_branch(stream);
            }
            let ranges = self.authority.take_rejudge(&self.received);
            if ranges.is_empty() {
                return;
            }
            for range in ranges {
                let len = self.chains.get(&range.stream).map_or(0, Vec::len) as u64;
                for seq in range.from_seq..=len {
                    self.judge_at(range.stream, seq);
                }
            }
        }
    }

    fn change_branch(&mut self, stream: StreamId) {
        let certificate = self.received.ops.values().find(|(s, _)| *s == stream).map(|(_, h)| h.certificate).unwrap();
        let Some(pin) = self.authority.kept_branch(stream, certificate) else { return };
        let mut branch = vec![];
        let mut at = pin.head;
        while at != OpId::ZERO {
            let Some((s, header)) = self.received.ops.get(&at) else { return };
            if *s != stream {
                return;
            }
            branch.push(at);
            at = header.prev;
        }
        branch.reverse();
        let sound = branch.iter().enumerate().all(|(i, id)| self.follows(*id, i.checked_sub(1).map(|i| branch[i])));
        let chain = self.chains.entry(stream).or_default();
        if !sound || branch.len() as u64 != pin.seq || chain.starts_with(&branch) {
            return;
        }
        for op in std::mem::take(chain) {
            self.verdicts.retain(|(id, _), _| *id != op);
        }
        *chain = branch;
        self.authority.forget_data(stream);
        self.extend(stream);
    }

    /// Holds the engine against the reference on everything received so far.
    pub(super) fn check(&self) -> Result<(), String> {
        let expected = reference::judge_all(self.authority.cluster(), &self.all);
        let erased = self.authority.erased_documents();
        if erased != expected.erased {
            return Err(format!("erased: engine {erased:?}, reference {:?}", expected.erased));
        }
        if let Some((collection, doc)) = erased.iter().find(|(name, doc)| !self.authority.is_erased(name, doc)) {
            return Err(format!("{collection}/{doc} is erased and is not"));
        }
        for (id, verdict) in &expected.control {
            let found = self.authority.control_verdict(*id);
            if !found.is_some_and(|found| found.agrees_with(verdict)) {
                return Err(format!("act {id:?} {:?}: engine {found:?}, reference {verdict:?}", self.all[id]));
            }
        }
        for (key, verdict) in &expected.data {
            match self.verdicts.get(key) {
                Some(found) if found.agrees_with(verdict) => {}
                // Not on the stored branch of its stream, or not in a stored stream at all.
                None if !verdict.is_allowed() => {}
                found => {
                    let header = &self.all[&key.0];
                    let (stream, seq) = (header.stream_key().id(), header.seq);
                    let at = Position { stream, seq, op: key.0 };
                    let now = self.authority.judge(&at, header, key.1, &self.received);
                    let cause = match verdict {
                        Verdict::AfterRevocation { by } => self.all.get(by).and_then(|header| header.control()),
                        _ => None,
                    };
                    return Err(format!(
                        "op {:?} seq {seq} of {stream:?}: engine {found:?} (now {now:?}), reference {verdict:?}\n{header:?}\n\
                         because of {cause:?}",
                        key.0
                    ));
                }
            }
        }
        Ok(())
    }

    pub(super) fn verdict(&self, id: OpId) -> Verdict {
        match self.authority.control_verdict(id) {
            Some(verdict) => verdict,
            None => self.verdicts.get(&(id, 0)).copied().unwrap_or(Verdict::Deferred(Missing::Chain)),
        }
    }
}
