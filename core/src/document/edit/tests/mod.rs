use automerge::{ActorId, Automerge, ChangeHash};

use super::*;
use crate::document::json::{parse, render};
use crate::op::{FieldDeclaration, FieldKind};

mod ops;
mod patches;
mod put;
mod sequences;

/// A document under test, edited by one actor.
fn empty(actor: u8) -> Automerge {
    Automerge::new().with_actor(ActorId::from([actor; 16]))
}

fn value(text: &str) -> Value {
    parse(text.as_bytes()).unwrap()
}

fn document(text: &str) -> Automerge {
    let mut doc = empty(1);
    put(&mut doc, text);
    doc
}

fn edit_at(
    doc: &mut Automerge,
    base: Option<&[ChangeHash]>,
    edit: &Edit,
    types: &FieldTypes,
) -> Result<Applied, EditError> {
    let mut tx = doc.transaction();
    match apply(&mut tx, base, edit, types) {
        Ok(applied) => {
            tx.commit();
            Ok(applied)
        }
        Err(error) => {
            tx.rollback();
            Err(error)
        }
    }
}

fn put(doc: &mut Automerge, text: &str) -> usize {
    edit_at(doc, None, &Edit::Put(value(text)), &FieldTypes::none()).unwrap().operations
}

fn put_at(doc: &mut Automerge, base: &[ChangeHash], text: &str) -> usize {
    edit_at(doc, Some(base), &Edit::Put(value(text)), &FieldTypes::none()).unwrap().operations
}

fn parsed(format: EditFormat, text: &str) -> Edit {
    Edit::parse(format, text.as_bytes()).unwrap()
}

fn ops(doc: &mut Automerge, text: &str) -> Result<Applied, EditError> {
    edit_at(doc, None, &parsed(EditFormat::Ops, &format!("{{\"ops\":[{text}]}}")), &FieldTypes::none())
}

fn types(declarations: &[(&str, FieldKind)]) -> FieldTypes {
    let declaration =
        |(pointer, kind): &(&str, FieldKind)| FieldDeclaration { pointer: (*pointer).to_owned(), kind: *kind };
    FieldTypes::new(&declarations.iter().map(declaration).collect::<Vec<_>>())
}

/// What a check of errors looks at.
fn refusal(error: &EditError) -> (EditErrorKind, &str, Option<usize>) {
    (error.kind, error.pointer.as_str(), error.operation)
}
