"""`halebrain adapt`: fine-tune a model's segmenter on a few annotated scans."""

import json
from pathlib import Path
from typing import Annotated

import typer

from halebrain.cli import completion, options
from halebrain.cli.results import Results, command_line, look_at
from halebrain.core.wording import counted


def adapt(
    output: options.Output,
    manifest: options.ManifestPath,
    model: options.ModelPath = None,
    pathology: Annotated[
        list[str] | None,
        typer.Option(
            "--pathology",
            autocompletion=completion.among(*completion.PATHOLOGIES),
            help="Adapt to these diseases only; other annotated scans are scored before and after.",
        ),
    ] = None,
    modality: options.Modalities = None,
    config: options.ConfigPath = None,
    overrides: options.Overrides = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Random seed; the same as seed=.")] = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    overwrite: options.Overwrite = False,
    no_progress: options.NoProgress = False,
    as_json: options.Json = False,
) -> None:
    """Fine-tune a model on a few annotated scans (1 to 20), raw or prepared. The new model is OUTPUT/model.

    Rows of the split "test" take no part; they are scored before and after. Run the same command again to resume.
    """
    options.set_up(threads=threads, no_progress=no_progress)
    from halebrain.adaptation.config import AdaptConfig
    from halebrain.core.config import load_config
    from halebrain.workflows.adapt import AdaptSettings, adapt_model

    given = [*(overrides or []), *([] if seed is None else [f"seed={seed}"])]
    settings = AdaptSettings(
        load_config(AdaptConfig, config, given),
        model=model,
        modalities=tuple(modality or ()),
        pathologies=tuple(pathology or ()),
        device=device,
        overwrite=overwrite,
        notify=options.echo_message,
    )
    _tell(Results("adapt", as_json=as_json), output, adapt_model(manifest, output, settings))


def _tell(results: Results, output: Path, paths: list[Path]) -> None:
    """Print the closing summary: results, paths and next step."""
    for path in paths:
        results.line(path)
    said = json.loads((output / "adaptation.json").read_text(encoding="utf-8"))
    pages = [look_at(path) for path in paths if path.suffix == ".html"]
    results.finish(
        f"adapted in {counted(said['choice']['steps'], 'step')}; before and after: {output / 'adaptation.md'}",
        wrote=[output / "model"],
        then=[*pages, command_line("detect", "-i", "SCAN", "-o", "OUT", "-m", output / "model")],
        document={"output": output, "model": output / "model", "files": paths, **said},
    )
