//! What everybody may do now, taken out of the engine: for those who ask often and elsewhere than on the replica's thread.

use std::collections::BTreeMap;

use super::Authority;
use super::ask::Readable;
use super::log::ActIx;
use super::peppers::PepperInfo;
use crate::hlc::Hlc;
use crate::id::{AuthorKey, CollectionName, DocId, OpId, PepperId, PrincipalId, TokenVerifier};
use crate::op::{Act, Action, Actions, Documents, FieldRights, PasswordHash, PrincipalKind, Rights, Secret, Target};

/// What everybody may do, by the acts that count now. It never changes: a new act makes a new policy.
///
/// None of this is a verdict; see [`Authority::may`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    principals: BTreeMap<PrincipalId, Entry>,
    /// By verifier those that share it, by statement: two nodes may say the same of somebody without knowing of each other.
    tokens: BTreeMap<TokenVerifier, Vec<CurrentToken>>,
    passwords: BTreeMap<PrincipalId, Vec<Password>>,
    /// Keys of nodes that act for others, and until when.
    pub(super) acting: BTreeMap<AuthorKey, Option<Hlc>>,
    pub(super) peppers: BTreeMap<PepperId, PepperInfo>,
}

/// A password that counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Password {
    /// What tells it; also the name of the [`CurrentToken`].
    pub verifier: TokenVerifier,
    /// How it is hashed.
    pub hash: PasswordHash,
    /// The statement that set it.
    pub statement: OpId,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Entry {
    name: String,
    kind: PrincipalKind,
    not_after: Option<Hlc>,
    rights: Vec<Right>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Right {
    rights: Rights,
    target: Target,
    not_after: Option<Hlc>,
}

/// A token that counts: until its time, within its limits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CurrentToken {
    /// The statement that made it.
    pub statement: OpId,
    /// Whose it is.
    pub principal: PrincipalId,
    /// What of the principal's rights it gives.
    pub limits: TokenLimits,
    /// When it ends.
    pub not_after: Option<Hlc>,
}

/// What of a principal's rights a token gives: no more than these actions, on no more than these documents.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenLimits {
    /// The actions.
    pub actions: Actions,
    /// Where.
    pub target: Target,
}

impl TokenLimits {
    /// All that the principal may.
    #[must_use]
    pub fn none() -> Self {
        Self { actions: Actions::ALL, target: Target::everything() }
    }

    /// Returns whether the token gives this action on some fields of a document, or without one of each of the collection;
    /// [`Target::fields`] tells which.
    #[must_use]
    pub fn reach(&self, action: Action, collection: &CollectionName, doc: Option<&DocId>) -> bool {
        self.actions.has(action) && self.target.reaches(collection, doc)
    }

    /// Returns whether the token gives this action on a whole document, or without one on the whole collection.
    #[must_use]
    pub fn allow(&self, action: Action, collection: &CollectionName, doc: Option<&DocId>) -> bool {
        self.actions.has(action) && self.target.covers(collection, doc)
    }

    /// Returns whether the token gives this action on everything.
    #[must_use]
    pub fn allow_everywhere(&self, action: Action) -> bool {
        self.actions.has(action) && self.target.is_everything()
    }

    /// Returns which of the readable documents of a collection the token lets its holder read.
    #[must_use]
    pub fn narrow(&self, readable: Readable, collection: &CollectionName) -> Readable {
        if !self.actions.has(Action::Read) || !self.target.touches(collection) {
            return Readable::Nothing;
        }
        match &self.target.documents {
            Documents::All => readable,
            Documents::Prefix(prefix) => readable.within(prefix),
        }
    }
}

pub(super) fn lasts(end: Option<Hlc>, now: Hlc) -> bool {
    end.is_none_or(|end| now <= end)
}

impl Right {
    fn reaches(&self, holder: PrincipalId, action: Action, collection: &CollectionName, doc: Option<&DocId>) -> bool {
        let owns = || doc.is_some_and(|doc| holder.owns(doc));
        self.target.reaches(collection, doc) && self.rights.allow(action, self.target.is_everything(), owns)
    }
}

impl Policy {
    fn rights(&self, principal: PrincipalId, now: Hlc) -> impl Iterator<Item = &Right> {
        let entry = self.principals.get(&principal);
        entry.into_iter().flat_map(|entry| &entry.rights).filter(move |right| lasts(right.not_after, now))
    }

    /// Returns a principal's name for people; none if it was never introduced, or was removed.
    #[must_use]
    pub fn name(&self, principal: PrincipalId) -> Option<&str> {
        self.principals.get(&principal).map(|entry| entry.name.as_str())
    }

    /// Returns what a principal is; none if it was never introduced, was removed, or its time is over.
    #[must_use]
    pub fn kind(&self, principal: PrincipalId, now: Hlc) -> Option<PrincipalKind> {
        self.principals.get(&principal).filter(|entry| lasts(entry.not_after, now)).map(|entry| entry.kind)
    }

    /// Returns the principals of this name whose time is not over, by id.
    pub fn named(&self, name: &str, now: Hlc) -> impl Iterator<Item = (PrincipalId, PrincipalKind)> {
        let named = self.principals.iter().filter(move |(_, entry)| entry.name == name && lasts(entry.not_after, now));
        named.map(|(id, entry)| (*id, entry.kind))
    }

    /// Returns the token with this verifier, if it counts and its time is not over. Of several that with the smallest statement,
    /// so that all nodes that know them agree.
    #[must_use]
    pub fn token(&self, verifier: &TokenVerifier, now: Hlc) -> Option<&CurrentToken> {
        self.tokens.get(verifier)?.iter().find(|token| lasts(token.not_after, now))
    }

    /// Returns the passwords of a principal, those whose time is over included.
    #[must_use]
    pub fn passwords(&self, principal: PrincipalId) -> &[Password] {
        self.passwords.get(&principal).map_or(&[], Vec::as_slice)
    }

    pub(super) fn all_passwords(&self) -> impl Iterator<Item = &Password> {
        self.passwords.values().flatten()
    }

    /// Returns whether a principal may do something now: to a whole document, or without one to the collection as a whole.
    #[must_use]
    pub fn may(
        &self,
        principal: PrincipalId,
        action: Action,
        collection: &CollectionName,
        doc: Option<&DocId>,
        now: Hlc,
    ) -> bool {
        let mut rights = self.rights(principal, now).filter(|right| right.target.fields.is_all());
        rights.any(|right| right.reaches(principal, action, collection, doc))
    }

    /// Returns to which fields of a document a principal may do something now, or without one of each of the collection.
    #[must_use]
    pub fn fields(
        &self,
        principal: PrincipalId,
        action: Action,
        collection: &CollectionName,
        doc: Option<&DocId>,
        now: Hlc,
    ) -> FieldRights {
        let rights = self.rights(principal, now).filter(|right| right.reaches(principal, action, collection, doc));
        FieldRights::any_of(rights.map(|right| right.target.fields.clone()))
    }

    /// Returns whether a principal sees each document of a collection wholly now or not at all.
    #[must_use]
    pub fn sees_whole(&self, principal: PrincipalId, collection: &CollectionName, now: Hlc) -> bool {
        let mut rights = self.rights(principal, now).filter(|right| right.target.touches(collection));
        rights.all(|right| {
            let reads = right.rights.actions.has(Action::Read) || right.rights.own_actions.has(Action::Read);
            !reads || right.target.fields.is_all()
        })
    }

    /// Returns whether a principal may do something to everything there is now.
    #[must_use]
    pub fn may_everywhere(&self, principal: PrincipalId, action: Action, now: Hlc) -> bool {
        self.rights(principal, now).any(|right| right.rights.actions.has(action) && right.target.is_everything())
    }

    /// Returns whether a principal may do something to some documents of a collection, its own or others'.
    #[must_use]
    pub fn may_somewhere(&self, principal: PrincipalId, action: Action, collection: &CollectionName, now: Hlc) -> bool {
        self.rights(principal, now)
            .filter(|right| right.target.touches(collection))
            .any(|right| right.rights.actions.has(action) || right.rights.own_actions.has(action))
    }

    /// Returns which documents of a collection a principal may read now, at least in part: [`Self::fields`] tells which.
    #[must_use]
    pub fn readable(&self, principal: PrincipalId, collection: &CollectionName, now: Hlc) -> Readable {
        let own = principal.own_prefix();
        let mut prefixes: Vec<String> = Vec::new();
        for right in self.rights(principal, now).filter(|right| right.target.touches(collection)) {
            let all = right.rights.actions.has(Action::Read);
            if !(all || right.rights.own_actions.has(Action::Read)) {
                continue;
            }
            match &right.target.documents {
                Documents::All if all => return Readable::All,
                Documents::All => prefixes.push(own.clone()),
                Documents::Prefix(prefix) if all || prefix.starts_with(&own) => prefixes.push(prefix.clone()),
                // Its own, if the target has room for them.
                Documents::Prefix(prefix) => prefixes.extend(own.starts_with(prefix.as_str()).then(|| own.clone())),
            }
        }
        Readable::of_prefixes(prefixes)
    }
}

impl Authority {
    /// Returns what everybody may do now. Takes time and memory in proportion to the principals and grants; who asks often
    /// compares [`Self::revision`] first.
    #[must_use]
    pub fn policy(&self) -> Policy {
        // Time is not asked here: what ends is told with its end.
        let counts = |ix: ActIx| self.in_force(ix, Hlc::ZERO);
        let mut policy = Policy { acting: self.acting(counts), peppers: self.peppers(), ..Policy::default() };
        // The owners' principal stays who it was introduced as when other keys become the owners.
        let told = |ix: &ActIx| counts(*ix) || self.log.act(*ix).header.is_genesis();
        for ix in (0..self.log.acts.len()).map(ActIx).filter(|ix| self.log.act(*ix).is_potential() && told(ix)) {
            let record = self.log.act(ix);
            let Some(act) = record.act() else { continue };
            if let Some(introduced) = act.introduces(record.id) {
                let (principal, name, kind) = (introduced.principal, introduced.name.to_owned(), introduced.kind);
                let rights = self.log.rights_of(principal).filter(|right| right.parts().all(counts));
                let rights = rights.map(|right| {
                    let ends = right.parts().filter_map(|part| self.log.act(part).statement()?.not_after);
                    Right { rights: right.rights, target: right.target.clone(), not_after: ends.min() }
                });
                let not_after = record.statement().and_then(|statement| statement.not_after);
                policy.principals.insert(principal, Entry { name, kind, not_after, rights: rights.collect() });
            }
            if let Act::Token(token) = act {
                let limits = TokenLimits { actions: token.actions, target: token.target.clone() };
                let (statement, principal, not_after) = (record.id, token.principal, token.not_after);
                let alike = policy.tokens.entry(token.verifier).or_default();
                let place = alike.partition_point(|other| other.statement < statement);
                alike.insert(place, CurrentToken { statement, principal, limits, not_after });
                if let Secret::Password(hash) = token.secret {
                    let password = Password { verifier: token.verifier, hash, statement };
                    policy.passwords.entry(principal).or_default().push(password);
                }
            }
        }
        policy
    }
}
