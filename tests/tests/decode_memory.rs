//! Hostile bytes must not make a decoder allocate much more than they are themselves.
//!
//! And no change may make the gate take much, hang or panic.
//!
//! A file of its own: the allocator counts for the whole process, so nothing else may run beside it.

use folkmoot_core::document::fuzzing::Answer;
use folkmoot_core::id::ClusterId;
use folkmoot_core::limits;
use folkmoot_core::op::{Delete, Op};
use folkmoot_tests::gate::{Meter, Options, run};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Decoding copies header and bodies once and encodes them again to compare; lists that serde reserves in advance on
/// the word of a length are bounded by it to a megabyte.
const ALLOWANCE: usize = 3 << 20;

#[track_caller]
fn check(name: &str, bytes: &[u8], decode: impl FnOnce(&[u8]) -> bool) {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    assert!(!decode(bytes), "{name} was accepted");
    let used = ALLOCATOR.peak_usage().saturating_sub(before);
    assert!(used <= 3 * bytes.len() + ALLOWANCE, "{name}: {} bytes made the decoder use {used}", bytes.len());
}

fn filled(start: &[u8], len: usize, byte: u8) -> Vec<u8> {
    let mut bytes = start.to_vec();
    bytes.resize(len, byte);
    bytes
}

/// One after the other, also where tests are threads of one process.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// A sample of what `folkmoot-gate` does: about a minute on a busy machine. `FOLKMOOT_GATE_SEED` chooses another one.
#[test]
fn a_sample_of_hostile_changes_does_no_harm() {
    let _alone = ALONE.lock();
    let seed = std::env::var("FOLKMOOT_GATE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let reset = || {
        ALLOCATOR.reset_peak_usage();
        ALLOCATOR.current_usage()
    };
    let meter = Meter { reset, peak: || ALLOCATOR.peak_usage() };
    let options = Options { seed, round: 0, inputs: 60_000, progress: false };
    let report = run(options, meter).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{report}");
    // Enough of it comes through to be worth looking at.
    let count = |answer| report.answers.get(&answer).copied().unwrap_or(0);
    assert!(count(Answer::Admitted) > 1_000 && count(Answer::Held) > 500 && count(Answer::Bad) > 10_000, "{report}");
}

#[test]
fn hostile_ops_use_little_memory() {
    let _alone = ALONE.lock();
    let op = |bytes: &[u8]| Op::decode(bytes, ClusterId::new([1; 32])).is_ok();
    let delete = |bytes: &[u8]| Delete::decode(bytes).is_ok();
    let max = limits::HEADER_BYTES_MAX + limits::OP_BODIES_BYTES_MAX;
    let four_billion = |marker: u8| [marker, 0xff, 0xff, 0xff, 0xff];
    // An op is an array of header bytes, signature and bodies.
    let bodies = |marker: u8, count: u32| [&[0x93, 0xc4, 0, 0xc0, marker][..], &count.to_be_bytes()].concat();
    let header = |start: &[u8], byte: u8| {
        let inner = filled(start, limits::HEADER_BYTES_MAX, byte);
        [&[0x93, 0xc6][..], &(inner.len() as u32).to_be_bytes(), &inner, &[0xc0, 0x90]].concat()
    };
    for (name, bytes) in [
        ("four billion elements", four_billion(0xdd).to_vec()),
        ("four billion bytes", four_billion(0xc6).to_vec()),
        ("four billion pairs", four_billion(0xdf).to_vec()),
        ("a header of four billion bytes", [&[0x93][..], &four_billion(0xc6)].concat()),
        ("four billion bodies", bodies(0xdd, u32::MAX)),
        ("four million absent bodies", filled(&bodies(0xdd, 4_000_000), max, 0xc0)),
        ("four million empty bodies", filled(&bodies(0xdd, 4_000_000), max, 0x90)),
        ("more than the bound", filled(&[], 64 << 20, 0xc0)),
        ("a header of nils", header(&[], 0xc0)),
        ("a header of nested lists", header(&[], 0x91)),
        ("a header of nested unknown fields", header(&[0x81, 0xa1, b'z'], 0x91)),
        ("a header that is one long list", header(&[0xdd, 0, 0, 0xff, 0], 0xc0)),
    ] {
        check(name, &bytes, op);
        check(name, &bytes, delete);
    }
}
