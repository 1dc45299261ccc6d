//! Inviting and joining: a ticket's secret against a certificate, a membership and the control log.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use folkmoot_core::hlc::Hlc;
use folkmoot_core::id::{AuthorKey, ClusterId, OpId, PrincipalId};
use folkmoot_core::keys::SecretKey;
use folkmoot_core::op::{BuiltInRole, Op, codec};
use folkmoot_core::replica::{
    ActError, ActRequest, Admitted, Effect, Identity, Input, Reader, Replica, ReplicaConfig, Signer, Waits,
};
use folkmoot_core::store::{Durability, FjallOptions, Keyspace, Order, Span, envelope};
use folkmoot_net::{JoinError, JoinRequest, Ticket};
use serde::{Deserialize, Serialize};

use super::Inner;
use super::config::{JoinOptions, OpenError, random};
use super::core_thread::{Clock, Command, wall_ms};
use super::directory::{ClusterRecord, Directory, KnownPeer};
use super::invites::{Claim, Ended};
use crate::api::AwaitedApproval;

/// How long an inviter has to answer.
const JOIN_TIME_MAX: Duration = Duration::from_secs(30);
/// Answers to a join request hold the control log; this is what the network carries.
const ANSWER_BYTES_MAX: usize = folkmoot_net::limits::JOIN_RESPONSE_BYTES_MAX;
/// Peers told to a newcomer; it learns of the others from these.
const ANSWER_PEERS_MAX: usize = 64;
/// Longest name of a node.
const NAME_BYTES_MAX: usize = folkmoot_core::limits::ACT_TEXT_BYTES_MAX;

/// A cluster that was joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// The cluster.
    pub cluster: ClusterId,
    /// What other owners have to approve before its members let the node in; none if they do at once.
    pub awaits: Option<AwaitedApproval>,
}

/// What a newcomer sends.
#[derive(Serialize, Deserialize)]
struct Request {
    #[serde(with = "serde_bytes")]
    secret: Vec<u8>,
    name: String,
    labels: Vec<(String, String)>,
}

/// What it gets.
#[derive(Serialize, Deserialize)]
enum Answer {
    Welcome {
        name: String,
        certificate: OpId,
        control: Vec<serde_bytes::ByteBuf>,
        peers: Vec<(AuthorKey, String)>,
        /// The act that other owners have to approve before this counts, and how many of them.
        awaits: Option<(OpId, u8)>,
    },
    Refused {
        reason: String,
    },
}

/// The names of the roles that a node can be invited with.
pub(super) fn role_of(name: &str) -> Option<BuiltInRole> {
    match name {
        "admin" => Some(BuiltInRole::Admin),
        "editor" => Some(BuiltInRole::Editor),
        "reader" => Some(BuiltInRole::Reader),
        _ => None,
    }
}

/// Joins a cluster: makes a data directory with which a node can then be opened.
pub(super) async fn join(data_dir: &Path, ticket: &str, options: JoinOptions) -> Result<Joined, OpenError> {
    let ticket: Ticket = ticket.parse()?;
    if ticket.is_expired(wall_ms()) {
        return Err(OpenError::TicketExpired);
    }
    let mut directory = Directory::new(data_dir);
    if !directory.is_empty() {
        return Err(super::DirectoryError::Taken(data_dir.to_owned()).into());
    }
    directory.create()?;
    let _lock = directory.lock()?;
    let JoinOptions { name, labels, keys } = options;
    let directory = tokio::task::spawn_blocking(move || directory.seal(&keys).map(|()| directory))
        .await
        .map_err(|error| OpenError::Thread(std::io::Error::other(error)))??;
    // A join that was cut off goes on with the key that it began with.
    let key = match directory.node_key() {
        Ok(key) => key,
        Err(_) => {
            let key = SecretKey::from_seed(&random()?);
            directory.write_node_key(&key)?;
            key
        }
    };
    let Welcome { cluster_name, certificate, principal, control, peers, awaits } =
        ask(&key, &ticket, &name, labels).await?;
    let identity = Identity { node: key, owner: None, cluster: ticket.cluster, certificate, principal };
    begin_store(&directory, identity, control)?;
    directory.write_token(&random()?)?;
    directory.write_cluster(&ClusterRecord {
        cluster: ticket.cluster,
        name: cluster_name,
        node_name: name,
        certificate,
        principal,
        sealed: directory.is_sealed(),
        earlier_keys: Vec::new(),
        peers,
    })?;
    Ok(Joined { cluster: ticket.cluster, awaits })
}

/// What a node is told that is let in.
pub(super) struct Welcome {
    pub(super) cluster_name: String,
    pub(super) certificate: OpId,
    /// Whom the key is certified for: a new principal, or the one whose device it is.
    pub(super) principal: PrincipalId,
    /// The control log, checked.
    pub(super) control: Vec<Op>,
    pub(super) peers: Vec<KnownPeer>,
    /// What other owners have to approve before.
    pub(super) awaits: Option<AwaitedApproval>,
}

/// All the reasons that there are for being refused before anything is said.
const REFUSED_AT_THE_DOOR: &str = "it lets nobody in now: the ticket is used up, or was given out by a node that has forgotten \
     it, or many came from this address just now, of which one is let in every two seconds";

/// Asks to be let in with a ticket.
pub(super) async fn ask(
    key: &SecretKey,
    ticket: &Ticket,
    name: &str,
    labels: Vec<(String, String)>,
) -> Result<Welcome, OpenError> {
    let request = Request { secret: ticket.secret.to_vec(), name: name.to_owned(), labels };
    let asked = codec::encode(&request).into();
    let answer = folkmoot_net::join(key, ticket.inviter, &ticket.addresses, asked, JOIN_TIME_MAX).await;
    let answer = answer.map_err(|source| match source {
        // Who is refused at the door is told no reason; these are all there are.
        JoinError::Refused => OpenError::JoinRefused(REFUSED_AT_THE_DOOR.to_owned()),
        source => OpenError::Join { inviter: ticket.inviter, source: Box::new(source) },
    })?;
    let bad = |what: String| OpenError::JoinAnswer(what);
    let answer: Answer = codec::decode(&answer, ANSWER_BYTES_MAX).map_err(|error| bad(error.to_string()))?;
    let (cluster_name, certificate, control, peers, awaits) = match answer {
        Answer::Welcome { name, certificate, control, peers, awaits } => (name, certificate, control, peers, awaits),
        Answer::Refused { reason } => return Err(OpenError::JoinRefused(printable(&reason))),
    };
    let mut ops = Vec::with_capacity(control.len());
    for bytes in control {
        ops.push(Op::decode(&bytes, ticket.cluster).map_err(|error| bad(error.to_string()))?);
    }
    let principal = check_control(&ops, ticket.cluster, certificate, key).map_err(bad)?;
    let mut known: Vec<KnownPeer> = peers.into_iter().map(|(key, address)| KnownPeer { key, address }).collect();
    known
        .extend(ticket.addresses.iter().map(|address| KnownPeer { key: ticket.inviter, address: address.to_string() }));
    let awaits = awaits.map(|(op, missing)| AwaitedApproval { op, missing });
    Ok(Welcome { cluster_name, certificate, principal, control: ops, peers: known, awaits })
}

/// Text of a stranger, fit for a terminal.
fn printable(text: &str) -> String {
    /// Longer than every reason that this program gives.
    const CHARS_MAX: usize = 300;
    text.chars().filter(|c| !c.is_control()).take(CHARS_MAX).collect()
}

/// Checks the control log that an inviter handed over: it begins with the genesis that the ticket names, every chain is
/// whole and ends in a signature, and our certificate is in it. Returns whom that is for.
fn check_control(ops: &[Op], cluster: ClusterId, certificate: OpId, key: &SecretKey) -> Result<PrincipalId, String> {
    use folkmoot_core::authority::{Authority, check_against_previous};
    if ops.first().is_none_or(|op| op.id() != cluster.genesis()) {
        return Err("the control log does not begin with the ticket's cluster".to_owned());
    }
    let mut last: std::collections::BTreeMap<_, &Op> = std::collections::BTreeMap::new();
    let mut authority = Authority::new(cluster);
    for op in ops {
        match last.insert(op.stream(), op) {
            None if op.header().seq != 1 => return Err("a control stream does not begin at 1".to_owned()),
            None => {}
            Some(before) => check_against_previous(op.header(), before.header(), before.id())
                .map_err(|error| format!("a control stream is broken: {error}"))?,
        }
        authority.add_control(op.id(), op.header_arc()).map_err(|error| error.to_string())?;
    }
    for op in last.values() {
        let author = folkmoot_core::keys::PublicKey::new(&op.header().author);
        if !author.is_some_and(|author| op.is_signed_by(&author)) {
            return Err("a control stream does not end in its author's signature".to_owned());
        }
    }
    if authority.is_certified(certificate, key.author()) != Some(true) {
        return Err("our certificate is not in the control log".to_owned());
    }
    authority.principal_of(certificate).ok_or_else(|| "our certificate is for nobody".to_owned())
}

/// Makes the store of a new data directory with its first ops.
pub(super) fn begin_store(directory: &Directory, identity: Identity, ops: Vec<Op>) -> Result<(), OpenError> {
    let store = directory.open_store(&directory.store(), FjallOptions::default())?.store;
    let now = Clock::start().now();
    let mut replica = Replica::open(ReplicaConfig::default(), identity, store.clone(), &random()?, now)?;
    replica.seed_control(ops);
    let mut effects = Vec::new();
    while replica.has_staged() {
        replica.flush(now, &mut effects);
        for effect in std::mem::take(&mut effects) {
            if let Effect::Commit { id, batch, .. } = effect {
                store.commit(&batch, Durability::Synced)?;
                replica.step(now, Input::Committed(id), &mut effects);
            }
        }
    }
    Ok(())
}

/// Returns the control log, each stream in order and the genesis first.
pub(super) fn control_log(reader: &Reader, cluster: ClusterId) -> Result<Vec<Op>, String> {
    use folkmoot_core::store::keys::ArrivalKey;
    let store = reader.store();
    let mut ops = Vec::new();
    let span: Span = ArrivalKey::shard(&folkmoot_core::id::ShardId::control());
    for entry in store.scan(Keyspace::Arrivals, &span, Order::Ascending) {
        let (_, place) = entry.map_err(|error| error.to_string())?;
        let place = envelope::open(place).map_err(|error| error.to_string())?;
        let Some(value) = store.get(Keyspace::Ops, &place).map_err(|error| error.to_string())? else { continue };
        let value = envelope::open(value).map_err(|error| error.to_string())?;
        ops.push(Op::decode(&value, cluster).map_err(|error| error.to_string())?);
    }
    Ok(ops)
}

impl Inner {
    /// Answers a request to join.
    pub(super) async fn answer_join(self: Arc<Self>, request: JoinRequest) {
        let from = request.from;
        // The door stays open for whoever is being answered, even when that was the ticket's last use.
        self.joins.fetch_add(1, Ordering::SeqCst);
        let answer = match self.admit(&request).await {
            Ok(answer) => {
                tracing::info!(peer = %from, "a node joined");
                metrics::counter!("folkmoot_joins_total").increment(1);
                answer
            }
            Err(reason) => {
                tracing::warn!(peer = %from, reason, "refused a request to join");
                metrics::counter!("folkmoot_joins_refused_total").increment(1);
                Answer::Refused { reason }
            }
        };
        if let Err(error) = request.reply(Bytes::from(codec::encode(&answer))) {
            tracing::warn!(peer = %from, %error, "could not answer a request to join");
        }
        self.joins.fetch_sub(1, Ordering::SeqCst);
    }

    async fn admit(&self, request: &JoinRequest) -> Result<Answer, String> {
        let Request { secret, name, labels } =
            codec::decode(&request.bytes, folkmoot_net::limits::JOIN_REQUEST_BYTES_MAX)
                .map_err(|_| "the request is malformed".to_owned())?;
        if name.len() > NAME_BYTES_MAX || labels.len() > 16 {
            return Err("the name is too long, or there are too many labels".to_owned());
        }
        let claim = super::lock(&self.invites).claim(&self.directory, &secret, request.from, wall_ms());
        let (certificate, waits) = match claim.map_err(|error| error.to_string())? {
            Claim::Admit { role, device_of } => {
                // A cluster whose control log does not fit into an answer takes nobody in this way.
                let admitted = match self.control_log_for_answer().await {
                    Ok(_) => self.sign_admission(request.from, (&role, device_of), name, labels).await,
                    Err(reason) => Err(ActError::NotAllowed(reason)),
                };
                let ended = match &admitted {
                    Ok(_) => Ended::Admitted,
                    // Who stops while it signs does not learn whether it did.
                    Err(ActError::Unknown(_) | ActError::NotReady(_)) => Ended::Unknown,
                    Err(_) => Ended::Refused,
                };
                let settled = super::lock(&self.invites).settle(&self.directory, &secret, request.from, ended);
                if let Err(error) = settled {
                    // It stays noted as being admitted, which the next start settles.
                    tracing::error!(%error, "cannot write down how an admission ended");
                }
                let Admitted { op, waits } =
                    admitted.map_err(|error| format!("this node cannot admit others: {error}"))?;
                (op, waits)
            }
            Claim::Again => self.certificate_of(request.from).await?,
        };
        let control = self.control_log_for_answer().await?;
        let peers = self
            .net
            .get()
            .map(|net| {
                net.peers()
                    .into_iter()
                    .take(ANSWER_PEERS_MAX)
                    .map(|peer| (peer.peer, peer.address.to_string()))
                    .collect()
            })
            .unwrap_or_default();
        let awaits = waits.map(|waits| (waits.op, waits.missing));
        Ok(Answer::Welcome { name: self.record.name.clone(), certificate, control, peers, awaits })
    }

    async fn sign_admission(
        &self,
        key: AuthorKey,
        (role, device_of): (&str, Option<PrincipalId>),
        name: String,
        labels: Vec<(String, String)>,
    ) -> Result<Admitted, ActError> {
        let request = match device_of {
            Some(principal) => ActRequest::AdmitDevice { key, principal, name, labels },
            None => {
                let unknown = || format!("the ticket's role {role:?} is unknown to this version");
                let role = role_of(role).ok_or_else(|| ActError::NotAllowed(unknown()))?;
                ActRequest::Admit { key, name, labels, role }
            }
        };
        let act = |signer| self.act(signer, request.clone());
        match act(Signer::Node).await {
            Err(ActError::NotAllowed(_)) => act(Signer::Owner).await,
            other => other,
        }
    }

    /// Returns the certificate of a node that came in before, and what it waits for.
    async fn certificate_of(&self, key: AuthorKey) -> Result<(OpId, Option<Waits>), String> {
        let found = self
            .core
            .look(move |replica, _| {
                let now = Hlc::new(wall_ms(), 0);
                if let Some((certificate, waits)) = replica.admission_that_waits(key) {
                    return Some((certificate, Some(waits)));
                }
                let principal = replica.authority().member(key, now)?.principal;
                let certificate = replica.authority().certificate_for(key, principal, now)?;
                Some((certificate.id, None))
            })
            .await;
        let found = found.map_err(|_| "the inviting node is shutting down".to_owned())?;
        found.ok_or_else(|| "this node came in before and has been removed since".to_owned())
    }

    /// Returns the control log as an answer carries it, if it fits.
    async fn control_log_for_answer(&self) -> Result<Vec<serde_bytes::ByteBuf>, String> {
        /// What else is in an answer: names, and addresses of peers.
        const REST_BYTES: usize = 64 << 10;
        let (reader, cluster) = (self.reader.clone(), self.record.cluster);
        let ops = tokio::task::spawn_blocking(move || control_log(&reader, cluster))
            .await
            .map_err(|error| error.to_string())??;
        let control: Vec<_> = ops.iter().map(|op| serde_bytes::ByteBuf::from(op.encode())).collect();
        let bytes: usize = control.iter().map(|op| op.len() + 5).sum();
        if bytes > ANSWER_BYTES_MAX - REST_BYTES {
            return Err(format!(
                "the cluster's control log has {bytes} bytes, more than the answer to a newcomer takes"
            ));
        }
        Ok(control)
    }

    /// Signs a control act.
    pub(super) async fn act(&self, signer: Signer, request: ActRequest) -> Result<Admitted, ActError> {
        let ended = || ActError::NotReady("the node is shutting down".to_owned());
        let (reply, answer) = tokio::sync::oneshot::channel();
        self.core.send(Command::Act(signer, request, reply)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}
