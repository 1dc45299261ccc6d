use super::*;

#[test]
fn every_operation() {
    let mut doc = document(r#"{"l":[1,2,3],"n":5,"s":"abc"}"#);
    for (text, after) in [
        (r#"{"op":"set","path":"/a/","value":1}"#, None),
        (
            r#"{"op":"set","path":"/a","value":{}},{"op":"set","path":"/a/","value":1}"#,
            Some(r#"{"a":{"":1},"l":[1,2,3],"n":5,"s":"abc"}"#),
        ),
        (r#"{"op":"delete","path":"/a"}"#, Some(r#"{"l":[1,2,3],"n":5,"s":"abc"}"#)),
        (
            r#"{"op":"set","path":"/l/1","value":"x"},{"op":"delete","path":"/l/0"}"#,
            Some(r#"{"l":["x",3],"n":5,"s":"abc"}"#),
        ),
        (
            r#"{"op":"insert","path":"/l","index":1,"values":[[],{}]},{"op":"insert","path":"/l","values":[9]}"#,
            Some(r#"{"l":["x",[],{},3,9],"n":5,"s":"abc"}"#),
        ),
        (
            r#"{"op":"remove","path":"/l","index":1,"count":3},{"op":"remove","path":"/l","index":0}"#,
            Some(r#"{"l":[9],"n":5,"s":"abc"}"#),
        ),
        (
            r#"{"op":"counter","path":"/n"},{"op":"increment","path":"/n"},{"op":"increment","path":"/n","by":-3}"#,
            Some(r#"{"l":[9],"n":3,"s":"abc"}"#),
        ),
        (
            r#"{"op":"counter","path":"/n","value":10},{"op":"counter","path":"/n"}"#,
            Some(r#"{"l":[9],"n":10,"s":"abc"}"#),
        ),
        (
            r#"{"op":"text","path":"/s"},{"op":"splice","path":"/s","index":1,"delete":1,"insert":"é😀"},{"op":"splice","path":"/s","index":3,"insert":"-"}"#,
            Some(r#"{"l":[9],"n":10,"s":"aé😀-c"}"#),
        ),
        (
            r#"{"op":"text","path":"/s","value":"aé!"},{"op":"text","path":"/l/0","value":"t"},{"op":"text","path":"/e"}"#,
            Some(r#"{"e":"","l":["t"],"n":10,"s":"aé!"}"#),
        ),
        (
            r#"{"op":"timestamp","path":"/e","value":"1970-01-01T00:00:00Z"},{"op":"bytes","path":"/l/0","value":"AA=="}"#,
            Some(r#"{"e":"1970-01-01T00:00:00.000Z","l":["AA=="],"n":10,"s":"aé!"}"#),
        ),
        (r#"{"op":"set","path":"","value":{"n":11}}"#, Some(r#"{"n":11}"#)),
    ] {
        let result = ops(&mut doc, text);
        assert_eq!(result.is_ok(), after.is_some(), "{text}: {result:?}");
        if let Some(after) = after {
            assert_eq!(render(&doc), after, "{text}");
        }
    }
    // Still a counter.
    ops(&mut doc, r#"{"op":"increment","path":"/n"}"#).unwrap();
}

#[test]
fn refusals() {
    use EditErrorKind::{Invalid, NotFound, TooLarge, TypeMismatch};
    let before = r#"{"f":1.5,"l":[1],"n":1,"o":{},"s":"x"}"#;
    for (text, kind, pointer) in [
        (r#"{"op":"increment","path":"/n"}"#, TypeMismatch, "/n"),
        (r#"{"op":"increment","path":"/o"}"#, TypeMismatch, "/o"),
        (r#"{"op":"increment","path":"/x"}"#, NotFound, "/x"),
        (r#"{"op":"increment","path":""}"#, TypeMismatch, ""),
        (r#"{"op":"splice","path":"/s","index":0,"insert":"x"}"#, TypeMismatch, "/s"),
        (r#"{"op":"splice","path":"/x","index":0,"insert":"x"}"#, TypeMismatch, "/x"),
        (r#"{"op":"splice","path":"/l","index":0,"insert":"x"}"#, TypeMismatch, "/l"),
        (r#"{"op":"insert","path":"/l","index":2,"values":[1]}"#, NotFound, "/l"),
        (r#"{"op":"insert","path":"/o","values":[1]}"#, TypeMismatch, "/o"),
        (r#"{"op":"insert","path":"/n","values":[1]}"#, TypeMismatch, "/n"),
        (r#"{"op":"insert","path":"/x","values":[1]}"#, NotFound, "/x"),
        (r#"{"op":"remove","path":"/l","index":0,"count":2}"#, NotFound, "/l"),
        (r#"{"op":"remove","path":"/l","index":9223372036854775807,"count":9223372036854775807}"#, NotFound, "/l"),
        (r#"{"op":"delete","path":"/x"}"#, NotFound, "/x"),
        (r#"{"op":"delete","path":"/l/1"}"#, NotFound, "/l/1"),
        (r#"{"op":"delete","path":""}"#, Invalid, ""),
        (r#"{"op":"set","path":"/l/1","value":1}"#, NotFound, "/l/1"),
        (r#"{"op":"set","path":"/l/-","value":1}"#, NotFound, "/l/-"),
        (r#"{"op":"set","path":"/x/y","value":1}"#, NotFound, "/x"),
        (r#"{"op":"set","path":"/s/0","value":1}"#, NotFound, "/s"),
        (r#"{"op":"set","path":"","value":[]}"#, Invalid, ""),
        (r#"{"op":"text","path":"/n"}"#, TypeMismatch, "/n"),
        (r#"{"op":"text","path":"/l/5"}"#, NotFound, "/l/5"),
        (r#"{"op":"counter","path":"/s"}"#, TypeMismatch, "/s"),
        (r#"{"op":"counter","path":"/f"}"#, TypeMismatch, "/f"),
        (r#"{"op":"counter","path":"/o"}"#, TypeMismatch, "/o"),
        (r#"{"op":"counter","path":"/o","value":9223372036854775807},{"op":"increment","path":"/o"}"#, TooLarge, "/o"),
        (r#"{"op":"text","path":"/s"},{"op":"splice","path":"/s","index":1,"delete":1}"#, NotFound, "/s"),
        (r#"{"op":"text","path":"/s"},{"op":"splice","path":"/s","index":2,"insert":"x"}"#, NotFound, "/s"),
    ] {
        let mut doc = document(before);
        let error = ops(&mut doc, text).unwrap_err();
        let last = text.matches("\"op\"").count() - 1;
        assert_eq!(refusal(&error), (kind, pointer, Some(last)), "{text}");
        assert_eq!(render(&doc), before);
    }
    let paste = format!(r#"{{"op":"text","path":"/s","value":"{}"}}"#, "x".repeat(50_000));
    let error = ops(&mut document(before), &paste).unwrap_err();
    assert_eq!(refusal(&error), (TooLarge, "/s", Some(0)));
}

#[test]
fn declared_fields_come_into_being() {
    let types = types(&[("/n", FieldKind::Counter), ("/t", FieldKind::Text), ("/l/*", FieldKind::Counter)]);
    let mut doc = document(r#"{"l":[],"t":"old"}"#);
    let text = r#"{"ops":[{"op":"increment","path":"/n","by":4},{"op":"splice","path":"/t","index":3,"insert":"er"},{"op":"insert","path":"/l","values":[1,2]},{"op":"increment","path":"/l/1"}]}"#;
    edit_at(&mut doc, None, &parsed(EditFormat::Ops, text), &types).unwrap();
    assert_eq!(render(&doc), r#"{"l":[1,3],"n":4,"t":"older"}"#);
}

#[test]
fn indices_are_those_that_the_writer_saw() {
    let none = FieldTypes::none();
    let mut doc = document(r#"{"l":["a","b","c"]}"#);
    ops(&mut doc, r#"{"op":"text","path":"/t","value":"hello world"}"#).unwrap();
    let base = doc.get_heads();
    ops(&mut doc, r#"{"op":"splice","path":"/t","index":0,"delete":1,"insert":">> H"}"#).unwrap();
    ops(
        &mut doc,
        r#"{"op":"remove","path":"/l","index":1},{"op":"insert","path":"/l","index":0,"values":["0",{"k":[1]}]}"#,
    )
    .unwrap();
    assert_eq!(render(&doc), r#"{"l":["0",{"k":[1]},"a","c"],"t":">> Hello world"}"#);
    let text = r#"{"ops":[
        {"op":"splice","path":"/t","index":6,"delete":5,"insert":"all"},
        {"op":"splice","path":"/t","index":9,"insert":"!"},
        {"op":"splice","path":"/t","index":8,"delete":2,"insert":"LL?"},
        {"op":"insert","path":"/l","index":2,"values":["x","y"]},
        {"op":"set","path":"/l/3","value":"Y"},
        {"op":"remove","path":"/l","index":0,"count":2},
        {"op":"insert","path":"/l","values":[{"v":1}]},
        {"op":"set","path":"/l/3/v","value":2}
    ]}"#;
    edit_at(&mut doc, Some(&base), &parsed(EditFormat::Ops, text), &none).unwrap();
    assert_eq!(render(&doc), r#"{"l":["0",{"k":[1]},"x","Y","c",{"v":2}],"t":">> Hello alLL?"}"#);
    // What the writer had not seen has the indices that it has now; what is gone is not found.
    let gone = r#"{"ops":[{"op":"set","path":"/l/1","value":1}]}"#;
    let error = edit_at(&mut doc, Some(&base), &parsed(EditFormat::Ops, gone), &none).unwrap_err();
    assert_eq!(refusal(&error), (EditErrorKind::NotFound, "/l/1", Some(0)));
    put(&mut doc, r#"{"m":[1,2]}"#);
    let text = r#"{"ops":[{"op":"set","path":"/m/1","value":3},{"op":"insert","path":"/m","values":[4]}]}"#;
    edit_at(&mut doc, Some(&base), &parsed(EditFormat::Ops, text), &none).unwrap();
    assert_eq!(render(&doc), r#"{"m":[1,3,4]}"#);
}
