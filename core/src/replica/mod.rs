//! A replica: streams, verdicts, documents and replication wired together, without I/O.
