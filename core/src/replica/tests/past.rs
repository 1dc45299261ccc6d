//! A collection as it was.

use super::*;
use crate::hlc::Hlc;
use crate::query::{Aggregate, Find, Indexed, Run, aggregate, find};

type Seen = BTreeMap<String, String>;

fn seen(views: &Views) -> Seen {
    let all: Vec<View> = views.scan(&IdRange::default()).map(Result::unwrap).collect();
    for view in &all {
        assert_eq!(views.get(&view.doc).unwrap().as_ref(), Some(view));
        assert!(!view.deleted);
    }
    all.into_iter().map(|view| (view.doc.to_string(), String::from_utf8(view.json.to_vec()).unwrap())).collect()
}

#[test]
fn a_collection_is_seen_as_it_was_at_any_time() {
    let mut lab = Lab::new(&[BuiltInRole::Editor]);
    let start = lab.now.wall_ms;
    lab.run(1);
    let mut moments = Vec::new();
    for n in 0..40_usize {
        let (node, id) = (n % 2, format!("d{}", n * 5 % 7));
        let write = match n % 9 {
            8 => DocWrite::Delete,
            _ if n % 3 == 0 => ops(&format!(
                r#"{{"ops":[{{"op":"set","path":"/n","value":{n}}},{{"op":"set","path":"/by","value":{node}}}]}}"#
            )),
            _ => put(&format!(r#"{{"n":{n},"by":{node}}}"#)),
        };
        // An edit of what is not there is refused.
        drop(lab.try_write(node, &id, write, None));
        if n % 4 == 3 {
            // At the same time, on the other side of a cut.
            lab.cut(0, 1);
            lab.write(0, "both", put(&format!(r#"{{"n":{n},"a":{n}}}"#)));
            lab.write(1, "both", put(&format!(r#"{{"n":{n},"b":{n}}}"#)));
            lab.connect(0, 1);
        }
        lab.run(4);
        moments.push((lab.now.wall_ms, seen(&Reader::of(&lab.nodes[0].replica).views(&collection()))));
        lab.run(1);
    }
    let cluster = lab.nodes[0].replica.identity().cluster;
    let everything = |_: &DocId| crate::op::FieldRights::all();
    for node in 0..2 {
        let reader = Reader::of(&lab.nodes[node].replica);
        let at = |ms: u64| reader.views_at(&collection(), Hlc::new(ms, u16::MAX), cluster);
        assert!(seen(&at(start)).is_empty());
        for (ms, then) in &moments {
            assert_eq!(seen(&at(*ms)), *then, "{node} {}", ms - start);
            // Queries see the same.
            let run = Run { sight: &everything, sees_whole: true, goes_on: &|| true };
            let query = r#"{"selector":{"n":{"$mod":[2,1]}},"sort":["-n"]}"#;
            let query = Find::parse(&crate::document::json::parse(query.as_bytes()).unwrap()).unwrap();
            let found = find(&Indexed::without(at(*ms)), &query, &run).unwrap();
            let number = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap()["n"].as_u64().unwrap();
            let mut odd: Vec<_> = then.values().filter(|json| number(json) % 2 == 1).cloned().collect();
            odd.sort_by_key(|json| std::cmp::Reverse(number(json)));
            let rows: Vec<_> = found.rows.iter().map(|row| String::from_utf8(row.json.to_vec()).unwrap()).collect();
            assert_eq!(rows, odd);
            assert_eq!(found.explain.hint, None, "an index would not serve");
            let count = Aggregate::parse(&crate::document::json::parse(b"{}").unwrap()).unwrap();
            let counted = aggregate(&Indexed::without(at(*ms)), &count, &run).unwrap();
            let counted = crate::document::json::render_value(&counted.groups[0]);
            assert_eq!(counted, format!(r#"{{"count":{}}}"#, then.len()));
        }
    }
}
