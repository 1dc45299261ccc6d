//! What is refused of a change of owners at the door.

use super::*;
use crate::hlc::Hlc;
use crate::id::{AuthorKey, SessionId, ShardId};
use crate::keys::SecretKey;
use crate::op::succession::Place;

fn key(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

fn cluster() -> ClusterId {
    ClusterId::new([0xcc; 32])
}

fn hashes(keys: &[u8]) -> Vec<[u8; 32]> {
    let mut hashes: Vec<_> = keys.iter().map(|n| recovery_hash(&key(*n).author())).collect();
    hashes.sort_unstable();
    hashes
}

fn sorted(keys: &[u8]) -> Vec<AuthorKey> {
    let mut keys: Vec<_> = keys.iter().map(|n| key(*n).author()).collect();
    keys.sort();
    keys
}

/// Owners 1 and 2; recovery keys 11 to 13 sign, 21 and 22 are the next.
fn succeed() -> Succeed {
    Succeed {
        after: OpId::new([7; 32]),
        principal: cluster().genesis().into(),
        owners: sorted(&[1, 2]),
        threshold: 2,
        recovery: hashes(&[21, 22]),
        recovery_threshold: 1,
        pins: vec![Pin { stream: StreamId::new([5; 32]), seq: 9, head: OpId::new([6; 32]) }],
        signatures: Vec::new(),
    }
}

fn place() -> Place {
    Place {
        cluster: cluster(),
        session: SessionId::new([3; 8]),
        hlc: Hlc::new(1_000, 0),
        control_heads: vec![OpId::new([7; 32])],
    }
}

fn signers() -> [SecretKey; 3] {
    [key(12), key(11), key(13)]
}

fn refused(succeed: Succeed) -> &'static str {
    match succeed.sign(place(), &signers()) {
        Err(OpError::Invalid(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

/// The act of a sound op, whose header has been edited and is signed again by its author, but not by the others.
fn edited(edit: impl FnOnce(&mut Header, &mut Succeed)) -> Result<Op, OpError> {
    let op = succeed().sign(place(), &signers()).unwrap();
    let mut header = op.header().clone();
    let mut control = header.control().unwrap().clone();
    let Act::Succeed(act) = &mut control.act else { unreachable!() };
    let mut act = act.clone();
    edit(&mut header, &mut act);
    control.act = Act::Succeed(act);
    let proof = header.control().unwrap().proof.clone();
    header.payload = Payload::from(Control { proof, ..control });
    Op::sign(header, Vec::new(), &key(12))
}

fn why(result: Result<Op, OpError>) -> &'static str {
    match result {
        Err(OpError::Invalid(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sound_change_goes_there_and_back() {
    let op = succeed().sign(place(), &signers()).unwrap();
    assert_eq!(Op::decode(&op.encode(), cluster()).unwrap(), op);
    assert!(op.is_signed_by(&PublicKey::new(&key(12).author()).unwrap()));
    let Act::Succeed(act) = &op.header().control().unwrap().act else { panic!() };
    assert_eq!(act.signatures.iter().map(|by| by.key).collect::<Vec<_>>(), sorted(&[11, 13]));
    assert!(edited(|_, _| {}).is_ok());
    assert_eq!(why(succeed().sign(place(), &[])), "no recovery key");
    let json = serde_json::to_string(op.header()).unwrap();
    assert_eq!(serde_json::from_str::<Header>(&json).unwrap(), *op.header());
}

#[test]
fn what_the_recovery_keys_have_not_signed_is_refused() {
    // Whoever signs the op changes what the others have agreed to.
    let bad = "bad recovery signature";
    assert_eq!(why(edited(|_, act| act.owners = sorted(&[1, 3]))), bad);
    assert_eq!(why(edited(|_, act| act.threshold = 1)), bad);
    assert_eq!(why(edited(|_, act| act.recovery = hashes(&[31]))), bad);
    assert_eq!(why(edited(|_, act| act.pins.clear())), bad);
    assert_eq!(why(edited(|_, act| act.signatures[0].signature = Signature::new([1; 64]))), bad);
    let stolen = |_: &mut Header, act: &mut Succeed| {
        let other = act.signatures[1].signature;
        act.signatures[0].signature = other;
    };
    assert_eq!(why(edited(stolen)), bad);
    // Taken to another cluster.
    let other = ClusterId::new([0xdd; 32]);
    let moved = |header: &mut Header, act: &mut Succeed| {
        header.cluster = other;
        act.principal = other.genesis().into();
    };
    assert_eq!(why(edited(moved)), bad);
    let moved = |header: &mut Header, act: &mut Succeed| {
        header.certificate = OpId::new([8; 32]);
        act.after = OpId::new([8; 32]);
        let control = Control { proof: vec![act.after], act: Act::Rules(Rules { version: 1 }), for_whom: None };
        header.payload = Payload::from(control);
    };
    assert_eq!(why(edited(moved)), bad);
}

#[test]
fn changes_out_of_bounds() {
    let number = "number of owner or recovery keys out of bounds";
    assert_eq!(refused(Succeed { owners: Vec::new(), ..succeed() }), number);
    let many: Vec<u8> = (30..=30 + limits::OWNERS_MAX as u8).collect();
    assert_eq!(refused(Succeed { owners: sorted(&many), ..succeed() }), number);
    assert_eq!(refused(Succeed { recovery: hashes(&many), ..succeed() }), number);
    let reversed = sorted(&[1, 2]).into_iter().rev().collect();
    assert_eq!(refused(Succeed { owners: reversed, ..succeed() }), "owner keys out of order");
    let reversed = hashes(&[21, 22]).into_iter().rev().collect();
    assert_eq!(refused(Succeed { recovery: reversed, ..succeed() }), "recovery hashes out of order");
    let threshold = "threshold out of bounds";
    assert_eq!(refused(Succeed { threshold: 0, ..succeed() }), threshold);
    assert_eq!(refused(Succeed { threshold: 3, ..succeed() }), threshold);
    assert_eq!(refused(Succeed { recovery_threshold: 3, ..succeed() }), threshold);
    assert_eq!(refused(Succeed { recovery: Vec::new(), ..succeed() }), threshold);
    let last = Succeed { recovery: Vec::new(), recovery_threshold: 0, ..succeed() };
    assert!(last.sign(place(), &signers()).is_ok(), "one after which there is no other");
    let pin = succeed().pins[0];
    assert_eq!(refused(Succeed { pins: vec![pin, pin], ..succeed() }), "pins out of order");
    let principal = PrincipalId::new([1; 32]);
    assert_eq!(refused(Succeed { principal, ..succeed() }), "change of owners for another principal");
    assert_eq!(why(edited(|_, act| act.signatures.reverse())), "recovery signatures out of order");
    let crowd: Vec<SecretKey> = (40..=40 + limits::OWNERS_MAX as u8).map(key).collect();
    assert_eq!(why(succeed().sign(place(), &crowd)), "too many recovery signatures");
}

#[test]
fn a_key_is_used_once_and_for_one_purpose() {
    assert_eq!(refused(Succeed { recovery: hashes(&[1, 21]), ..succeed() }), "owner key is a recovery key too");
    let again = "recovery key that has been shown is used again";
    for used in [11, 12, 13] {
        assert_eq!(refused(Succeed { recovery: hashes(&[used, 21]), ..succeed() }), again);
        assert_eq!(refused(Succeed { owners: sorted(&[used, 2]), ..succeed() }), again);
    }
    let mut twice = succeed();
    twice.countersign(cluster(), &key(12));
    assert_eq!(refused(twice), "recovery key signs twice");
}

#[test]
fn a_change_stands_under_what_it_comes_after() {
    let under = "change of owners not under what it comes after";
    assert_eq!(why(edited(|_, act| act.after = OpId::new([8; 32]))), under);
    assert_eq!(
        why(edited(|header, act| {
            let control = Control {
                proof: vec![act.after, OpId::new([9; 32])],
                act: Act::Rules(Rules { version: 1 }),
                for_whom: None,
            };
            header.payload = Payload::from(control);
        })),
        under
    );
    let outside = |header: &mut Header, _: &mut Succeed| {
        header.shard = ShardId { collection: "c".parse().unwrap(), index: 0, of: 1 }
    };
    assert_eq!(why(edited(outside)), "control act outside the control shard");
}
