//! JSON-RPC 2.0 (<https://www.jsonrpc.org/specification>): what a document asks, and how it is answered.
//!
//! Where the specification leaves a choice: members of a request that it does not know are ignored; a duplicate
//! member makes the request invalid; an id is answered as it was written, to the last digit.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::error::{Code, Error};

/// Longest document, bytes.
pub const MAX_DOCUMENT: usize = 64 * 1024;

/// Most calls of a batch.
pub const MAX_BATCH: usize = 50;

/// JSON on its way out. It may hold an invite code.
pub type Json = Zeroizing<Vec<u8>>;

/// A document that could be read.
#[derive(Debug)]
pub enum Document<'a> {
    /// One request.
    Single(Item<'a>),
    /// Several.
    Batch(Vec<Item<'a>>),
}

/// What stands in the place of a request.
#[derive(Debug)]
pub enum Item<'a> {
    /// A request.
    Call(Call<'a>),
    /// Something else, and its answer.
    Refused(Id<'a>, Error),
}

/// A request.
#[derive(Debug)]
pub struct Call<'a> {
    /// What its answer is called by; without one it is a notification, which gets none.
    pub id: Option<Id<'a>>,
    /// What is to be done.
    pub method: Cow<'a, str>,
    /// An array or an object.
    pub params: Option<&'a RawValue>,
}

/// An id: a string, a number or null, as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id<'a>(&'a str);

impl Id<'_> {
    /// The id of what could not be read.
    pub const NULL: Id<'static> = Id("null");
}

/// Reads a document.
///
/// # Errors
/// If it is to be answered as a whole, with [`Id::NULL`].
pub fn read(document: &[u8]) -> Result<Document<'_>, Error> {
    if document.len() > MAX_DOCUMENT {
        return Err(too_long());
    }
    let bad = |what: &str| Error::new(Code::Parse, what);
    let text = std::str::from_utf8(document).map_err(|_| bad("the text is not UTF-8"))?;
    if text.starts_with('\u{feff}') {
        return Err(bad("JSON does not begin with a byte order mark"));
    }
    let value: &RawValue =
        serde_json::from_str(text).map_err(|error| bad(&format!("no JSON at column {}", error.column())))?;
    if !value.get().starts_with('[') {
        return Ok(Document::Single(item(value)));
    }
    let values: Vec<&RawValue> = serde_json::from_str(value.get()).map_err(|_| bad("no JSON"))?;
    match values.len() {
        0 => Err(Error::new(Code::InvalidRequest, "a batch of no requests")),
        1..=MAX_BATCH => Ok(Document::Batch(values.into_iter().map(item).collect())),
        count => Err(Error::new(Code::InvalidRequest, &format!("a batch of {count} requests"))
            .with_hint(format!("send at most {MAX_BATCH} at once"))),
    }
}

/// The answer to a document that is longer than [`MAX_DOCUMENT`].
#[must_use]
pub fn too_long() -> Error {
    Error::new(Code::InvalidRequest, &format!("a document has at most {MAX_DOCUMENT} bytes"))
}

fn item(value: &RawValue) -> Item<'_> {
    let invalid = |what: &str| Error::new(Code::InvalidRequest, what);
    if !value.get().starts_with('{') {
        return Item::Refused(Id::NULL, invalid("a request is an object"));
    }
    let Ok(members) = serde_json::from_str::<Members<'_>>(value.get()) else {
        return Item::Refused(Id::NULL, invalid("the names of its members cannot be read"));
    };
    let Members { jsonrpc, method, params, id, twice } = members;
    if let Some(twice) = twice {
        return Item::Refused(Id::NULL, invalid(&format!("duplicate {twice}")));
    }
    let id = match id.map(RawValue::get) {
        None => None,
        Some(text)
            if text == "null" || text.starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit()) =>
        {
            Some(Id(text))
        }
        Some(_) => return Item::Refused(Id::NULL, invalid("an id is a string, a number or null")),
    };
    let refused = |what| Item::Refused(id.unwrap_or(Id::NULL), invalid(what));
    let text = |value: Option<&'_ RawValue>| serde_json::from_str::<String>(value?.get()).ok();
    if text(jsonrpc).as_deref() != Some("2.0") {
        return refused("jsonrpc must be \"2.0\"");
    }
    let Some(method) = text(method) else { return refused("method must be a string") };
    if params.is_some_and(|params| !params.get().starts_with(['[', '{'])) {
        return refused("params must be an array or an object; without any, leave it out");
    }
    Item::Call(Call { id, method: Cow::Owned(method), params })
}

/// The members of a request, unread.
#[derive(Default)]
struct Members<'a> {
    jsonrpc: Option<&'a RawValue>,
    method: Option<&'a RawValue>,
    params: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    twice: Option<&'static str>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Member {
    Jsonrpc,
    Method,
    Params,
    Id,
    #[serde(other)]
    Other,
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Members::default();
                while let Some(member) = map.next_key()? {
                    let (place, name) = match member {
                        Member::Jsonrpc => (&mut members.jsonrpc, "jsonrpc"),
                        Member::Method => (&mut members.method, "method"),
                        Member::Params => (&mut members.params, "params"),
                        Member::Id => (&mut members.id, "id"),
                        Member::Other => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    if place.replace(map.next_value()?).is_some() {
                        members.twice.get_or_insert(name);
                    }
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// The answer to a request that was done.
#[must_use]
pub fn success(id: Id<'_>, result: &[u8]) -> Json {
    answer(id, "result", result)
}

/// The answer to one that was not.
#[must_use]
pub fn failure(id: Id<'_>, error: &Error) -> Json {
    // Strings and numbers only: that cannot fail.
    answer(id, "error", &serde_json::to_vec(error).unwrap_or_else(|_| b"null".to_vec()))
}

fn answer(id: Id<'_>, member: &str, value: &[u8]) -> Json {
    let parts: [&[u8]; 7] =
        [b"{\"jsonrpc\":\"2.0\",\"", member.as_bytes(), b"\":", value, b",\"id\":", id.0.as_bytes(), b"}"];
    // At once, so that nothing of it stays behind in a buffer that was too small.
    let mut out = Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| part.len()).sum()));
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

/// The answers to a batch.
#[derive(Debug, Default)]
pub struct Answers {
    answers: Vec<Json>,
    len: usize,
}

impl Answers {
    /// Adds one.
    pub fn push(&mut self, answer: Json) {
        self.len += answer.len() + 1;
        self.answers.push(answer);
    }

    /// Their length, bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// The document that they are; none if there is nothing to answer.
    #[must_use]
    pub fn finish(self) -> Option<Json> {
        if self.answers.is_empty() {
            return None;
        }
        let mut out = Zeroizing::new(Vec::with_capacity(self.len + 1));
        for (index, answer) in self.answers.iter().enumerate() {
            out.push(if index == 0 { b'[' } else { b',' });
            out.extend_from_slice(answer);
        }
        out.push(b']');
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// Everything is done, with the method as result; nothing is notified.
    fn exchange(document: &[u8]) -> Option<Value> {
        let answer = |item: Item<'_>| match item {
            Item::Refused(id, error) => Some(failure(id, &error)),
            Item::Call(Call { id, method, .. }) => {
                id.map(|id| success(id, &serde_json::to_vec(&method).unwrap()))
            }
        };
        let out = match read(document) {
            Err(error) => Some(failure(Id::NULL, &error)),
            Ok(Document::Single(item)) => answer(item),
            Ok(Document::Batch(items)) => {
                let mut answers = Answers::default();
                items.into_iter().filter_map(answer).for_each(|answer| answers.push(answer));
                answers.finish()
            }
        };
        out.map(|out| {
            assert!(!out.contains(&b'\n'), "an answer is one line");
            serde_json::from_slice(&out).unwrap()
        })
    }

    fn refused(document: impl AsRef<[u8]>, code: i64) {
        let document = document.as_ref();
        let shown = String::from_utf8_lossy(document);
        let answer = exchange(document).unwrap_or_else(|| panic!("no answer to {shown}"));
        assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(code), &Value::Null), "{shown}");
    }

    #[test]
    fn the_examples_of_the_specification() {
        refused(r#"{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]"#, -32_700);
        refused(r#"{"jsonrpc": "2.0", "method": 1, "params": "bar"}"#, -32_600);
        refused(
            r#"[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"}, {"jsonrpc": "2.0", "method"]"#,
            -32_700,
        );
        refused("[]", -32_600);
        for (batch, count) in [("[1]", 1), ("[1,2,3]", 3)] {
            let answers = exchange(batch.as_bytes()).unwrap();
            let answers = answers.as_array().unwrap();
            assert_eq!(answers.len(), count);
            assert!(
                answers.iter().all(|answer| answer["error"]["code"] == -32_600 && answer["id"].is_null())
            );
        }
        let mixed = r#"[
            {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
            {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
            {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
            {"foo": "boo"},
            {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
            {"jsonrpc": "2.0", "method": "get_data", "id": "9"}
        ]"#;
        let answers = exchange(mixed.as_bytes()).unwrap();
        let ids: Vec<_> = answers.as_array().unwrap().iter().map(|answer| answer["id"].clone()).collect();
        assert_eq!(ids, [json!("1"), json!("2"), Value::Null, json!("5"), json!("9")]);
        let notifications =
            r#"[{"jsonrpc":"2.0","method":"a","params":[1]},{"jsonrpc":"2.0","method":"b","params":[7]}]"#;
        assert_eq!(exchange(notifications.as_bytes()), None);
        assert_eq!(exchange(br#"{"jsonrpc":"2.0","method":"a"}"#), None);
    }

    #[test]
    fn what_is_no_json_is_a_parse_error() {
        for text in
            ["", " ", "{", "nul", "{}{}", "{} x", "'a'", "[1,]", "01", "\u{feff}{}", "{\"a\":\u{1}}", "NaN"]
        {
            refused(text, -32_700);
        }
        refused(b"\xff\xfe{}", -32_700);
        refused(b"{\"jsonrpc\":\"2.0\",\"method\":\"\xc3\x28\",\"id\":1}", -32_700);
    }

    #[test]
    fn what_is_no_request_is_invalid() {
        for text in [
            "null",
            "1",
            "\"x\"",
            "{}",
            r#"{"jsonrpc":"1.0","method":"a"}"#,
            r#"{"jsonrpc":2.0,"method":"a"}"#,
            r#"{"method":"a"}"#,
            r#"{"jsonrpc":"2.0"}"#,
            r#"{"jsonrpc":"2.0","method":null}"#,
            r#"{"jsonrpc":"2.0","method":"\ud800"}"#,
            r#"{"jsonrpc":"2.0","method":"a","params":null}"#,
            r#"{"jsonrpc":"2.0","method":"a","params":7}"#,
            r#"{"jsonrpc":"2.0","method":"a","id":true}"#,
            r#"{"jsonrpc":"2.0","method":"a","id":[]}"#,
            r#"{"jsonrpc":"2.0","method":"a","id":{}}"#,
            r#"{"jsonrpc":"2.0","method":"a","method":"b","id":1}"#,
            r#"{"jsonrpc":"2.0","method":"a","id":1,"id":2}"#,
            r#"{"JSONRPC":"2.0","method":"a"}"#,
        ] {
            refused(text, -32_600);
        }
        // Whose id can be read is told which of its requests it was.
        let answer = exchange(br#"{"jsonrpc":"2.0","method":1,"id":"x"}"#).unwrap();
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!("x"), &json!(-32_600)));
    }

    #[test]
    fn ids_come_back_as_they_were_written() {
        for id in [
            "null",
            "0",
            "-0",
            "1",
            "1.0",
            "1.5e-3",
            "1E400",
            "-1e999999",
            "123456789012345678901234567890",
            "\"\"",
            "\"1\"",
            "\"\\u0041\"",
            "\"\\ud800\"",
            "\"\\\"\"",
        ] {
            let document = format!(r#" {{ "id" : {id} , "jsonrpc":"2.0","method":"a" }} "#);
            let Ok(Document::Single(Item::Call(call))) = read(document.as_bytes()) else { panic!("{id}") };
            let out = success(call.id.unwrap(), b"7");
            assert_eq!(*out, format!(r#"{{"jsonrpc":"2.0","result":7,"id":{id}}}"#).into_bytes());
        }
    }

    #[test]
    fn other_members_are_ignored_however_deep() {
        let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
        for text in [
            format!(r#"{{"jsonrpc":"2.0","method":"a","id":1,"x":{deep},"x":1}}"#),
            format!(r#"{{"jsonrpc":"2.0","method":"a","id":1,"params":{deep}}}"#),
        ] {
            assert_eq!(exchange(text.as_bytes()).unwrap()["result"], "a");
        }
        assert_eq!(exchange(deep.as_bytes()).unwrap()[0]["error"]["code"], -32_600);
    }

    #[test]
    fn what_is_too_much_is_refused_as_a_whole() {
        refused(format!("\"{}\"", "x".repeat(MAX_DOCUMENT)), -32_600);
        let batch =
            |count| format!("[{}]", vec![r#"{"jsonrpc":"2.0","method":"a","id":1}"#; count].join(","));
        assert_eq!(exchange(batch(MAX_BATCH).as_bytes()).unwrap().as_array().unwrap().len(), MAX_BATCH);
        refused(batch(MAX_BATCH + 1), -32_600);
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<i32>().prop_map(|number| Value::from(f64::from(number) / 4.0)),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 20, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("(jsonrpc|method|params|id|.{0,3})", inner, 0..5)
                    .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        /// Any bytes get an answer by the specification, or are notifications.
        #[test]
        fn arbitrary_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = exchange(&bytes);
        }

        /// A request and its answer belong together, and nothing else is taken for one.
        #[test]
        fn arbitrary_json_is_answered(value in json_value()) {
            let answer = exchange(&serde_json::to_vec(&value).unwrap());
            if !value.is_array() {
                let is_request = value["jsonrpc"] == "2.0"
                    && value["method"].is_string()
                    && matches!(value.get("params"), None | Some(Value::Array(_) | Value::Object(_)))
                    && matches!(value.get("id"), None | Some(Value::Null | Value::String(_) | Value::Number(_)));
                match answer {
                    None => prop_assert!(is_request && value.get("id").is_none()),
                    Some(answer) if is_request => {
                        prop_assert_eq!(&answer["result"], &value["method"]);
                        prop_assert_eq!(&answer["id"], &value["id"]);
                    }
                    Some(answer) => prop_assert_eq!(&answer["error"]["code"], -32_600),
                }
            }
        }

        /// What is a request comes back whole, with everything about it as it was.
        #[test]
        fn requests_are_understood(method in ".*", params in json_value(), id in json_value()) {
            let document = json!({ "jsonrpc": "2.0", "method": method, "params": [params], "id": id.to_string() });
            let text = document.to_string();
            let read = read(text.as_bytes());
            let Ok(Document::Single(Item::Call(call))) = read else { panic!("{read:?}") };
            prop_assert_eq!(&call.method, &method);
            let params: Value = serde_json::from_str(call.params.unwrap().get()).unwrap();
            prop_assert_eq!(&params, &document["params"]);
            let answer: Value = serde_json::from_slice(&success(call.id.unwrap(), b"0")).unwrap();
            prop_assert_eq!(&answer["id"], &document["id"]);
        }
    }
}
