//! One value per lane.

use folkmoot_core::replication::Lane;

/// One `T` for each lane.
#[derive(Debug, Default, Clone)]
pub(crate) struct PerLane<T> {
    control: T,
    live: T,
    repair: T,
    snapshot: T,
}

impl<T> PerLane<T> {
    /// Makes each value from its lane.
    pub(crate) fn from_fn(mut make: impl FnMut(Lane) -> T) -> Self {
        Self {
            control: make(Lane::Control),
            live: make(Lane::Live),
            repair: make(Lane::Repair),
            snapshot: make(Lane::Snapshot),
        }
    }

    pub(crate) const fn get(&self, lane: Lane) -> &T {
        match lane {
            Lane::Control => &self.control,
            Lane::Live => &self.live,
            Lane::Repair => &self.repair,
            Lane::Snapshot => &self.snapshot,
        }
    }

    pub(crate) const fn get_mut(&mut self, lane: Lane) -> &mut T {
        match lane {
            Lane::Control => &mut self.control,
            Lane::Live => &mut self.live,
            Lane::Repair => &mut self.repair,
            Lane::Snapshot => &mut self.snapshot,
        }
    }

    /// Returns the values with their lanes.
    pub(crate) fn into_each(self) -> [(Lane, T); 4] {
        [
            (Lane::Control, self.control),
            (Lane::Live, self.live),
            (Lane::Repair, self.repair),
            (Lane::Snapshot, self.snapshot),
        ]
    }
}

impl<T> PerLane<Option<T>> {
    /// Takes all values if every lane has one; else takes none.
    pub(crate) fn take_full(&mut self) -> Option<PerLane<T>> {
        match self {
            Self { control: Some(_), live: Some(_), repair: Some(_), snapshot: Some(_) } => Some(PerLane {
                control: self.control.take()?,
                live: self.live.take()?,
                repair: self.repair.take()?,
                snapshot: self.snapshot.take()?,
            }),
            Self { control: _, live: _, repair: _, snapshot: _ } => None,
        }
    }
}
