//! What the engine tells the rest of the program, and how little it has judged again.

use super::rights;
use super::scenarios::{pin, small};
use super::store::Node;
use super::world::{World, collection, key, role, target};
use crate::authority::{
    Action, Added, Authority, ChainError, Closed, Decision, Denial, Noted, Position, Reach, Readable, Rejudge,
    check_against_previous,
};
use crate::hlc::Hlc;
use crate::id::{OpId, PrincipalId};
use crate::limits;
use crate::op::{Act, BuiltInRole, Certify, Collection, Grant, Header, PrincipalKind, Rank, RevokeTarget, Role, Rules};

const NOW: Hlc = Hlc::new(1_000_000, 0);

fn node(world: &World) -> Node {
    Node::with(world.cluster, &world.ops)
}

fn position(world: &World, id: OpId) -> (Position, &Header) {
    let header = &world.ops[&id];
    (Position { stream: world.streams[&id], seq: header.seq, op: id }, header)
}

#[test]
fn members_are_those_in_force() {
    let mut w = small();
    let statement = w.member("a0", "n", 30);
    let authority = node(&w).authority;
    let member = authority.member(key("n"), NOW).unwrap();
    assert_eq!((member.statement, member.name.as_str()), (statement, "n"));
    assert_eq!(member.labels["region"], "eu");
    assert!(authority.is_member(key("n"), NOW) && !authority.is_member(key("u"), NOW));
    w.revoke("a0", "n");
    let authority = node(&w).authority;
    assert!(!authority.is_member(key("n"), NOW) && authority.members(NOW).is_empty());
}

#[test]
fn certificates_and_rights_as_of_now() {
    let mut w = small();
    let user = w.peer("u").principal;
    let end = Hlc::new(500, 0);
    let short =
        Certify { principal: Some(user), key: key("u"), rank: Rank(32), not_after: Some(end), name: String::new() };
    let short = w.act("u", Act::Certify(short));
    let authority = node(&w).authority;
    assert_eq!(authority.principal_of(short), Some(user));
    let ids = |now| authority.certificates_of(key("u"), now).iter().map(|c| c.id).collect::<Vec<_>>();
    assert_eq!(ids(end), [w.peer("u").certificate, short]);
    assert_eq!(ids(NOW), [w.peer("u").certificate]);
    assert_eq!(authority.certificate_for(key("u"), user, NOW).unwrap().id, w.peer("u").certificate);
    assert_eq!(authority.certificate_for(key("u"), w.peer("v").principal, NOW), None);

    let x = collection("x");
    let grant = w.peer("u").proof[1];
    assert_eq!(authority.may(user, Action::Update, &x, None, NOW), Decision::Allowed { grant });
    assert_eq!(authority.may(user, Action::Administer, &x, None, NOW), Decision::Denied(Denial::NotGranted));
    let control = collection("_control");
    assert_eq!(authority.may(user, Action::Read, &control, None, NOW), Decision::Denied(Denial::NotGranted));
    let by = w.revoke("a0", "u");
    let authority = node(&w).authority;
    assert_eq!(authority.may(user, Action::Read, &x, None, NOW), Decision::Denied(Denial::Revoked { by }));
    assert_eq!(authority.certificate_for(key("u"), user, NOW), None);
}

#[test]
fn a_proof_is_the_strongest_that_gives_the_right() {
    let mut w = small();
    let admin = w.peer("a0").principal;
    let (certificate, grant) = (w.peer("a0").proof[0], w.peer("a0").proof[1]);
    w.grant("o0", "a0", BuiltInRole::Admin, "x", 12);
    w.sync_all();
    let authority = node(&w).authority;
    let proof = |act: &Act| authority.proof_for(key("a0"), certificate, act, NOW);
    let give = |rank| {
        Act::Grant(Grant {
            principal: admin,
            role: role(BuiltInRole::Editor),
            target: target("x"),
            rank: Rank(rank),
            not_after: None,
        })
    };
    let mut both = vec![certificate, grant];
    both.sort();
    assert_eq!(proof(&give(11)), Some(both));
    assert_eq!(proof(&give(10)), None, "no weaker than its maker");
    let device =
        Certify { principal: Some(admin), key: key("d"), rank: Rank(40), not_after: None, name: String::new() };
    assert_eq!(proof(&Act::Certify(device)), Some(vec![certificate]), "one's own needs no grant");
    assert_eq!(proof(&Act::Rules(Rules { version: 2 })), None);
    let genesis = w.genesis();
    let owner = authority.proof_for(key("o0"), genesis, &Act::Rules(Rules { version: 2 }), NOW);
    assert_eq!(owner, Some(vec![genesis]));
}

#[test]
fn heads_are_maximal_few_and_only_news_for_a_stream() {
    let mut w = small();
    let write = w.write("u", "x");
    let a = w.grant("a0", "n", BuiltInRole::Editor, "x", 33);
    let b = w.grant("a1", "n", BuiltInRole::Editor, "y", 33);
    // Not allowed: nobody needs to name it.
    w.grant("u", "n", BuiltInRole::Editor, "y", 33);
    let authority = node(&w).authority;
    let mut expected = vec![a, b];
    expected.sort();
    assert_eq!(authority.control_heads(), expected);
    assert_eq!(authority.control_heads_for(w.streams[&write]), expected);
    assert_eq!(authority.control_heads_for(w.streams[&a]), vec![b]);
    w.sync_all();
    let next = w.write("u", "x");
    assert_eq!(node(&w).authority.control_heads_for(w.streams[&next]), vec![]);
    for _ in 0..limits::CONTROL_HEADS_MAX + 3 {
        // Each in a session of its own, unaware of the others.
        w.fresh_session("a0");
        let view = w.peer("a1").view.clone();
        w.peer_mut("a0").view = view;
        w.grant("a0", "n", BuiltInRole::Editor, "x", 33);
    }
    assert_eq!(node(&w).authority.control_heads().len(), limits::CONTROL_HEADS_MAX);
}

#[test]
fn the_last_configuration_counts_but_shards_are_fixed() {
    let mut w = small();
    let config = |shards, dropped| {
        Act::Collection(Collection {
            name: "x".parse().unwrap(),
            shards,
            types: vec![],
            dropped,
            audit_reads: false,
            indexes: vec![],
            schema: None,
            expires: None,
            unique: vec![],
        })
    };
    w.act("a0", config(4, false));
    let last = w.act("a1", config(8, true));
    w.act("u", config(1, false));
    let authority = node(&w).authority;
    let found = authority.collection(&collection("x")).unwrap();
    assert_eq!((found.act, found.config.shards, found.config.dropped), (last, 4, true));
    assert_eq!(authority.collections(), vec![found]);
    assert_eq!(authority.collection(&collection("y")), None);
}

#[test]
fn a_higher_version_of_the_rules_stops_judging() {
    let mut w = small();
    assert!(node(&w).authority.rules().can_judge());
    w.act("a0", Act::Rules(Rules { version: limits::RULES_VERSION + 9 }));
    assert!(node(&w).authority.rules().can_judge(), "only the owner says so");
    w.act("o0", Act::Rules(Rules { version: limits::RULES_VERSION + 1 }));
    let rules = node(&w).authority.rules();
    assert_eq!((rules.version, rules.can_judge()), (limits::RULES_VERSION + 1, false));
}

#[test]
fn a_revocation_is_told_which_streams_to_pin() {
    let mut w = small();
    let write = w.write("u", "x");
    let user = w.peer("u").principal;
    let act = w.certify("u", "d", Some(user), 40);
    w.add_peer("d", key("d"), user, act);
    let other = w.write("d", "x");
    w.write("v", "x");
    w.enrol("a0", "s", (20, 20), Some((BuiltInRole::Admin, "*")));
    w.sync_all();
    let given = w.enrol_given("s", "w");
    let authority = node(&w).authority;
    let sorted = |ids: &[OpId]| {
        let mut streams: Vec<_> = ids.iter().map(|id| w.streams[id]).collect();
        streams.sort();
        streams
    };
    let all = RevokeTarget::Principal(user);
    assert_eq!(authority.pins_needed_for(&all, Reach::Target), sorted(&[write, act, other]));
    let device = RevokeTarget::Statement(act);
    assert_eq!(authority.pins_needed_for(&device, Reach::Target), sorted(&[other]));
    let maker = RevokeTarget::Principal(w.peer("s").principal);
    assert_eq!(authority.pins_needed_for(&maker, Reach::Target), sorted(&[w.peer("w").certificate]));
    assert_eq!(authority.pins_needed_for(&maker, Reach::Cascade), sorted(&[w.peer("w").certificate, given]));
}

#[test]
fn a_stream_closes_at_the_pin_of_its_certificate() {
    let mut w = small();
    let first = w.write("u", "x");
    w.sync_all();
    let second = w.write("u", "x");
    let stream = w.streams[&first];
    let certificate = w.peer("u").certificate;
    let closed = |w: &World| node(w).authority.closed_at(stream, certificate);
    assert_eq!(closed(&w), None);
    let revocation = w.revoke("a0", "u");
    let pin = |w: &World, id: OpId| crate::op::Pin { stream, seq: w.ops[&id].seq, head: id };
    assert_eq!(closed(&w), Some(Closed::After(pin(&w, first))));
    w.sync("a1", "a0");
    w.sync("a1", "u");
    w.readmit("a1", revocation, "u");
    assert_eq!(closed(&w), Some(Closed::After(pin(&w, second))));
    let principal = w.peer("u").principal;
    w.revoke_with("o0", RevokeTarget::Principal(principal), vec![], false);
    assert_eq!(closed(&w), Some(Closed::Whole));
    // A grant that is cut closes nothing.
    let mut w = small();
    let write = w.write("v", "x");
    let grant = w.peer("v").proof[1];
    w.revoke_with("a0", RevokeTarget::Statement(grant), vec![], false);
    assert_eq!(node(&w).authority.closed_at(w.streams[&write], w.peer("v").certificate), None);
}

#[test]
fn only_what_may_have_changed_is_judged_again() {
    let mut w = small();
    let mut writes = vec![];
    for _ in 0..50 {
        writes.push(w.write("u", "x"));
        w.write("v", "x");
    }
    w.sync_all();
    for _ in 0..5 {
        w.write("u", "x");
    }
    let mut node = Node::new(w.cluster);
    let mut ops: Vec<_> = w.ops.iter().collect();
    ops.sort_by_key(|(id, header)| (header.control().is_none(), header.hlc, **id));
    for (id, header) in ops {
        node.receive(*id, header);
    }
    node.catch_up();
    assert_eq!(node.judged, 105);
    let add = |node: &mut Node, w: &World, id: OpId| {
        node.authority.add_control(id, w.ops[&id].clone()).unwrap();
        node.authority.take_rejudge(&node.received)
    };
    // Ordinary acts: nothing.
    let grant = w.grant("a0", "u", BuiltInRole::Editor, "y", 35);
    assert_eq!(add(&mut node, &w, grant), vec![]);
    // A revocation: its subject's streams, beyond the pins.
    let revocation = w.revoke("a0", "u");
    let stream = w.streams[&writes[0]];
    assert_eq!(add(&mut node, &w, revocation), vec![Rejudge { stream, from_seq: 51 }]);
    // A fork: from where it is.
    node.authority.note_fork(stream, 17);
    assert_eq!(node.authority.take_rejudge(&node.received), vec![Rejudge { stream, from_seq: 17 }]);
    node.authority.note_fork(stream, 30);
    assert_eq!(node.authority.take_rejudge(&node.received), vec![]);
}

#[test]
fn streams_go_on_when_the_acts_they_name_arrive() {
    let mut w = small();
    let first = w.write("u", "x");
    let grant = w.grant("a0", "u", BuiltInRole::Editor, "y", 35);
    w.sync_all();
    let second = w.write("u", "x");
    let third = w.write("u", "x");
    let mut authority = Authority::new(w.cluster);
    let acts = w.ops.iter().filter(|(id, header)| header.control().is_some() && **id != grant);
    authority.add_controls(acts.map(|(id, header)| (*id, header.clone()))).unwrap();
    let note = |authority: &mut Authority, id: OpId| {
        let (at, header) = position(&w, id);
        authority.note_data(&at, header)
    };
    assert_eq!(note(&mut authority, second), Noted::Gap);
    assert_eq!(note(&mut authority, first), Noted::Grown);
    assert_eq!(note(&mut authority, first), Noted::Same);
    assert_eq!(note(&mut authority, second), Noted::Stalled);
    assert_eq!(note(&mut authority, third), Noted::Gap);
    let received = super::store::Received::default();
    assert!(authority.take_rejudge(&received).is_empty());
    assert_eq!(authority.add_control(grant, w.ops[&grant].clone()), Ok(Added::Judged));
    let stream = w.streams[&first];
    assert_eq!(authority.take_rejudge(&received), vec![Rejudge { stream, from_seq: 2 }]);
    assert_eq!(note(&mut authority, second), Noted::Grown);
    assert_eq!(note(&mut authority, third), Noted::Same);
    // After a start, the ops that said `Grown` are enough.
    let mut again = Authority::new(w.cluster);
    let acts = w.ops.iter().filter(|(_, header)| header.control().is_some());
    again.add_controls(acts.map(|(id, header)| (*id, header.clone()))).unwrap();
    again.resume_data([position(&w, first), position(&w, second)], 3);
    for id in [first, second, third] {
        let (at, header) = position(&w, id);
        assert!(again.judge(&at, header, 0, &received).is_allowed());
    }
    let (at, header) = position(&w, third);
    assert_eq!(again.note_data(&at, header), Noted::Same);
}

#[test]
fn an_op_continues_its_stream() {
    let mut w = small();
    let first = w.write("u", "x");
    let second = w.write("u", "x");
    let (first_header, header) = (w.ops[&first].clone(), (*w.ops[&second]).clone());
    assert_eq!(check_against_previous(&header, &first_header, first), Ok(()));
    let broken = |change: fn(&mut Header)| {
        let mut header = header.clone();
        change(&mut header);
        check_against_previous(&header, &first_header, first)
    };
    assert_eq!(broken(|h| h.author = key("v")), Err(ChainError::OtherStream));
    assert_eq!(broken(|h| h.certificate = OpId::ZERO), Err(ChainError::OtherStream));
    assert_eq!(broken(|h| h.seq = 3), Err(ChainError::Sequence { seq: 3, previous: 1 }));
    assert_eq!(broken(|h| h.prev = OpId::ZERO), Err(ChainError::Previous));
    assert_eq!(broken(|h| h.hlc = Hlc::ZERO), Err(ChainError::TimeWentBack));
}

#[test]
fn a_pinned_op_without_its_chain_tells_nothing_about_another_branch() {
    // The node holds a forged first op, and of the pinned chain the second op only: no fork is seen yet.
    let mut w = small();
    let first = w.write("u", "x");
    let second = w.write("u", "x");
    w.sync("a0", "u");
    let header = w.sibling(first);
    let forged = w.put(header);
    let revocation = w.revoke("a0", "u");
    let mut here = w.clone();
    here.ops.remove(&first);
    here.ops.remove(&revocation);
    let mut node = node(&here);
    assert!(node.verdict(forged).is_allowed());
    assert!(node.received.ops.contains_key(&second));
    node.authority.add_control(revocation, w.ops[&revocation].clone()).unwrap();
    let stream = w.streams[&first];
    assert_eq!(node.authority.take_rejudge(&node.received), vec![Rejudge { stream, from_seq: 1 }]);
}

#[test]
fn a_pinned_op_that_waits_for_an_act_still_lets_those_before_it_be_judged() {
    let mut w = small();
    let first = w.write("u", "x");
    let mut header = w.draft_write("u", "x");
    header.control_heads.push(OpId::new([255; 32]));
    let pinned = w.sign("u", header);
    w.sync("a0", "u");
    w.revoke("a0", "u");
    let mut here = w.clone();
    here.ops.remove(&pinned);
    let mut node = node(&here);
    assert!(!node.verdict(first).is_allowed());
    node.receive(pinned, &w.ops[&pinned]);
    node.catch_up();
    assert!(node.verdict(first).is_allowed());
    node.check().unwrap();
}

#[test]
fn what_one_may_read_is_all_or_what_begins_somehow() {
    let mut w = small();
    let (n, u) = (w.peer("n").principal, w.peer("u").principal);
    let readable = |w: &World, who, on: &str| node(w).authority.policy().readable(who, &collection(on), NOW);
    assert_eq!((readable(&w, n, "x"), readable(&w, u, "x")), (Readable::Nothing, Readable::All));
    let mine = w.act("a0", rights::revision(&[], &[Action::Read], 20));
    w.act("a0", rights::grant(n, Role::Custom(mine), target("x"), 31));
    assert_eq!(readable(&w, n, "x"), Readable::Prefixes(vec![n.own_prefix()]));
    let reader = role(BuiltInRole::Reader);
    w.act("a0", rights::grant(n, reader.clone(), rights::documents("x", "2026/"), 31));
    w.act("a0", rights::grant(n, reader.clone(), rights::documents("x", "2026/1"), 31));
    let found = readable(&w, n, "x");
    assert_eq!(found, Readable::Prefixes(vec!["2026/".to_owned(), n.own_prefix()]));
    for (doc, may) in [("2026/7", true), ("2025/7", false), (&format!("{}7", n.own_prefix()), true)] {
        let doc = doc.parse().unwrap();
        assert_eq!(found.includes(&doc), may);
        let decision = node(&w).authority.may(n, Action::Read, &collection("x"), Some(&doc), NOW);
        assert_eq!(matches!(decision, Decision::Allowed { .. }), may);
    }
    let whole = node(&w).authority.may(n, Action::Read, &collection("x"), None, NOW);
    assert_eq!(whole, Decision::Denied(Denial::NotGranted));
    w.act("a0", rights::grant(n, reader, target("x"), 31));
    assert_eq!((readable(&w, n, "x"), readable(&w, n, "y")), (Readable::All, Readable::Nothing));
}

#[test]
fn what_is_about_the_cluster_is_given_by_everything_only() {
    let mut w = small();
    let n = w.peer("n").principal;
    let may = |w: &World, action| {
        let authority = node(w).authority;
        let everywhere = matches!(authority.may_everywhere(n, action, NOW), Decision::Allowed { .. });
        let here = matches!(authority.may(n, action, &collection("x"), None, NOW), Decision::Allowed { .. });
        (everywhere, here)
    };
    w.grant("a0", "n", BuiltInRole::Operator, "x", 31);
    assert_eq!(may(&w, Action::Monitor), (false, false));
    w.grant("a0", "n", BuiltInRole::Operator, "*", 31);
    assert_eq!(may(&w, Action::Monitor), (true, true));
    assert_eq!(may(&w, Action::Read), (false, false));
}

#[test]
fn who_may_write_for_whom_and_what_a_removal_pins() {
    let rights::Served { mut w, ann, duty } = rights::served();
    let (g, h, u) = (w.peer("g").principal, w.peer("h").principal, w.peer("u").principal);
    let may = |w: &World, by, whom, on: &str| {
        let doc = "d".parse().unwrap();
        match node(w).authority.may_act_for(by, whom, &collection(on), &doc, NOW) {
            Decision::Allowed { grant } => Ok(grant),
            Decision::Denied(denial) => Err(denial),
        }
    };
    assert_eq!(may(&w, g, ann, "y"), Ok(duty));
    assert_eq!((may(&w, h, ann, "y"), may(&w, u, ann, "y")), (Err(Denial::NoDuty), Err(Denial::NoDuty)));
    assert_eq!(may(&w, g, u, "y"), Err(Denial::NotAttested));
    let group: PrincipalId = w.act("a0", rights::introduce(PrincipalKind::Group, 30)).into();
    let clerk = w.act("a0", rights::revision(&[Action::Create], &[], 20));
    let joined = w.act("a0", rights::join(ann, group, 31));
    w.act("a0", rights::grant(group, Role::Custom(clerk), target("x"), 31));
    w.sync_all();
    let own = w.write("g", "x");
    let theirs = rights::write(&mut w, "g", ann, "y", "d");
    w.write("h", "x");
    let needed = |w: &World, target| node(w).authority.pins_needed_for(&target, Reach::Target);
    let streams = |ids: &[OpId]| ids.iter().map(|id| w.streams[id]).collect::<Vec<_>>();
    for cut in [RevokeTarget::Principal(ann), RevokeTarget::Principal(group)] {
        assert_eq!(needed(&w, cut), streams(&[theirs]));
    }
    for cut in [clerk, joined, ann.introduced_by()] {
        assert_eq!(needed(&w, RevokeTarget::Statement(cut)), streams(&[theirs]));
    }
    let mut both = streams(&[own, theirs]);
    both.sort();
    assert_eq!(needed(&w, RevokeTarget::Statement(duty)), both);
    let revocation = w.revoke_with("a0", RevokeTarget::Statement(duty), vec![], false);
    assert_eq!(may(&w, g, ann, "x"), Err(Denial::Revoked { by: revocation }));
    let authority = node(&w).authority;
    let denied: Vec<OpId> =
        authority.statements(NOW).filter(|made| made.denial.is_some()).map(|made| made.id).collect();
    assert_eq!(denied, [duty]);
    assert_eq!(authority.statement(joined, NOW).map(|made| made.to), Some(ann));
    assert_eq!(authority.statement(revocation, NOW), None);
}

#[test]
fn a_proof_is_found_through_groups_and_roles() {
    let mut w = small();
    w.enrol("o0", "b", (10, 10), None);
    let (b, n) = (w.peer("b").principal, w.peer("n").principal);
    let all: Vec<Action> = crate::op::Actions::ALL.iter().collect();
    let chief = w.act("o0", rights::revision(&all, &[], 12));
    let group: PrincipalId = w.act("o0", rights::introduce(PrincipalKind::Group, 10)).into();
    let joined = w.act("o0", rights::join(b, group, 15));
    let given = w.act("o0", rights::grant(group, Role::Custom(chief), target("*"), 11));
    w.sync_all();
    let (key, certificate) = (w.peer("b").key, w.peer("b").certificate);
    let act = |rank| rights::grant(n, role(BuiltInRole::Reader), target("x"), rank);
    let mut proof = vec![certificate, joined, given, chief];
    proof.sort();
    let authority = node(&w).authority;
    assert_eq!(authority.proof_for(key, certificate, &act(20), NOW), Some(proof));
    assert_eq!(authority.proof_for(key, certificate, &act(15), NOW), None, "no stronger than the membership");
}

#[test]
fn a_removal_judges_again_what_lies_beyond_its_pins_where_others_wrote_for_whom_it_removes() {
    let rights::Served { mut w, ann, .. } = rights::served();
    let seen = rights::write(&mut w, "g", ann, "x", "d");
    for _ in 0..5 {
        w.write("h", "x");
        w.write("u", "x");
    }
    w.write("g", "x");
    rights::write(&mut w, "g", ann, "x", "e");
    w.sync_all();
    let (head, at) = (w.pins_of_principal("a0", ann), pin(&w, seen));
    for (pins, expected) in [(head, 0), (vec![at], 2)] {
        let mut w = w.clone();
        let mut node = node(&w);
        let before = node.judged;
        let revocation = w.revoke_with("a0", RevokeTarget::Principal(ann), pins, false);
        node.receive(revocation, &w.ops[&revocation]);
        node.catch_up();
        assert_eq!(node.judged - before, expected);
        node.check().unwrap();
        let certificate = w.peer("g").certificate;
        assert_eq!(node.authority.closed_at(w.streams[&seen], certificate), None, "the node's stream goes on");
    }
}
