use std::fmt;

use crate::document::json::{Pointer, write_step};

/// Where in the document a walk is: costs nothing until an error needs its text.
#[derive(Clone, Copy)]
pub(super) enum Path<'a> {
    At(&'a [String]),
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl<'a> Path<'a> {
    pub(super) const ROOT: Self = Self::At(&[]);

    pub(super) fn of(pointer: &'a Pointer) -> Self {
        Self::At(pointer.steps())
    }

    /// Steps from the root.
    pub(super) fn depth(&self) -> usize {
        match self {
            Self::At(steps) => steps.len(),
            Self::Key(parent, _) | Self::Index(parent, _) => parent.depth() + 1,
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(steps) => steps.iter().try_for_each(|step| write_step(f, step)),
            Self::Key(parent, key) => {
                parent.fmt(f)?;
                write_step(f, key)
            }
            Self::Index(parent, index) => {
                parent.fmt(f)?;
                write!(f, "/{index}")
            }
        }
    }
}
