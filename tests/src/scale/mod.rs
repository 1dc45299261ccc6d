//! Thousands of peers: the product's replication engine, each with a store in memory, over a sparse random overlay.
//!
//! What is left out is what does not depend on the number of peers: documents, the gate, verdicts. Every op is real, signed,
//! decoded and verified by every peer. Time is virtual, all chance comes from one seed.
//!
//! A run has three phases: nobody writes; a few writers write; the network is cut in halves that go on writing, and mended.

mod network;
mod peer;
mod plot;

use std::time::Duration;

pub use plot::svg;

use network::Network;

/// What to simulate.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Options {
    /// Peers.
    pub peers: usize,
    /// Connections of a peer, on average.
    pub degree: usize,
    /// Peers that write.
    pub writers: usize,
    /// Ops that all writers together write in a second.
    pub rate: u64,
    /// How long nobody writes.
    pub idle: Duration,
    /// How long is written with all connections standing.
    pub load: Duration,
    /// How long the network is cut.
    pub split: Duration,
    /// Decides everything.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            peers: 1_000,
            degree: 8,
            writers: 16,
            rate: 5,
            idle: Duration::from_secs(10),
            load: Duration::from_secs(10),
            split: Duration::from_secs(20),
            seed: 1,
        }
    }
}

/// What was measured. Times are virtual, bytes are those of frames.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Figures {
    /// Peers.
    pub peers: usize,
    /// Bytes that a peer sends in a second while nobody writes.
    pub idle_bytes: f64,
    /// Frames for each op and peer under load, less what idle peers send.
    pub frames_per_op: f64,
    /// Bytes for each op and peer under load, less what idle peers send.
    pub bytes_per_op: f64,
    /// Bytes of an op.
    pub op_bytes: f64,
    /// Milliseconds until half of the ops were durable on every peer.
    pub everywhere_p50_ms: f64,
    /// Milliseconds until the last op was durable on every peer, at the worst.
    pub everywhere_max_ms: f64,
    /// Milliseconds until all peers agree after the split.
    pub reconverged_ms: f64,
    /// Bytes that a peer sends from the end of the split until all agree.
    pub reconverge_bytes: f64,
    /// Resident memory for each peer at the end; 0 where the system does not tell.
    pub memory_bytes: f64,
    /// Frames delivered in all.
    pub frames: u64,
}

impl Figures {
    /// Returns the figures as a row of a table, open at the end.
    #[must_use]
    pub fn row(&self) -> String {
        format!(
            "| {} | {:.0} ms | {:.0} ms | {:.0} ms | {:.2} | {:.0} | {:.0} | {:.0} KiB |",
            self.peers,
            self.everywhere_p50_ms,
            self.everywhere_max_ms,
            self.reconverged_ms,
            self.frames_per_op,
            self.bytes_per_op,
            self.idle_bytes,
            self.memory_bytes / 1_024.0,
        )
    }

    /// Returns the figures in the order of the fields.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub const fn to_array(&self) -> [f64; 11] {
        [
            self.peers as f64,
            self.idle_bytes,
            self.frames_per_op,
            self.bytes_per_op,
            self.op_bytes,
            self.everywhere_p50_ms,
            self.everywhere_max_ms,
            self.reconverged_ms,
            self.reconverge_bytes,
            self.memory_bytes,
            self.frames as f64,
        ]
    }

    /// Reads what [`Self::to_array`] returned.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole numbers, written by itself")]
    pub const fn from_array(figures: [f64; 11]) -> Self {
        let [peers, idle_bytes, frames_per_op, bytes_per_op, op_bytes, p50, max, reconverged_ms, bytes, memory, frames] =
            figures;
        Self {
            peers: peers as usize,
            idle_bytes,
            frames_per_op,
            bytes_per_op,
            op_bytes,
            everywhere_p50_ms: p50,
            everywhere_max_ms: max,
            reconverged_ms,
            reconverge_bytes: bytes,
            memory_bytes: memory,
            frames: frames as u64,
        }
    }
}

/// Simulates a network and measures it.
///
/// # Errors
/// What went wrong: the peers do not agree, or a bound was broken.
pub fn run(options: Options) -> Result<Figures, String> {
    folkmoot_core::keys::remember_signatures();
    let memory_before = resident_bytes();
    let mut network = Network::new(options);
    network.connect_all();
    network.run_for(Duration::from_secs(2))?;
    let mut figures = Figures { peers: options.peers, ..Figures::default() };
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let count = options.peers as f64;

    let before = network.traffic();
    network.run_for(options.idle)?;
    let idle = network.traffic().since(before);
    figures.idle_bytes = idle.bytes / options.idle.as_secs_f64() / count;
    let idle_frames = idle.frames / options.idle.as_secs_f64();

    let before = network.traffic();
    let begun = network.elapsed();
    network.write_for(options.load)?;
    network.run_until_agreed(Duration::from_secs(60))?;
    let load = network.traffic().since(before);
    let lasted = (network.elapsed() - begun).as_secs_f64();
    let ops = network.ops();
    figures.frames_per_op = (load.frames - idle_frames * lasted) / ops / count;
    figures.bytes_per_op = (load.bytes - figures.idle_bytes * count * lasted) / ops / count;
    figures.op_bytes = network.op_bytes() / ops;
    (figures.everywhere_p50_ms, figures.everywhere_max_ms) = network.everywhere_ms();

    network.split();
    network.write_for(options.split)?;
    let before = network.traffic();
    let healed = network.elapsed();
    network.mend();
    network.run_until_agreed(Duration::from_secs(120))?;
    figures.reconverged_ms = (network.elapsed() - healed).as_secs_f64() * 1_000.0;
    figures.reconverge_bytes = network.traffic().since(before).bytes / count;
    network.check()?;
    figures.memory_bytes = (resident_bytes() - memory_before).max(0.0) / count;
    figures.frames = network.delivered();
    Ok(figures)
}

/// Returns the resident memory of this process; 0 where the system does not tell.
fn resident_bytes() -> f64 {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return 0.0 };
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<f64>().ok());
    kib.unwrap_or(0.0) * 1_024.0
}
