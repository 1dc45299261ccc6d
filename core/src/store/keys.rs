//! Keys.

/// Names in the keyspace `meta`.
pub mod meta {
    /// Version of the layout of keys and values, u32 big-endian, without an envelope.
    pub const SCHEMA: &str = "schema";
}
