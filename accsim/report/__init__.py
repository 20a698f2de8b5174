"""What a person sees of a result: figures (matplotlib) and tables for the terminal (rich).

``text`` and ``terminal`` import neither matplotlib nor pandas, so that a command answers quickly.
"""
