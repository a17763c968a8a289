// Batch normalization's integer constants, one channel at a time: qtrain/layers/norms/batch.py in 64-bit integers.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <vector>

namespace {

constexpr int64_t MIN_EXPONENT = -100;                  // formats/fixed.py

using std::max;
using std::min;

int64_t left(int64_t x, int64_t by) { return by >= 64 ? 0 : int64_t(uint64_t(x) << by); }
int64_t right(int64_t x, int64_t by) { return x >> min<int64_t>(by, 63); }

int64_t shift_round(int64_t x, int64_t shift) {
    const int64_t down = max<int64_t>(shift, 0);
    const int64_t half = down > 0 ? left(1, down - 1) : 0;
    return left(right(x + half, down), max<int64_t>(-shift, 0));
}

int64_t divide_round(int64_t x, int64_t divisor) {
    const int64_t top = 2 * x + divisor, bottom = 2 * divisor;
    return top / bottom - (top % bottom < 0);
}

int64_t bit_length(int64_t x) {
    const uint64_t magnitude = x < 0 ? -uint64_t(x) : uint64_t(x);
    return magnitude ? 64 - __builtin_clzll(magnitude) : 0;
}

struct Scaled {
    int64_t mantissa, exponent;
};

Scaled normalize(int64_t x, int64_t bits) {
    const int64_t exponent = max<int64_t>(bit_length(x) - bits, 0);
    return {shift_round(x, exponent), exponent};
}

Scaled inverse_sqrt(int64_t variance) {
    int64_t shift = 32 - bit_length(variance);
    shift -= shift & 1;
    const int64_t scaled = shift >= 0 ? left(variance, shift) : right(variance, -shift);
    return {int64_t(std::floor(std::sqrt(double((int64_t(1) << 62) / scaled)))), (shift >> 1) - 31};
}

float on_grid(int64_t x, int64_t exponent) { return float(std::ldexp(double(x), int(exponent))); }

// running <- (1 - share) running + share batch 2^exponent, as codes of so many bits on one grid for all channels.
void blend(int64_t channels, float* running, int bits, const int64_t* batch, int64_t exponent, int64_t share) {
    double amax = 0.0;
    for (int64_t c = 0; c < channels; ++c) {
        amax = max(amax, double(std::fabs(running[c])));
        amax = max(amax, std::ldexp(double(std::llabs(batch[c])), int(exponent)));
    }
    int power;
    const double mantissa = std::frexp(amax, &power);
    const int width = bits - 1;
    const int64_t carry = std::ldexp(mantissa, width) > double((int64_t(1) << width) - 1);
    const int64_t grid = amax == 0.0 ? MIN_EXPONENT : max<int64_t>(power - width + carry, MIN_EXPONENT);
    for (int64_t c = 0; c < channels; ++c) {
        const int64_t old = int64_t(std::floor(double(running[c]) * std::ldexp(1.0, int(16 - grid)) + 0.5));
        const int64_t fresh = shift_round(batch[c], min<int64_t>(max<int64_t>(grid - 16 - exponent, -62), 62));
        running[c] = on_grid(shift_round(old * (65536 - share) + fresh * share, 32), grid);
    }
}

}  // namespace

extern "C" {

// Constants of C channels, each row [C]: mean m8, root, root's exponent, from sums [C, 2] of n codes in units of
// 2^exponent; running statistics move by share 2^-16. With sums null the constants come from the running statistics.
void qt_norm_statistics(int64_t channels, const int64_t* sums, int64_t n, int exponent, int64_t epsilon, int64_t share,
                        float* mean, float* variance, int mean_bits, int variance_bits, int64_t* constants) {
    const double unit = std::ldexp(1.0, exponent), square = unit * unit;
    std::vector<int64_t> means(channels), variances(channels);
    for (int64_t c = 0; c < channels; ++c) {
        int64_t m8, v16;
        if (sums) {
            m8 = divide_round(sums[2 * c] << 8, n);
            v16 = max<int64_t>((divide_round(sums[2 * c + 1] << 8, n) << 8) - m8 * m8, 0);
        } else {
            m8 = int64_t(std::nearbyint(double(mean[c]) * (256.0 / unit)));
            v16 = int64_t(std::nearbyint(double(variance[c]) * (65536.0 / square)));
            v16 = min<int64_t>(max<int64_t>(v16, 0), int64_t(1) << 50);
        }
        const Scaled root = inverse_sqrt(v16 + epsilon);
        constants[c] = m8;
        constants[channels + c] = root.mantissa;
        constants[2 * channels + c] = root.exponent + 8;
        means[c] = m8, variances[c] = v16;
    }
    if (!sums) return;
    blend(channels, mean, mean_bits, means.data(), exponent - 8, share);
    blend(channels, variance, variance_bits, variances.data(), 2 * exponent - 16, share);
}

// gain and offset [C] of y = gain a + offset, from codes of scale and shift.
void qt_norm_affine(int64_t channels, const int64_t* constants, const double* scale, int scale_exponent,
                    const double* shift, int shift_exponent, float* gain, float* offset) {
    for (int64_t c = 0; c < channels; ++c) {
        const int64_t m8 = constants[c], root = constants[channels + c];
        const int64_t product = int64_t(std::ldexp(scale[c], -scale_exponent)) * root;
        const int64_t exponent = scale_exponent + constants[2 * channels + c];
        const int64_t lift = min<int64_t>(max<int64_t>(exponent - 8 - shift_exponent, -46), 62);
        const int64_t moved = shift_round(int64_t(std::ldexp(shift[c], -shift_exponent)), lift) - m8 * product;
        const int64_t down = max<int64_t>(max(bit_length(product) - 15, bit_length(moved) - 31), 0);
        gain[c] = on_grid(shift_round(product, down), exponent + down);
        offset[c] = on_grid(shift_round(moved, down + 8), exponent + down);
    }
}

// From sums [C, 2] = (T1, T2): the gradients of scale and shift in real units (double [C] each), and P, Q, R [C] of
// dx = P g + Q a + R with g in codes of 2^error_exponent, a in codes of 2^exponent. batch: statistics were this batch's.
void qt_norm_backward(int64_t channels, const int64_t* constants, const double* scale, int scale_exponent,
                      const int64_t* sums, int64_t n, int batch, int exponent, int error_exponent, double* slope,
                      double* offset, float* p, float* q, float* r) {
    for (int64_t c = 0; c < channels; ++c) {
        const int64_t m8 = constants[c], root = constants[channels + c], root_exponent = constants[2 * channels + c];
        const int64_t t1 = sums[2 * c], centred = (sums[2 * c + 1] << 8) - m8 * t1;
        const Scaled wide = normalize(centred, 30);
        slope[c] = std::ldexp(double(wide.mantissa * root), int(wide.exponent - 8 + root_exponent + error_exponent));
        offset[c] = double(t1) * std::ldexp(1.0, error_exponent);
        const Scaled gain = normalize(int64_t(std::ldexp(scale[c], -scale_exponent)) * root, 15);
        const int64_t base = gain.exponent + scale_exponent + root_exponent + error_exponent - exponent;
        if (!batch) {
            const int64_t down = max<int64_t>(bit_length(gain.mantissa) - 14, 0);
            p[c] = on_grid(shift_round(gain.mantissa, down), base + down);
            q[c] = r[c] = 0.0f;
            continue;
        }
        const int64_t square = shift_round(root * root, 16);
        const Scaled k = normalize(divide_round(wide.mantissa * square, n), 15);
        const int64_t k_exponent = k.exponent + wide.exponent - 8 + 16 + 2 * root_exponent;
        const int64_t mean_error = divide_round(t1 << 16, n);
        const int64_t slant = -gain.mantissa * k.mantissa, moved = m8 * k.mantissa;
        const int64_t common = max<int64_t>(k_exponent - 8, -16);
        const int64_t rest =
            gain.mantissa * (shift_round(moved, common - (k_exponent - 8)) - shift_round(mean_error, common + 16));
        int64_t grid = bit_length(gain.mantissa) - 14;
        grid = max<int64_t>(grid, slant ? bit_length(slant) - 15 + k_exponent : -64);
        grid = max<int64_t>(grid, rest ? bit_length(rest) - 22 + common : -64);
        grid = max<int64_t>(grid, -8);
        p[c] = on_grid(shift_round(gain.mantissa, grid), base + grid);
        q[c] = on_grid(shift_round(slant, min<int64_t>(grid - k_exponent, 62)), base + grid);
        r[c] = on_grid(shift_round(rest, min<int64_t>(grid - common, 62)), base + grid);
    }
}
}
