//! JSON as people write it, and as it breaks: what is wrong is said with the name of the value.

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;
use std::{
    collections::HashSet,
    fmt::{self, Display},
    ops::RangeInclusive,
};

/// Characters of a value that a message shows.
const SHOWN: usize = 60;

/// Parses JSON, in which no object may name a value twice: one of the two would be ignored.
///
/// # Errors
/// When it is not JSON, is nested too deeply, names a value twice, or is not what `T` wants.
pub fn parse_json<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice::<NamedOnce>(bytes)?;
    serde_json::from_slice(bytes)
}

/// Any JSON value without objects that name a value twice.
struct NamedOnce;

impl<'de> Deserialize<'de> for NamedOnce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for NamedOnce {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if names.contains(&name) {
                let name = shortened(&format!("{name:?}"));
                return Err(A::Error::custom(format!("{name} is given twice")));
            }
            names.insert(name);
            map.next_value::<Self>()?;
        }
        Ok(self)
    }
}

/// An object of a model's config.json, whose values are taken by name and within bounds. The
/// errors are sentences that give the value's name, from the outermost object on.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    values: &'a Value,
    path: String,
}

impl<'a> Fields<'a> {
    /// The values of a whole config.json.
    pub fn new(config: &'a Value) -> Self {
        Self {
            values: config,
            path: String::new(),
        }
    }

    /// The object `name`.
    ///
    /// # Errors
    /// When it is missing or no object.
    pub fn object(&self, name: &str) -> Result<Self, String> {
        let values = self.get(name)?;
        if !values.is_object() {
            return Err(self.wrong(name, values, "an object"));
        }
        Ok(Self {
            values,
            path: format!("{}{name}.", self.path),
        })
    }

    /// The whole number `name`.
    ///
    /// # Errors
    /// When it is missing, no whole number, or out of `range`.
    pub fn size(&self, name: &str, range: RangeInclusive<usize>) -> Result<usize, String> {
        let value = self.get(name)?;
        whole(value, &range).ok_or_else(|| self.wrong(name, value, &whole_number(&range)))
    }

    /// As [`Self::size`]; `default` where it is missing or null.
    ///
    /// # Errors
    /// As [`Self::size`], unless it is missing or null.
    pub fn size_or(
        &self,
        name: &str,
        range: RangeInclusive<usize>,
        default: usize,
    ) -> Result<usize, String> {
        match self.values.get(name) {
            None | Some(Value::Null) => Ok(default),
            Some(_) => self.size(name, range),
        }
    }

    /// The list `name` of whole numbers, each in `range`.
    ///
    /// # Errors
    /// When it is missing, no list, not of a length in `count`, or a number is out of `range`.
    pub fn sizes(
        &self,
        name: &str,
        count: RangeInclusive<usize>,
        range: RangeInclusive<usize>,
    ) -> Result<Vec<usize>, String> {
        let value = self.get(name)?;
        let items = value.as_array().filter(|list| count.contains(&list.len()));
        let sizes = items.and_then(|list| list.iter().map(|item| whole(item, &range)).collect());
        sizes.ok_or_else(|| {
            let (least, most) = (count.start(), count.end());
            let count = match least == most {
                true => most.to_string(),
                false => format!("{least} to {most}"),
            };
            let numbers = whole_number(&range).replacen("a whole number", "whole numbers", 1);
            self.wrong(name, value, &format!("a list of {count} {numbers}"))
        })
    }

    /// The number `name`; `default` where it is missing or null.
    ///
    /// # Errors
    /// When it is no number or out of `range`.
    pub fn number_or(
        &self,
        name: &str,
        range: RangeInclusive<f64>,
        default: f64,
    ) -> Result<f64, String> {
        let given = self.values.get(name).filter(|value| !value.is_null());
        let Some(value) = given else {
            return Ok(default);
        };
        let number = value.as_f64().filter(|number| range.contains(number));
        let (least, most) = (range.start(), range.end());
        number
            .ok_or_else(|| self.wrong(name, value, &format!("a number from {least:?} to {most:?}")))
    }

    /// An error unless `name` is missing or one of the `known` values, given as JSON.
    ///
    /// # Errors
    /// When it is another.
    pub fn fixed(&self, name: &str, known: &[&str]) -> Result<(), String> {
        let Some(value) = self.values.get(name) else {
            return Ok(());
        };
        // What cannot be one of them need not be written out, however large it is.
        let scalar = !value.is_array() && !value.is_object();
        if scalar && known.contains(&&value.to_string()[..]) {
            return Ok(());
        }
        let (path, wanted) = (&self.path, known.first().unwrap_or(&"nothing"));
        let value = shown(value);
        Err(format!(
            "{path}{name} is {value}; only {wanted} is supported"
        ))
    }

    fn get(&self, name: &str) -> Result<&'a Value, String> {
        let missing = || format!("{}{name} is missing", self.path);
        self.values.get(name).ok_or_else(missing)
    }

    fn wrong(&self, name: &str, value: &Value, wanted: &str) -> String {
        format!("{}{name} is {}, not {wanted}", self.path, shown(value))
    }
}

fn whole(value: &Value, range: &RangeInclusive<usize>) -> Option<usize> {
    let size = usize::try_from(value.as_u64()?).ok()?;
    range.contains(&size).then_some(size)
}

fn whole_number(range: &RangeInclusive<usize>) -> String {
    format!("a whole number from {} to {}", range.start(), range.end())
}

fn shown(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(_) => "an object".into(),
        other => shortened(other),
    }
}

/// The beginning of what is too long for a message.
pub(crate) fn shortened(text: &impl Display) -> String {
    let text = text.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_wrong_is_said_with_its_name() {
        let config = json!({
            "a": {"n": -1, "big": 1_u64 << 63, "half": 0.5, "wide": "x".repeat(1000), "huge": 1e300,
                  "list": [1, 2, 30], "null": null, "zero": 0}
        });
        let root = Fields::new(&config);
        let a = root.object("a").unwrap();
        let size = |name| a.size(name, 1..=64).unwrap_err();
        for (name, wanted) in [
            ("n", "a.n is -1, not a whole number from 1 to 64"),
            (
                "big",
                "a.big is 9223372036854775808, not a whole number from 1 to 64",
            ),
            ("half", "a.half is 0.5, not a whole number from 1 to 64"),
            ("huge", "a.huge is 1e+300, not a whole number from 1 to 64"),
            ("null", "a.null is null, not a whole number from 1 to 64"),
            ("zero", "a.zero is 0, not a whole number from 1 to 64"),
            (
                "list",
                "a.list is a list of 3, not a whole number from 1 to 64",
            ),
            ("none", "a.none is missing"),
        ] {
            assert_eq!(size(name), wanted);
        }
        assert!(size("wide").starts_with("a.wide is \"xxx") && size("wide").len() < 200);
        assert_eq!(root.object("b").unwrap_err(), "b is missing");
        assert_eq!(a.object("n").unwrap_err(), "a.n is -1, not an object");
        assert_eq!(
            a.number_or("huge", 0.0..=1e30, 1.0).unwrap_err(),
            "a.huge is 1e+300, not a number from 0.0 to 1e30"
        );
        assert_eq!(
            a.sizes("list", 0..=9, 1..=20).unwrap_err(),
            "a.list is a list of 3, not a list of 0 to 9 whole numbers from 1 to 20"
        );
        assert_eq!(
            a.fixed("list", &["1"]).unwrap_err(),
            "a.list is a list of 3; only 1 is supported"
        );
    }

    #[test]
    fn values_in_bounds_are_taken() {
        let config =
            json!({"n": 7, "list": [1, 2], "x": 0.5, "whole": 1, "text": "silu", "null": null});
        let fields = Fields::new(&config);
        assert_eq!(fields.size("n", 1..=7), Ok(7));
        assert_eq!(fields.size_or("none", 1..=7, 3), Ok(3));
        assert_eq!(fields.size_or("null", 1..=7, 3), Ok(3));
        assert_eq!(fields.number_or("null", 0.0..=1.0, 0.5), Ok(0.5));
        assert_eq!(fields.sizes("list", 2..=2, 0..=2), Ok(vec![1, 2]));
        assert_eq!(fields.number_or("x", 0.0..=1.0, 9.0), Ok(0.5));
        assert_eq!(fields.number_or("whole", 0.0..=1.0, 9.0), Ok(1.0));
        assert_eq!(fields.number_or("none", 0.0..=1.0, 9.0), Ok(9.0));
        assert_eq!(fields.fixed("text", &["\"silu\""]), Ok(()));
        assert_eq!(fields.fixed("none", &["1"]), Ok(()));
    }

    #[test]
    fn nothing_is_given_twice() {
        let twice = |text: &str| parse_json::<Value>(text.as_bytes()).map_err(|e| e.to_string());
        assert_eq!(
            twice(r#"{"a": {"b": [1, -2.5, null, true, "c"]}, "b": {}}"#).unwrap()["a"]["b"][1],
            -2.5
        );
        for text in [
            r#"{"a": 1, "b": 2, "a": 3}"#,
            r#"[{"b": {"a": 1, "\u0061": 1}}]"#,
        ] {
            let error = twice(text).unwrap_err();
            assert!(error.starts_with("\"a\" is given twice"), "{error}");
        }
        let error = twice(&"[".repeat(1_000_000)).unwrap_err();
        assert!(error.starts_with("recursion limit exceeded"), "{error}");
    }
}
