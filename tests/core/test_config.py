import pytest

from halebrain.core.config import Config, dump_yaml, load_config
from halebrain.core.errors import ConfigError, MissingInputError


class Inner(Config):
    steps: int = 3


class Outer(Config):
    name: str = "a"
    loop: Inner = Inner()


def test_overrides_reach_into_sections(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("name: b\n")
    config = load_config(Outer, path, ["loop.steps=7"])
    assert config == Outer(name="b", loop=Inner(steps=7))


def test_the_resolved_configuration_loads_again(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(dump_yaml(Outer(name="x")))
    assert load_config(Outer, path) == Outer(name="x")


@pytest.mark.parametrize(
    ("pairs", "word"),
    [
        (["nme=b"], "did you mean 'name'"),
        (["loop.stps=1"], "did you mean 'steps'"),
        (["loop.steps=many"], "'many'"),
        (["loop.steps=true"], "number"),
        (["loop"], "key=value"),
        (["name.x=1", "loop=3"], "name"),
    ],
)
def test_wrong_keys_and_types_are_one_clear_line(pairs, word):
    with pytest.raises(ConfigError) as caught:
        load_config(Outer, None, pairs)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 78


def test_missing_and_malformed_files(tmp_path):
    with pytest.raises(MissingInputError):
        load_config(Outer, tmp_path / "no.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1\n")
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_config(Outer, tmp_path / "bad.yaml")
