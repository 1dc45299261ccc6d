//! Documents as files of Automerge.

use std::fs::File;
use std::io::{Read, Write as _};
use std::path::Path;

use folkmoot::api::{Database as _, ExitCode, Histories as _, WriteOptions};
use folkmoot::{Client, Error, ErrorCode};
use folkmoot_core::limits::AUTOMERGE_FILE_BYTES_MAX;

use super::args::{AutomergeCommand, One};
use super::documents::written;
use super::failure::Failure;
use super::input;
use super::output::Output;

fn cannot(what: &str, path: &Path, source: std::io::Error) -> Failure {
    Error::new(ErrorCode::InvalidRequest, format!("{what} {}: {source}", path.display())).with_source(source).into()
}

/// Reads a file, and one byte more than is taken if it is too large.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let mut take = |reader: &mut dyn Read| reader.take(AUTOMERGE_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    let read = if path == Path::new("-") {
        take(&mut input::standard_input("name a file")?.lock())
    } else {
        File::open(path).and_then(|mut file| take(&mut file))
    };
    read.map_err(|error| cannot("read", path, error))?;
    Ok(bytes)
}

pub(super) async fn automerge(
    client: &Client,
    command: AutomergeCommand,
    output: &Output,
) -> Result<ExitCode, Failure> {
    match command {
        AutomergeCommand::Save { document: One { collection, id }, file } => {
            let bytes = client.automerge(&collection, &id).await?;
            if file == Path::new("-") {
                let mut out = std::io::stdout().lock();
                out.write_all(&bytes)?;
                out.flush()?;
                return Ok(ExitCode::Done);
            }
            std::fs::write(&file, &bytes).map_err(|error| cannot("write", &file, error))?;
            let saved = serde_json::json!({ "id": id, "bytes": bytes.len() });
            output.show(&saved, || format!("{id} is in {}, {} bytes", file.display(), bytes.len()))?;
            Ok(ExitCode::Done)
        }
        AutomergeCommand::Load { collection, file, id, durability } => {
            let bytes = read(&file)?;
            let options = WriteOptions { durability, ..WriteOptions::default() };
            let outcome = client.create_from_automerge(&collection, id, bytes.into(), &options).await?;
            written(outcome, output)
        }
    }
}
