"""Device profiles: read, checked, and named clearly when wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hwmodel import cores, devices
from hwmodel.confidence import error_class
from hwmodel.device_schema import ABSENT, BASES, SCHEMAS
from hwmodel.errors import HwmodelError, unknown

MINIMAL = """
kind = "mcu"
title = "a board"
basis = "predicted from the cortex-m4 family"
core = "cortex-m4"
kernels = "hale"
clock_hz = { value = 1e6, unit = "Hz", source = "s", basis = "assumed" }
supply_v = { value = 3.0, unit = "V", source = "s", basis = "datasheet" }
sram_bytes = { value = 1000, unit = "byte", source = "s", basis = "datasheet" }
flash_bytes = { value = 2000, unit = "byte", source = "s", basis = "datasheet" }
power.default = { value = 0.01, unit = "W", source = "s", basis = "assumed" }
"""


@pytest.mark.parametrize("name", devices.names())
def test_every_profile_states_value_unit_source_and_basis(name: str) -> None:
    device = devices.load(name)
    assert device.kind in SCHEMAS
    assert device.value("clock_hz") > 0
    for constant in device.constants.values():
        assert constant.basis in BASES
        assert constant.source
    if device.kind == "mcu":
        assert device.texts["kernels"] in cores.library_names()
        assert cores.core(device.texts["core"])


def test_the_wanted_boards_are_there() -> None:
    wanted = {
        "stm32l4r5", "stm32u575", "stm32h7a3", "nrf5340", "stm32g0b1", "psoc62", "ra8d1", "stm32f746", "stm32h743",
        "stm32h747", "ra6m4", "numaker-m467", "stm32u385", "nrf52840", "rp2040", "msp432p401r", "apollo4", "esp32-s3",
    }  # fmt: skip
    assert wanted <= set(devices.names())


def test_a_device_file_is_read_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL)
    device = devices.load(str(path))
    assert (device.name, device.value("clock_hz")) == ("mine", 1e6)
    assert device.assumed == ("clock_hz", "power.default")
    assert device.get("flash_stall", 0.5) == 0.5


def test_an_unknown_device_suggests_the_nearest() -> None:
    with pytest.raises(HwmodelError, match="did you mean 'stm32l4r5'"):
        devices.load("stm32l4r")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"mcu"', '"gpu"'), "kind: unknown device kind 'gpu'"),
        (('clock_hz = { value = 1e6, unit = "Hz"', 'clock_hz = { value = 1e6, unit = "MHz"'), "clock_hz: unit 'MHz'"),
        (('source = "s", basis = "assumed" }\nsupply', 'basis = "assumed" }\nsupply'), "clock_hz: needs exactly"),
        (('value = 1e6, unit = "Hz", source = "s"', 'value = 1e6, unit = "Hz", source = ""'), "clock_hz: source"),
        (("value = 1e6", "value = -1"), "clock_hz: value -1"),
        (("value = 1e6", "value = nan"), "clock_hz: value nan"),
        (('basis = "datasheet" }\nsram', 'basis = "rumour" }\nsram'), "supply_v: unknown basis 'rumour'"),
        (("supply_v", "suply_v"), "supply_v is missing"),
        (("power.default", "power.default = 3\npower.defaults"), "write { value, unit, source, basis }"),
        (('core = "cortex-m4"', 'core = "cortex-m4"\ncolour = "red"'), "unknown key 'colour'"),
        (("kind =", "kind"), "not TOML"),
    ],
)
def test_a_wrong_file_is_named_with_its_key_in_one_line(change: tuple[str, str], message: str) -> None:
    assert change[0] in MINIMAL
    with pytest.raises(HwmodelError) as caught:
        devices.parse(MINIMAL.replace(*change, 1), "mine", "mine.toml")
    text = str(caught.value)
    assert text.startswith("mine.toml: ")
    assert re.search(re.escape(message), text), text
    assert "\n" not in text


def test_a_missing_file_is_named() -> None:
    with pytest.raises(HwmodelError, match=r"cannot read the device file nowhere\.toml"):
        devices.load("nowhere.toml")


def test_a_device_without_a_sound_basis_says_why() -> None:
    for name, why in ABSENT.items():
        with pytest.raises(HwmodelError, match=f"no profile of '{name}'"):
            devices.load(name)
        assert why
        assert name not in devices.names()


def test_a_clock_behind_the_name() -> None:
    """80 MHz needs 3 of the 5 wait states of 120 MHz and range 1 without boost, 1.2 of 1.28 V behind an LDO."""
    board, slow = devices.load("stm32l4r5"), devices.load("stm32l4r5@80MHz")
    assert slow.value("clock_hz") == 80e6
    assert slow.value("flash_stall") == pytest.approx(board.value("flash_stall") * 3 / 5)
    share = 0.1 + 0.9 * (80 / 120) * (1.2 / 1.28)
    assert slow.value("power.default") == pytest.approx(board.value("power.default") * share)
    assert "measured on this board" in (error_class(slow) or "")
    for wrong, message in (("stm32l4r5@200MHz", "runs at up to 120 MHz"), ("stm32l4r5@fast", "write the clock")):
        with pytest.raises(HwmodelError, match=message):
            devices.load(wrong)


def test_behind_a_switching_regulator_power_falls_with_the_square_of_the_core_voltage() -> None:
    board, slow = devices.load("stm32u575"), devices.load("stm32u575@55MHz")
    share = 0.1 + 0.9 * (55 / 160) * (1.0 / 1.2) ** 2
    assert slow.value("power.default") == pytest.approx(board.value("power.default") * share)
    assert slow.value("flash_stall") == pytest.approx(board.value("flash_stall") * 2 / 4)


def test_an_unknown_name_lists_the_valid_ones_or_the_nearest_of_many() -> None:
    assert unknown("fruit", "aple", ["pear", "apple"]) == (
        "unknown fruit 'aple'; did you mean 'apple'? (valid: apple, pear)"
    )
    many = [f"option{i:04}" for i in range(1000)]
    message = unknown("option", "option0500x", many)
    assert "did you mean 'option0500'?" in message
    assert "valid: 1000 names, the nearest option0500, " in message
    assert len(message) < 300
    assert len(unknown("option", "9" * 5000, many)) < 400
