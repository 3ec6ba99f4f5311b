import pytest

from halebrain.core.errors import ConfigError
from halebrain.core.registry import Registry


@pytest.fixture
def colours():
    registry = Registry("colour")
    registry.register("red")(1)
    registry.register("blue")(2)
    return registry


def test_parts_are_found_by_name(colours):
    assert colours.get("red") == 1
    assert colours.names() == list(colours) == ["blue", "red"]


def test_a_near_miss_is_answered_with_the_nearest_name(colours):
    with pytest.raises(ConfigError, match="a colour must be a known one, got 'rde'; did you mean 'red'"):
        colours.get("rde")


def test_a_wild_guess_is_answered_with_all_names(colours):
    with pytest.raises(ConfigError, match="known: blue, red"):
        colours.get("xyzzy")


def test_a_name_is_given_once(colours):
    with pytest.raises(ValueError, match="registered twice"):
        colours.register("red")
