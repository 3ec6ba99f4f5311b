"""HD-BET through stand-ins that behave as its two versions do."""

import numpy as np
import pytest

from halebrain.core.errors import DataError, UnavailableError
from halebrain.core.types import Volume
from halebrain.preprocessing.brain.hdbet import extract_by_hdbet
from halebrain.preprocessing.geometry import reorient

THRESHOLD = """
import nibabel, numpy as np
image = nibabel.load(scan)
assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
nibabel.save(nibabel.Nifti1Image((image.get_fdata() > 50).astype(np.uint8), image.affine), out[:-7] + suffix)
"""
START = """
assert os.environ["https_proxy"].endswith(":9")
weights = os.path.join(os.path.expanduser("~"), "hd-bet_params", {weights!r})
if "--help" in sys.argv:
    print({help!r})
    sys.exit(0)
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
scan, out, suffix = options["-i"], options["-o"], {suffix!r}
if not os.path.isfile(weights):
    sys.exit("weights would be downloaded")
assert sys.argv[5:] == {options!r}, sys.argv
"""
VERSIONS = {
    1: {
        "help": "-mode -tta -s",
        "weights": "0.model",
        "suffix": "_mask.nii.gz",
        "options": ["-device", "cpu", "-mode", "fast", "-tta", "0", "-s", "1"],
    },
    2: {
        "help": "--disable_tta --save_bet_mask",
        "weights": "release_2.0.0/fold_all/checkpoint_final.pth",
        "suffix": "_bet.nii.gz",
        "options": ["-device", "cpu", "--disable_tta", "--save_bet_mask", "--no_bet_image"],
    },
}


@pytest.fixture
def install(tools):
    def put(version, script=THRESHOLD):
        return tools("hd-bet", START.format(**VERSIONS[version]) + script)

    return put


def put_weights(folder, version):
    path = folder / VERSIONS[version]["weights"]
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    return path


@pytest.mark.parametrize("version", [1, 2])
def test_the_mask_comes_back_in_the_order_of_the_scan(install, oblique, tmp_path, version):
    volume, brain = oblique
    install(version)
    put_weights(tmp_path / "home" / "hd-bet_params", version)
    found = extract_by_hdbet(volume)
    np.testing.assert_array_equal(found.mask, brain)
    assert (found.method, found.confidence) == ("hdbet", 1.0)
    assert found.volume_ml == pytest.approx(brain.sum() * 24 / 1000)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("inner", [False, True])
def test_the_weights_may_lie_in_a_folder_of_the_users(install, oblique, tmp_path, monkeypatch, version, inner):
    install(version)
    path = put_weights(tmp_path / "mine", version)
    folder = tmp_path / "mine"
    if inner and version == 2:
        folder = path.parents[1]
    monkeypatch.setenv("HALEBRAIN_HDBET_WEIGHTS", str(folder))
    np.testing.assert_array_equal(extract_by_hdbet(oblique[0]).mask, oblique[1])


@pytest.mark.parametrize("version", [1, 2])
def test_absent_weights_are_said_before_anything_is_run(install, oblique, version):
    install(version, "sys.exit('ran all the same')")
    with pytest.raises(UnavailableError, match=r"hd-bet_params.*HALEBRAIN_HDBET_WEIGHTS.*not downloaded") as caught:
        extract_by_hdbet(oblique[0])
    assert caught.value.exit_code == 69


def test_an_absent_command_is_said(oblique):
    with pytest.raises(UnavailableError, match=r"none on PATH.*pip install hd-bet"):
        extract_by_hdbet(oblique[0])


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("print('x', file=sys.stderr); sys.exit('RuntimeError: out of memory')", "exit code 1: RuntimeError: out of"),
        ("sys.exit(3)", "exit code 3: no message"),
        ("print('it went wrong'); sys.exit(4)", "exit code 4: it went wrong"),
        ("pass", "must write a mask"),
        (THRESHOLD.replace(", image.affine), out", ", np.diag([2.0, 2, 2, 1])), out"), "lie on the grid"),
        (THRESHOLD.replace("> 50", "> 5000"), "got 0 ml from hdbet"),
        (THRESHOLD.replace("> 50", "> -1"), "ml from hdbet"),
    ],
)
def test_what_goes_wrong_is_said_in_one_line(install, oblique, tmp_path, script, message):
    install(2, script)
    put_weights(tmp_path / "home" / "hd-bet_params", 2)
    with pytest.raises(DataError, match=message) as caught:
        extract_by_hdbet(oblique[0])
    assert "head.nii.gz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_program_is_said(tools, oblique):
    path = tools("hd-bet", "")
    path.write_bytes(b"\x00\x01")
    with pytest.raises(UnavailableError, match="program hd-bet must start"):
        extract_by_hdbet(oblique[0])


def test_a_small_mask_is_less_trusted(install, oblique, tmp_path):
    volume, brain = oblique
    data = volume.data.copy()
    data[:, :, 24:] = 0
    install(2)
    put_weights(tmp_path / "home" / "hd-bet_params", 2)
    found = extract_by_hdbet(Volume(data, volume.affine, name="slab.nii.gz"))
    assert 0.2 < found.confidence < 0.9
    assert (brain.sum() * 24 / 1000) > 1.8 * found.volume_ml


@pytest.mark.parametrize("codes", ["RAS", "LIA", "PSR"])
def test_reorienting_keeps_every_voxel_in_its_place(oblique, codes):
    volume, brain = oblique
    turned, to_original = reorient(volume, codes)
    np.testing.assert_array_equal(to_original(turned.data > 50), brain)
    index = np.argwhere(turned.data > 100)[:50]
    values = turned.data[tuple(index.T)]
    world = index @ turned.affine[:3, :3].T + turned.affine[:3, 3]
    back = np.rint(np.linalg.solve(volume.affine[:3, :3], (world - volume.affine[:3, 3]).T).T).astype(int)
    np.testing.assert_array_equal(volume.data[tuple(back.T)], values)
