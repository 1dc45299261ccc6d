//! The join protocol `/folkmoot/join/1`: one request, one response, on a connection where nothing else exists.
//!
//! Both are a length in four bytes (big endian) and that many bytes. What they mean is the application's affair.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use folkmoot_core::id::AuthorKey;
use folkmoot_core::keys::SecretKey;
use futures_util::StreamExt as _;
use futures_util::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use libp2p::Multiaddr;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{DialError, SwarmEvent};
use tokio::sync::{Notify, oneshot};

use crate::addresses::split_peer;
use crate::event::{Direction, EventSender, JoinRequest, NetEvent};
use crate::identity;
use crate::limits::{JOIN_REQUEST_BYTES_MAX, JOIN_RESPONSE_BYTES_MAX, PINNED_ADDRESSES_MAX};
use crate::swarm::streams::{self, HandlerEvent, Offer, Protocol};
use crate::swarm::{StartError, build};

/// Why a request to join was not answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The inviter's key is no key, or there is no address.
    #[error("there is nobody to ask")]
    NoInviter,
    /// The request is longer than allowed.
    #[error("request to join is longer than {JOIN_REQUEST_BYTES_MAX} bytes")]
    TooLarge,
    /// No connection to the inviter, at no address; or somebody else answered there.
    #[error("reach the inviter: {0}")]
    Unreachable(String),
    /// The inviter hung up without an answer: it invites nobody now, or refuses this request.
    #[error("the inviter refused")]
    Refused,
    /// No answer in time.
    #[error("the inviter did not answer within {0:?}")]
    TimedOut(Duration),
    /// The network of this node cannot start.
    #[error("start the network")]
    Start(#[from] StartError),
}

async fn read_message(stream: &mut (impl AsyncRead + Unpin), bytes_max: usize) -> io::Result<Bytes> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).await?;
    let len = u32::from_be_bytes(header);
    if len as usize > bytes_max {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    let mut message = Vec::new();
    let read = stream.take(u64::from(len)).read_to_end(&mut message).await?;
    if read == len as usize { Ok(Bytes::from(message)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

async fn write_message(stream: &mut (impl AsyncWrite + Unpin), message: &Bytes) -> io::Result<()> {
    // Both kinds are bounded far below 4 GiB.
    stream.write_all(&(message.len() as u32).to_be_bytes()).await?;
    stream.write_all(message).await?;
    stream.flush().await
}

/// Serves one guest: hands its request to the application and returns the answer to it. To be given a time limit.
pub(crate) async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    from: AuthorKey,
    address: Multiaddr,
    events: EventSender,
) -> io::Result<()> {
    let bytes = read_message(&mut stream, JOIN_REQUEST_BYTES_MAX).await?;
    let (reply, answer) = oneshot::channel();
    let request = JoinRequest { from, address, bytes, reply };
    events.send(NetEvent::Join(request)).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
    let answer = answer.await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
    write_message(&mut stream, &answer).await?;
    stream.close().await?;
    // The guest closes its side once it has read everything; only then may the connection go.
    let mut rest = [0; 1];
    stream.read(&mut rest).await.map(drop)
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: Bytes) -> io::Result<Bytes> {
    write_message(&mut stream, &request).await?;
    let answer = read_message(&mut stream, JOIN_RESPONSE_BYTES_MAX).await?;
    // The answer is here; how the stream ends matters only to the inviter.
    let _ = stream.close().await;
    Ok(answer)
}

/// Asks a member to let this node in: dials `inviter`, sends `request`, returns its answer.
///
/// A function and not a method of the handle, because a node that has not joined has no network yet: this one
/// listens nowhere, knows only the inviter, and is gone when the function returns. Cancel safe.
///
/// # Errors
/// See [`JoinError`].
pub async fn join(
    secret: &SecretKey,
    inviter: AuthorKey,
    addresses: &[Multiaddr],
    request: Bytes,
    timeout: Duration,
) -> Result<Bytes, JoinError> {
    if request.len() > JOIN_REQUEST_BYTES_MAX {
        return Err(JoinError::TooLarge);
    }
    let peer = identity::peer_id(&inviter).ok_or(JoinError::NoInviter)?;
    let addresses: Vec<_> = addresses.iter().take(PINNED_ADDRESSES_MAX).map(|address| split_peer(address).1).collect();
    if addresses.is_empty() {
        return Err(JoinError::NoInviter);
    }
    let visit = visit(secret, peer, addresses, request);
    tokio::time::timeout(timeout, visit).await.map_err(|_| JoinError::TimedOut(timeout))?
}

/// Tells for each address why nobody was reached there. What libp2p writes spans lines and repeats itself; the end of it is
/// what the system said.
fn reasons(error: &DialError) -> String {
    let DialError::Transport(tried) = error else { return error.to_string() };
    let reason = |text: String| {
        let last = text.lines().last().unwrap_or_default();
        last.rsplit(": ").next().unwrap_or_default().trim_start_matches([' ', '-']).to_owned()
    };
    let each = tried.iter().map(|(address, error)| {
        let (_, address) = split_peer(address);
        format!("{address}: {}", reason(error.to_string()))
    });
    each.collect::<Vec<_>>().join("; ")
}

async fn visit(
    secret: &SecretKey,
    inviter: libp2p::PeerId,
    addresses: Vec<Multiaddr>,
    request: Bytes,
) -> Result<Bytes, JoinError> {
    let panicked = Arc::new(Notify::new());
    let behaviour = streams::Behaviour::new(Offer::Nothing);
    let mut swarm = build(identity::keypair(secret), behaviour, Arc::clone(&panicked))?;
    let unreachable = |error| JoinError::Unreachable(reasons(&error));
    swarm.dial(DialOpts::peer_id(inviter).addresses(addresses).build()).map_err(unreachable)?;
    let stream = loop {
        let event = tokio::select! {
            event = swarm.select_next_some() => event,
            () = panicked.notified() => return Err(JoinError::Refused),
        };
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                swarm.behaviour_mut().open(peer_id, connection_id, Protocol::Join);
            }
            SwarmEvent::Behaviour(streams::Event { event, .. }) => match event {
                HandlerEvent::Opened(_, Direction::Outbound, stream) => break stream,
                HandlerEvent::Opened(_, Direction::Inbound, _) => {}
                HandlerEvent::Failed(_) => return Err(JoinError::Refused),
            },
            SwarmEvent::OutgoingConnectionError { error, .. } => return Err(unreachable(error)),
            SwarmEvent::ConnectionClosed { .. } => return Err(JoinError::Refused),
            _ => {}
        }
    };
    let exchange = exchange(stream, request);
    tokio::pin!(exchange);
    loop {
        tokio::select! {
            biased;
            answer = &mut exchange => return answer.map_err(|_| JoinError::Refused),
            event = swarm.select_next_some() => {
                // The answer may still lie in the stream when the connection is closed; then the read decides.
                tracing::trace!(?event, "while joining");
            }
        }
    }
}
