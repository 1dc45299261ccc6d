//! Forks are found by whoever sees both branches, proved to the others, and digests agree afterwards. Pins.

use std::sync::Arc;
use std::time::Duration;

use super::super::*;
use super::world::{Author, Sealed, World, change_of, node_key, shard};
use crate::op::Op;

const SECOND: Duration = Duration::from_secs(1);

/// Chains of one dishonest author: a common beginning, then a branch for each length, told apart by its text.
fn branches(common: u64, lengths: &[u64]) -> (Author, Vec<Vec<Arc<Op>>>) {
    let mut author = Author::new(1);
    let seal = |i: u64, of: u64| if i.is_multiple_of(100) || i == of { Sealed::Signed } else { Sealed::Bare };
    let prefix: Vec<_> = (1..=common).map(|i| author.append("common", seal(i, common))).collect();
    let chains = lengths
        .iter()
        .enumerate()
        .map(|(branch, length)| {
            let mut fork = author.clone();
            let own = (1..=*length).map(|i| fork.append(&format!("branch {branch}"), seal(i, *length)));
            prefix.iter().cloned().chain(own).collect()
        })
        .collect();
    (author, chains)
}

fn all_know(world: &World, author: &Author, seq: u64) -> bool {
    world.nodes.iter().all(|node| {
        matches!(node.engine.head(&shard(), author.stream()), Some(HeadState::Forked { seq: at, .. }) if at == seq)
    })
}

fn check_found(common: u64, lengths: &[u64], nodes: usize) {
    let (author, chains) = branches(common, lengths);
    let mut world = World::new(nodes, 4);
    for (node, chain) in chains.iter().enumerate() {
        world.seed_store(node, chain);
    }
    world.link_all();
    let took = world.run_while(SECOND * 30, |world| all_know(world, &author, common + 1));
    let states: Vec<_> = world.nodes.iter().map(|node| node.engine.head(&shard(), author.stream())).collect();
    assert!(took.is_some(), "common {common}, branches {lengths:?}: {states:?}");
    world.run(SECOND * 3);
    assert!(world.is_converged());
    for node in &world.nodes {
        assert!(node.misbehaved.iter().all(|(_, what)| !what.is_proof()), "{:?}", node.misbehaved);
        let log = node.log(author.stream());
        assert!(!log.branches.is_empty() && log.fork == Some(common + 1), "the proof is here");
    }
}

#[test]
fn forks_are_found_on_both_sides() {
    check_found(0, &[1, 1], 2);
    check_found(3, &[1, 1], 2);
    check_found(3, &[1, 5], 2);
    check_found(3, &[5, 2], 3);
}

#[test]
fn forks_deep_in_the_past_are_found() {
    check_found(40, &[700, 700], 2);
    check_found(1_234, &[300, 3_000], 3);
}

#[test]
fn three_branches_are_found() {
    check_found(2, &[2, 3, 4], 3);
    check_found(2, &[2, 2, 2], 5);
}

#[test]
fn a_fork_is_seen_in_a_push() {
    let (author, chains) = branches(2, &[1, 1]);
    let mut world = World::new(2, 4);
    for chain in &chains {
        world.seed_store(0, if world.nodes[0].ops().is_empty() { &chain[..2] } else { &[] });
    }
    world.link_all();
    world.converge(SECOND * 5);
    world.write(0, &chains[0][2..]);
    world.write(1, &chains[1][2..]);
    let took = world.run_while(SECOND, |world| all_know(world, &author, 3));
    assert!(took.is_some_and(|took| took < SECOND / 2), "{took:?}");
}

#[test]
fn a_forked_stream_takes_no_more() {
    let (mut author, chains) = branches(2, &[1, 1]);
    // The last one follows the branch that is written on, so it could take what follows.
    let mut world = World::new(3, 4);
    world.seed_store(0, &chains[0]);
    world.seed_store(1, &chains[1]);
    world.seed_store(2, &chains[0]);
    world.link_all();
    world.run(SECOND * 5);
    assert!(all_know(&world, &author, 3));
    author.tip = Tip { seq: 3, id: chains[0][2].id() };
    let op = author.write("on");
    world.write(0, std::slice::from_ref(&op));
    world.run(SECOND * 3);
    assert!(world.is_converged(), "digests take no notice");
    for node in 1..3 {
        assert!(!world.nodes[node].ops().contains(&op.id()), "node {node}");
    }
}

#[test]
fn a_smaller_fork_replaces_a_later_one() {
    // Three branches that part at different places: 0 and 1 at 6, 2 at 3.
    let (_, early) = branches(2, &[10]);
    let mut late = Author::new(1);
    let mut common: Vec<_> = (1..=2).map(|_| late.append("common", Sealed::Bare)).collect();
    common.pop();
    let (mut a, mut b) = (
        {
            let mut a = Author::new(1);
            a.append("common", Sealed::Bare);
            a.append("common", Sealed::Signed);
            a
        },
        None,
    );
    let mut chain: Vec<_> = early[0][..2].to_vec();
    assert_eq!(chain[1].id(), a.tip.id, "the same beginning");
    for _ in 0..3 {
        chain.push(a.write("middle"));
    }
    b.get_or_insert(a.clone());
    let mut b = b.unwrap();
    let one: Vec<_> = chain.iter().cloned().chain([a.write("one")]).collect();
    let two: Vec<_> = chain.iter().cloned().chain([b.write("two")]).collect();
    let mut world = World::new(3, 4);
    world.seed_store(0, &one);
    world.seed_store(1, &two);
    world.seed_store(2, &early[0]);
    world.link(0, 1);
    world.run(SECOND * 5);
    assert!(matches!(world.nodes[0].engine.head(&shard(), a.stream()), Some(HeadState::Forked { seq: 6, .. })));
    world.link(1, 2);
    world.run(SECOND * 10);
    assert!(all_know(&world, &a, 3));
    assert!(world.is_converged());
}

#[test]
fn a_node_without_the_stream_gets_a_branch_and_the_proof() {
    let (author, chains) = branches(150, &[120, 30]);
    let mut world = World::new(3, 4);
    world.seed_store(0, &chains[0]);
    world.seed_store(1, &chains[1]);
    world.link(0, 1);
    world.run(SECOND * 5);
    world.link(1, 2);
    let took = world.run_while(SECOND * 20, |world| all_know(world, &author, 151));
    assert!(took.is_some());
    let log = world.nodes[2].log(author.stream());
    assert!(log.main.len() >= 151 && log.branches.len() == 1);
}

#[test]
fn a_closed_stream_counts_up_to_its_pin() {
    let mut world = World::new(3, 4);
    let mut author = Author::new(1);
    let ops: Vec<_> = (0..10).map(|i| author.write(&format!("{i}"))).collect();
    let pin = Tip { seq: 4, id: ops[3].id() };
    world.seed_store(0, &ops);
    world.seed_store(1, &ops[..4]);
    world.link_all();
    for node in 0..3 {
        world.nodes[node].verdicts.pins.insert(author.stream(), pin);
        world.give(node, Input::PolicyChanged { streams: vec![(shard(), author.stream())] });
    }
    world.converge_digests(SECOND * 5);
    let digest = world.nodes[0].engine.digest(&shard());
    assert_eq!(digest.count(), 1);
    assert_eq!(world.nodes[2].ops().len(), 4, "up to the pin, although the op there is not the end of a run");
    let op = author.write("beyond");
    world.write(0, &[op]);
    world.run(SECOND * 3);
    assert_eq!(world.nodes[0].engine.digest(&shard()), digest);
    assert_eq!(world.nodes[2].ops().len(), 4);
    // Cut altogether, it leaves no trace in digests; let stand again, the rest is fetched.
    for node in 0..3 {
        world.nodes[node].verdicts.pins.insert(author.stream(), Tip::START);
        world.give(node, Input::PolicyChanged { streams: vec![(shard(), author.stream())] });
        assert!(world.nodes[node].engine.digest(&shard()).is_empty());
    }
    for node in 0..3 {
        world.nodes[node].verdicts.pins.clear();
        world.give(node, Input::PolicyChanged { streams: vec![(shard(), author.stream())] });
    }
    world.converge(SECOND * 10);
    assert_eq!(world.nodes[2].ops().len(), 11);
}

/// As for a new member, where somebody was removed before it came.
#[test]
fn a_stream_that_turns_out_to_be_closed_is_asked_for_again_at_once() {
    for seq in [1, 4] {
        let mut world = World::new(2, 4);
        let mut author = Author::new(1);
        let ops: Vec<_> = (0..10).map(|i| author.write(&format!("{i}"))).collect();
        let pin = Tip { seq, id: ops[seq as usize - 1].id() };
        world.seed_store(0, &ops);
        world.nodes[0].verdicts.pins.insert(author.stream(), pin);
        world.give(0, Input::PolicyChanged { streams: vec![(shard(), author.stream())] });
        world.nodes[1].verdicts.late_pins.insert(author.stream(), pin);
        world.link_all();
        world.converge_digests(SECOND * 3);
        assert_eq!(world.nodes[1].ops().len(), seq as usize);
    }
}

#[test]
fn a_fork_beyond_the_pin_is_told_to_everybody() {
    let (author, chains) = branches(5, &[5, 5]);
    let mut world = World::new(3, 4);
    world.seed_store(0, &chains[0]);
    world.seed_store(1, &chains[1]);
    world.link(0, 1);
    world.run(SECOND * 5);
    let pin = Tip { seq: 3, id: chains[0][2].id() };
    for node in 0..3 {
        world.nodes[node].verdicts.pins.insert(author.stream(), pin);
        world.give(node, Input::PolicyChanged { streams: vec![(shard(), author.stream())] });
    }
    world.link(1, 2);
    let took = world.run_while(SECOND * 20, |world| all_know(world, &author, 6));
    let states: Vec<_> = world.nodes.iter().map(|node| node.engine.head(&shard(), author.stream())).collect();
    assert!(took.is_some(), "{states:?}");
    world.run(SECOND * 3);
    world.converge_digests(SECOND * 5);
}

#[test]
fn a_pin_in_mid_run_vouches_for_the_end() {
    let mut world = World::new(2, 4);
    let mut author = Author::new(1);
    let ops: Vec<_> =
        (1..=10).map(|i| author.append("x", if i == 10 { Sealed::Signed } else { Sealed::Bare })).collect();
    world.seed_store(0, &ops);
    let pin = Tip { seq: 4, id: ops[3].id() };
    for node in 0..2 {
        world.nodes[node].verdicts.pins.insert(author.stream(), pin);
        world.give(node, Input::PolicyChanged { streams: vec![(shard(), author.stream())] });
    }
    world.link_all();
    world.converge_digests(SECOND * 5);
    assert_eq!(world.nodes[1].ops().len(), 4);
    assert_eq!(world.nodes[1].engine.counters().signatures_checked, 0);
}

#[test]
fn an_op_that_a_pin_names_is_found_on_another_branch() {
    // The last branch is longer than the proof of a fork, which is one run.
    for (common, lengths) in [(3, [2, 3]), (500, [300, 900]), (0, [4, 4]), (2, [3, 5_000])] {
        let (author, chains) = branches(common, &lengths);
        let mut world = World::new(3, 4);
        world.seed_store(0, &chains[0]);
        world.seed_store(1, &chains[0]);
        world.seed_store(2, &chains[1]);
        world.link_all();
        world.run(SECOND * 5);
        let last = chains[1].last().unwrap();
        let tip = Tip { seq: last.header().seq, id: last.id() };
        world.give(0, Input::NeedOp { shard: shard(), stream: author.stream(), tip, hint: Some(node_key(1)) });
        world.run(SECOND * 30);
        let log = world.nodes[0].log(author.stream());
        let has = log.branches.iter().flatten().any(|op| op.id() == tip.id);
        let ends: Vec<_> = log.branches.iter().map(|b| (b[0].header().seq, b.last().unwrap().header().seq)).collect();
        assert!(has, "common {common}: {ends:?}");
        world.give(0, Input::OpSettled { stream: author.stream(), id: tip.id });
        assert_eq!(world.nodes[0].held("needed_changes") + world.nodes[0].held("needed_ops"), 0);
    }
}

#[test]
fn a_chain_that_a_pin_names_is_no_fork_where_it_only_goes_on() {
    // It is longer than one answer, and ends beyond where the stream is closed here.
    let (author, chains) = branches(2, &[5_000]);
    let ops = &chains[0];
    let mut world = World::new(2, 4);
    world.seed_store(0, &ops[..2]);
    world.seed_store(1, ops);
    let pin = Tip { seq: 2, id: ops[1].id() };
    for node in 0..2 {
        world.nodes[node].verdicts.pins.insert(author.stream(), pin);
        world.give(node, Input::PolicyChanged { streams: vec![(shard(), author.stream())] });
    }
    world.link_all();
    world.run(SECOND * 5);
    assert_eq!(world.nodes[0].log(author.stream()).main.len(), 2);
    let last = ops.last().unwrap();
    let tip = Tip { seq: last.header().seq, id: last.id() };
    world.give(0, Input::NeedOp { shard: shard(), stream: author.stream(), tip, hint: Some(node_key(1)) });
    world.run(SECOND * 30);
    let log = world.nodes[0].log(author.stream());
    assert_eq!((log.fork, log.main.len()), (None, ops.len()));
}

#[test]
fn a_fork_that_no_digest_shows_is_found_by_a_change_that_builds_on_it() {
    // The author is cut off whole, so nobody's digest tells which of its two first ops somebody has. A document of node 0 waits
    // for a change that only node 1 has.
    let (author, chains) = branches(0, &[2, 2]);
    let mut world = World::new(2, 4);
    for (node, chain) in chains.iter().enumerate() {
        world.nodes[node].verdicts.pins.insert(author.stream(), Tip::START);
        world.seed_store(node, chain);
    }
    world.link_all();
    world.run(SECOND * 10);
    assert!(world.is_converged() && world.nodes[0].log(author.stream()).fork.is_none(), "nobody can know");
    let change = change_of(&chains[1][1]);
    world.give(0, Input::NeedChange { shard: shard(), change, hint: None });
    world.run(SECOND * 10);
    for node in &world.nodes {
        assert_eq!(node.log(author.stream()).fork, Some(1), "both have the proof");
        assert!(node.misbehaved.iter().all(|(_, what)| !what.is_proof()), "{:?}", node.misbehaved);
    }
    world.converge_digests(SECOND * 5);
}
