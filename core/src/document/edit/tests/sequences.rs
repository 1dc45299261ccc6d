use proptest::prelude::*;

use super::super::align::{Element, Pair, align};
use super::super::sequence::{self, Hunk};
use super::*;

/// Applies hunks; checks that they are in order, apart, and that all else is equal.
fn check(base: &[u32], given: &[u32], hunks: &[Hunk]) {
    let (mut at_base, mut at_given) = (0, 0);
    for (index, hunk) in hunks.iter().enumerate() {
        assert!(!hunk.base.is_empty() || !hunk.given.is_empty());
        assert!(index == 0 || hunk.base.start > at_base, "hunks touch");
        assert_eq!(base[at_base..hunk.base.start], given[at_given..hunk.given.start]);
        (at_base, at_given) = (hunk.base.end, hunk.given.end);
    }
    assert_eq!(base[at_base..], given[at_given..]);
}

fn cost(hunks: &[Hunk]) -> usize {
    hunks.iter().map(|hunk| hunk.base.len() + hunk.given.len()).sum()
}

/// Differences by the textbook's table.
fn least_cost(base: &[u32], given: &[u32]) -> usize {
    let mut row: Vec<usize> = (0..=given.len()).collect();
    for (i, a) in base.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in given.iter().enumerate() {
            let next = if a == b { diagonal } else { 1 + row[j].min(row[j + 1]) };
            diagonal = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[given.len()]
}

#[test]
fn costs_stay_bounded() {
    // Nothing in common; long runs of one symbol; a rotation. Each would take minutes without bounds.
    let (a, b): (Vec<u32>, Vec<u32>) = ((0..20_000).collect(), (20_000..40_000).collect());
    check(&a, &b, &sequence::diff(&a, &b));
    assert_eq!(sequence::exact(&a, &b), None);
    let (a, b) = (vec![1; 30_000], [vec![2; 5_000], vec![1; 30_000], vec![3; 5_000]].concat());
    check(&a, &b, &sequence::diff(&a, &b));
    let b: Vec<u32> = (10_000..20_000).chain(0..10_000).collect();
    let a: Vec<u32> = (0..20_000).collect();
    let hunks = sequence::diff(&a, &b);
    check(&a, &b, &hunks);
    assert_eq!(cost(&hunks), 20_000, "the fixed points keep half of it");
}

#[test]
fn elements_are_told_apart_by_what_they_are() {
    let cases: [(&str, &str, &[Pair]); 7] = [
        // Changed in place.
        (
            r#"[{"id":1,"v":1},{"id":2,"v":1}]"#,
            r#"[{"id":1,"v":2},{"id":2,"v":1}]"#,
            &[Pair::Edit { base: 0, given: 0 }, Pair::Keep { base: 1 }],
        ),
        // Inserted before, and another changed.
        (
            r#"[{"id":1,"v":1},{"id":2,"v":1}]"#,
            r#"[{"id":3,"v":1},{"id":1,"v":1},{"id":2,"v":9}]"#,
            &[Pair::Add { given: 0 }, Pair::Keep { base: 0 }, Pair::Edit { base: 1, given: 2 }],
        ),
        // Another identity is another element.
        (r#"[{"id":1,"v":1}]"#, r#"[{"id":2,"v":1}]"#, &[Pair::Remove { base: 0 }, Pair::Add { given: 0 }]),
        // Without identities, what shares most.
        (
            r#"[{"a":1,"b":2,"c":3}]"#,
            r#"[{"x":1,"y":2},{"a":1,"b":2,"c":4}]"#,
            &[Pair::Add { given: 0 }, Pair::Edit { base: 0, given: 1 }],
        ),
        // Numbers are slots, strings are items.
        ("[1,2]", "[1,3]", &[Pair::Keep { base: 0 }, Pair::Edit { base: 1, given: 1 }]),
        (r#"["a","b"]"#, r#"["a","c"]"#, &[Pair::Keep { base: 0 }, Pair::Remove { base: 1 }, Pair::Add { given: 1 }]),
        ("[[1,2]]", "[[1,3]]", &[Pair::Edit { base: 0, given: 0 }]),
    ];
    for (base, given, pairs) in cases {
        let (Value::List(base), Value::List(given)) = (value(base), value(given)) else { panic!("lists") };
        assert_eq!(align(&base, &given, |_| Element::Plain), pairs);
    }
}

proptest! {
    #[test]
    fn differences_are_right_and_least(
        base in prop::collection::vec(0_u32..4, 0..24),
        given in prop::collection::vec(0_u32..4, 0..24),
    ) {
        let hunks = sequence::exact(&base, &given).unwrap();
        check(&base, &given, &hunks);
        prop_assert_eq!(cost(&hunks), least_cost(&base, &given));
        check(&base, &given, &sequence::by_anchors(&base, &given));
    }

    #[test]
    fn anchors_are_right(
        base in prop::collection::vec(0_u32..40, 0..24),
        given in prop::collection::vec(0_u32..40, 0..24),
    ) {
        check(&base, &given, &sequence::by_anchors(&base, &given));
    }
}
