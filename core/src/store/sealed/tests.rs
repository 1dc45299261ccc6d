//! The adaptor over both engines: the suite, what lies on the disk, keys that go and change.

use super::*;
use crate::op::{Op, arbitrary};
use crate::store::keys::{ArrivalKey, DocKey, Key as _, OpKey, TailKey, meta};
use crate::store::{FjallOptions, FjallStore, MemoryStore, Survivors, envelope, suite};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

fn keyring() -> Keyring {
    Keyring::new([1; 16], SealKey::new([2; KEY_BYTES]))
}

/// A sealed store in memory, with what is under it and its keyring.
struct Lab {
    memory: MemoryStore,
    home: MemoryHome,
    store: SealedStore,
}

impl Lab {
    fn new() -> Self {
        let (memory, home) = (MemoryStore::new(), MemoryHome::new(keyring()));
        let store = SealedStore::new(Arc::new(memory.clone()), home.keyring(), Box::new(home.clone()), &[3; 32]);
        Self { memory, home, store }
    }

    /// Opens it again, after a power cut.
    fn reopen(&mut self) {
        self.memory.crash(Survivors::None);
        let (inner, home) = (Arc::new(self.memory.clone()), Box::new(self.home.clone()));
        self.store = SealedStore::new(inner, self.home.keyring(), home, &[4; 32]);
    }

    fn put(&self, writes: &[(Keyspace, Vec<u8>, &[u8])]) {
        let mut batch = Batch::new();
        for (keyspace, key, value) in writes {
            batch.put(*keyspace, key.clone(), envelope::enclose(value));
        }
        self.store.commit(&batch, Durability::Synced).unwrap();
    }

    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.store.get(keyspace, key)?.map(|value| envelope::open(value).unwrap()))
    }

    /// Whether any value that lies under the adaptor holds these bytes.
    fn shows(&self, secret: &[u8]) -> bool {
        Keyspace::ALL.into_iter().any(|keyspace| {
            let mut entries = self.memory.scan(keyspace, &Span::all(), Order::Ascending).map(Result::unwrap);
            entries.any(|(_, value)| value.windows(secret.len()).any(|part| part == secret))
        })
    }
}

fn doc(collection: &str, id: &str) -> DocKey {
    DocKey { collection: collection.parse().unwrap(), doc: id.parse().unwrap() }
}

#[test]
fn passes_the_suite() {
    suite::run(|| Box::new(Lab::new().store));
    let dir = tempfile::tempdir().unwrap();
    let disk = FjallStore::open(dir.path(), FjallOptions::default()).unwrap();
    suite::run(|| {
        let mut batch = Batch::new();
        for keyspace in Keyspace::ALL {
            for entry in disk.scan(keyspace, &Span::all(), Order::Ascending) {
                batch.delete(keyspace, entry.unwrap().0);
            }
        }
        disk.commit(&batch, Durability::Buffered).unwrap();
        let home = MemoryHome::new(keyring());
        Box::new(SealedStore::new(Arc::new(disk.clone()), home.keyring(), Box::new(home), &[3; 32]))
    });
}

#[test]
fn every_value_is_sealed_but_those_that_say_nothing() {
    let lab = Lab::new();
    let document = doc("notes", "a");
    let secret = b"a secret that nobody may find";
    let tail = TailKey { doc: document.clone(), change: crate::id::ChangeHash::new([5; 32]) };
    let mut writes = vec![
        (Keyspace::Tail, tail.encode(), &secret[..]),
        (Keyspace::Snapshots, document.encode(), secret),
        (Keyspace::Views, document.encode(), secret),
        (Keyspace::Pending, [&[2], &document.encode()[..]].concat(), secret),
        (Keyspace::Index, vec![1, 0], secret),
        (Keyspace::Meta, meta::SESSION.into(), secret),
    ];
    for keyspace in [Keyspace::Heads, Keyspace::Control, Keyspace::Quarantine, Keyspace::Requests, Keyspace::Audit] {
        writes.push((keyspace, b"key".to_vec(), secret));
    }
    writes.push((Keyspace::Ops, b"no op".to_vec(), secret));
    writes.push((Keyspace::Pending, vec![3, 1, 2], secret));
    lab.put(&writes);
    assert!(!lab.shows(secret));
    for (keyspace, key, value) in &writes {
        assert_eq!(lab.get(*keyspace, key).unwrap().as_deref(), Some(*value), "{keyspace}");
        let raw = lab.memory.get(*keyspace, key).unwrap().unwrap();
        assert_eq!(raw[0], envelope::SEALED, "{keyspace}");
        // Moved to another key it does not open.
        let mut batch = Batch::new();
        let elsewhere = [&key[..], &[9]].concat();
        batch.put(*keyspace, elsewhere.clone(), raw);
        lab.memory.commit(&batch, Durability::Synced).unwrap();
        assert!(matches!(lab.get(*keyspace, &elsewhere), Err(StoreError::Damaged { .. })), "{keyspace}");
        // A plain value in its place is not taken for one of ours.
        let mut batch = Batch::new();
        batch.put(*keyspace, key.clone(), envelope::enclose(b"forged"));
        lab.memory.commit(&batch, Durability::Synced).unwrap();
        assert!(matches!(lab.get(*keyspace, key), Err(StoreError::Damaged { .. })), "{keyspace}");
    }
    let shard = crate::id::ShardId { collection: "notes".parse().unwrap(), index: 0, of: 1 };
    let arrival = ArrivalKey { shard, arrival: 1 }.encode();
    lab.put(&[(Keyspace::Arrivals, arrival.clone(), b"a place")]);
    assert_eq!(lab.get(Keyspace::Arrivals, &arrival).unwrap().as_deref(), Some(&b"a place"[..]));
}

/// A check of the whole store while the disk is scrubbed finds no damage.
#[test]
fn what_a_scrub_fills_journals_with_is_no_damage() {
    let lab = Lab::new();
    let key = [crate::store::scrub::FILLER, &7u64.to_be_bytes()].concat();
    let mut batch = Batch::new();
    batch.put(Keyspace::Meta, key.clone(), b"random bytes, written below the seal".to_vec());
    lab.memory.commit(&batch, Durability::Synced).unwrap();
    let read = lab.store.get(Keyspace::Meta, &key).unwrap();
    assert_eq!(read.as_deref(), Some(&b"random bytes, written below the seal"[..]));
}

/// Returns a data op with bodies.
fn some_op(runner: &mut TestRunner) -> Op {
    loop {
        let op = arbitrary::op().new_tree(runner).unwrap().current();
        if op.bodies().iter().any(Option::is_some) {
            return op;
        }
    }
}

#[test]
fn ops_are_kept_in_parts_and_come_back_as_they_were() {
    let mut lab = Lab::new();
    let mut runner = TestRunner::deterministic();
    for _ in 0..200 {
        let op = some_op(&mut runner);
        let key = OpKey::new(op.stream(), op.header().seq).encode();
        lab.put(&[(Keyspace::Ops, key.clone(), &op.encode())]);
        assert_eq!(lab.get(Keyspace::Ops, &key).unwrap().as_deref(), Some(&op.encode()[..]));
        for body in op.bodies().iter().flatten().filter(|body| body.bytes.len() > 8) {
            assert!(!lab.shows(&body.bytes));
        }
        lab.reopen();
        assert_eq!(lab.get(Keyspace::Ops, &key).unwrap().as_deref(), Some(&op.encode()[..]));
        // Without a document's key its bodies are gone, and nothing else.
        let document = DocKey {
            collection: op.header().collection().clone(),
            doc: op.header().changes().next().unwrap().doc.clone(),
        };
        let mut batch = Batch::new();
        batch.delete(Keyspace::Keys, document.encode());
        lab.store.commit(&batch, Durability::Synced).unwrap();
        for again in [false, true] {
            if again {
                lab.reopen();
            }
            let bytes = lab.get(Keyspace::Ops, &key).unwrap().unwrap();
            let cluster = if op.header().is_genesis() { op.id().into() } else { op.header().cluster };
            let left = Op::decode(&bytes, cluster).unwrap();
            assert_eq!((left.id(), left.signature()), (op.id(), op.signature()));
            for ((change, before), after) in op.header().changes().zip(op.bodies()).zip(left.bodies()) {
                let expected = before.as_ref().filter(|_| change.doc != document.doc);
                assert_eq!(after.as_ref(), expected);
            }
        }
    }
}

#[test]
fn a_document_is_gone_with_its_key_and_a_snapshot_before_still_shows_it() {
    let mut lab = Lab::new();
    let (a, b) = (doc("notes", "a").encode(), doc("notes", "b").encode());
    lab.put(&[(Keyspace::Views, a.clone(), b"first"), (Keyspace::Views, b.clone(), b"other")]);
    let before = lab.store.snapshot();
    let raw = lab.memory.get(Keyspace::Views, &a).unwrap().unwrap();
    let mut batch = Batch::new();
    batch.delete(Keyspace::Keys, a.clone());
    batch.delete(Keyspace::Views, a.clone());
    lab.store.commit(&batch, Durability::Synced).unwrap();
    // Reading by the old snapshot must not bring the key back into use.
    assert!(before.get(Keyspace::Views, &a).unwrap().is_some());
    let mut batch = Batch::new();
    batch.put(Keyspace::Views, a.clone(), raw);
    lab.memory.commit(&batch, Durability::Synced).unwrap();
    assert!(matches!(lab.get(Keyspace::Views, &a), Err(StoreError::Damaged { .. })));
    lab.put(&[(Keyspace::Views, a.clone(), b"second")]);
    lab.reopen();
    assert_eq!(lab.get(Keyspace::Views, &a).unwrap().as_deref(), Some(&b"second"[..]));
    assert_eq!(lab.get(Keyspace::Views, &b).unwrap().as_deref(), Some(&b"other"[..]));
}

#[test]
fn keys_are_in_the_batch_that_needs_them() {
    let mut lab = Lab::new();
    let key = doc("notes", "a").encode();
    lab.memory.fail_next_sync();
    let mut batch = Batch::new();
    batch.put(Keyspace::Views, key.clone(), envelope::enclose(b"lost"));
    assert!(matches!(lab.store.commit(&batch, Durability::Synced), Err(StoreError::Commit(_))));
    assert_eq!(lab.store.health(), Health::Poisoned);
    assert!(matches!(lab.store.commit(&Batch::new(), Durability::Synced), Err(StoreError::Poisoned)));
    lab.reopen();
    assert_eq!(lab.get(Keyspace::Views, &key).unwrap(), None);
    lab.put(&[(Keyspace::Views, key.clone(), b"there")]);
    lab.reopen();
    assert_eq!(lab.get(Keyspace::Views, &key).unwrap().as_deref(), Some(&b"there"[..]));
}

#[test]
fn a_rotation_wraps_every_key_again_and_forgets_what_they_were_under() {
    let mut lab = Lab::new();
    let keys: Vec<Vec<u8>> = (0..1_000).map(|n| doc(["a", "b"][n % 2], &format!("d{n}")).encode()).collect();
    for part in keys.chunks(100) {
        let writes: Vec<_> = part.iter().map(|key| (Keyspace::Views, key.clone(), &key[..])).collect();
        lab.put(&writes);
    }
    let old = lab.home.keyring();
    lab.store.rotate().unwrap();
    assert!(lab.store.figures().rotating);
    lab.store.commit(&Batch::new(), Durability::Synced).unwrap();
    // A start in the middle goes on.
    lab.reopen();
    assert!(lab.store.figures().rotating);
    // What is erased meanwhile stays erased.
    let mut batch = Batch::new();
    batch.delete(Keyspace::Keys, keys[999].clone());
    batch.delete(Keyspace::Views, keys[999].clone());
    lab.store.commit(&batch, Durability::Synced).unwrap();
    let mut commits = 0;
    while lab.store.figures().rotating {
        lab.store.commit(&Batch::new(), Durability::Synced).unwrap();
        commits += 1;
        assert!(commits < 10, "{:?}", lab.store.figures());
    }
    assert_eq!(lab.store.figures().rotations, 1);
    assert_eq!(lab.home.keyring().epochs().collect::<Vec<_>>(), [("a", 2), ("b", 2)]);
    lab.reopen();
    for key in &keys[..999] {
        assert_eq!(lab.get(Keyspace::Views, key).unwrap().as_deref(), Some(&key[..]));
        let wrapped = lab.memory.get(Keyspace::Keys, key).unwrap().unwrap();
        assert_eq!(value::epoch_of(&wrapped), Some(2));
        assert_eq!(value::unwrap(&old, key, &wrapped), None);
    }
    assert_eq!(lab.memory.get(Keyspace::Keys, &keys[999]).unwrap(), None);
}

#[test]
fn another_keyring_opens_nothing() {
    let mut lab = Lab::new();
    let key = doc("notes", "a").encode();
    lab.put(&[(Keyspace::Views, key.clone(), b"text"), (Keyspace::Heads, b"head".to_vec(), b"text")]);
    lab.home = MemoryHome::new(Keyring::new([1; 16], SealKey::new([9; KEY_BYTES])));
    lab.reopen();
    for (keyspace, key) in [(Keyspace::Views, &key[..]), (Keyspace::Heads, b"head")] {
        assert!(matches!(lab.get(keyspace, key), Err(StoreError::Damaged { .. })));
        let scan: Vec<_> = lab.store.scan(keyspace, &Span::all(), Order::Ascending).collect();
        assert!(matches!(scan[..], [Err(StoreError::Damaged { .. })]));
    }
}
