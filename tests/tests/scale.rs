//! Many peers agree soon. The figures of docs/scale.md come from the same code: `folkmoot-sim scale`.

use std::time::Duration;

use folkmoot_tests::scale::{Options, run};
use folkmoot_tests::simulator::with_stack;

#[test]
fn a_thousand_peers_agree_within_two_seconds_after_a_split() {
    let options = Options { idle: Duration::from_secs(2), load: Duration::from_secs(3), ..Options::default() };
    assert_eq!((options.peers, options.split), (1_000, Duration::from_secs(20)));
    let figures = with_stack(|| run(options)).expect("a network that agrees");
    println!("{figures:?}");
    assert!(figures.reconverged_ms < 2_000.0, "{figures:?}");
    assert!(figures.everywhere_max_ms < 2_000.0, "{figures:?}");
}
