// Fused attention on NVIDIA's tensor cores, in half precision: no map is written to global memory.
//
// A block of threads computes 16 queries of an image for all heads. Their maps are in shared
// memory, [heads, 16, keys]. Each warp computes a head's scores (Q K^T) for a part of 32 keys at a
// time, and their exponentials relative to the part's largest score. One factor for each part, head
// and query turns these into one softmax; Theta's columns are scaled by the factors, and the heads
// are mixed in place. Mixed maps times V are written to `out`.
//
// Exponentials are at most 1, so halves do not overflow. Scores and sums are float32. Keys past the
// last one score -inf, whose exponential is 0, as are those of a part of nothing but -inf. What is no
// number stays none, as in attend.cpp: a row with NaN or +inf, and one of nothing but -inf, is NaN as
// a whole, in all heads: without Theta they are multiplied by ones and zeros, and 0 times NaN is NaN.

#include <cuda_fp16.h>

#include "attend_cuda.h"

namespace {

constexpr int QUERIES = 16;    // of a block of threads: the rows of one matrix product
constexpr int PART = 32;       // keys whose exponentials share a factor
constexpr int TILE = 8;        // keys, or columns, of one matrix product
constexpr int TILES = PART / TILE;
constexpr int AHEAD = 4;       // loads of 16 values each that are in flight
constexpr int MAX_HEADS = 16;  // so that Theta is one operand of a matrix product
constexpr int PADDING = 8;     // halves after a row and after a head, to avoid bank conflicts
constexpr int ROW = QUERIES + 1;  // statistics of a part and head, padded against bank conflicts

// Shared memory: maps, then statistics, which are the largest score and the sum of exponentials of
// each part, head and query. The factor later replaces the largest score.
struct Layout {
    int parts, row, head;  // halves from row to row of a head's maps, and from head to head
    __host__ __device__ explicit Layout(int keys)
        : parts((keys + PART - 1) / PART),
          row((keys + 15) / 16 * 16 + PADDING),
          head(QUERIES * row + PADDING) {}
    __host__ __device__ size_t bytes(int heads) const {
        return heads * (head * sizeof(__half) + parts * ROW * sizeof(float2));
    }
    __device__ int statistics(int heads, int part, int of_head) const {
        return (part * heads + of_head) * ROW;
    }
};

__device__ inline uint32_t packed(float low, float high) {
    const __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&pair);
}

// d += a b, with a [16, 16] row-major and b [16, 8] column-major.
__device__ inline void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four matrices of 8 by 8; lane l gives the address of row l % 8 of matrix l / 8.
template <bool TRANSPOSED>
__device__ inline void load_matrices(uint32_t (&to)[4], const __half* row) {
    const uint32_t address = uint32_t(__cvta_generic_to_shared(row));
    if (TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(address));
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(address));
}

__device__ inline float exponential(float x) {  // of base 2
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// As many halves of a row as Word holds; zeros past its end, or if the row does not exist.
template <typename Word>
__device__ inline void load_columns(Word& to, const __half* row, int first, int width,
                                    bool exists) {
    to = Word{};
    if (exists && first < width) to = __ldg(reinterpret_cast<const Word*>(row + first));
}

__device__ inline float largest_of_row(float x) {  // which four lanes hold
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}

__device__ inline float sum_of_row(float x) {
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}

// What this lane holds of an operand: rows r and r + 8, columns from 2t and from 2t + 8.
struct Lane {
    int number = threadIdx.x % 32, t = number % 4, r = number / 4;
};

// 16 queries of one head, with their bias. Columns are permuted the same way as the keys': lane t
// of four takes columns 8t to 8t + 7 of 32.
template <int BLOCKS>
__device__ void load_queries(uint32_t (&q)[2 * BLOCKS][4], const CudaAttention& a, int image,
                             int first, int head) {
    const Lane lane;
#pragma unroll
    for (int b = 0; b < BLOCKS; b++) {
        const int column = 32 * b + 8 * lane.t;
        uint4 bias{};
        if (a.q_bias) load_columns(bias, a.q_bias + head * a.width, column, a.width, true);
#pragma unroll
        for (int side = 0; side < 2; side++) {
            const int query = first + lane.r + 8 * side;
            const __half* row = a.q + (int64_t(image) * a.queries + query) * a.q_stride;
            uint4 loaded;
            load_columns(loaded, row + head * a.width, column, a.width, query < a.queries);
            const __half2* pairs = reinterpret_cast<const __half2*>(&loaded);
            const __half2* shifts = reinterpret_cast<const __half2*>(&bias);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float2 x = __half22float2(pairs[i]), y = __half22float2(shifts[i]);
                q[2 * b + i / 2][2 * (i % 2) + side] = packed(x.x + y.x, x.y + y.y);
            }
        }
    }
}

// Keys of one part. Past the last key it is repeated, and its scores are masked later.
template <int BLOCKS>
__device__ inline void load_keys(uint4 (&k)[TILES][BLOCKS], const CudaAttention& a,
                                 const __half* keys, int part) {
    const Lane lane;
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
        const int key = min(part * PART + tile * TILE + lane.r, a.keys - 1);
#pragma unroll
        for (int b = 0; b < BLOCKS; b++)
            load_columns(k[tile][b], keys + key * int(a.k_stride), 32 * b + 8 * lane.t, a.width,
                         true);
    }
}

// Scores of a part to exponentials and their statistics: rows r and r + 8.
__device__ inline void normalise(float (&scores)[TILES][4], __half* maps, float2* statistics,
                                 int part, int keys, const Layout& layout) {
    constexpr float LOG2_E = 1.44269504f;
    const Lane lane;
    const int first = part * PART + 2 * lane.t;
    if ((part + 1) * PART > keys)
#pragma unroll
        for (int tile = 0; tile < TILES; tile++)
            for (int i = 0; i < 4; i++)
                if (first + tile * TILE + i % 2 >= keys) scores[tile][i] = -INFINITY;
#pragma unroll
    for (int side = 0; side < 2; side++) {
        float most = -INFINITY, sum = 0;
#pragma unroll
        for (int tile = 0; tile < TILES; tile++)
            most = fmaxf(most, fmaxf(scores[tile][2 * side], scores[tile][2 * side + 1]));
        most = LOG2_E * largest_of_row(most);
        const float shift = most == -INFINITY ? 0 : most;  // as -inf - -inf is NaN
        const int row = lane.r + 8 * side;
        __half* to = maps + row * layout.row + first;
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
            const float low = exponential(scores[tile][2 * side] * LOG2_E - shift);
            const float high = exponential(scores[tile][2 * side + 1] * LOG2_E - shift);
            sum += low + high;
            if (part * PART + tile * TILE < layout.row - PADDING)
                *reinterpret_cast<uint32_t*>(to + tile * TILE) = packed(low, high);
        }
        sum = sum_of_row(sum);
        if (lane.t == 0) statistics[row] = make_float2(most, sum);
    }
}

// Exponentials of all parts of all heads, divided among the warps.
template <int BLOCKS>
__device__ void score(const CudaAttention& a, int image, int first, __half* maps,
                      float2* statistics, const Layout& layout) {
    const int warp = threadIdx.x / 32, warps = blockDim.x / 32, all = a.heads * layout.parts;
    const int begin = all * warp / warps, end = all * (warp + 1) / warps;
    if (begin == end) return;
    const __half* keys = a.k + int64_t(image) * a.keys * a.k_stride;
    uint32_t q[2 * BLOCKS][4];
    uint4 k[TILES][BLOCKS];
    int head = begin / layout.parts, part = begin % layout.parts;
    load_queries<BLOCKS>(q, a, image, first, head);
    load_keys<BLOCKS>(k, a, keys + head * a.width, part);
    for (int item = begin; item < end; item++) {
        float scores[TILES][4] = {};
#pragma unroll
        for (int tile = 0; tile < TILES; tile++)
#pragma unroll
            for (int b = 0; b < BLOCKS; b++) {
                multiply(scores[tile], q[2 * b], k[tile][b].x, k[tile][b].y);
                multiply(scores[tile], q[2 * b + 1], k[tile][b].z, k[tile][b].w);
            }
        const int of_head = head, of_part = part;
        if (++part == layout.parts) part = 0, head++;
        if (item + 1 < end) {  // the next part is loaded while exponentials are computed
            if (head != of_head) load_queries<BLOCKS>(q, a, image, first, head);
            load_keys<BLOCKS>(k, a, keys + head * a.width, part);
        }
        normalise(scores, maps + of_head * layout.head,
                  statistics + layout.statistics(a.heads, of_part, of_head),
                  of_part, a.keys, layout);
    }
}

// Statistics of the parts of each row to their factors. If all are -inf, so is `most`, and the
// difference of two such is NaN; NaN in one sum makes the whole row's NaN.
__device__ void weigh(float2* statistics, int heads, const Layout& layout) {
    for (int row = threadIdx.x; row < QUERIES * heads; row += blockDim.x) {
        float2* parts = statistics + row / QUERIES * ROW + row % QUERIES;
        const int stride = heads * ROW;
        float most = -INFINITY, sum = 0;
        for (int part = 0; part < layout.parts; part++) most = fmaxf(most, parts[part * stride].x);
        for (int part = 0; part < layout.parts; part++) {
            const float2 of_part = parts[part * stride];
            const float factor = exponential(of_part.x - most);
            parts[part * stride].x = factor;
            sum += of_part.y * factor;
        }
        const float share = 1 / sum;
        for (int part = 0; part < layout.parts; part++) parts[part * stride].x *= share;
    }
}

// Re-attention in place, or plain softmax if there is no Theta; a warp takes a query and a part of
// its keys.
__device__ void mix(const CudaAttention& a, __half* maps, const float2* factors,
                    const Layout& layout) {
    const Lane lane;
    const int warp = threadIdx.x / 32, warps = blockDim.x / 32;
    float theta[2][4], offset[2];
#pragma unroll
    for (int side = 0; side < 2; side++) {
        const int out = lane.r + 8 * side;
        offset[side] = a.offset && out < a.heads ? __half2float(a.offset[out]) : 0;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int in = 2 * lane.t + i % 2 + 8 * (i / 2);
            const bool exists = out < a.heads && in < a.heads;
            theta[side][i] = !a.theta ? float(out == in)
                             : exists ? __half2float(a.theta[out * a.heads + in]) : 0;
        }
    }
    const int read = lane.number % 16 < a.heads ? lane.number % 16 : 0;  // Theta is zero there
    const __half* from = maps + read * layout.head + lane.number / 16 * 8;
    __half* to = maps + lane.r * layout.head + 2 * lane.t;
    const int columns = layout.row - PADDING;
    const bool low = lane.r < a.heads, high = lane.r + 8 < a.heads;
    for (int item = warp; item < QUERIES * layout.parts; item += warps) {
        const int query = item % QUERIES, part = item / QUERIES;
        const float2* of_part = factors + layout.statistics(a.heads, part, 2 * lane.t) + query;
        float factor[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int offset_head = i % 2 + 8 * (i / 2);  // heads after 2t
            factor[i] = 2 * lane.t + offset_head < a.heads ? of_part[offset_head * ROW].x : 0;
        }
        uint32_t scaled[4];
#pragma unroll
        for (int side = 0; side < 2; side++) {
            scaled[side] = packed(theta[side][0] * factor[0], theta[side][1] * factor[1]);
            scaled[side + 2] = packed(theta[side][2] * factor[2], theta[side][3] * factor[3]);
        }
#pragma unroll
        for (int half = 0; half < PART; half += 16) {
            if (part * PART + half >= columns) break;
            const int at = query * layout.row + part * PART + half;
            uint32_t b[4];
            load_matrices<true>(b, from + at);
            float left[4] = {offset[0], offset[0], offset[1], offset[1]};
            float right[4] = {offset[0], offset[0], offset[1], offset[1]};
            multiply(left, scaled, b[0], b[1]);
            multiply(right, scaled, b[2], b[3]);
            if (low) {
                *reinterpret_cast<uint32_t*>(to + at) = packed(left[0], left[1]);
                *reinterpret_cast<uint32_t*>(to + at + 8) = packed(right[0], right[1]);
            }
            if (high) {
                __half* other = to + at + 8 * layout.head;
                *reinterpret_cast<uint32_t*>(other) = packed(left[2], left[3]);
                *reinterpret_cast<uint32_t*>(other + 8) = packed(right[2], right[3]);
            }
        }
    }
}

// Mixed maps times V: a warp takes 32 columns of a head. Lane r of eight takes columns 4r to 4r + 3
// of 32, one for each of four matrix products.
__device__ void gather(const CudaAttention& a, int image, int first, int head, int block,
                       const __half* maps, const Layout& layout) {
    const Lane lane;
    const __half* values = a.v + int64_t(image) * a.keys * a.v_stride + head * a.width;
    const __half* row = maps + lane.number % 16 * layout.row + lane.number / 16 * 8;
    uint2 v[AHEAD][4];
    const auto load = [&](uint2 (&to)[4], int key) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int of = key + 2 * lane.t + i % 2 + 8 * (i / 2);
            load_columns(to[i], values + of * int(a.v_stride), 32 * block + 4 * lane.r, a.width,
                         of < a.keys);
        }
    };
#pragma unroll
    for (int step = 0; step < AHEAD; step++) load(v[step], 16 * step);
    float out[4][4] = {};
    for (int first_key = 0; first_key < a.keys; first_key += 16 * AHEAD)
#pragma unroll
        for (int step = 0; step < AHEAD; step++) {
            const int key = first_key + 16 * step;
            if (key >= a.keys) break;
            uint32_t map[4];
            load_matrices<false>(map, row + key);
            const uint2(&of)[4] = v[step];
            constexpr uint32_t LOW = 0x5410, HIGH = 0x7632;  // halves of two words in one
            multiply(out[0], map, __byte_perm(of[0].x, of[1].x, LOW),
                     __byte_perm(of[2].x, of[3].x, LOW));
            multiply(out[1], map, __byte_perm(of[0].x, of[1].x, HIGH),
                     __byte_perm(of[2].x, of[3].x, HIGH));
            multiply(out[2], map, __byte_perm(of[0].y, of[1].y, LOW),
                     __byte_perm(of[2].y, of[3].y, LOW));
            multiply(out[3], map, __byte_perm(of[0].y, of[1].y, HIGH),
                     __byte_perm(of[2].y, of[3].y, HIGH));
            load(v[step], key + 16 * AHEAD);
        }
    const int column = 32 * block + 8 * lane.t;
#pragma unroll
    for (int side = 0; side < 2; side++) {
        const int query = first + lane.r + 8 * side;
        if (query >= a.queries) continue;
        __half* to = a.out + ((int64_t(image) * a.queries + query) * a.heads + head) * a.width;
        uint4 word;
        word.x = packed(out[0][2 * side], out[1][2 * side]);
        word.y = packed(out[2][2 * side], out[3][2 * side]);
        word.z = packed(out[0][2 * side + 1], out[1][2 * side + 1]);
        word.w = packed(out[2][2 * side + 1], out[3][2 * side + 1]);
        if (column < a.width) *reinterpret_cast<uint4*>(to + column) = word;
    }
}

template <int BLOCKS>  // as many as there are registers for
constexpr int MOST_THREADS = BLOCKS == 1 ? 768 : 512;

template <int BLOCKS>
__global__ void __launch_bounds__(MOST_THREADS<BLOCKS>) attend(const CudaAttention a) {
    extern __shared__ __align__(16) unsigned char shared[];
    const Layout layout(a.keys);
    __half* maps = reinterpret_cast<__half*>(shared);
    float2* statistics = reinterpret_cast<float2*>(maps + a.heads * layout.head);
    const int image = blockIdx.y, first = blockIdx.x * QUERIES;
    score<BLOCKS>(a, image, first, maps, statistics, layout);
    __syncthreads();
    weigh(statistics, a.heads, layout);
    __syncthreads();
    mix(a, maps, statistics, layout);
    __syncthreads();
    for (int item = threadIdx.x / 32; item < a.heads * BLOCKS; item += blockDim.x / 32)
        gather(a, image, first, item / BLOCKS, item % BLOCKS,
               maps + item / BLOCKS * layout.head, layout);
}

struct Gpu {
    int multiprocessors = 0, shared_bytes = 0, capability = 0;
};

cudaError_t read(Gpu& gpu) {
    int device = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (!error)
        error = cudaDeviceGetAttribute(&gpu.multiprocessors, cudaDevAttrMultiProcessorCount,
                                       device);
    if (!error)
        error = cudaDeviceGetAttribute(&gpu.shared_bytes,
                                       cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (!error)
        error = cudaDeviceGetAttribute(&gpu.capability, cudaDevAttrComputeCapabilityMajor, device);
    return error;
}

template <int BLOCKS>
cudaError_t launch(const CudaAttention& a, int threads, cudaStream_t stream) {
    const int bytes = int(Layout(a.keys).bytes(a.heads));
    cudaError_t error = cudaFuncSetAttribute(
        attend<BLOCKS>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error) return error;
    const dim3 grid((a.queries + QUERIES - 1) / QUERIES, a.images);
    threads = min(threads, MOST_THREADS<BLOCKS>);
    attend<BLOCKS><<<grid, threads, bytes, stream>>>(a);
    return cudaGetLastError();
}

}  // namespace

bool fits(int64_t heads, int64_t keys, int64_t width) {
    Gpu gpu;
    return !read(gpu) && gpu.capability >= 8 && heads <= MAX_HEADS && width <= 64 &&
           width % 8 == 0 && keys < 1 << 15 &&
           Layout(int(keys)).bytes(int(heads)) <= size_t(gpu.shared_bytes);
}

const char* attend_cuda(const CudaAttention& a, void* stream, int threads) {
    Gpu gpu;
    cudaError_t error = read(gpu);
    if (!error) {
        // Few blocks have a multiprocessor each, and fill it; of many, two share one.
        const int blocks = a.images * ((a.queries + QUERIES - 1) / QUERIES);
        if (!threads) threads = blocks > gpu.multiprocessors ? 384 : 768;
        const auto run = a.width <= 32 ? launch<1> : launch<2>;
        error = run(a, threads, static_cast<cudaStream_t>(stream));
    }
    return error ? cudaGetErrorString(error) : nullptr;
}
