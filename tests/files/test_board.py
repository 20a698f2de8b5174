"""Board files: every number sourced and with a unit, corners valid, mistakes one line."""

from pathlib import Path

import pytest

from accsim.base.errors import InputError
from accsim.cost.board import at_corner
from accsim.files.board import load_board, load_board_of
from accsim.spec.board import GpuBoard
from accsim.spec.fpga_power import FpgaBoard

FOLDER = Path(__file__).parents[2] / "hwconfigs" / "boards"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
GPU = "a100_sxm4_40gb"


def numbers(data, path=""):
    """Return ``{dotted path: number}`` of a dumped board."""
    if isinstance(data, dict):
        pairs = ((f"{path}.{k}" if path else k, v) for k, v in data.items())
        return {p: n for inside, v in pairs for p, n in numbers(v, inside).items()}
    return {path: data} if isinstance(data, int | float) else {}


def refused(name, overrides=None):
    with pytest.raises(InputError) as error:
        load_board(name, overrides)
    return str(error.value)


def written(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_catalogue_has_boards():
    assert {GPU, "a100_pcie_80gb", "rtx3090", "xcvu9p", "u250", "u280", "zcu102"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_number_has_a_source_a_value_and_where_it_has_one_a_unit(name):
    board = load_board(name)
    given = numbers(board.model_dump(exclude={"sources"}))
    assert set(given) == set(board.sources)
    for path, value in given.items():
        source = board.sources[path]
        assert source.source.strip()
        assert source.value == value
        bare = path.startswith(("available.", "parts.")) or path in {
            "voltage.point", "voltage.floor", "energy.sparse_mma_factor", "supply_loss",
            "toggle_rate", "still_share",
        }  # fmt: skip
        assert bool(source.unit) != bare, path


@pytest.mark.parametrize("name", NAMES)
def test_what_is_assumed_says_so_and_has_a_range(name):
    for path, source in load_board(name).sources.items():
        if source.source.split(":")[0] in ("assumed", "chosen"):
            assert source.status == source.source.split(":")[0], path
        ranged = source.low is not None or source.high is not None
        fixed = path in {"limit_w", "min_ghz", "boost_ghz", "voltage.point_ghz"}
        if source.status == "assumed" and not fixed and not path.startswith("available."):
            assert ranged, path
        if ranged:
            assert (source.low, source.high) != (source.value, source.value), path


@pytest.mark.parametrize("name", NAMES)
def test_both_corners_are_boards_and_files_say_their_purpose(name):
    board = load_board(name)
    for side in ("low", "high"):
        assert type(at_corner(board, side)) is type(board)
    assert board.name == name
    assert len(board.title) > 20
    assert (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").startswith("# ")


def test_units_of_nested_numbers():
    sources = load_board(GPU).sources
    assert sources["energy.mma_pj.bf16"].unit == "pJ"
    assert sources["energy.l2_pj_per_byte"].unit == "pJ/B"
    assert sources["cap_w"].unit == "W"
    assert sources["boost_ghz"].unit == "GHz"
    assert load_board("xcvu9p").sources["pj_per_clock.dsp"].unit == "pJ"


def test_a_board_of_a_path_extends_a_shipped_one(tmp_path):
    text = f"extends: {GPU}\ncap_w: {{value: 250, source: 'chosen: a quiet box', status: chosen}}\n"
    board = load_board_of(GpuBoard, written(tmp_path, f"kind: gpu_board\n{text}"))
    assert (board.name, board.cap_w) == ("mine", 250)
    assert board.energy == load_board_of(GpuBoard, GPU).energy


def test_overrides_are_recorded_as_such():
    board = load_board_of(GpuBoard, GPU, {"cap_w": 300, "boost_ghz": "1300 MHz"})
    assert (board.cap_w, board.boost_ghz) == (300, 1.3)
    assert board.sources["cap_w"].source == "override of this run"
    assert board.sources["cap_w"].unit == "W"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"capp_w": 3}, "override: unknown key 'capp_w', did you mean 'cap_w'?"),
        ({"cap_w": 50}, "needs idle_fixed_w <= idle_w <= active_idle_w <= cap_w"),
        ({"min_ghz": 2}, "needs min_ghz < boost_ghz; got 2.0, 1.41"),
        ({"voltage.point_ghz": 1.5}, "voltage.point_ghz must be below boost_ghz 1.41; got 1.5"),
        ({"voltage.floor": 0.9}, "floor must be at most point; got 0.9 > 0.723"),
        ({"energy.mma_pj.fp7": 1}, "fp7"),
        ({"energy.l2_pj_per_byte": -1}, "must be greater than or equal to 0; got -1"),
        ({"kind": "gpu_bord"}, "kind must be one of gpu_board, fpga_board; got 'gpu_bord', did"),
    ],
)
def test_a_bad_override_is_one_line(overrides, message):
    text = refused(GPU, overrides)
    assert message in text
    assert "\n" not in text


def test_bad_names_files_and_kinds_are_refused(tmp_path):
    assert "did you mean 'a100_sxm4_40gb'?" in refused("a100_sxm4_40g")
    assert "a number needs a source" in refused(written(tmp_path, "kind: gpu_board\ncap_w: 3\n"))
    assert "kind must be one of" in refused(written(tmp_path, "title: no kind\n"))
    assert "unknown key 'sources'" in refused(
        written(tmp_path, "kind: gpu_board\nsources: {}\n")
    )  # fmt: skip
    assert "missing key 'cap_w'" in refused(written(tmp_path, "kind: gpu_board\n"))
    with pytest.raises(InputError, match="board 'xcvu9p': kind must be gpu_board; got 'fpga_board"):
        load_board_of(GpuBoard, "xcvu9p")
    with pytest.raises(InputError, match="overrides must be a dict"):
        load_board_of(FpgaBoard, "xcvu9p", ["cap_w"])
