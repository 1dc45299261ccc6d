//! Which nodes a client believes to be who they are.

use std::sync::Arc;

use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::api::{Error, ErrorCode, Result};

/// Believes exactly the certificates that were given, under whatever name they answer, and what they or else the machine's
/// authorities vouch for.
#[derive(Debug)]
struct Trusted {
    given: Vec<CertificateDer<'static>>,
    authorities: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        if self.given.contains(end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        self.authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

/// Returns whether a connection failed because the node's certificate is not believed.
pub(super) fn is_mistrusted(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // An error of input and output shows the one in it, which may be another one of its kind, and passes it over as
        // its cause.
        let mut inner = error;
        while let Some(within) = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            inner = within;
        }
        if matches!(inner.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Whom a client believes, and what it shows of itself.
pub(crate) struct Trust<'a> {
    /// PEM text of certificates to believe; without it those of the machine.
    pub(crate) given: Option<&'a [u8]>,
    /// PEM text of a certificate and its key to show.
    pub(crate) identity: Option<(&'a [u8], &'a [u8])>,
}

/// Returns what connects to nodes.
///
/// # Errors
/// [`ErrorCode::InvalidParameter`] if what to believe holds no certificate, nobody is believed at all, or the identity is none.
pub(super) fn connector(http: HttpConnector, trust: &Trust<'_>) -> Result<HttpsConnector<HttpConnector>> {
    let trusted = trust.given;
    let wrong = |what: &str| Error::new(ErrorCode::InvalidParameter, format!("cannot speak TLS: {what}"));
    let given = match trusted {
        None => Vec::new(),
        Some(pem) => CertificateDer::pem_slice_iter(pem)
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|error| wrong("the certificate to trust is not PEM").with_source(error))?,
    };
    if trusted.is_some() && given.is_empty() {
        return Err(wrong("the file of the certificate to trust holds none"));
    }
    let mut roots = RootCertStore::empty();
    if trusted.is_some() {
        // What is no authority is believed as it is.
        roots.add_parsable_certificates(given.iter().cloned());
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() {
        return Err(
            wrong("this machine trusts no authority").hint("name the node's certificate or authority with --ca")
        );
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| wrong("the certificates to trust do not fit").with_source(error))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| wrong("version 1.3 cannot be had").with_source(error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusted { given, authorities }));
    let config = match trust.identity {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_slice_iter(certificate)
                .collect::<std::result::Result<Vec<_>, _>>()
                .map_err(|error| wrong("the certificate to show is not PEM").with_source(error))?;
            let key = PrivateKeyDer::from_pem_slice(key)
                .map_err(|error| wrong("the key of the certificate to show is not PEM").with_source(error))?;
            config
                .with_client_auth_cert(chain, key)
                .map_err(|error| wrong("the certificate to show and its key do not fit").with_source(error))?
        }
    };
    Ok(hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http1()
        .wrap_connector(http))
}
