//! Simulated meshes: small here, to be quick; `lab sim` runs large ones.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use lab::sim::{Options, Scenario, run};
use serde_json::Value;

fn simulate(scenario: Scenario, seed: u64, loss: f64) -> Value {
    serde_json::to_value(run(Options { nodes: 24, seed, loss, scenario }).unwrap()).unwrap()
}

/// All news reached all who should know it.
fn spread(report: &Value) {
    for news in report["news"].as_array().unwrap() {
        assert!(news["all"].is_f64(), "{news}");
    }
}

#[test]
fn all_follows_from_the_seed() {
    let trace = |seed| simulate(Scenario::Calm, seed, 0.1)["trace"].clone();
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}

#[test]
fn news_reaches_all_in_spite_of_loss() {
    let report = simulate(Scenario::Calm, 1, 0.2);
    assert_eq!(report["news"].as_array().unwrap().len(), 4);
    spread(&report);
    assert_eq!(report["false_verdicts"], 0.0);
}

#[test]
fn news_reaches_all_while_nodes_restart_and_without_the_founder() {
    spread(&simulate(Scenario::Restarts, 1, 0.02));
    spread(&simulate(Scenario::FounderGone, 1, 0.02));
}

#[test]
fn halves_agree_again_and_newcomers_are_known() {
    spread(&simulate(Scenario::Partition, 1, 0.02));
    spread(&simulate(Scenario::Joins, 1, 0.02));
}

#[test]
fn collisions_heal() {
    spread(&simulate(Scenario::Collisions, 1, 0.02));
}

/// Before accusers that are refuted again and again were ignored, colluding liars had others held to be out of reach.
#[test]
fn liars_have_nobody_held_to_be_out_of_reach() {
    let report = simulate(Scenario::Malicious, 1, 0.02);
    spread(&report);
    assert_eq!(report["false_verdicts"], 0.0);
}
