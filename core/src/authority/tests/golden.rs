//! Golden vectors: sets of ops with the verdicts that every version must give. The files are never edited; a rule that
//! judges them otherwise is another version of the rules.
//!
//! `FOLKMOOT_WRITE_VECTORS=1` writes those that do not exist yet.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::attack::attack;
use super::histories::build;
use super::scenarios::small;
use super::store::Node;
use super::world::{Random, World, id_of};
use super::{erasure, evidence, fields, peppers, rights, succession};
use crate::authority::Verdict;
use crate::authority::reference::judge_all;
use crate::id::{ClusterId, OpId};
use crate::op::{BuiltInRole, Header};

#[derive(Serialize, Deserialize)]
struct Vector {
    about: String,
    cluster: ClusterId,
    ops: Vec<Entry>,
    /// The documents that are erased.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    erased: BTreeSet<String>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    id: OpId,
    /// One for an act, one for each transaction of a data op.
    verdicts: Vec<String>,
    header: Header,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/verdicts")
}

fn text(verdict: &Verdict) -> String {
    match verdict {
        Verdict::AfterRevocation { by } => format!("after_revocation {by}"),
        Verdict::Forked { stream, at } => format!("forked {stream} {at}"),
        Verdict::Allowed | Verdict::Deferred(_) | Verdict::Refused | Verdict::NotAllowed => verdict.kind().to_owned(),
    }
}

fn verdicts_of(world: &World) -> BTreeMap<OpId, Vec<String>> {
    let all = judge_all(world.cluster, &world.ops);
    let mut found: BTreeMap<OpId, Vec<String>> = BTreeMap::new();
    for (id, verdict) in &all.control {
        found.entry(*id).or_default().push(text(verdict));
    }
    for ((id, _), verdict) in &all.data {
        found.entry(*id).or_default().push(text(verdict));
    }
    found
}

fn erased_in(world: &World) -> BTreeSet<String> {
    let erased = judge_all(world.cluster, &world.ops).erased;
    erased.into_iter().map(|(collection, doc)| format!("{collection}/{doc}")).collect()
}

fn worlds() -> Vec<(&'static str, &'static str, World)> {
    let mut revocation = small();
    revocation.write("u", "x");
    revocation.sync_all();
    revocation.write("u", "x");
    let revoke = revocation.revoke("a0", "u");
    revocation.sync("a1", "u");
    revocation.sync("a1", "a0");
    revocation.readmit("a1", revoke, "u");
    revocation.write("u", "x");

    let mut fork = small();
    fork.write("u", "x");
    let one = fork.write("u", "x");
    let other = fork.sibling(one);
    fork.put(other);
    let undecided = fork.write("v", "x");
    let other = fork.sibling(undecided);
    fork.put(other);
    fork.sync("a0", "u");
    fork.revoke("a0", "u");

    let mut consent = World::new(&["o0", "o1", "o2"], 2);
    consent.enrol("o0", "a", (10, 10), Some((BuiltInRole::Admin, "x*")));
    consent.sync_all();
    let certificate = consent.peer("a").certificate;
    consent.approve("o1", certificate);
    consent.sync_all();
    consent.write("a", "x");

    let mut random = Random::new(2026);
    let hostile = build(&mut random, 40);
    let hostile = attack(&mut random, &hostile, "u0", 10);
    // One in which rights are shared, and that says a bit of everything.
    let speaks = |seed: &u64| {
        let world = build(&mut Random::new(*seed), 80);
        let verdicts = verdicts_of(&world);
        let count = |kind: &str| verdicts.values().flatten().filter(|verdict| verdict.starts_with(kind)).count();
        !world.served.is_empty() && count("allowed") > 50 && count("after_revocation") > 5 && count("forked") > 0
    };
    let mut random = Random::new((0..).find(speaks).unwrap());
    let shared = build(&mut random, 80);
    let shared = attack(&mut random, &shared, "s0", 15);
    vec![
        (
            "revocation",
            "what the revoker had seen stands, a readmission brings one more back, the last stays out",
            revocation,
        ),
        ("fork", "one fork is decided by a pin, the other by nothing", fork),
        ("consent", "one owner's act has the consent of a second one, another lacks it", consent),
        ("hostile", "a random history with an attack by a user", hostile),
        (
            "rights",
            "a node writes for others within its duty and their rights, given directly, by a role of the cluster's own, on own \
             documents and through a group; the principal is removed with a pin",
            rights::exercised(),
        ),
        (
            "fields",
            "somebody edits some fields only, by two grants; what is declared lies within them, beside them or above them, or \
             nothing is declared",
            fields::exercised(),
        ),
        (
            "erasure",
            "two documents are erased and a member tells of it; a third one by who may not, a fourth by who was removed",
            erasure::exercised(),
        ),
        (
            "peppers",
            "two nodes that act for others share peppers, one of them is removed and goes on; so does one that does not act",
            peppers::exercised(),
        ),
        (
            "evidence",
            "witnesses keep the branch of a user's stream that two of them saw, and of an admin's; one lies, one is cut, one is asked for \
             a chain that is not here",
            evidence::exercised(),
        ),
        (
            "succession",
            "the recovery keys make other owners; a thief goes on with the old key, a second change comes too late, the new owners act \
             by two",
            succession::exercised(),
        ),
        ("shared", "a random history with roles, groups and duties, and an attack by who has some", shared),
    ]
}

#[test]
fn vectors_are_judged_as_they_always_were() {
    if std::env::var_os("FOLKMOOT_WRITE_VECTORS").is_some() {
        write_missing();
    }
    let mut count = 0;
    for file in std::fs::read_dir(folder()).unwrap() {
        let path = file.unwrap().path();
        let vector: Vector = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let mut world = World::new(&["nobody"], 1);
        world.cluster = vector.cluster;
        world.ops.clear();
        for entry in &vector.ops {
            assert_eq!(id_of(&entry.header), entry.id, "{path:?}: encoding of {}", entry.id);
            world.ops.insert(entry.id, Arc::new(entry.header.clone()));
        }
        let found = verdicts_of(&world);
        for entry in &vector.ops {
            assert_eq!(found[&entry.id], entry.verdicts, "{path:?}: {}", entry.id);
        }
        assert_eq!(erased_in(&world), vector.erased, "{path:?}");
        Node::with(world.cluster, &world.ops).check().unwrap();
        count += 1;
    }
    assert!(count >= 10, "{count} vectors");
}

fn write_missing() {
    std::fs::create_dir_all(folder()).unwrap();
    for (name, about, world) in worlds() {
        let path = folder().join(format!("{name}.json"));
        if path.exists() {
            continue;
        }
        let verdicts = verdicts_of(&world);
        let mut ops: Vec<Entry> = world
            .ops
            .iter()
            .map(|(id, header)| Entry { id: *id, verdicts: verdicts[id].clone(), header: (**header).clone() })
            .collect();
        ops.sort_by_key(|entry| (entry.header.hlc, entry.id));
        let erased = erased_in(&world);
        let vector = Vector { about: about.to_owned(), cluster: world.cluster, ops, erased };
        std::fs::write(path, serde_json::to_string_pretty(&vector).unwrap() + "\n").unwrap();
    }
}
