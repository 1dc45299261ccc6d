//! Checkpoints of a log: signed notes as C2SP writes them down, so that other programs can check them.
//!
//! A checkpoint is text: the log's origin, its size and its root in base64, a line each, then lines of extension, an empty line,
//! and signatures (`tlog-checkpoint`, `signed-note`). The node signs it with its key (type 1); peers countersign (`tlog-cosignature`, type 4) with the time at
//! which they saw it. A signed note begins with `folkmoot/` and a countersignature is over text that begins with `cosignature/v1`; what else is
//! signed with these keys begins with the length of a context that is neither byte's value (see [`crate::keys`]).
//!
//! Source: C2SP `tlog-checkpoint.md`, `signed-note.md`, `tlog-cosignature.md`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::log::LogId;
use super::tree::Hash;
use crate::id::AuthorKey;
use crate::keys::{PublicKey, SecretKey, Signature};
use crate::limits::{AUDIT_COSIGNATURES_MAX, AUDIT_NOTE_BYTES_MAX};

/// Type of an Ed25519 signature of a note.
const TYPE_NOTE: u8 = 1;
/// Type of an Ed25519 countersignature.
const TYPE_COSIGNATURE: u8 = 4;
/// Lines of extension.
pub const EXTENSIONS_MAX: usize = 64;

/// What a log was at a moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// Which log.
    pub log: LogId,
    /// Records in it.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Hash,
    /// What else the node states with it; a line each, none of them empty.
    pub extensions: Vec<String>,
}

/// A peer's word that it saw a checkpoint, and that it extends all that the peer had seen of the log before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cosignature {
    /// The peer.
    pub peer: AuthorKey,
    /// When, in seconds since 1970.
    pub seconds: u64,
    /// Its signature.
    pub signature: Signature,
}

/// A checkpoint with the signature of its node and those of peers. Made by signing or by [`Note::parse`], which checks all of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    /// What is signed.
    pub checkpoint: Checkpoint,
    signature: Signature,
    /// What peers signed.
    pub cosignatures: Vec<Cosignature>,
}

/// Why a text is no checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// Not of the form of a signed note, or not in the one form that this program writes.
    #[error("not a checkpoint in canonical form")]
    Malformed,
    /// Longer than it may be.
    #[error("checkpoint longer than {AUDIT_NOTE_BYTES_MAX} bytes")]
    TooLong,
    /// The signature of the node that the origin names does not hold.
    #[error("the signature of the log's node does not hold")]
    Signature,
    /// A countersignature does not hold.
    #[error("a countersignature does not hold")]
    Cosignature,
}

impl Checkpoint {
    /// Returns the text that is signed.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{}\n{}\n{}\n", self.log, self.size, STANDARD.encode(self.root));
        for line in &self.extensions {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let log = lines.next()?.parse().ok()?;
        let size = lines.next()?.parse().ok()?;
        let root = STANDARD.decode(lines.next()?).ok()?.try_into().ok()?;
        let extensions: Vec<String> = lines.map(str::to_owned).collect();
        let is_fine = |line: &String| !line.is_empty() && !line.chars().any(char::is_control);
        if extensions.len() > EXTENSIONS_MAX || !extensions.iter().all(is_fine) {
            return None;
        }
        Some(Self { log, size, root, extensions })
    }
}

/// Returns the name under which a key countersigns, which holds the key.
fn cosigner(log: &LogId, peer: &AuthorKey) -> String {
    format!("folkmoot/{}/{peer}", log.cluster)
}

/// Returns how a signature's line names the key.
fn key_id(name: &str, kind: u8, key: &AuthorKey) -> [u8; 4] {
    let hash: Hash =
        Sha256::new().chain_update(name).chain_update([b'\n', kind]).chain_update(key.as_bytes()).finalize().into();
    [hash[0], hash[1], hash[2], hash[3]]
}

fn line(name: &str, parts: &[&[u8]]) -> String {
    format!("\u{2014} {name} {}\n", STANDARD.encode(parts.concat()))
}

fn cosigned_text(seconds: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {seconds}\n{text}")
}

impl Note {
    /// Signs a checkpoint of the log whose node has this key.
    #[must_use]
    pub fn sign(checkpoint: Checkpoint, key: &SecretKey) -> Self {
        let signature = key.sign_text(&checkpoint.text());
        Self { checkpoint, signature, cosignatures: Vec::new() }
    }

    /// Returns the word of a peer for it.
    #[must_use]
    pub fn cosign(&self, key: &SecretKey, seconds: u64) -> Cosignature {
        let signature = key.sign_text(&cosigned_text(seconds, &self.checkpoint.text()));
        Cosignature { peer: key.author(), seconds, signature }
    }

    /// Adds the word of a peer, in place of an earlier one. Returns whether it holds and there was room for it.
    pub fn add(&mut self, cosignature: Cosignature) -> bool {
        let text = cosigned_text(cosignature.seconds, &self.checkpoint.text());
        if !PublicKey::new(&cosignature.peer).is_some_and(|key| key.verify_text(&text, &cosignature.signature)) {
            return false;
        }
        self.cosignatures.retain(|other| other.peer != cosignature.peer);
        if self.cosignatures.len() >= AUDIT_COSIGNATURES_MAX {
            return false;
        }
        self.cosignatures.push(cosignature);
        self.cosignatures.sort_by_key(|cosignature| cosignature.peer);
        true
    }

    /// Returns the note with the signature of its node alone.
    #[must_use]
    pub fn alone(&self) -> Self {
        Self { checkpoint: self.checkpoint.clone(), signature: self.signature, cosignatures: Vec::new() }
    }

    /// Returns the note's text.
    #[must_use]
    pub fn text(&self) -> String {
        let log = &self.checkpoint.log;
        let name = log.to_string();
        let mut text = self.checkpoint.text();
        text.push('\n');
        text.push_str(&line(&name, &[&key_id(&name, TYPE_NOTE, &log.node), self.signature.as_bytes()]));
        for Cosignature { peer, seconds, signature } in &self.cosignatures {
            let name = cosigner(log, peer);
            let id = key_id(&name, TYPE_COSIGNATURE, peer);
            text.push_str(&line(&name, &[&id, &seconds.to_be_bytes(), signature.as_bytes()]));
        }
        text
    }

    /// Reads a note and checks all its signatures: that of the node by the key in the origin, those of peers by theirs.
    /// Whether these keys are to be believed is for the caller to say.
    ///
    /// # Errors
    /// [`NoteError`], by what is wrong.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        if text.len() > AUDIT_NOTE_BYTES_MAX {
            return Err(NoteError::TooLong);
        }
        let (body, signatures) = text.split_once("\n\n").ok_or(NoteError::Malformed)?;
        let checkpoint = Checkpoint::parse(&format!("{body}\n")).ok_or(NoteError::Malformed)?;
        let mut lines = signatures.strip_suffix('\n').ok_or(NoteError::Malformed)?.split('\n');
        let own = lines.next().and_then(|line| signed::<68>(line)).ok_or(NoteError::Malformed)?;
        let mut signature = [0; 64];
        signature.copy_from_slice(&own.1[4..]);
        let signature = Signature::new(signature);
        let key = PublicKey::new(&checkpoint.log.node).ok_or(NoteError::Signature)?;
        if !key.verify_text(&checkpoint.text(), &signature) {
            return Err(NoteError::Signature);
        }
        let mut note = Self { checkpoint, signature, cosignatures: Vec::new() };
        for line in lines {
            let (name, bytes) = signed::<76>(line).ok_or(NoteError::Malformed)?;
            let peer: AuthorKey =
                name.rsplit('/').next().and_then(|key| key.parse().ok()).ok_or(NoteError::Malformed)?;
            let (mut seconds, mut signature) = ([0; 8], [0; 64]);
            seconds.copy_from_slice(&bytes[4..12]);
            signature.copy_from_slice(&bytes[12..]);
            let (seconds, signature) = (u64::from_be_bytes(seconds), Signature::new(signature));
            if !note.add(Cosignature { peer, seconds, signature }) {
                return Err(NoteError::Cosignature);
            }
        }
        // Names, key ids, order and the forms of numbers and base64: all that was not looked at one by one.
        if note.text() != text {
            return Err(NoteError::Malformed);
        }
        Ok(note)
    }
}

/// Reads a line with a signature: its name and its bytes.
fn signed<const LEN: usize>(line: &str) -> Option<(&str, [u8; LEN])> {
    let (name, signature) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
    Some((name, STANDARD.decode(signature).ok()?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ClusterId, SessionId};

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed(&[seed; 32])
    }

    fn note() -> Note {
        let log =
            LogId { cluster: ClusterId::new([7; 32]), node: key(1).author(), incarnation: SessionId::new([3; 8]) };
        let checkpoint = Checkpoint { log, size: 5, root: [9; 32], extensions: vec!["heads notes 0/1 abc".to_owned()] };
        let mut note = Note::sign(checkpoint, &key(1));
        for peer in [2, 3] {
            let cosignature = note.cosign(&key(peer), 1_700_000_000 + u64::from(peer));
            assert!(note.add(cosignature));
        }
        note
    }

    #[test]
    fn a_note_has_the_form_of_c2sp() {
        let text = note().text();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("folkmoot/0707") && lines[0].ends_with("/0303030303030303"), "{text}");
        assert_eq!(lines[1..5], ["5", "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=", "heads notes 0/1 abc", ""]);
        assert!(lines[5].starts_with(&format!("\u{2014} {} ", lines[0])), "{text}");
        assert_eq!(lines.len(), 8);
        assert_eq!(Note::parse(&text), Ok(note()));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let text = note().text();
        for at in 0..text.len() {
            for flip in [1, 2, 32] {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= flip;
                if let Ok(changed) = std::str::from_utf8(&bytes) {
                    assert!(Note::parse(changed).is_err(), "byte {at} of {text}");
                }
            }
            if text.is_char_boundary(at) {
                let cut = Note::parse(&text[..at]);
                // What is left without the last lines is a note with fewer signatures, which says nothing false.
                assert!(cut.is_err() || text[..at].ends_with('\n'), "cut at {at}");
            }
        }
    }

    #[test]
    fn another_ones_word_does_not_count() {
        let mut note = note();
        let mut forged = note.cosign(&key(4), 5);
        forged.peer = key(5).author();
        assert!(!note.add(forged));
        let mut other = note.clone();
        other.checkpoint.size = 6;
        assert!(!note.add(other.cosign(&key(4), 5)));
    }
}
