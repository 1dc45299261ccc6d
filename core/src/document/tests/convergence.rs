//! The order and batching of arrival show nowhere.

use std::collections::BTreeSet;

use super::making::{Random, Sent, assert_same, history, with_all};
use crate::document::fuzzing::assert_sound;
use crate::document::{Admission, Document};

/// Offers changes in any order and in batches of any size, again and again until all are in.
fn deliver_at_random(random: &mut Random, document: &mut Document, all: &[Sent]) {
    let mut waiting = all.to_vec();
    random.shuffle(&mut waiting);
    while !waiting.is_empty() {
        let take = 1 + random.below(waiting.len());
        let batch: Vec<_> = waiting.drain(..take).collect();
        let candidates: Vec<_> = batch.iter().map(Sent::candidate).collect();
        let answers = document.admit(&candidates);
        assert_eq!(answers.len(), batch.len());
        for (answer, sent) in answers.into_iter().zip(batch) {
            match answer {
                Admission::Admitted(hash) => assert_eq!(hash, sent.hash),
                Admission::MissingDeps(missing) => {
                    assert!(!missing.is_empty());
                    waiting.push(sent);
                }
                Admission::Known(_) | Admission::Bad(_) | Admission::Held(_) => {
                    panic!("{answer:?}")
                }
            }
        }
    }
}

#[test]
fn any_order_and_batching_gives_the_same_document() {
    for seed in 1..=25 {
        let mut random = Random::new(seed);
        let all = history(&mut random, 3, 25);
        let one = with_all(&all);
        assert_eq!(one.change_count(), all.len());
        assert_sound(&one);
        let mut other = Document::new();
        deliver_at_random(&mut random, &mut other, &all);
        assert_same(&one, &other);
        assert_eq!(one.full().save(), with_all(&all).full().save());
    }
}

#[test]
fn voids_before_between_and_after_admission_give_the_same_document() {
    for seed in 1..=25 {
        let mut random = Random::new(seed);
        let all = history(&mut random, 3, 20);
        let void: BTreeSet<_> = all.iter().filter(|_| random.below(6) == 0).map(|sent| sent.hash).collect();
        let mut after = with_all(&all);
        after.set_void(void.clone()).unwrap();
        let mut before = Document::new();
        before.set_void(void.clone()).unwrap();
        deliver_at_random(&mut random, &mut before, &all);
        assert_same(&after, &before);
        let loaded = Document::load(None, all.iter().map(|sent| sent.bytes.as_ref()), void, BTreeSet::new()).unwrap();
        assert_same(&after, &loaded);
        assert_sound(&after);
    }
}

#[test]
fn a_change_offered_twice_is_taken_once() {
    let mut random = Random::new(7);
    let all = history(&mut random, 2, 5);
    let mut document = Document::new();
    let twice: Vec<_> = all.iter().chain(&all).map(Sent::candidate).collect();
    let answers = document.admit(&twice);
    assert!(answers[..all.len()].iter().all(|answer| matches!(answer, Admission::Admitted(_))));
    assert!(answers[all.len()..].iter().all(|answer| matches!(answer, Admission::Known(_))));
    assert!(document.admit(&twice).iter().all(|answer| matches!(answer, Admission::Known(_))));
}

#[test]
fn bytes_come_back_as_they_came() {
    let all = history(&mut Random::new(3), 3, 15);
    let document = with_all(&all);
    for sent in &all {
        assert_eq!(document.change_bytes(&sent.hash).as_ref(), Some(&sent.bytes));
        assert!(document.contains(&sent.hash));
    }
    let snapshot = document.snapshot().unwrap();
    let (first, second) = all.split_at(all.len() / 2);
    let partial = with_all(first);
    let tail = second.iter().map(|sent| sent.bytes.as_ref());
    let loaded = Document::load(Some(&partial.snapshot().unwrap()), tail, BTreeSet::new(), BTreeSet::new()).unwrap();
    assert_same(&document, &loaded);
    assert!(Document::load(None, [second.last().unwrap().bytes.as_ref()], BTreeSet::new(), BTreeSet::new()).is_err());
    let mut damaged = snapshot;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    assert!(Document::load(Some(&damaged), [], BTreeSet::new(), BTreeSet::new()).is_err());
}
