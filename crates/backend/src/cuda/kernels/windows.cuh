// The windows of convolutions: rows for a product with the weights.
#pragma once
#include "packs.cuh"

// Images [batch, height, width, channels] with any strides, f32, and the windows of a convolution.
struct Windows {
    int height, width, channels, down, across, kernel, stride, padding;
    int64_t along_batch, along_height, along_width, along_channels;

    // Where window `index` begins, which may be outside of its image.
    struct Window { int top, left; int64_t image; };
    __device__ __forceinline__ Window window(size_t index) const {
        const int left = static_cast<int>(index % across) * stride - padding;
        const size_t row = index / across;
        return {static_cast<int>(row % down) * stride - padding, left, static_cast<int64_t>(row / down)};
    }
    __device__ __forceinline__ bool inside(int top, int left) const {
        return top >= 0 && top < height && left >= 0 && left < width;
    }
    __device__ __forceinline__ int64_t at(int64_t image, int top, int left, int channel) const {
        return image * along_batch + top * along_height + left * along_width + channel * along_channels;
    }
    // Whether packs of 4 floats may begin at each pixel or, of three channels, at each fourth.
    __device__ __forceinline__ bool packs() const {
        return along_channels == 1 && (along_batch | along_height | (channels == 3 ? 0 : along_width)) % 4 == 0;
    }
};

// To [batch * down * across, channels * kernel * kernel], in the order of the weights' inputs.
template <typename T> __device__ void unfold_any(const float *x, T *y, size_t count, const Windows &in) {
    each<1>(count, [&](size_t rest) {
        const int dx = rest % in.kernel; rest /= in.kernel;
        const int dy = rest % in.kernel; rest /= in.kernel;
        const int channel = rest % in.channels; rest /= in.channels;
        const auto window = in.window(rest);
        const int top = window.top + dy, left = window.left + dx;
        return in.inside(top, left) ? x[in.at(window.image, top, left, channel)] : 0.f;
    }, [=](size_t at, float v) { y[at] = narrow<T>(v); });
}

// Patches of red, green and blue, which nothing pads: four pixels a thread.
template <typename T> __device__ void unfold_patches(const float *x, T *y, size_t count, const Windows &in) {
    struct Pixels { Pack<float, 4> of[3]; };
    const int fours = in.kernel / 4;
    const auto read = [&](size_t rest) {
        const int dx = rest % fours * 4; rest /= fours;
        const int dy = rest % in.kernel; rest /= in.kernel;
        const auto window = in.window(rest);
        const float *from = x + in.at(window.image, window.top + dy, window.left + dx, 0);
        return Pixels{load<4>(from), load<4>(from + 4), load<4>(from + 8)};
    };
    each<2>(count / 12, read, [=, &in](size_t i, const Pixels &pixels) {
        const int area = in.kernel * in.kernel;
        T *to = y + i * 4 / area * area * 3 + i * 4 % area;
#pragma unroll
        for (int channel = 0; channel < 3; ++channel) {
            float v[4];
#pragma unroll
            for (int j = 0; j < 4; ++j) v[j] = pixels.of[(3 * j + channel) / 4].of[(3 * j + channel) % 4];
            store(to + channel * area, narrow<T>(v));
        }
    });
}

// Kernels of 3x3 on channels that lie together: a warp takes a window's next 128 channels, turns their
// order in `turned`, and writes what then lies together.
constexpr int UNFOLD_THREADS = 256, TURNED = 4 * WARP * 9;

template <typename T>
__device__ void unfold_channels(const float *x, T *y, size_t count, const Windows &in, T (*all_turned)[TURNED]) {
    const int lane = threadIdx.x % WARP, chunks = (in.channels + 4 * WARP - 1) / (4 * WARP);
    const int warps = blockDim.x / WARP;
    T *turned = all_turned[threadIdx.x / WARP];
    const size_t tasks = count / (9 * in.channels) * chunks;
    size_t task = static_cast<size_t>(blockIdx.x) * warps + threadIdx.x / WARP;
    for (; task < tasks; task += static_cast<size_t>(gridDim.x) * warps) {
        const int begin = task % chunks * 4 * WARP, channel = begin + 4 * lane;
        const auto window = in.window(task / chunks);
        Pack<float, 4> taps[9];
#pragma unroll
        for (int tap = 0; tap < 9; ++tap) {
            const int top = window.top + tap / 3, left = window.left + tap % 3;
            const bool there = channel < in.channels && in.inside(top, left);
            taps[tap] = there ? load<4>(x + in.at(window.image, top, left, channel)) : Pack<float, 4>{};
        }
#pragma unroll
        for (int i = 0; i < 36; i += 4) {
            float v[4];
#pragma unroll
            for (int j = 0; j < 4; ++j) v[j] = taps[(i + j) % 9].of[(i + j) / 9];
            store(turned + lane * 36 + i, narrow<T>(v));
        }
        __syncwarp();
        T *to = y + (task / chunks * in.channels + begin) * 9;
        const int size = 9 * min(4 * WARP, in.channels - begin);
        for (int i = lane * WIDE<T>; i < size; i += WARP * WIDE<T>) store(to + i, load<WIDE<T>>(turned + i));
        __syncwarp();
    }
}

template <typename T>
__device__ __forceinline__ void unfold(const float *x, T *y, size_t count, const Windows &in) {
    __shared__ __align__(16) T turned[UNFOLD_THREADS / WARP][TURNED];
    const bool packs = in.packs() && aligned(x, y);
    const bool unpadded = in.padding == 0 && (in.down - 1) * in.stride + in.kernel <= in.height &&
                          (in.across - 1) * in.stride + in.kernel <= in.width;
    const bool dense = in.along_width == in.channels && in.along_height == in.along_width * in.width &&
                       in.along_batch == in.along_height * in.height;
    if (packs && in.kernel == 3 && in.channels % 8 == 0) return unfold_channels(x, y, count, in, turned);
    if (packs && in.kernel == 1 && in.stride == 1 && unpadded && dense && in.channels % 4 == 0)
        return convert<4>(x, y, count);
    if (packs && in.channels == 3 && in.along_width == 3 && unpadded && (in.kernel | in.stride) % 4 == 0)
        return unfold_patches(x, y, count, in);
    unfold_any(x, y, count, in);
}
