"""YAML, CSV → nouns, with file:line errors; the catalogue of workloads/ and hwconfigs/."""
