"""The four diseases of the virtual cohort: how many lesions, where, how large, and how they look."""

import torch

from halebrain.simulation.anatomy import DEEP, GM, WM, Anatomy
from halebrain.simulation.pathology import (
    PATHOLOGIES,
    LesionParams,
    PartParams,
    draw_sign,
    new_part,
    pick_point,
    uniform,
)


@PATHOLOGIES.register("ms")
def sample_ms(anatomy: Anatomy, generator: torch.Generator) -> LesionParams:
    """Draw multiple sclerosis: many small ovoid lesions, most of them periventricular, of very different contrast."""
    white = anatomy.tissues[WM]
    ventricle, depth = anatomy.ventricle_distance_mm, anatomy.surface_distance_mm
    # Periventricular, juxtacortical and deep white matter; the numbers below are the shares of the first two.
    places = (
        white * (ventricle < 12) * (ventricle > 1),
        white * (depth < 14) * (depth > 5),
        white * (ventricle > 8) * (depth > 10),
    )
    severity = uniform(generator, 0.65, 1.15)
    parts = []
    for _ in range(int(uniform(generator, 10, 50))):
        kind = uniform(generator, 0, 1)
        weight = places[0 if kind < 0.55 else 1 if kind < 0.75 else 2]
        radius = min(9.0, 2.3 * float(torch.exp(0.5 * torch.randn((), generator=generator))) + 1.0)
        long = uniform(generator, 1.0, 2.0)
        parts.append(
            new_part(
                generator,
                kind="blob",
                centre_mm=pick_point(weight, anatomy, generator),
                # Dawson's fingers stand at right angles to the ventricles, which is mostly left–right.
                radii_mm=(radius * long, radius * uniform(generator, 0.8, 1.4), radius),
                irregularity=uniform(generator, 0.15, 0.45),
                softness_mm=uniform(generator, 0.5, 1.1),
                water=severity * uniform(generator, 0.5, 1.2),
                texture=uniform(generator, 0.05, 0.3),
                avoid_grey=uniform(generator, 0.0, 0.6),
            )
        )
    return LesionParams(pathology="ms", parts=tuple(parts), sign=draw_sign(generator))


@PATHOLOGIES.register("wmh")
def sample_wmh(anatomy: Anatomy, generator: torch.Generator) -> LesionParams:
    """Draw white-matter hyperintensities: bands at the horns of the ventricles, confluent patches, and dots."""
    severity = uniform(generator, 0.7, 1.2)
    parts = []
    for side in (-1.0, 1.0):
        for front in (28.0, -42.0):
            parts.append(
                new_part(
                    generator,
                    kind="cap",
                    centre_mm=(side * uniform(generator, 14, 26), front, uniform(generator, 8, 22)),
                    radii_mm=(uniform(generator, 2.5, 8), uniform(generator, 10, 24), 1.0),
                    irregularity=uniform(generator, 0.2, 0.6),
                    softness_mm=uniform(generator, 0.8, 1.6),
                    water=severity * uniform(generator, 0.6, 1.2),
                    texture=uniform(generator, 0.05, 0.3),
                    avoid_grey=0.6,
                )
            )
    deep = anatomy.tissues[WM] * (anatomy.ventricle_distance_mm > 6) * (anatomy.surface_distance_mm > 10)
    for _ in range(int(uniform(generator, 4, 30))):
        radius = uniform(generator, 1.3, 4.5)
        parts.append(
            new_part(
                generator,
                kind="blob",
                centre_mm=pick_point(deep, anatomy, generator),
                radii_mm=(radius, radius * uniform(generator, 0.8, 1.6), radius),
                irregularity=uniform(generator, 0.2, 0.5),
                softness_mm=uniform(generator, 0.6, 1.3),
                water=severity * uniform(generator, 0.4, 1.1),
                texture=uniform(generator, 0.05, 0.3),
                avoid_grey=0.6,
            )
        )
    return LesionParams(pathology="wmh", parts=tuple(parts), sign=draw_sign(generator))


@PATHOLOGIES.register("stroke")
def sample_stroke(anatomy: Anatomy, generator: torch.Generator) -> LesionParams:
    """Draw an infarct of one hemisphere: acute (swollen, bright on T2) or chronic (a cavity with a gliotic rim)."""
    near_surface = (anatomy.tissues[GM] + anatomy.tissues[DEEP]) * (anatomy.surface_distance_mm > 4)
    centre = pick_point(near_surface, anatomy, generator)
    size = uniform(generator, 8, 34)
    radii = (
        size * uniform(generator, 0.6, 1.0),
        size * uniform(generator, 0.8, 1.4),
        size * uniform(generator, 0.7, 1.2),
    )
    chronic = uniform(generator, 0, 1) < 0.5
    irregularity, softness = uniform(generator, 0.25, 0.5), uniform(generator, 0.8, 1.8)
    outer = new_part(
        generator,
        kind="territory",
        centre_mm=centre,
        radii_mm=radii,
        irregularity=irregularity,
        softness_mm=softness,
        water=uniform(generator, 0.35, 1.0),
        texture=uniform(generator, 0.1, 0.4),
    )
    parts: tuple[PartParams, ...] = (outer,)
    if chronic:
        shrink = uniform(generator, 0.55, 0.85)
        core = outer.model_copy(
            update={
                "radii_mm": tuple(r * shrink for r in radii),
                "fluid": uniform(generator, 0.5, 1.0),
                "water": 0.0,
                "softness_mm": softness * 0.8,
            }
        )
        parts = (outer, core)
    return LesionParams(pathology="stroke", parts=parts, sign=draw_sign(generator))


@PATHOLOGIES.register("tumour")
def sample_tumour(anatomy: Anatomy, generator: torch.Generator) -> LesionParams:
    """Draw a glioma: oedema along white matter, a core, in half of them a necrotic centre; it pushes what is around."""
    inside = (anatomy.tissues[WM] + 0.3 * anatomy.tissues[GM]) * (anatomy.surface_distance_mm > 14)
    centre = pick_point(inside, anatomy, generator)
    size = uniform(generator, 7, 20)

    def radii(factor: float) -> tuple[float, float, float]:
        return tuple(size * factor * uniform(generator, 0.75, 1.3) for _ in range(3))  # type: ignore[return-value]

    swelling = uniform(generator, 1.2, 2.2)
    oedema = new_part(
        generator,
        kind="blob",
        centre_mm=centre,
        radii_mm=radii(swelling),
        irregularity=uniform(generator, 0.25, 0.5),
        softness_mm=uniform(generator, 1.0, 2.5),
        water=uniform(generator, 0.3, 0.85),
        texture=uniform(generator, 0.1, 0.3),
        avoid_grey=0.6,
        fills_sulci=0.5,
    )
    core = new_part(
        generator,
        kind="blob",
        centre_mm=centre,
        radii_mm=radii(1.0),
        irregularity=uniform(generator, 0.15, 0.35),
        softness_mm=uniform(generator, 0.8, 1.6),
        water=uniform(generator, 0.2, 0.9),
        texture=uniform(generator, 0.3, 0.7),
        fills_sulci=1.0,
    )
    parts: tuple[PartParams, ...] = (oedema, core)
    if uniform(generator, 0, 1) < 0.5:
        necrosis = new_part(
            generator,
            kind="blob",
            centre_mm=centre,
            radii_mm=radii(0.55),
            irregularity=uniform(generator, 0.2, 0.4),
            softness_mm=1.0,
            water=uniform(generator, 0.1, 0.6),
            fluid=uniform(generator, 0.3, 0.9),
            texture=0.2,
            fills_sulci=1.0,
        )
        parts = (oedema, core, necrosis)
    return LesionParams(
        pathology="tumour",
        parts=parts,
        push_mm=uniform(generator, 0, 0.45) * size * 0.6,
        push_reach_mm=size * uniform(generator, 1.0, 1.5),
        push_centre_mm=centre,
        sign=draw_sign(generator),
    )
