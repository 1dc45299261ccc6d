//! Actions on documents and collections, and what the built-in roles allow.

use crate::op::{BuiltInRole, Role, WriteAction};

/// What somebody wants to do with a collection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Action {
    /// Read documents, their history and queries over them. Enforced where data leaves; never a verdict.
    Read,
    /// Begin a document.
    Create,
    /// Change a document.
    Update,
    /// Delete a document.
    Delete,
    /// Configure the collection and give rights on it.
    Administer,
}

impl From<WriteAction> for Action {
    fn from(action: WriteAction) -> Self {
        match action {
            WriteAction::Create => Self::Create,
            WriteAction::Update => Self::Update,
            WriteAction::Delete => Self::Delete,
        }
    }
}

/// A set of actions.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Actions(u8);

impl Actions {
    /// No action.
    pub const NONE: Self = Self(0);

    const fn bit(action: Action) -> u8 {
        match action {
            Action::Read => 1,
            Action::Create => 2,
            Action::Update => 4,
            Action::Delete => 8,
            Action::Administer => 16,
        }
    }

    /// Returns the actions that a role allows.
    #[must_use]
    pub fn of_role(role: &Role) -> Self {
        use Action::{Administer, Create, Delete, Read, Update};
        let actions: &[Action] = match role {
            Role::BuiltIn(BuiltInRole::Admin) => &[Read, Create, Update, Delete, Administer],
            Role::BuiltIn(BuiltInRole::Editor) => &[Read, Create, Update, Delete],
            Role::BuiltIn(BuiltInRole::Reader) => &[Read],
        };
        actions.iter().copied().collect()
    }

    /// Returns the actions of both sets.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the actions that are in this set only.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns whether all actions of `other` are in this set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns whether the sets share an action.
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl From<Action> for Actions {
    fn from(action: Action) -> Self {
        Self(Self::bit(action))
    }
}

impl FromIterator<Action> for Actions {
    fn from_iter<I: IntoIterator<Item = Action>>(actions: I) -> Self {
        actions.into_iter().fold(Self::NONE, |set, action| set.union(action.into()))
    }
}
