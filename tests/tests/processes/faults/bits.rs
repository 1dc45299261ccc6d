//! Single flipped bits in the journal and in tables of a node that was killed.

use std::collections::BTreeSet;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use folkmoot_tests::processes::{Node, converged, printed};
use serde_json::json;

use super::{code, copy, figure, fill, held, knows_others, no_forks, parsed, scaled};

/// Random enough, and the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 24) % bound
    }
}

/// Flips a bit of a file.
fn flip(path: &Path, at: u64, bit: u64) {
    let mut file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    byte[0] ^= 1 << bit;
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&byte).unwrap();
}

/// The journal that is written to, with how much of it is used.
fn journal(data: &Path) -> (PathBuf, u64) {
    let files = std::fs::read_dir(data.join("store")).unwrap().map(|entry| entry.unwrap().path());
    let journal = files.filter(|path| path.extension().is_some_and(|end| end == "jnl")).max().unwrap();
    let used = std::fs::read(&journal).unwrap().iter().rposition(|byte| *byte != 0).unwrap() + 1;
    (journal, used as u64)
}

/// All tables, by size: large ones are hit more often.
fn tables(folder: &Path, found: &mut Vec<(PathBuf, u64)>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            tables(&path, found);
        } else if folder.ends_with("tables") {
            found.push((path, entry.metadata().unwrap().len()));
        }
    }
}

/// What became of the trials.
#[derive(Default)]
struct Tally {
    trials: usize,
    unharmed: usize,
    /// The node refused to start, with 6.
    refused: usize,
    /// It started, and `verify` told of damage or loss.
    told: usize,
    /// `repair` refused to hide what can be read, since nobody could give back the rest.
    left_as_it_was: usize,
    /// Acknowledged documents that could not be read before anything was done, in all; one that is damaged spoils a list.
    lost_at_first: usize,
    /// After `repair`.
    lost_after_repair: usize,
    worst_after_repair: usize,
}

/// Starts a damaged node as an operator would, and repairs it. Whatever is missing must have been told.
async fn without_peers(node: &mut Node, expected: &BTreeSet<String>, what: &str, tally: &mut Tally) {
    tally.trials += 1;
    let mut is_told = false;
    match node.try_start().await {
        Err(status) => {
            assert_eq!(status.code(), Some(6), "{what}: {}", node.log());
            tally.refused += 1;
            is_told = true;
        }
        Ok(()) => {
            let lost = expected.difference(&held(node).await).count();
            let verified = node.cli(&["--json", "verify"], "").await;
            match code(&verified) {
                0 => assert_eq!(lost, 0, "{what}: loss unseen"),
                6 => is_told = true,
                other => panic!("{what}: verify ends with {other}: {}", printed(&verified)),
            }
            tally.lost_at_first += lost;
            tally.told += usize::from(is_told);
            tally.unharmed += usize::from(!is_told);
            node.kill();
        }
    }
    if !is_told {
        return;
    }
    let verified = node.cli(&["--json", "verify"], "").await;
    assert_eq!(code(&verified), 6, "{what}: {}", printed(&verified));
    let repaired = node.cli(&["--json", "repair"], "").await;
    assert!([0, 6].contains(&code(&repaired)), "{what}: {}", printed(&repaired));
    if repaired.stdout.is_empty() {
        // Less would be to be seen than now, and nobody could give the rest back: nothing was changed.
        assert!(printed(&repaired).contains("nothing was changed"), "{what}: {}", printed(&repaired));
        tally.left_as_it_was += 1;
        node.start().await;
        let lost = expected.difference(&held(node).await).count();
        tally.lost_after_repair += lost;
        node.kill();
        return;
    }
    let report = parsed(&repaired);
    node.start().await;
    let lost = expected.difference(&held(node).await).count();
    let missing = report["ops_missing"].as_u64().unwrap();
    assert_eq!(code(&repaired) == 6, missing > 0, "{what}: {report}");
    assert!(lost == 0 || missing > 0, "{what}: {lost} documents are lost and nobody is told: {report}");
    tally.lost_after_repair += lost;
    tally.worst_after_repair = tally.worst_after_repair.max(lost);
    if lost == 0 && missing == 0 {
        node.assert_sound().await;
    }
    no_forks(node).await;
    node.put("load", "after", json!({"n": 1})).await;
    node.kill();
}

fn tell(what: &str, tally: &Tally) {
    figure(
        what,
        &json!({
            "flips": tally.trials,
            "unharmed": tally.unharmed,
            "start_refused": tally.refused,
            "started_and_told": tally.told,
            "repair_left_as_it_was": tally.left_as_it_was,
            "not_readable_before_repair": tally.lost_at_first,
            "lost_after_repair": tally.lost_after_repair,
            "worst_after_repair": tally.worst_after_repair,
        }),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_the_journal_is_found_and_put_right() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::found(folder.path(), "a").await;
    let expected = fill(&node, "doc", scaled(200, 60)).await;
    node.kill();
    let original = folder.path().join("original");
    copy(node.data(), &original);
    let mut dice = Dice(11);
    let mut tally = Tally::default();
    for _ in 0..scaled(200, 6) {
        copy(&original, node.data());
        let (journal, used) = journal(node.data());
        let (at, bit) = (dice.below(used), dice.below(8));
        flip(&journal, at, bit);
        without_peers(&mut node, &expected, &format!("bit {bit} of byte {at} of {used}"), &mut tally).await;
    }
    tell("journal, no peers", &tally);
    assert_eq!(tally.lost_after_repair, 0, "one bit is put right, and nothing behind it is lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_a_table_is_found_and_repaired() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::found(folder.path(), "a").await;
    let mut expected = BTreeSet::new();
    // More than memtables hold, so that there are tables; incompressible enough.
    let writers = (0..8).map(|writer| {
        let client = node.client().clone();
        tokio::spawn(async move {
            use folkmoot::api::{Database as _, WriteOptions};
            let mut dice = Dice(writer);
            let mut ids = Vec::new();
            for n in 0..450 {
                let id = format!("w{writer}-{n:03}");
                let noise: String = (0..6_000).map(|_| char::from(b'a' + dice.below(26) as u8)).collect();
                let body = folkmoot_tests::processes::text(&json!({ "n": n, "text": noise }));
                let doc = folkmoot_tests::processes::id(&id);
                client
                    .put(&folkmoot_tests::processes::name("load"), doc, body, &WriteOptions::default())
                    .await
                    .unwrap();
                ids.push(id);
            }
            ids
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        expected.extend(writer.await.unwrap());
    }
    node.kill();
    let original = folder.path().join("original");
    copy(node.data(), &original);
    let mut found = Vec::new();
    tables(&original.join("store"), &mut found);
    let all: u64 = found.iter().map(|(_, len)| len).sum();
    assert!(all > 8 << 20, "there are tables: {found:?}");
    let mut dice = Dice(12);
    let mut tally = Tally::default();
    for _ in 0..scaled(40, 2) {
        copy(&original, node.data());
        let mut at = dice.below(all);
        let hit = found.iter().find(|(_, len)| {
            let is_here = at < *len;
            at -= if is_here { 0 } else { *len };
            is_here
        });
        let path = node.data().join(hit.unwrap().0.strip_prefix(&original).unwrap());
        let bit = dice.below(8);
        flip(&path, at, bit);
        without_peers(&mut node, &expected, &format!("bit {bit} of byte {at} of {}", path.display()), &mut tally).await;
    }
    tell("tables, no peers", &tally);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_peer_nothing_is_lost_by_a_flipped_bit() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = Node::found(folder.path(), "a").await;
    let b = Node::join(folder.path(), "b", &a).await;
    let mut expected = fill(&a, "a", 40).await;
    expected.extend(fill(&b, "b", 10).await);
    converged(&[&a, &b]).await;
    // Or it would have to wait until the other looks for it, ever less often.
    knows_others(&a).await;
    a.kill();
    let original = folder.path().join("original");
    copy(a.data(), &original);
    let mut dice = Dice(13);
    let (mut refused, mut trials) = (0, 0);
    for trial in 0..scaled(200, 3) {
        copy(&original, a.data());
        let (journal, used) = journal(a.data());
        let (at, bit) = (dice.below(used), dice.below(8));
        flip(&journal, at, bit);
        trials += 1;
        if a.try_start().await.is_err() {
            refused += 1;
            // Both ways out, in turn.
            let command = if trial % 2 == 0 { "rejoin" } else { "repair" };
            let done = a.cli(&["--json", command], "").await;
            assert!([0, 6].contains(&code(&done)), "{}", printed(&done));
            a.start().await;
        }
        let doc = format!("after-{trial}");
        a.put("load", &doc, json!({"n": trial})).await;
        expected.insert(doc);
        converged(&[&a, &b]).await;
        for node in [&a, &b] {
            assert_eq!(held(node).await, expected, "bit {bit} of byte {at}");
            node.assert_sound().await;
            no_forks(node).await;
        }
        a.kill();
    }
    figure("journal, with a peer", &json!({ "flips": trials, "start_refused": refused, "lost_after_rejoin": 0 }));
}
