//! Every queue and table of the replica beside its bound.

use super::Replica;
use super::flush::BATCHES_IN_FLIGHT_MAX;
use super::import::AWAITED_MAX;
use super::materialise::QUEUE_BYTES_MAX;
use super::write::GATHERING_TRANSACTIONS_MAX;
use crate::figure::Figure;
use crate::limits::SCHEMAS_COMPILED_MAX;

impl Replica {
    /// Returns everything that the replica and its replication engine keep in memory and that is bounded, beside its bound.
    #[must_use]
    pub fn figures(&self) -> Vec<Figure> {
        let mut figures = self.engine.figures();
        let gathering = self.staged.open.values().flatten().map(|open| open.transactions.len()).sum();
        let names = self.waits.names().values().copied();
        figures.extend([
            Figure::new("batches_in_flight", self.in_flight.len(), BATCHES_IN_FLIGHT_MAX),
            Figure::new("gathering_transactions", gathering, GATHERING_TRANSACTIONS_MAX),
            Figure::new("awaited_by_loose_ops", self.loose.awaited(), AWAITED_MAX),
            Figure::new("waiting_names", self.waits.names_in_all(), self.waits.in_all_max()),
            Figure::new("waiting_names_of_one_author", names.max().unwrap_or(0), self.waits.of_author_max()),
            Figure::new("unapplied_bytes", self.queue.bytes(), QUEUE_BYTES_MAX),
            Figure::new("schemas_ready", self.schemas.ready(), SCHEMAS_COMPILED_MAX),
        ]);
        figures
    }
}
