// Attention for any size of head, grid and window, and in f32: a warp for a query, whose lanes go through the
// keys in groups, each with an online softmax (Milakov and Gimelshein, 2018) of its own.
#include "common.cuh"

constexpr int WARPS = 8;
constexpr int GROUP = 8, GROUPS = WARP / GROUP;  // Lanes for one key, and keys at a time.

// One query of a warp and what its groups have seen. A lane has every 8th of at most 8 PART elements.
template <int PART> struct Attend {
    const int dim, lane = threadIdx.x % GROUP, group = threadIdx.x % WARP / GROUP;
    float q[PART], o[PART] = {};
    float high = -INFINITY, sum = 0.f;

    template <typename F> __device__ __forceinline__ void each(F f) const {
#pragma unroll
        for (int i = 0; i < PART; ++i)
            if (i * GROUP + lane < dim) f(i, i * GROUP + lane);
    }
    template <typename T> __device__ Attend(const T *row, int dim) : dim(dim) {
        each([&](int i, int d) { q[i] = widen(row[d]); });
    }
    // q · row in every lane of a group that has its own row. All lanes take part.
    template <typename T> __device__ __forceinline__ float dot(const T *row) const {
        float sum = 0.f;
        each([&](int i, int d) { sum = fmaf(q[i], widen(row[d]), sum); });
#pragma unroll
        for (int lanes = GROUP / 2; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, lanes);
        return sum;
    }
    template <typename T> __device__ __forceinline__ void absorb(float score, const T *v) {
        const float next = fmaxf(high, score), factor = expf(high - next), p = expf(score - next);
        high = next;
        sum = fmaf(sum, factor, p);
        each([&](int i, int d) { o[i] = fmaf(o[i], factor, p * widen(v[d])); });
    }
    // The output, of all groups together.
    template <typename T> __device__ __forceinline__ void store(T *to) {
        const float factor = expf(high - warp_max(high)), total = warp_sum(sum * factor) / GROUP;
#pragma unroll
        for (int i = 0; i < PART; ++i) {
            o[i] *= factor / total;
#pragma unroll
            for (int lanes = GROUP; lanes < WARP; lanes *= 2) o[i] += __shfl_xor_sync(ALL_LANES, o[i], lanes);
        }
        if (group == 0) each([&](int i, int d) { to[d] = narrow<T>(o[i]); });
    }
};

extern __shared__ float relative_bias[];

// attention_any_T: the positions of each window of side x side, or of the whole grid where side is 0, see each other.
//   grid (ceil(positions of a window / 8), heads, batch * windows), block 256,
//   64 * side bytes of dynamic shared memory with tables, else 0
//   (const T *qkv [batch, height, width, 3, heads, dim], const T *padding [3, heads, dim] or null where windows
//    fit, const T *table_height, const T *table_width [2 side - 1, dim] or both null, T *out [batch, height, width,
//    heads, dim], int height, int width, int side, int dim <= 256)
template <int PART, typename T>
__device__ void attend_image(const T *qkv, const T *padding, const T *table_height, const T *table_width, T *out, int height,
                             int width, int side, int dim) {
    const int down = side ? (height + side - 1) / side : 1, across = side ? (width + side - 1) / side : 1;
    const int tall = side ? side : height, wide = side ? side : width, window = blockIdx.z;
    const int top = window / across % down * tall, left = window % across * wide;
    const int64_t page = static_cast<int64_t>(window / across / down) * height * width;
    const int heads = gridDim.y * dim, head = blockIdx.y * dim;
    const int query = blockIdx.x * WARPS + threadIdx.x / WARP, y = query / wide, x = query % wide;
    if (y >= tall || top + y >= height || left + x >= width) return;

    const auto position = [&](int y, int x) { return page + static_cast<int64_t>(top + y) * width + left + x; };
    Attend<PART> attend(qkv + position(y, x) * 3 * heads + head, dim);
    float *const rows = relative_bias + threadIdx.x / WARP * 2 * side, *const columns = rows + side;
    if (table_height != nullptr) {
        for (int first = 0; first < side; first += GROUPS) {
            const int j = min(first + attend.group, side - 1);
            rows[j] = attend.dot(table_height + (y - j + side - 1) * dim);
            columns[j] = attend.dot(table_width + (x - j + side - 1) * dim);
        }
        __syncwarp();
    }
    const float scale = rsqrtf(dim);
    for (int ky = 0; ky < tall; ++ky)
        for (int first = 0; first < wide; first += GROUPS) {
            const int kx = min(first + attend.group, wide - 1);
            const bool inside = top + ky < height && left + kx < width;
            const T *const k = (inside ? qkv + position(ky, kx) * 3 * heads : padding) + heads + head;
            const float bias = table_height != nullptr ? rows[ky] + columns[kx] : 0.f;
            const float score = fmaf(attend.dot(k), scale, bias);
            if (first + attend.group < wide) attend.absorb(score, k + heads);
        }
    attend.store(out + position(y, x) * heads + head);
}

// causal_attention_any_T: the prompt's queries over a cache that holds their keys too.
//   grid (heads, ceil(n / 8)), block 256, no dynamic shared memory
//   (const T *q [n, heads, dim], const T *k, const T *v [kv_heads, capacity, dim], T *out [n, heads, dim],
//    int n, int kv_heads, int capacity, const int *len: positions in the cache before these n, int dim <= 256)
template <int PART, typename T>
__device__ void attend_causal(const T *q, const T *k, const T *v, T *out, int n, int kv_heads, int capacity, const int *len, int dim) {
    const int query = blockIdx.y * WARPS + threadIdx.x / WARP;
    if (query >= n) return;
    const int64_t row = (static_cast<int64_t>(query) * gridDim.x + blockIdx.x) * dim;
    const int64_t cache = static_cast<int64_t>(blockIdx.x / (gridDim.x / kv_heads)) * capacity * dim;
    Attend<PART> attend(q + row, dim);
    const float scale = rsqrtf(dim);
    const int last = *len + query;
    for (int first = 0; first <= last; first += GROUPS) {
        const int64_t key = min(first + attend.group, last);
        const float score = attend.dot(k + cache + key * dim) * scale;
        if (first + attend.group <= last) attend.absorb(score, v + cache + key * dim);
    }
    attend.store(out + row);
}

// Chooses the least PART that holds a row.
#define BY_DIM(FUNCTION, ...)                                                                                          \
    if (dim <= 8 * GROUP) FUNCTION<8>(__VA_ARGS__);                                                                    \
    else if (dim <= 16 * GROUP) FUNCTION<16>(__VA_ARGS__);                                                             \
    else FUNCTION<32>(__VA_ARGS__);
#define KERNELS(NAME, T)                                                                                               \
    extern "C" __global__ void __launch_bounds__(WARPS *WARP)                                                          \
        attention_any_##NAME(const T *qkv, const T *padding, const T *table_height, const T *table_width, T *out,      \
                             int height, int width, int side, int dim) {                                               \
        BY_DIM(attend_image, qkv, padding, table_height, table_width, out, height, width, side, dim)                   \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(WARPS *WARP)                                                          \
        causal_attention_any_##NAME(const T *q, const T *k, const T *v, T *out, int n, int kv_heads, int capacity,     \
                                    const int *len, int dim) {                                                         \
        BY_DIM(attend_causal, q, k, v, out, n, kv_heads, capacity, len, dim)                                           \
    }

KERNELS(f32, float)
KERNELS(bf16, bf16)
KERNELS(f16, f16)
