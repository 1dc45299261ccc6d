//! Files that hold one key outside of a data directory: recovery keys and owners' keys. They are their owner's alone to read, and
//! can be sealed by a passphrase. Layout of a sealed one: `docs/format.md`, "Sealed key file".

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use folkmoot_core::store::owner_only;
use folkmoot_core::store::sealed::Keyring;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::config::{OpenError, random};
use super::directory::{sync_folder_of, write_secret};
use super::unlock::{self, Argon2, Secret};

/// Version of a sealed key file.
const VERSION: u8 = 1;
/// What the sealed key is bound to, besides its salt.
const NAME: &str = "key file";
/// The longest key file that is read.
const FILE_BYTES_MAX: u64 = 4 << 10;

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The operating system refuses.
    #[error("{doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("{path} is no key file: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// It is sealed and no passphrase was given.
    #[error("{0} is sealed by a passphrase, which was not given")]
    Sealed(PathBuf),
    /// It is not sealed.
    #[error("{0} is not sealed")]
    NotSealed(PathBuf),
    /// It is sealed already.
    #[error("{0} is sealed already")]
    SealedAlready(PathBuf),
    /// The passphrase is another one, or the file was changed.
    #[error("the passphrase does not open {0}")]
    Wrong(PathBuf),
    /// The system gives no randomness.
    #[error("make a salt")]
    Random(#[source] Box<OpenError>),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SealedKey {
    version: u8,
    argon2: Argon2,
    sealed: String,
}

/// A file with one key, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile(PathBuf);

impl KeyFile {
    /// Names a file, which need not exist.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Returns where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn io(&self, doing: &'static str) -> impl FnOnce(io::Error) -> KeyFileError + use<> {
        let path = self.0.clone();
        move |source| KeyFileError::Io { doing, path, source }
    }

    fn text(&self) -> Result<Zeroizing<String>, KeyFileError> {
        let mut text = Zeroizing::new(String::new());
        let file = std::fs::File::open(&self.0).map_err(self.io("open"))?;
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(self.io("read"))?;
        Ok(text)
    }

    /// Returns whether a passphrase is needed to read it.
    ///
    /// # Errors
    /// [`KeyFileError`] if it cannot be read.
    pub fn is_sealed(&self) -> Result<bool, KeyFileError> {
        Ok(is_sealed(&self.text()?))
    }

    /// Reads the key.
    ///
    /// # Errors
    /// [`KeyFileError`], also if it is sealed and the passphrase is missing or another one.
    pub fn read(&self, passphrase: Option<&Secret>) -> Result<Secret, KeyFileError> {
        let text = self.text()?;
        if !is_sealed(&text) {
            return Ok(Secret::new(text.trim()));
        }
        let passphrase = passphrase.ok_or_else(|| KeyFileError::Sealed(self.0.clone()))?;
        let damaged = |what| KeyFileError::Damaged { path: self.0.clone(), what };
        let file: SealedKey =
            serde_json::from_str(&text).map_err(|_| damaged("it is sealed in a way not known here"))?;
        if file.version != VERSION {
            return Err(damaged("it has another version"));
        }
        let sealed = unlock::decoded(&file.sealed).ok_or_else(|| damaged("not base64"))?;
        let keyring = keyring(&file.argon2, passphrase).ok_or_else(|| damaged("argon2's parameters"))?;
        let key = keyring.open_file(NAME, &sealed).ok_or_else(|| KeyFileError::Wrong(self.0.clone()))?;
        let key = std::str::from_utf8(&key).map_err(|_| damaged("not text"))?;
        Ok(Secret::new(key))
    }

    /// Writes a key into a new file, sealed if there is a passphrase.
    ///
    /// # Errors
    /// [`KeyFileError`], also if the file exists: a key is never overwritten.
    pub fn create(&self, key: &str, passphrase: Option<&Secret>) -> Result<(), KeyFileError> {
        let content = match passphrase {
            None => Zeroizing::new(format!("{key}\n")),
            Some(passphrase) => Zeroizing::new(seal(key, passphrase)?),
        };
        let mut options = owner_only();
        let mut file = options.write(true).create_new(true).open(&self.0).map_err(self.io("create"))?;
        file.write_all(content.as_bytes()).and_then(|()| file.sync_all()).map_err(self.io("write"))?;
        sync_folder_of(&self.0).map_err(self.io("sync"))
    }

    /// Seals the key by a passphrase.
    ///
    /// # Errors
    /// [`KeyFileError`]; the file is as it was.
    pub fn seal(&self, passphrase: &Secret) -> Result<(), KeyFileError> {
        if self.is_sealed()? {
            return Err(KeyFileError::SealedAlready(self.0.clone()));
        }
        let key = self.read(None)?;
        write_secret(&self.0, seal(key.reveal(), passphrase)?.as_bytes()).map_err(self.io("write"))
    }

    /// Writes the key in the clear again.
    ///
    /// # Errors
    /// [`KeyFileError`]; the file is as it was.
    pub fn unseal(&self, passphrase: &Secret) -> Result<(), KeyFileError> {
        if !self.is_sealed()? {
            return Err(KeyFileError::NotSealed(self.0.clone()));
        }
        let key = self.read(Some(passphrase))?;
        let text = Zeroizing::new(format!("{}\n", key.reveal()));
        write_secret(&self.0, text.as_bytes()).map_err(self.io("write"))
    }
}

fn is_sealed(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

/// What seals a key file is a keyring of its own, named by its salt.
fn keyring(argon2: &Argon2, passphrase: &Secret) -> Option<Keyring> {
    let salt: folkmoot_core::id::Salt = argon2.salt.parse().ok()?;
    Some(Keyring::new(*salt.as_bytes(), unlock::stretch(passphrase.reveal(), argon2)?))
}

fn seal(key: &str, passphrase: &Secret) -> Result<String, KeyFileError> {
    let failed = |error: OpenError| KeyFileError::Random(Box::new(error));
    let argon2 = Argon2::fresh().map_err(failed)?;
    let nonce = random().map_err(failed)?;
    // The parameters are this program's own, and the salt is one.
    let keyring = keyring(&argon2, passphrase)
        .ok_or_else(|| failed(OpenError::Random("argon2 refuses its parameters".to_owned())))?;
    let sealed = unlock::encoded(&keyring.seal_file(NAME, nonce, key.as_bytes()));
    let file = SealedKey { version: VERSION, argon2, sealed };
    let text = serde_json::to_string_pretty(&file).map_err(|error| failed(OpenError::Random(error.to_string())))?;
    Ok(text + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_sealed_and_opened_by_its_passphrase_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::new(&folder.path().join("key"));
        let (right, wrong) = (Secret::new("correct horse"), Secret::new("battery staple"));
        file.create("fmr_secret", None).unwrap();
        assert_eq!(file.read(None).unwrap().reveal(), "fmr_secret");
        assert!(matches!(file.create("other", None), Err(KeyFileError::Io { .. })), "a key is never overwritten");
        assert!(matches!(file.unseal(&right), Err(KeyFileError::NotSealed(_))));
        file.seal(&right).unwrap();
        let text = std::fs::read_to_string(&file.0).unwrap();
        assert!(!text.contains("secret"));
        assert!(matches!(file.seal(&right), Err(KeyFileError::SealedAlready(_))));
        assert!(matches!(file.read(None), Err(KeyFileError::Sealed(_))));
        assert!(matches!(file.read(Some(&wrong)), Err(KeyFileError::Wrong(_))));
        assert_eq!(file.read(Some(&right)).unwrap().reveal(), "fmr_secret");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&file.0).unwrap().permissions().mode() & 0o777, 0o600);
        }
        for (from, to) in [
            ("\"passes\": 3", "\"passes\": 2"),
            ("\"passes\": 3", "\"passes\": 3000"),
            ("\"version\": 1", "\"version\": 2"),
        ] {
            std::fs::write(&file.0, text.replace(from, to)).unwrap();
            assert!(file.read(Some(&right)).is_err(), "{to}");
        }
        std::fs::write(&file.0, &text).unwrap();
        file.unseal(&right).unwrap();
        assert_eq!(std::fs::read_to_string(&file.0).unwrap(), "fmr_secret\n");
    }
}
