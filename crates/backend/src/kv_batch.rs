//! The caches of sequences that are decoded together.

#[cfg(feature = "cuda")]
use crate::cuda;
use crate::{KvCache, Result, Rope, cat};
use candle_core::{Device, Error, Tensor};

/// The keys and values of sequences that each get one new position at a time. Rows keep their
/// order until one leaves: then the last one takes its place.
///
/// On a GPU the device itself counts the positions: there a batch is for `GreedyBatch`, which is to be
/// given the same one at all times.
#[derive(Debug)]
pub struct KvBatch {
    rows: Vec<KvCache>,
    /// The same on a GPU, in the place of `rows`.
    #[cfg(feature = "cuda")]
    pub(crate) on_gpu: Option<cuda::Pages>,
}

impl KvBatch {
    /// No sequences, for `most` of them at a time, of at most `positions` positions each.
    ///
    /// # Errors
    /// When a device's memory for their bookkeeping cannot be had.
    pub fn new(device: &Device, most: usize, positions: usize) -> Result<Self> {
        #[cfg(not(feature = "cuda"))]
        let _ = (device, most, positions);
        Ok(Self {
            rows: Vec::new(),
            #[cfg(feature = "cuda")]
            on_gpu: cuda::Pages::new(device, most, positions)?,
        })
    }

    /// The number of sequences.
    pub fn len(&self) -> usize {
        #[cfg(feature = "cuda")]
        if let Some(pages) = &self.on_gpu {
            return pages.len();
        }
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes in a sequence, whose prompt is in its cache already, as the last row.
    ///
    /// # Errors
    /// When a device has no memory for it.
    pub fn join(&mut self, cache: KvCache) -> Result<()> {
        #[cfg(feature = "cuda")]
        if let Some(pages) = &mut self.on_gpu {
            return pages.join(&cache);
        }
        self.rows.push(cache);
        Ok(())
    }

    /// Forgets the sequence in `row`, whose place the last row takes.
    pub fn leave(&mut self, row: usize) {
        #[cfg(feature = "cuda")]
        if let Some(pages) = &mut self.on_gpu {
            return pages.leave(row);
        }
        self.rows.swap_remove(row);
    }

    /// Gives back the memory of sequences that have left, where it is kept for those to come.
    pub fn release(&mut self) {
        #[cfg(feature = "cuda")]
        if let Some(pages) = &mut self.on_gpu {
            pages.release();
        }
    }

    /// [`KvCache::attend`] for one new position of each sequence: `q` `[n, query_heads, head_dim]`,
    /// `k` and `v` `[n, heads, head_dim]`, which it rotates first.
    pub(crate) fn attend(
        &mut self,
        layer: usize,
        [q, k, v]: [&Tensor; 3],
        rope: &Rope,
    ) -> Result<Tensor> {
        if q.dim(0)? != self.rows.len() {
            let message = format!("{:?} for {} sequences", q.shape(), self.rows.len());
            return Err(Error::Msg(message).into());
        }
        let attend = |(i, cache): (usize, &mut KvCache)| -> Result<Tensor> {
            let position = cache.len();
            let rotated = |x: &Tensor| rope.forward(&x.narrow(0, i, 1)?, position);
            cache.attend(layer, &rotated(q)?, &rotated(k)?, &v.narrow(0, i, 1)?)
        };
        let rows = self.rows.iter_mut().enumerate().map(attend);
        let rows = rows.collect::<Result<Vec<_>>>()?;
        cat(&rows.iter().collect::<Vec<_>>(), 0)
    }

    /// Counts one position more in each sequence, once all layers have stored it.
    pub fn advance(&mut self) {
        for cache in &mut self.rows {
            cache.advance(1);
        }
    }
}
