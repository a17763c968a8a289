// What every kernel shares: rounding onto a grid, the noise hash, the largest magnitude seen, and the loops.
// The bits are those of qtrain/formats; compiled without contraction to fused multiply-adds, so that they stay so.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#ifdef _OPENMP
#include <omp.h>
#endif

// One quantization point, as qtrain.engine.library.Point lays it out.
struct Point {
    double inverse, step;      // 2^-exponent, 2^exponent
    double low, high;          // range of the codes
    double cap;                // largest value stored; infinite where there is none
    const int64_t* rows;       // positions of the rows in the ungathered tensor; null: 0, 1, 2...
    const int32_t* index;      // logical index of each element of a row; null: as they lie
    int64_t n_rows, row_size;
    uint32_t key;              // of the noise
    int32_t stochastic;
};

// Largest |x| and largest positive x, as the bits of the float: integer order is float order, and a NaN comes out on top.
struct Peak {
    int64_t magnitude = 0, positive = 0;
    void join(const Peak& other) {
        if (other.magnitude > magnitude) magnitude = other.magnitude;
        if (other.positive > positive) positive = other.positive;
    }
};

template <class T> using Bits = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;

template <class T> inline Bits<T> bits_of(T x) {
    Bits<T> b;
    std::memcpy(&b, &x, sizeof x);
    return b;
}

template <class T> inline Bits<T> magnitude_bits(T x) { return bits_of(x) & std::numeric_limits<Bits<T>>::max(); }

inline uint32_t mix(uint32_t x) {  // lowbias32, see qtrain/formats/noise.py
    x ^= x >> 16;
    x *= 0x7FEB352Du;
    x ^= x >> 15;
    x *= 0x846CA68Bu;
    return x ^ (x >> 16);
}

// The code of one number. Copied by value into the loops: through a pointer the compiler would not vectorise them.
template <class T, bool STOCHASTIC> struct Rounder {
    T inverse, step, low, high, cap;
    uint32_t key;
    explicit Rounder(const Point& p)
        : inverse(T(p.inverse)), step(T(p.step)), low(T(p.low)), high(T(p.high)), cap(T(p.cap)), key(p.key) {}
    inline T code(T x, uint32_t position) const {
        T t = (x > cap ? cap : x) * inverse;
        if (STOCHASTIC) {
            const T size = std::fabs(t), whole = std::floor(size);
            const T fraction = (size - whole) * T(1 << 24);
            const T u = T(int32_t(mix(position ^ key) >> 8));
            t = std::copysign(whole + (u < fraction ? T(1) : T(0)), t);
        } else {
            t = std::nearbyint(t);
        }
        t = t < low ? low : t;
        return t > high ? high : t;
    }
};

// Runs body(begin, length, position, index) over all elements: position of the first in the logical order of the
// ungathered tensor, index (or null) of each within its row.
template <class Body> void sweep(const Point& p, int threads, Peak& peak, Body body) {
    constexpr int64_t CHUNK = 1 << 14;
    const bool flat = !p.rows && !p.index;
    const int64_t total = p.n_rows * p.row_size;
    const int64_t pieces = flat ? (total + CHUNK - 1) / CHUNK : p.n_rows;
#pragma omp parallel num_threads(threads)
    {
        Peak own;
#pragma omp for schedule(static) nowait
        for (int64_t i = 0; i < pieces; ++i) {
            const int64_t begin = flat ? i * CHUNK : i * p.row_size;
            const int64_t length = flat ? (total - begin < CHUNK ? total - begin : CHUNK) : p.row_size;
            const int64_t position = flat ? begin : (p.rows ? p.rows[i] : i) * p.row_size;
            own.join(body(begin, length, uint32_t(position), p.index));
        }
#pragma omp critical
        peak.join(own);
    }
}
