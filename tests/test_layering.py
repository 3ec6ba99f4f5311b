import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "halebrain"
ALLOWED = {
    "core": set(),
    "io": {"core"},
    "preprocessing": {"core", "io"},
    "simulation": {"core", "io", "preprocessing"},
    "data": {"core", "io", "preprocessing", "simulation"},
    "models": {"core"},
    "training": {"core", "io", "data", "models"},
    "inference": {"core", "io", "preprocessing", "models"},
    "evaluation": {"core", "io"},
    "thresholds": {"core", "data", "models", "inference", "evaluation"},
    "report": {"core", "io", "evaluation", "thresholds"},
    "benchmarking": {
        *("core", "io", "preprocessing", "simulation", "data", "models", "training", "inference", "evaluation"),
        "thresholds",
    },
    "adaptation": {
        *("core", "io", "preprocessing", "simulation", "data", "models", "training", "inference", "evaluation"),
        "thresholds",
    },
    # A folder of detections in a browser; what makes pages anew is handed to it.
    "view": {"core", "io", "inference", "report"},
    # The work of each command; it neither parses options nor prints.
    "workflows": {
        *("core", "io", "preprocessing", "simulation", "data", "models", "training", "inference", "evaluation"),
        *("thresholds", "benchmarking", "adaptation", "report"),
    },
    # The Python face, one file at the top beside the command line.
    "api": {"core", "io", "preprocessing", "models", "inference", "workflows"},
    # Parses, calls one workflow, tells; names of models are all that it looks up itself.
    "cli": {"core", "io", "models", "evaluation", "report", "view", "workflows"},
}
MODULES = sorted(SOURCE.rglob("*.py"))


def imported(path):
    """Return every halebrain module that a file imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("halebrain"):
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name.startswith("halebrain")}
    return names


def module_name(path):
    parts = ["halebrain", *path.relative_to(SOURCE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_down_only(path):
    floor = path.relative_to(SOURCE).with_suffix("").parts[0]
    if floor == "__init__":
        # Names of the Python face are fetched from it on first use, and from nowhere else.
        assert {name.split(".")[1] for name in imported(path) if "." in name} == {"api"}
        return
    if floor == "__main__":
        assert imported(path) == {"halebrain.cli.main", "halebrain.cli.main.main"}
        return
    used = {name.split(".")[1] for name in imported(path) if name.count(".") >= 1}
    used &= set(ALLOWED)
    assert used - ALLOWED[floor] - {floor} == set()


@pytest.mark.parametrize("path", [p for p in MODULES if "workflows" in p.parts], ids=lambda p: p.stem)
def test_a_workflow_neither_parses_options_nor_prints(path):
    """Nor does it end the process: messages go through the callable that its caller gives, errors are raised."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.partition(".")[0] for name in names} & {"typer", "click", "rich", "argparse"}, names
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in {"print", "exit", "quit", "sys.exit", "os._exit"}
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) not in {"sys.stdout", "sys.stderr"}


def test_the_picture_of_the_house_in_contributing_is_true():
    text = (SOURCE.parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    pictured = dict(re.findall(r"^[├└]── (\w+).* ← (.+)$", text, flags=re.MULTILINE))
    rooms = list(pictured)

    def named(words):
        first, _, last = words.partition(" to ")
        return set(rooms[rooms.index(first) : rooms.index(last) + 1]) if last else set(words.split()) - {"nothing"}

    assert {room: named(words) for room, words in pictured.items()} == ALLOWED


def test_there_is_no_import_cycle():
    known = {module_name(path): path for path in MODULES}
    # A package's __init__ gathers its own modules; the cycle that matters is between modules.
    graph = {
        name: {m for m in imported(path) if m in known and known[m].name != "__init__.py"}
        for name, path in known.items()
        if path.name != "__init__.py"
    }
    done, active = set(), []

    def visit(name):
        assert name not in active, f"cycle: {' → '.join([*active[active.index(name) :], name])}"
        if name in done:
            return
        active.append(name)
        for other in sorted(graph[name]):
            visit(other)
        active.pop()
        done.add(name)

    for name in sorted(graph):
        visit(name)


def test_no_module_has_a_name_that_says_nothing():
    assert not [path for path in MODULES if path.stem in {"utils", "helpers", "common", "misc"}]


OPENERS = {"load", "ReadImage", "from_filename", "from_file_map", "from_stream", "ImageFileReader", "dcmread"}
"""What opens an image in nibabel, SimpleITK, ITK, nilearn, ANTs and pydicom."""
OPENING = {"nibabel", "nib", "SimpleITK", "sitk", "itk", "pydicom", "ants", "Nifti1Image", "nilearn", "load_img"}


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p.relative_to(SOURCE).parts[0] != "io"], ids=lambda p: str(p.relative_to(SOURCE))
)
def test_images_are_opened_in_io_alone(path):
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Attribute)
            and node.attr in OPENERS
            and ast.unparse(node.value).split(".")[0] in OPENING
        ):
            found.append(ast.unparse(node))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OPENING:
            found += [alias.name for alias in node.names if alias.name in OPENERS]
    assert found == []


def test_values_of_masks_are_judged_in_one_place():
    """Whoever reads an image does not decide by himself what of it is mask."""
    for path in MODULES:
        text = path.read_text()
        assert not re.search(
            r"(read_array|read_map|read_volume|read_on_grid)\([^\n]*\)(\[0\])?(\.data)? *[>!]", text
        ), path


@pytest.mark.parametrize("module", ["halebrain", "halebrain.cli.main"])
def test_the_package_and_the_command_line_load_no_heavy_library(module):
    heavy = ["torch", "SimpleITK", "nilearn", "lightning_fabric", "matplotlib", "nibabel", "scipy"]
    heavy += ["pydantic", "pydicom"]
    code = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.slow
def test_detection_loads_the_drawing_library_with_its_first_picture():
    code = "import sys, halebrain.workflows.detect; print('matplotlib' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def registered_in(path):
    """Return the names under which a file registers parts, by its decorators."""
    decorators = [
        decorator
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
        for decorator in node.decorator_list
    ]
    return [
        call.args[0].value
        for call in decorators
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "register"
    ]


@pytest.mark.parametrize(
    ("folder", "exempt"),
    [
        ("models/reconstruction", {"base"}),
        ("data/anomalies", {"base", "shapes"}),
        ("data/datasets", {"base", "patterns", "tables"}),
        ("preprocessing/brain", {"base", "command", "prior", "head", "surface", "synthstrip_network"}),
    ],
)
def test_every_extension_file_is_registered_under_its_name(folder, exempt):
    """A file of one part has its name; a family of parts in one file registers each, and nothing else registers any."""
    from halebrain.data.anomalies import ANOMALIES
    from halebrain.data.datasets import SOURCES
    from halebrain.models.reconstruction import RECONSTRUCTORS
    from halebrain.preprocessing.brain import BRAIN_EXTRACTORS

    registry = {
        "models/reconstruction": RECONSTRUCTORS,
        "data/anomalies": ANOMALIES,
        "data/datasets": SOURCES,
        "preprocessing/brain": BRAIN_EXTRACTORS,
    }[folder]
    files = {path.stem: registered_in(path) for path in (SOURCE / folder).glob("*.py") if path.stem != "__init__"}
    assert {stem for stem, names in files.items() if not names} == exempt
    assert [(stem, names) for stem, names in files.items() if len(names) == 1 and names != [stem]] == []
    assert sorted(name for names in files.values() for name in names) == registry.names()
    for stem, names in files.items():
        assert {registry.get(name).__module__.rpartition(".")[2] for name in names} <= {stem}


JSON_AND_SETTINGS = {
    # JSON is written or read there, or handed to a user as dictionaries.
    "api.py ExamPrediction.provenance",
    "api.py Prediction.qc",
    "api.py Prediction.provenance",
    "api.py Reconstruction.qc",
    "benchmarking/judge.py CellResult.provenance",
    "benchmarking/judge.py CellResult.from_json",
    "cli/results.py Results.finish",
    "data/prepare.py describe",
    "data/prepared_set.py PreparedEntry.sidecar",
    "inference/exam_outputs.py DetectedExam.to_json",
    "inference/outputs.py filled_sidecar",
    "inference/outputs.py sidecars",
    "models/bundle_files.py checked_files",
    "models/bundle_files.py sealed_text",
    "models/bundle_files.py store_calibration",
    "models/bundle_files.py store_scoring",
    "models/encoder_file.py PretrainedEncoder.training",
    "models/encoder_file.py save_encoder",
    "models/healthy_map.py HealthyResiduals.about",
    "preprocessing/prepared.py write_prepared",
    "preprocessing/prepared.py update_sidecar",
    "preprocessing/prepared.py read_sidecar",
    "report/embedding.py ShownVolume.about",
    "report/embedding.py decode",
    "report/embedding.py read_page",
    "view/scan.py ViewedScan.review",
    "view/visit.py Visit.change",
    "view/visit.py scan_page",
    "workflows/demo.py JudgedScan.document",
    "workflows/detect.py DetectedScan.to_json",
    "workflows/doctor.py examine",
    "workflows/fill.py FilledExam.to_json",
    "workflows/fill.py FilledScan.to_json",
    # Settings of a part that is chosen by name, as a YAML file has them; and what a template draws.
    "adaptation/run.py adapted_about",
    "data/anomalies/base.py AnomalySpec.settings",
    "data/anomalies/shapes.py drawn",
    "data/anomalies/shapes.py column",
    "data/datasets/base.py Source.with_modality",
    "data/datasets/base.py build_source",
    "data/datasets/base.py read_source",
    "data/datasets/bids.py BidsSource.with_modality",
    "data/datasets/folder.py FolderSource.with_modality",
    "data/datasets/publishers.py MoodSource.with_modality",
    "data/datasets/table.py TableSource.with_modality",
    "data/datasets/tables.py age_and_sex",
    "models/reconstruction/base.py ReconstructorSpec.settings",
    "models/bundle.py ModelConfig.preprocessing",
    "models/bundle.py ModelConfig.postprocessing",
    "models/bundle.py Bundle.training",
    "models/bundle.py Bundle.calibration",
    "models/reconstruction/base.py build_reconstructor",
    "report/dot_plot.py dot_plot",
    "report/matrix_page.py write_matrix_page",
    "report/page.py Page.provenance",
    "training/encoder.py EncoderRun.summary",
    "training/joint.py JointTraining.postprocessing",
    "training/runs.py run_stage",
    "training/segmenter_config.py SegmenterTraining.postprocessing",
}
"""Public names outside `core` and `io` whose signature holds a dictionary of anything."""


def holds_anything(annotation):
    return annotation is not None and re.search(r"(dict|Mapping)\[str, Any\]", ast.unparse(annotation)) is not None


def untyped_names(body, owner=""):
    """Yield the public functions, methods and fields of a module with a dictionary of anything in their signature."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for part in node.body:
                if isinstance(part, ast.AnnAssign) and holds_anything(part.annotation):
                    name = ast.unparse(part.target)
                    if not name.startswith("_"):
                        yield f"{node.name}.{name}"
            yield from untyped_names(node.body, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            if any(map(holds_anything, [*(one.annotation for one in arguments), node.returns])):
                yield owner + node.name


def test_dictionaries_of_anything_stay_where_json_is_written_and_read():
    found = {
        f"{path.relative_to(SOURCE).as_posix()} {name}"
        for path in MODULES
        if path.relative_to(SOURCE).parts[0] not in ("core", "io")
        for name in untyped_names(ast.parse(path.read_text()).body)
    }
    assert found - JSON_AND_SETTINGS == set(), "give it a type, or say above what JSON it is"
    assert JSON_AND_SETTINGS - found == set(), "it has a type now"
