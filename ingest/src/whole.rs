//! Files that are whole or not there.

use std::{fs, path::Path};

use crate::Error;

/// Writes a file under another name first, so that whoever finds it finds all of it. Of a failure nothing is left.
///
/// # Errors
/// [`Error::File`] when it cannot be written.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let unfinished = path.with_extension("unfinished");
    let written = fs::write(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, path));
    written.map_err(|source| {
        // It takes room on a disk that may be full, and nobody reads it.
        let _ = fs::remove_file(&unfinished);
        Error::File { path: path.to_owned(), source }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_or_not_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.txt");
        let n_names = || fs::read_dir(folder.path()).expect("a folder").count();
        write(&path, b"all").expect("written");
        assert_eq!((fs::read(&path).expect("a file"), n_names()), (b"all".to_vec(), 1));
        // What cannot be put in its place does not stay beside it.
        fs::remove_file(&path).expect("removed");
        fs::create_dir(&path).expect("a folder");
        assert!(matches!(write(&path, b"all"), Err(Error::File { .. })));
        assert_eq!(n_names(), 1);
    }
}
