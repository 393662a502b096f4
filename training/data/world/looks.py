"""The looks: three of the same streets, and one of streets elsewhere.

Source, mid and target show the same geometry in other colours, textures and through other cameras; random colours of
the source close most of the gap between them. Abroad is another place: its gap survives that.
"""

from dataclasses import fields

from training.data.world.look import CameraEffects, Color, Look
from training.data.world.look_abroad import ABROAD
from training.data.world.materials import Material
from training.data.world.places import Range

SOURCE = Look(
    name="source",
    palettes={
        Material.ASPHALT: ((74, 74, 82), (86, 84, 90), (64, 64, 72)),
        Material.MARKING: ((236, 236, 230),),
        Material.PAVING: ((176, 168, 158), (190, 178, 160), (160, 158, 160)),
        Material.CURB: ((206, 202, 196),),
        Material.GRASS: ((96, 158, 60), (120, 170, 66), (84, 140, 58)),
        Material.FACADE: (
            (206, 150, 110),
            (214, 190, 130),
            (176, 96, 80),
            (150, 160, 190),
            (222, 208, 190),
            (190, 140, 170),
        ),
        Material.WINDOW: ((70, 96, 130), (60, 80, 104)),
        Material.SHOP: ((80, 110, 130), (180, 70, 60), (50, 90, 70)),
        Material.ROOF: ((120, 60, 48), (80, 72, 74)),
        Material.FENCE: ((132, 86, 52), (150, 104, 70), (176, 176, 180)),
        Material.FOLIAGE: ((52, 116, 44), (74, 136, 48), (40, 98, 52), (100, 146, 50)),
        Material.TRUNK: ((96, 70, 48),),
        Material.SKY: ((70, 138, 214), (88, 152, 224), (60, 120, 200)),
        Material.CLOUD: ((240, 244, 250),),
        Material.CAR_PAINT: (
            (206, 40, 36),
            (40, 70, 180),
            (236, 236, 240),
            (24, 24, 28),
            (180, 184, 190),
            (226, 176, 40),
            (40, 130, 80),
        ),
        Material.TRUCK_PAINT: ((210, 60, 40), (50, 90, 170), (230, 230, 224)),
        Material.BUS_PAINT: ((234, 176, 28), (200, 44, 40), (60, 120, 190)),
        Material.CARGO: ((232, 232, 226), (120, 150, 190), (214, 160, 90)),
        Material.MOTORCYCLE_PAINT: ((210, 40, 30), (30, 30, 34), (40, 90, 190)),
        Material.BICYCLE_PAINT: ((200, 40, 60), (40, 160, 190), (240, 210, 60)),
        Material.GLASS: ((44, 58, 74), (56, 70, 84)),
        Material.RUBBER: ((24, 24, 26),),
        Material.HEADLAMP: ((250, 246, 220),),
        Material.TAIL_LAMP: ((210, 24, 20),),
        Material.PLATE: ((214, 214, 210),),
        Material.SKIN: ((226, 178, 146), (180, 124, 90), (120, 80, 58)),
        Material.HAIR: ((50, 36, 28), (110, 80, 44), (26, 22, 22)),
        Material.TOP: ((200, 50, 50), (50, 90, 190), (236, 220, 90), (60, 150, 90), (240, 240, 240), (150, 60, 150)),
        Material.TROUSERS: ((40, 50, 90), (36, 36, 40), (120, 100, 76)),
        Material.SIGN: ((206, 24, 32), (24, 80, 190), (244, 200, 30), (20, 130, 70)),
        Material.SIGN_MARK: ((246, 246, 246),),
        Material.POLE: ((120, 124, 128),),
        Material.LIGHT_BOX: ((30, 34, 32),),
        Material.LAMP_ON: ((60, 230, 110), (250, 60, 50), (250, 190, 50)),
        Material.LAMP_OFF: ((66, 56, 50),),
    },
    textures={
        Material.ASPHALT: (0.06, 0.06, 0.06, 0.07),
        Material.PAVING: (0.05, 0.05, 0.05, 0.05),
        Material.CURB: (0.03, 0.03, 0.03, 0.03),
        Material.GRASS: (0.10, 0.10, 0.14, 0.16),
        Material.FACADE: (0.07, 0.05, 0.04, 0.05),
        Material.WINDOW: (0.10, 0.10, 0.0, 0.0),
        Material.ROOF: (0.05, 0.05, 0.08, 0.05),
        Material.FENCE: (0.06, 0.06, 0.08, 0.08),
        Material.FOLIAGE: (0.12, 0.18, 0.24, 0.14),
        Material.TRUNK: (0.0, 0.05, 0.12, 0.1),
        Material.CAR_PAINT: (0.04, 0.05, 0.0, 0.0),
        Material.TRUCK_PAINT: (0.04, 0.05, 0.0, 0.0),
        Material.BUS_PAINT: (0.04, 0.05, 0.0, 0.0),
        Material.CARGO: (0.04, 0.05, 0.03, 0.0),
        Material.GLASS: (0.0, 0.14, 0.12, 0.0),
        Material.TOP: (0.0, 0.0, 0.10, 0.06),
        Material.TROUSERS: (0.0, 0.0, 0.08, 0.06),
    },
    jitter=0.07,
    shade=0.3,
    haze_color=(206, 222, 240),
    effects=CameraEffects(
        haze=(0.0008, 0.004),
        saturation=(1.0, 1.2),
        exposure=(0.92, 1.1),
        warmth=(-0.02, 0.06),
        contrast=(1.0, 1.12),
        gamma=(0.95, 1.05),
        vignette=(0.0, 0.06),
        blur=(0.0, 0.25),
        noise=(0.5, 2.0),
    ),
)

# Another city in another season under another camera: pale dusty ground, dark bricks, ochre trees, white sky.
TARGET = Look(
    name="target",
    palettes={
        Material.ASPHALT: ((150, 134, 118), (164, 146, 130), (138, 126, 112)),
        Material.MARKING: ((202, 192, 168),),
        Material.PAVING: ((104, 88, 82), (116, 96, 84), (92, 84, 82)),
        Material.CURB: ((140, 122, 110),),
        Material.GRASS: ((146, 126, 84), (158, 140, 98), (126, 116, 74)),
        Material.FACADE: ((92, 90, 96), (112, 104, 92), (84, 68, 62), (72, 80, 84), (124, 116, 110), (102, 82, 84)),
        Material.WINDOW: ((150, 146, 136), (164, 156, 140)),
        Material.SHOP: ((140, 126, 110), (100, 66, 58), (98, 102, 84)),
        Material.ROOF: ((70, 60, 60), (60, 58, 62)),
        Material.FENCE: ((92, 92, 80), (110, 104, 90), (84, 88, 92)),
        Material.FOLIAGE: ((98, 84, 48), (116, 94, 46), (76, 78, 56), (134, 104, 54)),
        Material.TRUNK: ((60, 52, 48),),
        Material.SKY: ((196, 186, 176), (206, 196, 182), (184, 178, 174)),
        Material.CLOUD: ((222, 212, 198),),
        Material.CAR_PAINT: (
            (92, 46, 56),
            (64, 66, 84),
            (170, 160, 146),
            (48, 44, 46),
            (124, 118, 112),
            (136, 118, 84),
            (62, 84, 80),
        ),
        Material.TRUCK_PAINT: ((116, 78, 66), (70, 80, 96), (160, 152, 138)),
        Material.BUS_PAINT: ((140, 130, 112), (110, 66, 62), (88, 100, 118)),
        Material.CARGO: ((150, 142, 126), (104, 106, 110), (130, 112, 90)),
        Material.MOTORCYCLE_PAINT: ((100, 54, 48), (52, 48, 48), (64, 74, 92)),
        Material.BICYCLE_PAINT: ((106, 60, 62), (74, 98, 104), (136, 126, 84)),
        Material.GLASS: ((112, 108, 104), (124, 118, 112)),
        Material.RUBBER: ((44, 40, 38),),
        Material.HEADLAMP: ((230, 218, 180),),
        Material.TAIL_LAMP: ((150, 56, 44),),
        Material.PLATE: ((160, 152, 138),),
        Material.SKIN: ((176, 138, 114), (144, 104, 82), (104, 76, 62)),
        Material.HAIR: ((44, 38, 36), (78, 64, 52), (34, 32, 32)),
        Material.TOP: ((70, 58, 60), (60, 64, 78), (120, 112, 90), (66, 78, 70), (140, 132, 122), (80, 62, 80)),
        Material.TROUSERS: ((52, 54, 62), (46, 44, 46), (84, 76, 66)),
        Material.SIGN: ((140, 60, 56), (66, 86, 124), (164, 142, 80), (66, 96, 84)),
        Material.SIGN_MARK: ((188, 178, 160),),
        Material.POLE: ((92, 88, 84),),
        Material.LIGHT_BOX: ((62, 60, 54),),
        Material.LAMP_ON: ((130, 200, 150), (220, 110, 90), (220, 180, 100)),
        Material.LAMP_OFF: ((84, 78, 70),),
    },
    textures={
        Material.ASPHALT: (0.14, 0.10, 0.03, 0.02),
        Material.PAVING: (0.02, 0.03, 0.10, 0.12),
        Material.CURB: (0.03, 0.03, 0.03, 0.03),
        Material.GRASS: (0.04, 0.05, 0.06, 0.06),
        Material.FACADE: (0.02, 0.03, 0.10, 0.12),
        Material.WINDOW: (0.04, 0.05, 0.0, 0.0),
        Material.ROOF: (0.03, 0.03, 0.05, 0.05),
        Material.FENCE: (0.12, 0.12, 0.04, 0.02),
        Material.FOLIAGE: (0.06, 0.09, 0.12, 0.20),
        Material.TRUNK: (0.0, 0.1, 0.06, 0.1),
        Material.CAR_PAINT: (0.10, 0.08, 0.04, 0.0),
        Material.TRUCK_PAINT: (0.10, 0.08, 0.04, 0.0),
        Material.BUS_PAINT: (0.10, 0.08, 0.04, 0.0),
        Material.CARGO: (0.08, 0.08, 0.06, 0.03),
        Material.GLASS: (0.0, 0.06, 0.05, 0.0),
        Material.TOP: (0.0, 0.0, 0.06, 0.03),
        Material.TROUSERS: (0.0, 0.0, 0.05, 0.03),
    },
    jitter=0.10,
    shade=0.12,
    haze_color=(206, 194, 176),
    effects=CameraEffects(
        haze=(0.012, 0.028),
        saturation=(0.35, 0.65),
        exposure=(0.62, 0.9),
        warmth=(0.04, 0.16),
        contrast=(0.7, 0.9),
        gamma=(0.85, 1.25),
        vignette=(0.25, 0.5),
        blur=(0.5, 1.1),
        noise=(6.0, 12.0),
    ),
)


def between(name: str, first: Look, second: Look, share: float, effects_share: float) -> Look:
    """A look that is `share` of the way from one to another, and its camera effects `effects_share` of theirs."""

    def mix(a: tuple[float, ...], b: tuple[float, ...], share: float = share) -> tuple[float, ...]:
        return tuple((1 - share) * p + share * q for p, q in zip(a, b, strict=True))

    def mix_color(a: Color, b: Color) -> Color:
        red, green, blue = mix(a, b)
        return red, green, blue

    def mix_range(a: Range, b: Range) -> Range:
        low, high = mix(a, b, effects_share)
        return low, high

    palettes = {
        material: tuple(mix_color(a, b) for a, b in zip(colors, second.palettes[material], strict=True))
        for material, colors in first.palettes.items()
    }
    textures: dict[Material, tuple[float, float, float, float]] = {}
    for material, amplitudes in first.textures.items():
        a, b, c, d = mix(amplitudes, second.textures[material])
        textures[material] = (a, b, c, d)
    effects = {
        field.name: mix_range(getattr(first.effects, field.name), getattr(second.effects, field.name))
        for field in fields(CameraEffects)
    }
    return Look(
        name=name,
        palettes=palettes,
        textures=textures,
        jitter=(1 - share) * first.jitter + share * second.jitter,
        shade=(1 - share) * first.shade + share * second.shade,
        haze_color=mix_color(first.haze_color, second.haze_color),
        effects=CameraEffects(**effects),
    )


MID = between("mid", SOURCE, TARGET, share=0.6, effects_share=0.3)

LOOKS: dict[str, Look] = {look.name: look for look in (SOURCE, MID, TARGET, ABROAD)}
