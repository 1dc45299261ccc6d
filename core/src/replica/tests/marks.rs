//! The feed of one replica goes on at another, and nothing is left out.

use super::*;
use crate::replica::Shown;

/// The numbers of xorshift64, so that a seed tells a whole run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % end
    }
}

/// Who follows the feed, now here, now there.
#[derive(Default)]
struct Follower {
    node: usize,
    place: u64,
    seen: Vec<ShardReach>,
    /// Versions of documents, as told.
    known: BTreeMap<String, (Vec<ChangeHash>, bool)>,
    told: usize,
}

impl Follower {
    /// Reads a page; at the end of the feed it has seen what is shown.
    fn read(&mut self, lab: &Lab, shown: &BTreeMap<ShardId, Shown>, limit: usize) -> bool {
        let reader = Reader::of(&lab.nodes[self.node].replica);
        let page = reader.feed(self.place, None, "", limit, &|_, _| Ok(true)).unwrap();
        self.told += page.entries.len();
        for entry in page.entries {
            self.known.insert(entry.key.doc.to_string(), (entry.view.heads, entry.view.deleted));
        }
        self.place = page.reached;
        if page.is_end {
            let before = std::mem::take(&mut self.seen);
            for (shard, shown) in shown {
                if shown.feed <= self.place {
                    self.seen.push(ShardReach { shard: shard.clone(), streams: shown.streams.to_vec() });
                } else {
                    self.seen.extend(before.iter().find(|seen| seen.shard == *shard).cloned());
                }
            }
        }
        page.is_end
    }

    fn go_to(&mut self, lab: &Lab, node: usize) {
        if node == self.node {
            return;
        }
        let place = lab.nodes[node].replica.feed_place(&|_| true, &self.seen);
        self.place = Reader::of(&lab.nodes[node].replica).feed_place(&place).unwrap();
        self.node = node;
    }
}

/// What readers find at a node.
fn found(lab: &Lab, node: usize) -> BTreeMap<String, (Vec<ChangeHash>, bool)> {
    let reader = Reader::of(&lab.nodes[node].replica);
    let feed = reader.feed(0, None, "", 1_000, &|_, _| Ok(true)).unwrap();
    feed.entries.into_iter().map(|entry| (entry.key.doc.to_string(), (entry.view.heads, entry.view.deleted))).collect()
}

/// Takes two nodes apart; what is on its way is lost.
fn part(lab: &mut Lab, a: usize, b: usize) {
    lab.cut(a, b);
    let keys = [a, b].map(|node| lab.nodes[node].replica.identity().node.author());
    let is_between = |to: usize, from: &AuthorKey| (to == a && *from == keys[1]) || (to == b && *from == keys[0]);
    lab.wire.retain(|(to, from, ..)| !is_between(*to, from));
}

fn take_shown(lab: &mut Lab, shown: &mut [BTreeMap<ShardId, Shown>]) {
    for (node, shown) in lab.nodes.iter_mut().zip(shown) {
        shown.extend(node.replica.take_shown());
    }
}

/// Goes from node to node while these write, are cut off, start anew and change their minds about who may write; returns what was told, and
/// how often it went on at another node behind the beginning.
fn wander(seed: u64) -> (usize, usize) {
    let mut lab = Lab::new(&[BuiltInRole::Editor, BuiltInRole::Editor]);
    let mut numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut shown = vec![BTreeMap::new(); 3];
    let (mut follower, mut resumed) = (Follower::default(), 0);
    for step in 0..120 {
        match numbers.below(16) {
            0..=5 => {
                let (node, id) = (numbers.below(3), format!("d{}", numbers.below(8)));
                let write = if numbers.below(6) == 0 { DocWrite::Delete } else { put(&format!("{{\"n\":{step}}}")) };
                drop(lab.try_write(node, &id, write, None));
            }
            6 => {
                for _ in 0..numbers.below(12) {
                    let Some((to, from, lane, bytes)) = lab.wire.pop_front() else { break };
                    let mut effects = Vec::new();
                    let now = lab.now;
                    let replica = &mut lab.nodes[to].replica;
                    replica.step(now, Input::Net(NetInput::Frame { peer: from, lane, bytes }), &mut effects);
                    replica.work(now, 1 + numbers.below(3), &mut effects);
                    replica.flush(now, &mut effects);
                    lab.carry_out(to, effects);
                    take_shown(&mut lab, &mut shown);
                    follower.read(&lab, &shown[follower.node], 2);
                }
            }
            7..=9 => lab.run(1 + u32::try_from(numbers.below(15)).unwrap()),
            10 => {
                let (a, b) = (numbers.below(3), numbers.below(3));
                if a != b && numbers.below(2) == 0 {
                    part(&mut lab, a, b);
                } else if a != b {
                    lab.connect(a, b);
                }
            }
            11 => {
                // A node starts anew: what it had told is told again.
                let node = 1 + numbers.below(2);
                for other in (0..3).filter(|other| *other != node) {
                    part(&mut lab, node, other);
                }
                let (identity, store) = (lab.nodes[node].replica.identity().clone(), lab.nodes[node].store.clone());
                lab.ticket += 1;
                lab.open(identity, store, node, Vec::new());
                shown[node].clear();
                for other in (0..3).filter(|other| *other != node) {
                    lab.connect(node, other);
                }
            }
            12 => {
                take_shown(&mut lab, &mut shown);
                follower.go_to(&lab, numbers.below(3));
                resumed += usize::from(follower.place > 0);
            }
            _ => {
                take_shown(&mut lab, &mut shown);
                follower.read(&lab, &shown[follower.node], 1 + numbers.below(6));
            }
        }
        take_shown(&mut lab, &mut shown);
    }
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        lab.connect(a, b);
    }
    lab.run(80);
    lab.assert_converged();
    take_shown(&mut lab, &mut shown);
    follower.go_to(&lab, numbers.below(3));
    while !follower.read(&lab, &shown[follower.node], 3) {}
    assert_eq!(follower.known, found(&lab, follower.node), "seed {seed}: something was left out");
    (follower.told, resumed)
}

#[test]
fn whoever_follows_the_feed_from_node_to_node_misses_nothing() {
    let (mut told, mut resumed) = (0, 0);
    for seed in 1..=60 {
        let (more_told, more_resumed) = wander(seed);
        told += more_told;
        resumed += more_resumed;
    }
    assert!(told > 1_000 && resumed > 60, "{told} {resumed}: nobody follows from elsewhere");
}

#[test]
fn what_was_seen_elsewhere_is_not_told_again_but_for_a_little() {
    let mut lab = Lab::new(&[BuiltInRole::Editor]);
    let mut shown = vec![BTreeMap::new(); 2];
    for n in 0..50 {
        lab.write(n % 2, &format!("d{n}"), put("{\"n\":1}"));
        lab.run(7);
    }
    take_shown(&mut lab, &mut shown);
    let mut follower = Follower::default();
    assert!(follower.read(&lab, &shown[0], 1_000));
    assert_eq!((follower.told, follower.seen.len()), (50, 2));
    // Everything that is here was seen there.
    let (at, seen) = (follower.place, follower.seen.clone());
    follower.go_to(&lab, 1);
    assert!(follower.read(&lab, &shown[1], 1_000));
    assert_eq!(follower.told, 50);
    // More has come since then, also while the node was started anew: only that, and what came within a second.
    for n in 50..60 {
        lab.write(1, &format!("d{n}"), put("{\"n\":1}"));
        lab.run(7);
        if n == 55 {
            let (identity, store) = (lab.nodes[1].replica.identity().clone(), lab.nodes[1].store.clone());
            lab.ticket += 1;
            lab.open(identity, store, 1, Vec::new());
            lab.links.clear();
            lab.connect(0, 1);
            lab.run(20);
        }
    }
    let mut late = Follower { place: at, seen: seen.clone(), ..Follower::default() };
    late.go_to(&lab, 1);
    assert!(late.read(&lab, &shown[1], 1_000));
    assert!((10..=14).contains(&late.told), "{}", late.told);
    // Who has seen nothing of it begins at the beginning, and so does who claims to have seen other streams.
    let unknown = seen.iter().map(|seen| ShardReach { shard: seen.shard.clone(), streams: Vec::new() }).collect();
    for seen in [Vec::new(), unknown] {
        let mut new = Follower { seen, ..Follower::default() };
        new.go_to(&lab, 1);
        assert_eq!(new.place, 0);
    }
    // A change of rights came after very much else: it makes nothing of that new.
    lab.run(100);
    let mut before = Follower { node: 1, ..Follower::default() };
    take_shown(&mut lab, &mut shown);
    assert!(before.read(&lab, &shown[1], 1_000));
    let grant = ActRequest::Admit {
        key: SecretKey::from_seed(&[77; 32]).author(),
        name: "other".to_owned(),
        labels: Vec::new(),
        role: BuiltInRole::Reader,
    };
    lab.cut(0, 1);
    lab.act(0, Signer::Node, grant).unwrap();
    lab.run(30);
    before.go_to(&lab, 0);
    assert!(before.place > 0, "{}", before.place);
    let told = before.told;
    assert!(before.read(&lab, &shown[0], 1_000));
    assert_eq!(before.told, told);
}
