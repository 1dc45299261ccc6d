//! Every queue and table of the replica beside its bound.

use super::Replica;
use super::flush::BATCHES_IN_FLIGHT_MAX;
use super::import::AWAITED_MAX;
use super::materialise::QUEUE_BYTES_MAX;
use super::write::GATHERING_TRANSACTIONS_MAX;
use crate::figure::Figure;

impl Replica {
    /// Returns everything that the replica and its replication engine keep in memory and that is bounded, beside its bound.
    #[must_use]
    pub fn figures(&self) -> Vec<Figure> {
        let mut figures = self.engine.figures();
        let gathering = self.staged.open.values().flatten().map(|open| open.transactions.len()).sum();
        figures.extend([
            Figure::new("batches_in_flight", self.in_flight.len(), BATCHES_IN_FLIGHT_MAX),
            Figure::new("gathering_transactions", gathering, GATHERING_TRANSACTIONS_MAX),
            Figure::new("awaited_by_loose_ops", self.loose.awaited(), AWAITED_MAX),
            Figure::new("unapplied_bytes", self.queue.bytes(), QUEUE_BYTES_MAX),
        ]);
        figures
    }
}
