use super::*;
use crate::store::{Batch, Durability, FjallOptions, FjallStore, Keyspace, OpenError, Read as _, Store as _};

fn open(path: &Path) -> Result<FjallStore, OpenError> {
    FjallStore::open(path, FjallOptions { cache_bytes: 1 << 20, ..FjallOptions::default() })
}

fn key(n: usize) -> Vec<u8> {
    format!("key {n:04}").into_bytes()
}

/// A value as ops have them; of those that are long, every eighth, fjall stores a compressed one.
fn value(n: usize) -> Vec<u8> {
    let len = if n.is_multiple_of(8) { 6_000 } else { 300 };
    (0..len).map(|at| (n * 7 + at / 5) as u8).collect()
}

const COMMITS: usize = 120;

/// A store with so many commits, each of two keyspaces; returns its journal and how much of that is used.
fn store(path: &Path) -> (PathBuf, usize) {
    let store = open(path).unwrap();
    for n in 0..COMMITS {
        let mut batch = Batch::new();
        batch.put(Keyspace::Ops, key(n), value(n));
        batch.put(Keyspace::Views, key(n), "view");
        store.commit(&batch, Durability::Synced).unwrap();
    }
    drop(store);
    let (_, journal) = journals(path).unwrap().pop().unwrap();
    let bytes = fs::read(&journal).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    (journal, used)
}

/// Which of the commits can still be read, whole.
fn found(path: &Path) -> Vec<usize> {
    let mut found = Vec::new();
    let take = |item: Item<'_>| {
        found.extend((0..COMMITS).find(|n| item.key == key(*n) && item.value.as_deref() == Some(&*value(*n))));
    };
    visit(path, |path, error| panic!("{}: {error}", path.display()), take).unwrap();
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn a_whole_journal_has_no_flaw_and_every_item() {
    let dir = tempfile::tempdir().unwrap();
    store(dir.path());
    assert_eq!(check(dir.path()).unwrap(), None);
    assert_eq!(found(dir.path()), Vec::from_iter(0..COMMITS));
    drop(open(dir.path()).unwrap());
    assert_eq!(check(dir.path()).unwrap(), None, "fjall may cut off the zeros, no more");
}

/// fjall alone opens one in twelve of these without an error and destroys all that follows.
#[test]
fn one_flipped_bit_is_told_and_put_right() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, used) = store(dir.path());
    let mut whole = fs::read(&journal).unwrap();
    // Without its zeros, which are 64 MiB, as after a second start.
    whole.truncate(used);
    let last_begins = whole.windows(8).rposition(|part| part == &key(COMMITS - 1)[..]).unwrap();
    let mut state = 11u64;
    for _ in 0..300 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (at, bit) = ((state >> 20) as usize % used, (state >> 17) & 7);
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << bit;
        fs::write(&journal, &bytes).unwrap();
        let flaw = check(dir.path()).unwrap();
        // The items of the last commit begin a little before its first key.
        if at + 200 < last_begins {
            // A number that is too high shows at the commit behind it.
            let is_told = flaw.as_ref().is_some_and(|flaw| flaw.kind == FlawKind::Damaged && flaw.at <= at + 7_000);
            // A number in a start that is a little too high leaves the order as it was.
            let is_harmless = flaw.is_none() && found(dir.path()).len() == COMMITS;
            assert!(is_told || is_harmless, "bit {bit} of byte {at}: {flaw:?}");
        }
        assert_eq!(found(dir.path()).len(), COMMITS, "bit {bit} of byte {at}");
    }
}

#[test]
fn more_damage_costs_the_item_that_it_hit() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, used) = store(dir.path());
    let mut bytes = fs::read(&journal).unwrap();
    bytes.truncate(used);
    let place = bytes.windows(8).position(|part| part == &key(60)[..]).unwrap();
    bytes[place + 20..place + 23].fill(0xff);
    fs::write(&journal, &bytes).unwrap();
    assert_eq!(check(dir.path()).unwrap().unwrap().kind, FlawKind::Damaged);
    assert_eq!(found(dir.path()), Vec::from_iter((0..COMMITS).filter(|n| *n != 60)));
}

#[test]
fn a_store_with_a_damaged_commit_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = store(dir.path());
    let mut bytes = fs::read(&journal).unwrap();
    // The tag behind a start: fjall takes this for the end of the journal.
    let middle = bytes.windows(8).position(|part| part == &key(60)[..]).unwrap();
    bytes[middle - ITEM_HEAD_BYTES] = 9;
    fs::write(&journal, &bytes).unwrap();
    let refused = open(dir.path()).err().unwrap();
    assert!(matches!(refused, OpenError::Journal { .. }), "{refused:?}");
    assert_eq!(fs::read(&journal).unwrap(), bytes, "nothing is destroyed");
}

#[test]
fn a_commit_that_a_crash_cut_short_is_cut_off_and_kept_aside() {
    for damage in
        [|bytes: &mut Vec<u8>, at: usize| bytes[at..].fill(0), |bytes: &mut Vec<u8>, at: usize| bytes[at] ^= 1]
    {
        let dir = tempfile::tempdir().unwrap();
        let (journal, used) = store(dir.path());
        let mut bytes = fs::read(&journal).unwrap();
        bytes.truncate(used);
        let last = bytes.windows(8).rposition(|part| part == &key(COMMITS - 1)[..]).unwrap();
        damage(&mut bytes, last + 8 + 4);
        fs::write(&journal, &bytes).unwrap();
        let flaw = check(dir.path()).unwrap().unwrap();
        assert_eq!(flaw.kind, FlawKind::Torn);
        let store = open(dir.path()).unwrap();
        assert_eq!(store.get(Keyspace::Ops, &key(COMMITS - 1)).unwrap(), None);
        assert_eq!(store.get(Keyspace::Ops, &key(COMMITS - 2)).unwrap().as_deref(), Some(&*value(COMMITS - 2)));
        let mut batch = Batch::new();
        batch.put(Keyspace::Ops, "after", "value");
        store.commit(&batch, Durability::Synced).unwrap();
        drop(store);
        assert_eq!(check(dir.path()).unwrap(), None);
        assert_eq!(torn_ends(dir.path()).unwrap().len(), 1);
        assert!(open(dir.path()).unwrap().get(Keyspace::Ops, b"after").unwrap().is_some());
    }
}
