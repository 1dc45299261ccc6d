//! Heads of a document: which version it is, on every replica.

use std::fmt;
use std::str::FromStr;

use folkmoot_core::id::ChangeHash;
use folkmoot_core::limits;

use super::error::{Error, ErrorCode};

/// The hashes of the latest changes of a document, ascending. Two replicas with equal heads hold equal documents.
///
/// As text (ETag, `merge_onto`) they are joined by `.`; no heads at all are the empty text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Heads(Vec<ChangeHash>);

impl Heads {
    /// Wraps hashes in any order; duplicates are dropped.
    #[must_use]
    pub fn new(mut hashes: Vec<ChangeHash>) -> Self {
        hashes.sort_unstable();
        hashes.dedup();
        Self(hashes)
    }

    /// Returns the hashes, ascending.
    #[must_use]
    pub fn as_slice(&self) -> &[ChangeHash] {
        &self.0
    }

    /// Returns whether there are none: the document has no content.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the entity tag: the text form in quotation marks.
    #[must_use]
    pub fn etag(&self) -> String {
        use fmt::Write as _;
        let mut text = String::with_capacity(2 + self.0.len() * (ChangeHash::LEN * 2 + 1));
        // Writing to memory does not fail.
        let _ = write!(text, "\"{self}\"");
        text
    }
}

impl FromIterator<ChangeHash> for Heads {
    fn from_iter<I: IntoIterator<Item = ChangeHash>>(hashes: I) -> Self {
        Self::new(hashes.into_iter().collect())
    }
}

impl fmt::Display for Heads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, hash) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(".")?;
            }
            write!(f, "{hash}")?;
        }
        Ok(())
    }
}

impl FromStr for Heads {
    type Err = Error;

    /// Accepts at most [`limits::CHANGE_DEPS_MAX`] hashes: no edit can be made onto more.
    fn from_str(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        if text.len() > limits::CHANGE_DEPS_MAX * (ChangeHash::LEN * 2 + 1) {
            return Err(Error::new(ErrorCode::InvalidHeads, "more heads than an edit can be made onto"));
        }
        text.split('.')
            .map(|part| {
                part.parse::<ChangeHash>().map_err(|_| {
                    Error::new(
                        ErrorCode::InvalidHeads,
                        "heads must be change hashes of 64 hexadecimal characters joined by '.'",
                    )
                    .hint("use the ETag of an answer as it is")
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_what_is_no_heads() {
        let one = ChangeHash::new([7; 32]).to_string();
        for bad in [
            "x",
            ".",
            &format!("{one}."),
            &format!(".{one}"),
            &format!("{one},{one}"),
            &one.to_uppercase().replace('7', "F"),
        ] {
            assert_eq!(bad.parse::<Heads>().map_err(|e| e.code()), Err(ErrorCode::InvalidHeads), "{bad}");
        }
        let many = vec![one; limits::CHANGE_DEPS_MAX + 1].join(".");
        assert!(many.parse::<Heads>().is_err());
    }

    proptest! {
        #[test]
        fn text_round_trips(hashes in prop::collection::vec(any::<[u8; 32]>(), 0..8)) {
            let heads: Heads = hashes.into_iter().map(ChangeHash::new).collect();
            prop_assert_eq!(heads.to_string().parse::<Heads>().unwrap(), heads.clone());
            prop_assert!(heads.as_slice().is_sorted());
        }
    }
}
