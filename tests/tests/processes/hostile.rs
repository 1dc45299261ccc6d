//! Members that mean harm, on real connections, against nodes that serve clients meanwhile.

use std::time::{Duration, Instant};

use folkmoot::api::{Database as _, LinkRule, PeerInfo, PeerState};
use folkmoot_tests::processes::{Node, converged, printed, run_join_unsealed, until};
use folkmoot_tests::villain::{Attack, LiveVillain};
use serde_json::json;

/// Attacks that are over soon. The others take minutes until they tell of themselves: the simulator has them.
const ATTACKS: [Attack; 10] = [
    Attack::WrongSignatures,
    Attack::BrokenChains,
    Attack::WrongCertificates,
    Attack::Replay,
    Attack::Flood,
    Attack::CreditOverrun,
    Attack::FalseGrants,
    Attack::Garbage,
    Attack::CraftedChanges,
    Attack::NotAllowed,
];
/// How long until all of them are banned.
const BANNED_WITHIN: Duration = Duration::from_secs(120);
/// How much memory a node may have taken more at the end than before: what clients wrote meanwhile, and what is kept of peers.
const RESIDENT_GROWTH_MAX: f64 = 192e6;
/// Writes of clients before the attack.
const CALM_WRITES: usize = 200;
/// How much of a core all attacks at once may take from a node, in the middle of them.
const CORE_SHARE_MAX: f64 = 0.2;
/// How long a write and its reading back may take meanwhile, in the middle. The attackers sign and send on the same machine, which
/// others may use too, so that no more can be said of time on the wall.
const WRITE_MAX: Duration = Duration::from_millis(250);

/// Returns what a node says of a villain.
async fn known(node: &Node, villain: &LiveVillain) -> PeerInfo {
    let peers = node.client().peers().await.unwrap();
    peers.into_iter().find(|peer| peer.node == villain.key).expect("a member")
}

/// A client writes and reads what it wrote; returns how long that took.
async fn write(node: &Node, number: usize) -> Duration {
    let begun = Instant::now();
    let doc = format!("doc-{number:05}");
    node.put("notes", &doc, json!({ "n": number })).await;
    assert_eq!(node.get("notes", &doc).await.unwrap()["n"], number);
    begun.elapsed()
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

async fn resident(node: &Node) -> f64 {
    node.metrics().await["process_resident_memory_bytes"]
}

/// Returns the seconds of processor time that two nodes have taken.
async fn cpu([a, b]: [&Node; 2]) -> [f64; 2] {
    [a.metrics().await["process_cpu_seconds_total"], b.metrics().await["process_cpu_seconds_total"]]
}

/// Nothing that a node keeps has outgrown its bound.
async fn assert_bounded(node: &Node) {
    let metrics = node.metrics().await;
    let held = metrics.iter().filter(|(name, _)| name.starts_with("folkmoot_memory_held"));
    let mut count = 0;
    for (name, held) in held {
        let bound = metrics[&name.replace("_held", "_bound")];
        assert!(*held <= bound, "{name}: {held} of {bound}");
        count += 1;
    }
    assert!(count > 30, "{count} figures");
}

#[tokio::test(flavor = "multi_thread")]
async fn attackers_are_banned_and_harm_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    a.put("notes", "first", json!({ "n": 0 })).await;
    let mut b = Node::join(folder.path(), "b", &a).await;
    let ticket = a.ticket(&["--uses", "20"]).await;
    // All of them are at one address, which is let in only so often once they begin.
    let mut joined = Vec::new();
    for attack in ATTACKS {
        let data = folder.path().join(attack.name());
        let mut output = run_join_unsealed(&data, &attack.name(), &ticket).await;
        // Eight at once, and one every two seconds from then on.
        for _ in 0..10 {
            if output.status.success() {
                break;
            }
            assert!(printed(&output).contains("every two seconds"), "{}", printed(&output));
            tokio::time::sleep(Duration::from_secs(2)).await;
            output = run_join_unsealed(&data, &attack.name(), &ticket).await;
        }
        assert!(output.status.success(), "{}", printed(&output));
        joined.push((attack, data));
    }
    let mut calm = Vec::new();
    let cpu_before = cpu([&a, &b]).await;
    for number in 0..CALM_WRITES {
        calm.push(write(if number % 2 == 0 { &a } else { &b }, number).await);
    }
    let mut written = CALM_WRITES;
    let before = [resident(&a).await, resident(&b).await];
    let cpu_calm = cpu([&a, &b]).await;
    let mut villains = Vec::new();
    let begun = Instant::now();
    let mut attacked = Vec::new();
    for (attack, data) in joined {
        villains.push(LiveVillain::begin(&data, "notes", attack));
    }
    let mut open: Vec<&LiveVillain> = villains.iter().collect();
    while !open.is_empty() {
        // Clients go on, and read what they wrote.
        for node in [&a, &b] {
            attacked.push(write(node, written).await);
            written += 1;
        }
        let mut left = Vec::new();
        for villain in open {
            // Whoever it reached first bans it, and what it writes is judged by both.
            let conduct = known(&a, villain).await.conduct;
            if conduct.bans == 0 {
                left.push(villain)
            }
        }
        open = left;
        let names: Vec<_> = open.iter().map(|villain| villain.attack.name()).collect();
        assert!(begun.elapsed() < BANNED_WITHIN, "not banned: {names:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let elapsed = begun.elapsed();
    let cpu_attacked = cpu([&a, &b]).await;
    let writes = attacked.len() as f64 / CALM_WRITES as f64;
    let (calm, attacked) = (middle(calm), middle(attacked));
    println!("all banned after {elapsed:?}; a write took {calm:?} before and {attacked:?} meanwhile");
    assert!(attacked <= WRITE_MAX, "{attacked:?} after {calm:?}");
    for node in 0..2 {
        let taken = cpu_attacked[node] - cpu_calm[node] - writes * (cpu_calm[node] - cpu_before[node]);
        let share = taken / elapsed.as_secs_f64();
        println!("the attackers took {:.1} % of a core from node {node}", share * 100.0);
        assert!(share <= CORE_SHARE_MAX, "{share}");
    }
    let counted = a.metrics().await;
    for villain in &villains {
        let info = known(&a, villain).await;
        let misdeeds = villain.attack.misdeeds();
        let found = misdeeds.iter().find(|what| info.conduct.misdeeds.contains_key(what.name()));
        let what = found.unwrap_or_else(|| panic!("{}: {:?}", villain.attack.name(), info.conduct)).name();
        let metric = format!("folkmoot_replication_misbehaviours_total{{what=\"{what}\"}}");
        assert!(counted.get(&metric).is_some_and(|count| *count > 0.0), "{metric}");
    }
    // The honest one is not.
    let peers = a.client().peers().await.unwrap();
    let honest = peers.iter().find(|peer| peer.node == b.key()).unwrap();
    assert_eq!((honest.conduct.bans, honest.state), (0, PeerState::Connected), "{:?}", honest.conduct);
    assert!(a.client().status().await.unwrap().peers_banned > 0);
    let shown = printed(&a.cli(&["peers"], "").await);
    assert!(shown.contains("banned until") && shown.contains("CONDUCT"), "{shown}");
    let shown = printed(&a.cli(&["status"], "").await);
    assert!(shown.contains("banned"), "{shown}");

    converged(&[&a, &b]).await;
    for (node, before) in [&a, &b].into_iter().zip(before) {
        assert_bounded(node).await;
        let after = resident(node).await;
        println!("resident memory: {before} before, {after} now");
        assert!(after < before + RESIDENT_GROWTH_MAX, "{before} before, {after} now");
        node.assert_sound().await;
        let all = node.all("notes").await.unwrap();
        let ours = all.iter().filter(|(id, ..)| id.starts_with("doc-")).count();
        assert_eq!(ours, written, "every acknowledged write is there");
    }

    // A restart is no amnesty, and a person may grant one.
    let liar = villains.iter().find(|villain| villain.attack == Attack::CreditOverrun).unwrap();
    let bans = known(&a, liar).await.conduct.bans;
    assert!(bans > 0);
    drop(villains.extract_if(.., |villain| villain.attack != Attack::CreditOverrun).collect::<Vec<_>>());
    b.stop().await;
    let mut a = a;
    a.stop().await;
    a.start().await;
    let info = known(&a, &villains[0]).await;
    assert!(info.conduct.bans >= bans, "{:?}", info.conduct);
    a.client().set_link(&villains[0].key, LinkRule::Open).await.unwrap();
    until("it is forgiven, and may be banned once more for the same", async || {
        let conduct = known(&a, &villains[0]).await.conduct;
        let again = conduct.misdeeds.get("credit_overrun").copied().unwrap_or(0);
        if u64::from(conduct.bans) == again.min(1) { Ok(()) } else { Err(format!("{conduct:?}")) }
    })
    .await;
}
