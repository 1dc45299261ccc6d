//! Devices: nodes in apps that sign with a key of their own in the name of a user.

use folkmoot::api::{AuthorKind, Database as _, HistoryQuery, InviteOptions, LinkRule, PeerState, WriteOptions};
use folkmoot::{Access as _, Authors as _, ErrorCode, Histories as _};
use folkmoot_tests::processes::{Node, converged, id, name, printed, text, until};
use serde_json::json;

use super::access::{told, with_token, write};

async fn put(node: &Node, collection: &str, doc: &str) -> Result<(), ErrorCode> {
    let json = text(&json!({ "by": doc }));
    let written = node.client().put(&name(collection), id(doc), json, &WriteOptions::default()).await;
    written.map(drop).map_err(|error| error.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_signs_in_the_name_of_its_user_within_its_rights_until_it_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    for arguments in [&["user", "add", "ann"][..], &["grant", "ann", "editor", "--on", "notes"]] {
        told(&a, arguments).await;
    }
    // A member holds everything: whoever may not read everything has no devices.
    let for_ann = InviteOptions { device_of: Some("ann".parse().unwrap()), ..InviteOptions::default() };
    let refused = a.client().invite(&for_ann).await.unwrap_err();
    assert!(refused.code() == ErrorCode::NotAllowed && refused.detail().contains("read everything"), "{refused}");
    told(&a, &["grant", "ann", "reader"]).await;
    let unknown = InviteOptions { device_of: Some("nobody".parse().unwrap()), ..InviteOptions::default() };
    assert_eq!(a.client().invite(&unknown).await.unwrap_err().code(), ErrorCode::PrincipalNotFound);
    let bad = a.http("POST", "/v1/invites", &[("content-type", "application/json")], br#"{"device_of":""}"#).await;
    assert_eq!((bad.status, bad.json["pointer"].as_str()), (400, Some("/device_of")), "{}", bad.json);

    let ticket = told(&a, &["device", "invite", "ann"]).await["ticket"].as_str().unwrap().to_owned();
    let mut phone = Node::join_with(folder.path(), "phone", &ticket).await;
    converged(&[&a, &phone]).await;
    let caller = phone.client().caller().await.unwrap();
    assert_eq!(caller.name, "ann");
    put(&phone, "notes", "first").await.unwrap();
    assert_eq!(put(&phone, "secrets", "s").await, Err(ErrorCode::NotAllowed));
    // After a kill it is still her, and others see her as the author, with a key of her own.
    phone.kill();
    phone.start().await;
    put(&phone, "notes", "second").await.unwrap();
    converged(&[&a, &phone]).await;
    for doc in ["first", "second"] {
        let page = a.client().history(&name("notes"), &id(doc), &HistoryQuery::default()).await.unwrap();
        let item = &page.items[0];
        assert_eq!((item.name.as_str(), item.through.as_str(), item.author), ("ann", "ann", phone.key()), "{item:#?}");
    }
    let devices = told(&a, &["device", "list", "ann"]).await;
    assert_eq!(devices[0]["key"], phone.key().to_string(), "{devices}");
    let kinds: Vec<_> =
        a.client().authors().await.unwrap().into_iter().map(|author| (author.kind, author.key)).collect();
    assert!(kinds.contains(&(AuthorKind::Device, phone.key().to_string())), "{kinds:?}");

    // Taken back: what it writes from now on counts nowhere, whatever it says; hers by other ways does.
    phone.client().set_link(&a.key(), LinkRule::Blocked).await.unwrap();
    told(&a, &["device", "revoke", &phone.key().to_string(), "--why", "stolen"]).await;
    put(&phone, "notes", "stolen").await.unwrap();
    phone.client().set_link(&a.key(), LinkRule::Open).await.unwrap();
    let token = told(&a, &["token", "issue", "ann"]).await;
    let ann = with_token(&a, token["token"].as_str().unwrap());
    write(&ann, "notes", "third", json!({})).await.unwrap();
    until("the device is out", async || {
        let devices = a.client().peers().await.map_err(|error| error.to_string())?;
        let connected = devices.iter().any(|peer| peer.node == phone.key() && peer.state == PeerState::Connected);
        if connected { Err(format!("{devices:?}")) } else { Ok(()) }
    })
    .await;
    assert_eq!(a.get("notes", "stolen").await.unwrap_err().code(), ErrorCode::DocumentNotFound);
    for doc in ["first", "second", "third"] {
        a.get("notes", doc).await.unwrap();
    }
    let output = a.cli(&["device", "list"], "").await;
    assert!(printed(&output).contains("no devices"), "{}", printed(&output));
}
