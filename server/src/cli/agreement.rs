//! Whether nodes hold the same, by what they tell of their shards.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use folkmoot::api::ShardDigest;

/// How long the contents may differ when the ops do not: digests of a node are not read at one instant.
const DIVERGED_AFTER: Duration = Duration::from_secs(5);

/// How the digests of nodes compare, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Agreement {
    /// All hold the same ops, have applied them, and they come to the same.
    Equal,
    /// Some node lacks ops or has not applied them yet.
    NotYet,
    /// Two hold and have applied the same ops of a shard, which come to other contents.
    Diverged,
}

/// Compares what nodes told of their shards once.
pub(super) fn compare(nodes: &[Vec<ShardDigest>]) -> Agreement {
    let Some(first) = nodes.first() else { return Agreement::Equal };
    nodes.iter().map(|node| compare_two(first, node)).max().unwrap_or(Agreement::Equal)
}

fn compare_two(ours: &[ShardDigest], theirs: &[ShardDigest]) -> Agreement {
    let place = |digest: &ShardDigest| (digest.collection.clone(), digest.shard, digest.of);
    let others: BTreeMap<_, _> = theirs.iter().map(|digest| (place(digest), digest)).collect();
    let of_each = ours.iter().map(|our| match others.get(&place(our)) {
        None => Agreement::NotYet,
        Some(their) if our.ops_digest != their.ops_digest || our.ops != their.ops => Agreement::NotYet,
        Some(their) if our.ops_unapplied + their.ops_unapplied > 0 => Agreement::NotYet,
        Some(their) if our.state_digest != their.state_digest || our.documents != their.documents => {
            Agreement::Diverged
        }
        Some(_) => Agreement::Equal,
    });
    let of_number = if ours.len() == theirs.len() { Agreement::Equal } else { Agreement::NotYet };
    of_each.max().unwrap_or(Agreement::Equal).max(of_number)
}

/// Judges nodes that are asked again and again: they have diverged only if they are seen so for a while.
#[derive(Debug, Default)]
pub(super) struct Judge {
    diverged_since: Option<Instant>,
}

impl Judge {
    /// Returns how nodes compare; [`Agreement::Diverged`] only if that has lasted.
    pub(super) fn judge(&mut self, nodes: &[Vec<ShardDigest>]) -> Agreement {
        match compare(nodes) {
            Agreement::Diverged => {
                let since = self.diverged_since.get_or_insert_with(Instant::now);
                if since.elapsed() > DIVERGED_AFTER { Agreement::Diverged } else { Agreement::NotYet }
            }
            other => {
                self.diverged_since = None;
                other
            }
        }
    }

    /// Returns whether the nodes look as if they had diverged.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.diverged_since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(collection: &str, ops: &str, state: &str, unapplied: u64) -> ShardDigest {
        ShardDigest {
            collection: collection.parse().unwrap(),
            shard: 0,
            of: 1,
            ops_digest: ops.to_owned(),
            state_digest: state.to_owned(),
            ops: 1,
            documents: 1,
            ops_unapplied: unapplied,
        }
    }

    #[test]
    fn only_other_contents_of_the_same_ops_are_a_divergence() {
        let a = || vec![digest("a", "1", "x", 0)];
        let of = |ops, state, unapplied| vec![digest("a", ops, state, unapplied)];
        assert_eq!(compare(&[]), Agreement::Equal);
        assert_eq!(compare(&[a(), a(), a()]), Agreement::Equal);
        assert_eq!(compare(&[a(), of("1", "y", 0), a()]), Agreement::Diverged);
        assert_eq!(compare(&[a(), of("2", "x", 0)]), Agreement::NotYet);
        assert_eq!(compare(&[a(), of("2", "y", 0)]), Agreement::NotYet);
        assert_eq!(compare(&[a(), of("1", "y", 1)]), Agreement::NotYet);
        assert_eq!(compare(&[of("1", "x", 1)]), Agreement::NotYet);
        assert_eq!(compare(&[a(), Vec::new()]), Agreement::NotYet);
        assert_eq!(compare(&[Vec::new(), a()]), Agreement::NotYet);
        // One shard has diverged while another is on its way.
        let two = vec![digest("a", "1", "x", 0), digest("b", "1", "x", 0)];
        let other = vec![digest("a", "2", "x", 0), digest("b", "1", "z", 0)];
        assert_eq!(compare(&[two, other]), Agreement::Diverged);
    }

    #[test]
    fn a_divergence_must_last_to_be_believed() {
        let nodes = [vec![digest("a", "1", "x", 0)], vec![digest("a", "1", "y", 0)]];
        let mut judge = Judge::default();
        assert_eq!((judge.judge(&nodes), judge.is_in_doubt()), (Agreement::NotYet, true));
        assert_eq!((judge.judge(&nodes[..1]), judge.is_in_doubt()), (Agreement::Equal, false));
        assert_eq!(judge.judge(&nodes), Agreement::NotYet);
        judge.diverged_since = Instant::now().checked_sub(DIVERGED_AFTER * 2);
        assert_eq!(judge.judge(&nodes), Agreement::Diverged);
    }
}
