//! Authors that begin again and again: what closed sessions cost, and what happens where an end is lost, false or forked.

use std::time::Duration;

use super::super::*;
use super::world::{Author, World, node_key, shard};
use crate::id::{OpId, SessionId, StreamId};
use crate::op::SessionEnd;

/// Sessions of one author in a row, each of `ops` ops and each naming the end of the one before; the last one is returned.
fn row(world: &mut World, node: usize, author: Author, sessions: u16, ops: usize) -> Author {
    let mut author = author;
    for number in 0..sessions {
        if number > 0 || author.tip.seq > 0 {
            author = author.restarted(number, vec![author.end()]);
        }
        for _ in 0..ops {
            let op = author.write("x");
            world.write(node, &[op]);
        }
    }
    author
}

fn heads(world: &World, node: usize) -> usize {
    world.nodes[node].engine.heads(&shard()).count()
}

/// Lets time go by and requires equal digests and equal ops after it.
fn converge(world: &mut World, seconds: u64) {
    world.run(Duration::from_secs(seconds));
    world.converge(Duration::ZERO);
}

fn told(world: &World, node: usize) -> Vec<(StreamId, HeadState)> {
    world.nodes[node].engine.heads(&shard()).collect()
}

#[test]
fn a_stream_that_ends_where_the_next_says_is_no_head_any_more() {
    let mut world = World::new(2, 1);
    let last = row(&mut world, 0, Author::new(1), 50, 2);
    assert_eq!(heads(&world, 0), 1);
    assert_eq!(world.nodes[0].engine.digest(&shard()).count(), 1);
    assert_eq!(world.nodes[0].engine.heads(&shard()).next().unwrap().0, last.stream());
    // All of them reach a peer that has nothing, by way of the one that is told of.
    world.link_all();
    converge(&mut world, 10);
    assert_eq!(world.nodes[1].logs.len(), 50);
    // And one that starts again folds the same from its store.
    world.restart(1);
    assert_eq!(world.nodes[1].engine.digest(&shard()), world.nodes[0].engine.digest(&shard()));
    assert_eq!(heads(&world, 1), 1);
}

#[test]
fn a_long_row_of_sessions_takes_few_questions() {
    let mut world = World::new(2, 2);
    row(&mut world, 0, Author::new(1), 1_000, 1);
    world.link_all();
    let took = world.converge(Duration::from_secs(60));
    // One after the other they would take a round trip and a commit each.
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(world.nodes[1].logs.len(), 1_000);
}

#[test]
fn the_order_of_arrival_does_not_matter() {
    for seed in 0..20 {
        let mut world = World::new(3, seed);
        let mut author = Author::new(1);
        let mut sessions = Vec::new();
        for number in 0..6u16 {
            if number > 0 {
                author = author.restarted(number, vec![author.end()]);
            }
            sessions.push((0..2).map(|_| author.write("x")).collect::<Vec<_>>());
        }
        let (even, odd): (Vec<_>, Vec<_>) = sessions.iter().enumerate().partition(|(number, _)| number % 2 == 0);
        for (_, ops) in even.iter().rev() {
            world.write(0, ops);
        }
        for (_, ops) in &odd {
            world.write(1, ops);
        }
        for ops in &sessions {
            world.write(2, ops);
        }
        // Neither has all: both say so, and differ from who has.
        assert_eq!(heads(&world, 2), 1, "seed {seed}");
        assert_ne!(world.nodes[0].engine.digest(&shard()), world.nodes[2].engine.digest(&shard()));
        assert_ne!(world.nodes[1].engine.digest(&shard()), world.nodes[2].engine.digest(&shard()));
        world.link(0, 1);
        if seed % 2 == 0 {
            world.link(1, 2);
        }
        converge(&mut world, 20);
        assert_eq!(world.nodes[0].logs.len(), 6);
        assert_eq!(world.nodes[0].engine.digest(&shard()), world.nodes[2].engine.digest(&shard()));
    }
}

#[test]
fn an_author_that_lost_its_end_names_an_older_one_and_the_end_stays_a_head_until_somebody_names_it() {
    let mut world = World::new(2, 3);
    let mut author = Author::new(1);
    let ops: Vec<_> = (0..5).map(|_| author.write("x")).collect();
    world.write(0, &ops);
    // It comes back with three of its five ops.
    let kept = SessionEnd { seq: 3, head: ops[2].id(), ..author.end() };
    let mut second = author.restarted(1, vec![kept]);
    world.write(1, &ops[..3]);
    world.write(1, &[second.write("y")]);
    assert_eq!((heads(&world, 0), heads(&world, 1)), (1, 1));
    world.link_all();
    converge(&mut world, 10);
    assert_eq!((heads(&world, 0), heads(&world, 1)), (2, 2), "what it lost is here again, and beyond what it names");
    // Knowing both ends now, its next session names both.
    let mut ends = vec![author.end(), second.end()];
    ends.sort();
    let mut third = second.restarted(2, ends);
    world.write(1, &[third.write("z")]);
    converge(&mut world, 5);
    assert_eq!((heads(&world, 0), heads(&world, 1)), (1, 1));
}

#[test]
fn a_named_end_that_there_is_not_harms_nobody() {
    let mut world = World::new(3, 4);
    let mut author = Author::new(1);
    let lie = |n: u8| SessionEnd { session: SessionId::new([n; 8]), seq: 7, head: OpId::new([n; 32]) };
    let op = author.write("x");
    world.write(0, std::slice::from_ref(&op));
    // An end that never was, and one of a session that there is, at another op.
    let mut ends = vec![lie(0xa0), SessionEnd { head: OpId::new([9; 32]), ..author.end() }];
    ends.sort();
    let mut liar = author.restarted(1, ends);
    world.write(0, &[liar.write("y")]);
    let other = row(&mut world, 1, Author::new(2), 3, 2);
    world.link_all();
    converge(&mut world, 10);
    // What there is not is told to be lacking, by all alike; the session itself stays a head, and the others are as ever.
    for node in 0..3 {
        let told: Vec<_> = world.nodes[node].engine.heads(&shard()).collect();
        assert_eq!(told.len(), 4);
        assert!(told.iter().any(|(_, state)| *state == HeadState::Open(Tip::START)));
        assert!(told.contains(&(other.stream(), HeadState::Open(other.tip))));
        assert!(told.iter().any(|(stream, _)| *stream == author.stream()));
        assert!(world.nodes[node].misbehaved.is_empty());
    }
    let before = world.nodes[2].engine.counters().pulls_sent;
    world.run(Duration::from_secs(30));
    let after = world.nodes[2].engine.counters().pulls_sent;
    assert_eq!(before, after, "nobody is asked for it while all lack it");
}

#[test]
fn a_fork_of_the_first_op_takes_back_what_it_named() {
    let mut world = World::new(2, 5);
    let mut author = Author::new(1);
    let op = author.write("x");
    let second = author.restarted(1, vec![author.end()]);
    let (mut one, mut other) = (second.clone(), second);
    other.earlier.clear();
    let (one, other) = (one.write("one"), other.write("other"));
    for (node, first) in [(0, one), (1, other)] {
        world.write(node, std::slice::from_ref(&op));
        world.write(node, &[first]);
    }
    assert_eq!((heads(&world, 0), heads(&world, 1)), (1, 2));
    world.link_all();
    world.run(Duration::from_secs(10));
    assert_eq!(told(&world, 0), told(&world, 1));
    assert!(told(&world, 0).contains(&(author.stream(), HeadState::Open(author.tip))), "a head again");
    assert!(told(&world, 0).iter().any(|(_, state)| matches!(state, HeadState::Forked { seq: 1, .. })));
    world.restart(0);
    assert_eq!(told(&world, 0), told(&world, 1));
}

#[test]
fn pins_take_sessions_back_and_bring_them_again() {
    let mut world = World::new(2, 6);
    let mut author = Author::new(1);
    let op = author.write("x");
    let mut second = author.restarted(1, vec![author.end()]);
    let later = second.write("y");
    world.write(0, &[op]);
    world.write(0, &[later]);
    world.link_all();
    converge(&mut world, 5);
    for (pins, expected) in [
        // The later session is cut as a whole: what it names has to be told by itself.
        (vec![(second.stream(), Tip::START)], vec![(author.stream(), author.tip)]),
        (vec![(second.stream(), Tip::START), (author.stream(), Tip::START)], vec![]),
        (vec![(second.stream(), second.tip), (author.stream(), author.tip)], vec![(second.stream(), second.tip)]),
        (vec![(second.stream(), second.tip), (author.stream(), Tip::START)], vec![(second.stream(), second.tip)]),
    ] {
        for node in 0..2 {
            world.nodes[node].verdicts.pins = pins.iter().copied().collect();
            let streams = [&author, &second].map(|author| (shard(), author.stream())).to_vec();
            world.give(node, Input::PolicyChanged { streams });
        }
        let expected: Vec<_> = expected.into_iter().map(|(stream, tip)| (stream, HeadState::Open(tip))).collect();
        assert_eq!(told(&world, 0), expected, "{pins:?}");
        converge(&mut world, 5);
        world.restart(1);
        world.link_all();
        assert_eq!(told(&world, 1), expected, "{pins:?}");
    }
}

#[test]
fn who_lacks_a_session_finds_it_though_its_giver_is_gone() {
    let mut world = World::new(3, 7);
    let mut author = Author::new(1);
    let op = author.write("x");
    let mut second = author.restarted(1, vec![author.end()]);
    let later = second.write("y");
    world.write(0, std::slice::from_ref(&op));
    world.write(0, std::slice::from_ref(&later));
    // The second node got the later session only, and the first one is gone. The third one has both, and lists the later only.
    let later_op = later.clone();
    world.commit(1, &[later], Some(node_key(0)));
    world.write(2, &[op]);
    world.write(2, std::slice::from_ref(&later_op));
    world.link(1, 2);
    world.run(Duration::from_secs(10));
    assert_eq!(world.nodes[1].logs.len(), 2);
    assert_eq!(world.nodes[2].logs.len(), 2);
}
