//! Runs every fuzz target over its corpus and its crashers, and over cheap damage to each of them, on stable Rust.

#[path = "../../fuzz/src/lib.rs"]
mod fuzz;

use std::path::Path;

use folkmoot_tests::repository;

/// Places at which each file is cut off and has a bit flipped.
const PLACES: usize = 100;

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), std::fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

/// Runs a target over a file and damaged copies of it; returns how often.
fn run(target: fn(&[u8]), bytes: &[u8]) -> usize {
    target(bytes);
    let places: Vec<_> = (0..bytes.len()).step_by((bytes.len() / PLACES).max(1)).collect();
    for &at in &places {
        target(&bytes[..at]);
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 1 << (at % 8);
        target(&damaged);
    }
    1 + 2 * places.len()
}

#[test]
fn every_target_survives_its_corpus_and_its_crashers() {
    for (name, target) in fuzz::TARGETS {
        let corpus = files(&repository().join("fuzz/corpus").join(name));
        assert!(!corpus.is_empty(), "target {name} has no seeds");
        let crashers = files(&repository().join("fuzz/crashers").join(name));
        let mut runs = 0;
        for (path, bytes) in corpus.into_iter().chain(crashers) {
            // Shown with the failure: the output of a test that passes is not.
            println!("{path}");
            runs += run(*target, &bytes);
        }
        println!("{name}: {runs} runs");
    }
}

/// A seed of an older form reaches nothing, and nobody would notice.
#[test]
fn every_seed_of_a_record_is_a_record_of_today() {
    let seeds = files(&repository().join("fuzz/corpus/record"));
    for (path, bytes) in &seeds {
        assert!(folkmoot_core::replica::fuzz_record(bytes[0], &bytes[1..]), "{path}");
    }
}

#[test]
fn every_binary_is_a_target_and_has_no_stray_corpus() {
    let names: Vec<_> = fuzz::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    for folder in ["fuzz/fuzz_targets", "fuzz/corpus", "fuzz/crashers"] {
        for entry in std::fs::read_dir(repository().join(folder)).into_iter().flatten() {
            let name = entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned();
            assert!(names.contains(&name), "{folder}/{name} belongs to no target");
        }
    }
}
