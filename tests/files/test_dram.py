"""Shipped DRAM parts: every number sourced; errors name file and line; parts out of LiteDRAM."""

import builtins

import pytest

from accsim.base.errors import InputError
from accsim.base.units import unit_of
from accsim.files.dram import dram_parts, from_litedram, litedram_modules, load_dram
from accsim.spec.dram_access import sustained_gb_per_s

# JEDEC says in which order generations refresh less, burst longer, run faster; not much else.
NAMES = ("ddr4_2400", "ddr4_3200", "gddr6_16", "hbm2_2gbps", "hbm2e", "hbm3", "lpddr4_4266",
         "lpddr5_6400")  # fmt: skip


def numbers(data, path=""):
    if isinstance(data, dict):
        return {
            deeper: value
            for key, child in data.items()
            for deeper, value in numbers(child, f"{path}.{key}" if path else key).items()
        }
    return {path: data} if isinstance(data, int | float) and not isinstance(data, bool) else {}


def test_the_catalogue_is_complete():
    assert tuple(dram_parts()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_number_has_a_source_a_unit_and_an_honest_status(name):
    part = load_dram(name)
    given = numbers(part.model_dump(exclude={"sources"}, exclude_unset=True))
    assert set(given) == set(part.sources)
    for path, sourced in part.sources.items():
        assert sourced.value == given[path], path
        assert sourced.unit == unit_of(path), path
        word = sourced.source.split(":")[0]
        assert sourced.status == (word if word in ("chosen", "assumed") else "published"), path
    assert part.title
    assert part.name == name


@pytest.mark.parametrize("name", NAMES)
def test_the_memory_has_a_row_in_the_energy_tables(name):
    import accsim

    table = accsim.load_hardware("systolic_ws_32x32").energy.dram_pj_per_bit
    assert load_dram(name).protocol in table


def test_overrides_and_paths(tmp_path):
    part = load_dram("hbm2e", {"channels": 80, "timings.trfc_ns": "0.3 us"})
    assert part.channels == 80
    assert part.timings.trfc_ns == 300
    assert part.sources["channels"].source == "override of this run"
    own = tmp_path / "mine.yaml"
    own.write_text("extends: ddr4_3200\nranks: {value: 2, source: x}\n", encoding="utf-8")
    assert load_dram(own).ranks == 2  # a bare word is a part of the catalogue,
    base = tmp_path / "ddr4_3200.yaml"
    text = _text("ddr4_3200").replace("channels: {value: 1", "channels: {value: 3")
    base.write_text(text, encoding="utf-8")
    assert load_dram(own).channels == 3  # or a file beside this one


def _text(name):
    from accsim.files import catalogue

    return catalogue.find("hwconfigs", name, "dram").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("trcd_ns:", "trcdd_ns:", r"unknown key 'trcdd_ns' in 'timings', did you mean 'trcd_ns'"),
        ("twr_ns: {value: 15,", "twr_ns: {value: -15,", r"timings\.twr_ns.*greater than 0"),
        ("trp_ns: {value: 13.75, source", "trp_ns: {value: 9 GB, source", "must be in ps, ns, us"),
        ("row_bytes: {value: 8 KiB", "row_bytes: {value: 100", "row_bytes must be a multiple of"),
        ("bank_groups:", "bankgroups:", "unknown key 'bankgroups', did you mean 'bank_groups'"),
    ],
)
def test_errors_name_file_line_and_rule(tmp_path, old, new, message):
    text = _text("ddr4_3200")
    assert text.count(old) == 1
    line = text[: text.index(old)].count("\n") + 1
    path = tmp_path / "part.yaml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        load_dram(path)
    if "row_bytes" not in old:  # a rule of the whole part has the file's first line
        assert f"part.yaml:{line}:" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("ddr4_320", "no DRAM part called 'ddr4_320', did you mean 'ddr4_3200'"),
        ("zzz", "no DRAM part called 'zzz'; there are ddr4_2400, "),
        ("", "must be a word"),
        ("nowhere.yaml", r"nowhere\.yaml: no such file"),
    ],
)
def test_a_name_that_is_not_there(given, message):
    with pytest.raises(InputError, match=message):
        load_dram(given)


def test_overrides_must_be_a_mapping():
    with pytest.raises(InputError, match="dict of dotted keys"):
        load_dram("hbm3", [("a", 1)])


# --- LiteDRAM, where it is installed


def test_without_litedram_the_error_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def none(name, *args, **kwargs):
        if name.startswith("litedram"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", none)
    with pytest.raises(
        InputError, match=r"litedram is not installed: pip install 'accsim\[dram\]'"
    ):
        from_litedram("MT40A1G8")


@pytest.mark.filterwarnings("ignore")
class TestLitedram:
    @pytest.fixture(autouse=True)
    def _needs_it(self):
        pytest.importorskip("litedram.modules")

    def test_every_module_becomes_a_part(self):
        assert len(litedram_modules()) > 8
        for module in litedram_modules():
            part = from_litedram(module)
            found = sustained_gb_per_s(part, 4096, 4096) / part.peak_gb_per_s
            assert 0.9 < found < 1 - part.refresh_share

    @pytest.mark.parametrize(("module", "rate"), [("MT40A1G8", 2400), ("MTA18ASF2G72PZ", 3200)])
    def test_our_ddr4_is_the_module_it_cites(self, module, rate):
        theirs, ours = from_litedram(module, rate), load_dram(f"ddr4_{rate}")
        cited = [path for path, s in ours.sources.items() if f"LiteDRAM, {module}" in s.source]
        cited = [path for path in cited if path != "timings.tfaw_ns" or rate == 2400]
        assert len(cited) > 4
        for path in cited:
            mine, other = ours, theirs
            for step in path.split("."):
                mine, other = getattr(mine, step), getattr(other, step)
            assert mine == pytest.approx(other), path

    def test_numbers_say_which_module_they_are_from(self):
        part = from_litedram("MT40A512M8", 2666)
        assert part.sources["timings.trcd_ns"].source.startswith("litedram 20")
        assert part.name == "mt40a512m8_2666"
        assert part.mt_per_s == 2666

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (("MT40A1G", None), "no DDR4 module called 'MT40A1G', did you mean 'MT40A1G8'"),
            (("MT40A1G8", 3200), "must be one of 2400, 2666; got 3200"),
        ],
    )
    def test_what_is_not_in_the_tables_is_refused(self, args, message):
        with pytest.raises(InputError, match=message):
            from_litedram(*args)


# --- a part as the memory of a device


def dram_of(**overrides):
    import accsim

    keys = {f"memory.dram.{key}": value for key, value in overrides.items()}
    return accsim.load_hardware("systolic_ws_32x32", keys)


def test_a_device_takes_the_bandwidth_its_part_sustains():
    device = dram_of(part="ddr4_3200", parts=2, write_share=0.5)
    part = load_dram("ddr4_3200")
    expected = 2 * sustained_gb_per_s(part, 2**16, 2**16, 0.5)
    assert device.memory.dram.bandwidth_gb_per_s == pytest.approx(expected)
    assert device.memory.dram.protocol == "ddr4"
    source = device.sources["memory.dram.bandwidth_gb_per_s"]
    assert source.status == "derived"
    assert "2 × ddr4_3200, streaming, 50% written" in source.source
    short = dram_of(part="ddr4_3200", parts=2, run_bytes="64 B")
    assert short.memory.dram.bandwidth_gb_per_s < 0.6 * expected
    assert short.channels[0].bytes_per_cycle == short.memory.dram.bandwidth_gb_per_s


def test_of_part_and_bandwidth_the_later_one_counts(tmp_path):
    import accsim

    assert dram_of(part="hbm2e").memory.dram.bandwidth_gb_per_s > 300
    fixed = accsim.load_hardware("systolic_ws_32x32_ddr4", {"memory.dram.bandwidth_gb_per_s": 7})
    assert (fixed.memory.dram.bandwidth_gb_per_s, fixed.memory.dram.part) == (7, "")
    both = tmp_path / "both.yaml"
    both.write_text(
        "extends: systolic_ws_32x32\nmemory: {dram: {part: ddr4_3200, "
        "bandwidth_gb_per_s: {value: 3, source: x}}}\n",
        encoding="utf-8",
    )
    with pytest.raises(InputError, match=r"both.yaml:2: memory.dram: give part or bandwidth"):
        accsim.load_hardware(both)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("part", "ddr9", "memory.dram.part: no DRAM part called 'ddr9'"),
        ("write_share", 2, "write_share must be from 0 to 1; got 2"),
        ("run_bytes", "many", "memory.dram.run_bytes: must be a number"),
        ("run_bytes", -4, "run_bytes must be at least 1"),
        ("parts", 0, "parts"),
    ],
)
def test_a_part_that_makes_no_sense_is_refused_in_one_line(key, value, message):
    with pytest.raises(InputError, match=message) as error:
        dram_of(**{"part": "ddr4_3200", key: value})
    assert "\n" not in str(error.value)
