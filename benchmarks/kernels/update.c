/* The fixed-point update with stochastic rounding. */
#include "kernels.h"

KERNEL void update(int16_t *master, const int8_t *gradient, int n, int rate, int shift, uint32_t *state) {
    uint32_t random = *state, mask = (1u << shift) - 1;
    for (int i = 0; i < n; i++) {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        int32_t value = master[i] - ((rate * gradient[i] + (int32_t)(random & mask)) >> shift);
        master[i] = value > 32767 ? 32767 : value < -32768 ? -32768 : value;
    }
    *state = random;
}
