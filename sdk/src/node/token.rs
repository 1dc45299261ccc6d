//! API tokens as text.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use folkmoot_core::hash::{Domain, hash};

/// What every token begins with, so that programs which look for secrets in places where they should not be find them.
const BEGIN: &str = "fm_";
/// Bytes behind the secret that tell a token from another text, and a mistyped one.
const CHECK_BYTES: usize = 4;
/// Characters of a token.
pub(super) const CHARS: usize = BEGIN.len() + 48;

fn check(secret: &[u8; 32]) -> [u8; CHECK_BYTES] {
    let digest = hash(Domain::Token, &[b"check", secret]);
    let mut check = [0; CHECK_BYTES];
    for (to, from) in check.iter_mut().zip(digest) {
        *to = from;
    }
    check
}

/// Returns the text of a secret.
pub(super) fn write(secret: &[u8; 32]) -> String {
    let bytes: Vec<u8> = secret.iter().copied().chain(check(secret)).collect();
    format!("{BEGIN}{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// Returns the secret of a text; none if it is no token.
pub(super) fn read(text: &str) -> Option<[u8; 32]> {
    if text.len() != CHARS {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(BEGIN)?).ok()?;
    let (secret, found) = bytes.split_at_checked(32)?;
    let secret: [u8; 32] = secret.try_into().ok()?;
    (check(&secret) == found).then_some(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_as_written_and_nothing_else_is() {
        let secret: [u8; 32] = std::array::from_fn(|n| u8::try_from(n * 7).unwrap());
        let text = write(&secret);
        assert_eq!((text.len(), read(&text)), (CHARS, Some(secret)));
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'));
        for place in 0..text.len() {
            let mut wrong = text.clone().into_bytes();
            wrong[place] = if wrong[place] == b'A' { b'B' } else { b'A' };
            assert_eq!(read(std::str::from_utf8(&wrong).unwrap()), None, "character {place}");
        }
        for bad in ["", "fm_", &text[1..], &format!("{text}A"), "f\u{e4}_"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
