"""`accsim show`: what there is, and everything about one of it."""

from __future__ import annotations

from typing import Any

import click

from accsim.cli.words import Group, overrides_of


@click.group(cls=Group)
def show() -> None:
    """List devices, workloads, patterns and more; with a NAME, everything about it."""


@show.command("hw")
@click.argument("name", required=False)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override hardware.")
def show_hw(name: str | None, overrides: tuple[str, ...]) -> None:
    """List hardware; with NAME print every parameter with its unit and source.

    \b
    accsim show hw
    accsim show hw systolic_nm_32x32
    """
    from accsim.files import catalogue
    from accsim.files.hardware import load_hardware

    if name is None:
        _list((known, load_hardware(known).title) for known in catalogue.names("hwconfigs"))
        return
    from accsim.report.parameters import memory_lines, parameter_lines

    hardware = load_hardware(name, overrides_of(overrides))
    levels = list(memory_lines(hardware))
    for line in (*parameter_lines(hardware), *([""] if levels else []), *levels):
        click.echo(line)


@show.command("schemes")
def show_schemes() -> None:
    """List rewrites of layers into what is really computed, for `accsim run --scheme`.

    \b
    accsim show schemes
    """
    from accsim.sparsity.schemes import schemes

    _list(schemes().values())


@show.command("dynamics")
def show_dynamics() -> None:
    """List sparsity that is drawn at run time, for `accsim run --dynamic`.

    \b
    accsim show dynamics
    """
    from accsim.sparsity.dynamic import dynamics

    _list(dynamics().values())


@show.command("presets")
@click.argument("name", required=False)
def show_presets(name: str | None) -> None:
    """List measured sparsities with their sources; with NAME print its rows.

    \b
    accsim show presets
    """
    from accsim.sparsity.presets import preset, presets

    if name is None:
        _list((known, f"{len(preset(known).rows)} rows") for known in presets())
        return
    for row in preset(name).rows:
        click.echo(str(row))


@show.command("dram")
@click.argument("name", required=False)
def show_dram(name: str | None) -> None:
    """List DRAM parts; with NAME print its timings and what it sustains.

    \b
    accsim show dram
    accsim show dram ddr4_3200
    """
    from accsim.files.dram import dram_parts, load_dram
    from accsim.report.parameters import dram_lines, parameter_lines

    if name is None:
        _list((known, load_dram(known).title) for known in dram_parts())
        return
    part = load_dram(name)
    for line in (*parameter_lines(part), "", *dram_lines(part)):
        click.echo(line)


@show.command("boards")
@click.argument("name", required=False)
def show_boards(name: str | None) -> None:
    """List GPU boards and FPGA cards with a power model; with NAME print every number.

    \b
    accsim show boards
    accsim show boards a100_sxm4_40gb
    """
    from accsim.files import catalogue
    from accsim.files.board import load_board
    from accsim.report.parameters import parameter_lines

    if name is None:
        _list((known, load_board(known).title) for known in catalogue.names("hwconfigs", "boards"))
        return
    for line in parameter_lines(load_board(name)):
        click.echo(line)


@show.command("area")
@click.argument("name")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override hardware.")
@click.option("--dtype", default="int8", show_default=True, help="Operands the PEs are built for.")
@click.option("--checker", default="none", show_default=True, metavar="KIND",
              help="none, column, row, two_sided, scalar or digit_serial.")  # fmt: skip
def show_area(name: str, overrides: tuple[str, ...], dtype: str, checker: str) -> None:
    """Print the area of hardware NAME by part, with its range, and what a checker adds.

    \b
    accsim show area systolic_nm_32x32
    accsim show area systolic_ws_32x32 --checker column --set array.rows=64
    """
    from accsim.files.hardware import load_hardware
    from accsim.report.parameters import area_lines

    for line in list(area_lines(load_hardware(name, overrides_of(overrides)), dtype, checker)):
        click.echo(line)


@show.command("workloads")
@click.argument("name", required=False)
def show_workloads(name: str | None) -> None:
    """List workloads; with NAME print its layers, totals and sources.

    \b
    accsim show workloads
    accsim show workloads resnet50
    """
    from accsim.files import catalogue
    from accsim.report.parameters import workload_line, workload_lines
    from accsim.traces.load import load_workload, shipped

    if name is None:
        names = [*catalogue.names("workloads"), *shipped()]
        _list((known, workload_line(load_workload(known))) for known in names)
        return
    for line in workload_lines(load_workload(name)):
        click.echo(line)


@show.command("patterns")
@click.argument("name", required=False)
def show_patterns(name: str | None) -> None:
    """List sparsity patterns and how they are written; with NAME check one string.

    \b
    accsim show patterns
    accsim show patterns 2:4
    """
    from accsim.spec.pattern import families, parse_pattern

    if name is None:
        _list((family.grammar, family.summary) for family in families().values())
        return
    pattern = parse_pattern(name)
    _list([(str(pattern), type(pattern).summary)])


def _list(rows: Any) -> None:
    listed = list(rows)
    width = max((len(name) for name, _ in listed), default=0)
    for name, text in listed:
        click.echo(f"{name:<{width}}  {text}")
