"""DeepSeek-OCR's decoder from Hugging Face transformers' modules: decoding speed."""

import argparse
import json
import os
import statistics
import sys
import time

START = time.perf_counter()
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no kernel is fetched while timing

import torch
import transformers
from safetensors import safe_open
from transformers import DynamicCache, StaticCache, StoppingCriteria, StoppingCriteriaList
from transformers.models.deepseek_ocr2 import configuration_deepseek_ocr2 as configuration
from transformers.models.deepseek_ocr2.modeling_deepseek_ocr2 import (
    DeepseekOcr2ForConditionalGeneration,
)

TEXT = "model.language_model."


# ------------------------------------------------------------------------ model

def text_config(folder):
    """The decoder's settings. What config.json leaves out are the model code's defaults."""
    with open(os.path.join(folder, "config.json")) as f:
        given = json.load(f)
    names = ("vocab_size", "hidden_size", "intermediate_size", "moe_intermediate_size",
             "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
             "n_routed_experts", "n_shared_experts", "num_experts_per_tok", "n_group",
             "topk_group", "topk_method", "max_position_embeddings", "bos_token_id")
    dense, layers = given["first_k_dense_replace"], given["num_hidden_layers"]
    return dict(
        {name: given[name] for name in names},
        mlp_layer_types=["dense"] * dense + ["sparse"] * (layers - dense),
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        rms_norm_eps=1e-6,
        # An id that is never chosen: all runs have the same length.
        eos_token_id=given["vocab_size"],
        pad_token_id=0,
    )


def empty_model(text):
    """DeepSeek-OCR 2 as transformers has it, on the meta device, without its encoder.

    Its text model is the decoder of DeepSeek-OCR as well: LlamaAttention with
    DeepseekV2Moe and DeepseekV2MLP.
    """
    config = configuration.DeepseekOcr2Config(
        text_config=text,
        vision_config={"sam_config": {"num_hidden_layers": 1},
                       "encoder_config": {"num_hidden_layers": 1}},
        attn_implementation="sdpa",
    )
    with torch.device("meta"):
        model = DeepseekOcr2ForConditionalGeneration(config)
    del model.model.vision_tower, model.model.multi_modal_projector, model.model.view_separator
    return model.eval().requires_grad_(False)


def read_checkpoint(files, shapes, device, dtype):
    """The decoder's tensors by the module's names; the experts' are stacked."""
    where = {}
    for file in files:
        f = safe_open(file, "pt")
        where.update((key, f) for key in f.keys())

    def read(name):
        return where[name].get_tensor(name).to(device, dtype)

    state = {}
    for name, shape in shapes.items():
        source = name.replace(TEXT, "model.")
        if ".experts." not in name:
            state[name] = read(source)
            continue
        prefix, part = source.rsplit(".", 1)
        stack = torch.empty(shape, device=device, dtype=dtype)
        for e, one in enumerate(stack):
            parts = ("gate_proj", "up_proj") if part == "gate_up_proj" else (part,)
            for p, rows in zip(parts, one.chunk(len(parts))):
                rows.copy_(read(f"{prefix}.{e}.{p}.weight"))
        state[name] = stack
    return state


def load(folder, device, dtype):
    """The model and where its weights come from: the checkpoint, or chance if there is none."""
    model = empty_model(text_config(folder))
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    files = sorted(os.path.join(folder, f) for f in os.listdir(folder)
                   if f.endswith(".safetensors"))
    if files:
        state = read_checkpoint(files, shapes, device, dtype)
    else:
        torch.manual_seed(0)
        state = {name: torch.ones(shape, device=device, dtype=dtype) if "norm" in name else
                 torch.empty(shape, device=device, dtype=dtype).normal_(0, 0.02)
                 for name, shape in shapes.items()}
    model.load_state_dict(state, assign=True)
    text = model.model.language_model
    # Its table of frequencies is no parameter, so the meta device left it empty.
    text.rotary_emb = type(text.rotary_emb)(config=text.config).to(device)
    return model.eval().requires_grad_(False), "checkpoint" if files else "random"


def logits(model, ids, cache):
    """Logits [batch,1,vocabulary] after `ids` [batch,n], which continue the cache."""
    hidden = model.model.language_model(input_ids=ids, past_key_values=cache, use_cache=True)
    return model.lm_head(hidden.last_hidden_state[:, -1:])


# ---------------------------------------------------------------------- drivers
# Each returns a function from a number of steps to their seconds and the ids. A
# step turns one id of each sequence into the next; the prompt is not timed.

def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def prefill(model, prompt, cache, experts):
    """The first id. `batched_mm` copies experts for each token, too much for a prompt."""
    model.set_experts_implementation("eager" if model.dtype == torch.float32 else "grouped_mm")
    token = logits(model, prompt, cache).argmax(-1)
    model.set_experts_implementation(experts)
    return token


def loop(model, prompt, experts):
    """Greedy decoding at its plainest: the ids stay on the device, nothing looks at them."""
    def run(steps):
        with torch.inference_mode():
            cache = DynamicCache(config=model.model.language_model.config)
            ids = [prefill(model, prompt, cache, experts)]
            wait(prompt.device)
            clock = time.perf_counter()
            for _ in range(steps):
                ids.append(logits(model, ids[-1], cache).argmax(-1))
            wait(prompt.device)
            return time.perf_counter() - clock, torch.cat(ids, dim=1)
    return run


def compiled(model, prompt, experts, capacity):
    """The same with a static cache and torch.compile, which records CUDA graphs."""
    cache = StaticCache(config=model.model.language_model.config, max_cache_len=capacity)
    torch.compiler.reset()
    call = torch.compile(model.__call__, mode="reduce-overhead")  # as generate() does

    def run(steps):
        with torch.no_grad():
            cache.reset()
            ids = [prefill(model, prompt, cache, experts)]
            wait(prompt.device)
            clock = time.perf_counter()
            for _ in range(steps):
                out = call(input_ids=ids[-1], past_key_values=cache, use_cache=True,
                           logits_to_keep=1, return_dict=True)
                ids.append(out.logits.argmax(-1))
            wait(prompt.device)
            return time.perf_counter() - clock, torch.cat(ids, dim=1)
    return run


class FirstToken(StoppingCriteria):
    """Never stops; notes when the first id is there."""

    def __init__(self, batch, device):
        self.go_on, self.clock = torch.zeros(batch, dtype=torch.bool, device=device), None

    def __call__(self, ids, scores, **_):
        if self.clock is None:
            wait(ids.device)
            self.clock = time.perf_counter()
        return self.go_on


def generate(model, prompt):
    """`generate` itself: it asks the device after each step whether all sequences ended.

    Its default is grouped_mm for the prompt and, on a GPU, batched_mm for the steps.
    """
    model.set_experts_implementation("grouped_mm")

    def run(steps):
        first = FirstToken(prompt.shape[0], prompt.device)
        out = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
                             max_new_tokens=steps + 1,
                             stopping_criteria=StoppingCriteriaList([first]))
        wait(prompt.device)
        return time.perf_counter() - first.clock, out[:, prompt.shape[1]:]
    return run


# ------------------------------------------------------------------ measurement

def measure(run, tokens, repeat, seconds):
    """Times of at most `repeat` runs of at most `tokens` steps, in about `seconds`."""
    run(4)
    clock = time.perf_counter()
    step = run(12)[0] / 12
    rest = max(0.0, time.perf_counter() - clock - 12 * step)
    tokens = min(tokens, max(16, int((seconds - rest) / step)))
    repeat = min(repeat, max(1, int(seconds / (rest + tokens * step))))
    runs = [run(tokens) for _ in range(repeat)]
    return tokens, [r[0] for r in runs], runs[-1][1]


def report(**values):
    print(json.dumps(values), flush=True)


def bench(args, model, weights):
    device = torch.device(args.device)
    about = {
        "weights": weights, "dtype": args.dtype, "prompt_tokens": args.prompt_tokens,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__, "transformers": transformers.__version__,
        "cuda": torch.version.cuda,
    }
    vocabulary = model.lm_head.weight.shape[0]
    capacity = args.prompt_tokens + args.tokens + 1
    cases = [(batch, kind, experts) for batch in args.batch for kind, all_experts in (
        ("loop", args.experts),
        ("generate", ["default"] if args.generate else ()),
        ("compiled", [e for e in args.experts if e != "eager"] if args.compile else ()),
    ) for experts in all_experts]
    for i, (batch, kind, experts) in enumerate(cases):
        # Each sequence has its own prompt, else all would choose the same experts.
        numbers = torch.Generator().manual_seed(batch)
        prompt = torch.randint(0, vocabulary, (batch, args.prompt_tokens), generator=numbers)
        prompt = prompt.to(device)
        case = {"batch": batch, "driver": kind, "experts": experts}
        left = args.seconds - (time.perf_counter() - START)
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        try:
            if kind == "loop":
                run = loop(model, prompt, experts)
            elif kind == "generate":
                run = generate(model, prompt)
            else:
                run = compiled(model, prompt, experts, capacity)
            share = max(1.0, left / (len(cases) - i))
            tokens, seconds, ids = measure(run, args.tokens, args.repeat, share)
        except Exception as error:  # an implementation may need what is not installed
            report(**case, error=f"{type(error).__name__}: {error}"[:300], **about)
            continue
        step = statistics.median(seconds) / tokens
        peak = None
        if device.type == "cuda":
            peak = round(torch.cuda.max_memory_allocated(device) / 2**20)
        report(**case, tokens_per_second=round(batch / step, 1),
               ms_per_token=round(1000 * step, 3), tokens=tokens, repeat=len(seconds),
               peak_memory_mib=peak, first_ids=ids[0, :6].tolist(), **about)


# ------------------------------------------------------------------------ check

def check(args):
    """Largest difference of logits to torch_model.py's decoder: two prompts, then 8 steps."""
    import torch_model

    dtype, settings = torch.float32, text_config(args.model)

    class Decoder(torch_model.Decoder):
        LAYERS, HEADS = settings["num_hidden_layers"], settings["num_attention_heads"]
        HEAD_DIM = settings["hidden_size"] // HEADS
        TOP_K, EXPERTS = settings["num_experts_per_tok"], settings["n_routed_experts"]

    prompt_tokens, steps = 40, 8
    numbers = torch.Generator().manual_seed(0)
    ids = torch.randint(0, settings["vocab_size"], (2, prompt_tokens + steps), generator=numbers)
    parts = [slice(0, prompt_tokens)]
    parts += [slice(n, n + 1) for n in range(prompt_tokens, ids.shape[1])]

    weights = torch_model.Weights.load(args.model, dtype)
    decoder = Decoder(weights, ids.shape[1], dtype)
    table = weights("model.embed_tokens.weight")
    with torch.inference_mode():
        expected = torch.stack([torch.stack([decoder(table[row[part]], part.start)
                                             for part in parts]) for row in ids])
        model = load(args.model, args.device, dtype)[0]
        good = True
        for experts in args.experts:
            model.set_experts_implementation(experts)
            cache = DynamicCache(config=model.model.language_model.config)
            try:
                got = [logits(model, ids[:, part].to(args.device), cache) for part in parts]
            except Exception as error:
                report(experts=experts, error=f"{type(error).__name__}: {error}"[:300])
                good = False
                continue
            difference = (torch.cat(got, dim=1).cpu() - expected).abs().max().item()
            good = good and difference < 1e-4
            report(experts=experts, max_abs_difference=difference,
                   max_abs_logit=expected.abs().max().item(), torch=torch.__version__,
                   transformers=transformers.__version__)
    sys.exit(0 if good else 1)


def main():
    def numbers(text):
        return [int(n) for n in text.split(",")]

    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--model", required=True,
                   help="folder of the checkpoint; config.json alone gives random weights")
    p.add_argument("--prompt-tokens", type=int, default=278)
    p.add_argument("--tokens", type=int, default=200, help="timed steps of a run")
    p.add_argument("--batch", type=numbers, default=[1], help="such as 1,16,64")
    p.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    p.add_argument("--device", default="cuda")
    p.add_argument("--repeat", type=int, default=5, help="timed runs, after a warm-up")
    p.add_argument("--seconds", type=float, default=80,
                   help="shorten what is measured to end about then (compiling comes on top)")
    p.add_argument("--experts-implementation", dest="experts", type=lambda t: t.split(","),
                   default=["batched_mm", "grouped_mm", "eager"],
                   help="transformers' ways to compute the experts, all measured")
    p.add_argument("--generate", action="store_true", help="also time generate() itself")
    p.add_argument("--compile", action="store_true",
                   help="also time torch.compile with a static cache")
    p.add_argument("--check", action="store_true",
                   help="compare float32 logits with torch_model.py's and end")
    args = p.parse_args()
    transformers.logging.set_verbosity_error()
    if args.check:
        check(args)
    bench(args, *load(args.model, args.device, getattr(torch, args.dtype)))


if __name__ == "__main__":
    main()
