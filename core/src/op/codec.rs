//! The canonical encoding: rmp-serde arrays, one form only. What does not encode back to the same bytes is refused.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, SeqAccess};
use serde::{Deserialize, Deserializer, Serialize};

/// Why bytes are not a canonical value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// More bytes than the bound.
    #[error("{len} bytes where at most {max} are allowed")]
    TooLarge {
        /// Length found.
        len: usize,
        /// Bound.
        max: usize,
    },
    /// Not the expected structure.
    #[error("malformed encoding")]
    Malformed(#[source] rmp_serde::decode::Error),
    /// Decodes, but is not in canonical form (or has trailing bytes).
    #[error("encoding is not canonical")]
    NotCanonical,
}

/// How deeply encoded values may nest. Ours need less than ten; rmp-serde's own bound of 1,024 asks for more stack than
/// a small thread has.
const NESTING_MAX: usize = 32;

/// Encodes a value canonically.
///
/// # Panics
/// Never for the types of this crate: writing to memory cannot fail and no type refuses to serialize.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "an in-memory writer and plain data cannot fail")]
    rmp_serde::to_vec(value).expect("plain data encodes")
}

/// Decodes a value of at most `max` bytes and checks that it encodes back to the same bytes.
///
/// # Errors
/// [`CodecError`], by kind of damage.
pub fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, CodecError> {
    if bytes.len() > max {
        return Err(CodecError::TooLarge { len: bytes.len(), max });
    }
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    deserializer.set_max_depth(NESTING_MAX);
    let value = T::deserialize(&mut deserializer).map_err(CodecError::Malformed)?;
    // The one check that makes the form canonical: MessagePack itself lets a number be longer than it need be, a
    // struct be a map, bytes be text, and something follow.
    if encode(&value) != bytes {
        return Err(CodecError::NotCanonical);
    }
    Ok(value)
}

/// Decodes a list of at most `MAX` elements, for `#[serde(deserialize_with = "…")]`. Where an element is larger in memory
/// than encoded, the bound must hold while decoding and not afterwards: four megabytes of `nil` would become a hundred of
/// list.
///
/// # Errors
/// That of the deserializer, for a longer list too.
pub fn bounded_list<'de, const MAX: usize, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    struct Visitor<const MAX: usize, T>(PhantomData<T>);
    impl<'de, const MAX: usize, T: Deserialize<'de>> serde::de::Visitor<'de> for Visitor<MAX, T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut list = Vec::new();
            while let Some(element) = seq.next_element()? {
                if list.len() == MAX {
                    return Err(serde::de::Error::invalid_length(MAX + 1, &self));
                }
                list.push(element);
            }
            Ok(list)
        }
    }
    deserializer.deserialize_seq(Visitor::<MAX, T>(PhantomData))
}

/// An enum that is encoded as the pair (tag, content): tags are the format, names are not.
macro_rules! tagged_enum {
    ($(#[$doc:meta])* pub enum $name:ident { $($(#[$vdoc:meta])* $tag:literal => $variant:ident($content:ty),)+ }) => {
        $(#[$doc])*
        pub enum $name { $($(#[$vdoc])* $variant($content),)+ }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeTuple as _;
                let mut tuple = serializer.serialize_tuple(2)?;
                match self {
                    $(Self::$variant(content) => {
                        tuple.serialize_element::<u8>(&$tag)?;
                        tuple.serialize_element(content)?;
                    })+
                }
                tuple.end()
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl<'de> serde::de::Visitor<'de> for Visitor {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!("(tag, content) of ", stringify!($name)))
                    }

                    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<$name, A::Error> {
                        use serde::de::Error as _;
                        let tag: u8 = seq.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
                        match tag {
                            $($tag => Ok($name::$variant(
                                seq.next_element()?.ok_or_else(|| A::Error::invalid_length(1, &self))?,
                            )),)+
                            other => Err(A::Error::custom(format!("unknown tag {other} of {}", stringify!($name)))),
                        }
                    }
                }
                deserializer.deserialize_tuple(2, Visitor)
            }
        }
    };
}
pub(crate) use tagged_enum;
