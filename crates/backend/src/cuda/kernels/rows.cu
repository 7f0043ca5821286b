// Work on rows of activations that no product does: norms, biases and activations, residual sums,
// copies, conversions, the windows of convolutions, rotary positions. All of it waits for memory.
#include "windows.cuh"

// --- Norms ---

// A block takes a row. A thread holds up to 16 of its elements: the row is read once.
constexpr int NORM_THREADS = 512, HELD = 4;

// The sum over the block, in every thread. Each call has its own `scratch`.
__device__ __forceinline__ float row_sum(float v, float *scratch) {
    v = warp_sum(v);
    if (blockDim.x == WARP) return v;
    if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = v;
    __syncthreads();
    v = scratch[0];
#pragma unroll 1
    for (int warp = 1; warp < blockDim.x / WARP; ++warp) v += scratch[warp];
    return v;
}

// y = (x - mean) / sqrt(variance + eps) * weight + bias, for x [rows, size]; where not CENTRED,
// y = x / sqrt(mean(x^2) + eps) * weight.
template <bool CENTRED, typename W, typename Y>
__device__ __forceinline__ void norm(const float *x, const W *weight, const W *bias, Y *y, int size, float eps) {
    __shared__ float scratch[2][NORM_THREADS / WARP];
    x += static_cast<size_t>(blockIdx.x) * size;
    y += static_cast<size_t>(blockIdx.x) * size;
    float mean = 0.f, squares = 0.f;
    if (size % 4 == 0 && size <= 4 * HELD * blockDim.x && aligned(x, weight, bias, y)) {
        const auto place = [](int j) { return 4 * static_cast<int>(threadIdx.x + j * blockDim.x); };
        Pack<float, 4> held[HELD];
        Pack<W, 4> weights[HELD], biases[HELD];
#pragma unroll
        for (int j = 0; j < HELD; ++j) {
            if (place(j) >= size) continue;
            held[j] = load<4>(x + place(j));
            weights[j] = load<4>(weight + place(j));
            if constexpr (CENTRED) biases[j] = load<4>(bias + place(j));
        }
        if constexpr (CENTRED) {
            float sum = 0.f;
#pragma unroll
            for (int j = 0; j < HELD; ++j) {
                const float *v = held[j].of;
                if (place(j) < size) sum += (v[0] + v[1]) + (v[2] + v[3]);
            }
            mean = row_sum(sum, scratch[0]) / size;
        }
#pragma unroll
        for (int j = 0; j < HELD; ++j) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float d = held[j].of[i] - mean;
                if (place(j) < size) squares += d * d;
            }
        }
        const float scale = rsqrtf(row_sum(squares, scratch[1]) / size + eps);
#pragma unroll
        for (int j = 0; j < HELD; ++j) {
            if (place(j) >= size) continue;
            float v[4], by[4], plus[4] = {};
            widen(weights[j], by);
            if constexpr (CENTRED) widen(biases[j], plus);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                v[i] = (held[j].of[i] - mean) * scale * by[i];
                if constexpr (CENTRED) v[i] += plus[i];
            }
            store(y + place(j), narrow<Y>(v));
        }
        return;
    }
    if constexpr (CENTRED) {
        float sum = 0.f;
        for (int i = threadIdx.x; i < size; i += blockDim.x) sum += x[i];
        mean = row_sum(sum, scratch[0]) / size;
    }
    for (int i = threadIdx.x; i < size; i += blockDim.x) squares += (x[i] - mean) * (x[i] - mean);
    const float scale = rsqrtf(row_sum(squares, scratch[1]) / size + eps);
    for (int i = threadIdx.x; i < size; i += blockDim.x) {
        float v = (x[i] - mean) * scale * widen(weight[i]);
        if constexpr (CENTRED) v += widen(bias[i]);
        y[i] = narrow<Y>(v);
    }
}

// --- Biases, activations, sums ---

// GELU by the error function, or where `quick` by a logistic function.
template <int N> __device__ __forceinline__ void gelu(float (&v)[N], bool quick) {
    if (quick) {
#pragma unroll
        for (int i = 0; i < N; ++i) v[i] = v[i] / (1.f + __expf(-1.702f * v[i]));
    } else {
#pragma unroll
        for (int i = 0; i < N; ++i) v[i] = 0.5f * v[i] * (1.f + erff(v[i] * 0.70710678118654752f));
    }
}

// y = gelu(y + bias), for y [count / size, size] and bias [size].
template <int N, typename T> __device__ void bias_gelu(T *y, const T *bias, size_t count, int size, bool quick) {
    struct In { Pack<T, N> y, bias; };
    const auto read = [=](size_t i) { return In{load<N>(y + i * N), load<N>(bias + i * N % size)}; };
    each<PACKS<N>>(count / N, read, [=](size_t i, const In &in) {
        float v[N], b[N];
        widen(in.y, v), widen(in.bias, b);
#pragma unroll
        for (int j = 0; j < N; ++j) v[j] += b[j];
        gelu(v, quick);
        store(y + i * N, narrow<T>(v));
    });
}

// x += y, again and again: y [period].
template <int N> __device__ void add_rows(float *x, const float *y, size_t count, size_t period) {
    struct In { Pack<float, N> x, y; };
    const auto read = [=](size_t i) { return In{load<N>(x + i * N), load<N>(y + i * N % period)}; };
    each<PACKS<N>>(count / N, read, [=](size_t i, In in) {
#pragma unroll
        for (int j = 0; j < N; ++j) in.x.of[j] += in.y.of[j];
        store(x + i * N, in.x);
    });
}

// gate = silu(gate) * up.
template <int N, typename T> __device__ void silu_product(T *gate, const T *up, size_t count) {
    struct In { Pack<T, N> gate, up; };
    const auto read = [=](size_t i) { return In{load<N>(gate + i * N), load<N>(up + i * N)}; };
    each<PACKS<N>>(count / N, read, [=](size_t i, const In &in) {
        float v[N], by[N];
        widen(in.gate, v), widen(in.up, by);
#pragma unroll
        for (int j = 0; j < N; ++j) v[j] = v[j] / (1.f + __expf(-v[j])) * by[j];
        store(gate + i * N, narrow<T>(v));
    });
}

// --- Elements elsewhere, or of another type ---

// y = levels[bytes].
template <int N> __device__ void look_up(const uint8_t *bytes, const float *levels, float *y, size_t count) {
    each<PACKS<N>>(count / N, [=](size_t i) { return load<N>(bytes + i * N); }, [=](size_t i, const Pack<uint8_t, N> &in) {
        Pack<float, N> out;
#pragma unroll
        for (int j = 0; j < N; ++j) out.of[j] = levels[in.of[j]];
        store(y + i * N, out);
    });
}

// Rows `ids` of a table [., size].
template <int N, typename T>
__device__ void embed_rows(const T *table, const uint32_t *ids, float *y, size_t count, int size) {
    const auto read = [=](size_t i) {
        const size_t row = ids[i * N / size];
        return load<N>(table + row * size + i * N % size);
    };
    each<PACKS<N>>(count / N, read, [=](size_t i, const Pack<T, N> &in) {
        Pack<float, N> out;
        widen(in, out.of);
        store(y + i * N, out);
    });
}

// Elements in another order: five dimensions, with the strides of both sides.
struct Dims { int size[5]; int64_t from[5]; int64_t to[5]; };

template <typename T> __device__ void copy(const T *x, T *y, size_t count, const Dims &dims) {
    struct In { T value; int64_t to; };
    const auto read = [&](size_t rest) {
        int64_t from = 0, to = 0;
#pragma unroll
        for (int d = 4; d > 0; --d) {
            if (dims.size[d] == 1) continue;
            const int i = rest % dims.size[d];
            rest /= dims.size[d];
            from += i * dims.from[d];
            to += i * dims.to[d];
        }
        from += static_cast<int64_t>(rest) * dims.from[0];
        to += static_cast<int64_t>(rest) * dims.to[0];
        return In{x[from], to};
    };
    each<4>(count, read, [=](size_t, const In &in) { y[in.to] = in.value; });
}

// --- Rotary positions ---

template <int N> __device__ __forceinline__ void load_floats(const float *from, float (&v)[N]) {
    constexpr int PART = N < 4 ? N : 4;
#pragma unroll
    for (int i = 0; i < N; i += PART) {
        const Pack<float, PART> part = load<PART>(from + i);
#pragma unroll
        for (int j = 0; j < PART; ++j) v[i + j] = part.of[j];
    }
}

// The elements at a place in both halves of a head.
template <typename T, int N> struct Pair { Pack<T, N> first, second; };

template <int N, typename T> __device__ __forceinline__ Pair<T, N> load_pair(const T *from, int half) {
    return {load<N>(from), load<N>(from + half)};
}
template <typename T, int N> __device__ __forceinline__ void store_pair(T *to, int half, const Pair<T, N> &pair) {
    store(to, pair.first), store(to + half, pair.second);
}
template <typename T, int N>
__device__ __forceinline__ Pair<T, N> turned(const Pair<T, N> &pair, const float (&c)[N], const float (&s)[N]) {
    float a[N], b[N], first[N], second[N];
    widen(pair.first, a), widen(pair.second, b);
#pragma unroll
    for (int i = 0; i < N; ++i) first[i] = a[i] * c[i] - b[i] * s[i], second[i] = b[i] * c[i] + a[i] * s[i];
    return {narrow<T>(first), narrow<T>(second)};
}

// Rotary positions, rotate-half form: q [rows, heads, dim] in place, k [rows, kv_heads, dim] on its
// way into the cache [kv_heads, capacity, dim] behind the *filled positions there, and v unchanged
// beside it. Tables are [positions, dim / 2]. `count` pairs of q; a thread takes N, and those of k and
// of v.
template <int N, typename T>
__device__ void rotate_append(T *q, const T *k, const T *v, T *keys, T *values, const float *cosines,
                              const float *sines, const int *filled, size_t count, int heads, int kv_heads,
                              int dim, int capacity) {
    struct In { Pair<T, N> q, k, v; float c[N], s[N]; T *to; int64_t cached; };
    const int half = dim / 2, packs = half / N;
    const auto read = [=](size_t i) {
        const int column = i % packs * N, head = i / packs % heads;
        const size_t row = i / packs / heads, position = *filled + row;
        In in;
        in.to = q + (row * heads + head) * dim + column;
        in.q = load_pair<N>(in.to, half);
        load_floats(cosines + position * half + column, in.c);
        load_floats(sines + position * half + column, in.s);
        in.cached = -1;
        if (head >= kv_heads) return in;
        const size_t from = (row * kv_heads + head) * dim + column;
        in.k = load_pair<N>(k + from, half), in.v = load_pair<N>(v + from, half);
        in.cached = (static_cast<int64_t>(head) * capacity + position) * dim + column;
        return in;
    };
    each<1>(count / N, read, [=](size_t, const In &in) {
        store_pair(in.to, half, turned(in.q, in.c, in.s));
        if (in.cached < 0) return;
        store_pair(keys + in.cached, half, turned(in.k, in.c, in.s));
        store_pair(values + in.cached, half, in.v);
    });
}

// --- Kernels ---

// A block of up to NORM_THREADS for each row.
#define NORMS(W, w, Y, y)                                                                            \
    __global__ void __launch_bounds__(NORM_THREADS) layer_norm_##w##_##y(                            \
        const float *in, const W *weight, const W *bias, Y *out, int size, float eps) {              \
        norm<true>(in, weight, bias, out, size, eps);                                                \
    }                                                                                                \
    __global__ void __launch_bounds__(NORM_THREADS) rms_norm_##w##_##y(                              \
        const float *in, const W *weight, Y *out, int size, float eps) {                             \
        norm<false>(in, weight, weight, out, size, eps);                                             \
    }

// All others: grids of one dimension and any size.
#define CONVERT(X, x, Y, y)                                                                          \
    __global__ void convert_##x##_##y(const X *in, Y *out, size_t count) {                           \
        BY((WIDE<X, Y>), count, (in, out), convert, (in, out, count))                                \
    }

#define ALL(T, t)                                                                                    \
    __global__ void bias_gelu_##t(T *y, const T *bias, size_t count, int size, int quick) {          \
        BY(WIDE<T>, size, (y, bias), bias_gelu, (y, bias, count, size, quick))                       \
    }                                                                                                \
    __global__ void silu_product_##t(T *gate, const T *up, size_t count) {                           \
        BY(WIDE<T>, count, (gate, up), silu_product, (gate, up, count))                              \
    }                                                                                                \
    __global__ void __launch_bounds__(UNFOLD_THREADS)                                                \
        unfold_##t(const float *x, T *y, size_t count, int height, int width, int channels, int down, \
                   int across, int kernel, int stride, int padding, int64_t b, int64_t h, int64_t w, int64_t c) { \
        unfold(x, y, count, Windows{height, width, channels, down, across, kernel, stride, padding, b, h, w, c}); \
    }                                                                                                \
    __global__ void embed_rows_##t(const T *table, const uint32_t *ids, float *y, size_t count, int size) { \
        BY(4, size, (table, y), embed_rows, (table, ids, y, count, size))                            \
    }                                                                                                \
    __global__ void rotate_append_##t(T *q, const T *k, const T *v, T *keys, T *values,              \
                                      const float *cosines, const float *sines, const int *filled,   \
                                      size_t count, int heads, int kv_heads, int dim, int capacity) { \
        BY(WIDE<T>, dim / 2, (q, k, v, keys, values, cosines, sines), rotate_append,                 \
           (q, k, v, keys, values, cosines, sines, filled, count, heads, kv_heads, dim, capacity))   \
    }

extern "C" {
NORMS(float, f32, float, f32)
NORMS(bf16, bf16, bf16, bf16)
NORMS(bf16, bf16, float, f32)
NORMS(f16, f16, f16, f16)
NORMS(f16, f16, float, f32)
CONVERT(bf16, bf16, float, f32)
CONVERT(bf16, bf16, f16, f16)
CONVERT(f16, f16, float, f32)
CONVERT(float, f32, bf16, bf16)
CONVERT(float, f32, f16, f16)
ALL(float, f32)
ALL(bf16, bf16)
ALL(f16, f16)
__global__ void add_rows(float *x, const float *y, size_t count, size_t period) {
    BY(4, period, (x, y), add_rows, (x, y, count, period))
}
// A table for all bytes.
__global__ void look_up_levels(const uint8_t *bytes, const float *levels, float *y, int64_t count) {
    __shared__ float all[256];
    for (int i = threadIdx.x; i < 256; i += blockDim.x) all[i] = levels[i];
    __syncthreads();
    BY(4, count, (bytes, y), look_up, (bytes, all, y, count))
}
__global__ void copy_2(const uint16_t *x, uint16_t *y, size_t count, Dims dims) { copy(x, y, count, dims); }
__global__ void copy_4(const uint32_t *x, uint32_t *y, size_t count, Dims dims) { copy(x, y, count, dims); }
__global__ void copy_16(const uint4 *x, uint4 *y, size_t count, Dims dims) { copy(x, y, count, dims); }
}
