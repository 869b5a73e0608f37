//! The files that a source names.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use glob::Pattern;

use crate::{Error, Input};

/// Folders below the one that is named.
const DEPTH_MAX: usize = 16;

/// The files of a source, sorted by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files(Vec<SourceFile>);

/// One file of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it is called: its path as the source names it.
    pub name: String,
    /// Columns by its place in a partitioned folder.
    pub labels: Vec<(String, String)>,
    /// Of a copy of an object: the version of the object. It is whole, and errors call it by its name.
    pub version: Option<String>,
}

impl Files {
    /// Finds them: `source` is a file, a folder (with all files below it) or a pattern, relative to `folder`. Names that
    /// begin with a point or an underscore, as of files that are being written, are passed over.
    ///
    /// With `stay_inside`, all must lie below `folder`, links followed.
    ///
    /// # Errors
    /// - [`Error::NoFiles`], [`Error::TooManyFiles`], [`Error::Pattern`]
    /// - [`Error::OutsideFolder`] when one lies outside
    /// - [`Error::File`] when a folder cannot be read
    pub fn find(source: &str, folder: &Path, stay_inside: bool, n_files_max: usize) -> Result<Self, Error> {
        let named = folder.join(source);
        if stay_inside && !leads_down(Path::new(source)) {
            return Err(Error::OutsideFolder { path: named });
        }
        let mut paths = Vec::new();
        if named.is_dir() {
            collect(&named, &mut paths, n_files_max, source, 0)?;
        } else if source.contains(['*', '?', '[']) {
            // What is special in a pattern may stand in the name of the folder.
            let pattern = Path::new(&Pattern::escape(&folder.to_string_lossy())).join(source);
            let pattern_error = |error: glob::PatternError| Error::Pattern {
                source_name: source.to_owned(),
                reason: error.to_string(),
            };
            for path in glob::glob(&pattern.to_string_lossy()).map_err(pattern_error)? {
                let path = path.map_err(|error| Error::File { path: error.path().to_owned(), source: error.into() })?;
                if path.is_file() && is_visible(&path) {
                    push(path, &mut paths, n_files_max, source)?;
                }
            }
        } else if named.exists() {
            paths.push(named.clone());
        } else {
            let source = io::Error::from(io::ErrorKind::NotFound);
            return Err(Error::File { path: named, source });
        }
        if paths.is_empty() {
            return Err(Error::NoFiles { source_name: source.to_owned() });
        }
        paths.sort();
        if stay_inside {
            let real =
                |path: &Path| fs::canonicalize(path).map_err(|source| Error::File { path: path.to_owned(), source });
            let root = real(folder)?;
            for path in &paths {
                if !real(path)?.starts_with(&root) {
                    return Err(Error::OutsideFolder { path: path.clone() });
                }
            }
        }
        let file = |path: PathBuf| {
            let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
            let labels = labels(path.strip_prefix(folder).unwrap_or(&path));
            SourceFile { path, name, labels, version: None }
        };
        Ok(Self(paths.into_iter().map(file).collect()))
    }

    /// A single file, called by its own name.
    pub fn one(path: &Path) -> Self {
        let name = Input::file(path).name;
        Self(vec![SourceFile { path: path.to_owned(), name, labels: Vec::new(), version: None }])
    }

    /// The files.
    pub fn iter(&self) -> impl Iterator<Item = &SourceFile> {
        self.0.iter()
    }
}

/// Whether a path leads down from where it begins, and nowhere else: it is relative and has no `.` or `..`.
pub fn leads_down(path: &Path) -> bool {
    path.components().all(|component| matches!(component, Component::Normal(_)))
}

fn is_visible(path: &Path) -> bool {
    path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with(['.', '_']))
}

fn collect(
    folder: &Path,
    paths: &mut Vec<PathBuf>,
    n_files_max: usize,
    source_name: &str,
    depth: usize,
) -> Result<(), Error> {
    let file_error = |source| Error::File { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(file_error)? {
        let path = entry.map_err(file_error)?.path();
        if !is_visible(&path) {
            continue;
        }
        if path.is_dir() {
            if depth < DEPTH_MAX {
                collect(&path, paths, n_files_max, source_name, depth + 1)?;
            }
        } else {
            push(path, paths, n_files_max, source_name)?;
        }
    }
    Ok(())
}

fn push(path: PathBuf, paths: &mut Vec<PathBuf>, limit: usize, source_name: &str) -> Result<(), Error> {
    if paths.len() == limit {
        return Err(Error::TooManyFiles { source_name: source_name.to_owned(), limit });
    }
    paths.push(path);
    Ok(())
}

/// The `key=value` folders of a path.
pub(super) fn labels(path: &Path) -> Vec<(String, String)> {
    let folders = path.parent().into_iter().flat_map(Path::components);
    let label = |component: Component<'_>| {
        let text = component.as_os_str().to_string_lossy().into_owned();
        let (key, value) = text.split_once('=')?;
        (!key.is_empty()).then(|| (key.to_owned(), value.to_owned()))
    };
    folders.filter_map(label).collect()
}
