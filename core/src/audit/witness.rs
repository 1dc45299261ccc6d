//! What a node keeps of the logs of others: the last checkpoint of each that it saw. What does not extend it is told.
//!
//! A node shows a peer its checkpoint with a proof that it extends the one that the peer saw last; the peer keeps it and
//! countersigns. One honest peer is enough to notice that a log lost its end, or has two pasts.

use serde::{Deserialize, Serialize};

use super::log::{LogError, LogId, WITNESS, damaged};
use super::note::{Cosignature, Note};
use super::tree::{Hash, PROOF_HASHES_MAX, verify_consistency};
use crate::id::AuthorKey;
use crate::keys::Signature;
use crate::limits::AUDIT_NOTE_BYTES_MAX;
use crate::op::codec::{self, CodecError, tagged_enum};
use crate::store::{Batch, Keyspace, Read, envelope};

/// Bytes of a message between two nodes about their logs.
pub const MESSAGE_BYTES_MAX: usize = 2 * AUDIT_NOTE_BYTES_MAX;
/// Logs that a peer has left behind which are remembered.
const EARLIER_MAX: usize = 16;
/// Bytes of what is kept of a peer.
const SEEN_BYTES_MAX: usize = 4 * AUDIT_NOTE_BYTES_MAX;
/// What a frame begins with that carries such a message: a pair of 128 and the message. The engine of replication lets frames with
/// numbers from 128 on pass by.
const FRAME_HEAD: [u8; 3] = [0x92, 0xcc, 0x80];

tagged_enum! {
    /// What nodes say to each other about their logs.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub enum Message {
        /// Shows the sender's checkpoint.
        0 => Present(Presentation),
        /// Answers that.
        1 => Seen(Answer),
    }
}

/// A checkpoint, and a proof that it extends an earlier one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Presentation {
    /// The note.
    pub note: String,
    /// Size of the checkpoint that it is proved to extend; 0 for none.
    pub from: u64,
    /// The proof.
    #[serde(deserialize_with = "codec::bounded_list::<PROOF_HASHES_MAX, _, _>")]
    pub path: Vec<OneHash>,
}

/// A hash in a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OneHash(#[serde(with = "serde_bytes")] pub Hash);

/// What a node has seen of the log of whom it answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The last checkpoint that it keeps, as its node signed it.
    pub note: String,
    /// Its word for it, if it gives one: seconds and signature.
    pub word: Option<(u64, SignatureBytes)>,
}

/// A signature in a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SignatureBytes(#[serde(with = "serde_bytes")] pub [u8; 64]);

impl Message {
    /// Returns whether a frame carries a message of this kind.
    #[must_use]
    pub fn is_in(frame: &[u8]) -> bool {
        frame.starts_with(&FRAME_HEAD)
    }

    /// Encodes the message as a frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        [&FRAME_HEAD[..], &codec::encode(self)].concat()
    }

    /// Decodes a frame; none if it carries something else.
    ///
    /// # Errors
    /// [`CodecError`] if it is not in canonical form.
    pub fn decode(frame: &[u8]) -> Result<Option<Self>, CodecError> {
        let Some(content) = frame.strip_prefix(&FRAME_HEAD) else { return Ok(None) };
        codec::decode(content, MESSAGE_BYTES_MAX).map(Some)
    }
}

impl Answer {
    /// Returns an answer.
    #[must_use]
    pub fn new(note: &Note, word: Option<&Cosignature>) -> Self {
        let word = word.map(|word| (word.seconds, SignatureBytes(*word.signature.as_bytes())));
        Self { note: note.text(), word }
    }

    /// Returns the word of the peer that gave this answer.
    #[must_use]
    pub fn cosignature(&self, peer: AuthorKey) -> Option<Cosignature> {
        self.word.map(|(seconds, bytes)| Cosignature { peer, seconds, signature: Signature::new(bytes.0) })
    }
}

/// What is wrong with the log of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Trouble {
    /// It shows less than it had signed.
    Cut,
    /// It shows another past than it had signed.
    Forked,
    /// It began another log, instead of going on with the one that was seen.
    Replaced,
}

impl Trouble {
    /// Returns its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Forked => "forked",
            Self::Replaced => "replaced",
        }
    }
}

/// What is kept of the log of a peer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// The last checkpoint that extended what was seen before, as its node signed it.
    note: String,
    /// When it came, in milliseconds since 1970.
    pub seen_ms: u64,
    /// What was wrong last, when, and the checkpoint that showed it.
    pub trouble: Option<(Trouble, u64, String)>,
    /// Logs that the peer has left: which, and how far they were seen.
    earlier: Vec<(LogId, u64)>,
}

/// What is to be done about a checkpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Judgement {
    /// Keep it and countersign it; with what is to be told.
    Accept(Seen, Option<Trouble>),
    /// It is the one that is kept.
    Same,
    /// It is to be proved that it extends the one that is kept.
    Unproved,
    /// Keep the evidence, tell, and countersign nothing.
    Refuse(Seen, Trouble),
}

impl Seen {
    /// Returns the last checkpoint that is kept.
    ///
    /// # Errors
    /// [`LogError`] if it is damaged.
    pub fn note(&self) -> Result<Note, LogError> {
        Note::parse(&self.note).map_err(damaged)
    }
}

fn seen_key(peer: &AuthorKey) -> Vec<u8> {
    [&[WITNESS][..], peer.as_bytes()].concat()
}

/// Returns what is kept of the log of a peer.
///
/// # Errors
/// [`LogError`] if the store cannot be read.
pub fn seen(read: &dyn Read, peer: &AuthorKey) -> Result<Option<Seen>, LogError> {
    let Some(value) = read.get(Keyspace::Audit, &seen_key(peer))? else { return Ok(None) };
    let value = envelope::open(value).map_err(damaged)?;
    codec::decode(&value, SEEN_BYTES_MAX).map(Some).map_err(damaged)
}

/// Writes what is kept of the log of a peer.
pub fn keep(batch: &mut Batch, peer: &AuthorKey, seen: &Seen) {
    batch.put(Keyspace::Audit, seen_key(peer), envelope::enclose(&codec::encode(seen)));
}

/// Judges a checkpoint that a peer shows of its own log, by the one that is kept.
///
/// # Errors
/// [`LogError`] if what is kept is damaged.
pub fn judge(
    kept: Option<&Seen>,
    shown: &Note,
    from: u64,
    path: &[OneHash],
    now_ms: u64,
) -> Result<Judgement, LogError> {
    let plain = shown.alone().text();
    let Some(kept) = kept else {
        let seen = Seen { note: plain, seen_ms: now_ms, trouble: None, earlier: Vec::new() };
        return Ok(Judgement::Accept(seen, None));
    };
    let last = kept.note()?.checkpoint;
    let new = &shown.checkpoint;
    let refuse = |trouble: Trouble| {
        Judgement::Refuse(Seen { trouble: Some((trouble, now_ms, plain.clone())), ..kept.clone() }, trouble)
    };
    if new.log != last.log {
        if kept.earlier.iter().any(|(log, _)| *log == new.log) {
            return Ok(refuse(Trouble::Forked));
        }
        let mut earlier = kept.earlier.clone();
        earlier.push((last.log, last.size));
        if earlier.len() > EARLIER_MAX {
            earlier.remove(0);
        }
        let trouble = Some((Trouble::Replaced, now_ms, kept.note.clone()));
        return Ok(Judgement::Accept(Seen { note: plain, seen_ms: now_ms, trouble, earlier }, Some(Trouble::Replaced)));
    }
    if new.size < last.size {
        return Ok(refuse(Trouble::Cut));
    }
    if new.size == last.size {
        return Ok(if new.root == last.root { Judgement::Same } else { refuse(Trouble::Forked) });
    }
    if from != last.size {
        return Ok(Judgement::Unproved);
    }
    let path: Vec<Hash> = path.iter().map(|hash| hash.0).collect();
    if !verify_consistency(last.size, &last.root, new.size, &new.root, &path) {
        return Ok(refuse(Trouble::Forked));
    }
    Ok(Judgement::Accept(Seen { note: plain, seen_ms: now_ms, ..kept.clone() }, None))
}
