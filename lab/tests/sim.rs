//! Simulated meshes: small here, to be quick; `lab sim` runs large ones. What must always hold is checked in each of
//! them after every event; that the check notices what is wrong is tested next to it.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use lab::sim::{Options, Scenario, run};
use serde_json::Value;

fn simulate_some(nodes: usize, scenario: Scenario, seed: u64, loss: f64) -> Value {
    serde_json::to_value(run(Options { nodes, seed, loss, scenario, pause: 6, liars: None }).unwrap())
        .unwrap()
}

fn simulate(scenario: Scenario, seed: u64, loss: f64) -> Value {
    simulate_some(40, scenario, seed, loss)
}

/// All news reached all who should know it, within so many rounds.
#[track_caller]
fn spread(report: &Value, rounds: f64) {
    let news = report["news"].as_array().unwrap();
    assert!(!news.is_empty());
    for news in news {
        assert!(news["all_rounds"].as_f64().is_some_and(|all| all <= rounds), "{news}");
    }
}

/// Nobody was said to be out of reach: that, and the answer, all tell each other, and the more members there are, the
/// more often it would happen.
#[track_caller]
fn unsuspected(report: &Value) {
    assert!(report["carried"]["entry"].is_object());
    assert!(report["carried"]["suspicion"].is_null(), "{}", report["carried"]);
}

#[test]
fn all_follows_from_the_seed() {
    let trace = |seed| simulate(Scenario::Calm, seed, 0.1)["trace"].clone();
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}

#[test]
fn news_reaches_all_in_spite_of_loss_and_nobody_is_given_up() {
    let report = simulate(Scenario::Calm, 1, 0.2);
    assert_eq!(report["news"].as_array().unwrap().len(), 5);
    spread(&report, 12.0);
    assert_eq!(report["false_verdicts"], 0.0);
    assert!(report["bytes_per_second"].as_f64().unwrap() < 300.0);
    unsuspected(&report);
}

#[test]
fn news_reaches_all_while_nodes_restart() {
    spread(&simulate(Scenario::Restarts, 1, 0.2), 12.0);
}

#[test]
fn news_reaches_all_while_routers_fail() {
    // Who is without a router for ten minutes hears nothing in this time.
    let report = simulate_some(40, Scenario::Outages, 1, 0.2);
    for news in report["news"].as_array().unwrap() {
        assert!(news["half"].is_f64(), "{news}");
    }
}

#[test]
fn the_founder_is_not_needed() {
    spread(&simulate(Scenario::FounderGone, 1, 0.2), 12.0);
}

/// Before those that fell silent together were thought to be back together, each had to say so to everybody.
#[test]
fn halves_agree_again() {
    let report = simulate(Scenario::Partition, 1, 0.2);
    let agreement = &report["news"][1];
    assert_eq!(agreement["what"], "agreement after the partition");
    assert!(agreement["all_rounds"].as_f64().is_some_and(|all| all <= 10.0), "{agreement}");
}

/// Before members introduced themselves, those who did not know each other yet did not answer each other.
#[test]
fn many_can_join_at_once() {
    let report = simulate_some(100, Scenario::Joins, 1, 0.2);
    spread(&report, 12.0);
    unsuspected(&report);
}

/// Where an inviter has given the same addresses twice, all agree whose they are, and the other learns that it has lost
/// them.
#[test]
fn addresses_that_were_given_twice_have_one_holder() {
    spread(&simulate(Scenario::Collisions, 1, 0.2), 12.0);
}

/// A fifth of all forge, replay, flood, make up identities and lie in two dozen ways. What must hold for the others is
/// checked after every event, with the rounds within which they hear of each other; beyond that nobody is wrongly held
/// to be out of reach.
#[test]
fn liars_gain_nothing() {
    let options =
        Options { nodes: 20, seed: 1, loss: 0.02, scenario: Scenario::Malicious, pause: 3, liars: Some(4) };
    let report = serde_json::to_value(run(options).unwrap()).unwrap();
    spread(&report, 12.0);
    assert_eq!(report["false_verdicts"], 0.0, "{}", report["verdicts"]);
}

#[test]
fn options_have_bounds() {
    let refused = |options| run(options).unwrap_err().to_string();
    let options = Options { nodes: 24, seed: 1, loss: 0.1, scenario: Scenario::Calm, pause: 8, liars: None };
    assert!(refused(Options { nodes: 1, ..options }).contains("2 to 20000 nodes"));
    assert!(refused(Options { loss: 0.95, ..options }).contains("0 to 90 %"));
    assert!(refused(Options { pause: 0, ..options }).contains("1 to 60 minutes"));
    assert!(refused(Options { liars: Some(13), ..options }).contains("one to half of the nodes"));
}
