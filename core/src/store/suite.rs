//! What every [`Store`] must do. Each engine's tests run the whole suite.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use std::collections::BTreeMap;

/// Runs every case, each on a store of its own that `open` makes, empty.
pub(super) fn run(open: impl Fn() -> Box<dyn Store>) {
    writes_are_read(&*open());
    keyspaces_are_apart(&*open());
    scans_honour_span_and_order(&*open());
    snapshots_do_not_change(&*open());
    scans_do_not_change(&*open());
    batches_appear_at_once(&*open());
    entries_out_of_bounds_are_refused_whole(&*open());
    usage_grows(&*open());
    agrees_with_a_model(&*open());
}

fn batch(writes: &[(Keyspace, &str, Option<&str>)]) -> Batch {
    let mut batch = Batch::new();
    for (keyspace, key, value) in writes {
        match value {
            Some(value) => batch.put(*keyspace, key.to_string(), value.to_string()),
            None => batch.delete(*keyspace, key.to_string()),
        }
    }
    batch
}

fn commit(store: &dyn Store, writes: &[(Keyspace, &str, Option<&str>)]) {
    store.commit(&batch(writes), Durability::Synced).unwrap();
}

fn get(store: &dyn Read, keyspace: Keyspace, key: &str) -> Option<String> {
    store.get(keyspace, key.as_bytes()).unwrap().map(|value| String::from_utf8(value.to_vec()).unwrap())
}

fn keys(entries: Entries) -> String {
    let keys: Vec<_> = entries.map(|entry| String::from_utf8(entry.unwrap().0.to_vec()).unwrap()).collect();
    keys.join(" ")
}

fn writes_are_read(store: &dyn Store) {
    store.commit(&Batch::new(), Durability::Synced).unwrap();
    assert_eq!(get(store, Keyspace::Views, "a"), None);
    for durability in [Durability::Buffered, Durability::Synced] {
        store
            .commit(&batch(&[(Keyspace::Views, "a", Some("1")), (Keyspace::Views, "b", Some(""))]), durability)
            .unwrap();
        assert_eq!(get(store, Keyspace::Views, "a").as_deref(), Some("1"));
        assert_eq!(get(store, Keyspace::Views, "b").as_deref(), Some(""));
        store.commit(&batch(&[(Keyspace::Views, "a", Some("2")), (Keyspace::Views, "b", None)]), durability).unwrap();
        assert_eq!(get(store, Keyspace::Views, "a").as_deref(), Some("2"));
        assert_eq!(get(store, Keyspace::Views, "b"), None);
    }
    // Long enough to be compressed in a journal and kept apart from the keys.
    let long = "x".repeat(100_000);
    commit(store, &[(Keyspace::Snapshots, "s", Some(&long))]);
    assert_eq!(get(store, Keyspace::Snapshots, "s"), Some(long));
    assert_eq!(store.health(), Health::Writable);
}

fn keyspaces_are_apart(store: &dyn Store) {
    let mut batch = Batch::new();
    for keyspace in Keyspace::ALL {
        batch.put(keyspace, "same key", keyspace.name());
    }
    store.commit(&batch, Durability::Synced).unwrap();
    for keyspace in Keyspace::ALL {
        assert_eq!(get(store, keyspace, "same key").as_deref(), Some(keyspace.name()));
    }
}

fn scans_honour_span_and_order(store: &dyn Store) {
    let all = ["a", "aa", "ab", "b", "ba", "c"];
    commit(store, &all.map(|key| (Keyspace::Tail, key, Some(key))));
    let cases = [
        (Span::all(), "a aa ab b ba c", "c ba b ab aa a"),
        (Span::prefix("a"), "a aa ab", "ab aa a"),
        (Span::prefix("a").after(b"a"), "aa ab", "ab aa"),
        (Span::prefix("b").before(b"ba"), "b", "b"),
        (Span::range("aa", "c"), "aa ab b ba", "ba b ab aa"),
        (Span::range("c", "a"), "", ""),
        (Span::prefix("d"), "", ""),
    ];
    for (span, ascending, descending) in cases {
        assert_eq!(keys(store.scan(Keyspace::Tail, &span, Order::Ascending)), ascending, "{span:?}");
        assert_eq!(keys(store.scan(Keyspace::Tail, &span, Order::Descending)), descending, "{span:?}");
    }
    let of = |entry: Option<(Bytes, Bytes)>| entry.map(|(_, value)| value);
    assert_eq!(of(store.first(Keyspace::Tail, &Span::prefix("b")).unwrap()).as_deref(), Some(&b"b"[..]));
    assert_eq!(of(store.last(Keyspace::Tail, &Span::prefix("b")).unwrap()).as_deref(), Some(&b"ba"[..]));
    assert_eq!(of(store.last(Keyspace::Tail, &Span::prefix("d")).unwrap()), None);
}

fn snapshots_do_not_change(store: &dyn Store) {
    commit(store, &[(Keyspace::Heads, "a", Some("1")), (Keyspace::Ops, "a", Some("1"))]);
    let snapshot = store.snapshot();
    commit(store, &[(Keyspace::Heads, "a", Some("2")), (Keyspace::Ops, "a", None), (Keyspace::Ops, "b", Some("2"))]);
    assert_eq!(get(&*snapshot, Keyspace::Heads, "a").as_deref(), Some("1"));
    assert_eq!(keys(snapshot.scan(Keyspace::Ops, &Span::all(), Order::Ascending)), "a");
    assert_eq!(get(store, Keyspace::Heads, "a").as_deref(), Some("2"));
    assert_eq!(keys(store.scan(Keyspace::Ops, &Span::all(), Order::Ascending)), "b");
}

fn scans_do_not_change(store: &dyn Store) {
    commit(store, &[(Keyspace::Pending, "a", Some("")), (Keyspace::Pending, "b", Some(""))]);
    let scan = store.scan(Keyspace::Pending, &Span::all(), Order::Ascending);
    commit(store, &[(Keyspace::Pending, "b", None), (Keyspace::Pending, "c", Some(""))]);
    assert_eq!(keys(scan), "a b");
}

/// A reader beside a writer: who has seen a batch's first key sees its last.
fn batches_appear_at_once(store: &dyn Store) {
    const ROUNDS: u32 = 200;
    let first =
        || u32::from_be_bytes(store.get(Keyspace::Ops, b"first").unwrap().map_or([0; 4], |v| (*v).try_into().unwrap()));
    let last =
        || u32::from_be_bytes(store.get(Keyspace::Meta, b"last").unwrap().map_or([0; 4], |v| (*v).try_into().unwrap()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=ROUNDS {
                let mut batch = Batch::new();
                batch.put(Keyspace::Ops, "first", round.to_be_bytes().to_vec());
                for filler in 0u32..100 {
                    batch.put(Keyspace::Tail, filler.to_be_bytes().to_vec(), "");
                }
                batch.put(Keyspace::Meta, "last", round.to_be_bytes().to_vec());
                store.commit(&batch, Durability::Buffered).unwrap();
            }
        });
        loop {
            let (before, after) = (first(), last());
            assert!(before <= after, "a part of batch {before} was visible");
            if after == ROUNDS {
                break;
            }
        }
    });
}

fn entries_out_of_bounds_are_refused_whole(store: &dyn Store) {
    for bad in [String::new(), "k".repeat(KEY_BYTES_MAX + 1)] {
        let batch = batch(&[(Keyspace::Meta, "good", Some("")), (Keyspace::Ops, &bad, Some(""))]);
        assert!(matches!(store.commit(&batch, Durability::Synced), Err(StoreError::TooLong { .. })));
        assert_eq!(get(store, Keyspace::Meta, "good"), None);
    }
    commit(store, &[(Keyspace::Meta, &"k".repeat(KEY_BYTES_MAX), Some("the store goes on"))]);
}

fn usage_grows(store: &dyn Store) {
    let audit = |store: &dyn Store| {
        let usage = store.usage().unwrap();
        assert_eq!(usage.keyspaces.len(), Keyspace::ALL.len());
        usage.keyspaces.into_iter().find(|(keyspace, _)| *keyspace == Keyspace::Audit).unwrap().1
    };
    let before = audit(store).entries;
    commit(store, &["a", "b", "c"].map(|key| (Keyspace::Audit, key, Some("v"))));
    assert_eq!(audit(store).entries, before + 3);
    assert!(store.usage().unwrap().disk_bytes > 0);
}

/// Random batches; after each, every key and a random scan must agree with plain maps.
fn agrees_with_a_model(store: &dyn Store) {
    const KEYSPACES: [Keyspace; 2] = [Keyspace::Index, Keyspace::Snapshots];
    let key = || prop::collection::vec(prop_oneof![Just(0u8), Just(7), Just(255)], 1..3);
    let write = (0..KEYSPACES.len(), key(), prop::option::of(prop::collection::vec(any::<u8>(), 0..4)));
    let step = (prop::collection::vec(write, 0..6), key(), key(), any::<bool>());
    // One run for all cases: the model goes on where the store does.
    let model = std::cell::RefCell::new([BTreeMap::<Vec<u8>, Vec<u8>>::new(), BTreeMap::new()]);
    let mut runner = TestRunner::new_with_rng(
        Config { cases: 128, max_shrink_iters: 0, failure_persistence: None, ..Config::default() },
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let outcome = runner.run(&step, |(writes, from, to, descending)| {
        let mut model = model.borrow_mut();
        let mut batch = Batch::new();
        for (place, key, value) in writes {
            match value {
                Some(value) => {
                    batch.put(KEYSPACES[place], key.clone(), value.clone());
                    model[place].insert(key, value);
                }
                None => {
                    batch.delete(KEYSPACES[place], key.clone());
                    model[place].remove(&key);
                }
            }
        }
        store.commit(&batch, Durability::Buffered).unwrap();
        let span = Span::range(from, to);
        let order = if descending { Order::Descending } else { Order::Ascending };
        for (place, keyspace) in KEYSPACES.into_iter().enumerate() {
            let found = store.scan(keyspace, &span, order).map(Result::unwrap);
            let found: Vec<_> = found.map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
            let mut expected: Vec<_> = model[place].clone().into_iter().filter(|(key, _)| span.contains(key)).collect();
            if descending {
                expected.reverse();
            }
            prop_assert_eq!(found, expected);
            for (key, value) in &model[place] {
                let found = store.get(keyspace, key).unwrap();
                prop_assert_eq!(found.as_deref(), Some(&**value));
            }
        }
        Ok(())
    });
    outcome.unwrap();
}
