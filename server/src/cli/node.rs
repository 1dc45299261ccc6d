//! Commands that make or run a node: init, join, serve.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::sync::Arc;

use folkmoot::api::{ExitCode, error_chain};
use folkmoot::node::{
    DirectoryError, Discovery, HAS_QUIC, InitOptions, JoinOptions, Joined, Multiaddr, Node, NodeConfig, OidcIssuer,
    OpenError, Protocol, Retention,
};
use folkmoot::{Error, ErrorCode};

use super::args::{Find, Init, Join, Serve};
use super::failure::Failure;
use super::output::Output;
use super::settings;
use crate::config::{Config, Flag, KEYS, Layered, OidcConfig, P2pTransport, load};
use crate::logging;
use crate::serve::{ServeError, Server, stop_signal};

/// Founds a cluster in a new data directory.
pub(super) fn init(find: &Find, args: &Init, output: &Output) -> Result<ExitCode, Failure> {
    let data = find.data_directory();
    let options = InitOptions {
        cluster_name: args.name.clone(),
        node_name: args.node_name.clone(),
        labels: Vec::new(),
        keys: settings::keys(find, &args.unlock)?,
    };
    let recovery = Node::init(&data, &options).map_err(|error| open_failure(&error))?;
    output.show(&serde_json::json!({ "data": data, "recovery_key": recovery.reveal() }), || {
        format!(
            "Founded the cluster {:?} in {}.\nRecovery key: {}\n\
             Write it down and keep it elsewhere: with it the cluster is taken back when the owner key is lost or stolen. \
             It lies in recovery.key too, until `folkmoot key confirm-recovery` says that you have it.",
            args.name,
            data.display(),
            recovery.reveal()
        )
    })?;
    output.note(&format!("start the node with: folkmoot serve --data {}", data.display()));
    Ok(ExitCode::Done)
}

/// Joins a cluster with a ticket.
pub(super) async fn join(find: &Find, args: &Join, output: &Output) -> Result<ExitCode, Failure> {
    let data = find.data_directory();
    let options =
        JoinOptions { name: args.name.clone(), labels: Vec::new(), keys: settings::keys(find, &args.unlock)? };
    let Joined { cluster, awaits } =
        Node::join(&data, &args.ticket, options).await.map_err(|error| open_failure(&error))?;
    let shown = serde_json::json!({ "data": data, "cluster": cluster.to_string(), "awaits": awaits });
    output.show(&shown, || format!("Joined cluster {cluster}; the data directory is {}.", data.display()))?;
    output.note(&format!("start the node with: folkmoot serve --data {}", data.display()));
    let Some(awaited) = awaits else { return Ok(ExitCode::Done) };
    output.note(&format!("The others let it in when more of the owners agree: it is {awaited}"));
    Ok(ExitCode::Waits)
}

/// Runs a node until it is told to stop. In a new data directory it founds a cluster first.
pub(super) async fn serve(find: &Find, args: &Serve, output: &Output) -> Result<ExitCode, Failure> {
    let config = configuration(find, args)?;
    check(&config)?;
    logging::begin(&config.log).map_err(|error| Failure::usage(error.to_string()))?;
    let server = Server::bind(&config).await.map_err(|error| serve_failure(&error))?;
    if Node::is_new(&config.data) {
        let keys = config.keys.settings(KEYS).map_err(Failure::usage)?;
        let options = InitOptions { labels: labels(&config)?, keys, ..InitOptions::default() };
        let recovery = Node::init(&config.data, &options).map_err(|error| open_failure(&error))?;
        // A secret goes to a person at a terminal, never into a log.
        if std::io::stderr().is_terminal() {
            output.note(&format!(
                "Founded a new cluster. Recovery key: {}\n  Keep it elsewhere: it takes the cluster back when the owner key is lost or stolen. It lies in recovery.key too, until `folkmoot key confirm-recovery` says that you have it.",
                recovery.reveal()
            ));
        } else {
            output.note(
                "Founded a new cluster. Its recovery key lies in recovery.key in the data directory: put it away, then run `folkmoot key confirm-recovery`.",
            );
        }
    }
    let node = Node::open(node_config(&config)?).await.map_err(|error| open_failure(&error))?;
    let halted = node.clone();
    let reason = Arc::new(std::sync::OnceLock::new());
    let seen = reason.clone();
    let stop = async move {
        tokio::select! {
            () = stop_signal() => {}
            why = halted.halted() => {
                // Set once, here.
                let _ = seen.set(why);
            }
        }
    };
    let served = server.run(&config, &node, stop).await;
    node.shutdown().await;
    served.map_err(|error| serve_failure(&error))?;
    match reason.get() {
        None => Ok(ExitCode::Done),
        Some(why) => Err(Error::new(ErrorCode::StoreFailed, format!("the node stopped: {why}"))
            .hint("nothing acknowledged is lost; start the node again when the disk has room and is in order")
            .into()),
    }
}

fn configuration(find: &Find, args: &Serve) -> Result<Config, Failure> {
    let mut flags = args.unlock.flags();
    let mut flag = |name, key, value: toml::Value| flags.push(Flag { name, key, value });
    if let Some(data) = &find.data {
        flag("--data", "data", data.display().to_string().into());
    }
    if let Some(listen) = args.listen {
        flag("--listen", "listen", listen.to_string().into());
    }
    if !args.p2p_listen.is_empty() {
        let list: Vec<toml::Value> = args.p2p_listen.iter().map(|address| address.to_string().into()).collect();
        flag("--p2p-listen", "p2p_listen", list.into());
    }
    if !args.p2p_transport.is_empty() {
        let list: Vec<toml::Value> = args.p2p_transport.iter().map(|transport| transport.name().into()).collect();
        flag("--p2p-transport", "p2p_transports", list.into());
    }
    if args.insecure_listen {
        flag("--insecure-listen", "insecure_listen", true.into());
    }
    for (name, key, file) in [("--tls-cert", "tls_cert", &args.tls_cert), ("--tls-key", "tls_key", &args.tls_key)] {
        if let Some(file) = file {
            flag(name, key, file.display().to_string().into());
        }
    }
    if !args.bootstrap.is_empty() {
        let list: Vec<toml::Value> = args.bootstrap.iter().map(|address| address.clone().into()).collect();
        flag("--bootstrap", "bootstrap", list.into());
    }
    if let Some(region) = &args.region {
        flag("--region", "region", region.clone().into());
    }
    if let Some(zone) = &args.zone {
        flag("--zone", "zone", zone.clone().into());
    }
    if !args.label.is_empty() {
        let list: Vec<toml::Value> = args.label.iter().map(|label| label.clone().into()).collect();
        flag("--label", "labels", list.into());
    }
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let Layered { config, .. } = load(args.config.config.as_deref(), environment, flags)?;
    Ok(config)
}

/// Checks what the layers of the configuration cannot: what spans several keys, names a file or is an address.
pub(super) fn check(config: &Config) -> Result<(), Failure> {
    node_config(config)?;
    labels(config)?;
    Server::check(config).map_err(|error| serve_failure(&error))
}

/// The labels of a first node: region, zone and `name=value` pairs, by name.
fn labels(config: &Config) -> Result<Vec<(String, String)>, Failure> {
    let mut labels = std::collections::BTreeMap::new();
    for label in &config.labels {
        let (name, value) =
            label.split_once('=').ok_or_else(|| Failure::usage(format!("label {label:?} is not NAME=VALUE")))?;
        labels.insert(name.to_owned(), value.to_owned());
    }
    for (name, value) in [("region", &config.region), ("zone", &config.zone)] {
        if !value.is_empty() {
            labels.insert(name.to_owned(), value.clone());
        }
    }
    Ok(labels.into_iter().collect())
}

fn node_config(config: &Config) -> Result<NodeConfig, Failure> {
    let mut node = NodeConfig::new(&config.data);
    node.document_cache_bytes = usize::try_from(config.store.document_cache).unwrap_or(usize::MAX);
    node.block_cache_bytes = config.store.block_cache;
    node.journal_bytes = config.store.journal;
    node.ended_grace = config.limits.ended_grace;
    node.audit_retention =
        Retention { age_ms: u64::from(config.audit.retention_days) * 24 * 3_600_000, bytes: config.audit.size };
    node.keys = config.keys.settings(KEYS).map_err(Failure::usage)?;
    node.quotas = config.limits.quotas();
    node.query_time = config.limits.query_time;
    node.oidc = config.oidc.iter().map(OidcConfig::issuer).collect();
    OidcIssuer::check_all(&node.oidc).map_err(|what| Failure::usage(format!("oidc: {what}")))?;
    node.p2p_listen = p2p_addresses(config)?;
    node.bootstrap = config.bootstrap.iter().map(|address| bootstrap_address(address)).collect::<Result<_, _>>()?;
    // Nobody else on the network can reach a node that listens on loopback only.
    let reachable = config.p2p_listen.iter().any(|address| !address.ip().is_loopback());
    node.discovery = if config.mdns && reachable { Discovery::Mdns } else { Discovery::Off };
    Ok(node)
}

/// Where and how other nodes reach this one.
fn p2p_addresses(config: &Config) -> Result<Vec<Multiaddr>, Failure> {
    let transports = &config.p2p_transports;
    if transports.is_empty() && !config.p2p_listen.is_empty() {
        return Err(Failure::usage("p2p_transports is empty: name tcp, quic or both".to_owned()));
    }
    if transports.contains(&P2pTransport::Quic) && !HAS_QUIC {
        return Err(no_quic("p2p_transports names quic"));
    }
    let all = config.p2p_listen.iter();
    Ok(all.flat_map(|address| transports.iter().map(|transport| multiaddr(*transport, address))).collect())
}

fn multiaddr(transport: P2pTransport, address: &SocketAddr) -> Multiaddr {
    let host = Multiaddr::from(address.ip());
    match transport {
        P2pTransport::Tcp => host.with(Protocol::Tcp(address.port())),
        P2pTransport::Quic => host.with(Protocol::Udp(address.port())).with(Protocol::QuicV1),
    }
}

fn bootstrap_address(text: &str) -> Result<Multiaddr, Failure> {
    let address: Multiaddr =
        text.parse().map_err(|error| Failure::usage(format!("bootstrap address {text:?}: {error}")))?;
    if !HAS_QUIC && address.iter().any(|part| part == Protocol::QuicV1) {
        return Err(no_quic(&format!("bootstrap address {text:?}")));
    }
    Ok(address)
}

fn no_quic(what: &str) -> Failure {
    Failure::usage(format!(
        "{what}, and this program was built without QUIC: build it with `cargo install --path server --features quic`"
    ))
}

/// What stands in the configuration is the user's to mend.
fn serve_failure(error: &ServeError) -> Failure {
    let text = format!("serve the HTTP API: {}", error_chain(error));
    if error.is_configuration() { Failure::usage(text) } else { call_failure(text, "--listen 127.0.0.1:0", error) }
}

/// Tells why a node does not run; `other_port` is how to do without an address that another process has.
fn call_failure(text: String, other_port: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    let told = Error::new(ErrorCode::Internal, text);
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    let is_taken = causes.any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
    });
    if is_taken {
        return told
            .hint(format!("another process listens there, perhaps another node; {other_port} picks a free port"))
            .into();
    }
    told.into()
}

pub(super) fn open_failure(error: &OpenError) -> Failure {
    let text = error_chain(error);
    match error {
        OpenError::Ticket(_) | OpenError::TicketExpired => Failure::usage(text),
        OpenError::Directory(DirectoryError::Taken(_) | DirectoryError::Empty(_)) => Failure::usage(text),
        OpenError::Unlock(_) => Error::new(ErrorCode::Locked, text)
            .hint("nothing was changed; docs/encryption.md tells where keys come from and how to give them")
            .into(),
        OpenError::NoPeers | OpenError::OtherCluster { .. } => Failure::usage(text),
        OpenError::Store(
            folkmoot::node::StoreOpenError::Journal { .. } | folkmoot::node::StoreOpenError::Damaged { .. },
        )
        | OpenError::Replica(_)
        | OpenError::Rebuild(_)
        | OpenError::OtherKey
        | OpenError::Hides { .. }
        | OpenError::Directory(DirectoryError::Damaged { .. } | DirectoryError::NoStore(_)) => Error::new(
            ErrorCode::Damaged,
            text,
        )
        .hint("`folkmoot verify` tells more; nothing is lost by `folkmoot repair`, which sets the old store aside")
        .into(),
        OpenError::Join { .. } => Error::new(ErrorCode::Unreachable, text)
            .hint("is the inviting node running, and its ticket still good? ask for a new one with `folkmoot invite`")
            .into(),
        OpenError::JoinRefused(_) => Error::new(ErrorCode::NotAllowed, text)
            .hint("ask for a new ticket with `folkmoot invite` on a node of the cluster")
            .into(),
        OpenError::JoinAnswer(_) => {
            Error::new(ErrorCode::InvalidAnswer, text).hint("is the ticket of a node of this version?").into()
        }
        _ => call_failure(text, "--p2p-listen 127.0.0.1:0", error),
    }
}
