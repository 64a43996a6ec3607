//! Reading a JSON object field by field, so that a refusal names every bad field at once.

use std::{collections::BTreeMap, fmt::Display};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Every bad field of a request with what is wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct FieldErrors(BTreeMap<String, String>);

impl FieldErrors {
    /// No complaint yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One complaint.
    pub fn one(field: impl Into<String>, message: impl Display) -> Self {
        let mut errors = Self::new();
        errors.add(field, message);
        errors
    }

    /// Adds a complaint; the first one of a field stays.
    pub fn add(&mut self, field: impl Into<String>, message: impl Display) {
        self.0.entry(field.into()).or_insert_with(|| message.to_string());
    }

    /// Adds the complaint of a failed check, and passes its value on otherwise.
    pub fn check<T, E: Display>(&mut self, field: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(field, error)).ok()
    }

    /// `Ok` when nothing was complained about.
    pub fn into_result(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }

    /// Field and complaint, by name of the field.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(field, message)| (field.as_str(), message.as_str()))
    }
}

impl Display for FieldErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (field, message)) in self.iter().enumerate() {
            write!(f, "{}{field}: {message}", if index == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

/// A request body that is read field by field.
pub trait FromFields: Sized {
    /// Takes what it knows out of `fields`; complaints are kept there. `None` only beside a complaint.
    fn from_fields(fields: &mut Fields) -> Option<Self>;

    /// Reads a whole JSON value; unknown fields are complaints too.
    fn from_json(value: Value) -> Result<Self, FieldErrors> {
        let mut fields = Fields::new(value)?;
        let read = Self::from_fields(&mut fields);
        fields.finish()?;
        read.ok_or_else(|| FieldErrors::one("body", "is not complete"))
    }
}

/// One field of a PATCH body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PatchField<T> {
    /// Not in the body: unchanged.
    #[default]
    Absent,
    /// `null`: cleared.
    Clear,
    /// A new value.
    Set(T),
}

/// The fields of a JSON object, taken out one by one.
#[derive(Debug)]
pub struct Fields {
    object: Map<String, Value>,
    errors: FieldErrors,
    strict: bool,
}

impl Fields {
    /// The fields of a JSON value, which must be an object.
    pub fn new(value: Value) -> Result<Self, FieldErrors> {
        match value {
            Value::Object(object) => Ok(Self { object, errors: FieldErrors::new(), strict: true }),
            _ => Err(FieldErrors::one("body", "must be a JSON object")),
        }
    }

    /// Unknown fields are ignored instead of refused: for agents written against other versions.
    pub fn tolerate_unknown(&mut self) {
        self.strict = false;
    }

    /// A field that must be there and not be `null`.
    pub fn required<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let value = self.optional(name);
        if value.is_none() {
            self.errors.add(name, "is required");
        }
        value
    }

    /// A field that may be absent or `null`.
    pub fn optional<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        match self.object.remove(name) {
            None | Some(Value::Null) => None,
            Some(value) => self.read(name, value),
        }
    }

    /// A field whose absence, `null` and value mean three things.
    pub fn patch<T: DeserializeOwned>(&mut self, name: &str) -> PatchField<T> {
        match self.object.remove(name) {
            None => PatchField::Absent,
            Some(Value::Null) => PatchField::Clear,
            Some(value) => self.read(name, value).map_or(PatchField::Absent, PatchField::Set),
        }
    }

    /// Where complaints go.
    pub fn errors(&mut self) -> &mut FieldErrors {
        &mut self.errors
    }

    /// A text whose length in characters lies in `bounds`.
    pub fn check_length(&mut self, name: &str, text: &str, bounds: std::ops::RangeInclusive<usize>) {
        let length = text.chars().count();
        if !bounds.contains(&length) {
            self.errors.add(
                name,
                format!("must have {} to {} characters, has {length}", bounds.start(), bounds.end()),
            );
        }
    }

    /// Every complaint, those about unknown fields included.
    pub fn finish(mut self) -> Result<(), FieldErrors> {
        if self.strict {
            for name in self.object.keys() {
                let shown: String = name.chars().take(64).collect();
                self.errors.add(shown, "is not a field of this request");
            }
        }
        self.errors.into_result()
    }

    fn read<T: DeserializeOwned>(&mut self, name: &str, value: Value) -> Option<T> {
        if holds_nul(&value) {
            self.errors.add(name, "must not contain NUL");
            return None;
        }
        serde_json::from_value(value).map_err(|error| self.errors.add(name, error)).ok()
    }
}

/// Whether a text anywhere in it, names included, holds the one character that PostgreSQL stores in no text.
fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug)]
    struct Three(Option<String>, PatchField<Value>, Option<Value>);

    impl FromFields for Three {
        fn from_fields(fields: &mut Fields) -> Option<Self> {
            Some(Self(fields.required("text"), fields.patch("patch"), fields.optional("nested")))
        }
    }

    #[test]
    fn no_text_may_contain_nul_however_deep_it_lies() {
        let body = json!({"text": "a\0", "patch": ["\0"], "nested": {"a": [{"b\0": 1}]}});
        let errors = Three::from_json(body).unwrap_err();
        let complaints: Vec<(&str, &str)> = errors.iter().collect();
        let said = "must not contain NUL";
        assert_eq!(complaints, [("nested", said), ("patch", said), ("text", said)]);
        let body = json!({"text": "a\n", "patch": null, "nested": [1, true, null, {"a": "b"}]});
        let Three(text, patch, nested) = Three::from_json(body).unwrap();
        assert_eq!((text.as_deref(), patch, nested.is_some()), (Some("a\n"), PatchField::Clear, true));
    }
}
