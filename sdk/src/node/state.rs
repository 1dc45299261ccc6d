//! What the node tells about itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use folkmoot_core::audit::{AuditAction, AuditDecision, Event};
use folkmoot_core::authority::Action;
use folkmoot_core::hlc::Hlc;
use folkmoot_core::id::{AuthorKey, CollectionName, PrincipalId};
use folkmoot_core::replica::{ShardInfo, TxState};
use folkmoot_core::replication::{BulkProgress, BulkStage, BulkStatus, ConductStatus, Input as NetInput};
use folkmoot_core::store::CommitterFigures;

use super::access::now;
use super::approvals::awaited;
use super::bootstraps::{bootstrap, last_bootstrap, tell_bootstraps};
use super::convert::{collection_act, read_error, settings};
use super::core_thread::{Command, wall_ms};
use super::invites::{InviteError, InviteRecord, USES_MAX, secret_hash};
use super::join::role_of;
use super::peppers::exposed_passwords;
use super::{Inner, lock, random, schema, unique};
use crate::api::{
    CollectionInfo, CollectionSettings, Conduct, Cursor, Damage, Error, ErrorCode, Invite, InviteOptions, LinkRule,
    PeerInfo, PeerState, PrincipalName, QuarantinePage, QuarantineQuery, Quarantined, Readiness, Result,
    SchemaProgress, ShardDigest, Status, StoreState, Timestamp, UniqueProgress, VerifyReport,
};

/// Ops that may wait to be applied in a node that calls itself ready.
const READY_UNAPPLIED_MAX: u64 = 10_000;
/// A commit that takes longer is the disk's fault: the node is not ready, and somebody is told.
const COMMIT_TIME_MAX: Duration = Duration::from_secs(5);
/// Seconds by which the wall clock may be set while the node runs before somebody is told: peers hold back what comes from
/// a future that is five minutes away.
const CLOCK_MOVED_MAX: i64 = 60;
/// How often metrics of state are brought up to date.
const METRICS_INTERVAL: Duration = Duration::from_secs(1);

/// Tells what a person must look at.
pub(super) fn alarm(kind: &'static str, detail: &str) {
    tracing::error!(kind, detail, "alarm");
    metrics::counter!("folkmoot_alarms_total", "kind" => kind).increment(1);
}

fn gone() -> Error {
    Error::new(ErrorCode::ShuttingDown, "the node is shutting down")
}

/// Checks the indexes of a collection's settings.
fn check_indexes(settings: &CollectionSettings) -> Result<()> {
    use folkmoot_core::limits::INDEXES_MAX;
    let invalid = |what: String, pointer: String| Error::new(ErrorCode::InvalidSettings, what).pointer(pointer);
    if settings.indexes.len() > INDEXES_MAX {
        let what = format!("a collection has at most {INDEXES_MAX} indexes, not {}", settings.indexes.len());
        return Err(invalid(what, "/indexes".to_owned()));
    }
    for (name, index) in &settings.indexes {
        let pointer = || format!("/indexes/{}", name.replace('~', "~0").replace('/', "~1"));
        index.declared(name).parse().map_err(|error| invalid(crate::api::error_chain(&error), pointer()))?;
    }
    Ok(())
}

impl Inner {
    async fn shards(&self) -> Result<Vec<ShardInfo>> {
        self.read_on_thread(folkmoot_core::replica::Reader::shards).await?.map_err(read_error)
    }

    pub(super) async fn collections(&self) -> Result<Vec<CollectionInfo>> {
        let configs = self
            .core
            .look(|replica, _| replica.authority().collections().into_iter().map(|c| c.config).collect::<Vec<_>>())
            .await
            .map_err(|_| gone())?;
        let mut infos: BTreeMap<CollectionName, CollectionInfo> = BTreeMap::new();
        let dropped: BTreeSet<CollectionName> =
            configs.iter().filter(|config| config.dropped).map(|config| config.name.clone()).collect();
        let empty = |name: &CollectionName, settings| CollectionInfo {
            name: name.clone(),
            settings,
            documents: Some(0),
            bytes: Some(0),
            schema_check: None,
            unique_check: None,
        };
        for config in &configs {
            infos.insert(config.name.clone(), empty(&config.name, settings(config)));
        }
        for shard in self.shards().await? {
            let name = &shard.shard.collection;
            if shard.shard.is_control() {
                continue;
            }
            let info = infos.entry(name.clone()).or_insert_with(|| empty(name, CollectionSettings::default()));
            info.documents = info.documents.map(|count| count + shard.documents);
            info.bytes = info.bytes.map(|count| count + shard.bytes);
        }
        let checks = self.schema_checks()?;
        for info in infos.values_mut().filter(|info| info.settings.schema.is_some()) {
            // Of a schema that was set just now nothing is written yet.
            let none = SchemaProgress { seen: 0, invalid: 0, complete: false };
            info.schema_check = Some(checks.get(&info.name).map_or(none, schema::progress));
        }
        let checks = self.unique_checks()?;
        for info in infos.values_mut().filter(|info| !info.settings.unique.is_empty()) {
            let none = UniqueProgress { seen: 0, duplicates: 0, contested: 0, complete: false };
            info.unique_check = Some(checks.get(&info.name).map_or(none, unique::progress));
        }
        infos.retain(|name, _| !dropped.contains(name));
        Ok(infos.into_values().collect())
    }

    pub(super) async fn collection(&self, name: &CollectionName) -> Result<CollectionInfo> {
        let found = self.collections().await?.into_iter().find(|info| info.name == *name);
        found.ok_or_else(|| {
            Error::new(ErrorCode::CollectionNotFound, format!("collection {name} does not exist"))
                .hint("a first write makes it")
        })
    }

    pub(super) async fn configure(
        &self,
        asker: Option<PrincipalId>,
        name: &CollectionName,
        wanted: &CollectionSettings,
        dropped: bool,
    ) -> Result<()> {
        if name.is_system() {
            return Err(Error::new(ErrorCode::NotAllowed, "system collections cannot be configured"));
        }
        if let Ok(now) = self.collection(name).await
            && now.settings.shards != wanted.shards
            && !dropped
        {
            return Err(Error::new(
                ErrorCode::InvalidSettings,
                format!("collection {name} has {} shards, which is fixed at its creation", now.settings.shards),
            )
            .pointer("/shards"));
        }
        check_indexes(wanted)?;
        schema::check_settings(wanted)?;
        // Nothing is held against the schema of what is dropped.
        let wanted_schema = if dropped { None } else { self.schema_text(wanted).await? };
        let asked = (wanted_schema, unique::constraints(wanted)?);
        let act = folkmoot_core::op::Act::Collection(collection_act(name, wanted, asked, dropped));
        self.state(asker, act).await?;
        self.mark_collections().await
    }

    /// Says that the disk has not finished a commit for too long, if it has not.
    fn stalled(&self, figures: &CommitterFigures) -> Option<String> {
        let takes = self.core.clock.commit_takes(figures);
        (takes >= COMMIT_TIME_MAX).then(|| format!("the disk has not finished a commit for {} s", takes.as_secs()))
    }

    pub(super) async fn readiness(&self) -> Result<Readiness> {
        let mut reasons = Vec::new();
        if let Some(reason) = self.core.halted.borrow().clone() {
            reasons.push(format!("the store cannot persist: {reason}"));
        }
        let look = self
            .core
            .look(|replica, committer| {
                let can_judge = replica.authority().rules().can_judge();
                let admission = replica.admission_that_waits(replica.identity().node.author());
                (replica.unapplied(), can_judge, replica.engine().bulks(), committer.figures(), admission)
            })
            .await;
        match look {
            Err(_) => reasons.push("the node is shutting down".to_owned()),
            Ok((unapplied, can_judge, bulks, figures, admission)) => {
                reasons.extend(admission.map(|(_, waits)| format!("this node's admission is {}", awaited(waits))));
                reasons.extend(self.stalled(&figures));
                let comes = bulks.into_iter().filter(|bulk| bulk.progress.stage == BulkStage::Documents);
                reasons.extend(comes.map(|BulkStatus { shard, progress, .. }| {
                    let BulkProgress { documents, total, bytes, .. } = progress;
                    format!("{shard} comes in bulk: {documents} of {total} documents, {bytes} bytes so far")
                }));
                if unapplied > READY_UNAPPLIED_MAX {
                    reasons.push(format!("{unapplied} ops are stored and not yet applied"));
                }
                if !can_judge {
                    reasons.push("the cluster's rules are newer than this program; upgrade it".to_owned());
                }
            }
        }
        Ok(Readiness { ready: reasons.is_empty(), reasons })
    }

    /// Returns whether the recovery key is still to be put away.
    async fn holds_recovery_key(&self) -> bool {
        let directory = self.directory.clone();
        // A panic of such a thread is reported by its hook.
        tokio::task::spawn_blocking(move || directory.has_recovery_key()).await.unwrap_or_default()
    }

    pub(super) async fn status(&self) -> Result<Status> {
        let shards = self.shards().await?;
        let looked = self
            .core
            .look(|replica, _| {
                let now = Hlc::new(wall_ms(), 0);
                let members = replica.authority().members(now).len();
                let bulks = replica.engine().bulks().into_iter();
                let bulks: Vec<_> = bulks.map(|bulk| (replica.bulk_began_ms(&bulk.shard), bulk)).collect();
                let banned = replica.conduct().iter().filter(|conduct| conduct.banned_for.is_some()).count();
                let states = replica.tx_states().clone();
                let approvals = replica.authority().waiting_requests().len();
                (members, replica.unapplied(), states, bulks, replica.last_bulk().cloned(), (banned, approvals))
            })
            .await
            .map_err(|_| gone())?;
        let (members, ops_unapplied, states, bulks, last_bulk, (banned, approvals)) = looked;
        let count = |wanted: &[TxState]| wanted.iter().filter_map(|state| states.get(state)).sum();
        let usage = self.store.usage().map(|usage| usage.disk_bytes).unwrap_or_default();
        let net = self.net.get();
        let halted = self.core.halted.borrow().is_some();
        let exposed = exposed_passwords(&self.core.policy.borrow());
        Ok(Status {
            node: self.node_key.author(),
            peer_id: folkmoot_net::identity::peer_id(&self.node_key.author())
                .map(|peer| peer.to_string())
                .unwrap_or_default(),
            cluster: self.record.cluster,
            cluster_name: self.record.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.started,
            readiness: self.readiness().await?,
            store: if halted { StoreState::Failed } else { StoreState::Healthy },
            store_bytes: usage,
            collections: self.collections().await?.len() as u64,
            documents: shards.iter().map(|shard| shard.documents).sum(),
            ops: shards.iter().map(|shard| shard.ops).sum(),
            ops_unapplied,
            ops_deferred: count(&[TxState::Waiting, TxState::Deferred]),
            quarantined: count(&[
                TxState::NotAllowed,
                TxState::BadChange,
                TxState::AfterRevocation,
                TxState::Duplicate,
                TxState::Forked,
                TxState::Held,
            ]),
            members: u32::try_from(members).unwrap_or(u32::MAX),
            peers_connected: net.map_or(0, |net| u32::try_from(net.peers().len()).unwrap_or(u32::MAX)),
            peers_banned: u32::try_from(banned).unwrap_or(u32::MAX),
            p2p: self.p2p_addresses(),
            bootstraps: bulks.into_iter().map(|(began_ms, bulk)| bootstrap(began_ms, bulk)).collect(),
            last_bootstrap: last_bulk.map(last_bootstrap),
            recovery_unconfirmed: self.holds_recovery_key().await,
            approvals_waiting: u32::try_from(approvals).unwrap_or(u32::MAX),
            passwords_exposed: u32::try_from(exposed).unwrap_or(u32::MAX),
        })
    }

    pub(super) async fn peers(&self) -> Result<Vec<PeerInfo>> {
        let (members, engine, conducts) = self
            .core
            .look(|replica, _| {
                let members = replica.authority().members(Hlc::new(wall_ms(), 0));
                (members, replica.engine().peers(), replica.conduct())
            })
            .await
            .map_err(|_| gone())?;
        let connected = self.net.get().map(folkmoot_net::NetHandle::peers).unwrap_or_default();
        let blocked = lock(&self.blocked).clone();
        let own = self.node_key.author();
        let now = Timestamp::now();
        let infos = members.into_iter().filter(|member| member.key != own).map(|member| {
            let link = connected.iter().find(|peer| peer.peer == member.key);
            let sync = engine.iter().find(|peer| peer.peer == member.key);
            let conduct = conducts.iter().find(|conduct| conduct.peer == member.key);
            let conduct = conduct.map_or_else(Conduct::default, |known| told_conduct(known, now));
            let state = match link {
                _ if blocked.contains(&member.key) => PeerState::Blocked,
                _ if conduct.banned_until.is_some() => PeerState::Banned,
                Some(_) => PeerState::Connected,
                None => PeerState::Disconnected,
            };
            let mut labels = member.labels.clone();
            if !member.name.is_empty() {
                labels.insert("name".to_owned(), member.name.clone());
            }
            PeerInfo {
                node: member.key,
                peer_id: folkmoot_net::identity::peer_id(&member.key).map(|peer| peer.to_string()).unwrap_or_default(),
                labels,
                state,
                addresses: link.map(|link| link.address.to_string()).into_iter().collect(),
                ops_behind: sync.map(|sync| sync.ops_ahead),
                ops_ahead: sync.map(|sync| sync.ops_behind),
                in_sync: sync.filter(|sync| sync.is_equal).map(|_| now),
                last_seen: link.map(|_| now),
                rtt_ms: link.map(|link| link.rtt.as_secs_f64() * 1_000.0),
                conduct,
            }
        });
        Ok(infos.collect())
    }

    pub(super) async fn set_link(&self, peer: &AuthorKey, rule: LinkRule) -> Result<()> {
        if !self.members().contains(peer) || *peer == self.node_key.author() {
            return Err(Error::new(ErrorCode::PeerNotFound, format!("{peer} is not another member of the cluster")));
        }
        if rule == LinkRule::Open {
            self.core.send(Command::Net(NetInput::Pardoned { peer: *peer })).await.map_err(|_| gone())?;
            if let Some(net) = self.net.get() {
                net.pardon(peer);
            }
        }
        let mut blocked = lock(&self.blocked);
        match rule {
            LinkRule::Blocked => blocked.insert(*peer),
            LinkRule::Open => blocked.remove(peer),
        };
        if let Some(net) = self.net.get() {
            net.set_blocked(blocked.clone());
        }
        Ok(())
    }

    pub(super) async fn digests(&self) -> Result<Vec<ShardDigest>> {
        let ops: BTreeMap<_, _> = self
            .core
            .look(|replica, _| {
                replica.engine().digests().map(|(shard, digest)| (shard.clone(), digest)).collect::<BTreeMap<_, _>>()
            })
            .await
            .map_err(|_| gone())?;
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let digests = self.shards().await?.into_iter().map(|info| ShardDigest {
            ops_digest: ops.get(&info.shard).map(|digest| hex(&digest.to_bytes())).unwrap_or_default(),
            state_digest: hex(&info.digest.to_bytes()),
            ops: info.ops,
            documents: info.documents,
            ops_unapplied: info.unapplied,
            shard: info.shard.index,
            of: info.shard.of,
            collection: info.shard.collection,
        });
        Ok(digests.collect())
    }

    pub(super) async fn quarantine(&self, query: &QuarantineQuery) -> Result<QuarantinePage> {
        let after = match &query.after {
            None => None,
            Some(cursor) => Some(unhex(cursor.as_str()).ok_or_else(|| {
                Error::new(ErrorCode::InvalidCursor, "`after` is not a cursor of this list")
                    .hint("pass the `next` of the page before, as it is")
            })?),
        };
        let limit = query.limit();
        let cluster = self.record.cluster;
        let (items, last, full) = self
            .read_on_thread(move |reader| {
                let records = reader.transactions(after.as_deref(), limit)?;
                let full = records.len() == limit;
                let last = records.last().map(|(key, _)| key.clone());
                let items = records
                    .into_iter()
                    .map(|(_, record)| {
                        let op = reader.op(&record.tx, cluster)?;
                        let header = op.as_ref().map(|op| op.header());
                        let transaction = header.and_then(|h| h.transactions().get(usize::from(record.tx.tx)));
                        Ok(Quarantined {
                            op: record.tx.op,
                            transaction: u32::from(record.tx.tx),
                            author: header.map_or(AuthorKey::ZERO, |header| header.author),
                            principal: transaction.map_or(PrincipalId::ZERO, |transaction| transaction.principal),
                            collection: record.shard.collection.clone(),
                            documents: transaction
                                .map(|t| t.changes.iter().map(|change| change.doc.clone()).collect())
                                .unwrap_or_default(),
                            verdict: record.state.name().to_owned(),
                            reason: record.reason,
                            made: Timestamp::from_millis(record.hlc.millis()),
                        })
                    })
                    .collect::<std::result::Result<Vec<_>, folkmoot_core::replica::ReadError>>()?;
                Ok::<_, folkmoot_core::replica::ReadError>((items, last, full))
            })
            .await?
            .map_err(read_error)?;
        let next = last
            .filter(|_| full)
            .map(|key| Cursor::from_text(&key.iter().map(|byte| format!("{byte:02x}")).collect::<String>()));
        Ok(QuarantinePage { items, next })
    }

    pub(super) async fn verify(&self, asker: Option<PrincipalId>) -> Result<VerifyReport> {
        let cluster = self.record.cluster;
        let started = std::time::Instant::now();
        let found =
            self.on_large_stack(move |reader| folkmoot_core::replica::verify(reader.store(), cluster, |_| {})).await?;
        let mut report = VerifyReport {
            streams: found.streams,
            ops: found.ops,
            documents: found.documents,
            elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            damage: Vec::new(),
            damage_total: 0,
        };
        for damage in found.damage {
            report.push(Damage { what: damage.what.to_owned(), place: damage.place, detail: damage.detail });
        }
        report.damage_total = report.damage_total.max(found.damage_total);
        let missing = self.still_missing();
        for lost in self.loss.notes.iter().cloned().chain(missing.iter().map(super::lost_text)) {
            report.push(Damage { what: "watermark".to_owned(), place: "own streams".to_owned(), detail: lost });
        }
        let decision = if report.damage_total == 0 { AuditDecision::Allowed } else { AuditDecision::Failed };
        let what = format!("{} ops, {} documents, {} damaged", report.ops, report.documents, report.damage_total);
        self.note_done(asker, Event::new(AuditAction::Verify, decision).about(what), &Ok(()));
        Ok(report)
    }

    /// Returns the streams that were shorter than they had been when the node started, and are so still: peers give back
    /// what they have.
    fn still_missing(&self) -> Vec<folkmoot_core::store::watermark::Lost> {
        let is_back = |lost: &folkmoot_core::store::watermark::Lost| {
            folkmoot_core::replica::stored_head(&*self.store, &lost.stream)
                .is_some_and(|head| head.seq > lost.expected.seq || head == lost.expected)
        };
        self.loss.streams.iter().filter(|lost| !is_back(lost)).copied().collect()
    }

    pub(super) async fn invite(&self, options: &InviteOptions) -> Result<Invite> {
        let failed = |what: String| Error::new(ErrorCode::Internal, format!("make a ticket: {what}"));
        let Some(net) = self.net.get() else { return Err(failed("the network is not up".to_owned())) };
        let addresses: Vec<_> = self.config.p2p_external.iter().cloned().chain(net.listen_addrs()).collect();
        if addresses.is_empty() {
            return Err(Error::new(ErrorCode::NotReady, "this node listens on no address that a newcomer could reach")
                .hint("start it with --p2p-listen"));
        }
        if options.uses == 0 || options.expires.is_zero() {
            return Err(Error::new(ErrorCode::InvalidParameter, "a ticket needs at least one use and some time"));
        }
        // That too many tickets are good at once is another matter, and over when some have expired.
        if options.uses as usize > USES_MAX {
            let detail = format!("a ticket for {} nodes; at most {USES_MAX} are allowed", options.uses);
            return Err(Error::new(ErrorCode::InvalidRequest, detail).pointer("/uses"));
        }
        let role = role_of(&options.role).ok_or_else(|| {
            Error::new(ErrorCode::InvalidParameter, "the role of a ticket is admin, editor or reader")
        })?;
        let now = Hlc::new(wall_ms(), 0);
        let device_of = match &options.device_of {
            None => None,
            Some(name) => Some(self.owner_of_devices(name, now)?),
        };
        let may_admit = self.core.look(move |replica, _| match device_of {
            Some(principal) => replica.may_admit_device(principal, now),
            None => replica.may_admit(role, now),
        });
        let may_admit = may_admit.await.map_err(|_| gone())?;
        if !may_admit {
            return Err(Error::new(ErrorCode::NotAllowed, "this node may not admit others to the cluster")
                .hint("print the ticket on a node whose role is admin, or on the one that founded the cluster"));
        }
        let secret: [u8; 16] = random().map_err(|error| failed(error.to_string()))?;
        let expires_ms = wall_ms().saturating_add(u64::try_from(options.expires.as_millis()).unwrap_or(u64::MAX));
        let ticket = folkmoot_net::Ticket {
            cluster: self.record.cluster,
            inviter: self.node_key.author(),
            addresses,
            secret,
            expires_ms,
        };
        let record = InviteRecord {
            secret_hash: secret_hash(&secret),
            expires_ms,
            uses: options.uses,
            role: options.role.clone(),
            device_of,
            admitted: Vec::new(),
            pending: Vec::new(),
        };
        lock(&self.invites).add(&self.directory, record, wall_ms()).map_err(|error| match error {
            InviteError::TooMany => Error::new(ErrorCode::Busy, error.to_string()),
            InviteError::NotGood | InviteError::UnderWay | InviteError::Write(_) => failed(error.to_string()),
        })?;
        self.refresh_door();
        Ok(Invite { ticket: ticket.to_string(), expires: Timestamp::from_millis(expires_ms), uses: options.uses })
    }

    /// Finds a principal that may have devices in the cluster.
    fn owner_of_devices(&self, name: &PrincipalName, now: Hlc) -> Result<PrincipalId> {
        let principal = self.find_principal(name)?;
        if self.core.policy.borrow().may_everywhere(principal, Action::Read, now) {
            return Ok(principal);
        }
        let detail = format!("{name} may not read everything, and a device is a member, which holds everything");
        Err(Error::new(ErrorCode::NotAllowed, detail)
            .hint("let its devices be clients, with a token; or grant it `reader`"))
    }

    /// Records that more transactions are in quarantine than before, or fewer.
    fn note_quarantine(&self, states: &BTreeMap<TxState, u64>, before: &mut BTreeMap<TxState, u64>) {
        for (state, now) in states.iter().filter(|(state, _)| !matches!(state, TxState::Waiting | TxState::Deferred)) {
            let was = before.insert(*state, *now).unwrap_or_default();
            if *now > was {
                let what = format!("{}: {} more, {now} in all", state.name(), now - was);
                self.note(Event::new(AuditAction::Quarantine, AuditDecision::Denied).about(state.name()).because(what));
            }
        }
    }

    /// Keeps the metrics of state up to date.
    pub(super) async fn tell_metrics(self: Arc<Self>) {
        let mut tick = tokio::time::interval(METRICS_INTERVAL);
        let (mut told_of_disk, mut told_of_clock) = (false, 0);
        let mut quarantined = BTreeMap::new();
        loop {
            tick.tick().await;
            if let Some(sealed) = &self.sealed {
                metrics::gauge!("folkmoot_keys_rotating").set(f64::from(u8::from(sealed.is_rotating())));
                metrics::gauge!("folkmoot_keys_rewrapped").set(sealed.rewrapped() as f64);
            }
            let unconfirmed = self.holds_recovery_key().await;
            metrics::gauge!("folkmoot_recovery_key_unconfirmed").set(f64::from(u8::from(unconfirmed)));
            let moved = self.core.clock.wall_clock_moved();
            metrics::gauge!("folkmoot_clock_moved_seconds").set(
                Duration::from_secs(moved.unsigned_abs()).as_secs_f64().copysign(if moved < 0 { -1.0 } else { 1.0 }),
            );
            if moved.abs_diff(told_of_clock) > CLOCK_MOVED_MAX.unsigned_abs() {
                told_of_clock = moved;
                let what = format!("the clock has been set by {moved} s since the start");
                alarm("clock", &what);
                self.note(Event::new(AuditAction::Clock, AuditDecision::Allowed).because(what));
            }
            let looked = self
                .core
                .look(|replica, committer| {
                    (
                        replica.counters(),
                        replica.unapplied(),
                        replica.tx_states().clone(),
                        replica.loaded_documents(),
                        replica.engine().peers(),
                        replica.engine().counters(),
                        committer.figures(),
                        replica.figures(),
                        replica.loose_ops(),
                        (replica.engine().bulks(), replica.last_bulk().map(|last| last.ended_ms)),
                        replica.conduct(),
                        (replica.transactions_spilled(), replica.erasure_figures(), replica.forks_undecided()),
                        replica.authority().waiting_requests().len(),
                        (schema::figures(replica), unique::figures(replica)),
                    )
                })
                .await;
            let Ok(looked) = looked else { return };
            let (
                counters,
                unapplied,
                states,
                loaded,
                peers,
                engine,
                figures,
                kept,
                loose,
                bulks,
                conducts,
                others,
                approvals,
                (schemas, uniques),
            ) = looked;
            metrics::gauge!("folkmoot_approvals_waiting").set(approvals as f64);
            let policy = self.core.policy.borrow().clone();
            gauge("folkmoot_feeds_waiting", self.tail.waiting() as u64);
            gauge("folkmoot_passwords_exposed", exposed_passwords(&policy) as u64);
            if policy.acts_for_others(self.node_key.author(), now()) {
                let Ok((missing, _)) = self.missing_peppers(&policy).await else { return };
                gauge("folkmoot_peppers_missing", missing as u64);
            }
            let (spilled, erasures, forks_undecided) = others;
            gauge("folkmoot_forks_undecided", forks_undecided as u64);
            metrics::counter!("folkmoot_evidence_total").absolute(counters.evidence_given);
            schema::tell(&schemas);
            unique::tell(&uniques);
            for (stage, documents) in [("hidden", erasures.hidden), ("swept", erasures.swept), ("gone", erasures.gone)]
            {
                metrics::gauge!("folkmoot_documents_erased", "stage" => stage).set(to_f64(documents));
            }
            self.note_quarantine(&states, &mut quarantined);
            let stalled = self.stalled(&figures);
            if let Some(detail) = stalled.as_ref().filter(|_| !told_of_disk) {
                alarm("disk_stalled", detail);
            }
            told_of_disk = stalled.is_some();
            metrics::counter!("folkmoot_ops_signed_total").absolute(counters.ops_signed);
            metrics::counter!("folkmoot_ops_ingested_total").absolute(counters.ops_ingested);
            metrics::counter!("folkmoot_transactions_applied_total").absolute(counters.transactions_applied);
            metrics::counter!("folkmoot_documents_loaded_total").absolute(counters.documents_loaded);
            metrics::counter!("folkmoot_documents_rebuilt_total").absolute(counters.documents_rebuilt);
            metrics::counter!("folkmoot_views_written_total").absolute(counters.views_written);
            metrics::counter!("folkmoot_documents_expired_total").absolute(counters.documents_expired);
            metrics::counter!("folkmoot_documents_rolled_over_total").absolute(counters.documents_rolled_over);
            metrics::counter!("folkmoot_histories_loaded_total").absolute(counters.histories_loaded);
            metrics::counter!("folkmoot_forks_total").absolute(counters.forks);
            metrics::counter!("folkmoot_requests_replayed_total").absolute(counters.requests_replayed);
            metrics::counter!("folkmoot_requests_forgotten_total").absolute(counters.answers_forgotten);
            metrics::counter!("folkmoot_requests_mismatched_total").absolute(counters.requests_mismatched);
            metrics::counter!("folkmoot_audits_total").absolute(counters.audits);
            metrics::counter!("folkmoot_false_documents_total").absolute(counters.false_documents);
            tell_bootstraps(&counters, &engine, &bulks.0, bulks.1);
            metrics::counter!("folkmoot_damage_found_total").absolute(counters.damage_found);
            metrics::counter!("folkmoot_replication_comparisons_total").absolute(engine.ranges_compared);
            metrics::counter!("folkmoot_replication_pulls_total").absolute(engine.pulls_sent);
            metrics::counter!("folkmoot_replication_pulls_timed_out_total").absolute(engine.pulls_timed_out);
            metrics::counter!("folkmoot_replication_pushes_total").absolute(engine.pushes_sent);
            metrics::counter!("folkmoot_replication_pushes_dropped_total").absolute(engine.pushes_dropped);
            gauge("folkmoot_ops_unapplied", unapplied);
            gauge("folkmoot_ops_loose", loose);
            gauge("folkmoot_documents_cached", loaded.0 as u64);
            gauge("folkmoot_documents_cached_bytes", loaded.1 as u64);
            for state in TxState::ALL {
                let count = states.get(&state).copied().unwrap_or_default();
                metrics::gauge!("folkmoot_transactions_pending", "state" => state.name()).set(to_f64(count));
            }
            let banned = conducts.iter().filter(|conduct| conduct.banned_for.is_some()).count();
            gauge("folkmoot_transactions_spilled", spilled);
            gauge("folkmoot_peers_banned", banned as u64);
            gauge(
                "folkmoot_peers_score_max",
                conducts.iter().map(|conduct| u64::from(conduct.score)).max().unwrap_or(0),
            );
            metrics::counter!("folkmoot_replication_bans_total").absolute(engine.bans);
            metrics::counter!("folkmoot_replication_service_refused_total").absolute(engine.service_refused);
            gauge("folkmoot_peers_connected", peers.len() as u64);
            gauge("folkmoot_peers_equal", peers.iter().filter(|peer| peer.is_equal).count() as u64);
            gauge("folkmoot_replication_ops_behind", peers.iter().map(|peer| peer.ops_behind).max().unwrap_or(0));
            gauge("folkmoot_replication_ops_ahead", peers.iter().map(|peer| peer.ops_ahead).max().unwrap_or(0));
            let indexes = self.indexes.clone();
            // It may wait for whoever reads an index up to the moment.
            let of_indexes = self.read_on_thread(move |_| indexes.figures()).await.unwrap_or_default();
            for figure in kept.into_iter().chain(of_indexes) {
                metrics::gauge!("folkmoot_memory_held", "what" => figure.name).set(to_f64(figure.held as u64));
                metrics::gauge!("folkmoot_memory_bound", "what" => figure.name).set(to_f64(figure.bound as u64));
            }
            gauge("folkmoot_store_commit_queue", figures.queued as u64);
            gauge("folkmoot_store_commit_queue_bytes", figures.queued_bytes as u64);
            metrics::counter!("folkmoot_store_committed_bytes_total").absolute(figures.bytes);
            metrics::counter!("folkmoot_store_commit_failures_total").absolute(figures.failures);
            let shards = self.shards().await.unwrap_or_default();
            let data = || shards.iter().filter(|shard| !shard.shard.is_control());
            gauge("folkmoot_stored_documents", data().map(|shard| shard.documents).sum());
            gauge("folkmoot_stored_bytes", data().map(|shard| shard.bytes).sum());
            let (issuers, without_keys) = self.oidc.standing();
            gauge("folkmoot_oidc_issuers", issuers);
            gauge("folkmoot_oidc_issuers_without_keys", without_keys);
            let ready = self.readiness().await.is_ok_and(|readiness| readiness.ready);
            gauge("folkmoot_ready", u64::from(ready));
        }
    }
}

fn told_conduct(known: &ConductStatus, now: Timestamp) -> Conduct {
    let until = |left: Duration| now.millis().saturating_add(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
    Conduct {
        score: known.score,
        misdeeds: known.counts.iter().map(|(what, count)| (what.name().to_owned(), *count)).collect(),
        last: known.last.map(|what| what.name().to_owned()),
        bans: known.bans,
        banned_until: known.banned_for.map(|left| Timestamp::from_millis(until(left))),
    }
}

pub(super) fn gauge(name: &'static str, value: u64) {
    metrics::gauge!(name).set(to_f64(value));
}

/// Sets how much there is of something, or may be.
pub(super) fn gauge_of(name: &'static str, what: &'static str, value: u64) {
    metrics::gauge!(name, "what" => what).set(to_f64(value));
}

#[expect(clippy::cast_precision_loss, reason = "gauges are floats; counts beyond 2^53 need not be exact")]
pub(super) const fn to_f64(value: u64) -> f64 {
    value as f64
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    /// A key of the quarantine has 34 bytes.
    const CHARS_MAX: usize = 128;
    if text.len() > CHARS_MAX || !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len() / 2).map(|at| u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()).collect()
}
