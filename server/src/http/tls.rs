//! TLS of the API: version 1.3, one certificate, read again when its files change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::{self, CryptoProvider};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{self, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Why the certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("give both a certificate and its key: tls_cert and tls_key")]
    Half,
    #[error("tls_client_certificates needs tls_cert and tls_key")]
    NoTls,
    #[error("read the certificate {path}")]
    Certificate { path: PathBuf, source: pem::Error },
    #[error("the certificate file {0} holds no certificate")]
    NoCertificate(PathBuf),
    #[error("read the key {path}")]
    Key { path: PathBuf, source: pem::Error },
    #[error("others than its owner may read the key {path} (mode {mode:o}); take that right away with `chmod 600`")]
    KeyReadable { path: PathBuf, mode: u32 },
    #[error("the certificate and the key do not make a server")]
    Unfit(#[from] rustls::Error),
}

/// Whether clients are asked for certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientCertificates {
    Unasked,
    Asked,
}

/// A certificate with its key, ready to answer with.
#[derive(Clone)]
pub(crate) struct Tls(Arc<Files>);

struct Files {
    certificate: PathBuf,
    key: PathBuf,
    clients: ClientCertificates,
    current: RwLock<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    seen: Seen,
}

/// What tells whether the files have changed.
type Seen = [Option<(SystemTime, u64)>; 2];

impl Tls {
    /// Reads certificate and key from PEM files; none if neither is named.
    ///
    /// # Errors
    /// [`TlsError`], by what is wrong.
    pub(crate) fn load(certificate: &Path, key: &Path, clients: ClientCertificates) -> Result<Option<Self>, TlsError> {
        match (certificate.as_os_str().is_empty(), key.as_os_str().is_empty()) {
            (true, true) if clients == ClientCertificates::Asked => return Err(TlsError::NoTls),
            (true, true) => return Ok(None),
            (false, false) => {}
            (true, false) | (false, true) => return Err(TlsError::Half),
        }
        // Looked at first: what changes while it is read is read again.
        let seen = seen(certificate, key);
        let config = read(certificate, key, clients)?;
        let current = RwLock::new(Current { config, seen });
        Ok(Some(Self(Arc::new(Files { certificate: certificate.to_owned(), key: key.to_owned(), clients, current }))))
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let current = self.0.current.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(current.config.clone())
    }

    /// Reads the files again if they have changed; returns whether there is another certificate now.
    ///
    /// # Errors
    /// [`TlsError`]; the certificate that was there stays.
    fn refresh(&self) -> Result<bool, TlsError> {
        let Files { certificate, key, clients, current } = &*self.0;
        let now = seen(certificate, key);
        if current.read().unwrap_or_else(PoisonError::into_inner).seen == now {
            return Ok(false);
        }
        let read = read(certificate, key, *clients);
        let mut current = current.write().unwrap_or_else(PoisonError::into_inner);
        // What cannot be read is told once, and tried again when it changes.
        current.seen = now;
        current.config = read?;
        Ok(true)
    }

    /// Reads the files again whenever they change, for ever; run it as a task.
    pub(crate) async fn watch(self) {
        let mut tick = tokio::time::interval(LOOK);
        loop {
            tick.tick().await;
            let tls = self.clone();
            match tokio::task::spawn_blocking(move || tls.refresh()).await {
                Ok(Ok(false)) | Err(_) => {}
                Ok(Ok(true)) => {
                    metrics::counter!("folkmoot_http_tls_reloads_total", "outcome" => "done").increment(1);
                    tracing::info!(certificate = %self.0.certificate.display(), "read another certificate");
                }
                Ok(Err(error)) => {
                    metrics::counter!("folkmoot_http_tls_reloads_total", "outcome" => "failed").increment(1);
                    let error = folkmoot::api::error_chain(&error);
                    tracing::error!(error, "cannot read the certificate again: the one before stays");
                }
            }
        }
    }
}

fn seen(certificate: &Path, key: &Path) -> Seen {
    [certificate, key].map(|path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}

fn read(certificate: &Path, key: &Path, clients: ClientCertificates) -> Result<Arc<ServerConfig>, TlsError> {
    let certificate_error = |source| TlsError::Certificate { path: certificate.to_owned(), source };
    let chain = CertificateDer::pem_file_iter(certificate)
        .map_err(certificate_error)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(certificate_error)?;
    let Some(first) = chain.first() else { return Err(TlsError::NoCertificate(certificate.to_owned())) };
    if let Ok((_, parsed)) = X509Certificate::from_der(first) {
        let ends = parsed.validity().not_after.timestamp();
        metrics::gauge!("folkmoot_http_tls_certificate_expiry_timestamp_seconds").set(ends as f64);
    }
    let key_error = |source| TlsError::Key { path: key.to_owned(), source };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(key).map_err(|e| key_error(pem::Error::Io(e)))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(TlsError::KeyReadable { path: key.to_owned(), mode });
        }
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(key_error)?;
    let provider = Arc::new(crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&TLS13])?;
    let builder = match clients {
        ClientCertificates::Unasked => builder.with_no_client_auth(),
        ClientCertificates::Asked => builder.with_client_cert_verifier(Arc::new(WhoHasTheKey(provider))),
    };
    let mut config = builder.with_single_cert(chain, secret)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Takes any certificate whose key the client has, or none: whose key it is, is asked of the control log with each request, so
/// no authority has to vouch for it.
#[derive(Debug)]
struct WhoHasTheKey(Arc<CryptoProvider>);

impl ClientCertVerifier for WhoHasTheKey {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
