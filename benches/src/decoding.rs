//! Products of one row, as in decoding, on weights that come from memory.

use crate::{device::synchronise, values, weights};
use agx_ocr_kernels::{
    half::bf16,
    linear::{Activations, Expert, Matrix, Write, experts, linear},
    mapped::MappedFile,
};
use std::{
    io::{self, Write as _},
    path::Path,
};
use tempfile::NamedTempFile;

const HIDDEN: usize = 1280;
const VOCAB: usize = 129_280;
/// Inner size of an expert.
const INNER: usize = 896;
/// Experts of a layer, and those that a token uses.
const EXPERTS: usize = 64;
const CHOSEN: usize = 6;
const LAYERS: usize = 2;

/// The weights of two layers' routed experts, 0.9 GB, and two heads in the same place. Uses take
/// turns: what is read was last read long ago, and has left most caches since. They lie in a
/// mapped file, as a checkpoint's do.
#[derive(Debug)]
pub struct Memory {
    map: MappedFile,
    /// Holds the file until the weights are gone.
    _file: NamedTempFile,
}

/// Products that can be run again and again.
pub struct Work<'a> {
    /// What it is.
    pub name: &'static str,
    /// Bytes of weights that a run reads.
    pub bytes: usize,
    /// Does the work once.
    pub run: Box<dyn FnMut() + Send + 'a>,
}

impl Memory {
    /// Random weights in a file in `dir`.
    ///
    /// # Errors
    /// When the file cannot be written or mapped.
    pub fn random(dir: &Path) -> io::Result<Self> {
        let mut file = NamedTempFile::new_in(dir)?;
        let values = weights(LAYERS * EXPERTS * 3 * INNER * HIDDEN);
        file.write_all(bytemuck::cast_slice(&values))?;
        Ok(Self {
            map: MappedFile::open(file.path())?,
            _file: file,
        })
    }

    /// All of them.
    pub fn bytes(&self) -> &[u8] {
        self.map.bytes()
    }

    fn values(&self) -> &[bf16] {
        bytemuck::cast_slice(self.bytes())
    }

    /// The head, and one layer's routed experts in one decoding step.
    pub fn work(&self) -> [Work<'_>; 2] {
        [self.head(), self.experts()]
    }

    fn head(&self) -> Work<'_> {
        let heads = self.values().chunks_exact(VOCAB * HIDDEN);
        let mut heads = heads.map(|w| Matrix::new(w, VOCAB, HIDDEN)).cycle();
        let (x, mut y) = (values(HIDDEN), vec![0.0; VOCAB]);
        let run = move || {
            if let Some(head) = heads.next() {
                linear(&x, head.into(), &mut y, Write::Set, Activations::F32);
                synchronise();
            }
        };
        Work {
            name: "lm_head",
            bytes: 2 * VOCAB * HIDDEN,
            run: Box::new(run),
        }
    }

    fn experts<'a>(&'a self) -> Work<'a> {
        let matrices = self
            .values()
            .chunks_exact(INNER * HIDDEN)
            .collect::<Vec<_>>();
        let expert = |w: &[&'a [bf16]]| Expert {
            gate: Matrix::new(w[0], INNER, HIDDEN),
            up: Matrix::new(w[1], INNER, HIDDEN),
            down: Matrix::new(w[2], HIDDEN, INNER),
        };
        let all: Vec<Expert<'_>> = matrices.chunks_exact(3).map(expert).collect();
        let (x, mut y) = (values(HIDDEN), vec![0.0; HIDDEN]);
        let mut step = 0;
        let run = move || {
            let layer = &all[step % LAYERS * EXPERTS..][..EXPERTS];
            // All of a layer's experts in turn, not in the order in which they lie.
            let first = step / LAYERS * CHOSEN;
            let chosen: [u32; CHOSEN] =
                std::array::from_fn(|i| ((first + i) * 29 % EXPERTS) as u32);
            let shares = [1.0 / CHOSEN as f32; CHOSEN];
            experts(&x, layer, None, &chosen, &shares, &mut y, Activations::F32);
            synchronise();
            step += 1;
        };
        Work {
            name: "experts_6_of_64",
            bytes: CHOSEN * 2 * 3 * INNER * HIDDEN,
            run: Box::new(run),
        }
    }
}
