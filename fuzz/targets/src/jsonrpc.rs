//! JSON-RPC documents: what comes over the gateway's sockets, as far as it is understood without a node.

use i2plan_ipc::ErrorKind;
use i2plan_rpcd::discover::document;
use i2plan_rpcd::error::{Code, Error};
use i2plan_rpcd::lines::{Lines, Next};
use i2plan_rpcd::message::{
    Answers, Call, Document, Id, Item, Json, MAX_BATCH, MAX_DOCUMENT, failure, read, success,
};
use i2plan_rpcd::methods::{self, Dispatch, begin};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::{Seeds, seed};

/// Runs the target.
pub fn run(input: &[u8]) {
    let (answer, expected) = match read(input) {
        Err(error) => {
            check_refusal(input, &error);
            (Some(failure(Id::NULL, &error)), 1)
        }
        Ok(document) => {
            assert!(input.len() <= MAX_DOCUMENT);
            assert!(serde_json::from_slice::<&RawValue>(input).is_ok());
            match document {
                Document::Single(item) => {
                    let expected = usize::from(is_answered(&item));
                    (answer(item), expected)
                }
                Document::Batch(items) => {
                    assert!((1..=MAX_BATCH).contains(&items.len()));
                    let expected = items.iter().filter(|item| is_answered(item)).count();
                    let mut answers = Answers::default();
                    items.into_iter().filter_map(answer).for_each(|answer| answers.push(answer));
                    (answers.finish(), expected)
                }
            }
        }
    };
    match answer {
        None => assert_eq!(expected, 0, "a request without an answer"),
        Some(answer) => {
            assert!(!answer.contains(&b'\n'), "an answer is one line");
            check(&answer, expected);
        }
    }
    check_lines(input);
}

fn check_refusal(input: &[u8], error: &Error) {
    match error.code {
        Code::Parse => {
            let text = std::str::from_utf8(input);
            assert!(text.is_err() || serde_json::from_slice::<&RawValue>(input).is_err());
        }
        Code::InvalidRequest => {
            assert!(input.len() > MAX_DOCUMENT || input.trim_ascii_start().starts_with(b"["));
        }
        other => panic!("{other:?} before any method was named"),
    }
}

fn is_answered(item: &Item<'_>) -> bool {
    match item {
        Item::Refused(..) => true,
        Item::Call(call) => call.id.is_some(),
    }
}

/// Every question that the node would be asked has null as its answer.
fn answer(item: Item<'_>) -> Option<Json> {
    match item {
        Item::Refused(id, error) => Some(failure(id, &error)),
        Item::Call(Call { id, method, params }) => {
            let result = begin(&method, params);
            if let Err(error) = &result {
                let expected = [Code::MethodNotFound, Code::Api(ErrorKind::Invalid)];
                assert!(expected.contains(&error.code), "{error:?}");
            }
            id.map(|id| match result {
                Ok(Dispatch::Describe) => {
                    success(id, &methods::json(&document()).expect("it can be written"))
                }
                Ok(Dispatch::Ask(_)) => success(id, b"null"),
                Err(error) => failure(id, &error),
            })
        }
    }
}

/// An answer is a response object, or an array of them.
fn check(answer: &[u8], expected: usize) {
    let answers: Vec<&RawValue> = if answer.starts_with(b"[") {
        serde_json::from_slice(answer).expect("an array")
    } else {
        vec![serde_json::from_slice(answer).expect("an object")]
    };
    assert_eq!(answers.len(), expected);
    for answer in answers {
        let members: std::collections::BTreeMap<&str, &RawValue> =
            serde_json::from_str(answer.get()).expect("an object");
        let names: Vec<_> = members.keys().copied().collect();
        assert!(matches!(names[..], ["error" | "id", "id" | "jsonrpc", "jsonrpc" | "result"]), "{names:?}");
        assert_eq!(members["jsonrpc"].get(), "\"2.0\"");
        if let Some(error) = members.get("error") {
            let error: Value = serde_json::from_str(error.get()).expect("an object");
            let code = error["code"].as_i64().and_then(Code::of).expect("a documented code");
            assert_eq!(error["data"]["kind"], code.kind());
        }
    }
}

/// Documents are the lines that are not empty, whatever the pieces in which they come.
fn check_lines(input: &[u8]) {
    let mut found = Vec::new();
    let mut lines = Lines::default();
    let piece = usize::from(input.first().copied().unwrap_or(1)).max(1);
    for piece in input.chunks(piece) {
        assert!(piece.len() <= lines.room() || input.len() > MAX_DOCUMENT);
        lines.push(piece);
        loop {
            match lines.take() {
                Next::Document(document) => found.push(document),
                Next::Partial => break,
                Next::TooLong => return,
            }
        }
    }
    found.extend(lines.finish());
    let expected: Vec<_> =
        input.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()).collect();
    // Form feeds are white space to ASCII, and not to JSON.
    if !input.contains(&b'\x0c') {
        assert!(found.iter().map(|document| &document[..]).eq(expected));
    }
}

/// What a fuzzer should begin with.
#[must_use]
pub fn seeds() -> Seeds {
    let call = |method: &str, params: Value| {
        json!({ "jsonrpc": "2.0", "method": method, "params": params, "id": 1 }).to_string()
    };
    let batch = [call("status", json!([])), r#"{"jsonrpc":"2.0","method":"a"}"#.to_owned(), "1".to_owned()];
    vec![
        seed("status", r#"{"jsonrpc":"2.0","method":"status","id":1}"#),
        seed("notification", r#"{"jsonrpc":"2.0","method":"config.reload"}"#),
        seed("batch", format!("[{}]", batch.join(","))),
        seed("batch-empty", "[]"),
        seed("invite", call("invite.create", json!({ "expiry": "24h", "max_uses": -1 }))),
        seed("invite-by-position", call("invite.create", json!([3600, 5]))),
        seed("join", call("invite.accept", json!({ "invite_code": "i2plan://AAAA" }))),
        seed("ban", call("bans.add", json!({ "node_id": "a", "reason": "manual", "duration": "1h" }))),
        seed("config", call("config.set", json!({ "key": "mesh.peer_timeout", "value": 60 }))),
        seed("events", call("events.poll", json!([{ "run": 1, "number": 2 }, 1000, true]))),
        seed("discover", call("rpc.discover", json!({}))),
        seed("unknown-method", call("nothing", json!([[[[]]]]))),
        seed("unknown-member", r#"{"jsonrpc":"2.0","method":"status","id":"x","more":{"a":[1e400]}}"#),
        seed("twice", r#"{"jsonrpc":"2.0","method":"status","id":1,"id":2}"#),
        seed("id-fraction", r#"{"jsonrpc":"2.0","method":"status","id":-1.50E+400}"#),
        seed("id-surrogate", r#"{"jsonrpc":"2.0","method":"\u0073tatus","id":"\ud800"}"#),
        seed("no-utf8", b"{\"jsonrpc\":\"2.0\",\"method\":\"\xff\"}".to_vec()),
        seed("byte-order-mark", "\u{feff}{}"),
        seed("lines", "{}\r\n\n [] \n{"),
    ]
}
