//! Old and doubled data directories: no author ever uses a number twice, and what exists anywhere is brought back.

use std::collections::BTreeSet;
use std::path::Path;

use folkmoot_tests::processes::{Node, converged, printed, until};

use super::{code, copy, fill, held, knows_others, no_forks};

/// Two nodes with the same documents, the first of them stopped when it knew where the other is.
async fn one_of_two_stopped(folder: &Path) -> (Node, Node, BTreeSet<String>) {
    let mut a = Node::found(folder, "a").await;
    let b = Node::join(folder, "b", &a).await;
    let written = fill(&a, "early", 10).await;
    converged(&[&a, &b]).await;
    // A copy must know it too.
    knows_others(&a).await;
    a.kill();
    (a, b, written)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_old_directory_gets_its_later_writes_back() {
    let folder = tempfile::tempdir().unwrap();
    let (mut a, b, mut expected) = one_of_two_stopped(folder.path()).await;
    let old = folder.path().join("old");
    copy(a.data(), &old);
    a.start().await;
    expected.extend(fill(&a, "late", 10).await);
    converged(&[&a, &b]).await;
    a.kill();
    copy(&old, a.data());
    a.start().await;
    expected.extend(fill(&a, "after", 10).await);
    converged(&[&a, &b]).await;
    for node in [&a, &b] {
        assert_eq!(held(node).await, expected);
        node.assert_sound().await;
        no_forks(node).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_clone_has_is_taken_over_by_repair() {
    let folder = tempfile::tempdir().unwrap();
    let (mut a, b, mut expected) = one_of_two_stopped(folder.path()).await;
    let mut clone = Node::new(folder.path(), "clone");
    copy(a.data(), clone.data());
    a.start().await;
    clone.start().await;
    assert_eq!(a.key(), clone.key());
    // Both run as the same member and take writes at the same time.
    let (of_a, of_clone) = tokio::join!(fill(&a, "a", 15), fill(&clone, "clone", 15));
    expected.extend(of_a);
    expected.extend(of_clone);
    until("the other sees both of them", async || {
        let missing = expected.difference(&held(&b).await).count();
        if missing == 0 { Ok(()) } else { Err(format!("{missing} are missing")) }
    })
    .await;
    // What the clone writes with nobody there only the clone has.
    b.freeze();
    expected.extend(fill(&clone, "clone-alone", 5).await);
    clone.kill();
    a.kill();
    b.thaw();
    let taken = a.cli(&["--json", "repair", "--from", clone.data().to_str().unwrap()], "").await;
    assert_eq!(code(&taken), 0, "{}", printed(&taken));
    a.start().await;
    expected.extend(fill(&a, "after", 5).await);
    converged(&[&a, &b]).await;
    for node in [&a, &b] {
        assert_eq!(held(node).await, expected);
        node.assert_sound().await;
        no_forks(node).await;
    }
}
