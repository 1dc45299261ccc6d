//! What can be said of an act without anything else.

use super::act::{Act, Duty, Pin, PrincipalKind, Rank, Secret, Unique};
use super::role::Actions;
use crate::id::OpId;
use crate::limits;

impl Act {
    /// Checks what can be checked from the act alone; says what is wrong.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let rank = |rank: Rank| (rank.0 >= 1 && rank.0 <= limits::RANK_MAX).then_some(()).ok_or("rank out of bounds");
        let text = |text: &str| (text.len() <= limits::ACT_TEXT_BYTES_MAX).then_some(()).ok_or("text too long");
        let pins = |pins: &[Pin]| {
            if pins.len() > limits::PINS_MAX {
                return Err("too many pins");
            }
            if pins.iter().any(|pin| (pin.seq == 0) != (pin.head == OpId::ZERO)) {
                return Err("sequence and op of a pin disagree");
            }
            ascending(pins.iter().map(|pin| pin.stream)).ok_or("pins out of order")
        };
        match self {
            Self::Genesis(g) => {
                text(&g.name)?;
                g.owner_set().check()?;
                if g.rules == 0 { Err("rules version 0") } else { Ok(()) }
            }
            Self::Certify(c) => {
                rank(c.rank)?;
                text(&c.name)?;
                crate::keys::PublicKey::new(&c.key).map(|_| ()).ok_or("certified key is weak")
            }
            Self::Member(m) => {
                rank(m.rank)?;
                if m.labels.len() > limits::MEMBER_LABELS_MAX {
                    return Err("too many labels");
                }
                for (name, value) in &m.labels {
                    text(name)?;
                    text(value)?;
                }
                ascending(m.labels.iter().map(|(name, _)| name)).ok_or("labels out of order")?;
                crate::keys::PublicKey::new(&m.key).map(|_| ()).ok_or("member key is weak")
            }
            Self::Grant(g) => {
                rank(g.rank)?;
                g.target.check()
            }
            Self::Revoke(r) => {
                text(&r.why)?;
                pins(&r.pins)
            }
            Self::Readmit(r) => pins(&r.pins),
            Self::Succeed(s) => {
                s.check()?;
                pins(&s.pins)
            }
            Self::Collection(c) => {
                if c.name.is_system()
                    || c.shards == 0
                    || c.shards > limits::SHARDS_MAX
                    || c.types.len() > limits::FIELD_TYPES_MAX
                    || c.indexes.len() > limits::INDEXES_MAX
                    || c.unique.len() > limits::UNIQUE_MAX
                {
                    return Err("collection settings out of bounds");
                }
                for field in &c.types {
                    text(&field.pointer)?;
                    field.pointer.starts_with('/').then_some(()).ok_or("field type without JSON pointer")?;
                }
                if c.schema.as_ref().is_some_and(|schema| !schema.is_well_formed()) {
                    return Err("schema out of bounds");
                }
                ascending(c.types.iter().map(|field| &field.pointer)).ok_or("field types out of order")?;
                for index in &c.indexes {
                    index.parse().map_err(|_| "an index that is none")?;
                }
                ascending(c.indexes.iter().map(|index| &index.name)).ok_or("indexes out of order")?;
                if !c.unique.iter().all(Unique::is_valid) {
                    return Err("a unique constraint that is none");
                }
                ascending(c.unique.iter()).ok_or("unique constraints out of order")
            }
            Self::Rules(r) => {
                if r.version == 0 {
                    Err("rules version 0")
                } else {
                    Ok(())
                }
            }
            Self::Approve(_) => Ok(()),
            Self::Evidence(e) => {
                if e.pins.is_empty() || e.pins.iter().any(|pin| pin.seq == 0) {
                    return Err("evidence of nothing");
                }
                pins(&e.pins)
            }
            Self::Erase(e) => {
                text(&e.why)?;
                if e.collection.is_system() {
                    return Err("erasure in a system collection");
                }
                if e.documents.is_empty() || e.documents.len() > limits::ERASE_DOCUMENTS_MAX {
                    return Err("number of documents to erase out of bounds");
                }
                ascending(e.documents.iter()).ok_or("documents to erase out of order")
            }
            Self::Erased(e) => {
                if e.acts.is_empty() || e.acts.len() > limits::ERASED_ACTS_MAX {
                    return Err("number of erasures out of bounds");
                }
                ascending(e.acts.iter()).ok_or("erasures out of order")
            }
            Self::Withdraw(w) => {
                if w.acts.is_empty() || w.acts.len() > limits::WITHDRAWN_ACTS_MAX {
                    return Err("number of acts to withdraw out of bounds");
                }
                ascending(w.acts.iter()).ok_or("acts to withdraw out of order")
            }
            Self::Pepper(p) => {
                if p.shares.is_empty() || p.shares.len() > limits::PEPPER_SHARES_MAX {
                    return Err("number of shares of a pepper out of bounds");
                }
                ascending(p.shares.iter().map(|share| share.node)).ok_or("shares of a pepper out of order")
            }
            Self::Role(r) => {
                rank(r.rank)?;
                text(&r.name)?;
                if r.name.is_empty() || r.actions.union(r.own_actions) == Actions::NONE {
                    return Err("role without a name or an action");
                }
                let fits = Actions::OF_DOCUMENTS.contains(r.own_actions);
                fits.then_some(()).ok_or("role with actions on own documents that are not about documents")
            }
            Self::Duty(d) => {
                rank(d.rank)?;
                match &d.duty {
                    Duty::ActFor(target) | Duty::Registrar(target) => {
                        target.fields.is_all().then_some(()).ok_or("duty on some fields only")?;
                        target.check()
                    }
                    Duty::Warden(()) => Ok(()),
                    Duty::Witness(quorum) if (1..=limits::WITNESSES_MAX).contains(quorum) => Ok(()),
                    Duty::Witness(_) => Err("quorum of a witness out of bounds"),
                }
            }
            Self::Principal(p) => {
                rank(p.rank)?;
                text(&p.name)?;
                let fits = p.kind != PrincipalKind::Group || !p.attest;
                fits.then_some(()).ok_or("group for which others write")
            }
            Self::Join(j) => {
                rank(j.rank)?;
                (j.principal != j.group).then_some(()).ok_or("group joins itself")
            }
            Self::Token(t) => {
                rank(t.rank)?;
                text(&t.name)?;
                if t.actions == Actions::NONE {
                    return Err("token without an action");
                }
                match t.secret {
                    Secret::Random | Secret::Certificate | Secret::Subject => {}
                    Secret::Password(hash) if hash.is_valid() => {}
                    Secret::Password(_) => return Err("hash of a password out of bounds"),
                }
                t.target.check()
            }
        }
    }
}

/// Returns `Some(())` if the items strictly ascend.
pub(super) fn ascending<T: PartialOrd>(items: impl Iterator<Item = T> + Clone) -> Option<()> {
    items.clone().zip(items.skip(1)).all(|(a, b)| a < b).then_some(())
}
