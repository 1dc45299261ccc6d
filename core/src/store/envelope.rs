//! The envelope of values: a version byte, then the value. Layout: `docs/format.md`.
//!
//! Above the store all values are plain. On the disk most are sealed, see [`super::sealed`].

use bytes::Bytes;

/// The value follows as it is.
const PLAIN: u8 = 0;
/// The value is sealed.
pub(super) const SEALED: u8 = 1;

/// Why an envelope cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Not even a version byte.
    #[error("empty value where an envelope should be")]
    Empty,
    /// It is sealed, and the store was opened without its keys.
    #[error("value is sealed, and the store was opened without its keyring")]
    Sealed,
    /// A later program wrote it.
    #[error("value has an envelope of version {0}, this program knows only {PLAIN} (plain)")]
    Version(u8),
}

/// Puts a value into a plain envelope.
#[must_use]
pub fn enclose(value: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(1 + value.len());
    out.push(PLAIN);
    out.extend_from_slice(value);
    out.into()
}

/// Takes the value out of its envelope, without copying it.
///
/// # Errors
/// [`EnvelopeError`] if there is no envelope or not one of ours.
pub fn open(mut envelope: Bytes) -> Result<Bytes, EnvelopeError> {
    match envelope.first() {
        None => Err(EnvelopeError::Empty),
        Some(&PLAIN) => Ok(envelope.split_off(1)),
        Some(&SEALED) => Err(EnvelopeError::Sealed),
        Some(&version) => Err(EnvelopeError::Version(version)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_what_it_enclosed_and_nothing_else() {
        for value in [&b""[..], b"\0", b"value"] {
            assert_eq!(open(enclose(value)).as_deref(), Ok(value));
        }
        assert_eq!(open(Bytes::new()), Err(EnvelopeError::Empty));
        assert_eq!(open(Bytes::from_static(b"\x01sealed")), Err(EnvelopeError::Sealed));
        assert_eq!(open(Bytes::from_static(b"\x02")), Err(EnvelopeError::Version(2)));
        assert_eq!(enclose(b"pinned")[..], *b"\0pinned");
    }
}
