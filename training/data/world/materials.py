"""What the street is made of: kinds of things (labels derive from them) and materials (colours derive from them)."""

from enum import IntEnum

import numpy as np

from training.label_spaces import IGNORE, SYNTHIA_TO_CITYSCAPES


class Kind(IntEnum):
    """What a pixel shows. The first 15 are the train ids of VIPER -> Cityscapes; SYNTHIA needs the two after them."""

    ROAD = 0
    SIDEWALK = 1
    BUILDING = 2
    FENCE = 3
    LIGHT = 4
    SIGN = 5
    VEGETATION = 6
    TERRAIN = 7
    SKY = 8
    PERSON = 9
    CAR = 10
    TRUCK = 11
    BUS = 12
    MOTORCYCLE = 13
    BICYCLE = 14
    POLE = 15
    RIDER = 16
    STATIC = 17  # stalls, crates, bins, garlands: no benchmark trains them


# As Cityscapes is read for VIPER: a rider is a person, poles are not trained.
TRAIN_ID_OF_KIND = np.array([*range(15), IGNORE, Kind.PERSON, IGNORE], np.int8)
# As it is read for SYNTHIA: poles and riders are trained; terrain, two-wheelers, trucks and buses are not.
SYNTHIA_TRAIN_ID_OF_KIND = np.array(
    [
        SYNTHIA_TO_CITYSCAPES.names.index(name)
        if (name := kind.name.lower()) in SYNTHIA_TO_CITYSCAPES.names
        else IGNORE
        for kind in Kind
    ],
    np.int8,
)
TRAIN_IDS_OF_KINDS = {"viper": TRAIN_ID_OF_KIND, "synthia": SYNTHIA_TRAIN_ID_OF_KIND}  # by `World.classes`


class Material(IntEnum):
    """What gives a pixel its colour and texture. `NOTHING` is transparent."""

    NOTHING = 0
    ASPHALT = 1
    MARKING = 2
    PAVING = 3
    CURB = 4
    GRASS = 5
    FACADE = 6
    WINDOW = 7
    SHOP = 8
    ROOF = 9
    FENCE = 10
    FOLIAGE = 11
    TRUNK = 12
    SKY = 13
    CLOUD = 14
    CAR_PAINT = 15
    TRUCK_PAINT = 16
    BUS_PAINT = 17
    CARGO = 18
    MOTORCYCLE_PAINT = 19
    BICYCLE_PAINT = 20
    GLASS = 21
    RUBBER = 22
    HEADLAMP = 23
    TAIL_LAMP = 24
    PLATE = 25
    SKIN = 26
    HAIR = 27
    TOP = 28
    TROUSERS = 29
    SIGN = 30
    SIGN_MARK = 31
    POLE = 32
    LIGHT_BOX = 33
    LAMP_ON = 34
    LAMP_OFF = 35


NUM_KINDS = len(Kind)
NUM_MATERIALS = len(Material)


def kind_table() -> np.ndarray[tuple[int, int], np.dtype[np.int8]]:
    """(kind of an object, material) -> kind of the pixel: poles carry signs, riders sit on two-wheelers."""
    table = np.repeat(np.arange(NUM_KINDS, dtype=np.int8)[:, None], NUM_MATERIALS, axis=1)
    table[:, Material.POLE] = Kind.POLE
    for vehicle in (Kind.MOTORCYCLE, Kind.BICYCLE):
        table[vehicle, [Material.SKIN, Material.HAIR, Material.TOP, Material.TROUSERS]] = Kind.RIDER
    return table
