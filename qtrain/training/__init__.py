"""The only training loop: setup of a run from its experiment, one step, and the loop around it."""
