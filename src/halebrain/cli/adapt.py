"""`halebrain adapt`: fine-tune a model's segmenter on a few annotated scans."""

import json

from halebrain.cli.console import Console
from halebrain.cli.options import from_settings
from halebrain.cli.results import command_line, look_at
from halebrain.core.wording import counted
from halebrain.workflows.settings import AdaptSettings, ManifestPath, Option, Output, SchedulerSettings


@from_settings(
    scheduler={
        "workers": Option(
            "Number of raw scans that are prepared in parallel, one process each; default: one after the other.",
            minimum=0,
        )
    }
)
def adapt(
    output: Output, manifest: ManifestPath, settings: AdaptSettings, scheduler: SchedulerSettings, console: Console
) -> None:
    """Fine-tune a model on a few annotated scans (1 to 20), raw or prepared. The new model is OUTPUT/model.

    Rows of the split "test" take no part; they are scored before and after. Run the same command again to resume.
    """
    results = console.begin("adapt")
    from halebrain.workflows.adapt import adapt_model

    paths = adapt_model(manifest, output, settings, schedule=scheduler.schedule(output, threads=console.threads))
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
