"""Write a DeepSeek-OCR checkpoint as two GGUF files that llama.cpp loads.

`text.gguf` holds the language model (architecture "deepseek2-ocr"),
`vision.gguf` the encoders and the projector (projector "deepseekocr").
Matrices stay bf16 bit for bit. Vectors, router matrices, the encoders' position
tables and convolutions become f32, as llama.cpp's kernels ask.
"""

import argparse
import json
import os
import re

import gguf
import numpy as np

BF16, F32 = gguf.GGMLQuantizationType.BF16, gguf.GGMLQuantizationType.F32

# Checkpoint name to GGUF name; "{i}" is the layer.
TEXT = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers.{i}.input_layernorm": "blk.{i}.attn_norm",
    "model.layers.{i}.self_attn.q_proj": "blk.{i}.attn_q",
    "model.layers.{i}.self_attn.k_proj": "blk.{i}.attn_k",
    "model.layers.{i}.self_attn.v_proj": "blk.{i}.attn_v",
    "model.layers.{i}.self_attn.o_proj": "blk.{i}.attn_output",
    "model.layers.{i}.post_attention_layernorm": "blk.{i}.ffn_norm",
    "model.layers.{i}.mlp.gate_proj": "blk.{i}.ffn_gate",
    "model.layers.{i}.mlp.up_proj": "blk.{i}.ffn_up",
    "model.layers.{i}.mlp.down_proj": "blk.{i}.ffn_down",
    "model.layers.{i}.mlp.gate": "blk.{i}.ffn_gate_inp",
    "model.layers.{i}.mlp.shared_experts.gate_proj": "blk.{i}.ffn_gate_shexp",
    "model.layers.{i}.mlp.shared_experts.up_proj": "blk.{i}.ffn_up_shexp",
    "model.layers.{i}.mlp.shared_experts.down_proj": "blk.{i}.ffn_down_shexp",
    "model.layers.{i}.mlp.experts.0.gate_proj": "blk.{i}.ffn_gate_exps",
    "model.layers.{i}.mlp.experts.0.up_proj": "blk.{i}.ffn_up_exps",
    "model.layers.{i}.mlp.experts.0.down_proj": "blk.{i}.ffn_down_exps",
}
VISION = {
    "model.sam_model.pos_embed": "v.sam.pos_embd.weight",
    "model.sam_model.patch_embed.proj": "v.sam.patch_embd",
    "model.sam_model.blocks.{i}.norm1": "v.sam.blk.{i}.pre_ln",
    "model.sam_model.blocks.{i}.norm2": "v.sam.blk.{i}.post_ln",
    "model.sam_model.blocks.{i}.attn.rel_pos_h": "v.sam.blk.{i}.attn.pos_h.weight",
    "model.sam_model.blocks.{i}.attn.rel_pos_w": "v.sam.blk.{i}.attn.pos_w.weight",
    "model.sam_model.blocks.{i}.attn.qkv": "v.sam.blk.{i}.attn.qkv",
    "model.sam_model.blocks.{i}.attn.proj": "v.sam.blk.{i}.attn.out",
    "model.sam_model.blocks.{i}.mlp.lin1": "v.sam.blk.{i}.mlp.lin1",
    "model.sam_model.blocks.{i}.mlp.lin2": "v.sam.blk.{i}.mlp.lin2",
    "model.sam_model.neck.{i}": "v.sam.neck.{i}",
    "model.sam_model.net_2": "v.sam.net_2",
    "model.sam_model.net_3": "v.sam.net_3",
    "model.vision_model.embeddings.class_embedding": "v.class_embd",
    "model.vision_model.embeddings.position_embedding": "v.position_embd",
    "model.vision_model.pre_layrnorm": "v.pre_ln",
    "model.vision_model.transformer.layers.{i}.layer_norm1": "v.blk.{i}.ln1",
    "model.vision_model.transformer.layers.{i}.layer_norm2": "v.blk.{i}.ln2",
    "model.vision_model.transformer.layers.{i}.self_attn.qkv_proj": "v.blk.{i}.attn_qkv",
    "model.vision_model.transformer.layers.{i}.self_attn.out_proj": "v.blk.{i}.attn_out",
    "model.vision_model.transformer.layers.{i}.mlp.fc1": "v.blk.{i}.ffn_up",
    "model.vision_model.transformer.layers.{i}.mlp.fc2": "v.blk.{i}.ffn_down",
    "model.projector.layers": "mm.model.fc",
    "model.image_newline": "v.image_newline",
    "model.view_seperator": "v.view_seperator",
}
KEEP_F32 = re.compile(r"ffn_gate_inp|pos_embd|position_embd|attn\.pos_|patch_embd|neck|net_")


def read_checkpoint(folder):
    """Every tensor as a memory-mapped array of u16 (the bits of bf16)."""
    tensors = {}
    for file in sorted(os.listdir(folder)):
        if not file.endswith(".safetensors"):
            continue
        path = os.path.join(folder, file)
        data = np.memmap(path, dtype=np.uint8, mode="r")
        size = int(data[:8].view("<u8")[0])
        header = json.loads(data[8:8 + size].tobytes())
        for name, info in header.items():
            if name == "__metadata__" or info["dtype"] != "BF16":
                continue
            begin, end = (8 + size + offset for offset in info["data_offsets"])
            tensors[name] = data[begin:end].view("<u2").reshape(info["shape"])
    return tensors


def plan(tensors, names):
    """GGUF name, type and the arrays that are stacked into the tensor."""
    for name in tensors:
        stem, dot, suffix = name.rpartition(".")
        if suffix not in ("weight", "bias"):
            stem, dot, suffix = name, "", ""
        layer = re.search(r"\.(?:layers|blocks|neck)\.(\d+)", stem)
        pattern = stem
        if layer:
            pattern = stem[:layer.start(1)] + "{i}" + stem[layer.end(1):]
        if pattern not in names:
            continue
        target = names[pattern].replace("{i}", layer.group(1) if layer else "") + dot + suffix
        parts = [tensors[name]]
        if ".experts.0." in name:
            parts, e = [], 0
            while (expert := name.replace(".experts.0.", f".experts.{e}.")) in tensors:
                parts.append(tensors[expert])
                e += 1
            yield target, BF16, (len(parts), *parts[0].shape), parts
        elif target == "v.view_seperator":
            yield target, F32, (1, *parts[0].shape), parts
        else:
            narrow = parts[0].ndim == 1 or KEEP_F32.search(target)
            yield target, F32 if narrow else BF16, parts[0].shape, parts


def write(path, arch, fields, tensors, names):
    writer = gguf.GGUFWriter(path, arch)
    fields(writer)
    rows = list(plan(tensors, names))
    for name, kind, shape, _ in rows:
        dtype = np.dtype(np.uint16 if kind == BF16 else np.float32)
        size = int(np.prod(shape)) * dtype.itemsize
        writer.add_tensor_info(name, shape, dtype, size, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, kind, shape, parts in rows:
        data = np.stack(parts) if len(parts) > 1 else np.ascontiguousarray(parts[0])
        if kind == F32:
            data = (data.astype(np.uint32) << 16).view(np.float32)
        writer.write_tensor_data(data.reshape(shape))
    writer.close()
    print(f"{path}: {len(rows)} tensors")


def text_fields(config, tokenizer):
    def fields(w):
        w.add_context_length(config["max_position_embeddings"])
        w.add_embedding_length(config["hidden_size"])
        w.add_feed_forward_length(config["intermediate_size"])
        w.add_block_count(config["num_hidden_layers"])
        w.add_head_count(config["num_attention_heads"])
        w.add_head_count_kv(config["num_key_value_heads"])
        w.add_layer_norm_rms_eps(1e-6)
        w.add_rope_freq_base(10000.0)
        w.add_leading_dense_block_count(config["first_k_dense_replace"])
        w.add_expert_count(config["n_routed_experts"])
        w.add_expert_used_count(config["num_experts_per_tok"])
        w.add_expert_shared_count(config["n_shared_experts"])
        w.add_expert_feed_forward_length(config["moe_intermediate_size"])
        w.add_expert_weights_norm(False)
        w.add_expert_weights_scale(1.0)
        w.add_vocab_size(config["vocab_size"])
        w.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)

        size = config["vocab_size"]
        tokens = [f"[PAD{i}]" for i in range(size)]
        kinds = [gguf.TokenType.UNUSED] * size
        for token, i in tokenizer["model"]["vocab"].items():
            tokens[i], kinds[i] = token, gguf.TokenType.NORMAL
        for added in tokenizer["added_tokens"]:
            i = added["id"]
            tokens[i] = added["content"]
            kinds[i] = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre("deepseek-v3")
        w.add_token_list(tokens)
        w.add_token_types(kinds)
        w.add_token_merges([m if isinstance(m, str) else " ".join(m)
                            for m in tokenizer["model"]["merges"]])
        w.add_bos_token_id(0)
        w.add_eos_token_id(1)
        w.add_pad_token_id(2)
        w.add_add_bos_token(True)
    return fields


def vision_fields(text_width):
    def fields(w):
        w.add_type("mmproj")
        w.add_bool("clip.has_vision_encoder", True)
        w.add_string("clip.projector_type", "deepseekocr")
        w.add_bool("clip.use_gelu", True)
        for key, value in {
            "image_size": 1024, "patch_size": 16, "window_size": 14,
            "embedding_length": 1024, "feed_forward_length": 4096, "block_count": 24,
            "projection_dim": text_width, "attention.head_count": 16,
            "sam.block_count": 12, "sam.embedding_length": 768, "sam.head_count": 12,
            "preproc_min_tiles": 2, "preproc_max_tiles": 9,
        }.items():
            w.add_uint32(f"clip.vision.{key}", value)
        w.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
        w.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
        w.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
        w.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    return fields


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", required=True, help="folder of the checkpoint")
    p.add_argument("--out", required=True, help="folder for text.gguf and vision.gguf")
    args = p.parse_args()
    os.makedirs(args.out, exist_ok=True)
    with open(os.path.join(args.model, "config.json")) as f:
        config = json.load(f)
    with open(os.path.join(args.model, "tokenizer.json")) as f:
        tokenizer = json.load(f)
    tensors = read_checkpoint(args.model)
    write(os.path.join(args.out, "vision.gguf"), "clip",
          vision_fields(config["hidden_size"]), tensors, VISION)
    write(os.path.join(args.out, "text.gguf"), "deepseek2-ocr",
          text_fields(config, tokenizer), tensors, TEXT)


if __name__ == "__main__":
    main()
