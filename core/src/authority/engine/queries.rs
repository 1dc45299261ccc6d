//! What the rest of the program asks of the control log as it stands now. None of this is a verdict: where a time is
//! asked for it is the caller's present, and two replicas may answer differently until they hold the same acts.

use std::collections::{BTreeMap, BTreeSet};

use super::Authority;
use super::log::ActIx;
use super::past::Past;
use crate::hlc::Hlc;
use crate::id::{AuthorKey, CollectionName, OpId, PrincipalId, StreamId};
use crate::limits;
use crate::op::{Act, Collection, Pin, Rank, RevokeTarget};

/// A member node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberInfo {
    /// The node's key, which is also its libp2p identity.
    pub key: AuthorKey,
    /// The node's principal.
    pub principal: PrincipalId,
    /// The statement that makes it a member.
    pub statement: OpId,
    /// Name for people, from the principal's first certificate; empty if that is not known.
    pub name: String,
    /// Labels, by name.
    pub labels: BTreeMap<String, String>,
}

/// A certificate to which a stream can be bound.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateInfo {
    /// The statement.
    pub id: OpId,
    /// For whom the key speaks.
    pub principal: PrincipalId,
    /// Its rank.
    pub rank: Rank,
    /// When it ends.
    pub not_after: Option<Hlc>,
}

/// The configuration of a collection that counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CollectionConfig {
    /// The act that set it.
    pub act: OpId,
    /// The configuration.
    pub config: Collection,
}

/// What of a stream still counts when its certificate is void.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closed {
    /// Nothing.
    Whole,
    /// What lies on the chain that ends here.
    After(Pin),
}

/// How far a revocation reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// What it names.
    Target,
    /// Also what was given under that.
    Cascade,
}

/// The version of the rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RulesState {
    /// The highest version that an effective act has set.
    pub version: u32,
}

impl RulesState {
    /// Returns whether this program judges by these rules. If not, a node stops judging: it reads, and says so.
    #[must_use]
    pub const fn can_judge(&self) -> bool {
        self.version <= limits::RULES_VERSION
    }
}

impl Authority {
    /// Returns the member nodes, by key; of several statements about a key the strongest.
    #[must_use]
    pub fn members(&self, now: Hlc) -> Vec<MemberInfo> {
        self.log.members.keys().filter_map(|key| self.member(*key, now)).collect()
    }

    /// Returns whether the key is that of a member node.
    #[must_use]
    pub fn is_member(&self, key: AuthorKey, now: Hlc) -> bool {
        self.log.members.get(&key).is_some_and(|list| list.iter().any(|ix| self.in_force(*ix, now)))
    }

    /// Returns the member with this key.
    #[must_use]
    pub fn member(&self, key: AuthorKey, now: Hlc) -> Option<MemberInfo> {
        let statements = self.log.members.get(&key)?.iter().filter(|ix| self.in_force(**ix, now));
        let (_, statement, member) = statements
            .filter_map(|ix| {
                let Some(Act::Member(member)) = self.log.act(*ix).act() else { return None };
                Some((member.rank, self.log.act(*ix).id, member))
            })
            .min_by_key(|(rank, id, _)| (*rank, *id))?;
        Some(MemberInfo {
            key,
            principal: member.principal,
            statement,
            name: self.name_of(member.principal).unwrap_or_default().to_owned(),
            labels: member.labels.iter().cloned().collect(),
        })
    }

    /// Returns a principal's name for people: that of the act that introduced it.
    #[must_use]
    pub fn name_of(&self, principal: PrincipalId) -> Option<&str> {
        self.log.introduction(principal).map(|(_, introduced)| introduced.name)
    }

    /// Returns whether a principal was introduced with a key of its own, as nodes are. Users, programs and groups are not.
    #[must_use]
    pub fn is_introduced_with_key(&self, principal: PrincipalId) -> bool {
        let introduction = self.log.introduction(principal);
        introduction.is_some_and(|(ix, _)| matches!(self.log.act(ix).act(), Some(Act::Certify(_))))
    }

    /// Returns when an act was made, as its author says; `None` if it is not here.
    #[must_use]
    pub fn time_of(&self, act: OpId) -> Option<Hlc> {
        self.log.find(act).map(|ix| self.log.act(ix).header.hlc)
    }

    /// Returns the principal for whom a certificate speaks, in force or not.
    #[must_use]
    pub fn principal_of(&self, certificate: OpId) -> Option<PrincipalId> {
        let record = self.log.act(self.log.find(certificate)?);
        match record.act()? {
            Act::Genesis(_) | Act::Succeed(_) | Act::Certify(_) => record.statement().map(|statement| statement.to),
            Act::Member(_)
            | Act::Grant(_)
            | Act::Revoke(_)
            | Act::Readmit(_)
            | Act::Collection(_)
            | Act::Rules(_)
            | Act::Approve(_)
            | Act::Role(_)
            | Act::Duty(_)
            | Act::Principal(_)
            | Act::Join(_)
            | Act::Token(_)
            | Act::Evidence(_)
            | Act::Erase(_)
            | Act::Erased(_)
            | Act::Pepper(_)
            | Act::Withdraw(_) => None,
        }
    }

    /// Returns whether a key may begin streams under a certificate, in force or not: whether that was given to it, or made owners
    /// whose recovery key it is. `None` if the certificate is not here.
    #[must_use]
    pub fn is_certified(&self, certificate: OpId, key: AuthorKey) -> Option<bool> {
        let record = self.log.act(self.log.find(certificate)?);
        let recovers = |act: &Act| act.owner_set().is_some_and(|set| set.may_recover(&key));
        record.act().map(|act| act.certifies(key) || recovers(act))
    }

    /// Returns the certificates of a key that are in force, strongest first.
    ///
    /// Anyone who may certify can name any key, so a key's holder picks the certificate of its own principal, never
    /// simply the first: see [`Self::certificate_for`].
    #[must_use]
    pub fn certificates_of(&self, key: AuthorKey, now: Hlc) -> Vec<CertificateInfo> {
        let list = self.log.certificates.get(&key).into_iter().flatten();
        let mut found: Vec<_> = list
            .filter(|ix| self.in_force(**ix, now))
            .filter_map(|ix| {
                let statement = self.log.act(*ix).statement()?;
                let (principal, rank, not_after) = (statement.to, statement.rank, statement.not_after);
                Some(CertificateInfo { id: self.log.act(*ix).id, principal, rank, not_after })
            })
            .collect();
        found.sort_by_key(|certificate| (certificate.rank, certificate.id));
        found
    }

    /// Returns the certificate to which the key's holder binds a new stream on behalf of a principal.
    #[must_use]
    pub fn certificate_for(&self, key: AuthorKey, principal: PrincipalId, now: Hlc) -> Option<CertificateInfo> {
        self.certificates_of(key, now).into_iter().find(|certificate| certificate.principal == principal)
    }

    /// Returns the acts that a new op should name: the maximal ones that count, the strongest first chosen if there are
    /// more than an op can name. Ascending.
    #[must_use]
    pub fn control_heads(&self) -> Vec<OpId> {
        self.heads_beyond(None)
    }

    /// Returns the acts that the next op of a stream should name: like [`Self::control_heads`], without those that the
    /// stream knows already. Empty if it knows all.
    #[must_use]
    pub fn control_heads_for(&self, stream: StreamId) -> Vec<OpId> {
        match self.log.own_knowledge(stream) {
            Some(past) => self.heads_beyond(Some(&past)),
            None => self.heads_beyond(self.streams.knowledge(stream)),
        }
    }

    fn heads_beyond(&self, known: Option<&Past>) -> Vec<OpId> {
        let news = self.log.frontier.iter().map(|ix| self.log.act(*ix));
        let mut heads: Vec<_> = news
            .filter(|record| !known.is_some_and(|past| past.contains(record.place)))
            .map(|record| (!record.is_effective(), record.strength(), record.id))
            .collect();
        heads.sort();
        heads.truncate(limits::CONTROL_HEADS_MAX);
        let mut ids: Vec<_> = heads.into_iter().map(|(_, _, id)| id).collect();
        ids.sort();
        ids
    }

    /// Returns the configuration of a collection.
    #[must_use]
    pub fn collection(&self, name: &CollectionName) -> Option<CollectionConfig> {
        let acts = self.effective(self.log.collections.get(name)?).filter_map(|(ix, act)| {
            let Act::Collection(config) = act else { return None };
            Some((self.log.act(ix).header.hlc, self.log.act(ix).id, config))
        });
        let mut acts: Vec<_> = acts.collect();
        acts.sort_by_key(|(time, id, _)| (*time, *id));
        let ((_, _, first), (_, act, last)) = (acts.first()?, acts.last()?);
        Some(CollectionConfig { act: *act, config: Collection { shards: first.shards, ..(*last).clone() } })
    }

    /// Returns the configurations of all collections, by name.
    #[must_use]
    pub fn collections(&self) -> Vec<CollectionConfig> {
        self.log.collections.keys().filter_map(|name| self.collection(name)).collect()
    }

    /// Returns the version of the rules in force.
    #[must_use]
    pub fn rules(&self) -> RulesState {
        let genesis = self.log.find(self.log.cluster.genesis());
        let genesis = genesis.and_then(|ix| {
            let Some(Act::Genesis(genesis)) = self.log.act(ix).act() else { return None };
            Some(genesis.rules)
        });
        let set = self.effective(&self.log.rules).filter_map(|(_, act)| {
            let Act::Rules(rules) = act else { return None };
            Some(rules.version)
        });
        RulesState { version: set.chain(genesis).max().unwrap_or(limits::RULES_VERSION) }
    }

    /// Returns the streams, of data and of acts, in which a revocation of `target` should set pins: everything signed
    /// under what it cuts, and what others have written for whom it concerns. A stream that is left out is cut as a whole.
    #[must_use]
    pub fn pins_needed_for(&self, target: &RevokeTarget, reach: Reach) -> Vec<StreamId> {
        let mut open: Vec<ActIx> = match target {
            RevokeTarget::Statement(id) => self.log.find(*id).into_iter().collect(),
            RevokeTarget::Principal(principal) => self.log.given.get(principal).cloned().unwrap_or_default(),
        };
        let mut cut = BTreeSet::new();
        while let Some(statement) = open.pop() {
            if cut.insert(statement) && reach == Reach::Cascade {
                open.extend(self.log.act(statement).made_under.iter().copied());
            }
        }
        let mut certificates = BTreeSet::new();
        let mut data: BTreeSet<StreamId> = BTreeSet::new();
        for ix in cut {
            certificates.insert(self.log.act(ix).id);
            // Its beneficiaries may have signed acts under it.
            let holders = self.log.beneficiaries(ix).into_iter().flat_map(|holder| self.log.given_to(holder));
            certificates.extend(holders.map(|ix| self.log.act(ix).id));
            data.extend(self.streams.written_under(&self.log, ix).into_keys());
        }
        data.extend(certificates.iter().flat_map(|id| self.streams.of_certificate(*id)));
        let control = self.log.control_streams().filter(|(_, id)| certificates.contains(id)).map(|(stream, _)| stream);
        data.extend(control.filter(|stream| !self.log.is_recovery_stream(*stream)));
        data.into_iter().collect()
    }

    /// Returns what still counts of a data stream whose certificate is void; `None` while the certificate stands, and for streams of
    /// acts, which are never closed. Digests
    /// count such a stream with its pin as head, and nothing beyond is stored or relayed.
    #[must_use]
    pub fn closed_at(&self, stream: StreamId, certificate: OpId) -> Option<Closed> {
        use crate::authority::Verdict::{AfterRevocation, Allowed, Deferred, Forked, NotAllowed, Refused};
        // Honest people may have named what lies beyond, before they heard: what names it is complete with it only.
        if self.log.is_control_stream(stream) {
            return None;
        }
        let ix = self.log.find(certificate)?;
        match self.log.act(ix).effect {
            Deferred(_) => return None,
            Refused | NotAllowed | AfterRevocation { .. } | Forked { .. } => return Some(Closed::Whole),
            Allowed => {}
        }
        let mut closed: Option<Pin> = None;
        for revocation in self.log.act(ix).hitters.iter().filter(|r| self.log.act(**r).is_effective()) {
            let acts = std::iter::once(*revocation).chain(self.log.readmits_for(*revocation, ix));
            let pins = acts.flat_map(|act| self.log.pins_in(act, stream));
            // The furthest that this revocation lets stand; of several revocations, the strictest counts.
            let Some(furthest) = pins.max_by_key(|pin| (pin.seq, pin.head)) else { return Some(Closed::Whole) };
            closed = Some(closed.map_or(furthest, |pin| if furthest.seq < pin.seq { furthest } else { pin }));
        }
        closed.map(Closed::After)
    }

    /// Returns where a stream forks.
    #[must_use]
    pub fn fork_of(&self, stream: StreamId) -> Option<u64> {
        self.log.forks.get(&stream).copied()
    }

    /// Returns the end of the branch of a forked stream that counts; `None` if it does not fork, or if nothing from
    /// the fork on counts. A store that holds another branch changes to this one when it has it.
    #[must_use]
    pub fn kept_branch(&self, stream: StreamId, certificate: OpId) -> Option<Pin> {
        self.log.kept(stream, self.log.find(certificate)?).pin
    }

    /// Returns the data streams noted so far that are bound to a certificate.
    pub fn streams_of(&self, certificate: OpId) -> impl Iterator<Item = StreamId> + '_ {
        self.streams.of_certificate(certificate)
    }
}
