//! An app with a database of its own that syncs with a server node.
//!
//! Get a ticket from a running node with `folkmoot invite`, then:
//!
//! ```text
//! cargo run -p folkmoot --example embedded -- app-data TICKET
//! ```
//!
//! The first run joins the cluster; later ones need no ticket. Without a ticket a new directory gets a cluster of its
//! own, and the app works alone. In the meantime write on the server node, and see it arrive here:
//!
//! ```text
//! folkmoot put tasks tea '{"title": "Make tea", "done": false}'
//! ```

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use folkmoot::api::typed::TypedDatabase as _;
use folkmoot::api::{ChangesQuery, PeerState, Since, WriteOptions};
use folkmoot::{CollectionName, Database as _, DocId, InitOptions, JoinOptions, Node, NodeConfig};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};

/// A document of the app.
#[derive(Debug, Serialize, Deserialize)]
struct Task {
    title: String,
    done: bool,
}

/// How long the app looks on before it ends.
const WATCH_TIME: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let data = PathBuf::from(arguments.next().unwrap_or_else(|| "app-data".to_owned()));
    if Node::is_new(&data) {
        match arguments.next() {
            Some(ticket) => {
                let options = JoinOptions { name: "app".to_owned(), ..JoinOptions::default() };
                println!("joined cluster {}", Node::join(&data, &ticket, options).await?.cluster);
            }
            None => {
                // The recovery key belongs to the person whose cluster this is; it is stored nowhere.
                let recovery = Node::init(&data, &InitOptions::default())?;
                println!("founded a cluster; its recovery key: {}", recovery.reveal());
            }
        }
    }
    let node = Node::open(NodeConfig::new(&data)).await?;
    let worked = work(&node).await;
    // Acknowledged writes are on the disk in any case; this lets peers know and closes the store in order.
    node.shutdown().await;
    worked
}

async fn work(node: &Node) -> Result<(), Box<dyn Error>> {
    let tasks: CollectionName = "tasks".parse()?;
    let milk: DocId = "milk".parse()?;

    // Writes are durable here when they return, whether others can be reached or not.
    let task = Task { title: "Buy milk".to_owned(), done: false };
    node.put_as(&tasks, milk.clone(), &task, &WriteOptions::default()).await?;

    // Read, change, write back on top of the version that was read: what others changed meanwhile is merged, not lost.
    if let Some(mut read) = node.get_as::<Task>(&tasks, &milk).await? {
        read.value.done = true;
        let options = WriteOptions { merge_onto: Some(read.heads), ..WriteOptions::default() };
        node.put_as(&tasks, milk, &read.value, &options).await?;
    }

    // Everything committed here, by this app or by others, in one stream: from the beginning, then as it comes.
    let query = ChangesQuery { collection: Some(tasks.clone()), since: Since::Beginning, ..ChangesQuery::default() };
    let mut changes = node.subscribe(query);
    println!("watching for {} s", WATCH_TIME.as_secs());
    let end = tokio::time::sleep(WATCH_TIME);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => return Ok(()),
            change = changes.next() => {
                let Some(change) = change else { return Ok(()) };
                let change = change?;
                let connected = node.peers().await?.iter().filter(|peer| peer.state == PeerState::Connected).count();
                match node.get_as::<Task>(&tasks, &change.id).await {
                    Ok(Some(task)) => println!("{} is {:?} ({connected} peers connected)", change.id, task.value),
                    Ok(None) => println!("{} is deleted", change.id),
                    // Others may write documents of another form into the collection.
                    Err(error) => println!("{}: {error}", change.id),
                }
            }
        }
    }
}
