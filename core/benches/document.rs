//! What documents cost: `cargo bench -p folkmoot-core --bench document`.

use std::collections::BTreeSet;
use std::hint::black_box;

use automerge::transaction::{Transactable, Transaction};
use automerge::{AutomergeError, ROOT, ReadDoc};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use folkmoot_core::document::edit::{Edit, FieldTypes};
use folkmoot_core::document::gate::prescan;
use folkmoot_core::document::json::{Value, to_value};
use folkmoot_core::document::{Admission, Candidate, Document, LocalChange};
use folkmoot_core::id::ActorId;
use folkmoot_core::op::WriteAction;

const HERE: ActorId = ActorId::new([1; 16]);
const THERE: ActorId = ActorId::new([2; 16]);

/// Five fields, about 200 bytes of JSON.
fn fields(tx: &mut Transaction<'_>) -> Result<(), AutomergeError> {
    tx.put(ROOT, "name", "Grenoble, capital of the French Alps")?;
    tx.put(ROOT, "country", "FR")?;
    tx.put(ROOT, "population", 158_552)?;
    tx.put(ROOT, "lat", 45.171_546)?;
    tx.put(ROOT, "note", "a scalar string that makes the document about as long as a usual one")
}

/// The same fields in a document that never met Automerge.
fn filled() -> Document {
    let mut document = Document::new();
    let value = to_value(created().0.view());
    document.fill(&HERE, &value, &FieldTypes::none()).expect("create");
    document
}

fn edit(document: &mut Document, actor: &ActorId, value: i64) -> LocalChange {
    document.local_edit(actor, |tx| tx.put(ROOT, "population", value)).expect("edit").0.expect("a change")
}

fn created() -> (Document, LocalChange) {
    let mut document = Document::new();
    let change = document.local_edit(&HERE, fields).expect("create").0.expect("a change");
    (document, change)
}

fn admit(document: &mut Document, changes: &[LocalChange], actor: ActorId) {
    let candidates: Vec<_> = changes
        .iter()
        .map(|change| Candidate {
            bytes: &change.bytes,
            actor,
            fields: None,
            action: if change.is_create { WriteAction::Create } else { WriteAction::Update },
        })
        .collect();
    let answers = document.admit(&candidates);
    assert!(answers.iter().all(|answer| matches!(answer, Admission::Admitted(_))), "{answers:?}");
}

/// A document with `count` changes, and `more` of another actor after them.
fn pair(count: i64, more: i64) -> (Document, Vec<LocalChange>) {
    let (mut document, _) = created();
    for value in 1..count {
        edit(&mut document, &HERE, value);
    }
    let mut other = document.clone();
    (document, (0..more).map(|value| edit(&mut other, &THERE, value + 1_000_000)).collect())
}

fn local(c: &mut Criterion) {
    c.bench_function("create", |b| b.iter(|| black_box(created())));
    let (document, change) = created();
    c.bench_function("clone", |b| b.iter(|| black_box(document.clone())));
    c.bench_function("prescan", |b| b.iter(|| black_box(prescan(&change.bytes))));
    let mut edited = document.clone();
    let mut value = 0;
    c.bench_function("edit", |b| {
        b.iter(|| {
            value += 1;
            black_box(edit(&mut edited, &HERE, value))
        });
    });
    let (types, mut edited) = (FieldTypes::none(), filled());
    c.bench_function("patch a field", |b| {
        b.iter(|| {
            value += 1;
            let patch = Value::Map([("population".to_owned(), Value::Int(value))].into());
            black_box(edited.edit(&HERE, None, &Edit::MergePatch(patch), &types).expect("edit"))
        });
    });
    c.bench_function("view get", |b| b.iter(|| black_box(document.view().get(ROOT, "note").is_ok())));
}

fn remote(c: &mut Criterion) {
    let (_, create) = created();
    c.bench_function("admit a create", |b| {
        b.iter_batched_ref(
            Document::new,
            |document| admit(document, std::slice::from_ref(&create), HERE),
            BatchSize::SmallInput,
        );
    });
    for count in [1, 100, 1_000] {
        let (document, changes) = pair(count, 100);
        let first = changes.first().cloned().into_iter().collect::<Vec<_>>();
        for (name, changes) in [("one", first), ("a hundred", changes)] {
            c.bench_function(&format!("admit {name} after {count}"), |b| {
                b.iter_batched_ref(
                    || document.clone(),
                    |document| admit(document, &changes, THERE),
                    BatchSize::SmallInput,
                );
            });
        }
    }
}

fn stored(c: &mut Criterion) {
    let (document, changes) = pair(100, 1);
    let snapshot = document.snapshot().expect("a snapshot");
    c.bench_function("load 100", |b| {
        b.iter(|| black_box(Document::load(Some(&snapshot), [], BTreeSet::new(), BTreeSet::new()).is_ok()));
    });
    c.bench_function("snapshot 100", |b| b.iter(|| black_box(document.snapshot().is_ok())));
    let void = document.heads().iter().copied().collect::<BTreeSet<_>>();
    let mut document = document;
    admit(&mut document, &changes, THERE);
    c.bench_function("transplant 100", |b| {
        b.iter_batched_ref(
            || document.clone(),
            |document| document.set_void(void.clone()).expect("a view"),
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, local, remote, stored);
criterion_main!(benches);
