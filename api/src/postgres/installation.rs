//! Finds PostgreSQL on this machine.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Error;

/// The oldest major version that the schema works with.
pub(super) const OLDEST_VERSION: u32 = 15;

/// A folder with `initdb` and `postgres`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Installation {
    bin_dir: PathBuf,
    version: u32,
}

impl Installation {
    /// The installation to use: the one in `bin_dir` if given, else the first in PATH, else the newest in the
    /// distribution's folders. Where a data folder exists (`stored`: its version), only its version will do.
    pub fn find(bin_dir: Option<&Path>, stored: Option<(PathBuf, u32)>) -> Result<Self, Error> {
        let candidates = match bin_dir {
            Some(bin_dir) => vec![bin_dir.to_owned()],
            None => search_path().chain(distribution_folders()).collect(),
        };
        let installed: Vec<Self> = candidates.into_iter().filter_map(Self::inspect).collect();
        if installed.is_empty() {
            return Err(Error::NotInstalled);
        }

        let suits = |installation: &&Self| stored.as_ref().is_none_or(|(_, version)| *version == installation.version);
        match (installed.iter().find(suits), &stored) {
            (Some(installation), _) => Ok(installation.clone()),
            (None, None) => Err(Error::NotInstalled),
            (None, Some((data, version))) => {
                let mut versions: Vec<u32> = installed.iter().map(|i| i.version).collect();
                versions.sort_unstable();
                versions.dedup();
                Err(Error::OtherVersion { data: data.clone(), stored: *version, installed: versions })
            }
        }
    }

    /// The installation in a folder, if there is one that is new enough.
    fn inspect(bin_dir: PathBuf) -> Option<Self> {
        if !bin_dir.join("initdb").is_file() {
            return None;
        }
        let output = Command::new(bin_dir.join("postgres")).arg("--version").output().ok()?;
        let version = parse_version(&String::from_utf8_lossy(&output.stdout))?;
        (version >= OLDEST_VERSION).then_some(Self { bin_dir, version })
    }

    /// A program of this installation.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin_dir.join(name)
    }
}

fn search_path() -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).filter(|folder| folder.is_absolute()).collect::<Vec<_>>().into_iter()
}

/// Folders of Debian and of PostgreSQL's own packages for Fedora, the newest version first.
fn distribution_folders() -> impl Iterator<Item = PathBuf> {
    let debian = versions_in(Path::new("/usr/lib/postgresql"), "");
    let fedora = versions_in(Path::new("/usr"), "pgsql-");
    let mut found: Vec<(u32, PathBuf)> = debian.chain(fedora).collect();
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.into_iter().map(|(_, folder)| folder.join("bin"))
}

fn versions_in(folder: &Path, prefix: &'static str) -> impl Iterator<Item = (u32, PathBuf)> {
    fs::read_dir(folder).into_iter().flatten().flatten().filter_map(move |entry| {
        let version = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
        Some((version, entry.path()))
    })
}

/// The major version in `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn parse_version(text: &str) -> Option<u32> {
    let version = text.split_once("(PostgreSQL) ")?.1;
    let digits = version.find(|c: char| !c.is_ascii_digit()).map_or(version, |end| &version[..end]);
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_every_kind_of_build() {
        for (text, expected) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some(15)),
            ("postgres (PostgreSQL) 18beta1\n", Some(18)),
            ("postgres (PostgreSQL) 17\n", Some(17)),
            ("something else\n", None),
            ("", None),
        ] {
            assert_eq!(parse_version(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_folder_without_both_programs_is_no_installation() {
        let result = Installation::find(Some(Path::new("/nowhere")), None);
        assert!(matches!(result, Err(Error::NotInstalled)));
    }

    #[test]
    fn a_data_folder_of_another_version_is_refused() {
        let stored = (PathBuf::from("/data"), 9);
        match Installation::find(None, Some(stored)) {
            Err(Error::OtherVersion { stored: 9, installed, .. }) => assert!(!installed.is_empty()),
            other => panic!("{other:?}"),
        }
    }
}
