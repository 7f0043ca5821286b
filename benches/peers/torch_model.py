"""DeepSeek-OCR in plain PyTorch: encoders, projector and decoder.

A compact CPU implementation with PyTorch's own kernels: `F.linear`, `F.conv2d`
and `F.scaled_dot_product_attention`. No autocast: every tensor has the type of
the weights; only the router works in f32. Batch 1, greedy.
"""

import math
import os
import time

import torch
import torch.nn.functional as F
from safetensors import safe_open

IMAGE_ID = 128815


# ---------------------------------------------------------------------- weights

class Weights:
    """The checkpoint by name, memory-mapped; `at` narrows it to a prefix."""

    def __init__(self, tensors, prefix=""):
        self.tensors, self.prefix = tensors, prefix

    @classmethod
    def load(cls, folder, dtype):
        tensors = {}
        for name in sorted(os.listdir(folder)):
            if name.endswith(".safetensors"):
                with safe_open(os.path.join(folder, name), "pt") as f:
                    for key in f.keys():
                        tensors[key] = f.get_tensor(key).to(dtype).contiguous()
        return cls(tensors)

    def fuse(self, name, parts):
        """Stack the rows of several matrices into one, in their place."""
        self.tensors[f"{self.prefix}{name}.weight"] = torch.cat(
            [self.tensors.pop(f"{self.prefix}{p}.weight") for p in parts])

    def at(self, prefix):
        return Weights(self.tensors, f"{self.prefix}{prefix}.")

    def __call__(self, name):
        return self.tensors[self.prefix + name]

    def linear(self, name, x):
        weight, bias = self(name + ".weight"), self.tensors.get(f"{self.prefix}{name}.bias")
        if bias is None and x.shape[0] == 1 and x.dim() == 2:
            return torch.mv(weight, x[0])[None]  # faster than F.linear on one row
        return F.linear(x, weight, bias)

    def layer_norm(self, name, x, eps):
        return F.layer_norm(x, x.shape[-1:], self(name + ".weight"), self(name + ".bias"), eps)


def resize_grid(table, size):
    """Antialiased bicubic resize in f32 of a [g,g,C] table to [size,size,C]."""
    if table.shape[0] == size:
        return table
    x = table.float().permute(2, 0, 1)[None]
    x = F.interpolate(x, (size, size), mode="bicubic", antialias=True, align_corners=False)
    return x[0].permute(1, 2, 0).to(table.dtype).contiguous()


# ------------------------------------------------------------------ SAM encoder

class Sam:
    WINDOW, GLOBAL_BLOCKS, HEADS = 14, (2, 5, 8, 11), 12

    def __init__(self, w):
        self.w = w
        self.tables = {}  # what depends on the grid alone
        # Channels-last weights: oneDNN's own layout for bf16 convolutions.
        self.conv = {n: w(n + ".weight").to(memory_format=torch.channels_last)
                     for n in ("patch_embed.proj", "neck.0", "neck.2", "net_2", "net_3")}

    def position(self, grid):
        if ("pos", grid) not in self.tables:
            self.tables["pos", grid] = resize_grid(self.w("pos_embed")[0], grid)
        return self.tables["pos", grid]

    def relative(self, w, name, size):
        """[size,size,64]: row (q,k) is the table's row of the distance q-k."""
        key = (w.prefix, name, size)
        if key not in self.tables:
            table = w(name)
            if table.shape[0] != 2 * size - 1:
                x = table.float().T[None]
                table = F.interpolate(x, 2 * size - 1, mode="linear")[0].T.to(table.dtype)
            i = torch.arange(size)
            self.tables[key] = table[i[:, None] - i[None, :] + size - 1].contiguous()
        return self.tables[key]

    def attention(self, w, x):
        b, side, _, c = x.shape
        n = side * side
        qkv = w.linear("qkv", x).view(b, n, 3, self.HEADS, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        square = q.reshape(b * self.HEADS, side, side, -1)
        rel_h = torch.einsum("bhwc,hkc->bhwk", square, self.relative(w, "rel_pos_h", side))
        rel_w = torch.einsum("bhwc,wkc->bhwk", square, self.relative(w, "rel_pos_w", side))
        bias = rel_h[..., :, None] + rel_w.contiguous()[..., None, :]
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.reshape(b, self.HEADS, n, n))
        x = x.transpose(1, 2).reshape(b, side, side, c)
        return w.linear("proj", x)

    def windowed(self, w, x):
        """Attention inside 14x14 windows; padding takes part as zeros."""
        b, side, _, c = x.shape
        s = self.WINDOW
        m = -(-side // s)
        x = F.pad(x, (0, 0, 0, m * s - side, 0, m * s - side))
        x = x.view(b, m, s, m, s, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, s, s, c)
        x = self.attention(w, x)
        x = x.view(b, m, m, s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(b, m * s, m * s, c)
        return x[:, :side, :side]

    def norm2d(self, name, x):
        """LayerNorm over the channels of an NCHW tensor stored channels-last."""
        return self.w.layer_norm(name, x.permute(0, 2, 3, 1), 1e-6).permute(0, 3, 1, 2)

    def __call__(self, pixels):
        w = self.w
        x = pixels.to(memory_format=torch.channels_last)
        x = F.conv2d(x, self.conv["patch_embed.proj"], w("patch_embed.proj.bias"), stride=16)
        x = x.permute(0, 2, 3, 1)
        x = x + self.position(x.shape[1])
        for i in range(12):
            block = w.at(f"blocks.{i}")
            attend = self.attention if i in self.GLOBAL_BLOCKS else self.windowed
            x = x + attend(block.at("attn"), block.layer_norm("norm1", x, 1e-6))
            y = F.gelu(block.linear("mlp.lin1", block.layer_norm("norm2", x, 1e-6)))
            x = x + block.linear("mlp.lin2", y)
        x = x.permute(0, 3, 1, 2)
        x = self.norm2d("neck.1", F.conv2d(x, self.conv["neck.0"]))
        x = self.norm2d("neck.3", F.conv2d(x, self.conv["neck.2"], padding=1))
        x = F.conv2d(x, self.conv["net_2"], stride=2, padding=1)
        x = F.conv2d(x, self.conv["net_3"], stride=2, padding=1)
        return x.flatten(2).transpose(1, 2).contiguous()  # [B,N,1024]


# ----------------------------------------------------------------- CLIP encoder

class Clip:
    LAYERS, HEADS = 24, 16

    def __init__(self, w):
        self.w = w
        self.tables = {}

    def position(self, grid):
        if grid not in self.tables:
            table = self.w("embeddings.position_embedding.weight")
            rest = resize_grid(table[1:].view(16, 16, -1), grid).flatten(0, 1)
            self.tables[grid] = torch.cat([table[:1], rest])
        return self.tables[grid]

    def __call__(self, patches):
        w, (b, n, c) = self.w, patches.shape
        first = w("embeddings.class_embedding").expand(b, 1, c)
        x = torch.cat([first, patches], dim=1) + self.position(math.isqrt(n))
        x = w.layer_norm("pre_layrnorm", x, 1e-5)
        for i in range(self.LAYERS):
            layer = w.at(f"transformer.layers.{i}")
            y = layer.linear("self_attn.qkv_proj", layer.layer_norm("layer_norm1", x, 1e-5))
            q, k, v = y.view(b, n + 1, 3, self.HEADS, -1).permute(2, 0, 3, 1, 4).unbind(0)
            y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n + 1, c)
            x = x + layer.linear("self_attn.out_proj", y)
            y = layer.linear("mlp.fc1", layer.layer_norm("layer_norm2", x, 1e-5))
            x = x + layer.linear("mlp.fc2", y * torch.sigmoid(1.702 * y))
        return x


# ---------------------------------------------------------------------- decoder

class Decoder:
    """The language model. Its cache holds [layer, k or v, head, position, 128]."""

    LAYERS, HEADS, HEAD_DIM, TOP_K, EXPERTS, EPS = 12, 10, 128, 6, 64, 1e-6

    def __init__(self, w, capacity, dtype):
        self.w, self.dtype = w, dtype
        self.cache = torch.zeros(self.LAYERS, 2, self.HEADS, capacity, self.HEAD_DIM, dtype=dtype)
        inv = 1.0 / 10000.0 ** (torch.arange(0, self.HEAD_DIM, 2).float() / self.HEAD_DIM)
        angle = torch.outer(torch.arange(capacity).float(), inv)
        angle = torch.cat([angle, angle], dim=-1)
        self.cos, self.sin = angle.cos().to(dtype), angle.sin().to(dtype)
        # One product instead of two or three: fewer and larger kernels.
        for i in range(self.LAYERS):
            layer = w.at(f"model.layers.{i}")
            layer.fuse("self_attn.qkv_proj", ("self_attn.q_proj", "self_attn.k_proj",
                                              "self_attn.v_proj"))
            mlps = [f"experts.{e}." for e in range(self.EXPERTS)] + ["shared_experts."]
            for m in mlps if i else [""]:
                layer.fuse(f"mlp.{m}gate_up", (f"mlp.{m}gate_proj", f"mlp.{m}up_proj"))
        self.gates = [None] + [w(f"model.layers.{i}.mlp.gate.weight").float()
                               for i in range(1, self.LAYERS)]

    def rms_norm(self, x, weight):
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.EPS)
        return weight * y.to(x.dtype)

    def rotate(self, x, start):
        """Rotary embedding, the two halves of the head as pairs. x: [head,n,128]."""
        n, half = x.shape[1], self.HEAD_DIM // 2
        turned = torch.cat([-x[..., half:], x[..., :half]], dim=-1)
        return x * self.cos[start:start + n] + turned * self.sin[start:start + n]

    def attention(self, w, layer, x, start):
        n, end = x.shape[0], start + x.shape[0]
        qkv = w.linear("qkv_proj", x).view(n, 3, self.HEADS, self.HEAD_DIM)
        q, k, v = qkv.permute(1, 2, 0, 3).unbind(0)
        keys, values = self.cache[layer]
        keys[:, start:end] = self.rotate(k, start)
        values[:, start:end] = v
        x = F.scaled_dot_product_attention(
            self.rotate(q, start)[None], keys[None, :, :end], values[None, :, :end],
            is_causal=n > 1)[0]
        return w.linear("o_proj", x.transpose(0, 1).reshape(n, -1))

    @staticmethod
    def swiglu(w, x):
        gate, up = w.linear("gate_up", x).chunk(2, dim=-1)
        return w.linear("down_proj", F.silu(gate) * up)

    def experts(self, w, layer, x):
        """The six best of 64 experts, weighted with their probabilities as they are."""
        probs = F.linear(x.float(), self.gates[layer]).softmax(-1)
        weight, chosen = probs.topk(self.TOP_K, dim=-1, sorted=False)
        out = torch.zeros(x.shape, dtype=torch.float32)
        if x.shape[0] == 1:
            for p, e in zip(weight[0], chosen[0].tolist()):
                out += p * self.swiglu(w.at(f"experts.{e}"), x)
        else:
            # Slots in expert order, so that each expert sees its tokens at once.
            order = chosen.flatten().argsort()
            token = order // self.TOP_K
            counts = torch.bincount(chosen.flatten(), minlength=self.EXPERTS).tolist()
            gathered = x.index_select(0, token).split(counts)
            done = [self.swiglu(w.at(f"experts.{e}"), rows)
                    for e, rows in enumerate(gathered) if rows.shape[0]]
            out.index_add_(0, token, torch.cat(done).float() * weight.flatten()[order, None])
        return out.to(x.dtype) + self.swiglu(w.at("shared_experts"), x)

    def __call__(self, x, start):
        """Logits of the last row of `x` [n,1280], whose first position is `start`."""
        for i in range(self.LAYERS):
            w = self.w.at(f"model.layers.{i}")
            y = self.rms_norm(x, w("input_layernorm.weight"))
            x = x + self.attention(w.at("self_attn"), i, y, start)
            y = self.rms_norm(x, w("post_attention_layernorm.weight"))
            mlp = w.at("mlp")
            x = x + (self.experts(mlp, i, y) if i else self.swiglu(mlp, y))
        x = self.rms_norm(x[-1:], self.w("model.norm.weight"))
        return self.w.linear("lm_head", x)[0].float()


# ------------------------------------------------------------------------- page

class Model:
    def __init__(self, weights, capacity, dtype):
        self.w = weights
        self.sam = Sam(weights.at("model.sam_model"))
        self.clip = Clip(weights.at("model.vision_model"))
        self.decoder = Decoder(weights, capacity, dtype)

    def features(self, pixels):
        sam = self.sam(pixels)
        clip = self.clip(sam)
        return self.w.linear("model.projector.layers", torch.cat([clip[:, 1:], sam], dim=-1))

    def rows(self, grid):
        """[h,w,C] to h*(w+1) rows, each line ended by the newline vector."""
        newline = self.w("model.image_newline").expand(grid.shape[0], 1, -1)
        return torch.cat([grid, newline], dim=1).flatten(0, 1)

    def vision(self, whole, tiles, grid):
        parts = []
        if tiles is not None:
            x, (cols, lines) = self.features(tiles), grid
            side = math.isqrt(x.shape[1])
            x = x.view(lines, cols, side, side, -1).permute(0, 2, 1, 3, 4)
            parts.append(self.rows(x.reshape(lines * side, cols * side, -1)))
        x = self.features(whole)[0]
        side = math.isqrt(x.shape[0])
        parts.append(self.rows(x.view(side, side, -1)))
        parts.append(self.w("model.view_seperator")[None])
        return torch.cat(parts)

    def embed(self, ids, vision=None):
        ids = torch.as_tensor(ids)
        x = F.embedding(ids, self.w("model.embed_tokens.weight"))
        if vision is not None:
            x[ids == IMAGE_ID] = vision
        return x

    def greedy(self, embeds, tokens):
        """Greedy ids, seconds of the prefill, and seconds of each later step."""
        start, clock = embeds.shape[0], time.perf_counter()
        ids = [int(self.decoder(embeds, 0).argmax())]
        times = [time.perf_counter() - clock]
        while len(ids) < tokens:
            clock = time.perf_counter()
            logits = self.decoder(self.embed(ids[-1:]), start + len(ids) - 1)
            ids.append(int(logits.argmax()))
            times.append(time.perf_counter() - clock)
        return ids, times[0], times[1:]
