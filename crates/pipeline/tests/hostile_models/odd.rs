//! Sizes that nobody chooses, but that agree with each other: they are read like all others.

use crate::{LONG, Model, hollow, load};
use agx_ocr_pipeline::{Fit, Mode, ReadOptions, Task, ViewMode};
use image::RgbImage;
use serde_json::{Value, json};
use std::{ops::ControlFlow, sync::mpsc, thread};

/// Loads a model of these sizes and reads a page; it must neither panic nor last.
fn reads(config: &Value) {
    let model = hollow::of(config);
    let ocr = load(model.path()).unwrap();
    let (done, result) = mpsc::channel();
    thread::spawn(move || {
        for size in [64, 128, 192] {
            let mut options = ReadOptions::default();
            options.mode = Mode::Custom(ViewMode::Square {
                size,
                fit: Fit::Pad,
            });
            options.max_tokens = Some(2);
            let image = RgbImage::from_fn(100, 70, |x, y| image::Rgb([(x + y) as u8; 3]));
            let page = ocr.read_image(&image, &Task::Text, &options, |_| ControlFlow::Continue(()));
            let _ = done.send(page.map(|page| page.tokens.generated));
        }
    });
    for _ in 0..3 {
        let generated = result
            .recv_timeout(LONG)
            .expect("it neither panics nor lasts");
        assert_eq!(generated.unwrap(), 2, "{config}");
    }
}

#[test]
fn odd_sizes_of_the_decoder() {
    let base = Model::new().json("config.json");
    for values in [
        json!({"num_attention_heads": 32, "num_key_value_heads": 1}),
        json!({"num_attention_heads": 1, "num_key_value_heads": 1}),
        json!({"intermediate_size": 1, "moe_intermediate_size": 1, "n_shared_experts": 1}),
        json!({"n_routed_experts": 1, "num_experts_per_tok": 1}),
        json!({"n_routed_experts": 33, "num_experts_per_tok": 33}),
        json!({"num_hidden_layers": 1, "first_k_dense_replace": 0}),
        json!({"num_hidden_layers": 2, "first_k_dense_replace": 1024}),
        json!({"vocab_size": 509, "intermediate_size": 7, "moe_intermediate_size": 13}),
        json!({"hidden_size": 2, "num_attention_heads": 1, "num_key_value_heads": 1,
               "projector_config": {"input_dim": 160, "n_embed": 2}}),
        json!({"hidden_size": 66, "num_attention_heads": 11, "num_key_value_heads": 11,
               "projector_config": {"input_dim": 160, "n_embed": 66}}),
        json!({"rope_theta": 1.0, "rms_norm_eps": 1.0}),
        json!({"rope_theta": 1e30, "rms_norm_eps": 1e-29}),
    ] {
        let mut config = base.clone();
        for (name, value) in values.as_object().unwrap() {
            config[name] = value.clone();
        }
        reads(&config);
    }
}

#[test]
fn odd_sizes_of_the_encoders() {
    let base = Model::new().json("config.json");
    for (encoder, values) in [
        ("sam_vit_b", json!({"width": 1, "heads": 1})),
        ("sam_vit_b", json!({"width": 6, "heads": 2})),
        ("sam_vit_b", json!({"width": 37, "heads": 37})),
        ("sam_vit_b", json!({"layers": 1, "global_attn_indexes": []})),
        (
            "sam_vit_b",
            json!({"layers": 1, "global_attn_indexes": [0]}),
        ),
        ("sam_vit_b", json!({"out_chans": 1})),
        ("sam_vit_b", json!({"out_chans": 17})),
        ("sam_vit_b", json!({"downsample_channels": [1, 80]})),
        ("clip-l-14-224", json!({"heads": 80})),
        ("clip-l-14-224", json!({"heads": 1, "layers": 1})),
        ("clip-l-14-224", json!({"image_size": 1, "patch_size": 1})),
        ("clip-l-14-224", json!({"image_size": 15, "patch_size": 15})),
        ("clip-l-14-224", json!({"image_size": 100, "patch_size": 7})),
    ] {
        let mut config = base.clone();
        for (name, value) in values.as_object().unwrap() {
            config["vision_config"]["width"][encoder][name] = value.clone();
        }
        reads(&config);
    }
    let mut config = base.clone();
    for image_size in [16, 17, 40, 250] {
        config["vision_config"]["image_size"] = json!(image_size);
        reads(&config);
    }
    let mut config = base;
    config["vision_config"]["width"]["sam_vit_b"]["downsample_channels"] = json!([3, 1]);
    let clip = &mut config["vision_config"]["width"]["clip-l-14-224"];
    (clip["width"], clip["heads"]) = (json!(1), json!(1));
    config["projector_config"]["input_dim"] = json!(2);
    reads(&config);
}
