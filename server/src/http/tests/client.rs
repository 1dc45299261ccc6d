//! The SDK's remote client against the server: what goes in at one end comes out at the other.

use folkmoot::Client;
use folkmoot::api::*;
use futures_util::StreamExt as _;

use super::super::{Exposure, Listener};
use super::*;

async fn served() -> (World, Client) {
    let long = Duration::from_secs(20);
    let world = world_with(Limits { first_byte_timeout: long, header_timeout: long, ..limits() });
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), Exposure::LoopbackOnly, None).await.unwrap();
    let url = format!("http://{}", listener.address());
    tokio::spawn(listener.serve(world.front.clone()));
    // The first node is dead: the client goes on to the second.
    let client = Client::builder("http://127.0.0.1:9").url(url).token(TOKEN).build().unwrap();
    (world, client)
}

#[tokio::test]
async fn every_call_comes_back() {
    let (_world, client) = served().await;
    let c = "c".parse().unwrap();
    let id: folkmoot::DocId = "Zürich/1".parse().unwrap();
    let options = WriteOptions::default();
    let put = client.put(&c, id.clone(), "{\"x\":1}".into(), &options).await.unwrap();
    assert_eq!((put.status, put.id.clone()), (WriteStatus::Created, id.clone()));
    let got = client.get(&c, &id, &ReadOptions::default()).await.unwrap();
    assert_eq!((&got.json[..], got.heads.clone()), (&b"{\"x\":1}"[..], put.heads.clone()));
    let again = client.create(&c, Some(id.clone()), "{}".into(), &options).await.unwrap_err();
    assert_eq!(again.code(), ErrorCode::AlreadyExists);
    let stale = WriteOptions { precondition: Precondition::HeadsAreNot(vec![put.heads.clone()]), ..options.clone() };
    let refused = client.delete(&c, id.clone(), &stale).await.unwrap_err();
    assert_eq!((refused.code(), refused.current_heads()), (ErrorCode::PreconditionFailed, Some(&put.heads)));
    assert!(client.create(&c, None, "{}".into(), &options).await.is_ok());
    let edits = (0..5).map(|i| BulkOp::from(Edit::Put { id: format!("b{i}").parse().unwrap(), json: "{\n}".into() }));
    let outcomes = client.bulk(&c, edits.collect(), &BulkOptions::default()).await.unwrap();
    assert!(outcomes.len() == 5 && outcomes.iter().all(Result::is_ok));
    let page = client.list(&c, &ListQuery { limit: Some(3), ..ListQuery::default() }).await.unwrap();
    assert!(page.items.len() == 3 && page.next.is_some());
    let all: Vec<_> = export(Arc::new(client.clone()), c.clone(), Some("b".to_owned())).collect().await;
    assert_eq!(all.len(), 5);
    let settings = CollectionSettings {
        shards: 2,
        types: [("/t".to_owned(), FieldType::Text)].into(),
        ..CollectionSettings::default()
    };
    assert_eq!(client.configure(&c, settings.clone()).await.unwrap().settings, settings);
    assert_eq!(client.collections().await.unwrap().len(), 1);
    assert_eq!(client.conflicts(&c, &id).await.unwrap(), []);
    assert!(client.status().await.unwrap().readiness.ready);
    assert!(client.readiness().await.unwrap().ready);
    assert!(client.peers().await.unwrap().is_empty() && client.digests().await.unwrap().is_empty());
    client.set_link(&folkmoot::AuthorKey::new([7; 32]), LinkRule::Blocked).await.unwrap();
    assert_eq!(client.quarantine(&QuarantineQuery::default()).await.unwrap(), QuarantinePage::default());
    assert_eq!(client.verify().await.unwrap(), VerifyReport::default());
    assert_eq!(client.invite(&InviteOptions { uses: 3, ..InviteOptions::default() }).await.unwrap().uses, 3);
    client.drop_collection(&c).await.unwrap();
    assert_eq!(client.collection(&c).await.unwrap_err().code(), ErrorCode::CollectionNotFound);
}

#[tokio::test]
async fn changes_arrive_as_they_are_made() {
    let (_world, client) = served().await;
    let c = "c".parse().unwrap();
    let options = WriteOptions::default();
    client.put(&c, "a".parse().unwrap(), "{}".into(), &options).await.unwrap();
    let mut stream = client.subscribe(ChangesQuery::default());
    assert_eq!(stream.next().await.unwrap().unwrap().id.as_str(), "a");
    let (next, _) = tokio::join!(stream.next(), client.put(&c, "b".parse().unwrap(), "{}".into(), &options));
    assert_eq!(next.unwrap().unwrap().id.as_str(), "b");
    let bad = Since::After(ChangeToken::new("zzz").unwrap());
    let mut broken = client.subscribe(ChangesQuery { since: bad, ..ChangesQuery::default() });
    assert_eq!(broken.next().await.unwrap().unwrap_err().code(), ErrorCode::InvalidCursor);
    assert!(broken.next().await.is_none());
}

#[tokio::test]
async fn errors_keep_their_kind() {
    let (world, client) = served().await;
    let url = client.urls().remove(1);
    let stranger = Client::builder(url).build().unwrap();
    assert_eq!(stranger.status().await.unwrap_err().code(), ErrorCode::Unauthenticated);
    *world.database.0.broken.lock().unwrap() = Some(Error::new(ErrorCode::Damaged, "rot").hint("verify"));
    let error = client.get(&"c".parse().unwrap(), &"a".parse().unwrap(), &ReadOptions::default()).await.unwrap_err();
    assert_eq!((error.code(), error.detail(), error.advice()), (ErrorCode::Damaged, "rot", Some("verify")));
    assert!(error.request().is_some());
    let nowhere = Client::builder("http://127.0.0.1:9").attempts(2).build().unwrap();
    let error = nowhere
        .put(&"c".parse().unwrap(), "a".parse().unwrap(), "{}".into(), &WriteOptions::default())
        .await
        .unwrap_err();
    assert_eq!((error.code(), error.code().exit_code()), (ErrorCode::Unreachable, ExitCode::Unreachable));
    for bad in ["", "127.0.0.1:1", "ftp://x", "http://", "http://x?y"] {
        assert!(Client::builder(bad).build().is_err(), "{bad}");
    }
}
