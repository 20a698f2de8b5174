"""Real masks and weights: accsim's trace file, readers of sparse-matrix files, and their replay."""
