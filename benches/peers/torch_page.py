"""DeepSeek-OCR in plain PyTorch, timed on one page: vision, prefill, decode."""

import argparse
import ctypes
import json
import math
import os
import statistics
import time

# Let PyTorch put large tensors on huge pages; read once, when it is imported.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import numpy as np
import torch
from PIL import Image, ImageOps
from tokenizers import Tokenizer

from torch_model import IMAGE_ID, Model, Weights

GLOBAL_SIZE, TILE_SIZE = 1024, 640


def keep_freed_memory():
    """Tell glibc to reuse freed blocks, however large, instead of returning them.

    By default each large activation is mapped afresh and its pages are zeroed
    again by the kernel, which costs more than some of the layers.
    """
    libc = ctypes.CDLL(None)
    m_mmap_max, m_trim_threshold = -4, -1
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, 2**31 - 1)


def to_tensor(image, dtype):
    """[1,3,H,W]; mean and std 0.5, rounded to bf16 as in the reference."""
    x = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255.0)
    x = ((x - 0.5) / 0.5).permute(2, 0, 1)[None].contiguous()
    return x.to(torch.bfloat16).to(dtype)


def tile_grid(width, height, most=9):
    """Columns and rows whose ratio is nearest to the page's."""
    best, best_diff = (1, 1), math.inf
    grids = sorted({(i, j) for i in range(1, most + 1) for j in range(1, most + 1)
                    if 2 <= i * j <= most}, key=lambda g: g[0] * g[1])
    for i, j in grids:
        diff = abs(width / height - i / j)
        if diff < best_diff:
            best, best_diff = (i, j), diff
        elif diff == best_diff and width * height > 0.5 * TILE_SIZE * TILE_SIZE * i * j:
            best = (i, j)
    return best


def load_views(path, mode, dtype):
    """The padded global view and, in Gundam mode, the tiles and their grid."""
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    whole = ImageOps.pad(image, (GLOBAL_SIZE, GLOBAL_SIZE), color=(127, 127, 127))
    whole = to_tensor(whole, dtype)
    if mode == "base" or max(image.size) <= TILE_SIZE:
        return whole, None, (1, 1)
    cols, rows = tile_grid(*image.size)
    image = image.resize((TILE_SIZE * cols, TILE_SIZE * rows))
    boxes = [(c * TILE_SIZE, r * TILE_SIZE, (c + 1) * TILE_SIZE, (r + 1) * TILE_SIZE)
             for r in range(rows) for c in range(cols)]
    return whole, torch.cat([to_tensor(image.crop(b), dtype) for b in boxes]), (cols, rows)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", required=True, help="folder of the checkpoint and tokenizer.json")
    p.add_argument("--image", help="the page")
    p.add_argument("--ids", help="file of token ids (JSON list): text-only prompt, no vision")
    p.add_argument("--mode", choices=("base", "gundam"), default="base")
    p.add_argument("--prompt", default="\nFree OCR.", help="text after the image")
    p.add_argument("--tokens", type=int, default=16)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--repeat", type=int, default=3, help="timed runs, after one warm-up")
    p.add_argument("--dtype", choices=("bf16", "f32"), default="bf16")
    p.add_argument("--plain-malloc", action="store_true", help="leave glibc's allocator as it is")
    args = p.parse_args()
    if not args.image and not args.ids:
        p.error("give --image or --ids")
    if not args.plain_malloc:
        keep_freed_memory()
    torch.set_num_threads(args.threads)
    dtype = {"bf16": torch.bfloat16, "f32": torch.float32}[args.dtype]

    with torch.inference_mode():
        views = None
        if args.ids:
            with open(args.ids) as f:
                ids = json.load(f)
        else:
            views = load_views(args.image, args.mode, dtype)
            cols, rows = views[2]
            count = 273 + (0 if views[1] is None else 10 * rows * (10 * cols + 1))
            tokenizer = Tokenizer.from_file(os.path.join(args.model, "tokenizer.json"))
            text = tokenizer.encode(args.prompt, add_special_tokens=False).ids
            ids = [0] + [IMAGE_ID] * count + text
        model = Model(Weights.load(args.model, dtype), len(ids) + args.tokens, dtype)

        vision_s, prefill_s, decode_s = [], [], []
        for run in range(args.repeat + 1):
            clock = time.perf_counter()
            vision = model.vision(*views) if views else None
            vision_time = time.perf_counter() - clock
            out, prefill, steps = model.greedy(model.embed(ids, vision), args.tokens)
            if run:
                vision_s.append(vision_time)
                prefill_s.append(prefill)
                decode_s += steps

    def ms(seconds):
        return round(1000 * statistics.median(seconds), 2) if seconds else None

    print(json.dumps({
        "vision_ms": ms(vision_s) if views else None,
        "prefill_ms": ms(prefill_s),
        "decode_ms_per_token": ms(decode_s),
        "prompt_ids": len(ids),
        "tokens": out,
        "dtype": args.dtype,
        "allocator": "default" if args.plain_malloc else "keeps freed memory",
        "mode": args.mode if views else None,
        "threads": torch.get_num_threads(),
        "repeat": args.repeat,
        "torch": torch.__version__,
    }))


if __name__ == "__main__":
    main()
