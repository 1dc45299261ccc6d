//! Values that no two documents are to share: refused where they are written, told where they were written apart.

use super::others::{give, introduce, send_for};
use super::*;
use crate::op::{Act, Collection, Expires, FieldPath, PrincipalKind, Unique};

fn settings(unique: &[&[&str]]) -> Collection {
    let fields = |fields: &&[&str]| Unique(fields.iter().map(|field| field.parse().unwrap()).collect());
    Collection {
        name: collection(),
        shards: 1,
        types: vec![],
        dropped: false,
        audit_reads: false,
        indexes: vec![],
        schema: None,
        expires: None,
        unique: unique.iter().map(fields).collect(),
    }
}

fn email(text: &str) -> DocWrite {
    put(&format!(r#"{{"email":"{text}"}}"#))
}

fn merge(json: &str) -> DocWrite {
    DocWrite::Edit(Edit::parse(EditFormat::MergePatch, json.as_bytes()).unwrap())
}

impl Lab {
    fn set_unique(&mut self, unique: &[&[&str]]) {
        self.act(0, Signer::Node, ActRequest::One(Act::Collection(settings(unique)))).unwrap();
        self.run(5);
    }

    /// What documents share on a node, as `loser:fields:winner`.
    fn duplicates(&self, node: usize) -> Vec<String> {
        let replica = &self.nodes[node].replica;
        let known = replica.authority().collection(&collection());
        told(&Reader::of(replica), known.map(|known| known.config.unique).unwrap_or_default())
    }

    /// How far the collection is on a node: duplicates, contested, done.
    fn unique_check(&self, node: usize) -> (u64, u64, bool) {
        let checks = Reader::new(self.nodes[node].store.clone()).unique_checks().unwrap();
        let check = checks.get(&collection()).cloned().unwrap_or_default();
        let live = self.nodes[node].replica.unique_checks().map(|(_, check)| check.clone()).next();
        assert_eq!(live.unwrap_or_default(), check);
        (check.duplicates, check.contested, check.done)
    }

    fn taken(&mut self, node: usize, id: &str, write: DocWrite) -> String {
        let refused = self.try_write(node, id, write, None);
        let Err(WriteError::Unique { doc, fields, other }) = refused else { panic!("{refused:?}") };
        assert_eq!(doc.as_str(), id);
        let fields: Vec<_> = fields.iter().map(FieldPath::to_string).collect();
        format!("{} {}", fields.join(","), other.map_or_else(|| "?".to_owned(), |other| other.to_string()))
    }

    fn assert_is_sound(&self, node: usize) {
        let store: Arc<dyn Store> = self.nodes[node].store.clone();
        let report = verify(&store, self.nodes[node].replica.identity().cluster, |_| {});
        assert!(report.damage.is_empty(), "{:?}", report.damage);
    }

    /// Makes writes of one document each without a step between them.
    fn write_at_once(&mut self, writes: Vec<(&str, DocWrite)>) -> Vec<Result<WriteOutcome, WriteError>> {
        let writes: Vec<_> = writes.into_iter().map(|write| self.request(vec![write])).collect();
        let tickets = writes.into_iter().map(|request| {
            self.ticket += 1;
            let ticket = self.ticket;
            self.step(0, Input::Write { ticket, request });
            ticket
        });
        let tickets: Vec<_> = tickets.collect();
        self.settle(0);
        tickets.iter().map(|ticket| self.nodes[0].done.remove(ticket).unwrap()).collect()
    }

    fn request(&self, writes: Vec<(&str, DocWrite)>) -> WriteRequest {
        let item = |(id, write): (&str, DocWrite)| WriteItem {
            doc: doc(id),
            write,
            precondition: Precondition::None,
            base: None,
            bytes: 10,
        };
        let items = writes.into_iter().map(item).collect();
        WriteRequest { collection: collection(), principal: None, request: None, limits: WriteLimits::none(), items }
    }

    fn atomic(&mut self, writes: Vec<(&str, DocWrite)>) -> Result<WriteOutcome, WriteError> {
        let request = self.request(writes);
        self.ticket += 1;
        let ticket = self.ticket;
        self.step(0, Input::Write { ticket, request });
        self.settle(0);
        self.nodes[0].done.remove(&ticket).unwrap()
    }
}

fn told(reader: &Reader, unique: Vec<Unique>) -> Vec<String> {
    let duplicates = reader.duplicates(&collection(), unique).unwrap();
    let mut told = Vec::new();
    for id in duplicates.ids(None, 10_000).unwrap() {
        let Some(view) = duplicates.get(&id).unwrap() else { continue };
        for (unique, winner) in duplicates.shared(&view).unwrap() {
            let fields: Vec<_> = unique.0.iter().map(FieldPath::to_string).collect();
            told.push(format!("{id}:{}:{winner}", fields.join(",")));
        }
    }
    // Page by page it is the same.
    let (mut after, mut ids) = (None, Vec::new());
    while let [id] = duplicates.ids(after.as_ref(), 1).unwrap().as_slice() {
        ids.push(id.clone());
        after = Some(id.clone());
    }
    assert_eq!(ids, duplicates.ids(None, 10_000).unwrap());
    told
}

#[test]
fn a_value_that_another_document_shows_is_refused() {
    let mut lab = Lab::new(&[BuiltInRole::Editor]);
    lab.set_unique(&[&["/email"], &["/login", "/tenant"]]);
    lab.write(0, "b", put(r#"{"email":"x","tenant":1,"login":"l","n":1}"#));
    // Whoever comes second, whatever its id.
    for id in ["a", "c"] {
        assert_eq!(lab.taken(0, id, email("x")), "/email b");
        assert_eq!(lab.json(0, id), None);
    }
    assert_eq!(lab.taken(0, "c", put(r#"{"tenant":1.0,"login":"l"}"#)), "/login,/tenant b");
    // Another value, a part of them, none, null, and what is no single value.
    let others = [
        r#"{"email":"X","tenant":1,"login":"k"}"#,
        r#"{"tenant":1}"#,
        r#"{"email":null,"login":"l"}"#,
        r#"{"email":["x"]}"#,
        r#"{"email":["x"]}"#,
        r#"{"email":{"a":1}}"#,
        r#"{"email":null}"#,
        r#"{"email":"1"}"#,
        r#"{"email":1}"#,
        r#"{"email":true}"#,
    ];
    for (index, json) in others.iter().enumerate() {
        lab.write(0, &format!("o{index}"), put(json));
    }
    let patch = br#"[{"op":"replace","path":"/email","value":"x"}]"#;
    assert_eq!(lab.taken(0, "o0", merge(r#"{"email":"x"}"#)), "/email b");
    let json_patch = DocWrite::Edit(Edit::parse(EditFormat::JsonPatch, patch).unwrap());
    assert_eq!(lab.taken(0, "o0", json_patch), "/email b");
    assert_eq!(lab.taken(0, "o0", ops(r#"{"ops":[{"op":"set","path":"/login","value":"l"}]}"#)), "/login,/tenant b");
    assert_eq!(lab.json(0, "o0").unwrap(), r#"{"email":"X","login":"k","tenant":1}"#);
    // The other one goes on as it is, and gives up what it has.
    lab.write(0, "b", merge(r#"{"n":2}"#));
    lab.write(0, "b", merge(r#"{"email":"y"}"#));
    lab.write(0, "o0", merge(r#"{"email":"x"}"#));
    assert_eq!(lab.taken(0, "b", merge(r#"{"email":"x"}"#)), "/email o0");
    lab.write(0, "o0", DocWrite::Delete);
    lab.write(0, "b", merge(r#"{"email":"x"}"#));
    // What comes back is held against it too.
    assert_eq!(lab.taken(0, "o0", put(r#"{"email":"x"}"#)), "/email b");
    lab.run(10);
    assert_eq!(lab.taken(1, "z", email("x")), "/email b");
    lab.assert_converged();
    for node in [0, 1] {
        assert_eq!((lab.duplicates(node), lab.unique_check(node)), (vec![], (0, 0, true)));
    }
}

#[test]
fn what_is_written_at_the_same_time_is_seen() {
    let mut lab = Lab::new(&[]);
    lab.set_unique(&[&["/email"]]);
    let answers = lab.write_at_once(vec![("b", email("x")), ("a", email("x")), ("c", email("x")), ("d", email("y"))]);
    assert!(answers[0].is_ok() && answers[3].is_ok(), "{answers:?}");
    for answer in &answers[1..3] {
        assert!(matches!(answer, Err(WriteError::Unique { other: Some(other), .. }) if other.as_str() == "b"));
    }
    // What is given up by a write on its way is free.
    let answers =
        lab.write_at_once(vec![("b", email("z")), ("a", email("x")), ("d", DocWrite::Delete), ("e", email("y"))]);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let answers =
        lab.write_at_once(vec![("f", email("f")), ("f", DocWrite::Delete), ("g", email("f")), ("h", email("f"))]);
    assert!(answers[2].is_ok() && answers[3].is_err(), "{answers:?}");
    assert_eq!((lab.duplicates(0), lab.unique_check(0)), (vec![], (0, 0, true)));
    lab.assert_is_sound(0);
}

#[test]
fn an_atomic_batch_is_held_against_it_as_a_whole() {
    let mut lab = Lab::new(&[]);
    lab.set_unique(&[&["/email"]]);
    let twice = lab.atomic(vec![("a", email("x")), ("b", email("x"))]);
    assert!(matches!(&twice, Err(WriteError::Unique { other: Some(_), .. })), "{twice:?}");
    assert_eq!((lab.json(0, "a"), lab.json(0, "b")), (None, None));
    lab.atomic(vec![("a", email("x")), ("b", email("y"))]).unwrap();
    // They change places.
    lab.atomic(vec![("a", email("y")), ("b", email("x"))]).unwrap();
    lab.atomic(vec![("c", email("x")), ("b", DocWrite::Delete)]).unwrap();
    let taken = lab.atomic(vec![("d", email("w")), ("e", email("y"))]);
    assert!(matches!(&taken, Err(WriteError::Unique { other: Some(other), .. }) if other.as_str() == "a"));
    assert_eq!(lab.json(0, "d"), None);
    // Nothing of what was refused is claimed.
    lab.write(0, "f", email("w"));
    assert_eq!((lab.duplicates(0), lab.unique_check(0)), (vec![], (0, 0, true)));
    lab.assert_is_sound(0);
}

#[test]
fn what_is_written_apart_has_the_same_winner_everywhere() {
    let mut lab = Lab::new(&[BuiltInRole::Editor, BuiltInRole::Editor]);
    lab.set_unique(&[&["/email"]]);
    lab.cut(0, 1);
    lab.cut(1, 2);
    lab.cut(0, 2);
    lab.write(0, "b", email("x"));
    lab.write(1, "a", email("x"));
    lab.write(2, "c", email("x"));
    lab.write(2, "d", email("y"));
    // One node learns of them as c, b, a, the others as they come.
    lab.connect(0, 2);
    lab.run(20);
    assert_eq!(lab.duplicates(2), ["c:/email:b"]);
    lab.connect(0, 1);
    lab.run(20);
    for node in 0..3 {
        assert_eq!(lab.duplicates(node), ["b:/email:a", "c:/email:a"], "on {node}");
        assert_eq!(lab.unique_check(node), (2, 1, true), "on {node}");
        assert_eq!(lab.json(node, "c").unwrap(), r#"{"email":"x"}"#);
    }
    lab.assert_converged();
    // A loser may be edited otherwise, and bring itself back to what it was only if that is free.
    lab.write(1, "c", merge(r#"{"n":1}"#));
    lab.write(1, "c", merge(r#"{"email":"z"}"#));
    assert_eq!(lab.taken(1, "c", merge(r#"{"email":"x"}"#)), "/email a");
    lab.run(20);
    for node in 0..3 {
        assert_eq!((lab.duplicates(node), lab.unique_check(node)), (vec!["b:/email:a".to_owned()], (1, 1, true)));
    }
    // The winner is gone.
    lab.write(2, "a", DocWrite::Delete);
    lab.run(20);
    for node in 0..3 {
        assert_eq!((lab.duplicates(node), lab.unique_check(node)), (vec![], (0, 0, true)));
    }
    assert_eq!(lab.taken(0, "a", email("x")), "/email b");
    lab.assert_converged();
}

#[test]
fn constraints_that_are_set_changed_or_removed_are_held_against_all() {
    let mut lab = Lab::new(&[BuiltInRole::Editor]);
    for n in 0..700 {
        lab.write(0, &format!("d{n:03}"), put(&format!(r#"{{"a":{},"b":{n}}}"#, n % 350)));
    }
    lab.run(10);
    let of_a: Vec<_> = (350..700).map(|n| format!("d{n}:/a:d{:03}", n - 350)).collect();
    lab.set_unique(&[&["/a"]]);
    for node in [0, 1] {
        assert_eq!((lab.duplicates(node), lab.unique_check(node)), (of_a.clone(), (350, 350, true)));
        lab.assert_is_sound(node);
    }
    lab.set_unique(&[&["/b"]]);
    for node in [0, 1] {
        assert_eq!((lab.duplicates(node), lab.unique_check(node)), (vec![], (0, 0, true)));
        lab.assert_is_sound(node);
    }
    lab.set_unique(&[&["/a"], &["/a", "/b"]]);
    assert_eq!((lab.duplicates(1), lab.unique_check(1)), (of_a, (350, 350, true)));
    lab.write(0, "x", put(r#"{"c":1}"#));
    lab.set_unique(&[]);
    for node in [0, 1] {
        assert_eq!((lab.duplicates(node), lab.unique_check(node)), (vec![], (0, 0, true)));
        lab.assert_is_sound(node);
        let store = &index_entries(&lab.nodes[node].store);
        assert!(store.is_empty(), "{}", store.len());
    }
    lab.write(0, "y", put(r#"{"a":1}"#));
    lab.set_unique(&[&["/a"]]);
    assert_eq!(lab.unique_check(1), (351, 350, true));
}

/// Keys of claims, of whatever kind.
fn index_entries(store: &MemoryStore) -> Vec<Vec<u8>> {
    let all = store.scan(crate::store::Keyspace::Index, &crate::store::Span::all(), crate::store::Order::Ascending);
    all.map(|entry| entry.unwrap().0.to_vec()).filter(|key| (5..=7).contains(&key[0])).collect()
}

#[test]
fn a_document_that_is_erased_claims_nothing() {
    let mut lab = Lab::new(&[BuiltInRole::Editor]);
    for id in ["a", "b", "c"] {
        lab.write(0, id, email("x"));
    }
    lab.set_unique(&[&["/email"]]);
    assert_eq!(lab.duplicates(1), ["b:/email:a", "c:/email:a"]);
    let documents = vec![doc("a")];
    let erase = crate::op::Erase { collection: collection(), documents, why: String::new() };
    lab.act(0, Signer::Node, ActRequest::One(Act::Erase(erase))).unwrap();
    lab.run(30);
    for node in [0, 1] {
        assert_eq!((lab.duplicates(node), lab.unique_check(node)), (vec!["c:/email:b".to_owned()], (1, 1, true)));
        assert!(index_entries(&lab.nodes[node].store).iter().all(|key| !key.ends_with(b"a\0")));
        lab.assert_is_sound(node);
    }
    assert_eq!(lab.taken(1, "d", email("x")), "/email b");
}

#[test]
fn a_document_whose_time_is_over_stands_in_nobodys_way() {
    let mut lab = Lab::new(&[]);
    let expires = Some(Expires { field: "/ends".parse().unwrap(), after_s: 0 });
    let act = Act::Collection(Collection { expires, ..settings(&[&["/email"]]) });
    lab.act(0, Signer::Node, ActRequest::One(act)).unwrap();
    lab.run(2);
    // A time between now, which is in November 2023, and the end of that year.
    let ends = r#"{"email":"x","ends":"2023-11-15T00:00:00Z"}"#;
    lab.write(0, "a", put(ends));
    assert_eq!(lab.taken(0, "b", email("x")), "/email a");
    lab.now.wall_ms += 2 * 24 * 3_600 * 1_000;
    lab.settle(0);
    lab.write(0, "b", email("x"));
    // It is deleted later; until then nothing is told of it.
    assert_eq!(lab.duplicates(0), Vec::<String>::new());
    assert_eq!(lab.taken(0, "c", email("x")), "/email b");
    lab.run(30);
    assert_eq!((lab.duplicates(0), lab.unique_check(0)), (vec![], (0, 0, true)));
    lab.assert_is_sound(0);
}

#[test]
fn keys_in_the_store_tell_nothing_of_values() {
    let mut lab = Lab::new(&[BuiltInRole::Editor]);
    lab.set_unique(&[&["/email"]]);
    lab.write(0, "a", email("x"));
    lab.run(5);
    let (here, there) = (index_entries(&lab.nodes[0].store), index_entries(&lab.nodes[1].store));
    assert!(here.len() == 2 && there.len() == 2 && here[1] == there[1], "{here:?}");
    assert_ne!(here[0], there[0], "each node hashes under a secret of its own");
    // The secret is the same after a restart.
    let (identity, store) = (lab.nodes[0].replica.identity().clone(), lab.nodes[0].store.clone());
    lab.ticket += 1;
    lab.cut(0, 1);
    lab.open(identity, store, 0, Vec::new());
    assert_eq!(lab.taken(0, "b", email("x")), "/email a");
}

/// Whatever batch is the last one that a crash leaves, the replica ends where it would have ended.
#[test]
fn a_crash_at_any_batch_loses_no_claim() {
    let mut lab = Lab::new(&[]);
    for n in 0..600 {
        lab.write(0, &format!("d{n:03}"), put(&format!(r#"{{"a":{},"b":{}}}"#, n % 400, n % 100)));
    }
    lab.nodes[0].disks = Some(Vec::new());
    // Some are on their way when the constraints come.
    let request = lab.request(vec![("late", put(r#"{"a":7}"#))]);
    lab.ticket += 1;
    let ticket = lab.ticket;
    lab.step(0, Input::Write { ticket, request });
    lab.act(0, Signer::Node, ActRequest::One(Act::Collection(settings(&[&["/a"]])))).unwrap();
    lab.run(3);
    assert_eq!(lab.unique_check(0), (201, 200, true));
    lab.write(0, "d007", put(r#"{"a":4000}"#));
    lab.act(0, Signer::Node, ActRequest::One(Act::Collection(settings(&[&["/a"], &["/b"]])))).unwrap();
    lab.run(3);
    let expected = lab.duplicates(0);
    let disks = lab.nodes[0].disks.take().unwrap();
    assert!(disks.len() > 5, "{}", disks.len());
    let identity = lab.nodes[0].replica.identity().clone();
    for (index, disk) in disks.into_iter().enumerate() {
        let mut again = schemas::lab_without_nodes(&lab);
        again.open(identity.clone(), Arc::new(disk), 0, Vec::new());
        again.run(3);
        again.assert_is_sound(0);
        let settled = again.nodes[0].replica.unique_checks().all(|(_, check)| check.done);
        assert!(settled, "after batch {index}");
        // Nothing is told that is not, and as many are counted.
        let told: BTreeSet<_> =
            again.duplicates(0).iter().map(|told| told.split(':').next().unwrap().to_owned()).collect();
        assert_eq!(again.unique_check(0).0, told.len() as u64, "after batch {index}");
    }
    let told: BTreeSet<_> = expected.iter().map(|told| told.split(':').next().unwrap()).collect();
    assert_eq!(lab.unique_check(0).0, told.len() as u64);
}

#[test]
fn who_may_not_read_the_other_document_is_not_told_which_it_is() {
    let mut lab = Lab::new(&[]);
    lab.set_unique(&[&["/email"]]);
    lab.write(0, "a", email("x"));
    let ann = introduce(&mut lab, PrincipalKind::User, true);
    give(&mut lab, ann, BuiltInRole::Editor);
    let mut ask = |limits: WriteLimits| match send_for(&mut lab, 0, ann, "b", email("x"), limits) {
        Err(WriteError::Unique { other, .. }) => other,
        other => panic!("{other:?}"),
    };
    let only =
        |field: &str| Some(crate::op::Fields::Only(crate::op::FieldPaths::of([field.parse::<FieldPath>().unwrap()])));
    assert_eq!(ask(WriteLimits::none()), Some(doc("a")));
    assert_eq!(ask(WriteLimits { read: only("/email"), ..WriteLimits::none() }), Some(doc("a")));
    assert_eq!(ask(WriteLimits { read: only("/name"), ..WriteLimits::none() }), None);
    assert_eq!(ask(WriteLimits { read: None, ..WriteLimits::none() }), None);
}

#[test]
fn claims_that_are_not_what_documents_show_are_found_by_a_check() {
    use crate::store::keys::{Claim, ClaimKey, ClaimsKey, DuplicateKey, Key as _};
    use crate::store::{Batch, Keyspace, envelope};
    let mut lab = Lab::new(&[]);
    for id in ["a", "b", "c"] {
        lab.write(0, id, email("x"));
    }
    lab.set_unique(&[&["/email"]]);
    lab.assert_is_sound(0);
    let key = |id: &str| DocKey { collection: collection(), doc: doc(id) };
    let claim = |batch: &mut Batch, id: &str, byte: u8| {
        let key = ClaimKey { collection: collection(), claim: Claim([byte; 16]), doc: doc(id) };
        batch.put(Keyspace::Index, key.encode(), envelope::enclose(&[]));
    };
    let damages: [&dyn Fn(&mut Batch); 6] = [
        &|batch| batch.delete(Keyspace::Index, DuplicateKey(key("b")).encode()),
        &|batch| batch.put(Keyspace::Index, DuplicateKey(key("a")).encode(), envelope::enclose(&[])),
        &|batch| batch.delete(Keyspace::Index, ClaimsKey(key("a")).encode()),
        &|batch| {
            let first = index_entries(&lab.nodes[0].store).remove(0);
            batch.delete(Keyspace::Index, first);
        },
        &|batch| claim(batch, "a", 1),
        &|batch| claim(batch, "nobody", 1),
    ];
    for (index, damage) in damages.into_iter().enumerate() {
        let store = lab.nodes[0].store.clone_synced();
        let mut batch = Batch::default();
        damage(&mut batch);
        store.commit(&batch, Durability::Synced).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let report = verify(&store, lab.nodes[0].replica.identity().cluster, |_| {});
        assert!(report.damage.iter().any(|found| found.what == "index"), "{index}: {:?}", report.damage);
    }
}
