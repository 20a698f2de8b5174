"""Counts × tables: energy (area and power follow)."""
