//! Who may do what, as acts of the control log.

use std::collections::BTreeMap;

use async_trait::async_trait;
use folkmoot_core::audit::{AuditAction, AuditDecision, AuditMethod, Event};
use folkmoot_core::authority::{Action, Actions, Authority, Decision, Policy, Reach, StatementInfo};
use folkmoot_core::hlc::Hlc;
use folkmoot_core::id::{OpId, PrincipalId, TokenVerifier};
use folkmoot_core::op::{
    Act, BuiltInRole, Documents, FieldPath, FieldPaths, Fields, Grant, Join, Principal, PrincipalKind as CoreKind,
    Rank, RevokeTarget, Rights, Role, RoleRevision, Secret, Target, Token,
};
use folkmoot_core::replica::ActRequest;

use super::approvals::Asker;
use super::core_thread::wall_ms;
use super::{Inner, Node, random, token};
use crate::api::{
    Access, AccessAnswer, AccessQuestion, AccessTarget, Caller, Error, ErrorCode, GrantInfo, IssuedToken,
    MembershipInfo, NewCertificate, NewGrant, NewIdentity, NewPassword, NewPrincipal, NewRole, NewToken, PrincipalInfo,
    PrincipalKind, PrincipalName, Result, Revocation, RevokeOptions, RoleInfo, SecretKind, Timestamp, TokenInfo,
    check_name,
};

pub(super) fn now() -> Hlc {
    Hlc::new(wall_ms(), 0)
}

/// Counts that somebody said who it is.
pub(super) fn count_login(method: AuditMethod, outcome: &'static str) {
    metrics::counter!("folkmoot_access_logins_total", "kind" => method.name(), "outcome" => outcome).increment(1);
}

pub(super) fn gone() -> Error {
    Error::new(ErrorCode::ShuttingDown, "the node is shutting down")
}

pub(super) fn end(until: Option<Timestamp>) -> Option<Hlc> {
    until.map(|time| Hlc::new(time.millis(), u16::MAX))
}

pub(super) fn until(end: Option<Hlc>) -> Option<Timestamp> {
    end.map(|time| Timestamp::from_millis(time.millis()))
}

fn kind(kind: CoreKind) -> PrincipalKind {
    match kind {
        CoreKind::User => PrincipalKind::User,
        CoreKind::Service => PrincipalKind::Service,
        CoreKind::Group => PrincipalKind::Group,
    }
}

fn core_kind(kind: PrincipalKind) -> CoreKind {
    match kind {
        PrincipalKind::User => CoreKind::User,
        PrincipalKind::Service => CoreKind::Service,
        PrincipalKind::Group => CoreKind::Group,
    }
}

fn names(actions: Actions) -> Vec<String> {
    actions.iter().map(|action| action.name().to_owned()).collect()
}

pub(super) fn shown(target: &Target) -> AccessTarget {
    let prefix = match &target.documents {
        Documents::All => None,
        Documents::Prefix(prefix) => Some(prefix.clone()),
    };
    let named = |paths: &FieldPaths| paths.iter().map(FieldPath::to_string).collect();
    let (fields, without_fields) = match &target.fields {
        Fields::All => (Vec::new(), Vec::new()),
        Fields::Only(paths) => (named(paths), Vec::new()),
        Fields::Except(paths) => (Vec::new(), named(paths)),
    };
    AccessTarget { collections: target.collections.clone(), prefix, fields, without_fields }
}

/// Parses names of fields.
fn parsed_fields(names: &[String], pointer: &str) -> Result<FieldPaths> {
    let paths = names.iter().enumerate().map(|(index, name)| {
        name.parse::<FieldPath>().map_err(|error| {
            Error::new(ErrorCode::InvalidTarget, format!("{:?}: {error}", shortened(name)))
                .pointer(format!("{pointer}/{index}"))
        })
    });
    Ok(FieldPaths::of(paths.collect::<Result<Vec<_>>>()?))
}

fn target(wanted: AccessTarget) -> Result<Target> {
    let AccessTarget { collections, prefix, fields, without_fields } = wanted;
    let documents = prefix.map_or(Documents::All, Documents::Prefix);
    let fields = match (fields.as_slice(), without_fields.as_slice()) {
        ([], []) => Fields::All,
        (only, []) => Fields::Only(parsed_fields(only, "/fields")?),
        ([], except) => Fields::Except(parsed_fields(except, "/without_fields")?),
        _ => {
            let detail = "either some fields only are given, or all but some";
            return Err(Error::new(ErrorCode::InvalidTarget, detail).pointer("/without_fields"));
        }
    };
    let target = Target { collections, documents, fields };
    target.check().map_err(|what| {
        Error::new(ErrorCode::InvalidTarget, what)
            .hint("a collection, a beginning of names followed by `*`, or `*`; and perhaps a beginning of document ids")
    })?;
    Ok(target)
}

/// What somebody sent, short enough to show again.
fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Parses names of actions.
fn parsed(names: &[String], pointer: &str) -> Result<Actions> {
    names
        .iter()
        .enumerate()
        .map(|(index, name)| {
            name.parse::<Action>().map_err(|_| {
                let all: Vec<_> = Action::ALL.into_iter().map(Action::name).collect();
                Error::new(ErrorCode::InvalidAction, format!("{:?} is no action", shortened(name)))
                    .hint(format!("actions are {}", all.join(", ")))
                    .pointer(format!("{pointer}/{index}"))
            })
        })
        .collect()
}

fn not_found(name: &PrincipalName) -> Error {
    Error::new(ErrorCode::PrincipalNotFound, format!("there is no principal {name}"))
        .hint("`folkmoot user list` shows them")
}

/// Finds a principal, removed ones left out.
fn find(policy: &Policy, wanted: &PrincipalName) -> Result<(PrincipalId, CoreKind)> {
    let found: Vec<_> = match wanted {
        PrincipalName::Id(id) => policy.kind(*id, now()).map(|kind| (*id, kind)).into_iter().collect(),
        PrincipalName::Name(name) => policy.named(name, now()).collect(),
    };
    match found.as_slice() {
        [] => Err(not_found(wanted)),
        [one] => Ok(*one),
        several => {
            let ids: Vec<String> = several.iter().map(|(id, _)| id.to_string()).collect();
            Err(Error::new(ErrorCode::PrincipalNotFound, format!("{} principals are named {wanted}", several.len()))
                .hint(format!("name one by its id: {}", ids.join(", "))))
        }
    }
}

fn introduced(authority: &Authority) -> impl Iterator<Item = (PrincipalId, String, CoreKind)> + '_ {
    // The owners' principal stays who it was introduced as when other keys become the owners.
    let told = |statement: &StatementInfo<'_>| statement.denial.is_none() || matches!(statement.act, Act::Genesis(_));
    authority.statements(now()).filter(told).filter_map(|statement| {
        let said = statement.act.introduces(statement.id)?;
        Some((said.principal, said.name.to_owned(), said.kind))
    })
}

fn in_force(authority: &Authority) -> impl Iterator<Item = StatementInfo<'_>> + '_ {
    authority.statements(now()).filter(|statement| statement.denial.is_none())
}

fn role_name(authority: &Authority, role: &Role) -> String {
    match role {
        Role::BuiltIn(role) => role.name().to_owned(),
        Role::Custom(id) => match authority.statement(*id, now()).map(|statement| statement.act) {
            Some(Act::Role(role)) => role.name.clone(),
            _ => id.to_string(),
        },
    }
}

/// Finds a role by its name or statement.
fn find_role(authority: &Authority, wanted: &str) -> Result<Role> {
    if let Some(role) = BuiltInRole::ALL.into_iter().find(|role| role.name() == wanted) {
        return Ok(Role::BuiltIn(role));
    }
    let found: Vec<OpId> = in_force(authority)
        .filter(|statement| match statement.act {
            Act::Role(role) => role.name == wanted || statement.id.to_string() == wanted,
            _ => false,
        })
        .map(|statement| statement.id)
        .collect();
    match found.as_slice() {
        [one] => Ok(Role::Custom(*one)),
        [] => Err(Error::new(ErrorCode::RoleNotFound, format!("there is no role {:?}", shortened(wanted)))
            .hint("`folkmoot role list` shows them")
            .pointer("/role")),
        several => {
            let ids: Vec<String> = several.iter().map(ToString::to_string).collect();
            Err(Error::new(ErrorCode::RoleNotFound, format!("{} roles are named {wanted}", several.len()))
                .hint(format!("name one by its statement: {}", ids.join(", ")))
                .pointer("/role"))
        }
    }
}

fn role_info(name: &str, statement: Option<OpId>, rights: Rights) -> RoleInfo {
    RoleInfo {
        name: name.to_owned(),
        statement,
        actions: names(rights.actions),
        own_actions: names(rights.own_actions),
    }
}

/// Returns what the principals have that `wanted` wants.
fn list(authority: &Authority, wanted: impl Fn(PrincipalId) -> bool) -> Vec<PrincipalInfo> {
    let mut all: BTreeMap<PrincipalId, PrincipalInfo> = BTreeMap::new();
    let mut names_of: BTreeMap<PrincipalId, String> = BTreeMap::new();
    for (id, name, core_kind) in introduced(authority) {
        names_of.insert(id, name.clone());
        if wanted(id) {
            let own_prefix = id.own_prefix();
            let (grants, groups, tokens) = (Vec::new(), Vec::new(), Vec::new());
            all.insert(id, PrincipalInfo { id, name, kind: kind(core_kind), own_prefix, grants, groups, tokens });
        }
    }
    for statement in in_force(authority) {
        let Some(info) = all.get_mut(&statement.to) else { continue };
        let (id, until) = (statement.id, until(statement.not_after));
        match statement.act {
            Act::Grant(grant) => {
                let (role, target) = (role_name(authority, &grant.role), shown(&grant.target));
                info.grants.push(GrantInfo { statement: id, role, target, until });
            }
            Act::Join(join) => {
                let name = names_of.get(&join.group).cloned().unwrap_or_default();
                info.groups.push(MembershipInfo { statement: id, group: join.group, name, until });
            }
            Act::Token(token) => info.tokens.push(token_info(id, token)),
            _ => {}
        }
    }
    let mut list: Vec<_> = all.into_values().collect();
    list.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    list
}

pub(super) fn token_info(statement: OpId, token: &Token) -> TokenInfo {
    let kind = match token.secret {
        Secret::Random => SecretKind::Token,
        Secret::Password(_) => SecretKind::Password,
        Secret::Certificate => SecretKind::Certificate,
        Secret::Subject => SecretKind::Identity,
    };
    TokenInfo {
        kind,
        statement,
        name: token.name.clone(),
        actions: names(token.actions),
        target: shown(&token.target),
        until: until(token.not_after),
        exposed: false,
    }
}

impl Inner {
    /// Runs a look at the authority on the replica's thread.
    pub(super) async fn authority<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Authority) -> T + Send + 'static,
    ) -> Result<T> {
        self.core.look(move |replica, _| look(replica.authority())).await.map_err(|_| gone())
    }

    fn find(&self, name: &PrincipalName) -> Result<(PrincipalId, CoreKind)> {
        find(&self.core.policy.borrow(), name)
    }

    pub(super) fn find_principal(&self, name: &PrincipalName) -> Result<PrincipalId> {
        self.find(name).map(|(id, _)| id)
    }

    /// Finds a principal that can show something of itself.
    pub(super) fn find_actor(&self, name: &PrincipalName) -> Result<PrincipalId> {
        match self.find(name)? {
            (id, CoreKind::User | CoreKind::Service) => Ok(id),
            (_, CoreKind::Group) => Err(Error::new(
                ErrorCode::InvalidRequest,
                "a group does not act: its members have tokens and passwords",
            )),
        }
    }

    /// Signs an act, at the request of somebody if it is not the node's own.
    ///
    /// # Errors
    /// [`ErrorCode::AwaitsApproval`] if it is signed and other owners have to consent.
    pub(super) async fn state(&self, asker: impl Into<Asker>, act: Act) -> Result<OpId> {
        let asker = asker.into();
        let mut event = super::audit::act_event(&act);
        // A token is shown once, with its statement, and a password ends the one before: neither can wait for others.
        let signer = match &act {
            Act::Token(_) if self.owners_must_agree().await? => Asker::Itself,
            _ => asker,
        };
        let request = match asker.principal() {
            Some(asker) => ActRequest::For(asker, act),
            None => ActRequest::One(act),
        };
        metrics::counter!("folkmoot_access_acts_total").increment(1);
        let done = self.sign(signer, request).await;
        if let Ok(op) = &done {
            event.statements.push(*op);
        }
        self.note_done(asker.principal(), event, &done);
        done
    }

    /// Returns whether one owner alone can do nothing.
    async fn owners_must_agree(&self) -> Result<bool> {
        self.authority(|authority| authority.owners().is_some_and(|owners| owners.threshold > 1)).await
    }

    pub(super) async fn principals_of(&self, only: Option<PrincipalId>) -> Result<Vec<PrincipalInfo>> {
        let mut all = self.authority(move |authority| list(authority, |id| only.is_none_or(|only| only == id))).await?;
        let policy = self.core.policy.borrow().clone();
        let exposed = |id: PrincipalId, statement: OpId| {
            let mut passwords = policy.passwords(id).iter();
            passwords.any(|it| it.statement == statement && policy.is_exposed(it.hash.pepper, now()))
        };
        for info in &mut all {
            for token in info.tokens.iter_mut().filter(|token| token.kind == SecretKind::Password) {
                token.exposed = exposed(info.id, token.statement);
            }
        }
        Ok(all)
    }

    pub(super) async fn add_principal(&self, asker: impl Into<Asker>, new: &NewPrincipal) -> Result<PrincipalInfo> {
        check_name(&new.name)?;
        let (name, kind) = (new.name.clone(), core_kind(new.kind));
        if let Ok((id, _)) = self.find(&PrincipalName::Name(name.clone())) {
            return Err(Error::new(ErrorCode::NameTaken, format!("{name} is the name of principal {id}")));
        }
        let attest = kind != CoreKind::Group;
        let id = self.state(asker, Act::Principal(Principal { name, kind, attest, rank: Rank::USER })).await?;
        let id = PrincipalId::from(id);
        let made = self.principals_of(Some(id)).await?.into_iter().next();
        made.ok_or_else(|| not_found(&PrincipalName::Id(id)))
    }

    pub(super) async fn all_roles(&self) -> Result<Vec<RoleInfo>> {
        self.authority(|authority| {
            let built_in = BuiltInRole::ALL.into_iter().map(|role| role_info(role.name(), None, role.rights()));
            let custom = in_force(authority).filter_map(|statement| match statement.act {
                Act::Role(role) => Some(role_info(&role.name, Some(statement.id), role.rights())),
                _ => None,
            });
            built_in.chain(custom).collect()
        })
        .await
    }

    pub(super) async fn add_role(&self, asker: Option<PrincipalId>, new: &NewRole) -> Result<RoleInfo> {
        check_name(&new.name)?;
        if BuiltInRole::ALL.into_iter().any(|role| role.name() == new.name) {
            let error = Error::new(ErrorCode::NameTaken, format!("{} is a role of the rules", new.name));
            return Err(error.pointer("/name"));
        }
        let (actions, own_actions) = (parsed(&new.actions, "/actions")?, parsed(&new.own_actions, "/own_actions")?);
        if !Actions::OF_DOCUMENTS.contains(own_actions) {
            let error =
                Error::new(ErrorCode::InvalidAction, "own documents are read, created, updated and deleted only");
            return Err(error.hint(format!("of own_actions there are {}", names(Actions::OF_DOCUMENTS).join(", "))));
        }
        if actions.union(own_actions) == Actions::NONE {
            return Err(Error::new(ErrorCode::InvalidAction, "a role allows something").pointer("/actions"));
        }
        let role = RoleRevision { name: new.name.clone(), actions, own_actions, rank: Rank::USER };
        let rights = role.rights();
        let id = self.state(asker, Act::Role(role)).await?;
        Ok(role_info(&new.name, Some(id), rights))
    }

    pub(super) async fn give(
        &self,
        asker: impl Into<Asker>,
        principal: &PrincipalName,
        new: &NewGrant,
    ) -> Result<GrantInfo> {
        let target = target(new.target())?;
        let (principal, wanted) = (self.find_principal(principal)?, new.role.clone());
        let (role, name) = self
            .authority(move |authority| {
                let role = find_role(authority, &wanted)?;
                let name = role_name(authority, &role);
                Ok::<_, Error>((role, name))
            })
            .await??;
        let target_shown = shown(&target);
        let grant = Grant { principal, role, target, rank: Rank::USER, not_after: end(new.until) };
        let statement = self.state(asker, Act::Grant(grant)).await?;
        Ok(GrantInfo { statement, role: name, target: target_shown, until: new.until })
    }

    pub(super) async fn enrol(
        &self,
        asker: Option<PrincipalId>,
        group: &PrincipalName,
        principal: &PrincipalName,
        until: Option<Timestamp>,
    ) -> Result<MembershipInfo> {
        let ((group_id, is), (principal_id, member_is)) = (self.find(group)?, self.find(principal)?);
        if is != CoreKind::Group || member_is == CoreKind::Group {
            let detail = if is == CoreKind::Group {
                format!("{principal} is a group, and groups do not nest")
            } else {
                format!("{group} is no group")
            };
            return Err(Error::new(ErrorCode::InvalidRequest, detail));
        }
        let (group, principal, name) = (group_id, principal_id, self.name_of_principal(group_id));
        let join = Join { principal, group, rank: Rank::USER, not_after: end(until) };
        let statement = self.state(asker, Act::Join(join)).await?;
        Ok(MembershipInfo { statement, group, name, until })
    }

    pub(super) async fn issue(
        &self,
        asker: Option<PrincipalId>,
        principal: &PrincipalName,
        new: &NewToken,
    ) -> Result<IssuedToken> {
        check_name(&new.name)?;
        let target = target(new.target())?;
        let actions = match &new.actions {
            None => Actions::ALL,
            Some(names) => parsed(names, "/actions")?,
        };
        if actions == Actions::NONE {
            return Err(Error::new(ErrorCode::InvalidAction, "a token gives some action").pointer("/actions"));
        }
        let good_for = u64::try_from(NewToken::GOOD_FOR.as_millis()).unwrap_or(u64::MAX);
        let until = new.until.unwrap_or_else(|| Timestamp::from_millis(wall_ms().saturating_add(good_for)));
        if until <= Timestamp::now() {
            return Err(Error::new(ErrorCode::InvalidRequest, "the token would have ended already").pointer("/until"));
        }
        let principal = self.find_actor(principal)?;
        let secret: [u8; 32] =
            random().map_err(|error| Error::new(ErrorCode::Internal, format!("make a token: {error}")))?;
        let made = Token {
            principal,
            verifier: TokenVerifier::of(&secret),
            name: new.name.clone(),
            actions,
            target,
            rank: Rank::DEVICE,
            not_after: end(Some(until)),
            secret: Secret::Random,
        };
        let statement = self.state(asker, Act::Token(made.clone())).await?;
        Ok(IssuedToken { token: token::write(&secret), info: token_info(statement, &made) })
    }

    /// Takes back one thing or several that belong together; tells of the first.
    pub(super) async fn take_back(
        &self,
        asker: Option<PrincipalId>,
        targets: Vec<RevokeTarget>,
        options: &RevokeOptions,
    ) -> Result<Revocation> {
        let reach = if options.cascade { Reach::Cascade } else { Reach::Target };
        let why = options.why.clone();
        if why.len() > folkmoot_core::limits::ACT_TEXT_BYTES_MAX {
            return Err(Error::new(ErrorCode::InvalidRequest, "the reason is too long").pointer("/why"));
        }
        metrics::counter!("folkmoot_access_acts_total").increment(1);
        let action = match targets.first() {
            Some(RevokeTarget::Principal(_)) => AuditAction::RemovePrincipal,
            Some(RevokeTarget::Statement(_)) | None => AuditAction::Revoke,
        };
        let named = targets.iter().map(|target| match target {
            RevokeTarget::Principal(id) => id.to_string(),
            RevokeTarget::Statement(id) => id.to_string(),
        });
        let what = named.collect::<Vec<_>>().join(" ");
        let event = Event::new(action, AuditDecision::Allowed).about(what).because(why.clone());
        let mut witnesses = Vec::new();
        for target in &targets {
            if let RevokeTarget::Principal(id) = target {
                witnesses.extend(self.witnessing_nodes(*id).await?);
            }
        }
        let request = ActRequest::Revoke { targets, reach, why: why.clone(), for_whom: asker };
        let revocation = self.taken_back(asker, event, request).await?;
        self.dismiss_removed(asker, witnesses, &why).await;
        Ok(revocation)
    }

    pub(super) async fn release(&self, asker: Option<PrincipalId>, op: OpId, transaction: u16) -> Result<Revocation> {
        metrics::counter!("folkmoot_access_acts_total").increment(1);
        let request = ActRequest::Readmit { op, transaction, for_whom: asker };
        let event = Event::new(AuditAction::Release, AuditDecision::Allowed).about(format!("{op}:{transaction}"));
        self.taken_back(asker, event, request).await
    }

    async fn taken_back(&self, asker: Option<PrincipalId>, event: Event, request: ActRequest) -> Result<Revocation> {
        let done = self.sign(asker.into(), request).await;
        self.note_done(asker, event, &done);
        let act = done?;
        let pins = self.authority(move |authority| authority.pins_set_by(act)).await?;
        Ok(Revocation { act, pins })
    }

    /// Returns whom a statement was given to.
    pub(super) async fn holder(&self, id: &OpId) -> Result<PrincipalId> {
        let id = *id;
        let to = self
            .authority(move |authority| {
                let statement = authority.statement(id, now())?;
                let revocable = matches!(statement.act, Act::Grant(_) | Act::Join(_) | Act::Token(_) | Act::Role(_));
                revocable.then_some(statement.to)
            })
            .await?;
        to.ok_or_else(|| {
            Error::new(ErrorCode::StatementNotFound, format!("there is no grant, membership, token or role {id}"))
        })
    }

    pub(super) async fn answer(&self, principal: PrincipalId, question: &AccessQuestion) -> Result<AccessAnswer> {
        let AccessQuestion { action, collection, id, field, .. } = question.clone();
        let decision = self
            .authority(move |authority| match collection {
                None => authority.may_everywhere(principal, action, now()),
                Some(collection) => match field {
                    None => authority.may(principal, action, &collection, id.as_ref(), now()),
                    Some(field) => authority.may_field(principal, action, &collection, id.as_ref(), &field, now()),
                },
            })
            .await?;
        Ok(match decision {
            Decision::Allowed { grant } => AccessAnswer { allowed: true, grant: Some(grant), reason: None },
            Decision::Denied(denial) => AccessAnswer { allowed: false, grant: None, reason: Some(denial.to_string()) },
        })
    }

    pub(super) fn name_of_principal(&self, id: PrincipalId) -> String {
        self.core.policy.borrow().name(id).unwrap_or_default().to_owned()
    }
}

#[async_trait]
impl Access for Node {
    async fn caller(&self) -> Result<Caller> {
        let principal = self.inner.record.principal;
        let name = self.inner.name_of_principal(principal);
        Ok(Caller { owner: true, principal, name, token: None })
    }

    async fn principals(&self) -> Result<Vec<PrincipalInfo>> {
        self.inner.principals_of(None).await
    }

    async fn add_principal(&self, new: &NewPrincipal) -> Result<PrincipalInfo> {
        self.inner.add_principal(None, new).await
    }

    async fn remove_principal(&self, principal: &PrincipalName, options: &RevokeOptions) -> Result<Revocation> {
        let id = self.inner.find_principal(principal)?;
        self.inner.take_back(None, vec![RevokeTarget::Principal(id)], options).await
    }

    async fn roles(&self) -> Result<Vec<RoleInfo>> {
        self.inner.all_roles().await
    }

    async fn add_role(&self, new: &NewRole) -> Result<RoleInfo> {
        self.inner.add_role(None, new).await
    }

    async fn grant(&self, principal: &PrincipalName, new: &NewGrant) -> Result<GrantInfo> {
        self.inner.give(None, principal, new).await
    }

    async fn join_group(
        &self,
        group: &PrincipalName,
        principal: &PrincipalName,
        until: Option<Timestamp>,
    ) -> Result<MembershipInfo> {
        self.inner.enrol(None, group, principal, until).await
    }

    async fn issue_token(&self, principal: &PrincipalName, new: &NewToken) -> Result<IssuedToken> {
        self.inner.issue(None, principal, new).await
    }

    async fn set_password(&self, principal: &PrincipalName, new: &NewPassword) -> Result<TokenInfo> {
        self.inner.set_password(None, principal, new).await
    }

    async fn trust_certificate(&self, principal: &PrincipalName, new: &NewCertificate) -> Result<TokenInfo> {
        self.inner.trust_certificate(None, principal, new).await
    }

    async fn link_identity(&self, principal: &PrincipalName, new: &NewIdentity) -> Result<TokenInfo> {
        self.inner.link_identity(None, principal, new).await
    }

    async fn revoke(&self, statement: &OpId, options: &RevokeOptions) -> Result<Revocation> {
        self.inner.holder(statement).await?;
        self.inner.take_back(None, vec![RevokeTarget::Statement(*statement)], options).await
    }

    async fn readmit(&self, op: &OpId, transaction: u16) -> Result<Revocation> {
        self.inner.release(None, *op, transaction).await
    }

    async fn can(&self, question: &AccessQuestion) -> Result<AccessAnswer> {
        let principal = match &question.principal {
            Some(name) => self.inner.find_principal(name)?,
            None => self.inner.record.principal,
        };
        self.inner.answer(principal, question).await
    }
}
