//! The log over a store: what is appended is found, proved and checked, and what is changed behind its back is named.

use super::log::{BLOCK, records_from, stored};
use super::note::Note;
use super::witness::{Judgement, OneHash, Seen, Trouble, judge, keep, seen};
use super::*;
use crate::hlc::Hlc;
use crate::id::{AuthorKey, ClusterId, PrincipalId, SessionId};
use crate::keys::SecretKey;
use crate::store::{Batch, Durability, Keyspace, MemoryStore, Order, Read as _, Store as _, envelope};

const CLUSTER: ClusterId = ClusterId::new([7; 32]);

fn key() -> SecretKey {
    SecretKey::from_seed(&[1; 32])
}

fn node() -> AuthorKey {
    key().author()
}

struct Node {
    store: MemoryStore,
    log: Log,
}

fn event(n: u64) -> Event {
    let decision = if n.is_multiple_of(10) { AuditDecision::Denied } else { AuditDecision::Allowed };
    let collection = if n.is_multiple_of(2) { "even" } else { "odd" };
    Event::new(AuditAction::Read, decision)
        .by(Some(PrincipalId::new([(n % 5) as u8; 32])), AuditMethod::Token, None)
        .on(Some(collection.parse().unwrap()), Some(format!("doc-{n}").parse().unwrap()))
}

impl Node {
    fn new() -> Self {
        let store = MemoryStore::new();
        let log = Log::begin(&store, CLUSTER, node(), SessionId::new([1; 8]), 0).unwrap();
        Self { store, log }
    }

    fn commit(&self, batch: &Batch) {
        self.store.commit(batch, Durability::Synced).unwrap();
    }

    /// Appends records with numbers up to `to`; each is a second later than the one before.
    fn grow(&mut self, to: u64) {
        let mut batch = Batch::new();
        for n in self.log.state().size..to {
            self.log.append(&mut batch, Record::new(event(n), n, n, 1), n * 1_000);
        }
        self.commit(&batch);
    }

    fn sign(&self) -> Note {
        let note = Note::sign(self.log.checkpoint(Vec::new()), &key());
        let mut batch = Batch::new();
        self.log.keep_note(&mut batch, &note);
        self.commit(&batch);
        note
    }

    fn check(&self) -> AuditReport {
        check_log(&self.store, CLUSTER, &[node()])
    }

    fn reopen(&self) -> Result<Option<Log>, LogError> {
        Log::open(&self.store, CLUSTER, node())
    }

    /// Changes what is stored of a record.
    fn spoil(&self, index: u64, change: impl FnOnce(&mut Vec<u8>)) {
        let (key, value) =
            self.store.scan(Keyspace::Audit, &records_from(0, index), Order::Ascending).next().unwrap().unwrap();
        let mut value = envelope::open(value).unwrap().to_vec();
        change(&mut value);
        let mut batch = Batch::new();
        batch.put(Keyspace::Audit, key, envelope::enclose(&value));
        self.commit(&batch);
    }
}

#[test]
fn a_log_goes_on_where_it_was_and_proves_all_its_states() {
    let mut node = Node::new();
    let mut states = Vec::new();
    for size in [1, 2, 255, 256, 257, 511, 700, 1_024, 1_500] {
        node.grow(size);
        states.push(node.log.checkpoint(Vec::new()));
        let again = node.reopen().unwrap().unwrap();
        assert_eq!(again.checkpoint(Vec::new()), node.log.checkpoint(Vec::new()));
        assert_eq!(again.state(), node.log.state());
    }
    let now = node.log.checkpoint(Vec::new());
    for state in states {
        assert_eq!(node.log.root_at(&node.store, state.size).unwrap(), state.root);
        let path = node.log.consistency(&node.store, state.size).unwrap();
        assert!(tree::verify_consistency(state.size, &state.root, now.size, &now.root, &path), "{}", state.size);
    }
    node.sign();
    let report = node.check();
    assert_eq!((report.records, report.checkpoints, report.damage_total), (1_500, 1, 0), "{:?}", report.damage);
}

#[test]
fn what_was_altered_or_cut_is_named() {
    let grown = || {
        let mut node = Node::new();
        node.grow(600);
        node.sign();
        node
    };
    // One bit of the record alone.
    let node = grown();
    node.spoil(300, |value| *value.last_mut().unwrap() ^= 1);
    assert!(node.check().damage.iter().any(|damage| damage.place == "0101010101010101-300"), "{:?}", node.check());

    // The record and its hash: the block's hash tells.
    let forged = |value: &mut Vec<u8>| {
        let mut record = Record::new(event(999), 0, 0, 1);
        record.hlc = Hlc::new(300_000, 0);
        let bytes = record.encode();
        *value = [&tree::leaf_hash(&bytes)[..], &bytes].concat();
    };
    let node = grown();
    node.spoil(300, forged);
    let damage = node.check().damage;
    assert_eq!(damage[0].place, "records 256 to 511", "{damage:?}");

    // In the last block only the checkpoint tells.
    let node = grown();
    node.spoil(550, |value| {
        let mut record = Record::new(event(999), 0, 0, 1);
        record.hlc = Hlc::new(550_000, 0);
        let bytes = record.encode();
        *value = [&tree::leaf_hash(&bytes)[..], &bytes].concat();
    });
    let damage = node.check().damage;
    assert_eq!(damage[0].place, "records 0 to 599", "{damage:?}");
    assert!(matches!(node.reopen(), Err(LogError::Damaged(_))));

    // The last records.
    let node = grown();
    let mut batch = Batch::new();
    for entry in node.store.scan(Keyspace::Audit, &records_from(0, 590), Order::Ascending) {
        let (key, value) = entry.unwrap();
        if stored(&envelope::open(value).unwrap()).is_some() && key.starts_with(&[1]) {
            batch.delete(Keyspace::Audit, key);
        }
    }
    node.commit(&batch);
    let damage = node.check().damage;
    assert!(damage.iter().all(|damage| damage.place == "0101010101010101-590"), "{damage:?}");
    assert_eq!(damage.len(), 2, "the state of the log and the checkpoint tell: {damage:?}");
    assert!(matches!(node.reopen(), Err(LogError::Damaged(_))));
}

#[test]
fn a_node_that_lost_the_end_begins_another_log() {
    let mut node = Node::new();
    node.grow(10);
    let next = Log::begin(&node.store, CLUSTER, node.log.id().node, SessionId::new([2; 8]), 5).unwrap();
    assert_eq!((next.ordinal(), next.state().last), (1, node.log.state().last));
    let mut node = Node { log: next, ..node };
    node.grow(4);
    assert_eq!(node.check().records, 14);
    assert_eq!(logs(&node.store).unwrap().len(), 2);
    let last = RecordId { incarnation: None, index: 3 };
    let (_, record) = read_record(&node.store, last).unwrap();
    assert!(record.hlc > Hlc::new(9_000, 0), "times ascend over all logs");
}

#[test]
fn old_records_go_and_the_tree_stays() {
    let mut node = Node::new();
    node.grow(1_000);
    let note = node.sign();
    let keep = Retention { age_ms: 400_000, bytes: u64::MAX };
    let mut gone = 0;
    loop {
        let mut batch = Batch::new();
        let expired = node.log.expire(&node.store, &mut batch, &keep, 1_000_000).unwrap();
        node.commit(&batch);
        if expired == 0 {
            break;
        }
        gone += expired;
    }
    // Blocks whose newest record is older than 400 seconds: those up to 511.
    assert_eq!(gone, 2 * BLOCK);
    assert!(matches!(read_record(&node.store, RecordId { incarnation: None, index: 511 }), Err(LogError::NotFound(_))));
    assert_eq!(node.reopen().unwrap().unwrap().checkpoint(Vec::new()), note.checkpoint);
    let report = node.check();
    assert_eq!((report.records, report.expired, report.damage_total), (488, 512, 0), "{:?}", report.damage);
    let page = search(&node.store, &LogQuery::default(), None, 1_000).unwrap();
    assert_eq!(page.items.len(), 488);
    let by_principal = LogQuery { principal: Some(PrincipalId::new([0; 32])), ..LogQuery::default() };
    let found = search(&node.store, &by_principal, None, 1_000).unwrap().items;
    assert_eq!(found.first().map(|found| found.at.index), Some(515));
    node.grow(1_100);
    assert_eq!(node.check().damage_total, 0);

    let mut batch = Batch::new();
    let small = Retention { age_ms: u64::MAX, bytes: 10 };
    assert_eq!(node.log.expire(&node.store, &mut batch, &small, 0).unwrap(), BLOCK, "bytes count as well");
}

#[test]
fn queries_find_what_matches_by_every_way() {
    let mut node = Node::new();
    node.grow(1_000);
    let all: Vec<Record> =
        search(&node.store, &LogQuery::default(), None, 2_000).unwrap().items.into_iter().map(|f| f.record).collect();
    assert_eq!(all.len(), 1_000);
    let principal = Some(PrincipalId::new([3; 32]));
    let collection = Some("odd".parse().unwrap());
    let times = [(None, None), (Some(200_000), Some(700_000))];
    for (since_ms, until_ms) in times {
        for query in [
            LogQuery::default(),
            LogQuery { principal, ..LogQuery::default() },
            LogQuery { collection: collection.clone(), ..LogQuery::default() },
            LogQuery { decision: Some(AuditDecision::Denied), ..LogQuery::default() },
            LogQuery { decision: Some(AuditDecision::Allowed), ..LogQuery::default() },
            LogQuery { principal, collection: collection.clone(), ..LogQuery::default() },
        ] {
            let query = LogQuery { since_ms, until_ms, ..query };
            let expected: Vec<&Record> = all
                .iter()
                .filter(|record| {
                    (query.principal.is_none() || record.event.principal == query.principal)
                        && (query.collection.is_none() || record.event.collection == query.collection)
                        && query.decision.is_none_or(|decision| record.event.decision == decision)
                        && since_ms.is_none_or(|since| record.hlc.millis() >= since)
                        && until_ms.is_none_or(|until| record.hlc.millis() < until)
                })
                .collect();
            let mut found = Vec::new();
            let mut after = None;
            loop {
                let page = search(&node.store, &query, after, 7).unwrap();
                found.extend(page.items.into_iter().map(|found| found.record));
                after = page.reached;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{query:?}");
        }
    }
}

#[test]
fn a_peer_sees_a_cut_a_fork_and_another_log() {
    let mut node = Node::new();
    node.grow(10);
    let first = node.sign();
    let Judgement::Accept(kept, None) = judge(None, &first, 0, &[], 1).unwrap() else { panic!("the first is taken") };
    let mut batch = Batch::new();
    keep(&mut batch, &node.log.id().node, &kept);
    node.commit(&batch);
    assert_eq!(seen(&node.store, &node.log.id().node).unwrap(), Some(kept.clone()));
    assert_eq!(judge(Some(&kept), &first, 0, &[], 2).unwrap(), Judgement::Same);

    node.grow(300);
    let second = node.sign();
    let path: Vec<OneHash> = node.log.consistency(&node.store, 10).unwrap().into_iter().map(OneHash).collect();
    assert_eq!(judge(Some(&kept), &second, 0, &[], 2).unwrap(), Judgement::Unproved);
    let Judgement::Accept(longer, None) = judge(Some(&kept), &second, 10, &path, 2).unwrap() else {
        panic!("it extends the first")
    };
    let refused = |kept: &Seen, shown: &Note, from: u64, path: &[OneHash]| match judge(Some(kept), shown, from, path, 3)
    {
        Ok(Judgement::Refuse(seen, trouble)) => {
            assert_eq!(seen.note().unwrap(), kept.note().unwrap(), "what was seen is not forgotten");
            Some(trouble)
        }
        _ => None,
    };
    assert_eq!(refused(&longer, &first, 0, &[]), Some(Trouble::Cut));
    let mut spoiled = path.clone();
    spoiled[0].0[0] ^= 1;
    assert_eq!(refused(&kept, &second, 10, &spoiled), Some(Trouble::Forked));

    let mut other = Node::new();
    let mut batch = Batch::new();
    for n in 0..300 {
        other.log.append(&mut batch, Record::new(event(n + 1), n, n, 1), n * 1_000);
    }
    other.commit(&batch);
    assert_eq!(refused(&longer, &other.sign(), 300, &[]), Some(Trouble::Forked));

    let log = Log::begin(&node.store, CLUSTER, node.log.id().node, SessionId::new([2; 8]), 5).unwrap();
    let mut node = Node { log, ..node };
    node.grow(3);
    let third = node.sign();
    let Judgement::Accept(moved, Some(Trouble::Replaced)) = judge(Some(&longer), &third, 0, &[], 4).unwrap() else {
        panic!("another log is taken, and told of")
    };
    assert_eq!(refused(&moved, &second, 0, &[]), Some(Trouble::Forked), "there is no way back to the old one");
}

#[test]
fn a_proof_stands_alone_and_every_changed_byte_is_noticed() {
    let mut node = Node::new();
    node.grow(300);
    let mut note = node.sign();
    assert!(note.add(note.cosign(&SecretKey::from_seed(&[2; 32]), 5)));
    let mut batch = Batch::new();
    node.log.keep_note(&mut batch, &note);
    node.commit(&batch);
    let id = RecordId { incarnation: None, index: 77 };
    let file = prove_record(&node.store, id).unwrap();
    let bytes = serde_json::to_vec_pretty(&file).unwrap();
    let Ok(Checked::Record { record, index, note: found }) = check_proof(&bytes) else { panic!("it holds") };
    assert_eq!((index, &*found), (77, &note));
    assert_eq!(record.event.documents, event(77).documents);
    let mut held = 0;
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        match check_proof(&changed) {
            Err(_) => {}
            // Space between the members of a JSON file means nothing.
            Ok(Checked::Record { record: same, index, note }) => {
                assert_eq!((&same, index, &note), (&record, 77, &found), "byte {at}");
                held += 1;
            }
            Ok(other) => panic!("{other:?}"),
        }
    }
    assert!(held < 100, "{held}");

    let mut other = file.clone();
    if let Some(record) = &mut other.record {
        record.index = 78;
    }
    assert!(matches!(check_proof(&serde_json::to_vec(&other).unwrap()), Err(ProofError::Path)));
    node.grow(301);
    let young = RecordId { incarnation: None, index: 300 };
    assert!(matches!(prove_record(&node.store, young), Err(LogError::NotFound(_))), "no checkpoint holds it yet");
}

#[test]
fn messages_come_back_and_other_frames_pass() {
    let note = Node::new().sign();
    let presentation = witness::Presentation { note: note.text(), from: 3, path: vec![OneHash([5; 32])] };
    let word = note.cosign(&SecretKey::from_seed(&[2; 32]), 5);
    for message in [
        witness::Message::Present(presentation),
        witness::Message::Seen(witness::Answer::new(&note, Some(&word))),
        witness::Message::Seen(witness::Answer::new(&note, None)),
    ] {
        let frame = message.encode();
        assert!(witness::Message::is_in(&frame));
        assert_eq!(witness::Message::decode(&frame).unwrap(), Some(message));
    }
    assert_eq!(witness::Message::decode(&[0x92, 1, 2]).unwrap(), None);
}
