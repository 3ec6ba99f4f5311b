"""The diseases of the virtual cohort: how many lesions, where, how large, and how they look."""

from functools import partial

import torch

from halebrain.simulation.anatomy import CSF, DEEP, GM, WM, Anatomy
from halebrain.simulation.pathology import (
    PATHOLOGIES,
    LesionParams,
    PartParams,
    draw_sign,
    new_part,
    pick_point,
    uniform,
)

Triple = tuple[float, float, float]


@PATHOLOGIES.register("ms")
def sample_ms(anatomy: Anatomy, generator: torch.Generator) -> LesionParams:
    """Draw multiple sclerosis: many small ovoid lesions, most of them periventricular, of very different contrast."""
    u = partial(uniform, generator)
    white = anatomy.tissues[WM]
    ventricle, depth = anatomy.ventricle_distance_mm, anatomy.surface_distance_mm
    # Periventricular, juxtacortical and deep white matter; the numbers below are the shares of the first two.
    places = (
        white * (ventricle < 12) * (ventricle > 1),
        white * (depth < 14) * (depth > 5),
        white * (ventricle > 8) * (depth > 10),
    )
    severity = u(0.65, 1.15)
    parts = []
    for _ in range(int(u(10, 50))):
        kind = u(0, 1)
        weight = places[0 if kind < 0.55 else 1 if kind < 0.75 else 2]
        radius = min(9.0, 2.3 * float(torch.exp(0.5 * torch.randn((), generator=generator))) + 1.0)
        long = u(1.0, 2.0)
        parts.append(
            new_part(
                generator,
                kind="blob",
                centre_mm=pick_point(weight, anatomy, generator),
                # Dawson's fingers stand at right angles to the ventricles, which is mostly left–right.
                radii_mm=(radius * long, radius * u(0.8, 1.4), radius),
                irregularity=u(0.15, 0.45),
                softness_mm=u(0.5, 1.1),
                water=severity * u(0.5, 1.2),
                texture=u(0.05, 0.3),
                avoid_grey=u(0.0, 0.6),
            )
        )
    return LesionParams(pathology="ms", parts=tuple(parts), sign=draw_sign(generator))


@PATHOLOGIES.register("wmh")
def sample_wmh(anatomy: Anatomy, generator: torch.Generator) -> LesionParams:
    """Draw white-matter hyperintensities: bands at the horns of the ventricles, confluent patches, and dots."""
    u = partial(uniform, generator)
    severity = u(0.7, 1.2)
    parts = []
    for side in (-1.0, 1.0):
        for front in (28.0, -42.0):
            parts.append(
                new_part(
                    generator,
                    kind="cap",
                    centre_mm=(side * u(14, 26), front, u(8, 22)),
                    radii_mm=(u(2.5, 8), u(10, 24), 1.0),
                    irregularity=u(0.2, 0.6),
                    softness_mm=u(0.8, 1.6),
                    water=severity * u(0.6, 1.2),
                    texture=u(0.05, 0.3),
                    avoid_grey=0.6,
                )
            )
    deep = anatomy.tissues[WM] * (anatomy.ventricle_distance_mm > 6) * (anatomy.surface_distance_mm > 10)
    for _ in range(int(u(4, 30))):
        radius = u(1.3, 4.5)
        parts.append(
            new_part(
                generator,
                kind="blob",
                centre_mm=pick_point(deep, anatomy, generator),
                radii_mm=(radius, radius * u(0.8, 1.6), radius),
                irregularity=u(0.2, 0.5),
                softness_mm=u(0.6, 1.3),
                water=severity * u(0.4, 1.1),
                texture=u(0.05, 0.3),
                avoid_grey=0.6,
            )
        )
    return LesionParams(pathology="wmh", parts=tuple(parts), sign=draw_sign(generator))


@PATHOLOGIES.register("stroke")
def sample_stroke(anatomy: Anatomy, generator: torch.Generator) -> LesionParams:
    """Draw an infarct of one hemisphere: acute (bright on T2, not swollen) or chronic (a cavity with gliotic rim)."""
    u = partial(uniform, generator)
    near_surface = (anatomy.tissues[GM] + anatomy.tissues[DEEP]) * (anatomy.surface_distance_mm > 4)
    centre = pick_point(near_surface, anatomy, generator)
    size = u(8, 34)
    radii = (size * u(0.6, 1.0), size * u(0.8, 1.4), size * u(0.7, 1.2))
    chronic = u(0, 1) < 0.5
    irregularity, softness = u(0.25, 0.5), u(0.8, 1.8)
    outer = new_part(
        generator,
        kind="territory",
        centre_mm=centre,
        radii_mm=radii,
        irregularity=irregularity,
        softness_mm=softness,
        water=u(0.35, 1.0),
        texture=u(0.1, 0.4),
    )
    parts: tuple[PartParams, ...] = (outer,)
    if chronic:
        shrink = u(0.55, 0.85)
        core = outer.model_copy(
            update={
                "radii_mm": tuple(r * shrink for r in radii),
                "fluid": u(0.5, 1.0),
                "water": 0.0,
                "softness_mm": softness * 0.8,
            }
        )
        parts = (outer, core)
    return LesionParams(pathology="stroke", parts=parts, sign=draw_sign(generator))


@PATHOLOGIES.register("tumour")
def sample_tumour(anatomy: Anatomy, generator: torch.Generator) -> LesionParams:
    """Draw a glioma: oedema along white matter, a core, in half of them a necrotic centre; it pushes what is around."""
    u = partial(uniform, generator)
    inside = (anatomy.tissues[WM] + 0.3 * anatomy.tissues[GM]) * (anatomy.surface_distance_mm > 14)
    centre = pick_point(inside, anatomy, generator)
    size = u(7, 20)

    def radii(factor: float) -> tuple[float, float, float]:
        return tuple(size * factor * u(0.75, 1.3) for _ in range(3))  # type: ignore[return-value]

    swelling = u(1.2, 2.2)
    oedema = new_part(
        generator,
        kind="blob",
        centre_mm=centre,
        radii_mm=radii(swelling),
        irregularity=u(0.25, 0.5),
        softness_mm=u(1.0, 2.5),
        water=u(0.3, 0.85),
        texture=u(0.1, 0.3),
        avoid_grey=0.6,
        fills_sulci=0.5,
    )
    core = new_part(
        generator,
        kind="blob",
        centre_mm=centre,
        radii_mm=radii(1.0),
        irregularity=u(0.15, 0.35),
        softness_mm=u(0.8, 1.6),
        water=u(0.2, 0.9),
        texture=u(0.3, 0.7),
        fills_sulci=1.0,
    )
    parts: tuple[PartParams, ...] = (oedema, core)
    if u(0, 1) < 0.5:
        necrosis = new_part(
            generator,
            kind="blob",
            centre_mm=centre,
            radii_mm=radii(0.55),
            irregularity=u(0.2, 0.4),
            softness_mm=1.0,
            water=u(0.1, 0.6),
            fluid=u(0.3, 0.9),
            texture=0.2,
            fills_sulci=1.0,
        )
        parts = (oedema, core, necrosis)
    return LesionParams(
        pathology="tumour",
        parts=parts,
        push_mm=u(0, 0.45) * size * 0.6,
        push_reach_mm=size * u(1.0, 1.5),
        push_centre_mm=centre,
        sign=draw_sign(generator),
    )


@PATHOLOGIES.register("haemorrhage")
def sample_haemorrhage(anatomy: Anatomy, generator: torch.Generator) -> LesionParams:
    """Draw a bleeding of any age, bright or dark in each contrast by itself, in a rim of oedema."""
    u = partial(uniform, generator)
    inside = (anatomy.tissues[WM] + anatomy.tissues[DEEP] + 0.3 * anatomy.tissues[GM]) * (
        anatomy.surface_distance_mm > 6
    )
    centre, size = pick_point(inside, anatomy, generator), u(5, 20)
    looks = (u(-1.0, 0.8), u(-0.8, 1.1), u(-0.7, 1.1))
    clot = _blob(generator, centre, size, water=u(0.5, 1.1), looks=looks, fills_sulci=0.8)
    oedema = _blob(generator, centre, size * u(1.2, 1.8), water=u(0.25, 0.8), avoid_grey=0.5)
    return LesionParams(
        pathology="haemorrhage",
        parts=(oedema, clot),
        push_mm=u(0, 0.2) * size,
        push_reach_mm=size * u(1.0, 1.5),
        push_centre_mm=centre,
        sign=draw_sign(generator),
    )


@PATHOLOGIES.register("cavity")
def sample_cavity(anatomy: Anatomy, generator: torch.Generator) -> LesionParams:
    """Draw what surgery or old injury leaves: a hole filled with CSF that reaches the surface, with a gliotic rim."""
    u = partial(uniform, generator)
    near = (anatomy.tissues[GM] + anatomy.tissues[WM]) * (anatomy.surface_distance_mm > 3)
    near = near * (anatomy.surface_distance_mm < 26)
    centre, size = pick_point(near, anatomy, generator), u(7, 24)
    rim = _blob(generator, centre, size * u(1.1, 1.5), water=u(0.3, 1.0), fills_sulci=0.3)
    hole = _blob(generator, centre, size, water=0.0, fluid=u(0.8, 1.0), fills_sulci=1.0, texture=0.05)
    return LesionParams(pathology="cavity", parts=(rim, hole), sign=draw_sign(generator))


@PATHOLOGIES.register("mass")
def sample_mass(anatomy: Anatomy, generator: torch.Generator) -> LesionParams:
    """Draw one to five dense masses with sharp borders, from the surface (meningioma) or within (metastases)."""
    u = partial(uniform, generator)
    outer = u(0, 1) < 0.5
    depth = anatomy.surface_distance_mm
    place = (depth > 2) * (depth < 9) * (1 - 0.9 * anatomy.tissues[CSF]) if outer else anatomy.tissues[WM] * (depth > 8)
    parts: list[PartParams] = []
    centre, size = pick_point(place, anatomy, generator), u(6, 22)
    for number in range(1 if outer else int(u(1, 6))):
        if number > 0:
            centre, size = pick_point(place, anatomy, generator), u(4, 12)
        looks = (u(-0.3, 1.2), u(-0.2, 1.2), u(-0.2, 1.2))
        if u(0, 1) < 0.6:
            parts.append(_blob(generator, centre, size * u(1.3, 2.0), water=u(0.3, 0.9), avoid_grey=0.7))
        parts.append(_blob(generator, centre, size, water=u(0.2, 0.9), solid=u(0.2, 0.9), looks=looks, fills_sulci=1.0))
    return LesionParams(
        pathology="mass",
        parts=tuple(parts),
        push_mm=u(0, 0.35) * size if outer else 0.0,
        push_reach_mm=size * u(1.0, 1.5),
        push_centre_mm=centre,
        sign=draw_sign(generator),
    )


def _blob(generator: torch.Generator, centre_mm: Triple, size_mm: float, **values: object) -> PartParams:
    """Return a sharp, slightly irregular ellipsoid."""
    u = partial(uniform, generator)
    radii = tuple(size_mm * u(0.7, 1.3) for _ in range(3))
    usual = {
        "kind": "blob",
        "irregularity": u(0.1, 0.45),
        "softness_mm": u(0.5, 1.6),
        "texture": u(0.05, 0.5),
    }
    return new_part(generator, centre_mm=centre_mm, radii_mm=radii, **(usual | values))
