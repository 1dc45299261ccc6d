//! What a verdict rests on, for people.

use super::Authority;
use super::Subject;
use super::judge::lasts;
use super::log::{ActIx, Log};
use super::rights::{Right, needs};
use crate::authority::verdict::Verdict;
use crate::authority::{Chains, Position};
use crate::hlc::Hlc;
use crate::id::{OpId, PrincipalId, StreamId};
use crate::op::{Act, Header, Pin, Transaction};

/// Statements that an explanation names at the most.
const GROUNDS_MAX: usize = 100;
/// Evidence that an explanation names at the most.
const EVIDENCE_MAX: usize = 100;

/// A statement that a verdict looks at, and what it is worth there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ground {
    /// The statement.
    pub statement: OpId,
    /// What it is to the op.
    pub part: Part,
    /// Whether it counts for the op.
    pub stance: Stance,
}

/// What a statement is to an op.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Part {
    /// It certifies the signing key.
    Certificate,
    /// It introduces the principal that a node writes for.
    Introduction,
    /// The node's duty to write for others there.
    Duty,
    /// It makes the principal a member of a group.
    Join,
    /// It gives a right to something that the op does.
    Grant,
    /// It says what a grant's role is.
    Role,
    /// Another one that an act is done under.
    Proof,
}

impl Part {
    /// Returns its name for people and programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Introduction => "introduction",
            Self::Duty => "duty",
            Self::Join => "join",
            Self::Grant => "grant",
            Self::Role => "role",
            Self::Proof => "proof",
        }
    }
}

/// What a statement is worth for an op.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stance {
    /// It counts.
    Counts,
    /// A revocation cuts it, but the op lies within the pins of that, or of a readmission.
    Pinned {
        /// The revocation.
        by: OpId,
    },
    /// It is not known here, or gives nothing of the kind.
    Absent,
    /// The author had not seen it when the op was made.
    NotKnown,
    /// It had ended at the op's time.
    Ended {
        /// When.
        at: Hlc,
    },
    /// It is cut, waits or does not count itself.
    Void(Verdict),
}

impl Stance {
    /// Whether the op can rest on the statement.
    #[must_use]
    pub const fn counts(&self) -> bool {
        matches!(self, Self::Counts | Self::Pinned { .. })
    }
}

/// A verdict with what it rests on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Why {
    /// The verdict.
    pub verdict: Verdict,
    /// Whose key signed the op; none if nothing says so.
    pub signer: Option<PrincipalId>,
    /// The statements, in the order in which the rule asks for them, each once; at most 100.
    pub grounds: Vec<Ground>,
    /// What becomes of the op's stream, if that forks at the op or before it.
    pub fork: Option<Fork>,
}

/// Which branch of a forked stream counts, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fork {
    /// Where it forks.
    pub at: u64,
    /// Where what counts ends; none if nothing from the fork on does.
    pub kept: Option<Pin>,
    /// The act whose pin says so; none if witnesses do, or nobody.
    pub by: Option<OpId>,
    /// What witnesses say of the stream, whether or not it is needed; at most 100.
    pub evidence: Vec<Testimony>,
}

/// What a witness says of a forked stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Testimony {
    /// The act of evidence.
    pub act: OpId,
    /// The witness.
    pub witness: PrincipalId,
    /// How many witnesses must agree before it counts.
    pub quorum: u8,
    /// Where the chain ended that it had.
    pub pin: Pin,
    /// Whether the act counts.
    pub verdict: Verdict,
}

impl Authority {
    /// Explains the verdict on a transaction of a data op, which has been noted.
    #[must_use]
    pub fn why(&self, at: &Position, header: &Header, transaction: usize, chains: &dyn Chains) -> Why {
        let verdict = self.judge(at, header, transaction, chains);
        let signer = self.signer(header);
        let subject = self.streams.past_of(at).map(|past| Subject { position: *at, past, chains });
        let mut grounds = Vec::new();
        if let (Some(subject), Some(transaction)) = (subject, header.transactions().get(transaction)) {
            explain(&self.log, &subject, header, transaction, &mut grounds);
        }
        grounds.truncate(GROUNDS_MAX);
        Why { verdict, signer, grounds, fork: self.fork(at, header.certificate) }
    }

    /// Explains the verdict on an act; `None` if it is not here whole.
    #[must_use]
    pub fn why_act(&self, id: OpId) -> Option<Why> {
        let verdict = self.control_verdict(id)?;
        let record = self.log.act(self.log.find(id)?);
        let header = &*record.header;
        let position = Position { stream: record.stream, seq: header.seq, op: id };
        let subject = Subject { position, past: &record.past, chains: &self.log };
        let ground = |statement: &OpId| {
            let (part, stance) = match self.log.find(*statement) {
                None => (Part::Proof, Stance::Absent),
                Some(_) if *statement == header.certificate => {
                    (Part::Certificate, stance_of(&self.log, &subject, header, *statement))
                }
                Some(ix) => (part_of(&self.log, ix), stance_of(&self.log, &subject, header, *statement)),
            };
            Ground { statement: *statement, part, stance }
        };
        let grounds = record.proof().iter().map(ground).collect();
        let fork = self.fork(&position, header.certificate);
        Some(Why { verdict, signer: self.signer(header), grounds, fork })
    }

    /// Explains which branch of a stream counts that forks at an op or before it.
    fn fork(&self, at: &Position, certificate: OpId) -> Option<Fork> {
        let fork = self.fork_of(at.stream).filter(|fork| *fork <= at.seq)?;
        let certificate = self.log.find(certificate)?;
        let by = self.log.deciding_pin(at.stream, certificate).map(|(act, _)| self.log.act(act).id);
        let kept = self.log.kept(at.stream, certificate).pin;
        Some(Fork { at: fork, kept, by, evidence: self.testimonies(at.stream).take(EVIDENCE_MAX).collect() })
    }

    /// Returns what witnesses say of a stream, by act.
    pub fn testimonies(&self, stream: StreamId) -> impl Iterator<Item = Testimony> + '_ {
        self.log.evidence.on(stream).filter_map(move |(ix, pin)| {
            let record = self.log.act(ix);
            let witness = self.principal_of(record.header.certificate)?;
            Some(Testimony { act: record.id, witness, quorum: self.log.quorum_of(ix), pin, verdict: record.effect })
        })
    }

    /// Returns the header of an act; none if it is not here whole.
    #[must_use]
    pub fn act_header(&self, id: OpId) -> Option<&Header> {
        Some(&*self.log.act(self.log.find(id)?).header)
    }

    fn signer(&self, header: &Header) -> Option<PrincipalId> {
        self.log.certified(self.log.find(header.certificate)?, header.author)
    }
}

fn part_of(log: &Log, ix: ActIx) -> Part {
    match log.act(ix).act() {
        Some(Act::Genesis(_) | Act::Certify(_)) => Part::Certificate,
        Some(Act::Principal(_)) => Part::Introduction,
        Some(Act::Duty(_)) => Part::Duty,
        Some(Act::Join(_)) => Part::Join,
        Some(Act::Grant(_)) => Part::Grant,
        Some(Act::Role(_)) => Part::Role,
        Some(_) | None => Part::Proof,
    }
}

fn stance_of(log: &Log, subject: &Subject<'_>, header: &Header, statement: OpId) -> Stance {
    let Some(ix) = log.find(statement) else { return Stance::Absent };
    let record = log.act(ix);
    let Some(said) = record.statement() else { return Stance::Absent };
    if !subject.past.contains(record.place) {
        return Stance::NotKnown;
    }
    if let Some(at) = said.not_after.filter(|end| !lasts(Some(*end), header)) {
        return Stance::Ended { at };
    }
    if let Some(blame) = log.blame(ix, subject) {
        return Stance::Void(blame);
    }
    let mut hitters = record.hitters.iter().map(|hitter| log.act(*hitter));
    match hitters.find(|hitter| hitter.is_effective()) {
        Some(hitter) => Stance::Pinned { by: hitter.id },
        None => Stance::Counts,
    }
}

/// Adds what [`super::judge::judge_transaction`] looks at.
fn explain(log: &Log, subject: &Subject<'_>, header: &Header, transaction: &Transaction, grounds: &mut Vec<Ground>) {
    let mut add = |statement: OpId, part: Part| {
        if grounds.len() < GROUNDS_MAX && !grounds.iter().any(|ground| ground.statement == statement) {
            grounds.push(Ground { statement, part, stance: stance_of(log, subject, header, statement) });
        }
    };
    add(header.certificate, Part::Certificate);
    let signer = log.find(header.certificate).and_then(|ix| log.certified(ix, header.author));
    let principal = transaction.principal;
    let collection = header.collection();
    let helps = |right: &Right<'_>| needs(&transaction.changes).any(|need| right.gives(collection, need));
    let mut add_all = |right: Right<'_>| right.parts().for_each(|part| add(log.act(part).id, part_of(log, part)));
    if let Some(signer) = signer.filter(|signer| *signer != principal) {
        log.duties_to_act(signer).filter(&helps).for_each(&mut add_all);
    }
    log.rights_of(principal).filter(&helps).for_each(&mut add_all);
    if signer != Some(principal) {
        add(principal.introduced_by(), Part::Introduction);
    }
}
