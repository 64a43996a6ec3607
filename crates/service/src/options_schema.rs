//! Options that somebody gives to a plugin or an application: defaults below, what was given above, held against a JSON
//! Schema that came with a manifest. The schema is a stranger's: it refers to nothing outside of itself, and what checking
//! costs is known before it is checked.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use jsonschema::{
    PatternOptions, Validator,
    error::ValidationErrorKind,
    paths::{Location, LocationSegment},
};
use serde_json::{Map, Value, json};
use tidegate_model::FieldErrors;

/// Complaints about one set of options at most.
const COMPLAINTS: usize = 50;
/// Schemas inside of a schema at most, each counted as often as something refers to it.
const PARTS: usize = 10_000;
/// Schemas inside of each other at most.
const DEPTH: usize = 48;
/// Steps that a pattern may go back before its text counts as not fitting.
const BACKTRACKS: usize = 100_000;

/// Keywords whose value is an object of schemas by name.
const NAMED: [&str; 5] = ["properties", "patternProperties", "dependentSchemas", "$defs", "definitions"];
/// Keywords whose value is data.
const DATA: [&str; 4] = ["enum", "const", "default", "examples"];
/// Keywords that would lead out of the schema, or to a place in it that is not known beforehand.
const ELSEWHERE: [&str; 4] = ["$dynamicRef", "$recursiveRef", "$anchor", "$dynamicAnchor"];

/// A schema that was read, with the defaults that belong to it.
#[derive(Debug)]
pub struct OptionsSchema {
    /// None where anything is allowed.
    validator: Option<Validator>,
    schema: Value,
    defaults: Map<String, Value>,
}

impl OptionsSchema {
    /// Reads a schema: a whole one, or a bare map of properties, which allows nothing else. An empty one allows any object.
    /// `field` is what complaints about it are filed under.
    pub fn read(
        field: &str,
        schema: &Map<String, Value>,
        defaults: &Map<String, Value>,
    ) -> Result<Self, FieldErrors> {
        let defaults = defaults.clone();
        if schema.is_empty() {
            return Ok(Self { validator: None, schema: Value::Object(Map::new()), defaults });
        }
        let schema = whole(schema);
        Costs::new(&schema).whole().map_err(|complaint| FieldErrors::one(field, complaint))?;
        let built = jsonschema::options()
            .offline()
            .with_pattern_options(PatternOptions::fancy_regex().backtrack_limit(BACKTRACKS))
            .should_validate_formats(true)
            .build(&schema);
        match built {
            Ok(validator) => Ok(Self { validator: Some(validator), schema, defaults }),
            Err(error) => {
                let path = path(field, error.instance_path(), None);
                Err(FieldErrors::one(path, format_args!("is no JSON Schema: {}", error.masked())))
            }
        }
    }

    /// The schema, whole: what a form can be made of.
    pub fn schema(&self) -> &Value {
        &self.schema
    }

    /// The options that hold: what was given, over the defaults, over the schema's own. Every complaint has the path of what
    /// it is about, below `field`; values are not repeated, they may be secrets.
    pub fn settle(&self, field: &str, given: &Map<String, Value>) -> Result<Map<String, Value>, FieldErrors> {
        let mut settled = self.defaults.clone();
        overlay(&mut settled, given);
        let mut settled = Value::Object(settled);
        fill(&self.schema, &mut settled);
        if let Some(validator) = &self.validator {
            complaints(validator, field, &settled).into_result()?;
        }
        match settled {
            Value::Object(settled) => Ok(settled),
            _ => Err(FieldErrors::one(field, "must be an object")),
        }
    }
}

/// A bare map of properties (no `type`, `properties` or `$schema`) as the schema that it stands for.
fn whole(schema: &Map<String, Value>) -> Value {
    // An object under `type` is a property of that name: the keyword's value is a word or a list of words.
    let is_whole = schema.get("type").is_some_and(|it| !it.is_object())
        || schema.contains_key("properties")
        || schema.get("$schema").is_some_and(Value::is_string);
    if is_whole {
        return Value::Object(schema.clone());
    }
    json!({"type": "object", "properties": schema, "additionalProperties": false})
}

/// Objects are laid over each other name by name; everything else replaces what was there.
fn overlay(below: &mut Map<String, Value>, above: &Map<String, Value>) {
    for (name, value) in above {
        match (below.get_mut(name), value) {
            (Some(Value::Object(below)), Value::Object(above)) => overlay(below, above),
            _ => {
                below.insert(name.clone(), value.clone());
            }
        }
    }
}

/// Fills in the schema's own `default`s where nothing is said.
fn fill(schema: &Value, value: &mut Value) {
    let (Some(properties), Value::Object(object)) =
        (schema.get("properties").and_then(Value::as_object), value)
    else {
        return;
    };
    for (name, property) in properties {
        if let (None, Some(default)) = (object.get(name), property.get("default")) {
            object.insert(name.clone(), default.clone());
        }
        if let Some(inner) = object.get_mut(name) {
            fill(property, inner);
        }
    }
}

fn complaints(validator: &Validator, field: &str, value: &Value) -> FieldErrors {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for error in validator.iter_errors(value).take(COMPLAINTS) {
        let at = error.instance_path();
        match error.kind() {
            ValidationErrorKind::Required { property } => {
                let path = path(field, at, property.as_str());
                found.entry(path).or_default().push("is required".to_owned());
            }
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                for name in unexpected {
                    let path = path(field, at, Some(name));
                    found.entry(path).or_default().push("is not one of the options".to_owned());
                }
            }
            _ => {
                let said = error.masked_with("this value").to_string();
                found.entry(path(field, at, None)).or_default().push(said);
            }
        }
    }
    let mut errors = FieldErrors::new();
    for (path, said) in found {
        errors.add(path, said.join("; "));
    }
    errors
}

/// `config.limits[2].name`.
fn path(field: &str, at: &Location, name: Option<&str>) -> String {
    let mut path = field.to_owned();
    let push = |path: &mut String, name: &str| {
        path.push('.');
        path.extend(name.chars().filter(|c| !c.is_control()).take(64));
    };
    for segment in at.segments() {
        match segment {
            LocationSegment::Property(name) => push(&mut path, &name),
            LocationSegment::Index(index) => drop(write!(path, "[{index}]")),
        }
    }
    if let Some(name) = name {
        push(&mut path, name);
    }
    path
}

/// What a schema costs to be checked: of how many schemas it is made, and how deep they lie in each other, both followed
/// through what it refers to. A schema that leads back into itself would have no end, or one that a stranger chooses.
struct Costs<'a> {
    root: &'a Value,
    known: BTreeMap<String, Cost>,
    open: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    parts: usize,
    depth: usize,
}

impl Cost {
    fn beside(self, other: Self) -> Self {
        Self { parts: self.parts.saturating_add(other.parts), depth: self.depth.max(other.depth) }
    }
}

impl<'a> Costs<'a> {
    fn new(root: &'a Value) -> Self {
        Self { root, known: BTreeMap::new(), open: BTreeSet::from([String::new()]) }
    }

    fn whole(mut self) -> Result<(), String> {
        self.of(self.root, 0)?;
        Ok(())
    }

    /// Of one schema, or of anything that may hold schemas, which lies `deep` below the root.
    fn of(&mut self, schema: &Value, deep: usize) -> Result<Cost, String> {
        let mut sum = Cost::default();
        match schema {
            Value::Array(items) => {
                for item in items {
                    sum = sum.beside(self.of(item, deep + 1)?);
                }
            }
            Value::Object(keywords) => {
                for (keyword, value) in keywords {
                    sum = sum.beside(self.of_keyword(keyword, value, deep)?);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return Ok(sum),
        }
        let sum = Cost { parts: sum.parts.saturating_add(1), depth: sum.depth + 1 };
        if sum.parts > PARTS {
            return Err(format!("is made of more than {PARTS} parts: make it simpler"));
        }
        if deep + sum.depth > DEPTH {
            return Err(format!("lies more than {DEPTH} schemas deep: make it simpler"));
        }
        Ok(sum)
    }

    fn of_keyword(&mut self, keyword: &str, value: &Value, deep: usize) -> Result<Cost, String> {
        match value {
            _ if DATA.contains(&keyword) => Ok(Cost::default()),
            Value::String(_) if ELSEWHERE.contains(&keyword) => {
                Err(format!("must not use `{keyword}`: name places as `#/$defs/…`"))
            }
            Value::String(_) if keyword == "$id" && deep > 0 => {
                Err("must have `$id` at its beginning alone".to_owned())
            }
            Value::String(target) if keyword == "$ref" => self.of_reference(target, deep),
            Value::Object(named) if NAMED.contains(&keyword) => {
                let mut sum = Cost::default();
                for inner in named.values() {
                    sum = sum.beside(self.of(inner, deep + 1)?);
                }
                Ok(sum)
            }
            other => self.of(other, deep + 1),
        }
    }

    fn of_reference(&mut self, target: &str, deep: usize) -> Result<Cost, String> {
        let shown: String = target.chars().filter(|c| !c.is_control()).take(100).collect();
        let pointer = target
            .strip_prefix('#')
            .ok_or_else(|| format!("must not refer to `{shown}`, which is not inside of it"))?;
        if let Some(known) = self.known.get(pointer) {
            return Ok(*known);
        }
        if !self.open.insert(pointer.to_owned()) {
            return Err(format!("must not lead back into itself, as `{shown}` does"));
        }
        let root = self.root;
        let inner =
            root.pointer(pointer).ok_or_else(|| format!("refers to `{shown}`, which is not in it"))?;
        let cost = self.of(inner, deep + 1)?;
        self.open.remove(pointer);
        self.known.insert(pointer.to_owned(), cost);
        Ok(cost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    fn read(schema: Value, defaults: Value) -> OptionsSchema {
        OptionsSchema::read("configSchema", &object(schema), &object(defaults)).unwrap()
    }

    fn refusal(schema: Value) -> String {
        OptionsSchema::read("configSchema", &object(schema), &Map::new()).unwrap_err().to_string()
    }

    /// The example of the data model that Tidegate is written after, as it stands there.
    fn analytics() -> OptionsSchema {
        let schema = json!({
            "retentionDays": {"type": "number", "default": 90},
            "exportFormat": {"type": "string", "enum": ["json", "csv"]}
        });
        read(schema, json!({}))
    }

    #[test]
    fn a_bare_map_of_properties_is_read_as_the_schema_it_stands_for() {
        let schema = analytics();
        let settled = schema.settle("config", &object(json!({"exportFormat": "json"}))).unwrap();
        assert_eq!(Value::Object(settled), json!({"exportFormat": "json", "retentionDays": 90}));
        let given = object(json!({"retentionDays": "long", "exportFormat": "xml", "else": 1}));
        let errors = schema.settle("config", &given).unwrap_err();
        let complaints: Vec<(&str, &str)> = errors.iter().collect();
        assert_eq!(
            complaints,
            [
                ("config.else", "is not one of the options"),
                ("config.exportFormat", "this value is not one of \"json\" or \"csv\""),
                ("config.retentionDays", "this value is not of type \"number\""),
            ]
        );
    }

    #[test]
    fn a_property_may_be_called_type() {
        let schema = read(json!({"type": {"type": "string", "default": "full"}}), json!({}));
        assert_eq!(Value::Object(schema.settle("config", &Map::new()).unwrap()), json!({"type": "full"}));
    }

    #[test]
    fn what_is_given_lies_over_the_defaults_and_these_over_the_schemas_own() {
        let schema = json!({"type": "object", "required": ["url"], "properties": {
            "url": {"type": "string", "format": "uri"},
            "retry": {"type": "object", "default": {}, "properties": {
                "times": {"type": "integer", "default": 3}, "seconds": {"type": "integer", "default": 1}}},
        }});
        let schema = read(schema, json!({"retry": {"times": 5}}));
        let settled =
            schema.settle("config", &object(json!({"url": "https://a.example", "retry": {"seconds": 9}})));
        let wanted = json!({"url": "https://a.example", "retry": {"times": 5, "seconds": 9}});
        assert_eq!(Value::Object(settled.unwrap()), wanted);
        let errors = schema.settle("config", &object(json!({"retry": {"times": 1.5}}))).unwrap_err();
        let at: Vec<&str> = errors.iter().map(|(at, _)| at).collect();
        assert_eq!(at, ["config.retry.times", "config.url"]);
    }

    #[test]
    fn every_complaint_has_its_path_and_repeats_no_value() {
        let schema = json!({"type": "object", "properties": {"hosts": {"type": "array", "items": {
            "type": "object", "properties": {"token": {"type": "string", "maxLength": 3}}, "additionalProperties": false}}}});
        let given = json!({"hosts": [{"token": "abc"}, {"token": "s3cret-s3cret", "more": 1}]});
        let errors = read(schema, json!({})).settle("config", &object(given)).unwrap_err();
        let at: Vec<&str> = errors.iter().map(|(at, _)| at).collect();
        assert_eq!(at, ["config.hosts[1].more", "config.hosts[1].token"]);
        assert!(!errors.to_string().contains("s3cret"), "{errors}");
    }

    #[test]
    fn without_a_schema_any_object_fits() {
        let schema = read(json!({}), json!({"a": 1}));
        let settled = schema.settle("config", &object(json!({"b": [true]}))).unwrap();
        assert_eq!(Value::Object(settled), json!({"a": 1, "b": [true]}));
    }

    #[test]
    fn a_schema_refers_to_nothing_outside_and_never_to_itself() {
        let outside =
            refusal(json!({"type": "object", "properties": {"a": {"$ref": "https://a.example/s.json"}}}));
        assert!(outside.contains("which is not inside of it"), "{outside}");
        let file = refusal(json!({"type": "object", "allOf": [{"$ref": "file:///etc/passwd"}]}));
        assert!(file.contains("which is not inside of it"), "{file}");
        for around in [
            json!({"type": "object", "$ref": "#"}),
            json!({"type": "object", "$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
            json!({"type": "object", "properties": {"a": {"$ref": "#"}}}),
        ] {
            let around = refusal(around);
            assert!(around.contains("must not lead back into itself"), "{around}");
        }
        let inside = read(
            json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/port"}}, "$defs": {"port": {"type": "integer"}}}),
            json!({}),
        );
        inside.settle("config", &object(json!({"a": "x"}))).unwrap_err();
    }

    #[test]
    fn a_schema_that_doubles_at_every_step_is_refused_before_it_is_checked() {
        let mut definitions = Map::new();
        definitions.insert("d0".into(), json!({"type": "integer"}));
        for step in 1..20 {
            let below = json!({"$ref": format!("#/$defs/d{}", step - 1)});
            definitions.insert(format!("d{step}"), json!({"allOf": [below, below]}));
        }
        let doubled = refusal(
            json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/d19"}}, "$defs": definitions}),
        );
        assert!(doubled.contains("is made of more than 10000 parts"), "{doubled}");
    }

    #[test]
    fn a_schema_that_lies_too_deep_is_refused_before_it_is_checked() {
        let mut deep = json!({"type": "integer"});
        for _ in 0..60 {
            deep = json!({"not": deep});
        }
        let deep = refusal(json!({"type": "object", "properties": {"a": deep}}));
        assert!(deep.contains("lies more than 48 schemas deep"), "{deep}");
    }

    #[test]
    fn a_pattern_that_goes_back_for_ever_does_not() {
        let schema = read(json!({"a": {"type": "string", "pattern": "^(?=(a+)+$)(a|aa)+$"}}), json!({}));
        let long = format!("{}b", "a".repeat(60));
        schema.settle("config", &object(json!({"a": long}))).unwrap_err();
    }

    #[test]
    fn what_is_no_schema_is_said_with_its_place() {
        let errors =
            OptionsSchema::read("configSchema", &object(json!({"a": {"type": "nothing"}})), &Map::new());
        let errors = errors.unwrap_err();
        assert!(errors.iter().all(|(at, _)| at.starts_with("configSchema.properties.a")), "{errors}");
    }
}
