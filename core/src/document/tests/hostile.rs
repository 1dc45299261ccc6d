//! Every hostile change that did harm to Automerge 0.12, and what the gate says to it.

use std::num::NonZeroU64;

use automerge::legacy::{ElementId, Key, MarkData, ObjectId, Op, OpId, OpType};
use automerge::transaction::Transactable;
use automerge::{Change, ExpandedChange, ObjId, ObjType, ROOT, ReadDoc, ScalarValue};

use super::making::{actor, assert_same, deliver, edit, put, sample};
use crate::document::fuzzing::{assert_sound, body, chunk, chunk_of_type};
use crate::document::gate::prescan;
use crate::document::native::{change_hash, native_actor};
use crate::document::{Admission, Candidate, Document, GateError, Hold};
use crate::id::ActorId;
use crate::limits;
use crate::op::WriteAction;

const EVIL: ActorId = ActorId::new([0xee; 16]);

fn unsigned(out: &mut Vec<u8>, value: u64) {
    leb128::write::unsigned(out, value).unwrap();
}

fn run(count: i64, value: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    leb128::write::signed(&mut out, count).unwrap();
    value(&mut out);
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    unsigned(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// A change written byte by byte.
struct Raw {
    deps: Vec<[u8; 32]>,
    actor: Vec<u8>,
    start_op: u64,
    columns: Vec<(u64, Vec<u8>)>,
    extra: Vec<u8>,
}

impl Raw {
    fn after(document: &Document) -> Self {
        let deps = document.heads().iter().map(|head| *head.as_bytes()).collect();
        Self { deps, actor: vec![0xee; 16], start_op: top(document) + 1, columns: one_put(1), extra: Vec::new() }
    }

    fn first(columns: Vec<(u64, Vec<u8>)>) -> Self {
        Self { deps: Vec::new(), actor: vec![0xee; 16], start_op: 1, columns, extra: Vec::new() }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        unsigned(&mut out, self.deps.len() as u64);
        out.extend(self.deps.iter().flatten());
        unsigned(&mut out, self.actor.len() as u64);
        out.extend(&self.actor);
        unsigned(&mut out, 1);
        unsigned(&mut out, self.start_op);
        // No time, no message, no other actors.
        out.extend([0, 0, 0]);
        unsigned(&mut out, self.columns.len() as u64);
        for (spec, data) in &self.columns {
            unsigned(&mut out, *spec);
            unsigned(&mut out, data.len() as u64);
        }
        out.extend(self.columns.iter().flat_map(|(_, data)| data));
        out.extend(&self.extra);
        chunk(&out)
    }
}

fn top(document: &Document) -> u64 {
    document.full().get_changes_meta(&[]).iter().map(|meta| meta.max_op).max().unwrap_or(0)
}

/// `put null at "a"`, `count` times, in about sixty bytes; `action` 1 is a put.
fn puts(count: i64, key: &str, action: u64) -> Vec<(u64, Vec<u8>)> {
    let mut flags = Vec::new();
    unsigned(&mut flags, count.unsigned_abs());
    vec![
        (21, run(count, |out| text(out, key))),
        (52, flags),
        (66, run(count, |out| unsigned(out, action))),
        (86, run(count, |out| unsigned(out, 0))),
        (112, run(count, |out| unsigned(out, 0))),
    ]
}

fn one_put(action: u64) -> Vec<(u64, Vec<u8>)> {
    puts(-1, "a", action)
}

fn two_puts(actions: Vec<u8>) -> Vec<u8> {
    let mut columns = puts(2, "a", 1);
    columns[0].1 = run(-2, |out| ["a", "b"].into_iter().for_each(|key| text(out, key)));
    columns[2].1 = actions;
    Raw::first(columns).bytes()
}

fn expanded(document: &Document, seq: u64, operations: Vec<Op>) -> ExpandedChange {
    ExpandedChange {
        operations,
        actor_id: native_actor(&EVIL),
        hash: None,
        seq,
        start_op: NonZeroU64::new(top(document) + 1).unwrap(),
        time: 0,
        message: None,
        deps: document.full().get_heads(),
        extra_bytes: Vec::new(),
        author: None,
    }
}

fn encode(change: ExpandedChange) -> Vec<u8> {
    Change::from(change).raw_bytes().to_vec()
}

fn op(obj: ObjectId, key: Key, action: OpType, pred: Vec<OpId>, insert: bool) -> Op {
    Op { action, obj, key, pred: pred.into(), insert }
}

fn value(value: impl Into<ScalarValue>) -> OpType {
    OpType::Put(value.into())
}

fn at(key: &str) -> Key {
    Key::Map(key.into())
}

fn after(element: OpId) -> Key {
    Key::Seq(ElementId::Id(element))
}

fn by(counter: u64, n: u8) -> OpId {
    OpId::new(counter, &native_actor(&actor(n)))
}

fn mark_begin() -> OpType {
    OpType::MarkBegin(MarkData { name: "b".into(), value: true.into(), expand: true })
}

/// A document with history of two actors, concurrent and merged.
fn base() -> Document {
    let mut document = Document::new();
    sample(&mut document, 1);
    let mut other = document.clone();
    let there = put(&mut other, 2, "a", 4);
    put(&mut document, 1, "a", 9);
    deliver(&mut document, &[there]);
    document
}

fn id_of(document: &Document, key: &str) -> OpId {
    match document.view().get(ROOT, key).unwrap().unwrap().1 {
        ObjId::Id(counter, actor, _) => OpId::new(counter, &actor),
        ObjId::Root => unreachable!(),
    }
}

fn nested(depth: usize, kind: ObjType) -> Vec<u8> {
    let operations = (0..depth as u64).map(|level| {
        let object = if level == 0 { ObjectId::Root } else { ObjectId::Id(OpId::new(level, &native_actor(&EVIL))) };
        let inside = level > 0 && kind == ObjType::List;
        let key = if inside { Key::Seq(ElementId::Head) } else { at("k") };
        op(object, key, OpType::Make(kind), Vec::new(), inside)
    });
    encode(expanded(&Document::new(), 1, operations.collect()))
}

/// Offers a change of `EVIL` (or whom the bytes name, if `actor` says so) and checks that the document is unharmed.
fn offer(document: &Document, actor: ActorId, bytes: &[u8]) -> Admission {
    let mut target = document.clone();
    let creates = prescan(bytes).is_ok_and(|scan| scan.deps.is_empty());
    let action = if creates { WriteAction::Create } else { WriteAction::Update };
    let answer = target.admit(&[Candidate { bytes, actor, action, fields: None }]).pop().unwrap();
    if !matches!(answer, Admission::Admitted(_)) {
        assert_same(&target, document);
    }
    assert_sound(&target);
    answer
}

#[track_caller]
fn expect(document: &Document, bytes: &[u8], expected: GateError) {
    assert_eq!(offer(document, EVIL, bytes), Admission::Bad(expected));
}

#[test]
fn references_must_exist_among_the_ancestors() {
    let d = base();
    let own = |counter| OpId::new(counter, &native_actor(&EVIL));
    let ghost = OpId::new(1, &native_actor(&actor(0x77)));
    let (list, text) = (id_of(&d, "l"), id_of(&d, "t"));
    let root = || ObjectId::Root;
    for operation in [
        op(ObjectId::Id(own(9_999)), at("q"), value(1), vec![], false),
        op(ObjectId::Id(by(9_999, 1)), at("q"), value(1), vec![], false),
        op(ObjectId::Id(ghost.clone()), at("q"), value(1), vec![], false),
        op(root(), at("q"), value(1), vec![ghost], false),
        op(root(), at("q"), value(1), vec![by(9_999, 1)], false),
        op(root(), at("q"), value(1), vec![own(top(&d) + 1)], false),
        op(root(), at("q"), value(1), vec![by(0, 1)], false),
        op(ObjectId::Id(list.clone()), after(by(9_999, 1)), value(1), vec![], true),
        op(ObjectId::Id(list), after(by(9_999, 1)), value(1), vec![], false),
    ] {
        expect(&d, &encode(expanded(&d, 1, vec![operation])), GateError::Reference);
    }
    // What a concurrent change made, unknown to those who lack that one.
    let mut change = expanded(&d, 1, vec![op(root(), at("a"), value(1), vec![id_of(&d, "a")], false)]);
    change.deps.truncate(1);
    let seen = id_of(&d, "a").actor() == d.full().get_change_meta_by_hash(&change.deps[0]).unwrap().actor.as_ref();
    if seen {
        change.deps = d.full().get_heads().split_off(1);
    }
    expect(&d, &encode(change), GateError::Reference);
    let mut change = expanded(&d, 1, vec![op(ObjectId::Id(text), after(by(3, 1)), value("x"), vec![], true)]);
    let first = &d.full().get_changes_meta(&[])[0];
    change.deps = vec![first.hash];
    change.start_op = NonZeroU64::new(first.max_op + 1).unwrap();
    assert!(matches!(offer(&d, EVIL, &encode(change)), Admission::Held(_)), "an anchor in another object");
}

#[test]
fn operations_must_fit_their_objects() {
    let d = base();
    let (list, text) = (id_of(&d, "l"), id_of(&d, "t"));
    let (list, text) = (|| ObjectId::Id(list.clone()), || ObjectId::Id(text.clone()));
    let root = || ObjectId::Root;
    let head = || Key::Seq(ElementId::Head);
    for (operation, error) in [
        (op(ObjectId::Id(id_of(&d, "a")), at("q"), value(1), vec![], false), GateError::Object),
        (op(list(), at("q"), value(1), vec![], false), GateError::Kind),
        (op(root(), head(), value(1), vec![], true), GateError::Kind),
        (op(root(), at("q"), value(1), vec![], true), GateError::Kind),
        (op(list(), head(), value(1), vec![], false), GateError::Kind),
        (op(root(), at("a"), OpType::Delete, vec![], false), GateError::Predecessors),
        (op(root(), at("c"), OpType::Increment(1), vec![], false), GateError::Predecessors),
        (op(list(), head(), value(1), vec![by(1, 1)], true), GateError::Predecessors),
        (op(text(), head(), OpType::MarkEnd(true), vec![], true), GateError::Mark),
        (op(text(), head(), mark_begin(), vec![], true), GateError::Mark),
        (op(root(), at("q"), mark_begin(), vec![], false), GateError::Mark),
        (op(list(), head(), mark_begin(), vec![], true), GateError::Mark),
        (op(root(), at("q"), OpType::Make(ObjType::Table), vec![], false), GateError::Table),
    ] {
        expect(&d, &encode(expanded(&d, 1, vec![operation])), error);
    }
    // References that exist, in the wrong place: Automerge panics, or forgets them.
    for operation in [
        op(root(), at("q"), value(1), vec![by(1, 1)], false),
        op(root(), at("q"), OpType::Delete, vec![by(1, 1)], false),
        op(list(), after(by(10, 1)), value(1), vec![], true),
    ] {
        let answer = offer(&d, EVIL, &encode(expanded(&d, 1, vec![operation.clone()])));
        assert!(matches!(answer, Admission::Held(_)), "{operation:?}: {answer:?}");
    }
    // Odd, and harmless.
    for operation in [
        op(root(), at("q"), value(1), vec![], false),
        op(text(), head(), value(7), vec![], true),
        op(text(), head(), OpType::Make(ObjType::Map), vec![], true),
        op(root(), at("a"), OpType::Increment(1), vec![id_of(&d, "a")], false),
        op(root(), at("c"), OpType::Increment(i64::MAX), vec![id_of(&d, "c")], false),
    ] {
        let answer = offer(&d, EVIL, &encode(expanded(&d, 1, vec![operation.clone()])));
        assert!(matches!(answer, Admission::Admitted(_)), "{operation:?}: {answer:?}");
    }
}

#[test]
fn sequence_numbers_and_operation_ids_must_follow() {
    let d = base();
    let change = |seq| expanded(&d, seq, vec![op(ObjectId::Root, at("q"), value(1), vec![], false)]);
    for seq in [0, 5, u64::from(u32::MAX) + 1] {
        expect(&d, &encode(change(seq)), GateError::Sequence);
    }
    let starting = |start_op: u64| encode(ExpandedChange { start_op: NonZeroU64::new(start_op).unwrap(), ..change(1) });
    // Just behind the dependencies': a document that Automerge saved and loads again takes ids that were left out for
    // some that are there, so that replicas would not agree on what refers to them; and high ids win conflicts.
    for start_op in [1, top(&d), top(&d) + 2, 1 << 31] {
        expect(&d, &starting(start_op), GateError::OperationIds);
    }
    assert!(matches!(offer(&d, EVIL, &starting(top(&d) + 1)), Admission::Admitted(_)));
    expect(&d, &starting(u64::from(u32::MAX)), GateError::Limit("operation counter"));
    // Under the actor of someone else.
    let stolen = ExpandedChange { actor_id: native_actor(&actor(1)), ..change(3) };
    expect(&d, &encode(stolen.clone()), GateError::Actor);
    let orphaned = ExpandedChange { deps: Vec::new(), ..stolen };
    assert_eq!(offer(&d, actor(1), &encode(orphaned)), Admission::Bad(GateError::Sequence));
    // A number that an ancestor used, and one that a concurrent change used.
    let again = ExpandedChange { actor_id: native_actor(&actor(1)), ..change(1) };
    assert_eq!(offer(&d, actor(1), &encode(again)), Admission::Bad(GateError::Sequence));
    let first = &d.full().get_changes_meta(&[])[0];
    let fork = ExpandedChange {
        actor_id: native_actor(&actor(1)),
        deps: vec![first.hash],
        start_op: NonZeroU64::new(first.max_op + 1).unwrap(),
        ..change(2)
    };
    let other = d.full().get_changes_meta(&[]).into_iter().find(|meta| meta.seq == 2).unwrap().hash;
    assert_eq!(offer(&d, actor(1), &encode(fork)), Admission::Held(Hold::SequenceTaken(change_hash(&other))));
    // Empty changes.
    expect(
        &d,
        &encode(ExpandedChange { start_op: NonZeroU64::new(top(&d) + 2).unwrap(), ..expanded(&d, 1, vec![]) }),
        GateError::OperationIds,
    );
    assert!(matches!(offer(&d, EVIL, &encode(expanded(&d, 1, vec![]))), Admission::Admitted(_)));
}

#[test]
fn encodings_must_be_canonical() {
    let d = base();
    let after = || Raw::after(&d);
    let swapped = |mut raw: Raw| {
        raw.deps.reverse();
        raw
    };
    let doubled = |mut raw: Raw| {
        raw.deps.push(raw.deps[raw.deps.len() - 1]);
        raw
    };
    let mut unknown_column = one_put(1);
    unknown_column.push((0x102, run(-1, |out| unsigned(out, 9))));
    for raw in [
        swapped(after()),
        doubled(after()),
        Raw { actor: vec![], ..after() },
        Raw { actor: vec![5; 65_536], ..after() },
        Raw { columns: one_put(48), ..after() },
        Raw { columns: unknown_column, ..after() },
    ] {
        let answer = offer(&d, EVIL, &raw.bytes());
        assert!(matches!(answer, Admission::Bad(GateError::Encoding(_))), "{answer:?}");
    }
    expect(&d, &Raw { extra: vec![0xff; 10_240], ..after() }.bytes(), GateError::Limit("extra bytes"));
    expect(&d, &Raw { columns: one_put(6), ..after() }.bytes(), GateError::Table);
    assert!(matches!(offer(&d, EVIL, &after().bytes()), Admission::Admitted(_)));

    let good = two_puts(run(2, |out| unsigned(out, 1)));
    let empty = Document::new();
    assert!(matches!(offer(&empty, EVIL, &good), Admission::Admitted(_)));
    let other_runs = two_puts(run(-2, |out| out.extend([1, 1])));
    assert!(matches!(offer(&empty, EVIL, &other_runs), Admission::Held(_) | Admission::Bad(GateError::Encoding(_))));

    // The sequence number written in two bytes where one will do.
    let mut long = body(&after().bytes());
    let place = 1 + 32 * d.heads().len() + 1 + 16;
    assert_eq!(long[place], 1);
    long.splice(place..=place, [0x81, 0]);
    assert!(!matches!(offer(&d, EVIL, &chunk(&long)), Admission::Admitted(_)));

    let mut checksum = good.clone();
    checksum[5] ^= 1;
    expect(&empty, &checksum, GateError::Encoding("checksum"));
    expect(&empty, &good[1..], GateError::Encoding("magic"));
    expect(&empty, &good[..good.len() - 1], GateError::Encoding("checksum"));
    expect(&empty, &chunk_of_type(2, &body(&good)), GateError::Encoding("chunk type"));
    expect(&empty, &chunk_of_type(0, &body(&good)), GateError::Encoding("chunk type"));
    expect(&empty, &[], GateError::Encoding("length"));
}

#[test]
fn bombs_are_refused_unopened() {
    let empty = Document::new();
    for count in [50_001, 1_000_000, 10_000_000_000, i64::MAX] {
        expect(&empty, &Raw::first(puts(count, "a", 1)).bytes(), GateError::Limit("operations"));
    }
    let mut flags = one_put(1);
    flags[1].1.clear();
    unsigned(&mut flags[1].1, 10_000_000_000);
    expect(&empty, &Raw::first(flags).bytes(), GateError::Limit("operations"));
    let mut preds = one_put(1);
    preds[4].1 = run(-1, |out| unsigned(out, 10_000_000_000));
    expect(&empty, &Raw::first(preds).bytes(), GateError::Limit("predecessors"));
    let mut nulls = one_put(1);
    nulls[3].1 = run(0, |out| unsigned(out, 10_000_000_000));
    expect(&empty, &Raw::first(nulls).bytes(), GateError::Limit("operations"));
    let key = "k".repeat(limits::DOC_KEY_BYTES_MAX);
    expect(&empty, &Raw::first(puts(50_000, &key, 1)).bytes(), GateError::Limit("keys together"));
    expect(&empty, &Raw::first(puts(-1, &format!("{key}k"), 1)).bytes(), GateError::Limit("key"));
    expect(&empty, &vec![0; limits::CHANGE_BYTES_MAX + 1], GateError::Limit("bytes"));
    let mut deps = Vec::new();
    unsigned(&mut deps, 1 << 40);
    deps.extend([0; 64]);
    expect(&empty, &chunk(&deps), GateError::Limit("dependencies"));
    // Half a gibibyte of zeros, deflated, would be chunk type 2; the type alone is refused.
    expect(&empty, &chunk_of_type(2, &[0; 1_000]), GateError::Encoding("chunk type"));
}

#[test]
fn nesting_is_bounded_before_anything_recurses() {
    let empty = Document::new();
    for kind in [ObjType::Map, ObjType::List] {
        for depth in [limits::DOC_DEPTH_MAX + 1, 2_000, 20_000] {
            expect(&empty, &nested(depth, kind), GateError::Depth);
        }
        let deep = nested(limits::DOC_DEPTH_MAX, kind);
        assert!(matches!(offer(&empty, EVIL, &deep), Admission::Admitted(_)));
        // One level more, in a second change: alone, and beside the first.
        let mut document = Document::new();
        document.admit(&[Candidate { bytes: &deep, actor: EVIL, action: WriteAction::Create, fields: None }]);
        let last = ObjectId::Id(OpId::new(limits::DOC_DEPTH_MAX as u64, &native_actor(&EVIL)));
        let (key, insert) = if kind == ObjType::List { (Key::Seq(ElementId::Head), true) } else { (at("k"), false) };
        let more = encode(expanded(&document, 2, vec![op(last, key, OpType::Make(ObjType::Map), vec![], insert)]));
        expect(&document, &more, GateError::Depth);
        let both = Document::new().admit(&[
            Candidate { bytes: &more, actor: EVIL, action: WriteAction::Update, fields: None },
            Candidate { bytes: &deep, actor: EVIL, action: WriteAction::Create, fields: None },
        ]);
        assert!(matches!(both.as_slice(), [Admission::Bad(GateError::Depth), Admission::Admitted(_)]), "{both:?}");
    }
}

#[test]
fn the_header_must_say_what_the_change_does() {
    let mut document = Document::new();
    let create = put(&mut document, 1, "a", 1);
    let update = put(&mut document, 1, "a", 2);
    let answer = |sent: &super::making::Sent, actor, action| {
        Document::new().admit(&[Candidate { bytes: &sent.bytes, actor, action, fields: None }]).pop().unwrap()
    };
    let bad = Admission::Bad;
    assert_eq!(answer(&create, actor(1), WriteAction::Update), bad(GateError::Action));
    assert_eq!(answer(&create, actor(1), WriteAction::Delete), bad(GateError::Action));
    assert_eq!(answer(&update, actor(1), WriteAction::Create), bad(GateError::Action));
    assert_eq!(answer(&create, actor(2), WriteAction::Create), bad(GateError::Actor));
    assert_eq!(answer(&update, actor(1), WriteAction::Update), Admission::MissingDeps(vec![create.hash]));
    // Also where the change itself is known.
    let stolen = Candidate { bytes: &update.bytes, actor: actor(2), action: WriteAction::Update, fields: None };
    assert_eq!(document.admit(&[stolen]), [bad(GateError::Actor)]);
}

#[test]
fn one_bad_change_does_not_take_the_others_along() {
    let document = base();
    let mut other = document.clone();
    let good: Vec<_> = (0..20).map(|i| put(&mut other, 7, "a", 100 + i)).collect();
    let held = encode(expanded(&document, 1, vec![op(ObjectId::Root, at("q"), value(1), vec![by(1, 1)], false)]));
    let held_hash = prescan(&held).unwrap().hash;
    let mut follower = expanded(&document, 2, vec![op(ObjectId::Root, at("r"), value(1), vec![], false)]);
    follower.deps = vec![automerge::ChangeHash(*held_hash.as_bytes())];
    follower.start_op = NonZeroU64::new(top(&document) + 2).unwrap();
    let follower = encode(follower);
    let mut candidates: Vec<_> = good.iter().map(super::making::Sent::candidate).collect();
    candidates.insert(3, Candidate { bytes: &follower, actor: EVIL, action: WriteAction::Update, fields: None });
    candidates.insert(9, Candidate { bytes: &held, actor: EVIL, action: WriteAction::Update, fields: None });
    let mut target = document.clone();
    let mut answers = target.admit(&candidates);
    assert!(matches!(answers.remove(9), Admission::Held(Hold::Panicked(_) | Hold::ReadBack)));
    assert_eq!(answers.remove(3), Admission::MissingDeps(vec![held_hash]));
    assert!(answers.iter().all(|answer| matches!(answer, Admission::Admitted(_))), "{answers:?}");
    assert_same(&target, &other);
    assert_sound(&target);
}

#[test]
fn of_two_branches_of_an_actor_the_first_stays() {
    let mut document = Document::new();
    let create = put(&mut document, 1, "a", 1);
    let (mut left, mut right) = (document.clone(), document.clone());
    let left = put(&mut left, 2, "a", 2);
    let right_first = put(&mut right, 2, "b", 3);
    let right_second = edit(&mut right, 2, |tx| tx.put(ROOT, "b", 4));
    deliver(&mut document, std::slice::from_ref(&left));
    let answers = document.admit(&[right_second.candidate(), right_first.candidate(), create.candidate()]);
    assert_eq!(
        answers,
        [
            Admission::MissingDeps(vec![right_first.hash]),
            Admission::Held(Hold::SequenceTaken(left.hash)),
            Admission::Known(create.hash),
        ]
    );
    // Together, the one with the smaller hash.
    let mut both = Document::new();
    deliver(&mut both, &[create]);
    let answers = both.admit(&[left.candidate(), right_first.candidate()]);
    let winner = left.hash.min(right_first.hash);
    assert_eq!(answers.iter().filter(|answer| **answer == Admission::Admitted(winner)).count(), 1);
    assert!(answers.contains(&Admission::Held(Hold::SequenceTaken(winner))));
    assert_sound(&both);
}
