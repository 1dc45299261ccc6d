//! Measures what a document with a long history costs: edits of it, changes from elsewhere, folding it for the store and
//! loading it again, in CPU time of one thread.
//!
//! `cargo run --release -p folkmoot-core --example long_document [CHANGES …]`
//!
//! Two writers take turns in a list, a text and a map and exchange now and then, so that Automerge is what it takes.

use std::collections::BTreeSet;

use automerge::transaction::{Transactable, Transaction};
use automerge::{AutomergeError, ObjType, ROOT, ReadDoc, Value};
use bytes::Bytes;
use folkmoot_core::document::gate::STACK_BYTES;
use folkmoot_core::document::{Candidate, Document, History};
use folkmoot_core::id::{ActorId, ChangeHash};
use folkmoot_core::op::WriteAction;
use folkmoot_core::replica::ReplicaConfig;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// CPU time of this thread in microseconds: wall clocks say little on a busy machine.
fn cpu_micros() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).unwrap_or(0.0) / 1e3
}

fn edit(tx: &mut Transaction<'_>, n: usize) -> Result<(), AutomergeError> {
    let object = |tx: &Transaction<'_>, key: &str| match tx.get(ROOT, key)? {
        Some((Value::Object(_), id)) => Ok(id),
        _ => Err(AutomergeError::Fail),
    };
    match n % 4 {
        0 => {
            let list = object(tx, "list")?;
            tx.put(&list, n % 16, n as i64)
        }
        1 => {
            let text = object(tx, "text")?;
            let length = tx.length(&text);
            tx.splice_text(&text, (n * 7) % (length + 1), isize::from(length > 200), "x")
        }
        _ => tx.put(ROOT, format!("k{}", n % 32), n as i64),
    }
}

/// A replica of the document, and what it stored.
struct Side {
    document: Document,
    actor: ActorId,
    parts: Vec<Bytes>,
    short: Vec<u8>,
    is_apart: bool,
    tail: Vec<ChangeHash>,
    fold_micros: f64,
    longest_fold: f64,
    folds: usize,
}

impl Side {
    fn fold(&mut self) -> Result<(), Failure> {
        if self.tail.len() >= self.document.fold_after() {
            let began = cpu_micros();
            let folded =
                self.document.fold(&self.tail, self.parts.len() > 1 || self.document.change_count() > 4_096)?;
            let took = cpu_micros() - began;
            match folded.history {
                History::Whole(whole) => self.parts = vec![whole],
                History::More(part) => self.parts.push(part),
            }
            self.short = folded.short;
            self.is_apart = folded.is_long;
            self.tail.clear();
            self.fold_micros += took;
            self.folds += 1;
            self.longest_fold = self.longest_fold.max(took);
        }
        Ok(())
    }
}

fn measure(changes: usize) -> Result<(), Failure> {
    let mut begun = Document::new();
    begun.set_long_history(ReplicaConfig::default().long_history);
    let founder = ActorId::new([9; 16]);
    let (first, ()) = begun.local_edit(&founder, |tx| -> Result<(), AutomergeError> {
        let list = tx.put_object(ROOT, "list", ObjType::List)?;
        for at in 0..16 {
            tx.insert(&list, at, 0)?;
        }
        tx.put_object(ROOT, "text", ObjType::Text).map(drop)
    })?;
    let first = first.ok_or("no first change")?;
    let side = |n: u8| Side {
        document: begun.clone(),
        actor: ActorId::new([n; 16]),
        parts: Vec::new(),
        short: Vec::new(),
        is_apart: false,
        tail: vec![first.hash],
        fold_micros: 0.0,
        longest_fold: 0.0,
        folds: 0,
    };
    let mut sides = [side(1), side(2)];
    let (mut local, mut remote, mut made) = (0.0, 0.0, 1);
    let mut recent = 0;
    while made < changes {
        let mut sent: [Vec<Bytes>; 2] = [Vec::new(), Vec::new()];
        for (side, sent) in sides.iter_mut().zip(&mut sent) {
            for _ in 0..8 {
                let began = cpu_micros();
                let (change, ()) = side.document.local_edit(&side.actor, |tx| edit(tx, made))?;
                let took = cpu_micros() - began;
                made += 1;
                if made > changes - changes / 8 {
                    local += took;
                    recent += 1;
                }
                let change = change.ok_or("no change")?;
                side.tail.push(change.hash);
                sent.push(change.bytes);
            }
            side.fold()?;
        }
        let [from_first, from_second] = &sent;
        for (at, changes_of) in [(1, from_first), (0, from_second)] {
            let author = sides[1 - at].actor;
            let candidates: Vec<_> = changes_of
                .iter()
                .map(|bytes| Candidate { bytes, actor: author, action: WriteAction::Update, fields: None })
                .collect();
            let began = cpu_micros();
            let answers = sides[at].document.admit(&candidates);
            if made > changes - changes / 8 {
                remote += cpu_micros() - began;
            }
            for answer in answers {
                let folkmoot_core::document::Admission::Admitted(hash) = answer else {
                    return Err(format!("{answer:?}").into());
                };
                sides[at].tail.push(hash);
            }
            sides[at].fold()?;
        }
    }
    let [side, other] = &sides;
    if side.document.json() != other.document.json() {
        return Err("the two differ".into());
    }
    let bytes: Vec<Bytes> = side.tail.iter().filter_map(|hash| side.document.change_bytes(hash)).collect();
    let began = cpu_micros();
    let tail = bytes.iter().map(|bytes| &**bytes);
    let mut loaded = Document::resume(&side.parts, &side.short, tail, BTreeSet::new())?;
    let load = cpu_micros() - began;
    let memory = loaded.memory_bytes() >> 10;
    const TIMES: u32 = 1_000;
    let began = cpu_micros();
    for n in 0..TIMES {
        loaded.local_edit(&ActorId::new([3; 16]), |tx| edit(tx, n as usize))?;
    }
    let after = (cpu_micros() - began) / f64::from(TIMES);
    let began = cpu_micros();
    let mut json = 0;
    for _ in 0..TIMES {
        json = loaded.json().len();
    }
    let render = (cpu_micros() - began) / f64::from(TIMES);
    let stored: usize = side.parts.iter().map(Bytes::len).sum();
    let recent = f64::from(recent);
    println!(
        "{changes:>8} changes: edit {:.0} µs, from elsewhere {:.0} µs, fold {:.0} µs a change ({:.1} ms at the longest), \
         load {:.1} ms, then edit {after:.0} µs, render {render:.0} µs; {json} bytes of JSON, {} KiB stored in {} parts and \
         {} KiB beside, {memory} KiB of memory",
        local / recent,
        remote / recent,
        side.fold_micros / changes as f64,
        side.longest_fold / 1e3,
        load / 1e3,
        stored >> 10,
        side.parts.len(),
        side.short.len() >> 10,
    );
    Ok(())
}

fn main() -> Result<(), Failure> {
    let mut sizes: Vec<usize> = std::env::args().skip(1).map(|size| size.parse()).collect::<Result<_, _>>()?;
    if sizes.is_empty() {
        sizes = vec![1_000, 4_000, 20_000, 100_000];
    }
    let run = move || sizes.into_iter().try_for_each(measure);
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(run)?;
    thread.join().map_err(|_| "the measuring thread panicked")?
}
