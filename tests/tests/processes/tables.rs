//! Tables in and out, and files of Automerge.

use std::io::Write as _;
use std::path::Path;

use automerge::transaction::Transactable as _;
use automerge::{AutoCommit, ObjType, ROOT, ReadDoc as _, ScalarValue};
use folkmoot::ErrorCode;
use folkmoot::api::{Database as _, Histories as _, LinkRule, WriteOptions};
use folkmoot_tests::processes::{Node, converged, id, name, printed, until};
use serde_json::{Value, json};

use super::access::{refused, user, write};

fn file(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

async fn succeeds(node: &Node, arguments: &[&str]) -> String {
    let output = node.cli(arguments, "").await;
    assert!(output.status.success(), "{arguments:?}: {}", printed(&output));
    printed(&output)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_becomes_documents_and_a_table_again() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::found(folder.path(), "a").await;
    let text = "key,name,/address/city,/address/zip,age,on,tags\r\n\
                1,\"Ann, \"\"A\"\"\",Oslo,0150,36,true,\"[1,2]\"\r\n\
                2,=HYPERLINK(),,\"a\nb\",-5,,\r\n";
    let path = file(folder.path(), "people.csv", text);
    succeeds(&node, &["import", "people", &path, "--id", "key", "--as", "tags=json"]).await;
    let ann = json!({"name": "Ann, \"A\"", "address": {"city": "Oslo", "zip": "0150"}, "age": 36, "on": true, "tags": [1, 2]});
    assert_eq!(node.get("people", "1").await.unwrap(), ann);
    let second = json!({"name": "=HYPERLINK()", "address": {"zip": "a\nb"}, "age": -5});
    assert_eq!(node.get("people", "2").await.unwrap(), second);

    // Once more changes nothing, packed or not: so it is resumed.
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(text.as_bytes()).unwrap();
    let packed = file(folder.path(), "people.csv.gz", packer.finish().unwrap());
    let said = succeeds(&node, &["import", "people", &packed, "--id", "key", "--as", "tags=json"]).await;
    assert!(said.contains("0 created, 0 updated, 2 unchanged, 0 failed"), "{said}");

    let fields = ["--fields", "name,/address/city,/address/zip,age,on,tags"];
    let said = succeeds(&node, &[&["export", "people", "--format", "csv"], &fields[..]].concat()).await;
    assert_eq!(said, text.replacen("key", "id", 1));
    let safe = succeeds(&node, &["export", "people", "--format", "csv", "--fields", "name,age", "--for-spreadsheets"]);
    assert!(safe.await.contains("2,'=HYPERLINK(),-5\r\n"));

    // What was written is read again as the same documents.
    let out = folder.path().join("out.csv.zst");
    let out = out.to_str().unwrap();
    succeeds(&node, &[&["export", "people", out], &fields[..]].concat()).await;
    succeeds(&node, &["import", "copy", out, "--as", "tags=json"]).await;
    assert_eq!(node.get("copy", "1").await.unwrap(), ann);
    assert_eq!(node.get("copy", "2").await.unwrap(), second);
    let output = node.cli(&["export", "people", "--format", "csv"], "").await;
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_in_a_table_is_told_by_line_and_the_rest_can_be_taken() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::found(folder.path(), "a").await;
    let path = file(folder.path(), "a.csv", "id,n\na,1\nb,\"2\n\"\nc\n,4\ne,5\n");
    let output = node.cli(&["import", "things", &path], "").await;
    let said = printed(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    // The cell of the row before has a line of its own.
    assert!(said.contains("line 5: it has 1 cells and the first row 2") && said.contains("--from-line 5"), "{said}");
    assert_eq!(node.all("things").await.unwrap().len(), 2, "those before it are there");

    let output = node.cli(&["import", "things", &path, "--keep-going"], "").await;
    let said = printed(&output);
    assert!(said.contains("line 6: the column \"id\" holds no id"), "{said}");
    assert!(said.contains("1 created, 0 updated, 2 unchanged, 2 failed"), "{said}");
    assert_eq!(node.get("things", "b").await.unwrap(), json!({"n": "2\n"}));

    // Without ids the node makes them, and a line says where to go on.
    let path = file(folder.path(), "b.csv", "n\n1\n2\n3\n");
    let said = succeeds(&node, &["import", "made", &path, "--from-line", "3", "--types", "text"]).await;
    assert!(said.contains("2 created"), "{said}");
    let mut made: Vec<_> = node.all("made").await.unwrap().into_iter().map(|(_, _, json)| json).collect();
    made.sort();
    assert_eq!(made, [r#"{"n":"2"}"#, r#"{"n":"3"}"#]);

    for (content, arguments, why) in [
        ("a,/a/b\n1,2\n", &[][..], "same place"),
        ("a,b\n1,2\n", &["--id", "c"][..], "there is no column \"c\""),
        ("", &[][..], "first row"),
        ("a\nx\n", &["--as", "a=number"][..], "line 2: the column \"a\""),
        ("a;b\n1;2\n", &["--delimiter", "ab"][..], "delimiter"),
    ] {
        let path = file(folder.path(), "wrong.csv", content);
        let output = node.cli(&[&["import", "wrong", &path], arguments].concat(), "").await;
        assert!(!output.status.success() && printed(&output).contains(why), "{content:?}: {}", printed(&output));
    }
    assert!(node.all("wrong").await.is_err(), "nothing of those was written");
    // The same holds for lines of JSON: what stands before a bad one is written.
    let path = file(folder.path(), "a.ndjson", "{\"id\":\"x\"}\n{\"id\":\"y\"}\n{\n");
    let output = node.cli(&["import", "lines", &path], "").await;
    assert!(!output.status.success() && printed(&output).contains("--from-line 3"), "{}", printed(&output));
    assert_eq!(node.all("lines").await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_leaves_with_its_history_as_automerge_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::found(folder.path(), "a").await;
    node.put("notes", "a", json!({"title": "first", "list": [1]})).await;
    node.put("notes", "a", json!({"title": "second", "list": [1, 2]})).await;
    let path = folder.path().join("a.automerge");
    let path = path.to_str().unwrap();
    succeeds(&node, &["automerge", "save", "notes", "a", path]).await;
    let saved = std::fs::read(path).unwrap();
    let answer = node.http("GET", "/v1/collections/notes/docs/a/automerge", &[], b"").await;
    assert_eq!((answer.status, &answer.body), (200, &saved));
    assert!(answer.head.contains("content-type: application/vnd.automerge"), "{}", answer.head);

    let mut document = AutoCommit::load(&saved).unwrap();
    let title = |document: &AutoCommit| document.get(ROOT, "title").unwrap().unwrap().0.into_string().unwrap();
    assert_eq!(title(&document), "second");
    let changes: Vec<_> = document.get_changes(&[]).iter().map(|change| change.hash()).collect();
    assert_eq!(changes.len(), 2);
    let (first, _) = document.get_at(ROOT, "title", &changes[..1]).unwrap().unwrap();
    assert_eq!(first.into_string().unwrap(), "first");
    // Its versions are those of the node.
    let heads = node.http("GET", "/v1/collections/notes/docs/a", &[], b"").await.head;
    assert!(heads.contains(&changes[1].to_string()), "{heads}");

    node.client().delete(&name("notes"), id("a"), &WriteOptions::default()).await.unwrap();
    refused(node.client().automerge(&name("notes"), &id("a")).await, ErrorCode::DocumentNotFound);
    refused(node.client().automerge(&name("notes"), &id("b")).await, ErrorCode::DocumentNotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_see_all_of_a_document_gets_no_file_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::found(folder.path(), "a").await;
    node.put("notes", "a", json!({"title": "x", "salary": 1})).await;
    let file_for = async |who: &str, grants: &[&[&str]]| {
        user(&node, &node, who, grants).await.automerge(&name("notes"), &id("a")).await
    };
    let all = "read,history";
    succeeds(&node, &["role", "add", "historian", "--allow", all]).await;
    let file = file_for("cy", &[&["historian", "--on", "notes"]]).await.unwrap();
    assert!(AutoCommit::load(&file).unwrap().get(ROOT, "salary").unwrap().is_some());
    // A field that may not be seen, one whose history may not, no history at all, and nothing at all.
    let without = file_for("ann", &[&["historian", "--on", "notes", "--without-fields", "/salary"]]).await;
    refused(without, ErrorCode::NotAllowed);
    succeeds(&node, &["role", "add", "looker", "--allow", "read"]).await;
    let partly =
        file_for("bob", &[&["looker", "--on", "notes"], &["historian", "--on", "notes", "--fields", "/title"]]);
    refused(partly.await, ErrorCode::NotAllowed);
    refused(file_for("dan", &[&["looker", "--on", "notes"]]).await, ErrorCode::NotAllowed);
    refused(file_for("eve", &[&["looker", "--on", "others"]]).await, ErrorCode::NotAllowed);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_count_is_in_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    let b = Node::join(folder.path(), "b", &a).await;
    a.put("notes", "a", json!({"title": "x"})).await;
    let ann = user(&a, &b, "ann", &[&["editor", "--on", "notes"]]).await;
    until("she may write", async || write(&ann, "notes", "hers", json!({})).await.map_err(|error| error.to_string()))
        .await;
    converged(&[&a, &b]).await;

    // She is removed where the other node does not hear of it; there she writes, and others build on that.
    a.client().set_link(&b.key(), LinkRule::Blocked).await.unwrap();
    succeeds(&a, &["user", "remove", "ann"]).await;
    write(&ann, "notes", "a", json!({"title": "x", "said": "forgery-of-ann"})).await.unwrap();
    b.put("notes", "a", json!({"title": "y", "said": "forgery-of-ann"})).await;
    let file_of = async |node: &Node| {
        let file = node.client().automerge(&name("notes"), &id("a")).await.unwrap();
        let mut document = AutoCommit::load(&file).unwrap();
        let title = document.get(ROOT, "title").unwrap().unwrap().0.into_string().unwrap();
        let plain = document.document().save_nocompress();
        (title, plain.windows(7).any(|window| window == b"forgery"))
    };
    assert_eq!(file_of(&b).await, ("y".to_owned(), true));

    a.client().set_link(&b.key(), LinkRule::Open).await.unwrap();
    until("what she wrote counts nowhere", async || {
        let shown = b.get("notes", "a").await.map_err(|error| error.to_string())?;
        if shown == json!({"title": "y"}) { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    converged(&[&a, &b]).await;
    for node in [&a, &b] {
        assert_eq!(file_of(node).await, ("y".to_owned(), false));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_content_of_a_file_becomes_a_document() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::found(folder.path(), "a").await;
    let mut document = AutoCommit::new();
    document.put(ROOT, "title", "old").unwrap();
    document.put(ROOT, "votes", ScalarValue::counter(3)).unwrap();
    let body = document.put_object(ROOT, "body", ObjType::Text).unwrap();
    document.splice_text(&body, 0, 0, "hello").unwrap();
    document.commit();
    document.put(ROOT, "title", "new").unwrap();
    let saved = document.save();
    let content = json!({"title": "new", "votes": 3, "body": "hello"});

    let path = file(folder.path(), "x.automerge", &saved);
    succeeds(&node, &["automerge", "load", "notes", &path, "--id", "x"]).await;
    assert_eq!(node.get("notes", "x").await.unwrap(), content);
    let history = node.client().history(&name("notes"), &id("x"), &Default::default()).await.unwrap();
    assert_eq!(history.items.len(), 1, "what it was is not taken over");

    let kind = [("content-type", "application/vnd.automerge")];
    let put = async |path: &str, headers: &[(&str, &str)], body: &[u8]| {
        let answer = node.http("PUT", path, headers, body).await;
        (answer.status, answer.json["code"].as_str().unwrap_or_default().to_owned())
    };
    let there = "/v1/collections/notes/docs/y/automerge";
    assert_eq!(put(there, &kind, &saved).await.0, 201);
    assert_eq!(node.get("notes", "y").await.unwrap(), content);
    assert_eq!(put(there, &kind, &saved).await, (409, "already_exists".to_owned()));
    assert_eq!(
        put("/v1/collections/notes/docs/z/automerge", &[], &saved).await,
        (415, "unsupported_media_type".to_owned())
    );
    let made = node.http("POST", "/v1/collections/notes/docs", &kind, &saved).await;
    assert_eq!(made.status, 201);
    assert_eq!(node.get("notes", made.json["id"].as_str().unwrap()).await.unwrap(), content);

    // What is no whole document, is damaged, or announces too much.
    let z = "/v1/collections/notes/docs/z/automerge";
    let change = document.get_changes(&[]).first().unwrap().raw_bytes().to_vec();
    let mut damaged = saved.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let mut object = ROOT;
    let mut deep = AutoCommit::new();
    for _ in 0..300 {
        object = deep.put_object(&object, "a", ObjType::Map).unwrap();
    }
    for (body, expected) in [
        (b"{}".to_vec(), (422, "invalid_document")),
        (change, (422, "invalid_document")),
        (damaged, (422, "invalid_document")),
        (deep.save(), (413, "document_too_large")),
        (vec![0; (8 << 20) + 1], (413, "body_too_large")),
    ] {
        let answer = put(z, &kind, &body).await;
        assert_eq!((answer.0, answer.1.as_str()), expected);
    }
    refused(node.get("notes", "z").await.map(|_: Value| ()), ErrorCode::DocumentNotFound);

    // By somebody who may not write, nothing; and the collection's schema holds for files as for all writes.
    let ann = user(&node, &node, "ann", &[&["reader", "--on", "notes"]]).await;
    let (notes, options) = (name("notes"), WriteOptions::default());
    let by_ann = ann.create_from_automerge(&notes, Some(id("z")), saved.clone().into(), &options).await;
    refused(by_ann, ErrorCode::NotAllowed);
    let schema = file(folder.path(), "schema.json", r#"{"required": ["author"]}"#);
    succeeds(&node, &["collections", "set", "strict", "--schema", &schema]).await;
    let strict = "/v1/collections/strict/docs/z/automerge";
    assert_eq!(put(strict, &kind, &saved).await, (422, "schema_violation".to_owned()));

    // What was loaded survives a kill, and leaves again.
    let mut node = node;
    node.kill();
    node.start().await;
    let file = node.client().automerge(&name("notes"), &id("x")).await.unwrap();
    assert!(AutoCommit::load(&file).unwrap().get(ROOT, "body").unwrap().is_some());
}
