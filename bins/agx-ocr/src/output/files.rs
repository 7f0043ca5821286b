//! Files beside the result: figures, and pages with their regions drawn.

use crate::failure::Failure;
use agx_ocr_pipeline::{Page, export};
use anyhow::Context;
use image::{ImageFormat, RgbImage};
use std::{
    fs,
    io::{self, Cursor, IsTerminal, Write},
    path::{Path, PathBuf},
};

/// Links the figures of the result's page `number` from its text, as [`write_figures`] will name
/// them.
pub fn link_figures(page: &mut Page, picture: &RgbImage, number: usize, dir: &Path) {
    let there: Vec<usize> = export::figures(page, picture)
        .map(|(index, _)| index)
        .collect();
    let link = |index| {
        let path = figure_path(dir, number, index);
        let there = there.contains(&index);
        there.then(|| path.to_string_lossy().into_owned())
    };
    page.text = export::markdown(page, link);
}

/// Cuts the figures of the result's page `number` into `dir`, and adds them to `written`.
pub fn write_figures(
    page: &Page,
    picture: &RgbImage,
    number: usize,
    dir: &Path,
    written: &mut Vec<PathBuf>,
) -> Result<(), Failure> {
    let about = || format!("cannot make the directory {}", dir.display());
    fs::create_dir_all(dir)
        .with_context(about)
        .map_err(Failure::failed)?;
    for (index, figure) in export::figures(page, picture) {
        write(&figure, figure_path(dir, number, index), written)?;
    }
    Ok(())
}

fn figure_path(dir: &Path, number: usize, index: usize) -> PathBuf {
    dir.join(format!("figure-{number}-{}.png", index + 1))
}

/// Writes the result's page `number` with its regions drawn over it, the first to `path` itself,
/// and adds the file to `written`.
pub fn write_overlay(
    page: &Page,
    mut picture: RgbImage,
    number: usize,
    path: &Path,
    written: &mut Vec<PathBuf>,
) -> Result<(), Failure> {
    export::overlay(&mut picture, &page.regions);
    write(&picture, numbered(path, number), written)
}

/// Takes away the files of a page that is not in the result.
pub fn remove(written: Vec<PathBuf>) {
    for path in written {
        // Somebody else may have done so.
        let _ = fs::remove_file(path);
    }
}

/// Whether the result goes to this file, pipe or terminal.
#[cfg(unix)]
pub fn is_stdout(path: &Path) -> bool {
    use std::os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt},
    };
    let stdout = io::stdout().as_fd().try_clone_to_owned();
    let stdout = stdout.and_then(|stdout| fs::File::from(stdout).metadata());
    let (Ok(stdout), Ok(there)) = (stdout, fs::metadata(path)) else {
        return false;
    };
    // A device like /dev/null takes both.
    let holds = !stdout.file_type().is_char_device() || io::stdout().is_terminal();
    holds && (stdout.dev(), stdout.ino()) == (there.dev(), there.ino())
}

#[cfg(not(unix))]
pub fn is_stdout(_: &Path) -> bool {
    false
}

/// `a.png`, then `a-2.png`.
fn numbered(path: &Path, number: usize) -> PathBuf {
    if number == 1 {
        return path.to_owned();
    }
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{number}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// Writes all of a PNG or, if that fails, leaves what is there. Adds a file to `written`.
fn write(image: &RgbImage, path: PathBuf, written: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let write = || {
        let mut png = Cursor::new(Vec::new());
        image.write_to(&mut png, ImageFormat::Png)?;
        let png = png.into_inner();
        // A device or a pipe cannot be replaced.
        let special = fs::metadata(&path).is_ok_and(|there| !there.is_file());
        if special {
            fs::write(&path, png)?;
            return Ok(false);
        }
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let mut prefix = path.file_name().unwrap_or_default().to_owned();
        prefix.push(".");
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix);
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut beside = builder.tempfile_in(dir.unwrap_or(Path::new(".")))?;
        beside.write_all(&png)?;
        beside.persist(&path)?;
        Ok::<bool, anyhow::Error>(true)
    };
    let about = || format!("cannot write {}", path.display());
    if write().with_context(about).map_err(Failure::failed)? {
        written.push(path);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_replaced_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        let image = RgbImage::new(2, 2);
        let mut written = Vec::new();
        let mut write = |path: &Path| write(&image, path.to_owned(), &mut written);
        write(&path).unwrap();
        write(&path).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        // A directory in the place of the file.
        let taken = dir.path().join("taken");
        fs::create_dir(&taken).unwrap();
        assert!(write(&taken).is_err());
        assert!(taken.is_dir());
        assert!(write(&dir.path().join("none/a.png")).is_err());
        assert_eq!(written, [path.clone(), path]);
    }

    #[test]
    fn further_pages_are_numbered() {
        let name = |path: &str, number| numbered(Path::new(path), number);
        assert_eq!(name("a/b.png", 1), Path::new("a/b.png"));
        assert_eq!(name("a/b.png", 2), Path::new("a/b-2.png"));
        assert_eq!(name("b", 12), Path::new("b-12"));
    }
}
