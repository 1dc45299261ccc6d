//! Invite tickets: what a newcomer needs to find a member and to show that it was invited.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use folkmoot_core::id::{AuthorKey, ClusterId};
use libp2p::Multiaddr;

use crate::identity;
use crate::limits::{ADDRESS_BYTES_MAX, PINNED_ADDRESSES_MAX, TICKET_CHARS_MAX};

/// What every ticket begins with; the digit is the version of the text form.
const PREFIX: &str = "folkmoot1";
/// Domain of the checksum.
const CHECKSUM_CONTEXT: &str = "folkmoot/1/ticket-checksum";
const CHECKSUM_BYTES: usize = 4;

/// An invitation to join a cluster: a bearer secret, to be shown to nobody but the invited.
///
/// Text form: `folkmoot1` and base32 (lower case, no padding) of cluster, inviter, secret, expiry, number of
/// addresses, each address after its length in two bytes, and four bytes of checksum against typing errors.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The cluster to join.
    pub cluster: ClusterId,
    /// Who must answer the request: the joiner accepts no other key.
    pub inviter: AuthorKey,
    /// Where the inviter listens, 1 to [`PINNED_ADDRESSES_MAX`].
    pub addresses: Vec<Multiaddr>,
    /// Proves the invitation.
    pub secret: [u8; 16],
    /// Milliseconds since 1970 after which the inviter refuses it.
    pub expires_ms: u64,
}

/// Why a text is no ticket. It never repeats the text, which may be most of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseTicketError {
    /// Longer than any ticket.
    #[error("ticket is longer than {TICKET_CHARS_MAX} characters")]
    TooLong,
    /// Not the text form of a ticket, or one of another version.
    #[error("a ticket begins with {PREFIX}")]
    Prefix,
    /// A character outside the alphabet, or a broken end.
    #[error("ticket contains characters that no ticket has")]
    Alphabet,
    /// Damaged or mistyped.
    #[error("ticket is damaged: its checksum does not match")]
    Checksum,
    /// The checksum matches, the content does not.
    #[error("ticket is malformed")]
    Malformed,
}

impl Ticket {
    /// Returns whether the ticket has expired at `now_ms`.
    #[must_use]
    pub const fn is_expired(&self, now_ms: u64) -> bool {
        now_ms >= self.expires_ms
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(self.cluster.as_bytes());
        out.extend_from_slice(self.inviter.as_bytes());
        out.extend_from_slice(&self.secret);
        out.extend_from_slice(&self.expires_ms.to_be_bytes());
        let addresses: Vec<Vec<u8>> = self
            .addresses
            .iter()
            .map(Multiaddr::to_vec)
            .filter(|address| address.len() <= ADDRESS_BYTES_MAX)
            .take(PINNED_ADDRESSES_MAX)
            .collect();
        // At most PINNED_ADDRESSES_MAX, and each at most ADDRESS_BYTES_MAX.
        out.push(addresses.len() as u8);
        for address in addresses {
            out.extend_from_slice(&(address.len() as u16).to_be_bytes());
            out.extend_from_slice(&address);
        }
        out
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let cluster = ClusterId::new(*bytes.split_off(..32)?.first_chunk()?);
        let inviter = AuthorKey::new(*bytes.split_off(..32)?.first_chunk()?);
        let secret = *bytes.split_off(..16)?.first_chunk()?;
        let expires_ms = u64::from_be_bytes(*bytes.split_off(..8)?.first_chunk()?);
        let count = usize::from(*bytes.split_off_first()?);
        if count == 0 || count > PINNED_ADDRESSES_MAX || identity::peer_id(&inviter).is_none() {
            return None;
        }
        let mut addresses = Vec::with_capacity(count);
        for _ in 0..count {
            let len = usize::from(u16::from_be_bytes(*bytes.split_off(..2)?.first_chunk()?));
            if len > ADDRESS_BYTES_MAX {
                return None;
            }
            addresses.push(Multiaddr::try_from(bytes.split_off(..len)?.to_vec()).ok()?);
        }
        bytes.is_empty().then_some(Self { cluster, inviter, addresses, secret, expires_ms })
    }
}

fn checksum(content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest = blake3::derive_key(CHECKSUM_CONTEXT, content);
    let [a, b, c, d, ..] = digest;
    [a, b, c, d]
}

impl fmt::Display for Ticket {
    /// The whole ticket, secret included. Addresses beyond [`PINNED_ADDRESSES_MAX`] are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.encode();
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        write!(f, "{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }
}

impl fmt::Debug for Ticket {
    /// Everything but the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("cluster", &self.cluster)
            .field("inviter", &self.inviter)
            .field("addresses", &self.addresses)
            .field("expires_ms", &self.expires_ms)
            .finish_non_exhaustive()
    }
}

impl FromStr for Ticket {
    type Err = ParseTicketError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.len() > TICKET_CHARS_MAX {
            return Err(ParseTicketError::TooLong);
        }
        let text = text.to_ascii_uppercase();
        let body = text.strip_prefix(&PREFIX.to_ascii_uppercase()).ok_or(ParseTicketError::Prefix)?;
        let bytes = BASE32_NOPAD.decode(body.as_bytes()).map_err(|_| ParseTicketError::Alphabet)?;
        let (content, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(ParseTicketError::Malformed)?;
        if *sum != checksum(content) {
            return Err(ParseTicketError::Checksum);
        }
        Self::decode(content).ok_or(ParseTicketError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use folkmoot_core::keys::SecretKey;
    use proptest::prelude::*;

    use super::*;

    fn ticket() -> Ticket {
        Ticket {
            cluster: ClusterId::new([3; 32]),
            inviter: SecretKey::from_seed(&[4; 32]).author(),
            addresses: vec!["/ip4/192.0.2.1/tcp/7071".parse().unwrap(), "/dns4/db.example/tcp/7071".parse().unwrap()],
            secret: [0x5e; 16],
            expires_ms: 1_800_000_000_000,
        }
    }

    /// Gives `content` the text form with a right checksum.
    fn text_of(content: &[u8]) -> String {
        let bytes = [content, &checksum(content)].concat();
        format!("{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }

    #[test]
    fn the_text_form_round_trips_in_either_case() {
        let ticket = ticket();
        let text = ticket.to_string();
        assert!(text.starts_with("folkmoot1"));
        assert_eq!(text.parse(), Ok(ticket.clone()));
        assert_eq!(format!(" {}\n", text.to_ascii_uppercase()).parse(), Ok(ticket));
    }

    #[test]
    fn the_text_form_is_fixed() {
        // Tickets are handed from one version of the program to another.
        let digest = blake3::hash(ticket().to_string().as_bytes()).to_hex();
        assert_eq!(&digest[..16], "a57b2c9cb7eb6f0b");
    }

    #[test]
    fn debug_hides_the_secret() {
        let shown = format!("{:?}", ticket());
        assert!(!shown.contains("5e") && !shown.contains("94"), "{shown}");
        assert!(shown.contains("192.0.2.1"), "{shown}");
    }

    #[test]
    fn wrong_texts_are_told_apart() {
        let good = ticket().encode();
        let text = text_of(&good);
        let mut mistyped = text.clone();
        let last = if mistyped.remove(20) == 'a' { 'b' } else { 'a' };
        mistyped.insert(20, last);
        let mut no_addresses = good[..88].to_vec();
        no_addresses.push(0);
        let mut many_addresses = good.clone();
        many_addresses[88] = PINNED_ADDRESSES_MAX as u8 + 1;
        let mut long_address = good[..88].to_vec();
        long_address.extend_from_slice(&[1, 0xff, 0xff]);
        long_address.extend_from_slice(&[0; 1_000]);
        let mut no_key = good.clone();
        let no_point = (0..=u8::MAX).map(|b| AuthorKey::new([b; 32])).find(|key| identity::peer_id(key).is_none());
        no_key[32..64].copy_from_slice(no_point.unwrap().as_bytes());
        let cases = [
            (String::new(), ParseTicketError::Prefix),
            ("folkmoot2aaaa".into(), ParseTicketError::Prefix),
            ("folkmoot1".into(), ParseTicketError::Malformed),
            ("folkmoot1!!".into(), ParseTicketError::Alphabet),
            ("é".repeat(100), ParseTicketError::Prefix),
            (format!("{text}aa"), ParseTicketError::Checksum),
            (mistyped, ParseTicketError::Checksum),
            ("folkmoot1".to_owned() + &"a".repeat(TICKET_CHARS_MAX), ParseTicketError::TooLong),
            (text_of(&good[..good.len() - 1]), ParseTicketError::Malformed),
            (text_of(&[good.as_slice(), &[0]].concat()), ParseTicketError::Malformed),
            (text_of(&no_addresses), ParseTicketError::Malformed),
            (text_of(&many_addresses), ParseTicketError::Malformed),
            (text_of(&long_address), ParseTicketError::Malformed),
            (text_of(&no_key), ParseTicketError::Malformed),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Ticket>(), Err(error), "{text}");
        }
    }

    #[test]
    fn expiry_is_exclusive() {
        let ticket = ticket();
        assert!(!ticket.is_expired(ticket.expires_ms - 1));
        assert!(ticket.is_expired(ticket.expires_ms));
    }

    proptest! {
        #[test]
        fn any_content_parses_or_is_refused(content in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(ticket) = text_of(&content).parse::<Ticket>() {
                prop_assert_eq!(ticket.encode(), content);
            }
        }

        #[test]
        fn any_text_is_refused_without_panic(text in "(folkmoot1)?[ -~]{0,200}") {
            prop_assert!(text.parse::<Ticket>().is_err());
        }
    }
}
