//! Entry point of the fuzz target for what a replica reads back from its store, which a disk may have damaged.

use bytes::Bytes;

use super::marks::FeedMark;
use super::records::{HeadRecord, OwedRecord, RequestRecord, ShardRecord, SnapshotRecord, TxRecord, ViewRecord};
use super::schemas::SchemaCheck;
use crate::document::fuzzing::fuzz_tree;
use crate::store::envelope;
use crate::store::keys::{
    ArrivalKey, ChangeKey, ChangePlace, DocKey, Key, OpKey, PendingKey, QuarantineKey, RequestKey, TailKey,
};

/// Decodes `bytes` as the key or value that `kind` chooses, and returns whether that is one. What a decoder accepts, it
/// must be able to write, and to read again as the same.
///
/// # Panics
/// If that does not hold.
pub fn fuzz_record(kind: u8, bytes: &[u8]) -> bool {
    macro_rules! record {
        ($type:ty) => {
            <$type>::decode(&Bytes::copy_from_slice(bytes)).is_ok_and(|record| {
                let again = <$type>::decode(&Bytes::from(record.encode())).ok();
                assert_eq!(again.as_ref(), Some(&record), "another record after a round trip");
                true
            })
        };
    }
    match kind % 20 {
        0 => record!(HeadRecord),
        1 => record!(ViewRecord),
        2 => record!(SnapshotRecord),
        3 => record!(TxRecord),
        4 => record!(RequestRecord),
        5 => record!(ShardRecord),
        6 => key::<ArrivalKey>(bytes),
        7 => key::<DocKey>(bytes),
        8 => key::<TailKey>(bytes),
        9 => key::<RequestKey>(bytes),
        10 => key::<PendingKey>(bytes),
        11 => key::<QuarantineKey>(bytes),
        12 => key::<ChangePlace>(bytes),
        13 => key::<ChangeKey>(bytes),
        14 => key::<OpKey>(bytes),
        15 => envelope::open(Bytes::copy_from_slice(bytes)).is_ok_and(|value| {
            assert_eq!(&envelope::enclose(&value)[..], bytes);
            true
        }),
        16 => record!(OwedRecord),
        17 => fuzz_tree(bytes),
        18 => record!(FeedMark),
        _ => record!(SchemaCheck),
    }
}

fn key<K: Key>(bytes: &[u8]) -> bool {
    K::decode(bytes).is_ok_and(|key| {
        assert_eq!(key.encode(), bytes, "{}: a second encoding", K::KIND);
        true
    })
}
