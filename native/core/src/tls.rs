//! TLS of either side with rustls.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use once_cell::sync::OnceCell;
use tokio::time::timeout;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error as RustlsError, RootCertStore, ServerConfig,
    SignatureScheme, SupportedProtocolVersion, version,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::error::{Error, TlsError};
use crate::options::{Identity, Tls};
use crate::stream::Stream;

const BAD_FILE: Error = Error::Tls(TlsError::BadFile);

/// A listener's side, made once for all of its connections.
#[derive(Clone)]
pub struct Acceptor(TlsAcceptor);

impl Acceptor {
    /// Reads the files and makes the configuration.
    ///
    /// # Errors
    /// [`TlsError::BadFile`].
    pub fn new(options: &Tls) -> Result<Self, Error> {
        Self::with_protocols(options, &[])
    }

    /// The same with the protocols to agree on by ALPN, the preferred first.
    ///
    /// # Errors
    /// [`TlsError::BadFile`].
    pub fn with_protocols(options: &Tls, protocols: &[&[u8]]) -> Result<Self, Error> {
        let identity = options.identity.as_ref().ok_or(BAD_FILE)?;
        let (chain, key) = read_identity(identity)?;
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions(options))
            .map_err(|e| Error::Tls(TlsError::from(&e)))?;
        let builder = if options.verify {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots(options)?, provider())
                .build()
                .map_err(|_| BAD_FILE)?;
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|_| BAD_FILE)?;
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    pub(crate) async fn accept(
        &self,
        stream: Stream,
        limit: std::time::Duration,
    ) -> Result<TlsStream<Stream>, Error> {
        match timeout(limit, self.0.accept(stream)).await {
            Ok(result) => Ok(TlsStream::from(result?)),
            Err(_) => Err(Error::Tls(TlsError::Timeout)),
        }
    }
}

/// The client's handshake. Reads the files named in the options, off the async threads.
pub(crate) async fn connect(
    stream: Stream,
    options: &Tls,
    host: Option<String>,
    limit: std::time::Duration,
) -> Result<TlsStream<Stream>, Error> {
    let tls = options.clone();
    let connector = tokio::task::spawn_blocking(move || Connector::new(&tls, host, &[]));
    let connector = connector.await.map_err(|_| Error::Panic)??;
    connector.connect(stream, limit).await
}

/// A client's side, made once for all connections to the same host.
pub(crate) struct Connector {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Connector {
    /// Reads the files and makes the configuration. The protocols are those to offer by ALPN.
    pub(crate) fn new(
        options: &Tls,
        host: Option<String>,
        protocols: &[&[u8]],
    ) -> Result<Self, Error> {
        let name = match options.server_name.clone().or(host) {
            Some(name) => ServerName::try_from(name),
            // A Unix-domain socket has no name to check; without verification none is needed.
            None if options.verify => return Err(Error::Tls(TlsError::HostnameMismatch)),
            None => ServerName::try_from("localhost".to_owned()),
        };
        let mut config = client_config(options)?;
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            name: name.map_err(|_| Error::Tls(TlsError::HostnameMismatch))?,
        })
    }

    pub(crate) async fn connect(
        &self,
        stream: Stream,
        limit: std::time::Duration,
    ) -> Result<TlsStream<Stream>, Error> {
        let handshake = self.connector.connect(self.name.clone(), stream);
        match timeout(limit, handshake).await {
            Ok(result) => Ok(TlsStream::from(result?)),
            Err(_) => Err(Error::Tls(TlsError::Timeout)),
        }
    }
}

fn client_config(options: &Tls) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(options))
        .map_err(|e| Error::Tls(TlsError::from(&e)))?;
    let builder = if options.verify {
        builder.with_root_certificates(roots(options)?)
    } else {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider())))
    };
    let config = match &options.identity {
        Some(identity) => {
            let (chain, key) = read_identity(identity)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|_| BAD_FILE)?
        }
        None => builder.with_no_client_auth(),
    };
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceCell<Arc<CryptoProvider>> = OnceCell::new();
    PROVIDER
        .get_or_init(|| Arc::new(ring::default_provider()))
        .clone()
}

fn versions(options: &Tls) -> &'static [&'static SupportedProtocolVersion] {
    static ONLY_TLS13: &[&SupportedProtocolVersion] = &[&version::TLS13];
    static FROM_TLS12: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
    if options.only_tls13 {
        ONLY_TLS13
    } else {
        FROM_TLS12
    }
}

fn roots(options: &Tls) -> Result<Arc<RootCertStore>, Error> {
    static SYSTEM: OnceCell<Arc<RootCertStore>> = OnceCell::new();
    match &options.ca_file {
        Some(file) => {
            let mut store = RootCertStore::empty();
            for certificate in read_chain(file)? {
                store.add(certificate).map_err(|_| BAD_FILE)?;
            }
            Ok(Arc::new(store))
        }
        None => SYSTEM.get_or_try_init(system_roots).cloned(),
    }
}

fn system_roots() -> Result<Arc<RootCertStore>, Error> {
    let mut store = RootCertStore::empty();
    // Some systems carry roots that no longer parse; the others count.
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() {
        Err(BAD_FILE)
    } else {
        Ok(Arc::new(store))
    }
}

fn read_identity(
    identity: &Identity,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
    let key = fs::read(&identity.key_file).map_err(|_| BAD_FILE)?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| BAD_FILE)?;
    Ok((read_chain(&identity.cert_file)?, key))
}

fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = fs::read(file).map_err(|_| BAD_FILE)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|_| BAD_FILE)?;
    if chain.is_empty() {
        Err(BAD_FILE)
    } else {
        Ok(chain)
    }
}

/// `verify => none`: any certificate will do, but the peer must hold its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        tokio_rustls::rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        tokio_rustls::rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
