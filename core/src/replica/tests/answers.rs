//! Answers that were given under idempotency keys do not stay for ever.

use super::super::answers::{ANSWER_KEPT_MS, STEP_ENTRIES};
use super::super::records::RequestRecord;
use super::*;
use crate::store::{Keyspace, Order, Span, envelope};

impl Lab {
    /// Lets so much time pass, and does all that is due then.
    fn wait(&mut self, ms: u64) {
        self.now.monotonic_ms += ms;
        self.now.wall_ms += ms;
        self.run(20);
    }

    /// Returns how many records of requests a node has, and how many of them hold an answer.
    fn requests(&self, node: usize) -> (usize, usize) {
        let records = self.nodes[node].store.scan(Keyspace::Requests, &Span::all(), Order::Ascending);
        let records: Vec<_> =
            records.map(|entry| RequestRecord::decode(&envelope::open(entry.unwrap().1).unwrap()).unwrap()).collect();
        (records.len(), records.iter().filter(|record| record.told.is_some()).count())
    }
}

#[test]
fn old_answers_are_forgotten_and_requests_that_count_are_not() {
    let mut lab = Lab::new(&[BuiltInRole::Editor]);
    lab.write(0, "a", put(r#"{"n":1}"#));
    lab.write(0, "a", ops(r#"{"ops":[{"op":"counter","path":"/c","value":0}]}"#));
    let add = || ops(r#"{"ops":[{"op":"increment","path":"/c","by":1}]}"#);
    let counted = lab.try_request(0, "a", add(), request(1, 1)).unwrap();
    let idle = || put(r#"{"c":1,"n":1}"#);
    assert_eq!(lab.try_request(0, "a", idle(), request(2, 1)).unwrap().items[0].status, ItemStatus::Unchanged);
    lab.wait(ANSWER_KEPT_MS - 60_000);
    assert_eq!(lab.requests(0), (2, 2), "they are young");
    assert_eq!(lab.try_request(0, "a", add(), request(1, 1)).unwrap().items, counted.items);
    assert!(lab.try_request(0, "a", idle(), request(2, 1)).unwrap().replayed);
    let late = lab.try_request(0, "a", idle(), request(3, 1)).unwrap();
    assert!(!late.replayed);

    // A search a day: this one finds the first two.
    lab.wait(24 * 60 * 60 * 1_000);
    assert_eq!(lab.requests(0), (2, 1));
    assert_eq!(lab.nodes[0].replica.counters().answers_forgotten, 2);
    // What counts has one effect for ever, here and elsewhere.
    for node in 0..2 {
        let again = lab.try_request(node, "a", add(), request(1, 1)).unwrap();
        assert_eq!((again.replayed, again.tx), (true, counted.tx));
        lab.run(5);
        assert_eq!(lab.json(node, "a").unwrap(), r#"{"c":1,"n":1}"#);
    }
    assert!(!lab.try_request(0, "a", idle(), request(2, 1)).unwrap().replayed, "a new request");
    assert!(lab.try_request(0, "a", idle(), request(3, 1)).unwrap().replayed);
    lab.assert_converged();
}

#[test]
fn requests_that_change_nothing_do_not_fill_the_store() {
    let mut lab = Lab::new(&[]);
    lab.write(0, "a", put("{}"));
    let name = |number: usize| {
        let mut id = [7; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        RequestId::new(id)
    };
    for number in 0..STEP_ENTRIES + 10 {
        lab.try_request(0, "a", put("{}"), name(number)).unwrap();
    }
    assert_eq!(lab.requests(0).0, STEP_ENTRIES + 10);
    // The clock was far ahead when this one was answered.
    lab.now.wall_ms += 100 * ANSWER_KEPT_MS;
    lab.try_request(0, "a", put("{}"), name(usize::MAX)).unwrap();
    lab.now.wall_ms -= 100 * ANSWER_KEPT_MS;
    lab.wait(ANSWER_KEPT_MS + 60_000);
    assert_eq!(lab.requests(0), (0, 0));
}
