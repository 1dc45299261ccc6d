//! Who shares peppers, who has them, and when one is fit for another password.

use std::collections::BTreeSet;

use super::rights::duty;
use super::scenarios::{is_cut, principal, small, verdict};
use super::store::Node;
use super::world::{World, key, target};
use crate::authority::{Policy, Verdict};
use crate::hlc::Hlc;
use crate::id::{AuthorKey, ExchangeKey, OpId, PepperId, PrincipalId, Salt, SealedPepper, TokenVerifier};
use crate::op::{
    Act, Actions, BuiltInRole, Control, Duty, DutyGrant, Member, PasswordHash, Payload, PepperShare, PepperShares,
    Rank, RevokeTarget, Secret, Target, Token,
};

const ALLOWED: Verdict = Verdict::Allowed;
const NOT_ALLOWED: Verdict = Verdict::NotAllowed;
const NOW: Hlc = Hlc::new(1_000_000, 0);

pub(super) fn pepper(n: u8) -> PepperId {
    PepperId::new([n; 32])
}

/// What the rule never looks into.
fn sealed(n: u8) -> (ExchangeKey, SealedPepper) {
    (ExchangeKey::new([n; 32]), SealedPepper::new([n; 48]))
}

pub(super) fn shares(n: u8, seal: u8, nodes: &[AuthorKey]) -> Act {
    let (sealed_with, sealed) = sealed(seal);
    let nodes: BTreeSet<AuthorKey> = nodes.iter().copied().collect();
    let shares = nodes.into_iter().map(|node| PepperShare { node, sealed }).collect();
    Act::Pepper(PepperShares { pepper: pepper(n), sealed_with, shares })
}

fn share(w: &mut World, by: &str, under: &[OpId], act: Act) -> OpId {
    let mut proof: Vec<OpId> = under.iter().copied().chain([w.peer(by).certificate]).collect();
    proof.sort();
    let mut header = w.draft_act(by, act.clone());
    header.payload = Payload::from(Control { proof, act, for_whom: None });
    w.sign(by, header)
}

fn policy(w: &World) -> Policy {
    Node::with(w.cluster, &w.ops).authority.policy()
}

/// Three member nodes, of which g and h act for others.
struct Nodes {
    w: World,
    of_g: OpId,
    of_h: OpId,
}

fn nodes() -> Nodes {
    let mut w = small();
    for name in ["g", "h", "e"] {
        w.enrol("a0", name, (20, 20), None);
        w.member("a0", name, 20);
    }
    let mut acts = |name: &str, on: &str| {
        let holder = w.peer(name).principal;
        w.act("a0", duty(holder, Duty::ActFor(target(on)), 20))
    };
    let (of_g, of_h) = (acts("g", "*"), acts("h", "x"));
    w.sync_all();
    Nodes { w, of_g, of_h }
}

fn password(w: &mut World, of: PrincipalId, n: u8, under: u8, not_after: Option<Hlc>) -> OpId {
    let hash = PasswordHash { salt: Salt::new([n; 16]), memory_kib: 64, passes: 1, pepper: pepper(under) };
    w.act(
        "a0",
        Act::Token(Token {
            principal: of,
            verifier: TokenVerifier::new([n; 32]),
            name: "password".to_owned(),
            actions: Actions::ALL,
            target: Target::everything(),
            rank: Rank(40),
            not_after,
            secret: Secret::Password(hash),
        }),
    )
}

#[test]
fn nodes_that_act_for_others_share_peppers_and_nobody_else() {
    let Nodes { mut w, of_g, of_h } = nodes();
    let u = w.peer("u").principal;
    let warden = w.act("a0", duty(w.peer("e").principal, Duty::Warden(()), 20));
    w.sync_all();
    let admin = w.peer("a0").proof.clone();
    for (by, under, expected) in [
        ("g", vec![of_g], ALLOWED),
        ("h", vec![of_h], ALLOWED),
        ("g", vec![], NOT_ALLOWED),
        ("e", vec![], NOT_ALLOWED),
        ("e", vec![warden], NOT_ALLOWED),
        ("e", vec![of_g], NOT_ALLOWED),
        ("a0", admin[1..].to_vec(), NOT_ALLOWED),
        ("o0", vec![], NOT_ALLOWED),
    ] {
        let id = share(&mut w, by, &under, shares(1, 1, &[key("g")]));
        assert_eq!(verdict(&w, id), expected, "{by} under {} statements", under.len());
    }
    // It gives nothing to anybody.
    let given = share(&mut w, "g", &[of_g], shares(1, 1, &[key("u")]));
    assert_eq!(verdict(&w, given), ALLOWED);
    assert!(!policy(&w).acts_for_others(key("u"), NOW) && policy(&w).name(u).is_some());
}

#[test]
fn a_pepper_is_known_to_whom_it_was_ever_shared_with() {
    let Nodes { mut w, of_g, of_h } = nodes();
    assert_eq!(policy(&w).acting(NOW).collect::<BTreeSet<_>>(), [key("g"), key("h")].into());
    assert!(policy(&w).fit_peppers(NOW).is_empty());
    assert_eq!(policy(&w).lacking(pepper(1), NOW), [key("g"), key("h")].into());
    let first = share(&mut w, "g", &[of_g], shares(1, 1, &[key("g")]));
    w.sync_all();
    assert_eq!(policy(&w).fit_peppers(NOW), [pepper(1)]);
    assert_eq!(policy(&w).lacking(pepper(1), NOW), [key("h")].into());
    share(&mut w, "g", &[of_g], shares(1, 2, &[key("h")]));
    w.sync_all();
    assert!(policy(&w).lacking(pepper(1), NOW).is_empty());
    let info = policy(&w).pepper(pepper(1)).cloned().unwrap();
    assert_eq!((info.since.1, info.holders.len(), info.shared.len()), (first, 2, 2));
    // Another one is newer.
    let both = shares(2, 3, &[key("g"), key("h")]);
    share(&mut w, "h", &[of_h], both);
    assert_eq!(policy(&w).fit_peppers(NOW), [pepper(2), pepper(1)]);
    // What has no right to be says nothing, so that nobody spoils a pepper for the others.
    let by_e = share(&mut w, "e", &[], shares(1, 4, &[key("e")]));
    assert_eq!(verdict(&w, by_e), NOT_ALLOWED);
    assert_eq!(policy(&w).fit_peppers(NOW), [pepper(2), pepper(1)]);
    // Who shares with a node that does not act has given it away.
    share(&mut w, "g", &[of_g], shares(2, 5, &[key("e")]));
    assert_eq!(policy(&w).fit_peppers(NOW), [pepper(1)]);
    assert!(policy(&w).is_exposed(pepper(2), NOW) && !policy(&w).is_exposed(pepper(1), NOW));
}

#[test]
fn who_acts_no_longer_makes_a_pepper_unfit_for_good() {
    let Nodes { mut w, of_g, of_h } = nodes();
    let u = w.peer("u").principal;
    for (n, with) in [(1, vec![key("g"), key("h")]), (2, vec![key("g")])] {
        share(&mut w, "g", &[of_g], shares(n, n, &with));
    }
    w.sync_all();
    password(&mut w, u, 1, 1, None);
    password(&mut w, u, 2, 2, None);
    let ended = password(&mut w, u, 3, 1, Some(Hlc::new(900, 0)));
    assert_eq!(policy(&w).peppers_in_use(Hlc::ZERO), [(pepper(1), 2), (pepper(2), 1)].into());
    assert_eq!(policy(&w).peppers_in_use(NOW), [(pepper(1), 1), (pepper(2), 1)].into(), "{ended}");
    // The duty alone is taken: the node stays a member, and knows what it knows.
    w.revoke_with("a0", RevokeTarget::Statement(of_h), Vec::new(), false);
    let now = policy(&w);
    assert!(!now.acts_for_others(key("h"), NOW) && now.acts_for_others(key("g"), NOW));
    assert_eq!(now.fit_peppers(NOW), [pepper(2)]);
    assert!(now.is_exposed(pepper(1), NOW) && !now.is_exposed(pepper(2), NOW));
    // All is taken from the one that shared them, with pins before: its shares count no more, and it knows them still.
    let target = principal(&w, "g");
    let cut = w.revoke_with("a0", target, Vec::new(), false);
    let holder = w.peer("h").principal;
    let again = w.act("a0", duty(holder, Duty::ActFor(super::world::target("x")), 20));
    let now = policy(&w);
    assert!(now.acts_for_others(key("h"), NOW) && !now.acts_for_others(key("g"), NOW));
    assert!(now.fit_peppers(NOW).is_empty());
    assert_eq!(now.lacking(pepper(1), NOW), [key("h")].into());
    w.sync_all();
    let own = share(&mut w, "h", &[again], shares(3, 9, &[key("h")]));
    assert_eq!(verdict(&w, own), ALLOWED);
    assert_eq!(policy(&w).fit_peppers(NOW), [pepper(3)]);
    // A removed node goes on, with a time of before.
    let mut header = w.draft_act("g", shares(3, 1, &[key("g")]));
    if let Payload::Control(control) = &mut header.payload {
        control.proof.push(of_g);
        control.proof.sort();
    }
    let late = w.sign("g", header);
    assert!(is_cut(verdict(&w, late), cut));
}

#[test]
fn shares_that_count_come_first() {
    let Nodes { mut w, of_g, of_h } = nodes();
    let bad = share(&mut w, "g", &[of_g], shares(1, 1, &[key("h")]));
    w.sync_all();
    share(&mut w, "h", &[of_h], shares(1, 2, &[key("g"), key("h")]));
    share(&mut w, "h", &[of_h], shares(2, 3, &[key("h")]));
    let found =
        |w: &World, n: u8, node: &str| Node::with(w.cluster, &w.ops).authority.pepper_shares(pepper(n), key(node));
    assert_eq!(found(&w, 1, "h"), [sealed(1), sealed(2)]);
    assert_eq!(found(&w, 1, "g"), [sealed(2)]);
    assert_eq!(found(&w, 2, "h"), [sealed(3)]);
    assert!(found(&w, 2, "g").is_empty() && found(&w, 3, "g").is_empty());
    w.sync_all();
    let target = principal(&w, "g");
    let revocation = w.revoke_with("a0", target, Vec::new(), false);
    assert!(is_cut(verdict(&w, bad), revocation));
    assert_eq!(found(&w, 1, "h"), [sealed(2), sealed(1)]);
}

#[test]
fn a_node_acts_for_others_while_it_is_a_member_and_its_duty_lasts() {
    let mut w = small();
    w.enrol("a0", "g", (20, 20), None);
    let holder = w.peer("g").principal;
    let until = |millis| Some(Hlc::new(millis, 0));
    let on = || Duty::ActFor(target("x"));
    let for_a_time = |not_after| Act::Duty(DutyGrant { principal: holder, duty: on(), rank: Rank(20), not_after });
    w.act("a0", for_a_time(until(5_000)));
    w.sync_all();
    assert_eq!(policy(&w).acting(Hlc::ZERO).count(), 0, "no member");
    let labels = Vec::new();
    let member =
        |not_after| Member { principal: holder, key: key("g"), rank: Rank(20), not_after, labels: labels.clone() };
    let acts = |w: &World, millis| policy(w).acts_for_others(key("g"), Hlc::new(millis, 0));
    w.act("a0", Act::Member(member(until(4_000))));
    assert_eq!((acts(&w, 4_000), acts(&w, 4_001)), (true, false));
    let good = w.act("a0", Act::Member(member(None)));
    assert_eq!((acts(&w, 5_000), acts(&w, 5_001)), (true, false));
    w.act("a0", for_a_time(until(3_000)));
    assert_eq!((acts(&w, 5_000), acts(&w, 5_001)), (true, false));
    w.act("a0", for_a_time(None));
    assert!(acts(&w, 9_000_000));
    w.revoke_with("a0", RevokeTarget::Statement(good), Vec::new(), false);
    assert_eq!((acts(&w, 4_000), acts(&w, 4_001)), (true, false));
    assert!(w.grant("a0", "g", BuiltInRole::Editor, "*", 21) != OpId::ZERO && !acts(&w, 4_001));
}

/// A bit of everything, for the golden vectors.
pub(super) fn exercised() -> World {
    let Nodes { mut w, of_g, of_h } = nodes();
    share(&mut w, "g", &[of_g], shares(1, 1, &[key("g"), key("h")]));
    share(&mut w, "e", &[], shares(1, 2, &[key("e")]));
    share(&mut w, "g", &[], shares(1, 3, &[key("e")]));
    w.sync_all();
    let u = w.peer("u").principal;
    password(&mut w, u, 1, 1, None);
    let target = principal(&w, "g");
    w.revoke_with("a0", target, Vec::new(), false);
    w.sync_all();
    share(&mut w, "h", &[of_h], shares(2, 4, &[key("h")]));
    share(&mut w, "g", &[of_g], shares(2, 5, &[key("g")]));
    w
}

pub(super) const ALL: &[(&str, fn())] = &[
    (
        "nodes_that_act_for_others_share_peppers_and_nobody_else",
        nodes_that_act_for_others_share_peppers_and_nobody_else,
    ),
    ("a_pepper_is_known_to_whom_it_was_ever_shared_with", a_pepper_is_known_to_whom_it_was_ever_shared_with),
];
