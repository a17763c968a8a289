// Any tensor onto its grid in one pass: sum of two operands, cap, rounding, saturation, and the maximum for next time.
#include "common.h"

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
void run(const T* x, const T* plus, T* out, const Point& p, int threads, Peak& peak) {
    const Rounder<T, STOCHASTIC> round(p);
    sweep(p, threads, peak, [=](int64_t begin, int64_t length, uint32_t position, const int32_t* index) {
        const T* other = PLUS ? plus + begin : nullptr;
        if (STOCHASTIC && index)
            return round_piece<T, STOCHASTIC, PLUS, true>(x + begin, other, out + begin, length, position, index, round);
        return round_piece<T, STOCHASTIC, PLUS, false>(x + begin, other, out + begin, length, position, index, round);
    });
}

template <class T> void choose(const T* x, const T* plus, T* out, const Point& p, int threads, Peak& peak) {
    if (p.stochastic)
        plus ? run<T, true, true>(x, plus, out, p, threads, peak) : run<T, true, false>(x, plus, out, p, threads, peak);
    else
        plus ? run<T, false, true>(x, plus, out, p, threads, peak)
             : run<T, false, false>(x, plus, out, p, threads, peak);
}

template <class T> void largest(const T* x, const T* plus, const Point& p, int threads, Peak& peak) {
    Point flat = p;
    flat.rows = nullptr, flat.index = nullptr;
    sweep(flat, threads, peak, [=](int64_t begin, int64_t length, uint32_t, const int32_t*) {
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

}  // namespace

extern "C" {

// The largest magnitude and positive value of x + plus (plus may be null).
void qt_peak_f32(const float* x, const float* plus, const Point* p, int threads, Peak* peak) {
    largest(x, plus, *p, threads, *peak);
}
void qt_peak_f64(const double* x, const double* plus, const Point* p, int threads, Peak* peak) {
    largest(x, plus, *p, threads, *peak);
}

// out = the values of x + plus on the point's grid; out may be x.
void qt_quantize_f32(const float* x, const float* plus, float* out, const Point* p, int threads, Peak* peak) {
    choose(x, plus, out, *p, threads, *peak);
}
void qt_quantize_f64(const double* x, const double* plus, double* out, const Point* p, int threads, Peak* peak) {
    choose(x, plus, out, *p, threads, *peak);
}
}
