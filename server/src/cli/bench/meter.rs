//! What nodes use, by their own metrics: so it is the same for a node on this machine and for one elsewhere.

use folkmoot::{Error, ErrorCode};

use super::connection::Connection;
use super::load::unreachable;
use super::requests::Site;

const CPU: &str = "process_cpu_seconds_total";
const MEMORY: &str = "process_resident_memory_bytes";

/// Reads the metrics of nodes.
pub(super) struct Meter {
    nodes: Vec<(Connection, Site, Vec<u8>)>,
}

/// What processes have used since they started.
pub(super) struct Reading {
    nodes: Vec<Figures>,
    client_cpu_seconds: f64,
}

struct Figures {
    cpu_seconds: f64,
    resident_bytes: u64,
}

/// What processes used in a time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Used {
    /// By all nodes.
    pub(super) cpu_seconds: f64,
    /// Of the node that took most.
    pub(super) resident_bytes_max: u64,
    /// By this program, which makes the load.
    pub(super) client_cpu_seconds: f64,
}

impl Meter {
    pub(super) async fn open(sites: impl IntoIterator<Item = Site>) -> Result<Self, Error> {
        let mut nodes = Vec::new();
        for site in sites {
            let connection =
                Connection::open(&site.authority).await.map_err(|error| unreachable(&site.authority, error))?;
            let request = site.metrics();
            nodes.push((connection, site, request));
        }
        Ok(Self { nodes })
    }

    pub(super) async fn read(&mut self) -> Result<Reading, Error> {
        let mut nodes = Vec::new();
        for (connection, site, request) in &mut self.nodes {
            // A node closes connections that idle, and between two workloads they may.
            let figures = match figures(connection, request).await {
                Ok(figures) => figures,
                Err(_) => {
                    let authority = &site.authority;
                    *connection = Connection::open(authority).await.map_err(|error| unreachable(authority, error))?;
                    figures(connection, request).await?
                }
            };
            nodes.push(figures);
        }
        let client = metrics_process::collector::collect();
        Ok(Reading { nodes, client_cpu_seconds: client.cpu_seconds_total.unwrap_or_default() })
    }
}

impl Reading {
    pub(super) fn resident_bytes_max(&self) -> u64 {
        self.nodes.iter().map(|node| node.resident_bytes).max().unwrap_or_default()
    }

    /// Returns what was used since an earlier reading, and the most memory: then, now or as seen meanwhile.
    pub(super) fn since(&self, before: &Self, resident_bytes_seen: u64) -> Used {
        let sum = |reading: &Self| reading.nodes.iter().map(|node| node.cpu_seconds).sum::<f64>();
        Used {
            cpu_seconds: (sum(self) - sum(before)).max(0.0),
            resident_bytes_max: self.resident_bytes_max().max(before.resident_bytes_max()).max(resident_bytes_seen),
            client_cpu_seconds: (self.client_cpu_seconds - before.client_cpu_seconds).max(0.0),
        }
    }
}

async fn figures(connection: &mut Connection, request: &[u8]) -> Result<Figures, Error> {
    let answer = connection.exchange(request).await.map_err(|source| {
        Error::new(ErrorCode::Unreachable, format!("read the metrics of a node: {source}")).with_source(source)
    })?;
    if answer.status != 200 {
        return Err(Error::new(
            ErrorCode::Unauthenticated,
            format!("a node answers {} for its metrics", answer.status),
        )
        .hint("is the token right? --token-file names the file that holds it"));
    }
    let text = String::from_utf8_lossy(answer.body);
    let found = |name| {
        value(&text, name)
            .ok_or_else(|| Error::new(ErrorCode::InvalidAnswer, format!("the metrics of a node have no {name}")))
    };
    Ok(Figures { cpu_seconds: found(CPU)?, resident_bytes: found(MEMORY)? as u64 })
}

/// Returns the value of a metric without labels.
fn value(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_found_by_their_whole_name() {
        let text =
            "# TYPE process_cpu_seconds_total gauge\nprocess_cpu_seconds_total_x 9\nprocess_cpu_seconds_total 1.25\n\n";
        assert_eq!(value(text, CPU), Some(1.25));
        assert_eq!(value(text, MEMORY), None);
    }

    #[test]
    fn what_was_used_is_the_difference_of_all_nodes() {
        let reading = |cpu: [f64; 2], resident: [u64; 2]| Reading {
            nodes: cpu
                .into_iter()
                .zip(resident)
                .map(|(cpu_seconds, resident_bytes)| Figures { cpu_seconds, resident_bytes })
                .collect(),
            client_cpu_seconds: cpu[0],
        };
        let used = reading([3.0, 4.0], [5, 1]).since(&reading([1.0, 1.0], [2, 6]), 7);
        assert!((used.cpu_seconds - 5.0).abs() < 1e-9 && (used.client_cpu_seconds - 2.0).abs() < 1e-9);
        assert_eq!(used.resident_bytes_max, 7);
    }
}
