//! Documents that have not the form their collection's schema asks: refused where they are written, flagged where they become so.

use super::*;
use crate::op::{Act, Collection, FieldDeclaration, FieldKind};
use crate::schema::SchemaText;

const POSITIVE: &str = r#"{"properties":{"n":{"type":"integer","minimum":0}},"required":["n"]}"#;

fn settings(schema: Option<&str>) -> ActRequest {
    ActRequest::One(Act::Collection(Collection {
        name: collection(),
        shards: 1,
        types: vec![FieldDeclaration { pointer: "/n".to_owned(), kind: FieldKind::Counter }],
        dropped: false,
        audit_reads: false,
        indexes: vec![],
        schema: schema.map(|text| SchemaText::from_json(text.as_bytes()).unwrap()),
        expires: None,
        unique: vec![],
    }))
}

fn lab() -> Lab {
    Lab::new(&[BuiltInRole::Editor])
}

impl Lab {
    fn set_schema(&mut self, schema: Option<&str>) {
        self.act(0, Signer::Node, settings(schema)).unwrap();
        self.run(5);
    }

    fn invalid(&self, node: usize) -> Vec<String> {
        invalid_in(self.nodes[node].store.clone())
    }

    /// Returns how far the collection is on a node: invalid, done.
    fn check_of(&self, node: usize) -> (u64, bool) {
        let checks = Reader::new(self.nodes[node].store.clone()).schema_checks().unwrap();
        let check = checks.get(&collection()).cloned().unwrap_or_default();
        let live = self.nodes[node].replica.schema_checks().map(|(_, check)| check.clone()).next();
        assert_eq!(live.unwrap_or_default(), check);
        (check.invalid, check.done)
    }

    fn refused(&mut self, id: &str, write: DocWrite) -> Vec<String> {
        match self.try_write(0, id, write, None) {
            Err(WriteError::Schema { findings, withheld: 0, .. }) => {
                findings.violations.into_iter().map(|found| format!("{} {}", found.pointer, found.keyword)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn assert_sound(&self, node: usize) {
        let store: Arc<dyn Store> = self.nodes[node].store.clone();
        let report = verify(&store, self.nodes[node].replica.identity().cluster, |_| {});
        assert!(report.damage.is_empty(), "{:?}", report.damage);
    }
}

fn invalid_in(store: Arc<dyn Store>) -> Vec<String> {
    let ids = Reader::new(store).invalid(&collection(), None, 10_000).unwrap();
    ids.into_iter().map(|id| id.to_string()).collect()
}

#[test]
fn a_write_that_would_break_the_form_changes_nothing() {
    let mut lab = lab();
    lab.set_schema(Some(POSITIVE));
    assert_eq!(lab.refused("a", put(r#"{"n":-1}"#)), ["/n minimum"]);
    assert_eq!(lab.refused("a", put("{}")), ["/n required"]);
    assert_eq!(lab.json(0, "a"), None);
    let made = lab.write(0, "a", put(r#"{"n":1,"x":"y"}"#));
    for write in [put(r#"{"n":-4}"#), ops(r#"{"ops":[{"op":"increment","path":"/n","by":-2}]}"#)] {
        assert_eq!(lab.refused("a", write).len(), 1);
    }
    let merge = DocWrite::Edit(Edit::parse(EditFormat::MergePatch, br#"{"n":null}"#).unwrap());
    assert_eq!(lab.refused("a", merge), ["/n required"]);
    let patch = br#"[{"op":"remove","path":"/n"}]"#;
    assert_eq!(lab.refused("a", DocWrite::Edit(Edit::parse(EditFormat::JsonPatch, patch).unwrap())), ["/n required"]);
    assert_eq!(lab.json(0, "a").unwrap(), r#"{"n":1,"x":"y"}"#);
    // The document goes on from where it was.
    let next = lab.write(0, "a", ops(r#"{"ops":[{"op":"increment","path":"/n","by":2}]}"#));
    assert_ne!(made.items[0].heads, next.items[0].heads);
    lab.run(10);
    assert_eq!(lab.json(1, "a").unwrap(), r#"{"n":3,"x":"y"}"#);
    lab.assert_converged();
    assert!(lab.invalid(0).is_empty());
}

#[test]
fn what_a_merge_breaks_is_kept_and_flagged_everywhere_until_it_is_mended() {
    let mut lab = lab();
    lab.set_schema(Some(POSITIVE));
    lab.write(0, "a", put(r#"{"n":3,"x":1}"#));
    lab.write(0, "b", put(r#"{"n":3}"#));
    lab.run(10);
    lab.cut(0, 1);
    for node in [0, 1] {
        lab.write(node, "a", ops(r#"{"ops":[{"op":"increment","path":"/n","by":-2}]}"#));
    }
    assert!(lab.invalid(0).is_empty() && lab.invalid(1).is_empty());
    lab.connect(0, 1);
    lab.run(20);
    for node in [0, 1] {
        assert_eq!(lab.json(node, "a").unwrap(), r#"{"n":-1,"x":1}"#);
        assert_eq!(lab.invalid(node), ["a"], "on {node}");
        assert_eq!(lab.check_of(node), (1, true), "on {node}");
        lab.assert_sound(node);
    }
    lab.assert_converged();
    // An edit that does not make it worse is made.
    lab.write(0, "a", ops(r#"{"ops":[{"op":"set","path":"/x","value":2}]}"#));
    assert_eq!(lab.refused("a", put(r#"{"x":2}"#)), ["/n required"]);
    assert_eq!(lab.invalid(0), ["a"]);
    lab.write(0, "a", ops(r#"{"ops":[{"op":"increment","path":"/n","by":1}]}"#));
    assert!(lab.invalid(0).is_empty());
    lab.run(10);
    assert!(lab.invalid(1).is_empty());
    assert_eq!(lab.check_of(1), (0, true));
}

#[test]
fn a_document_that_is_gone_is_not_flagged() {
    let mut lab = lab();
    for id in ["a", "b", "c"] {
        lab.write(0, id, put(r#"{"n":-1}"#));
    }
    lab.set_schema(Some(POSITIVE));
    lab.run(10);
    assert_eq!(lab.invalid(1), ["a", "b", "c"]);
    lab.write(0, "a", DocWrite::Delete);
    let documents = vec![doc("b")];
    let erase = crate::op::Erase { collection: collection(), documents, why: String::new() };
    lab.act(0, Signer::Node, ActRequest::One(Act::Erase(erase))).unwrap();
    lab.run(30);
    for node in [0, 1] {
        assert_eq!(lab.invalid(node), ["c"], "on {node}");
        assert_eq!(lab.check_of(node), (1, true), "on {node}");
        lab.assert_sound(node);
    }
}

#[test]
fn a_schema_that_is_set_changed_or_removed_is_held_against_all() {
    let mut lab = lab();
    for n in 0..700 {
        lab.write(0, &format!("d{n:03}"), put(&format!(r#"{{"n":{}}}"#, n % 7 - 1)));
    }
    lab.run(10);
    let of = |rest: i32| -> Vec<String> { (0..700).filter(|n| n % 7 <= rest).map(|n| format!("d{n:03}")).collect() };
    lab.set_schema(Some(POSITIVE));
    for node in [0, 1] {
        assert_eq!(lab.invalid(node), of(0), "on {node}");
        assert_eq!(lab.check_of(node), (100, true));
        lab.assert_sound(node);
    }
    lab.set_schema(Some(r#"{"properties":{"n":{"minimum":1}}}"#));
    assert_eq!((lab.invalid(0), lab.check_of(0)), (of(1), (200, true)));
    assert_eq!((lab.invalid(1), lab.check_of(1)), (of(1), (200, true)));
    lab.set_schema(None);
    for node in [0, 1] {
        assert!(lab.invalid(node).is_empty());
        assert_eq!(lab.check_of(node), (0, true));
    }
    lab.write(0, "d000", put(r#"{"n":-5}"#));
    assert!(lab.invalid(0).is_empty());
    lab.set_schema(Some(POSITIVE));
    assert_eq!(lab.check_of(1), (100, true));
}

/// Whatever batch is the last one that a crash leaves, the replica ends where it would have ended.
#[test]
fn a_crash_at_any_batch_loses_no_flag() {
    let mut lab = lab();
    for n in 0..600 {
        lab.write(0, &format!("d{n:03}"), put(&format!(r#"{{"n":{}}}"#, n % 3 - 1)));
    }
    lab.nodes[0].disks = Some(Vec::new());
    // Some are on their way when the schema comes.
    lab.ticket += 1;
    let item = WriteItem {
        doc: doc("late"),
        write: put(r#"{"n":-9}"#),
        precondition: Precondition::None,
        base: None,
        bytes: 10,
    };
    let (limits, items) = (WriteLimits::none(), vec![item]);
    let request = WriteRequest { collection: collection(), principal: None, request: None, limits, items };
    let ticket = lab.ticket;
    lab.step(0, Input::Write { ticket, request });
    lab.act(0, Signer::Node, settings(Some(POSITIVE))).unwrap();
    lab.run(3);
    lab.write(0, "d001", put(r#"{"n":4}"#));
    lab.act(0, Signer::Node, settings(Some(r#"{"properties":{"n":{"minimum":1}}}"#))).unwrap();
    lab.run(3);
    let expected = lab.invalid(0);
    assert!(expected.len() > 390 && expected.contains(&"late".to_owned()), "{}", expected.len());
    let disks = lab.nodes[0].disks.take().unwrap();
    assert!(disks.len() > 5, "{}", disks.len());
    let identity = lab.nodes[0].replica.identity().clone();
    for (index, disk) in disks.into_iter().enumerate() {
        let mut again = lab_without_nodes(&lab);
        again.open(identity.clone(), Arc::new(disk), 0, Vec::new());
        again.run(3);
        again.assert_sound(0);
        let settled = again.nodes[0].replica.schema_checks().all(|(_, check)| check.done);
        assert!(settled, "after batch {index}");
        assert_eq!(again.check_of(0).0, again.invalid(0).len() as u64, "after batch {index}");
    }
}

pub(super) fn lab_without_nodes(lab: &Lab) -> Lab {
    Lab {
        nodes: Vec::new(),
        wire: VecDeque::new(),
        links: BTreeSet::new(),
        now: lab.now,
        ticket: lab.ticket + 1,
        bulk_gap_ops: u64::MAX,
        waiting_of_author_max: WAITING_OF_AUTHOR_MAX,
        liar: None,
        scrubs: 0,
        scrubs_in_vain: 0,
    }
}

#[test]
fn a_batch_is_refused_whole() {
    let mut lab = lab();
    lab.set_schema(Some(POSITIVE));
    lab.write(0, "a", put(r#"{"n":1}"#));
    lab.ticket += 1;
    let ticket = lab.ticket;
    let item = |id: &str, json: &str| WriteItem {
        doc: doc(id),
        write: put(json),
        precondition: Precondition::None,
        base: None,
        bytes: 10,
    };
    let items = vec![item("a", r#"{"n":2}"#), item("b", r#"{"n":1}"#), item("c", r#"{"n":-1}"#)];
    let limits = WriteLimits::none();
    let request = WriteRequest { collection: collection(), principal: None, request: None, limits, items };
    lab.step(0, Input::Write { ticket, request });
    lab.settle(0);
    let refused = lab.nodes[0].done.remove(&ticket).unwrap().unwrap_err();
    assert!(matches!(&refused, WriteError::Schema { doc, .. } if doc.as_str() == "c"), "{refused:?}");
    assert_eq!((lab.json(0, "a").as_deref(), lab.json(0, "b")), (Some(r#"{"n":1}"#), None));
    lab.write(0, "b", put(r#"{"n":4}"#));
    lab.assert_sound(0);
}
