//! The full check of what a store holds: chains, signatures, commitments, heads, verdicts of acts, and views.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::erase::{ErasureStage, erasure_of};
use super::flush::feed_of_key;
use super::load;
use super::open::{OpenError, damaged, read};
use super::read::read_view;
use super::records::HeadRecord;
use super::schemas;
use super::unique::{self, Rule};
use crate::authority::{Authority, check_against_previous};
use crate::document::json;
use crate::id::{ClusterId, DocId, OpId, StoreEpoch, StreamId};
use crate::keys::PublicKey;
use crate::op::Op;
use crate::schema::Compiled;
use crate::store::keys::{ClaimsKey, DocKey, Key as _, Missing, OpKey, PendingKey, TailKey, meta};
use crate::store::watermark::Mark;
use crate::store::{Keyspace, Order, Read, Span, Store, envelope};

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What kind of thing (stable, snake_case): `chain`, `signature`, `op`, `head`, `gap`, `view`,
    /// `document`, `erased`, `store`.
    pub what: &'static str,
    /// Which one.
    pub place: String,
    /// What is wrong.
    pub detail: String,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Streams followed.
    pub streams: u64,
    /// Ops checked.
    pub ops: u64,
    /// Documents whose view was compared with their changes.
    pub documents: u64,
    /// What is wrong, the first [`VerifyReport::DAMAGE_MAX`].
    pub damage: Vec<Damage>,
    /// How much is wrong.
    pub damage_total: u64,
}

impl VerifyReport {
    /// Entries kept.
    pub const DAMAGE_MAX: usize = 1_000;

    pub(super) fn found(&mut self, what: &'static str, place: impl ToString, detail: impl ToString) {
        self.damage_total += 1;
        if self.damage.len() < Self::DAMAGE_MAX {
            self.damage.push(Damage { what, place: place.to_string(), detail: detail.to_string() });
        }
    }
}

/// Checks everything in a consistent snapshot of a store: every op decodes, matches its commitments and continues its
/// chain; every chain ends in a signature of its author; heads are as recorded; every act that a head rests on is here; every
/// view is what its document's changes make. Needs a thread with [`crate::document::gate::STACK_BYTES`] of stack.
pub fn verify(store: &Arc<dyn Store>, cluster: ClusterId, mut progress: impl FnMut(&VerifyReport)) -> VerifyReport {
    let mut report = VerifyReport::default();
    let snapshot = store.snapshot();
    let heads = verify_heads(&*snapshot, &mut report);
    let mut authority = Authority::new(cluster);
    let mut unsigned = Vec::new();
    for (stream, head) in &heads {
        if verify_stream(&*snapshot, cluster, *stream, head, &mut authority, &mut report) == End::Unsigned {
            unsigned.push((*stream, head));
        }
        report.streams += 1;
        progress(&report);
    }
    for (stream, head) in &heads {
        let certified = authority.is_certified(head.key.certificate, head.key.author);
        if certified == Some(false) {
            report.found("stream", stream, "its certificate was given to another key");
        }
    }
    for (stream, head) in unsigned {
        // A pin vouches for the end of a closed stream, and for that of a forked one.
        if head.fork.is_none() && authority.closed_at(stream, head.key.certificate).is_none() {
            report.found("signature", stream, "the chain does not end in a signed op");
        }
    }
    verify_erased(&*snapshot, cluster, &heads, &authority, &mut report);
    let schemas = schemas::checked(&*snapshot, &authority).unwrap_or_else(|error| {
        report.found("store", Keyspace::Meta, error);
        BTreeMap::new()
    });
    let uniques = unique::checked(&*snapshot, &authority).unwrap_or_else(|error| {
        report.found("store", Keyspace::Meta, error);
        BTreeMap::new()
    });
    for entry in snapshot.scan(Keyspace::Views, &Span::all(), Order::Ascending) {
        match entry {
            Ok((key, _)) => match DocKey::decode(&key) {
                Ok(key) => {
                    let asked = (schemas.get(&key.collection), uniques.get(&key.collection));
                    verify_document(&*snapshot, &key, asked, &mut report);
                }
                Err(error) => report.found("view", format!("{key:?}"), error),
            },
            Err(error) => {
                report.found("store", Keyspace::Views, error);
                break;
            }
        }
        if report.documents.is_multiple_of(1_000) {
            progress(&report);
        }
    }
    verify_loose(&*snapshot, cluster, &mut report);
    unique::verify_claims(&*snapshot, &mut report);
    verify_rest(&*snapshot, &mut report);
    progress(&report);
    report
}

/// Returns how far a stream reaches in a store, if that can be read.
#[must_use]
pub fn stored_head(store: &dyn Store, stream: &StreamId) -> Option<Mark> {
    let value = store.get(Keyspace::Heads, &stream.encode()).ok()??;
    let head = HeadRecord::decode(&envelope::open(value).ok()?).ok()?;
    Some(Mark { seq: head.seq, op: head.head })
}

/// Returns the epoch of a store.
///
/// # Errors
/// [`OpenError`] if there is none.
pub fn stored_epoch(store: &dyn Store) -> Result<StoreEpoch, OpenError> {
    let epoch = read(store, Keyspace::Meta, meta::EPOCH.as_bytes())?.and_then(|bytes| StoreEpoch::from_slice(&bytes));
    epoch.ok_or_else(|| damaged(Keyspace::Meta, "epoch"))
}

fn verify_heads(store: &dyn Read, report: &mut VerifyReport) -> BTreeMap<StreamId, HeadRecord> {
    let mut heads = BTreeMap::new();
    for entry in store.scan(Keyspace::Heads, &Span::all(), Order::Ascending) {
        let decoded = entry.map_err(|error| error.to_string()).and_then(|(key, value)| {
            let stream = StreamId::decode(&key).map_err(|error| error.to_string())?;
            let value = envelope::open(value).map_err(|error| error.to_string())?;
            Ok((stream, HeadRecord::decode(&value).map_err(|error| error.to_string())?))
        });
        match decoded {
            Ok((stream, head)) if head.key.id() == stream => {
                heads.insert(stream, head);
            }
            Ok((stream, _)) => report.found("head", stream, "the record is of another stream"),
            Err(error) => report.found("head", Keyspace::Heads, error),
        }
    }
    heads
}

/// What a chain ends in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Signed,
    Unsigned,
}

fn verify_stream(
    store: &dyn Read,
    cluster: ClusterId,
    stream: StreamId,
    head: &HeadRecord,
    authority: &mut Authority,
    report: &mut VerifyReport,
) -> End {
    let Some(key) = PublicKey::new(&head.key.author) else {
        report.found("signature", stream, "the author key is none");
        return End::Signed;
    };
    let mut previous: Option<Op> = None;
    let mut ends_unsigned = false;
    for entry in store.scan(Keyspace::Ops, &OpKey::stream(stream), Order::Ascending) {
        let (place, value) = match entry {
            Ok(entry) => entry,
            Err(error) => {
                report.found("store", stream, error);
                return End::Signed;
            }
        };
        let Ok(place) = OpKey::decode(&place) else {
            report.found("op", stream, "key of another form");
            continue;
        };
        let name = format!("{stream}#{}", place.seq);
        let op = match envelope::open(value).map_err(|error| error.to_string()).and_then(|bytes| {
            Op::decode(&bytes, cluster).map_err(|error| {
                let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
                format!("{error}{source}")
            })
        }) {
            Ok(op) => op,
            Err(error) => {
                report.found("op", name, error);
                continue;
            }
        };
        report.ops += 1;
        if op.stream() != stream || op.header().seq != place.seq {
            report.found("op", &name, "lies at the place of another op");
        }
        if op.signature().is_some() && !op.is_signed_by(&key) {
            report.found("signature", &name, "the signature is not its author's");
        }
        if op.header().shard.is_control() {
            let _ = authority.add_control(op.id(), op.header_arc());
        }
        if place.branch.is_some() {
            continue;
        }
        if op.header().seq == 1 && op.header().earlier != head.earlier {
            report.found("head", stream, "the record names other earlier sessions than the first op");
        }
        match &previous {
            None if op.header().seq != 1 => report.found("chain", &name, "the stream does not begin at 1"),
            None => {}
            Some(before) => {
                if let Err(error) = check_against_previous(op.header(), before.header(), before.id()) {
                    report.found("chain", &name, error);
                }
            }
        }
        previous = Some(op);
    }
    match previous {
        None => report.found("chain", stream, "the stream has a head and no ops"),
        Some(last) => {
            if (last.header().seq, last.id()) != (head.seq, head.head) {
                let found = format!("the chain ends at {}, the head says {}", last.header().seq, head.seq);
                report.found("head", stream, found);
            }
            ends_unsigned = last.signature().is_none();
            if head.head == OpId::ZERO {
                report.found("head", stream, "the head names no op");
            }
        }
    }
    if ends_unsigned { End::Unsigned } else { End::Signed }
}

fn verify_document(
    store: &dyn Read,
    key: &DocKey,
    (schema, unique): (Option<&Compiled>, Option<&Rule>),
    report: &mut VerifyReport,
) {
    report.documents += 1;
    let name = format!("{}/{}", key.collection, key.doc);
    let view = match read_view(store, key) {
        Ok(Some(view)) => view,
        Ok(None) => return report.found("view", name, "it vanished"),
        Err(error) => return report.found("view", name, error),
    };
    let loaded = match load::load(store, key) {
        Ok(loaded) => loaded,
        Err(error) => return report.found("document", name, error),
    };
    if loaded.document.heads() != view.heads {
        report.found("view", &name, "its heads are not the document's");
    }
    if loaded.exists() == view.deleted {
        report.found("view", &name, "it disagrees with the document on whether that is deleted");
    }
    if loaded.exists() && json::render(loaded.document.view()) != view.json {
        report.found("view", &name, "its text is not what the document's changes make");
    }
    if !loaded.document.is_consistent() {
        report.found("document", &name, "what is kept beside its snapshot is not what that holds");
    }
    if schema.is_some_and(|schema| !schemas::is_flagged_rightly(store, key, &view, schema)) {
        report.found("index", &name, "whether it is flagged is not what its collection's schema says of it");
    }
    if unique.is_some_and(|rule| !unique::is_claimed_rightly(store, key, &view, rule)) {
        report.found("index", &name, "what is kept of it for its collection's unique constraints is not what it shows");
    }
    match store.get(Keyspace::Index, &super::flush::feed_key(view.feed)) {
        Ok(Some(_)) => {}
        Ok(None) => report.found("index", &name, "the feed lacks its last change"),
        Err(error) => report.found("store", &name, error),
    }
}

/// Nothing is left of a document that the store says to have nothing of, and what acts erase is noted.
fn verify_erased(
    store: &dyn Read,
    cluster: ClusterId,
    heads: &BTreeMap<StreamId, HeadRecord>,
    authority: &Authority,
    report: &mut VerifyReport,
) {
    let mut swept = BTreeSet::new();
    for (collection, doc) in authority.erased_documents() {
        let key = DocKey { collection, doc };
        let name = format!("{}/{}", key.collection, key.doc);
        match erasure_of(store, &key) {
            Ok(Some(record)) if record.stage > ErasureStage::Hidden => drop(swept.insert(key.clone())),
            Ok(Some(_)) => {}
            Ok(None) => report.found("erased", &name, "an act erases it, and that is not noted"),
            Err(error) => report.found("store", &name, error),
        }
        let is_left = |keyspace, span: &Span| store.first(keyspace, span).is_ok_and(|found| found.is_some());
        let left = [
            (Keyspace::Views, Span::range(key.encode(), [key.encode(), vec![0]].concat())),
            (Keyspace::Tail, TailKey::document(&key)),
            (Keyspace::Snapshots, Span::prefix(key.encode())),
            (Keyspace::Index, Span::prefix(ClaimsKey(key.clone()).encode())),
        ];
        for (keyspace, span) in left {
            if is_left(keyspace, &span) {
                report.found("erased", &name, format!("it is erased, and something of it is in {keyspace}"));
            }
        }
    }
    if swept.is_empty() {
        return;
    }
    let collections: BTreeSet<_> = swept.iter().map(|key| key.collection.clone()).collect();
    let of_them = heads.iter().filter(|(_, head)| collections.contains(&head.key.shard.collection));
    for (stream, _) in of_them {
        for (_, value) in store.scan(Keyspace::Ops, &OpKey::stream(*stream), Order::Ascending).filter_map(Result::ok) {
            let op = envelope::open(value).ok().and_then(|bytes| Op::decode(&bytes, cluster).ok());
            let Some(op) = op else { continue };
            let collection = op.header().collection().clone();
            let is_erased = |doc: &DocId| swept.contains(&DocKey { collection: collection.clone(), doc: doc.clone() });
            if op.without_bodies(|change| is_erased(&change.doc)).is_some() {
                let name = format!("{stream}#{}", op.header().seq);
                report.found("erased", name, "the op has the body of a document that is erased");
            }
        }
    }
}

/// Ops that wait for one before them, which is missing.
fn verify_loose(store: &dyn Read, cluster: ClusterId, report: &mut VerifyReport) {
    let mut loose = BTreeMap::new();
    for (key, value) in store.scan(Keyspace::Pending, &Span::all(), Order::Ascending).filter_map(Result::ok) {
        if let Ok(PendingKey { missing: Missing::Op(missing), waiting }) = PendingKey::decode(&key) {
            let op = envelope::open(value).ok().and_then(|bytes| Op::decode(&bytes, cluster).ok());
            loose.insert(waiting, (missing, op.map(|op| (op.stream(), op.header().seq))));
        }
    }
    for (missing, place) in loose.values().filter(|(missing, _)| !loose.contains_key(missing)) {
        let name = place.map_or_else(|| missing.to_string(), |(stream, seq)| format!("{stream}#{seq}"));
        report.found("gap", name, format!("waits for {missing}, which is missing"));
    }
}

/// Reads every keyspace once: damaged blocks show themselves only when read.
fn verify_rest(store: &dyn Read, report: &mut VerifyReport) {
    for keyspace in Keyspace::ALL {
        for entry in store.scan(keyspace, &Span::all(), Order::Ascending) {
            if let Err(error) = entry {
                report.found("store", keyspace, error);
                break;
            }
        }
    }
    // The feed names documents: each must have a view that says the same place.
    for entry in store.scan(Keyspace::Index, &super::flush::feed_span(0), Order::Ascending) {
        let Ok((place, value)) = entry else { return };
        let key = envelope::open(value).ok().and_then(|value| DocKey::decode(&value).ok());
        let view = key.as_ref().and_then(|key| read_view(store, key).ok().flatten());
        let erased = || key.as_ref().and_then(|key| erasure_of(store, key).ok().flatten());
        if view.map(|view| view.feed).or_else(|| erased().map(|record| record.feed)) != feed_of_key(&place) {
            report.found("index", format!("{place:?}"), "an entry of the feed that no view has");
        }
    }
}
