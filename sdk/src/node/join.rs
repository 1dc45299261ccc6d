//! Inviting and joining: a ticket's secret against a certificate, a membership and the control log.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use folkmoot_core::hash::{Domain, hash};
use folkmoot_core::id::{AuthorKey, ClusterId, OpId, PrincipalId};
use folkmoot_core::keys::SecretKey;
use folkmoot_core::op::{BuiltInRole, Op, codec};
use folkmoot_core::replica::{ActError, ActRequest, Effect, Identity, Input, Reader, Replica, ReplicaConfig, Signer};
use folkmoot_core::store::{Durability, FjallOptions, FjallStore, Keyspace, Order, Span, Store, envelope};
use folkmoot_net::{JoinRequest, Ticket};
use serde::{Deserialize, Serialize};

use super::Inner;
use super::config::{OpenError, random};
use super::core_thread::{Clock, Command, wall_ms};
use super::directory::{ClusterRecord, Directory, InviteRecord, KnownPeer};

/// How long an inviter has to answer.
const JOIN_TIME_MAX: Duration = Duration::from_secs(30);
/// Answers to a join request hold the control log; this is what the network carries.
const ANSWER_BYTES_MAX: usize = folkmoot_net::limits::JOIN_RESPONSE_BYTES_MAX;
/// Longest name of a node.
const NAME_BYTES_MAX: usize = folkmoot_core::limits::ACT_TEXT_BYTES_MAX;

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
    Welcome { name: String, certificate: OpId, control: Vec<serde_bytes::ByteBuf>, peers: Vec<(AuthorKey, String)> },
    Refused { reason: String },
}

/// Hash of a ticket's secret, as the inviter keeps it.
pub(super) fn secret_hash(secret: &[u8]) -> OpId {
    OpId::new(hash(Domain::Network, &[b"invite", secret]))
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
pub(super) async fn join(
    data_dir: &Path,
    ticket: &str,
    name: &str,
    labels: Vec<(String, String)>,
) -> Result<ClusterId, OpenError> {
    let ticket: Ticket = ticket.parse()?;
    if ticket.is_expired(wall_ms()) {
        return Err(OpenError::TicketExpired);
    }
    let directory = Directory::new(data_dir);
    if !directory.is_empty() {
        return Err(super::DirectoryError::Taken(data_dir.to_owned()).into());
    }
    directory.create()?;
    // A join that was cut off goes on with the key that it began with.
    let key = match directory.node_key() {
        Ok(key) => key,
        Err(_) => {
            let key = SecretKey::from_seed(&random()?);
            directory.write_node_key(&key)?;
            key
        }
    };
    let request = Request { secret: ticket.secret.to_vec(), name: name.to_owned(), labels };
    let answer =
        folkmoot_net::join(&key, ticket.inviter, &ticket.addresses, codec::encode(&request).into(), JOIN_TIME_MAX)
            .await
            .map_err(|source| OpenError::Join { inviter: ticket.inviter, source: Box::new(source) })?;
    let bad = |what: String| OpenError::JoinAnswer(what);
    let answer: Answer = codec::decode(&answer, ANSWER_BYTES_MAX).map_err(|error| bad(error.to_string()))?;
    let (cluster_name, certificate, control, peers) = match answer {
        Answer::Welcome { name, certificate, control, peers } => (name, certificate, control, peers),
        Answer::Refused { reason } => return Err(bad(reason)),
    };
    let mut ops = Vec::with_capacity(control.len());
    for bytes in control {
        ops.push(Op::decode(&bytes, ticket.cluster).map_err(|error| bad(error.to_string()))?);
    }
    check_control(&ops, ticket.cluster, certificate, &key).map_err(bad)?;
    let principal = PrincipalId::from(certificate);
    let identity = Identity { node: key, owner: None, cluster: ticket.cluster, certificate, principal };
    begin_store(&directory, identity, ops)?;
    directory.write_token(&random()?)?;
    let mut known: Vec<KnownPeer> = peers.into_iter().map(|(key, address)| KnownPeer { key, address }).collect();
    known
        .extend(ticket.addresses.iter().map(|address| KnownPeer { key: ticket.inviter, address: address.to_string() }));
    directory.write_cluster(&ClusterRecord {
        cluster: ticket.cluster,
        name: cluster_name,
        node_name: name.to_owned(),
        certificate,
        principal,
        peers: known,
    })?;
    Ok(ticket.cluster)
}

/// Checks the control log that an inviter handed over: it begins with the genesis that the ticket names, every chain is
/// whole and ends in a signature, and our certificate is in it.
fn check_control(ops: &[Op], cluster: ClusterId, certificate: OpId, key: &SecretKey) -> Result<(), String> {
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
    Ok(())
}

/// Makes the store of a new data directory with its first ops.
pub(super) fn begin_store(directory: &Directory, identity: Identity, ops: Vec<Op>) -> Result<(), OpenError> {
    let store: Arc<dyn Store> = Arc::new(FjallStore::open(&directory.store(), FjallOptions::default())?);
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
fn control_log(reader: &Reader, cluster: ClusterId) -> Result<Vec<Op>, String> {
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
        let invite = self.use_invite(&secret)?;
        let role = role_of(&invite.role).ok_or("the invitation has an unknown role")?;
        let act = |signer| {
            self.act(signer, ActRequest::Admit { key: request.from, name: name.clone(), labels: labels.clone(), role })
        };
        let admitted = match act(Signer::Node).await {
            Err(ActError::NotAllowed(_)) => act(Signer::Owner).await,
            other => other,
        };
        let admitted = admitted.map_err(|error| format!("this node cannot admit others: {error}"))?;
        let reader = self.reader.clone();
        let cluster = self.record.cluster;
        let ops = tokio::task::spawn_blocking(move || control_log(&reader, cluster))
            .await
            .map_err(|error| error.to_string())??;
        let control = ops.iter().map(|op| serde_bytes::ByteBuf::from(op.encode())).collect();
        let peers = self
            .net
            .get()
            .map(|net| net.peers().into_iter().map(|peer| (peer.peer, peer.address.to_string())).collect())
            .unwrap_or_default();
        Ok(Answer::Welcome { name: self.record.name.clone(), certificate: admitted.op, control, peers })
    }

    /// Takes one use of the invitation with this secret.
    fn use_invite(&self, secret: &[u8]) -> Result<InviteRecord, String> {
        let wanted = secret_hash(secret);
        let now = wall_ms();
        let mut invites = super::lock(&self.invites);
        invites.retain(|invite| invite.expires_ms > now && invite.uses > 0);
        // Comparing hashes of secrets tells nothing about the secrets by its timing.
        let found = invites.iter_mut().find(|invite| invite.secret_hash == wanted);
        let invite = found.ok_or("the ticket is unknown, used up or expired")?;
        invite.uses -= 1;
        let invite = invite.clone();
        invites.retain(|invite| invite.uses > 0);
        self.directory.write_invites(&invites).map_err(|error| error.to_string())?;
        Ok(invite)
    }

    /// Signs a control act.
    pub(super) async fn act(
        &self,
        signer: Signer,
        request: ActRequest,
    ) -> Result<folkmoot_core::replica::Admitted, ActError> {
        let ended = || ActError::NotReady("the node is shutting down".to_owned());
        let (reply, answer) = tokio::sync::oneshot::channel();
        self.core.send(Command::Act(signer, request, reply)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}
