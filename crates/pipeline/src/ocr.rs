//! A loaded model, and what it does with a page.

use crate::{
    Error, Event, Options, Page, Precision, ReadOptions, Result,
    input::{DecodedImage, Document},
    machine::read_by_every_token,
    memory::{self, Needs, Use, available_memory},
    model_dir::{Defaults, ModelDir},
    reading::Asked,
    until::Until,
};
use agx_ocr_backend::{
    Activations, Checkpoint, Cores, Elements, NoGpu, OpenDevice, TensorInfo, close_device, in_turn,
    open_device,
};
use agx_ocr_language::Decoder;
use agx_ocr_text::{Task, Tokenizer};
use agx_ocr_vision::{VisionConfig, VisionEncoder};
use candle_core::Device;
use image::RgbImage;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::{ops::ControlFlow, panic::resume_unwind, path::Path, thread, time::Instant};

/// Bytes of a GPU's memory that reading takes beside the weights, amply: keys and values of the longest
/// answer, and what the layers work with.
const GPU_WORK: u64 = 1_500_000_000;

/// Bytes of a GPU's memory that a model needs.
fn gpu_needs(checkpoint: &Checkpoint, elements: Elements) -> u64 {
    let weights = checkpoint.size() as u64;
    match elements {
        Elements::F32 => 2 * weights + GPU_WORK,
        Elements::Bf16 | Elements::F16 => weights + GPU_WORK,
    }
}

/// Bytes of a thread's stack, whatever the environment says.
const STACK: usize = 2 << 20;

/// A model, ready to read pages. It can be shared between threads, and reads many pages.
#[derive(Debug)]
pub struct Ocr {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) encoder: VisionEncoder,
    pub(crate) decoder: Decoder,
    pub(crate) defaults: Defaults,
    pub(crate) vision: VisionConfig,
    pub(crate) weights: Vec<TensorInfo>,
    weight_bytes: usize,
    pub(crate) threads: ThreadPool,
    name: String,
    options: Options,
    fallback: Option<NoGpu>,
    /// Last: the others are on it.
    _device: OnDevice,
}

/// The device that a model was loaded to, which is given back with it.
#[derive(Debug)]
struct OnDevice(Device);

impl Drop for OnDevice {
    fn drop(&mut self) {
        close_device(&self.0);
    }
}

impl Ocr {
    /// Loads the model in a directory, or in a safetensors file with its other files beside it.
    /// The weights are mapped, not read: this is quick, and memory fills as they are used. They
    /// must not be changed meanwhile.
    ///
    /// The path may be a symbolic link. A link among the model's files is followed only where it
    /// stays in the model's directory: a model that somebody else made shall not choose what else
    /// is read. The exception is how Hugging Face's tools keep a download, where the files in
    /// `snapshots/<revision>` are links into the directory `blobs` beside `snapshots`. Pipes and
    /// devices are not opened, and nothing is read that is larger than any file of its kind.
    ///
    /// # Errors
    /// When a file is missing, broken or such a link, tensors are not those of the configuration,
    /// or the system has too little memory ([`Error::Memory`](crate::Error::Memory);
    /// [`Options::check_memory`]).
    pub fn load(path: impl AsRef<Path>, options: Options) -> Result<Self> {
        let dir = ModelDir::open(path.as_ref())?;
        let tokenizer = Tokenizer::from_bytes(&dir.tokenizer)?;
        let (vision, language) = dir.sizes(&tokenizer)?;
        let (activations, elements) = match options.precision {
            Precision::Auto | Precision::Bf16 => (Activations::Bf16, Elements::Bf16),
            Precision::F16 => (Activations::Bf16, Elements::F16),
            Precision::F32 => (Activations::F32, Elements::F32),
        };
        // Before the weights are mapped: they are among what is needed.
        let available = options.check_memory.then(available_memory).flatten();
        let checkpoint = Checkpoint::open(&dir.weights)?;
        let opened = open_device(options.device, elements, gpu_needs(&checkpoint, elements))?;
        let OpenDevice { device, fallback } = opened;
        let _device = OnDevice(device.clone());
        if device.is_cpu() && options.precision == Precision::F16 {
            let reason = fallback.map(|why| format!(" (no GPU: {why})"));
            let reason = reason.unwrap_or_default();
            let message = format!("a CPU has no f16 products here: choose bf16 or f32{reason}");
            return Err(Error::Options(message));
        }
        let threads = options.threads.unwrap_or_else(|| Cores::detect().threads());
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("agx-ocr-{i}"))
            .stack_size(STACK)
            .build()?;
        let (encoder, decoder) = pool.install(|| {
            checkpoint.build(&device, activations, |loader| {
                let encoder = VisionEncoder::new(&vision, &loader.sub("model"));
                (encoder, Decoder::new(&language, loader))
            })
        })?;
        // The weights are not touched yet.
        if device.is_cpu() {
            let of = Use {
                vision: &vision,
                language: &language,
                weights: checkpoint.size(),
                tokenizer: dir.tokenizer.len(),
                threads,
                views: &memory::views(&options, &dir.defaults),
                max_tokens: options.read.max_tokens.unwrap_or(dir.defaults.max_tokens),
            };
            Needs::new(&of).check(available)?;
        }
        Ok(Self {
            tokenizer,
            encoder: encoder?,
            decoder,
            defaults: dir.defaults,
            vision,
            weights: read_by_every_token(&checkpoint),
            weight_bytes: checkpoint.size(),
            threads: pool,
            name: dir.name,
            fallback,
            _device,
            options,
        })
    }

    /// Does `work` with the model's threads. On a GPU one at a time works with a model: a step is
    /// recorded from what happens there, and nothing else may happen meanwhile.
    pub(crate) fn compute<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        let device = self.decoder.device();
        if device.is_cpu() {
            return self.threads.install(work);
        }
        let compute = || in_turn(device, || self.threads.install(work));
        match rayon::current_thread_index() {
            None => compute(),
            // While it waits, a pool's thread does other work, which might want the turn that it has.
            Some(_) => thread::scope(|scope| {
                let done = scope.spawn(compute).join();
                done.unwrap_or_else(|panic| resume_unwind(panic))
            }),
        }
    }

    /// Why it computes on the CPU although a GPU might have been meant: with
    /// [`DeviceChoice::Auto`](crate::DeviceChoice::Auto), in a build that can use one.
    pub fn fallback(&self) -> Option<&NoGpu> {
        self.fallback.as_ref()
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes of all weights, which lie in the mapped file.
    pub fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }

    /// Opens a document within the limits of the options that the model was loaded with
    /// ([`Options::limits`]), as [`Ocr::read`] does. One that was opened with others
    /// ([`Document::open`]) keeps those, here too.
    ///
    /// # Errors
    /// As [`Document::open`].
    pub fn open(&self, bytes: impl Into<Vec<u8>>) -> Result<Document> {
        Ok(Document::open(bytes, &self.options.limits)?)
    }

    /// Reads the page in the bytes of an image; of a document with several, the first, with a
    /// warning.
    ///
    /// # Errors
    /// When the image cannot be decoded, or reading it fails.
    pub fn read(&self, bytes: &[u8], task: &Task) -> Result<Page> {
        self.read_streaming(bytes, task, |_| ControlFlow::Continue(()))
    }

    /// [`Ocr::read`], telling `on_event` what happens; it may stop the reading, and what was read
    /// by then is the page.
    ///
    /// # Errors
    /// As [`Ocr::read`].
    pub fn read_streaming(
        &self,
        bytes: &[u8],
        task: &Task,
        on_event: impl FnMut(Event<'_>) -> ControlFlow<()> + Send,
    ) -> Result<Page> {
        self.read_with(bytes, task, &self.options.read, on_event)
    }

    /// [`Ocr::read_streaming`] with options for this page.
    ///
    /// # Errors
    /// As [`Ocr::read`], and when an option is out of range.
    pub fn read_with(
        &self,
        bytes: &[u8],
        task: &Task,
        options: &ReadOptions,
        on_event: impl FnMut(Event<'_>) -> ControlFlow<()> + Send,
    ) -> Result<Page> {
        let document = self.open(bytes)?;
        let mut page = self.read_page(&document, 1, task, options, on_event)?;
        let pages = document.pages();
        if pages > 1 {
            let warning = format!("The document has {pages} pages: only the first was read.");
            page.warnings.insert(0, warning);
        }
        Ok(page)
    }

    /// Reads all pages of a document, one after the other, as the iterator is asked for them. A
    /// page that fails does not take the others with it. More pages than the document's limits allow
    /// can be read one by one ([`Ocr::read_page`]).
    ///
    /// # Errors
    /// [`InputError::TooManyPages`](crate::input::InputError::TooManyPages), before any is read.
    ///
    /// ```no_run
    /// # use agx_ocr_pipeline::{Ocr, Options, Task};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let ocr = Ocr::load("models/deepseek-ocr", Options::default())?;
    /// let document = ocr.open(std::fs::read("contract.pdf")?)?;
    /// for (number, page) in (1..).zip(ocr.read_pages(&document, &Task::Markdown)?) {
    ///     match page {
    ///         Ok(page) => println!("{}", page.text),
    ///         Err(error) => eprintln!("page {number}: {error}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_pages<'a>(
        &'a self,
        document: &'a Document,
        task: &'a Task,
    ) -> Result<impl Iterator<Item = Result<Page>> + 'a> {
        document.check_pages(document.pages())?;
        let read = move |number| {
            let options = &self.options.read;
            let on_event = |_: Event<'_>| ControlFlow::Continue(());
            self.read_page(document, number, task, options, on_event)
        };
        Ok((1..=document.pages()).map(read))
    }

    /// Reads one page of a document, counted from 1.
    ///
    /// # Errors
    /// As [`Ocr::read_with`], and when there is no such page.
    pub fn read_page(
        &self,
        document: &Document,
        number: usize,
        task: &Task,
        options: &ReadOptions,
        on_event: impl FnMut(Event<'_>) -> ControlFlow<()> + Send,
    ) -> Result<Page> {
        let decoded = document.page(number, &options.rendering)?;
        self.read_decoded(&decoded, task, options, on_event)
    }

    /// Reads a page of a document that is decoded already.
    ///
    /// # Errors
    /// As [`Ocr::read_with`].
    pub fn read_decoded(
        &self,
        decoded: &DecodedImage,
        task: &Task,
        options: &ReadOptions,
        on_event: impl FnMut(Event<'_>) -> ControlFlow<()> + Send,
    ) -> Result<Page> {
        let page = self.read_image(&decoded.image, task, options, on_event)?;
        Ok(page.of(decoded))
    }

    /// Reads an upright image. On a GPU pages take turns, and `on_event` must not read any.
    ///
    /// # Errors
    /// As [`Ocr::read_with`].
    pub fn read_image(
        &self,
        image: &RgbImage,
        task: &Task,
        options: &ReadOptions,
        mut on_event: impl FnMut(Event<'_>) -> ControlFlow<()> + Send,
    ) -> Result<Page> {
        let asked = Asked {
            image,
            task,
            options,
        };
        let until = Until::new(options.time);
        self.compute(|| self.read_upright(asked, until, &mut on_event))
    }
}

/// Milliseconds since `start`, to the microsecond.
pub(crate) fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_micros() as f64 / 1e3
}
