// One token of each of many sequences through the decoder (continuous batching; Orca, Yu et al., 2022).
// Row r of a step works for the sequence in slot `slots[r]`, or is idle where that is negative. Where
// each sequence is stands in device memory: one captured graph serves all steps of so many rows. The
// large products between these kernels are those of a prefill.
//
// Keys and values are paged (PagedAttention, Kwon et al., 2023). `pages` [slots, pages_per_slot] holds
// addresses, each of `page_positions` positions of all layers: [layers, 2, kv_heads, page_positions,
// head_dim], keys before values. A slot's pages come without gaps, and 0 stands behind the last one.
// Steps run ahead of the host, so a sequence may run past its end: it then writes nothing that has no
// page, and attends to what has one.
#include "flash_decoding.cuh"

// --- Embedding ---

// x [rows, hidden]; zeros in idle rows.
template <typename T>
__device__ void embed(const State *states, const int *slots, const T *table, float *x, int hidden) {
    const int at = (blockIdx.x * blockDim.x + threadIdx.x) * CHUNK<T>, slot = slots[blockIdx.y];
    if (at >= hidden) return;
    float v[CHUNK<T>] = {};
    if (slot >= 0) widen_chunk<T>(load_chunk(table + size_t(states[slot].token) * hidden + at), v);
    float4 *to = reinterpret_cast<float4 *>(x + size_t(blockIdx.y) * hidden + at);
#pragma unroll
    for (int i = 0; i < CHUNK<T>; i += 4) to[i / 4] = make_float4(v[i], v[i + 1], v[i + 2], v[i + 3]);
}

// --- Attention ---

// Values between a head's keys in a page and its values there, for one layer.
__device__ __forceinline__ size_t keys_to_values(int kv_heads, int page_positions, int head_dim) {
    return size_t(kv_heads) * page_positions * head_dim;
}
// Where a head's keys begin in a page.
__device__ __forceinline__ size_t keys_in_page(int layer, int kv_head, int kv_heads, int page_positions, int head_dim) {
    return (size_t(2) * layer * kv_heads + kv_head) * page_positions * head_dim;
}

// The head's keys in each page of the block's sequence.
extern __shared__ void *page_keys[];

// Keys and values in pages; `column` is the thread's.
template <typename T> struct Paged {
    int shift, column, head_dim;  // a page holds 1 << shift positions
    size_t to_values;

    __device__ __forceinline__ T *key(int position) const {
        return static_cast<T *>(page_keys[position >> shift]) + ((position & ((1 << shift) - 1)) * head_dim + column);
    }
    __device__ __forceinline__ T *value(T *key) const { return key + to_values; }
    __device__ __forceinline__ const T *value(const T *key) const { return key + to_values; }
};

// Block (head, part, row): rotary positions for the row's query and new key, in rotate-half form; the
// new key and value on their way into the pages; attention to the positions there and to the new one,
// which the last part holds in registers, so that no block waits for another's writes.
template <typename T>
__device__ void attention(const State *states, const int *slots, const T *q, const T *k, const T *v, const float *cosines,
                          const float *sines, T *const *pages, float *parts, unsigned *finished, T *out, int q_stride,
                          int kv_stride, int layer, int heads, int kv_heads, int head_dim, int pages_per_slot,
                          int page_positions, int least) {
    const int head = blockIdx.x, row = blockIdx.z, queries = heads / kv_heads, kv_head = head / queries;
    const int lanes = head_dim / CHUNK<T>, column = threadIdx.x % lanes * CHUNK<T>, half = head_dim / 2;
    // A column's partner in the rotation is half a head away, in the same place of another chunk.
    const int partner = column ^ half;
    q += size_t(row) * q_stride + head * head_dim;
    k += size_t(row) * kv_stride + kv_head * head_dim;
    v += size_t(row) * kv_stride + kv_head * head_dim;
    const uint4 q_own = load_chunk(q + column), q_partner = load_chunk(q + partner);
    const size_t index = size_t(row) * heads + head;
    const int slot = slots[row];
    if (slot < 0) {
        for (int d = threadIdx.x; d < head_dim && blockIdx.y == 0; d += ATTENTION_THREADS)
            out[index * head_dim + d] = narrow<T>(0.f);
        return;
    }
    const int cached = states[slot].cached;
    const size_t keys = keys_in_page(layer, kv_head, kv_heads, page_positions, head_dim);
    int held = 0;
    for (int first = 0; first < pages_per_slot; first += ATTENTION_THREADS) {
        const int p = first + threadIdx.x;
        T *page = p < pages_per_slot ? pages[size_t(slot) * pages_per_slot + p] : nullptr;
        if (page != nullptr) page_keys[p] = page + keys;
        held += __syncthreads_count(page != nullptr);
    }
    const int room = held * page_positions, positions = min(cached, room);
    const int wanted = min(int(gridDim.y), max((positions + least - 1) / least, 1));
    const Part part(positions, blockIdx.y, wanted, head_dim, CHUNK<T>);
    if (blockIdx.y >= part.used) return;

    float cosine[CHUNK<T>], sine[CHUNK<T>], query[CHUNK<T>];
    const size_t angle = size_t(min(cached, pages_per_slot * page_positions - 1)) * half + min(column, partner);
    load_inputs(cosines + angle, cosine), load_inputs(sines + angle, sine);
    const auto rotate = [&](const uint4 &own, const uint4 &other, float (&to)[CHUNK<T>]) {
        float a[CHUNK<T>], b[CHUNK<T>];
        widen_chunk<T>(own, a), widen_chunk<T>(other, b);
#pragma unroll
        for (int c = 0; c < CHUNK<T>; c++) to[c] = a[c] * cosine[c] + (column < half ? -b[c] : b[c]) * sine[c];
    };
    const Paged<T> places{31 - __clz(page_positions), column, head_dim, keys_to_values(kv_heads, page_positions, head_dim)};
    Mix<T> mix;
    rotate(q_own, q_partner, query);
    // The first group of the last part begins with the new position.
    if (blockIdx.y == part.used - 1 && threadIdx.x < WARP) {
        float turned[CHUNK<T>];
        const uint4 value = load_chunk(v + column);
        rotate(load_chunk(k + column), load_chunk(k + partner), turned);
        const uint4 key = narrow_chunk<T>(turned);
        float score = dot<T>(key, query, 0.f);
        for (int other = lanes / 2; other > 0; other /= 2) score += __shfl_xor_sync(ALL_LANES, score, other);
        if (threadIdx.x < lanes) {
            mix.most = score * score_scale(head_dim), mix.sum = 1.f;
            widen_chunk<T>(value, mix.value);
            if (head % queries == 0 && cached < room) {
                T *to = places.key(cached);
                *reinterpret_cast<uint4 *>(to) = key;
                *reinterpret_cast<uint4 *>(places.value(to)) = value;
            }
        }
    }
    attend<T>(places, part, head_dim, query, mix);
    float *head_parts = parts + index * gridDim.y * (head_dim + 2);
    join(mix, blockIdx.y, part.used, head_dim, head_parts, finished + index, out + index * head_dim);
}

// --- Prompts ---

// Takes the keys and values [kv_heads, capacity, head_dim] of a prompt's `count` positions, which its
// prefill left, into the pages of its slot.
template <typename T>
__device__ void adopt(T *const *pages, int slot, const T *keys, const T *values, int count, int capacity, int layer,
                      int pages_per_slot, int page_positions, int kv_heads, int head_dim) {
    const int lanes = head_dim / CHUNK<T>, at = blockIdx.x * blockDim.x + threadIdx.x, kv_head = blockIdx.y;
    const int position = at / lanes, column = at % lanes * CHUNK<T>, index = position / page_positions;
    if (position >= count || index >= pages_per_slot) return;
    const size_t from = (size_t(kv_head) * capacity + position) * head_dim + column;
    const uint4 key = load_chunk(keys + from), value = load_chunk(values + from);
    T *page = pages[size_t(slot) * pages_per_slot + index];
    if (page == nullptr) return;
    T *to = page + keys_in_page(layer, kv_head, kv_heads, page_positions, head_dim) +
            (position % page_positions * head_dim + column);
    *reinterpret_cast<uint4 *>(to) = key;
    *reinterpret_cast<uint4 *>(to + keys_to_values(kv_heads, page_positions, head_dim)) = value;
}

// --- Entry points, for each element type ---

// Launches, for sizes as the arguments name them and CHUNK = 16 bytes / element:
//   batch_embed      [ceil(hidden / CHUNK / 256), rows] x 256
//   batch_attention  [heads, parts, rows] x 256, parts = 1..32, 8 pages_per_slot bytes of shared memory
//   batch_adopt      [ceil(count head_dim / CHUNK / 256), kv_heads] x 256
// hidden and the strides are multiples of CHUNK, head_dim / CHUNK is a power of two from 2 to 32, and
// page_positions is a power of two. q, k and v are rows of `q_stride` and `kv_stride` values, the first
// `heads` or `kv_heads` heads of which count: three columns of one product, or three products. n positions
// are cut into ceil(n / least) parts, as far as the grid has so many. The tables of angles are
// [pages_per_slot page_positions, head_dim / 2]. `parts` is [rows, heads, parts, head_dim + 2], and
// `finished` [rows, heads] holds zeros before the first launch; the kernel leaves it so. No slot is in
// two rows, and no page that is not full in two slots.
#define ENTRIES(T)                                                                                                          \
    extern "C" __global__ void __launch_bounds__(256) batch_embed_##T(                                                      \
        const State *states, const int *slots, const T *table, float *x, int hidden) {                                      \
        embed(states, slots, table, x, hidden);                                                                             \
    }                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 3) batch_attention_##T(                                 \
        const State *states, const int *slots, const T *q, const T *k, const T *v, const float *cosines,                    \
        const float *sines, T *const *pages, float *parts, unsigned *finished, T *out, int q_stride, int kv_stride,         \
        int layer, int heads, int kv_heads, int head_dim, int pages_per_slot, int page_positions, int least) {              \
        attention(states, slots, q, k, v, cosines, sines, pages, parts, finished, out, q_stride, kv_stride, layer, heads,   \
                  kv_heads, head_dim, pages_per_slot, page_positions, least);                                               \
    }                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(256) batch_adopt_##T(                                                      \
        T *const *pages, int slot, const T *keys, const T *values, int count, int from_capacity, int layer,                 \
        int pages_per_slot, int page_positions, int kv_heads, int head_dim) {                                               \
        adopt(pages, slot, keys, values, count, from_capacity, layer, pages_per_slot, page_positions, kv_heads, head_dim);  \
    }

ENTRIES(bf16)
ENTRIES(f16)
ENTRIES(f32)
