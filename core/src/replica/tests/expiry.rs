//! Documents whose time is over are shown to nobody, deleted by one, and do not come back.

use super::*;
use crate::document::json::timestamp_to_text;
use crate::op::{Act, Collection, Expires};

fn settings(after_s: Option<u32>) -> ActRequest {
    ActRequest::One(Act::Collection(Collection {
        name: collection(),
        shards: 1,
        types: Vec::new(),
        dropped: false,
        audit_reads: false,
        indexes: vec![],
        schema: None,
        expires: after_s.map(|after_s| Expires { field: "/until/at".parse().unwrap(), after_s }),
        unique: vec![],
    }))
}

impl Lab {
    /// Returns the time in so many milliseconds, as text.
    fn in_ms(&self, ms: i64) -> String {
        timestamp_to_text(i64::try_from(self.now.wall_ms).unwrap() + ms).unwrap()
    }

    fn ending(&self, ms: i64, more: &str) -> DocWrite {
        put(&format!(r#"{{"until":{{"at":"{}"}}{more}}}"#, self.in_ms(ms)))
    }

    /// What readers find, whatever way they look.
    fn found(&self, node: usize) -> Vec<String> {
        let reader = Reader::of(&self.nodes[node].replica);
        let name = collection();
        let list = reader.list(&name, "", None, 100, 1 << 20).unwrap();
        let listed: Vec<String> = list.iter().map(|view| view.doc.to_string()).collect();
        let views = reader.views(&name);
        let scanned: Vec<String> = views.scan(&IdRange::default()).map(|view| view.unwrap().doc.to_string()).collect();
        assert_eq!(listed, scanned);
        let feed = reader.feed(0, None, "", 100, &|_, _| Ok(true)).unwrap().entries;
        for entry in feed {
            let is_listed = listed.contains(&entry.key.doc.to_string());
            assert_eq!(is_listed, !entry.view.deleted, "{:?}", entry.key);
            assert_eq!(is_listed, !entry.view.json.is_empty());
            assert_eq!(is_listed, views.get(&entry.key.doc).unwrap().is_some());
            assert_eq!(is_listed, reader.get(&entry.key).unwrap().is_some_and(|view| !view.deleted));
        }
        listed
    }

    fn expired(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.replica.counters().documents_expired).collect()
    }

    /// The nodes by the order of their keys.
    fn turns(&self) -> (usize, usize) {
        let key = |node: usize| self.nodes[node].replica.identity().node.author();
        if key(0) < key(1) { (0, 1) } else { (1, 0) }
    }
}

fn lab() -> Lab {
    let mut lab = Lab::new(&[BuiltInRole::Editor]);
    lab.act(0, Signer::Node, settings(Some(1))).unwrap();
    lab.run(5);
    lab
}

#[test]
fn what_is_over_is_found_by_no_read_at_once() {
    let mut lab = lab();
    lab.cut(0, 1);
    // On a node that never sweeps.
    for node in &mut lab.nodes {
        node.replica.sweep.due_ms = u64::MAX;
    }
    for (id, more) in [("a", ""), ("b", r#","n":1"#)] {
        let write = lab.ending(1_000, more);
        lab.write(0, id, write);
    }
    for (id, json) in [("never", "{}"), ("no-time", r#"{"until":{"at":"soon"}}"#), ("number", r#"{"until":{"at":1}}"#)]
    {
        lab.write(0, id, put(json));
    }
    lab.run(15);
    assert_eq!(lab.found(0), ["a", "b", "never", "no-time", "number"]);
    lab.run(10);
    assert_eq!(lab.found(0), ["never", "no-time", "number"]);
    assert!(lab.expired() == [0, 0] && lab.json(0, "a").is_some());

    // Who writes to it makes it anew, with nothing of what it was.
    let patch = DocWrite::Edit(Edit::parse(EditFormat::MergePatch, br#"{"n":2}"#).unwrap());
    assert!(matches!(lab.try_write(0, "b", patch, None), Err(WriteError::NotFound(_))));
    assert!(matches!(lab.try_write(0, "b", DocWrite::Delete, None), Err(WriteError::NotFound(_))));
    let write = lab.ending(60_000, r#","m":1"#);
    let made = lab.write(0, "b", write);
    assert_eq!(made.items[0].status, ItemStatus::Created);
    assert_eq!(lab.found(0), ["b", "never", "no-time", "number"]);
    assert!(!lab.json(0, "b").unwrap().contains("\"n\""));

    // The settings count from when they are known.
    lab.act(0, Signer::Node, settings(None)).unwrap();
    assert_eq!(lab.found(0).len(), 5);
    lab.act(0, Signer::Node, settings(Some(0))).unwrap();
    assert_eq!(lab.found(0).len(), 4);
    lab.act(0, Signer::Node, settings(Some(3_600))).unwrap();
    assert_eq!(lab.found(0).len(), 5);
}

#[test]
fn one_node_deletes_what_is_over_and_the_next_one_if_that_is_gone() {
    let mut lab = lab();
    let (first, second) = lab.turns();
    for n in 0..200 {
        let write = lab.ending(500, "");
        lab.write(n % 2, &format!("d{n:03}"), write);
    }
    lab.write(0, "keep", put("{}"));
    lab.run(100);
    assert_eq!((lab.expired()[first], lab.expired()[second]), (200, 0));
    assert!(lab.json(second, "d000").is_none() && lab.json(second, "keep").is_some());
    assert_eq!((lab.found(0), lab.found(1)), (vec!["keep".to_owned()], vec!["keep".to_owned()]));
    lab.assert_converged();
    // Alone, each is the first.
    lab.cut(0, 1);
    let write = lab.ending(500, "");
    lab.write(second, "alone", write);
    lab.run(40);
    assert_eq!(lab.expired()[second], 1);
    // Beside one that does nothing, it waits for its turn.
    lab.connect(0, 1);
    lab.run(10);
    lab.nodes[first].replica.sweep.due_ms = u64::MAX;
    let write = lab.ending(500, "");
    lab.write(second, "late", write);
    lab.run(250);
    assert_eq!(
        (lab.expired()[second], lab.found(first), lab.found(second)),
        (1, vec!["keep".to_owned()], vec!["keep".to_owned()])
    );
    lab.run(100);
    assert_eq!(lab.expired()[second], 2);
}

#[test]
fn nothing_comes_back_but_by_an_edit_that_moves_its_time() {
    let mut lab = lab();
    let (first, second) = lab.turns();
    for id in ["same", "moved"] {
        let write = lab.ending(2_000, "");
        lab.write(first, id, write);
    }
    lab.run(5);
    lab.cut(0, 1);
    lab.nodes[second].replica.sweep.due_ms = u64::MAX;
    // Edits made in time, of which the one that deletes does not know.
    let set =
        |place: &str, value: &str| ops(&format!(r#"{{"ops":[{{"op":"set","path":"{place}","value":"{value}"}}]}}"#));
    lab.write(second, "same", set("/note", "x"));
    let later = lab.in_ms(3_600_000);
    lab.write(second, "moved", set("/until/at", &later));
    lab.run(60);
    assert_eq!(lab.expired()[first], 2);
    assert_eq!((lab.found(first), lab.found(second)), (vec![], vec!["moved".to_owned()]));
    lab.connect(0, 1);
    lab.run(3);
    // By the rule of deletes both are there again; one of them is still over.
    assert_eq!((lab.found(first), lab.found(second)), (vec!["moved".to_owned()], vec!["moved".to_owned()]));
    lab.run(60);
    lab.assert_converged();
    assert_eq!(lab.expired()[first], 3);
    assert!(lab.json(first, "same").is_none() && lab.json(second, "same").is_none());
    assert_eq!(lab.found(second), ["moved"]);
}
