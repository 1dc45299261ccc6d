//! Frames from hands that do not follow the protocol: never a panic, always an end.

use bytes::Bytes;
use proptest::prelude::*;
use serde_bytes::ByteBuf;

use super::super::frame::{Answer, Frame, Hello, Run};
use super::super::random::Random;
use super::super::*;
use super::convergence::push_frame;
use super::world::{Author, CLUSTER, START, Sealed, Verdicts, node_key, shard};
use crate::id::{ClusterId, StoreEpoch};

const NOW: Timestamp = Timestamp::from_micros(START);

fn hello() -> Hello {
    Hello {
        version: limits::PROTOCOL_VERSION,
        cluster: CLUSTER,
        node: node_key(1),
        epoch: StoreEpoch::new([2; 8]),
        collections: None,
    }
}

/// An engine that met one peer.
fn engine() -> (Engine, Verdicts) {
    let verdicts = Verdicts::default();
    let config = Config {
        me: node_key(0),
        cluster: CLUSTER,
        epoch: StoreEpoch::new([1; 8]),
        subscription: Subscription::All,
        bulk_gap_ops: limits::BULK_GAP_OPS,
        seed: 1,
        now: NOW,
        held_bytes: 0,
    };
    let mut engine = Engine::new(config, [], [], &verdicts);
    engine.step(NOW, Input::PeerUp { peer: node_key(1) }, &verdicts, &mut Vec::new());
    (engine, verdicts)
}

/// Gives frames to an engine and returns what it complains of.
fn complaints(frames: impl IntoIterator<Item = (Lane, Bytes)>) -> (Vec<Misbehaviour>, bool) {
    let (mut engine, verdicts) = engine();
    let mut effects = Vec::new();
    for (lane, bytes) in frames {
        engine.step(NOW, Input::Frame { peer: node_key(1), lane, bytes }, &verdicts, &mut effects);
    }
    let what = effects.iter().filter_map(|effect| match effect {
        Effect::Misbehaved { what, .. } => Some(*what),
        _ => None,
    });
    let is_gone = effects.iter().any(|effect| matches!(effect, Effect::Disconnect { .. }));
    assert_eq!(is_gone, engine.peers().is_empty());
    (what.collect(), is_gone)
}

fn introduced(frames: impl IntoIterator<Item = (Lane, Bytes)>) -> (Vec<Misbehaviour>, bool) {
    complaints([(Lane::Control, Frame::Hello(hello()).encode())].into_iter().chain(frames))
}

#[test]
fn strangers_and_liars_are_turned_away() {
    let cases = [
        (Hello { cluster: ClusterId::new([8; 32]), ..hello() }, Misbehaviour::ForeignCluster),
        (Hello { node: node_key(5), ..hello() }, Misbehaviour::FalseHello),
    ];
    for (hello, what) in cases {
        assert_eq!(complaints([(Lane::Control, Frame::Hello(hello).encode())]), (vec![what], true));
    }
    assert_eq!(introduced([(Lane::Control, Frame::Hello(hello()).encode())]), (vec![Misbehaviour::FalseHello], true));
    // Another version is nobody's fault.
    let later = Frame::Hello(Hello { version: 2, ..hello() }).encode();
    assert_eq!(complaints([(Lane::Control, later)]), (vec![], true));
    let (mut engine, mut verdicts) = engine();
    verdicts.strangers.insert(node_key(1));
    let mut effects = Vec::new();
    engine.step(NOW.after(limits::SWEEP_INTERVAL), Input::Tick, &verdicts, &mut effects);
    assert!(effects.iter().any(|e| matches!(e, Effect::Disconnect { reason: DisconnectReason::NotMember, .. })));
}

#[test]
fn three_bad_signatures_end_a_connection() {
    let mut frames = Vec::new();
    for number in 1..=3 {
        let mut op = Author::new(number).write("x").encode();
        // The signature lies behind the header: change one of its bytes.
        let signature = Author::new(number).write("x").signature().unwrap();
        let at = op.windows(64).position(|window| window == signature.as_bytes()).unwrap();
        op[at + 10] ^= 1;
        frames.push((Lane::Live, Frame::Push(Run { ops: vec![ByteBuf::from(op)] }).encode()));
    }
    assert_eq!(introduced(frames[..2].to_vec()), (vec![Misbehaviour::BadSignature; 2], false));
    assert_eq!(introduced(frames), (vec![Misbehaviour::BadSignature; 3], true));
}

/// Why a peer is turned away that connects now.
fn turned_away(engine: &mut Engine, verdicts: &Verdicts, now: Timestamp) -> Option<DisconnectReason> {
    let mut effects = Vec::new();
    engine.step(now, Input::PeerUp { peer: node_key(1) }, verdicts, &mut effects);
    effects.iter().find_map(|effect| match effect {
        Effect::Disconnect { reason, .. } => Some(*reason),
        _ => None,
    })
}

#[test]
fn a_banned_peer_is_turned_away_until_its_time_is_over_or_it_is_forgiven() {
    let (mut engine, verdicts) = engine();
    let wrong = Input::Frame { peer: node_key(1), lane: Lane::Live, bytes: Frame::Prune(()).encode() };
    let mut effects = Vec::new();
    engine.step(NOW, wrong.clone(), &verdicts, &mut effects);
    let banned = |left| Some(DisconnectReason::Banned(Misbehaviour::WrongLane, left));
    assert!(effects.iter().any(
        |effect| matches!(effect, Effect::Disconnect { reason, .. } if Some(*reason) == banned(limits::BAN_FIRST))
    ));
    assert!(engine.peers().is_empty());
    let half = limits::BAN_FIRST / 2;
    assert_eq!(turned_away(&mut engine, &verdicts, NOW.after(half)), banned(half));
    let later = NOW.after(limits::BAN_FIRST);
    assert_eq!(turned_away(&mut engine, &verdicts, later), None);
    engine.step(later, wrong, &verdicts, &mut effects);
    assert_eq!(turned_away(&mut engine, &verdicts, later), banned(2 * limits::BAN_FIRST));
    // What another engine is told of it holds there too.
    let bans = engine.bans(later);
    let (mut next, _) = self::engine();
    next.restore_bans(bans, NOW);
    assert_eq!(turned_away(&mut next, &verdicts, NOW), banned(2 * limits::BAN_FIRST));
    engine.step(later, Input::Pardoned { peer: node_key(1) }, &verdicts, &mut effects);
    assert_eq!(turned_away(&mut engine, &verdicts, later), None);
    // Nothing is made of who is no member, and of oneself.
    let mut effects = Vec::new();
    for (peer, is_member) in [(node_key(0), true), (node_key(9), false)] {
        let mut verdicts = Verdicts::default();
        if !is_member {
            verdicts.strangers.insert(peer);
        }
        engine.step(later, Input::Accused { peer, what: Misbehaviour::BadChange }, &verdicts, &mut effects);
    }
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Misbehaved { .. })));
}

/// Returns the live credit that was given, if any was.
fn live_credit(effects: &[Effect]) -> u64 {
    let grants = effects.iter().filter_map(|effect| match effect {
        Effect::Send { bytes, .. } => match Frame::decode(bytes) {
            Ok(Some(Frame::Credit(credit))) if credit.lane == Lane::Live => Some(credit.bytes),
            _ => None,
        },
        _ => None,
    });
    grants.max().unwrap_or(0)
}

/// One op over and over, as fast as credit allows, which is slower and slower; and in the end a ban.
#[test]
fn who_replays_loses_credit_and_is_banned() {
    let (mut engine, verdicts) = engine();
    let op = Author::new(1).write(&"x".repeat(2_000));
    let frame = push_frame(&[&op]);
    let mut effects = Vec::new();
    let (mut sent, mut limit) = (frame.len() as u64, limits::LIVE_WINDOW);
    let give = |engine: &mut Engine, now, lane, bytes| {
        let mut effects = Vec::new();
        engine.step(now, Input::Frame { peer: node_key(1), lane, bytes }, &verdicts, &mut effects);
        effects
    };
    give(&mut engine, NOW, Lane::Control, Frame::Hello(hello()).encode());
    give(&mut engine, NOW, Lane::Live, frame.clone());
    let committed = Committed { op, arrival: 1 };
    engine.committed(NOW, &[committed], Some(node_key(1)), &verdicts, &mut effects);
    for tick in 1..400_u32 {
        let now = NOW.after(limits::SWEEP_INTERVAL * tick);
        while sent + frame.len() as u64 <= limit {
            sent += frame.len() as u64;
            let given = give(&mut engine, now, Lane::Live, frame.clone());
            limit = limit.max(live_credit(&given));
        }
        let mut effects = Vec::new();
        engine.step(now, Input::Tick, &verdicts, &mut effects);
        limit = limit.max(live_credit(&effects));
        let banned = effects.iter().find_map(|effect| match effect {
            Effect::Disconnect { reason: DisconnectReason::Banned(what, _), .. } => Some(*what),
            _ => None,
        });
        if let Some(what) = banned {
            assert_eq!(what, Misbehaviour::Flood);
            let seconds = u64::from(tick / 4);
            let most = limits::IDLE_BYTES_MAX + (seconds + 4) * limits::IDLE_BYTES_PER_SECOND;
            assert!(sent <= most && seconds < 60, "{sent} bytes in {seconds} s");
            return;
        }
    }
    panic!("it goes on and on: {:?}", engine.conduct(NOW.after(limits::SWEEP_INTERVAL * 400)));
}

/// Ops behind a gap that their sender never fills.
#[test]
fn what_is_held_of_one_peer_is_bounded_and_leaves_room_for_others() {
    let mut held = held::Held::default();
    let keep = |held: &mut held::Held, number: u8, from: usize| {
        let mut author = Author::new(number);
        author.write("the gap");
        let op = ByteBuf::from(author.write(&"x".repeat(500_000)).encode());
        let run = run::Run::decode(&[op], CLUSTER).unwrap().unwrap();
        held.keep(&heads::StreamAt::new(&shard(), author.stream()), node_key(from), run)
    };
    let kept = (1..=40).take_while(|number| keep(&mut held, *number, 1)).count();
    assert_eq!(kept, limits::HELD_BYTES_PER_PEER_MAX / 500_000);
    assert!(held.bytes_of_one_peer() <= limits::HELD_BYTES_PER_PEER_MAX);
    assert!(keep(&mut held, 41, 2), "there is room for others");
    held.forget_peer(&node_key(1));
    assert!((500_000..600_000).contains(&held.bytes_of_one_peer()), "{}", held.bytes());
    assert_eq!(held.bytes(), held.bytes_of_one_peer());
    assert!(keep(&mut held, 42, 1));
}

#[test]
fn broken_chains_and_wrong_certificates_are_seen() {
    let mut author = Author::new(1);
    let (a, b, c) = (author.write("a"), author.write("b"), author.write("c"));
    for ops in [vec![&a, &c], vec![&b, &a], vec![&a, &a]] {
        assert_eq!(introduced([(Lane::Live, push_frame(&ops))]).0, [Misbehaviour::BrokenChain]);
    }
    let mut back = author.clone();
    back.millis -= 1;
    let d = back.write("d");
    assert_eq!(introduced([(Lane::Live, push_frame(&[&c, &d]))]).0, [Misbehaviour::BrokenChain]);

    let (mut engine, mut verdicts) = engine();
    verdicts.mismatched.insert(author.certificate);
    let mut effects = Vec::new();
    for (lane, bytes) in [(Lane::Control, Frame::Hello(hello()).encode()), (Lane::Live, push_frame(&[&a]))] {
        engine.step(NOW, Input::Frame { peer: node_key(1), lane, bytes }, &verdicts, &mut effects);
    }
    let is_seen = effects.iter().any(|e| matches!(e, Effect::Misbehaved { what: Misbehaviour::WrongCertificate, .. }));
    assert!(is_seen && !effects.iter().any(|e| matches!(e, Effect::Ingest { .. })));
}

#[test]
fn an_unsigned_end_is_never_taken() {
    let mut author = Author::new(1);
    let (a, b) = (author.append("a", Sealed::Signed), author.append("b", Sealed::Bare));
    let (mut engine, verdicts) = engine();
    let mut effects = Vec::new();
    for (lane, bytes) in [(Lane::Control, Frame::Hello(hello()).encode()), (Lane::Live, push_frame(&[&a, &b]))] {
        engine.step(NOW, Input::Frame { peer: node_key(1), lane, bytes }, &verdicts, &mut effects);
    }
    assert!(!effects.iter().any(|e| matches!(e, Effect::Ingest { .. } | Effect::Misbehaved { .. })));
}

#[test]
fn more_than_was_granted_ends_a_connection() {
    let frame = Frame::Push(Run { ops: vec![ByteBuf::from(vec![0; 100_000])] }).encode();
    // Nothing is given back before the hello is through, so the third frame goes beyond the window.
    let mut live = credit::LaneCredit::new(Lane::Live);
    assert!((0..2).all(|_| live.receive(frame.len())) && !live.receive(frame.len()));
    let author = Author::new(1);
    let (mut engine, verdicts) = engine();
    let mut effects = Vec::new();
    let mut give = |lane, bytes, effects: &mut Vec<Effect>| {
        engine.step(NOW, Input::Frame { peer: node_key(1), lane, bytes }, &verdicts, effects);
    };
    give(Lane::Control, Frame::Hello(hello()).encode(), &mut effects);
    // Ops that are under way to the store keep their credit: a peer that goes on regardless is seen.
    for number in 0..9 {
        let mut one = Author::new(author.stream().as_bytes()[0].wrapping_add(number));
        give(Lane::Live, push_frame(&[&one.write(&"x".repeat(30_000))]), &mut effects);
    }
    let seen: Vec<_> = effects
        .iter()
        .filter_map(|e| match e {
            Effect::Misbehaved { what, .. } => Some(*what),
            _ => None,
        })
        .collect();
    assert_eq!(seen, [Misbehaviour::CreditOverrun]);
}

/// More than the store takes in is dropped, however much credit all peers have together.
#[test]
fn what_the_store_does_not_keep_up_with_is_dropped() {
    let (mut engine, verdicts) = engine();
    let mut effects = Vec::new();
    let text = "x".repeat(1_000_000);
    for (number, peer) in (1..11_usize).flat_map(|peer| [peer; 7]).enumerate() {
        let peer = node_key(peer);
        if number % 7 == 0 {
            engine.step(NOW, Input::PeerUp { peer }, &verdicts, &mut effects);
            let hello = Frame::Hello(Hello { node: peer, ..hello() }).encode();
            engine.step(NOW, Input::Frame { peer, lane: Lane::Control, bytes: hello }, &verdicts, &mut effects);
        }
        let op = Author::new(u8::try_from(number + 1).unwrap()).write(&text);
        let range = Frame::Range(Answer { request: 999, ops: vec![ByteBuf::from(op.encode())] }).encode();
        engine.step(NOW, Input::Frame { peer, lane: Lane::Repair, bytes: range }, &verdicts, &mut effects);
        assert!(engine.figures().iter().all(crate::figure::Figure::is_within), "{:?}", engine.figures());
    }
    let taken = effects.iter().filter(|effect| matches!(effect, Effect::Ingest { .. })).count();
    assert!(taken > 32 && taken < 70, "{taken}");
}

#[test]
fn later_frames_may_be_ignored_or_not() {
    let ignorable = Bytes::from_static(&[0x92, 0xcc, 200, 0xc0]);
    let not = Bytes::from_static(&[0x92, 99, 0xc0]);
    assert_eq!(introduced([(Lane::Control, ignorable)]), (vec![], false));
    assert_eq!(introduced([(Lane::Control, not)]), (vec![Misbehaviour::UnknownFrame], true));
    let prune = Frame::Prune(()).encode();
    assert_eq!(introduced([(Lane::Live, prune)]), (vec![Misbehaviour::WrongLane], true));
}

#[test]
fn requests_beyond_the_queue_are_refused() {
    let ask = |request| {
        let shard = shard();
        let stream = Author::new(1).stream();
        Frame::ChainAsk(frame::ChainAsk { request, shard, stream, seqs: vec![1] }).encode()
    };
    let (mut engine, verdicts) = engine();
    let mut effects = Vec::new();
    let first = [Frame::Hello(hello()).encode()];
    for bytes in first.into_iter().chain((1..=40).map(ask)) {
        let input = Input::Frame { peer: node_key(1), lane: Lane::Control, bytes };
        engine.step(NOW, input, &verdicts, &mut effects);
    }
    let busy = effects.iter().filter(|effect| match effect {
        Effect::Send { bytes, .. } => matches!(Frame::decode(bytes), Ok(Some(Frame::Busy(_)))),
        _ => false,
    });
    // One is being read, and the queue is full of the next.
    assert_eq!(busy.count(), 40 - 1 - limits::SERVE_QUEUE_MAX);
}

#[test]
fn every_frame_round_trips_and_mutants_do_no_harm() {
    let mut random = Random::new(11);
    let mut author = Author::new(1);
    let op = ByteBuf::from(author.write("x").encode());
    let samples = [
        Frame::Hello(hello()),
        Frame::Push(Run { ops: vec![op.clone()] }),
        Frame::Range(Answer { request: 7, ops: vec![op] }),
        Frame::Busy(3),
        Frame::Graft(()),
    ];
    for frame in &samples {
        let bytes = frame.encode();
        assert_eq!(Frame::decode(&bytes).unwrap().as_ref(), Some(frame));
        for _ in 0..300 {
            let mut mutant = bytes.to_vec();
            let at = random.below(mutant.len() as u64) as usize;
            mutant[at] ^= random.next() as u8 | 1;
            if random.below(4) == 0 {
                mutant.truncate(at);
            }
            let (what, is_gone) = introduced([(frame.lane(), mutant.clone().into()), (frame.lane(), mutant.into())]);
            assert!(what.is_empty() || is_gone || what.len() <= 2);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        fuzz::fuzz_frames(&bytes);
    }
}
