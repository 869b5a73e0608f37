//! The reader role as it is configured: its name, and where its password comes from.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;

/// Name of the role where only `--postgres-listen` is given.
const DEFAULT_ROLE: &str = "plumecast_reader";

/// Name of the generated password's file in the data folder.
const PASSWORD_FILE: &str = "reader_password";

/// Bytes of randomness of a generated password.
const PASSWORD_BYTES: usize = 18;

/// What dashboards read with.
#[derive(Args, Clone, Debug, Default)]
pub struct Reader {
    /// Role that may read the views of the dashboards and nothing else; it is made, or brought up to date.
    #[arg(long = "reader-role", id = "reader-role", env = "PLUMECAST_READER_ROLE", value_name = "NAME")]
    pub role: Option<RoleName>,

    /// File whose first line is the password of that role.
    #[arg(
        long = "reader-password-file",
        id = "reader-password-file",
        env = "PLUMECAST_READER_PASSWORD_FILE",
        value_name = "FILE",
        conflicts_with = "reader-password"
    )]
    pub password_file: Option<PathBuf>,

    /// Password of that role; everybody on the machine can see flags, so prefer the variable or the file.
    #[arg(
        long = "reader-password",
        id = "reader-password",
        env = "PLUMECAST_READER_PASSWORD",
        value_name = "PASSWORD",
        hide_env_values = true
    )]
    pub password: Option<Secret>,
}

impl Reader {
    /// The role to make, if any; one that listens needs one.
    #[must_use]
    pub fn role(&self, listens: bool) -> Option<RoleName> {
        self.role.clone().or_else(|| listens.then(|| RoleName(DEFAULT_ROLE.to_owned())))
    }

    /// The password that was given, if any.
    ///
    /// # Errors
    /// When its file cannot be read, or holds none.
    pub fn given_password(&self) -> Result<Option<Secret>, Error> {
        match (&self.password, &self.password_file) {
            (Some(password), _) => Ok(Some(password.clone())),
            (None, Some(path)) => read_password(path).map(Some),
            (None, None) => Ok(None),
        }
    }
}

/// The password of the data folder, made at the first call, and the file that only its owner can read.
///
/// # Errors
/// When the file can be neither read nor written.
pub fn generated_password(data_dir: &Path) -> Result<(Secret, PathBuf), Error> {
    let path = data_dir.join(PASSWORD_FILE);
    let make = || -> io::Result<()> {
        let mut random = [0; PASSWORD_BYTES];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        let text = hex::encode(random);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        writeln!(file, "{text}")?;
        file.sync_all()
    };
    match make() {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(Error::Write { path, source: error }),
        _ => Ok((read_password(&path)?, path)),
    }
}

fn read_password(path: &Path) -> Result<Secret, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Secret(line.to_owned())),
        _ => Err(Error::Empty { path: path.to_owned() }),
    }
}

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the password of the reader role from {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file's first line is empty.
    #[error("{} holds no password in its first line", .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be made.
    #[error("cannot write a password for the reader role to {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Name of a role: letters, digits, `_` and `-`, so that it means the same in SQL and in the server's own files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleName(String);

impl RoleName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RoleName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        if name.is_empty() || name.len() > 63 || !is_plain {
            return Err("must be 1 to 63 letters, digits, `_` or `-`".to_owned());
        }
        if name.starts_with("pg_") || name == "public" || name == "none" {
            return Err("is a name that Postgres keeps for itself".to_owned());
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A password, which never appears in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The password itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("must not be empty".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_role_name_means_the_same_everywhere() {
        for name in ["grafana", "Grafana_9", "a-b", &"x".repeat(63)] {
            assert_eq!(name.parse::<RoleName>().map(|role| role.0), Ok(name.to_owned()));
        }
        for name in ["", "a b", "a\"b", "a\nhost", "größe", "pg_read_all_data", "public", &"x".repeat(64)] {
            assert!(name.parse::<RoleName>().is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_generated_password_stays_and_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let (first, path) = generated_password(folder.path()).expect("it is made");
        assert_eq!(first.expose().len(), 2 * PASSWORD_BYTES);
        assert_eq!(fs::metadata(&path).expect("it is there").mode() & 0o777, 0o600);
        assert_eq!(generated_password(folder.path()).expect("it is read"), (first, path));

        let other = tempfile::tempdir().expect("a folder");
        let (second, path) = generated_password(other.path()).expect("it is made");
        assert_ne!(generated_password(folder.path()).expect("it is read").0, second);
        fs::write(&path, "\n").expect("it is written");
        assert!(matches!(generated_password(other.path()), Err(Error::Empty { .. })));
    }

    #[test]
    fn a_password_comes_from_a_file_or_as_it_is_and_is_not_printed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("password");
        fs::write(&path, "hush hush\n").expect("it is written");
        let from_file = Reader { password_file: Some(path), ..Reader::default() };
        let password = from_file.given_password().expect("it is read").expect("there is one");
        assert_eq!(password.expose(), "hush hush");
        assert!(!format!("{password:?}").contains("hush"));
        let absent = Reader { password_file: Some(folder.path().join("absent")), ..Reader::default() };
        assert!(matches!(absent.given_password(), Err(Error::Read { .. })));
    }
}
