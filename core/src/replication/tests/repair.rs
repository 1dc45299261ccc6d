//! Repair where cursors do not help.

use std::time::Duration;

use super::super::{Mutant, plant};
use super::world::{Author, World, node_key, shard};

const SECOND: Duration = Duration::from_secs(1);

/// Gives both nodes the same `streams` streams of one op each; returns their authors.
fn shared(world: &mut World, streams: u8) -> Vec<Author> {
    let mut authors: Vec<Author> = (1..=streams).map(Author::new).collect();
    for author in &mut authors {
        let op = author.write("x");
        for node in 0..world.nodes.len() {
            world.seed_store(node, std::slice::from_ref(&op));
        }
    }
    authors
}

#[test]
fn lost_cursors_cost_a_comparison_and_no_list() {
    let mut world = World::new(2, 1);
    let mut authors = shared(&mut world, 120);
    world.link_all();
    world.run(SECOND * 3);
    world.restart_without_cursors(1);
    for number in [3, 50] {
        let op = authors[number].write("y");
        world.write(0, &[op]);
    }
    world.link_all();
    world.converge(SECOND * 5);
    let counters = world.nodes[1].engine.counters();
    assert_eq!((counters.ranges_compared, counters.range_questions), (1, 2));
    assert_eq!(world.nodes[1].pulled.len(), 2);
    assert!(world.nodes[1].engine.absorbed(&node_key(0), &shard()).is_some(), "and there is a cursor again");
    // From then on cursors do.
    world.unlink(0, 1);
    let op = authors[7].write("z");
    world.write(0, &[op]);
    world.link_all();
    world.converge(SECOND * 5);
    assert_eq!(world.nodes[1].engine.counters().ranges_compared, 1);
}

#[test]
fn a_restored_store_that_gives_out_arrivals_again_is_seen_through() {
    let mut world = World::new(3, 1);
    let mut authors = shared(&mut world, 40);
    world.link_all();
    for author in &mut authors[..20] {
        let op = author.write("y");
        world.write(0, &[op]);
    }
    world.converge(SECOND * 5);
    world.run(SECOND * 2);
    // Node 0 is back at one op of each stream, then takes 25 that nobody has: its arrivals pass the cursors of the others,
    // which would never ask for what lies before.
    world.restore(0, 1);
    let absorbed = world.nodes[1].engine.absorbed(&node_key(0), &shard()).unwrap().1;
    let mut lost = Vec::new();
    for number in 0..25 {
        let mut author = Author::new(100 + number);
        lost.push(author.write("new"));
        world.write(0, &lost[lost.len() - 1..]);
    }
    let count = world.nodes[0].logs.len() as u64;
    assert!(absorbed > 0 && count > absorbed, "the cursors look valid: {absorbed} of {count}");
    world.link_all();
    let took = world.converge(SECOND * 15);
    assert!(took <= SECOND * 5, "{took:?}");
    assert!(lost.iter().all(|op| world.nodes.iter().all(|node| node.ops().contains(&op.id()))));
}

#[test]
fn a_comparison_that_forgets_what_it_hears_does_not_converge() {
    plant(Some(Mutant::LinesForgotten));
    let mut world = World::new(2, 1);
    let mut authors = shared(&mut world, 5);
    let op = authors[3].write("y");
    world.seed_store(0, &[op]);
    world.link_all();
    let took = world.run_while(SECOND * 30, World::is_converged);
    plant(None);
    assert!(took.is_none(), "this world sees when ranges do not do their work");
}
