//! The SDK: an embedded node and a remote client.
