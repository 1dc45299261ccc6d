//! What can be done to a data directory while no node runs on it: check it, make its store again, take everything from
//! peers.
//!
//! Nothing is deleted: what is replaced is set aside, in numbered folders of the directory. A replacement takes effect in
//! one step, so that a crash leaves the old store or the new one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use folkmoot_core::id::StreamId;
use folkmoot_core::op::Op;
use folkmoot_core::replica::{self, Gap, Identity, Reader, Rebuilding, Selection};
use folkmoot_core::store::salvage::Salvage;
use folkmoot_core::store::sealed::Opener;
use folkmoot_core::store::watermark::{self, Mark, Recorded, Standing, WatermarkFile};
use folkmoot_core::store::{Durability, FjallOptions, Store};
use folkmoot_net::Ticket;
use serde::{Deserialize, Serialize};

use super::config::{KeySettings, OpenError, random};
use super::core_thread::{Clock, wall_ms};
use super::directory::{Directory, DirectoryError};
use super::{join, lost_text};
use crate::api::{AuditVerifyReport, Damage, VerifyReport, error_chain};

/// How a store is to be made again.
#[derive(Clone, Debug, Default)]
pub struct RepairOptions {
    /// Other data directories, or stores that were set aside, whose ops are taken too.
    pub from: Vec<PathBuf>,
    /// Whether acknowledged writes that cannot be found are given up for lost: nobody is told of them any more.
    pub accept_loss: bool,
    /// How the directory is unlocked, and the others.
    pub keys: KeySettings,
}

/// How a node is to begin anew.
#[derive(Clone, Debug, Default)]
pub struct RejoinOptions {
    /// A ticket from a member, if this node does not know its cluster's control log any more, or where anybody is.
    pub ticket: Option<String>,
    /// How the directory is unlocked.
    pub keys: KeySettings,
}

/// Where ops are that could not be found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingOps {
    /// The stream.
    pub stream: String,
    /// The collection, if that is known.
    pub collection: Option<String>,
    /// The author's key, if that is known.
    pub author: Option<String>,
    /// First sequence number.
    pub from: u64,
    /// Last sequence number.
    pub to: u64,
}

impl From<Gap> for MissingOps {
    fn from(gap: Gap) -> Self {
        Self {
            stream: gap.stream.to_string(),
            collection: gap.shard.map(|shard| shard.collection.to_string()),
            author: gap.author.map(|author| author.to_string()),
            from: gap.from,
            to: gap.to,
        }
    }
}

/// What was done to a data directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MendReport {
    /// Where the old store is now.
    pub set_aside: PathBuf,
    /// Its bytes.
    pub set_aside_bytes: u64,
    /// Streams found in it.
    pub streams: u64,
    /// Ops that are part of the new store.
    pub ops: u64,
    /// Ops that are kept until those before them come from a peer.
    pub ops_loose: u64,
    /// Entries that could be found and are no ops any more.
    pub damaged: u64,
    /// How many ops are known to be missing.
    pub ops_missing: u64,
    /// Which they are, the first thousand gaps.
    pub missing: Vec<MissingOps>,
    /// What could not be read.
    pub problems: Vec<String>,
    /// How long it took.
    pub elapsed_ms: u64,
}

/// A data directory that this process has for itself.
struct Held {
    directory: Directory,
    record: super::ClusterRecord,
    identity: Identity,
    _lock: std::fs::File,
}

impl Held {
    fn open(data_dir: &Path, keys: &KeySettings) -> Result<Self, OpenError> {
        let mut directory = Directory::new(data_dir);
        if directory.is_empty() {
            return Err(DirectoryError::Empty(data_dir.to_owned()).into());
        }
        let lock = directory.lock()?;
        directory.settle_replacement()?;
        let record = directory.cluster()?;
        directory.unlock(&record, keys)?;
        directory.settle_rotation(&record)?;
        let identity = directory.identity(&record)?;
        Ok(Self { directory, record, identity, _lock: lock })
    }

    fn marks(&self) -> Result<Vec<(StreamId, Mark)>, OpenError> {
        Ok(match watermark::read(&self.directory.watermark())? {
            Recorded::Marks { watermark, .. } => watermark.marks().collect(),
            Recorded::Nothing | Recorded::Damaged => Vec::new(),
        })
    }

    /// Makes a store of what can be read and puts it in the place of the old one.
    fn replace(
        &self,
        selection: Selection,
        from: &[(PathBuf, Option<Opener>)],
        control: Vec<Op>,
        accept_loss: bool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<MendReport, OpenError> {
        let started = Instant::now();
        let marks = self.marks()?;
        let making = self.directory.begin_store()?;
        let mut stores = from.to_vec();
        stores.insert(0, (self.directory.store(), self.directory.opener()));
        let mut report = MendReport::default();
        let mut control = control;
        control.extend(self.directory.control(self.record.cluster));
        let store = self.directory.open_store(&making, FjallOptions::default())?.store;
        let mut gaps: Vec<Gap> = Vec::new();
        let mut members = 0;
        for (index, (path, opener)) in stores.iter().enumerate() {
            let mut old = match Salvage::open(path, opener.clone()) {
                Ok(old) => Some(old),
                // One's own may be gone altogether; one that was named must be there.
                Err(error) if index == 0 => {
                    report.problems.push(error_chain(&error));
                    if stores.len() > 1 {
                        continue;
                    }
                    None
                }
                Err(error) => return Err(error.into()),
            };
            let before = report.ops;
            let rebuilding = Rebuilding {
                old: old.as_mut(),
                selection: if index == 0 { selection } else { Selection::All },
                control: std::mem::take(&mut control),
                marks: marks.clone(),
                identity: self.identity.clone(),
                earlier_keys: self.record.earlier_keys.clone(),
                seed: random()?,
                now: Clock::start().now(),
            };
            let rebuilt = replica::rebuild(rebuilding, &store, |so_far| progress(before + so_far.ops))?;
            report.streams += rebuilt.streams;
            report.ops += rebuilt.ops;
            report.damaged += rebuilt.damaged;
            report.problems.extend(rebuilt.problems.iter().cloned());
            report.ops_loose = rebuilt.loose;
            members = rebuilt.members;
            gaps.extend(rebuilt.gaps);
        }
        // What one store lacked another may have had, and marks are compared with each.
        gaps.retain(|gap| replica::stored_head(&*store, &gap.stream).is_none_or(|head| head.seq < gap.to));
        gaps.sort_by_key(|gap| (gap.stream, gap.from, gap.to));
        gaps.dedup_by_key(|gap| (gap.stream, gap.to));
        report.ops_missing = gaps.iter().map(|gap| gap.to - gap.from + 1).sum();
        report.missing = gaps.into_iter().map(MissingOps::from).collect();
        // Whoever is a member may find this node, too.
        let has_peers = members > 1 || self.knows_peers();
        match selection {
            Selection::Own if !has_peers => return Err(OpenError::NoPeers),
            Selection::All if !has_peers && !accept_loss => self.check_nothing_hidden(&store)?,
            Selection::Own | Selection::All => {}
        }
        self.carry_marks(&*store, &marks, accept_loss)?;
        drop(store);
        report.set_aside = self.directory.replace_store()?;
        report.set_aside_bytes = bytes_in(&report.set_aside);
        report.elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(report)
    }

    /// Whether there is anybody who may give back what is missing.
    fn knows_peers(&self) -> bool {
        !self.record.peers.is_empty() || self.directory.peers().is_ok_and(|peers| !peers.is_empty())
    }

    /// Refuses a store that shows fewer documents than the old one: what lies behind a lost op cannot be shown before
    /// somebody gives that back, and nobody will.
    fn check_nothing_hidden(&self, new: &Arc<dyn Store>) -> Result<(), OpenError> {
        if !self.directory.store().exists() {
            return Ok(());
        }
        let Ok(old) = self.directory.open_store(&self.directory.store(), FjallOptions::default()) else {
            return Ok(());
        };
        let documents = |store: Arc<dyn Store>| {
            let shards = Reader::new(store).shards().unwrap_or_default();
            shards.iter().filter(|info| !info.shard.is_control()).map(|info| info.documents).sum::<u64>()
        };
        let (old, new) = (documents(old.store), documents(new.clone()));
        if new < old { Err(OpenError::Hides { old, new }) } else { Ok(()) }
    }

    /// Writes a watermark that still tells of what was acknowledged and is not in the new store.
    fn carry_marks(&self, store: &dyn Store, marks: &[(StreamId, Mark)], accept_loss: bool) -> Result<(), OpenError> {
        let epoch = replica::stored_epoch(store)?;
        let path = self.directory.new_watermark();
        // One that an earlier attempt left is of another store.
        let _ = std::fs::remove_file(&path);
        let (mut file, _) = WatermarkFile::open(&path, epoch, Durability::Synced)?;
        let kept: Vec<(StreamId, Mark)> = if accept_loss { Vec::new() } else { marks.to_vec() };
        file.record(&kept)?;
        Ok(())
    }
}

/// Returns the store of a data directory with what opens it; a folder that is none is one itself, or holds one that was set
/// aside, and was sealed as the directory `of` is.
fn store_of(path: &Path, of: &Directory, keys: &KeySettings) -> Result<(PathBuf, Option<Opener>), OpenError> {
    let mut directory = Directory::new(path);
    let within = directory.store();
    if !directory.is_empty() {
        let record = directory.cluster()?;
        directory.unlock(&record, keys)?;
        return Ok((within, directory.opener()));
    }
    Ok((if within.is_dir() { within } else { path.to_owned() }, of.opener()))
}

fn bytes_in(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    let sizes = entries.filter_map(Result::ok).map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => bytes_in(&entry.path()),
        _ => allocated(&entry),
    });
    sizes.sum()
}

/// Journals are sparse files.
fn allocated(entry: &std::fs::DirEntry) -> u64 {
    let Ok(metadata) = entry.metadata() else { return 0 };
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        metadata.blocks().saturating_mul(512)
    }
    #[cfg(not(unix))]
    {
        metadata.len()
    }
}

/// Runs something on a thread with the stack that documents need.
fn on_large_stack<T: Send>(run: impl FnOnce() -> Result<T, OpenError> + Send) -> Result<T, OpenError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("folkmoot-mend".into())
            .stack_size(folkmoot_core::document::gate::STACK_BYTES)
            .spawn_scoped(scope, run)
            .map_err(OpenError::Thread)?;
        thread.join().map_err(|_| OpenError::Thread(std::io::Error::other("the thread panicked")))?
    })
}

/// Checks a data directory on which no node runs: whether its store opens, everything that is in it, and whether it reaches
/// as far as it did when the node last wrote.
///
/// # Errors
/// [`OpenError`] if it cannot be checked, as when a node runs on it.
pub(super) fn verify(data_dir: &Path, keys: &KeySettings) -> Result<VerifyReport, OpenError> {
    let held = Held::open(data_dir, keys)?;
    on_large_stack(|| held.verify())
}

/// Checks the audit log of a data directory on which no node runs.
///
/// # Errors
/// [`OpenError`] if it cannot be checked, as when a node runs on it.
pub(super) fn audit_verify(data_dir: &Path, keys: &KeySettings) -> Result<AuditVerifyReport, OpenError> {
    let held = Held::open(data_dir, keys)?;
    if !held.directory.store().exists() {
        return Err(DirectoryError::NoStore(held.directory.store()).into());
    }
    let store = held.directory.open_store(&held.directory.store(), FjallOptions::default())?.store;
    let node = held.identity.node.author();
    Ok(folkmoot_core::audit::check_log(&*store, held.record.cluster, &held.record.keys(node)).into())
}

impl Held {
    fn verify(&self) -> Result<VerifyReport, OpenError> {
        let started = Instant::now();
        let mut report = VerifyReport::default();
        let mut found = |what: &str, place: String, detail: String| {
            report.push(Damage { what: what.to_owned(), place, detail });
        };
        if !self.directory.store().exists() {
            found("store", "store".to_owned(), DirectoryError::NoStore(self.directory.store()).to_string());
            return Ok(report);
        }
        let store = match self.directory.open_store(&self.directory.store(), FjallOptions::default()) {
            Ok(opened) => opened.store,
            Err(OpenError::Store(error)) => {
                found("store", "store".to_owned(), error_chain(&error));
                return Ok(report);
            }
            Err(error) => return Err(error),
        };
        let checked = replica::verify(&store, self.record.cluster, |_| {});
        for lost in self.lost(&*store) {
            found("watermark", "own streams".to_owned(), lost);
        }
        report.streams = checked.streams;
        report.ops = checked.ops;
        report.documents = checked.documents;
        let more = checked.damage_total.saturating_sub(checked.damage.len() as u64);
        for damage in checked.damage {
            report.push(Damage { what: damage.what.to_owned(), place: damage.place, detail: damage.detail });
        }
        report.damage_total += more;
        report.elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(report)
    }

    /// Compares the watermark with the store.
    fn lost(&self, store: &dyn Store) -> Vec<String> {
        let watermark = match watermark::read(&self.directory.watermark()) {
            Ok(Recorded::Marks { watermark, .. }) => watermark,
            Ok(Recorded::Nothing) => return Vec::new(),
            Ok(Recorded::Damaged) => return vec!["the watermark file is damaged".to_owned()],
            Err(error) => return vec![error_chain(&error)],
        };
        let Ok(epoch) = replica::stored_epoch(store) else { return vec!["the store has no epoch".to_owned()] };
        let head = |stream: &StreamId| Ok::<_, std::convert::Infallible>(replica::stored_head(store, stream));
        match watermark.compare(epoch, head) {
            Ok(Standing::Whole { .. }) => Vec::new(),
            Ok(Standing::Lost(lost)) => lost.iter().map(lost_text).collect(),
            Ok(Standing::OtherEpoch { recorded }) => {
                vec![format!("the watermark belongs to another store ({recorded})")]
            }
            Err(never) => match never {},
        }
    }
}

/// Makes the store of a data directory again of the ops that can be read of it.
///
/// # Errors
/// [`OpenError`]; the directory is as it was.
pub(super) fn repair(
    data_dir: &Path,
    options: &RepairOptions,
    mut progress: impl FnMut(u64) + Send,
) -> Result<MendReport, OpenError> {
    let held = Held::open(data_dir, &options.keys)?;
    let from = options.from.iter().map(|path| store_of(path, &held.directory, &options.keys));
    let from = from.collect::<Result<Vec<_>, _>>()?;
    on_large_stack(|| held.replace(Selection::All, &from, Vec::new(), options.accept_loss, &mut progress))
}

/// Sets the store aside and begins an empty one, with the control log and what was signed here: everything else comes from
/// peers when the node runs.
///
/// # Errors
/// [`OpenError`]; the directory is as it was.
pub(super) async fn rejoin(
    data_dir: &Path,
    options: &RejoinOptions,
    mut progress: impl FnMut(u64) + Send,
) -> Result<MendReport, OpenError> {
    let mut held = Held::open(data_dir, &options.keys)?;
    let mut control = Vec::new();
    if let Some(ticket) = &options.ticket {
        let ticket: Ticket = ticket.parse()?;
        if ticket.is_expired(wall_ms()) {
            return Err(OpenError::TicketExpired);
        }
        if ticket.cluster != held.record.cluster {
            return Err(OpenError::OtherCluster { ticket: ticket.cluster, directory: held.record.cluster });
        }
        let name = held.record.node_name.clone();
        let welcome = join::ask(&held.identity.node, &ticket, &name, Vec::new()).await?;
        control = welcome.control;
        held.record.peers = welcome.peers;
        held.record.certificate = welcome.certificate;
        held.record.principal = welcome.certificate.into();
        held.identity.certificate = held.record.certificate;
        held.identity.principal = held.record.principal;
    }
    let report = on_large_stack(|| held.replace(Selection::Own, &[], control, false, &mut progress))?;
    if options.ticket.is_some() {
        held.directory.write_cluster(&held.record)?;
    }
    Ok(report)
}
