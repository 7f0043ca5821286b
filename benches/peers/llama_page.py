"""DeepSeek-OCR in llama.cpp, timed on the CPU: vision, prefill, decode.

Uses the C functions that llama-cpp-python exposes: `llama_decode` for the
language model and libmtmd for the encoders. Greedy, batch 1.

Without --image the prompt is --ids or a fixed list of --length token ids.
With --image and --vision it is the page's embeddings and the text after them:
Base mode takes the padded 1024 view alone, Gundam mode the tiles as well.
"""

import argparse
import ctypes
import json
import statistics
import sys
import time

import llama_cpp as ll
import numpy as np
from llama_cpp import mtmd_cpp as mt
from PIL import Image, ImageOps

GLOBAL_ROWS = 273  # embeddings of the 1024 view
FLASH = {"auto": -1, "off": 0, "on": 1}


class Text:
    """The language model with an empty cache."""

    def __init__(self, path, capacity, threads, flash):
        ll.llama_backend_init()
        params = ll.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = ll.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            sys.exit(f"llama.cpp cannot load {path}")
        params = ll.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = -(-capacity // 256) * 256
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = FLASH[flash]
        self.context = ll.llama_init_from_model(self.model, params)
        self.vocab = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(self.model))
        self.width = ll.llama_model_n_embd(self.model)
        self.batch = ll.llama_batch_init(capacity, 0, 1)
        self.embed_batch = ll.llama_batch_init(capacity, self.width, 1)

    def clear(self):
        ll.llama_memory_clear(ll.llama_get_memory(self.context), True)

    def run(self, batch, count, start, logits):
        batch.n_tokens = count
        for i in range(count):
            batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = start + i, 1, 0
            batch.logits[i] = logits and i == count - 1
        if ll.llama_decode(self.context, batch) != 0:
            sys.exit("llama_decode failed")

    def tokens(self, ids, start, logits=True):
        for i, token in enumerate(ids):
            self.batch.token[i] = token
        self.run(self.batch, len(ids), start, logits)

    def embeds(self, rows, start):
        ctypes.memmove(self.embed_batch.embd, rows.ctypes.data, rows.nbytes)
        self.run(self.embed_batch, len(rows), start, False)

    def best(self):
        logits = ll.llama_get_logits_ith(self.context, -1)
        return int(np.ctypeslib.as_array(logits, (self.vocab,)).argmax())


class Vision:
    """The encoders; `chunks` is the prompt as libmtmd cuts it for one page."""

    def __init__(self, path, text, threads, flash):
        params = mt.mtmd_context_params_default()
        params.use_gpu, params.print_timings = False, False
        params.n_threads, params.flash_attn_type = threads, FLASH[flash]
        self.context = mt.mtmd_init_from_file(path.encode(), text.model, params)
        if not self.context:
            sys.exit(f"llama.cpp cannot load {path}")
        self.width = text.width

    def chunks(self, image, mode, prompt):
        """Token lists and image chunks in order, the start token first."""
        image = ImageOps.exif_transpose(Image.open(image)).convert("RGB")
        pixels = (ctypes.c_uint8 * (image.width * image.height * 3)).from_buffer_copy(
            image.tobytes())
        bitmap = mt.mtmd_bitmap_init(image.width, image.height, pixels)
        line = mt.mtmd_default_marker() + prompt.encode()
        line = mt.mtmd_input_text(line, len(line), True, True)
        self.parts = mt.mtmd_input_chunks_init()
        code = mt.mtmd_tokenize(self.context, self.parts, ctypes.byref(line),
                                (mt.mtmd_bitmap_p_ctypes * 1)(bitmap), 1)
        if code:
            sys.exit(f"mtmd_tokenize failed with {code}")
        out = []
        for i in range(mt.mtmd_input_chunks_size(self.parts)):
            chunk = mt.mtmd_input_chunks_get(self.parts, i)
            count = mt.mtmd_input_chunk_get_n_tokens(chunk)
            if mt.mtmd_input_chunk_get_type(chunk) == mt.MTMD_INPUT_CHUNK_TYPE_TEXT:
                n = ctypes.c_size_t()
                ids = mt.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(n))
                out.append([int(ids[k]) for k in range(n.value)])
            elif mode == "gundam" or count == GLOBAL_ROWS:
                out.append((chunk, count))
        return out

    def encode(self, chunk, count):
        if mt.mtmd_encode_chunk(self.context, chunk) != 0:
            sys.exit("mtmd_encode_chunk failed")
        rows = mt.mtmd_get_output_embd(self.context)
        return np.ctypeslib.as_array(rows, (count, self.width)).copy()


def page(text, vision, chunks, tokens):
    """Greedy ids and seconds of vision, prefill and each later step."""
    text.clear()
    clock = time.perf_counter()
    parts = [vision.encode(*c) if isinstance(c, tuple) else c for c in chunks]
    seen = time.perf_counter()
    position = 0
    for i, part in enumerate(parts):
        if isinstance(part, list):
            text.tokens(part, position, logits=i == len(parts) - 1)
        else:
            text.embeds(part, position)
        position += len(part)
    ids = [text.best()]
    prefill, steps = time.perf_counter() - seen, []
    while len(ids) < tokens:
        step = time.perf_counter()
        text.tokens(ids[-1:], position)
        ids.append(text.best())
        steps.append(time.perf_counter() - step)
        position += 1
    return ids, seen - clock, prefill, steps, position - len(steps)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--text", required=True, help="text.gguf")
    p.add_argument("--vision", help="vision.gguf")
    p.add_argument("--image", help="the page")
    p.add_argument("--mode", choices=("base", "gundam"), default="base")
    p.add_argument("--prompt", default="Free OCR.",
                   help="text after the image; libmtmd itself puts a line end before it")
    p.add_argument("--ids", help="file of token ids (JSON list) instead of a page")
    p.add_argument("--length", type=int, default=280, help="ids of the prompt without a page")
    p.add_argument("--tokens", type=int, default=16)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--repeat", type=int, default=3, help="timed runs, after one warm-up")
    p.add_argument("--flash", choices=FLASH, default="auto", help="flash attention")
    p.add_argument("--verbose", action="store_true", help="show llama.cpp's own log")
    args = p.parse_args()
    if args.image and not args.vision:
        p.error("--image needs --vision")

    silent = ll.llama_log_callback(lambda level, line, data: None)
    if not args.verbose:
        ll.llama_log_set(silent, None)
        mt.mtmd_log_set(silent, None)
    if args.ids:
        with open(args.ids) as f:
            ids = json.load(f)
    else:
        ids = [0] + [1000 + 37 * i for i in range(args.length - 1)]
    text = Text(args.text, 2048 if args.image else len(ids) + args.tokens,
                args.threads, args.flash)
    vision, chunks = None, [ids]
    if args.image:
        vision = Vision(args.vision, text, args.threads, args.flash)
        chunks = vision.chunks(args.image, args.mode, args.prompt)

    vision_s, prefill_s, decode_s = [], [], []
    for run in range(args.repeat + 1):
        out, seen, prefill, steps, length = page(text, vision, chunks, args.tokens)
        if run:
            vision_s.append(seen)
            prefill_s.append(prefill)
            decode_s += steps

    def ms(seconds):
        return round(1000 * statistics.median(seconds), 2) if seconds else None

    print(json.dumps({
        "vision_ms": ms(vision_s) if args.image else None,
        "prefill_ms": ms(prefill_s),
        "decode_ms_per_token": ms(decode_s),
        "prompt_ids": length,
        "chunks": [len(c) if isinstance(c, list) else f"image {c[1]}" for c in chunks],
        "tokens": out,
        "mode": args.mode if args.image else None,
        "flash": args.flash,
        "threads": args.threads,
        "repeat": args.repeat,
        "llama_cpp_python": ll.__version__,
        "system": ll.llama_print_system_info().decode(),
    }))


if __name__ == "__main__":
    main()
