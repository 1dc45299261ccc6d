//! Who comes in: by the owner's token, a token of the cluster or of an issuer, a password or a certificate.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use folkmoot::api::PrincipalName;
use folkmoot::node::is_web_token;
use folkmoot::{Database, Error, ErrorCode, Node, PrincipalId};

/// The database as whoever came in may see it.
#[derive(Clone)]
pub(crate) struct Entered {
    pub(crate) database: Arc<dyn Database>,
    /// Whose limits count; none for the owner, who has none.
    pub(crate) principal: Option<PrincipalId>,
}

/// Where a request came from.
#[derive(Clone)]
pub(crate) struct Arrival {
    pub(crate) source: IpAddr,
    /// The certificate that the client showed and has the key of, in DER.
    pub(crate) certificate: Option<Arc<[u8]>>,
}

/// Finds out who somebody is; an error if nobody.
#[async_trait]
pub(crate) trait Entrance: Send + Sync {
    /// By a token: one of the cluster, or a JSON Web Token.
    async fn by_token(&self, token: &str) -> Result<Entered, Error>;
    /// By name and password.
    async fn by_password(&self, name: &str, password: &str, source: Option<IpAddr>) -> Result<Entered, Error>;
    /// By a certificate whose key it has.
    fn by_certificate(&self, certificate: &[u8]) -> Result<Entered, Error>;
}

fn entered(scoped: folkmoot::Scoped) -> Entered {
    let principal = Some(scoped.principal());
    Entered { database: Arc::new(scoped), principal }
}

#[async_trait]
impl Entrance for Node {
    async fn by_token(&self, token: &str) -> Result<Entered, Error> {
        if is_web_token(token) { self.with_web_token(token).await } else { self.with_token(token) }.map(entered)
    }

    async fn by_password(&self, name: &str, password: &str, source: Option<IpAddr>) -> Result<Entered, Error> {
        // What is no name is nobody's.
        let wrong = |_| Error::new(ErrorCode::Unauthenticated, "name or password is not right");
        let name: PrincipalName = name.parse().map_err(wrong)?;
        self.with_password(&name, password, source).await.map(entered)
    }

    fn by_certificate(&self, certificate: &[u8]) -> Result<Entered, Error> {
        self.with_certificate(certificate).map(entered)
    }
}
