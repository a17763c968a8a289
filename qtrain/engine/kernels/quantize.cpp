// Any tensor onto its grid in one pass: sum of two operands, cap, rounding, saturation, and the maximum for next time.
#include "common.h"
#include "tiles.h"

namespace {

template <class T> Peak peak_of(const T* x, int64_t length) {
    Bits<T> magnitude = 0, positive = 0;
#pragma omp simd reduction(max : magnitude, positive)
    for (int64_t i = 0; i < length; ++i) {
        const Bits<T> b = bits_of(x[i]), m = magnitude_bits(x[i]);
        magnitude = m > magnitude ? m : magnitude;
        positive = b > positive ? b : positive;
    }
    return {magnitude, positive};
}

template <bool LAST>
Peak store(const float* x, int8_t* codes, int64_t length, int32_t* s1, int32_t* s2, const Rounder<float, false> round) {
    int32_t magnitude = 0, positive = 0, one = 0, two = 0;
#pragma omp simd reduction(max : magnitude, positive) reduction(+ : one, two)
    for (int64_t i = 0; i < length; ++i) {
        const int32_t b = bits_of(x[i]), m = magnitude_bits(x[i]);
        magnitude = m > magnitude ? m : magnitude;
        positive = b > positive ? b : positive;
        const int32_t a = int32_t(round.code(x[i], 0));
        codes[i] = int8_t(a);
        if (LAST) s1[i] += a, s2[i] += a * a;
        else one += a, two += a * a;
    }
    if (!LAST) *s1 += one, *s2 += two;
    return {magnitude, positive};
}

template <class T, bool STOCHASTIC, bool PLUS, bool INDEXED>
Peak round_piece(const T* x, const T* plus, T* out, int64_t length, uint32_t position, const int32_t* index,
                 const Rounder<T, STOCHASTIC> round) {
    Bits<T> magnitude = 0, positive = 0;
#pragma omp simd reduction(max : magnitude, positive)
    for (int64_t i = 0; i < length; ++i) {
        const T value = PLUS ? x[i] + plus[i] : x[i];
        const Bits<T> b = bits_of(value), m = magnitude_bits(value);
        magnitude = m > magnitude ? m : magnitude;
        positive = b > positive ? b : positive;
        out[i] = round.code(value, position + uint32_t(INDEXED ? index[i] : int32_t(i))) * round.step;
    }
    return {magnitude, positive};
}

template <class T, bool STOCHASTIC, bool PLUS>
Peak run(const T* x, const T* plus, T* out, const Grid& g, const Place& place) {
    const Rounder<T, STOCHASTIC> round(g);
    return sweep(place, [=](int64_t begin, int64_t length, uint32_t position, const int32_t* index) {
        const T* other = PLUS ? plus + begin : nullptr;
        if (STOCHASTIC && index)
            return round_piece<T, STOCHASTIC, PLUS, true>(x + begin, other, out + begin, length, position, index, round);
        return round_piece<T, STOCHASTIC, PLUS, false>(x + begin, other, out + begin, length, position, index, round);
    });
}

template <class T> Peak largest(const T* x, const T* plus, const Place& place) {
    Place flat = place;
    flat.rows = nullptr, flat.index = nullptr;
    return sweep(flat, [=](int64_t begin, int64_t length, uint32_t, const int32_t*) {
        if (!plus) return peak_of(x + begin, length);
        T sum[1024];
        Peak own;
        for (int64_t i = 0; i < length; i += 1024) {
            const int64_t part = length - i < 1024 ? length - i : 1024;
            for (int64_t j = 0; j < part; ++j) sum[j] = x[begin + i + j] + plus[begin + i + j];
            own.join(peak_of(sum, part));
        }
        return own;
    });
}

template <class T>
int point(const T* x, const T* plus, T* out, Rule& r, const Place& place, uint32_t clock, bool learn, double cap) {
    return by_pass<T>(
        r, clock, learn, cap,
        [=](const Grid& g) {
            if (g.stochastic)
                return plus ? run<T, true, true>(x, plus, out, g, place) : run<T, true, false>(x, plus, out, g, place);
            return plus ? run<T, false, true>(x, plus, out, g, place) : run<T, false, false>(x, plus, out, g, place);
        },
        [=] { return largest(x, plus, place); });
}

}  // namespace

extern "C" {

// out = the values of x + plus (plus may be null) on the point's grid, whose exponent is returned; out may be x.
int qt_point_f32(const float* x, const float* plus, float* out, Rule* r, const Place* place, uint32_t clock, int learn,
                 double cap) {
    return point(x, plus, out, *r, *place, clock, learn, cap);
}
int qt_point_f64(const double* x, const double* plus, double* out, Rule* r, const Place* place, uint32_t clock,
                 int learn, double cap) {
    return point(x, plus, out, *r, *place, clock, learn, cap);
}

// The same as int8 codes (|code| <= 127, nearest even); sums [C, 2] += (sum of codes, sum of their squares).
// plane <= 2^16.
int qt_store(const float* x, int8_t* codes, int64_t* sums, Rule* r, const Place* place, int learn) {
    const Place p = *place;
    return by_pass<float>(
        *r, 0, learn, std::numeric_limits<double>::infinity(),
        [=](const Grid& g) {
            const Rounder<float, false> round(g);
            return channel_sums(p, Tiles(p), sums, [=](int64_t at, int64_t n, int32_t* s1, int32_t* s2, int64_t) {
                return (p.last ? store<true> : store<false>)(x + at, codes + at, n, s1, s2, round);
            });
        },
        [=] { return largest<float>(x, nullptr, p); });
}
}
