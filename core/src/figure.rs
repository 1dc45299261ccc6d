//! How much of something is kept in memory, beside its bound.

/// Something that a part of the node keeps, and how much of it there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Figure {
    /// What (stable, `snake_case`); a name in `_bytes` counts bytes, any other counts things.
    pub name: &'static str,
    /// How much there is; of what is kept for each peer, as much as the peer with the most has.
    pub held: usize,
    /// How much there may be.
    pub bound: usize,
}

impl Figure {
    /// Says how much of something there is and may be.
    #[must_use]
    pub const fn new(name: &'static str, held: usize, bound: usize) -> Self {
        Self { name, held, bound }
    }

    /// Returns whether the bound holds.
    #[must_use]
    pub const fn is_within(&self) -> bool {
        self.held <= self.bound
    }
}
