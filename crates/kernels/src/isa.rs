//! Which instruction set the kernels use.

#[cfg(target_arch = "x86_64")]
use crate::product::x86_amx;
use std::sync::OnceLock;

/// An instruction set that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust, vectorised by the compiler for the target's baseline.
    Portable,
    /// x86-64 with AVX2 and FMA; bf16 weights are widened to f32.
    Avx2,
    /// x86-64 with AVX-512 (F, BW, DQ, VL) and its BF16 products.
    Avx512,
    /// [`Isa::Avx512`], with AMX tiles for large bf16 products.
    Amx,
    /// 64-bit ARM; bf16 weights are widened to f32.
    Neon,
    /// [`Isa::Neon`] with its bf16 products (FEAT_BF16: `bfmmla`).
    NeonBf16,
}

/// The environment variable that overrides the detection.
pub const OVERRIDE: &str = "AGX_OCR_KERNELS";

impl Isa {
    /// The set in use: the best that this machine has, or the one that `AGX_OCR_KERNELS` names.
    pub fn detect() -> Self {
        static CHOSEN: OnceLock<Isa> = OnceLock::new();
        *CHOSEN.get_or_init(|| {
            let wanted = std::env::var(OVERRIDE).unwrap_or_default();
            let available = Self::available();
            let named = available.iter().find(|isa| isa.name() == wanted);
            *named.unwrap_or(&available[0])
        })
    }

    /// All sets that this machine can run, best first; [`Isa::Portable`] is always the last.
    pub fn available() -> &'static [Self] {
        static AVAILABLE: OnceLock<Vec<Isa>> = OnceLock::new();
        AVAILABLE.get_or_init(|| {
            let mut sets = Vec::new();
            #[cfg(target_arch = "x86_64")]
            {
                let fma = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
                if fma
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512bf16")
                {
                    if x86_amx::available() {
                        sets.push(Self::Amx);
                    }
                    sets.push(Self::Avx512);
                }
                if fma {
                    sets.push(Self::Avx2);
                }
            }
            #[cfg(target_arch = "aarch64")]
            {
                if std::arch::is_aarch64_feature_detected!("bf16") {
                    sets.push(Self::NeonBf16);
                }
                sets.push(Self::Neon);
            }
            sets.push(Self::Portable);
            sets
        })
    }

    /// The name, as `AGX_OCR_KERNELS` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Amx => "amx",
            Self::Neon => "neon",
            Self::NeonBf16 => "neon-bf16",
        }
    }

    /// Whether this set holds AVX-512.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn has_avx512(self) -> bool {
        matches!(self, Self::Avx512 | Self::Amx)
    }

    /// Whether this set multiplies bf16 directly, so that rounding activations to bf16 pays.
    pub fn multiplies_bf16(self) -> bool {
        matches!(self, Self::Avx512 | Self::Amx | Self::NeonBf16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portable_is_always_there_and_last() {
        assert_eq!(Isa::available().last(), Some(&Isa::Portable));
        assert!(Isa::available().contains(&Isa::detect()));
    }
}
