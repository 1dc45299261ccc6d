//! Two sets of heads, compared by ranges: what is missing is found, for a price that depends on the difference.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::digest::{HeadState, Tip};
use super::super::frame::{Frame, HeadLine, HeadLines, RangePart, RangeSays, Ranges, RangesAsk, Sum};
use super::super::limits;
use super::super::random::Random;
use super::super::ranges::{End, Items, NoAnswer, Session, answer};
use super::world::shard;
use crate::hash::{Domain, hash};
use crate::id::{OpId, Salt, StreamId};

type Heads = BTreeMap<StreamId, HeadState>;

impl Items for Heads {
    fn between(&self, lower: StreamId, upper: End) -> impl Iterator<Item = (StreamId, HeadState)> {
        let upper = upper.map(|upper| upper.max(lower));
        let upper = upper.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.range((std::ops::Bound::Included(lower), upper)).map(|(stream, state)| (*stream, *state))
    }
}

fn stream(number: u64) -> StreamId {
    StreamId::new(hash(Domain::Stream, &[&number.to_le_bytes()]))
}

fn state(seq: u64) -> HeadState {
    HeadState::Open(Tip { seq, id: OpId::new(hash(Domain::OpHeader, &[&seq.to_le_bytes()])) })
}

fn heads(count: u64) -> Heads {
    (0..count).map(|number| (stream(number), state(1))).collect()
}

/// What a session cost and found.
#[derive(Debug, Default)]
struct Course {
    learned: Heads,
    messages: usize,
    bytes: usize,
    hashed: u64,
}

/// Lets `asker` compare itself with `other`, every frame encoded and decoded on its way.
fn compare(asker: &Heads, other: &Heads, seed: u64) -> Course {
    let mut course = Course::default();
    let mut session = Session::new(asker, Random::new(seed).salt());
    while !session.is_done() {
        let (salt, ranges) = session.next(asker).expect("an honest comparison ends in time");
        let bytes = Frame::RangesAsk(RangesAsk { request: 1, shard: shard(), salt, ranges }).encode();
        course.bytes += bytes.len();
        assert!(bytes.len() <= 64 << 10, "a question of {} bytes", bytes.len());
        let Ok(Some(Frame::RangesAsk(ask))) = Frame::decode(&bytes) else { panic!("a question decodes") };
        let answered = answer(other, &ask);
        course.hashed += answered.hashed;
        let bytes = Frame::Ranges(Ranges { request: 1, arrival: 0, parts: answered.parts }).encode();
        course.bytes += bytes.len();
        assert!(bytes.len() <= 256 << 10, "an answer of {} bytes", bytes.len());
        let Ok(Some(Frame::Ranges(ranges))) = Frame::decode(&bytes) else { panic!("an answer decodes") };
        let lines = session.take(asker, &ranges.parts).expect("an honest answer");
        course.learned.extend(lines.iter().map(|line| (line.stream, line.state())));
        course.messages += 2;
    }
    course
}

/// What `asker` lacks.
fn lacking(asker: &Heads, other: &Heads) -> Heads {
    other.iter().filter(|(stream, state)| asker.get(stream) != Some(state)).map(|(s, state)| (*s, *state)).collect()
}

fn check(a: &Heads, b: &Heads, seed: u64) {
    for (asker, other) in [(a, b), (b, a)] {
        let course = compare(asker, other, seed);
        let lacks = lacking(asker, other);
        assert!(lacks.iter().all(|(stream, state)| course.learned.get(stream) == Some(state)), "all is found");
        assert!(course.learned.iter().all(|(stream, state)| other.get(stream) == Some(state)));
        let differences = lacks.len() + lacking(other, asker).len();
        // A question about the whole, and for each difference the parts around it on the way down.
        let bound = 2_500 + differences * 1_500;
        assert!(course.bytes <= bound, "{differences} differences cost {} bytes, {}", course.bytes, bound);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_two_sets_learn_of_each_other(
        common in 0_u64..1_500,
        only_a in 0_u64..120,
        only_b in 0_u64..120,
        newer in 0_u64..40,
        seed in any::<u64>(),
    ) {
        let mut a = heads(common);
        let mut b = a.clone();
        a.extend((0..only_a).map(|number| (stream(1_000_000 + number), state(1))));
        b.extend((0..only_b).map(|number| (stream(2_000_000 + number), state(3))));
        for number in 0..newer.min(common) {
            b.insert(stream(number), state(2));
        }
        if newer % 3 == 1 {
            a.insert(stream(7), HeadState::Forked { seq: 1, pin: None });
        }
        check(&a, &b, seed);
    }

    #[test]
    fn hostile_answers_end(
        answers in proptest::collection::vec(any::<u64>(), 1..40),
        count in 0_u64..400,
    ) {
        let own = heads(count);
        let mut session = Session::new(&own, Salt::new([1; 16]));
        for choice in answers {
            let Some((_, ranges)) = session.next(&own) else { break };
            let mut random = Random::new(choice);
            let mut parts = Vec::new();
            for range in ranges {
                // Mostly what could be an answer, so that it gets deep.
                let mut from = range.lower.0;
                for _ in 0..random.below(5) {
                    let upper = if random.below(3) == 0 { range.upper.end() } else { Some(stream(random.next())) };
                    let says = match random.below(4) {
                        0 => RangeSays::Equal(()),
                        1 => RangeSays::Lines(HeadLines(vec![HeadLine::new(from, &state(1))])),
                        _ => RangeSays::Sum(Sum { fingerprint: random.next(), count: random.next() }),
                    };
                    parts.push(RangePart { upper: upper.into(), says });
                    from = upper.unwrap_or(from);
                }
            }
            if session.take(&own, &parts).is_err() {
                break;
            }
            prop_assert!(session.open() <= usize::from(limits::RANGE_DEPTH_MAX + 1) * limits::RANGE_PARTS_MAX);
        }
    }
}

#[test]
fn a_few_differences_among_many_streams_cost_a_few_hundred_bytes_each() {
    // (streams, differences, bytes at most, messages at most): measured with a margin of a fifth.
    let cases = [
        (1_000, 0, 1_200, 2),
        (1_000, 10, 5_200, 4),
        (10_000, 0, 2_400, 2),
        (10_000, 1, 3_000, 4),
        (10_000, 10, 6_900, 4),
        (10_000, 100, 42_000, 6),
        (10_000, 10_000, 1_000_000, 40),
        (50_000, 10, 12_000, 6),
    ];
    for (streams, differences, bytes, messages) in cases {
        let a = heads(streams);
        let mut b = a.clone();
        b.extend((0..differences).map(|number| (stream(number), state(2))));
        let course = compare(&a, &b, 5);
        let Course { learned, bytes: cost, messages: count, hashed } = &course;
        println!("{streams} streams, {differences} differences: {cost} bytes, {count} messages, {hashed} hashed");
        assert_eq!(learned.len() as u64, differences);
        assert!(*cost <= bytes && *count <= messages, "{streams}, {differences}: {cost} bytes, {count} messages");
    }
}

#[test]
fn an_empty_side_gets_pages_and_a_full_one_learns_nothing() {
    let (none, many) = (Heads::new(), heads(5_000));
    let fresh = compare(&none, &many, 1);
    assert_eq!(fresh.learned, many);
    assert!(fresh.messages <= 2 * (5_000 / limits::HEADS_PAGE_MAX + 1) && fresh.bytes <= 5_000 * 90, "{}", fresh.bytes);
    let full = compare(&many, &none, 1);
    assert!(full.learned.is_empty() && full.bytes <= 40_000, "{}", full.bytes);
}

#[test]
fn a_peer_that_cuts_for_ever_is_found_out() {
    let own = heads(2_000);
    let mut session = Session::new(&own, Salt::new([1; 16]));
    let mut questions = 0;
    loop {
        let Some((_, ranges)) = session.next(&own) else { panic!("the depth ends it") };
        questions += 1;
        // The same range again and again, as if it held ever more.
        let sum = |range: &super::super::frame::RangeWanted| RangePart {
            upper: range.upper,
            says: RangeSays::Sum(Sum { fingerprint: 1, count: u64::MAX }),
        };
        if session.take(&own, &ranges.iter().map(sum).collect::<Vec<_>>()) == Err(NoAnswer) {
            break;
        }
    }
    assert!(questions <= 20 * usize::from(limits::RANGE_DEPTH_MAX), "{questions}");
}

#[test]
fn answers_that_leave_their_ranges_are_refused() {
    let own = heads(100);
    let line = |number| HeadLine::new(stream(number), &state(1));
    let part = |upper: End, says| RangePart { upper: upper.into(), says };
    let lines = |lines: Vec<HeadLine>| RangeSays::Lines(HeadLines(lines));
    let mut sorted: Vec<u64> = (0..9).collect();
    sorted.sort_by_key(|number| stream(*number));
    let cases = [
        // Beyond the end, backwards, an unsorted list, a line outside, more parts than ranges.
        vec![part(None, RangeSays::Equal(()))],
        vec![part(Some(StreamId::ZERO), RangeSays::Equal(()))],
        vec![part(Some(stream(sorted[8])), lines(vec![line(sorted[1]), line(sorted[0])]))],
        vec![part(Some(stream(sorted[1])), lines(vec![line(sorted[5])]))],
    ];
    for parts in cases {
        let mut session = Session::new(&own, Salt::new([1; 16]));
        let (_, ranges) = session.next(&own).unwrap();
        assert!(ranges.len() > 1);
        assert_eq!(session.take(&own, &parts), Err(NoAnswer), "{parts:?}");
    }
    let mut session = Session::new(&Heads::new(), Salt::new([1; 16]));
    session.next(&own).unwrap();
    let twice = vec![part(None, RangeSays::Equal(())), part(None, RangeSays::Equal(()))];
    assert_eq!(session.take(&own, &twice), Err(NoAnswer));
}
