//! Bare ops: given with the names of changes, taken with the changes that came in bulk.

use std::collections::BTreeMap;

use serde_bytes::ByteBuf;

use super::super::{Replica, read};
use super::{change_key, is_given};
use crate::document::gate;
use crate::id::{ChangeHash, DocId, Salt};
use crate::op::codec::{self, tagged_enum};
use crate::op::{Body, Op, WriteAction};
use crate::replication::StoredOp;
use crate::store::keys::DocKey;
use crate::store::{Keyspace, envelope};

tagged_enum! {
    /// A body of a bare op.
    #[derive(Clone, PartialEq, Debug)]
    pub enum BareBody {
        /// As it is, if it is here.
        0 => Whole(Option<Body>),
        /// Its salt, and the change that it is.
        1 => Named((Salt, ChangeHash)),
    }
}

/// Encoded header, signature, bodies.
#[derive(serde::Serialize, serde::Deserialize)]
struct BareOp(ByteBuf, Option<ByteBuf>, Vec<BareBody>);

impl Replica {
    /// Returns ops with the names of their changes instead of the changes, as far as these are handed over in bulk.
    pub(in super::super) fn bare(&self, ops: Vec<StoredOp>) -> Vec<StoredOp> {
        let mut given: BTreeMap<DocId, bool> = BTreeMap::new();
        ops.into_iter().map(|op| self.bare_op(op, &mut given)).collect()
    }

    fn bare_op(&self, op: StoredOp, given: &mut BTreeMap<DocId, bool>) -> StoredOp {
        let Ok(whole) = Op::decode(&op.bytes, self.identity.cluster) else { return op };
        let mut bodies = Vec::with_capacity(whole.bodies().len());
        for (change, body) in whole.header().changes().zip(whole.bodies()) {
            let is_given = *given.entry(change.doc.clone()).or_insert_with(|| {
                let key = DocKey { collection: whole.header().collection().clone(), doc: change.doc.clone() };
                read::read_view(&*self.store, &key).is_ok_and(|view| view.is_some_and(|view| is_given(&view)))
            });
            let named = body.as_ref().filter(|_| is_given && change.action != WriteAction::Delete).and_then(|body| {
                let scan = gate::prescan(&body.bytes).ok()?;
                Some(BareBody::Named((body.salt, scan.hash)))
            });
            bodies.push(named.unwrap_or_else(|| BareBody::Whole(body.clone())));
        }
        let signature = whole.signature().map(|signature| ByteBuf::from(signature.as_bytes().to_vec()));
        let bare = BareOp(ByteBuf::from(whole.header_bytes().to_vec()), signature, bodies);
        StoredOp { bytes: codec::encode(&bare).into(), ..op }
    }

    /// Puts the changes that were taken in bulk into bare ops; none if one of them is not here. Whether they are those that
    /// the headers commit to is seen when the ops are decoded.
    pub(in super::super) fn complete_ops(&self, ops: &[bytes::Bytes]) -> Vec<bytes::Bytes> {
        ops.iter().map(|op| self.complete(op)).collect::<Option<_>>().unwrap_or_default()
    }

    fn complete(&self, bare: &[u8]) -> Option<bytes::Bytes> {
        let BareOp(header, signature, bodies) = codec::decode(bare, crate::limits::OP_BYTES_MAX).ok()?;
        let mut whole: Vec<Option<Body>> = Vec::with_capacity(bodies.len());
        for body in bodies {
            whole.push(match body {
                BareBody::Whole(body) => body,
                BareBody::Named((salt, hash)) => {
                    let bytes = self.store.get(Keyspace::Pending, &change_key(&hash)).ok()??;
                    Some(Body { salt, bytes: envelope::open(bytes).ok()? })
                }
            });
        }
        let op = bytes::Bytes::from(codec::encode(&(header, signature, whole)));
        // A change that is not the one committed to is pulled, and nobody's fault but the document's giver.
        Op::decode(&op, self.identity.cluster).ok().map(|_| op)
    }
}
