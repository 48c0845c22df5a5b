"""Answers, speech and sounds from a checkpoint, under a grammar that makes every generated span decode and end."""

from alm.generation.sampling import GREEDY, Sampling
from alm.generation.streaming import stream_speech
from alm.generation.tasks import Sound, answer, make_sound, speak

__all__ = ["GREEDY", "Sampling", "Sound", "answer", "make_sound", "speak", "stream_speech"]
