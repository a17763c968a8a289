// Clock and reset of the simulated core; runs until the program stores 0 to MARK.
#include "Vsoc.h"
#include "verilated.h"

int main(int argc, char **argv) {
    VerilatedContext context;
    context.commandArgs(argc, argv);
    Vsoc soc{&context};
    for (long half = 0; !context.gotFinish() && half < 400000000; half++) {
        soc.clk = half & 1;
        soc.rst_n = half > 20;
        soc.eval();
    }
    return context.gotFinish() ? 0 : 1;
}
