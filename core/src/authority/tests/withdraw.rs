//! Owners who take back what they asked for and others have not approved.

use std::collections::BTreeSet;

use super::scenarios::verdict;
use super::store::Node;
use super::world::World;
use crate::authority::Verdict;
use crate::id::OpId;
use crate::op::{Act, BuiltInRole::Admin, Withdraw};

#[test]
fn who_asked_withdraws_and_nobody_else() {
    let mut w = World::new(&["o0", "o1", "o2"], 2);
    w.enrol("o0", "a", (10, 10), Some((Admin, "*")));
    let (certificate, grant) = (w.peer("a").proof[0], w.peer("a").proof[1]);
    w.sync_all();
    let withdraw = |w: &mut World, by: &str, acts: &[OpId]| {
        let acts = acts.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        w.act(by, Act::Withdraw(Withdraw { acts }))
    };
    let by_other = withdraw(&mut w, "o1", &[certificate]);
    let both = withdraw(&mut w, "o1", &[certificate, by_other]);
    let by_admin = withdraw(&mut w, "a", &[certificate]);
    for refused in [by_other, both] {
        assert_eq!(verdict(&w, refused), Verdict::NotAllowed);
    }
    assert!(!verdict(&w, by_admin).is_allowed());
    let waits = |w: &World| -> Vec<OpId> {
        let requests = Node::with(w.cluster, &w.ops).authority.waiting_requests();
        requests.iter().flat_map(|request| request.acts().iter().map(|waiting| waiting.act)).collect()
    };
    assert_eq!(waits(&w), [certificate, grant]);
    // It takes nobody's consent, and nothing is heard of what it takes back.
    let own = withdraw(&mut w, "o0", &[grant]);
    assert_eq!(verdict(&w, own), Verdict::Allowed);
    assert_eq!(waits(&w), [certificate]);
    // It cuts nothing: whoever consents all the same makes it count, also later than it.
    w.approve("o2", certificate);
    w.approve("o2", grant);
    let late = withdraw(&mut w, "o0", &[certificate]);
    assert_eq!(verdict(&w, late), Verdict::Allowed);
    assert_eq!((verdict(&w, certificate), verdict(&w, grant)), (Verdict::Allowed, Verdict::Allowed));
    let unknown = withdraw(&mut w, "o0", &[OpId::new([9; 32])]);
    assert_eq!(verdict(&w, unknown), Verdict::NotAllowed);
}

pub(super) const ALL: &[(&str, fn())] = &[("who_asked_withdraws_and_nobody_else", who_asked_withdraws_and_nobody_else)];
