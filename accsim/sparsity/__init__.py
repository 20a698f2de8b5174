"""Sparsity patterns, one module a family: generate, check, count metadata. Weights and masks."""
