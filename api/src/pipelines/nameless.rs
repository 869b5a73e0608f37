//! Files without a name: only this process can open them, and they are gone when it has closed them, however it ends.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// A new file whose name is taken away at once.
///
/// # Errors
/// When there is no room for it, or the folder cannot be written to.
pub(super) fn create(folder: &Path) -> io::Result<File> {
    fs::create_dir_all(folder)?;
    let path = folder.join(Uuid::now_v7().to_string());
    let file = OpenOptions::new().create_new(true).read(true).write(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// Where it can be opened again while it is open.
pub(super) fn path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
