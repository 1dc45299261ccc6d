//! What a replica has still to carry out survives a crash between a cause and its effect.

use super::*;
use crate::op::{Act, Revoke, RevokeTarget};

/// Two editors retried one request, each without knowing of the other; then the one whose write counts is removed.
#[test]
fn the_second_of_a_request_counts_after_a_crash_at_any_commit() {
    let mut lab = Lab::new(&[BuiltInRole::Editor, BuiltInRole::Editor]);
    // More than one slice of work brings to an end.
    let documents: Vec<String> = (0..200).map(|number| format!("d{number}")).collect();
    lab.cut(1, 2);
    lab.cut(0, 2);
    for node in [1, 2] {
        for (number, id) in documents.iter().enumerate() {
            let name = u8::try_from(number).unwrap();
            lab.try_request(node, id, put(&format!(r#"{{"by":{node}}}"#)), request(name, 1)).unwrap();
        }
        lab.run(5);
    }
    lab.connect(0, 2);
    lab.run(50);
    let by = |lab: &Lab, node: usize| -> BTreeSet<Option<String>> {
        documents.iter().map(|id| lab.json(node, id)).collect()
    };
    let all = |json: &str| BTreeSet::from([Some(json.to_owned())]);
    assert_eq!(by(&lab, 0), all(r#"{"by":1}"#));
    lab.nodes[0].disks = Some(Vec::new());
    let target = RevokeTarget::Principal(lab.nodes[1].replica.identity().principal);
    let act = Act::Revoke(Revoke { target, pins: Vec::new(), cascade: false, why: "gone".to_owned() });
    lab.act(0, Signer::Owner, ActRequest::One(act)).unwrap();
    lab.run(50);
    assert_eq!(by(&lab, 0), all(r#"{"by":2}"#));
    let disks = lab.nodes[0].disks.take().unwrap();
    assert!(disks.len() > 3, "{}", disks.len());
    let identity = lab.nodes[0].replica.identity().clone();
    // The first commit is that of the act itself, and what comes from it must follow.
    for (crash, disk) in disks.into_iter().enumerate() {
        lab.cut(0, 1);
        lab.cut(0, 2);
        lab.ticket += 1;
        lab.open(identity.clone(), Arc::new(disk), 0, Vec::new());
        lab.run(20);
        assert_eq!(by(&lab, 0), all(r#"{"by":2}"#), "crash {crash}");
    }
}
