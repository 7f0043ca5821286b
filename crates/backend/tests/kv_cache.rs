//! Keys and values whose memory cannot be had.

use agx_ocr_backend::{Activations, Error, KvCache};
use candle_core::{DType, Device, Tensor};

fn attend(cache: &mut KvCache, heads: usize, dim: usize) -> Result<Vec<f32>, Error> {
    let ones = Tensor::ones((1, heads, dim), DType::F32, &Device::Cpu)?;
    let mixed = cache.attend(0, &ones, &ones, &ones)?;
    Ok(mixed.flatten_all()?.to_vec1()?)
}

#[test]
fn a_cache_without_memory_is_an_error_and_stays_one() {
    for (positions, dim) in [(usize::MAX, 2), (usize::MAX / 8, 2), (1 << 45, 8)] {
        let mut cache = KvCache::new(1, 2, dim, positions, Activations::F32, &Device::Cpu);
        assert_eq!(cache.capacity(), positions);
        for _ in 0..2 {
            let error = attend(&mut cache, 2, dim).unwrap_err();
            assert!(
                matches!(error, Error::CacheMemory { positions: found } if found == positions),
                "{error}"
            );
        }
    }
    let mut cache = KvCache::new(1, 2, 4, 3, Activations::F32, &Device::Cpu);
    for _ in 0..3 {
        assert_eq!(attend(&mut cache, 2, 4).unwrap(), [1.0; 8]);
        cache.advance(1);
    }
    assert!(
        matches!(attend(&mut cache, 2, 4), Err(Error::Tensor(_))),
        "it is full"
    );
}
