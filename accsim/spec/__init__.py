"""Nouns: frozen values that refuse nonsense at birth. Nothing downstream checks them again."""
