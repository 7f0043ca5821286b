// One token through the decoder. Its products of a matrix with a vector run as fast as memory gives
// the weights, so each kernel asks for many of them before it needs the first. Nothing here waits
// for the host: where a generation is stands in device memory, and one captured graph serves all
// its steps.
#include "flash_decoding.cuh"

// --- Embedding ---

template <typename T> __device__ void embed(const State *state, const T *table, float *x, int hidden) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < hidden) x[i] = widen(table[size_t(state->token) * hidden + i]);
}

// --- Queries, keys and values ---

// Pairs of rows that rotary positions turn into each other: what a block makes.
constexpr int PAIRS = 3;

// RMSNorm is linear but for one factor, which is applied to the sums: nobody waits for it.
template <typename T>
__device__ void query_key_value(const State *state, const float *x, const T *norm, const T *q_weight, const T *k_weight,
                                const T *v_weight, const float *cosines, const float *sines, float *q, T *keys, T *values,
                                int hidden, int heads, int kv_heads, int head_dim, int capacity, float eps) {
    __shared__ float partial[WARP][2 * PAIRS + 1];
    const int half = head_dim / 2, pairs = (heads + 2 * kv_heads) * half, first = blockIdx.x * PAIRS;
    const int partner = half * hidden;
    const T *rows[PAIRS];
#pragma unroll
    for (int p = 0; p < PAIRS; p++) {
        const int pair = min(first + p, pairs - 1);
        int head = pair / half;
        const T *weight = q_weight;
        if (head >= heads + kv_heads) weight = v_weight, head -= heads + kv_heads;
        else if (head >= heads) weight = k_weight, head -= heads;
        rows[p] = weight + size_t(head * head_dim + pair % half) * hidden;
    }
    const int position = min(state->cached, capacity - 1);
    float sums[2 * PAIRS + 1] = {};
    for (int at = threadIdx.x * CHUNK<T>; at < hidden; at += blockDim.x * CHUNK<T>) {
        uint4 weights[2 * PAIRS];
#pragma unroll
        for (int p = 0; p < PAIRS; p++) {
            weights[2 * p] = load_chunk(rows[p] + at);
            weights[2 * p + 1] = load_chunk(rows[p] + partner + at);
        }
        float v[CHUNK<T>], scale[CHUNK<T>];
        load_inputs(x + at, v);
        widen_chunk<T>(load_chunk(norm + at), scale);
#pragma unroll
        for (int i = 0; i < CHUNK<T>; i++) {
            sums[2 * PAIRS] = fmaf(v[i], v[i], sums[2 * PAIRS]);
            v[i] *= scale[i];
        }
#pragma unroll
        for (int r = 0; r < 2 * PAIRS; r++) sums[r] = dot<T>(weights[r], v, sums[r]);
    }
    // The thread of a pair asks for its angle before it waits for the others.
    const int pair = first + threadIdx.x, head = pair / half, i = pair % half;
    const bool finishes = threadIdx.x < PAIRS && pair < pairs;
    float cosine = 1.f, sine = 0.f;
    if (finishes && head < heads + kv_heads) cosine = cosines[position * half + i], sine = sines[position * half + i];
    keep_sums(sums, partial);
    if (!finishes) return;
    const float scale = rsqrtf(total(partial, 2 * PAIRS) / hidden + eps);
    const float a = total(partial, 2 * threadIdx.x) * scale, b = total(partial, 2 * threadIdx.x + 1) * scale;
    const float turned_a = a * cosine - b * sine, turned_b = b * cosine + a * sine;
    if (head < heads) {
        float *to = q + head * head_dim + i;
        to[0] = turned_a, to[half] = turned_b;
    } else {
        const int kv_head = (head - heads) % kv_heads;
        T *to = (head < heads + kv_heads ? keys : values) + (size_t(kv_head) * capacity + position) * head_dim + i;
        to[0] = narrow<T>(turned_a), to[half] = narrow<T>(turned_b);
    }
}

// --- Attention ---

// Block (head, part): the cache [kv_heads, capacity, head_dim] holds the newest position already.
template <typename T>
__device__ void attention(const State *state, const float *q, const T *keys, const T *values, float *parts,
                          unsigned *finished, float *out, int heads, int kv_heads, int head_dim, int capacity) {
    const int head = blockIdx.x, kv_head = head / (heads / kv_heads);
    const int column = threadIdx.x % (head_dim / CHUNK<T>) * CHUNK<T>;
    const Part part(min(state->cached + 1, capacity), blockIdx.y, gridDim.y, head_dim, CHUNK<T>);
    if (blockIdx.y >= part.used) return;
    float query[CHUNK<T>];
    load_inputs(q + head * head_dim + column, query);
    const size_t base = size_t(kv_head) * capacity * head_dim + column;
    Mix<T> mix;
    const ptrdiff_t to_values = reinterpret_cast<const char *>(values) - reinterpret_cast<const char *>(keys);
    attend<T>(Contiguous<T>{keys + base, to_values, head_dim}, part, head_dim, query, mix);
    float *head_parts = parts + size_t(head) * gridDim.y * (head_dim + 2);
    join(mix, blockIdx.y, part.used, head_dim, head_parts, finished + head, out + head * head_dim);
}

// --- Projections back to the residual stream ---

constexpr int PROJECT_ROWS = 5;

// x += W h, where the columns of W are those of the chosen experts' matrices, then the shared one's.
// Each thread owns columns and reads all of the block's rows there.
template <typename T>
__device__ void project(const float *h, const T *const *chosen, const T *shared, float *x, int hidden, int top_k, int inner,
                        int shared_inner) {
    __shared__ float partial[WARP][PROJECT_ROWS];
    const int first = blockIdx.x * PROJECT_ROWS, routed = top_k * inner;
    float sums[PROJECT_ROWS] = {};
    for (int at = threadIdx.x * CHUNK<T>; at < routed + shared_inner; at += blockDim.x * CHUNK<T>) {
        const int slot = at < routed ? at / inner : 0;
        const T *matrix = at < routed ? chosen[slot] + (at - slot * inner) : shared + (at - routed);
        const int width = at < routed ? inner : shared_inner;
        uint4 weights[PROJECT_ROWS];
#pragma unroll
        for (int r = 0; r < PROJECT_ROWS; r++) weights[r] = load_chunk(matrix + size_t(min(first + r, hidden - 1)) * width);
        float v[CHUNK<T>];
        load_inputs(h + at, v);
#pragma unroll
        for (int r = 0; r < PROJECT_ROWS; r++) sums[r] = dot<T>(weights[r], v, sums[r]);
    }
    const int row = first + threadIdx.x;
    const bool finishes = threadIdx.x < PROJECT_ROWS && row < hidden;
    const float before = finishes ? x[row] : 0.f;
    keep_sums(sums, partial);
    if (finishes) x[row] = before + total(partial, threadIdx.x);
}

// --- The experts ---

constexpr int MOST_CHOSEN = 16;
// A score that is still to come: a bit pattern that arithmetic does not give.
constexpr unsigned PENDING = 0xffffffffu;

// The chosen experts, the most probable first.
template <typename T> struct Routing {
    const T *gate[MOST_CHOSEN], *up[MOST_CHOSEN], *down[MOST_CHOSEN];
    int id[MOST_CHOSEN];
    float weight[MOST_CHOSEN];
};

// Waits for the scores, then takes softmax and the `top_k` most probable experts, of equals the
// lower index, by one warp whose lanes take two experts each.
template <typename T>
__device__ __forceinline__ void choose(const float *scores, const T *const *gates, const T *const *ups,
                                       const T *const *downs, int experts, int top_k, Routing<T> &routing) {
    const int lane = threadIdx.x % WARP;
    const T *gate[2], *up[2], *down[2];
    float score[2];
    unsigned key[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int e = min(lane + i * WARP, experts - 1);
        gate[i] = gates[e], up[i] = ups[e], down[i] = downs[e];
    }
    bool pending = true;
    while (pending) {
        pending = false;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int e = min(lane + i * WARP, experts - 1);
            key[i] = *reinterpret_cast<const volatile unsigned *>(scores + e);
        }
#pragma unroll
        for (int i = 0; i < 2; i++) pending |= key[i] == PENDING, score[i] = __uint_as_float(key[i]);
    }
    __syncwarp();
    const float most = warp_max(fmaxf(score[0], score[1]));
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        score[i] = lane + i * WARP < experts ? expf(score[i] - most) : 0.f;
        sum += score[i];
    }
    sum = warp_sum(sum);
    // Probabilities have no sign, so their bits have their order. 0 is no expert's key.
#pragma unroll
    for (int i = 0; i < 2; i++) {
        score[i] /= sum;
        key[i] = lane + i * WARP < experts ? (__float_as_uint(score[i]) & 0x7fffffffu) + 1 : 0;
    }
    for (int place = 0; place < top_k; place++) {
        const unsigned highest = __reduce_max_sync(ALL_LANES, max(key[0], key[1]));
        const unsigned low = __ballot_sync(ALL_LANES, key[0] == highest), high = __ballot_sync(ALL_LANES, key[1] == highest);
        const int owner = __ffs(low ? low : high) - 1;
        if (lane == owner) {
            routing.id[place] = low ? lane : lane + WARP, routing.weight[place] = low ? score[0] : score[1];
            routing.gate[place] = low ? gate[0] : gate[1], routing.up[place] = low ? up[0] : up[1];
            routing.down[place] = low ? down[0] : down[1];
            (low ? key[0] : key[1]) = 0;
        }
    }
}

__device__ __forceinline__ float silu(float v) { return v / (1.f + expf(-v)); }

// h = weight * silu(gate xn) * (up xn) for the chosen experts one after another, then for the shared
// one. Which experts are chosen depends on all the router's scores, so the work comes in two halves:
// all warps but a block's first make the scores, then the shared expert's values, while the first
// waits for the scores and chooses. It waits only for blocks before its own or that run already.
template <typename T>
__device__ void gate_up(const float *x, const T *norm, const T *router, const T *const *gates, const T *const *ups,
                        const T *const *downs, const T *shared_gate, const T *shared_up, float *h, float *scores,
                        unsigned *finished, int *ids, float *weights, const T **chosen_downs, int hidden, int experts,
                        int top_k, int inner, int shared_inner, float eps) {
    extern __shared__ float4 input[];
    __shared__ Routing<T> routing;
    __shared__ bool last;
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
    const int chunks = hidden / CHUNK<T>, score_pairs = experts / 2, routed = top_k * inner;
    const int first = (warp - 1) * gridDim.x + blockIdx.x, early = score_pairs + shared_inner;
    const auto early_rows = [&](int task) {
        const size_t row = size_t(task < score_pairs ? 2 * task : task - score_pairs) * hidden;
        return task < score_pairs ? Rows<T>{router + row, router + row + hidden} : Rows<T>{shared_gate + row, shared_up + row};
    };
    Batch<T> batch;
    const float scale = stage(x, norm, hidden, eps, input, [&] {
        if (warp > 0 && first < early) batch.load(early_rows(first), lane, chunks);
    });
    const auto activate = [&](float2 sums) { return silu(sums.x * scale) * (sums.y * scale); };
    if (warp > 0) {
        stream(batch, input, chunks, first, (warps - 1) * gridDim.x, early, early_rows, [&](int task, float2 sums) {
            if (task < score_pairs) {
                volatile float *to = scores + 2 * task;
                to[0] = sums.x * scale, to[1] = sums.y * scale;
            } else {
                h[routed + task - score_pairs] = activate(sums);
            }
        });
    } else if (experts > 0) {
        choose(scores, gates, ups, downs, experts, top_k, routing);
        // The last block through has the scores wait for the next step.
        if (lane == 0) last = atomicInc(finished, gridDim.x - 1) == gridDim.x - 1;
        __syncwarp();
        for (int e = lane; last && e < experts; e += WARP) scores[e] = __uint_as_float(PENDING);
    }
    __syncthreads();

    if (blockIdx.x == 0 && threadIdx.x < top_k) {
        ids[threadIdx.x] = routing.id[threadIdx.x], weights[threadIdx.x] = routing.weight[threadIdx.x];
        chosen_downs[threadIdx.x] = routing.down[threadIdx.x];
    }
    const auto expert_rows = [&](int task) {
        const int slot = task / inner;
        const size_t row = size_t(task - slot * inner) * hidden;
        return Rows<T>{routing.gate[slot] + row, routing.up[slot] + row};
    };
    const int task = warp * gridDim.x + blockIdx.x;
    if (task < routed) batch.load(expert_rows(task), lane, chunks);
    stream(batch, input, chunks, task, warps * gridDim.x, routed, expert_rows,
           [&](int task, float2 sums) { h[task] = routing.weight[task / inner] * activate(sums); });
}

// --- The scores of all tokens ---

template <typename T>
__device__ void logits(const float *x, const T *norm, const T *weight, float *out, int hidden, int vocab, float eps) {
    extern __shared__ float4 input[];
    const int chunks = hidden / CHUNK<T>, first = threadIdx.x / WARP * gridDim.x + blockIdx.x;
    const auto rows = [&](int pair) {
        const T *row = weight + size_t(2 * pair) * hidden;
        return Rows<T>{row, row + hidden};
    };
    Batch<T> batch;
    const float scale = stage(x, norm, hidden, eps, input, [&] {
        if (2 * first < vocab) batch.load(rows(first), threadIdx.x % WARP, chunks);
    });
    stream(batch, input, chunks, first, blockDim.x / WARP * gridDim.x, vocab / 2, rows, [&](int pair, float2 sums) {
        reinterpret_cast<float2 *>(out)[pair] = make_float2(sums.x * scale, sums.y * scale);
    });
}

// --- Entry points, for each element type ---

// Launches, for sizes as the arguments name them, CHUNK = 16 bytes / element, and
// threads(n) = n / CHUNK / passes rounded up to warps, with passes = ceil(n / CHUNK / 512):
//   decode_embed      [ceil(hidden / 256)] x 256
//   decode_qkv        [ceil((heads + 2 kv_heads) head_dim / 2 / PAIRS)] x threads(hidden)
//   decode_attention  [heads, parts] x 256, parts = 1..32, best 2 multiprocessors / heads
//   decode_project    [ceil(hidden / PROJECT_ROWS)] x threads(top_k inner + shared_inner)
//   decode_gate_up    [min(2 multiprocessors, ceil((experts / 2 + shared_inner) / 7))] x 256
//   decode_logits     [min(2 multiprocessors, ceil(vocab / 16))] x 256
// The last two take 4 hidden bytes of dynamic shared memory. Sizes are multiples of 8, head_dim / CHUNK
// is a power of two up to 32, experts are at most 64 and top_k at most 16. Before the first launch
// `scores` holds bytes of 0xff and each `finished` zeros; the kernels leave them so.
constexpr int STREAM_THREADS = 256, STREAM_BLOCKS = 2;

#define ENTRIES(T)                                                                                                          \
    extern "C" __global__ void decode_embed_##T(const State *state, const T *table, float *x, int hidden) {                 \
        embed(state, table, x, hidden);                                                                                     \
    }                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(512, 1) decode_qkv_##T(                                                    \
        const State *state, const float *x, const T *norm, const T *q_weight, const T *k_weight, const T *v_weight,         \
        const float *cosines, const float *sines, float *q, T *keys, T *values, int hidden, int heads, int kv_heads,        \
        int head_dim, int capacity, float eps) {                                                                            \
        query_key_value(state, x, norm, q_weight, k_weight, v_weight, cosines, sines, q, keys, values, hidden, heads,       \
                        kv_heads, head_dim, capacity, eps);                                                                 \
    }                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 2) decode_attention_##T(                                \
        const State *state, const float *q, const T *keys, const T *values, float *parts, unsigned *finished, float *out,   \
        int heads, int kv_heads, int head_dim, int capacity) {                                                              \
        attention(state, q, keys, values, parts, finished, out, heads, kv_heads, head_dim, capacity);                       \
    }                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(512, 2) decode_project_##T(                                                \
        const float *h, const T *const *chosen, const T *shared, float *x, int hidden, int top_k, int inner,                \
        int shared_inner) {                                                                                                 \
        project(h, chosen, shared, x, hidden, top_k, inner, shared_inner);                                                  \
    }                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(STREAM_THREADS, STREAM_BLOCKS) decode_gate_up_##T(                         \
        const float *x, const T *norm, const T *router, const T *const *gates, const T *const *ups, const T *const *downs,  \
        const T *shared_gate, const T *shared_up, float *h, float *scores, unsigned *finished, int *ids, float *weights,    \
        const T **chosen_downs, int hidden, int experts, int top_k, int inner, int shared_inner, float eps) {               \
        gate_up(x, norm, router, gates, ups, downs, shared_gate, shared_up, h, scores, finished, ids, weights,              \
                chosen_downs, hidden, experts, top_k, inner, shared_inner, eps);                                            \
    }                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(STREAM_THREADS, STREAM_BLOCKS) decode_logits_##T(                          \
        const float *x, const T *norm, const T *weight, float *out, int hidden, int vocab, float eps) {                     \
        logits(x, norm, weight, out, hidden, vocab, eps);                                                                   \
    }

ENTRIES(bf16)
ENTRIES(f16)
ENTRIES(f32)
