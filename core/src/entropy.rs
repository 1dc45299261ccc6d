//! Deterministic randomness: a BLAKE3 output stream over a seed that the caller draws.

use crate::id::{OpId, Salt, SessionId};

/// A source of random bytes; the same seed gives the same bytes.
#[derive(Debug)]
pub(crate) struct Entropy {
    reader: blake3::OutputReader,
}

impl Entropy {
    pub(crate) fn new(seed: &[u8; 32]) -> Self {
        Self { reader: blake3::Hasher::new_keyed(seed).finalize_xof() }
    }

    /// Mixes something in that a copy of this source does not know.
    pub(crate) fn stir(&mut self, with: OpId) {
        let key = self.bytes();
        self.reader = blake3::Hasher::new_keyed(&key).update(with.as_bytes()).finalize_xof();
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.reader.fill(&mut out);
        out
    }

    pub(crate) fn salt(&mut self) -> Salt {
        Salt::new(self.bytes())
    }

    pub(crate) fn session(&mut self) -> SessionId {
        SessionId::new(self.bytes())
    }
}
