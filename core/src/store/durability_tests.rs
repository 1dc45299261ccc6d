//! The store on disk with its committer and watermark, under faults: killed processes, flipped bits, failing writes.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::watermark::{Mark, Recorded, Standing, WatermarkFile};
use super::*;
use crate::id::{OpId, StoreEpoch, StreamId};

const EPOCH: StoreEpoch = StoreEpoch::new([1; 8]);
const STREAM: StreamId = StreamId::new([2; 32]);
/// Tells a test run by another test what to do, and where.
const CHILD_TASK: &str = "FOLKMOOT_STORE_TEST_TASK";
const CHILD_DIR: &str = "FOLKMOOT_STORE_TEST_DIR";

fn open(dir: &Path) -> Result<FjallStore, OpenError> {
    FjallStore::open(&dir.join("store"), FjallOptions { cache_bytes: 1 << 20, ..FjallOptions::default() })
}

fn open_watermark(dir: &Path) -> (WatermarkFile, Recorded) {
    WatermarkFile::open(&dir.join("watermark"), EPOCH, Durability::Buffered).unwrap()
}

fn mark(n: u64) -> Mark {
    Mark { seq: n, op: OpId::new([n as u8; 32]) }
}

/// The nth op: in three keyspaces, so that a torn batch shows.
fn submission(n: u64) -> Submission {
    let mut batch = Batch::new();
    let key = keys::Key::encode(&n);
    batch.put(Keyspace::Ops, key.clone(), format!("op {n}"));
    batch.put(Keyspace::Views, key, format!("view {n}"));
    batch.put(Keyspace::Heads, STREAM.as_bytes().to_vec(), n.to_be_bytes().to_vec());
    Submission { id: BatchId(n), batch, marks: vec![(STREAM, mark(n))] }
}

fn head(store: &dyn Read) -> u64 {
    let head = store.get(Keyspace::Heads, STREAM.as_bytes()).unwrap();
    head.map_or(0, |head| u64::from_be_bytes((*head).try_into().unwrap()))
}

/// Returns whether the store holds ops 1 to `last` in full and nothing else.
fn holds_exactly(store: &dyn Read, last: u64) -> bool {
    let of = |keyspace, what| {
        let entries = store.scan(keyspace, &Span::all(), Order::Ascending).map(Result::unwrap);
        let expected =
            (1..=last).map(|n: u64| (Bytes::from(n.to_be_bytes().to_vec()), Bytes::from(format!("{what} {n}"))));
        entries.eq(expected)
    };
    head(store) == last && of(Keyspace::Ops, "op") && of(Keyspace::Views, "view")
}

fn standing(store: &dyn Read, recorded: Recorded) -> Standing {
    let Recorded::Marks { watermark, .. } = recorded else { panic!("no watermark: {recorded:?}") };
    let found = head(store);
    watermark.compare(EPOCH, |_| Ok::<_, ()>((found > 0).then(|| mark(found)))).unwrap()
}

struct Writer {
    committer: Committer,
    done: Receiver<Completion>,
}

impl Writer {
    fn open(dir: &Path) -> (Self, Arc<FjallStore>) {
        let store = Arc::new(open(dir).unwrap());
        let (sender, done): (Sender<Completion>, _) = channel();
        let on_done = move |completion| {
            let _ = sender.send(completion);
        };
        let watermark = open_watermark(dir).0;
        let committer = Committer::spawn(store.clone(), Some(watermark), || Duration::ZERO, on_done).unwrap();
        (Self { committer, done }, store)
    }

    fn write(&self, ns: std::ops::RangeInclusive<u64>) {
        for n in ns {
            self.committer.try_submit(submission(n)).unwrap();
            assert!(matches!(self.done.recv().unwrap().outcome, Outcome::Durable), "{n}");
        }
    }
}

/// Does what another test asks for in a process of its own; run by itself it has nothing to do.
#[test]
fn child() {
    let (Some(task), Some(dir)) = (std::env::var_os(CHILD_TASK), std::env::var_os(CHILD_DIR)) else { return };
    let dir = PathBuf::from(dir);
    match task.to_str() {
        Some("write") => child_write(&dir),
        Some("write past the limit") => child_write_past_the_limit(&dir),
        other => panic!("unknown task {other:?}"),
    }
}

fn say(line: &str) {
    // Not println: the test harness writes to standard output as well, and a line must arrive in one piece.
    std::io::stdout().write_all(format!("\n{line}\n").as_bytes()).unwrap();
}

/// Writes with a few batches in flight until killed, and says what is acknowledged.
fn child_write(dir: &Path) {
    const IN_FLIGHT: u64 = 8;
    let (writer, store) = Writer::open(dir);
    let first = head(&*store) + 1;
    for n in first.. {
        writer.committer.try_submit(submission(n)).unwrap();
        if n >= first + IN_FLIGHT {
            let done = writer.done.recv().unwrap();
            assert!(matches!(done.outcome, Outcome::Durable));
            say(&format!("acked {}", done.id.0));
        }
    }
}

/// Writes ten ops, then makes every write to a file fail, and tries again.
fn child_write_past_the_limit(dir: &Path) {
    let (writer, store) = Writer::open(dir);
    writer.write(1..=10);
    let me = std::process::id().to_string();
    assert!(Command::new("prlimit").args(["--pid", &me, "--fsize=1024"]).status().unwrap().success());
    writer.committer.try_submit(submission(11)).unwrap();
    let outcome = writer.done.recv().unwrap().outcome;
    assert!(matches!(&outcome, Outcome::Unknown(error) if matches!(**error, StoreError::Commit(_))), "{outcome:?}");
    assert!(matches!(writer.committer.try_submit(submission(12)), Err(SubmitError::Poisoned(_))));
    assert!(matches!(store.commit(&submission(12).batch, Durability::Buffered), Err(StoreError::Poisoned)));
    assert_eq!(store.health(), Health::Poisoned);
    assert!(holds_exactly(&*store, 10), "reads go on");
    say("done");
}

fn spawn_child(task: &str, dir: &Path) -> Child {
    let name = format!("{}::child", module_path!().split_once("::").unwrap().1);
    let args: Vec<OsString> =
        vec![std::env::current_exe().unwrap().into(), "--exact".into(), name.into(), "--nocapture".into()];
    // A write beyond the limit of file size sends a signal that ends the process, unless ignored from the start.
    Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .args(args)
        .env(CHILD_TASK, task)
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn acked(line: &str) -> Option<u64> {
    line.strip_prefix("acked ")?.parse().ok()
}

#[test]
fn a_killed_process_loses_nothing_acknowledged_and_tears_no_batch() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = 0;
    for round in 1..=4 {
        let mut child = spawn_child("write", dir.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut acknowledged = lines.by_ref().filter_map(|line| acked(&line)).nth(50 * round).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it died counts as well; the very last line may be cut.
        let rest: Vec<_> = lines.collect();
        let whole = rest.len().saturating_sub(1);
        acknowledged = rest[..whole].iter().filter_map(|line| acked(line)).fold(acknowledged, u64::max);

        let store = open(dir.path()).unwrap();
        last = head(&store);
        assert!(last >= acknowledged, "acknowledged {acknowledged}, found {last}");
        assert!(holds_exactly(&store, last), "torn or missing batch");
        let recorded = open_watermark(dir.path()).1;
        let Recorded::Marks { watermark, .. } = &recorded else { panic!("no watermark: {recorded:?}") };
        let marked = watermark.marks().next().unwrap().1.seq;
        assert!((acknowledged..=last).contains(&marked), "{acknowledged} <= {marked} <= {last}");
        assert_eq!(standing(&store, recorded), Standing::Whole { forgotten: 0 });
    }
    assert!(last >= 500, "every round went on from the one before: {last}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_failed_write_poisons_and_after_reopening_its_batch_is_whole_or_absent() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = spawn_child("write past the limit", dir.path());
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert!(child.wait().unwrap().success() && output.lines().any(|line| line == "done"), "{output}");
    let store = open(dir.path()).unwrap();
    assert!(holds_exactly(&store, 10) || holds_exactly(&store, 11), "found {}", head(&store));
    assert_eq!(standing(&store, open_watermark(dir.path()).1), Standing::Whole { forgotten: 0 });
}

/// A closed store that can be copied cheaply: fjall's journal is a sparse file of 64 MiB.
struct Original {
    dir: PathBuf,
    journal: PathBuf,
    journal_used: Vec<u8>,
    journal_len: u64,
}

impl Original {
    fn of(dir: &Path) -> Self {
        let files = fs::read_dir(dir.join("store")).unwrap().map(|entry| entry.unwrap().path());
        let journal = files.filter(|path| path.extension().is_some_and(|end| end == "jnl")).max().unwrap();
        let mut journal_used = fs::read(&journal).unwrap();
        let journal_len = journal_used.len() as u64;
        let used = journal_used.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        journal_used.truncate(used);
        let journal = journal.strip_prefix(dir).unwrap().to_owned();
        Self { dir: dir.to_owned(), journal, journal_used, journal_len }
    }

    fn copy_with_flipped_bit(&self, to: &Path, at: usize) {
        self.copy(Path::new(""), to);
        let journal = File::create(to.join(&self.journal)).unwrap();
        let mut bytes = self.journal_used.clone();
        bytes[at] ^= 0x20;
        journal.write_all_at(&bytes, 0).unwrap();
        journal.set_len(self.journal_len).unwrap();
    }

    fn copy(&self, path: &Path, to: &Path) {
        fs::create_dir_all(to.join(path)).unwrap();
        for entry in fs::read_dir(self.dir.join(path)).unwrap().map(Result::unwrap) {
            let path = path.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                self.copy(&path, to);
            } else if path != self.journal {
                fs::copy(entry.path(), to.join(path)).unwrap();
            }
        }
    }
}

/// One bit flipped in each byte of a batch in mid-journal and of the last one. fjall alone takes some of these journals for
/// ended there, cuts them and drops every later batch without a word; here all those are refused. The last batch may be one
/// that a crash cut short, so the store opens without it, and the watermark tells that it was acknowledged.
#[test]
fn loss_after_a_flipped_bit_is_refused_or_told_by_the_watermark() {
    const OPS: u64 = 24;
    let dir = tempfile::tempdir().unwrap();
    let (writer, store) = Writer::open(dir.path());
    writer.write(1..=OPS);
    writer.committer.finish();
    drop(store);
    let original = Original::of(dir.path());
    let find = |text: &str| original.journal_used.windows(text.len()).position(|part| part == text.as_bytes()).unwrap();
    // From the last value of one batch to the first of the next but one: every kind of byte that a journal has. A sample
    // of them, for time.
    let middle = (find("view 11") + 7..find("op 13")).step_by(18);
    let last = (find(&format!("op {OPS}"))..original.journal_used.len()).step_by(12);
    let (mut refused, mut lost_last, mut unharmed) = (0, 0, 0);
    for at in middle.chain(last) {
        let copy = tempfile::tempdir().unwrap();
        original.copy_with_flipped_bit(copy.path(), at);
        match open(copy.path()) {
            Err(OpenError::Journal { .. }) => refused += 1,
            Err(other) => panic!("byte {at}: {other:?}"),
            Ok(store) if holds_exactly(&store, OPS) => unharmed += 1,
            Ok(store) => {
                assert!(holds_exactly(&store, OPS - 1), "byte {at}: {} are left", head(&store));
                let standing = standing(&store, open_watermark(copy.path()).1);
                let Standing::Lost(lost) = standing else { panic!("byte {at}: loss unseen, {standing:?}") };
                assert_eq!(lost[0].expected, mark(OPS), "byte {at}");
                lost_last += 1;
            }
        }
    }
    assert!(refused > 0 && lost_last > 0, "refused {refused}, lost the last {lost_last}, unharmed {unharmed}");
}
