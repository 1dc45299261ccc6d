//! Every bound of the project, with its reason. The intrinsic ones are part of the format and of the verdict
//! rule (`docs/format.md`): changing one needs a `rules` act. The local ones may differ between nodes.

use std::time::Duration;

// ---- intrinsic: part of the format ----

/// Version of the op format.
pub const OP_VERSION: u8 = 1;
/// Version of the verdict rules that this program judges by.
pub const RULES_VERSION: u32 = 1;
/// Encoded header. A group-signed op of 256 changes has about 20 KiB.
pub const HEADER_BYTES_MAX: usize = 64 << 10;
/// Transactions in one op.
pub const TRANSACTIONS_MAX: usize = 256;
/// Changes in one op, over all of its transactions.
pub const OP_CHANGES_MAX: usize = 256;
/// Bodies of one op together.
pub const OP_BODIES_BYTES_MAX: usize = 4 << 20;
/// What the encoding of an op adds to header and bodies: at most 24 bytes a body (its array, salt and length) and 80 for
/// the signature and the outer lengths.
pub const OP_FRAMING_BYTES_MAX: usize = 24 * OP_CHANGES_MAX + 80;
/// Encoded op.
pub const OP_BYTES_MAX: usize = HEADER_BYTES_MAX + OP_BODIES_BYTES_MAX + OP_FRAMING_BYTES_MAX;
/// One Automerge change.
pub const CHANGE_BYTES_MAX: usize = 1 << 20;
/// Operations in one Automerge change, summed from run lengths before decoding.
pub const CHANGE_OPS_MAX: u64 = 50_000;
/// Predecessors in one Automerge change.
pub const CHANGE_PREDS_MAX: u64 = 100_000;
/// Keys and mark names of one Automerge change together, written out: run lengths repeat one for nothing.
pub const CHANGE_KEY_BYTES_MAX: u64 = 16 << 20;
/// Dependencies of one Automerge change, and heads that a delete names.
pub const CHANGE_DEPS_MAX: usize = 1_024;
/// The time of a change, before or after 1970, in whatever unit its author counts: what JavaScript holds exactly. Automerge keeps the
/// differences of times, and panics at any later change if one of them overflows.
pub const CHANGE_TIME_MAX: u64 = 9_007_199_254_740_991;
/// Message inside an Automerge change.
pub const CHANGE_MESSAGE_BYTES_MAX: usize = 256;
/// Extra bytes at the end of an Automerge change.
pub const CHANGE_EXTRA_BYTES_MAX: usize = 64;
/// Nesting of objects in a document.
pub const DOC_DEPTH_MAX: usize = 100;
/// Key of a map in a document.
pub const DOC_KEY_BYTES_MAX: usize = 1 << 10;
/// Name of a collection.
pub const COLLECTION_NAME_BYTES_MAX: usize = 64;
/// Id of a document.
pub const DOC_ID_BYTES_MAX: usize = 256;
/// Shards of a collection.
pub const SHARDS_MAX: u16 = 1_024;
/// Control heads named by one op.
pub const CONTROL_HEADS_MAX: usize = 8;
/// Earlier sessions whose ends the first op of a stream names: the last one, and a few beside it that a lost end, a restored
/// or a copied node left behind. What does not fit is named by a later session.
pub const EARLIER_SESSIONS_MAX: usize = 8;
/// Statements in the proof of one act.
pub const PROOF_MAX: usize = 8;
/// Pins in one revocation, readmission or evidence (about 74 bytes each, so that they fit the header's bound).
pub const PINS_MAX: usize = 800;
/// Witnesses that have to agree, at the most, before one of them counts.
pub const WITNESSES_MAX: u8 = 100;
/// Owner keys of a genesis.
pub const OWNERS_MAX: usize = 16;
/// Labels of a member.
pub const MEMBER_LABELS_MAX: usize = 16;
/// Declared field types of a collection.
pub const FIELD_TYPES_MAX: usize = 256;
/// Text of the JSON Schema of a collection: with the field types it fits the header.
pub const SCHEMA_BYTES_MAX: usize = 32 << 10;
/// Bytes of the JSON pointer that names a field in a right or a declaration.
pub const FIELD_PATH_BYTES_MAX: usize = 512;
/// Fields that a right names.
pub const RIGHT_FIELDS_MAX: usize = 32;
/// Fields that a change declares. A new document declares each of its own.
pub const CHANGE_FIELDS_MAX: usize = 128;
/// Fields that the changes of an op declare together: each is held against each right of its principal.
pub const OP_FIELDS_MAX: usize = 4_096;
/// Documents that one act erases: their names fit the header.
pub const ERASE_DOCUMENTS_MAX: usize = 100;
/// Erasures that one receipt tells of.
pub const ERASED_ACTS_MAX: usize = 256;
/// Free text in an act (a name, a reason).
pub const ACT_TEXT_BYTES_MAX: usize = 256;
/// Memory that a password's hash may take, in KiB: what a log-in costs a node.
pub const PASSWORD_MEMORY_KIB_MAX: u32 = 256 << 10;
/// Passes that a password's hash may take.
pub const PASSWORD_PASSES_MAX: u32 = 16;
/// Acts that one withdrawal takes back.
pub const WITHDRAWN_ACTS_MAX: usize = 256;
/// Nodes for which one act shares a pepper (about 85 bytes each, so that they fit the header's bound).
pub const PEPPER_SHARES_MAX: usize = 256;
/// Ranks: −1 is recovery, 0 the owners; statements have 1 to this.
pub const RANK_MAX: i16 = 1_000;

// ---- local: a node's own protection ----

/// Ops further ahead of this node's clock are held, not judged, and never move the clock.
pub const CLOCK_AHEAD_MAX: Duration = Duration::from_secs(300);
/// Ops of one author that wait for something missing.
pub const PENDING_OPS_PER_AUTHOR_MAX: usize = 1_000;
/// Bytes of one author's ops that wait.
pub const PENDING_BYTES_PER_AUTHOR_MAX: usize = 4 << 20;
/// Bytes of all ops that wait.
pub const PENDING_BYTES_MAX: usize = 64 << 20;
/// JSON document given by a client.
pub const JSON_BYTES_MAX: usize = 5 << 20;
/// Nesting of JSON given by a client.
pub const JSON_DEPTH_MAX: usize = 64;
/// Keys of one JSON object given by a client.
pub const JSON_KEYS_MAX: usize = 10_000;
/// Values of one JSON text given by a client, 32 bytes of memory each; a document that holds more is refused at the edge.
pub const JSON_VALUES_MAX: usize = 500_000;
/// Schemas within a JSON Schema.
pub const SCHEMA_NODES_MAX: usize = 1_000;
/// Schemas that lead to one another, from the whole to the last one: each takes stack.
pub const SCHEMA_DEPTH_MAX: usize = 64;
/// Parts of a JSON Schema with its references written out.
pub const SCHEMA_PARTS_MAX: u64 = 10_000;
/// Regular expressions of a JSON Schema.
pub const SCHEMA_PATTERNS_MAX: usize = 64;
/// Each of them.
pub const SCHEMA_PATTERN_BYTES_MAX: usize = 1_000;
/// The same, compiled.
pub const SCHEMA_REGEX_COMPILED_BYTES_MAX: usize = 256 << 10;
/// Parts of a schema times values of a document that is held against it: about a second.
pub const SCHEMA_STEPS_MAX: u64 = 50_000_000;
/// What is told of all that is wrong with a document.
pub const SCHEMA_VIOLATIONS_MAX: usize = 100;
/// Schemas that a node keeps ready for use.
pub const SCHEMAS_COMPILED_MAX: usize = 64;
/// Conditions of a query, with the values that are compared with.
pub const QUERY_CONDITIONS_MAX: usize = 1_000;
/// Nesting of a query's conditions.
pub const QUERY_DEPTH_MAX: usize = 16;
/// A regular expression in a query.
pub const QUERY_REGEX_BYTES_MAX: usize = 1_000;
/// The same, compiled.
pub const QUERY_REGEX_COMPILED_BYTES_MAX: usize = 256 << 10;
/// Places by which a query sorts or groups.
pub const QUERY_SORTS_MAX: usize = 4;
/// Places that a query shows, and values that it computes.
pub const QUERY_FIELDS_MAX: usize = 100;
/// Documents of one page of a query.
pub const QUERY_PAGE_MAX: usize = 1_000;
/// Groups of one query.
pub const QUERY_GROUPS_MAX: usize = 10_000;
/// Bytes of the values of groups that are kept while a query runs.
pub const QUERY_GROUP_BYTES_MAX: usize = 16 << 20;
/// Secondary indexes of a collection.
pub const INDEXES_MAX: usize = 16;
/// Unique constraints of a collection.
pub const UNIQUE_MAX: usize = 8;
/// Fields of a unique constraint.
pub const UNIQUE_FIELDS_MAX: usize = 4;
/// Name of an index.
pub const INDEX_NAME_BYTES_MAX: usize = 64;
/// Places of an index.
pub const INDEX_FIELDS_MAX: usize = 4;
/// Operations of one JSON patch or edit.
pub const EDIT_OPS_MAX: usize = 10_000;
/// File of Automerge that a client brings.
pub const AUTOMERGE_FILE_BYTES_MAX: usize = 8 << 20;
/// Its columns unpacked, and its keys with repetitions written out.
pub const AUTOMERGE_UNPACKED_BYTES_MAX: usize = 16 << 20;
/// Operations of its history.
pub const AUTOMERGE_OPS_MAX: u64 = 500_000;
/// Changes of its history.
pub const AUTOMERGE_CHANGES_MAX: u64 = 50_000;
/// Actors of its history.
pub const AUTOMERGE_ACTORS_MAX: u64 = 1_000;
/// File of Automerge that a client is given.
pub const AUTOMERGE_GIVEN_BYTES_MAX: usize = 16 << 20;
/// Concurrent heads of a document above which the node writes an empty merge change.
pub const DOC_HEADS_MAX: usize = 64;
/// A group-signed op closes at this many bytes of bodies.
pub const GROUP_BYTES_MAX: usize = 64 << 10;
/// Documents that one record of the audit log names.
pub const AUDIT_DOCUMENTS_MAX: usize = 100;
/// Statements that it names.
pub const AUDIT_STATEMENTS_MAX: usize = 8;
/// Each of its texts.
pub const AUDIT_TEXT_BYTES_MAX: usize = 256;
/// Encoded record of the audit log.
pub const AUDIT_RECORD_BYTES_MAX: usize = 32 << 10;
/// Checkpoint of an audit log with its signatures.
pub const AUDIT_NOTE_BYTES_MAX: usize = 16 << 10;
/// Countersignatures of peers on it.
pub const AUDIT_COSIGNATURES_MAX: usize = 32;
/// File that proves a record or an op.
pub const AUDIT_PROOF_BYTES_MAX: usize = 4 << 20;
/// Acts in a proof of an op.
pub const AUDIT_PROOF_ACTS_MAX: usize = 8_192;
/// Streams of acts in a proof of an op: what a checker keeps for each act grows with them.
pub const AUDIT_PROOF_STREAMS_MAX: usize = 1_024;
