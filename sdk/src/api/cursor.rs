//! The opaque cursor of a list, and which part of one is asked for.

use std::fmt;

use folkmoot_core::id::DocId;
use folkmoot_core::limits;
use serde::{Deserialize, Serialize};

use super::error::{Error, ErrorCode};

/// Where a list goes on. Clients pass it back as they got it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Cursor(String);

/// Form of a cursor that stands after a document id: the id in hexadecimal behind this letter.
const AFTER_DOCUMENT: char = 'd';

impl Cursor {
    /// Wraps a text that a client sent; it is checked when it is used.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the cursor behind a document.
    #[must_use]
    pub fn after_document(id: &DocId) -> Self {
        use std::fmt::Write as _;
        let mut text = String::with_capacity(1 + id.as_str().len() * 2);
        text.push(AFTER_DOCUMENT);
        for byte in id.as_str().as_bytes() {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }

    /// Returns the document behind which the list goes on.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidCursor`] if the text is no such cursor.
    pub fn document(&self) -> Result<DocId, Error> {
        self.decode().ok_or_else(|| {
            Error::new(ErrorCode::InvalidCursor, "`after` is not a cursor of this list")
                .hint("pass the `next` of the page before, as it is")
        })
    }

    fn decode(&self) -> Option<DocId> {
        let hex = self.0.strip_prefix(AFTER_DOCUMENT)?;
        if hex.len() > limits::DOC_ID_BYTES_MAX * 2 || hex.len() % 2 != 0 || !hex.is_ascii() {
            return None;
        }
        let bytes = hex
            .as_bytes()
            .chunks_exact(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect::<Option<Vec<u8>>>()?;
        String::from_utf8(bytes).ok()?.parse().ok()
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which part of a list that is long and has nothing else to be asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageQuery {
    /// At most so many, up to [`PageQuery::LIMIT_MAX`]; none takes [`PageQuery::LIMIT_DEFAULT`].
    pub limit: Option<usize>,
    /// Go on behind this.
    pub after: Option<Cursor>,
}

impl PageQuery {
    /// Items of a page when the caller does not say.
    pub const LIMIT_DEFAULT: usize = 100;
    /// Items of a page at most.
    pub const LIMIT_MAX: usize = 1_000;

    /// Returns how many items the page has at most.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(Self::LIMIT_DEFAULT).clamp(1, Self::LIMIT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stands_behind_its_document() {
        for id in ["a", "Zürich/1", &"x".repeat(256)] {
            let id: DocId = id.parse().unwrap();
            assert_eq!(Cursor::from_text(&Cursor::after_document(&id).to_string()).document().unwrap(), id);
        }
        for bad in ["", "d", "d6", "x61", "dzz", "dff", "d0a", "d+1", "dä"] {
            assert_eq!(Cursor::from_text(bad).document().map_err(|e| e.code()), Err(ErrorCode::InvalidCursor), "{bad}");
        }
    }
}
