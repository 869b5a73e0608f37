//! As which user the server runs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Uid, User, getegid, geteuid};

use super::Error;

/// The user that the server runs as and that its folders belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Account {
    pub uid: u32,
    pub gid: u32,
    /// We are root and hand over to this user.
    pub is_other: bool,
}

impl Account {
    /// Ourselves. As root, which PostgreSQL refuses: the owner of the server's folder, else of the data folder, else
    /// the user that PostgreSQL's packages make, else `nobody`.
    pub fn choose(folder: &Path, data_dir: &Path) -> Result<Self, Error> {
        let uid = geteuid();
        if !uid.is_root() {
            return Ok(Self { uid: uid.as_raw(), gid: getegid().as_raw(), is_other: false });
        }

        for owned in [folder, data_dir] {
            if let Some(owner) = ordinary_owner(owned) {
                return Ok(owner);
            }
        }
        for name in ["postgres", "nobody"] {
            if let Ok(Some(user)) = User::from_name(name) {
                return Ok(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw(), is_other: true });
            }
        }
        Err(Error::NoAccount { uid: uid.as_raw() })
    }

    /// Fails when the user has no name, without which `initdb` does not work.
    pub fn check_name(self) -> Result<(), Error> {
        match User::from_uid(Uid::from_raw(self.uid)) {
            Ok(Some(_)) => Ok(()),
            _ => Err(Error::NoAccount { uid: self.uid }),
        }
    }

    /// Fails when a user that we hand over to may not pass through a folder on the way to `path`.
    pub fn check_can_reach(self, path: &Path) -> Result<(), Error> {
        if !self.is_other {
            return Ok(());
        }
        for folder in path.ancestors().skip(1) {
            let metadata = fs::metadata(folder).map_err(|source| Error::io("look at", folder, source))?;
            let search_bit = if metadata.uid() == self.uid {
                0o100
            } else if metadata.gid() == self.gid {
                0o010
            } else {
                0o001
            };
            if metadata.mode() & search_bit == 0 {
                return Err(Error::NotSearchable { folder: folder.to_owned(), uid: self.uid });
            }
        }
        Ok(())
    }
}

fn ordinary_owner(folder: &Path) -> Option<Account> {
    let metadata = fs::metadata(folder).ok()?;
    let account = Account { uid: metadata.uid(), gid: metadata.gid(), is_other: true };
    (account.uid != 0 && account.check_name().is_ok()).then_some(account)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_without_a_name_is_refused() {
        let account = Account { uid: 4_000_000_001, gid: 4_000_000_001, is_other: true };
        assert!(matches!(account.check_name(), Err(Error::NoAccount { uid: 4_000_000_001 })));
    }

    #[test]
    fn a_closed_folder_on_the_way_is_named() {
        use std::os::unix::fs::PermissionsExt;

        let top = tempfile::tempdir().unwrap();
        let closed = top.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(top.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();

        let account = Account { uid: 4_000_000_001, gid: 4_000_000_001, is_other: true };
        assert!(account.check_can_reach(&closed).is_ok());
        match account.check_can_reach(&closed.join("inside")) {
            Err(Error::NotSearchable { folder, .. }) => assert_eq!(folder, closed),
            other => panic!("{other:?}"),
        }
    }
}
