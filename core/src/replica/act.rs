//! Control acts signed here.

use std::sync::Arc;

use super::flush::Waiter;
use super::types::{ActError, ActRequest, Effect, RequestTicket, Signer};
use super::{Now, Replica};
use crate::hlc::Hlc;
use crate::id::{OpId, PrincipalId, ShardId};
use crate::keys::SecretKey;
use crate::limits;
use crate::op::{Act, Certify, Control, Grant, Header, Member, Op, Payload, Rank, Role, StreamKey, Target};

impl Replica {
    pub(super) fn act(
        &mut self,
        now: Now,
        ticket: RequestTicket,
        signer: Signer,
        request: ActRequest,
        effects: &mut Vec<Effect>,
    ) {
        match self.try_act(now, signer, request) {
            Ok(op) => {
                self.staged.waiters.push(Waiter::Act(ticket, op));
                self.apply_policy_changes(now, effects);
            }
            Err(error) => effects.push(Effect::ActDone { ticket, result: Err(error) }),
        }
    }

    fn try_act(&mut self, now: Now, signer: Signer, request: ActRequest) -> Result<OpId, ActError> {
        if let Some(reason) = &self.halted {
            return Err(ActError::NotReady(reason.clone()));
        }
        let (secret, certificate) = match signer {
            Signer::Node => (self.identity.node.clone(), self.identity.certificate),
            Signer::Owner => {
                let owner = self.identity.owner.clone().ok_or(ActError::NoOwnerKey)?;
                (owner, self.identity.cluster.genesis())
            }
        };
        match request {
            ActRequest::One(act) => self.sign_act(now, &secret, certificate, act),
            ActRequest::Admit { key, name, labels, role } => {
                let time = Hlc::new(now.wall_ms, 0);
                // As strong as usual for a node, but weaker than whoever admits it, so that it can be cut off again.
                let draft =
                    |rank| Act::Certify(Certify { principal: None, key, rank, not_after: None, name: name.clone() });
                let ranks = [Rank::NODE, Rank::USER, Rank::DEVICE, Rank(100), Rank(limits::RANK_MAX)];
                let fits =
                    |rank: &Rank| self.authority.proof_for(secret.author(), certificate, &draft(*rank), time).is_some();
                let rank = ranks.into_iter().find(fits).ok_or_else(|| {
                    ActError::NotAllowed("this node may not admit others; ask an admin or the owner".to_owned())
                })?;
                let certified = self.sign_act(now, &secret, certificate, draft(rank))?;
                let principal = PrincipalId::from(certified);
                let member = Member { principal, key, rank, not_after: None, labels };
                self.sign_act(now, &secret, certificate, Act::Member(member))?;
                let grant =
                    Grant { principal, role: Role::BuiltIn(role), target: Target::everything(), rank, not_after: None };
                self.sign_act(now, &secret, certificate, Act::Grant(grant))?;
                Ok(certified)
            }
        }
    }

    fn sign_act(&mut self, now: Now, secret: &SecretKey, certificate: OpId, act: Act) -> Result<OpId, ActError> {
        let author = secret.author();
        let proof = self
            .authority
            .proof_for(author, certificate, &act, Hlc::new(now.wall_ms, 0))
            .ok_or_else(|| ActError::NotAllowed("no statement gives the right to this act".to_owned()))?;
        let shard = ShardId::control();
        if !self.own.contains_key(&(shard.clone(), author)) {
            let key = StreamKey { shard: shard.clone(), author, certificate, session: self.session };
            self.begin_stream(key);
        }
        let Some(own) = self.own.get(&(shard.clone(), author)) else {
            return Err(ActError::NotReady("the control stream is not open".to_owned()));
        };
        let header = Header {
            version: limits::OP_VERSION,
            cluster: self.identity.cluster,
            shard: shard.clone(),
            author,
            certificate,
            session: own.key.session,
            seq: own.next_seq,
            prev: own.last,
            hlc: self.clock.tick(now.wall_ms),
            control_heads: self.authority.control_heads_for(own.stream),
            payload: Payload::Control(Control { proof, act }),
        };
        let op = Arc::new(Op::sign(header, Vec::new(), secret).map_err(ActError::Invalid)?);
        if let Some(own) = self.own.get_mut(&(shard, author)) {
            own.next_seq += 1;
            own.last = op.id();
        }
        self.counters.ops_signed += 1;
        self.stage_op(op.clone(), None);
        self.note_op(&op);
        Ok(op.id())
    }
}
