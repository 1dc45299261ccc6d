//! Which documents are meant.
//!
//! The notation is MongoDB's, as far as it goes: `{"age": {"$gte": 18}, "tags": "a"}`. A condition on a place with an array holds if it
//! holds for the array or for one of its elements; `null` is equal to what is missing.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};

use super::QueryError;
use super::order::{compare, equal, integer};
use super::path::{Path, reach, reach_each};
use crate::document::json::{Value, Wanted};
use crate::limits;

/// Selects documents.
#[derive(Clone, Debug)]
pub struct Selector(Expr);

/// What the parts of a selector come to.
#[derive(Clone, Debug)]
pub(super) enum Expr {
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Nor(Vec<Expr>),
    Field(Path, Vec<Test>),
}

/// A condition on one place.
#[derive(Clone, Debug)]
pub(super) enum Test {
    Equal(Value),
    /// The value compares to the given one in one of these ways.
    Compare(&'static [Ordering], Value),
    OneOf(Vec<Value>),
    AllOf(Vec<Value>),
    Exists(bool),
    Type(Kind),
    Regex(Box<Regex>),
    Contains(String),
    Size(u64),
    Mod(i64, i64),
    /// One element of an array meets all of these.
    Element(Vec<Test>),
    /// One element of an array is an object that is selected.
    Object(Box<Expr>),
    Not(Vec<Test>),
}

/// Kinds of JSON values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Null,
    Boolean,
    Number,
    Integer,
    String,
    Array,
    Object,
}

impl Kind {
    const NAMES: [(&'static str, Self); 7] = [
        ("null", Self::Null),
        ("boolean", Self::Boolean),
        ("number", Self::Number),
        ("integer", Self::Integer),
        ("string", Self::String),
        ("array", Self::Array),
        ("object", Self::Object),
    ];

    fn is_of(self, value: &Value) -> bool {
        match value {
            Value::Null => self == Self::Null,
            Value::Bool(_) => self == Self::Boolean,
            Value::Int(_) | Value::Uint(_) => matches!(self, Self::Number | Self::Integer),
            Value::Float(_) => self == Self::Number,
            Value::String(_) => self == Self::String,
            Value::List(_) => self == Self::Array,
            Value::Map(_) => self == Self::Object,
        }
    }
}

/// A document as queries see it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its id.
    pub id: &'a Value,
    /// When it was changed.
    pub modified: &'a Value,
    /// Its content, as far as it is wanted.
    pub content: &'a Value,
}

impl<'a> Subject<'a> {
    /// Hands the values at a place to `found` until that returns true; returns whether it did.
    pub(super) fn reach(&self, path: &Path, found: &mut dyn FnMut(&'a Value) -> bool) -> bool {
        match path {
            Path::Id => found(self.id),
            Path::Modified => found(self.modified),
            Path::Field(steps) => reach(self.content, steps, found),
        }
    }

    /// As [`Self::reach`], and where an array is at the place, each of its elements too.
    pub(super) fn reach_each(&self, path: &Path, found: &mut dyn FnMut(&'a Value) -> bool) -> bool {
        match path {
            Path::Id => found(self.id),
            Path::Modified => found(self.modified),
            Path::Field(steps) => reach_each(self.content, steps, found),
        }
    }
}

impl Selector {
    /// Selects every document.
    #[must_use]
    pub const fn all() -> Self {
        Self(Expr::And(Vec::new()))
    }

    /// Reads a selector. `at` is where it stands, for errors.
    ///
    /// # Errors
    /// Of what is wrong, where, and what is allowed.
    pub fn parse(value: &Value, at: &str) -> Result<Self, QueryError> {
        Ok(Self(Reader { left: limits::QUERY_CONDITIONS_MAX }.object(value, at, 0)?))
    }

    /// Returns whether the document is meant.
    #[must_use]
    pub fn selects(&self, subject: &Subject<'_>) -> bool {
        self.0.holds(subject)
    }

    /// Returns whether it selects every document.
    #[must_use]
    pub fn is_all(&self) -> bool {
        matches!(&self.0, Expr::And(parts) if parts.is_empty())
    }

    pub(super) fn expr(&self) -> &Expr {
        &self.0
    }

    /// Adds the places that are looked at.
    pub(super) fn add_wanted(&self, wanted: &mut Wanted) {
        self.0.add_wanted(wanted);
    }
}

impl Expr {
    fn holds(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::And(parts) => parts.iter().all(|part| part.holds(subject)),
            Self::Or(parts) => parts.iter().any(|part| part.holds(subject)),
            Self::Nor(parts) => !parts.iter().any(|part| part.holds(subject)),
            Self::Field(path, tests) => tests.iter().all(|test| test.holds(subject, path)),
        }
    }

    fn add_wanted(&self, wanted: &mut Wanted) {
        match self {
            Self::And(parts) | Self::Or(parts) | Self::Nor(parts) => {
                parts.iter().for_each(|part| part.add_wanted(wanted));
            }
            Self::Field(path, _) => path.add_to(wanted),
        }
    }
}

impl Test {
    fn holds(&self, subject: &Subject<'_>, path: &Path) -> bool {
        match self {
            Self::Equal(value) => Self::equals(value, subject, path),
            Self::OneOf(values) => values.iter().any(|value| Self::equals(value, subject, path)),
            Self::AllOf(values) => values.iter().all(|value| Self::equals(value, subject, path)),
            Self::Exists(wanted) => subject.reach(path, &mut |_| true) == *wanted,
            Self::Size(size) => {
                subject.reach(path, &mut |found| matches!(found, Value::List(list) if list.len() as u64 == *size))
            }
            Self::Element(tests) => {
                let meets = |element: &Value| {
                    let content = Subject { content: element, ..*subject };
                    tests.iter().all(|test| test.holds(&content, &Path::Field(Vec::new())))
                };
                subject.reach(path, &mut |found| matches!(found, Value::List(list) if list.iter().any(meets)))
            }
            Self::Object(expr) => {
                let meets = |element: &Value| {
                    matches!(element, Value::Map(_)) && expr.holds(&Subject { content: element, ..*subject })
                };
                subject.reach(path, &mut |found| matches!(found, Value::List(list) if list.iter().any(meets)))
            }
            Self::Not(tests) => !tests.iter().all(|test| test.holds(subject, path)),
            Self::Compare(..) | Self::Type(_) | Self::Regex(_) | Self::Contains(_) | Self::Mod(..) => {
                subject.reach_each(path, &mut |found| self.fits(found))
            }
        }
    }

    fn equals(value: &Value, subject: &Subject<'_>, path: &Path) -> bool {
        let is_there = subject.reach_each(path, &mut |found| equal(found, value));
        is_there || matches!(value, Value::Null) && !subject.reach(path, &mut |_| true)
    }

    /// Whether one value meets a condition that is about values alone.
    fn fits(&self, found: &Value) -> bool {
        match self {
            Self::Compare(orders, value) => compare(found, value).is_some_and(|order| orders.contains(&order)),
            Self::Type(kind) => kind.is_of(found),
            Self::Regex(regex) => matches!(found, Value::String(text) if regex.is_match(text)),
            Self::Contains(part) => matches!(found, Value::String(text) if text.contains(part)),
            Self::Mod(divisor, rest) => {
                integer(found).is_some_and(|number| number % i128::from(*divisor) == i128::from(*rest))
            }
            Self::Equal(_)
            | Self::OneOf(_)
            | Self::AllOf(_)
            | Self::Exists(_)
            | Self::Size(_)
            | Self::Element(_)
            | Self::Object(_)
            | Self::Not(_) => false,
        }
    }
}

const LESS: &[Ordering] = &[Ordering::Less];
const LESS_OR_EQUAL: &[Ordering] = &[Ordering::Less, Ordering::Equal];
const GREATER: &[Ordering] = &[Ordering::Greater];
const GREATER_OR_EQUAL: &[Ordering] = &[Ordering::Greater, Ordering::Equal];

/// What stands in place of a field name at the top.
const COMBINATORS: &str = "$and, $or, $nor";
/// What stands in a condition.
const OPERATORS: &str =
    "$eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $all, $exists, $type, $regex, $contains, $mod, $size, $elemMatch, $not";

/// Reads a selector, counting its conditions.
struct Reader {
    left: usize,
}

impl Reader {
    fn count(&mut self, at: &str) -> Result<(), QueryError> {
        self.left = self.left.checked_sub(1).ok_or_else(|| {
            QueryError::new(
                at,
                format!("a query has at most {} conditions and values to compare with", limits::QUERY_CONDITIONS_MAX),
            )
        })?;
        Ok(())
    }

    fn object(&mut self, value: &Value, at: &str, depth: usize) -> Result<Expr, QueryError> {
        let Value::Map(map) = value else {
            return Err(QueryError::new(at, format!("a selector is an object, not {}", value.type_name()))
                .hint("for example {\"age\": {\"$gte\": 18}}"));
        };
        if depth > limits::QUERY_DEPTH_MAX {
            return Err(QueryError::new(at, format!("conditions are nested deeper than {}", limits::QUERY_DEPTH_MAX)));
        }
        let mut parts = Vec::with_capacity(map.len());
        for (key, value) in map {
            let at = below(at, key);
            self.count(&at)?;
            parts.push(match key.as_str() {
                "$and" => Expr::And(self.several(value, &at, depth)?),
                "$or" => Expr::Or(self.several(value, &at, depth)?),
                "$nor" => Expr::Nor(self.several(value, &at, depth)?),
                unknown if unknown.starts_with('$') => {
                    return Err(unknown_operator(
                        unknown,
                        &at,
                        COMBINATORS,
                        "conditions on a field stand below its name",
                    ));
                }
                field => {
                    let path = field.parse::<Path>().map_err(|error| QueryError::new(&at, error.to_string()))?;
                    Expr::Field(path, self.condition(value, &at, depth + 1)?)
                }
            });
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::And(parts) })
    }

    fn several(&mut self, value: &Value, at: &str, depth: usize) -> Result<Vec<Expr>, QueryError> {
        let Value::List(list) = value else {
            return Err(QueryError::new(at, format!("an array of selectors stands here, not {}", value.type_name())));
        };
        if list.is_empty() {
            return Err(QueryError::new(at, "the array has no selector"));
        }
        let numbered = list.iter().enumerate();
        numbered.map(|(n, value)| self.object(value, &below(at, &n.to_string()), depth + 1)).collect()
    }

    /// Reads what stands below a field: a value to be equal to, or operators.
    fn condition(&mut self, value: &Value, at: &str, depth: usize) -> Result<Vec<Test>, QueryError> {
        match value {
            Value::Map(map) if map.keys().any(|key| key.starts_with('$')) => self.operators(map, at, depth),
            value => Ok(vec![Test::Equal(value.clone())]),
        }
    }

    fn operators(&mut self, map: &BTreeMap<String, Value>, at: &str, depth: usize) -> Result<Vec<Test>, QueryError> {
        if depth > limits::QUERY_DEPTH_MAX {
            return Err(QueryError::new(at, format!("conditions are nested deeper than {}", limits::QUERY_DEPTH_MAX)));
        }
        let mut tests = Vec::with_capacity(map.len());
        for (key, value) in map {
            let at = &below(at, key);
            self.count(at)?;
            tests.push(match key.as_str() {
                "$eq" => Test::Equal(value.clone()),
                "$ne" => Test::Not(vec![Test::Equal(value.clone())]),
                "$gt" => comparison(GREATER, value, at)?,
                "$gte" => comparison(GREATER_OR_EQUAL, value, at)?,
                "$lt" => comparison(LESS, value, at)?,
                "$lte" => comparison(LESS_OR_EQUAL, value, at)?,
                "$in" => Test::OneOf(self.values(value, at)?),
                "$nin" => Test::Not(vec![Test::OneOf(self.values(value, at)?)]),
                "$all" => match self.values(value, at)? {
                    values if values.is_empty() => return Err(QueryError::new(at, "the array has no value")),
                    values => Test::AllOf(values),
                },
                "$exists" => match value {
                    Value::Bool(wanted) => Test::Exists(*wanted),
                    other => return Err(expected("true or false", other, at)),
                },
                "$type" => Test::Type(kind(value, at)?),
                "$regex" => Test::Regex(Box::new(regex(value, map.get("$options"), at)?)),
                "$options" if map.contains_key("$regex") => continue,
                "$contains" => match value {
                    Value::String(part) => Test::Contains(part.clone()),
                    other => return Err(expected("a string", other, at)),
                },
                "$mod" => modulus(value, at)?,
                "$size" => match value {
                    Value::Int(size) if *size >= 0 => Test::Size(size.unsigned_abs()),
                    other => return Err(expected("a whole number from 0", other, at)),
                },
                "$elemMatch" => self.element(value, at, depth)?,
                "$not" => match value {
                    Value::Map(map) => Test::Not(self.operators(map, at, depth + 1)?),
                    other => return Err(expected("an object of operators", other, at)),
                },
                unknown if unknown.starts_with('$') => {
                    return Err(unknown_operator(
                        unknown,
                        at,
                        OPERATORS,
                        "$and, $or and $nor stand in place of a field",
                    ));
                }
                _ => {
                    return Err(QueryError::new(at, "fields and operators are mixed in one object")
                        .hint("an object to be equal to is given by {\"$eq\": {…}}"));
                }
            });
        }
        if tests.is_empty() {
            return Err(QueryError::new(at, "there is no condition").hint(format!("operators are {OPERATORS}")));
        }
        Ok(tests)
    }

    fn element(&mut self, value: &Value, at: &str, depth: usize) -> Result<Test, QueryError> {
        let Value::Map(map) = value else { return Err(expected("an object of conditions", value, at)) };
        let is_operator = |key: &String| key.starts_with('$') && !COMBINATORS.split(", ").any(|name| name == key);
        if map.keys().any(is_operator) {
            return Ok(Test::Element(self.operators(map, at, depth + 1)?));
        }
        let expr = self.object(value, at, depth + 1)?;
        match expr.about_the_document() {
            Some(path) => {
                Err(QueryError::new(below(at, &path.to_string()), "this is of the document, not of an element"))
            }
            None => Ok(Test::Object(Box::new(expr))),
        }
    }

    fn values(&mut self, value: &Value, at: &str) -> Result<Vec<Value>, QueryError> {
        let Value::List(list) = value else { return Err(expected("an array of values", value, at)) };
        list.iter().try_for_each(|_| self.count(at))?;
        Ok(list.clone())
    }
}

impl Expr {
    /// Returns a place that is none of the content, if one is named.
    fn about_the_document(&self) -> Option<&Path> {
        match self {
            Self::And(parts) | Self::Or(parts) | Self::Nor(parts) => parts.iter().find_map(Self::about_the_document),
            Self::Field(path @ (Path::Id | Path::Modified), _) => Some(path),
            Self::Field(Path::Field(_), _) => None,
        }
    }
}

pub(super) fn below(at: &str, step: &str) -> String {
    let mut pointer = at.to_owned();
    // Writing to a string cannot fail.
    let _ = crate::pointer::write_step(&mut pointer, step);
    pointer
}

pub(super) fn expected(what: &str, found: &Value, at: &str) -> QueryError {
    QueryError::new(at, format!("{what} stands here, not {}", found.type_name()))
}

fn unknown_operator(name: &str, at: &str, known: &str, hint: &str) -> QueryError {
    QueryError::new(at, format!("{name} is no operator here")).hint(format!("there are {known}; {hint}"))
}

fn comparison(orders: &'static [Ordering], value: &Value, at: &str) -> Result<Test, QueryError> {
    match value {
        Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Float(_) | Value::String(_) => {
            Ok(Test::Compare(orders, value.clone()))
        }
        Value::Null | Value::List(_) | Value::Map(_) => Err(expected("a number, a string or a boolean", value, at)),
    }
}

fn kind(value: &Value, at: &str) -> Result<Kind, QueryError> {
    let found = match value {
        Value::String(name) => Kind::NAMES.iter().find(|(known, _)| known == name).map(|(_, kind)| *kind),
        _ => None,
    };
    found.ok_or_else(|| {
        let names: Vec<_> = Kind::NAMES.iter().map(|(name, _)| *name).collect();
        QueryError::new(at, "this is no type").hint(format!("types are {}", names.join(", ")))
    })
}

fn regex(pattern: &Value, options: Option<&Value>, at: &str) -> Result<Regex, QueryError> {
    let Value::String(pattern) = pattern else { return Err(expected("a regular expression as a string", pattern, at)) };
    if pattern.len() > limits::QUERY_REGEX_BYTES_MAX {
        return Err(QueryError::new(
            at,
            format!("the expression is longer than {} bytes", limits::QUERY_REGEX_BYTES_MAX),
        ));
    }
    let mut builder = RegexBuilder::new(pattern);
    builder.size_limit(limits::QUERY_REGEX_COMPILED_BYTES_MAX).dfa_size_limit(limits::QUERY_REGEX_COMPILED_BYTES_MAX);
    match options {
        None => {}
        Some(Value::String(options)) => {
            for option in options.chars() {
                match option {
                    'i' => builder.case_insensitive(true),
                    'm' => builder.multi_line(true),
                    's' => builder.dot_matches_new_line(true),
                    'x' => builder.ignore_whitespace(true),
                    _ => {
                        return Err(QueryError::new(at, format!("{option:?} is no option of $regex"))
                            .hint("options are i, m, s, x"));
                    }
                };
            }
        }
        Some(other) => return Err(expected("a string of options", other, at)),
    }
    builder.build().map_err(|error| {
        // The crate draws the place below the pattern, on lines of their own.
        let what = match &error {
            regex::Error::CompiledTooBig(_) => "the expression is too large".to_owned(),
            error => error.to_string().lines().last().unwrap_or_default().trim().to_owned(),
        };
        QueryError::new(at, format!("this is no regular expression: {what}"))
            .hint("the notation is that of the crate regex, without look-around and back-references")
    })
}

fn modulus(value: &Value, at: &str) -> Result<Test, QueryError> {
    match value {
        Value::List(list) => match list.as_slice() {
            [Value::Int(0), _] => Err(QueryError::new(at, "nothing can be divided by 0")),
            [Value::Int(divisor), Value::Int(rest)] => Ok(Test::Mod(*divisor, *rest)),
            _ => Err(QueryError::new(at, "an array of divisor and remainder stands here, as in [2, 0]")),
        },
        other => Err(expected("an array of divisor and remainder, as in [2, 0],", other, at)),
    }
}
