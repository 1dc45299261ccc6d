//! Reading the ops of a store that the engine does not open any more, or not whole.
//!
//! Ops are all that is read: everything else is made of them. They come from the tables of the keyspace `ops`, block by
//! block around what is damaged, and from the journals, also from behind a damaged commit and out of it. What is
//! read proves itself by its encoding, its hashes and its chain's signature, so nothing here is believed: whoever takes the
//! entries checks them.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use bytes::Bytes;
use lsm_tree::{AbstractTree as _, AnyTree, Guard as _, SeqNo, SequenceNumberCounter};

use super::keys::{Key as _, OpKey};
use super::sealed::Opener;
use super::{Keyspace, envelope, journal, panic_text};
use crate::id::StreamId;

/// Fjall's folder of keyspaces; 0 is its own and names the others.
const KEYSPACES: &str = "keyspaces";
/// First byte of the names in fjall's own keyspace; the number follows, big-endian.
const NAME: u8 = b'n';
/// The file without which a tree would be made anew.
const TREE_MARKER: &str = "current";
/// Numbers of keyspaces that a store has at most: fourteen, and some that were begun and given up.
const KEYSPACES_MAX: u64 = 64;
/// Length of the key of an op, of the main chain and of a branch.
const OP_KEY_BYTES: [usize; 2] = [40, 72];

/// Why nothing can be read at all.
#[derive(Debug, thiserror::Error)]
#[error("read what is left of the store in {path}")]
pub struct SalvageError {
    path: std::path::PathBuf,
    source: std::io::Error,
}

/// An op as it lies in the store: checked for nothing but the form of its key.
pub type Entry = (OpKey, Bytes);

/// What is left of a store.
pub struct Salvage {
    ops: Option<AnyTree>,
    heads: Option<AnyTree>,
    /// Of a sealed store what opens its values, and the wrapped keys of its documents: in tables, and in the journals, newest
    /// last.
    opener: Option<Opener>,
    keys: Option<AnyTree>,
    journal_keys: BTreeMap<Vec<u8>, Option<Bytes>>,
    /// Ops of the journals by key. As large as the journals, which are bounded.
    journal: BTreeMap<OpKey, Vec<Bytes>>,
    problems: Vec<String>,
}

impl std::fmt::Debug for Salvage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Salvage").field("problems", &self.problems).finish_non_exhaustive()
    }
}

impl Salvage {
    /// Looks for ops in the directory of a store that no process has open, with what opens its values if it is sealed. Writes
    /// nothing but what opening a tree may tidy up.
    ///
    /// # Errors
    /// [`SalvageError`] if the directory cannot be listed. Whatever in it cannot be read is told by [`Self::problems`].
    pub fn open(store: &Path, opener: Option<Opener>) -> Result<Self, SalvageError> {
        let mut problems = Vec::new();
        let names = names(store, &mut problems);
        let number = |keyspace: Keyspace| names.get(keyspace.name()).copied();
        let (number_of_ops, number_of_keys) = (number(Keyspace::Ops), number(Keyspace::Keys));
        let mut ops = BTreeMap::<OpKey, Vec<Bytes>>::new();
        let mut journal_keys = BTreeMap::new();
        let unreadable = |path: &Path, error: &dyn std::fmt::Display| {
            problems.push(format!("journal {}: {error}", path.display()));
        };
        journal::visit(store, unreadable, |item| {
            let value = item.value.map(|value| Bytes::from(value.into_owned()));
            if Some(item.keyspace) == number_of_keys && opener.is_some() {
                journal_keys.insert(item.key.to_vec(), value);
                return;
            }
            let is_op = Some(item.keyspace) == number_of_ops && OP_KEY_BYTES.contains(&item.key.len());
            let Some(value) = value.filter(|_| is_op) else { return };
            let Ok(key) = OpKey::decode(item.key) else { return };
            ops.entry(key).or_default().push(value);
        })
        .map_err(|source| SalvageError { path: store.to_owned(), source })?;
        let mut tree = |keyspace: Keyspace| {
            let number = names.get(keyspace.name()).copied()?;
            open_tree(&store.join(KEYSPACES).join(number.to_string()))
                .map_err(|error| problems.push(format!("tables of the keyspace {keyspace}: {error}")))
                .ok()
        };
        let (tables, heads) = (tree(Keyspace::Ops), tree(Keyspace::Heads));
        let keys = if opener.is_some() { tree(Keyspace::Keys) } else { None };
        Ok(Self { ops: tables, heads, opener, keys, journal_keys, journal: ops, problems })
    }

    /// Takes a value out of its envelope; none if it is damaged.
    fn value(&self, keyspace: Keyspace, key: &[u8], value: Bytes) -> Option<Bytes> {
        let Some(opener) = &self.opener else { return envelope::open(value).ok() };
        let wrapped = |document: &[u8]| match self.journal_keys.get(document) {
            Some(wrapped) => wrapped.clone(),
            None => self.keys.as_ref()?.get(document, SeqNo::MAX).ok()?.map(Bytes::from),
        };
        envelope::open(opener.open(keyspace, key, value, &wrapped)?).ok()
    }

    /// Returns what could not be read, for people.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Returns the streams of which ops may be found.
    pub fn streams(&mut self) -> BTreeSet<StreamId> {
        let mut streams: BTreeSet<StreamId> = self.journal.keys().map(|key| key.stream).collect();
        for (tree, keyspace) in [(&self.heads, Keyspace::Heads), (&self.ops, Keyspace::Ops)] {
            let Some(tree) = tree else { continue };
            if let Err(error) = list_streams(tree, &mut streams) {
                self.problems.push(format!("list the streams of the keyspace {keyspace}: {error}"));
            }
        }
        streams
    }

    /// Returns the record of a stream's head, as it was last written to a table.
    #[must_use]
    pub fn head(&self, stream: StreamId) -> Option<Bytes> {
        let key = stream.encode();
        let value = self.heads.as_ref()?.get(&key, SeqNo::MAX).ok()??;
        self.value(Keyspace::Heads, &key, Bytes::from(value))
    }

    /// Returns the entries of a stream at `from` and behind it, in order, of `count` places, and the place to go on from;
    /// none if there is no more. Of places with more than one candidate all come. `reach` is how far the stream is known to
    /// go, in case the tables do not tell.
    pub fn read(&mut self, stream: StreamId, from: u64, count: u64, reach: u64) -> (Vec<Entry>, Option<u64>) {
        let until = from.saturating_add(count);
        let mut found: BTreeMap<OpKey, Vec<Bytes>> = BTreeMap::new();
        let range = OpKey::new(stream, from)..OpKey::new(stream, until);
        let mut next = self.journal.range(OpKey::new(stream, until)..).next().map(|(key, _)| *key);
        for (key, values) in self.journal.range(range) {
            let values = values.iter().filter_map(|value| self.value(Keyspace::Ops, &key.encode(), value.clone()));
            found.entry(*key).or_default().extend(values);
        }
        if let Some(tree) = &self.ops {
            let span = OpKey::new(stream, from).encode()..OpKey::new(stream, until).encode();
            let mut reached = from;
            let mut is_broken = false;
            for guard in tree.range(span, SeqNo::MAX, None) {
                let Ok((key, value)) = guard.into_inner() else {
                    is_broken = true;
                    break;
                };
                let Ok(op_key) = OpKey::decode(&key) else { continue };
                let Some(value) = self.value(Keyspace::Ops, &key, Bytes::from(value)) else { continue };
                reached = op_key.seq;
                found.entry(op_key).or_default().push(value);
            }
            if is_broken {
                // A block is damaged: what lies in others is read one by one.
                for seq in reached..until {
                    let key = OpKey::new(stream, seq);
                    if let Ok(Some(value)) = tree.get(key.encode(), SeqNo::MAX)
                        && let Some(value) = self.value(Keyspace::Ops, &key.encode(), Bytes::from(value))
                    {
                        found.entry(key).or_default().push(value);
                    }
                }
            }
            let beyond = OpKey::new(stream, until).encode()..OpKey::new(stream, u64::MAX).encode();
            let more = match tree.range(beyond, SeqNo::MAX, None).next_back() {
                None => false,
                // With its last block damaged a stream may end there or not.
                Some(guard) => guard.key().is_ok() || until <= reach,
            };
            next = [next, more.then(|| OpKey::new(stream, until))].into_iter().flatten().min();
        }
        let next = next.filter(|key| key.stream == stream).map(|key| key.seq);
        let entries = found.into_iter().flat_map(|(key, values)| values.into_iter().map(move |value| (key, value)));
        (entries.collect(), next)
    }
}

fn open_tree(path: &Path) -> Result<AnyTree, String> {
    if !path.join(TREE_MARKER).exists() {
        return Err("it is not there".to_owned());
    }
    let open = || {
        let counter = SequenceNumberCounter::default;
        lsm_tree::Config::new(path, counter(), counter()).open().map_err(|error| error.to_string())
    };
    catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|panic| Err(panic_text(&*panic)))
}

/// Returns the numbers of the keyspaces by their names.
fn names(store: &Path, problems: &mut Vec<String>) -> BTreeMap<String, u64> {
    // In the order of their making, should their names be lost.
    let mut names: BTreeMap<String, u64> = BTreeMap::from([(Keyspace::Meta.name().to_owned(), 1)]);
    let others = Keyspace::ALL.into_iter().filter(|keyspace| *keyspace != Keyspace::Meta);
    names.extend(others.zip(2..).map(|(keyspace, number)| (keyspace.name().to_owned(), number)));
    let tree = match open_tree(&store.join(KEYSPACES).join("0")) {
        Ok(tree) => tree,
        Err(error) => {
            problems.push(format!("names of the keyspaces: {error}"));
            return names;
        }
    };
    for number in 1..KEYSPACES_MAX {
        let key = [&[NAME][..], &number.to_be_bytes()].concat();
        if let Ok(Some(name)) = tree.get(key, SeqNo::MAX)
            && let Ok(name) = std::str::from_utf8(&name)
        {
            names.insert(name.to_owned(), number);
        }
    }
    names
}

/// Adds the streams that a tree's keys begin with, from the front, and where that is damaged from the back.
fn list_streams(tree: &AnyTree, streams: &mut BTreeSet<StreamId>) -> Result<(), String> {
    let stream_of = |guard: lsm_tree::IterGuardImpl| {
        let key = guard.key().map_err(|error| error.to_string())?;
        Ok::<_, String>(key.get(..32).and_then(|bytes| bytes.try_into().ok()).map(StreamId::new))
    };
    let mut from = Vec::new();
    let failed = loop {
        let Some(guard) = tree.range(from.clone().., SeqNo::MAX, None).next() else { return Ok(()) };
        match stream_of(guard) {
            Err(error) => break error,
            Ok(None) => return Ok(()),
            Ok(Some(stream)) => {
                streams.insert(stream);
                from = OpKey { stream, seq: u64::MAX, branch: Some(crate::id::OpId::new([u8::MAX; 32])) }.encode();
                from.push(0);
            }
        }
    };
    let mut to = vec![u8::MAX; 80];
    while let Some(guard) = tree.range(from.clone()..to.clone(), SeqNo::MAX, None).next_back() {
        match stream_of(guard) {
            Ok(Some(stream)) => {
                streams.insert(stream);
                to = stream.encode();
                if to < from {
                    break;
                }
            }
            Ok(None) | Err(_) => break,
        }
    }
    Err(failed)
}
