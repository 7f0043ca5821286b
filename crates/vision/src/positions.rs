//! Learned positions, stored for one grid and interpolated to others as PyTorch does.

use crate::{Result, resize::keys_f32};
use agx_ocr_backend::{RelativePositions, Weight};
use candle_core::{Device, Tensor};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// Tables by the side of their grid, made once for each side that is asked for.
#[derive(Debug)]
struct ByGrid<T>(Mutex<BTreeMap<usize, T>>);

impl<T: Clone> ByGrid<T> {
    fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    fn get(&self, grid: usize, make: impl FnOnce() -> Result<T>) -> Result<T> {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = tables.get(&grid) {
            return Ok(table.clone());
        }
        let table = make()?;
        tables.insert(grid, table.clone());
        Ok(table)
    }
}

/// A vector added to each position of a square grid, after `leading` positions outside of it.
#[derive(Debug)]
pub(crate) struct AbsolutePositions {
    table: Weight,
    leading: usize,
    grid: usize,
    device: Device,
    tables: ByGrid<Tensor>,
}

impl AbsolutePositions {
    /// `table` holds `leading + grid²` rows.
    pub(crate) fn new(table: Weight, leading: usize, grid: usize, device: &Device) -> Self {
        Self {
            table,
            leading,
            grid,
            device: device.clone(),
            tables: ByGrid::new(),
        }
    }

    /// `[leading + grid², size]` for a grid of the given side.
    pub(crate) fn at(&self, grid: usize) -> Result<Tensor> {
        self.tables.get(grid, || {
            let size = self.table.shape().last().copied().unwrap_or(1);
            let values = self.table.to_f32();
            let (leading, stored) = values.split_at(self.leading * size);
            let mut rows = leading.to_vec();
            if grid == self.grid {
                rows.extend(stored);
            } else {
                rows.extend(bicubic(stored, self.grid, grid, size));
            }
            Ok(Tensor::from_vec(
                rows,
                (self.leading + grid * grid, size),
                &self.device,
            )?)
        })
    }
}

/// Decomposed relative positions of one attention.
#[derive(Debug)]
pub(crate) struct RelativeTables {
    height: Weight,
    width: Weight,
    device: Device,
    tables: ByGrid<RelativePositions>,
}

impl RelativeTables {
    pub(crate) fn new(height: Weight, width: Weight, device: &Device) -> Self {
        Self {
            height,
            width,
            device: device.clone(),
            tables: ByGrid::new(),
        }
    }

    /// Tables for a grid of the given side.
    pub(crate) fn at(&self, grid: usize) -> Result<RelativePositions> {
        self.tables.get(grid, || {
            let table = |weight: &Weight| -> Result<Tensor> {
                let (rows, size) = (weight.shape()[0], weight.shape()[1]);
                let values = linear(&weight.to_f32(), rows, 2 * grid - 1, size);
                Ok(Tensor::from_vec(
                    values,
                    (2 * grid - 1, size),
                    &self.device,
                )?)
            };
            let (height, width) = (table(&self.height)?, table(&self.width)?);
            Ok(RelativePositions::new(height, width)?)
        })
    }
}

/// `from x from` rows of `size` values to `to x to`: cubic with a = -1/2, antialiased, corners
/// not aligned.
fn bicubic(table: &[f32], from: usize, to: usize, size: usize) -> Vec<f32> {
    let taps = cubic_taps(from, to);
    // Along rows, then along columns.
    let mut across = Vec::with_capacity(from * to * size);
    for row in table.chunks_exact(from * size) {
        taps.iter()
            .for_each(|taps| mix(taps, |i| &row[i * size..(i + 1) * size], &mut across));
    }
    let width = to * size;
    let mut both = Vec::with_capacity(to * width);
    taps.iter()
        .for_each(|taps| mix(taps, |i| &across[i * width..(i + 1) * width], &mut both));
    both
}

/// `from` rows of `size` values to `to` rows, linearly, corners not aligned, not antialiased.
fn linear(table: &[f32], from: usize, to: usize, size: usize) -> Vec<f32> {
    if from == to {
        return table.to_vec();
    }
    let scale = from as f32 / to as f32;
    let mut out = Vec::with_capacity(to * size);
    for i in 0..to {
        let at = (scale * (i as f32 + 0.5) - 0.5).max(0.0);
        let low = (at as usize).min(from - 1);
        let part = at - low as f32;
        let taps = (low, vec![1.0 - part, part]);
        mix(
            &taps,
            |i| &table[i.min(from - 1) * size..][..size],
            &mut out,
        );
    }
    out
}

/// A first index and the weights of it and its followers.
type Taps = (usize, Vec<f32>);

/// The same geometry as for pixels, but in f32 as PyTorch computes it: when a grid is enlarged,
/// rounding shows.
fn cubic_taps(from: usize, to: usize) -> Vec<Taps> {
    let scale = from as f32 / to as f32;
    let stretch = scale.max(1.0);
    let support = 2.0 * stretch;
    let taps = |i: usize| {
        let centre = scale * (i as f32 + 0.5);
        let first = (centre - support + 0.5).max(0.0) as usize;
        let end = ((centre + support + 0.5) as usize).min(from);
        let weight = |j: usize| keys_f32((j as f32 - centre + 0.5) / stretch);
        let weights: Vec<f32> = (first..end).map(weight).collect();
        let sum: f32 = weights.iter().sum();
        (first, weights.into_iter().map(|w| w / sum).collect())
    };
    (0..to).map(taps).collect()
}

/// `out` grows by the weighted sum of rows.
fn mix<'a>((first, weights): &Taps, row: impl Fn(usize) -> &'a [f32], out: &mut Vec<f32>) {
    let start = out.len();
    out.resize(start + row(*first).len(), 0.0);
    for (i, weight) in weights.iter().enumerate() {
        let sum = out[start..].iter_mut();
        sum.zip(row(first + i))
            .for_each(|(sum, v)| *sum += weight * v);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;

    fn parity(path: &str) -> Vec<u8> {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/parity/");
        std::fs::read(format!("{root}{path}")).unwrap()
    }

    fn values(tensors: &SafeTensors<'_>, name: &str) -> Vec<f32> {
        let bytes = tensors.tensor(name).unwrap();
        match bytes.dtype() {
            safetensors::Dtype::F32 => bytes
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .collect(),
            _ => {
                let value = |b: &[u8]| half::bf16::from_le_bytes(b.try_into().unwrap()).to_f32();
                bytes.data().chunks_exact(2).map(value).collect()
            }
        }
    }

    fn close(name: &str, found: &[f32], truth: &[f32]) {
        assert_eq!(found.len(), truth.len(), "{name}");
        let worst = found
            .iter()
            .zip(truth)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        println!("{name}: largest difference {worst:e}");
        assert!(worst < 1e-5, "{name}: {worst}");
    }

    #[test]
    fn interpolation_equals_the_reference() {
        let (unit, model) = (
            parity("dumps/unit.safetensors"),
            parity("tiny/model.safetensors"),
        );
        let unit = SafeTensors::deserialize(&unit).unwrap();
        let model = SafeTensors::deserialize(&model).unwrap();

        let sam = values(&model, "model.sam_model.pos_embed");
        for (name, grid) in [("sam.pos_embed.to32", 32), ("sam.pos_embed.to40", 40)] {
            close(name, &bicubic(&sam, 64, grid, 64), &values(&unit, name));
        }
        let first8: Vec<f32> = bicubic(&sam, 64, 80, 64)
            .chunks(64)
            .flat_map(|row| &row[..8])
            .copied()
            .collect();
        close(
            "sam.pos_embed.to80",
            &first8,
            &values(&unit, "sam.pos_embed.to80.ch0_8"),
        );

        let clip = values(
            &model,
            "model.vision_model.embeddings.position_embedding.weight",
        );
        for grid in [8, 10, 20] {
            let name = format!("clip.pos_embed.to{grid}x{grid}");
            let found = [clip[..80].to_vec(), bicubic(&clip[80..], 16, grid, 80)].concat();
            close(&name, &found, &values(&unit, &name));
        }
        for block in [1, 3] {
            let table = values(
                &model,
                &format!("model.sam_model.blocks.{block}.attn.rel_pos_h"),
            );
            for grid in [32, 40, 64, 80] {
                let name = format!("sam.block{block}.rel_pos_h.table{grid}");
                close(
                    &name,
                    &linear(&table, 127, 2 * grid - 1, 16),
                    &values(&unit, &name),
                );
            }
        }
    }
}
