//! Documents that are edited and merged without Automerge as far as that goes: the same as with it, byte for byte.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use automerge::Change;
use automerge::legacy::OpId;
use bytes::Bytes;
use proptest::prelude::*;

use super::creates::{content, types};
use super::making::{Random, Sent, actor, assert_same, deliver, fold};
use super::mutations::{mutate_bytes, mutate_operations};
use crate::document::edit::{self, Action, Edit, EditOp, Operation};
use crate::document::fuzzing::{body, chunk};
use crate::document::gate::prescan;
use crate::document::json::{self, Pointer, Value};
use crate::document::{Admission, Candidate, Document, LocalChange, conflicts};
use crate::id::ChangeHash;
use crate::op::WriteAction;

/// A document as it is, and one that always goes the general way.
#[derive(Clone)]
struct Pair {
    direct: Document,
    general: Document,
}

impl Pair {
    fn new() -> Self {
        Self { direct: Document::new(), general: Document::new() }
    }

    fn edit(&mut self, by: u8, edit: &Edit) -> Option<Sent> {
        let (types, by) = (types(), actor(by));
        let general = self.general.local_edit(&by, |tx| edit::apply(tx, None, edit, &types)).map(|(change, _)| change);
        let direct = match edit {
            Edit::Put(value) if self.direct.is_pristine() => self.direct.fill(&by, value, &types),
            edit => self.direct.edit(&by, None, edit, &types),
        };
        assert_eq!(direct, general, "{edit:?}");
        self.check();
        general.ok().flatten().map(|change: LocalChange| Sent::new(by, change))
    }

    fn admit(&mut self, changes: &[Sent]) {
        let candidates: Vec<_> = changes.iter().map(Sent::candidate).collect();
        assert_eq!(self.direct.admit(&candidates), self.general.admit_by_gate(&candidates));
        self.check();
    }

    fn load(&mut self, all: &[Sent], folded: Option<(Bytes, Vec<u8>)>, use_tree: bool) {
        let tail = all.iter().map(|sent| &*sent.bytes);
        self.direct = match &folded {
            Some((snapshot, tree)) if use_tree => {
                Document::resume(std::slice::from_ref(snapshot), tree, tail, BTreeSet::new())
            }
            folded => {
                let snapshot = folded.as_ref().map(|(snapshot, _)| &**snapshot);
                Document::load(snapshot, tail, BTreeSet::new(), BTreeSet::new())
            }
        }
        .unwrap();
        self.check();
    }

    fn check(&self) {
        assert_eq!(self.direct.heads(), self.general.heads());
        assert_eq!(self.direct.change_count(), self.general.change_count());
        if self.direct.full.json().is_some() {
            assert_eq!(self.direct.json(), self.general.json());
        }
    }

    /// Compares what only Automerge can tell.
    fn check_all(&self) {
        assert_same(&self.direct, &self.general);
        assert_eq!(self.direct.json(), self.general.json());
        let [a, b] = [&self.direct, &self.general].map(|document| conflicts::list(document.view()).unwrap());
        assert_eq!(a, b);
        assert!(self.direct.is_consistent());
        let mut settled = self.direct.clone();
        settled.build().unwrap();
    }
}

#[derive(Clone, Debug)]
enum Step {
    Edit { at: usize, alias: bool, edit: Edit },
    Deliver { from: usize, to: usize, shuffle: Option<u64>, singly: bool },
    Reload { at: usize, shuffle: u64, folded: usize, use_tree: bool },
    Fold { at: usize },
    Touch { at: usize },
    LookAt { at: usize },
}

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "m", "n", "text", "counter", "time", "bytes", "long", "\u{e9}", "1"])
        .prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = Value> {
    let shape = |value: BoxedStrategy<Value>| {
        prop_oneof![
            3 => value.clone(),
            1 => prop::collection::btree_map(key(), value.clone(), 0..4).prop_map(Value::Map),
            1 => prop::collection::vec(value, 0..3).prop_map(Value::List),
        ]
        .boxed()
    };
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (-3_i64..4).prop_map(Value::Int),
        Just(Value::Int(i64::MAX)),
        Just(Value::Uint(u64::MAX)),
        prop::sample::select(vec![0.0, 1.0, -2.5e300]).prop_map(Value::Float),
        prop::sample::select(vec!["", "x", "AQID", "2026-11-22T10:20:30Z", "2026-11-22T11:20:30+01:00"])
            .prop_map(|text| Value::String(text.to_owned())),
    ];
    shape(shape(scalar.boxed()))
}

fn map() -> impl Strategy<Value = Value> {
    prop::collection::btree_map(key(), value(), 0..6).prop_map(Value::Map)
}

fn pointer() -> impl Strategy<Value = Pointer> {
    prop::collection::vec(key(), 0..4)
        .prop_map(|steps| steps.iter().map(|step| format!("/{step}")).collect::<String>().parse().unwrap())
}

fn any_edit() -> impl Strategy<Value = Edit> {
    let patch = prop_oneof![
        (pointer(), value()).prop_map(|(path, value)| Operation::Add { path, value }),
        pointer().prop_map(|path| Operation::Remove { path }),
        (pointer(), value()).prop_map(|(path, value)| Operation::Replace { path, value }),
        (pointer(), value()).prop_map(|(path, value)| Operation::Test { path, value }),
        (pointer(), pointer()).prop_map(|(from, path)| Operation::Copy { from, path }),
    ];
    let action = prop_oneof![
        value().prop_map(Action::Set),
        Just(Action::Delete),
        (-2_i64..3).prop_map(|by| Action::Increment { by }),
        Just(Action::Increment { by: i64::MAX }),
        prop::option::of(-2_i64..3).prop_map(Action::Counter),
        Just(Action::Timestamp(1_000)),
        Just(Action::Bytes(vec![1, 2, 3])),
        Just(Action::Text(Some("hello".to_owned()))),
        Just(Action::Splice { index: 0, delete: 0, insert: "\u{e9}x".to_owned() }),
        value().prop_map(|value| Action::Insert { index: Some(0), values: vec![value] }),
        Just(Action::Remove { index: 0, count: 1 }),
    ];
    let op = (pointer(), action).prop_map(|(path, action)| EditOp { path, action });
    prop_oneof![
        4 => map().prop_map(Edit::MergePatch),
        2 => map().prop_map(Edit::Put),
        2 => prop::collection::vec(patch, 1..3).prop_map(Edit::JsonPatch),
        4 => prop::collection::vec(op, 1..3).prop_map(Edit::Ops),
    ]
}

const REPLICAS: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    let at = || 0..REPLICAS;
    prop_oneof![
        12 => (at(), prop::bool::weighted(0.2), any_edit()).prop_map(|(at, alias, edit)| Step::Edit { at, alias, edit }),
        6 => (at(), at(), prop::option::of(any::<u64>()), any::<bool>())
            .prop_map(|(from, to, shuffle, singly)| Step::Deliver { from, to, shuffle, singly }),
        3 => (at(), any::<u64>(), 0_usize..20, any::<bool>())
            .prop_map(|(at, shuffle, folded, use_tree)| Step::Reload { at, shuffle, folded, use_tree }),
        1 => at().prop_map(|at| Step::Fold { at }),
        2 => at().prop_map(|at| Step::Touch { at }),
        1 => at().prop_map(|at| Step::LookAt { at }),
    ]
}

struct Replica {
    pair: Pair,
    has: Vec<Sent>,
}

impl Replica {
    fn take(&mut self, changes: &[Sent], singly: bool) {
        if singly {
            changes.iter().for_each(|sent| self.pair.admit(std::slice::from_ref(sent)));
        } else {
            self.pair.admit(changes);
        }
        let mut known: BTreeSet<_> = self.has.iter().map(|sent| sent.hash).collect();
        let here = changes.iter().filter(|sent| self.pair.general.contains(&sent.hash) && known.insert(sent.hash));
        self.has.extend(here.cloned().collect::<Vec<_>>());
    }
}

/// Runs steps; returns how many edits were made, and how many of them without Automerge.
fn run(begin: &Value, steps: Vec<Step>) -> (u32, u32) {
    let (mut edits, mut direct) = (0, 0);
    let mut first = Replica { pair: Pair::new(), has: Vec::new() };
    first.has.extend(first.pair.edit(9, &Edit::Put(begin.clone())));
    let mut replicas: Vec<Replica> = Vec::new();
    for _ in 0..REPLICAS {
        let mut replica = Replica { pair: Pair::new(), has: Vec::new() };
        replica.take(&first.has, false);
        replicas.push(replica);
    }
    for step in steps {
        match step {
            Step::Edit { at, alias, edit } => {
                let replica = &mut replicas[at];
                let by = at as u8 * 2 + u8::from(alias);
                if let Some(sent) = replica.pair.edit(by, &edit) {
                    edits += 1;
                    direct += u32::from(!replica.pair.direct.full.is_built());
                    replica.has.push(sent);
                }
            }
            Step::Deliver { from, to, shuffle, singly } => {
                let mut changes = replicas[from].has.clone();
                if let Some(seed) = shuffle {
                    // Changes of one actor stay in their order.
                    let mut random = Random::new(seed);
                    let mut queues: BTreeMap<_, Vec<_>> = BTreeMap::new();
                    changes.into_iter().rev().for_each(|sent| queues.entry(sent.actor).or_default().push(sent));
                    changes = Vec::new();
                    while !queues.is_empty() {
                        let actor = *queues.keys().nth(random.below(queues.len())).unwrap();
                        let queue = queues.get_mut(&actor).unwrap();
                        changes.extend(queue.pop());
                        if queue.is_empty() {
                            queues.remove(&actor);
                        }
                    }
                }
                replicas[to].take(&changes, singly);
            }
            Step::Reload { at, shuffle, folded, use_tree } => {
                let replica = &mut replicas[at];
                let mut tail = replica.has.clone();
                // As they come, each after those that it depends on, so that the first ones make a document.
                let order: BTreeMap<_, _> = replica.pair.general.changes().map(|(hash, _)| hash).zip(0..).collect();
                tail.sort_by_key(|sent| order[&sent.hash]);
                let mut snapshot = None;
                if folded > 0 && folded < tail.len() {
                    let mut part = Document::new();
                    deliver(&mut part, &tail.drain(..folded).collect::<Vec<_>>());
                    snapshot = Some(fold(&mut part));
                }
                Random::new(shuffle).shuffle(&mut tail);
                replica.pair.load(&tail, snapshot, use_tree);
            }
            Step::Touch { at } => {
                let (replica, by) = (&mut replicas[at], actor(at as u8 * 2));
                let Pair { direct, general } = &mut replica.pair;
                let touches = [direct, general].map(|document| document.touch::<()>(&by).unwrap());
                assert_eq!(touches[0], touches[1]);
                let [touch, _] = touches;
                replica.has.push(Sent::new(by, touch));
                replica.pair.check();
            }
            Step::Fold { at } => {
                fold(&mut replicas[at].pair.direct);
                replicas[at].pair.check();
            }
            Step::LookAt { at } => replicas[at].pair.check_all(),
        }
    }
    let all: Vec<Sent> = replicas.iter().flat_map(|replica| replica.has.clone()).collect();
    for replica in &mut replicas {
        replica.take(&all, false);
        replica.pair.check_all();
    }
    for replica in &replicas[1..] {
        assert_same(&replicas[0].pair.direct, &replica.pair.direct);
    }
    (edits, direct)
}

#[test]
fn what_needs_no_automerge_is_as_with_it() {
    let (edits, direct) = (Cell::new(0), Cell::new(0));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(192));
    let strategy = (prop_oneof![map(), content()], prop::collection::vec(step(), 0..48));
    runner
        .run(&strategy, |(begin, steps)| {
            let (more, directly) = run(&begin, steps);
            edits.set(edits.get() + more);
            direct.set(direct.get() + directly);
            Ok(())
        })
        .unwrap();
    let (edits, direct) = (edits.get(), direct.get());
    assert!(direct > 250 && direct * 2 > edits, "only {direct} of {edits} edits went the short way");
}

/// Whatever is read without Automerge must be what the gate would have admitted, and show the same.
fn check_mutated(before: &Document, bytes: &[u8]) -> bool {
    let Ok(scan) = prescan(bytes) else { return false };
    let action = if scan.deps.is_empty() { WriteAction::Create } else { WriteAction::Update };
    let candidate = Candidate { bytes, actor: scan.actor, action, fields: None };
    let mut direct = before.clone();
    let answer = direct.admit(std::slice::from_ref(&candidate));
    let went_directly = !direct.full.is_built();
    let mut general = before.clone();
    assert_eq!(answer, general.admit_by_gate(&[candidate]));
    if let [Admission::Admitted(hash)] = answer.as_slice() {
        assert_eq!(direct.change_bytes(hash).as_deref(), Some(bytes));
        assert_eq!(direct.json(), general.json());
        assert_same(&direct, &general);
        return went_directly;
    }
    false
}

#[test]
fn mutated_updates_get_the_gates_answer() {
    let parse = |text: &str| json::parse(text.as_bytes()).unwrap();
    let begin = parse(
        r#"{"a":[1,{"b":"x"}],"counter":3,"map":{"k":1,"l":{"m":"x"}},"n":7,"text":"hi","zzz":"2026-11-22T10:20:30Z"}"#,
    );
    let edits = [
        r#"{"n":8}"#,
        r#"{"counter":5}"#,
        r#"{"map":{"k":null,"new":{"deep":[1,"x",{"y":2}]}},"name":"x"}"#,
        r#"{"a":{"new":[1,2]},"map":null,"text":null}"#,
    ];
    let mut document = Document::new();
    let mut changes = vec![document.fill(&actor(1), &begin, &types()).unwrap().unwrap()];
    let mut steps = Vec::new();
    for (index, edit) in edits.into_iter().enumerate() {
        let before = document.clone();
        let by = actor(1 + index as u8 % 2);
        let change = document.edit(&by, None, &Edit::MergePatch(parse(edit)), &types()).unwrap().unwrap();
        assert!(!document.full.is_built());
        steps.push((before, change.bytes.to_vec()));
        changes.push(change);
    }
    let decoded: Vec<Change> = changes.iter().map(|change| Change::try_from(&*change.bytes).unwrap()).collect();
    let ids: Vec<OpId> = decoded
        .iter()
        .flat_map(|change| {
            (change.start_op().get()..=change.max_op()).map(|counter| OpId::new(counter, change.actor_id()))
        })
        .collect();
    let heads: Vec<_> = decoded.iter().map(Change::hash).collect();
    let (mut random, mut passed) = (Random::new(31), 0);
    for _ in 0..3_000 {
        let (before, bytes) = &steps[random.below(steps.len())];
        let mut bytes = body(bytes);
        mutate_bytes(&mut random, &mut bytes);
        passed += u32::from(check_mutated(before, &chunk(&bytes)));
    }
    assert!(passed > 20, "only {passed} passed: the mutations miss");
    passed = 0;
    for _ in 0..3_000 {
        let (before, bytes) = &steps[random.below(steps.len())];
        let mut change = Change::try_from(bytes.as_slice()).unwrap().decode();
        mutate_operations(&mut random, &mut change, &ids, &heads);
        let encoded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| Change::from(change)));
        let Ok(change) = encoded else { continue };
        passed += u32::from(check_mutated(before, change.raw_bytes()));
    }
    assert!(passed > 100, "only {passed} passed: the mutations miss");
}

#[test]
fn a_document_of_usual_edits_never_meets_automerge() {
    let parse = |text: &str| json::parse(text.as_bytes()).unwrap();
    let mut document = Document::new();
    document.fill(&actor(1), &parse(r#"{"a":{"b":1},"counter":1,"l":[1,2],"x":"y"}"#), &types()).unwrap();
    let path = |text: &str| text.parse::<Pointer>().unwrap();
    let edits = [
        Edit::MergePatch(parse(r#"{"a":{"b":2,"c":[3]},"x":null}"#)),
        Edit::Put(parse(r#"{"a":{"b":2,"c":[3]},"counter":7,"l":[1,2],"x":{"z":[]}}"#)),
        Edit::Ops(vec![EditOp { path: path("/counter"), action: Action::Increment { by: -3 } }]),
        Edit::JsonPatch(vec![
            Operation::Test { path: path("/counter"), value: Value::Int(4) },
            Operation::Replace { path: path("/a/b"), value: Value::Bool(true) },
            Operation::Remove { path: path("/l") },
        ]),
    ];
    for edit in &edits {
        assert!(document.edit(&actor(2), None, edit, &types()).unwrap().is_some());
    }
    assert_eq!(document.json(), r#"{"a":{"b":true,"c":[3]},"counter":4,"x":{"z":[]}}"#);
    // Nothing is changed by saying it again.
    let same = Edit::Put(parse(std::str::from_utf8(&document.json()).unwrap()));
    assert_eq!(document.edit(&actor(2), None, &same, &types()).unwrap(), None);
    assert!(!document.full.is_built());
    assert_eq!(json::render(document.view()), document.json());
    assert_eq!(document.view().get_changes(&[]).len(), 5);
}

#[test]
fn saying_again_what_is_there_is_no_change() {
    let ops = |action: Action| Edit::Ops(vec![EditOp { path: "/a".parse().unwrap(), action }]);
    let mut pair = Pair::new();
    pair.edit(1, &Edit::Put(json::parse(br#"{"a":1}"#).unwrap()));
    for action in [Action::Timestamp(1_000), Action::Bytes(vec![1]), Action::Counter(Some(3)), Action::Set(Value::Null)]
    {
        assert!(pair.edit(1, &ops(action.clone())).is_some(), "{action:?}");
        assert!(pair.edit(2, &ops(action.clone())).is_none(), "{action:?}");
    }
    assert!(!pair.direct.full.is_built());
}

#[test]
fn of_two_changes_with_one_number_the_same_comes_first_however_they_are_offered() {
    let mut first = Pair::new();
    let begin = first.edit(1, &Edit::Put(json::parse(br#"{"a":1}"#).unwrap())).unwrap();
    let mut twins: Vec<Sent> = (2..10)
        .map(|value| {
            let patch = Edit::MergePatch(Value::Map(BTreeMap::from([("a".to_owned(), Value::Int(value))])));
            first.clone().edit(1, &patch).unwrap()
        })
        .collect();
    twins.push(begin);
    for shift in 0..twins.len() {
        twins.rotate_left(shift);
        Pair::new().admit(&twins);
        first.clone().admit(&twins);
    }
}

#[test]
fn nothing_is_left_of_maps_that_are_gone() {
    let mut pair = Pair::new();
    pair.edit(1, &Edit::Put(json::parse(br#"{"a":{"b":{"c":{}}},"d":{"e":{}}}"#).unwrap()));
    pair.edit(1, &Edit::MergePatch(json::parse(br#"{"a":1,"d":{"e":null,"f":{}}}"#).unwrap()));
    // The root, d and f.
    assert_eq!(pair.direct.full.map_count(), Some(3));
}

#[test]
fn a_folded_document_goes_on_without_its_snapshot() {
    let types = types();
    let patch = |n: i64| {
        Edit::MergePatch(Value::Map(BTreeMap::from([
            ("a".to_owned(), Value::Int(n)),
            (format!("k{}", n % 3), Value::Null),
        ])))
    };
    let mut document = Document::new();
    let begin = json::parse(
        br#"{"a":0,"counter":1,"k1":{"x":[1]},"k2":"y","l":[{}],"m":{"n":{"o":1}},"time":"2026-11-22T10:20:30Z","text":"t"}"#,
    );
    let first = document.fill(&actor(1), &begin.unwrap(), &types).unwrap().unwrap();
    for n in 1..70 {
        document.edit(&actor(1 + n as u8 % 2), None, &patch(n), &types).unwrap();
    }
    let (snapshot, tree) = fold(&mut document);
    assert!(!document.full.is_built(), "the snapshot is kept in place of the document");
    let tail: Vec<_> =
        (70..75).map(|n| document.edit(&actor(1), None, &patch(n), &types).unwrap().unwrap().bytes).collect();
    let bytes = || tail.iter().rev().map(|bytes| &**bytes);
    let mut resumed = Document::resume(std::slice::from_ref(&snapshot), &tree, bytes(), BTreeSet::new()).unwrap();
    assert!(!resumed.full.is_built());
    assert_eq!((resumed.heads(), resumed.change_count()), (document.heads(), 75));
    // On copies: to tell, the snapshot has to be loaded.
    assert!(resumed.clone().contains(&first.hash) && !resumed.clone().contains(&ChangeHash::ZERO));
    let edits =
        [&mut document, &mut resumed].map(|document| document.edit(&actor(3), None, &patch(75), &types).unwrap());
    assert_eq!(edits[0], edits[1]);
    assert!(!resumed.full.is_built() && resumed.is_consistent());
    assert_same(&resumed, &document);
    // Without a tree, or with a damaged one, there is still the snapshot.
    for damaged in [&[][..], &tree[..tree.len() / 2]] {
        let loaded = Document::resume(std::slice::from_ref(&snapshot), damaged, bytes(), BTreeSet::new()).unwrap();
        assert_eq!(loaded.change_count(), 75);
    }
    // A tree that is sound and another document's is found out.
    let mut other = Document::new();
    other.fill(&actor(1), &json::parse(br#"{"a":0}"#).unwrap(), &types).unwrap();
    let (_, wrong) = fold(&mut other);
    assert!(!Document::resume(&[snapshot], &wrong, [], BTreeSet::new()).unwrap().is_consistent());
}
