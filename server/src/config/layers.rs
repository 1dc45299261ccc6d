//! Lays the layers of the configuration over each other.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use toml::{Table, Value};

use super::Config;

/// What the names of environment variables begin with.
const PREFIX: &str = "FOLKMOOT_";
/// Variables that are not configuration of a node: they tell client commands where it is, or hold secrets.
const OTHER_VARIABLES: [&str; 15] = [
    "FOLKMOOT_URL",
    "FOLKMOOT_TOKEN",
    "FOLKMOOT_TOKEN_FILE",
    "FOLKMOOT_USER",
    "FOLKMOOT_PASSWORD",
    "FOLKMOOT_PASSWORD_FILE",
    "FOLKMOOT_NEW_PASSWORD",
    "FOLKMOOT_CERT",
    "FOLKMOOT_KEY",
    "FOLKMOOT_CA",
    "FOLKMOOT_CONFIG",
    super::KEYS[0],
    super::KEYS[1],
    super::NEW_KEYS[0],
    super::NEW_KEYS[1],
];
/// The file that is read when none is named.
const FILE: &str = "folkmoot.toml";

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file that was named cannot be read.
    #[error("read the configuration file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("the configuration file {path} is not valid TOML: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What and where.
        message: String,
    },
    /// There is no such key.
    #[error("unknown key {key:?} in {origin}{hint}")]
    Unknown {
        /// The key.
        key: String,
        /// Where it stands.
        origin: Source,
        /// The key that may be meant.
        hint: String,
    },
    /// The value is not one of the key.
    #[error("{key} in {origin}: {message}")]
    Value {
        /// The key.
        key: String,
        /// Where it stands.
        origin: Source,
        /// What is wrong.
        message: String,
    },
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The program.
    Default,
    /// The file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// A value given by a flag.
#[derive(Debug, Clone)]
pub struct Flag {
    /// The flag as the user writes it.
    pub name: &'static str,
    /// The key that it sets.
    pub key: &'static str,
    /// The value.
    pub value: Value,
}

/// The configuration and where each value came from.
#[derive(Debug, Clone)]
pub struct Layered {
    /// The configuration.
    pub config: Config,
    /// Each key's value and source.
    pub values: BTreeMap<String, (Value, Source)>,
}

/// Loads the configuration. `file` was named by the user and must exist; otherwise `folkmoot.toml` is read if it is there.
///
/// # Errors
/// The file cannot be read, a key is unknown, or a value is not valid.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: Vec<Flag>,
) -> Result<Layered, ConfigError> {
    let defaults = flat(&default_table());
    let mut values: BTreeMap<String, (Value, Source)> =
        defaults.iter().map(|(key, value)| (key.clone(), (value.clone(), Source::Default))).collect();
    let mut set = |key: String, value: Value, origin: Source| {
        if !defaults.contains_key(&key) {
            let hint = meant(&key, defaults.keys());
            return Err(ConfigError::Unknown { key, origin, hint });
        }
        check(&key, &value).map_err(|message| ConfigError::Value {
            key: key.clone(),
            origin: origin.clone(),
            message,
        })?;
        values.insert(key, (value, origin));
        Ok(())
    };
    if let Some((path, table)) = read(file)? {
        for (key, value) in flat(&table) {
            set(key, value, Source::File(path.clone()))?;
        }
    }
    let names: BTreeMap<String, &String> = defaults.keys().map(|key| (variable(key), key)).collect();
    for (name, text) in environment {
        if !name.starts_with(PREFIX) || OTHER_VARIABLES.contains(&name.as_str()) || is_service_link(&name) {
            continue;
        }
        let origin = Source::Environment(name.clone());
        let Some(key) = names.get(&name) else {
            return Err(ConfigError::Unknown { hint: meant(&name, names.keys()), key: name, origin });
        };
        let key = (*key).clone();
        let value = typed(&text, defaults.get(&key)).map_err(|message| ConfigError::Value {
            key: key.clone(),
            origin: origin.clone(),
            message,
        })?;
        set(key, value, origin)?;
    }
    for Flag { name, key, value } in flags {
        set(key.to_owned(), value, Source::Flag(name))?;
    }
    let mut table = Table::new();
    for (key, (value, _)) in &values {
        put(&mut table, key, value.clone());
    }
    // Each key was checked alone; no rule spans several.
    let config = Config::deserialize(table).map_err(|e| ConfigError::Value {
        key: "configuration".to_owned(),
        origin: Source::Default,
        message: e.message().to_owned(),
    })?;
    Ok(Layered { config, values })
}

fn default_table() -> Table {
    Table::try_from(Config::default()).unwrap_or_default()
}

fn read(file: Option<&Path>) -> Result<Option<(PathBuf, Table)>, ConfigError> {
    let path = file.unwrap_or(Path::new(FILE));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
    };
    match text.parse::<Table>() {
        Ok(table) => Ok(Some((path.to_owned(), table))),
        Err(error) => Err(ConfigError::Syntax { path: path.to_owned(), message: error.to_string() }),
    }
}

/// Returns the values by dotted key; tables are sections, never values.
fn flat(table: &Table) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for (name, value) in table {
        match value {
            Value::Table(section) => {
                all.extend(flat(section).into_iter().map(|(key, value)| (format!("{name}.{key}"), value)));
            }
            Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_)
            | Value::Array(_) => {
                all.insert(name.clone(), value.clone());
            }
        }
    }
    all
}

fn put(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((section, rest)) => {
            if let Value::Table(section) = table.entry(section).or_insert_with(|| Value::Table(Table::new())) {
                put(section, rest, value);
            }
        }
    }
}

/// Checks one value by putting it in the place of the default.
fn check(key: &str, value: &Value) -> Result<(), String> {
    let mut table = default_table();
    put(&mut table, key, value.clone());
    Config::deserialize(table).map(|_| ()).map_err(|e| e.message().to_owned())
}

/// Returns the environment variable of a key.
fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_ascii_uppercase())
}

/// Returns whether Kubernetes made the variable for a service named `folkmoot…`: nobody wrote it.
fn is_service_link(name: &str) -> bool {
    name.contains("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.contains("_PORT_")
        || name.ends_with("_PORT")
}

/// Reads the text of an environment variable as the type that the key has.
fn typed(text: &str, like: Option<&Value>) -> Result<Value, String> {
    match like {
        Some(Value::Integer(_)) => {
            text.parse().map(Value::Integer).map_err(|_| format!("{text:?} is not a whole number"))
        }
        Some(Value::Boolean(_)) => {
            text.parse().map(Value::Boolean).map_err(|_| format!("{text:?} is neither true nor false"))
        }
        // What is no list of texts, as it would stand in the file.
        Some(Value::Array(_)) if text.trim_start().starts_with('[') => {
            let table = format!("list = {text}").parse::<Table>().map_err(|error| error.message().to_owned())?;
            table.get("list").cloned().ok_or_else(|| "it is no list".to_owned())
        }
        Some(Value::Array(_)) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Ok(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
        }
        Some(Value::String(_) | Value::Float(_) | Value::Datetime(_) | Value::Table(_)) | None => {
            Ok(Value::String(text.to_owned()))
        }
    }
}

/// Returns a hint at the known name that is most like this one, if one is.
fn meant<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> String {
    let best = known.map(|candidate| (distance(name, candidate), candidate)).min();
    match best {
        Some((distance, candidate)) if distance <= 3 => format!("; did you mean {candidate:?}?"),
        Some(_) | None => "; `folkmoot config show` lists all keys".to_owned(),
    }
}

/// Levenshtein's edit distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, y) in row.iter_mut().skip(1).zip(b.chars()) {
            let value = (diagonal + usize::from(x != y)).min(left + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = value;
            left = value;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn later_layers_win() {
        let file = file("listen = \"127.0.0.1:1\"\nregion = \"eu\"\nzone = \"a\"\n[http]\nheader_timeout = \"5s\"\n");
        let environment = env(&[
            ("FOLKMOOT_REGION", "us"),
            ("FOLKMOOT_ZONE", "b"),
            ("FOLKMOOT_HTTP_CONNECTIONS_MAX", "7"),
            ("FOLKMOOT_LABELS", "a, b"),
            ("FOLKMOOT_URL", "http://elsewhere"),
            ("FOLKMOOT_SERVICE_HOST", "10.0.0.1"),
            ("HOME", "/"),
        ]);
        let flag = Flag { name: "--zone", key: "zone", value: Value::String("c".to_owned()) };
        let Layered { config, values } = load(Some(file.path()), environment, vec![flag]).unwrap();
        assert_eq!(config.listen.port(), 1);
        assert_eq!((config.region.as_str(), config.zone.as_str()), ("us", "c"));
        assert_eq!(config.http.header_timeout, Duration::from_secs(5));
        assert_eq!(config.http.connections_max, 7);
        assert_eq!(config.labels, ["a", "b"]);
        assert_eq!(config.http.body_timeout, Config::default().http.body_timeout);
        let source = |key: &str| values.get(key).map(|(_, source)| source.to_string()).unwrap();
        assert_eq!(source("region"), "FOLKMOOT_REGION");
        assert_eq!(source("zone"), "--zone");
        assert_eq!(source("mdns"), "default");
    }

    #[test]
    fn tables_in_lists_stand_in_the_file_and_in_the_environment() {
        let in_file = file(
            "[[oidc]]\nissuer = \"https://a\"\naudience = \"x\"\ngrant_for = \"2h\"\n[[oidc.grants]]\nclaim = \"groups\"\nvalue = \"g\"\nrole = \"reader\"\n",
        );
        let load = |pairs: &[(&str, &str)]| load(Some(in_file.path()), env(pairs), Vec::new());
        let config = load(&[]).unwrap().config;
        let [issuer] = config.oidc.as_slice() else { panic!("{:?}", config.oidc) };
        assert_eq!(
            (issuer.audience.as_str(), issuer.grant_for, issuer.register),
            ("x", Duration::from_secs(7_200), false)
        );
        assert_eq!((issuer.grants[0].role.as_str(), issuer.grants[0].collections.as_str()), ("reader", "*"));
        let given = "[{ issuer = \"https://b\", audience = \"y\", register = true }]";
        let config = load(&[("FOLKMOOT_OIDC", given)]).unwrap().config;
        assert!(config.oidc.len() == 1 && config.oidc[0].issuer == "https://b" && config.oidc[0].register);
        for bad in ["https://a", "[{ issuer = 1 }]", "[{", "[{ issuer = \"a\", audience = \"b\", x = 1 }]"] {
            let error = load(&[("FOLKMOOT_OIDC", bad)]).unwrap_err().to_string();
            assert!(error.contains("oidc in FOLKMOOT_OIDC"), "{error}");
        }
    }

    #[test]
    fn unknown_keys_and_bad_values_are_errors_that_say_where() {
        let message = |text: &str, pairs: &[(&str, &str)]| {
            load(Some(file(text).path()), env(pairs), Vec::new()).unwrap_err().to_string()
        };
        assert!(message("lisen = \"x\"", &[]).contains("did you mean \"listen\""));
        assert!(message("[http]\nheader_timout = \"5s\"", &[]).contains("did you mean \"http.header_timeout\""));
        assert!(message("[http]\nheader_timeout = \"5\"", &[]).contains("http.header_timeout"));
        assert!(message("[http]\nheader_timeout = 5", &[]).contains("http.header_timeout"));
        assert!(message("[http]\nconnections_max = -1", &[]).contains("http.connections_max"));
        assert!(message("listen = \"nowhere\"", &[]).contains("listen"));
        assert!(message("http = 3", &[]).contains("http"));
        assert!(message("x = [", &[]).contains("not valid TOML"));
        assert!(message("", &[("FOLKMOOT_REGIN", "x")]).contains("did you mean \"FOLKMOOT_REGION\""));
        assert!(message("", &[("FOLKMOOT_MDNS", "perhaps")]).contains("FOLKMOOT_MDNS"));
        assert!(load(Some(Path::new("/nonexistent/x.toml")), env(&[]), Vec::new()).is_err());
    }

    #[test]
    fn every_key_has_its_own_variable() {
        let keys = flat(&default_table());
        let variables: std::collections::BTreeSet<_> = keys.keys().map(|key| variable(key)).collect();
        assert_eq!(variables.len(), keys.len());
        assert!(variables.iter().all(|name| !is_service_link(name) && !OTHER_VARIABLES.contains(&name.as_str())));
    }
}
