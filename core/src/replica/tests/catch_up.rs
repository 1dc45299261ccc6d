//! Waiting for what another replica had.

use super::*;
use crate::replication::Reach;

fn shard() -> ShardId {
    ShardId::of_document(&collection(), &doc("a"), 1)
}

/// What a node has, as a token of a session says it.
fn seen(lab: &Lab, node: usize) -> Vec<ShardReach> {
    let engine = lab.nodes[node].replica.engine();
    [ShardId::control(), shard()].map(|shard| ShardReach { streams: engine.latest_streams(&shard, 64), shard }).to_vec()
}

/// Looks whether somebody who waits at a node is done, and holds that to what readers see there.
fn look(lab: &Lab, node: usize, waiting: &mut CatchUp, shown: &[(&str, &str)]) -> Lag {
    let lag = lab.nodes[node].replica.catch_up(waiting);
    if waiting.is_done() {
        for (id, json) in shown {
            assert_eq!(lab.json(node, id).as_deref(), Some(*json), "who is done sees all of it");
        }
    }
    lag
}

/// Delivers everything in the smallest steps, with a look after each, until whoever waits is done.
fn catch_up(lab: &mut Lab, node: usize, wanted: Vec<ShardReach>, shown: &[(&str, &str)]) {
    let mut waiting = CatchUp::new(wanted);
    for _ in 0..100 {
        while let Some((to, from, lane, bytes)) = lab.wire.pop_front() {
            let mut effects = Vec::new();
            lab.nodes[to].replica.step(lab.now, Input::Net(NetInput::Frame { peer: from, lane, bytes }), &mut effects);
            look(lab, node, &mut waiting, shown);
            lab.nodes[to].replica.work(lab.now, 1, &mut effects);
            look(lab, node, &mut waiting, shown);
            lab.nodes[to].replica.flush(lab.now, &mut effects);
            // Handed over, and not on the disk yet.
            look(lab, node, &mut waiting, shown);
            lab.carry_out(to, effects);
            look(lab, node, &mut waiting, shown);
        }
        lab.run(1);
        look(lab, node, &mut waiting, shown);
        if waiting.is_done() {
            return;
        }
    }
    panic!("never done");
}

#[test]
fn who_waits_is_done_when_readers_see_it_and_not_before() {
    let mut lab = Lab::new(&[BuiltInRole::Editor]);
    lab.write(0, "a", put("{\"n\":1}"));
    lab.run(5);
    // Nothing is missing: done at once.
    let mut waiting = CatchUp::new(seen(&lab, 0));
    assert_eq!(look(&lab, 1, &mut waiting, &[("a", "{\"n\":1}")]), Lag { ops: 0, streams: 0 });
    assert!(waiting.is_done());

    lab.cut(0, 1);
    for n in 2..=4 {
        lab.write(0, "a", put(&format!("{{\"n\":{n}}}")));
    }
    lab.write(1, "b", put("{\"n\":1}"));
    let mut waiting = CatchUp::new(seen(&lab, 0));
    assert_eq!(look(&lab, 1, &mut waiting, &[]), Lag { ops: 3, streams: 1 });
    assert!(!waiting.is_done());
    let mut waiting = CatchUp::new(seen(&lab, 1));
    assert_eq!(look(&lab, 0, &mut waiting, &[]), Lag { ops: 1, streams: 1 });
    let unknown = Reach { stream: [7; 8], seq: 9, is_bare: false };
    let forged = vec![ShardReach { shard: shard(), streams: vec![unknown] }];
    assert_eq!(look(&lab, 0, &mut CatchUp::new(forged), &[]), Lag { ops: 9, streams: 1 });
    let wanted = seen(&lab, 0);
    lab.connect(0, 1);
    catch_up(&mut lab, 1, wanted, &[("a", "{\"n\":4}")]);
}

#[test]
fn a_later_session_stands_for_the_ones_before() {
    let mut lab = Lab::new(&[BuiltInRole::Editor]);
    lab.cut(0, 1);
    lab.write(0, "a", put("{\"n\":1}"));
    for n in 0..3 {
        let (identity, store) = (lab.nodes[0].replica.identity().clone(), lab.nodes[0].store.clone());
        lab.ticket += 1;
        lab.open(identity, store, 0, Vec::new());
        lab.write(0, "b", put(&format!("{{\"n\":{n}}}")));
    }
    let wanted = seen(&lab, 0);
    assert_eq!(wanted[1].streams.len(), 1, "{wanted:?}");
    lab.connect(0, 1);
    catch_up(&mut lab, 1, wanted, &[("a", "{\"n\":1}"), ("b", "{\"n\":2}")]);
}
