//! Changes made to hurt, for hostile members in tests: each is the first of its document.

use std::num::NonZeroU64;

use automerge::legacy::{ElementId, Key, ObjectId, Op, OpId, OpType};
use automerge::transaction::Transactable as _;
use automerge::{ActorId as NativeActor, Change, ExpandedChange, ObjType, ROOT, ScalarValue};

use super::mutate::Parts;
use super::{body, chunk, chunk_of_type};
use crate::document::Document;
use crate::id::ActorId;

/// Returns the change of an honest author that makes a document.
///
/// # Panics
/// Never: the edit is a good one.
#[must_use]
pub fn first_change(actor: &ActorId, text: &str) -> Vec<u8> {
    let (change, ()) = Document::new().local_edit(actor, |tx| tx.put(ROOT, "text", text)).expect("a good edit");
    change.expect("the edit changes something").bytes.to_vec()
}

/// Returns a change as if it had been made under another actor, however broken it is.
#[must_use]
pub fn under_actor(bytes: &[u8], actor: &ActorId) -> Vec<u8> {
    match Parts::read(&body(bytes)) {
        Some(mut parts) => {
            parts.actor = actor.as_bytes().to_vec();
            chunk(&parts.write())
        }
        None => bytes.to_vec(),
    }
}

/// Returns changes that break rules of the gate, or Automerge itself.
#[must_use]
pub fn hostile_changes() -> Vec<Vec<u8>> {
    let valid = first_change(&ActorId::new([0xee; 16]), "x");
    let parts = || Parts::read(&body(&valid)).unwrap_or_default();
    let with = |edit: &dyn Fn(&mut Parts)| {
        let mut parts = parts();
        edit(&mut parts);
        chunk(&parts.write())
    };
    let own = |counter| OpId::new(counter, &NativeActor::from([0xee; 16]));
    let at = |key: &str| Key::Map(key.into());
    let op = |obj, key, action, pred: Vec<OpId>, insert| Op { action, obj, key, pred: pred.into(), insert };
    let put = || OpType::Put(ScalarValue::Int(1));
    let nested = (0..300).map(|level| {
        let object = if level == 0 { ObjectId::Root } else { ObjectId::Id(own(level)) };
        op(object, at("k"), OpType::Make(ObjType::Map), Vec::new(), false)
    });
    vec![
        // Ten thousand million operations in sixty bytes.
        with(&|parts| parts.run_of(10_000_000_000)),
        with(&|parts| parts.extra = vec![0xff; 10_240]),
        with(&|parts| parts.start_op = u64::from(u32::MAX)),
        // Nobody could edit the document any more: the difference to the next time overflows.
        with(&|parts| parts.time = i64::MIN.cast_unsigned()),
        with(&|parts| parts.time = i64::MAX.cast_unsigned()),
        with(&|parts| parts.columns.push((0x102, vec![0x7f, 9]))),
        chunk_of_type(2, &[0; 500]),
        encoded(vec![op(ObjectId::Root, at("t"), OpType::Make(ObjType::Table), Vec::new(), false)]),
        encoded(vec![op(ObjectId::Id(own(77)), at("q"), put(), Vec::new(), false)]),
        encoded(vec![op(ObjectId::Root, Key::Seq(ElementId::Head), put(), Vec::new(), true)]),
        encoded(nested.collect()),
        // A reference that exists, in the wrong place: Automerge panics, or forgets it.
        encoded(vec![
            op(ObjectId::Root, at("a"), put(), Vec::new(), false),
            op(ObjectId::Root, at("q"), OpType::Delete, vec![own(1)], false),
        ]),
    ]
}

fn encoded(operations: Vec<Op>) -> Vec<u8> {
    let change = ExpandedChange {
        operations,
        actor_id: NativeActor::from([0xee; 16]),
        hash: None,
        seq: 1,
        start_op: NonZeroU64::MIN,
        time: 0,
        message: None,
        deps: Vec::new(),
        extra_bytes: Vec::new(),
        author: None,
    };
    Change::from(change).raw_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Admission, Candidate};
    use crate::op::WriteAction;

    #[test]
    fn none_of_them_passes_under_any_actor() {
        let actor = ActorId::new([9; 16]);
        for (index, bytes) in hostile_changes().iter().enumerate() {
            let bytes = under_actor(bytes, &actor);
            let mut document = Document::new();
            let answers =
                document.admit(&[Candidate { bytes: &bytes, actor, action: WriteAction::Create, fields: None }]);
            assert!(matches!(answers.as_slice(), [Admission::Bad(_) | Admission::Held(_)]), "{index}: {answers:?}");
        }
        let good = first_change(&actor, "x");
        let candidate = Candidate { bytes: &good, actor, action: WriteAction::Create, fields: None };
        assert!(matches!(Document::new().admit(&[candidate]).as_slice(), [Admission::Admitted(_)]));
    }
}
