//! How small a rise is said to be found.

use super::{super::power::smallest_change, *};

#[test]
fn where_a_part_of_the_stake_is_on_steps_a_rise_has_to_be_larger_to_be_found() {
    let (mut judge, p) = (new_judge(), Parameters::default());
    run(&mut judge, &mut Service::new(21, 3, 0.3), 600, 200, |_, _| {});
    let i = Indicator::CpuPerWork as usize;
    let found = |steps: bool| {
        let tolerance = Tolerance { steps, ..p.indicators[i].tolerance };
        smallest_change(&judge.tracks()[i], &tolerance, 13.0, 60, &p).expect("a large one is found")
    };
    assert!(found(true) > found(false), "{} {}", found(true), found(false));
}
