"""SynthStrip with stand-in weights whose answer is known, and with a stand-in program."""

import nibabel
import numpy as np
import pytest
import torch
from scipy import ndimage

from halebrain.core.errors import DataError, UnavailableError
from halebrain.core.types import Volume
from halebrain.preprocessing.brain import synthstrip_network
from halebrain.preprocessing.brain.synthstrip import conform, extract_by_synthstrip, find_weights, is_available
from halebrain.preprocessing.brain.synthstrip_network import SynthStripNetwork
from halebrain.preprocessing.geometry import apply_affine

SMALL = (2, 2, 2, 2, 2, 2, 2)


@pytest.fixture
def weights(monkeypatch, tmp_path):
    """A file whose network says 10 mm minus 20 mm times the intensity: brain is what is brighter than 0.45."""
    monkeypatch.setattr(synthstrip_network, "FEATURES", SMALL)
    network = SynthStripNetwork(SMALL)
    state = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    for name in ("encoder.0.0", "encoder.0.1", "remaining.1"):
        state[f"{name}.conv.weight"][0, 0, 1, 1, 1] = 1
    state["remaining.0.conv.weight"][0, SMALL[1], 1, 1, 1] = 1  # the skip comes after what the decoder found
    state["remaining.2.conv.weight"][0, 0, 1, 1, 1] = -20
    state["remaining.2.conv.bias"][0] = 10
    path = tmp_path / "weights.pt"
    torch.save({"model_state_dict": state, "epoch": 7}, path)
    monkeypatch.setenv("HALEBRAIN_SYNTHSTRIP_WEIGHTS", str(path))
    return path


def test_layers_have_the_published_names_and_shapes():
    shapes = {name: tuple(value.shape[:2]) for name, value in SynthStripNetwork().state_dict().items()}
    weights = {name.removesuffix(".conv.weight"): shape for name, shape in shapes.items() if name.endswith("weight")}
    expected = {"encoder.0.0": (16, 1), "encoder.0.1": (16, 16), "encoder.1.0": (32, 16), "encoder.1.1": (32, 32)}
    expected |= {"encoder.2.0": (64, 32), "encoder.2.1": (64, 64)}
    expected |= {f"encoder.{level}.{n}": (64, 64) for level in (3, 4, 5) for n in (0, 1)}
    expected |= {"decoder.0.0": (64, 64), "decoder.0.1": (64, 64)}
    expected |= {f"decoder.{level}.0": (64, 128) for level in (1, 2, 3, 4)}
    expected |= {f"decoder.{level}.1": (64, 64) for level in (1, 2, 3, 4)}
    expected |= {"decoder.5.0": (32, 96), "decoder.5.1": (32, 32)}
    expected |= {"remaining.0": (16, 48), "remaining.1": (16, 16), "remaining.2": (1, 16)}
    assert weights == expected
    assert len(shapes) == 2 * len(expected)


@pytest.mark.slow
def test_the_network_finds_the_brain_on_the_grid_of_the_scan(weights, oblique):
    volume, brain = oblique
    found = extract_by_synthstrip(volume)
    assert (found.method, found.confidence) == ("synthstrip", 1.0)
    centre = [apply_affine(volume.affine, np.argwhere(m).astype(float)).mean(axis=0) for m in (found.mask, brain)]
    assert np.linalg.norm(centre[0] - centre[1]) < 0.5
    # Both differ nowhere but in voxels at the surface.
    surface = ndimage.binary_dilation(brain) & ~ndimage.binary_erosion(brain)
    assert not ((found.mask ^ brain) & ~surface).any()
    assert 2 * (found.mask & brain).sum() / (found.mask.sum() + brain.sum()) > 0.98


@pytest.mark.slow
def test_islands_go_and_holes_are_filled(weights, oblique):
    volume, _ = oblique
    data = volume.data.copy()
    data[46:50, 28:32, 22:25] = 0
    data[2:6, 2:5, 2:4] = 100
    found = extract_by_synthstrip(Volume(data, volume.affine))
    assert found.mask[48, 30, 23]
    assert not found.mask[:8, :6, :5].any()


STEEP = np.array([0.30, 0.27, -0.29])


@pytest.mark.slow
@pytest.mark.parametrize(
    "spacing",
    [
        pytest.param((1.0, 1.0, 1.0), marks=pytest.mark.sweep),
        (0.9, 1.1, 5.0),
        pytest.param((0.7, 0.7, 0.7), marks=pytest.mark.sweep),
    ],
)
def test_conforming_and_back_lands_where_it_came_from(spacing):
    """A smooth function of the world survives the round trip to within half a voxel of its slope."""
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    shape = tuple(int(150 / s) for s in spacing)
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(spacing)
    affine[:3, 3] = (-40, 30, 12)
    index = np.indices(shape).reshape(3, -1).T.astype(float)
    world = apply_affine(affine, index)
    middle = world.mean(axis=0)
    # Half a unit a mm, about as steep along each axis: a shift along any of them shows.
    slope = ((world - middle) @ STEEP).reshape(shape)
    conformed = conform(Volume((slope - slope.min() + 1).astype(np.float32), affine))
    assert all(n % 64 == 0 and 192 <= n <= 320 for n in conformed.image.shape)
    assert nibabel.aff2axcodes(conformed.affine) == ("L", "I", "A")
    np.testing.assert_allclose(np.linalg.norm(conformed.affine[:3, :3], axis=0), 1)
    place = apply_affine(conformed.affine, np.indices(conformed.image.shape).reshape(3, -1).T.astype(float))
    known = ((place - middle) @ STEEP).astype(np.float32).reshape(conformed.image.shape)
    inner = (slice(8, -8), slice(8, -8), slice(None) if shape[2] < 40 else slice(8, -8))
    back = conformed.to_native(known)
    assert np.abs(back - slope)[inner][:, :, 1:-1].max() < 0.03
    # What the network saw is what is there, by nearest neighbours.
    seen = (conformed.image > 0.05) & (conformed.image < 0.9)
    value = conformed.image * np.percentile(known[conformed.image > 0], 99)
    assert np.corrcoef(value[seen], known[seen])[0, 1] > 0.99


def test_a_scan_larger_than_the_network_sees_keeps_its_middle():
    data = np.ones((400, 30, 30), dtype=np.float32)
    conformed = conform(Volume(data, np.diag([1.0, 1, 1, 1])))
    assert conformed.image.shape == (320, 192, 192)
    back = conformed.to_native(np.zeros(conformed.image.shape, np.float32))
    np.testing.assert_allclose(back[45:355], 0, atol=1e-4)
    assert (back[:30] == 100).all()
    assert (back[370:] == 100).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("decoder.3.1.conv.bias"), "without 'decoder.3.1.conv.bias'"),
        (lambda state: state.update({"extra": torch.zeros(1)}), "unknown 'extra'"),
        (lambda state: state.update({"remaining.2.conv.bias": torch.zeros(2)}), r"\(2,\) for 'remaining.2.conv.bias'"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(weights, oblique, change, message):
    content = torch.load(weights, weights_only=True)
    change(content["model_state_dict"])
    torch.save(content, weights)
    with pytest.raises(DataError, match=message):
        extract_by_synthstrip(oblique[0])


@pytest.mark.parametrize("content", [b"", b"no weights", None])
def test_what_is_no_weights_file_is_refused(weights, oblique, content):
    if content is None:
        torch.save({"weights": 1}, weights)
    else:
        weights.write_bytes(content)
    with pytest.raises(DataError, match=r"weights\.pt"):
        extract_by_synthstrip(oblique[0])


def test_a_file_that_runs_code_is_refused(weights, oblique, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    torch.save({"model_state_dict": Evil()}, weights)
    with pytest.raises(DataError, match="cannot be opened"):
        extract_by_synthstrip(oblique[0])
    assert not (tmp_path / "touched").exists()


def test_named_weights_that_are_absent_are_said(monkeypatch, oblique):
    monkeypatch.setenv("HALEBRAIN_SYNTHSTRIP_WEIGHTS", "/nowhere/synthstrip.1.pt")
    with pytest.raises(UnavailableError, match="/nowhere/synthstrip"):
        extract_by_synthstrip(oblique[0])


@pytest.mark.parametrize("named", [True, False])
def test_the_usual_place_is_looked_at(weights, monkeypatch, tmp_path, named):
    home = tmp_path / ("mine" if named else "home/.halebrain")
    home.mkdir()
    weights.rename(home / "synthstrip.1.pt")
    monkeypatch.delenv("HALEBRAIN_SYNTHSTRIP_WEIGHTS")
    if named:
        monkeypatch.setenv("HALEBRAIN_HOME", str(home))
    assert is_available()
    assert find_weights() == home / "synthstrip.1.pt"


def test_neither_weights_nor_program_says_both_ways(oblique):
    with pytest.raises(UnavailableError, match=r"mri_synthstrip on PATH.*HALEBRAIN_SYNTHSTRIP_WEIGHTS") as caught:
        extract_by_synthstrip(oblique[0])
    assert caught.value.exit_code == 69


PROGRAM = """
import nibabel, numpy as np
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert options["-b"] == "1" and len(sys.argv) == 7
image = nibabel.load(options["-i"])
nibabel.save(nibabel.Nifti1Image((image.get_fdata() > 50).astype(np.uint8), image.affine), options["-m"])
"""


def test_the_program_is_called_where_there_are_no_weights(tools, oblique):
    tools("mri_synthstrip", PROGRAM)
    found = extract_by_synthstrip(oblique[0])
    np.testing.assert_array_equal(found.mask, oblique[1])
    assert found.method == "synthstrip"


@pytest.mark.parametrize(("script", "message"), [("sys.exit('no FREESURFER_HOME')", "no FREE"), ("", "write a mask")])
def test_a_program_that_fails_is_said(tools, oblique, script, message):
    tools("mri_synthstrip", script)
    with pytest.raises(DataError, match=message):
        extract_by_synthstrip(oblique[0])


def test_an_unknown_device_is_refused(weights, oblique, monkeypatch):
    monkeypatch.setenv("HALEBRAIN_BRAIN_DEVICE", "gpu")
    with pytest.raises(Exception, match="auto, cpu or cuda"):
        extract_by_synthstrip(oblique[0])
