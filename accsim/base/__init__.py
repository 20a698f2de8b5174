"""The floor: errors, units, random streams, provenance. Imports nothing of accsim."""
