//! Whether a GPU computes what it should, before it is trusted with a page.

use super::Gpu;
#[cfg(feature = "flash-attn")]
use crate::RelativePositions;
use crate::Result;
use candle_core::{DType, Device, Error, Tensor};

/// Rows and columns of what is computed.
const SIDE: usize = 64;
/// The largest difference, as bf16 rounds.
const TOLERANCE: f32 = 0.02;

impl Gpu {
    /// A norm of rows, a product with a matrix that shifts columns, and attention whose values are
    /// all alike: wrong code, or none, gives something else.
    pub(super) fn self_test(&self) -> Result<()> {
        let number = |i: usize| ((i * 37 + 11) % 101) as f32 / 101.0 - 0.5;
        let rows: Vec<f32> = (0..SIDE * SIDE).map(number).collect();
        let x = Tensor::from_vec(rows.clone(), (SIDE, SIDE), &self.device())?;
        let ones = Tensor::from_vec(vec![1_f32; SIDE], SIDE, &self.device())?;
        let ones = self.convert(&ones, self.dtype())?;
        let normed = self.rms_norm(&x, (&ones, 1e-6), self.dtype())?;
        let mut shift = vec![0_f32; SIDE * SIDE];
        for row in 0..SIDE {
            shift[row * SIDE + (row + 1) % SIDE] = 1.0;
        }
        let shift = Tensor::from_vec(shift, (SIDE, SIDE), &self.device())?;
        let shift = self.convert(&shift, self.dtype())?;
        let product = self.product(&normed, &shift, None, DType::F32)?;

        // One head whose queries, keys and values are the rows' own: of equal rows the mean is one.
        let alike = Tensor::from_vec(
            rows[..SIDE].repeat(3 * SIDE),
            (1, SIDE, 3 * SIDE),
            &self.device(),
        )?;
        let mixed = self.attention(&alike, 1, &[1, SIDE, SIDE], None)?;

        let wanted: Vec<f32> = rows
            .chunks_exact(SIDE)
            .flat_map(|row| {
                let squares: f32 = row.iter().map(|v| v * v).sum();
                let scale = (squares / SIDE as f32 + 1e-6).sqrt().recip();
                (0..SIDE).map(move |i| row[(i + 1) % SIDE] * scale)
            })
            .collect();
        same("products", &product, &wanted)?;
        same("attention results", &mixed, &rows[..SIDE].repeat(SIDE))?;
        #[cfg(feature = "flash-attn")]
        self.test_flash_attn()?;
        Ok(())
    }

    /// Each of flash-attn's kernels that is used here: they are machine code for one architecture, and
    /// where the GPU is another their results are whatever was in memory, without an error.
    #[cfg(feature = "flash-attn")]
    fn test_flash_attn(&self) -> Result<()> {
        // Equal rows, other ones each time: what an earlier kernel left is not right.
        let rows = |count: usize, width: usize, seed: usize| -> Result<(Tensor, Vec<f32>)> {
            let number = |i: usize| ((i * 29 + seed * 13) % 97) as f32 / 97.0 - 0.5;
            let row: Vec<f32> = (0..width).map(number).collect();
            let all = Tensor::from_vec(row.repeat(count), (count, width), &self.device())?;
            Ok((self.convert(&all, self.dtype())?, row))
        };
        // One for each width of heads: those of windows, and of the grids of views.
        for side in [14, 32, 40, 64, 80] {
            let positions = side * side;
            let (alike, row) = rows(3 * positions, SIDE, side)?;
            let table = self.zeros((2 * side - 1, SIDE), self.dtype())?;
            let relative = RelativePositions::new(table.clone(), table)?;
            let qkv = alike.reshape((1, side, side, 3 * SIDE))?;
            let mixed = self.attention(&qkv, 1, &[1, side, side, SIDE], Some(&relative))?;
            same("attention results", &mixed, &row.repeat(positions))?;
        }
        for width in [64, 128] {
            let (alike, row) = rows(SIDE, width, width)?;
            let cache = alike.unsqueeze(0)?;
            if let Some(mixed) = self.flash_prompt(&alike, [&cache, &cache], 0)? {
                same("attention results", &mixed, &row.repeat(SIDE))?;
            }
        }
        Ok(())
    }
}

/// An error unless a result is what it should be.
fn same(what: &str, found: &Tensor, wanted: &[f32]) -> Result<()> {
    let found = found.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
    let found = found.flatten_all()?.to_vec1::<f32>()?;
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= TOLERANCE;
    if found.len() != wanted.len() || !found.iter().zip(wanted).all(near) {
        let message = format!("its {what} are not what they should be");
        return Err(Error::Msg(message).into());
    }
    Ok(())
}
