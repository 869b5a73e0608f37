//! The private Postgres: a server of our own, started as a child process where no `DATABASE_URL` is given.
//!
//! It is the real engine, from the system's `initdb` and `postgres`, on a Unix socket in a folder that nobody else can
//! enter. TCP is closed, but for one role where that is asked for ([`Listen`]). The parts:
//!
//! - [`installation`] finds the binaries;
//! - [`account`] decides as which user the server runs, since it refuses to run as root;
//! - [`layout`] makes the folders: data, socket, log, lock;
//! - [`server`] makes the data folder, starts the server and stops it.
//!
//! # Who owns it
//!
//! Whoever holds the lock file starts the server and stops it at the end. A command that finds the lock held attaches
//! through the socket, and does neither. When the owner is gone, the next command takes over. The kernel releases the
//! lock however the owner dies; it also tells the server to stop then, which it does cleanly (see [`server`]).

mod account;
mod error;
mod installation;
mod layout;
mod server;

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{Connection, PgConnection};

pub use error::Error;
pub use layout::default_data_dir;

use crate::reader::RoleName;

use installation::Installation;
use layout::Layout;
use server::Server;

/// Name of the database and of its owner.
const NAME: &str = "plumecast";

/// Names the socket file where no port is opened.
const PORT: u16 = 5432;

/// How long a server may take to accept connections. Recovery after a power cut reads the whole log again.
const START_LIMIT: Duration = Duration::from_secs(300);

/// Pause between two looks at whether something has happened.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Where the private Postgres lives.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data folder of Plumecast; the server gets the folder `postgres` in it.
    pub data_dir: PathBuf,
    /// Folder of `initdb` and `postgres`; searched for when `None`.
    pub bin_dir: Option<PathBuf>,
    /// The data may be lost in a power cut. Faster; for tests.
    pub is_throwaway: bool,
    /// TCP for one role; none without it.
    pub listen: Option<Listen>,
}

/// An address at which one role may connect, with its password (SCRAM).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The address. Its port also names the socket file.
    pub address: SocketAddr,
    /// The role.
    pub role: RoleName,
}

/// Parses an address to listen at: programs must know its port.
///
/// # Errors
/// What is wrong, in words.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => Err("the port must not be 0".to_owned()),
        Ok(address) => Ok(address),
        Err(_) => Err("must be an IP address and a port, such as 127.0.0.1:5433".to_owned()),
    }
}

impl Config {
    /// A durable server in this data folder, from the binaries that are found.
    pub fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned(), bin_dir: None, is_throwaway: false, listen: None }
    }
}

/// A running private Postgres. Dropping it stops the server if this process started it.
#[derive(Debug)]
pub struct PrivatePostgres {
    socket_dir: PathBuf,
    /// Names the socket file.
    port: u16,
    /// The order of the fields matters: the server stops before the lock is released.
    server: Option<Server>,
    _lock: Option<File>,
}

impl PrivatePostgres {
    /// Starts the server, or attaches to it if another process has started it.
    ///
    /// Await it on the main thread, or on another that lives as long as the process: the kernel stops the server when
    /// the *thread* that started it ends. `#[tokio::main]` polls its function on the main thread; a spawned task may
    /// run anywhere.
    ///
    /// # Errors
    /// See [`Error`]; each says what to do.
    pub async fn start_or_attach(config: &Config) -> Result<Self, Error> {
        let layout = Layout::prepare(&config.data_dir)?;
        let lock = layout.open_lock()?;
        let started = Instant::now();

        loop {
            match lock.try_lock() {
                Ok(()) => return Self::start(config, &layout, lock).await,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(source)) => return Err(Error::io("lock", &layout.lock, source)),
            }

            // Somebody else owns the server. It may be about to start or to stop, so look at the lock again, too.
            let port = server::running_port(&layout).unwrap_or(PORT);
            let attached = Self { socket_dir: layout.socket_dir.clone(), port, server: None, _lock: None };
            match PgConnection::connect_with(&attached.connect_options()).await {
                Ok(connection) => {
                    if let Some(listen) = &config.listen {
                        check_listens(connection, listen).await?;
                    }
                    return Ok(attached);
                }
                Err(source) if started.elapsed() > START_LIMIT => {
                    return Err(Error::NotReady {
                        seconds: START_LIMIT.as_secs(),
                        log_tail: layout.log_tail(),
                        source,
                    });
                }
                Err(_) => tokio::time::sleep(POLL_INTERVAL).await,
            }
        }
    }

    async fn start(config: &Config, layout: &Layout, lock: File) -> Result<Self, Error> {
        let installation = Installation::find(config.bin_dir.as_deref(), layout.data_version()?)?;
        server::stop_leftover(layout).await?;
        if layout.data_version()?.is_none() {
            server::initialise(&installation, layout, config.is_throwaway)?;
        }

        let server = Server::spawn(&installation, layout, config)?;
        let port = config.listen.as_ref().map_or(PORT, |listen| listen.address.port());
        let mut postgres =
            Self { socket_dir: layout.socket_dir.clone(), port, server: Some(server), _lock: Some(lock) };
        postgres.wait_until_ready(layout).await?;
        Ok(postgres)
    }

    /// Waits until the server accepts connections, and makes the database in a new one.
    async fn wait_until_ready(&mut self, layout: &Layout) -> Result<(), Error> {
        let maintenance = self.connect_options().database("postgres");
        let started = Instant::now();

        let mut connection = loop {
            if let Some(status) = self.server.as_mut().and_then(Server::exit_status) {
                return Err(Error::Exited { status, log_tail: layout.log_tail() });
            }
            match PgConnection::connect_with(&maintenance).await {
                Ok(connection) => break connection,
                Err(source) if started.elapsed() > START_LIMIT => {
                    return Err(Error::NotReady {
                        seconds: START_LIMIT.as_secs(),
                        log_tail: layout.log_tail(),
                        source,
                    });
                }
                Err(_) => tokio::time::sleep(POLL_INTERVAL).await,
            }
        };

        let exists: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
            .bind(NAME)
            .fetch_one(&mut connection)
            .await
            .map_err(Error::CreateDatabase)?;
        if !exists {
            sqlx::query("create database plumecast").execute(&mut connection).await.map_err(Error::CreateDatabase)?;
        }
        let _ = connection.close().await;
        Ok(())
    }

    /// How to connect.
    pub fn connect_options(&self) -> PgConnectOptions {
        // Everything is set, since what is not would come from the environment (PGUSER, PGSSLMODE, …).
        PgConnectOptions::new_without_pgpass()
            .socket(&self.socket_dir)
            .port(self.port)
            .username(NAME)
            .database(NAME)
            .ssl_mode(PgSslMode::Disable)
    }

    /// How to connect, as a URL that `psql` and other programs understand too.
    pub fn url(&self) -> String {
        format!("postgres:///{NAME}?host={}&port={}&user={NAME}", percent_encode(&self.socket_dir), self.port)
    }

    /// Whether this process started the server and will stop it.
    pub fn is_owner(&self) -> bool {
        self.server.is_some()
    }

    /// Stops the server if this process started it, and waits until it has written everything. The same as dropping.
    pub fn shutdown(self) {}
}

/// Fails when a server that another process has started does not listen where this one would.
async fn check_listens(mut connection: PgConnection, listen: &Listen) -> Result<(), Error> {
    let asked: Result<(String, String), _> =
        sqlx::query_as("select current_setting('listen_addresses'), current_setting('port')")
            .fetch_one(&mut connection)
            .await;
    let _ = connection.close().await;
    match asked {
        Ok((ip, port)) if ip == listen.address.ip().to_string() && port == listen.address.port().to_string() => Ok(()),
        _ => Err(Error::NotListening { address: listen.address }),
    }
}

/// Encodes what could mean something in a URL.
fn percent_encode(path: &Path) -> String {
    use std::fmt::Write;
    use std::os::unix::ffi::OsStrExt;

    let mut encoded = String::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                encoded.push(char::from(*byte))
            }
            _ => write!(encoded, "%{byte:02X}").expect("writing to a string succeeds"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_leads_to_the_socket_whatever_the_folder_is_called() {
        let socket_dir = PathBuf::from("/tmp/50% off & more?/Größe");
        let postgres = PrivatePostgres { socket_dir: socket_dir.clone(), port: 5433, server: None, _lock: None };
        let options: PgConnectOptions = postgres.url().parse().unwrap();
        assert_eq!(options.get_socket(), Some(&socket_dir));
        assert_eq!(options.get_port(), 5433);
        assert_eq!(options.get_username(), "plumecast");
        assert_eq!(options.get_database(), Some("plumecast"));
    }

    #[test]
    fn an_address_to_listen_at_has_a_port() {
        assert!(listen_address("127.0.0.1:5433").is_ok() && listen_address("[::1]:5433").is_ok());
        for wrong in ["127.0.0.1:0", "127.0.0.1", "localhost:5433", ""] {
            assert!(listen_address(wrong).is_err(), "{wrong}");
        }
    }
}
