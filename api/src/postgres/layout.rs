//! The folders of the private Postgres.
//!
//! ```text
//! DATA_DIR/postgres/        0700, of the user that the server runs as
//!     data/                 the server's data folder
//!     run/                  its socket (in /tmp where this path would be too long for one)
//!     access                who may connect from where, written anew at every start (pg_hba.conf)
//!     log                   what it says
//!     lock                  held by the process that has started it
//! ```

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::unistd::{User, geteuid};
use uuid::Uuid;

use super::account::Account;
use super::{Error, Listen, NAME};

/// Longest path of a socket, a limit of the kernel (`sun_path` has 108 bytes, the last of them 0).
const SOCKET_PATH_LENGTH_MAX: usize = 107;

/// A longer log is put aside at the next start.
const LOG_LENGTH_MAX: u64 = 10_000_000;

/// How much of the log is shown when something goes wrong.
const LOG_TAIL_LENGTH: i64 = 2_000;

/// The folders and files, and whose they are.
#[derive(Debug)]
pub(super) struct Layout {
    pub account: Account,
    pub data: PathBuf,
    pub socket_dir: PathBuf,
    pub access: PathBuf,
    pub log: PathBuf,
    pub lock: PathBuf,
}

impl Layout {
    /// Makes the folders that are missing.
    pub fn prepare(data_dir: &Path) -> Result<Self, Error> {
        make_folder(data_dir, 0o755)?;
        let data_dir = fs::canonicalize(data_dir).map_err(|source| Error::io("find", data_dir, source))?;

        let folder = data_dir.join("postgres");
        let account = Account::choose(&folder, &data_dir)?;
        account.check_can_reach(&folder)?;
        make_private_folder(&folder, account)?;
        let socket_dir = socket_dir(&folder);
        make_private_folder(&socket_dir, account)?;

        let [data, access, log, lock] = ["data", "access", "log", "lock"].map(|name| folder.join(name));
        Ok(Self { account, data, socket_dir, access, log, lock })
    }

    /// Writes who may connect: through the socket whoever can enter its folder, by TCP the reader role with its password.
    pub fn write_access(&self, listen: Option<&Listen>) -> Result<(), Error> {
        let mut text = "local all all trust\n".to_owned();
        if let Some(Listen { role, .. }) = listen {
            text += &format!("host {NAME} \"{role}\" all scram-sha-256\n");
        }
        fs::write(&self.access, text).map_err(|source| Error::io("write", &self.access, source))?;
        give(&self.access, self.account)
    }

    /// Opens the lock file, without taking the lock.
    pub fn open_lock(&self) -> Result<File, Error> {
        self.open_for(&self.lock)
    }

    /// Opens the log at its end.
    pub fn open_log(&self) -> Result<File, Error> {
        if fs::metadata(&self.log).is_ok_and(|metadata| metadata.len() > LOG_LENGTH_MAX) {
            let aside = self.log.with_extension("old");
            fs::rename(&self.log, aside).map_err(|source| Error::io("put aside", &self.log, source))?;
        }
        self.open_for(&self.log)
    }

    fn open_for(&self, path: &Path) -> Result<File, Error> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(|source| Error::io("open", path, source))?;
        give(path, self.account)?;
        Ok(file)
    }

    /// The last lines of the log.
    pub fn log_tail(&self) -> String {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(&self.log)?;
            if file.metadata()?.len() > LOG_TAIL_LENGTH.unsigned_abs() {
                file.seek(SeekFrom::End(-LOG_TAIL_LENGTH))?;
            }
            let mut tail = Vec::new();
            file.read_to_end(&mut tail)?;
            Ok(tail)
        };
        match read() {
            Ok(tail) => String::from_utf8_lossy(&tail).trim_end().to_owned(),
            Err(error) => format!("(cannot read {}: {error})", self.log.display()),
        }
    }

    /// The data folder and the major version that made it; `None` when there is none yet.
    pub fn data_version(&self) -> Result<Option<(PathBuf, u32)>, Error> {
        let path = self.data.join("PG_VERSION");
        match fs::read_to_string(&path) {
            Ok(text) => match text.trim().parse() {
                Ok(version) => Ok(Some((self.data.clone(), version))),
                Err(_) => Err(Error::io("understand", &path, ErrorKind::InvalidData.into())),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::io("read", &path, source)),
        }
    }
}

/// `run` in the server's folder; where its path would be too long, a folder in `/tmp` that every process derives from
/// that path in the same way.
fn socket_dir(folder: &Path) -> PathBuf {
    let beside = folder.join("run");
    let socket = beside.join(format!(".s.PGSQL.{}", u16::MAX));
    if socket.as_os_str().len() <= SOCKET_PATH_LENGTH_MAX {
        return beside;
    }
    let name = Uuid::new_v5(&Uuid::NAMESPACE_URL, folder.as_os_str().as_bytes());
    Path::new("/tmp").join(format!("plumecast-{}", name.simple()))
}

fn make_folder(path: &Path, mode: u32) -> Result<(), Error> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| *parent != Path::new("")) {
        make_folder(parent, mode)?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        // The mode again, since the umask may have taken something away.
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(mode)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
    .map_err(|source| Error::io("make the folder", path, source))
}

/// A folder that belongs to the account and that nobody else can enter.
fn make_private_folder(path: &Path, account: Account) -> Result<(), Error> {
    make_folder(path, 0o700)?;
    let look = || fs::symlink_metadata(path).map_err(|source| Error::io("look at", path, source));
    if look()?.uid() == 0 {
        give(path, account)?;
    }

    // Somebody else may have made it before us.
    let metadata = look()?;
    if !metadata.is_dir() || metadata.uid() != account.uid || metadata.mode() & 0o077 != 0 {
        return Err(Error::UnsafeFolder { folder: path.to_owned(), uid: account.uid });
    }
    Ok(())
}

/// As root, gives a file or folder to the account that the server runs as.
fn give(path: &Path, account: Account) -> Result<(), Error> {
    if !account.is_other {
        return Ok(());
    }
    chown(path, Some(account.uid), Some(account.gid)).map_err(|source| Error::io("change the owner of", path, source))
}

/// The data folder where none is chosen: the user's, by the rules of the desktop. As root it is below `/var/lib`, since
/// the server does not run as root and could not enter root's home.
pub fn default_data_dir() -> PathBuf {
    if geteuid().is_root() {
        return PathBuf::from("/var/lib/plumecast");
    }
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || absolute("HOME").or_else(|| User::from_uid(geteuid()).ok().flatten().map(|user| user.dir));
    let base = absolute("XDG_DATA_HOME").or_else(|| Some(home()?.join(".local/share")));
    match base {
        Some(base) => base.join("plumecast"),
        // A user without a home keeps the data at least until somebody cleans up.
        None => PathBuf::from(format!("/var/tmp/plumecast-{}", geteuid())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_lies_beside_the_data_unless_its_path_would_be_too_long() {
        let short = Path::new("/var/lib/plumecast/postgres");
        assert_eq!(socket_dir(short), short.join("run"));

        let long = Path::new("/").join("x".repeat(100));
        let elsewhere = socket_dir(&long);
        assert!(elsewhere.starts_with("/tmp"));
        assert_eq!(elsewhere, socket_dir(&long));
        assert_ne!(elsewhere, socket_dir(&long.join("y")));
    }

    #[test]
    fn a_folder_that_others_can_enter_is_refused() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("run");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();

        let account = Account { uid: geteuid().as_raw(), gid: 0, is_other: false };
        assert!(matches!(make_private_folder(&path, account), Err(Error::UnsafeFolder { .. })));
    }
}
