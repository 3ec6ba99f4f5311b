import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from halebrain.core.config import parse_config
from halebrain.core.errors import CannotWriteError, ConfigError, UsageError
from halebrain.core.parallel import Schedule
from halebrain.core.random import make_generator
from halebrain.io.bids_validator import validation_errors
from halebrain.simulation.acquisition import acquire, sample_acquisition
from halebrain.simulation.anatomy import CSF, GM, VENTRICLE, WM, build_anatomy, sample_anatomy
from halebrain.simulation.config import CohortConfig, check_cohort
from halebrain.simulation.contrast import add_nuisances, render
from halebrain.simulation.contrast_params import aged, sample_contrast
from halebrain.simulation.fields import compose, exponentiate, smooth_vectors
from halebrain.simulation.generate import _people, clear_cohort, generate_cohort
from halebrain.simulation.pathology import PATHOLOGIES, build_lesions, paint, sample_lesions
from halebrain.simulation.stripping import StrippingParams, add_rim, stripped_mask
from halebrain.simulation.subject import SubjectParams, render_subject, sample_subject
from halebrain.workflows.cohort import make_cohort
from halebrain.workflows.settings import CohortSettings

SPACING, SHAPE = 4.0, (48, 48, 40)
SMALL = CohortConfig(healthy=1, patients=1, modalities=("FLAIR",), pathologies=("wmh",), spacing_mm=SPACING)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort") / "a"
    return folder, generate_cohort(folder, SMALL)


@pytest.fixture(scope="module")
def anatomy():
    return build_anatomy(sample_anatomy(make_generator(3)), shape=SHAPE, spacing_mm=SPACING)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes(small, tmp_path):
    folder, _ = small
    generate_cohort(tmp_path / "b", SMALL)
    first, second = contents(folder), contents(tmp_path / "b")
    assert list(first) == list(second)
    assert [name for name in first if first[name] != second[name]] == []
    generate_cohort(tmp_path / "c", SMALL.model_copy(update={"seed": 1, "patients": 0}))
    third = contents(tmp_path / "c")
    image = next(name for name in third if name.endswith("_FLAIR.nii.gz"))
    assert third[image] != first[image]


@pytest.mark.slow
def test_resuming_makes_only_what_is_missing(small, tmp_path):
    folder = tmp_path / "cohort"
    generate_cohort(folder, SMALL)
    kept = folder / "sub-healthy001" / "parameters.json"
    stamp = kept.stat().st_mtime_ns
    lost = folder / "sub-wmh001" / "parameters.json"
    lost.unlink()
    generate_cohort(folder, SMALL)
    assert kept.stat().st_mtime_ns == stamp
    assert contents(folder) == contents(small[0])
    before = contents(folder)
    with pytest.raises(CannotWriteError, match="settings"):
        generate_cohort(folder, SMALL.model_copy(update={"seed": 1}))
    assert contents(folder) == before


def test_clearing_removes_a_cohort_and_nothing_else(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(CannotWriteError):
        clear_cohort(folder)
    assert (folder / "thesis.txt").exists()
    (folder / "dataset_description.json").write_text('{"Name": "my own BIDS data set", "BIDSVersion": "1.8.0"}')
    with pytest.raises(CannotWriteError):
        clear_cohort(folder)
    assert (folder / "thesis.txt").exists()
    (folder / "dataset_description.json").write_text('{"Cohort": {"seed": 0}}')
    clear_cohort(folder)
    assert not folder.exists()
    clear_cohort(folder)


@pytest.mark.parametrize(
    ("name", "text"),
    [("dataset_description.json", '{"Name": "my own BIDS data set"}'), ("manifest.tsv", "subject\timage\n")],
)
def test_another_data_set_is_left_as_it_is(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(CannotWriteError, match=f"{name} of another data set"):
        generate_cohort(tmp_path, SMALL)
    with pytest.raises(CannotWriteError, match=f"{name} of another data set"):
        make_cohort(tmp_path, CohortSettings(subjects=1, patients=0, labels=tmp_path / "no maps"))
    assert contents(tmp_path) == {name: text.encode()}


def test_a_cohort_is_valid_bids(small, validator):
    assert validation_errors(validator, small[0]) == []


@pytest.mark.slow
def test_contrasts_that_bids_has_no_name_for_are_set_aside(tmp_path, validator):
    config = SMALL.model_copy(update={"patients": 0, "modalities": ("random", "T1w")})
    generate_cohort(tmp_path / "cohort", config)
    assert (tmp_path / "cohort" / "T1w.json").is_file()
    assert not (tmp_path / "cohort" / "random.json").exists()
    assert validation_errors(validator, tmp_path / "cohort") == []


def test_a_patient_has_a_healthy_twin_on_the_same_grid(small):
    _, manifest = small
    patients = [r for r in manifest if r.pathology == "wmh"]
    healthy = [r for r in manifest if r.pathology == "healthy"]
    assert len(patients) == len(healthy) == 1
    assert healthy[0].lesion is None
    assert healthy[0].healthy is None
    image, twin, lesion, brain = (
        nib.load(p) for p in (patients[0].image, patients[0].healthy, patients[0].lesion, patients[0].brain_mask)
    )
    assert image.shape == twin.shape == lesion.shape == brain.shape == SHAPE
    np.testing.assert_array_equal(image.affine, twin.affine)
    inside = np.asarray(lesion.dataobj) > 0
    difference = np.asarray(image.dataobj, dtype=float) - np.asarray(twin.dataobj, dtype=float)
    assert difference[inside].mean() > 50  # FLAIR lesions are bright
    assert not np.asarray(image.dataobj)[np.asarray(brain.dataobj) == 0].any()


def test_what_a_healthy_flair_shows_beside_the_ventricles_and_in_limbic_cortex_is_fainter_than_a_lesion():
    drawn = [sample_contrast("FLAIR", make_generator(n), variety="wide") for n in range(200)]
    lesion = 0.5 * 0.5  # what half of the water of oedema adds on FLAIR
    assert max(c.cap * c.means[1] for c in drawn) < lesion
    old = [aged(c, 85, make_generator(n)) for n, c in enumerate(drawn)]
    assert max(c.cap * (1 + c.horn) * c.means[1] for c in old) < 1.1 * lesion
    assert max(c.limbic * c.means[1] for c in drawn) < lesion / 2
    assert max(c.unevenness * c.means[0] for c in drawn) < lesion / 4


def ventricles_ml(params):
    anatomy = build_anatomy(params, shape=SHAPE, spacing_mm=SPACING)
    return float(anatomy.tissues[VENTRICLE].sum()) * SPACING**3 / 1000


def test_ventricles_of_healthy_people_reach_from_15_to_150_ml_and_the_widest_are_those_of_old_people():
    old = [sample_anatomy(make_generator(n), age_range=(75, 85)) for n in range(400)]
    young = [sample_anatomy(make_generator(n), age_range=(20, 50)) for n in range(400)]
    widest, narrowest = max(old, key=lambda p: p.ventricle_mm), min(young, key=lambda p: p.ventricle_mm)
    assert 90 < ventricles_ml(widest) < 170
    assert 10 < ventricles_ml(narrowest) < 22
    assert np.median([p.ventricle_mm for p in old]) < 3.5  # the others are as most people of that age
    assert max(p.ventricle_mm for p in young) < 4


def test_old_people_have_caps_and_bands_beside_the_ventricles_and_young_ones_do_not():
    drawn = sample_contrast("FLAIR", make_generator(1), variety="wide").model_copy(update={"cap": 0.1})
    assert aged(drawn, 59, make_generator(1)) == drawn
    old = aged(drawn, 80, make_generator(1))
    assert (old.cap > 0.1, 3 < old.cap_mm <= 5, 0 < old.horn <= 0.3) == (True, True, True)
    t1 = sample_contrast("T1w", make_generator(1))
    assert aged(t1, 80, make_generator(1)) == t1  # nothing is bright there
    anatomy = build_anatomy(sample_anatomy(make_generator(3)), shape=SHAPE, spacing_mm=SPACING)
    added = render(anatomy, old) - render(anatomy, old.model_copy(update={"cap": 0.0}))
    y = anatomy.positions_mm()[1]
    frontal, beside = (added[(y > low) & (y < high)].max() for low, high in ((12, 30), (-10, 10)))
    assert frontal > 0.03
    assert float(added[anatomy.ventricle_distance_mm > 15].abs().max()) < 1e-3
    assert beside > 0


def test_people_are_split_as_asked_for(tmp_path):
    settings = CohortSettings(subjects=4, patients=0, modalities=("T1w",), spacing_mm=4.0, split="0,0.25,0.75")
    made = make_cohort(tmp_path / "a", settings)
    assert sorted(record.split for record in made.manifest) == ["test", "test", "test", "val"]
    for wrong, error in (("0.5,0.5", UsageError), ("some,of,them", UsageError), ("0.5,0.2,0.2", ConfigError)):
        with pytest.raises(error):
            make_cohort(tmp_path / "b", replace(settings, split=wrong))
    assert not (tmp_path / "b").exists()


def test_ages_are_drawn_from_the_range_that_is_asked_for():
    config = SMALL.model_copy(update={"ages": (66.0, 69.0)})
    for pathology in ("healthy", "ms"):
        assert 66 <= sample_subject(f"{pathology}001", pathology, config).anatomy.age <= 69
    with pytest.raises(UsageError, match="ages are two numbers"):
        check_cohort(SMALL.model_copy(update={"ages": (90.0, 65.0)}))


@pytest.mark.slow
@pytest.mark.parametrize("pathology", PATHOLOGIES.names())
def test_lesions_lie_in_the_brain_and_parameters_rebuild_the_images(pathology):
    config = CohortConfig(modalities=("T1w", "FLAIR"), spacing_mm=SPACING)
    params = sample_subject(f"{pathology}001", pathology, config)
    images = render_subject(params, spacing_mm=SPACING)
    assert images.lesion.any()
    assert not (images.lesion & ~images.brain_mask).any()
    assert int(images.lesion.sum()) < 0.5 * int(images.brain_mask.sum())
    again = SubjectParams.model_validate(json.loads(params.model_dump_json()))
    assert again == params
    rebuilt = render_subject(again, spacing_mm=SPACING)
    assert torch.equal(images.lesion, rebuilt.lesion)
    for modality in config.modalities:
        assert torch.equal(images.scans[modality], rebuilt.scans[modality])
        assert torch.equal(images.healthy[modality], rebuilt.healthy[modality])
        assert torch.isfinite(images.scans[modality]).all()
        assert not images.scans[modality][~images.brain_mask].any()


@pytest.mark.parametrize("pathology", PATHOLOGIES.names())
def test_nothing_changes_outside_the_lesion(pathology):
    params = sample_subject(f"{pathology}002", pathology, CohortConfig(modalities=("FLAIR",), spacing_mm=SPACING))
    # A scanner's blur and ghosts carry a lesion further than its extent, and a mass pushes everything.
    sharp = {"blur_mm": 0.0, "thickness_mm": 1.0, "ghost": 0.0}
    params = params.model_copy(
        update={
            "lesions": params.lesions.model_copy(update={"push_mm": 0.0}),
            "acquisitions": tuple(a.model_copy(update=sharp) for a in params.acquisitions),
        }
    )
    images = render_subject(params, spacing_mm=SPACING)
    reached = torch.zeros(SHAPE)
    for part in build_lesions(images.anatomy, params.lesions):
        reached[part.box] = torch.maximum(reached[part.box], part.extent)
    difference = (images.scans["FLAIR"] - images.healthy["FLAIR"]).abs()
    outside = (reached < 1e-4) & images.brain_mask
    assert outside.sum() > 0.1 * images.brain_mask.sum()
    assert difference[outside].max() < 5e-3
    assert torch.equal(difference[reached == 0], torch.zeros_like(difference[reached == 0]))
    assert difference[images.lesion].mean() > 0.03


def test_a_tumour_pushes_the_tissue_around_it():
    params = sample_subject("tumour003", "tumour", CohortConfig(modalities=("T1w",), spacing_mm=SPACING))
    assert params.lesions.push_mm > 0
    still = params.model_copy(update={"lesions": params.lesions.model_copy(update={"push_mm": 0.0})})
    pushed, unpushed = (render_subject(p, spacing_mm=SPACING) for p in (params, still))
    away = ~(pushed.lesion | unpushed.lesion) & pushed.brain_mask
    assert (pushed.scans["T1w"] - unpushed.scans["T1w"])[away].abs().max() > 0.05
    assert torch.equal(pushed.healthy["T1w"], unpushed.healthy["T1w"])


def test_a_warp_is_undone_by_its_inverse():
    velocity = 2 * smooth_vectors(SHAPE, wavelength_mm=45, spacing_mm=SPACING, seed=0)  # the largest that is drawn
    there, back = exponentiate(velocity, SPACING), exponentiate(-velocity, SPACING)
    assert there.norm(dim=0).mean() > 1.5
    left = compose(there, back, SPACING)[:, 6:-6, 6:-6, 6:-6].norm(dim=0)
    assert left.mean() < 0.05 * there.norm(dim=0).mean()
    assert left.max() < SPACING / 4  # trilinear interpolation; halves with the spacing


def test_tissues_share_the_brain(anatomy):
    total = anatomy.tissues.sum(dim=0)
    torch.testing.assert_close(total[anatomy.brain_mask], torch.ones(int(anatomy.brain_mask.sum())), atol=1e-3, rtol=0)
    assert not total[~anatomy.brain_mask].any()
    assert anatomy.tissues.min() >= 0
    litres = float(anatomy.brain_mask.sum()) * SPACING**3 / 1e6
    assert 1.2 < litres < 2.4


@pytest.mark.slow
def test_ventricles_widen_with_their_parameter_and_with_age():
    params = sample_anatomy(make_generator(1))

    def volume(p):
        return float(build_anatomy(p, shape=SHAPE, spacing_mm=SPACING).tissues[VENTRICLE].sum()) * SPACING**3 / 1000

    narrow, middle, wide = (volume(params.model_copy(update={"ventricle_mm": mm})) for mm in (-1.0, 1.5, 4.0))
    assert narrow < middle < wide
    assert wide > 1.3 * narrow
    young, old = (
        sum(volume(sample_anatomy(make_generator(n), age_range=ages)) for n in range(4))
        for ages in ((20, 25), (80, 85))
    )
    assert old > 1.15 * young


@pytest.mark.parametrize(
    ("modality", "order"), [("T1w", ("wm", "gm", "csf")), ("T2w", ("csf", "gm", "wm")), ("FLAIR", ("gm", "wm", "csf"))]
)
def test_tissues_have_the_contrast_of_the_modality(anatomy, modality, order):
    fluid = anatomy.tissues[CSF] + anatomy.tissues[VENTRICLE]
    where = {"wm": anatomy.tissues[WM] > 0.8, "gm": anatomy.tissues[GM] > 0.8, "csf": fluid > 0.8}
    means = dict.fromkeys(where, 0.0)
    for seed in range(6):
        image = render(anatomy, sample_contrast(modality, make_generator(seed)))
        for tissue, mask in where.items():
            means[tissue] += float(image[mask].mean()) / 6
    values = [means[tissue] for tissue in order]
    assert values[0] > 1.1 * values[1] > 1.2 * values[2], means


def test_a_tissue_map_decides_the_image(anatomy):
    contrast = sample_contrast("T1w", make_generator(0))
    swapped = replace(anatomy, tissues=anatomy.tissues[[GM, WM, 2, 3, 4]])
    white = anatomy.tissues[WM] > 0.8
    assert render(swapped, contrast)[white].mean() < 0.8 * render(anatomy, contrast)[white].mean()


@pytest.mark.slow
def test_subjects_are_split_within_each_group(tmp_path):
    config = CohortConfig(healthy=6, patients=4, modalities=("T1w", "FLAIR"), pathologies=("wmh",), spacing_mm=SPACING)
    manifest = generate_cohort(tmp_path / "cohort", config)
    splits = {}
    for record in manifest:
        splits.setdefault(record.pathology, {}).setdefault(record.subject, set()).add(record.split)
    assert {group: len(people) for group, people in splits.items()} == {"healthy": 6, "wmh": 4}
    for people in splits.values():
        assert all(len(seen) == 1 for seen in people.values())
        count = [next(iter(seen)) for seen in people.values()]
        assert (count.count("val"), count.count("test")) == (1, 1)
        assert count.count("train") == len(people) - 2


@pytest.mark.parametrize(
    ("update", "closest"), [({"pathologies": ("strok",)}, "stroke"), ({"modalities": ("FLAIRE",)}, "FLAIR")]
)
def test_an_unknown_name_is_refused_with_the_closest_one(tmp_path, update, closest):
    with pytest.raises(UsageError) as error:
        generate_cohort(tmp_path / "cohort", SMALL.model_copy(update=update))
    assert f"did you mean '{closest}'" in str(error.value)
    assert not (tmp_path / "cohort").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"split_fractions": (0.6, 0.8, 0.8)},
        {"split_fractions": (0.2, 0.15, 0.15)},
        {"split_fractions": (1.2, -0.1, -0.1)},
        {"healthy": -3},
        {"patients": -1},
        {"spacing_mm": 0},
    ],
)
def test_numbers_that_no_cohort_can_keep_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        parse_config(CohortConfig, settings, where="test")


def test_a_prefix_makes_other_people_of_other_names():
    own = sample_subject("wmh001", "wmh", SMALL)
    other = sample_subject("secondwmh001", "wmh", SMALL)
    assert own.anatomy != other.anatomy
    assert sorted(_people(SMALL.model_copy(update={"prefix": "second"}))) == ["secondhealthy001", "secondwmh001"]


def test_a_prefix_that_no_file_name_takes_is_refused(tmp_path):
    with pytest.raises(UsageError, match="letters and digits"):
        generate_cohort(tmp_path / "cohort", SMALL.model_copy(update={"prefix": "a_b"}))
    assert not (tmp_path / "cohort").exists()


def test_a_cohort_of_nobody_is_refused(tmp_path):
    with pytest.raises(UsageError, match="at least one subject"):
        generate_cohort(tmp_path / "cohort", SMALL.model_copy(update={"healthy": 0, "patients": 0}))


@pytest.mark.slow
def test_processes_make_the_same_files(small, tmp_path):
    folder, _ = small
    generate_cohort(tmp_path / "b", SMALL, Schedule(workers=2))
    assert contents(tmp_path / "b") == contents(folder)


def test_a_wide_cohort_draws_the_same_brains_and_lesions():
    usual = sample_subject("wmh001", "wmh", SMALL)
    wide = sample_subject("wmh001", "wmh", SMALL.model_copy(update={"variety": "wide"}))
    assert (wide.anatomy, wide.lesions) == (usual.anatomy, usual.lesions)
    assert usual.stripping is None
    assert wide.stripping is not None
    assert wide.contrasts != usual.contrasts
    assert SubjectParams.model_validate_json(wide.model_dump_json()) == wide


@pytest.mark.slow
def test_a_wide_scan_lies_in_its_imperfect_mask_and_so_does_its_lesion():
    config = SMALL.model_copy(update={"variety": "wide", "modalities": ("T1w", "T2w", "FLAIR", "random")})
    for number in range(6):
        images = render_subject(sample_subject(f"wmh{number}", "wmh", config), spacing_mm=SPACING)
        assert not (images.lesion & ~images.brain_mask).any()
        for scans in (images.scans, images.healthy):
            assert list(scans) == list(config.modalities)
            for image in scans.values():
                assert image.isfinite().all()
                assert image.min() >= 0
                assert not image[~images.brain_mask].any()


def test_a_mask_without_errors_is_the_brain(anatomy):
    perfect = StrippingParams(offset_mm=0, roughness_mm=0, rim=0.5, seed=1)
    assert torch.equal(stripped_mask(anatomy, perfect), anatomy.brain_mask)
    wider = stripped_mask(anatomy, perfect.model_copy(update={"offset_mm": SPACING}))
    assert (wider & ~anatomy.brain_mask).any()
    assert not (anatomy.brain_mask & ~wider).any()
    z = torch.from_numpy(anatomy.grid.affine).float()[2, 3] + SPACING * torch.arange(SHAPE[2])
    cut = stripped_mask(anatomy, perfect.model_copy(update={"top_mm": 40.0}))
    assert torch.equal(cut, anatomy.brain_mask & (z <= 40))


def test_no_mask_is_larger_than_readers_take(anatomy):
    brain_ml = int(anatomy.brain_mask.sum()) * SPACING**3 / 1000
    far = StrippingParams(offset_mm=7, roughness_mm=0, rim=0.5, seed=1)
    mask = stripped_mask(anatomy, far)
    assert brain_ml < int(mask.sum()) * SPACING**3 / 1000 <= 2400
    assert not (anatomy.brain_mask & ~mask).any()
    giant = replace(anatomy, brain_mask=torch.ones_like(anatomy.brain_mask))
    assert int(stripped_mask(giant, far).sum()) * SPACING**3 / 1000 <= 2400


def test_the_rim_is_outside_the_brain_alone(anatomy):
    image = torch.rand(SHAPE, generator=make_generator(4))
    rim = add_rim(image, anatomy, StrippingParams(offset_mm=2, roughness_mm=0, rim=0.5, seed=1), brightest=1.0)
    assert torch.equal(rim[anatomy.brain_mask], image[anatomy.brain_mask])
    assert rim[~anatomy.brain_mask].mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("name", "tissues"), [("choroid", [VENTRICLE]), ("septum", [VENTRICLE]), ("limbic", [GM])])
def test_what_fools_detectors_is_where_it_belongs(anatomy, name, tissues):
    plain = sample_contrast("FLAIR", make_generator(2))
    before, after = render(anatomy, plain), render(anatomy, plain.model_copy(update={name: 1.0}))
    changed = (after - before).abs() > 0.05
    assert changed.any()
    assert (anatomy.tissues[tissues].sum(dim=0)[changed] > 0.01).all()


def test_vessels_take_the_signal_of_csf_and_only_that(anatomy):
    plain = sample_contrast("T2w", make_generator(2))
    change = render(anatomy, plain.model_copy(update={"voids": 1.0})) - render(anatomy, plain)
    assert change.max() <= 1e-6
    assert change.min() < -0.5 * plain.means[CSF]
    assert (anatomy.tissues[CSF][change < -0.05] > 0.01).all()


def test_what_is_left_around_a_brain_is_darkest_in_t2():
    drawn = {m: [sample_contrast(m, make_generator(n), variety="wide") for n in range(40)] for m in ("T1w", "T2w")}
    assert {params.rim_brightness for params in drawn["T1w"]} == {1.0}
    assert np.mean([params.rim_brightness for params in drawn["T2w"]]) < 0.5
    assert all(0 <= params.voids <= 1 for params in drawn["T2w"])


def test_nothing_is_added_at_strength_zero(anatomy):
    plain = sample_contrast("T2w", make_generator(2))
    image = torch.rand(SHAPE, generator=make_generator(4))
    assert torch.equal(add_nuisances(image, anatomy, plain), image)


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("modality", ["T1w", "T2w", "FLAIR"])
def test_the_order_of_tissues_is_the_modalitys_in_every_wide_contrast(modality, number):
    wm, gm, _, csf, ventricle = sample_contrast(modality, make_generator(number), variety="wide").means
    expected = {"T1w": csf < gm < wm, "T2w": wm < gm < csf <= ventricle, "FLAIR": ventricle < csf < wm < gm}
    assert expected[modality]


def test_ringing_and_motion_leave_the_mean_and_a_still_image_as_it_is():
    image = 0.2 + torch.rand(24, 20, 6, generator=make_generator(1))
    mask = torch.ones(24, 20, 6, dtype=torch.bool)
    still = sample_acquisition("T1w", 0, make_generator(0)).model_copy(
        update={"thickness_mm": 1.0, "blur_mm": 0.0, "bias": 0.0, "noise": 0.0, "ghost": 0.0, "rim": 0.0}
    )
    torch.testing.assert_close(acquire(image, mask, still, 2.0), image)
    for name in ("ringing", "motion"):
        altered = acquire(image, mask, still.model_copy(update={name: 0.4}), 2.0)
        assert (altered - image).abs().max() > 1e-3
        torch.testing.assert_close(altered.mean(), image.mean(), rtol=1e-2, atol=0)


def test_blood_turns_the_change_over_and_a_solid_mass_looks_grey(anatomy):
    contrast = sample_contrast("T2w", make_generator(1))
    lesions = sample_lesions("mass", anatomy, make_generator(3))
    part = next(p for p in lesions.parts if p.solid > 0).model_copy(update={"texture": 0.0, "fluid": 0.0, "water": 0.5})
    image = torch.full(SHAPE, 0.5)

    def painted(**changes):
        parts = build_lesions(anatomy, lesions.model_copy(update={"parts": (part.model_copy(update=changes),)}))
        inside = parts[0].extent > 0.9
        return paint(image, parts, contrast, anatomy, sign=1)[parts[0].box][inside]

    assert (painted(solid=0.0, looks=(1.0, 1.0, 1.0)) > 0.5).all()
    assert (painted(solid=0.0, looks=(1.0, -1.0, 1.0)) < 0.5).all()
    assert painted(solid=1.0).median() == pytest.approx(contrast.means[GM], abs=0.03)
