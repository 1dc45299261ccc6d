//! Fields of documents: what a change says that it touches, and what rights say of them.
//!
//! A field is named by a pattern: a JSON pointer (RFC 6901) in which the step `*` stands for any list position and any key. It
//! means the place that it leads to and all that is below. So a key that is really called `*` cannot be named alone; whoever
//! names it names its neighbours too, which errs on the safe side for rights and for declarations.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits;
use crate::pointer::{Pointer, PointerError};

/// The step that stands for any list position and any key.
pub const ANY: &str = "*";

/// A pattern of places in documents, and of all that is below them; never the root.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FieldPath(Pointer);

/// Why a text names no field.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FieldPathError {
    /// It is no JSON pointer.
    #[error("{0}")]
    Pointer(PointerError),
    /// It leads to the root, which is the document.
    #[error("a field is named by a JSON pointer, as /address/city; the root is the whole document")]
    Root,
    /// It is longer than the bound.
    #[error("the JSON pointer of a field is longer than {} bytes", limits::FIELD_PATH_BYTES_MAX)]
    TooLong,
}

fn steps_cover<S: AsRef<str>>(pattern: &[String], steps: &[S]) -> bool {
    pattern.len() <= steps.len() && pattern.iter().zip(steps).all(|(own, other)| own == ANY || own == other.as_ref())
}

impl FieldPath {
    /// Names the field at a place; none for the root and where the name is too long.
    #[must_use]
    pub fn at(pointer: Pointer) -> Option<Self> {
        Self::checked(pointer).ok()
    }

    fn checked(pointer: Pointer) -> Result<Self, FieldPathError> {
        if pointer.steps().is_empty() {
            return Err(FieldPathError::Root);
        }
        // At least as long as it reads: an escape makes two of one.
        let bytes: usize = pointer.steps().iter().map(|step| step.len() + 1 + step.matches(['~', '/']).count()).sum();
        if bytes > limits::FIELD_PATH_BYTES_MAX { Err(FieldPathError::TooLong) } else { Ok(Self(pointer)) }
    }

    /// Returns the steps from the root.
    #[must_use]
    pub fn steps(&self) -> &[String] {
        self.0.steps()
    }

    /// Returns whether a place, given by its steps, lies at or below this field. The step of a list position is [`ANY`].
    #[must_use]
    pub fn leads_to<S: AsRef<str>>(&self, steps: &[S]) -> bool {
        steps_cover(self.steps(), steps)
    }

    /// Returns whether all that the other field means lies at or below this one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.leads_to(other.steps())
    }

    /// Returns whether some place may lie at or below both, or one of them above the other.
    #[must_use]
    pub fn meets(&self, other: &[String]) -> bool {
        self.steps().iter().zip(other).all(|(own, other)| own == ANY || other == ANY || own == other)
    }
}

impl FromStr for FieldPath {
    type Err = FieldPathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::checked(text.parse().map_err(FieldPathError::Pointer)?)
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for FieldPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FieldPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Fields: ascending, none of them literally below another.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct FieldPaths(Vec<FieldPath>);

impl FieldPaths {
    /// Collects fields; those below others are left out.
    pub fn of(paths: impl IntoIterator<Item = FieldPath>) -> Self {
        let mut paths: Vec<_> = paths.into_iter().collect();
        paths.sort();
        // Whatever is below another follows it.
        paths.dedup_by(|later, earlier| later.steps().starts_with(earlier.steps()));
        Self(paths)
    }

    /// Returns the fields.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &FieldPath> {
        self.0.iter()
    }

    /// Returns how many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns about how many bytes they take, rather too many.
    #[must_use]
    pub fn size(&self) -> usize {
        let step = |step: &String| 2 * step.len() + 1;
        4 + self.iter().map(|path| 4 + path.steps().iter().map(step).sum::<usize>()).sum::<usize>()
    }

    /// Returns whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether a place lies at or below one of them.
    #[must_use]
    pub fn lead_to<S: AsRef<str>>(&self, steps: &[S]) -> bool {
        self.iter().any(|path| path.leads_to(steps))
    }

    fn meet(&self, steps: &[String]) -> bool {
        self.iter().any(|path| path.meets(steps))
    }

    pub(super) fn is_canonical(&self) -> bool {
        self.0.iter().zip(self.0.iter().skip(1)).all(|(a, b)| a < b && !b.steps().starts_with(a.steps()))
    }
}

impl<'de> Deserialize<'de> for FieldPaths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        super::codec::bounded_list::<{ limits::CHANGE_FIELDS_MAX }, _, _>(deserializer).map(Self)
    }
}

/// Which fields of documents a right is about.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Fields {
    /// All of them: the whole document.
    #[default]
    All,
    /// These, and what is below them.
    Only(FieldPaths),
    /// All but these and what is below them.
    Except(FieldPaths),
}

/// What of a document a change touches, by its own declaration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Touched<'a> {
    /// Anything: nothing is declared, or it is a delete.
    Document,
    /// This field.
    Field(&'a FieldPath),
    /// No field.
    Nothing,
}

impl Fields {
    /// Returns whether these are all fields.
    #[must_use]
    pub const fn is_all(&self) -> bool {
        match self {
            Self::All => true,
            Self::Only(_) | Self::Except(_) => false,
        }
    }

    /// Returns whether all at and below a place is among them. Nothing above a withheld field is: who may write there could
    /// put something else in its place, or read it.
    #[must_use]
    pub fn include(&self, steps: &[String]) -> bool {
        match self {
            Self::All => true,
            Self::Only(paths) => paths.lead_to(steps),
            Self::Except(paths) => !paths.meet(steps),
        }
    }

    /// Returns whether nothing at and below a place is among them.
    #[must_use]
    pub fn exclude(&self, steps: &[String]) -> bool {
        match self {
            Self::All => false,
            Self::Only(paths) => !paths.meet(steps),
            Self::Except(paths) => paths.lead_to(steps),
        }
    }

    /// Returns whether what a change declares is among them.
    #[must_use]
    pub fn allow(&self, touched: Touched<'_>) -> bool {
        match touched {
            Touched::Document => self.is_all(),
            Touched::Field(path) => self.include(path.steps()),
            Touched::Nothing => true,
        }
    }

    /// Returns whether all of `other` is certainly among them.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Only(_), Self::All | Self::Except(_)) | (Self::Except(_), Self::All) => false,
            (Self::Only(_) | Self::Except(_), Self::Only(paths)) => paths.iter().all(|path| self.include(path.steps())),
            (Self::Except(own), Self::Except(paths)) => own.iter().all(|path| paths.lead_to(path.steps())),
        }
    }

    pub(super) fn is_valid(&self) -> bool {
        match self {
            Self::All => true,
            Self::Only(paths) | Self::Except(paths) => {
                !paths.is_empty() && paths.len() <= limits::RIGHT_FIELDS_MAX && paths.is_canonical()
            }
        }
    }
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (paths, before) = match self {
            Self::All => return f.write_str("all fields"),
            Self::Only(paths) => (paths, "only "),
            Self::Except(paths) => (paths, "without "),
        };
        f.write_str(before)?;
        for (index, path) in paths.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            path.fmt(f)?;
        }
        Ok(())
    }
}

// All, where it is said at all, is nil; a limit is a pair of its kind and the fields.
impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_none(),
            Self::Only(paths) => serializer.serialize_some(&(0_u8, paths)),
            Self::Except(paths) => serializer.serialize_some(&(1_u8, paths)),
        }
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Option::<(u8, FieldPaths)>::deserialize(deserializer)? {
            None => Ok(Self::All),
            Some((0, paths)) => Ok(Self::Only(paths)),
            Some((1, paths)) => Ok(Self::Except(paths)),
            Some((other, _)) => Err(serde::de::Error::custom(format!("unknown limit of fields {other}"))),
        }
    }
}

/// What several rights together say of the fields of a document: whatever one of them gives, and, where a token narrows them, the
/// token too.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FieldRights {
    any: Vec<Fields>,
    within: Fields,
}

impl FieldRights {
    /// All fields.
    #[must_use]
    pub fn all() -> Self {
        Self { any: vec![Fields::All], within: Fields::All }
    }

    /// What one of these rights gives; nothing if there is none.
    pub fn any_of(rights: impl IntoIterator<Item = Fields>) -> Self {
        let mut any: Vec<Fields> = Vec::new();
        for fields in rights {
            if fields.is_all() {
                return Self::all();
            }
            if !any.contains(&fields) {
                any.push(fields);
            }
        }
        Self { any, within: Fields::All }
    }

    /// Returns what of them lies within a further limit.
    #[must_use]
    pub fn within(self, limit: Fields) -> Self {
        Self { within: limit, ..self }
    }

    /// Returns whether these are all fields.
    #[must_use]
    pub fn are_all(&self) -> bool {
        self.within.is_all() && self.any.iter().any(Fields::is_all)
    }

    /// Returns whether nothing was given at all.
    #[must_use]
    pub fn are_none(&self) -> bool {
        self.any.is_empty()
    }

    /// Returns whether all at and below a place is given. The step of a list position is [`ANY`], or its number.
    #[must_use]
    pub fn include(&self, steps: &[String]) -> bool {
        self.within.include(steps) && self.any.iter().any(|fields| fields.include(steps))
    }

    /// Returns whether nothing at and below a place is given.
    #[must_use]
    pub fn exclude(&self, steps: &[String]) -> bool {
        self.within.exclude(steps) || self.any.iter().all(|fields| fields.exclude(steps))
    }

    /// Returns whether a value without parts is given where not all that could be below its place is: a limit to some fields
    /// means these only, one that withholds some has nothing to withhold there.
    #[must_use]
    pub fn show_scalar(&self, steps: &[String]) -> bool {
        let shows = |fields: &Fields| match fields {
            Fields::Only(_) => fields.include(steps),
            Fields::All | Fields::Except(_) => !fields.exclude(steps),
        };
        shows(&self.within) && self.any.iter().any(shows)
    }
}
