//! Building a model from a checkpoint, or saying all that is wrong with it at once.

#[cfg(feature = "cuda")]
use crate::cuda::{Gpu, Uploader};
use crate::{
    Activations, CausalAttention, Checkpoint, Conv2d, Embedding, Error, Experts, LayerNorm, Linear,
    Mismatch, Mlp, Result, RmsNorm, SelfAttention, SwiGlu, Weight, feed_forward::Activation,
};
use agx_ocr_kernels::mapped::MappedFile;
use candle_core::Device;
use safetensors::Dtype;
use std::{cell::RefCell, collections::BTreeSet, sync::Arc};

/// Buffers that some tools save beside the weights; they follow from the config.
const IGNORED: [&str; 2] = ["position_ids", "rotary_emb.inv_freq"];

/// Hands out the tensors of a checkpoint by name while a model is built.
///
/// A tensor that is missing or does not fit is noted, and an empty one is given in its place, so
/// that one run finds all problems; [`Checkpoint::build`] then gives the error, not the model.
#[derive(Clone)]
pub struct Loader<'a> {
    shared: &'a Shared<'a>,
    prefix: String,
}

struct Shared<'a> {
    checkpoint: &'a Checkpoint,
    device: &'a Device,
    activations: Activations,
    empty: Arc<MappedFile>,
    notes: RefCell<Notes>,
    #[cfg(feature = "cuda")]
    uploader: Option<RefCell<Uploader>>,
}

#[derive(Default)]
struct Notes {
    used: BTreeSet<String>,
    mismatch: Mismatch,
    /// Why a weight could not be brought to the device.
    failed: Option<Error>,
}

impl Checkpoint {
    /// Builds a model for `device`; `activations` says how large products treat theirs.
    ///
    /// # Errors
    /// [`Error::Mismatch`] unless the model took every tensor of the checkpoint, and all were
    /// there with the shapes that it wanted.
    pub fn build<T>(
        &self,
        device: &Device,
        activations: Activations,
        model: impl FnOnce(&Loader<'_>) -> T,
    ) -> Result<T> {
        let Some(any) = self.tensors.values().next() else {
            let missing = vec!["every tensor".to_owned()];
            return Err(Error::Mismatch(Mismatch {
                missing,
                ..Mismatch::default()
            }));
        };
        let shared = Shared {
            checkpoint: self,
            device,
            activations,
            empty: any.file.clone(),
            notes: RefCell::default(),
            #[cfg(feature = "cuda")]
            uploader: match Gpu::of(device)? {
                Some(gpu) => {
                    let counts = self.tensors.values().map(|info| info.range.len() / 2);
                    Some(RefCell::new(Uploader::new(gpu, counts)?))
                }
                None => None,
            },
        };
        let model = model(&Loader {
            shared: &shared,
            prefix: String::new(),
        });
        #[cfg(feature = "cuda")]
        if let Some(uploader) = &shared.uploader {
            uploader.borrow().finish()?;
        }
        let Notes {
            used,
            mut mismatch,
            failed,
        } = shared.notes.into_inner();
        if let Some(error) = failed {
            return Err(error);
        }
        let ignored = |name: &str| IGNORED.iter().any(|end| name.ends_with(end));
        let extra = self
            .tensors
            .keys()
            .filter(|name| !used.contains(*name) && !ignored(name));
        mismatch.extra = extra.cloned().collect();
        if mismatch.is_empty() {
            Ok(model)
        } else {
            Err(Error::Mismatch(mismatch))
        }
    }
}

impl Loader<'_> {
    /// A loader for the names below `name`.
    pub fn sub(&self, name: impl std::fmt::Display) -> Self {
        Self {
            shared: self.shared,
            prefix: self.name(&name.to_string()),
        }
    }

    /// The device that the model is built for.
    pub fn device(&self) -> &Device {
        self.shared.device
    }

    /// The weight `name` of the given shape.
    pub fn weight(&self, name: &str, shape: &[usize]) -> Weight {
        self.place(self.host_weight(name, shape))
    }

    /// The weight `name` of the given shape, for the host alone: no device gets a copy.
    pub fn host_weight(&self, name: &str, shape: &[usize]) -> Weight {
        let name = self.name(name);
        let mut notes = self.shared.notes.borrow_mut();
        let shape = shape.to_vec();
        let absent = || Weight {
            shape: shape.clone(),
            file: self.shared.empty.clone(),
            range: 0..0,
            #[cfg(feature = "cuda")]
            uploaded: None,
        };
        let Some(info) = self.shared.checkpoint.tensors.get(&name) else {
            notes.mismatch.missing.push(name);
            return absent();
        };
        let mut wrong = None;
        if info.dtype != Dtype::BF16 {
            wrong = Some(format!("{name} is {:?}, wanted BF16", info.dtype));
        } else if info.shape != shape {
            wrong = Some(format!("{name} is {:?}, wanted {shape:?}", info.shape));
        } else if info.file.bf16(info.range.clone()).is_none() {
            wrong = Some(format!("{name} is not aligned to two bytes"));
        }
        notes.used.insert(name);
        match wrong {
            None => Weight {
                shape,
                file: info.file.clone(),
                range: info.range.clone(),
                #[cfg(feature = "cuda")]
                uploaded: None,
            },
            Some(wrong) => {
                notes.mismatch.wrong.push(wrong);
                absent()
            }
        }
    }

    /// The weight, and on a GPU a copy there.
    #[cfg(feature = "cuda")]
    fn place(&self, mut weight: Weight) -> Weight {
        let mut notes = self.shared.notes.borrow_mut();
        // One that is missing is noted as that.
        let there = !weight.range.is_empty();
        if let (Some(uploader), None, true) = (&self.shared.uploader, &notes.failed, there) {
            let uploaded = uploader.borrow_mut().upload(&weight);
            match uploaded {
                Ok(uploaded) => weight.uploaded = Some(uploaded),
                Err(error) => notes.failed = Some(error),
            }
        }
        weight
    }

    /// The weight, where it lies.
    #[cfg(not(feature = "cuda"))]
    fn place(&self, weight: Weight) -> Weight {
        weight
    }

    /// Notes a weight that the checkpoint holds and the model has no use for.
    pub fn unused(&self, name: &str, shape: &[usize]) {
        self.host_weight(name, shape);
    }

    /// `name.weight` `[output, input]`, without a bias.
    pub fn linear(&self, name: &str, input: usize, output: usize) -> Linear {
        let weight = self.sub(name).weight("weight", &[output, input]);
        Linear {
            weight,
            bias: None,
            activations: self.shared.activations,
        }
    }

    /// `name.weight` `[output, input]` and `name.bias`.
    pub fn linear_bias(&self, name: &str, input: usize, output: usize) -> Linear {
        let bias = self.sub(name).weight("bias", &[output]);
        Linear {
            bias: Some(bias),
            ..self.linear(name, input, output)
        }
    }

    /// Two layers with biases, `first` to `inner` values and `second` back.
    pub fn mlp(
        &self,
        [first, second]: [&str; 2],
        size: usize,
        inner: usize,
        activation: Activation,
    ) -> Mlp {
        Mlp {
            first: self.linear_bias(first, size, inner),
            activation,
            second: self.linear_bias(second, inner, size),
        }
    }

    /// Attention of `heads` heads, which has no weights.
    pub fn attention(&self, heads: usize) -> SelfAttention {
        SelfAttention {
            heads,
            activations: self.shared.activations,
        }
    }

    /// How large products treat their activations.
    pub fn activations(&self) -> Activations {
        self.shared.activations
    }

    /// `name.gate_proj`, `name.up_proj` and `name.down_proj`.
    pub fn swiglu(&self, name: &str, size: usize, inner: usize) -> SwiGlu {
        let at = self.sub(name);
        SwiGlu {
            gate: at.linear("gate_proj", size, inner),
            up: at.linear("up_proj", size, inner),
            down: at.linear("down_proj", inner, size),
        }
    }

    /// `name.q_proj`, `name.k_proj`, `name.v_proj` and `name.o_proj`, for so many heads of queries,
    /// and of keys and values, of `head_dim` values.
    pub fn causal_attention(
        &self,
        name: &str,
        size: usize,
        (heads, kv_heads): (usize, usize),
        head_dim: usize,
    ) -> CausalAttention {
        let at = self.sub(name);
        let (query, kv) = (heads * head_dim, kv_heads * head_dim);
        CausalAttention {
            q_proj: at.linear("q_proj", size, query),
            k_proj: at.linear("k_proj", size, kv),
            v_proj: at.linear("v_proj", size, kv),
            o_proj: at.linear("o_proj", query, size),
            head_dim,
        }
    }

    /// The router `gate`, `count` experts of `inner` values, of which each row uses `top_k`, and
    /// `shared_experts`, together of `shared` values.
    pub fn experts(
        &self,
        size: usize,
        (count, inner): (usize, usize),
        top_k: usize,
        shared: usize,
    ) -> Experts {
        let at = self.sub("experts");
        Experts {
            router: self.sub("gate").weight("weight", &[count, size]),
            top_k,
            routed: (0..count)
                .map(|i| at.sub(i).swiglu("", size, inner))
                .collect(),
            shared: self.swiglu("shared_experts", size, shared),
            #[cfg(feature = "cuda")]
            addresses: std::sync::OnceLock::new(),
        }
    }

    /// `name.weight` `[output, input, kernel, kernel]`, and `name.bias` where `bias`.
    pub fn conv2d(
        &self,
        name: &str,
        (input, output): (usize, usize),
        (kernel, stride, padding): (usize, usize, usize),
        bias: bool,
    ) -> Conv2d {
        let at = self.sub(name);
        Conv2d {
            weight: at.weight("weight", &[output, input, kernel, kernel]),
            bias: bias.then(|| at.weight("bias", &[output])),
            stride,
            padding,
            activations: self.shared.activations,
        }
    }

    /// `name.weight` and `name.bias` of `size` values.
    pub fn layer_norm(&self, name: &str, size: usize, eps: f64) -> LayerNorm {
        let at = self.sub(name);
        let (weight, bias) = (at.weight("weight", &[size]), at.weight("bias", &[size]));
        LayerNorm {
            weight,
            bias,
            eps: eps as f32,
        }
    }

    /// `name.weight` of `size` values.
    pub fn rms_norm(&self, name: &str, size: usize, eps: f64) -> RmsNorm {
        RmsNorm {
            weight: self.sub(name).weight("weight", &[size]),
            eps: eps as f32,
        }
    }

    /// `name.weight`: `count` rows of `size` values.
    pub fn embedding(&self, name: &str, count: usize, size: usize) -> Embedding {
        Embedding {
            weight: self.sub(name).weight("weight", &[count, size]),
        }
    }

    fn name(&self, name: &str) -> String {
        match (&self.prefix[..], name) {
            ("", _) => name.to_owned(),
            (prefix, "") => prefix.to_owned(),
            (prefix, name) => format!("{prefix}.{name}"),
        }
    }
}
