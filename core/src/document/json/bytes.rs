//! Bytes as text: standard base64 with padding (RFC 4648 section 4), one text for each sequence of bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Returns the base64 of some bytes.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Returns the bytes of a base64 text, if it is one in its only canonical form.
#[must_use]
pub fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}
