"""The quality table: one line a scan, whichever version prepared it."""

from dataclasses import replace
from pathlib import Path

from halebrain.data.prepared_set import PreparedEntry, lesion_lost, quality_entries, write_quality_table
from halebrain.io.manifest import ScanRecord
from halebrain.preprocessing.prepared import prepared_files


def entry(name, figure, value):
    record = ScanRecord(subject=name, image=Path(f"{name}.nii.gz"), modality="FLAIR")
    quality = {"figures": {figure: value, "snr": 20.0}, "flags": [], "histogram": [0.5, 0.5]}
    return PreparedEntry(record, prepared_files(Path("set"), record), {"quality": quality})


def test_the_overlap_of_earlier_versions_has_its_name_of_today(tmp_path):
    entries = [entry("old", "registration_mask_dice", 0.91), entry("new", "working_grid_mask_dice", 0.95)]
    write_quality_table(quality_entries(entries), tmp_path / "qc.tsv")
    header, *lines = [line.split("\t") for line in (tmp_path / "qc.tsv").read_text().splitlines()]
    assert header[:4] == ["scan", "modality", "working_grid_mask_dice", "snr"]
    assert [line[:4] for line in lines] == [
        ["sub-new_FLAIR", "FLAIR", "0.95", "20"],
        ["sub-old_FLAIR", "FLAIR", "0.91", "20"],
    ]


def test_a_scan_prepared_before_a_figure_existed_lacks_it_alone(tmp_path):
    older, newer = entry("old", "working_grid_mask_dice", 0.91), entry("new", "working_grid_mask_dice", 0.95)
    newer.sidecar["quality"]["figures"] |= {"lesion_volume_ml": 4.0, "lesion_outside_grid": 0.25}
    for order in ([older, newer], [newer, older]):
        quality = quality_entries(order)
        write_quality_table(quality, tmp_path / "qc.tsv")
        header, *lines = [line.split("\t") for line in (tmp_path / "qc.tsv").read_text().splitlines()]
        assert [dict(zip(header, line, strict=True))["lesion_outside_grid"] for line in lines] == ["0.25", "n/a"]
        assert lesion_lost(quality) == (4.0, 1.0, 1)


def test_words_for_one_contrast_are_compared_together():
    entries = [entry(f"s{n}", "working_grid_mask_dice", 0.9 + 0.001 * n) for n in range(10)]
    entries.append(entry("odd", "working_grid_mask_dice", 0.2))
    entries[-1] = replace(entries[-1], raw=replace(entries[-1].raw, modality="flair"))
    flagged = [quality for quality in quality_entries(entries) if quality.flags]
    assert [quality.entry.raw.subject for quality in flagged] == ["odd"]


def test_an_image_under_two_names_is_flagged_in_both():
    one, two, other = (entry(name, "working_grid_mask_dice", 0.9) for name in ("one", "two", "other"))
    for each, content in ((one, "a"), (two, "a"), (other, "b")):
        each.sidecar["identity"] = {"image_sha256": content}
    flags = {quality.entry.raw.subject: quality.flags for quality in quality_entries([one, two, other])}
    assert flags == {
        "one": ("the same image as sub-two_FLAIR: check which is meant",),
        "two": ("the same image as sub-one_FLAIR: check which is meant",),
        "other": (),
    }
