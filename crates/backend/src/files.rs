//! The files of a model: regular files that lie in its directory.

use crate::{Error, Result};
use std::{
    fs::{self, File, FileType},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// The directory of a model, whose files are found by their names.
///
/// A file may be a symbolic link as long as it leads to a place in the directory itself; a model
/// that somebody else made shall not choose what else is read. One layout is an exception, for it
/// is how Hugging Face's tools keep what they download: a file in `snapshots/<revision>` may lead
/// into the directory `blobs` beside `snapshots`.
///
/// Only regular files are opened: reading a pipe or a device could wait for ever.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    /// As it was given, for messages.
    dir: PathBuf,
    /// Where links may lead.
    inside: Vec<PathBuf>,
}

impl ModelFiles {
    /// The files in `dir`, which may itself be a link to a directory.
    ///
    /// # Errors
    /// [`Error::Open`] when there is no such directory.
    pub fn new(dir: &Path) -> Result<Self> {
        let real = fs::canonicalize(dir).map_err(|e| Error::open(dir, e))?;
        let mut inside = Vec::from_iter(blobs(&real));
        inside.push(real);
        Ok(Self {
            dir: dir.to_owned(),
            inside,
        })
    }

    /// The directory, as it was given.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the file `name` lies, with its link followed; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::BrokenLink`], [`Error::OutsideLink`], [`Error::NotAFile`] or [`Error::Open`].
    pub fn find(&self, name: impl AsRef<Path>) -> Result<Option<PathBuf>> {
        let path = self.dir.join(name);
        let found = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::open(&path, error)),
            Ok(found) => found,
        };
        if !found.is_symlink() {
            regular(&path, found.file_type())?;
            return Ok(Some(path));
        }
        let real = follow(&path)?;
        if !self.inside.iter().any(|place| real.starts_with(place)) {
            return Err(Error::OutsideLink {
                link: path,
                target: real,
            });
        }
        let found = fs::metadata(&real).map_err(|e| Error::open(&path, e))?;
        regular(&path, found.file_type())?;
        Ok(Some(real))
    }

    /// The content of the file `name`, of at most `most` bytes; `None` when there is none.
    ///
    /// # Errors
    /// As [`Self::find`]; [`Error::TooLarge`].
    pub fn read(&self, name: impl AsRef<Path>, most: u64) -> Result<Option<Vec<u8>>> {
        let path = self.dir.join(&name);
        let Some(real) = self.find(name)? else {
            return Ok(None);
        };
        let file = File::open(real).map_err(|e| Error::open(&path, e))?;
        let size = file.metadata().map_err(|e| Error::open(&path, e))?.len();
        let mut bytes = Vec::new();
        if size <= most {
            // It may grow meanwhile.
            let read = file.take(most + 1).read_to_end(&mut bytes);
            read.map_err(|e| Error::open(&path, e))?;
        }
        let size = size.max(bytes.len() as u64);
        if size > most {
            return Err(Error::TooLarge { path, size, most });
        }
        Ok(Some(bytes))
    }
}

/// Where the file at `path` lies, which the caller has named: its link, if it is one, may lead
/// anywhere.
pub(crate) fn named(path: &Path) -> Result<PathBuf> {
    let real = if path.is_symlink() {
        follow(path)?
    } else {
        path.to_owned()
    };
    let found = fs::metadata(&real).map_err(|e| Error::open(path, e))?;
    regular(path, found.file_type())?;
    Ok(real)
}

/// The end of a chain of links.
fn follow(link: &Path) -> Result<PathBuf> {
    fs::canonicalize(link).map_err(|source| Error::BrokenLink {
        target: fs::read_link(link).unwrap_or_default(),
        link: link.to_owned(),
        source,
    })
}

fn regular(path: &Path, kind: FileType) -> Result<()> {
    if kind.is_file() {
        return Ok(());
    }
    Err(Error::NotAFile {
        path: path.to_owned(),
        what: if kind.is_dir() {
            "a directory"
        } else {
            "a pipe, a socket or a device"
        },
    })
}

/// The directory into which the files of a snapshot lead, where `dir` is one or lies in one.
fn blobs(dir: &Path) -> Option<PathBuf> {
    let mut above = dir.ancestors().skip(1);
    let snapshots = above.find(|dir| dir.file_name().is_some_and(|name| name == "snapshots"))?;
    Some(snapshots.parent()?.join("blobs"))
}
