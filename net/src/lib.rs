//! The libp2p shell around the replication engine.
