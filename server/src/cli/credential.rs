//! What the command line shows of its user: a token, a password or a certificate.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::Path;

use folkmoot::{ClientBuilder, Error, ErrorCode};

use super::args::Find;
use super::failure::Failure;
use super::input;
use crate::serve::TOKEN_FILE;

/// Most bytes of a line with a password.
const LINE_BYTES_MAX: u64 = 4 << 10;

/// Adds to a client what it is to show.
pub(super) fn show(builder: ClientBuilder, find: &Find, data: &Path) -> Result<ClientBuilder, Failure> {
    let builder = match (&find.cert, &find.key) {
        (Some(certificate), Some(key)) => builder.identity(pem(certificate)?, pem(key)?),
        (None, None) => builder,
        (Some(_), None) | (None, Some(_)) => {
            return Err(Failure::usage("give both a certificate and its key: --cert and --key"));
        }
    };
    if let Some(user) = &find.user {
        let password = secret(&format!("Password of {user}: "), find.password_file.as_deref(), "FOLKMOOT_PASSWORD")?;
        return Ok(builder.password(user, password));
    }
    Ok(match token(find, data)? {
        Some(token) => builder.token(token),
        None => builder,
    })
}

/// Returns the token to show. Without one the node answers what is missing.
pub(super) fn token(find: &Find, data: &Path) -> Result<Option<String>, Failure> {
    if let Some(path) = &find.token_file {
        return read(path, "the token file").map(Some);
    }
    let named = std::env::var("FOLKMOOT_TOKEN").ok();
    // Who shows a certificate does not mean to be the owner.
    let owner = || if find.cert.is_some() { None } else { std::fs::read_to_string(data.join(TOKEN_FILE)).ok() };
    Ok(named.or_else(owner))
}

fn pem(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|source| {
        let what = format!("cannot read {}", path.display());
        Failure::Usage(Error::new(ErrorCode::InvalidParameter, what).with_source(source))
    })
}

fn read(path: &Path, what: &str) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|source| {
        let error = Error::new(ErrorCode::Unauthenticated, format!("cannot read {what} {}", path.display()));
        error.with_source(source).into()
    })
}

/// Returns a secret: from a file, else the environment, else a person at the terminal, else a line of standard input. Never from
/// the command line, which other users of the machine can see.
pub(super) fn secret(prompt: &str, file: Option<&Path>, variable: &str) -> Result<String, Failure> {
    if let Some(path) = file {
        return Ok(read(path, "the password file")?.trim_end_matches(['\r', '\n']).to_owned());
    }
    if let Ok(secret) = std::env::var(variable) {
        return Ok(secret);
    }
    let failed = |source: std::io::Error| {
        Failure::from(Error::new(ErrorCode::Unauthenticated, "cannot read the password").with_source(source))
    };
    if std::io::stdin().is_terminal() {
        return rpassword::prompt_password(prompt).map_err(failed);
    }
    let mut line = String::new();
    let instead = format!("put it into a file or into {variable}");
    let mut input = std::io::Read::take(input::standard_input(&instead)?.lock(), LINE_BYTES_MAX);
    input.read_line(&mut line).map_err(failed)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
