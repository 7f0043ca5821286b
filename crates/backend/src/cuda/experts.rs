//! Mixtures of experts, for many rows at once.

use super::{
    Gpu,
    launch::{Arg, grid},
};
use crate::{Experts, Result, RmsNorm, SwiGlu};
use candle_core::{DType, Error, Tensor};

/// Addresses of the experts' weights on the device: those that are chosen, then the parts of the
/// shared one, each of the size of the others.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    pub(super) gate: Tensor,
    pub(super) up: Tensor,
    pub(super) down: Tensor,
    /// Parts of the shared expert.
    shared: usize,
}

/// How the kernels cut the rows that share an expert.
struct Tiles {
    /// What the kernels' names have.
    kind: &'static str,
    rows: usize,
    /// Rows of a block that routes.
    routed: usize,
    routing_threads: u32,
    threads: u32,
    shared: usize,
}

const MANY: Tiles = Tiles {
    kind: "",
    rows: 128,
    routed: 4,
    routing_threads: 256,
    threads: 256,
    shared: 96 << 10,
};
const FEW: Tiles = Tiles {
    kind: "_few",
    rows: 16,
    routed: 1,
    routing_threads: 512,
    threads: 128,
    shared: 72 << 10,
};
/// Columns of a block of products; half as many where gate and up share them.
const COLUMNS: usize = 128;
/// Rows up to which [`FEW`] is faster.
const FEW_ROWS: usize = 128;

impl Tiles {
    /// The faster ones for so many rows.
    fn of(rows: usize) -> Self {
        if rows <= FEW_ROWS { FEW } else { MANY }
    }
}

/// The experts of some rows, as the kernels leave them.
pub(crate) struct Routed {
    /// The rows, normalised.
    normed: Tensor,
    /// Numbers of the chosen experts, u32 `[rows, k]`.
    pub(crate) ids: Tensor,
    /// Their probabilities, f32 `[rows, k]`.
    pub(crate) weights: Tensor,
}

impl Gpu {
    /// Normalises rows, and chooses the experts for each.
    pub(crate) fn route(&self, layer: &Experts, norm: &RmsNorm, x: &Tensor) -> Result<Routed> {
        let (rows, hidden) = x.dims2()?;
        let x = self.contiguous(x)?;
        let tiles = Tiles::of(rows);
        let router = layer.router.on_gpu()?;
        let (experts, k) = (router.dim(0)?, layer.top_k);
        let routed = Routed {
            normed: self.empty((rows, hidden), self.dtype())?,
            ids: self.empty((rows, k), DType::U32)?,
            weights: self.empty((rows, k), DType::F32)?,
        };
        let args = [
            self.address(&x)?,
            self.address(norm.weight.on_gpu()?)?,
            self.address(router)?,
            self.address(&routed.normed)?,
            self.address(&routed.ids)?,
            self.address(&routed.weights)?,
            Arg::int(rows),
            Arg::int(hidden),
            Arg::int(experts),
            Arg::int(k),
            Arg::Float(norm.eps),
        ];
        let kernel = self.named(&format!("route_rows{}", tiles.kind));
        let blocks = [rows.div_ceil(tiles.routed), 1, 1];
        // Rows of x and of scores.
        let shared = 4 * tiles.routed * (hidden + experts);
        self.launch(
            &kernel,
            grid(blocks, (tiles.routing_threads, 1), shared),
            &args,
        )?;
        Ok(routed)
    }

    /// `x +=` the outputs of each row's experts times their probabilities, and of the shared
    /// expert, in place.
    pub(crate) fn experts_add(&self, layer: &Experts, norm: &RmsNorm, x: &Tensor) -> Result<()> {
        let (rows, hidden) = x.dims2()?;
        let inner = layer.inner();
        let sizes = [hidden, inner, layer.shared.gate.output()];
        let fits = self.fits_experts(layer.routed.len(), layer.top_k);
        if rows == 1 && fits && self.fits_one(&sizes, None) {
            return self.experts_one(layer, self.addresses(layer)?, norm, x);
        }
        let Routed {
            normed,
            ids,
            weights,
        } = self.route(layer, norm, x)?;
        let tiles = Tiles::of(rows);
        let addresses = self.addresses(layer)?;
        let (experts, k, shared) = (layer.routed.len(), layer.top_k, addresses.shared);
        let slots = k + shared;
        let pairs = rows * slots;
        // Each expert may leave a tile that is not full.
        let limit =
            rows * k / tiles.rows + experts.min(rows * k) + shared * rows.div_ceil(tiles.rows);
        let (order, cuts) = (
            self.empty(pairs, DType::U32)?,
            self.empty((limit, 4), DType::U32)?,
        );
        let args = [
            self.address(&ids)?,
            self.address(&order)?,
            self.address(&cuts)?,
            Arg::int(rows),
            Arg::int(k),
            Arg::int(experts),
            Arg::int(shared),
            Arg::int(tiles.rows),
            Arg::int(limit),
        ];
        self.launch(
            "group_rows",
            grid([experts + shared, 1, 1], (1024, 1), 4 * experts),
            &args,
        )?;

        let h = self.empty((pairs, inner), self.dtype())?;
        let args = [
            self.address(&normed)?,
            self.address(&addresses.gate)?,
            self.address(&addresses.up)?,
            self.address(&order)?,
            self.address(&cuts)?,
            self.address(&h)?,
            Arg::int(hidden),
            Arg::int(inner),
            Arg::int(slots),
        ];
        let config = |columns: usize| grid([columns, limit, 1], (tiles.threads, 1), tiles.shared);
        let kernel = self.named(&format!("experts_gate_up{}", tiles.kind));
        self.launch(&kernel, config(inner.div_ceil(COLUMNS / 2)), &args)?;

        let y = self.empty((pairs, hidden), DType::F32)?;
        let args = [
            self.address(&h)?,
            self.address(&addresses.down)?,
            self.address(&order)?,
            self.address(&cuts)?,
            self.address(&y)?,
            Arg::int(hidden),
            Arg::int(inner),
            Arg::int(experts),
            Arg::int(shared),
        ];
        let kernel = self.named(&format!("experts_down{}", tiles.kind));
        self.launch(&kernel, config(hidden.div_ceil(COLUMNS)), &args)?;

        let args = [
            self.address(&y)?,
            self.address(&weights)?,
            self.address(x)?,
            Arg::int(hidden),
            Arg::int(k),
            Arg::int(shared),
        ];
        let threads = u32::try_from(hidden / 4).unwrap_or(u32::MAX).min(512);
        self.launch("combine_rows", grid([rows, 1, 1], (threads, 1), 0), &args)
    }

    /// The addresses of a layer's experts, brought to the device when they are first wanted.
    fn addresses<'a>(&self, layer: &'a Experts) -> Result<&'a Addresses> {
        if let Some(addresses) = layer.addresses.get() {
            return Ok(addresses);
        }
        let inner = layer.inner();
        let wide = layer.shared.gate.output();
        if inner == 0 || !wide.is_multiple_of(inner) {
            let message = format!("a shared expert of {wide} values beside others of {inner}");
            return Err(Error::Msg(message).into());
        }
        let shared = wide / inner;
        let size = self.dtype().size_in_bytes();
        // A part's rows of gate and up, and its columns of down.
        let (rows, columns) = (inner * layer.shared.gate.input() * size, inner * size);
        let list = |of: fn(&SwiGlu) -> &crate::Linear, step: usize| -> Result<Tensor> {
            let address = |expert: &SwiGlu, part: usize| -> Result<i64> {
                let start = self.pointer(of(expert).weight.on_gpu()?)?;
                Ok((start + (part * step) as u64) as i64)
            };
            let routed = layer.routed.iter().map(|expert| address(expert, 0));
            let parts = (0..shared).map(|part| address(&layer.shared, part));
            let all = routed.chain(parts).collect::<Result<Vec<i64>>>()?;
            Ok(Tensor::new(all, &self.device())?)
        };
        let addresses = Addresses {
            gate: list(|expert| &expert.gate, rows)?,
            up: list(|expert| &expert.up, rows)?,
            down: list(|expert| &expert.down, columns)?,
            shared,
        };
        Ok(layer.addresses.get_or_init(|| addresses))
    }
}
