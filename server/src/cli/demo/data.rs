//! The data set of the demo, and edits at random.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};

use bytes::Bytes;
use flate2::read::GzDecoder;
use folkmoot::api::{BulkOp, Edit, Patch, PatchKind};
use folkmoot::{DocId, Error, ErrorCode};
use serde_json::json;

use super::cases::{Kind, geoname};
use crate::cli::random::Random;

/// Places with at least 100,000 inhabitants, from GeoNames (CC BY 4.0): `examples/data/README.md`.
static CITIES: &[u8] = include_bytes!("../../../../examples/data/cities.ndjson.gz");

/// A document of the data set.
pub(super) struct City {
    pub(super) id: DocId,
    pub(super) json: Bytes,
}

impl City {
    pub(super) fn put(&self) -> BulkOp {
        Edit::Put { id: self.id.clone(), json: self.json.clone() }.into()
    }
}

/// Returns the first `limit` documents of the data set, those of the cases before all others.
pub(super) fn cities(limit: usize) -> Result<Vec<City>, Error> {
    #[derive(serde::Deserialize)]
    struct Line {
        id: DocId,
    }
    let damaged = |what: String| Error::new(ErrorCode::Internal, format!("read the built-in data set: {what}"));
    let mut cities = Vec::new();
    for line in BufReader::new(GzDecoder::new(CITIES)).lines() {
        let line = line.map_err(|error| damaged(error.to_string()))?;
        let Line { id } = serde_json::from_str(&line).map_err(|error| damaged(error.to_string()))?;
        cities.push(City { id, json: Bytes::from(line) });
    }
    cities.sort_by_key(|city| !Kind::ALL.iter().any(|kind| geoname(*kind) == city.id.as_str()));
    cities.truncate(limit);
    Ok(cities)
}

/// Returns an edit of one of these documents, most often of a field that others edit too.
pub(super) fn random_edit(random: &mut Random, pool: &[DocId], writer: &str) -> Option<BulkOp> {
    let id = pool.get(random.below(pool.len()))?.clone();
    let number = random.below(1_000_000);
    let (kind, body) = match random.below(100) {
        0..40 => (PatchKind::Merge, json!({ "population": number })),
        40..60 => (PatchKind::Merge, json!({ "seen_by": { writer: number } })),
        60..75 => (PatchKind::Merge, json!({ "location": { "lat": number, "lon": number } })),
        75..95 => {
            let name = format!("{writer}-{number}");
            let op = json!({ "op": "insert", "path": "/alternatenames", "index": 0, "values": [name] });
            (PatchKind::Edits, json!({ "ops": [op] }))
        }
        _ => return Some(Edit::Delete { id }.into()),
    };
    let patch = Patch { kind, body: Bytes::from(body.to_string()) };
    Some(Edit::Patch { id, patch }.into())
}

/// What was done at random to one half.
#[derive(Debug, Default, Clone, serde::Serialize)]
pub(super) struct Edited {
    /// Edits that were made.
    pub(super) edits: u64,
    /// Deletes among them.
    pub(super) deletes: u64,
    /// Edits of a document that was deleted just before, which have no effect.
    pub(super) too_late: u64,
    #[serde(skip)]
    pub(super) documents: BTreeSet<DocId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_set_is_whole_and_has_the_cases_first() {
        let all = cities(usize::MAX).unwrap();
        assert_eq!(all.len(), 6_204);
        let few: BTreeSet<_> = cities(Kind::ALL.len()).unwrap().into_iter().map(|city| city.id).collect();
        for kind in Kind::ALL {
            assert!(few.contains(&geoname(kind).parse::<DocId>().unwrap()), "{kind:?}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_edits() {
        let pool: Vec<DocId> = (0..50).map(|n| n.to_string().parse().unwrap()).collect();
        let edits = |seed| {
            let mut random = Random::new(seed);
            (0..100).map(|_| random_edit(&mut random, &pool, "w").unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(edits(1), edits(1));
        assert_ne!(edits(1), edits(2));
        assert!(random_edit(&mut Random::new(1), &[], "w").is_none());
    }
}
