//! Signing at somebody's request, with the owner's key where only that may, and what several owners have to agree on.

use folkmoot_core::audit::{AuditAction, AuditDecision, Event};
use folkmoot_core::authority::{Authority, Waiting, WaitingRequest};
use folkmoot_core::id::{AuthorKey, OpId, PrincipalId};
use folkmoot_core::op::{Act, Header, RevokeTarget, Secret};
use folkmoot_core::replica::{ActError, ActRequest, Admitted, Signer, Waits};

use super::Inner;
use super::audit::says;
use super::convert::act_error;
use crate::api::{Approval, ApprovalAct, Approved, AwaitedApproval, Error, ErrorCode, Result, Timestamp, Withdrawn};

/// Documents that are named in words.
const NAMED_MAX: usize = 10;
/// Letters of a name or reason that are shown.
const SHOWN_MAX: usize = 200;

/// At whose request the node signs something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asker {
    /// The owner of the data directory, or the app that embeds the node: also the owner's key is theirs to use.
    Owner,
    /// A principal, for which the node uses its own rights.
    Principal(PrincipalId),
    /// Nobody: the node goes about its work.
    Itself,
}

impl Asker {
    pub(super) const fn principal(self) -> Option<PrincipalId> {
        match self {
            Self::Principal(id) => Some(id),
            Self::Owner | Self::Itself => None,
        }
    }
}

impl From<Option<PrincipalId>> for Asker {
    fn from(principal: Option<PrincipalId>) -> Self {
        principal.map_or(Self::Owner, Self::Principal)
    }
}

/// Returns the op of what was signed.
///
/// # Errors
/// [`ErrorCode::AwaitsApproval`] if it does not count before other owners consent.
pub(super) fn counted(done: Admitted) -> Result<OpId> {
    match done.waits {
        None => Ok(done.op),
        Some(waits) => Err(awaits(waits)),
    }
}

pub(super) fn awaits(waits: Waits) -> Error {
    let awaited = awaited(waits);
    Error::new(ErrorCode::AwaitsApproval, awaited.to_string())
        .hint("it counts nowhere before that; `folkmoot approvals` lists what waits, on every node")
        .awaits(awaited)
}

pub(super) const fn awaited(waits: Waits) -> AwaitedApproval {
    AwaitedApproval { op: waits.op, missing: waits.missing }
}

impl Inner {
    /// Signs something: as the node and, where that may not and its owner asks, as the owner.
    pub(super) async fn sign(&self, asker: Asker, request: ActRequest) -> Result<OpId> {
        let done = match self.act(Signer::Node, request.clone()).await {
            Err(ActError::NotAllowed(why)) if asker == Asker::Owner => match self.act(Signer::Owner, request).await {
                Err(ActError::NoOwnerKey) => Err(ActError::NotAllowed(why)),
                other => other,
            },
            other => other,
        };
        done.map_err(act_error).and_then(counted)
    }

    pub(super) async fn approvals(&self) -> Result<Vec<Approval>> {
        let looked = self.core.look(|replica, _| {
            let authority = replica.authority();
            let own = replica.own_keys().find(|key| authority.owner_certificate(key).is_some());
            authority.waiting_requests().iter().filter_map(|request| approval(authority, request, own)).collect()
        });
        looked.await.map_err(|_| super::access::gone())
    }

    /// Consents to an act of another owner by the owner's key that is here. Whoever is known by a token has no say in that.
    pub(super) async fn approve(&self, asker: Option<PrincipalId>, op: OpId) -> Result<Approved> {
        let event = Event::new(AuditAction::Approve, AuditDecision::Allowed).about(op.to_string());
        let Admitted { op: act, waits } = self.as_owner(asker, event, ActRequest::Approve(op)).await?;
        Ok(Approved { act, op, missing: waits.map_or(0, |waits| waits.missing) })
    }

    /// Takes back what the owner asked for whose key is here.
    pub(super) async fn withdraw(&self, asker: Option<PrincipalId>, op: OpId) -> Result<Withdrawn> {
        let event = Event::new(AuditAction::Revoke, AuditDecision::Allowed).about(op.to_string());
        let Admitted { op: act, .. } = self.as_owner(asker, event, ActRequest::Withdraw(op)).await?;
        Ok(Withdrawn { act, op })
    }

    /// Has the owner's key sign something that only the owner of the directory has a say in.
    async fn as_owner(&self, asker: Option<PrincipalId>, mut event: Event, request: ActRequest) -> Result<Admitted> {
        let done = match asker {
            None => self.act(Signer::Owner, request).await.map_err(act_error),
            Some(_) => {
                let what = "only the owner of the node's directory approves, or takes back what waits";
                Err(Error::new(ErrorCode::NotAllowed, what)
                    .hint("ask the node with the token of its data directory: its owner's key signs"))
            }
        };
        if let Ok(done) = &done {
            event.statements.push(done.op);
            metrics::counter!("folkmoot_access_acts_total").increment(1);
        }
        self.note_done(asker, event, &done);
        done
    }
}

fn approval(authority: &Authority, request: &WaitingRequest, own: Option<AuthorKey>) -> Option<Approval> {
    let first = request.acts().first()?;
    let agrees = |key: &AuthorKey| request.acts().iter().all(|waiting| waiting.consenting.contains(key));
    let for_whom = first.header.control().and_then(|control| control.for_whom);
    Some(Approval {
        op: request.name(),
        acts: request.acts().iter().filter_map(|waiting| act(authority, waiting)).collect(),
        owner: first.header.author,
        for_whom,
        name: for_whom.and_then(|id| authority.name_of(id)).unwrap_or_default().to_owned(),
        since: Timestamp::from_millis(first.header.hlc.millis()),
        consenting: first.consenting.iter().copied().filter(agrees).collect(),
        missing: request.acts().iter().map(Waiting::missing).max()?,
        open_here: own.is_some_and(|own| !agrees(&own)),
    })
}

fn act(authority: &Authority, waiting: &Waiting) -> Option<ApprovalAct> {
    let act = &waiting.header.control()?.act;
    let rank = act.statement(waiting.act).map(|statement| statement.rank.0);
    Some(ApprovalAct { op: waiting.act, does: in_words(authority, act), rank })
}

/// Returns what somebody chose to call something: quoted, and not longer than people read.
fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(SHOWN_MAX).collect::<String>())
}

/// Puts into words what an act does, for whoever has to agree to it.
fn in_words(authority: &Authority, act: &Act) -> String {
    let named = |id: PrincipalId| {
        authority.name_of(id).map_or_else(|| id.to_string(), |name| format!("{} ({id})", quoted(name)))
    };
    let because = |why: &str| if why.is_empty() { String::new() } else { format!(", because: {}", quoted(why)) };
    match act {
        Act::Certify(certify) => match certify.principal {
            None => format!("certifies the key {} for a new principal {}", certify.key, quoted(&certify.name)),
            Some(principal) => format!("certifies the key {} for {}", certify.key, named(principal)),
        },
        Act::Member(member) => format!("makes the key {} a member node, of {}", member.key, named(member.principal)),
        Act::Principal(principal) => format!("introduces the {} {}", principal.kind.name(), quoted(&principal.name)),
        Act::Role(role) => {
            let names = |actions: folkmoot_core::op::Actions| {
                actions.iter().map(|action| action.name()).collect::<Vec<_>>().join(" ")
            };
            let own = if role.own_actions.iter().next().is_some() {
                format!(", on own documents {}", names(role.own_actions))
            } else {
                String::new()
            };
            format!("makes the role {}: {}{own}", quoted(&role.name), names(role.actions))
        }
        Act::Token(token) => {
            let what = match token.secret {
                Secret::Random => "token",
                Secret::Password(_) => "password",
                Secret::Certificate => "certificate",
                Secret::Subject => "identity",
            };
            let on = super::access::shown(&token.target);
            format!(
                "lets the holder of the {what} {} speak for {} on {on}",
                quoted(&token.name),
                named(token.principal)
            )
        }
        Act::Revoke(revoke) => {
            let what = match revoke.target {
                RevokeTarget::Principal(principal) => format!("takes back all that {} has", named(principal)),
                RevokeTarget::Statement(id) => {
                    let stated = authority
                        .act_header(id)
                        .and_then(Header::control)
                        .map(|control| in_words(authority, &control.act));
                    format!("takes back {id}, which {}", stated.unwrap_or_else(|| "is not here".to_owned()))
                }
            };
            let reach = if revoke.cascade { ", and what was given under it" } else { "" };
            format!("{what}{reach}{}", because(&revoke.why))
        }
        Act::Readmit(readmit) => {
            format!("lets stand again what the revocation {} cut in {} streams", readmit.revocation, readmit.pins.len())
        }
        Act::Collection(config) if config.dropped => format!("drops the collection {}", config.name),
        Act::Collection(config) => format!(
            "configures the collection {}: {} shards, {} types, {} indexes, audit_reads {}, schema of {} bytes",
            config.name,
            config.shards,
            config.types.len(),
            config.indexes.len(),
            config.audit_reads,
            config.schema.as_ref().map_or(0, |schema| schema.as_str().len())
        ),
        Act::Rules(rules) => format!("has all judge by version {} of the rules", rules.version),
        Act::Erase(erase) => {
            let ids: Vec<_> = erase.documents.iter().take(NAMED_MAX).map(ToString::to_string).collect();
            let more = if erase.documents.len() > NAMED_MAX { " …" } else { "" };
            let (number, collection) = (erase.documents.len(), &erase.collection);
            format!(
                "erases {number} documents of {collection} for good: {}{more}{}",
                ids.join(" "),
                because(&erase.why)
            )
        }
        Act::Approve(approve) => format!("consents to {}", approve.act),
        other => says(authority, other),
    }
}
