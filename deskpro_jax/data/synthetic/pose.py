"""How a person stands in one image: viewpoint, expression and the joints of the body."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from deskpro_jax.data.synthetic.person import Person

WIDTH, HEIGHT = 128, 256  # of a body image, pixels
BACK_VIEWS = 0.125  # share of images without a visible face


@dataclasses.dataclass(frozen=True)
class BodyView:
    """Viewpoint and expression; angles in radians."""

    back: bool
    yaw: float  # of the head, positive to the image's right
    body_yaw: float
    pitch: float
    roll: float
    smile: float  # -1 to 1
    mouth_open: float  # 0 to 1
    eyes_open: float  # 0.6 to 1


@dataclasses.dataclass(frozen=True)
class Joints:
    """Places in the body image, pixels; pairs are [2, 2], the image's left side first."""

    unit: float  # face height
    head: np.ndarray  # centre of the face
    neck: np.ndarray  # foot of the neck
    shoulder_y: float  # top of the shoulders
    shoulders: np.ndarray
    elbows: np.ndarray
    wrists: np.ndarray
    hips: np.ndarray
    knees: np.ndarray
    ankles: np.ndarray
    pelvis: np.ndarray
    body: float  # body height
    shoulder_half: float
    waist_half: float
    hip_half: float
    toes: np.ndarray  # outward angle of either foot, radians [2]


def sample_view(person: Person, rng: np.random.Generator) -> BodyView:
    """Draws the viewpoint and expression of an image.

    Args:
        person: whose head carriage the view keeps to.
        rng: the image's source of randomness.
    """
    yaw = rng.uniform(-36, 36)
    return BodyView(
        back=bool(rng.uniform() < BACK_VIEWS),
        yaw=math.radians(yaw),
        body_yaw=math.radians(0.4 * yaw + rng.uniform(-15, 15)),
        pitch=math.radians(rng.uniform(-14, 14)),
        roll=math.radians(person.gait.head_roll + rng.normal(0, 4.0)),
        smile=rng.uniform(-0.6, 1.0),
        mouth_open=max(0.0, rng.uniform(-1.5, 1.0)),
        eyes_open=rng.uniform(0.75, 1.05),
    )


def _arm(person: Person, side: int, swing: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Directions of upper arm and forearm (x, y, foreshortening included), for the side -1 or 1."""
    gait = person.gait
    out = math.radians(gait.carry + gait.swing * abs(swing) * 0.4 + rng.normal(0, 1.5))
    bend = math.radians(gait.elbow * (0.6 + 0.4 * swing) + rng.normal(0, 3))
    gesture = rng.uniform()
    if gesture < 0.10:  # hand in the pocket or on the hip
        out, bend = out + math.radians(rng.uniform(8, 22)), math.radians(rng.uniform(45, 80))
    elif gesture < 0.18:  # hand raised
        out, bend = out + math.radians(rng.uniform(0, 15)), math.radians(rng.uniform(110, 150))
    upper = np.array([side * math.sin(out), math.cos(out)])
    fore = np.array([side * math.sin(out - bend), math.cos(out - bend)])
    return upper, fore * (1.0 - 0.15 * abs(swing))


def sample_joints(person: Person, view: BodyView, rng: np.random.Generator) -> Joints:
    """Draws scale, place and posture of a person in a body image.

    Args:
        person: whose build and gait the joints follow.
        view: viewpoint of the image.
        rng: the image's source of randomness.

    Returns:
        The joints in pixels of a 128 x 256 image.
    """
    build, gait = person.build, person.gait
    body = rng.uniform(206, 228)
    unit = 0.76 * body / build.heads
    floor = rng.uniform(max(236.0, body + 15), 250.0)
    centre = WIDTH / 2 + rng.uniform(-5, 5)
    across = 0.55 + 0.45 * math.cos(view.body_yaw)  # bodies are not flat: turning narrows them only partly
    phase = rng.uniform(0, 2 * math.pi)
    lean = math.tan(math.radians(gait.lean + rng.normal(0, 1.2)))

    shoulder_half = build.shoulders * body * across
    hip_half = build.hips * body * across
    hip_y = floor - build.legs * body
    head_y = floor - body + 0.76 * unit
    neck_y = head_y + (0.5 + build.neck) * unit
    pelvis = np.array([centre, hip_y])
    neck = np.array([centre + lean * (hip_y - neck_y), neck_y])
    head = np.array([neck[0] + lean * unit + 0.25 * unit * math.sin(view.roll), head_y])

    drop = (build.slope + 0.005 * rng.normal()) * body
    sides = np.array([-1.0, 1.0])
    top = neck_y + drop
    arm = build.arm * body  # arms hang from inside the outline of the shoulders
    tilt = sides * (gait.shoulder_tilt * (-1 if view.back else 1) + 0.003 * rng.normal()) * body
    shoulders = np.stack([neck[0] + sides * (shoulder_half - 0.7 * arm), top + 0.9 * arm + tilt], axis=1)
    elbows, wrists = shoulders.copy(), shoulders.copy()
    for k, side in enumerate((-1, 1)):
        upper, fore = _arm(person, side, math.sin(phase) * side, rng)
        elbows[k] = shoulders[k] + upper * 0.165 * body
        wrists[k] = elbows[k] + fore * 0.150 * body

    hips = pelvis + np.stack([sides * hip_half * 0.52, np.zeros(2)], axis=1)
    step = gait.stride * math.cos(phase) * (0.25 + 1.3 * abs(math.sin(view.body_yaw)))
    lift = np.maximum(0.0, math.sin(phase) * sides) * gait.stride * 0.055 * body
    ankle_x = pelvis[0] + sides * hip_half * 0.62 * gait.stance + sides * step * 0.07 * body
    ankles = np.stack([ankle_x, floor - 0.035 * body - lift], axis=1)
    bow = sides * body * (build.bow + 0.010 * (gait.stance - 0.7)) + sides * 0.25 * lift
    knees = 0.5 * (hips + ankles) + np.stack([bow, np.zeros(2)], axis=1)
    return Joints(
        unit=unit,
        head=head,
        neck=neck,
        shoulder_y=top,
        shoulders=shoulders,
        elbows=elbows,
        wrists=wrists,
        hips=hips,
        knees=knees,
        ankles=ankles,
        pelvis=pelvis,
        body=body,
        shoulder_half=shoulder_half,
        waist_half=build.waist * body * across,
        hip_half=hip_half,
        toes=np.radians(gait.toe_out + rng.normal(0, 4, 2)),
    )
