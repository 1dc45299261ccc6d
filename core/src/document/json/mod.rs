//! JSON in and out: client JSON is parsed with bounds into [`Value`], documents are rendered to one canonical text.
//!
//! * Integers from −2⁶³ to 2⁶⁴−1 and floats are kept apart and exact; what fits neither is refused, not rounded.
//! * An object's keys are sorted by their UTF-8 bytes and never repeated.
//! * What JSON lacks is shown as: text as string, counter as number, timestamp as RFC 3339 in UTC with milliseconds,
//!   bytes as base64, a float that is not finite as null.
//!
//! `serde_json` is not used: it rounds big integers to floats, keeps the last of two equal keys, and names no pointer.

mod bytes;
mod number;
mod parse;
mod render;
mod timestamp;
mod value;
mod walk;
mod wanted;

#[cfg(test)]
pub(super) mod strategies;
#[cfg(test)]
mod tests;

pub(super) use crate::pointer::write_step;
pub use crate::pointer::{Pointer, PointerError};
pub use bytes::{decode as bytes_from_text, encode as bytes_to_text};
pub use parse::{Bounds, ParseError, ParseErrorKind, extract, parse, parse_within};
pub use render::{render, render_at, render_value};
pub(super) use render::{render_object, rendered};
pub use timestamp::{parse as timestamp_from_text, render as timestamp_to_text};
pub use value::Value;
pub(super) use walk::{Sink, object_value, owned_scalar_value, scalar_value};
pub use walk::{to_value, to_value_at};
pub use wanted::Wanted;
