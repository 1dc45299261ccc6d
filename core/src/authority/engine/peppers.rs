//! Peppers: which nodes check passwords of others, who has a share of which pepper, and who should.

use std::collections::{BTreeMap, BTreeSet};

use super::log::ActIx;
use super::{Authority, Policy};
use crate::hlc::Hlc;
use crate::id::{AuthorKey, ExchangeKey, OpId, PepperId, SealedPepper};
use crate::op::{Act, PepperShares};

/// What is known of a pepper.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PepperInfo {
    /// The first act that shared it, with its time: the newest of several peppers is that with the greatest.
    pub since: (Hlc, OpId),
    /// The keys that know it: of those who shared it, and those with which it was ever shared, also by acts that count no more.
    pub holders: BTreeSet<AuthorKey>,
    /// The keys with a share that counts.
    pub shared: BTreeSet<AuthorKey>,
}

impl Authority {
    fn shares_in(&self, ix: ActIx) -> Option<&PepperShares> {
        match self.log.act(ix).act() {
            Some(Act::Pepper(shares)) => Some(shares),
            Some(_) | None => None,
        }
    }

    /// Returns the shares of a pepper for a node, those that count first. Who shared it may have sealed something else.
    #[must_use]
    pub fn pepper_shares(&self, pepper: PepperId, node: AuthorKey) -> Vec<(ExchangeKey, SealedPepper)> {
        let mut acts = self.log.peppers.get(&pepper).cloned().unwrap_or_default();
        acts.sort_by_key(|ix| (!self.log.act(*ix).is_effective(), self.log.act(*ix).header.hlc, self.log.act(*ix).id));
        let shares = acts.into_iter().filter_map(|ix| self.shares_in(ix));
        let own = shares.filter_map(|all| {
            let at = all.shares.binary_search_by_key(&node, |share| share.node).ok()?;
            Some((all.sealed_with, all.shares.get(at)?.sealed))
        });
        own.collect()
    }

    pub(super) fn peppers(&self) -> BTreeMap<PepperId, PepperInfo> {
        let info = |acts: &Vec<ActIx>| {
            let since = acts.iter().map(|ix| (self.log.act(*ix).header.hlc, self.log.act(*ix).id)).min()?;
            let (mut holders, mut shared) = (BTreeSet::new(), BTreeSet::new());
            for ix in acts {
                let nodes =
                    || self.shares_in(*ix).into_iter().flat_map(|all| all.shares.iter().map(|share| share.node));
                holders.insert(self.log.act(*ix).header.author);
                holders.extend(nodes());
                if self.log.act(*ix).is_effective() {
                    shared.extend(nodes());
                }
            }
            Some(PepperInfo { since, holders, shared })
        };
        self.log.peppers.iter().filter_map(|(pepper, acts)| Some((*pepper, info(acts)?))).collect()
    }

    /// Returns the member keys whose principals have the duty to act for others, somewhere, with the time at which that ends.
    pub(super) fn acting(&self, counts: impl Fn(ActIx) -> bool) -> BTreeMap<AuthorKey, Option<Hlc>> {
        let end = |ix: ActIx| self.log.act(ix).statement().and_then(|statement| statement.not_after);
        let mut acting: BTreeMap<AuthorKey, Option<Hlc>> = BTreeMap::new();
        for (key, members) in &self.log.members {
            for member in members.iter().copied().filter(|ix| counts(*ix)) {
                let Some(principal) = self.log.act(member).statement().map(|statement| statement.to) else { continue };
                let duties = self.log.duties_to_act(principal).filter(|duty| duty.parts().all(&counts));
                for until in duties.map(|duty| duty.parts().chain([member]).filter_map(end).min()) {
                    // None is for good.
                    let latest = acting.get(key).is_none_or(|other| match (other, until) {
                        (None, _) => false,
                        (Some(_), None) => true,
                        (Some(other), Some(until)) => until > *other,
                    });
                    if latest {
                        acting.insert(*key, until);
                    }
                }
            }
        }
        acting
    }
}

impl Policy {
    /// Returns whether a key is that of a node that acts for others, somewhere, and so checks passwords.
    #[must_use]
    pub fn acts_for_others(&self, key: AuthorKey, now: Hlc) -> bool {
        self.acting.get(&key).is_some_and(|end| super::policy::lasts(*end, now))
    }

    /// Returns the keys of those nodes.
    pub fn acting(&self, now: Hlc) -> impl Iterator<Item = AuthorKey> + '_ {
        self.acting.iter().filter(move |(_, end)| super::policy::lasts(**end, now)).map(|(key, _)| *key)
    }

    /// Returns what is known of a pepper.
    #[must_use]
    pub fn pepper(&self, pepper: PepperId) -> Option<&PepperInfo> {
        self.peppers.get(&pepper)
    }

    /// Returns the peppers that no key knows but those of nodes that act for others now, the newest first.
    #[must_use]
    pub fn fit_peppers(&self, now: Hlc) -> Vec<PepperId> {
        let fit = self.peppers.iter().filter(|(pepper, _)| !self.is_exposed(**pepper, now));
        let mut fit: Vec<_> = fit.map(|(pepper, info)| (info.since, *pepper)).collect();
        fit.sort();
        fit.into_iter().rev().map(|(_, pepper)| pepper).collect()
    }

    /// Returns whether somebody knows a pepper who acts for others no longer: who has it can try guesses at the passwords under it.
    #[must_use]
    pub fn is_exposed(&self, pepper: PepperId, now: Hlc) -> bool {
        let info = self.peppers.get(&pepper);
        info.is_some_and(|info| info.holders.iter().any(|holder| !self.acts_for_others(*holder, now)))
    }

    /// Returns the peppers of the passwords whose time is not over, each with their number.
    #[must_use]
    pub fn peppers_in_use(&self, now: Hlc) -> BTreeMap<PepperId, usize> {
        let mut used = BTreeMap::new();
        for password in self.all_passwords().filter(|it| self.token(&it.verifier, now).is_some()) {
            *used.entry(password.hash.pepper).or_default() += 1;
        }
        used
    }

    /// Returns the nodes that act for others and have no share of a pepper that counts.
    #[must_use]
    pub fn lacking(&self, pepper: PepperId, now: Hlc) -> BTreeSet<AuthorKey> {
        let shared = self.peppers.get(&pepper).map(|info| &info.shared);
        self.acting(now).filter(|key| !shared.is_some_and(|shared| shared.contains(key))).collect()
    }
}
