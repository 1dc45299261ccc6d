//! Whatever happens to frames, replicas become equal, within bounds.

use std::time::Duration;

use super::super::random::Random;
use super::super::*;
use super::world::{Author, CALM, Faults, START, Sealed, World, change_of, node_key, shard};
use crate::id::{OpId, ShardId};

const SECOND: Duration = Duration::from_secs(1);

/// Nodes write while frames are lost, delayed, repeated and overtake each other and links break; then all is well again.
fn storm(seed: u64, nodes: usize, faults: Faults) {
    let mut random = Random::new(seed);
    let mut world = World::new(nodes, seed);
    let mut authors: Vec<Author> = (0..nodes).map(|node| Author::new(u8::try_from(node).unwrap() + 1)).collect();
    world.link_all();
    world.run(SECOND / 10);
    world.faults = faults;
    for round in 0..40 {
        let writer = random.below(nodes as u64) as usize;
        for _ in 0..=random.below(4) {
            let op = authors[writer].write(&format!("{round}"));
            world.write(writer, &[op]);
        }
        let (a, b) = (random.below(nodes as u64) as usize, random.below(nodes as u64) as usize);
        match random.below(8) {
            0 if a != b => world.unlink(a, b),
            1 if a != b => world.link(a, b),
            2 if a != b => {
                world.silent.insert((a, b));
            }
            3 => world.restart(a),
            _ => {}
        }
        world.run(Duration::from_millis(random.below(400)));
    }
    world.faults = CALM;
    world.silent.clear();
    world.link_all();
    world.converge(SECOND * 30);
    assert_eq!(world.nodes[0].ops().len() as u64, authors.iter().map(|author| author.tip.seq).sum::<u64>());
    for node in &world.nodes {
        assert!(node.misbehaved.iter().all(|(_, what)| !what.is_proof()), "seed {seed}: {:?}", node.misbehaved);
        assert!(node.forks.is_empty());
    }
}

#[test]
fn replicas_converge_under_every_fault() {
    let kinds = [
        CALM,
        Faults { lose: 100, ..CALM },
        Faults { duplicate: 200, ..CALM },
        Faults { reorder: 300, delay_micros: 50_000, ..CALM },
        Faults { lose: 50, duplicate: 50, reorder: 100, delay_micros: 200_000 },
    ];
    for seed in 0..8 {
        storm(seed, 2 + (seed as usize) % 3, kinds[seed as usize % kinds.len()]);
    }
}

#[test]
fn equal_inputs_give_equal_runs() {
    let run = || {
        let mut world = World::new(4, 5);
        let mut author = Author::new(1);
        world.link_all();
        world.faults = Faults { lose: 20, duplicate: 20, reorder: 50, delay_micros: 10_000 };
        for i in 0..20 {
            let op = author.write(&format!("{i}"));
            world.write(0, &[op]);
            world.run(SECOND / 20);
        }
        (world.frames, world.nodes.iter().map(|node| node.engine.counters()).collect::<Vec<_>>())
    };
    assert_eq!(run(), run());
}

#[test]
fn a_push_reaches_peers_and_is_acknowledged_within_milliseconds() {
    let mut world = World::new(4, 1);
    let mut author = Author::new(1);
    world.link_all();
    world.run(SECOND / 2);
    let op = author.write("x");
    world.write(0, &[op]);
    let is_acked = |world: &World| world.nodes[0].engine.acked_by(&shard(), author.stream(), 1) == 3;
    let took = world.run_while(SECOND, is_acked).unwrap();
    assert!(took < SECOND / 20, "{took:?}");
    assert_eq!(world.nodes[0].engine.acked_by(&shard(), author.stream(), 2), 0);
    assert!(world.nodes.iter().all(|node| node.pulled.is_empty()), "nothing had to be pulled");
}

#[test]
fn a_fresh_peer_catches_up_with_one_signature_check_for_each_run() {
    let mut world = World::new(2, 1);
    let mut author = Author::new(1);
    let ops: Vec<_> = (1..=20_000_u64)
        .map(|i| author.append("0123456789", if i % 1_000 == 0 { Sealed::Signed } else { Sealed::Bare }))
        .collect();
    world.seed_store(0, &ops);
    world.link_all();
    let took = world.converge(SECOND * 20);
    let fresh = &world.nodes[1];
    let checks = fresh.engine.counters().signatures_checked;
    assert_eq!(fresh.ops().len(), 20_000);
    assert_eq!(checks, fresh.pulled.len() as u64, "one signature for each range");
    assert!(checks <= 20, "{checks}");
    assert!(took < SECOND * 5, "{took:?}");
    // It can serve what it took: a third peer catches up from it alone.
    world.add_node(2, 3, Subscription::All);
    world.link(1, 2);
    world.converge(SECOND * 20);
    assert!(world.nodes[2].engine.counters().signatures_checked <= 20);
}

#[test]
fn many_streams_are_pulled_from_several_peers() {
    let mut world = World::new(4, 1);
    for number in 1..=60 {
        let mut author = Author::new(number);
        let ops: Vec<_> =
            (0..3).map(|i| author.append("x", if i == 2 { Sealed::Signed } else { Sealed::Bare })).collect();
        for node in 0..3 {
            world.seed_store(node, &ops);
        }
    }
    world.link_all();
    world.converge(SECOND * 20);
    assert_eq!(world.nodes[3].pulled.len(), 60, "each stream once");
    let servers = (0..3).filter(|node| world.nodes[*node].engine.counters().ranges_served >= 5).count();
    assert!(servers >= 2, "the work spreads");
}

/// The world checks the bounds after each step.
#[test]
fn of_many_peers_that_have_a_stream_few_are_remembered() {
    let mut world = World::new(12, 1);
    let mut author = Author::new(1);
    let ops: Vec<_> = (0..40).map(|_| author.write("x")).collect();
    for node in 1..12 {
        // Each has a little more than the one before, so that the best ones take the places of others.
        world.seed_store(node, &ops[..20 + node]);
        world.link(0, node);
    }
    world.run(SECOND * 3);
    assert_eq!(world.nodes[0].log(author.stream()).main.len(), 31);
    world.converge(SECOND * 5);
}

#[test]
fn a_silent_peers_ranges_move_to_another() {
    let mut world = World::new(3, 1);
    let mut author = Author::new(1);
    let ops: Vec<_> = (0..5).map(|_| author.write("x")).collect();
    world.seed_store(0, &ops);
    world.link(0, 2);
    // It says what it has and then answers nothing.
    let asked = world.run_while(SECOND * 5, |world| !world.nodes[2].pulled.is_empty());
    assert!(asked.is_some());
    world.silent.insert((0, 2));
    world.seed_store(1, &ops);
    world.link(1, 2);
    let took = world.run_while(SECOND * 20, |world| world.nodes[2].ops().len() == 5);
    assert!(took.is_some_and(|took| took <= limits::PULL_PATIENCE + SECOND * 2), "{took:?}");
    assert!(world.nodes[2].engine.counters().pulls_timed_out >= 1);
}

#[test]
fn a_lagging_peer_loses_its_pushes_and_recovers() {
    let mut world = World::new(2, 1);
    let mut author = Author::new(1);
    world.link_all();
    world.run(SECOND / 2);
    // The other node reads nothing: its grants do not come.
    world.silent.insert((1, 0));
    for _ in 0..100 {
        let op = author.write(&"x".repeat(8_000));
        world.write(0, &[op]);
    }
    let peer = world.nodes[0].engine.peers()[0];
    assert!(peer.is_lagging);
    assert!(world.nodes[0].engine.counters().pushes_dropped >= 1);
    world.silent.clear();
    world.converge(SECOND * 20);
    world.run(SECOND * 3);
    assert!(!world.nodes[0].engine.peers()[0].is_lagging, "equal digests end it");
    let pulls = world.nodes[1].pulled.len();
    let op = author.write("pushed again");
    world.write(0, &[op]);
    world.run(SECOND / 10);
    assert!(world.is_converged());
    assert_eq!(world.nodes[1].pulled.len(), pulls);
}

#[test]
fn a_chain_of_nodes_passes_everything_on() {
    let mut world = World::new(6, 2);
    for node in 1..6 {
        world.link(node - 1, node);
    }
    world.run(SECOND / 2);
    let mut author = Author::new(1);
    for _ in 0..10 {
        let op = author.write("x");
        world.write(0, &[op]);
    }
    assert!(world.converge(SECOND) < SECOND / 5, "pushed from hop to hop, not pulled");
}

#[test]
fn with_many_peers_most_get_announcements_only() {
    let mut world = World::new(10, 3);
    world.link_all();
    world.run(SECOND);
    let mut author = Author::new(1);
    for _ in 0..20 {
        let op = author.write("x");
        world.write(0, &[op]);
        world.run(SECOND / 20);
    }
    world.converge(SECOND * 5);
    let pushes: u64 = world.nodes.iter().map(|node| node.engine.counters().pushes_sent).sum();
    assert!(pushes < 20 * 10 * 7, "{pushes} pushes; flooding would need {}", 20 * 9 * 9);
    for node in &world.nodes {
        let eager = node.engine.peers().iter().filter(|peer| peer.is_eager).count();
        assert!(eager >= limits::EAGER_MIN, "{eager}");
    }
}

#[test]
fn ops_wait_for_their_certificate_and_for_the_clock() {
    let mut world = World::new(2, 1);
    let mut early = Author::new(1);
    let mut future = Author::new(2);
    world.nodes[1].verdicts.unknown.insert(early.certificate);
    future.millis += 310_000;
    world.link_all();
    world.run(SECOND / 2);
    let (op, ahead) = (early.write("x"), future.write("y"));
    world.write(0, &[op]);
    world.write(0, &[ahead]);
    world.run(SECOND * 5);
    assert!(world.nodes[1].ops().is_empty());
    assert!(world.nodes[1].held("held_bytes") > 0);
    world.nodes[1].verdicts.unknown.clear();
    world.give(1, Input::PolicyChanged { streams: Vec::new() });
    world.run(SECOND / 10);
    assert_eq!(world.nodes[1].ops().len(), 1, "held, not fetched again");
    assert!(world.nodes[1].misbehaved.is_empty());
    world.run(SECOND * 30);
    assert!(world.is_converged(), "the clock has come close enough");
}

#[test]
fn the_control_log_comes_first() {
    let mut world = World::new(2, 1);
    let control = control_ops(12);
    let mut author = Author::new(9);
    let data: Vec<_> = (0..3).map(|_| author.write("x")).collect();
    world.seed_store(0, &data);
    world.seed_store(0, &control);
    world.link_all();
    world.converge(SECOND * 10);
    let pulled = &world.nodes[1].pulled;
    assert!(pulled[0].shard.is_control(), "{pulled:?}");
    assert!(pulled.len() >= 2);
}

/// One control stream: acts that set the rules, each under the owner's certificate.
fn control_ops(count: u64) -> Vec<std::sync::Arc<crate::op::Op>> {
    use crate::op::{Act, Control, Header, Op, Payload, Rules};
    let key = crate::keys::SecretKey::from_seed(&[77; 32]);
    let certificate = super::world::CLUSTER.genesis();
    let mut prev = OpId::ZERO;
    (1..=count)
        .map(|seq| {
            let header = Header {
                version: crate::limits::OP_VERSION,
                cluster: super::world::CLUSTER,
                shard: ShardId::control(),
                author: key.author(),
                certificate,
                session: crate::id::SessionId::new([1; 8]),
                seq,
                prev,
                earlier: Vec::new(),
                hlc: crate::hlc::Hlc::new(START / 1_000, 0),
                control_heads: vec![certificate],
                payload: Payload::from(Control {
                    proof: vec![certificate],
                    act: Act::Rules(Rules { version: 1 }),
                    for_whom: None,
                }),
            };
            let op = Op::sign(header, Vec::new(), &key).unwrap();
            prev = op.id();
            std::sync::Arc::new(op)
        })
        .collect()
}

#[test]
fn partial_nodes_share_what_both_hold() {
    let other = ShardId { collection: "other".parse().unwrap(), index: 0, of: 1 };
    let mut world = World::new(1, 1);
    world.add_node(1, 1, Subscription::Collections([other.collection.clone()].into()));
    let (mut hidden, mut shared) = (Author::new(1), Author::in_shard(2, other.clone()));
    world.seed_store(0, &[hidden.write("x")]);
    world.seed_store(0, &[shared.write("y")]);
    world.link_all();
    world.run(SECOND * 3);
    assert!(world.nodes[1].engine.digest(&shard()).is_empty());
    assert_eq!(world.nodes[1].engine.digest(&other), world.nodes[0].engine.digest(&other));
    assert!(world.nodes.iter().all(|node| node.engine.peers()[0].is_equal), "the roll-up is over shared shards");
    let op = hidden.write("z");
    world.write(0, &[op]);
    world.run(SECOND * 2);
    assert!(world.nodes[1].engine.digest(&shard()).is_empty());
}

#[test]
fn cursors_survive_a_restart_and_a_foreign_epoch_costs_a_list_only() {
    let mut world = World::new(2, 1);
    let mut author = Author::new(1);
    let op = author.write("x");
    world.write(0, &[op]);
    world.link_all();
    world.converge(SECOND * 5);
    world.run(SECOND * 3);
    let absorbed = world.nodes[1].engine.absorbed(&node_key(0), &shard());
    assert!(absorbed.is_some());
    world.restart(1);
    assert_eq!(world.nodes[1].engine.absorbed(&node_key(0), &shard()), absorbed);
    let op = author.write("y");
    world.write(0, &[op]);
    world.link_all();
    world.converge(SECOND * 5);
}

#[test]
fn a_refused_run_is_forgotten_and_offered_again_later() {
    let mut world = World::new(2, 1);
    let mut author = Author::new(1);
    world.link_all();
    world.run(SECOND / 2);
    let op = author.write("x");
    let mut effects = Vec::new();
    let frame = push_frame(&[&op]);
    let now = Timestamp::from_micros(world.now);
    let node = &mut world.nodes[1];
    let input = Input::Frame { peer: node_key(0), lane: Lane::Live, bytes: frame };
    node.engine.step(now, input.clone(), &node.verdicts, &mut effects);
    assert!(matches!(effects.as_slice(), [Effect::Ingest { .. }]));
    effects.clear();
    node.engine.step(now, input.clone(), &node.verdicts, &mut effects);
    assert!(effects.is_empty(), "not handed over twice: {effects:?}");
    node.engine.step(now, Input::Refused { shard: shard(), stream: op.stream() }, &node.verdicts, &mut effects);
    node.engine.step(now, input, &node.verdicts, &mut effects);
    assert!(matches!(effects.as_slice(), [Effect::Ingest { .. }]));
    assert_eq!(node.engine.peers()[0].bytes_unreleased, push_frame(&[&op]).len() as u64);
}

pub(super) fn push_frame(ops: &[&std::sync::Arc<crate::op::Op>]) -> bytes::Bytes {
    let ops = ops.iter().map(|op| serde_bytes::ByteBuf::from(op.encode())).collect();
    frame::Frame::Push(frame::Run { ops }).encode()
}

#[test]
fn a_change_known_by_name_is_found_beyond_a_pin() {
    let mut world = World::new(3, 1);
    let mut author = Author::new(1);
    let ops: Vec<_> = (0..5).map(|i| author.write(&format!("{i}"))).collect();
    let pin = Tip { seq: 2, id: ops[1].id() };
    for node in 0..3 {
        world.nodes[node].verdicts.pins.insert(author.stream(), pin);
    }
    world.seed_store(1, &ops);
    world.link_all();
    world.converge_digests(SECOND * 5);
    assert_eq!(world.nodes[0].ops().len(), 2, "nothing beyond the pin is passed on");
    let change = change_of(&ops[3]);
    world.give(0, Input::NeedChange { shard: shard(), change, hint: Some(node_key(2)) });
    world.run(SECOND * 5);
    assert!(world.nodes[0].ops().contains(&ops[3].id()), "asked for by name it comes");
    world.give(0, Input::ChangeSettled { shard: shard(), change });
    assert_eq!(world.nodes[0].held("needed_changes") + world.nodes[0].held("needed_ops"), 0);
    assert!(world.is_converged(), "and digests do not show it");
}
