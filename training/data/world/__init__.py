"""A procedural street seen from a moving car: rendered in milliseconds, with exact labels and flow."""

from training.data.world.look import Look
from training.data.world.looks import LOOKS
from training.data.world.render import RenderedClip, render_clip

__all__ = ["LOOKS", "Look", "RenderedClip", "render_clip"]
