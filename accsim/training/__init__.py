"""Training on an FPGA: passes of a step, what a step costs, the integral over a schedule."""
