//! Who may do what: principals, what is granted to them, and the tokens by which they are known to nodes.
//!
//! All of it is signed acts of the control log: every node has the same, and judges by it. What is asked for here is signed by the
//! node that is asked, within what that node may; for whom it was asked is noted.

use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use folkmoot_core::authority::Action;
use folkmoot_core::id::{CollectionName, DocId, OpId, PrincipalId};
use folkmoot_core::op::FieldPath;
use serde::{Deserialize, Serialize};

use super::{Error, ErrorCode, Result, Timestamp};

/// What a principal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum PrincipalKind {
    /// A person.
    User,
    /// A program.
    Service,
    /// A set of others: what is granted to it counts for its members.
    Group,
}

/// A name of a principal: its id, or the name for people where only one has that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrincipalName {
    /// The id.
    Id(PrincipalId),
    /// The name for people.
    Name(String),
}

impl FromStr for PrincipalName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.parse() {
            Ok(id) => Ok(Self::Id(id)),
            Err(_) => check_name(text).map(|()| Self::Name(text.to_owned())),
        }
    }
}

impl std::fmt::Display for PrincipalName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// Most bytes of a name for people.
const NAME_BYTES_MAX: usize = 128;

/// Checks a name for people.
///
/// # Errors
/// [`ErrorCode::InvalidName`].
pub(crate) fn check_name(name: &str) -> Result<()> {
    let is_fine = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.chars().any(|c| c.is_control() || c == '/')
        && name.trim() == name;
    if is_fine {
        return Ok(());
    }
    let detail =
        format!("a name has 1 to {NAME_BYTES_MAX} bytes, no control characters, no `/` and no spaces around it");
    Err(Error::new(ErrorCode::InvalidName, detail).pointer("/name"))
}

/// What a right is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AccessTarget {
    /// A collection, a beginning of names followed by `*`, or `*` alone.
    #[serde(default = "every_collection")]
    pub collections: String,
    /// Only documents whose ids begin so; all if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Only these fields, as JSON pointers in which `*` stands for any list position or key, with all that is below them; all
    /// fields if none is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// All fields but these. Not together with `fields`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without_fields: Vec<String>,
}

fn every_collection() -> String {
    "*".to_owned()
}

impl Default for AccessTarget {
    fn default() -> Self {
        Self { collections: every_collection(), prefix: None, fields: Vec::new(), without_fields: Vec::new() }
    }
}

impl std::fmt::Display for AccessTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.prefix {
            None => f.write_str(&self.collections)?,
            Some(prefix) => write!(f, "{}/{prefix}*", self.collections)?,
        }
        for (word, fields) in [("only", &self.fields), ("without", &self.without_fields)] {
            if !fields.is_empty() {
                write!(f, " {word} {}", fields.join(", "))?;
            }
        }
        Ok(())
    }
}

/// A principal, with what it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PrincipalInfo {
    /// Its id.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub id: PrincipalId,
    /// Its name for people.
    pub name: String,
    /// What it is. Nodes are services.
    pub kind: PrincipalKind,
    /// What the ids of its own documents begin with.
    pub own_prefix: String,
    /// What is granted to it.
    pub grants: Vec<GrantInfo>,
    /// The groups that it is a member of.
    pub groups: Vec<MembershipInfo>,
    /// Its tokens.
    pub tokens: Vec<TokenInfo>,
}

/// A grant that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GrantInfo {
    /// The statement: what is revoked.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub statement: OpId,
    /// The role's name.
    pub role: String,
    /// On what.
    #[serde(flatten)]
    pub target: AccessTarget,
    /// Until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub until: Option<Timestamp>,
}

/// A membership of a group that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MembershipInfo {
    /// The statement: what is revoked.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub statement: OpId,
    /// The group.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub group: PrincipalId,
    /// Its name.
    pub name: String,
    /// Until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub until: Option<Timestamp>,
}

/// What the holder of a token shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum SecretKind {
    /// The token: random text.
    Token,
    /// A password.
    Password,
    /// That it has the key of a certificate.
    Certificate,
    /// JSON Web Tokens of an issuer, with a certain subject.
    Identity,
}

/// A token, password, certificate or identity that counts. The secret is nowhere but with its holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenInfo {
    /// What is shown.
    pub kind: SecretKind,
    /// The statement: what is revoked.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub statement: OpId,
    /// Its name for people.
    pub name: String,
    /// Which of the principal's actions it gives.
    pub actions: Vec<String>,
    /// On what.
    #[serde(flatten)]
    pub target: AccessTarget,
    /// Until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub until: Option<Timestamp>,
    /// Whether it is a password at which somebody can try guesses who acts for users no longer: to be changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exposed: bool,
}

/// A new token, shown once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IssuedToken {
    /// The token: a secret.
    pub token: String,
    /// What it is.
    #[serde(flatten)]
    pub info: TokenInfo,
}

impl std::fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedToken").field("info", &self.info).finish_non_exhaustive()
    }
}

/// A role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RoleInfo {
    /// Its name.
    pub name: String,
    /// The statement that made it; none if it is part of the rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub statement: Option<OpId>,
    /// What it allows on all of a grant's target.
    pub actions: Vec<String>,
    /// What it allows on the own documents of whoever has it.
    pub own_actions: Vec<String>,
}

/// A principal to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewPrincipal {
    /// Its name for people: one that nobody else has.
    pub name: String,
    /// What it is.
    #[serde(default = "user")]
    pub kind: PrincipalKind,
}

fn user() -> PrincipalKind {
    PrincipalKind::User
}

/// A grant to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewGrant {
    /// The role: its name, or the statement of one of several with that name.
    pub role: String,
    /// A collection, a beginning of names followed by `*`, or `*` alone, which is what is taken if not given.
    #[serde(default = "every_collection")]
    pub collections: String,
    /// Only documents whose ids begin so; all if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Only these fields, as JSON pointers in which `*` stands for any list position or key, with all that is below them; all
    /// fields if none is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// All fields but these. Not together with `fields`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without_fields: Vec<String>,
    /// Until when; for good if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub until: Option<Timestamp>,
}

impl NewGrant {
    /// Returns on what.
    pub(crate) fn target(&self) -> AccessTarget {
        AccessTarget {
            collections: self.collections.clone(),
            prefix: self.prefix.clone(),
            fields: self.fields.clone(),
            without_fields: self.without_fields.clone(),
        }
    }
}

/// A role to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewRole {
    /// Its name.
    pub name: String,
    /// What it allows on all of a grant's target.
    #[serde(default)]
    pub actions: Vec<String>,
    /// What it allows on the own documents of whoever has it.
    #[serde(default)]
    pub own_actions: Vec<String>,
}

/// A token to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewToken {
    /// Its name for people.
    pub name: String,
    /// Which of the principal's actions it gives; all if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actions: Option<Vec<String>>,
    /// On which collections; on all if not given.
    #[serde(default = "every_collection")]
    pub collections: String,
    /// Only on documents whose ids begin so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Only these fields, as JSON pointers in which `*` stands for any list position or key, with all that is below them; all
    /// fields if none is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// All fields but these. Not together with `fields`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without_fields: Vec<String>,
    /// Until when; for ninety days if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub until: Option<Timestamp>,
}

impl NewToken {
    /// How long a token is good if nobody says.
    pub const GOOD_FOR: Duration = Duration::from_secs(90 * 24 * 3_600);

    /// Returns on what.
    pub(crate) fn target(&self) -> AccessTarget {
        AccessTarget {
            collections: self.collections.clone(),
            prefix: self.prefix.clone(),
            fields: self.fields.clone(),
            without_fields: self.without_fields.clone(),
        }
    }

    /// A token for all that the principal may, for ninety days.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            actions: None,
            collections: every_collection(),
            prefix: None,
            fields: Vec::new(),
            without_fields: Vec::new(),
            until: None,
        }
    }
}

/// A password to set.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewPassword {
    /// The password: 10 to 256 characters, and not the name.
    pub password: String,
    /// The password until now: needed of those who set their own and administer nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// Until when; for good if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub until: Option<Timestamp>,
}

impl NewPassword {
    /// A password that is good until it is changed.
    #[must_use]
    pub fn new(password: impl Into<String>) -> Self {
        Self { password: password.into(), current: None, until: None }
    }
}

impl std::fmt::Debug for NewPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewPassword").field("until", &self.until).finish_non_exhaustive()
    }
}

/// A certificate to believe: who has its key is the principal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewCertificate {
    /// The certificate as PEM text. Only its key counts, so one that is renewed with the same key needs nothing.
    pub certificate: String,
    /// Until when; as long as the certificate says if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub until: Option<Timestamp>,
}

/// A subject of an issuer of JSON Web Tokens, by which a principal is known to every node that believes the issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewIdentity {
    /// The issuer: the claim `iss` of its tokens, to the letter.
    pub issuer: String,
    /// The subject: the claim `sub`.
    pub subject: String,
    /// Until when; for good if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub until: Option<Timestamp>,
}

/// Why something is taken back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RevokeOptions {
    /// Reason for people.
    pub why: String,
    /// Also take back what was given under it.
    pub cascade: bool,
}

/// What was taken back, or readmitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Revocation {
    /// The act that did it.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub act: OpId,
    /// Streams of ops of which the part up to now stands. Whatever else was or will be written under the right does not count.
    pub pins: usize,
}

/// Whether somebody may do something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessQuestion {
    /// Who; the caller if not given.
    pub principal: Option<PrincipalName>,
    /// What.
    pub action: Action,
    /// Where; to everything if not given.
    pub collection: Option<CollectionName>,
    /// To which document; to all of the collection if not given.
    pub id: Option<DocId>,
    /// To which field, with all that is below it; to whole documents if not given. It needs a collection.
    pub field: Option<FieldPath>,
}

/// The answer, with its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AccessAnswer {
    /// Whether.
    pub allowed: bool,
    /// The grant that gives the right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub grant: Option<OpId>,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Caller {
    /// Whether it is the owner of the node's data directory, who may everything that the node may.
    pub owner: bool,
    /// The principal: the node's own for the owner.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub principal: PrincipalId,
    /// Its name for people.
    pub name: String,
    /// The token that was shown, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub token: Option<OpId>,
}

/// The part of a [`super::Database`] that says who may do what.
#[async_trait]
pub trait Access: Send + Sync + 'static {
    /// Returns who is asking.
    async fn caller(&self) -> Result<Caller>;

    /// Returns the principals by name, nodes included. Who does not administer everything sees itself only.
    async fn principals(&self) -> Result<Vec<PrincipalInfo>>;

    /// Returns one principal.
    ///
    /// # Errors
    /// [`ErrorCode::PrincipalNotFound`], also if several have this name.
    async fn principal(&self, name: &PrincipalName) -> Result<PrincipalInfo> {
        let mut found = self.principals().await?.into_iter().filter(|principal| match name {
            PrincipalName::Id(id) => principal.id == *id,
            PrincipalName::Name(name) => principal.name == *name,
        });
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            (Some(_), Some(_)) => {
                let error = Error::new(ErrorCode::PrincipalNotFound, format!("several principals are named {name}"));
                Err(error.hint("name one by its id"))
            }
            (None, _) => Err(Error::new(ErrorCode::PrincipalNotFound, format!("there is no principal {name}"))),
        }
    }

    /// Makes a principal. It may nothing until it is granted something.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidName`]; [`ErrorCode::NameTaken`]; [`ErrorCode::NotAllowed`], as in all that follows.
    async fn add_principal(&self, new: &NewPrincipal) -> Result<PrincipalInfo>;

    /// Takes all back that was given to a principal. What it wrote until now, as far as this node knows it, stands.
    ///
    /// # Errors
    /// [`ErrorCode::PrincipalNotFound`], as in all that names one.
    async fn remove_principal(&self, principal: &PrincipalName, options: &RevokeOptions) -> Result<Revocation>;

    /// Returns the roles, those of the rules first.
    async fn roles(&self) -> Result<Vec<RoleInfo>>;

    /// Makes a role. It never changes: to narrow one, make another, grant that, and revoke the old one.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidAction`].
    async fn add_role(&self, new: &NewRole) -> Result<RoleInfo>;

    /// Gives a role to a principal.
    ///
    /// # Errors
    /// [`ErrorCode::RoleNotFound`], [`ErrorCode::InvalidTarget`].
    async fn grant(&self, principal: &PrincipalName, new: &NewGrant) -> Result<GrantInfo>;

    /// Makes a principal a member of a group.
    async fn join_group(
        &self,
        group: &PrincipalName,
        principal: &PrincipalName,
        until: Option<Timestamp>,
    ) -> Result<MembershipInfo>;

    /// Makes a token with which the principal is known to every node.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidAction`], [`ErrorCode::InvalidTarget`].
    async fn issue_token(&self, principal: &PrincipalName, new: &NewToken) -> Result<IssuedToken>;

    /// Sets the password with which the principal is known to every node, in place of the one before.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidPassword`]; [`ErrorCode::Unauthenticated`] if the current one is not right.
    async fn set_password(&self, principal: &PrincipalName, new: &NewPassword) -> Result<TokenInfo>;

    /// Believes a certificate: who shows it, where nodes ask for certificates, is the principal.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidCertificate`].
    async fn trust_certificate(&self, principal: &PrincipalName, new: &NewCertificate) -> Result<TokenInfo>;

    /// Links a subject of an issuer of JSON Web Tokens to a principal: who shows a token of it to a node that believes the issuer is
    /// the principal.
    ///
    /// # Errors
    /// [`ErrorCode::NameTaken`] if it is linked already.
    async fn link_identity(&self, principal: &PrincipalName, new: &NewIdentity) -> Result<TokenInfo>;

    /// Takes back a grant, a membership, a token or a role. What was written under it until now, as far as this node knows
    /// it, stands.
    ///
    /// # Errors
    /// [`ErrorCode::StatementNotFound`].
    async fn revoke(&self, statement: &OpId, options: &RevokeOptions) -> Result<Revocation>;

    /// Lets a transaction stand that a revocation had cut, and with it all that its principal wrote before it in that stream:
    /// an authority says that it was honest. It is applied everywhere.
    ///
    /// # Errors
    /// [`ErrorCode::StatementNotFound`] if it is not quarantined, or for another reason.
    async fn readmit(&self, op: &OpId, transaction: u16) -> Result<Revocation>;

    /// Returns whether somebody may do something now, and why.
    async fn can(&self, question: &AccessQuestion) -> Result<AccessAnswer>;
}
