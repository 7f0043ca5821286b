// Elements that lie together in memory: threads take 16 bytes an access, and have several under way.
// Where sizes or addresses do not allow that, the same code takes one element an access.
#pragma once
#include "common.cuh"

// One access, of at most 16 bytes. Elements of two bytes stay in pairs until they are widened.
template <typename T, int N> struct alignas(N * sizeof(T)) Pack { T of[N]; };
template <int N> struct alignas(2 * N) Pairs { uint32_t of[N / 2]; };
template <int N> struct Pack<bf16, N> : Pairs<N> {};
template <int N> struct Pack<f16, N> : Pairs<N> {};
template <> struct Pack<bf16, 1> { bf16 of[1]; };
template <> struct Pack<f16, 1> { f16 of[1]; };

template <int N, typename T> __device__ __forceinline__ Pack<T, N> load(const T *from) {
    return *reinterpret_cast<const Pack<T, N> *>(from);
}
template <typename T, int N> __device__ __forceinline__ void store(T *to, const Pack<T, N> &pack) {
    *reinterpret_cast<Pack<T, N> *>(to) = pack;
}
template <typename T, int N> __device__ __forceinline__ void widen(const Pack<T, N> &pack, float (&v)[N]) {
    if constexpr (sizeof(T) == 2 && N > 1) {
#pragma unroll
        for (int i = 0; i < N; i += 2) {
            const float2 two = widen2(pack.of[i / 2], T());
            v[i] = two.x, v[i + 1] = two.y;
        }
    } else {
#pragma unroll
        for (int i = 0; i < N; ++i) v[i] = widen(pack.of[i]);
    }
}
template <typename T, int N> __device__ __forceinline__ Pack<T, N> narrow(const float (&v)[N]) {
    Pack<T, N> pack;
    if constexpr (sizeof(T) == 2 && N > 1) {
#pragma unroll
        for (int i = 0; i < N; i += 2) pack.of[i / 2] = narrow2<T>(v[i], v[i + 1]);
    } else {
#pragma unroll
        for (int i = 0; i < N; ++i) pack.of[i] = narrow<T>(v[i]);
    }
    return pack;
}

// As many elements of the larger of two types as an access takes.
template <typename A, typename B = A> constexpr int WIDE = 16 / (sizeof(A) > sizeof(B) ? sizeof(A) : sizeof(B));

// Whether packs may begin at these addresses.
template <typename... P> __device__ __forceinline__ bool aligned(const P *...at) {
    return ((reinterpret_cast<uintptr_t>(at) | ...) % 16) == 0;
}

// `kernel` on N elements at a time where `size` is a multiple of that and packs may begin at all
// `addresses`, else on one at a time.
#define BY(N, size, addresses, kernel, arguments)                                                    \
    {                                                                                                \
        if ((size) % (N) == 0 && aligned addresses) kernel<N> arguments;                             \
        else kernel<1> arguments;                                                                    \
    }

// `write(i, read(i))` for each i < count, in a grid of one dimension and any size. A thread reads
// UNDER_WAY of them before it writes the first.
template <int UNDER_WAY, typename Read, typename Write>
__device__ __forceinline__ void each(size_t count, Read read, Write write) {
    const size_t threads = static_cast<size_t>(gridDim.x) * blockDim.x;
    size_t first = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    for (; first < count; first += UNDER_WAY * threads) {
        decltype(read(first)) in[UNDER_WAY];
#pragma unroll
        for (int j = 0; j < UNDER_WAY; ++j)
            if (first + j * threads < count) in[j] = read(first + j * threads);
#pragma unroll
        for (int j = 0; j < UNDER_WAY; ++j)
            if (first + j * threads < count) write(first + j * threads, in[j]);
    }
}
// Packs of N elements that a thread has under way: 16 elements, as the launcher counts.
template <int N> constexpr int PACKS = N == 1 ? 4 : 16 / N;

template <int N, typename X, typename Y> __device__ void convert(const X *x, Y *y, size_t count) {
    each<PACKS<N>>(count / N, [=](size_t i) { return load<N>(x + i * N); }, [=](size_t i, const Pack<X, N> &in) {
        float v[N];
        widen(in, v);
        store(y + i * N, narrow<Y>(v));
    });
}
