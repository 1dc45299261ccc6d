//! What can be done, and the roles that name sets of it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::codec::tagged_enum;
use super::header::WriteAction;
use crate::id::OpId;

/// What somebody wants to do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Action {
    /// Read documents, and query them. Enforced where data leaves; never a verdict.
    Read,
    /// Begin a document.
    Create,
    /// Change a document.
    Update,
    /// Delete a document.
    Delete,
    /// Read what documents were, and who changed them. Enforced where data leaves.
    History,
    /// Configure collections and give rights on them.
    Administer,
    /// Read the audit log of the cluster.
    Audit,
    /// Read metrics, alarms and the state of nodes.
    Monitor,
    /// Block, verify and repair nodes.
    Operate,
    /// Make backups.
    Backup,
    /// Erase documents for good.
    Erase,
}

/// Why a text names no action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown action")]
pub struct UnknownAction;

impl Action {
    /// All of them, in the order of their bits.
    pub const ALL: [Self; 11] = [
        Self::Read,
        Self::Create,
        Self::Update,
        Self::Delete,
        Self::History,
        Self::Administer,
        Self::Audit,
        Self::Monitor,
        Self::Operate,
        Self::Backup,
        Self::Erase,
    ];

    /// Returns the action's bit in [`Actions`]. These are the format.
    const fn bit(self) -> u16 {
        match self {
            Self::Read => 1,
            Self::Create => 1 << 1,
            Self::Update => 1 << 2,
            Self::Delete => 1 << 3,
            Self::History => 1 << 4,
            Self::Administer => 1 << 5,
            Self::Audit => 1 << 6,
            Self::Monitor => 1 << 7,
            Self::Operate => 1 << 8,
            Self::Backup => 1 << 9,
            Self::Erase => 1 << 10,
        }
    }

    /// Returns its name, as people and programs write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::History => "history",
            Self::Administer => "administer",
            Self::Audit => "audit",
            Self::Monitor => "monitor",
            Self::Operate => "operate",
            Self::Backup => "backup",
            Self::Erase => "erase",
        }
    }

    /// Returns whether the action is about the cluster and not about some collection: only a target that is everything gives
    /// a right to it.
    #[must_use]
    pub const fn is_of_cluster(self) -> bool {
        match self {
            Self::Audit | Self::Monitor | Self::Operate | Self::Backup => true,
            Self::Read
            | Self::Create
            | Self::Update
            | Self::Delete
            | Self::History
            | Self::Administer
            | Self::Erase => false,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Action {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|action| action.name() == text).ok_or(UnknownAction)
    }
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

/// A set of actions; on the wire a number, a bit for each.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Actions(u16);

impl Actions {
    /// No action.
    pub const NONE: Self = Self(0);
    /// Every action.
    pub const ALL: Self = Self((1 << 11) - 1);
    /// What can be done to single documents, and so to one's own.
    pub const OF_DOCUMENTS: Self = Self(
        Action::Read.bit() | Action::Create.bit() | Action::Update.bit() | Action::Delete.bit() | Action::History.bit(),
    );

    /// Returns the actions of both sets.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the actions that are in both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns whether all actions of `other` are in this set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns whether the action is in the set.
    #[must_use]
    pub const fn has(self, action: Action) -> bool {
        self.0 & action.bit() != 0
    }

    /// Returns the actions in the set.
    pub fn iter(self) -> impl Iterator<Item = Action> {
        Action::ALL.into_iter().filter(move |action| self.has(*action))
    }
}

impl From<Action> for Actions {
    fn from(action: Action) -> Self {
        Self(action.bit())
    }
}

impl FromIterator<Action> for Actions {
    fn from_iter<I: IntoIterator<Item = Action>>(actions: I) -> Self {
        actions.into_iter().fold(Self::NONE, |set, action| set.union(action.into()))
    }
}

impl Serialize for Actions {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.0)
    }
}

impl<'de> Deserialize<'de> for Actions {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let actions = Self(u16::deserialize(deserializer)?);
        if Self::ALL.contains(actions) {
            Ok(actions)
        } else {
            Err(serde::de::Error::custom(format!("unknown actions in {:#x}", actions.0)))
        }
    }
}

/// What a role allows.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Rights {
    /// On all of a grant's target.
    pub actions: Actions,
    /// On those documents of it whose ids begin with the prefix of whoever has the role
    /// ([`crate::id::PrincipalId::own_prefix`]).
    pub own_actions: Actions,
}

impl Rights {
    /// Returns whether they allow an action within a target: `everything` tells whether that is every document there is, `owned`
    /// whether what is asked for is an own document of whoever has them.
    #[must_use]
    pub fn allow(&self, action: Action, everything: bool, owned: impl FnOnce() -> bool) -> bool {
        self.actions.has(action) && (everything || !action.is_of_cluster()) || self.own_actions.has(action) && owned()
    }
}

tagged_enum! {
    /// A role: a named set of actions.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub enum Role {
        /// One that is part of the rules.
        0 => BuiltIn(BuiltInRole),
        /// One that the cluster has made, by the op of its act.
        1 => Custom(OpId),
    }
}

/// The roles that are part of the rules. Codes are the format.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum BuiltInRole {
    /// Everything, collections and statements included.
    Admin,
    /// Reads, creates, updates and deletes documents.
    Editor,
    /// Reads documents.
    Reader,
    /// Reads documents, and writes its own.
    Contributor,
    /// Reads documents, the audit log and the state of nodes.
    Auditor,
    /// Runs nodes and makes backups; reads no documents.
    Operator,
}

impl BuiltInRole {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 6] =
        [Self::Admin, Self::Editor, Self::Reader, Self::Contributor, Self::Auditor, Self::Operator];

    const fn code(self) -> u8 {
        match self {
            Self::Admin => 1,
            Self::Editor => 2,
            Self::Reader => 3,
            Self::Contributor => 4,
            Self::Auditor => 5,
            Self::Operator => 6,
        }
    }

    /// Returns its name, as people and programs write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Editor => "editor",
            Self::Reader => "reader",
            Self::Contributor => "contributor",
            Self::Auditor => "auditor",
            Self::Operator => "operator",
        }
    }

    /// Returns what the role allows.
    #[must_use]
    pub fn rights(self) -> Rights {
        use Action::{Audit, Backup, Create, Delete, History, Monitor, Operate, Read, Update};
        let of = |actions: &[Action]| actions.iter().copied().collect::<Actions>();
        let (actions, own_actions) = match self {
            Self::Admin => (Actions::ALL, Actions::NONE),
            Self::Editor => (Actions::OF_DOCUMENTS, Actions::NONE),
            Self::Reader => (of(&[Read, History]), Actions::NONE),
            Self::Contributor => (of(&[Read]), of(&[Create, Update, Delete, History])),
            Self::Auditor => (of(&[Read, History, Audit, Monitor]), Actions::NONE),
            Self::Operator => (of(&[Monitor, Operate, Backup]), Actions::NONE),
        };
        Rights { actions, own_actions }
    }
}

impl Serialize for BuiltInRole {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.code())
    }
}

impl<'de> Deserialize<'de> for BuiltInRole {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = u8::deserialize(deserializer)?;
        let role = Self::ALL.into_iter().find(|role| role.code() == code);
        role.ok_or_else(|| serde::de::Error::custom(format!("unknown role {code}")))
    }
}
