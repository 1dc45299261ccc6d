//! Repair where cursors do not help.

use std::time::Duration;

use bytes::Bytes;

use super::super::digest::Tip;
use super::super::frame::{
    Answer, Chain, Frame, HeadLine, HeadLines, Hello, Pull, RangePart, RangeSays, Ranges, RollUp, ShardSummary,
};
use super::super::{HeadState, Input, Mutant, Peer, Timestamp, limits, plant};
use super::world::{Author, CLUSTER, World, node_key, shard};
use crate::hash::{Domain, hash};
use crate::id::{OpId, Salt, StoreEpoch, StreamId};

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

#[test]
fn a_peer_that_falls_silent_delays_nothing_for_long() {
    let mut world = World::new(4, 1);
    for node in 0..3 {
        for number in 1..=90 {
            let op = Author::new(number).write("x");
            world.seed_store(node, &[op]);
        }
    }
    // The others come when it has said what it has, and was asked for four ranges.
    world.link(0, 3);
    world.run_while(SECOND * 5, |world| !world.nodes[3].pulled.is_empty()).unwrap();
    world.silent.insert((0, 3));
    world.link(1, 3);
    world.link(2, 3);
    let took = world.run_while(SECOND * 20, |world| world.nodes[3].ops().len() == 90).unwrap();
    assert!(took <= limits::PULL_PATIENCE + SECOND, "{took:?}");
    assert!(world.nodes[3].engine.counters().pulls_timed_out <= limits::PULLS_PER_PEER_MAX as u64);
}

/// Three nodes have all, the others nothing: what comes is shared by the three, and hardly anything comes twice, neither to who is
/// behind nor back to those that have it. Two that are behind also push to each other what they pulled.
#[test]
fn work_is_spread_over_all_that_have_it_and_nothing_is_sent_twice() {
    const FULL: usize = 3;
    const STREAMS: u8 = 60;
    const OPS: usize = 40;
    for behind in 1..=2 {
        let mut world = World::new(FULL + behind, 8);
        for number in 1..=STREAMS {
            let mut author = Author::new(number);
            let ops: Vec<_> = (0..OPS).map(|_| author.write(&"x".repeat(2_000))).collect();
            (0..FULL).for_each(|node| world.seed_store(node, &ops));
        }
        world.link_all();
        world.converge(SECOND * 20);
        let all = usize::from(STREAMS) * OPS;
        for node in 0..FULL {
            let again: usize = world.nodes[node].received.values().map(Vec::len).sum();
            assert!(again * 20 <= all, "node {node}, which has all {all}, was sent {again}");
        }
        for node in FULL..FULL + behind {
            let received = &world.nodes[node].received;
            let total: usize = received.values().map(Vec::len).sum();
            assert!(total * 100 <= all * (behind * 100 + 15), "{total} came to node {node} of {all}");
            let givers: Vec<usize> = (0..FULL).map(|from| received.get(&from).map_or(0, Vec::len)).collect();
            assert!(givers.iter().all(|given| *given * 6 >= total), "{givers:?}");
        }
    }
}

/// A peer that is no engine.
struct Liar {
    key: Peer,
    victim: usize,
}

impl Liar {
    fn meet(world: &mut World, victim: usize) -> Self {
        let liar = Self { key: node_key(9), victim };
        world.give(victim, Input::PeerUp { peer: liar.key });
        liar.say(
            world,
            &Frame::Hello(Hello {
                version: limits::PROTOCOL_VERSION,
                cluster: CLUSTER,
                node: liar.key,
                epoch: StoreEpoch::new([9; 8]),
                collections: None,
            }),
        );
        liar
    }

    fn say(&self, world: &mut World, frame: &Frame) {
        let input = Input::Frame { peer: self.key, lane: frame.lane(), bytes: frame.encode() };
        world.give(self.victim, input);
    }

    /// Says that everything differs.
    fn boast(&self, world: &mut World, turn: u8) {
        self.say(world, &Frame::Digest(RollUp { digest: Salt::new([turn; 16]) }));
        let summary = ShardSummary { shard: shard(), digest: Salt::new([turn; 16]), count: 1_000 };
        self.say(world, &Frame::ShardDigests(vec![summary]));
    }

    /// Answers what it was asked meanwhile.
    fn answer(&self, world: &mut World, say: impl Fn(Frame) -> Option<Frame>) {
        let heard: Vec<Bytes> = world.outside.drain(..).map(|(_, bytes)| bytes).collect();
        for bytes in heard {
            let Ok(Some(frame)) = Frame::decode(&bytes) else { panic!("engines send frames") };
            if let Some(answer) = say(frame) {
                self.say(world, &answer);
            }
        }
    }
}

#[test]
fn a_peer_that_lies_about_heads_slows_nobody() {
    let mut world = World::new(2, 1);
    let mut authors = shared(&mut world, 20);
    let liar = Liar::meet(&mut world, 1);
    world.link_all();
    world.run(SECOND * 2);
    let invented = |number: u64| StreamId::new(hash(Domain::Stream, &[&number.to_le_bytes()]));
    let false_tip = |seq| HeadState::Open(Tip { seq, id: OpId::new([seq as u8; 32]) });
    let real: Vec<StreamId> = authors.iter().map(Author::stream).collect();
    for turn in 0..40_u8 {
        liar.boast(&mut world, turn);
        liar.answer(&mut world, |frame| match frame {
            // Streams that there are not, and other ops at the heads that there are.
            Frame::RangesAsk(ask) => {
                let mut lines: Vec<HeadLine> = (0..400)
                    .map(|number| HeadLine::new(invented(number + 400 * u64::from(turn)), &false_tip(9)))
                    .chain(real.iter().map(|stream| HeadLine::new(*stream, &false_tip(1))))
                    .collect();
                lines.sort_by_key(|line| line.stream);
                let last = ask.ranges.last()?;
                let mut parts: Vec<RangePart> = ask.ranges[..ask.ranges.len() - 1]
                    .iter()
                    .map(|range| RangePart { upper: range.upper, says: RangeSays::Equal(()) })
                    .collect();
                lines.retain(|line| line.stream >= last.lower.0);
                parts.push(RangePart { upper: last.upper, says: RangeSays::Lines(HeadLines(lines)) });
                Some(Frame::Ranges(Ranges { request: ask.request, arrival: 1, parts }))
            }
            Frame::ChainAsk(ask) if turn % 2 == 0 => {
                let own = |seq: &u64| (*seq == 1).then_some(OpId::new([1; 32]));
                Some(Frame::Chain(Chain { request: ask.request, ids: ask.seqs.iter().map(own).collect() }))
            }
            Frame::ChainAsk(ask) => Some(Frame::Chain(Chain { request: ask.request, ids: vec![None; ask.seqs.len()] })),
            Frame::Pull(Pull { request, .. }) if turn % 2 == 0 => {
                Some(Frame::Range(Answer { request, ops: Vec::new() }))
            }
            _ => None,
        });
        let author = &mut authors[usize::from(turn) % 20];
        let op = author.write("y");
        let (stream, seq) = (author.stream(), author.tip.seq);
        world.write(0, &[op]);
        let is_there = |world: &World| world.nodes[1].log(stream).main.len() as u64 == seq;
        let took = world.run_while(SECOND, is_there);
        assert!(took.is_some_and(|took| took < SECOND / 10), "turn {turn}: {took:?}");
        world.run(SECOND / 4);
    }
    assert!(world.nodes[1].held("wanted_streams") <= limits::WANTS_MAX / 2);
    let honest = world.nodes[1].engine.peers().into_iter().find(|peer| peer.peer == node_key(0)).unwrap();
    let score = world.nodes[1]
        .engine
        .conduct(Timestamp::from_micros(world.now))
        .iter()
        .find(|known| known.peer == node_key(0))
        .map(|known| known.score);
    assert!(honest.is_equal && score.unwrap_or(0) == 0, "{score:?}");
}

#[test]
fn answers_that_fit_no_range_cost_the_connection() {
    let mut world = World::new(2, 1);
    shared(&mut world, 3);
    let liar = Liar::meet(&mut world, 1);
    for turn in 0..80 {
        liar.boast(&mut world, turn);
        liar.answer(&mut world, |frame| {
            let Frame::RangesAsk(ask) = frame else { return None };
            let parts = vec![RangePart { upper: ask.ranges[0].lower, says: RangeSays::Equal(()) }; 3];
            Some(Frame::Ranges(Ranges { request: ask.request, arrival: 1, parts }))
        });
        world.run(SECOND);
    }
    assert!(world.nodes[1].disconnected.iter().any(|(peer, _)| *peer == liar.key));
}

#[test]
fn what_equal_digests_hide_comes_to_light() {
    plant(Some(Mutant::DigestsBlind));
    let mut world = World::new(2, 1);
    let mut authors = shared(&mut world, 40);
    let op = authors[3].write("y");
    world.seed_store(0, &[op]);
    world.link_all();
    world.run(limits::SALTED_CHECK_INTERVAL - SECOND);
    assert!(!world.is_converged() && world.nodes[1].engine.peers()[0].is_equal);
    let took = world.run_while(SECOND * 5, World::is_converged);
    plant(None);
    assert!(took.is_some(), "a salted comparison is not blind");
    assert_eq!(world.nodes[1].engine.counters().salted_checks, 1);
}
