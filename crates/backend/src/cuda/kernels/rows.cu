// Work on rows of activations that no product does: norms, biases and activations, residual sums,
// copies, conversions, the windows of convolutions, rotary positions.
#include "common.cuh"

// A warp takes a row: blocks of (32, 8), ceil(rows / 8) of them.
#define ROW_OF_WARP                                                                                  \
    const int row = blockIdx.x * blockDim.y + threadIdx.y;                                           \
    if (row >= rows) return;

// y = (x - mean) / sqrt(variance + eps) * weight + bias, for x [rows, size].
template <typename W, typename Y>
__device__ void layer_norm(const float *x, const W *weight, const W *bias, Y *y, int rows, int size, float eps) {
    ROW_OF_WARP
    x += static_cast<size_t>(row) * size;
    y += static_cast<size_t>(row) * size;
    float sum = 0.f;
    for (int i = threadIdx.x; i < size; i += WARP) sum += x[i];
    const float mean = warp_sum(sum) / size;
    float squares = 0.f;
    for (int i = threadIdx.x; i < size; i += WARP) {
        const float d = x[i] - mean;
        squares += d * d;
    }
    const float scale = rsqrtf(warp_sum(squares) / size + eps);
    for (int i = threadIdx.x; i < size; i += WARP)
        y[i] = narrow<Y>((x[i] - mean) * scale * widen(weight[i]) + widen(bias[i]));
}

// y = x / sqrt(mean(x^2) + eps) * weight, for x [rows, size].
template <typename W, typename Y>
__device__ void rms_norm(const float *x, const W *weight, Y *y, int rows, int size, float eps) {
    ROW_OF_WARP
    x += static_cast<size_t>(row) * size;
    y += static_cast<size_t>(row) * size;
    float squares = 0.f;
    for (int i = threadIdx.x; i < size; i += WARP) squares += x[i] * x[i];
    const float scale = rsqrtf(warp_sum(squares) / size + eps);
    for (int i = threadIdx.x; i < size; i += WARP) y[i] = narrow<Y>(x[i] * scale * widen(weight[i]));
}

// The numbers of the activations, as the launcher knows them.
enum Activation { NONE = 0, GELU = 1, QUICK_GELU = 2 };

__device__ __forceinline__ float activate(float v, int activation) {
    switch (activation) {
    case GELU: return 0.5f * v * (1.f + erff(v * 0.70710678118654752f));
    case QUICK_GELU: return v / (1.f + __expf(-1.702f * v));
    default: return v;
    }
}

// An element a thread, all of a grid of one dimension.
#define ELEMENT                                                                                      \
    const size_t at = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;                    \
    if (at >= count) return;

// y = activation(y + bias), for y [count / size, size]; `bias` may be null.
template <typename T>
__device__ void bias_activation(T *y, const T *bias, size_t count, int size, int activation) {
    ELEMENT
    const float b = bias == nullptr ? 0.f : widen(bias[at % size]);
    y[at] = narrow<T>(activate(widen(y[at]) + b, activation));
}

// x += y + bias, for x and y [count / size, size]; `bias` may be null.
template <typename T>
__device__ void add_residual(float *x, const T *y, const T *bias, size_t count, int size) {
    ELEMENT
    const float b = bias == nullptr ? 0.f : widen(bias[at % size]);
    x[at] += widen(y[at]) + b;
}

// gate = silu(gate) * up.
template <typename T> __device__ void silu_product(T *gate, const T *up, size_t count) {
    ELEMENT
    const float v = widen(gate[at]);
    gate[at] = narrow<T>(v / (1.f + __expf(-v)) * widen(up[at]));
}

// The columns of a convolution: x [batch, height, width, channels] with any strides, f32, to
// [batch * down * across, channels * kernel * kernel], in the order of the weights' inputs.
template <typename T>
__device__ void unfold(const float *x, T *y, size_t count, int height, int width, int channels, int down,
                       int across, int kernel, int stride, int padding, int64_t along_batch, int64_t along_height,
                       int64_t along_width, int64_t along_channels) {
    ELEMENT
    size_t rest = at;
    const int dx = rest % kernel; rest /= kernel;
    const int dy = rest % kernel; rest /= kernel;
    const int channel = rest % channels; rest /= channels;
    const int left = static_cast<int>(rest % across) * stride + dx - padding; rest /= across;
    const int top = static_cast<int>(rest % down) * stride + dy - padding;
    const int64_t image = rest / down;
    const bool inside = top >= 0 && top < height && left >= 0 && left < width;
    const float v = inside ? x[image * along_batch + top * along_height + left * along_width + channel * along_channels] : 0.f;
    y[at] = narrow<T>(v);
}

// Rows `ids` of a table [., size].
template <typename T>
__device__ void embed_rows(const T *table, const uint32_t *ids, float *y, size_t count, int size) {
    ELEMENT
    y[at] = widen(table[static_cast<size_t>(ids[at / size]) * size + at % size]);
}

template <typename X, typename Y> __device__ void convert(const X *x, Y *y, size_t count) {
    ELEMENT
    y[at] = narrow<Y>(widen(x[at]));
}

// Rotary positions, rotate-half form: q [rows, heads, dim] in place, k [rows, kv_heads, dim] on its
// way into the cache [kv_heads, capacity, dim] behind the *filled positions there, and v unchanged
// beside it. Tables are [positions, dim / 2]. A thread takes a pair of q, of k and of v.
template <typename T>
__device__ void rotate_append(T *q, const T *k, const T *v, T *keys, T *values, const float *cosines,
                              const float *sines, const int *filled, size_t count, int heads, int kv_heads,
                              int dim, int capacity) {
    ELEMENT
    const int half = dim / 2, i = at % half, head = at / half % heads;
    const size_t row = at / half / heads;
    const size_t position = *filled + row;
    const float c = cosines[position * half + i], s = sines[position * half + i];
    T *pair = q + (row * heads + head) * dim + i;
    const float a = widen(pair[0]), b = widen(pair[half]);
    pair[0] = narrow<T>(a * c - b * s);
    pair[half] = narrow<T>(b * c + a * s);
    if (head >= kv_heads) return;
    const size_t from = (row * kv_heads + head) * dim + i;
    const size_t to = (static_cast<size_t>(head) * capacity + position) * dim + i;
    const float ka = widen(k[from]), kb = widen(k[from + half]);
    keys[to] = narrow<T>(ka * c - kb * s);
    keys[to + half] = narrow<T>(kb * c + ka * s);
    values[to] = v[from];
    values[to + half] = v[from + half];
}

// Elements in another order: five dimensions, with the strides of both sides.
struct Dims { int size[5]; int64_t from[5]; int64_t to[5]; };

template <typename T> __device__ void copy(const T *x, T *y, size_t count, const Dims &dims) {
    ELEMENT
    size_t rest = at;
    int64_t from = 0, to = 0;
#pragma unroll
    for (int d = 4; d >= 0; --d) {
        const int i = rest % dims.size[d];
        rest /= dims.size[d];
        from += i * dims.from[d];
        to += i * dims.to[d];
    }
    y[to] = x[from];
}

#define NORMS(W, w, Y, y)                                                                            \
    __global__ void layer_norm_##w##_##y(const float *in, const W *weight, const W *bias, Y *out,    \
                                         int rows, int size, float eps) {                            \
        layer_norm(in, weight, bias, out, rows, size, eps);                                          \
    }                                                                                                \
    __global__ void rms_norm_##w##_##y(const float *in, const W *weight, Y *out, int rows, int size, \
                                       float eps) {                                                  \
        rms_norm(in, weight, out, rows, size, eps);                                                  \
    }

#define CONVERT(X, x, Y, y)                                                                          \
    __global__ void convert_##x##_##y(const X *in, Y *out, size_t count) { convert(in, out, count); }

#define ALL(T, t)                                                                                    \
    __global__ void bias_activation_##t(T *y, const T *bias, size_t count, int size, int activation) { \
        bias_activation(y, bias, count, size, activation);                                           \
    }                                                                                                \
    __global__ void add_residual_##t(float *x, const T *y, const T *bias, size_t count, int size) {  \
        add_residual(x, y, bias, count, size);                                                       \
    }                                                                                                \
    __global__ void silu_product_##t(T *gate, const T *up, size_t count) { silu_product(gate, up, count); } \
    __global__ void unfold_##t(const float *x, T *y, size_t count, int height, int width, int channels, \
                               int down, int across, int kernel, int stride, int padding,            \
                               int64_t b, int64_t h, int64_t w, int64_t c) {                         \
        unfold(x, y, count, height, width, channels, down, across, kernel, stride, padding, b, h, w, c); \
    }                                                                                                \
    __global__ void embed_rows_##t(const T *table, const uint32_t *ids, float *y, size_t count, int size) { \
        embed_rows(table, ids, y, count, size);                                                      \
    }                                                                                                \
    __global__ void rotate_append_##t(T *q, const T *k, const T *v, T *keys, T *values,              \
                                      const float *cosines, const float *sines, const int *filled,   \
                                      size_t count, int heads, int kv_heads, int dim, int capacity) { \
        rotate_append(q, k, v, keys, values, cosines, sines, filled, count, heads, kv_heads, dim, capacity); \
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
    ELEMENT
    x[at] += y[at % period];
}
__global__ void copy_2(const uint16_t *x, uint16_t *y, size_t count, Dims dims) { copy(x, y, count, dims); }
__global__ void copy_4(const uint32_t *x, uint32_t *y, size_t count, Dims dims) { copy(x, y, count, dims); }
}
