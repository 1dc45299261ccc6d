//! Shards taken in bulk: documents first, from all who have them, then bare ops.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use serde_bytes::ByteBuf;

use super::super::{BulkDocument, BulkStage, Misbehaviour, Subscription, limits};
use super::world::{Author, World, node_key, shard};
use crate::hlc::Hlc;
use crate::id::DocId;

const SECOND: Duration = Duration::from_secs(1);
const DOCUMENTS: usize = 60;

fn document(number: usize, modified: Hlc) -> BulkDocument {
    let doc: DocId = format!("d{number}").parse().unwrap();
    BulkDocument { doc, modified, changes: vec![ByteBuf::from(vec![1])] }
}

/// Nodes with streams and documents, and an empty one.
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
        for number in 0..DOCUMENTS {
            let document = document(number, Hlc::ZERO);
            world.nodes[node].documents.insert(document.doc.clone(), document);
        }
    }
    world.add_node(full, 7, Subscription::All);
    world
}

fn has_all(world: &World, node: usize) -> bool {
    world.nodes[node].documents.len() == DOCUMENTS
}

/// Returns how many documents were given in all, and how many of them more than once.
fn given(world: &World) -> (usize, usize) {
    let all: Vec<&DocId> = world.nodes.iter().flat_map(|node| &node.given).collect();
    let different: BTreeSet<&DocId> = all.iter().copied().collect();
    (all.len(), all.len() - different.len())
}

#[test]
fn documents_come_before_ops_and_ops_come_bare() {
    let mut world = world(1);
    world.link(0, 1);
    world.run_while(SECOND * 5, |world| has_all(world, 1)).unwrap();
    assert!(world.nodes[1].ops().is_empty(), "no op before the last document");
    let status = world.nodes[1].engine.bulks().remove(0);
    assert_eq!((status.progress.documents, status.progress.total), (DOCUMENTS as u64, DOCUMENTS as u64));
    assert_eq!(status.progress.givers, [node_key(0)]);
    assert_eq!(given(&world), (DOCUMENTS, 0));
    world.converge(SECOND * 5);
    assert_eq!(world.nodes[1].completed, 12, "every op came bare");
    world.run(SECOND * 3);
    assert_eq!(world.nodes[1].bulk_ended, [(vec![node_key(0)], shard())]);
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
fn several_give_at_once_and_nothing_is_given_twice() {
    let mut world = world(3);
    for giver in 0..3 {
        world.link(giver, 3);
    }
    world.run_while(SECOND * 5, |world| has_all(world, 3)).unwrap();
    assert_eq!(given(&world), (DOCUMENTS, 0), "each document was given once");
    let shares: Vec<usize> = (0..3).map(|giver| world.nodes[giver].given.len()).collect();
    assert!(shares.iter().all(|share| *share >= DOCUMENTS / 6), "all of them gave: {shares:?}");
    world.converge(SECOND * 10);
    world.run(SECOND * 3);
    assert_eq!(world.nodes[3].bulk_ended.len(), 1);
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
        world.run_while(SECOND * 5, |world| world.nodes[2].documents.len() > DOCUMENTS / 3).unwrap();
        if silent {
            world.silent.insert((0, 2));
        } else {
            world.unlink(0, 2);
        }
        world.link(1, 2);
        let took = world.run_while(SECOND * 20, |world| has_all(world, 2)).unwrap();
        assert!(took <= limits::PULL_PATIENCE + SECOND * 2, "{took:?}");
        let twice = given(&world).1;
        assert!(twice <= limits::BULK_PAGES_PER_PEER_MAX * 3, "gone on with, not begun again: {twice} given twice");
        world.run_while(SECOND * 10, |world| world.nodes[2].ops().len() == 12).unwrap();
    }
}

#[test]
fn a_silent_one_keeps_back_no_part_from_those_who_give() {
    let mut world = world(3);
    for giver in 0..3 {
        world.link(giver, 3);
    }
    world.run_while(SECOND * 5, |world| world.nodes[3].documents.len() >= 6).unwrap();
    world.silent.insert((1, 3));
    let took = world.run_while(SECOND * 20, |world| has_all(world, 3)).unwrap();
    assert!(took <= limits::PULL_PATIENCE + SECOND, "{took:?}");
    assert!(world.nodes[3].engine.counters().bulk_pages_late >= 1);
}

#[test]
fn a_source_of_no_documents_is_told_and_left() {
    let mut world = world(2);
    let first = world.nodes[0].documents.first_entry().unwrap().into_mut();
    first.changes = vec![ByteBuf::from(Bytes::new().to_vec())];
    world.link(0, 2);
    world.link(1, 2);
    world.run_while(SECOND * 20, |world| has_all(world, 2)).unwrap();
    world.converge(SECOND * 10);
    assert!(world.nodes[2].misbehaved.iter().all(|what| *what == (node_key(0), Misbehaviour::FalseDocuments)));
}

#[test]
fn who_begins_is_no_source_for_another_beginner() {
    let mut world = world(1);
    world.add_node(2, 8, Subscription::All);
    world.link(0, 1);
    world.link(1, 2);
    world.run_while(SECOND * 30, |world| world.nodes[2].ops().len() == 12).unwrap();
    assert!(has_all(&world, 1) && world.nodes[1].engine.counters().misbehaviours == 0);
}

#[test]
fn a_stopped_node_goes_on_with_another_source_where_it_was() {
    let mut world = world(2);
    world.link(0, 2);
    world.run_while(SECOND * 5, |world| world.nodes[2].documents.len() > DOCUMENTS / 2).unwrap();
    world.restart(2);
    world.run(SECOND);
    let before = world.nodes[2].documents.len();
    world.link(1, 2);
    world.run_while(SECOND * 5, |world| has_all(world, 2)).unwrap();
    let again = world.nodes[1].given.len();
    // Of what was on its way when it stopped nothing is on its disk.
    let most = DOCUMENTS - before + limits::BULK_PAGES_PER_PEER_MAX * 3;
    assert!(again <= most, "{again} documents asked for of the {} that were missing", DOCUMENTS - before);
    world.converge(SECOND * 10);
    assert_eq!(world.nodes[2].completed, 12);
}

#[test]
fn who_was_away_for_long_takes_what_changed_since() {
    for (gap, away) in [(8, 10), (20, 10)] {
        let mut world = World::new(2, 3);
        world.bulk_gap_ops = gap;
        let mut author = Author::new(1);
        let first = author.write("a");
        let (old, new) = (first.header().hlc, Hlc::new(first.header().hlc.millis() + 3_600_000, 0));
        for node in 0..2 {
            world.seed_store(node, std::slice::from_ref(&first));
        }
        let ops: Vec<_> = (0..away).map(|_| author.write("b")).collect();
        world.seed_store(0, &ops);
        for (number, modified) in [(1, Hlc::ZERO), (2, new), (3, new)] {
            let document = document(number, modified);
            world.nodes[0].documents.insert(document.doc.clone(), document);
        }
        world.restart(1);
        assert!(old < new);
        world.link(0, 1);
        world.converge(SECOND * 10);
        let is_bulk = away >= gap;
        let taken: Vec<&str> = world.nodes[1].documents.keys().map(DocId::as_str).collect();
        assert_eq!(taken, if is_bulk { vec!["d2", "d3"] } else { vec![] });
        assert_eq!(world.nodes[1].completed > 0, is_bulk, "the ops came bare if the documents came");
        world.run(SECOND * 3);
        assert_eq!(world.nodes[1].bulk_ended.len(), usize::from(is_bulk));
        assert!(world.nodes[1].engine.bulks().iter().all(|bulk| bulk.progress.stage == BulkStage::Documents));
    }
}
