//! Damaged weights: where the model first computes something that is not a number.
//!
//! Numbers are not checked while a page is read, which would cost time in every layer. A weight
//! that is not a number shows at the end, for it spoils everything after it: in the logits. Then
//! the page is read again with an observer that names the first stage.

use crate::{Error, Ocr, Result, until::Until};
use agx_ocr_backend::{Error as BackendError, Observer};
use agx_ocr_language::{Error as LanguageError, Prompt, Wanted};
use agx_ocr_text::{Task, prompt_ids};
use agx_ocr_vision::views::Views;
use candle_core::{DType, Tensor};
use std::{cell::RefCell, fmt};

/// Stops at the first value that is not finite, and remembers the stage that made it; stops without
/// one when the page's time is over.
struct Finite<'a> {
    stage: RefCell<Option<String>>,
    until: &'a Until,
}

impl Observer for Finite<'_> {
    fn observe(&self, stage: fmt::Arguments<'_>, value: &Tensor) -> agx_ocr_backend::Result<()> {
        if self.until.stopped().is_some() {
            return Err(BackendError::Stopped(format!("after {stage}")));
        }
        if is_finite(value)? {
            return Ok(());
        }
        let stage = stage.to_string();
        let stopped = BackendError::Stopped(format!("{stage} is not finite"));
        *self.stage.borrow_mut() = Some(of_any_view(&stage).to_owned());
        Err(stopped)
    }
}

/// The stage without the view that it worked on: the weights are the same for all views.
fn of_any_view(stage: &str) -> &str {
    match stage.split_once('.') {
        Some((view, rest)) if view == "global" || view.starts_with("tiles") => rest,
        _ => stage,
    }
}

/// Whether all values of an f32 tensor are finite; other types hold no results of arithmetic.
pub(crate) fn is_finite(value: &Tensor) -> agx_ocr_backend::Result<bool> {
    if value.dtype() != DType::F32 {
        return Ok(true);
    }
    let values = value.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.iter().all(|v| v.is_finite()))
}

impl Ocr {
    /// The same error, but [`Error::Damaged`] with the place of the damage where it says that the
    /// model's results are not finite. `views` and `task` are those that failed, `answered` the
    /// tokens that the model had given by then. Nothing is looked for when it is time to stop.
    pub(crate) fn locate_damage(
        &self,
        error: Error,
        views: &Views,
        task: &Task,
        answered: &[u32],
        until: &Until,
    ) -> Error {
        if !matches!(error, Error::Language(LanguageError::NotFinite(_))) {
            return error;
        }
        match self.first_not_finite(views, task, answered, until) {
            Ok(Some(stage)) => Error::Damaged(stage),
            // Rounded otherwise than the single steps, or out of time, nothing may be found: then
            // that remains.
            _ => error,
        }
    }

    /// Reads `views` up to the token behind the `answered` ones, and gives the first stage whose
    /// result has a value that is not finite, as in `sam.block3` or `layer0.mlp`; `None` when all
    /// are finite.
    ///
    /// # Errors
    /// When reading fails in another way, or `until` stops it.
    pub(crate) fn first_not_finite(
        &self,
        views: &Views,
        task: &Task,
        answered: &[u32],
        until: &Until,
    ) -> Result<Option<String>> {
        let stage = RefCell::default();
        let observer = Finite { stage, until };
        let result = self.read_observed(views, task, answered, &observer);
        match (observer.stage.into_inner(), result) {
            (Some(stage), _) => Ok(Some(stage)),
            (None, Err(error)) => Err(error),
            (None, Ok(logits)) => Ok((!is_finite(&logits)?).then(|| "lm_head".to_owned())),
        }
    }

    /// The logits behind the prompt and `answered`.
    fn read_observed(
        &self,
        views: &Views,
        task: &Task,
        answered: &[u32],
        observer: &dyn Observer,
    ) -> Result<Tensor> {
        let vision = self.encoder.encode(views, observer, &mut |_, _| {})?;
        let rows = vision.dim(0).map_err(BackendError::from)?;
        let prompt = prompt_ids(&self.tokenizer, &task.prompt()?, rows)?;
        let mut ids = prompt.ids;
        ids.extend(answered);
        let embeddings = self.decoder.embed_prompt(&Prompt {
            ids: &ids,
            image: prompt.image,
            vision: &vision,
        })?;
        let mut cache = self.decoder.cache(ids.len());
        let wanted = Wanted::Last;
        let last = self
            .decoder
            .forward(embeddings, &mut cache, wanted, observer)?;
        Ok(self.decoder.logits(&last, observer)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, Mode, Options};
    use agx_ocr_backend::Unobserved;
    use agx_ocr_vision::views::{self, ViewMode};
    use image::RgbImage;
    use serde_json::Value;
    use std::{
        fs::{self, File},
        io::{Read, Seek, SeekFrom, Write},
        path::{Path, PathBuf},
        time::Duration,
    };
    use tempfile::TempDir;

    const NAN: u16 = 0x7fc0;
    const INFINITE: u16 = 0x7f80;

    /// A copy of the model of the parity tests, whose weights can be damaged and mended again.
    struct Model {
        dir: TempDir,
        header: Value,
        data: u64,
    }

    impl Model {
        fn new() -> Self {
            let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/parity/tiny");
            let dir = tempfile::tempdir().unwrap();
            for file in ["config.json", "tokenizer.json", "model.safetensors"] {
                fs::copy(from.join(file), dir.path().join(file)).unwrap();
            }
            let mut file = File::open(dir.path().join("model.safetensors")).unwrap();
            let mut length = [0; 8];
            file.read_exact(&mut length).unwrap();
            let length = u64::from_le_bytes(length);
            let mut header = vec![0; length as usize];
            file.read_exact(&mut header).unwrap();
            Self {
                dir,
                header: serde_json::from_slice(&header).unwrap(),
                data: 8 + length,
            }
        }

        fn file(&self) -> PathBuf {
            self.dir.path().join("model.safetensors")
        }

        fn load(&self) -> Ocr {
            Ocr::load(self.dir.path(), Options::default()).unwrap()
        }

        /// Writes `bits` to value `index` of a tensor; the result is what was there.
        fn write(&self, name: &str, index: u64, bits: u16) -> u16 {
            let start = self.header[name]["data_offsets"][0].as_u64();
            let at = self.data + start.expect(name) + 2 * index;
            let mut file = File::options().read(true).write(true).open(self.file());
            let file = file.as_mut().unwrap();
            let mut before = [0; 2];
            file.seek(SeekFrom::Start(at)).unwrap();
            file.read_exact(&mut before).unwrap();
            file.seek(SeekFrom::Start(at)).unwrap();
            file.write_all(&bits.to_le_bytes()).unwrap();
            u16::from_le_bytes(before)
        }

        /// What is found with `bits` at the start of a tensor, which is mended again.
        fn with<T>(&self, name: &str, bits: u16, f: impl FnOnce(&Ocr) -> T) -> T {
            let before = self.write(name, 0, bits);
            let result = f(&self.load());
            assert_eq!(self.write(name, 0, before), bits);
            result
        }
    }

    /// A page with something on it, in one view with tiles or without.
    fn page(mode: &ViewMode) -> Views {
        let image = RgbImage::from_fn(900, 500, |x, y| {
            image::Rgb([(x % 251) as u8, (y % 241) as u8, (x * y % 239) as u8])
        });
        views::prepare(&image, mode).unwrap()
    }

    fn find(ocr: &Ocr, views: &Views) -> Option<String> {
        let find = || ocr.first_not_finite(views, &Task::Text, &[], &Until::new(None));
        ocr.threads.install(find).unwrap()
    }

    #[test]
    fn the_first_stage_is_named() {
        let model = Model::new();
        let views = page(&ViewMode::TINY);
        assert_eq!(find(&model.load(), &views), None, "healthy");
        for (tensor, stage) in [
            ("model.sam_model.patch_embed.proj.weight", "sam.patch_embed"),
            ("model.sam_model.pos_embed", "sam.block0"),
            ("model.sam_model.blocks.1.attn.qkv.weight", "sam.block1"),
            ("model.sam_model.blocks.2.attn.rel_pos_h", "sam.block2"),
            ("model.sam_model.blocks.2.norm1.bias", "sam.block2"),
            ("model.sam_model.blocks.3.mlp.lin1.weight", "sam.block3"),
            ("model.sam_model.neck.2.weight", "sam.neck"),
            ("model.sam_model.net_2.weight", "sam.net_2"),
            ("model.sam_model.net_3.weight", "sam"),
            (
                "model.vision_model.embeddings.class_embedding",
                "clip.embeddings",
            ),
            (
                "model.vision_model.transformer.layers.1.mlp.fc1.weight",
                "clip.layer1",
            ),
            (
                "model.vision_model.transformer.layers.2.self_attn.qkv_proj.bias",
                "clip.layer2",
            ),
            ("model.projector.layers.weight", "proj"),
            ("model.image_newline", "seq"),
            ("model.view_seperator", "seq"),
            // The row of the token that begins every prompt.
            ("model.embed_tokens.weight", "embeds"),
            ("model.layers.0.input_layernorm.weight", "layer0.attn"),
            ("model.layers.0.mlp.up_proj.weight", "layer0.mlp"),
            ("model.layers.1.self_attn.q_proj.weight", "layer1.attn"),
            ("model.layers.1.self_attn.k_proj.weight", "layer1.attn"),
            ("model.layers.1.self_attn.v_proj.weight", "layer1.attn"),
            ("model.layers.2.mlp.gate.weight", "layer2.router.weight"),
            (
                "model.layers.2.mlp.shared_experts.down_proj.weight",
                "layer2.mlp",
            ),
            ("model.norm.weight", "norm.out"),
            ("lm_head.weight", "lm_head"),
        ] {
            let found = model.with(tensor, NAN, |ocr| find(ocr, &views));
            assert_eq!(found.as_deref(), Some(stage), "{tensor}");
        }
        assert_eq!(find(&model.load(), &views), None, "mended");
    }

    #[test]
    fn infinity_is_no_number_either() {
        let model = Model::new();
        let views = page(&ViewMode::TINY);
        for (tensor, stage) in [
            ("model.sam_model.blocks.0.mlp.lin2.bias", "sam.block0"),
            ("model.layers.1.self_attn.o_proj.weight", "layer1.attn"),
            ("lm_head.weight", "lm_head"),
        ] {
            let found = model.with(tensor, INFINITE, |ocr| find(ocr, &views));
            assert_eq!(found.as_deref(), Some(stage), "{tensor}");
        }
    }

    #[test]
    fn tiles_are_looked_at_before_the_whole() {
        let mode = ViewMode::Tiled {
            base: 512,
            tile: 512,
            max_tiles: 2,
        };
        let views = page(&mode);
        assert!(views.tiles.is_some());
        let tensor = "model.sam_model.blocks.1.mlp.lin1.bias";
        let found = Model::new().with(tensor, NAN, |ocr| find(ocr, &views));
        assert_eq!(found.as_deref(), Some("sam.block1"));
        for (stage, wanted) in [
            ("tiles3.sam.neck", "sam.neck"),
            ("global.proj", "proj"),
            ("layer0.mlp", "layer0.mlp"),
            ("seq", "seq"),
        ] {
            assert_eq!(of_any_view(stage), wanted);
        }
    }

    #[test]
    fn what_only_an_answer_uses_is_found_behind_it() {
        let model = Model::new();
        let views = page(&ViewMode::TINY);
        // The row of a token that no prompt has.
        let (token, width) = (300, 64);
        model.write("model.embed_tokens.weight", token * width, NAN);
        let ocr = model.load();
        let find = |answered: &[u32]| {
            let find = || ocr.first_not_finite(&views, &Task::Text, answered, &Until::new(None));
            ocr.threads.install(find).unwrap()
        };
        assert_eq!(find(&[]), None);
        assert_eq!(find(&[299, 301]), None);
        assert_eq!(find(&[299, 300]).as_deref(), Some("embeds"));
    }

    #[test]
    fn an_error_names_the_damage() {
        let model = Model::new();
        let views = page(&ViewMode::TINY);
        let locate_until = |ocr: &Ocr, error, time: Option<Duration>| {
            ocr.threads
                .install(|| ocr.locate_damage(error, &views, &Task::Text, &[], &Until::new(time)))
        };
        let locate = |ocr: &Ocr, error| locate_until(ocr, error, None);
        let not_finite = || Error::Language(LanguageError::NotFinite(0));
        let error = model.with("model.layers.0.mlp.down_proj.weight", NAN, |ocr| {
            locate(ocr, not_finite())
        });
        assert_eq!(
            error.to_string(),
            "the model computed something that is not a number in layer0.mlp: its weights are \
             damaged, fetch its files again"
        );
        assert_eq!(error.kind(), ErrorKind::Invalid);
        // Nothing is found: what was said stands, and is the model's fault.
        let error = locate(&model.load(), not_finite());
        assert!(
            matches!(error, Error::Language(LanguageError::NotFinite(0))),
            "{error}"
        );
        assert_eq!(error.kind(), ErrorKind::Invalid);
        // Without time nothing is looked for.
        let error = model.with("model.norm.weight", NAN, |ocr| {
            locate_until(ocr, not_finite(), Some(Duration::ZERO))
        });
        assert!(matches!(error, Error::Language(_)), "{error}");
        let error = model.with("model.norm.weight", NAN, |ocr| {
            locate(ocr, Error::Options("another".into()))
        });
        assert!(matches!(error, Error::Options(_)), "{error}");
    }

    #[test]
    fn no_text_comes_of_damaged_weights() {
        let model = Model::new();
        let options = crate::ReadOptions {
            mode: Mode::Tiny,
            max_tokens: Some(4),
            ..Default::default()
        };
        let image = RgbImage::from_fn(640, 200, |x, y| image::Rgb([(x ^ y) as u8; 3]));
        for tensor in [
            "model.sam_model.blocks.3.attn.proj.weight",
            "model.vision_model.pre_layrnorm.weight",
            "model.layers.2.self_attn.k_proj.weight",
            "lm_head.weight",
        ] {
            let error = model.with(tensor, NAN, |ocr| {
                let read = ocr.read_image(&image, &Task::Text, &options, |_| {
                    std::ops::ControlFlow::Continue(())
                });
                read.map(|page| page.text).unwrap_err()
            });
            assert!(matches!(error, Error::Damaged(_)), "{tensor}: {error}");
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
    }

    #[test]
    fn observing_changes_nothing() {
        let ocr = Model::new().load();
        let views = page(&ViewMode::GUNDAM);
        let logits = |observer: &dyn Observer| {
            let logits = ocr.read_observed(&views, &Task::Markdown, &[7, 8], observer);
            let logits = logits.unwrap().flatten_all().unwrap();
            logits.to_vec1::<f32>().unwrap()
        };
        let plain = logits(&Unobserved);
        assert_eq!(plain.len(), 512);
        assert!(plain.iter().any(|v| *v != plain[0]));
        let (stage, until) = (RefCell::default(), &Until::new(None));
        assert_eq!(logits(&Finite { stage, until }), plain);
    }
}
