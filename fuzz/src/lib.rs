//! What the fuzz targets do with their bytes. Plain functions: tests/tests/fuzz_corpus.rs includes this file and runs
//! them over the corpus without libFuzzer.
//!
//! A new target is a function here, its line in [`TARGETS`], a binary in `fuzz_targets/` and some seeds in `corpus/`.

use data_encoding::BASE32_NOPAD;
use folkmoot_core::audit::note::Note;
use folkmoot_core::audit::witness::Message;
use folkmoot_core::audit::{Checked, Record, check_proof};
use folkmoot_core::document::edit::{self, Edit, EditFormat, FieldTypes};
use folkmoot_core::document::foreign;
use folkmoot_core::document::fuzzing::fuzz_admit;
use folkmoot_core::document::gate::{self, Admission, Candidate, prescan};
use folkmoot_core::document::{Document, LocalChange, json, native_hash};
use folkmoot_core::id::{ActorId, ChangeHash, ClusterId};
use folkmoot_core::op::{Delete, Op, WriteAction};
use folkmoot_core::replica::fuzz_record;
use folkmoot_core::replication::fuzz::fuzz_frames;
use folkmoot_net::Ticket;
use sha2::{Digest as _, Sha256};

/// A target: the name of its binary and corpus, and its function, which panics where a promise is broken.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("op", op),
    ("delete", delete),
    ("gate", gate),
    ("change", change),
    ("file", file),
    ("engine", engine),
    ("json", json),
    ("edit", edit),
    ("record", record),
    ("ticket", ticket),
    ("audit", audit),
];

/// The first 32 bytes are the cluster, the rest is an op as it comes from a peer.
pub fn op(bytes: &[u8]) {
    let Some((cluster, bytes)) = bytes.split_first_chunk() else { return };
    let Ok(op) = Op::decode(bytes, ClusterId::new(*cluster)) else { return };
    assert_eq!(op.encode(), bytes, "a second encoding");
    assert_eq!(op.stream(), op.header().stream_key().id());
    let in_transactions: usize = op.transactions().map(|(_, bodies)| bodies.len()).sum();
    assert_eq!(in_transactions, op.bodies().len());
    assert!(op.header().shard.is_valid());
}

/// A body that the header calls a delete.
pub fn delete(bytes: &[u8]) {
    let Ok(delete) = Delete::decode(bytes) else { return };
    assert_eq!(&delete.encode()[..], bytes, "a second encoding");
    assert!(delete.heads.is_sorted() && !delete.heads.is_empty());
}

/// Splits bytes into parts, each preceded by its length as a little-endian u16; the last takes what there is.
fn parts(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = bytes.split_first_chunk()?;
        let (part, rest) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes(*len))));
        bytes = rest;
        Some(part)
    })
}

/// A few changes offered to a document, one batch each. Their checksums are put right first, or hardly one would come
/// past them.
pub fn gate(bytes: &[u8]) {
    let changes: Vec<_> = parts(bytes).take(16).map(with_checksum).collect();
    on_large_stack(move || {
        let mut document = Document::new();
        for change in &changes {
            offer(&mut document, change);
        }
    });
}

/// Automerge recurses; who calls the gate owes it this stack.
fn on_large_stack(work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new()
        .stack_size(gate::STACK_BYTES)
        .spawn(work)
        .expect("a thread starts")
        .join()
        .expect("no panic");
}

fn offer(document: &mut Document, bytes: &[u8]) {
    let Ok(scan) = prescan(bytes) else { return };
    let action = if scan.deps.is_empty() { WriteAction::Create } else { WriteAction::Update };
    let before = document.heads().to_vec();
    match document.admit(&[Candidate { bytes, actor: scan.actor, action, fields: None }]).as_slice() {
        [Admission::Admitted(hash)] => {
            assert_eq!(*hash, scan.hash);
            assert_eq!(document.change_bytes(hash).as_deref(), Some(bytes), "read back otherwise");
            let snapshot = document.snapshot().expect("an admitted document can be saved and loaded");
            let again = Document::load(Some(&snapshot), [], Default::default(), Default::default())
                .expect("an admitted document loads");
            assert_eq!(again.heads(), document.heads());
        }
        [Admission::Known(_) | Admission::MissingDeps(_) | Admission::Bad(_) | Admission::Held(_)] => {
            assert_eq!(document.heads(), before, "refused, and yet something changed");
        }
        other => panic!("one candidate, {} answers", other.len()),
    }
}

/// Writes the checksum of an Automerge chunk: magic (4 bytes), checksum (4), then what it is over.
fn with_checksum(chunk: &[u8]) -> Vec<u8> {
    let mut chunk = chunk.to_vec();
    if let Some((head, rest)) = chunk.split_first_chunk_mut::<8>() {
        let digest = Sha256::digest(&*rest);
        head[4..].copy_from_slice(&digest[..4]);
    }
    chunk
}

/// A file of Automerge from elsewhere. Its checksum is put right; what it shows is JSON that a document could have.
pub fn file(bytes: &[u8]) {
    let file = with_checksum(bytes);
    on_large_stack(move || {
        let Ok(text) = foreign::read(&file) else { return };
        json::parse_within(text.as_bytes(), json::Bounds::STORED).expect("JSON");
    });
}

/// A change built by damaging one of a history of valid ones, which comes further than random bytes; see
/// [`fuzz_admit`].
pub fn change(bytes: &[u8]) {
    let bytes = bytes.to_vec();
    on_large_stack(move || {
        fuzz_admit(&bytes);
    });
}

/// Frames from a member that has said hello, on the lane that the first byte of each names; see [`fuzz_frames`].
pub fn engine(bytes: &[u8]) {
    fuzz_frames(bytes);
}

/// JSON from a client.
pub fn json(bytes: &[u8]) {
    let Ok(value) = json::parse(bytes) else { return };
    let text = json::render_value(&value);
    // What is written for others may be longer than what a client may send: bytes and dates in a longer form.
    let again = json::parse_within(text.as_bytes(), json::Bounds { bytes: usize::MAX, ..json::Bounds::CLIENT })
        .expect("rendered text is JSON");
    assert_eq!(json::render_value(&again), text, "rendered otherwise the second time");
}

/// A document, then two edits of it by two writers who had both seen it, of the format that the first byte of each
/// names. Whatever is accepted passes the gate of a peer.
pub fn edit(bytes: &[u8]) {
    let parts: Vec<Vec<u8>> = parts(bytes).take(3).map(<[u8]>::to_vec).collect();
    on_large_stack(move || edits(&parts));
}

fn edits(parts: &[Vec<u8>]) {
    let [base, edits @ ..] = parts else { return };
    let Ok(base) = Edit::parse(EditFormat::Document, base) else { return };
    let mut document = Document::new();
    if apply(&mut document, 1, None, &base).is_none() {
        return;
    }
    let seen = document.heads().to_vec();
    let mut peer = document.clone();
    for (writer, text) in (2..).zip(edits) {
        let Some((format, text)) = text.split_first() else { continue };
        let format = EditFormat::ALL[usize::from(*format) % EditFormat::ALL.len()];
        let Ok(edit) = Edit::parse(format, text) else { continue };
        let before = document.heads().to_vec();
        let Some(change) = apply(&mut document, writer, Some(&seen), &edit) else {
            assert_eq!(document.heads(), before, "refused, and yet something changed");
            continue;
        };
        let candidate = Candidate {
            bytes: &change.bytes,
            actor: ActorId::new([writer; 16]),
            action: WriteAction::Update,
            fields: None,
        };
        match peer.admit(&[candidate]).as_slice() {
            [Admission::Admitted(hash)] => assert_eq!(*hash, change.hash),
            other => panic!("a peer refuses what an edit made: {other:?}"),
        }
    }
    assert_eq!(peer.heads(), document.heads());
    assert_eq!(json::render(peer.view()), json::render(document.view()), "the peer reads otherwise");
}

/// Applies an edit as a writer, the short way where there is one and the general way, which must come to the same; none if
/// it is refused or changes nothing.
fn apply(document: &mut Document, writer: u8, base: Option<&[ChangeHash]>, edit: &Edit) -> Option<LocalChange> {
    let (actor, types) = (ActorId::new([writer; 16]), FieldTypes::none());
    let base: Option<Vec<_>> =
        base.filter(|heads| !document.is_at(heads)).map(|heads| heads.iter().map(native_hash).collect());
    let mut general = document.clone();
    let expected =
        general.local_edit(&actor, |tx| edit::apply(tx, base.as_deref(), edit, &types)).map(|(change, _)| change);
    let change = document.edit(&actor, base.as_deref(), edit, &types);
    assert_eq!(change, expected, "the two ways differ");
    assert_eq!(document.json(), general.json(), "the two ways read otherwise");
    change.ok()?
}

/// Every record of the store that is decoded when a node opens, reads or repairs: the first byte chooses one.
pub fn record(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    fuzz_record(*kind, bytes);
}

/// An invite ticket: the bytes with the checksum put right, as text.
pub fn ticket(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = text.parse::<Ticket>();
    }
    let checksum = blake3::derive_key("folkmoot/1/ticket-checksum", bytes);
    let whole = [bytes, &checksum[..4]].concat();
    let text = format!("folkmoot1{}", BASE32_NOPAD.encode(&whole).to_ascii_lowercase());
    let Ok(ticket) = text.parse::<Ticket>() else { return };
    assert_eq!(ticket.to_string(), text, "a second text form");
}

/// What the audit reads that others wrote: the first byte chooses a record, a checkpoint, a message between nodes or a file with a proof.
pub fn audit(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 4 {
        0 => {
            if let Ok(record) = Record::decode(bytes) {
                assert_eq!(record.encode(), bytes, "a second encoding");
            }
        }
        1 => {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            if let Ok(note) = Note::parse(text) {
                assert_eq!(note.text(), text, "a second text form");
            }
        }
        2 => {
            if let Ok(Some(message)) = Message::decode(bytes) {
                assert_eq!(message.encode(), bytes, "a second encoding");
            }
        }
        _ => match check_proof(bytes) {
            Ok(Checked::Record { index, note, .. }) => assert!(index < note.checkpoint.size),
            Ok(Checked::Op { op, rights: Some(rights), .. }) => drop(rights.judge(&op)),
            Ok(Checked::Op { .. }) | Err(_) => {}
        },
    }
}
