//! Owns what the simulation promises about itself, with few seeds: `ci/sim` runs the many.
//! Does not know single invariants; `ci/sim --plants` shows that they see what they should.
//! Invariant: a test needs no optimised build to end soon.

use millrace_ci::sim::history::History;
use millrace_ci::sim::run::run;

#[test]
fn a_seed_is_one_history_and_keeps_every_invariant() {
    for seed in 0..4 {
        let history = History::generate(seed);
        let all = vec![true; history.steps.len()];
        let first = run(&history, &all, false);
        assert_eq!(first.violation, None, "seed {seed}");
        let again = run(&History::generate(seed), &all, false);
        assert_eq!(first.trace, again.trace, "seed {seed} gave another history");
    }
}

#[test]
fn any_subset_of_the_steps_is_a_history() {
    let history = History::generate(5);
    for every in [2, 3] {
        let keep: Vec<bool> = (0..history.steps.len()).map(|n| n % every == 0).collect();
        assert_eq!(
            run(&history, &keep, false).violation,
            None,
            "every {every}th step"
        );
    }
}
