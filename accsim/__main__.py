"""``python -m accsim`` is ``accsim``."""

from accsim.cli import main

main()
