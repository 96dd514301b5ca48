//! What the methods take, by name or by position.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use i2plan_ipc::api::meshd::{Cursor, MAX_EVENT_WAIT};
use i2plan_ipc::secret::SecretText;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeOwned, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::error::Error;

/// Reads the parameters of a method.
///
/// # Errors
/// What is wrong with them, without what the caller has written there.
pub fn read<T: DeserializeOwned>(params: Option<&RawValue>) -> Result<T, Error> {
    serde_json::from_str(params.map_or("{}", RawValue::get)).map_err(|error| {
        let hint = "`rpc.discover` describes what each method takes";
        Error::invalid_params(&without_values(&error.to_string())).with_hint(hint)
    })
}

/// How messages begin that repeat nothing of the input.
const FIXED: [&str; 6] = [
    "missing field `",
    "duplicate field `",
    "invalid length ",
    "number out of range",
    "recursion limit exceeded",
    "expected ",
];

/// The message without what it repeats of the input. serde tells what was found before what was expected; of the
/// latter there is nothing but its own words. Of a message that is not known to be without values, nothing is left.
fn without_values(message: &str) -> String {
    let expected = |message: &str| match message.rsplit_once(", expected ") {
        Some((_, expected)) => format!("expected {expected}"),
        None => "something else was expected".to_owned(),
    };
    if message.starts_with("unknown field ") {
        let none = message.rsplit_once("`, there are no fields").is_some_and(|(_, rest)| !rest.contains('`'));
        let known = if none { "there are none".to_owned() } else { expected(message) };
        format!("there is no such parameter: {known}")
    } else if message.starts_with("invalid type: ") || message.starts_with("invalid value: ") {
        expected(message)
    } else if message.starts_with("unknown variant ") {
        format!("that is no choice: {}", expected(message))
    } else if message.starts_with("trailing characters") {
        "more parameters than it takes".to_owned()
    } else if FIXED.iter().any(|start| message.starts_with(start)) {
        message.to_owned()
    } else {
        "something else was expected".to_owned()
    }
}

/// Nothing.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// An invite code.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InviteCode {
    /// The code; a secret.
    pub invite_code: SecretText,
}

/// An invite to make.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewInvite {
    /// How long it is good for; 24 h by default.
    #[serde(default)]
    pub expiry: Option<Time>,
    /// How often it may be used: 1 by default, -1 for without limit; 0 is refused.
    #[serde(default, deserialize_with = "whole_or_none")]
    pub max_uses: Option<i64>,
    /// Addresses for each of its users, a power of two; by default 1/256 of this node's, at most 16, and 1 if several
    /// may use it.
    #[serde(default, deserialize_with = "whole_or_none")]
    pub addresses: Option<u32>,
    /// The subnet of the network that the first invite founds; by default the one that is configured, or else one of
    /// which the host uses no address.
    #[serde(default)]
    pub subnet: Option<String>,
    /// The name of the network that the first invite founds, 1 to 18 lower-case letters, digits and hyphens; by default
    /// one made of this node's.
    #[serde(default)]
    pub name: Option<String>,
}

/// An invite that was made.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InviteId {
    /// The invite's id.
    pub id: String,
}

/// An invite to revoke.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InviteToRevoke {
    /// The invite's id.
    pub id: String,
    /// Whether to revoke the memberships of the nodes that have used it, too; not by default.
    #[serde(default)]
    pub with_members: Option<bool>,
}

/// More addresses for a member.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewGrant {
    /// The member: its node id or the beginning of that, its name, or one of its addresses.
    pub node_id: String,
    /// How many more, a power of two.
    #[serde(deserialize_with = "whole")]
    pub addresses: u32,
}

/// A member.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its node id or the beginning of that, its name, or one of its addresses.
    pub node_id: String,
}

/// A ban to impose.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBan {
    /// The member: its node id or the beginning of that, its name, or one of its addresses.
    pub node_id: String,
    /// `manual`, the one reason that a caller can give; the others are the node's own.
    #[serde(default)]
    pub reason: Option<Reason>,
    /// Why, for people; at most 200 characters.
    #[serde(default)]
    pub description: Option<String>,
    /// For how long; without end by default.
    #[serde(default)]
    pub duration: Option<Time>,
}

/// Why a caller bans a member.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A user wants it.
    Manual,
}

/// A key of the configuration.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// `section.key`; all without it.
    #[serde(default)]
    pub key: Option<String>,
}

/// A key of the configuration, and what it shall be.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyValue {
    /// `section.key`.
    pub key: String,
    /// The value, as it would stand in the file or in the environment.
    pub value: Scalar,
}

/// Where to go on in the event log.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Poll {
    /// `next` of the answer before; without it the log begins now.
    #[serde(default)]
    pub after: Option<Cursor>,
    /// How long to wait for something to happen, milliseconds, at most 30000; not at all by default.
    #[serde(default)]
    pub wait: Option<Wait>,
    /// Whether to tell the traffic too.
    #[serde(default)]
    pub traffic: Option<bool>,
}

/// The whole number that one with a fraction is, if it is one.
fn whole_of(number: f64) -> Option<i64> {
    /// Above that not every whole number has a form of its own.
    const MOST: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "it is whole and not too large")]
    (number.fract() == 0.0 && number.abs() <= MOST).then_some(number as i64)
}

/// A whole number. In JSON `1.0` is `1`.
struct Whole<T>(T);

impl<'de, T: TryFrom<i128>> Deserialize<'de> for Whole<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<T: TryFrom<i128>> Visitor<'_> for Reader<T> {
            type Value = Whole<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_i128<E: serde::de::Error>(self, number: i128) -> Result<Whole<T>, E> {
                T::try_from(number).map(Whole).map_err(|_| E::custom("number out of range"))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Whole<T>, E> {
                self.visit_i128(number.into())
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Whole<T>, E> {
                self.visit_i128(number.into())
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Whole<T>, E> {
                match whole_of(number) {
                    Some(number) => self.visit_i128(number.into()),
                    None => Err(E::invalid_value(Unexpected::Float(number), &self)),
                }
            }
        }
        deserializer.deserialize_any(Reader(PhantomData))
    }
}

fn whole<'de, T: TryFrom<i128>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Whole::deserialize(deserializer).map(|Whole(number)| number)
}

fn whole_or_none<'de, T: TryFrom<i128>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Ok(Option::<Whole<T>>::deserialize(deserializer)?.map(|Whole(number)| number))
}

/// A number that is checked when it is read.
macro_rules! limited {
    ($(#[doc = $doc:literal])+ $name:ident: $range:expr, $what:literal) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy)]
        pub struct $name(pub u64);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let number: u64 = whole(deserializer)?;
                if $range.contains(&number) { Ok(Self(number)) } else { Err(serde::de::Error::custom($what)) }
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "integer", "minimum": $range.start(), "maximum": $range.end() })
            }
        }
    };
}

limited!(
    /// How long to wait for an event, milliseconds.
    Wait: (0..=MAX_EVENT_WAIT), "expected a wait of 0 to 30000 milliseconds"
);

/// A duration that is not zero: seconds, or text like `24h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Duration);

const TIME: &str = "seconds, or a number with s, m, h or d such as \"30m\", more than 0";

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Time;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(TIME)
            }

            fn visit_u64<E: serde::de::Error>(self, seconds: u64) -> Result<Time, E> {
                self.visit_str(&seconds.to_string())
            }

            fn visit_f64<E: serde::de::Error>(self, seconds: f64) -> Result<Time, E> {
                // A whole number is written without a fraction.
                self.visit_str(&seconds.to_string())
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Time, E> {
                let duration = i2plan_config::parse_duration(text);
                let duration = duration.filter(|duration| *duration > Duration::ZERO);
                duration.map(Time).ok_or_else(|| E::custom(format_args!("expected {TIME}")))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A duration: seconds, or a number with s, m, h or d.",
            "anyOf": [
                { "type": "integer", "minimum": 1 },
                { "type": "string", "pattern": "^[0-9]+[smhd]?$" },
            ],
        })
    }
}

/// A value of the configuration, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scalar(pub String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let one = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Bool(flag) => Some(flag.to_string()),
            Value::Number(number) if !number.is_f64() => Some(number.to_string()),
            Value::Number(number) => number.as_f64().and_then(whole_of).map(|number| number.to_string()),
            _ => None,
        };
        let text = match Value::deserialize(deserializer)? {
            Value::Array(list) => {
                list.iter().map(one).collect::<Option<Vec<_>>>().map(|texts| texts.join(", "))
            }
            value => one(&value),
        };
        let expected = "expected text, a whole number, true or false, or a list of these";
        text.map(Self).ok_or_else(|| serde::de::Error::custom(expected))
    }
}

impl JsonSchema for Scalar {
    fn schema_name() -> Cow<'static, str> {
        "Scalar".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer", "boolean", "array"] })
    }
}

/// The parameters' names in the order of their positions, as serde knows them.
#[must_use]
pub fn names<T: DeserializeOwned>() -> &'static [&'static str] {
    struct Ask<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Ask<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            names: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = names;
            Err(serde::de::Error::custom("that was all"))
        }

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(serde::de::Error::custom("parameters are a structure"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut names: &'static [&'static str] = &[];
    let _ = T::deserialize(Ask(&mut names));
    names
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn from<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
        read(Some(&RawValue::from_string(text.to_owned()).unwrap()))
    }

    #[test]
    fn parameters_go_by_name_and_by_position() {
        for text in [r#"{"node_id":"n","description":"d","duration":"1h"}"#, r#"["n",null,"d",3600]"#] {
            let ban: NewBan = from(text).unwrap();
            assert_eq!((ban.node_id.as_str(), ban.description.as_deref()), ("n", Some("d")));
            assert_eq!(ban.duration, Some(Time(Duration::from_secs(3600))));
        }
        let ban: NewBan = from(r#"["n"]"#).unwrap();
        assert_eq!((ban.description, ban.duration), (None, None));
        assert!(read::<Nothing>(None).is_ok());
        assert!(from::<Nothing>("[]").is_ok() && from::<Nothing>("{}").is_ok());
        assert_eq!(names::<NewBan>(), ["node_id", "reason", "description", "duration"]);
        assert_eq!(names::<Nothing>(), [""; 0]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let message = |result: Result<(), Error>| result.unwrap_err().message;
        let ban = |text| message(from::<NewBan>(text).map(drop));
        assert!(ban("{}").contains("missing field `node_id`"));
        assert!(ban("[]").contains("invalid length 0"));
        assert!(ban(r#"["a",null,null,null,1]"#).contains("more parameters than it takes"));
        assert!(ban(r#"{"node_id":"a","node_id":"b"}"#).contains("duplicate field `node_id`"));
        assert!(ban(r#"{"node_id":"a","x":1}"#).contains("expected one of `node_id`, `reason`"));
        assert!(ban(r#"{"node_id":"a","duration":0}"#).contains("more than 0"));
        assert!(ban(r#"{"node_id":"a","duration":1.5}"#).contains("expected seconds"));
        assert!(ban(r#"{"node_id":"a","reason":"misbehaviour"}"#).contains("expected `manual`"));
        assert!(ban(r#"{"node_id":7}"#).contains("expected a string"));
        assert!(message(from::<Nothing>("[1]").map(drop)).contains("more parameters"));
        assert!(message(from::<Poll>(r#"{"wait":30001}"#).map(drop)).contains("0 to 30000"));
        assert!(message(from::<Poll>(r#"{"wait":1e400}"#).map(drop)).contains("out of range"));
        assert!(
            message(from::<Key>(&format!("{{\"key\":{}1{}}}", "[".repeat(200), "]".repeat(200))).map(drop))
                .contains("a string")
        );
    }

    #[test]
    fn of_an_unknown_message_nothing_is_left() {
        assert_eq!(without_values("no such thing as SECRET at line 1"), "something else was expected");
    }

    #[test]
    fn values_of_the_configuration_are_text() {
        let values = [
            ("\"30s\"", "30s"),
            ("30", "30"),
            ("30.0", "30"),
            ("-1", "-1"),
            ("true", "true"),
            (r#"["10.0.0.0/8","any"]"#, "10.0.0.0/8, any"),
            ("[]", ""),
        ];
        for (json, text) in values {
            let read: KeyValue = from(&format!(r#"{{"key":"k","value":{json}}}"#)).unwrap();
            assert_eq!(read.value.0, text);
        }
        for json in ["null", "1.5", "1e300", "[1.5]", "[[]]", "{}"] {
            assert!(from::<KeyValue>(&format!(r#"["k",{json}]"#)).is_err(), "{json}");
        }
    }

    proptest! {
        /// Wherever a secret was put by mistake, the error does not repeat it.
        #[test]
        fn no_error_repeats_what_was_sent(
            secret in "[`\", a-z]{0,3}SECRET-[a-z`\", ]{0,20}",
            template in prop::sample::select(vec![
                "?", "[?]", "[?,?]", "[1,?,?,?,?]", "{?:1}", "{\"invite_code\":1,?:?}", "{\"node_id\":?,\"reason\":?}",
                "{\"node_id\":\"a\",\"duration\":?}", "{\"expiry\":?}", "{\"max_uses\":?}", "{\"after\":?}",
                "{\"after\":{?:1}}", "{\"wait\":?}", "{\"traffic\":?}", "{\"key\":\"a\",\"value\":[?]}",
            ]),
        ) {
            let text = template.replace('?', &serde_json::to_string(&secret).unwrap());
            let params = RawValue::from_string(text).unwrap();
            for error in [
                read::<Nothing>(Some(&params)).err(),
                read::<InviteCode>(Some(&params)).err(),
                read::<NewInvite>(Some(&params)).err(),
                read::<NewBan>(Some(&params)).err(),
                read::<KeyValue>(Some(&params)).err(),
                read::<Poll>(Some(&params)).err(),
            ]
            .into_iter()
            .flatten()
            {
                prop_assert!(!error.message.contains("SECRET"), "{}", error.message);
            }
        }
    }
}
