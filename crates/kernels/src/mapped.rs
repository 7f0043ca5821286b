//! Read-only file mappings.

use half::bf16;
use std::{fs::File, io, ops::Range, path::Path};

/// A file mapped into memory: its pages are read when they are first used, and shared with the
/// system's cache.
#[derive(Debug)]
pub struct MappedFile {
    map: memmap2::Mmap,
}

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// The file must not be truncated while it is mapped: reading a page that is gone ends the
    /// process, as with every program that maps its data.
    ///
    /// # Errors
    /// What opening or mapping gave.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the mapping is read-only and private to this value; that nobody shortens the
        // file meanwhile is the documented condition.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        // Gigabytes in small pages cost a fifth of a second to map. A system that has no large
        // ones says so, and nothing is lost.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self { map })
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The bytes of `range` as bf16 values; `None` when the range leaves the file, is odd in
    /// length, or is not aligned to two bytes.
    pub fn bf16(&self, range: Range<usize>) -> Option<&[bf16]> {
        bytemuck::try_cast_slice(self.map.get(range)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_aligned_ranges_inside_the_file_only() {
        let path = std::env::temp_dir().join(format!("agx-ocr-mapped-{}", std::process::id()));
        std::fs::write(&path, [0x80, 0x3f, 0x00, 0x40, 0xff]).unwrap();
        let map = MappedFile::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let values = [bf16::from_f32(1.0), bf16::from_f32(2.0)];
        assert_eq!(map.bf16(0..4), Some(&values[..]));
        assert_eq!(map.bf16(1..3), None, "not aligned");
        assert_eq!(map.bf16(2..5), None, "odd length");
        assert_eq!(map.bf16(4..6), None, "past the end");
        assert_eq!(map.bytes().len(), 5);
    }
}
