//! What a fat binary holds: code for GPUs, each piece of it for one architecture.
//!
//! NVIDIA does not describe these files. What is read here is what nvcc 13.0 writes, and says the same
//! of it as `cuobjdump -lelf -lptx`.

use anyhow::{Context, Result, bail};
use std::{collections::BTreeSet, fmt};

const MAGIC: u32 = 0xba55_ed50;

/// The architectures for which there is code: 90 is compute capability 9.0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub machine: BTreeSet<u32>,
    /// PTX, which the driver compiles for these GPUs and all later ones.
    pub text: BTreeSet<u32>,
}

impl Contents {
    /// Reads a file of one or more fat binaries.
    pub fn of(file: &[u8]) -> Result<Self> {
        let mut found = Self::default();
        let mut rest = file;
        while !rest.is_empty() {
            rest = found.add(rest).context(
                "the code for GPUs is not laid out as nvcc 13.0 does it; `cuobjdump -lelf` may know",
            )?;
        }
        Ok(found)
    }

    /// Adds the contents of the first fat binary in `bytes`; what is behind it is left.
    fn add<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8]> {
        if number::<4>(bytes, 0)? != u64::from(MAGIC) || number::<2>(bytes, 4)? != 1 {
            bail!("no beginning of a fat binary");
        }
        let (header, size) = (number::<2>(bytes, 6)?, number::<8>(bytes, 8)?);
        let (_, rest) = split(bytes, header)?;
        let (mut pieces, rest) = split(rest, size)?;
        while !pieces.is_empty() {
            let architecture = u32::try_from(number::<4>(pieces, 28)?)?;
            match number::<2>(pieces, 0)? {
                1 => self.text.insert(architecture),
                2 => self.machine.insert(architecture),
                kind => bail!("a piece of the unknown kind {kind}"),
            };
            let (header, size) = (number::<4>(pieces, 4)?, number::<8>(pieces, 8)?);
            let length = header.checked_add(size).filter(|length| *length > 0);
            (_, pieces) = split(pieces, length.context("a piece without an end")?)?;
        }
        Ok(rest)
    }
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |prefix: &str, numbers: &BTreeSet<u32>| {
            let names: Vec<_> = numbers.iter().map(|n| format!("{prefix}_{n}")).collect();
            match names.is_empty() {
                true => "no GPU".to_owned(),
                false => names.join(", "),
            }
        };
        let (machine, text) = (list("sm", &self.machine), list("compute", &self.text));
        write!(f, "machine code for {machine}; PTX for {text}")
    }
}

/// The unsigned number of `N` bytes at a place.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Result<u64> {
    let part = bytes.get(at..at + N).context("it ends too early")?;
    Ok(part
        .iter()
        .rev()
        .fold(0, |n, byte| n << 8 | u64::from(*byte)))
}

fn split(bytes: &[u8], at: u64) -> Result<(&[u8], &[u8])> {
    let parts = bytes.split_at_checked(usize::try_from(at)?);
    parts.context("it ends too early")
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A fat binary of pieces: what kind they are of, and for which architecture.
    pub fn fatbin(pieces: &[(u8, u8)]) -> Vec<u8> {
        let mut body = Vec::new();
        for &(kind, architecture) in pieces {
            let mut header = [0; 64];
            (header[0], header[4], header[8], header[28]) = (kind, 64, 8, architecture);
            body.extend(header);
            body.extend([kind; 8]);
        }
        let mut file = vec![0x50, 0xed, 0x55, 0xba, 1, 0, 16, 0];
        file.extend((body.len() as u64).to_le_bytes());
        file.extend(body);
        file
    }

    #[test]
    fn pieces_are_listed() {
        let file = fatbin(&[(2, 80), (1, 80), (2, 90), (2, 120)]);
        let contents = Contents::of(&file).unwrap();
        assert_eq!(
            contents.to_string(),
            "machine code for sm_80, sm_90, sm_120; PTX for compute_80"
        );
        // Several lie one behind the other.
        let two = [file, fatbin(&[(2, 121)])].concat();
        assert!(Contents::of(&two).unwrap().machine.contains(&121));
        assert_eq!(
            Contents::default().to_string(),
            "machine code for no GPU; PTX for no GPU"
        );
    }

    #[test]
    fn what_is_something_else_is_an_error() {
        let good = fatbin(&[(2, 80)]);
        let mut unknown = good.clone();
        unknown[16] = 9;
        let mut endless = good.clone();
        endless[16 + 4..16 + 16].fill(0);
        let mut huge = good.clone();
        huge[16 + 8..16 + 16].fill(0xff);
        for bad in [
            &good[..good.len() - 1],
            b"\x7fELF",
            &unknown,
            &endless,
            &huge,
        ] {
            let error = Contents::of(bad).unwrap_err().to_string();
            assert!(error.contains("cuobjdump"), "{error}");
        }
    }
}
