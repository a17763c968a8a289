"""hwmodel: what a training step costs on a device, in energy, cycles, time and memory. Knows nothing of torch."""
