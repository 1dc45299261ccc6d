//! TLS of the API: version 1.3, one certificate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::version::TLS13;

/// Why the certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("give both a certificate and its key: tls_cert and tls_key")]
    Half,
    #[error("read the certificate {path}")]
    Certificate { path: PathBuf, source: pem::Error },
    #[error("the certificate file {0} holds no certificate")]
    NoCertificate(PathBuf),
    #[error("read the key {path}")]
    Key { path: PathBuf, source: pem::Error },
    #[error("others than its owner may read the key {path} (mode {mode:o}); take that right away with `chmod 600`")]
    KeyReadable { path: PathBuf, mode: u32 },
    #[error("the certificate and the key do not make a server")]
    Unfit(#[from] tokio_rustls::rustls::Error),
}

/// A certificate with its key, ready to answer with.
#[derive(Clone)]
pub(crate) struct Tls(TlsAcceptor);

impl Tls {
    /// Reads certificate and key from PEM files; none if neither is named.
    ///
    /// # Errors
    /// [`TlsError`], by what is wrong.
    pub(crate) fn load(certificate: &Path, key: &Path) -> Result<Option<Self>, TlsError> {
        match (certificate.as_os_str().is_empty(), key.as_os_str().is_empty()) {
            (true, true) => return Ok(None),
            (false, false) => {}
            (true, false) | (false, true) => return Err(TlsError::Half),
        }
        let certificate_error = |source| TlsError::Certificate { path: certificate.to_owned(), source };
        let chain = CertificateDer::pem_file_iter(certificate)
            .map_err(certificate_error)?
            .collect::<Result<Vec<_>, _>>()
            .map_err(certificate_error)?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate(certificate.to_owned()));
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
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_single_cert(chain, secret)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Some(Self(TlsAcceptor::from(Arc::new(config)))))
    }

    pub(super) fn acceptor(&self) -> &TlsAcceptor {
        &self.0
    }
}
