//! The op format: golden files, round trips, and a refusal for everything that is not the one canonical form.

mod golden;
mod refusals;
mod succession;

use proptest::prelude::*;

use super::*;
use crate::hash::{Domain, hash};
use crate::id::{AuthorKey, ClusterId, OpId, PrincipalId, SessionId, ShardId};
use crate::keys::PublicKey;
use crate::limits;

/// The cluster that an op belongs to.
fn cluster_of(op: &Op) -> ClusterId {
    if op.header().is_genesis() { ClusterId::from(op.id()) } else { op.header().cluster }
}

/// The author's key, ready to verify with.
fn author_key(op: &Op) -> PublicKey {
    PublicKey::new(&op.header().author).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn decode_undoes_encode(op in prop_oneof![8 => arbitrary::op(), 1 => arbitrary::genesis_op()]) {
        let bytes = op.encode();
        let back = Op::decode(&bytes, cluster_of(&op)).unwrap();
        prop_assert_eq!(&back, &op);
        prop_assert!(back.is_signed_by(&author_key(&op)));
        prop_assert_eq!(back.id(), OpId::new(hash(Domain::OpHeader, &[back.header_bytes()])));
        // Size is what queues are bounded by, so it must not flatter.
        prop_assert!(op.size() + 64 >= bytes.len() && op.size() <= bytes.len() + 256 + 16 * op.bodies().len());

        // What the signature covers does not change with what travels beside the header.
        let bare = Op { bodies: vec![None; op.bodies().len()], ..op.clone() }.without_signature();
        let back = Op::decode(&bare.encode(), cluster_of(&op)).unwrap();
        prop_assert_eq!((back.id(), back.stream(), back.signature()), (op.id(), op.stream(), None));
        prop_assert!(!back.is_signed_by(&author_key(&op)));
    }

    /// Whatever one byte is changed to: refused, or the very op that those bytes encode.
    #[test]
    fn no_second_encoding_decodes(op in arbitrary::op(), at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
        let mut bytes = op.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(other) = Op::decode(&bytes, cluster_of(&op)) {
            prop_assert_eq!(other.encode(), bytes);
            prop_assert_ne!(&other, &op);
            // Only the signature may have changed: the header's hash and the commitments hold everything else.
            prop_assert!(!other.is_signed_by(&author_key(&op)));
        }
    }

    #[test]
    fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Op::decode(&bytes, ClusterId::ZERO).is_err());
        prop_assert!(codec::decode::<Header>(&bytes, limits::HEADER_BYTES_MAX).is_err());
        if let Ok(delete) = Delete::decode(&bytes) {
            prop_assert_eq!(&delete.encode()[..], &bytes[..]);
        }
    }

    #[test]
    fn transactions_come_with_their_own_bodies(op in arbitrary::op()) {
        let mut seen = 0;
        for (transaction, bodies) in op.transactions() {
            prop_assert_eq!(transaction.changes.len(), bodies.len());
            for (change, body) in transaction.changes.iter().zip(bodies) {
                prop_assert_eq!(Some(change.commitment), body.as_ref().map(Body::commitment));
                seen += 1;
            }
        }
        prop_assert_eq!(seen, op.bodies().len());
    }
}

/// Another collection, document, principal, author, certificate or session: another actor.
#[test]
fn actors_differ_by_every_part() {
    let key = |collection: &str, author: u8, certificate: u8, session: u8| StreamKey {
        shard: ShardId { collection: collection.parse().unwrap(), index: 0, of: 1 },
        author: AuthorKey::new([author; 32]),
        certificate: OpId::new([certificate; 32]),
        session: SessionId::new([session; 8]),
    };
    let principal = |n| PrincipalId::new([n; 32]);
    let doc = |id: &str| id.parse().unwrap();
    let actors = [
        key("a", 1, 1, 1).actor(&principal(1), &doc("x")),
        key("b", 1, 1, 1).actor(&principal(1), &doc("x")),
        key("a", 2, 1, 1).actor(&principal(1), &doc("x")),
        key("a", 1, 2, 1).actor(&principal(1), &doc("x")),
        key("a", 1, 1, 2).actor(&principal(1), &doc("x")),
        key("a", 1, 1, 1).actor(&principal(2), &doc("x")),
        key("a", 1, 1, 1).actor(&principal(1), &doc("y")),
    ];
    let distinct: std::collections::BTreeSet<_> = actors.iter().collect();
    assert_eq!(distinct.len(), actors.len());
}

#[test]
fn request_ids_belong_to_their_collection() {
    let (cities, towns) = ("cities".parse().unwrap(), "towns".parse().unwrap());
    let id = request_id(&cities, "k1", &[b"put", b"a"]);
    assert_eq!(id, request_id(&cities, "k1", &[b"put", b"a"]));
    assert_eq!(id.name(), request_name(&cities, "k1"));
    let other = request_id(&cities, "k1", &[b"put", b"b"]);
    assert!(other != id && other.name() == id.name(), "the same key, another request");
    for (other, why) in [
        (request_id(&cities, "k1", &[b"pu", b"ta"]), "borders matter"),
        (request_id(&cities, "k2", &[b"put", b"a"]), "another key"),
        (request_id(&towns, "k1", &[b"put", b"a"]), "another collection"),
    ] {
        assert_ne!(other.as_bytes()[16..], id.as_bytes()[16..], "{why}");
    }
    assert_ne!(request_name(&cities, "k1"), request_name(&cities, "k2"));
    assert_ne!(request_name(&cities, "k1"), request_name(&towns, "k1"));
}
