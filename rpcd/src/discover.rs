//! The OpenRPC description (<https://spec.open-rpc.org>) of the table of methods.

use i2plan_ipc::version::Version;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::error::Code;
use super::methods::{METHODS, Method};

/// The description.
#[must_use]
pub fn document() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let methods: Vec<_> = METHODS.iter().map(|method| describe(method, &mut generator)).collect();
    let schemas = generator.take_definitions(true);
    let errors: serde_json::Map<_, _> = Code::ALL
        .iter()
        .map(|code| {
            let data = json!({ "kind": code.kind() });
            let error = json!({ "code": code.number(), "message": code.meaning(), "data": data });
            (code.kind().to_owned(), error)
        })
        .collect();
    json!({
        "openrpc": "1.3.2",
        "info": {
            "title": "i2plan",
            "version": Version::current().version,
            "description": "A node of i2plan: WireGuard over I2P. Errors carry data: {kind, hint, remedy}.",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "methods": methods,
        "components": { "schemas": schemas, "errors": errors },
    })
}

fn describe(method: &Method, generator: &mut SchemaGenerator) -> Value {
    let takes = (method.takes)(generator);
    let takes = takes.as_value();
    let required =
        |name: &str| takes["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name));
    let params: Vec<_> = (method.params)()
        .iter()
        .map(|name| json!({ "name": name, "required": required(name), "schema": takes["properties"][name] }))
        .collect();
    // Those of JSON-RPC itself go without saying.
    let own = Code::ALL.iter().filter(|code| code.number() > Code::InvalidRequest.number());
    let errors: Vec<_> =
        own.map(|code| json!({ "$ref": format!("#/components/errors/{}", code.kind()) })).collect();
    json!({
        "name": method.name,
        "summary": method.summary,
        "paramStructure": "either",
        "params": params,
        "result": { "name": "result", "schema": (method.gives)(generator) },
        "errors": errors,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_committed_description_is_the_one_that_is_given() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openrpc.json");
        let there: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let same = there == document();
        assert!(same, "run `cargo run -p i2plan-rpcd --example openrpc > docs/openrpc.json`");
    }

    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|value| references(value, found));
            }
            _ => {}
        }
    }

    #[test]
    fn all_that_it_refers_to_is_in_it() {
        let document = document();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for reference in found {
            let target = document.pointer(reference.strip_prefix('#').unwrap());
            assert!(target.is_some_and(Value::is_object), "{reference}");
        }
    }

    #[test]
    fn optional_parameters_come_last_or_have_defaults() {
        let document = document();
        for method in document["methods"].as_array().unwrap() {
            for param in method["params"].as_array().unwrap() {
                assert!(!param["schema"].is_null(), "{} {}", method["name"], param["name"]);
            }
            let required: Vec<_> =
                method["params"].as_array().unwrap().iter().map(|param| param["required"] == true).collect();
            assert!(required.is_sorted_by(|a, b| a >= b), "{}", method["name"]);
        }
    }
}
