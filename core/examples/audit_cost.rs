//! What an audit log of a million records costs: to append, to search, to prove and to check.
//!
//! `cargo run --release -p folkmoot-core --example audit_cost -- [records]`

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a measurement by hand")]

use std::time::Instant;

use folkmoot_core::audit::note::Note;
use folkmoot_core::audit::{
    AuditAction, AuditDecision, AuditMethod, Event, Log, LogQuery, Record, RecordId, check_log, prove_record, search,
};
use folkmoot_core::id::{ClusterId, PrincipalId, SessionId};
use folkmoot_core::keys::SecretKey;
use folkmoot_core::store::{Batch, Durability, FjallOptions, FjallStore, Store as _};

/// Records of one commit.
const BATCH: u64 = 1_000;
/// Milliseconds between two records: a million are thirty days.
const APART_MS: u64 = 2_592;

fn event(n: u64) -> Event {
    let principal = PrincipalId::new([(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8 % 100; 32]);
    let decision = if n.is_multiple_of(20) { AuditDecision::Denied } else { AuditDecision::Allowed };
    let collection = format!("collection-{}", (n / 7) % 20).parse().unwrap();
    let mut event = Event::new(AuditAction::Read, decision)
        .by(Some(principal), AuditMethod::Token, None)
        .on(Some(collection), Some(format!("document-{n}").parse().unwrap()));
    event.source = format!("10.0.0.{}", n % 250);
    event.request = format!("9f2c1a7b-{n}");
    event
}

fn main() {
    let records: u64 = std::env::args().nth(1).map_or(1_000_000, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let store = FjallStore::open(folder.path(), FjallOptions::default()).unwrap();
    let key = SecretKey::from_seed(&[1; 32]);
    let (cluster, node) = (ClusterId::new([7; 32]), key.author());
    let mut log = Log::begin(&store, cluster, node, SessionId::new([1; 8]), 0).unwrap();
    let begun = Instant::now();
    for first in (0..records).step_by(BATCH as usize) {
        let mut batch = Batch::new();
        for n in first..(first + BATCH).min(records) {
            log.append(&mut batch, Record::new(event(n), n * APART_MS, n * APART_MS, 1), n * APART_MS);
        }
        store.commit(&batch, Durability::Buffered).unwrap();
    }
    let each = begun.elapsed() / u32::try_from(records).unwrap();
    println!("append {records} records: {:?}, {each:?} each", begun.elapsed());
    println!("bytes on disk: {} a record", store.usage().unwrap().disk_bytes / records);
    let mut batch = Batch::new();
    log.keep_note(&mut batch, &Note::sign(log.checkpoint(Vec::new()), &key));
    store.commit(&batch, Durability::Synced).unwrap();

    let begun = Instant::now();
    let again = Log::open(&store, cluster, node).unwrap().unwrap();
    assert_eq!(again.checkpoint(Vec::new()), log.checkpoint(Vec::new()));
    println!("open: {:?}", begun.elapsed());

    let week = Some(records * APART_MS - 7 * 24 * 3_600_000);
    let principal = Some(PrincipalId::new([42; 32]));
    let collection = Some("collection-3".parse().unwrap());
    let by_all = LogQuery { principal, collection: collection.clone(), since_ms: week, ..LogQuery::default() };
    for (what, query) in [
        ("what one did in one collection last week", by_all.clone()),
        ("of that what was denied", LogQuery { decision: Some(AuditDecision::Denied), ..by_all }),
        ("what one did in all the time", LogQuery { principal, ..LogQuery::default() }),
        (
            "what was denied last week in one collection",
            LogQuery { collection, decision: Some(AuditDecision::Denied), since_ms: week, ..LogQuery::default() },
        ),
        (
            "everything of the last hour",
            LogQuery { since_ms: Some(records * APART_MS - 3_600_000), ..LogQuery::default() },
        ),
    ] {
        let begun = Instant::now();
        let (mut found, mut pages, mut after) = (0, 0, None);
        loop {
            let page = search(&*store.snapshot(), &query, after, 1_000).unwrap();
            found += page.items.len();
            pages += 1;
            after = page.reached;
            if after.is_none() {
                break;
            }
        }
        println!("{what}: {found} records in {pages} pages, {:?}", begun.elapsed());
    }

    let begun = Instant::now();
    for n in 0..100 {
        prove_record(&store, RecordId { incarnation: None, index: n * (records / 100) }).unwrap();
    }
    println!("prove a record: {:?}", begun.elapsed() / 100);
    let begun = Instant::now();
    let path = log.consistency(&store, records / 3).unwrap();
    println!("prove that it grew: {:?}, {} hashes", begun.elapsed(), path.len());
    let begun = Instant::now();
    let report = check_log(&store, cluster, &[node]);
    assert_eq!((report.records, report.damage_total), (records, 0));
    println!("check all: {:?}", begun.elapsed());
}
