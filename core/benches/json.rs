//! What JSON costs: rendering, parsing, and turning whole documents into edits. A large document has 1 MB of JSON.

use std::hint::black_box;

use automerge::{ActorId, Automerge};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use folkmoot_core::document::edit::{Edit, EditFormat, FieldTypes, apply};
use folkmoot_core::document::json;

const SMALL: &str = r#"{"active":true,"age":42,"email":"ada@example.org","id":"0190c7a2-5f3e","name":"Ada Lovelace"}"#;
const SMALL_CHANGED: &str =
    r#"{"active":true,"age":43,"email":"ada@example.org","id":"0190c7a2-5f3e","name":"Ada Lovelace"}"#;

fn large(changed: i64) -> String {
    let rows = (0..8_000_i64).map(|row| {
        let score = if row == changed { -1 } else { row };
        format!(r#"{{"id":{row},"name":"member number {row}","score":{score},"tags":["a","b"],"city":"Bergen","kind":"row","ok":true,"x":1.5}}"#)
    });
    format!(r#"{{"rows":[{}]}}"#, rows.collect::<Vec<_>>().join(","))
}

fn put(doc: &mut Automerge, edit: &Edit) -> usize {
    let mut tx = doc.transaction();
    let applied = apply(&mut tx, None, edit, &FieldTypes::none()).expect("a valid edit");
    tx.commit();
    applied.operations
}

fn parsed(text: &str) -> Edit {
    Edit::parse(EditFormat::Document, text.as_bytes()).expect("JSON")
}

/// Rows by rows, as no single change may be that large.
fn large_document() -> Automerge {
    let mut doc = Automerge::new().with_actor(ActorId::from([1; 16]));
    put(&mut doc, &parsed(r#"{"rows":[]}"#));
    let json::Value::Map(mut members) = json::parse(large(i64::MAX).as_bytes()).expect("JSON") else { return doc };
    let Some(json::Value::List(rows)) = members.remove("rows") else { return doc };
    for part in rows.chunks(2_000) {
        let path = "/rows".parse().expect("a pointer");
        let action = folkmoot_core::document::edit::Action::Insert { index: None, values: part.to_vec() };
        put(&mut doc, &Edit::Ops(vec![folkmoot_core::document::edit::EditOp { path, action }]));
    }
    doc
}

fn small(c: &mut Criterion) {
    let mut doc = Automerge::new().with_actor(ActorId::from([1; 16]));
    put(&mut doc, &parsed(SMALL));
    c.bench_function("small/parse", |b| b.iter(|| json::parse(black_box(SMALL.as_bytes()))));
    c.bench_function("small/render", |b| b.iter(|| json::render(black_box(&doc))));
    let edit = parsed(SMALL);
    c.bench_function("small/create", |b| {
        b.iter_batched(
            || Automerge::new().with_actor(ActorId::from([1; 16])),
            |mut doc| {
                put(&mut doc, &edit);
                doc
            },
            BatchSize::SmallInput,
        );
    });
    c.bench_function("small/put the same", |b| b.iter(|| put(&mut doc, &edit)));
    let changed = parsed(SMALL_CHANGED);
    c.bench_function("small/put one field changed", |b| {
        b.iter_batched(
            || doc.clone(),
            |mut doc| {
                put(&mut doc, &changed);
                doc
            },
            BatchSize::SmallInput,
        );
    });
}

fn large_documents(c: &mut Criterion) {
    let doc = large_document();
    let text = large(i64::MAX);
    let (same, changed) = (parsed(&text), parsed(&large(4_000)));
    let mut group = c.benchmark_group("large");
    group.sample_size(10);
    group.bench_function("parse", |b| b.iter(|| json::parse(black_box(text.as_bytes()))));
    group.bench_function("render", |b| b.iter(|| json::render(black_box(&doc))));
    group.bench_function("put the same", |b| {
        b.iter_batched_ref(|| doc.clone(), |doc| put(doc, &same), BatchSize::PerIteration);
    });
    group.bench_function("put one field changed", |b| {
        b.iter_batched_ref(|| doc.clone(), |doc| put(doc, &changed), BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, small, large_documents);
criterion_main!(benches);
