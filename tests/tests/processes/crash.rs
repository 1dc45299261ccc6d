//! kill -9 in the middle of load: what was acknowledged is there afterwards, on the node and on its peer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use folkmoot::api::{
    CollectionSettings, Database as _, FieldType, Patch, PatchKind, QuarantineQuery, ReadOptions, WriteOptions,
};
use folkmoot::{Client, ErrorCode};
use folkmoot_tests::processes::{Node, converged, id, name, text, until};
use serde_json::{Value, json};

use crate::faults::is_full;

/// How often a node is killed, in the campaign of faults and otherwise.
const KILLS: [usize; 2] = [50, 20];
/// Clients that write at the same time.
const WRITERS: usize = 6;
/// Acknowledgements before the node is killed; the writes on their way are in doubt.
const ACKNOWLEDGED_BEFORE_KILL: usize = 25;

/// What one client knows when the node has gone.
#[derive(Default)]
struct Known {
    acknowledged: Vec<(String, u64)>,
    /// Increments that were acknowledged, and those that were sent.
    added: (u64, u64),
}

/// Writes until the node goes away: new documents, a document of its own again and again, and a counter of all.
async fn write(client: Client, place: String, count: Arc<AtomicUsize>) -> Known {
    let load = name("load");
    let mut known = Known::default();
    for n in 0_u64.. {
        let (doc, body) = match n % 3 {
            0 => (format!("{place}-{n}"), json!({ "n": n, "text": "some text ".repeat(20) })),
            1 => (format!("{place}-own"), json!({ "n": n })),
            _ => {
                let body = text(&json!({"ops": [{"op": "increment", "path": "/total"}]}));
                let patch = Patch { kind: PatchKind::Edits, body };
                known.added.1 += 1;
                match client.patch(&load, id("counter"), patch, &WriteOptions::default()).await {
                    Ok(_) => known.added.0 += 1,
                    Err(error) if is_death(&error) => return known,
                    Err(error) => panic!("an increment failed: {error:?}"),
                }
                count.fetch_add(1, Ordering::Relaxed);
                continue;
            }
        };
        match client.put(&load, id(&doc), text(&body), &WriteOptions::default()).await {
            Ok(_) => known.acknowledged.push((doc, n)),
            Err(error) if is_death(&error) => return known,
            Err(error) => panic!("put {doc} failed: {error:?}"),
        }
        count.fetch_add(1, Ordering::Relaxed);
    }
    known
}

fn is_death(error: &folkmoot::Error) -> bool {
    matches!(error.code(), ErrorCode::Unreachable | ErrorCode::UnknownOutcome)
}

/// Returns what is missing of what was acknowledged; of a document that was written again only the last counts, and a
/// write in doubt may have come after it.
async fn missing(node: &Node, acknowledged: &BTreeMap<String, u64>) -> Result<BTreeSet<String>, folkmoot::Error> {
    let held: BTreeMap<String, u64> = node
        .all("load")
        .await?
        .into_iter()
        .map(|(doc, _, json)| {
            let json: Value = serde_json::from_slice(&json).unwrap();
            (doc, json["n"].as_u64().unwrap_or_default())
        })
        .collect();
    let lost = acknowledged.iter().filter(|(doc, n)| held.get(*doc).is_none_or(|held| held < n));
    Ok(lost.map(|(doc, _)| doc.clone()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_by_kills_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    let settings = CollectionSettings {
        types: [("/total".to_owned(), FieldType::Counter)].into(),
        ..CollectionSettings::default()
    };
    a.client().configure(&name("load"), settings).await.unwrap();
    a.put("load", "counter", json!({"total": 0})).await;
    let b = Node::join(folder.path(), "b", &a).await;
    converged(&[&a, &b]).await;
    let mut nodes = [a, b];
    let mut acknowledged = BTreeMap::new();
    let mut added = (0, 0);
    let kills = KILLS[usize::from(!is_full())];
    for kill in 0..kills {
        let node = &mut nodes[kill % 2];
        let count = Arc::new(AtomicUsize::new(0));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| tokio::spawn(write(node.impatient_client(), format!("k{kill:02}-w{writer}"), count.clone())))
            .collect();
        until("the load gets going", async || {
            let done = count.load(Ordering::Relaxed);
            if done >= ACKNOWLEDGED_BEFORE_KILL { Ok(()) } else { Err(format!("{done} writes")) }
        })
        .await;
        node.kill();
        let mut last = BTreeMap::new();
        for writer in writers {
            let known = writer.await.unwrap();
            last.extend(known.acknowledged);
            added = (added.0 + known.added.0, added.1 + known.added.1);
        }
        node.start().await;
        assert_eq!(missing(node, &last).await.unwrap(), BTreeSet::new(), "kill {kill}: lost on the node itself");
        acknowledged.extend(last);
    }
    let [a, b] = &nodes;
    let took = converged(&[a, b]).await;
    println!("FIGURE kill -9: {kills} kills, none of what follows lost");
    println!("{} writes and {} increments were acknowledged; equal after {took:?}", acknowledged.len(), added.0);
    for node in [a, b] {
        assert_eq!(missing(node, &acknowledged).await.unwrap(), BTreeSet::new());
        let counter = node.client().get(&name("load"), &id("counter"), &ReadOptions::default()).await.unwrap();
        let total = serde_json::from_slice::<Value>(&counter.json).unwrap()["total"].as_u64().unwrap();
        assert!((added.0..=added.1).contains(&total), "the counter is {total}, of {added:?} acknowledged and sent");
        node.assert_sound().await;
        // An author that used a number twice would be here.
        assert_eq!(node.client().quarantine(&QuarantineQuery::default()).await.unwrap().items, []);
        assert!(!node.log().contains("panicked"));
    }
    assert_eq!(a.all("load").await.unwrap(), b.all("load").await.unwrap());
}
