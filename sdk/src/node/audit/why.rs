//! Explaining an op.

use folkmoot_core::authority::{Authority, Fork, Ground, Stance, Testimony, Verdict, Why};
use folkmoot_core::hlc::Hlc;
use folkmoot_core::id::{OpId, PrincipalId};
use folkmoot_core::op::{Act, Duty, Header, Op, Role, Target};
use folkmoot_core::replica::TxRecord;

use super::super::Inner;
use super::super::convert::read_error;
use super::search::{documents_of, kind_of, target_of, write_action};
use crate::api::{
    Error, ErrorCode, ExplainedFork, ExplainedPart, ExplainedStatement, ExplainedTestimony, Explanation, Result,
    Timestamp,
};

impl Inner {
    pub(super) async fn why(&self, op: OpId) -> Result<Explanation> {
        let look = self.core.look(move |replica, _| explain_act(replica.authority(), op));
        if let Some(explained) = look.await.map_err(|_| gone())? {
            return Ok(explained);
        }
        let cluster = self.record.cluster;
        let found = self
            .read_on_thread(move |reader| Ok((reader.find_op(op, cluster)?, reader.records_of(op)?)))
            .await?
            .map_err(read_error)?;
        let (Some(op), records) = found else {
            return Err(Error::new(ErrorCode::RecordNotFound, format!("there is no op {op} here")));
        };
        let look = self.core.look(move |replica, _| {
            let whys = replica.why(&op);
            explain(replica.authority(), &op, &whys, &records)
        });
        look.await.map_err(|_| gone())
    }
}

fn gone() -> Error {
    Error::new(ErrorCode::ShuttingDown, "the node is shutting down")
}

fn name(authority: &Authority, principal: Option<PrincipalId>) -> String {
    principal.and_then(|id| authority.name_of(id)).unwrap_or_default().to_owned()
}

fn explanation(authority: &Authority, op: OpId, header: &Header, signer: Option<PrincipalId>) -> Explanation {
    Explanation {
        op,
        seq: header.seq,
        author: header.author,
        signer,
        signer_name: name(authority, signer),
        made: Timestamp::from_millis(header.hlc.millis()),
        parts: Vec::new(),
    }
}

fn explain_act(authority: &Authority, op: OpId) -> Option<Explanation> {
    let why = authority.why_act(op)?;
    let header = authority.act_header(op)?;
    let control = header.control()?;
    let principal = control.for_whom.or(why.signer);
    let (collection, documents) = documents_of(&control.act);
    let mut explained = explanation(authority, op, header, why.signer);
    explained.parts.push(ExplainedPart {
        transaction: 0,
        principal,
        name: name(authority, principal),
        action: kind_of(&control.act),
        collection,
        documents,
        about: target_of(&control.act),
        verdict: why.verdict.kind().to_owned(),
        reason: reason_of(&why.verdict),
        grounds: statements(authority, &why.grounds),
        fork: why.fork.as_ref().map(|fork| forked(authority, fork)),
    });
    Some(explained)
}

fn explain(authority: &Authority, op: &Op, whys: &[Why], records: &[TxRecord]) -> Explanation {
    let header = op.header();
    let mut explained = explanation(authority, op.id(), header, whys.first().and_then(|why| why.signer));
    for ((number, transaction), why) in (0u16..).zip(header.transactions()).zip(whys) {
        let record = records.iter().find(|record| record.tx.tx == number);
        let reason = match record {
            Some(record) if record.reason.is_empty() => record.state.name().to_owned(),
            Some(record) => format!("{}: {}", record.state.name(), record.reason),
            None => reason_of(&why.verdict),
        };
        explained.parts.push(ExplainedPart {
            transaction: u32::from(number),
            principal: Some(transaction.principal),
            name: name(authority, Some(transaction.principal)),
            action: write_action(transaction),
            collection: Some(header.collection().clone()),
            documents: transaction.changes.iter().map(|change| change.doc.clone()).collect(),
            about: String::new(),
            verdict: why.verdict.kind().to_owned(),
            reason,
            grounds: statements(authority, &why.grounds),
            fork: why.fork.as_ref().map(|fork| forked(authority, fork)),
        });
    }
    explained
}

/// Puts into words what a verdict says besides its name.
fn reason_of(verdict: &Verdict) -> String {
    use folkmoot_core::authority::Missing;
    match verdict {
        Verdict::Allowed => String::new(),
        Verdict::Deferred(Missing::Chain) => "waits for an earlier op of its stream".to_owned(),
        Verdict::Deferred(Missing::Control(act)) => format!("waits for act {act}, or something that it names"),
        Verdict::Deferred(Missing::Consent(act)) => format!("waits for further owners to approve act {act}"),
        Verdict::Deferred(Missing::Pinned(pin)) => {
            format!(
                "waits for op {} of stream {}, up to which a revocation or a witness lets it stand",
                pin.seq, pin.stream
            )
        }
        Verdict::Refused => "contradicts what it follows".to_owned(),
        Verdict::NotAllowed => "no statements that its author knew give the right".to_owned(),
        Verdict::AfterRevocation { by } => format!("cut by the revocation {by}"),
        Verdict::Forked { stream, at } => format!("stream {stream} forks at op {at}"),
    }
}

fn statements(authority: &Authority, grounds: &[Ground]) -> Vec<ExplainedStatement> {
    let explained = |ground: &Ground| {
        let act = authority.act_header(ground.statement).and_then(Header::control).map(|control| &control.act);
        let (stance, by) = in_words(&ground.stance);
        ExplainedStatement {
            statement: ground.statement,
            part: ground.part.name().to_owned(),
            says: act.map(|act| says(authority, act)).unwrap_or_default(),
            counts: ground.stance.counts(),
            stance,
            by,
        }
    };
    grounds.iter().map(explained).collect()
}

/// Tells which branch of a forked stream counts, and who says so.
fn forked(authority: &Authority, fork: &Fork) -> ExplainedFork {
    let testimony = |said: &Testimony| ExplainedTestimony {
        act: said.act,
        witness: said.witness,
        name: name(authority, Some(said.witness)),
        quorum: said.quorum,
        saw: said.pin.head,
        saw_seq: said.pin.seq,
        verdict: said.verdict.kind().to_owned(),
    };
    ExplainedFork {
        at: fork.at,
        kept: fork.kept.map(|pin| pin.head),
        kept_seq: fork.kept.map(|pin| pin.seq),
        by: fork.by,
        evidence: fork.evidence.iter().map(testimony).collect(),
    }
}

fn in_words(stance: &Stance) -> (String, Option<OpId>) {
    match stance {
        Stance::Counts => ("counts".to_owned(), None),
        Stance::Pinned { by } => ("revoked, but what was known of this stream then stands".to_owned(), Some(*by)),
        Stance::Absent => ("is not known here".to_owned(), None),
        Stance::NotKnown => ("the author had not seen it".to_owned(), None),
        Stance::Ended { at } => (format!("had ended at {}", time(*at)), None),
        Stance::Void(Verdict::AfterRevocation { by }) => ("revoked".to_owned(), Some(*by)),
        Stance::Void(verdict) => (format!("does not count: {}", verdict.kind()), None),
    }
}

fn time(at: Hlc) -> Timestamp {
    Timestamp::from_millis(at.millis())
}

/// Puts a statement into words.
fn says(authority: &Authority, act: &Act) -> String {
    let named = |id: PrincipalId| authority.name_of(id).map_or_else(|| id.to_string(), str::to_owned);
    let on = |target: &Target| super::super::access::shown(target);
    match act {
        Act::Genesis(genesis) => format!("the owners of {}", genesis.name),
        Act::Grant(grant) => {
            let role = match &grant.role {
                Role::BuiltIn(role) => role.name().to_owned(),
                Role::Custom(id) => format!("role {id}"),
            };
            format!("{} is {role} on {}", named(grant.principal), on(&grant.target))
        }
        Act::Join(join) => format!("{} is in {}", named(join.principal), named(join.group)),
        Act::Duty(given) => match &given.duty {
            Duty::ActFor(target) => format!("{} writes for others on {}", named(given.principal), on(target)),
            Duty::Warden(()) => format!("{} closes what has ended", named(given.principal)),
            Duty::Witness(quorum) => {
                format!("{} says what it saw of forks, and counts among {quorum}", named(given.principal))
            }
            Duty::Registrar(target) => format!("{} registers on {}", named(given.principal), on(target)),
        },
        other => target_of(other),
    }
}
