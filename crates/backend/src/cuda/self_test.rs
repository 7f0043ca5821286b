//! Whether a GPU computes what it should, before it is trusted with a page.

use super::Gpu;
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
        let mixed = self.convert(&mixed, DType::F32)?;

        let wanted: Vec<f32> = rows
            .chunks_exact(SIDE)
            .flat_map(|row| {
                let squares: f32 = row.iter().map(|v| v * v).sum();
                let scale = (squares / SIDE as f32 + 1e-6).sqrt().recip();
                (0..SIDE).map(move |i| row[(i + 1) % SIDE] * scale)
            })
            .collect();
        let same = |found: &Tensor, wanted: &[f32]| -> Result<bool> {
            let found = found
                .to_device(&Device::Cpu)?
                .flatten_all()?
                .to_vec1::<f32>()?;
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= TOLERANCE;
            Ok(found.len() == wanted.len() && found.iter().zip(wanted).all(near))
        };
        if !same(&product, &wanted)? || !same(&mixed, &rows[..SIDE].repeat(SIDE))? {
            let message = "it computes something else than it should";
            return Err(Error::Msg(message.into()).into());
        }
        Ok(())
    }
}
