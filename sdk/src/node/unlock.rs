//! The master key: where it comes from, and the keyring file that it opens.
//!
//! The keyring lies in the data directory, sealed. The master key lies in a file, or comes from outside at each start. Layout of
//! the keyring file: `docs/format.md`, "Keyring file".

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use folkmoot_core::store::EngineError;
use folkmoot_core::store::sealed::{KEY_BYTES, KEYRING_BYTES_MAX, Keyring, KeyringError, KeyringHome, SealKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::config::{OpenError, random};
use super::directory::Directory;

/// The file of the master key, in the data directory unless another one is named.
pub(super) const MASTER_KEY_FILE: &str = "master.key";
pub(super) const KEYRING_FILE: &str = "keyring.json";
/// Version of the keyring file.
const VERSION: u8 = 1;
/// Argon2id as RFC 9106 recommends where memory is short: 64 MiB, three passes; some 150 ms.
const ARGON2: Argon2 = Argon2 { salt: String::new(), memory_kib: 64 << 10, passes: 3, lanes: 1 };
/// More than this no keyring file may ask for.
const ARGON2_MEMORY_KIB_MAX: u32 = 1 << 20;
const ARGON2_PASSES_MAX: u32 = 64;
const ARGON2_LANES_MAX: u32 = 64;
/// How long a command may take to print the master key.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(60);
const COMMAND_POLL: Duration = Duration::from_millis(10);
/// The longest secret that is read.
const SECRET_BYTES_MAX: u64 = 4 << 10;

/// Where a master key comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeySource {
    /// Nowhere: the data directory is not sealed.
    None,
    /// A file that holds it in hexadecimal, made with the data directory: `master.key` in it, unless another one is named.
    #[default]
    File,
    /// It is given by the caller; `FOLKMOOT_MASTER_KEY` in the program.
    Environment,
    /// It is made of a passphrase.
    Passphrase,
    /// A command prints it in hexadecimal: the client of a key management service.
    Command,
}

impl KeySource {
    /// Returns the name as it stands in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Passphrase => "passphrase",
            Self::Command => "command",
        }
    }
}

/// A text that is shown nowhere, and overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a secret.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// Returns the text.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How a data directory is unlocked. When one is made, `source` says how it will be; afterwards its keyring says that, and the
/// others are what it takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySettings {
    /// Where the master key of a new data directory comes from.
    pub source: KeySource,
    /// The file of the master key, if it is not in the data directory.
    pub file: Option<PathBuf>,
    /// The master key in hexadecimal.
    pub master_key: Option<Secret>,
    /// The passphrase.
    pub passphrase: Option<Secret>,
    /// The command, for the shell.
    pub command: Option<String>,
}

/// Why a data directory is not unlocked. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnlockError {
    /// The keyring is gone.
    #[error("the data is sealed, and its keyring {0} is missing: bring it back, without it nothing can be read")]
    NoKeyring(PathBuf),
    /// The keyring file is damaged.
    #[error("the keyring {path} is damaged: {what}; bring it back from a copy, without it nothing can be read")]
    Keyring {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// What it takes was not given.
    #[error("the data is sealed by {}, which was not given: {how}", source_name(*.source_of))]
    NotGiven {
        /// Where the master key comes from.
        source_of: KeySource,
        /// How to give it.
        how: String,
    },
    /// It is no key.
    #[error("{0} is no master key: 64 hexadecimal digits are one")]
    NoKey(String),
    /// It is another key.
    #[error("{what} does not open the keyring {path}")]
    Wrong {
        /// What was given.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: KeyringError,
    },
    /// The file of the master key cannot be read or written.
    #[error("{doing} the master key {path}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The command failed.
    #[error("the command that prints the master key failed: {0}")]
    Command(String),
}

const fn source_name(source: KeySource) -> &'static str {
    match source {
        KeySource::None => "nothing",
        KeySource::File => "a key in a file",
        KeySource::Environment => "a key from the environment",
        KeySource::Passphrase => "a passphrase",
        KeySource::Command => "a key that a command prints",
    }
}

/// How a passphrase becomes a key: argon2id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Argon2 {
    pub(super) salt: String,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Argon2 {
    /// Returns the usual parameters with a new salt.
    pub(super) fn fresh() -> Result<Self, OpenError> {
        Ok(Self { salt: hexadecimal(&random::<16>()?), ..ARGON2 })
    }
}

/// What of the keyring file stands in the clear. It is bound to what is sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    version: u8,
    source: KeySource,
    argon2: Option<Argon2>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyringFile {
    about: About,
    sealed: String,
}

impl About {
    fn bytes(&self) -> Vec<u8> {
        // Plain data encodes; if it ever did not, nothing would open.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// An unlocked keyring, and where it is kept.
#[derive(Clone, Debug)]
pub(super) struct Unlocked {
    pub(super) keyring: Keyring,
    pub(super) home: Home,
}

/// The keyring file of a data directory, with the master key that seals it.
#[derive(Clone, Debug)]
pub(super) struct Home {
    path: PathBuf,
    about: About,
    /// Changes when it is rotated.
    master: Arc<Mutex<SealKey>>,
}

impl KeyringHome for Home {
    fn save(&self, keyring: &Keyring) -> Result<(), EngineError> {
        self.save_under(keyring, &super::lock(&self.master))
    }
}

impl Home {
    pub(super) const fn source(&self) -> KeySource {
        self.about.source
    }

    fn save_under(&self, keyring: &Keyring, master: &SealKey) -> Result<(), EngineError> {
        let mut nonce = [0; 24];
        getrandom::fill(&mut nonce)?;
        let sealed = keyring.seal(master, nonce, &self.about.bytes());
        if sealed.len() > KEYRING_BYTES_MAX {
            return Err("too many collections for one keyring".into());
        }
        let file = KeyringFile { about: self.about.clone(), sealed: encoded(&sealed) };
        let mut bytes = serde_json::to_vec_pretty(&file)?;
        bytes.push(b'\n');
        Ok(super::directory::write_secret(&self.path, &bytes)?)
    }
}

pub(super) fn encoded(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

pub(super) fn decoded(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// Makes the keyring of a new data directory, and its master key if that is to be in a file; none if it is not to be sealed.
pub(super) fn make(directory: &Directory, settings: &KeySettings) -> Result<Option<Unlocked>, OpenError> {
    if settings.source == KeySource::None {
        return Ok(None);
    }
    let home = make_home(directory, settings)?;
    let unlocked = Unlocked { keyring: Keyring::new(random()?, SealKey::new(random()?)), home };
    unlocked
        .home
        .save(&unlocked.keyring)
        .map_err(|error| UnlockError::Keyring { path: directory.keyring(), what: error.to_string() })?;
    Ok(Some(unlocked))
}

fn make_home(directory: &Directory, settings: &KeySettings) -> Result<Home, OpenError> {
    let argon2 = match settings.source {
        KeySource::Passphrase => Some(Argon2::fresh()?),
        _ => None,
    };
    let about = About { version: VERSION, source: settings.source, argon2 };
    let file = key_file(directory, settings);
    if settings.source == KeySource::File && !file.exists() {
        write_key(&file, &SealKey::new(random()?))?;
    }
    let master = master_key(directory, settings, &about)?;
    Ok(Home { path: directory.keyring(), about, master: Arc::new(Mutex::new(master)) })
}

/// Opens the keyring of a data directory.
pub(super) fn unlock(directory: &Directory, settings: &KeySettings) -> Result<Unlocked, OpenError> {
    let path = directory.keyring();
    let damaged = |what: String| UnlockError::Keyring { path: path.clone(), what };
    let bytes = match std::fs::File::open(&path) {
        Ok(file) => {
            let mut bytes = Vec::new();
            // Twice the sealed bytes: the text of them, and what stands around it.
            let read = file.take(2 * KEYRING_BYTES_MAX as u64).read_to_end(&mut bytes);
            read.map_err(|error| damaged(error.to_string()))?;
            bytes
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(UnlockError::NoKeyring(path).into()),
        Err(error) => return Err(damaged(error.to_string()).into()),
    };
    let KeyringFile { about, sealed } = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if about.version != VERSION {
        return Err(damaged(format!("it has version {}, this program knows {VERSION}", about.version)).into());
    }
    let sealed = decoded(&sealed).ok_or_else(|| damaged("not base64".to_owned()))?;
    let mut master = master_key(directory, settings, &about)?;
    let mut opened = Keyring::open(&sealed, &master, &about.bytes());
    if opened == Err(KeyringError::WrongKey) && about.source == KeySource::File {
        // A rotation was cut off between the keyring and its key.
        let file = key_file(directory, settings);
        if let Ok(next) = read_key(&next_of(&file)) {
            opened = Keyring::open(&sealed, &next, &about.bytes());
            if opened.is_ok() {
                master = next;
                put_in_place(&file)?;
            }
        }
    }
    let keyring = opened.map_err(|error| match error {
        KeyringError::WrongKey => UnlockError::Wrong {
            what: match about.source {
                KeySource::Passphrase => "the passphrase",
                _ => "the master key",
            },
            path: path.clone(),
            source: error,
        },
        other => damaged(other.to_string()),
    })?;
    Ok(Unlocked { keyring, home: Home { path, about, master: Arc::new(Mutex::new(master)) } })
}

fn key_file(directory: &Directory, settings: &KeySettings) -> PathBuf {
    settings.file.clone().unwrap_or_else(|| directory.file(MASTER_KEY_FILE))
}

/// Gets the master key from where it is kept.
fn master_key(directory: &Directory, settings: &KeySettings, about: &About) -> Result<SealKey, OpenError> {
    let not_given = |how: &str| UnlockError::NotGiven { source_of: about.source, how: how.to_owned() };
    match about.source {
        KeySource::None => Err(not_given("the keyring names no source").into()),
        KeySource::File => {
            let path = key_file(directory, settings);
            match read_key(&path) {
                Err(OpenError::Unlock(UnlockError::File { source, .. }))
                    if source.kind() == std::io::ErrorKind::NotFound =>
                {
                    Err(not_given(&format!("{} is not there", path.display())).into())
                }
                read => read,
            }
        }
        KeySource::Environment => {
            let key = settings.master_key.as_ref().ok_or_else(|| not_given("set FOLKMOOT_MASTER_KEY"))?;
            parse(&key.0, || "FOLKMOOT_MASTER_KEY".to_owned())
        }
        KeySource::Passphrase => {
            let passphrase = settings.passphrase.as_ref();
            let passphrase = passphrase.ok_or_else(|| not_given("set FOLKMOOT_PASSPHRASE or keys.passphrase_file"))?;
            let damaged = || UnlockError::Keyring { path: directory.keyring(), what: "argon2's parameters".to_owned() };
            let argon2 = about.argon2.as_ref().ok_or_else(damaged)?;
            stretch(&passphrase.0, argon2).ok_or_else(|| damaged().into())
        }
        KeySource::Command => {
            let command = settings.command.as_ref().ok_or_else(|| not_given("set keys.command"))?;
            let printed = run(command).map_err(UnlockError::Command)?;
            parse(&printed, || "what the command printed".to_owned())
        }
    }
}

/// Puts a new master key in the place of the one in the file. The new one is on the disk before the keyring is sealed under it,
/// and the old one until then.
pub(super) fn rotate_master(home: &Home, file: &Path, keyring: &Keyring) -> Result<(), OpenError> {
    let next = SealKey::new(random()?);
    write_key(&next_of(file), &next)?;
    let mut master = super::lock(&home.master);
    let failed = |error: EngineError| UnlockError::Keyring { path: home.path.clone(), what: error.to_string() };
    home.save_under(keyring, &next).map_err(failed)?;
    *master = next;
    put_in_place(file)
}

/// Seals the keyring under a key from elsewhere.
pub(super) fn reseal(directory: &Directory, unlocked: &Unlocked, settings: &KeySettings) -> Result<(), OpenError> {
    let keyring = unlocked.keyring.clone();
    make_home(directory, settings)?
        .save(&keyring)
        .map_err(|error| UnlockError::Keyring { path: directory.keyring(), what: error.to_string() }.into())
}

/// Where a new master key lies until the keyring is sealed under it.
fn next_of(file: &Path) -> PathBuf {
    let mut next = file.as_os_str().to_owned();
    next.push(".next");
    next.into()
}

fn put_in_place(file: &Path) -> Result<(), OpenError> {
    let failed = |source| UnlockError::File { doing: "replace", path: file.to_owned(), source };
    std::fs::rename(next_of(file), file).map_err(failed)?;
    super::directory::sync_folder_of(file).map_err(failed)?;
    Ok(())
}

fn write_key(file: &Path, key: &SealKey) -> Result<(), OpenError> {
    let text = Zeroizing::new(format!("{}\n", hexadecimal(key.expose())));
    let failed = |source| UnlockError::File { doing: "write", path: file.to_owned(), source };
    super::directory::write_secret(file, text.as_bytes()).map_err(failed)?;
    Ok(())
}

fn read_key(file: &Path) -> Result<SealKey, OpenError> {
    let mut text = Zeroizing::new(String::new());
    let read = std::fs::File::open(file).and_then(|file| file.take(SECRET_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|source| UnlockError::File { doing: "read", path: file.to_owned(), source })?;
    parse(&text, || file.display().to_string())
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn parse(text: &str, what: impl FnOnce() -> String) -> Result<SealKey, OpenError> {
    let key = text.trim().parse::<folkmoot_core::id::OpId>().map(|id| SealKey::new(*id.as_bytes()));
    key.map_err(|_| UnlockError::NoKey(what()).into())
}

/// Makes a key of a passphrase; none if the parameters are out of bounds.
pub(super) fn stretch(passphrase: &str, by: &Argon2) -> Option<SealKey> {
    if by.memory_kib > ARGON2_MEMORY_KIB_MAX || by.passes > ARGON2_PASSES_MAX || by.lanes > ARGON2_LANES_MAX {
        return None;
    }
    let params = argon2::Params::new(by.memory_kib, by.passes, by.lanes, Some(KEY_BYTES)).ok()?;
    let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    argon2.hash_password_into(passphrase.as_bytes(), by.salt.as_bytes(), &mut *key).ok()?;
    Some(SealKey::new(*key))
}

/// Runs a command by the shell and returns what it printed.
fn run(command: &str) -> Result<Zeroizing<String>, String> {
    let (shell, option) = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
    let mut child = Command::new(shell)
        .args([option, command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut output = child.stdout.take().ok_or("it has no output")?.take(SECRET_BYTES_MAX);
    let reader = std::thread::Builder::new().name("folkmoot-key".into()).spawn(move || {
        let mut text = Zeroizing::new(String::new());
        output.read_to_string(&mut text).map(|_| text).map_err(|error| error.to_string())
    });
    let reader = reader.map_err(|error| error.to_string())?;
    let began = Instant::now();
    let status = loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => break status,
            None if began.elapsed() > COMMAND_TIME_MAX => {
                // It may have ended just now; either way it is to go.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("it took longer than {} s", COMMAND_TIME_MAX.as_secs()));
            }
            None => std::thread::sleep(COMMAND_POLL),
        }
    };
    if !status.success() {
        return Err(format!("it ended with {status}"));
    }
    reader.join().map_err(|_| "its output could not be read".to_owned())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(settings: &KeySettings) -> (tempfile::TempDir, Directory, Unlocked) {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::new(folder.path());
        let unlocked = make(&directory, settings).unwrap().unwrap();
        (folder, directory, unlocked)
    }

    fn why(directory: &Directory, settings: &KeySettings) -> UnlockError {
        match unlock(directory, settings) {
            Err(OpenError::Unlock(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_source_opens_what_it_made_and_another_key_does_not() {
        let key = |digit: &str| Some(Secret::new(digit.repeat(64)));
        let command = |digit: &str| Some(format!("printf %064d {digit}"));
        let cases = [
            (
                KeySettings { source: KeySource::Environment, master_key: key("a"), ..KeySettings::default() },
                KeySettings { master_key: key("b"), ..KeySettings::default() },
            ),
            (
                KeySettings {
                    source: KeySource::Passphrase,
                    passphrase: Some(Secret::new("correct horse")),
                    ..KeySettings::default()
                },
                KeySettings { passphrase: Some(Secret::new("battery staple")), ..KeySettings::default() },
            ),
            (
                KeySettings { source: KeySource::Command, command: command("1"), ..KeySettings::default() },
                KeySettings { command: command("2"), ..KeySettings::default() },
            ),
        ];
        for (right, wrong) in cases {
            let (_folder, directory, unlocked) = made(&right);
            // Which source it is stands in the keyring.
            let right = KeySettings { source: KeySource::None, ..right };
            assert_eq!(unlock(&directory, &right).unwrap().keyring, unlocked.keyring);
            assert!(matches!(why(&directory, &wrong), UnlockError::Wrong { .. }));
            assert!(matches!(why(&directory, &KeySettings::default()), UnlockError::NotGiven { .. }));
        }
    }

    #[test]
    fn a_key_in_a_file_is_its_owners_alone_and_may_be_elsewhere() {
        let settings = KeySettings::default();
        let (folder, directory, unlocked) = made(&settings);
        let file = folder.path().join(MASTER_KEY_FILE);
        #[cfg(unix)]
        for file in [&file, &directory.keyring()] {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let elsewhere = tempfile::tempdir().unwrap();
        let moved = elsewhere.path().join("key");
        std::fs::rename(&file, &moved).unwrap();
        assert!(matches!(why(&directory, &settings), UnlockError::NotGiven { source_of: KeySource::File, .. }));
        let settings = KeySettings { file: Some(moved.clone()), ..settings };
        assert_eq!(unlock(&directory, &settings).unwrap().keyring, unlocked.keyring);
        std::fs::write(&moved, "no key").unwrap();
        assert!(matches!(why(&directory, &settings), UnlockError::NoKey(_)));
    }

    #[test]
    fn a_new_master_key_takes_the_place_of_the_old_one_also_when_it_is_cut_off() {
        let settings = KeySettings::default();
        let (folder, directory, unlocked) = made(&settings);
        let file = folder.path().join(MASTER_KEY_FILE);
        let (old, old_keyring) = (std::fs::read(&file).unwrap(), std::fs::read(directory.keyring()).unwrap());
        rotate_master(&unlocked.home, &file, &unlocked.keyring).unwrap();
        let (new, new_keyring) = (std::fs::read(&file).unwrap(), std::fs::read(directory.keyring()).unwrap());
        assert!(new != old && !next_of(&file).exists());
        assert_eq!(unlock(&directory, &settings).unwrap().keyring, unlocked.keyring);
        // What is saved from now on is under the new key.
        unlocked.home.save(&unlocked.keyring).unwrap();
        assert_eq!(unlock(&directory, &settings).unwrap().keyring, unlocked.keyring);
        for keyring in [&old_keyring, &new_keyring] {
            std::fs::write(&file, &old).unwrap();
            std::fs::write(next_of(&file), &new).unwrap();
            std::fs::write(directory.keyring(), keyring).unwrap();
            assert_eq!(unlock(&directory, &settings).unwrap().keyring, unlocked.keyring);
        }
        assert_eq!(std::fs::read(&file).unwrap(), new);
        std::fs::write(&file, &old).unwrap();
        assert!(matches!(why(&directory, &settings), UnlockError::Wrong { .. }));
    }

    #[test]
    fn a_keyring_is_sealed_under_a_key_from_elsewhere() {
        let (_folder, directory, unlocked) = made(&KeySettings::default());
        let passphrase = Some(Secret::new("correct horse"));
        let settings = KeySettings { source: KeySource::Passphrase, passphrase, ..KeySettings::default() };
        reseal(&directory, &unlocked, &settings).unwrap();
        assert!(matches!(why(&directory, &KeySettings::default()), UnlockError::NotGiven { .. }));
        assert_eq!(unlock(&directory, &settings).unwrap().keyring, unlocked.keyring);
    }

    #[test]
    fn a_keyring_that_was_changed_does_not_open() {
        let settings =
            KeySettings { source: KeySource::Passphrase, passphrase: Some(Secret::new("x")), ..KeySettings::default() };
        let (_folder, directory, _) = made(&settings);
        let text = std::fs::read_to_string(directory.keyring()).unwrap();
        std::fs::write(directory.keyring(), text.replace("\"passes\": 3", "\"passes\": 1")).unwrap();
        assert!(matches!(why(&directory, &settings), UnlockError::Wrong { .. }));
        std::fs::write(directory.keyring(), text.replace("\"passes\": 3", "\"passes\": 3000")).unwrap();
        assert!(matches!(why(&directory, &settings), UnlockError::Keyring { .. }));
        std::fs::write(directory.keyring(), "{").unwrap();
        assert!(matches!(why(&directory, &settings), UnlockError::Keyring { .. }));
        std::fs::remove_file(directory.keyring()).unwrap();
        assert!(matches!(why(&directory, &settings), UnlockError::NoKeyring(_)));
    }

    #[test]
    fn a_command_that_fails_says_so() {
        assert!(run("exit 3").unwrap_err().contains('3'));
        assert_eq!(run("printf key").unwrap().as_str(), "key");
    }
}
