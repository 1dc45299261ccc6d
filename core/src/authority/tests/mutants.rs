//! Every planted bug must be noticed: by the comparison of engine and reference when only the engine has it, and by a
//! scenario or a property when both have it.

use std::panic::catch_unwind;

use super::attack::attack;
use super::histories::{build, engine_agrees};
use super::properties::{Tried, properties};
use super::world::Random;
use super::{erasure, evidence, fields, peppers, rights, scenarios, succession, withdraw};
use crate::authority::{Mutant, Site, plant};

/// Mends the rule on this thread even when a check panics.
struct Planted;

impl Planted {
    fn new(site: Site, mutant: Mutant) -> Self {
        plant(Some((site, mutant)));
        Self
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        plant(None);
    }
}

fn differs_from_the_reference(mutant: Mutant) -> bool {
    (0..20_000).any(|seed| {
        let mut random = Random::new(seed);
        let world = build(&mut random, 50);
        let attacker = random.pick(&["u0", "s0", "a0"]);
        let world = attack(&mut random, &world, attacker, 8);
        let _planted = Planted::new(Site::Engine, mutant);
        engine_agrees(&mut random, &world).is_err()
    })
}

fn breaks_a_scenario(mutant: Mutant) -> Option<&'static str> {
    let _planted = Planted::new(Site::Both, mutant);
    scenarios::ALL
        .iter()
        .chain(rights::ALL)
        .chain(fields::ALL)
        .chain(erasure::ALL)
        .chain(succession::ALL)
        .chain(evidence::ALL)
        .chain(peppers::ALL)
        .chain(withdraw::ALL)
        .find(|(_, scenario)| catch_unwind(scenario).is_err())
        .map(|(name, _)| *name)
}

fn breaks_a_property(mutant: Mutant) -> bool {
    (0..40).any(|seed| {
        let mut random = Random::new(seed);
        let world = build(&mut random, 50);
        let _planted = Planted::new(Site::Both, mutant);
        properties(&mut random, &world, &mut Tried::default()).is_err()
    })
}

#[test]
fn the_comparison_notices_every_bug_of_the_engine() {
    let survivors: Vec<_> = Mutant::ALL.into_iter().filter(|mutant| !differs_from_the_reference(*mutant)).collect();
    assert!(survivors.is_empty(), "{survivors:?}");
}

#[test]
fn scenarios_and_properties_notice_every_bug_of_the_rule() {
    let survivors: Vec<_> = Mutant::ALL
        .into_iter()
        .filter(|mutant| breaks_a_scenario(*mutant).is_none() && !breaks_a_property(*mutant))
        .collect();
    assert!(survivors.is_empty(), "{survivors:?}");
}
