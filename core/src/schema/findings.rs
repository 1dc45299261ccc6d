//! What is wrong with a document, in words that hold none of its values.

use std::collections::BTreeSet;

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

use crate::limits;
use crate::op::FieldRights;
use crate::pointer::{Pointer, write_step};

/// What a keyword asks is told up to so many bytes.
const ALLOWED_BYTES_MAX: usize = 1 << 10;

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Violation {
    /// JSON pointer to the place in the document.
    pub pointer: String,
    /// The keyword of the schema that is not met; empty if it is none.
    pub keyword: String,
    /// JSON pointer to that keyword in the schema.
    pub schema: String,
    /// What is wrong, without values of the document.
    pub reason: String,
    /// What the keyword asks, as JSON text; none if it is long.
    pub allowed: Option<String>,
}

impl Violation {
    /// Returns one that is about the document as a whole.
    #[must_use]
    pub(super) fn of_document(keyword: &str, reason: String) -> Self {
        Self { pointer: String::new(), keyword: keyword.to_owned(), schema: String::new(), reason, allowed: None }
    }

    /// Returns whether somebody with these rights may be told of it: whoever may read all at and below its place.
    #[must_use]
    pub fn is_seen_by(&self, rights: &FieldRights) -> bool {
        rights.are_all() || self.pointer.parse::<Pointer>().is_ok_and(|place| rights.include(place.steps()))
    }

    fn is_same(&self, other: &Self) -> bool {
        (&self.pointer, &self.schema) == (&other.pointer, &other.schema)
    }
}

/// All that is wrong with a document, by place; at most [`limits::SCHEMA_VIOLATIONS_MAX`].
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Findings {
    /// What is wrong.
    pub violations: Vec<Violation>,
    /// Whether there is more.
    pub more: bool,
}

impl Findings {
    /// Returns whether nothing is wrong.
    #[must_use]
    pub fn are_none(&self) -> bool {
        self.violations.is_empty()
    }

    pub(super) fn one(violation: Violation) -> Self {
        Self { violations: vec![violation], more: false }
    }

    pub(super) fn of<'a>(errors: impl Iterator<Item = ValidationError<'a>>, schema: &Value) -> Self {
        let mut found = BTreeSet::new();
        let mut more = false;
        for error in errors {
            if found.len() >= limits::SCHEMA_VIOLATIONS_MAX {
                more = true;
                break;
            }
            found.extend(violations(&error, schema));
        }
        let mut violations: Vec<Violation> = found.into_iter().collect();
        more |= violations.len() > limits::SCHEMA_VIOLATIONS_MAX;
        violations.truncate(limits::SCHEMA_VIOLATIONS_MAX);
        Self { violations, more }
    }

    /// Returns what is wrong now that was not before. If it cannot be told, because there is too much of it, all is.
    #[must_use]
    pub fn beyond(mut self, before: &Self) -> Self {
        if !self.more || before.more {
            self.violations.retain(|violation| !before.violations.iter().any(|known| known.is_same(violation)));
        }
        self.more &= !self.violations.is_empty();
        self
    }

    /// Returns what of it somebody with these rights may be told, and how much is left out.
    #[must_use]
    pub fn seen_by(mut self, rights: &FieldRights) -> (Self, usize) {
        let all = self.violations.len();
        self.violations.retain(|violation| violation.is_seen_by(rights));
        let withheld = all - self.violations.len();
        (self, withheld)
    }
}

fn member(place: &str, name: &str) -> String {
    let mut pointer = place.to_owned();
    // Writing to a string cannot fail.
    let _ = write_step(&mut pointer, name);
    pointer
}

fn violations(error: &ValidationError<'_>, schema: &Value) -> Vec<Violation> {
    let place = error.instance_path().as_str();
    let keyword = error.kind().keyword();
    let asked = schema.pointer(error.schema_path().as_str());
    let allowed = asked.map(Value::to_string).filter(|text| text.len() <= ALLOWED_BYTES_MAX);
    let at = |pointer: String, reason: String, allowed: Option<String>| Violation {
        pointer,
        keyword: keyword.to_owned(),
        schema: error.schema_path().as_str().to_owned(),
        reason,
        allowed,
    };
    // What is missing, or too much, is told at the place where it is or would be.
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            return vec![at(member(place, name), "the member is missing".to_owned(), None)];
        }
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            let names = unexpected.iter().take(limits::SCHEMA_VIOLATIONS_MAX + 1);
            let told = names.map(|name| at(member(place, name), "there is no such member".to_owned(), None));
            return told.collect();
        }
        _ => {}
    }
    let asks = allowed.as_deref().unwrap_or("what the schema asks");
    let reason = match keyword {
        "type" => format!("the value is {}, not {asks}", type_name(error.instance())),
        "enum" => "the value is none of those that are allowed".to_owned(),
        "const" => format!("the value is not {asks}"),
        "minimum" => format!("the number is less than {asks}"),
        "exclusiveMinimum" => format!("the number is not greater than {asks}"),
        "maximum" => format!("the number is greater than {asks}"),
        "exclusiveMaximum" => format!("the number is not less than {asks}"),
        "multipleOf" => format!("the number is no multiple of {asks}"),
        "minLength" => format!("the string is shorter than {asks} characters"),
        "maxLength" => format!("the string is longer than {asks} characters"),
        "pattern" => format!("the string does not match {asks}"),
        "format" => format!("the string has not the format {asks}"),
        "minItems" => format!("the array has fewer than {asks} elements"),
        "maxItems" => format!("the array has more than {asks} elements"),
        "uniqueItems" => "the array has an element twice".to_owned(),
        "contains" | "minContains" | "maxContains" => "the array has not as many such elements as it must".to_owned(),
        "minProperties" => format!("the object has fewer than {asks} members"),
        "maxProperties" => format!("the object has more than {asks} members"),
        "propertyNames" => "a name in the object is not allowed".to_owned(),
        "anyOf" => "the value has none of the forms that are allowed".to_owned(),
        "oneOf" => "the value has not exactly one of the forms that are allowed".to_owned(),
        "not" => "the value has a form that is not allowed".to_owned(),
        "falseSchema" => "nothing is allowed here".to_owned(),
        _ => format!("the value does not meet {keyword:?}"),
    };
    vec![at(place.to_owned(), reason, allowed)]
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
