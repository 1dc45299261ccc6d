//! Whatever the way, the same documents are found, in the same order, page by page; and an index survives what happens to it.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::document::json;
use crate::hlc::Hlc;
use crate::id::ChangeHash;
use crate::query::{Aggregate, Find, Found, Plan, Run, aggregate, find};
use crate::random::SplitMix64;
use crate::replica::ViewRecord;
use crate::store::keys::DocKey;
use crate::store::{Batch, Durability, MemoryStore, Order, Span};

/// Everything is small, so that there is much of it.
const SMALL: Sizes =
    Sizes { changes_bytes: 2_000, covered_every: 50, documents_per_step: 7, block_bytes: 100, runs_per_level: 3 };

/// A store whose documents change as a replica changes them: the view and its place in the feed in one batch.
struct World {
    store: Arc<MemoryStore>,
    reader: Reader,
    indexes: Indexes,
    feed: u64,
    places: BTreeMap<String, u64>,
    collection: CollectionName,
}

impl World {
    fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        let (reader, indexes) = (Reader::new(store.clone()), Indexes::new(store.clone()));
        Self { store, reader, indexes, feed: 0, places: BTreeMap::new(), collection: "c".parse().unwrap() }
    }

    /// Writes a document; an empty text deletes it.
    fn write(&mut self, doc: &str, text: &str) {
        self.write_in("c", doc, text);
    }

    fn write_in(&mut self, collection: &str, doc: &str, text: &str) {
        let json =
            if text.is_empty() { String::new() } else { json::render_value(&json::parse(text.as_bytes()).unwrap()) };
        self.feed += 1;
        let record = ViewRecord {
            heads: vec![ChangeHash::new([1; 32])],
            deleted: text.is_empty(),
            modified: Hlc::new(1_700_000_000_000 + self.feed, 0),
            feed: self.feed,
            changes: 1,
            voids: Vec::new(),
            deletes: Vec::new(),
            json: json.into_bytes().into(),
        };
        let key = DocKey { collection: collection.parse().unwrap(), doc: doc.parse().unwrap() };
        let mut batch = Batch::new();
        if let Some(before) = self.places.insert(format!("{collection}/{doc}"), self.feed) {
            batch.delete(Keyspace::Index, crate::replica::feed_key_for_tests(before));
        }
        batch.put(Keyspace::Index, crate::replica::feed_key_for_tests(self.feed), envelope::enclose(&key.encode()));
        batch.put(Keyspace::Views, key.encode(), envelope::enclose(&record.encode()));
        self.store.commit(&batch, Durability::Buffered).unwrap();
    }

    fn declare(&self, indexes: &[&[&str]], sparse: bool) {
        let definitions = indexes.iter().enumerate().map(|(n, fields)| definition(&format!("i{n}"), fields, sparse));
        let wanted = BTreeMap::from([(self.collection.clone(), definitions.collect())]);
        self.indexes.declare(wanted, &mut |batch| self.commit(&batch)).unwrap();
    }

    fn commit(&self, batch: &Batch) -> Result<(), Stopped> {
        self.store.commit(batch, Durability::Buffered).map_err(|_| Stopped)
    }

    /// Takes at most so many steps, each with a batch at least; the process ends after so many batches.
    fn work(&self, steps: usize, mut batches: usize) -> Result<(), IndexError> {
        for _ in 0..steps {
            let mut commit = |batch: Batch| {
                batches = batches.checked_sub(1).ok_or(Stopped)?;
                self.commit(&batch)
            };
            if !self.indexes.work(&self.reader, &mut commit)? {
                break;
            }
        }
        Ok(())
    }

    /// Begins again with what is in the store.
    fn restart(&mut self) {
        self.indexes = Indexes { sizes: self.indexes.sizes, ..Indexes::new(self.store.clone()) };
    }

    /// Whether the store holds the runs that the indexes know, and no others.
    fn has_only_what_it_knows(&self) -> bool {
        let indexes = self.indexes.of(&self.collection);
        let known = indexes.iter().flat_map(|index| {
            let runs: Vec<u64> = lock(&index.state).record.runs.iter().map(|run| run.id).collect();
            runs.into_iter().map(|run| (index.prefix.clone(), run))
        });
        let stored = self.store.scan(Keyspace::Index, &Span::prefix([INDEXES]), Order::Ascending);
        let stored = stored.filter_map(|entry| {
            let key = entry.unwrap().0;
            let run = |index: &Arc<Index>| Some((index.prefix.clone(), run::run_of_key(&index.prefix, &key)?));
            indexes.iter().find_map(run)
        });
        stored.collect::<BTreeSet<_>>() == known.collect()
    }

    fn indexed(&self) -> Indexed {
        self.indexes.views(&self.reader, &self.collection).unwrap()
    }

    fn scan(&self) -> Indexed {
        Indexed::without(self.reader.views(&self.collection))
    }
}

fn definition(name: &str, fields: &[&str], sparse: bool) -> Definition {
    let fields = fields.iter().map(|field| (*field).to_owned()).collect();
    IndexDeclaration { name: name.to_owned(), fields, sparse }.parse().unwrap()
}

const ALL: Run<'static> = Run { sight: &|_| FieldRights::all(), sees_whole: true, goes_on: &|| true };

fn query(text: &str) -> Find {
    Find::parse(&json::parse(text.as_bytes()).unwrap()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn ids(found: &Found) -> Vec<String> {
    found.rows.iter().map(|row| row.doc.to_string()).collect()
}

/// Returns all that a query finds, page by page, and by what.
fn pages(indexed: impl Fn() -> Indexed, text: &str) -> (Vec<String>, Plan) {
    let mut query = query(text);
    let (mut all, mut plan) = (Vec::new(), None);
    for _ in 0..10_000 {
        let found = find(&indexed(), &query, &ALL).unwrap();
        plan = plan.or(Some(found.explain.plan));
        all.extend(ids(&found));
        match found.next {
            Some(next) => query.after = Some(next.to_text()),
            None => return (all, plan.unwrap()),
        }
    }
    panic!("{text}: the pages have no end");
}

fn value(random: &mut SplitMix64) -> String {
    match random.next() % 12 {
        0 => "null".to_owned(),
        1 => "true".to_owned(),
        2 => "false".to_owned(),
        3 => "[]".to_owned(),
        4 => format!("[{},\"x\",{}]", random.next() % 4, random.next() % 4),
        5 => "{\"k\":1}".to_owned(),
        6 => format!("{}.5", random.next() % 4),
        7 => format!("\"{}\"", "long".repeat(80) + ["", "a", "b"][(random.next() % 3) as usize]),
        8 => format!("\"{}\"", ["", "a", "b", "ab", "\\u0000", "é"][(random.next() % 6) as usize]),
        _ => format!("{}", random.next() % 5),
    }
}

fn document(random: &mut SplitMix64, arrays: bool) -> String {
    let mut fields = Vec::new();
    for name in ["a", "b", "c"] {
        if !random.next().is_multiple_of(5) {
            let value = value(random);
            let value = if arrays || !value.starts_with('[') { value } else { "7".to_owned() };
            fields.push(format!("\"{name}\":{value}"));
        }
    }
    if arrays && random.next().is_multiple_of(15) {
        // More combinations than an index keeps of one document.
        let many = |n: u64| (0..n).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        return format!("{{\"a\":[{}],\"b\":[{}],\"c\":1}}", many(18), many(18));
    }
    if arrays && random.next().is_multiple_of(4) {
        fields.push(format!("\"d\":[{{\"e\":{}}},{{\"e\":{}}},{{}}]", value(random), value(random)));
    }
    format!("{{{}}}", fields.join(","))
}

/// A value that others are greater or less than.
fn comparable(random: &mut SplitMix64) -> String {
    loop {
        let value = value(random);
        if !value.starts_with(['[', '{', 'n']) {
            return value;
        }
    }
}

fn condition(random: &mut SplitMix64) -> String {
    let one = value(random);
    match random.next() % 12 {
        0..=3 => one,
        4 => format!("{{\"$gt\":{}}}", comparable(random)),
        5 => format!("{{\"$gte\":{},\"$lt\":{}}}", comparable(random), comparable(random)),
        6 => format!("{{\"$lte\":{}}}", comparable(random)),
        7 => format!("{{\"$in\":[{one},{}]}}", value(random)),
        8 => format!("{{\"$exists\":{}}}", random.next().is_multiple_of(2)),
        9 => format!("{{\"$all\":[{one}]}}"),
        10 => format!("{{\"$ne\":{one}}}"),
        _ => format!("{{\"$not\":{{\"$eq\":{one}}}}}"),
    }
}

fn asked(random: &mut SplitMix64) -> String {
    let places = ["a", "b", "c", "d.e", "_id"];
    let count = random.next() % 3;
    let parts: BTreeMap<&str, String> = (0..count)
        .map(|_| {
            let place = places[(random.next() % 4) as usize];
            (place, condition(random))
        })
        .collect();
    let parts: Vec<_> = parts.iter().map(|(place, condition)| format!("\"{place}\":{condition}")).collect();
    let sorts: Vec<_> = (0..random.next() % 3)
        .map(|_| {
            let minus = if random.next().is_multiple_of(2) { "-" } else { "" };
            format!("\"{minus}{}\"", places[(random.next() % 5) as usize])
        })
        .collect();
    let limit = 1 + random.next() % 7;
    format!("{{\"selector\":{{{}}},\"sort\":[{}],\"limit\":{limit}}}", parts.join(","), sorts.join(","))
}

const DECLARED: &[&[&str]] = &[&["a"], &["-b"], &["a", "b"], &["c", "-a"], &["d.e"], &["b", "c", "a"], &["-_modified"]];

/// Documents, changes, steps, crashes and queries in any order: what an index says is what a scan says.
fn history(seed: u64, arrays: bool, sparse: bool) -> BTreeSet<&'static str> {
    let mut random = SplitMix64::new(seed);
    let mut world = World::new();
    world.indexes.sizes = SMALL;
    let mut plans = BTreeSet::new();
    for _ in 0..random.next() % 60 {
        let (doc, text) = (format!("d{}", random.next() % 40), document(&mut random, arrays));
        world.write(&doc, &text);
    }
    let declared: Vec<_> = DECLARED.iter().copied().filter(|_| !random.next().is_multiple_of(3)).collect();
    world.declare(&declared, sparse);
    for _ in 0..40 {
        match random.next() % 10 {
            0..=3 => {
                let doc = format!("d{}", random.next() % 40);
                let text = if random.next().is_multiple_of(5) { String::new() } else { document(&mut random, arrays) };
                world.write(&doc, &text);
            }
            4 => world.write_in("other", "d1", "{\"a\":1}"),
            5 | 6 => world.work(1 + (random.next() % 3) as usize, usize::MAX).unwrap(),
            7 => {
                // The process ends in the middle of a step.
                let _ = world.work(3, (random.next() % 4) as usize);
                world.restart();
                world.declare(&declared, sparse);
            }
            _ => {
                let text = asked(&mut random);
                let (by_index, plan) = pages(|| world.indexed(), &text);
                let (by_scan, _) = pages(|| world.scan(), &text);
                assert_eq!(by_index, by_scan, "seed {seed}: {text} by {plan:?}");
                plans.insert(plan.name());
                let selector = text.split(",\"sort\"").next().unwrap();
                let counted = Aggregate::parse(&json::parse(format!("{selector}}}").as_bytes()).unwrap()).unwrap();
                let count =
                    |indexed: &Indexed| json::render_value(&aggregate(indexed, &counted, &ALL).unwrap().groups[0]);
                assert_eq!(count(&world.indexed()), count(&world.scan()), "seed {seed}: {selector}");
            }
        }
    }
    world.work(1_000, usize::MAX).unwrap();
    assert!(world.has_only_what_it_knows(), "seed {seed}: something is left of a step");
    plans
}

#[test]
fn an_index_says_what_a_scan_says() {
    let mut plans = BTreeSet::new();
    for seed in 0..400 {
        plans.extend(history(seed, seed % 2 == 0, seed % 3 == 0));
    }
    assert!(plans.contains("index") && plans.contains("collection"), "{plans:?}");
}

proptest! {
    #[test]
    fn an_index_says_what_a_scan_says_of_any_seed(seed: u64, arrays: bool, sparse: bool) {
        history(seed, arrays, sparse);
    }
}

fn filled(documents: usize) -> World {
    let mut world = World::new();
    for n in 0..documents {
        world.write(&format!("d{n:05}"), &format!("{{\"n\":{n},\"even\":{},\"city\":\"c{}\"}}", n % 2 == 0, n % 100));
    }
    world
}

#[test]
fn a_query_looks_at_what_it_needs() {
    let world = filled(5_000);
    world.declare(&[&["n"], &["city", "-n"]], false);
    assert_eq!(pages(|| world.indexed(), "{\"selector\":{\"n\":17}}").1, Plan::Collection, "nothing is made yet");
    world.work(100, usize::MAX).unwrap();
    for (text, looked_at, index, in_order) in [
        ("{\"selector\":{\"n\":17}}", 1, "i0", true),
        ("{\"selector\":{\"n\":{\"$gte\":10,\"$lt\":20}}}", 11, "i0", false),
        ("{\"sort\":[\"n\"],\"limit\":20}", 21, "i0", true),
        ("{\"sort\":[\"-n\"],\"limit\":20}", 21, "i0", true),
        ("{\"selector\":{\"city\":\"c7\"},\"sort\":[\"-n\"],\"limit\":20}", 21, "i1", true),
        ("{\"selector\":{\"city\":\"c7\"},\"sort\":[\"n\"],\"limit\":20}", 21, "i1", true),
        ("{\"selector\":{\"city\":{\"$in\":[\"c7\",\"c8\"]}},\"sort\":[\"n\"]}", 100, "i1", false),
        ("{\"selector\":{\"city\":\"c7\",\"even\":true}}", 50, "i1", false),
    ] {
        let found = find(&world.indexed(), &query(text), &ALL).unwrap();
        assert_eq!(found.explain.index.as_deref(), Some(index), "{text}");
        assert_eq!((found.looked_at, found.explain.in_order), (looked_at, in_order), "{text}");
        assert_eq!(pages(|| world.indexed(), text).0, pages(|| world.scan(), text).0, "{text}");
    }
    let found = find(&world.indexed(), &query("{\"selector\":{\"even\":true},\"sort\":[\"-x.y\"]}"), &ALL).unwrap();
    assert_eq!(found.explain.hint, Some(vec!["even".to_owned(), "-x.y".to_owned()]));
    // Whoever sees parts of documents is not told by an index what is in the others.
    let partly = Run { sees_whole: false, ..ALL };
    assert_eq!(
        find(&world.indexed(), &query("{\"selector\":{\"n\":17}}"), &partly).unwrap().explain.plan,
        Plan::Collection
    );
}

#[test]
fn runs_are_merged_and_what_is_not_so_any_more_goes() {
    let mut world = filled(300);
    world.indexes.sizes = SMALL;
    world.declare(&[&["n"]], false);
    world.work(100, usize::MAX).unwrap();
    for n in 0..3_000 {
        world.write(&format!("d{:05}", n % 300), &format!("{{\"n\":\"{n}\"}}"));
        if n % 10 == 0 {
            world.work(1, usize::MAX).unwrap();
        }
    }
    world.work(1_000, usize::MAX).unwrap();
    let info = world.indexes.infos(&world.collection).remove(0);
    assert!(info.runs < 20, "{info:?}");
    assert!(info.entries < 2_000, "what was not so any more was left out: {info:?}");
    let text = "{\"selector\":{\"n\":{\"$gte\":\"\"}},\"sort\":[\"n\"],\"limit\":7}";
    let (found, plan) = pages(|| world.indexed(), text);
    assert_eq!((found.len(), plan), (300, Plan::Index));
    assert_eq!(found, pages(|| world.scan(), text).0);
    assert!(world.has_only_what_it_knows(), "something is left of the runs that were merged");
    // Of an earlier moment than that of the runs nothing is answered by them.
    let old = world.reader.views(&world.collection);
    for n in 0..300 {
        world.write(&format!("d{n:05}"), "{\"n\":0}");
    }
    world.work(1_000, usize::MAX).unwrap();
    let index = world.indexes.of(&world.collection).remove(0);
    assert!(index.view(&old, old.feed_end().unwrap(), SMALL).is_err());
    assert!(world.indexed().indexes.len() == 1);
}

#[test]
fn runs_that_were_merged_are_not_for_moments_before() {
    let mut world = filled(300);
    world.indexes.sizes = Sizes { runs_per_level: 1_000, ..SMALL };
    world.declare(&[&["n"]], false);
    world.work(1_000, usize::MAX).unwrap();
    let old = world.reader.views(&world.collection);
    let index = world.indexes.of(&world.collection).remove(0);
    assert!(index.view(&old, old.feed_end().unwrap(), SMALL).is_ok());
    // What it was then goes with merging, though it is too little to be written for itself.
    world.write("d00007", "{\"n\":0}");
    world.indexes.sizes = SMALL;
    world.work(1, usize::MAX).unwrap();
    assert!(index.view(&old, old.feed_end().unwrap(), SMALL).is_err());
}

#[test]
fn declared_anew_it_is_made_anew_and_dropped_it_is_gone() {
    let mut world = filled(200);
    world.declare(&[&["n"]], false);
    world.work(10, usize::MAX).unwrap();
    let stored = |world: &World| world.store.scan(Keyspace::Index, &Span::prefix([INDEXES]), Order::Ascending).count();
    assert!(stored(&world) > 2);
    world.restart();
    world.declare(&[&["city"]], false);
    assert_eq!(world.indexes.infos(&world.collection)[0].building, Some(0));
    world.work(10, usize::MAX).unwrap();
    let text = "{\"selector\":{\"city\":\"c7\"}}";
    assert_eq!(pages(|| world.indexed(), text), (vec!["d00007".to_owned(), "d00107".to_owned()], Plan::Index));
    world.declare(&[], false);
    assert_eq!(stored(&world), 0);
    world.write("x", "{}");
}

#[test]
fn damage_is_found_and_mended() {
    let world = filled(200);
    world.declare(&[&["n"]], false);
    world.work(10, usize::MAX).unwrap();
    let mut batch = Batch::new();
    let index = world.indexes.of(&world.collection).remove(0);
    for entry in
        world.store.scan(Keyspace::Index, &Span::prefix(run::blocks_prefix(&index.prefix, 0)), Order::Ascending)
    {
        batch.put(Keyspace::Index, entry.unwrap().0.to_vec(), envelope::enclose(b"rubbish"));
    }
    assert!(!batch.is_empty());
    world.store.commit(&batch, Durability::Buffered).unwrap();
    let asked = query("{\"selector\":{\"n\":17}}");
    assert!(find(&world.indexed(), &asked, &ALL).is_err());
    world.indexes.distrust(&world.collection, "damaged");
    assert_eq!(find(&world.indexed(), &asked, &ALL).unwrap().explain.plan, Plan::Collection);
    world.work(1, usize::MAX).unwrap();
    assert_eq!(world.store.scan(Keyspace::Index, &Span::prefix([INDEXES]), Order::Ascending).count(), 0);
    world.work(10, usize::MAX).unwrap();
    assert_eq!(find(&world.indexed(), &asked, &ALL).unwrap().explain.plan, Plan::Index);
}

#[test]
fn what_is_erased_is_in_no_index() {
    let world = filled(200);
    world.declare(&[&["city"]], false);
    world.work(10, usize::MAX).unwrap();
    let holds = |text: &[u8]| {
        let all = world.store.scan(Keyspace::Index, &Span::prefix([INDEXES]), Order::Ascending);
        all.map(Result::unwrap).any(|(_, value)| value.windows(text.len()).any(|window| window == text))
    };
    // The first entry of a block stands there whole.
    assert!(holds(b"c0"));
    world.indexes.forget(&BTreeSet::from([world.collection.clone()]), &mut |batch| world.commit(&batch)).unwrap();
    assert!(!holds(b"c0"));
    assert_eq!(pages(|| world.indexed(), "{\"selector\":{\"city\":\"c42\"}}").1, Plan::Collection);
    world.work(10, usize::MAX).unwrap();
    assert_eq!(pages(|| world.indexed(), "{\"selector\":{\"city\":\"c42\"}}").1, Plan::Index);
}
