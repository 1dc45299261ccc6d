//! Commands about keys that sign: list, new, install, rotate, recover, revoke, save and confirm recovery, seal, unseal.

use folkmoot::api::{AuthorInfo, AuthorKind, Authors as _, ExitCode, RevokeOptions};
use folkmoot::node::{KeyFile, KeyFileError, NewKey, Node, Secret};
use folkmoot::recovery::{NewOwners, RecoveryKey, sign_succession};
use folkmoot::{AuthorKey, Client, Error, ErrorCode};

use super::args::{Find, KeyCommand, Passphrase, Reason, Recover, Rotate, Unlock};
use super::connect;
use super::credential::secret;
use super::failure::Failure;
use super::node::open_failure;
use super::output::{Output, table};
use super::settings;

/// Digits of a key that people are shown.
const KEY_SHOWN: usize = 16;

/// Returns whether a command needs no node.
pub(super) const fn is_local(command: &KeyCommand) -> bool {
    !matches!(command, KeyCommand::List | KeyCommand::Recover(_) | KeyCommand::Revoke { .. } | KeyCommand::Rotate(_))
}

/// Carries out what needs no node; none if that is something else.
pub(super) fn local(find: &Find, command: &KeyCommand, output: &Output) -> Result<Option<ExitCode>, Failure> {
    match command {
        KeyCommand::New { file, seal, passphrase } => {
            let key = NewKey::generate().map_err(|error| open_failure(&error))?;
            create(&KeyFile::new(file), key.reveal().reveal(), *seal, passphrase)?;
            let public = key.public();
            output.show(&serde_json::json!({ "key": public, "file": file }), || {
                format!("Made the key {public} in {}.", file.display())
            })?;
        }
        KeyCommand::Install { file, passphrase, unlock } => install(find, file, passphrase, unlock, output)?,
        KeyCommand::SaveRecovery { file, seal, passphrase, unlock } => {
            save(find, file, *seal, passphrase, unlock, output)?;
        }
        KeyCommand::ConfirmRecovery { recovery_file, passphrase, unlock } => {
            confirm(find, recovery_file.as_deref(), passphrase, unlock, output)?;
        }
        KeyCommand::Seal { file, passphrase } => {
            let phrase = passphrase_for("New passphrase: ", passphrase)?;
            KeyFile::new(file).seal(&phrase).map_err(file_failure)?;
            output.show(&serde_json::json!({ "file": file, "sealed": true }), || {
                format!("{} is sealed.", file.display())
            })?;
        }
        KeyCommand::Unseal { file, passphrase } => {
            let phrase = passphrase_for("Passphrase: ", passphrase)?;
            KeyFile::new(file).unseal(&phrase).map_err(file_failure)?;
            let shown = || format!("{} is in the clear.", file.display());
            output.show(&serde_json::json!({ "file": file, "sealed": false }), shown)?;
        }
        KeyCommand::List | KeyCommand::Recover(_) | KeyCommand::Revoke { .. } | KeyCommand::Rotate(_) => {
            return Ok(None);
        }
    }
    Ok(Some(ExitCode::Done))
}

/// Carries out what a node is asked for.
pub(super) async fn key(
    client: &Client,
    find: &Find,
    command: KeyCommand,
    output: &Output,
) -> Result<ExitCode, Failure> {
    match command {
        KeyCommand::List => list(client, output).await?,
        KeyCommand::Recover(args) => recover(client, args, output).await?,
        KeyCommand::Rotate(Rotate::Node { by, by_token_file }) => {
            let by = by.map(|node| connect(&find.of_other(&node, by_token_file))).transpose()?;
            rotate_node(client, by, output).await?;
        }
        KeyCommand::Rotate(Rotate::Author { old, new, reason }) => {
            rotate_author(client, old, new, reason, output).await?;
        }
        KeyCommand::Revoke { author: key, reason: Reason { why, cascade } } => {
            let options = RevokeOptions { why: why.unwrap_or_default(), cascade };
            let revoked = client.revoke_author(&key, &options).await?;
            output.show(&revoked, || {
                format!(
                    "The key {key} is taken back by {}; {} streams stand as far as they are here.",
                    revoked.act, revoked.pins
                )
            })?;
        }
        // Handled above, without a node.
        KeyCommand::New { .. }
        | KeyCommand::Install { .. }
        | KeyCommand::SaveRecovery { .. }
        | KeyCommand::ConfirmRecovery { .. }
        | KeyCommand::Seal { .. }
        | KeyCommand::Unseal { .. } => {}
    }
    Ok(ExitCode::Done)
}

async fn list(client: &Client, output: &Output) -> Result<(), Failure> {
    let keys = client.authors().await?;
    output.show(&serde_json::json!({ "items": keys }), || {
        let rows = keys.iter().map(|AuthorInfo { key, kind, name, rank, until, here, .. }| {
            let kind = match kind {
                AuthorKind::Owner => "owner",
                AuthorKind::Recovery => "recovery (hash)",
                AuthorKind::Node => "node",
                _ => "device",
            };
            let until = until.map_or_else(String::new, |until| until.to_string());
            let here = if *here { "here" } else { "" };
            [kind.to_owned(), name.clone(), key.clone(), rank.to_string(), until, here.to_owned()]
        });
        table(["kind", "name", "key", "rank", "until", ""], rows)
    })?;
    Ok(())
}

/// Makes the next key of a node, and has it certified.
async fn rotate_node(client: &Client, by: Option<Client>, output: &Output) -> Result<(), Failure> {
    let then = |error: &Error| {
        if error.awaited().is_some() {
            output.note(
                "when it counts, start the node again: it takes its next key up, and has the one before taken back",
            );
        }
    };
    let mut rotation = client.rotate_node().await.inspect_err(then)?;
    if !rotation.certified
        && let Some(by) = by
    {
        by.replace_author(&rotation.old, &rotation.new).await.inspect_err(then)?;
        rotation.certified = true;
    }
    output.show(&rotation, || format!("The next key of the node is {}.", rotation.new))?;
    output.note(if rotation.certified {
        "start the node again: it takes the key up, and takes the one before back"
    } else {
        "this node may not certify it: run the command again with `--by` a node of a stronger admin, or of an owner"
    });
    Ok(())
}

/// Puts a key in the place of another one.
async fn rotate_author(
    client: &Client,
    old: AuthorKey,
    new: AuthorKey,
    reason: Reason,
    output: &Output,
) -> Result<(), Failure> {
    let made = client.replace_author(&old, &new).await.inspect_err(|error| {
        if error.awaited().is_some() {
            output.note(&format!("when it counts, take the other one back: folkmoot key revoke {old}"));
        }
    })?;
    let options = RevokeOptions { why: reason.why.unwrap_or_default(), cascade: reason.cascade };
    let revoked = client.revoke_author(&old, &options).await?;
    let certificate = made.certificate;
    output
        .show(&serde_json::json!({ "certificate": certificate, "act": revoked.act, "pins": revoked.pins }), || {
            format!("{new} speaks for the principal from now on (certificate {certificate}); {old} is taken back.")
        })?;
    Ok(())
}

/// Signs a change of owners here, and hands it to the node.
async fn recover(client: &Client, args: Recover, output: &Output) -> Result<(), Failure> {
    let basis = client.succession_basis(args.until).await?;
    let mut keys = Vec::with_capacity(args.recovery_file.len());
    for file in &args.recovery_file {
        keys.push(RecoveryKey::parse(read(&KeyFile::new(file), &args.passphrase)?.reveal())?);
    }
    let next = args.new_recovery_out.iter().map(|_| RecoveryKey::generate()).collect::<Result<Vec<_>, _>>()?;
    let count = u8::try_from(next.len()).unwrap_or(u8::MAX);
    let recovery_threshold = args.recovery_threshold.unwrap_or(count / 2 + 1);
    let recovery = next.iter().map(RecoveryKey::hash).collect();
    let (owners, threshold) = (args.owners.clone(), args.threshold);
    let new = NewOwners { owners, threshold, recovery, recovery_threshold };
    // Before the files: with wrong keys nothing is left behind.
    let op = sign_succession(&basis, new, &keys)?;
    // And these before the change: without them it could be the last one.
    for (file, key) in args.new_recovery_out.iter().zip(&next) {
        create(&KeyFile::new(file), &key.reveal(), args.seal, &args.passphrase)?;
    }
    let done = client.succeed(op).await.inspect_err(|_| {
        output.note("the owners are as they were, if the node says no; the new recovery keys that were written are of no use then");
    })?;
    let pins = basis.pins.len();
    output.show(
        &serde_json::json!({ "act": done.act, "owners": args.owners, "pins": pins, "new_recovery": args.new_recovery_out }),
        || {
            let shown = |key: &AuthorKey| key.to_string().chars().take(KEY_SHOWN).collect::<String>();
            let owners: Vec<String> = args.owners.iter().map(shown).collect();
            format!(
                "The owners are now {} ({} of them must agree), by {}.\n{pins} streams of the owners before stand as far as they are here.",
                owners.join(", "),
                args.threshold,
                done.act
            )
        },
    )?;
    output.note(
        "Destroy the recovery keys that were used: whoever has them can make another change in the place of this one.\n\
         Put the new ones away. Give the owners' keys to the nodes that need them: folkmoot key install FILE",
    );
    Ok(())
}

fn install(
    find: &Find,
    file: &std::path::Path,
    passphrase: &Passphrase,
    unlock: &Unlock,
    output: &Output,
) -> Result<(), Failure> {
    let data = find.data_directory();
    let text = read(&KeyFile::new(file), passphrase)?;
    let key = NewKey::parse(text.reveal())
        .ok_or_else(|| Failure::usage(format!("{} holds no key; `folkmoot key new` makes one", file.display())))?;
    Node::install_owner_key(&data, &settings::keys(find, unlock)?, &key).map_err(|error| open_failure(&error))?;
    let public = key.public();
    output.show(&serde_json::json!({ "data": data, "key": public }), || {
        format!(
            "The node in {} signs as an owner with {public} from now on, if that is an owner's key.",
            data.display()
        )
    })?;
    Ok(())
}

fn save(
    find: &Find,
    file: &std::path::Path,
    seal: bool,
    passphrase: &Passphrase,
    unlock: &Unlock,
    output: &Output,
) -> Result<(), Failure> {
    let data = find.data_directory();
    let kept = Node::recovery_key(&data, &settings::keys(find, unlock)?).map_err(|error| open_failure(&error))?;
    let kept = kept.ok_or_else(|| {
        Error::new(
            ErrorCode::InvalidRequest,
            format!("{} does not hold a recovery key, or not any more", data.display()),
        )
    })?;
    create(&KeyFile::new(file), &kept.reveal(), seal, passphrase)?;
    output.show(&serde_json::json!({ "data": data, "file": file }), || {
        format!("The recovery key is in {} too.", file.display())
    })?;
    output.note("put it away, then run `folkmoot key confirm-recovery`, which deletes it from the data directory");
    Ok(())
}

fn confirm(
    find: &Find,
    file: Option<&std::path::Path>,
    passphrase: &Passphrase,
    unlock: &Unlock,
    output: &Output,
) -> Result<(), Failure> {
    let data = find.data_directory();
    let text = match file {
        Some(path) => {
            let file = KeyFile::new(path);
            let is_elsewhere = Node::is_elsewhere(&data, &file)
                .map_err(|error| Error::new(ErrorCode::InvalidRequest, folkmoot::api::error_chain(&error)))?;
            if !is_elsewhere {
                return Err(Failure::usage(format!(
                    "{} lies in the data directory: a copy beside the original is lost with it",
                    path.display()
                )));
            }
            read(&file, passphrase)?
        }
        None => Secret::new(secret("Recovery key: ", None, "FOLKMOOT_RECOVERY_KEY")?),
    };
    let shown = RecoveryKey::parse(text.reveal())?;
    Node::confirm_recovery(&data, &settings::keys(find, unlock)?, &shown).map_err(|error| open_failure(&error))?;
    output.show(&serde_json::json!({ "data": data, "confirmed": true }), || {
        format!("The recovery key is put away; {} does not hold it any more.", data.display())
    })?;
    Ok(())
}

fn create(file: &KeyFile, key: &str, seal: bool, passphrase: &Passphrase) -> Result<(), Failure> {
    let phrase = if seal { Some(passphrase_for("New passphrase: ", passphrase)?) } else { None };
    file.create(key, phrase.as_ref()).map_err(file_failure)
}

fn read(file: &KeyFile, passphrase: &Passphrase) -> Result<Secret, Failure> {
    let prompt = format!("Passphrase of {}: ", file.path().display());
    let phrase =
        if file.is_sealed().map_err(file_failure)? { Some(passphrase_for(&prompt, passphrase)?) } else { None };
    file.read(phrase.as_ref()).map_err(file_failure)
}

fn passphrase_for(prompt: &str, given: &Passphrase) -> Result<Secret, Failure> {
    let phrase = secret(prompt, given.key_passphrase_file.as_deref(), "FOLKMOOT_KEY_PASSPHRASE")?;
    if phrase.is_empty() {
        return Err(Failure::usage("an empty passphrase seals nothing".to_owned()));
    }
    Ok(Secret::new(phrase))
}

fn file_failure(error: KeyFileError) -> Failure {
    let text = folkmoot::api::error_chain(&error);
    match error {
        KeyFileError::Wrong(_) | KeyFileError::Sealed(_) => Error::new(ErrorCode::Locked, text).into(),
        _ => Error::new(ErrorCode::InvalidRequest, text).into(),
    }
}
