//! Commands about who may do what.

use std::time::{Duration, SystemTime};

use folkmoot::api::{
    AccessQuestion, ExitCode, IssuedToken, NewCertificate, NewGrant, NewIdentity, NewPassword, NewPrincipal, NewRole,
    NewToken, PrincipalInfo, PrincipalKind, PrincipalName, Revocation, RevokeOptions, SecretKind, Timestamp,
};
use folkmoot::{Access as _, Client, Error, ErrorCode, OpId};

use super::args::{Can, Find, GrantArgs, GroupCommand, Reason, Revoke, RoleCommand, Scope, TokenCommand, UserCommand};
use super::credential::secret;
use super::failure::Failure;
use super::output::{Output, facts, table};

fn until(good_for: Option<Duration>) -> Option<Timestamp> {
    good_for.map(|time| Timestamp::from(SystemTime::now() + time))
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "-".to_owned() } else { names.join(" ") }
}

fn ending(until: Option<Timestamp>) -> String {
    until.map_or_else(|| "for good".to_owned(), |time| format!("until {time}"))
}

fn kind_of(secret: SecretKind) -> &'static str {
    match secret {
        SecretKind::Token => "token",
        SecretKind::Password => "password",
        SecretKind::Certificate => "certificate",
        SecretKind::Identity => "identity",
    }
}

fn kind(kind: PrincipalKind) -> &'static str {
    match kind {
        PrincipalKind::User => "user",
        PrincipalKind::Service => "service",
        PrincipalKind::Group => "group",
    }
}

fn show(info: &PrincipalInfo, output: &Output) -> Result<(), Failure> {
    output.show(info, || {
        let mut rows = vec![
            ("name", info.name.clone()),
            ("kind", kind(info.kind).to_owned()),
            ("id", info.id.to_string()),
            ("own documents", format!("{}…", info.own_prefix)),
        ];
        rows.extend(info.grants.iter().map(|grant| {
            ("grant", format!("{} on {} {} ({})", grant.role, grant.target, ending(grant.until), grant.statement))
        }));
        rows.extend(
            info.groups
                .iter()
                .map(|group| ("group", format!("{} {} ({})", group.name, ending(group.until), group.statement))),
        );
        rows.extend(info.tokens.iter().map(|token| {
            (
                kind_of(token.kind),
                format!(
                    "{} on {} {} ({}){}",
                    token.name,
                    token.target,
                    ending(token.until),
                    token.statement,
                    if token.exposed {
                        "; a node that acts for users no longer can guess at it: change it"
                    } else {
                        ""
                    }
                ),
            )
        }));
        facts(&rows)
    })?;
    Ok(())
}

async fn list(client: &Client, output: &Output) -> Result<(), Failure> {
    let all = client.principals().await?;
    output.show(&all, || {
        let rows = all.iter().map(|info| {
            let grants: Vec<String> =
                info.grants.iter().map(|grant| format!("{} on {}", grant.role, grant.target)).collect();
            let groups: Vec<String> = info.groups.iter().map(|group| group.name.clone()).collect();
            let exposed = info.tokens.iter().any(|token| token.exposed);
            let tokens = format!("{}{}", info.tokens.len(), if exposed { ", password to change" } else { "" });
            let grants = if grants.is_empty() { "-".to_owned() } else { grants.join(", ") };
            [info.name.clone(), kind(info.kind).to_owned(), grants, listed(&groups), tokens]
        });
        table(["name", "kind", "grants", "groups", "tokens"], rows)
    })?;
    Ok(())
}

async fn add(client: &Client, name: String, kind: PrincipalKind, output: &Output) -> Result<(), Failure> {
    show(&client.add_principal(&NewPrincipal { name, kind }).await?, output)
}

impl Reason {
    fn options(&self) -> RevokeOptions {
        RevokeOptions { why: self.why.clone().unwrap_or_default(), cascade: self.cascade }
    }
}

fn taken_back(revocation: &Revocation, what: &str, output: &Output) -> Result<(), Failure> {
    output
        .show(revocation, || format!("took back {what} (act {}); what was written until now stands", revocation.act))?;
    Ok(())
}

pub(super) async fn user(
    client: &Client,
    find: &Find,
    command: Option<UserCommand>,
    output: &Output,
) -> Result<ExitCode, Failure> {
    match command {
        None | Some(UserCommand::List) => list(client, output).await?,
        Some(UserCommand::Show { name }) => show(&client.principal(&name).await?, output)?,
        Some(UserCommand::Add { name, service }) => {
            let kind = if service { PrincipalKind::Service } else { PrincipalKind::User };
            add(client, name, kind, output).await?;
        }
        Some(UserCommand::Password { name, new_password_file, good_for }) => {
            let prompt = format!("New password of {name}: ");
            let password = secret(&prompt, new_password_file.as_deref(), "FOLKMOOT_NEW_PASSWORD")?;
            let new = NewPassword { password, current: find.own_password()?, until: until(good_for) };
            let set = client.set_password(&name, &new).await?;
            output.show(&set, || format!("{name} has another password, {} ({})", ending(set.until), set.statement))?;
        }
        Some(UserCommand::Certificate { name, file, good_for }) => {
            let certificate = std::fs::read_to_string(&file).map_err(|source| {
                let what = format!("cannot read the certificate {}", file.display());
                Failure::Usage(Error::new(ErrorCode::InvalidParameter, what).with_source(source))
            })?;
            let new = NewCertificate { certificate, until: until(good_for) };
            let made = client.trust_certificate(&name, &new).await?;
            output.show(&made, || {
                format!("who has the key of {:?} is {name}, {} ({})", made.name, ending(made.until), made.statement)
            })?;
        }
        Some(UserCommand::Identity { name, issuer, subject, good_for }) => {
            let new = NewIdentity { issuer, subject, until: until(good_for) };
            let made = client.link_identity(&name, &new).await?;
            output.show(&made, || {
                let (issuer, subject) = (&new.issuer, &new.subject);
                format!("{subject} of {issuer} is {name}, {} ({})", ending(made.until), made.statement)
            })?;
        }
        Some(UserCommand::Remove { name, reason }) => {
            let revocation = client.remove_principal(&name, &reason.options()).await?;
            taken_back(&revocation, &format!("all that {name} had"), output)?;
        }
    }
    Ok(ExitCode::Done)
}

pub(super) async fn group(client: &Client, command: GroupCommand, output: &Output) -> Result<ExitCode, Failure> {
    match command {
        GroupCommand::Add { name } => add(client, name, PrincipalKind::Group, output).await?,
        GroupCommand::Join { group, name, good_for } => {
            let membership = client.join_group(&group, &name, until(good_for)).await?;
            output.show(&membership, || {
                let ends = ending(membership.until);
                format!("{name} is a member of {} {ends} ({})", membership.name, membership.statement)
            })?;
        }
    }
    Ok(ExitCode::Done)
}

pub(super) async fn role(client: &Client, command: Option<RoleCommand>, output: &Output) -> Result<ExitCode, Failure> {
    match command {
        None | Some(RoleCommand::List) => {
            let all = client.roles().await?;
            output.show(&all, || {
                let rows = all.iter().map(|role| {
                    let statement = role.statement.map_or_else(|| "-".to_owned(), |id| id.to_string());
                    [role.name.clone(), listed(&role.actions), listed(&role.own_actions), statement]
                });
                table(["name", "allows", "on own documents", "statement"], rows)
            })?;
        }
        Some(RoleCommand::Add { name, allow, allow_own }) => {
            let role = client.add_role(&NewRole { name, actions: allow, own_actions: allow_own }).await?;
            output.show(&role, || {
                facts(&[
                    ("name", role.name.clone()),
                    ("allows", listed(&role.actions)),
                    ("on own documents", listed(&role.own_actions)),
                    ("statement", role.statement.map(|id| id.to_string()).unwrap_or_default()),
                ])
            })?;
        }
    }
    Ok(ExitCode::Done)
}

pub(super) async fn grant(client: &Client, args: GrantArgs, output: &Output) -> Result<ExitCode, Failure> {
    let GrantArgs { name, role, scope: Scope { on, prefix, fields, without_fields, good_for } } = args;
    let new = NewGrant { role, collections: on, prefix, fields, without_fields, until: until(good_for) };
    let grant = client.grant(&name, &new).await?;
    output.show(&grant, || {
        format!("{name} is {} on {} {} ({})", grant.role, grant.target, ending(grant.until), grant.statement)
    })?;
    Ok(ExitCode::Done)
}

pub(super) async fn revoke(client: &Client, args: Revoke, output: &Output) -> Result<ExitCode, Failure> {
    let revocation = client.revoke(&args.statement, &args.reason.options()).await?;
    taken_back(&revocation, &args.statement.to_string(), output)?;
    Ok(ExitCode::Done)
}

pub(super) async fn token(client: &Client, command: TokenCommand, output: &Output) -> Result<ExitCode, Failure> {
    match command {
        TokenCommand::Issue { name, label, allow, scope: Scope { on, prefix, fields, without_fields, good_for } } => {
            let actions = (!allow.is_empty()).then_some(allow);
            let until = until(good_for);
            let new = NewToken { name: label, actions, collections: on, prefix, fields, without_fields, until };
            let issued = client.issue_token(&name, &new).await?;
            let IssuedToken { token, info } = &issued;
            output.note(&format!(
                "a token of {name}, {}; it is shown this once, and is taken back by `folkmoot revoke {}`",
                ending(info.until),
                info.statement
            ));
            output.show(&issued, || token.clone())?;
        }
        TokenCommand::List { name } => {
            let tokens = client.principal(&name).await?.tokens;
            output.show(&tokens, || {
                let rows = tokens.iter().map(|token| {
                    let (target, ends) = (token.target.to_string(), ending(token.until));
                    let kind = kind_of(token.kind).to_owned();
                    [kind, token.name.clone(), listed(&token.actions), target, ends, token.statement.to_string()]
                });
                table(["kind", "name", "allows", "on", "good", "statement"], rows)
            })?;
        }
    }
    Ok(ExitCode::Done)
}

pub(super) async fn release(client: &Client, (op, number): (OpId, u16), output: &Output) -> Result<ExitCode, Failure> {
    let readmission = client.readmit(&op, number).await?;
    output.show(&readmission, || format!("{op}#{number} stands again (act {})", readmission.act))?;
    Ok(ExitCode::Done)
}

/// Exits with 4 if it may not.
pub(super) async fn can(client: &Client, args: Can, output: &Output) -> Result<ExitCode, Failure> {
    let Can { name, action, collection, id, field } = args;
    let question = AccessQuestion { principal: Some(name.clone()), action, collection, id, field };
    let answer = client.can(&question).await?;
    output.show(&answer, || match (answer.allowed, answer.grant, &answer.reason) {
        (true, Some(grant), _) => format!("yes: {name} may {action} there, by {grant}"),
        (true, None, _) => format!("yes: {name} may {action} there"),
        (false, _, reason) => format!("no: {}", reason.as_deref().unwrap_or("no grant gives this right")),
    })?;
    Ok(if answer.allowed { ExitCode::Done } else { ExitCode::Denied })
}

pub(super) async fn whoami(client: &Client, output: &Output) -> Result<ExitCode, Failure> {
    let caller = client.caller().await?;
    // What it may, and by what its token is limited.
    let info = client.principal(&PrincipalName::Id(caller.principal)).await.ok();
    output.show(&caller, || {
        let what = if caller.owner { "the owner of the node's directory" } else { "by a token" };
        let mut rows = vec![
            ("name", caller.name.clone()),
            ("principal", caller.principal.to_string()),
            ("known", what.to_owned()),
        ];
        let (grants, tokens) = info.map(|info| (info.grants, info.tokens)).unwrap_or_default();
        rows.extend(grants.iter().map(|grant| ("grant", format!("{} on {}", grant.role, grant.target))));
        rows.extend(caller.token.map(|id| {
            let token = tokens.iter().find(|token| token.statement == id);
            let limits = token.map(|token| format!("{} on {} ", listed(&token.actions), token.target));
            ("token", format!("{}({id})", limits.unwrap_or_default()))
        }));
        facts(&rows)
    })?;
    Ok(ExitCode::Done)
}

pub(super) fn principal_name(text: &str) -> Result<PrincipalName, String> {
    text.parse().map_err(|error: Error| error.detail().to_owned())
}
