//! The simulator over many seeds and over seeds that once failed, and the proof that it finds planted bugs.
//!
//! `FOLKMOOT_SIM_SEEDS` says how many seeds, `FOLKMOOT_SIM_SEED` which is the first.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use folkmoot_core::{authority, replica, replication};
use folkmoot_tests::scale;
use folkmoot_tests::simulator::{Failure, Options, Report, Trace, Trouble, run, with_stack};
use folkmoot_tests::villain::Attack;

/// Simulated minutes of each.
const MINUTES: u64 = 5;
/// Seeds within which each planted bug must be found.
const SEEDS_PER_BUG: u64 = 40;
/// Seeds within which a member must be caught that gave false documents: it is in about one of seventeen.
const SEEDS_PER_LIE: u64 = 120;
/// How many fresh seeds run, unless the environment says otherwise: about four minutes on two cores.
const SEEDS: u64 = 1000;
/// Seeds that once showed a bug.
const REGRESSIONS: [u64; 19] = [
    6,                   // the time of a local write was not that of its op
    7,                   // a stream that came after the revocation of its certificate was left open
    18,                  // two duplicates of one request woke each other for ever
    23,                  // an author gave the number of a change that waits again
    100,                 // what builds on a fork waited on some nodes only
    105,                 // a document without an accepted change was counted in the digest
    1025,                // one of two processes with one session began its stream again
    2078,                // the end of a closed stream, which a pin vouches for, was called damage
    2112,                // a shard of which nothing counts was told from none
    500_000_348,         // after a restart nobody knew any more what a stream waited for
    700_001_031,         // a change that came again by another op was void as its first op was
    970_000_250,         // one restored from a backup was blamed for what only a removed member had
    980_000_263,         // one whose directory was cloned was blamed for what only the clone had had
    117_692_751_676_383, // one whose clone was deleted, and which wrote in other shards only since
    117_663_549_161_723, // a fork of an author who was cut off whole was seen by nobody
    117_695_069_749_309, // who was heard by nobody blamed others for what they lacked
    117_695_183_127_223, // what witnesses decided of a branch that was here already was not followed
    117_695_883_837_569, // of two erasures in a row the second gave an op back what the first had taken out of it
    117_691_961_704_513, // an honest member was banned for what lay on a branch of another one's fork
];

fn simulate(seed: u64) -> Result<Report, Failure> {
    run(Options { seed, minutes: MINUTES, trace: Trace::Silent, trouble: Trouble::Faults, write_every_ms: None })
}

/// Runs seeds on two threads; returns the failures.
fn simulate_all(seeds: &[u64]) -> Vec<Failure> {
    let next = AtomicU64::new(0);
    let work = || {
        let mut failures = Vec::new();
        while let Some(seed) = seeds.get(usize::try_from(next.fetch_add(1, Ordering::Relaxed)).expect("few")) {
            failures.extend(simulate(*seed).err());
        }
        failures
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| with_stack(work));
        let mut failures = with_stack(work);
        failures.extend(other.join().expect("the simulator does not panic"));
        failures
    })
}

fn assert_none(failures: &[Failure]) {
    let text: Vec<String> = failures.iter().map(ToString::to_string).collect();
    assert!(failures.is_empty(), "{} seeds failed\n{}", failures.len(), text.join("\n"));
}

#[test]
fn seeds_that_once_failed_converge() {
    assert_none(&simulate_all(&REGRESSIONS));
}

fn environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {value:?}")))
}

#[test]
fn many_seeds_converge() {
    let first = environment("FOLKMOOT_SIM_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
        now.as_secs() << 16
    });
    let count = environment("FOLKMOOT_SIM_SEEDS").unwrap_or(SEEDS);
    println!("seeds: FOLKMOOT_SIM_SEED={first} FOLKMOOT_SIM_SEEDS={count}");
    let seeds: Vec<u64> = (first..).take(usize::try_from(count).expect("few")).collect();
    assert_none(&simulate_all(&seeds));
}

/// Each run checks that just those streams are heads which no later session names; here, that there are such sessions.
#[test]
fn sessions_that_are_over_are_no_heads() {
    let reports: Vec<Report> = with_stack(|| (0..6).map(|seed| simulate(seed).expect("a good seed")).collect());
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    let (streams, heads) = (sum(|report| report.streams), sum(|report| report.heads));
    assert!(heads * 3 < streams * 2, "{heads} of {streams} streams are heads");
}

/// Each run holds every verdict against the reference; here, that nodes do write for others, and that some of it is cut by the
/// removal of a principal for whom they write, under partitions too.
#[test]
fn nodes_write_for_others_and_removals_cut_some_of_it() {
    let reports: Vec<Report> = with_stack(|| (0..12).map(|seed| simulate(seed).expect("a good seed")).collect());
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    let (count, cut) = (sum(|report| report.for_others), sum(|report| report.for_others_cut));
    assert!(count > 200 && cut > 5, "{count} count, {cut} are cut");
    // Each run checks also that what counts of one of them declares no field that is withheld from it.
    let limited = sum(|report| report.limited);
    assert!(limited > 10, "{limited} by a principal with some fields only");
}

/// Each run checks that the members agree on what is erased, that nothing of it is left with any of them, and that each has said so;
/// here, that documents are erased, under partitions too.
#[test]
fn what_is_erased_is_gone_everywhere() {
    let seeds = (0..12).map(|n| 5 * n + 4);
    let erased: u64 = with_stack(|| seeds.map(|seed| simulate(seed).expect("a good seed").erased).sum());
    assert!(erased > 20, "{erased} documents");
}

/// Each run checks that the members agree on everything, and with the reference; here, that forks are settled by witnesses alone.
#[test]
fn witnesses_settle_forks() {
    // Most forks are cut off by a removal, or nobody sees both branches.
    let seeds = (18..26).map(|n| 9 * n + 4);
    let settled: u64 = with_stack(|| seeds.map(|seed| simulate(seed).expect("a good seed").forks_settled).sum());
    assert!(settled > 1, "{settled} forks");
}

/// Each run checks that nothing is left of what was taken in bulk, and that no honest one is called a liar; here, that fresh nodes do
/// take documents in bulk, that a lying member forges some, and that it is found out.
#[test]
fn documents_in_bulk_are_taken_and_lies_found_out() {
    let (mut bulks, mut documents, mut forged, mut refuted) = (0, 0, 0, 0);
    let is_seen = with_stack(|| {
        (0..SEEDS_PER_LIE).any(|seed| {
            let report = simulate(seed).expect("a good seed");
            bulks += report.bulks;
            documents += report.documents_bulk;
            forged += report.documents_forged;
            refuted += report.documents_refuted;
            bulks >= 12 && documents >= 60 && refuted > 0
        })
    });
    assert!(
        is_seen,
        "{bulks} shards with {documents} documents were taken, {forged} pages forged, {refuted} times that was found out"
    );
}

/// Each run checks that what waits does not outgrow its bound in memory, and that all is applied in the end; here, that some do have
/// more that waits than there is room for.
#[test]
fn what_finds_no_room_in_memory_waits_on_the_disk() {
    let spilled = |seed: u64| simulate(seed).expect("a good seed").spilled_max;
    assert!(with_stack(|| (1..20).any(|n| spilled(n * 5) > 0)), "nothing ever waited on a disk");
}

/// Every attack, against three honest nodes whose clients go on: all of them ban the attacker, and nobody else, keep what they
/// keep within its bounds, and agree in the end on everything that was acknowledged.
#[test]
fn every_attack_ends_in_a_ban() {
    let failures: Vec<Failure> = with_stack(|| {
        let simulate = |attack| {
            let trouble = Trouble::Attack(attack);
            run(Options { seed: 1, minutes: 3, trace: Trace::Silent, trouble, write_every_ms: None })
        };
        let run = |attack: Attack| match simulate(attack) {
            Ok(report) => {
                println!("{}: banned after {} ms", attack.name(), report.banned_after_ms);
                None
            }
            Err(failure) => Some(failure),
        };
        Attack::ALL.into_iter().filter_map(run).collect()
    });
    assert_none(&failures);
}

#[test]
fn a_seed_always_gives_the_same_run() {
    let report = || with_stack(|| simulate(12)).expect("a good seed");
    assert_eq!(report(), report());
}

/// Runs seeds with a planted bug until one fails that does not fail without it.
fn is_found(name: &str, plant: impl Fn(Bug) + Sync) {
    let failure = with_stack(|| {
        (0..SEEDS_PER_BUG).find_map(|seed| {
            plant(Bug::Planted);
            let failure = simulate(seed).err();
            plant(Bug::Absent);
            failure.filter(|_| simulate(seed).is_ok())
        })
    });
    let failure = failure.unwrap_or_else(|| panic!("{name} is not found by {SEEDS_PER_BUG} seeds"));
    println!("{name} is found: {failure}");
}

/// Whether a bug is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bug {
    Planted,
    Absent,
}

impl Bug {
    /// Returns what is to be planted.
    fn of<T>(self, what: T) -> Option<T> {
        (self == Self::Planted).then_some(what)
    }
}

#[test]
fn an_early_acknowledgement_is_found() {
    is_found("acknowledge before commit", |bug| replica::plant(bug.of(replica::Mutant::AcknowledgedBeforeCommit)));
}

#[test]
fn an_early_send_is_found() {
    is_found("send before commit", |bug| replica::plant(bug.of(replica::Mutant::SentBeforeCommit)));
}

#[test]
fn a_transaction_out_of_order_is_found() {
    is_found("apply out of order", |bug| replica::plant(bug.of(replica::Mutant::NotWaitedFor)));
}

#[test]
fn a_comparison_of_ranges_without_effect_is_found() {
    is_found("forget what ranges list", |bug| replication::plant(bug.of(replication::Mutant::LinesForgotten)));
}

#[test]
fn an_earlier_session_that_is_not_gone_after_is_found() {
    is_found("forget what later sessions name", |bug| {
        replication::plant(bug.of(replication::Mutant::LackingForgotten))
    });
}

#[test]
fn a_pin_that_ends_at_its_session_is_found() {
    let bug = (authority::Site::Engine, authority::Mutant::PinEndsAtSession);
    is_found("let a pin say nothing of earlier sessions", |planted| authority::plant(planted.of(bug)));
}

#[test]
fn a_forgotten_pin_is_found() {
    let bug = (authority::Site::Engine, authority::Mutant::PinForgotten);
    is_found("forget a pin", |planted| authority::plant(planted.of(bug)));
}

#[test]
fn a_verdict_by_causality_is_found() {
    let bug = (authority::Site::Engine, authority::Mutant::CausalRevocation);
    is_found("judge by causality", |planted| authority::plant(planted.of(bug)));
}

#[test]
fn a_membership_that_is_never_cut_is_found() {
    let bug = (authority::Site::Engine, authority::Mutant::JoinIgnored);
    is_found("let members stay", |planted| authority::plant(planted.of(bug)));
}

#[test]
fn a_removal_after_which_nothing_is_judged_again_is_found() {
    let bug = (authority::Site::Engine, authority::Mutant::WrittenForForgotten);
    is_found("forget for whom nodes wrote", |planted| authority::plant(planted.of(bug)));
}

#[test]
fn a_link_that_is_not_checked_is_found() {
    is_found("skip the check of links within a run", |bug| {
        replication::plant(bug.of(replication::Mutant::LinkNotChecked))
    });
}

#[test]
fn a_joint_that_is_not_checked_is_found() {
    is_found("skip the check of the link to what is here", |bug| {
        replication::plant(bug.of(replication::Mutant::JointNotChecked));
    });
}

#[test]
fn a_signature_that_is_not_checked_is_found() {
    is_found("skip the check of signatures", |bug| {
        replication::plant(bug.of(replication::Mutant::SignatureNotChecked))
    });
}

/// Many peers agree soon. The figures of docs/scale.md come from the same code: `folkmoot-sim scale`.
#[test]
fn a_thousand_peers_agree_within_two_seconds_after_a_split() {
    let options =
        scale::Options { idle: Duration::from_secs(2), load: Duration::from_secs(3), ..scale::Options::default() };
    assert_eq!((options.peers, options.split), (1_000, Duration::from_secs(20)));
    let figures = with_stack(|| scale::run(options)).expect("a network that agrees");
    println!("{figures:?}");
    assert!(figures.reconverged_ms < 2_000.0, "{figures:?}");
    assert!(figures.everywhere_max_ms < 2_000.0, "{figures:?}");
}
