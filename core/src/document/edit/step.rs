//! The writes of a planned edit. A plan is made from reads alone, so an edit that is refused has written nothing.

use automerge::transaction::{Transactable, Transaction};
use automerge::{ObjId, ObjType, Prop, ReadDoc, ScalarValue, hydrate};

use super::error::EditError;

/// One write. Indices are those at the moment when the step is its list's turn: plans go through a list from its end.
pub(super) enum Step {
    /// Fills an empty document.
    Create(hydrate::Map),
    Write {
        object: ObjId,
        prop: Prop,
        value: hydrate::Value,
    },
    Delete {
        object: ObjId,
        prop: Prop,
    },
    Increment {
        object: ObjId,
        prop: Prop,
        by: i64,
    },
    SpliceList {
        list: ObjId,
        index: usize,
        delete: usize,
        insert: Vec<hydrate::Value>,
    },
    /// Several splices of one text, from its end; afterwards it must read as `expected`, where that is known.
    SpliceText {
        text: ObjId,
        splices: Vec<TextSplice>,
        expected: Option<String>,
    },
}

/// Replaces code points of a text.
pub(super) struct TextSplice {
    pub(super) index: usize,
    pub(super) delete: usize,
    pub(super) insert: String,
}

pub(super) fn run(tx: &mut Transaction<'_>, steps: Vec<Step>) -> Result<(), EditError> {
    for step in steps {
        match step {
            Step::Create(map) => tx.init_root_from_hydrate(&map)?,
            Step::Write { object, prop, value: hydrate::Value::Scalar(scalar) } => put(tx, &object, prop, scalar)?,
            Step::Write { object, prop, value } => {
                tx.batch_create_object(&object, prop, &value, false)?;
            }
            Step::Delete { object, prop } => tx.delete(&object, prop)?,
            Step::Increment { object, prop, by } => tx.increment(&object, prop, by)?,
            Step::SpliceList { list, index, delete, insert } => {
                tx.splice(&list, index, delete.cast_signed(), insert)?;
            }
            Step::SpliceText { text, splices, expected } => {
                for splice in &splices {
                    tx.splice_text(&text, splice.index, splice.delete.cast_signed(), &splice.insert)?;
                }
                if let Some(expected) = expected {
                    // A text of another program may have elements of several code points, which delete as one.
                    if tx.text(&text)? != expected {
                        let length = tx.length(&text);
                        tx.splice_text(&text, 0, length.cast_signed(), &expected)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Automerge takes a put for no change if the values compare equal; of a counter that only looks at its number.
fn put(tx: &mut Transaction<'_>, object: &ObjId, prop: Prop, scalar: ScalarValue) -> Result<(), EditError> {
    debug_assert!(tx.object_type(object).is_ok_and(|kind| kind != ObjType::Text), "texts are spliced");
    Ok(tx.put(object, prop, scalar)?)
}
