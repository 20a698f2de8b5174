"""Where a sparsity pattern is faster than dense, by how much, and how sure (docs/breakeven.md)."""
