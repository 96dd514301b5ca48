//! Quantiles, medians of runs, and numbers for people.

use std::time::Duration;

/// What pinging showed, and quantiles of measured times.
pub use i2planctl::ping::series::{Summary as Pings, Times};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::Failure;

/// Megabits per second.
#[must_use]
pub fn mbit(bytes: u64, time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let bits = bytes as f64 * 8.0;
    bits / time.as_secs_f64().max(1e-9) / 1e6
}

/// What several runs of a benchmark came to.
#[derive(Debug, Default)]
pub struct Series(Vec<Value>);

impl Series {
    /// Adds the result of a run.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn push(&mut self, result: &impl Serialize) -> Result<(), Failure> {
        self.0.push(serde_json::to_value(result).map_err(|error| Failure::new(error.to_string()))?);
        Ok(())
    }

    /// The medians of all runs, in the form of one.
    #[must_use]
    pub fn medians(&self) -> Value {
        medians(&self.0.iter().collect::<Vec<_>>())
    }

    /// The medians as JSON for a program; of several runs, with their number under `name` and each of them in `runs`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn to_json(&self, name: &str) -> Result<String, Failure> {
        let mut medians = self.medians();
        if let (Value::Object(fields), 2..) = (&mut medians, self.0.len()) {
            fields.insert(name.to_owned(), self.0.len().into());
            fields.insert("runs".to_owned(), Value::Array(self.0.clone()));
        }
        serde_json::to_string_pretty(&medians).map_err(|error| Failure::new(error.to_string()))
    }
}

/// Prints those of [`Series::medians`] that are numbers, for people.
pub fn print_medians(medians: &Value) {
    for (name, value) in medians.as_object().into_iter().flatten() {
        if let Some(number) = value.as_f64() {
            println!("{name:<32} {number:>8.2}");
        }
    }
}

/// The medians of values of the same form. What is missing in one run, such as what never came about, counts as the
/// largest; of words, the most frequent counts. Lists that differ in length have none.
fn medians(values: &[&Value]) -> Value {
    let Some(Some(first)) =
        values.iter().map(|value| (!value.is_null()).then_some(*value)).max_by_key(Option::is_some)
    else {
        return Value::Null;
    };
    match first {
        Value::Object(fields) => {
            let median = |key: &String| {
                let of_key: Vec<_> = values.iter().map(|value| &value[key]).collect();
                (key.clone(), medians(&of_key))
            };
            Value::Object(fields.keys().map(median).collect::<Map<_, _>>())
        }
        Value::Array(items) => {
            if values.iter().any(|value| value.as_array().map(Vec::len) != Some(items.len())) {
                return Value::Null;
            }
            let median = |index| medians(&values.iter().map(|value| &value[index]).collect::<Vec<_>>());
            Value::Array((0..items.len()).map(median).collect())
        }
        Value::Number(_) => median(values),
        _ => {
            let count = |value: &&&Value| values.iter().filter(|other| *other == *value).count();
            values.iter().rev().max_by_key(count).map_or(Value::Null, |value| (*value).clone())
        }
    }
}

fn median(values: &[&Value]) -> Value {
    let mut sorted: Vec<&Value> = values.to_vec();
    sorted.sort_by(|one, other| {
        let number = |value: &Value| value.as_f64().unwrap_or(f64::INFINITY);
        number(one).total_cmp(&number(other))
    });
    let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    if low == high {
        return low.clone();
    }
    let middle = low.as_f64().zip(high.as_f64()).map(|(low, high)| f64::midpoint(low, high));
    middle.map_or(Value::Null, Value::from)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rates_are_in_megabits() {
        assert!((mbit(1_000_000, Duration::from_secs(1)) - 8.0).abs() < 1e-9);
    }

    #[test]
    fn medians_have_the_form_of_a_run() {
        let mut series = Series::default();
        for (ratio, rounds, word, loads) in [
            (0.9, json!(3), "queue", json!([1.0, 2.0])),
            (0.1, json!(null), "queue", json!([3.0, 4.0])),
            (0.5, json!(5), "path", json!([2.0, 9.0])),
        ] {
            let run = json!({ "ratio": ratio, "deep": { "rounds": rounds }, "word": word, "loads": loads });
            series.push(&run).unwrap();
        }
        let expected = json!({ "ratio": 0.5, "deep": { "rounds": 5 }, "word": "queue", "loads": [2.0, 4.0] });
        assert_eq!(series.medians(), expected);
        let printed: Value = serde_json::from_str(&series.to_json("seeds").unwrap()).unwrap();
        assert_eq!((&printed["seeds"], &printed["runs"][1]["ratio"]), (&json!(3), &json!(0.1)));
        series
            .push(&json!({ "ratio": 0.7, "deep": { "rounds": null }, "word": "path", "loads": [] }))
            .unwrap();
        let medians = series.medians();
        assert_eq!(medians["ratio"], json!(0.6));
        assert_eq!((&medians["loads"], &medians["deep"]["rounds"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn one_run_is_printed_as_it_is() {
        let mut series = Series::default();
        let run = json!({ "ratio": 0.5, "mtu": 1280, "available": true, "none": null });
        series.push(&run).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&series.to_json("seeds").unwrap()).unwrap(), run);
    }
}
