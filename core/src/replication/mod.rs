//! The replication protocol, sans-io.
