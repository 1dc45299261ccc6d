//! The audit finds what is wrong in a store, and nothing in a sound one.

use super::super::audit::{FIRST_AFTER_MS, INTERVAL_MS, STEP_ENTRIES};
use super::super::records::HeadRecord;
use super::*;
use crate::store::keys::{Key as _, OpKey};
use crate::store::{Batch, Keyspace, Span, envelope};

/// A replica with more documents than one step reads.
fn lab() -> Lab {
    let mut lab = Lab::new(&[]);
    for number in 0..STEP_ENTRIES + 20 {
        lab.write(0, &format!("d{number}"), put(r#"{"a":1}"#));
    }
    assert_eq!(lab.nodes[0].alarms, [""; 0]);
    lab
}

/// Ticks until a whole pass is through; returns the alarms.
fn pass(lab: &mut Lab) -> Vec<String> {
    lab.now.monotonic_ms += FIRST_AFTER_MS;
    for _ in 0..10 {
        assert_eq!(lab.nodes[0].replica.counters().audits, 0);
        lab.run(1);
        if lab.nodes[0].replica.counters().audits == 1 {
            return std::mem::take(&mut lab.nodes[0].alarms);
        }
    }
    panic!("the pass does not end");
}

fn first(store: &MemoryStore, keyspace: Keyspace) -> (Bytes, Bytes) {
    store.first(keyspace, &Span::all()).unwrap().unwrap()
}

#[test]
fn a_sound_store_passes_in_steps() {
    let mut lab = lab();
    let alarms = pass(&mut lab);
    assert!(alarms.is_empty(), "{alarms:?}");
    let ended = lab.now.monotonic_ms;
    lab.now.monotonic_ms = ended + INTERVAL_MS - 1_000;
    lab.run(1);
    assert!(!lab.nodes[0].replica.audit.is_running(), "the next one is a day later");
    lab.now.monotonic_ms = ended + INTERVAL_MS;
    lab.run(1);
    assert!(lab.nodes[0].replica.audit.is_running());
}

#[test]
fn a_lost_view_a_false_head_and_a_lost_op_are_told() {
    type Break = fn(&MemoryStore, &mut Batch);
    let breaks: [(Break, &str); 4] = [
        (|store, batch| batch.delete(Keyspace::Views, first(store, Keyspace::Views).0.to_vec()), "shard"),
        (
            |store, batch| {
                let (key, value) = first(store, Keyspace::Heads);
                let mut head = HeadRecord::decode(&envelope::open(value).unwrap()).unwrap();
                head.seq -= 1;
                batch.put(Keyspace::Heads, key.to_vec(), envelope::enclose(&head.encode()));
            },
            "head of the stream",
        ),
        (
            |store, batch| {
                let (_, value) = first(store, Keyspace::Heads);
                let head = HeadRecord::decode(&envelope::open(value).unwrap()).unwrap();
                let key = OpKey::new(head.key.id(), head.seq);
                batch.delete(Keyspace::Ops, key.encode());
            },
            "head of the stream",
        ),
        (
            |store, batch| {
                let (key, _) = first(store, Keyspace::Views);
                batch.put(Keyspace::Views, key.to_vec(), envelope::enclose(&[1, 2, 3]));
            },
            "view of",
        ),
    ];
    for (damage, told) in breaks {
        let mut lab = lab();
        let store = &lab.nodes[0].store;
        let mut batch = Batch::default();
        damage(store, &mut batch);
        store.commit(&batch, Durability::Synced).unwrap();
        let alarms = pass(&mut lab);
        assert!(alarms.iter().any(|alarm| alarm.starts_with(&format!("damage: {told}"))), "{alarms:?}");
        assert!(lab.nodes[0].replica.counters().damage_found >= 1);
    }
}
