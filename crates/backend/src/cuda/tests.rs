//! What only a GPU can show, on the one that `AGX_OCR_TEST_DEVICE` names.

use super::{Gpu, open};
use crate::{Activations, Checkpoint, DeviceChoice, Elements, close_device};
use agx_ocr_kernels::half::bf16;
use candle_core::{DType, Device, Tensor};
use std::{env, fs, io::Write as _, sync::Arc};

/// The GPU, or a line that says why the test is skipped.
fn gpu(elements: Elements) -> Option<Arc<Gpu>> {
    let name = env::var("AGX_OCR_TEST_DEVICE").unwrap_or_default();
    let Ok(DeviceChoice::Cuda(number)) = name.parse() else {
        // Not `eprintln!`, which the test harness keeps to itself.
        let _ = writeln!(
            std::io::stderr(),
            "skipped: a test on a GPU, because AGX_OCR_TEST_DEVICE is not set"
        );
        return None;
    };
    let device = open(number, elements, 0).unwrap();
    Some(Gpu::of(&device).unwrap().unwrap())
}

/// Values without a pattern, within 1 of 0.
fn noise(gpu: &Gpu, shape: (usize, usize), dtype: DType) -> Tensor {
    let mut state = 7_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    let values = (0..shape.0 * shape.1).map(|_| next()).collect();
    let values = Tensor::from_vec(values, shape, &gpu.device()).unwrap();
    gpu.convert(&values, dtype).unwrap()
}

fn host(x: &Tensor) -> Vec<u32> {
    let x = x.to_device(&Device::Cpu).unwrap().to_dtype(DType::F32);
    let x = x.unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    x.into_iter().map(f32::to_bits).collect()
}

#[test]
fn whichever_kernel_is_chosen_for_a_product_it_gives_the_same_bits() {
    for elements in [Elements::Bf16, Elements::F16] {
        let Some(gpu) = gpu(elements) else { return };
        let dtype = gpu.dtype();
        let mut tried = 0;
        // Of SAM and CLIP, at full size and of the mini model's.
        for (rows, input, output) in [
            (4096, 768, 768),
            (4096, 3072, 768),
            (257, 1024, 3072),
            (257, 4096, 1024),
            (101, 4096, 1024),
            (1600, 256, 768),
        ] {
            let x = noise(&gpu, (rows, input), dtype);
            let weight = noise(&gpu, (output, input), dtype);
            let bias = noise(&gpu, (1, output), dtype).flatten_all().unwrap();
            let bits = || {
                let plain = gpu.product(&x, &weight, None, DType::F32).unwrap();
                let gelu = gpu.product_gelu(&x, &weight, &bias).unwrap();
                let sum = gpu.convert(&noise(&gpu, (rows, output), dtype), DType::F32);
                let sum = sum.unwrap();
                gpu.add_product(&x, &weight, None, &sum).unwrap();
                [&plain, &gelu, &sum].map(host)
            };
            let first = bits();
            for kernel in 0..8 {
                tried += gpu.take_others(kernel);
                assert!(bits() == first, "{rows} x {input} x {output}: {kernel}");
            }
        }
        assert!(tried > 10, "{tried} kernels besides the first choices");
        close_device(&gpu.device());
    }
}

#[test]
fn what_asks_for_too_much_memory_gets_an_error_and_the_gpu_goes_on() {
    let Some(gpu) = gpu(Elements::Bf16) else {
        return;
    };
    let error = gpu.empty(1 << 42, DType::F32).unwrap_err();
    assert!(error.is_out_of_memory(), "{error:?}");
    // Everything that is left, in ever smaller pieces, and then one piece more.
    let (mut kept, mut piece) = (Vec::new(), 1_usize << 33);
    while piece > 1 << 20 {
        match gpu.empty(piece, DType::F32) {
            Ok(tensor) => kept.push(tensor),
            Err(error) => {
                assert!(error.is_out_of_memory(), "{error:?}");
                piece /= 2;
            }
        }
    }
    drop(kept);
    gpu.trim().unwrap();
    gpu.self_test().unwrap();
    close_device(&gpu.device());
}

#[test]
fn weights_come_to_the_gpu_as_they_are_also_those_that_are_asked_for_twice() {
    let Some(gpu) = gpu(Elements::Bf16) else {
        return;
    };
    // Sizes that begin and end amid pieces of the upload.
    let sizes = [700_001, 3, 1 << 20, 64, 129];
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (i, size) in sizes.into_iter().enumerate() {
        let from = data.len();
        let value = |j: usize| bf16::from_f32((j * 31 % 257) as f32 - i as f32);
        data.extend((0..size).flat_map(|j| value(j).to_le_bytes()));
        let entry = serde_json::json!({
            "dtype": "BF16", "shape": [size], "data_offsets": [from, data.len()]
        });
        header.insert(format!("w{i}"), entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let file = [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("model.safetensors"), file).unwrap();

    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let weights = checkpoint.build(&gpu.device(), Activations::Bf16, |loader| {
        let all = || sizes.into_iter().enumerate();
        let load = |(i, size): (usize, usize)| loader.weight(&format!("w{i}"), &[size]);
        let first: Vec<_> = all().map(load).collect();
        let again: Vec<_> = all().rev().map(load).collect();
        first.into_iter().chain(again)
    });
    for weight in weights.unwrap() {
        let there = host(weight.on_gpu().unwrap());
        let here = weight.to_f32().into_iter().map(f32::to_bits);
        assert!(there.into_iter().eq(here), "{:?}", weight.shape());
    }
    close_device(&gpu.device());
}
