from pathlib import Path

import pytest
import yaml
from pydantic import Field, model_validator
from pydantic.fields import FieldInfo

from halebrain.adaptation.config import AdaptConfig
from halebrain.core.config import (
    FORMER_KEYS,
    Config,
    dump_yaml,
    load_config,
    merged,
    parse_config,
    parse_yaml,
    portable_dump,
    read_yaml,
    strip_absolute_paths,
    with_former_keys,
    with_present_keys,
)
from halebrain.core.errors import ConfigError, MissingInputError
from halebrain.data.anomalies.blobs import BlobsSettings
from halebrain.data.anomalies.poisson import PoissonSettings
from halebrain.data.slices import DataConfig
from halebrain.inference.anomaly_map import PostprocessingConfig
from halebrain.models.reconstruction import build_reconstructor
from halebrain.models.reconstruction.diffusion import DiffusionSettings
from halebrain.models.reconstruction.itermask import IterMaskSettings
from halebrain.training.adaptation import TuningConfig
from halebrain.training.joint import JointTraining
from halebrain.training.loop_config import LoopConfig
from halebrain.training.reconstructor import ReconstructorTraining
from halebrain.training.segmenter_config import SegmenterTraining


class Inner(Config):
    steps: int = 3


class Outer(Config):
    name: str = "a"
    loop: Inner = Inner()
    count: int | None = None


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
        (["count=yes"], "number"),
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


class Rate(Config):
    rate: float = 1.0


BOMB = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 8)}]\n" for a, b in zip("abcdef", "bcdefg", strict=True)
)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (BOMB, "100000 values"),
        ("number: &n [*n]\n", "contains itself"),
        ("number: " + "[" * 1200, "YAML"),
        ("number: 2024-13-45\n", "YAML"),
        ("number: 0x1" + "0" * 16 + "\n", "64 bits"),
        ("number: " + "9" * 5000 + "\n", "YAML"),
        ("rate: .nan\n", "finite"),
        ("rate: 2\nother: {}\nrate: 3\n", "the key rate in line 1 and again in line 3"),
        ("a: {b: {c: 1, c: 1}}\n", "the key c in line 1 and again in line 1"),
        ("rate: -.inf\n", "finite"),
        ("extends: [a]\n", "extends"),
        ('extends: "a\\0b"\n', "extends"),
    ],
)
def test_a_text_that_no_settings_are_is_one_short_line(tmp_path, text, word):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=word) as caught:
        load_config(Rate, path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["", "x" * 3000])
def test_a_name_that_no_file_has_is_a_missing_file(tmp_path, name):
    (tmp_path / "a.yaml").write_text(f"extends: '{name}'\n")
    with pytest.raises(MissingInputError, match="must exist"):
        read_yaml(tmp_path / "a.yaml")


def test_values_that_are_referred_to_count_as_often_as_they_are(tmp_path):
    assert parse_yaml("a: &a [1, 2]\nb: [*a, *a]\n", where="") == {"a": [1, 2], "b": [[1, 2], [1, 2]]}


def test_a_key_may_be_given_again_over_what_a_reference_brings_in():
    text = "<<: &whole {a: 1, b: &part {c: 2}}\nb: {<<: *part, <<: {e: 5}, c: 3}\nd: {<<: *whole, a: 4}\n"
    assert parse_yaml(text, where="") == {"a": 1, "b": {"c": 3, "e": 5}, "d": {"a": 4, "b": {"c": 2}}}


def test_settings_lie_over_each_other():
    below = {"loop": {"steps": 5, "lr": 1}, "seed": 0}
    assert merged(below, {"loop": {"steps": 9}}, {"seed": 3}) == {"loop": {"steps": 9, "lr": 1}, "seed": 3}
    assert below == {"loop": {"steps": 5, "lr": 1}, "seed": 0}


def test_a_file_may_extend_another_one(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "base.yaml").write_text("a: {b: 1, c: 2}\nd: 3\n")
    (tmp_path / "sub" / "more.yaml").write_text("extends: ../base.yaml\na: {c: 5}\n")
    assert read_yaml(tmp_path / "sub" / "more.yaml") == {"a": {"b": 1, "c": 5}, "d": 3}
    (tmp_path / "loop.yaml").write_text("extends: loop.yaml\n")
    with pytest.raises(ConfigError, match="extend itself"):
        read_yaml(tmp_path / "loop.yaml")
    (tmp_path / "lost.yaml").write_text("extends: nowhere.yaml\n")
    with pytest.raises(MissingInputError, match=r"nowhere\.yaml"):
        read_yaml(tmp_path / "lost.yaml")
    (tmp_path / "odd.yaml").write_text("extends: [a]\n")
    with pytest.raises(ConfigError, match="must name a file"):
        read_yaml(tmp_path / "odd.yaml")


def test_another_method_does_not_inherit_the_settings_of_the_first(tmp_path):
    below = {"reconstructor": {"name": "cddpm", "settings": {"width": 8}, "other": 1}}
    assert merged(below, {"reconstructor": {"name": "ae"}}) == {"reconstructor": {"name": "ae", "other": 1}}
    assert merged(below, {"reconstructor": {"name": "cddpm"}}) == below
    assert merged(below, {"reconstructor": {"name": "ae", "settings": {"depth": 2}}}) == {
        "reconstructor": {"name": "ae", "settings": {"depth": 2}, "other": 1}
    }
    path = tmp_path / "c.yaml"
    path.write_text("reconstructor: {name: cddpm, settings: {width: 8}}", "utf-8")

    class Spec(Config):
        name: str
        settings: dict[str, int] = Field(default_factory=dict)

    class Whole(Config):
        reconstructor: Spec

    changed = load_config(Whole, path, ["reconstructor.name=ae", "reconstructor.settings.depth=2"])
    assert changed.reconstructor == Spec(name="ae", settings={"depth": 2})
    assert load_config(Whole, path, ["reconstructor.name=cddpm"]).reconstructor.settings == {"width": 8}
    turned = ["reconstructor.settings.depth=2", "reconstructor.settings.rate=3", "reconstructor.name=ae"]
    assert load_config(Whole, path, turned).reconstructor == Spec(name="ae", settings={"depth": 2, "rate": 3})


def test_an_override_reaches_into_the_items_of_a_list(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "data: {manifest: a.tsv}\nanomaly: {name: mixture, settings: {of: [{name: cohort}, {name: dag}]}}\n"
    )
    config = load_config(ReconstructorTraining, path, ["anomaly.settings.of.0.settings.patients=3"])
    assert config.anomaly.settings["of"] == [{"name": "cohort", "settings": {"patients": 3}}, {"name": "dag"}]
    for wrong in ("of.2.name=x", "of.first.name=x", "of.0=x"):
        with pytest.raises(ConfigError, match="list"):
            load_config(ReconstructorTraining, path, [f"anomaly.settings.{wrong}"])


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("/home/jane/hospital/t1/manifest.tsv", "manifest.tsv"),
        ("C:\\scans\\jane\\cache", "cache"),
        ("cohort/manifest.tsv", "cohort/manifest.tsv"),
        ({"of": [{"masks": "/data/masks"}, 3, None]}, {"of": [{"masks": "masks"}, 3, None]}),
        ("", ""),
    ],
)
def test_what_leaves_the_machine_says_no_place_of_it(value, kept):
    assert strip_absolute_paths(value) == kept


def test_a_portable_dump_is_the_dump_but_for_places():
    class Places(Config):
        table: Path
        rate: float = 0.5

    assert portable_dump(Places(table=Path("/somewhere/table.tsv"))) == {"table": "table.tsv", "rate": 0.5}


class Deep(Config):
    outer: Outer = Outer(name="c", loop=Inner(steps=9))


def test_a_section_given_in_part_keeps_the_defaults_of_where_it_stands():
    assert load_config(Deep, None, ["outer.name=d"]).outer == Outer(name="d", loop=Inner(steps=9))
    assert load_config(Deep, None, ["outer.loop.steps=2"]).outer == Outer(name="c", loop=Inner(steps=2))
    assert load_config(Deep, None) == Deep()
    assert parse_config(Deep, {"outer": {"name": "d"}}).outer == Outer(name="d", loop=Inner(steps=9))


def test_what_a_part_of_a_run_has_by_default_stays_where_the_rest_is_given():
    joint = load_config(JointTraining, None, ["postprocessing.median_size=3"])
    assert joint.postprocessing == {"residual_weight": 0.0, "median_size": 3}
    assert parse_config(SegmenterTraining, {"loop": {"steps": 9}}).loop == LoopConfig(steps=9, lr=5e-5)
    usual = IterMaskSettings().unet
    small = build_reconstructor("itermask", {"unet": {"blocks_per_level": 1}})
    assert small.settings.unet == usual.model_copy(update={"blocks_per_level": 1})


def test_defaults_are_found_with_the_oldest_pydantic_that_is_allowed(monkeypatch):
    found = FieldInfo.get_default

    def of_pydantic_2_8(self, *, call_default_factory=False):
        return found(self, call_default_factory=call_default_factory)

    monkeypatch.setattr(FieldInfo, "get_default", of_pydantic_2_8)
    assert load_config(SegmenterTraining, None, ["loop.steps=9"]).loop.lr == 5e-5


def test_a_section_that_names_another_method_drops_the_settings_of_the_default():
    class Method(Config):
        name: str
        settings: dict[str, int] = Field(default_factory=dict)

    class Run(Config):
        method: Method = Method(name="a", settings={"x": 1})

    assert load_config(Run, None, ["method.settings.y=2"]).method.settings == {"x": 1, "y": 2}
    assert load_config(Run, None, ["method.name=b"]).method == Method(name="b")


FORMER = [
    (PostprocessingConfig, {"around_mm": 16.0}),
    (DiffusionSettings, {"heals": True}),
    (DataConfig, {"more_manifests": ["other.tsv"], "more_weight": 4}),
    (AdaptConfig, {"kept_one_subject": 0.5}),
    (TuningConfig, {"kept": 0.25}),
    (BlobsSettings, {"most": 2}),
    (PoissonSettings, {"moved": 0.25}),
    (PoissonSettings, {"strongest": 0.5}),
]


@pytest.mark.parametrize(("model", "settings"), FORMER, ids=lambda value: getattr(value, "__name__", ""))
def test_a_former_key_means_the_same_and_is_named_in_one_line(model, settings, tmp_path, caplog):
    path, (former, value) = tmp_path / "old.yaml", list(settings.items())[-1]
    path.write_text(yaml.safe_dump(settings))
    config = load_config(model, path)
    present = FORMER_KEYS[former]
    assert config.model_dump(mode="json")[present] == value
    (line,) = (record.getMessage() for record in caplog.records)
    assert line == (f"warning: {path}: {former} is now {present}; former names are understood until version 0.4")
    caplog.clear()
    path.write_text(yaml.safe_dump({present if key == former else key: one for key, one in settings.items()}))
    assert load_config(model, path) == config
    assert parse_config(model, settings) == config, "a model's own settings are understood without a word"
    assert not caplog.records


def test_every_former_key_is_tested():
    assert {key for _, settings in FORMER for key in settings} >= set(FORMER_KEYS) - {"healthy_share"}


def test_a_former_key_of_the_command_line_is_understood_over_a_file_with_the_present_one(tmp_path, caplog):
    path = tmp_path / "c.yaml"
    path.write_text("reconstructor: {name: cddpm, settings: {train_with_anomalies: true}}\n")
    config = load_config(ReconstructorTraining, path, ["reconstructor.settings.heals=false", "data.more_weight=2"])
    assert config.reconstructor.settings == {"train_with_anomalies": False}
    assert config.data.oversample_factor == 2
    assert [" ".join(record.getMessage().split()[2:5]) for record in caplog.records] == [
        "heals is now",
        "more_weight is now",
    ]


def test_a_file_that_extends_another_may_use_the_former_key(tmp_path):
    (tmp_path / "base.yaml").write_text("data: {more_manifests: [other.tsv], oversample_factor: 4}\n")
    (tmp_path / "own.yaml").write_text("extends: base.yaml\ndata: {more_weight: 2}\n")
    assert load_config(ReconstructorTraining, tmp_path / "own.yaml").data.oversample_factor == 2


def test_a_key_under_both_names_is_refused(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("most: 2\nmax_blobs: 3\n")
    with pytest.raises(ConfigError, match=r"under one name, got most and max_blobs .*remove most"):
        load_config(BlobsSettings, path)


def test_names_that_a_user_chose_stay():
    assert with_present_keys({"reconstructors": {"heals": {"row": "a"}}}) == {"reconstructors": {"heals": {"row": "a"}}}


def test_hashes_of_runs_are_made_of_former_names():
    assert with_former_keys([{"loop": {"original_weight": 1}}]) == [{"loop": {"kept": 1}}]


def test_the_nearest_key_is_named_within_entries_of_lists_and_by_name():
    from halebrain.benchmarking.config import MatrixConfig

    entry = {"name": "a", "first": "A", "second": "B", "columns": "seen", "margn": 0.1}
    pair = {"reconstructor": None, "rows": {"fused": "S"}, "block": "II", "blok": "II"}
    for raw, words in (
        ({"contrasts": [entry]}, "got 'contrasts.0.margn'.*did you mean 'margin'"),
        ({"segmenters": {"pair": pair}}, "got 'segmenters.pair.blok'.*did you mean 'block'"),
    ):
        with pytest.raises(ConfigError, match=words):
            parse_config(MatrixConfig, {"reconstructors": {}, "reference": "A", **raw})


def test_a_rule_about_several_settings_is_told_without_the_whole_section():
    class Both(Config):
        first: int = 0
        second: int = 0

        @model_validator(mode="after")
        def _are_ordered(self) -> "Both":
            if self.first > self.second:
                raise ValueError("first must not exceed second")
            return self

    with pytest.raises(ConfigError) as raised:
        parse_config(Both, {"first": 2}, where="a.yaml")
    assert raised.value.received == ""
    assert "first must not exceed second" in str(raised.value)
    with pytest.raises(ConfigError) as raised:
        parse_config(Both, {"first": "two"}, where="a.yaml")
    assert raised.value.received == "'two'"
