//! An open device.

use super::{blas::Blas, launch::Arg};
use crate::{Capability, LEAST, Result, device::Contents};
use agx_ocr_kernels::half::{bf16, f16};
use candle_core::{
    CudaDevice, CudaStorage, DType, Device, Error, Shape, Storage, Tensor,
    cuda_backend::{
        CudaStorageSlice, WrapErr,
        cudarc::{
            driver::{
                CudaFunction, CudaModule, CudaStream, DevicePtr, result::memcpy_htod_async, sys,
            },
            nvrtc::Ptx,
        },
    },
    op::BackpropOp,
};
use flate2::read::GzDecoder;
use std::{
    any::Any,
    collections::HashMap,
    fmt,
    io::Read,
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock},
    thread::{self, ScopedJoinHandle},
};

/// The kernels of one source file: text for the driver's compiler, compressed.
#[cfg(not(agx_ocr_fatbin))]
macro_rules! kernels {
    ($name:literal) => {
        include_bytes!(concat!("ptx/", $name, ".ptx.gz"))
    };
}
/// The kernels of one source file: machine code for several architectures.
#[cfg(agx_ocr_fatbin)]
macro_rules! kernels {
    ($name:literal) => {
        include_bytes!(concat!(env!("AGX_OCR_FATBINS"), "/", $name, ".fatbin"))
    };
}

const MODULES: [&[u8]; 8] = [
    kernels!("rows"),
    kernels!("attention"),
    kernels!("attention_any"),
    kernels!("experts"),
    kernels!("decode"),
    kernels!("pick"),
    kernels!("batch"),
    kernels!("flash"),
];

/// The architectures of the machine code in [`MODULES`], as the release's recipe names them:
/// `80,90,120`.
const MACHINE: &str = match option_env!("AGX_OCR_FATBIN_ARCHITECTURES") {
    Some(list) if cfg!(agx_ocr_fatbin) => list,
    _ => "",
};

/// What of this build a GPU may run.
pub(super) fn contents() -> Contents<'static> {
    static PARSED: OnceLock<Vec<Capability>> = OnceLock::new();
    let parse = |name: &str| {
        let number: u32 = name.trim().parse().ok()?;
        let (major, minor) = (number / 10, number % 10);
        Some(Capability { major, minor })
    };
    Contents {
        machine: PARSED.get_or_init(|| MACHINE.split(',').filter_map(parse).collect()),
        text: Some(LEAST),
    }
}

/// The devices that are open, each with a stream of its own.
static OPEN: RwLock<Vec<Arc<Gpu>>> = RwLock::new(Vec::new());

/// An open device: its stream, its kernels, and the element type of its large products.
pub(crate) struct Gpu {
    device: CudaDevice,
    stream: Arc<CudaStream>,
    modules: Vec<Arc<CudaModule>>,
    functions: RwLock<HashMap<String, CudaFunction>>,
    /// Its workspace is one for all.
    pub(super) blas: Mutex<Blas>,
    /// Bytes a second at which a model's weights came.
    upload: Mutex<Option<f64>>,
    /// Held by whoever computes on the device.
    turn: Mutex<()>,
    dtype: DType,
    multiprocessors: usize,
    /// Memory that kernels work in, by its name and number of values. It stays where it is: recorded
    /// steps know its addresses.
    scratch: Mutex<HashMap<(&'static str, usize), Tensor>>,
}

impl Gpu {
    /// Opens the device with this number for products of `dtype`: bf16, f16 or f32.
    ///
    /// # Errors
    /// When there is no such device, its driver or libraries fail, or it cannot run the kernels.
    pub(crate) fn open(ordinal: usize, dtype: DType) -> Result<Arc<Self>> {
        let device = CudaDevice::new_with_stream(ordinal)?;
        // SAFETY: all work is on one stream, in the order of the calls; frees are too.
        unsafe { device.disable_event_tracking() };
        let stream = device.cuda_stream();
        keep_memory(&stream)?;
        let count = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        let multiprocessors = stream.context().attribute(count);
        let context = stream.context();
        let load = |kernels: &[u8]| -> Result<_> {
            let image = Ptx::from_binary(unpacked(kernels)?);
            Ok(context.load_module(image).w()?)
        };
        let load = &load;
        // The driver may have to compile them. The threads are no pool's, whose other work would come
        // in between.
        let modules = thread::scope(|scope| {
            let loads = MODULES.map(|kernels| scope.spawn(move || load(kernels)));
            let load = |load: ScopedJoinHandle<'_, Result<_>>| load.join().unwrap_or_else(gave_up);
            loads.into_iter().map(load).collect::<Result<_>>()
        })?;
        let gpu = Arc::new(Self {
            modules,
            functions: RwLock::default(),
            blas: Mutex::new(Blas::new()?),
            upload: Mutex::default(),
            turn: Mutex::default(),
            scratch: Mutex::default(),
            multiprocessors: usize::try_from(multiprocessors.w()?).unwrap_or(1),
            dtype,
            device,
            stream,
        });
        let mut open = OPEN.write().unwrap_or_else(PoisonError::into_inner);
        open.push(gpu.clone());
        Ok(gpu)
    }

    /// Forgets a device that was opened, with its kernels and what they work in, once nobody has it.
    pub(crate) fn close(device: &Device) {
        if let Device::Cuda(device) = device {
            let mut open = OPEN.write().unwrap_or_else(PoisonError::into_inner);
            open.retain(|gpu| gpu.device.id() != device.id());
        }
    }

    /// Does `work` while nobody else computes on the device: a step is recorded from what happens
    /// there, and nothing else may happen meanwhile.
    pub(crate) fn in_turn<R>(&self, work: impl FnOnce() -> R) -> R {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        work()
    }

    /// The open device that a tensor lies on; `None` for the CPU.
    pub(crate) fn of(device: &Device) -> Result<Option<Arc<Self>>> {
        let Device::Cuda(device) = device else {
            return Ok(None);
        };
        let open = OPEN.read().unwrap_or_else(PoisonError::into_inner);
        let found = open.iter().find(|gpu| gpu.device.id() == device.id());
        match found {
            Some(gpu) => Ok(Some(gpu.clone())),
            None => Err(Error::Msg("a device that was opened elsewhere".into()).into()),
        }
    }

    /// As candle knows it.
    pub(crate) fn device(&self) -> Device {
        Device::Cuda(self.device.clone())
    }

    pub(super) fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// The element type of weights and large products.
    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    /// How many multiprocessors it has.
    pub(super) fn multiprocessors(&self) -> usize {
        self.multiprocessors
    }

    /// Notes that a model's weights came with so many bytes a second.
    pub(super) fn note_upload(&self, rate: f64) {
        *self.upload.lock().unwrap_or_else(PoisonError::into_inner) = Some(rate);
    }

    /// Bytes a second at which the last model's weights came.
    pub(super) fn upload(&self) -> Option<f64> {
        *self.upload.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory for kernels to work in: always the same for a name and a number of values, with all
    /// its bytes `fill` at first. All work is on one stream, so one call's values are gone only
    /// with the next.
    pub(super) fn scratch(
        &self,
        name: &'static str,
        count: usize,
        dtype: DType,
        fill: u8,
    ) -> Result<Tensor> {
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tensor) = scratch.get(&(name, count)) {
            return Ok(tensor.clone());
        }
        let tensor = match fill {
            0 => self.zeros(count.max(1), dtype)?,
            _ => {
                let tensor = self.empty(count.max(1), dtype)?;
                let words = tensor.elem_count() * dtype.size_in_bytes() / 4;
                self.write(&tensor, &vec![u32::from_ne_bytes([fill; 4]); words])?;
                tensor
            }
        };
        scratch.insert((name, count), tensor.clone());
        Ok(tensor)
    }

    /// The kernel with this name.
    pub(super) fn function(&self, name: &str) -> Result<CudaFunction> {
        let functions = self
            .functions
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = functions.get(name) {
            return Ok(function.clone());
        }
        drop(functions);
        let mut found = self.modules.iter().map(|module| module.load_function(name));
        let missing = || Error::Msg(format!("no kernel {name}"));
        let function = found.find_map(Result::ok).ok_or_else(missing)?;
        let mut functions = self
            .functions
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        functions.insert(name.to_owned(), function.clone());
        Ok(function)
    }

    /// A tensor whose values are whatever was in its memory.
    pub(super) fn empty(&self, shape: impl Into<Shape>, dtype: DType) -> Result<Tensor> {
        let shape = shape.into();
        // No empty allocations.
        let count = shape.elem_count().max(1);
        // SAFETY: these element types hold any bits, and the caller writes before anybody reads.
        let slice = unsafe {
            match dtype {
                DType::F32 => CudaStorageSlice::F32(self.device.alloc::<f32>(count)?),
                DType::BF16 => CudaStorageSlice::BF16(self.device.alloc::<bf16>(count)?),
                DType::F16 => CudaStorageSlice::F16(self.device.alloc::<f16>(count)?),
                DType::U32 => CudaStorageSlice::U32(self.device.alloc::<u32>(count)?),
                DType::I64 => CudaStorageSlice::I64(self.device.alloc::<i64>(count)?),
                _ => return Err(Error::Msg(format!("no tensors of {dtype:?} here")).into()),
            }
        };
        let device = self.device.clone();
        let storage = Storage::Cuda(CudaStorage { slice, device });
        Ok(Tensor::from_storage(
            storage,
            shape,
            BackpropOp::none(),
            false,
        ))
    }

    /// A tensor of zeros.
    pub(super) fn zeros(&self, shape: impl Into<Shape>, dtype: DType) -> Result<Tensor> {
        Ok(Tensor::zeros(shape, dtype, &self.device())?)
    }

    /// Writes words to the start of a tensor.
    pub(super) fn write(&self, to: &Tensor, words: &[u32]) -> Result<()> {
        self.write_at(to, 0, words)
    }

    /// Writes words into a tensor, from its word `at` on. The host may have to wait for the work
    /// before.
    pub(super) fn write_at(&self, to: &Tensor, at: usize, words: &[u32]) -> Result<()> {
        let start = self.words(to, at, words.len())?;
        // SAFETY: the tensor has room for them, and the driver takes what is not pinned before it
        // returns.
        unsafe { memcpy_htod_async(start, words, self.stream.cu_stream()) }.w()?;
        Ok(())
    }

    /// Sets `count` words of a tensor, from its word `at` on. The host waits for nothing.
    pub(super) fn fill(&self, to: &Tensor, at: usize, word: u32, count: usize) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let start = self.words(to, at, count)?;
        // SAFETY: the tensor has room for them.
        unsafe { sys::cuMemsetD32Async(start, word, count, self.stream.cu_stream()) }
            .result()
            .w()?;
        Ok(())
    }

    /// The address of a tensor's word `at`, behind which it has `count`.
    fn words(&self, x: &Tensor, at: usize, count: usize) -> Result<u64> {
        if x.elem_count() * x.dtype().size_in_bytes() < 4 * (at + count) {
            return Err(Error::Msg("too many words".into()).into());
        }
        Ok(self.pointer(x)? + 4 * at as u64)
    }

    /// [`Self::pointer`] as an argument.
    pub(super) fn address(&self, x: &Tensor) -> Result<Arg> {
        self.pointer(x).map(Arg::Pointer)
    }

    /// [`Self::start_pointer`] as an argument.
    pub(super) fn start(&self, x: &Tensor) -> Result<Arg> {
        self.start_pointer(x).map(Arg::Pointer)
    }

    /// The address of the first value of `x`, whose values lie one behind the other.
    pub(super) fn pointer(&self, x: &Tensor) -> Result<u64> {
        if !x.is_contiguous() {
            return Err(Error::Msg(format!(
                "strides of {:?} are not as they should be",
                x.shape()
            ))
            .into());
        }
        self.start_pointer(x)
    }

    /// The address of the first value of `x`, whatever its strides.
    fn start_pointer(&self, x: &Tensor) -> Result<u64> {
        let (storage, layout) = x.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else {
            return Err(Error::Msg("a tensor on the CPU among those on a GPU".into()).into());
        };
        let stream = &self.stream;
        let start = match &storage.slice {
            CudaStorageSlice::F32(slice) => slice.device_ptr(stream).0,
            CudaStorageSlice::BF16(slice) => slice.device_ptr(stream).0,
            CudaStorageSlice::F16(slice) => slice.device_ptr(stream).0,
            CudaStorageSlice::U32(slice) => slice.device_ptr(stream).0,
            CudaStorageSlice::I64(slice) => slice.device_ptr(stream).0,
            CudaStorageSlice::U8(slice) => slice.device_ptr(stream).0,
            _ => return Err(Error::Msg(format!("no tensors of {:?} here", x.dtype())).into()),
        };
        let offset = layout.start_offset() * x.dtype().size_in_bytes();
        Ok(start + offset as u64)
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gpu")
            .field("device", &self.device)
            .field("dtype", &self.dtype)
            .finish_non_exhaustive()
    }
}

/// A thread that loads kernels panicked: cudarc does where a library lacks a function.
fn gave_up<T>(_: Box<dyn Any + Send>) -> Result<T> {
    Err(Error::Msg("the driver's functions cannot be called".into()).into())
}

/// Kernels as the driver takes them. Text ends with a zero.
fn unpacked(kernels: &[u8]) -> Result<Vec<u8>, Error> {
    if cfg!(agx_ocr_fatbin) {
        return Ok(kernels.to_vec());
    }
    let mut text = Vec::new();
    GzDecoder::new(kernels).read_to_end(&mut text)?;
    text.push(0);
    Ok(text)
}

impl Gpu {
    /// Gives memory back that is kept for later, so that what needs it otherwise can have it: recorded
    /// work and other allocations do not share what they keep.
    pub(super) fn trim(&self) -> Result<()> {
        self.stream.synchronize().w()?;
        // SAFETY: the context lives as long as the stream.
        unsafe {
            let mut pool = std::ptr::null_mut();
            let device = self.stream.context().cu_device();
            let found = sys::cuDeviceGetDefaultMemPool(&mut pool, device);
            found.result().w()?;
            sys::cuMemPoolTrimTo(pool, 0).result().w()?;
            sys::cuDeviceGraphMemTrim(device).result().w()?;
        }
        Ok(())
    }
}

/// Keeps what is freed for the next allocation, which then costs no call to the system.
fn keep_memory(stream: &CudaStream) -> Result<()> {
    let all = u64::MAX;
    // SAFETY: the context lives as long as the stream, and the attribute's value is 64 bits.
    unsafe {
        let mut pool = std::ptr::null_mut();
        let device = stream.context().cu_device();
        sys::cuDeviceGetDefaultMemPool(&mut pool, device)
            .result()
            .w()?;
        let threshold = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        sys::cuMemPoolSetAttribute(pool, threshold, (&raw const all).cast_mut().cast())
            .result()
            .w()?;
    }
    Ok(())
}
