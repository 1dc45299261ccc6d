//! An op in its parts, for a store that keeps its bodies apart from its header.

use super::{Body, Header, WireOp};
use crate::op::codec;

/// Header with signature, and each body by itself, of an op that was checked before. Nothing is checked here.
#[derive(Debug)]
pub(crate) struct Apart {
    head: Vec<u8>,
    header: Header,
    bodies: Vec<Option<Vec<u8>>>,
}

/// Header bytes and signature.
#[derive(serde::Serialize, serde::Deserialize)]
struct Head(#[serde(with = "serde_bytes")] Vec<u8>, #[serde(with = "serde_bytes")] Option<Vec<u8>>);

impl Apart {
    /// Takes an encoded op apart; none if it is no data op.
    pub(crate) fn take(op: &[u8]) -> Option<Self> {
        let WireOp(header_bytes, signature, bodies) = rmp_serde::from_slice(op).ok()?;
        let header: Header = rmp_serde::from_slice(&header_bytes).ok()?;
        if bodies.is_empty() || header.changes().count() != bodies.len() {
            return None;
        }
        let bodies = bodies.into_iter().map(|body| body.map(|body| codec::encode(&body))).collect();
        Some(Self { head: codec::encode(&Head(header_bytes, signature)), header, bodies })
    }

    /// Begins with the head alone: the bodies follow one by one.
    pub(crate) fn of_head(head: &[u8]) -> Option<Self> {
        let Head(header_bytes, _) = rmp_serde::from_slice(head).ok()?;
        let header = rmp_serde::from_slice(&header_bytes).ok()?;
        Some(Self { head: head.to_vec(), header, bodies: Vec::new() })
    }

    /// Returns header bytes and signature, encoded.
    pub(crate) fn head(&self) -> &[u8] {
        &self.head
    }

    pub(crate) const fn header(&self) -> &Header {
        &self.header
    }

    /// Returns the bodies in the order of the header's changes, encoded; none where one is not here.
    pub(crate) fn bodies(&self) -> impl Iterator<Item = Option<&[u8]>> {
        self.bodies.iter().map(Option::as_deref)
    }

    pub(crate) fn push_body(&mut self, body: Option<&[u8]>) {
        self.bodies.push(body.map(<[u8]>::to_vec));
    }

    /// Returns the op's encoding; none if a part is not one.
    pub(crate) fn put_together(self) -> Option<Vec<u8>> {
        let Head(header_bytes, signature) = rmp_serde::from_slice(&self.head).ok()?;
        let bodies =
            self.bodies.into_iter().map(|body| body.map(|body| rmp_serde::from_slice::<Body>(&body)).transpose());
        let bodies: Vec<Option<Body>> = bodies.collect::<Result<_, _>>().ok()?;
        Some(codec::encode(&(
            serde_bytes::Bytes::new(&header_bytes),
            signature.as_deref().map(serde_bytes::Bytes::new),
            bodies,
        )))
    }
}
