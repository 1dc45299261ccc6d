//! The deterministic simulator: whole replicas over disks, clocks and a network that fail on purpose.
//!
//! Everything above the store and the transport is the product's own code: streams, verdicts, documents, replication.
//! Time is virtual and all chance comes from one seed, so a run is a pure function of its seed and takes a fraction of a
//! second for minutes of simulated time.
//!
//! A run has three phases: the cluster writes while faults come and go; everything is healed and the replicas are left
//! alone; what they then hold is compared, with each other, with what was acknowledged, and with the reference model of
//! the verdicts.
//!
//! Deliberately absent: lost or reordered frames within a lane. Lanes are reliable ordered streams; what gets lost is a
//! connection with all that was on its way.

mod checks;
mod clock;
mod disk;
mod erasing;
mod faults;
mod hostile;
mod meter;
mod node;
mod random;
mod witnessing;
mod workload;
mod world;

use std::fmt;

pub use meter::Costs;
pub use random::Random;

use crate::villain::Attack;
use world::World;

/// The collection with the hot documents, of one shard.
const COLLECTION: &str = "hot";
/// A collection of several shards.
const SHARDED_COLLECTION: &str = "spread";
/// So small that documents are evicted and loaded again all the time.
const DOCUMENT_CACHE_SMALL: usize = 64 << 10;
/// Room for all documents of a run.
const DOCUMENT_CACHE_LARGE: usize = 16 << 20;

/// What to simulate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Decides everything.
    pub seed: u64,
    /// Simulated minutes with faults.
    pub minutes: u64,
    /// Whether to print what happens, and when.
    pub trace: Trace,
    /// What goes wrong.
    pub trouble: Trouble,
    /// Milliseconds between two writes of clients, on average; none: as few as leave time for many seeds.
    pub write_every_ms: Option<u64>,
}

/// What goes wrong in a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// Disks, clocks, links and processes fail, directories are copied and restored, one member may lie.
    Faults,
    /// One more member means harm, and nothing else happens.
    Attack(Attack),
    /// Nothing.
    Nothing,
}

/// Whether to print what happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trace {
    /// Nothing is printed.
    Silent,
    /// One line for each thing that a person may want to know.
    Printed,
}

/// What a run was like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Replicas that took part.
    pub replicas: u64,
    /// Writes acknowledged.
    pub acknowledged: u64,
    /// Writes refused.
    pub refused: u64,
    /// Frames delivered.
    pub frames: u64,
    /// Faults done.
    pub faults: u64,
    /// Runs of ops that a lying member altered.
    pub forged: u64,
    /// Documents taken in bulk.
    pub documents_bulk: u64,
    /// Shards taken in bulk to the end.
    pub bulks: u64,
    /// Pages of documents that a lying member altered.
    pub documents_forged: u64,
    /// Times that documents of a member were found not to be what the ops make.
    pub documents_refuted: u64,
    /// Streams of data that one of the replicas holds at the end.
    pub streams: u64,
    /// Transactions that nodes wrote for others: those that count on the first node in the end, and those that a revocation cuts.
    pub for_others: u64,
    /// See above.
    pub for_others_cut: u64,
    /// Of these, transactions of the principal that may touch some fields only.
    pub limited: u64,
    /// Those of them that are heads: the others are told by a later session of their author.
    pub heads: u64,
    /// Events handled.
    pub events: u64,
    /// The most transactions that waited on the disk of one replica.
    pub spilled_max: u64,
    /// Misdeeds noted.
    pub misdeeds: u64,
    /// Bans pronounced.
    pub bans: u64,
    /// Simulated milliseconds until every node had banned the attacker.
    pub banned_after_ms: u64,
    /// Simulated milliseconds from the end of the faults until the replicas agreed.
    pub converged_after_ms: u64,
    /// Documents that are erased in the end.
    pub erased: u64,
    /// Streams whose forks witnesses have settled.
    pub forks_settled: u64,
    /// Hash over all events: two runs of one seed have the same.
    pub fingerprint: u64,
}

impl Report {
    fn add_bulk(&mut self, (bulks, documents): (u64, u64)) {
        self.bulks += bulks;
        self.documents_bulk += documents;
    }
}

/// What was wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// Simulated minutes with faults.
    pub minutes: u64,
    /// Simulated milliseconds since the start.
    pub at_ms: u64,
    /// What.
    pub what: String,
    /// What was to go wrong.
    pub trouble: Trouble,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, minutes, at_ms, what, .. } = self;
        writeln!(f, "seed {seed} after {}.{:03} s: {what}", at_ms / 1_000, at_ms % 1_000)?;
        write!(
            f,
            "replay: cargo run -p folkmoot-tests --bin folkmoot-sim -- --seed {seed} --minutes {minutes} --trace"
        )?;
        match self.trouble {
            Trouble::Attack(attack) => write!(f, " --attack {}", attack.name()),
            Trouble::Faults | Trouble::Nothing => Ok(()),
        }
    }
}

/// Runs one simulation. Needs a thread with [`folkmoot_core::document::gate::STACK_BYTES`] of stack.
///
/// # Errors
/// [`Failure`]: an invariant was broken.
pub fn run(options: Options) -> Result<Report, Failure> {
    if options.trouble == Trouble::Faults {
        folkmoot_core::keys::remember_signatures();
    }
    attempt(&mut World::new(options))
}

/// Runs one simulation, as [`run`] does, and measures what it costs up to when troubles end.
///
/// # Errors
/// [`Failure`]: an invariant was broken.
pub fn run_measured(options: Options) -> Result<(Report, Costs), Failure> {
    let mut world = World::new(options);
    world.meter = Some(meter::Meter::default());
    let report = attempt(&mut world)?;
    Ok((report, world.costs))
}

fn attempt(world: &mut World) -> Result<Report, Failure> {
    world.run().map_err(|what| {
        let Options { seed, minutes, trouble, .. } = world.options;
        Failure { seed, minutes, at_ms: world.elapsed_ms(), what, trouble }
    })
}

/// Runs `body` on a thread with the stack that documents need.
///
/// # Panics
/// If `body` panics.
pub fn with_stack<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .stack_size(folkmoot_core::document::gate::STACK_BYTES)
            .spawn_scoped(scope, body);
        match thread.expect("a thread").join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
