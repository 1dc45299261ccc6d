//! Where other members are, as they last told, kept for the next start.

use std::collections::{BTreeMap, BTreeSet};

use folkmoot_core::id::{AuthorKey, PrincipalId};

use super::directory::KnownPeer;

/// Peers whose addresses are kept. A node that finds some of them learns of the others.
const PEERS_MAX: usize = 256;
/// Addresses kept of one peer.
const ADDRESSES_MAX: usize = 8;

/// Addresses of peers, and whether the disk knows them.
#[derive(Debug, Default)]
pub(super) struct Whereabouts {
    known: BTreeMap<AuthorKey, Vec<String>>,
    changed: bool,
}

impl Whereabouts {
    /// Notes what a peer told of itself: all of its addresses, the best first.
    pub(super) fn note(&mut self, peer: AuthorKey, mut addresses: Vec<String>) {
        addresses.truncate(ADDRESSES_MAX);
        let room = self.known.len() < PEERS_MAX || self.known.contains_key(&peer);
        if addresses.is_empty() || !room || self.known.get(&peer) == Some(&addresses) {
            return;
        }
        self.known.insert(peer, addresses);
        self.changed = true;
    }

    /// Notes an address from the disk, the last of a peer first.
    pub(super) fn restore(&mut self, peer: AuthorKey, address: String) {
        if self.known.len() < PEERS_MAX || self.known.contains_key(&peer) {
            let addresses = self.known.entry(peer).or_default();
            addresses.insert(0, address);
            addresses.truncate(ADDRESSES_MAX);
        }
    }

    /// Returns where members may be of whom nothing was told: where they were under a key that they had before. `nodes` says whose
    /// all keys are that ever were a member's, `told` where some were when this node joined.
    pub(super) fn moved(
        &mut self,
        members: &BTreeSet<AuthorKey>,
        nodes: &BTreeMap<AuthorKey, PrincipalId>,
        told: &[KnownPeer],
    ) -> Vec<(AuthorKey, Vec<String>)> {
        let mut moved = Vec::new();
        for member in members.iter().filter(|member| !self.known.contains_key(member)) {
            let Some(node) = nodes.get(member) else { continue };
            let is_it = |key: &AuthorKey| key != member && nodes.get(key) == Some(node);
            let before = self.known.iter().find(|(key, _)| is_it(key)).map(|(_, addresses)| addresses.clone());
            let addresses = before.unwrap_or_else(|| {
                let told = told.iter().filter(|peer| is_it(&peer.key));
                told.map(|peer| peer.address.clone()).collect()
            });
            if !addresses.is_empty() {
                moved.push((*member, addresses));
            }
        }
        for (member, addresses) in &moved {
            self.note(*member, addresses.clone());
        }
        moved
    }

    /// Returns what is to be written, if it has changed since the last call. Who is no member is forgotten.
    pub(super) fn changed(&mut self, members: &BTreeSet<AuthorKey>) -> Option<Vec<KnownPeer>> {
        let before = self.known.len();
        self.known.retain(|peer, _| members.contains(peer));
        self.changed |= self.known.len() != before;
        std::mem::take(&mut self.changed).then(|| {
            let all = self.known.iter().flat_map(|(key, list)| list.iter().map(|address| (*key, address.clone())));
            all.map(|(key, address)| KnownPeer { key, address }).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u16) -> AuthorKey {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        AuthorKey::new(bytes)
    }

    #[test]
    fn what_was_told_last_is_kept_and_comes_back_in_order() {
        let members: BTreeSet<_> = (0..1_000).map(key).collect();
        let mut all = Whereabouts::default();
        assert_eq!(all.changed(&members), None);
        all.note(key(1), vec!["a".into(), "b".into()]);
        let written = all.changed(&members).unwrap();
        assert_eq!(written.iter().map(|peer| &*peer.address).collect::<Vec<_>>(), ["a", "b"]);
        all.note(key(1), vec!["a".into(), "b".into()]);
        assert_eq!(all.changed(&members), None, "nothing new");
        let mut restored = Whereabouts::default();
        for peer in written.into_iter().rev() {
            restored.restore(peer.key, peer.address);
        }
        assert_eq!(restored.changed(&members), None, "the disk knows");
        assert_eq!(restored.known, all.known);
        all.note(key(1), vec!["c".into()]);
        assert_eq!(all.changed(&members).unwrap().len(), 1, "what is gone is gone");
        assert_eq!(all.changed(&BTreeSet::new()), Some(Vec::new()), "it is no member any more");
    }

    #[test]
    fn who_has_another_key_is_looked_for_where_it_was() {
        let node = |n: u8| PrincipalId::from(folkmoot_core::id::OpId::new([n; 32]));
        let nodes = BTreeMap::from([(key(1), node(1)), (key(2), node(2)), (key(3), node(1)), (key(4), node(4))]);
        let members = BTreeSet::from([key(2), key(3), key(4)]);
        let mut all = Whereabouts::default();
        all.restore(key(1), "a".to_owned());
        all.restore(key(2), "b".to_owned());
        assert_eq!(all.moved(&members, &nodes, &[]), [(key(3), vec!["a".to_owned()])]);
        assert_eq!(all.moved(&members, &nodes, &[]), [], "it is known now");
        let told = [KnownPeer { key: key(1), address: "c".to_owned() }];
        assert_eq!(Whereabouts::default().moved(&members, &nodes, &told), [(key(3), vec!["c".to_owned()])]);
        let written = all.changed(&members).unwrap();
        assert_eq!(
            written.iter().map(|peer| peer.key).collect::<Vec<_>>(),
            [key(2), key(3)],
            "the key before is forgotten"
        );
    }

    #[test]
    fn it_is_bounded() {
        let mut all = Whereabouts::default();
        for n in 0..1_000 {
            all.note(key(n), (0..100).map(|n| n.to_string()).collect());
            all.restore(key(n), "x".to_owned());
        }
        assert_eq!(all.known.len(), PEERS_MAX);
        assert!(all.known.values().all(|addresses| addresses.len() <= ADDRESSES_MAX));
    }
}
