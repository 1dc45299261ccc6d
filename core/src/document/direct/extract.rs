//! From Automerge's document to the tree of it.

use std::collections::BTreeMap;

use automerge::{
    ActorId as NativeActor, Automerge, ObjId, ObjType, ROOT as NATIVE_ROOT, ReadDoc as _, ScalarValueRef, ValueRef,
};

use super::tree::{Held, Id, Map, ROOT, Slot, Tree, Writer, owned};
use crate::document::json;
use crate::document::native::change_hash;
use crate::id::ActorId;
use crate::limits;

impl Tree {
    /// Returns the tree of a document, if it is one that a tree can hold.
    pub(super) fn of(doc: &Automerge) -> Option<Self> {
        let mut tree = Self { heads: doc.get_heads().iter().map(change_hash).collect(), ..Self::default() };
        tree.heads.sort_unstable();
        let mut places: BTreeMap<NativeActor, u32> = BTreeMap::new();
        for meta in doc.get_changes_meta(&[]) {
            tree.top = tree.top.max(meta.max_op);
            let place = match places.get(&*meta.actor) {
                Some(place) => *place,
                None => {
                    let place = tree.enter(&ActorId::from_slice(meta.actor.to_bytes())?)?;
                    places.insert(meta.actor.clone().into_owned(), place);
                    place
                }
            };
            let Writer { seq, last, .. } = tree.writers.get_mut(place as usize)?;
            if meta.seq > *seq {
                (*seq, *last) = (meta.seq, change_hash(&meta.hash));
            }
        }
        let id = |object: &ObjId| match object {
            ObjId::Root => Some(ROOT),
            ObjId::Id(counter, actor, _) => Some(Id { counter: *counter, writer: *places.get(actor)? }),
        };
        let mut open = vec![(NATIVE_ROOT, ROOT, 0)];
        while let Some((object, own, depth)) = open.pop() {
            let mut map = Map { depth, entries: BTreeMap::new() };
            for entry in doc.map_range(&object, ..) {
                if entry.conflict || depth >= limits::DOC_DEPTH_MAX {
                    return None;
                }
                let (native, key) = (entry.id(), entry.key.as_ref().into());
                let id = id(&native)?;
                let held = match &entry.value {
                    ValueRef::Scalar(ScalarValueRef::Unknown { .. }) | ValueRef::Object(ObjType::Table) => return None,
                    ValueRef::Scalar(scalar) => Held::Scalar(owned(scalar)),
                    ValueRef::Object(ObjType::Map) => {
                        open.push((native, id, depth + 1));
                        Held::Map
                    }
                    ValueRef::Object(ObjType::List) => {
                        Held::List(json::render_object(doc, &native, ObjType::List).into())
                    }
                    ValueRef::Object(ObjType::Text) => Held::Text(doc.text(&native).ok()?.into()),
                };
                map.entries.insert(key, Slot { id, held });
            }
            tree.maps.insert(own, map);
        }
        Some(tree)
    }
}
