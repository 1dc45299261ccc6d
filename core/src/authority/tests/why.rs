//! What explanations say, and that they say the same as the verdicts.

use super::histories::{build, histories};
use super::rights::{Served, grant, served, write};
use super::store::Node;
use super::world::{Random, World, role, target};
use crate::authority::{Part, Position, Stance, Verdict, Why};
use crate::id::{OpId, PrincipalId};
use crate::op::{BuiltInRole, PrincipalKind};

fn why(world: &World, id: OpId) -> Why {
    let node = Node::with(world.cluster, &world.ops);
    let header = &world.ops[&id];
    let at = Position { stream: world.streams[&id], seq: header.seq, op: id };
    node.authority.why_act(id).unwrap_or_else(|| node.authority.why(&at, header, 0, &node.received))
}

fn stance(why: &Why, part: Part) -> Option<(OpId, Stance)> {
    why.grounds.iter().find(|ground| ground.part == part).map(|ground| (ground.statement, ground.stance))
}

#[test]
fn names_the_statements_and_the_revocation() {
    let Served { mut w, ann, duty } = served();
    let op = write(&mut w, "g", ann, "x", "d");
    let told = why(&w, op);
    assert_eq!((told.verdict, told.signer), (Verdict::Allowed, Some(w.peer("g").principal)));
    assert_eq!(stance(&told, Part::Certificate), Some((w.peer("g").certificate, Stance::Counts)));
    assert_eq!(stance(&told, Part::Introduction), Some((ann.introduced_by(), Stance::Counts)));
    assert_eq!(stance(&told, Part::Duty), Some((duty, Stance::Counts)));
    let (given, counts) = stance(&told, Part::Grant).unwrap();
    assert_eq!(counts, Stance::Counts);

    // The grant is cut: what the revoker knew stands by its pins, the rest does not.
    w.sync_all();
    let pins = w.pins_of_principal("a0", ann);
    let by = w.revoke_with("a0", crate::op::RevokeTarget::Statement(given), pins, false);
    let late = write(&mut w, "g", ann, "x", "e");
    let told = why(&w, op);
    assert_eq!(told.verdict, Verdict::Allowed);
    assert_eq!(stance(&told, Part::Grant), Some((given, Stance::Pinned { by })));
    let told = why(&w, late);
    assert_eq!(told.verdict, Verdict::AfterRevocation { by });
    assert_eq!(stance(&told, Part::Grant), Some((given, Stance::Void(Verdict::AfterRevocation { by }))));
    let told = why(&w, by);
    assert_eq!(told.verdict, Verdict::Allowed);
    assert!(told.grounds.iter().all(|ground| ground.stance == Stance::Counts), "{told:?}");
    assert_eq!(told.signer, Some(w.peer("a0").principal));
}

#[test]
fn names_what_the_author_had_not_seen() {
    let Served { mut w, .. } = served();
    let bob: PrincipalId = w.act("a0", super::rights::introduce(PrincipalKind::User, 30)).into();
    w.sync_all();
    let given = w.act("a0", grant(bob, role(BuiltInRole::Editor), target("x"), 31));
    let op = write(&mut w, "g", bob, "x", "d");
    let told = why(&w, op);
    assert_eq!(told.verdict, Verdict::NotAllowed);
    assert_eq!(stance(&told, Part::Grant), Some((given, Stance::NotKnown)));
    assert!(stance(&told, Part::Duty).is_some_and(|(_, stance)| stance.counts()));
}

/// In random hostile histories: what counts rests on a certificate and a grant that do, and whatever is cut names a statement that
/// is cut by the same revocation.
#[test]
fn explanations_agree_with_verdicts() {
    let mut cut = 0;
    for seed in histories(150) {
        let world = build(&mut Random::new(seed), 60);
        let node = Node::with(world.cluster, &world.ops);
        for ((id, transaction), verdict) in &node.verdicts {
            let header = &world.ops[id];
            let at = Position { stream: world.streams[id], seq: header.seq, op: *id };
            let told = node.authority.why(&at, header, *transaction, &node.received);
            assert_eq!(told.verdict, *verdict);
            let counts = |part| told.grounds.iter().any(|ground| ground.part == part && ground.stance.counts());
            match *verdict {
                Verdict::Allowed => assert!(counts(Part::Certificate) && counts(Part::Grant), "{seed}: {told:?}"),
                Verdict::AfterRevocation { .. } => {
                    cut += 1;
                    let void = |ground: &crate::authority::Ground| ground.stance == Stance::Void(*verdict);
                    assert!(told.grounds.iter().any(void), "{seed}: {told:?}");
                }
                Verdict::NotAllowed | Verdict::Forked { .. } | Verdict::Deferred(_) | Verdict::Refused => {}
            }
        }
    }
    assert!(cut > 100, "{cut}");
}
