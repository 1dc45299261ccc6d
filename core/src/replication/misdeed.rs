//! What peers do wrong, and how grave each of it is.

use std::fmt;

#[cfg(doc)]
use super::limits as bounds;

/// What no correct peer does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Misbehaviour {
    /// A frame or op that does not decode, or breaks a bound.
    Malformed,
    /// A frame of a later version that may not be ignored.
    UnknownFrame,
    /// A frame on a lane that is not its own.
    WrongLane,
    /// Bytes on a lane that are no frames.
    BrokenLane,
    /// More bytes than were granted.
    CreditOverrun,
    /// A grant for more than was sent, or for nothing.
    FalseGrant,
    /// Another cluster.
    ForeignCluster,
    /// A hello that names another node than the connection proves, or a second hello.
    FalseHello,
    /// A run that is no chain.
    BrokenChain,
    /// A signature that does not hold.
    BadSignature,
    /// A key that the certificate was not given to.
    WrongCertificate,
    /// An answer that does not fit its question.
    WrongAnswer,
    /// Documents that are none.
    FalseDocuments,
    /// A digest that is not that of the heads which it shows.
    FalseDigest,
    /// Answers or digests that it owes, while it speaks of other things.
    BrokenPromise,
    /// A second of traffic that brings nothing, beyond its allowance.
    Flood,
    /// Two ops of its own at one place.
    Forked,
    /// A transaction of its own that no statement known to it allows.
    NotAllowed,
    /// A change of its own that breaks a rule of documents.
    BadChange,
    /// A change of its own that Automerge does not take.
    HeldChange,
    /// Transactions of its own that wait for what nobody has, it neither.
    Deferral,
}

impl Misbehaviour {
    /// Every one.
    pub const ALL: [Self; 21] = [
        Self::Malformed,
        Self::UnknownFrame,
        Self::WrongLane,
        Self::BrokenLane,
        Self::CreditOverrun,
        Self::FalseGrant,
        Self::ForeignCluster,
        Self::FalseHello,
        Self::BrokenChain,
        Self::BadSignature,
        Self::WrongCertificate,
        Self::WrongAnswer,
        Self::FalseDocuments,
        Self::FalseDigest,
        Self::BrokenPromise,
        Self::Flood,
        Self::Forked,
        Self::NotAllowed,
        Self::BadChange,
        Self::HeldChange,
        Self::Deferral,
    ];

    /// Returns how grave it is; at [`bounds::SCORE_MAX`] in sum the peer is banned.
    ///
    /// 100 for what cannot happen by accident. A third for what a damaged memory may do once. Less for what tells of itself how
    /// often it is meant: the score forgets [`bounds::SCORE_FORGOTTEN_PER_MINUTE`] in a minute.
    #[must_use]
    pub const fn weight(self) -> u32 {
        match self {
            Self::UnknownFrame
            | Self::CreditOverrun
            | Self::ForeignCluster
            | Self::FalseHello
            | Self::WrongLane
            | Self::BrokenLane => 100,
            Self::Malformed => 50,
            Self::BrokenChain
            | Self::BadSignature
            | Self::WrongCertificate
            | Self::FalseDocuments
            | Self::FalseGrant
            | Self::FalseDigest => 34,
            Self::BadChange | Self::BrokenPromise | Self::Deferral => 20,
            Self::WrongAnswer | Self::Forked | Self::NotAllowed => 10,
            Self::Flood | Self::HeldChange => 5,
        }
    }

    /// Returns whether it is proof, rather than what may happen to a correct peer now and then: on a line that stalls, with a clock
    /// that is wrong, after a crash.
    #[must_use]
    pub const fn is_proof(self) -> bool {
        !matches!(
            self,
            Self::FalseDigest | Self::BrokenPromise | Self::Flood | Self::Deferral | Self::Forked | Self::HeldChange
        )
    }

    /// Returns its stable name, which is also the label of its metric.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownFrame => "unknown_frame",
            Self::WrongLane => "wrong_lane",
            Self::BrokenLane => "broken_lane",
            Self::CreditOverrun => "credit_overrun",
            Self::FalseGrant => "false_grant",
            Self::ForeignCluster => "foreign_cluster",
            Self::FalseHello => "false_hello",
            Self::BrokenChain => "broken_chain",
            Self::BadSignature => "bad_signature",
            Self::WrongCertificate => "wrong_certificate",
            Self::WrongAnswer => "wrong_answer",
            Self::FalseDocuments => "false_documents",
            Self::FalseDigest => "false_digest",
            Self::BrokenPromise => "broken_promise",
            Self::Flood => "flood",
            Self::Forked => "forked",
            Self::NotAllowed => "not_allowed",
            Self::BadChange => "bad_change",
            Self::HeldChange => "held_change",
            Self::Deferral => "deferral",
        }
    }

    /// Returns the misdeed with a name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|what| what.name() == name)
    }
}

impl fmt::Display for Misbehaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits as bounds;
    use super::*;

    #[test]
    fn names_are_distinct_and_lead_back() {
        let names: std::collections::BTreeSet<&str> = Misbehaviour::ALL.iter().map(|what| what.name()).collect();
        assert_eq!(names.len(), Misbehaviour::ALL.len());
        for what in Misbehaviour::ALL {
            assert_eq!(Misbehaviour::by_name(what.name()), Some(what));
            assert!((1..=bounds::SCORE_MAX).contains(&what.weight()));
        }
    }
}
