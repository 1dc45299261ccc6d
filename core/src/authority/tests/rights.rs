//! Named attacks and mishaps with roles, groups, duties and documents of one's own.

use super::scenarios::{is_cut, pin, principal, small, verdict};
use super::world::{World, collection, role, target};
use crate::authority::Verdict;
use crate::hlc::Hlc;
use crate::id::{OpId, PrincipalId};
use crate::op::{
    Act, Action, Actions, BuiltInRole, Certify, Collection, Documents, Duty, DutyGrant, Grant, Join, Member, Principal,
    PrincipalKind, Rank, RevokeTarget, Role, RoleRevision, Target, WriteAction,
};

use BuiltInRole::{Admin, Contributor, Editor, Reader};

const ALLOWED: Verdict = Verdict::Allowed;
const NOT_ALLOWED: Verdict = Verdict::NotAllowed;

pub(super) fn introduce(kind: PrincipalKind, rank: i16) -> Act {
    Act::Principal(Principal { name: "p".into(), kind, attest: kind != PrincipalKind::Group, rank: Rank(rank) })
}

pub(super) fn join(principal: PrincipalId, group: PrincipalId, rank: i16) -> Act {
    Act::Join(Join { principal, group, rank: Rank(rank), not_after: None })
}

pub(super) fn duty(principal: PrincipalId, duty: Duty, rank: i16) -> Act {
    Act::Duty(DutyGrant { principal, duty, rank: Rank(rank), not_after: None })
}

pub(super) fn revision(actions: &[Action], own: &[Action], rank: i16) -> Act {
    let (actions, own_actions) = (actions.iter().copied().collect(), own.iter().copied().collect());
    Act::Role(RoleRevision { name: "r".into(), actions, own_actions, rank: Rank(rank) })
}

pub(super) fn grant(principal: PrincipalId, role: Role, target: Target, rank: i16) -> Act {
    Act::Grant(Grant { principal, role, target, rank: Rank(rank), not_after: None })
}

pub(super) fn documents(on: &str, prefix: &str) -> Target {
    Target { documents: Documents::Prefix(prefix.to_owned()), ..target(on) }
}

/// Gateways g and h, the first with the duty to write everywhere, the second in x; Ann, who has no key and may edit x and
/// y.
pub(super) struct Served {
    pub(super) w: World,
    pub(super) ann: PrincipalId,
    pub(super) duty: OpId,
}

pub(super) fn served() -> Served {
    let mut w = small();
    for name in ["g", "h"] {
        w.enrol("a0", name, (20, 20), Some((Editor, "*")));
    }
    let (g, h) = (w.peer("g").principal, w.peer("h").principal);
    let everywhere = w.act("a0", duty(g, Duty::ActFor(target("*")), 20));
    w.act("a0", duty(h, Duty::ActFor(target("x")), 20));
    let ann: PrincipalId = w.act("a0", introduce(PrincipalKind::User, 30)).into();
    w.act("a0", grant(ann, role(Editor), target("x"), 31));
    w.act("a0", grant(ann, role(Editor), target("y"), 31));
    w.sync_all();
    Served { w, ann, duty: everywhere }
}

/// A bit of everything, for the golden vectors.
pub(super) fn exercised() -> World {
    let Served { mut w, ann, .. } = served();
    let clerk = w.act("a0", revision(&[Action::Read, Action::Update], &[Action::Create, Action::Delete], 20));
    let group: PrincipalId = w.act("a0", introduce(PrincipalKind::Group, 30)).into();
    let bob: PrincipalId = w.act("a0", introduce(PrincipalKind::Service, 30)).into();
    w.act("a0", join(bob, group, 31));
    w.act("a0", grant(ann, role(Reader), documents("x", "2026/"), 31));
    w.act("a0", grant(group, Role::Custom(clerk), target("x"), 31));
    w.sync_all();
    write(&mut w, "g", ann, "x", "d");
    write(&mut w, "u", ann, "x", "d");
    write(&mut w, "h", ann, "y", "d");
    write(&mut w, "g", bob, "x", &format!("{}1", bob.own_prefix()));
    write(&mut w, "g", bob, "x", &format!("{}1", ann.own_prefix()));
    w.sync_all();
    write(&mut w, "g", ann, "x", "e");
    w.write("g", "x");
    let pins = w.pins_of_principal("a0", ann);
    w.revoke_with("a0", RevokeTarget::Principal(ann), pins, false);
    let pins = w.pins_of_principal("a0", bob);
    w.revoke_with("a0", RevokeTarget::Statement(clerk), pins, false);
    w.sync_all();
    write(&mut w, "g", ann, "x", "f");
    write(&mut w, "g", bob, "x", &format!("{}2", bob.own_prefix()));
    w
}

pub(super) fn write(w: &mut World, by: &str, whom: PrincipalId, on: &str, doc: &str) -> OpId {
    let header = w.draft_write_for(by, whom, on, doc, WriteAction::Create);
    w.sign(by, header)
}

#[test]
fn a_node_writes_for_others_within_its_duty_and_their_rights() {
    let Served { mut w, ann, .. } = served();
    let u = w.peer("u").principal;
    let before = w.write("g", "x");
    for (by, whom, on, expected) in [
        ("g", ann, "x", ALLOWED),
        ("g", ann, "z", NOT_ALLOWED),
        ("h", ann, "x", ALLOWED),
        ("h", ann, "y", NOT_ALLOWED),
        ("u", ann, "x", NOT_ALLOWED),
        ("g", u, "x", NOT_ALLOWED),
    ] {
        let id = write(&mut w, by, whom, on, "d");
        assert_eq!(verdict(&w, id), expected, "{by} for {whom:?} on {on}");
    }
    assert_eq!(verdict(&w, before), ALLOWED);
    // Not for somebody that its author did not know, nor for one whose right it did not know.
    let bob: PrincipalId = w.act("a0", introduce(PrincipalKind::Service, 30)).into();
    let early = write(&mut w, "g", bob, "x", "d");
    let given = w.act("a0", grant(bob, role(Editor), target("x"), 31));
    w.peer_mut("g").view.insert(given);
    let late = write(&mut w, "g", bob, "x", "d");
    assert_eq!((verdict(&w, early), verdict(&w, late)), (NOT_ALLOWED, ALLOWED));
}

#[test]
fn nobody_acts_for_others() {
    let Served { mut w, ann, .. } = served();
    // Even with everything that is Ann's in the proof: what is not given to the signer makes no proof.
    let all = w.act("o0", grant(ann, role(Admin), target("*"), 5));
    w.sync_all();
    w.peer_mut("g").proof.push(all);
    let n = w.peer("n").principal;
    let act = w.act("g", grant(n, role(Reader), target("x"), 40));
    assert_eq!(verdict(&w, act), NOT_ALLOWED);
}

#[test]
fn a_cut_duty_cuts_what_is_written_for_others_only() {
    let Served { mut w, ann, duty, .. } = served();
    let seen = write(&mut w, "g", ann, "x", "d");
    w.sync_all();
    let unseen = write(&mut w, "g", ann, "x", "d");
    let own = w.write("g", "x");
    let pins = vec![pin(&w, seen)];
    let revocation = w.revoke_with("a0", RevokeTarget::Statement(duty), pins, false);
    w.sync_all();
    let late = write(&mut w, "g", ann, "x", "d");
    let by_another = write(&mut w, "h", ann, "x", "d");
    assert_eq!(verdict(&w, seen), ALLOWED);
    assert!(is_cut(verdict(&w, unseen), revocation) && is_cut(verdict(&w, late), revocation));
    assert_eq!((verdict(&w, own), verdict(&w, by_another)), (ALLOWED, ALLOWED));
}

#[test]
fn who_is_removed_is_cut_in_the_streams_of_nodes_and_nobody_else_is() {
    let Served { mut w, ann, .. } = served();
    let bob: PrincipalId = w.act("a0", introduce(PrincipalKind::User, 30)).into();
    w.act("a0", grant(bob, role(Editor), target("x"), 31));
    w.sync_all();
    let seen = write(&mut w, "g", ann, "x", "d");
    w.sync_all();
    let unseen = write(&mut w, "g", ann, "x", "d");
    let other = write(&mut w, "g", bob, "x", "d");
    let own = w.write("g", "x");
    let pins = vec![pin(&w, seen)];
    let revocation = w.revoke_with("a0", RevokeTarget::Principal(ann), pins, false);
    w.sync_all();
    let late = write(&mut w, "h", ann, "x", "d");
    assert_eq!(verdict(&w, seen), ALLOWED);
    assert!(is_cut(verdict(&w, unseen), revocation) && is_cut(verdict(&w, late), revocation));
    assert_eq!((verdict(&w, other), verdict(&w, own)), (ALLOWED, ALLOWED));
    // Taken back: the principal is still who it was.
    w.act("a0", grant(ann, role(Editor), target("x"), 31));
    w.sync_all();
    let again = write(&mut w, "h", ann, "x", "d");
    assert_eq!(verdict(&w, again), ALLOWED);
    assert!(is_cut(verdict(&w, unseen), revocation));
}

#[test]
fn a_fork_of_a_removed_node_undoes_nothing_that_stood() {
    let Served { mut w, ann, .. } = served();
    let seen = write(&mut w, "g", ann, "x", "d");
    w.sync_all();
    // The owner removes her, with a pin in the node's stream, which goes on; later an admin removes the node.
    w.revoke_with("o0", RevokeTarget::Principal(ann), vec![pin(&w, seen)], false);
    w.sync_all();
    let later = w.write("g", "x");
    w.sync_all();
    w.revoke("a0", "g");
    assert_eq!((verdict(&w, seen), verdict(&w, later)), (ALLOWED, ALLOWED));
    let forged = w.sibling(seen);
    let forged = w.put(forged);
    assert!(matches!(verdict(&w, forged), Verdict::AfterRevocation { .. } | Verdict::Forked { .. } | NOT_ALLOWED));
    assert_eq!((verdict(&w, seen), verdict(&w, later)), (ALLOWED, ALLOWED));
}

#[test]
fn who_was_never_rightly_introduced_is_nobody() {
    let Served { mut w, ann, .. } = served();
    let introduction = RevokeTarget::Statement(ann.introduced_by());
    let revocation = w.revoke_with("a0", introduction, vec![], false);
    w.sync_all();
    let late = write(&mut w, "g", ann, "x", "d");
    assert!(is_cut(verdict(&w, late), revocation));
    let own = w.write("g", "x");
    assert_eq!(verdict(&w, own), ALLOWED);
}

#[test]
fn a_role_counts_until_it_is_revoked() {
    let mut w = small();
    let clerk = w.act("a0", revision(&[Action::Read, Action::Create], &[], 20));
    let n = w.peer("n").principal;
    w.act("a0", grant(n, Role::Custom(clerk), target("x"), 31));
    w.sync_all();
    let seen = write(&mut w, "n", n, "x", "d");
    let header = w.draft_write_for("n", n, "x", "d", WriteAction::Delete);
    let delete = w.sign("n", header);
    w.sync_all();
    let unseen = write(&mut w, "n", n, "x", "d");
    assert_eq!((verdict(&w, seen), verdict(&w, delete), verdict(&w, unseen)), (ALLOWED, NOT_ALLOWED, ALLOWED));
    let pins = vec![pin(&w, delete)];
    let revocation = w.revoke_with("a0", RevokeTarget::Statement(clerk), pins, false);
    assert_eq!(verdict(&w, seen), ALLOWED);
    assert!(is_cut(verdict(&w, unseen), revocation));
    // Nobody grants what it has never heard of, or what is no role.
    let unknown = w.act("a1", revision(&[Action::Read], &[], 20));
    let other = grant(n, Role::Custom(unknown), target("x"), 31);
    let early = w.act("a0", other.clone());
    w.sync("a0", "a1");
    let late = w.act("a0", other);
    let none = w.act("a0", grant(n, Role::Custom(early), target("x"), 31));
    assert_eq!((verdict(&w, early), verdict(&w, late), verdict(&w, none)), (NOT_ALLOWED, ALLOWED, NOT_ALLOWED));
}

#[test]
fn ones_own_documents_are_told_by_their_ids() {
    let mut w = small();
    let (n, u) = (w.peer("n").principal, w.peer("u").principal);
    let m = {
        w.enrol("a0", "m", (30, 31), None);
        w.peer("m").principal
    };
    w.act("a0", grant(n, role(Contributor), target("x"), 31));
    w.act("a0", grant(m, role(Editor), documents("x", "2026/"), 31));
    w.sync_all();
    let mine = format!("{}1", n.own_prefix());
    let others = format!("{}1", u.own_prefix());
    for (by, doc, expected) in [
        ("n", mine.as_str(), ALLOWED),
        ("n", others.as_str(), NOT_ALLOWED),
        ("n", "d", NOT_ALLOWED),
        ("m", "2026/1", ALLOWED),
        ("m", "2025/1", NOT_ALLOWED),
        ("m", mine.as_str(), NOT_ALLOWED),
        ("u", mine.as_str(), ALLOWED),
    ] {
        let whom = w.peer(by).principal;
        let id = write(&mut w, by, whom, "x", doc);
        assert_eq!(verdict(&w, id), expected, "{by} writes {doc}");
    }
}

#[test]
fn members_have_what_their_group_has() {
    let mut w = small();
    let n = w.peer("n").principal;
    let group: PrincipalId = w.act("a0", introduce(PrincipalKind::Group, 30)).into();
    let joined = w.act("a0", join(n, group, 31));
    w.act("a0", grant(group, role(Editor), target("x"), 31));
    w.sync_all();
    let seen = write(&mut w, "n", n, "x", "d");
    w.sync_all();
    let unseen = write(&mut w, "n", n, "x", "d");
    let as_group = write(&mut w, "n", group, "x", "d");
    assert_eq!((verdict(&w, seen), verdict(&w, unseen), verdict(&w, as_group)), (ALLOWED, ALLOWED, NOT_ALLOWED));
    let revocation = w.revoke_with("a0", RevokeTarget::Statement(joined), vec![pin(&w, seen)], false);
    assert_eq!(verdict(&w, seen), ALLOWED);
    assert!(is_cut(verdict(&w, unseen), revocation));
    // Groups hold principals, and have no keys.
    let other: PrincipalId = w.act("a0", introduce(PrincipalKind::Group, 30)).into();
    let nested = w.act("a0", join(other, group, 31));
    let into_user = w.act("a0", join(n, w.peer("u").principal, 31));
    let key = w.certify("a0", "k", Some(group), 40);
    for id in [nested, into_user, key] {
        assert_eq!(verdict(&w, id), NOT_ALLOWED);
    }
}

#[test]
fn who_administers_gives_and_lends_no_more_than_it_has() {
    let mut w = small();
    w.enrol("o0", "b", (10, 10), None);
    let (b, v) = (w.peer("b").principal, w.peer("v").principal);
    let narrow = w.act("o0", revision(&[Action::Administer, Action::Read], &[], 10));
    let given = w.act("o0", grant(b, Role::Custom(narrow), target("*"), 10));
    w.sync_all();
    w.peer_mut("b").proof.extend([narrow, given]);
    let reads = w.act("b", revision(&[Action::Read], &[], 20));
    let owns = w.act("b", revision(&[Action::Read], &[Action::Create], 20));
    let group: PrincipalId = w.act("b", introduce(PrincipalKind::Group, 30)).into();
    let name = collection("new");
    let member = Member { principal: v, key: w.peer("v").key, rank: Rank(40), not_after: None, labels: vec![] };
    for (act, expected) in [
        (grant(v, Role::Custom(reads), target("x"), 40), ALLOWED),
        (grant(v, Role::Custom(owns), target("x"), 40), NOT_ALLOWED),
        (grant(v, role(Reader), target("x"), 40), NOT_ALLOWED),
        (grant(v, role(Editor), target("x"), 40), NOT_ALLOWED),
        (duty(b, Duty::ActFor(target("x")), 40), NOT_ALLOWED),
        (duty(b, Duty::Registrar(target("x")), 40), NOT_ALLOWED),
        (duty(b, Duty::Warden(()), 40), NOT_ALLOWED),
        (join(b, group, 40), NOT_ALLOWED),
        (Act::Member(member), NOT_ALLOWED),
        (
            Act::Collection(Collection {
                name,
                shards: 1,
                types: vec![],
                dropped: false,
                audit_reads: false,
                indexes: vec![],
                schema: None,
                expires: None,
                unique: vec![],
            }),
            ALLOWED,
        ),
    ] {
        let id = w.act("b", act.clone());
        assert_eq!(verdict(&w, id), expected, "{act:?}");
    }
    let key = w.certify("b", "k", Some(v), 40);
    assert_eq!(verdict(&w, key), NOT_ALLOWED);
    // An admin of everything may do all of that.
    let key = w.certify("a0", "k", Some(v), 40);
    assert_eq!(verdict(&w, key), ALLOWED);
}

#[test]
fn a_proof_has_all_that_an_act_rests_on() {
    let mut w = small();
    w.enrol("o0", "b", (10, 10), None);
    let (b, v) = (w.peer("b").principal, w.peer("v").principal);
    let all: Vec<Action> = Actions::ALL.iter().collect();
    let role = w.act("o0", revision(&all, &[], 25));
    let group: PrincipalId = w.act("o0", introduce(PrincipalKind::Group, 10)).into();
    let joined = w.act("o0", join(b, group, 15));
    let given = w.act("o0", grant(group, Role::Custom(role), target("*"), 10));
    w.sync_all();
    let certificate = w.peer("b").certificate;
    for (proof, rank, expected) in [
        (vec![given, joined, role], 26, ALLOWED),
        (vec![given, joined, role], 25, NOT_ALLOWED),
        (vec![given, joined], 26, NOT_ALLOWED),
        (vec![given, role], 26, NOT_ALLOWED),
    ] {
        w.peer_mut("b").proof = [vec![certificate], proof].concat();
        let id = w.act("b", grant(v, super::world::role(Reader), target("x"), rank));
        assert_eq!(verdict(&w, id), expected, "rank {rank} under {:?}", w.peer("b").proof);
    }
    // What is cut takes along what was done under it.
    w.peer_mut("b").proof = vec![certificate, given, joined, role];
    let id = w.act("b", grant(v, super::world::role(Reader), target("x"), 40));
    w.sync_all();
    for cut in [role, joined, given] {
        let mut w = w.clone();
        let revocation = w.revoke_with("o0", RevokeTarget::Statement(cut), vec![], false);
        assert!(is_cut(verdict(&w, id), revocation));
    }
}

#[test]
fn a_warden_closes_what_has_ended_and_nothing_else() {
    let mut w = small();
    w.enrol("a0", "k", (15, 15), None);
    let (k, u) = (w.peer("k").principal, w.peer("u").principal);
    let watch = w.act("a0", duty(k, Duty::Warden(()), 15));
    w.peer_mut("k").proof.push(watch);
    let end = Hlc::new(w.clock + 20, 0);
    let ending = |rank: i16, not_after| {
        Act::Grant(Grant { principal: u, role: role(Editor), target: target("z"), rank: Rank(rank), not_after })
    };
    let given = w.act("a0", ending(31, Some(end)));
    let lasting = w.act("a0", ending(31, None));
    let strong = w.act("a0", ending(15, Some(end)));
    w.sync_all();
    let early = w.revoke_with("k", RevokeTarget::Statement(given), vec![], false);
    assert_eq!(verdict(&w, early), NOT_ALLOWED);
    // By somebody whose clock stands still.
    let late = w.write("u", "z");
    w.clock += 40;
    w.sync_all();
    for (statement, cascade, expected) in [
        (lasting, false, NOT_ALLOWED),
        (strong, false, NOT_ALLOWED),
        (given, true, NOT_ALLOWED),
        (w.peer("u").certificate, false, NOT_ALLOWED),
        (given, false, ALLOWED),
    ] {
        let id = w.revoke_with("k", RevokeTarget::Statement(statement), vec![], cascade);
        assert_eq!(verdict(&w, id), expected);
    }
    let whole = w.revoke_with("k", principal(&w, "u"), vec![], false);
    assert_eq!(verdict(&w, whole), NOT_ALLOWED);
    // The other grant still stands.
    assert_eq!(verdict(&w, late), ALLOWED);
    let by_user = w.revoke_with("v", RevokeTarget::Statement(given), vec![], false);
    assert_eq!(verdict(&w, by_user), NOT_ALLOWED);
}

#[test]
fn a_registrar_gives_weak_roles_for_a_time_where_it_is_one() {
    let mut w = small();
    w.enrol("a0", "k", (20, 20), None);
    let k = w.peer("k").principal;
    let registrar = w.act("a0", duty(k, Duty::Registrar(target("x")), 20));
    w.peer_mut("k").proof.push(registrar);
    w.sync_all();
    let clerk = w.act("a0", revision(&[Action::Read], &[], 20));
    w.sync_all();
    let ann = w.act("k", introduce(PrincipalKind::User, 30));
    let keyed = w.certify("k", "e", None, 30);
    let by_user = w.act("u", introduce(PrincipalKind::User, 40));
    assert_eq!((verdict(&w, ann), verdict(&w, keyed), verdict(&w, by_user)), (ALLOWED, ALLOWED, NOT_ALLOWED));
    let end = Some(Hlc::new(w.clock + 90, 0));
    for (what, on, not_after, expected) in [
        (role(Editor), "x", end, ALLOWED),
        (role(Editor), "x", None, NOT_ALLOWED),
        (role(Admin), "x", end, NOT_ALLOWED),
        (role(Editor), "y", end, NOT_ALLOWED),
        (Role::Custom(clerk), "x", end, NOT_ALLOWED),
    ] {
        let act = Grant { principal: ann.into(), role: what, target: target(on), rank: Rank(31), not_after };
        let id = w.act("k", Act::Grant(act.clone()));
        assert_eq!(verdict(&w, id), expected, "{act:?}");
    }
    let v = w.peer("v").principal;
    let key =
        Certify { principal: Some(v), key: super::world::key("e"), rank: Rank(40), not_after: None, name: "".into() };
    let id = w.act("k", Act::Certify(key));
    assert_eq!(verdict(&w, id), NOT_ALLOWED);
}

/// All of them, for the planted bugs.
pub(super) const ALL: &[(&str, fn())] = &[
    (
        "a_node_writes_for_others_within_its_duty_and_their_rights",
        a_node_writes_for_others_within_its_duty_and_their_rights,
    ),
    ("nobody_acts_for_others", nobody_acts_for_others),
    ("a_cut_duty_cuts_what_is_written_for_others_only", a_cut_duty_cuts_what_is_written_for_others_only),
    (
        "who_is_removed_is_cut_in_the_streams_of_nodes_and_nobody_else_is",
        who_is_removed_is_cut_in_the_streams_of_nodes_and_nobody_else_is,
    ),
    ("a_fork_of_a_removed_node_undoes_nothing_that_stood", a_fork_of_a_removed_node_undoes_nothing_that_stood),
    ("who_was_never_rightly_introduced_is_nobody", who_was_never_rightly_introduced_is_nobody),
    ("a_role_counts_until_it_is_revoked", a_role_counts_until_it_is_revoked),
    ("ones_own_documents_are_told_by_their_ids", ones_own_documents_are_told_by_their_ids),
    ("members_have_what_their_group_has", members_have_what_their_group_has),
    ("who_administers_gives_and_lends_no_more_than_it_has", who_administers_gives_and_lends_no_more_than_it_has),
    ("a_proof_has_all_that_an_act_rests_on", a_proof_has_all_that_an_act_rests_on),
    ("a_warden_closes_what_has_ended_and_nothing_else", a_warden_closes_what_has_ended_and_nothing_else),
    (
        "a_registrar_gives_weak_roles_for_a_time_where_it_is_one",
        a_registrar_gives_weak_roles_for_a_time_where_it_is_one,
    ),
];
