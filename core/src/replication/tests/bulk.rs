//! Shards taken in bulk: documents first, from one peer after the other if need be, then bare ops.

use std::time::Duration;

use bytes::Bytes;
use serde_bytes::ByteBuf;

use super::super::{BulkDocument, Misbehaviour, Subscription, limits};
use super::world::{Author, World, node_key, shard};
use crate::hlc::Hlc;

const SECOND: Duration = Duration::from_secs(1);

/// A node with streams and ten documents, and an empty one.
fn world(full: usize) -> World {
    let mut world = World::new(full, 1);
    for number in 1..=6 {
        let mut author = Author::new(number);
        let ops = [author.write("a"), author.write("b")];
        for node in 0..full {
            world.seed_store(node, &ops);
        }
    }
    for node in 0..full {
        for number in 0..10 {
            let doc: crate::id::DocId = format!("d{number}").parse().unwrap();
            let changes = vec![ByteBuf::from(vec![1])];
            world.nodes[node].documents.insert(doc.clone(), BulkDocument { doc, modified: Hlc::ZERO, changes });
        }
    }
    world.add_node(full, 7, Subscription::All);
    world
}

#[test]
fn documents_come_before_ops_and_ops_come_bare() {
    let mut world = world(1);
    world.link(0, 1);
    let is_read = |world: &World| world.nodes[1].documents.len() == 10;
    world.run_while(SECOND * 5, is_read).unwrap();
    assert!(world.nodes[1].ops().is_empty(), "no op before the last document");
    let status = world.nodes[1].engine.bulks();
    assert_eq!((status[0].documents, status[0].source), (10, node_key(0)));
    world.converge(SECOND * 5);
    assert_eq!(world.nodes[1].completed, 12, "every op came bare");
    world.run(SECOND * 3);
    assert_eq!(world.nodes[1].bulk_ended, [(node_key(0), shard())]);
    assert!(world.nodes[1].engine.bulks().is_empty());
    // Who has something is not given documents.
    world.unlink(0, 1);
    let op = Author::new(99).write("x");
    world.write(0, &[op]);
    world.link(0, 1);
    world.converge(SECOND * 5);
    assert!(world.nodes[1].engine.bulks().is_empty() && world.nodes[1].completed == 12);
}

#[test]
fn changes_that_are_not_as_named_are_pulled_whole() {
    let mut world = world(1);
    world.nodes[1].is_lacking = true;
    world.link(0, 1);
    world.converge(SECOND * 10);
    let counters = world.nodes[1].engine.counters();
    assert_eq!((counters.bare_incomplete, counters.pulls_sent), (6, 12), "once bare, once whole");
    assert!(world.nodes[1].misbehaved.is_empty());
}

#[test]
fn a_source_that_goes_or_falls_silent_is_followed_by_another() {
    for silent in [true, false] {
        let mut world = world(2);
        world.link(0, 2);
        world.run_while(SECOND * 5, |world| world.nodes[2].documents.len() == 6).unwrap();
        if silent {
            world.silent.insert((0, 2));
        } else {
            world.unlink(0, 2);
        }
        world.link(1, 2);
        let took = world.run_while(SECOND * 20, |world| world.nodes[2].documents.len() == 10).unwrap();
        assert!(took <= limits::REQUEST_TIMEOUT + SECOND, "{took:?}");
        world.run_while(SECOND * 10, |world| world.nodes[2].ops().len() == 12).unwrap();
        assert!(
            world.nodes[2].engine.bulks().first().is_none_or(|bulk| bulk.documents < 16),
            "resumed, not begun again"
        );
    }
}

#[test]
fn a_source_of_no_documents_is_told_and_left() {
    let mut world = world(2);
    let first = world.nodes[0].documents.first_entry().unwrap().into_mut();
    first.changes = vec![ByteBuf::from(Bytes::new().to_vec())];
    world.link(0, 2);
    world.link(1, 2);
    world.run_while(SECOND * 20, |world| world.nodes[2].documents.len() == 10).unwrap();
    world.converge(SECOND * 10);
    assert!(world.nodes[2].misbehaved.iter().all(|what| *what == (node_key(0), Misbehaviour::FalseDocuments)));
}
