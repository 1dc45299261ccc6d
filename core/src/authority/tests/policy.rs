//! The policy says what the engine says, and which tokens count.

use super::histories::build;
use super::scenarios::small;
use super::store::Node;
use super::world::{Random, World, collection};
use crate::authority::{Action, Actions, Authority, Decision, Readable, TokenLimits};
use crate::hlc::Hlc;
use crate::id::{DocId, OpId, PrincipalId, TokenVerifier};
use crate::op::{Act, FieldPath, Principal, PrincipalKind, Rank, RevokeTarget, Secret, Target, Token};

const NOW: Hlc = Hlc::new(1_000_000, 0);

fn authority(world: &World) -> Authority {
    Node::with(world.cluster, &world.ops).authority
}

fn doc(text: &str) -> DocId {
    text.parse().unwrap()
}

/// Names whatever somebody may hold something by.
fn principals(authority: &Authority) -> Vec<PrincipalId> {
    authority.statements(NOW).map(|statement| statement.to).collect()
}

#[test]
fn the_policy_agrees_with_the_engine_in_random_histories() {
    let (mut allowed, mut partly) = (0_u32, 0_u32);
    let field = "/a/b".parse::<FieldPath>().unwrap();
    for seed in 0..400 {
        let mut random = Random::new(seed);
        let steps = 10 + random.below(30);
        let world = build(&mut random, steps);
        let authority = authority(&world);
        let policy = authority.policy();
        for principal in principals(&authority) {
            let own = doc(&format!("{}1", principal.own_prefix()));
            for now in [Hlc::new(1, 0), Hlc::new(600, 0), NOW] {
                // Whoever was removed has no entry: nothing was left to it anyway.
                let is_there = policy.name(principal).is_some();
                for name in ["x", "y", "xa"].map(collection) {
                    let readable = policy.readable(principal, &name, now);
                    for place in [None, Some(&own), Some(&doc("p1")), Some(&doc("q"))] {
                        for action in Action::ALL {
                            let told = authority.may(principal, action, &name, place, now);
                            let may = matches!(told, Decision::Allowed { .. });
                            let says = policy.may(principal, action, &name, place, now);
                            assert!(
                                says == may || (!is_there && !says),
                                "seed {seed}: {action} of {place:?} in {name}: {told:?}"
                            );
                            allowed += u32::from(says);
                            // What is to be had of it in part.
                            let fields = policy.fields(principal, action, &name, place, now);
                            assert_eq!(fields.are_all(), says, "seed {seed}: {fields:?}");
                            if action == Action::Read {
                                let seen = place.map_or(readable == Readable::All, |doc| readable.includes(doc));
                                assert_eq!(seen, !fields.are_none(), "seed {seed}: {readable:?}");
                            }
                            assert!(fields.are_none() || policy.may_somewhere(principal, action, &name, now));
                            if action == Action::Update && is_there {
                                assert_eq!(
                                    fields,
                                    authority.fields(principal, action, &name, place, now),
                                    "seed {seed}"
                                );
                                let told = authority.may_field(principal, action, &name, place, &field, now);
                                let includes = fields.include(field.steps());
                                assert_eq!(includes, matches!(told, Decision::Allowed { .. }), "seed {seed}: {told:?}");
                                partly += u32::from(includes && !says);
                            }
                        }
                    }
                }
                for action in Action::ALL {
                    let may = matches!(authority.may_everywhere(principal, action, now), Decision::Allowed { .. });
                    let says = policy.may_everywhere(principal, action, now);
                    assert!(says == may || (!is_there && !says), "seed {seed}: {action} everywhere");
                }
            }
        }
    }
    assert!(allowed > 10_000 && partly > 50, "{allowed}, {partly} in part");
}

fn token(principal: PrincipalId, n: u8, not_after: Option<Hlc>) -> Act {
    Act::Token(Token {
        principal,
        verifier: TokenVerifier::new([n; 32]),
        name: "t".to_owned(),
        actions: Actions::ALL,
        target: Target::everything(),
        rank: Rank(40),
        not_after,
        secret: Secret::Random,
    })
}

fn counts(world: &World, act: OpId) -> bool {
    authority(world).control_verdict(act).is_some_and(|verdict| verdict.is_allowed())
}

#[test]
fn tokens_are_made_by_their_principal_and_admins_of_everything_only() {
    let mut w = small();
    let (user, admin) = (w.peer("u").principal, w.peer("a0").principal);
    let own = w.act("u", token(user, 1, None));
    let by_admin = w.act("a0", token(user, 2, None));
    let by_owner = w.act("o0", token(user, 3, None));
    w.sync_all();
    let foreign = w.act("u", token(admin, 4, None));
    let group = Principal { name: "g".to_owned(), kind: PrincipalKind::Group, attest: false, rank: Rank(30) };
    let group = w.act("a0", Act::Principal(group));
    w.sync_all();
    let of_group = w.act("a0", token(PrincipalId::from(group), 5, None));
    let unknown = w.act("a0", token(PrincipalId::new([9; 32]), 6, None));
    for (act, may) in
        [(own, true), (by_admin, true), (by_owner, true), (foreign, false), (of_group, false), (unknown, false)]
    {
        assert_eq!(counts(&w, act), may, "{act}");
    }
    let policy = authority(&w).policy();
    let known = |n: u8| policy.token(&TokenVerifier::new([n; 32]), NOW).map(|token| token.principal);
    assert_eq!([1, 2, 3, 4, 5, 6].map(known), [Some(user), Some(user), Some(user), None, None, None]);
}

#[test]
fn tokens_end_with_their_time_their_revocation_and_their_principal() {
    let mut w = small();
    let user = w.peer("u").principal;
    w.act("a0", token(user, 1, Some(Hlc::new(900, 0))));
    let second = w.act("a0", token(user, 2, None));
    w.act("a0", token(user, 3, None));
    let known = |w: &World, n: u8, now| authority(w).policy().token(&TokenVerifier::new([n; 32]), now).is_some();
    assert!(known(&w, 1, Hlc::new(900, 0)) && !known(&w, 1, Hlc::new(900, 1)));
    assert!(known(&w, 2, NOW) && known(&w, 3, NOW));
    w.revoke_with("a0", RevokeTarget::Statement(second), Vec::new(), false);
    assert!(!known(&w, 2, NOW) && known(&w, 3, NOW));
    w.revoke_with("a0", RevokeTarget::Principal(user), Vec::new(), false);
    assert!(!known(&w, 3, NOW));
    assert_eq!(authority(&w).policy().name(user), None);
    assert!(authority(&w).policy().named("u", NOW).next().is_none());
}

#[test]
fn of_tokens_with_one_verifier_the_smallest_statement_counts_that_lasts() {
    let mut w = small();
    let (user, other) = (w.peer("u").principal, w.peer("a0").principal);
    let mut made: Vec<(OpId, PrincipalId)> = Vec::new();
    for (n, principal) in [(1, user), (1, other), (1, user), (2, other)] {
        made.push((w.act("a0", token(principal, n, None)), principal));
    }
    let ended = w.act("a0", token(user, 2, Some(Hlc::new(900, 0))));
    let last = made.pop().unwrap();
    let counts = |w: &World, n: u8, now| {
        let policy = authority(w).policy();
        policy.token(&TokenVerifier::new([n; 32]), now).map(|token| (token.statement, token.principal))
    };
    made.sort();
    while let Some(smallest) = made.first().copied() {
        assert_eq!(counts(&w, 1, NOW), Some(smallest));
        w.revoke_with("a0", RevokeTarget::Statement(smallest.0), Vec::new(), false);
        made.remove(0);
    }
    assert_eq!(counts(&w, 1, NOW), None);
    // What has ended does not stand before what has not.
    assert_eq!(counts(&w, 2, Hlc::new(900, 0)), Some(last.min((ended, user))));
    assert_eq!(counts(&w, 2, NOW), Some(last));
}

#[test]
fn limits_of_a_token_narrow_what_is_readable() {
    let limits = |actions: Actions, on: &str, prefix: Option<&str>| {
        let mut target = Target::collections(on);
        if let Some(prefix) = prefix {
            target.documents = crate::op::Documents::Prefix(prefix.to_owned());
        }
        TokenLimits { actions, target }
    };
    let x = collection("x");
    let some = || Readable::Prefixes(vec!["ab".to_owned(), "c".to_owned()]);
    let prefixes = |list: &[&str]| Readable::Prefixes(list.iter().map(|text| (*text).to_owned()).collect());
    let all = TokenLimits::none();
    assert_eq!(all.narrow(some(), &x), some());
    assert_eq!(limits(Action::Update.into(), "*", None).narrow(Readable::All, &x), Readable::Nothing);
    assert_eq!(limits(Actions::ALL, "y", None).narrow(Readable::All, &x), Readable::Nothing);
    let part = limits(Actions::ALL, "x", Some("a"));
    assert_eq!(part.narrow(Readable::All, &x), prefixes(&["a"]));
    assert_eq!(part.narrow(some(), &x), prefixes(&["ab"]));
    assert_eq!(limits(Actions::ALL, "x", Some("abc")).narrow(some(), &x), prefixes(&["abc"]));
    assert_eq!(limits(Actions::ALL, "x", Some("z")).narrow(some(), &x), Readable::Nothing);
    assert!(part.allow(Action::Read, &x, Some(&doc("a1"))) && !part.allow(Action::Read, &x, None));
    assert!(!part.allow_everywhere(Action::Read) && all.allow_everywhere(Action::Read));
}
