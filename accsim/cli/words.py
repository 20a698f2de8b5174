"""What commands share: groups that name the near word, and KEY=VALUE options."""

from __future__ import annotations

from typing import Any

import click

from accsim.base.errors import InputError, near


class Group(click.Group):
    """A group that names the near word for an unknown command."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Return the command, or name the near word."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if not args:
                raise
            hint = near(args[0], self.list_commands(ctx))
            raise click.UsageError(f"no such command '{args[0]}'{hint}", ctx) from error


def overrides_of(words: tuple[str, ...]) -> dict[str, str]:
    """Return --set words as dotted keys to values; refuse what is not KEY=VALUE."""
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise InputError(f"--set needs KEY=VALUE, e.g. array.rows=64; got '{word}'")
        if key.strip() in found:
            raise InputError(f"--set {key.strip()} is given twice")
        found[key.strip()] = value.strip()
    return found
