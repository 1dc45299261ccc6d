use std::collections::BTreeMap;

use crate::document::json::Pointer;
use crate::op::{FieldDeclaration, FieldKind};

/// The declared field types of a collection, ready for look-up while walking a document.
#[derive(Clone, Default, Debug)]
pub struct FieldTypes {
    root: Node,
}

#[derive(Clone, Default, Debug)]
struct Node {
    kind: Option<FieldKind>,
    keys: BTreeMap<String, Node>,
    /// What is declared for `*`, any key or index.
    any: Option<Box<Node>>,
}

impl FieldTypes {
    /// Collects declarations. One whose pointer is none is left out: declarations come from the control log, where
    /// they were admitted long ago, and must not make documents unwritable.
    #[must_use]
    pub fn new(declarations: &[FieldDeclaration]) -> Self {
        let mut types = Self::default();
        for declaration in declarations {
            let Ok(pointer) = declaration.pointer.parse::<Pointer>() else { continue };
            let mut node = &mut types.root;
            for step in pointer.steps() {
                node = match step.as_str() {
                    "*" => node.any.get_or_insert_default(),
                    key => node.keys.entry(key.to_owned()).or_default(),
                };
            }
            node.kind = Some(declaration.kind);
        }
        types
    }

    /// Nothing is declared.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    pub(super) fn root(&self) -> Place<'_> {
        let declared = self.root.any.is_some() || !self.root.keys.is_empty();
        Place { nodes: if declared { vec![&self.root] } else { Vec::new() } }
    }

    pub(super) fn at(&self, pointer: &[String]) -> Place<'_> {
        pointer.iter().fold(self.root(), |place, step| place.key(step))
    }
}

/// A place in documents, with what is declared for it and below. Several declarations may lead to the same place
/// (`/a/*` and `/*/b`); they are in order of precedence: a named step before `*`, from the root on.
#[derive(Clone, Debug)]
pub(super) struct Place<'a> {
    nodes: Vec<&'a Node>,
}

impl Place<'_> {
    /// Declared type of the value here.
    pub(super) fn kind(&self) -> Option<FieldKind> {
        self.nodes.iter().find_map(|node| node.kind)
    }

    /// Nothing is declared here or below.
    pub(super) fn is_plain(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(super) fn key(&self, key: &str) -> Self {
        let below = self.nodes.iter().flat_map(|node| node.keys.get(key).into_iter().chain(node.any.as_deref()));
        Self { nodes: below.collect() }
    }

    pub(super) fn index(&self, index: usize) -> Self {
        if self.is_plain() { Self { nodes: Vec::new() } } else { self.key(&index.to_string()) }
    }
}
