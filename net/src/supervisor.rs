//! Starts the network, and restarts the swarm when something in it panics.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, Swarm};
use tokio::sync::{Mutex, Notify, mpsc};

use crate::addresses::{Room, split_peer};
use crate::config::NetworkConfig;
use crate::event::{self, NetEvent, NetEvents};
use crate::handle::{Command, NetHandle};
use crate::limits::COMMAND_QUEUE_MAX;
use crate::metrics::NetMetrics;
use crate::session;
use crate::shared::{Phase, Shared};
use crate::swarm::{Behaviour, StartError, build_member};
use crate::task::{self, Ended, Start};

/// Delay before the second restart in a row; doubles with each.
const RESTART_DELAY_MIN: Duration = Duration::from_millis(100);
/// Delay that the doubling ends at.
const RESTART_DELAY_MAX: Duration = Duration::from_secs(30);
/// A swarm that ran this long was restarted successfully.
const RESTART_FORGIVEN: Duration = Duration::from_secs(60);

/// The network of one node.
#[derive(Debug)]
pub struct Network;

/// A swarm that listens.
struct Prepared {
    swarm: Swarm<Behaviour>,
    listeners: std::collections::HashMap<libp2p::core::transport::ListenerId, usize>,
    panicked: Arc<Notify>,
}

impl Network {
    /// Starts to listen, and begins to dial. Nobody is let in before [`NetHandle::set_members`].
    ///
    /// Must be called within a tokio runtime. The events have to be received: a network whose events nobody takes
    /// stops reading from its peers, and one whose [`NetEvents`] was dropped shuts down.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(config: NetworkConfig) -> Result<(NetHandle, NetEvents), StartError> {
        let (phase, stopped) = tokio::sync::watch::channel(Phase::Running);
        let (sender, events) = event::channel(stopped);
        let metrics = NetMetrics::register();
        let context = session::Context { sessions: Arc::default(), events: sender, metrics };
        let shared = Arc::new(Shared::new(config, context, phase));
        let now = Instant::now();
        for (peer, address) in &shared.config.bootstrap {
            let (named, address) = split_peer(address);
            let room = shared.with_book(|book| match peer.or(named) {
                Some(peer) => book.pin(peer, address.clone(), now),
                None => book.pin_unnamed(address.clone(), now),
            });
            if room == Room::Full {
                tracing::warn!(%address, "too many bootstrap addresses: ignored one");
            }
        }
        for address in &shared.config.listen {
            check_free(address)?;
        }
        let prepared = prepare(&shared)?;
        let (commands, receiver) = mpsc::channel(COMMAND_QUEUE_MAX);
        tokio::spawn(supervise(Arc::clone(&shared), Arc::new(Mutex::new(receiver)), prepared));
        Ok((NetHandle { shared, commands }, events))
    }
}

/// Checks that nobody listens on an address. libp2p shares its TCP ports (`SO_REUSEPORT`, for dials from the port that it
/// listens on): a second process would get some of the connections that are meant for the first, and nobody an error.
fn check_free(address: &Multiaddr) -> Result<(), StartError> {
    let mut parts = address.iter();
    let host = match parts.next() {
        Some(Protocol::Ip4(ip)) => IpAddr::from(ip),
        Some(Protocol::Ip6(ip)) => IpAddr::from(ip),
        _ => return Ok(()),
    };
    match parts.next() {
        Some(Protocol::Tcp(port)) if port != 0 => std::net::TcpListener::bind((host, port))
            .map(drop)
            .map_err(|source| StartError::Taken { address: address.clone(), source }),
        _ => Ok(()),
    }
}

fn prepare(shared: &Shared) -> Result<Prepared, StartError> {
    let panicked = Arc::new(Notify::new());
    let metrics = &shared.context.metrics;
    let mut swarm = build_member(&shared.config, &shared.door, metrics, Arc::clone(&panicked))?;
    shared.with_listening(Vec::clear);
    let mut listeners = std::collections::HashMap::new();
    for (index, address) in shared.bound().into_iter().enumerate() {
        match swarm.listen_on(address.clone()) {
            Ok(listener) => drop(listeners.insert(listener, index)),
            Err(source) => return Err(StartError::Listen { address, source }),
        }
    }
    Ok(Prepared { swarm, listeners, panicked })
}

/// Runs swarms until the network is to stop.
async fn supervise(shared: Arc<Shared>, commands: Arc<Mutex<mpsc::Receiver<Command>>>, first: Prepared) {
    let mut prepared = Some(first);
    let mut delay = Duration::ZERO;
    loop {
        let Prepared { swarm, listeners, panicked } = match prepared.take().map_or_else(|| prepare(&shared), Ok) {
            Ok(prepared) => prepared,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the network does not start again");
                delay = (delay * 2).clamp(RESTART_DELAY_MIN, RESTART_DELAY_MAX);
                if wait(&shared, delay).await == Phase::Running {
                    continue;
                }
                break;
            }
        };
        let started = Instant::now();
        let (alive, mut all_gone) = mpsc::channel(1);
        let commands = Arc::clone(&commands).lock_owned().await;
        let start = Start { swarm, listeners, panicked, shared: Arc::clone(&shared), commands, alive };
        let ended = tokio::spawn(task::run(start)).await;
        // Every session has told that it is down once none holds the other end.
        let _ = all_gone.recv().await;
        match ended {
            Ok(Ended::Shutdown) => break,
            Ok(Ended::ConnectionTaskPanicked) => tracing::error!("the task of a connection panicked"),
            Err(error) if error.is_panic() => tracing::error!(%error, "the network task panicked"),
            // The runtime shuts down.
            Err(_) => break,
        }
        shared.context.metrics.connections.set(0.0);
        shared.context.metrics.restarts.increment(1);
        delay = if started.elapsed() >= RESTART_FORGIVEN { Duration::ZERO } else { delay };
        if wait(&shared, delay).await != Phase::Running {
            break;
        }
        delay = (delay * 2).clamp(RESTART_DELAY_MIN, RESTART_DELAY_MAX);
        // An error means that nobody listens, which ends the next run at once.
        let _ = shared.context.events.send(NetEvent::Restarted).await;
    }
    shared.with_listening(Vec::clear);
    shared.phase.send_replace(Phase::Stopped);
}

/// Waits for `delay`, or until the network is to stop.
async fn wait(shared: &Shared, delay: Duration) -> Phase {
    let mut phase = shared.phase.subscribe();
    tokio::select! {
        () = tokio::time::sleep(delay) => {}
        _ = phase.wait_for(|phase| *phase != Phase::Running) => {}
    }
    *phase.borrow()
}
