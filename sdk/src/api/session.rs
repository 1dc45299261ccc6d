//! Causal sessions: what a client has seen, in a token that any node understands.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use folkmoot_core::id::{CollectionName, DocId, ShardId, StoreEpoch};
use folkmoot_core::replication::{Reach, StreamPrefix};
use serde::{Deserialize, Serialize};

use super::error::{Error, ErrorCode, Result};

/// What a client has seen: sent back to any node, that node answers from a state at least as new.
///
/// It says, for each shard that was touched, how far the streams of its authors reached. It is opaque to clients and no secret; a forged one
/// makes a node wait for its bounded time and nothing else.
///
/// It stays below 4 KiB: of a shard it holds the [`SessionToken::STREAMS_MAX`] streams that changed last, of shards those that were touched last.
/// What does not fit is forgotten, and then not waited for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionToken {
    /// The shard that was touched last is the first.
    shards: Vec<Seen>,
    text: String,
}

/// What was seen of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) shard: ShardId,
    /// The store that had all of it, if it was one alone.
    pub(crate) store: Option<StoreEpoch>,
    /// What changed last is the first.
    pub(crate) streams: Vec<Reach>,
}

/// Form of the text: this, then base64url (RFC 4648, without padding) of the shards.
const VERSION: &str = "s1.";
/// Bytes of the text.
const TEXT_BYTES_MAX: usize = 4 << 10;
/// Bytes in it.
const BYTES_MAX: usize = (TEXT_BYTES_MAX - VERSION.len()) / 4 * 3;

/// What a call touches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// Documents of this collection; none for the cluster itself: who may do what, and which collections there are.
    pub collection: Option<CollectionName>,
    /// Only this document of it.
    pub id: Option<DocId>,
}

impl Touched {
    /// The cluster itself.
    #[must_use]
    pub fn cluster() -> Self {
        Self::default()
    }

    /// A whole collection.
    #[must_use]
    pub fn collection(name: &CollectionName) -> Self {
        Self { collection: Some(name.clone()), id: None }
    }

    /// One document.
    #[must_use]
    pub fn document(collection: &CollectionName, id: &DocId) -> Self {
        Self { collection: Some(collection.clone()), id: Some(id.clone()) }
    }

    /// Returns whether the shard is touched. Who may do what bears on everything.
    pub(crate) fn includes(&self, shard: &ShardId) -> bool {
        if shard.is_control() {
            return true;
        }
        match (&self.collection, &self.id) {
            (Some(collection), _) if *collection != shard.collection => false,
            (Some(_), None) => true,
            // Nearly all collections have one shard.
            (Some(_), Some(_)) if shard.of == 1 => true,
            (Some(collection), Some(id)) => ShardId::of_document(collection, id, shard.of) == *shard,
            (None, _) => false,
        }
    }
}

/// The part of a database that lets clients go from node to node and see no step back.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// Waits until what is read here of this shows at least what a session has seen; without `timeout` for five seconds, for 60 at most.
    ///
    /// # Errors
    /// [`ErrorCode::SessionNotReached`], with what is missing here. Nothing is wrong with the token: another node may have it.
    async fn catch_up(&self, touched: &Touched, session: &SessionToken, timeout: Option<Duration>) -> Result<()>;

    /// Returns a token for what a session has seen, if it has read all of this now.
    ///
    /// # Errors
    /// [`ErrorCode::StoreFailed`], [`ErrorCode::ShuttingDown`].
    async fn session(&self, touched: &Touched, seen: Option<&SessionToken>) -> Result<SessionToken>;
}

impl SessionToken {
    /// Streams of a shard that a token holds.
    pub const STREAMS_MAX: usize = 64;

    /// Reads a token.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidSession`] if it is none.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        let decoded = text.strip_prefix(VERSION).filter(|_| text.len() <= TEXT_BYTES_MAX);
        let bytes = decoded.and_then(|rest| URL_SAFE_NO_PAD.decode(rest).ok());
        match bytes.and_then(|bytes| decode(&bytes)) {
            Some(shards) => Ok(Self { shards, text }),
            None => Err(Error::new(ErrorCode::InvalidSession, "session token is malformed")
                .hint("send the Folkmoot-Session header of an answer back as it is, or none")),
        }
    }

    /// Returns the token as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // That of a session that has seen nothing is not written anywhere.
        if self.text.is_empty() { VERSION } else { &self.text }
    }

    /// Makes a token of what was seen, what was touched last first; what does not fit is left out.
    pub(crate) fn of(mut shards: Vec<Seen>) -> Self {
        let mut bytes = Vec::new();
        let mut kept = 0;
        for seen in &mut shards {
            seen.streams.truncate(Self::STREAMS_MAX);
            let before = bytes.len();
            encode(seen, &mut bytes);
            if bytes.len() > BYTES_MAX {
                bytes.truncate(before);
                break;
            }
            kept += 1;
        }
        shards.truncate(kept);
        let mut text = String::with_capacity(VERSION.len() + bytes.len().div_ceil(3) * 4);
        text.push_str(VERSION);
        URL_SAFE_NO_PAD.encode_string(&bytes, &mut text);
        Self { shards, text }
    }

    pub(crate) fn shards(&self) -> &[Seen] {
        &self.shards
    }

    /// Returns the token of a session that has seen this behind what it had seen before, of which all is here that was touched.
    pub(crate) fn after(self, before: &Self) -> Self {
        let untouched = before.shards.iter().filter(|seen| self.shards.iter().all(|now| now.shard != seen.shard));
        let untouched: Vec<Seen> = untouched.cloned().collect();
        if untouched.is_empty() {
            return self;
        }
        Self::of(self.shards.into_iter().chain(untouched).collect())
    }

    /// Returns a token for what was seen by this session or an earlier one. What this one touched counts as touched later.
    #[must_use]
    pub fn joined(&self, earlier: &Self) -> Self {
        if self.text == earlier.text || earlier.shards.is_empty() {
            return self.clone();
        }
        let mut shards = self.shards.clone();
        for seen in &earlier.shards {
            match shards.iter_mut().find(|known| known.shard == seen.shard) {
                Some(known) => known.join(seen),
                None => shards.push(seen.clone()),
            }
        }
        Self::of(shards)
    }
}

impl Seen {
    /// Takes in what was seen of the same shard elsewhere.
    pub(crate) fn join(&mut self, other: &Self) {
        let before = self.streams.clone();
        for reach in &other.streams {
            self.note(*reach);
        }
        // Each store had its own part; only one that had both is known to have all.
        if self.store != other.store && self.streams != before {
            self.store = None;
        }
    }

    /// Takes in a stream; a new one goes behind those that are there.
    pub(crate) fn note(&mut self, reach: Reach) {
        match self.streams.iter_mut().find(|known| known.stream == reach.stream) {
            Some(known) if known.seq < reach.seq => *known = reach,
            Some(known) if known.seq == reach.seq => known.is_bare &= reach.is_bare,
            Some(_) => {}
            None => self.streams.push(reach),
        }
    }
}

fn put_number(mut number: u64, to: &mut Vec<u8>) {
    // LEB128.
    while number >= 0x80 {
        to.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

fn encode(seen: &Seen, to: &mut Vec<u8>) {
    let Seen { shard, store, streams } = seen;
    let name = shard.collection.as_str().as_bytes();
    put_number(name.len() as u64, to);
    to.extend_from_slice(name);
    put_number(shard.index.into(), to);
    put_number(shard.of.into(), to);
    // No store has this epoch: they are drawn at random.
    to.extend_from_slice(store.unwrap_or(StoreEpoch::new([0; StoreEpoch::LEN])).as_bytes());
    put_number(streams.len() as u64, to);
    for Reach { stream, seq, is_bare } in streams {
        to.extend_from_slice(stream);
        put_number(seq << 1 | u64::from(*is_bare), to);
    }
}

/// What is left to be read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..63).step_by(7) {
            let [byte] = self.array()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

/// Reads what [`encode`] wrote. Its length bounds what it makes.
fn decode(bytes: &[u8]) -> Option<Vec<Seen>> {
    let mut rest = Rest(bytes);
    let mut shards = Vec::new();
    while !rest.0.is_empty() {
        let length = usize::try_from(rest.number()?).ok()?;
        let collection: CollectionName = std::str::from_utf8(rest.take(length)?).ok()?.parse().ok()?;
        let index = u16::try_from(rest.number()?).ok()?;
        let of = u16::try_from(rest.number()?).ok()?;
        let shard = ShardId { collection, index, of };
        if !shard.is_valid() {
            return None;
        }
        let epoch: [u8; StoreEpoch::LEN] = rest.array()?;
        let store = (epoch != [0; StoreEpoch::LEN]).then_some(StoreEpoch::new(epoch));
        let count = usize::try_from(rest.number()?).ok()?;
        if count > SessionToken::STREAMS_MAX {
            return None;
        }
        let mut streams = Vec::with_capacity(count);
        for _ in 0..count {
            let stream: StreamPrefix = rest.array()?;
            let number = rest.number()?;
            streams.push(Reach { stream, seq: number >> 1, is_bare: number & 1 == 1 });
        }
        shards.push(Seen { shard, store, streams });
    }
    Some(shards)
}

impl fmt::Display for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for SessionToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl Serialize for SessionToken {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for SessionToken {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(number: u8, seq: u64) -> Reach {
        Reach { stream: [number; 8], seq, is_bare: false }
    }

    fn seen(collection: &str, streams: &[Reach]) -> Seen {
        let shard = ShardId { collection: collection.parse().unwrap(), index: 1, of: 3 };
        Seen { shard, store: Some(StoreEpoch::new([9; 8])), streams: streams.to_vec() }
    }

    #[test]
    fn tokens_are_read_as_they_were_written() {
        let largest = Reach { stream: [255; 8], seq: u64::MAX >> 2, is_bare: true };
        let shards = vec![seen("notes", &[reach(1, 7), largest]), seen("_control", &[]), seen("x", &[reach(2, 0)])];
        let token = SessionToken::of(shards.clone());
        assert_eq!(token.shards(), shards);
        assert_eq!(SessionToken::new(token.as_str()).unwrap(), token);
        assert_eq!(SessionToken::new("s1.").unwrap().shards(), []);
        assert_eq!(SessionToken::default().as_str(), "s1.");
    }

    #[test]
    fn what_is_no_token_is_refused_wherever_it_breaks() {
        let good = SessionToken::of(vec![seen("notes", &[reach(1, 7), reach(2, 300)])]);
        let text = good.as_str();
        for end in 0..text.len() {
            // Cut behind a whole shard it would be another token: there is only one here, and none of it is none at all.
            let cut = SessionToken::new(&text[..end]);
            assert!(cut.is_err() || end == VERSION.len(), "{end}");
        }
        let long = format!("s1.{}", "A".repeat(TEXT_BYTES_MAX));
        for bad in ["", "s", "s2.", "s1.!", "s1.AA", "s1 .", "s1.AAEAAAAAAAAAAAAA", &long] {
            assert_eq!(SessionToken::new(bad).map_err(|e| e.code()), Err(ErrorCode::InvalidSession), "{bad:.40}");
        }
        let mut many = seen("notes", &[]);
        many.streams = vec![reach(1, 1); SessionToken::STREAMS_MAX + 1];
        let mut bytes = Vec::new();
        encode(&many, &mut bytes);
        assert_eq!(decode(&bytes), None);
    }

    #[test]
    fn joined_sessions_have_seen_what_either_has() {
        let (a, b) = (seen("notes", &[reach(1, 7), reach(2, 5)]), seen("notes", &[reach(2, 9), reach(3, 1)]));
        let later = SessionToken::of(vec![a.clone()]);
        let earlier = SessionToken::of(vec![seen("x", &[reach(4, 4)]), Seen { store: None, ..b }]);
        let joined = later.joined(&earlier);
        assert_eq!(
            joined.shards().iter().map(|seen| seen.shard.collection.as_str()).collect::<Vec<_>>(),
            ["notes", "x"]
        );
        assert_eq!(joined.shards()[0].streams, [reach(1, 7), reach(2, 9), reach(3, 1)]);
        assert_eq!(joined.shards()[0].store, None, "no store is known to have all of it");
        let less = Seen { store: None, streams: vec![reach(1, 6)], ..a.clone() };
        assert_eq!(later.joined(&SessionToken::of(vec![less])).shards(), [a], "what adds nothing changes nothing");
    }

    #[test]
    fn tokens_stay_within_their_bound_and_forget_what_was_touched_first() {
        let shards: Vec<Seen> =
            (0..40).map(|number| seen(&format!("c{number}"), &[reach(number, u64::MAX >> 2); 64])).collect();
        let token = SessionToken::of(shards.clone());
        assert!(token.as_str().len() <= TEXT_BYTES_MAX && !token.shards().is_empty());
        assert!(shards.starts_with(token.shards()));
        assert!(SessionToken::new(token.as_str()).is_ok());
    }
}
