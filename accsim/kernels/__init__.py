"""Arrays in, arrays out: the compiled register level, and the pipeline. Knows no nouns."""
