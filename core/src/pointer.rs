//! JSON pointers.

use std::fmt;
use std::str::FromStr;

use crate::limits;

/// A JSON pointer (RFC 6901): the way from the root of a value to a place in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Pointer(Vec<String>);

/// Why a text is no usable JSON pointer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PointerError {
    /// It is not empty and does not begin with a slash.
    #[error("a JSON pointer is empty or begins with '/'")]
    NoSlash,
    /// `~` is followed by something else than 0 or 1.
    #[error("in a JSON pointer '~' is written ~0 and '/' is written ~1")]
    Escape,
    /// It leads deeper than documents go.
    #[error("the JSON pointer is deeper than {} steps", limits::DOC_DEPTH_MAX)]
    TooDeep,
    /// A step is longer than keys may be.
    #[error("a step of the JSON pointer is longer than {} bytes", limits::DOC_KEY_BYTES_MAX)]
    StepTooLong,
}

impl Pointer {
    /// The root.
    pub const ROOT: Self = Self(Vec::new());

    /// Returns the steps from the root, unescaped.
    #[must_use]
    pub fn steps(&self) -> &[String] {
        &self.0
    }

    /// Returns the pointer to the container and the last step; `None` for the root.
    #[must_use]
    pub fn split_last(&self) -> Option<(&[String], &str)> {
        self.0.split_last().map(|(last, parents)| (parents, last.as_str()))
    }

    /// Returns whether this pointer leads to `other` or to something that contains it.
    #[must_use]
    pub fn is_prefix_of(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }

    /// Adds a step.
    pub fn push(&mut self, step: impl Into<String>) {
        self.0.push(step.into());
    }

    /// Takes the last step away.
    pub fn pop(&mut self) {
        self.0.pop();
    }
}

impl FromStr for Pointer {
    type Err = PointerError;

    fn from_str(text: &str) -> Result<Self, PointerError> {
        if text.is_empty() {
            return Ok(Self::ROOT);
        }
        let steps = text.strip_prefix('/').ok_or(PointerError::NoSlash)?;
        let mut pointer = Self::ROOT;
        for step in steps.split('/') {
            if pointer.0.len() == limits::DOC_DEPTH_MAX {
                return Err(PointerError::TooDeep);
            }
            let step = unescape(step)?;
            if step.len() > limits::DOC_KEY_BYTES_MAX {
                return Err(PointerError::StepTooLong);
            }
            pointer.0.push(step);
        }
        Ok(pointer)
    }
}

fn unescape(step: &str) -> Result<String, PointerError> {
    let mut text = String::with_capacity(step.len());
    let mut chars = step.chars();
    while let Some(char) = chars.next() {
        text.push(match (char, char == '~') {
            (_, true) => match chars.next() {
                Some('0') => '~',
                Some('1') => '/',
                _ => return Err(PointerError::Escape),
            },
            (char, false) => char,
        });
    }
    Ok(text)
}

/// Writes one step with its slash, escaped.
pub(crate) fn write_step(out: &mut impl fmt::Write, step: &str) -> fmt::Result {
    out.write_char('/')?;
    for char in step.chars() {
        match char {
            '~' => out.write_str("~0")?,
            '/' => out.write_str("~1")?,
            char => out.write_char(char)?,
        }
    }
    Ok(())
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| write_step(f, step))
    }
}
