//! Keys read back as written, in the order of what they name.

use super::*;
use proptest::prelude::*;
use std::fmt::Debug;

// Few different values, so that equal parts and names that begin alike are common.
fn id() -> impl Strategy<Value = [u8; 32]> {
    prop_oneof![Just([0; 32]), Just([255; 32]), any::<[u8; 32]>()]
}
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..3, Just(255), Just(256), Just(u64::MAX), any::<u64>()]
}
fn collection() -> impl Strategy<Value = CollectionName> {
    "[a0_][a.-]{0,2}".prop_map(|text| text.parse().unwrap())
}
fn doc_id() -> impl Strategy<Value = DocId> {
    "[ a~ä\u{10ffff}]{1,3}".prop_map(|text| text.parse().unwrap())
}
fn doc() -> impl Strategy<Value = DocKey> {
    (collection(), doc_id()).prop_map(|(collection, doc)| DocKey { collection, doc })
}
fn shard() -> impl Strategy<Value = ShardId> {
    (collection(), 0u16..3, 3u16..300).prop_map(|(collection, index, of)| ShardId { collection, index, of })
}
fn op() -> impl Strategy<Value = OpKey> {
    (id(), number(), prop::option::of(id())).prop_map(|(stream, seq, branch)| OpKey {
        stream: StreamId::new(stream),
        seq,
        branch: branch.map(OpId::new),
    })
}
fn missing() -> impl Strategy<Value = Missing> {
    (any::<bool>(), id())
        .prop_map(|(is_op, id)| if is_op { Missing::Op(OpId::new(id)) } else { Missing::Change(ChangeHash::new(id)) })
}

/// Two keys compare as their encodings do (so the encoding is injective), and decoding undoes encoding and nothing
/// else.
fn check<K: Key + Ord + Debug + Clone>(a: K, b: K) -> Result<(), TestCaseError> {
    let bytes = a.encode();
    prop_assert_eq!(a.cmp(&b), bytes.cmp(&b.encode()), "{:?} {:?}", a, b);
    prop_assert_eq!(K::decode(&bytes), Ok(a.clone()));
    if let Some((_, shorter)) = bytes.split_last() {
        prop_assert_ne!(K::decode(shorter).ok(), Some(a.clone()));
    }
    let longer = [&*bytes, &[1]].concat();
    prop_assert!(K::decode(&longer).is_err());
    Ok(())
}

proptest! {
    #[test]
    fn order_and_round_trip(
        ops in (op(), op()),
        docs in (doc(), doc()),
        shards in (shard(), shard()),
        numbers in (number(), number()),
        ids in (id(), id(), id(), id()),
        missing in (missing(), missing()),
    ) {
        check(ops.0, ops.1)?;
        check(docs.0.clone(), docs.1.clone())?;
        let collections = (docs.0.collection.clone(), docs.1.collection.clone());
        let arrival = |shard, arrival| ArrivalKey { shard, arrival };
        check(arrival(shards.0, numbers.0), arrival(shards.1, numbers.1))?;
        let tail = |doc, change| TailKey { doc, change: ChangeHash::new(change) };
        check(tail(docs.0.clone(), ids.0), tail(docs.1.clone(), ids.1))?;
        check(StreamId::new(ids.0), StreamId::new(ids.1))?;
        let request = |collection, request: [u8; 32]| RequestKey {
            collection,
            request: RequestName::from_slice(&request[..16]).unwrap(),
        };
        check(request(collections.0, ids.1), request(collections.1, ids.3))?;
        let pending = |missing, op| PendingKey { missing, waiting: OpId::new(op) };
        check(pending(missing.0, ids.0), pending(missing.1, ids.1))?;
        let quarantine = |op, number| QuarantineKey { op: OpId::new(op), transaction: number as u16 };
        check(quarantine(ids.0, numbers.0), quarantine(ids.1, numbers.1))?;
        check(ChangeKey(ChangeHash::new(ids.0)), ChangeKey(ChangeHash::new(ids.1)))?;
        let written = |principal, stream| WrittenForKey {
            principal: PrincipalId::new(principal), stream: StreamId::new(stream),
        };
        check(written(ids.0, ids.1), written(ids.2, ids.3))?;
        check(InvalidKey(docs.0.clone()), InvalidKey(docs.1.clone()))?;
        check(ClaimsKey(docs.0.clone()), ClaimsKey(docs.1.clone()))?;
        check(DuplicateKey(docs.0.clone()), DuplicateKey(docs.1.clone()))?;
        let claim = |key: DocKey, id: [u8; 32]| {
            let mut claim = Claim([0; 16]);
            claim.0.copy_from_slice(&id[..16]);
            ClaimKey { collection: key.collection, claim, doc: key.doc }
        };
        check(claim(docs.0, ids.0), claim(docs.1, ids.1))?;
        let place = |stream, seq: u64| ChangePlace {
            stream: StreamId::new(stream), seq, transaction: seq as u16, change: (seq >> 16) as u16,
        };
        check(place(ids.0, numbers.0), place(ids.1, numbers.1))?;
    }

    #[test]
    fn spans_hold_what_they_say(a in doc(), b in doc(), prefix in "[ aä]{0,2}", x in op(), y in op(), hash in id()) {
        let in_collection = a.collection == b.collection;
        prop_assert_eq!(DocKey::collection(&a.collection).contains(&b.encode()), in_collection);
        let with_prefix = in_collection && b.doc.as_str().starts_with(&prefix);
        prop_assert_eq!(DocKey::id_prefix(&a.collection, &prefix).contains(&b.encode()), with_prefix);
        let tail = TailKey { doc: b.clone(), change: ChangeHash::new(hash) };
        prop_assert_eq!(TailKey::document(&a).contains(&tail.encode()), a == b);
        prop_assert_eq!(OpKey::stream(x.stream).contains(&y.encode()), x.stream == y.stream);
        let same_place = x.stream == y.stream && x.seq == y.seq;
        prop_assert_eq!(OpKey::place(x.stream, x.seq).contains(&y.encode()), same_place);
    }

    #[test]
    fn decoding_takes_any_bytes(bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(b'a'), any::<u8>()], 0..90)) {
        // What decodes encodes back to the same bytes: there is one form only.
        fn one_form<K: Key>(bytes: &[u8]) -> bool {
            K::decode(bytes).map_or(true, |key| key.encode() == bytes)
        }
        prop_assert!(one_form::<OpKey>(&bytes) && one_form::<ArrivalKey>(&bytes) && one_form::<DocKey>(&bytes));
        prop_assert!(one_form::<TailKey>(&bytes) && one_form::<PendingKey>(&bytes) && one_form::<ChangeKey>(&bytes));
        prop_assert!(one_form::<InvalidKey>(&bytes) && one_form::<ClaimKey>(&bytes) && one_form::<ClaimsKey>(&bytes));
        prop_assert!(one_form::<DuplicateKey>(&bytes));
    }
}

/// The format on disk: never to be edited, only added to.
#[test]
fn bytes_are_pinned() {
    let (stream, op, change) = (StreamId::new([1; 32]), OpId::new([2; 32]), ChangeHash::new([3; 32]));
    let shard = ShardId { collection: "c".parse().unwrap(), index: 2, of: 256 };
    let doc = DocKey { collection: "cities".parse().unwrap(), doc: "Zürich".parse().unwrap() };
    let branch = OpKey { stream, seq: 258, branch: Some(op) };
    let request = RequestKey { collection: "c".parse().unwrap(), request: RequestName::new([5; 16]) };
    let place = ChangePlace { stream, seq: 258, transaction: 3, change: 4 };
    let seq: &[u8] = &[0, 0, 0, 0, 0, 0, 1, 2];
    let claim = ClaimKey { collection: doc.collection.clone(), claim: Claim([9; 16]), doc: doc.doc.clone() };
    let cases: [(Vec<u8>, Vec<u8>); 14] = [
        (InvalidKey(doc.clone()).encode(), b"\x03cities\0Z\xc3\xbcrich\0".to_vec()),
        (claim.encode(), [&b"\x05cities\0"[..], &[9; 16], b"Z\xc3\xbcrich\0"].concat()),
        (ClaimsKey(doc.clone()).encode(), b"\x06cities\0Z\xc3\xbcrich\0".to_vec()),
        (DuplicateKey(doc.clone()).encode(), b"\x07cities\0Z\xc3\xbcrich\0".to_vec()),
        (OpKey::new(stream, 258).encode(), [&[1; 32], seq].concat()),
        (branch.encode(), [&[1; 32], seq, &[2; 32]].concat()),
        (ArrivalKey { shard, arrival: 258 }.encode(), [b"c\0\0\x02\x01\0", seq].concat()),
        (doc.encode(), b"cities\0Z\xc3\xbcrich\0".to_vec()),
        (TailKey { doc, change }.encode(), [&b"cities\0Z\xc3\xbcrich\0"[..], &[3; 32]].concat()),
        (request.encode(), [&b"c\0"[..], &[5; 16]].concat()),
        (PendingKey { missing: Missing::Op(op), waiting: op }.encode(), [&[0][..], &[2; 64]].concat()),
        (
            PendingKey { missing: Missing::Change(change), waiting: op }.encode(),
            [&[1][..], &[3; 32], &[2; 32]].concat(),
        ),
        (ChangeKey(change).encode(), [&[0][..], &[3; 32]].concat()),
        (place.encode(), [&[1; 32], seq, &[0, 3, 0, 4]].concat()),
    ];
    for (found, pinned) in cases {
        assert_eq!(found, pinned);
    }
    assert_eq!(QuarantineKey { op, transaction: 7 }.encode(), [&[2; 32][..], &[0, 7]].concat());
}

#[test]
fn the_longest_key_fits() {
    let doc = DocKey { collection: "c".repeat(64).parse().unwrap(), doc: "d".repeat(256).parse().unwrap() };
    let key = TailKey { doc, change: ChangeHash::ZERO }.encode();
    assert!(key.len() <= super::super::KEY_BYTES_MAX / 4, "room for index entries");
}
