//! What outlives a restart of the swarm.

use std::sync::{Arc, Mutex, PoisonError};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use tokio::sync::watch;

use crate::addresses::AddressBook;
use crate::config::NetworkConfig;
use crate::door::Door;
use crate::session;

/// Whether the network is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Running,
    Stopping,
    Stopped,
}

/// Shared by handles, network task and supervisor.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: NetworkConfig,
    pub(crate) door: Arc<Door>,
    pub(crate) context: session::Context,
    pub(crate) phase: watch::Sender<Phase>,
    book: Mutex<AddressBook>,
    listening: Mutex<Vec<Multiaddr>>,
    /// The addresses of the configuration, with the ports that were picked: a restart listens on the same ones.
    bound: Mutex<Vec<Multiaddr>>,
}

impl Shared {
    pub(crate) fn new(config: NetworkConfig, context: session::Context, phase: watch::Sender<Phase>) -> Self {
        let door = Arc::new(Door::new(config.secret.author()));
        let bound = Mutex::new(config.listen.clone());
        Self { config, door, context, phase, book: Mutex::default(), listening: Mutex::default(), bound }
    }

    /// Returns what to listen on.
    pub(crate) fn bound(&self) -> Vec<Multiaddr> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The configured address number `index` listens as `address`: keeps its port.
    pub(crate) fn bind(&self, index: usize, address: &Multiaddr) {
        let port = address.iter().find_map(|part| match part {
            Protocol::Tcp(port) | Protocol::Udp(port) => Some(port),
            _ => None,
        });
        let mut bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(port), Some(bound)) = (port, bound.get_mut(index)) {
            let with_port = |part| match part {
                Protocol::Tcp(_) => Protocol::Tcp(port),
                Protocol::Udp(_) => Protocol::Udp(port),
                other => other,
            };
            *bound = bound.iter().map(with_port).collect();
        }
    }

    pub(crate) fn with_book<T>(&self, with: impl FnOnce(&mut AddressBook) -> T) -> T {
        with(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn with_listening<T>(&self, with: impl FnOnce(&mut Vec<Multiaddr>) -> T) -> T {
        with(&mut self.listening.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Begins the shutdown; returns without waiting for it.
    pub(crate) fn stop(&self) {
        self.phase.send_if_modified(|phase| {
            let running = *phase == Phase::Running;
            if running {
                *phase = Phase::Stopping;
            }
            running
        });
    }
}
