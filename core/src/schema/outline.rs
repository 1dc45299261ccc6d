//! The outline of a schema: which schemas it is made of, and how they lead to one another. Here is refused what could not be used,
//! or would take too long.
//!
//! Holding a document against a schema takes, for each value, at most as many steps as the schema has parts once each reference is
//! written out. A schema that refers to itself has no end of parts; it is taken if each value can meet each part only once:
//! then its ways to itself must not branch except into different members or elements.

use std::collections::BTreeMap;

use super::SchemaError;
use crate::document::json::Value;
use crate::limits;
use crate::pointer::write_step;

/// The one dialect.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Formats that are checked. Others take a regular expression from the document, or more time than they are worth.
const FORMATS: [&str; 13] = [
    "date",
    "date-time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "json-pointer",
    "time",
    "uri",
    "uri-reference",
    "uuid",
    "relative-json-pointer",
];

/// Keywords without schemas in them.
const PLAIN: [&str; 32] = [
    "$comment",
    "$schema",
    "const",
    "default",
    "dependentRequired",
    "deprecated",
    "description",
    "enum",
    "examples",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "maxContains",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minContains",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "pattern",
    "readOnly",
    "required",
    "title",
    "type",
    "uniqueItems",
    "writeOnly",
    "contentEncoding",
    "contentMediaType",
];

/// What a pattern costs more than another part.
const PATTERN_PARTS: u64 = 20;

/// How a schema leads to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// Both are held against the same value.
    Same,
    /// The other is held against members or elements that none beside it on such a way is held against.
    Into,
    /// Against members or elements that others may be held against too.
    Across,
}

/// How a keyword holds schemas.
#[derive(Clone, Copy)]
enum Shape {
    One(Way),
    List(Way),
    Map(Way),
    /// They are only there to be referred to.
    Definitions,
}

fn shape(keyword: &str) -> Option<Shape> {
    Some(match keyword {
        "items" | "additionalProperties" => Shape::One(Way::Into),
        "contains" | "propertyNames" | "unevaluatedItems" | "unevaluatedProperties" => Shape::One(Way::Across),
        "not" | "if" | "then" | "else" => Shape::One(Way::Same),
        "allOf" | "anyOf" | "oneOf" => Shape::List(Way::Same),
        "prefixItems" => Shape::List(Way::Into),
        "properties" => Shape::Map(Way::Into),
        "patternProperties" => Shape::Map(Way::Across),
        "dependentSchemas" => Shape::Map(Way::Same),
        "$defs" => Shape::Definitions,
        _ => return None,
    })
}

#[derive(Default)]
struct Node {
    pointer: String,
    ways: Vec<(usize, Way)>,
    /// What it asks itself, in parts.
    parts: u64,
    /// Whether its members are looked at once more, to find what no other part speaks of.
    again: bool,
}

#[derive(Default)]
struct Outline {
    nodes: Vec<Node>,
    places: BTreeMap<String, usize>,
    references: Vec<(usize, String)>,
    patterns: usize,
}

/// Checks a schema and returns how many of its parts are held against one value at most.
///
/// # Errors
/// [`SchemaError`], with the place.
pub(super) fn read(schema: &Value) -> Result<u64, SchemaError> {
    if !matches!(schema, Value::Map(_)) {
        return Err(SchemaError::new("", format!("a schema is an object, not {}", schema.type_name())));
    }
    let mut outline = Outline::default();
    outline.schema(schema, &mut String::new())?;
    outline.resolve()?;
    outline.weigh()
}

fn below<T>(pointer: &mut String, step: &str, read: impl FnOnce(&mut String) -> T) -> T {
    let len = pointer.len();
    // Writing to a string cannot fail.
    let _ = write_step(pointer, step);
    let out = read(pointer);
    pointer.truncate(len);
    out
}

impl Outline {
    fn schema(&mut self, schema: &Value, pointer: &mut String) -> Result<usize, SchemaError> {
        if self.nodes.len() >= limits::SCHEMA_NODES_MAX {
            let reason = format!("a schema has at most {} schemas in it", limits::SCHEMA_NODES_MAX);
            return Err(SchemaError::new(pointer.clone(), reason));
        }
        let index = self.nodes.len();
        self.nodes.push(Node { pointer: pointer.clone(), parts: 1, ..Node::default() });
        self.places.insert(pointer.clone(), index);
        match schema {
            Value::Bool(_) => {}
            Value::Map(map) => {
                for (keyword, value) in map {
                    below(pointer, keyword, |pointer| self.keyword(index, keyword, value, pointer))?;
                }
            }
            other => {
                let reason = format!("a schema is an object or a boolean, not {}", other.type_name());
                return Err(SchemaError::new(pointer.clone(), reason));
            }
        }
        Ok(index)
    }

    fn keyword(&mut self, index: usize, keyword: &str, value: &Value, pointer: &mut String) -> Result<(), SchemaError> {
        if let Some(shape) = shape(keyword) {
            self.mark(index, keyword.starts_with("unevaluated"), 0);
            return self.schemas(index, shape, value, pointer);
        }
        match keyword {
            "$ref" => match value {
                Value::String(target) => self.references.push((index, target.clone())),
                _ => return Err(SchemaError::new(pointer.clone(), "a reference is a string")),
            },
            "$schema" if !matches!(value, Value::String(text) if text.trim_end_matches('#') == DIALECT) => {
                let refused = SchemaError::new(pointer.clone(), "this dialect of JSON Schema is not known");
                return Err(refused.hint(format!("leave it out, or use {DIALECT}")));
            }
            "format" if !matches!(value, Value::String(format) if FORMATS.contains(&format.as_str())) => {
                let refused = SchemaError::new(pointer.clone(), "this format is not known");
                return Err(refused.hint(format!("known are {}", FORMATS.join(", "))));
            }
            "pattern" => self.pattern(index, value, pointer)?,
            "enum" | "const" | "required" | "dependentRequired" => self.mark(index, false, values(value)),
            _ if PLAIN.contains(&keyword) || keyword.starts_with("x-") => {}
            "$id" | "$anchor" | "$dynamicRef" | "$dynamicAnchor" | "$vocabulary" => {
                let refused = SchemaError::new(pointer.clone(), format!("{keyword} is not supported"));
                return Err(refused.hint("a schema stands alone: refer to its parts as #/$defs/NAME"));
            }
            _ => {
                let refused = SchemaError::new(pointer.clone(), format!("there is no keyword {keyword:?}"));
                return Err(refused.hint(match nearest(keyword) {
                    Some(near) => format!("did you mean {near:?}? Notes of your own begin with x-"),
                    None => "notes of your own begin with x-".to_owned(),
                }));
            }
        }
        Ok(())
    }

    fn mark(&mut self, index: usize, again: bool, parts: u64) {
        if let Some(node) = self.nodes.get_mut(index) {
            node.again |= again;
            node.parts = node.parts.saturating_add(parts);
        }
    }

    fn pattern(&mut self, index: usize, value: &Value, pointer: &str) -> Result<(), SchemaError> {
        let Value::String(pattern) = value else {
            return Err(SchemaError::new(pointer, "a pattern is a string"));
        };
        self.patterns += 1;
        self.mark(index, false, PATTERN_PARTS);
        if self.patterns > limits::SCHEMA_PATTERNS_MAX {
            let reason = format!("a schema has at most {} regular expressions", limits::SCHEMA_PATTERNS_MAX);
            return Err(SchemaError::new(pointer, reason));
        }
        if pattern.len() > limits::SCHEMA_PATTERN_BYTES_MAX {
            let reason = format!("a regular expression has at most {} bytes", limits::SCHEMA_PATTERN_BYTES_MAX);
            return Err(SchemaError::new(pointer, reason));
        }
        Ok(())
    }

    fn schemas(&mut self, index: usize, shape: Shape, value: &Value, pointer: &mut String) -> Result<(), SchemaError> {
        let mut found = Vec::new();
        let way = match (shape, value) {
            (Shape::One(way), value) => {
                found.push(self.schema(value, pointer)?);
                Some(way)
            }
            (Shape::List(way), Value::List(list)) => {
                for (place, value) in list.iter().enumerate() {
                    found.push(below(pointer, &place.to_string(), |pointer| self.schema(value, pointer))?);
                }
                Some(way)
            }
            (Shape::Map(_) | Shape::Definitions, Value::Map(map)) => {
                for (name, value) in map {
                    if pointer.ends_with("/patternProperties") {
                        self.pattern(index, &Value::String(name.clone()), pointer)?;
                    }
                    found.push(below(pointer, name, |pointer| self.schema(value, pointer))?);
                }
                match shape {
                    Shape::Map(way) => Some(way),
                    Shape::One(_) | Shape::List(_) | Shape::Definitions => None,
                }
            }
            (Shape::List(_), _) => return Err(SchemaError::new(pointer.clone(), "this is an array of schemas")),
            (Shape::Map(_) | Shape::Definitions, _) => {
                return Err(SchemaError::new(pointer.clone(), "this is an object of schemas"));
            }
        };
        if let (Some(way), Some(node)) = (way, self.nodes.get_mut(index)) {
            node.ways.extend(found.into_iter().map(|to| (to, way)));
        }
        Ok(())
    }

    /// Follows the references.
    fn resolve(&mut self) -> Result<(), SchemaError> {
        for (from, target) in std::mem::take(&mut self.references) {
            let to = target.strip_prefix('#').and_then(|place| self.places.get(place)).copied();
            let Some(node) = self.nodes.get_mut(from) else { continue };
            let Some(to) = to else {
                let refused =
                    SchemaError::new(format!("{}/$ref", node.pointer), format!("{target:?} leads to no schema"));
                return Err(refused.hint("references stay in the schema: \"#\" or \"#/$defs/NAME\""));
            };
            node.ways.push((to, Way::Same));
        }
        Ok(())
    }

    fn ways(&self, node: usize) -> &[(usize, Way)] {
        self.nodes.get(node).map_or(&[], |node| &node.ways)
    }

    /// Returns where one comes from a schema, by one way or more, of the given kinds.
    fn reached(&self, from: usize, kinds: &[Way]) -> Vec<bool> {
        let mut reached = vec![false; self.nodes.len()];
        let mut next = vec![from];
        while let Some(node) = next.pop() {
            for (to, _) in self.ways(node).iter().filter(|(_, way)| kinds.contains(way)) {
                if let Some(seen) = reached.get_mut(*to).filter(|seen| !**seen) {
                    *seen = true;
                    next.push(*to);
                }
            }
        }
        reached
    }

    fn weigh(&self) -> Result<u64, SchemaError> {
        let all = [Way::Same, Way::Into, Way::Across];
        let reach: Vec<Vec<bool>> = (0..self.nodes.len()).map(|node| self.reached(node, &all)).collect();
        let reaches = |from: usize, to: usize| reach.get(from).and_then(|row| row.get(to)).copied().unwrap_or(false);
        for (index, node) in self.nodes.iter().enumerate() {
            if self.reached(index, &[Way::Same]).get(index).copied().unwrap_or(false) {
                let refused = SchemaError::new(node.pointer.clone(), "this refers to itself, and leads no further");
                return Err(refused.hint("a schema may refer to itself only below members or elements"));
            }
            let (mut into, mut others) = (0_usize, 0_usize);
            for (_, way) in node.ways.iter().filter(|(to, _)| reaches(*to, index)) {
                match way {
                    Way::Into => into = 1,
                    Way::Same | Way::Across => others += 1,
                }
            }
            if into + others > 1 {
                let refused = SchemaError::new(
                    node.pointer.clone(),
                    "this leads back to itself by several ways for the same value, which could take for ever",
                );
                return Err(refused.hint("keep the way back in one of properties, items, allOf, anyOf, oneOf or $ref"));
            }
        }
        let mut weights = vec![None; self.nodes.len()];
        let parts = self.parts(0, 0, &reaches, &mut weights)?;
        if parts > limits::SCHEMA_PARTS_MAX {
            let reason = format!(
                "with its references written out the schema has {parts} parts, at most {} are allowed",
                limits::SCHEMA_PARTS_MAX
            );
            return Err(SchemaError::new("", reason));
        }
        Ok(parts)
    }

    /// Returns how many parts a schema has, with all that can be reached from it. Those that lead back to each other count as one.
    fn parts(
        &self,
        index: usize,
        depth: usize,
        reaches: &impl Fn(usize, usize) -> bool,
        weights: &mut Vec<Option<u64>>,
    ) -> Result<u64, SchemaError> {
        if let Some(weight) = weights.get(index).copied().flatten() {
            return Ok(weight);
        }
        if depth > limits::SCHEMA_DEPTH_MAX {
            let pointer = self.nodes.get(index).map(|node| node.pointer.clone()).unwrap_or_default();
            let reason = format!("schemas lead to one another over more than {} steps", limits::SCHEMA_DEPTH_MAX);
            return Err(SchemaError::new(pointer, reason));
        }
        let is_mutual = |other: &usize| *other == index || (reaches(index, *other) && reaches(*other, index));
        let members: Vec<usize> = (0..self.nodes.len()).filter(is_mutual).collect();
        let mut weight = 0_u64;
        for member in &members {
            let Some(node) = self.nodes.get(*member) else { continue };
            let mut own = node.parts;
            for (to, _) in node.ways.iter().filter(|(to, _)| !members.contains(to)) {
                own = own.saturating_add(self.parts(*to, depth + 1, reaches, weights)?);
            }
            weight = weight.saturating_add(own.saturating_mul(if node.again { 2 } else { 1 }));
        }
        for member in members {
            if let Some(slot) = weights.get_mut(member) {
                *slot = Some(weight);
            }
        }
        Ok(weight)
    }
}

/// Returns how many values a value has in it. Its nesting is bounded.
fn values(value: &Value) -> u64 {
    1 + match value {
        Value::List(list) => list.iter().map(values).sum(),
        Value::Map(map) => map.values().map(values).sum(),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Float(_) | Value::String(_) => 0,
    }
}

/// Returns the keyword that somebody may have meant: one that differs only in case, or in one letter that is missing or more.
fn nearest(given: &str) -> Option<&'static str> {
    const OF_SCHEMAS: [&str; 19] = [
        "$defs",
        "$ref",
        "additionalProperties",
        "allOf",
        "anyOf",
        "contains",
        "dependentSchemas",
        "else",
        "if",
        "items",
        "not",
        "oneOf",
        "patternProperties",
        "prefixItems",
        "properties",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    ];
    let lacks_one = |long: &str, short: &str| {
        let mut rest = short.chars().peekable();
        let more = long.chars().filter(|letter| rest.next_if_eq(letter).is_none()).count();
        rest.peek().is_none() && more == 1
    };
    let is_near = |known: &&&str| {
        known.eq_ignore_ascii_case(given)
            || lacks_one(known, given)
            || lacks_one(given, known)
            || (*known, given) == (&"$defs", "definitions")
    };
    PLAIN.iter().chain(&OF_SCHEMAS).find(|known| is_near(known)).copied()
}
